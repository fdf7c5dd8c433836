"""How far the log lies under timestamps of a third party, and the rule for when it does not.

The age of the oldest entry under no stamped head decides, and nothing else: where nothing new was logged nothing ages.
Nobody waits here for a timestamp authority; `exchange.timestamp_watch` asks it.
"""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec

from exchange.attestations import Attestations
from exchange.entry import instant
from exchange.journal import Journal
from security.cosignature import without_cosignatures
from security.errors import Misconfigured, Refusal
from security.timestamp import verify_timestamp

State = Literal["fresh", "alarm", "pending", "refused"]

ALARM: Final = timedelta(hours=1)

log = logging.getLogger("yongtong.timestamps")


class Rule(msgspec.Struct, frozen=True):
    """At which age of the oldest entry without a timestamp there is an alarm, answers say so, pushes are refused."""

    alarm: timedelta = ALARM
    pending: timedelta = timedelta(hours=4)
    refused: timedelta = timedelta(hours=24)

    def __post_init__(self) -> None:
        if not timedelta(0) < self.alarm < self.pending < self.refused:
            raise Misconfigured(
                "config.setting", "[timestamps] alarm_s, pending_s, refused_s: each must be greater than the one before"
            )

    def state(self, oldest: datetime | None, now: datetime) -> State:
        """What holds now. oldest: when the oldest entry under no stamped head was made; None where there is none."""
        age = now - oldest if oldest is not None else timedelta(0)
        if age >= self.refused:
            return "refused"
        if age >= self.pending:
            return "pending"
        return "alarm" if age >= self.alarm else "fresh"


class Coverage:
    """The timestamps of one log, as the doors ask for them. Safe for threads.

    roots: DER, of the authorities that are trusted; each token is verified again before it counts, so that whoever
           writes into the database can take timestamps away and bring none
    """

    def __init__(self, journal: Journal, attestations: Attestations, roots: Sequence[bytes], rule: Rule) -> None:
        self._journal, self._attestations, self._roots, self.rule = journal, attestations, roots, rule
        self._stamped, self._rejected = 0, frozenset[int]()
        self._oldest: tuple[int, datetime] | None = None  # an entry's time never changes

    def close(self) -> None:
        """Close the file."""
        self._attestations.close()

    def oldest(self) -> datetime | None:
        """When the oldest entry was made that lies under no stamped head; None where each does."""
        size, known = self.stamped(), self._oldest
        if known is None or known[0] != size:
            entry = self._journal.entry(size)
            if entry is None:
                return None
            known = self._oldest = size, datetime.fromisoformat(entry.leaf.time)
        return known[1]

    def stamped(self) -> int:
        """Size of the largest head whose timestamp holds; 0 where there is none."""
        for size in self._attestations.stamped_above(self._stamped):
            if size not in self._rejected:
                if self._holds(size):
                    self._stamped = size
                    break
                self._rejected |= {size}
        return self._stamped

    def state(self, now: datetime) -> State:
        """What the rule says now."""
        return self.rule.state(self.oldest(), now)

    def pending_since(self, now: datetime) -> datetime | None:
        """When the oldest entry was made that waits for its timestamp, where answers have to say so."""
        oldest = self.oldest()
        return oldest if self.rule.state(oldest, now) in ("pending", "refused") else None

    def check(self, now: datetime) -> None:
        """Return if pushes are taken. Raises Refusal `timestamp.overdue`, which says since when it is late."""
        oldest = self.oldest()
        if oldest is not None and self.rule.state(oldest, now) == "refused":
            raise Refusal("timestamp.overdue", instant(oldest))

    def _holds(self, size: int) -> bool:
        head = self._attestations.head(size)
        if head is None:
            return False
        try:
            verify_timestamp(head.response, stamped_octets(head.checkpoint), self._roots)
        except Refusal as problem:
            log.critical("timestamp.kept_one_does_not_hold size=%d detail=%s", size, problem.detail)
            return False
        return True


def stamped_octets(checkpoint: str) -> bytes:
    """What an authority sees of a head: the text and the log's own signatures, without those of witnesses."""
    return without_cosignatures(checkpoint).encode()


def covering(entered_at: datetime, stamped_at: datetime, alarm: timedelta = ALARM) -> str:
    """How a timestamp covers an entry, in words; empty where it came in time, and nothing need be said.

    A token covers all that was entered before it. One that is late proves no more than that the entry was there then.
    """
    gap = stamped_at - entered_at
    if gap <= alarm:
        return ""
    hours = f"{gap / timedelta(hours=1):.1f}".removesuffix(".0")
    return f"时间戳晚于记录 {hours} 小时，补盖空档 covers a gap of {hours} h"
