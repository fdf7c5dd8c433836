"""Spreadsheet bytes (Excel 97 XLS, XLSX) to sheets of text, read by a child process under limits.

No format of its own: `connectors.formats.table` reads with it.
"""

from collections.abc import Iterator
from typing import Final

import msgspec

from connectors.formats import workbook_process
from connectors.formats.limited import answer_of
from connectors.formats.workbook_process import Corner, Read

OLE2: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
ZIP: Final = b"PK\x03\x04"
MEMORY_BYTES: Final = 2 << 30
WAIT_S: Final = 10.0  # and one more for each MiB


class Sheet(msgspec.Struct, frozen=True):
    """One sheet. rows: text cells, "" where empty; merged: (top, left), (bottom, right) from 0."""

    name: str
    rows: Iterator[list[str]]
    merged: list[tuple[Corner, Corner]]


def is_workbook(octets: bytes) -> bool:
    """Whether the bytes, whatever the file is called, begin as a spreadsheet does."""
    return octets.startswith((OLE2, ZIP))


def sheets_of(octets: bytes, wanted: list[str]) -> list[Sheet]:
    """The wanted sheets in that order; with nothing wanted, the only sheet that has cells.

    Raises Refusal decode.not_readable, decode.too_large, decode.sheet_missing, decode.sheet_unclear.
    """
    wait_s = WAIT_S + len(octets) / (1 << 20)
    result = answer_of(workbook_process, wanted, octets, Read, memory_bytes=MEMORY_BYTES, wait_s=wait_s)
    return [Sheet(sheet.name, iter(sheet.rows), sheet.merged) for sheet in result.sheets]
