"""The quarter's map shows what its truth says, to our reader and to two that know nothing of us."""

import shutil
import subprocess
from pathlib import Path

import ezdxf
import numpy as np
import polars as pl
import pyproj
import pytest

from connectors.formats import dxf
from mappings.apply import map_records, take
from mappings.codelists import cass, classes
from mappings.load import load_feeds
from samples import registers, sheet
from samples.generate import Truth, generate
from security.message import file_content
from tests.formats.test_dxf import gdal, raw


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Truth]:
    folder = tmp_path_factory.mktemp("city")
    return folder, generate(folder, 2007)


@pytest.fixture(scope="module")
def drawn(city: tuple[Path, Truth]) -> pl.DataFrame:
    content = file_content(city[0] / "sheet.dxf")
    return pl.concat(batch.frame for batch in dxf.decode([content], {"attributes": [sheet.TAG]}))


FORMS = {"sheet.dxf": ("AC1015", "gbk"), "sheet-utf8.dxf": ("AC1024", "utf-8")}


@pytest.mark.parametrize("name", FORMS)
def test_a_cad_library_finds_nothing_to_mend(name: str, city: tuple[Path, Truth]) -> None:
    drawing = ezdxf.readfile(city[0] / name)
    audit = drawing.audit()
    assert (audit.errors, audit.fixes) == ([], [])
    assert (drawing.dxfversion, drawing.output_encoding) == FORMS[name]
    assert len(drawing.modelspace()) == city[1].sheet.entities


def test_the_map_in_utf_8_is_the_map_in_gbk_to_the_last_character(city: tuple[Path, Truth]) -> None:
    feed = load_feeds([Path(__file__).parents[2] / "mappings/feeds"])["planning-map-500"]
    gbk, utf8 = (
        pl.concat(batch.frame for batch in dxf.decode([file_content(city[0] / name)], feed.options)) for name in FORMS
    )
    assert utf8.equals(gbk, null_equal=True)
    assert {"路灯", "果皮箱"} <= set(utf8["layer"])
    ours, theirs = (map_records(take(frame, feed), feed) for frame in (utf8, gbk))
    assert ours.candidates.equals(theirs.candidates, null_equal=True)
    assert ours.findings.equals(theirs.findings, null_equal=True)
    assert ours.candidates.filter(class_basis="layer").height == 34


@pytest.mark.filterwarnings("ignore:One or several characters couldn't be converted")
@pytest.mark.parametrize("name", FORMS)
def test_the_codes_of_the_whole_map_are_what_a_cad_library_and_gdal_read(
    name: str, city: tuple[Path, Truth], drawn: pl.DataFrame
) -> None:
    path = city[0] / name
    ours = dict(drawn.select("key", "code").rows())
    library = {
        entity.dxf.handle: entity.get_xdata("SOUTH")[0].value if entity.has_xdata("SOUTH") else None
        for entity in ezdxf.readfile(path).modelspace()
    }
    assert ours == library
    if name == "sheet-utf8.dxf":  # pyogrio cannot give the raw codes of a text in GBK
        theirs = {}
        for feature in gdal(path):
            tags = iter(raw(feature))
            south = (1001, "SOUTH") in tags  # and the tags after it are left
            theirs[feature["EntityHandle"]] = next(tags)[1] if south else None
        assert ours == theirs
    assert sum(code is not None for code in ours.values()) > 1_700


def test_the_text_of_the_map_in_utf_8_is_what_its_bytes_say_and_debian_s_ogr2ogr_spoils_it(
    city: tuple[Path, Truth], drawn: pl.DataFrame
) -> None:
    path = city[0] / "sheet-utf8.dxf"
    texts = set(drawn.filter(entity="TEXT")["text"])
    lines = path.read_bytes().decode("utf-8").split("\r\n")
    assert texts <= set(lines)
    program = shutil.which("ogr2ogr")
    if program is None:
        pytest.skip("program:ogr2ogr (gdal-bin), which is shown to read the UTF-8 of a drawing as something else")
    done = subprocess.run([program, "-q", "-f", "CSV", "/vsistdout/", path], capture_output=True, check=True)
    said = done.stdout.decode("utf-8", errors="replace")
    if "GDAL 3.6" not in subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout:
        pytest.skip("program:ogr2ogr of GDAL 3.6; another one is here")
    assert "路灯" not in said
    assert not any(text in said for text in texts if not text.isascii())


def test_every_entity_is_a_symbol_or_ignored_or_unmapped(city: tuple[Path, Truth], drawn: pl.DataFrame) -> None:
    truth = city[1].sheet
    assert drawn.height == truth.entities
    assert len(truth.symbols) + sum(truth.ignored.values()) + sum(many for _, many in truth.unmapped) == truth.entities
    assert dict(drawn["layer"].value_counts().rows()) == truth.layers
    rest = drawn.filter(~pl.col("key").is_in(list(truth.symbols)))
    part = rest["code"].str.contains("-").fill_null(False)
    assert {
        "text": rest.filter(entity="TEXT").height,
        "outline": rest.filter(pl.col("entity").is_in(["LINE", "LWPOLYLINE"])).height,
        "drawn_part": rest.filter(part).height,
    } == truth.ignored
    bare = rest.filter((pl.col("entity") == "INSERT") & ~part).with_columns(said=pl.coalesce("code", "block"))
    assert bare["said"].value_counts().sort("count", descending=True).rows() == truth.unmapped


