"""死信与重放 What could not be applied is applied when its cause is gone: once, in order, by a person's word."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from exchange import audit, replaying
from exchange.account import unbalanced
from exchange.app import trusted
from exchange.cli.people import registry
from exchange.cli.trial import PROPOSER, SYSTEM
from exchange.dead_letters import Wanted, dead_letters
from exchange.feed_turn import take_turn
from exchange.replay_preview import foresee
from exchange.replaying import Job, Replayer
from security.batch import unverified
from security.errors import Refusal
from tests.acts.bench_of_one import FEED, REGISTER, Acts, both_acts, covers
from tests.acts.bundles import Office

SNAPSHOT = "covers-snapshot"
RIGHT = {"encoding": "gb18030"}


@pytest.fixture
def acts(tmp_path: Path) -> Iterator[Acts]:
    snapshot = REGISTER.replace(FEED, SNAPSHOT).replace('"changes"', '"snapshot"')
    with both_acts(tmp_path, **{SNAPSHOT: snapshot}) as acts:
        for feed in (FEED, SNAPSHOT):
            acts.trial.grant("made-up", "push", feed)
        said = {"encoding": "utf-8"}
        feeds = {id: msgspec.structs.replace(feed, options=said) for id, feed in acts.bus.feeds.items()}
        yield acts.with_(feeds=feeds)


def wrong(key: str) -> bytes:
    """Right, but in an encoding that the feed's file does not say."""
    return covers(key).decode().encode("gb18030")


def refused(acts: Acts, *message_ids: str, feed: str = FEED) -> None:
    for message_id in message_ids:
        acts.push(message_id, wrong(message_id), feed)
    take_turn(feed, acts.bus)


def fixed(acts: Acts, feed: str = FEED, released: bool = True) -> Acts:
    """The feed's file says the encoding now, and two persons have released it."""
    file = msgspec.structs.replace(acts.bus.feeds[feed], options=RIGHT, digest="ab" * 32)
    if released:
        acts.trial.release(feed, file.digest)
    return acts.with_(feeds={**acts.bus.feeds, feed: file}, feed_digests={**acts.bus.feed_digests, feed: file.digest})


def begun(acts: Acts, per_minute: int = 0, **wanted: object) -> Job:
    with registry(acts.trial.settings) as opened:
        return replaying.begin(opened, Wanted(**wanted), per_minute, "对照表已更正", SYSTEM)  # type: ignore[arg-type]


def job(acts: Acts, id: str) -> Job:
    return replaying.job(acts.bus.journal, id)


def carried_out(acts: Acts, id: str, feed: str = FEED) -> Job:
    replayer = Replayer(acts.bus)
    for _ in range(10):
        replayer.step()
        take_turn(feed, acts.bus)
        if job(acts, id).state == "ended":
            break
    return job(acts, id)


def status(acts: Acts, message_id: str) -> str:
    row = acts.bus.journal.inbox("made-up", message_id)
    assert row is not None
    return row.status


def test_what_was_refused_is_applied_once_the_mapping_is_fixed(acts: Acts) -> None:
    receipt = acts.push("m-1", wrong("A")).inbox.receipt
    take_turn(FEED, acts.bus)
    (letter,) = dead_letters(acts.bus.journal, Wanted(feed=FEED))
    assert (letter.row.message_id, letter.code, letter.tried) == ("m-1", "decode.encoding_wrong", 1)
    acts = fixed(acts)
    ended = carried_out(acts, begun(acts, code="decode.encoding_wrong").id)
    assert (ended.state, ended.outcomes, ended.codes) == ("ended", {"processed": 1}, {})
    report = acts.bus.journal.report("made-up", "m-1")
    assert report is not None
    said = unverified(report)
    assert (said["outcome"], said["report"]["new"]) == ("processed", 3)
    assert acts.bus.journal.receipt("made-up", "m-1") == receipt
    row = acts.bus.journal.inbox("made-up", "m-1")
    assert row is not None
    earlier = [octets for _, row, octets in acts.bus.journal.reports_after(-1, 9)]
    assert [unverified(octets)["outcome"] for octets in earlier] == ["refused", "processed"], "the earlier one stays"
    entries = acts.bus.journal.search(type="replay", limit=9)
    assert [entry.leaf.outcome for entry in reversed(entries)] == ["begun", "again", "ended"]
    again = entries[1]
    assert (again.leaf.sender, again.leaf.actor) == ("made-up", entries[2].leaf.actor)
    assert entries[2].leaf.actor.startswith("person-")
    assert (entries[2].detail or {})["ground"] == "对照表已更正"
    assert dead_letters(acts.bus.journal, Wanted()) == []
    assert unbalanced(acts.bus.journal, acts.bus.store) == []
    verdict = audit.verify(acts.trial.state, trusted.anchors_of(acts.trial.settings))
    assert verdict.ok, verdict.problems


