"""A delivery that a broker hands over: the same story, but that nobody vouches for it except its signature."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from exchange.app import opening, trusted
from exchange.entry import LoggedEntry
from exchange.processing import process
from exchange.reading import EvidenceBroken, reopened
from exchange.receipts import REFUSAL, issue_refusal, verify_receipt
from security.batch import unverified
from security.errors import Refusal, sentences
from security.jws import open_document
from security.keys import SigningKey, generate
from tests.acts.bench_of_one import FEED, Acts, at, both_acts, covers


@pytest.fixture
def acts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acts]:
    with both_acts(tmp_path_factory.mktemp("broker")) as acts:
        acts.trial.grant("made-up", "push", FEED)
        yield acts


def document(octets: bytes | None) -> dict[str, Any]:
    assert octets is not None
    said: dict[str, Any] = unverified(octets)
    return said


def refusals(acts: Acts) -> list[LoggedEntry]:
    return acts.bus.journal.search(type="refusal")


def test_a_receipt_says_that_a_broker_carried_it_and_holds(acts: Acts) -> None:
    received = acts.receive(acts.by_broker("m-1", covers("A")))
    said = document(received.inbox.receipt)
    assert (said["carrier"], said["form"], said["evidence_class"]) == ("broker:test", "jws", "signed")
    assert json.loads(said["leaf"])["carrier"] == "broker:test"
    assert verify_receipt(received.inbox.receipt or b"", trusted.anchors_of(acts.trial.settings)).kind == "receipt"


@pytest.mark.parametrize("first", ["soap", "mqtt"])
def test_the_same_over_the_other_door_gets_the_same_receipt(acts: Acts, first: str) -> None:
    doors: dict[str, Callable[[], Any]] = {
        "soap": lambda: acts.delivery("m-1", covers("A")),
        "mqtt": lambda: acts.by_broker("m-1", covers("A")),
    }
    receipt = acts.receive(doors.pop(first)()).inbox.receipt
    again = acts.receive(doors.popitem()[1]())
    assert (again.repeated, again.inbox.receipt) == (True, receipt)
    with pytest.raises(Refusal, match=r"delivery\.id_reused"):
        acts.receive(acts.by_broker("m-1", covers("B")))
    with pytest.raises(Refusal, match=r"delivery\.id_reused"):
        acts.receive(acts.delivery("m-1", covers("B")))
    assert len(acts.bus.journal.search(type="delivery")) == 1


def test_the_very_same_message_handed_over_many_times_is_one_delivery(acts: Acts) -> None:
    """As a broker does after a lost connection (DUP), and a sender that heard nothing."""
    delivery = acts.by_broker("m-1", covers("A"))
    received = acts.receive_all(*[delivery] * 6)
    assert len({one.inbox.receipt for one in received}) == 1
    assert sum(not one.repeated for one in received) == 1


def test_act_two_takes_it_out_of_the_evidence_again(acts: Acts) -> None:
    acts.receive(acts.by_broker("m-1", covers("A", 4)))
    acts.receive(acts.delivery("m-2", covers("B", 4)))
    assert process(FEED, acts.bus) == 2
    for message_id in ("m-1", "m-2"):
        assert document(acts.bus.journal.report("made-up", message_id))["report"]["new"] == 4


def test_evidence_that_is_another_envelope_of_the_same_content_is_found_out(acts: Acts) -> None:
    received = acts.receive(acts.by_broker("m-1", covers("A")))
    file = acts.evidence(received)
    octets = file.read_bytes()
    signature = json.loads(octets)["signature"]
    file.write_bytes(octets.replace(signature.encode(), signature[:-4].encode() + b"AAAA"))
    with pytest.raises(EvidenceBroken):
        reopened(received.inbox, acts.bus)


@pytest.mark.parametrize(
    "code, spoilt",
    [
        ("mqtt.qos_zero", {"qos": 0}),
        ("mqtt.retained", {"retained": True}),
        ("mqtt.feed_of_topic", {"topic_feed": "another-feed"}),
        ("auth.wrong_recipient", {"recipient": "another.bus.example"}),
        ("feed.unknown", {"feed": "no-such-feed"}),
        ("auth.sender_mismatch", {"sender": "water"}),
        ("signature.stale", {"ahead": -timedelta(days=7, minutes=1)}),
        ("signature.future", {"ahead": timedelta(minutes=6)}),
    ],
)
def test_a_signer_is_refused_by_name_and_audited_under_the_signature(
    acts: Acts, code: str, spoilt: dict[str, Any]
) -> None:
    """ahead: of our clock when the test runs, which may be minutes after it was collected."""
    if "ahead" in spoilt:
        spoilt = {"signed_at": acts.bus.clock() + spoilt["ahead"]}
    with pytest.raises(Refusal) as refused:
        acts.receive(acts.by_broker("m-1", covers("A"), **spoilt))
    assert refused.value.code == code
    (entry,) = refusals(acts)
    assert refused.value.reference == str(entry.index)
    signer = acts.folder.signing.fingerprint
    assert (entry.leaf.outcome, entry.leaf.sender, entry.leaf.signer) == (code, "made-up", signer)
    assert (entry.leaf.carrier, entry.leaf.actor) == ("broker:test", signer[:16])
    sentence = sentences()[code]
    assert all((sentence.zh, sentence.en, sentence.next_zh, sentence.next_en))


def test_without_a_grant_a_signer_is_refused(acts: Acts) -> None:
    with both_acts(acts.trial.folder.parent / "other") as bare, pytest.raises(Refusal, match=r"auth\.no_grant"):
        bare.receive(bare.by_broker("m-1", covers("A")))


def of_a_stranger(acts: Acts) -> dict[str, bytes]:
    """Messages of which nobody's signature holds, however much they say."""
    right = acts.by_broker("m-1", covers("A")).envelope
    outer = json.loads(right)
    stranger = generate("ES256")
    unknown = SigningKey(stranger.issuing_key(), None)
    return {
        "unsigned": covers("A"),
        "empty": b"",
        "of an unknown key": acts.by_broker("m-1", covers("A"), key=unknown).envelope,
        "signature of others": json.dumps({**outer, "signature": outer["signature"][:-4] + "AAAA"}).encode(),
        "too large": b" " * (1 << 21),
    }


