"""One 250 m sheet of the quarter's map, twice: as it was surveyed, and as it is a year later.

What happened in between is sown and known. The second file has its symbols in another order and all handles anew, as
drawings have that were saved by another program.
"""

from typing import Final

import msgspec
import numpy as np

from samples.drawing import Drawing
from samples.sheet import FRAME, HYDRANT, SHEET_M, TAG, Placed, Sign, Symbol, corner_of, number_of, write_number

ADDED, MOVED, GONE, RENUMBERED = 5, 6, 4, 3
APART_M: Final = 12.0  # no symbol of its class is nearer to one that something happened to
INSIDE_M: Final = 8.0  # nor is the sheet's edge
CLEAR_M: Final = 3.0  # from any symbol, where something moved to or is new: a number's symbol is the nearest
_STREAM: Final = 501


class Versions(msgspec.Struct, frozen=True):
    """What happened on the sheet. Symbols of the first file by their handle there, new ones by that of the second.

    moved:  how far, metres; changed: another number beside it, nothing else
    first, second: how many symbols of components each file has
    """

    number: str
    first: int
    second: int
    added: list[str]
    moved: dict[str, float]
    changed: list[str]
    gone: list[str]


def versions(placed: list[Placed], seed: int) -> tuple[bytes, bytes, Versions]:
    """Both files, and what happened: of all sheets the one with most symbols."""
    rng = np.random.default_rng([seed, _STREAM])
    corners = [corner_of(one.place) for one in placed]
    corner = max(sorted(set(corners)), key=corners.count)
    before = [one for one, at in zip(placed, corners, strict=True) if at == corner]
    first, handles = _drawn(before, corner)
    chosen = rng.permutation([at for at in range(len(before)) if _alone(before, at, corner)]).tolist()
    moving, going, rest = chosen[:MOVED], chosen[MOVED : MOVED + GONE], chosen[MOVED + GONE :]
    renumbered = [at for at in rest if before[at].symbol.number and before[at].symbol.class_code != HYDRANT]
    renumbered = sorted(renumbered[:RENUMBERED])
    after = {at: one for at, one in enumerate(before) if at not in going}
    moved_m = {}
    for at in moving:
        after[at], moved_m[handles[at]] = _moved(list(after.values()), before[at], rng)
    for nth, at in enumerate(renumbered):
        symbol = msgspec.structs.replace(before[at].symbol, number=f"XG{90001 + nth}")
        after[at] = before[at]._replace(symbol=symbol)
    new: list[Placed] = []
    for number in range(ADDED):
        new.append(_new([*before, *after.values(), *new], corner, number, rng))
    kept = [list(after)[at] for at in rng.permutation(len(after)).tolist()]
    later = [*(after[at] for at in kept), *new]
    second, later_handles = _drawn(later, corner)
    truth = Versions(
        number=number_of(corner),
        first=len(before),
        second=len(later),
        added=later_handles[len(kept) :],
        moved=moved_m,
        changed=[handles[at] for at in renumbered],
        gone=[handles[at] for at in going],
    )
    return first, second, truth


def _alone(before: list[Placed], at: int, corner: tuple[int, int]) -> bool:
    """Whether nothing of the class of a symbol stands near it, and it does not stand near the sheet's edge."""
    x, y, _ = before[at].place
    inside = (x - corner[1], y - corner[0])
    if not all(INSIDE_M < axis < SHEET_M - INSIDE_M for axis in inside):
        return False
    others = (one.place for other, one in enumerate(before) if other != at and _alike(one, before[at]))
    return all(np.hypot(place[0] - x, place[1] - y) > APART_M for place in others)


def _alike(one: Placed, other: Placed) -> bool:
    return bool({*one.symbol.classes} & {*other.symbol.classes})


def _clear(standing: list[Placed], x: float, y: float) -> bool:
    """Whether a place is clear of every symbol."""
    return all(np.hypot(one.place[0] - x, one.place[1] - y) > CLEAR_M for one in standing)


def _moved(standing: list[Placed], one: Placed, rng: np.random.Generator) -> tuple[Placed, float]:
    """Half a metre to four metres away."""
    others = [other for other in standing if other is not one]
    while True:
        far_m, bearing = 0.5 + 3.5 * rng.random(), 2 * np.pi * rng.random()
        x, y = (round(one.place[axis] + far_m * side, 4) for axis, side in ((0, np.sin(bearing)), (1, np.cos(bearing))))
        if _clear(others, x, y):
            return one._replace(place=(x, y, one.place[2])), float(np.hypot(x - one.place[0], y - one.place[1]))


def _new(before: list[Placed], corner: tuple[int, int], number: int, rng: np.random.Generator) -> Placed:
    """A lamp where nothing of its class is near."""
    while True:
        east, north = (INSIDE_M + (SHEET_M - 2 * INSIDE_M) * rng.random(2)).tolist()
        symbol = Symbol("code", ("0118",), "0118")
        place = (corner[1] + east, corner[0] + north, 3.0 + number / 10)
        one = Placed(Sign("340118", "COMPONENT", ("0118",)), "gcbj0118", place, symbol)
        if _clear(before, *place[:2]) and _alone([*before, one], len(before), corner):
            return one


def _drawn(placed: list[Placed], corner: tuple[int, int]) -> tuple[bytes, list[str]]:
    """The sheet with its frame and number, and the handle of each symbol."""
    drawing, handles = Drawing(), []
    north, east = corner
    frame = [(east, north), (east + SHEET_M, north), (east + SHEET_M, north + SHEET_M), (east, north + SHEET_M)]
    drawing.polyline(FRAME, [(float(x), float(y)) for x, y in frame], closed=True)
    write_number(drawing, corner)
    for one in placed:
        number, (x, y, z) = one.symbol.number, one.place
        worn = number if one.symbol.class_code == HYDRANT else ""
        attributes = {TAG: worn} if worn else None
        handles.append(drawing.insert(one.sign.layer, one.block, (x, y, z), code=one.sign.code, attributes=attributes))
        if number and not worn:
            drawing.text("ZJ", number, (x + 0.6, y + 0.6, 0.0))
    return drawing.octets(), handles
