"""Futures of another thread, awaited on a loop."""

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from exchange.landing import landed
from security.errors import Unavailable


def test_all_that_other_threads_resolve_is_heard_each_its_own() -> None:
    futures: list[Future[int]] = [Future() for _ in range(2_000)]

    async def all_landed() -> list[int]:
        with ThreadPoolExecutor(4) as threads:
            waiting = asyncio.gather(*(landed(future) for future in futures))
            for number, future in enumerate(futures):
                threads.submit(future.set_result, number)
            return await asyncio.wait_for(waiting, 20)

    assert asyncio.run(all_landed()) == list(range(2_000))


def test_what_is_done_already_lands_and_what_failed_raises() -> None:
    done: Future[str] = Future()
    done.set_result("kept")
    failed: Future[str] = Future()
    failed.set_exception(Unavailable("disk full"))
    assert asyncio.run(landed(done)) == "kept"
    with pytest.raises(Unavailable):
        asyncio.run(landed(failed))


def test_who_waits_no_more_holds_up_nobody() -> None:
    gone: Future[int] = Future()
    other: Future[int] = Future()

    async def one_leaves() -> int:
        leaving = asyncio.ensure_future(landed(gone))
        staying = asyncio.ensure_future(landed(other))
        await asyncio.sleep(0)
        leaving.cancel()
        threading.Timer(0.05, lambda: (gone.set_result(1), other.set_result(2))).start()
        return await asyncio.wait_for(staying, 20)

    assert asyncio.run(one_leaves()) == 2
    assert gone.result() == 1, "leaving undoes nothing"
