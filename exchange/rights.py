"""What a grant lets its holder see and send: which rows, which columns. One decision for every door.

A row is a component, with all its claims; or, on its way in, a record. The same condition is spelt three times: for one
row and for columns here, for the store's rows in `exchange.store.asking`; a property holds the three together.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import numpy as np
import polars as pl
import shapely
from shapely.geometry.base import BaseGeometry

from mappings.findings import Severity
from mappings.schema import CANDIDATES, CLASSES_BETWEEN, FINDINGS, KEY, ROLES, conform
from security.errors import Refusal
from security.message import EVERYWHERE, Area, Grant

READINGS: Final = "readings"
# What a row always shows: which it is, of what class, where. The basis of a role goes with the role; that a thing is
# gone is no attribute of it.
_ALWAYS: Final = (
    *KEY, "source_key", "component_code", "class_code", "x", "y", "grid_code", "division_code", "removed",
    "class_basis", "outline", *(f"{role}_basis" for role in ROLES),
)  # fmt: skip
_COLUMNS: Final = tuple(name for name in CANDIDATES if name not in _ALWAYS)
# What a grant may name: the shared schema's other columns, and the readings of a component as one.
ATTRIBUTES: Final = (*_COLUMNS, READINGS)
_VALUE_CHARACTERS: Final = 80


class View(msgspec.Struct, frozen=True):
    """What is seen under a grant. classes: codes without edition, empty for any; attributes: None for all."""

    classes: frozenset[str] = frozenset()
    area: Area = EVERYWHERE
    attributes: frozenset[str] | None = None

    @staticmethod
    @functools.lru_cache(4096)
    def of(grant: Grant) -> "View":
        """The view that a grant opens."""
        classes = frozenset(code.rpartition(":")[2] for code in grant.classes)
        return View(classes, grant.area, frozenset(grant.attributes) if grant.attributes else None)

    def shows(self, attribute: str) -> bool:
        """Whether an attribute, one of ATTRIBUTES, is seen."""
        return self.attributes is None or attribute in self.attributes

    def covers(
        self,
        class_code: str,
        division_code: str | None,
        grid_code: str | None,
        longitude_deg: float | None,
        latitude_deg: float | None,
    ) -> bool:
        """Whether a row of this class at this place is there for the holder.

        Of a set of classes that is undecided each must be covered; on the edge of the polygon is inside.
        """
        if self.classes and not self.classes.issuperset(class_code.split(CLASSES_BETWEEN)):
            return False
        area = self.area
        return (
            area == EVERYWHERE
            or (division_code is not None and division_code.startswith(area.districts))
            or (grid_code is not None and grid_code in area.cells)
            or (bool(area.polygon) and in_ring(ring_text(area), longitude_deg, latitude_deg))
        )


EVERYTHING: Final = View()


def refuse_masked(view: View, attribute: str, grant: Grant) -> None:
    """Return if one may ask by an attribute: what is not seen is not to be found by guessing either.

    Raises Refusal `grant.attribute_masked`.
    """
    if not view.shows(attribute):
        held = f"{grant.id} until {grant.valid_until}"
        raise Refusal("grant.attribute_masked", f"needs: {grant.action} {grant.target} {attribute}; held: {held}")


def ring_text(area: Area) -> str:
    """The polygon of an area as the text by which `in_ring` knows it."""
    return msgspec.json.encode(area.polygon).decode()


def is_ring(area: Area) -> bool:
    """Whether the polygon of an area can hold anything: three corners or more, no crossing of itself."""
    return _polygon(ring_text(area)) is not None


def in_ring(ring: str, longitude_deg: float | None, latitude_deg: float | None) -> bool:
    """Whether a place lies in a ring (`ring_text`) or on it. A ring that crosses itself holds nothing."""
    polygon = _polygon(ring)
    if polygon is None or longitude_deg is None or latitude_deg is None:
        return False
    return bool(shapely.intersects_xy(polygon, longitude_deg, latitude_deg))


def in_area(
    placed: pl.DataFrame, views: Sequence[View], division: str = "division_of_position", grid: str = "grid_of_position"
) -> pl.Series:
    """Whether each record lies in the area of its delivery's grant; where a place is not known, only in everywhere.

    placed: `delivery`, longitude_deg, latitude_deg, and the codes of the place in columns division and grid
    views:  by delivery
    """

    def within(view: View) -> pl.Expr:
        area = view.area
        if area == EVERYWHERE:
            return pl.lit(True)
        parts = [pl.col(division).str.starts_with(code) for code in area.districts]
        parts += [pl.col(grid).is_in(list(area.cells))] if area.cells else []
        parts += [pl.lit(_inside(ring_text(area), placed))] if area.polygon else []
        return pl.any_horizontal(part.fill_null(False) for part in parts)

    return placed.select("delivery", within=by_delivery(views, within))["within"]


def without_masked(placed: pl.DataFrame, views: Sequence[View]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The records without the attributes that their delivery's grant does not let in, and FINDINGS of what was left
    out. The basis of a role goes with the last of it.
    """
    masked = [name for name in _COLUMNS if not all(view.shows(name) for view in views)]
    if not masked:
        return placed, pl.DataFrame(schema=FINDINGS)
    hidden = placed.select(
        "delivery",
        *((pl.col(name).is_not_null() & ~by_delivery(views, _shows(name))).alias(f"#{name}") for name in masked),
    )
    findings = [_left_out(placed.filter(hidden[f"#{name}"]), name) for name in masked if hidden[f"#{name}"].any()]
    kept = placed.with_columns(pl.when(~hidden[f"#{name}"]).then(pl.col(name)).alias(name) for name in masked)
    kept = kept.with_columns(
        pl.when(pl.any_horizontal(pl.col(f"{role}_code", f"{role}_name").is_not_null())).then(f"{role}_basis")
        for role in ROLES
    )
    return kept, pl.concat([pl.DataFrame(schema=FINDINGS), *findings])


