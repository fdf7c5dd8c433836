"""A request body within its limits: in memory when small, spooled to a file when large, never half kept."""

import asyncio
import contextlib
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Final

from starlette.types import Message, Receive

from security.errors import Refusal, Unavailable
from security.message import Content, Digest

SPOOL_ABOVE_BYTES: Final = 1_048_576
LINGER_SECONDS: Final = 2.0
LINGER_BYTES: Final = 4_194_304


class Spool:
    """The folder for bodies above 1 MiB, and how many may lie in it at a time: a disk is not to be filled from outside.

    most_of_one: of one bureau, so that one who sends slowly keeps nobody else from sending

    What a crash left in the folder is removed.
    """

    def __init__(self, folder: Path, most_at_once: int = 16, most_of_one: int = 4) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for left_over in folder.glob("body-*"):
            left_over.unlink(missing_ok=True)
        self._folder, self._most_at_once, self._most_of_one = folder, most_at_once, most_of_one
        self._owners: dict[Path, str] = {}

    def take(self, bureau: str) -> tuple[IO[bytes], Path]:
        """A new file. Raises Unavailable when too many lie there, or too many of this bureau."""
        theirs = sum(owner == bureau for owner in self._owners.values())
        if len(self._owners) >= self._most_at_once or theirs >= self._most_of_one:
            raise Unavailable(f"too many large bodies at once: {theirs} of {bureau}, {len(self._owners)} in all")
        handle, name = tempfile.mkstemp(prefix="body-", dir=self._folder)
        path = Path(name)
        self._owners[path] = bureau
        return os.fdopen(handle, "wb"), path

    def give_back(self, path: Path) -> None:
        """Remove a file."""
        del self._owners[path]
        path.unlink(missing_ok=True)


class BodyCutOff(Exception):
    """The client went away before its body was whole. Nothing is kept and nobody is left to answer."""


@contextlib.asynccontextmanager
async def read_body(
    receive: Receive, declared_bytes: int | None, *, max_bytes: int, seconds: float, spool: Spool, bureau: str
) -> AsyncIterator[Content]:
    """The whole body, hashed as it came; its spool file is removed when the block is left.

    declared_bytes: Content-Length, if there was one; only ever a reason to refuse early
    bureau:         whose connection it is

    Raises Refusal `size.too_large`, `http.body_slow`; Unavailable; BodyCutOff.
    """
    if declared_bytes is not None and declared_bytes > max_bytes:
        raise Refusal("size.too_large", f"{declared_bytes} > {max_bytes}")
    body = _Body(spool, bureau, max_bytes)
    try:
        try:
            async with asyncio.timeout(seconds):
                await body.fill(receive)
            content = body.content()
        except TimeoutError as problem:
            raise Refusal("http.body_slow", f"> {seconds:g} s") from problem
        except OSError as problem:
            raise Unavailable(f"a large body cannot be spooled: {problem}") from problem
        yield content
    finally:
        body.remove()


class _Body:
    """Octets on their way in. The last step before a file is the limit, so no more than it is ever on disk."""

    def __init__(self, spool: Spool, bureau: str, max_bytes: int) -> None:
        self._spool, self._bureau, self._max_bytes = spool, bureau, max_bytes
        self._pieces: list[bytes] = []
        self._file: IO[bytes] | None = None
        self._hash = hashlib.sha256()
        self._size = 0

    async def fill(self, receive: Receive) -> None:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise BodyCutOff
            self._take(message)
            if not message.get("more_body", False):
                return

    def _take(self, message: Message) -> None:
        piece: bytes = message.get("body", b"")
        self._size += len(piece)
        if self._size > self._max_bytes:
            raise Refusal("size.too_large", f"> {self._max_bytes}")
        self._hash.update(piece)
        if self._file is not None:
            self._file.write(piece)
            return
        self._pieces.append(piece)
        if self._size > SPOOL_ABOVE_BYTES:
            self._begin_file()

    def _begin_file(self) -> None:
        self._file, self._path = self._spool.take(self._bureau)
        self._file.write(b"".join(self._pieces))
        self._pieces = []

    def content(self) -> Content:
        digest = Digest("SHA-256", self._hash.digest())
        if self._file is None:
            return Content(self._size, digest, octets=b"".join(self._pieces))
        self._file.flush()
        return Content(self._size, digest, path=self._path)

    def remove(self) -> None:
        if self._file is not None:
            self._spool.give_back(self._path)
            with contextlib.suppress(OSError):  # what was not written yet is written at closing, if there is room
                self._file.close()


async def discard(receive: Receive) -> None:
    """Let the client finish sending for a moment, so that it reads the refusal instead of a reset connection."""
    left_bytes = LINGER_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while left_bytes > 0:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
                left_bytes -= len(message.get("body", b""))
