"""A signed read is answered once: the same envelope again is refused until it would be stale anyway."""

import threading
from datetime import datetime
from typing import Final, Protocol

from exchange.database import FAILURES, Database
from exchange.entry import instant
from security.errors import Refusal, Unavailable

MOST_OF_BUREAU: Final = 200_000  # within ten minutes; each bureau has its own, so that none uses up another's


PRUNED_EVERY: Final = 1_000  # reads; what is stale goes then


class Replays(Protocol):
    """Digests of what reads had signed, each remembered until its envelope is refused as stale anyway.

    Not of the signature: of an ECDSA signature (r, s) anyone can make (r, n-s), which holds as well.
    """

    def refuse_again(self, bureau: str, signed_digest: str, until: datetime, now: datetime) -> None:
        """Remember this envelope. Raises Refusal `signature.replayed` when it was seen before it expired."""

    def remember(self, bureau: str, signed_digest: str, until: datetime) -> None:
        """Take over what an earlier process saw."""


class OwnReplays:
    """In memory: of the one process that serves."""

    def __init__(self) -> None:
        self._until: dict[str, dict[str, datetime]] = {}
        self._lock = threading.Lock()

    def refuse_again(self, bureau: str, signed_digest: str, until: datetime, now: datetime) -> None:
        """Remember this envelope. Raises Refusal `signature.replayed` when it was seen before it expired."""
        with self._lock:
            known = self._until.setdefault(bureau, {})
            if known.get(signed_digest, now) > now:
                raise Refusal("signature.replayed")
            # Oldest first, and each is looked at once: a full memory must not cost a full reading at every call.
            while known and known[first := next(iter(known))] <= now:
                del known[first]
            if len(known) >= MOST_OF_BUREAU:
                raise Unavailable(f"too many signed reads of {bureau} within ten minutes")
            known[signed_digest] = until

    def remember(self, bureau: str, signed_digest: str, until: datetime) -> None:
        """Take over what an earlier process saw."""
        with self._lock:
            self._until.setdefault(bureau, {})[signed_digest] = until


class SharedReplays:
    """In the journal's database: what one process answered no other answers again."""

    def __init__(self, journal: Database) -> None:
        self._connection, self._lock, self._asked = journal.connect(), threading.Lock(), 0

    def refuse_again(self, bureau: str, signed_digest: str, until: datetime, now: datetime) -> None:
        """As `Replays` has it. Raises Unavailable where the server is away: no read is answered twice."""
        query = (
            "INSERT INTO answered_reads VALUES (?, ?, ?) ON CONFLICT (bureau, digest) "
            "DO UPDATE SET until = excluded.until WHERE answered_reads.until <= ?"
        )
        try:
            with self._lock:
                self._asked += 1
                if self._asked % PRUNED_EVERY == 0:
                    self._connection.execute("DELETE FROM answered_reads WHERE until <= ?", (instant(now),))
                new = self._connection.execute(query, (bureau, signed_digest, instant(until), instant(now))).rowcount
        except FAILURES as problem:
            raise Unavailable(f"what was answered before cannot be asked: {problem}") from problem
        if not new:
            raise Refusal("signature.replayed")

    def remember(self, bureau: str, signed_digest: str, until: datetime) -> None:
        """Nothing: what an earlier process saw stands there."""
