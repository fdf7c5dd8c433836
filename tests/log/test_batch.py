"""Receipts and reports that share one signature: nothing else passes for one of them, at any reader."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.audit import verify
from exchange.http.proofs import document_tree_size
from exchange.receipts import RECEIPT, REPORT, issue_receipts, issue_reports, verify_receipt
from security import merkle
from security.batch import is_together, open_signed, sign_together
from security.errors import ExchangeError, Refusal
from security.jose import b64url, unb64url
from security.jws import jcs, open_document, sign_document
from tests.log.buses import JournalFolder, finished

DOCS: Final = Path(__file__).parents[2] / "docs"
COUNT: Final = 5


class Made(msgspec.Struct):
    """A bus; its receipts and reports of the same deliveries, each kind under one signature; and others of them."""

    bus: JournalFolder
    receipts: list[bytes]
    reports: list[bytes]
    other_batch: list[bytes]
    alone: bytes


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    bus = JournalFolder(tmp_path_factory.mktemp("batch"))
    journal = bus.open()
    ids = [f"m-{number}" for number in range(2 * COUNT)]
    rows = [journal.accept(bus.acceptance(id, id.encode())).result(10).inbox for id in ids]
    for row in rows[:COUNT]:
        finished(journal, row.id)
    owed = [(row, journal.prove(row.entry_index)) for row in rows]
    entries = [index for index, *_ in journal.reports_after(0, COUNT)]
    said = {"records": 1, "outcomes": {"new": 1}}
    reports = [(row, journal.prove(index), said) for row, index in zip(rows, entries, strict=False)]
    journal.close()
    key = bus.receipt_key
    return Made(
        bus,
        issue_receipts(owed[:COUNT], key),
        issue_reports(reports, key),
        issue_receipts(owed[COUNT:], key),
        issue_receipts(owed[:1], key)[0],
    )


def test_documents_of_a_batch_hold_and_share_one_signature(made: Made) -> None:
    for kind, documents in (("receipt", made.receipts), ("report", made.reports)):
        held = [verify_receipt(octets, made.bus.anchors) for octets in documents]
        assert [one.kind for one in held] == [kind] * COUNT
        assert [one.document["message_id"] for one in held] == [f"m-{number}" for number in range(COUNT)]
        assert len({json.loads(octets)["signature"] for octets in documents}) == 1
        assert all(is_together(octets) and octets.isascii() for octets in documents)
        assert {document_tree_size(octets) for octets in documents} == {3 * COUNT}


def test_a_lone_document_is_signed_as_it_was(made: Made) -> None:
    held = verify_receipt(made.alone, made.bus.anchors)
    assert not is_together(made.alone)
    assert set(json.loads(made.alone)) == {"payload", "protected", "signature"}
    assert held.document == verify_receipt(made.receipts[0], made.bus.anchors).document


@pytest.mark.parametrize("count", range(1, 18))
def test_each_document_of_a_batch_of_any_size_leads_to_the_root(made: Made, count: int) -> None:
    key = made.bus.receipt_key
    documents = [{"v": 1, "said": f"路灯 {number}"} for number in range(count)]
    signed = sign_together(documents, RECEIPT, key)
    assert [open_signed(octets, key.certificate_der or b"", RECEIPT) for octets in signed] == documents


# Attacks: each spoils one thing of a good receipt. The bus's key signs nothing of them, except where it says so.


def with_members(octets: bytes, **changes: Any) -> bytes:
    return jcs({**json.loads(octets), **changes})


def without(octets: bytes, name: str) -> bytes:
    return jcs({key: value for key, value in json.loads(octets).items() if key != name})


def of(octets: bytes, name: str) -> Any:
    return json.loads(octets)[name]


def resigned(made: Made, root: dict[str, Any], typ: str = "yt-receipts+jws") -> bytes:
    """The second receipt under a root that the bus's own key signed."""
    return with_members(made.receipts[1], **json.loads(sign_document(root, typ, made.bus.receipt_key)))


