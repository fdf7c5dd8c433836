"""The partner remembers the log's last head, and takes no head that does not continue it."""

from collections.abc import Callable
from datetime import datetime

import msgspec

from connectors.partner.folder import PartnerFolder
from security.checkpoint import Checkpoint
from security.errors import Refusal
from security.merkle import verify_consistency


class Consistency(msgspec.Struct, frozen=True):
    """A consistency proof as the bus sent it: sizes, and hashes in RFC 6962 §2.1.2's order."""

    first: int
    second: int
    nodes: tuple[bytes, ...]


class Heads:
    """One partner's view of one log. A fork is refused, and both heads are kept: together they are the proof of it."""

    def __init__(self, folder: PartnerFolder, clock: Callable[[], datetime]) -> None:
        self._folder, self._clock = folder, clock
        self._anchors = folder.anchors

    def known_size(self) -> int:
        """Entries under the last head taken; 0 before the first."""
        head = self._remembered()
        return head.size if head else 0

    def follow(self, offered_text: str, consistency: Consistency | None) -> Checkpoint:
        """Take a signed head if it and the remembered one are of one log, and remember the larger.

        consistency: the bus's proof between the two sizes, whichever is larger
        Raises Refusal `audit.checkpoint_invalid`, `audit.log_forked`.
        """
        offered = self._anchors.head(offered_text)
        remembered = self._remembered()
        if remembered is not None and not _one_log(remembered, offered, consistency):
            kept = self._folder.keep_fork(self._folder.remembered(), offered_text, self._clock())
            raise Refusal("audit.log_forked", f"{remembered.size} and {offered.size}; both kept in {kept}")
        if remembered is None or offered.size > remembered.size:
            self._folder.remember(offered_text)
        return offered

    def take_unproven(self, offered_text: str) -> Checkpoint:
        """Take a signed head that came with no proof of consistency, as over MQTT: it is held against the remembered
        one only where both are of one size, and remembered only where none was. The next SOAP answer proves the rest.

        Raises Refusal `audit.checkpoint_invalid`, `audit.log_forked`.
        """
        offered, remembered = self._anchors.head(offered_text), self._remembered()
        if remembered is None or remembered.size == offered.size:
            return self.follow(offered_text, None)
        return offered

    def _remembered(self) -> Checkpoint | None:
        text = self._folder.remembered()
        return self._anchors.head(text) if text else None


def _one_log(one: Checkpoint, other: Checkpoint, consistency: Consistency | None) -> bool:
    first, second = sorted((one, other), key=lambda head: head.size)
    if first.size == second.size:
        return first.root == second.root
    if first.size == 0:
        return True  # the empty log is the beginning of every log
    if consistency is None or (consistency.first, consistency.second) != (first.size, second.size):
        return False
    return verify_consistency(first.size, second.size, consistency.nodes, first.root, second.root)
