"""Private keys that sign and public keys that decide: ECDSA P-256, RSA from 2048 bits, Ed25519, SM2, and nothing else.

The algorithm follows from the key and never from the message, so a message cannot choose a weaker one.
ECDSA and SM2 signatures are raw, r ‖ s of 32 octets each (RFC 7518 §3.4, XML Signature 1.1 §6.4.3), as XML and JWS
carry them.
"""

import functools
import hashlib
from pathlib import Path
from typing import Literal

from asn1crypto import pem
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from security import sm2
from security.errors import Misconfigured, Refusal
from security.sm2 import Sm2PrivateKey, Sm2PublicKey
from security.sm2_pkcs8 import pem_of_private_key, private_key_of_pem

Algorithm = Literal["ES256", "RS256", "PS256", "EdDSA", "SM2"]
Kind = Literal["ES256", "RS256", "EdDSA", "SM2"]
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey | Sm2PublicKey
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | Sm2PrivateKey

RSA_LEAST_BITS = 2048
# RFC 6979: the same key and octets give the same signature, so a receipt issued again after a crash is the same bytes.
_ECDSA_SIGN = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
_ECDSA_VERIFY = ec.ECDSA(hashes.SHA256())
_PKCS1 = padding.PKCS1v15()
_PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
_SHA256 = hashes.SHA256()


class SigningKey:
    """A private key with, if it has one, its certificate.

    algorithm:       `ES256`, `RS256`, `EdDSA` or `SM2`, by the kind of key; `PS256` for an RSA key that is told so
    certificate_der: the certificate of this key, or None
    fingerprint:     SHA-256, lower-case hex, of the certificate; of the SubjectPublicKeyInfo where there is none
    """

    def __init__(
        self, private_key: PrivateKey, certificate_der: bytes | None = None, algorithm: Algorithm | None = None
    ) -> None:
        self._private_key = private_key
        self.public_key: PublicKey = private_key.public_key()
        kind = kind_of(self.public_key)
        self.algorithm: Algorithm = algorithm or kind
        if not fits(kind, self.algorithm):
            raise Misconfigured("config.key", f"a key for {kind} does not sign by {algorithm}")
        self.certificate_der = certificate_der
        if certificate_der is not None and spki(public_key_of(certificate_der)) != spki(self.public_key):
            raise Misconfigured("config.key", "the certificate is not of this private key")
        self.fingerprint = hashlib.sha256(certificate_der or spki(self.public_key)).hexdigest()

    @classmethod
    def load(cls, path: Path, passphrase: bytes | None = None, certificate_path: Path | None = None) -> "SigningKey":
        """The key of a PEM PKCS#8 file, with the certificate of a PEM file. Raises Misconfigured naming the file."""
        try:
            private_key = _private_key_of_pem(path.read_bytes(), passphrase)
            certificate_der = None if certificate_path is None else der_of_pem(certificate_path.read_bytes())
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as problem:
            raise Misconfigured("config.key", f"{path}: no usable private key or certificate: {problem}") from problem
        if not isinstance(private_key, PrivateKey):
            raise Misconfigured("config.key", f"{path}: a key of this kind is not used here")
        try:
            return cls(private_key, certificate_der)
        except (Misconfigured, Refusal) as problem:
            raise Misconfigured("config.key", f"{path}: {problem}") from problem

    def sign(self, octets: bytes) -> bytes:
        """The signature over octets; raw r ‖ s for ECDSA and SM2, PKCS#1 v1.5 or PSS for RSA, 64 octets for Ed25519.

        By ES256, RS256 and EdDSA the same octets give the same signature; by PS256 and SM2 another one each time.
        """
        if isinstance(self._private_key, ec.EllipticCurvePrivateKey):
            r, s = decode_dss_signature(self._private_key.sign(octets, _ECDSA_SIGN))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")
        if isinstance(self._private_key, rsa.RSAPrivateKey):
            return self._private_key.sign(octets, _PSS if self.algorithm == "PS256" else _PKCS1, _SHA256)
        return self._private_key.sign(octets)

    def signing_by(self, algorithm: Algorithm) -> "SigningKey":
        """The same key, signing by algorithm. Raises Misconfigured unless its kind allows that."""
        return SigningKey(self._private_key, self.certificate_der, algorithm)

    def with_certificate(self, certificate_der: bytes) -> "SigningKey":
        """The same key, now with its certificate. Raises Misconfigured if the certificate is of another key."""
        return SigningKey(self._private_key, certificate_der, self.algorithm)

    def pem(self, passphrase: bytes | None = None) -> bytes:
        """The private key as PEM PKCS#8, encrypted when a passphrase is given."""
        if isinstance(self._private_key, Sm2PrivateKey):
            return pem_of_private_key(self._private_key, passphrase)
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if passphrase is not None:
            encryption = serialization.BestAvailableEncryption(passphrase)
        return self._private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        )

    def public_pem(self) -> bytes:
        """The public key as PEM SubjectPublicKeyInfo."""
        octets: bytes = pem.armor("PUBLIC KEY", spki(self.public_key))
        return octets

    def issuing_key(self) -> PrivateKey:
        """The private key itself, for signing a certificate; used by `security.pki` only."""
        return self._private_key


def _private_key_of_pem(text: bytes, passphrase: bytes | None) -> object:
    try:
        return serialization.load_pem_private_key(text, passphrase)
    except (UnsupportedAlgorithm, ValueError) as problem:  # perhaps because it is SM2, or encrypted by SM4
        try:
            return private_key_of_pem(text, passphrase)
        except ValueError as other:
            raise ValueError(f"{problem}; as an SM2 key: {other}") from problem


