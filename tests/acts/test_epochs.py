"""A new epoch of the log: two persons, an entry, new keys for log and answers; and partners who follow into it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.partner.folder import PartnerFolder
from connectors.partner.heads import Heads
from connectors.partner.log import Kept, Log
from connectors.partner.witness import LogWitness
from exchange import audit
from exchange.anchor_updates import Update, make_update
from exchange.app import changing, opening, places, trusted
from exchange.bundle_check import verify_bundle
from exchange.cli import main as command_line
from exchange.cli.keys import follow
from exchange.cli.people import registry
from exchange.cli.trial import APPROVER, AUDITOR, PROPOSER, SYSTEM
from exchange.decision_documents import EpochBody, Officer
from exchange.decisions import EpochBegun
from exchange.doctor.examine import examine
from exchange.journal import Entry
from exchange.processing import process
from exchange.receipts import RECEIPT, verify_receipt
from security.anchors import Anchors
from security.bundle import MANIFEST
from security.checkpoint import Checkpoint, sign_checkpoint
from security.errors import AuditBroken, Misconfigured, Refusal
from security.jws import sign_document
from security.keys import SigningKey, generate
from security.message import in_memory
from tests.acts.bench_of_one import FEED, Acts, both_acts, covers
from tests.acts.bundles import row, says
from tests.acts.evidence_of_one import Evidence, packed, write_anchors
from tests.acts.test_without_us import SCRIPTS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def acts(tmp_path: Path) -> Iterator[Acts]:
    with both_acts(tmp_path) as acts:
        acts.trial.grant("made-up", "push", FEED)
        yield acts


def decide(acts: Acts, known: Checkpoint | None = None) -> tuple[str, EpochBody]:
    settings = acts.trial.settings
    with registry(settings) as opened:
        body = changing.make_epoch(settings, opened.next_log(), "日志私钥失窃", known, places.utc_now())
        decision = opened.propose_epoch(body, SYSTEM)
        opened.approve(decision, APPROVER)
    return decision, body


def begin(acts: Acts, known: Checkpoint | None = None) -> tuple[Acts, Anchors]:
    """Decided, the bus stopped, the epoch opened, and the bus opened again."""
    decision, body = decide(acts, known)
    acts.bus.close()
    anchors = changing.open_epoch(acts.trial.settings, decision, body, SYSTEM)
    return opened_again(acts), anchors


def opened_again(acts: Acts) -> Acts:
    bus = opening.open_bus(acts.trial.settings)
    bus.journal.resume()  # as serve does at its start
    return Acts(acts.trial, bus)


def push(acts: Acts, message_id: str) -> bytes:
    receipt = acts.push(message_id, covers(message_id)).inbox.receipt
    assert receipt is not None
    return receipt


def update_for(acts: Acts, folder: PartnerFolder) -> bytes:
    known = Heads(folder, places.utc_now).known_size()
    return make_update(acts.bus.journal, acts.bus.registry.key_changes(), known)


def remember(acts: Acts) -> None:
    acts.folder.remember(acts.bus.journal.checkpoint())


def key_file(acts: Acts, name: str) -> SigningKey:
    """A key of `init`."""
    folder = acts.trial.folder / "keys"
    return SigningKey.load(folder / f"{name}.key", certificate_path=folder / "answer.pem" if name == "answer" else None)


def test_an_epoch_begins_with_an_entry_and_all_that_was_goes_on_counting(
    acts: Acts, tell: Callable[[str], None]
) -> None:
    name = acts.bus.origin
    old = push(acts, "m-1")
    process(FEED, acts.bus)
    report = acts.bus.journal.report("made-up", "m-1")
    waiting = push(acts, "m-2")
    before = trusted.anchors_of(acts.trial.settings)
    acts, anchors = begin(acts)
    with closing(acts.bus):
        journal = acts.bus.journal
        ended = anchors.former_epochs[0]
        assert (anchors.origin, anchors.log, ended.log) == (name, f"{name}/2", name)
        assert acts.bus.origin == name, "partners go on naming the same recipient"
        first = journal.entry(ended.size)
        assert first is not None
        assert first.detail is not None
        assert (first.detail["former_log"], first.detail["size"], first.detail["root"]) == (
            name,
            ended.size,
            ended.root,
        )
        head = anchors.head(journal.checkpoint())
        assert (head.origin, head.size) == (f"{name}/2", ended.size + 1)
        assert journal.checkpoint().rpartition("\n\n")[2].count("\n") == 1, "the stolen key was not asked"
        with pytest.raises(Refusal):
            before.head(journal.checkpoint())
        # What was given out goes on holding, and a repeated delivery gets it again, bit for bit.
        assert report is not None
        for document in (old, waiting, report):
            assert verify_receipt(document, anchors).checkpoint.origin == name
        size = journal.size()
        assert acts.push("m-1", covers("m-1")).inbox.receipt == old
        assert journal.receipt("made-up", "m-1") == old
        assert journal.report("made-up", "m-1") == report
        assert journal.size() == size, "nothing is doubled"
        # Grants and certificates count; what waited is finished in the new epoch.
        new = push(acts, "m-3")
        process(FEED, acts.bus)
        later = journal.report("made-up", "m-2")
        for document in (new, later or b""):
            assert verify_receipt(document, anchors).checkpoint.origin == f"{name}/2"
        verdict = audit.verify(acts.trial.state, anchors)
        assert verdict.ok, verdict.problems
        assert trusted.anchors_of(acts.trial.settings) == anchors
        tell(f"EPOCH: {ended.log} ended with {ended.size} entries; {verdict.heads} heads of two names verified")


def test_one_person_alone_opens_no_epoch_and_each_act_has_its_office(acts: Acts) -> None:
    settings = acts.trial.settings
    body = changing.make_epoch(settings, f"{acts.bus.origin}/2", "g", None, places.utc_now())
    with registry(settings) as opened:
        for other in (PROPOSER, AUDITOR):
            with pytest.raises(Refusal, match=r"role\.not_held"):
                opened.propose_epoch(body, other)
        for log in (acts.bus.origin, f"{acts.bus.origin}/3", "another.example/2"):
            with pytest.raises(Refusal, match=r"epoch\.not_next"):
                opened.propose_epoch(msgspec.structs.replace(body, log=log), SYSTEM)
        with pytest.raises(Refusal, match=r"anchor\.key_invalid"):
            opened.propose_epoch(msgspec.structs.replace(body, answer=body.key), SYSTEM)
        decision = opened.propose_epoch(body, SYSTEM)
        for other in (SYSTEM, AUDITOR):
            with pytest.raises(Refusal, match=r"role\.not_held|decision\.same_person"):
                opened.approve(decision, other)
        with pytest.raises(Refusal, match=r"decision\.not_in_force"):
            opened.epoch_decided(decision, SYSTEM)
        opened.approve(decision, APPROVER)
        with pytest.raises(Refusal, match=r"role\.not_held"):
            opened.epoch_decided(decision, APPROVER)
    acts.bus.close()
    changing.open_epoch(settings, decision, body, SYSTEM)
    with pytest.raises(Refusal, match=r"decision\.not_in_force"):
        changing.open_epoch(settings, decision, body, SYSTEM)


def test_while_serve_or_a_worker_runs_no_epoch_is_opened(acts: Acts) -> None:
    decision, body = decide(acts)
    for lock in ("serve.lock", "worker.lock"):
        with ExitStack() as running:
            places.alone(acts.trial.state / lock, running, "")
            with pytest.raises(Misconfigured, match="stop serve first"):
                changing.open_epoch(acts.trial.settings, decision, body, SYSTEM)


def test_a_log_that_grew_meanwhile_begins_no_epoch_after_the_former_head(acts: Acts) -> None:
    decision, _ = decide(acts)
    journal, opened = acts.bus.journal, acts.bus.registry
    last = journal.head(journal.checkpoint())
    journal.note(Entry(type="read", outcome="answered")).result(30)
    with pytest.raises(Refusal, match=r"epoch\.not_next"):
        opened.open_epoch(decision, last, {}, [], SYSTEM)
    assert changing.keep_anchors(acts.trial.settings, opened).former_epochs == []


def test_a_change_of_keys_that_was_decided_before_an_epoch_lapses_with_it(acts: Acts) -> None:
    settings = acts.trial.settings
    with registry(settings) as opened:
        body = changing.make_next_key(settings, "log", "EdDSA", "g", places.utc_now())
        decision = opened.propose_key(body, SYSTEM)
        opened.approve(decision, APPROVER)
    acts, _ = begin(acts)
    acts.bus.close()
    with pytest.raises(Refusal, match=r"decision\.not_in_force"):
        changing.change_key(settings, decision, body, SYSTEM)


def test_a_process_that_began_before_the_epoch_signs_nothing_after_it(acts: Acts) -> None:
    with closing(opening.open_journal(acts.trial.settings)) as before:
        acts, _ = begin(acts)
        acts.bus.close()
        size = before.size()
        with pytest.raises(Misconfigured, match="the log's key was changed"):
            before.note(Entry(type="read", outcome="answered")).result(30)
        assert before.size() == size, "nothing was entered that could not be signed"


def test_epochs_follow_one_another_and_keys_change_in_them(acts: Acts) -> None:
    documents = [push(acts, "m-0")]
    remember(acts)
    for number in (1, 2):
        acts, anchors = begin(acts)
        documents.append(push(acts, f"m-{number}"))
        settings = acts.trial.settings
        with registry(settings) as opened:
            body = changing.make_next_key(settings, "log", "SM2", "g", places.utc_now())
            decision = opened.propose_key(body, SYSTEM)
            opened.approve(decision, APPROVER)
        acts.bus.close()
        anchors = changing.change_key(settings, decision, body, SYSTEM)
        acts = opened_again(acts)
        documents.append(push(acts, f"n-{number}"))
    with closing(acts.bus):
        assert [one.log for one in anchors.former_epochs] == [acts.bus.origin, f"{acts.bus.origin}/2"]
        assert len(anchors.former_epochs[1].former_log_keys) == len(anchors.former_log_keys) == 1
        for document in documents:
            verify_receipt(document, anchors)
        verdict = audit.verify(acts.trial.state, anchors)
        assert verdict.ok, verdict.problems
        assert follow(update_for(acts, acts.folder), acts.folder) == 4
        assert acts.folder.anchors == anchors
        assert follow(update_for(acts, acts.folder), acts.folder) == 0, "again: no news"
    red = [check for check in examine(acts.trial.settings, places.utc_now()) if not check.ok]
    assert [check for check in red if check.name.startswith(("keys", "chain", "days", "decisions", "journal"))] == []


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("step", ["journal.group", "journal.sign", "journal.keep"])
def test_a_kill_leaves_the_former_epoch_or_the_new_one_and_either_goes_on(acts: Acts, step: str, side: str) -> None:
    old = push(acts, "m-1")
    decision, body = decide(acts)
    acts.bus.close()
    words = ["epoch", "open", decision, "--by", SYSTEM.name, "--settings", acts.trial.settings.source]
    done = subprocess.run(
        [sys.executable, "-m", "exchange.cli.main", *words],
        env={**os.environ, "YONGTONG_FAULT": f"{step}:{side}:1"},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    acts = opened_again(acts)
    anchors = changing.keep_anchors(acts.trial.settings, acts.bus.registry)  # as serve does at its start
    begun = bool(anchors.former_epochs)
    assert begun == ((step, side) != ("journal.group", "before"))
    assert verify_receipt(push(acts, "m-2"), anchors).checkpoint.origin == anchors.log_name
    acts.bus.close()
    if not begun:
        anchors = changing.open_epoch(acts.trial.settings, decision, body, SYSTEM)
    acts = opened_again(acts)
    with closing(acts.bus):
        for document in (old, push(acts, "m-3")):
            verify_receipt(document, anchors)
        assert audit.verify(acts.trial.state, anchors).ok
        assert follow(update_for(acts, acts.folder), acts.folder) == 1
        assert acts.folder.anchors == anchors


def test_names_of_epochs_that_the_log_did_not_decide_stop_the_start(acts: Acts) -> None:
    acts, _ = begin(acts)
    with closing(acts.bus):
        acts.bus.registry._connection.execute("UPDATE epochs SET log = 'another.example'")
        with pytest.raises(AuditBroken, match="not those that the log's decisions put in force"):
            changing.keep_anchors(acts.trial.settings, acts.bus.registry)


# --- bundles ---------------------------------------------------------------------------------------------------------


def test_a_bundle_of_the_former_epoch_verifies_and_one_made_now_of_what_was_before(acts: Acts, tmp_path: Path) -> None:
    evidence = Evidence(acts, tmp_path)
    old = evidence.message("m-1")
    acts, anchors = begin(acts)
    with closing(acts.bus):
        evidence.acts = acts
        evidence.anchors = msgspec.structs.replace(
            anchors,
            witnesses=evidence.anchors.witnesses,
            quorum=1,
            timestamp_certificates=evidence.anchors.timestamp_certificates,
        )
        push(acts, "m-9")
        process(FEED, acts.bus)
        evidence.attest()
        both = {"former": old, "later": evidence.message("m-1"), "new": evidence.message("m-9")}
        for script in (*SCRIPTS, "verify_sender.py"):
            shutil.copy(DOCS / script, tmp_path)
        write_anchors(evidence.anchors, tmp_path / "anchors.json")
        for name, parts in both.items():
            verdict = verify_bundle(in_memory(packed(parts)), evidence.anchors, datetime.now(UTC))
            assert verdict.state == "holds", (name, verdict)
            assert says(verdict, "inclusion", "旧纪元") == (name == "former")
            (tmp_path / "bundle.zip").write_bytes(packed(parts))
            command = [sys.executable, "-S", "-E", "verify_bundle.py", "bundle.zip", "anchors.json"]
            said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
            assert said.stdout.startswith("holds: "), (name, said)
        spoiled = {**old, "checkpoint": old["checkpoint"].replace(b"\n", b"/2\n", 1)}
        verdict = verify_bundle(in_memory(packed(spoiled)), evidence.anchors, datetime.now(UTC))
        assert says(verdict, "manifest", "checkpoint: altered"), "the part is named, whichever epoch it now claims"
        # The former answer key signs nothing over a head of the new epoch: neither script nor verifier takes it.
        stolen = {**both["new"], MANIFEST: evidence.signed_anew(both["new"], key_file(acts, "answer"))[MANIFEST]}
        verdict = verify_bundle(in_memory(packed(stolen)), evidence.anchors, datetime.now(UTC))
        assert (verdict.state, row(verdict, "manifest").state) == ("broken", "broken")
        (tmp_path / "bundle.zip").write_bytes(packed(stolen))
        said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert said.stderr.startswith("broken: manifest.json")


# --- thieves ---------------------------------------------------------------------------------------------------------


def test_a_stolen_key_signs_nothing_that_a_partner_who_followed_takes(acts: Acts) -> None:
    log, answer = key_file(acts, "log"), key_file(acts, "answer")
    push(acts, "m-1")
    remember(acts)
    acts, anchors = begin(acts)
    with closing(acts.bus):
        follow(update_for(acts, acts.folder), acts.folder)
        assert acts.folder.anchors == anchors
        ended, followed = anchors.former_epochs[0], acts.folder.anchors
        for size, root in ((ended.size, b"\x11" * 32), (ended.size + 1, b"\x11" * 32), (10**9, b"\x11" * 32)):
            with pytest.raises(Refusal, match=r"audit\.epoch_over"):
                followed.head(sign_checkpoint(ended.log, size, root, log))
            with pytest.raises(Refusal, match=r"audit\.checkpoint_invalid"):
                followed.head(sign_checkpoint(anchors.log, size, root, log))
        # A head of before, of another log: by itself it holds as one of that epoch; who remembers a later one finds it.
        rewritten = sign_checkpoint(ended.log, 2, b"\x11" * 32, log)
        with pytest.raises(Refusal, match=r"audit\.log_forked|audit\.log_truncated"):
            Heads(acts.folder, places.utc_now).follow(rewritten, None)
        assert answer.fingerprint not in {one.fingerprint for one in acts.folder.answerers()}
        # The new log key cannot be made to say what was before it either.
        (successor,) = (acts.trial.folder / "keys").glob("log-*.key")
        with pytest.raises(Refusal, match=r"audit\.checkpoint_invalid"):
            followed.head(sign_checkpoint(anchors.log, 2, b"\x11" * 32, SigningKey.load(successor)))


def test_a_receipt_that_the_stolen_answer_key_signs_over_a_new_head_is_refused(acts: Acts) -> None:
    answer = key_file(acts, "answer")
    acts, anchors = begin(acts)
    with closing(acts.bus):
        document = verify_receipt(push(acts, "m-1"), anchors).document
        with pytest.raises(Refusal, match="of another epoch"):
            verify_receipt(sign_document(document, RECEIPT, answer), anchors)


def refused(update: Update, folder: PartnerFolder) -> str:
    before = folder.anchors
    with pytest.raises(Refusal) as found:
        follow(msgspec.json.encode(update), folder)
    assert folder.anchors == before
    return found.value.code


def test_a_thief_of_the_log_key_opens_no_epoch_at_a_partner(acts: Acts) -> None:
    """He has the key, a copy of the state, and even one of the two persons; and he may show what is true in part."""
    remember(acts)
    log, thief = key_file(acts, "log"), generate("EdDSA")
    body = changing.make_epoch(acts.trial.settings, f"{acts.bus.origin}/2", "g", None, places.utc_now())
    with registry(acts.trial.settings) as opened, pytest.raises(Refusal, match=r"person\.unknown"):
        opened.approve(opened.propose_epoch(body, SYSTEM), Officer("小偷", generate("ES256")))
    acts, anchors = begin(acts)
    with closing(acts.bus):
        update = msgspec.json.decode(update_for(acts, acts.folder), type=Update)
    (one,) = update.changes
    index = one.entries[-1].index

    def altered(**members: Any) -> Update:
        return msgspec.structs.replace(update, changes=[msgspec.structs.replace(one, **members)])

    for entries in ([], one.entries[:-1], one.entries[1:], [*one.entries[:-2], one.entries[-1]], one.entries[-1:]):
        assert refused(altered(entries=entries), acts.folder) == "anchor.update_invalid"
    # The same decision, and heads of his own: by the stolen key, by one that he made, of another size or root.
    for key in (log, thief):
        forged = sign_checkpoint(anchors.log, index + 1, b"\x11" * 32, key)
        assert refused(altered(checkpoint=forged), acts.folder) == "audit.checkpoint_invalid"
    assert refused(altered(former=""), acts.folder) == "audit.checkpoint_invalid"
    other = sign_checkpoint(acts.bus.origin, index, b"\x11" * 32, log)
    assert refused(altered(former=other), acts.folder) == "anchor.update_invalid"
    by_nobody = sign_checkpoint(acts.bus.origin, index, b"\x11" * 32, thief)
    assert refused(altered(former=by_nobody), acts.folder) == "audit.checkpoint_invalid"
    assert refused(altered(continued=one.continued[:-1]), acts.folder) == "anchor.update_invalid"
    assert follow(msgspec.json.encode(update), acts.folder) == 1


def test_a_partner_that_remembers_more_than_the_log_ended_with_follows_only_what_two_persons_named(acts: Acts) -> None:
    """The thief extended the log in his own way and showed it to one partner."""
    log, size = key_file(acts, "log"), 500
    shown = sign_checkpoint(acts.bus.origin, size, b"\x11" * 32, log)
    acts.folder.remember(shown)
    acts, _ = begin(acts)
    with closing(acts.bus):
        update = msgspec.json.decode(update_for(acts, acts.folder), type=Update)
        assert refused(update, acts.folder) == "audit.log_truncated"
    kept = list((acts.folder.path / "forks").glob("*/remembered.checkpoint"))
    assert [path.read_text() for path in kept] == [shown]


def test_where_two_persons_named_the_larger_head_that_partner_begins_anew_and_keeps_both(acts: Acts) -> None:
    log, size = key_file(acts, "log"), 500
    shown = sign_checkpoint(acts.bus.origin, size, b"\x11" * 32, log)
    acts.folder.remember(shown)
    known = trusted.anchors_of(acts.trial.settings).head(shown)
    acts, anchors = begin(acts, known)
    with closing(acts.bus):
        assert follow(update_for(acts, acts.folder), acts.folder) == 1
        assert anchors.head(acts.folder.remembered()).origin == anchors.log
        (kept,) = (acts.folder.path / "forks").glob("*/remembered.checkpoint")
        assert kept.read_text() == shown
        first = acts.bus.journal.entry(anchors.former_epochs[0].size)
        assert first is not None
        assert first.detail is not None
        assert (first.detail["known_size"], first.detail["known_root"]) == (size, "11" * 32)


def test_a_forked_log_is_not_followed_into_a_new_epoch(acts: Acts) -> None:
    acts.folder.remember(sign_checkpoint(acts.bus.origin, 3, b"\x11" * 32, key_file(acts, "log")))
    acts, _ = begin(acts)
    with closing(acts.bus):
        update = msgspec.json.decode(update_for(acts, acts.folder), type=Update)
        assert refused(update, acts.folder) == "audit.log_forked"


class InProcess(Log):
    """The bus's log without a socket."""

    def __init__(self, acts: Acts) -> None:
        self._journal = acts.bus.journal

    def checkpoint(self) -> str:
        return self._journal.checkpoint()

    to_cosign = checkpoint

    def consistency(self, first: int, second: int) -> tuple[bytes, ...]:
        return self._journal.consistency(first, second)

    def hand_in(self, checkpoint: str) -> Kept:
        return Kept(0, (), 1, cosigned=False)


