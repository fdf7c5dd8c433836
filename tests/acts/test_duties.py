"""A duty on the event loop goes on, whatever trips it once; and a report is laid out beside the loop."""

import asyncio
import logging
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest

from exchange.app import duties
from exchange.app.saving import PUT_BACK, _small_files
from exchange.database import SqliteFile
from exchange.journal import InboxRow
from exchange.processing import process
from exchange.reports_out import ReportPush
from security.message import BROKER
from tests.acts.bench_of_one import FEED, both_acts, covers


def test_a_duty_that_trips_is_told_and_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(duties, "DUTY_LOOK_S", 0.0)
    begun: list[int] = []

    async def run() -> None:
        begun.append(1)
        if len(begun) < 3:
            raise ZeroDivisionError("what a bureau wrote")
        await asyncio.Event().wait()

    async def for_a_while() -> None:
        duty = asyncio.create_task(duties.on_loop(SqliteFile(tmp_path, "journal"), "some", run))
        while len(begun) < 3:
            await asyncio.sleep(0.01)
        duty.cancel()

    with caplog.at_level(logging.ERROR, "yongtong.app"):
        asyncio.run(asyncio.wait_for(for_a_while(), 10.0))
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert all("duty.failed task=some at=ZeroDivisionError" in line and "bureau wrote" not in line for line in told)


def test_a_report_is_laid_out_beside_the_loop_for_its_disk_may_hang(tmp_path: Path) -> None:
    with both_acts(tmp_path) as acts:
        acts.trial.grant("made-up", "push", FEED)
        acts.receive(acts.by_broker("m-1", covers("A")))
        process(FEED, acts.bus)
        threads: list[threading.Thread] = []

        def push(row: InboxRow, report: bytes) -> "Future[None]":
            threads.append(threading.current_thread())
            done: Future[None] = Future()
            done.set_result(None)
            return done

        asyncio.run(ReportPush(acts.bus.journal, BROKER, acts.bus.folder / "pushed", push)._push_some())
        assert threads
        assert threading.main_thread() not in threads


def test_how_far_reports_went_out_by_either_way_is_backed_up_and_put_back(tmp_path: Path) -> None:
    ways = ["reports-laid-out", "reports-pushed"]
    for name in ways:
        (tmp_path / name).write_text("7")
    assert _small_files(tmp_path) == ways
    assert {*ways} <= {*PUT_BACK}
