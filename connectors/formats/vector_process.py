"""Reads one layer of a folder's vector files, in a process of its own, into frames of text.

GDAL reads what outsiders made, and its formats reach far: to other files, to databases, to servers. Here it has the
memory that it is given, five drivers and no network: the kernel denies this process every socket and every program.
Run by path, by `connectors.formats.vector`, in the folder; imports nothing of this project.
Argument: most bytes of memory. Takes a Task on stdin, gives a Read on stdout and `N.arrow` for each 50,000 records.
"""

import ctypes
import json
import platform
import re
import resource
import sqlite3
import sys
import unicodedata
import xml.parsers.expat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

DRIVERS: Final = {
    ".shp": "ESRI Shapefile",
    ".gdb": "OpenFileGDB",
    ".gpkg": "GPKG",
    ".gml": "GML",
    ".geojson": "GeoJSON",
}
SETTINGS: Final = {  # GDAL's own ways to what is not in the file; the kernel denies the network besides
    "CPL_VSIL_CURL_ALLOWED_FILENAME": "none",
    "GML_DOWNLOAD_SCHEMA": "NO",
    "GML_SKIP_RESOLVE_ELEMS": "ALL",
    "OGR_GEOJSON_MAX_OBJ_SIZE": "64",  # MB of one feature
    "PROJ_NETWORK": "OFF",
}
RECORDS: Final = 2_000_000
COLUMNS: Final = 500
CELL_CHARACTERS: Final = 32_767
RECORDS_PER_BATCH: Final = 50_000
NAME_OCTETS: Final = 10  # of a column of a DBF; longer names are cut, if need be within a character
GB: Final = "gb18030"  # GBK and GB2312 are parts of it
PAGES: Final = {  # what a .cpg file says
    **dict.fromkeys(("UTF8", "65001", "CP65001"), "utf-8"),
    **dict.fromkeys(("GBK", "936", "CP936", "ANSI936", "OEM936", "GB2312", "EUCCN", "GB18030", "54936"), GB),
}
LANGUAGES: Final = {0x00: ("utf-8", GB), 0x57: ("utf-8", GB), 0x4D: (GB,), 0x7A: (GB,)}  # 0, 0x57: nothing is said
GARBLED: Final = ("\ufffd", "锟斤拷")  # what a program puts for text that it could not read, and that read as GBK
KINDS: Final = ("POINT", "LINESTRING", "LINESTRING", "POLYGON", "MULTIPOINT", "MULTILINESTRING", "MULTIPOLYGON")
_GB_DECLARED: Final = re.compile(rb"""^(<\?xml[^>]*?encoding\s*=\s*["'])(gbk|gb2312|gb18030)(["'])""", re.IGNORECASE)
_SPELLING: Final = re.compile(r"[\s_-]")
# Numbers of socket, execve, execveat, io_uring_setup; and the kernel's names of the machines.
_DENIED: Final = {"x86_64": (41, 59, 322, 425), "aarch64": (198, 221, 281, 425)}
_ARCHITECTURES: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


class Task(msgspec.Struct, frozen=True):
    """layer, encoding: as the feed's options say, "" where they do not; crs: as the feed declares it, "" for none."""

    layer: str = ""
    encoding: str = ""
    crs: str = ""


class Read(msgspec.Struct, frozen=True):
    """What came of it: how many frames, of which layer, the encoding if it was guessed; or a refusal.

    unfit: nothing was read, for the network or a driver cannot be denied
    """

    frames: int = 0
    layer: str = ""
    guessed: str = ""
    unfit: bool = False
    code: str = ""
    detail: str = ""


