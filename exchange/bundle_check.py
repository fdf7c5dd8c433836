"""What an evidence bundle proves, row by row, with nothing of the operator's but the trust anchors (ADR 30).

Every row is computed for itself, from the octets of the parts: what the bus says of a part is believed of none. A row
that cannot be computed is missing; nothing is taken to hold because another row does.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta, timezone
from hashlib import sha256
from typing import Any, Final, Literal

import msgspec
from cryptography import x509
from cryptography.x509 import ocsp

from exchange.decisions import DECIDES, Carried, Decided, Granted, Standing
from exchange.decisions import ENTRY as DECISION
from exchange.entry import Detail, Leaf, commitment
from exchange.reading import taken_apart
from exchange.receipts import VerifiedDocument, verify_receipt
from mappings.load import read_feed
from security import bundle, merkle, wss
from security.anchors import Anchors
from security.authenticate import trust_digest
from security.bundle import MANIFEST, Container, Manifest
from security.chain import authorities_over, check_chain
from security.checkpoint import Checkpoint
from security.cosignature import cosignatures, without_cosignatures
from security.errors import AuditBroken, Misconfigured, Refusal
from security.jose import strict_object
from security.jws import jcs
from security.keys import der_of_pem
from security.message import Action, Content, Delivery, EnrolledCertificate, VerifiedPayload
from security.pki import enrolled, pem_of
from security.revocation import Answer, read_answer, read_list, standing
from security.signatures import open_signed, payload_of, verify_signed
from security.signed_delivery import VerifiedDelivery, check_age
from security.timestamp import verify_timestamp
from security.wss import SKEW, VerifiedEnvelope

State = Literal["holds", "missing", "broken", "erased"]
ROWS: Final = (
    *("container", "manifest", "subject", "signature", "certificate", "enrolment", "grant", "receipts", "inclusion"),
    *("witnesses", "timestamp", "evidence class", "mapping", "erased parts"),
)
CITY_TIME: Final = timezone(timedelta(hours=8))  # a day of the city is 00:00-24:00 +08:00
# A right that ended so shortly before an entry may have stood when it was looked at: an entry waits for its group.
AT_ONCE: Final = timedelta(seconds=60)
ANY_AGE: Final = timedelta(days=366)  # of an envelope whose feed's file, which would say less, is not there
COMPLETE_UPLOAD: Final = "CompleteUpload"
MOST_SAID: Final = 12  # lines a row

_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}")
_PARTS: Final = re.compile(
    r"checkpoint|answer\.json|entries/\d+\.json|messages/\d+/(?:envelope|receipt\.json|report\.json)|"
    r"certificates/[0-9a-f]{64}\.pem|status/[0-9a-f]{64}\.(?:crl|ocsp)|mappings/[a-z0-9-]+\.[0-9a-f]{64}\.toml|"
    r"heads/\d+\.(?:checkpoint|tsr)|consistency/\d+\.json"
)
_WORST: Final[tuple[State, ...]] = ("broken", "missing", "erased", "holds")


class Row(msgspec.Struct, frozen=True):
    """What was found of one question. demanded: whether the anchors ask for it; about: which part, and why."""

    name: str
    state: State
    about: tuple[str, ...]
    demanded: bool = True


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


class Proven(msgspec.Struct, frozen=True):
    """An entry that lies under the bundle's head. detail: None where it was erased."""

    index: int
    text: str
    leaf: Leaf
    detail: Detail | None


class _Message(msgspec.Struct):
    """A delivery, as far as it is known. said: the detail of its entry, or, where that was erased, of its receipt."""

    entry: Proven
    said: Detail
    receipt: VerifiedDocument | None = None

    @property
    def at(self) -> datetime:
        """When it came, by the bus's clock."""
        return datetime.fromisoformat(str(self.said.get("received_at", self.entry.leaf.time)))


class _Moment(msgspec.Struct, frozen=True):
    """What stands after some decisions. digest: of the certificates, as leaves state it."""

    certificates: Mapping[str, EnrolledCertificate]
    grants: Mapping[str, Granted]
    mappings: Mapping[str, str]
    digest: str


