"""Five vector formats read alike; archives, encodings, reference systems and what reaches out are refused by name."""

import io
import random
import socket
import sqlite3
import stat
import struct
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyogrio
import pyproj
import pytest
import shapely

from connectors.formats import archive, vector, vector_process
from connectors.formats.catalogue import formats
from connectors.formats.records import CARRIED, CONTENT, CRS_OPTION, GUESSED, RECORD, RECORDS_PER_BATCH, SHEET
from security.errors import Misconfigured, Refusal, sentences
from security.message import file_content, in_memory

Data = Callable[[str], Path]
CRS = "EPSG:4549"
EAST, NORTH = 649_654.95, 3_307_153.91
FORMATS = ("Shapefile", "OpenFileGDB", "GPKG", "GML", "GeoJSON")
ENDINGS = {"Shapefile": "shp", "OpenFileGDB": "gdb", "GPKG": "gpkg", "GML": "gml", "GeoJSON": "geojson"}
OWN = [CONTENT, RECORD, SHEET, CARRIED, GUESSED]
PLACES = ["entity", "layer", "x", "y", "z", "x2", "y2", "z2", "closed", "vertices", "key"]


def read(octets: bytes, crs: str = CRS, **options: str) -> pl.DataFrame:
    return pl.concat(batch.frame for batch in vector.decode([in_memory(octets)], {CRS_OPTION: crs, **options}))


def refusal(octets: bytes, crs: str = CRS, **options: str) -> str:
    """Code and detail; a refusal has words for both languages."""
    with pytest.raises(Refusal) as refused:
        read(octets, crs, **options)
    sentence = sentences()[refused.value.code]
    assert all((sentence.zh, sentence.en, sentence.next_zh, sentence.next_en))
    return f"{refused.value.code} {refused.value.detail}".strip()


def outcome(octets: bytes, crs: str = CRS) -> str:
    """The code of a refusal; empty where records came."""
    try:
        read(octets, crs)
    except Refusal as refused:
        return refused.code
    return ""


def zipped(files: dict[str, bytes] | list[tuple[str | zipfile.ZipInfo, bytes]]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, octets in files.items() if isinstance(files, dict) else files:
            archive.writestr(name, octets, zipfile.ZIP_DEFLATED)
    return stream.getvalue()


def parts(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def made(
    folder: Path,
    kind: str,
    shapes: Any = None,
    columns: dict[str, Any] | None = None,
    *,
    crs: str | None = CRS,
    encoding: str | None = None,
    name: str = "covers",
    **options: str,
) -> bytes:
    """A file of the kind as a bureau would send it: GDAL writes it, what is several files is zipped."""
    folder.mkdir(exist_ok=True)
    shapes = [shapely.Point(EAST, NORTH)] if shapes is None else shapes
    columns = {"编号": ["甲1"]} if columns is None else columns
    path = folder / f"{name}.{ENDINGS[kind]}"
    pyogrio.raw.write(
        path,
        shapely.to_wkb(np.array(shapes, dtype=object)),
        [np.array(values, dtype=object) if isinstance(values, list) else values for values in columns.values()],
        list(columns),
        geometry_type=options.pop("geometry_type", shapes[0].geom_type if shapes else "Point"),
        crs=crs,
        driver="ESRI Shapefile" if kind == "Shapefile" else kind,
        encoding=encoding,
        **options,
    )
    return path.read_bytes() if path.is_file() and kind != "Shapefile" else zipped(parts(folder))


def test_the_catalogue_finds_the_format_and_not_its_parts() -> None:
    assert formats()["vector"].OPTIONS is vector.OPTIONS
    assert not {"archive", "vector_process"} & formats().keys()


def test_who_only_starts_the_command_line_loads_no_gdal() -> None:
    words = "import sys, exchange.cli.main; print([name for name in sys.modules if 'pyogrio' in name])"
    assert subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True).stdout == "[]\n"
    words = words.replace("exchange.cli.main", "connectors.formats.vector")
    assert subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True).stdout == "[]\n"


# Alike, whatever the format


@pytest.mark.parametrize("kind", FORMATS)
def test_points_lines_and_areas_have_the_columns_of_drawings(kind: str, tmp_path: Path) -> None:
    shapes = {
        "POINT": shapely.Point(EAST, NORTH),
        "LINESTRING": shapely.LineString([(EAST, NORTH), (EAST + 1, NORTH), (EAST + 2, NORTH + 3)]),
        "POLYGON": shapely.Polygon([(EAST, NORTH), (EAST, NORTH + 8), (EAST + 8, NORTH + 8), (EAST + 8, NORTH)]),
    }
    said = {}
    for entity, shape in shapes.items():
        frame = read(made(tmp_path / entity, kind, [shape]))
        assert frame.columns[: len(OWN)] == OWN
        assert [*frame.columns[len(OWN) : len(OWN) + len(PLACES)]] == PLACES
        said[entity] = frame.row(0, named=True)
        assert (said[entity]["entity"], said[entity]["@编号"]) == (entity, "甲1")
        assert abs(float(said[entity]["x"]) - EAST) < 0.001
        assert abs(float(said[entity]["y"]) - NORTH) < 0.001
        assert shapely.equals_exact(shapely.from_wkb(said[entity]["geometry"]).normalize(), shape.normalize(), 0.001)
    assert [said["POINT"][name] for name in ("x2", "closed", "vertices")] == [None] * 3
    assert [said["LINESTRING"][name] for name in ("closed", "vertices")] == ["0", "3"]
    assert abs(float(said["LINESTRING"]["y2"]) - NORTH - 3) < 0.001
    assert [said["POLYGON"][name] for name in ("closed", "vertices")] == ["1", "4"]
    assert said["POLYGON"]["x2"] != said["POLYGON"]["x"] or said["POLYGON"]["y2"] != said["POLYGON"]["y"]


