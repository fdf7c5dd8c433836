"""落格变更 Components placed anew because a boundary moved: their codes, their change numbers, and what they were.

A claim keeps its words, its days and its digest: what moves is our own polygon. So claims are no news by this, and
where each was counted before is kept beside them (`placed_before`), by which past days are answered.
"""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from exchange.database import Connection
from exchange.store.engine import Writer
from exchange.store.writing import LEAD, TOUCH, in_bulk
from mappings.schema import Schema

Numbers = NDArray[np.float64]
Place = Callable[[Numbers, Numbers], tuple[pl.Series, pl.Series]]  # longitude, latitude -> division and grid codes

AT_ONCE: Final = 200_000
_PLACES: Final[Schema] = {
    "id": pl.Int64,
    "longitude_deg": pl.Float64,
    "latitude_deg": pl.Float64,
    "division_code": pl.String,
    "grid_code": pl.String,
}
_CLAIMS: Final = (
    f"SELECT {', '.join(_PLACES)} FROM claims WHERE valid_to_us IS NULL AND id > ? ORDER BY id LIMIT {AT_ONCE}"
)
# Of those that nobody claims any more the row itself says where they were left.
_LEFT: Final = (
    f"SELECT {', '.join(_PLACES)} FROM components c WHERE id > ? AND NOT EXISTS (SELECT 1 FROM claims k "
    f"WHERE k.component_id = c.id AND k.valid_to_us IS NULL) ORDER BY id LIMIT {AT_ONCE}"
)
_KEEP: Final = (
    "INSERT INTO placed_before (claim_id, delivery_id, record, from_us, until_us, division_code, grid_code) "
    "SELECT k.id, k.delivery_id, k.record, b.from_us, CAST(:at_us AS BIGINT), k.division_code, k.grid_code "
    "FROM moved s JOIN claims k ON k.id = s.id JOIN ("
    "SELECT c.id, coalesce(max(p.until_us), c.valid_from_us) AS from_us FROM claims c LEFT JOIN placed_before p "
    "ON p.claim_id = c.id AND p.delivery_id = c.delivery_id AND p.record = c.record "
    "WHERE c.id IN (SELECT id FROM moved) GROUP BY c.id, c.valid_from_us) b ON b.id = k.id "
    "WHERE b.from_us < :at_us ORDER BY k.id"
)
_MOVE: Final = (
    "UPDATE claims SET division_code = s.division_code, grid_code = s.grid_code FROM moved s WHERE claims.id = s.id"
)
# A component is where the claim known longest says; that another of its claims moved changes nothing of it.
_LED: Final = (
    "SELECT k.component_id FROM moved s JOIN claims k ON k.id = s.id WHERE k.id = (SELECT min(o.id + 0) FROM claims o "
    "WHERE o.component_id = k.component_id AND o.valid_to_us IS NULL) ORDER BY k.component_id"
)
_MOVE_LEFT: Final = (
    "UPDATE components SET division_code = s.division_code, grid_code = s.grid_code, change_number = s.change_number "
    "FROM left_there s WHERE components.id = s.id"
)
_COUNT: Final = "UPDATE change_counter SET last = last + ? RETURNING last"
_PLACED: Final = (
    "INSERT INTO placed_by (layer, version_id, since_us, moved, noted) VALUES (?, ?, ?, ?, 0) ON CONFLICT (layer) "
    "DO UPDATE SET version_id = excluded.version_id, since_us = excluded.since_us, moved = excluded.moved, noted = 0"
)


class PlacedBy(msgspec.Struct, frozen=True):
    """By which version (its id; None: the settings' file) a layer's areas place components, and since when.

    moved: how many components that put elsewhere; noted: the audit has it
    """

    layer: str
    version: int | None
    since_us: int
    moved: int
    noted: bool


def placed_by(connection: Connection) -> dict[str, PlacedBy]:
    """By layer; one that was never put in force has none."""
    rows = connection.execute("SELECT layer, version_id, since_us, moved, noted FROM placed_by ORDER BY layer")
    return {row[0]: PlacedBy(row[0], row[1], row[2], row[3], bool(row[4])) for row in rows.fetchall()}


def note(writer: Writer, layer: str) -> None:
    """Remember that the audit has it."""
    writer.execute("UPDATE placed_by SET noted = 1 WHERE layer = ?", (layer,))


def elsewhere(connection: Connection, place: Place) -> tuple[pl.DataFrame, pl.DataFrame]:
    """id, division_code, grid_code, by id: of claims that stand, and of components that nobody claims, those for which
    the polygons of today say something else than is kept."""
    return _elsewhere(connection, _CLAIMS, place), _elsewhere(connection, _LEFT, place)


def put_in_force(writer: Writer, connection: Connection, place: Place, of: Mapping[str, int | None], at_us: int) -> int:
    """Place all components by other polygons, as of a moment; gives how many of them are elsewhere by that.

    of: versions of the layers that the polygons come from, by layer. Inside the transaction that the caller opened,
    on its connection.
    """
    claims, left = elsewhere(connection, place)
    moved = _move(writer, claims, at_us) + _move_left(writer, left)
    for layer, version in of.items():
        writer.execute(_PLACED, (layer, version, at_us, moved))
    return moved


def _elsewhere(connection: Connection, query: str, place: Place) -> pl.DataFrame:
    found, after = [pl.DataFrame(schema={name: _PLACES[name] for name in ("id", "division_code", "grid_code")})], 0
    while rows := connection.execute(query, (after,)).fetchall():
        known = pl.DataFrame(rows, _PLACES, orient="row")
        division, grid = place(known["longitude_deg"].to_numpy(), known["latitude_deg"].to_numpy())
        other = ~(division.eq_missing(known["division_code"]) & grid.eq_missing(known["grid_code"]))
        said = known.select("id", division.alias("division_code"), grid.alias("grid_code"))
        found.append(said.filter(other))
        after = rows[-1][0]
    return pl.concat(found)


def _move(writer: Writer, claims: pl.DataFrame, at_us: int) -> int:
    if claims.is_empty():
        return 0
    writer.stage("moved", claims)
    writer.execute(_KEEP, {"at_us": at_us})
    writer.execute(_MOVE)
    led = pl.DataFrame(writer.execute(_LED).fetchall(), {"component": pl.Int64}, orient="row")
    if led.height:
        touched = _numbered(writer, led).with_columns(ends=pl.lit(0, pl.Int64))
        in_bulk(writer, TOUCH, "touched", touched)
        writer.execute(LEAD)
    return led.height


def _move_left(writer: Writer, left: pl.DataFrame) -> int:
    in_bulk(writer, _MOVE_LEFT, "left_there", _numbered(writer, left))
    return left.height


def _numbered(writer: Writer, components: pl.DataFrame) -> pl.DataFrame:
    """With a change number for each, in order."""
    last = int(writer.execute(_COUNT, (components.height,)).fetchone()[0])
    numbers = pl.int_range(last - components.height + 1, last + 1, dtype=pl.Int64, eager=True)
    return components.with_columns(numbers.alias("change_number"))