class Refused(Exception):
    """code, detail: of the refusal that the parent raises."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(code)
        self.read = Read(code=code, detail=detail)


def main() -> None:
    """Limits first, then the library, then the bytes."""
    memory_bytes = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    task = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Task)
    try:
        result = read(Path(), task) if _deny_network() else Read(unfit=True)
    except Refused as refused:
        result = refused.read
    except MemoryError:
        result = Read(code="decode.too_large", detail="memory")
    sys.stdout.buffer.write(msgspec.msgpack.encode(result))


def _deny_network() -> bool:
    """Have the kernel refuse this process and its threads sockets and programs; False where it cannot (seccomp)."""
    steps = filter_of(_DENIED)
    if not steps:
        return False
    program = ctypes.create_string_buffer(steps)
    handed = ctypes.create_string_buffer(
        (len(steps) // 8).to_bytes(8, "little") + ctypes.addressof(program).to_bytes(8, "little")
    )
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, handed, 0, 0) == 0)


def filter_of(denied: Mapping[str, tuple[int, ...]]) -> bytes:
    """A filter (seccomp, 8 octets a step) that denies the system calls of these numbers, by machine; b"" where the
    system has none."""
    arch, numbers = _ARCHITECTURES.get(platform.machine(), 0), denied.get(platform.machine(), ())
    if not numbers or not arch or sys.platform != "linux":
        return b""

    def step(code: int, yes: int, no: int, value: int) -> bytes:
        return code.to_bytes(2, "little") + bytes((yes, no)) + value.to_bytes(4, "little")

    load, equal, above, give, deny, allow = 0x20, 0x15, 0x35, 0x06, 0x0005_000D, 0x7FFF_0000  # 13: EACCES
    steps = [step(load, 0, 0, 4), step(equal, 0, len(numbers) + 2, arch), step(load, 0, 0, 0)]
    steps.append(step(above, len(numbers), 0, 1 << 30))  # the same calls by another name (x32)
    steps += [step(equal, len(numbers) - 1 - place, 0, number) for place, number in enumerate(numbers)]
    steps[-1] = step(equal, 0, 1, numbers[-1])
    steps += [step(give, 0, 0, deny), step(give, 0, 0, allow)]
    return b"".join(steps)


def read(folder: Path, task: Task) -> Read:
    """The one layer, or the wanted one, of all the folder's files. Raises Refused."""
    import pyogrio
    from pyogrio import _ogr

    others = [name for name in pyogrio.list_drivers() if name not in DRIVERS.values()]
    pyogrio.set_gdal_config_options({**SETTINGS, "GDAL_SKIP": ",".join(others)})
    _ogr._register_drivers()  # which lets go of those to skip
    if set(pyogrio.list_drivers()) != set(DRIVERS.values()):
        return Read(unfit=True)
    try:
        path, layer = _chosen(folder, task.layer)
        _check_layer(path, layer)
        return _layer(path, layer, task)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, pyogrio.errors.FeatureError) as problem:
        raise Refused("decode.not_readable", type(problem).__name__) from problem


# Which layer


def _chosen(folder: Path, wanted: str) -> tuple[Path, str]:
    """The file and the name of the only layer, or of the wanted one."""
    import pyogrio

    found = []
    for path in sorted(path for path in folder.rglob("*") if path.suffix in DRIVERS and not _within_gdb(path)):
        _check_file(path)
        found += [(path, str(name)) for name, _ in pyogrio.list_layers(path)]
    names = ", ".join(name for _, name in found)[:400]
    chosen = [(path, name) for path, name in found if name == wanted] if wanted else found
    if not chosen:
        raise Refused("decode.layer_missing", f"{wanted}: {names}" if wanted else "")
    if len(chosen) > 1:
        raise Refused("decode.layer_unclear", names)
    return chosen[0]


def _within_gdb(path: Path) -> bool:
    """Whether it is a geodatabase's own file; a folder called .gdb that holds none is not one."""
    if path.suffix == ".gdb":
        return not (path / "a00000001.gdbtable").is_file()
    return any((parent / "a00000001.gdbtable").is_file() for parent in path.parents)


