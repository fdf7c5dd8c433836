"""A sender counts its deliveries to a feed: the number is signed, kept, receipted, and what never came is a gap."""

import base64
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.app import trusted
from exchange.cli.main import main
from exchange.doctor.examine import examine
from exchange.receipts import RECEIPT, issue_receipts, verify_receipt
from exchange.sequences import Gap, find_gaps
from security.batch import unverified
from security.errors import Refusal
from security.jws import sign_document
from security.message import Delivery, in_memory
from security.signed_delivery import FORMS, header_of, read_header
from security.signed_delivery import said as says
from tests.acts.bench_of_one import FEED, Acts, both_acts, covers


@pytest.fixture(scope="module")
def acts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acts]:
    with both_acts(tmp_path_factory.mktemp("sequences")) as acts:
        acts.trial.grant("made-up", "push", FEED)
        acts.trial.release("other", acts.bus.feeds[FEED].digest)
        acts.trial.grant("made-up", "push", "other")
        feeds = {**acts.bus.feeds, "other": msgspec.structs.replace(acts.bus.feeds[FEED], id="other")}
        yield acts.with_(feeds=feeds, feed_digests={id: feed.digest for id, feed in feeds.items()})


def soap(acts: Acts, id: str, number: int | str, feed: str = FEED, content: bytes = b"a") -> Delivery:
    """A SubmitDelivery with its members in the order of the XSD."""
    said = {
        **{"Sender": "made-up", "Recipient": acts.bus.origin, "MessageId": id, "Feed": feed},
        **{"ContentType": "text/csv", "ContentDigest": in_memory(content).digest.hex},
        **{"Sequence": str(number), "Content": base64.b64encode(content).decode()},
    }
    return acts._arrived(acts._signed("SubmitDelivery", said, acts.folder.signing))


def mqtt(acts: Acts, id: str, number: int, feed: str = FEED, content: bytes = b"a", **said: Any) -> Delivery:
    return acts.by_broker(id, content, feed, sequence=number, **said)


def refused(acts: Acts, delivery: Delivery) -> Refusal:
    with pytest.raises(Refusal) as caught:
        acts.receive(delivery)
    return caught.value


def test_a_number_stands_in_inbox_entry_and_receipt_whichever_way_it_came(acts: Acts) -> None:
    sm2 = acts.more_key("SM2")
    arrived = [soap(acts, "w-1", 1, content=covers("W")), mqtt(acts, "w-2", 2), mqtt(acts, "w-3", 3, key=sm2)]
    for number, delivery in enumerate(arrived, 1):
        row = acts.receive(delivery).inbox
        entry = acts.bus.journal.entry(row.entry_index)
        assert entry is not None
        assert entry.detail is not None
        said = unverified(row.receipt or b"")
        assert (row.sequence, entry.detail["sequence"], said["sequence"]) == (number,) * 3
        assert (
            verify_receipt(row.receipt or b"", trusted.anchors_of(acts.trial.settings)).document["sequence"] == number
        )


def test_who_counts_nothing_goes_on_as_before(acts: Acts) -> None:
    row = acts.push("old-client", covers("O")).inbox
    said = unverified(row.receipt or b"")
    assert row.sequence is None
    assert "sequence" not in said
    assert "sequence" not in json.loads(said["detail"])


def test_a_receipt_that_says_another_number_than_its_entry_does_not_hold(acts: Acts) -> None:
    row = acts.receive(mqtt(acts, "forged", 1, "other")).inbox
    proof = acts.bus.journal.prove(row.entry_index)
    genuine = unverified(issue_receipts([(row, proof)], acts.bus.answer_key)[0])
    for forged in ({**genuine, "sequence": 2}, {name: genuine[name] for name in genuine if name != "sequence"}):
        octets = sign_document(forged, RECEIPT, acts.bus.answer_key)
        with pytest.raises(Refusal, match="sequence"):
            verify_receipt(octets, trusted.anchors_of(acts.trial.settings))


@pytest.mark.parametrize("number", [0, -1, 2**53, True, "1", 1.0, None])
def test_a_number_of_another_form_is_refused(acts: Acts, number: Any) -> None:
    named = {"sender": "made-up", "recipient": "bus", "message_id": "m", "content_type": "text/csv", "feed": FEED}
    header = header_of(in_memory(b"a"), "cms", "SHA-256", **named, signed_at=acts.bus.clock())  # type: ignore[arg-type]
    for spoilt, code in (({"seq": number}, "cms.member_form"), ({"sequence": 1}, "cms.member_refused")):
        with pytest.raises(Refusal) as caught:
            says(read_header(json.dumps(header | spoilt).encode(), FORMS, "cms", "header"), "cms")
        assert caught.value.code == code
    if number in (0, -1, 2**53):
        assert refused(acts, soap(acts, "form", number)).code == "soap.schema_invalid"


