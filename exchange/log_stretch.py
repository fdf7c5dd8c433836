"""A stretch of the log read again and not believed: entries, details, times, and the nodes inside its pieces.

Public face: `read_stretch`. Whatever is wrong is named, and nothing raises. `python -m exchange.log_stretch FILE ORIGIN
START STOP` is the same in a process of its own, which writes what it found as JSON.
"""

import gc
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import msgspec

from exchange.entry import RECALL, SALT_SIZE, Leaf, commitment
from security import merkle

AT_ONCE: Final = 512  # entries of a piece; a power of two, so that it is a subtree; few enough for a processor's cache
DECISION: Final = "decision"  # exchange.decisions.ENTRY, without the half second that its import takes at each start
MOST_NAMED: Final = 100  # problems named; the rest is only counted

_ENTRIES: Final = "SELECT idx, leaf FROM entries WHERE idx >= ? AND idx < ? ORDER BY idx"
_DETAILS: Final = "SELECT idx, salt, detail FROM details WHERE idx >= ? AND idx < ? ORDER BY idx"
_NODES: Final = "SELECT idx, hash FROM nodes WHERE level = ? AND idx >= ? AND idx < ? ORDER BY idx"

_WITH_ROWS: Final = ("delivery", "processing", RECALL, DECISION)
_DECODER: Final = msgspec.json.Decoder(Leaf)
_ENCODER: Final = msgspec.json.Encoder()

Rows = list[tuple[Any, ...]]
Nodes = dict[tuple[int, int], bytes]


class Problem(msgspec.Struct, frozen=True):
    """What is wrong. entry: the first entry that it touches; None when the file itself is damaged."""

    entry: int | None
    what: str


class Read(msgspec.Struct):
    """What was found in a stretch.

    erased:      entries whose details were erased, and whose leaves still stand
    found:       how many problems; the first hundred stand in `problems`
    without_row: entries that have a row in another table too, by their type; whoever reads that table crosses them off
    decisions:   entries about decisions, with their outcome; some of them have such a row
    """

    erased: set[int] = msgspec.field(default_factory=set)
    found: int = 0
    problems: list[Problem] = []
    without_row: dict[str, set[int]] = msgspec.field(
        default_factory=lambda: {"delivery": set(), "processing": set(), RECALL: set()}
    )
    decisions: dict[int, str] = {}

    def add(self, entry: int | None, what: str) -> None:
        """Note a problem."""
        self.found += 1
        if len(self.problems) < MOST_NAMED:
            self.problems.append(Problem(entry, what))


def read_stretch(path: Path, origin: str, stretch: range) -> Read:
    """Read the entries of a stretch; it begins at a multiple of AT_ONCE."""
    read = Read()
    try:
        connection = open_journal_file(path)
    except (sqlite3.Error, OSError) as problem:
        read.add(None, f"the database file is damaged or not readable: {problem}")
        return read
    try:
        _Stretch(connection, origin, read).read(stretch)
    except (sqlite3.Error, OverflowError) as problem:
        read.add(None, f"the database file is damaged: {problem}")
    finally:
        connection.close()
    return read