def _check_file(path: Path) -> None:
    """What GDAL would take, or ask elsewhere, and we do not."""
    if path.suffix == ".shp":
        _bring_to_utf_8(path.with_suffix(".prj"))
    elif path.suffix == ".gpkg":
        _check_tables(path)
    elif path.suffix == ".gml":
        _check_gml(path)
    elif DRIVERS[path.suffix] == "GeoJSON":
        try:
            path.read_bytes().decode("utf-8")
        except UnicodeDecodeError as problem:
            raise Refused("decode.encoding_wrong", f"utf-8, byte {problem.start}") from problem


def _bring_to_utf_8(system: Path) -> None:
    """The description of a reference system, which may have a Chinese name in GBK."""
    octets = system.read_bytes() if system.is_file() else b""
    for encoding in ("utf-8", GB):
        try:
            text = octets.decode(encoding)
        except UnicodeDecodeError:
            continue
        if encoding == GB:
            system.write_bytes(text.encode())
        return
    raise Refused("decode.encoding_unknown", ".prj")


def _check_tables(path: Path) -> None:
    """A view is a query of the sender's own, and so are most virtual tables: they may name other files."""
    try:
        with sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True) as reader:
            rows = reader.execute("SELECT type, sql FROM sqlite_master WHERE type IN ('view', 'table')").fetchall()
    except (sqlite3.Error, UnicodeDecodeError) as problem:
        raise Refused("decode.not_readable", type(problem).__name__) from problem
    for kind, sql in rows:
        virtual = re.match(r"\s*CREATE\s+VIRTUAL\b", sql or "", re.IGNORECASE)
        if kind == "view" or (virtual and not re.search(r"\bUSING\s+rtree\s*\(", sql, re.IGNORECASE)):
            raise Refused("decode.own_queries", kind if kind == "view" else "virtual table")


def _check_gml(path: Path) -> None:
    """No document type; one reference system; brought to UTF-8 from GBK, which the parser does not read."""
    octets = path.read_bytes()
    if declared := _GB_DECLARED.match(octets):
        try:
            text = octets[declared.end() :].decode(GB)
        except UnicodeDecodeError as problem:
            raise Refused("decode.encoding_wrong", f"{GB}, byte {declared.end() + problem.start}") from problem
        octets = declared[1] + b"UTF-8" + declared[3] + text.encode()
        path.write_bytes(octets)
    systems: set[str] = set()
    parser = xml.parsers.expat.ParserCreate()

    def doctype(*_: object) -> None:
        raise Refused("decode.doctype")

    def begin(_: str, attributes: dict[str, str]) -> None:
        systems.update(value for name, value in attributes.items() if name.rpartition(":")[2] == "srsName")

    parser.StartDoctypeDeclHandler, parser.StartElementHandler = doctype, begin
    try:
        parser.Parse(octets, True)
    except (xml.parsers.expat.ExpatError, ValueError, LookupError) as problem:
        raise Refused("decode.not_readable", type(problem).__name__) from problem
    if len(systems) > 1:
        raise Refused("decode.crs_differs", f"{len(systems)} in one file")


def _check_layer(path: Path, layer: str) -> None:
    import pyogrio

    how = "ISO-8859-1" if path.suffix == ".shp" else None
    info = pyogrio.read_info(path, layer=layer, encoding=how, force_feature_count=True)
    if info["driver"] != DRIVERS[path.suffix]:
        raise Refused("decode.not_readable", "another format than its name says")
    if len(info["fields"]) > COLUMNS:
        raise Refused("decode.too_large", f"{len(info['fields'])} columns")
    if info["features"] > RECORDS:
        raise Refused("decode.too_large", f"more than {RECORDS} records")


# Its reference system


