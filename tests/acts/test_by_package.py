"""A delivery in a package that a one-way gateway laid in: the same story, and nobody who could be asked back."""

import json
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.partner.own_entries import unknown
from connectors.partner.packages import PackagePartner
from connectors.transports.package import Package
from exchange import packages
from exchange.app import trusted
from exchange.cli.trial import AUDITOR
from exchange.evidence import Evidence
from exchange.evidence_folder import EvidenceFolder
from exchange.gate import Gate as Quota
from exchange.packages import lay_out_report
from exchange.processing import process
from exchange.reading import EvidenceBroken, reopened
from exchange.receipts import REFUSAL, verify_receipt
from security.batch import unverified
from security.errors import Misconfigured, Refusal, sentences
from security.jws import open_document
from security.message import Content, file_content, in_memory
from tests.acts.bench_of_one import FEED, REGISTER, Acts, both_acts, covers
from tests.acts.bundles import packed as zipped
from tests.acts.bundles import says
from tests.acts.packages import Gate, content_at, envelope, package, partner_folder
from tests.acts.test_bundle_cases import exported, verdict_of
from tests.acts.test_erasure import decided
from tests.acts.test_four_eyes import Desk
from tests.acts.test_own_entries import held
from tests.acts.test_own_entries import own as own_entries_of
from tests.acts.test_without_us import Stranger

OTHER = "other-covers"


@pytest.fixture
def acts(tmp_path: Path) -> Iterator[Acts]:
    door = {"also": {"packages": {"folder": "gate"}}}
    with both_acts(tmp_path / "bus", door, **{OTHER: REGISTER.replace(FEED, OTHER)}) as acts:
        acts.trial.grant("made-up", "push", FEED)
        yield acts


@pytest.fixture
def gate(acts: Acts, monkeypatch: pytest.MonkeyPatch) -> Gate:
    monkeypatch.setattr(packages, "SETTLE_S", 0.0)
    return Gate(acts, acts.trial.folder / "gate")


def a_package(acts: Acts, message_id: str = "m-1", content: bytes = b"", **spoiled: Any) -> bytes:
    content = content or covers("A", 4)
    return package(envelope(acts, message_id, content, **spoiled), content)


def document(octets: bytes) -> dict[str, Any]:
    said: dict[str, Any] = unverified(octets)
    return said


@pytest.mark.parametrize("kind", ["ES256", "RS256", "EdDSA", "SM2"])
def test_a_package_gets_a_receipt_and_its_report_by_every_key(acts: Acts, gate: Gate, kind: Any) -> None:
    key = acts.more_key(kind)
    gate.take(a_package(acts, key=key))
    receipt = gate.out()["m-1.receipt.json"]
    said = document(receipt)
    assert (said["carrier"], said["form"], said["signer"]) == ("folder:test", "package", key.fingerprint)
    assert said["content_digest"] == in_memory(covers("A", 4)).digest.hex
    assert verify_receipt(receipt, trusted.anchors_of(acts.trial.settings)).kind == "receipt"
    assert (gate.waiting, list(gate.spool.iterdir())) == ([], [])
    assert process(FEED, acts.bus) == 1
    assert acts.report("m-1")["new"] == 4


def test_a_package_may_be_larger_than_any_envelope(acts: Acts, gate: Gate) -> None:
    content = covers("A", 60_000)
    assert len(content) > 1 << 20
    gate.take(a_package(acts, content=content))
    assert document(gate.out()["m-1.receipt.json"])["content_length"] == len(content)
    assert process(FEED, acts.bus) == 1


@pytest.mark.parametrize("first", ["soap", "package"])
def test_the_same_over_another_door_gets_the_same_receipt(acts: Acts, gate: Gate, first: str) -> None:
    doors: dict[str, Callable[[], Any]] = {
        "soap": lambda: acts.receive(acts.delivery("m-1", covers("A"))),
        "package": lambda: gate.take(a_package(acts, content=covers("A"))),
    }
    doors.pop(first)()
    doors.popitem()[1]()
    row = acts.bus.journal.inbox("made-up", "m-1")
    assert row is not None
    assert gate.out()["m-1.receipt.json"] == row.receipt
    assert len(acts.bus.journal.search(type="delivery")) == 1


