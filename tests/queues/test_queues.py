"""What both queues do: a folder of files, and a quorum queue of a private RabbitMQ that is killed, stopped, started."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.rabbit import PASSWORD, Rabbit
from scheduler import celery_app, queues
from scheduler.celery_app import DELIVERY_LIMIT, make_celery
from scheduler.jobs import Announcer
from scheduler.queues import Queue, open_queue, rabbit_of
from security.errors import Misconfigured, Unavailable

WAIT_S = 90.0


class Bench(msgspec.Struct):
    """A queue of its own, what its worker wrote, and an inbox of names that stand for feeds with work."""

    url: str
    name: str
    file: Path
    queue: Queue  # for one thread
    look: Queue  # the same for another
    inbox: list[str]
    workers: list[subprocess.Popen[bytes]]

    def worker(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.queues.a_worker", self.url, self.name, str(self.file)]
        with self.file.with_suffix(".log").open("ab") as log:
            self.workers.append(subprocess.Popen(command, stdout=log, stderr=log))
        return self.workers[-1]

    def said(self, what: str, feed: str) -> int:
        """How often a worker said so."""
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        return sum(line.startswith(f"{what} {feed} ") for line in lines)

    @contextmanager
    def announcing(self, sweep_s: float = 0.3) -> Iterator[threading.Event]:
        woken = threading.Event()
        announcer = Announcer(self.queue, lambda: list(self.inbox), woken, sweep_s)
        try:
            yield woken
        finally:
            announcer.stop()


@pytest.fixture(params=["files", "rabbit"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    yield from made(request.param, tmp_path, request)


@pytest.fixture
def on_rabbit(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    yield from made("rabbit", tmp_path, request)


def made(kind: str, folder: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    name = f"yongtong.{request.node.name}"
    rabbit: Rabbit | None = request.getfixturevalue("rabbit") if kind == "rabbit" else None
    where = rabbit_of(rabbit.url, lambda: PASSWORD, "", name) if rabbit else folder / "queue"
    queue, look = (open_queue(make_celery(where), where) for _ in range(2))
    bench = Bench(rabbit.url if rabbit else str(where), name, folder / "said", queue, look, [], [])
    try:
        yield bench
    finally:
        for worker in bench.workers:
            worker.kill()
            worker.wait()
        queue.close()
        look.close()


def until(holds: Callable[[], Any], seconds: float = WAIT_S) -> Any:
    """What comes to hold within a while."""
    ends_s = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < ends_s, "it did not come to hold"
        time.sleep(0.02)
    return found


def test_one_task_for_each_feed_lies_unread_until_a_worker_takes_it(bench: Bench) -> None:
    """And not one for each look at an inbox in which the feed goes on waiting."""
    assert not bench.look.unread()
    bench.inbox[:] = ["a", "b"]
    with bench.announcing(0.02) as woken:
        until(bench.look.unread)
        for _ in range(10):
            woken.set()
            time.sleep(0.03)
        bench.inbox.append("c")  # of a feed that has no task there yet it is told at once
        woken.set()
        time.sleep(0.4)
    assert bench.look.unread()
    bench.worker()
    until(lambda: bench.said("done", "c"))
    assert not bench.look.unread()
    assert [bench.said("began", feed) for feed in "abc"] == [1, 1, 1]


def test_a_task_whose_worker_is_killed_in_it_is_done_by_the_next(bench: Bench) -> None:
    """RabbitMQ hands it out again, the folder has lost it; either way the inbox still says so, and a sweep comes."""
    bench.inbox[:] = ["slow"]
    first = bench.worker()
    with bench.announcing():
        until(lambda: bench.said("began", "slow"))
        first.kill()
        first.wait()
        bench.worker()
        until(lambda: bench.said("began", "slow") == 2)


def test_a_broker_that_is_killed_and_comes_back_is_found_again_and_a_queue_that_it_forgot_is_made_anew(
    on_rabbit: Bench, rabbit: Rabbit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while one queue has stood for a while, with a worker connected, and another was made this very moment:
    of that RabbitMQ 3.10 knows the name afterwards, and no member. Away, nobody who announces waits for long."""
    monkeypatch.setattr(queues, "PATIENCE_S", 0.5)
    standing, new = on_rabbit, another(on_rabbit, rabbit)
    standing.worker()
    standing.queue.put("a")
    until(lambda: standing.said("done", "a"))
    standing.queue.put("slow")
    standing.queue.put("kept")  # lies there, confirmed
    descriptors = len(os.listdir("/proc/self/fd"))
    new.queue.put("a")
    rabbit.signal(signal.SIGKILL)
    began_s = time.monotonic()
    for _ in range(20):
        with pytest.raises(Unavailable):
            standing.queue.unread()
    assert time.monotonic() - began_s < 2
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 1, "each attempt lets go of what it held"
    rabbit.start()
    assert until(lambda: reached(standing.look)), "what was confirmed is there"
    new.inbox[:] = ["a"]
    new.worker()
    with new.announcing():
        until(lambda: new.said("done", "a"))
    standing.workers[0].kill()
    standing.worker()
    until(lambda: standing.said("began", "slow") == 2)