def test_a_witness_signs_the_new_epoch_if_it_continues_what_it_signed_of_the_former(acts: Acts) -> None:
    name, key, log = "witness.example", generate("EdDSA"), key_file(acts, "log")

    def witness(acts: Acts) -> LogWitness:
        return LogWitness(acts.folder, InProcess(acts), name, key, places.utc_now)

    before = witness(acts).look().head
    acts, anchors = begin(acts)
    with closing(acts.bus):
        with pytest.raises(Refusal, match=r"audit\.checkpoint_invalid"):
            witness(acts).look()  # it follows on the two persons' word only
        follow(update_for(acts, acts.folder), acts.folder)
        signed = witness(acts).look()
        assert (signed.before, signed.head.origin) == (before.size, anchors.log)
        # What it signed beyond the end of the former epoch is no beginning of the new one: it signs nothing.
        acts.folder.keep_cosigned(sign_checkpoint(acts.bus.origin, 500, b"\x11" * 32, log))
        with pytest.raises(Refusal, match=r"audit\.epoch_over"):
            witness(acts).look()
        acts.folder.keep_cosigned(sign_checkpoint(acts.bus.origin, 3, b"\x11" * 32, log))
        with pytest.raises(Refusal, match=r"audit\.log_forked"):
            witness(acts).look()


