"""What an evidence bundle proves, row by row, with nothing of the operator's but the trust anchors (ADR 30).

Every row is computed for itself, from the octets of the parts: what the bus says of a part is believed of none. A row
that cannot be computed is missing; nothing is taken to hold because another row does.
"""

import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from hashlib import sha256
from typing import Any, Final, Literal

import msgspec

from exchange.bundle_heads import Heads
from exchange.bundle_original import original_of
from exchange.bundle_parts import (
    NUMBER,
    ROWS,
    Findings,
    Proven,
    Row,
    anchor_der,
    day_of,
    detail_of,
    is_among,
    named,
    nodes_of,
)
from exchange.bundle_standing import Stood, told_again
from exchange.bundle_status import Statuses, names_status
from exchange.decision_documents import ErasureBody
from exchange.decisions import Carried
from exchange.entry import ERASURE, RECALL, Detail, Leaf
from exchange.receipts import VerifiedDocument, verify_receipt
from mappings.load import read_feed
from security import bundle, merkle
from security.anchors import Anchors
from security.authenticate import SIGNS
from security.bundle import MANIFEST, Container, Manifest
from security.chain import authorities_over, check_chain
from security.errors import Refusal
from security.jose import strict_object
from security.jws import jcs
from security.keys import der_of_pem
from security.message import Action, Content, EnrolledCertificate
from security.pki import enrolled, pem_of
from security.wss import SKEW

ANY_AGE: Final = timedelta(days=366)  # of an envelope whose feed's file, which would say less, is not there
LONGEST_INTAKE: Final = timedelta(hours=1)  # from a delivery's arrival to its entry

_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}")
_PARTS: Final = re.compile(
    rf"checkpoint|answer\.json|entries/{NUMBER}\.json|messages/{NUMBER}/(?:envelope|receipt\.json|report\.json)|"
    r"certificates/[0-9a-f]{64}\.pem|status/[0-9a-f]{64}\.(?:crl|ocsp)|mappings/[a-z0-9-]+\.[0-9a-f]{64}\.toml|"
    rf"heads/{NUMBER}\.(?:checkpoint|tsr)|consistency/{NUMBER}\.json"
)
_ERASABLE: Final = re.compile(rf"messages/({NUMBER})/(?:envelope|report\.json)|entries/({NUMBER})\.json")
_WITHHELD: Final = re.compile(rf"messages/{NUMBER}/envelope")
_REPORTED: Final = ("processed", "refused", "held", "recalled")  # outcomes of entries that a report says


class BundleVerdict(msgspec.Struct, frozen=True):
    """All rows, in the order of `ROWS`. made_at, subject, kind: as the manifest says, empty where it does not hold."""

    kind: str
    subject: str
    made_at: str
    rows: tuple[Row, ...]

    @property
    def state(self) -> Literal["holds", "incomplete", "broken"]:
        """Of the whole: broken if any row is, incomplete if any that is demanded is missing or erased."""
        if any(row.state == "broken" for row in self.rows):
            return "broken"
        return "incomplete" if any(row.demanded and row.state != "holds" for row in self.rows) else "holds"

    @property
    def not_asked(self) -> tuple[str, ...]:
        """Names of rows that are missing and that the anchors do not ask for: no pass is plain while there is one."""
        return tuple(row.name for row in self.rows if not row.demanded and row.state == "missing")


class _AnswerClaim(msgspec.Struct, frozen=True):
    """Of a claim, by which delivery it was made."""

    entry: int
    sender: str
    message_id: str


class _Answer(msgspec.Struct, frozen=True):
    """Of an ownership answer, what it is about."""

    component: dict[str, Any]
    on: str | None
    claims: list[_AnswerClaim]


class _Message(msgspec.Struct):
    """A delivery, as far as it is known. said: the detail of its entry, or, where that was erased, of its receipt."""

    entry: Proven
    said: Detail
    receipt: VerifiedDocument | None = None

    @property
    def at(self) -> datetime:
        """When it came, by the bus's clock."""
        return datetime.fromisoformat(str(self.said.get("received_at", self.entry.leaf.time)))


