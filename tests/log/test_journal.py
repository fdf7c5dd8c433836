"""Accepting, noting, finishing; what is repeated, what is refused, and what time does."""

import sqlite3
import threading
import time
from concurrent.futures import CancelledError
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange import journal as journal_module
from exchange.audit import verify
from exchange.database import CONFLICTS, Cursor
from exchange.entry import Leaf, canonical_detail, day_of, instant
from exchange.receipts import verify_receipt
from exchange.sequencer import Sequencer
from security import merkle
from security.checkpoint import open_checkpoint
from security.errors import AuditBroken, Refusal, Unavailable
from security.jws import jcs
from tests.log.buses import NOON, ORIGIN, JournalFolder, an_entry, finished

TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)


@given(st.builds(Leaf, **dict.fromkeys(Leaf.__struct_fields__[:-1], TEXTS), v=st.integers(0, 9)))
def test_a_leaf_is_encoded_as_jcs_would(leaf: Leaf) -> None:
    assert msgspec.json.encode(leaf) == jcs(msgspec.to_builtins(leaf))


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,9}", fullmatch=True), TEXTS | st.integers(-(2**53) + 1, 2**53 - 1)))
def test_a_detail_is_encoded_as_jcs_would(detail: dict[str, str | int]) -> None:
    assert canonical_detail(detail) == jcs(detail)


def test_a_delivery_is_accepted_with_a_receipt_that_holds_offline(bus: JournalFolder) -> None:
    journal = bus.open()
    accepted = journal.accept(bus.acceptance("m-1")).result(10)
    assert not accepted.repeated
    assert accepted.inbox.receipt is not None
    verified = verify_receipt(accepted.inbox.receipt, bus.anchors)
    assert (verified.kind, verified.index, verified.document["message_id"]) == ("receipt", 0, "m-1")
    assert journal.inbox("water", "m-1") == accepted.inbox
    assert journal.inbox(None, "m-1") == accepted.inbox
    assert journal.inbox("power", "m-1") is None
    journal.close()


def test_the_same_delivery_again_gives_the_same_receipt_and_no_entry(bus: JournalFolder) -> None:
    journal = bus.open()
    first = journal.accept(bus.acceptance("m-1")).result(10)
    again = journal.accept(msgspec.structs.replace(bus.acceptance("m-1"), request_digest="77" * 32)).result(10)
    assert again.repeated
    assert again.inbox == first.inbox
    assert journal.size() == 1
    journal.close()


def test_the_same_delivery_twice_in_one_group_is_one_delivery(bus: JournalFolder) -> None:
    journal = bus.open()
    both = [future.result(10) for future in [journal.accept(bus.acceptance("m-1")) for _ in range(20)]]
    assert len({accepted.inbox.receipt for accepted in both}) == 1
    assert [accepted.repeated for accepted in both].count(False) == 1
    assert journal.size() == 1
    journal.close()


@pytest.mark.parametrize("change", [{"content_digest": "00" * 32}, {"feed": "lamps"}, {"content_type": "text/plain"}])
def test_the_same_id_for_something_else_is_refused(bus: JournalFolder, change: dict[str, str]) -> None:
    journal = bus.open()
    together = [journal.accept(bus.acceptance("m-1")) for _ in range(1)]
    together.append(journal.accept(msgspec.structs.replace(bus.acceptance("m-1"), **change)))
    together[0].result(10)
    with pytest.raises(Refusal) as refusal:
        together[1].result(10)
    assert refusal.value.code == "delivery.id_reused"
    journal.accept(msgspec.structs.replace(bus.acceptance("m-1"), sender="power")).result(10)
    journal.close()


def test_what_waits_is_listed_until_it_is_finished(bus: JournalFolder) -> None:
    journal = bus.open()
    rows = [journal.accept(bus.acceptance(f"m-{n}")).result(10).inbox for n in range(3)]
    journal.accept(bus.acceptance("m-9", feed="lamps")).result(10)
    assert journal.feeds_waiting() == ["covers", "lamps"]
    assert journal.waiting("covers", 2) == rows[:2]
    report = finished(journal, rows[0].id)
    assert journal.waiting("covers", 9) == rows[1:]
    assert journal.report("water", "m-0") == report
    assert journal.report("water", "m-1") is None
    verified = verify_receipt(report, bus.anchors)
    assert (verified.kind, verified.document["report"]["records"]) == ("report", 1)
    assert verified.document["accepted_index"] == rows[0].entry_index
    journal.close()


