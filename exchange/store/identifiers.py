"""部件标识码 The one allocator of published identifiers: division, class, serial. It only counts up."""

from typing import Final

import polars as pl

from exchange.store.engine import Writer
from mappings.findings import Severity
from mappings.schema import FINDINGS, KEY, conform, undecided

LAST_SERIAL: Final = 999_999  # six digits; CJ/T 214-2007: 6 division + 4 class + 6 serial


def issue(writer: Writer, founded: pl.DataFrame) -> tuple[pl.Series, pl.DataFrame]:
    """An identifier for each component founded, in order, and FINDINGS where a range is spent.

    founded: KEY, class_code and division_of_position, which decide. Where a class is undecided the identifier is null,
    pending; so it is where the range is spent, and the finding is `identifier.range_spent`. Runs inside the caller's
    transaction.
    """
    by = ["division_of_position", "class_code"]
    asked = founded.filter(~undecided(pl.col("class_code"))).group_by(by).len().sort(by)
    before = [_take(writer, *row) for row in asked.rows()]
    start = asked.with_columns(pl.Series("before", before, dtype=pl.Int64))
    serials = (
        founded.select(*KEY, *by)
        .join(start, on=by, how="left", maintain_order="left")
        .with_columns(serial=pl.col("before") + pl.int_range(1, pl.len() + 1).over(by))
    )
    spent = pl.col("serial") > LAST_SERIAL
    identifier = pl.concat_str(*by, pl.col("serial").cast(pl.String).str.zfill(6))
    issued = serials.select(pl.when(~spent).then(identifier).alias("identifier"))["identifier"]
    return issued, _findings(serials.filter(spent))


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
