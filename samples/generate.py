"""The made-up quarter's files and the truth about them.

`python -m samples.generate FOLDER [--seed 2007]` writes districts.geojson, grid.geojson, census.csv, water.csv,
water-later.csv, power.csv, sheet.dxf, sheet-utf8.dxf (the same map), sheet-first.dxf, sheet-second.dxf, cameras.xml,
truth.json, telemetry.json and telemetry-truth.json; and what planning delivers later: districts-later.geojson,
grid-later.geojson, imagery.geojson and boundary-truth.json. The same seed gives the same bytes. Every fault is put in
on purpose, so that a run of the bus over these files can be checked record by record.
"""

import argparse
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from samples import planning, power, quarter, registers
from samples.cameras import Cameras, cameras
from samples.drawing import UTF_8
from samples.power import Power
from samples.registers import Later, Register
from samples.sheet import Sheet, draw
from samples.sheet_versions import Versions, versions
from samples.telemetry import telemetry

ROLES = ("authority", "owner", "maintainer")


class Truth(msgspec.Struct, frozen=True):
    """What the bus should find. A component is named by its census key, or by its water key when the census lacks it.

    extent:     west, south, east, north in degrees of EPSG:4490
    things:     what stands in the quarter; components: those that an accepted record speaks of
    registers:  by file name
    pairs:      census key to water key, both accepted: the same thing
    neighbours: census key and water key of the same class, closer than 4 m, that are two things
    disputes:   the two registers name different owners
    orphans:    no register states any role; gaps: some role, but not all three
    sheet_versions: what happened on one sheet between its two files
    cameras:    what the camera catalogue adds: a component for each accepted item, beside `components`
    """

    seed: int
    extent: tuple[float, float, float, float]
    things: int
    components: int
    registers: dict[str, Register]
    pairs: dict[str, str]
    neighbours: list[tuple[str, str]]
    disputes: list[str]
    orphans: list[str]
    gaps: list[str]
    later: Later
    power: Power
    sheet: Sheet
    cameras: Cameras
    sheet_versions: Versions


def _things(rng: np.random.Generator) -> pl.DataFrame:
    """What stands there, with the units that answer for it, and which of the two bureaus know of it."""
    kinds = pl.DataFrame([kind._asdict() for kind in (*quarter.KINDS, quarter.OWNERLESS)])
    things = quarter.components(rng).join(kinds, on="class_code", how="left", maintain_order="left")
    twin, lone = pl.col("twin").is_not_null(), (pl.col("twin") >= quarter.TWINS_KNOWN_TO_BOTH).fill_null(False)
    return things.with_columns(
        in_census=(twin | pl.Series(rng.random(things.height) < 0.95)) & ~(lone & pl.col("second")),
        in_water=(twin | pl.Series(rng.random(things.height) < 0.9))
        & ~(lone & ~pl.col("second"))
        & (pl.col("water_word") != ""),
    )


def _neighbours(census: pl.DataFrame, water: pl.DataFrame) -> list[tuple[str, str]]:
    """Keys of the two of each twin pair, one from each register."""
    firsts = (census.select("twin", "thing", "key"), water.select("twin", "thing", "key"))
    both = firsts[0].drop_nulls().join(firsts[1].drop_nulls(), on="twin", maintain_order="left")
    return both.filter(pl.col("thing") != pl.col("thing_right")).select("key", "key_right").rows()


def _stated(census: pl.DataFrame, water: pl.DataFrame) -> pl.DataFrame:
    """One row a component: its name, and for each role how many different units the registers state."""
    says = [pl.col(role).replace("", None) for role in ROLES]
    claims = pl.concat([frame.select("thing", "key", *says) for frame in (census, water)])
    units = [pl.col(role).drop_nulls().n_unique() for role in ROLES]
    return claims.group_by("thing", maintain_order=True).agg(pl.col("key").first(), *units)


def _write(sent: pl.DataFrame, columns: dict[str, str], path: Path, encoding: str) -> None:
    text = sent.select(pl.col(ours).replace("", None).alias(theirs) for theirs, ours in columns.items()).write_csv(
        line_terminator="\r\n"
    )
    path.write_bytes(text.encode(encoding))


