"""Who may read the metrics, and when a bus says that it can take no work."""

import shutil
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from starlette.types import ASGIApp

from exchange.http import health
from exchange.http.app import make_app
from exchange.http.health import Scrapes
from exchange.journal import Trouble
from exchange.metrics import Metrics
from exchange.tally import Tally
from tests.doors.bus import TestBus
from tests.doors.conftest import NOW, City, Running, start

__all__ = ["start"]

Start = Callable[[ASGIApp], Running]


class Served:
    def __init__(self, test: TestBus, start: Start, allowed: str) -> None:
        self.test, self.ca = test, str(test.city.ca_file)
        feeds = {"covers": SimpleNamespace(id="covers", bureau="water", sealed=False, rhythm=None)}
        tally = Tally(test.bus.journal, test.bus.folder / "tally.json", feeds, NOW)
        metrics = Metrics(test.bus, tally, [], lambda: [("place.disk", "critical")])
        self.running = start(make_app(test.bus, test.folder / "spool", Scrapes([ip_network(allowed)], metrics)))

    def get(self, path: str, cert: tuple[str, str] | None = None) -> requests.Response:
        return requests.get(f"https://localhost:{self.running.port}{path}", verify=self.ca, cert=cert, timeout=5)


@pytest.fixture
def test(tmp_path: Path, city: City) -> Iterator[TestBus]:
    made = TestBus(tmp_path, city)
    made.bureau("water")
    yield made
    made.bus.close()


def test_only_addresses_that_are_named_read_the_metrics(test: TestBus, start: Start) -> None:
    served = Served(test, start, "127.0.0.0/8")
    answer = served.get("/metrics")
    assert answer.status_code == 200
    # A part that cannot be told hides no other: this test's registry lists certificates in another shape.
    assert 'yongtong_untold{what="log"} 0.0' in answer.text
    assert 'yongtong_untold{what="certificates"} 1.0' in answer.text
    assert 'yongtong_alarms{code="place.disk",severity="critical"} 1.0' in answer.text


def test_anybody_else_is_refused_and_audited_as_by_every_door(test: TestBus, start: Start) -> None:
    served = Served(test, start, "10.0.0.0/8")
    stranger = served.get("/metrics")
    assert (stranger.status_code, stranger.json()["refusal"]["code"]) == (403, "auth.refused")
    assert "yongtong_" not in stranger.text
    connection = (str(test.city.folder / "water.pem"), str(test.city.folder / "water.key"))
    known = served.get("/metrics", cert=connection)
    assert (known.status_code, known.json()["refusal"]["code"]) == (403, "auth.address_not_named")
    assert [outcome for outcome, _ in test.entries("refusal")] == ["auth.address_not_named"]
    forged = requests.get(
        f"https://localhost:{served.running.port}/metrics",
        headers={"x-forwarded-for": "10.0.0.1", "forwarded": "for=10.0.0.1"},
        verify=served.ca,
        timeout=5,
    )
    assert forged.status_code == 403


def ready(served: Served) -> tuple[int, str]:
    answer = served.get("/health/ready")
    return answer.status_code, answer.text.strip()


def test_it_is_ready_and_lives(test: TestBus, start: Start) -> None:
    served = Served(test, start, "10.0.0.0/8")
    assert ready(served) == (200, "ready")
    assert served.get("/health/live").text == "live\n"


def test_a_journal_that_could_not_be_written_is_not_ready_until_it_may_be_tried_again(
    test: TestBus, start: Start
) -> None:
    served, journal = Served(test, start, "10.0.0.0/8"), test.bus.journal
    journal.trouble = Trouble(time.monotonic(), broken=False)
    assert ready(served) == (503, "not ready: journal")
    journal.trouble = Trouble(time.monotonic() - health.TROUBLE_S, broken=False)
    assert ready(served) == (200, "ready")
    journal.trouble = Trouble(time.monotonic() - 10 * health.TROUBLE_S, broken=True)
    assert ready(served) == (503, "not ready: log")


def test_a_journal_that_is_gone_is_not_ready(test: TestBus, start: Start) -> None:
    served = Served(test, start, "10.0.0.0/8")
    test.bus.journal._reader.close()
    assert ready(served) == (503, "not ready: journal")


def test_a_disk_without_room_is_not_ready(test: TestBus, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    served = Served(test, start, "10.0.0.0/8")
    monkeypatch.setattr(health, "LEAST_FREE_BYTES", shutil.disk_usage(test.folder).total + 1)
    assert ready(served) == (503, "not ready: disk")
