"""Receipts and reports: the signed answers that a bureau keeps, and checking them with nothing of the operator's.

Both are flattened JWS over canonical JSON; those of one group of the journal share a signature (`security.batch`). Leaf
and detail stand in them as the very text that was hashed, so that a reader needs SHA-256 and no canonicaliser:

    leaf hash   SHA-256(0x00 ‖ leaf)              under the checkpoint's root at `index`, by `proof` (hex, upwards)
    detail      SHA-256(0x02 ‖ salt ‖ detail)     is the leaf's member `detail`; salt is hex

A report's root is over its records' outcomes: leaf i = SHA-256(0x00 ‖ salt_i ‖ i ‖ n ‖ source key ‖ outcome) with
salt_i = HMAC-SHA-256(k, i), i in 8 octets and n, the source key's length in octets, in 4 (big-endian), texts in UTF-8.
"""

import hmac
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Literal

import msgspec

from exchange.entry import EntryProof, InboxRow, Leaf, commitment, detail_of, leaf_of
from security import merkle
from security.anchors import Anchors
from security.batch import open_signed, sign_together
from security.checkpoint import Checkpoint
from security.errors import Misconfigured, Refusal
from security.jws import Document, key_named, sign_document
from security.keys import SigningKey, der_of_pem

BLOCK_SIZE = 64  # octets, of SHA-256
_INNER_PAD, _OUTER_PAD = (bytes(octet ^ pad for octet in range(256)) for pad in (0x36, 0x5C))
RECEIPT = "yt-receipt+jws"
REPORT = "yt-report+jws"
REFUSAL = "yt-refusal+jws"

# Members of a receipt, by where its entry says the same: a receipt says nothing that the log does not hold.
IN_LEAF = ("origin", "outcome", "sender", "carrier", "feed", "signer", "grant")
IN_DETAIL = (
    *("message_id", "content_digest", "content_length", "content_type", "request_digest"),
    *("evidence_class", "form", "received_at"),
)
# Where somebody stood in for another: the bureau that signed in the sender's name, and the grants that let it, and
# that let another bureau's connection carry the message. A receipt has these members only where its entry has them.
STANDING_IN = ("asserted_by", "on_behalf_of_grant", "carry_grant")
# The sender's own number of the delivery, likewise only where it stated one.
COUNTED = ("sequence",)
WHERE_SAID = (*STANDING_IN, *COUNTED)


class VerifiedDocument(msgspec.Struct, frozen=True):
    """A receipt or report that holds: its members, where its entry stands, and under which tree head."""

    kind: Literal["receipt", "report"]
    document: Document
    leaf: Leaf
    index: int
    checkpoint: Checkpoint


def issue_receipts(owed: Sequence[tuple[InboxRow, EntryProof]], key: SigningKey) -> list[bytes]:
    """The signed receipts of accepted deliveries (protocol.md "Receipt and report"), in their order."""
    return sign_together([_receipt(row, proof) for row, proof in owed], RECEIPT, key)


def issue_reports(owed: Sequence[tuple[InboxRow, EntryProof, dict[str, Any]]], key: SigningKey) -> list[bytes]:
    """The signed reports of finished deliveries: of each what act two says, under the member `report`."""
    return sign_together([_report(row, proof, report) for row, proof, report in owed], REPORT, key)


def _receipt(row: InboxRow, proof: EntryProof) -> Document:
    leaf = leaf_of(proof.index, proof.leaf)
    return {
        "v": 1,
        "origin": leaf.origin,
        "outcome": leaf.outcome,
        "sender": row.sender,
        "carrier": row.carrier,
        "feed": row.feed,
        "message_id": row.message_id,
        "content_digest": row.content_digest,
        "content_digest_algorithm": "SHA-256",
        "content_length": row.content_length,
        "content_type": row.content_type,
        "request_digest": row.request_digest,
        "signer": row.signer,
        "evidence_class": row.evidence_class,
        "form": row.form,
        "grant": row.grant,
        "received_at": row.received_at,
        **_where_said(proof),
        **_proven(proof),
    }