def _agree(named: str, defined: str, declared: str, *, geojson: bool) -> None:
    """What the file says of its reference system is what the feed declares, or Refused decode.crs_differs.

    named:   as GDAL names it; defined: PROJJSON of its definition

    The definition decides, datum and parameters: one system goes by several names and numbers, and a number may stand
    beside other parameters. The order of axes and heights count for nothing. GeoJSON says WGS 84 whatever is in it
    (RFC 7946): so much as "degrees".
    """
    import pyproj

    if not declared.startswith("EPSG:"):
        _agree_unnamed(named, defined, declared)
        return
    ours = pyproj.CRS.from_user_input(declared)
    try:
        theirs = _plane(pyproj.CRS.from_json(defined))
    except pyproj.exceptions.CRSError as problem:
        raise Refused("decode.crs_differs", f"{_named(named)}, {declared}") from problem
    if geojson and theirs.to_epsg() in (4326, 4979):
        same = bool(ours.is_geographic)
    else:
        earth, theirs_earth = ours.geodetic_crs, theirs.geodetic_crs
        same = earth is not None and theirs_earth is not None and earth.equals(theirs_earth, ignore_axis_order=True)
        same = same and ours.to_dict() == theirs.to_dict()
    if not same:
        raise Refused("decode.crs_differs", f"{_named(named)}, {declared}")


def _agree_unnamed(named: str, defined: str, declared: str) -> None:
    """The same for a system that no file can name: a file with a local plane says none or an engineering one, and one
    with deflected degrees whatever degrees its tool wrote."""
    import pyproj

    try:
        theirs = _plane(pyproj.CRS.from_json(defined))
    except pyproj.exceptions.CRSError as problem:
        raise Refused("decode.crs_differs", f"{_named(named)}, {declared}") from problem
    if not (theirs.is_engineering if declared.startswith("local:") else theirs.is_geographic):
        raise Refused("decode.crs_differs", f"{_named(named)}, {declared}")


def _plane(system: Any) -> Any:
    return system.sub_crs_list[0] if system.is_compound else system


def _named(said: str) -> str:
    """What a reference system is called, without the sender's own words for one that nobody knows."""
    return said if re.fullmatch(r"[A-Z]{2,8}:\w{1,12}", said) else "WKT"


# Its records


def _layer(path: Path, layer: str, task: Task) -> Read:
    import polars as pl
    from pyogrio import raw

    shapefile = path.suffix == ".shp"
    # Of a Shapefile each octet becomes one character, so that what its text is can be proved here.
    how = {"encoding": "ISO-8859-1"} if shapefile else {"DATE_AS_STRING": "YES"} if path.suffix == ".geojson" else {}
    with raw.open_arrow(path, layer=layer, return_fids=True, datetime_as_string=True, **how) as (meta, stream):
        try:
            frame = pl.DataFrame(stream)
        except pl.exceptions.DuplicateError as problem:
            raise Refused("decode.header_doubled") from problem
    key, *columns = frame.get_columns()
    places: list[Any] = [column for column in columns if isinstance(column.dtype, pl.BaseExtension)]
    if len(places) > 1:
        raise Refused("decode.not_readable", "several geometries of one feature")
    if places and meta["crs"] and task.crs:
        defined = json.dumps(json.loads(places[0].dtype.ext_metadata())["crs"])
        _agree(meta["crs"], defined, task.crs, geojson=path.suffix == ".geojson")
    said = {column.name: _text(column) for column in columns if not _is_no_text(column.dtype)}
    guessed = ""
    if shapefile:
        said, guessed = _decoded(path, said, task.encoding)
    _check_text(said)
    shapes = places[0].ext.storage().to_list() if places else [None] * frame.height
    geometry = _geometry(shapes, layer)
    table = pl.DataFrame(
        {
            **geometry,
            "key": _text(key),
            "geometry": _whole(shapes),
            **{f"@{name}": values for name, values in said.items()},
        }
    )
    starts = range(0, max(frame.height, 1), RECORDS_PER_BATCH)
    for number, start in enumerate(starts):
        table.slice(start, RECORDS_PER_BATCH).write_ipc(f"{number}.arrow")
    return Read(frames=len(starts), layer=layer, guessed=guessed)


