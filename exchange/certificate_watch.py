"""The clock of certificates: fetches what authorities say of theirs, and says once a day which certificates end soon.

One of them a bus, in a thread of `serve`; no request ever waits for it.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, timedelta
from functools import partial
from typing import Final

import msgspec

from connectors.transports.fetch import Fetch
from exchange.entry import CITY_TIME
from exchange.revocation import CityAuthority, Place, Revocations
from exchange.rounds import rounds
from security.errors import Refusal
from security.expiry import Ending, endings, expiring
from security.message import EnrolledCertificate
from security.revocation import Answer, ocsp_request, read_answer, read_list

TICK_S: Final = 1.0  # a certificate enrolled now, or an address never asked, is asked about this soon
AGAIN_S: Final = 60.0  # after a failure, unless the setting asks more often anyway
MOST_BYTES: Final = 16 << 20  # of a list: some 300,000 revoked certificates
FETCH_S: Final = 10.0
LEVELS: Final = ((1, logging.CRITICAL), (7, logging.ERROR), (30, logging.WARNING))  # days left at most

log = logging.getLogger("yongtong.certificates")


class _Question(msgspec.Struct, frozen=True):
    """An address to be asked.

    body:    of the OCSP request, None for a list
    read:    makes the answer of what comes
    again_s: seconds to wait after a failure
    """

    place: Place
    again_s: float
    body: bytes | None
    read: Callable[[bytes], Answer]


class CertificateWatch:
    """Asks and warns until told to stop.

    enrolled: the certificates in the registry, revoked ones too; own: the bus's
    nonce:    16 random octets, each time others
    """

    def __init__(
        self,
        revocations: Revocations,
        enrolled: Callable[[], Sequence[EnrolledCertificate]],
        own: Sequence[Ending],
        fetch: Fetch,
        nonce: Callable[[], bytes],
        clock: Callable[[], datetime],
    ) -> None:
        self._revocations, self._enrolled, self._own = revocations, enrolled, own
        self._fetch, self._nonce, self._clock = fetch, nonce, clock
        self._warned: date | None = None
        self._silent: dict[str, datetime] = {}  # addresses that did not answer, and when to try them again

    def run(self, stop: threading.Event) -> None:
        """Turn after turn until told to stop."""
        rounds(partial(self.turn, stop), stop, TICK_S, log, "certificates")

    def turn(self, stop: threading.Event) -> None:
        """Ask whatever is due, and warn if that was not done today."""
        self._warn()
        for question in self._due():
            if stop.is_set():
                return
            # Of a hundred questions to a responder that hangs, one is enough.
            if self._silent.get(question.place[0], self._clock()) <= self._clock():
                self._ask(question)

    def _ask(self, question: _Question) -> None:
        url = question.place[0]
        kind = "application/ocsp-request" if question.body is not None else ""
        try:
            octets = self._fetch(url, most_bytes=MOST_BYTES, seconds=FETCH_S, body=question.body, content_type=kind)
            answer = self._revocations.keep(question.place, octets, question.read, self._clock())
        except Refusal as problem:
            log.warning("revocation.not_had url=%s code=%s detail=%s", url, problem.code, problem.detail)
            self._revocations.failed(question.place, problem, self._clock())
            if problem.code.startswith("fetch."):
                self._silent[url] = self._clock() + timedelta(seconds=question.again_s)
            return
        if answer.next_update < self._clock():
            log.warning("revocation.stale url=%s next_update=%s", url, answer.next_update.isoformat())

    def _due(self) -> Iterator[_Question]:
        """Lists first: one tells of all certificates, and no responder that hangs shall hold it up."""
        now = self._clock()
        for authority in self._revocations.authorities:
            for url in authority.crl:
                if self._is_due((url, ""), authority, now):
                    read = partial(read_list, authorities=authority.certificates, at=now)
                    yield _Question((url, ""), _again_s(authority), None, read)
        if any(authority.ocsp for authority in self._revocations.authorities):
            for certificate in self._enrolled():
                yield from self._due_of(certificate, now)

    def _due_of(self, certificate: EnrolledCertificate, now: datetime) -> Iterator[_Question]:
        if certificate.not_after < now:
            return
        authority, over = self._revocations.authority_of(certificate)
        if authority is None or not authority.ocsp:
            return
        place = (authority.ocsp, certificate.fingerprint)
        if self._is_due(place, authority, now):
            nonce = self._nonce()
            read = partial(read_answer, certificate_der=certificate.der, issuer_der=over[0], at=now, nonce=nonce)
            yield _Question(place, _again_s(authority), ocsp_request(certificate.der, over[0], nonce), read)

    def _is_due(self, place: Place, authority: CityAuthority, now: datetime) -> bool:
        kept = self._revocations.kept().get(place)
        if kept is None:
            return True
        return now >= kept.tried_at + timedelta(seconds=_again_s(authority) if kept.problem else authority.every_s)

    def _warn(self) -> None:
        """Once a day of the city, a line for each certificate that has few days left and no successor."""
        now = self._clock()
        today = now.astimezone(CITY_TIME).date()
        if today == self._warned:
            return
        self._warned = today
        for ending in expiring((*self._own, *endings(self._enrolled(), now)), now, LEVELS[-1][0]):
            days = ending.days_left(now)
            log.log(
                next(level for most, level in LEVELS if days < most or most == LEVELS[-1][0]),
                "certificate.ends holder=%s use=%s certificate=%s until=%s days_left=%d",
                *(ending.holder, ending.use, ending.fingerprint[:16], ending.not_after.isoformat(), days),
            )


def _again_s(authority: CityAuthority) -> float:
    return min(AGAIN_S, authority.every_s)
