"""坐标存疑 Whether a delivery is in the frame that its feed says, asked before anything of it is believed.

An ordinary delivery is asked only where its own keys stood before. One that lies outside of the city for the most part,
has moved away from where it stood, or has nothing where others have much, is diagnosed (`exchange.frames`), and held
where a person should look: a wrong frame is no fault of single records.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import polars as pl

from exchange.bus import Bus
from exchange.entry import InboxRow
from exchange.frames.answers import Diagnosis
from exchange.frames.diagnosis import diagnose
from exchange.frames.similarity import Mask, Numbers, Places
from exchange.frames.things import Known, Things, kinds_of
from exchange.frames.words import in_words
from exchange.placing import City
from exchange.store.frames import VERSIONS
from exchange.store.places import distance_m, metres_per_degree
from exchange.store.standing import STANDING
from exchange.store.store import Store
from mappings.feed import Feed
from mappings.schema import conform
from security.errors import Refusal

CODE: Final = "position.frame_doubtful"
FEWEST: Final = 20  # places of a delivery; of fewer nothing is asked
OUTSIDE: Final = 0.5  # of the places lie outside of the city
ASKED: Final = 200  # keys of a batch that are looked up, FEWEST of each delivery at least
NEW: Final = 50  # places of a delivery; of fewer nobody asks what is around new ones
NEW_ASKED: Final = 60  # new places of a batch around which is looked, likewise
MOVED_M: Final = 5.0  # half of the known keys farther than this, and twice the accuracy, from where they stood
AROUND_M: Final = 60.0  # where others have their like so near to a new thing, as far as the cells around it reach,
MEETS: Final = 0.1  # fewer that lie on one of them are strange

DEGREES: Final = ("longitude_deg", "latitude_deg")


def doubt(placed: pl.DataFrame, rows: Sequence[InboxRow], feed: Feed, bus: Bus) -> dict[str, str | int] | None:
    """What a delivery is held for, as its report says it; None where nothing is.

    placed: PLACED of a batch; rows: its deliveries. Raises Refusal CODE where one of several would be held: then each
    is looked at alone. What a person let through is not asked again.
    """
    stated = _large(placed, rows)
    if stated.is_empty():
        return None
    shares = stated.group_by("delivery").agg(pl.col("longitude_deg").is_null().mean()).sort("delivery")
    outside = {int(delivery): float(share) for delivery, share in shares.iter_rows()}
    strange = _strange(stated, feed, bus.store)
    for delivery in (delivery for delivery in outside if outside[delivery] > OUTSIDE or delivery in strange):
        found = diagnosed(stated.filter(pl.col("delivery") == delivery), feed, bus.city, bus.store)
        if outside[delivery] > OUTSIDE or found.clear:
            if len(rows) > 1:
                raise Refusal(CODE)
            return _report(found, outside[delivery], feed)
    return None


def diagnosed(said: pl.DataFrame, feed: Feed, city: City, store: Store | None) -> Diagnosis:
    """The frame that candidates are really in, by what a store knows, or (None) by magnitudes alone."""
    known = pl.DataFrame(schema=STANDING) if store is None else store.standing(said["class_code"])
    west, _, east, _ = city.extent_deg

    def inside(longitude: Numbers, latitude: Numbers) -> Mask:
        return city.districts.at(longitude, latitude).is_not_null().to_numpy()

    return diagnose(said, known, crs=feed.crs, accuracy_m=feed.accuracy_m, middle_deg=(west + east) / 2, inside=inside)


def _large(placed: pl.DataFrame, rows: Sequence[InboxRow]) -> pl.DataFrame:
    """What deliveries with enough places state, those left out that a person let through."""
    if placed.height < FEWEST:
        return placed.clear()
    asked = [number for number, row in enumerate(rows) if row.decision != "release"]
    stated = placed.filter(pl.col("x").is_finite() & pl.col("y").is_finite(), pl.col("delivery").is_in(asked))
    return stated.filter(pl.len().over("delivery") >= FEWEST)


def _strange(stated: pl.DataFrame, feed: Feed, store: Store) -> set[int]:
    """Deliveries whose keys are no longer where they stood, or whose new things lie beside what others have there."""
    some = _some(stated.drop_nulls(["longitude_deg", "source_key"]), ASKED)
    stood = store.stood(feed.id, some["source_key"])
    both = some.join(stood, on="source_key", suffix="_known")
    places = [both[name].to_numpy() for name in (*DEGREES, *(f"{name}_known" for name in DEGREES))]
    moved = both.select("delivery", moved_m=pl.Series(distance_m(*places), dtype=pl.Float64)).group_by("delivery")
    known = moved.agg(pl.col("moved_m").median(), pl.len().alias("keys")).filter(pl.col("keys") >= FEWEST)
    away = known.filter(pl.col("moved_m") > MOVED_M + 2 * feed.accuracy_m)["delivery"]
    many = some.filter(pl.col("delivery").is_in(_of_at_least(stated, NEW)))
    new = many.join(known, on="delivery", how="anti").join(stood, on="source_key", how="anti")
    return {*away.to_list(), *_beside(_some(new, NEW_ASKED), store)}


def _of_at_least(stated: pl.DataFrame, places: int) -> list[int]:
    """Deliveries with so many places."""
    return stated.group_by("delivery").len().filter(pl.col("len") >= places)["delivery"].to_list()


def _some(said: pl.DataFrame, in_all: int) -> pl.DataFrame:
    """Some of each delivery, from all over it: FEWEST at least, more where few deliveries share what is asked."""
    most = max(FEWEST, in_all // max(1, said["delivery"].n_unique()))
    nth, step = pl.int_range(pl.len()).over("delivery"), (pl.len().over("delivery") // most).clip(1)
    return said.filter(nth % step == 0, nth // step < most)


def _beside(new: pl.DataFrame, store: Store) -> list[int]:
    """Deliveries of which many things have their like around, and hardly one lies on it."""
    new = new.filter(pl.len().over("delivery") >= FEWEST)
    near = store.near("", conform(new, VERSIONS))  # no feed's: of all of them
    if near.is_empty():
        return []
    kinds, near_kinds = kinds_of(new["class_code"], near["class_code"])
    scales = metres_per_degree(np.array([new["latitude_deg"].mean()]))
    known = Known.of(Things(_ground(near, scales), near_kinds))
    apart_m = pl.Series(known.apart_m(Things(_ground(new, scales), kinds), AROUND_M))
    around = new.select("delivery", apart_m=apart_m).filter(pl.col("apart_m").is_finite()).group_by("delivery")
    counts = around.agg(pl.len().alias("around"), (pl.col("apart_m") <= MOVED_M).sum().alias("meet"))
    return counts.filter(pl.col("around") >= FEWEST, pl.col("meet") < MEETS * pl.col("around"))["delivery"].to_list()


def _ground(things: pl.DataFrame, scales: tuple[Numbers, Numbers]) -> Places:
    """Metres east and north, true enough within a hundred of them."""
    places: Places = things["longitude_deg"].to_numpy() * scales[0] + 1j * things["latitude_deg"].to_numpy() * scales[1]
    return places


def _report(found: Diagnosis, outside: float, feed: Feed) -> dict[str, str | int]:
    told = in_words(found, feed)
    fix = "\n".join(told.fix)
    detail = f"{told.zh}。{told.en}."
    if fix:
        detail += f"\n更正 {feed.id}.toml 中这几行 the lines of {feed.id}.toml to change:\n{fix}"
    report: dict[str, str | int] = {
        "code": CODE,
        "detail": detail,
        "outside_percent": f"{100 * outside:.1f}",
        "verdict": found.verdict,
        "matched": found.matched,
        "compared": found.looked,
    }
    if found.system:
        report["looks_like"] = found.system
    if found.by in ("numbers", "places"):
        report["residual_cm"] = f"{100 * found.residual_m:.1f}"
    return report | ({"fix": fix} if fix else {})
