"""部件标识码 The one allocator of published identifiers: division, class, serial. It only counts up.

In a division that is delegated it allocates nothing: there the district centre's own node does, and its word is taken.
"""

from typing import Final

import msgspec
import polars as pl

from exchange.database import Connection
from exchange.store.engine import Writer
from exchange.store.territory import WHOLE, Territory
from mappings.findings import Severity
from mappings.schema import FINDINGS, KEY, conform, undecided

LAST_SERIAL: Final = 999_999  # six digits; CJ/T 214-2007: 6 division + 4 class + 6 serial
HOLDERS: Final = "SELECT identifier, id FROM components WHERE identifier IN (SELECT value FROM json_each(?))"
HELD: Final = (
    "SELECT identifier, id FROM components WHERE id IN (SELECT CAST(value AS BIGINT) FROM json_each(?)) "
    "AND identifier IS NOT NULL"
)
HELD_COLUMNS: Final = {"identifier": pl.String, "component": pl.Int64}


def issue(writer: Writer, founded: pl.DataFrame, territory: Territory = WHOLE) -> tuple[pl.Series, pl.DataFrame]:
    """An identifier for each component founded, in order, and FINDINGS where a range is spent.

    founded: KEY, class_code and division_of_position, which decide; named: the identifier that the component's own
    district says it has, taken as it stands (`exchange.naming` has checked it). Where a class is undecided or others
    issue identifiers, the identifier is null, pending; so it is where the range is spent, and the finding is
    `identifier.range_spent`. Runs inside the caller's transaction.
    """
    by = ["division_of_position", "class_code"]
    ours = ~undecided(pl.col("class_code")) & territory.issues_in("division_of_position") & pl.col("named").is_null()
    asked = founded.filter(ours).group_by(by).len().sort(by)
    before = [_take(writer, *row) for row in asked.rows()]
    start = asked.with_columns(pl.Series("before", before, dtype=pl.Int64))
    serials = (
        founded.select(*KEY, *by, "named")
        .join(start, on=by, how="left", maintain_order="left")
        .with_columns(before=pl.when(pl.col("named").is_null()).then("before"))
        .with_columns(serial=pl.col("before") + pl.col("before").is_not_null().cum_sum().over(by))
    )
    spent = pl.col("serial") > LAST_SERIAL
    identifier = pl.concat_str(*by, pl.col("serial").cast(pl.String).str.zfill(6))
    issued = serials.select(pl.coalesce("named", pl.when(~spent).then(identifier)).alias("identifier"))["identifier"]
    return issued, _findings(serials.filter(spent))


def holders(connection: Connection, identifiers: pl.Series) -> pl.DataFrame:
    """identifier, component: those of the identifiers that a component has."""
    return _held(connection, HOLDERS, identifiers)


def identifiers_of(connection: Connection, components: pl.Series) -> pl.DataFrame:
    """identifier, component: of those of the components that have one."""
    return _held(connection, HELD, components)


def _held(connection: Connection, question: str, wanted: pl.Series) -> pl.DataFrame:
    listed = msgspec.json.encode(wanted.drop_nulls().unique().to_list()).decode()
    return pl.DataFrame(connection.execute(question, (listed,)).fetchall(), HELD_COLUMNS, orient="row")


def _take(writer: Writer, division_code: str, class_code: str, count: int) -> int:
    """Takes `count` serials of a range; gives the last one issued before. A spent range stays at its end."""
    key = (division_code, class_code)
    row = writer.execute("SELECT last FROM serials WHERE division_code = ? AND class_code = ?", key).fetchone()
    before = int(row[0]) if row else 0
    writer.execute(
        "INSERT INTO serials VALUES (?, ?, ?) "
        "ON CONFLICT (division_code, class_code) DO UPDATE SET last = excluded.last",
        (*key, min(before + count, LAST_SERIAL)),
    )
    return before


def _findings(spent: pl.DataFrame) -> pl.DataFrame:
    return conform(
        spent.select(
            *KEY,
            code=pl.lit("identifier.range_spent"),
            field=pl.lit("class_code"),
            severity=pl.lit(Severity.WARNING.value),
            value=pl.concat_str("division_of_position", "class_code"),
        ),
        FINDINGS,
    )
