"""星座匹配 Where things stand, told by their pattern alone: which turn and shift lays a batch onto what is known.

Around a thing its neighbours make a pattern: their kinds, distances and directions. Distances do not change when a
frame is turned and shifted, so each neighbour votes for the known things that have such a neighbour at such a distance,
and for the turn that its direction then needs. Where several agree on thing and turn, the rest of the batch is asked,
outwards from there. Scale is taken to be within half a percent of one; what is larger is found by numbers alone.
"""

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from exchange.frames.similarity import Fitted, Places, Similarity, fit
from exchange.frames.things import ALIKE_M, Indices, Known, Things

Numbers = NDArray[np.float64]

REACHES_M: Final = (90.0, 60.0, 40.0, 25.0, 15.0)  # how far neighbours are; the widest that costs no more than PAIRS
PAIRS: Final = 6_000_000
DISTANCE_M: Final = 1.3  # distances that differ by less are one: half a metre of noise at both ends
STRETCH: Final = 0.005
TURN_DEG: Final = 4.0
NEIGHBOURS: Final = 12  # of an anchor, those with the fewest likenesses
ANCHORS: Final = 30
LIKENESSES: Final = 400_000  # of one anchor; beyond, its commonest neighbours are left out
TRIED: Final = 12  # of one anchor
AGREEING: Final = 3  # neighbours
ENOUGH: Final = 0.6  # of the batch: no further anchor is asked
TOLERANCE_M: Final = 3.0
BY_CHANCE: Final = tuple(m * np.exp(1j * np.radians(deg)) for m, deg in ((17, 10), (23, 100), (31, 190), (41, 280)))
HOLDS: Final = 0.15  # of the things so far: a similarity that pairs fewer is dropped


class Pattern(msgspec.Struct, frozen=True):
    """Directed pairs of things no farther apart than a reach. distance_m; direction_deg: from `first` to `second`."""

    first: Indices
    second: Indices
    distance_m: Numbers
    direction_deg: Numbers


class Found(msgspec.Struct, frozen=True):
    """Pairs that one similarity makes, rows of the batch and rows of the known; and how many pairs the best other one
    makes, that puts the batch elsewhere."""

    ours: Indices
    known: Indices
    second: int


class Sky(msgspec.Struct, frozen=True):
    """What is known, with its pairs in order of kinds and distance: `key` ascending, `order` the rows of `pattern`."""

    known: Known
    pattern: Pattern
    kinds: int
    reach_m: float
    key: Numbers
    order: Indices

    @classmethod
    def of(cls, known: Known) -> "Sky":
        """Ready to be looked up in."""
        reach_m = _reach(known.things)
        pattern, kinds = _pattern(known.things, reach_m), int(known.things.kinds.max()) + 1
        key = _key(known.things, pattern, kinds)
        order = np.argsort(key)
        return cls(known, pattern, kinds, reach_m, key[order], order)


def find(batch: Things, sky: Sky, *, swapped: bool) -> Found | None:
    """The similarity that lays most of the batch onto known things of their kinds; None where nothing agrees.

    batch: places as stated, of kinds that are known; swapped: their axes exchanged first
    """
    here = batch.at(batch.places.imag + 1j * batch.places.real) if swapped else batch
    ours = _pattern(here, sky.reach_m)
    own, slack = _key(here, ours, sky.kinds), DISTANCE_M + STRETCH * ours.distance_m
    low, high = np.searchsorted(sky.key, own - slack), np.searchsorted(sky.key, own + slack)
    tried: list[tuple[Fitted, Indices, Indices]] = []
    for pairs in _anchors(ours, high - low):
        alike = [sky.order[low[pair] : high[pair]] for pair in pairs]
        for start in _starts(here, sky, ours, pairs, alike):
            grown = _grown(here, sky, start, int(ours.first[pairs[0]]))
            tried += [grown] if grown else []
        if tried and max(len(one[1]) for one in tried) >= ENOUGH * len(here):
            break
    return _best(here, sky.known, tried) if tried else None


def _reach(things: Things) -> float:
    """How far neighbours may be so that the known ones are not too many pairs."""
    for reach_m in REACHES_M:
        _, counts = np.unique(_cells(things, reach_m), return_counts=True)
        if (counts.astype(np.float64) ** 2).sum() * np.pi <= PAIRS:
            return reach_m
    return REACHES_M[-1]


def _cells(things: Things, reach_m: float) -> Indices:
    column, row = (np.floor(part / reach_m).astype(np.int64) for part in (things.places.real, things.places.imag))
    cells: Indices = (column - column.min() + 1) * int(row.max() - row.min() + 3) + (row - row.min() + 1)
    return cells


def _pattern(things: Things, reach_m: float) -> Pattern:
    """All directed pairs within reach, found through cells of that width."""
    rows = np.floor(things.places.imag / reach_m)
    height = int(rows.max() - rows.min()) + 3
    cells = _cells(things, reach_m)
    order = np.argsort(cells, kind="stable")
    cells = cells[order]
    firsts, seconds = [], []
    for beside in (0, 1, height - 1, height, height + 1):  # each pair of cells once
        low, high = np.searchsorted(cells, cells + beside), np.searchsorted(cells, cells + beside, side="right")
        if beside == 0:
            low = np.arange(1, len(cells) + 1)
        many = np.maximum(high - low, 0)
        first = np.repeat(np.arange(len(cells)), many)
        second = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many) + np.repeat(low, many)
        first, second = order[first], order[second]
        apart = np.abs(things.places[second] - things.places[first])
        near = (apart <= reach_m) & (apart > DISTANCE_M)
        firsts.append(first[near])
        seconds.append(second[near])
    one, other = np.concatenate(firsts), np.concatenate(seconds)
    first, second = np.concatenate([one, other]), np.concatenate([other, one])
    vector = things.places[second] - things.places[first]
    return Pattern(first, second, np.abs(vector), np.degrees(np.angle(vector)))


