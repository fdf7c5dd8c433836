"""图上注记 The numbers that a drawing writes beside its symbols: which is whose, by placement and never by order."""

from typing import Final

import numpy as np
import polars as pl
import shapely
from numpy.typing import NDArray

from mappings.feed import Label
from mappings.schema import CANDIDATES, KEY, Schema, conform

SYMBOLS: Final[Schema] = {**KEY, "network": pl.String, "x": pl.Float64, "y": pl.Float64}
NUMBERS: Final[Schema] = {
    "delivery": pl.UInt32,
    "network": pl.String,
    "x": pl.Float64,
    "y": pl.Float64,
    "text": pl.String,
}
_SAME: Final = ["delivery", "network"]
_PAIRS: Final[Schema] = {
    **KEY, "x": pl.Float64, "y": pl.Float64, "text": pl.String, "u": pl.Float64, "v": pl.Float64,
}  # fmt: skip
OFFSET_M: Final = 0.01  # offsets of one such square, or of squares that touch, are the same
MOST_PAIRS: Final = 2_000_000  # of a batch; where more stand so close together, no number is anybody's
ROUNDS: Final = 20  # of pairing; what the last leaves open stays open

Rows = NDArray[np.int64]
Numbers = NDArray[np.float64]


def with_labels(candidates: pl.DataFrame, symbols: pl.DataFrame, numbers: pl.DataFrame, label: Label) -> pl.DataFrame:
    """CANDIDATES with `label` filled where a number stands beside.

    symbols: SYMBOLS that bear numbers, candidates or not; numbers: NUMBERS; all in one reference system, metres

    Number and symbol are of one network and no farther apart than `within_m`, no symbol has two and no number two
    symbols. Without `repeated` each is the nearest of the other: a number whose own symbol is nearer to another one is
    nobody's. With it, the offset decides: programs that number a survey set the text at a few offsets from the symbol,
    to the centimetre, so a pair whose offset so many pairs of the delivery share is no accident, and the commonest
    offset that a number or a symbol has goes first. Neither asks in which order the drawing has them.
    """
    near = _near(symbols.drop_nulls(["x", "y"]), numbers.drop_nulls(["x", "y"]), label)
    pairs = _by_offset(near, label.repeated) if label.repeated else near
    borne = pairs.select(*KEY, number="text")
    labels = candidates.join(borne, on=list(KEY), how="left", maintain_order="left")
    return conform(labels.with_columns(label=pl.coalesce("label", "number")), CANDIDATES)


def _near(symbols: pl.DataFrame, numbers: pl.DataFrame, label: Label) -> pl.DataFrame:
    """Pairs of one network: KEY and x, y of the symbol, `text` and u, v of the number; nearest of one another, or all
    that are near enough."""
    found, room = [pl.DataFrame(schema=_PAIRS)], MOST_PAIRS
    for same, some in symbols.group_by(_SAME, maintain_order=True):
        texts = numbers.filter(
            *(pl.col(name).eq_missing(pl.lit(value)) for name, value in zip(_SAME, same, strict=True))
        ).unique(maintain_order=True)  # a text drawn twice over is one
        if texts.is_empty():
            continue
        room -= _at_most(some, texts, label.within_m) if label.repeated else 0
        if room < 0:
            return pl.DataFrame(schema=_PAIRS)
        symbol, text = (_all_near if label.repeated else _mutually_nearest)(some, texts, label.within_m)
        said = texts.select("text", u="x", v="y")[text]
        found.append(pl.concat([some.select(*KEY, "x", "y")[symbol], said], how="horizontal"))
    return pl.concat(found)


