"""What the two bureaus of the made-up quarter send, with faults put in on purpose and remembered.

Columns carry our own names until they are written; `CENSUS` and `WATER` are the words that each bureau's file uses.
"""

from typing import Final

import msgspec
import numpy as np
import polars as pl
import pyproj

from samples import quarter

CENSUS_ERROR_M, WATER_ERROR_M, TWIN_ERROR_M = 0.35, 0.6, 0.25  # never farther off than this
CENSUS: Final = {
    "部件编号": "key",
    "部件名称": "word",
    "X坐标": "northing_m",
    "Y坐标": "easting_m",
    "所在单元网格": "grid_code",
    "行政区划": "division_code",
    "主管部门": "authority",
    "权属单位": "owner",
    "养护单位": "maintainer",
    "部件状态": "state",
    "初始日期": "initial",
    "变更日期": "changed",
    "位置描述": "place",
    "备注": "note",
}
WATER: Final = {
    "设施编号": "key",
    "设施类型": "word",
    "纵坐标": "northing_m",
    "横坐标": "easting_m",
    "所在道路": "place",
    "产权单位": "owner",
    "维护单位": "maintainer",
    "设施状态": "state",
    "建成日期": "initial",
    "说明": "note",
}


class Register(msgspec.Struct, frozen=True):
    """One file: its records, numbered from 0 in source order, and by finding code the records with that fault.

    rejected: errors, each record under one code; warned: warnings on records that are accepted
    """

    records: int
    accepted: int
    rejected: dict[str, list[int]]
    warned: dict[str, list[int]]


class Later(msgspec.Struct, frozen=True):
    """What the later water register says against the first, as keys; a record whose fault was mended is new."""

    new: list[str]
    changed: list[str]
    ended: list[str]
    unchanged: int


# How each fault spoils a record, by finding code: how many, and what its columns say instead.
Faults = dict[str, tuple[int, dict[str, pl.Expr]]]
CENSUS_REJECTED: Final[Faults] = {
    "key.missing": (4, {"key": pl.lit("")}),
    "class.missing": (2, {"word": pl.lit("")}),
    "value.lookup_unknown": (6, {"word": pl.lit("智慧灯杆二型")}),
    "position.missing": (3, {"northing_m": pl.lit(""), "easting_m": pl.lit("")}),
    "position.axes_swapped": (5, {"northing_m": pl.col("easting_m"), "easting_m": pl.col("northing_m")}),
    "position.outside_city": (4, {"northing_m": pl.lit("3326077.500"), "easting_m": pl.lit("596440.330")}),
    "position.outside_division": (3, {"division_code": pl.lit("330212")}),
    "division.unknown": (2, {"division_code": pl.lit("330299")}),
    "division.abolished": (2, {"division_code": pl.lit("330204")}),
    "grid.code_length": (6, {"grid_code": pl.col("grid_code").str.head(12) + pl.col("grid_code").str.tail(2)}),
    "grid.unknown": (3, {"grid_code": pl.col("grid_code").str.head(12) + "999"}),
    "state.unknown": (3, {"state": pl.lit("还行")}),
    "date.future": (4, {"initial": pl.lit("2199-01-01")}),
    "date.order": (3, {"initial": pl.lit("2021-05-01"), "changed": pl.lit("2019-05-01")}),
    "text.too_long": (2, {"note": pl.lit("重复的说明文字" * 20)}),
}
CENSUS_WARNED: Final[Faults] = {
    "authority.missing": (8, {"authority": pl.lit("")}),
    "grid.disagrees": (5, {"grid_code": pl.col("elsewhere")}),
}
WATER_REJECTED: Final[Faults] = {
    "key.missing": (2, {"key": pl.lit("")}),
    "value.lookup_unknown": (3, {"word": pl.lit("其他设施")}),
    "position.axes_swapped": (3, {"northing_m": pl.col("easting_m"), "easting_m": pl.col("northing_m")}),
    "position.outside_city": (2, {"northing_m": pl.lit("3311708.700"), "easting_m": pl.lit("398605.370")}),
    "date.future": (2, {"initial": pl.lit("21990101")}),
}
DOUBLED: Final = "key.doubled"  # the first record of such a key
DUPLICATE: Final = "key.duplicate"  # a record's key, said again at the end of the file; the first record stands


