"""What a diagnosis goes by: a sample of the batch, what is known of its kinds, and the frames that are looked at."""

from collections.abc import Callable
from typing import Final

import msgspec
import numpy as np
import polars as pl

from exchange.frames.candidates import Candidate, candidates, is_degrees, on_plane, plane_of
from exchange.frames.similarity import Mask, Numbers, Places
from exchange.frames.things import Indices, Known, Things, kinds_of
from exchange.transformation import CITY_CRS

FEWEST: Final = 8  # things; fewer say nothing
SAMPLE: Final = 4_000  # things of a batch that are looked at
NEIGHBOURHOODS, AROUND = 40, 60  # of a larger batch, and things in each
INSIDE: Final = 0.5  # of a batch: what lies outside of the city in a frame is not in that frame
ASKED_INSIDE: Final = 500
SANE: Final = 1e9  # metres or degrees; beyond is no place
TOLERANCE_M: Final = 2.0  # to which the feed's accuracy is added, as far as that

Inside = Callable[[Numbers, Numbers], Mask]


class Case(msgspec.Struct, frozen=True):
    """One batch and one city.

    x, y:       as stated, of the sample; kinds: of the same
    comparable: which of the sample have something of their kind in the city
    stated:     the sample in metres as stated; degrees that are degrees lie on the plane
    of_degrees: whether they are such degrees: then no plane that is stated lies behind them
    crs, plane: the feed's; where metres are told
    said:       longitude, latitude of the sample as its feed says, where its system goes by no number
    known:      on the plane; longitude_deg, latitude_deg: the same
    pairs:      things of both sides that are called the same (rows of the sample, rows of the known)
    fitting:    frames in which most of the batch lies in the city
    """

    x: Numbers
    y: Numbers
    kinds: Indices
    comparable: Mask
    stated: Places
    of_degrees: bool
    crs: str
    plane: str
    said: tuple[Numbers, Numbers] | None
    middle_deg: float
    inside: Inside
    known: Known
    longitude_deg: Numbers
    latitude_deg: Numbers
    pairs: tuple[Indices, Indices]
    fitting: list[Candidate]
    tolerance_m: float

    @property
    def looked(self) -> int:
        """How many things can be compared with something."""
        return int(self.comparable.sum())

    def placed(self, candidate: Candidate) -> Places:
        """Where a frame puts the sample, on the plane; NaN where nowhere."""
        if self.said is not None and candidate.system == self.crs:
            return _on(self.plane, *self.said)
        return _on(self.plane, *candidate.degrees(self.x, self.y))

    def off(self, rows: Indices, there: Places) -> Places:
        """How far things of the sample lie from places on the plane as their feed says; NaN where that says nothing."""
        said = Candidate(self.crs)
        if self.said is None and not said.is_known:
            return np.full(len(rows), complex(np.nan, np.nan))
        return self.placed(said)[rows] - there

    def there(self, plane: str, rows: Indices) -> Places:
        """Known things on any plane."""
        east, north = on_plane(plane, self.longitude_deg[rows], self.latitude_deg[rows])
        return np.asarray(east + 1j * north)

    def share_inside(self, candidate: Candidate) -> float:
        """How much of the sample lies in the city in a frame."""
        return _share_inside(candidate, self.x, self.y, self.inside)


def case_of(
    batch: pl.DataFrame, known: pl.DataFrame, *, crs: str, accuracy_m: float, middle_deg: float, inside: Inside
) -> Case:
    """Arguments as `diagnose` takes them."""
    kinds, known_kinds = kinds_of(batch["class_code"], known["class_code"])
    x, y = (batch[axis].fill_null(np.nan).to_numpy() for axis in ("x", "y"))
    rows = _sample(x, y, kinds, np.isin(kinds, known_kinds))
    x, y, kinds = x[rows], y[rows], kinds[rows]
    plane = plane_of(crs, middle_deg)
    longitude, latitude = (known[f"{axis}_deg"].to_numpy() for axis in ("longitude", "latitude"))
    east, north = on_plane(plane, longitude, latitude)
    there = Known.of(Things(east + 1j * north, known_kinds))
    of_degrees = is_degrees(crs) and _may_be_degrees(x, y)
    said = None if Candidate(crs).is_known or "longitude_deg" not in batch else _said(batch[rows])
    fitting = [one for one in candidates(crs, middle_deg) if _share_inside(one, x, y, inside) >= INSIDE]
    if said is not None and np.isfinite(said[0]).mean() >= INSIDE:
        fitting.insert(0, Candidate(crs))
    return Case(
        x=x,
        y=y,
        kinds=kinds,
        comparable=np.isin(kinds, np.unique(known_kinds)) & (kinds >= 0),
        stated=_on(plane, *Candidate(CITY_CRS).degrees(x, y)) if of_degrees else x + 1j * y,
        of_degrees=of_degrees,
        crs=crs,
        plane=plane,
        said=said,
        middle_deg=middle_deg,
        inside=inside,
        known=there,
        longitude_deg=longitude,
        latitude_deg=latitude,
        pairs=_called_alike(batch[rows], known, kinds, known_kinds),
        fitting=fitting,
        tolerance_m=TOLERANCE_M + min(accuracy_m, TOLERANCE_M),
    )


