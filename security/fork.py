"""The proof that a bus signed heads of two logs: two notes, and where their sizes differ, nodes of the larger tree.

{"v": 1, "typ": "yt-fork", "origin": …, "first": note, "second": note, "nodes": [hex, …]}

Whoever holds the log's public key needs nothing else. Two heads of one size have two roots. Of two sizes, the nodes
are RFC 6962's consistency proof out of the larger tree (before it the root over the first leaves where their number is
a power of two, which the RFC leaves out): they make the larger root, and so are of the larger log, and they make
another root than was signed for the smaller size.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from security.anchors import Anchors
from security.checkpoint import MOST_CHARACTERS, Checkpoint
from security.errors import Refusal
from security.merkle import HASH_SIZE, roots_by

TYPE: Final = "yt-fork"
MOST_BYTES: Final = 4 * MOST_CHARACTERS
MOST_NODES: Final = 65  # of a tree that a 64-bit number can count


class Fork(msgspec.Struct, frozen=True):
    """Two heads that one key signed and no one log has; first is the smaller. continued: the root that the second
    head's own log has at the first one's size."""

    origin: str
    first: Checkpoint
    second: Checkpoint
    continued: bytes


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    v: int
    typ: str
    origin: str
    first: str
    second: str
    nodes: list[str]


class _Typed(msgspec.Struct):
    typ: object = None


def is_fork(octets: bytes) -> bool:
    """Whether these octets say that they prove a fork."""
    try:
        return msgspec.json.decode(octets, type=_Typed).typ == TYPE
    except (msgspec.MsgspecError, UnicodeError):
        return False


def prove_fork(one: str, other: str, nodes: Sequence[bytes], anchors: Anchors) -> bytes:
    """The document that two heads and nodes of the larger one's tree make, if it proves anything.

    Raises Refusal `audit.checkpoint_invalid`, `audit.fork_unproven`.
    """
    first, second = sorted((one, other), key=lambda note: anchors.head(note).size)
    document = _Document(1, TYPE, anchors.origin, first, second, [node.hex() for node in nodes])
    octets = msgspec.json.format(msgspec.json.encode(document)) + b"\n"
    open_fork(octets, anchors)
    return octets


def open_fork(octets: bytes, anchors: Anchors) -> Fork:
    """The fork that a document proves. Raises Refusal `audit.checkpoint_invalid`, `audit.fork_unproven`."""
    if len(octets) > MOST_BYTES:
        raise _unproven("too large")
    try:
        document = msgspec.json.decode(octets, type=_Document)
        nodes = [bytes.fromhex(node) for node in document.nodes]
    except (msgspec.MsgspecError, UnicodeError, ValueError) as problem:
        raise _unproven("not a fork document") from problem
    if (document.v, document.typ, document.origin) != (1, TYPE, anchors.origin):
        raise _unproven("of another version, kind or origin")
    first, second = anchors.head(document.first), anchors.head(document.second)
    continued = _continued(first, second, nodes)
    if continued == first.root:
        raise _unproven("the two heads are of one log")
    return Fork(anchors.origin, first, second, continued)


def _continued(first: Checkpoint, second: Checkpoint, nodes: Sequence[bytes]) -> bytes:
    """The root of the second head's log at the first one's size."""
    if not 0 < first.size <= second.size:  # of the empty log there is one root only, and it begins every log
        raise _unproven("sizes")
    if first.size == second.size:
        if nodes:
            raise _unproven("nodes between two heads of one size")
        return second.root
    if not 0 < len(nodes) <= MOST_NODES or any(len(node) != HASH_SIZE for node in nodes):
        raise _unproven("nodes")
    roots = roots_by(first.size, second.size, nodes)
    if roots is None or roots[1] != second.root:
        raise _unproven("the nodes are not of the larger head's log")
    return roots[0]


def _unproven(detail: str) -> Refusal:
    return Refusal("audit.fork_unproven", detail)
