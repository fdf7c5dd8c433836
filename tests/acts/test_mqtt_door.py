"""When a message is acknowledged, and how reports are pushed."""

import asyncio
import sqlite3
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import msgspec
import pytest

from connectors.transports.mqtt import Address, Arrived
from exchange import reports_out
from exchange.bus import Bus
from exchange.evidence import Evidence
from exchange.evidence_folder import EvidenceFolder
from exchange.intake import Received
from exchange.journal import InboxRow
from exchange.mqtt import door
from exchange.mqtt.door import MqttDoor
from exchange.mqtt.topics import feed_of, inbound, may_hear, outbound
from exchange.processing import process
from exchange.reports_out import ReportPush
from security.errors import Unavailable
from security.message import BROKER, Content, Delivery
from tests.acts.bench_of_one import FEED, Acts, both_acts, covers


@pytest.fixture
def acts(tmp_path: Path) -> Iterator[Acts]:
    with both_acts(tmp_path) as acts:
        acts.trial.grant("made-up", "push", FEED)
        yield acts


class Wire(MqttDoor):
    """The door with what it publishes and acknowledges written down in order, on no connection."""

    def __init__(self, acts: Acts) -> None:
        super().__init__(acts.bus, Address("localhost", 1, ssl.create_default_context()), "_bus:t", "test", 2_000_000)
        self.said: list[str] = []

    def publish(self, topic: str, octets: bytes) -> "Future[None]":
        self.said.append(topic)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def take(self, octets: bytes, qos: int = 1, reply_to: str = "") -> list[str]:
        arrived = Arrived(inbound(FEED), octets, qos, False, lambda: self.said.append("acknowledged"), reply_to)
        asyncio.run(self._story(arrived))
        return self.said


class FullDisk(Evidence):
    """Evidence on a disk that has no room for the first so many payloads."""

    full = 2

    def keep(self, bureau: str, raw: Content, *, sealed: bool = False) -> str:
        self.full -= 1
        if self.full >= 0:
            raise OSError(28, "No space left on device")
        return super().keep(bureau, raw, sealed=sealed)


def test_the_receipt_is_on_its_way_before_the_message_is_acknowledged(acts: Acts) -> None:
    said = Wire(acts).take(acts.by_broker("m-1", covers("A")).envelope)
    assert said == [outbound("made-up", "receipt"), "acknowledged"]


OF_OTHERS = [
    *("", "yt/v1/to/water/receipt", "yt/v1/to/made-up", "yt/v1/to/made-ups/x", "yt/v1/to/+/x", "YT/v1/to/made-up/x"),
    *("yt/v1/to/made-up/+", "yt/v1/to/made-up/#", "yt/v1/to/made-up/a\0b", "yt/v1/to/made-up/" + "x" * 200),
    *(inbound(FEED), "$SYS/broker", "#"),
]


@pytest.mark.parametrize("qos", [1, 0], ids=["receipt", "refusal"])
def test_an_answer_goes_to_a_response_topic_only_if_it_is_the_signers_own(acts: Acts, qos: int) -> None:
    envelope = acts.by_broker("m-1", covers("A")).envelope
    for own in ("yt/v1/to/made-up/gw-7", "yt/v1/to/made-up/gw/7/路灯"):
        assert Wire(acts).take(envelope, qos, own) == [own, "acknowledged"]
    for other in OF_OTHERS:
        assert Wire(acts).take(envelope, qos, other) == [outbound("made-up", "receipt"), "acknowledged"]
    assert Wire(acts).take(b"unsigned", qos, "yt/v1/to/made-up/gw-7") == ["acknowledged"]


def test_a_refusal_is_acknowledged_answered_only_where_the_signature_held(acts: Acts) -> None:
    assert Wire(acts).take(acts.by_broker("m-1", covers("A")).envelope, qos=0)[0] == outbound("made-up", "receipt")
    assert Wire(acts).take(b"unsigned") == ["acknowledged"]


def test_what_cannot_be_kept_now_is_not_acknowledged_until_it_is(acts: Acts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "FIRST_WAIT_S", 0.01)
    disk = FullDisk(EvidenceFolder(acts.bus.folder / "evidence"))
    wire = Wire(acts.with_(evidence=disk))
    assert wire.take(acts.by_broker("m-1", covers("A")).envelope)[-1] == "acknowledged"
    assert disk.full == -1, "tried three times"
    assert wire.said.count("acknowledged") == 1
    disk.close()


def test_a_file_that_cannot_be_read_now_is_not_the_message_s_fault(acts: Acts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "FIRST_WAIT_S", 0.01)
    attempts, story = [], door.receive

    async def receive(delivery: Delivery, bus: Bus) -> Received:
        attempts.append(1)
        if len(attempts) <= door.ATTEMPTS + 2:
            raise sqlite3.OperationalError("disk I/O error")
        return await story(delivery, bus)

    monkeypatch.setattr(door, "receive", receive)
    said = Wire(acts).take(acts.by_broker("m-1", covers("A")).envelope)
    assert said == [outbound("made-up", "receipt"), "acknowledged"]


