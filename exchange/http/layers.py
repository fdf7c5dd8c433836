"""Layers of reference data over REST: what a `pull layers` grant lets its holder see, as GeoJSON."""

from collections.abc import Mapping
from datetime import date
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl

from exchange.bus import Bus
from exchange.layer_answers import Shown, collection, imagery, shown, version_of
from exchange.layer_rules import IMAGERY
from exchange.map_area import refuse_larger
from exchange.placing import codes_at
from exchange.rights import View
from exchange.store.layers import Version
from mappings.feed import Feed
from mappings.load import GLOBE, PLANE
from security.errors import Refusal
from security.message import EVERYWHERE, Grant

VIEW: Final = "layers"
GEOJSON: Final = "application/geo+json"


def listed(bus: Bus) -> list[dict[str, Any]]:
    """Every version of every layer that stands, with its feed's data level and whether everything is placed by it."""
    placed = {one.version for one in bus.store.placed_by().values()}
    return [
        {
            "layer": one.layer,
            "version": one.version,
            "bureau": one.bureau,
            "level": _level(_feed_of(one, bus)),
            "features": one.features,
            "valid_from": one.valid_from,
            "digest": one.digest,
            "in_force": one.id in placed,
        }
        for one in bus.store.layer_versions()
        if one.stands and _leaves(_feed_of(one, bus))
    ]


def features_within(grant: Grant, layer: str, query: Mapping[str, str], on: date | None, bus: Bus) -> dict[str, Any]:
    """A page of a version's features that the grant covers, in order of code.

    query: `version`, `after` (a code), `limit` as they were asked, digits where they are numbers
    Raises Refusal `layer.unknown`, `layer.withdrawn`; `export.area_too_large`, on every page, by what all come to.
    """
    number = int(query["version"]) if "version" in query else None
    version = version_of(bus.store, layer, number, on)
    feed = _feed_of(version, bus)
    if not _leaves(feed):
        raise Refusal("layer.unknown", layer)
    found = shown(bus.store, version, feed, View.of(grant), bus.city)
    refuse_larger(found.largest_km2(), bus.limits.map_area_km2, [grant], "export.area_too_large")
    page = found.features.filter(pl.col("source_key") > query.get("after", "")).head(int(query["limit"]))
    return {**collection(found, page), "level": _level(feed), "next": _next(found, page)}


def imagery_within(
    grant: Grant, longitude_deg: float, latitude_deg: float, on: date | None, bus: Bus
) -> list[dict[str, Any]]:
    """The images that show a place, the latest first; of a place outside the grant's area nothing is told.

    Raises Refusal `layer.unknown`, `layer.grant_narrow` where the grant shows no attributes.
    """
    view = View.of(grant)
    if view.attributes is not None:
        raise Refusal("layer.grant_narrow")
    codes = codes_at(bus.city, np.array([longitude_deg]), np.array([latitude_deg]))
    division, grid = (one[0] for one in codes)
    if view.area != EVERYWHERE and not View(area=view.area).covers("", division, grid, longitude_deg, latitude_deg):
        return []
    feed = _feed_of(version_of(bus.store, IMAGERY, None), bus)
    if not _leaves(feed):
        raise Refusal("layer.unknown", IMAGERY)
    hidden = {*feed.sensitive} if feed else {"address", "digest", "sheets"}
    told = imagery(bus.store, longitude_deg, latitude_deg, on)
    return [{name: value for name, value in msgspec.structs.asdict(one).items() if name not in hidden} for one in told]


def _next(found: Shown, page: pl.DataFrame) -> str | None:
    """Where the next page begins; None where there is none."""
    if page.is_empty() or page["source_key"][-1] == found.features["source_key"][-1]:
        return None
    code: str = page["source_key"][-1]
    return code


def _feed_of(version: Version, bus: Bus) -> Feed | None:
    return bus.feeds.get(version.feed)


def _leaves(feed: Feed | None) -> bool:
    """Whether a layer leaves by this door: not one whose codes or places its feed withholds."""
    return feed is None or not {*feed.sensitive} & {"source_key", "geometry", *PLANE, *GLOBE}


def _level(feed: Feed | None) -> str:
    return feed.level if feed else ""