def _is_no_text(kind: Any) -> bool:
    """Geometry, octets, lists: a feed that names such a column is told that it is not there."""
    import polars as pl

    return kind == pl.Binary or kind.is_nested() or isinstance(kind, pl.BaseExtension)


def _text(column: Any) -> Any:
    """A column as text: the fewest digits that give the number back, no `.0`; days and times in ISO form."""
    import polars as pl

    if column.dtype == pl.String:
        try:  # what GDAL hands over is not proved to be UTF-8
            text = column.cast(pl.Binary).cast(pl.String)
        except pl.exceptions.PolarsError as problem:
            raise Refused("decode.encoding_wrong", "utf-8") from problem
        return text.set(text == "", None)
    if column.dtype == pl.Boolean:
        return column.cast(pl.String).str.to_uppercase()
    if column.dtype.is_float():
        return column.fill_nan(None).cast(pl.String).str.strip_suffix(".0")
    return column.cast(pl.String)


def _check_text(said: dict[str, Any]) -> None:
    import polars as pl

    for name, values in said.items():
        if (values.str.len_chars().max() or 0) > CELL_CHARACTERS:
            raise Refused("decode.too_large", f"a cell of more than {CELL_CHARACTERS} characters")
        if any(mark in name for mark in GARBLED) or values.str.contains_any(list(GARBLED)).any():
            raise Refused("decode.text_garbled")
    if len(said) != len({name.strip() for name in said}) or not all(map(str.strip, said)):
        raise Refused("decode.header_doubled")
    assert all(values.dtype == pl.String for values in said.values())


# Text of a Shapefile


def _decoded(path: Path, said: dict[str, Any], encoding: str) -> tuple[dict[str, Any], str]:
    """The columns under their names, in the first encoding that all of them are in, and that encoding if guessed.

    said: names and texts with one character for each octet
    """
    import polars as pl

    candidates, source = _encodings(path, encoding)
    octets = {name.encode("latin-1"): values for name, values in said.items()}
    plain = all(name.isascii() for name in octets) and not any(
        values.str.contains(r"[^\x00-\x7f]").any() for values in said.values()
    )
    for candidate in ("ascii",) if plain else candidates:
        try:
            names = [_name(name, candidate) for name in octets]
            texts = [
                pl.Series([None if text is None else _proved(text.encode("latin-1"), candidate) for text in values])
                for values in octets.values()
            ]
        except UnicodeError:
            continue
        if len(set(names)) < len(names):
            raise Refused("decode.header_doubled")
        if source or plain or _plausible(texts, names):
            whole = {name: text.cast(pl.String) for name, text in zip(names, texts, strict=True)}
            return whole, "" if source or plain else candidate
    raise Refused("decode.encoding_wrong" if source and candidates else "decode.encoding_unknown", source)


def _encodings(path: Path, encoding: str) -> tuple[tuple[str, ...], str]:
    """Which encodings to try, and who says so: the feed, the .cpg, the DBF's own mark; "" where nobody does."""
    if encoding:
        return (GB if encoding == "gbk" else encoding,), encoding
    page = path.with_suffix(".cpg")
    if page.is_file():
        spelt = _SPELLING.sub("", page.read_bytes()[:40].decode("ascii", "replace")).upper().strip("\0")
        if spelt not in PAGES:
            raise Refused("decode.encoding_unknown", f".cpg {spelt[:12]}" if spelt.isalnum() else ".cpg")
        return (PAGES[spelt],), f".cpg {PAGES[spelt]}"
    table = path.with_suffix(".dbf")
    mark = (table.read_bytes()[:32] if table.is_file() else b"").ljust(32, b"\0")[29]
    candidates = LANGUAGES.get(mark, ())
    return candidates, "" if len(candidates) == 2 else f"LDID 0x{mark:02X}"