def _surveyed(things: pl.DataFrame, crs: str, error_m: float, rng: np.random.Generator) -> pl.DataFrame:
    """Northing and easting as a survey gives them: off by up to error_m (twins less), to the millimetre, as text."""
    to_plane = pyproj.Transformer.from_crs("EPSG:4490", crs, always_xy=True)
    easting_m, northing_m = to_plane.transform(things["longitude_deg"].to_numpy(), things["latitude_deg"].to_numpy())
    limit_m = np.where(things["twin"].is_not_null().to_numpy(), TWIN_ERROR_M, error_m)
    off_m, bearing = limit_m * np.sqrt(rng.random(things.height)), 2 * np.pi * rng.random(things.height)
    return things.with_columns(
        pl.Series(name, [f"{value:.3f}" for value in values])
        for name, values in (
            ("easting_m", easting_m + off_m * np.sin(bearing)),
            ("northing_m", northing_m + off_m * np.cos(bearing)),
        )
    )


def days(count: int, rng: np.random.Generator, pattern: str) -> pl.Series:
    """Dates of the years 2008 to 2019."""
    days = 14_000 + (rng.random(count) * 4_000).astype(np.int32)
    return pl.Series("initial", days).cast(pl.Date).dt.strftime(pattern)


def spoil(register: pl.DataFrame, faults: Faults, rows: list[int]) -> tuple[pl.DataFrame, dict[str, list[int]]]:
    """The register with its faults put in, taking rows from the front of the list; and where each fault is."""
    where: dict[str, list[int]] = {}
    for code, (count, says) in faults.items():
        where[code] = sorted(rows[:count])
        del rows[:count]
        spoilt = pl.int_range(pl.len()).is_in(where[code])
        register = register.with_columns(
            **{column: pl.when(spoilt).then(value).otherwise(column) for column, value in says.items()}
        )
    return register, where


def _chosen(register: pl.DataFrame, which: pl.Expr, count: int, rng: np.random.Generator) -> list[int]:
    """Row numbers of `count` records, drawn from those for which `which` holds."""
    rows = register.with_row_index().filter(which)["index"].to_numpy()
    return [int(row) for row in rng.permutation(rows)[:count]]


def _repeat(
    register: pl.DataFrame, rows: list[int], faults: dict[str, list[int]], warned: dict[str, list[int]]
) -> pl.DataFrame:
    """The register with these records once more at its end."""
    faults[DUPLICATE], warned[DOUBLED] = list(range(register.height, register.height + len(rows))), sorted(rows)
    return pl.concat([register, register[sorted(rows)]])


def _register(sent: pl.DataFrame, rejected: dict[str, list[int]], warned: dict[str, list[int]]) -> Register:
    records = sum(map(len, rejected.values()))
    return Register(sent.height, sent.height - records, rejected, warned)


