"""Act one of a delivery, from arrival to receipt; and the door of every read. Milliseconds, durable, honest."""

import asyncio
import secrets
from collections.abc import Callable
from datetime import datetime
from typing import Final, ParamSpec, TypeVar

import msgspec

from exchange.bus import Bus
from exchange.entry import CITY_TIME, RECALL
from exchange.figures import count_refusal
from exchange.journal import Acceptance, Entry, InboxRow, content_erased
from exchange.landing import landed
from exchange.opened import Opened, Verified, opened_of
from exchange.watched import act_one, step
from mappings.feed import Feed
from security.authenticate import carrier_of, signer_of, signing_certificate
from security.authorise import authorise
from security.delegation import may_carry, may_sign_for
from security.errors import CROWDS, Refusal, Unavailable
from security.message import Delivery, EnrolledCertificate, Grant, Principal, VerifiedPayload
from security.signatures import payload_of
from security.wss import LONGEST, SKEW, VerifiedEnvelope

P = ParamSpec("P")
T = TypeVar("T")

OWN_DELIVERIES: Final = "deliveries"
LARGE_BYTES: Final = 200_000  # above this the work goes to a thread, so that small messages do not wait behind it


class Received(msgspec.Struct, frozen=True):
    """A delivery accepted. inbox.receipt is the signed receipt, the same bytes at every door and every retry."""

    inbox: InboxRow
    verified: Verified
    repeated: bool


class Admitted(msgspec.Struct, frozen=True):
    """A read allowed: by whom, under which grant. verified is None where only the carrier vouches (REST)."""

    principal: Principal
    grant: Grant
    verified: VerifiedEnvelope | None


class _Standing(msgspec.Struct):
    """What is established of a request so far. A refusal is entered with no more than this.

    by:     `broker:{name}` or `folder:{name}` that handed it over; it vouches for nobody
    signer: set only once the signature holds
    name:   the bureau in whose name the signer may speak, where that is not its own
    wanted: what is asked for, `push {feed}` or `pull {view}`, as soon as that is known
    stands_in: who stands in for whom, and by which grants, as details and receipts say it (`receipts.STANDING_IN`)
    """

    door: str
    remote: str
    by: str = ""
    carrier: Principal | None = None
    signer: Principal | None = None
    claimed_sender: str = ""
    feed: str = ""
    message_id: str = ""
    grant: str = ""
    trust_digest: str = ""
    name: str = ""
    wanted: str = ""
    stands_in: dict[str, str | int] = {}

    @property
    def sender(self) -> str:
        """The bureau that speaks, once that is established; until then nobody's entries hold this."""
        return (self.name or self.signer.bureau) if self.signer else ""

    @property
    def known(self) -> Principal | None:
        """Whom we may tell more than a stranger hears: the signer, else the bureau whose connection it is."""
        return self.signer or self.carrier

    @property
    def carried_by(self) -> str:
        """The carrier as entries and receipts name it."""
        return self.carrier.certificate if self.carrier else self.by

    def confirm(self, signer: Principal) -> None:
        """The signature holds: whatever is refused from here on is refused to the signer by name."""
        self.signer = signer

    def carried_for(self, signer: Principal) -> bool:
        """Whether it came by somebody else's connection than the signer's."""
        return self.carrier is None or self.carrier.bureau != signer.bureau

    def speak_for(self, name: str, signer: Principal, grant: Grant) -> None:
        """The signer may speak in this bureau's name, by that grant."""
        self.name = name
        self.stands_in = {**self.stands_in, "asserted_by": signer.bureau, "on_behalf_of_grant": grant.id}


@act_one
async def receive(delivery: Delivery, bus: Bus) -> Received:
    """Take one delivery: who, which, may they, is it theirs, keep, accept, answer.

    Raises Refusal, already entered in the audit; Unavailable when nothing was kept and the sender should try again.
    """
    standing = _standing(delivery)
    try:
        await bus.turns.take(_whose(delivery))  # fair: who sends three hundred at once waits for himself
        # 1 who, 2 which, 3 may they, 4 is it theirs
        checked = await _beside(delivery, _checked, delivery, bus, standing)
        payload = checked.payload
        # 5 keep – the request as it came, on disk before the journal's group commits. Nothing more of a known id:
        # neither retries nor an id used twice may fill the disk
        known = bus.journal.inbox(payload.sender, payload.message_id)
        evidence = known.evidence if known else await _beside(delivery, _kept, payload, delivery, bus)
        # 6 accept – inbox row and audit entry in one group; 7 answer – the receipt waits for its checkpoint
        step("accept")
        acceptance = _acceptance(delivery, checked, evidence, standing, bus)
        accepted = await landed(bus.journal.accept(acceptance))
    except Refusal as refusal:
        raise await _entered(refusal, standing, bus) from refusal
    bus.wake()
    return Received(accepted.inbox, checked.verified, accepted.repeated)


