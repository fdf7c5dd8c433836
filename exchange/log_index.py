"""Which entries say what: an index beside the log, made from it and never believed in its place.

The log is cut into pieces of 4,096 entries. For each complete piece and each term that occurs in it (a type, a feed, a
message id …) there is one row: which entries of the piece say so. A piece is indexed at once when it is full, so that
rows are only ever added at the end; entries after the last full piece, and any piece that has no index, are read one by
one. Terms stand in the index as keyed hashes, and what it finds is compared with the entry itself before it is shown.

Public face: `Wanted`, `find`, `index_piece`, `forget`, `rebuild`, `differing`.
"""

import secrets
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from hashlib import blake2b
from operator import attrgetter
from typing import Any, Final

import msgspec

from exchange.database import Cursor, Database, insert
from exchange.entry import Detail, LoggedEntry, detail_of, leaf_of

PIECE: Final = 4_096  # entries
STRANGERS: Final = "strangers"  # outcome of entries that count refusals, by code, in their detail

_AT_ONCE: Final = 256  # pieces looked up by one question
_LEAST_FETCHED: Final = 50
_MOST_FETCHED: Final = 500  # entries fetched by one question
_BITMAP: Final = PIECE // 8  # octets; fewer than PIECE / 16 entries are a list of two octets each
_SELECT: Final = "SELECT idx, leaf, detail FROM entries LEFT JOIN details USING (idx)"

Term = tuple[str, str]
Row = tuple[int, int, bytes]  # piece, hash of the term, its entries
Read = Callable[..., list[Any]]  # query and values -> rows


class _InLeaf(msgspec.Struct, gc=False):
    """What is indexed of a leaf."""

    type: str = ""
    outcome: str = ""
    sender: str = ""
    feed: str = ""
    actor: str = ""
    carrier: str = ""
    signer: str = ""


class _InDetail(msgspec.Struct, gc=False):
    """What is indexed of a detail."""

    message_id: str | int = ""
    component: str | int = ""
    purpose: str | int = ""


# How a term is called, and the member that says it.
_LEAF_TERMS: Final = (
    *((name, name) for name in ("type", "outcome", "sender", "feed")),
    *(("person", "actor"), ("certificate", "carrier"), ("certificate", "signer")),
)
_DETAIL_TERMS: Final = ("message_id", "component", "purpose")

