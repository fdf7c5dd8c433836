"""Inbox and audit log in one file, `journal.sqlite`: what was accepted, in which order, under which signed head.

Public face: `Journal`. One writer thread a process takes what callers hand in and commits it in groups; while one group
waits for the disk the next one gathers, so a group is as large as the load makes it. Reading needs no turn.
"""

import contextlib
import logging
import queue
import sqlite3
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime
from functools import lru_cache, partial
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

import msgspec

from exchange.entry import (
    Acceptance,
    Accepted,
    Detail,
    Entry,
    EntryProof,
    InboxRow,
    Leaf,
    LoggedEntry,
    Prepared,
    Sequenced,
    Status,
    instant,
    prepare_entry,
)
from exchange.journal_file import Turn, connect, prepare
from exchange.sequencer import (
    SELECT_INBOX,
    Arrival,
    Closing,
    IssueReceipt,
    IssueReport,
    Note,
    Sequencer,
    Work,
    inbox_row,
)
from security import merkle
from security.checkpoint import log_key_octets, note_name, open_checkpoint
from security.errors import AuditBroken, Refusal, Unavailable
from security.jws import jcs
from security.keys import SigningKey

__all__ = ["Acceptance", "Accepted", "Entry", "EntryProof", "InboxRow", "Journal", "LoggedEntry", "Sequenced", "Status"]

MOST_IN_GROUP: Final = 500  # bounds how long the other process waits for its turn
PACE_S: Final = 0.008  # groups begin at least this far apart: a lone message does not wait, a stream shares its commits
MOST_STAGED: Final = 20_000  # reads not yet sequenced; beyond this reads are refused
MOST_STRANGERS: Final = 1_000  # addresses a minute that are counted singly
TICK_S: Final = 0.25  # how often the stage is looked at when nothing else comes
OTHERS: Final = "others"

log = logging.getLogger("yongtong.journal")


class _Resume(msgspec.Struct):
    future: "Future[int]"


