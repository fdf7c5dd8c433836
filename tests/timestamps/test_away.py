"""The authority is away for 1, 4 and 24 hours: what each door does, by the clock; then a token that covers the gap."""

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests
from starlette.types import ASGIApp

from connectors.partner.partner import Partner
from connectors.transports.fetch import fetch
from connectors.transports.mqtt import Address, Arrived
from exchange.attestations import Attestations
from exchange.database import SqliteFile
from exchange.http.app import make_app
from exchange.mqtt.door import MqttDoor
from exchange.mqtt.topics import inbound
from exchange.receipts import REFUSAL, verify_receipt
from exchange.timestamp_watch import Authorities, TimestampWatch
from exchange.timestamping import Coverage, Rule, covering, stamped_octets
from security.errors import Refusal
from security.jws import open_document
from security.jws_delivery import sign_delivery
from security.message import in_memory
from tests.certificates.servers import FileServer, file_server
from tests.doors.bus import ORIGIN, TestBus
from tests.doors.conftest import City, Running, city, start  # noqa: F401  # fixtures
from tests.timestamps.authority import OpensslTsa

HOUR, SECOND, AWAY = timedelta(hours=1), timedelta(seconds=1), timedelta(hours=25)
CSV = b"id,kind\n1,0118\n"
JOSE = "application/jose+json"
OVERDUE = "timestamp.overdue"


class Wire(MqttDoor):
    """The MQTT door, with what it publishes and acknowledges written down, on no connection."""

    def __init__(self, test: TestBus) -> None:
        super().__init__(test.bus, Address("localhost", 1, ssl.create_default_context()), "_bus:t", "test", 2_000_000)
        self.said: list[bytes] = []

    def publish(self, topic: str, octets: bytes) -> "Future[None]":
        self.said.append(octets)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def take(self, octets: bytes) -> bytes:
        """What is answered to a message, once it is acknowledged."""
        arrived = Arrived(inbound("covers"), octets, 1, False, lambda: self.said.append(b"acknowledged"), "")
        asyncio.run(self._story(arrived))
        assert self.said[-1] == b"acknowledged"
        return self.said[-2]


class Days:
    """A served bus whose clock begins 25 hours ago, its timestamp authority, and what each door says now."""

    def __init__(self, test: TestBus, server: FileServer, tsa: OpensslTsa, clock: "Clock") -> None:
        self.test, self.server, self.tsa, self.clock = test, server, tsa, clock
        self.kept = Attestations(SqliteFile(test.folder, "journal"))
        self.coverage = Coverage(test.bus.journal, Attestations(SqliteFile(test.folder, "journal")), tsa.roots, Rule())
        authorities = Authorities([server.url("/")], tsa.roots, 10 * timedelta(minutes=1))
        self.watch = TimestampWatch(test.bus.journal, self.kept, self.coverage, authorities, fetch, clock)
        test.bus = msgspec.structs.replace(test.bus, coverage=self.coverage)
        self.water, self.url, self.pushed = test.bureau("water"), "", 0
        for action, target in (("push", "covers"), ("pull", "deliveries"), ("pull", "changes"), ("pull", "components")):
            test.registry.grant("water", action, target)
        test.bus.feeds["covers"].max_age = timedelta(days=7)  # type: ignore[misc]  # the fixture's feed is a namespace

    def turn(self) -> None:
        self.watch.turn(threading.Event())

    def partner(self, heard: list[datetime] | None = None) -> Partner:
        check = partial(verify_receipt, anchors=self.test.anchors)
        pending = (heard if heard is not None else []).append
        return Partner(self.water, self.url, check, self.clock, upload_above_bytes=100_000, pending=pending)

    def id(self) -> str:
        self.pushed += 1
        return f"m-{self.pushed}"

    def get(self, path: str) -> requests.Response:
        return requests.get(f"{self.url}/api/v1{path}", **self._as_water())

    def _as_water(self) -> dict[str, Any]:
        certificate = (self.water.file("connection.pem"), self.water.file("connection.key"))
        return {"cert": certificate, "verify": str(self.test.city.ca_file), "timeout": 20}

    def sealed(self) -> bytes:
        said: dict[str, Any] = {"sender": "water", "recipient": ORIGIN, "content_type": "text/csv", "feed": "covers"}
        return sign_delivery(CSV, self.water.signing, **said, signed_at=self.clock(), message_id=self.id())

    # What each push door answers: empty when it takes.

    def by_soap(self) -> str:
        return self._refusal(lambda: self.partner().push("covers", in_memory(CSV), "text/csv", self.id()))

    def by_mtom(self) -> str:
        content = in_memory(CSV + b"2,0118\n" * 10_000)
        return self._refusal(lambda: self.partner().push("covers", content, "text/csv", self.id()))

    def by_upload(self) -> str:
        content = in_memory(CSV + b"2,0118\n" * 30_000)
        return self._refusal(lambda: self.partner().push("covers", content, "text/csv", self.id()))

    def by_rest(self) -> str:
        answer = requests.post(
            f"{self.url}/api/v1/deliveries", data=self.sealed(), headers={"Content-Type": JOSE}, **self._as_water()
        )
        return self._said(answer.content) if answer.status_code == 503 else "" if answer.ok else answer.reason

    def by_mqtt(self) -> str:
        answer = Wire(self.test).take(self.sealed())
        return self._said(answer) if b"payload" in answer and not self._holds(answer) else ""

    def _said(self, document: bytes) -> str:
        said = open_document(document, self.test.bus.answer_certificate_der, REFUSAL)
        assert said["reference"].isdigit(), "it stands in the audit"
        return str(said["code"])

    def _holds(self, receipt: bytes) -> bool:
        try:
            verify_receipt(receipt, self.test.anchors)
        except Refusal:
            return False
        return True

    @staticmethod
    def _refusal(push: Callable[[], object]) -> str:
        try:
            push()
        except Refusal as refusal:
            return refusal.code
        return ""

    def pushes(self) -> dict[str, str]:
        doors = (self.by_soap, self.by_mtom, self.by_upload, self.by_rest, self.by_mqtt)
        return {door.__name__: door() for door in doors}

    def reads(self) -> set[datetime | None]:
        """Since when answers say that a timestamp is pending: every read is answered, by all doors alike."""
        said: list[datetime | None] = []
        for read in (
            lambda partner: partner.receipt("m-1"),
            lambda partner: partner.report("m-1"),
            lambda partner: partner.checkpoint(),
            lambda partner: partner.changes(purpose="test"),
        ):
            heard: list[datetime] = []
            read(self.partner(heard))
            said.append(heard[0] if heard else None)
        listed = self.get("/components?purpose=test")
        assert listed.status_code == 200
        said.append(instant_in(listed.json().get("timestamp_pending")))
        for path in ("/deliveries/m-1/receipt", "/audit/checkpoint"):
            answer = self.get(f"{path}?purpose=test")
            assert answer.status_code == 200
            said.append(instant_in(answer.headers.get("yongtong-timestamp-pending")))
        return set(said)

    def entries(self) -> list[str]:
        return [outcome for outcome, _ in self.test.entries("timestamp")][::-1]


