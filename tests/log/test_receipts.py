"""Receipts and reports checked with nothing but the anchors; outcomes proven singly."""

import base64
import json
from hashlib import sha256

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.receipts import (
    RECEIPT,
    Anchors,
    outcome_leaf,
    outcome_proof,
    outcome_root,
    verify_receipt,
)
from security import merkle
from security.errors import ExchangeError, Refusal
from security.jws import Document, sign_document
from tests.log.buses import JournalFolder, an_entry, finished


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[JournalFolder, bytes, bytes]:
    """A bus, one of its receipts and the report of the same delivery."""
    bus = JournalFolder(tmp_path_factory.mktemp("receipts"))
    journal = bus.open()
    for future in [journal.note(an_entry()) for _ in range(5)]:
        future.result(10)
    inbox = journal.accept(bus.acceptance("m-1")).result(10).inbox
    report = finished(journal, inbox.id)
    journal.close()
    assert inbox.receipt is not None
    return bus, inbox.receipt, report


def document_of(receipt: bytes) -> Document:
    payload = json.loads(receipt)["payload"]
    document: Document = json.loads(base64.urlsafe_b64decode(payload + "=="))
    return document


def test_a_receipt_has_the_members_that_partners_archive(made: tuple[JournalFolder, bytes, bytes]) -> None:
    document = document_of(made[1])
    names = (
        "v origin outcome sender carrier feed message_id content_digest content_digest_algorithm content_length "
        "content_type request_digest signer evidence_class form grant received_at leaf salt detail index proof "
        "checkpoint"
    )
    assert set(document) == set(names.split())


def test_a_receipt_is_checked_by_hashing_what_stands_in_it(made: tuple[JournalFolder, bytes, bytes]) -> None:
    document = document_of(made[1])
    leaf = json.loads(document["leaf"])
    committed = sha256(b"\x02" + bytes.fromhex(document["salt"]) + document["detail"].encode()).hexdigest()
    assert committed == leaf["detail"]
    current, index = sha256(b"\x00" + document["leaf"].encode()).digest(), document["index"]
    size = int(document["checkpoint"].split("\n")[1])
    assert (index, size) == (5, 6)
    for sibling in map(bytes.fromhex, document["proof"]):
        current = sha256(b"\x01" + sibling + current).digest()  # the last of six: all siblings stand left of it
    assert base64.b64encode(current).decode() == document["checkpoint"].split("\n")[2]


def test_no_name_and_no_bare_digest_stands_in_a_leaf(made: tuple[JournalFolder, bytes, bytes]) -> None:
    document = document_of(made[1])
    assert document["content_digest"] not in document["leaf"]
    assert document["message_id"] not in document["leaf"]


def spoilt(document: Document, **changes: object) -> Document:
    return {**document, **changes}


@pytest.mark.parametrize(
    "changes",
    [
        {"message_id": "m-2"},
        {"content_digest": "00" * 32},
        {"content_length": 1},
        {"sender": "power"},
        {"grant": "g-2"},
        {"evidence_class": "collected"},
        {"received_at": "2026-11-22T04:00:01.000000Z"},
        {"index": 4},
        {"index": -1},
        {"index": "5"},
        {"proof": []},
        {"salt": "00" * 32},
        {"salt": "no hex"},
        {"detail": "{}"},
        {"leaf": "{}"},
        {"checkpoint": ""},
        {"origin": "other.example/log"},
    ],
)
def test_a_receipt_signed_by_the_bus_but_not_in_its_log_is_refused(
    made: tuple[JournalFolder, bytes, bytes], changes: dict[str, object]
) -> None:
    bus, receipt, _ = made
    false = sign_document(spoilt(document_of(receipt), **changes), RECEIPT, bus.receipt_key)
    with pytest.raises(Refusal) as refusal:
        verify_receipt(false, bus.anchors)
    assert refusal.value.code in ("audit.receipt_invalid", "audit.checkpoint_invalid")


@pytest.mark.parametrize("name", ["leaf", "salt", "detail", "index", "proof", "checkpoint", "sender", "form"])
def test_a_receipt_without_a_member_is_refused(made: tuple[JournalFolder, bytes, bytes], name: str) -> None:
    bus, receipt, _ = made
    document = document_of(receipt)
    del document[name]
    with pytest.raises(Refusal):
        verify_receipt(sign_document(document, RECEIPT, bus.receipt_key), bus.anchors)


def test_a_report_that_its_entry_contradicts_is_refused(made: tuple[JournalFolder, bytes, bytes]) -> None:
    bus, _, report = made
    assert verify_receipt(report, bus.anchors).kind == "report"
    document = document_of(report)
    document["outcome"] = "refused"
    with pytest.raises(Refusal):
        verify_receipt(sign_document(document, "yt-report+jws", bus.receipt_key), bus.anchors)


def test_a_receipt_of_another_bus_is_refused(made: tuple[JournalFolder, bytes, bytes], bus: JournalFolder) -> None:
    _, receipt, _ = made
    with pytest.raises(Refusal):
        verify_receipt(receipt, bus.anchors)
    mixed = Anchors(made[0].anchors.origin, bus.anchors.log_key, made[0].anchors.receipt_certificates)
    with pytest.raises(Refusal) as refusal:
        verify_receipt(receipt, mixed)
    assert refusal.value.code == "audit.checkpoint_invalid"


@given(st.data())
def test_any_octet_of_a_receipt_changed_is_refused(
    made: tuple[JournalFolder, bytes, bytes], data: st.DataObject
) -> None:
    bus, *documents = made
    octets = bytearray(data.draw(st.sampled_from(documents)))
    octets[data.draw(st.integers(0, len(octets) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ExchangeError):
        verify_receipt(bytes(octets), bus.anchors)


def test_the_anchors_file_is_json(made: tuple[JournalFolder, bytes, bytes]) -> None:
    anchors = made[0].anchors
    assert msgspec.json.decode(msgspec.json.encode(anchors), type=Anchors) == anchors


OUTCOMES = st.lists(st.tuples(st.text(st.characters(codec="utf-8"), max_size=6), st.sampled_from(["new", "gone"])))


@given(OUTCOMES.filter(bool), st.data())
def test_each_outcome_is_proven_without_the_others(outcomes: list[tuple[str, str]], data: st.DataObject) -> None:
    keys, values = [key for key, _ in outcomes], [value for _, value in outcomes]
    root, leaves = outcome_root(keys, values, b"k" * 32)
    index = data.draw(st.integers(0, len(keys) - 1))
    leaf = outcome_leaf(index, keys[index], values[index], b"k" * 32)
    assert merkle.verify_inclusion(leaf, index, len(keys), outcome_proof(leaves, index), root)
    assert outcome_leaf(index, keys[index], values[index], b"j" * 32) != leaf


@given(
    st.lists(st.tuples(st.text(max_size=9), st.sampled_from(["new", "rejected"])), max_size=40), st.binary(max_size=90)
)
def test_a_delivery_s_leaves_are_those_of_its_records_one_by_one(said: list[tuple[str, str]], secret: bytes) -> None:
    keys, values = [key for key, _ in said], [value for _, value in said]
    root, leaves = outcome_root(keys, values, secret)
    assert leaves == [outcome_leaf(n, key, value, secret) for n, (key, value) in enumerate(said)]
    peaks: list[bytes] = []
    merkle.grow(0, peaks, leaves)
    assert root == merkle.root_of_peaks(peaks)


def test_where_a_key_ends_is_part_of_an_outcome() -> None:
    assert outcome_leaf(0, "A1", "2new", b"k") != outcome_leaf(0, "A12", "new", b"k")
