"""A small certificate authority for enrolment, and what the registry keeps of a certificate.

Trust is by enrolment: a certificate counts because the registry holds its very octets, never because a chain leads
somewhere. The authority exists so that TLS clients and a city without its own can have certificates at all.
"""

import functools
import hashlib
import ipaddress
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, Literal, NamedTuple

from asn1crypto import algos, core, keys
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, SignatureAlgorithmOID

from security.errors import Refusal
from security.keys import Kind, PublicKey, SigningKey, generate, kind_of, public_key_of, spki, verify_signature
from security.message import EnrolledCertificate, Use
from security.sm2 import Sm2PrivateKey, Sm2PublicKey, der_of, raw_of

CA_YEARS = 10
SM2_WITH_SM3: Final = "1.2.156.10197.1.501"
# By which certificates may be signed. SHA-1, MD5 and DSA are not among them, whoever the issuer is.
_OIDS_OF_ISSUERS: Final[dict[Kind, str]] = {
    "ES256": SignatureAlgorithmOID.ECDSA_WITH_SHA256.dotted_string,
    "RS256": SignatureAlgorithmOID.RSA_WITH_SHA256.dotted_string,
    "EdDSA": SignatureAlgorithmOID.ED25519.dotted_string,
    "SM2": SM2_WITH_SM3,
}
AUTHORITY_SUITES: Final = {
    *_OIDS_OF_ISSUERS.values(),
    *(oid.dotted_string for oid in (
        SignatureAlgorithmOID.ECDSA_WITH_SHA384, SignatureAlgorithmOID.ECDSA_WITH_SHA512,
        SignatureAlgorithmOID.RSA_WITH_SHA384, SignatureAlgorithmOID.RSA_WITH_SHA512, SignatureAlgorithmOID.RSASSA_PSS,
    )),
}  # fmt: skip
LONGEST_ISSUER = 1_000  # characters; the text comes from strangers
_AFTER_COMMA = re.compile(r"(?<!\\), +")
_SHORT_NAMES = {"E": NameOID.EMAIL_ADDRESS, "emailAddress": NameOID.EMAIL_ADDRESS, "S": NameOID.STATE_OR_PROVINCE_NAME}


class Authority(NamedTuple):
    """A certificate authority: its key, and its own certificate in DER."""

    key: SigningKey
    certificate_der: bytes


def make_ca(name: str, now: datetime, kind: Kind = "ES256", key: SigningKey | None = None) -> Authority:
    """A new authority; its certificate is valid from a day before `now` for ten years.

    key:  the one that it shall have
    kind: of the one that is made otherwise; TLS asks for one of the standard's, so `SM2` is for an authority of
          signing certificates alone
    """
    key = key or generate(kind)
    subject = _name(name)
    builder = _builder(subject, key.public_key, now - timedelta(days=1), now + timedelta(days=365 * CA_YEARS))
    builder = builder.issuer_name(subject)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage("certificates"), critical=True)
    certificate_der = _signed(builder, key.public_key, key)
    return Authority(key.with_certificate(certificate_der), certificate_der)


def issue(
    ca: Authority,
    subject: str,
    public_key: PublicKey,
    use: Use,
    not_before: datetime,
    not_after: datetime,
    sans: Sequence[str] = (),
) -> bytes:
    """A certificate in DER for public_key, signed by the authority.

    subject: common name
    use:     `connection` serves TLS on either side; `signing` and `front` may sign documents and open no connection;
             `encryption` is the other one of double certificates
    sans:    host names and IP addresses a TLS client may know the holder by
    """
    issuer = x509.load_der_x509_certificate(ca.certificate_der)
    builder = _builder(_name(subject), public_key, not_before, not_after).issuer_name(issuer.subject)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(use), critical=True)
    authority_key_id = x509.AuthorityKeyIdentifier(key_identifier(ca.key.public_key), None, None)
    builder = builder.add_extension(authority_key_id, critical=False)
    if use == "connection":
        both_sides = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(both_sides), critical=False)
    if sans:
        builder = builder.add_extension(x509.SubjectAlternativeName([_san(san) for san in sans]), critical=False)
    return _signed(builder, public_key, ca.key)


def check_issued(certificate_der: bytes, issuer_der: bytes) -> None:
    """Return if the certificate names the issuer and holds its signature; else raise Refusal.

    `auth.certificate_not_of_issuer`: another name, or no signature of its key;
    `signature.algorithm_refused`: signed by SHA-1, MD5 or whatever else is not accepted here;
    `auth.certificate_not_readable`. Windows, key usage and who is enrolled are other questions.
    """
    try:
        certificate, issuer = map(x509.load_der_x509_certificate, (certificate_der, issuer_der))
    except ValueError as problem:
        raise Refusal("auth.certificate_not_readable") from problem
    if certificate.issuer != issuer.subject:
        raise Refusal("auth.certificate_not_of_issuer", f"issued by {certificate.issuer.rfc4514_string()}"[:120])
    algorithm = certificate.signature_algorithm_oid.dotted_string
    if algorithm not in AUTHORITY_SUITES:
        raise Refusal("signature.algorithm_refused", certificate.signature_algorithm_oid._name[:80])
    try:
        if algorithm == SM2_WITH_SM3:
            # In DER here, raw r ‖ s everywhere else that we verify.
            raw = raw_of(certificate.signature)
            verify_signature(issuer_der, "SM2", raw, certificate.tbs_certificate_bytes)
        else:
            certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, TypeError, ValueError, UnsupportedAlgorithm, Refusal) as problem:
        raise Refusal("auth.certificate_not_of_issuer", "its signature is not by the issuer's key") from problem