def test_a_feature_of_several_parts_has_no_one_place_and_one_without_any_neither(tmp_path: Path) -> None:
    several = shapely.MultiPoint([(EAST, NORTH), (EAST + 5, NORTH)])
    frame = read(made(tmp_path, "GPKG", [several, shapely.MultiPoint([(EAST, NORTH)]), None], {"n": ["1", "2", "3"]}))
    assert frame["entity"].to_list() == ["MULTIPOINT", "POINT", None]
    assert [x is None for x in frame["x"]] == [True, False, True]


def test_heights_and_columns_called_as_ours_are_kept_apart(tmp_path: Path) -> None:
    frame = read(
        made(tmp_path, "GPKG", [shapely.Point(EAST, NORTH, 3.125)], {"x": ["y"], "key": ["k"]}, geometry_type="Point Z")
    )
    row = frame.row(0, named=True)
    assert (row["x"], row["z"], row["@x"], row["@key"], row["key"]) == (str(EAST), "3.125", "y", "k", "1")


def test_numbers_days_and_truths_are_text_to_the_last_digit(tmp_path: Path) -> None:
    columns = {
        "whole": np.array([2**60 + 1, 7]),
        "real": np.array([0.1, np.nan]),
        "round": np.array([2.0, 1e300]),
        "yes": np.array([True, False]),
        "day": np.array(["2012-05-01", "NaT"], dtype="datetime64[D]"),
    }
    path = tmp_path / "typed.gpkg"
    points = shapely.to_wkb(shapely.points([EAST] * 2, [NORTH] * 2))
    pyogrio.raw.write(
        path, points, list(columns.values()), list(columns), geometry_type="Point", crs=CRS, driver="GPKG"
    )
    frame = read(path.read_bytes()).select("@whole", "@real", "@round", "@yes", "@day")
    assert frame.rows() == [
        (str(2**60 + 1), "0.1", "2", "TRUE", "2012-05-01"),
        ("7", None, "1e+300", "FALSE", None),
    ]


def test_records_are_numbered_through_the_frames_of_a_content_and_anew_in_the_next(tmp_path: Path) -> None:
    many = RECORDS_PER_BATCH + 1
    octets = made(tmp_path, "GPKG", list(shapely.points([EAST] * many, [NORTH] * many)), {"n": np.arange(many)})
    batches = list(vector.decode([in_memory(octets)] * 2, {CRS_OPTION: CRS}))
    assert [batch.frame.height for batch in batches] == [RECORDS_PER_BATCH, 1] * 2
    frame = pl.concat(batch.frame for batch in batches)
    assert frame[RECORD].to_list() == [*range(many)] * 2
    assert frame[CONTENT].to_list() == [0] * many + [1] * many
    assert frame["@n"].to_list() == [str(n) for n in range(many)] * 2


def test_a_layer_without_features_gives_a_frame_without_records(tmp_path: Path) -> None:
    frame = read(made(tmp_path, "GPKG", [], {"编号": np.array([], dtype=object)}))
    assert frame.height == 0
    assert "@编号" in frame.columns


def siphons(shared_data: Data) -> pl.DataFrame:
    return read((shared_data("water_structures") / "inverted_siphons.geojson").read_bytes(), "EPSG:4490")


def test_the_real_siphons_read_alike_as_geojson_and_as_gbk_shapefile(shared_data: Data) -> None:
    folder = shared_data("water_structures")
    packed = zipped({path.name: path.read_bytes() for path in folder.glob("inverted_siphons_gbk.*")})
    theirs, ours = siphons(shared_data), read(packed, "EPSG:4544")
    assert ours.height == theirs.height == 172
    assert ours[GUESSED].null_count() == 172
    told = [name for name in theirs.columns if name.startswith("@")]
    assert len(told) == len([name for name in ours.columns if name.startswith("@")]) == 26
    for name, short in zip(told, ours.columns[-26:], strict=True):  # names are cut to ten octets, the order stays
        assert name.startswith(short) or short == "@倒虹吸所1"
        said = ours[short].str.replace(
            "^(....)/(..)/(..) 00:00:00$", "$1-$2-$3"
        )  # who made the Shapefile spelt days so
        assert said.to_list() == theirs[name].to_list(), name
    to_plane = pyproj.Transformer.from_crs("EPSG:4490", "EPSG:4544", always_xy=True).transform
    x, y = to_plane(theirs["x"].cast(pl.Float64).to_numpy(), theirs["y"].cast(pl.Float64).to_numpy())
    assert np.abs(x - ours["x"].cast(pl.Float64).to_numpy()).max() < 0.001
    assert np.abs(y - ours["y"].cast(pl.Float64).to_numpy()).max() < 0.001


@pytest.mark.parametrize("kind", FORMATS)
def test_the_siphons_read_alike_in_each_format(kind: str, shared_data: Data, tmp_path: Path) -> None:
    wanted = siphons(shared_data)
    names = [name for name in wanted.columns if name.startswith("@") and len(name.encode("gbk", "ignore")) <= 11]
    names = [name for name in names if "(" not in name]  # XML has no such names
    assert len(names) >= 10
    points = shapely.points(wanted["x"].cast(pl.Float64).to_numpy(), wanted["y"].cast(pl.Float64).to_numpy())
    columns = {name.removeprefix("@"): wanted[name].to_list() for name in names}
    encoding = "GBK" if kind == "Shapefile" else None
    octets = made(tmp_path, kind, list(points), columns, crs="EPSG:4490", encoding=encoding)
    got = read(octets, "EPSG:4490")
    for name in names:
        assert got[name].to_list() == wanted[name].to_list(), name
    for axis in ("x", "y"):
        assert (got[axis].cast(pl.Float64) - wanted[axis].cast(pl.Float64)).abs().max() < 1e-8  # of a degree


