"""Reading the whole log again and believing none of it: what `audit verify` answers.

From the stored leaves every node, head and commitment is made again; only the trust anchors come from outside. The
journal is opened for reading only, while the bus may be running. Whatever is wrong is named, and nothing raises.
"""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import msgspec

from exchange.audit_erasures import Borne, Delivered, Erasing, erasing_of, purges_of
from exchange.decision_documents import founding_digest
from exchange.decisions import DECIDES, Decided
from exchange.decisions import ENTRY as DECISION
from exchange.entry import ERASURE, RECALL, Leaf
from exchange.evidence import is_erased
from exchange.log_stretch import (
    AT_ONCE,
    MOST_NAMED,
    Problem,
    Read,
    is_hash,
    is_parent,
    not_a_node,
    open_journal_file,
    places_of,
    read_stretch,
    rows_of,
)
from exchange.receipts import COUNTED, IN_DETAIL, IN_LEAF, verify_receipt
from security import merkle
from security.anchors import Anchors, FormerLogKey
from security.checkpoint import Checkpoint, open_checkpoint
from security.errors import Misconfigured, Refusal

LONG: Final = 100_000  # entries; a longer log is read by several processes

_FOUNDED: Final = (
    "SELECT idx, detail FROM decisions JOIN details ON idx = entry_index WHERE outcome = 'founded' ORDER BY idx LIMIT 1"
)

_ENTRY: Final = "SELECT leaf, detail FROM entries NATURAL JOIN details WHERE idx = ?"
_OF_ERASED: Final = "SELECT idx, leaf FROM entries NATURAL JOIN details WHERE salt IS NULL AND detail IS NULL"

# Columns of the inbox that leaf or detail say as well.
_OF_INBOX: Final = tuple(name for name in (*IN_LEAF, *IN_DETAIL, *COUNTED) if name not in ("origin", "outcome"))

# A head's checkpoint is kept together with the documents of its group: where it stands, none of them may be missing.
NAME: Final = "journal.sqlite"
# Asked of what is missing alone: for each row that is there, the engine would go through all heads.
_OWED: Final = (
    "CASE WHEN octets IS NULL THEN (SELECT note NOT NULL FROM heads WHERE size > entry_index ORDER BY size LIMIT 1) END"
)


class AuditVerdict(msgspec.Struct):
    """What a whole reading found.

    entries:  how many were read; erased: details erased by rule, whose leaves still stand
    signed:   size of the largest head whose signature holds; entries beyond it are not under a signed head yet
    found:    how many problems; the first hundred stand in `problems`
    """

    origin: str
    entries: int = 0
    erased: int = 0
    heads: int = 0
    signed: int = 0
    receipts: int = 0
    reports: int = 0
    found: int = 0
    problems: list[Problem] = []

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.found == 0

    def add(self, entry: int | None, what: str) -> None:
        """Note a problem."""
        self.found += 1
        if len(self.problems) < MOST_NAMED:
            self.problems.append(Problem(entry, what))


def verify(journal: Path, anchors: Anchors, against: Sequence[Checkpoint] = ()) -> AuditVerdict:
    """Verify a journal file, or the one in a folder: every leaf, detail, node, head, checkpoint, receipt and report.

    against: heads that others remember, whose signatures hold; each must be a head of this log. Who has the log's key
             can write a log in which all else agrees.

    Damage to the database file itself is said as such, and what can still be read is verified. Never raises.
    """
    verdict = AuditVerdict(anchors.origin)
    path = journal / NAME if journal.is_dir() else journal
    connection = None
    try:
        connection = open_journal_file(path)
        reading = _Reading(connection, path, verdict, anchors)
        reading.all()
        reading.remembered(against)
    except (sqlite3.Error, OSError, OverflowError) as problem:
        verdict.add(None, f"the database file is damaged or not readable: {problem}")
    finally:
        if connection is not None:
            connection.close()
    return verdict


