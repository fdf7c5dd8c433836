"""How a partner's anchors follow a change of the bus's keys, with no trust in whoever carries the news.

An update is, for each change, a head that the key in force signed, which the partner knows already (and, where it is
the log's key that changed, the new one too), and under it, each proven, every decision on which the change rests: from
the founding that the anchors name, over each office, to the two persons who decided it and the entry of the day. So a
thief of a key of the log alone persuades nobody: he lacks the two persons' keys. Theirs alone lack the log's.

A new epoch of the log is followed likewise, only that its first head is signed by its own key alone: what was decided
before lies under the last head of the epoch that ended, which the key of that one signed and the new log continues.
Where entries were lost nothing could be decided there any more: then the epoch's first entry carries the decision, and
the former key must have signed the head over it, too.
"""

import base64
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Literal

import msgspec

from exchange.decision_documents import AnchorBody, EpochBody, bears_on_keys, unverified_document
from exchange.decisions import ENTRY, Decided, EpochBegun, KeyChange, Standing
from exchange.entry import Leaf, commitment, detail_of, leaf_of
from exchange.journal import Journal
from security import merkle
from security.anchors import Anchors
from security.checkpoint import Checkpoint, log_key_of, open_checkpoint
from security.errors import Refusal
from security.pki import pem_of

MOST_CHANGES: Final = 1_000


class ProvenEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A decision as the log has it. leaf, detail: the very text; salt, proof: hex, proof under the change's head."""

    index: int
    leaf: str
    salt: str
    detail: str
    proof: list[str]


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One change. checkpoint: the first head over it; consistency: hex, between it and the largest head before it.

    former, continued: of a new epoch the last head before it, under which all entries but the last are proven, and the
    proof, hex, that its log continues it
    """

    checkpoint: str
    entries: list[ProvenEntry]
    consistency: list[str]
    former: str = ""
    continued: list[str] = []


class Update(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every change of the bus's keys, oldest first. known: the size with which consistency begins, of the partner's
    last head."""

    origin: str
    known: int
    changes: list[Change]


class Followed(msgspec.Struct, frozen=True):
    """A change that holds: the anchors after it, whether it was news, and the head under which it was proven.

    nodes: prove that it is of one log with the largest head before it
    begun: where it is a new epoch
    """

    anchors: Anchors
    is_new: bool
    checkpoint: str
    size: int
    nodes: tuple[bytes, ...]
    begun: EpochBegun | None = None


def changed_anchors(anchors: Anchors, index: int, body: KeyChange) -> Anchors:
    """The anchors after a change; the same where they have it. index: of the entry that carried it out."""
    if isinstance(body, EpochBegun):
        new, pem = body.body, pem_of(base64.b64decode(body.body.answer.certificate)).decode()
        return anchors.with_epoch(new.log, new.key.key, _log_kind(new.key), pem, body.size, body.root)
    if body.name == "answer":
        return anchors.with_receipt_certificate(pem_of(base64.b64decode(body.certificate)).decode())
    if anchors.knows_log_key(body.key):
        return anchors
    return anchors.with_log_key(body.key, _log_kind(body), index)


def make_update(journal: Journal, changes: list[tuple[int, KeyChange]], known: int) -> bytes:
    """The update, JSON. changes: with the entries that carried them out; known: of the partner's last head."""
    made, largest = list[Change](), known
    bearing = list(_bearing(journal, changes[-1][0])) if changes else []
    for index, body in changes:
        checkpoint, size = journal.first_checkpoint_over(index)
        if not size:
            break
        begins = isinstance(body, EpochBegun)
        entries = [
            _proven(journal, entry, index if begins and entry[0] < index else size)
            for entry in bearing
            if entry[0] <= index
        ]
        first, second = sorted((largest, size))
        nodes = journal.consistency(first, second) if first > 0 and second <= journal.size() else ()
        former = journal.checkpoint_of(index) if begins else ""
        continued = journal.consistency(index, size) if begins else ()
        made.append(Change(checkpoint, entries, _hex(nodes), former, _hex(continued)))
        largest = second
    return msgspec.json.encode(Update(journal.origin, known, made))