# Layers


def two_layers(folder: Path) -> bytes:
    made(folder, "GPKG", name="roads")
    path = folder / "roads.gpkg"
    pyogrio.raw.write(
        path,
        shapely.to_wkb(np.array([shapely.Point(EAST, NORTH)])),
        [np.array(["乙"], dtype=object)],
        ["编号"],
        layer="水系",
        geometry_type="Point",
        crs=CRS,
        driver="GPKG",
        append=True,
    )
    return path.read_bytes()


def test_of_several_layers_the_feed_names_one(tmp_path: Path) -> None:
    octets = two_layers(tmp_path)
    assert refusal(octets) == "decode.layer_unclear roads, 水系"
    assert refusal(octets, layer="buildings") == "decode.layer_missing buildings: roads, 水系"
    frame = read(octets, layer="水系")
    assert (frame["@编号"][0], frame["layer"][0], frame[SHEET][0]) == ("乙", "水系", "水系")


def test_each_shapefile_of_a_sheet_s_archive_is_a_layer_in_whatever_folder(tmp_path: Path) -> None:
    made(tmp_path / "a", "Shapefile", name="道路")
    made(tmp_path / "b", "Shapefile", name="水系")
    files = {f"图幅/{name}": octets for folder in ("a", "b") for name, octets in parts(tmp_path / folder).items()}
    octets = zipped({**files, "readme.txt": "说明".encode("gbk")})
    assert refusal(octets) == "decode.layer_unclear 水系, 道路"
    assert read(octets, layer="道路")["layer"][0] == "道路"


def test_a_geodatabase_packed_without_its_folder_is_read(tmp_path: Path) -> None:
    made(tmp_path, "OpenFileGDB")
    assert read(zipped(parts(tmp_path / "covers.gdb")))["@编号"][0] == "甲1"


# Reference systems


@pytest.mark.parametrize("kind", ["Shapefile", "OpenFileGDB", "GPKG", "GML", "GeoJSON"])
@pytest.mark.parametrize("crs", ["EPSG:4549", "EPSG:4550", "EPSG:4528"])
def test_the_file_s_system_is_the_feed_s_or_the_delivery_is_refused(kind: str, crs: str, tmp_path: Path) -> None:
    octets = made(tmp_path, kind, crs=crs, **({"RFC7946": "NO"} if kind == "GeoJSON" else {}))
    assert abs(float(read(octets, crs)["x"][0]) - EAST) < 0.001  # a geodatabase counts in tenths of a millimetre
    for other in {"EPSG:4549", "EPSG:4550", "EPSG:4528", "EPSG:2385"} - {crs}:
        assert refusal(octets, other) == f"decode.crs_differs {crs}, {other}"


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_a_file_that_names_no_system_is_in_the_feed_s(tmp_path: Path) -> None:
    assert read(made(tmp_path, "GPKG", crs=None))["x"][0] == str(EAST)
    packed = made(tmp_path / "shp", "Shapefile")
    without = {name: octets for name, octets in parts(tmp_path / "shp").items() if not name.endswith(".prj")}
    assert read(packed).rows() == read(zipped(without)).rows()


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_a_feed_in_a_local_system_takes_a_file_that_names_none_or_an_engineering_one(tmp_path: Path) -> None:
    engineering = 'LOCAL_CS["宁波",UNIT["metre",1]]'
    for number, crs in enumerate((None, engineering)):
        assert read(made(tmp_path / f"{number}", "GPKG", crs=crs), "local:ningbo")["x"][0] == str(EAST)
    assert refusal(made(tmp_path / "p", "GPKG"), "local:ningbo") == f"decode.crs_differs {CRS}, local:ningbo"
    degrees = made(tmp_path / "d", "GeoJSON", [shapely.Point(121.5, 29.8)], crs="EPSG:4326")
    assert refusal(degrees, "local:ningbo") == "decode.crs_differs EPSG:4326, local:ningbo"


@pytest.mark.parametrize("crs", ["GCJ-02", "BD-09"])
def test_deflected_degrees_come_in_files_that_say_degrees_of_any_kind(tmp_path: Path, crs: str) -> None:
    for number, said in enumerate(("EPSG:4326", "EPSG:4490")):
        octets = made(tmp_path / f"{number}", "Shapefile", [shapely.Point(121.5, 29.8)], crs=said)
        assert read(octets, crs)["x"][0] == "121.5"
    assert refusal(made(tmp_path / "p", "Shapefile"), crs) == f"decode.crs_differs {CRS}, {crs}"


def test_a_local_system_that_nobody_knows_is_refused_without_its_parameters(tmp_path: Path) -> None:
    made(tmp_path, "Shapefile")
    local = pyproj.CRS.from_proj4("+proj=tmerc +lat_0=0 +lon_0=121.5 +k=1 +x_0=123456 +y_0=-3000000 +ellps=GRS80")
    (tmp_path / "covers.prj").write_text(local.to_wkt("WKT1_ESRI"))
    assert refusal(zipped(parts(tmp_path))) == f"decode.crs_differs WKT, {CRS}"


