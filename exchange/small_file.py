"""Small files that are whole at every moment: how far something has come, kept over a crash."""

import os
from pathlib import Path


def write_whole(path: Path, octets: bytes) -> None:
    """Put the octets in the place of what the file held, on disk before this returns. Raises OSError."""
    beside = path.with_suffix(".new")
    with beside.open("wb") as file:
        file.write(octets)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)  # else the renaming itself may be lost
    finally:
        os.close(descriptor)
