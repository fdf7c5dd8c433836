"""Changing the bus's own keys: two persons, an entry, a head that both keys sign; and partners who follow it."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.partner.folder import PartnerFolder
from connectors.partner.heads import Heads
from exchange import audit
from exchange.anchor_updates import Update, make_update
from exchange.app import changing, keys_in_force, opening, places, trusted
from exchange.cli import main as command_line
from exchange.cli.keys import follow
from exchange.cli.people import registry
from exchange.cli.trial import APPROVER, AUDITOR, PROPOSER, SYSTEM
from exchange.cli.verifying import read_anchors
from exchange.database import SqliteFile
from exchange.decision_documents import AnchorBody, Officer
from exchange.doctor.examine import examine
from exchange.journal import Entry, Journal
from exchange.key_places import is_demo
from exchange.own_keys import Changeable, OwnKey
from exchange.processing import process
from exchange.receipts import verify_receipt
from exchange.registry import Registry
from exchange.sequencer import Sequencer
from security.anchors import Anchors
from security.checkpoint import log_key_octets, open_checkpoint, sign_checkpoint
from security.cosignature import Witness
from security.errors import AuditBroken, Misconfigured, Refusal
from security.keys import Kind, SigningKey, generate
from tests.acts.bench_of_one import FEED, Acts, both_acts, covers


@pytest.fixture
def acts(tmp_path: Path) -> Iterator[Acts]:
    with both_acts(tmp_path) as acts:
        acts.trial.grant("made-up", "push", FEED)
        yield acts


def decide(acts: Acts, name: Changeable, kind: Kind) -> tuple[str, AnchorBody]:
    settings = acts.trial.settings
    body = changing.make_next_key(settings, name, kind, "年度更换", places.utc_now())
    with registry(settings) as opened:
        decision = opened.propose_key(body, SYSTEM)
        opened.approve(decision, APPROVER)
    return decision, body


def change(acts: Acts, name: Changeable, kind: Kind) -> tuple[Acts, Anchors]:
    """Decided, the bus stopped, changed, and opened again."""
    decision, body = decide(acts, name, kind)
    acts.bus.close()
    anchors = changing.change_key(acts.trial.settings, decision, body, SYSTEM)
    bus = opening.open_bus(acts.trial.settings)
    bus.journal.resume()  # as serve does at its start
    return Acts(acts.trial, bus), anchors


def push(acts: Acts, message_id: str) -> bytes:
    receipt = acts.push(message_id, covers(message_id)).inbox.receipt
    assert receipt is not None
    return receipt


def update_for(acts: Acts, folder: PartnerFolder) -> bytes:
    known = Heads(folder, places.utc_now).known_size()
    return make_update(acts.bus.journal, acts.bus.registry.key_changes(), known)


def remember(acts: Acts) -> None:
    """The partner takes the newest head, as it does with each answer."""
    acts.folder.remember(acts.bus.journal.checkpoint())


def head_size(text: str) -> int:
    return int(text.split("\n")[1])


def own_lines(text: str) -> int:
    return text.rpartition("\n\n")[2].count("\n")


@pytest.mark.parametrize("kind", ["EdDSA", "SM2"])
def test_the_first_head_under_a_new_log_key_is_signed_by_both_and_the_next_by_the_new_one(
    acts: Acts, kind: Kind, tell: Callable[[str], None]
) -> None:
    before = trusted.anchors_of(acts.trial.settings)
    old_head = acts.bus.journal.checkpoint()
    first_receipt = push(acts, "m-1")
    acts, anchors = change(acts, "log", kind)
    with closing(acts.bus):
        index = acts.bus.registry.key_changes()[0][0]
        both, size = acts.bus.journal.first_checkpoint_over(index)
        assert own_lines(both) == 2
        for one in (before, anchors):
            assert open_checkpoint(both, one.origin, one.log_public_key).size == size == anchors.head(both).size
        later_receipt = push(acts, "m-2")
        assert own_lines(acts.bus.journal.checkpoint()) == 1
        assert anchors.head(acts.bus.journal.checkpoint()).size > size
        with pytest.raises(Refusal, match=r"audit\.checkpoint_invalid"):
            before.head(acts.bus.journal.checkpoint())
        # What was signed before goes on holding, and so does what comes after.
        assert anchors.head(old_head).size < anchors.former_log_keys[0].last_size
        for receipt in (first_receipt, later_receipt):
            verify_receipt(receipt, anchors)
        verdict = audit.verify(acts.trial.state, anchors)
        assert verdict.ok, verdict.problems
        assert (anchors.log_key_kind, trusted.anchors_of(acts.trial.settings)) == (kind, anchors)
        tell(f"LOG KEY to {kind}: head {size} signed by both, {verdict.heads} heads verified by the key of their size")


@pytest.mark.parametrize("kind", ["ES256", "RS256", "EdDSA", "SM2"])
def test_after_a_new_answer_key_receipts_are_signed_by_it_and_old_ones_go_on_verifying(acts: Acts, kind: Kind) -> None:
    old = push(acts, "m-1")
    acts, anchors = change(acts, "answer", kind)
    with closing(acts.bus):
        new = push(acts, "m-2")
        process(FEED, acts.bus)
        report = acts.bus.journal.report("made-up", "m-2")
        assert len(anchors.receipt_certificates) == 2
        for document in (old, new, report):
            verify_receipt(document or b"", anchors)
        only_old = msgspec.structs.replace(anchors, receipt_certificates=anchors.receipt_certificates[:1])
        only_new = msgspec.structs.replace(anchors, receipt_certificates=anchors.receipt_certificates[1:])
        for document, wrong in ((new, only_old), (report, only_old), (old, only_new)):
            with pytest.raises(Refusal, match=r"audit\.receipt_invalid"):
                verify_receipt(document or b"", wrong)
        assert acts.push("m-1", covers("m-1")).inbox.receipt == old, "the same delivery: the same receipt for ever"
        assert audit.verify(acts.trial.state, anchors).ok


def test_an_audit_misses_the_former_keys_signature_at_the_first_head_after_a_change(acts: Acts) -> None:
    acts, anchors = change(acts, "log", "EdDSA")
    push(acts, "m-1")
    acts.bus.close()
    with closing(sqlite3.connect(acts.trial.state / "journal.sqlite", isolation_level=None)) as connection:
        last = anchors.former_log_keys[0].last_size
        size, note = connection.execute(
            "SELECT size, note FROM heads WHERE size > ? ORDER BY size LIMIT 1", (last,)
        ).fetchone()
        connection.execute("UPDATE heads SET note = ? WHERE size = ?", ("\n".join(note.split("\n")[:-2]) + "\n", size))
    (problem,) = audit.verify(acts.trial.state, anchors).problems
    assert f"the checkpoint of size {size} does not hold" in problem.what


def test_the_doctor_finds_nothing_wrong_after_a_change(acts: Acts) -> None:
    for name, kind in (("log", "SM2"), ("answer", "EdDSA")):
        acts, _ = change(acts, name, kind)  # type: ignore[arg-type]  # as decide has them
    acts.bus.close()
    red = [check for check in examine(acts.trial.settings, places.utc_now()) if not check.ok]
    assert [check for check in red if check.name.startswith(("keys", "chain", "days", "decisions", "journal"))] == []


def test_keys_change_again_and_again_and_every_head_is_held_to_the_key_of_its_size(acts: Acts) -> None:
    receipts = [push(acts, "m-0")]
    changes: list[tuple[Changeable, Kind]] = [("log", "SM2"), ("answer", "SM2"), ("log", "EdDSA"), ("log", "EdDSA")]
    for number, (name, kind) in enumerate(changes, 1):
        acts, anchors = change(acts, name, kind)
        receipts.append(push(acts, f"m-{number}"))
    with closing(acts.bus):
        assert [former.kind for former in anchors.former_log_keys] == ["EdDSA", "SM2", "EdDSA"]
        for receipt in receipts:
            verify_receipt(receipt, anchors)
        verdict = audit.verify(acts.trial.state, anchors)
        assert verdict.ok, verdict.problems


def test_a_new_key_lies_under_the_passphrase_of_the_one_in_force_and_says_demo_as_that_did(tmp_path: Path) -> None:
    secret = tmp_path / "passphrase"
    secret.write_text("three plain words\n")
    secret.chmod(0o600)
    keys = {"keys": {"passphrase_file": str(secret)}, "suites": {"signing": "PS256"}}
    with both_acts(tmp_path, keys) as acts:
        _, log = decide(acts, "log", "EdDSA")
        decision, answer = decide(acts, "answer", "RS256")
        acts.bus.close()
        changing.change_key(acts.trial.settings, decision, answer, SYSTEM)
        for name, body in (("log", log), ("answer", answer)):
            path = acts.trial.folder / "keys" / f"{name}-{body.key[:16]}.key"
            assert b"ENCRYPTED" in path.read_bytes()
            assert path.stat().st_mode & 0o777 == 0o600
        assert answer.algorithm == "PS256", "it signs by what the one before it signed by"
        assert is_demo(keys_in_force.own_certificate(acts.trial.settings, "answer"))
        opening.open_bus(acts.trial.settings).close()


def test_one_person_alone_changes_no_key_and_each_act_has_its_office(acts: Acts) -> None:
    settings = acts.trial.settings
    body = changing.make_next_key(settings, "log", "EdDSA", "g", places.utc_now())
    with registry(settings) as opened:
        for other in (PROPOSER, AUDITOR):
            with pytest.raises(Refusal, match=r"role\.not_held"):
                opened.propose_key(body, other)
        decision = opened.propose_key(body, SYSTEM)
        for other in (SYSTEM, AUDITOR):
            with pytest.raises(Refusal, match=r"role\.not_held|decision\.same_person"):
                opened.approve(decision, other)
        with pytest.raises(Refusal, match=r"decision\.not_in_force"):
            opened.key_change(decision, SYSTEM)
        opened.approve(decision, APPROVER)
        with pytest.raises(Refusal, match=r"role\.not_held"):
            opened.key_change(decision, APPROVER)
    acts.bus.close()
    changing.change_key(settings, decision, body, SYSTEM)
    with pytest.raises(Refusal, match=r"decision\.not_in_force"):
        changing.change_key(settings, decision, body, SYSTEM)


def test_while_serve_or_a_worker_runs_no_key_is_changed(acts: Acts) -> None:
    decision, body = decide(acts, "log", "EdDSA")
    for lock in ("serve.lock", "worker.lock"):
        with ExitStack() as running:
            places.alone(acts.trial.state / lock, running, "")
            with pytest.raises(Misconfigured, match="stop serve first"):
                changing.change_key(acts.trial.settings, decision, body, SYSTEM)


@pytest.mark.parametrize("name", ["log", "answer"])
def test_another_key_put_in_the_place_of_the_decided_one_is_not_taken(acts: Acts, name: Changeable) -> None:
    decision, body = decide(acts, name, "EdDSA")
    acts.bus.close()
    keys = acts.trial.folder / "keys"
    for ending in ("key", "pem") if name == "answer" else ("key",):
        (keys / f"{name}-{body.key[:16]}.{ending}").write_bytes((keys / f"{name}.{ending}").read_bytes())
    with pytest.raises(Misconfigured, match=r"is not the (log|answer) key in force"):
        changing.change_key(acts.trial.settings, decision, body, SYSTEM)


def test_a_process_that_began_before_the_change_signs_nothing_after_it(acts: Acts) -> None:
    with closing(opening.open_journal(acts.trial.settings)) as before:
        decision, body = decide(acts, "log", "EdDSA")
        acts.bus.close()
        changing.change_key(acts.trial.settings, decision, body, SYSTEM)
        size = before.size()
        with pytest.raises(Misconfigured, match="the log's key was changed"):
            before.note(Entry(type="read", outcome="answered")).result(30)
        assert before.size() == size, "nothing was entered that could not be signed"


def test_a_crash_between_entry_and_signature_is_finished_by_both_keys(
    acts: Acts, monkeypatch: pytest.MonkeyPatch
) -> None:
    decision, body = decide(acts, "log", "EdDSA")
    before = trusted.anchors_of(acts.trial.settings)
    acts.bus.close()

    def crash(sequencer: Sequencer, group: Any) -> None:
        raise OSError("the power fails before the head is signed")

    with monkeypatch.context() as failing:
        failing.setattr(Sequencer, "answer", crash)
        failing.setattr(Journal, "resume", lambda journal: 0)
        failing.setattr(Sequencer, "resume", lambda sequencer: 0)
        with pytest.raises(Exception, match="cannot be written"):
            changing.change_key(acts.trial.settings, decision, body, SYSTEM)
    assert trusted.anchors_of(acts.trial.settings) == before
    with closing(opening.open_bus(acts.trial.settings)) as bus:
        bus.journal.resume()
        anchors = changing.keep_anchors(acts.trial.settings, bus.registry)  # as serve does at its start
        checkpoint = bus.journal.checkpoint()
        assert own_lines(checkpoint) == 2
        assert before.head(checkpoint) == anchors.head(checkpoint)
        assert audit.verify(acts.trial.state, anchors).ok
    with closing(opening.open_bus(acts.trial.settings)) as bus:
        verify_receipt(push(Acts(acts.trial, bus), "m-9"), anchors)


def test_keys_that_the_log_did_not_put_in_force_stop_the_start(acts: Acts) -> None:
    acts, _ = change(acts, "log", "EdDSA")
    with closing(acts.bus):
        acts.bus.registry._connection.execute("DELETE FROM own_keys WHERE first_size > 0")
        with pytest.raises(AuditBroken, match="not those that the log's decisions put in force"):
            changing.keep_anchors(acts.trial.settings, acts.bus.registry)


def test_anchors_are_written_in_one_way_whole_and_only_where_the_file_says_less(acts: Acts) -> None:
    """A change of keys and what the settings say of witnesses, together; a crash leaves the former file or the new."""
    path = acts.trial.state / "anchors.json"
    before = path.read_bytes()
    acts, changed = change(acts, "answer", "EdDSA")
    witness = Witness("witness.example", generate("EdDSA").public_key.public_bytes_raw().hex())  # type: ignore[union-attr]
    said = msgspec.structs.replace(acts.trial.settings.witnesses, quorum=1, witness=[witness])
    settings = msgspec.structs.replace(acts.trial.settings, witnesses=said)
    with closing(acts.bus):
        anchors = changing.keep_anchors(settings, acts.bus.registry)
        assert anchors == msgspec.structs.replace(changed, quorum=1, witnesses=[witness])
        assert read_anchors(path) == anchors, "what the settings say alone"
        path.write_bytes(before)
        assert changing.keep_anchors(settings, acts.bus.registry) == read_anchors(path) == anchors, (
            "both, after a crash"
        )
        written = path.stat()
        assert changing.keep_anchors(settings, acts.bus.registry) == anchors
        assert path.stat() == written, "nothing to say, nothing written"
    assert [one.name for one in path.parent.glob("anchors*")] == ["anchors.json"]


# --- partners --------------------------------------------------------------------------------------------------------


def test_a_partner_follows_every_change_with_no_trust_in_who_carries_it(
    acts: Acts, tell: Callable[[str], None]
) -> None:
    push(acts, "m-1")
    remember(acts)
    size = head_size(acts.folder.remembered())
    for name, kind in (("log", "EdDSA"), ("answer", "SM2"), ("log", "SM2")):
        acts, anchors = change(acts, name, kind)  # type: ignore[arg-type]  # as decide has them
        receipt = push(acts, f"{name}-{kind}")
    with closing(acts.bus):
        with pytest.raises(Refusal):
            verify_receipt(receipt, acts.folder.anchors)
        octets = update_for(acts, acts.folder)
        assert follow(octets, acts.folder) == 3
        assert acts.folder.anchors == anchors
        verify_receipt(receipt, acts.folder.anchors)
        assert head_size(acts.folder.remembered()) > size
        assert follow(update_for(acts, acts.folder), acts.folder) == 0, "again: no news"
        tell(f"ANCHORS: three changes followed from size {size}, in {len(octets)} octets")


def test_a_partner_that_remembers_no_head_and_one_that_is_ahead_follow_too(acts: Acts) -> None:
    acts, _ = change(acts, "answer", "EdDSA")
    push(acts, "m-1")
    remember(acts)
    with closing(acts.bus):
        assert follow(update_for(acts, acts.folder), acts.folder) == 1
        (acts.folder.path / "checkpoint").unlink()
        acts.folder.replace_anchors(
            msgspec.structs.replace(
                acts.folder.anchors, receipt_certificates=acts.folder.anchors.receipt_certificates[:1]
            )
        )
        assert follow(update_for(acts, acts.folder), acts.folder) == 1


def test_the_commands_from_proposal_to_a_partners_anchors(
    acts: Acts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: str) -> dict[str, Any]:
        assert command_line.main([*words, "--settings", acts.trial.settings.source, "--json"]) == 0, words
        said: dict[str, Any] = json.loads(capsys.readouterr().out)
        return said

    decision = run("key", "propose", "log", "--ground", "年度更换", "--by", SYSTEM.name)["decision"]
    (waiting,) = run("decision", "list")["decisions"]
    assert (waiting["kind"], waiting["approver"]) == ("anchor", "security")
    run("decision", "approve", decision, "--by", APPROVER.name)
    acts.bus.close()
    key = run("key", "rotate", decision, "--by", SYSTEM.name)["key"]
    assert [one["change"]["key"] for one in run("key", "list")["changes"]] == [key]
    with closing(opening.open_bus(acts.trial.settings)) as bus:
        news = tmp_path / "news.json"
        news.write_bytes(make_update(bus.journal, bus.registry.key_changes(), 0))
    partners = ["--as", "made-up", "--partners", str(acts.trial.partners)]
    assert run("anchors", "update", "--file", str(news), *partners) == {
        "changes": 1,
        "log_key": key,
        "receipt_certificates": 1,
    }
    assert acts.folder.anchors == trusted.anchors_of(acts.trial.settings)


# --- thieves ---------------------------------------------------------------------------------------------------------


class Forgery:
    """A log that a thief makes of a copy of the bus's state, with the keys that he has."""

    def __init__(self, acts: Acts, former: SigningKey, new: SigningKey) -> None:
        self.acts, self.former, self.new = acts, former, new

    def update(self, persons: tuple[Officer, Officer], body: AnchorBody) -> bytes:
        settings = self.acts.trial.settings
        state = places.state_of(settings)
        with (
            closing(
                Journal(
                    SqliteFile(state, "journal"),
                    settings.bus.origin,
                    self.new,
                    places.utc_now,
                    _none,
                    _none,
                    lambda _: None,
                    self.former,
                )
            ) as journal,
            closing(opening.open_registry(settings, journal)) as opened,
        ):
            return self._made(opened, journal, persons, body)

    def _made(self, opened: Registry, journal: Journal, persons: tuple[Officer, Officer], body: AnchorBody) -> bytes:
        decision = opened.propose_key(body, persons[0])
        opened.approve(decision, persons[1])
        opened.change_key(decision, OwnKey("log", 0, log_key_octets(self.former.public_key).hex(), "EdDSA"), persons[0])
        return make_update(journal, opened.key_changes(), 0)