def test_a_stranger_hears_nothing_and_is_counted_not_listed(acts: Acts) -> None:
    """Retained and QoS 0 too: of a message that nobody signed no more is said than that it is refused."""
    told = []
    for octets in of_a_stranger(acts).values():
        with pytest.raises(Refusal) as refused:
            acts.receive(acts.handed_over(octets))
        told.append(refused.value.code)
    assert told == ["auth.refused"] * 5
    folder = acts.bus.folder
    acts.bus.close()
    with closing(opening.open_journal(acts.trial.settings)) as journal:
        entries = journal.search(type="refusal")
        assert journal.inbox("made-up", "m-1") is None
    assert [entry.leaf.outcome for entry in entries] == ["strangers"] * len(entries)
    details = [entry.detail or {} for entry in entries]  # two where the clock passed a full minute
    assert sum(int(detail["count"]) for detail in details) == 5
    assert {str(detail["address"]) for detail in details} == {"broker:test"}
    assert not list((folder / "evidence").rglob("*-*")), "nothing is kept of a stranger's"


def test_nothing_is_looked_up_before_the_signature_holds(acts: Acts) -> None:
    """Whether a feed exists, whether a grant is held: a stranger who knows the names learns neither."""
    unknown = SigningKey(generate("ES256").issuing_key(), None)
    for feed in (FEED, "no-such-feed"):
        with pytest.raises(Refusal, match=r"auth\.refused"):
            acts.receive(acts.by_broker("m-1", covers("A"), feed, key=unknown))


def test_an_offline_gateways_week_is_over_to_the_second(acts: Acts) -> None:
    delivery = acts.by_broker("m-1", covers("A"))
    signed_at = datetime.fromtimestamp(int(acts.bus.clock().timestamp()), UTC)
    acts.with_(clock=at(signed_at + timedelta(days=6, hours=23))).receive(delivery)
    with pytest.raises(Refusal, match=r"signature\.stale"):
        acts.with_(clock=at(signed_at + timedelta(days=7, seconds=5))).receive(delivery)


def test_a_feed_may_say_how_old_a_signature_may_be(acts: Acts) -> None:
    """Seven days unless its file says otherwise; the feed's word is asked for, and not the envelope's."""
    feed = msgspec.structs.replace(acts.bus.feeds[FEED], max_age=timedelta(hours=1))
    strict = acts.with_(feeds={**acts.bus.feeds, FEED: feed})
    hour_ago = datetime.now(UTC) - timedelta(minutes=59)
    strict.receive(acts.by_broker("m-1", covers("A"), signed_at=hour_ago))
    with pytest.raises(Refusal, match=r"signature\.stale"):
        strict.receive(acts.by_broker("m-2", covers("B"), signed_at=hour_ago - timedelta(minutes=2)))


def test_a_refusal_is_signed_with_its_sentences_and_the_envelope_it_answers(acts: Acts) -> None:
    refusal = Refusal("mqtt.qos_zero", "x" * 500)
    refusal.reference = "7"
    octets = issue_refusal(refusal, "bus", "made-up", FEED, "m-1", "00" * 32, acts.bus.answer_key)
    said = open_document(octets, acts.bus.answer_certificate_der, REFUSAL)
    assert (said["code"], said["reference"], said["request_digest"]) == ("mqtt.qos_zero", "7", "00" * 32)
    assert len(said["detail"]) == 200
    assert set(said["sentence"]) == {"zh", "en", "next_zh", "next_en"}
    with pytest.raises(Refusal):
        open_document(octets, acts.bus.answer_certificate_der, "yt-receipt+jws")


def test_reports_are_found_after_a_cursor_and_only_signed_ones(acts: Acts) -> None:
    for number in range(3):
        acts.receive(acts.by_broker(f"m-{number}", covers(f"A{number}")))
    assert acts.bus.journal.reports_after(-1, 10) == []
    process(FEED, acts.bus)
    found = acts.bus.journal.reports_after(-1, 10)
    assert [row.message_id for _, row, _ in found] == ["m-0", "m-1", "m-2"]
    assert [octets for _, _, octets in found] == [acts.bus.journal.report("made-up", f"m-{n}") for n in range(3)]
    assert acts.bus.journal.reports_after(found[0][0], 1) == found[1:2]
    assert acts.bus.journal.reports_after(found[-1][0], 10) == []
