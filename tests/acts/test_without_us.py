"""A stranger's scripts and `yongtong verify` say the same of a bundle (docs/verify-without-us.md)."""

import ast
import base64
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from exchange.bundle_check import BundleVerdict, verify_bundle
from exchange.receipts import REPORT
from security import merkle
from security.anchors import Anchors
from security.batch import unverified
from security.bundle import MANIFEST
from security.checkpoint import sign_checkpoint
from security.cosignature import Witness, cosign, without_cosignatures
from security.jose import b64url
from security.jws import sign_document
from security.keys import SigningKey, generate
from security.message import in_memory
from tests.acts.evidence_of_one import Evidence, Parts, evidence_of_one, packed, write_anchors

DOCS = Path(__file__).parents[2] / "docs"
MOST_LINES = 60
SCRIPTS = ("verify_bundle.py", "by_openssl.py", "by_log.py", "by_deliveries.py")


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evidence]:
    with evidence_of_one(tmp_path_factory.mktemp("evidence")) as made:
        yield made


class Stranger:
    """A folder with a bundle, the anchors and the scripts, and Python without our environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for script in (*SCRIPTS, "verify_sender.py"):
            shutil.copy(DOCS / script, folder)

    def says(self, parts: Parts, anchors: Anchors) -> tuple[str, str]:
        """holds, incomplete or broken; and the whole of what was printed."""
        write_anchors(anchors, self.folder / "anchors.json")
        return self.says_by_file(parts)

    def says_by_file(self, parts: Parts) -> tuple[str, str]:
        """The same by the anchors that lie there."""
        (self.folder / "bundle.zip").write_bytes(packed(parts))
        said = self.run("verify_bundle.py", "bundle.zip", "anchors.json")
        state = re.match(r"(holds|incomplete|broken): ", said.stdout + said.stderr)
        assert state, said
        assert (said.returncode == 0) == (state[1] == "holds")
        return state[1], said.stdout + said.stderr

    def shell(self, commands: str) -> "subprocess.CompletedProcess[str]":
        """Commands of the page. `python3` is the one that runs the tests."""
        program = f'set -eu\npython3() {{ {sys.executable} -S -E "$@"; }}\n{commands}'
        command = ["bash", "-c", program]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=120, check=False)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A script, with nothing of ours to import. `-I` would hide what lies beside it, too."""
        command = [sys.executable, "-S", "-E", *words]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def stranger(tmp_path: Path) -> Stranger:
    return Stranger(tmp_path)


def ours(parts: Parts, anchors: Anchors) -> BundleVerdict:
    return verify_bundle(in_memory(packed(parts)), anchors, datetime.now(UTC))


def the(parts: Parts, pattern: str) -> str:
    """The name of the first part of that form."""
    return next(name for name in sorted(parts) if re.fullmatch(pattern, name))


def edited(parts: Parts, pattern: str, **members: object) -> Parts:
    """A JSON part with members changed."""
    name = the(parts, pattern)
    document = {**json.loads(parts[name]), **members}
    return {**parts, name: json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()}


@pytest.mark.parametrize("id", ["m-1", "m-2", "m-3"])
def test_a_good_bundle_holds_for_both(evidence: Evidence, stranger: Stranger, id: str) -> None:
    parts = evidence.message(id)
    state, said = stranger.says(parts, evidence.anchors)
    assert (state, ours(parts, evidence.anchors).state) == ("holds", "holds"), said
    assert "UNWITNESSED" not in said


@pytest.mark.parametrize("id, code, word", [("m-1", 0, "holds"), ("m-2", 0, "holds"), ("m-3", 2, "not read here")])
def test_the_senders_own_signature_is_checked_or_said_not_to_be(
    evidence: Evidence, stranger: Stranger, id: str, code: int, word: str
) -> None:
    (stranger.folder / "bundle.zip").write_bytes(packed(evidence.message(id)))
    said = stranger.run("verify_sender.py", "bundle.zip")
    assert (said.returncode, said.stdout.startswith(f"{word}: messages/")) == (code, True), said


# Whoever has the file, but not the bus's keys -------------------------------------------------------------------------