class _Stood(msgspec.Struct, frozen=True):
    """What stood when an entry was made: now, and before decisions that came at the same time as it.

    ended: the digest with what authorities had said by then
    """

    now: _Moment
    before: tuple[_Moment, ...]
    ended: str

    @property
    def digests(self) -> set[str]:
        return {self.ended, self.now.digest, *(one.digest for one in self.before)}

    @property
    def certificates(self) -> Mapping[str, EnrolledCertificate]:
        return self.now.certificates

    @property
    def grants(self) -> Mapping[str, Granted]:
        return self.now.grants

    def releases(self, feed: str, digest: str) -> bool:
        """Whether this file of the feed counted."""
        return any(one.mappings.get(feed) == digest for one in (self.now, *self.before))


def verify_bundle(content: Content, anchors: Anchors, now: datetime) -> BundleVerdict:
    """What a bundle proves. now: aware; what claims to be later than that is no evidence.

    Raises Refusal `bundle.container` for a file that is no bundle; Misconfigured for anchors that hold no keys.
    """
    return _Check(bundle.read(content), anchors, now).verdict()


def entry_octets(index: int, leaf: bytes, salt: bytes | None, detail: bytes | None, path: tuple[bytes, ...]) -> bytes:
    """The part `entries/{index}.json`."""
    document: dict[str, Any] = {"index": index, "leaf": leaf.decode(), "proof": [node.hex() for node in path]}
    if salt is not None and detail is not None:
        document |= {"salt": salt.hex(), "detail": detail.decode()}
    return jcs(document)


def consistency_octets(first: int, second: int, nodes: tuple[bytes, ...]) -> bytes:
    """The part `consistency/{first}.json`."""
    return jcs({"first": first, "second": second, "nodes": [node.hex() for node in nodes]})


def day_of(moment: str | datetime) -> date:
    """The city's day of a moment, RFC 3339 or aware."""
    found = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return found.astimezone(CITY_TIME).date()


