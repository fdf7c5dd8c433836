"""Whose is it, over SOAP and over REST: one answer, one grant, one day."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests
from starlette.types import ASGIApp

from connectors.partner.partner import Partner
from connectors.transports.soap_client import Version
from exchange.http import reads
from exchange.http.app import make_app
from exchange.ownership import Claim, Component, Disputes, NearAnswer, OwnershipAnswer, RoleAnswer, Unit
from exchange.receipts import verify_receipt
from exchange.store.frames import Tie
from exchange.store.sqlite import Store
from security.errors import Refusal
from security.message import in_memory
from tests.doors.bus import TestBus
from tests.doors.conftest import City, Running

COMPONENT = Component(7, "3302030102000007", "0102", "雨水井盖", None, 121.55, 29.87, 0.25, "330203", None, 41)
DRAINAGE = Unit("D1", "排水公司", "stated")
CLAIM = Claim(
    bureau="water",
    feed="covers",
    source_key="YS-7",
    sender="water",
    message_id="m-1",
    record=6,
    entry=12,
    evidence_class="signed",
    valid_from=datetime(2026, 11, 1, tzinfo=UTC),
    valid_to=None,
    recorded_at=datetime(2026, 11, 2, 3, 4, 5, 678901, tzinfo=UTC),
    class_code="0102",
    longitude_deg=121.55,
    latitude_deg=29.87,
    accuracy_m=0.25,
    join_distance_m=None,
    name="雨水井盖",
    state=None,
    authority=None,
    owner=DRAINAGE,
    maintainer=Unit(None, "养护所", "default"),
    attributes={"place": "望江路", "initial_date": "2012-05-01"},
)
ROLES = (
    RoleAnswer("authority", "unknown", ()),
    RoleAnswer("owner", "stated", (DRAINAGE,)),
    RoleAnswer("maintainer", "defaulted", (Unit(None, "养护所", "default"),)),
)


def ownership(store: Store, key: str, on: date | None = None) -> OwnershipAnswer:
    if key not in ("7", "3302030102000007"):
        raise Refusal("component.unknown", key)
    return OwnershipAnswer(COMPONENT, on, "role unknown", ROLES, (CLAIM,))


def component(store: Store, key: str) -> Component:
    return ownership(store, key).component


def nearest(store: Store, *place: Any) -> tuple[NearAnswer, ...]:
    return (NearAnswer(3.25, ownership(store, "7", place[-1])),)


def disputes(store: Store, after: int, limit: int, covers: Callable[[Component], bool]) -> Disputes:
    answers = [ownership(store, "7")] if after < 7 and limit and covers(COMPONENT) else []
    return Disputes(tuple(answers), (TIE,))


def plain(answer: object) -> Any:
    """As JSON has it."""
    return msgspec.json.decode(msgspec.json.encode(answer))


class Served:
    def __init__(self, test: TestBus, running: Running) -> None:
        self.test, self.url = test, f"https://localhost:{running.port}"
        self.cases = test.bureau("cases")

    def partner(self, version: Version = "1.1") -> Partner:
        return Partner(self.cases, self.url, partial(verify_receipt, anchors=self.test.anchors), version=version)

    def get(self, path: str, *, as_nobody: bool = False) -> requests.Response:
        certificate = None if as_nobody else (self.cases.file("connection.pem"), self.cases.file("connection.key"))
        ca = str(self.test.city.ca_file)
        return requests.get(f"{self.url}/api/v1{path}", cert=certificate, verify=ca, timeout=10)


@pytest.fixture
def served(
    start: Callable[[ASGIApp], Running], city: City, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Served]:
    for story in (ownership, component, nearest, disputes):
        monkeypatch.setattr(reads, story.__name__, story)
    test = TestBus(tmp_path, city)
    running = start(make_app(test.bus, tmp_path / "spool"))
    yield Served(test, running)
    running.stop()
    test.bus.close()


TIE = Tie("water", "water-register", "W-7", 9, (7, 8), 0.004)


@pytest.fixture
def granted(served: Served) -> Served:
    for view in ("ownership", "components", "deliveries"):
        served.test.registry.grant("cases", "pull", view)
    return served


@pytest.mark.parametrize("version", ["1.1", "1.2"])
def test_ownership_over_soap_is_what_the_store_answers(granted: Served, version: Version) -> None:
    day = date(2026, 11, 3)
    answer = granted.partner(version).ownership("3302030102000007", day, purpose="案件处置", case_number="A-1")
    assert msgspec.to_builtins(answer) == msgspec.to_builtins(ownership(granted.test.bus.store, "7", day))


def test_component_and_nearest_over_soap_are_what_the_store_answers(granted: Served) -> None:
    partner = granted.partner()
    assert msgspec.to_builtins(partner.component("7", purpose="p")) == msgspec.to_builtins(COMPONENT)
    (near,) = partner.nearest(121.55, 29.87, 20.0, "0102", purpose="p")
    assert near.distance_m == 3.25
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
    assert served.partner().nearest(121.55, 29.87, 20.0, purpose="p") == ()
    assert served.get("/components/7/ownership").json()["refusal"]["code"] == "component.unknown"


def test_a_class_of_the_grant_is_answered(served: Served) -> None:
    served.test.registry.grant("cases", "pull", "ownership", ["CJ/T 214-2007:0102"])
    assert served.partner().ownership("7", purpose="p").component.key == 7


def test_rest_says_the_same_and_that_nobody_signed(granted: Served) -> None:
    response = granted.get("/components/3302030102000007/ownership?on=2026-11-03")
    assert response.status_code == 200
    answer = response.json()
    assert answer["signed_request"] is False
    assert response.headers["yongtong-signed-request"] == "false"
    assert answer["recipient"] == "cases"
    assert answer["ownership"] == plain(ownership(granted.test.bus.store, "7", date(2026, 11, 3)))
    assert granted.get("/components/7").json()["component"]["name"] == "雨水井盖"
    open_ = granted.get("/disputes?after=6&limit=5").json()["disputes"]
    assert open_ == plain(Disputes((ownership(granted.test.bus.store, "7"),), (TIE,)))
    assert granted.get("/disputes?after=7").json()["disputes"]["owners"] == []
    assert granted.get("/disputes?limit=501").json()["refusal"]["code"] == "http.parameter"
    assert (
        granted.get("/components/near?lon=121.55&lat=29.87&radius_m=20&class=0102").json()["near"][0]["distance_m"]
        == 3.25
    )


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