def _report(row: InboxRow, proof: EntryProof, report: dict[str, Any]) -> Document:
    leaf = leaf_of(proof.index, proof.leaf)
    return {
        "v": 1,
        "origin": leaf.origin,
        "outcome": leaf.outcome,
        "sender": row.sender,
        "feed": row.feed,
        "message_id": row.message_id,
        "accepted_index": row.entry_index,
        "report": report,
        **_proven(proof),
    }


def issue_refusal(
    refusal: Refusal, origin: str, sender: str, feed: str, message_id: str, request_digest: str, key: SigningKey
) -> bytes:
    """The signed refusal of a delivery whose signature held, for doors that have no fault of their own (MQTT).

    request_digest: of the very envelope that was refused; `reference` is the number of its audit entry
    """
    document = {
        "v": 1,
        "origin": origin,
        "outcome": "refused",
        "sender": sender,
        "feed": feed,
        "message_id": message_id,
        "request_digest": request_digest,
        "code": refusal.code,
        "sentence": msgspec.structs.asdict(refusal.sentence),
        "detail": refusal.detail[:200],
        "reference": refusal.reference,
    }
    return sign_document(document, REFUSAL, key)


def verify_receipt(octets: bytes, anchors: Anchors) -> VerifiedDocument:
    """A receipt or report, once all of it holds, offline. Raises Refusal: `audit.receipt_invalid`,
    `audit.checkpoint_invalid`, or one of `signature.*`.
    """
    # (1) signed by the bus  (2) checkpoint signed by the log  (3) leaf under it  (4) detail in the leaf  (5) they agree
    certificate = _certificate(octets, anchors)
    kind: Literal["receipt", "report"] = "receipt"
    try:
        document = open_signed(octets, certificate, RECEIPT)
    except Refusal as refusal:
        if refusal.code != "signature.document_of_other_kind":
            raise
        kind, document = "report", open_signed(octets, certificate, REPORT)
    try:
        # A certificate of an epoch that is over says nothing of what came after it.
        if certificate not in map(_der, anchors.certificates_with(document["checkpoint"])):
            raise _invalid("signed with a certificate of another epoch than the checkpoint's")
        return _checked(kind, document, anchors)
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise _invalid(f"a member is missing or of another type: {problem}"[:200]) from problem


def _certificate(octets: bytes, anchors: Anchors) -> bytes:
    known = {sha256(der).hexdigest(): der for der in map(_der, anchors.all_certificates)}
    kid = key_named(octets)
    if kid not in known:
        raise _invalid("signed with a certificate that is not among the anchors")
    return known[kid]


def _der(pem: str) -> bytes:
    try:
        return der_of_pem(pem.encode())
    except ValueError as problem:
        raise Misconfigured("config.anchors", "anchors: a receipt certificate is not PEM") from problem


def _checked(kind: Literal["receipt", "report"], document: Document, anchors: Anchors) -> VerifiedDocument:
    checkpoint = anchors.head(document["checkpoint"])
    leaf_octets, index = document["leaf"].encode(), document["index"]
    path = [bytes.fromhex(value) for value in document["proof"]]
    if not merkle.verify_inclusion(merkle.leaf_hash(leaf_octets), index, checkpoint.size, path, checkpoint.root):
        raise _invalid(f"entry {index} is not under the checkpoint of size {checkpoint.size}")
    leaf = msgspec.json.decode(leaf_octets, type=Leaf)
    if commitment(bytes.fromhex(document["salt"]), document["detail"].encode()) != leaf.detail:
        raise _invalid(f"the detail is not what entry {index} commits to")
    detail = msgspec.json.decode(document["detail"])
    said = differing(document, leaf, detail) if kind == "receipt" else differing_report(document, leaf, detail)
    if said:
        raise _invalid(f"differs from entry {index} in: {', '.join(said)}")
    return VerifiedDocument(kind, document, leaf, index, checkpoint)


