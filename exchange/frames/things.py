"""Things in the plane, and which of them is nearest: a thing is only ever compared with things of its kind.

Kinds are numbers: classes that a set such as `0102|0103` names together are one kind.
"""

from collections.abc import Iterable
from typing import Final

import msgspec
import numpy as np
import polars as pl
import shapely
from numpy.typing import NDArray

from exchange.frames.similarity import Fitted, Places, Similarity, settle
from mappings.schema import CLASSES_BETWEEN

Indices = NDArray[np.int64]

APART_M: Final = 1e8  # kinds lie so far apart in the tree that nothing of another kind is ever near
REACH_M: Final = 120.0  # how far a common offset is looked for
BIN_M: Final = 2.0  # half the width within which offsets are one
ALIKE_M: Final = 4 * BIN_M  # offsets less far apart are no two answers
OFFSETS_OF: Final = 600  # things whose offsets are counted
ROUNDS: Final = 6  # of pairing and fitting


class Things(msgspec.Struct, frozen=True):
    """Many of them. places: (n,) east + i·north, metres; kinds: (n,)."""

    places: Places
    kinds: Indices

    def __len__(self) -> int:
        return len(self.places)

    def of(self, which: Indices | NDArray[np.bool_]) -> "Things":
        """Some of them."""
        return Things(self.places[which], self.kinds[which])

    def at(self, places: Places) -> "Things":
        """The same things elsewhere."""
        return Things(places, self.kinds)

    def points(self) -> NDArray[np.object_]:
        """Geometries in which kinds lie apart."""
        found: NDArray[np.object_] = shapely.points(self.places.real + self.kinds * APART_M, self.places.imag)
        return found


class Offset(msgspec.Struct, frozen=True):
    """A vector by which many things lie off one of their kind. votes, second: of it, and of the next one that differs;
    looked: things that were asked."""

    vector: complex
    votes: int
    second: int
    looked: int


class Known(msgspec.Struct, frozen=True):
    """What stands in the city, to be asked what is near."""

    things: Things
    tree: shapely.STRtree

    @classmethod
    def of(cls, things: Things) -> "Known":
        """Ready to be asked."""
        return cls(things, shapely.STRtree(things.points()))

    def nearest(self, things: Things, within_m: float) -> tuple[Indices, Indices]:
        """Pairs (row of `things`, row of the known), each row in one pair at most: the shorter one."""
        (asked, found), apart = self.tree.query_nearest(
            things.points(), max_distance=within_m, return_distance=True, all_matches=False
        )
        order = np.argsort(apart, kind="stable")
        _, first = np.unique(found[order], return_index=True)
        kept = order[first]
        return asked[kept], found[kept]

    def apart_m(self, things: Things, within_m: float) -> NDArray[np.float64]:
        """How far the nearest of its kind is from each thing; infinite where none is within reach."""
        (asked, _), apart = self.tree.query_nearest(
            things.points(), max_distance=within_m, return_distance=True, all_matches=False
        )
        nearest = np.full(len(things), np.inf)
        nearest[asked] = apart
        return nearest

    def offset(self, things: Things) -> Offset | None:
        """The offset, at most REACH_M, that most of the things have to one of their kind."""
        if len(things) > OFFSETS_OF:
            things = things.of(np.random.default_rng(53).permutation(len(things))[:OFFSETS_OF])
        asked, found = self.tree.query(things.points(), predicate="dwithin", distance=REACH_M)
        if not len(asked):
            return None
        off = self.things.places[found] - things.places[asked]
        wide = 2 * int(REACH_M / BIN_M) + 2
        column, row = (np.floor(part / BIN_M).astype(np.int64) + wide // 2 for part in (off.real, off.imag))
        counts = np.bincount(column * wide + row, minlength=wide * wide).reshape(wide, wide)
        votes = counts[:-1, :-1] + counts[1:, :-1] + counts[:-1, 1:] + counts[1:, 1:]
        best = np.unravel_index(votes.argmax(), votes.shape)
        centre = complex(best[0] + 1 - wide // 2, best[1] + 1 - wide // 2) * BIN_M
        own = np.abs(off - centre) <= 2 * BIN_M
        columns, rows = np.indices(votes.shape)
        differ = np.hypot(columns - best[0], rows - best[1]) * BIN_M > ALIKE_M
        vector = complex(np.median(off[own].real), np.median(off[own].imag)) if own.any() else centre
        return Offset(vector, int(votes[best]), int(votes[differ].max(initial=0)), len(things))

    def settled(self, things: Things, start: Similarity, tolerance_m: float) -> tuple[Fitted, Indices, Indices] | None:
        """The simplest similarity near `start` that takes the things to their like, and the pairs that follow it."""
        now, last, settled = start, -1, None
        for _ in range(ROUNDS):
            asked, found = self.nearest(things.at(now.of(things.places)), tolerance_m)
            fitted = settle(things.places[asked], self.things.places[found], tolerance_m, start.swapped)
            if fitted is None:
                return None
            settled = fitted, asked[fitted.kept], found[fitted.kept]
            if len(settled[1]) == last:
                break
            now, last = fitted.similarity, len(settled[1])
        return settled


def kinds_of(*codes: pl.Series) -> list[Indices]:
    """The kind of each class code of several columns; -1 where none is said."""
    names = sorted({name for column in codes for name in column.drop_nulls().unique().to_list()})
    parent = {part: part for name in names for part in name.split(CLASSES_BETWEEN)}
    for name in names:
        first, *others = name.split(CLASSES_BETWEEN)
        for other in others:
            parent[_root(parent, other)] = _root(parent, first)
    number = {root: at for at, root in enumerate(sorted(_roots(parent, parent)))}
    of_name = {name: number[_root(parent, name.split(CLASSES_BETWEEN)[0])] for name in names}
    return [
        column.replace_strict(of_name, default=-1, return_dtype=pl.Int64).fill_null(-1).to_numpy() for column in codes
    ]


def _roots(parent: dict[str, str], names: Iterable[str]) -> set[str]:
    return {_root(parent, name) for name in names}


def _root(parent: dict[str, str], name: str) -> str:
    while parent[name] != name:
        name = parent[name]
    return name