def test_the_definition_decides_and_neither_number_nor_name(tmp_path: Path) -> None:
    made(tmp_path, "Shapefile")
    numbered, named = (pyproj.CRS.from_epsg(4549).to_wkt(form) for form in ("WKT1_GDAL", "WKT1_ESRI"))
    assert 'AUTHORITY["EPSG","4549"]' in numbered
    assert "EPSG" not in named
    ours = named.replace("CGCS2000_3_Degree_GK_CM_120E", "宁波市独立坐标系")
    elsewhere = ours.replace("120.0", "121.5")
    assert len({named, ours, elsewhere}) == 3
    lie = numbered.replace('"central_meridian",120', '"central_meridian",121.5')
    differs = "decode.crs_differs"
    said = {numbered: "", named: "", ours: "", lie: differs, elsewhere: differs, "LOCAL_CS['x']": differs}
    for wkt, code in said.items():
        for encoding in ("utf-8", "gbk"):
            (tmp_path / "covers.prj").write_bytes(wkt.encode(encoding))
            assert outcome(zipped(parts(tmp_path))) == code, wkt
    (tmp_path / "covers.prj").write_bytes(b"\xff" + named.encode())
    assert refusal(zipped(parts(tmp_path))) == "decode.encoding_unknown .prj"


@pytest.mark.filterwarnings("ignore:You will likely lose")
@pytest.mark.parametrize("spelling", ["number", "WKT1_ESRI", "WKT1_GDAL", "WKT2_2019"])
@pytest.mark.parametrize("number", [4549, 4550, 4528, 4529, 4490, 2385, 2364, 4610, 2437, 2416, 4214])
def test_a_system_is_known_in_each_spelling_and_never_taken_for_its_neighbour(number: int, spelling: str) -> None:
    system = pyproj.CRS.from_epsg(number)
    spelt = system if spelling == "number" else pyproj.CRS.from_wkt(system.to_wkt(spelling))
    vector_process._agree("", spelt.to_json(), f"EPSG:{number}", geojson=False)
    for other in {4549, 4550, 4528, 4490, 4326, 4610, 4214, 2385, 2437} - {number}:
        with pytest.raises(vector_process.Refused):
            vector_process._agree("", spelt.to_json(), f"EPSG:{other}", geojson=False)


def geojson(x: float, y: float, more: str = "") -> bytes:
    point = f'{{"type":"Feature","properties":{{"n":1}},"geometry":{{"type":"Point","coordinates":[{x},{y}]}}}}'
    return f'{{"type":"FeatureCollection",{more}"features":[{point}]}}'.encode()


def test_geojson_is_in_degrees_whatever_its_writer_could_not_say() -> None:
    assert read(geojson(121.549, 29.874), "EPSG:4490")["x"][0] == "121.549"
    assert refusal(geojson(EAST, NORTH)) == f"decode.crs_differs EPSG:4326, {CRS}"


def gml(position: str, system: str = "urn:ogc:def:crs:EPSG::4549", more: str = "", head: str = "") -> bytes:
    name = f' srsName="{system}"' if system else ""
    return f"""{head or '<?xml version="1.0" encoding="UTF-8"?>'}
<ogr:FeatureCollection xmlns:ogr="http://ogr.maptools.org/" xmlns:gml="http://www.opengis.net/gml/3.2"
  xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:xlink="http://www.w3.org/1999/xlink" {more}>
<ogr:featureMember><ogr:cover gml:id="c.1"><ogr:geometryProperty>
<gml:Point gml:id="g.1"{name}><gml:pos>{position}</gml:pos></gml:Point></ogr:geometryProperty>
<ogr:编号>甲1</ogr:编号></ogr:cover></ogr:featureMember></ogr:FeatureCollection>""".encode()


@pytest.mark.parametrize(
    "position, system, crs",
    [
        (f"{NORTH} {EAST}", "urn:ogc:def:crs:EPSG::4549", CRS),
        (f"{EAST} {NORTH}", "EPSG:4549", CRS),
        (f"{NORTH} {EAST}", "http://www.opengis.net/def/crs/EPSG/0/4549", CRS),
        (f"{EAST} {NORTH}", "http://www.opengis.net/gml/srs/epsg.xml#4549", CRS),
        ("29.874 121.549", "urn:ogc:def:crs:EPSG::4490", "EPSG:4490"),
    ],
)
def test_north_and_east_of_gml_come_in_the_order_of_its_system_s_name(position: str, system: str, crs: str) -> None:
    frame = read(gml(position, system), crs)
    wanted = ("121.549", "29.874") if crs == "EPSG:4490" else (str(EAST), str(NORTH))
    assert (frame["x"][0], frame["y"][0]) == wanted


def test_gml_with_two_systems_or_two_spellings_of_one_is_refused() -> None:
    twice = gml(f"{NORTH} {EAST}").replace(
        b"<gml:Point", b'<gml:Point srsName="EPSG:4550" gml:id="z"><gml:pos>1 2</gml:pos></gml:Point><gml:Point', 1
    )
    assert refusal(twice) == "decode.crs_differs 2 in one file"


# Encodings


def dbf(texts: list[bytes], mark: int = 0, name: bytes = b"NAME") -> bytes:
    """A table of one column of 40 octets."""
    head = struct.pack("<BBBBIHH17xBxx", 3, 126, 1, 1, len(texts), 65, 41, mark)
    column = name.ljust(11, b"\0") + b"C" + bytes(4) + bytes((40, 0)) + bytes(14)
    return head + column + b"\r" + b"".join(b" " + text.ljust(40) for text in texts) + b"\x1a"


