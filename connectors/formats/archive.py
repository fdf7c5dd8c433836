"""A ZIP to a folder, under limits. No format of its own: `vector` and `dxf` read with it."""

import stat
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import IO, Final

from security.errors import Refusal
from security.message import Content

MEMBERS: Final = 2_000
UNPACKED_BYTES: Final = 2 << 30
RATIO: Final = 200  # unpacked to packed, of all together; a table padded with spaces has some 60
RATIO_ABOVE_BYTES: Final = 1 << 20  # what is smaller than that can do no harm
DEPTH: Final = 16  # folders
NAME_OCTETS: Final = 200
PACKED: Final = (b"PK\x03\x04", b"PK\x05\x06", b"Rar!", b"7z\xbc\xaf", b"\x1f\x8b")
_UTF_8: Final = 0x800  # flag: the name is UTF-8
_ENCRYPTED: Final = 0x1
_BROKEN: Final = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OverflowError, ValueError, OSError)


def is_archive(head: bytes) -> bool:
    """Whether a content that begins so is a ZIP."""
    return head.startswith(b"PK")


def unpack(content: Content, folder: Path, kept: Collection[str]) -> None:
    """Write members into the folder, endings in lower case: those of which ending, or name without one, is in `kept`.
    All others of a sheet's files are counted and not unpacked.

    Raises Refusal decode.archive_too_many, decode.archive_name, decode.archive_doubled, decode.archive_link,
    decode.archive_locked, decode.archive_nested, decode.archive_ratio, decode.encoding_unknown, decode.too_large,
    decode.not_readable.
    """
    try:
        with content.open() as stream, zipfile.ZipFile(_Slice(stream, content.size)) as archive:
            _write(archive, _checked(archive.infolist()), folder, content.size, kept)
    except _BROKEN as problem:
        raise Refusal("decode.not_readable", type(problem).__name__) from problem


class _Slice:
    """The first `size` octets of a stream from where it stands, as a file of their own."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self.stream, self.begin, self.size, self.at = stream, stream.tell(), size, 0

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = offset + (0, self.at, self.size)[whence]
        if self.at < 0:
            raise ValueError("before the beginning")
        return self.at

    def read(self, size: int = -1) -> bytes:
        left = max(self.size - self.at, 0)
        self.stream.seek(self.begin + self.at)
        octets = self.stream.read(left if size < 0 else min(size, left))
        self.at += len(octets)
        return octets


def _checked(members: list[zipfile.ZipInfo]) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """The files among the members by their names. Nothing is written before all of them are as they should be."""
    if len(members) > MEMBERS:
        raise Refusal("decode.archive_too_many", f"{len(members)}, at most {MEMBERS}")
    named: dict[PurePosixPath, zipfile.ZipInfo] = {}
    seen: set[str] = set()
    for number, member in enumerate(members, 1):
        name = _name(member, number)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):  # a link leads out of the folder
            raise Refusal("decode.archive_link", f"member {number}")
        if member.flag_bits & _ENCRYPTED or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Refusal("decode.archive_locked", f"member {number}")
        if member.is_dir():
            continue
        path = _path(name, number)
        # Which of two would be read? Names that differ in case alone are one on the sender's machine.
        if (alike := str(path).casefold()) in seen:
            raise Refusal("decode.archive_doubled", f"member {number}")
        seen.add(alike)
        named[path] = member
    return named


def _name(member: zipfile.ZipInfo, number: int) -> str:
    """As it was written: UTF-8 if it says so, else UTF-8 or GB 18030, whichever gives the same octets back."""
    if member.flag_bits & _UTF_8:
        return member.orig_filename
    octets = member.orig_filename.encode("cp437")
    for encoding in ("utf-8", "gb18030"):
        try:
            name = octets.decode(encoding)
        except UnicodeDecodeError:
            continue
        if name.encode(encoding) == octets:
            return name
    raise Refusal("decode.encoding_unknown", f"name of member {number}")


def _path(name: str, number: int) -> PurePosixPath:
    """Where it goes, endings in lower case."""
    parts = name.split("/")
    unsafe = "\\" in name or ":" in name or not name.isprintable() or not all(parts) or {".", ".."} & {*parts}
    if unsafe or len(parts) > DEPTH or any(len(part.encode(errors="replace")) > NAME_OCTETS for part in parts):
        raise Refusal("decode.archive_name", f"member {number}")
    ends = [PurePosixPath(part) for part in parts]
    return PurePosixPath(*(end.stem + end.suffix.lower() for end in ends))


def _write(
    archive: zipfile.ZipFile,
    named: dict[PurePosixPath, zipfile.ZipInfo],
    folder: Path,
    packed_bytes: int,
    kept: Collection[str],
) -> None:
    """Unpack member by member, and count what comes: what a member says of its size is the sender's word."""
    total = 0
    for path, member in named.items():
        wanted = (path.suffix or path.name) in kept
        target = folder / path
        if wanted:
            target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(member) as source, (target if wanted else Path("/dev/null")).open("wb") as written:
            head = source.read(8)
            if head.startswith(PACKED):
                raise Refusal("decode.archive_nested", path.suffix if wanted else "")
            piece = head
            while piece:
                total += len(piece)
                if total > UNPACKED_BYTES:
                    raise Refusal("decode.too_large", f"more than {UNPACKED_BYTES} octets unpacked")
                if total > RATIO_ABOVE_BYTES and total > RATIO * packed_bytes:
                    raise Refusal("decode.archive_ratio", f"more than {RATIO} to 1")
                written.write(piece)
                piece = source.read(1 << 20)
