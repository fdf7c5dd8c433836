"""基准数据图层 A version of a layer as a bureau delivers it: where its features are, and what is new in it.

A layer (unit grids, districts, roads, place names, the footprints of imagery …) is no set of components. One delivery
is all of it and takes the place of the version before, which is kept with its days. None of it is joined to anything.
"""

import hashlib
from typing import Final

import msgspec
import numpy as np
import polars as pl
import shapely
from numpy.typing import NDArray

from exchange.placing import City, way_to_degrees
from exchange.rights import EVERYTHING
from exchange.store.frames import ENDED, KEPT, VERSIONS, BatchDelivery, Compared, NewVersion, microseconds
from exchange.store.layers import Version
from mappings.apply import Mapped
from mappings.feed import Feed
from mappings.findings import Severity, set_aside
from mappings.schema import FINDINGS, KEY, OUTCOMES, conform
from security.errors import Refusal

Geometries = NDArray[np.object_]

FIELD_ENDS: Final = "\x1f"
NOT_TAKEN: Final = "layer.not_taken"
IMAGERY: Final = ("resolution_m", "taken_on", "sheets", "digest", "address")


def check_grant(delivery: BatchDelivery) -> None:
    """Return if a delivery's grant covers a layer. It is taken whole, so what narrows a grant leaves none of it.

    Raises Refusal `layer.grant_narrow`.
    """
    if delivery.view != EVERYTHING:
        raise Refusal("layer.grant_narrow")


def geometries(features: pl.DataFrame, *, crs: str, city: City, limit_m: float) -> Geometries:
    """Where the features (FEATURES) are, in degrees of CGCS2000, without heights; None where that cannot be read.

    crs, limit_m: as `exchange.placing.place` has them. Every corner is transformed, all of them in one call.
    Raises as that.
    """
    way = way_to_degrees(crs, city, limit_m)
    found = shapely.force_2d(_read(features))
    corners, owner = shapely.get_coordinates(found, return_index=True)
    moved = np.column_stack(way.degrees_of(*corners.T)) if len(corners) else corners
    unfit = np.unique(owner[~np.isfinite(moved).all(axis=1)])
    found[unfit] = None
    kept = ~np.isin(owner, unfit)
    placed: Geometries = shapely.set_coordinates(found, moved[kept])
    return placed


def _read(features: pl.DataFrame) -> Geometries:
    said = features["geometry"].fill_null("")
    binary = said.str.contains(r"^[0-9A-Fa-f]+$")
    octets = said.set(~binary, None).to_numpy().astype(object)
    words = said.set(binary | (said == ""), None).to_numpy().astype(object)
    point = features.select(pl.all_horizontal(pl.col("x", "y").is_finite()).fill_null(False)).to_series().to_numpy()
    x, y = (features[axis].fill_null(np.nan).to_numpy() for axis in ("x", "y"))
    found: Geometries = shapely.from_wkb(octets, on_invalid="ignore")
    from_words = shapely.from_wkt(words, on_invalid="ignore")
    unread = shapely.is_missing(found)
    found[unread] = from_words[unread]
    found[point] = shapely.points(x[point], y[point])
    found[shapely.is_empty(found)] = None
    return found


class Said(msgspec.Struct, frozen=True):
    """What one delivery says. places: of its features, those that are wrong included, as `geometries` gives them;
    findings: FINDINGS of mapping and of the rules."""

    mapped: Mapped
    places: Geometries
    findings: pl.DataFrame


def compare(
    said: Said, before: Version | None, standing: pl.DataFrame, delivery: BatchDelivery, feed: Feed
) -> tuple[Compared, NewVersion | None]:
    """What a delivery makes of a layer: the fate of each feature, and the version, None where there is none.

    before, standing: the newest version that stands, and source_key, digest of its features

    One error refuses the version, so each of its features is rejected, the right ones as `layer.not_taken`. A delivery
    that says what the newest version says makes none.
    Raises Refusal `layer.older`: what is older than the newest version takes no place.
    """
    valid_from_us = microseconds(delivery.valid_from)
    if before is not None and valid_from_us < before.valid_from_us:
        raise Refusal("layer.older", f"{feed.layer} {before.version}")
    features = said.mapped.candidates
    keys = pl.concat([frame.select(*KEY, "source_key") for frame in (features, said.mapped.unread)])
    aside = set_aside(keys, said.findings)
    accepted = features.join(aside, on=list(KEY), how="anti", maintain_order="left")
    if (aside["outcome"] == "rejected").any():
        return _not_taken(aside, accepted), None
    kept = _kept(features, said.places).join(accepted, on="record", how="semi", maintain_order="left")
    judged = _judged(kept, standing)
    gone = standing.join(kept, on="source_key", how="anti").height
    percent = 100 * gone / standing.height if standing.height else 0.0
    outcomes = pl.concat([aside, conform(judged.with_columns(delivery=pl.lit(0)), OUTCOMES)])
    compared = _compared(outcomes, pl.DataFrame(schema=FINDINGS))
    compared = msgspec.structs.replace(compared, gone_percent=percent, held=percent > feed.gone_limit_percent)
    digest = version_digest(kept)
    if before is not None and digest == before.digest:
        return compared, None
    return compared, NewVersion(feed.layer, digest, valid_from_us, gone, conform(judged, KEPT))