def read_update(octets: bytes) -> Update:
    """An update as it came. Raises Refusal `anchor.update_invalid`."""
    try:
        update = msgspec.json.decode(octets, type=Update)
    except (msgspec.MsgspecError, UnicodeError) as problem:
        raise _invalid("not readable") from problem
    if len(update.changes) > MOST_CHANGES:
        raise _invalid(f"{len(update.changes)} changes")
    return update


def follow_changes(update: Update, anchors: Callable[[], Anchors]) -> Iterator[Followed]:
    """Each change, once it holds under those before it.

    anchors: as they stand; asked before each change, for whoever follows keeps them in between

    Raises Refusal `anchor.update_invalid`, `audit.checkpoint_invalid`.
    """
    for change in update.changes:
        known = anchors()
        if update.origin != known.origin:
            raise _invalid(f"of another origin, {update.origin[:80]}")
        if change.former:
            head, begun = _begun(change, known)
            changed = changed_anchors(known, begun.size, begun)
            nodes = tuple(map(_unhex, change.consistency))
            yield Followed(changed, changed != known, change.checkpoint, head.size, nodes, begun)
            continue
        head = known.head(change.checkpoint)  # by a key that is trusted already: the former one, where it changed
        index, body = _decided(change, head, known)
        changed = changed_anchors(known, index, body)
        if body.name == "log":
            open_checkpoint(change.checkpoint, head.origin, log_key_of(_log_kind(body), bytes.fromhex(body.key)))
        nodes = tuple(map(_unhex, change.consistency))
        yield Followed(changed, changed != known, change.checkpoint, head.size, nodes)


def _decided(change: Change, head: Checkpoint, anchors: Anchors) -> tuple[int, AnchorBody]:
    """The change that these entries carry out last, once each stands under the head and all of them hold."""
    standing = Standing(anchors.origin, anchors.founding)
    last = _take(change.entries, head, standing)
    index, body = _carried_out(standing, last)
    if isinstance(body, EpochBegun):
        raise _invalid("a new epoch without the last head of the one before")
    return index, body


def _begun(change: Change, anchors: Anchors) -> tuple[Checkpoint, EpochBegun]:
    """The first head of an epoch, and the epoch, once two persons decided so in the log that the anchors trust, and the
    new log begins with that one as its last head has it."""
    former, standing = anchors.head(change.former), Standing(anchors.origin, anchors.founding)
    if not change.entries:
        raise _invalid("no entries")
    _take(change.entries[:-1], former, standing)
    new = _waiting(change.entries[-1], standing)
    key = log_key_of(_log_kind(new.key), bytes.fromhex(new.key.key))
    head = open_checkpoint(change.checkpoint, new.log, key)
    nodes = list(map(_unhex, change.continued))
    if not merkle.verify_consistency(former.size, head.size, nodes, former.root, head.root):
        raise _invalid("the new log does not begin with the one that is trusted")
    if _carried_within(change.entries[-1]) is not None:
        _check_vouched(change.checkpoint, new.log, former, anchors)
    last = _take(change.entries[-1:], head, standing)
    _, body = _carried_out(standing, last)
    if not isinstance(body, EpochBegun) or (last, body.root) != (former.size, former.root.hex()):
        raise _invalid("the epoch does not begin after that head")
    return head, body


def _waiting(entry: ProvenEntry, standing: Standing) -> EpochBody:
    """The decided epoch that an entry says it opens; whether it does, is not known yet."""
    try:
        within = _carried_within(entry)
        if within is not None:
            return msgspec.convert(within["body"], EpochBody)
        of = msgspec.json.decode(entry.detail, type=dict[str, str | int])["of"]
        return standing.epochs[str(of)]
    except (msgspec.MsgspecError, KeyError) as problem:
        why = standing.troubles[-1].code if standing.troubles else "no epoch is decided"
        raise _invalid(f"two persons of the founding's did not decide it: {why}") from problem


