"""The partner remembers the log's last head, and takes no head that does not continue it."""

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from connectors.partner.folder import PartnerFolder
from connectors.partner.log import Log
from security.anchors import Anchors
from security.checkpoint import Checkpoint
from security.errors import Refusal, Unavailable
from security.fork import prove_fork
from security.merkle import verify_consistency


class Consistency(msgspec.Struct, frozen=True):
    """A consistency proof as the bus sent it: sizes, and hashes in RFC 6962 §2.1.2's order."""

    first: int
    second: int
    nodes: tuple[bytes, ...]


class Heads:
    """One partner's view of one log. A fork is refused, and both heads are kept: together they are the proof of it.

    log: where what a proof of the fork still lacks can be asked for
    anchors: what is trusted, where it is not what the folder has
    """

    def __init__(
        self,
        folder: PartnerFolder,
        clock: Callable[[], datetime],
        log: Log | None = None,
        anchors: Anchors | None = None,
    ) -> None:
        self._folder, self._clock, self._log = folder, clock, log
        self._anchors = anchors or folder.anchors
        self._asked_with: int | None = None

    def known_size(self) -> int:
        """Entries under the last head taken; 0 before the first. The next answer's proof begins there."""
        head = self._remembered()
        self._asked_with = head.size if head else 0
        return self._asked_with

    def follow(self, offered_text: str, consistency: Consistency | None) -> Checkpoint:
        """Take a signed head if it and the remembered one are of one log, and remember the larger.

        consistency: the bus's proof between the two sizes, whichever is larger
        Raises Refusal as `check` does.
        """
        offered, remembered = self.check(offered_text, consistency), self._remembered()
        if remembered is None or offered.size > remembered.size:
            self._folder.remember(offered_text)
        return offered

    def check(self, offered_text: str, consistency: Consistency | None) -> Checkpoint:
        """A signed head, if it and the remembered one are of one log; nothing is remembered.

        Raises Refusal `audit.checkpoint_invalid`, `audit.epoch_over`, `audit.log_forked`, `audit.log_truncated`;
        Unavailable where another client on this folder went on meanwhile and the bus cannot be asked what joins them.
        """
        offered = self._anchors.head(offered_text)
        remembered = self._remembered()
        if remembered is not None and self._asked_with not in (None, remembered.size):
            consistency = self._joining(remembered, offered) or consistency
        if remembered is not None and not one_log(remembered, offered, consistency):
            nodes = consistency.nodes if consistency else ()
            ours = self._folder.remembered()
            kept = keep_fork(ours, offered_text, nodes, self._folder, self._clock(), self._log, self._anchors)
            # A bus that cannot prove the smaller head out of the larger one's log has that log no more.
            shorter = offered.size < remembered.size and consistency is None
            code = "audit.log_truncated" if shorter else "audit.log_forked"
            raise Refusal(code, f"{remembered.size} and {offered.size}; both kept in {kept}")
        return offered

    def follow_newest(self, offered_text: str, consistency: Consistency | None, known: int) -> Checkpoint:
        """Take a head that the bus offers as its newest: what it signed before it has to have still, so that none is
        smaller than the one remembered when it was asked, whatever proof comes along.

        known: that one's size
        Raises Refusal `audit.checkpoint_invalid`, `audit.log_forked`, `audit.log_truncated`.
        """
        offered = self._anchors.head(offered_text)
        if offered.size < known:
            nodes = consistency.nodes if consistency else ()
            ours = self._folder.remembered()
            kept = keep_fork(ours, offered_text, nodes, self._folder, self._clock(), self._log, self._anchors)
            raise Refusal("audit.log_truncated", f"{known} and {offered.size}; both kept in {kept}")
        return self.follow(offered_text, consistency)

    def take_unproven(self, offered_text: str) -> Checkpoint:
        """Take a signed head that came with no proof of consistency, as over MQTT: it is held against the remembered
        one only where both are of one size, and remembered only where none was. The next SOAP answer proves the rest.

        Raises Refusal `audit.checkpoint_invalid`, `audit.log_forked`.
        """
        offered, remembered = self._anchors.head(offered_text), self._remembered()
        if remembered is None or remembered.size == offered.size:
            return self.follow(offered_text, None)
        return offered

    def _joining(self, remembered: Checkpoint, offered: Checkpoint) -> Consistency | None:
        """The bus's proof between two heads of which the answer's own proof says nothing: it began at a head that was
        remembered when we asked, and another client on this folder has taken a later one since."""
        first, second = sorted((remembered.size, offered.size))
        if self._log is None or not 0 < first < second:
            return None
        try:
            return Consistency(first, second, self._log.consistency(first, second))
        except Refusal:
            return None

    def _remembered(self) -> Checkpoint | None:
        text = self._folder.remembered()
        return self._anchors.head(text) if text else None


def one_log(one: Checkpoint, other: Checkpoint, consistency: Consistency | None) -> bool:
    """Whether two heads are of one log, the smaller first."""
    first, second = sorted((one, other), key=lambda head: head.size)
    if first.size == second.size:
        return first.root == second.root
    if first.size == 0:
        return True  # the empty log is the beginning of every log
    if consistency is None or (consistency.first, consistency.second) != (first.size, second.size):
        return False
    return verify_consistency(first.size, second.size, consistency.nodes, first.root, second.root)


def keep_fork(
    ours: str,
    theirs: str,
    nodes: Sequence[bytes],
    folder: PartnerFolder,
    now: datetime,
    log: Log | None = None,
    anchors: Anchors | None = None,
) -> Path:
    """Keep two heads that cannot both be of one log, and where the bus gave enough for it the document that proves so
    to everybody; gives the folder.

    nodes: the bus's consistency proof between them, if it gave one; log: where the rest is asked for
    """
    return folder.keep_fork(ours, theirs, _proof(ours, theirs, nodes, anchors or folder.anchors, log), now)


def _proof(ours: str, theirs: str, nodes: Sequence[bytes], anchors: Anchors, log: Log | None) -> bytes | None:
    """The document, or None: a bus that forked its log is asked for what proves it, and may well keep silent."""
    first, second = sorted(anchors.head(note).size for note in (ours, theirs))
    try:
        if first < second and log is not None:
            nodes = nodes or log.consistency(first, second)
            if first & (first - 1) == 0 and nodes:
                # RFC 6962 leaves out the root over the first leaves, a complete subtree. The path of the next entry
                # has it, where the two meet: below what both proofs share.
                nodes = [log.inclusion(first, second)[-len(nodes)], *nodes]
        return prove_fork(ours, theirs, nodes, anchors)
    except (Refusal, Unavailable, IndexError):
        return None
