"""The server of journal and store is killed under load, with two workers at it: nothing lost, none doubled."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import requests

from exchange import audit
from exchange.app import opening, places, trusted
from exchange.cli.trial import Trial
from security.errors import Unavailable
from security.message import in_memory
from tests.postgres import PostgresServer
from tests.registers import LAMPS
from tests.whole.real_bus import a_trial
from tests.whole.test_kills import free_port

FEEDS = ("made-up-lamps", "made-up-posts")  # of the same places, so that the workers meet
DELIVERIES, ROWS, KILLS = 8, 5, 3
PATIENCE_S = 240.0


def content(feed: str, number: int) -> bytes:
    east, north = 121.545 + number * 2e-4, 29.866 + FEEDS.index(feed) * 1e-4
    rows = [f"{feed}-{number}-{row},{east:.6f},{north + row * 2e-4:.6f}" for row in range(ROWS)]
    return "\n".join(["编号,经度,纬度", *rows, ""]).encode()


def push_all(trial: Trial, feed: str, receipted: list[str]) -> None:
    """What a careful sender does: each delivery again until its receipt comes."""
    until = time.monotonic() + PATIENCE_S
    for number in range(DELIVERIES):
        while time.monotonic() < until:
            try:
                trial.partner("made-up").push(feed, in_memory(content(feed, number)), "text/csv", f"{feed}-{number}")
            except (Unavailable, requests.RequestException):
                time.sleep(0.2)
            else:
                receipted.append(f"{feed}-{number}")
                break


def test_a_server_killed_under_load_loses_nothing_and_doubles_nothing(
    tmp_path: Path, tell: Callable[[str], None]
) -> None:
    server, port = PostgresServer(), free_port()
    url = server.database()
    trial = a_trial(tmp_path, LAMPS, LAMPS.replace(*FEEDS), state={"journal": url, "store": url})
    trial.enrol("made-up", "Made-up bureau", "某单位")
    trial.url = f"https://127.0.0.1:{port}"
    receipted: list[str] = []
    with ExitStack() as stack:
        stack.callback(server.stop)
        for feed in FEEDS:
            trial.grant("made-up", "push", feed)
        for number, role in enumerate(("http", "worker", "worker")):
            command = [sys.executable, "-m", "exchange.cli.main", "serve", "--role", role, "--https-port", str(port)]
            log = stack.enter_context((tmp_path / f"{role}-{number}.log").open("wb"))
            process = subprocess.Popen(
                [*command, "--settings", trial.settings.source], stdout=log, stderr=log, env=os.environ
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
        senders = [threading.Thread(target=push_all, args=(trial, feed, receipted)) for feed in FEEDS]
        for sender in senders:
            sender.start()
        for kill in range(1, KILLS + 1):
            wait_for(lambda kill=kill: len(receipted) >= kill * 4)  # type: ignore[misc]
            server.kill()
            server.start()
        for sender in senders:
            sender.join()
        with closing(opening.open_journal(trial.settings)) as journal:
            wait_for(lambda: not journal.feeds_waiting())
        reports = {one: trial.partner("made-up").report(one).received for one in receipted}
        with closing(opening.open_store(trial.settings)) as store:
            ledger = store.ledger()
            changes = store.connection().execute("SELECT count(DISTINCT change_number) FROM components").fetchone()[0]
        with places.readable_journal(trial.settings) as journal:
            verdict = audit.verify(journal, trusted.anchors_of(trial.settings))
    assert len(receipted) == 2 * DELIVERIES
    told = {one: report and report.document["report"] for one, report in reports.items()}
    assert {one: said for one, said in told.items() if said is None or said.get("new") != ROWS} == {}
    assert (ledger.deliveries, ledger.claims, ledger.components, changes) == (
        len(receipted),
        *([len(receipted) * ROWS] * 3),
    )
    assert verdict.ok, [problem.what for problem in verdict.problems]
    tell(f"postgresql: killed {KILLS} times under two workers, {len(receipted)} receipts = deliveries applied")


def wait_for(true: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < until, "it did not come to that"
        time.sleep(0.1)
