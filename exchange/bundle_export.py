"""The evidence of a delivery, of an ownership answer or of a day, gathered into one bundle (ADR 30).

Nothing is made for the bundle but proofs and the signed list of its parts: everything else goes in as it was said.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from hashlib import sha256
from typing import Final, Literal

import msgspec

from exchange.attestations import Attestations, Head
from exchange.bundle_parts import CITY_TIME, consistency_octets, entry_octets
from exchange.bus import Bus
from exchange.decisions import DECIDES
from exchange.decisions import ENTRY as DECISION
from exchange.entry import RECALL, InboxRow, instant
from exchange.evidence import is_erased, is_sealed
from exchange.ownership import OwnershipAnswer
from exchange.receipts import verify_receipt
from exchange.revocation import Revocations
from security.anchors import Anchors
from security.bundle import MANIFEST, MOST_PARTS, Kind, Manifest, sign_manifest
from security.errors import Refusal
from security.message import Content, in_memory
from security.pki import pem_of

UNKNOWN_DAY: Final = ""  # of what is gone by no decision over a delivery


class Sources(msgspec.Struct, frozen=True):
    """Where the evidence lies.

    mappings: feeds' files by their SHA-256, hex, as far as they are still kept
    opened:   entries of sealed deliveries that two persons decided to open, and that go in
    """

    bus: Bus
    attestations: Attestations
    revocations: Revocations
    anchors: Anchors
    mappings: Mapping[str, bytes]
    opened: Collection[int] = ()


def of_message(row: InboxRow, sources: Sources) -> dict[str, Content]:
    """The parts of a bundle of one delivery, with its report, if there is one."""
    return _Gathering(sources).bundle("message", f"{row.sender} {row.message_id}", [row], ())


def of_ownership(answer: OwnershipAnswer, on: date, sources: Sources) -> dict[str, Content]:
    """The parts of a bundle of an answer on a day: the answer, and every delivery that a claim of it rests on."""
    accepted = {claim.entry: sources.bus.journal.inbox(claim.sender, claim.message_id) for claim in answer.claims}
    rows = [row for _, row in sorted(accepted.items()) if row is not None]
    component = answer.component.identifier or answer.component.key
    more = {"answer.json": msgspec.json.format(msgspec.json.encode(answer), indent=2)}
    return _Gathering(sources).bundle("ownership", f"{component} {on}", rows, (), more)


def of_day(day: date, sources: Sources) -> dict[str, Content]:
    """The parts of a bundle of a day (+08:00): every entry of it, and every delivery accepted on it.

    Raises Refusal `audit.no_such_size` where the log has nothing of that day.
    """
    journal, begins = sources.bus.journal, datetime.combine(day, time(), CITY_TIME)
    checkpoint = journal.checkpoint()  # and no later one: what came since may be of that day, too
    size = _size(checkpoint)
    entries = journal.search(since=begins, until=begins + timedelta(days=1), before=size, limit=MOST_PARTS)[::-1]
    if not entries:
        raise Refusal("audit.no_such_size", f"entries of {day}")
    accepted = [one for one in entries if (one.leaf.type, one.leaf.outcome) == ("delivery", "accepted")]
    rows = [row for one in accepted if (row := journal.accepted_as(one.index)) is not None]
    first, last = entries[0].index, entries[-1].index
    whole = range(max(first - 1, 0), min(last + 2, size))
    return _Gathering(sources, checkpoint).bundle("day", day.isoformat(), rows, whole, covered=(first, last))


class _Gathering:
    """One bundle in the making. checkpoint: of the head that it is to be under; the newest, where none is given."""

    def __init__(self, sources: Sources, checkpoint: str = "") -> None:
        self._sources, self._bus = sources, sources.bus
        self._checkpoint, self._size = checkpoint, 0
        self._parts: dict[str, Content] = {}
        self._erased: dict[str, str] = {}
        self._withheld: dict[str, str] = {}
        self._gone: list[int] = []  # entries of deliveries whose original bytes were erased
        self._entries: set[int] = set()  # to be proven, with the delivery that each is about
        self._sizes: set[int] = set()  # of heads that are to be joined to the last one

    def bundle(
        self,
        kind: Kind,
        subject: str,
        rows: Sequence[InboxRow],
        entries: Iterable[int],
        more: Mapping[str, bytes] | None = None,
        covered: tuple[int, int] | None = None,
    ) -> dict[str, Content]:
        """All parts, the manifest among them. Raises Refusal `bundle.too_large`.

        covered: first and last entry that others are to have signed; of the deliveries, where it is not given
        """
        for name, octets in (more or {}).items():
            self._put(name, octets)
        heads = self._attested(covered or [row.entry_index for row in rows])
        # After those of others, so that none of them is larger.
        checkpoint = self._checkpoint or self._bus.journal.checkpoint()
        self._size = size = _size(checkpoint)
        self._put("checkpoint", checkpoint.encode())
        self._entries = {*entries, *self._decisions(size)}
        for row in rows:
            self._message(row)
        self._certificates(rows)
        for suffix, octets in self._sources.revocations.answers():
            self._put(f"status/{sha256(octets).hexdigest()}.{suffix}", octets)
        for head in heads:
            if head.size <= size:
                self._head(head)
        self._erasures()
        if len(self._parts) + len(self._entries) + len(self._sizes) >= MOST_PARTS:
            raise Refusal("bundle.too_large", f"{len(self._entries)} entries")
        for index in sorted(self._entries):
            self._entry(index, size)
        for first in sorted(self._sizes):
            nodes = self._bus.journal.consistency(first, size)
            self._put(f"consistency/{first}.json", consistency_octets(first, size, nodes))
        return self._signed(kind, subject)

    def _signed(self, kind: Kind, subject: str) -> dict[str, Content]:
        manifest = Manifest(
            origin=self._bus.origin,
            kind=kind,
            subject=subject,
            made_at=instant(self._bus.clock().astimezone(UTC)),
            parts={name: part.digest.hex for name, part in self._parts.items()},
            erased=self._erased,
            withheld=self._withheld,
        )
        self._put(MANIFEST, sign_manifest(manifest, self._bus.answer_key))
        return self._parts

    def _put(self, name: str, octets: bytes) -> None:
        self._parts[name] = in_memory(octets)

    def _decisions(self, size: int) -> list[int]:
        """Every decision of the log, whatever the table of decisions finds (ADR 29)."""
        found = self._bus.journal.every(DECISION)
        return [one.index for one in found if one.leaf.outcome in DECIDES and one.index < size]

    def _attested(self, indexes: Sequence[int]) -> list[Head]:
        """The heads over all these entries that enough witnesses signed, and that was stamped; where there is none yet,
        over the first of them."""
        kept, quorum = self._sources.attestations, self._sources.anchors.quorum
        names = [witness.name for witness in self._sources.anchors.witnesses]
        last, first = max(indexes, default=0), min(indexes, default=0)
        cosigned = kept.cosigned(last, names, quorum) or kept.cosigned(first, names, quorum)
        stamped = kept.stamped(last) or kept.stamped(first)
        found = {head.size: head for head in (cosigned, stamped) if head is not None}
        return list(found.values())

    def _head(self, head: Head) -> None:
        self._put(f"heads/{head.size}.checkpoint", head.checkpoint.encode())
        if head.response:
            self._put(f"heads/{head.size}.tsr", head.response)
        self._sizes.add(head.size)

    def _message(self, row: InboxRow) -> None:
        place = f"messages/{row.entry_index}"
        self._entries.add(row.entry_index)
        if is_erased(row.evidence):
            self._gone.append(row.entry_index)
            self._erased[f"{place}/envelope"] = self._day_of_erasure(row.entry_index, "evidence")
        elif is_sealed(row.evidence) and row.entry_index not in self._sources.opened:
            self._withheld[f"{place}/envelope"] = "sealed"
        else:
            self._parts[f"{place}/envelope"] = self._bus.evidence.read(row.evidence)
        if row.receipt is not None:
            self._document(f"{place}/receipt.json", row.receipt)
        self._report(row)
        self._mapping(row.entry_index)

    def _report(self, row: InboxRow) -> None:
        """The latest report under the bundle's head, and of what was recalled the entries that say so."""
        name = f"messages/{row.entry_index}/report.json"
        reported = self._bus.journal.reported_in(row.id)
        if reported is not None and reported[0] < self._size:
            self._entries.add(reported[0])
            if reported[1]:
                self._document(name, reported[1])
            else:
                self._erased[name] = self._day_of_erasure(reported[0], "detail")
        if row.status == "recalled":
            found = self._bus.journal.search(type=RECALL, sender=row.sender, message_id=row.message_id)
            self._entries.update(one.index for one in found if one.index < self._size)

    def _document(self, name: str, octets: bytes) -> None:
        try:
            size = verify_receipt(octets, self._sources.anchors).checkpoint.size
        except Refusal:  # it goes in as it is: whoever reads the bundle shall see what does not hold
            self._put(name, octets)
            return
        if size <= self._size:  # else it was issued since
            self._put(name, octets)
            self._sizes.add(size)

    def _mapping(self, index: int) -> None:
        entry = self._bus.journal.entry(index)
        octets = self._sources.mappings.get(entry.leaf.feed_digest) if entry else None
        if entry is not None and octets is not None:
            self._put(f"mappings/{entry.leaf.feed}.{entry.leaf.feed_digest}.toml", octets)

    def _certificates(self, rows: Sequence[InboxRow]) -> None:
        enrolled = {one.fingerprint: one for one in self._bus.registry.certificates()}
        for fingerprint in {name for row in rows for name in (row.signer, row.carrier)} & enrolled.keys():
            self._put(f"certificates/{fingerprint}.pem", pem_of(enrolled[fingerprint].der))

    def _entry(self, index: int, size: int) -> None:
        proof = self._bus.journal.prove(index)
        path = proof.path if proof.size == size else self._bus.journal.inclusion(index, size)
        self._put(f"entries/{index}.json", entry_octets(index, proof.leaf, proof.salt, proof.detail, path))
        if proof.salt is None or proof.detail is None:
            self._erased[f"entries/{index}.json"] = self._day_of_erasure(index, "detail")

    def _erasures(self) -> None:
        """The entries that say of what is gone that it was erased."""
        journal = self._bus.journal
        gone = [
            *(journal.erased(index) for index in self._entries),
            *(journal.erased(n, "evidence") for n in self._gone),
        ]
        self._entries.update(one.entry for one in gone if one is not None and one.entry < self._size)

    def _day_of_erasure(self, index: int, part: Literal["detail", "evidence"]) -> str:
        """The day on which two persons' decision to erase it was carried out, as the log says."""
        erased = self._bus.journal.erased(index, part)
        return erased.day if erased else UNKNOWN_DAY


def _size(checkpoint: str) -> int:
    """Of a checkpoint of our own; 0 before there is one."""
    return int(checkpoint.split("\n")[1]) if checkpoint else 0
