"""Tables: CSV (UTF-8, GBK, GB18030), Excel 97 XLS, XLSX, told apart by content; values as text, as the source has them.

Options: `sheet` (a name or several), `header` (the name of a column that stands in the header), `header_rows` (how many
rows the header has; merged cells of a spreadsheet tell it without), `carry_down` (a column whose empty cells repeat the
value above), `encoding` (`utf-8`, `gbk`, `gb18030`; without it UTF-8, else GB18030, whichever the bytes are).
"""

import csv
import functools
import io
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec
import polars as pl

from connectors.formats.records import CARRIED, CONTENT, RECORD, RECORDS_PER_BATCH, SHEET, Options, RecordBatch
from connectors.formats.workbook import Sheet, is_workbook, sheets_of
from connectors.formats.workbook_process import Corner
from security.errors import Refusal
from security.message import Content

NAME: Final = "table"
OPTIONS: Final = {
    "sheet": (str, list),
    "header": (str,),
    "header_rows": (int,),
    "carry_down": (str,),
    "encoding": (str,),
}
ENCODINGS: Final = ("utf-8", "gbk", "gb18030")
ROWS: Final = 2_000_000
COLUMNS: Final = 500
CELL_CHARACTERS: Final = 32_767  # what a cell of Excel holds
HEADER_WITHIN: Final = 50  # rows
PLAIN_ABOVE: Final = 1_048_576  # octets; below, setting out to read columns costs more than reading rows
_BOM: Final = b"\xef\xbb\xbf"
_BREAK: Final = re.compile(r"\s*[\r\n]+\s*")
_NUMBER: Final = re.compile(r"[+-]?[\d.,]+")
# What str.strip() takes for white space; polars alone leaves U+001C to U+001F.
_SPACE: Final = (
    "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \x85\xa0\u1680"
    + "".join(map(chr, range(0x2000, 0x200B)))
    + "\u2028\u2029\u202f\u205f\u3000"
)


class _Piece(msgspec.Struct, frozen=True):
    """Rows of one sheet, at most 50,000. names: of the columns; carried: for each row; first: its record number."""

    content: int
    sheet: str
    names: list[str]
    first: int
    rows: list[list[str]]
    carried: list[bool]


def decode(contents: Iterable[Content], options: Options) -> Iterator[RecordBatch]:
    """Yield the records of each content and sheet in order; rows without any value are no records.

    Contents and sheets with the same columns share a batch.

    Raises Refusal decode.encoding_unknown, decode.encoding_wrong, decode.not_readable, decode.header_not_found,
    decode.header_doubled, decode.row_too_long, decode.sheet_missing, decode.sheet_unclear, decode.too_large.
    """
    stack: list[_Piece] = []
    height = 0
    for piece in itertools.chain.from_iterable(_pieces(*numbered, options) for numbered in enumerate(contents)):
        if stack and not _fits(piece, stack[0], height):
            yield RecordBatch(_frame(stack))
            stack, height = [], 0
        if isinstance(piece, pl.DataFrame):
            yield RecordBatch(piece)
        else:
            stack.append(piece)
            height += len(piece.rows)
    if stack:
        yield RecordBatch(_frame(stack))


def _fits(piece: _Piece | pl.DataFrame, first: _Piece, height: int) -> bool:
    """Whether a piece may share a batch of `height` records so far that begins with another."""
    if isinstance(piece, pl.DataFrame):
        return False
    return piece.names == first.names and height + len(piece.rows) <= RECORDS_PER_BATCH


def _pieces(index: int, content: Content, options: Options) -> Iterator[_Piece | pl.DataFrame]:
    octets = content.read()
    if is_workbook(octets):
        yield from _counted(sheets_of(octets, _names(options.get("sheet"))), options, index)
    elif len(octets) > PLAIN_ABOVE and (columns := _plain(octets, options)) is not None:
        yield from _numbered(columns, index)
    else:
        yield from _counted([_text(octets, options)], options, index)


def _counted(sheets: Iterable[Sheet], options: Options, index: int) -> Iterator[_Piece]:
    """The records of all sheets of one content, numbered through."""
    first = 0
    for sheet in sheets:
        for piece in _records(sheet, options, index, first):
            first += len(piece.rows)
            if first > ROWS:
                raise Refusal("decode.too_large", f"more than {ROWS} records")
            yield piece


