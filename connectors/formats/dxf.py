"""Drawings: DXF of R10 to R2018, and DWG where a program makes DXF of it; one of either may come in a ZIP.

Every entity of model space is one record; nothing is drawn, nothing is guessed.

Read as columns, a few megabytes at a time (docs/adr/0048), ASCII or binary: `dxf_tags` scans, `dxf_entities`
groups, `dxf_places` places.

Columns, all text as the drawing spells it, null where it says nothing:

- `entity` (INSERT, POINT, TEXT, ...), `handle`, `layer`, `block` (of an INSERT), `code` (the first 1000 of the XDATA
  named SOUTH), `rotation`, `text` (TEXT, MTEXT, ATTDEF; an MTEXT's pieces joined; formatting codes stay in it)
- `x`, `y`, `z`: insertion point, point, centre, first vertex; `x2`, `y2`, `z2`: end of a LINE, last vertex.
  Other kinds (HATCH, SPLINE, DIMENSION, ...) have no place here: what their group 10 means differs from kind to kind.
- `closed` (1, 0) and `vertices` (how many) of LWPOLYLINE and POLYLINE
- `@TAG` for each of the option `attributes`: the INSERT's ATTRIB of that tag, the first if there are several
- `key`: the handle, in capitals, if no earlier record of the drawing has it; else `ENTITY:layer:block:x:y`, from the
  second of the same on followed by `#2`, `#3`, ... R12 drawings often have no handles; then all keys are places.

The layer is also the batch's SHEET. `\\U+XXXX` is the character it stands for in layer, block, code, text and tags.

INSERT, TEXT, LWPOLYLINE and others give their places in the entity's own system (OCS). Where the extrusion is not
0,0,1 they are brought to the world: for 0,0,-1 (drawn from below, as mirrored symbols are) x and z change their sign
in the text, for a tilted one they are computed. `rotation` stays as it is spelled, in the entity's own system.

An INSERT of rows and columns (MINSERT) stands for so many symbols in the street: it is rows x columns records, the
first as spelled, the others with a computed place and the key `KEY:row:column`. Entities of paper space (67 = 1) and
the contents of blocks are no records, nor are VERTEX, ATTRIB and SEQEND, which are parts of one.

`outline`, if `chord_mm` is an option: in WKT the course of LWPOLYLINE and POLYLINE, POLYGON where it is closed, else
LINESTRING, and the area of HATCH; arcs (bulges) as chords that are nowhere more than so many millimetres from them.

Options: `attributes` (tags), `chord_mm`, `encoding` (`utf-8`, `gbk`, `gb18030`, believed instead of what the drawing
says). `dwg2dxf` is the machine's own: the program by which a DWG becomes DXF (`dwg`, docs/adr/0051).
"""

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from connectors.formats.drawing_archive import unpacked
from connectors.formats.dwg import as_dxf
from connectors.formats.dxf_entities import Entities, entities
from connectors.formats.dxf_outlines import outlines
from connectors.formats.dxf_places import spread, symbols, to_world, whole_numbers
from connectors.formats.dxf_tags import plain, scan
from connectors.formats.records import (
    CARRIED,
    CONTENT,
    DWG2DXF_OPTION,
    RECORD,
    RECORDS_PER_BATCH,
    SHEET,
    Options,
    RecordBatch,
)
from security.errors import Refusal
from security.message import Content

NAME: Final = "dxf"
OPTIONS: Final = {"attributes": (list,), "chord_mm": (int,), "encoding": (str,), DWG2DXF_OPTION: (str,)}
RECORDS: Final = 2_000_000
LAYERS: Final = 10_000
INSTANCES: Final = 10_000  # of one MINSERT
COLUMNS: Final = (
    "entity", "handle", "layer", "block", "code", "x", "y", "z", "x2", "y2", "z2", "rotation", "text", "closed",
    "vertices", "key",
)  # fmt: skip
_ESCAPED: Final = ("layer", "block", "code", "text")  # and every attribute
_IN_OCS: Final = {"INSERT", "TEXT", "LWPOLYLINE", "POLYLINE", "CIRCLE", "ARC", "ATTDEF", "SOLID", "TRACE"}
_LINES: Final = ("LWPOLYLINE", "POLYLINE")
_PLACED: Final = _IN_OCS - {*_LINES} | {"POINT", "MTEXT", "LINE", "ELLIPSE", "3DFACE"}  # by their group 10
_WITH_TEXT: Final = ("TEXT", "MTEXT", "ATTDEF")
_SPATIAL: Final = 8 | 16 | 64  # flags of a POLYLINE whose vertices are in the world's system
_FRAME: Final = 16  # a VERTEX that only bends a curve
_FACE: Final = (128, 64 | 128)  # a VERTEX that only says which others make a face: the flag, out of these two


