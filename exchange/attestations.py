"""What others say of the log's heads, kept beside it: signatures of witnesses, tokens of timestamp authorities.

Nothing here is believed: whoever uses a line or a token checks it again, against keys that come from elsewhere.
"""

import re
import threading
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from exchange.database import FAILURES, Database
from exchange.entry import instant
from security.anchors import Anchors
from security.cosignature import Cosignature, cosignatures, note_text
from security.errors import Refusal, Unavailable
from security.wss import SKEW

_SIZE: Final = re.compile(r"[0-9]{1,18}")  # within the database's integers


class Head(msgspec.Struct, frozen=True):
    """A signed head with what is kept of it. checkpoint: with the witnesses' lines; response: RFC 3161, or empty."""

    size: int
    checkpoint: str
    witnesses: tuple[str, ...] = ()
    response: bytes = b""
    stamped_at: str = ""


def take_cosignatures(checkpoint: str, anchors: Anchors, kept: "Attestations", now: datetime) -> Head:
    """Keep what known witnesses say of a head of this log; gives that head with all that is kept of it.

    Raises Refusal `audit.checkpoint_invalid`, `audit.head_not_ours`, `audit.cosignature_invalid`,
    `audit.cosignature_time`, `audit.witness_unknown`; Unavailable where the disk would not have it.
    """
    # What stands word for word in our own log needs no signature of ours on it.
    size = _stated_size(checkpoint)
    ours = kept.head(size)
    if ours is None or note_text(ours.checkpoint) != note_text(checkpoint):
        # A head that our key signed and our log has not: the log lost entries, was rewritten, or the key is out.
        raise Refusal("audit.head_not_ours", f"size {anchors.head(checkpoint).size}")
    lines = cosignatures(checkpoint, anchors.witnesses)
    if not lines:
        raise Refusal("audit.witness_unknown")
    known = set(ours.checkpoint.splitlines())
    for one in lines:  # the first stays: a time that is no witness's now would stand in every bundle for ever
        if one.line not in known and not now - SKEW <= one.at <= now + SKEW:
            raise Refusal("audit.cosignature_time", f"{one.witness}: {one.at.isoformat()}, at {now.isoformat()}")
    try:
        kept.keep_cosignatures(size, lines)
    except FAILURES as problem:
        raise Unavailable(f"cosignatures cannot be kept: {problem}") from problem
    return kept.head(size) or ours


def _stated_size(checkpoint: str) -> int:
    """The size that a note states; -1, which no head has, where it states none."""
    lines = checkpoint.split("\n", 2)
    return int(lines[1]) if len(lines) > 2 and _SIZE.fullmatch(lines[1]) else -1


class Attestations:
    """Of one journal, in its database; each process opens its own."""

    def __init__(self, database: Database) -> None:
        self._connection, self._lock = database.connect(), threading.Lock()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def keep_cosignatures(self, size: int, lines: Sequence[Cosignature]) -> None:
        """Keep checked lines for the head of a size; of one witness the first stays."""
        rows = [(size, one.witness, one.line, instant(one.at)) for one in lines]
        with self._lock:
            self._connection.executemany("INSERT INTO cosignatures VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", rows)

    def keep_timestamp(self, size: int, response: bytes, stamped_at: datetime) -> None:
        """Keep a checked answer of a timestamp authority over the head of a size; the first stays."""
        with self._lock:
            self._connection.execute(
                "INSERT INTO timestamps VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (size, response, instant(stamped_at))
            )

    def head(self, size: int) -> Head | None:
        """The signed head of a size, with all that is kept of it."""
        return self._head("SELECT ?", size)

    def cosigned(self, index: int, witnesses: Sequence[str], quorum: int) -> Head | None:
        """The first head over an entry that as many of these witnesses signed, or None."""
        marks = ", ".join("?" * len(witnesses))
        return self._head(
            f"SELECT size FROM cosignatures WHERE witness IN ({marks}) AND size > ? "
            "GROUP BY size HAVING count(*) >= ? ORDER BY size LIMIT 1",
            *witnesses,
            index,
            max(quorum, 1),
        )

    def newest_cosigned(self, witnesses: Sequence[str], quorum: int) -> Head | None:
        """The largest head that as many of these witnesses signed, or None."""
        marks = ", ".join("?" * len(witnesses))
        return self._head(
            f"SELECT size FROM cosignatures WHERE witness IN ({marks}) "
            "GROUP BY size HAVING count(*) >= ? ORDER BY size DESC LIMIT 1",
            *witnesses,
            max(quorum, 1),
        )

    def waiting(self, witnesses: Sequence[str], quorum: int, since: datetime, until: datetime) -> Head | None:
        """The largest head that any of these witnesses signed, if it still lacks signatures and was first signed in
        that time."""
        marks = ", ".join("?" * len(witnesses))
        return self._head(
            "SELECT size FROM (SELECT size, count(*) AS lines, min(signed_at) AS begun FROM cosignatures "
            f"WHERE witness IN ({marks}) GROUP BY size ORDER BY size DESC LIMIT 1) AS newest "
            "WHERE lines < ? AND begun BETWEEN ? AND ?",
            *witnesses,
            quorum,
            instant(since),
            instant(until),
        )

    def stamped(self, index: int) -> Head | None:
        """The first head over an entry that has a timestamp, or None."""
        return self._head("SELECT size FROM timestamps WHERE size > ? ORDER BY size LIMIT 1", index)

    def last_stamped(self) -> Head | None:
        """The largest head that has a timestamp, or None."""
        return self._head("SELECT max(size) FROM timestamps")

    def stamped_above(self, size: int) -> list[int]:
        """Sizes above one of heads that have a timestamp, largest first."""
        with self._lock:
            rows = self._connection.execute("SELECT size FROM timestamps WHERE size > ? ORDER BY size DESC", (size,))
            return [found for (found,) in rows]

    def _head(self, which: str, *values: int | str) -> Head | None:
        query = (
            "SELECT heads.size, note, response, coalesce(stamped_at, '') FROM heads "
            f"LEFT JOIN timestamps USING (size) WHERE note IS NOT NULL AND heads.size = ({which})"
        )
        with self._lock:
            row = self._connection.execute(query, values).fetchone()
            if row is None:
                return None
            size, note, response, stamped_at = row
            lines = self._connection.execute(
                "SELECT witness, line FROM cosignatures WHERE size = ? ORDER BY witness", (size,)
            ).fetchall()
        checkpoint = note + "".join(f"{line}\n" for _, line in lines)
        return Head(size, checkpoint, tuple(witness for witness, _ in lines), response or b"", stamped_at)
