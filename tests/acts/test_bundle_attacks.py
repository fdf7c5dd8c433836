"""Ways in which an operator, an authority or one witness tried to make a bundle say what is not so, or say nothing."""

import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from exchange import bundle_check, bundle_standing, erasing
from exchange.app import keys_in_force
from exchange.attestations import take_cosignatures
from exchange.bundle_check import verify_bundle
from exchange.bundle_export import of_day
from exchange.bundle_parts import CITY_TIME, Findings, Proven, consistency_octets, entry_octets, is_among
from exchange.bundle_standing import Stood, told_again
from exchange.bundle_status import Statuses
from exchange.cli.people import registry
from exchange.cli.trial import APPROVER, AUDITOR
from exchange.decision_documents import ErasureBody
from exchange.decisions import Carried
from exchange.entry import ERASURE, Entry, Leaf, instant
from exchange.receipts import REPORT
from security import bundle
from security.anchors import FormerLogKey
from security.batch import unverified
from security.bundle import MANIFEST
from security.cosignature import cosign, cosignatures
from security.errors import Misconfigured, Refusal
from security.jws import sign_document
from security.keys import generate
from security.message import in_memory
from tests.acts.bundles import Office, Parts, _witness, an_office, packed, row, says, states

MONTH = timedelta(days=30)


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """One whose log no test here makes longer."""
    with an_office(tmp_path_factory.mktemp("attacks")) as office:
        yield office


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Office]:
    with an_office(tmp_path) as office:
        yield office


def number_of(parts: Parts) -> int:
    (number,) = {int(name.split("/")[1]) for name in parts if name.startswith("messages/")}
    return number


def day_bundle(office: Office) -> Parts:
    """Of today."""
    today = datetime.now(UTC).astimezone(CITY_TIME).date()
    return {name: part.read() for name, part in of_day(today, office.sources()).items()}


def goes_on(office: Office) -> None:
    """One more entry."""
    office.acts.bus.journal.note(Entry(type="read", outcome="answered")).result()


# Days.


def cut_off(office: Office, size: int) -> Parts:
    """Today's bundle as if the log ended at an older head, which others signed."""
    journal, whole, attested = office.acts.bus.journal, day_bundle(office), office.kept.head(size)
    assert attested is not None
    found: Parts = {MANIFEST: whole[MANIFEST], "checkpoint": attested.checkpoint.encode()}
    found |= {f"heads/{size}.checkpoint": found["checkpoint"], f"heads/{size}.tsr": attested.response}
    for name, octets in whole.items():
        folder, _, rest = name.partition("/")
        number = int(rest.split("/")[0].split(".")[0]) if folder in ("entries", "messages", "consistency") else 0
        if folder == "entries" and number < size:
            proof = journal.prove(number)
            path = journal.inclusion(number, size)
            found[name] = entry_octets(number, proof.leaf, proof.salt, proof.detail, path)
        elif folder == "consistency" and number < size:
            found[name] = consistency_octets(number, size, journal.consistency(number, size))
        elif folder in ("messages", "certificates", "status", "mappings") and number < size:
            found[name] = octets
    return found


def test_a_day_with_its_tail_cut_off_under_an_older_witnessed_head_is_no_pass(office: Office) -> None:
    (size,) = office.kept.stamped_above(0)
    assert office.acts.bus.journal.size() > size, "the third delivery came after it"
    later = datetime.now(UTC) + MONTH
    bad = office.signed_anew(cut_off(office, size), made_at=instant(later))
    verdict = office.verdict(bad, now=later)
    assert (verdict.state, states(verdict)) == ("incomplete", {"subject": "missing"})
    assert says(verdict, "subject", "the log is not seen to go on after that day")


def test_a_day_that_is_not_over_does_not_read_as_a_whole_one(office: Office) -> None:
    verdict = office.verdict(day_bundle(office))
    assert verdict.state == "incomplete"
    assert says(verdict, "subject", f"as of {verdict.made_at}; the day was not over")


