"""图上注记 The numbers that a drawing writes beside its symbols: which number is whose."""

from typing import Final

import numpy as np
import polars as pl
import shapely
from numpy.typing import NDArray

from mappings.schema import CANDIDATES, Schema, conform

NUMBERS: Final[Schema] = {
    "delivery": pl.UInt32,
    "network": pl.String,
    "x": pl.Float64,
    "y": pl.Float64,
    "text": pl.String,
}
_SAME: Final = ["delivery", "network"]

Rows = NDArray[np.int64]


def with_labels(candidates: pl.DataFrame, numbers: pl.DataFrame, within_m: float) -> pl.DataFrame:
    """CANDIDATES with `label` filled where a number stands beside.

    numbers: NUMBERS, in the same reference system, metres

    Number and symbol are of one network and each the nearest of the other, no farther apart than within_m: two symbols
    never bear one number, and a number whose own symbol is nearer to another one is nobody's.
    """
    placed = candidates.with_row_index("#row").drop_nulls(["x", "y"])
    found = [pl.DataFrame(schema={"#row": pl.UInt32, "text": pl.String})]
    for same, symbols in placed.group_by(_SAME):
        texts = numbers.drop_nulls(["x", "y"]).filter(
            *(pl.col(name).eq_missing(pl.lit(value)) for name, value in zip(_SAME, same, strict=True))
        )
        symbol, text = _mutually_nearest(symbols, texts, within_m)
        found.append(pl.DataFrame([symbols["#row"].gather(symbol), texts["text"].gather(text)]))
    labels = candidates.with_row_index("#row").join(pl.concat(found), on="#row", how="left", maintain_order="left")
    return conform(labels.with_columns(label=pl.coalesce("label", "text")), CANDIDATES)


def _mutually_nearest(symbols: pl.DataFrame, texts: pl.DataFrame, within_m: float) -> tuple[Rows, Rows]:
    """Rows of symbols and of texts that are the nearest of one another; of several alike, the first."""
    ends = [shapely.points(frame["x"].to_numpy(), frame["y"].to_numpy()) for frame in (symbols, texts)]
    symbol, text = shapely.STRtree(ends[1]).query_nearest(ends[0], max_distance=within_m, all_matches=False)
    back = shapely.STRtree(ends[0]).query_nearest(ends[1], max_distance=within_m, all_matches=False)
    nearest_symbol = np.full(texts.height, -1)
    nearest_symbol[back[0]] = back[1]
    mutual = nearest_symbol[text] == symbol
    return symbol[mutual], text[mutual]