def test_a_preview_says_what_would_become_of_each_and_keeps_nothing(acts: Acts) -> None:
    refused(acts, "m-1", "m-2")
    size, ledger = acts.bus.journal.size(), acts.bus.store.ledger()
    letters = dead_letters(acts.bus.journal, Wanted())
    assert [(one.outcome, one.code) for one in foresee(letters, acts.bus)] == [("refused", "decode.encoding_wrong")] * 2
    told = list(foresee(letters, fixed(acts, released=False).bus))
    assert [(one.message_id, one.outcome, one.records) for one in told] == [
        ("m-1", "processed", {"new": 3}),
        ("m-2", "processed", {"new": 3}),
    ]
    assert (acts.bus.journal.size(), acts.bus.store.ledger()) == (size, ledger)
    assert status(acts, "m-1") == "refused"


def test_a_replay_is_not_replayed_again(acts: Acts) -> None:
    """openhim-console#79."""
    refused(acts, "m-1", "m-2")
    acts = fixed(acts)
    first = begun(acts, message_ids=("m-1",))
    with pytest.raises(Refusal, match=r"dead\.under_way"):
        begun(acts)
    assert carried_out(acts, first.id).outcomes == {"processed": 1}
    with pytest.raises(Refusal, match=r"dead\.not_dead"):
        begun(acts, message_ids=("m-1",))
    with registry(acts.trial.settings) as opened, pytest.raises(Refusal, match=r"dead\.job_state"):
        replaying.resume(opened, first.id, "再来一次", SYSTEM)
    claims = acts.bus.store.ledger().claims
    Replayer(acts.bus).step()
    take_turn(FEED, acts.bus)
    assert acts.bus.store.ledger().claims == claims
    assert begun(acts).outcomes == {"pending": 1}, "what is left is another's to replay"


def test_a_job_keeps_its_pace_stops_and_goes_on_where_it_was(acts: Acts) -> None:
    refused(acts, *(f"m-{number}" for number in range(6)))
    acts = fixed(acts)
    id, now_s = begun(acts, per_minute=60).id, [100.0]
    replayer = Replayer(acts.bus, lambda: now_s[0])
    for _ in range(3):
        replayer.step()
    assert job(acts, id).outcomes == {"pending": 5, "sent": 1}, "one a second, and no second has gone"
    now_s[0] += 2.0
    replayer.step()
    assert job(acts, id).outcomes == {"pending": 3, "sent": 3}
    assert unbalanced(acts.bus.journal, acts.bus.store) == [], "what went back is accounted for while it waits"
    with registry(acts.trial.settings) as opened:
        replaying.stop(opened, id, "先核对", SYSTEM)
        now_s[0] += 60.0
        replayer.step()
        take_turn(FEED, acts.bus)
        replayer.step()
        assert job(acts, id).outcomes == {"pending": 3, "processed": 3}, "what was sent is finished, and no more"
        replaying.resume(opened, id, "已核对", SYSTEM)
    for _ in range(3):
        now_s[0] += 60.0
        replayer.step()
        take_turn(FEED, acts.bus)
    assert (job(acts, id).state, job(acts, id).outcomes) == ("ended", {"processed": 6})


def test_a_job_that_is_ended_for_good_leaves_the_rest_to_another(acts: Acts) -> None:
    refused(acts, "m-1", "m-2")
    id = begun(acts, per_minute=1).id
    Replayer(acts.bus).step()
    with registry(acts.trial.settings) as opened:
        replaying.stop(opened, id, "不再需要", SYSTEM, for_good=True)
    assert carried_out(acts, id).outcomes == {"dropped": 1, "refused": 1}
    assert job(acts, id).codes == {"decode.encoding_wrong": 1}
    assert begun(acts).deliveries == 2


