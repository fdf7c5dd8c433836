"""The order of the log: one group of work at a time goes in, gets its places in the tree, and comes out proven.

Order on disk (architecture.md): evidence durable → inbox rows, entries, nodes and the unsigned head in one transaction
→ checkpoint signed → checkpoint, receipts and reports kept in a second transaction → answers. A crash between any two
leaves either nothing, or rows whose documents `resume` issues. Used by one thread only.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

import msgspec

from exchange.database import CONFLICTS, Cursor, Database, insert
from exchange.entry import (
    Acceptance,
    Accepted,
    EntryProof,
    InboxRow,
    Prepared,
    Sequenced,
    Status,
    instant,
    leaf_of,
)
from exchange.faults import durable_step
from exchange.log_index import PIECE, index_piece
from security import merkle
from security.checkpoint import log_key_octets, sign_checkpoint
from security.errors import AuditBroken, Misconfigured, Refusal
from security.keys import SigningKey
from security.signed_delivery import HIGHEST

# Of a group all at once, in their order: so that one signature may do for all.
IssueReceipts = Callable[[Sequence[tuple[InboxRow, EntryProof]]], list[bytes]]
IssueReports = Callable[[Sequence[tuple[InboxRow, EntryProof, dict[str, Any]]]], list[bytes]]

INBOX_COLUMNS = (
    "id, sender, message_id, feed, content_type, content_digest, content_length, request_digest, signer, carrier, "
    "evidence_class, form, grant_id, received_at, signed_at, evidence, entry_index, status, sequence"
)
_INBOX_FIELDS = [name.strip().replace("grant_id", "grant") for name in INBOX_COLUMNS.split(",")] + [
    "receipt",
    "decision",
]
SELECT_INBOX = f"SELECT {INBOX_COLUMNS}, octets, decision FROM inbox LEFT JOIN receipts ON inbox_id = id"


class Note(msgspec.Struct):
    """An entry alone. also: further changes in the same transaction; they get the cursor and the entry's index."""

    prepared: Prepared
    future: "Future[Sequenced]"
    also: Callable[[Cursor, int], None] | None = None


class Arrival(msgspec.Struct):
    """A delivery to accept."""

    prepared: Prepared
    future: "Future[Accepted]"
    acceptance: Acceptance


class Closing(msgspec.Struct):
    """A delivery to finish. document: the report, canonical."""

    prepared: Prepared
    future: "Future[bytes]"
    inbox_id: int
    status: Status
    document: bytes


Work = Note | Arrival | Closing


Numbered = tuple[str, str, int]  # sender, feed and sequence number


class _Edge(msgspec.Struct, frozen=True):
    """Where the log ends. peaks: hashes of the complete subtrees, largest first."""

    size: int = 0
    root: bytes = merkle.EMPTY_ROOT
    time: str = ""
    peaks: tuple[bytes, ...] = ()


class Group(msgspec.Struct):
    """What one group comes to.

    start: size of the log before it; size: after it
    nodes: those it made, and those at hand that its proofs go through
    known: deliveries of its arrivals that are in the inbox, by (message id, sender)
    taken: of their sequence numbers, those that are another delivery's
    """

    start: int
    size: int
    time: str
    root: bytes
    checkpoint: str = ""
    entries: list[tuple[int, bytes]] = []
    details: list[tuple[int, bytes, bytes]] = []
    nodes: dict[tuple[int, int], bytes] = {}
    inbox: list[tuple[object, ...]] = []
    known: dict[tuple[str, str], InboxRow] = {}
    taken: set[Numbered] = set()
    next_id: int = 0
    notes: list[tuple[Note, int]] = []
    arrivals: list[tuple[Arrival, InboxRow, bool]] = []
    closings: list[tuple[Closing, int]] = []
    refused: list[tuple[Work, Exception]] = []


def inbox_row(values: tuple[Any, ...]) -> InboxRow:
    """A row of `SELECT_INBOX` as its type."""
    return InboxRow(**dict(zip(_INBOX_FIELDS, values, strict=True)))