def key_identifier(public_key: PublicKey) -> bytes:
    """The key identifier of a certificate for public_key: SHA-1 of its bits (RFC 5280 §4.2.1.2); a name, no proof."""
    bits: bytes = keys.PublicKeyInfo.load(spki(public_key)).sha1
    return bits


def pem_of(certificate_der: bytes) -> bytes:
    """A DER certificate as PEM."""
    return x509.load_der_x509_certificate(certificate_der).public_bytes(serialization.Encoding.PEM)


def enrolled(der: bytes, bureau: str, use: Use) -> EnrolledCertificate:
    """What the registry keeps of a certificate. Raises Refusal when the certificate cannot serve that use.

    `auth.certificate_not_readable`: not DER of X.509;
    `signature.key_not_accepted`: the key is not P-256, RSA from 2048 bits, Ed25519 or SM2;
    `certificate.for_encryption`: the encryption one of a bureau's double certificates (签名/加密), given for signing;
    `auth.certificate_not_for_signing`: a signing certificate whose key usage forbids signatures otherwise;
    `certificate.not_for_encryption`: an encryption certificate whose key usage does not say so, or allows signatures.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
    except ValueError as problem:
        raise Refusal("auth.certificate_not_readable") from problem
    public_key_of(der)
    try:
        names_of(der)
    except Exception as problem:  # whatever its reader trips over: one such certificate would stop every process later
        raise Refusal("auth.certificate_not_readable") from problem
    if use == "encryption":
        _check_only_encrypts(certificate)
    elif use != "connection":
        _check_may_sign(certificate)
    return EnrolledCertificate(
        bureau=bureau,
        use=use,
        der=der,
        fingerprint=hashlib.sha256(der).hexdigest(),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )


class Names(NamedTuple):
    """What a signature may call a certificate by. issuer: (object identifier, value) pairs, most specific first.

    issuer_der: the same as it stands in the certificate
    """

    issuer: tuple[tuple[str, str], ...]
    issuer_der: bytes
    serial: int
    ski: bytes | None
    sha1: bytes


@functools.lru_cache(maxsize=1024)
def names_of(certificate_der: bytes) -> Names:
    """The names of a certificate. Raises ValueError when it is not readable."""
    certificate = x509.load_der_x509_certificate(certificate_der)
    try:
        ski: bytes | None = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        ski = None
    # WS-Security's thumbprint is SHA-1. It only finds an enrolled certificate, whose key then has to verify.
    sha1 = hashlib.sha1(certificate_der, usedforsecurity=False).digest()
    issuer_der = asn1_x509.Certificate.load(certificate_der)["tbs_certificate"]["issuer"].dump()
    return Names(_pairs(certificate.issuer), issuer_der, certificate.serial_number, ski, sha1)


def issuer_from_text(text: str) -> tuple[tuple[str, str], ...] | None:
    """The pairs of an issuer written as RFC 4514 text, with the spaces and short names that toolkits add; else None."""
    if len(text) > LONGEST_ISSUER:
        return None
    try:
        return _pairs(x509.Name.from_rfc4514_string(_AFTER_COMMA.sub(",", text), _SHORT_NAMES))
    except (ValueError, KeyError):
        return None


def _pairs(name: x509.Name) -> tuple[tuple[str, str], ...]:
    pairs = [(attribute.oid.dotted_string, str(attribute.value)) for rdn in reversed(name.rdns) for attribute in rdn]
    return tuple(pairs)


def check_window(certificate: EnrolledCertificate, now: datetime) -> None:
    """Return if the certificate counts at `now` (aware, UTC); else raise Refusal.

    `auth.certificate_revoked` from the moment it was revoked; `auth.certificate_expired` before and after its validity.
    """
    if certificate.revoked_at is not None and certificate.revoked_at <= now:
        raise Refusal("auth.certificate_revoked", f"revoked at {certificate.revoked_at.isoformat()}")
    if not certificate.not_before <= now <= certificate.not_after:
        window = f"{certificate.not_before.isoformat()} to {certificate.not_after.isoformat()}"
        raise Refusal("auth.certificate_expired", f"valid from {window}")


def check_pair(signing: EnrolledCertificate, encryption: EnrolledCertificate) -> None:
    """Return if two certificates are a pair (双证书, GM/T 0015): one holder's, by one authority, of two keys, the one
    for signatures. Raises Refusal `certificate.not_a_pair`, `auth.certificate_not_for_signing`."""
    one, other = (x509.load_der_x509_certificate(c.der) for c in (signing, encryption))
    named = [c.subject.rfc4514_string() for c in (one, other)], [c.issuer.rfc4514_string() for c in (one, other)]
    for subject_or_issuer in named:
        if len(set(subject_or_issuer)) > 1:
            raise Refusal("certificate.not_a_pair", " / ".join(subject_or_issuer)[:200])
    if _issuing_key(one) != _issuing_key(other):
        raise Refusal("certificate.not_a_pair", "two authorities of one name")
    if spki(public_key_of(signing.der)) == spki(public_key_of(encryption.der)):
        raise Refusal("certificate.not_a_pair", "one key in both")
    usage = _usage_of(one)
    if usage is None or not usage.digital_signature:
        raise Refusal("auth.certificate_not_for_signing", "key usage: no digitalSignature")


def _usage_of(certificate: x509.Certificate) -> x509.KeyUsage | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return None


def _issuing_key(certificate: x509.Certificate) -> bytes | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except x509.ExtensionNotFound:
        return None


def _encrypts(usage: x509.KeyUsage) -> bool:
    return usage.key_encipherment or usage.data_encipherment or usage.key_agreement


def _check_only_encrypts(certificate: x509.Certificate) -> None:
    usage = _usage_of(certificate)
    if usage is None or not _encrypts(usage):
        raise Refusal("certificate.not_for_encryption", "key usage: no encipherment, no keyAgreement")
    if usage.digital_signature or usage.content_commitment:
        raise Refusal("certificate.not_for_encryption", "key usage: signatures too")


def _check_may_sign(certificate: x509.Certificate) -> None:
    usage = _usage_of(certificate)
    if usage is None or usage.digital_signature or usage.content_commitment:
        return
    if _encrypts(usage):
        raise Refusal("certificate.for_encryption", "key usage: encryption only")
    raise Refusal("auth.certificate_not_for_signing", "key usage: no digitalSignature, no contentCommitment")


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, public_key: PublicKey, not_before: datetime, not_after: datetime
) -> x509.CertificateBuilder:
    """All but the public key, which `_signed` puts in."""
    builder = x509.CertificateBuilder().subject_name(subject)
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(not_before).not_valid_after(not_after)
    return builder.add_extension(x509.SubjectKeyIdentifier(key_identifier(public_key)), critical=False)


def _key_usage(what: Use | Literal["certificates"]) -> x509.KeyUsage:
    certificates, encryption = what == "certificates", what == "encryption"
    return x509.KeyUsage(
        digital_signature=not (certificates or encryption),
        content_commitment=what in ("signing", "front"),
        key_encipherment=encryption,
        data_encipherment=encryption,
        key_agreement=encryption,
        key_cert_sign=certificates,
        crl_sign=certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _san(san: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(san))
    except ValueError:
        return x509.DNSName(san)


def _signed(builder: x509.CertificateBuilder, public_key: PublicKey, key: SigningKey) -> bytes:
    """The certificate for public_key, signed by the authority's key, in DER."""
    issuing_key = key.issuing_key()
    if isinstance(public_key, Sm2PublicKey) or isinstance(issuing_key, Sm2PrivateKey):
        return _signed_with_sm2(builder, public_key, key)
    algorithm = None if isinstance(issuing_key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.public_key(public_key).sign(issuing_key, algorithm).public_bytes(serialization.Encoding.DER)


def _signed_with_sm2(builder: x509.CertificateBuilder, public_key: PublicKey, key: SigningKey) -> bytes:
    """The same where an SM2 key stands on either side, which `cryptography` cannot write.

    Its builder writes everything else, with a key that stands in; then the key and the signature are put in.
    """
    stand_in = ed25519.Ed25519PrivateKey.generate()
    written = builder.public_key(stand_in.public_key()).sign(stand_in, None)
    certificate = asn1_x509.Certificate.load(written.public_bytes(serialization.Encoding.DER))
    tbs = certificate["tbs_certificate"]
    tbs["subject_public_key_info"] = keys.PublicKeyInfo.load(spki(public_key))
    algorithm = algos.SignedDigestAlgorithm({"algorithm": _OIDS_OF_ISSUERS[kind_of(key.public_key)]})
    if kind_of(key.public_key) == "RS256":
        algorithm["parameters"] = core.Null()
    tbs["signature"] = certificate["signature_algorithm"] = algorithm
    signature = key.sign(tbs.dump(force=True))
    raw = kind_of(key.public_key) in ("ES256", "SM2")
    certificate["signature_value"] = der_of(signature) if raw else signature
    octets: bytes = certificate.dump(force=True)
    return octets
