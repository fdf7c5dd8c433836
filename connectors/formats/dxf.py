"""Drawings: ASCII DXF of R10 to R2018. Every entity of model space is one record; nothing is drawn, nothing is guessed.

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

Options: `attributes` (tags), `encoding` (`utf-8`, `gbk`, `gb18030`, believed instead of what the drawing says).
"""

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Final

import polars as pl

from connectors.formats.dxf_tags import EOF, Tags, plain, scan
from connectors.formats.records import CARRIED, CONTENT, RECORD, RECORDS_PER_BATCH, SHEET, Options, RecordBatch
from security.errors import Refusal
from security.message import Content

NAME: Final = "dxf"
OPTIONS: Final = {"attributes": (list,), "encoding": (str,)}
RECORDS: Final = 2_000_000
LAYERS: Final = 10_000
BLOCKS_AN_ENTITY: Final = 16  # an entity goes over no more blocks of a megabyte; of its parts only ends are kept
TEXT_CHARACTERS: Final = 262_144
INSTANCES: Final = 10_000  # of one MINSERT
COLUMNS: Final = (
    "entity", "handle", "layer", "block", "code", "x", "y", "z", "x2", "y2", "z2", "rotation", "text", "closed",
    "vertices", "key",
)  # fmt: skip
_ESCAPED: Final = ("layer", "block", "code", "text")  # and every attribute
(_ENTITY, _HANDLE, _LAYER, _BLOCK, _CODE, _X, _Y, _Z, _X2, _Y2, _Z2, _ROTATION, _TEXT, _CLOSED, _VERTICES, _KEY) = (
    range(len(COLUMNS))
)
_IN_OCS: Final = {"INSERT", "TEXT", "LWPOLYLINE", "POLYLINE", "CIRCLE", "ARC", "ATTDEF", "SOLID", "TRACE"}
_PLACED: Final = _IN_OCS - {"LWPOLYLINE"} | {"POINT", "MTEXT", "LINE", "ELLIPSE", "3DFACE"}  # by their group 10
_WITH_TEXT: Final = frozenset(("TEXT", "MTEXT", "ATTDEF"))
_PARTS: Final = {"ATTRIB": "INSERT", "VERTEX": "POLYLINE"}
_SPATIAL: Final = 8 | 16 | 64  # flags of a POLYLINE whose vertices are in the world's system
_FACE: Final = (128, 64 | 128)  # a VERTEX that only says which others make a face: the flag, out of these two
_APPLICATION: Final = "SOUTH"

Entity = tuple[str, list[int], list[str]]  # name, group codes, values; the first pair is the name's own
Row = list[str | None]  # COLUMNS, then the attributes


def decode(contents: Iterable[Content], options: Options) -> Iterator[RecordBatch]:
    """Yield the records of each drawing in order, in frames of at most 50,000; a drawing without any gives one frame.

    A drawing is read in pieces: what is held is one frame, one entity, and the keys that were given.

    Raises Refusal decode.binary_dxf, decode.dwg, decode.encoding_unknown, decode.encoding_wrong, decode.not_readable,
    decode.too_large.
    """
    said = options.get("attributes", [])
    tags = list(dict.fromkeys(map(str, said))) if isinstance(said, list) else []
    declared = str(options["encoding"]) if "encoding" in options else None
    for index, content in enumerate(contents):
        first = 0
        for rows in _drawing(content, declared, tags):
            yield RecordBatch(_frame(rows, tags, index, first))
            first += len(rows)


def _drawing(content: Content, declared: str | None, tags: list[str]) -> Iterator[list[Row]]:
    """The rows of one drawing, at most 50,000 at a time; the last list may be empty."""
    drawing = _Drawing(tags)
    for entity in _entities(scan(content, declared)):
        drawing.take(*entity)
        if drawing.whole() >= RECORDS_PER_BATCH:
            yield drawing.give(RECORDS_PER_BATCH)
    drawing.close()
    while drawing.whole() > RECORDS_PER_BATCH:
        yield drawing.give(RECORDS_PER_BATCH)
    yield drawing.give(RECORDS_PER_BATCH)


# Sections and entities


def _entities(blocks: Iterable[Tags]) -> Iterator[Entity]:
    """The entities of the ENTITIES section. Raises Refusal where the drawing is not whole."""
    section, seen = "", False
    for item in _items(blocks):
        name = item[0]
        if name == "ENDSEC" and section:
            section = ""
        elif name == "SECTION" and not section:
            section = _section(item)
            seen = seen or section == "ENTITIES"
        elif name in ("SECTION", EOF) if section else name != EOF or not seen:
            raise Refusal("decode.not_readable", "a section that does not end, or something outside of sections")
        elif section == "ENTITIES":
            yield item


