"""A drawing in a ZIP, among what else a surveyor packs with it. No format of its own: `dxf` reads with it."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from connectors.formats.archive import is_archive, unpack
from security.errors import Refusal
from security.message import Content, file_content

DRAWINGS: Final = frozenset((".dxf", ".dwg"))


@contextlib.contextmanager
def unpacked(content: Content) -> Iterator[Content]:
    """The drawing itself; of a ZIP the one drawing in it, in a folder that is there for so long.

    Raises Refusal decode.archive_drawings where there is none or more than one, and as `archive.unpack` does.
    """
    with content.open() as stream:
        packed = is_archive(stream.read(min(content.size, 4)))
    if not packed:
        yield content
        return
    with tempfile.TemporaryDirectory(prefix="yongtong-drawing-") as name:
        folder = Path(name)
        unpack(content, folder, DRAWINGS)
        drawings = [path for path in folder.rglob("*") if path.is_file()]
        if len(drawings) != 1:
            raise Refusal("decode.archive_drawings", f"{len(drawings)}")
        yield file_content(drawings[0])