def _write_truth(truth: msgspec.Struct, path: Path) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(truth), indent=1) + b"\n")


def generate(folder: Path, seed: int) -> Truth:
    """Write the quarter's files into the folder, and say what is true of them."""
    rng = np.random.default_rng(seed)
    things = _things(rng)
    census_sent, census_register = registers.census(things.filter("in_census"), rng)
    whole = registers.whole_water(things.filter(pl.col("water_word") != ""), rng)
    water_sent, water_register = registers.water(whole, rng)
    census, water = (
        registers.accepted(census_sent, census_register),
        registers.accepted(water_sent, water_register),
    )
    later_sent, later = registers.water_later(whole, water, rng)
    catalogue, listed = cameras(seed)
    stated = _stated(census, water)
    power_sent, power_register, power_truth = power.power(things, census, np.random.default_rng([seed, 1]))
    told = {"census": census, "water": water, "power": registers.accepted(power_sent, power_register)}
    drawing, sheet, placed = draw(things, told, seed)
    first, second, happened = versions(placed, seed)
    roles = [pl.col(role) for role in ROLES]
    truth = Truth(
        seed=seed,
        extent=quarter.EXTENT_DEG,
        things=things.height,
        components=stated.height,
        registers={
            "census.csv": census_register,
            "water.csv": water_register,
            "power.csv": power_register,
            "water-later.csv": Register(later_sent.height, later_sent.height, {}, {}),
        },
        pairs=dict(census.join(water, on="thing", maintain_order="left").select("key", "key_right").rows()),
        neighbours=_neighbours(census, water),
        disputes=stated.filter(pl.col("owner") > 1)["key"].to_list(),
        orphans=stated.filter(pl.max_horizontal(roles) == 0)["key"].to_list(),
        gaps=stated.filter((pl.min_horizontal(roles) == 0) & (pl.max_horizontal(roles) > 0))["key"].to_list(),
        later=later,
        power=power_truth,
        sheet=sheet,
        cameras=listed,
        sheet_versions=happened,
    )
    folder.mkdir(parents=True, exist_ok=True)
    _write(census_sent, registers.CENSUS, folder / "census.csv", "gb18030")
    _write(water_sent, registers.WATER, folder / "water.csv", "utf-8-sig")
    _write(power_sent, power.COLUMNS, folder / "power.csv", "gb18030")
    _write(later_sent, registers.WATER, folder / "water-later.csv", "utf-8-sig")
    (folder / "sheet.dxf").write_bytes(drawing.octets())
    (folder / "sheet-utf8.dxf").write_bytes(drawing.octets(UTF_8))
    (folder / "sheet-first.dxf").write_bytes(first)
    (folder / "sheet-second.dxf").write_bytes(second)
    (folder / "cameras.xml").write_bytes(catalogue)
    for name, document in (("districts.geojson", quarter.districts()), ("grid.geojson", quarter.grids())):
        (folder / name).write_bytes(msgspec.json.encode(document) + b"\n")
    _write_truth(truth, folder / "truth.json")
    later_border = planning.LATER_BORDER
    for name, document in (
        ("districts-later.geojson", quarter.districts(later_border)),
        ("grid-later.geojson", quarter.grids(later_border)),
        ("imagery.geojson", planning.imagery()),
    ):
        (folder / name).write_bytes(msgspec.json.encode(document) + b"\n")
    _write_truth(planning.boundary(things, stated), folder / "boundary-truth.json")
    readings, of_readings = telemetry(water, seed)
    (folder / "telemetry.json").write_bytes(readings)
    _write_truth(of_readings, folder / "telemetry-truth.json")
    return truth


def main() -> None:
    """Write the files into a folder."""
    parser = argparse.ArgumentParser(prog="python -m samples.generate", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=2007)
    options = parser.parse_args()
    truth = generate(options.folder, options.seed)
    print(f"{truth.things} things, {truth.components} components, {len(truth.pairs)} pairs: {options.folder}")


if __name__ == "__main__":
    main()
