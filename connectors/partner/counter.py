"""报送序号 Counting one's own deliveries to each feed, so that the bus sees when one is missing.

A number is written down for a message id before anything is sent, so a retry has the same one, after a crash too. What
the bus refused was not accepted under its number: the next delivery gets it.
"""

import random
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Final, Protocol, TypeVar

from connectors.partner.folder import PartnerFolder
from security.errors import Refusal, Unavailable
from security.jws import Document
from security.signed_delivery import HIGHEST


class Receipted(Protocol):
    """A receipt that was checked."""

    @property
    def document(self) -> Document:
        """Its members."""


T = TypeVar("T", bound=Receipted)

NAME: Final = "sequences.sqlite"
_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS numbers (feed TEXT NOT NULL, sequence INTEGER NOT NULL, message_id TEXT UNIQUE, "
    "PRIMARY KEY (feed, sequence)) WITHOUT ROWID"
)
_FREE: Final = "SELECT min(sequence) FROM numbers WHERE feed = ? AND message_id IS NULL"
_NEXT: Final = "SELECT coalesce(max(sequence), 0) + 1 FROM numbers WHERE feed = ?"
_KEEP: Final = "INSERT OR REPLACE INTO numbers VALUES (?, ?, ?)"
# Whatever the refusal, something was or may have been accepted under this message id.
_MAY_BE_ACCEPTED: Final = ("audit.", "answer.", "delivery.id_reused")
_HIGHEST: Final = re.compile(HIGHEST + r" ([0-9]{1,16})\b")
BUSY_S: Final = 30.0
MOST_OVERTAKEN: Final = 20  # by a bureau's other machines, before the sender hears of it
OVERTAKEN_S: Final = 0.2


class Counter:
    """The numbers of one partner's deliveries, in its folder; shared by its processes."""

    def __init__(self, folder: PartnerFolder) -> None:
        self._folder, self._path = folder, folder.path / NAME

    def sent(self, feed: str, message_id: str, send: Callable[[int | None], T]) -> T:
        """What sending under this delivery's number gives. Raises what it raises.

        Where the bus says that the number is another's, because the counter was put back or several machines count, it
        is sent again, under one above all that are used, until it is the first there.
        """
        receipt = self._folder.receipt(message_id)
        if receipt is not None:  # it says with which number, if any, it was sent
            return send(receipt.get("sequence"))
        for _ in range(MOST_OVERTAKEN):
            try:
                return self._sent(feed, message_id, send)
            except Refusal as refusal:
                if refusal.code != "sequence.used":
                    raise
            time.sleep(random.SystemRandom().uniform(0, OVERTAKEN_S))
        return self._sent(feed, message_id, send)

    def _sent(self, feed: str, message_id: str, send: Callable[[int | None], T]) -> T:
        number = self.number(feed, message_id)
        try:
            received = send(number)
        except Refusal as refusal:
            self._refused(refusal, feed, number)
            raise
        if received.document.get("sequence") != number:  # it was accepted before, from another machine of the bureau's
            self._free(feed, number)
        return received

    def number(self, feed: str, message_id: str) -> int:
        """The number of a delivery, written down before it is given. Raises Unavailable where the disk is full."""
        with self._turn() as numbers:
            query = "SELECT sequence FROM numbers WHERE message_id = ? AND feed = ?"
            known = numbers.execute(query, (message_id, feed)).fetchone()
            if known:
                return int(known[0])
            number = numbers.execute(_FREE, (feed,)).fetchone()[0] or numbers.execute(_NEXT, (feed,)).fetchone()[0]
            # The same id for another feed is no retry: the bus will refuse it, and the other's number stays its own.
            taken = numbers.execute("SELECT 1 FROM numbers WHERE message_id = ?", (message_id,)).fetchone()
            numbers.execute(_KEEP, (feed, number, None if taken else message_id))
            return int(number)

    def refused(self, refusal: Refusal, feed: str, message_id: str) -> None:
        """The bus refused what went out under this delivery's number, and a courier brought word of it."""
        self._refused(refusal, feed, self.number(feed, message_id))

    def _refused(self, refusal: Refusal, feed: str, number: int) -> None:
        """Nothing was accepted under this number: it is free again, or, where another delivery has it, spent."""
        if refusal.code.startswith(_MAY_BE_ACCEPTED):
            return
        if refusal.code != "sequence.used":
            self._free(feed, number)
            return
        with self._turn() as numbers:
            numbers.execute(_KEEP, (feed, number, f"?{number}@{feed}"))
            highest = _HIGHEST.search(refusal.detail)
            if highest and int(highest[1]) > number:
                numbers.execute(_KEEP, (feed, int(highest[1]), f"?{highest[1]}@{feed}"))

    def _free(self, feed: str, number: int) -> None:
        with self._turn() as numbers:
            numbers.execute(_KEEP, (feed, number, None))

    @contextmanager
    def _turn(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None)) as numbers:
                numbers.execute("PRAGMA synchronous=FULL")
                numbers.execute("BEGIN IMMEDIATE")
                numbers.execute(_TABLE)
                yield numbers
                numbers.execute("COMMIT")
        except sqlite3.Error as problem:
            raise Unavailable(f"{self._path}: {problem}; nothing was sent") from problem