def test_the_same_id_under_another_number_or_none_is_the_same_delivery(acts: Acts) -> None:
    first = acts.receive(mqtt(acts, "same", 11)).inbox
    again = acts.receive(soap(acts, "same", 11))
    assert (again.repeated, again.inbox.receipt) == (True, first.receipt)
    assert acts.receive(mqtt(acts, "same", 12)).inbox.receipt == first.receipt
    acts.receive(mqtt(acts, "twelfth", 12))
    assert acts.receive(acts.by_broker("same", b"a")).inbox.receipt == first.receipt
    uncounted = acts.receive(acts.by_broker("uncounted", b"a")).inbox
    assert acts.receive(mqtt(acts, "uncounted", 13)).inbox.receipt == uncounted.receipt
    acts.receive(mqtt(acts, "thirteenth", 13))


def test_a_number_is_one_delivery_s_and_the_refusal_says_where_to_go_on(acts: Acts) -> None:
    acts.receive(mqtt(acts, "used", 21))
    acts.receive(mqtt(acts, "higher", 30))
    said = refused(acts, mqtt(acts, "restored", 21))
    assert (said.code, said.detail) == ("sequence.used", "21; highest used 30")
    assert said.reference, "it stands in the audit"
    acts.receive(mqtt(acts, "of-another-feed", 21, "other"))


def test_of_two_that_arrive_together_under_one_number_one_is_taken(acts: Acts) -> None:
    with pytest.raises(Refusal, match=r"sequence\.used"):
        acts.receive_all(mqtt(acts, "together-1", 41), mqtt(acts, "together-2", 41))
    rows = [acts.bus.journal.inbox("made-up", f"together-{n}") for n in (1, 2)]
    assert [row is None for row in rows].count(True) == 1


def test_a_gap_is_open_until_it_is_filled_and_says_since_when(tmp_path: Path) -> None:
    with both_acts(tmp_path) as acts:
        acts.trial.grant("made-up", "push", FEED)
        assert acts.bus.journal.gaps().gaps == ()
        fifth = acts.receive(mqtt(acts, "m-5", 5)).inbox
        second = acts.receive(mqtt(acts, "m-2", 2)).inbox
        gaps = acts.bus.journal.gaps("made-up", FEED).gaps
        assert gaps == (
            Gap("made-up", FEED, 1, 1, fifth.received_at),
            Gap("made-up", FEED, 3, 4, fifth.received_at),
        )
        assert second.received_at > fifth.received_at, "2 came later, and 5 already said that 1 is missing"
        assert acts.bus.journal.gaps("water").gaps == acts.bus.journal.gaps(feed="other").gaps == ()
        _commands_say_so(acts)
        for number in (3, 1, 4):
            acts.receive(mqtt(acts, f"m-{number}", number))
        found = acts.bus.journal.gaps()
        assert (found.gaps, found.counted[0].highest, found.counted[0].received) == ((), 5, 5)
        assert main(["gaps", "--settings", acts.trial.settings.source, "--json"]) == 0


def _commands_say_so(acts: Acts) -> None:
    assert main(["gaps", "--feed", FEED, "--settings", acts.trial.settings.source]) == 1
    for later, ok in ((timedelta(days=6), True), (timedelta(days=8), False)):
        check = {one.name: one for one in examine(acts.trial.settings, acts.bus.clock() + later)}["sequence.gaps"]
        assert check.ok is ok
    assert "3 件报送逾期未到" in check.zh


@settings(max_examples=40, deadline=None, derandomize=True)
@given(came=st.lists(st.integers(1, 30), min_size=1, max_size=30, unique=True))
def test_the_gaps_are_the_numbers_that_did_not_come(came: list[int]) -> None:
    with closing(sqlite3.connect(":memory:")) as inbox:
        inbox.execute("CREATE TABLE inbox (sender, feed, sequence INTEGER, received_at)")
        rows = [("b", "f", number, f"2026-11-28T00:00:{place:02}Z") for place, number in enumerate(came)]
        inbox.executemany("INSERT INTO inbox VALUES (?, ?, ?, ?)", [*rows, ("b", "f", None, ""), ("b", "g", 1, "")])
        found = find_gaps(lambda query, *values: inbox.execute(query, values).fetchall())
    missing = [number for gap in found.gaps for number in range(gap.first, gap.last + 1)]
    assert missing == sorted(set(range(1, max(came))) - set(came))
    for gap in found.gaps:
        assert gap.since == min(at for _, _, number, at in rows if number > gap.last)
