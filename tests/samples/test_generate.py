"""The made-up quarter keeps its own promises; what the bus makes of it is tested where the bus is."""

import hashlib
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pyproj
import pytest
import shapely

from mappings.load import load_feeds
from samples import quarter, registers
from samples.generate import Truth, generate

ROOT = Path(__file__).parents[2]
PUBLISHED = "853e4a8e7e24c2dcf3349e6c8a98d4c7baf3a33239a24df498700747d1974164"
PUBLISHED_MEMBERS = (
    "seed", "extent", "things", "components", "registers", "pairs", "neighbours", "disputes", "orphans", "gaps",
    "later",
)  # fmt: skip


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Truth]:
    folder = tmp_path_factory.mktemp("city")
    return folder, generate(folder, 2007)


def read(path: Path, encoding: str, crs: str, columns: dict[str, str]) -> pl.DataFrame:
    """A register with our column names, and its positions as metres of one plane (EPSG:4550)."""
    frame = pl.read_csv(path.read_bytes().decode(encoding).encode(), infer_schema=False).rename(columns)
    to_plane = pyproj.Transformer.from_crs(crs, "EPSG:4550", always_xy=True)
    east, north = (frame[axis].cast(pl.Float64).fill_null(0).to_numpy() for axis in ("easting_m", "northing_m"))
    x_m, y_m = to_plane.transform(east, north)
    return frame.with_columns(pl.Series("x_m", x_m), pl.Series("y_m", y_m))


def census(folder: Path) -> pl.DataFrame:
    return read(folder / "census.csv", "gb18030", "EPSG:4549", registers.CENSUS)


def water(folder: Path, name: str = "water.csv") -> pl.DataFrame:
    return read(folder / name, "utf-8-sig", "EPSG:4550", registers.WATER)


def test_the_same_seed_gives_the_same_bytes(city: tuple[Path, Truth], tmp_path: Path) -> None:
    folder, _ = city
    generate(tmp_path, 2007)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }


def test_the_truth_of_seed_2007_is_the_one_that_was_published(city: tuple[Path, Truth]) -> None:
    folder, _ = city
    truth = msgspec.json.decode((folder / "truth.json").read_bytes())
    # What was added since stands beside it and changes none of it.
    first = {name: truth[name] for name in PUBLISHED_MEMBERS}
    first["registers"] = {name: truth["registers"][name] for name in ("census.csv", "water.csv", "water-later.csv")}
    for register in first["registers"].values():
        register["warned"].pop(registers.DOUBLED, None)
    octets = msgspec.json.format(msgspec.json.encode(first), indent=1) + b"\n"
    assert hashlib.sha256(octets).hexdigest() == PUBLISHED


def test_the_committed_polygons_are_the_generated_ones(city: tuple[Path, Truth]) -> None:
    folder, _ = city
    for name in ("districts.geojson", "grid.geojson"):
        assert (ROOT / "samples/city" / name).read_bytes() == (folder / name).read_bytes()


def test_every_record_is_accepted_or_rejected_for_one_reason(city: tuple[Path, Truth]) -> None:
    folder, truth = city
    for name, frame in (
        ("census.csv", census(folder)),
        ("water.csv", water(folder)),
        ("water-later.csv", water(folder, "water-later.csv")),
    ):
        register = truth.registers[name]
        bad = [row for rows in register.rejected.values() for row in rows]
        assert len(bad) == len(set(bad)) == register.records - register.accepted
        assert frame.height == register.records
        assert not set(bad) & {row for rows in register.warned.values() for row in rows}


def test_another_seed_gives_another_quarter_with_the_same_number_of_faults(
    city: tuple[Path, Truth], tmp_path: Path
) -> None:
    _, truth = city
    other = generate(tmp_path, 1)
    assert other.pairs != truth.pairs
    for name, register in truth.registers.items():
        assert {c: len(rows) for c, rows in register.rejected.items()} == {
            c: len(rows) for c, rows in other.registers[name].rejected.items()
        }


def test_the_census_is_gb18030_beyond_gbk(city: tuple[Path, Truth]) -> None:
    folder, _ = city
    with pytest.raises(UnicodeDecodeError):
        (folder / "census.csv").read_bytes().decode("gbk")
    assert "䶮溪路" in (folder / "census.csv").read_bytes().decode("gb18030")