def generate(kind: Kind) -> SigningKey:
    """A new key: `ES256` (P-256), `RS256` (RSA-2048), `EdDSA` (Ed25519) or `SM2`."""
    if kind == "ES256":
        return SigningKey(ec.generate_private_key(ec.SECP256R1()))
    if kind == "RS256":
        return SigningKey(rsa.generate_private_key(65537, RSA_LEAST_BITS))
    if kind == "SM2":
        return SigningKey(sm2.generate())
    return SigningKey(ed25519.Ed25519PrivateKey.generate())


def kind_of(public_key: object) -> Kind:
    """The algorithm that a public key stands for. Raises Refusal `signature.key_not_accepted` for any other key."""
    if isinstance(public_key, ec.EllipticCurvePublicKey) and isinstance(public_key.curve, ec.SECP256R1):
        return "ES256"
    if isinstance(public_key, rsa.RSAPublicKey) and public_key.key_size >= RSA_LEAST_BITS:
        return "RS256"
    if isinstance(public_key, ed25519.Ed25519PublicKey):
        return "EdDSA"
    if isinstance(public_key, Sm2PublicKey):
        return "SM2"
    raise Refusal("signature.key_not_accepted", _name_of(public_key))


def _name_of(public_key: object) -> str:
    """What kind of key it is that is not accepted: `RSA 1024`, `secp384r1`, `Ed448`."""
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        return public_key.curve.name
    name = type(public_key).__name__.removesuffix("PublicKey").lstrip("_")
    return f"{name} {getattr(public_key, 'key_size', '')}".strip()


def fits(kind: Kind, algorithm: str) -> bool:
    """Whether a key of that kind signs by algorithm: by its own, and RSA by PSS too."""
    return algorithm == kind or (kind, algorithm) == ("RS256", "PS256")


def spki(public_key: PublicKey) -> bytes:
    """The DER SubjectPublicKeyInfo of a public key."""
    if isinstance(public_key, Sm2PublicKey):
        return public_key.spki
    return public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


@functools.lru_cache(maxsize=256)
def load_public_pem(text: bytes) -> PublicKey:
    """The public key of a PEM SubjectPublicKeyInfo. Raises Refusal `signature.key_not_accepted`."""
    try:
        name, _, der = pem.unarmor(text)
        if name != "PUBLIC KEY":
            raise ValueError(name)
    except ValueError as problem:
        raise Refusal("signature.key_not_accepted", "not a readable public key") from problem
    return public_key_of_spki(der)


def public_key_of_spki(der: bytes) -> PublicKey:
    """The public key of a DER SubjectPublicKeyInfo. Raises Refusal `signature.key_not_accepted`."""
    try:
        if sm2.is_sm2_spki(der):
            return Sm2PublicKey.from_spki(der)
        public_key = serialization.load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm) as problem:
        raise Refusal("signature.key_not_accepted", f"not a readable public key: {problem}"[:120]) from problem
    kind_of(public_key)
    assert isinstance(public_key, PublicKey)
    return public_key


def der_of_pem(pem: bytes) -> bytes:
    """The DER of the first certificate in PEM text. Raises ValueError."""
    return x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)


def ders_of_pem(pem: bytes) -> tuple[bytes, ...]:
    """The DER of every certificate in PEM text. Raises ValueError, also where there is none."""
    return tuple(one.public_bytes(serialization.Encoding.DER) for one in x509.load_pem_x509_certificates(pem))


@functools.lru_cache(maxsize=1024)
def public_key_of(certificate_der: bytes) -> PublicKey:
    """The public key of a DER certificate. Raises Refusal `signature.key_not_accepted`."""
    try:
        return public_key_of_spki(spki_of_certificate(certificate_der))
    except ValueError as problem:
        raise Refusal("signature.key_not_accepted", "certificate not readable") from problem


def spki_of_certificate(certificate_der: bytes) -> bytes:
    """The DER SubjectPublicKeyInfo of a DER certificate, of whatever key. Raises ValueError."""
    # Read by both: the one is strict about certificates, the other gives the octets of a key that it does not know.
    x509.load_der_x509_certificate(certificate_der)
    octets: bytes = asn1_x509.Certificate.load(certificate_der, strict=True).public_key.dump()
    return octets


def verify_signature(key: PublicKey | bytes, algorithm: str, signature: bytes, octets: bytes) -> None:
    """Return if signature is over octets by key; else raise Refusal `signature.invalid`.

    key:       a public key, or the DER of a certificate
    algorithm: what the message says; it must be the one the key stands for (an RSA key also allows `PS256`)
    signature: raw r ‖ s for ES256 and SM2
    """
    public_key = public_key_of(key) if isinstance(key, bytes) else key
    kind = kind_of(public_key)
    # The key decides. HMAC keyed with a public key, RSA under an EC name and "none" all end here.
    if algorithm != kind and not fits(kind, algorithm):
        raise Refusal("signature.algorithm_not_of_key", f"{algorithm!r:.40} with a key for {kind}")
    try:
        _verify(public_key, algorithm, signature, octets)
    except InvalidSignature as problem:
        raise Refusal("signature.invalid", "signed with another key, or altered after signing") from problem


def _verify(public_key: PublicKey, algorithm: str, signature: bytes, octets: bytes) -> None:
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        # Exactly 64 octets: a DER signature or a shortened one is another encoding of the same numbers, and refused.
        if len(signature) != 64:
            raise InvalidSignature
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        public_key.verify(encode_dss_signature(r, s), octets, _ECDSA_VERIFY)
    elif isinstance(public_key, rsa.RSAPublicKey):
        public_key.verify(signature, octets, _PSS if algorithm == "PS256" else _PKCS1, _SHA256)
    else:
        public_key.verify(signature, octets)