class _Checked(msgspec.Struct, frozen=True):
    """A delivery that may be taken: what was signed, its content, by which key, and the signer's own grant to push."""

    verified: Verified
    payload: VerifiedPayload
    certificate: EnrolledCertificate
    grant: Grant


async def admit_upload(
    delivery: Delivery, bus: Bus, work: Callable[[VerifiedEnvelope], T]
) -> tuple[VerifiedEnvelope, T]:
    """Let in what prepares a delivery, and do its work: who, which, may they, is it theirs, as of the delivery itself.

    Raises what `receive` raises, and what the work does, which is entered likewise.
    """
    standing = _standing(delivery)

    def admitted() -> tuple[VerifiedEnvelope, T]:
        verified, _, grant = _permitted(delivery, bus, standing, counts=False)
        assert isinstance(verified, VerifiedEnvelope)  # no other door takes pieces
        standing.grant = grant.id
        try:
            return verified, work(verified)
        except OSError as problem:
            raise Unavailable(f"an upload cannot be kept: {problem}") from problem

    try:
        return await asyncio.to_thread(admitted)  # it waits for the disk
    except Refusal as refusal:
        raise await _entered(refusal, standing, bus) from refusal


async def recall(delivery: Delivery, bus: Bus) -> tuple[VerifiedEnvelope, InboxRow, bytes]:
    """撤回 Take back a delivery of one's own, or of a bureau in whose name one may sign; gives the signed answer.

    It counts from here: act two takes it no more, and ends what came of it. The same again gives the same answer. It
    needs no grant to push: what a bureau sent it may take back, whatever was revoked since.

    Raises what `receive` raises; Refusal `delivery.unknown`, of another's as of one that never was.
    """
    standing = _standing(delivery)
    try:
        verified, row = _recallable(delivery, bus, standing)
    except Refusal as refusal:
        raise await _entered(refusal, standing, bus) from refusal
    standing.feed = row.feed
    ground = verified.text("Ground")
    detail: dict[str, str | int] = {"message_id": row.message_id, "ground": ground, "was": row.status}
    entry = _entry(RECALL, "recalled", standing, bus, {**detail, "request_digest": verified.signature_digest})
    words = msgspec.structs.asdict(Refusal("delivery.recalled").sentence)
    report = {"code": "delivery.recalled", "ground": ground, "was": row.status, "sentence": words}
    answer = await landed(bus.journal.finish(row.id, "recalled", entry, report))
    if not answer:
        raise await _entered(Refusal("content.erased", content_erased(bus.journal.content_erased(row))), standing, bus)
    bus.wake()
    return verified, row, answer


def _recallable(delivery: Delivery, bus: Bus, standing: "_Standing") -> tuple[VerifiedEnvelope, InboxRow]:
    """Who, which, may they, is it theirs."""
    now = bus.clock()
    opened, certificate = _who(delivery, bus, standing, now)
    signer = Principal(certificate.bureau, certificate.fingerprint)
    verified = _theirs(opened, certificate, bus, standing, now) if standing.carried_for(signer) else None
    standing.wanted = RECALL
    for known in (signer, standing.carrier or signer):
        bus.registry.trust().check_status_known(known.certificate, now)
    if opened.sender != signer.bureau:
        grants = bus.registry.grants(signer.bureau)
        standing.speak_for(opened.sender, signer, may_sign_for(signer, opened.sender, grants, _day(now)))
    verified = verified or _theirs(opened, certificate, bus, standing, now)
    assert isinstance(verified, VerifiedEnvelope)  # no other door takes a recall
    if verified.operation != delivery.operation:
        raise Refusal("soap.action_mismatch", f"{delivery.operation} / {verified.operation}")
    message_id = verified.text("DeliveryMessageId")
    row = bus.journal.inbox(opened.sender, message_id)
    if row is None:
        raise Refusal("delivery.unknown", message_id)
    return verified, row


