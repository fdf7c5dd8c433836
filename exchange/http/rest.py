"""The same answers in JSON. The caller is the TLS certificate alone; every answer says that it was not signed for."""

import asyncio
import logging
import math
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import date, timedelta
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from exchange.account import account, row_document
from exchange.anchor_updates import make_update
from exchange.bus import Bus
from exchange.districts import district_of
from exchange.http import layers
from exchange.http.envelopes import instant
from exchange.http.own_entries import MOST as MOST_ENTRIES
from exchange.http.own_entries import USUAL as ENTRIES
from exchange.http.own_entries import own_entries
from exchange.http.pictures import PICTURE, SVG, picture_of
from exchange.http.proofs import checkpoint_size
from exchange.http.reads import (
    changes_within,
    component_within,
    components_within,
    disputes_within,
    nearest_within,
    ownership_within,
)
from exchange.http.soap import MESSAGE_ID
from exchange.http.tls import client_certificate
from exchange.intake import Admitted, admit_carrier, turn_away
from exchange.journal import content_erased
from exchange.map_area import Measured
from exchange.outcomes import as_arrow
from exchange.publication import MOST, USUAL, VIEW
from exchange.reference import Reference
from exchange.sequences import gap_document
from security.errors import FOR_NOW, AuditBroken, Refusal, Unavailable

JSON: Final = "application/json"
ARROW: Final = "application/vnd.apache.arrow.file"
UNSIGNED: Final = {"yongtong-signed-request": "false"}
PENDING: Final = "yongtong-timestamp-pending"
MAX_RADIUS_M: Final = 500.0
MAX_DISPUTES: Final = 500
WITNESSES_WAIT: Final = timedelta(hours=1)  # for the others' signatures, before the newest head is shown again
_KEY: Final = re.compile(r"[0-9]{1,18}")
_ALWAYS: Final = ("purpose", "case_number")
LATER: Final = b'{"unavailable":"later"}'
_STATUS: Final = {
    **dict.fromkeys(("component.unknown", "delivery.unknown", "report.not_ready", "audit.not_cosigned"), 404),
    **dict.fromkeys(("reference.unknown", "sheet.no_picture"), 404),
    "layer.unknown": 404,
    "layer.withdrawn": 410,
    "layer.grant_narrow": 403,
    "head.no_district": 403,
    **dict.fromkeys(("head.other_known", "audit.log_forked", "audit.log_truncated"), 409),
    **dict.fromkeys(("grant.attribute_masked", "export.area_too_large"), 403),
    **dict.fromkeys(("size.too_large", "jws.too_large"), 413),
    "http.body_slow": 408,
    "http.media_type": 415,
    **dict.fromkeys(("delivery.id_reused", "sequence.used"), 409),
    "audit.head_not_ours": 409,
    "audit.witness_unknown": 403,
    **dict.fromkeys(FOR_NOW, 503),
    "flow.too_many": 429,
    "content.erased": 410,
}

log = logging.getLogger("yongtong.door")
Answer = Callable[[Request], Awaitable[Response]]