def inner_node(made: Made) -> bytes:
    """The two octet strings under a node shown as a document: what a tree without prefixes would take."""
    plain = [unb64url(of(octets, "document")) for octets in made.receipts]
    inside = b"".join(merkle.leaf_hash(octets) for octets in plain[:2])
    return with_members(made.receipts[0], document=b64url(inside), path=of(made.receipts[0], "path")[1:])


def root_of(made: Made) -> dict[str, Any]:
    return dict(json.loads(unb64url(of(made.receipts[1], "payload"))))


ATTACKS: Final[dict[str, Callable[[Made], bytes]]] = {
    "document swapped within the batch": lambda m: with_members(m.receipts[1], document=of(m.receipts[0], "document")),
    "document altered": lambda m: with_members(
        m.receipts[1], document=b64url(unb64url(of(m.receipts[1], "document")).replace(b"water", b"power"))
    ),
    "document of a lone receipt": lambda m: with_members(m.receipts[1], document=of(m.alone, "payload")),
    "document spelt another way": lambda m: with_members(m.receipts[1], document=of(m.receipts[1], "document") + "="),
    "path cut": lambda m: with_members(m.receipts[1], path=of(m.receipts[1], "path")[:-1]),
    "path lengthened": lambda m: with_members(m.receipts[1], path=[*of(m.receipts[1], "path"), "00" * 32]),
    "path empty": lambda m: with_members(m.receipts[1], path=[]),
    "path no list": lambda m: with_members(m.receipts[1], path={"0": "00" * 32}),
    "path of numbers": lambda m: with_members(m.receipts[1], path=[0, 0, 0]),
    "path in capitals": lambda m: with_members(m.receipts[1], path=[n.upper() for n in of(m.receipts[1], "path")]),
    "path of another document": lambda m: with_members(m.receipts[1], path=of(m.receipts[0], "path")),
    "path of another batch": lambda m: with_members(m.receipts[1], path=of(m.other_batch[1], "path")),
    "root of another batch": lambda m: with_members(
        m.receipts[1], **{name: of(m.other_batch[1], name) for name in ("payload", "signature")}
    ),
    "index moved": lambda m: with_members(m.receipts[1], index=0),
    "index below": lambda m: with_members(m.receipts[1], index=-1),
    "index beyond": lambda m: with_members(m.receipts[1], index=COUNT),
    "index a text": lambda m: with_members(m.receipts[1], index="1"),
    "index true": lambda m: m.receipts[1].replace(b'"index":1,', b'"index":true,'),
    "index minus nought": lambda m: m.receipts[0].replace(b'"index":0,', b'"index":-0,'),
    "size lied about, unsigned": lambda m: with_members(
        m.receipts[1], payload=b64url(jcs({**root_of(m), "size": COUNT + 1}))
    ),
    "an inner node as a document": inner_node,
    "a report's root over a receipt": lambda m: with_members(
        m.receipts[1], **{name: of(m.reports[1], name) for name in ("payload", "protected", "signature")}
    ),
    "a lone receipt with a path beside": lambda m: with_members(m.alone, document="e30", index=0, path=[]),
    "a batch's root as a lone receipt": lambda m: jcs(
        {name: of(m.receipts[1], name) for name in ("payload", "protected", "signature")}
    ),
    "an unknown member": lambda m: with_members(m.receipts[1], note="x"),
    "an unknown header": lambda m: with_members(m.receipts[1], header={"alg": "none"}),
    "without its index": lambda m: without(m.receipts[1], "index"),
    "without its path": lambda m: without(m.receipts[1], "path"),
    "a member doubled": lambda m: m.receipts[1][:-1] + b',"document":"e30"}',
    "a member doubled before": lambda m: b'{"document":"e30",' + m.receipts[1][1:],
    "members in another order": lambda m: json.dumps(json.loads(m.receipts[1])).encode(),
    "spaced otherwise": lambda m: m.receipts[1].replace(b'"index":', b'"index": '),
    # Signed by the bus's own key, and still no receipt.
    "size lied about, signed": lambda m: resigned(m, {**root_of(m), "size": COUNT + 4}),
    "a root for one": lambda m: resigned(m, {"root": root_of(m)["root"], "size": 1, "v": 1}),
    "a root of another version": lambda m: resigned(m, {**root_of(m), "v": 2}),
    "a root that says more": lambda m: resigned(m, {**root_of(m), "kind": "receipt"}),
    "a root signed as a report's": lambda m: resigned(m, root_of(m), "yt-report+jws"),
    "a root signed as a lone receipt": lambda m: resigned(m, root_of(m), RECEIPT),
    "a root signed as a bundle's": lambda m: resigned(m, root_of(m), "yt-bundle+jws"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_passes_itself_off_as_a_receipt_of_a_batch_is_refused(made: Made, attack: str) -> None:
    octets = ATTACKS[attack](made)
    assert octets not in made.receipts
    with pytest.raises(Refusal) as refusal:
        verify_receipt(octets, made.bus.anchors)
    assert refusal.value.code.startswith(("signature.", "audit.receipt_invalid"))


def test_a_report_of_a_batch_is_never_a_receipt(made: Made) -> None:
    """A tree holds one kind: under a root of receipts that the bus's key signed, a report does not hold either."""
    certificate = made.bus.receipt_key.certificate_der or b""
    for octets in (made.reports[0], with_members(made.reports[0])):
        with pytest.raises(Refusal) as refusal:
            open_signed(octets, certificate, RECEIPT)
        assert refusal.value.code == "signature.document_of_other_kind"
    mixed = [open_signed(made.receipts[0], certificate, RECEIPT), open_signed(made.reports[0], certificate, REPORT)]
    as_receipt = sign_together(mixed, RECEIPT, made.bus.receipt_key)[1]
    with pytest.raises(Refusal) as refusal:
        verify_receipt(as_receipt, made.bus.anchors)
    assert refusal.value.code == "audit.receipt_invalid"


def test_who_reads_lone_documents_alone_takes_none_of_a_batch(made: Made) -> None:
    certificate = made.bus.receipt_key.certificate_der or b""
    for octets in (made.receipts[0], ATTACKS["a batch's root as a lone receipt"](made)):
        with pytest.raises(Refusal):
            open_document(octets, certificate, RECEIPT)


@given(st.data())
def test_any_octet_of_a_receipt_of_a_batch_changed_is_refused(made: Made, data: st.DataObject) -> None:
    octets = bytearray(data.draw(st.sampled_from([*made.receipts, *made.reports])))
    octets[data.draw(st.integers(0, len(octets) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ExchangeError):
        verify_receipt(bytes(octets), made.bus.anchors)


# In the journal.


def test_what_comes_together_is_signed_together_and_audit_reads_both_forms(bus: JournalFolder) -> None:
    journal = bus.open()
    futures = [journal.accept(bus.acceptance(f"m-{number}", b"%d" % number)) for number in range(60)]
    rows = [future.result(10).inbox for future in futures]
    receipts = [row.receipt or b"" for row in rows]
    reports = [finished(journal, row.id) for row in rows[:3]]
    again = [
        journal.accept(bus.acceptance(f"m-{number}", b"%d" % number)).result(10).inbox.receipt for number in range(60)
    ]
    journal.close()
    together = sum(map(is_together, receipts))
    signatures = len({of(octets, "signature") for octets in receipts})
    print(f"{together} of {len(receipts)} receipts came together, under {signatures} signatures")
    assert together > 30
    assert again == receipts
    assert not any(map(is_together, reports))  # each finished by itself
    for row, receipt in zip(rows, receipts, strict=True):
        held = verify_receipt(receipt, bus.anchors)
        assert (held.index, held.document["message_id"]) == (row.entry_index, row.message_id)
    verdict = verify(bus.readable(), bus.anchors)
    assert (verdict.problems, verdict.receipts, verdict.reports) == ([], 60, 3)


def test_what_a_crash_left_unsigned_is_signed_together_and_then_never_again(
    bus: JournalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: Any) -> None:
        raise OSError("the power fails before anything is signed")

    journal = bus.open()
    with monkeypatch.context() as failing:
        failing.setattr("exchange.sequencer.Sequencer.answer", crash)
        failing.setattr("exchange.sequencer.Sequencer.resume", crash)
        futures = [journal.accept(bus.acceptance(f"m-{number}", b"%d" % number)) for number in range(7)]
        for future in futures:
            with pytest.raises(ExchangeError):
                future.result(10)
        journal.close()
    assert verify(bus.readable(), bus.anchors).receipts == 0
    journal = bus.open()
    known = [number for number in range(7) if journal.inbox("water", f"m-{number}")]
    assert len(known) > 0
    signed = journal.resume()
    receipts = [journal.receipt("water", f"m-{number}") or b"" for number in known]
    assert (signed, journal.resume()) == (len(known), 0)
    assert all(is_together(octets) for octets in receipts) == (len(known) > 1)
    assert [verify_receipt(octets, bus.anchors).document["message_id"] for octets in receipts] == [
        f"m-{number}" for number in known
    ]
    assert [journal.receipt("water", f"m-{number}") for number in known] == receipts
    journal.close()
    assert verify(bus.readable(), bus.anchors).ok


# Strangers' readers: OpenSSL alone, node, PHP.


def program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} (make servers)")
    return path


SPOILT: Final = ("document swapped within the batch", "path cut", "path of another batch", "index moved",
                 "index beyond", "an inner node as a document", "a batch's root as a lone receipt",
                 "a root signed as a bundle's", "size lied about, unsigned")  # fmt: skip


def openssl(folder: Path, receipt: Path) -> subprocess.CompletedProcess[str]:
    command = [program("bash"), str(DOCS / "verify_receipt.sh"), str(receipt), str(folder / "anchors.json")]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def node(folder: Path, receipt: Path) -> subprocess.CompletedProcess[str]:
    said = ("const M = require('module'), load = M._load;"
            "M._load = (name, ...rest) => name === 'soap' ? {} : load(name, ...rest);"  # not spoken here
            "const [f, r] = process.argv.slice(1); const { Bus } = require('./bus.js');"
            "const read = { file: n => require('fs').readFileSync(f + '/' + n) };"
            "const text = require('fs').readFileSync(r, 'utf8');"
            "console.log('entry ' + Bus.prototype.said.call(read, text).index)")  # fmt: skip
    command = [program("node"), "-e", said, "--", str(folder), str(receipt)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=DOCS / "clients")


def php(folder: Path, receipt: Path) -> subprocess.CompletedProcess[str]:
    said = ("require 'receipt.php';"
            "echo 'entry ' . said(file_get_contents($argv[2]), $argv[1] . '/anchors.json')['index'];")  # fmt: skip
    command = [program("php"), "-r", said, "--", str(folder), str(receipt)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=DOCS / "clients")


@pytest.mark.parametrize("reader", [openssl, node, php])
def test_a_strangers_reader_takes_both_forms_and_nothing_that_was_altered(
    made: Made, tmp_path: Path, reader: Callable[[Path, Path], subprocess.CompletedProcess[str]]
) -> None:
    (tmp_path / "anchors.json").write_bytes(msgspec.json.encode(made.bus.anchors))
    file = tmp_path / "receipt.json"
    for octets in (made.alone, *made.receipts):
        file.write_bytes(octets)
        done = reader(tmp_path, file)
        index = verify_receipt(octets, made.bus.anchors).index
        assert (done.returncode, f"entry {index}" in done.stdout) == (0, True), done.stdout + done.stderr
    for attack in SPOILT:
        file.write_bytes(ATTACKS[attack](made))
        assert reader(tmp_path, file).returncode != 0, attack
