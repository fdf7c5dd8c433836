"""销毁 Content erased by two persons: the bytes are nowhere, receipts and proofs go on verifying and say so."""

import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from exchange import audit, erasing, processing
from exchange.app import places, trusted
from exchange.audit_erasures import erasing_of
from exchange.cli import main as command_line
from exchange.cli.demo_voices import spellings
from exchange.cli.people import registry
from exchange.cli.trial import APPROVER, AUDITOR, PROPOSER, SYSTEM
from exchange.decision_documents import ErasureBody
from exchange.entry import ERASURE, Detail, Entry, InboxRow
from exchange.erasing import ranges_text
from exchange.ownership import ownership
from exchange.processing import process
from exchange.publication import changes_after
from exchange.reading import reopened
from exchange.receipts import verify_receipt
from exchange.settings import load_settings
from security.batch import is_together
from security.errors import AuditBroken, Misconfigured, Refusal
from tests.acts.bench_of_one import FEED, REGISTER, Acts, both_acts
from tests.acts.test_four_eyes import Desk

SEALED = "sealed-covers"
NAMED = REGISTER.replace("[fields]", '[fields]\nowner_name = { from = "权属" }\nnote = { from = "备注" }').replace(
    '\n[defaults]\nowner_name = "某单位"\n', "\n"
)
SECRETS = ("MARK-KEY", "MARK-OWNER", "MARK-NOTE", "MARK-CLASS")


def content(mark: str = "MARK", count: int = 3) -> bytes:
    """Covers of which every column says a mark; one is rejected, so that its value stands among the findings."""
    rows = [
        f"{mark}-KEY-{n},0101,121.5470{n % 10},29.868{n % 1000:03},{mark}-OWNER,{mark}-NOTE-{n}" for n in range(count)
    ]
    rows += [f"{mark}-KEY-X,{mark}-CLASS,121.548,29.869,{mark}-OWNER,{mark}-NOTE"]
    return "\n".join(["编号,类别,经度,纬度,权属,备注", *rows, ""]).encode()


def found_in(folder: Path, *words: str) -> list[str]:
    """Files in which a word lies, in clear or in base64 however it is aligned."""
    spelt = [one for word in words for one in spellings(word.encode())]
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return [name for name, octets in files.items() if any(one in octets for one in spelt)]


@pytest.fixture
def acts(tmp_path: Path) -> Iterator[Acts]:
    sealed = NAMED.replace(FEED, SEALED).replace("\n[fields]", '\nsensitive = ["note"]\n\n[fields]', 1)
    with both_acts(tmp_path, **{FEED: NAMED, SEALED: sealed}) as acts:
        for feed in (FEED, SEALED):
            acts.trial.grant("made-up", "push", feed)
        yield acts