def _checked(delivery: Delivery, bus: Bus, standing: "_Standing") -> _Checked:
    verified, certificate, grant = _permitted(delivery, bus, standing)
    payload = payload_of(verified, delivery)
    if payload.form == "inline" and payload.content.size > bus.limits.max_inline_bytes:
        raise Refusal("size.inline_too_large", f"{payload.content.size} > {bus.limits.max_inline_bytes}")
    most_bytes = bus.feeds[payload.feed].max_bytes
    if most_bytes and payload.content.size > most_bytes:
        raise Refusal("size.too_large", f"{payload.content.size} > {most_bytes}")
    standing.grant = grant.id
    return _Checked(verified, payload, certificate, grant)


def _permitted(
    delivery: Delivery, bus: Bus, standing: "_Standing", *, counts: bool = True
) -> tuple[Verified, EnrolledCertificate, Grant]:
    """counts: whether it takes of its feed's quota."""
    now = bus.clock()
    # 1 who – both certificates enrolled, the signing one in force, and the carrier the signer's own or one that may
    # carry for it. Where another carries, only the signature can say who it was, so there it comes first: whoever fails
    # it has proved nothing and hears nothing of the signer's grants
    opened, certificate = _who(delivery, bus, standing, now)
    signer = Principal(certificate.bureau, certificate.fingerprint)
    verified = _theirs(opened, certificate, bus, standing, now) if standing.carried_for(signer) else None
    # 2 which – the feed named in the part that is, or will have to be, signed; and whether it came by its door's rules
    feed = _feed_named(opened, bus, standing)
    standing.wanted = f"push {feed.id}"
    opened.check_arrival(feed, now)
    # 3 may they – default is no; in another's name neither, and then still by the signer's own grant to push; and
    # nothing new by a certificate whose authority has been silent too long, nor while the log is without a timestamp
    step("may")
    for known in (signer, standing.carrier or signer):
        bus.registry.trust().check_status_known(known.certificate, now)
    if bus.coverage is not None:
        bus.coverage.check(now)
    grants = bus.registry.grants(signer.bureau)
    if opened.sender != signer.bureau:
        standing.speak_for(opened.sender, signer, may_sign_for(signer, opened.sender, grants, _day(now)))
    grant = authorise(signer, "push", feed.id, feed.bureau, grants, _day(now), standing.name)
    # and is there room for it now – of what is known already there is no more to take in. Before the signature: what a
    # flood costs to refuse should be little
    if counts and bus.journal.inbox(opened.sender, opened.message_id) is None:
        bus.stopped.check_door(feed.id)
        bus.gate.admit(feed, bus.limits, bus.journal, now)
    # 4 is it theirs – nothing but the envelope was parsed up to here
    verified = verified or _theirs(opened, certificate, bus, standing, now)
    return verified, certificate, grant


def _kept(payload: VerifiedPayload, delivery: Delivery, bus: Bus) -> str:
    step("keep")
    try:
        return bus.evidence.keep(payload.sender, delivery.raw, sealed=bus.feeds[payload.feed].sealed)
    except OSError as problem:  # the disk is full, or gone: nobody's fault who sends
        raise Unavailable(f"evidence cannot be kept: {problem}") from problem


