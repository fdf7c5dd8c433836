"""Inbox and audit log in one file, `journal.sqlite`: what was accepted, in which order, under which signed head.

Public face: `Journal`. One writer thread a process takes what callers hand in and commits it in groups.
"""

from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime
from pathlib import Path
from typing import Any

from exchange.entry import (
    Acceptance,
    Accepted,
    Entry,
    EntryProof,
    InboxRow,
    LoggedEntry,
    Sequenced,
    Status,
)
from security.keys import SigningKey

__all__ = ["Acceptance", "Accepted", "Entry", "EntryProof", "InboxRow", "Journal", "LoggedEntry", "Sequenced", "Status"]

IssueReceipt = Callable[[InboxRow, EntryProof], bytes]
IssueReport = Callable[[InboxRow, EntryProof, dict[str, Any]], bytes]


class Journal:
    """The journal of one bus, opened by one process. Each process opens its own; none is carried over a fork.

    folder:         holds journal.sqlite and journal.lock
    origin:         this bus's name in leaves, checkpoints and receipts
    log_key:        Ed25519, signs checkpoints
    issue_receipt:  makes the signed receipt of an inbox row and its proven entry (`receipts.issue_receipt` with its key bound)
    issue_report:   the same for a report's document
    before_commit:  makes the evidence durable; called before a group that accepts deliveries
    """

    def __init__(
        self,
        folder: Path,
        origin: str,
        log_key: SigningKey,
        clock: Callable[[], datetime],
        issue_receipt: IssueReceipt,
        issue_report: IssueReport,
        before_commit: Callable[[], None],
    ) -> None:
        raise NotImplementedError

    def accept(self, acceptance: Acceptance) -> "Future[Accepted]":
        """Take a delivery. The same again gives the stored receipt; the same id for something else fails: delivery.id_reused."""
        raise NotImplementedError

    def note(self, entry: Entry) -> "Future[Sequenced]":
        """Append an entry; done when it is durable and under a signed head."""
        raise NotImplementedError

    def stage_read(self, entry: Entry) -> None:
        """Append an entry within a second, without waiting. Raises Unavailable when the stage is full."""
        raise NotImplementedError

    def note_stranger(self, address: str, code: str) -> None:
        """Count a refusal of somebody unknown: one entry an address and minute."""
        raise NotImplementedError

    def finish(self, inbox_id: int, status: Status, entry: Entry, report: dict[str, Any]) -> "Future[bytes]":
        """Say what became of a delivery: its entry, and the signed report. The same status again gives the stored report."""
        raise NotImplementedError

    def waiting(self, feed: str, limit: int) -> list[InboxRow]:
        """Deliveries of a feed that act two has not finished, oldest first."""
        raise NotImplementedError

    def feeds_waiting(self) -> list[str]:
        """Feeds that have work."""
        raise NotImplementedError

    def inbox(self, sender: str | None, message_id: str) -> InboxRow | None:
        """An accepted delivery; without sender, the first of that message id."""
        raise NotImplementedError

    def receipt(self, sender: str | None, message_id: str) -> bytes | None:
        """The stored receipt."""
        raise NotImplementedError

    def report(self, sender: str | None, message_id: str) -> bytes | None:
        """The latest stored report."""
        raise NotImplementedError

    def resume(self) -> int:
        """Finish what a crash left: sign heads, issue receipts and reports that are missing. Gives how many documents."""
        raise NotImplementedError

    def checkpoint(self) -> str:
        """The latest signed checkpoint; empty before the first entry."""
        raise NotImplementedError

    def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """RFC 6962 audit path of an entry in the tree of `size`."""
        raise NotImplementedError

    def consistency(self, first: int, second: int) -> tuple[bytes, ...]:
        """RFC 6962 consistency proof between two sizes, 0 < first <= second."""
        raise NotImplementedError

    def prove(self, index: int) -> EntryProof:
        """An entry with its proof under the latest signed checkpoint."""
        raise NotImplementedError

    def entry(self, index: int) -> LoggedEntry | None:
        """An entry as it stands in the log."""
        raise NotImplementedError

    def search(
        self,
        *,
        type: str = "",
        outcome: str = "",
        sender: str = "",
        feed: str = "",
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
    ) -> list[LoggedEntry]:
        """Entries that match all that is given, newest first."""
        raise NotImplementedError

    def evidence_locations(self) -> set[str]:
        """Where the evidence of accepted deliveries lies; the rest may be swept."""
        raise NotImplementedError

    def close(self) -> None:
        """Write what is staged, then stop."""
        raise NotImplementedError
