"""Who signed a request, a revocation list or an answer about a certificate: the same suites as of certificates.

What `cryptography` has no key for (SM2) and what it has no check for (answers of OCSP) is checked here.
"""

from typing import Final

from asn1crypto import csr as asn1_csr
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import SignatureAlgorithmOID

from security.errors import Refusal
from security.keys import RSA_LEAST_BITS
from security.pki import AUTHORITY_SUITES, SM2_WITH_SM3
from security.sm2 import Sm2PublicKey, is_sm2_spki, raw_of

Signed = x509.CertificateSigningRequest | x509.CertificateRevocationList | ocsp.OCSPResponse
AuthorityKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | Sm2PublicKey
_HASHES: Final = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


def check_signed(signed: Signed, spki: bytes) -> None:
    """Return if the key has signed; else raise Refusal.

    spki: the DER SubjectPublicKeyInfo of whoever should have signed

    `signature.algorithm_refused`: by SHA-1, MD5 or whatever else is not accepted;
    `signature.key_not_accepted`: RSA below 2048 bits, a curve that is not NIST's, DSA …;
    `signature.invalid`: by another key, or altered afterwards.
    """
    oid = signed.signature_algorithm_oid
    if oid.dotted_string not in AUTHORITY_SUITES:
        raise Refusal("signature.algorithm_refused", oid._name[:80])
    key = authority_key(spki)
    try:
        _verify(signed, key)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError) as problem:
        raise Refusal("signature.invalid", "not by this key, or altered") from problem


def authority_key(spki: bytes) -> AuthorityKey:
    """The key of a DER SubjectPublicKeyInfo, if an authority may sign by it: also of curves that bureaus do not use.

    Raises Refusal `signature.key_not_accepted`.
    """
    try:
        key = Sm2PublicKey.from_spki(spki) if is_sm2_spki(spki) else serialization.load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm) as problem:
        raise Refusal("signature.key_not_accepted", "not a readable public key") from problem
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= RSA_LEAST_BITS:
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES):
        return key
    if isinstance(key, ed25519.Ed25519PublicKey | Sm2PublicKey):
        return key
    raise Refusal("signature.key_not_accepted", f"{type(key).__name__} {getattr(key, 'key_size', '')}".strip())


def spki_of_request(der: bytes) -> bytes:
    """The DER SubjectPublicKeyInfo in a DER PKCS#10 request, of whatever key. Raises ValueError."""
    request = asn1_csr.CertificationRequest.load(der, strict=True)
    octets: bytes = request["certification_request_info"]["subject_pk_info"].dump()
    return octets


def _verify(signed: Signed, key: AuthorityKey) -> None:
    """Raises InvalidSignature, or whatever `cryptography` says of an algorithm that is not of this key."""
    if (signed.signature_algorithm_oid.dotted_string == SM2_WITH_SM3) != isinstance(key, Sm2PublicKey):
        raise InvalidSignature
    if isinstance(key, Sm2PublicKey):
        key.verify(raw_of(signed.signature), _octets(signed))  # DER here, raw r ‖ s everywhere else that we verify
    elif isinstance(key, ed25519.Ed25519PublicKey):
        if signed.signature_algorithm_oid != SignatureAlgorithmOID.ED25519:
            raise InvalidSignature
        key.verify(signed.signature, _octets(signed))
    else:
        _verify_hashed(signed, key)


def _verify_hashed(signed: Signed, key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> None:
    name, hashed = signed.signature_algorithm_oid._name, signed.signature_hash_algorithm
    if not isinstance(hashed, _HASHES):  # RSA-PSS names its hash apart
        raise InvalidSignature
    if isinstance(key, ec.EllipticCurvePublicKey):
        if not name.startswith("ecdsa"):
            raise InvalidSignature
        key.verify(signed.signature, _octets(signed), ec.ECDSA(hashed))
        return
    pss = padding.PSS(mgf=padding.MGF1(hashed), salt_length=padding.PSS.AUTO)
    of_pss = signed.signature_algorithm_oid == SignatureAlgorithmOID.RSASSA_PSS
    key.verify(signed.signature, _octets(signed), pss if of_pss else padding.PKCS1v15(), hashed)


def _octets(signed: Signed) -> bytes:
    if isinstance(signed, x509.CertificateSigningRequest):
        return signed.tbs_certrequest_bytes
    if isinstance(signed, x509.CertificateRevocationList):
        return signed.tbs_certlist_bytes
    return signed.tbs_response_bytes
