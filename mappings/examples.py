"""Whether the `[[example]]`s in a feed's file come out as it says."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import polars as pl
import pyproj
from numpy.typing import NDArray

from connectors.formats.records import CARRIED, RECORD, SHEET
from mappings.apply import X_AXES, Y_AXES, Mapped, map_records
from mappings.axes import exchanged_lines
from mappings.feed import Feed
from mappings.findings import Severity
from mappings.systems import EPSG

# From x and y of the feed's system to longitude and latitude of CGCS2000.
Degrees = Callable[[NDArray[np.float64], NDArray[np.float64]], tuple[NDArray[np.float64], NDArray[np.float64]]]


def check_examples(feed: Feed, degrees_of: Degrees | None = None) -> tuple[str, ...]:
    """Run every `[[example]]` of the feed; a sentence for each expectation that does not hold.

    degrees_of: of the feed's system, which for one that EPSG does not have only the caller knows
    """
    if degrees_of is None and EPSG.fullmatch(feed.crs):
        degrees_of = partial(pyproj.Transformer.from_crs(feed.crs, "EPSG:4490", always_xy=True).transform)
    return tuple(
        f"{feed.id}: example {number}: {said}"
        for number, example in enumerate(feed.example, 1)
        for said in _unmet(example.source, example.expect, feed, degrees_of)
    )


def _unmet(source: dict[str, str], expect: dict[str, object], feed: Feed, degrees_of: Degrees | None) -> Iterator[str]:
    columns = {name: [source.get(name) or None] for name in feed.columns}
    for name in source:
        if name not in columns:
            yield f"the feed does not read the column {name!r}"
    own = {"delivery": [0], RECORD: [0], SHEET: [None], CARRIED: [expect.get("ignored") in _carried_rules(feed)]}
    records = pl.DataFrame(
        {**own, **columns},
        schema={
            "delivery": pl.UInt32,
            RECORD: pl.UInt32,
            SHEET: pl.String,
            CARRIED: pl.Boolean,
            **dict.fromkeys(columns, pl.String),
        },
    )
    mapped = map_records(records, feed)
    got = _outcome(mapped, feed, degrees_of)
    unmet = {name for name, wanted in expect.items() if not _same(got.get(name), wanted)}
    for name, wanted in expect.items():
        if name in unmet:
            yield f"{name} is {got.get(name)!r}, not {wanted!r}"
    lines = exchanged_lines(feed)
    if lines and unmet & {*X_AXES, *Y_AXES} and _holds_exchanged(got, expect, degrees_of):
        yield f"it holds with north and east exchanged; write: {lines[0]}; {lines[1]}"


def _carried_rules(feed: Feed) -> set[object]:
    return {rule.rule for rule in feed.ignore if rule.carried}


def _outcome(mapped: Mapped, feed: Feed, degrees_of: Degrees | None) -> dict[str, object]:
    """What became of one record, under the names that an example uses."""
    for finding in mapped.findings.filter(pl.col("severity") != Severity.WARNING.value).iter_rows(named=True):
        code = str(finding["code"])
        return {"ignored": code.removeprefix("ignored.")} if finding["severity"] == "ignored" else {"finding": code}
    got: dict[str, object] = mapped.candidates.row(0, named=True)
    if feed.content == "readings":
        return got
    x, y = mapped.candidates["x"][0], mapped.candidates["y"][0]
    return got if x is None or y is None else {**got, **_position(x, y, degrees_of)}


def _position(x: float, y: float, degrees_of: Degrees | None) -> dict[str, object]:
    """A position under all the names that an example uses; without degrees where nobody knows how to come by them."""
    plane: dict[str, object] = {"easting_m": x, "northing_m": y}
    if degrees_of is None:
        return plane
    longitude, latitude = degrees_of(np.array([x]), np.array([y]))
    return {**plane, "longitude_deg": float(longitude[0]), "latitude_deg": float(latitude[0])}


def _holds_exchanged(got: dict[str, object], expect: dict[str, object], degrees_of: Degrees | None) -> bool:
    """Whether all that is expected of the position would be so with its two numbers exchanged."""
    x, y = got.get("easting_m"), got.get("northing_m")
    if not isinstance(x, float) or not isinstance(y, float):
        return False
    other = _position(y, x, degrees_of)
    return all(_same(other.get(name), expect[name]) for name in (*X_AXES, *Y_AXES) if name in expect)


def _same(got: object, wanted: object) -> bool:
    """Equal; numbers to a millionth (of a degree: 0.1 m)."""
    if isinstance(wanted, (int, float)) and isinstance(got, (int, float)):
        return abs(got - wanted) < 1e-6
    return got == wanted