async def _beside(delivery: Delivery, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Do the work: of a large delivery in a thread, so that small ones do not wait behind it."""
    if delivery.raw.size > LARGE_BYTES:
        return await asyncio.to_thread(work, *arguments, **named)
    return work(*arguments, **named)


async def admit(delivery: Delivery, bus: Bus, view: str) -> Admitted:
    """Let a signed read in: who, may they, is it theirs, and not a second time; the read is staged for the audit.

    view: what is asked for, `ownership`, `components`, `changes`, or `deliveries` (one's own, which needs no grant)
    """
    now = bus.clock()
    standing = _standing(delivery)
    try:
        opened, certificate = _who(delivery, bus, standing, now)
        signer_of(certificate, opened.sender, now)  # nobody asks in another's name: no grant lends what one may see
        principal = Principal(certificate.bureau, certificate.fingerprint)
        # Carried by another: the signature first, as in act one.
        verified = _theirs(opened, certificate, bus, standing, now) if standing.carried_for(principal) else None
        standing.wanted = f"pull {view}"
        grant = _may_read(principal, view, bus, now)
        verified = verified or _theirs(opened, certificate, bus, standing, now)
        assert isinstance(verified, VerifiedEnvelope)  # over MQTT nothing is asked
        standing.grant = grant.id
        bus.replays.refuse_again(principal.bureau, verified.signed_digest, verified.expires + SKEW, now)
    except Refusal as refusal:
        raise await _entered(refusal, standing, bus) from refusal
    bus.journal.stage_read(_read_entry(standing, view, verified, bus))
    return Admitted(principal, grant, verified)


async def admit_carrier(
    carrier_der: bytes | None, remote: str, view: str, query: dict[str, str | int], bus: Bus
) -> Admitted:
    """Let an unsigned read in on the word of the TLS certificate alone (REST). query: purpose, case, what is asked."""
    now = bus.clock()
    standing = _Standing("rest", remote)
    try:
        standing.carrier = carrier_of(carrier_der, bus.registry.trust(), now)
        if standing.carrier is None:
            raise Refusal("auth.no_certificate")
        standing.wanted = f"pull {view}"
        grant = _may_read(standing.carrier, view, bus, now)
        standing.grant = grant.id
    except Refusal as refusal:
        raise await _entered(refusal, standing, bus) from refusal
    bus.journal.stage_read(_entry("read", "answered", standing, bus, {"view": view, **query}))
    return Admitted(standing.carrier, grant, None)


def signs_for(bureau: str, other: str, bus: Bus) -> bool:
    """Whether a bureau may sign in the name of another today: a broker asks before it lets a message through."""
    try:
        may_sign_for(Principal(bureau, ""), other, bus.registry.grants(bureau), _day(bus.clock()))
    except Refusal:
        return False
    return True


def remember_reads(bus: Bus) -> None:
    """Take over from the audit which signed reads were answered before this process began, for they still count."""
    longest = LONGEST + 2 * SKEW
    for entry in bus.journal.since(bus.clock() - longest):
        if entry.leaf.type == "read" and entry.detail and "signed_digest" in entry.detail:
            until = datetime.fromisoformat(entry.leaf.time) + longest
            bus.replays.remember(entry.leaf.sender, str(entry.detail["signed_digest"]), until)


async def turn_away(refusal: Refusal, door: str, carrier_der: bytes | None, remote: str, bus: Bus) -> Refusal:
    """The refusal of what never became a delivery (too large, broken parts), once audited, as it may be heard."""
    standing = _Standing(door, remote, carrier=carrier_of(carrier_der, bus.registry.trust(), bus.clock()))
    return await _entered(refusal, standing, bus)


def _whose(delivery: Delivery) -> bytes:
    """Among whom turns go round: connections of one certificate; messages of one feed's topic; packages."""
    return delivery.carried.feed.encode() if delivery.carried else delivery.carrier_der or b""


def _standing(delivery: Delivery) -> _Standing:
    return _Standing(delivery.door, delivery.remote, delivery.handed_over_by)


def _who(delivery: Delivery, bus: Bus, standing: _Standing, now: datetime) -> tuple[Opened, EnrolledCertificate]:
    """The envelope and the certificate that it claims. Of somebody without an enrolled connection nothing is opened,
    but where a broker or a folder hands it over."""
    step("who")
    trust = bus.registry.trust()
    standing.trust_digest = trust.digest
    standing.carrier = carrier_of(delivery.carrier_der, trust, now)
    if standing.carrier is None and not standing.by:
        raise Refusal("auth.no_certificate")
    opened = opened_of(delivery, bus)
    standing.claimed_sender = opened.sender[:64]
    standing.message_id = opened.message_id[:128]
    certificate = signing_certificate(opened.certificate_in(trust), now)
    carrier = standing.carrier
    if carrier is not None and certificate.bureau != carrier.bureau:
        grant = may_carry(carrier, certificate.bureau, bus.registry.grants(carrier.bureau), _day(now))
        standing.stands_in = {"carry_grant": grant.id}
    return opened, certificate


def _feed_named(opened: Opened, bus: Bus, standing: _Standing) -> Feed:
    step("which")
    standing.feed = opened.feed[:64]
    feed = bus.feeds.get(standing.feed)
    if feed is None:
        raise Refusal("feed.unknown", standing.feed)
    if bus.registry.mapping(feed.id) != bus.feed_digests[feed.id]:
        raise Refusal("feed.not_released", feed.id)
    return feed


def _theirs(opened: Opened, certificate: EnrolledCertificate, bus: Bus, standing: _Standing, now: datetime) -> Verified:
    """The signature holds, the signed part has the published shape, and it names this bus as its recipient."""
    step("theirs")
    verified = opened.verify(certificate, now, standing.confirm)
    if verified.recipient != bus.origin:
        raise Refusal("auth.wrong_recipient", f"{verified.recipient} != {bus.origin}")
    return verified


def _may_read(principal: Principal, view: str, bus: Bus, now: datetime) -> Grant:
    if view == OWN_DELIVERIES:  # one's own receipts and reports, for ever, whatever grants have ended since
        day = _day(now)
        return Grant("own", principal.bureau, "pull", view, (), day, day, "own receipts", "protocol", "", "")
    return authorise(principal, "pull", view, principal.bureau, bus.registry.grants(principal.bureau), _day(now))


def _acceptance(delivery: Delivery, checked: _Checked, evidence: str, standing: _Standing, bus: Bus) -> Acceptance:
    payload = checked.payload
    entry = _entry(
        "delivery",
        "accepted",
        standing,
        bus,
        {"evidence_digest": delivery.raw.digest.hex},  # the journal adds what the inbox keeps
    )
    return Acceptance(
        sender=payload.sender,
        message_id=payload.message_id,
        feed=payload.feed,
        content_type=payload.content_type,
        content_digest=payload.content.digest.hex,
        content_length=payload.content.size,
        request_digest=checked.verified.signature_digest,
        signer=payload.signer.certificate,
        carrier=standing.carried_by,
        evidence_class=checked.certificate.evidence_class,
        form=payload.form,
        grant=checked.grant.id,
        received_at=delivery.received_at,
        signed_at=payload.signed_at,
        evidence=evidence,
        entry=entry,
        sequence=payload.sequence,
    )


def _entry(kind: str, outcome: str, standing: _Standing, bus: Bus, detail: dict[str, str | int]) -> Entry:
    """An audit entry of what is established; before the signature holds it stands under the carrier alone."""
    feed = standing.feed if standing.feed in bus.feeds else ""
    signer = standing.signer
    return Entry(
        type=kind,
        outcome=outcome,
        actor=standing.known.certificate[:16] if standing.known else "",
        carrier=standing.carried_by,
        signer=signer.certificate if signer else "",
        sender=standing.sender,
        feed=feed,
        feed_digest=bus.feed_digests.get(feed, ""),
        grant=standing.grant,
        trust_digest=standing.trust_digest or bus.registry.trust().digest,
        detail={**detail, **standing.stands_in},
    )


def _read_entry(standing: _Standing, view: str, verified: VerifiedEnvelope, bus: Bus) -> Entry:
    asked: dict[str, str | int] = {
        "view": view,
        "operation": verified.operation,
        "component": verified.text("ComponentId"),
        "request_digest": verified.signature_digest,
        "signed_digest": verified.signed_digest,
        "purpose": verified.text("Purpose"),
        "case_number": verified.text("CaseNumber"),
    }
    return _entry("read", "answered", standing, bus, {name: value for name, value in asked.items() if value})


async def _entered(refusal: Refusal, standing: _Standing, bus: Bus) -> Refusal:
    """The refusal as this caller may hear it, once it stands in the audit.

    An enrolled carrier, or a signer whose signature held, hears the precise code and its entry's number. Anybody else
    hears `auth.refused` and a reference; for strangers one entry an address and minute, so that a flood cannot fill
    the log.
    """
    count_refusal(refusal.code)
    if standing.known is None:
        reference = secrets.token_hex(4)
        bus.journal.note_stranger(standing.remote, refusal.code)
        return Refusal("auth.refused", reference)
    if refusal.code in CROWDS:
        refusal.reference = secrets.token_hex(4)
        bus.journal.note_crowd(standing.carried_by, standing.sender, standing.feed, refusal.code)
        if not standing.by:  # who sends on regardless hears slowly: a flood of refusals costs the others, too
            await asyncio.sleep(bus.gate.hold_s(standing.feed))
        return refusal
    detail: dict[str, str | int] = {
        "code": refusal.code,
        "door": standing.door,
        "claimed_sender": standing.claimed_sender,
        "message_id": standing.message_id,
    }
    detail |= {"wanted": standing.wanted} if standing.wanted else {}
    sequenced = await landed(bus.journal.note(_entry("refusal", refusal.code, standing, bus, detail)))
    refusal.reference = str(sequenced.index)
    return refusal


def _day(now: datetime) -> str:
    return now.astimezone(CITY_TIME).date().isoformat()
