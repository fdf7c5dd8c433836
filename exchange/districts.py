"""区县节点 The nodes to which this one has delegated divisions: their logs' heads, followed as a partner follows ours.

A district hands in a head with every delivery. It is taken only if it continues the one taken before, and the audit
says so: so the city's own log commits to every district's, and what witnesses and timestamps the one covers the other.
Two heads that are of no one log are kept side by side as the proof of it, and nothing of that district counts that
rests on a later head.
"""

import fcntl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from connectors.partner.folder import PartnerFolder
from connectors.partner.heads import Consistency, Heads
from exchange.entry import Entry
from exchange.journal import Journal
from exchange.provenance import Followed
from security.anchors import Anchors
from security.checkpoint import MOST_CHARACTERS, Checkpoint
from security.errors import Refusal
from security.fork import MOST_NODES

MOST_BYTES: Final = 2 * MOST_CHARACTERS


class OfferedHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A head as a district hands it in. nodes: RFC 6962's proof, hex, that it continues the one of size `known`."""

    checkpoint: str
    known: int
    nodes: list[str]


class District:
    """One district's log, in a folder of the state: `checkpoint`, and `forks/` where there were any.

    bureau: the district centre's code here; anchors: what is trusted of its node
    """

    def __init__(self, bureau: str, anchors: Anchors, folder: Path, clock: Callable[[], datetime]) -> None:
        self.bureau, self._anchors, self._clock = bureau, anchors, clock
        self._folder = PartnerFolder(folder)

    def followed(self) -> Followed:
        """How far its log is known here."""
        return Followed(self._anchors.origin, self._heads().known_size())

    def take(self, octets: bytes, journal: Journal) -> int:
        """Take a head that it hands in, enter that, and give its size.

        Raises Refusal `audit.checkpoint_invalid`, `audit.log_forked`, `audit.log_truncated`, `audit.epoch_over`,
        `head.not_readable`, and `head.other_known` where it proves from another size than the one known here.
        """
        offered, nodes = _read(octets)
        with self._alone():
            heads, before = self._heads(), self._heads().known_size()
            size = self._anchors.head(offered.checkpoint).size
            if size > before and offered.known != before:
                raise Refusal("head.other_known", str(before))  # no fork: it asks, and proves from there
            head = heads.follow_newest(offered.checkpoint, _proof(before, size, nodes), before)
            if head.size > before:
                journal.note(self._entry(head)).result()
        return head.size

    def _heads(self) -> Heads:
        return Heads(self._folder, self._clock, None, self._anchors)

    def _entry(self, head: Checkpoint) -> Entry:
        detail: dict[str, str | int] = {"origin": head.origin, "size": head.size, "root": head.root.hex()}
        return Entry(type="head", outcome="followed", sender=self.bureau, detail=detail)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One head at a time, over all processes: two would each continue the same one."""
        self._folder.path.mkdir(parents=True, exist_ok=True)
        with (self._folder.path / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


Districts = Mapping[str, District]  # by the bureau of each


def district_of(districts: Districts, bureau: str) -> District:
    """The district that a bureau is the centre of. Raises Refusal `head.no_district`."""
    if bureau not in districts:
        raise Refusal("head.no_district", bureau)
    return districts[bureau]


def _read(octets: bytes) -> tuple[OfferedHead, tuple[bytes, ...]]:
    try:
        offered = msgspec.json.decode(octets, type=OfferedHead)
        nodes = tuple(bytes.fromhex(node) for node in offered.nodes)
    except (msgspec.MsgspecError, UnicodeError, ValueError) as problem:
        raise Refusal("head.not_readable") from problem
    if len(nodes) > MOST_NODES:
        raise Refusal("head.not_readable", f"{len(nodes)} nodes")
    return offered, nodes


def _proof(before: int, size: int, nodes: tuple[bytes, ...]) -> Consistency | None:
    return Consistency(before, size, nodes) if 0 < before < size else None
