"""Reading the whole log again and believing none of it: what `audit verify` answers.

From the stored leaves every node, head and commitment is made again; only the trust anchors come from outside. The
journal is opened for reading only, while the bus may be running. Whatever is wrong is named, and nothing raises.
"""

import sqlite3
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import msgspec

from exchange.decisions import DECIDES, founding_digest
from exchange.decisions import ENTRY as DECISION
from exchange.entry import SALT_SIZE, Leaf, commitment
from exchange.journal_file import NAME
from exchange.receipts import IN_DETAIL, IN_LEAF, verify_receipt
from security import merkle
from security.anchors import Anchors, FormerLogKey
from security.checkpoint import open_checkpoint
from security.errors import Misconfigured, Refusal

AT_ONCE: Final = 4_096  # entries; a power of two, so that a piece of the log is a subtree
MOST_NAMED: Final = 100  # problems named; the rest is only counted

_FOUNDED: Final = (
    "SELECT idx, detail FROM decisions JOIN details ON idx = entry_index WHERE outcome = 'founded' ORDER BY idx LIMIT 1"
)

Nodes = dict[tuple[int, int], bytes]

# Columns of the inbox that leaf or detail say as well.
_OF_INBOX: Final = tuple(name for name in (*IN_LEAF, *IN_DETAIL) if name not in ("origin", "outcome"))

# A head's checkpoint is kept together with the documents of its group: where it stands, none of them may be missing.
_OWED: Final = "octets IS NULL AND (SELECT note NOT NULL FROM heads WHERE size > entry_index ORDER BY size LIMIT 1)"


class Problem(msgspec.Struct, frozen=True):
    """What is wrong. entry: the first entry that it touches; None when the file itself is damaged."""

    entry: int | None
    what: str


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


def verify(journal: Path, anchors: Anchors) -> AuditVerdict:
    """Verify a journal file, or the one in a folder: every leaf, detail, node, head, checkpoint, receipt and report.

    Damage to the database file itself is said as such, and what can still be read is verified. Never raises.
    """
    verdict = AuditVerdict(anchors.origin)
    path = journal / NAME if journal.is_dir() else journal
    connection = None
    try:
        connection = _open(path)
        _Reading(connection, verdict, anchors).all()
    except (sqlite3.Error, OSError, OverflowError) as problem:
        verdict.add(None, f"the database file is damaged or not readable: {problem}")
    finally:
        if connection is not None:
            connection.close()
    return verdict


