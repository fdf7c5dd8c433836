"""Vector files: Shapefile, file geodatabase (a ZIP of either), GeoPackage, GML, GeoJSON, told apart by content.

Every feature of one layer is one record. Its columns, all text, null where the file says nothing:

- `entity`: POINT, LINESTRING, POLYGON; a feature of several parts is MULTIPOINT, MULTILINESTRING or MULTIPOLYGON and
  has no place here, since it has no one place; of one part it is that part. Curves, surfaces and mixtures are OTHER
- `layer`: also the batch's SHEET
- `x`, `y`, `z`: the point, or the first vertex; `x2`, `y2`, `z2`: the last one, of an area's outline the last before
  it comes back. Always east and north, or longitude and latitude, whatever order the file has them in
- `closed` (1, 0) and `vertices` (how many) of a line and of an area's outline
- `key`: the number of the feature, which GeoPackage and geodatabase keep; elsewhere its place in the file
- `geometry`: all of it, each part of several, in WKB by hexadecimal digits, east and north, without heights; for
  layers of reference data, which are kept whole
- `@NAME` for each attribute NAME of the file; numbers with the fewest digits that give them back, days in ISO form

The reference system that a file names must be the feed's `crs`. GeoJSON says WGS 84 whatever is in it; there any
system in degrees agrees. A file that names none is taken to be in the feed's.

Text of a Shapefile is what its .cpg says, else what the mark in its DBF (LDID) says, else UTF-8 or GB 18030, whichever
all names and texts are in and give the same octets back in; that it was guessed is a finding (GUESSED).

Options: `layer` (which one, where there are several), `encoding` (`utf-8`, `gbk`, `gb18030` of a Shapefile, believed
instead of what it says). `crs` is the feed's own.
"""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec
import polars as pl

from connectors.formats import vector_process
from connectors.formats.archive import is_archive, unpack
from connectors.formats.limited import answer_of
from connectors.formats.records import CARRIED, CONTENT, CRS_OPTION, GUESSED, RECORD, SHEET, Options, RecordBatch
from connectors.formats.vector_process import Read, Task
from security.errors import Misconfigured, Refusal
from security.message import Content

NAME: Final = "vector"
OPTIONS: Final = {"layer": (str,), "encoding": (str,), CRS_OPTION: (str,)}
ENCODINGS: Final = ("utf-8", "gbk", "gb18030")
# What the five formats are made of. No .gfs, .xsd or .vrt: they tell GDAL where else to look.
KEPT: Final = frozenset((
    ".shp", ".dbf", ".shx", ".prj", ".cpg", ".gpkg", ".gml", ".geojson",
    ".gdbtable", ".gdbtablx", ".gdbindexes", ".spx", ".atx", ".freelist", ".horizon", "gdb", "timestamps",
))  # fmt: skip
MEMORY_BYTES: Final = 4 << 30
WAIT_S: Final = 30.0  # and one more for each MiB
_BEGINNINGS: Final = {  # of a file by itself
    b"SQLite format 3\0": "content.gpkg",
    b"{": "content.geojson",
    b"<": "content.gml",
    b"\xff\xfe<\0": "content.gml",
    b"\xfe\xff\0<": "content.gml",
}
_BOM: Final = b"\xef\xbb\xbf"


def decode(contents: Iterable[Content], options: Options) -> Iterator[RecordBatch]:
    """Yield the records of each content's layer in order, at most 50,000 at a time; a layer without any gives a frame.

    Raises Refusal decode.archive_*, decode.crs_differs, decode.doctype, decode.encoding_unknown, decode.encoding_wrong,
    decode.header_doubled, decode.layer_missing, decode.layer_unclear, decode.not_readable, decode.own_queries,
    decode.text_garbled, decode.too_large; Misconfigured where the system cannot deny a process the network.
    """
    said = {name: str(options.get(name, "")) for name in OPTIONS}
    if said["encoding"] and said["encoding"] not in ENCODINGS:
        raise Refusal("decode.encoding_unknown", said["encoding"])
    for index, content in enumerate(contents):
        with tempfile.TemporaryDirectory(prefix="yongtong-vector-") as name:
            folder = Path(name)
            read = _read(content, folder, Task(**said))
            first = 0
            for number in range(read.frames):
                frame = pl.read_ipc((folder / f"{number}.arrow").read_bytes())
                yield RecordBatch(_own(frame, index, first, read))
                first += frame.height


def _read(content: Content, folder: Path, task: Task) -> Read:
    """What the process made of a content, in frames that lie in the folder."""
    files = folder / "archive.gdb"  # a geodatabase whose files were packed without their folder needs such a name
    files.mkdir()
    with content.open() as stream:
        head = stream.read(min(content.size, 4096))
    if is_archive(head):
        unpack(content, files, KEPT)
    else:
        _keep(content, files, head)
    wait_s = WAIT_S + sum(path.stat().st_size for path in files.rglob("*")) / (1 << 20)
    given = msgspec.msgpack.encode(task)
    result = answer_of(vector_process, [], given, Read, memory_bytes=MEMORY_BYTES, wait_s=wait_s, folder=folder)
    if result.unfit:
        raise Misconfigured(
            "config.no_isolation",
            "format vector: its reader cannot be shut off from the network (seccomp) or from GDAL's other drivers",
        )
    return result


def _keep(content: Content, files: Path, head: bytes) -> None:
    """A file by itself, under the ending that its beginning tells."""
    begins = head.removeprefix(_BOM).lstrip() if head[:1] in b"\xef \t\r\n{<" else head
    for beginning, name in _BEGINNINGS.items():
        if begins.startswith(beginning):
            with (files / name).open("wb") as written:
                written.writelines(content.pieces())
            return
    raise Refusal("decode.not_readable", "no ZIP, GeoPackage, GML or GeoJSON")


def _own(frame: pl.DataFrame, content: int, first: int, read: Read) -> pl.DataFrame:
    return frame.select(
        pl.lit(content, pl.UInt32).alias(CONTENT),
        pl.int_range(first, first + pl.len(), dtype=pl.UInt32).alias(RECORD),
        pl.lit(read.layer).alias(SHEET),
        pl.lit(False).alias(CARRIED),
        pl.lit(read.guessed or None, pl.String).alias(GUESSED),
        *frame.columns,
    )
