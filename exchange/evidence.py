"""The bytes as they came, kept per bureau before the journal says that a delivery was accepted.

Payloads up to 64 KiB lie in segments, larger ones in a file of their own; in which place, a folder or a bucket, is
`exchange.evidence_place`'s to say. A location names file and digest: `bureau/name:offset:size:sha256`. What a crash
leaves without an inbox row is swept later.

What a sensitive feed sent, or where the settings say so everything, is sealed (`security.sealing`) before it leaves
for its place: there it never lies in the clear, and what is read is decrypted in memory, piece by piece where it is
large, so there is nothing for a crash to leave behind.
Its location ends in the payload's wrapped data key: size and digest are of the payload, not of what lies there. The
location stands in the inbox row, outside the log's tree, so that erasing it there destroys the payload and no proof.
"""

import io
import re
from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from functools import partial
from typing import IO, Final

import msgspec

from exchange.evidence_place import FILE, Place
from security.errors import AuditBroken, Misconfigured, Unavailable
from security.message import Content, Digest, sha256
from security.sealing import PIECE_BYTES, WRAPPED, Cipher, SealingKey, open_sealed, seal, sealed_size, unseal

MOST_IN_SEGMENT: Final = 65_536  # octets of one payload
_LOCATION = re.compile(rf"({FILE}):(\d{{1,19}}):(\d{{1,19}}):([0-9a-f]{{64}})(?::({WRAPPED}))?")
_BUREAU = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class _Kept(msgspec.Struct, frozen=True):
    """A location taken apart. wrapped: the data key as text, empty where the payload is not sealed."""

    file: str
    offset: int
    size: int
    digest: Digest
    wrapped: str


