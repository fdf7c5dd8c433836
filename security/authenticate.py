"""Who: the enrolled certificate behind a connection, and the one behind a signature.

Trust is a list of octets. A certificate counts because the registry holds it, for a bureau and a use; an issuer's
name, a serial number or a thumbprint only finds it.
"""

import hashlib
from collections.abc import Iterable
from datetime import datetime

from security.cms import SignedContent
from security.errors import Refusal
from security.message import EnrolledCertificate, Principal
from security.pki import check_window, issuer_from_text, names_of
from security.xmldsig import KeyReference


class TrustList:
    """The certificates that are enrolled, as they stood at one moment; never changed once made.

    digest: SHA-256, lower-case hex, over the sorted lines `bureau use fingerprint revoked_at`: what was trusted, in
            one value that an audit entry can carry

    Where a bureau uses one key in two certificates, names that fit both find the signing one, then the newer one.
    """

    def __init__(self, certificates: tuple[EnrolledCertificate, ...]) -> None:
        ordered = sorted(certificates, key=lambda c: (c.use != "connection", c.not_before, c.fingerprint))
        self._by_fingerprint = {c.fingerprint: c for c in ordered}
        names = [(names_of(c.der), c) for c in ordered]
        self._by_issuer_serial = {(n.issuer, n.serial): c for n, c in names}
        self._by_issuer_der: dict[tuple[bytes | None, int | None], EnrolledCertificate] = {
            (n.issuer_der, n.serial): c for n, c in names
        }
        self._by_ski = {n.ski: c for n, c in names if n.ski is not None}
        self._by_sha1 = {n.sha1: c for n, c in names}
        self.digest = trust_digest(certificates)

    def check_status_known(self, fingerprint: str, now: datetime) -> None:
        """Return unless the authority of an enrolled certificate has been silent too long; then raise Refusal
        `auth.revocation_unknown`. Asked before anything is taken from somebody; what is read needs no such answer."""
        certificate = self._by_fingerprint.get(fingerprint)
        until = None if certificate is None else certificate.status_until
        if until is not None and now > until:
            raise Refusal("auth.revocation_unknown", f"certificate {fingerprint[:16]}")

    def by_fingerprint(self, fingerprint: str) -> EnrolledCertificate | None:
        """The certificate with this SHA-256, lower-case hex."""
        return self._by_fingerprint.get(fingerprint)

    def by_der(self, der: bytes) -> EnrolledCertificate | None:
        """The certificate with these very octets."""
        return self._by_fingerprint.get(hashlib.sha256(der).hexdigest())

    def by_issuer_serial(self, issuer: str, serial: int) -> EnrolledCertificate | None:
        """The certificate of this issuer (RFC 4514 text) and serial number."""
        pairs = issuer_from_text(issuer)
        return None if pairs is None else self._by_issuer_serial.get((pairs, serial))

    def by_ski(self, ski: bytes) -> EnrolledCertificate | None:
        """The certificate with this subject key identifier."""
        return self._by_ski.get(ski)

    def by_thumbprint_sha1(self, thumbprint: bytes) -> EnrolledCertificate | None:
        """The certificate with this SHA-1: a hint; its key must then verify."""
        return self._by_sha1.get(thumbprint)

    def named(self, key: KeyReference) -> EnrolledCertificate | None:
        """The one certificate of which everything that the reference says is true."""
        found: EnrolledCertificate | None = None
        if key.der is not None:
            found = self.by_der(key.der)
        elif key.issuer is not None and key.serial is not None:
            found = self.by_issuer_serial(key.issuer, key.serial)
        elif key.ski is not None:
            found = self.by_ski(key.ski)
        elif key.thumbprint_sha1 is not None:
            found = self.by_thumbprint_sha1(key.thumbprint_sha1)
        return found if found is not None and key.fits(found.der) else None

    def of_signer(self, signed: SignedContent) -> EnrolledCertificate | None:
        """The certificate by which a CMS names its signer; an issuer is known by its octets in the certificate."""
        if signed.ski is not None:
            return self._by_ski.get(signed.ski)
        return self._by_issuer_der.get((signed.issuer_der, signed.serial))


def trust_digest(certificates: Iterable[EnrolledCertificate]) -> str:
    """What is trusted, in one value: as `TrustList.digest` says."""
    lines = sorted(f"{c.bureau} {c.use} {c.fingerprint} {c.revoked_at or ''}\n" for c in certificates)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def carrier_of(der: bytes | None, trust: TrustList, now: datetime) -> Principal | None:
    """Whose connection: the bureau of the TLS client certificate; None when none was shown or it does not count now.

    A bureau's signing certificate shown in TLS maps to that bureau too: one bureau is one principal.
    """
    certificate = None if der is None else trust.by_der(der)
    if certificate is None:
        return None
    try:
        check_window(certificate, now)
    except Refusal:
        return None
    return Principal(bureau=certificate.bureau, certificate=certificate.fingerprint)


def signer_of(certificate: EnrolledCertificate | None, sender: str, now: datetime) -> EnrolledCertificate:
    """The certificate that an envelope claims to be signed with, if it may sign for the sender that it names.

    certificate: what the trust list holds under the name that the envelope gives; None when it holds nothing
    Nothing is verified yet: whether the claim is true, the signature decides.

    Raises Refusal as `signing_certificate` does, and `auth.sender_mismatch`.
    """
    found = signing_certificate(certificate, now)
    # (4) of the bureau that is named as sender
    if sender != found.bureau:
        raise Refusal("auth.sender_mismatch", f"certificate of {found.bureau}, sender {sender}"[:120])
    return found


def signing_certificate(certificate: EnrolledCertificate | None, now: datetime) -> EnrolledCertificate:
    """The same, whomever the envelope names as its sender: that is for a grant to judge (`security.delegation`).

    Raises Refusal: `auth.certificate_unknown`, `auth.certificate_not_for_signing`, `auth.certificate_revoked`,
    `auth.certificate_expired`.
    """
    # (1) enrolled  (2) for signing: a connection key lies on more machines than a signing key should
    if certificate is None:
        raise Refusal("auth.certificate_unknown")
    if certificate.use == "connection":
        raise Refusal("auth.certificate_not_for_signing", certificate.fingerprint[:16])
    # (3) in force now
    check_window(certificate, now)
    return certificate