def shapefile(folder: Path, table: bytes, page: bytes | None = None) -> bytes:
    """Points with that table; as many as it has rows."""
    many = struct.unpack("<I", table[4:8])[0]
    made(folder, "Shapefile", list(shapely.points([EAST] * many, [NORTH] * many)), {"n": np.arange(many)})
    files = {name: octets for name, octets in parts(folder).items() if not name.endswith((".cpg", ".dbf"))}
    return zipped({**files, "covers.dbf": table} | ({} if page is None else {"covers.cpg": page}))


TEXT = "望江路雨水井䶮"


@pytest.mark.parametrize(
    "spelt, mark, page, guessed",
    [
        ("gb18030", 0, b"GBK", None),
        ("gb18030", 0x57, b"936\r\n", None),
        ("utf-8", 0x4D, b"UTF-8", None),  # what .cpg says comes before the mark
        ("gb18030", 0x4D, None, None),
        ("gb18030", 0, None, "gb18030"),
        ("gb18030", 0x57, None, "gb18030"),
        ("utf-8", 0, None, "utf-8"),
    ],
)
def test_text_of_a_shapefile_is_as_cpg_says_else_the_mark_else_proved_by_round_trip(
    spelt: str, mark: int, page: bytes | None, guessed: str | None, tmp_path: Path
) -> None:
    table = dbf([TEXT.encode(spelt), b""], mark, "道路名".encode(spelt))
    frame = read(shapefile(tmp_path, table, page))
    assert frame["@道路名"].to_list() == [TEXT, None]
    assert frame[GUESSED].to_list() == [guessed] * 2


def test_plain_letters_need_no_encoding_and_none_is_guessed(tmp_path: Path) -> None:
    frame = read(shapefile(tmp_path, dbf([b"A1"], 0x03)))
    assert (frame["@NAME"][0], frame[GUESSED][0]) == ("A1", None)


def test_two_columns_of_one_name_stand_for_neither(tmp_path: Path) -> None:
    made(tmp_path, "Shapefile", columns={"aa": ["1"], "ab": ["2"]})
    table = (tmp_path / "covers.dbf").read_bytes()
    (tmp_path / "covers.dbf").write_bytes(table.replace(b"ab\0", b"aa\0", 1))
    assert refusal(zipped(parts(tmp_path))) == "decode.header_doubled"


@pytest.mark.parametrize(
    "text, mark, page, option, code",
    [
        (TEXT.encode("gb18030"), 0, b"UTF-8", "", "decode.encoding_wrong .cpg utf-8"),
        (TEXT.encode("gb18030"), 0, None, "utf-8", "decode.encoding_wrong utf-8"),
        (b"\xff\xfe\x80\xff", 0, None, "", "decode.encoding_unknown"),
        (b"\xff\xfe\x80\xff", 0x4D, None, "", "decode.encoding_wrong LDID 0x4D"),
        ("街\u200b".encode("gb18030") + b"\xa6\xd9\xaa\xa1", 0, None, "", "decode.encoding_unknown"),  # private use
        (TEXT.encode("gb18030"), 0x03, None, "", "decode.encoding_unknown LDID 0x03"),
        (TEXT.encode("gb18030"), 0, b"KLINGON", "", "decode.encoding_unknown .cpg KLINGON"),
        ("锟斤拷".encode("gb18030"), 0, b"GBK", "", "decode.text_garbled"),
        ("路\ufffd".encode(), 0, b"UTF-8", "", "decode.text_garbled"),
        (b"A", 0, None, "klingon", "decode.encoding_unknown klingon"),
    ],
)
def test_text_that_fits_no_encoding_is_refused_and_never_stored_garbled(
    text: bytes, mark: int, page: bytes | None, option: str, code: str, tmp_path: Path
) -> None:
    assert refusal(shapefile(tmp_path, dbf([b"A1", text], mark), page), encoding=option) == code


def test_a_column_s_name_that_was_cut_within_a_character_loses_only_that(tmp_path: Path) -> None:
    name = "所在道路(段落)".encode("gbk")[:10]
    assert read(shapefile(tmp_path, dbf(["路".encode("gbk")], 0, name), b"GBK"))["@所在道路("][0] == "路"
    with pytest.raises(UnicodeDecodeError):
        name.decode("gbk")


def test_gml_that_says_gbk_is_read_and_text_that_is_not_utf_8_is_refused() -> None:
    said = '<?xml version="1.0" encoding="GBK"?>'
    octets = gml(f"{NORTH} {EAST}", head=said).decode().encode("gbk")
    assert read(octets)["@编号"][0] == "甲1"
    assert refusal(gml(f"{NORTH} {EAST}").decode().encode("gbk")) == "decode.not_readable ExpatError"
    spoilt = geojson(121.5, 29.8).replace(b'"n":1', '"n":"井"'.encode("gbk"))
    assert refusal(spoilt, "EPSG:4490").startswith("decode.encoding_wrong utf-8")


def test_a_geopackage_s_text_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    octets = made(tmp_path, "GPKG", columns={"编号": ["marker-text"]})
    assert octets.count(b"marker-text") == 1
    assert refusal(octets.replace(b"marker-text", "井盖井盖abc".encode("gbk"))).startswith("decode.encoding_wrong")


# Archives


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("good")
    made(folder, "Shapefile", encoding="GBK")
    return parts(folder)


