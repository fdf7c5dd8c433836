"""What persons sign to decide: the documents, what each may say at all, and their signatures.

A decision is one canonical document, signed as it is by two persons, or by one where it only ends something. What one
may say by itself is looked at here; whether these persons may, and what stands because of it, in `exchange.decisions`.
"""

import base64
import hashlib
import math
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from itertools import chain
from typing import Any, Final, Literal

import msgspec

from exchange.entry import Detail, instant
from exchange.own_keys import Changeable
from exchange.rights import ATTRIBUTES, is_ring
from security.checkpoint import log_key_of
from security.errors import Refusal
from security.jws import jcs, sign_document
from security.keys import Algorithm, PublicKey, SigningKey, fits, kind_of, load_public_pem, public_key_of, spki
from security.message import EVERYWHERE, Action, Area, EnrolledCertificate, Grant, Use
from security.pki import check_pair, enrolled

PROPOSAL: Final = "yt-proposal+jws"
APPROVAL: Final = "yt-approval+jws"
REVOCATION: Final = "yt-revocation+jws"
CARRYING: Final = "yt-carrying+jws"

Role = Literal["system", "security", "audit"]
Kind = Literal["founding", "person", "enrolment", "grant", "mapping", "opening", "purge", "anchor", "epoch", "boundary"]
Reason = Literal["spill", "retention", "recall", "personal"]
Revocable = Literal["person", "certificate", "grant", "proposal"]
ROLE_WORDS: Final[Mapping[str, str]] = {"system": "系统管理员", "security": "安全管理员", "audit": "审计管理员"}

# 网络安全法 Art. 21: logs are kept for six months at least, which are up to 184 days.
FEWEST_DETAIL_DAYS: Final = 184
FEWEST_SECURITY: Final = 2  # with one alone nothing could ever be decided


class PersonBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An office (岗位).

    person:     pseudonym; name: what commits to the name, hex of SHA-256(salt ‖ name in its plain spelling); name and
                salt lie beside, outside the log
    public_key: PEM SubjectPublicKeyInfo, which names them in signatures
    """

    person: str
    name: str
    bureau: str
    role: Role
    public_key: str


class FoundingBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """With whom a bus begins, and which mapping of each feed counts (SHA-256 of its file, hex)."""

    persons: list[PersonBody]
    mappings: dict[str, str]


class CertificateBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """der: base64."""

    use: Use
    der: str


class EnrolmentBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A bureau, or new titles or further certificates of one."""

    bureau: str
    title: str
    title_zh: str
    role: str
    certificates: list[CertificateBody]


class GrantBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A grant as it is signed; numbers that are no integers are text."""

    bureau: str
    action: Action
    target: str
    classes: list[str]
    valid_from: str
    valid_until: str
    purpose: str
    basis: str
    districts: list[str] = []
    cells: list[str] = []
    polygon: list[tuple[str, str]] = []
    attributes: list[str] = []
    map_area_km2: int = 0


class MappingBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A release of a feed's file. bureau: whose feed it is; digest: SHA-256, hex."""

    feed: str
    bureau: str
    digest: str


class BoundaryBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version of a layer by whose areas everything is placed. bureau: who delivered it; digest: of it, hex."""

    layer: str
    version: int
    bureau: str
    digest: str


class DeliveryBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A delivery whose original bytes are to be opened; and why."""

    sender: str
    message_id: str
    ground: str


class ErasureBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be erased, why, and on which of the grounds that there are.

    sender, message_id: the delivery; empty for retention, which covers all that is older than two days, YYYY-MM-DD:
    evidence_before:    original bytes of deliveries that came before it
    details_before:     details of entries that were made before it
    """

    sender: str
    message_id: str
    ground: str
    reason: Reason = "spill"
    evidence_before: str = ""
    details_before: str = ""


class AnchorBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key of the bus's own that takes the place of the one in force.

    algorithm:   by which it signs
    key:         of the log its octets, of answers the SHA-256 of the certificate; hex
    certificate: DER, base64; of answers
    """

    name: Changeable
    algorithm: Algorithm
    key: str
    certificate: str
    ground: str


class EpochBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new epoch of the log, because a key of the last one is in strange hands, or because entries were lost.

    log:         its name in checkpoints: the bus's own, a slash, and the number of the epoch
    key, answer: of the log, and of receipts and answers
    known_size, known_root: of the largest head of the last epoch that somebody outside was shown; 0 and empty where
                 none is known that this log has not; root in hex
    known_log:   the name in it; of a lost epoch, the new one is numbered after that one
    """

    log: str
    key: AnchorBody
    answer: AnchorBody
    ground: str
    known_size: int = 0
    known_root: str = ""
    known_log: str = ""


class RevocationBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ends. of: pseudonym, fingerprint, or id of the grant or proposal."""

    what: Revocable
    of: str
    ground: str


class CarryingBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which decision was carried out. size, root: where it opens an epoch, of the last head before it; root in hex."""

    of: str
    size: int = 0
    root: str = ""


Body = (
    CarryingBody
    | FoundingBody
    | PersonBody
    | EnrolmentBody
    | GrantBody
    | MappingBody
    | BoundaryBody
    | DeliveryBody
    | ErasureBody
    | AnchorBody
    | EpochBody
    | RevocationBody
)
_BODIES: Final[Mapping[str, type[Body]]] = {
    "founding": FoundingBody,
    "person": PersonBody,
    "enrolment": EnrolmentBody,
    "grant": GrantBody,
    "mapping": MappingBody,
    "boundary": BoundaryBody,
    "opening": DeliveryBody,
    "purge": ErasureBody,
    "anchor": AnchorBody,
    "epoch": EpochBody,
    "revocation": RevocationBody,
    "carrying": CarryingBody,
}


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is signed. at: RFC 3339, UTC; body: by kind."""

    v: int
    origin: str
    kind: str
    id: str
    at: str
    body: dict[str, Any]


class Apart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A decision as it lies beside the log: a new epoch of one that lost entries and takes none, whose first entry will
    carry it; or an erasure, for after a restore. proposal, approval: as signed; empty until the second person has."""

    proposal: str
    approval: str = ""


class Officer(msgspec.Struct, frozen=True):
    """A person who decides, with the key they sign with; the name stays out of documents and log."""

    name: str
    key: SigningKey


class Bureau(msgspec.Struct, frozen=True):
    """A partner organisation. code: lower-case letters, digits, `-`; role: `supplier`, `case system`, `officer` …"""

    code: str
    title: str
    title_zh: str
    role: str


def name_commitment(salt: bytes, plain_name: str) -> str:
    """What an office says of a name that lies elsewhere: hex of SHA-256(salt ‖ name)."""
    return hashlib.sha256(salt + plain_name.encode()).hexdigest()


def fingerprint_of(public_key: PublicKey) -> str:
    """By what a person's key is named: SHA-256 of its SubjectPublicKeyInfo, lower-case hex."""
    return hashlib.sha256(spki(public_key)).hexdigest()


def founding_digest(proposal: str) -> str:
    """By what a founding is known to whoever trusts it: SHA-256 of its canonical document, hex."""
    return hashlib.sha256(jcs(unverified_document(proposal))).hexdigest()


def proposal_of(document: Document, by: Officer, at: datetime) -> str:
    """The document as its first person signs it."""
    return sign_document(msgspec.to_builtins(document), PROPOSAL, by.key, at).decode()


def approval_of(document: Document, by: Officer, at: datetime) -> str:
    """The same document as its second person signs it."""
    return sign_document(msgspec.to_builtins(document), APPROVAL, by.key, at).decode()


def revocation_of(document: Document, by: Officer, at: datetime) -> str:
    """What ends something, signed by one person."""
    return sign_document(msgspec.to_builtins(document), REVOCATION, by.key, at).decode()


def carrying_of(document: Document, by: Officer, at: datetime) -> str:
    """That a decision was carried out, signed by who did it."""
    return sign_document(msgspec.to_builtins(document), CARRYING, by.key, at).decode()


def document_of(origin: str, kind: str, id: str, body: Body, at: datetime) -> Document:
    """A document ready to be signed."""
    return Document(1, origin, kind, id, instant(at), msgspec.to_builtins(body))


