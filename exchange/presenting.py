"""补证 Receipts of entries that were lost: what the bus signed for a bureau before a restore, put into the log again.

Such a receipt stands on a head of an epoch that is over, beyond what was restored of it. It proves what was accepted
and when; the delivery itself its bureau sends again. The receipt is entered as it is, in its bureau's name.
"""

import msgspec

from exchange.entry import Entry
from exchange.journal import Journal
from exchange.receipts import VerifiedDocument, verify_receipt
from exchange.registry import Officer, Registry
from security.anchors import Anchors
from security.batch import unverified
from security.errors import Refusal
from security.message import sha256

MOST_BYTES = 65_536


class Presented(msgspec.Struct, frozen=True):
    """A receipt that was entered. entry: its entry; lost_entry, lost_log: where the delivery's stood; resent: number of
    the entry that accepted the same content since, -1 while none did"""

    entry: int
    sender: str
    message_id: str
    lost_entry: int
    lost_log: str
    resent: int


def present(octets: bytes, anchors: Anchors, registry: Registry, by: Officer) -> Presented:
    """Enter a receipt of the lost entries, once all of it holds; again gives the same entry.

    Raises Refusal `receipt.not_of_gap`, `audit.receipt_invalid`, `audit.checkpoint_invalid`, `signature.*`.
    """
    receipt, digest, journal = verified_of_gap(octets, anchors), sha256(octets).hex, registry.journal
    said = receipt.document
    sender, message_id = str(said["sender"]), str(said["message_id"])
    resent = _resent(journal, sender, message_id, str(said["content_digest"]))
    known = journal.search(type="receipt", outcome="presented", message_id=message_id, limit=1_000)
    entry = next((one.index for one in known if one.detail and one.detail["receipt_digest"] == digest), None)
    if entry is None:
        noted = Entry(
            type="receipt",
            outcome="presented",
            actor=registry.person(by.key.public_key).pseudonym,
            sender=sender,
            feed=str(said["feed"]),
            trust_digest=registry.trust().digest,
            detail={
                "message_id": message_id,
                "lost_log": receipt.checkpoint.origin,
                "lost_entry": receipt.index,
                "lost_size": receipt.checkpoint.size,
                "resent": resent,
                "receipt_digest": digest,
                "receipt": octets.decode(),
            },
        )
        entry = journal.note(noted).result().index
    return Presented(entry, sender, message_id, receipt.index, receipt.checkpoint.origin, resent)


def verified_of_gap(octets: bytes, anchors: Anchors) -> VerifiedDocument:
    """A receipt under a head that its epoch ended without, once it holds by the keys of that epoch. Raises Refusal."""
    try:
        name = str(unverified(octets)["checkpoint"]).partition("\n")[0] if len(octets) <= MOST_BYTES else ""
    except (ValueError, KeyError, TypeError) as problem:
        raise Refusal("audit.receipt_invalid", "not readable") from problem
    ended = next((one for one in anchors.former_epochs if one.log == name), None)
    if ended is None:
        raise Refusal("receipt.not_of_gap", name[:80])
    verified = verify_receipt(octets, anchors.before_epoch(name))
    if verified.kind != "receipt" or verified.checkpoint.size <= ended.size:
        raise Refusal("receipt.not_of_gap", f"{verified.checkpoint.size} of {ended.size}")
    return verified


def _resent(journal: Journal, sender: str, message_id: str, content_digest: str) -> int:
    row = journal.inbox(sender, message_id)
    return row.entry_index if row is not None and row.content_digest == content_digest else -1