class Clock:
    """It stands still until it is moved."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


def instant_in(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


@pytest.fixture
def days(
    start: Callable[[ASGIApp], Running],  # noqa: F811
    city: City,  # noqa: F811
    tmp_path: Path,
) -> Iterator[Days]:
    clock = Clock(datetime.now(UTC) - AWAY)
    with file_server() as server:
        test = TestBus(tmp_path / "bus", city, clock=clock)
        made = Days(test, server, OpensslTsa(tmp_path / "tsa"), clock)
        running = start(make_app(test.bus, tmp_path / "bus" / "spool"))
        made.url = f"https://localhost:{running.port}"
        yield made
        running.stop()
        made.kept.close()
        test.bus.close()


TAKEN = dict.fromkeys(("by_soap", "by_mtom", "by_upload", "by_rest", "by_mqtt"), "")
REFUSED = dict.fromkeys(TAKEN, OVERDUE)


def test_the_authority_is_away_for_1_4_and_24_hours_then_a_token_covers_the_gap(
    days: Days, caplog: pytest.LogCaptureFixture, tell: Callable[[str], None]
) -> None:
    caplog.set_level("INFO")
    began = days.clock.now
    assert days.pushes() == TAKEN
    days.turn()
    told = []
    # until the last second before each threshold, and from it on: state, pushes, what reads say of it
    for after, state, pushes, pending in (
        (HOUR - SECOND, "fresh", TAKEN, None),
        (HOUR, "alarm", TAKEN, None),
        (4 * HOUR - SECOND, "alarm", TAKEN, None),
        (4 * HOUR, "pending", TAKEN, began),
        (24 * HOUR - SECOND, "pending", TAKEN, began),
        (24 * HOUR, "refused", REFUSED, began),
        (AWAY - HOUR / 2, "refused", REFUSED, began),
    ):
        days.clock.now = began + after
        days.turn()
        assert days.coverage.state(days.clock.now) == state
        assert (days.pushes(), days.reads()) == (pushes, {pending})
        words, answers = "refused" if pushes == REFUSED else "taken", "pending" if pending else "nothing"
        told.append(f"away {after}: {state}; {len(pushes)} pushes {words}; answers say {answers}")
    assert days.entries() == ["alarm", "pending", "refused"], "each change once"
    levels = [r.levelname for r in caplog.records if r.getMessage().startswith("timestamp.overdue")]
    assert levels == ["ERROR", "ERROR", "CRITICAL"]
    refused = [detail for outcome, detail in days.test.entries("refusal") if outcome == OVERDUE]
    assert len(refused) == 2 * len(REFUSED), "and each refusal is in the audit"
    # It is back, and so is everything else.
    days.server.files["/"] = days.tsa.answering()
    days.clock.now = datetime.now(UTC)
    days.turn()
    assert (days.pushes(), days.reads()) == (TAKEN, {None})
    assert days.entries()[-1] == "covered"
    head = days.kept.stamped(0)
    assert head is not None
    assert "Verification: OK" in days.tsa.verify(head.response, stamped_octets(head.checkpoint))
    first = days.test.bus.journal.entry(0)
    assert first is not None
    said = covering(datetime.fromisoformat(first.leaf.time), datetime.fromisoformat(head.stamped_at))
    assert said == "时间戳晚于记录 25 小时，补盖空档 covers a gap of 25 h"
    detail = days.test.entries("timestamp")[0][1]
    assert (detail["size"], detail["oldest_at"]) == (head.size, first.leaf.time)
    tell("\n".join((*told, f"back: one token over {head.size} entries; {said}")))


def test_an_upload_under_way_stops_at_24_hours_and_goes_on_where_it_was(days: Days) -> None:
    days.clock.now += HOUR / 2
    days.pushes()
    began = days.clock.now
    partner, content = days.partner(), in_memory(CSV + b"2,0118\n" * 30_000)
    names = {"Sender": "water", "Recipient": ORIGIN, "MessageId": "slow", "Feed": "covers"}
    digest = {"_value_1": content.digest.hex, "algorithm": content.digest.algorithm}
    stated = {"ContentType": "text/csv", "ContentDigest": digest}
    days.clock.now = began + 20 * HOUR
    begun = partner._feeds.call("BeginUpload", {**names, **stated, "ContentLength": content.size})
    upload = {"UploadId": begun.UploadId}
    chunk = {**names, **upload, "Offset": 0, "ContentDigest": digest, "Content": b""}
    days.clock.now = began + 24 * HOUR
    with pytest.raises(Refusal, match=OVERDUE):
        partner._feeds.call("UploadChunk", chunk, attachment=content)
    days.clock.now -= SECOND
    partner._feeds.call("UploadChunk", chunk, attachment=content)
    days.clock.now += SECOND
    with pytest.raises(Refusal, match=OVERDUE):
        partner._feeds.call("CompleteUpload", {**names, **stated, **upload})
    days.server.files["/"] = days.tsa.answering()
    days.clock.now = datetime.now(UTC)
    days.turn()
    receipt = partner._feeds.call("CompleteUpload", {**names, **stated, **upload}).Receipt.encode()
    assert verify_receipt(receipt, days.test.anchors).document["content_length"] == content.size


def test_no_door_waits_for_an_authority_that_hangs(days: Days) -> None:
    """It holds the line while pushes come in: they are answered, and so are reads, before it lets go."""
    hanging, let_go = threading.Event(), threading.Event()

    def hang(handler: Any) -> None:
        hanging.set()
        let_go.wait(20)

    days.server.files["/"] = hang
    days.by_soap()
    watching = threading.Thread(target=days.turn, daemon=True)
    watching.start()
    assert hanging.wait(5)
    assert days.pushes() == TAKEN
    assert days.reads() == {None}
    assert watching.is_alive(), "all that while it was waiting"
    let_go.set()
    watching.join(20)


def test_a_token_in_time_covers_no_gap_and_one_that_is_late_says_by_how_much() -> None:
    at = datetime(2026, 11, 28, 8, tzinfo=UTC)
    assert covering(at, at + timedelta(minutes=10)) == ""
    assert covering(at, at + HOUR) == ""
    assert covering(at, at + 5 * HOUR).endswith("covers a gap of 5 h")
    assert covering(at, at + timedelta(hours=1, minutes=30)).endswith("covers a gap of 1.5 h")


@pytest.mark.parametrize("after", [0, 59, 3_599, 3_600, 14_399, 14_400, 86_399, 86_400, 10**9])
def test_the_rule_is_of_an_age_alone(after: int) -> None:
    at = datetime(2026, 11, 28, 8, tzinfo=UTC)
    expected = "fresh" if after < 3_600 else "alarm" if after < 14_400 else "pending" if after < 86_400 else "refused"
    assert Rule().state(at, at + timedelta(seconds=after)) == expected
    assert Rule().state(None, at) == "fresh"