def verify_bundle(content: Content, anchors: Anchors, now: datetime) -> BundleVerdict:
    """What a bundle proves. now: aware; what claims to be later than that is no evidence.

    Raises Refusal `bundle.container` for a file that is no bundle; Misconfigured for anchors that hold no keys.
    """
    # What is wrong with the anchors is nobody's part: it is heard before any part is looked at.
    _ = anchors.log_public_key, anchors.xml_suites, anchors.timestamp_roots
    _ = [witness.public_key for witness in anchors.witnesses], [one.public_key for one in anchors.former_log_keys]
    _ = [*map(anchor_der, anchors.all_certificates)]
    return _Check(bundle.read(content), anchors, now).verdict()


class _Check:
    """One bundle under examination."""

    def __init__(self, container: Container, anchors: Anchors, now: datetime) -> None:
        self._parts, self._damaged = container.parts, container.damaged
        self._anchors, self._now = anchors, now
        self._findings = Findings()
        self._say, self._judged = self._findings.say, self._findings.judged
        self._manifest: Manifest | None = None
        self._heads = Heads(container.parts, anchors, now, self._findings)
        self._entries: dict[int, Proven] = {}
        self._messages: dict[int, _Message] = {}
        self._became: dict[tuple[str, object], list[Proven]] = {}  # of a delivery, the entries that a report says
        self._stood: dict[int, Stood] = {}
        self._carried: Mapping[str, Carried] = {}
        self._statuses = Statuses((), [anchor_der(pem) for pem in anchors.authorities], now)

    def verdict(self) -> BundleVerdict:
        """All rows."""
        # Whatever stands in a part, the verdict is told: each step is judged as a whole, and its parts within it.
        steps: list[tuple[str, Callable[[], None]]] = [
            ("container", self._check_container),
            ("manifest", self._check_manifest),
            ("inclusion", self._check_entries),
            ("inclusion", self._heads.check_others),
            ("witnesses", lambda: self._heads.check_witnesses(self._last)),
            ("timestamp", lambda: self._heads.check_timestamps(self._last, self._entries)),
            ("receipts", self._read_messages),
            ("certificate", self._check_status),
            ("enrolment", self._tell_again),
            ("signature", self._check_messages),
            ("subject", self._check_subject),
            ("erased parts", self._check_erased),
        ]
        for row, step in steps:
            with self._judged(row, "bundle"):
                step()
        rows = tuple(self._findings.row(name, demanded=self._demanded(name)) for name in ROWS)
        said = self._manifest
        return BundleVerdict(said.kind, said.subject, said.made_at, rows) if said else BundleVerdict("", "", "", rows)

    # Container and manifest.

    def _check_container(self) -> None:
        for name in self._damaged:
            self._say("container", "broken", f"{name}: altered since it was packed")
        self._say("container", "holds", f"{len(self._parts)} parts")

    def _check_manifest(self) -> None:
        if MANIFEST not in self._parts:
            self._say("manifest", "broken", f"{MANIFEST}: not there")
            return
        with self._judged("manifest", MANIFEST):
            octets = self._parts[MANIFEST].read()
            manifest = bundle.open_manifest(octets, [*map(anchor_der, self._anchors.all_certificates)])
            if manifest.origin != self._anchors.origin:
                raise Refusal("bundle.manifest", f"of {manifest.origin!r:.80}, not of {self._anchors.origin}")
            made_at = datetime.fromisoformat(manifest.made_at)
            if made_at.tzinfo is None:
                raise ValueError(f"made at {manifest.made_at}, which is no moment")
            self._compare(manifest)
            # Signed in the head's epoch: a key that was stolen in one vouches for nothing of a later one.
            note = self._parts["checkpoint"].read().decode("utf-8", "replace") if "checkpoint" in self._parts else ""
            bundle.open_manifest(octets, [*map(anchor_der, self._anchors.certificates_with(note))])
            self._manifest = manifest
            if made_at > self._now + SKEW:
                self._say("manifest", "broken", f"{MANIFEST}: made at {manifest.made_at}, which is to come")
            self._say("manifest", "holds", f"signed by an answer certificate among the anchors, {manifest.made_at}")

    def _compare(self, manifest: Manifest) -> None:
        """Every part is listed and is what the list says."""
        there = {name: part.digest.hex for name, part in self._parts.items() if name != MANIFEST}
        for name in sorted(there.keys() | manifest.parts.keys()):
            if name not in there:
                self._say("manifest", "broken", f"{name}: listed, and not there")
            elif name not in manifest.parts:
                self._say("manifest", "broken", f"{name}: there, and not listed")
            elif there[name] != manifest.parts[name]:
                self._say("manifest", "broken", f"{name}: altered, or of another bundle")
            elif not _PARTS.fullmatch(name):
                self._say("manifest", "broken", f"{name}: a bundle has no such part")
        for name in sorted(manifest.withheld):
            if name in there or not _WITHHELD.fullmatch(name):
                self._say("manifest", "broken", f"{name[:80]}: said to be withheld, and is there, or is no original")

    @property
    def _made_at(self) -> datetime:
        """When the bundle says that it was made; now, where it does not hold that it says so."""
        return datetime.fromisoformat(self._manifest.made_at) if self._manifest else self._now

    # Entries.

    def _check_entries(self) -> None:
        if "checkpoint" not in self._parts:
            self._say("inclusion", "missing", "checkpoint: not there, so that no entry is proven")
            return
        self._heads.check_own()
        for name in named(self._parts, rf"entries/({NUMBER})\.json"):
            with self._judged("inclusion", name):
                self._check_entry(name)
        times = [proven.leaf.time for _, proven in sorted(self._entries.items())]
        if times != sorted(times):
            self._say("inclusion", "broken", "entries: the time of the log goes back")
        if self._entries:
            self._say("inclusion", "holds", f"{len(self._entries)} entries lie under it")

    def _check_entry(self, name: str) -> None:
        octets = self._parts[name].read()
        document = strict_object(octets)
        index, text = document["index"], document["leaf"]
        if name != f"entries/{index}.json" or jcs(document) != octets:
            raise ValueError("not canonical, or of another number")
        if document.keys() - {"detail", "salt"} != {"index", "leaf", "proof"}:
            raise ValueError("other members than an entry has")
        path = nodes_of(document["proof"])
        head = self._heads.own
        if head is None:
            raise ValueError("there is no head to prove it under")
        if not merkle.verify_inclusion(merkle.leaf_hash(text.encode()), index, head.size, path, head.root):
            raise ValueError(f"does not lie under the head of {head.size} entries")
        leaf = msgspec.json.decode(text, type=Leaf)
        if leaf.origin != self._anchors.origin:
            raise ValueError(f"of {leaf.origin!r:.80}")
        if datetime.fromisoformat(leaf.time) > min(self._made_at, self._now) + SKEW:
            raise ValueError(f"made at {leaf.time}, which was still to come")
        self._entries[index] = Proven(index, text, leaf, detail_of(document, leaf))

    # Messages.

    @property
    def _last(self) -> int:
        """The last entry that a head must cover: of the last delivery, or of the day."""
        if self._manifest is not None and self._manifest.kind == "day":
            day = self._manifest.subject
            return max((i for i, one in self._entries.items() if day_of(one.leaf.time).isoformat() == day), default=0)
        return max(self._message_numbers(), default=0)

    def _message_numbers(self) -> set[int]:
        names = [*self._parts, *(self._manifest.erased if self._manifest else ())]
        names += self._manifest.withheld if self._manifest else ()
        found = (re.fullmatch(rf"messages/({NUMBER})/.*", name) for name in names)
        return {int(match[1]) for match in found if match}

    def _read_messages(self) -> None:
        for _, one in sorted(self._entries.items()):
            if one.leaf.type in ("processing", RECALL) and one.leaf.outcome in _REPORTED and one.detail is not None:
                self._became.setdefault((one.leaf.sender, one.detail.get("message_id")), []).append(one)
        for number in sorted(self._message_numbers()):
            place, entry = f"messages/{number}", self._entries.get(number)
            if entry is None or (entry.leaf.type, entry.leaf.outcome) != ("delivery", "accepted"):
                self._say("inclusion", "missing", f"entries/{number}.json: no proven entry accepts {place}")
                continue
            receipt = self._receipt(number, entry)
            said = entry.detail
            if said is None and receipt is not None:  # what the sender was given says it still, and the leaf commits
                said = detail_of(receipt.document, entry.leaf)
            self._messages[number] = _Message(entry, said or {}, receipt)
            self._report(number, self._messages[number])

    def _receipt(self, number: int, entry: Proven) -> VerifiedDocument | None:
        name = f"messages/{number}/receipt.json"
        found = None
        if name not in self._parts:
            self._say("receipts", "missing", f"{name}: not there")
        else:
            with self._judged("receipts", name):
                receipt = self._document(name, "receipt")
                if (receipt.index, receipt.document["leaf"]) != (number, entry.text):
                    raise ValueError(f"of another entry, {receipt.index}")
                found = receipt
                self._say("receipts", "holds", f"{name}: issued under the head of {receipt.checkpoint.size} entries")
        return found

    def _report(self, number: int, message: _Message) -> None:
        name, leaf, id = f"messages/{number}/report.json", message.entry.leaf, message.said.get("message_id")
        became = self._became.get((leaf.sender, id), []) if id is not None else []
        for one in became:
            if one.leaf.type == RECALL:
                self._say("receipts", "holds", f"messages/{number}: 撤回 recalled, on {day_of(one.leaf.time)}")
        if name not in self._parts:
            self._no_report(name, became)
            return
        with self._judged("receipts", name):
            report = self._document(name, "report")
            proven, told = self._entries.get(report.index), report.document
            said = detail_of(told, report.leaf) or {}
            same = [
                *((told["accepted_index"], number), (report.leaf.sender, leaf.sender), (report.leaf.feed, leaf.feed)),
                *((told["feed"], leaf.feed), (said.get("message_id"), told["message_id"])),
                *([] if id is None else [(told["message_id"], id)]),
            ]
            if any(one != other for one, other in same) or report.leaf.type not in ("processing", RECALL):
                about = f"{report.leaf.sender} {told['message_id']}, entry {told['accepted_index']}"
                raise ValueError(f"of another delivery, {about}"[:200])
            if proven is None or proven.text != told["leaf"]:
                raise ValueError(f"its entry {report.index} is not among the bundle's")
            if became and report.index < became[-1].index:
                about = f"{name}: an older report; entries/{became[-1].index}.json says {became[-1].leaf.outcome} later"
                self._say("receipts", "missing", about)
            self._say("receipts", "holds", f"{name}: {told['outcome']}")

    def _no_report(self, name: str, became: list[Proven]) -> None:
        if self._manifest is not None and name in self._manifest.erased:
            self._say("receipts", "holds", f"{name}: gone, see erased parts")
        elif became:
            about = f"{name}: not there, and entries/{became[-1].index}.json says {became[-1].leaf.outcome}"
            self._say("receipts", "missing", about)
        elif self._manifest is not None and self._manifest.kind == "ownership":
            self._say("receipts", "missing", f"{name}: not there, and the answer is of what was processed")
        else:
            size = self._heads.own.size if self._heads.own else 0
            self._say("receipts", "holds", f"{name}: no report yet, as of the head of {size} entries")

    def _document(self, name: str, kind: str) -> VerifiedDocument:
        found = verify_receipt(self._parts[name].read(), self._anchors)
        if found.kind != kind:
            raise ValueError(f"is a {found.kind}")
        self._heads.join(found.checkpoint)
        return found

    def _tell_again(self) -> None:
        numbers, statuses = self._messages.keys(), self._statuses
        self._stood, self._carried = told_again(self._entries, numbers, self._anchors, statuses, self._findings)

    def _check_messages(self) -> None:
        for number, message in sorted(self._messages.items()):
            with self._judged("signature", f"messages/{number}"):
                self._check_message(number, message)

    def _check_message(self, number: int, message: _Message) -> None:
        signer = self._certificate(number, message)
        self._check_class(number, message)
        self._check_rights(number, message)
        self._check_mapping(number, message)
        self._check_signature(number, message, signer)

    def _check_signature(self, number: int, message: _Message, signer: EnrolledCertificate | None) -> None:
        name = f"messages/{number}/envelope"
        if name not in self._parts:
            withheld = self._manifest.withheld.get(name) if self._manifest else None
            erased = self._manifest is not None and name in self._manifest.erased
            if erased:
                self._say("signature", "erased", f"{name}: the original is gone")
            else:
                self._say("signature", "missing", f"{name}: {f'withheld, {withheld}' if withheld else 'not there'}")
            return
        with self._judged("signature", name):
            raw, said, leaf = self._parts[name], message.said, message.entry.leaf
            if not said:
                self._say("signature", "erased", f"{name}: what the entry said of it is gone")
                return
            if raw.digest.hex != said["evidence_digest"]:
                raise ValueError("not the octets that the entry names")
            if signer is None:
                raise ValueError(f"certificates/{leaf.signer}.pem: there is none to verify it with")
            form, suites = str(said["form"]), self._anchors.xml_suites
            original = original_of(raw, form, signer, message.at, self._max_age(message), suites)
            verified, payload = original.verified, original.payload
            if not message.at - SKEW <= datetime.fromisoformat(leaf.time) <= message.at + LONGEST_INTAKE:
                raise ValueError(f"came at {said['received_at']}, and was entered at {leaf.time}")
            stated: dict[str, str | int] = {
                "message_id": payload.message_id,
                "content_type": payload.content_type,
                "content_digest": payload.content.digest.hex,
                "content_length": payload.content.size,
                "request_digest": verified.signature_digest,
                "form": payload.form,
            }
            differing = [member for member, value in stated.items() if said[member] != value]
            differing += [member for member in ("sender", "feed") if getattr(leaf, member) != getattr(payload, member)]
            differing += [] if verified.recipient == self._anchors.origin else ["recipient"]
            if datetime.fromisoformat(str(said["signed_at"])) != payload.signed_at:
                differing.append("signed_at")
            if message.receipt is not None:
                receipt = message.receipt.document
                differing += [f"receipt's {member}" for member, value in stated.items() if receipt[member] != value]
            if differing:
                raise ValueError(f"the original differs from entry and receipt in: {', '.join(differing)}")
            what = f"{payload.content.size} octets, signed {payload.signed_at.isoformat()}, came {said['received_at']}"
            self._say("signature", "holds", f"{name}: {payload.form}, {what}")

    def _max_age(self, message: _Message) -> timedelta:
        leaf = message.entry.leaf
        name = f"mappings/{leaf.feed}.{leaf.feed_digest}.toml"
        part = self._parts.get(name)
        # One that was altered says nothing here; its own row says so.
        known = part is not None and part.digest.hex == leaf.feed_digest
        return read_feed(part.read(), leaf.feed).max_age if part is not None and known else ANY_AGE

    # Certificates and what authorities say of them.

    def _check_status(self) -> None:
        """What is named by its digest has it; of whom an answer speaks is looked at with each certificate."""
        answers = []
        for name in named(self._parts, r"status/([0-9a-f]{64})\.(crl|ocsp)"):
            octets = self._parts[name].read()
            if sha256(octets).hexdigest() != name.partition("/")[2].partition(".")[0]:
                self._say("certificate", "broken", f"{name}: not what it is named for")
                continue
            answers.append((name.rpartition(".")[2], octets))
        authorities, made_at = self._statuses.authorities, self._made_at
        if answers and not authorities:
            about = f"{len(answers)} answers on status not looked at: the anchors name no authority"
            self._say("certificate", "holds", about)
        self._statuses = Statuses(answers, authorities, made_at)
        for name in named(self._parts, r"certificates/([0-9a-f]{64})\.pem"):
            with self._judged("certificate", name):
                der = der_of_pem(self._parts[name].read())
                if name != f"certificates/{sha256(der).hexdigest()}.pem" or self._parts[name].read() != pem_of(der):
                    raise ValueError("not what it is named for")

    def _certificate(self, number: int, message: _Message) -> EnrolledCertificate | None:
        """The signer's, by the octets in the bundle; whether it is enrolled is another row."""
        leaf, at = message.entry.leaf, message.at
        name, carrier = (f"certificates/{one}.pem" for one in (leaf.signer, leaf.carrier))
        if _FINGERPRINT.fullmatch(leaf.carrier) and carrier not in self._parts:
            self._say("certificate", "missing", f"{carrier}: not there, of whose connection it was")
        if name not in self._parts:
            self._say("certificate", "missing", f"{name}: not there")
            return None
        found: EnrolledCertificate | None = None
        with self._judged("certificate", name):
            der = der_of_pem(self._parts[name].read())
            certificate = enrolled(der, str(message.said.get("asserted_by", leaf.sender)), "signing")
            if certificate.fingerprint != leaf.signer:
                raise ValueError("not what it is named for")
            found = certificate
            if not certificate.not_before <= at <= certificate.not_after:
                window = f"{certificate.not_before:%Y-%m-%d} to {certificate.not_after:%Y-%m-%d}"
                raise ValueError(f"valid from {window}, and not at {at.isoformat()}")
            over = authorities_over(der, self._statuses.authorities)
            if over:
                check_chain(der, (), self._statuses.authorities, at)
            under = "under an authority among the anchors" if over else "by enrolment alone: no authority is named"
            about = f"messages/{number}: {leaf.signer[:16]} valid at {at.isoformat()}, {under}"
            self._say("certificate", "holds", about)
            self._check_revoked(name, certificate, at)
        return found

    def _check_revoked(self, name: str, certificate: EnrolledCertificate, at: datetime) -> None:
        """Not revoked when it signed; against when the bus had the message: when it was signed its signer says alone,
        and whoever holds a revoked key may say any time."""
        said = self._statuses.said(certificate)
        if said.newest is None:
            if names_status(certificate.der):
                about = f"{name}: names where its status is asked, and no answer is here by an authority of the anchors"
                self._say("certificate", "missing", about)
            return
        for since, told in said.revocations:
            if since <= at and told <= at:
                raise Refusal("auth.certificate_revoked", f"since {since.isoformat()}, used at {at.isoformat()}")
        if said.revoked_at is not None and said.revoked_at <= at:
            # Whoever has the authority's key may date any list back: it cannot unmake what the log had before.
            about = f"revoked later, with effect before the delivery ({said.revoked_at.isoformat()})"
            about = f"{name}: {about}: the authority's word of {said.newest.isoformat()} against the bus's record"
            self._say("certificate", "missing", f"{about} of {at.isoformat()}")
            return
        after = f"revoked later, {said.revoked_at.isoformat()}" if said.revoked_at else "not revoked"
        age = "before the delivery" if said.newest < at else "after the delivery"
        self._say("certificate", "holds", f"{name}: {after}; answer of {said.newest.isoformat()}, {age}")

    # Decisions: who was enrolled and what was granted.

    def _check_rights(self, number: int, message: _Message) -> None:
        entry, said, stood = message.entry, message.said, self._stood[number]
        leaf, place = entry.leaf, f"messages/{number}"
        with self._judged("enrolment", place):
            certificate = stood.certificate(leaf.signer)
            if certificate.use not in SIGNS:
                raise Refusal("auth.certificate_not_for_signing", leaf.signer[:16])
            whose = str(said.get("asserted_by", leaf.sender))
            if certificate.bureau != whose:
                raise ValueError(f"enrolled for {certificate.bureau}, and not for {whose}")
            self._say("enrolment", "holds", f"{place}: {leaf.signer[:16]} of {whose}, by decision of two persons")
            if leaf.trust_digest in stood.digests:
                self._say("enrolment", "holds", f"{place}: no decision on certificates before it is left out")
            elif self._statuses.ended_any:  # when the bus heard of that is not known here
                self._say("enrolment", "missing", f"{place}: its trust digest cannot be made again from what is here")
            else:
                raise ValueError("an enrolment or revocation before it is left out: its trust digest is another")
        with self._judged("grant", place):
            self._check_grants(place, message, stood)

    def _check_grants(self, place: str, message: _Message, stood: Stood) -> None:
        leaf, said = message.entry.leaf, message.said
        signer = stood.certificate(leaf.signer).bureau
        days = {day_of(message.at).isoformat(), day_of(leaf.time).isoformat()}
        wanted: list[tuple[str, str, Action, str]] = [(leaf.grant, signer, "push", leaf.feed)]
        if signer != leaf.sender:
            wanted.append((str(said.get("on_behalf_of_grant", "")), signer, "on_behalf_of", leaf.sender))
        if _FINGERPRINT.fullmatch(leaf.carrier):
            carrier = stood.certificate(leaf.carrier).bureau
            if carrier != signer:
                wanted.append((str(said.get("carry_grant", "")), carrier, "carry", signer))
        for id, bureau, action, target in wanted:
            grant = stood.grant(id, days).grant
            if (grant.bureau, grant.action, grant.target) != (bureau, action, target):
                raise ValueError(f"{id} is not for {bureau} to {action} {target}")
            self._say("grant", "holds", f"{place}: {id}, {bureau} may {action} {target}, by decision of two persons")

    def _check_class(self, number: int, message: _Message) -> None:
        place, leaf, stood = f"messages/{number}", message.entry.leaf, self._stood[number]
        with self._judged("evidence class", place):
            said = message.said.get("evidence_class")
            if said is None:
                self._say("evidence class", "erased", f"{place}: what the entry said of it is gone")
                return
            certificate = stood.now.certificates.get(leaf.signer)
            if certificate is None or certificate.evidence_class != said:
                raise ValueError(f"the entry says {said}, and the enrolment does not")
            self._say("evidence class", "holds", f"{place}: {said}")

    def _check_mapping(self, number: int, message: _Message) -> None:
        leaf = message.entry.leaf
        name = f"mappings/{leaf.feed}.{leaf.feed_digest}.toml"
        with self._judged("mapping", name):
            if not self._stood[number].releases(leaf.feed, leaf.feed_digest):
                raise Refusal("feed.not_released", leaf.feed)
            if name not in self._parts:
                self._say("mapping", "missing", f"{name}: released by decision; the file is no longer kept")
            elif self._parts[name].digest.hex != leaf.feed_digest:
                raise ValueError("not the file that the entry names")
            else:
                self._say("mapping", "holds", f"{name}: released by decision")

    # What it is all about, and what is gone.

    def _check_subject(self) -> None:
        if self._manifest is None:
            self._say("subject", "missing", "the manifest, which would say, does not hold")
            return
        with self._judged("subject", self._manifest.subject):
            checks = {"message": self._check_one, "ownership": self._check_answer, "day": self._check_day}
            checks[self._manifest.kind](self._manifest)

    def _check_one(self, manifest: Manifest) -> None:
        numbers = self._message_numbers()
        if len(numbers) != 1 or numbers != self._messages.keys():
            raise ValueError(f"a bundle of one delivery has {len(numbers)}")
        (message,) = self._messages.values()
        id = message.said.get("message_id")
        if id is None:
            self._say("subject", "erased", f"{manifest.subject}: the message id that the entry said is gone")
        elif manifest.subject != f"{message.entry.leaf.sender} {id}":
            raise ValueError(f"holds {message.entry.leaf.sender} {id}")
        else:
            self._say("subject", "holds", f"delivery {manifest.subject}, entry {message.entry.index}")

    def _check_answer(self, manifest: Manifest) -> None:
        if "answer.json" not in self._parts:
            self._say("subject", "missing", "answer.json: not there")
            return
        answer = msgspec.json.decode(self._parts["answer.json"].read(), type=_Answer)
        component = answer.component.get("identifier") or answer.component.get("key")
        if manifest.subject != f"{component} {answer.on}":
            raise ValueError(f"answer.json is of {component} on {answer.on}")
        for claim in answer.claims:
            message = self._messages.get(claim.entry)
            if message is None:
                self._say(
                    "subject", "missing", f"messages/{claim.entry}: {claim.sender} {claim.message_id} is not there"
                )
            elif message.entry.leaf.sender != claim.sender or message.said.get("message_id") not in (
                None,
                claim.message_id,
            ):
                raise ValueError(f"entry {claim.entry} is not the delivery {claim.sender} {claim.message_id}")
        self._say(
            "subject", "holds", f"ownership of {manifest.subject}: {len(answer.claims)} claims with their deliveries"
        )

    def _check_day(self, manifest: Manifest) -> None:
        """Whole: the entries lie without a gap, and begin after one of an earlier day and end before one of a later."""
        day = date.fromisoformat(manifest.subject)
        of_day = sorted(index for index, one in self._entries.items() if day_of(one.leaf.time) == day)
        if not of_day:
            raise ValueError("no entry of that day is here")
        first, last = of_day[0], of_day[-1]
        if of_day != list(range(first, last + 1)):
            gap = next(index for index in range(first, last) if index not in self._entries)
            raise ValueError(f"entries/{gap}.json: left out of the day")
        if first and first - 1 not in self._entries:
            raise ValueError(f"entries/{first - 1}.json: nothing shows that the day begins after it")
        size = self._heads.own.size if self._heads.own else 0
        if last + 1 < size and last + 1 not in self._entries:
            raise ValueError(f"entries/{last + 1}.json: nothing shows that the day ends before it")
        for index in of_day:
            leaf = self._entries[index].leaf
            if (leaf.type, leaf.outcome) == ("delivery", "accepted") and index not in self._messages:
                self._say("subject", "missing", f"messages/{index}: accepted that day, and not there")
        if last + 1 < size:
            self._say("subject", "holds", f"{day}: entries {first} to {last}, none left out")
        elif day_of(self._made_at) > day:  # whoever takes an older head for the newest shows a day without its end
            about = f"{day}: entries {first} to {last}; the log is not seen to go on after that day"
            self._say("subject", "missing", about)
        else:
            about = f"{day}: up to entry {last} as of {manifest.made_at}; the day was not over, no whole day 当日未完"
            self._say("subject", "missing", about)

    def _check_erased(self) -> None:
        if self._manifest is None:
            self._say("erased parts", "missing", "the manifest, which would say, does not hold")
            return
        for name, day in sorted(self._manifest.erased.items()):
            with self._judged("erased parts", name):
                self._check_gone(name, day)
        for index, entry in sorted(self._entries.items()):
            if entry.detail is None and f"entries/{index}.json" not in self._manifest.erased:
                self._say("erased parts", "broken", f"entries/{index}.json: its detail is gone, and nobody says why")
        if self._findings.says_nothing("erased parts"):
            self._say("erased parts", "holds", "none")

    def _check_gone(self, name: str, day: str) -> None:
        match = _ERASABLE.fullmatch(name)
        entry = self._entries.get(int(match[1] or match[2])) if match else None
        if match is None or entry is None:
            raise ValueError("said to be erased, and no entry of it is here")
        if (match[1] and name in self._parts) or (match[2] and entry.detail is not None):
            raise ValueError("said to be erased, and it is there")
        for erasure in self._erasures:
            decision = str((erasure.detail or {}).get("of", ""))
            if day_of(erasure.leaf.time).isoformat() == day and self._erases(erasure, decision, name, entry):
                about = f"content erased on {day} 内容已销毁, decision {decision}, entry {erasure.index}"
                self._say("erased parts", "erased", f"{name}: {about}")
                return
        self._say(
            "erased parts", "missing", f"{name}: said to be erased{f' on {day}' if day else ''}, by no decision here"
        )

    @property
    def _erasures(self) -> list[Proven]:
        return [one for _, one in sorted(self._entries.items()) if one.leaf.type == ERASURE and one.detail is not None]

    def _erases(self, erasure: Proven, decision: str, name: str, entry: Proven) -> bool:
        """Whether an entry says that this very part was erased, by what two persons decided over it and nothing else.

        entry: of the part; what was erased after its decision was carried out was erased by none
        """
        carried, listed = self._carried.get(decision), str((erasure.detail or {}).get("entries", ""))
        if carried is None or carried.kind != "purge" or carried.time < erasure.leaf.time:
            return False
        body, leaf, message = carried.body, entry.leaf, self._messages.get(entry.index)
        if isinstance(body, ErasureBody) and body.reason == "retention":
            if name.endswith("/envelope"):  # by when it came, as whoever erased it went by
                return day_of(message.at if message else leaf.time).isoformat() < body.evidence_before
            gone = [entry] if name.startswith("entries/") else self._erased_about(entry)
            return any(
                is_among(listed, one.index) and day_of(one.leaf.time).isoformat() < body.details_before for one in gone
            )
        if body.sender != leaf.sender:
            return False
        if message is None:
            return is_among(listed, entry.index)
        same = body.message_id == message.said.get("message_id")
        return same and (name.startswith("messages/") or is_among(listed, entry.index))

    def _erased_about(self, entry: Proven) -> list[Proven]:
        """Entries that may be of a delivery's report, and whose details are gone."""
        return [
            one
            for index, one in self._entries.items()
            if index > entry.index and one.detail is None and one.leaf.type in ("processing", RECALL)
            if (one.leaf.sender, one.leaf.feed) == (entry.leaf.sender, entry.leaf.feed)
        ]

    def _demanded(self, name: str) -> bool:
        asked = {"witnesses": bool(self._anchors.witnesses), "timestamp": bool(self._anchors.timestamp_certificates)}
        return asked.get(name, name != "mapping")