class Sequencer:
    """Writes groups. database, origin, log_key, clock, issue_receipts, issue_reports, former_log_key: as `Journal` has
    them."""

    def __init__(
        self,
        database: Database,
        origin: str,
        log_key: SigningKey,
        clock: Callable[[], datetime],
        issue_receipts: IssueReceipts,
        issue_reports: IssueReports,
        former_log_key: SigningKey | None = None,
    ) -> None:
        self._origin, self._clock = origin, clock
        self._first = former_log_key or log_key
        self._held = {log_key_octets(key.public_key).hex(): key for key in (log_key, self._first)}
        self._issue_receipts, self._issue_reports = issue_receipts, issue_reports
        self._database, self._connection = database, database.connect()
        self._known: _Edge | None = None
        self._indexed = 0  # entries, at least so many

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def place(self, works: list[Work]) -> Group:
        """Give a group its places in the log; what may not have one hears it. Raises what the disk raises."""
        durable_step("journal.group:before")
        with self._transaction() as cursor:
            group = self._sequence(cursor, works)
        # From here the entries are durable: a crash now is finished by resume(), or by the sender's retry.
        durable_step("journal.group:after")
        for work, problem in group.refused:
            work.future.set_exception(problem)
        return group

    def resume(self) -> int:
        """Sign heads and issue documents that a crash left out; gives how many documents."""
        with self._transaction() as cursor:
            edge = self._edge(cursor)
            if not edge.size:
                return 0
            self._sign_heads(cursor)
            group = Group(edge.size, edge.size, edge.time, edge.root)
            name = self._log_at(edge.size)
            group.checkpoint = sign_checkpoint(name, edge.size, edge.root, self._in_force(edge.size))
            owed = [inbox_row(row) for row in cursor.execute(f"{SELECT_INBOX} WHERE octets IS NULL")]
            insert(cursor, "receipts", list(self._receipts(owed, group).items()))
            query = "SELECT entry_index FROM reports WHERE octets IS NULL ORDER BY entry_index"
            reports = [index for (index,) in cursor.execute(query)]
            self._keep_reports(cursor, reports, group)
            return len(owed) + len(reports)

    def index(self) -> int:
        """Index the next piece of the log; gives how many entries are indexed, 0 when no piece was full.

        After the answers, in a transaction of its own: nobody waits for it, and a crash leaves only a piece that is
        indexed later. The other process may have been first.
        """
        if self._known is not None and self._known.size < self._indexed + PIECE:
            return 0
        with self._transaction() as cursor:
            full, self._indexed = index_piece(cursor)
        return self._indexed if full else 0

    def _transaction(self) -> AbstractContextManager[Cursor]:
        return self._database.transaction(self._connection)

    # First transaction: places.

    def _sequence(self, cursor: Cursor, works: list[Work]) -> Group:
        edge = self._edge(cursor)
        self._in_force(edge.size + 1)  # before anything is written that this process could not sign
        group = Group(edge.size, edge.size, max(instant(self._clock()), edge.time), edge.root)
        group.known = self._known_arrivals(cursor, works)
        group.taken = self._taken(cursor, works)
        for work in works:
            try:
                if self._place(cursor, work, group):
                    self._append(work.prepared, group)
            except (Refusal, AuditBroken, *CONFLICTS) as problem:
                group.refused.append((work, problem))
        hashes = [merkle.leaf_hash(leaf) for _, leaf in group.entries]
        peaks = list(edge.peaks)
        nodes = merkle.grow(edge.size, peaks, hashes)
        group.root = merkle.root_of_peaks(peaks)
        group.nodes = dict(zip(merkle.peaks_of(edge.size), edge.peaks, strict=True))
        group.nodes |= {(level, index): value for level, index, value in nodes}
        if hashes:
            insert(cursor, f"inbox ({INBOX_COLUMNS})", group.inbox)
            insert(cursor, "entries", group.entries)
            insert(cursor, "details", group.details)
            insert(cursor, "nodes", nodes)
            cursor.execute(
                "INSERT INTO heads VALUES (?, ?, ?, NULL)", (self._log_at(group.size), group.size, group.root)
            )
            self._known = _Edge(group.size, group.root, group.time, tuple(peaks))
        return group

    def _edge(self, cursor: Cursor) -> _Edge:
        """Where the log ends now: ours, or what the other process added. Raises AuditBroken when it does not add up."""
        query = "SELECT size, root FROM heads WHERE origin = ? ORDER BY size DESC LIMIT 1"
        # An epoch's first head is written with it, so that the newest name has one.
        size, root = cursor.execute(query, (self._log_at(None),)).fetchone() or (0, merkle.EMPTY_ROOT)
        known = self._known
        if known is not None and (known.size, known.root) == (size, root):
            return known
        peaks = tuple(self._node(level, index) for level, index in merkle.peaks_of(size))
        if merkle.root_of_peaks(peaks) != root:
            raise AuditBroken(f"the tree of size {size} has not the root of its head: nothing more is signed")
        if not size:
            return _Edge()
        (leaf,) = cursor.execute("SELECT leaf FROM entries WHERE idx = ?", (size - 1,)).fetchone()
        return _Edge(size, root, leaf_of(size - 1, leaf).time, peaks)

    def _append(self, prepared: Prepared, group: Group) -> None:
        prepared.leaf.time = group.time
        group.entries.append((group.size, msgspec.json.encode(prepared.leaf)))
        group.details.append((group.size, prepared.salt, prepared.detail))
        group.size += 1

    def _place(self, cursor: Cursor, work: Work, group: Group) -> bool:
        """Write what belongs to a work besides its entry; false when it needs no entry."""
        if isinstance(work, Arrival):
            return self._place_arrival(cursor, work, group)
        if isinstance(work, Closing):
            return self._place_closing(cursor, work, group)
        if work.also is not None:
            self._place_also(cursor, work.also, group.size)
        group.notes.append((work, group.size))
        return True

    def _place_also(self, cursor: Cursor, also: Callable[[Cursor, int], None], index: int) -> None:
        """Changes that come with an entry; when they fail they take their own entry with them, not the group."""
        cursor.execute("SAVEPOINT also")
        try:
            also(cursor, index)
        except BaseException:
            cursor.execute("ROLLBACK TO also")
            raise
        finally:
            cursor.execute("RELEASE also")

    def _place_arrival(self, cursor: Cursor, work: Arrival, group: Group) -> bool:
        a = work.acceptance
        row = group.known.get((a.message_id, a.sender))
        if row is not None:
            said, kept = ((one.feed, one.content_type, one.content_digest) for one in (a, row))
            if said != kept:  # whatever number it bears: another of the bureau's machines may have sent it first
                raise Refusal("delivery.id_reused", a.message_id)
            group.arrivals.append((work, row, True))
            return False
        self._take_number(cursor, a, group)
        values = (
            *(a.sender, a.message_id, a.feed, a.content_type, a.content_digest, a.content_length, a.request_digest),
            *(a.signer, a.carrier, a.evidence_class, a.form, a.grant, instant(a.received_at), instant(a.signed_at)),
            *(a.evidence, group.size, "waiting", a.sequence),
        )
        if not group.next_id:
            group.next_id = cursor.execute("SELECT coalesce(max(id), 0) + 1 FROM inbox").fetchone()[0]
        row = group.known[a.message_id, a.sender] = inbox_row((group.next_id, *values, None, ""))
        group.inbox.append((group.next_id, *values))
        group.arrivals.append((work, row, False))
        group.next_id += 1
        return True

    def _take_number(self, cursor: Cursor, a: Acceptance, group: Group) -> None:
        """Give a delivery the number that it states. Raises Refusal `sequence.used`, which says the highest used."""
        if a.sequence is None:
            return
        number = a.sender, a.feed, a.sequence
        if number in group.taken:
            query = "SELECT max(sequence) FROM inbox WHERE sender = ? AND feed = ?"
            kept = cursor.execute(f"{query} AND sequence IS NOT NULL", number[:2]).fetchone()[0] or 0
            highest = max([kept, *(taken for *whose, taken in group.taken if (a.sender, a.feed) == tuple(whose))])
            raise Refusal("sequence.used", f"{a.sequence}; {HIGHEST} {highest}")
        group.taken.add(number)

    def _taken(self, cursor: Cursor, works: list[Work]) -> set[Numbered]:
        """Numbers that arrivals state and that are in the inbox. One question a sender and feed: of a group few."""
        stated: dict[tuple[str, str], list[int]] = {}
        for a in (work.acceptance for work in works if isinstance(work, Arrival)):
            if a.sequence is not None:
                stated.setdefault((a.sender, a.feed), []).append(a.sequence)
        taken: set[Numbered] = set()
        for (sender, feed), numbers in stated.items():
            query = "SELECT sequence FROM inbox WHERE sender = ? AND feed = ? AND sequence IS NOT NULL AND sequence IN "
            rows = cursor.execute(f"{query}({', '.join('?' * len(numbers))})", [sender, feed, *numbers]).fetchall()
            taken |= {(sender, feed, number) for (number,) in rows}
        return taken

    def _known_arrivals(self, cursor: Cursor, works: list[Work]) -> dict[tuple[str, str], InboxRow]:
        keys = [(w.acceptance.message_id, w.acceptance.sender) for w in works if isinstance(w, Arrival)]
        if not keys:
            return {}
        # Not by pairs: SQLite reads the whole inbox for `(message_id, sender) IN (VALUES …)` of more than one pair.
        query = f"{SELECT_INBOX} WHERE message_id IN ({', '.join('?' * len(keys))})"
        rows = map(inbox_row, cursor.execute(query, [message_id for message_id, _ in keys]).fetchall())
        return {(row.message_id, row.sender): row for row in rows}

    def _place_closing(self, cursor: Cursor, work: Closing, group: Group) -> bool:
        found = cursor.execute("SELECT status FROM inbox WHERE id = ?", (work.inbox_id,)).fetchone()
        if found is None:
            raise AuditBroken(f"finishing delivery {work.inbox_id}, which is not in the inbox")
        if found[0] == work.status:
            query = "SELECT max(entry_index) FROM reports WHERE inbox_id = ?"
            group.closings.append((work, cursor.execute(query, (work.inbox_id,)).fetchone()[0]))
            return False
        if work.status == "recalled":  # whatever became of it; act two carries it out
            cursor.execute("UPDATE inbox SET decision = 'recall' WHERE id = ?", (work.inbox_id,))
        elif found[0] == "recalled":
            raise Refusal("delivery.recalled", str(work.inbox_id))
        elif found[0] not in ("waiting", "held"):
            raise AuditBroken(f"delivery {work.inbox_id} is {found[0]} and cannot become {work.status}")
        cursor.execute("UPDATE inbox SET status = ? WHERE id = ?", (work.status, work.inbox_id))
        cursor.execute("INSERT INTO reports VALUES (?, ?, ?, NULL)", (group.size, work.inbox_id, work.document))
        group.closings.append((work, group.size))
        return True

    # Second transaction: documents.

    def answer(self, group: Group) -> None:
        """Sign a group's head, keep its documents, resolve its futures. Raises what the disk raises."""
        if not group.size:
            return
        durable_step("journal.sign:before")
        name = self._log_at(group.size)
        group.checkpoint = sign_checkpoint(name, group.size, group.root, *self._signers(group.size))
        durable_step("journal.sign:after")
        receipts = self._receipts([row for _, row, _ in group.arrivals if row.receipt is None], group)
        durable_step("journal.keep:before")
        with self._transaction() as cursor:
            self._keep_head(cursor, group.size, group.checkpoint)
            # First kept wins: where another process resumed in between, its receipt is the one receipt.
            if insert(cursor, "receipts", list(receipts.items()), "ON CONFLICT DO NOTHING") < len(receipts):
                receipts = {id: self._receipt(cursor, id) for id in receipts}
            reports = self._keep_reports(cursor, [index for _, index in group.closings], group)
        durable_step("journal.keep:after")
        for note, index in group.notes:
            note.future.set_result(Sequenced(index, group.time))
        for arrival, row, repeated in group.arrivals:
            whole = msgspec.structs.replace(row, receipt=row.receipt or receipts[row.id])
            arrival.future.set_result(Accepted(whole, repeated))
        for (closing, _), octets in zip(group.closings, reports, strict=True):
            closing.future.set_result(octets)

    def _keep_head(self, cursor: Cursor, size: int, checkpoint: str) -> None:
        query = "UPDATE heads SET note = ? WHERE origin = ? AND size = ? AND note IS NULL"
        cursor.execute(query, (checkpoint, self._log_at(size), size))

    def _receipts(self, rows: list[InboxRow], group: Group) -> dict[int, bytes]:
        """A receipt of each row by its id; a delivery that stands twice in the group has one."""
        once = {row.id: row for row in rows}
        owed = [(row, self._proof(row.entry_index, group)) for row in once.values()]
        return dict(zip(once, self._issue_receipts(owed), strict=True))

    def _receipt(self, cursor: Cursor, inbox_id: int) -> bytes:
        octets: bytes = cursor.execute("SELECT octets FROM receipts WHERE inbox_id = ?", (inbox_id,)).fetchone()[0]
        return octets

    def _keep_reports(self, cursor: Cursor, indexes: list[int], group: Group) -> list[bytes]:
        """The reports under these entries, signed now where they were not yet."""
        kept: dict[int, bytes | None] = {}
        owed = {}
        for index in indexes:
            query = "SELECT inbox_id, document, octets FROM reports WHERE entry_index = ?"
            inbox_id, document, kept[index] = cursor.execute(query, (index,)).fetchone()
            if kept[index] is None:
                row = inbox_row(cursor.execute(f"{SELECT_INBOX} WHERE id = ?", (inbox_id,)).fetchone())
                owed[index] = (row, self._proof(index, group), msgspec.json.decode(document, type=dict[str, Any]))
        signed = dict(zip(owed, self._issue_reports(list(owed.values())), strict=True))
        cursor.executemany("UPDATE reports SET octets = ? WHERE entry_index = ?", [(v, k) for k, v in signed.items()])
        return [signed.get(index) or bytes(kept[index] or b"") for index in indexes]

    def _sign_heads(self, cursor: Cursor) -> None:
        """Sign the heads that a crash left unsigned; each must be the root that the tree has at its size."""
        for size, root in cursor.execute("SELECT size, root FROM heads WHERE note IS NULL ORDER BY size").fetchall():
            if merkle.root_at(self._node, size) != root:
                raise AuditBroken(f"the unsigned head of size {size} has not the root of the tree: it is not signed")
            self._keep_head(cursor, size, sign_checkpoint(self._log_at(size), size, root, *self._signers(size)))

    def _signers(self, size: int) -> list[SigningKey]:
        """Who signs a head of this size: the key in force there, and at the first head under it the former one too,
        unless an epoch begins with it: a key that was stolen is not asked. Where entries were lost, and the epoch's
        first one carries the decision itself, the former key vouches for what no head of its own could cover.

        Raises Misconfigured where one is not held here: perhaps the key was changed since this process began.
        """
        rows = self._keys_until(size)
        query = "SELECT 1 FROM heads WHERE origin = ? AND size >= ? AND size < ? LIMIT 1"
        if not rows or self._connection.execute(query, (self._log_at(size), rows[0][0], size)).fetchone():
            return [self._in_force(size)]
        begins = "SELECT said(detail, 'proposal') FROM epochs JOIN details ON idx = first_size - 1 WHERE first_size = ?"
        if self._connection.execute(begins, (rows[0][0],)).fetchone() == (None,):
            return [self._in_force(size)]
        return [self._holding(key, size) for _, key in rows]

    def _in_force(self, size: int) -> SigningKey:
        """The key in force at a size. Raises Misconfigured as `_signers` does."""
        rows = self._keys_until(size)
        return self._holding(rows[0][1], size) if rows else self._first

    def _log_at(self, size: int | None) -> str:
        """The log's name in the checkpoint of a size; of none given, in the epoch that is open."""
        query = "SELECT log FROM epochs WHERE first_size <= coalesce(?, first_size) ORDER BY first_size DESC LIMIT 1"
        found: tuple[str] | None = self._connection.execute(query, (size,)).fetchone()
        return found[0] if found else self._origin

    def _keys_until(self, size: int) -> list[tuple[int, str]]:
        """The key in force at a size and the one before it, each with its first size; none that was never changed."""
        query = "SELECT first_size, key FROM own_keys WHERE name = 'log' AND first_size <= ? ORDER BY first_size DESC"
        return self._connection.execute(f"{query} LIMIT 2", (size,)).fetchall()

    def _holding(self, key: str, size: int) -> SigningKey:
        if key not in self._held:
            raise Misconfigured(
                "config.start_again", f"the log's key was changed; a head of size {size} needs {key[:16]}…: start again"
            )
        return self._held[key]

    def _node(self, level: int, index: int) -> bytes:
        query = "SELECT hash FROM nodes WHERE level = ? AND idx = ?"
        found = self._connection.execute(query, (level, index)).fetchone()
        if found is None:
            raise AuditBroken(f"node {level}, {index} of the log is missing")
        return bytes(found[0])

    def _proof(self, index: int, group: Group) -> EntryProof:
        """The proof of an entry under the group's head; what is at hand is not read again."""

        def read(level: int, index: int) -> bytes:
            if (level, index) not in group.nodes:
                group.nodes[level, index] = self._node(level, index)
            return group.nodes[level, index]

        if index >= group.start:
            leaf = group.entries[index - group.start][1]
            _, salt, detail = group.details[index - group.start]
        else:
            query = "SELECT leaf, salt, detail FROM entries NATURAL JOIN details WHERE idx = ?"
            leaf, salt, detail = self._connection.execute(query, (index,)).fetchone()
        path = merkle.inclusion_proof(read, index, group.size)
        return EntryProof(index, leaf, salt, detail, group.size, path, group.checkpoint)