def test_a_day_is_attested_by_the_head_over_its_last_entry_and_is_whole_once_the_log_goes_on(
    fresh: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heads between its last delivery and its last entry were signed, too: they do not cover the day."""
    for _ in range(2):
        fresh.attest()
        goes_on(fresh)
    last = fresh.attest()
    later = datetime.now(UTC) + timedelta(days=1)
    monkeypatch.setattr(fresh.acts.bus.journal._sequencer, "_clock", lambda: later)
    goes_on(fresh)
    parts = day_bundle(fresh)
    assert f"heads/{last}.checkpoint" in parts
    verdict = fresh.verdict(fresh.signed_anew(parts, made_at=instant(later)), now=later)
    assert (verdict.state, states(verdict)) == ("holds", {})


# Reports.


def test_another_deliverys_report_does_not_pass_as_this_ones(office: Office) -> None:
    """The bus signs it anew with the number of this delivery; its leaf, detail and proof are what they were."""
    parts, other = office.bundle("m-1"), office.bundle("m-2")
    number, theirs = number_of(parts), number_of(other)
    document = dict(unverified(other[f"messages/{theirs}/report.json"])) | {"accepted_index": number}
    signed = sign_document(document, REPORT, office.acts.bus.answer_key)
    more = {name: octets for name, octets in other.items() if not name.startswith("messages/")}
    verdict = office.verdict(office.signed_anew({**more, **parts, f"messages/{number}/report.json": signed}))
    assert states(verdict) == {"receipts": "broken"}
    assert says(verdict, "receipts", "of another delivery, made-up m-2")


def test_a_report_left_out_of_a_delivery_that_was_processed_is_missing(office: Office) -> None:
    parts = office.bundle("m-1")
    name = f"messages/{number_of(parts)}/report.json"
    verdict = office.verdict(office.signed_anew({one: octets for one, octets in parts.items() if one != name}))
    assert (verdict.state, states(verdict)) == ("incomplete", {"receipts": "missing"})
    assert says(verdict, "receipts", f"{name}: not there, and entries/")


def test_a_delivery_that_nobody_processed_yet_says_so_and_as_of_when(office: Office) -> None:
    verdict = office.verdict(office.bundle("m-3"))
    size = office.anchors.head(office.acts.bus.journal.checkpoint()).size
    assert row(verdict, "receipts").state == "holds"
    assert says(verdict, "receipts", f"no report yet, as of the head of {size} entries")


def test_a_recalled_delivery_says_so_with_its_day_and_an_older_report_does_not_do(fresh: Office) -> None:
    before = fresh.bundle("m-1")
    name = f"messages/{number_of(before)}/report.json"
    fresh.acts.recall(fresh.acts.recalling("m-1"))
    fresh.attest()
    parts, today = fresh.bundle("m-1"), datetime.now(UTC).astimezone(CITY_TIME).date()
    verdict = fresh.verdict(parts)
    assert verdict.state == "holds"
    assert says(verdict, "receipts", f"撤回 recalled, on {today}")
    older = fresh.signed_anew({**before, **parts, name: before[name]})
    older = {one: octets for one, octets in older.items() if one in parts or one.startswith("entries/")}
    (processed,) = (one.index for one in fresh.acts.bus.journal.search(type="processing", message_id="m-1"))
    journal = fresh.acts.bus.journal
    size, first = fresh.anchors.head(parts["checkpoint"].decode()).size, dict(unverified(before[name]))["checkpoint"]
    proof, first = journal.prove(processed), fresh.anchors.head(str(first)).size
    older[f"entries/{processed}.json"] = entry_octets(
        processed, proof.leaf, proof.salt, proof.detail, journal.inclusion(processed, size)
    )
    older[f"consistency/{first}.json"] = consistency_octets(first, size, journal.consistency(first, size))
    verdict = fresh.verdict(fresh.signed_anew(older))
    assert row(verdict, "receipts").state == "missing", verdict
    assert says(verdict, "receipts", "an older report")


# Witnesses.


def with_a_third(office: Office, at: datetime) -> str:
    """The newest head with a line of a third witness, of that time."""
    office.keys["witness-3.example"] = generate("EdDSA")
    witnesses = [_witness(name, key) for name, key in office.keys.items()]
    office.anchors = msgspec.structs.replace(office.anchors, witnesses=witnesses)
    note = office.acts.bus.journal.checkpoint()
    return f"{note}{cosign(note, 'witness-3.example', office.keys['witness-3.example'], at)}\n"


@pytest.mark.parametrize("off", [timedelta(days=20_000), timedelta(minutes=6), timedelta(minutes=-6)])
def test_a_witness_whose_clock_is_off_is_refused_at_the_door(fresh: Office, off: timedelta) -> None:
    now = datetime.now(UTC)
    signed = with_a_third(fresh, now + off)
    with pytest.raises(Refusal, match=r"audit\.cosignature_time"):
        take_cosignatures(signed, fresh.anchors, fresh.kept, now)
    assert fresh.kept.cosigned(0, ["witness-3.example"], 1) is None
    size = fresh.anchors.head(signed).size
    take_cosignatures(with_a_third(fresh, now), fresh.anchors, fresh.kept, now)
    assert fresh.kept.cosigned(size - 1, ["witness-3.example"], 1) is not None, "and its next line is taken"


def test_one_witness_with_a_time_to_come_breaks_nobodys_evidence(fresh: Office) -> None:
    """Its line was kept by a bus that did not look."""
    signed = with_a_third(fresh, datetime.now(UTC) + timedelta(days=20_000))
    size = fresh.anchors.head(signed).size
    fresh.kept.keep_cosignatures(size, cosignatures(signed, fresh.anchors.witnesses))
    assert fresh.attest() == size
    parts = fresh.bundle("m-3")
    verdict = fresh.verdict(parts)
    assert (verdict.state, states(verdict)) == ("holds", {})
    assert says(verdict, "witnesses", "left out of the count: witness-3.example")
    lone = fresh.verdict(parts, quorum=3)
    assert (lone.state, states(lone)) == ("incomplete", {"witnesses": "missing"})


def test_who_is_no_witness_any_more_makes_no_head_the_one_that_counts(fresh: Office) -> None:
    size = fresh.attest()
    goes_on(fresh)
    assert fresh.attest() > size
    (named, _) = fresh.keys
    assert fresh.kept.cosigned(0, [named], 2) is None
    assert fresh.kept.cosigned(0, [named], 1) is not None


# Erasures.


def purged(office: Office, message_id: str) -> str:
    """A delivery erased by decision of two persons."""
    body = ErasureBody("made-up", message_id, "删除请求", "personal")
    with registry(office.acts.trial.settings) as opened:
        decision = opened.propose_erasure(body, AUDITOR)
        opened.approve(decision, APPROVER)
    erasing.carry_out(decision, AUDITOR, office.acts.bus)
    return decision


def test_another_deliverys_erasure_does_not_cover_for_lost_evidence(fresh: Office) -> None:
    """Two persons had m-2 erased. The operator erases m-1, and writes into the log that it was by the same decision."""
    bus = fresh.acts.bus
    decision = purged(fresh, "m-2")
    honest = fresh.verdict(fresh.bundle("m-2"))
    assert row(honest, "erased parts").state == "erased", honest
    assert says(honest, "erased parts", f"decision {decision}")
    lost = bus.journal.inbox("made-up", "m-1")
    assert lost is not None
    reported = bus.journal.reported_in(lost.id)
    assert reported is not None
    victims = sorted([lost.entry_index, reported[0]])
    bus.evidence.erase(lost.evidence)
    detail: dict[str, str | int] = {"of": decision, "entries": erasing.ranges_text(victims), "deliveries": 1}
    entry = Entry(type=ERASURE, outcome="personal", trust_digest=bus.registry.trust().digest, detail=detail)
    bus.journal.note(entry, partial(erasing._forget, decision, [lost], victims)).result()
    parts = fresh.bundle("m-1")
    without = {name: octets for name, octets in parts.items() if not name.endswith("receipt.json")}
    for bad in (parts, fresh.signed_anew(without)):
        verdict = fresh.verdict(bad)
        assert row(verdict, "erased parts").state == "missing"
        assert says(verdict, "erased parts", "by no decision here")
        assert not says(verdict, "erased parts", decision)


def test_without_the_entry_that_says_so_nothing_was_erased(fresh: Office) -> None:
    purged(fresh, "m-2")
    (said,) = (one.index for one in fresh.acts.bus.journal.search(type=ERASURE))
    parts = fresh.bundle("m-2")
    assert f"entries/{said}.json" in parts
    del parts[f"entries/{said}.json"]
    verdict = fresh.verdict(fresh.signed_anew(parts))
    assert row(verdict, "erased parts").state == "missing"


def proven(index: int, time: str, type: str, outcome: str, detail: dict[str, str | int] | None) -> Proven:
    leaf = Leaf("", "", "", "f", "", "", "o", outcome, "s", "", time, "", type, 1)
    return Proven(index, "", leaf, detail)


@pytest.mark.parametrize("evidence_before, covers_it", [("2026-03-02", True), ("2026-03-01", False)])
def test_retention_goes_by_when_a_delivery_came_as_the_erasure_does(
    office: Office, evidence_before: str, covers_it: bool
) -> None:
    """It came before midnight of 1 March (+08:00), and was entered after it."""
    container = bundle.read(in_memory(packed(office.bundle("m-1"))))
    check = bundle_check._Check(container, office.anchors, datetime.now(UTC))
    entry = proven(5, "2026-03-01T16:00:01.000000Z", "delivery", "accepted", None)
    check._messages[5] = bundle_check._Message(entry, {"received_at": "2026-03-01T15:59:59.000000Z"})
    body = ErasureBody("", "", "g", "retention", evidence_before, "2026-01-01")
    check._carried = {"d-1": Carried("purge", body, "2026-11-01T00:00:00.000000Z")}
    erasure = proven(90, "2026-10-01T00:00:00.000000Z", ERASURE, "retention", {"of": "d-1", "entries": ""})
    assert check._erases(erasure, "d-1", "messages/5/envelope", entry) is covers_it


@pytest.mark.parametrize("text", ["5-", "-5", "5,6", "5  6", "٥", "05", "9" * 5000, "5 x"])
def test_ranges_that_are_none_cover_nothing(text: str) -> None:
    with pytest.raises(ValueError, match="not numbers"):
        is_among(text, 5)


def test_ranges_are_read_as_they_are_written() -> None:
    numbers = [0, 3, 4, 5, 9, 12, 13]
    text = erasing.ranges_text(numbers)
    assert [number for number in range(20) if is_among(text, number)] == numbers
    assert not is_among("", 0)


# Whatever stands in a part.


def spoilt_list(office: Office) -> bytes:
    """A list of the authority's in which the issuer's name has another kind of text: its reader trips over it."""
    ca, now = keys_in_force.authority(office.acts.trial.settings), datetime.now(UTC)
    issuer = x509.load_der_x509_certificate(ca.certificate_der)
    key: Any = serialization.load_pem_private_key(ca.key.pem(), None)
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.subject)
    made = builder.last_update(now).next_update(now + timedelta(days=1)).sign(key, hashes.SHA256())
    octets = bytearray(made.public_bytes(serialization.Encoding.DER))
    octets[octets.find(issuer.subject.rfc4514_string().split("=")[1].encode()) - 2] = 3
    return bytes(octets)


def test_a_list_that_trips_its_reader_is_named_and_stops_no_verdict(office: Office) -> None:
    parts, octets = office.bundle("m-1"), spoilt_list(office)
    verdict = office.verdict(office.signed_anew({**parts, f"status/{sha256(octets).hexdigest()}.crl": octets}))
    assert row(verdict, "certificate").state == "broken"
    assert row(verdict, "signature").state == "holds"


@pytest.mark.parametrize(
    "changed",
    [
        {"erased": {f"messages/{'9' * 5000}/envelope": "2026-11-28"}},
        {"erased": {f"entries/{'9' * 5000}.json": "2026-11-28"}},
        {"withheld": {"messages/٣/envelope": "sealed"}},
        {"erased": {"messages/1/envelope": ""}},
        {"made_at": "2026-11-28T00:00:00"},
        {"made_at": "2026-11-28"},
        {"kind": "day", "subject": "2026-99-99"},
        {"kind": "ownership"},
    ],
    ids=lambda changed: str(changed)[:50],
)
def test_whatever_the_manifest_says_the_verdict_is_told(office: Office, changed: dict[str, Any]) -> None:
    verdict = office.verdict(office.signed_anew(office.bundle("m-1"), **changed))
    assert verdict.state in ("broken", "incomplete")


def test_a_malformed_former_key_is_blamed_on_the_anchors(office: Office) -> None:
    former = [FormerLogKey("5e", "EdDSA", 3)]
    anchors = msgspec.structs.replace(office.anchors, former_log_keys=former, witnesses=[], timestamp_certificates=[])
    with pytest.raises(Misconfigured, match="a former one is not"):
        verify_bundle(in_memory(packed(office.bundle("m-1"))), anchors, datetime.now(UTC))


def test_a_certificate_enrolled_for_encryption_signs_nothing(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    def for_encryption(*arguments: Any) -> tuple[dict[int, Stood], Any]:
        stood, carried = told_again(*arguments)
        changed = {}
        for number, one in stood.items():
            certificates = {
                name: msgspec.structs.replace(certificate, use="encryption")
                for name, certificate in one.now.certificates.items()
            }
            now = msgspec.structs.replace(one.now, certificates=certificates)
            changed[number] = msgspec.structs.replace(one, now=now)
        return changed, carried

    monkeypatch.setattr(bundle_check, "told_again", for_encryption)
    verdict = office.verdict(office.bundle("m-1"))
    assert row(verdict, "enrolment").state == "broken"
    assert says(verdict, "enrolment", "auth.certificate_not_for_signing")


class Growing:
    """A standing in which each decision grants something more."""

    def __init__(self, *_: Any) -> None:
        self.certificates: dict[str, Any] = {}
        self.mappings: dict[str, str] = {}
        self.grants: dict[str, object] = {}
        self.proposals: dict[str, object] = {}
        self.carried: dict[str, object] = {}
        self.troubles: list[object] = []
        self.persons = {"p": 1}

    def take(self, _: object) -> None:
        self.grants[f"g-{len(self.grants)}"] = object()


def test_many_decisions_in_one_minute_are_not_each_kept_with_all_before_them(
    monkeypatch: pytest.MonkeyPatch, office: Office
) -> None:
    monkeypatch.setattr(bundle_standing, "Standing", Growing)
    times = [f"2026-11-28T00:00:{n // 1000:02d}.{n % 1000:06d}Z" for n in range(4000)]
    entries = {n: proven(n, time, "decision", "proposed", {}) for n, time in enumerate(times)}
    tracemalloc.start()
    try:
        told_again(entries, [], office.anchors, Statuses((), (), datetime.now(UTC)), Findings())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20, f"{peak >> 20} MiB"


def test_signed_anew_and_nothing_else_it_still_holds(office: Office) -> None:
    """So that what the tests above find is what they spoilt."""
    assert office.verdict(office.signed_anew(office.bundle("m-1"))).state == "holds"
