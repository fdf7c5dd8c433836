"""A signed read is answered once: the same envelope again is refused until it would be stale anyway."""

import threading
from datetime import datetime
from typing import Final

from security.errors import Refusal, Unavailable

MOST_OF_BUREAU: Final = 200_000  # within ten minutes; each bureau has its own, so that none uses up another's


class Replays:
    """Digests of what reads had signed, each remembered until its envelope is refused as stale anyway.

    Not of the signature: of an ECDSA signature (r, s) anyone can make (r, n-s), which holds as well.
    """

    def __init__(self) -> None:
        self._until: dict[str, dict[str, datetime]] = {}
        self._lock = threading.Lock()

    def refuse_again(self, bureau: str, signed_digest: str, until: datetime, now: datetime) -> None:
        """Remember this envelope. Raises Refusal `signature.replayed` when it was seen before it expired."""
        with self._lock:
            known = self._until.setdefault(bureau, {})
            if known.get(signed_digest, now) > now:
                raise Refusal("signature.replayed")
            # Oldest first, and each is looked at once: a full memory must not cost a full reading at every call.
            while known and known[first := next(iter(known))] <= now:
                del known[first]
            if len(known) >= MOST_OF_BUREAU:
                raise Unavailable(f"too many signed reads of {bureau} within ten minutes")
            known[signed_digest] = until

    def remember(self, bureau: str, signed_digest: str, until: datetime) -> None:
        """Take over what an earlier process saw."""
        with self._lock:
            self._until.setdefault(bureau, {})[signed_digest] = until
