"""How large a map a set of places makes: the contiguous area that may leave in one piece without a grant naming it.

Places are contiguous when their cells of 100 m (of the store's index) touch, at a corner too; a cell with one place in
it counts whole. Empty cells between do not count: what encloses them is a frame and no map.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exchange.store.places import CELLS_PER_DEGREE, ROW, metres_per_degree
from security.errors import Refusal
from security.message import Grant

Cells = NDArray[np.int64]

FORWARD: Final = (1, ROW - 1, ROW, ROW + 1)  # east, and the three to the north; the others are theirs
REMEMBERED_S: Final = 60.0
MOST_REMEMBERED: Final = 256


def largest_km2(cells: Sequence[int] | Cells) -> float:
    """The area of the largest contiguous piece, square kilometres on the ground. cells: of `exchange.store.places`."""
    all_cells = np.unique(np.asarray(cells, dtype=np.int64))
    if not len(all_cells):
        return 0.0
    east, north = metres_per_degree((all_cells // ROW + 0.5) / CELLS_PER_DEGREE)
    km2 = east * north / CELLS_PER_DEGREE**2 / 1e6
    return float(np.bincount(_pieces(all_cells), weights=km2).max())


def refuse_larger(km2: float, allowed_km2: float, grants: Sequence[Grant], code: str) -> None:
    """Return if a map of this area may leave: by what is allowed to everybody, or by what all the grants name.

    Raises Refusal `code`, with the area found, the limit, and what grant would allow it.
    """
    limit = max(allowed_km2, min(grant.map_area_km2 for grant in grants))
    if km2 > limit:
        grant = grants[0]
        needs = f"needs: {grant.action} {grant.target}, map area {int(km2) + 1} km²"
        raise Refusal(code, f"{km2:.1f} km² > {limit:g} km²; {needs}; held: {grant.id} until {grant.valid_until}")


class Measured:
    """Areas measured not long ago, so that each page of an export need not look at all of its rows again."""

    def __init__(self) -> None:
        self._known: OrderedDict[object, tuple[float, float]] = OrderedDict()
        self._lock = Lock()

    def km2(self, key: object, measure: Callable[[], float], now_s: float) -> float:
        """What was measured for a key within REMEMBERED_S, or is measured now."""
        with self._lock:
            at_s, known = self._known.get(key, (-np.inf, 0.0))
        if now_s - at_s < REMEMBERED_S:
            return known
        found = measure()
        with self._lock:
            self._known[key] = now_s, found
            self._known.move_to_end(key)
            while len(self._known) > MOST_REMEMBERED:
                self._known.popitem(last=False)
        return found


def _pieces(cells: Cells) -> Cells:
    """Which piece each cell is of, by the number of the piece's first cell. cells: ascending, each once.

    Union-find by columns: each cell points at the least that it is known to hang together with; every pass hooks the
    pieces of neighbours together and lets all point at their pieces' first, until nothing moves.
    """
    one, other = _neighbours(cells)
    first = np.arange(len(cells))
    while True:
        before = first.copy()
        least = np.minimum(first[one], first[other])
        np.minimum.at(first, first[one], least)
        np.minimum.at(first, first[other], least)
        while (first[first] != first).any():
            first = first[first]
        if (first == before).all():
            return first


def _neighbours(cells: Cells) -> tuple[Cells, Cells]:
    """Every pair of cells that touch, as indices."""
    pairs = []
    for step in FORWARD:
        at = np.searchsorted(cells, cells + step)
        found = np.flatnonzero(cells[np.minimum(at, len(cells) - 1)] == cells + step)
        pairs.append((found, at[found]))
    return np.concatenate([one for one, _ in pairs]), np.concatenate([other for _, other in pairs])