class Journal:
    """The journal of one bus, opened by one process. Each process opens its own; none is carried over a fork.

    folder:         holds journal.sqlite, journal.lock and journal.queue
    origin:         this bus's name in leaves, checkpoints and receipts
    log_key:        Ed25519 or SM2, signs checkpoints
    clock:          now, aware; log time follows it but never goes back
    issue_receipt:  makes the signed receipt of an inbox row and its proven entry (`receipts.issue_receipt`, key bound)
    issue_report:   the same for a report's document
    before_commit:  makes the evidence durable; called before every group that accepts deliveries

    Futures fail with Unavailable when the disk does: then nothing is promised, and a retry is right.
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
        self._origin, self._log_key, self._clock = note_name(origin), log_key, clock
        self.origin, self.log_key = self._origin, log_key.public_key
        self._head = lru_cache(maxsize=4)(partial(open_checkpoint, origin=origin, public_key=log_key.public_key))
        self._before_commit = before_commit
        log_key_octets(log_key.public_key)  # stops the start if it is of another kind
        turn = Turn(folder)
        prepare(folder, turn)
        turn.close()
        self._sequencer = Sequencer(folder, origin, log_key, clock, issue_receipt, issue_report)
        self._reader, self._reading = connect(folder), threading.Lock()
        self._queue: queue.SimpleQueue[Work | _Resume | None] = queue.SimpleQueue()
        self._staged: deque[Prepared] = deque()
        self._strangers: dict[tuple[str, str], Counter[str]] = {}
        self._strangers_lock = threading.Lock()
        self._closed = False
        self._owing = False  # documents of a group whose entries are durable
        self._next_group_s = 0.0  # time.monotonic() of the earliest next group
        self._writer = threading.Thread(target=self._write, name="journal", daemon=True)
        self._writer.start()

    # Writing.

    def accept(self, acceptance: Acceptance) -> "Future[Accepted]":
        """Take a delivery: its inbox row, entry and receipt.

        The same delivery again gives the stored receipt and no entry. Fails with Refusal `delivery.id_reused` when the
        id is known with another feed, content type or digest. The detail is completed with what the inbox keeps, so
        that the leaf commits to it.
        """
        a = acceptance
        committed: Detail = {
            "message_id": a.message_id,
            "content_type": a.content_type,
            "content_digest": a.content_digest,
            "content_length": a.content_length,
            "request_digest": a.request_digest,
            "evidence_class": a.evidence_class,
            "form": a.form,
            "received_at": instant(a.received_at),
            "signed_at": instant(a.signed_at),
        }
        entry = msgspec.structs.replace(a.entry, detail={**a.entry.detail, **committed})
        future: Future[Accepted] = _promised()
        self._hand_in(Arrival(prepare_entry(entry, self._origin), future, acceptance))
        return future

    def note(self, entry: Entry, also: Callable[[sqlite3.Cursor, int], None] | None = None) -> "Future[Sequenced]":
        """Append an entry; done when it is durable and under a signed head.

        also: changes to be made in the same transaction; gets the cursor and the entry's index. If it raises a Refusal
              or breaks a constraint, neither change nor entry is kept and the future fails with that.
        """
        future: Future[Sequenced] = _promised()
        self._hand_in(Note(prepare_entry(entry, self._origin), future, also))
        return future

    def stage_read(self, entry: Entry) -> None:
        """Append an entry within a second, without waiting. Raises Unavailable when the stage is full."""
        if self._closed or len(self._staged) >= MOST_STAGED:
            raise Unavailable("the audit's stage is full: no read is answered that cannot be entered")
        self._staged.append(prepare_entry(entry, self._origin))

    def note_stranger(self, address: str, code: str) -> None:
        """Count a refusal of somebody unknown: one entry an address and minute, written when the minute is over."""
        minute = instant(self._clock())[:16]
        with self._strangers_lock:
            known = (address, minute) in self._strangers or len(self._strangers) < MOST_STRANGERS
            self._strangers.setdefault((address if known else OTHERS, minute), Counter())[code] += 1

    def finish(self, inbox_id: int, status: Status, entry: Entry, report: dict[str, Any]) -> "Future[bytes]":
        """Say what became of a delivery: its entry, and the signed report, kept.

        status: `held` may be followed by `processed` or `refused`, which are final
        report: strings, integers, lists and objects (JCS)

        The same status again gives the stored report and no entry. Another final status fails with AuditBroken.
        """
        future: Future[bytes] = _promised()
        self._hand_in(Closing(prepare_entry(entry, self._origin), future, inbox_id, status, jcs(report)))
        return future

    def resume(self) -> int:
        """Finish what a crash left: sign heads, issue missing receipts and reports. Gives how many documents."""
        work = _Resume(Future())
        self._hand_in(work)
        return work.future.result()

    def close(self) -> None:
        """Write what is staged, then stop. What comes later is refused as Unavailable."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
            self._writer.join()
            self._refuse_rest()
            self._sequencer.close()
            self._reader.close()

    def _hand_in(self, work: "Work | _Resume") -> None:
        if self._closed:
            raise Unavailable("the journal is closed")
        self._queue.put(work)

    def _write(self) -> None:
        """The writer thread: the only one that commits."""
        going = True
        while going:
            works, going = self._gather()
            self._stage_strangers(everything=not going)
            self._write_group(works)
        while self._staged and self._write_group([]):
            pass

    def _write_group(self, works: "list[Work | _Resume]") -> bool:
        """Write one group with what is staged; false when the disk would not have it."""
        if self._owing:
            self._issue_owed()
        reads = [self._staged[i] for i in range(min(len(self._staged), MOST_IN_GROUP))]
        group = [work for work in works if not isinstance(work, _Resume)] + [Note(read, Future()) for read in reads]
        written = not group or self._commit(group)
        # A read leaves the stage once it is durable, and not before.
        for _ in reads if written else ():
            self._staged.popleft()
        for work in works:
            if isinstance(work, _Resume):
                self._resume(work)
        return written

    def _gather(self) -> "tuple[list[Work | _Resume], bool]":
        """What has come in, at most one group of it; waits a tick for the first. False once closing."""
        works: list[Work | _Resume] = []
        try:
            # Reads do not wake this thread; but where a whole group of them is staged, it does not wait for anything.
            work = self._queue.get(timeout=TICK_S if len(self._staged) < MOST_IN_GROUP else 0)
            time.sleep(max(0.0, self._next_group_s - time.monotonic()))
            self._next_group_s = time.monotonic() + PACE_S
            while work is not None:
                works.append(work)
                if len(works) == MOST_IN_GROUP:
                    return works, True
                work = self._queue.get_nowait()
        except queue.Empty:
            return works, True
        return works, False

    def _commit(self, works: list[Work]) -> bool:
        """Write a group; false when the disk would not have it."""
        placed = False
        try:
            if any(isinstance(work, Arrival) for work in works):
                self._before_commit()
            group = self._sequencer.place(works)
            placed = self._owing = True
            self._sequencer.answer(group)
            self._owing = False
        except Exception as problem:  # the thread's outermost loop: who waits must hear it, and the thread must live
            log.warning("journal.group_failed placed=%s reason=%s", placed, problem)
            for work in works:
                if not work.future.done():
                    work.future.set_exception(_said(problem))
        return placed

    def _issue_owed(self) -> None:
        """Issue what a group is still owed whose entries are durable and whose documents the disk would not have."""
        with contextlib.suppress(Exception):  # as above; it is tried again before the next group
            self._sequencer.resume()
            self._owing = False

    def _refuse_rest(self) -> None:
        """Whoever handed in after the last group must not wait for ever."""
        while not self._queue.empty():
            work = self._queue.get()
            if work is not None:
                work.future.set_exception(Unavailable("the journal is closed"))

    def _resume(self, work: _Resume) -> None:
        try:
            work.future.set_result(self._sequencer.resume())
        except Exception as problem:  # as above
            work.future.set_exception(_said(problem))

    def _stage_strangers(self, *, everything: bool) -> None:
        """Turn the counts of minutes that are over into entries."""
        minute = instant(self._clock())[:16]
        with self._strangers_lock:
            over = [key for key in self._strangers if everything or key[1] != minute]
            counts = [(address, when, self._strangers.pop((address, when))) for address, when in over]
        for address, when, codes in counts:
            detail: Detail = {"address": address, "minute": when, "count": codes.total(), **codes}
            entry = Entry(type="refusal", outcome="strangers", detail=detail)
            self._staged.append(prepare_entry(entry, self._origin))

    # Reading.

    def waiting(self, feed: str, limit: int) -> list[InboxRow]:
        """Deliveries of a feed that act two has not finished, oldest first."""
        query = f"{SELECT_INBOX} WHERE feed = ? AND status = 'waiting' ORDER BY id LIMIT ?"
        return [inbox_row(row) for row in self._read(query, feed, limit)]

    def held(self) -> list[InboxRow]:
        """Deliveries that wait for a person, oldest first."""
        return [inbox_row(row) for row in self._read(f"{SELECT_INBOX} WHERE status = 'held' ORDER BY id")]

    def feeds_waiting(self) -> list[str]:
        """Feeds that have work, by name."""
        query = "SELECT DISTINCT feed FROM inbox WHERE status = 'waiting' ORDER BY feed"
        return [feed for (feed,) in self._read(query)]

    def inbox(self, sender: str | None, message_id: str) -> InboxRow | None:
        """An accepted delivery; without sender, the first of that message id."""
        query = f"{SELECT_INBOX} WHERE message_id = ? AND sender = coalesce(?, sender) ORDER BY id LIMIT 1"
        rows = self._read(query, message_id, sender)
        return inbox_row(rows[0]) if rows else None

    def accepted_as(self, entry: int) -> InboxRow | None:
        """The delivery that an entry accepted, or None."""
        rows = self._read(f"{SELECT_INBOX} WHERE entry_index = ? LIMIT 1", entry)
        return inbox_row(rows[0]) if rows else None

    def reported_in(self, inbox_id: int) -> tuple[int, bytes] | None:
        """The latest report of a delivery with the number of its entry; None while it is not signed."""
        query = "SELECT entry_index, octets FROM reports WHERE inbox_id = ? ORDER BY entry_index DESC LIMIT 1"
        rows = [row for row in self._read(query, inbox_id) if row[1] is not None]
        return rows[0] if rows else None

    def receipt(self, sender: str | None, message_id: str) -> bytes | None:
        """The stored receipt, or None."""
        row = self.inbox(sender, message_id)
        return row.receipt if row else None

    def report(self, sender: str | None, message_id: str) -> bytes | None:
        """The latest report, or None while it is not signed: an older one would say what no longer holds."""
        row = self.inbox(sender, message_id)
        query = "SELECT octets FROM reports WHERE inbox_id = ? ORDER BY entry_index DESC LIMIT 1"
        rows = self._read(query, row.id) if row else []
        return rows[0][0] if rows else None

    def reports_after(self, entry: int, limit: int) -> list[tuple[int, InboxRow, bytes]]:
        """Signed reports whose entries come after `entry`, in order: (entry, delivery, report).

        It stops before one that is not signed yet, so that whoever goes on from the last of them misses none.
        """
        query = "SELECT entry_index, inbox_id, octets FROM reports WHERE entry_index > ? ORDER BY entry_index LIMIT ?"
        rows = list(takewhile(lambda row: row[2] is not None, self._read(query, entry, limit)))
        marks = ", ".join("?" * len(rows))
        deliveries = self._read(f"{SELECT_INBOX} WHERE id IN ({marks})", *(row[1] for row in rows)) if rows else []
        by_id = {row.id: row for row in map(inbox_row, deliveries)}
        return [(index, by_id[inbox_id], octets) for index, inbox_id, octets in rows]

    def evidence_files(self) -> set[str]:
        """Files, `bureau/name`, in which the evidence of accepted deliveries lies; any other may be swept."""
        query = "SELECT DISTINCT substr(evidence, 1, instr(evidence, ':') - 1) FROM inbox"
        return {file for (file,) in self._read(query)}

    def checkpoint(self) -> str:
        """The latest signed checkpoint; empty before the first entry."""
        query = "SELECT note FROM heads WHERE origin = ? AND note NOT NULL ORDER BY size DESC LIMIT 1"
        rows = self._read(query, self._origin)
        return rows[0][0] if rows else ""

    def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """RFC 6962 audit path of entry `index` in the tree of `size`. Raises Refusal `audit.not_in_log`."""
        if not 0 <= index < size <= self.size():
            raise Refusal("audit.not_in_log", f"entry {index} of {size}")
        return merkle.inclusion_proof(self._node, index, size)

    def consistency(self, first: int, second: int) -> tuple[bytes, ...]:
        """RFC 6962 consistency proof, 0 < first <= second <= size. Raises Refusal `audit.not_in_log`."""
        if not 0 < first <= second <= self.size():
            raise Refusal("audit.not_in_log", f"sizes {first} and {second}")
        return merkle.consistency_proof(self._node, first, second)

    def size(self) -> int:
        """How many entries the log has."""
        return int(self._read("SELECT coalesce(max(idx) + 1, 0) FROM entries")[0][0])

    def prove(self, index: int) -> EntryProof:
        """An entry with its proof under the latest signed checkpoint. Raises Refusal `audit.not_in_log`."""
        checkpoint = self.checkpoint()
        head = self._head(checkpoint) if checkpoint else None
        if head is None or not 0 <= index < head.size:
            raise Refusal("audit.not_in_log", f"entry {index}")
        query = "SELECT leaf, salt, detail FROM entries NATURAL JOIN details WHERE idx = ?"
        leaf, salt, detail = self._read(query, index)[0]
        return EntryProof(index, leaf, salt, detail, head.size, self.inclusion(index, head.size), checkpoint)

    def entry(self, index: int) -> LoggedEntry | None:
        """An entry as it stands in the log, or None."""
        rows = self._read(f"{_SELECT_ENTRY} WHERE idx = ?", index)
        return _logged(rows[0]) if rows else None

    def since(self, moment: datetime) -> list[LoggedEntry]:
        """All entries from a moment on, newest first; read backwards from the end, however long the log is."""
        found, size, first = [], self.size(), instant(moment)
        for stop in range(size, 0, -MOST_IN_GROUP):
            query = f"{_SELECT_ENTRY} WHERE idx >= ? AND idx < ? ORDER BY idx DESC"
            piece = [_logged(row) for row in self._read(query, stop - MOST_IN_GROUP, stop)]
            found += [entry for entry in piece if entry.leaf.time >= first]
            if not piece or piece[-1].leaf.time < first:
                break
        return found

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
        """Entries that match all that is given, newest first. since is within, until is not."""
        wanted = {"type": type, "outcome": outcome, "sender": sender, "feed": feed}
        tests = [(f"leaf ->> '{name}' = ?", value) for name, value in wanted.items() if value]
        tests += [("leaf ->> 'time' >= ?", instant(since))] if since else []
        tests += [("leaf ->> 'time' < ?", instant(until))] if until else []
        condition = " AND ".join(test for test, _ in tests) or "1"
        inner = "SELECT idx, CAST(leaf AS TEXT) AS leaf, detail FROM entries NATURAL JOIN details"
        query = f"SELECT * FROM ({inner}) WHERE {condition} ORDER BY idx DESC LIMIT ?"
        return [_logged(row) for row in self._read(query, *(value for _, value in tests), limit)]

    def _node(self, level: int, index: int) -> bytes:
        rows = self._read("SELECT hash FROM nodes WHERE level = ? AND idx = ?", level, index)
        if not rows:
            raise AuditBroken(f"node {level}, {index} of the log is missing")
        return bytes(rows[0][0])

    def _read(self, query: str, *values: object) -> list[Any]:
        with self._reading:
            return self._reader.execute(query, values).fetchall()


_SELECT_ENTRY = "SELECT idx, leaf, detail FROM entries NATURAL JOIN details"


def _logged(row: tuple[int, bytes | str, bytes | None]) -> LoggedEntry:
    index, leaf, detail = row
    known = None if detail is None else msgspec.json.decode(detail, type=dict[str, str | int])
    return LoggedEntry(index, msgspec.json.decode(leaf, type=Leaf), known)


def _promised() -> "Future[Any]":
    """A future that its waiter cannot cancel: a client that hangs up does not undo what is being written."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    return future


def _said(problem: Exception) -> Exception:
    """What a caller hears: our own errors as they are; a disk's or database's as Unavailable, for it may pass."""
    if isinstance(problem, (OSError, sqlite3.Error)):
        said = Unavailable(f"the journal cannot be written: {problem}")
        said.__cause__ = problem
        return said
    return problem
