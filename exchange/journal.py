"""Inbox and audit log in one database, the journal: what was accepted, in which order, under which signed head.

Public face: `Journal`. One writer thread a process takes what callers hand in and commits it in groups; while one group
waits for the disk the next one gathers, so a group is as large as the load makes it. Reading needs no turn.
"""

import contextlib
import logging
import queue
import sys
import threading
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import takewhile
from typing import Any, Final, Literal

import msgspec

from exchange.database import FAILURES, Cursor, Database, is_unreadable
from exchange.entry import (
    RECALL,
    Acceptance,
    Accepted,
    Detail,
    Entry,
    EntryProof,
    Erased,
    InboxRow,
    LoggedEntry,
    OwnEntry,
    Prepared,
    Sequenced,
    Status,
    begin_of,
    commitment,
    day_of,
    detail_of,
    instant,
    leaf_of,
    prepare_entry,
)
from exchange.log_index import Wanted, find, full_pieces, logged
from exchange.log_owners import Owners
from exchange.sequencer import (
    SELECT_INBOX,
    Arrival,
    Closing,
    IssueReceipts,
    IssueReports,
    Note,
    Sequencer,
    Work,
    inbox_row,
)
from exchange.sequences import Gaps, find_gaps
from security import merkle
from security.batch import unverified
from security.checkpoint import Checkpoint, log_key_octets, note_name, open_checkpoint
from security.errors import AuditBroken, Refusal, Unavailable
from security.jws import jcs
from security.keys import PublicKey, SigningKey

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


class Trouble(msgspec.Struct, frozen=True):
    """The last group could not be written. since_s: time.monotonic(); broken: for the log does not add up, which does
    not pass."""

    since_s: float
    broken: bool