def link(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.create_system, member.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return member


ARCHIVES: dict[str, tuple[list[tuple[str | zipfile.ZipInfo, bytes]], str]] = {
    "dotdot": ([("../evil.shp", b"x")], "decode.archive_name"),
    "dotdot_within": ([("a/../../evil.shp", b"x")], "decode.archive_name"),
    "absolute": ([("/tmp/evil.shp", b"x")], "decode.archive_name"),
    "backslash": ([("..\\evil.shp", b"x")], "decode.archive_name"),
    "drive": ([("C:evil.shp", b"x")], "decode.archive_name"),
    "control_character": ([("evil\n.shp", b"x")], "decode.archive_name"),
    "too_long": ([("e" * 201 + ".shp", b"x")], "decode.archive_name"),
    "too_deep": ([("e/" * 16 + "evil.shp", b"x")], "decode.archive_name"),
    "symlink": ([(link("evil.prj"), b"/etc/passwd")], "decode.archive_link"),
    "doubled": ([("covers.shp", b"x")], "decode.archive_doubled"),
    "doubled_but_for_case": ([("Covers.SHP", b"x")], "decode.archive_doubled"),
    "zip_in_zip": ([("inner.zip", zipped({"a.shp": b"x"}))], "decode.archive_nested"),
    "zip_in_zip_by_another_name": ([("inner.txt", zipped({"a.shp": b"x"}))], "decode.archive_nested"),
    "gzip_in_zip": ([("inner.gml", b"\x1f\x8b\x08\0")], "decode.archive_nested"),
    "bomb_of_1000_to_1": ([("zeros.shp", bytes(32 << 20))], "decode.archive_ratio"),
    "bomb_that_is_not_read": ([("zeros.txt", bytes(32 << 20))], "decode.archive_ratio"),
    "many_members": ([(f"{number}.txt", b"") for number in range(2_000)], "decode.archive_too_many"),
}


@pytest.mark.parametrize("attack", ARCHIVES)
def test_each_archive_attack_is_refused_by_name(attack: str, good: dict[str, bytes], tmp_path: Path) -> None:
    assert read(zipped(good)).height == 1
    members, code = ARCHIVES[attack]
    with pytest.warns(UserWarning, match="Duplicate name") if attack == "doubled" else nullcontext():
        octets = zipped([*good.items(), *members])
    assert refusal(octets).partition(" ")[0] == code
    folder = tmp_path / "unpacked"
    folder.mkdir()
    with pytest.raises(Refusal):
        archive.unpack(in_memory(octets), folder, vector.KEPT)
    assert not [path for path in tmp_path.rglob("*") if "evil" in path.name]


def test_an_archive_under_a_password_or_packed_otherwise_is_refused(good: dict[str, bytes]) -> None:
    octets = bytearray(zipped(good))
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = 0
        while (start := octets.find(mark, start)) >= 0:
            octets[start + at] |= 1
            start += 4
    assert refusal(bytes(octets)) == "decode.archive_locked member 1"
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.shp", b"x" * 100)
    assert refusal(stream.getvalue()) == "decode.archive_locked member 1"


def test_what_a_member_says_of_its_size_is_not_believed(
    good: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "UNPACKED_BYTES", 1_000)
    assert refusal(zipped({**good, "more.shp": random.Random(7).randbytes(1_000)})).startswith("decode.too_large")


@pytest.mark.parametrize("spelt", ["utf-8", "gb18030"])
def test_names_in_an_archive_are_utf_8_or_gbk(spelt: str, good: dict[str, bytes]) -> None:
    octets = zipped({name.replace("covers", "XXXXXXXX"): octets for name, octets in good.items()})
    name = "井盖2".encode(spelt)[:8].ljust(8, b"_")
    octets = octets.replace(b"XXXXXXXX", name)
    assert read(octets)["layer"][0] == name.decode(spelt)


def test_a_name_in_no_encoding_is_refused(good: dict[str, bytes]) -> None:
    octets = zipped({**good, "XXXXXXXX.txt": b""}).replace(b"XXXXXXXX", b"\xff" * 8)
    assert refusal(octets).startswith("decode.encoding_unknown")


def test_an_archive_is_read_where_it_lies_in_a_longer_file(good: dict[str, bytes], tmp_path: Path) -> None:
    octets = zipped(good)
    (tmp_path / "longer").write_bytes(b"before" + octets + b"PK behind")
    content = file_content(tmp_path / "longer").part(6, len(octets))
    frames = [batch.frame for batch in vector.decode([content], {CRS_OPTION: CRS})]
    assert frames[0].rows() == read(octets).rows()


# What reaches out


class Listener:
    """A server that answers nothing and counts who comes."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.came = 0
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self) -> None:
        while True:
            try:
                there, _ = self.socket.accept()
            except OSError:
                return
            self.came += 1
            there.sendall(b"HTTP/1.0 404 no\r\nContent-Length: 0\r\n\r\n")
            there.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.socket.close()


def with_virtual_table(folder: Path, url: str) -> bytes:
    octets = made(folder, "GPKG")
    path = folder / "covers.gpkg"
    with sqlite3.connect(path) as writer:
        writer.execute("PRAGMA writable_schema = ON")
        sql = f"CREATE VIRTUAL TABLE far USING VirtualOGR('/vsicurl/{url}/far.geojson')"
        writer.execute("INSERT INTO sqlite_master VALUES ('table', 'far', 'far', 0, ?)", (sql,))
    writer.close()
    assert path.read_bytes() != octets
    return path.read_bytes()


REACHING: dict[str, tuple[Callable[[Path, str], bytes], str]] = {
    "schema_of_gml": (
        lambda _, url: gml(f"{NORTH} {EAST}", more=f'xsi:schemaLocation="http://ogr.maptools.org/ {url}/x.xsd"'),
        "",
    ),
    "xlink_of_gml": (
        lambda _, url: gml(f"{NORTH} {EAST}").replace(
            b"<ogr:featureMember>", f'<ogr:featureMember xlink:href="{url}/more.gml#c.2"/><ogr:featureMember>'.encode()
        ),
        "",
    ),
    "system_of_gml": (lambda _, url: gml(f"{NORTH} {EAST}", f"{url}/4549.xml"), ""),
    "entity_of_gml": (
        lambda _, url: gml(
            f"{NORTH} {EAST}", head=f'<?xml version="1.0"?><!DOCTYPE r [<!ENTITY e SYSTEM "{url}/e">]>'
        ).replace("甲1".encode(), b"&e;"),
        "decode.doctype",
    ),
    "laughs_of_gml": (
        lambda _, url: gml("1 2", head='<?xml version="1.0"?><!DOCTYPE r [<!ENTITY a "aaaa">]>'),
        "decode.doctype",
    ),
    "system_of_geojson": (
        lambda _, url: geojson(
            EAST, NORTH, f'"crs":{{"type":"link","properties":{{"href":"{url}/4549.wkt","type":"esriwkt"}}}},'
        ),
        "",
    ),
    "url_of_geojson": (
        lambda _, url: geojson(EAST, NORTH, f'"crs":{{"type":"URL","properties":{{"url":"{url}/4549.wkt"}}}},'),
        "",
    ),
    "virtual_table_of_geopackage": (with_virtual_table, "decode.own_queries virtual table"),
    "vrt_as_gml": (
        lambda _, url: (
            f'<OGRVRTDataSource><OGRVRTLayer name="c"><SrcDataSource>/vsicurl/{url}/c.geojson</SrcDataSource>'
            "</OGRVRTLayer></OGRVRTDataSource>"
        ).encode(),
        "decode.not_readable DataSourceError",
    ),
}


@pytest.mark.parametrize("attack", REACHING)
def test_what_reaches_for_the_network_reaches_nobody(attack: str, listener: Listener, tmp_path: Path) -> None:
    make, code = REACHING[attack]
    octets = make(tmp_path, listener.url)
    if code:
        assert refusal(octets) == code
    else:
        assert outcome(octets) in ("", "decode.not_readable", "decode.crs_differs")
    assert listener.came == 0


@pytest.mark.parametrize("attack", ["system_of_geojson", "url_of_geojson", "vrt_as_gml"])
def test_gdal_left_to_itself_would_reach_it(attack: str, listener: Listener, tmp_path: Path) -> None:
    path = tmp_path / f"sent.{'geojson' if 'geojson' in attack else 'gml'}"
    path.write_bytes(REACHING[attack][0](tmp_path, listener.url))
    words = "import pyogrio, sys; pyogrio.read_info(sys.argv[1])"
    subprocess.run([sys.executable, "-c", words, str(path)], capture_output=True, check=False)
    assert listener.came > 0


def test_the_reader_s_process_has_no_socket_and_starts_no_program() -> None:
    words = """
import importlib.util, socket, subprocess, sys
spec = importlib.util.spec_from_file_location("p", sys.argv[1]); module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
socket.socket().close()
assert module._deny_network()
for reach in (socket.socket, lambda: socket.socket(socket.AF_UNIX), lambda: subprocess.run(["/bin/true"])):
    try:
        reach()
    except PermissionError:
        print("denied")
"""
    line = [sys.executable, "-c", words, vector_process.__file__]
    assert subprocess.run(line, capture_output=True, text=True, check=True).stdout == "denied\n" * 3


def test_a_view_of_a_geopackage_is_not_run(tmp_path: Path) -> None:
    made(tmp_path, "GPKG")
    with sqlite3.connect(tmp_path / "covers.gpkg") as writer:
        writer.execute("CREATE VIEW far AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT i FROM n")
    writer.close()
    assert refusal((tmp_path / "covers.gpkg").read_bytes()) == "decode.own_queries view"


def test_five_drivers_and_no_other_read_what_is_sent(tmp_path: Path) -> None:
    made(tmp_path, "Shapefile")
    pyogrio.raw.write(
        tmp_path / "covers.fgb",
        shapely.to_wkb(np.array([shapely.Point(1, 2)])),
        [],
        [],
        geometry_type="Point",
        crs=CRS,
        driver="FlatGeobuf",
    )
    other = (tmp_path / "covers.fgb").read_bytes()
    assert refusal(other) == "decode.not_readable no ZIP, GeoPackage, GML or GeoJSON"
    assert refusal(zipped({"covers.fgb": other})) == "decode.layer_missing"
    assert refusal(zipped({"covers.gml": other})).startswith("decode.not_readable")
    assert refusal(zipped({"covers.gpkg": other})).startswith("decode.not_readable")


# What is damaged


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_cut_short_anywhere_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    octets = made(tmp_path, kind, encoding="GBK" if kind == "Shapefile" else None)
    for eighth in range(8):
        said = refusal(octets[: len(octets) * eighth // 8])
        assert said.startswith("decode."), eighth


def test_a_part_of_a_shapefile_cut_short_is_refused_or_said(good: dict[str, bytes]) -> None:
    for name in ("covers.shp", "covers.shx", "covers.dbf"):
        for keep in (0, 20, len(good[name]) // 2, len(good[name]) - 3):
            said = outcome(zipped({**good, name: good[name][:keep]}))
            assert said in ("", "decode.not_readable", "decode.encoding_wrong"), (name, keep)


@pytest.mark.parametrize("kind", FORMATS)
def test_random_octets_in_a_good_file_crash_nothing(kind: str, tmp_path: Path) -> None:
    chance = random.Random(kind)
    made(tmp_path, kind, encoding="GBK" if kind == "Shapefile" else None)
    files = parts(tmp_path)
    for _ in range(4):
        spoilt = {name: bytearray(octets) for name, octets in files.items()}
        for octets in spoilt.values():
            for _ in range(max(1, len(octets) // 200)):
                octets[chance.randrange(len(octets))] = chance.randrange(256)
        whole = {name: bytes(octets) for name, octets in spoilt.items()}
        sent = zipped(whole) if kind in ("Shapefile", "OpenFileGDB") else next(iter(whole.values()))
        said = outcome(sent)
        assert said == "" or said.startswith("decode."), said


@pytest.mark.parametrize("octets", [b"", b"PK", b"<", b"{", b"SQLite format 3\0", b"<a/>", b"{}", b"[]", zipped({})])
def test_what_only_begins_like_a_vector_file_is_refused(octets: bytes) -> None:
    assert refusal(octets).partition(" ")[0] in ("decode.not_readable", "decode.layer_missing")


def test_more_records_or_longer_cells_than_the_limits_are_refused() -> None:
    long = geojson(121.5, 29.8).replace(b'"n":1', b'"n":"' + b"x" * (vector_process.CELL_CHARACTERS + 1) + b'"')
    assert refusal(long, "EPSG:4490").startswith("decode.too_large a cell")
    wide = ",".join(f'"n{number}":1' for number in range(vector_process.COLUMNS + 1)).encode()
    assert refusal(geojson(121.5, 29.8).replace(b'"n":1', wide), "EPSG:4490") == "decode.too_large 501 columns"


def test_places_that_are_no_numbers_are_none_and_far_ones_stay_far(tmp_path: Path) -> None:
    shapes = [shapely.Point(float("nan"), NORTH), shapely.Point(1e300, NORTH), shapely.Point(float("inf"), NORTH)]
    frame = read(made(tmp_path, "GPKG", shapes, {"n": ["1", "2", "3"]}))
    assert frame["x"].to_list() == [None, "1e+300", "inf"]


CURVE = """<gml:Curve srsName="EPSG:4549" gml:id="g"><gml:segments><gml:ArcString><gml:posList>
649654 3307153 649655 3307154 649656 3307153</gml:posList></gml:ArcString></gml:segments></gml:Curve>"""


def test_a_curve_and_a_mixture_have_no_place_here_and_are_said_to_be_other() -> None:
    whole = gml("1 2").decode()
    point = whole[whole.index("<gml:Point") : whole.index("</gml:Point>") + len("</gml:Point>")]
    line = "<gml:LineString><gml:posList>1 2 3 4</gml:posList></gml:LineString>"
    inner = point.replace(' srsName="urn:ogc:def:crs:EPSG::4549"', "")
    members = "".join(f"<gml:geometryMember>{one}</gml:geometryMember>" for one in (inner, line))
    for other in (CURVE, f'<gml:MultiGeometry srsName="EPSG:4549" gml:id="m">{members}</gml:MultiGeometry>'):
        row = read(whole.replace(point, other).encode()).row(0, named=True)
        assert (row["entity"], row["x"], row["@编号"]) == ("OTHER", None, "甲1")


@pytest.mark.parametrize(
    "script, code",
    [
        ("import os; os.abort()", "decode.too_large"),
        ("raise SystemError", "decode.not_readable"),
        ("import time; time.sleep(60)", "decode.too_large"),
    ],
)
def test_a_reader_that_dies_or_hangs_is_a_refusal(
    script: str, code: str, good: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reader.py").write_text(script)
    monkeypatch.setattr(vector_process, "__file__", str(tmp_path / "reader.py"))
    monkeypatch.setattr(vector, "WAIT_S", 1.0)
    assert refusal(zipped(good)).partition(" ")[0] == code


def test_where_the_network_cannot_be_denied_nothing_is_read_and_the_operator_is_told(
    good: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Path(vector_process.__file__).read_text(encoding="utf-8")
    (tmp_path / "reader.py").write_text(source.replace('"x86_64"', '"z80"').replace('"aarch64"', '"mos6502"'))
    monkeypatch.setattr(vector_process, "__file__", str(tmp_path / "reader.py"))
    with pytest.raises(Misconfigured, match="network"):
        read(zipped(good))


def test_what_needs_more_memory_than_there_is_ends_the_reader_alone(
    good: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Path(vector_process.__file__).read_text(encoding="utf-8")
    hungry = source.replace("result = read(Path(), task)", f"result = bytearray({vector.MEMORY_BYTES})")
    assert hungry != source
    (tmp_path / "reader.py").write_text(hungry)
    monkeypatch.setattr(vector_process, "__file__", str(tmp_path / "reader.py"))
    assert refusal(zipped(good)) == "decode.too_large memory"


def test_two_contents_of_one_batch_stand_side_by_side(good: dict[str, bytes]) -> None:
    frames = [batch.frame for batch in vector.decode([in_memory(zipped(good))] * 2, {CRS_OPTION: CRS})]
    assert [frame[CONTENT][0] for frame in frames] == [0, 1]


def test_a_broken_file_between_two_good_ones_refuses_and_leaves_no_folder(
    good: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    contents = [in_memory(octets) for octets in (zipped(good), b"PK\x03\x04", zipped(good))]
    with pytest.raises(Refusal):
        list(vector.decode(contents, {CRS_OPTION: CRS}))
    assert list(tmp_path.iterdir()) == []