def _proved(octets: bytes, encoding: str) -> str:
    """The text, if it gives the same octets back. Raises UnicodeError."""
    text = octets.decode(encoding)
    if text.encode(encoding) != octets:
        raise UnicodeError(encoding)
    return text


def _name(octets: bytes, encoding: str) -> str:
    """A column's name; of one that fills its field, the part of a character at its end is let go."""
    for cut in range(4 if len(octets) == NAME_OCTETS else 1):
        try:
            return _proved(octets[: len(octets) - cut], encoding)
        except UnicodeError:
            continue
    raise UnicodeError(encoding)


def _plausible(texts: Iterable[Any], names: list[str]) -> bool:
    """Whether no character is one that nobody writes: a control, a private or an unassigned one."""
    used = set("".join(names)).union(*(text for values in texts for text in values.drop_nulls()))
    return not any(unicodedata.category(character) in ("Cc", "Co", "Cn") for character in used - {"\t", "\r", "\n"})


# Places


def _geometry(shapes: list[bytes | None], layer: str) -> dict[str, Any]:
    """Kind, first and last vertex, whether closed, how many vertices; several parts, curves, mixtures have no place."""
    import numpy as np
    import polars as pl
    import shapely

    plain = [shape if shape is not None and _is_plain(shape) else None for shape in shapes]
    whole = shapely.from_wkb(np.array(plain, dtype=object), on_invalid="ignore")
    one = np.where(shapely.get_num_geometries(whole) == 1, shapely.get_geometry(whole, 0), whole)
    kinds = shapely.get_type_id(one)
    area = kinds == 3
    line = np.where(area, shapely.get_exterior_ring(one), one)
    count = shapely.get_num_coordinates(line)
    many = np.isin(kinds, (1, 2, 3)) & (count > 0)
    none = np.full(len(shapes), None)
    first = np.where(many, shapely.get_point(line, 0), np.where(kinds == 0, one, none))
    last = np.where(many, np.where(area, shapely.get_point(line, -2), shapely.get_point(line, -1)), none)
    named = [
        KINDS[kind] if 0 <= kind < len(KINDS) else None if shape is None else "OTHER"
        for kind, shape in zip(kinds.tolist(), shapes, strict=True)
    ]

    def axis(points: Any, of: Any) -> Any:
        return _text(pl.Series(of(points), dtype=pl.Float64))

    axes = {"x": shapely.get_x, "y": shapely.get_y, "z": shapely.get_z}
    closed = np.where(area | shapely.is_closed(line), "1", "0")
    return {
        "entity": pl.Series(named, dtype=pl.String),
        "layer": pl.repeat(layer, len(shapes), eager=True, dtype=pl.String),
        **{name: axis(first, of) for name, of in axes.items()},
        **{f"{name}2": axis(last, of) for name, of in axes.items()},
        "closed": pl.Series(closed.tolist(), dtype=pl.String).set(pl.Series(~many), None),
        "vertices": pl.Series(count - area).cast(pl.String).set(pl.Series(~many), None),
    }


def _whole(shapes: list[bytes | None]) -> Any:
    """All of a place or outline, every part of several: WKB in hexadecimal digits, without heights."""
    import numpy as np
    import polars as pl
    import shapely

    plain = [shape if shape is not None and _is_plain(shape) else None for shape in shapes]
    whole = shapely.from_wkb(np.array(plain, dtype=object), on_invalid="ignore")
    one = np.where(shapely.get_num_geometries(whole) == 1, shapely.get_geometry(whole, 0), whole)
    return pl.Series(shapely.to_wkb(one, hex=True, output_dimension=2).tolist(), dtype=pl.String)


def _is_plain(wkb: bytes) -> bool:
    """Whether it is a point, line or area, or several of one kind: no curve, surface or mixture."""
    kind = int.from_bytes(wkb[1:5], "little" if wkb[0] else "big")
    return (kind & 0x0FFF_FFFF) % 1000 in range(1, 7)


if __name__ == "__main__":
    main()
