"""Whose is it, over SOAP and over REST: one answer, one grant, one day."""

import time
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests
from starlette.types import ASGIApp

from connectors.partner.partner import Partner
from connectors.transports.soap_client import Version
from exchange.http.app import make_app
from exchange.ownership import Disputes, component, nearest, ownership
from exchange.receipts import verify_receipt
from exchange.store.store import Store
from security.errors import Refusal
from security.message import in_memory
from tests.components.builders import CENSUS, a_delivery, a_row, deliver
from tests.doors.bus import TestBus
from tests.doors.conftest import City, Running

HERE = 121.5416, 29.865


def plain(answer: object) -> Any:
    """As JSON has it."""
    return msgspec.json.decode(msgspec.json.encode(answer))


class Served:
    def __init__(self, test: TestBus, running: Running) -> None:
        self.test, self.url = test, f"https://localhost:{running.port}"
        self.cases = test.bureau("cases")
        rows = [a_row(f"YS-{n}", n, class_code="0102", name="雨水井盖", owner_name="排水公司") for n in range(7)]
        deliver(test.bus.store, rows, a_delivery("m-1"))
        listed = [a_row("C-7", 6, class_code="0102", owner_name="城管局")]
        deliver(test.bus.store, listed, a_delivery("m-2", sender="urban-management"), feed=CENSUS)

    @property
    def store(self) -> Store:
        return self.test.bus.store

    def partner(self, version: Version = "1.1") -> Partner:
        return Partner(self.cases, self.url, partial(verify_receipt, anchors=self.test.anchors), version=version)

    def get(self, path: str, *, as_nobody: bool = False) -> requests.Response:
        certificate = None if as_nobody else (self.cases.file("connection.pem"), self.cases.file("connection.key"))
        ca = str(self.test.city.ca_file)
        return requests.get(f"{self.url}/api/v1{path}", cert=certificate, verify=ca, timeout=10)


@pytest.fixture
def served(start: Callable[[ASGIApp], Running], city: City, tmp_path: Path) -> Iterator[Served]:
    test = TestBus(tmp_path, city)
    running = start(make_app(test.bus, tmp_path / "spool"))
    yield Served(test, running)
    running.stop()
    test.bus.close()


@pytest.fixture
def granted(served: Served) -> Served:
    for view in ("ownership", "components", "deliveries"):
        served.test.registry.grant("cases", "pull", view)
    return served


@pytest.mark.parametrize("version", ["1.1", "1.2"])
def test_ownership_over_soap_is_what_the_store_answers(granted: Served, version: Version) -> None:
    day = date(2026, 11, 3)
    answer = granted.partner(version).ownership("3302030102000007", day, purpose="案件处置", case_number="A-1")
    assert msgspec.to_builtins(answer) == msgspec.to_builtins(ownership(granted.store, "7", day))


def test_component_and_nearest_over_soap_are_what_the_store_answers(granted: Served) -> None:
    partner = granted.partner()
    assert msgspec.to_builtins(partner.component("7", purpose="p")) == msgspec.to_builtins(
        component(granted.store, "7")
    )
    (near,) = partner.nearest(*HERE, 2.0, "0102", purpose="p")
    assert near.distance_m == nearest(granted.store, *HERE, 2.0)[0].distance_m
    assert near.ownership.component.identifier == "3302030102000007"


def test_each_read_is_an_entry_with_its_purpose_and_case(granted: Served) -> None:
    granted.partner().ownership("7", purpose="案件处置", case_number="A-1")
    granted.get("/components/7/ownership?purpose=inspection")
    until = time.monotonic() + 5
    while len(granted.test.entries("read")) < 2 and time.monotonic() < until:
        time.sleep(0.05)  # a read is sequenced within a second; the answer did not wait for it
    details = [detail for _, detail in granted.test.entries("read")]
    assert {detail["purpose"] for detail in details} == {"案件处置", "inspection"}
    assert any(detail.get("case_number") == "A-1" for detail in details)


def test_a_read_without_a_grant_is_refused(served: Served) -> None:
    with pytest.raises(Refusal, match=r"auth\.no_grant"):
        served.partner().ownership("7", purpose="p")
    assert served.get("/components/7/ownership").status_code == 403


def test_a_narrow_grant_does_not_tell_which_numbers_exist(served: Served) -> None:
    served.test.registry.grant("cases", "pull", "ownership", ["CJ/T 214-2007:0601"])
    with pytest.raises(Refusal, match=r"component\.unknown"):
        served.partner().ownership("7", purpose="p")
    with pytest.raises(Refusal, match=r"component\.unknown"):
        served.partner().ownership("8", purpose="p")
    assert served.partner().nearest(*HERE, 20.0, purpose="p") == ()
    assert served.get("/components/7/ownership").json()["refusal"]["code"] == "component.unknown"


