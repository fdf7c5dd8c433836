"""Authorities as cities have them: certificates, lists and answers built from scratch, so that each may be spoilt."""

import itertools
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

NOW = datetime(2026, 7, 1, 8, 0, tzinfo=UTC)
DAY = timedelta(days=1)
SHA256 = hashes.SHA256()


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def usage(*allowed: str) -> x509.KeyUsage:
    every = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign "
        "encipher_only decipher_only"
    )
    return x509.KeyUsage(**{one: one in allowed for one in every.split()})


class Holder:
    """Somebody with a key and a certificate, who may issue more."""

    def __init__(
        self,
        subject: str,
        by: "Holder | None" = None,
        *,
        ca: bool = True,
        key: Any = None,
        begins: datetime = NOW - 30 * DAY,
        ends: datetime = NOW + 30 * DAY,
        path_length: int | None = None,
        may: Sequence[str] | None = ("key_cert_sign", "crl_sign"),
        more: Sequence[tuple[x509.ExtensionType, bool]] = (),
        algorithm: Any = SHA256,
        names_key: bool = True,
    ) -> None:
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        issuer = by or self
        builder = x509.CertificateBuilder(
            issuer.subject if by else name(subject), name(subject), self.key.public_key(),
            x509.random_serial_number(), begins, ends,
        ).add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), False)  # fmt: skip
        if by and names_key:
            builder = builder.add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(by.key.public_key()), False
            )
        if ca:
            builder = builder.add_extension(x509.BasicConstraints(True, path_length), True)
        if may is not None:
            builder = builder.add_extension(usage(*may), True)
        for extension, critical in more:
            builder = builder.add_extension(extension, critical)
        self.certificate = builder.sign(issuer.key, algorithm)
        self.der = self.certificate.public_bytes(Encoding.DER)
        self.subject = self.certificate.subject
        self.serial = self.certificate.serial_number

    def leaf(self, subject: str = "water", **spoilt: Any) -> "Holder":
        """A bureau's certificate."""
        return Holder(subject, self, **{"ca": False, "may": ("digital_signature",), **spoilt})

    def crl(
        self,
        *revoked: "Holder",
        at: datetime = NOW - timedelta(hours=1),
        until: datetime = NOW + DAY,
        since: datetime = NOW - 2 * DAY,
        more: Sequence[tuple[x509.ExtensionType, bool]] = (),
        named: str = "",
        algorithm: Any = SHA256,
    ) -> bytes:
        """A revocation list in DER."""
        builder = x509.CertificateRevocationListBuilder(name(named) if named else self.subject, at, until)
        for holder in revoked:
            entry = x509.RevokedCertificateBuilder(holder.serial, since)
            builder = builder.add_revoked_certificate(entry.build())
        for extension, critical in more:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self.key, algorithm).public_bytes(Encoding.DER)

    def answer(
        self,
        about: "Holder",
        status: Literal["GOOD", "REVOKED", "UNKNOWN"] = "GOOD",
        *,
        by: "Holder | None" = None,
        at: datetime = NOW - timedelta(hours=1),
        until: datetime | None = NOW + DAY,
        nonce: bytes = b"",
        by_name: bool = True,
        enclosed: bool = True,
    ) -> bytes:
        """An OCSP answer in DER about a certificate of this authority."""
        responder = by or self
        since = NOW - 2 * DAY if status == "REVOKED" else None
        builder = ocsp.OCSPResponseBuilder().add_response(
            about.certificate, self.certificate, SHA256, ocsp.OCSPCertStatus[status], at, until, since, None
        )
        encoding = ocsp.OCSPResponderEncoding.NAME if by_name else ocsp.OCSPResponderEncoding.HASH
        builder = builder.responder_id(encoding, responder.certificate)
        if by is not None and enclosed:
            builder = builder.certificates([by.certificate])
        if nonce:
            builder = builder.add_extension(x509.OCSPNonce(nonce), False)
        return builder.sign(responder.key, SHA256).public_bytes(Encoding.DER)


def altered_anywhere(octets: bytes) -> Iterator[bytes]:
    """The octets with one bit of one of them flipped: the first and the last, of each."""
    for at, bit in itertools.product(range(len(octets)), (0x01, 0x80)):
        altered = bytearray(octets)
        altered[at] ^= bit
        yield bytes(altered)