class Evidence:
    """The evidence of one bus.

    place:    where its octets lie
    key:      seals what sensitive feeds sent; without one, only what is not sealed can be kept and read
    cipher:   by which what is kept from now on is sealed; everything sealed is read, whatever stands here
    seal_all: seal what every feed sent
    """

    def __init__(
        self,
        place: Place,
        key: SealingKey | None = None,
        cipher: Cipher = "AES-256-GCM",
        *,
        seal_all: bool = False,
    ) -> None:
        self._place, self._key, self._cipher, self._seal_all = place, key, cipher, seal_all

    def keep(self, bureau: str, raw: Content, *, sealed: bool = False) -> str:
        """Hand a payload to its place; gives its location. Durable only after the next `sync`. Raises OSError.

        sealed: because its feed is sensitive; where all is sealed, it is sealed in any case
        """
        if not _BUREAU.fullmatch(bureau):
            raise ValueError(f"{bureau!r} cannot name a folder")
        pieces, wrapped = raw.pieces(PIECE_BYTES), ""
        if sealed or self._seal_all:
            data_key, wrapped = self._sealing_key().new_data_key(raw.digest.value, self._cipher)
            pieces, wrapped = seal(pieces, raw.size, data_key), f":{wrapped}"
        if raw.size > MOST_IN_SEGMENT:
            file, offset = self._place.put(bureau, pieces), 0
        else:
            file, offset = self._place.add(bureau, b"".join(pieces))
        return f"{file}:{offset}:{raw.size}:{raw.digest.hex}{wrapped}"

    def sync(self, locations: Iterable[str] = ()) -> None:
        """Make durable all that `keep` returned before this call. Raises OSError; then the next one tries again.

        locations: of payloads that nobody will ask for when this raises; those the next one leaves out, as far as it
                   can. None of them may be named by anybody yet, unless it is durable already.
        """
        try:
            self._place.sync()
        except OSError:
            for kept in map(_taken_apart, locations):
                self._place.withdraw(kept.file, kept.offset, _length(kept))
            raise

    def read(self, location: str) -> Content:
        """A payload by its location: in memory and checked when small, a stream when large.

        Raises AuditBroken when it is not there, sealed under another key, or not what was kept; of a large one that is
        sealed, when the altered piece is read. Raises Unavailable when its place cannot be asked now.
        """
        kept = _taken_apart(location)
        try:
            return self._opened(kept)
        except ConnectionError as problem:
            raise Unavailable(f"evidence cannot be read now: {problem}") from problem
        except (OSError, AuditBroken) as problem:
            raise AuditBroken(f"evidence {kept.file} at {kept.offset} cannot be read: {problem}") from problem

    def _opened(self, kept: _Kept) -> Content:
        data_key = self._sealing_key().data_key(kept.wrapped, kept.digest.value) if kept.wrapped else None
        if kept.size > MOST_IN_SEGMENT:
            opening: Callable[[], IO[bytes]] = partial(self._place.open, kept.file)
            if data_key is not None:
                opening = partial(_unsealed, opening, kept, data_key)
            return Content(size=kept.size, digest=kept.digest, source=opening)
        octets = self._place.read(kept.file, kept.offset, _length(kept))
        if data_key is not None:
            octets = unseal(octets, kept.size, data_key)
        content = Content(size=kept.size, digest=sha256(octets), octets=octets)
        if content.digest != kept.digest:
            raise AuditBroken("it is not what was kept")
        return content

    def digest(self, location: str) -> Digest:
        """The digest that a location states of its payload. Raises AuditBroken where it is no location."""
        return _taken_apart(location).digest

    def reseal(self, location: str) -> str:
        """The same payload kept once more, sealed; gives its new location. The old one is there until it is erased."""
        return self.keep(location.partition("/")[0], self.read(location), sealed=True)

    def erase(self, location: str) -> None:
        """Destroy a payload's octets where they lie; again does nothing more. Raises OSError, AuditBroken, and
        Unavailable when its place cannot be asked now."""
        kept = _taken_apart(location)
        try:
            self._place.destroy(kept.file, kept.offset, _length(kept))
        except ConnectionError as problem:
            raise Unavailable(f"evidence cannot be erased now: {problem}") from problem

    def sweep(self, known_files: Collection[str], older_than: datetime) -> int:
        """Remove files, `bureau/name`, that are not known and that nobody wrote to since; gives how many."""
        return self._place.sweep(known_files, older_than)

    def keeps_copies(self) -> str:
        """Why what is erased would go on lying in its place, for an operator; empty where it does not."""
        return self._place.keeps_copies()

    def close(self) -> None:
        """Make all durable and let go of its place."""
        self._place.close()

    def _sealing_key(self) -> SealingKey:
        if self._key is None:
            raise Misconfigured("config.key", "this bus has no evidence key, and a sensitive feed's evidence is sealed")
        return self._key


def is_sealed(location: str) -> bool:
    """Whether what lies there is sealed: then the location ends in the wrapped data key."""
    return location.count(":") == 4


def is_erased(location: str) -> bool:
    """Whether the octets that lay there were erased by decision: then it names the decision, `erased:{id}`."""
    return location.startswith("erased:")


def _taken_apart(location: str) -> _Kept:
    parts = _LOCATION.fullmatch(location)
    if parts is None:
        raise AuditBroken(f"{location!r:.200} is no place of evidence")
    file, offset, size, digest, wrapped = parts.groups(default="")
    return _Kept(file, int(offset), int(size), Digest("SHA-256", bytes.fromhex(digest)), wrapped)


def _length(kept: _Kept) -> int:
    """How many octets lie there."""
    return sealed_size(kept.size) if kept.wrapped else kept.size


def _unsealed(opening: Callable[[], IO[bytes]], kept: _Kept, data_key: bytes) -> IO[bytes]:
    """A sealed file as a stream of what was sealed. Raises AuditBroken when it is gone, or longer or shorter."""
    try:
        stream = opening()
    except ConnectionError:  # its place cannot be asked: nothing is said of the evidence
        raise
    except OSError as problem:
        raise AuditBroken(f"evidence {kept.file} cannot be read") from problem
    found = stream.seek(0, io.SEEK_END)
    if found != sealed_size(kept.size):
        stream.close()
        raise AuditBroken(f"evidence {kept.file} has {found} octets, {sealed_size(kept.size)} were sealed")
    return open_sealed(stream, kept.size, data_key)
