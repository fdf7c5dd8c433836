"""The seam of every format: signed bytes in, batches of records as text out."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Protocol

import msgspec
import polars as pl

from security.message import Content

RECORDS_PER_BATCH: Final = 50_000

# Columns that a format adds itself; source columns never begin with "#".
CONTENT: Final = "#content"  # UInt32: which of the contents handed in
RECORD: Final = "#record"  # UInt32, numbered from 0 through the whole content, in source order
SHEET: Final = "#sheet"  # String: sheet, layer or part of the source that the record stands in
CARRIED: Final = "#carried"  # Boolean: the key column was empty and its value comes from the record above
GUESSED: Final = (
    "#guessed"  # String, if there: the encoding that text of the record was found to be in, where none is said
)

# An option that no feed's `[options]` gives: the feed's own `crs`, for a format whose files name theirs.
CRS_OPTION: Final = "crs"
# Nor this one: the machine's own, an absolute path, of the program that makes DXF of DWG; without it there is none.
DWG2DXF_OPTION: Final = "dwg2dxf"
NOT_OF_FEEDS: Final = (CRS_OPTION, DWG2DXF_OPTION)

Options = Mapping[str, str | int | bool | list[str]]


class RecordBatch(msgspec.Struct, frozen=True):
    """At most 50,000 records, of one content or several.

    frame:    CONTENT, RECORD, SHEET, CARRIED, then the source's columns, all text as it spells them
    complete: false where the content itself says that it is not all there (page 2 of 8): such a snapshot ends nothing
    """

    frame: pl.DataFrame
    complete: bool = True


class Format(Protocol):
    """A module in this folder: its NAME in a feed's file, its OPTIONS, and what turns bytes into records."""

    NAME: str
    OPTIONS: Mapping[str, tuple[type, ...]]  # what a feed's `[options]` may hold, and of which type

    def decode(self, contents: Iterable[Content], options: Options) -> Iterator[RecordBatch]:
        """Yield the records of all contents, in order.

        Contents with the same columns may share a batch: a frame for each of many small ones would cost more than
        reading it. Raises Refusal `decode.*` when the bytes of any are not what the feed says.
        """
        ...