def body_of_grant(grant: Grant) -> GrantBody:
    """What is signed of a grant: all but its id and who signed."""
    return GrantBody(
        bureau=grant.bureau,
        action=grant.action,
        target=grant.target,
        classes=list(grant.classes),
        valid_from=grant.valid_from,
        valid_until=grant.valid_until,
        purpose=grant.purpose,
        basis=grant.basis,
        districts=list(grant.area.districts),
        cells=list(grant.area.cells),
        polygon=[(repr(longitude), repr(latitude)) for longitude, latitude in grant.area.polygon],
        attributes=list(grant.attributes),
        map_area_km2=grant.map_area_km2,
    )


def enrolment_of(bureau: Bureau, certificates: "list[EnrolledCertificate]") -> EnrolmentBody:
    """What is signed of a bureau."""
    listed = [CertificateBody(c.use, base64.b64encode(c.der).decode()) for c in certificates]
    return EnrolmentBody(bureau.code, bureau.title, bureau.title_zh, bureau.role, listed)


def check_paired(encryption: EnrolledCertificate, signing: list[EnrolledCertificate]) -> None:
    """Return if one of these is its other half. Raises Refusal `certificate.not_a_pair` or as `check_pair` does, of the
    last that was tried."""
    refused = Refusal("certificate.not_a_pair", "no signing certificate beside it")
    for one in signing:
        try:
            return check_pair(one, encryption)
        except Refusal as refusal:
            refused = refusal
    raise refused


def check_founders(body: FoundingBody) -> None:
    """Return if a bus can begin with these persons. Raises Refusal `founding.too_few`, `role.held_already`."""
    if sum(one.role == "security" for one in body.persons) < FEWEST_SECURITY:
        raise Refusal("founding.too_few", f"security ≥ {FEWEST_SECURITY}")
    keys = [fingerprint_of(load_public_pem(one.public_key.encode())) for one in body.persons]
    pseudonyms = [one.person for one in body.persons]
    if len({*keys}) < len(keys) or len({*pseudonyms}) < len(pseudonyms):
        raise Refusal("role.held_already", "founding")


def check_anchor(body: AnchorBody) -> None:
    """Return if a key is what its decision says. Raises Refusal `anchor.key_invalid`."""
    try:
        if body.name == "log":
            good = body.algorithm in ("EdDSA", "SM2") and not body.certificate
            log_key_of("SM2" if body.algorithm == "SM2" else "EdDSA", bytes.fromhex(body.key))
        else:
            der = base64.b64decode(body.certificate, validate=True)
            good = hashlib.sha256(der).hexdigest() == body.key
            good = good and fits(kind_of(public_key_of(der)), body.algorithm)
    except (ValueError, Refusal) as problem:
        raise Refusal("anchor.key_invalid", body.name) from problem
    if not good:
        raise Refusal("anchor.key_invalid", body.name)


def bears_on_keys(outcome: str, detail: Detail) -> bool:
    """Whether a decision is among those that a change of the bus's keys rests on: offices, and changes."""
    if outcome == "approved":
        return unverified_document(str(detail["proposal"]))["kind"] in ("person", "anchor", "epoch")
    return outcome == "founded" or "key" in detail or (outcome == "revoked" and detail.get("what") == "person")


def check_grant(body: GrantBody) -> None:
    """Return if a grant says what it can mean. Raises Refusal `grant.days_invalid`, `grant.attribute_unknown`,
    `grant.area_invalid`, `grant.limits_not_of_action`."""
    if not days_hold(body.valid_from, body.valid_until):
        raise Refusal("grant.days_invalid", f"{body.valid_from} – {body.valid_until}")
    unknown = [name for name in body.attributes if name not in ATTRIBUTES]
    if unknown:
        raise Refusal("grant.attribute_unknown", ", ".join(unknown)[:120])
    try:
        area = area_of(body)
    except ValueError as problem:
        raise Refusal("grant.area_invalid") from problem
    finite = all(map(math.isfinite, chain.from_iterable(area.polygon)))
    if area.polygon and not (finite and is_ring(area)):
        raise Refusal("grant.area_invalid", f"{len(area.polygon)} corners")
    limited = body.classes or body.attributes or body.map_area_km2 or area != EVERYWHERE
    if body.action in ("carry", "on_behalf_of") and limited:  # what may be sent, the grant to push says
        raise Refusal("grant.limits_not_of_action", body.action)


