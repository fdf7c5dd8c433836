"""`/health/live`, `/health/ready`, `/metrics`: addresses for machines."""

import asyncio
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from exchange.bus import Bus
from exchange.http.rest import JSON, LATER, UNSIGNED, plain_refusal, status_of
from exchange.http.tls import client_certificate
from exchange.intake import turn_away
from exchange.journal import Trouble
from exchange.metrics import CONTENT_TYPE, Metrics
from security.errors import AuditBroken, Refusal, Unavailable, places

LEAST_FREE_BYTES: Final = 64 << 20  # with less on the disk no work is asked for; alarms come long before
TROUBLE_S: Final = 30.0  # so long after a group that the disk would not have; then it is tried again
PLAIN: Final = "text/plain"

log = logging.getLogger("yongtong.door")


class Scrapes(msgspec.Struct, frozen=True):
    """Who may read the metrics, by address, and what they read."""

    allowed: Sequence[IPv4Network | IPv6Network]
    metrics: Metrics


async def live(_: Request) -> Response:
    """The process answers."""
    return Response("live\n", media_type=PLAIN)


class Ready:
    """Whether the bus can take work. The words after `not ready` are ours, and the same for everybody."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def answer(self, _: Request) -> Response:
        """200 `ready`, or 503 and what is not: journal, log, registry, disk."""
        wrong = list(self._wrong())
        if wrong:
            return Response(f"not ready: {' '.join(wrong)}\n", 503, media_type=PLAIN)
        return Response("ready\n", media_type=PLAIN)

    def _wrong(self) -> Iterator[str]:
        trouble = self._bus.journal.trouble
        if trouble is not None and trouble.broken:
            yield "log"
        elif _is_recent(trouble) or not _answers(self._bus.journal.checkpoint):
            yield "journal"
        if not _answers(self._bus.registry.trust):
            yield "registry"
        if shutil.disk_usage(self._bus.folder).free < LEAST_FREE_BYTES:
            yield "disk"


def _is_recent(trouble: Trouble | None) -> bool:
    return trouble is not None and time.monotonic() - trouble.since_s < TROUBLE_S


def _answers(question: Callable[[], object]) -> bool:
    try:
        question()
    except Exception as problem:  # whatever it is that a file or database has: who asks wants a word, not a stack
        log.warning("health.not_ready at=%s", places(problem))
        return False
    return True


class MetricsDoor:
    """The metrics, to those whose addresses the settings name. It shows feeds and bureaus: nobody else's business."""

    def __init__(self, bus: Bus, scrapes: Scrapes) -> None:
        self._bus, self._scrapes = bus, scrapes

    async def answer(self, request: Request) -> Response:
        """The text; of anybody else the refusal is audited as any other."""
        remote = request.client.host if request.client else ""
        if self._is_allowed(remote):
            return Response(await asyncio.to_thread(self._scrapes.metrics.text), headers={"content-type": CONTENT_TYPE})
        try:
            refusal = Refusal("auth.address_not_named", remote)
            told = await turn_away(refusal, "metrics", client_certificate(request.scope), remote, self._bus)
        except (Unavailable, AuditBroken):
            return Response(LATER, 503, {"retry-after": "5"}, JSON)
        log.info("door.refused reference=%s code=%s remote=%s", told.reference or told.detail, refusal.code, remote)
        return Response(plain_refusal(told), status_of(told), UNSIGNED, JSON)

    def _is_allowed(self, remote: str) -> bool:
        try:
            address = ip_address(remote)
        except ValueError:
            return False
        return any(address in network for network in self._scrapes.allowed)