def _section(item: Entity) -> str:
    _, codes, values = item
    if len(codes) < 2 or codes[1] != 2:
        raise Refusal("decode.not_readable", "a section without a name")
    return values[1].strip() or "?"


def _items(blocks: Iterable[Tags]) -> Iterator[Entity]:
    """What begins with group code 0, each with its tags; the last is EOF, else Refusal."""
    codes: list[int] = []
    values: list[str] = []
    waited = 0
    for more_codes, more_values in blocks:
        codes, values = codes + more_codes, values + more_values
        starts = [index for index, code in enumerate(codes) if code == 0]
        waited = waited + 1 if len(starts) < 2 else 0
        if waited > BLOCKS_AN_ENTITY:
            raise Refusal("decode.too_large", f"an entity of more than {BLOCKS_AN_ENTITY} MiB")
        if not starts:
            continue
        if any(code != 999 for code in codes[: starts[0]]):  # only comments may stand before the first section
            raise Refusal("decode.not_readable", "does not begin with a section")
        # One at a time: a list of all would cost the collector of garbage more than the slices themselves.
        for start, stop in itertools.pairwise(starts):
            name = values[start].strip()
            yield name, codes[start:stop], values[start:stop]
            if name == EOF:
                return
        codes, values = codes[starts[-1] :], values[starts[-1] :]
        if values[0].strip() == EOF:
            yield EOF, codes, values
            return
    raise Refusal("decode.not_readable", "the drawing is cut short: it has no EOF")


# Records


