"""One feed's load, and one delivery's death, are not everybody's."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from exchange import attempts, processing
from exchange.processing import process
from tests.acts.bench_of_one import FEED, Acts, both_acts, covers

DYING = """
import os, signal, sys
from pathlib import Path
from exchange import processing
from exchange.app import opening
from exchange.settings import load_settings
decoded = processing._decoded
def deadly(rows, feed, bus):
    if any(row.message_id == "m-2" for row in rows):
        os.kill(os.getpid(), signal.SIGKILL)
    return decoded(rows, feed, bus)
processing._decoded = deadly
bus = opening.open_bus(load_settings(Path(sys.argv[1])))
processing.process(sys.argv[2], bus)
bus.close()
"""


@pytest.fixture
def acts(tmp_path: Path) -> Iterator[Acts]:
    with both_acts(tmp_path) as acts:
        acts.trial.grant("made-up", "push", FEED)
        yield acts


def statuses(acts: Acts) -> list[str]:
    rows = [acts.bus.journal.inbox("made-up", f"m-{number}") for number in (1, 2, 3)]
    return [row.status for row in rows if row]


def test_what_kills_the_worker_is_held_and_the_rest_goes_on(acts: Acts) -> None:
    for number in (1, 2, 3):
        acts.push(f"m-{number}", covers(f"A{number}"))
    command = [sys.executable, "-c", DYING, acts.trial.settings.source, FEED]
    for _ in range(attempts.MOST_DEATHS):
        assert subprocess.run(command, env={**os.environ, "PYTHONPATH": "."}).returncode == -signal.SIGKILL
    assert statuses(acts) == ["processed", "waiting", "waiting"], "those before it go through one by one"
    assert subprocess.run(command, env={**os.environ, "PYTHONPATH": "."}).returncode == 0
    assert statuses(acts) == ["processed", "held", "processed"]
    assert not list(acts.bus.folder.glob("act-two*"))


def test_an_error_is_no_death(acts: Acts, monkeypatch: pytest.MonkeyPatch) -> None:
    acts.push("m-1", covers("A"))
    with monkeypatch.context() as patched:
        patched.setattr(processing, "_decoded", lambda *_: (_ for _ in ()).throw(OSError("disk")))
        for _ in range(attempts.MOST_DEATHS + 1):
            with pytest.raises(OSError):
                process(FEED, acts.bus)
    assert process(FEED, acts.bus) == 1
    assert statuses(acts) == ["processed"]


def test_a_feed_that_never_rests_leaves_the_others_their_turn(acts: Acts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processing, "SLICE_S", 0.0)
    acts.trial.release("other", acts.bus.feeds[FEED].digest)
    feeds = {**acts.bus.feeds, "other": msgspec.structs.replace(acts.bus.feeds[FEED], id="other")}
    acts.trial.grant("made-up", "push", "other")
    acts = acts.with_(feeds=feeds, feed_digests={id: feed.digest for id, feed in feeds.items()}, batch_deliveries=1)
    for number in (1, 2, 3):
        acts.push(f"m-{number}", covers(f"A{number}"))
    acts.push("o-1", covers("O"), "other")
    assert process(FEED, acts.bus) == 1
    assert process("other", acts.bus) == 1
    assert process(FEED, acts.bus) == 2, "nobody else waits any more"
