"""Spreadsheet bytes (Excel 97 XLS, XLSX) to sheets of text, read by a child process under limits.

No format of its own: `connectors.formats.table` reads with it.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from connectors.formats import workbook_process
from connectors.formats.workbook_process import Corner, Read
from security.errors import Refusal

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
    reader = [sys.executable, "-I", str(Path(workbook_process.__file__)), str(MEMORY_BYTES), *wanted]
    wait_s = WAIT_S + len(octets) / (1 << 20)  # at its limit of memory the library may stand still instead of dying
    try:
        done = subprocess.run(reader, input=octets, capture_output=True, timeout=wait_s, check=False)
    except subprocess.TimeoutExpired as problem:
        raise Refusal("decode.too_large", f"more than {wait_s:.0f} s to read") from problem
    if done.returncode < 0:  # by a signal: at the limit of memory
        raise Refusal("decode.too_large", f"the reader was ended by signal {-done.returncode}")
    if done.returncode > 0:  # by an error that its library does not declare
        raise Refusal("decode.not_readable", "the reader did not expect these bytes")
    result = msgspec.msgpack.decode(done.stdout, type=Read)
    if result.code:
        raise Refusal(result.code, result.detail)
    return [Sheet(sheet.name, iter(sheet.rows), sheet.merged) for sheet in result.sheets]