def _sample(x: Numbers, y: Numbers, kinds: Indices, shared: Mask) -> Indices:
    """Rows of at most SAMPLE things at different places, whole neighbourhoods among them; of kinds that are known,
    where enough are."""
    sane = np.isfinite(x) & np.isfinite(y) & (np.abs(x) < SANE) & (np.abs(y) < SANE)
    rows = np.flatnonzero(sane & shared) if (sane & shared).sum() >= FEWEST else np.flatnonzero(sane)
    finest = 1e7 if _may_be_degrees(x[rows], y[rows]) else 100  # a centimetre
    stated = pl.DataFrame({"kind": kinds[rows], "x": np.round(x[rows] * finest), "y": np.round(y[rows] * finest)})
    first = stated.with_row_index("row").unique(["kind", "x", "y"], keep="first", maintain_order=True)["row"]
    different: Indices = rows[first.to_numpy()]
    if len(different) <= SAMPLE:
        return different
    chance, places = np.random.default_rng(53), x[different] + 1j * y[different]
    middles = chance.choice(len(different), NEIGHBOURHOODS, replace=False)
    near = [np.argpartition(np.abs(places - places[at]), AROUND)[:AROUND] for at in middles]
    others = chance.choice(len(different), SAMPLE - NEIGHBOURHOODS * AROUND, replace=False)
    chosen: Indices = different[np.unique(np.concatenate([*near, others]))]
    return chosen


def _said(batch: pl.DataFrame) -> tuple[Numbers, Numbers]:
    longitude, latitude = (batch[f"{axis}_deg"].fill_null(np.nan).to_numpy() for axis in ("longitude", "latitude"))
    return longitude, latitude


def _called_alike(
    batch: pl.DataFrame, known: pl.DataFrame, kinds: Indices, known_kinds: Indices
) -> tuple[Indices, Indices]:
    """Pairs of one kind that have a mark in common which names nothing else on either side."""
    ours = batch.select("source_key", "label").with_row_index("place")
    both = pl.concat([ours.select("place", mark=name) for name in ("source_key", "label")])
    theirs = known.select("marks").with_row_index("known").select("known", mark="marks").explode("mark")
    pairs = _once(both).join(_once(theirs), on="mark").unique(["place", "known"], maintain_order=True)
    mine, others = (pairs[name].cast(pl.Int64).to_numpy() for name in ("place", "known"))
    alike = kinds[mine] == known_kinds[others]
    return mine[alike], others[alike]


def _once(marks: pl.DataFrame) -> pl.DataFrame:
    said = marks.drop_nulls().filter(pl.col("mark") != "").unique(maintain_order=True)
    return said.filter(pl.len().over("mark") == 1)


def _may_be_degrees(x: Numbers, y: Numbers) -> bool:
    return bool(np.abs(x).max(initial=0) <= 180 and np.abs(y).max(initial=0) <= 90)


def _on(plane: str, longitude: Numbers, latitude: Numbers) -> Places:
    east, north = on_plane(plane, longitude, latitude)
    said = np.isfinite(east) & np.isfinite(north)
    return np.where(said, east, np.nan) + 1j * np.where(said, north, np.nan)


def _share_inside(candidate: Candidate, x: Numbers, y: Numbers, inside: Inside) -> float:
    longitude, latitude = candidate.degrees(x[:ASKED_INSIDE], y[:ASKED_INSIDE])
    said = np.isfinite(longitude)
    return float(inside(longitude[said], latitude[said]).sum()) / max(len(said), 1)
