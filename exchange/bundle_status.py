"""What authorities said of certificates, by the answers that lie in an evidence bundle."""

from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec
from cryptography import x509
from cryptography.x509 import ocsp

from security.chain import authorities_over
from security.errors import Refusal
from security.message import EnrolledCertificate
from security.revocation import Answer, read_answer, read_list, standing

_OF_OTHERS = ("revocation.other_issuer", "revocation.other_certificate")


class Said(msgspec.Struct, frozen=True):
    """Of one certificate: each revocation, since when and of when the answer is that says so; and of when the newest
    answer is, None without any."""

    revocations: tuple[tuple[datetime, datetime], ...]
    newest: datetime | None

    @property
    def revoked_at(self) -> datetime | None:
        """Since when, by whoever says the earliest."""
        return min((since for since, _ in self.revocations), default=None)


class Statuses:
    """The answers of a bundle. made_at: when it was made; an answer of a later day is none.

    answers: lists (`crl`) and OCSP answers (`ocsp`), each with its kind; authorities: DER, whom the anchors name
    """

    def __init__(self, answers: Sequence[tuple[str, bytes]], authorities: Sequence[bytes], made_at: datetime) -> None:
        self.authorities, self._answers, self._made_at = authorities, answers, made_at
        self._since: dict[str, datetime | None] = {}  # when authorities ended certificates, by fingerprint

    def said(self, certificate: EnrolledCertificate) -> Said:
        """What is said of a certificate. Raises Refusal `revocation.*` for an answer that does not hold; ValueError."""
        over = authorities_over(certificate.der, self.authorities)
        lists, answer = self._of(certificate, over) if over else ([], None)
        answers = [one for one in (*lists, answer) if one is not None]
        said = [(standing((certificate.der, *over), [one], None).revoked_at, one.this_update) for one in answers]
        revocations = tuple((since, told) for since, told in said if since is not None)
        return Said(revocations, max((one.this_update for one in answers), default=None))

    def applied(self, certificates: Iterable[EnrolledCertificate], time: str) -> list[EnrolledCertificate]:
        """The certificates with what was said of them up to a time, as the bus lays it over its own (ADR 22)."""
        if not (self._answers and self.authorities):
            return list(certificates)
        found = []
        for certificate in certificates:
            since = self._revoked_since(certificate)
            if since is not None and since <= datetime.fromisoformat(time):
                ended = min(since, certificate.revoked_at or since)
                certificate = msgspec.structs.replace(certificate, revoked_at=ended)
            found.append(certificate)
        return found

    @property
    def ended_any(self) -> bool:
        """Whether any certificate that was looked at is revoked by its authority."""
        return any(self._since.values())

    def _revoked_since(self, certificate: EnrolledCertificate) -> datetime | None:
        if certificate.fingerprint not in self._since:
            try:
                since = self.said(certificate).revoked_at
            except Exception:  # whatever an outsider's answer trips its reader with: the certificate's own row says so
                since = None
            self._since[certificate.fingerprint] = since
        return self._since[certificate.fingerprint]

    def _of(self, certificate: EnrolledCertificate, over: tuple[bytes, ...]) -> tuple[list[Answer], Answer | None]:
        """The lists and the newest OCSP answer that are by this certificate's authorities."""
        lists: list[Answer] = []
        answers: list[Answer] = []
        for kind, octets in self._answers:
            try:
                if kind == "crl":
                    lists.append(read_list(octets, over, self._made_at))
                else:
                    # Its responder's certificate counts as of then.
                    at = min(ocsp.load_der_ocsp_response(octets).this_update_utc, self._made_at)
                    answers.append(read_answer(octets, certificate.der, over[0], at))
            except Refusal as problem:
                if problem.code not in _OF_OTHERS:
                    raise
        return lists, max(answers, key=lambda one: one.this_update, default=None)


def names_status(der: bytes) -> bool:
    """Whether a certificate says where its status can be asked."""
    values = [one.value for one in x509.load_der_x509_certificate(der).extensions]
    return any(isinstance(value, x509.CRLDistributionPoints | x509.AuthorityInformationAccess) for value in values)
