"""What leaves as a list: after the grant, page by page, as a file that is whole or not there."""

import csv
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
from starlette.types import ASGIApp

from connectors.partner import listing
from connectors.partner.partner import Partner
from exchange import ownership
from exchange.bus import Limits
from exchange.cli.main import main
from exchange.http.app import make_app
from exchange.http.rest import RestDoor
from exchange.receipts import verify_receipt
from security.errors import Refusal
from security.message import Area
from tests.components.builders import EAST, WEST, a_delivery, a_row, deliver
from tests.doors.bus import TestBus
from tests.doors.conftest import City, Running

FAR = 0.0102  # degrees to the east: in the other district, and twelve cells away


class Served:
    """A bus over HTTPS in whose store stand six covers in the west, three of each class, and two in the east."""

    def __init__(self, test: TestBus, running: Running) -> None:
        self.test, self.url = test, f"https://localhost:{running.port}"
        self.cases = test.bureau("cases")
        rows = [a_row(f"A{n}", n, class_code="0101" if n % 2 else "0102", name=f"盖{n}") for n in range(6)]
        rows += [a_row(f"B{n}", n, x=121.541 + FAR + n * 1e-4, name="=1+1", state="破损") for n in range(2)]
        deliver(test.bus.store, rows, a_delivery("m-1"))

    def partner(self) -> Partner:
        return Partner(self.cases, self.url, partial(verify_receipt, anchors=self.test.anchors))

    def get(self, path: str) -> Any:
        certificate = (self.cases.file("connection.pem"), self.cases.file("connection.key"))
        ca = str(self.test.city.ca_file)
        return requests.get(f"{self.url}/api/v1{path}", cert=certificate, verify=ca, timeout=10).json()

    def keys(self, query: str = "") -> list[int]:
        return [one["key"] for one in self.get(f"/components?{query}")["components"]]

    def export(self, file: Path, *options: str) -> int:
        partners = str(self.cases.path.parent)
        return main(["export", str(file), *options, "--as", "cases", "--partners", partners, "--url", self.url])


@pytest.fixture
def served(start: Callable[[ASGIApp], Running], city: City, tmp_path: Path) -> Iterator[Served]:
    test = TestBus(tmp_path, city, Limits(map_area_km2=0.05))
    running = start(make_app(test.bus, tmp_path / "spool"))
    yield Served(test, running)
    running.stop()
    test.bus.close()


def rows_of(file: Path) -> list[dict[str, str]]:
    assert file.read_bytes().startswith(b"\xef\xbb\xbfidentifier,key,class_code,name,state,longitude_deg,")
    with file.open(encoding="utf-8-sig", newline="") as text:
        return list(csv.DictReader(text))


def test_pages_are_in_order_of_number_and_say_what_a_component_is(served: Served) -> None:
    served.test.registry.grant("cases", "pull", "components")
    first = served.get("/components?limit=3")
    assert ([one["key"] for one in first["components"]], first["next"]) == ([1, 2, 3], 3)
    second = served.get("/components?after=3&limit=9")
    assert ([one["key"] for one in second["components"]], second["next"]) == ([4, 5, 6, 7, 8], 8)
    last = served.get("/components?after=8")
    assert (last["components"], last["next"]) == ([], 8)
    assert first["components"][1] == served.get("/components/2")["component"]


def test_a_page_is_of_the_class_and_state_asked_for(served: Served) -> None:
    served.test.registry.grant("cases", "pull", "components")
    assert served.keys("class=0102") == [1, 3, 5]
    assert served.keys("class=01") == []
    assert served.keys("state=破损") == [7, 8]
    assert served.get("/components?owner=x")["refusal"]["code"] == "http.parameter"


def test_what_a_grant_withholds_is_gone_before_pages_are_counted(served: Served) -> None:
    served.test.registry.grant("cases", "pull", "components", ["0101"], area=Area(districts=(WEST,)))
    page = served.get("/components?limit=2")
    assert ([one["key"] for one in page["components"]], page["next"]) == ([2, 4], 4)


