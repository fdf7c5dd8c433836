"""A signed read is answered once: the same envelope again is refused until it would be stale anyway."""

import threading
from datetime import datetime

from security.errors import Refusal, Unavailable

MOST_REMEMBERED = 200_000


class Replays:
    """Digests of what reads had signed, each remembered until its envelope is refused as stale anyway.

    Not of the signature: of an ECDSA signature (r, s) anyone can make (r, n-s), which holds as well.
    """

    def __init__(self) -> None:
        self._until: dict[str, datetime] = {}
        self._lock = threading.Lock()

    def refuse_again(self, signed_digest: str, until: datetime, now: datetime) -> None:
        """Remember this envelope. Raises Refusal `signature.replayed` when it was seen before it expired."""
        with self._lock:
            if self._until.get(signed_digest, now) > now:
                raise Refusal("signature.replayed")
            if len(self._until) >= MOST_REMEMBERED:
                self._until = {digest: until for digest, until in self._until.items() if until > now}
            if len(self._until) >= MOST_REMEMBERED:
                raise Unavailable("too many signed reads within ten minutes")
            self._until[signed_digest] = until