class _Reading:
    """One reading of one file; each method adds to the verdict."""

    def __init__(self, connection: sqlite3.Connection, path: Path, verdict: AuditVerdict, anchors: Anchors) -> None:
        self._connection, self._path, self._verdict, self._anchors = connection, path, verdict, anchors
        self._without_row: dict[str, set[int]] = {**Read().without_row, DECISION: set()}
        self._erased: set[int] = set()
        self._decided: set[int] = set()  # entries that decide
        self._gone: dict[int, Delivered] = {}  # deliveries of which something was erased, by entry
        self._gone_bytes: dict[int, str] = {}  # by which decision the original bytes of a delivery were, by entry
        self._gone_reports: dict[int, int] = {}  # of which inbox row an erased report was, by entry
        self._last_signed = 0
        self._read_node = lru_cache(65_536)(self._stored_node)

    def all(self) -> None:
        """Everything, the file first: what the file says of itself decides how to read the rest."""
        for part in (
            self._log,
            self._tree_has_no_more,
            self._heads,
            self._inbox,
            self._reports,
            self._decisions,
            self._erasures,
        ):
            try:
                part()
            except (sqlite3.Error, OverflowError) as problem:
                self._verdict.add(None, f"the database file is damaged: {problem}")

    def _file(self) -> None:
        """The database's own structure. Its content is judged below."""
        try:
            said = [str(row[0], "utf-8", "replace") for row in self._rows("PRAGMA integrity_check(20)")]
        except sqlite3.Error as problem:
            said = [str(problem)]
        for line in said:
            if line != "ok":
                self._verdict.add(None, f"the database file is damaged: {line}")

    def _log(self) -> None:
        """The file, every entry in order, and the nodes above the pieces of the log."""
        size = 0
        try:
            # Counted, not the largest number: one altered number must not send us through a billion missing entries.
            (size,) = self._one("SELECT count(*) FROM entries", (0,))
            self._verdict.entries = size
        finally:
            self._read_all(size)
        self._upper(size)
        for (index,) in self._rows("SELECT idx FROM entries WHERE idx < 0 OR idx >= ? LIMIT 20", size):
            self._verdict.add(index, "an entry numbered outside the log")

    def _read_all(self, size: int) -> None:
        """The file itself, and every entry; of a long log several processes read, while this one looks at the file."""
        if size <= LONG:
            self._file()
            self._take(read_stretch(self._path, self._verdict.origin, range(size)))
            return
        part = -(-size // ((os.cpu_count() or 1) * AT_ONCE)) * AT_ONCE
        with ExitStack() as stack:
            readers = [
                stack.enter_context(self._reader(start, min(start + part, size))) for start in range(0, size, part)
            ]
            self._file()
            for reader in readers:
                octets, _ = reader.communicate()
                if reader.returncode:
                    self._verdict.add(None, f"a process that read the log ended with {reader.returncode}")
                else:
                    self._take(msgspec.json.decode(octets, type=Read))

    def _reader(self, start: int, stop: int) -> "subprocess.Popen[bytes]":
        what = (str(self._path), self._verdict.origin, str(start), str(stop))
        # -P: else a package `exchange` in the folder where we stand, a copy's for instance, would be run instead.
        return subprocess.Popen([sys.executable, "-P", "-m", "exchange.log_stretch", *what], stdout=subprocess.PIPE)

    def _take(self, read: Read) -> None:
        self._verdict.erased += len(read.erased)
        self._erased |= read.erased
        for kind, indexes in read.without_row.items():
            self._without_row[kind] |= indexes
        self._decided |= {index for index, outcome in read.decisions.items() if outcome in DECIDES}
        for problem in read.problems:
            self._verdict.add(problem.entry, problem.what)
        self._verdict.found += read.found - len(read.problems)

    def _upper(self, size: int) -> None:
        """The nodes above the pieces."""
        for level in range(AT_ONCE.bit_length(), size.bit_length()):
            for index in range(size >> level):
                if not is_parent(*(self._read_node(*place) for place in places_of(level, index))):
                    self._verdict.add(index << level, not_a_node(level, index))

    def _tree_has_no_more(self) -> None:
        """Rows that no entry accounts for: nodes beyond the tree, details without an entry."""
        size = self._verdict.entries
        (nodes,) = self._one("SELECT count(*) FROM nodes", (0,))
        wanted = sum(size >> level for level in range(size.bit_length()))
        if nodes != wanted:
            self._verdict.add(max(size - 1, 0), f"{nodes} nodes where {size} entries make {wanted}")
        for (index,) in self._rows("SELECT idx FROM details WHERE idx NOT IN (SELECT idx FROM entries) LIMIT 20"):
            self._verdict.add(index, "a detail without an entry")

    def _heads(self) -> None:
        """Each head against the tree, each signature against the log's key, the last head against the last entry."""
        last = 0
        for stated, size, root, note in self._rows("SELECT origin, size, root, note FROM heads ORDER BY size"):
            if not isinstance(size, int) or not 0 < size <= self._verdict.entries or stated != self._named(size):
                self._verdict.add(_last_of(size), "a head that is not of this log")
                continue
            self._verdict.heads += 1
            last = size
            if root != self._root(size):
                self._verdict.add(size - 1, f"the head of size {size} is not the root of its entries")
            elif note is not None:
                self._note(size, root, note)
        if last != self._verdict.entries:
            self._verdict.add(last, "entries beyond the last head")

    def remembered(self, heads: Sequence[Checkpoint]) -> None:
        """Heads that were given out, against the log as it now is."""
        for head in heads:
            if head.size > self._verdict.entries:
                gone = f"entries are gone: a head of size {head.size} was signed, and is remembered"
                self._verdict.add(self._verdict.entries, gone)
            elif head.root != self._root(head.size):
                said = f"entries up to here are not those of the remembered head of size {head.size}"
                self._verdict.add(max(head.size - 1, 0), f"{said}: the log was rewritten")

    def _note(self, size: int, root: bytes, note: Any) -> None:
        try:
            text = note.decode() if isinstance(note, bytes) else ""
            checkpoint = self._anchors.head(text)
            if (checkpoint.size, checkpoint.root) != (size, root):
                self._verdict.add(size - 1, f"the checkpoint kept for size {size} is of size {checkpoint.size}")
            self._verdict.signed = max(self._verdict.signed, size)
            for former in self._begun(size):
                open_checkpoint(text, checkpoint.origin, former.public_key)
        except (Refusal, UnicodeDecodeError) as problem:
            self._verdict.add(size - 1, f"the checkpoint of size {size} does not hold: {problem}")

    def _begun(self, size: int) -> list[FormerLogKey]:
        """The key whose successor signs for the first time at this size: that head needs both."""
        changed = self._anchors.former_log_keys_at(size)
        found = [former for former in changed if self._last_signed <= former.last_size < size]
        self._last_signed = size
        return found[-1:]

    def _named(self, size: int) -> bytes:
        return self._anchors.log_at(size).encode()

    def _root(self, size: int) -> bytes | None:
        nodes = [self._read_node(level, index) for level, index in merkle.peaks_of(size)]
        return merkle.root_of_peaks([node for node in nodes if node is not None]) if None not in nodes else None

    def _inbox(self) -> None:
        """Each accepted delivery against the entry that accepted it, and against its receipt."""
        names = ", ".join(f"{'grant_id' if name == 'grant' else name}" for name in _OF_INBOX)
        query = (
            f"SELECT entry_index, leaf, detail, octets, {_OWED}, id, evidence, {names} FROM inbox "
            "LEFT JOIN receipts ON inbox_id = id LEFT JOIN entries ON entries.idx = entry_index "
            "LEFT JOIN details ON details.idx = entry_index"
        )
        for index, leaf, detail, octets, owed, id, evidence, *values in self._rows(query):
            self._without_row["delivery"].discard(index)
            row = {name: _text(value) for name, value in zip(_OF_INBOX, values, strict=True)}
            entry = index if isinstance(index, int) else None
            said = {name: value for part in (leaf, detail) for name, value in _members(part).items()}
            # A detail that was erased says nothing; what is said must be the same.
            wrong = [name for name in _OF_INBOX if (detail or name in IN_LEAF) and row[name] != said.get(name)]
            if wrong:
                self._verdict.add(entry, f"the inbox differs from the entry in: {', '.join(wrong)}")
            location, document = str(_text(evidence)), None
            if octets is not None:
                self._verdict.receipts += 1
                document = self._document("receipt", entry, octets, leaf)
            elif owed:
                self._verdict.add(entry, "the receipt is missing")
            if entry is not None and (detail is None or is_erased(location)):
                self._gone[entry] = _delivered(entry, id, row, said, document)
            if entry is not None and is_erased(location):
                self._gone_bytes[entry] = location.partition(":")[2]
        for index in sorted(self._without_row["delivery"]):
            self._verdict.add(index, "the delivery is missing from the inbox")

    def _reports(self) -> None:
        """Each signed report against its entry, and against the document that was to be signed."""
        query = (
            f"SELECT entry_index, leaf, document, octets, {_OWED}, inbox_id FROM reports "
            "LEFT JOIN entries ON entries.idx = entry_index"
        )
        for index, leaf, stated, octets, owed, inbox_id in self._rows(query):
            if index in self._erased:
                self._gone_reports[index] = inbox_id
            for kind in ("processing", RECALL):
                self._without_row[kind].discard(index)
            if octets is None:
                if owed:
                    self._verdict.add(index, "the report is missing")
                continue
            if octets == stated == b"" and index in self._erased:
                continue
            self._verdict.reports += 1
            document = self._document("report", index, octets, leaf)
            if document is not None and document.get("report") != _members(stated):
                self._verdict.add(index, "the report's document is not what was signed")
        for index in sorted(self._without_row["processing"] | self._without_row[RECALL]):
            self._verdict.add(index, "the report is missing")

    def _decisions(self) -> None:
        """The table that finds decisions against the log: none may be hidden by a row left out, none made by one put
        in. And the founding against the anchors."""
        for (name,) in self._rows("SELECT name FROM sqlite_master WHERE type IN ('trigger', 'view')"):
            self._verdict.add(None, f"the database changes itself by {_text(name)}, which no version of ours made")
        for index, detail in self._rows(_FOUNDED):
            founding = founding_digest(str(_members(detail).get("proposal", "")))
            if self._anchors.founding and founding != self._anchors.founding:
                self._verdict.add(index, "the founding is not the one that the anchors name")
        self._without_row[DECISION] |= self._decided
        for (index,) in self._rows("SELECT entry_index FROM decisions"):
            if index not in self._without_row[DECISION]:
                self._verdict.add(index, "a row among the decisions that no entry bears out")
            self._without_row[DECISION].discard(index)
        for index in sorted(self._without_row[DECISION]):
            self._verdict.add(index, "the decision is missing from its table")

    def _erasures(self) -> None:
        """Each erased detail, and original bytes that were erased, against a decision of two persons: who writes to the
        database, and even who enters what pleases him, may not do the same."""
        claims: dict[tuple[str, Any], tuple[Any, str]] = {}
        for index, part, by, decision in self._rows("SELECT entry, part, erased_by, decision FROM erasures"):
            claims[_text(part), index] = by, _text(decision)
        if not claims and not self._erased and not self._gone_bytes:
            return
        borne = Borne(
            purges_of(self._decisions_again(), self._anchors),
            self._erasing({by for by, _ in claims.values()}),
            self._gone.values(),
            self._gone_reports,
        )
        for index, octets in self._rows(_OF_ERASED):
            leaf = _leaf(octets)
            if leaf is not None and leaf.type in (DECISION, ERASURE):
                self._verdict.add(index, f"the detail of an entry about a {leaf.type} was erased, which nobody may")
            elif leaf is None or not borne.detail(index, leaf, *claims.get(("detail", index), (None, ""))):
                self._verdict.add(index, "the detail was erased, which no decision of two persons bears out")
        for index, decision in self._gone_bytes.items():
            by, first = claims.get(("evidence", index), (None, ""))
            if not (borne.octets(self._gone[index], by, first) and borne.location(self._gone[index], decision)):
                self._verdict.add(index, "the bytes were erased, which no decision of two persons bears out")
        for part, index in claims.keys() - {("detail", one) for one in self._erased}:
            if part != "evidence" or index not in self._gone_bytes:
                self._verdict.add(_number(index), "what is said to be erased is there")

    def _decisions_again(self) -> Iterator[Decided]:
        """The decisions as their entries have them."""
        for index in sorted(self._decided):
            for octets, detail in self._rows(_ENTRY, index):
                leaf = _leaf(octets)
                if leaf is not None and detail is not None:
                    yield Decided(index, leaf.time, leaf.outcome, _members(detail))

    def _erasing(self, entries: Collection[Any]) -> dict[int, Erasing]:
        """What each of these entries says was erased; each is read once, however many details it names."""
        found = {}
        for index in entries:
            for octets, detail in self._rows(_ENTRY, index):
                leaf = _leaf(octets)
                said = erasing_of(index, leaf, _members(detail), self._verdict.entries) if leaf is not None else None
                if said is not None:
                    found[index] = said
        return found

    def _document(self, kind: str, entry: int | None, octets: Any, leaf: Any) -> dict[str, Any] | None:
        """A receipt or report, if it holds and stands on this very entry."""
        try:
            verified = verify_receipt(octets if isinstance(octets, bytes) else b"", self._anchors)
        except (Refusal, Misconfigured) as problem:
            self._verdict.add(entry, f"the {kind} does not hold: {problem}")
            return None
        if verified.kind != kind or verified.index != entry or verified.document["leaf"].encode() != leaf:
            self._verdict.add(entry, f"the {kind} is not of this entry")
        return verified.document

    def _stored_node(self, level: int, index: int) -> bytes | None:
        (value,) = self._one("SELECT hash FROM nodes WHERE level = ? AND idx = ?", (None,), level, index)
        return value if is_hash(value) else None

    def _one(self, query: str, otherwise: tuple[Any, ...], *values: object) -> tuple[Any, ...]:
        return next(self._rows(query, *values), otherwise)

    def _rows(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        return rows_of(self._connection, query, *values)


def _last_of(size: Any) -> int | None:
    return max(size - 1, 0) if isinstance(size, int) else None


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _leaf(octets: Any) -> Leaf | None:
    try:
        return msgspec.json.decode(octets if isinstance(octets, bytes) else b"", type=Leaf)
    except (msgspec.MsgspecError, UnicodeError):
        return None


def _delivered(
    entry: int, inbox: int, row: dict[str, Any], said: dict[str, Any], receipt: dict[str, Any] | None
) -> Delivered:
    """A delivery by what its entry says; where the detail is gone, by what its receipt says under that commitment. The
    inbox is only asked where no receipt was due yet."""
    if "message_id" not in said and receipt is not None:
        said = {**said, **_members(str(receipt["detail"]).encode())}
    members = {**row, **said}
    named = (str(members[name]) for name in ("sender", "message_id", "feed", "received_at"))
    return Delivered(entry, inbox, *named)


def _members(octets: Any) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(octets if isinstance(octets, bytes) else b"{}")
    except (msgspec.MsgspecError, UnicodeError):
        return {}
    return found if isinstance(found, dict) else {}
