"""Futures of another thread awaited on an event loop, woken once for all that are done and not once for each.

`asyncio.wrap_future` writes to the loop's pipe for every future. The journal resolves a whole group at once, and each
of these writes gives the interpreter to another thread and back.
"""

import asyncio
from collections import deque
from concurrent.futures import Future
from typing import TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")


class _Landing:
    """What is done and not yet told, of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._done, self._called = loop, deque["asyncio.Future[None]"](), False

    def done(self, waiter: "asyncio.Future[None]") -> None:
        """In any thread: a future is done. Nothing is told to a loop that was closed meanwhile."""
        self._done.append(waiter)
        if not self._called and not self._loop.is_closed():
            self._called = True
            self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        self._called = False  # first: what is done from here on calls again
        while self._done:
            waiter = self._done.popleft()
            if not waiter.done():  # cancelled meanwhile: who waited has gone
                waiter.set_result(None)


_landings: "WeakKeyDictionary[asyncio.AbstractEventLoop, _Landing]" = WeakKeyDictionary()


async def landed(future: "Future[T]") -> T:
    """The result of a future that another thread will set; raises what it raises. Cancelling does not cancel it."""
    loop = asyncio.get_running_loop()
    landing = _landings.get(loop)
    if landing is None:
        landing = _landings[loop] = _Landing(loop)
    waiter: asyncio.Future[None] = loop.create_future()
    future.add_done_callback(lambda _: landing.done(waiter))
    await waiter
    return future.result()