def _none(*_: object) -> bytes:
    return b""


def of_log(key: SigningKey) -> AnchorBody:
    return AnchorBody("log", key.algorithm, log_key_octets(key.public_key).hex(), "", "g")


def log_key_file(acts: Acts) -> SigningKey:
    return SigningKey.load(acts.trial.folder / "keys" / "log.key")


def refused(octets: bytes, folder: PartnerFolder) -> Refusal:
    before = folder.anchors
    with pytest.raises(Refusal) as found:
        follow(octets, folder)
    assert folder.anchors == before
    return found.value


def test_a_thief_of_the_new_key_alone_persuades_no_partner(acts: Acts) -> None:
    """He shows the true decision, and the head that he can sign: the former key of the log did not."""
    acts, _ = change(acts, "log", "EdDSA")
    with closing(acts.bus):
        update = msgspec.json.decode(update_for(acts, acts.folder), type=Update)
    (one,) = update.changes
    lines = one.checkpoint.rstrip("\n").split("\n")
    without_former = "\n".join(lines[:-1]) + "\n"
    assert own_lines(without_former) == 1
    forged = msgspec.structs.replace(update, changes=[msgspec.structs.replace(one, checkpoint=without_former)])
    assert refused(msgspec.json.encode(forged), acts.folder).code == "audit.checkpoint_invalid"


