"""落图落格 Where a candidate is: CGCS2000 position, unit grid and division by polygon."""

from pathlib import Path

import msgspec
import polars as pl


class City(msgspec.Struct, frozen=True):
    """The city's districts and unit grid. extent_deg: west, south, east, north in EPSG:4490."""

    extent_deg: tuple[float, float, float, float]


class Placing(msgspec.Struct, frozen=True):
    """placed: PLACED, the candidates in their order; findings: FINDINGS."""

    placed: pl.DataFrame
    findings: pl.DataFrame


def load_city(districts: Path, grid: Path, extent_deg: tuple[float, float, float, float]) -> City:
    """The city from two GeoJSON FeatureCollections in EPSG:4490, property `code` each. Raises Misconfigured."""
    raise NotImplementedError


def place(candidates: pl.DataFrame, *, crs: str, accuracy_m: float, city: City, limit_m: float) -> Placing:
    """Candidates (CANDIDATES) with their position, accuracy, grid and division.

    crs:        the feed's, `EPSG:4547`; x, y are east then north, or longitude then latitude
    accuracy_m: of the source; that of the transformation is added
    limit_m:    refused when the sum is beyond it

    Findings (errors): `position.axes_swapped`, `position.outside_city`; those rows have no position.
    Raises Refusal placing.crs_unknown, placing.no_transformation, placing.accuracy_beyond_limit.
    """
    raise NotImplementedError