def _shows(attribute: str) -> Callable[[View], pl.Expr]:
    return lambda view: pl.lit(view.shows(attribute))


def by_delivery(views: Sequence[View], of: Callable[[View], pl.Expr]) -> pl.Expr:
    """What a view makes of the records of its own deliveries."""
    numbers: dict[View, list[int]] = {}
    for number, view in enumerate(views):
        numbers.setdefault(view, []).append(number)
    if len(numbers) == 1:
        return of(views[0])
    return pl.coalesce([pl.when(pl.col("delivery").is_in(those)).then(of(view)) for view, those in numbers.items()])


def _left_out(said: pl.DataFrame, name: str) -> pl.DataFrame:
    """FINDINGS that an attribute was said and not taken."""
    return conform(
        said.select(
            *KEY,
            code=pl.lit("grant.attribute_not_covered"),
            field=pl.lit(name),
            severity=pl.lit(Severity.WARNING.value),
            value=pl.col(name).cast(pl.String).str.head(_VALUE_CHARACTERS),
        ),
        FINDINGS,
    )


def _inside(ring: str, placed: pl.DataFrame) -> pl.Series:
    polygon = _polygon(ring)
    if polygon is None:
        return pl.Series([False]).new_from_index(0, placed.height)
    longitude, latitude = (placed[axis].fill_null(np.nan).to_numpy() for axis in ("longitude_deg", "latitude_deg"))
    return pl.Series(shapely.intersects_xy(polygon, longitude, latitude))


@functools.lru_cache(1024)
def _polygon(ring: str) -> BaseGeometry | None:
    corners = msgspec.json.decode(ring)
    polygon = shapely.Polygon(corners) if len(corners) >= 3 else None
    if polygon is None or not polygon.is_valid or polygon.is_empty:
        return None
    shapely.prepare(polygon)
    return polygon
