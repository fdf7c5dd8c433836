"""Two levels: the way up to the city's node, what comes down from it, and the districts below."""

import threading
from functools import partial
from pathlib import Path

import msgspec

from connectors.partner.cascade import CityNode
from connectors.partner.folder import PartnerFolder
from connectors.partner.partner import Partner
from exchange.app import places
from exchange.boundaries import Boundaries, InForce
from exchange.bus import Bus
from exchange.cascade import Cascade, Upward
from exchange.districts import District, Districts
from exchange.journal import Journal
from exchange.layer_rules import DISTRICT, UNIT_GRID
from exchange.placing import geojson_of
from exchange.receipts import verify_receipt
from exchange.reference import PARTS, Listed, Reference, Shelf, make_reference, open_listed
from exchange.settings import Settings
from security.anchors import Anchors
from security.errors import Misconfigured
from security.keys import SigningKey


class HandedDown:
    """What district nodes fetch here: that by which this node places, as it is when they ask.

    Of what the settings' files say, their octets as they stand at the start.
    """

    def __init__(self, settings: Settings, key: SigningKey, boundaries: Boundaries) -> None:
        self._settings, self._key, self._boundaries = settings, key, boundaries
        said = settings.city
        self._files = {
            layer: settings.at(path).read_bytes()
            for layer, path in ((DISTRICT, said.districts), (UNIT_GRID, said.grid))
        }
        self._lock = threading.Lock()
        self._made = self._make(boundaries.now())
        self._of = boundaries.now().versions

    def __call__(self) -> Reference:
        """The list and its parts. Raises Misconfigured, OSError, AuditBroken."""
        with self._lock:
            now = self._boundaries.now()
            if now.versions != self._of:
                self._made, self._of = self._make(now), now.versions
            return self._made

    def _make(self, now: InForce) -> Reference:
        areas = {DISTRICT: now.city.districts, UNIT_GRID: now.city.grid}
        said = {layer: geojson_of(areas[layer]) if layer in now.versions else self._files[layer] for layer in areas}
        parts = dict(zip(PARTS, said.values(), strict=True))
        bus, city = self._settings.bus, self._settings.city
        return make_reference(bus.origin, city.edition, parts, places.state_of(self._settings), self._key)


def open_cascade(settings: Settings, bus: Bus) -> Cascade:
    """This node's way up to its city's. Raises Misconfigured where the settings name none."""
    said = settings.cascade
    if not said.city:
        raise Misconfigured(
            "config.setting", f"{settings.source}: [cascade] city names nobody to whom anything goes up"
        )
    folder = _partner_folder(settings)
    partner = Partner(folder, said.url, partial(verify_receipt, anchors=folder.anchors))
    upward = Upward(said.city, said.feed, said.records, said.deliveries_per_s)
    return Cascade(bus, upward, CityNode(folder, said.url), partner.push)


def fetch_reference(settings: Settings, journal: Journal) -> Listed | None:
    """Put in force what the city's node hands down, if it is news; None where it is not.

    Raises Refusal `reference.*`, or the city's own; Unavailable; Misconfigured where the settings name no folder.
    """
    said = settings.cascade
    if not said.reference:
        raise Misconfigured("config.setting", f"{settings.source}: [cascade] reference names no folder")
    folder = _partner_folder(settings)
    city, shelf = CityNode(folder, said.url), Shelf(settings.at(said.reference))
    listed = open_listed(city.reference(), folder.anchors)
    if not shelf.is_news(listed):
        return None
    shelf.adopt(listed, city.part, settings.city.edition, settings.city.extent, journal)
    return listed


def _partner_folder(settings: Settings) -> PartnerFolder:
    """The district centre's own folder, for its city's node."""
    path = settings.at(settings.cascade.partner)
    places.check_key_apart(settings, path)
    return PartnerFolder(path)


def districts_of(settings: Settings, state: Path) -> Districts:
    """The nodes to which divisions are delegated, by their centre's bureau. Raises Misconfigured."""
    found = {}
    for one in settings.territory.delegated:
        path = settings.at(one.anchors)
        try:
            anchors = msgspec.json.decode(path.read_bytes(), type=Anchors)
        except (OSError, msgspec.MsgspecError) as problem:
            raise Misconfigured(
                "config.anchors", f"{path}: not the anchors of the node of {one.bureau} ({problem})"
            ) from problem
        found[one.bureau] = District(one.bureau, anchors, state / "districts" / one.bureau, places.utc_now)
    return found
