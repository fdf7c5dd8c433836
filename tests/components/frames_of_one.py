"""A made-up quarter whose things are known, and a bureau's batch of some of them, written in any frame."""

from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pyproj import Transformer

from exchange.frames.answers import Diagnosis
from exchange.frames.diagnosis import diagnose
from exchange.store.standing import STANDING

Numbers = NDArray[np.float64]

PLANE: Final = "EPSG:4549"
MIDDLE: Final = (649654.95, 3307153.91)  # 121.549, 29.874
WEST, SOUTH, EAST, NORTH = 121.4, 29.7, 121.7, 30.0
CLASSES: Final = ("0101", "0102", "0113", "0118")


def moved(source: str, target: str, x: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
    """Coordinates in another system, east then north."""
    east, north = Transformer.from_crs(source, target, always_xy=True).transform(x, y)
    return np.asarray(east), np.asarray(north)


class Quarter:
    """Six thousand known things in six by six kilometres, and a bureau's own 300-odd of them. Metres of PLANE."""

    def __init__(self, seed: int = 1) -> None:
        self.chance = np.random.default_rng(seed)
        self.east, self.north = (middle + self.chance.uniform(-3000, 3000, 6000) for middle in MIDDLE)
        self.classes = self.chance.choice(CLASSES, 6000)
        self.ours = (abs(self.east - MIDDLE[0]) < 700) & (abs(self.north - MIDDLE[1]) < 700)

    @property
    def x(self) -> Numbers:
        """The bureau's, east."""
        return self.east[self.ours]

    @property
    def y(self) -> Numbers:
        """The bureau's, north."""
        return self.north[self.ours]

    @property
    def known(self) -> pl.DataFrame:
        """STANDING, all of it, without marks."""
        return known(self.east, self.north, self.classes)

    def told(self, x: Numbers, y: Numbers, crs: str = PLANE, **more: Any) -> Diagnosis:
        """What is said of the bureau's things when it states them so."""
        classes = self.classes[self.ours]
        return told(batch(x, y, classes), more.get("known", self.known), crs, more.get("accuracy_m", 0.25))


def batch(x: Numbers, y: Numbers, classes: NDArray[Any], keys: list[str] | None = None) -> pl.DataFrame:
    """What a bureau states."""
    keys = keys or [f"B{at}" for at in range(len(x))]
    return pl.DataFrame({"x": x, "y": y, "class_code": classes, "source_key": keys}).with_columns(
        label=pl.lit(None, pl.String)
    )


def known(east: Numbers, north: Numbers, classes: NDArray[Any], marks: list[list[str]] | None = None) -> pl.DataFrame:
    """STANDING of things on PLANE."""
    longitude, latitude = moved(PLANE, "EPSG:4490", east, north)
    return pl.DataFrame(
        {
            "longitude_deg": longitude,
            "latitude_deg": latitude,
            "class_code": classes,
            "marks": marks or [[]] * len(east),
        },
        schema=STANDING,
    )


def told(stated: pl.DataFrame, things: pl.DataFrame, crs: str = PLANE, accuracy_m: float = 0.25) -> Diagnosis:
    """What is said of a batch in the made-up city."""
    return diagnose(stated, things, crs=crs, accuracy_m=accuracy_m, middle_deg=121.55, inside=in_city)


def in_city(longitude: Numbers, latitude: Numbers) -> NDArray[np.bool_]:
    """The made-up city is a rectangle."""
    return (longitude > WEST) & (longitude < EAST) & (latitude > SOUTH) & (latitude < NORTH)


def turned(x: Numbers, y: Numbers, degrees: float, scale: float = 1.0, by: complex = 0j) -> tuple[Numbers, Numbers]:
    """The same things in a frame that is turned about their middle, stretched and shifted."""
    places = x + 1j * y
    there = (places - places.mean()) * scale * np.exp(1j * np.radians(degrees)) + places.mean() + by
    return there.real, there.imag
