"""An evidence bundle: a ZIP with one way of being written, and the manifest that its maker signed (ADR 30).

Parts are stored as they are, in order of name, without dates, comments and extra fields. Reading makes every header
again from the parts, so that nothing lies in the file that is not a part: two readers cannot see two bundles.
"""

import re
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from itertools import pairwise
from typing import IO, Final, Literal

import msgspec

from security.errors import Refusal
from security.jose import strict_object
from security.jws import jcs, key_named, open_document, sign_document
from security.keys import SigningKey
from security.message import PIECE_BYTES, Content, Digest

TYP: Final = "yt-bundle+jws"
MANIFEST: Final = "manifest.json"
MOST_PARTS: Final = 65_000  # a plain ZIP counts to 65,535
MOST_BYTES: Final = (1 << 32) - (1 << 24)  # of all; what its 32-bit offsets reach
MOST_MANIFEST: Final = 1 << 24
MOST_IN_MEMORY: Final = 1 << 20  # a larger part stays in its file
LONGEST_NAME: Final = 200

Kind = Literal["message", "ownership", "day"]

_NAME: Final = re.compile(r"[a-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")
_LOCAL: Final = struct.Struct("<4s5H3L2H")
_CENTRAL: Final = struct.Struct("<4s6H3L5H2L")
_END: Final = struct.Struct("<4s4H2LH")
_NEEDS, _FLAGS, _STORED, _TIME, _DATE = 10, 0, 0, 0, 0x21  # version 1.0; 1980-01-01 00:00


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the maker of a bundle signs.

    made_at:  RFC 3339, UTC
    parts:    SHA-256 of every other part, hex, by name
    erased:   day of erasure (+08:00) by name of part
    withheld: why, by name of part: `sealed`
    """

    v: Literal[1] = 1
    origin: str
    kind: Kind
    subject: str
    made_at: str
    parts: dict[str, str]
    erased: dict[str, str]
    withheld: dict[str, str]


class Container(msgspec.Struct, frozen=True):
    """A bundle taken apart. damaged: parts whose octets are not those that were packed, by their checksum."""

    parts: dict[str, Content]
    damaged: tuple[str, ...]


class _Header(msgspec.Struct, frozen=True):
    name: str
    crc: int
    size: int
    at: int

    def local(self) -> bytes:
        name = self.name.encode()
        sizes = (self.crc, self.size, self.size, len(name), 0)
        return _LOCAL.pack(b"PK\x03\x04", _NEEDS, _FLAGS, _STORED, _TIME, _DATE, *sizes) + name

    def central(self) -> bytes:
        name = self.name.encode()
        sizes = (self.crc, self.size, self.size, len(name), 0, 0, 0, 0, 0, self.at)
        return _CENTRAL.pack(b"PK\x01\x02", _NEEDS, _NEEDS, _FLAGS, _STORED, _TIME, _DATE, *sizes) + name


def is_bundle(octets: bytes) -> bool:
    """Whether a file that begins so can be a bundle: some ZIP, and no receipt."""
    return octets.startswith(b"PK")


def write(target: IO[bytes], parts: Mapping[str, Content]) -> None:
    """The container of these parts, piece by piece. Raises Refusal `bundle.too_large`; ValueError for other names."""
    if len(parts) > MOST_PARTS:
        raise Refusal("bundle.too_large", f"{len(parts)} parts")
    if (size := sum(content.size for content in parts.values())) > MOST_BYTES - (1 << 24):
        raise Refusal("bundle.too_large", f"{size} octets")
    headers, at = [], 0
    for name in sorted(parts):
        if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME:
            raise ValueError(f"{name!r} cannot name a part")
        content = parts[name]
        header = _Header(name, _crc(content), content.size, at)
        at += target.write(header.local())
        at += sum(target.write(piece) for piece in content.pieces())
        headers.append(header)
    target.write(_closing(headers, at))


def read(content: Content) -> Container:
    """A bundle taken apart. Raises Refusal `bundle.container` for a file that `write` would have written otherwise."""
    if content.size > MOST_BYTES:
        raise Refusal("bundle.container", f"{content.size} octets")
    with content.open() as stream:
        found = list(_taken_apart(stream, content))
        closing = _closing([header for header, _, _ in found], stream.tell() - content.offset)
        left = content.size - (stream.tell() - content.offset)
        if left != len(closing) or stream.read(left) != closing:
            raise Refusal("bundle.container", "its directory is not of its parts alone")
    names = [header.name for header, _, _ in found]
    if not found or not all(before < after for before, after in pairwise(names)):
        raise Refusal("bundle.container", "parts are doubled, or not in order of name")
    damaged = tuple(header.name for header, crc, _ in found if header.crc != crc)
    return Container({header.name: part for header, _, part in found}, damaged)


def sign_manifest(manifest: Manifest, key: SigningKey) -> bytes:
    """The manifest as a signed document. key: the answer key, with its certificate."""
    return sign_document(msgspec.to_builtins(manifest), TYP, key)


def open_manifest(octets: bytes, certificates: Sequence[bytes]) -> Manifest:
    """The manifest, once one of these certificates (DER) has signed it.

    Raises Refusal `bundle.manifest`, or one of `signature.*`.
    """
    known = {sha256(der).hexdigest(): der for der in certificates}
    if len(octets) > MOST_MANIFEST:
        raise Refusal("bundle.manifest", f"{len(octets)} octets")
    kid = key_named(octets, MOST_MANIFEST)
    if kid not in known:
        raise Refusal("bundle.manifest", "signed with a certificate that is not among the anchors")
    document = open_document(octets, known[kid], TYP, MOST_MANIFEST)
    if jcs(strict_object(octets)) != octets:  # what is round the signed texts has one spelling, too
        raise Refusal("bundle.manifest", "not canonical")
    try:
        manifest = msgspec.convert(document, Manifest)
        datetime.fromisoformat(manifest.made_at)
    except (msgspec.ValidationError, ValueError) as problem:
        raise Refusal("bundle.manifest", str(problem)[:120]) from problem
    return manifest


def _taken_apart(stream: IO[bytes], content: Content) -> Iterator[tuple[_Header, int, Content]]:
    """Each part as the file has it: its header, the checksum of its octets, the octets."""
    for _ in range(MOST_PARTS + 1):
        at = stream.tell() - content.offset
        octets = stream.read(_LOCAL.size)
        if not octets.startswith(b"PK\x03\x04") or len(octets) < _LOCAL.size:
            stream.seek(content.offset + at)
            return
        header = _header(octets, stream, at)
        if stream.tell() - content.offset + header.size > content.size:
            raise Refusal("bundle.container", f"{header.name} ends beyond the file")
        yield (header, *_part(stream, header.size, content))
    raise Refusal("bundle.container", f"more than {MOST_PARTS} parts")


def _header(octets: bytes, stream: IO[bytes], at: int) -> _Header:
    crc, _, size, length, _ = _LOCAL.unpack(octets)[6:]
    try:
        name = stream.read(min(length, LONGEST_NAME)).decode("ascii")
    except UnicodeDecodeError as problem:
        raise Refusal("bundle.container", "a name that is not ASCII") from problem
    header = _Header(name, crc, size, at)
    if not _NAME.fullmatch(name) or header.local() != octets + name.encode():
        raise Refusal("bundle.container", f"{name[:80]!r} is not packed as a bundle's parts are")
    return header


def _part(stream: IO[bytes], size: int, content: Content) -> tuple[int, Content]:
    at, crc, hashed, pieces, left = stream.tell(), 0, sha256(), [], size
    while left and (piece := stream.read(min(PIECE_BYTES, left))):
        crc, left = zlib.crc32(piece, crc), left - len(piece)
        hashed.update(piece)
        if size <= MOST_IN_MEMORY:
            pieces.append(piece)
    if left:
        raise Refusal("bundle.container", "the file ends within a part")
    digest = Digest("SHA-256", hashed.digest())
    if size <= MOST_IN_MEMORY:
        return crc, Content(size, digest, octets=b"".join(pieces))
    if content.octets is not None:
        return crc, Content(size, digest, octets=content.octets[at : at + size])
    return crc, Content(size, digest, path=content.path, offset=at, source=content.source)


def _closing(headers: Sequence[_Header], at: int) -> bytes:
    directory = b"".join(header.central() for header in headers)
    return directory + _END.pack(b"PK\x05\x06", 0, 0, len(headers), len(headers), len(directory), at, 0)


def _crc(content: Content) -> int:
    crc = 0
    for piece in content.pieces():
        crc = zlib.crc32(piece, crc)
    return crc