def test_an_older_snapshot_is_not_laid_over_a_later_one(acts: Acts) -> None:
    refused(acts, "old", feed=SNAPSHOT)
    acts.push("new", covers("B"), SNAPSHOT)
    take_turn(SNAPSHOT, acts.bus)
    acts = fixed(acts, SNAPSHOT)
    assert [one.outcome for one in foresee(dead_letters(acts.bus.journal, Wanted()), acts.bus)] == ["superseded"]
    assert carried_out(acts, begun(acts).id, SNAPSHOT).outcomes == {"superseded": 1}
    assert status(acts, "old") == "refused"


def test_what_a_bureau_said_later_stands_though_an_older_delivery_is_replayed(acts: Acts) -> None:
    refused(acts, "m-1")
    moved = covers("m-1").replace(b"121.547", b"121.548")
    acts.push("m-2", moved)
    take_turn(FEED, acts.bus)
    acts = fixed(acts)
    assert carried_out(acts, begun(acts).id).outcomes == {"processed": 1}
    report = acts.bus.journal.report("made-up", "m-1")
    assert report is not None
    said = unverified(report)["report"]
    assert (said["ignored"], said["changed"]) == (3, 0)


def test_a_job_that_no_person_began_is_not_run(acts: Acts, caplog: pytest.LogCaptureFixture) -> None:
    refused(acts, "m-1")
    row = acts.bus.journal.inbox("made-up", "m-1")
    assert row is not None
    with acts.bus.journal.database.transaction(acts.bus.journal.database.connect()) as cursor:
        cursor.execute("INSERT INTO replays VALUES (?, 'p-forged', 0, 'running')", (row.entry_index,))
        cursor.execute("INSERT INTO replay_items VALUES ('p-forged', ?, 'pending', '')", (row.id,))
    Replayer(acts.bus).step()
    assert status(acts, "m-1") == "refused"
    assert "replay.audit_broken" in caplog.text


def test_only_a_system_administrator_begins_a_job(acts: Acts) -> None:
    refused(acts, "m-1")
    with registry(acts.trial.settings) as opened, pytest.raises(Refusal, match=r"role\.not_held"):
        replaying.begin(opened, Wanted(), 0, "试", PROPOSER)


def test_what_a_person_ended_is_no_dead_letter(acts: Acts) -> None:
    acts.push("whole", covers("B"), SNAPSHOT)
    take_turn(SNAPSHOT, acts.bus)
    acts.push("less", covers("B", 1), SNAPSHOT)
    take_turn(SNAPSHOT, acts.bus)
    assert [one.code for one in dead_letters(acts.bus.journal, Wanted())] == ["delivery.held"]
    row = acts.bus.journal.inbox("made-up", "less")
    assert row is not None
    with registry(acts.trial.settings) as opened:
        opened.decide_delivery(row.id, "refuse", SYSTEM)
    take_turn(SNAPSHOT, acts.bus)
    assert status(acts, "less") == "refused"
    assert dead_letters(acts.bus.journal, Wanted()) == []


def test_a_receipt_of_a_failed_delivery_sent_again_is_the_first_receipt(acts: Acts) -> None:
    """Holodeck#142."""
    first = acts.push("m-1", wrong("A"))
    take_turn(FEED, acts.bus)
    again = acts.push("m-1", wrong("A"))
    assert again.repeated
    assert again.inbox.receipt == first.inbox.receipt
    assert take_turn(FEED, acts.bus) == 0, "and it is not tried again by that"


def test_the_evidence_of_a_replayed_delivery_holds_without_us(acts: Acts, tmp_path: Path) -> None:
    refused(acts, "m-1")
    acts = fixed(acts)
    carried_out(acts, begun(acts).id)
    office = Office(acts, tmp_path / "office")
    with closing(office.kept):
        office.attest()
        verdict = office.verdict(office.bundle("m-1"))
    assert not [row for row in verdict.rows if row.state == "broken"], verdict.rows
    assert [row.state for row in verdict.rows if row.name == "receipts"] == ["holds"]
