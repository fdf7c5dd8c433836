"""Two levels: the way up to the city's node, what comes down from it, and the districts below."""

from functools import partial
from pathlib import Path

import msgspec

from connectors.partner.cascade import CityNode
from connectors.partner.folder import PartnerFolder
from connectors.partner.partner import Partner
from exchange.app import places
from exchange.bus import Bus
from exchange.cascade import Cascade, Upward
from exchange.districts import District, Districts
from exchange.journal import Journal
from exchange.receipts import verify_receipt
from exchange.reference import PARTS, Listed, Reference, Shelf, make_reference, open_listed
from exchange.settings import Settings
from security.anchors import Anchors
from security.errors import Misconfigured
from security.keys import SigningKey


def reference_of(settings: Settings, key: SigningKey) -> Reference:
    """What district nodes fetch here: the files as they stand at the start."""
    files = dict(zip(PARTS, map(settings.at, (settings.city.districts, settings.city.grid)), strict=True))
    return make_reference(settings.bus.origin, settings.city.edition, files, places.state_of(settings), key)


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