class RestDoor:
    """The reads of the bus over REST."""

    def __init__(self, bus: Bus) -> None:
        self._bus, self._measured = bus, Measured()
        self._accounts = asyncio.Lock()

    def routes(self) -> list[Route]:
        """Every address under /api/v1. `near` comes first: else it is taken for a component's number."""
        return [
            self._route("/components", self.components),
            self._route("/components/near", self.near),
            self._route("/components/{key}", self.component),
            self._route("/components/{key}/ownership", self.ownership),
            self._route("/disputes", self.disputes),
            self._route("/changes", self.changes),
            self._route("/deliveries/gaps", self.gaps),
            self._route("/account", self.account),
            self._route("/deliveries/{message_id}/receipt", self.receipt),
            self._route("/deliveries/{message_id}/report", self.report),
            self._route("/deliveries/{message_id}/outcomes", self.outcomes),
            self._route("/deliveries/{message_id}/picture", self.picture),
            self._route("/entries", self.entries),
            self._route("/audit/checkpoint", self.checkpoint),
            self._route("/audit/consistency", self.consistency),
            self._route("/audit/inclusion", self.inclusion),
            self._route("/audit/anchors", self.anchors),
            self._route("/layers", self.layers),
            self._route("/layers/{layer}", self.layer),
            self._route("/imagery", self.imagery),
            self._route("/cascade/head", self.head),
            self._route("/reference", self.reference),
            self._route("/reference/{digest}", self.reference_part),
        ]

    async def ownership(self, request: Request) -> Response:
        """Whose a component is, now or on a past day."""
        query = _query(request, "on")
        key, on = _component(request), _day(query)
        admitted = await self._admitted(request, "ownership", query, component=key)
        return self._answer(admitted, {"ownership": ownership_within(admitted.grant, key, on, self._bus)})

    async def component(self, request: Request) -> Response:
        """One component."""
        query = _query(request)
        key = _component(request)
        admitted = await self._admitted(request, "components", query, component=key)
        return self._answer(admitted, {"component": component_within(admitted.grant, key, self._bus)})

    async def components(self, request: Request) -> Response:
        """Components in order of number, page by page. Each page is asked for, and granted or not, by itself."""
        query = _query(request, "after", "limit", "class", "state")
        after, limit = _page(query)
        admitted = await self._admitted(request, "components", query)
        asked = (after, limit, query.get("class"), query.get("state"), self._bus, self._measured)
        found = await asyncio.to_thread(components_within, admitted.grant, *asked)
        return self._answer(admitted, {"components": found, "next": found[-1].key if found else after})

    async def near(self, request: Request) -> Response:
        """Components around a place, nearest first, and whose they are."""
        query = _query(request, "lon", "lat", "radius_m", "class", "on")
        longitude_deg = _number(query, "lon", -180.0, 180.0)
        latitude_deg = _number(query, "lat", -90.0, 90.0)
        radius_m = _number(query, "radius_m", 0.0, MAX_RADIUS_M)
        on, class_code = _day(query), query.get("class")
        admitted = await self._admitted(request, "ownership", query)
        found = nearest_within(admitted.grant, longitude_deg, latitude_deg, radius_m, class_code, on, self._bus)
        near = [{"distance_m": one.distance_m, "ownership": one.answer} for one in found]
        return self._answer(admitted, {"near": near})

    async def disputes(self, request: Request) -> Response:
        """What is open between bureaus: two owners stated, or claims that position alone did not join."""
        query = _query(request, "after", "limit")
        after, limit = _integer({"after": "0"} | query, "after"), _integer({"limit": "100"} | query, "limit")
        if not 0 < limit <= MAX_DISPUTES:
            raise Refusal("http.parameter", "limit")
        admitted = await self._admitted(request, "ownership", query)
        return self._answer(admitted, {"disputes": disputes_within(admitted.grant, after, limit, self._bus)})

    async def changes(self, request: Request) -> Response:
        """What happened to components after a change number."""
        query = _query(request, "after", "limit")
        after, limit = _page(query)
        admitted = await self._admitted(request, VIEW, query)
        page = changes_within(admitted.grant, after, limit, self._bus)
        return self._answer(admitted, {"changes": page.changes, "next": page.next})

    async def receipt(self, request: Request) -> Response:
        """One's own receipt: the signed document itself, bit for bit."""
        admitted, message_id = await self._own_delivery(request)
        receipt = self._bus.journal.receipt(admitted.principal.bureau, message_id)
        if receipt is None:
            raise Refusal("delivery.unknown", message_id)
        row = self._bus.journal.inbox(admitted.principal.bureau, message_id)
        erased = self._bus.journal.content_erased(row) if row else None
        headers = {**UNSIGNED, **pending_header(self._bus)} | (
            {"yongtong-content-erased": erased.day} if erased else {}
        )
        return Response(receipt, headers=headers, media_type="application/jose+json")

    async def report(self, request: Request) -> Response:
        """One's own report: the signed document itself. 404 `report.not_ready` while act two has not run."""
        admitted, message_id = await self._own_delivery(request)
        sender = admitted.principal.bureau
        row = self._bus.journal.inbox(sender, message_id)
        if row is None:
            raise Refusal("delivery.unknown", message_id)
        report = self._bus.journal.report(sender, message_id)
        erased = self._bus.journal.content_erased(row)
        if report is None and erased is not None:
            raise Refusal("content.erased", content_erased(erased))
        if report is None:
            raise Refusal("report.not_ready", message_id)
        return Response(report, headers={**UNSIGNED, **pending_header(self._bus)}, media_type="application/jose+json")

    async def outcomes(self, request: Request) -> Response:
        """What became of each record of one's own delivery: an Arrow file, checked against the report's root."""
        admitted, message_id = await self._own_delivery(request)
        sender = admitted.principal.bureau
        if self._bus.journal.inbox(sender, message_id) is None:
            raise Refusal("delivery.unknown", message_id)
        found = await asyncio.to_thread(self._bus.store.outcomes, sender, message_id)
        if found is None:  # it waits, or was refused or held: no record of it has an outcome
            raise Refusal("report.not_ready", message_id)
        return Response(
            await asyncio.to_thread(as_arrow, found),
            headers={**UNSIGNED, **pending_header(self._bus)},
            media_type=ARROW,
        )

    async def picture(self, request: Request) -> Response:
        """What one's own delivery of sheets changed, drawn: it holds places, as the records do."""
        admitted, message_id = await self._own_delivery(request)
        drawn = await asyncio.to_thread(picture_of, admitted.principal.bureau, message_id, self._bus)
        return Response(drawn, headers={**UNSIGNED, **PICTURE, **pending_header(self._bus)}, media_type=SVG)

    async def gaps(self, request: Request) -> Response:
        """What has not come of one's own deliveries that one numbers, and how far one has counted."""
        query = _query(request, "feed")
        admitted = await self._admitted(request, "deliveries", query)
        bureau = admitted.principal.bureau
        found = await asyncio.to_thread(self._bus.journal.gaps, bureau, query.get("feed"))
        counted = [{"feed": one.feed, "highest": one.highest, "received": one.received} for one in found.counted]
        return self._answer(admitted, {"counted": counted, "gaps": [gap_document(gap) for gap in found.gaps]})

    async def account(self, request: Request) -> Response:
        """One's own account of a day: what was delivered, and where it is now."""
        query = _query(request, "day")
        day = _day(query, "day")
        if day is None:
            raise Refusal("http.parameter", "day")
        admitted = await self._admitted(request, "deliveries", query)
        bureau, named = admitted.principal.bureau, day.isoformat()
        async with self._accounts:  # the register's rows are counted for it: one at a time
            rows = await asyncio.to_thread(account, self._bus.journal, self._bus.store, named, bureau)
        entry = self._bus.journal.account_of(named)
        told = {
            "day": named,
            "balanced": all(row.balanced for row in rows),
            "rows": [row_document(row) for row in rows],
        }
        return self._answer(admitted, {**told, "entry": entry.index if entry else None})

    async def entries(self, request: Request) -> Response:
        """What the log holds in the caller's own name, after an entry, and how much of it there is."""
        query = _query(request, "after", "limit")
        after, limit = (_integer({name: n, **query}, name) for name, n in (("after", "0"), ("limit", str(ENTRIES))))
        if not 1 <= limit <= MOST_ENTRIES:
            raise Refusal("http.parameter", "limit")
        admitted = await self._admitted(request, "deliveries", query)
        page = await asyncio.to_thread(own_entries, admitted.principal.bureau, after, limit, self._bus)
        listed = [
            {
                "number": entry.index,
                "leaf": entry.leaf.decode(),
                "salt": entry.salt and entry.salt.hex(),
                "detail": entry.detail and entry.detail.decode(),
            }
            for entry in page.entries
        ]
        told = {"count": page.count, "entries": listed, "next": page.next, "checkpoint": page.checkpoint}
        return self._answer(admitted, told)

    async def checkpoint(self, request: Request) -> Response:
        """A signed head of the log, as C2SP text: the newest. cosigned: the newest that witnesses signed, with their
        lines, 404 `audit.not_cosigned` while none is signed by as many as the settings demand. to_cosign: the one that
        a witness should sign next.
        """
        query = _query(request, *_HEADS)
        wanted = query.keys() & _HEADS.keys()
        if len(wanted) > 1 or any(query[name] != "true" for name in wanted):
            raise Refusal("http.parameter", ", ".join(_HEADS))
        await self._admitted(request, "deliveries", query)
        text = _HEADS[wanted.pop()](self._bus) if wanted else self._bus.journal.checkpoint()
        return Response(text, headers={**UNSIGNED, **pending_header(self._bus)}, media_type="text/plain")

    async def consistency(self, request: Request) -> Response:
        """RFC 6962 consistency proof between two sizes of the log."""
        query = _query(request, "from", "to")
        first, second = _integer(query, "from"), _integer(query, "to")
        admitted = await self._admitted(request, "deliveries", query)
        if not 0 < first <= second <= self._log_size():
            raise Refusal("audit.no_such_size", f"{first}, {second}")
        nodes = self._bus.journal.consistency(first, second)
        return self._answer(admitted, {"from": first, "to": second, "nodes": [node.hex() for node in nodes]})

    async def inclusion(self, request: Request) -> Response:
        """RFC 6962 audit path of an entry in the log of a size."""
        query = _query(request, "index", "size")
        index, size = _integer(query, "index"), _integer(query, "size")
        admitted = await self._admitted(request, "deliveries", query)
        if not index < size <= self._log_size():
            raise Refusal("audit.no_such_size", f"{index}, {size}")
        nodes = self._bus.journal.inclusion(index, size)
        return self._answer(admitted, {"index": index, "size": size, "nodes": [node.hex() for node in nodes]})

    async def anchors(self, request: Request) -> Response:
        """Every change of the bus's own keys, each with its proofs: anchors follow it without believing this answer."""
        query = _query(request, "known")
        known = _integer({"known": "0"} | query, "known")
        await self._admitted(request, "deliveries", query)
        changes = self._bus.registry.key_changes()
        update = await asyncio.to_thread(make_update, self._bus.journal, changes, known)
        return Response(update, headers={**UNSIGNED, **pending_header(self._bus)}, media_type=JSON)

    async def layers(self, request: Request) -> Response:
        """Every version of the layers of reference data that stands."""
        admitted = await self._admitted(request, layers.VIEW, _query(request))
        return self._answer(admitted, {"layers": await asyncio.to_thread(layers.listed, self._bus)})

    async def layer(self, request: Request) -> Response:
        """A version of a layer as GeoJSON, page by page; the newest, or the one that held on a day."""
        query = _query(request, "version", "on", "after", "limit")
        _, limit = _page({name: value for name, value in query.items() if name == "limit"})
        if "version" in query:
            _integer(query, "version")
        on, layer = _day(query), request.path_params["layer"][:64]
        admitted = await self._admitted(request, layers.VIEW, query, layer=layer)
        asked = (layer, {**query, "limit": str(limit)}, on, self._bus)
        found = await asyncio.to_thread(layers.features_within, admitted.grant, *asked)
        return self._answer(admitted, found, layers.GEOJSON)

    async def imagery(self, request: Request) -> Response:
        """Which aerial imagery shows a place on a day."""
        query = _query(request, "lon", "lat", "on")
        place = _number(query, "lon", -180.0, 180.0), _number(query, "lat", -90.0, 90.0)
        on = _day(query)
        admitted = await self._admitted(request, layers.VIEW, query)
        found = await asyncio.to_thread(layers.imagery_within, admitted.grant, *place, on, self._bus)
        return self._answer(admitted, {"imagery": found})

    async def head(self, request: Request) -> Response:
        """How far the log of the caller's own district node is known here."""
        admitted = await self._admitted(request, "deliveries", _query(request))
        district = district_of(self._bus.districts, admitted.principal.bureau)
        return self._answer(admitted, msgspec.structs.asdict(await asyncio.to_thread(district.followed)))

    async def reference(self, request: Request) -> Response:
        """基准数据: the signed list of what district nodes place by, each part by its digest."""
        await self._admitted(request, "deliveries", _query(request))
        return Response(self._reference().signed, headers=UNSIGNED, media_type="application/jose+json")

    async def reference_part(self, request: Request) -> Response:
        """One part of it, the octets that the list names."""
        await self._admitted(request, "deliveries", _query(request))
        octets = self._reference().parts.get(request.path_params["digest"])
        if octets is None:
            raise Refusal("reference.unknown")
        return Response(octets, headers=UNSIGNED, media_type="application/octet-stream")

    def _reference(self) -> Reference:
        if self._bus.reference is None:
            raise Unavailable("no reference data was made at the start")
        return self._bus.reference()

    async def _own_delivery(self, request: Request) -> tuple[Admitted, str]:
        message_id: str = request.path_params["message_id"]
        if not MESSAGE_ID.fullmatch(message_id):
            raise Refusal("http.parameter", "message id")
        query = _query(request)
        return await self._admitted(request, "deliveries", query, delivery=message_id), message_id

    async def _admitted(self, request: Request, view: str, query: Mapping[str, str], **asked: str) -> Admitted:
        detail: dict[str, str | int] = {"path": request.url.path.removeprefix("/api/v1"), **query, **asked}
        return await admit_carrier(client_certificate(request.scope), _remote(request), view, detail, self._bus)

    def _log_size(self) -> int:
        return checkpoint_size(self._bus.journal.checkpoint())

    def _answer(self, admitted: Admitted, found: dict[str, Any], media_type: str = JSON) -> Response:
        now = self._bus.clock()
        head: dict[str, Any] = {
            "signed_request": False,
            "answered_at": now,
            "as_of": now,
            "recipient": admitted.principal.bureau,
        }
        pending = self._bus.timestamp_pending()
        head |= {"timestamp_pending": pending} if pending else {}
        return Response(msgspec.json.encode({**head, **found}), headers=UNSIGNED, media_type=media_type)

    def _route(self, path: str, answer: Answer) -> Route:
        async def endpoint(request: Request) -> Response:
            try:
                return await answer(request)
            except Refusal as refusal:
                return await self._refused(refusal, request)
            except (Unavailable, AuditBroken) as problem:
                broken = isinstance(problem, AuditBroken)
                log.log(logging.CRITICAL if broken else logging.WARNING, "door.unavailable reason=%s", problem)
                return Response(LATER, 503, {"retry-after": "5"}, JSON)

        return Route("/api/v1" + path, endpoint, methods=["GET"])

    async def _refused(self, refusal: Refusal, request: Request) -> Response:
        told = refusal
        if not refusal.reference and refusal.code != "auth.refused":  # made here, so not yet in the audit
            der = client_certificate(request.scope)
            told = await turn_away(refusal, "rest", der, _remote(request), self._bus)
        reference = told.reference or told.detail
        log.info("door.refused reference=%s code=%s remote=%s", reference, refusal.code, _remote(request))
        return Response(plain_refusal(told), status_of(told), UNSIGNED, JSON)