def test_a_package_laid_in_again_is_one_delivery_and_gets_the_same_receipt(acts: Acts, gate: Gate) -> None:
    """As after a crash between the receipt and the removal, or by a courier who comes twice."""
    octets = a_package(acts)
    gate.take(octets)
    receipt = gate.out()["m-1.receipt.json"]
    gate.take(octets, "again.package")
    assert gate.out()["m-1.receipt.json"] == receipt
    assert (gate.waiting, len(acts.bus.journal.search(type="delivery"))) == ([], 1)


def altered(octets: bytes) -> bytes:
    at = content_at(octets)
    return octets[:at] + bytes([octets[at] ^ 1]) + octets[at + 1 :]


def by_broker(acts: Acts, **spoiled: Any) -> bytes:
    return acts.by_broker("m-1", covers("A"), **spoiled).envelope


# Named for what is wrong with them: what each is refused by, and the octets.
ATTACKS: dict[str, tuple[str, Callable[[Acts], bytes]]] = {
    "content_altered": ("signature.content_digest", lambda acts: altered(a_package(acts))),
    "content_of_another": (
        "signature.content_digest",
        lambda acts: package(envelope(acts, "m-1", covers("A")), covers("B")),
    ),
    "no_content": ("signature.content_digest", lambda acts: package(envelope(acts, "m-1", covers("A")), b"")),
    "content_in_the_envelope_too": ("package.content_twice", lambda acts: package(by_broker(acts), covers("A"))),
    "content_in_the_envelope_alone": ("package.content_twice", lambda acts: package(by_broker(acts), b"")),
    "cms_with_content_in_it": (
        "package.content_twice",
        lambda acts: package(by_broker(acts, key=acts.more_key("SM2")), covers("A")),
    ),
    "stale": (
        "signature.stale",
        lambda acts: a_package(acts, signed_at=acts.bus.clock() - timedelta(days=7, minutes=1)),
    ),
    "future": ("signature.future", lambda acts: a_package(acts, signed_at=acts.bus.clock() + timedelta(minutes=6))),
    "for_another_bus": ("auth.wrong_recipient", lambda acts: a_package(acts, recipient="another.bus.example")),
    "no_such_feed": ("feed.unknown", lambda acts: a_package(acts, feed="no-such-feed")),
    "in_anothers_name": ("auth.sender_mismatch", lambda acts: a_package(acts, sender="water")),
}
# Nobody's signature: the door tells nobody, and the operator what it was.
STRANGE: dict[str, tuple[str, Callable[[Acts], bytes]]] = {
    "no_package": ("package.not_one", lambda acts: b"PK\x03\x04" + a_package(acts)),
    "added_to": ("package.length", lambda acts: a_package(acts) + b"\n"),
    "no_envelope": ("jws.not_json", lambda acts: package(b"not an envelope", covers("A"))),
    "soap_in_it": ("jws.not_json", lambda acts: package(acts.delivery("m-1", covers("A")).envelope, covers("A"))),
    "signature_altered": (
        "signature.invalid",
        lambda acts: package(spoilt_signature(envelope(acts, "m-1", covers("A"))), covers("A")),
    ),
    "a_receipt_as_envelope": (
        "jws.member_missing",
        lambda acts: package(acts.receive(acts.delivery("m-0", covers("A"))).inbox.receipt or b"", covers("A")),
    ),
}


def spoilt_signature(octets: bytes) -> bytes:
    members = json.loads(octets)
    signature = members["signature"]
    other = "A" if signature[10] != "A" else "B"
    members["signature"] = signature[:10] + other + signature[11:]
    return json.dumps(members).encode()


@pytest.mark.parametrize("attack", ATTACKS)
def test_each_attack_by_a_known_signer_is_refused_by_name_and_told_in_a_signed_refusal(
    acts: Acts, gate: Gate, attack: str
) -> None:
    code, octets = ATTACKS[attack]
    gate.take(octets(acts))
    assert gate.refused() == {"a.package.json": code}
    assert gate.waiting == []
    (name,) = gate.out()
    assert name == "m-1.refusal.json"
    key = acts.bus.answer_key
    assert open_document(gate.out()[name], key.certificate_der or b"", REFUSAL)["code"] == code
    (entry,) = acts.bus.journal.search(type="refusal")
    assert (entry.leaf.outcome, entry.leaf.carrier) == (code, "folder:test")
    assert acts.bus.journal.inbox("made-up", "m-1") is None
    assert not list((acts.bus.folder / "evidence").rglob("*.*"))
    sentence = sentences()[code]
    assert all((sentence.zh, sentence.en, sentence.next_zh, sentence.next_en))


