"""A disk that is full, and what a crash left on it."""

import errno
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from exchange.processing import process
from scheduler.celery_app import make_celery
from scheduler.jobs import Announcer
from scheduler.queues import open_queue
from security.errors import Unavailable
from tests.acts.bench_of_one import FEED, Acts, both_acts, covers


@pytest.fixture
def acts(tmp_path: Path) -> Iterator[Acts]:
    with both_acts(tmp_path) as acts:
        acts.trial.grant("made-up", "push", FEED)
        yield acts


@pytest.mark.parametrize(
    "count, step",
    [(3, "pwrite"), (3, "fsync"), (2000, "open"), (2000, "fsync"), (5000, "open")],
    ids=["in a segment", "syncing a segment", "in a file", "syncing a file", "beside the event loop"],
)
def test_a_sender_is_asked_to_wait_while_the_disk_is_full(
    acts: Acts, count: int, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    delivery = acts.delivery("m-1", covers("A", count))
    with monkeypatch.context() as patched:
        if step == "open":
            patched.setattr(Path, "open", full)
        else:
            patched.setattr(f"exchange.evidence_folder.os.{step}", full)
        with pytest.raises(Unavailable):
            acts.receive(delivery)
    assert acts.bus.journal.inbox("made-up", "m-1") is None
    assert not acts.receive(delivery).repeated
    assert process(FEED, acts.bus) == 1


def test_announcing_goes_on_after_a_full_disk(tmp_path: Path) -> None:
    looks = []

    def waiting() -> list[str]:
        looks.append(1)
        if len(looks) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return []

    announcer = Announcer(open_queue(make_celery(tmp_path), tmp_path), waiting, threading.Event(), 0.01)
    until = time.monotonic() + 5
    while len(looks) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    announcer.stop()
    assert len(looks) > 1


def test_evidence_without_a_delivery_is_swept_at_the_start(acts: Acts) -> None:
    kept = acts.evidence(acts.push("m-1", covers("A")))
    acts.push("m-2", covers("B", 2000))
    orphan = kept.with_name("payload-18ea5adb98c25cb3-00000000")
    orphan.write_bytes(b"what a crash left")
    young = kept.with_name("payload-18ea5adb98c25cb3-00000001")
    young.write_bytes(b"perhaps being written")
    long_ago = time.time() - 7200
    for path in (orphan, kept):
        os.utime(path, (long_ago, long_ago))
    acts.trial.start()
    try:
        assert (kept.exists(), young.exists(), orphan.exists()) == (True, True, False)
    finally:
        acts.trial.stop()