def test_each_symbol_tells_its_classes_the_way_the_truth_says(city: tuple[Path, Truth], drawn: pl.DataFrame) -> None:
    known, names = cass(), set(classes("2007")["code"])
    rows = {row["key"]: row for row in drawn.iter_rows(named=True)}
    for handle, symbol in city[1].sheet.symbols.items():
        row = rows[handle]
        told = {
            "code": lambda row=row: known[row["code"]],
            "block": lambda row=row: (row["block"].removeprefix("gcbj"),),
            "layer": lambda row=row: tuple(code for code, layer in sheet.LAYERS.items() if layer == row["layer"]),
        }[symbol.by]()
        assert told == symbol.classes
        assert symbol.class_code in told
        assert (row["code"] is not None) == (symbol.by == "code")
        assert set(told) <= names
    assert {symbol.by for symbol in city[1].sheet.symbols.values()} == {"code", "block", "layer"}


def test_what_nothing_maps_has_no_class(city: tuple[Path, Truth]) -> None:
    assert all(not cass().get(said) for said, _ in city[1].sheet.unmapped)


def test_a_symbol_lies_where_its_register_has_the_thing(city: tuple[Path, Truth], drawn: pl.DataFrame) -> None:
    folder, truth = city
    places = drawn.select("key", pl.col("x", "y").cast(pl.Float64)).rows_by_key("key", unique=True)
    for name, encoding, crs, columns, error_m in (
        ("census", "gb18030", "EPSG:4549", registers.CENSUS, registers.CENSUS_ERROR_M),
        ("water", "utf-8-sig", "EPSG:4550", registers.WATER, registers.WATER_ERROR_M),
    ):
        text = (folder / f"{name}.csv").read_bytes().decode(encoding)
        told = pl.read_csv(text.encode(), infer_schema=False).rename(columns)
        bad = [row for rows in truth.registers[f"{name}.csv"].rejected.values() for row in rows]
        told = told.filter(~pl.int_range(pl.len()).is_in(bad))
        to_sheet = pyproj.Transformer.from_crs(crs, sheet.CRS, always_xy=True)
        axes = (told[axis].cast(pl.Float64).to_numpy() for axis in ("easting_m", "northing_m"))
        said = dict(zip(told["key"], zip(*to_sheet.transform(*axes), strict=True), strict=True))
        pairs = [(places[handle], said[getattr(symbol, name)]) for handle, symbol in truth.sheet.symbols.items()
                 if getattr(symbol, name)]  # fmt: skip
        ours, theirs = (np.array(side) for side in zip(*pairs, strict=True))
        assert len(pairs) > 500
        assert np.hypot(*(ours - theirs).T).max() < error_m + sheet.ERROR_M + 0.002
    assert truth.sheet.only_map
    assert {truth.sheet.symbols[handle].census for handle in truth.sheet.only_map} == {None}


def test_numbers_stand_beside_covers_and_in_hydrants(city: tuple[Path, Truth], drawn: pl.DataFrame) -> None:
    symbols = city[1].sheet.symbols
    hydrants = {handle: s.number for handle, s in symbols.items() if s.number and s.class_code == sheet.HYDRANT}
    tagged = drawn.filter(pl.col(f"@{sheet.TAG}").is_not_null())
    assert dict(tagged.select("key", f"@{sheet.TAG}").rows()) == hydrants
    beside = {s.number for s in symbols.values() if s.number and s.class_code != sheet.HYDRANT}
    assert beside <= set(drawn.filter(entity="TEXT")["text"])
    assert min(len(hydrants), len(beside)) > 40


def test_some_symbols_are_drawn_from_below_and_names_are_beyond_gbk(city: tuple[Path, Truth]) -> None:
    octets = (city[0] / "sheet.dxf").read_bytes()
    assert octets.count(b"\r\n230\r\n-1.0\r\n") == len(city[1].sheet.mirrored) == sheet.MIRRORED
    assert b"\\U+4DAE" in octets
    assert "\u6eaa\u8def".encode("gbk") in octets


def test_the_numbers_of_its_sheets_are_written_beside_them(city: tuple[Path, Truth], drawn: pl.DataFrame) -> None:
    written = drawn.filter(layer=sheet.FRAME)
    assert sorted(written["text"]) == sorted(city[1].sheet.numbers)
    assert len(city[1].sheet.numbers) > 20
    places = written.select("text", pl.col("x", "y").cast(pl.Float64))
    for number, x, y in places.rows():
        north, east = (float(axis) * 1000 for axis in number.split("-"))
        assert (x - east, y - north) == pytest.approx((sheet.SHEET_M / 2, sheet.SHEET_M + 6))


def test_another_seed_draws_another_map(city: tuple[Path, Truth], tmp_path: Path) -> None:
    other = generate(tmp_path, 1)
    assert (tmp_path / "sheet.dxf").read_bytes() != (city[0] / "sheet.dxf").read_bytes()
    assert other.sheet.unmapped == city[1].sheet.unmapped
