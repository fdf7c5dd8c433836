"""All doors of the one HTTPS port as one application."""

from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from exchange.bus import Bus
from exchange.http.body import Spool
from exchange.http.cosignatures import cosignatures_door
from exchange.http.deliveries import DeliveriesDoor
from exchange.http.heads import heads_door
from exchange.http.rest import RestDoor
from exchange.http.soap import CONTRACTS, SoapDoor, schema
from security.errors import ExchangeError


def make_app(bus: Bus, spool: Path) -> Starlette:
    """The doors onto a bus. spool: folder for bodies above 1 MiB."""
    large = Spool(spool)
    return Starlette(
        routes=[
            Route("/soap/feeds", SoapDoor("feeds", bus, large)),
            Route("/soap/components", SoapDoor("components", bus, large)),
            Route("/soap/yongtong.xsd", schema),
            Route("/api/v1/deliveries", DeliveriesDoor(bus, large)),
            Route("/api/v1/audit/cosignatures", cosignatures_door(bus, large)),
            Route("/api/v1/cascade/heads", heads_door(bus, large)),
            *RestDoor(bus).routes(),
            Route("/api/openapi.json", _openapi),
            Route("/api/asyncapi.json", _asyncapi),
            Route("/health/live", _live),
            Route("/health/ready", _Ready(bus)),
        ]
    )


async def _openapi(_: Request) -> Response:
    """The published description of the REST addresses, as it stands."""
    return Response((CONTRACTS / "openapi.json").read_bytes(), media_type="application/json")


async def _asyncapi(_: Request) -> Response:
    """The published description of the MQTT topics, as it stands."""
    return Response((CONTRACTS / "asyncapi.json").read_bytes(), media_type="application/json")


async def _live(_: Request) -> Response:
    """The process answers."""
    return Response("live\n", media_type="text/plain")


class _Ready:
    """Whether the bus can take work: its journal and its registry answer."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._bus.journal.checkpoint()
            self._bus.registry.trust()
        except ExchangeError:
            await Response("not ready\n", 503, media_type="text/plain")(scope, receive, send)
            return
        await Response("ready\n", media_type="text/plain")(scope, receive, send)
