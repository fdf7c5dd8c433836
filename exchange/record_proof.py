"""One record's fate, shown without the rest: what a bureau hands to a third party of a report of many records.

The report itself is not handed over: it holds the delivery's k, with which every neighbour's outcome could be tried
out, and findings with other records' values. What it stands on is: its entry, under a signed head of the log, whose
detail commits to the root over all outcomes. So the proof is one canonical JSON document (RFC 8785) of these members:

    v, origin, checkpoint, index, leaf, proof, salt, detail    of the report's entry, as they stand in the report
    record      {index, source_key, outcome, salt, path}: of the one record; hex; path from its sibling upwards

`salt` is the record's own, HMAC-SHA-256(k, index): from it neither k nor another record's salt follows, and the path
holds hashes of salted leaves only. Of the delivery it shows what the entry's detail says: message id and totals.
"""

from typing import Any, Final

import msgspec
import polars as pl

from exchange.entry import Leaf, commitment
from exchange.receipts import VerifiedDocument, outcome_leaf_of, outcome_proof, outcome_root, outcome_salt
from security import merkle
from security.anchors import Anchors
from security.checkpoint import Checkpoint
from security.errors import Refusal
from security.jose import strict_object
from security.jws import jcs

MOST_BYTES: Final = 1 << 20
_OF_ENTRY: Final = ("origin", "checkpoint", "index", "leaf", "proof", "salt", "detail")
_FIRST: Final = b'{"checkpoint":'  # of the canonical members; no signed document begins so


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    index: int
    source_key: str
    outcome: str
    salt: str
    path: list[str]


class _Proof(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    v: int
    origin: str
    checkpoint: str
    index: int
    leaf: str
    proof: list[str]
    salt: str
    detail: str
    record: _Record


class VerifiedRecord(msgspec.Struct, frozen=True):
    """What became of one record, proven.

    index: its place among the delivery's `records`; entry: the number of the report's entry under the checkpoint
    """

    source_key: str
    outcome: str
    index: int
    records: int
    sender: str
    feed: str
    message_id: str
    reported_at: str
    entry: int
    checkpoint: Checkpoint


def records_of(outcomes: pl.DataFrame, source_key: str) -> list[tuple[int, str]]:
    """Where a source key stands among a delivery's records, and what became of it there: (index, outcome).

    outcomes: source_key and outcome of each record, in the order of the records
    """
    found = outcomes.with_row_index("index").filter(pl.col("source_key") == source_key)
    return found.select("index", "outcome").rows()


def prove_record(report: VerifiedDocument, outcomes: pl.DataFrame, index: int) -> bytes:
    """The proof for the record at `index`.

    report: one's own, as it holds; outcomes: as `records_of` has them, of that very delivery

    Raises Refusal `report.outcomes_differ` where they are not those that the report's root is over.
    """
    said: dict[str, Any] = report.document["report"]
    keys, words = outcomes["source_key"].to_list(), outcomes["outcome"].to_list()
    secret = bytes.fromhex(str(said.get("outcome_secret", "")))
    root, leaves = outcome_root(keys, words, secret)
    if root.hex() != said.get("outcome_root"):
        raise Refusal("report.outcomes_differ", str(report.document["message_id"]))
    record = {
        "index": index,
        "source_key": keys[index],
        "outcome": words[index],
        "salt": outcome_salt(index, secret).hex(),
        "path": [node.hex() for node in outcome_proof(leaves, index)],
    }
    return jcs({"v": 1, **{name: report.document[name] for name in _OF_ENTRY}, "record": record})


def is_record_proof(octets: bytes) -> bool:
    """Whether a file is such a proof, by how it begins."""
    return octets.startswith(_FIRST)


def verify_record(octets: bytes, anchors: Anchors) -> VerifiedRecord:
    """What became of the one record, once all of the proof holds, offline.

    Raises Refusal `audit.record_invalid`, `audit.checkpoint_invalid`; Misconfigured.
    """
    # (1) one spelling, no other member  (2) checkpoint signed by the log  (3) entry under it  (4) detail in the entry
    # (5) record under the root that the detail commits to
    try:
        return _checked(_read(octets), anchors)
    except (KeyError, TypeError, ValueError, OverflowError, msgspec.MsgspecError) as problem:
        raise _invalid(f"a member is missing or of another type: {problem}"[:200]) from problem


def _read(octets: bytes) -> _Proof:
    members = strict_object(octets) if len(octets) <= MOST_BYTES else {}
    if not members or jcs(members) != octets:
        raise _invalid("not canonical JSON (RFC 8785)")
    proof = msgspec.convert(members, _Proof)
    for text in (*proof.proof, *proof.record.path, proof.salt, proof.record.salt):
        if bytes.fromhex(text).hex() != text:
            raise _invalid("a hash is not 64 hexadecimal digits in lower case")
    return proof


def _checked(proof: _Proof, anchors: Anchors) -> VerifiedRecord:
    head, record, leaf_octets = anchors.head(proof.checkpoint), proof.record, proof.leaf.encode()
    leaf = msgspec.json.decode(leaf_octets, type=Leaf)
    if not _is_under(merkle.leaf_hash(leaf_octets), proof.index, head.size, proof.proof, head.root):
        raise _invalid(f"entry {proof.index} is not under the checkpoint of size {head.size}")
    # Any other entry's detail may name a root too, one that a sender wrote: only act two's own word counts.
    if (proof.v, proof.origin, leaf.origin) != (1, anchors.origin, anchors.origin) or leaf.type != "processing":
        raise _invalid("not of a report of this bus")
    if commitment(bytes.fromhex(proof.salt), proof.detail.encode()) != leaf.detail:
        raise _invalid(f"the detail is not what entry {proof.index} commits to")
    detail = msgspec.json.decode(proof.detail, type=dict[str, str | int])
    records, root = int(detail["records"]), bytes.fromhex(str(detail["outcome_root"]))
    stated = outcome_leaf_of(record.index, record.source_key, record.outcome, bytes.fromhex(record.salt))
    if not _is_under(stated, record.index, records, record.path, root):
        raise _invalid(f"record {record.index} is not under the root over {records} outcomes")
    message_id = str(detail["message_id"])
    said = (record.source_key, record.outcome, record.index, records, leaf.sender, leaf.feed, message_id, leaf.time)
    return VerifiedRecord(*said, proof.index, head)


def _is_under(leaf: bytes, index: int, size: int, path: list[str], root: bytes) -> bool:
    return merkle.verify_inclusion(leaf, index, size, [bytes.fromhex(node) for node in path], root)


def _invalid(detail: str) -> Refusal:
    return Refusal("audit.record_invalid", detail)
