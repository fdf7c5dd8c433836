"""What the audit log is made of: the entry as a caller states it, the leaf as it is hashed, the rows around them.

protocol.md "The entry": a leaf is JCS (RFC 8785), strings and integers only. No personal name, payload value or bare
payload digest stands in it; those lie in the detail, beside a salt, and the leaf carries their commitment.
"""

import hashlib
import secrets
from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Final, Literal, TypeVar

import msgspec

from security.errors import AuditBroken
from security.message import EvidenceClass

Detail = dict[str, str | int]
Status = Literal["waiting", "held", "processed", "refused", "recalled"]
Decision = Literal["", "release", "refuse", "recall"]

CITY_TIME: Final = timezone(timedelta(hours=8))  # a day of the city is 00:00-24:00 +08:00
RECALL: Final = "recall"  # the type of entries by which a delivery is taken back
ERASURE: Final = "erasure"  # of those that say which details were erased, and by which decision
SALT_SIZE = 32  # octets; 256 bits, so that a short detail cannot be guessed from its commitment


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the audit, as the caller states it; the journal adds version, origin, time, salt and commitment.

    type:            `delivery`, `refusal`, `read`, `processing`, `grant`, `bureau` …
    outcome:         `accepted`, `refused`, `processed`, `held`, `answered` …, or a refusal's code
    actor:           a pseudonym: a bureau's code or a person's, never a name
    carrier, signer: SHA-256 of the certificate, lower-case hex; empty when there is none
    sender:          the bureau as verified; empty when nobody was (a claimed sender stands in the detail only)
    trust_digest:    digest of the trust list that decided
    detail:          what may be erased later: message id, digests, counts, query; strings and integers
    """

    type: str
    outcome: str
    actor: str = ""
    carrier: str = ""
    signer: str = ""
    sender: str = ""
    feed: str = ""
    feed_digest: str = ""
    grant: str = ""
    trust_digest: str = ""
    detail: Detail = {}


_MEMBERS = {"feed_digest": "feedDigest", "trust_digest": "trustDigest"}


class Leaf(msgspec.Struct, rename=_MEMBERS, forbid_unknown_fields=True, gc=False):
    """The leaf itself. Members stand in JCS order, so that plain encoding is canonical.

    detail: hex of SHA-256(0x02 ‖ salt ‖ JCS(detail)); time: UTC, RFC 3339 with six decimals
    """

    actor: str
    carrier: str
    detail: str
    feed: str
    feed_digest: str
    grant: str
    origin: str
    outcome: str
    sender: str
    signer: str
    time: str
    trust_digest: str
    type: str
    v: int


T = TypeVar("T")
_LEAF: Final = msgspec.json.Decoder(Leaf)
_DETAIL: Final = msgspec.json.Decoder(Detail)


def read_back(decoder: "msgspec.json.Decoder[T]", index: int, octets: bytes | str) -> T:
    """What the journal keeps of entry `index`, or as much of it as a decoder takes. Raises AuditBroken where the row
    holds what no bus ever wrote: its octets were altered on the disk."""
    try:
        return decoder.decode(octets)
    except (msgspec.MsgspecError, UnicodeError) as problem:
        raise AuditBroken(f"entry {index} of the log cannot be read: {problem}") from problem


def leaf_of(index: int, octets: bytes | str) -> Leaf:
    """The leaf of entry `index` as the journal keeps it. Raises AuditBroken."""
    return read_back(_LEAF, index, octets)


def detail_of(index: int, octets: bytes | str) -> Detail:
    """The detail of entry `index` as the journal keeps it. Raises AuditBroken."""
    return read_back(_DETAIL, index, octets)


class Acceptance(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery that may be accepted: what the inbox keeps of it, and the entry that says so.

    content_digest, request_digest: SHA-256, lower-case hex; request_digest is that of the SignatureValue octets
    signer, carrier:                SHA-256 of the certificates, hex; carrier may be empty
    evidence:                       location given by `Evidence.keep`
    sequence:                       which delivery of this sender to this feed it is, from 1; None where it is not said
    """

    sender: str
    message_id: str
    feed: str
    content_type: str
    content_digest: str
    content_length: int
    request_digest: str
    signer: str
    carrier: str
    evidence_class: EvidenceClass
    form: str
    grant: str
    received_at: datetime
    signed_at: datetime
    evidence: str
    entry: Entry
    sequence: int | None = None


