"""25 seeded kills over both processes and every durable step: what was receipted is applied once, the log is whole."""

import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import requests

from exchange import audit
from exchange.app import opening, places, trusted
from exchange.cli.trial import Trial
from security.errors import Unavailable
from security.message import in_memory
from tests.registers import LAMPS
from tests.whole.real_bus import a_trial

SERVE_STEPS = ["evidence.sync", "journal.group", "journal.sign", "journal.keep"]
WORKER_STEPS = ["journal.group", "journal.sign", "journal.keep", "store.commit"]
# Every durable step before and after it takes effect, in each process that takes it; the rest at seeded moments.
KILLS = [
    *((role, f"{step}:{side}") for role, steps in (("http", SERVE_STEPS), ("worker", WORKER_STEPS))
      for step in steps for side in ("before", "after")),
    *(("http" if n % 2 else "worker", "") for n in range(9)),
]  # fmt: skip
ROUNDS = int(os.environ.get("YONGTONG_KILL_ROUNDS", "1"))  # `make soak` asks for more
DELIVERIES_A_KILL = 4
ROWS = 5
GRACE_S = 1.5


class TwoProcesses:
    """Doors and worker of one trial, each its own process, so that a fault can be set in one alone."""

    def __init__(self, trial: Trial, port: int) -> None:
        self._trial, self._port = trial, port
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.fallen: set[int] = set()  # processes that ended by a fault of their own
        self._ended: set[int] = set()  # processes that we ended ourselves

    def start(self, role: str, fault: str = "") -> None:
        command = [sys.executable, "-m", "exchange.cli.main", "serve", "--role", role]
        command += ["--https-port", str(self._port), "--settings", self._trial.settings.source]
        log = (self._trial.folder / f"{role}.log").open("ab")
        environment = {**os.environ, "YONGTONG_FAULT": fault}
        self._running[role] = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def dead(self, role: str) -> bool:
        process = self._running[role]
        if process.poll() is not None and process.pid not in self._ended:
            self.fallen.add(process.pid)
        return process.returncode is not None

    def kill(self, role: str) -> None:
        if not self.dead(role):
            self._ended.add(self._running[role].pid)
            self._running[role].kill()
            self._running[role].wait()

    def wait_open(self) -> None:
        """Return once the doors take connections."""
        until = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), 1).close()
                return
            except OSError:
                assert time.monotonic() < until, "the doors did not open in a minute"
                time.sleep(0.2)

    def stop(self) -> None:
        for process in self._running.values():
            process.kill()
            process.wait()


@contextmanager
def a_bus(folder: Path, state: dict[str, str] | None = None) -> Iterator[tuple[Trial, TwoProcesses]]:
    # Kill upon kill would make the feed wait longer each time, which is right, and would take this test an hour.
    trial = a_trial(folder, LAMPS, state=state, worker={"retry_first_s": 0.2, "retry_most_s": 0.5})
    trial.enrol("made-up", "Made-up bureau", "某单位")
    trial.grant("made-up", "push", "made-up-lamps")
    port = free_port()
    trial.url = f"https://127.0.0.1:{port}"
    processes = TwoProcesses(trial, port)
    try:
        yield trial, processes
    finally:
        processes.stop()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _content(number: int) -> bytes:
    rows = [f"L{number}-{row},{121.547 + number * 1e-5:.6f},{29.868 + row * 1e-4:.6f}" for row in range(ROWS)]
    return "\n".join(["编号,经度,纬度", *rows, ""]).encode()


def _push_until_receipted(trial: Trial, processes: TwoProcesses, number: int) -> bytes:
    """What a careful sender does: the same delivery again until a receipt comes. Whatever died is started again."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for role in ("http", "worker"):
            if processes.dead(role):
                processes.start(role)
        try:
            received = trial.partner("made-up").push(
                "made-up-lamps", in_memory(_content(number)), "text/csv", f"d-{number}"
            )
        except (Unavailable, requests.RequestException):
            time.sleep(0.2)
        else:
            return received.octets
    raise AssertionError(f"no receipt for d-{number} in a minute")


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_25_seeded_kills_lose_nothing_and_double_nothing(
    tmp_path: Path, engine: str, request: pytest.FixtureRequest, tell: Callable[[str], None]
) -> None:
    assert len(KILLS) == 25
    url = request.getfixturevalue("postgres").database() if engine == "postgresql" else ""
    state = {"journal": url, "store": url}
    chance = random.Random(20261122)
    receipts: dict[int, bytes] = {}
    with a_bus(tmp_path, state) as (trial, processes):
        for role, step in KILLS * ROUNDS:
            for each in ("http", "worker"):
                # The worker takes many deliveries in one step, so only its first pass is sure to come.
                passes = chance.randint(1, 3) if role == "http" else 1
                fault = f"{step}:{passes}" if each == role and step else ""
                processes.start(each, fault)
            last = chance.randrange(DELIVERIES_A_KILL)
            for place in range(DELIVERIES_A_KILL):
                receipts[len(receipts)] = _push_until_receipted(trial, processes, len(receipts))
                if not step and place == last:
                    processes.kill(role)
            _wait_until_dead_or_drained(trial, processes, role)
            processes.kill("http")
            processes.kill("worker")
        processes.start("http")
        processes.start("worker")
        processes.wait_open()
        _wait_until_dead_or_drained(trial, processes)
        partner = trial.partner("made-up")
        again = {number: partner.receipt(f"d-{number}").octets for number in receipts}
        reports = {number: partner.report(f"d-{number}").received for number in receipts}
    assert again == receipts
    told = {number: report and report.document["report"] for number, report in reports.items()}
    assert {number: report for number, report in told.items() if report is None or report["new"] != ROWS} == {}
    with closing(opening.open_store(trial.settings)) as store:
        ledger = store.ledger()
    assert (ledger.deliveries, ledger.claims, ledger.components) == (len(receipts), *([len(receipts) * ROWS] * 2))
    with places.readable_journal(trial.settings) as journal:
        verdict = audit.verify(journal, trusted.anchors_of(trial.settings))
    assert verdict.ok, json.dumps([problem.what for problem in verdict.problems], ensure_ascii=False)
    assert (verdict.receipts, verdict.reports) == (len(receipts), len(receipts))
    named = sum(bool(step) for _, step in KILLS)
    assert len(processes.fallen) == named * ROUNDS, "a named step was not passed in one of the processes"
    tell(f"{engine}: {len(KILLS) * ROUNDS} kills of doors and worker, {len(receipts)} receipts = deliveries applied")


def _drained(trial: Trial) -> bool:
    with closing(opening.open_journal(trial.settings)) as journal:
        return not journal.feeds_waiting()


def _wait_until_dead_or_drained(trial: Trial, processes: TwoProcesses, role: str | None = None) -> None:
    """A fault after the last durable step comes a moment after all is drained, so a while is given for it."""
    began = time.monotonic()
    while not (role and processes.dead(role)):
        if _drained(trial) and time.monotonic() - began > GRACE_S:
            return
        if time.monotonic() - began > 60:
            pytest.fail("neither dead nor drained in a minute")
        time.sleep(0.1)
