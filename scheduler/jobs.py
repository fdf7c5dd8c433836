"""When act two runs: at once when a delivery is accepted, and again for whatever was lost."""

import logging
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Final

from celery import Celery
from celery.exceptions import SecurityWarning

PROCESS: Final = "yongtong.process_feed"

log = logging.getLogger("yongtong.scheduler")


def register(app: Celery, process_feed: Callable[[str], object]) -> None:
    """Let the worker call process_feed(feed id) when told that a feed has work."""

    @app.task(name=PROCESS)  # type: ignore[untyped-decorator]  # celery says no types
    def run(feed: str) -> None:
        process_feed(feed)


def run_worker(app: Celery) -> None:
    """Work on the queue in this process, one task at a time, until told to stop."""
    # Its reason, that pickled tasks could run code, does not hold: JSON alone is taken, from a folder of our own.
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
    """

    def __init__(
        self,
        app: Celery,
        broker_folder: Path,
        waiting: Callable[[], list[str]],
        woken: threading.Event,
        sweep_s: float,
    ) -> None:
        self._app, self._folder, self._waiting, self._sweep_s = app, broker_folder, waiting, sweep_s
        self._woken, self._stopped = woken, threading.Event()
        self._thread = threading.Thread(target=self._run, name="announcer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        self._woken.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._woken.wait(self._sweep_s)
            self._woken.clear()
            try:
                self._announce()
            except Exception:  # the thread's outermost loop: a full disk now must not stop act two for ever
                log.exception("announcer.failed; looking again at the next sweep")
            # Deliveries come in hundreds a second; one task drains them all, so one look in a while is enough.
            self._stopped.wait(0.1)

    def _announce(self) -> None:
        if not self._queued():
            for feed in self._waiting():
                self._app.send_task(PROCESS, args=[feed])

    def _queued(self) -> bool:
        """Whether tasks still lie unread: the worker is busy and will find the new work itself."""
        return any(self._folder.glob("*.msg"))
