"""The bytes as they came, kept per bureau before the journal says that a delivery was accepted.

Payloads up to 64 KiB lie in segments, larger ones in a file of their own. A location names place and digest:
`bureau/name:offset:size:sha256`. What a crash leaves without an inbox row is swept later.
"""

import os
import re
import secrets
import threading
import time
from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from exchange.faults import durable_step
from security.errors import AuditBroken
from security.message import Content, Digest, sha256

MOST_IN_SEGMENT: Final = 65_536  # octets of one payload
SEGMENT_BYTES: Final = 64 << 20  # a segment is closed when it has grown to this
PIECE_BYTES: Final = 1 << 20
_LOCATION = re.compile(r"([a-z0-9][a-z0-9._-]{0,63})/([a-z]+-[0-9a-f-]+):(\d{1,19}):(\d{1,19}):([0-9a-f]{64})")
_BUREAU = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class _Segment(msgspec.Struct):
    path: Path
    descriptor: int
    size: int = 0


class Evidence:
    """The evidence of one bus in a folder, a folder a bureau within. Each process writes segments of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._syncing = threading.Lock()
        self._segments: dict[str, _Segment] = {}
        self._unsynced: dict[Path, None] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def keep(self, bureau: str, raw: Content) -> str:
        """Write a payload; gives its location. Durable only after the next `sync`."""
        if not _BUREAU.fullmatch(bureau):
            raise ValueError(f"{bureau!r} cannot name a folder")
        if raw.size > MOST_IN_SEGMENT:
            path, offset = self._keep_alone(bureau, raw), 0
        else:
            with self._lock:
                path, offset = self._keep_in_segment(bureau, raw.read())
        return f"{bureau}/{path.name}:{offset}:{raw.size}:{raw.digest.hex}"

    def sync(self) -> None:
        """Make durable all that `keep` returned before this call."""
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

    def read(self, location: str) -> Content:
        """A payload by its location: in memory and checked when small, a slice of its file when large.

        Raises AuditBroken when it is not there, or (small ones) not what was kept.
        """
        path, offset, size, digest = self._found(location)
        if size > MOST_IN_SEGMENT:
            return Content(size=size, digest=Digest("SHA-256", digest), path=path, offset=offset)
        try:
            octets = _pread(path, size, offset)
        except OSError as problem:
            raise AuditBroken(f"evidence {location} cannot be read") from problem
        content = Content(size=size, digest=sha256(octets), octets=octets)
        if content.digest.value != digest:
            raise AuditBroken(f"evidence {location} is not what was kept")
        return content

    def sweep(self, known_files: Collection[str], older_than: datetime) -> int:
        """Remove files, `bureau/name`, that are not known and that nobody wrote to since; gives how many.

        A payload without an inbox row that shares its segment with others goes when the segment does.
        """
        removed = 0
        with self._lock:
            known = set(known_files)
            known |= {f"{path.parent.name}/{path.name}" for path in self._unsynced}
            known |= {f"{bureau}/{segment.path.name}" for bureau, segment in self._segments.items()}
            for path in self._folder.glob("*/*-*"):
                if f"{path.parent.name}/{path.name}" in known or path.stat().st_mtime >= older_than.timestamp():
                    continue
                path.unlink()
                removed += 1
        return removed

    def close(self) -> None:
        """Make all durable and close the segments."""
        self.sync()
        with self._lock:
            for segment in self._segments.values():
                os.close(segment.descriptor)
            self._segments = {}

    def _keep_in_segment(self, bureau: str, octets: bytes) -> tuple[Path, int]:
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
        return segment.path, offset

    def _new_segment(self, bureau: str) -> _Segment:
        path = self._new_path(bureau, "segment")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._unsynced[path.parent] = None
        return _Segment(path, descriptor)

    def _keep_alone(self, bureau: str, raw: Content) -> Path:
        with self._lock:
            path = self._new_path(bureau, "payload")
        with raw.open() as source, path.open("xb") as target:
            left = raw.size
            while left and (piece := source.read(min(left, PIECE_BYTES))):
                left -= target.write(piece)
        if left:
            raise OSError(f"{path}: the payload ended {left} octets early")
        with self._lock:
            self._unsynced |= {path: None, path.parent: None}
        return path

    def _new_path(self, bureau: str, kind: str) -> Path:
        folder = self._folder / bureau
        if not folder.exists():
            folder.mkdir(exist_ok=True)
            self._unsynced[self._folder] = None
        return folder / f"{kind}-{time.time_ns():x}-{secrets.token_hex(4)}"

    def _found(self, location: str) -> tuple[Path, int, int, bytes]:
        parts = _LOCATION.fullmatch(location)
        if parts is None:
            raise AuditBroken(f"{location!r:.200} is no place of evidence")
        bureau, name, offset, size, digest = parts.groups()
        return self._folder / bureau / name, int(offset), int(size), bytes.fromhex(digest)


def _pread(path: Path, size: int, offset: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(descriptor, size, offset)
    finally:
        os.close(descriptor)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
