"""撤回 What a bureau takes back: act two never takes it, or ends what came of it; readers hear, the past says so."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.partner.folder import PartnerFolder
from exchange import audit, processing
from exchange.app import trusted
from exchange.cli.people import registry
from exchange.cli.trial import PROPOSER
from exchange.evidence import is_sealed
from exchange.journal import InboxRow
from exchange.ownership import ownership
from exchange.processing import process
from exchange.publication import changes_after
from exchange.reading import reopened
from exchange.receipts import verify_receipt
from security.errors import Refusal
from tests.acts.bench_of_one import FEED, REGISTER, Acts, both_acts, covers
from tests.acts.test_between_the_acts import report_of, status_of

SNAPSHOT = "covers-snapshot"
OTHERS = "others-covers"
DATED = "dated-covers"


def feed(name: str, **members: str) -> str:
    """The register of `made-up`, with members of its file put otherwise."""
    text = REGISTER.replace(FEED, name)
    for member, value in members.items():
        head, mark, rest = text.partition(f"\n{member} = ")
        value = f'\n{member} = "{value}"'
        text = (
            f"{head}{value}\n{rest.partition(chr(10))[2]}"
            if mark
            else text.replace("\n[defaults]", f"{value}\n\n[defaults]", 1)
        )
    return text


@pytest.fixture
def acts(tmp_path: Path) -> Iterator[Acts]:
    feeds = {
        SNAPSHOT: feed(SNAPSHOT, content="snapshot").replace(
            "\n[defaults]", "\ngone_limit_percent = 100.0\n\n[defaults]"
        ),
        OTHERS: feed(OTHERS, bureau="others").replace("某单位", "另一单位"),
        DATED: feed(DATED).replace("\n[defaults]", "\nas_of = 2026-01-01\n\n[defaults]"),
    }
    with both_acts(tmp_path, **feeds) as acts:
        acts.trial.enrol("others", "Others", "另一单位")
        for name in (FEED, SNAPSHOT, DATED):
            acts.trial.grant("made-up", "push", name)
        yield acts


def row_of(acts: Acts, message_id: str) -> InboxRow:
    row = acts.bus.journal.inbox("made-up", message_id)
    assert row is not None
    return row


def kinds(acts: Acts, after: int = 0) -> dict[int, str]:
    return {change.key: change.kind for change in changes_after(acts.bus.store, after, 100).changes}


def said_of(acts: Acts, key: int, on: date | None = None) -> Any:
    return ownership(acts.bus.store, str(key), on)


def refused(acts: Acts, *arguments: Any, **spoiled: str) -> str:
    with pytest.raises(Refusal) as problem:
        acts.recall(acts.recalling(*arguments, **spoiled))
    return problem.value.code


def all_holds(acts: Acts) -> bool:
    return audit.verify(acts.bus.folder, trusted.anchors_of(acts.trial.settings)).problems == []


def test_act_two_never_takes_what_was_recalled_before_it(acts: Acts) -> None:
    acts.push("m-1", covers("A"))
    answer = acts.recall(acts.recalling("m-1"))
    verified = verify_receipt(answer, trusted.anchors_of(acts.trial.settings))
    assert (verified.kind, verified.leaf.type, verified.document["outcome"]) == ("report", "recall", "recalled")
    assert acts.bus.journal.feeds_waiting() == [FEED]
    assert process(FEED, acts.bus) == 0
    assert acts.bus.journal.feeds_waiting() == []
    assert acts.bus.store.ledger().components == 0
    assert (status_of(acts, "m-1"), report_of(acts, "m-1")["code"]) == ("recalled", "delivery.recalled")
    assert all_holds(acts)


def test_the_same_recall_again_gives_the_same_answer_and_no_second_entry(acts: Acts) -> None:
    receipt = acts.push("m-1", covers("A")).inbox.receipt
    process(FEED, acts.bus)
    first = acts.recall(acts.recalling("m-1"))
    assert acts.recall(acts.recalling("m-1", ground="另一理由")) == first
    process(FEED, acts.bus)
    assert acts.recall(acts.recalling("m-1")) == first
    assert len(acts.bus.journal.search(type="recall", outcome="recalled")) == 1
    assert acts.push("m-1", covers("A")).inbox.receipt == receipt, "the same receipt for ever"
    process(FEED, acts.bus)
    assert acts.bus.store.ledger().claims == 0, "and sent once more it stays recalled"


def test_claims_end_and_readers_hear_recalled_and_another_bureaus_claim_stands(acts: Acts) -> None:
    acts.trial.grant("others", "push", OTHERS)
    acts.push("m-1", covers("A"))
    process(FEED, acts.bus)
    _push_of_others(acts)
    before = acts.bus.store.ledger()
    assert (before.components, before.claims) == (3, 4)
    last = max(change.change_number for change in changes_after(acts.bus.store, 0, 100).changes)
    acts.recall(acts.recalling("m-1"))
    process(FEED, acts.bus)
    assert kinds(acts, last) == {1: "recalled", 2: "recalled", 3: "recalled"}
    after = acts.bus.store.ledger()
    assert (after.components, after.claims, after.orphans) == (3, 1, 2)
    (claim,) = said_of(acts, 1).claims
    assert (claim.bureau, said_of(acts, 1).roles[1].units[0].name) == ("others", "另一单位")
    assert said_of(acts, 2).verdict == "nobody claims this"
    assert all_holds(acts)


def _push_of_others(acts: Acts) -> None:
    """One cover where the first of `made-up` stands, by another bureau."""
    there = Acts(acts.trial, acts.bus)
    content = covers("A", 1)
    delivery = there.delivery("o-1", content, OTHERS, key=_key(acts, "others"), Sender="others")
    arrived = there.recalling("x", "others")  # for its carrier
    there.receive(msgspec.structs.replace(delivery, carrier_der=arrived.carrier_der))
    process(OTHERS, acts.bus)


def _key(acts: Acts, bureau: str) -> Any:
    return PartnerFolder(acts.trial.partners / bureau).signing


def test_a_day_before_the_recall_tells_what_was_known_then_and_that_it_was_recalled(acts: Acts) -> None:
    acts.push("m-1", covers("A"), DATED)
    process(DATED, acts.bus)
    then = date(2026, 2, 1)
    before = said_of(acts, 1, then)
    assert before.claims[0].recalled_at is None
    acts.recall(acts.recalling("m-1"))
    process(DATED, acts.bus)
    told = said_of(acts, 1, then)
    assert (told.verdict, told.roles) == (before.verdict, before.roles)
    assert told.claims[0].recalled_at is not None
    assert told.claims[0].recalled_at == told.claims[0].valid_to
    assert said_of(acts, 1).claims == ()


def test_what_the_bureau_then_sends_of_the_same_day_is_news_and_counts_for_that_day(acts: Acts) -> None:
    acts.push("m-1", covers("A"), DATED)
    process(DATED, acts.bus)
    acts.recall(acts.recalling("m-1"))
    acts.push("m-2", covers("A"), DATED)
    process(DATED, acts.bus)
    assert (report_of(acts, "m-2")["new"], report_of(acts, "m-2")["ignored"]) == (3, 0)
    told = said_of(acts, 1, date(2026, 2, 1))
    assert {claim.message_id for claim in told.claims} == {"m-1", "m-2"}
    assert told.roles[1].status == "defaulted", "it is not in dispute with itself"
    assert [claim.message_id for claim in said_of(acts, 1).claims] == ["m-2"]


def test_what_a_later_delivery_said_again_stands_on_its_word(acts: Acts) -> None:
    acts.push("m-1", covers("A", 3), SNAPSHOT)
    process(SNAPSHOT, acts.bus)
    acts.push("m-2", covers("A", 2), SNAPSHOT)
    process(SNAPSHOT, acts.bus)
    acts.recall(acts.recalling("m-1"))
    process(SNAPSHOT, acts.bus)
    assert acts.bus.store.ledger().claims == 2
    assert [claim.message_id for claim in said_of(acts, 1).claims] == ["m-2"]
    acts.recall(acts.recalling("m-2"))
    process(SNAPSHOT, acts.bus)
    assert acts.bus.store.ledger().claims == 0


def test_what_a_recalled_delivery_had_ended_does_not_come_back_until_it_is_sent_anew(acts: Acts) -> None:
    for message_id, count in (("m-1", 3), ("m-2", 1)):
        acts.push(message_id, covers("A", count), SNAPSHOT)
        process(SNAPSHOT, acts.bus)
    acts.recall(acts.recalling("m-2"))
    process(SNAPSHOT, acts.bus)
    assert acts.bus.store.ledger().claims == 1, "the one that both said stands on the first's word"
    acts.push("m-3", covers("A", 3), SNAPSHOT)
    process(SNAPSHOT, acts.bus)
    assert (report_of(acts, "m-3")["new"], report_of(acts, "m-3")["unchanged"]) == (2, 1)


@pytest.mark.parametrize("count", [3, 2_000], ids=["in a segment", "in a file of its own"])
def test_its_evidence_is_sealed_and_lies_nowhere_in_the_clear(acts: Acts, count: int) -> None:
    received, other = acts.push("m-1", covers("A", count)), acts.push("m-2", covers("B"))
    raw = acts.bus.evidence.read(received.inbox.evidence).read()
    process(FEED, acts.bus)
    acts.recall(acts.recalling("m-1"))
    process(FEED, acts.bus)
    row = row_of(acts, "m-1")
    assert is_sealed(row.evidence)
    assert reopened(row, acts.bus).content.read() == covers("A", count), "two persons may still open it"
    assert reopened(other.inbox, acts.bus).content.read() == covers("B"), "its neighbour is whole"
    files = [path.read_bytes() for path in acts.bus.folder.rglob("*") if path.is_file()]
    assert not any(raw[-200:] in octets for octets in files)


def test_a_recall_while_act_two_is_at_the_delivery_ends_what_came_of_it(
    acts: Acts, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        acts.push(f"m-{number}", covers(f"A{number}"))
    report = processing._report

    def recalled_meanwhile(*arguments: Any) -> None:
        acts.recall(acts.recalling("m-1"))
        report(*arguments)

    monkeypatch.setattr(processing, "_report", recalled_meanwhile)
    process(FEED, acts.bus)
    assert [status_of(acts, f"m-{number}") for number in range(3)] == ["processed", "recalled", "processed"]
    assert acts.bus.store.ledger().claims == 6
    assert acts.bus.journal.feeds_waiting() == []
    assert all_holds(acts)


def test_a_held_and_a_refused_delivery_can_be_recalled(acts: Acts) -> None:
    acts.push("m-1", covers("A", 20), SNAPSHOT)
    process(SNAPSHOT, acts.bus)
    limited = msgspec.structs.replace(acts.bus.feeds[SNAPSHOT], gone_limit_percent=10.0)
    with_limit = acts.with_(feeds={**acts.bus.feeds, SNAPSHOT: limited})
    acts.push("m-2", covers("A", 2), SNAPSHOT)
    acts.push("m-3", b"no table", FEED)
    process(SNAPSHOT, with_limit.bus)
    process(FEED, acts.bus)
    assert [status_of(acts, message_id) for message_id in ("m-2", "m-3")] == ["held", "refused"]
    for message_id in ("m-2", "m-3"):
        acts.recall(acts.recalling(message_id))
    process(SNAPSHOT, acts.bus)
    process(FEED, acts.bus)
    assert [status_of(acts, message_id) for message_id in ("m-2", "m-3")] == ["recalled", "recalled"]
    assert acts.bus.store.ledger().claims == 20
    assert all_holds(acts)


def test_another_bureau_recalls_nothing_and_learns_nothing(acts: Acts) -> None:
    acts.push("m-1", covers("A"))
    assert refused(acts, "m-1", "others") == "delivery.unknown"
    assert refused(acts, "never-was", "others") == "delivery.unknown"
    assert refused(acts, "m-1", "others", Sender="made-up") == "auth.sender_mismatch"
    assert status_of(acts, "m-1") == "waiting"
    assert [entry.leaf.outcome for entry in acts.bus.journal.search(type="refusal")][:1] == ["auth.sender_mismatch"]


def test_an_id_that_never_was_is_unknown(acts: Acts) -> None:
    assert refused(acts, "never-was") == "delivery.unknown"


def test_what_was_signed_for_another_operation_recalls_nothing(acts: Acts) -> None:
    acts.push("m-1", covers("A"))
    delivery = msgspec.structs.replace(
        acts.asking("GetReport", "r-1", DeliveryMessageId="m-1"), operation="RecallDelivery"
    )
    with pytest.raises(Refusal) as problem:
        acts.recall(delivery)
    assert problem.value.code == "soap.action_mismatch"


def test_who_may_sign_in_a_bureaus_name_recalls_in_it_and_says_so(acts: Acts) -> None:
    acts.push("m-1", covers("A"))
    acts.trial.grant("others", "on_behalf_of", "made-up")
    acts.recall(acts.recalling("m-1", "others", Sender="made-up"))
    (entry,) = acts.bus.journal.search(type="recall", outcome="recalled")
    assert entry.leaf.sender == "made-up"
    assert entry.detail is not None
    assert entry.detail["asserted_by"] == "others"


def test_a_bureau_whose_grant_was_revoked_takes_back_what_it_sent(acts: Acts) -> None:
    grant = next(one.id for one in acts.bus.registry.grants("made-up") if one.target == FEED)
    acts.push("m-1", covers("A"))
    with registry(acts.trial.settings) as opened:
        opened.revoke_grant(grant, PROPOSER)
    acts.recall(acts.recalling("m-1"))
    assert status_of(acts, "m-1") == "recalled"


STEPS = ("recall.store:before", "recall.store:after", "seal.note:before", "seal.note:after", "seal.wiped:after")
ACT_TWO = (
    "import sys; from pathlib import Path; from exchange.app import opening; from exchange.processing import process; "
    "from exchange.settings import load_settings; "
    "process(sys.argv[2], opening.open_bus(load_settings(Path(sys.argv[1]))))"
)


@pytest.mark.parametrize("step", [*STEPS, "recall.carried_out:after"])
def test_a_crash_at_any_step_leaves_a_recall_that_is_finished_and_nothing_in_the_clear(acts: Acts, step: str) -> None:
    received = acts.push("m-1", covers("A"))
    raw = acts.bus.evidence.read(received.inbox.evidence).read()
    process(FEED, acts.bus)
    acts.recall(acts.recalling("m-1"))
    command = [sys.executable, "-c", ACT_TWO, acts.trial.settings.source, FEED]
    killed = subprocess.run(command, env={**os.environ, "YONGTONG_FAULT": f"{step}:1"}, check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    process(FEED, acts.bus)
    row = row_of(acts, "m-1")
    assert (row.status, row.decision, is_sealed(row.evidence)) == ("recalled", "", True)
    assert reopened(row, acts.bus).content.read() == covers("A")
    assert not any(raw[-200:] in path.read_bytes() for path in acts.bus.folder.rglob("*") if path.is_file())
    assert acts.bus.store.ledger().claims == 0
    assert len(acts.bus.journal.search(type="recall", outcome="carried_out")) == 1
    assert all_holds(acts)


@pytest.mark.parametrize("with_anothers_entry", [False, True])
def test_a_recall_that_somebody_wrote_into_the_table_ends_nothing(acts: Acts, with_anothers_entry: bool) -> None:
    for message_id in ("m-1", "m-2"):
        acts.push(message_id, covers(message_id))
    process(FEED, acts.bus)
    acts.recall(acts.recalling("m-2"))
    process(FEED, acts.bus)
    victim = row_of(acts, "m-1").id
    with closing(sqlite3.connect(acts.bus.folder / "journal.sqlite")) as connection:
        connection.execute("UPDATE inbox SET status = 'recalled', decision = 'recall' WHERE id = ?", (victim,))
        if with_anothers_entry:
            connection.execute("UPDATE reports SET inbox_id = ? WHERE inbox_id <> ?", (victim, victim))
        connection.commit()
    process(FEED, acts.bus)
    assert acts.bus.store.ledger().claims == 3
    assert not is_sealed(row_of(acts, "m-1").evidence)