def _names(option: str | int | bool | list[str] | None) -> list[str]:
    return option if isinstance(option, list) else [] if option is None else [str(option)]


# Text


def _text(octets: bytes, options: Options) -> Sheet:
    """The one sheet, without a name, of delimiter-separated text."""
    text = _decoded(octets, str(options["encoding"]) if "encoding" in options else None)
    return Sheet("", _rows(io.StringIO(text, newline=""), _delimiter(text)), [])


def _decoded(octets: bytes, declared: str | None) -> str:
    """The text, decoded strictly: a wrong byte refuses the delivery, it is never replaced."""
    if declared is not None and declared not in ENCODINGS:
        raise Refusal("decode.encoding_unknown", declared)
    # A BOM read as GBK gives the well-known 锘 and no error.
    if octets.startswith(_BOM) and declared not in (None, "utf-8"):
        raise Refusal("decode.encoding_wrong", f"{declared} declared, UTF-8 found")
    for encoding in [declared] if declared else ["utf-8", "gb18030"]:
        try:
            text = octets.decode("utf-8-sig" if encoding == "utf-8" else encoding)
        except UnicodeDecodeError as problem:
            if declared:
                raise Refusal("decode.encoding_wrong", f"{declared}, byte {problem.start}") from problem
            continue
        if "\0" in text:  # UTF-16, or no text at all
            break
        return text
    raise Refusal("decode.encoding_unknown")


def _delimiter(text: str) -> str:
    """Comma, semicolon or tab: the one that stands in most of the first 20 lines; then the more frequent one."""
    lines = list(itertools.islice(io.StringIO(text[:20_000]), 20))
    return max(
        (mark for mark in ",;\t" if mark in text),
        key=lambda mark: (sum(mark in line for line in lines), sum(line.count(mark) for line in lines)),
        default=",",
    )


