"""A witness: signs the log's newest head, if it continues the last head that it signed, and nothing else ever.

What it signed last lies in its own folder, and is there before it signs: whatever crash comes between, no second head
that disagrees with the first can be signed, nor a smaller one after a larger.
"""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

import msgspec

from connectors.partner.folder import PartnerFolder
from connectors.partner.heads import Consistency, keep_fork, one_log
from connectors.partner.log import Kept, Log
from security.checkpoint import Checkpoint
from security.cosignature import cosign, without_cosignatures
from security.errors import Refusal
from security.keys import SigningKey


class Signed(msgspec.Struct, frozen=True):
    """A head that was signed. before: size of the one signed last, 0 for the first; line: the witness's; kept: what the
    bus now has of it."""

    head: Checkpoint
    before: int
    line: str
    kept: Kept


class LogWitness:
    """One witness of one log.

    folder: of a bureau, whose connection it uses; name, key: as they stand in the bus's settings; clock: aware, UTC
    """

    def __init__(
        self, folder: PartnerFolder, log: Log, name: str, key: SigningKey, clock: Callable[[], datetime]
    ) -> None:
        self._folder, self._log, self._name, self._key, self._clock = folder, log, name, key, clock
        self._anchors = folder.anchors

    def look(self) -> Signed:
        """Sign the head that the bus has for us, and hand the line in.

        Raises Refusal `audit.checkpoint_invalid`, `audit.log_truncated`, `audit.log_forked`, or the bus's own;
        Unavailable.
        """
        with self._alone():
            # Before the first head that it signs, the one that the partner remembers counts.
            ours = self._folder.cosigned() or self._folder.remembered()
            before = self._anchors.head(ours) if ours else None
            head, offered = self._offered(before.size if before else 0)
            if before is not None:
                self._continues(before, head, ours, offered)
            # From here no other head of this size is ever signed, nor a smaller one: a crash now costs this line only.
            self._folder.keep_cosigned(offered)
            line = cosign(offered, self._name, self._key, self._clock())
            kept = self._log.hand_in(f"{offered}{line}\n")
        return Signed(head, before.size if before else 0, line, kept)

    def _offered(self, before: int) -> tuple[Checkpoint, str]:
        """What the bus has for us to sign, without the lines of others: one that waits for us, or the newest."""
        for asked in (self._log.to_cosign, self._log.checkpoint):
            offered = without_cosignatures(asked())
            head = self._anchors.head(offered)
            # Of a line of ours that was lost the bus does not know: what waits for us may be less than we signed.
            if head.size >= before:
                break
        return head, offered

    def _continues(self, before: Checkpoint, head: Checkpoint, ours: str, offered: str) -> None:
        if head.size < before.size:
            kept = keep_fork(ours, offered, (), self._folder, self._clock())
            raise Refusal("audit.log_truncated", f"{before.size}, now {head.size}; both kept in {kept}")
        nodes = self._log.consistency(before.size, head.size) if 0 < before.size < head.size else ()
        if not one_log(before, head, Consistency(before.size, head.size, nodes)):
            kept = keep_fork(ours, offered, nodes, self._folder, self._clock(), self._log)
            raise Refusal("audit.log_forked", f"{before.size} and {head.size}; both kept in {kept}")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One look at a time in this folder, over all processes: two would each continue the same head."""
        path = self._folder.path / "witness" / "lock"
        path.parent.mkdir(exist_ok=True)
        with path.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
