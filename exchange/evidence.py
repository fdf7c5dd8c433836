"""The bytes as they came, kept per bureau before the journal says that a delivery was accepted.

Payloads up to 64 KiB lie in segments, larger ones in a file of their own. A location names place and digest:
`bureau/name:offset:size:sha256`. What a crash leaves without an inbox row is swept later.

What a sensitive feed sent, or where the settings say so everything, is sealed (`security.sealing`) before it is
written: on disk it never lies in the clear, and what is read is decrypted in memory, piece by piece where it is large,
so there is nothing for a crash to leave behind.
Its location ends in the payload's wrapped data key: size and digest are of the payload, not of what lies on disk. The
location stands in the inbox row, outside the log's tree, so that erasing it there destroys the payload and no proof.
"""

import os
import re
import secrets
import threading
import time
from collections.abc import Collection, Iterable
from datetime import datetime
from pathlib import Path
from typing import IO, Final

import msgspec

from exchange.faults import durable_step
from security.errors import AuditBroken, Misconfigured
from security.message import Content, Digest, sha256
from security.sealing import PIECE_BYTES, WRAPPED, Cipher, SealingKey, open_sealed, seal, sealed_size, unseal

MOST_IN_SEGMENT: Final = 65_536  # octets of one payload
SEGMENT_BYTES: Final = 64 << 20  # a segment is closed when it has grown to this
_LOCATION = re.compile(
    r"([a-z0-9][a-z0-9._-]{0,63})/([a-z]+-[0-9a-f-]+):(\d{1,19}):(\d{1,19}):([0-9a-f]{64})(?::(" + WRAPPED + "))?"
)
_BUREAU = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class _Segment(msgspec.Struct):
    path: Path
    descriptor: int
    size: int = 0


class _Place(msgspec.Struct, frozen=True):
    """A location taken apart. wrapped: the data key as text, empty where the payload is not sealed."""

    path: Path
    offset: int
    size: int
    digest: Digest
    wrapped: str


