"""相似变换 Turn, stretch and shift in the plane, fitted to pairs of which some are wrong.

Places are complex numbers here, east + north·i, metres: a similarity is then `a·z + b`, and many are one matrix.
"""

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.complex128]
Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

LEAST_M: Final = 0.05  # what pairs may be apart however well they fit: half of it is how positions are written
SIGNIFICANT: Final = 12.0  # F of two more parameters (turn and scale); less is noise
SEEN_M: Final = 0.02  # a turn or scale that moves the outermost pair by less is none
TRIES: Final = 600
PAIRS_TRIED: Final = 2_000


class Similarity(msgspec.Struct, frozen=True):
    """`factor`·(place - about) + to. swapped: the stated axes are exchanged first, so east is what stood as north."""

    factor: complex
    about: complex
    to: complex
    swapped: bool = False

    def of(self, places: Places) -> Places:
        """Where places go."""
        return self.factor * (_turned(places, self.swapped) - self.about) + self.to

    @property
    def scale(self) -> float:
        """Lengths there for lengths here."""
        return abs(self.factor)

    @property
    def rotation_deg(self) -> float:
        """Anticlockwise, from stated axes to those of the plane."""
        return float(np.degrees(np.angle(self.factor)))

    @property
    def shift(self) -> complex:
        """Where the stated origin goes: with factor all there is to say."""
        return self.to - self.factor * self.about

    @property
    def is_shift(self) -> bool:
        """Whether it neither turns nor stretches nor swaps."""
        return self.factor == 1 and not self.swapped


class Fitted(msgspec.Struct, frozen=True):
    """A similarity with the pairs that follow it. kept: of the pairs given; residual_m: root mean square over those."""

    similarity: Similarity
    kept: Mask
    residual_m: float


def fit(here: Places, there: Places) -> Similarity:
    """The similarity of least squares. here, there: pairs, at least one; one pair gives a shift."""
    about, to = complex(here.mean()), complex(there.mean())
    spread = float((np.abs(here - about) ** 2).sum())
    if spread == 0:
        return Similarity(1 + 0j, about, to)
    return Similarity(complex((np.conj(here - about) * (there - to)).sum() / spread), about, to)


def simplest(here: Places, there: Places, swapped: bool = False) -> Similarity:
    """A shift alone where turn and scale say nothing that noise would not say, else the similarity.

    here: with its axes already exchanged where `swapped`.
    """
    about, to = complex(here.mean()), complex(there.mean())
    shift, whole = Similarity(1 + 0j, about, to, swapped), fit(here, there)
    apart = there - to - (here - about)
    of_shift = float((np.abs(apart) ** 2).sum())
    of_whole = float((np.abs(there - to - whole.factor * (here - about)) ** 2).sum())
    moved = abs(whole.factor - 1) * float(np.abs(here - about).max(initial=0.0))
    freedom = 2 * len(here) - 4
    noise = max(of_whole / freedom, 1e-12) if freedom > 0 else np.inf
    if moved < SEEN_M or (of_shift - of_whole) / 2 / noise < SIGNIFICANT:
        return shift
    return Similarity(whole.factor, whole.about, whole.to, swapped)


def settle(here: Places, there: Places, tolerance_m: float, swapped: bool = False) -> Fitted | None:
    """The simplest similarity of pairs near one, those left out that do not follow. None where fewer than three do.

    tolerance_m: what pairs may be apart at first; then three times the spread of those that follow.
    """
    if len(here) < 3:
        return None
    turned = _turned(here, swapped)
    kept, within_m = np.ones(len(here), bool), tolerance_m
    for _ in range(8):
        found = simplest(turned[kept], there[kept], swapped)
        apart_m = np.abs(found.of(here) - there)
        within_m = min(tolerance_m, max(LEAST_M, 3 * 1.2 * float(np.median(apart_m[kept]))))
        now = apart_m <= within_m
        if now.sum() < 3:
            return None
        if (now == kept).all():
            break
        kept = now
    return Fitted(found, kept, float(np.sqrt((apart_m[kept] ** 2).mean())))


def consensus(here: Places, there: Places, tolerance_m: float, swapped: bool = False) -> Fitted | None:
    """The similarity that most pairs follow, though many of the pairs are wrong (RANSAC, the same at every run)."""
    if len(here) < 3:
        return None
    chance = np.random.default_rng(53)
    some = chance.permutation(len(here))[:PAIRS_TRIED]
    z, w = _turned(here, swapped)[some], there[some]
    first, second = chance.integers(0, len(z), (2, TRIES))
    wide = np.abs(z[second] - z[first]) > 4 * tolerance_m
    first, second = first[wide], second[wide]
    if not len(first):
        return None
    factor = (w[second] - w[first]) / (z[second] - z[first])
    away = factor[:, None] * (z - z[first][:, None]) + w[first][:, None] - w
    votes = (np.abs(away) <= tolerance_m).sum(axis=1)
    best = int(votes.argmax())
    start = Similarity(complex(factor[best]), complex(z[first[best]]), complex(w[first[best]]), swapped)
    near = np.abs(start.of(here) - there) <= 2 * tolerance_m
    settled = settle(here[near], there[near], 2 * tolerance_m, swapped)
    if settled is None:
        return None
    kept = np.zeros(len(here), bool)
    kept[np.flatnonzero(near)[settled.kept]] = True
    return Fitted(settled.similarity, kept, settled.residual_m)


def _turned(places: Places, swapped: bool) -> Places:
    return places.imag + 1j * places.real if swapped else places