def test_a_masked_attribute_is_neither_seen_nor_asked_by(served: Served) -> None:
    grant = served.test.registry.grant("cases", "pull", "components", attributes=("name",))
    (seen, *_) = served.get("/components")["components"]
    assert (seen["name"], seen["state"]) == ("盖0", None)
    assert served.get("/components/1")["component"] == seen
    refusal = served.get("/components?state=破损")["refusal"]
    assert refusal["code"] == "grant.attribute_masked"
    needs = f"needs: pull components state; held: {grant.id} until 2099-12-31"
    assert refusal["detail"] == needs


def test_a_map_larger_than_the_limit_leaves_by_no_page_without_a_grant_that_names_it(served: Served) -> None:
    line = [a_row(f"L{n}", n, y=29.8665, x=121.5415 + n * 1e-3) for n in range(8)]
    deliver(served.test.bus.store, line, a_delivery("m-2"))
    narrow = served.test.registry.grant("cases", "pull", "components")
    for query in ("", "after=9999", "limit=1", "class=0101"):
        refusal = served.get(f"/components?{query}")["refusal"]
        assert refusal["code"] == "export.area_too_large"
        assert "> 0.05 km²; needs: pull components, map area 1 km²" in refusal["detail"]
    assert served.keys("class=0102") == [1, 3, 5]
    served.test.registry.granted.remove(narrow)
    served.test.registry.grant("cases", "pull", "components", map_area_km2=1)
    assert len(served.keys()) == 16


def test_an_export_is_one_file_of_all_pages_for_spreadsheets(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(listing, "AT_ONCE", 3)
    served.test.registry.grant("cases", "pull", "components")
    file = tmp_path / "all.csv"
    assert served.export(file, "--json") == 0
    told = capsys.readouterr()
    assert json.loads(told.out) == {"export": {"file": str(file), "components": 8, "pages": 3}}
    assert "8 components" in told.err
    rows = rows_of(file)
    assert [row["identifier"] for row in rows[:2]] == ["3302030102000001", "3302030101000001"]
    assert rows[7]["name"] == "'=1+1", "no cell is taken for a formula"
    assert float(rows[7]["longitude_deg"]) == ownership.component(served.test.bus.store, "8").longitude_deg
    assert list(tmp_path.glob(".*.part")) == []
    assert served.export(file, "--class", "0102") == 0
    assert len(rows_of(file)) == 3


def test_an_export_that_is_refused_leaves_no_file_and_keeps_the_old_one(served: Served, tmp_path: Path) -> None:
    file = tmp_path / "all.csv"
    assert served.export(file) == 1
    assert not file.exists()
    served.test.registry.grant("cases", "pull", "components")
    assert served.export(file) == 0
    before = file.read_bytes()
    served.test.registry.granted.clear()
    assert served.export(file) == 1
    assert file.read_bytes() == before
    assert list(tmp_path.glob(".*.part")) == []


def test_a_grant_that_ends_between_two_pages_ends_the_export(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "AT_ONCE", 3)
    served.test.registry.grant("cases", "pull", "components")
    pages = served.partner().components(purpose="p")
    assert len(next(pages)) == 3
    served.test.registry.granted.clear()
    with pytest.raises(Refusal, match=r"auth\.no_grant"):
        next(pages)


def test_every_address_is_described(served: Served) -> None:
    ca = str(served.test.city.ca_file)
    described = requests.get(f"{served.url}/api/openapi.json", verify=ca, timeout=10).json()["paths"]
    addresses = {route.path.removeprefix("/api/v1") for route in RestDoor(served.test.bus).routes()}
    pushed_to = {"/deliveries", "/audit/cosignatures", "/cascade/heads"}  # doors of their own
    assert {address.replace("{key}", "{id}") for address in addresses} | pushed_to == set(described)
    asked = {one["name"] for one in described["/components"]["get"]["parameters"]}
    assert asked == {"after", "limit", "class", "state", "purpose", "case_number"}


def test_another_districts_components_are_another_export(served: Served, tmp_path: Path) -> None:
    served.test.registry.grant("cases", "pull", "components", area=Area(districts=(EAST,)))
    assert served.export(tmp_path / "east.csv") == 0
    assert [row["key"] for row in rows_of(tmp_path / "east.csv")] == ["7", "8"]
