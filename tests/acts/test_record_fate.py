"""One record's fate proven from a report of 10,000 records; of its neighbours the proof says nothing."""

import hmac
import io
import json
from collections.abc import Iterator
from hashlib import sha256
from typing import Any, Final

import msgspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.app import trusted
from exchange.outcomes import as_arrow
from exchange.processing import process
from exchange.receipts import VerifiedDocument, outcome_leaf_of, verify_receipt
from exchange.record_proof import is_record_proof, prove_record, records_of, verify_record
from security.anchors import Anchors
from security.errors import ExchangeError, Refusal
from security.jws import jcs
from tests.acts.bench_of_one import FEED, both_acts, covers

RECORDS: Final = 10_000
PROVEN: Final = 4_711
TWICE: Final = 17  # the key of this record stands on the last one too
VOCABULARY: Final = ("new", "changed", "unchanged", "ended", "rejected", "ignored")


class Reported(msgspec.Struct):
    """A processed delivery of 10,000 records, as its bureau has it."""

    anchors: Anchors
    report: VerifiedDocument
    outcomes: pl.DataFrame
    proof: bytes

    @property
    def secret(self) -> bytes:
        return bytes.fromhex(self.report.document["report"]["outcome_secret"])


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reported]:
    with both_acts(tmp_path_factory.mktemp("fate")) as acts:
        acts.trial.grant("made-up", "push", FEED)
        places = ((121.547 + n // 100 * 5e-5, 29.868 + n % 100 * 5e-5) for n in range(RECORDS - 1))
        rows = [f"M-{n},0101,{east:.6f},{north:.6f}" for n, (east, north) in enumerate(places)]
        content = "\n".join(["编号,类别,经度,纬度", *rows, rows[TWICE], ""]).encode()
        acts.push("m-1", content)
        acts.push("m-2", covers("N", 40))
        while process(FEED, acts.bus):
            pass
        anchors = trusted.anchors_of(acts.trial.settings)
        report = verify_receipt(acts.bus.journal.report("made-up", "m-1") or b"", anchors)
        stored = acts.bus.store.outcomes("made-up", "m-1")
        assert stored is not None
        outcomes = pl.read_ipc(io.BytesIO(as_arrow(stored)))
        yield Reported(anchors, report, outcomes, prove_record(report, outcomes, PROVEN))


def test_one_record_of_ten_thousand_is_proven_offline(reported: Reported) -> None:
    assert reported.report.document["report"]["records"] == RECORDS
    held = verify_record(reported.proof, reported.anchors)
    print(f"proof of record {held.index} of {held.records}: {len(reported.proof):,} octets, outcome {held.outcome}")
    assert (held.source_key, held.index, held.records) == (f"M-{PROVEN}", PROVEN, RECORDS)
    assert held.outcome == reported.outcomes["outcome"][PROVEN]
    assert (held.sender, held.feed, held.message_id) == ("made-up", FEED, "m-1")
    assert is_record_proof(reported.proof)
    assert len(reported.proof) < 8_000


def test_the_outcomes_file_holds_this_deliverys_records_and_nothing_of_the_stores_own(reported: Reported) -> None:
    assert reported.outcomes.columns == ["record", "source_key", "outcome", "code"]
    assert reported.outcomes.height == RECORDS
    assert not reported.outcomes["source_key"].str.starts_with("N").any()


def test_records_of_one_key_are_told_apart_by_their_place(reported: Reported) -> None:
    found = records_of(reported.outcomes, f"M-{TWICE}")
    assert [index for index, _ in found] == [TWICE, RECORDS - 1]
    for index, outcome in found:
        held = verify_record(prove_record(reported.report, reported.outcomes, index), reported.anchors)
        assert (held.index, held.outcome, held.source_key) == (index, outcome, f"M-{TWICE}")


# The salt.


def sibling(proof: bytes) -> bytes:
    return bytes.fromhex(json.loads(proof)["record"]["path"][0])


def tried(of: int, salts: dict[str, bytes], wanted: bytes, keys: list[str]) -> list[tuple[str, str, str]]:
    """What brute force over the known vocabulary finds: (which salt, key, outcome) whose leaf is the hash wanted."""
    guesses = ((name, key, outcome) for name in salts for key in keys for outcome in VOCABULARY)
    return [(name, key, out) for name, key, out in guesses if outcome_leaf_of(of, key, out, salts[name]) == wanted]


def test_the_proof_reveals_nothing_of_its_neighbours(reported: Reported) -> None:
    """Brute force over every key and outcome that the delivery could hold, against the sibling's hash: nothing, by all
    that the proof holds. With k it is found at once, so the attempt itself is sound."""
    neighbour, keys = PROVEN ^ 1, reported.outcomes["source_key"].to_list()
    record = json.loads(reported.proof)["record"]
    own, position = bytes.fromhex(record["salt"]), neighbour.to_bytes(8, "big")
    whole = json.loads(reported.proof)
    salts = {
        "the record's own salt": own,
        "none": bytes(32),
        "its salt as the key of the next": hmac.digest(own, position, "sha256"),
        "its hash": sha256(own).digest(),
        "its hash with the place": sha256(own + position).digest(),
        "the entry's salt": bytes.fromhex(whole["salt"]),
        "the entry's salt as k": hmac.digest(bytes.fromhex(whole["salt"]), position, "sha256"),
        "the root as k": hmac.digest(bytes.fromhex(json.loads(whole["detail"])["outcome_root"]), position, "sha256"),
    }
    wanted = sibling(reported.proof)
    near = keys[PROVEN - 250 : PROVEN + 250]  # the neighbour's true key is among them
    assert keys[neighbour] in near
    assert tried(neighbour, salts, wanted, near) == []
    assert tried(neighbour, {"own": own}, wanted, keys) == []
    with_k = {"k": hmac.digest(reported.secret, position, "sha256")}
    assert tried(neighbour, with_k, wanted, near) == [("k", keys[neighbour], reported.outcomes["outcome"][neighbour])]
    guesses = len(near) * len(VOCABULARY) * len(salts) + len(keys) * len(VOCABULARY)
    print(f"{guesses:,} guesses without k found nothing; {len(near) * len(VOCABULARY):,} with k found the neighbour")


def test_neither_k_nor_another_records_key_salt_or_value_stands_in_the_proof(reported: Reported) -> None:
    proof, keys = reported.proof, reported.outcomes["source_key"].to_list()
    assert reported.secret.hex().encode() not in proof
    assert b"outcome_secret" not in proof
    assert b"findings" not in proof
    assert [key for key in set(keys) - {f"M-{PROVEN}"} if f'"{key}"'.encode() in proof] == []
    salts = [hmac.digest(reported.secret, index.to_bytes(8, "big"), "sha256") for index in range(RECORDS)]
    assert [index for index, salt in enumerate(salts) if salt.hex().encode() in proof] == [PROVEN]
    assert len(set(salts)) == RECORDS


# Attacks.


def spoilt(reported: Reported, **record: Any) -> bytes:
    whole = json.loads(reported.proof)
    return jcs({**whole, "record": {**whole["record"], **record}})


@pytest.mark.parametrize(
    "record",
    [
        {"outcome": "new "},
        {"outcome": "rejected-not"},
        {"source_key": "M-1"},
        {"index": PROVEN ^ 1},
        {"index": -1},
        {"index": RECORDS},
        {"index": str(PROVEN)},
        {"salt": "00" * 32},
        {"salt": ""},
        {"path": []},
        {"note": "x"},
    ],
)
def test_a_record_that_was_altered_is_refused(reported: Reported, record: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as refusal:
        verify_record(spoilt(reported, **record), reported.anchors)
    assert refusal.value.code == "audit.record_invalid"


def test_where_key_ends_and_outcome_begins_cannot_be_moved(reported: Reported) -> None:
    outcome = str(reported.outcomes["outcome"][PROVEN])
    with pytest.raises(Refusal):
        verify_record(spoilt(reported, source_key=f"M-{PROVEN}{outcome[0]}", outcome=outcome[1:]), reported.anchors)


def test_an_inner_node_is_no_record_and_a_longer_salt_no_salt(reported: Reported) -> None:
    """A salt that swallows what follows it would let the same octets say another place."""
    record = json.loads(reported.proof)["record"]
    longer = record["salt"] + PROVEN.to_bytes(8, "big").hex()
    for path, salt in ((record["path"][1:], record["salt"]), (record["path"], longer)):
        with pytest.raises(Refusal):
            verify_record(spoilt(reported, path=path, salt=salt), reported.anchors)


def test_outcomes_of_another_delivery_prove_nothing(reported: Reported) -> None:
    other = reported.outcomes.with_columns(outcome=pl.lit("new"))
    with pytest.raises(Refusal, match=r"report\.outcomes_differ"):
        prove_record(reported.report, other, PROVEN)


def test_an_entry_that_is_no_report_carries_no_root(reported: Reported) -> None:
    """A receipt's entry with a detail of one's own making: the commitment does not hold, and the type is another."""
    whole = json.loads(reported.proof)
    for changes in (
        {"leaf": whole["leaf"].replace('"processing"', '"delivery"')},
        {"detail": whole["detail"].replace('"records":10000', '"records":9999')},
        {"salt": "00" * 32},
        {"proof": []},
        {"index": whole["index"] - 1},
        {"origin": "other.example"},
        {"v": 2},
    ):
        with pytest.raises(Refusal):
            verify_record(jcs({**whole, **changes}), reported.anchors)


@settings(max_examples=150)
@given(st.data())
def test_any_octet_of_the_proof_changed_is_refused(reported: Reported, data: st.DataObject) -> None:
    octets = bytearray(reported.proof)
    octets[data.draw(st.integers(0, len(octets) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ExchangeError):
        verify_record(bytes(octets), reported.anchors)