def test_a_class_of_the_grant_is_answered(served: Served) -> None:
    served.test.registry.grant("cases", "pull", "ownership", ["CJ/T 214-2007:0102"])
    assert served.partner().ownership("7", purpose="p").component.key == 7


def test_the_nearest_are_counted_once_what_is_withheld_is_gone(served: Served) -> None:
    others = [a_row(f"X-{n}", 6, class_code="0101", y=29.865 + n * 1e-6) for n in range(1, 25)]
    deliver(served.store, others, a_delivery("m-3"))
    served.test.registry.grant("cases", "pull", "ownership", ["CJ/T 214-2007:0102"])
    near = served.partner().nearest(*HERE, 80.0, purpose="p")
    assert [one.ownership.component.key for one in near] == [7, 6, 5, 4, 3, 2, 1]


def test_rest_says_the_same_and_that_nobody_signed(granted: Served) -> None:
    response = granted.get("/components/3302030102000007/ownership?on=2026-11-03")
    assert response.status_code == 200
    answer = response.json()
    assert answer["signed_request"] is False
    assert response.headers["yongtong-signed-request"] == "false"
    assert answer["recipient"] == "cases"
    assert answer["ownership"] == plain(ownership(granted.store, "7", date(2026, 11, 3)))
    assert granted.get("/components/7").json()["component"]["name"] == "雨水井盖"
    open_ = granted.get("/disputes?after=6&limit=5").json()["disputes"]
    assert open_ == plain(Disputes((ownership(granted.store, "7"),), ()))
    assert granted.get("/disputes?after=7").json()["disputes"]["owners"] == []
    assert granted.get("/disputes?limit=501").json()["refusal"]["code"] == "http.parameter"
    near = granted.get(f"/components/near?lon={HERE[0]}&lat={HERE[1]}&radius_m=2&class=0102").json()["near"]
    assert near == [{"distance_m": 0.0, "ownership": plain(ownership(granted.store, "7"))}]


@pytest.mark.parametrize(
    "path, status, code",
    [
        ("/components/8", 404, "component.unknown"),
        ("/components/7/ownership?on=yesterday", 400, "http.parameter"),
        ("/components/7/ownership?day=2026-11-03", 400, "http.parameter"),
        ("/components/7/ownership?on=2026-11-03&on=2026-11-04", 400, "http.parameter"),
        ("/components/abc", 400, "http.parameter"),
        ("/components/near?lon=121", 400, "http.parameter"),
        ("/components/near?lon=nan&lat=1&radius_m=1", 400, "http.parameter"),
        ("/components/near?lon=121&lat=1&radius_m=501", 400, "http.parameter"),
        ("/deliveries/none/receipt", 404, "delivery.unknown"),
        ("/deliveries/none/report", 404, "delivery.unknown"),
        ("/audit/consistency?from=0&to=1", 400, "audit.no_such_size"),
        ("/audit/consistency?from=1&to=99999", 400, "audit.no_such_size"),
        ("/audit/inclusion?index=5&size=5", 400, "audit.no_such_size"),
        ("/audit/inclusion?index=-1&size=5", 400, "http.parameter"),
    ],
)
def test_a_rest_refusal_is_named_in_two_languages(granted: Served, path: str, status: int, code: str) -> None:
    response = granted.get(path)
    refusal = response.json()["refusal"]
    assert (response.status_code, refusal["code"]) == (status, code)
    assert all(refusal[name] for name in ("zh", "en", "next_zh", "next_en", "reference"))


def test_a_stranger_over_rest_hears_only_that_it_is_refused(granted: Served) -> None:
    for path in ("/components/7", "/components/8", "/components/7/ownership?on=x"):
        response = granted.get(path, as_nobody=True)
        refusal = response.json()["refusal"]
        assert (response.status_code, refusal["code"], refusal["detail"]) == (403, "auth.refused", "")
        assert refusal["reference"]


def test_the_receipt_is_the_same_bytes_at_both_doors(granted: Served) -> None:
    granted.test.registry.grant("cases", "push", "covers")
    object.__setattr__(granted.test.bus.feeds["covers"], "bureau", "cases")
    received = granted.partner().push("covers", in_memory(b"id\n1\n"), "text/csv", "m-1")
    assert granted.get("/deliveries/m-1/receipt").content == received.octets
    assert granted.get("/deliveries/m-1/report").json()["refusal"]["code"] == "report.not_ready"
    checkpoint = granted.get("/audit/checkpoint").text
    size = int(checkpoint.split("\n")[1])
    nodes = granted.get(f"/audit/inclusion?index=0&size={size}").json()["nodes"]
    assert [bytes.fromhex(node) for node in nodes] == list(granted.test.bus.journal.inclusion(0, size))


def test_machines_can_ask_whether_it_lives_and_is_ready(served: Served) -> None:
    ca = str(served.test.city.ca_file)
    for path in ("/health/live", "/health/ready", "/api/openapi.json"):
        assert requests.get(served.url + path, verify=ca, timeout=5).status_code == 200
