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
NAMED = {
    role: [f"{step}:{side}" for step in steps for side in ("before", "after")]
    for role, steps in (("http", SERVE_STEPS), ("worker", WORKER_STEPS))
}
SEEDED = ["http" if n % 2 else "worker" for n in range(9)]
KILLS = sum(map(len, NAMED.values())) + len(SEEDED)
ROUNDS = int(os.environ.get("YONGTONG_KILL_ROUNDS", "1"))  # `make soak` asks for more
DELIVERIES_A_KILL = 4
ROWS = 5


class TwoProcesses:
    """Doors and worker of one trial, each its own process, so that a fault can be set in one alone."""

    def __init__(self, trial: Trial, port: int) -> None:
        self._trial, self._port = trial, port
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._fault: dict[str, str] = {}
        # Processes that ended by themselves: role and fault of each. Their numbers come round in a long run.
        self.fallen: list[tuple[str, str]] = []
        self._ended: set[str] = set()  # roles whose process is known to have ended

    def start(self, role: str, fault: str = "") -> None:
        command = [sys.executable, "-m", "exchange.cli.main", "serve", "--role", role]
        command += ["--https-port", str(self._port), "--settings", self._trial.settings.source]
        log = (self._trial.folder / f"{role}.log").open("ab")
        environment = {**os.environ, "YONGTONG_FAULT": fault}
        self._running[role] = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        self._fault[role] = fault
        self._ended.discard(role)

    def dead(self, role: str) -> bool:
        process = self._running[role]
        if process.poll() is not None and role not in self._ended:
            self._ended.add(role)
            self.fallen.append((role, self._fault[role]))
        return process.returncode is not None

    def kill(self, role: str) -> None:
        if not self.dead(role):
            self._ended.add(role)
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
    """Rows a metre or more apart, within the city for some thousands of deliveries."""
    east, north = 121.545 + number % 1_000 * 1e-5, 29.866 + number // 1_000 * 1e-3
    rows = [f"L{number}-{row},{east:.6f},{north + row * 1e-4:.6f}" for row in range(ROWS)]
    return "\n".join(["编号,经度,纬度", *rows, ""]).encode()


class _Run:
    """A run of kills: one process falls while the other works on, and starts again with the next fault of its role."""

    def __init__(self, trial: Trial, processes: TwoProcesses, faults: dict[str, list[str]]) -> None:
        self._trial, self._processes = trial, processes
        self._faults = {role: iter(of_role) for role, of_role in faults.items()}
        self.receipts: dict[int, bytes] = {}
        for role in self._faults:
            self._start(role)

    def push(self) -> None:
        """What a careful sender does: the same delivery again until a receipt comes."""
        number, until = len(self.receipts), time.monotonic() + 60
        while time.monotonic() < until:
            self._start_the_dead()
            partner = self._trial.partner("made-up")
            try:
                received = partner.push("made-up-lamps", in_memory(_content(number)), "text/csv", f"d-{number}")
            except (Unavailable, requests.RequestException):
                time.sleep(0.1)
            else:
                self.receipts[number] = received.octets
                return
        raise AssertionError(f"no receipt for d-{number} in a minute")

    def wait_worker_fallen(self, count: int) -> None:
        """Until so many workers fell: one that has a fault cannot drain what waits."""
        self._wait(
            lambda: sum(role == "worker" for role, _ in self._processes.fallen) >= count,
            f"{count} workers did not fall",
        )

    def wait_drained(self) -> None:
        """Until nothing waits for the worker, which then works."""
        self._wait(lambda: _drained(self._trial), "not drained")

    def _wait(self, awaited: Callable[[], bool], otherwise: str) -> None:
        until = time.monotonic() + 60
        self._start_the_dead()
        while not awaited():
            assert time.monotonic() < until, (
                f"{otherwise} in a minute; fallen: {len(self._processes.fallen)}, last {self._processes.fallen[-4:]}"
            )
            time.sleep(0.1)
            self._start_the_dead()

    def _start_the_dead(self) -> None:
        for role in self._faults:
            if self._processes.dead(role):
                self._start(role)

    def _start(self, role: str) -> None:
        self._processes.start(role, next(self._faults[role], ""))


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_25_seeded_kills_lose_nothing_and_double_nothing(
    tmp_path: Path, engine: str, request: pytest.FixtureRequest, tell: Callable[[str], None]
) -> None:
    assert KILLS == 25
    url = request.getfixturevalue("postgres").database() if engine == "postgresql" else ""
    state = {"journal": url, "store": url}
    chance = random.Random(20261122)
    with a_bus(tmp_path, state) as (trial, processes):
        # The worker takes many deliveries in one step, so only its first pass is sure to come.
        faults = {
            role: [f"{step}:{chance.randint(1, 3) if role == 'http' else 1}" for step in steps * ROUNDS]
            for role, steps in NAMED.items()
        }
        run = _Run(trial, processes, faults)
        for number in range(len(faults["worker"])):
            for _ in range(2 * DELIVERIES_A_KILL):  # a kill of the doors and one of the worker
                run.push()
            run.wait_worker_fallen(number + 1)
        named = sorted((role, fault) for role, of_role in faults.items() for fault in of_role)
        assert sorted(processes.fallen) == named, "a named step was not passed in one of the processes"
        for role in SEEDED * ROUNDS:
            run.wait_drained()
            last = chance.randrange(DELIVERIES_A_KILL)
            for place in range(DELIVERIES_A_KILL):
                run.push()
                if place == last:
                    processes.kill(role)
        run.wait_drained()
        processes.wait_open()
        receipts = run.receipts
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
    assert len(processes.fallen) == len(named), "a process fell that had no fault"
    tell(f"{engine}: {KILLS * ROUNDS} kills of doors and worker, {len(receipts)} receipts = deliveries applied")


def _drained(trial: Trial) -> bool:
    with closing(opening.open_journal(trial.settings)) as journal:
        return not journal.feeds_waiting()
