"""坐标诊断 The frame that a batch is really in, told from what is already known, with numbers.

Pure: no store, no clock; the same at every run. What numbers on both sides say goes first; then the systems that
surveys of a city use are tried, each either way round; then the pattern in which things stand. What several frames
explain alike, or too few things say, stays untold.
"""

from collections.abc import Callable
from typing import Final

import msgspec
import numpy as np
import polars as pl

from exchange.frames.answers import RIVAL, Diagnosis, Pairs, by_size, explained, local
from exchange.frames.candidates import Candidate
from exchange.frames.case import FEWEST, TOLERANCE_M, Case, Inside, case_of
from exchange.frames.constellations import ENOUGH, Found, Sky, find
from exchange.frames.similarity import Places, Similarity, consensus
from exchange.frames.things import Indices, Offset, Things

SHARE: Final = 0.2  # of what could be compared: what fewer pairs say is chance
LINE_M: Final = 10.0  # standard deviation across: what is narrower is a line


def diagnose(
    batch: pl.DataFrame, known: pl.DataFrame, *, crs: str, accuracy_m: float, middle_deg: float, inside: Inside
) -> Diagnosis:
    """The frame that a batch is really in.

    batch:      x, y (as stated: east, north, or longitude, latitude), class_code, source_key, label; where they are
                placed also longitude_deg, latitude_deg, which say where a feed's system lies that goes by no number
    known:      STANDING (`exchange.store.standing`), of the batch's classes
    crs:        the feed's; accuracy_m: its
    middle_deg: longitude of the city's middle; inside: which places (longitude, latitude) lie in the city

    A shift by any length, a turn by any angle and a scale within half a percent of one are found; by numbers any scale.
    """
    case = case_of(batch, known, crs=crs, accuracy_m=accuracy_m, middle_deg=middle_deg, inside=inside)
    if len(case.x) < FEWEST:
        return Diagnosis("cannot_tell", "too_few")
    if case.looked < FEWEST:
        return by_size(case, "too_few" if len(case.known.things) else "nothing_known")
    for step in STEPS:
        found = step(case)
        if found is not None:
            return found
    told = by_size(case, "nothing_fits")
    if told.verdict == "frame" or Candidate(case.crs) in case.fitting:
        return told
    return Diagnosis("elsewhere", "nothing_fits", looked=case.looked)


def _by_numbers(case: Case) -> Diagnosis | None:
    """Things that are called the same on both sides."""
    ours, known = case.pairs
    if len(ours) < FEWEST:
        return None
    there = case.there(case.plane, known)
    for candidate in case.fitting:
        kept = np.abs(case.placed(candidate)[ours] - there) <= case.tolerance_m
        if kept.sum() >= max(FEWEST, RIVAL * len(ours)):
            return explained(case, candidate, Pairs(ours[kept], known[kept], len(ours), 0, "numbers"))
    return _by_consensus(case, ours, known, there)


def _by_consensus(case: Case, ours: Indices, known: Indices, there: Places) -> Diagnosis | None:
    fitted = {s: consensus(case.stated[ours], there, case.tolerance_m, s) for s in (False, True)}
    least = max(FEWEST, SHARE * len(ours))
    many = {s: int(one.kept.sum()) for s, one in fitted.items() if one is not None and one.kept.sum() >= least}
    if not many:
        return None
    swapped = max(many, key=lambda s: many[s])
    second = many.get(not swapped, 0)
    if second > RIVAL * many[swapped]:
        return None  # all on one line, which lies either way round: their pattern may say more
    best = fitted[swapped]
    assert best is not None
    return local(case, Pairs(ours[best.kept], known[best.kept], len(ours), second, "numbers"), swapped)


class _Laid(msgspec.Struct, frozen=True):
    """A batch in one frame, and the offset that most of its things have to known ones."""

    candidate: Candidate
    placed: Places
    offset: Offset

    def differs(self, other: "_Laid") -> bool:
        """Whether it puts things elsewhere."""
        apart = np.abs(self.placed + self.offset.vector - other.placed - other.offset.vector)
        return bool(np.nanmedian(apart) > 2 * TOLERANCE_M)


