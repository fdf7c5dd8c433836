"""A small body by POST from an enrolled connection: what cosignatures, and districts' heads, come by."""

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from starlette.types import Receive, Scope, Send

from exchange.bus import Bus
from exchange.http.body import BodyCutOff, Spool, read_body
from exchange.http.requests import Outcome, declared_length, headers_of, remote_of, send_outcome
from exchange.http.rest import JSON, LATER, UNSIGNED, plain_refusal, status_of
from exchange.http.tls import client_certificate
from exchange.intake import turn_away
from security.authenticate import carrier_of
from security.errors import AuditBroken, Refusal, Unavailable
from security.message import Principal

# Codes after which an officer must look at who sent this, and not only at the log of refusals.
GRAVE: Final = frozenset({"audit.head_not_ours", "audit.log_forked", "audit.log_truncated"})

log = logging.getLogger("yongtong.door")

Take = Callable[[Principal, bytes], Awaitable[object]]  # whose connection, the body; what is answered, as JSON


class SmallBodyDoor:
    """One address as an ASGI endpoint. spool: never filled, for a body is small.

    media_type: of the body; asks: for what, in words; most_bytes: of the body; take: may raise Refusal, Unavailable
    """

    def __init__(self, bus: Bus, spool: Spool, media_type: str, asks: str, most_bytes: int, take: Take) -> None:
        self._bus, self._spool, self._media_type, self._asks = bus, spool, media_type, asks
        self._most_bytes, self._take = most_bytes, take

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["method"] != "POST":
            outcome = Outcome(405, "text/plain", self._asks.encode(), {"allow": "POST"})
            await send_outcome(outcome, receive, send)
            return
        try:
            outcome = await self._answered(scope, receive)
        except BodyCutOff:
            log.info("door.body_cut_off remote=%s", remote_of(scope))
            return
        await send_outcome(outcome, receive, send)

    async def _answered(self, scope: Scope, receive: Receive) -> Outcome:
        """What came of it, or why nothing was taken."""
        certificate_der = client_certificate(scope)
        try:
            try:
                answer = await self._taken(certificate_der, headers_of(scope), receive)
            except Refusal as refusal:
                level = logging.CRITICAL if refusal.code in GRAVE else logging.INFO
                told = await turn_away(refusal, "rest", certificate_der, remote_of(scope), self._bus)
                log.log(level, "door.refused reference=%s code=%s", told.reference or told.detail, refusal.code)
                return Outcome(status_of(told), JSON, plain_refusal(told), UNSIGNED, linger=True)
        except (Unavailable, AuditBroken) as problem:
            log.warning("door.unavailable service=rest reason=%s", problem)
            return Outcome(503, JSON, LATER, linger=True)
        return Outcome(200, JSON, msgspec.json.encode(answer), UNSIGNED)

    async def _taken(self, certificate_der: bytes | None, headers: dict[str, str], receive: Receive) -> object:
        # Of somebody unknown not one octet of a body is read.
        carrier = carrier_of(certificate_der, self._bus.registry.trust(), self._bus.clock())
        if carrier is None:
            raise Refusal("auth.no_certificate")
        if headers.get("content-type", "").partition(";")[0].strip().lower() != self._media_type:
            raise Refusal("http.media_type", headers.get("content-type", "")[:80])
        body = read_body(
            receive,
            declared_length(headers),
            max_bytes=self._most_bytes,
            seconds=self._bus.limits.body_s,
            spool=self._spool,
            bureau=carrier.bureau,
        )
        async with body as raw:
            octets = raw.read()
        return await self._take(carrier, octets)