_IN_LEAF: Final = msgspec.json.Decoder(_InLeaf)
_IN_DETAIL: Final = msgspec.json.Decoder(_InDetail)
_DETAIL: Final = msgspec.json.Decoder(Detail)


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What an entry must say; empty: anything.

    code:         its outcome, or a refusal that it counts
    bureau:       its sender, or with `certificates` (their fingerprints) whose connection or key it was
    person:       the pseudonym of who acted
    message_id, component, purpose: stand in the detail; once that is erased, the entry is not found by them
    """

    type: str = ""
    outcome: str = ""
    code: str = ""
    sender: str = ""
    bureau: str = ""
    certificates: frozenset[str] = frozenset()
    feed: str = ""
    person: str = ""
    message_id: str = ""
    component: str = ""
    purpose: str = ""

    def terms(self) -> list[list[Term]]:
        """Of each list an entry must have at least one."""
        single = ("type", "outcome", "sender", "feed", "person", "message_id", "component", "purpose")
        asked = [[(name, getattr(self, name))] for name in single if getattr(self, name)]
        asked += [[("outcome", self.code), ("counted", self.code)]] if self.code else []
        theirs = [("certificate", one) for one in sorted(self.certificates)]
        return asked + ([[("sender", self.bureau), *theirs]] if self.bureau else [])


def logged(row: tuple[int, bytes | str, bytes | None]) -> LoggedEntry:
    """A row (index, leaf, detail) as an entry. Raises AuditBroken."""
    index, leaf, detail = row
    return LoggedEntry(index, leaf_of(index, leaf), None if detail is None else detail_of(index, detail))


def find(read: Read, wanted: Wanted, within: range, limit: int, *, oldest_first: bool) -> list[LoggedEntry]:
    """Entries that are wanted, in order, at most `limit`.

    read:   asks the journal's file
    within: entries that may be found
    """
    asked = wanted.terms()
    if not asked:
        order = "ASC" if oldest_first else "DESC"
        query = f"{_SELECT} WHERE idx >= ? AND idx < ? ORDER BY idx {order} LIMIT ?"
        return [logged(row) for row in read(query, within.start, within.stop, limit)]
    found: list[LoggedEntry] = []
    for candidates in _candidates(read, asked, within, oldest_first):
        for some in _shares(candidates, min(max(limit, _LEAST_FETCHED), _MOST_FETCHED)):
            found += [entry for entry in _fetched(read, some) if _says(entry, asked)]
            if len(found) >= limit:
                return found[:limit]
    return found


def _candidates(read: Read, asked: list[list[Term]], within: range, oldest_first: bool) -> Iterator[Sequence[int]]:
    """Entries that may be wanted, a piece at a time, in order.

    A piece takes the same little work whether its terms are frequent or rare, so no combination of them scans the log.
    """
    key = _key(read)
    hashed = [[one for name, value in any_of for one in _hashes(key, name, [value])] for any_of in asked]
    full, _ = full_pieces(read)
    pieces = range(within.start // PIECE, -(-within.stop // PIECE))
    for some in _shares(pieces if oldest_first else pieces[::-1], _AT_ONCE):
        known = {} if not key else _looked_up(read, {one for any_of in hashed for one in any_of}, min(some), max(some))
        for piece in some:
            first = piece * PIECE
            places = _all_of(hashed, known[piece]) if piece in known and piece < full else range(PIECE)
            indexes = [first + place for place in places if first + place in within]
            yield indexes if oldest_first else indexes[::-1]


def _looked_up(read: Read, terms: set[int], first: int, last: int) -> dict[int, dict[int, bytes]]:
    """What the index has of some terms, by piece; a piece that is not indexed is left out."""
    query = (
        "SELECT index_pieces.piece, term, entries FROM index_pieces LEFT JOIN index_terms ON "
        f"index_terms.piece = index_pieces.piece AND term IN ({', '.join('?' * len(terms))}) "
        "WHERE index_pieces.piece BETWEEN ? AND ?"
    )
    known: dict[int, dict[int, bytes]] = {}
    for piece, term, entries in read(query, *terms, first, last):
        known.setdefault(piece, {})[term] = entries
    return known


def _all_of(hashed: list[list[int]], known: dict[int, bytes]) -> list[int]:
    """Places in a piece that have one term at least of each list, in rising order."""
    common = -1
    for any_of in hashed:
        bits = 0
        for term in any_of:
            bits |= _bits(known[term]) if term in known else 0
        common &= bits
        if not common:
            return []
    return _places(common)


def _fetched(read: Read, indexes: Sequence[int]) -> list[LoggedEntry]:
    rows = read(f"{_SELECT} WHERE idx IN ({', '.join('?' * len(indexes))})", *indexes)
    by_index = {row[0]: row for row in rows}
    return [logged(by_index[index]) for index in indexes if index in by_index]


def _says(entry: LoggedEntry, asked: list[list[Term]]) -> bool:
    """Whether an entry has one term at least of each list."""
    return all(any(_has(entry, name, value) for name, value in any_of) for any_of in asked)


def _has(entry: LoggedEntry, name: str, value: str) -> bool:
    if name in _DETAIL_TERMS:
        return entry.detail is not None and str(entry.detail.get(name)) == value
    if name == "counted":
        return value in _counted(entry.leaf.outcome, entry.detail or {})
    return any(getattr(entry.leaf, member) == value for called, member in _LEAF_TERMS if called == name)


def _shares(things: Sequence[int], each: int) -> Iterator[Sequence[int]]:
    return (things[start : start + each] for start in range(0, len(things), each))


# Making it.


def index_piece(cursor: Cursor) -> tuple[bool, int]:
    """Index the next piece, if it is full; gives whether one was, and up to which entry the log is looked after now.

    Without the key, which only somebody who takes it away can bring about, nothing is indexed and all is read singly.
    """
    if not _key_of(cursor):
        return False, _size(cursor)
    (piece,) = cursor.execute("SELECT coalesce(max(piece) + 1, 0) FROM index_pieces").fetchone()
    full = cursor.execute("SELECT 1 FROM entries WHERE idx = ?", ((piece + 1) * PIECE - 1,)).fetchone() is not None
    if full:
        _replace(cursor, piece)
    return full, (piece + full) * PIECE


def forget(cursor: Cursor, *indexes: int) -> None:
    """Take out of the index what the details of these entries said, once those are erased, in the same transaction."""
    for piece in sorted({index // PIECE for index in indexes}):
        if cursor.execute("SELECT 1 FROM index_pieces WHERE piece = ?", (piece,)).fetchone():
            _replace(cursor, piece)


def rebuild(journal: Database, say: Callable[[int, int], None]) -> int:
    """Make the whole index again, while the bus may be running; gives how many entries are indexed.

    say: hears (entries done, entries in all)
    """
    with closing(journal.connect()) as connection:
        with journal.transaction(connection) as cursor:
            _begin_anew(cursor)
        pieces = _full_pieces(connection.cursor())
        for piece in pieces:
            with journal.transaction(connection) as cursor:  # a piece at a time: who appends waits no longer than that
                _replace(cursor, piece)
            say((piece + 1) * PIECE, len(pieces) * PIECE)
    return len(pieces) * PIECE


def _begin_anew(cursor: Cursor) -> None:
    """An empty index: what was in it, put in by whomever, is gone. Meanwhile a search reads all entries singly."""
    for table in ("index_pieces", "index_terms"):
        cursor.execute(f"DELETE FROM {table}")
    if not _key_of(cursor):
        cursor.execute("INSERT INTO index_key VALUES (?)", (secrets.token_bytes(32),))


def differing(journal: Database, say: Callable[[int, int], None], pieces: Iterable[int] | None = None) -> list[range]:
    """Entries of which the index does not say what they say: stretches; a full piece without an index is none.

    pieces: only these (all)
    """
    found = []
    with closing(journal.connect()) as connection:
        cursor = connection.cursor()
        key, full = _key_of(cursor), _full_pieces(cursor)
        for piece in full if pieces is None else pieces:
            indexed = cursor.execute("SELECT 1 FROM index_pieces WHERE piece = ?", (piece,)).fetchone()
            kept = cursor.execute("SELECT piece, term, entries FROM index_terms WHERE piece = ?", (piece,)).fetchall()
            if indexed and sorted(kept) != sorted(_made(cursor, key, piece)):
                found.append(range(piece * PIECE, (piece + 1) * PIECE))
            say((piece + 1) * PIECE, len(full) * PIECE)
    return found


def full_pieces(read: Read) -> tuple[int, int]:
    """How many pieces of the log are full, and how many of these are indexed."""
    ((size,),) = read("SELECT coalesce(max(idx) + 1, 0) FROM entries")
    ((indexed,),) = read("SELECT count(*) FROM index_pieces WHERE piece >= 0 AND piece < ?", size // PIECE)
    return size // PIECE, indexed


def _full_pieces(cursor: Cursor) -> range:
    return range(_size(cursor) // PIECE)


def _size(cursor: Cursor) -> int:
    return int(cursor.execute("SELECT coalesce(max(idx) + 1, 0) FROM entries").fetchone()[0])


def _replace(cursor: Cursor, piece: int) -> None:
    rows = _made(cursor, _key_of(cursor), piece)
    cursor.execute("DELETE FROM index_terms WHERE piece = ?", (piece,))
    insert(cursor, "index_terms", rows)
    cursor.execute("INSERT INTO index_pieces VALUES (?) ON CONFLICT DO NOTHING", (piece,))


def _made(cursor: Cursor, key: bytes, piece: int) -> list[Row]:
    """The rows of a piece, from its entries; member by member, which is cheaper than entry by entry."""
    leaves, details, counted = [_InLeaf()] * PIECE, [_InDetail()] * PIECE, []
    query = f"{_SELECT} WHERE idx >= ? AND idx < ?"
    for index, leaf, detail in cursor.execute(query, (piece * PIECE, (piece + 1) * PIECE)):
        place = index - piece * PIECE
        try:
            leaves[place] = _IN_LEAF.decode(leaf)
            if detail is not None:
                details[place] = _IN_DETAIL.decode(detail)
                if leaves[place].outcome == STRANGERS:
                    counted += [(code, place) for code in _counted(STRANGERS, _DETAIL.decode(detail))]
        except (msgspec.MsgspecError, UnicodeError):  # what is damaged says nothing; `audit verify` names it
            continue
    found: dict[str, defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for leaf in leaves:
        leaf.signer = "" if leaf.signer == leaf.carrier else leaf.signer  # one certificate stands once
    for name, member in _LEAF_TERMS:
        _gather(found[name], enumerate(map(attrgetter(member), leaves)))
    for name in _DETAIL_TERMS:
        _gather(found[name], enumerate(map(str, map(attrgetter(name), details))))
    for code, place in counted:
        found["counted"][code].append(place)
    return sorted(
        (piece, hashed, _packed(places))
        for name, values in found.items()
        for hashed, places in zip(_hashes(key, name, values), values.values(), strict=True)
    )


def _gather(found: defaultdict[str, list[int]], said: Iterable[tuple[int, str]]) -> None:
    """Where each value stands."""
    for place, value in said:
        if value:
            found[value].append(place)


def _counted(outcome: str, detail: Detail) -> list[str]:
    """Codes of refusals that an entry counts."""
    return [name for name in detail if "." in name] if outcome == STRANGERS else []


def _hashes(key: bytes, name: str, values: Iterable[str]) -> Iterator[int]:
    """64 bits of each term, as SQLite's signed integer."""
    of_name = blake2b(key=key, person=name.encode(), digest_size=8)
    for value in values:
        hashed = of_name.copy()
        hashed.update(value.encode("utf-8", "surrogatepass"))
        yield int.from_bytes(hashed.digest(), "big", signed=True)


