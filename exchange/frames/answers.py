"""What a diagnosis says, once pairs are found: a frame by its name, or one that no name stands for."""

from typing import Final, Literal

import msgspec
import numpy as np

from exchange.frames.candidates import WORLDWIDE, Candidate, planes_near
from exchange.frames.case import Case
from exchange.frames.similarity import Fitted, Mask, Numbers, Places, settle
from exchange.frames.things import Indices
from exchange.transformation import DEFLECTED

CLEAR: Final = 20  # pairs
RIVAL: Final = 0.7  # an answer that another one comes so near to is none
BY_SIZE: Final = 0.9  # of a batch lies in the city: what magnitudes alone have to say
REMAINS_M: Final = 0.1  # what is left between pairs and is less needs no frame of its own
CONTROL: Final = 12  # control points

Verdict = Literal["as_said", "frame", "local", "elsewhere", "cannot_tell"]
Why = Literal["", "too_few", "nothing_known", "symmetric", "several", "nothing_fits"]
By = Literal["", "numbers", "places", "size"]


class Diagnosis(msgspec.Struct, frozen=True):
    """What a batch's coordinates are.

    verdict:    `as_said`; `frame`: another system or other axes, which explains all; `local`: a frame that no number
                names; `elsewhere`: there was enough to compare with, and no frame fits; `cannot_tell`, and `why`
    system:     of `as_said` and `frame`: `EPSG:4550`, `GCJ-02`; through: the plane that deflected degrees went through
    swapped:    the axes are exchanged
    of_degrees: of `local`: degrees were stated, so that no file of parameters puts them right
    east_m, north_m: how far from where it is the batch lies as its feed says, median; NaN where that puts it nowhere.
                Of `local`: how far its numbers are from those of the plane, the axes put right first
    plane, fitted: of `local`: `fitted.similarity` takes stated places (metres) to the plane; exact, not for everybody
    control:    of `local`: some pairs, (n, 2): stated, and on the plane. As exact
    residual_m: root mean square of what pairs are apart once the frame is right
    matched, looked: pairs, and things that had something of their kind to be compared with
    second:     pairs of the best answer that differs
    by:         what the pairs were made by: `numbers`, `places`; `size`: no pairs, magnitudes alone
    """

    verdict: Verdict
    why: Why = ""
    system: str = ""
    through: str = ""
    swapped: bool = False
    of_degrees: bool = False
    east_m: float = float("nan")
    north_m: float = float("nan")
    plane: str = ""
    fitted: Fitted | None = None
    control: Places | None = None
    residual_m: float = float("nan")
    matched: int = 0
    looked: int = 0
    second: int = 0
    by: By = ""

    @property
    def clear(self) -> bool:
        """Whether another frame explains the batch, by many pairs, and no other answer comes near: what a delivery may
        be held for."""
        return self.verdict in ("frame", "local") and self.matched >= CLEAR and self.second <= RIVAL * self.matched


class Pairs(msgspec.Struct, frozen=True):
    """Things that are the same, rows of the sample and rows of the known, and how sure that is (see Diagnosis)."""

    ours: Indices
    known: Indices
    looked: int
    second: int
    by: Literal["numbers", "places"]


def explained(case: Case, candidate: Candidate, pairs: Pairs) -> Diagnosis | None:
    """The frame by its name if nothing worth a frame is left between the pairs, else the local frame that is left."""
    apart = np.abs(case.placed(candidate)[pairs.ours] - case.there(case.plane, pairs.known))
    residual_m = _rms(apart)
    left = local(case, pairs, candidate.swapped)
    small = float(np.median(apart)) <= case.tolerance_m / 2
    # The deflection's formula leaves out what it does not know: what remains after it is nobody's frame.
    if small and (candidate.system in DEFLECTED or residual_m <= REMAINS_M or not _better(left, residual_m)):
        return named(case, candidate, pairs, residual_m)
    return left


def _better(left: Diagnosis | None, residual_m: float) -> bool:
    return left is not None and left.residual_m <= residual_m / 3


def named(case: Case, candidate: Candidate, pairs: Pairs, residual_m: float) -> Diagnosis:
    """A frame by its name."""
    said = Candidate(case.crs)
    off = case.off(pairs.ours, case.there(case.plane, pairs.known))
    return Diagnosis(
        verdict="as_said" if candidate == said else "frame",
        system=candidate.system,
        through=candidate.through,
        swapped=candidate.swapped,
        east_m=_median(off.real),
        north_m=_median(off.imag),
        residual_m=residual_m,
        matched=len(pairs.ours),
        looked=pairs.looked,
        second=pairs.second,
        by=pairs.by,
    )


def local(case: Case, pairs: Pairs, swapped: bool) -> Diagnosis | None:
    """A frame that no number names: to the feed's plane, or to another of the city's if it is only a shift there."""
    here = case.stated[pairs.ours]
    found = []
    for plane in dict.fromkeys([case.plane, *planes_near(case.middle_deg)]):
        fitted = settle(here, case.there(plane, pairs.known), case.tolerance_m, swapped)
        if fitted is not None:
            found.append((plane, fitted))
    if not found:
        return None
    most = max(int(fitted.kept.sum()) for _, fitted in found)
    full = [one for one in found if one[1].kept.sum() >= 0.9 * most]
    plane, fitted = next((one for one in full if one[1].similarity.is_shift), full[0])
    there = case.there(plane, pairs.known)
    off = (here.imag + 1j * here.real if swapped else here) - there
    return Diagnosis(
        verdict="local",
        of_degrees=case.of_degrees,
        swapped=swapped,
        plane=plane,
        fitted=fitted,
        control=_control(here, there, fitted.kept),
        east_m=_median(off.real),
        north_m=_median(off.imag),
        residual_m=fitted.residual_m,
        matched=int(fitted.kept.sum()),
        looked=pairs.looked,
        second=pairs.second,
        by=pairs.by,
    )


def by_size(case: Case, why: Why) -> Diagnosis:
    """What magnitudes alone say: the one frame, deflections aside, in which nearly all of it lies in the city."""
    said = Candidate(case.crs)
    if said in case.fitting:
        return Diagnosis("cannot_tell", why, looked=case.looked)
    inside = [one for one in case.fitting if one.system not in DEFLECTED and case.share_inside(one) >= BY_SIZE]
    inside = [one for one in inside if one.system not in WORLDWIDE] or inside  # the country's own go first
    if len(inside) != 1:
        return Diagnosis("cannot_tell", "several" if inside else why, looked=case.looked)
    candidate = inside[0]
    off = case.off(np.arange(len(case.x)), case.placed(candidate))
    return Diagnosis(
        verdict="frame",
        system=candidate.system,
        swapped=candidate.swapped,
        east_m=_median(off.real),
        north_m=_median(off.imag),
        looked=case.looked,
        by="size",
    )


def _control(here: Places, there: Places, kept: Mask) -> Places:
    """Pairs that follow the frame, far from one another."""
    here, there = here[kept], there[kept]
    chosen = [int(np.abs(here - here.mean()).argmax())]
    away = np.abs(here - here[chosen[0]])
    while len(chosen) < min(CONTROL, len(here)):
        chosen.append(int(away.argmax()))
        away = np.minimum(away, np.abs(here - here[chosen[-1]]))
    return np.stack([here[chosen], there[chosen]], axis=1)


def _rms(apart_m: Numbers) -> float:
    return float(np.sqrt((apart_m**2).mean()))


def _median(values: Numbers) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else float("nan")