class Evidence:
    """The evidence of one bus in a folder, a folder a bureau within. Each process writes segments of its own.

    key:      seals what sensitive feeds sent; without one, only what is not sealed can be kept and read
    cipher:   by which what is kept from now on is sealed; everything sealed is read, whatever stands here
    seal_all: seal what every feed sent
    """

    def __init__(
        self,
        folder: Path,
        key: SealingKey | None = None,
        cipher: Cipher = "AES-256-GCM",
        *,
        seal_all: bool = False,
    ) -> None:
        self._folder, self._key, self._cipher, self._seal_all = folder, key, cipher, seal_all
        self._lock = threading.Lock()
        self._syncing = threading.Lock()
        self._segments: dict[str, _Segment] = {}
        self._unsynced: dict[Path, None] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def keep(self, bureau: str, raw: Content, *, sealed: bool = False) -> str:
        """Write a payload; gives its location. Durable only after the next `sync`.

        sealed: because its feed is sensitive; where all is sealed, it is sealed in any case
        """
        if not _BUREAU.fullmatch(bureau):
            raise ValueError(f"{bureau!r} cannot name a folder")
        pieces, wrapped = raw.pieces(PIECE_BYTES), ""
        if sealed or self._seal_all:
            data_key, wrapped = self._sealing_key().new_data_key(raw.digest.value, self._cipher)
            pieces, wrapped = seal(pieces, raw.size, data_key), f":{wrapped}"
        if raw.size > MOST_IN_SEGMENT:
            path, offset = self._keep_alone(bureau, pieces), 0
        else:
            octets = b"".join(pieces)
            with self._lock:
                path, offset = self._keep_in_segment(bureau, octets)
        return f"{bureau}/{path.name}:{offset}:{raw.size}:{raw.digest.hex}{wrapped}"

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
        """A payload by its location: in memory and checked when small, a slice of a file or stream when large.

        Raises AuditBroken when it is not there, sealed under another key, or not what was kept; of a large one that is
        sealed, when the altered piece is read.
        """
        place = self._found(location)
        try:
            return self._opened(place)
        except (OSError, AuditBroken) as problem:
            raise AuditBroken(f"evidence {place.path.name} at {place.offset} cannot be read: {problem}") from problem

    def _opened(self, place: _Place) -> Content:
        data_key = self._sealing_key().data_key(place.wrapped, place.digest.value) if place.wrapped else None
        if place.size > MOST_IN_SEGMENT:
            if data_key is None:
                return Content(size=place.size, digest=place.digest, path=place.path, offset=place.offset)
            return Content(size=place.size, digest=place.digest, source=lambda: _unsealed(place, data_key))
        length = place.size if data_key is None else sealed_size(place.size)
        octets = _pread(place.path, length, place.offset)
        if data_key is not None:
            octets = unseal(octets, place.size, data_key)
        content = Content(size=place.size, digest=sha256(octets), octets=octets)
        if content.digest != place.digest:
            raise AuditBroken("it is not what was kept")
        return content

    def digest(self, location: str) -> Digest:
        """The digest that a location states of its payload. Raises AuditBroken where it is no location."""
        return self._found(location).digest

    def reseal(self, location: str) -> str:
        """The same payload kept once more, sealed; gives its new location. The old one is there until it is erased."""
        return self.keep(location.partition("/")[0], self.read(location), sealed=True)

    def erase(self, location: str) -> None:
        """Destroy a payload's octets where they lie; again does nothing more. Raises OSError, AuditBroken.

        A file of its own goes; in a segment, which others share, zeros are written over it. What a disk keeps below its
        file system is the operator's to wipe.
        """
        place = self._found(location)
        length = sealed_size(place.size) if place.wrapped else place.size
        try:
            with place.path.open("r+b") as file:
                file.seek(place.offset)
                for start in range(0, length, PIECE_BYTES):
                    file.write(bytes(min(PIECE_BYTES, length - start)))
                file.flush()
                os.fsync(file.fileno())
        except FileNotFoundError:
            return
        if place.path.name.startswith("payload"):
            place.path.unlink()
            _fsync(place.path.parent)

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

    def _keep_alone(self, bureau: str, pieces: Iterable[bytes]) -> Path:
        with self._lock:
            path = self._new_path(bureau, "payload")
        with path.open("xb") as target:
            target.writelines(pieces)
        with self._lock:
            self._unsynced |= {path: None, path.parent: None}
        return path

    def _sealing_key(self) -> SealingKey:
        if self._key is None:
            raise Misconfigured("this bus has no evidence key, and a sensitive feed's evidence is sealed")
        return self._key

    def _new_path(self, bureau: str, kind: str) -> Path:
        folder = self._folder / bureau
        if not folder.exists():
            folder.mkdir(exist_ok=True)
            self._unsynced[self._folder] = None
        return folder / f"{kind}-{time.time_ns():x}-{secrets.token_hex(4)}"

    def _found(self, location: str) -> _Place:
        parts = _LOCATION.fullmatch(location)
        if parts is None:
            raise AuditBroken(f"{location!r:.200} is no place of evidence")
        bureau, name, offset, size, digest, wrapped = parts.groups(default="")
        found = Digest("SHA-256", bytes.fromhex(digest))
        return _Place(self._folder / bureau / name, int(offset), int(size), found, wrapped)


def is_sealed(location: str) -> bool:
    """Whether what lies there is sealed: then the location ends in the wrapped data key."""
    return location.count(":") == 4


def is_erased(location: str) -> bool:
    """Whether the octets that lay there were erased by decision: then it names the decision, `erased:{id}`."""
    return location.startswith("erased:")


def _unsealed(place: _Place, data_key: bytes) -> IO[bytes]:
    """A sealed file as a stream of what was sealed. Raises AuditBroken when it is gone, or longer or shorter."""
    try:
        stream = place.path.open("rb", buffering=0)
        found = os.fstat(stream.fileno()).st_size
    except OSError as problem:
        raise AuditBroken(f"evidence {place.path.name} cannot be read") from problem
    if found != sealed_size(place.size):
        stream.close()
        raise AuditBroken(f"evidence {place.path.name} has {found} octets, {sealed_size(place.size)} were sealed")
    return open_sealed(stream, place.size, data_key)


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