def _open(path: Path) -> sqlite3.Connection:
    """The file, read-only, texts as octets, in one snapshot."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    connection = sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True, isolation_level=None)
    connection.text_factory = bytes
    connection.execute("BEGIN")
    return connection


class _Reading:
    """One reading of one file; each method adds to the verdict."""

    def __init__(self, connection: sqlite3.Connection, verdict: AuditVerdict, anchors: Anchors) -> None:
        self._connection, self._verdict, self._anchors = connection, verdict, anchors
        self._time, self._last_signed = "", 0
        self._without_row: dict[str, set[int]] = {"delivery": set(), "processing": set(), DECISION: set()}
        self._read_node = lru_cache(65_536)(self._stored_node)

    def all(self) -> None:
        """Everything, the file first: what the file says of itself decides how to read the rest."""
        self._file()
        for part in (self._log, self._tree_has_no_more, self._heads, self._inbox, self._reports, self._decisions):
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
        """Entries in order, a subtree at a time: leaf, detail, time, and every node over them."""
        query = (
            "SELECT entries.idx, leaf, details.idx, salt, detail FROM entries LEFT JOIN details USING (idx) "
            "WHERE entries.idx >= ? AND entries.idx < ? ORDER BY entries.idx"
        )
        # Counted, not the largest number: one altered number must not send us through a billion missing entries.
        (size,) = self._one("SELECT count(*) FROM entries", (0,))
        self._verdict.entries = size
        for start in range(0, size, AT_ONCE):
            stop = min(start + AT_ONCE, size)
            rows = {row[0]: row[1:] for row in self._rows(query, start, stop)}
            nodes = self._nodes(start, stop)
            for index in range(start, stop):
                if index in rows:
                    self._entry(index, rows[index], nodes.get((0, index)))
                else:
                    self._verdict.add(index, "the entry is missing")
            self._parents(start, stop, nodes)
        self._upper(size)
        for (index,) in self._rows("SELECT idx FROM entries WHERE idx < 0 OR idx >= ? LIMIT 20", size):
            self._verdict.add(index, "an entry numbered outside the log")

    def _entry(self, index: int, row: tuple[Any, ...], node: bytes | None) -> None:
        leaf_octets, detail_index, salt, detail = row
        if not isinstance(leaf_octets, bytes) or merkle.leaf_hash(leaf_octets) != node:
            self._verdict.add(index, "the leaf is not what the tree holds")
        leaf = _leaf(leaf_octets)
        if leaf is None:
            self._verdict.add(index, "the leaf is not a canonical entry")
            return
        if leaf.origin != self._verdict.origin:
            self._verdict.add(index, f"the leaf is of another origin, {leaf.origin!r:.80}")
        if leaf.time < self._time:
            self._verdict.add(index, f"log time goes back, from {self._time} to {leaf.time!r:.40}")
        self._time = max(self._time, leaf.time)
        if leaf.type in self._without_row and (leaf.type != DECISION or leaf.outcome in DECIDES):
            self._without_row[leaf.type].add(index)
        if detail_index is None:
            self._verdict.add(index, "the detail's row is missing")
        elif salt is None and detail is None:
            self._verdict.erased += 1
        elif not _commits(leaf, salt, detail):
            self._verdict.add(index, "the detail is not what the leaf commits to")

    def _nodes(self, start: int, stop: int) -> Nodes:
        """Stored nodes over the leaves of one piece, inside it."""
        found: Nodes = {}
        query = "SELECT idx, hash FROM nodes WHERE level = ? AND idx >= ? AND idx < ?"
        for level in range(AT_ONCE.bit_length()):
            rows = self._rows(query, level, start >> level, stop >> level)
            found |= {(level, index): value for index, value in rows if _is_hash(value)}
        return found

    def _parents(self, start: int, stop: int, nodes: Nodes) -> None:
        """Each node of a piece against its two children as stored, so that one wrong octet is one place."""
        for level in range(1, AT_ONCE.bit_length()):
            for index in range(start >> level, stop >> level):
                self._parent(level, index, nodes.get)

    def _upper(self, size: int) -> None:
        """The nodes above the pieces."""

        def get(place: tuple[int, int]) -> bytes | None:
            return self._read_node(*place)

        for level in range(AT_ONCE.bit_length(), size.bit_length()):
            for index in range(size >> level):
                self._parent(level, index, get)

    def _parent(self, level: int, index: int, get: Any) -> None:
        left, right = get((level - 1, 2 * index)), get((level - 1, 2 * index + 1))
        made = merkle.node_hash(left, right) if left is not None and right is not None else None
        if made is None or made != get((level, index)):
            self._verdict.add(index << level, f"node {index} of level {level} is not what is below it")

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
        origin, last = self._verdict.origin.encode(), 0
        for stated, size, root, note in self._rows("SELECT origin, size, root, note FROM heads ORDER BY size"):
            if not isinstance(size, int) or not 0 < size <= self._verdict.entries or stated != origin:
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
        found = [former for former in self._anchors.former_log_keys if self._last_signed <= former.last_size < size]
        self._last_signed = size
        return found[-1:]

    def _root(self, size: int) -> bytes | None:
        nodes = [self._read_node(level, index) for level, index in merkle.peaks_of(size)]
        return merkle.root_of_peaks([node for node in nodes if node is not None]) if None not in nodes else None

    def _inbox(self) -> None:
        """Each accepted delivery against the entry that accepted it, and against its receipt."""
        names = ", ".join(f"{'grant_id' if name == 'grant' else name}" for name in _OF_INBOX)
        query = (
            f"SELECT entry_index, leaf, detail, octets, {_OWED}, {names} FROM inbox "
            "LEFT JOIN receipts ON inbox_id = id LEFT JOIN entries ON entries.idx = entry_index "
            "LEFT JOIN details ON details.idx = entry_index"
        )
        for index, leaf, detail, octets, owed, *values in self._rows(query):
            self._without_row["delivery"].discard(index)
            row = {name: _text(value) for name, value in zip(_OF_INBOX, values, strict=True)}
            entry = index if isinstance(index, int) else None
            said = {name: value for part in (leaf, detail) for name, value in _members(part).items()}
            # A detail that was erased says nothing; what is said must be the same.
            wrong = [name for name in _OF_INBOX if (detail or name in IN_LEAF) and row[name] != said.get(name)]
            if wrong:
                self._verdict.add(entry, f"the inbox differs from the entry in: {', '.join(wrong)}")
            if octets is not None:
                self._verdict.receipts += 1
                self._document("receipt", entry, octets, leaf)
            elif owed:
                self._verdict.add(entry, "the receipt is missing")
        for index in sorted(self._without_row["delivery"]):
            self._verdict.add(index, "the delivery is missing from the inbox")

    def _reports(self) -> None:
        """Each signed report against its entry, and against the document that was to be signed."""
        query = (
            f"SELECT entry_index, leaf, document, octets, {_OWED} FROM reports "
            "LEFT JOIN entries ON entries.idx = entry_index"
        )
        for index, leaf, stated, octets, owed in self._rows(query):
            self._without_row["processing"].discard(index)
            if octets is None:
                if owed:
                    self._verdict.add(index, "the report is missing")
                continue
            self._verdict.reports += 1
            document = self._document("report", index, octets, leaf)
            if document is not None and document.get("report") != _members(stated):
                self._verdict.add(index, "the report's document is not what was signed")
        for index in sorted(self._without_row["processing"]):
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
        for (index,) in self._rows("SELECT entry_index FROM decisions"):
            if index not in self._without_row[DECISION]:
                self._verdict.add(index, "a row among the decisions that no entry bears out")
            self._without_row[DECISION].discard(index)
        for index in sorted(self._without_row[DECISION]):
            self._verdict.add(index, "the decision is missing from its table")

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
        return value if _is_hash(value) else None

    def _one(self, query: str, otherwise: tuple[Any, ...], *values: object) -> tuple[Any, ...]:
        return next(self._rows(query, *values), otherwise)

    def _rows(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        try:
            yield from self._connection.execute(query, values)
        except (UnicodeDecodeError, MemoryError) as problem:  # a damaged schema gives names and sizes that are none
            raise sqlite3.DatabaseError(str(problem)) from problem


def _leaf(octets: Any) -> Leaf | None:
    """The leaf, if these octets are the one canonical spelling of it."""
    try:
        leaf = msgspec.json.decode(octets, type=Leaf)
    except (msgspec.MsgspecError, TypeError, UnicodeError):
        return None
    return leaf if leaf.v == 1 and msgspec.json.encode(leaf) == octets else None


def _commits(leaf: Leaf, salt: Any, detail: Any) -> bool:
    if not isinstance(salt, bytes) or not isinstance(detail, bytes) or len(salt) != SALT_SIZE:
        return False
    return commitment(salt, detail) == leaf.detail


def _is_hash(value: Any) -> bool:
    return isinstance(value, bytes) and len(value) == merkle.HASH_SIZE


def _last_of(size: Any) -> int | None:
    return max(size - 1, 0) if isinstance(size, int) else None


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _members(octets: Any) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(octets if isinstance(octets, bytes) else b"{}")
    except (msgspec.MsgspecError, UnicodeError):
        return {}
    return found if isinstance(found, dict) else {}
