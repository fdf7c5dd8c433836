"""The clock of certificates: which of them end soon, and leave their holder with none."""

import hashlib
from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec
from cryptography import x509

from security.message import EnrolledCertificate


class Ending(msgspec.Struct, frozen=True):
    """A certificate, seen by the clock.

    holder: a bureau's code, or the bus's own name; use: what the certificate is for
    fingerprint: SHA-256, lower-case hex; not_before, not_after: aware, UTC
    """

    holder: str
    use: str
    fingerprint: str
    not_before: datetime
    not_after: datetime

    def days_left(self, now: datetime) -> int:
        """Whole days until it ends; negative once it has."""
        return (self.not_after - now) // timedelta(days=1)


def expiring(certificates: Iterable[Ending], now: datetime, within_days: int) -> list[Ending]:
    """Those that have ended or will within so many days, the soonest first.

    Not those with a successor: another one of the same holder and use, in force now, that ends later than that. After a
    roll-over the old certificate may end in peace.
    """
    known = list(certificates)
    limit = now + timedelta(days=within_days)
    lasting = {(one.holder, one.use) for one in known if one.not_before <= now and one.not_after > limit}
    ending = [one for one in known if one.not_after <= limit and (one.holder, one.use) not in lasting]
    return sorted(ending, key=lambda one: (one.not_after, one.holder, one.use))


def endings(certificates: Iterable[EnrolledCertificate], now: datetime) -> list[Ending]:
    """Bureaus' certificates for the clock; what is revoked has ended already."""
    return [
        Ending(one.bureau, one.use, one.fingerprint, one.not_before, one.not_after)
        for one in certificates
        if one.revoked_at is None or one.revoked_at > now
    ]


def ending_of(holder: str, use: str, certificate_der: bytes) -> Ending:
    """Any certificate for the clock, the bus's own for one. Raises ValueError."""
    certificate = x509.load_der_x509_certificate(certificate_der)
    fingerprint = hashlib.sha256(certificate_der).hexdigest()
    return Ending(holder, use, fingerprint, certificate.not_valid_before_utc, certificate.not_valid_after_utc)
