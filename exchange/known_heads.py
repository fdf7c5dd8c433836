"""Heads of the log that are known outside its database: whether the log has all of them, or entries were lost.

In a folder that lies apart from the state, `serve` keeps the newest head that went out; an operator puts beside it what
witnesses, timestamps or bureaus show. A log that lies behind one of them signed larger heads already: it takes no entry
under that name, for no size may be signed twice.
"""

import logging
import threading
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec

from exchange.database import FAILURES, Database
from exchange.journal import Journal
from exchange.own_keys import epoch_number
from exchange.small_file import write_whole
from security.batch import unverified
from security.checkpoint import MOST_CHARACTERS, Checkpoint
from security.errors import Misconfigured, Refusal

NEWEST: Final = "newest.checkpoint"
EVERY_S: Final = 1.0
_OF_LOG: Final = "SELECT note FROM heads WHERE origin = ? AND note IS NOT NULL ORDER BY size DESC LIMIT 1"

log = logging.getLogger("yongtong.heads")


class Gap(msgspec.Struct, frozen=True):
    """A log that lost entries. log, size, root: as it stands, root in hex; known: the largest head that is known of it,
    larger, or of other entries"""

    log: str
    size: int
    root: str
    known: Checkpoint

    def __str__(self) -> str:
        """For a person who is to act."""
        known = self.known
        lost = f"{known.size - self.size} entries" if known.size > self.size else "other entries"
        return f"{self.log}: {self.size}; known {known.origin}: {known.size}; lost: {lost}"


def texts_in(folder: Path) -> dict[str, str]:
    """The heads in the folder, by file, unverified. Raises Misconfigured where one cannot be read."""
    found = {}
    for path in sorted(folder.glob("*.checkpoint")):
        try:
            found[str(path)] = path.read_text(encoding="utf-8")
        except (OSError, UnicodeError) as problem:
            raise Misconfigured(
                "config.file", f"{path}: a head that is known of the log cannot be read ({problem})"
            ) from problem
    return found


def head_text(path: Path) -> str:
    """The head in a file: a checkpoint, or the one that a receipt or report stands on. Raises Misconfigured."""
    try:
        octets = path.read_bytes()
        text = octets.decode()
        if text.startswith("{"):
            text = str(unverified(octets)["checkpoint"])
    except (OSError, UnicodeError, ValueError, KeyError, Refusal) as problem:
        raise Misconfigured("config.file", f"{path}: neither a checkpoint nor a receipt ({problem})") from problem
    if len(text) > MOST_CHARACTERS:
        raise Misconfigured("config.file", f"{path}: too long for a checkpoint")
    return text


def keep(folder: Path, head: Checkpoint, text: str) -> None:
    """Put a head beside the newest one that went out. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    name = head.origin.replace("/", "_")
    write_whole(folder / f"known-{name}-{head.size}-{head.root.hex()[:8]}.checkpoint", text.encode())


def gap_of(journal: Journal, heads: Iterable[Checkpoint]) -> Gap | None:
    """Whether a log lies behind one of its heads that are known outside: the largest of these.

    heads: those whose signatures hold, of whichever epoch. What was lost of an epoch that is over since is settled.
    """
    name, size = journal.log_name(), journal.size()
    open_now = epoch_number(name, journal.origin) or 1

    def lost(head: Checkpoint) -> bool:
        epoch = epoch_number(head.origin, journal.origin) or 0
        return epoch > open_now or (epoch == open_now and not journal.has(head))

    found = [head for head in heads if lost(head)]
    if not found:
        return None
    largest = max(found, key=lambda head: (epoch_number(head.origin, journal.origin), head.size))
    return Gap(name, size, journal.root().hex(), largest)


class HeadsOut:
    """Keeps the newest signed head of a log in a folder that lies elsewhere, once a second, until it is closed.

    log: the log's name in checkpoints
    """

    def __init__(self, database: Database, log: str, folder: Path, every_s: float = EVERY_S) -> None:
        self._database, self._log, self._folder, self._every_s = database, log, folder, every_s
        self._kept, self._stopping = "", threading.Event()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._thread = threading.Thread(target=self._run, name="heads", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Keep the last one, and end."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        with closing(self._database.connect()) as connection:

            def newest() -> str:
                row = connection.execute(_OF_LOG, (self._log,)).fetchone()
                return str(row[0]) if row else ""

            while not self._stopping.wait(self._every_s):
                self._keep(newest)
            self._keep(newest)

    def _keep(self, newest: Callable[[], str]) -> None:
        try:
            text = newest()
            if text and text != self._kept:
                write_whole(self._folder / NEWEST, text.encode())
                self._kept = text
        except (OSError, *FAILURES) as problem:  # the bus goes on; who wipes it now finds less of a gap than there is
            log.warning("heads.not_kept folder=%s reason=%s", self._folder, problem)
