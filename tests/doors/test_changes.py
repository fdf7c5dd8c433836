"""What changed, over SOAP and over REST: one page, one grant, and nothing of what the grant withholds."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import requests
from starlette.types import ASGIApp

from connectors.partner.partner import Partner
from connectors.transports.soap_client import Version
from exchange.http.app import make_app
from exchange.receipts import verify_receipt
from security.errors import Refusal
from tests.components.builders import a_delivery, a_row, deliver
from tests.doors.bus import TestBus
from tests.doors.conftest import City, Running


class Served:
    """A bus over HTTPS, in whose store stand four components of two classes."""

    def __init__(self, test: TestBus, running: Running) -> None:
        self.test, self.url = test, f"https://localhost:{running.port}"
        self.cases = test.bureau("cases")
        rows = [a_row(f"K{n}", n, class_code="0101" if n % 2 else "0102") for n in range(4)]
        deliver(test.bus.store, rows, a_delivery("m-1"))

    def partner(self, version: Version = "1.1") -> Partner:
        return Partner(self.cases, self.url, partial(verify_receipt, anchors=self.test.anchors), version=version)

    def get(self, path: str) -> requests.Response:
        certificate = (self.cases.file("connection.pem"), self.cases.file("connection.key"))
        return requests.get(
            f"{self.url}/api/v1{path}", cert=certificate, verify=str(self.test.city.ca_file), timeout=10
        )


@pytest.fixture
def served(start: Callable[[ASGIApp], Running], city: City, tmp_path: Path) -> Iterator[Served]:
    test = TestBus(tmp_path, city)
    running = start(make_app(test.bus, tmp_path / "spool"))
    yield Served(test, running)
    running.stop()
    test.bus.close()


@pytest.mark.parametrize("version", ["1.1", "1.2"])
def test_the_pages_over_soap_go_on_from_next(served: Served, version: Version) -> None:
    served.test.registry.grant("cases", "pull", "changes")
    first = served.partner(version).changes(limit=3, purpose="p")
    assert [(one.key, one.change_number, one.kind) for one in first.changes] == [(n, n, "new") for n in (1, 2, 3)]
    assert first.changes[0].component == "3302030102000001"
    second = served.partner(version).changes(first.next, purpose="p")
    assert ([one.key for one in second.changes], second.next) == ([4], 4)
    last = served.partner(version).changes(second.next, purpose="p")
    assert (last.changes, last.next) == ((), 4)


def test_rest_says_the_same(served: Served) -> None:
    served.test.registry.grant("cases", "pull", "changes")
    answer = served.get("/changes?after=2&limit=1").json()
    assert answer["changes"] == [{"component": "3302030102000002", "key": 3, "change_number": 3, "kind": "new"}]
    assert (answer["next"], answer["signed_request"], answer["recipient"]) == (3, False, "cases")
    assert [one["key"] for one in served.get("/changes").json()["changes"]] == [1, 2, 3, 4]


def test_a_narrow_grant_hears_of_its_classes_and_of_nothing_else(served: Served) -> None:
    served.test.registry.grant("cases", "pull", "changes", ["CJ/T 214-2007:0101"])
    page = served.partner().changes(limit=1, purpose="p")
    assert ([one.key for one in page.changes], page.next) == ([2], 2)
    rest = served.get("/changes?after=2").json()
    assert ([one["key"] for one in rest["changes"]], rest["next"]) == ([4], 4)
    deliver(served.test.bus.store, [a_row("K9", 9, class_code="0102")], a_delivery("m-2"))
    page = served.partner().changes(4, purpose="p")
    assert (page.changes, page.next) == ((), 4)


def test_another_views_grant_does_not_open_the_changes(served: Served) -> None:
    for view in ("components", "ownership", "deliveries"):
        served.test.registry.grant("cases", "pull", view)
    served.test.registry.grant("cases", "subscribe", "changes")
    with pytest.raises(Refusal, match=r"auth\.no_grant"):
        served.partner().changes(purpose="p")
    assert served.get("/changes").json()["refusal"]["code"] == "auth.no_grant"


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "after=-1", "after=1e3", "since=1", "after=1&after=2"]
)
def test_a_cursor_or_limit_out_of_bounds_is_refused(served: Served, query: str) -> None:
    served.test.registry.grant("cases", "pull", "changes")
    response = served.get(f"/changes?{query}")
    assert (response.status_code, response.json()["refusal"]["code"]) == (400, "http.parameter")


@pytest.mark.parametrize("after, limit", [(-1, 1), (10**15, 1), (0, 1001)])
def test_the_contract_bounds_both_over_soap(served: Served, after: int, limit: int) -> None:
    served.test.registry.grant("cases", "pull", "changes")
    with pytest.raises(Refusal, match=r"soap\.schema_invalid"):
        served.partner().changes(after, limit=limit, purpose="p")
