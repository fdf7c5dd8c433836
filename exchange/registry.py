"""Bureaus, their certificates, persons in office, and who may do what: what the log's decisions come to, as of now.

Every change is a decision (`exchange.decisions`): an entry with the signatures of the persons whose office it is. What
stands is told again from those entries alone, each looked at before it counts: it lies under a signed head of the log,
its detail is what the leaf commits to, its signatures hold. The table `decisions` only finds them: a row of it without
such an entry is ignored, and named among the troubles.
"""

import re
import secrets
import threading
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

import msgspec

from exchange.database import CONFLICTS, Cursor
from exchange.decision_documents import (
    AnchorBody,
    Apart,
    Body,
    BoundaryBody,
    Bureau,
    CarryingBody,
    DeliveryBody,
    Document,
    EpochBody,
    ErasureBody,
    FoundingBody,
    Kind,
    MappingBody,
    Officer,
    PersonBody,
    Revocable,
    RevocationBody,
    Role,
    approval_of,
    body_of_grant,
    carrying_of,
    check_founders,
    document_of,
    enrolment_of,
    founding_digest,
    name_commitment,
    proposal_of,
    revocation_of,
)
from exchange.decisions import DECIDES, ENTRY, Carried, Decided, Granted, KeyChange, Person, Proposed, Standing, Trouble
from exchange.entry import SALT_SIZE, Detail, EntryProof, InboxRow, Leaf, commitment, detail_of, leaf_of
from exchange.journal import Entry, Journal
from exchange.own_keys import OwnKey
from exchange.revocation import Revocations
from security import merkle
from security.authenticate import TrustList
from security.checkpoint import Checkpoint
from security.errors import AuditBroken, Refusal
from security.keys import PublicKey
from security.message import EVERYWHERE, Action, Area, EnrolledCertificate, Grant

__all__ = ["Bureau", "GrantRow", "Officer", "Registry", "check_code"]

GrantState = Literal["proposed", "approved", "revoked"]
_CODE: Final = re.compile(r"[a-z0-9][a-z0-9\-]{0,63}")  # as the XSD has it: any other code could send nothing
_DECISIONS: Final = "SELECT entry_index, id, outcome FROM decisions WHERE entry_index > ? ORDER BY entry_index"
# The newest row too: who may write to the database may also keep the version from moving.
_VERSION: Final = "SELECT version, (SELECT max(entry_index) FROM decisions) FROM registry_version"
_BEFORE_ALL: Final = -(2**63)

Change = Callable[[Cursor, int], None]


def check_code(code: str) -> None:
    """Return if a bureau may bear the code. Raises Refusal `registry.code_invalid`."""
    if not _CODE.fullmatch(code):
        raise Refusal("registry.code_invalid", code)


class GrantRow(msgspec.Struct, frozen=True):
    """A grant and how far it has come. Of a person the name, where it is known here."""

    grant: Grant
    state: GrantState


class _Snapshot(msgspec.Struct, frozen=True):
    """What requests ask for, as of one version of the decisions and one of the authorities' answers.

    complete: all decisions of that version lie under a signed head
    """

    version: tuple[int, int | None]
    answers: int
    trust: TrustList
    grants: Mapping[str, tuple[Grant, ...]]
    complete: bool


