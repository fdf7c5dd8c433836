"""Evidence bundles: what holds with the cable out, and every way in which one may be spoilt."""

import base64
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exchange.app import places
from exchange.bundle_check import verify_bundle
from exchange.bundle_export import of_day, of_ownership
from exchange.bundle_parts import CITY_TIME
from exchange.ownership import ownership
from exchange.receipts import RECEIPT
from security.bundle import MANIFEST
from security.checkpoint import log_key_octets, sign_checkpoint
from security.errors import Refusal
from security.jws import open_document, sign_document
from security.keys import der_of_pem, generate
from security.merkle import leaf_hash
from security.message import in_memory
from tests.acts.bundles import Office, Parts, an_office, edited, packed, row, says, states

FAR = timedelta(days=3650)
UNCHANGED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    with an_office(tmp_path_factory.mktemp("bundles")) as office:
        yield office


@pytest.fixture(scope="module")
def parts(office: Office) -> Parts:
    return office.bundle("m-1")


def number_of(parts: Parts) -> int:
    (number,) = {int(name.split("/")[1]) for name in parts if name.startswith("messages/")}
    return number


# It shows 1.


def test_a_bundle_alone_with_the_anchors_in_an_empty_folder_passes(
    office: Office, parts: Parts, tmp_path: Path
) -> None:
    (tmp_path / "bundle.zip").write_bytes(packed(parts))
    (tmp_path / "anchors.json").write_bytes(msgspec.json.encode(office.anchors))
    command = [sys.executable, "-m", "exchange.cli.main", "verify", "bundle.zip", "--anchors", "anchors.json"]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([*command, "--json"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert (said["ok"], said["state"], said["bundle"]["subject"]) == (True, "holds", "made-up m-1")
    assert {one["name"]: one["state"] for one in said["bundle"]["rows"]} == {
        one.name: "holds" for one in office.verdict(parts).rows
    }
    told = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert told.returncode == 0
    assert "UNWITNESSED" not in told.stdout
    changed = {**parts, "checkpoint": parts["checkpoint"].replace(b"\n", b"\r", 1)}
    (tmp_path / "bundle.zip").write_bytes(packed(changed))
    told = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert told.returncode == 1
    assert "DOES NOT HOLD" in told.stdout
    assert "checkpoint: altered" in told.stdout


def test_any_byte_of_any_part_changed_fails_and_names_the_part(
    office: Office, parts: Parts, tell: Callable[[str], None]
) -> None:
    def spoilt(name: str) -> None:
        @settings(UNCHANGED, max_examples=8)
        @given(st.integers(0, len(parts[name]) - 1), st.integers(1, 255))
        def changed(at: int, other: int) -> None:
            octets = bytearray(parts[name])
            octets[at] ^= other
            verdict = office.verdict({**parts, name: bytes(octets)})
            assert verdict.state == "broken"
            assert says(verdict, "manifest", name)

        changed()

    for name in sorted(parts):
        spoilt(name)
    tell(f"BUNDLE any byte of any part changed: 8 examples of each of {len(parts)} parts, every one named")


def found_in(octets: bytes, office: Office) -> str:
    """The code by which a file is refused; else the states of the whole and of its container."""
    try:
        verdict = verify_bundle(in_memory(octets), office.anchors, datetime.now(UTC))
    except Refusal as refusal:
        return refusal.code
    return f"{verdict.state} {row(verdict, 'container').state}"


def test_any_byte_of_the_file_changed_fails(office: Office, parts: Parts, tell: Callable[[str], None]) -> None:
    whole, refused = packed(parts), 0

    @settings(UNCHANGED, max_examples=120)
    @given(st.integers(0, len(whole) - 1), st.integers(1, 255))
    def changed(at: int, other: int) -> None:
        nonlocal refused
        octets = bytearray(whole)
        octets[at] ^= other
        found = found_in(bytes(octets), office)
        refused += found == "bundle.container"
        assert found in ("bundle.container", "broken broken")

    changed()
    for octets in (whole[:-1], whole + b"\0", whole[: len(whole) // 2], whole[1:]):
        with pytest.raises(Refusal, match=r"bundle\.container"):
            verify_bundle(in_memory(octets), office.anchors, datetime.now(UTC))
    tell(f"BUNDLE any byte of the file changed: 120 examples, {refused} refused as no bundle, the others named")


def test_what_the_operator_alters_and_signs_anew_fails_by_its_own_row(
    office: Office, parts: Parts, tell: Callable[[str], None]
) -> None:
    """The manifest's digests are the operator's own word: each part must be found out without them."""

    def altered(name: str) -> None:
        @settings(UNCHANGED, max_examples=12)
        @given(st.integers(0, len(parts[name]) - 1), st.integers(1, 255))
        def changed(at: int, other: int) -> None:
            octets = bytearray(parts[name])
            octets[at] ^= other
            verdict = office.verdict(office.signed_anew({**parts, name: bytes(octets)}))
            if name.endswith(".tsr") and verdict.state == "holds":  # what a token carries beside what was signed in it
                return
            assert verdict.state != "holds", name
            assert row(verdict, "manifest").state == "holds"
            assert any(name in line for one in verdict.rows for line in one.about if one.state != "holds"), name

        changed()

    for name in sorted(parts.keys() - {MANIFEST}):
        altered(name)
    tell(f"BUNDLE altered and signed anew by the operator: 12 examples of each of {len(parts) - 1} parts, each named")


# Bad input, one by one.


def test_a_missing_part_is_named_whether_the_manifest_is_signed_anew_or_not(office: Office, parts: Parts) -> None:
    number = number_of(parts)
    for name in parts:
        without = {other: octets for other, octets in parts.items() if other != name}
        verdict = office.verdict(without)
        assert verdict.state == "broken", name
        assert says(verdict, "manifest", name)
        if name == MANIFEST:
            continue
        verdict = office.verdict(office.signed_anew(without))
        if name == f"messages/{number}/report.json":
            assert says(verdict, "receipts", f"{name}: not there, and entries/")
        elif name.startswith("mappings/"):
            assert (row(verdict, "mapping").state, verdict.not_asked) == ("missing", ("mapping",))
        else:
            assert verdict.state != "holds", name


def test_parts_swapped_with_another_bundles_are_not_taken(office: Office, parts: Parts) -> None:
    other, number = office.bundle("m-2"), number_of(parts)
    theirs = number_of(other)
    for kind, found in (("envelope", "signature"), ("receipt.json", "receipts"), ("report.json", "receipts")):
        name = f"messages/{number}/{kind}"
        swapped = {**parts, name: other[f"messages/{theirs}/{kind}"]}
        assert says(office.verdict(swapped), "manifest", name)
        verdict = office.verdict(office.signed_anew(swapped))
        assert row(verdict, found).state == "broken", kind
        assert says(verdict, found, name)
    entry = {**parts, f"entries/{number}.json": other[f"entries/{theirs}.json"]}
    assert says(office.verdict(office.signed_anew(entry)), "inclusion", f"entries/{number}.json")
    added = {**parts, "messages/0/envelope": b"<x/>"}
    assert says(office.verdict(added), "manifest", "messages/0/envelope: there, and not listed")
    assert office.verdict(office.signed_anew(added)).state == "broken"


def test_a_bundle_of_another_origin_is_refused(office: Office, parts: Parts) -> None:
    verdict = office.verdict(parts, origin="somebody.else.example")
    assert verdict.state == "broken"
    assert says(verdict, "manifest", "not of somebody.else.example")
    assert row(verdict, "inclusion").state == "broken"


def test_a_bundle_of_another_epoch_is_refused_by_the_keys_of_this_one(office: Office, parts: Parts) -> None:
    other = generate("EdDSA").public_key
    verdict = office.verdict(parts, log_key=log_key_octets(other).hex())
    assert (verdict.state, row(verdict, "inclusion").state) == ("broken", "broken")
    assert says(verdict, "inclusion", "checkpoint: audit.checkpoint_invalid")
    certificate = office.anchors.authorities[0]
    verdict = office.verdict(parts, receipt_certificates=[certificate])
    assert says(verdict, "manifest", "bundle.manifest")
    assert row(verdict, "receipts").state == "broken"


def test_another_buss_bundle_is_refused_by_these_anchors(office: Office, tmp_path: Path) -> None:
    with an_office(tmp_path) as other:
        verdict = office.verdict(other.bundle("m-1"))
    assert {name for name, state in states(verdict).items() if state == "broken"} >= {"manifest", "inclusion"}


def test_a_forked_head_is_named_a_fork(office: Office, parts: Parts) -> None:
    """Signed by the log's own key: only the tree finds it."""
    journal, size = office.acts.bus.journal, office.anchors.head(office.acts.bus.journal.checkpoint()).size
    forked = sign_checkpoint(office.anchors.origin, size - 1, leaf_hash(b"other"), journal._log_key)
    name = f"heads/{size - 1}.checkpoint"
    consistency = edited(
        next(octets for other, octets in parts.items() if other.startswith("consistency/")),
        lambda document: document.update(
            first=size - 1, nodes=[one.hex() for one in journal.consistency(size - 1, size)]
        ),
    )
    head = office.anchors.head(parts["checkpoint"].decode()).size
    assert head == size
    spoilt = {**parts, name: forked.encode(), f"consistency/{size - 1}.json": consistency}
    verdict = office.verdict(office.signed_anew(spoilt))
    assert verdict.state == "broken"
    assert says(verdict, "inclusion", f"{name}: FORK")


def test_a_receipt_under_a_forked_head_is_named_a_fork(office: Office, parts: Parts) -> None:
    """A log of one entry more than the bus shows to others, made for this receipt alone."""
    number, bus = number_of(parts), office.acts.bus
    name = f"messages/{number}/receipt.json"
    certificate = der_of_pem(office.anchors.receipt_certificates[0].encode())
    document = open_document(parts[name], certificate, RECEIPT)
    fork = sign_checkpoint(office.anchors.origin, 1, leaf_hash(document["leaf"].encode()), bus.journal._log_key)
    other = sign_document({**document, "index": 0, "proof": [], "checkpoint": fork}, RECEIPT, bus.answer_key)
    nodes = [one.hex() for one in bus.journal.consistency(1, office.anchors.head(parts["checkpoint"].decode()).size)]
    joined = edited(
        next(octets for part, octets in parts.items() if part.startswith("consistency/")),
        lambda said: said.update(first=1, nodes=nodes),
    )
    verdict = office.verdict(office.signed_anew({**parts, name: other, "consistency/1.json": joined}))
    assert row(verdict, "receipts").state == "broken"
    assert says(verdict, "receipts", "FORK")


def test_a_head_later_than_the_bundles_own_is_of_the_future(office: Office, parts: Parts) -> None:
    own = office.anchors.head(parts["checkpoint"].decode())
    later = sign_checkpoint(own.origin, own.size + 5, own.root, office.acts.bus.journal._log_key)
    name = f"heads/{own.size + 5}.checkpoint"
    verdict = office.verdict(office.signed_anew({**parts, name: later.encode()}))
    assert says(verdict, "inclusion", f"{name}: a head of {own.size + 5} entries, later than the bundle's own")
    assert verdict.state == "broken"


def test_what_was_made_after_now_is_of_the_future(office: Office, parts: Parts) -> None:
    verdict = office.verdict(parts, now=datetime.now(UTC) - timedelta(days=1))
    assert states(verdict).keys() >= {"manifest", "inclusion"}
    assert says(verdict, "manifest", "which is to come")
    assert says(verdict, "inclusion", "which was still to come")
    early = office.signed_anew(parts, made_at="2020-01-01T00:00:00.000000Z")
    assert row(office.verdict(early), "inclusion").state == "broken"


def test_years_later_it_holds_still(office: Office, parts: Parts) -> None:
    assert office.verdict(parts, now=datetime.now(UTC) + FAR).state == "holds"


def test_a_timestamp_token_of_another_imprint_is_not_taken(office: Office, parts: Parts) -> None:
    (name,) = (name for name in parts if name.endswith(".tsr"))
    other, _ = office.authority.answer(b"another head")
    verdict = office.verdict(office.signed_anew({**parts, name: other}))
    assert (verdict.state, row(verdict, "timestamp").state) == ("broken", "broken")
    assert says(verdict, "timestamp", f"{name}: timestamp.invalid")
    without = {part: octets for part, octets in parts.items() if part != name}
    verdict = office.verdict(office.signed_anew(without))
    assert (verdict.state, states(verdict)) == ("incomplete", {"timestamp": "missing"})


def test_a_timestamp_of_an_authority_that_the_anchors_do_not_name_is_not_taken(office: Office, parts: Parts) -> None:
    verdict = office.verdict(parts, timestamp_certificates=office.anchors.authorities)
    assert row(verdict, "timestamp").state == "broken"


def test_fewer_witnesses_than_the_quorum_are_unwitnessed(office: Office, parts: Parts) -> None:
    (name,) = (name for name in parts if name.startswith("heads/") and name.endswith(".checkpoint"))
    lines = parts[name].decode().splitlines(keepends=True)
    one = "".join(line for line in lines if "witness-2" not in line).encode()
    verdict = office.verdict(office.signed_anew({**parts, name: one}))
    assert (verdict.state, states(verdict)) == ("incomplete", {"witnesses": "missing"})
    assert says(verdict, "witnesses", "UNWITNESSED 无见证: 1 of 2")
    forged = parts[name].decode().replace(lines[-1], lines[-1].replace("A", "B"))
    assert row(office.verdict(office.signed_anew({**parts, name: forged.encode()})), "witnesses").state != "holds"


def test_what_the_anchors_do_not_ask_for_is_said_and_is_no_plain_pass(office: Office, parts: Parts) -> None:
    verdict = office.verdict(parts, witnesses=[], quorum=0, timestamp_certificates=[])
    assert (verdict.state, verdict.not_asked) == ("holds", ("witnesses", "timestamp"))
    assert says(verdict, "witnesses", "UNWITNESSED")
    assert says(verdict, "timestamp", "NO TIMESTAMP")


@pytest.mark.parametrize("spoil", ["a node fewer", "a node more", "another index", "nodes turned"])
def test_a_proof_of_another_size_is_not_taken(office: Office, parts: Parts, spoil: str) -> None:
    number = number_of(parts)

    def change(document: dict[str, object]) -> None:
        proof = document["proof"]
        assert isinstance(proof, list)
        if spoil == "a node fewer":
            del proof[-1]
        elif spoil == "a node more":
            proof.append("00" * 32)
        elif spoil == "another index":
            document["index"] = number + 1
        else:
            proof.reverse()

    name = f"entries/{number}.json"
    verdict = office.verdict(office.signed_anew({**parts, name: edited(parts[name], change)}))
    assert row(verdict, "inclusion").state == "broken"
    assert says(verdict, "inclusion", name)
    (joined, *_) = (part for part in parts if part.startswith("consistency/"))
    if spoil == "a node more":
        longer = edited(parts[joined], lambda document: document["nodes"].append("00" * 32))  # type: ignore[attr-defined]
        assert office.verdict(office.signed_anew({**parts, joined: longer})).state == "broken"


def test_an_entry_that_is_not_canonical_or_has_more_members_is_not_taken(office: Office, parts: Parts) -> None:
    name = f"entries/{number_of(parts)}.json"
    for octets in (parts[name] + b"\n", parts[name].replace(b'{"detail"', b'{"a":1,"detail"')):
        verdict = office.verdict(office.signed_anew({**parts, name: octets}))
        assert says(verdict, "inclusion", name)
        assert row(verdict, "inclusion").state == "broken"


# Rights.


def decision(parts: Parts, outcome: str, kind: str) -> str:
    """The part with a decision of that kind."""
    for name in sorted(parts):
        if name.startswith("entries/"):
            entry = msgspec.json.decode(parts[name], type=dict[str, object])
            leaf, detail = json.loads(str(entry["leaf"])), json.loads(str(entry["detail"]))
            signed = str(detail.get("proposal", detail.get("revocation", "")))
            if (leaf["type"], leaf["outcome"]) == ("decision", outcome) and kind in kind_of(signed):
                return name
    raise AssertionError(kind)


def kind_of(signed: str) -> str:
    payload = json.loads(signed)["payload"]
    return str(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["kind"])


def test_without_the_decision_that_enrols_the_sender_nothing_shows_whose_key_it_is(
    office: Office, parts: Parts
) -> None:
    gone = decision(parts, "approved", "enrolment")
    verdict = office.verdict(office.signed_anew({name: octets for name, octets in parts.items() if name != gone}))
    assert states(verdict) == {"enrolment": "broken", "grant": "broken", "evidence class": "broken"}
    assert says(verdict, "enrolment", "auth.certificate_unknown")


def test_without_the_decision_that_grants_it_nothing_shows_the_right(office: Office, parts: Parts) -> None:
    gone = decision(parts, "approved", "grant")
    verdict = office.verdict(office.signed_anew({name: octets for name, octets in parts.items() if name != gone}))
    assert states(verdict) == {"grant": "broken"}


def test_a_founding_that_the_anchors_do_not_name_founds_nothing(office: Office, parts: Parts) -> None:
    verdict = office.verdict(parts, founding="00" * 32)
    assert verdict.state == "broken"
    assert says(verdict, "enrolment", "decision.founding_other")


# Containers of others.


def test_containers_of_xroad_are_refused_by_name(office: Office, shared_data: Callable[[str], Path]) -> None:
    folder = shared_data("xroad")
    found = sorted([*folder.glob("*.asice"), *folder.glob("*.asic")])
    assert len(found) >= 4
    for path in found:
        with pytest.raises(Refusal, match=r"bundle\.container"):
            verify_bundle(in_memory(path.read_bytes()), office.anchors, datetime.now(UTC))


@pytest.mark.parametrize("octets", [b"", b"PK", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), b"PK\x03\x04" + b"\xff" * 60])
def test_what_is_no_container_is_refused_by_name(office: Office, octets: bytes) -> None:
    with pytest.raises(Refusal, match=r"bundle\.container"):
        verify_bundle(in_memory(octets), office.anchors, datetime.now(UTC))


def test_a_zip_that_others_wrote_of_the_same_parts_is_refused(office: Office, parts: Parts, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as other:
        for name in sorted(parts):
            other.writestr(name, parts[name])
    with pytest.raises(Refusal, match=r"bundle\.container"):
        verify_bundle(in_memory((tmp_path / "other.zip").read_bytes()), office.anchors, datetime.now(UTC))


def test_a_bundle_is_a_zip_that_anybody_unpacks(parts: Parts, tmp_path: Path) -> None:
    (tmp_path / "bundle.zip").write_bytes(packed(parts))
    with zipfile.ZipFile(tmp_path / "bundle.zip") as opened:
        assert opened.testzip() is None
        assert {name: opened.read(name) for name in opened.namelist()} == parts
    if shutil.which("unzip") is None:
        pytest.skip("program:unzip")
    subprocess.run(["unzip", "-q", "bundle.zip", "-d", "out"], cwd=tmp_path, check=True)
    assert {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()} == parts.keys()


# An answer, a day.


def test_an_ownership_answer_brings_every_delivery_behind_its_claims(office: Office) -> None:
    day = places.utc_now().astimezone(CITY_TIME).date()
    answer = ownership(office.acts.bus.store, "1", day)
    parts = {name: part.read() for name, part in of_ownership(answer, day, office.sources()).items()}
    assert office.verdict(parts).state == "holds"
    claimed = answer.claims[0].entry
    gone = {name: octets for name, octets in parts.items() if not name.startswith(f"messages/{claimed}/")}
    verdict = office.verdict(office.signed_anew(gone))
    assert row(verdict, "subject").state == "missing"
    assert says(verdict, "subject", f"messages/{claimed}")
    other = {**parts, "answer.json": parts["answer.json"].replace(b'"m-1"', b'"m-9"')}
    assert row(office.verdict(office.signed_anew(other)), "subject").state == "broken"


def test_a_day_is_whole_or_the_gap_is_named(office: Office) -> None:
    day = places.utc_now().astimezone(CITY_TIME).date()
    parts = {name: part.read() for name, part in of_day(day, office.sources()).items()}
    verdict = office.verdict(parts)
    not_over = {"subject": "missing"}
    assert states(verdict) == {"witnesses": "missing", "timestamp": "missing", **not_over}, "it came after the head"
    office.attest()
    parts = {name: part.read() for name, part in of_day(day, office.sources()).items()}
    assert states(office.verdict(parts)) == not_over
    read = max(int(name[8:-5]) for name in parts if name.startswith("entries/")) - 1
    gap = {name: octets for name, octets in parts.items() if name != f"entries/{read}.json"}
    verdict = office.verdict(office.signed_anew(gap))
    assert says(verdict, "subject", f"entries/{read}.json: left out of the day")
    with pytest.raises(Refusal, match=r"audit\.no_such_size"):
        of_day(day - timedelta(days=9), office.sources())