def _packed(places: list[int]) -> bytes:
    """Places as a list of two octets each, or as a bitmap where that is shorter."""
    if len(places) < _BITMAP // 2:
        return array("H", places).tobytes()
    digits = bytearray(b"0" * PIECE)  # of one binary number, the first place last
    for place in places:
        digits[~place] = 0x31
    return int(digits, 2).to_bytes(_BITMAP, "little")


def _bits(packed: bytes) -> int:
    """The places as bits of a number."""
    if len(packed) == _BITMAP:
        return int.from_bytes(packed, "little")
    bits = 0
    for place in array("H", packed[: len(packed) & ~1]):
        bits |= 1 << place
    return bits


def _places(bits: int) -> list[int]:
    """Which bits of a number are set, in rising order; none is outside a piece."""
    octets = (bits & (1 << PIECE) - 1).to_bytes(_BITMAP, "little")
    return [8 * number + bit for number, octet in enumerate(octets) if octet for bit in range(8) if octet >> bit & 1]


def _key(read: Read) -> bytes:
    """The key of the hashes; empty when there is none."""
    return bytes(next((key for (key,) in read("SELECT key FROM index_key")), b""))


def _key_of(cursor: Cursor) -> bytes:
    return _key(lambda query: cursor.execute(query).fetchall())
