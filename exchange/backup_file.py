"""A backup as a file: a plain tar, written and read as a stream, whose last member is the signed manifest.

    journal.sqlite, store.sqlite    as of one moment, whichever engine they come from
    origin.json, anchors.json       what `init` fixed, and what partners trust
    reports-pushed, reports-laid-out, subscribers.json    up to where reports and changes went out, if any did
    districts/BUREAU/…              of a city above districts: the heads of their logs, and forks that were found
    evidence/BUREAU/FILE            the files that the inbox names, sealed ones as they lie
    members.jsonl                   name, octets and SHA-256 of each member before it, a line each
    manifest.jws                    `Manifest`, signed by the bus's answer key; it ends the file

No member is compressed, so none can be larger than the file itself.
"""

import io
import os
import re
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Final

import msgspec

from exchange.state_root import Table
from security.errors import Refusal

FORMAT: Final = 1
KIND: Final = "yt-backup+jws"
JOURNAL: Final = "journal.sqlite"
STORE: Final = "store.sqlite"
SMALL: Final = re.compile(
    r"origin\.json|anchors\.json|reports-pushed|reports-laid-out|subscribers\.json"
    r"|districts/[a-z0-9][a-z0-9-]{0,63}/(checkpoint|forks/[0-9TZ.]{1,40}/[a-z]{1,40}\.[a-z]{1,20})"
)
MEMBERS: Final = "members.jsonl"
MANIFEST: Final = "manifest.jws"
MOST_SMALL_BYTES: Final = 4 << 20  # of what is read as a whole
PIECE_BYTES: Final = 1 << 20
EVIDENCE: Final = re.compile(r"evidence/[a-z0-9][a-z0-9._-]{0,63}/[a-z]+-[0-9a-f-]{1,80}")

Sink = Callable[[str], IO[bytes] | None]  # where a member goes, by its name; None: only looked at


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a backup says of itself.

    id:             by which the audit entry that was made before it names it
    origin, edition, hash, founding, evidence_key: as `init` fixed them
    made_at:        RFC 3339, UTC
    size, root:     of the log, root in hex; checkpoint: the largest signed head in it
    entry:          the number of that audit entry
    tables, state_root: as `exchange.state_root` has them
    members, octets: of the members listed; listed: SHA-256 of members.jsonl
    """

    v: int
    id: str
    origin: str
    edition: str
    hash: str
    founding: str
    evidence_key: str
    made_at: str
    size: int
    root: str
    checkpoint: str
    entry: int
    tables: list[Table]
    state_root: str
    members: int
    octets: int
    listed: str


class Written(msgspec.Struct, frozen=True):
    """How much was written before the manifest."""

    members: int
    octets: int
    listed: str


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line of members.jsonl."""

    name: str
    octets: int
    sha256: str