def test_a_head_that_the_new_key_did_not_sign_puts_it_in_force_nowhere(acts: Acts) -> None:
    acts, _ = change(acts, "log", "EdDSA")
    with closing(acts.bus):
        update = msgspec.json.decode(update_for(acts, acts.folder), type=Update)
    (one,) = update.changes
    lines = one.checkpoint.rstrip("\n").split("\n")
    without_new = "\n".join([*lines[:-2], lines[-1]]) + "\n"
    forged = msgspec.structs.replace(update, changes=[msgspec.structs.replace(one, checkpoint=without_new)])
    assert refused(msgspec.json.encode(forged), acts.folder).code == "audit.checkpoint_invalid"


def test_a_thief_of_the_former_key_after_the_change_is_believed_by_no_partner_that_followed(acts: Acts) -> None:
    former = log_key_file(acts)
    acts, anchors = change(acts, "log", "EdDSA")
    with closing(acts.bus):
        follow(update_for(acts, acts.folder), acts.folder)
        push(acts, "m-1")
        newest = anchors.head(acts.bus.journal.checkpoint())
        for size, root in ((newest.size, newest.root), (newest.size + 1, b"\x00" * 32)):
            with pytest.raises(Refusal, match=r"audit\.checkpoint_invalid"):
                acts.folder.anchors.head(sign_checkpoint(anchors.origin, size, root, former))
        heads = Heads(acts.folder, places.utc_now)
        with pytest.raises(Refusal, match=r"audit\.checkpoint_invalid"):
            heads.follow(sign_checkpoint(anchors.origin, newest.size + 1, b"\x00" * 32, former), None)
        # And the new key cannot be made to say what was before it.
        (successor,) = (acts.trial.folder / "keys").glob("log-*.key")
        rewritten = sign_checkpoint(anchors.origin, 2, b"\x00" * 32, SigningKey.load(successor))
        with pytest.raises(Refusal, match="not in force at this size"):
            acts.folder.anchors.head(rewritten)


