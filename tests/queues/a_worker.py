"""A worker process on a queue, which writes down what it is at: `python -m tests.queues.a_worker URL QUEUE FILE`."""

import sys
import time
from pathlib import Path

from scheduler.celery_app import make_celery
from scheduler.jobs import register, run_worker
from scheduler.queues import Rabbit, rabbit_of
from tests.queues.test_queues import PASSWORD

SLOW = "slow"
SLOW_S = 30.0


def where_of(url: str, queue: str) -> Path | Rabbit:
    """A folder, or a queue at a RabbitMQ."""
    return rabbit_of(url, lambda: PASSWORD, "", queue) if "://" in url else Path(url)


def main(url: str, queue: str, file: str) -> None:
    """Work until killed."""
    path = Path(file)

    def process(feed: str) -> None:
        _note(path, "began", feed)
        if feed == SLOW:
            time.sleep(SLOW_S)
        _note(path, "done", feed)

    app = make_celery(where_of(url, queue))
    register(app, process)
    run_worker(app)


def _note(path: Path, what: str, feed: str) -> None:
    with path.open("a") as file:
        file.write(f"{what} {feed} {time.time()}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