def _rows(lines: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    try:
        yield from csv.reader(lines, delimiter=delimiter, strict=True)
    except csv.Error as problem:
        raise Refusal("decode.not_readable", str(problem)) from problem


# Text without quotes, read as columns


def _plain(octets: bytes, options: Options) -> pl.DataFrame | None:
    """The columns of a large text where nothing is quoted, so that every line is a row and every delimiter ends a cell.

    polars then reads what `csv` would, twenty times as fast. None where it might not: a quote stands somewhere, a key
    is carried down, a row or cell is too long; rows are read then, and a refusal is worded there.
    """
    if b'"' in octets or "carry_down" in options:
        return None
    text = _utf8(octets, str(options["encoding"]) if "encoding" in options else None)
    head = text[:80_000].decode(errors="ignore")
    delimiter = _delimiter(head)
    text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in text else text
    lines = io.TextIOWrapper(io.BytesIO(text), "utf-8", newline="\n")
    top = list(itertools.islice(_rows(lines, delimiter), HEADER_WITHIN))
    names, begin = _header(top, [], options, "")
    if delimiter not in head or len(top) < HEADER_WITHIN or begin > HEADER_WITHIN:
        return None
    try:
        columns = _columns(text, begin, len(names), delimiter)
    except pl.exceptions.PolarsError:
        return None
    if max(columns.select(pl.all().str.len_chars().max().fill_null(0)).row(0)) > CELL_CHARACTERS:
        return None
    said = _without_blank(columns)
    return said.select(pl.col(column).alias(name) for column, name in zip(said.columns, names, strict=True) if name)


def _utf8(octets: bytes, declared: str | None) -> bytes:
    """The text in UTF-8, decoded as strictly as `_decoded`, which refuses what is not right."""
    if declared in (None, "utf-8") and b"\0" not in octets:
        try:
            pl.Series([octets], dtype=pl.Binary).cast(pl.String)
        except pl.exceptions.PolarsError:
            pass  # `_decoded` tries the next encoding, or says which byte is wrong
        else:
            return octets.removeprefix(_BOM)
    return _decoded(octets, declared).encode()


def _columns(text: bytes, begin: int, width: int, delimiter: str) -> pl.DataFrame:
    """The cells from row `begin` on, null where empty. Raises PolarsError where a row is longer than the header."""
    return pl.read_csv(
        text,
        has_header=False,
        skip_lines=begin,
        schema={str(number): pl.String for number in range(width)},
        separator=delimiter,
        quote_char=None,
        infer_schema=False,
        missing_columns="insert",
        glob=False,
    )


def _without_blank(columns: pl.DataFrame) -> pl.DataFrame:
    """The rows with any value: where the first column has none, the others are looked at."""
    blank = columns.with_row_index("row")
    for name in columns.columns:
        cell = pl.col(name)
        blank = blank.filter(cell.is_null() | (cell.str.strip_chars(_SPACE) == ""))
        if blank.is_empty():
            return columns
    rows = columns.with_row_index("row").join(blank.select("row"), on="row", how="anti", maintain_order="left")
    return rows.drop("row")


def _numbered(columns: pl.DataFrame, content: int) -> Iterator[pl.DataFrame]:
    """The frames of a content that was read as columns; one without records if there is only a header."""
    if columns.height > ROWS:
        raise Refusal("decode.too_large", f"more than {ROWS} records")
    for first in range(0, max(columns.height, 1), RECORDS_PER_BATCH):
        piece = columns.slice(first, RECORDS_PER_BATCH)
        own = (
            pl.lit(content, pl.UInt32).alias(CONTENT),
            pl.int_range(first, first + pl.len(), dtype=pl.UInt32).alias(RECORD),
            pl.lit(None, pl.String).alias(SHEET),
            pl.lit(False).alias(CARRIED),
        )
        yield piece.with_columns(own).select(CONTENT, RECORD, SHEET, CARRIED, *columns.columns)


# Header


def _records(sheet: Sheet, options: Options, content: int, first: int) -> Iterator[_Piece]:
    """The sheet's records, numbered from `first`, in pieces; one piece without records if there is only a header."""
    top = list(itertools.islice(sheet.rows, HEADER_WITHIN))
    names, begin = _header(top, sheet.merged, options, sheet.name)
    body = (row for row in itertools.chain(top[begin:], sheet.rows) if any(map(str.strip, row)))
    column = _carried_column(names, options, sheet.name)
    above = ""
    while True:
        piece = list(itertools.islice(body, RECORDS_PER_BATCH))
        _check_cells(piece, len(names), sheet.name, first)
        carried = [False] * len(piece)
        if column is not None:
            carried, above = _carry_down(piece, column, above)
        yield _Piece(content, sheet.name, names, first, piece, carried)
        first += len(piece)
        if len(piece) < RECORDS_PER_BATCH:
            return


def _header(
    top: list[list[str]], merged: list[tuple[Corner, Corner]], options: Options, sheet: str
) -> tuple[list[str], int]:
    """The names of the columns, and the row that the records begin with."""
    at = _header_row(top, str(options["header"]) if "header" in options else None, sheet)
    end = at + _header_rows(at, merged, options)
    return _column_names([_filled(top, row, end, merged) for row in range(at, end)], sheet), end


@functools.lru_cache(maxsize=1024)  # many deliveries have the same header
def _one_line(cell: str) -> str:
    """A column's name on one line: breaks inside a narrow header cell are layout, not spelling."""
    return _BREAK.sub("", cell.strip())


def _header_row(top: list[list[str]], wanted: str | None, sheet: str) -> int:
    """Index of the first header row: the one with the wanted name, or else the first with text in every column."""
    width = max(map(_said_width, top), default=0)
    for index, row in enumerate(top):
        cells = [_one_line(cell) for cell in row[:width]]
        if wanted is not None and wanted in cells:
            return index
        if wanted is None and len(cells) == width and width and not any(not c or _NUMBER.fullmatch(c) for c in cells):
            return index
    raise Refusal("decode.header_not_found", f"{sheet} {wanted or ''}".strip())


def _said_width(row: list[str]) -> int:
    """How many cells a row has up to its last one with text."""
    width = len(row)
    while width and not row[width - 1].strip():
        width -= 1
    return width


def _header_rows(at: int, merged: list[tuple[Corner, Corner]], options: Options) -> int:
    """How many rows the header has: as the feed says, or down to the lowest merged cell that begins in the first."""
    said = options.get("header_rows")
    if said is not None:
        return max(1, int(str(said)))
    return max((bottom - at + 1 for (row, _), (bottom, _) in merged if row == at), default=1)


def _filled(top: list[list[str]], row: int, end: int, merged: list[tuple[Corner, Corner]]) -> list[str]:
    """One header row with the text of merged cells repeated to the right and down.

    Text files do not say what was merged: there an empty cell above another header row takes its left neighbour's text,
    where a cell below it is filled.
    """
    cells = [_one_line(cell) for cell in top[row]] if row < len(top) else []
    for (upper, left), (lower, right) in merged:
        if upper <= row <= lower and upper < len(top):
            for column in range(left, min(right + 1, len(cells))):
                cells[column] = _one_line(top[upper][left])
    if not merged:
        for column in range(1, len(cells)):
            below = any(column < len(line) and line[column].strip() for line in top[row + 1 : end])
            if not cells[column] and below:
                cells[column] = cells[column - 1]
    return cells


def _column_names(header: list[list[str]], sheet: str) -> list[str]:
    """One name a column, upper and lower ones joined by "/"; "" for a column without one.

    Raises Refusal decode.header_doubled: a name that stands for two columns stands for neither.
    """
    names = ["/".join(dict.fromkeys(filter(None, parts))) for parts in itertools.zip_longest(*header, fillvalue="")]
    named = [name for name in names if name]
    if len(names) > COLUMNS:
        raise Refusal("decode.too_large", f"{sheet} {len(names)} columns".strip())
    for name in named:
        if named.count(name) > 1 or name.startswith("#"):
            raise Refusal("decode.header_doubled", f"{sheet} {name}".strip())
    return names


# Records


def _check_cells(rows: list[list[str]], width: int, sheet: str, first: int) -> None:
    if max(map(len, itertools.chain.from_iterable(rows)), default=0) > CELL_CHARACTERS:
        raise Refusal("decode.too_large", f"{sheet} a cell of more than {CELL_CHARACTERS} characters".strip())
    for number, row in enumerate(rows, first):
        if len(row) > width and any(cell.strip() for cell in row[width:]):
            raise Refusal("decode.row_too_long", f"{sheet} record {number}".strip())


def _carried_column(names: list[str], options: Options, sheet: str) -> int | None:
    """Which column's empty cells repeat the value above; None where the feed does not say so."""
    if "carry_down" not in options:
        return None
    if (column := str(options["carry_down"])) not in names:
        raise Refusal("decode.header_not_found", f"{sheet} {column}".strip())
    return names.index(column)


def _carry_down(rows: list[list[str]], column: int, above: str) -> tuple[list[bool], str]:
    """Fill the column's empty cells from the row above, in place: which were filled, and the last value."""
    carried = []
    for row in rows:
        row.extend([""] * (column + 1 - len(row)))
        said = row[column].strip() != ""
        row[column] = above = row[column] if said else above
        carried.append(not said and above != "")
    return carried, above


def _frame(pieces: list[_Piece]) -> pl.DataFrame:
    """Rows as columns of text, null where a cell is empty; columns without a name are left out."""
    names, rows = pieces[0].names, [row for piece in pieces for row in piece.rows]
    columns = itertools.zip_longest(*rows, fillvalue="")
    texts = {
        name: pl.Series(name, [cell or None for cell in column], dtype=pl.String)
        for name, column in zip(names, itertools.chain(columns, itertools.repeat(("",) * len(rows))), strict=False)
        if name
    }
    return pl.DataFrame(
        [
            _own(CONTENT, ([piece.content] * len(piece.rows) for piece in pieces), pl.UInt32),
            _own(RECORD, (range(piece.first, piece.first + len(piece.rows)) for piece in pieces), pl.UInt32),
            _own(SHEET, ([piece.sheet or None] * len(piece.rows) for piece in pieces), pl.String),
            _own(CARRIED, (piece.carried for piece in pieces), pl.Boolean),
            *texts.values(),
        ]
    )


def _own(name: str, parts: Iterable[Iterable[object]], kind: type[pl.DataType]) -> pl.Series:
    return pl.Series(name, list(itertools.chain.from_iterable(parts)), dtype=kind)