def _cosigned(bus: Bus) -> str:
    names = [witness.name for witness in bus.anchors.witnesses]
    head = bus.attestations.newest_cosigned(names, bus.anchors.quorum)
    if head is None:
        raise Refusal("audit.not_cosigned", f"{bus.anchors.quorum} of {len(names)}")
    return head.checkpoint


def _to_cosign(bus: Bus) -> str:
    """Each look of a witness makes an entry, so each would find a newer head than the last one did. A head that some
    have signed is therefore shown to the others for a while, that as many as are demanded sign the same."""
    names, now = [witness.name for witness in bus.anchors.witnesses], bus.clock()
    head = bus.attestations.waiting(names, bus.anchors.quorum, now - WITNESSES_WAIT, now + WITNESSES_WAIT)
    return head.checkpoint if head else bus.journal.checkpoint()


_HEADS: Final[Mapping[str, Callable[[Bus], str]]] = {"cosigned": _cosigned, "to_cosign": _to_cosign}


def pending_header(bus: Bus) -> dict[str, str]:
    """That the log waits for a timestamp, beside an answer which is a signed document and can say nothing more."""
    pending = bus.timestamp_pending()
    return {PENDING: instant(pending)} if pending else {}


def status_of(refusal: Refusal) -> int:
    """HTTP's word for a refusal."""
    return _STATUS.get(refusal.code, 403 if refusal.code.startswith("auth.") else 400)