def test_any_part_altered_taken_away_or_put_in_is_found_by_both(
    evidence: Evidence, stranger: Stranger, tell: Callable[[str], None]
) -> None:
    parts, spoilt = evidence.message("m-1"), 0
    for name in sorted(parts):
        octets = parts[name]
        flipped = octets[: len(octets) // 2] + bytes([octets[len(octets) // 2] ^ 1]) + octets[len(octets) // 2 + 1 :]
        for bad in ({**parts, name: flipped}, {other: parts[other] for other in parts if other != name}):
            state, said = stranger.says(bad, evidence.anchors)
            assert (state, ours(bad, evidence.anchors).state) == ("broken", "broken"), (name, said)
            assert name in said
            spoilt += 1
    more = {**parts, "messages/5/note": b"believe me"}
    assert (stranger.says(more, evidence.anchors)[0], ours(more, evidence.anchors).state) == ("broken", "broken")
    tell(f"a stranger's script and yongtong verify agree on {spoilt + 1} bundles with one part altered")


def test_a_manifest_by_any_other_key_is_refused_by_both(evidence: Evidence, stranger: Stranger) -> None:
    other = evidence.acts.folder.signing
    bad = evidence.signed_anew(evidence.message("m-1"), other)
    assert (stranger.says(bad, evidence.anchors)[0], ours(bad, evidence.anchors).state) == ("broken", "broken")


# Whoever has the bus's answer key, or even the log's: the operator ----------------------------------------------------


def another_head(evidence: Evidence, parts: Parts, size: int) -> str:
    """A head of that size over another tree, signed by the log's own key."""
    log_key = SigningKey.load(evidence.acts.trial.settings.at("keys") / "log.key")
    return sign_checkpoint(evidence.anchors.origin, size, b"\x5e" * 32, log_key)


def altered_original(evidence: Evidence, parts: Parts) -> Parts:
    name = the(parts, "messages/.*/envelope")
    return {**parts, name: parts[name].replace(b"m-1", b"m-7")}


def original_of_another(evidence: Evidence, parts: Parts) -> Parts:
    other = evidence.message("m-2")
    return {**parts, the(parts, "messages/.*/envelope"): other[the(other, "messages/.*/envelope")]}


def receipt_of_another(evidence: Evidence, parts: Parts) -> Parts:
    other = evidence.message("m-2")
    name = the(parts, "messages/.*/receipt.json")
    more = {entry: octets for entry, octets in other.items() if entry.startswith(("entries/", "consistency/"))}
    return {**more, **parts, name: other[the(other, "messages/.*/receipt.json")]}


def altered_detail(evidence: Evidence, parts: Parts) -> Parts:
    name = the(parts, "entries/5.json")
    said = json.loads(parts[name])
    return edited(parts, name, detail=said["detail"].replace("m-1", "m-7"))


def altered_leaf(evidence: Evidence, parts: Parts) -> Parts:
    name = the(parts, "entries/5.json")
    return edited(parts, name, leaf=json.loads(parts[name])["leaf"].replace("made-up", "made-op"))


def shorter_proof(evidence: Evidence, parts: Parts) -> Parts:
    name = the(parts, "entries/5.json")
    return edited(parts, name, proof=json.loads(parts[name])["proof"][:-1])


def detail_that_nobody_erased(evidence: Evidence, parts: Parts) -> Parts:
    name = the(parts, "entries/5.json")
    said = {member: value for member, value in json.loads(parts[name]).items() if member not in ("salt", "detail")}
    return {**parts, name: json.dumps(said, sort_keys=True, separators=(",", ":")).encode()}


def forked_head(evidence: Evidence, parts: Parts) -> Parts:
    size = int(parts["checkpoint"].split(b"\n")[1])
    return {**parts, "checkpoint": another_head(evidence, parts, size).encode()}


def witnessed_fork(evidence: Evidence, parts: Parts) -> Parts:
    """The witness signed it, too: both are deceived by nothing, for the bundle's own head is of another tree."""
    name = the(parts, r"heads/.*\.checkpoint")
    size = int(name[len("heads/") : -len(".checkpoint")])
    note = another_head(evidence, parts, size)
    line = cosign(note, "witness.example", evidence.witness, datetime.now(UTC))
    stamped = evidence.tsa.stamp(without_cosignatures(note).encode())
    return {**parts, name: f"{note}{line}\n".encode(), f"heads/{size}.tsr": stamped}


def cosignature_of_another(evidence: Evidence, parts: Parts) -> Parts:
    name = the(parts, r"heads/.*\.checkpoint")
    note = without_cosignatures(parts[name].decode())
    real, fake = (
        parts[name].decode().splitlines()[-1],
        cosign(note, "witness.example", generate("EdDSA"), datetime.now(UTC)),
    )
    key_id, rest = (base64.b64decode(line.split(" ")[2]) for line in (real, fake))
    line = f"— witness.example {base64.b64encode(key_id[:4] + rest[4:]).decode()}"
    return {**parts, name: f"{note}{line}\n".encode()}


def timestamp_over_something_else(evidence: Evidence, parts: Parts) -> Parts:
    return {**parts, the(parts, r"heads/.*\.tsr"): evidence.tsa.stamp(b"another head")}


def consistency_of_another(evidence: Evidence, parts: Parts) -> Parts:
    """Of the head under which the receipt stands."""
    name = "consistency/6.json"
    nodes = json.loads(parts[name])["nodes"]
    assert nodes
    return edited(parts, name, nodes=[*nodes[:-1], "5e" * 32])


INSIDERS = {
    spoil.__name__: spoil
    for spoil in (
        *(altered_original, original_of_another, receipt_of_another, altered_detail, altered_leaf, shorter_proof),
        *(detail_that_nobody_erased, forked_head, witnessed_fork),
        *(timestamp_over_something_else, consistency_of_another),
    )
}


@pytest.mark.parametrize("spoil", INSIDERS)
def test_what_the_operator_signs_anew_is_found_by_both(evidence: Evidence, stranger: Stranger, spoil: str) -> None:
    parts = evidence.message("m-1")
    bad = evidence.signed_anew(INSIDERS[spoil](evidence, parts))
    state, said = stranger.says(bad, evidence.anchors)
    verdict = ours(bad, evidence.anchors)
    assert (state, verdict.state) == ("broken", "broken"), (said, verdict)


def test_a_bundle_of_another_bus_is_refused_by_both(evidence: Evidence, stranger: Stranger) -> None:
    bad = evidence.signed_anew(evidence.message("m-1"), origin="elsewhere.example")
    assert (stranger.says(bad, evidence.anchors)[0], ours(bad, evidence.anchors).state) == ("broken", "broken")


def test_signed_anew_and_nothing_else_it_still_holds(evidence: Evidence, stranger: Stranger) -> None:
    """So that what the tests above find is what they spoilt."""
    same = evidence.signed_anew(evidence.message("m-1"))
    assert (stranger.says(same, evidence.anchors)[0], ours(same, evidence.anchors).state) == ("holds", "holds")


def test_a_witness_line_that_does_not_hold_counts_for_neither(evidence: Evidence, stranger: Stranger) -> None:
    parts = evidence.message("m-1")
    bad = evidence.signed_anew(cosignature_of_another(evidence, parts))
    state, said = stranger.says(bad, evidence.anchors)
    verdict = ours(bad, evidence.anchors)
    assert (state, verdict.state) == ("incomplete", "incomplete"), (said, verdict)
    assert "UNWITNESSED" in said
    told = next(one.about for one in verdict.rows if one.name == "witnesses")
    assert any("left out of the count: audit.cosignature_invalid" in line for line in told), told


def moved(parts: Parts, number: int, to: int) -> Parts:
    """A delivery and its entry under another number: below a head that was witnessed before it came."""
    kept = {name: octets for name, octets in parts.items() if not name.startswith(f"messages/{number}/")}
    kept[f"entries/{to}.json"] = kept.pop(f"entries/{number}.json")
    return {**kept, f"messages/{to}/envelope": parts[f"messages/{number}/envelope"]}


def entered(parts: Parts) -> int:
    """The number of the entry that accepted the one delivery."""
    return int(the(parts, "messages/.*/envelope").split("/")[1])


def test_an_entry_shown_under_another_number_is_found_by_both(evidence: Evidence, stranger: Stranger) -> None:
    parts = evidence.message("m-3")
    bad = evidence.signed_anew(moved(parts, entered(parts), 0))
    state, said = stranger.says(bad, evidence.anchors)
    assert (state, ours(bad, evidence.anchors).state) == ("broken", "broken"), said
    assert "entries/0.json: it is not in the log" in said


def test_a_bundle_of_a_delivery_without_any_is_found_by_both(evidence: Evidence, stranger: Stranger) -> None:
    parts = {name: octets for name, octets in evidence.message("m-1").items() if not name.startswith("messages/")}
    bad = evidence.signed_anew(parts)
    state, said = stranger.says(bad, evidence.anchors)
    assert (state, ours(bad, evidence.anchors).state) == ("broken", "broken"), said


def test_a_bundle_of_another_delivery_than_its_subject_is_found_by_both(evidence: Evidence, stranger: Stranger) -> None:
    bad = evidence.signed_anew(evidence.message("m-1"), subject="made-up m-2")
    state, said = stranger.says(bad, evidence.anchors)
    assert (state, ours(bad, evidence.anchors).state) == ("broken", "broken"), said


@pytest.mark.parametrize("part", ["envelope", "receipt.json", "report.json"])
def test_a_part_left_out_and_signed_anew_is_missed_by_both(evidence: Evidence, stranger: Stranger, part: str) -> None:
    parts = evidence.message("m-1")
    name = the(parts, f"messages/.*/{re.escape(part)}")
    bad = evidence.signed_anew({other: octets for other, octets in parts.items() if other != name})
    state, said = stranger.says(bad, evidence.anchors)
    assert (state, ours(bad, evidence.anchors).state) == ("incomplete", "incomplete"), said
    assert name in said


def test_another_deliverys_report_is_found_by_both(evidence: Evidence, stranger: Stranger) -> None:
    """The bus signs it anew with the number of this delivery, and leaves everything else as it was."""
    parts, other = evidence.message("m-1"), evidence.message("m-2")
    number, theirs = entered(parts), entered(other)
    document = dict(unverified(other[f"messages/{theirs}/report.json"])) | {"accepted_index": number}
    more = {name: octets for name, octets in other.items() if name.startswith(("entries/", "consistency/"))}
    signed = {f"messages/{number}/report.json": sign_document(document, REPORT, evidence.acts.bus.answer_key)}
    bad = evidence.signed_anew({**more, **parts, **signed})
    state, said = stranger.says(bad, evidence.anchors)
    verdict = ours(bad, evidence.anchors)
    assert (state, verdict.state) == ("broken", "broken"), said
    assert "it is of another delivery" in said
    told = next(one.about for one in verdict.rows if one.name == "receipts")
    assert any("of another delivery" in line for line in told), told


# What the anchors ask for ---------------------------------------------------------------------------------------------


def test_without_the_quorum_both_say_incomplete(evidence: Evidence, stranger: Stranger) -> None:
    more = [*evidence.anchors.witnesses, Witness("second.example", "5e" * 32)]
    anchors = msgspec.structs.replace(evidence.anchors, witnesses=more, quorum=2)
    parts = evidence.message("m-1")
    state, said = stranger.says(parts, anchors)
    assert (state, ours(parts, anchors).state) == ("incomplete", "incomplete")
    assert "UNWITNESSED" in said


def test_where_nobody_is_asked_for_both_pass_and_say_so(evidence: Evidence, stranger: Stranger) -> None:
    anchors = msgspec.structs.replace(evidence.anchors, witnesses=[], quorum=0, timestamp_certificates=[])
    parts = evidence.message("m-1")
    state, said = stranger.says(parts, anchors)
    verdict = ours(parts, anchors)
    assert (state, verdict.state) == ("holds", "holds")
    assert {"witnesses", "timestamp"} <= set(verdict.not_asked)
    assert "UNWITNESSED" in said
    assert "NO TIMESTAMP" in said


def test_an_original_that_is_withheld_is_missing_for_both(evidence: Evidence, stranger: Stranger) -> None:
    parts = evidence.message("m-1")
    name = the(parts, "messages/.*/envelope")
    left = {other: octets for other, octets in parts.items() if other != name}
    bad = evidence.signed_anew(left, withheld={name: "sealed"})
    state, said = stranger.says(bad, evidence.anchors)
    assert (state, ours(bad, evidence.anchors).state) == ("incomplete", "incomplete")
    assert name in said


@pytest.mark.parametrize("path, code", [(True, 0), (False, 1)])
def test_a_receipt_signed_together_with_others_is_read_by_the_script(
    evidence: Evidence, stranger: Stranger, path: bool, code: int
) -> None:
    """One signature over the root of a small tree of documents, and the path beside each."""
    key, octets, other = evidence.acts.bus.answer_key, b'{"index":"it"}', merkle.leaf_hash(b'{"index":"other"}')
    root = merkle.node_hash(merkle.leaf_hash(octets), other)
    signed = json.loads(sign_document({"root": root.hex(), "size": 2, "v": 1}, "yt-receipts+jws", key))
    beside = {"document": b64url(octets), "index": 0, "path": [other.hex() if path else "5e" * 32]}
    (stranger.folder / "receipt.json").write_text(json.dumps({**beside, **signed}))
    write_anchors(evidence.anchors, stranger.folder / "anchors.json")
    said = stranger.run(
        "-c",
        "import json, by_log; anchors = json.load(open('anchors.json', encoding='utf-8'));"
        "octets = open('receipt.json', 'rb').read();"
        "print(by_log.document(octets, 'yt-receipt+jws', anchors['receipt_certificates'])['index'])",
    )
    assert (said.returncode, said.stdout) == (code, "it\n" if code == 0 else ""), said


@pytest.mark.parametrize("last_size, state", [(99, "holds"), (3, "broken")])
def test_a_head_is_checked_with_the_key_that_the_log_had_then(
    evidence: Evidence, stranger: Stranger, last_size: int, state: str
) -> None:
    """The log's key was changed since, as the anchors say; or was changed before, and who has the old one forges."""
    file = write_anchors(evidence.anchors, stranger.folder / "anchors.json")
    anchors = json.loads(file.read_bytes())
    former = {"key": anchors["log_key"], "kind": "EdDSA", "last_size": last_size}
    newest = generate("EdDSA").public_key.public_bytes_raw().hex()  # type: ignore[union-attr]
    file.write_text(json.dumps({**anchors, "log_key": newest, "former_log_keys": [former]}))
    assert stranger.says_by_file(evidence.message("m-1"))[0] == state


def test_a_decision_left_out_is_seen_by_yongtong_verify_and_not_by_the_script(
    evidence: Evidence, stranger: Stranger
) -> None:
    """The page says so: rights are not folded there."""
    parts = evidence.message("m-1")
    enrolment = "entries/2.json"  # after the founding: the approval of who enrolled `made-up`
    assert b"decision" in parts[enrolment]
    bad = evidence.signed_anew({name: octets for name, octets in parts.items() if name != enrolment})
    assert (stranger.says(bad, evidence.anchors)[0], ours(bad, evidence.anchors).state) == ("holds", "broken")


# The page -------------------------------------------------------------------------------------------------------------


def lines_of_code(path: Path) -> int:
    """Without docstrings, comments and empty lines."""
    text = path.read_text(encoding="utf-8")
    told: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            told |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    lines = enumerate(text.splitlines(), 1)
    return sum(bool(line.strip()) and not line.strip().startswith("#") and n not in told for n, line in lines)


def test_the_script_is_sixty_lines_and_imports_nothing_of_ours(tell: Callable[[str], None]) -> None:
    counts = {name: lines_of_code(DOCS / name) for name in SCRIPTS}
    assert counts["verify_bundle.py"] <= MOST_LINES
    assert max(counts.values()) <= MOST_LINES
    for name in (*counts, "verify_sender.py"):
        imported = re.findall(r"^(?:import|from) (\w+)", (DOCS / name).read_text(encoding="utf-8"), re.M)
        assert set(imported) <= set(sys.stdlib_module_names) | {name[:-3] for name in SCRIPTS}, name
    tell(f"a stranger's script: {', '.join(f'{name} {count} lines' for name, count in counts.items())}")


def test_the_pages_commands_do_what_it_says(evidence: Evidence, stranger: Stranger) -> None:
    """Every command in a fenced block of the page is run, in order, in a folder with the bundle and the anchors."""
    page = (DOCS / "verify-without-us.md").read_text(encoding="utf-8")
    parts = evidence.message("m-1")
    stranger.says(parts, evidence.anchors)
    commands = "\n".join(re.findall(r"```sh\n(.*?)```", page, re.S))
    assert commands.count("openssl") >= 4
    said = stranger.shell(commands)
    assert said.returncode == 0, (said.stdout[-2000:], said.stderr[-2000:])
    for found in ("holds: made-up m-1", "Verification: OK", "Time stamp: ", f"= {in_memory(packed(parts)).digest.hex}"):
        assert found in said.stdout + said.stderr, found
    assert MANIFEST in said.stdout
    assert json.loads(parts[the(parts, "entries/5.json")])["detail"].count(
        re.findall(r"envelope\)= ([0-9a-f]{64})", said.stdout)[0]
    )


def test_another_xml_tool_finds_the_same_by_the_pages_command(evidence: Evidence, stranger: Stranger) -> None:
    if shutil.which("xmlsec1") is None:
        pytest.skip("xmlsec1 is not installed")
    page = (DOCS / "verify-without-us.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"```bash\n(.*?)```", page, re.S)
    parts = evidence.message("m-1")
    signer = json.loads(json.loads(parts["entries/5.json"])["leaf"])["signer"]
    for spoil, code in ((lambda octets: octets, 0), (lambda octets: octets.replace(b"m-1", b"m-7"), 1)):
        name = the(parts, "messages/.*/envelope")
        for folder in ("messages/5", "certificates"):
            (stranger.folder / "unpacked" / folder).mkdir(parents=True, exist_ok=True)
        (stranger.folder / "unpacked" / name).write_bytes(spoil(parts[name]))
        certificate = f"certificates/{signer}.pem"
        (stranger.folder / "unpacked" / certificate).write_bytes(parts[certificate])
        said = stranger.shell(f"SIGNER={signer}\n{command}")
        assert said.returncode == code, said.stderr