def test_the_commands_from_proposal_to_a_partners_anchors(
    acts: Acts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: str) -> dict[str, Any]:
        assert command_line.main([*words, "--settings", acts.trial.settings.source, "--json"]) == 0, words
        said: dict[str, Any] = json.loads(capsys.readouterr().out)
        return said

    head = tmp_path / "head"
    head.write_text(acts.bus.journal.checkpoint())
    asked = ["--ground", "日志私钥失窃", "--known-head", str(head), "--by", SYSTEM.name]
    decision = run("epoch", "propose", *asked)["decision"]
    (waiting,) = run("decision", "list")["decisions"]
    assert (waiting["kind"], waiting["approver"]) == ("epoch", "security")
    run("decision", "approve", decision, "--by", APPROVER.name)
    acts.bus.close()
    assert run("epoch", "open", decision, "--by", SYSTEM.name)["log"] == f"{acts.bus.origin}/2"
    (one,) = run("key", "list")["changes"]
    assert one["change"]["body"]["log"] == f"{acts.bus.origin}/2"
    acts = opened_again(acts)
    with closing(acts.bus):
        assert isinstance(acts.bus.registry.key_changes()[0][1], EpochBegun)
        news = tmp_path / "news.json"
        news.write_bytes(update_for(acts, acts.folder))
    partners = ["--as", "made-up", "--partners", str(acts.trial.partners)]
    assert run("anchors", "update", "--file", str(news), *partners)["changes"] == 1
    assert acts.folder.anchors == trusted.anchors_of(acts.trial.settings)
