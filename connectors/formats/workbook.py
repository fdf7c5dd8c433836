"""Spreadsheet bytes (Excel 97 XLS, XLSX) to sheets of text, with limits against files made to exhaust memory.

No format of its own: `connectors.formats.table` reads with it.
"""

import datetime
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from decimal import Decimal
from typing import Final

import msgspec
import python_calamine

from security.errors import Refusal

OLE2: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
ZIP: Final = b"PK\x03\x04"
UNPACKED_BYTES: Final = 1 << 30  # all members of an XLSX together
UNPACKED_RATIO: Final = 200  # more than this times the file, beyond RATIO_FREE_BYTES, is a bomb
RATIO_FREE_BYTES: Final = 64 << 20
MEMBERS: Final = 2_000
CELLS: Final = 10_000_000  # of one sheet, counted as the rectangle from A1: the reader allocates it whole
COLUMNS: Final = 500
_STEP: Final = 1 << 20
_REFERENCE: Final = re.compile(rb"""\br\s*=\s*["']([A-Za-z]{0,4})(\d{0,10})["']""")
_Cell = int | float | str | bool | datetime.time | datetime.date | datetime.datetime | datetime.timedelta

Corner = tuple[int, int]


class Sheet(msgspec.Struct, frozen=True):
    """One sheet. rows: text cells, all of one length, "" where empty; merged: (top, left), (bottom, right) from 0."""

    name: str
    rows: Iterator[list[str]]
    merged: list[tuple[Corner, Corner]]


def is_workbook(octets: bytes) -> bool:
    """Whether the bytes, whatever the file is called, begin as a spreadsheet does."""
    return octets.startswith((OLE2, ZIP))


def sheets_of(octets: bytes, wanted: list[str]) -> Iterator[Sheet]:
    """The wanted sheets in that order; with nothing wanted, the only sheet that has cells.

    Raises Refusal decode.not_readable, decode.too_large, decode.sheet_missing, decode.sheet_unclear.
    """
    if octets.startswith(ZIP):
        _check_package(octets)
    try:
        book = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(octets))
        for name in wanted:
            if name not in book.sheet_names:
                raise Refusal("decode.sheet_missing", name)
        for name in wanted or [_only_sheet(book)]:
            yield _sheet(book.get_sheet_by_name(name))
    except Refusal:
        raise
    except BaseException as problem:
        # The reader's own errors, and the "panic" that its Rust side raises past `Exception` on bytes not foreseen.
        if isinstance(problem, Exception) or type(problem).__name__ == "PanicException":
            raise Refusal("decode.not_readable", type(problem).__name__) from problem
        raise


def _only_sheet(book: python_calamine.CalamineWorkbook) -> str:
    filled = [name for name in book.sheet_names if book.get_sheet_by_name(name).total_height]
    if len(filled) != 1:
        raise Refusal("decode.sheet_unclear", f"{len(filled)} sheets with cells")
    return filled[0]


def _sheet(sheet: python_calamine.CalamineSheet) -> Sheet:
    if sheet.total_width > COLUMNS or sheet.total_height * sheet.total_width > CELLS:
        raise Refusal("decode.too_large", f"{sheet.name}: {sheet.total_height} x {sheet.total_width} cells")
    rows = ([text_of(cell) for cell in row] for row in sheet.to_python(skip_empty_area=False))
    return Sheet(sheet.name, rows, list(sheet.merged_cell_ranges or ()))


def text_of(cell: _Cell) -> str:
    """A cell as text: the fewest digits that give the number back, no `.0`, no exponent; days and times in ISO form."""
    match cell:
        case str():
            return cell
        case bool():
            return "TRUE" if cell else "FALSE"
        case int():
            return str(cell)
        case float():
            return str(int(cell)) if cell.is_integer() else format(Decimal(repr(cell)), "f")
        case datetime.datetime():
            return cell.date().isoformat() if cell.time() == datetime.time() else cell.isoformat(" ")
        case datetime.date() | datetime.time():
            return cell.isoformat()
        case _:
            return str(cell)


def _check_package(octets: bytes) -> None:
    """Unpack every member once, without keeping it, and refuse what would unpack or unfold beyond the limits.

    The sizes in the archive's directory are the sender's word, so bytes are counted as they come out. Two cells at
    opposite corners of a sheet make the reader allocate all between, so cell references are looked at before it runs.
    """
    left = min(UNPACKED_BYTES, max(len(octets) * UNPACKED_RATIO, RATIO_FREE_BYTES))
    try:
        with zipfile.ZipFile(io.BytesIO(octets)) as package:
            members = package.infolist()
            if len(members) > MEMBERS:
                raise Refusal("decode.too_large", f"{len(members)} members")
            for member in members:
                corner = _Extent(member.filename) if member.filename.lower().startswith("xl/worksheets/") else None
                for part in _unpacked(octets, member):
                    left -= len(part)
                    if left < 0:
                        raise Refusal("decode.too_large", "unpacked size")
                    if corner is not None:
                        corner.look(part)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, ValueError, EOFError) as problem:
        raise Refusal("decode.not_readable", type(problem).__name__) from problem


def _unpacked(octets: bytes, member: zipfile.ZipInfo) -> Iterator[bytes]:
    """A member's bytes in steps of at most 1 MiB, from its own stream and not cut at the size it declares."""
    head = member.header_offset
    start = head + 30 + sum(int.from_bytes(octets[head + at : head + at + 2], "little") for at in (26, 28))
    packed = octets[start : start + member.compress_size]
    if octets[head : head + 4] != ZIP or len(packed) != member.compress_size:
        raise zipfile.BadZipFile("cut short")
    if member.compress_type == zipfile.ZIP_STORED:
        yield from (packed[at : at + _STEP] for at in range(0, len(packed), _STEP))
    elif member.compress_type == zipfile.ZIP_DEFLATED:
        inflate = zlib.decompressobj(-15)
        while packed and not inflate.eof:
            yield inflate.decompress(packed, _STEP)
            packed = inflate.unconsumed_tail
        while part := inflate.decompress(b"", _STEP):
            yield part
    else:
        raise NotImplementedError("compression method")


class _Extent:
    """How far right and down the cell references of one sheet reach, over bytes that come in parts."""

    def __init__(self, name: str) -> None:
        self.name, self.row, self.column, self.rest = name, 1, 1, b""

    def look(self, part: bytes) -> None:
        """Take one more part. Raises Refusal decode.too_large."""
        for letters, digits in _REFERENCE.findall(self.rest + part):
            self.row = max(self.row, int(digits or 1))
            if len(letters) > 1:  # A to Z are always few enough
                self.column = max(self.column, _column(letters))
        self.rest = part[-40:]
        if self.column > COLUMNS or self.row * self.column > CELLS:
            raise Refusal("decode.too_large", f"{self.name}: {self.row} x {self.column} cells")


def _column(letters: bytes) -> int:
    number = 0
    for letter in letters.upper():
        number = number * 26 + letter - 64
    return number
