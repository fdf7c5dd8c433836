"""收支平衡 Whether all that came in is accounted for: in each sheet or layer, in = out + rejected + ignored."""

from typing import Final

import polars as pl

from connectors.formats.records import SHEET
from mappings.schema import KEY, Schema
from security.errors import Refusal

CAME_IN: Final[Schema] = {"delivery": pl.UInt32, "part": pl.String, "records": pl.UInt32}


def came_in(records: pl.DataFrame) -> pl.DataFrame:
    """CAME_IN: how many records each delivery has in each sheet or layer; of a source without any, in the part "".

    records: as `mappings.apply.take` gives them
    """
    return records.group_by("delivery", pl.col(SHEET).fill_null("").alias("part")).agg(pl.len().alias("records"))


def must_balance(came: pl.DataFrame, parts: pl.DataFrame, outcomes: pl.DataFrame) -> None:
    """Return if each record that came in has one outcome, and nothing else has any; else nothing of it is to be kept.

    came: CAME_IN; parts: PARTS; outcomes: KEY, a row for what became of a record

    Counted apart from the mapping: what a step forgot, or told twice, is seen here. Raises Refusal
    `delivery.unbalanced` with how many records have no outcome or too many; which layer it is stays out of the log.
    """
    if parts.height:
        placed = outcomes.select(*KEY).join(parts, on=list(KEY), how="left")
    else:
        placed = outcomes.select(*KEY, part=pl.lit("", pl.String))
    told = placed.group_by("delivery", pl.col("part").fill_null("")).agg(
        told=pl.len(), apart=pl.col("record").n_unique()
    )
    both = came.join(told, on=["delivery", "part"], how="full", coalesce=True).fill_null(0)
    wrong = both.filter((pl.col("records") != pl.col("told")) | (pl.col("told") != pl.col("apart")))
    if wrong.height:
        raise Refusal("delivery.unbalanced", f"{wrong['records'].sum()} != {wrong['told'].sum()}")