class Registry:
    """What is enrolled and granted, as of now in any process.

    folder:   that of the journal, by which all changes go
    founding: SHA-256 of the founding document, hex; empty before there is one
    revocations: what the city's authorities say of their certificates
    """

    def __init__(
        self,
        folder: Path,
        journal: Journal,
        founding: str,
        clock: Callable[[], datetime],
        revocations: Revocations | None = None,
    ) -> None:
        self.journal, self._clock = journal, clock
        self._revocations = revocations or Revocations(folder / "revocation")
        self._connection, self._lock = journal.database.connect(), threading.RLock()
        self._begin(founding)

    def _begin(self, founding: str) -> None:
        self._standing, self._read_up_to, self._looked_under = Standing(self.journal.origin, founding), _BEFORE_ALL, ""
        self._snapshot = _Snapshot((-1, None), -1, TrustList(()), {}, complete=False)
        self._broken = ""  # why nothing can be told from the log any more; whoever asks again hears it again

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    # Asked on every request: one small query, and the snapshot unless another process changed something.

    def trust(self) -> TrustList:
        """The enrolled certificates."""
        return self._current().trust

    def grants(self, bureau: str) -> tuple[Grant, ...]:
        """The approved grants of a bureau that are not revoked; their days are for `authorise` to judge."""
        return self._current().grants.get(bureau, ())

    def grant(self, id: str) -> Grant:
        """A grant as it was approved, revoked since or not: what it covered, an accepted delivery may still say.

        Raises AuditBroken when there is none: no grant is ever removed.
        """
        found = self._now().grants.get(id)
        if found is None:
            raise AuditBroken(f"a delivery was accepted under grant {id}, which no decision of the log made")
        return found.grant

    def mapping(self, feed: str) -> str:
        """The digest of the feed's file that counts; empty where none was released."""
        return self._now().mappings.get(feed, "")

    def boundaries(self) -> dict[str, list[BoundaryBody]]:
        """By layer, the versions that were decided to place by, in the order of the log."""
        return self._now().boundaries

    # What stands, for officers.

    def bureaus(self) -> list[Bureau]:
        """All bureaus, by code."""
        return sorted(self._now().bureaus.values(), key=lambda bureau: bureau.code)

    def certificates(self) -> list[EnrolledCertificate]:
        """All certificates, by bureau, revoked ones too."""
        return sorted(self._now().certificates.values(), key=lambda c: (c.bureau, c.use, c.fingerprint))

    def of_bureau(self, bureau: str) -> tuple[list[str], list[int]]:
        """Fingerprints of all certificates that a bureau ever had, and the entries that decided over them or over
        grants to it or in its name."""
        standing = self._now()
        certificates = [c.fingerprint for c in list(standing.certificates.values()) if c.bureau == bureau]
        return certificates, list(standing.entries.get(bureau, ()))

    def bureaus_by_certificate(self) -> dict[str, str]:
        """Whose certificate it is, by fingerprint."""
        return {fingerprint: c.bureau for fingerprint, c in self._now().certificates.items()}

    def persons(self) -> list[tuple[str, Person]]:
        """All persons who hold or held an office, each with the name, by time."""
        standing, names = self._now(), self._names()
        return [(names.get(one.pseudonym, one.pseudonym), one) for one in standing.persons.values()]

    def proposed_grant(self, id: str) -> Grant | None:
        """A grant that waits for a second person, or None."""
        standing = self._now()
        proposed = standing.proposals.get(id)
        return standing.grant_of(proposed) if proposed and proposed.document.kind == "grant" else None

    def name_of(self, pseudonym: str) -> str:
        """The name of a person, or of one proposed; the pseudonym where none is known that fits."""
        self._current()
        return self._names().get(pseudonym, pseudonym)

    def granted(self) -> list[Granted]:
        """All grants that were ever approved, with how long they stood."""
        return list(self._now().grants.values())

    def all_grants(self) -> list[GrantRow]:
        """All grants, by bureau, proposed and revoked ones too. proposed_by, approved_by: names."""
        standing, names = self._now(), self._names()
        rows = [GrantRow(one.grant, "revoked" if one.revoked_at else "approved") for one in standing.grants.values()]
        waiting = [one for one in standing.proposals.values() if one.document.kind == "grant"]
        rows += [GrantRow(standing.grant_of(one), "proposed") for one in waiting]
        named = [msgspec.structs.replace(row, grant=_named(row.grant, names)) for row in rows]
        return sorted(named, key=lambda row: (row.grant.bureau, row.grant.id))

    def proposals(self) -> list[tuple[str, Proposed]]:
        """What waits for a second person, each with the name of the first."""
        names = self._names()
        return [(names.get(one.by, one.by), one) for one in self._now().proposals.values()]

    def troubles(self) -> list[Trouble]:
        """Entries and rows that claim to decide and do not hold; and names that hold two offices."""
        standing, names = self._now(), self._names()
        held: dict[str, str] = {}
        twice = [Trouble(None, "person.name_altered", one) for one in standing.persons if one not in names]
        for name, person in self.persons():
            if not person.until:
                other = held.setdefault(_plain(name), person.pseudonym)
                twice += [Trouble(None, "role.held_already", person.pseudonym)] if other != person.pseudonym else []
        return [*standing.troubles, *twice]

    def hidden(self) -> list[int]:
        """Entries that decide and that the table does not find: whoever took a row away wanted them not to act."""
        return sorted(self._hidden())

    def unsigned(self) -> bool:
        """Whether a decision waits for the head over it to be signed."""
        return not self._current().complete

    def _hidden(self) -> dict[int, str]:
        with self._lock:
            found = {index for (index,) in self._connection.execute("SELECT entry_index FROM decisions")}
        entries = self.journal.every(ENTRY)
        return {e.index: e.leaf.outcome for e in entries if e.leaf.outcome in DECIDES and e.index not in found}

    def person(self, key: PublicKey, *roles: Role) -> Person:
        """Who acts, by the key they hold, if their office is one of these (none given: any).

        Raises Refusal `person.unknown`, `role.not_held`.
        """
        found = self._now().office_of(key)
        if roles and found.role not in roles:
            raise Refusal("role.not_held", " / ".join(roles))
        return found

    def note_turned_away(self, command: str, by: Officer, refusal: Refusal) -> None:
        """Enter that somebody tried what is not their office's."""
        try:
            actor = self._now().person_of(by.key.public_key)
        except Refusal:
            actor = ""
        detail: Detail = {"wanted": command, "why": refusal.detail[:120]}
        self.journal.note(Entry(type="refusal", outcome=refusal.code, actor=actor, detail=detail)).result()

    def note_search(self, by: Officer, asked: Detail) -> None:
        """Enter what an officer looked for in the audit."""
        actor = self.person(by.key.public_key).pseudonym
        self.journal.note(
            Entry(type="read", outcome="searched", actor=actor, detail={"view": "audit", **asked})
        ).result()

    # Decisions: each is one entry and one transaction.

    def found(self, founders: Sequence[tuple[Officer, Role, str]], mappings: Mapping[str, str]) -> str:
        """Begin: who holds which office (with the bureau they belong to), and which mappings count; gives the digest
        by which this founding is to be trusted. The first two security officers sign it.

        Raises Refusal `founding.too_few`, `role.held_already`, `registry.person_unnamed`.
        """
        persons, rows = [], []
        for officer, role, bureau in founders:
            row = _new_person(officer.name, bureau)
            rows.append(row)
            persons.append(PersonBody(row[0], _committed(row), bureau, role, officer.key.public_pem().decode()))
        body = FoundingBody(persons, dict(mappings))
        check_founders(body)
        if len({_plain(name) for _, name, _, _ in rows}) < len(rows):
            raise Refusal("role.held_already", "founding")
        first, second = [officer for officer, role, _ in founders if role == "security"][:2]
        document = self._document("founding", body)
        now = self._clock()
        detail: Detail = {"proposal": proposal_of(document, first, now), "approval": approval_of(document, second, now)}

        def also(cursor: Cursor, index: int) -> None:
            cursor.executemany("INSERT INTO persons VALUES (?, ?, ?, ?)", rows)
            index_decision(document.id, "founded")(cursor, index)

        self._note(persons[0].person, "founded", document.id, detail, also)
        digest = founding_digest(str(detail["proposal"]))
        self._begin(digest)
        return digest

    def propose_enrolment(self, bureau: Bureau, certificates: Sequence[EnrolledCertificate], by: Officer) -> str:
        """Put a bureau, or new titles or certificates of one, before a second person; gives the decision's id.

        Raises Refusal `registry.code_invalid`, `registry.certificate_known` (enrolled before, here or for another).
        """
        check_code(bureau.code)
        if any(certificate.bureau != bureau.code for certificate in certificates):
            raise Refusal("auth.sender_mismatch", bureau.code)
        return self._propose("enrolment", enrolment_of(bureau, list(certificates)), by)

    def propose_grant(
        self,
        *,
        bureau: str,
        action: Action,
        target: str,
        classes: Sequence[str] = (),
        valid_from: str,
        valid_until: str,
        purpose: str,
        basis: str,
        area: Area = EVERYWHERE,
        attributes: Sequence[str] = (),
        map_area_km2: int = 0,
        by: Officer,
    ) -> str:
        """Put a grant before a second person; gives its id. It allows nothing yet.

        valid_from, valid_until: days, YYYY-MM-DD, `valid_until` included

        Raises Refusal `registry.bureau_unknown`, `grant.days_invalid`, `decision.own_bureau`, `role.not_held`.
        """
        grant = Grant(
            id="",
            bureau=bureau,
            action=action,
            target=target,
            classes=tuple(classes),
            valid_from=valid_from,
            valid_until=valid_until,
            purpose=purpose,
            basis=basis,
            proposed_by="",
            approved_by="",
            area=area,
            attributes=tuple(attributes),
            map_area_km2=map_area_km2,
        )
        return self._propose("grant", body_of_grant(grant), by)

    def propose_person(self, officer_name: str, public_pem: str, role: Role, bureau: str, by: Officer) -> str:
        """Put an office before a second person. The name stays here, out of document and log.

        Raises Refusal `role.held_already`, `registry.person_unnamed`, `signature.key_not_accepted`, `role.not_held`.
        """
        check_code(bureau)
        row = self._person_row(officer_name, bureau)
        self._check_holds_none(row[1])

        def also(cursor: Cursor, _: int) -> None:
            cursor.execute("INSERT INTO persons VALUES (?, ?, ?, ?) ON CONFLICT (pseudonym) DO NOTHING", row)

        return self._propose("person", PersonBody(row[0], _committed(row), bureau, role, public_pem), by, also)

    def _person_row(self, name: str, bureau: str) -> "_PersonRow":
        """The row of a person known by that name at that bureau, in office once or never; or a new one."""
        query = "SELECT pseudonym, name, bureau, salt FROM persons WHERE bureau = ?"
        with self._lock:
            rows: list[_PersonRow] = self._connection.execute(query, (bureau,)).fetchall()
        return next((row for row in rows if _plain(row[1]) == _plain(name)), None) or _new_person(name, bureau)

    def _check_holds_none(self, name: str) -> None:
        """Return if nobody of that name is in office. Raises Refusal `role.held_already`."""
        for other, person in self.persons():
            if _plain(other) == _plain(name) and not person.until:
                raise Refusal("role.held_already", person.role)

    def propose_mapping(self, feed: str, bureau: str, digest: str, by: Officer) -> str:
        """Put a release of a feed's file before a second person; not of the bureau whose feed it is."""
        return self._propose("mapping", MappingBody(feed, bureau, digest), by)

    def propose_boundary(self, body: BoundaryBody, by: Officer) -> str:
        """Put before a second person that everything be placed by a version of a layer; not of the bureau whose it
        is."""
        return self._propose("boundary", body, by)

    def propose_opening(self, sender: str, message_id: str, ground: str, by: Officer) -> str:
        """Put before a second person that a delivery's original bytes be opened. Raises Refusal."""
        return self._propose("opening", DeliveryBody(sender, message_id, ground), by)

    def propose_erasure(self, body: ErasureBody, by: Officer) -> str:
        """Put before a second person that content be erased.

        Raises Refusal `erasure.not_meant`, `erasure.too_young`, `role.not_held`.
        """
        return self._propose("purge", body, by)

    def approve(self, id: str, by: Officer) -> Document:
        """Put what was proposed in force; gives what it is.

        Raises Refusal `decision.not_proposed`, `decision.same_person`, `decision.own_bureau`, `decision.own_gain`,
        `role.not_held`, `person.unknown`.
        """

        def made(standing: Standing, actor: str) -> tuple[Document, Detail]:
            proposed = standing.proposals.get(id)
            if proposed is None:
                raise Refusal("decision.not_proposed", id[:80])
            standing.check_approval(proposed.document, proposed.by, actor)
            if proposed.document.kind == "person":  # two may have been proposed for offices under one name
                self._check_holds_none(self._names().get(str(proposed.document.body["person"]), ""))
            approval = approval_of(proposed.document, by, self._clock())
            return proposed.document, {"proposal": proposed.octets, "approval": approval}

        return self._decide("approved", id, by, made)

    def revoke(self, what: Revocable, of: str, by: Officer, ground: str = "") -> None:
        """End a grant, a certificate, an office or a proposal, now. One person suffices.

        Raises Refusal `grant.unknown`, `registry.certificate_unknown`, `person.unknown`, `decision.not_proposed`,
        `role.not_held`.
        """
        body = RevocationBody(what, of, ground)
        document = self._document("revocation", body)

        def made(standing: Standing, actor: str) -> tuple[Document, Detail]:
            standing.check_revocation(body, actor)
            return document, {"what": what, "of": of, "revocation": revocation_of(document, by, self._clock())}

        self._decide("revoked", document.id, by, made)

    def revoke_grant(self, id: str, by: Officer) -> None:
        """End a grant, or a proposal of one, now. Raises Refusal `grant.unknown`, `role.not_held`."""
        try:
            self.revoke("proposal" if id in self._now().proposals else "grant", id, by)
        except Refusal as refusal:
            if refusal.code != "decision.not_proposed" or id not in self._now().grants:
                raise
            self.revoke("grant", id, by)  # it was approved in between

    def revoke_certificate(self, fingerprint: str, by: Officer) -> None:
        """From now on the certificate proves nothing. Raises Refusal `registry.certificate_unknown`."""
        self.revoke("certificate", fingerprint, by)

    def carried_out(self) -> Mapping[str, Carried]:
        """The decisions over deliveries that were carried out, by id."""
        return dict(self._now().carried)

    def decided_opening(self, id: str, by: Officer) -> InboxRow:
        """The delivery that two persons decided to open, for the person who is to do it.

        Raises Refusal `decision.not_in_force`, also once it was carried out; `role.not_held`, `delivery.unknown`.
        """
        body = self._decided(id, "opening", by)
        assert isinstance(body, DeliveryBody)  # of an opening
        row = self.journal.inbox(body.sender, body.message_id)
        if row is None:
            raise Refusal("delivery.unknown", body.message_id)
        return row

    def decided_erasure(self, id: str, by: Officer) -> ErasureBody:
        """What two persons decided to erase, for the person who is to do it. Raises Refusal as `decided_opening`."""
        body = self._decided(id, "purge", by)
        assert isinstance(body, ErasureBody)  # of a purge
        return body

    def signed(self, id: str) -> Apart:
        """What two persons signed of a decision in force, as the log has it. Raises Refusal `decision.not_in_force`."""
        with self._lock:
            query = "SELECT entry_index FROM decisions WHERE id = ? AND outcome = 'approved'"
            row = self._connection.execute(query, (id,)).fetchone()
        entry = self.journal.entry(row[0]) if row else None
        if entry is None or entry.detail is None:
            raise Refusal("decision.not_in_force", id[:80])
        return Apart(str(entry.detail["proposal"]), str(entry.detail["approval"]))

    def is_decided(self, id: str) -> bool:
        """Whether a decision over deliveries is in force and was not carried out."""
        return id in self._now().deliveries

    def decide_again(self, id: str, signed: Apart, by: Officer) -> None:
        """Enter what two persons signed once more: the entry that had it was lost. Raises Refusal as `approve`."""
        detail: Detail = {"proposal": signed.proposal, "approval": signed.approval}

        def made(standing: Standing, actor: str) -> tuple[Document, Detail]:
            return standing.check_agreed(signed), detail

        self._decide("approved", id, by, made)

    def _decided(self, id: str, kind: Kind, by: Officer) -> DeliveryBody | ErasureBody:
        with self._lock:
            standing = self._now()
            actor = standing.office_of(by.key.public_key).pseudonym
            return standing.check_carrying(id, actor, kind)

    def carry_out(self, id: str, by: Officer, also: Change = lambda cursor, index: None) -> None:
        """Enter that a decision over a delivery was carried out; it cannot be a second time."""
        document = self._document("carrying", CarryingBody(id))

        def made(standing: Standing, actor: str) -> tuple[Document, Detail]:
            standing.check_carrying(id, actor)
            return document, {"of": id, "carrying": carrying_of(document, by, self._clock())}

        self._decide("carried_out", document.id, by, made, also)

    def propose_key(self, body: AnchorBody, by: Officer) -> str:
        """Put before a second person that a key of the bus's own takes the place of another. Raises Refusal."""
        return self._propose("anchor", body, by)

    def key_change(self, id: str, by: Officer) -> AnchorBody:
        """The change of a key that two persons decided on, for the person who is to carry it out.

        Raises Refusal `decision.not_in_force`, `role.not_held`.
        """
        with self._lock:
            standing = self._now()
            return standing.check_anchor(id, standing.office_of(by.key.public_key).pseudonym)

    def change_key(self, id: str, former: OwnKey, by: Officer) -> int:
        """Enter that a key was changed, and gives the number of that entry: from the next head on the new one signs.

        former: the one until now, as `init` made it or an earlier change
        """
        document = self._document("carrying", CarryingBody(id))
        body = self.key_change(id, by)

        def made(standing: Standing, actor: str) -> tuple[Document, Detail]:
            standing.check_anchor(id, actor)
            detail: Detail = {"of": id, "key": body.key, "carrying": carrying_of(document, by, self._clock())}
            return document, detail

        def also(cursor: Cursor, index: int) -> None:
            cursor.execute("INSERT INTO own_keys VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", _row(former))
            changed = OwnKey(body.name, index + 1, body.key, body.algorithm)
            cursor.execute("INSERT INTO own_keys VALUES (?, ?, ?, ?)", _row(changed))

        self._decide("carried_out", document.id, by, made, also)
        return self.key_changes()[-1][0]

    def next_log(self, known_log: str = "") -> str:
        """The log's name in the checkpoints of the next epoch. known_log: in those of one that was lost, perhaps."""
        return self._now().next_log(known_log)

    def propose_epoch(self, body: EpochBody, by: Officer) -> str:
        """Put before a second person that a new epoch of the log be opened. Raises Refusal."""
        return self._propose("epoch", body, by)

    def propose_epoch_apart(self, body: EpochBody, by: Officer) -> tuple[str, Apart]:
        """The same beside the log, which has lost entries and takes none; gives the decision's id and what is signed.

        Raises Refusal `epoch.not_next`, `role.not_held`.
        """
        document = self._document("epoch", body)
        with self._lock:
            standing = self._now()
            standing.check_proposal(document, standing.office_of(by.key.public_key).pseudonym)
        return document.id, Apart(proposal_of(document, by, self._clock()))

    def approve_epoch_apart(self, apart: Apart, by: Officer) -> Apart:
        """The second person's signature over what the first proposed beside the log. Raises Refusal as `approve`."""
        with self._lock:
            standing = self._now()
            actor = standing.office_of(by.key.public_key).pseudonym
            document = standing.check_apart_proposal(apart, actor)
        return msgspec.structs.replace(apart, approval=approval_of(document, by, self._clock()))

    def epoch_decided(self, id: str, by: Officer, apart: Apart | None = None) -> EpochBody:
        """The epoch that two persons decided on, for the person who is to open it. apart: where that is not in the log

        Raises Refusal `decision.not_in_force`, `epoch.not_next`, `role.not_held`.
        """
        with self._lock:
            standing = self._now()
            actor = standing.office_of(by.key.public_key).pseudonym
            return standing.check_apart(apart, id, actor) if apart else standing.check_epoch(id, actor)

    def open_epoch(
        self,
        id: str,
        last: Checkpoint,
        seen: Detail,
        former: Sequence[OwnKey],
        by: Officer,
        apart: Apart | None = None,
    ) -> None:
        """Enter that an epoch begins: this entry is its first, and the heads from here on bear its name.

        last: the last head of the epoch that ends; seen: what else is known of heads, for the entry; former: the keys
        until now, as `init` made them or an earlier change; apart: what two persons decided beside the log

        Raises Refusal `epoch.not_next`, also where the log has grown beyond that head.
        """
        document = self._document("carrying", CarryingBody(id, last.size, last.root.hex()))
        body = self.epoch_decided(id, by, apart)
        decided: Detail = {"proposal": apart.proposal, "approval": apart.approval} if apart else {}

        def made(standing: Standing, actor: str) -> tuple[Document, Detail]:
            if apart:
                standing.check_apart(apart, id, actor)
            else:
                standing.check_epoch(id, actor)
            detail: Detail = {
                **decided,
                "of": id,
                "key": body.key.key,
                "log": body.log,
                "former_log": last.origin,
                "size": last.size,
                "root": last.root.hex(),
                "known_size": body.known_size,
                "known_root": body.known_root,
                "known_log": body.known_log,
                "gap": max(body.known_size - last.size, 0),
                **seen,
                "ground": body.ground,
                "carrying": carrying_of(document, by, self._clock()),
            }
            return document, detail

        def also(cursor: Cursor, index: int) -> None:
            if index != last.size:
                raise Refusal("epoch.not_next", f"{index} entries, not {last.size}")
            cursor.execute("INSERT INTO epochs VALUES (?, ?)", (index + 1, body.log))
            for key in former:
                cursor.execute("INSERT INTO own_keys VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", _row(key))
            for new in (body.key, body.answer):
                changed = OwnKey(new.name, index + 1, new.key, new.algorithm)
                cursor.execute("INSERT INTO own_keys VALUES (?, ?, ?, ?)", _row(changed))

        self._decide("carried_out", document.id, by, made, also)

    def key_changes(self) -> list[tuple[int, KeyChange]]:
        """Every change of a key of the bus's own, with the number of the entry that carried it out."""
        return list(self._now().key_changes)

    def decide_delivery(self, inbox_id: int, decision: Literal["release", "refuse"], by: Officer) -> None:
        """Let a held delivery through, or end it; act two carries it out. The system administrator's to say.

        Raises Refusal `delivery.not_held`; `delivery.superseded` when a later snapshot of its feed is in the register,
        over which the older one would be laid; `role.not_held`.
        """
        actor = self.person(by.key.public_key, "system").pseudonym

        def also(cursor: Cursor, _: int) -> None:
            query = "UPDATE inbox SET status = 'waiting', decision = ? WHERE id = ? AND status = 'held'"
            if not cursor.execute(query, (decision, inbox_id)).rowcount:
                raise Refusal("delivery.not_held", str(inbox_id))
            later = (
                "SELECT 1 FROM inbox held JOIN inbox ON inbox.feed = held.feed AND inbox.id > held.id "
                "WHERE held.id = ? AND inbox.status = 'processed' LIMIT 1"
            )
            if decision == "release" and cursor.execute(later, (inbox_id,)).fetchone():
                raise Refusal("delivery.superseded", str(inbox_id))

        self._audited(Entry(type="held", outcome=decision, actor=actor, detail={"inbox": inbox_id}), also)

    # How a decision is made.

    def _propose(self, kind: Kind, body: Body, by: Officer, also: Change = lambda cursor, index: None) -> str:
        document = self._document(kind, body)

        def made(standing: Standing, actor: str) -> tuple[Document, Detail]:
            standing.check_proposal(document, actor)
            return document, {"kind": kind, "proposal": proposal_of(document, by, self._clock())}

        self._decide("proposed", document.id, by, made, also)
        return document.id

    def _document(self, kind: str, body: Body) -> Document:
        letter = {"grant": "g", "founding": "f", "revocation": "r"}.get(kind, "d")
        return document_of(self.journal.origin, kind, f"{letter}-{secrets.token_hex(6)}", body, self._clock())

    def _decide(
        self,
        outcome: str,
        id: str,
        by: Officer,
        made: Callable[[Standing, str], tuple[Document, Detail]],
        also: Change = lambda cursor, index: None,
    ) -> Document:
        """Enter a decision by a person; one that may not be is entered as a refusal."""
        actor = ""
        try:
            with self._lock:
                standing = self._now()
                actor = standing.office_of(by.key.public_key).pseudonym
                document, detail = made(standing, actor)
        except Refusal as refusal:
            detail = {"wanted": outcome, "id": id[:80], "why": refusal.detail[:120]}
            digest = self.trust().digest
            self.journal.note(
                Entry(type=ENTRY, outcome=refusal.code, actor=actor, trust_digest=digest, detail=detail)
            ).result()
            raise

        def change(cursor: Cursor, index: int) -> None:
            also(cursor, index)
            index_decision(document.id, outcome)(cursor, index)

        index = self._note(actor, outcome, document.id, detail, change)
        # Judged once more, at its place in the log: somebody may have decided otherwise in between.
        refused = next((trouble for trouble in self._now().troubles if trouble.entry == index), None)
        if refused is not None:
            raise Refusal(refused.code, refused.detail)
        return document

    def _note(self, actor: str, outcome: str, id: str, detail: Detail, change: Change) -> int:
        grant = id if id.startswith("g-") else ""
        digest = self.trust().digest
        entry = Entry(type=ENTRY, outcome=outcome, actor=actor, grant=grant, trust_digest=digest, detail=detail)
        try:
            return self._audited(entry, change)
        except CONFLICTS as problem:  # somebody decided the same in between
            raise Refusal("decision.not_proposed", id) from problem

    def _audited(self, entry: Entry, change: Change) -> int:
        """Make a change together with its entry, and give its number; a change refused gets an entry of its own."""
        try:
            return self.journal.note(entry, change).result().index
        except Refusal as refusal:
            detail = {"wanted": entry.outcome, "why": refusal.detail[:120]}
            self.journal.note(msgspec.structs.replace(entry, outcome=refusal.code, detail=detail)).result()
            raise

    # How what stands is read.

    def _now(self) -> Standing:
        self._current()
        return self._standing

    def _current(self) -> _Snapshot:
        with self._lock:
            if self._broken:
                raise AuditBroken(self._broken)
            version, known = self._connection.execute(_VERSION).fetchone(), self._snapshot
            answers = self._revocations.version
            changed = (version, answers) != (known.version, known.answers)
            # What waits for its head is looked at again under each new one: who was told that it stands may use it.
            if changed or not known.complete:
                head = self.journal.checkpoint()
                if changed or head != self._looked_under:
                    self._looked_under = head
                    try:
                        self._snapshot = self._load(version, answers)
                    except AuditBroken as problem:
                        self._broken = str(problem)
                        raise
            return self._snapshot

    def _load(self, version: tuple[int, int | None], answers: int) -> _Snapshot:
        """Take what was decided since; what is not under a signed head yet waits until it is."""
        complete = True
        for index, id, outcome in self._undecided():
            decided = self._looked_at(index, id, outcome)
            if decided == "later":
                complete = False
                break
            self._read_up_to = index
            if isinstance(decided, Decided):
                self._standing.take(decided)
            else:
                self._standing.troubles.append(Trouble(index, decided, id))
        in_force = [one.grant for one in self._standing.grants.values() if not one.revoked_at]
        of_bureau: dict[str, list[Grant]] = {}
        for grant in sorted(in_force, key=lambda grant: grant.id):
            of_bureau.setdefault(grant.bureau, []).append(grant)
        trust = TrustList(self._revocations.applied(self._standing.certificates.values()))
        grants = {name: tuple(theirs) for name, theirs in of_bureau.items()}
        return _Snapshot(version, answers, trust, grants, complete)

    def _undecided(self) -> list[tuple[int, str, str]]:
        """Rows that find decisions not taken yet, in the order of the log. At the start also what the log has and no
        row finds: whoever took the row away wanted a revocation not to act."""
        rows: list[tuple[int, str, str]] = self._connection.execute(_DECISIONS, (self._read_up_to,)).fetchall()
        if self._read_up_to == _BEFORE_ALL:
            rows += [(index, "", outcome) for index, outcome in self._hidden().items()]
        return sorted(rows)

    def _looked_at(self, index: int, id: str, outcome: str) -> "Decided | str":
        """The decision that a row finds, once its entry is proven; else the code of what is wrong, or `later`.

        What it decided, the entry says and not the row. Raises AuditBroken where an entry that decided has lost its
        detail.
        """
        try:
            proof = self.journal.prove(index)
        except Refusal:
            if outcome == "revoked" and (unproven := self._revocation(index)):
                return unproven  # it only takes away: it does not wait for its head
            return "later" if 0 <= index < self.journal.size() else "decision.no_entry"
        except Exception:  # rows that somebody damaged: whatever reading them trips over, they prove nothing
            return "decision.no_entry"
        try:
            leaf = self._proven(proof)
            if leaf is None or leaf.type != ENTRY or leaf.outcome not in DECIDES:
                return "decision.no_entry"
            if _committed_to(proof, leaf):
                return Decided(index, leaf.time, leaf.outcome, detail_of(index, proof.detail or b""))
        except Exception:  # as above
            return "decision.no_entry"
        # It did decide, and nobody can say what: a revocation perhaps. To go on would be to leave in force what ended.
        raise AuditBroken(f"the detail of entry {index}, by which somebody decided ({leaf.outcome}), is gone")

    def _revocation(self, index: int) -> Decided | None:
        """A revocation whose entry is durable and whose head is not signed."""
        try:
            entry = self.journal.entry(index)
        except Exception:  # as above
            return None
        if entry is None or entry.detail is None or (entry.leaf.type, entry.leaf.outcome) != (ENTRY, "revoked"):
            return None
        return Decided(index, entry.leaf.time, "revoked", entry.detail)

    def _proven(self, proof: EntryProof) -> Leaf | None:
        """The leaf, if it lies under a head that the log's key signed."""
        try:
            head = self.journal.head(proof.checkpoint)
            leaf = leaf_of(proof.index, proof.leaf)
        except (Refusal, AuditBroken):
            return None
        path = list(proof.path)
        if not merkle.verify_inclusion(merkle.leaf_hash(proof.leaf), proof.index, head.size, path, head.root):
            return None
        return leaf

    def _names(self) -> dict[str, str]:
        """Names by pseudonym, of those whom their office commits to; who waits for one is named as the row has it."""
        with self._lock:
            rows: list[_PersonRow] = self._connection.execute(
                "SELECT pseudonym, name, bureau, salt FROM persons"
            ).fetchall()
        offices = self._standing.persons
        return {row[0]: row[1] for row in rows if row[0] not in offices or offices[row[0]].name == _committed(row)}


