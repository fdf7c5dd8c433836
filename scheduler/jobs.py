"""When act two runs: at once when a delivery is accepted, and again for whatever was lost."""

import logging
import threading
import warnings
from collections.abc import Callable
from typing import Final

from celery import Celery
from celery.exceptions import SecurityWarning

from scheduler.queues import PROCESS, Queue
from security.errors import Unavailable

LOOK_S: Final = 0.1
STOP_S: Final = 2.0

log = logging.getLogger("yongtong.scheduler")


def register(app: Celery, process_feed: Callable[[str], object]) -> None:
    """Let the worker call process_feed(feed id) when told that a feed has work."""

    @app.task(name=PROCESS)  # type: ignore[untyped-decorator]  # celery says no types
    def run(feed: str) -> None:
        process_feed(feed)


def run_worker(app: Celery) -> None:
    """Work on the queue in this process, one task at a time, until told to stop."""
    # Its reason, that pickled tasks could run code, does not hold: JSON alone is taken.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    app.worker_main(
        [
            "--quiet",
            "worker",
            "--pool=solo",
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
            "--loglevel=WARNING",
        ]
    )


class Announcer:
    """Tells the queue which feeds have work: when woken, and every sweep_s in case a task was lost.

    waiting: asks the inbox, the only truth, which feeds have accepted deliveries that act two has not finished
    woken:   set by whoever accepts a delivery, so that it need not wait for the next sweep

    It works in a thread of its own: a queue that does not answer holds up nobody but this thread.
    """

    def __init__(self, queue: Queue, waiting: Callable[[], list[str]], woken: threading.Event, sweep_s: float) -> None:
        self._queue, self._waiting, self._sweep_s = queue, waiting, sweep_s
        self._woken, self._stopped = woken, threading.Event()
        self._told = set[str]()  # feeds of which a task was put since the queue was last seen empty
        self._away = False
        self._thread = threading.Thread(target=self._run, name="announcer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread. It may be waiting for a broker that does not answer, and has nothing that could be lost."""
        self._stopped.set()
        self._woken.set()
        self._thread.join(STOP_S)

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._woken.wait(self._sweep_s)
            self._woken.clear()
            try:
                self._announce()
                self._note(away=False)
            except Unavailable as problem:
                self._note(away=True, reason=str(problem))
                self._stopped.wait(self._sweep_s)
            except Exception:  # the thread's outermost loop: a full disk now must not stop act two for ever
                log.exception("announcer.failed; looking again at the next sweep")
            # Deliveries come in hundreds a second; one task drains them all, so one look in a while is enough.
            self._stopped.wait(LOOK_S)
        self._queue.close()

    def _announce(self) -> None:
        """One task for each feed that waits and has none unread: a busy worker will find the new work itself."""
        if not self._queue.unread():
            self._told.clear()
        for feed in self._waiting():
            if feed not in self._told:
                self._queue.put(feed)
                self._told.add(feed)

    def _note(self, *, away: bool, reason: str = "") -> None:
        """Say once that the queue is away, and once that it is back."""
        if away and not self._away:
            log.warning("queue.away reason=%s; receipts go on, act two waits", reason)
        elif self._away and not away:
            log.warning("queue.back; what waits in the inbox is announced")
        self._away = away