class Journal:
    """The journal of one bus, opened by one process. Each process opens its own; none is carried over a fork.

    database:       the journal, of whichever engine; brought to today's schema here
    origin:         this bus's name in leaves, receipts, and the checkpoints of its log's first epoch
    log_key:        Ed25519 or SM2, signs checkpoints
    clock:          now, aware; log time follows it but never goes back
    issue_receipts: makes the signed receipts of inbox rows and their proven entries (`receipts.issue_receipts`, key
                    bound), all of a group at once
    issue_reports:  the same for reports' documents
    before_commit:  makes the evidence at these locations durable; called before every group that accepts deliveries.
                    When it raises, none of them is named by any inbox row that this group would have made
    former_log_key: of which log_key takes the place, while the first head under log_key is not signed yet
    trouble:        while the last group could not be written: since when, and whether the log is broken

    Futures fail with Unavailable when the disk does: then nothing is promised, and a retry is right.
    """

    def __init__(
        self,
        database: Database,
        origin: str,
        log_key: SigningKey,
        clock: Callable[[], datetime],
        issue_receipts: IssueReceipts,
        issue_reports: IssueReports,
        before_commit: Callable[[Sequence[str]], None],
        former_log_key: SigningKey | None = None,
    ) -> None:
        self.database = database
        self._origin, self._log_key, self._clock = note_name(origin), log_key, clock
        self.origin, self.log_key = self._origin, log_key.public_key
        keys = tuple(key.public_key for key in (log_key, former_log_key) if key is not None)
        self.head = lru_cache(maxsize=4)(lambda text: _open_head(text, self._logs(), keys))
        self._before_commit = before_commit
        log_key_octets(log_key.public_key)  # stops the start if it is of another kind
        database.prepare()
        self._sequencer = Sequencer(database, origin, log_key, clock, issue_receipts, issue_reports, former_log_key)
        self._catch_up()
        self._reader, self._reading = database.connect(), threading.Lock()
        self._queue: queue.SimpleQueue[Work | _Resume | None] = queue.SimpleQueue()
        self._staged: deque[Prepared] = deque()
        self._strangers: dict[tuple[str, str], Counter[str]] = {}
        self._crowds: Counter[tuple[str, str, str, str, str]] = Counter()  # by minute, then as `note_crowd`
        self._strangers_lock = threading.Lock()
        self._owners = Owners(self._read)
        self._closed = False
        self._behind = ""  # why it takes no entry
        self._owing = False  # documents of a group whose entries are durable
        self.trouble: Trouble | None = None
        self._next_group_s = 0.0  # time.monotonic() of the earliest next group
        self._writer = threading.Thread(target=self._write, name="journal", daemon=True)
        self._writer.start()

    # Writing.

    def accept(self, acceptance: Acceptance) -> "Future[Accepted]":
        """Take a delivery: its inbox row, entry and receipt.

        The same delivery again gives the stored receipt and no entry. Fails with Refusal `delivery.id_reused` when the
        id is known with another feed, content type, digest or, where both state one, sequence number; `sequence.used`
        when the number is another delivery's. The detail is completed with what the inbox keeps, so that the leaf
        commits to it.
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
            **({} if a.sequence is None else {"sequence": a.sequence}),
        }
        entry = msgspec.structs.replace(a.entry, detail={**a.entry.detail, **committed})
        future: Future[Accepted] = _promised()
        self._hand_in(Arrival(prepare_entry(entry, self._origin), future, acceptance))
        return future

    def note(self, entry: Entry, also: Callable[[Cursor, int], None] | None = None) -> "Future[Sequenced]":
        """Append an entry; done when it is durable and under a signed head.

        also: changes to be made in the same transaction; gets the cursor and the entry's index. If it raises a Refusal
              or breaks a constraint, neither change nor entry is kept and the future fails with that.
        """
        future: Future[Sequenced] = _promised()
        self._hand_in(Note(prepare_entry(entry, self._origin), future, also))
        return future

    def stage_read(self, entry: Entry) -> None:
        """Append an entry within a second, without waiting. Raises Unavailable when the stage is full."""
        self._check_takes()
        if self._closed or len(self._staged) >= MOST_STAGED:
            raise Unavailable("the audit's stage is full: no read is answered that cannot be entered")
        self._staged.append(prepare_entry(entry, self._origin))

    def note_stranger(self, address: str, code: str) -> None:
        """Count a refusal of somebody unknown: one entry an address and minute, written when the minute is over."""
        self._check_takes()
        minute = instant(self._clock())[:16]
        with self._strangers_lock:
            known = (address, minute) in self._strangers or len(self._strangers) < MOST_STRANGERS
            self._strangers.setdefault((address if known else OTHERS, minute), Counter())[code] += 1

    def note_crowd(self, carrier: str, sender: str, feed: str, code: str) -> None:
        """Count a refusal of which there are hundreds a second: one entry a carrier, sender, feed, code and minute,
        when the minute is over."""
        minute = instant(self._clock())[:16]
        with self._strangers_lock:
            self._crowds[minute, carrier, sender, feed, code] += 1

    def finish(self, inbox_id: int, status: Status, entry: Entry, report: dict[str, Any]) -> "Future[bytes]":
        """Say what became of a delivery: its entry, and the signed report, kept.

        status: `held` may be followed by `processed` or `refused`, which are final; all by `recalled`
        report: strings, integers, lists and objects (JCS)

        The same status again gives the stored report and no entry. Another final status fails with AuditBroken; what
        was recalled meanwhile, with Refusal `delivery.recalled`.
        """
        future: Future[bytes] = _promised()
        self._hand_in(Closing(prepare_entry(entry, self._origin), future, inbox_id, status, jcs(report)))
        return future

    def resume(self) -> int:
        """Finish what a crash left: sign heads, issue missing receipts and reports. Gives how many documents."""
        work = _Resume(Future())
        self._hand_in(work)
        return work.future.result()

    def take_nothing(self, why: str) -> None:
        """Refuse every entry from now on, as `audit.log_behind`: the log lost entries, and their heads are known."""
        self._behind = why

    def close(self) -> None:
        """Write what is staged, then stop. What comes later is refused as Unavailable."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
            self._writer.join()
            self._refuse_rest()
            self._sequencer.close()
            self._reader.close()

    def _catch_up(self) -> None:
        """Index what an older version or a crash left without; of a long log with a word a second."""
        said_s = time.monotonic()
        while done := self._index():
            if time.monotonic() - said_s >= 1:
                said_s = time.monotonic()
                print(f"正在编制审计索引 indexing the audit log: {done:,}", file=sys.stderr)

    def _index(self) -> int:
        """Index the next piece that is full; gives how many entries are indexed, 0 when there was none."""
        try:
            return self._sequencer.index()
        except (OSError, *FAILURES) as problem:  # the log goes on; what is not indexed is read, and tried again
            log.warning("journal.index_failed reason=%s", problem)
            return 0

    def _hand_in(self, work: "Work | _Resume") -> None:
        if self._closed:
            raise Unavailable("the journal is closed")
        if not isinstance(work, _Resume):
            self._check_takes()
        self._queue.put(work)

    def _check_takes(self) -> None:
        if self._behind:
            raise Refusal("audit.log_behind", self._behind)

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
            if arrivals := [work for work in works if isinstance(work, Arrival)]:
                self._before_commit([work.acceptance.evidence for work in arrivals])
            group = self._sequencer.place(works)
            placed = self._owing = True
            self._sequencer.answer(group)
            self._owing = False
            self.trouble = None
            self._index()
        except Exception as problem:  # the thread's outermost loop: who waits must hear it, and the thread must live
            log.warning("journal.group_failed placed=%s reason=%s", placed, problem)
            self.trouble = Trouble(time.monotonic(), isinstance(problem, AuditBroken))
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
            past = [key for key in self._crowds if everything or key[0] != minute]
            crowds = [(*key, self._crowds.pop(key)) for key in past]
        for address, when, codes in counts:
            detail: Detail = {"address": address, "minute": when, "count": codes.total(), **codes}
            entry = Entry(type="refusal", outcome="strangers", detail=detail)
            self._staged.append(prepare_entry(entry, self._origin))
        for when, carrier, sender, feed, code, count in crowds:
            detail = {"code": code, "minute": when, "count": count}
            entry = Entry(type="refusal", outcome=code, carrier=carrier, sender=sender, feed=feed, detail=detail)
            self._staged.append(prepare_entry(entry, self._origin))

    # Reading.

    def waiting(self, feed: str, limit: int) -> list[InboxRow]:
        """Deliveries of a feed that act two has not finished, oldest first."""
        query = f"{SELECT_INBOX} WHERE feed = ? AND status = 'waiting' ORDER BY id LIMIT ?"
        return [inbox_row(row) for row in self._read(query, feed, limit)]

    def held(self) -> list[InboxRow]:
        """Deliveries that wait for a person, oldest first."""
        return [inbox_row(row) for row in self._read(f"{SELECT_INBOX} WHERE status = 'held' ORDER BY id")]

    def recalls(self, feed: str) -> list[InboxRow]:
        """Deliveries of a feed that were recalled, which act two has not carried out, oldest first."""
        return [
            inbox_row(row)
            for row in self._read(f"{SELECT_INBOX} WHERE feed = ? AND decision = 'recall' ORDER BY id", feed)
        ]

    def recalled(self, row: InboxRow) -> Sequenced:
        """The entry by which a delivery was recalled. Raises AuditBroken where none of its bureau's says so."""
        query = (
            "SELECT idx, leaf, detail FROM reports JOIN entries ON idx = entry_index NATURAL JOIN details "
            "WHERE inbox_id = ? ORDER BY idx DESC"
        )
        for entry in map(logged, self._read(query, row.id)):
            said = (entry.detail or {"message_id": row.message_id})["message_id"]
            if (entry.leaf.type, entry.leaf.sender, said) == (RECALL, row.sender, row.message_id):
                return Sequenced(entry.index, entry.leaf.time)
        raise AuditBroken(f"delivery {row.id} is to be recalled, which no entry of the log says")

    def gaps(self, sender: str | None = None, feed: str | None = None) -> Gaps:
        """What has not come of deliveries that their senders number; of one sender, of one feed, or of all."""
        return find_gaps(self._read, sender, feed)

    def of_day(self, day: str) -> range:
        """The entries of a day of the city, YYYY-MM-DD. Raises ValueError."""
        first = datetime.fromisoformat(begin_of(day))
        size = self.size()
        return range(self._first_at(first, size), self._first_at(first + timedelta(days=1), size))

    def delivered(self, entries: range, size: int) -> tuple[list[Any], list[Any]]:
        """What was accepted under these entries, and what became of it under the first `size` of the log.

        First of each accepting entry: number, sender, feed. Then of each delivery in the inbox, a row for each report,
        oldest first, or one: accepting entry, sender, feed, message id, status and decision of the inbox; outcome and
        detail of the report's entry, None where there is none.
        """
        accepted = self._read(_ACCEPTED, entries.start, entries.stop, _DELIVERY)
        return accepted, self._read(_BECAME, size, entries.start, entries.stop)

    def account_of(self, day: str) -> LoggedEntry | None:
        """The entry that holds a day's account, or None."""
        for (index,) in self._read("SELECT entry_index FROM accounts WHERE day = ?", day):
            return self.entry(index)
        return None

    def last_account(self) -> str:
        """The last day whose account is entered; empty where none is."""
        return str(self._read("SELECT coalesce(max(day), '') FROM accounts")[0][0])

    def to_wipe(self, inbox_id: int) -> list[str]:
        """Where evidence of a delivery lay in the clear before it was sealed."""
        return [location for (location,) in self._read("SELECT location FROM wipes WHERE inbox_id = ?", inbox_id)]

    def feeds_waiting(self) -> list[str]:
        """Feeds that have work, by name. Asked often: it goes from feed to feed and not through all that waits."""
        found = set[str]()
        for waits in ("status = 'waiting'", "decision = 'recall'"):
            feed = ""
            while rows := self._read(f"SELECT feed FROM inbox WHERE {waits} AND feed > ? ORDER BY feed LIMIT 1", feed):
                ((feed,),) = rows
                found.add(feed)
        return sorted(found)

    def count_waiting(self, feed: str, most: int) -> int:
        """How many deliveries of a feed act two has not finished; not counted beyond `most`."""
        query = "SELECT count(*) FROM (SELECT 1 FROM inbox WHERE feed = ? AND status = 'waiting' LIMIT ?) AS waits"
        return int(self._read(query, feed, most)[0][0])

    def first_received_from(self, moment: str) -> int:
        """The id of the first delivery not before a moment, as the log writes it; beyond the last where there is none.
        Ids go by acceptance, and so nearly by reception: it may be off by what was under way at that moment."""
        last = int(self._read("SELECT coalesce(max(id), 0) FROM inbox")[0][0])
        query = "SELECT received_at FROM inbox WHERE id >= ? ORDER BY id LIMIT 1"
        return 1 + bisect_left(range(1, last + 1), moment, key=lambda id: str(self._read(query, id)[0][0]))

    def lengths_after(self, id: int) -> list[tuple[int, str, int, str]]:
        """Deliveries accepted after one: id, feed, octets of content, when they were received."""
        query = "SELECT id, feed, content_length, received_at FROM inbox WHERE id > ? ORDER BY id"
        return [(id, feed, length, at) for id, feed, length, at in self._read(query, id)]

    def waiting_by_feed(self) -> list[tuple[str, int, str]]:
        """Of each feed that has deliveries waiting: how many, and when the oldest was received."""
        query = (
            "SELECT waits.feed, many, received_at FROM (SELECT feed, count(*) AS many, min(id) AS first FROM inbox "
            "WHERE status = 'waiting' GROUP BY feed) AS waits JOIN inbox ON id = first ORDER BY waits.feed"
        )
        return [(feed, many, received_at) for feed, many, received_at in self._read(query)]

    def finished_within(self, first: int, stop: int) -> list[tuple[int, str, str]]:
        """Reports under these entries: number of the entry, the delivery's feed, and when that was received."""
        query = (
            "SELECT reports.entry_index, feed, received_at FROM reports JOIN inbox ON id = inbox_id "
            "WHERE reports.entry_index >= ? AND reports.entry_index < ?"
        )
        return [(index, feed, received_at) for index, feed, received_at in self._read(query, first, stop)]

    def raw_entries(self, first: int, limit: int) -> list[tuple[int, bytes, bytes | None]]:
        """Entries from one on, in order, at most `limit`: number, leaf and detail as they lie."""
        query = f"{_SELECT_ENTRY} WHERE idx >= ? ORDER BY idx LIMIT ?"
        return [(index, leaf, detail) for index, leaf, detail in self._read(query, first, limit)]

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
        """The latest report, or None while it is not signed: an older one would say what no longer holds. None, too,
        where it was erased."""
        row = self.inbox(sender, message_id)
        query = "SELECT octets FROM reports WHERE inbox_id = ? ORDER BY entry_index DESC LIMIT 1"
        rows = self._read(query, row.id) if row else []
        return (rows[0][0] or None) if rows else None

    def evidence_before(self, moment: str) -> list[InboxRow]:
        """Finished deliveries that came before a moment, as the log writes it, and whose original bytes are there."""
        query = (
            f"{SELECT_INBOX} WHERE received_at < ? AND status NOT IN ('waiting', 'held') AND decision <> 'recall' "
            "AND evidence NOT LIKE 'erased:%' ORDER BY id"
        )
        return [inbox_row(row) for row in self._read(query, moment)]

    def details_before(self, moment: str) -> list[int]:
        """Entries before a moment whose details are there and may go: no decisions, which are told from theirs, nothing
        that says what was erased, and nothing of a delivery that is not finished."""
        query = (
            "SELECT idx FROM entries NATURAL JOIN details WHERE detail IS NOT NULL "
            "AND said(leaf, 'time') < ? AND said(leaf, 'type') NOT IN ('decision', 'erasure') "
            "AND idx NOT IN (SELECT entry_index FROM inbox WHERE status IN ('waiting', 'held') OR decision = 'recall') "
            "ORDER BY idx"
        )
        return [index for (index,) in self._read(query, moment)]

    def details_of(self, row: InboxRow) -> list[int]:
        """Entries about a delivery whose details are there: of its acceptance, processing, recall, sealing."""
        query = (
            "SELECT idx FROM entries NATURAL JOIN details WHERE idx >= ? AND detail IS NOT NULL "
            "AND said(detail, 'message_id') = ? AND said(leaf, 'sender') = ? "
            "AND said(leaf, 'type') IN ('delivery', 'processing', 'recall', 'spill', 'replay') ORDER BY idx"
        )
        return [index for (index,) in self._read(query, row.entry_index, row.message_id, row.sender)]

    def evidence_digest(self, row: InboxRow) -> str:
        """The digest of a delivery's original bytes, as the entry that accepted it says; where its detail was erased,
        as its receipt does, if it is what the leaf commits to. Empty where neither says one."""
        entry = self.entry(row.entry_index)
        detail = entry.detail if entry else None
        if entry is not None and detail is None and row.receipt is not None:
            said = unverified(row.receipt)
            text = str(said["detail"]).encode()
            if commitment(bytes.fromhex(said["salt"]), text) == entry.leaf.detail:
                detail = detail_of(row.entry_index, text)
        return str((detail or {}).get("evidence_digest", ""))

    def content_erased(self, row: InboxRow) -> Erased | None:
        """By which decision a delivery's content was erased, bytes or details; None where both are there."""
        return self.erased(row.entry_index, "evidence") or self.erased(row.entry_index)

    def erased(self, index: int, part: Literal["detail", "evidence"] = "detail") -> Erased | None:
        """By which decision the detail of an entry was erased, or None where it was not.

        part: `evidence`, of an entry that accepted a delivery, for its original bytes
        """
        query = "SELECT decision, idx, leaf FROM erasures JOIN entries ON idx = erased_by WHERE entry = ? AND part = ?"
        rows = self._read(query, index, part)
        if not rows:
            return None
        decision, entry, leaf = rows[0]
        return Erased(decision, entry, day_of(leaf_of(entry, leaf).time))

    def reports_after(self, entry: int, limit: int) -> list[tuple[int, InboxRow, bytes]]:
        """Signed reports whose entries come after `entry`, in order: (entry, delivery, report).

        It stops before one that is not signed yet, so that whoever goes on from the last of them misses none.
        """
        query = "SELECT entry_index, inbox_id, octets FROM reports WHERE entry_index > ? ORDER BY entry_index LIMIT ?"
        rows = list(takewhile(lambda row: row[2] is not None, self._read(query, entry, limit)))
        marks = ", ".join("?" * len(rows))
        deliveries = self._read(f"{SELECT_INBOX} WHERE id IN ({marks})", *(row[1] for row in rows)) if rows else []
        by_id = {row.id: row for row in map(inbox_row, deliveries)}
        return [(index, by_id[inbox_id], octets) for index, inbox_id, octets in rows if octets]

    def evidence_files(self) -> set[str]:
        """Files, `bureau/name`, in which the evidence of accepted deliveries lies; any other may be swept."""
        return {location.partition(":")[0] for (location,) in self._read("SELECT evidence FROM inbox")}

    def checkpoint(self) -> str:
        """The latest signed checkpoint; empty before the first entry."""
        query = "SELECT note FROM heads WHERE origin = ? AND note IS NOT NULL ORDER BY size DESC LIMIT 1"
        for log in reversed(self._logs()):
            for (note,) in self._read(query, log):
                return str(note)
        return ""

    def checkpoint_of(self, size: int) -> str:
        """The signed head of a size; empty where there is none."""
        rows = self._read("SELECT note FROM heads WHERE size = ? AND note IS NOT NULL", size)
        return rows[0][0] if rows else ""

    def first_checkpoint_over(self, index: int) -> tuple[str, int]:
        """The smallest signed head over an entry, and its size; empty and 0 while there is none."""
        query = "SELECT note, size FROM heads WHERE origin = ? AND size > ? AND note IS NOT NULL ORDER BY size LIMIT 1"
        for log in self._logs():
            for note, size in self._read(query, log, index):
                return note, size
        return "", 0

    def log_name(self) -> str:
        """The log's name in the checkpoints of the epoch that is open."""
        return self._logs()[-1]

    def root(self) -> bytes:
        """The root of all entries."""
        return merkle.root_at(self._node, self.size())

    def has(self, head: Checkpoint) -> bool:
        """Whether a head is of this tree, whatever its name."""
        return head.size <= self.size() and merkle.root_at(self._node, head.size) == head.root

    def _logs(self) -> list[str]:
        """The log's names in checkpoints, of each epoch, oldest first."""
        return [self._origin, *(log for (log,) in self._read("SELECT log FROM epochs ORDER BY first_size"))]

    def decisions_up_to(self, index: int) -> list[int]:
        """Entries that decide, up to one of them."""
        query = "SELECT entry_index FROM decisions WHERE entry_index <= ? ORDER BY entry_index"
        return [entry for (entry,) in self._read(query, index)]

    def committed(self, index: int) -> tuple[bytes, bytes | None, bytes | None]:
        """An entry's leaf, salt and detail, as they lie."""
        query = "SELECT leaf, salt, detail FROM entries NATURAL LEFT JOIN details WHERE idx = ?"
        leaf, salt, detail = self._read(query, index)[0]
        return leaf, salt, detail

    def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """RFC 6962 audit path of entry `index` in the tree of `size`. Raises Refusal `audit.no_such_size`."""
        if not 0 <= index < size <= self.size():
            raise Refusal("audit.no_such_size", f"entry {index} of {size}")
        return merkle.inclusion_proof(self._node, index, size)

    def consistency(self, first: int, second: int) -> tuple[bytes, ...]:
        """RFC 6962 consistency proof, 0 < first <= second <= size. Raises Refusal `audit.no_such_size`."""
        if not 0 < first <= second <= self.size():
            raise Refusal("audit.no_such_size", f"sizes {first} and {second}")
        return merkle.consistency_proof(self._node, first, second)

    def size(self) -> int:
        """How many entries the log has."""
        return int(self._read("SELECT coalesce(max(idx) + 1, 0) FROM entries")[0][0])

    def prove(self, index: int) -> EntryProof:
        """An entry with its proof under the latest signed checkpoint. Raises Refusal `audit.no_such_size`."""
        checkpoint = self.checkpoint()
        head = self.head(checkpoint) if checkpoint else None
        if head is None or not 0 <= index < head.size:
            raise Refusal("audit.no_such_size", f"entry {index}")
        query = "SELECT leaf, salt, detail FROM entries NATURAL LEFT JOIN details WHERE idx = ?"
        leaf, salt, detail = self._read(query, index)[0]
        return EntryProof(index, leaf, salt, detail, head.size, self.inclusion(index, head.size), checkpoint)

    def entry(self, index: int) -> LoggedEntry | None:
        """An entry as it stands in the log, or None."""
        rows = self._read(f"{_SELECT_ENTRY} WHERE idx = ?", index)
        return logged(rows[0]) if rows else None

    def since(self, moment: datetime) -> list[LoggedEntry]:
        """All entries from a moment on, newest first; read backwards from the end, however long the log is."""
        found, size, first = [], self.size(), instant(moment)
        for stop in range(size, 0, -MOST_IN_GROUP):
            query = f"{_SELECT_ENTRY} WHERE idx >= ? AND idx < ? ORDER BY idx DESC"
            piece = [logged(row) for row in self._read(query, stop - MOST_IN_GROUP, stop)]
            found += [entry for entry in piece if entry.leaf.time >= first]
            if not piece or piece[-1].leaf.time < first:
                break
        return found

    def search(
        self,
        *,
        type: str = "",
        outcome: str = "",
        code: str = "",
        sender: str = "",
        bureau: str = "",
        certificates: Collection[str] = (),
        feed: str = "",
        person: str = "",
        message_id: str = "",
        component: str = "",
        purpose: str = "",
        since: datetime | None = None,
        until: datetime | None = None,
        before: int | None = None,
        after: int | None = None,
        limit: int = 100,
    ) -> list[LoggedEntry]:
        """Entries that match all that is given (see `Wanted`), newest first; after an entry, oldest first.

        since is within, until is not; before, after: only entries numbered lower, higher
        """
        wanted = Wanted(
            type=type,
            outcome=outcome,
            code=code,
            sender=sender,
            bureau=bureau,
            certificates=frozenset(certificates),
            feed=feed,
            person=person,
            message_id=message_id,
            component=component,
            purpose=purpose,
        )
        size = self.size()
        first = max(self._first_at(since, size) if since else 0, 0 if after is None else after + 1)
        stop = min(self._first_at(until, size) if until else size, size if before is None else before)
        return find(
            self._read, wanted, range(max(first, 0), max(stop, first, 0)), limit, oldest_first=after is not None
        )

    def every(self, type: str) -> list[LoggedEntry]:
        """All entries of a type, in order, read from the log itself: what the index leaves out is not left out here."""
        query = f"{_SELECT_ENTRY} WHERE instr(leaf, ?) > 0 ORDER BY idx"
        found = map(logged, self._read(query, b'"type":' + msgspec.json.encode(type)))
        return [entry for entry in found if entry.leaf.type == type]

    def indexed(self) -> tuple[int, int]:
        """How many pieces of the log are full, and how many of these the index has."""
        return full_pieces(self._read)

    def _first_at(self, moment: datetime, size: int) -> int:
        """The first entry not before a moment; log time never goes back."""
        return bisect_left(range(size), instant(moment), key=self._time_of)

    def _time_of(self, index: int) -> str:
        for (leaf,) in self._read("SELECT leaf FROM entries WHERE idx = ?", index):
            return leaf_of(index, leaf).time
        raise AuditBroken(f"entry {index} of the log is missing")

    def entries_of(
        self, bureau: str, certificates: Sequence[str], also: Sequence[int], after: int, limit: int, size: int
    ) -> tuple[list[OwnEntry], int]:
        """Entries in a bureau's name among the first `size`: those after entry `after`, in order, and how many in all.

        certificates: SHA-256 of those enrolled for it, hex. In its name is what stands under it as sender, what was
        signed by one of these, and what came over one of these from nobody that was verified; never what only claims it
        also:         further entries that concern it
        """
        page, count = self._owners.page(bureau, frozenset(certificates), also, after, limit, size)
        query = "SELECT idx, leaf, salt, detail FROM entries NATURAL JOIN details WHERE idx = ?"
        return [OwnEntry(*self._read(query, index)[0]) for index in page], count

    def _node(self, level: int, index: int) -> bytes:
        rows = self._read("SELECT hash FROM nodes WHERE level = ? AND idx = ?", level, index)
        if not rows:
            raise AuditBroken(f"node {level}, {index} of the log is missing")
        return bytes(rows[0][0])

    def ask(self, query: str, *values: object) -> list[Any]:
        """The rows of a question about what lies beside the log."""
        return self._read(query, *values)

    def _read(self, query: str, *values: object) -> list[Any]:
        try:
            with self._reading:
                return self._reader.execute(query, values).fetchall()
        except FAILURES as problem:
            if is_unreadable(problem):
                raise AuditBroken("an entry of the log cannot be read") from problem
            raise


