"""What is asked of layers: which there are, what one says, which imagery shows a place. Degrees of CGCS2000."""

from collections.abc import Mapping
from datetime import date
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl
import shapely

from exchange.entry import CITY_TIME
from exchange.layer_rules import IMAGERY
from exchange.placing import City
from exchange.rights import View
from exchange.store.layers import Version
from exchange.store.places import metres_per_degree
from exchange.store.store import Store
from mappings.feed import Feed
from security.errors import Refusal
from security.message import EVERYWHERE

MOST_IMAGES: Final = 100


class Image(msgspec.Struct, frozen=True, omit_defaults=True):
    """An aerial image as its bureau lists it; the pixels stay there. digest: of the pixels, SHA-256, hex."""

    code: str
    name: str | None
    taken_on: date
    resolution_m: float
    digest: str
    address: str
    version: int
    sheets: str | None = None


class Shown(msgspec.Struct, frozen=True):
    """Features as they may be seen. features: source_key, name, attributes (JSON), place (WKB), by code."""

    version: Version
    features: pl.DataFrame

    def largest_km2(self) -> float:
        """How large a map they make: the largest piece of what their boxes cover together, on the ground."""
        if self.features.is_empty():
            return 0.0
        boxes = shapely.box(*shapely.bounds(_places(self.features)).T)
        east, north = metres_per_degree(shapely.bounds(boxes)[:, 1::2].mean(keepdims=True).ravel())
        scale = np.array([east[0], north[0]]) / 1000
        pieces = shapely.get_parts(shapely.union_all(shapely.transform(boxes, lambda corners: corners * scale)))
        return float(shapely.area(pieces).max())


def version_of(store: Store, layer: str, number: int | None, on: date | None = None) -> Version:
    """The version of a layer by that number; else that which held at the end of a day (+08:00), None: the newest.

    Raises Refusal `layer.unknown`, `layer.withdrawn`.
    """
    known = store.layer_versions(layer)
    named = [one for one in known if one.version == number] if number is not None else []
    if named and not named[0].stands:
        raise Refusal("layer.withdrawn", f"{layer} {number}")
    held = [one for one in known if one.stands and (on is None or one.valid_from.astimezone(CITY_TIME).date() <= on)]
    found = named or (sorted(held, key=lambda one: (one.valid_from_us, one.version)) if number is None else [])
    if not found:
        raise Refusal("layer.unknown", f"{layer} {number or on or ''}".strip())
    return found[-1]


def shown(store: Store, version: Version, feed: Feed | None, view: View, city: City) -> Shown:
    """What a view shows of a version: cut at the edge of the area that it names, without what the feed withholds.

    feed: that declares the layer; None where its file is gone, then only codes and places are shown
    """
    features = store.features(version.id)
    hidden = {*feed.sensitive} if feed else {"name", "attributes"}
    kept = [_without(text, hidden) if feed and view.attributes is None else None for text in features["attributes"]]
    name = pl.col("name") if "name" not in hidden and view.shows("name") else pl.lit(None, pl.String)
    found = features.select("source_key", name.alias("name"), pl.Series("attributes", kept, dtype=pl.String), "wkb")
    return Shown(version, _within(found.rename({"wkb": "place"}), view, city))


def collection(found: Shown, page: pl.DataFrame) -> dict[str, Any]:
    """Features of what is shown as a GeoJSON FeatureCollection (RFC 7946), with the layer's version and day."""
    return {
        "type": "FeatureCollection",
        "layer": found.version.layer,
        "version": found.version.version,
        "valid_from": found.version.valid_from,
        "digest": found.version.digest,
        "features": [
            {
                "type": "Feature",
                "id": code,
                "geometry": msgspec.Raw(geometry.encode()),
                "properties": {"code": code, "name": name, **(msgspec.json.decode(more) if more else {})},
            }
            for (code, name, more), geometry in zip(
                page.select("source_key", "name", "attributes").iter_rows(),
                shapely.to_geojson(_places(page)).tolist(),
                strict=True,
            )
        ],
    }


def imagery(store: Store, longitude_deg: float, latitude_deg: float, on: date | None) -> tuple[Image, ...]:
    """The images that show a place and were taken on a day or before (None: any), the latest first.

    The first is what the place looked like on that day, as far as anybody flew. Raises Refusal `layer.unknown`.
    """
    version = version_of(store, IMAGERY, None)
    near = store.features_around(version.id, longitude_deg, latitude_deg)
    over = shapely.intersects_xy(shapely.from_wkb(near["wkb"].to_numpy().astype(object)), longitude_deg, latitude_deg)
    rows = near.filter(pl.Series(over, dtype=pl.Boolean)).select("source_key", "name", "attributes").iter_rows()
    images = [_image(code, name, more, version.version) for code, name, more in rows]
    taken = [one for one in images if on is None or one.taken_on <= on]
    return tuple(sorted(taken, key=lambda one: (-one.taken_on.toordinal(), one.resolution_m, one.code))[:MOST_IMAGES])


def _image(code: str, name: str | None, more: str, version: int) -> Image:
    said: Mapping[str, str] = msgspec.json.decode(more, type=dict[str, str])
    named = {field: said.get(field) for field in ("taken_on", "digest", "address", "sheets")}
    told = {"code": code, "name": name, "version": version, "resolution_m": float(said["resolution_m"]), **named}
    return msgspec.convert(told, Image)


def _without(text: str | None, hidden: set[str]) -> str | None:
    """Attributes without those that are withheld."""
    said: dict[str, str] = msgspec.json.decode(text) if text else {}
    left = {field: value for field, value in said.items() if field not in hidden}
    return msgspec.json.encode(left).decode() if left else None


def _within(features: pl.DataFrame, view: View, city: City) -> pl.DataFrame:
    """The features as far as they lie in the area of a view; one of which less than its kind is left is not there."""
    area = view.area
    if area == EVERYWHERE or features.is_empty():
        return features
    districts, grid = (zip(areas.codes, areas.polygons, strict=True) for areas in (city.districts, city.grid))
    parts = [place for code, place in districts if code.startswith(area.districts)]
    parts += [place for code, place in grid if code in area.cells]
    parts += [shapely.Polygon(area.polygon)] if area.polygon else []
    places = _places(features)
    cut = shapely.intersection(places, shapely.union_all(parts))
    whole = ~shapely.is_empty(cut) & (shapely.get_dimensions(cut) == shapely.get_dimensions(places))
    left = pl.Series("place", shapely.to_wkb(cut, byte_order=1).tolist(), dtype=pl.Binary)
    return features.with_columns(left).filter(pl.Series(whole))


def _places(features: pl.DataFrame) -> Any:
    return shapely.from_wkb(features["place"].to_numpy().astype(object))