def census(things: pl.DataFrame, rng: np.random.Generator) -> tuple[pl.DataFrame, Register]:
    """The urban-management census (部件普查): every class, most things; EPSG:4549."""
    keys, far = rng.permutation(things.height) + 100_001, {quarter.grid_code(0, 0): quarter.grid_code(11, 9)}
    register = _surveyed(things, "EPSG:4549", CENSUS_ERROR_M, rng).with_columns(
        pl.Series("key", [f"PC{key}" for key in keys]),
        days(things.height, rng, "%Y-%m-%d"),
        elsewhere=pl.col("grid_code").replace_strict(far, default=quarter.grid_code(0, 0)),
        word=pl.col("census_word"),
        state=pl.lit("完好"),
        changed=pl.lit(""),
        note=pl.lit(""),
    )
    water, free = pl.col("in_water"), pl.col("twin").is_null() & (pl.col("class_code") != "0114")
    hydrants = _chosen(register, water & free & (pl.col("class_code") == "0113"), 12, rng)
    covers = _chosen(register, water & free & pl.col("class_code").is_in(["0101", "0102"]), 78, rng)
    lamps = _chosen(register, pl.col("class_code").is_in(["0118", "0305"]), 45, rng)
    row, taken = pl.int_range(pl.len()), {*hydrants, *covers, *lamps}
    register = register.with_columns(
        owner=pl.when(row.is_in(hydrants)).then(pl.lit("样城消防救援支队"))
        .when(row.is_in(covers[:18])).then(pl.lit("样城城市建设公司"))
        .when(row.is_in(covers[18:])).then(pl.lit("")).otherwise("owner"),
        maintainer=pl.when(row.is_in(lamps[:40])).then(pl.lit("")).otherwise("maintainer"),
    )  # fmt: skip
    rows = [row for row in _chosen(register, free, things.height, rng) if row not in taken]
    register, rejected = spoil(register, CENSUS_REJECTED, rows)
    register, warned = spoil(register, CENSUS_WARNED, rows)
    register = _repeat(register, lamps[40:], rejected, warned)
    ownerless = register.with_row_index().filter(pl.col("class_code") == "0114")["index"].to_list()
    warned["authority.missing"] = sorted([*warned["authority.missing"], *ownerless])
    return register, _register(register, rejected, warned)


def whole_water(things: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Every thing that the water bureau could state, surveyed in EPSG:4550, with the key it has or will have."""
    return _surveyed(things, "EPSG:4550", WATER_ERROR_M, rng).with_columns(
        pl.Series("key", [f"SW{key:05}" for key in rng.permutation(things.height) + 1]),
        days(things.height, rng, "%Y%m%d"),
        word=pl.col("water_word"),
        maintainer=pl.when(pl.Series(rng.random(things.height) < 0.1)).then(pl.lit("")).otherwise("maintainer"),
        state=pl.lit("正常"),
        note=pl.lit(""),
    )


def water(whole: pl.DataFrame, rng: np.random.Generator) -> tuple[pl.DataFrame, Register]:
    """The water bureau's register: covers of its pipes and hydrants, less a tenth that it has not heard of."""
    register = whole.filter("in_water")
    twins = pl.col("twin").is_not_null()
    again = _chosen(register, ~pl.col("in_census") & ~twins, 3, rng)
    rows = [row for row in _chosen(register, ~twins, register.height, rng) if row not in again]
    register, rejected = spoil(register, WATER_REJECTED, rows)
    warned: dict[str, list[int]] = {}
    register = _repeat(register, again, rejected, warned)
    return register, _register(register, rejected, warned)


def accepted(sent: pl.DataFrame, register: Register) -> pl.DataFrame:
    """The records of a register that have no error."""
    bad = [row for rows in register.rejected.values() for row in rows]
    return sent.filter(~pl.int_range(pl.len()).is_in(bad))


def water_later(whole: pl.DataFrame, told: pl.DataFrame, rng: np.random.Generator) -> tuple[pl.DataFrame, Later]:
    """The water register a year on: 25 owners and 10 states changed, 15 covers gone, faults mended, 20 covers new.

    whole: from `whole_water`; told: the records of the first register that were accepted
    """
    rows, row = _chosen(told, pl.col("twin").is_null(), 50, rng), pl.int_range(pl.len())
    kept = told.with_columns(
        owner=pl.when(row.is_in(rows[:25])).then(pl.lit("样城水务投资公司")).otherwise("owner"),
        state=pl.when(row.is_in(rows[25:35])).then(pl.lit("破损")).otherwise("state"),
    ).filter(~row.is_in(rows[35:]))
    unheard = whole.filter(~pl.col("thing").is_in(told["thing"].implode()))
    new = pl.concat(
        [unheard.filter("in_water"), unheard.filter(~pl.col("in_water") & pl.col("twin").is_null()).head(20)]
    )
    changed, ended = told[rows[:35]]["key"].sort().to_list(), told[rows[35:]]["key"].sort().to_list()
    return pl.concat([kept, new]), Later(new["key"].sort().to_list(), changed, ended, told.height - 50)