def test_what_is_watched_is_told_by_feed_and_by_entry(bus: JournalFolder) -> None:
    journal = bus.open()
    rows = [journal.accept(bus.acceptance(f"m-{n}")).result(10).inbox for n in range(3)]
    feed = rows[0].feed
    assert journal.waiting_by_feed() == [(feed, 3, rows[0].received_at)]
    finished(journal, rows[0].id)
    assert journal.waiting_by_feed() == [(feed, 2, rows[1].received_at)]
    assert journal.finished_within(0, 3) == []
    assert journal.finished_within(3, 4) == [(3, feed, rows[0].received_at)]
    assert [index for index, _, _ in journal.raw_entries(1, 2)] == [1, 2]
    ((_, leaf, detail),) = journal.raw_entries(3, 9)
    assert msgspec.json.decode(leaf, type=Leaf).type == "processing"
    assert detail is not None
    journal.close()


def test_finishing_twice_changes_nothing_and_finishing_otherwise_is_an_alarm(bus: JournalFolder) -> None:
    journal = bus.open()
    row = journal.accept(bus.acceptance("m-1")).result(10).inbox
    report = finished(journal, row.id)
    assert finished(journal, row.id) == report
    assert journal.size() == 2
    with pytest.raises(AuditBroken):
        journal.finish(row.id, "refused", an_entry(outcome="refused"), {}).result(10)
    with pytest.raises(AuditBroken):
        finished(journal, 99)
    journal.close()


def test_a_held_delivery_is_finished_later_and_both_reports_stand(bus: JournalFolder) -> None:
    journal = bus.open()
    row = journal.accept(bus.acceptance("m-1")).result(10).inbox
    held = journal.finish(row.id, "held", an_entry(outcome="held", sender="water", feed="covers"), {}).result(10)
    assert journal.report("water", "m-1") == held
    assert journal.waiting("covers", 9) == []
    report = finished(journal, row.id)
    assert journal.report("water", "m-1") == report != held
    journal.close()
    assert verify(bus.readable(), bus.anchors).reports == 2