def plain_refusal(refusal: Refusal) -> bytes:
    """A refusal as JSON, unsigned; a stranger's has its reference for a detail, and shows it as that only."""
    stranger = refusal.code == "auth.refused"
    words = {
        "code": refusal.code,
        **msgspec.structs.asdict(refusal.sentence),
        "reference": refusal.reference or refusal.detail,
        "detail": "" if stranger else refusal.detail,
    }
    return msgspec.json.encode({"refusal": words})


def _query(request: Request, *names: str) -> dict[str, str]:
    """The query's parameters, each known and given once. Raises Refusal `http.parameter`."""
    pairs = request.query_params.multi_items()
    query = dict(pairs)
    unknown = query.keys() - {*names, *_ALWAYS}
    if unknown or len(query) != len(pairs) or any(len(value) > 200 for value in query.values()):
        raise Refusal("http.parameter", ", ".join(sorted(unknown))[:80])
    return {name: value for name, value in query.items() if value}


def _page(query: Mapping[str, str]) -> tuple[int, int]:
    """The cursor of a page, and how much it may hold."""
    after, limit = (_integer({name: usual, **query}, name) for name, usual in (("after", "0"), ("limit", str(USUAL))))
    if not 1 <= limit <= MOST:
        raise Refusal("http.parameter", "limit")
    return after, limit


def _component(request: Request) -> str:
    key: str = request.path_params["key"]
    if not _KEY.fullmatch(key):
        raise Refusal("http.parameter", "component")
    return key


def _day(query: Mapping[str, str], name: str = "on") -> date | None:
    text = query.get(name)
    try:
        return date.fromisoformat(text) if text else None
    except ValueError as problem:
        raise Refusal("http.parameter", name) from problem


def _number(query: Mapping[str, str], name: str, low: float, high: float) -> float:
    try:
        number = float(query[name])
    except (KeyError, ValueError) as problem:
        raise Refusal("http.parameter", name) from problem
    if not math.isfinite(number) or not low <= number <= high:
        raise Refusal("http.parameter", name)
    return number


def _integer(query: Mapping[str, str], name: str) -> int:
    text = query.get(name, "")
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise Refusal("http.parameter", name)
    return int(text)


def _remote(request: Request) -> str:
    return request.client.host if request.client else ""
