"""A package (摆渡包): a signed delivery in one file, for a one-way gateway or a courier: nothing can be asked back.

    `yongtong-package/1` and a line feed ‖ length of the envelope, 4 octets ‖ length of the content, 8 octets, both
    big-endian ‖ envelope, a JWS or CMS that carries no content itself ‖ content, whose digest the envelope signs

The lengths say when the file has come whole, and nothing else is rested on them: who signed what, the envelope says.
"""

import errno
import hashlib
import os
from pathlib import Path
from typing import IO, Final

import msgspec

from security.errors import Refusal
from security.message import Content
from security.signed_delivery import MOST_BYTES

MAGIC: Final = b"yongtong-package/1\n"
SUFFIX: Final = ".package"
_ENVELOPE_OCTETS, _CONTENT_OCTETS = 4, 8
HEAD_BYTES: Final = len(MAGIC) + _ENVELOPE_OCTETS + _CONTENT_OCTETS


class Head(msgspec.Struct, frozen=True):
    """What the first octets of a package say: lengths in octets."""

    envelope: int
    content: int

    @property
    def whole(self) -> int:
        """Octets of the whole file."""
        return HEAD_BYTES + self.envelope + self.content


class Package(msgspec.Struct, frozen=True):
    """A package taken apart. content: a slice of the file, hashed and not copied."""

    envelope: bytes
    content: Content


def head_of(stream: IO[bytes]) -> Head | None:
    """What a package's first octets say; None while there are fewer of them than a head has.

    Raises Refusal `package.not_one` where no package begins so.
    """
    octets = stream.read(HEAD_BYTES)
    if not octets.startswith(MAGIC[: len(octets)]):
        raise Refusal("package.not_one", "its first line is another")
    if len(octets) < HEAD_BYTES:
        return None
    middle = len(MAGIC) + _ENVELOPE_OCTETS
    head = Head(int.from_bytes(octets[len(MAGIC) : middle], "big"), int.from_bytes(octets[middle:], "big"))
    if not 0 < head.envelope <= MOST_BYTES:
        raise Refusal("package.not_one", f"an envelope of {head.envelope} octets")
    return head


def take_apart(raw: Content) -> Package:
    """Envelope and content of a whole package. Raises Refusal `package.not_one`, `package.length`."""
    with raw.open() as stream:
        head = head_of(stream)
        if head is None or head.whole != raw.size:
            raise Refusal("package.length", f"{head.whole if head else HEAD_BYTES} octets were to come, {raw.size} did")
        envelope = stream.read(head.envelope)
    return Package(envelope, raw.part(HEAD_BYTES + head.envelope, head.content))


def write_package(path: Path, envelope: bytes, content: Content) -> None:
    """A new package, on disk, or none. Raises OSError, also where something stands there, and where the content has
    become another since it was hashed."""
    lengths = len(envelope).to_bytes(_ENVELOPE_OCTETS, "big") + content.size.to_bytes(_CONTENT_OCTETS, "big")
    with path.open("xb") as file:
        try:
            file.writelines((MAGIC, lengths, envelope))
            hashed = hashlib.sha256()
            for piece in content.pieces():
                hashed.update(piece)
                file.write(piece)
            if hashed.digest() != content.digest.value:
                raise OSError(errno.EBUSY, "the content changed while it was packed")
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            path.unlink()
            raise