def open_journal_file(path: Path) -> sqlite3.Connection:
    """The file, read-only, texts as octets, in one snapshot. Raises sqlite3.Error, FileNotFoundError."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    connection = sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True, isolation_level=None)
    connection.text_factory = bytes
    connection.execute("BEGIN")
    return connection


def rows_of(connection: sqlite3.Connection, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
    """Rows one by one. Raises sqlite3.Error, also where a damaged schema gives names and sizes that are none."""
    try:
        yield from connection.execute(query, values)
    except (UnicodeDecodeError, MemoryError) as problem:
        raise sqlite3.DatabaseError(str(problem)) from problem


def is_hash(value: Any) -> bool:
    """Whether a value of the file can be a node."""
    return isinstance(value, bytes) and len(value) == merkle.HASH_SIZE


class _Stretch:
    """One reading. _time: of the entry before the one that is looked at."""

    def __init__(self, connection: sqlite3.Connection, origin: str, read: Read) -> None:
        self._connection, self._origin, self._read = connection, origin, read
        self._time = ""

    def read(self, stretch: range) -> None:
        """All of it, a subtree at a time."""
        for (octets,) in self._rows("SELECT leaf FROM entries WHERE idx = ?", stretch.start - 1):
            before = _leaf(octets)
            self._time = before.time if before else ""
        for start in range(stretch.start, stretch.stop, AT_ONCE):
            piece = range(start, min(start + AT_ONCE, stretch.stop))
            entries = self._fetched(_ENTRIES, piece.start, piece.stop)
            details = self._fetched(_DETAILS, piece.start, piece.stop)
            # Whether all of a piece holds is soon known; only where it does not, each entry is looked at for itself.
            if not self._whole(piece, entries, details):
                self._singly(piece, entries, details)

    def _whole(self, piece: range, entries: Rows, details: Rows) -> bool:
        """Whether a piece holds in every respect that `_singly` looks at; if not, nothing is said yet.

        Numbers, hashes, leaves and commitments are made for the whole piece and compared as wholes.
        """
        indexes, octets = _columns(entries, 2)
        numbers, salts, texts = _columns(details, 3)
        if not indexes == tuple(piece) == numbers or not _are_bytes(octets):
            return False
        leaves = _leaves(octets)
        if leaves is None or not self._is_tree(piece, octets):
            return False
        times = [self._time, *[leaf.time for leaf in leaves]]
        if times != sorted(times) or {leaf.origin for leaf in leaves} != {self._origin}:
            return False
        kept = list(zip([leaf.detail for leaf in leaves], salts, texts, strict=True))
        erased = {index for index, salt, text in details if salt is text is None} if None in salts else set()
        if not _all_commit([row for row in kept if row[1:] != (None, None)] if erased else kept):
            return False
        self._time = times[-1]
        self._read.erased |= erased
        for index, leaf in zip(piece, leaves, strict=True):
            if leaf.type in _WITH_ROWS:
                self._owes_row(index, leaf)
        return True

    def _is_tree(self, piece: range, octets: Sequence[bytes]) -> bool:
        """Whether the stored nodes are those of these leaves: their hashes, and level by level what is above them."""
        hashes = [sha256(b"\x00" + leaf).digest() for leaf in octets]
        for level in range(AT_ONCE.bit_length()):
            numbers = range(piece.start >> level, piece.stop >> level)
            if self._fetched(_NODES, level, numbers.start, numbers.stop) != list(zip(numbers, hashes, strict=True)):
                return False
            pairs = zip(hashes[::2], hashes[1::2], strict=False)  # one without a partner has no parent yet
            hashes = [sha256(b"\x01" + left + right).digest() for left, right in pairs]
        return True

    def _singly(self, piece: range, entries: Rows, details: Rows) -> None:
        """Each entry and node of a piece, so that what is wrong has a name."""
        leaves: dict[int, Any] = dict(entries)
        kept = {row[0]: row for row in details}
        nodes = self._nodes(piece)
        for index in piece:
            if index in leaves:
                self._entry(index, leaves[index], kept.get(index), nodes.get((0, index)))
            else:
                self._read.add(index, "the entry is missing")
        for level in range(1, AT_ONCE.bit_length()):
            for index in range(piece.start >> level, piece.stop >> level):
                # Against its two children as stored, so that one wrong octet is one place.
                left, right, node = (nodes.get(place) for place in places_of(level, index))
                if not is_parent(left, right, node):
                    self._read.add(index << level, not_a_node(level, index))

    def _entry(self, index: int, octets: Any, detail_row: tuple[Any, ...] | None, node: bytes | None) -> None:
        if not isinstance(octets, bytes) or merkle.leaf_hash(octets) != node:
            self._read.add(index, "the leaf is not what the tree holds")
        leaf = _leaf(octets)
        if leaf is None:
            self._read.add(index, "the leaf is not a canonical entry")
            return
        if leaf.origin != self._origin:
            self._read.add(index, f"the leaf is of another origin, {leaf.origin!r:.80}")
        if leaf.time < self._time:
            self._read.add(index, f"log time goes back, from {self._time} to {leaf.time!r:.40}")
        self._time = max(self._time, leaf.time)
        self._owes_row(index, leaf)
        if detail_row is None:
            self._read.add(index, "the detail's row is missing")
        elif detail_row[1:] == (None, None):
            self._read.erased.add(index)
        elif not _all_commit([(leaf.detail, *detail_row[1:])]):
            self._read.add(index, "the detail is not what the leaf commits to")

    def _owes_row(self, index: int, leaf: Leaf) -> None:
        if leaf.type == DECISION:
            self._read.decisions[index] = leaf.outcome
        elif leaf.type in self._read.without_row and (leaf.type != RECALL or leaf.outcome == "recalled"):
            self._read.without_row[leaf.type].add(index)

    def _nodes(self, piece: range) -> Nodes:
        """Stored nodes over the leaves of one piece, inside it."""
        found: Nodes = {}
        for level in range(AT_ONCE.bit_length()):
            rows = self._rows(_NODES, level, piece.start >> level, piece.stop >> level)
            found |= {(level, index): value for index, value in rows if is_hash(value)}
        return found

    def _fetched(self, query: str, *values: int) -> Rows:
        """All rows at once, which is cheaper than one by one."""
        try:
            return self._connection.execute(query, values).fetchall()
        except (UnicodeDecodeError, MemoryError) as problem:  # as in `rows_of`
            raise sqlite3.DatabaseError(str(problem)) from problem

    def _rows(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        return rows_of(self._connection, query, *values)


def places_of(level: int, index: int) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Where a node's two children lie, and the node."""
    return (level - 1, 2 * index), (level - 1, 2 * index + 1), (level, index)