class _Check:
    """One bundle under examination."""

    def __init__(self, container: Container, anchors: Anchors, now: datetime) -> None:
        self._parts, self._damaged = container.parts, container.damaged
        self._anchors, self._now = anchors, now
        self._found: dict[str, list[tuple[State, str]]] = {name: [] for name in ROWS}
        self._manifest: Manifest | None = None
        self._head: Checkpoint | None = None
        self._joined: set[tuple[int, bytes]] = set()  # heads that are proven to be of the same log as H
        self._entries: dict[int, Proven] = {}
        self._messages: dict[int, _Message] = {}
        self._stood: dict[int, _Stood] = {}
        self._carried: Mapping[str, Carried] = {}
        self._authorities = [_der(pem) for pem in anchors.authorities]
        self._answers: list[tuple[str, bytes]] = []
        self._since: dict[str, datetime | None] = {}  # when authorities ended certificates, by fingerprint

    def verdict(self) -> BundleVerdict:
        """All rows."""
        self._check_container()
        self._check_manifest()
        self._check_entries()
        self._check_heads()
        self._read_messages()
        self._check_status()
        self._fold()
        for number, message in sorted(self._messages.items()):
            self._check_message(number, message)
        self._check_subject()
        self._check_erased()
        rows = tuple(self._row(name) for name in ROWS)
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
            certificates = [_der(pem) for pem in self._anchors.receipt_certificates]
            manifest = bundle.open_manifest(self._parts[MANIFEST].read(), certificates)
            if manifest.origin != self._anchors.origin:
                raise Refusal("bundle.manifest", f"of {manifest.origin!r:.80}, not of {self._anchors.origin}")
            self._manifest = manifest
            if datetime.fromisoformat(manifest.made_at) > self._now + SKEW:
                self._say("manifest", "broken", f"{MANIFEST}: made at {manifest.made_at}, which is to come")
            self._compare(manifest)
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

    # Entries and heads.

    def _check_entries(self) -> None:
        if "checkpoint" not in self._parts:
            self._say("inclusion", "missing", "checkpoint: not there, so that no entry is proven")
            return
        with self._judged("inclusion", "checkpoint"):
            head = self._anchors.head(self._parts["checkpoint"].read().decode())
            self._head = head
            self._joined.add((head.size, head.root))
            self._say("inclusion", "holds", f"head of {head.size} entries, signed by the log's key")
        for name in self._named(r"entries/(\d+)\.json"):
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
        path = _nodes(document["proof"])
        head = self._head
        if head is None:
            raise ValueError("there is no head to prove it under")
        if not merkle.verify_inclusion(merkle.leaf_hash(text.encode()), index, head.size, path, head.root):
            raise ValueError(f"does not lie under the head of {head.size} entries")
        leaf = msgspec.json.decode(text, type=Leaf)
        if leaf.origin != self._anchors.origin:
            raise ValueError(f"of {leaf.origin!r:.80}")
        until = datetime.fromisoformat(self._manifest.made_at) if self._manifest else self._now
        if datetime.fromisoformat(leaf.time) > min(until, self._now) + SKEW:
            raise ValueError(f"made at {leaf.time}, which was still to come")
        self._entries[index] = Proven(index, text, leaf, _detail(document, leaf))

    def _check_heads(self) -> None:
        for name in self._named(r"consistency/(\d+)\.json"):
            with self._judged("inclusion", name):
                self._check_consistency(name)
        for name in self._named(r"heads/(\d+)\.checkpoint"):
            with self._judged("inclusion", name):
                head = self._anchors.head(self._parts[name].read().decode())
                if name != f"heads/{head.size}.checkpoint":
                    raise ValueError(f"is the head of {head.size}")
                self._join(head)
        self._check_witnesses()
        self._check_timestamps()

    def _check_consistency(self, name: str) -> None:
        """Only its shape, here; it proves something once there is a head at its beginning."""
        octets = self._parts[name].read()
        document = strict_object(octets)
        ends, _ = (document["first"], document["second"]), _nodes(document["nodes"])
        if jcs(document) != octets or document.keys() != {"first", "nodes", "second"}:
            raise ValueError("not canonical, or other members than a proof has")
        if name != f"consistency/{ends[0]}.json" or (self._head and ends[1] != self._head.size):
            raise ValueError(f"is a proof from {ends[0]} to {ends[1]}")

    def _join(self, head: Checkpoint) -> None:
        """Take a head as one of this log's. Raises ValueError where it is not proven to be."""
        ours = self._head
        if ours is None:
            raise ValueError("there is no head to compare it with")
        if (head.size, head.root) in self._joined:
            return
        if head.size > ours.size:
            raise ValueError(f"a head of {head.size} entries, later than the bundle's own of {ours.size}")
        name = f"consistency/{head.size}.json"
        if name not in self._parts:
            raise ValueError(f"{name} is not there: nothing shows that it is a head of the same log")
        nodes = _nodes(strict_object(self._parts[name].read())["nodes"])
        if not merkle.verify_consistency(head.size, ours.size, nodes, head.root, ours.root):
            same = "" if head.size == ours.size else f", or {name} is not their proof"
            raise ValueError(f"FORK 分叉: the heads of {head.size} and {ours.size} entries are not of one log{same}")
        self._joined.add((head.size, head.root))

    def _noted(self) -> Iterator[tuple[str, str, Checkpoint]]:
        """The heads that count: name, note, head."""
        for name in ("checkpoint", *self._named(r"heads/(\d+)\.checkpoint")):
            try:
                note = self._parts[name].read().decode()
                head = self._anchors.head(note)
            except (KeyError, Refusal, UnicodeDecodeError):  # its own row says so
                continue
            if (head.size, head.root) in self._joined:
                yield name, note, head

    def _check_witnesses(self) -> None:
        witnesses, quorum = self._anchors.witnesses, max(self._anchors.quorum, 1)
        if not witnesses:
            self._say("witnesses", "missing", "UNWITNESSED 无见证: the anchors name no witness")
            return
        best: list[tuple[int, int, str]] = []
        for name, note, head in self._noted():
            with self._judged("witnesses", name):
                found = cosignatures(note, witnesses)
                if late := [one.witness for one in found if one.at > self._now + SKEW]:
                    raise ValueError(f"signed at a time to come by {late[0]}")
                who = ", ".join(f"{one.witness} {one.at:%Y-%m-%dT%H:%M:%SZ}" for one in found)
                best.append((len(found), head.size, f"{name}: {who or 'nobody'}"))
        enough = [one for one in best if one[0] >= quorum]
        covered = max((size for _, size, _ in enough), default=0)
        last = max(self._message_numbers(), default=0)
        if covered > last:
            self._say("witnesses", "holds", f"{next(text for _, size, text in enough if size == covered)}")
        else:
            most, _, who = max(best, default=(0, 0, "no head"))
            about = f"UNWITNESSED 无见证: {most} of {quorum} witnesses over entry {last} ({who})"
            self._say("witnesses", "missing", about)

    def _check_timestamps(self) -> None:
        roots, last = self._anchors.timestamp_roots, max(self._message_numbers(), default=0)
        if not roots:
            self._say("timestamp", "missing", "NO TIMESTAMP 无时间戳: the anchors name no timestamp authority")
            return
        noted, covers = {head.size: (note, head) for _, note, head in self._noted()}, False
        for name in self._named(r"heads/(\d+)\.tsr"):
            with self._judged("timestamp", name):
                size = int(name[len("heads/") : -len(".tsr")])
                if size not in noted:
                    raise ValueError("there is no head that it is over")
                stamped = without_cosignatures(noted[size][0], self._anchors.origin).encode()
                at = verify_timestamp(self._parts[name].read(), stamped, roots)
                if at > self._now + SKEW:
                    raise ValueError(f"of {at.isoformat()}, which is to come")
                times = [one.leaf.time for index, one in self._entries.items() if index < size]
                if times and at + SKEW < datetime.fromisoformat(max(times)):
                    raise ValueError(f"of {at.isoformat()}, before entries that it covers")
                covers = covers or size > last
                self._say("timestamp", "holds", f"{name}: {at.isoformat()}, over {size} entries")
        if not covers:
            self._say("timestamp", "missing", f"NO TIMESTAMP 无时间戳 over entry {last}")

    # Messages.

    def _message_numbers(self) -> set[int]:
        names = [*self._parts, *(self._manifest.erased if self._manifest else ())]
        names += self._manifest.withheld if self._manifest else ()
        found = (re.fullmatch(r"messages/(\d+)/.*", name) for name in names)
        return {int(match[1]) for match in found if match}

    def _read_messages(self) -> None:
        for number in sorted(self._message_numbers()):
            place, entry = f"messages/{number}", self._entries.get(number)
            if entry is None or (entry.leaf.type, entry.leaf.outcome) != ("delivery", "accepted"):
                self._say("inclusion", "missing", f"entries/{number}.json: no proven entry accepts {place}")
                continue
            receipt = self._receipt(number, entry)
            said = entry.detail
            if said is None and receipt is not None:  # what the sender was given says it still, and the leaf commits
                said = msgspec.json.decode(receipt.document["detail"], type=dict[str, str | int])
            self._messages[number] = _Message(entry, said or {}, receipt)

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
        self._report(number, entry)
        return found

    def _report(self, number: int, entry: Proven) -> None:
        name = f"messages/{number}/report.json"
        if name not in self._parts:
            self._say("receipts", "holds", f"{name}: none is issued yet, or it is not in the bundle")
            return
        with self._judged("receipts", name):
            report = self._document(name, "report")
            proven = self._entries.get(report.index)
            if report.document["accepted_index"] != number or report.leaf.sender != entry.leaf.sender:
                raise ValueError(f"of another delivery, entry {report.document['accepted_index']}")
            if proven is None or proven.text != report.document["leaf"]:
                raise ValueError(f"its entry {report.index} is not among the bundle's")
            self._say("receipts", "holds", f"{name}: {report.document['outcome']}")

    def _document(self, name: str, kind: str) -> VerifiedDocument:
        found = verify_receipt(self._parts[name].read(), self._anchors)
        if found.kind != kind:
            raise ValueError(f"is a {found.kind}")
        self._join(found.checkpoint)
        return found

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
            verified, payload = self._verified(raw, message, signer)
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

    def _verified(
        self, raw: Content, message: _Message, signer: EnrolledCertificate
    ) -> tuple[VerifiedEnvelope | VerifiedDelivery, VerifiedPayload]:
        """The original once more through the verifier of the door by which it came, with the clock of that moment."""
        form, at = str(message.said["form"]), message.at
        if form in ("jws", "cms"):
            opened = open_signed(raw.read())
            check_age(opened, at, self._max_age(message))
            delivery = Delivery("rest", None, "", b"", raw, at)
            signed = verify_signed(opened, signer)
            return signed, payload_of(signed, delivery)
        related = taken_apart(raw) if form != "inline" else None
        octets = related.envelope if related else raw.read()
        envelope = wss.open_envelope(octets, wss.Limits(max_bytes=len(octets)), self._anchors.xml_suites)
        attachment, attachment_id = (related.attachment, related.attachment_id) if related else (None, "")
        if (envelope.operation == COMPLETE_UPLOAD) != (form == "upload"):
            raise ValueError(f"{envelope.operation} is not of the form {form}")
        if form == "upload":
            verified = wss.verify(envelope, signer, now=at)
            verified = msgspec.structs.replace(verified, attachment=attachment, form="upload")
        else:
            verified = wss.verify(envelope, signer, now=at, attachment=attachment, attachment_id=attachment_id)
        return verified, payload_of(verified, Delivery("soap", None, "", octets, raw, at, attachment, attachment_id))

    def _max_age(self, message: _Message) -> timedelta:
        leaf = message.entry.leaf
        name = f"mappings/{leaf.feed}.{leaf.feed_digest}.toml"
        return read_feed(self._parts[name].read(), leaf.feed).max_age if name in self._parts else ANY_AGE

    # Certificates and what authorities say of them.

    def _check_status(self) -> None:
        """Each answer verified once, of whoever it speaks; which certificate that is, is looked at with each."""
        for name in self._named(r"status/([0-9a-f]{64})\.(crl|ocsp)"):
            octets = self._parts[name].read()
            if sha256(octets).hexdigest() != name.partition("/")[2].partition(".")[0]:
                self._say("certificate", "broken", f"{name}: not what it is named for")
                continue
            self._answers.append((name, octets))
        if self._answers and not self._authorities:
            self._say(
                "certificate", "holds", f"{len(self._answers)} answers on status not looked at: no authority named"
            )
        for name in self._named(r"certificates/([0-9a-f]{64})\.pem"):
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
            over = authorities_over(der, self._authorities)
            if over:
                check_chain(der, (), self._authorities, at)
            under = "under an authority among the anchors" if over else "by enrolment alone: no authority is named"
            self._say(
                "certificate", "holds", f"messages/{number}: {leaf.signer[:16]} valid at {at.isoformat()}, {under}"
            )
            self._check_revoked(name, certificate, over, at)
        return found

    def _check_revoked(
        self, name: str, certificate: EnrolledCertificate, over: tuple[bytes, ...], at: datetime
    ) -> None:
        """Not revoked when it signed; against when the bus had the message: when it was signed its signer says alone,
        and whoever holds a revoked key may say any time."""
        lists, answer = self._said_of(certificate, over)
        if not lists and answer is None:
            if _names_status(certificate.der):
                where = "names where its status is asked, and no answer is here" if over else "no authority is named"
                self._say("certificate", "missing", f"{name}: {where}")
            return
        revoked = standing((certificate.der, *over), lists, answer).revoked_at
        newest = max(one.this_update for one in (*lists, answer) if one is not None)
        if revoked is not None and revoked <= at:
            raise Refusal("auth.certificate_revoked", f"since {revoked.isoformat()}, used at {at.isoformat()}")
        after = f"revoked later, {revoked.isoformat()}" if revoked else "not revoked"
        age = "before the delivery" if newest < at else "after the delivery"
        self._say("certificate", "holds", f"{name}: {after}; answer of {newest.isoformat()}, {age}")

    def _said_of(self, certificate: EnrolledCertificate, over: tuple[bytes, ...]) -> tuple[list[Answer], Answer | None]:
        """What the answers in the bundle say that are by this certificate's authorities."""
        lists: list[Answer] = []
        answers: list[Answer] = []
        if not over:
            return [], None
        made_at = datetime.fromisoformat(self._manifest.made_at) if self._manifest else self._now
        for name, octets in self._answers:
            try:
                if name.endswith(".crl"):
                    lists.append(read_list(octets, over, made_at))
                else:
                    # Its responder's certificate counts as of then; an answer later than the bundle is refused.
                    at = min(ocsp.load_der_ocsp_response(octets).this_update_utc, made_at)
                    answers.append(read_answer(octets, certificate.der, over[0], at))
            except Refusal as problem:
                if problem.code not in ("revocation.other_issuer", "revocation.other_certificate"):
                    raise
        return lists, max(answers, key=lambda one: one.this_update, default=None)

    # Decisions: who was enrolled and what was granted.

    def _fold(self) -> None:
        """Tell again what stood, from the founding that the anchors name, and keep it as of each message."""
        stands = Standing(self._anchors.origin, self._anchors.founding)
        deciding = {i for i, one in self._entries.items() if one.leaf.type == DECISION and one.leaf.outcome in DECIDES}
        moment = _Moment({}, {}, {}, trust_digest(()))
        recent: list[tuple[str, _Moment]] = []  # what stood before each of the last decisions
        for index in sorted(deciding | self._messages.keys()):
            entry = self._entries[index]
            time = entry.leaf.time
            if index in self._messages:
                recent = [one for one in recent if not _well_before(one[0], time)]
                ended = trust_digest(self._ended(stands.certificates.values(), time))
                self._stood[index] = _Stood(moment, tuple(before for _, before in recent), ended)
            elif entry.detail is None:
                self._say("enrolment", "missing", f"entries/{index}.json: a decision whose detail is gone")
            else:
                waiting, troubles = set(stands.proposals), len(stands.troubles)
                stands.take(Decided(index, time, entry.leaf.outcome, entry.detail))
                held = len(stands.troubles) == troubles
                if entry.leaf.outcome == "approved" and held and stands.proposals.keys() == waiting:
                    about = f"entries/{index}.json: the entry that proposed what it approves is not here"
                    self._say("enrolment", "missing", about)
                recent.append((time, moment))
                digest = trust_digest(stands.certificates.values())
                moment = _Moment(dict(stands.certificates), dict(stands.grants), dict(stands.mappings), digest)
        for trouble in stands.troubles:  # what does not hold decides nothing: so it is for the bus, and so it is here
            self._say("enrolment", "holds", f"entries/{trouble.entry}.json decides nothing: {trouble.code}")
        if not stands.persons:
            self._say("enrolment", "missing", "no entry founds this bus as the anchors name it")
        self._carried = stands.carried

    def _ended(self, certificates: Iterable[EnrolledCertificate], time: str) -> list[EnrolledCertificate]:
        """The certificates with what their authorities said of them up to a time, as the bus laid it over (ADR 22)."""
        if not (self._answers and self._authorities):
            return list(certificates)
        found = []
        for certificate in certificates:
            since = self._revoked_since(certificate)
            if since is not None and since <= datetime.fromisoformat(time):
                ended = min(since, certificate.revoked_at or since)
                certificate = msgspec.structs.replace(certificate, revoked_at=ended)
            found.append(certificate)
        return found

    def _revoked_since(self, certificate: EnrolledCertificate) -> datetime | None:
        """Since when its authority says that it is revoked, in the answers that are here."""
        if certificate.fingerprint not in self._since:
            over, since = authorities_over(certificate.der, self._authorities), None
            try:
                lists, answer = self._said_of(certificate, over)
                since = standing((certificate.der, *over), lists, answer).revoked_at
            except (Refusal, ValueError):  # the certificate's own row says so
                pass
            self._since[certificate.fingerprint] = since
        return self._since[certificate.fingerprint]

    def _check_rights(self, number: int, message: _Message) -> None:
        entry, said, stood = message.entry, message.said, self._stood[number]
        leaf, place = entry.leaf, f"messages/{number}"
        with self._judged("enrolment", place):
            certificate = _standing_certificate(stood, leaf.signer, leaf.time)
            if certificate.use == "connection":
                raise Refusal("auth.certificate_not_for_signing", leaf.signer[:16])
            whose = str(said.get("asserted_by", leaf.sender))
            if certificate.bureau != whose:
                raise ValueError(f"enrolled for {certificate.bureau}, and not for {whose}")
            self._say("enrolment", "holds", f"{place}: {leaf.signer[:16]} of {whose}, by decision of two persons")
            if leaf.trust_digest in stood.digests:
                self._say("enrolment", "holds", f"{place}: no decision on certificates before it is left out")
            elif any(self._since.values()):  # when the bus heard of that is not known here
                self._say("enrolment", "missing", f"{place}: its trust digest cannot be made again from what is here")
            else:
                raise ValueError("an enrolment or revocation before it is left out: its trust digest is another")
        with self._judged("grant", place):
            self._check_grants(place, message, stood)

    def _check_grants(self, place: str, message: _Message, stood: _Stood) -> None:
        leaf, said = message.entry.leaf, message.said
        signer = _standing_certificate(stood, leaf.signer, leaf.time).bureau
        days = {day_of(message.at).isoformat(), day_of(leaf.time).isoformat()}
        wanted: list[tuple[str, str, Action, str]] = [(leaf.grant, signer, "push", leaf.feed)]
        if signer != leaf.sender:
            wanted.append((str(said.get("on_behalf_of_grant", "")), signer, "on_behalf_of", leaf.sender))
        if _FINGERPRINT.fullmatch(leaf.carrier):
            carrier = _standing_certificate(stood, leaf.carrier, leaf.time).bureau
            if carrier != signer:
                wanted.append((str(said.get("carry_grant", "")), carrier, "carry", signer))
        for id, bureau, action, target in wanted:
            found = stood.grants.get(id)
            if found is None:
                raise Refusal("grant.unknown", f"{id or 'none'}: {bureau} {action} {target}")
            if (found.grant.bureau, found.grant.action, found.grant.target) != (bureau, action, target):
                raise ValueError(f"{id} is not for {bureau} to {action} {target}")
            if not any(found.grant.valid_from <= day <= found.grant.valid_until for day in days):
                raise Refusal("auth.grant_not_in_force", id)
            if found.revoked_at and _well_before(found.revoked_at, leaf.time):
                raise ValueError(f"{id} was revoked at {found.revoked_at}, before the delivery")
            self._say("grant", "holds", f"{place}: {id}, {bureau} may {action} {target}, by decision of two persons")

    def _check_class(self, number: int, message: _Message) -> None:
        place, leaf, stood = f"messages/{number}", message.entry.leaf, self._stood[number]
        with self._judged("evidence class", place):
            said = message.said.get("evidence_class")
            if said is None:
                self._say("evidence class", "erased", f"{place}: what the entry said of it is gone")
                return
            certificate = stood.certificates.get(leaf.signer)
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
        size = self._head.size if self._head else 0
        if last + 1 < size and last + 1 not in self._entries:
            raise ValueError(f"entries/{last + 1}.json: nothing shows that the day ends before it")
        for index in of_day:
            leaf = self._entries[index].leaf
            if (leaf.type, leaf.outcome) == ("delivery", "accepted") and index not in self._messages:
                self._say("subject", "missing", f"messages/{index}: accepted that day, and not there")
        until = "" if last + 1 < size else ", as far as the log went when the bundle was made"
        self._say("subject", "holds", f"{day}: entries {first} to {last}, none left out{until}")

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
        if not self._found["erased parts"]:
            self._say("erased parts", "holds", "none")

    def _check_gone(self, name: str, day: str) -> None:
        match = re.fullmatch(r"messages/(\d+)/envelope|entries/(\d+)\.json", name)
        entry = self._entries.get(int(match[1] or match[2])) if match else None
        if match is None or entry is None:
            raise ValueError("said to be erased, and no entry of it is here")
        if (match[1] and name in self._parts) or (match[2] and entry.detail is not None):
            raise ValueError("said to be erased, and it is there")
        message = self._messages.get(entry.index)
        id = message.said.get("message_id") if message else None
        for decision, carried in self._carried.items():
            same = carried.body.sender == entry.leaf.sender and id in (None, carried.body.message_id)
            if carried.kind != "opening" and same and day_of(carried.time).isoformat() == day:
                self._say("erased parts", "erased", f"{name}: content erased on {day} 内容已清除, decision {decision}")
                return
        self._say(
            "erased parts", "missing", f"{name}: said to be erased{f' on {day}' if day else ''}, by no decision here"
        )

    # How a row is put together.

    def _say(self, row: str, state: State, about: str) -> None:
        if (state, about) not in self._found[row][-MOST_SAID:]:
            self._found[row].append((state, about))

    def _named(self, pattern: str) -> list[str]:
        """Parts of a form of name, those with a number in its order."""
        found = [match for name in self._parts if (match := re.fullmatch(pattern, name))]
        return [match[0] for match in sorted(found, key=lambda match: (len(match[1]), match[1]))]

    @contextmanager
    def _judged(self, row: str, place: str) -> Iterator[None]:
        """What fails within makes the row broken, and names the part."""
        try:
            yield
        except Misconfigured:
            raise
        except Refusal as problem:
            self._say(row, "broken", f"{place}: {problem.code} {problem.detail}".rstrip())
        except (ValueError, AuditBroken) as problem:
            self._say(row, "broken", f"{place}: {problem}"[:240])
        except Exception as problem:  # a part that trips its reader proves nothing, and must not stop the other rows
            self._say(row, "broken", f"{place}: cannot be read ({type(problem).__name__})")

    def _row(self, name: str) -> Row:
        found = self._found[name] or [("missing", "nothing of it is in the bundle")]
        state = min((state for state, _ in found), key=_WORST.index)
        # The worst first; what holds of a thousand messages is not told a thousand times.
        about = sorted(found, key=lambda one: _WORST.index(one[0]))
        bad = [text for what, text in about if what != "holds"]
        told = [*bad, *[text for what, text in about if what == "holds"][: max(MOST_SAID - len(bad), 1)]]
        return Row(name, state, tuple(told), self._demanded(name))

    def _demanded(self, name: str) -> bool:
        asked = {"witnesses": bool(self._anchors.witnesses), "timestamp": bool(self._anchors.timestamp_certificates)}
        return asked.get(name, name != "mapping")


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