def test_reads_are_entered_within_a_second_and_refused_when_the_stage_is_full(
    bus: JournalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = bus.open()
    journal.stage_read(an_entry())
    time.sleep(1)
    assert journal.size() == 1
    monkeypatch.setattr(journal_module, "MOST_STAGED", 0)
    with pytest.raises(Unavailable):
        journal.stage_read(an_entry())
    journal.close()


def test_a_stage_that_fills_is_written_without_waiting_for_a_delivery(
    bus: JournalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "TICK_S", 3600.0)  # whoever waits a tick for more waits for ever
    journal = bus.open()
    reads = 4 * journal_module.MOST_IN_GROUP
    for _ in range(reads):
        journal.stage_read(an_entry())
    journal.note(an_entry())  # wakes it once
    ends_s = time.monotonic() + 30
    while journal.size() < reads and time.monotonic() < ends_s:
        time.sleep(0.02)
    assert journal.size() >= reads
    journal.note(an_entry()).result(10)
    journal.close()


def test_what_is_staged_is_written_at_closing(bus: JournalFolder) -> None:
    journal = bus.open()
    for _ in range(1_500):
        journal.stage_read(an_entry())
    journal.close()
    with pytest.raises(Unavailable):
        journal.note(an_entry())
    again = bus.open()
    assert again.size() == 1_500
    again.close()


def test_strangers_are_counted_an_address_and_minute(bus: JournalFolder) -> None:
    now = [NOON]
    journal = bus.open(lambda: now[0])
    for code in ("auth.certificate_unknown", "auth.certificate_unknown", "soap.no_security"):
        journal.note_stranger("192.0.2.7", code)
    journal.note_stranger("192.0.2.8", "auth.certificate_unknown")
    time.sleep(0.6)
    assert journal.size() == 0
    now[0] += timedelta(minutes=1)
    time.sleep(0.8)
    entries = journal.search(outcome="strangers")
    details = sorted((e.detail["address"], e.detail["count"]) for e in entries if e.detail)
    assert details == [("192.0.2.7", 3), ("192.0.2.8", 1)]
    journal.close()


def test_a_flood_of_addresses_is_counted_together(bus: JournalFolder) -> None:
    journal = bus.open(lambda: NOON)
    for number in range(3_000):
        journal.note_stranger(f"2001:db8::{number:x}", "auth.certificate_unknown")
    journal.close()
    again = bus.open()
    entries = again.search(outcome="strangers", limit=5_000)
    assert len(entries) == 1_001
    assert sum(int(e.detail["count"]) for e in entries if e.detail) == 3_000
    again.close()


def test_log_time_never_goes_back(bus: JournalFolder) -> None:
    now = [NOON]
    journal = bus.open(lambda: now[0])
    times = []
    for step_s in (0, 10, -3600, 1, -1, 7200):
        now[0] += timedelta(seconds=step_s)
        times.append(journal.note(an_entry()).result(10).time)
    journal.close()
    again = bus.open(lambda: NOON - timedelta(days=1))
    times.append(again.note(an_entry()).result(10).time)
    again.close()
    assert times == sorted(times)
    assert times[0] == instant(NOON)
    assert verify(bus.readable(), bus.anchors).ok


def test_every_entry_is_proven_under_the_latest_checkpoint(bus: JournalFolder) -> None:
    journal = bus.open()
    heads = [open_checkpoint(journal.checkpoint(), ORIGIN, bus.log_key.public_key) for _ in _steps(journal, 9)]
    for index in range(journal.size()):
        proof = journal.prove(index)
        head = open_checkpoint(proof.checkpoint, ORIGIN, bus.log_key.public_key)
        assert merkle.verify_inclusion(merkle.leaf_hash(proof.leaf), index, head.size, proof.path, head.root)
    for old, new in pairwise(heads):
        path = journal.consistency(old.size, new.size)
        assert merkle.verify_consistency(old.size, new.size, path, old.root, new.root)
    for wrong in (lambda: journal.prove(99), lambda: journal.inclusion(0, 99), lambda: journal.consistency(0, 1)):
        with pytest.raises(Refusal) as refusal:
            wrong()
        assert refusal.value.code == "audit.no_such_size"
    journal.close()


def _steps(journal: journal_module.Journal, count: int) -> "list[int]":
    def step(number: int) -> int:
        for future in [journal.note(an_entry()) for _ in range(number)]:
            future.result(10)
        return number

    return [step(number) for number in range(1, count)]


def test_entries_are_found_by_what_they_say(bus: JournalFolder) -> None:
    journal = bus.open(lambda: NOON)
    for sender in ("water", "power", "water"):
        journal.note(an_entry(sender=sender, type="refusal", outcome="auth.no_grant")).result(10)
    assert [entry.index for entry in journal.search(sender="water")] == [2, 0]
    assert [entry.index for entry in journal.search(type="refusal", outcome="auth.no_grant", limit=1)] == [2]
    assert journal.search(sender="water", since=NOON + timedelta(seconds=1)) == []
    assert len(journal.search(since=NOON, until=NOON + timedelta(seconds=1))) == 3
    found = journal.entry(1)
    assert found is not None
    assert found.leaf.sender == "power"
    assert found.detail == an_entry().detail
    assert journal.entry(3) is None
    journal.close()


def test_changes_that_fail_take_their_own_entry_and_no_other(bus: JournalFolder) -> None:
    def breaks(cursor: Cursor, index: int) -> None:
        cursor.execute("INSERT INTO persons VALUES ('a', '', '', ?)", (b"",))
        cursor.execute("INSERT INTO persons VALUES ('a', '', '', ?)", (b"",))

    journal = bus.open()
    good, bad, later = journal.note(an_entry()), journal.note(an_entry(), breaks), journal.note(an_entry())
    assert (good.result(10).index, later.result(10).index) == (0, 1)
    with pytest.raises(CONFLICTS):
        bad.result(10)
    journal.close()


def test_a_caller_who_goes_away_stops_nothing(bus: JournalFolder) -> None:
    journal = bus.open()
    future = journal.note(an_entry())
    assert not future.cancel()
    try:
        future.result(10)
    except CancelledError:
        pytest.fail("cancelled")
    assert journal.note(an_entry()).result(10).index == 1
    journal.close()


def test_text_that_json_cannot_hold_fails_its_caller_only(bus: JournalFolder) -> None:
    journal = bus.open()
    with pytest.raises(UnicodeEncodeError):
        journal.note(an_entry(sender="\ud800"))
    journal.note(an_entry()).result(10)
    journal.close()


def test_a_tree_that_does_not_match_its_head_is_not_built_upon(bus: JournalFolder) -> None:
    journal = bus.open()
    journal.note(an_entry()).result(10)
    journal.close()
    with closing(bus.database.connect()) as connection:
        connection.execute("UPDATE nodes SET hash = ?", (bytes(32),))
    connection.close()
    again = bus.open()
    with pytest.raises(AuditBroken):
        again.note(an_entry()).result(10)
    again.close()


def test_many_threads_get_each_their_own_place(bus: JournalFolder) -> None:
    journal, places = bus.open(), []

    def run() -> None:
        places.extend([journal.note(an_entry()).result(30).index for _ in range(25)])

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(places) == list(range(200))
    journal.close()
    assert verify(bus.readable(), bus.anchors).ok


def test_times_are_written_so_that_text_order_is_time_order() -> None:
    assert instant(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) == "2026-01-02T03:04:05.000000Z"


def test_documents_that_a_full_disk_would_not_have_are_issued_when_it_does(
    bus: JournalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = bus.open()
    row = journal.accept(bus.acceptance("m-1")).result(10).inbox

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(Sequencer, "_keep_head", full)
        with pytest.raises(Unavailable):
            finished(journal, row.id)
        with pytest.raises(Unavailable):
            journal.accept(bus.acceptance("m-2")).result(10)
        journal.stage_read(an_entry(type="read"))
        time.sleep(0.6)
        assert (journal.report("water", "m-1"), journal.receipt("water", "m-2")) == (None, None)
    until = time.monotonic() + 5
    while journal.report("water", "m-1") is None and time.monotonic() < until:
        time.sleep(0.05)
    assert verify_receipt(journal.report("water", "m-1") or b"", bus.anchors).kind == "report"
    assert verify_receipt(journal.receipt("water", "m-2") or b"", bus.anchors).kind == "receipt"
    assert len(journal.search(type="read")) == 1, "a read is entered once"
    journal.close()
    assert verify(bus.readable(), bus.anchors).ok


def test_numbers_their_gaps_and_what_became_of_a_day_on_this_engine(bus: JournalFolder) -> None:
    """What the gap report and the account ask of the journal."""
    now = NOON
    journal = bus.open(lambda: now)
    numbered = {f"m-{n}": msgspec.structs.replace(bus.acceptance(f"m-{n}", b"%d" % n), sequence=n) for n in (1, 4, 6)}
    rows = {id: journal.accept(acceptance).result(30).inbox for id, acceptance in numbered.items()}
    journal.accept(bus.acceptance("uncounted", b"x", "drains")).result(30)
    with pytest.raises(Refusal, match="highest used 6"):
        journal.accept(msgspec.structs.replace(bus.acceptance("m-9", b"9"), sequence=4)).result(30)
    found = journal.gaps()
    assert [(gap.first, gap.last) for gap in found.gaps] == [(2, 3), (5, 5)]
    assert [(one.highest, one.received) for one in found.counted] == [(6, 3)]
    assert journal.gaps("water", "covers") == found
    assert journal.gaps("water", "drains").counted == ()
    finished(journal, rows["m-4"].id)
    day = day_of(instant(now))
    accepted, became = journal.delivered(journal.of_day(day), journal.size())
    assert [feed for _, _, feed in accepted] == ["covers"] * 3 + ["drains"]
    assert [(row[3], row[4], row[6]) for row in became] == [
        ("m-1", "waiting", None),
        ("m-4", "processed", "processed"),
        ("m-6", "waiting", None),
        ("uncounted", "waiting", None),
    ]
    now += timedelta(days=1)
    journal.note(an_entry(type="account"), lambda cursor, at: cursor.execute(ACCOUNT, (day, at))).result(30)
    with pytest.raises(CONFLICTS):
        journal.note(an_entry(type="account"), lambda cursor, at: cursor.execute(ACCOUNT, (day, at))).result(30)
    entry = journal.account_of(day)
    assert entry is not None
    assert (entry.leaf.type, journal.last_account(), journal.account_of("2026-01-01")) == ("account", day, None)
    assert len(journal.of_day(day)) == entry.index
    journal.close()


ACCOUNT = "INSERT INTO accounts VALUES (?, ?)"