def is_parent(left: bytes | None, right: bytes | None, node: bytes | None) -> bool:
    """Whether a node is that of its two children."""
    return left is not None and right is not None and merkle.node_hash(left, right) == node


def not_a_node(level: int, index: int) -> str:
    """What is said of a node that is not."""
    return f"node {index} of level {level} is not what is below it"


def _leaf(octets: Any) -> Leaf | None:
    """The leaf, if these octets are the one canonical spelling of it."""
    leaves = _leaves([octets]) if isinstance(octets, bytes) else None
    return leaves[0] if leaves else None


def _leaves(octets: Sequence[bytes]) -> list[Leaf] | None:
    """The leaves, if each of these is the one canonical spelling of it.

    One to a line they are decoded and encoded at once. The lines that come back hold no line break inside, so where
    all octets are equal each line is one leaf.
    """
    lines = b"\n".join(octets) + b"\n"
    try:
        leaves = _DECODER.decode_lines(lines)
    except (msgspec.MsgspecError, UnicodeError):
        return None
    canonical = len(leaves) == len(octets) and _ENCODER.encode_lines(leaves) == lines
    return leaves if canonical and {leaf.v for leaf in leaves} == {1} else None


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[tuple[Any, ...]]:
    return list(zip(*rows, strict=True)) or [()] * width


def _are_bytes(values: Iterable[Any]) -> bool:
    return set(map(type, values)) <= {bytes}


def _all_commit(kept: Sequence[tuple[str, Any, Any]]) -> bool:
    """Whether each commitment is that of its salt and detail."""
    commitments, salts, details = _columns(kept, 3)
    if not _are_bytes(salts) or not _are_bytes(details) or not set(map(len, salts)) <= {SALT_SIZE}:
        return False
    return list(commitments) == [commitment(salt, detail) for salt, detail in zip(salts, details, strict=True)]


if __name__ == "__main__":
    gc.disable()  # a short life without cycles
    stretch = range(int(sys.argv[3]), int(sys.argv[4]))
    sys.stdout.buffer.write(msgspec.json.encode(read_stretch(Path(sys.argv[1]), sys.argv[2], stretch)))