def decode(contents: Iterable[Content], options: Options) -> Iterator[RecordBatch]:
    """Yield the records of each drawing in order, in frames of at most 50,000; a drawing without any gives one frame.

    A drawing is read in pieces: what is held is a block of a few megabytes, one frame, and a number for each key.

    Raises Refusal decode.archive_*, decode.dwg, decode.dwg_not_converted, decode.encoding_unknown,
    decode.encoding_wrong, decode.not_readable, decode.text_garbled, decode.too_large; Misconfigured where the program
    for DWG does not start.
    """
    said = options.get("attributes", [])
    tags = list(dict.fromkeys(map(str, said))) if isinstance(said, list) else []
    declared = str(options["encoding"]) if "encoding" in options else None
    chord_error_m = max(1, int(str(options["chord_mm"]))) / 1000 if "chord_mm" in options else None
    more = [*(f"@{tag}" for tag in tags), *(["outline"] if chord_error_m is not None else [])]
    program = str(options.get(DWG2DXF_OPTION, ""))
    for index, content in enumerate(contents):
        first = 0
        with unpacked(content) as packed, as_dxf(packed, program) as drawing:
            for rows in _in_batches(_records(drawing, declared, tags, chord_error_m)):
                yield RecordBatch(_frame(rows.select(*COLUMNS, *more), tags, index, first))
                first += rows.height