def another(bench: Bench, rabbit: Rabbit) -> Bench:
    """A further queue, which begins to be when it is first used."""
    where = rabbit_of(rabbit.url, lambda: PASSWORD, "", f"{bench.name}-new")
    queue = open_queue(make_celery(where), where)
    return Bench(bench.url, where.queue, bench.file.with_name("new"), queue, queue, [], bench.workers)


def reached(queue: Queue) -> bool:
    try:
        return queue.unread()
    except Unavailable:
        return False


def test_a_broker_that_hangs_holds_nobody_up_for_long(
    on_rabbit: Bench, rabbit: Rabbit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As half-open connections and a machine that stands still do: it takes what is sent, and says nothing."""
    monkeypatch.setattr(queues, "PATIENCE_S", 0.5)
    monkeypatch.setattr(celery_app, "PATIENCE_S", 0.5)
    where = rabbit_of(rabbit.url, lambda: PASSWORD, "", on_rabbit.name)
    connected, fresh = (open_queue(make_celery(where), where) for _ in range(2))
    assert not connected.unread()
    rabbit.signal(signal.SIGSTOP)
    try:
        for ask in (connected.unread, fresh.unread, lambda: fresh.put("a")):
            began_s = time.monotonic()
            with pytest.raises(Unavailable):
                ask()
            assert time.monotonic() - began_s < 2
    finally:
        rabbit.signal(signal.SIGCONT)
    assert until(lambda: not reached(connected))
    connected.close()
    fresh.close()


def test_a_task_that_ends_worker_after_worker_is_dropped_in_the_end_and_swept(on_rabbit: Bench, rabbit: Rabbit) -> None:
    """The broker gives up after its limit, so that nothing turns for ever; the inbox does not give up."""
    bench = on_rabbit
    bench.queue.put("a")
    app = make_celery(rabbit_of(rabbit.url, lambda: PASSWORD, "", bench.name))
    for _ in range(DELIVERY_LIMIT + 1):
        with app.connection_for_read() as connection:
            channel = connection.channel()
            until(lambda channel=channel: channel.basic_get(bench.name))
            connection.collect()  # as a process that ended: no word, and nothing acknowledged
    with app.connection_for_read() as connection:
        channel = connection.channel()
        time.sleep(0.5)
        assert channel.basic_get(bench.name) is None
    bench.inbox[:] = ["a"]
    with bench.announcing():
        until(bench.look.unread)


@pytest.mark.parametrize("url, says", [
    ("amqps://yongtong:secret@broker.example/yt", "no password here"),
    ("amqp://yongtong@broker.example/yt", "another machine"),
    ("amqp://yongtong@localhost.broker.example/yt", "another machine"),
    ("amqps://broker.example/yt", "write files"),
    ("amqps://yongtong@broker.example:port/yt", "write amqps"),
    ("redis://yongtong@broker.example/0", "write files"),
    ("file", "write files"),
    ("amqps://yongtong@broker.example/yt?heartbeat=1", "write files"),
])  # fmt: skip
def test_an_address_that_says_too_much_or_too_little_stops_the_start(url: str, says: str) -> None:
    with pytest.raises(Misconfigured, match=says) as refused:
        rabbit_of(url, lambda: "", "ca.pem", "q")
    assert "secret" not in str(refused.value)


def test_an_address_is_taken_apart() -> None:
    found = rabbit_of("amqps://yong%40tong@broker.example/a%2Fb", lambda: "x", "ca.pem", "q")
    assert (found.host, found.port, found.vhost, found.user, found.ca) == (
        *("broker.example", 5671, "a/b", "yong@tong", "ca.pem"),
    )
    assert rabbit_of("amqp://u@127.0.0.1", lambda: "x", "ca.pem", "q").vhost == "/"
