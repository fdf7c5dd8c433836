"""决定 Who is enrolled, who may do what, which mapping counts: told again from entries that persons signed.

A decision is one canonical document (`exchange.decision_documents`). It takes effect as an entry of the log that
carries two signatures over that same document, by two persons whose office it is, neither of whom gains by it; ending
something needs one. Nothing else makes a bureau, a certificate, a person's office, a grant or a mapping: what stands in
any table beside is only for finding.

`Standing` is the fold over those entries, in the order of the log. It is pure: whether an entry lies under a signed
head, its caller has looked at. What does not hold changes nothing and is kept as a trouble, for an officer to see.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

import msgspec

from exchange.decision_documents import (
    APPROVAL,
    CARRYING,
    PROPOSAL,
    REVOCATION,
    ROLE_WORDS,
    AnchorBody,
    Apart,
    Body,
    BoundaryBody,
    Bureau,
    CarryingBody,
    DeliveryBody,
    Document,
    EnrolmentBody,
    EpochBody,
    ErasureBody,
    FoundingBody,
    GrantBody,
    MappingBody,
    PersonBody,
    Revocable,
    RevocationBody,
    Role,
    body_of,
    certificates_in,
    check_anchor,
    check_erasure,
    check_founders,
    check_grant,
    check_paired,
    fingerprint_of,
    founding_digest,
    granted_by,
    named_in,
    shaped,
    unverified_document,
)
from exchange.entry import CITY_TIME, Detail
from exchange.own_keys import epoch_number
from security.authenticate import SIGNS
from security.errors import Refusal
from security.jws import key_named, open_document
from security.keys import PublicKey, load_public_pem, public_key_of, spki
from security.message import EnrolledCertificate, Grant

ENTRY: Final = "decision"
# Outcomes of entries that decide; entries of the same type with any other outcome are refusals.
DECIDES: Final = ("founded", "proposed", "approved", "revoked", "carried_out")

# 三员分立: whose office it is to propose, and whose to approve.
SIGNERS: Final[Mapping[str, tuple[Role, Role]]] = {
    "founding": ("security", "security"),
    "person": ("security", "security"),
    "enrolment": ("security", "security"),
    "grant": ("security", "security"),
    "mapping": ("system", "security"),
    "boundary": ("system", "security"),
    "opening": ("audit", "security"),
    "purge": ("audit", "security"),
    "anchor": ("system", "security"),
    "epoch": ("system", "security"),
}
REVOKES: Final[Role] = "security"
_NOT_THERE: Final[Mapping[Revocable, str]] = {
    "grant": "grant.unknown",
    "certificate": "registry.certificate_unknown",
    "person": "person.unknown",
    "proposal": "decision.not_proposed",
}


class Person(msgspec.Struct, frozen=True):
    """Who holds an office. name: what commits to it; since, until: times of the log; until: empty while it stands."""

    pseudonym: str
    name: str
    bureau: str
    role: Role
    public_key: str
    since: str
    until: str = ""

    @property
    def key(self) -> PublicKey:
        """The key their signatures are checked with."""
        return load_public_pem(self.public_key.encode())


class Proposed(msgspec.Struct, frozen=True):
    """A decision that waits for its second person. by: pseudonym; octets: as signed."""

    document: Document
    octets: str
    by: str


class Granted(msgspec.Struct, frozen=True, gc=False):
    """A grant that was approved, and for how long it stood. approved_at, revoked_at: times of the log, RFC 3339."""

    grant: Grant
    approved_at: str
    revoked_at: str = ""


class Decided(msgspec.Struct, frozen=True):
    """An entry that carries a decision, as it is read from the log."""

    index: int
    time: str
    outcome: str
    detail: Detail


class Carried(msgspec.Struct, frozen=True):
    """A decision over a delivery that was carried out. time: of the entry that says so, RFC 3339."""

    kind: str
    body: DeliveryBody | ErasureBody
    time: str


class EpochBegun(msgspec.Struct, frozen=True):
    """An epoch that was opened. size, root: of the last head before it; root in hex."""

    body: EpochBody
    size: int
    root: str


KeyChange = AnchorBody | EpochBegun


class Trouble(msgspec.Struct, frozen=True):
    """An entry, or a row beside the log, that claims to decide and does not hold. entry: its number, if it has one."""

    entry: int | None
    code: str
    detail: str


class Standing:
    """What stands after some decisions, taken in the order of the log.

    origin:   of the bus; a document for another one decides nothing here
    founding: SHA-256 of the founding document that is trusted, hex; any other founds nothing
    """

    def __init__(self, origin: str, founding: str) -> None:
        self._origin, self._founding = origin, founding
        self.persons: dict[str, Person] = {}
        self.bureaus: dict[str, Bureau] = {}
        self.certificates: dict[str, EnrolledCertificate] = {}
        self.grants: dict[str, Granted] = {}
        self.proposals: dict[str, Proposed] = {}
        self.mappings: dict[str, str] = {}
        self.boundaries: dict[str, list[BoundaryBody]] = {}  # by layer, in the order in which they were decided
        self.deliveries: dict[str, tuple[str, DeliveryBody | ErasureBody]] = {}  # openings and purges, by id
        self.anchors: dict[str, AnchorBody] = {}  # changes of the bus's own keys that wait to be carried out, by id
        self.epochs: dict[str, EpochBody] = {}  # new epochs that wait to be opened, by id
        self.key_changes: list[tuple[int, KeyChange]] = []  # those carried out, each with its entry
        self.carried: dict[str, Carried] = {}
        self.troubles: list[Trouble] = []
        self.entries: dict[str, list[int]] = {}  # by bureau: those that decide over its certificates and grants
        self._by_key: dict[str, str] = {}
        self._decided: set[str] = set()

    def take(self, decided: Decided) -> None:
        """Take the next decision. What does not hold changes nothing, and stands among the troubles."""
        takes: dict[str, Callable[[Decided], None]] = {
            "founded": self._found,
            "proposed": self._propose,
            "approved": self._approve,
            "revoked": self._revoke,
            "carried_out": self._carry_out,
        }
        try:
            takes[decided.outcome](decided)
            for bureau in self._concerned(decided):
                self.entries.setdefault(bureau, []).append(decided.index)
        except Exception as problem:  # an entry that trips its reader decides nothing, and must not stop the others
            code = problem.code if isinstance(problem, Refusal) else "decision.not_readable"
            detail = problem.detail if isinstance(problem, Refusal) else type(problem).__name__
            self.troubles.append(Trouble(decided.index, code, detail))

    # What may be signed. The same rules before an entry is made, and whenever it is read again.

    def check_proposal(self, document: Document, by: str) -> None:
        """Return if this person may propose it and it could take effect. Raises Refusal."""
        body = body_of(document)
        self._holds(by, SIGNERS[document.kind][0])
        self._gains_nothing(document, body, by)
        self._could_be(document, body)

    def check_approval(self, document: Document, proposer: str, by: str) -> None:
        """Return if this second person may approve what the first proposed. Raises Refusal."""
        self.check_proposal(document, proposer)
        if proposer == by:
            raise Refusal("decision.same_person", document.id)
        self._holds(by, SIGNERS[document.kind][1])
        self._gains_nothing(document, body_of(document), by)

    def check_revocation(self, body: RevocationBody, by: str) -> None:
        """Return if this person may end it, and it has not ended. Raises Refusal."""
        self._holds(by, REVOKES)
        if not self._stands(body):
            raise Refusal(_NOT_THERE[body.what], body.of[:80])
        if body.what == "person" and self._last(body.of):
            raise Refusal("role.last_security", body.of[:80])

    def check_carrying(self, id: str, by: str, kind: str | None = None) -> DeliveryBody | ErasureBody:
        """The delivery over which two persons decided, if this person may carry that out, and it was not yet."""
        found = self.deliveries.get(id)
        if found is None or (kind is not None and found[0] != kind):
            raise Refusal("decision.not_in_force", id[:80])
        self._holds(by, SIGNERS[found[0]][0])
        return found[1]

    def check_anchor(self, id: str, by: str) -> AnchorBody:
        """The change of a key on which two persons decided, if this person may carry it out, and it was not yet."""
        found = self.anchors.get(id)
        if found is None:
            raise Refusal("decision.not_in_force", id[:80])
        self._holds(by, SIGNERS["anchor"][0])
        return found

    def check_epoch(self, id: str, by: str) -> EpochBody:
        """The epoch on which two persons decided, if this person may open it, and it is the next."""
        found = self.epochs.get(id)
        if found is None:
            raise Refusal("decision.not_in_force", id[:80])
        self._holds(by, SIGNERS["epoch"][0])
        self._is_next(found)
        return found

    def check_apart_proposal(self, apart: Apart, by: str) -> Document:
        """The epoch that one person proposed beside the log, if this second one may approve it. Raises Refusal."""
        document, proposer = self._signed(apart.proposal, PROPOSAL)
        if document.kind != "epoch":
            raise Refusal("decision.not_readable", document.kind[:40])
        self.check_approval(document, proposer, by)
        return document

    def check_agreed(self, signed: Apart) -> Document:
        """What two persons signed, if both may and it could take effect now. Raises Refusal."""
        return self._agreed(signed.proposal, signed.approval)[0]

    def check_apart(self, apart: Apart, id: str, by: str) -> EpochBody:
        """The epoch on which two persons decided beside the log, if this person may open it, and it is the next."""
        if not apart.approval:
            raise Refusal("decision.not_in_force", id[:80])
        document, _, _ = self._agreed(apart.proposal, apart.approval)
        body = body_of(document)
        if not isinstance(body, EpochBody) or document.id != id:
            raise Refusal("decision.not_in_force", id[:80])
        self._holds(by, SIGNERS["epoch"][0])
        return body

    def next_log(self, known_log: str = "") -> str:
        """The log's name in the checkpoints of the next epoch. known_log: in those of one that was lost, perhaps."""
        names = [self._origin, known_log, *(one.body.log for _, one in self.key_changes if isinstance(one, EpochBegun))]
        return f"{self._origin}/{1 + max(epoch_number(name, self._origin) or 0 for name in names)}"

    def keys_had(self) -> set[str]:
        """Every key that took the place of another."""
        found: set[str] = set()
        for _, one in self.key_changes:
            found |= {one.body.key.key, one.body.answer.key} if isinstance(one, EpochBegun) else {one.key}
        return found

    def person_of(self, key: PublicKey) -> str:
        """The pseudonym of the person whose key this is, in office or not. Raises Refusal `person.unknown`."""
        try:
            return self._by_key[fingerprint_of(key)]
        except KeyError as problem:
            raise Refusal("person.unknown", fingerprint_of(key)[:16]) from problem

    def office_of(self, key: PublicKey) -> Person:
        """The person whose key this is, if in office. Raises Refusal `person.unknown`."""
        person = self.persons[self.person_of(key)]
        # A key that its owner gave up, for a new one perhaps, opens nothing any more.
        if person.until or self._key_of(person.pseudonym) != fingerprint_of(key):
            raise Refusal("person.unknown", person.pseudonym)
        return person

    def grant_of(self, proposed: Proposed) -> Grant:
        """The grant that a proposal of one would be."""
        body = msgspec.convert(proposed.document.body, GrantBody)
        return granted_by(proposed.document.id, body, proposed.by, "")

    # Each outcome.

    def _found(self, decided: Decided) -> None:
        proposal, approval = str(decided.detail["proposal"]), str(decided.detail["approval"])
        if self.persons or founding_digest(proposal) != self._founding:
            raise Refusal("decision.founding_other")
        body = msgspec.convert(unverified_document(proposal)["body"], FoundingBody)
        check_founders(body)
        named = {
            fingerprint_of(load_public_pem(p.public_key.encode())): p for p in body.persons if p.role == "security"
        }
        signed = [named[key_named(octets.encode())] for octets in (proposal, approval)]
        if signed[0] == signed[1]:
            raise Refusal("decision.same_person", "founding")
        for octets, person, typ in zip((proposal, approval), signed, (PROPOSAL, APPROVAL), strict=True):
            document = open_document(octets.encode(), load_public_pem(person.public_key.encode()), typ)
            if document != unverified_document(proposal) or document["origin"] != self._origin:
                raise Refusal("decision.other_document", "founding")
        for one in body.persons:
            self._appoint(one, decided.time)
        self.mappings.update(body.mappings)

    def _propose(self, decided: Decided) -> None:
        octets = str(decided.detail["proposal"])
        document, by = self._signed(octets, PROPOSAL)
        if document.id in self.proposals:  # what a second person has looked at is not exchanged for something else
            raise Refusal("decision.not_proposed", document.id)
        self.check_proposal(document, by)
        self.proposals[document.id] = Proposed(document, octets, by)

    def _approve(self, decided: Decided) -> None:
        document, first, second = self._agreed(str(decided.detail["proposal"]), str(decided.detail["approval"]))
        self._effect(document, first, second, decided.time)
        self.proposals.pop(document.id, None)
        self._decided.add(document.id)

    def _agreed(self, proposal: str, approval: str) -> tuple[Document, str, str]:
        """What two persons signed who may decide it, and who they are."""
        (document, first), (approved, second) = self._signed(proposal, PROPOSAL), self._signed(approval, APPROVAL)
        if approved != document:
            raise Refusal("decision.other_document", document.id)
        self.check_approval(document, first, second)
        return document, first, second

    def _revoke(self, decided: Decided) -> None:
        octets = str(decided.detail["revocation"])
        document, by = self._signed(octets, REVOCATION)
        body = body_of(document)
        if not isinstance(body, RevocationBody) or document.id in self._decided:
            raise Refusal("decision.not_readable", document.id)
        self.check_revocation(body, by)
        self._decided.add(document.id)
        if body.what == "grant":
            self.grants[body.of] = msgspec.structs.replace(self.grants[body.of], revoked_at=decided.time)
        elif body.what == "certificate":
            ended = datetime.fromisoformat(decided.time)
            self.certificates[body.of] = msgspec.structs.replace(self.certificates[body.of], revoked_at=ended)
        elif body.what == "person":
            self.persons[body.of] = msgspec.structs.replace(self.persons[body.of], until=decided.time)
            theirs = [id for id, proposed in self.proposals.items() if proposed.by == body.of]
            self._decided.update(theirs)
            for id in theirs:
                del self.proposals[id]
        else:
            self._decided.add(body.of)
            del self.proposals[body.of]

    def _carry_out(self, decided: Decided) -> None:
        octets = str(decided.detail["carrying"])
        document, by = self._signed(octets, CARRYING)
        body = body_of(document)
        if not isinstance(body, CarryingBody):
            raise Refusal("decision.not_readable", document.id)
        # After a loss no entry of the former log could carry what two persons decided: this one does.
        within = "proposal" in decided.detail
        if within or body.of in self.epochs:
            apart = Apart(str(decided.detail.get("proposal", "")), str(decided.detail.get("approval", "")))
            epoch = self.check_apart(apart, body.of, by) if within else self.check_epoch(body.of, by)
            if body.size != decided.index:
                raise Refusal("epoch.not_next", f"{epoch.log} at {decided.index}, not {body.size}")
            # Keys that were decided on and not in force yet lay beside the one that was stolen.
            self.epochs.clear()
            self.anchors.clear()
            self._decided.add(body.of)
            self.key_changes.append((decided.index, EpochBegun(epoch, body.size, body.root)))
            return
        if body.of in self.anchors:
            change = self.check_anchor(body.of, by)
            del self.anchors[body.of]
            self.key_changes.append((decided.index, change))
            return
        self.check_carrying(body.of, by)
        self.carried[body.of] = Carried(*self.deliveries.pop(body.of), decided.time)

    def _concerned(self, decided: Decided) -> set[str]:
        """Whose certificates or grants an entry decides over: a bureau must hear of what others do in its name."""
        said = next((decided.detail[name] for name in ("proposal", "revocation") if name in decided.detail), None)
        body = body_of(shaped(unverified_document(str(said)))) if said is not None else None
        if isinstance(body, EnrolmentBody):
            return {body.bureau}
        if isinstance(body, GrantBody):
            return named_in(body)
        if isinstance(body, RevocationBody) and body.what == "certificate":
            return {self.certificates[body.of].bureau}
        if isinstance(body, RevocationBody) and body.what == "grant":
            return named_in(self.grants[body.of].grant)
        return set()

    # Effects.

    def _effect(self, document: Document, first: str, second: str, time: str) -> None:
        body = body_of(document)
        if isinstance(body, PersonBody):
            self._appoint(body, time)
        elif isinstance(body, EnrolmentBody):
            self.bureaus[body.bureau] = Bureau(body.bureau, body.title, body.title_zh, body.role)
            self.certificates |= {c.fingerprint: c for c in certificates_in(body)}
        elif isinstance(body, GrantBody):
            self.grants[document.id] = Granted(granted_by(document.id, body, first, second), time)
        elif isinstance(body, MappingBody):
            self.mappings[body.feed] = body.digest
        elif isinstance(body, BoundaryBody):
            self.boundaries.setdefault(body.layer, []).append(body)
        elif isinstance(body, (DeliveryBody, ErasureBody)):
            self.deliveries[document.id] = (document.kind, body)
        elif isinstance(body, AnchorBody):
            self.anchors[document.id] = body
        elif isinstance(body, EpochBody):
            self.epochs[document.id] = body

    def _appoint(self, body: PersonBody, time: str) -> None:
        key = load_public_pem(body.public_key.encode())
        self.persons[body.person] = Person(body.person, body.name, body.bureau, body.role, body.public_key, time)
        self._by_key[fingerprint_of(key)] = body.person

    # Rules.

    def _holds(self, person: str, role: Role) -> None:
        """三员分立: an act belongs to one office, and the person holds it now."""
        found = self.persons.get(person)
        if found is None or found.until or found.role != role:
            raise Refusal("role.not_held", f"{role} {ROLE_WORDS[role]}")

    def _gains_nothing(self, document: Document, body: Body, by: str) -> None:
        if isinstance(body, PersonBody):
            if by == body.person or fingerprint_of(load_public_pem(body.public_key.encode())) == self._key_of(by):
                raise Refusal("decision.own_gain", document.id)
            return
        concerned = {getattr(body, "bureau", None), getattr(body, "sender", None)}
        if isinstance(body, GrantBody) and body.action in ("carry", "on_behalf_of"):
            concerned.add(body.target)
        if self.persons[by].bureau in concerned:
            raise Refusal("decision.own_bureau", self.persons[by].bureau)

    def _could_be(self, document: Document, body: Body) -> None:
        if document.id in self._decided:
            raise Refusal("decision.not_proposed", document.id)
        if isinstance(body, PersonBody):
            self._could_hold(body)
        elif isinstance(body, EnrolmentBody):
            self._could_enrol(certificates_in(body))
        elif isinstance(body, GrantBody):
            if body.bureau not in self.bureaus:
                raise Refusal("registry.bureau_unknown", body.bureau)
            check_grant(body)
        elif isinstance(body, ErasureBody):
            check_erasure(body, datetime.fromisoformat(document.at).astimezone(CITY_TIME).date())
        elif isinstance(body, AnchorBody):
            self._could_sign(body)
        elif isinstance(body, EpochBody):
            if (body.key.name, body.answer.name) != ("log", "answer"):
                raise Refusal("anchor.key_invalid", "epoch")
            self._could_sign(body.key)
            self._could_sign(body.answer)
            self._is_next(body)

    def _could_sign(self, body: AnchorBody) -> None:
        check_anchor(body)
        if body.key in self.keys_had():
            raise Refusal("anchor.key_known", body.key[:16])

    def _is_next(self, body: EpochBody) -> None:
        expected = self.next_log(body.known_log)
        if body.log != expected:
            raise Refusal("epoch.not_next", f"{body.log[:80]}, not {expected}")

    def _could_enrol(self, certificates: list[EnrolledCertificate]) -> None:
        """Each once, for one use; and none of a key that was revoked under another certificate. An encryption
        certificate comes together with the signing one whose other half it is."""
        ended = {spki(public_key_of(c.der)) for c in self.certificates.values() if c.revoked_at is not None}
        known = set(self.certificates)
        for certificate in certificates:
            if certificate.fingerprint in known:
                raise Refusal("registry.certificate_known", certificate.fingerprint)
            if spki(public_key_of(certificate.der)) in ended:
                raise Refusal("registry.key_revoked", certificate.fingerprint)
            known.add(certificate.fingerprint)
        signing = [c for c in certificates if c.use in SIGNS]
        for encryption in (c for c in certificates if c.use == "encryption"):
            check_paired(encryption, signing)

    def _last(self, person: str) -> bool:
        """Whether without this person nobody were left who could decide on rights, or end one."""
        others = (p for p in self.persons.values() if p.role == REVOKES and not p.until and p.pseudonym != person)
        return self.persons[person].role == REVOKES and next(others, None) is None

    def _could_hold(self, body: PersonBody) -> None:
        """One office a person, one person a key. An office is given up before another is taken."""
        held = self.persons.get(body.person)
        by_key = self._by_key.get(fingerprint_of(load_public_pem(body.public_key.encode())))
        of_key = self.persons[by_key] if by_key else None
        if any(one is not None and not one.until for one in (held, of_key)):
            raise Refusal("role.held_already", body.person)
        if of_key is not None and of_key.pseudonym != body.person:
            raise Refusal("role.held_already", of_key.pseudonym)

    def _stands(self, body: RevocationBody) -> bool:
        if body.what == "grant":
            return body.of in self.grants and not self.grants[body.of].revoked_at
        if body.what == "certificate":
            return body.of in self.certificates and self.certificates[body.of].revoked_at is None
        if body.what == "person":
            return body.of in self.persons and not self.persons[body.of].until
        return body.of in self.proposals

    # Reading.

    def _key_of(self, person: str) -> str:
        return fingerprint_of(self.persons[person].key)

    def _signed(self, octets: str, typ: str) -> tuple[Document, str]:
        """The document, and who signed it, once the signature of the person it names holds."""
        kid = key_named(octets.encode())
        by = self._by_key.get(kid)
        if by is None:
            raise Refusal("person.unknown", kid[:16])
        document = shaped(open_document(octets.encode(), self.persons[by].key, typ))
        if (document.v, document.origin) != (1, self._origin):
            raise Refusal("decision.other_origin", document.origin[:80])
        return document, by