class _Drawing:
    """The rows of one drawing as they grow: an INSERT waits for its ATTRIBs, a POLYLINE for its VERTEXes."""

    def __init__(self, tags: list[str]) -> None:
        self.rows: list[Row] = []
        self.columns = {tag: len(COLUMNS) + place for place, tag in enumerate(tags)}
        self.count = 0
        self.keys: set[str] = set()
        self.repeats: dict[str, int] = {}
        self.layers: set[str | None] = set()
        self.parent = ""  # INSERT or POLYLINE whose parts may follow
        self.must_end = False  # its SEQEND was announced
        self.drawn = False  # it stands in model space
        self.groups: dict[int, str] = {}  # of the parent

    def whole(self) -> int:
        """How many rows nothing can be added to."""
        return len(self.rows) - (1 if self.parent and self.drawn else 0)

    def give(self, most: int) -> list[Row]:
        """The first rows, which leave."""
        given, self.rows = self.rows[:most], self.rows[most:]
        return given

    def take(self, name: str, codes: list[int], values: list[str]) -> None:
        """Make a row of an entity, or add a part to the last row."""
        if name == "SEQEND" or name in _PARTS:
            self._part(name, codes, values)
            return
        self.close()
        groups = dict(zip(reversed(codes), reversed(values), strict=True))  # of doubled codes the first stays
        drawn = groups.get(67, "").strip() != "1"
        if name in ("INSERT", "POLYLINE"):
            self.parent, self.drawn, self.groups = name, drawn, groups
            self.must_end = name == "POLYLINE" or groups.get(66, "").strip() == "1"
        if drawn:
            self.rows.append(self._row(name, groups, codes, values))
            self.count += 1
            if self.count > RECORDS:
                raise Refusal("decode.too_large", f"more than {RECORDS} records")
            if name not in ("INSERT", "POLYLINE"):
                _to_world(self.rows[-1], groups)
                self.rows[-1][_KEY] = self._key(self.rows[-1])

    def close(self) -> None:
        """End the open entity, if there is one: nothing is added to its row any more."""
        if self.must_end:
            raise Refusal("decode.not_readable", f"{self.parent} without SEQEND")
        parent, self.parent = self.parent, ""
        if not parent or not self.drawn:
            return
        row = self.rows[-1]
        spatial = parent == "POLYLINE" and _number(self.groups.get(70, "0")) & _SPATIAL
        instances = list(_instances(row, self.groups)) if parent == "INSERT" and _is_array(self.groups) else []
        for each in [row] if spatial else [row, *instances]:
            if not spatial:
                _to_world(each, self.groups)
        row[_KEY] = self._key(row)
        for each in instances:
            each[_KEY] = f"{row[_KEY]}{each[_KEY]}"
        self.rows += instances
        self.count += len(instances)

    def _part(self, name: str, codes: list[int], values: list[str]) -> None:
        if not self.parent or _PARTS.get(name, self.parent) != self.parent:
            raise Refusal("decode.not_readable", f"{name} outside the entity that it is a part of")
        if name == "SEQEND":
            self.must_end = False
            self.close()
        elif self.drawn:
            groups = dict(zip(reversed(codes), reversed(values), strict=True))
            self._attribute(groups) if name == "ATTRIB" else self._vertex(groups)

    def _attribute(self, groups: dict[int, str]) -> None:
        column = self.columns.get(plain(groups.get(2, "")).strip())
        if column is not None and self.rows[-1][column] is None:
            self.rows[-1][column] = groups.get(1)
        self.must_end = True

    def _vertex(self, groups: dict[int, str]) -> None:
        if _number(groups.get(70, "0")) & (_FACE[1]) == _FACE[0]:
            return
        row = self.rows[-1]
        row[_X2], row[_Y2] = groups.get(10), groups.get(20)
        # A flat polyline has one height, its own; the spatial ones say it at each vertex.
        spatial = _number(self.groups.get(70, "0")) & _SPATIAL
        row[_Z2] = groups.get(30) if spatial else self.groups.get(30)
        if row[_VERTICES] == "0":
            row[_X], row[_Y], row[_Z] = row[_X2], row[_Y2], row[_Z2]
        row[_VERTICES] = str(int(row[_VERTICES] or 0) + 1)

    def _row(self, name: str, groups: dict[int, str], codes: list[int], values: list[str]) -> Row:
        layer = groups.get(8)
        if layer not in self.layers:
            self.layers.add(layer)
            if len(self.layers) > LAYERS:
                raise Refusal("decode.too_large", f"more than {LAYERS} layers")
        row: Row = [name, groups.get(5), layer, *[None] * (len(COLUMNS) - 3 + len(self.columns))]
        if 1001 in groups:
            row[_CODE] = _south(codes, values)
        if name in _PLACED:
            row[_X], row[_Y], row[_Z] = groups.get(10), groups.get(20), groups.get(30)
            row[_ROTATION] = groups.get(50)
        if name == "INSERT":
            row[_BLOCK] = groups.get(2)
        elif name in _WITH_TEXT:
            row[_TEXT] = _mtext(codes, values) if name == "MTEXT" and 3 in groups else groups.get(1)
        elif name == "LINE":
            row[_X2], row[_Y2], row[_Z2] = groups.get(11), groups.get(21), groups.get(31)
        elif name == "LWPOLYLINE":
            _flat_polyline(row, groups, codes, values)
        elif name == "POLYLINE":  # its own point is only the height
            row[_X] = row[_Y] = row[_Z] = None
            row[_VERTICES], row[_CLOSED] = "0", str(_number(groups.get(70, "0")) & 1)
        return row

    def _key(self, row: Row) -> str:
        handle = (row[_HANDLE] or "").strip().upper()
        if handle and handle not in self.keys:
            self.keys.add(handle)
            return handle
        place = ":".join((row[at] or "").strip() for at in (_ENTITY, _LAYER, _BLOCK, _X, _Y))
        self.repeats[place] = self.repeats.get(place, 0) + 1
        return place if self.repeats[place] == 1 else f"{place}#{self.repeats[place]}"


def _south(codes: list[int], values: list[str]) -> str | None:
    """The first string of the XDATA that South CASS adds: the feature's code."""
    begin = codes.index(1001)
    ours = False
    for code, value in zip(codes[begin:], values[begin:], strict=True):
        if code == 1001:
            ours = value.strip() == _APPLICATION
        elif ours and code == 1000:
            return value
    return None


def _mtext(codes: list[int], values: list[str]) -> str:
    """The pieces of 250 characters in group 3, then the last one in group 1."""
    end = codes.index(1) if 1 in codes else len(codes)
    last = values[end : end + 1]
    text = "".join([value for code, value in zip(codes[:end], values[:end], strict=True) if code == 3] + last)
    if len(text) > TEXT_CHARACTERS:
        raise Refusal("decode.too_large", f"a text of more than {TEXT_CHARACTERS} characters")
    return text


def _flat_polyline(row: Row, groups: dict[int, str], codes: list[int], values: list[str]) -> None:
    row[_X], row[_Y], row[_Z] = groups.get(10), groups.get(20), groups.get(38)
    row[_VERTICES], row[_CLOSED] = str(codes.count(10)), str(_number(groups.get(70, "0")) & 1)
    if 10 in groups and 20 in groups:
        row[_X2], row[_Y2] = (values[len(codes) - 1 - codes[::-1].index(axis)] for axis in (10, 20))
        row[_Z2] = row[_Z]


# Numbers and places


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError as problem:
        raise Refusal("decode.not_readable", "a flag or a count that is no whole number") from problem


