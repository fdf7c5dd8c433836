"""图幅 Sheets of 1:500 maps: their numbers, their extents, and where a drawing says which of them it is.

A sheet is named by its south-west corner in kilometres of the feed's plane, X (north) before Y (east), two decimals:
`3307.00-649.50`. Of large coordinates the leading digits are often left out, `07.00-49.50`: then the city says which
of them are meant. Of the sheet's edges the southern and the western belong to it.
"""

import itertools
from typing import Final, NamedTuple

import msgspec
import polars as pl

from mappings.feed import Feed, SheetRule
from mappings.functions import FUNCTIONS
from mappings.schema import Schema

PlaneExtent = tuple[float, float, float, float]  # west, south, east, north in metres

GROUND_M: Final = {"50x50": (250, 250), "50x40": (250, 200)}  # to the east, to the north
CORNER: Final[Schema] = {"east_m": pl.Int64, "north_m": pl.Int64}
TOUCHED: Final[Schema] = {**CORNER, "deep": pl.Boolean}  # deep: farther from its edges than what runs over them
NUMBER: Final = "[0-9]{1,5}[.][0-9]{2}-[0-9]{1,5}[.][0-9]{2}"
MOST: Final = 10_000  # corners that a number may mean; the city would have to be a continent


class Sheet(NamedTuple):
    """A sheet by its south-west corner, whole metres; in order from south to north, then from west to east."""

    north_m: int
    east_m: int

    @property
    def number(self) -> str:
        """Its number with all digits."""
        return "-".join(f"{axis // 1000}.{axis % 1000 // 10:02}" for axis in self)


class Drawn(msgspec.Struct, frozen=True):
    """What a drawing says of its sheets.

    numbers: as they are written, each once
    touched: TOUCHED, the sheets on which anything is drawn but what surrounds them
    """

    numbers: tuple[str, ...]
    touched: pl.DataFrame


def sheet_of(number: str) -> Sheet:
    """The sheet of a number with all digits."""
    north, east = number.split("-")
    return Sheet(_metres(north), _metres(east))


def extent(sheet: Sheet, size: str) -> PlaneExtent:
    """West, south, east and north of a sheet, metres."""
    width, height = GROUND_M[size]
    return sheet.east_m, sheet.north_m, sheet.east_m + width, sheet.north_m + height


def corners(x: pl.Expr, y: pl.Expr, size: str) -> list[pl.Expr]:
    """CORNER of the sheet that a place lies in, as two columns; null where the place is."""
    return [
        ((axis / step).floor().cast(pl.Int64, strict=False) * step).alias(name)
        for name, axis, step in zip(CORNER, (x, y), GROUND_M[size], strict=True)
    ]


def number(east_m: str = "east_m", north_m: str = "north_m") -> pl.Expr:
    """The number of a sheet by the columns of its corner, as `Sheet.number`."""
    parts = [
        pl.format("{}.{}", pl.col(axis) // 1000, (pl.col(axis) % 1000 // 10).cast(pl.String).str.zfill(2))
        for axis in (north_m, east_m)
    ]
    return pl.format("{}-{}", *parts)


def sheets_of(frame: pl.DataFrame) -> list[Sheet]:
    """The different sheets of CORNER, in order."""
    return sorted(Sheet(north, east) for east, north in frame.select(list(CORNER)).unique().drop_nulls().iter_rows())


def meant(text: str, size: str, city: PlaneExtent) -> list[Sheet]:
    """The sheets of a size within the city that a number may mean: leading digits may have been left out.

    text: `07.00-49.50`. None where no corner of such a sheet is written so, or all of them are elsewhere.
    """
    width, height = GROUND_M[size]
    west, south, east, north = city
    parts = text.split("-")
    axes = zip(parts, (height, width), (south, west), (north, east), strict=True)
    along = [_corners_meant(part, step, low, high) for part, step, low, high in axes]
    if len(along[0]) * len(along[1]) > MOST:
        return []
    return [Sheet(*pair) for pair in itertools.product(*along)]


def on_lattice(text: str, size: str) -> bool:
    """Whether a number is that of a corner of sheets of a size: with .20 to the east it is not."""
    width, height = GROUND_M[size]
    return all(_metres(part) % step == 0 for part, step in zip(text.split("-"), (height, width), strict=True))


def _corners_meant(part: str, step: int, low: float, high: float) -> list[int]:
    """Corners along one axis, so written, of which the sheet lies in or touches what is between low and high."""
    said, every = _metres(part), 1000 * 10 ** len(part.partition(".")[0])
    if said % step:
        return []
    first = max(0, -int(-(low - step - said) // every))
    return [said + every * more for more in range(first, first + MOST) if said + every * more <= high]


def _metres(part: str) -> int:
    whole, _, decimals = part.partition(".")
    return int(whole) * 1000 + int(decimals) * 10


def fitting(places: pl.DataFrame, size: str, margin_m: float) -> list[Sheet]:
    """The sheets that every one of the places lies in, or no farther from than the margin, and one of them within.

    places: x, y in metres
    """
    if places.is_empty():
        return []
    lowest, highest = places.min().row(0), places.max().row(0)
    held = sheets_of(places.select(*corners(pl.col("x"), pl.col("y"), size)))

    def holds(sheet: Sheet) -> bool:
        west, south, east, north = extent(sheet, size)
        inside = (lowest[0] >= west - margin_m, lowest[1] >= south - margin_m)
        return all(inside) and highest[0] < east + margin_m and highest[1] < north + margin_m

    return [sheet for sheet in held if holds(sheet)]


def drawn(records: pl.DataFrame, feed: Feed) -> Drawn | None:
    """What the records of a delivery say of their sheets; None of a feed that does not come by sheets.

    records: as `mappings.apply.take` gives them
    """
    rule = feed.sheet
    if rule is None:
        return None
    x, y = (_place(feed, axis) for axis in ("easting_m", "northing_m"))
    written = _written(rule)
    numbers = records.select(number=written)["number"].drop_nulls().unique().sort().to_list()
    of_frame = pl.col(rule.among).is_in(rule.values).fill_null(False) if rule.among else pl.lit(False)
    places = records.filter(written.is_null() & ~of_frame).select(x.alias("x"), y.alias("y")).drop_nulls()
    deep = [
        (pl.col(axis) % step).is_between(rule.margin_m, step - rule.margin_m, closed="none")
        for axis, step in zip(("x", "y"), GROUND_M[rule.size], strict=True)
    ]
    at = places.select(*corners(pl.col("x"), pl.col("y"), rule.size), deep=pl.all_horizontal(deep)).drop_nulls()
    return Drawn(tuple(numbers), at.group_by(list(CORNER)).agg(pl.col("deep").any()).sort(list(CORNER)))


def _written(rule: SheetRule) -> pl.Expr:
    """The number that a record writes, null where it writes none."""
    found = pl.col(rule.from_).str.strip_chars().str.extract(f"^(?:{rule.pattern})$", 1)
    among = pl.col(rule.among).is_in(rule.values) if rule.among else pl.lit(True)
    return pl.when(found.str.contains(f"^{NUMBER}$") & among).then(found)


def _place(feed: Feed, axis: str) -> pl.Expr:
    """Where each record lies along an axis, also of those that become no candidate."""
    rule = feed.fields[axis]
    return FUNCTIONS[rule.parse].apply(pl.col(rule.columns[0]).str.strip_chars())