def _detail(document: Mapping[str, Any], leaf: Leaf) -> Detail | None:
    """The detail that the leaf commits to; None where it is not there. Raises ValueError."""
    if "salt" not in document and "detail" not in document:
        return None
    text: str = document["detail"]
    (salt,) = _nodes([document["salt"]])
    if commitment(salt, text.encode()) != leaf.detail:
        raise ValueError("its detail is not what the leaf commits to")
    return msgspec.json.decode(text, type=dict[str, str | int])


def _nodes(texts: list[str]) -> list[bytes]:
    """Hashes written in lower-case hex. Raises ValueError for any other spelling."""
    octets = [bytes.fromhex(text) for text in texts]
    if [one.hex() for one in octets] != texts or any(len(one) != merkle.HASH_SIZE for one in octets):
        raise ValueError("not hashes in lower-case hex")
    return octets


def _well_before(earlier: str, later: str) -> bool:
    """Whether a time lies so long before another that nobody can have been between the two."""
    if not earlier:
        return True
    return datetime.fromisoformat(earlier) + AT_ONCE < datetime.fromisoformat(later)


def _standing_certificate(stood: _Stood, fingerprint: str, time: str) -> EnrolledCertificate:
    found = stood.certificates.get(fingerprint)
    if found is None:
        raise Refusal("auth.certificate_unknown", fingerprint[:16])
    if found.revoked_at is not None and _well_before(found.revoked_at.astimezone(UTC).isoformat(), time):
        raise Refusal("auth.certificate_revoked", f"{fingerprint[:16]} at {found.revoked_at.isoformat()}")
    return found


def _names_status(der: bytes) -> bool:
    """Whether a certificate says where its status can be asked."""
    extensions = x509.load_der_x509_certificate(der).extensions
    return any(
        isinstance(one.value, x509.CRLDistributionPoints | x509.AuthorityInformationAccess) for one in extensions
    )


def _der(pem: str) -> bytes:
    try:
        return der_of_pem(pem.encode())
    except ValueError as problem:
        raise Misconfigured("anchors: a certificate is not PEM") from problem
