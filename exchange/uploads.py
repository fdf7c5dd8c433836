"""Content too large for one message, as it comes in pieces: each upload a file until it is delivered or out of time.

What an upload is for was signed when it began, so its pieces can become nothing else. Nothing here is believed to be
whole: the content's digest is compared once more when the delivery is complete. A restart keeps what has come.
"""

import os
import secrets
import threading
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from exchange.small_file import write_whole
from security.errors import Refusal, Unavailable
from security.message import Content, file_content

MOST_AT_ONCE: Final = 8
MOST_OF_ONE: Final = 2


class Upload(msgspec.Struct, frozen=True):
    """What an upload is for. signer: the bureau whose key began it; content_digest: SHA-256, hex; began_at: UTC."""

    signer: str
    sender: str
    feed: str
    message_id: str
    content_type: str
    content_digest: str
    content_length: int
    began_at: datetime


class Uploads:
    """The uploads under way. folder: `{id}.json`, what it is for, and `{id}.part`, what has come.

    time: after which one that is not complete is removed
    """

    def __init__(self, folder: Path, time: timedelta) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._time, self._lock = folder, time, threading.Lock()
        self._known: dict[str, Upload] = {}
        for path in folder.glob("*.json"):
            self._known[path.stem] = msgspec.json.decode(path.read_bytes(), type=Upload)

    def sweep(self, now: datetime) -> None:
        """Remove what is out of time, and what a crash left half made or half removed. For the one process that takes
        pieces, before it takes any."""
        with self._lock:
            self._remove_late(now)
            for path in self._folder.iterdir():
                if path.stem not in self._known or path.suffix not in (".json", ".part"):
                    path.unlink()

    def begin(self, upload: Upload) -> tuple[str, int]:
        """The id of an upload, and how many octets of it have come: the same again goes on where it was.

        Raises Unavailable when too many are under way, or too many of this bureau.
        """
        with self._lock:
            self._remove_late(upload.began_at)
            for id, known in self._known.items():
                if msgspec.structs.replace(known, began_at=upload.began_at) == upload:
                    return id, self._size(id)
            theirs = sum(known.signer == upload.signer for known in self._known.values())
            if len(self._known) >= MOST_AT_ONCE or theirs >= MOST_OF_ONE:
                raise Unavailable(f"too many uploads: {theirs} of {upload.signer}, {len(self._known)} in all")
            id = secrets.token_hex(16)
            self._part(id).touch(0o600, exist_ok=False)
            write_whole(self._folder / f"{id}.json", msgspec.json.encode(upload))
            self._known[id] = upload
            return id, 0

    def append(self, id: str, names: tuple[str, ...], offset: int, piece: Content) -> int:
        """Add a piece at an offset; gives how many octets have come. A piece that has come already changes nothing.

        names: signer, sender, feed, message id. Raises Refusal `upload.unknown`, `upload.offset`; OSError.
        """
        with self._lock:
            upload, size = self._named(id, names), self._size(id)
            if offset + piece.size <= size:
                return size
            if offset != size or size + piece.size > upload.content_length:
                raise Refusal("upload.offset", f"{offset} + {piece.size}, {size} of {upload.content_length} have come")
            try:
                with self._part(id).open("r+b") as file:
                    file.seek(size)
                    file.writelines(piece.pieces())
            except OSError:
                os.truncate(self._part(id), size)  # the disk is full: half a piece is none
                raise
            return self._size(id)

    def whole(self, id: str) -> Content:
        """All of an upload that has come whole, hashed anew. Raises Refusal `upload.unknown`, `upload.incomplete`."""
        with self._lock:
            upload = self._known.get(id)
            if upload is None:
                raise Refusal("upload.unknown", id[:40])
            if self._size(id) < upload.content_length:
                raise Refusal("upload.incomplete", f"{self._size(id)} of {upload.content_length}")
        return file_content(self._part(id))

    def check(self, id: str, names: tuple[str, ...]) -> None:
        """Return if it is an upload of this signer for this delivery. Raises Refusal `upload.unknown`."""
        with self._lock:
            self._named(id, names)

    def until(self, id: str) -> datetime:
        """When an upload is removed that is not complete."""
        return self._known[id].began_at + self._time

    def end(self, id: str) -> None:
        """Remove an upload: it is delivered."""
        with self._lock:
            self._remove(id)

    def forget(self, sender: str, message_id: str) -> None:
        """Remove what has come of a delivery that is to be erased."""
        with self._lock:
            named = [id for id, one in self._known.items() if (one.sender, one.message_id) == (sender, message_id)]
            for id in named:
                self._remove(id)

    def _named(self, id: str, names: tuple[str, ...]) -> Upload:
        upload = self._known.get(id)
        # Another's is unknown like one that never was: an id tells nothing of who uploads what.
        if upload is None or (upload.signer, upload.sender, upload.feed, upload.message_id) != names:
            raise Refusal("upload.unknown", id[:40])
        return upload

    def _remove_late(self, now: datetime) -> None:
        for id in [id for id, upload in self._known.items() if upload.began_at + self._time < now]:
            self._remove(id)

    def _remove(self, id: str) -> None:
        if self._known.pop(id, None) is not None:
            (self._folder / f"{id}.json").unlink(missing_ok=True)
            self._part(id).unlink(missing_ok=True)

    def _size(self, id: str) -> int:
        return self._part(id).stat().st_size

    def _part(self, id: str) -> Path:
        return self._folder / f"{id}.part"
