"""The worker: the process of act two, what wakes it, and what keeps it alive."""

import logging
import os
import resource
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import sleep
from typing import Final

from exchange.app import opening, places
from exchange.feed_turn import take_turn
from exchange.settings import Settings
from scheduler.celery_app import make_celery
from scheduler.jobs import register, run_worker
from scheduler.queues import Rabbit, rabbit_of
from security.keyring import secret_line

log = logging.getLogger("yongtong.app")

RESTART_S: Final = 1.0
PARENT_LOOK_S: Final = 0.5
PARENT: Final = "YONGTONG_PARENT"  # process by which a worker was started, and with which it ends


def queue_of(settings: Settings) -> Path | Rabbit:
    """What wakes the workers: a folder in the state folder, or this bus's queue at a RabbitMQ. Raises Misconfigured."""
    said = settings.worker
    if said.queue == "files":
        return settings.at(settings.state.folder) / "queue"
    file = settings.at(said.queue_password_file) if said.queue_password_file else None
    ca = settings.at(said.queue_ca) if said.queue_ca else settings.at(settings.keys.folder) / "ca.pem"
    return rabbit_of(said.queue, partial(secret_line, "queue", file), str(ca), f"yongtong.{settings.bus.origin}")


class WorkerKeeper:
    """Keeps one worker process running beside the doors: started again, a second later, whenever it ends."""

    def __init__(self, settings_file: str) -> None:
        self._command = [sys.executable, "-P", "-m", "exchange.cli.main", "serve", "--role", "worker"]
        self._command += ["--settings", settings_file]
        # Told, for it could ask too late: of a parent that was killed meanwhile it is no child any more.
        self._environment = os.environ | {PARENT: str(os.getpid())}
        self._stopped = threading.Event()
        self._process = subprocess.Popen(self._command, env=self._environment)
        self._thread = threading.Thread(target=self._keep, name="worker keeper", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let the worker finish its batch, then end it."""
        self._stopped.set()
        self._process.terminate()
        self._thread.join()

    def renew(self) -> None:
        """Let the worker finish its batch, end it and start another, which reads its files anew."""
        self._process.terminate()

    def _keep(self) -> None:
        while True:
            code = self._process.wait()
            if self._stopped.wait(RESTART_S):
                return
            log.warning("worker.ended code=%s; starting it again", code)
            self._process = subprocess.Popen(self._command, env=self._environment)


def work(settings: Settings) -> None:
    """Be the worker: act two for every feed the queue names, until told to stop or the process that started it ends."""
    with ExitStack() as stack:
        limit = settings.worker.memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))  # a hostile workbook ends this process, not the machine
        threading.Thread(
            target=_end_with, args=(int(os.environ.get(PARENT, os.getppid())),), name="parent watch", daemon=True
        ).start()
        if not settings.state.store:
            places.wait_alone(places.state_of(settings) / "worker.lock", stack)
        bus = opening.open_bus(settings, attended=False)
        stack.callback(bus.close)
        bus.journal.resume()
        celery = make_celery(queue_of(settings))
        bus.waits.ended()
        register(celery, lambda feed: take_turn(feed, bus) if feed in bus.feeds else None)
        run_worker(celery)


def _end_with(parent: int) -> None:
    """End this process when its parent has ended: no orphan goes on working on a state folder."""
    while os.getppid() == parent:
        sleep(PARENT_LOOK_S)
    os.kill(os.getpid(), signal.SIGKILL)