@pytest.fixture
def desk(acts: Acts, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(acts, capsys)


def asked(desk: Desk, *words: str) -> str:
    code, said = desk.run("erasure", "ask", *words, "--ground", "删除请求", by=AUDITOR)
    assert code == 0, said
    return str(said["decision"])


def decided(desk: Desk, *words: str) -> str:
    decision = asked(desk, *words)
    assert desk.run("decision", "approve", decision, by=APPROVER)[0] == 0
    return decision


def row_of(acts: Acts, message_id: str) -> InboxRow:
    row = acts.bus.journal.inbox("made-up", message_id)
    assert row is not None
    return row


def today() -> str:
    from exchange.entry import day_of, instant

    return day_of(instant(places.utc_now()))


def sent_and_done(acts: Acts, message_id: str = "m-1", feed: str = FEED, count: int = 3, mark: str = "MARK") -> bytes:
    receipt = acts.push(message_id, content(mark, count), feed).inbox.receipt
    process(feed, acts.bus)
    assert receipt is not None
    return receipt


def test_what_is_looked_for_would_be_found(acts: Acts) -> None:
    sent_and_done(acts)
    lies = {name.partition("/")[0].removesuffix("-wal") for name in found_in(acts.bus.folder, *SECRETS)}
    assert {"journal.sqlite", "store.sqlite", "evidence"} <= lies


@pytest.mark.parametrize("count", [3, 900], ids=["in a segment", "in a file of its own"])
@pytest.mark.parametrize("feed", [FEED, SEALED])
@pytest.mark.parametrize("kind", ["personal", "recall"])
def test_the_bytes_are_nowhere_in_the_state_folder(acts: Acts, desk: Desk, kind: str, feed: str, count: int) -> None:
    receipt = sent_and_done(acts, feed=feed, count=count)
    report = acts.bus.journal.report("made-up", "m-1")
    sent_and_done(acts, "m-2", feed, mark="OTHER")
    if kind == "recall":
        acts.recall(acts.recalling("m-1"))
        process(feed, acts.bus)
    assert desk.run("erasure", "carry", decided(desk, "m-1", "--kind", kind), by=AUDITOR)[0] == 0
    process(feed, acts.bus)
    assert found_in(acts.bus.folder, *SECRETS) == []
    assert found_in(acts.bus.folder, "OTHER-KEY") != []
    assert reopened(row_of(acts, "m-2"), acts.bus).content.read() == content("OTHER")
    anchors = trusted.anchors_of(acts.trial.settings)
    verdict = audit.verify(acts.bus.folder, anchors)
    assert verdict.problems == []
    assert verdict.erased >= 2
    # What the bureau kept goes on verifying, and our copy of the receipt is the same for ever.
    assert report is not None
    assert [verify_receipt(octets, anchors).kind for octets in (receipt, report)] == ["receipt", "report"]
    assert row_of(acts, "m-1").receipt == receipt


def test_readers_are_told_and_a_day_before_says_so_too(acts: Acts, desk: Desk) -> None:
    sent_and_done(acts)
    last = max(change.change_number for change in changes_after(acts.bus.store, 0, 100).changes)
    desk.run("erasure", "carry", decided(desk, "m-1", "--kind", "personal"), by=AUDITOR)
    assert {change.kind for change in changes_after(acts.bus.store, last, 100).changes} == {"recalled"}
    told = ownership(acts.bus.store, "1")
    assert (told.claims, told.verdict) == ((), "nobody claims this")
    assert (told.component.longitude_deg, told.component.division_code) == (0.0, None)


def test_every_answer_says_on_which_day_it_was_erased(acts: Acts, desk: Desk) -> None:
    import asyncio

    from exchange.http.operations import get_receipt, get_report

    receipt = sent_and_done(acts)
    desk.run("erasure", "carry", decided(desk, "m-1", "--kind", "personal"), by=AUDITOR)
    for name, operation in (("GetReceipt", get_receipt), ("GetReport", get_report)):
        delivery = acts.asking(name, f"r-{name}", DeliveryMessageId="m-1")
        answer = asyncio.run(operation(delivery, "1.1", acts.bus))
        assert acts.bus.schema.validate(answer), acts.bus.schema.error_log
        assert answer.findtext("{urn:yongtong:v1}ContentErasedOn") == today()
        assert answer.findtext("{urn:yongtong:v1}Receipt", "") == (receipt.decode() if name == "GetReceipt" else "")
    index = str(row_of(acts, "m-1").entry_index)
    for by in (AUDITOR,):
        _, shown = desk.run("audit", "prove", index, by=by)
        assert (shown["erased"]["code"], shown["erased"]["erased_on"]) == ("content.erased", today())
        assert (shown["salt"], shown["detail"]) == (None, None)
        assert shown["proof"]
    opening = desk.decided("evidence", "m-1")
    code, said = desk.run("evidence", "open", opening, str(acts.trial.folder / "out"), by=AUDITOR)
    assert (code, said["refused"]["code"]) == (1, "evidence.erased")
    assert f"content erased on {today()} 内容已于 {today()} 销毁" in said["refused"]["detail"]
    with pytest.raises(Refusal) as problem:
        acts.recall(acts.recalling("m-9"))
    assert problem.value.code == "delivery.unknown"


def test_one_person_alone_erases_nothing(acts: Acts, desk: Desk) -> None:
    sent_and_done(acts)
    words = ("erasure", "ask", "m-1", "--kind", "personal", "--ground", "g")
    for by in (PROPOSER, SYSTEM):
        assert desk.refused(*words, by=by) == "role.not_held"
    decision = asked(desk, "m-1", "--kind", "personal")
    assert desk.refused("erasure", "carry", decision, by=AUDITOR) == "decision.not_in_force"
    assert desk.refused("decision", "approve", decision, by=AUDITOR) == "role.not_held"
    desk.run("decision", "approve", decision, by=APPROVER)
    assert desk.refused("erasure", "carry", decision, by=APPROVER) == "role.not_held"
    assert reopened(row_of(acts, "m-1"), acts.bus).content.read() == content()


def test_it_is_carried_out_once(acts: Acts, desk: Desk) -> None:
    sent_and_done(acts)
    decision = decided(desk, "m-1", "--kind", "personal")
    assert desk.run("erasure", "carry", decision, by=AUDITOR)[0] == 0
    assert desk.refused("erasure", "carry", decision, by=AUDITOR) == "decision.not_in_force"
    assert len(acts.bus.journal.search(type="erasure")) == 1
    (entry,) = acts.bus.journal.search(type="decision", outcome="carried_out")
    assert entry.leaf.actor.startswith("person-")


def test_a_second_decision_over_the_same_finds_nothing_left_and_is_carried_out(acts: Acts, desk: Desk) -> None:
    sent_and_done(acts)
    for _ in range(2):
        assert desk.run("erasure", "carry", decided(desk, "m-1", "--kind", "personal"), by=AUDITOR)[0] == 0
    assert len(acts.bus.journal.search(type="erasure")) == 1
    assert audit.verify(acts.bus.folder, trusted.anchors_of(acts.trial.settings)).problems == []


def test_what_was_not_recalled_is_not_erased_on_that_ground(acts: Acts, desk: Desk) -> None:
    sent_and_done(acts)
    assert desk.refused("erasure", "ask", "m-1", "--ground", "g", by=AUDITOR) == "erasure.not_recalled"


def test_an_erasure_before_act_two_leaves_nothing_for_it(acts: Acts, desk: Desk) -> None:
    acts.push("m-1", content())
    desk.run("erasure", "carry", decided(desk, "m-1", "--kind", "personal"), by=AUDITOR)
    process(FEED, acts.bus)
    assert row_of(acts, "m-1").status == "refused"
    assert found_in(acts.bus.folder, *SECRETS) == []
    assert audit.verify(acts.bus.folder, trusted.anchors_of(acts.trial.settings)).problems == []


@pytest.mark.parametrize("recalled_first", [False, True])
def test_a_recall_and_an_erasure_meet_and_neither_undoes_the_other(
    acts: Acts, desk: Desk, recalled_first: bool
) -> None:
    sent_and_done(acts)
    decision = decided(desk, "m-1", "--kind", "personal")
    if recalled_first:
        acts.recall(acts.recalling("m-1"))
    assert desk.run("erasure", "carry", decision, by=AUDITOR)[0] == 0
    if not recalled_first:
        acts.recall(acts.recalling("m-1"))
    process(FEED, acts.bus)
    assert row_of(acts, "m-1").evidence == f"erased:{decision}"
    assert acts.bus.journal.feeds_waiting() == []
    assert found_in(acts.bus.folder, *SECRETS) == []
    assert audit.verify(acts.bus.folder, trusted.anchors_of(acts.trial.settings)).problems == []


STEPS = ("bytes:before", "store:before", "note:before", "scrub:before", "carry:before", "carry:after")


@pytest.mark.parametrize("step", STEPS)
def test_a_crash_at_any_step_leaves_an_erasure_that_is_finished(acts: Acts, desk: Desk, step: str) -> None:
    sent_and_done(acts)
    decision = decided(desk, "m-1", "--kind", "personal")
    command = [sys.executable, "-m", "exchange.cli.main", "erasure", "carry", decision, "--by", AUDITOR.name]
    command += ["--settings", acts.trial.settings.source, "--json"]
    environment = {**os.environ, "YONGTONG_FAULT": f"erasure.{step}:1"}
    killed = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    anchors = trusted.anchors_of(acts.trial.settings)
    assert audit.verify(acts.bus.folder, anchors).problems == []
    code, said = desk.run("erasure", "carry", decision, by=AUDITOR)
    assert code == (1 if step == "carry:after" else 0), said
    assert found_in(acts.bus.folder, *SECRETS) == []
    assert len(acts.bus.journal.search(type="erasure")) == 1
    assert len(acts.bus.journal.search(type="decision", outcome="carried_out")) == 1
    assert audit.verify(acts.bus.folder, anchors).problems == []


def test_details_that_no_decision_bears_out_are_named_even_beside_ones_that_are(acts: Acts, desk: Desk) -> None:
    """Who writes to the database erases another entry and claims the decision for it."""
    sent_and_done(acts)
    sent_and_done(acts, "m-2", mark="OTHER")
    decision = decided(desk, "m-1", "--kind", "personal")
    desk.run("erasure", "carry", decision, by=AUDITOR)
    (said,) = acts.bus.journal.search(type="erasure")
    index = row_of(acts, "m-2").entry_index
    with closing(sqlite3.connect(acts.bus.folder / "journal.sqlite")) as connection:
        connection.execute("UPDATE details SET salt = NULL, detail = NULL WHERE idx = ?", (index,))
        connection.execute("INSERT INTO erasures VALUES (?, 'detail', ?, ?)", (index, said.index, decision))
        connection.commit()
    verdict = audit.verify(acts.bus.folder, trusted.anchors_of(acts.trial.settings))
    assert {problem.entry for problem in verdict.problems} == {index}


# Erased by nobody's leave: the log's key and the database in one hand, and no officer's key.


def entered(acts: Acts, decision: str, reason: str, details: list[int], rows: tuple[InboxRow, ...] = ()) -> int:
    """The bus's own program made to erase, whatever the decision that it names; gives the entry that says so."""
    detail: Detail = {"of": decision, "entries": ranges_text(details), "deliveries": len(rows)}
    entry = Entry(type=ERASURE, outcome=reason, trust_digest=acts.bus.registry.trust().digest, detail=detail)
    for row in rows:
        acts.bus.evidence.erase(row.evidence)
    return acts.bus.journal.note(entry, partial(erasing._forget, decision, rows, details)).result().index


def about(acts: Acts, message_id: str) -> list[int]:
    return acts.bus.journal.details_of(row_of(acts, message_id))


def wrong(acts: Acts) -> set[int | None]:
    return {one.entry for one in audit.verify(acts.bus.folder, trusted.anchors_of(acts.trial.settings)).problems}


def test_a_grant_bears_out_no_erasure(acts: Acts) -> None:
    sent_and_done(acts)
    details = about(acts, "m-1")
    entered(acts, acts.bus.registry.grants("made-up")[0].id, "personal", details)
    assert wrong(acts) == set(details)


def test_a_decision_over_one_delivery_bears_out_the_erasure_of_no_other(acts: Acts, desk: Desk) -> None:
    sent_and_done(acts)
    sent_and_done(acts, "m-2", mark="OTHER")
    decision = decided(desk, "m-1", "--kind", "personal")
    desk.run("erasure", "carry", decision, by=AUDITOR)
    assert wrong(acts) == set()
    details, row = about(acts, "m-2"), row_of(acts, "m-2")
    entered(acts, decision, "personal", details, (row,))
    assert len(details) >= 2
    assert wrong(acts) == set(details)


def test_a_decision_that_waits_for_its_second_person_bears_out_no_erasure(acts: Acts, desk: Desk) -> None:
    sent_and_done(acts)
    details = about(acts, "m-1")
    entered(acts, asked(desk, "m-1", "--kind", "personal"), "personal", details)
    assert wrong(acts) == set(details)


def test_a_decision_approved_after_the_erasure_does_not_bear_it_out(acts: Acts, desk: Desk) -> None:
    sent_and_done(acts)
    details, decision = about(acts, "m-1"), asked(desk, "m-1", "--kind", "personal")
    entered(acts, decision, "personal", details)
    assert desk.run("decision", "approve", decision, by=APPROVER)[0] == 0
    assert wrong(acts) == set(details)


def test_a_purge_by_age_bears_out_nothing_that_is_younger(acts: Acts, desk: Desk) -> None:
    sent_and_done(acts)
    decision = decided(desk, "--kind", "retention")
    details, row = about(acts, "m-1"), row_of(acts, "m-1")
    entered(acts, decision, "retention", details, (row,))
    assert wrong(acts) == set(details)


def test_a_decisions_own_detail_is_erased_by_nobody_and_the_bus_stops(acts: Acts, desk: Desk) -> None:
    """Else a revocation would be forgotten, and what it ended be in force again in the next process."""
    sent_and_done(acts)
    grant = acts.bus.registry.grants("made-up")[0].id
    with registry(acts.trial.settings) as opened:
        opened.revoke_grant(grant, APPROVER)
    (revoked,) = acts.bus.journal.search(type="decision", outcome="revoked")
    decision = decided(desk, "m-1", "--kind", "personal")
    entered(acts, decision, "personal", [revoked.index])
    assert wrong(acts) == {revoked.index}
    with registry(acts.trial.settings) as opened, pytest.raises(AuditBroken, match=f"entry {revoked.index}"):
        opened.grants("made-up")


def test_what_an_erasure_said_is_erased_by_nobody(acts: Acts, desk: Desk) -> None:
    sent_and_done(acts)
    decision = decided(desk, "m-1", "--kind", "personal")
    desk.run("erasure", "carry", decision, by=AUDITOR)
    (said,) = acts.bus.journal.search(type="erasure")
    entered(acts, decision, "personal", [said.index])
    assert said.index in wrong(acts)


def test_bytes_that_no_decision_bears_out_are_named_as_details_are(acts: Acts, desk: Desk) -> None:
    for message_id in ("m-1", "m-2", "m-3"):
        acts.push(message_id, content())
    decision = decided(desk, "m-1", "--kind", "personal")
    rows = [row_of(acts, message_id) for message_id in ("m-1", "m-2", "m-3")]
    entered(acts, decision, "personal", [], (rows[0],))
    assert wrong(acts) == set()
    entered(acts, decision, "personal", [], (rows[1],))
    with closing(sqlite3.connect(acts.bus.folder / "journal.sqlite")) as connection, connection:
        connection.execute("UPDATE inbox SET evidence = ? WHERE id = ?", (f"erased:{decision}", rows[2].id))
    assert wrong(acts) == {rows[1].entry_index, rows[2].entry_index}


def test_an_entry_that_says_more_numbers_than_the_log_has_is_read_in_no_time(acts: Acts, desk: Desk) -> None:
    sent_and_done(acts)
    details, decision = about(acts, "m-1"), decided(desk, "m-1", "--kind", "personal")
    detail: Detail = {"of": decision, "entries": "0-9999999999", "deliveries": 0}
    entry = Entry(type=ERASURE, outcome="personal", detail=detail)
    acts.bus.journal.note(entry, partial(erasing._forget, decision, (), details)).result()
    assert wrong(acts) == set(details)


def test_what_an_erasing_entry_names_is_read_once_and_not_once_for_each_detail_that_it_names(
    acts: Acts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a log of which thousands of details were erased would be verified in hours."""
    count, read = 3_000, []
    notes = [acts.bus.journal.note(Entry(type="read", outcome="answered", detail={"n": n})) for n in range(count)]
    details = sorted(one.result().index for one in notes)
    by = entered(acts, acts.bus.registry.grants("made-up")[0].id, "retention", details)

    def once(entry: int, *said: Any) -> Any:
        read.append(entry)
        return erasing_of(entry, *said)

    monkeypatch.setattr(audit, "erasing_of", once)
    verdict = audit.verify(acts.bus.folder, trusted.anchors_of(acts.trial.settings))
    assert verdict.found == count
    assert read == [by]


def test_what_is_said_to_be_erased_and_is_there_is_named(acts: Acts, desk: Desk) -> None:
    sent_and_done(acts)
    index, decision = row_of(acts, "m-1").entry_index, decided(desk, "m-1", "--kind", "personal")
    with closing(sqlite3.connect(acts.bus.folder / "journal.sqlite")) as connection, connection:
        connection.execute("INSERT INTO erasures VALUES (?, 'detail', 1, ?)", (index, decision))
    assert wrong(acts) == {index}


def test_bytes_go_after_the_detail_is_gone_of_deliveries_whose_receipts_were_signed_together(acts: Acts) -> None:
    """By age the detail may go before the bytes: which bytes they are, then only the receipt says."""
    acts.receive_all(*(acts.by_broker(f"m-{number}", content()) for number in range(4)))
    together = [row for row in (row_of(acts, f"m-{n}") for n in range(4)) if is_together(row.receipt or b"")]
    digest = acts.bus.journal.evidence_digest(together[0])
    with closing(sqlite3.connect(acts.bus.folder / "journal.sqlite")) as connection, connection:
        connection.execute("UPDATE details SET salt = NULL, detail = NULL WHERE idx = ?", (together[0].entry_index,))
    assert acts.bus.journal.evidence_digest(together[0]) == digest != ""
    erasing._check_location(together[0], acts.bus)


# Retention.


class Later:
    """The same bus, some days later, for the command line and the acts alike."""

    def __init__(self, acts: Acts, desk: Desk, days: int, monkeypatch: pytest.MonkeyPatch) -> None:
        now = places.utc_now
        monkeypatch.setattr(places, "utc_now", lambda: now() + timedelta(days=days))
        self.acts, self.desk = acts, desk


def test_all_that_is_due_goes_by_one_decision_and_what_stands_in_the_register_stays(
    acts: Acts, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    receipts = [sent_and_done(acts, f"m-{n}", mark=f"MARK{n}") for n in range(2)]
    held = acts.push("m-waiting", content("WAITS")).inbox
    claims = acts.bus.store.ledger().claims
    _, before = _due(acts, desk)
    assert (before["deliveries"], before["details"]) == (0, 0)
    Later(acts, desk, 1_200, monkeypatch)
    _, due = _due(acts, desk)
    assert due["deliveries"] == 2
    assert due["details"] >= 4
    decision = decided(desk, "--kind", "retention")
    assert desk.run("erasure", "carry", decision, by=AUDITOR)[0] == 0
    assert _due(acts, desk)[1]["deliveries"] == 0
    assert acts.bus.store.ledger().claims == claims
    assert [name for name in found_in(acts.bus.folder, "MARK0-CLASS") if not name.startswith("store")] == []
    assert reopened(acts.bus.journal.inbox("made-up", "m-waiting") or held, acts.bus).content.read() == content("WAITS")
    verdict = audit.verify(acts.bus.folder, trusted.anchors_of(acts.trial.settings))
    assert verdict.problems == []
    assert verdict.erased >= 4
    assert [row_of(acts, f"m-{n}").receipt for n in range(2)] == receipts
    with registry(acts.trial.settings) as opened:
        assert opened.troubles() == [], "what persons decided is still told from the log"
        assert opened.grants("made-up")


def _due(acts: Acts, desk: Desk) -> tuple[int, dict[str, Any]]:
    code = command_line.main(["erasure", "due", "--settings", acts.trial.settings.source, "--json"])
    return code, json.loads(desk._capsys.readouterr().out)


@pytest.mark.parametrize("days, starts", [(90, False), (183, False), (184, True), (400, True)])
def test_audit_detail_under_six_months_fails_at_start(acts: Acts, desk: Desk, days: int, starts: bool) -> None:
    path = Path(acts.trial.settings.source)
    path.write_text(path.read_text() + f"\n[retention]\naudit_detail_days = {days}\n")
    if starts:
        assert load_settings(path).retention.audit_detail_days == days
        return
    with pytest.raises(Misconfigured, match=rf"audit_detail_days = {days}.*six months"):
        load_settings(path)
    assert command_line.main(["serve", "--settings", str(path), "--json"]) == 2
    assert "audit_detail_days" in desk._capsys.readouterr().out


def test_two_persons_may_not_erase_what_is_younger_than_six_months(acts: Acts) -> None:
    """Whatever settings say on the machine at which it is proposed."""
    young = (date.fromisoformat(today()) - timedelta(days=183)).isoformat()
    with registry(acts.trial.settings) as opened:
        for body, code in (
            (ErasureBody("", "", "g", "retention", young, young), "erasure.too_young"),
            (ErasureBody("", "", "g", "retention", "yesterday", "2020-01-01"), "erasure.not_meant"),
            (ErasureBody("made-up", "m-1", "g", "retention", "2020-01-01", "2020-01-01"), "erasure.not_meant"),
            (ErasureBody("made-up", "m-1", "g", "personal", "2020-01-01", "2020-01-01"), "erasure.not_meant"),
            (ErasureBody("", "", "g", "personal"), "erasure.not_meant"),
        ):
            with pytest.raises(Refusal) as problem:
                opened.propose_erasure(body, AUDITOR)
            assert problem.value.code == code


def test_the_file_of_outcomes_forgets_the_keys_of_one_and_keeps_those_of_its_neighbours(acts: Acts, desk: Desk) -> None:
    """Read as octets that no codec hides: a column that is only masked would still hold them."""
    for message_id, mark in (("m-1", "MARK"), ("m-2", "OTHER")):
        acts.push(message_id, content(mark))
    process(FEED, acts.bus)
    desk.run("erasure", "carry", decided(desk, "m-1", "--kind", "personal"), by=AUDITOR)
    with closing(sqlite3.connect(acts.bus.folder / "store.sqlite")) as connection:
        ((octets,),) = connection.execute("SELECT outcomes FROM commits").fetchall()
    held = pl.read_ipc(io.BytesIO(octets))
    plain = io.BytesIO()
    held.write_ipc(plain)
    assert b"MARK" not in plain.getvalue()
    assert b"OTHER-KEY" in plain.getvalue()
    assert held["outcome"].to_list().count("new") == 6


def test_an_erasure_waits_for_act_two_which_is_at_the_delivery_and_finds_what_it_stored(
    acts: Acts, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the batch, which had read the content before, would write it after the erasure."""
    acts.push("m-1", content())
    decision = decided(desk, "m-1", "--kind", "personal")
    command = [sys.executable, "-m", "exchange.cli.main", "erasure", "carry", decision, "--by", AUDITOR.name]
    command += ["--settings", acts.trial.settings.source, "--json"]
    started: list[subprocess.Popen[bytes]] = []
    joined = processing.joining.join

    def erased_meanwhile(*arguments: Any) -> Any:
        started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        with pytest.raises(subprocess.TimeoutExpired):
            started[0].wait(6)
        return joined(*arguments)

    monkeypatch.setattr(processing.joining, "join", erased_meanwhile)
    process(FEED, acts.bus)
    assert started[0].wait(60) == 0
    process(FEED, acts.bus)
    assert found_in(acts.bus.folder, *SECRETS) == []
    assert acts.bus.store.ledger().claims == 0
    assert audit.verify(acts.bus.folder, trusted.anchors_of(acts.trial.settings)).problems == []
