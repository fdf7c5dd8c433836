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
FORGETS: Final = 0.8  # weight of each batch against the one after it, in what a delivery is thought to cost
LEAST_S: Final = 1e-5  # what no delivery costs less than


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
        self._costs: dict[str, Cost] = {}

    def beside_others(self, feed: str) -> bool:
        """Whether another feed had work lately."""
        now_s = self._clock()
        return any(now_s - served_s < LATELY_S for other, served_s in self._served_s.items() if other != feed)

    def most(self, feed: str, batch: int) -> int:
        """How many deliveries of a feed the next batch should hold at most. batch: the limit that is set."""
        self._served_s[feed] = self._clock()
        if not self.beside_others(feed):
            return batch
        cost = self._costs.get(feed)
        return min(batch, cost.within(BATCH_S) if cost else FIRST_BATCH)

    def took(self, feed: str, deliveries: int, seconds: float) -> None:
        """What a batch cost."""
        self._costs.setdefault(feed, Cost()).add(deliveries, seconds)


class Cost:
    """What batches of a feed cost: so much whatever they hold, and so much for each delivery more, by the newest ones.

    Were it all laid to the deliveries, batches that cost much by themselves would shrink to one, and cost most of all.
    """

    def __init__(self) -> None:
        self._sums = [0.0] * 5  # of batches, deliveries, seconds, squares of deliveries, deliveries times seconds
        self._last = self._turn = 0

    def add(self, deliveries: int, seconds: float) -> None:
        """One more batch; those before count less."""
        newest = (1.0, deliveries, seconds, deliveries**2, deliveries * seconds)
        self._sums = [FORGETS * total + value for total, value in zip(self._sums, newest, strict=True)]
        self._last, self._turn = deliveries, self._turn + 1

    def within(self, seconds: float) -> int:
        """How many deliveries fit; where the batch alone takes more than half of that, as many as cost what it costs.

        Every other batch is half of that, for from equal ones nobody learns which part is which; none is more than
        four times the one before.
        """
        fixed_s, each_s = self._line()
        fits = max(seconds - fixed_s, min(fixed_s, SLICE_S)) / each_s
        most = max(2, int(min(fits, 4 * self._last)))
        return most if self._turn % 2 else most // 2

    def _line(self) -> tuple[float, float]:
        """Seconds of a batch, and of a delivery more, by least squares."""
        weight, *sums = self._sums
        mean_n, mean_s, mean_nn, mean_ns = (total / weight for total in sums)
        spread, alone_s = mean_nn - mean_n**2, mean_s / mean_n
        each_s = (mean_ns - mean_n * mean_s) / spread if spread > mean_nn * 1e-6 else alone_s
        each_s = min(max(each_s, LEAST_S), alone_s)
        return mean_s - each_s * mean_n, each_s
