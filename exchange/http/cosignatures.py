"""`POST /api/v1/audit/cosignatures`: a checkpoint as we gave it, with a witness's line below ours.

The lines prove themselves, so any enrolled connection may bring them. What is kept says who watches the log and is no
part of it: no entry is made, or each witness's visit would make the next head.
"""

import asyncio
import logging
from typing import Final

import msgspec
from starlette.types import Receive, Scope, Send

from exchange.attestations import Head, take_cosignatures
from exchange.bus import Bus
from exchange.http.body import BodyCutOff, Spool, read_body
from exchange.http.requests import Outcome, declared_length, headers_of, remote_of, send_outcome
from exchange.http.rest import JSON, LATER, UNSIGNED, plain_refusal, status_of
from exchange.http.tls import client_certificate
from exchange.intake import turn_away
from security.authenticate import carrier_of
from security.checkpoint import MOST_CHARACTERS
from security.errors import AuditBroken, Refusal, Unavailable

MEDIA_TYPE: Final = "text/plain"

log = logging.getLogger("yongtong.door")


class CosignaturesDoor:
    """What witnesses say of heads, as an ASGI endpoint. spool: never filled, for a body is small."""

    def __init__(self, bus: Bus, spool: Spool) -> None:
        self._bus, self._spool = bus, spool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["method"] != "POST":
            outcome = Outcome(405, MEDIA_TYPE, b"POST a cosigned checkpoint", {"allow": "POST"})
            await send_outcome(outcome, receive, send)
            return
        try:
            outcome = await self._answered(scope, receive)
        except BodyCutOff:
            log.info("door.body_cut_off remote=%s", remote_of(scope))
            return
        await send_outcome(outcome, receive, send)

    async def _answered(self, scope: Scope, receive: Receive) -> Outcome:
        """What is kept of the head now, or why nothing was taken."""
        certificate_der = client_certificate(scope)
        try:
            try:
                head = await self._taken(certificate_der, headers_of(scope), receive)
            except Refusal as refusal:
                level = logging.CRITICAL if refusal.code == "audit.head_not_ours" else logging.INFO
                told = await turn_away(refusal, "rest", certificate_der, remote_of(scope), self._bus)
                log.log(level, "door.refused reference=%s code=%s", told.reference or told.detail, refusal.code)
                return Outcome(status_of(told), JSON, plain_refusal(told), UNSIGNED, linger=True)
        except (Unavailable, AuditBroken) as problem:
            log.warning("door.unavailable service=rest reason=%s", problem)
            return Outcome(503, JSON, LATER, linger=True)
        names = {witness.name for witness in self._bus.anchors.witnesses}.intersection(head.witnesses)
        quorum = self._bus.anchors.quorum
        kept = {
            "size": head.size,
            "witnesses": sorted(names),
            "quorum": quorum,
            "cosigned": len(names) >= max(quorum, 1),
        }
        return Outcome(200, JSON, msgspec.json.encode(kept), UNSIGNED)

    async def _taken(self, certificate_der: bytes | None, headers: dict[str, str], receive: Receive) -> Head:
        # Of somebody unknown not one octet of a body is read.
        carrier = carrier_of(certificate_der, self._bus.registry.trust(), self._bus.clock())
        if carrier is None:
            raise Refusal("auth.no_certificate")
        if headers.get("content-type", "").partition(";")[0].strip().lower() != MEDIA_TYPE:
            raise Refusal("http.media_type", headers.get("content-type", "")[:80])
        body = read_body(
            receive,
            declared_length(headers),
            max_bytes=MOST_CHARACTERS,
            seconds=self._bus.limits.body_s,
            spool=self._spool,
            bureau=carrier.bureau,
        )
        async with body as raw:
            try:
                checkpoint = raw.read().decode("utf-8")
            except UnicodeDecodeError as problem:
                raise Refusal("audit.checkpoint_invalid", "not UTF-8") from problem
        bus = self._bus
        return await asyncio.to_thread(take_cosignatures, checkpoint, bus.anchors, bus.attestations, bus.clock())
