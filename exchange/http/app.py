"""All doors of the one HTTPS port as one application."""

from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from exchange.bus import Bus
from exchange.http.body import Spool
from exchange.http.cosignatures import cosignatures_door
from exchange.http.deliveries import DeliveriesDoor
from exchange.http.heads import heads_door
from exchange.http.health import MetricsDoor, Ready, Scrapes, live
from exchange.http.requests import headers_of
from exchange.http.rest import RestDoor
from exchange.http.soap import CONTRACTS, SoapDoor, schema
from exchange.watched import heard_traceparent, tracing


class _Traced:
    """Keeps what a request says of its sender's trace, for act one to link to."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        heard_traceparent(headers_of(scope).get("traceparent", ""))
        await self._app(scope, receive, send)


def make_app(bus: Bus, spool: Path, scrapes: Scrapes | None = None) -> Starlette:
    """The doors onto a bus. spool: folder for bodies above 1 MiB; scrapes: who reads which metrics."""
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
            Route("/health/live", live),
            Route("/health/ready", Ready(bus).answer),
            *([Route("/metrics", MetricsDoor(bus, scrapes).answer)] if scrapes else []),
        ],
        middleware=[Middleware(_Traced)] if tracing() else [],
    )


async def _openapi(_: Request) -> Response:
    """The published description of the REST addresses, as it stands."""
    return Response((CONTRACTS / "openapi.json").read_bytes(), media_type="application/json")


async def _asyncapi(_: Request) -> Response:
    """The published description of the MQTT topics, as it stands."""
    return Response((CONTRACTS / "asyncapi.json").read_bytes(), media_type="application/json")