def differing(document: Document, leaf: Leaf, detail: Document) -> list[str]:
    """Members of a receipt that its entry says otherwise; empty when they agree."""
    names = [name for name in IN_LEAF if document[name] != getattr(leaf, name)]
    names += [name for name in WHERE_SAID if document.get(name) != detail.get(name)]
    return names + [name for name in IN_DETAIL if document[name] != detail[name]]


def differing_report(document: Document, leaf: Leaf, detail: Document) -> list[str]:
    """The same for a report; a member of `report` that the detail names too must say the same."""
    names = [name for name in ("origin", "outcome", "sender", "feed") if document[name] != getattr(leaf, name)]
    if detail.get("message_id", document["message_id"]) != document["message_id"]:
        names.append("message_id")
    return names + [name for name, value in document["report"].items() if detail.get(name, value) != value]


def _where_said(proof: EntryProof) -> Document:
    detail = detail_of(proof.index, proof.detail or b"{}")
    return {name: detail[name] for name in WHERE_SAID if name in detail}


def _proven(proof: EntryProof) -> Document:
    if proof.salt is None or proof.detail is None:
        raise Refusal("audit.receipt_invalid", f"detail of entry {proof.index} was erased")
    return {
        "leaf": proof.leaf.decode(),
        "salt": proof.salt.hex(),
        "detail": proof.detail.decode(),
        "index": proof.index,
        "proof": [node.hex() for node in proof.path],
        "checkpoint": proof.checkpoint,
    }


def _invalid(detail: str) -> Refusal:
    return Refusal("audit.receipt_invalid", detail)


def outcome_salt(index: int, secret: bytes) -> bytes:
    """The salt of one record's outcome. secret: the k of this delivery, without which no salt can be made."""
    return hmac.digest(secret, index.to_bytes(8, "big"), "sha256")


def outcome_leaf(index: int, source_key: str, outcome: str, secret: bytes) -> bytes:
    """The leaf hash of one record's outcome; without the secret a leaf tells nothing."""
    return outcome_leaf_of(index, source_key, outcome, outcome_salt(index, secret))


def outcome_leaf_of(index: int, source_key: str, outcome: str, salt: bytes) -> bytes:
    """The same of a record whose own salt is shown. Raises ValueError for a salt of another length."""
    if len(salt) != sha256().digest_size:
        raise ValueError("a salt has 32 octets")
    name = source_key.encode()
    # The length before the key: "A1" + "2new" must not hash as "A12" + "new".
    said = b"\x00" + salt + index.to_bytes(8, "big") + len(name).to_bytes(4, "big") + name + outcome.encode()
    return sha256(said).digest()


def outcome_root(keys: Sequence[str], outcomes: Sequence[str], secret: bytes) -> tuple[bytes, list[bytes]]:
    """Root over the outcomes of a delivery's records, in their order, and the leaf hashes under it.

    A delivery may have a million: HMAC is written out here (RFC 2104), and so is `outcome_leaf`, for a call and a copy
    of hashlib's own state cost more than the hashing.
    """
    block = (secret if len(secret) <= BLOCK_SIZE else sha256(secret).digest()).ljust(BLOCK_SIZE, b"\x00")
    inner, outer = block.translate(_INNER_PAD), block.translate(_OUTER_PAD)
    words = {outcome: outcome.encode() for outcome in set(outcomes)}
    leaves = []
    for index, (key, outcome) in enumerate(zip(keys, outcomes, strict=True)):
        position, name = index.to_bytes(8, "big"), key.encode()
        salt = sha256(outer + sha256(inner + position).digest()).digest()
        said = b"\x00" + salt + position + len(name).to_bytes(4, "big") + name + words[outcome]
        leaves.append(sha256(said).digest())
    return merkle.root_of(leaves), leaves


def outcome_proof(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """The audit path of one record's outcome, so that it can be shown without the others."""
    nodes = {(level, i): value for level, i, value in merkle.grow(0, [], leaves)}
    return merkle.inclusion_proof(lambda level, i: nodes[level, i], index, len(leaves))
