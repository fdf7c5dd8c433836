"""The power bureau's register of cable covers and boxes, in degrees, with faults put in on purpose and remembered.

A third voice beside census and water register: most of what it names the census names too, under another key.
"""

from typing import Final

import msgspec
import numpy as np
import polars as pl

from samples import registers
from samples.registers import Register

ERROR_M: Final = 0.4
WORDS: Final = {"0105": "电缆井", "0116": "配电箱"}
COLUMNS: Final = {
    "设备编号": "key",
    "设备类型": "word",
    "经度": "longitude",
    "纬度": "latitude",
    "所属单位": "owner",
    "运维单位": "maintainer",
    "投运日期": "initial",
    "安装地点": "place",
}
REJECTED: Final[registers.Faults] = {
    "key.missing": (1, {"key": pl.lit("")}),
    "position.outside_city": (2, {"longitude": pl.lit("0"), "latitude": pl.lit("0")}),
    "position.axes_swapped": (2, {"longitude": pl.col("latitude"), "latitude": pl.col("longitude")}),
    "date.future": (1, {"initial": pl.lit("2199-01-01")}),
}


class Power(msgspec.Struct, frozen=True):
    """pairs: census key to power key, both accepted: the same thing; alone: power keys of what the census lacks;
    disputes: census keys where the two name different owners."""

    pairs: dict[str, str]
    alone: list[str]
    disputes: list[str]


def power(things: pl.DataFrame, census: pl.DataFrame, rng: np.random.Generator) -> tuple[pl.DataFrame, Register, Power]:
    """The register, its faults, and what is true of it beside the census.

    things: what stands in the quarter, with `in_power`, filled here by chance for nine tenths of covers and boxes
    census: the census's accepted records (thing, key, owner)
    """
    known = things.filter(pl.col("class_code").is_in(list(WORDS)))
    known = known.filter(pl.Series(rng.random(known.height) < 0.9))
    disputed = {int(thing) for thing in rng.permutation(known.join(census, on="thing", how="semi")["thing"])[:4]}
    register = _placed(known, rng).with_columns(
        pl.Series("key", [f"GD{key:05}" for key in rng.permutation(known.height) + 1]),
        registers.days(known.height, rng, "%Y-%m-%d"),
        word=pl.col("class_code").replace_strict(WORDS),
        owner=pl.when(pl.col("thing").is_in(disputed)).then(pl.lit("样城电力资产公司")).otherwise("owner"),
    )
    rows = [int(row) for row in rng.permutation(register.height) if register["thing"][int(row)] not in disputed]
    register, rejected = registers.spoil(register, REJECTED, rows)
    told = Register(register.height, register.height - sum(map(len, rejected.values())), rejected, {})
    accepted = registers.accepted(register, told).select("thing", "key")
    both = accepted.join(census.select("thing", census_key="key"), on="thing", how="left", maintain_order="left")
    pairs = both.drop_nulls("census_key")
    keys = pairs.filter(pl.col("thing").is_in(disputed))["census_key"]
    alone = both.filter(pl.col("census_key").is_null())["key"]
    truth = Power(dict(pairs.select("census_key", "key").rows()), alone.to_list(), keys.sort().to_list())
    return register, told, truth


def _placed(known: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Longitude and latitude as a handheld receiver gives them: off by up to ERROR_M, to a centimetre, as text."""
    off_m, bearing = ERROR_M * np.sqrt(rng.random(known.height)), 2 * np.pi * rng.random(known.height)
    latitude = known["latitude_deg"].to_numpy() + off_m * np.cos(bearing) / 110_900
    longitude = known["longitude_deg"].to_numpy() + off_m * np.sin(bearing) / 96_500
    return known.with_columns(
        pl.Series("longitude", [f"{value:.7f}" for value in longitude]),
        pl.Series("latitude", [f"{value:.7f}" for value in latitude]),
    )