def check_erasure(body: ErasureBody, today: date) -> None:
    """Return if it says what it can mean: one delivery, or by retention what is older than it may be.

    Raises Refusal `erasure.not_meant`, `erasure.too_young`.
    """
    days = body.evidence_before, body.details_before
    named = bool(body.sender and body.message_id)
    if named == (body.reason == "retention") or (body.reason != "retention" and any(days)):
        raise Refusal("erasure.not_meant", body.reason)
    if body.reason == "retention":
        if not all(days_hold(day, day) for day in days):
            raise Refusal("erasure.not_meant", f"{days[0]} / {days[1]}"[:80])
        if date.fromisoformat(body.details_before) > today - timedelta(days=FEWEST_DETAIL_DAYS):
            raise Refusal("erasure.too_young", body.details_before)


def area_of(body: GrantBody) -> Area:
    """The area of a grant as it is signed. Raises ValueError where a corner is no number."""
    polygon = tuple((float(longitude), float(latitude)) for longitude, latitude in body.polygon)
    return Area(tuple(body.districts), tuple(body.cells), polygon)


def days_hold(valid_from: str, valid_until: str) -> bool:
    """Whether two texts are days, YYYY-MM-DD, and in order."""
    try:
        first, last = date.fromisoformat(valid_from), date.fromisoformat(valid_until)
    except ValueError:
        return False
    return (first.isoformat(), last.isoformat()) == (valid_from, valid_until) and first <= last


def named_in(grant: Grant | GrantBody) -> set[str]:
    """Who gets a grant, and the bureau in whose name it lets them speak, or whose messages carry."""
    return {grant.bureau, *([grant.target] if grant.action in ("carry", "on_behalf_of") else [])}


def unverified_document(octets: str) -> dict[str, Any]:
    """The document inside a signed one, unverified: for what is known by its digest, or verified later."""
    try:
        outer = msgspec.json.decode(octets, type=dict[str, str])
        text = outer["payload"]
        decoded = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return msgspec.json.decode(decoded, type=dict[str, Any])
    except (msgspec.MsgspecError, KeyError, ValueError) as problem:
        raise Refusal("decision.not_readable") from problem


def document_apart(apart: Apart) -> Document:
    """What somebody proposed beside the log, unverified. Raises Refusal `decision.not_readable`."""
    return shaped(unverified_document(apart.proposal))


def shaped(signed: dict[str, Any]) -> Document:
    """The document in what a signature covers. Raises Refusal `decision.not_readable`."""
    try:
        return msgspec.convert(signed, Document)
    except msgspec.ValidationError as problem:
        raise Refusal("decision.not_readable") from problem


def certificates_in(body: EnrolmentBody) -> list[EnrolledCertificate]:
    """The certificates that it enrols. Raises Refusal `decision.not_readable`, or as `enrolled` does."""
    try:
        return [enrolled(base64.b64decode(one.der), body.bureau, one.use) for one in body.certificates]
    except ValueError as problem:
        raise Refusal("decision.not_readable", "certificate") from problem


def granted_by(id: str, body: GrantBody, proposed_by: str, approved_by: str) -> Grant:
    """The grant that these two persons give by it."""
    return Grant(
        id=id,
        bureau=body.bureau,
        action=body.action,
        target=body.target,
        classes=tuple(body.classes),
        valid_from=body.valid_from,
        valid_until=body.valid_until,
        purpose=body.purpose,
        basis=body.basis,
        proposed_by=proposed_by,
        approved_by=approved_by,
        area=area_of(body),
        attributes=tuple(body.attributes),
        map_area_km2=body.map_area_km2,
    )


def body_of(document: Document) -> Body:
    """What a document decides. Raises Refusal `decision.not_readable`."""
    try:
        return msgspec.convert(document.body, _BODIES[document.kind])
    except (msgspec.ValidationError, KeyError) as problem:
        raise Refusal("decision.not_readable", document.kind[:40]) from problem