class _Hashing:
    """A stream that is hashed as it is read."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self.digest = stream, sha256()

    def read(self, size: int) -> bytes:
        """Read on."""
        octets = self._stream.read(size)
        self.digest.update(octets)
        return octets


class Writer:
    """Writes one backup, member by member; memory stays as it is, however many they are."""

    def __init__(self, target: IO[bytes], list_of: IO[bytes]) -> None:
        self._tar = tarfile.open(fileobj=target, mode="w:", format=tarfile.GNU_FORMAT)  # noqa: SIM115
        self._list, self._listed, self.members, self.octets = list_of, sha256(), 0, 0

    def add(self, name: str, stream: IO[bytes], octets: int) -> None:
        """Write a member of so many octets. Raises OSError, also where the stream ends before."""
        hashing = _Hashing(stream)
        self._put(name, hashing, octets)
        line = msgspec.json.encode(Line(name, octets, hashing.digest.hexdigest())) + b"\n"
        self._list.write(line)
        self._listed.update(line)
        self.members, self.octets = self.members + 1, self.octets + octets

    def list_members(self) -> Written:
        """Write the list; gives what the manifest says of it."""
        size = self._list.tell()
        self._list.seek(0)
        self._put(MEMBERS, self._list, size)
        return Written(self.members, self.octets, self._listed.hexdigest())

    def end(self, signed_manifest: bytes) -> None:
        """Write the manifest, and end the file."""
        self._put(MANIFEST, io.BytesIO(signed_manifest), len(signed_manifest))
        self._tar.close()

    def _put(self, name: str, stream: "IO[bytes] | _Hashing", octets: int) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode = octets, 0o600
        self._tar.addfile(info, stream)  # type: ignore[arg-type]  # it only reads
        self._tar.members.clear()  # type: ignore[attr-defined]  # it would remember every one


def read(path: Path, sink: Sink) -> tuple[bytes, str]:
    """Read a whole backup, and give its signed manifest and the list's digest, once every member is what the list says.

    Raises Refusal `backup.not_one`, `backup.cut_short`, `backup.altered` with the member's name; OSError.
    """
    with path.open("rb") as file, TemporaryFile() as ours:
        octets = os.fstat(file.fileno()).st_size
        listed = ""
        with _tar(file, octets) as tar:
            for info in _members(tar, octets):
                stream = tar.extractfile(info)
                assert stream is not None  # a regular file
                if info.name == MANIFEST:
                    if not listed:
                        raise Refusal("backup.not_one", "a manifest before the list of members")
                    return stream.read(MOST_SMALL_BYTES), listed
                if info.name == MEMBERS:
                    listed = _compared(stream, ours)
                    continue
                digest = _copied(stream, info.size, sink(info.name))
                ours.write(msgspec.json.encode(Line(info.name, info.size, digest)) + b"\n")
        # Where a head is no head the library takes it for the end of the file.
        file.seek(tar.offset)
        head = file.read(tarfile.BLOCKSIZE)
        if len(head) == tarfile.BLOCKSIZE and any(head):
            raise Refusal("backup.altered", f"octet {tar.offset}")
        raise Refusal("backup.cut_short", path.name)


@contextmanager
def _tar(file: IO[bytes], octets: int) -> Iterator[tarfile.TarFile]:
    try:
        tar = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115  # never by itself decompressed
    except (tarfile.TarError, OSError) as problem:
        short = octets < tarfile.RECORDSIZE
        raise Refusal("backup.cut_short" if short else "backup.not_one", str(problem)[:80]) from problem
    try:
        yield tar
    except tarfile.TarError as problem:
        raise Refusal("backup.cut_short", str(problem)[:80]) from problem


def _members(tar: tarfile.TarFile, octets: int) -> Iterator[tarfile.TarInfo]:
    """The members, each of a name and kind that a backup has, and none twice but in the order of their places."""
    seen = set[str]()
    while (info := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # as above
        small = info.name == MANIFEST or SMALL.fullmatch(info.name)
        fixed = small or info.name in (JOURNAL, STORE, MEMBERS)
        # A link, a device, a sparse file, a path that leads elsewhere: a backup has none of them.
        if info.type != tarfile.REGTYPE or not (fixed or EVIDENCE.fullmatch(info.name)) or info.name in seen:
            raise Refusal("backup.not_one", info.name[:80])
        if small and info.size > MOST_SMALL_BYTES:
            raise Refusal("backup.not_one", info.name)
        if info.offset_data + info.size > octets:
            raise Refusal("backup.cut_short", info.name)
        if fixed:
            seen.add(info.name)
        yield info


def _copied(stream: IO[bytes], size: int, target: IO[bytes] | None) -> str:
    """The digest of a member, hex, that was copied on the way."""
    digest, left = sha256(), size
    with target or io.BytesIO() as out:
        while left:
            piece = stream.read(min(left, PIECE_BYTES))
            digest.update(piece)
            left -= len(piece)
            if target is not None:
                out.write(piece)
    return digest.hexdigest()


def _compared(stream: IO[bytes], ours: IO[bytes]) -> str:
    """The list's own digest, hex, once what was read is what it says, line by line."""
    ours.seek(0)
    digest = sha256()
    for line in stream:
        digest.update(line)
        found = ours.readline()
        if line != found:
            raise Refusal("backup.altered", _name_in(found) or _name_in(line) or MEMBERS)
    if rest := ours.readline():
        raise Refusal("backup.altered", _name_in(rest))
    return digest.hexdigest()


def _name_in(line: bytes) -> str:
    try:
        return msgspec.json.decode(line, type=Line).name
    except (msgspec.MsgspecError, UnicodeError):
        return ""