def _measure(text: str | None) -> float:
    """A finite number; 0 where the drawing says none."""
    try:
        value = float(text or "0")
    except ValueError as problem:
        raise Refusal("decode.not_readable", "a coordinate that is no number") from problem
    if not math.isfinite(value):
        raise Refusal("decode.not_readable", "a coordinate that is no number")
    return value


def _to_world(row: Row, groups: dict[int, str]) -> None:
    """Bring the row's places from the entity's own system to the world's, where the two differ."""
    if 230 not in groups or row[_ENTITY] not in _IN_OCS:
        return
    normal = (_measure(groups.get(210)), _measure(groups.get(220)), _measure(groups[230]))
    if normal[:2] == (0, 0) and normal[2] > 0:
        return
    for x, y, z in ((_X, _Y, _Z), (_X2, _Y2, _Z2)):
        if row[x] is None or row[y] is None:
            continue
        if normal[:2] == (0, 0) and normal[2] < 0:
            row[x], row[z] = _opposite(row[x]), _opposite(row[z])
        else:
            place = (_measure(row[x]), _measure(row[y]), _measure(row[z]))
            row[x], row[y], row[z] = (repr(value) for value in _tilted(normal, place))


def _opposite(text: str | None) -> str | None:
    """A number's text with the other sign, its digits as they are spelled."""
    if text is None or not _measure(text):
        return text
    said = text.strip()
    return said[1:] if said.startswith("-") else f"-{said.removeprefix('+')}"


def _tilted(normal: tuple[float, ...], place: tuple[float, ...]) -> tuple[float, ...]:
    """A place of the system whose z axis is `normal`, by the arbitrary axis rule of the DXF reference."""
    length = math.hypot(*normal)
    if not length:
        raise Refusal("decode.not_readable", "an extrusion without a direction")
    nx, ny, nz = (part / length for part in normal)
    across = (nz, 0.0, -nx) if abs(nx) < 1 / 64 and abs(ny) < 1 / 64 else (-ny, nx, 0.0)
    ax = [part / math.hypot(*across) for part in across]
    ay = (ny * ax[2] - nz * ax[1], nz * ax[0] - nx * ax[2], nx * ax[1] - ny * ax[0])
    axes = zip(ax, ay, (nx, ny, nz), strict=True)
    return tuple(place[0] * a + place[1] * b + place[2] * c for a, b, c in axes)


def _is_array(groups: dict[int, str]) -> bool:
    return groups.get(70, "1").strip() not in ("0", "1") or groups.get(71, "1").strip() not in ("0", "1")


def _instances(row: Row, groups: dict[int, str]) -> Iterator[Row]:
    """The other symbols of a MINSERT, row by row, in the entity's own system; their key is what follows the first's."""
    columns, rows = max(1, _number(groups.get(70, "1"))), max(1, _number(groups.get(71, "1")))
    if columns * rows > INSTANCES:
        raise Refusal("decode.too_large", f"an INSERT of more than {INSTANCES} symbols")
    turned = math.radians(_measure(groups.get(50)))
    x, y = _measure(row[_X]), _measure(row[_Y])
    for number in range(1, rows * columns):
        up, right = number // columns * _measure(groups.get(45)), number % columns * _measure(groups.get(44))
        each = row.copy()
        each[_X] = repr(x + right * math.cos(turned) - up * math.sin(turned))
        each[_Y] = repr(y + right * math.sin(turned) + up * math.cos(turned))
        each[_KEY] = f":{number // columns}:{number % columns}"
        yield each


# Frames


def _frame(rows: list[Row], tags: list[str], content: int, first: int) -> pl.DataFrame:
    names = [*COLUMNS, *(f"@{tag}" for tag in tags)]
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    texts = pl.DataFrame([pl.Series(name, column, pl.String) for name, column in zip(names, columns, strict=True)])
    texts = texts.with_columns(_unescaped(texts[name]) for name in (*_ESCAPED, *names[len(COLUMNS) :]))
    numbers = pl.int_range(first, first + len(rows), dtype=pl.UInt32, eager=True)
    return texts.select(
        pl.lit(content, pl.UInt32).alias(CONTENT),
        numbers.alias(RECORD),
        pl.col("layer").alias(SHEET),
        pl.lit(False).alias(CARRIED),
        *names,
    )


def _unescaped(column: pl.Series) -> pl.Series:
    """The column with its escapes replaced; nearly none has any, and then it costs a look."""
    if not column.str.contains(r"\\[UM]\+").any():
        return column
    texts = [None if text is None else plain(text) for text in column]
    return pl.Series(column.name, texts, pl.String)