@pytest.mark.parametrize("attack", STRANGE)
def test_of_a_stranger_s_package_nobody_is_told_but_the_operator(acts: Acts, gate: Gate, attack: str) -> None:
    code, octets = STRANGE[attack]
    gate.take(octets(acts))
    assert gate.refused() == {"a.package.json": code}
    assert "m-1.refusal.json" not in gate.out()
    assert (gate.folder / "refused/a.package").exists()
    assert acts.bus.journal.inbox("made-up", "m-1") is None


def test_a_package_s_envelope_is_no_delivery_at_another_door(acts: Acts) -> None:
    with pytest.raises(Refusal, match=r"signature\.content_digest"):
        acts.receive(acts.handed_over(envelope(acts, "m-1", covers("A"))))


def test_the_same_id_with_another_content_is_refused_and_the_first_receipt_stands(acts: Acts, gate: Gate) -> None:
    gate.take(a_package(acts))
    receipt = gate.out()["m-1.receipt.json"]
    gate.take(a_package(acts, content=covers("B")))
    assert gate.refused() == {"a.package.json": "delivery.id_reused"}
    assert gate.out()["m-1.receipt.json"] == receipt


def test_one_that_is_still_coming_is_waited_for_and_one_cut_short_is_refused(
    acts: Acts, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    octets = a_package(acts)
    for end in (0, 10, 40, len(octets) - 1):
        gate.take(octets[:end])
        assert (gate.waiting, gate.refused()) == (["a.package"], {})
    gate.take(octets)
    assert (gate.waiting, list(gate.out())) == ([], ["m-1.receipt.json"])
    path = gate.lay(octets[:-1], "cut.package")
    for ago_s in (10 * packages.STILL_S, -10 * packages.STILL_S):  # whatever clock the gateway goes by
        os.utime(path, (0, path.stat().st_mtime - ago_s))
        gate.look()
        assert gate.refused() == {}
    monkeypatch.setattr(packages, "STILL_S", 0.0)
    gate.look()
    assert gate.refused() == {"cut.package.json": "package.length"}


def test_a_file_whose_length_was_set_before_it_is_written_is_waited_for(
    acts: Acts, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    octets = a_package(acts)
    monkeypatch.setattr(packages, "SETTLE_S", 3600.0)
    path = gate.lay(b"")
    with path.open("r+b") as coming:
        coming.truncate(len(octets))
        for piece in (octets[:100], octets[100:]):
            gate.look()
            assert (gate.waiting, gate.refused()) == (["a.package"], {})
            coming.write(piece)
            coming.flush()
    gate.look()
    assert gate.waiting == ["a.package"]
    monkeypatch.setattr(packages, "SETTLE_S", 0.0)
    gate.look()
    assert list(gate.out()) == ["m-1.receipt.json"]


def test_a_name_in_gbk_or_of_the_greatest_length_is_put_aside_and_the_door_goes_on(acts: Acts, gate: Gate) -> None:
    names = (os.fsdecode("规划".encode("gbk") + b".package"), "图" * 80 + ".package", "x" * 247 + ".package")
    for name in names:
        gate.take(b"no package", name)
    assert (gate.waiting, set(gate.refused().values())) == ([], {"package.not_one"})
    assert len(gate.refused()) == 3
    gate.take(a_package(acts))
    assert list(gate.out()) == ["m-1.receipt.json"]


def test_a_refusal_that_cannot_be_put_aside_is_entered_once(
    acts: Acts, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "FIRST_WAIT_S", 0.0)
    gate.lay(a_package(acts, feed="no-such-feed"))
    for folder in ("out", "refused"):  # the signer is still to be told, then the package to be moved
        (gate.folder / folder).rename(gate.folder / "away")
        for _ in range(3):
            gate.look()
        (gate.folder / "away").rename(gate.folder / folder)
    assert (gate.refused(), list(gate.out())) == ({}, ["m-1.refusal.json"])
    gate.look()
    assert gate.refused() == {"a.package.json": "feed.unknown"}
    assert len(acts.bus.journal.search(type="refusal")) == 1


def test_a_spool_without_room_keeps_no_half_copy(acts: Acts, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "FIRST_WAIT_S", 0.0)

    def full(source: Any, target: Any, size: int) -> None:
        target.write(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(packages.shutil, "copyfileobj", full)
        for _ in range(3):
            gate.take(a_package(acts))
            assert not list(gate.spool.iterdir())
    gate.look()
    assert list(gate.out()) == ["m-1.receipt.json"]


def test_many_that_wait_keep_no_later_one_from_being_taken(
    acts: Acts, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "MOST_AT_A_LOOK", 2)
    feed = msgspec.structs.replace(acts.bus.feeds[FEED], most_waiting=0, most_a_minute=1)
    acts.trial.grant("made-up", "push", OTHER)
    door = gate.opened(feeds={**acts.bus.feeds, FEED: feed}, gate=Quota())
    for number in range(4):
        gate.lay(a_package(acts, f"m-{number}"), f"{number}.package")
    gate.lay(a_package(acts, "o-1", feed=OTHER), "later.package")
    for _ in range(3):
        gate.look(door)
    assert sorted(gate.out()) == ["m-0.receipt.json", "o-1.receipt.json"]


def test_who_signs_for_another_gets_the_receipt_too(acts: Acts, gate: Gate) -> None:
    acts.trial.enrol("helper", "Helper", "代报单位")
    acts.trial.grant("helper", "push", FEED)
    acts.trial.grant("helper", "on_behalf_of", "made-up")
    gate.take(a_package(acts, key=partner_folder(acts, "helper").signing))
    assert gate.out("helper") == gate.out("made-up") != {}


def test_one_that_is_too_large_is_refused_before_it_is_copied(acts: Acts, gate: Gate) -> None:
    small = gate.opened(limits=msgspec.structs.replace(acts.bus.limits, max_upload_bytes=10))
    gate.lay(a_package(acts)[:60])  # its head says so, and the rest need not come
    gate.look(small)
    assert gate.refused() == {"a.package.json": "size.too_large"}
    assert not list(gate.spool.iterdir())


def test_what_is_no_plain_file_or_has_another_name_is_not_touched(acts: Acts, gate: Gate, tmp_path: Path) -> None:
    inside, secret = gate.folder / "in", tmp_path / "secret"
    secret.write_bytes(a_package(acts))
    (inside / "link.package").symlink_to(secret)
    os.mkfifo(inside / "pipe.package")
    (inside / "folder.package").mkdir()
    gate.lay(a_package(acts), "a.package.part")
    gate.look()
    assert len(gate.waiting) == 4
    assert (gate.refused(), gate.out()) == ({}, {})


def test_a_link_that_took_a_package_s_place_is_not_followed(
    acts: Acts, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(a_package(acts))
    path = gate.lay(a_package(acts, "m-2"))
    laid = gate.door._listed()
    path.unlink()
    path.symlink_to(secret)
    monkeypatch.setattr(gate.door, "_listed", lambda: laid)
    gate.look()
    assert (gate.out(), acts.bus.journal.search(type="delivery")) == ({}, [])


def test_another_package_that_took_its_place_while_it_was_read_is_not_removed(
    acts: Acts, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive = packages.receive

    async def slow(delivery: Any, bus: Any) -> Any:
        received = await receive(delivery, bus)
        gate.lay(a_package(acts, "m-2", covers("B", 9)))
        return received

    with monkeypatch.context() as patched:
        patched.setattr(packages, "receive", slow)
        gate.take(a_package(acts))
    assert gate.waiting == ["a.package"]
    gate.look()
    assert sorted(gate.out()) == ["m-1.receipt.json", "m-2.receipt.json"]


def test_what_a_full_disk_could_not_keep_waits_and_is_taken_later(
    acts: Acts, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "FIRST_WAIT_S", 0.0)

    class FullDisk(EvidenceFolder):
        def add(self, bureau: str, octets: bytes) -> tuple[str, int]:
            raise OSError(28, "No space left on device")

    gate.lay(a_package(acts))
    gate.look(gate.opened(evidence=Evidence(FullDisk(acts.bus.folder / "evidence"))))
    assert (gate.waiting, gate.out(), gate.refused()) == (["a.package"], {}, {})
    gate.look()
    assert (gate.waiting, list(gate.out())) == ([], ["m-1.receipt.json"])


def test_beyond_a_feed_s_quota_a_package_waits_where_it_lies(acts: Acts, gate: Gate) -> None:
    feed = msgspec.structs.replace(acts.bus.feeds[FEED], most_a_minute=1)
    door = gate.opened(feeds={**acts.bus.feeds, FEED: feed}, gate=Quota())
    gate.lay(a_package(acts), "1.package")
    gate.lay(a_package(acts, "m-2"), "2.package")
    gate.look(door)
    assert (gate.waiting, gate.refused()) == (["2.package"], {})
    gate.look()  # by a process whose quota has room
    assert sorted(gate.out()) == ["m-1.receipt.json", "m-2.receipt.json"]


def test_what_trips_us_waits_and_the_others_are_taken(acts: Acts, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    take_apart, seen = packages.take_apart, list[Content]()

    def trips_once(raw: Content) -> Package:
        seen.append(raw)
        if len(seen) == 1:
            raise ZeroDivisionError
        return take_apart(raw)

    monkeypatch.setattr(packages, "take_apart", trips_once)
    gate.lay(a_package(acts), "1.package")
    gate.lay(a_package(acts, "m-2"), "2.package")
    gate.look()
    assert (gate.waiting, list(gate.out())) == (["1.package"], ["m-2.receipt.json"])


def test_what_was_refused_before_is_not_written_over(acts: Acts, gate: Gate) -> None:
    for _ in range(3):
        gate.take(a_package(acts, feed="no-such-feed"))
    names = {"a.package", "a.2.package", "a.3.package"}
    assert {path.name for path in (gate.folder / "refused").glob("*.package")} == names


def test_a_refused_package_laid_in_again_is_looked_at_again(acts: Acts, gate: Gate) -> None:
    """Its grant came late."""
    gate.take(a_package(acts, feed=OTHER))
    assert gate.refused() == {"a.package.json": "auth.no_grant"}
    acts.trial.grant("made-up", "push", OTHER)
    (gate.folder / "refused/a.package").rename(gate.folder / "in/a.package")
    gate.look()
    assert list(gate.out()) == ["m-1.receipt.json"], "the refusal is over"


def test_evidence_whose_content_is_another_is_found_out(acts: Acts, gate: Gate) -> None:
    gate.take(a_package(acts))
    row = acts.bus.journal.inbox("made-up", "m-1")
    assert row is not None
    file = acts.bus.folder / "evidence" / row.evidence.partition(":")[0]
    file.write_bytes(altered(file.read_bytes()))
    with pytest.raises(EvidenceBroken):
        reopened(row, acts.bus)


@pytest.mark.parametrize("kind", ["ES256", "SM2"])
def test_a_bundle_of_a_package_holds_and_not_with_another_content(acts: Acts, gate: Gate, kind: Any) -> None:
    gate.take(a_package(acts, key=acts.more_key(kind)))
    parts = exported(acts, "m-1")
    verdict = verdict_of(parts, trusted.anchors_of(acts.trial.settings))
    assert verdict.state == "holds"
    assert says(verdict, "signature", "package,")
    (name,) = (name for name in parts if name.endswith("/envelope"))
    spoilt = verdict_of({**parts, name: altered(parts[name])}, trusted.anchors_of(acts.trial.settings))
    assert spoilt.state == "broken"


@pytest.mark.parametrize(
    "kind, code, word", [("ES256", 0, "holds"), ("RS256", 0, "holds"), ("SM2", 2, "not read here")]
)
def test_a_stranger_s_script_checks_the_signature_of_a_package(
    acts: Acts, gate: Gate, tmp_path: Path, kind: Any, code: int, word: str
) -> None:
    gate.take(a_package(acts, content=covers("<!DOCTYPE"), key=acts.more_key(kind)))
    parts, stranger = exported(acts, "m-1"), Stranger(tmp_path)

    def said(parts: dict[str, bytes]) -> tuple[int, str]:
        (stranger.folder / "bundle.zip").write_bytes(zipped(parts))
        ran = stranger.run("verify_sender.py", "bundle.zip")
        return ran.returncode, ran.stdout.partition(": ")[0]

    assert said(parts) == (code, word)
    (name,) = (name for name in parts if name.endswith("/envelope"))
    if code == 0:
        assert said({**parts, name: altered(parts[name])}) == (1, "broken")


# What the courier brings home.


def bureau(acts: Acts) -> PackagePartner:
    folder = partner_folder(acts)
    return PackagePartner(
        folder, partial(verify_receipt, anchors=trusted.anchors_of(acts.trial.settings)), acts.bus.clock
    )


def packed(acts: Acts, gate: Gate, message_id: str = "m-1", feed: str = FEED, content: bytes = b"") -> None:
    """A package of the bureau's own making, laid in and looked at."""
    content = content or covers(message_id)
    bureau(acts).pack(feed, in_memory(content), "text/csv", message_id, gate.folder / "in" / f"{message_id}.package")
    gate.look()


def test_receipt_and_report_are_taken_home_checked_and_kept(acts: Acts, gate: Gate) -> None:
    packed(acts, gate)
    process(FEED, acts.bus)
    for _, row, report in acts.bus.journal.reports_after(-1, 10):
        lay_out_report(gate.folder, row, report).result()
    home = {one.file: (one.kind, one.outcome, one.problem) for one in bureau(acts).take_home(gate.courier())}
    assert home == {
        "m-1.receipt.json": ("receipt", "accepted", None),
        "m-1.report.json": ("report", "processed", None),
    }
    own = partner_folder(acts)
    assert (own.path / "receipts/m-1.receipt.json").read_bytes() == gate.out()["m-1.receipt.json"]
    assert (own.path / "reports/m-1.report.json").read_bytes() == gate.out()["m-1.report.json"]


def test_a_report_that_refuses_the_whole_delivery_is_told_with_its_code(acts: Acts, gate: Gate) -> None:
    packed(acts, gate, content=b"PK\x03\x04 no register")
    process(FEED, acts.bus)
    ((_, row, report),) = acts.bus.journal.reports_after(-1, 10)
    lay_out_report(gate.folder, row, report).result()
    *_, one = bureau(acts).take_home(gate.courier())
    assert (one.kind, one.outcome) == ("report", "refused")
    assert one.problem is not None
    assert one.problem.code == document(report)["report"]["code"]


def test_what_two_persons_erase_is_gone_from_what_couriers_take_home(
    acts: Acts, gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    packed(acts, gate)
    process(FEED, acts.bus)
    ((_, row, report),) = acts.bus.journal.reports_after(-1, 10)
    lay_out_report(gate.folder, row, report).result()
    assert sorted(gate.out()) == ["m-1.receipt.json", "m-1.report.json"]
    desk = Desk(acts, capsys)
    decision = decided(desk, "m-1", "--kind", "personal")
    assert desk.run("erasure", "carry", decision, by=AUDITOR)[0] == 0
    assert list(gate.out()) == ["m-1.receipt.json"]


def test_packages_are_numbered_and_one_that_never_came_leaves_a_gap(acts: Acts, gate: Gate, tmp_path: Path) -> None:
    """No way back, and the bus knows all the same."""
    packed(acts, gate, "m-1")
    bureau(acts).pack(FEED, in_memory(covers("B")), "text/csv", "m-2", tmp_path / "lost.package")
    packed(acts, gate, "m-3")
    gaps = acts.bus.journal.gaps()
    assert [(gap.first, gap.last) for gap in gaps.gaps] == [(2, 2)]


def test_a_refusal_brought_home_is_told_and_frees_its_number(acts: Acts, gate: Gate, tmp_path: Path) -> None:
    packed(acts, gate, feed="no-such-feed")
    (one,) = bureau(acts).take_home(gate.courier())
    assert (one.kind, one.problem.code if one.problem else "") == ("refusal", "feed.unknown")
    again = bureau(acts).pack("no-such-feed", in_memory(b"x"), "text/csv", "m-2", tmp_path / "2.package")
    assert again.sequence == 1


def test_the_refusal_of_an_earlier_package_frees_nothing(acts: Acts, gate: Gate, tmp_path: Path) -> None:
    packed(acts, gate, feed="no-such-feed")
    (gate.folder / "refused/m-1.package").unlink()
    bureau(acts).pack("no-such-feed", in_memory(covers("m-1")), "text/plain", "m-1", tmp_path / "1.package")
    (one,) = bureau(acts).take_home(gate.courier())
    assert (one.kind, one.outcome, one.problem) == ("refusal", "superseded", None)
    again = bureau(acts).pack("no-such-feed", in_memory(b"x"), "text/csv", "m-2", tmp_path / "2.package")
    assert again.sequence == 2


def test_what_could_not_be_packed_takes_no_number_and_an_id_is_one_content_s(acts: Acts, tmp_path: Path) -> None:
    out = tmp_path / "a.package"
    out.write_bytes(b"another")
    for path in (out, tmp_path / "a.zip"):
        with pytest.raises(Misconfigured):
            bureau(acts).pack(FEED, in_memory(b"x"), "text/csv", "m-1", path)
    assert bureau(acts).pack(FEED, in_memory(b"x"), "text/csv", "m-2", tmp_path / "2.package").sequence == 1
    with pytest.raises(Refusal, match=r"delivery\.id_reused"):
        bureau(acts).pack(FEED, in_memory(b"y"), "text/csv", "m-2", tmp_path / "3.package")


def test_a_file_that_changes_while_it_is_packed_is_no_package(acts: Acts, tmp_path: Path) -> None:
    file = tmp_path / "sheet.csv"
    file.write_bytes(covers("A"))
    content = file_content(file)
    file.write_bytes(covers("B"))
    with pytest.raises(Misconfigured, match="changed"):
        bureau(acts).pack(FEED, content, "text/csv", "m-1", tmp_path / "a.package")
    assert not (tmp_path / "a.package").exists()


def test_an_answer_that_does_not_hold_is_not_kept(acts: Acts, gate: Gate) -> None:
    packed(acts, gate)
    file = gate.courier() / "m-1.receipt.json"
    file.write_bytes(file.read_bytes().replace(b'"signature":"', b'"signature":"AA'))
    (one,) = bureau(acts).take_home(gate.courier())
    assert (one.kind, one.problem.code if one.problem else "") == ("unknown", "answer.not_signed")
    assert partner_folder(acts).receipt("m-1") is None


def test_a_receipt_of_what_was_not_packed_here_or_says_another_content_is_not_kept(acts: Acts, gate: Gate) -> None:
    gate.take(a_package(acts, "m-2"))
    packed(acts, gate, "m-1")
    own = partner_folder(acts)
    own.note_packed("m-1", msgspec.json.encode({**(own.packed("m-1") or {}), "content_digest": "00" * 32}))
    home = {one.file: one.problem.code if one.problem else "" for one in bureau(acts).take_home(gate.courier())}
    assert home == dict.fromkeys(("m-1.receipt.json", "m-2.receipt.json"), "audit.receipt_invalid")
    assert (own.receipt("m-1"), own.receipt("m-2")) == (None, None)


def test_a_name_that_climbs_out_of_the_folder_was_never_packed(acts: Acts, gate: Gate) -> None:
    packed(acts, gate)
    list(bureau(acts).take_home(gate.courier()))
    own = partner_folder(acts)
    assert (own.path / "packed/../receipts/m-1.receipt.json").exists()
    assert own.packed("../receipts/m-1.receipt") is None


def test_the_folder_that_carried_it_is_no_unknown_certificate_to_the_bureau(acts: Acts, gate: Gate) -> None:
    packed(acts, gate)
    list(bureau(acts).take_home(gate.courier()))
    own = partner_folder(acts)
    entries = [one for one in map(held, own_entries_of(acts).entries) if one.leaf["type"] == "delivery"]
    assert [unknown(entry, own.certificates(), own.receipts()) for entry in entries] == [[]]
