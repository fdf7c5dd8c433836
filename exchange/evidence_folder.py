"""Evidence in a folder, a folder a bureau within: the embedded default."""

import os
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Final

import msgspec

from exchange.evidence_place import is_alone, new_name
from exchange.faults import durable_step

SEGMENT_BYTES: Final = 64 << 20  # a segment is closed when it has grown to this
ZEROS: Final = bytes(1 << 16)


class _Segment(msgspec.Struct):
    path: Path
    descriptor: int
    size: int = 0


class EvidenceFolder:
    """The place of one bus's evidence on a disk. Each process writes segments of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._syncing = threading.Lock()
        self._segments: dict[str, _Segment] = {}
        self._unsynced: dict[Path, None] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, bureau: str, octets: bytes) -> tuple[str, int]:
        """Write octets at the end of this process's segment of the bureau."""
        with self._lock:
            segment = self._segments.get(bureau)
            if segment is None or segment.size >= SEGMENT_BYTES:
                if segment is not None:
                    os.close(segment.descriptor)
                segment = self._segments[bureau] = self._new_segment(bureau)
            offset = segment.size
            # At our own offset, so that a write cut short (disk full) is written over by the next one.
            if os.pwrite(segment.descriptor, octets, offset) != len(octets):
                raise OSError(f"{segment.path}: write cut short")
            segment.size += len(octets)
            self._unsynced[segment.path] = None
            return _file(segment.path), offset

    def put(self, bureau: str, pieces: Iterable[bytes]) -> str:
        """Write a file piece by piece."""
        with self._lock:
            path = self._bureau(bureau) / new_name("payload")
        with path.open("xb") as target:
            target.writelines(pieces)
        with self._lock:
            self._unsynced |= {path: None, path.parent: None}
        return _file(path)

    def bring(self, file: str, pieces: Iterable[bytes]) -> None:
        """Write the file itself."""
        path = self._folder / file
        with self._lock:
            self._bureau(path.parent.name)
        with path.open("xb") as target:
            target.writelines(pieces)
        with self._lock:
            self._unsynced |= {path: None, path.parent: None}

    def sync(self) -> None:
        """Have the disk write files and folders."""
        with self._syncing:
            with self._lock:
                paths, self._unsynced = list(self._unsynced), {}
            if not paths:
                return
            durable_step("evidence.sync:before")
            try:
                for path in paths:
                    _fsync(path)
            except OSError:
                with self._lock:
                    self._unsynced = dict.fromkeys(paths) | self._unsynced
                raise
            durable_step("evidence.sync:after")

    def withdraw(self, file: str, offset: int, size: int) -> None:
        """What is written stays: it goes when its segment does, or is swept."""

    def read(self, file: str, offset: int, size: int) -> bytes:
        """Octets of a file; fewer where it ends before."""
        descriptor = os.open(self._folder / file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(descriptor, size, offset)
        finally:
            os.close(descriptor)

    def open(self, file: str) -> IO[bytes]:
        """The file itself."""
        return (self._folder / file).open("rb")

    def destroy(self, file: str, offset: int, size: int) -> None:
        """Write zeros over octets, and remove a payload's own file.

        What a disk keeps below its file system is the operator's to wipe.
        """
        path = self._folder / file
        try:
            with path.open("r+b") as target:
                target.seek(offset)
                for start in range(0, size, len(ZEROS)):
                    target.write(ZEROS[: size - start])
                target.flush()
                os.fsync(target.fileno())
        except FileNotFoundError:
            return
        if is_alone(file):
            path.unlink()
            _fsync(path.parent)

    def sweep(self, known: Collection[str], older_than: datetime) -> int:
        """Remove files that are not known and that nobody wrote to since; gives how many.

        A payload without an inbox row that shares its segment with others goes when the segment does.
        """
        removed = 0
        with self._lock:
            ours = {_file(path) for path in self._unsynced}
            ours |= {_file(segment.path) for segment in self._segments.values()}
            for path in self._folder.glob("*/*-*"):
                file = _file(path)
                if file in known or file in ours or path.stat().st_mtime >= older_than.timestamp():
                    continue
                path.unlink()
                removed += 1
        return removed

    def keeps_copies(self) -> str:
        """A folder keeps none."""
        return ""

    def steps(self) -> Mapping[str, Callable[[], None]]:
        """A file is written, read and removed."""
        path, octets = self._folder / f".probe-{new_name('segment')}", b"yongtong probe"

        def put() -> None:
            path.write_bytes(octets)
            _fsync(path)

        def get() -> None:
            if path.read_bytes() != octets:
                raise OSError("it gives back other octets than were put")

        return {"put": put, "get": get, "delete": path.unlink}

    def close(self) -> None:
        """Make all durable and close the segments."""
        self.sync()
        with self._lock:
            for segment in self._segments.values():
                os.close(segment.descriptor)
            self._segments = {}

    def _new_segment(self, bureau: str) -> _Segment:
        path = self._bureau(bureau) / new_name("segment")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._unsynced[path.parent] = None
        return _Segment(path, descriptor)

    def _bureau(self, bureau: str) -> Path:
        folder = self._folder / bureau
        if not folder.exists():
            folder.mkdir(exist_ok=True)
            self._unsynced[self._folder] = None
        return folder


def _file(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
