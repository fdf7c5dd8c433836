"""Fair between bureaus and between feeds: whose message is looked at next at the doors, and how long a turn of act two
is while others wait."""

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final

SLICE_S: Final = 0.25  # one feed's turn while others wait
BATCH_S: Final = 0.1  # what one batch of it should take, so that a turn ends near its time
LATELY_S: Final = 60.0  # a feed that was served within this time may come again at any moment
FIRST_BATCH: Final = 20  # deliveries, of a feed of which nothing is known yet
LEARNS: Final = 0.3  # weight of the newest batch in what a delivery is thought to cost


class Turns:
    """Round robin among bureaus for one event loop: who sends three hundred messages at once waits for himself.

    Reading a signed message takes a millisecond of the loop, so each message asks for a turn before it is read.
    """

    def __init__(self) -> None:
        self._waiting: dict[bytes, deque[asyncio.Future[None]]] = {}
        self._giving = False

    async def take(self, whose: bytes) -> None:
        """Return when it is the turn of this connection's certificate, or this topic."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.setdefault(whose, deque()).append(turn)
        if not self._giving:
            self._giving = True
            loop.call_soon(self._give)
        await turn

    def _give(self) -> None:
        """One turn; the next is given when the loop has come round, so that what came in meanwhile is counted in."""
        whose = next(iter(self._waiting))
        line = self._waiting.pop(whose)
        turn = line.popleft()
        if line:
            self._waiting[whose] = line  # behind the others
        if not turn.done():  # who waited may have gone
            turn.set_result(None)
        self._giving = bool(self._waiting)
        if self._giving:
            asyncio.get_running_loop().call_soon(self._give)


class Slices:
    """How much of a feed act two takes at a time: all it can alone, a tenth of a second's work beside others.

    Of one worker. clock: seconds
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._served_s: dict[str, float] = {}
        self._cost_s: dict[str, float] = {}

    def beside_others(self, feed: str) -> bool:
        """Whether another feed had work lately."""
        now_s = self._clock()
        return any(now_s - served_s < LATELY_S for other, served_s in self._served_s.items() if other != feed)

    def most(self, feed: str, batch: int) -> int:
        """How many deliveries of a feed the next batch should hold at most. batch: the limit that is set."""
        self._served_s[feed] = self._clock()
        if not self.beside_others(feed):
            return batch
        cost_s = self._cost_s.get(feed)
        return min(batch, FIRST_BATCH if not cost_s else max(1, int(BATCH_S / cost_s)))

    def took(self, feed: str, deliveries: int, seconds: float) -> None:
        """What a batch cost."""
        each_s = seconds / deliveries
        self._cost_s[feed] = each_s + (self._cost_s.get(feed, each_s) - each_s) * (1 - LEARNS)