def _open_head(text: str, logs: list[str], keys: tuple[PublicKey, ...]) -> Checkpoint:
    """The tree head of a checkpoint under one of these names that one of these keys signed.

    Raises Refusal `audit.checkpoint_invalid`.
    """
    name = text.partition("\n")[0]
    name = name if name in logs else logs[-1]
    for key in keys[:-1]:
        with contextlib.suppress(Refusal):
            return open_checkpoint(text, name, key)
    return open_checkpoint(text, name, keys[-1])


_DELIVERY: Final = b'"type":"delivery"'
_ACCEPTED: Final = (
    "SELECT idx, said(leaf, 'sender'), said(leaf, 'feed') FROM entries WHERE idx >= ? AND idx < ? "
    "AND instr(leaf, ?) > 0 AND said(leaf, 'type') = 'delivery' AND said(leaf, 'outcome') = 'accepted' ORDER BY idx"
)
_BECAME: Final = (
    "SELECT i.entry_index, i.sender, i.feed, i.message_id, i.status, i.decision, said(e.leaf, 'outcome'), d.detail "
    "FROM inbox i LEFT JOIN reports r ON r.inbox_id = i.id AND r.entry_index < ? "
    "LEFT JOIN entries e ON e.idx = r.entry_index LEFT JOIN details d ON d.idx = r.entry_index "
    "WHERE i.entry_index >= ? AND i.entry_index < ? ORDER BY i.entry_index, r.entry_index"
)
# A detail whose very row is gone reads as an erased one: it must hide no entry.
_SELECT_ENTRY = "SELECT idx, leaf, detail FROM entries NATURAL LEFT JOIN details"


def content_erased(erased: Erased | None) -> str:
    """On which day, in both languages; empty where it was not."""
    return f"content erased on {erased.day} 内容已于 {erased.day} 销毁" if erased else ""


def _promised() -> "Future[Any]":
    """A future that its waiter cannot cancel: a client that hangs up does not undo what is being written."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    return future


def _said(problem: Exception) -> Exception:
    """What a caller hears: our own errors as they are; a disk's or database's as Unavailable, for it may pass."""
    if isinstance(problem, (OSError, *FAILURES)):
        said = Unavailable(f"the journal cannot be written: {problem}")
        said.__cause__ = problem
        return said
    return problem