def _by_frames(case: Case) -> Diagnosis | None:
    """A frame by which the batch lies on known things, or all of it by one small offset beside them."""
    found = [laid for candidate in case.fitting if (laid := _laid(case, candidate)) is not None]
    if not found:
        return None
    # What the feed says is believed as long as nothing explains the batch clearly better.
    most = max(one.offset.votes for one in found)
    for one in found:
        near = abs(one.offset.vector) <= case.tolerance_m
        if one.candidate == Candidate(case.crs) and near and one.offset.votes >= RIVAL * most:
            return _paired(case, one, one.offset.second)
    best = max(found, key=lambda one: (one.offset.votes, -abs(one.offset.vector)))
    second = max([best.offset.second, *(one.offset.votes for one in found if one.differs(best))])
    if second > RIVAL * best.offset.votes:
        return _symmetric(best.offset.votes, best.offset.looked, second)
    return _paired(case, best, second)


def _laid(case: Case, candidate: Candidate) -> _Laid | None:
    placed = case.placed(candidate)
    rows = np.flatnonzero(case.comparable & np.isfinite(placed))
    offset = case.known.offset(Things(placed[rows], case.kinds[rows])) if len(rows) >= FEWEST else None
    if offset is None or offset.votes < max(FEWEST, SHARE * offset.looked):
        return None
    return _Laid(candidate, placed, offset)


def _paired(case: Case, laid: _Laid, second: int) -> Diagnosis | None:
    rows = np.flatnonzero(case.comparable & np.isfinite(laid.placed))
    things = Things(laid.placed[rows], case.kinds[rows])
    settled = case.known.settled(things, Similarity(1 + 0j, 0j, laid.offset.vector), case.tolerance_m)
    if settled is None or len(settled[1]) < FEWEST:
        return None
    _, ours, known = settled
    share = len(rows) / laid.offset.looked  # offsets are counted of some things only
    return explained(case, laid.candidate, Pairs(rows[ours], known, case.looked, round(second * share), "places"))


def _by_pattern(case: Case) -> Diagnosis | None:
    """Any turn and any shift, told by how things stand to one another."""
    rows = np.flatnonzero(case.comparable & np.isfinite(case.stated))
    if len(rows) < FEWEST:
        return None
    batch, sky = Things(case.stated[rows], case.kinds[rows]), Sky.of(case.known)
    found = {False: find(batch, sky, swapped=False)}
    if not _suffices(found[False], batch):
        found[True] = find(batch, sky, swapped=True)
    least = max(FEWEST, SHARE * len(rows))
    many = {s: len(one.ours) for s, one in found.items() if one is not None and len(one.ours) >= least}
    if not many:
        return None
    swapped = max(many, key=lambda s: many[s])
    best = found[swapped]
    assert best is not None
    second = max(best.second, many.get(not swapped, 0))
    if second > RIVAL * many[swapped]:
        return _symmetric(many[swapped], case.looked, second)
    return local(case, Pairs(rows[best.ours], best.known, case.looked, second, "places"), swapped)


def _suffices(found: Found | None, batch: Things) -> bool:
    """Whether nobody has to ask whether the axes are exchanged: most of the batch fits as it is, and it is no line,
    which would fit either way round."""
    if found is None or len(found.ours) < ENOUGH * len(batch) or found.second > RIVAL * len(found.ours):
        return False
    paired = batch.places[found.ours]
    across_m = np.sqrt(np.linalg.eigvalsh(np.cov(paired.real, paired.imag))[0])
    return bool(across_m > LINE_M)


def _symmetric(matched: int, looked: int, second: int) -> Diagnosis:
    return Diagnosis("cannot_tell", "symmetric", matched=matched, looked=looked, second=second)


STEPS: Final[tuple[Callable[[Case], Diagnosis | None], ...]] = (_by_numbers, _by_frames, _by_pattern)