def _not_taken(aside: pl.DataFrame, right: pl.DataFrame) -> Compared:
    """Nothing of a version is kept of which one feature is wrong; the right ones are told so."""
    outcomes = right.select(*KEY, "source_key", outcome=pl.lit("rejected"), code=pl.lit(NOT_TAKEN))
    findings = right.select(*KEY, code=pl.lit(NOT_TAKEN), severity=pl.lit(Severity.ERROR.value))
    return _compared(pl.concat([aside, conform(outcomes, OUTCOMES)]), conform(findings, FINDINGS))


def _judged(kept: pl.DataFrame, standing: pl.DataFrame) -> pl.DataFrame:
    """The features with their outcome, and whether that is news."""
    before = standing.rename({"digest": "before"})
    joined = kept.join(before, on="source_key", how="left", maintain_order="left")
    same = pl.when(pl.col("digest") == pl.col("before")).then(pl.lit("unchanged")).otherwise(pl.lit("changed"))
    judged = joined.with_columns(outcome=pl.when(pl.col("before").is_null()).then(pl.lit("new")).otherwise(same))
    return judged.with_columns(news=(pl.col("outcome") != "unchanged").cast(pl.Int64))


def version_digest(kept: pl.DataFrame) -> str:
    """What two persons decide by: SHA-256, hex, over code and digest of every feature, in order of code.

    kept: source_key, digest
    """
    rows = kept.select("source_key", "digest").sort("source_key").iter_rows()
    whole = hashlib.sha256()
    for key, digest in rows:
        whole.update(key.encode() + b"\x00" + digest)
    return whole.hexdigest()


def feature_digests(kept: pl.DataFrame) -> pl.Series:
    """SHA-256 of what each feature says but its code: name, place and attributes. kept: name, wkb, attributes."""
    rows = kept.select(pl.col("name", "attributes").fill_null(""), "wkb").select("name", "attributes", "wkb")
    texts = ((f"{name}{FIELD_ENDS}{more}{FIELD_ENDS}".encode() + wkb) for name, more, wkb in rows.iter_rows())
    return pl.Series("digest", [hashlib.sha256(text).digest() for text in texts], dtype=pl.Binary)


def _kept(features: pl.DataFrame, places: Geometries) -> pl.DataFrame:
    """The features as the store keeps them, but what is new of them. Those without a place are left out."""
    whole = shapely.to_wkb(places, byte_order=1)
    west, south, east, north = (pl.Series(side) for side in shapely.bounds(places).T)
    framed = features.select("record", "source_key", "name", attributes=_attributes(features)).with_columns(
        pl.Series("wkb", whole.tolist(), dtype=pl.Binary),
        west_deg=west, south_deg=south, east_deg=east, north_deg=north,
    )  # fmt: skip
    framed = framed.filter(pl.col("wkb").is_not_null())
    return framed.with_columns(feature_digests(framed))


def _attributes(features: pl.DataFrame) -> pl.Series:
    """JSON of all else that a feature says, in order of name; null where none says anything."""
    texts = features["attributes"].to_list()
    more = features.select(pl.col(IMAGERY).cast(pl.String)).to_dicts()
    said = [
        {name: value for name, value in {**(msgspec.json.decode(text) if text else {}), **imagery}.items() if value}
        for text, imagery in zip(texts, more, strict=True)
    ]
    encoded = [msgspec.json.encode(one, order="sorted").decode() if one else None for one in said]
    return pl.Series("attributes", encoded, dtype=pl.String)


def _compared(outcomes: pl.DataFrame, findings: pl.DataFrame) -> Compared:
    nothing = pl.DataFrame(schema=VERSIONS), pl.DataFrame(schema=ENDED)
    return Compared(outcomes.sort(list(KEY)), *nothing, findings, gone_percent=0.0, held=False, whole=False)


def too_much_gone(compared: Compared, version: NewVersion | None, feed: Feed) -> dict[str, str | int]:
    """What a report says of a version that a person has to look at first."""
    return {
        "code": "delivery.held",
        "gone_percent": f"{compared.gone_percent:.1f}",
        "gone_limit_percent": f"{feed.gone_limit_percent:.1f}",
        "would_end": version.gone if version else 0,
    }


def told(layer: str, made: Version | None) -> dict[str, str | int]:
    """What the report tells besides: the layer, and the number of the version that came of the delivery, if any."""
    return {"layer": layer, "version": made.version} if made else {"layer": layer}
