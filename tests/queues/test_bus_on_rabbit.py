"""A whole bus on a RabbitMQ that is killed and away: receipts go on, and what they promise is applied once."""

import json
import os
import signal
import time
from contextlib import closing
from pathlib import Path

import pytest

from bench.rabbit import Rabbit
from exchange import audit
from exchange.app import opening, trusted
from exchange.attempts import MOST_DEATHS
from exchange.cli.trial import Trial
from scheduler.queues import PATIENCE_S
from security.message import in_memory
from tests.queues.test_queues import until
from tests.registers import LAMPS
from tests.whole.real_bus import a_trial
from tests.whole.test_kills import TwoProcesses, free_port

FEED = "made-up-lamps"


@pytest.fixture
def trial(rabbit: Rabbit, tmp_path: Path) -> Trial:
    worker = {"queue": rabbit.url, "queue_password_file": str(rabbit.folder / "password")}
    trial = a_trial(tmp_path, LAMPS, worker=worker)
    trial.enrol("made-up", "Made-up bureau", "某单位")
    trial.grant("made-up", "push", FEED)
    return trial


def content(number: int) -> bytes:
    return f"编号,经度,纬度\nL{number},{121.547 + number * 1e-5:.6f},29.868\n".encode()


def push(trial: Trial, numbers: range) -> list[float]:
    """Push each, and give how long its receipt took, seconds."""
    partner, took = trial.partner("made-up"), []
    for number in numbers:
        began_s = time.monotonic()
        partner.push(FEED, in_memory(content(number)), "text/csv", f"d-{number}")
        took.append(time.monotonic() - began_s)
    return took


def applied(trial: Trial) -> int:
    with closing(opening.open_store(trial.settings)) as store:
        return int(store.ledger().deliveries)


def test_receipts_are_given_while_the_queue_is_away_and_all_is_applied_once(trial: Trial, rabbit: Rabbit) -> None:
    """Killed under load, away for 12 deliveries, back; then the worker killed under load too."""
    with trial:
        push(trial, range(6))
        until(lambda: applied(trial) > 0)
        push(trial, range(6, 12))
        rabbit.signal(signal.SIGKILL)
        took = push(trial, range(12, 24))
        rabbit.start()
        push(trial, range(24, 28))
        until(lambda: applied(trial) == 28)
        kill_worker(trial)
        push(trial, range(28, 34))
        until(lambda: applied(trial) == 34)
    said = (trial.folder / "serve.log").read_text()
    assert said.count("queue.away") == said.count("queue.back") > 0
    assert sorted(took)[len(took) // 2] < PATIENCE_S / 2, "no receipt waits for the queue"
    assert receipts_and_claims(trial) == (34, 34)


def kill_worker(trial: Trial) -> None:
    (worker,) = children(trial.process_id)

    os.kill(worker, signal.SIGKILL)


def children(process_id: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()]


def receipts_and_claims(trial: Trial) -> tuple[int, int]:
    """How many deliveries have a receipt, and how many claims lie in the register, of a log that is whole."""
    verdict = audit.verify(trial.state, trusted.anchors_of(trial.settings))
    assert verdict.ok
    with closing(opening.open_store(trial.settings)) as store:
        return verdict.receipts, store.ledger().claims


def test_a_delivery_that_ends_every_worker_is_held_and_the_others_are_applied(trial: Trial) -> None:
    """The broker hands its task out again at each death, as does the sweep; the fifth death is the last. (The first and
    the last are died here.)"""
    processes = TwoProcesses(trial, free_port())
    trial.url = f"https://127.0.0.1:{processes._port}"
    kept = trial.state / f"act-two-{FEED}.json"
    try:
        processes.start("http")
        processes.wait_open()
        push(trial, range(3))
        for deaths in (1, MOST_DEATHS):
            processes.start("worker", "store.commit:before:1")
            until(lambda: processes.dead("worker"))
            known = json.loads(kept.read_bytes())
            assert known["1"] == deaths
            kept.write_text(json.dumps(known | {"1": MOST_DEATHS - 1}))  # those between
        kept.write_text(json.dumps(known))
        processes.start("worker")
        until(lambda: applied(trial) == 2)
        with closing(opening.open_journal(trial.settings)) as journal:
            assert until(lambda: [row.message_id for row in journal.held()]) == ["d-0"]
            until(lambda: not journal.feeds_waiting())
    finally:
        processes.stop()