def _key(things: Things, pattern: Pattern, kinds: int) -> Numbers:
    """One number for the kinds of a pair and its distance: pairs alike lie side by side."""
    both = things.kinds[pattern.first] * kinds + things.kinds[pattern.second]
    return both * 1000.0 + pattern.distance_m


def _anchors(ours: Pattern, likenesses: Indices) -> list[Indices]:
    """For each anchor its pairs, those with the fewest likenesses; anchors with few to look through come first."""
    some = likenesses > 0
    order = np.lexsort((likenesses, ours.first))
    order = order[some[order]]
    starts = np.flatnonzero(np.diff(ours.first[order], prepend=-1))
    pieces = [piece[:NEIGHBOURS] for piece in np.split(order, starts[1:])] if len(starts) else []
    kept = [piece[np.cumsum(likenesses[piece]) <= LIKENESSES] for piece in pieces]
    full = [piece for piece in kept if len(piece) >= AGREEING]
    full.sort(key=lambda piece: (-min(len(piece), 6), int(likenesses[piece].sum())))
    # Not the first of all: neighbours of one another would be asked, and all of them may be new.
    chance = np.random.default_rng(53).permutation(min(len(full), 8 * ANCHORS))
    return [full[at] for at in chance[:ANCHORS]]


def _starts(here: Things, sky: Sky, ours: Pattern, pairs: Indices, alike: list[Indices]) -> list[Similarity]:
    """The similarities, without scale, that most neighbours of one anchor agree on.

    pairs: the anchor's, rows of `ours`; alike: of each, rows of the sky's pattern that could be it
    """
    many = [len(one) for one in alike]
    voter, like = np.repeat(np.arange(len(pairs)), many), np.concatenate(alike)
    theirs, bins = sky.pattern, int(360 / TURN_DEG)
    turn = (theirs.direction_deg[like] - np.repeat(ours.direction_deg[pairs], many)) / TURN_DEG
    found: list[tuple[int, int, Indices]] = []
    for half in (0.0, 0.5):
        vote = theirs.first[like] * bins + np.floor(turn + half).astype(np.int64) % bins
        candidates, counts = _runs(_runs(np.sort(vote * len(pairs) + voter))[0] // len(pairs))
        best = np.argsort(-counts, kind="stable")[:TRIED]
        found += [(int(counts[b]), int(candidates[b]), vote) for b in best if counts[b] >= AGREEING]
    found.sort(key=lambda one: -one[0])
    return [_start(here, sky, ours, pairs, voter, like, np.flatnonzero(vote == one)) for _, one, vote in found[:TRIED]]


def _start(
    here: Things, sky: Sky, ours: Pattern, pairs: Indices, voter: Indices, like: Indices, agreeing: Indices
) -> Similarity:
    """The turn and shift that the anchor and its agreeing neighbours make."""
    _, once = np.unique(voter[agreeing], return_index=True)
    mine, theirs = pairs[voter[agreeing][once]], like[agreeing][once]
    start = fit(
        here.places[np.append(ours.second[mine], ours.first[mine[0]])],
        sky.known.things.places[np.append(sky.pattern.second[theirs], sky.pattern.first[theirs[0]])],
    )
    return Similarity(start.factor / abs(start.factor), start.about, start.to)


def _runs(ordered: Indices) -> tuple[Indices, Indices]:
    """The different numbers among numbers in order, and how often each stands there."""
    first = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))
    return ordered[first], np.diff(first, append=len(ordered))


def _grown(here: Things, sky: Sky, start: Similarity, anchor: int) -> tuple[Fitted, Indices, Indices] | None:
    """The similarity made better from its anchor outwards, each time by twice as far; None where it does not hold."""
    away = np.abs(here.places - here.places[anchor])
    radius_m, now = 1.5 * sky.reach_m, start
    while True:
        some = np.flatnonzero(away <= radius_m)
        settled = sky.known.settled(here.of(some), now, TOLERANCE_M)
        if settled is None or len(settled[1]) < max(4, HOLDS * len(some)):
            return None
        now = settled[0].similarity
        if abs(now.scale - 1) > 2 * STRETCH:
            return None
        if radius_m >= away.max():
            return settled[0], some[settled[1]], settled[2]
        radius_m *= 2


def _best(here: Things, known: Known, tried: list[tuple[Fitted, Indices, Indices]]) -> Found:
    """The one with the most pairs, all counted again within what the best fits to, and the next that differs."""
    first = max(tried, key=lambda one: (len(one[1]), -one[0].residual_m))
    within_m = max(0.3, 3 * first[0].residual_m)
    laid = [one[0].similarity.of(here.places) for one in tried]
    counts = [len(known.nearest(here.at(places), within_m)[0]) for places in laid]
    best = max(range(len(tried)), key=lambda at: (counts[at], -tried[at][0].residual_m))
    others = [counts[at] for at in range(len(tried)) if _differ(laid[at], laid[best])]
    # What any shift pairs by chance, where things stand close together.
    others += [len(known.nearest(here.at(laid[best] + by), within_m)[0]) for by in BY_CHANCE]
    return Found(tried[best][1], tried[best][2], max(others, default=0))


def _differ(one: Places, other: Places) -> bool:
    return bool(np.median(np.abs(one - other)) > ALIKE_M / 2)