def _mutually_nearest(symbols: pl.DataFrame, texts: pl.DataFrame, within_m: float) -> tuple[Rows, Rows]:
    """Rows of symbols and of texts that are the nearest of one another; of several alike, the first."""
    ends = [shapely.points(frame["x"].to_numpy(), frame["y"].to_numpy()) for frame in (symbols, texts)]
    symbol, text = shapely.STRtree(ends[1]).query_nearest(ends[0], max_distance=within_m, all_matches=False)
    back = shapely.STRtree(ends[0]).query_nearest(ends[1], max_distance=within_m, all_matches=False)
    nearest_symbol = np.full(texts.height, -1)
    nearest_symbol[back[0]] = back[1]
    mutual = nearest_symbol[text] == symbol
    return symbol[mutual], text[mutual]


def _all_near(symbols: pl.DataFrame, texts: pl.DataFrame, within_m: float) -> tuple[Rows, Rows]:
    """Rows of symbols and of texts that are near enough."""
    ends = [shapely.points(frame["x"].to_numpy(), frame["y"].to_numpy()) for frame in (symbols, texts)]
    text, symbol = shapely.STRtree(ends[0]).query(ends[1], predicate="dwithin", distance=within_m)
    return symbol, text


def _at_most(symbols: pl.DataFrame, texts: pl.DataFrame, within_m: float) -> int:
    """No fewer pairs than are near enough, counted by squares before any is made: a hundred thousand things at one
    place would fill the memory."""
    column, row = (np.floor(symbols[axis].to_numpy() / within_m) for axis in "xy")
    cells, counts = np.unique(_cell(column, row), return_counts=True)
    across, upward = (np.floor(texts[axis].to_numpy() / within_m) for axis in "xy")
    return sum(int(_counted(_cell(across + i, upward + j), cells, counts).sum()) for i, j in _AROUND)


_AROUND: Final = tuple((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1))
_ASIDE: Final = 2.0**26  # a square's row counts less than its column


def _cell(column: Numbers, row: Numbers) -> Numbers:
    """A number for each square of a plane."""
    return column * _ASIDE + row


def _counted(cells: Numbers, known: Numbers, counts: Rows) -> Rows:
    """How many each of the cells holds, by the known ones, in order, and their counts."""
    at = np.minimum(np.searchsorted(known, cells), len(known) - 1)
    return np.where(known[at] == cells, counts[at], 0)


def _by_offset(pairs: pl.DataFrame, repeated: int) -> pl.DataFrame:
    """Of all pairs those whose offset others share, one for each symbol and each number, the commonest first.

    A pair is made when it is the one best of both; then of what is left again. Two that are equally good stay open.
    """
    shared = pl.concat(
        [pairs.head(0).with_columns(votes=pl.lit(0, pl.Int64)), *map(_voted, pairs.partition_by("delivery"))]
    )
    left = shared.filter(pl.col("votes") >= repeated).with_row_index("#pair")
    made = [left.head(0)]
    symbol, number = list(KEY), ["delivery", "u", "v", "text"]
    for _ in range(ROUNDS):
        best = left.filter(
            *((pl.col("votes") == pl.col("votes").max().over(end)) for end in (symbol, number)),
        )
        alone = [(pl.col("votes") == pl.col("votes").max()).sum().over(end) == 1 for end in (symbol, number)]
        best = best.join(left.filter(*alone).select("#pair"), on="#pair", how="semi")
        if best.is_empty():
            break
        made.append(best)
        for end in (symbol, number):
            left = left.join(best.select(end), on=end, how="anti")
    return pl.concat(made)


def _voted(pairs: pl.DataFrame) -> pl.DataFrame:
    """The pairs of a delivery, each with how many of them have its offset, itself included."""
    across, upward = (((pairs[text] - pairs[symbol]) / OFFSET_M).round().to_numpy() for symbol, text in ("xu", "yv"))
    cells, counts = np.unique(_cell(across, upward), return_counts=True)
    votes = np.sum([_counted(_cell(across + i, upward + j), cells, counts) for i, j in _AROUND], axis=0)
    return pairs.with_columns(votes=pl.Series(votes, dtype=pl.Int64))