def index_decision(id: str, outcome: str) -> Change:
    """What goes with the entry of a decision: the row that finds it, and that every process looks again."""

    def change(cursor: Cursor, index: int) -> None:
        cursor.execute("INSERT INTO decisions VALUES (?, ?, ?)", (index, id, outcome))
        cursor.execute("UPDATE registry_version SET version = version + 1")

    return change


def _committed_to(proof: EntryProof, leaf: Leaf) -> bool:
    """Whether salt and detail are there and are what the leaf commits to."""
    if proof.salt is None or proof.detail is None:
        return False
    return commitment(proof.salt, proof.detail) == leaf.detail


def _row(key: OwnKey) -> tuple[str, int, str, str]:
    return key.name, key.first_size, key.key, key.algorithm


def _named(grant: Grant, names: Mapping[str, str]) -> Grant:
    proposed_by, approved_by = (names.get(person, person) for person in (grant.proposed_by, grant.approved_by))
    return msgspec.structs.replace(grant, proposed_by=proposed_by, approved_by=approved_by)


_PersonRow = tuple[str, str, str, bytes]  # pseudonym, name, bureau, salt


def _new_person(name: str, bureau: str) -> _PersonRow:
    """A person not known yet. Raises Refusal `registry.person_unnamed`."""
    if not name.strip():
        raise Refusal("registry.person_unnamed")
    return f"person-{secrets.token_hex(6)}", name, bureau, secrets.token_bytes(SALT_SIZE)


def _committed(row: _PersonRow) -> str:
    return name_commitment(bytes(row[3]), _plain(str(row[1])))


def _plain(name: str) -> str:
    """A name as it is compared: width, case and blanks do not make a second person."""
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())