def _in_batches(pieces: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The same rows, 50,000 at a time; the last frame may be empty if it is the only one."""
    held: pl.DataFrame | None = None
    for piece in pieces:
        held = piece if held is None else pl.concat([held, piece])
        while held.height > RECORDS_PER_BATCH:
            yield held[:RECORDS_PER_BATCH].rechunk()
            held = held[RECORDS_PER_BATCH:]
    if held is not None:
        yield held.rechunk()


def _records(
    content: Content, declared: str | None, tags: list[str], chord_error_m: float | None
) -> Iterator[pl.DataFrame]:
    """The records of one drawing: COLUMNS, a column for each tag and `outline`, escapes still in them."""
    layers: set[str | None] = set()
    handles, places = _Seen(), _Seen()
    count = 0
    for whole in entities(scan(content, declared), corners=chord_error_m is not None):
        rows = _rows(whole, tags, chord_error_m)
        layers.update(rows["layer"].unique())
        if len(layers) > LAYERS:
            raise Refusal("decode.too_large", f"more than {LAYERS} layers")
        count += int(rows["symbols"].sum())
        if count > RECORDS:
            raise Refusal("decode.too_large", f"more than {RECORDS} records")
        for some in _apart(rows):
            placed = spread(some, INSTANCES)
            placed = to_world(placed, placed["kind"].is_in(_IN_OCS) & ~placed["spatial"])
            keyed = _keyed(placed, handles, places)
            yield keyed.select(*COLUMNS, *(name for name in keyed.columns if name[0] == "@" or name == "outline"))


def _apart(rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """The rows in order, each piece of about a frame's records: a few rows may be millions of symbols."""
    piece = rows["symbols"].cum_sum() // RECORDS_PER_BATCH
    if rows.is_empty() or piece[-1] == 0:
        yield rows
        return
    for number in piece.unique(maintain_order=True):
        yield rows.filter(piece == number)


# Records


def _rows(whole: Entities, tags: list[str], chord_error_m: float | None) -> pl.DataFrame:
    """A row for each entity of model space: COLUMNS but `key`, in its own system and not yet spread, and what is asked
    of it for that: `kind`, `spatial` and `symbols`, the extrusion, and the grid of an INSERT.
    """
    drawn = (whole.heads["paper"].str.strip_chars() != "1").fill_null(True)
    parts = whole.parts.filter(drawn.gather(whole.parts["head"]))
    heads = whole.heads.with_row_index("head").filter(drawn)
    flags = whole_numbers(heads.select(pl.when(pl.col("kind").is_in(_LINES)).then("flags"))["flags"])
    heads = heads.with_columns(
        entity="kind",
        bits=flags,
        spatial=(heads["kind"] == "POLYLINE") & (flags & _SPATIAL != 0),
        symbols=symbols(heads, INSTANCES),
    )
    for column in (_ends(parts), *_attributes(parts, tags)):
        heads = heads.join(column, on="head", how="left", maintain_order="left")
    if chord_error_m is not None:
        lines = outlines(heads.with_columns(height=_HEIGHT), _corners(whole, parts), chord_error_m)
        heads = heads.join(lines, on="head", how="left", maintain_order="left")
    return heads.with_columns(**_said())


_HEIGHT: Final = pl.when(pl.col("kind") == "LWPOLYLINE").then("elevation").otherwise("z")


def _corners(whole: Entities, parts: pl.DataFrame) -> pl.DataFrame:
    """Corners of all polylines; of one that was made a curve the curve's, not those of its frame."""
    vertices = parts.filter(kind="VERTEX")
    of_frame = pl.Series(whole_numbers(vertices["flags"]).to_numpy() & _FRAME != 0)
    number = {name: pl.col(name).str.strip_chars().cast(pl.Float64, strict=False) for name in ("x", "y")}
    bulge = pl.col("bulge").fill_null("0").str.strip_chars().cast(pl.Float64, strict=False)
    turns = vertices.filter(~of_frame).select(pl.lit(0, pl.Int64).alias("ring"), **number, bulge=bulge, head="head")
    return pl.concat([whole.corners, turns]).sort("head", maintain_order=True)


def _ends(parts: pl.DataFrame) -> pl.DataFrame:
    """Of each POLYLINE: places of its first and its last VERTEX, and how many it has."""
    vertices = parts.filter(kind="VERTEX")
    of_faces = pl.Series(whole_numbers(vertices["flags"]).to_numpy() & _FACE[1] == _FACE[0])
    ends = [getattr(pl.col(axis), end)().alias(f"{end}_{axis}_of_all") for axis in "xyz" for end in ("first", "last")]
    return vertices.filter(~of_faces).group_by("head").agg(*ends, all=pl.len())


def _attributes(parts: pl.DataFrame, tags: list[str]) -> Iterator[pl.DataFrame]:
    """For each tag a column: the text of the first ATTRIB of that tag that has one."""
    if tags:
        said = parts.filter(pl.col("kind") == "ATTRIB", pl.col("text").is_not_null())
        said = said.with_columns(tag=_unescaped(said["tag"]).str.strip_chars().fill_null(""))
        for tag in tags:
            of_tag = said.filter(tag=tag).unique("head", keep="first", maintain_order=True)
            yield of_tag.select("head", pl.col("text").alias(f"@{tag}"))


def _said() -> dict[str, pl.Expr]:
    """What each kind of entity says of itself, out of the group codes that all share."""
    kind = pl.col("kind")
    placed, flat, line, corners = kind.is_in(_PLACED), kind == "LWPOLYLINE", kind == "LINE", kind == "POLYLINE"
    ends = flat & pl.col("last_x").is_not_null() & pl.col("last_y").is_not_null()

    def told(own: str, end: str, axis: str, *, by_group: pl.Expr, flatly: str) -> pl.Expr:
        # A flat polyline has one height, its own; the spatial ones say it at each vertex.
        of_vertex = pl.col(f"{end}_{axis}_of_all")
        if axis == "z":
            of_vertex = pl.when("spatial").then(of_vertex).when(pl.col("all") > 0).then("z")
        lying = flat if end == "first" else ends
        return pl.when(corners).then(of_vertex).when(by_group).then(own).when(lying).then(flatly)

    return {
        "x": told("x", "first", "x", by_group=placed, flatly="x"),
        "y": told("y", "first", "y", by_group=placed, flatly="y"),
        "z": told("z", "first", "z", by_group=placed, flatly="elevation"),
        "x2": told("x2", "last", "x", by_group=line, flatly="last_x"),
        "y2": told("y2", "last", "y", by_group=line, flatly="last_y"),
        "z2": told("z2", "last", "z", by_group=line, flatly="elevation"),
        "rotation": pl.when(placed | corners).then("rotation"),
        "block": pl.when(kind == "INSERT").then("block"),
        "text": pl.when(kind.is_in(_WITH_TEXT)).then("text"),
        "closed": pl.when(flat | corners).then(pl.col("bits").cast(pl.Int64) & 1).cast(pl.String),
        "vertices": pl.when(corners).then(pl.col("all").fill_null(0)).when(flat).then("corners").cast(pl.String),
    }


# Keys

_PLACE: Final = ("entity", "layer", "block", "x", "y")  # what a key is made of where there is no handle
_RUN: Final = 1 << 17


class _Seen:
    """How often each text occurred so far: a 64-bit number for each, in sorted runs that double in length up to _RUN.

    Two texts of one number would be taken for the same: of two million, once in ten million drawings, and then a key is
    a place, or has a number behind it, without need.
    """

    def __init__(self) -> None:
        self.runs: list[tuple[NDArray[np.uint64], NDArray[np.uint32]]] = []  # numbers, how often

    def before(self, texts: pl.Series) -> pl.Series:
        """How often each text stood before: in this column and in those of earlier calls."""
        if texts.is_empty():
            return pl.Series(dtype=pl.Int64)
        said = texts.hash().to_numpy()
        order = np.argsort(said, kind="stable")
        numbers, starts, counts = np.unique(said[order], return_index=True, return_counts=True)
        earlier = np.zeros(len(numbers), np.int64)
        for known, often in self.runs:
            at = np.minimum(np.searchsorted(known, numbers), len(known) - 1)
            earlier += np.where(known[at] == numbers, often[at], 0)
        found = np.empty(len(said), np.int64)
        found[order] = np.arange(len(said)) + np.repeat(earlier - starts, counts)
        self._keep(numbers, counts)
        return pl.Series(found)

    def _keep(self, numbers: NDArray[np.uint64], counts: NDArray[np.int64]) -> None:
        # A run that is long enough stays as it is: to merge two takes several times their memory.
        while self.runs and len(self.runs[-1][0]) <= min(2 * len(numbers), _RUN):
            known, often = self.runs.pop()
            numbers, which = np.unique(np.concatenate([known, numbers]), return_inverse=True)
            counts = np.bincount(which, np.concatenate([often, counts])).astype(np.int64)
        self.runs.append((numbers, counts.astype(np.uint32)))


def _keyed(rows: pl.DataFrame, handles: _Seen, places: _Seen) -> pl.DataFrame:
    """The rows with their `key`; of an array only the first symbol's is looked up."""
    first = rows["place"].is_null()
    if first.all():
        return rows.with_columns(key=_keys(rows, handles, places))
    own = _keys(rows.filter(first), handles, places)
    of_all = pl.Series([None], dtype=pl.String).new_from_index(0, rows.height).scatter(first.arg_true(), own)
    return rows.with_columns(key=of_all.forward_fill() + rows["place"].fill_null(""))


def _keys(rows: pl.DataFrame, handles: _Seen, places: _Seen) -> pl.Series:
    """The handle where no earlier record has it, else the place, numbered from the second of the same on."""
    keys = rows["handle"].str.strip_chars().str.to_uppercase()
    keys = keys.set(keys == "", None)
    held = keys.is_not_null()
    doubled = handles.before(keys.filter(held)) > 0
    keys = keys.scatter(held.arg_true().filter(doubled), None)
    bare = keys.is_null()
    if not bare.any():
        return keys
    parts = [rows[name].filter(bare).str.strip_chars().fill_null("") for name in _PLACE]
    said = pl.select(pl.concat_str(parts, separator=":")).to_series()
    before = places.before(said)
    numbered = pl.select(
        pl.when(before > 0).then(said + "#" + (before + 1).cast(pl.String)).otherwise(said)
    ).to_series()
    return keys.scatter(bare.arg_true(), numbered)


# Frames


def _frame(rows: pl.DataFrame, tags: list[str], content: int, first: int) -> pl.DataFrame:
    escaped = [*_ESCAPED, *(f"@{tag}" for tag in tags)]
    texts = rows.with_columns(_unescaped(rows[name]) for name in escaped)
    numbers = pl.int_range(first, first + rows.height, dtype=pl.UInt32, eager=True)
    return texts.select(
        pl.lit(content, pl.UInt32).alias(CONTENT),
        numbers.alias(RECORD),
        pl.col("layer").alias(SHEET),
        pl.lit(False).alias(CARRIED),
        *rows.columns,
    )


def _unescaped(column: pl.Series) -> pl.Series:
    """The column with its escapes replaced; only texts that have any take a step of their own."""
    escaped = column.str.contains(r"\\[UM]\+").fill_null(False).arg_true()
    if escaped.is_empty():
        return column
    texts = [plain(text) for text in column.gather(escaped)]
    return column.scatter(escaped, pl.Series(texts, dtype=pl.String))