def test_pairs_lie_within_both_accuracies_and_neighbours_do_not(city: tuple[Path, Truth]) -> None:
    folder, truth = city
    feeds = load_feeds([ROOT / "mappings/feeds"])
    limit_m = feeds["urban-census"].accuracy_m + feeds["water-register"].accuracy_m
    ours, theirs = (frame.unique("key", keep="first") for frame in (census(folder), water(folder)))
    off_m = (pl.col("x_m") - pl.col("x_m_right")).pow(2).add((pl.col("y_m") - pl.col("y_m_right")).pow(2)).sqrt()

    def distances(pairs: list[tuple[str, str]]) -> np.ndarray:
        joined = (
            pl.DataFrame(pairs, schema=["key", "water"], orient="row")
            .join(ours, on="key")
            .join(theirs, left_on="water", right_on="key")
        )
        assert joined.height == len(pairs)
        return joined.select(off_m).to_series().to_numpy()

    assert distances(list(truth.pairs.items())).max() < limit_m
    # Where only one bureau knows each of two neighbours, they are too far apart to be joined.
    lone = [pair for pair in truth.neighbours if pair[0] not in truth.pairs and pair[1] not in truth.pairs.values()]
    both = [pair for pair in truth.neighbours if pair[0] in truth.pairs]
    assert len(lone) > 4
    assert distances(lone).min() > limit_m
    # Where both know both, the wrong partner is farther than the right one by half a metre.
    assert len(both) > 10
    assert distances(both).min() > distances([(key, truth.pairs[key]) for key, _ in both]).max() + 0.5


def test_grids_tile_the_districts_which_share_one_edge() -> None:
    west, east = (shapely.geometry.shape(f["geometry"]) for f in quarter.districts()["features"])
    cells = [shapely.geometry.shape(f["geometry"]) for f in quarter.grids()["features"]]
    assert shapely.union_all(cells).equals(shapely.union_all([west, east]))
    assert sum(cell.area for cell in cells) == pytest.approx(west.area + east.area, rel=1e-12)
    assert west.intersection(east).length == pytest.approx(10 * quarter.CELL_DEG[1], rel=0.05)
    assert west.intersection(east).area == 0


def test_an_accepted_census_record_lies_in_the_grid_it_states(city: tuple[Path, Truth]) -> None:
    folder, truth = city
    register = truth.registers["census.csv"]
    doubtful = [row for rows in (register.rejected | register.warned).values() for row in rows]
    frame = census(folder).with_row_index().filter(~pl.col("index").is_in(doubtful))
    back = pyproj.Transformer.from_crs("EPSG:4550", "EPSG:4490", always_xy=True)
    longitude, latitude = back.transform(frame["x_m"].to_numpy(), frame["y_m"].to_numpy())
    shapes = {f["properties"]["code"]: shapely.geometry.shape(f["geometry"]) for f in quarter.grids()["features"]}
    stated = np.array([shapes[code] for code in frame["grid_code"]])
    assert shapely.contains_xy(stated, longitude, latitude).all()


def test_the_later_register_differs_as_the_truth_says(city: tuple[Path, Truth]) -> None:
    folder, truth = city
    register = truth.registers["water.csv"]
    bad = [row for rows in register.rejected.values() for row in rows]
    before = water(folder).with_row_index().filter(~pl.col("index").is_in(bad)).drop("index", "x_m", "y_m")
    after = water(folder, "water-later.csv").drop("x_m", "y_m")
    kept = before.join(after, on="key", how="semi")
    assert sorted(after.join(before, on="key", how="anti")["key"]) == truth.later.new
    assert sorted(before.join(after, on="key", how="anti")["key"]) == truth.later.ended
    same = kept.join(after, on=after.columns, nulls_equal=True, how="semi")
    assert (same.height, kept.height - same.height) == (truth.later.unchanged, len(truth.later.changed))


def test_the_camera_catalogue_s_items_have_one_fate_each_and_their_faults_are_counted(
    city: tuple[Path, Truth],
) -> None:
    folder, truth = city
    told = truth.cameras
    fates = [row for rows in (told.rejected | told.ignored).values() for row in rows]
    assert len(fates) == len(set(fates)) == told.records - told.accepted
    assert {code: len(rows) for code, rows in told.rejected.items()} == {
        "position.outside_city": 3,
        "position.missing": 2,
        "key.duplicate": 1,
    }
    assert told.accepted == len(set(told.keys)) == 40
    assert {key[:6] for key in told.keys} == {quarter.WEST, quarter.EAST}
    text = (folder / "cameras.xml").read_bytes().decode("gb18030")
    assert text.count("<Item>") == told.records
    assert all(word in text for word in told.withheld)
    assert "䶮溪路" in text
    with pytest.raises(UnicodeDecodeError):
        (folder / "cameras.xml").read_bytes().decode("gbk")


def test_another_seed_gives_other_cameras_with_the_same_faults(city: tuple[Path, Truth], tmp_path: Path) -> None:
    mine, other = city[1].cameras, generate(tmp_path, 1).cameras
    assert mine.withheld != other.withheld
    for here, there in ((mine.rejected, other.rejected), (mine.ignored, other.ignored)):
        assert {code: len(rows) for code, rows in here.items()} == {code: len(rows) for code, rows in there.items()}