class InboxRow(msgspec.Struct, frozen=True, kw_only=True):
    """An accepted delivery. Times are RFC 3339, UTC.

    entry_index: of the entry that accepted it
    receipt:     the one receipt, or None when a crash came before it was kept (`resume` issues it)
    sequence:    as its sender counts its deliveries to the feed, from 1; None where it does not
    decision:    of a person, on a delivery that was held, or `recall`, of its bureau; until act two has carried it out
    """

    id: int
    sender: str
    message_id: str
    feed: str
    content_type: str
    content_digest: str
    content_length: int
    request_digest: str
    signer: str
    carrier: str
    evidence_class: str
    form: str
    grant: str
    received_at: str
    signed_at: str
    evidence: str
    entry_index: int
    status: Status
    sequence: int | None = None
    receipt: bytes | None = None
    decision: Decision = ""


class Accepted(msgspec.Struct, frozen=True):
    """The answer of `Journal.accept`. repeated: the delivery was known, and `inbox.receipt` is the stored receipt."""

    inbox: InboxRow
    repeated: bool


class Erased(msgspec.Struct, frozen=True):
    """By which decision a detail was erased, and under which entry.

    day: of the city, YYYY-MM-DD, on which it was
    """

    decision: str
    entry: int
    day: str


class Sequenced(msgspec.Struct, frozen=True):
    """Where an entry stands in the log. time: as the leaf says it."""

    index: int
    time: str


class EntryProof(msgspec.Struct, frozen=True):
    """An entry with all that proves it: leaf hash at `index`, `path` to the root that `checkpoint` signs.

    salt, detail: None when they were erased; the leaf still proves
    path:         RFC 6962 audit path, from the leaf's sibling upwards
    """

    index: int
    leaf: bytes
    salt: bytes | None
    detail: bytes | None
    size: int
    path: tuple[bytes, ...]
    checkpoint: str


class LoggedEntry(msgspec.Struct, frozen=True):
    """An entry as it is read back. detail: None when it was erased."""

    index: int
    leaf: Leaf
    detail: Detail | None


class OwnEntry(msgspec.Struct, frozen=True):
    """An entry as its owner gets it: leaf and detail as the octets that were hashed, so that the commitment can be made
    again. salt, detail: None when they were erased."""

    index: int
    leaf: bytes
    salt: bytes | None
    detail: bytes | None


def instant(moment: datetime) -> str:
    """RFC 3339 in UTC with six decimals and `Z`: fixed width, so that text order is time order."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def day_of(time: str) -> str:
    """The day of the city, YYYY-MM-DD, on which an instant lies."""
    return datetime.fromisoformat(time).astimezone(CITY_TIME).date().isoformat()


def begin_of(day: str) -> str:
    """The moment at which a day, YYYY-MM-DD, begins in the city, as the log writes it. Raises ValueError."""
    return instant(datetime.combine(date.fromisoformat(day), time.min, CITY_TIME))


def commitment(salt: bytes, detail: bytes) -> str:
    """Hex of SHA-256(0x02 ‖ salt ‖ detail). 0x02 keeps it apart from RFC 6962's leaves (0x00) and nodes (0x01)."""
    return hashlib.sha256(b"\x02" + salt + detail).hexdigest()


def canonical_detail(detail: Detail) -> bytes:
    """JCS of a detail: names sorted, no space. Names are ours and ASCII, so code point order is UTF-16 order."""
    return msgspec.json.encode(detail, order="deterministic")


class Prepared(msgspec.Struct):
    """An entry ready to be sequenced: all of it but its time."""

    leaf: Leaf
    salt: bytes
    detail: bytes


def prepare_entry(entry: Entry, origin: str) -> Prepared:
    """Salt and commit an entry. Raises ValueError for what JSON cannot hold, before it could spoil a group."""
    salt = secrets.token_bytes(SALT_SIZE)
    detail = canonical_detail(entry.detail)
    leaf = Leaf(
        actor=entry.actor,
        carrier=entry.carrier,
        detail=commitment(salt, detail),
        feed=entry.feed,
        feed_digest=entry.feed_digest,
        grant=entry.grant,
        origin=origin,
        outcome=entry.outcome,
        sender=entry.sender,
        signer=entry.signer,
        time="",
        trust_digest=entry.trust_digest,
        type=entry.type,
        v=1,
    )
    msgspec.json.encode(leaf)
    return Prepared(leaf, salt, detail)