def _carried_within(entry: ProvenEntry) -> dict[str, Any] | None:
    """The decision that an entry carries in itself, unverified; None where it carries none."""
    try:
        said = msgspec.json.decode(entry.detail, type=dict[str, str | int])
    except msgspec.MsgspecError as problem:
        raise _invalid(f"entry {entry.index} is not readable") from problem
    return unverified_document(str(said["proposal"])) if {"proposal", "carrying"} <= said.keys() else None


def _check_vouched(checkpoint: str, log: str, former: Checkpoint, anchors: Anchors) -> None:
    """Return if the key that was in force at the former epoch's last head signed this one too."""
    kind, key = anchors.log_key_in_force(former)
    open_checkpoint(checkpoint, log, log_key_of(kind, bytes.fromhex(key)))


def _take(entries: list[ProvenEntry], head: Checkpoint, standing: Standing) -> int:
    """Take decisions in their order, each once it stands under the head; gives the number of the last."""
    last = -1
    for entry in entries:
        if entry.index <= last:
            raise _invalid("entries out of order")
        last = entry.index
        standing.take(_entered(entry, head))
    return last


def _carried_out(standing: Standing, last: int) -> tuple[int, KeyChange]:
    if not standing.key_changes or standing.key_changes[-1][0] != last:
        why = standing.troubles[-1].code if standing.troubles else "nothing is carried out"
        raise _invalid(f"two persons of the founding's did not decide it: {why}")
    return standing.key_changes[-1]


def _entered(entry: ProvenEntry, head: Checkpoint) -> Decided:
    octets, path = entry.leaf.encode(), [_unhex(node) for node in entry.proof]
    if not merkle.verify_inclusion(merkle.leaf_hash(octets), entry.index, head.size, path, head.root):
        raise _invalid(f"entry {entry.index} is not under the head of size {head.size}")
    try:
        leaf = msgspec.json.decode(octets, type=Leaf)
        detail = msgspec.json.decode(entry.detail, type=dict[str, str | int])
    except msgspec.MsgspecError as problem:
        raise _invalid(f"entry {entry.index} is not readable") from problem
    if leaf.type != ENTRY or commitment(_unhex(entry.salt), entry.detail.encode()) != leaf.detail:
        raise _invalid(f"entry {entry.index} does not say that")
    return Decided(entry.index, leaf.time, leaf.outcome, detail)


_Committed = tuple[int, bytes, bytes, bytes]  # index, leaf, salt, detail


def _bearing(journal: Journal, last: int) -> Iterator[_Committed]:
    """The decisions on which a change of keys may rest, up to an entry."""
    for index in journal.decisions_up_to(last):
        leaf, salt, detail = journal.committed(index)
        if salt is None or detail is None:
            continue
        if bears_on_keys(leaf_of(index, leaf).outcome, detail_of(index, detail)):
            yield index, leaf, salt, detail


def _proven(journal: Journal, entry: _Committed, size: int) -> ProvenEntry:
    index, leaf, salt, detail = entry
    path = journal.inclusion(index, size)
    return ProvenEntry(index, leaf.decode(), salt.hex(), detail.decode(), [node.hex() for node in path])


def _log_kind(body: AnchorBody) -> Literal["EdDSA", "SM2"]:
    return "SM2" if body.algorithm == "SM2" else "EdDSA"


def _hex(nodes: Iterable[bytes]) -> list[str]:
    return [node.hex() for node in nodes]


def _unhex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as problem:
        raise _invalid("not hex") from problem


def _invalid(detail: str) -> Refusal:
    return Refusal("anchor.update_invalid", detail)
