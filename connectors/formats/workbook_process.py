"""Reads one spreadsheet from stdin in a process of its own and writes its sheets as text cells to stdout.

A few damaged bytes, or two cells at far corners, make a spreadsheet reader ask for more memory than there is, and its
process dies past every `except`. Here that costs one child under limits, not the worker and what it worked on.
Run by path, by `connectors.formats.workbook`; imports nothing of this project.
Arguments: most bytes of memory, then the wanted sheets.
"""

import datetime
import io
import resource
import sys
from decimal import Decimal
from typing import Final

import msgspec
import python_calamine

CELLS: Final = 10_000_000  # of all sheets wanted together

Cell = int | float | str | bool | datetime.time | datetime.date | datetime.datetime | datetime.timedelta
Corner = tuple[int, int]


class ReadSheet(msgspec.Struct, frozen=True):
    """rows: text cells, all of one length, "" where empty; merged: (top, left), (bottom, right) from 0."""

    name: str
    rows: list[list[str]]
    merged: list[tuple[Corner, Corner]]


class Read(msgspec.Struct, frozen=True):
    """What came of it: the sheets, or a refusal's code and detail."""

    sheets: list[ReadSheet] = []
    code: str = ""
    detail: str = ""


def main() -> None:
    """Limits first, then the bytes."""
    memory_bytes, *wanted = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_AS, (int(memory_bytes), int(memory_bytes)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        result = msgspec.msgpack.encode(read(sys.stdin.buffer.read(), wanted))
    except MemoryError:
        result = msgspec.msgpack.encode(Read(code="decode.too_large", detail="memory"))
    sys.stdout.buffer.write(result)


def read(octets: bytes, wanted: list[str]) -> Read:
    """The wanted sheets in that order; with nothing wanted, the only sheet that has cells."""
    try:
        book = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(octets))
        sheets = [book.get_sheet_by_name(name) for name in wanted or book.sheet_names if name in book.sheet_names]
    except python_calamine.CalamineError as problem:
        return Read(code="decode.not_readable", detail=type(problem).__name__)
    lacking = [name for name in wanted if name not in book.sheet_names]
    if lacking:
        return Read(code="decode.sheet_missing", detail=", ".join(lacking))
    filled = sheets if wanted else [sheet for sheet in sheets if sheet.total_height]
    if not wanted and len(filled) != 1:
        return Read(code="decode.sheet_unclear", detail=f"{len(filled)} sheets with cells")
    cells = sum(sheet.total_height * sheet.total_width for sheet in filled)
    if cells > CELLS:
        return Read(code="decode.too_large", detail=f"{cells} cells")
    return Read(sheets=[_read(sheet) for sheet in filled])


def _read(sheet: python_calamine.CalamineSheet) -> ReadSheet:
    rows = [[text_of(cell) for cell in row] for row in sheet.to_python(skip_empty_area=False)]
    return ReadSheet(sheet.name, rows, list(sheet.merged_cell_ranges or ()))


def text_of(cell: Cell) -> str:
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


if __name__ == "__main__":
    main()