def test_what_trips_us_is_acknowledged_lest_it_come_for_ever(acts: Acts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(door, "receive", None)
    assert Wire(acts).take(acts.by_broker("m-1", covers("A")).envelope) == ["acknowledged"]


def pushed(acts: Acts, publish: Callable[[str, bytes], "Future[None]"], rounds: int) -> ReportPush:
    """Reports pushed for a few rounds by a process that then ends."""

    def push(row: InboxRow, report: bytes) -> "Future[None]":
        return publish(outbound(row.sender, "report"), report)

    pushing = ReportPush(acts.bus.journal, BROKER, acts.bus.folder / "reports-pushed", push)

    async def some() -> None:
        for _ in range(rounds):
            await pushing._push_some()

    asyncio.run(some())
    return pushing


def test_reports_are_pushed_to_those_who_delivered_over_mqtt_each_once(acts: Acts) -> None:
    acts.receive(acts.by_broker("m-1", covers("A")))
    acts.receive(acts.delivery("m-2", covers("B")))
    acts.receive(acts.by_broker("m-3", covers("C")))
    process(FEED, acts.bus)
    sent: list[tuple[str, bytes]] = []

    def publish(topic: str, octets: bytes) -> "Future[None]":
        sent.append((topic, octets))
        done: Future[None] = Future()
        done.set_result(None)
        return done

    for _ in range(2):  # once, and by the next process
        pushed(acts, publish, rounds=2)
    topic = outbound("made-up", "report")
    assert sent == [(topic, acts.bus.journal.report("made-up", message_id)) for message_id in ("m-1", "m-3")]


def test_a_report_that_could_not_be_pushed_is_pushed_later(acts: Acts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports_out, "AT_ONCE", 1)
    for number in range(3):
        acts.receive(acts.by_broker(f"m-{number}", covers(f"A{number}")))
    process(FEED, acts.bus)
    answers: list[Exception | None] = [None, Unavailable("broker gone"), None, None]
    sent: list[bytes] = []

    def publish(_: str, octets: bytes) -> "Future[None]":
        done: Future[None] = Future()
        problem = answers.pop(0)
        if problem is None:
            sent.append(octets)
            done.set_result(None)
        else:
            done.set_exception(problem)
        return done

    with pytest.raises(Unavailable):
        pushed(acts, publish, rounds=2)
    pushed(acts, publish, rounds=3)
    assert sent == [acts.bus.journal.report("made-up", f"m-{number}") for number in range(3)]


def test_a_cursor_cut_short_by_a_power_cut_pushes_all_again(acts: Acts) -> None:
    (acts.bus.folder / "reports-pushed").write_bytes(b"")
    acts.receive(acts.by_broker("m-1", covers("A")))
    process(FEED, acts.bus)
    sent: list[str] = []
    pushed(acts, lambda topic, _: sent.append(topic) or _done(), rounds=1)
    assert len(sent) == 1


def _done() -> "Future[None]":
    done: Future[None] = Future()
    done.set_result(None)
    return done


@pytest.mark.parametrize("topic", ["yt/v1/feeds/x/in/", "yt/v1/feeds//in", "yt/v1/feeds/x/y/in", "/yt/v1/feeds/x/in",
                                   "yt/v1/feeds/+/in", "yt/v1/feeds/X/in", "yt/v1/feeds/x/out"])  # fmt: skip
def test_a_topic_is_of_a_feed_to_the_letter(topic: str) -> None:
    assert feed_of(topic) is None
    assert feed_of(inbound("x-1")) == "x-1"


def test_a_filter_is_for_a_bureau_only_where_its_code_stands_in_it() -> None:
    assert all(may_hear("water", f"yt/v1/to/water/{rest}") for rest in ("#", "+", "receipt"))
    others = ("yt/v1/to/#", "yt/v1/to/+/receipt", "yt/v1/to/water", "yt/v1/to/water2/receipt", "#", "yt/v1/to/power/#")
    assert not any(may_hear("water", each) for each in others)


def test_beyond_its_quota_a_few_messages_of_a_feed_are_held_and_the_rest_refused_so_that_the_window_stays_open(
    acts: Acts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(door, "SHARE", 2)
    feed = msgspec.structs.replace(acts.bus.feeds[FEED], most_a_minute=1)
    acts.trial.release("other", acts.bus.feed_digests[FEED])
    acts.trial.grant("made-up", "push", "other")
    other = msgspec.structs.replace(acts.bus.feeds[FEED], id="other")
    digests = {FEED: acts.bus.feed_digests[FEED], "other": acts.bus.feed_digests[FEED]}
    acts = acts.with_(feeds={FEED: feed, "other": other}, feed_digests=digests)
    wire = Wire(acts)
    acknowledged: list[str] = []

    def arrived(message_id: str, feed: str = FEED) -> Arrived:
        octets = acts.by_broker(message_id, covers(message_id), feed).envelope
        return Arrived(inbound(feed), octets, 1, False, lambda: acknowledged.append(message_id))

    async def flood() -> None:
        stories = [asyncio.ensure_future(wire._story(arrived(f"m-{number}"))) for number in range(6)]
        while len(acknowledged) < 5:  # one that was taken, four that were refused
            await asyncio.sleep(0.01)
        await wire._story(arrived("calm", "other"))
        held = [task for task in stories if not task.done()]
        assert len(held) == 1, "two might wait, and one of them was taken"
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)

    asyncio.run(flood())
    taken = [
        message_id
        for message_id in (*(f"m-{n}" for n in range(6)), "calm")
        if acts.bus.journal.inbox("made-up", message_id)
    ]
    assert len(taken) == 2, "one a minute of the flood, and the calm one"
    assert "calm" in taken
    assert len(acknowledged) == 6
    assert not wire._held[FEED]