def test_a_thief_of_the_former_key_who_lacks_two_persons_names_no_successor_to_one_that_did_not_follow(
    acts: Acts,
) -> None:
    """He holds the log's own key and a copy of all that the log says, and makes a key for himself."""
    push(acts, "m-1")
    remember(acts)
    former, thief = log_key_file(acts), generate("EdDSA")
    acts.bus.close()
    # He can enter whatever he likes; whom the founding named he cannot be. Here he has one of the two persons even.
    with pytest.raises(Refusal, match=r"person\.unknown"):
        Forgery(acts, former, thief).update((SYSTEM, Officer("小偷", generate("ES256"))), of_log(thief))
    acts, _ = change(Acts(acts.trial, opening.open_bus(acts.trial.settings)), "answer", "EdDSA")
    with closing(acts.bus):
        update = msgspec.json.decode(update_for(acts, acts.folder), type=Update)
    # So he leaves out what he cannot have, alters what he has, or shows another's decision as his own.
    (one,) = update.changes
    for spoiled in spoilings(one.entries):
        forged = msgspec.structs.replace(update, changes=[msgspec.structs.replace(one, entries=spoiled)])
        assert refused(msgspec.json.encode(forged), acts.folder).code == "anchor.update_invalid"


def spoilings(entries: list[Any]) -> Iterator[list[Any]]:
    yield []
    yield entries[:-1]
    yield entries[1:]  # no founding: nobody holds an office
    yield [*entries[:-2], entries[-1]]  # not approved
    yield [*entries, entries[-1]]
    yield list(reversed(entries))
    for member in ("leaf", "detail"):
        altered = getattr(entries[-1], member).replace("carr", "marr")
        yield [*entries[:-1], msgspec.structs.replace(entries[-1], **{member: altered})]
    yield [*entries[:-1], msgspec.structs.replace(entries[-1], salt="00" * 32)]
    yield [*entries[:-1], msgspec.structs.replace(entries[-1], proof=entries[-1].proof[:-1])]


@pytest.mark.parametrize("octets", [b"", b"{}", b"\xff", b'{"origin":"x","known":0,"changes":[{}]}'])
def test_an_update_that_is_none_is_refused(acts: Acts, octets: bytes) -> None:
    assert refused(octets, acts.folder).code == "anchor.update_invalid"


def test_an_update_of_another_origin_is_refused(acts: Acts) -> None:
    acts, _ = change(acts, "log", "EdDSA")
    with closing(acts.bus):
        update = msgspec.json.decode(update_for(acts, acts.folder), type=Update)
    other = msgspec.structs.replace(update, origin="another.example/log")
    assert refused(msgspec.json.encode(other), acts.folder).code == "anchor.update_invalid"


def test_a_forked_log_brings_no_new_keys(acts: Acts) -> None:
    """The partner remembers a head that the log with the change does not continue."""
    former, size = log_key_file(acts), head_size(acts.bus.journal.checkpoint())
    acts.folder.remember(sign_checkpoint(acts.bus.origin, size, b"\x11" * 32, former))
    acts, _ = change(acts, "log", "EdDSA")
    with closing(acts.bus):
        assert refused(update_for(acts, acts.folder), acts.folder).code == "audit.log_forked"
