"""`POST /api/v1/deliveries`: a signed envelope as the whole body, its receipt as the whole answer.

The signature is in the envelope, so nothing of HTTP decides but whose connection it is. The answer is the receipt
itself, the same bytes as at every door: 201 the first time, 200 when the delivery was known.
"""

import asyncio
import logging
import secrets
from collections.abc import Mapping
from typing import Final

import msgspec
from starlette.types import Receive, Scope, Send

from exchange.bus import Bus
from exchange.http.body import BodyCutOff, Spool, read_body
from exchange.http.requests import Outcome, declared_length, headers_of, remote_of, retry_after, send_outcome
from exchange.http.rest import JSON, LATER, UNSIGNED, pending_header, plain_refusal, status_of
from exchange.http.tls import client_certificate
from exchange.intake import receive as take
from exchange.intake import turn_away
from exchange.opened import opened_of
from exchange.receipts import issue_refusal
from security.authenticate import carrier_of
from security.errors import AuditBroken, Refusal, Unavailable, places
from security.message import Delivery
from security.signed_delivery import MOST_BYTES

JOSE: Final = "application/jose+json"
LARGEST: Final[Mapping[str, int]] = {
    JOSE: MOST_BYTES,
    "application/cms": MOST_BYTES,
}  # octets of an envelope, by its media type
SIGNED: Final = {"yongtong-signed-request": "true"}

log = logging.getLogger("yongtong.door")


class _Caller(msgspec.Struct):
    """Who is on the line. delivery: once its body is read, and until then the client is still sending."""

    certificate_der: bytes | None
    remote: str
    headers: Mapping[str, str]
    enrolled: bool = False
    delivery: Delivery | None = None


class DeliveriesDoor:
    """Signed deliveries over REST as an ASGI endpoint. spool: for bodies above 1 MiB."""

    def __init__(self, bus: Bus, spool: Spool) -> None:
        self._bus, self._spool = bus, spool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["method"] != "POST":
            outcome = Outcome(405, "text/plain", b"POST a signed envelope", {"allow": "POST"})
            await send_outcome(outcome, receive, send)
            return
        caller = _Caller(client_certificate(scope), remote_of(scope), headers_of(scope))
        try:
            outcome = await self._answered(caller, receive)
        except BodyCutOff:
            log.info("door.body_cut_off remote=%s", caller.remote)
            return
        await send_outcome(outcome, receive, send)

    async def _answered(self, caller: _Caller, receive: Receive) -> Outcome:
        """The receipt, or why there is none and whose turn it is."""
        try:
            try:
                return await self._story(caller, receive)
            except Refusal as refusal:
                return await self._refused(refusal, caller)
        except (Unavailable, AuditBroken) as problem:
            broken = isinstance(problem, AuditBroken)
            log.log(logging.CRITICAL if broken else logging.WARNING, "door.unavailable service=rest reason=%s", problem)
            return Outcome(503, JSON, LATER, linger=caller.delivery is None)
        except (BodyCutOff, asyncio.CancelledError):
            raise
        except Exception as problem:  # the transport's outermost loop: one bad request must not take the door down
            reference = secrets.token_hex(4)
            log.error("door.failed service=rest reference=%s at=%s", reference, places(problem))
            words = msgspec.json.encode({"failed": reference})
            return Outcome(500, JSON, words, linger=caller.delivery is None)

    async def _story(self, caller: _Caller, receive: Receive) -> Outcome:
        # (1) who is on the line – of somebody unknown not one octet of a body is read, let alone parsed
        carrier = carrier_of(caller.certificate_der, self._bus.registry.trust(), self._bus.clock())
        if carrier is None:
            raise Refusal("auth.no_certificate")
        caller.enrolled = True
        # (2) how it came – media type, length, time
        body = read_body(
            receive,
            declared_length(caller.headers),
            max_bytes=LARGEST[_media_type(caller.headers)],
            seconds=self._bus.limits.body_s,
            spool=self._spool,
            bureau=carrier.bureau,
        )
        async with body as raw:
            envelope, now = raw.read(), self._bus.clock()
            caller.delivery = Delivery("rest", caller.certificate_der, caller.remote, envelope, raw, now)
            # (3) the story
            received = await take(caller.delivery, self._bus)
        assert received.inbox.receipt is not None  # `receive` waits for it
        headers = {**SIGNED, **pending_header(self._bus)}
        return Outcome(200 if received.repeated else 201, JOSE, received.inbox.receipt, headers)

    async def _refused(self, refusal: Refusal, caller: _Caller) -> Outcome:
        """The signed refusal; to somebody unknown a few plain words. Raises Unavailable."""
        told = refusal
        if not refusal.reference and refusal.code != "auth.refused":  # made here, so not yet in the audit
            told = await turn_away(refusal, "rest", caller.certificate_der, caller.remote, self._bus)
        reference = told.reference or told.detail
        log.info("door.refused reference=%s code=%s remote=%s", reference, refusal.code, caller.remote)
        linger = caller.delivery is None
        if not caller.enrolled or told.code == "auth.refused":
            return Outcome(status_of(told), JSON, plain_refusal(told), {**UNSIGNED, **retry_after(told)}, linger)
        document = issue_refusal(told, self._bus.origin, *self._claimed(caller.delivery), self._bus.answer_key)
        return Outcome(status_of(told), JOSE, document, retry_after(told), linger=linger)

    def _claimed(self, delivery: Delivery | None) -> tuple[str, str, str, str]:
        """Sender, feed, message id and signature digest of what is refused, as it names itself: nothing of it is
        believed. Empty where it cannot be read."""
        if delivery is None:
            return "", "", "", ""
        try:
            opened = opened_of(delivery, self._bus)
        except Refusal:
            return "", "", "", ""
        return opened.sender, opened.feed, opened.message_id, opened.request_digest


def _media_type(headers: Mapping[str, str]) -> str:
    """The envelope's media type, one that is taken, without parameters and without compression."""
    name = headers.get("content-type", "").strip().lower()
    if name not in LARGEST:
        raise Refusal("http.media_type", name[:80])
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal("http.media_type", headers["content-encoding"][:40])
    return name
