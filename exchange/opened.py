"""A delivery's envelope, opened by its kind: what it claims, and how its claims are put to the test.

One class a kind; `exchange.intake` tells one story for all of them.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, Protocol

import msgspec
from lxml import etree

from exchange.bus import Bus
from exchange.receipts import issue_refusal
from mappings.feed import Feed
from security import wss
from security.authenticate import TrustList
from security.errors import Refusal
from security.message import Carried, Content, Delivery, EnrolledCertificate, Principal
from security.signatures import certificate_of, open_signed, verify_signed
from security.signed_delivery import SignedDelivery, VerifiedDelivery, check_age
from security.wss import VerifiedEnvelope

Verified = VerifiedEnvelope | VerifiedDelivery
# Hears the signer as soon as the signature holds, before anything else is judged.
Confirmed = Callable[[Principal], None]

COMPLETE_UPLOAD: Final = "CompleteUpload"
_MEMBER: Final = re.compile(r"Element '(?:\{[^}']*\})?([^']*)'")


class Opened(Protocol):
    """An envelope whose shape is right and of which nothing is believed yet."""

    @property
    def sender(self) -> str:
        """The bureau that it names as its sender."""

    @property
    def feed(self) -> str:
        """The feed that it names; empty in a read."""

    @property
    def message_id(self) -> str:
        """Its message id."""

    @property
    def request_digest(self) -> str:
        """SHA-256 of its signature's octets, lower-case hex: names this one envelope in an answer."""

    def certificate_in(self, trust: TrustList) -> EnrolledCertificate | None:
        """The enrolled certificate that it says it was signed with."""

    def verify(self, certificate: EnrolledCertificate, now: datetime, confirmed: Confirmed) -> Verified:
        """What was signed, once the signature holds and the signed part has the published shape. Raises Refusal."""

    def check_arrival(self, feed: Feed, now: datetime) -> None:
        """Return if it came by the rules of its door. Raises Refusal."""


class _Soap:
    """A SOAP envelope with WS-Security."""

    def __init__(self, delivery: Delivery, bus: Bus) -> None:
        self._delivery, self._schema, self._uploads = delivery, bus.schema, bus.uploads
        self._envelope = wss.open_envelope(
            delivery.envelope, wss.Limits(max_bytes=bus.limits.max_envelope_bytes), bus.xml_suites
        )

    @property
    def sender(self) -> str:
        return self._envelope.claimed("Sender")

    @property
    def feed(self) -> str:
        return self._envelope.claimed("Feed")

    @property
    def message_id(self) -> str:
        return self._envelope.claimed("MessageId")

    @property
    def request_digest(self) -> str:
        return hashlib.sha256(self._envelope.signature.value).hexdigest()

    def certificate_in(self, trust: TrustList) -> EnrolledCertificate | None:
        return trust.named(self._envelope.key_reference)

    def verify(self, certificate: EnrolledCertificate, now: datetime, confirmed: Confirmed) -> VerifiedEnvelope:
        upload = self._delivery.attachment if self._envelope.operation == COMPLETE_UPLOAD else None
        attachment = self._delivery.attachment if upload is None else None
        attachment_id = self._delivery.attachment_id if upload is None else ""
        verified = wss.verify(self._envelope, certificate, now=now, attachment=attachment, attachment_id=attachment_id)
        confirmed(verified.signer)
        if not self._schema.validate(verified.element):
            raise Refusal("soap.schema_invalid", _broken_rules(self._schema))
        return verified if upload is None else self._of_upload(verified, upload)

    def check_arrival(self, feed: Feed, now: datetime) -> None:
        """Its Timestamp was judged with its signature; of HTTP nothing counts but what it says is asked for.

        Raises Refusal `soap.action_mismatch`: what was signed for one operation is not to be taken for another.
        """
        if self._delivery.operation not in ("", self._envelope.operation):
            raise Refusal("soap.action_mismatch", f"{self._delivery.operation} / {self._envelope.operation}")

    def _of_upload(self, verified: VerifiedEnvelope, content: Content) -> VerifiedEnvelope:
        """The same with the content that came before, if it was this signer who sent it for this delivery."""
        names = (verified.signer.bureau, *(verified.text(name) for name in ("Sender", "Feed", "MessageId")))
        self._uploads.check(verified.text("UploadId"), names)
        return msgspec.structs.replace(verified, attachment=content, form="upload")


class _Enveloped:
    """A JWS or a CMS, by a broker's hand, over REST or in a package."""

    def __init__(self, delivery: Delivery, bus: Bus) -> None:
        self._carried = delivery.carried
        self._envelope = open_signed(delivery.envelope)

    @property
    def sender(self) -> str:
        return self._envelope.sender

    @property
    def feed(self) -> str:
        return self._envelope.feed

    @property
    def message_id(self) -> str:
        return self._envelope.message_id

    @property
    def request_digest(self) -> str:
        return self._envelope.signature_digest

    def certificate_in(self, trust: TrustList) -> EnrolledCertificate | None:
        return certificate_of(self._envelope, trust)

    def verify(self, certificate: EnrolledCertificate, now: datetime, confirmed: Confirmed) -> VerifiedDelivery:
        verified = verify_signed(self._envelope, certificate)
        confirmed(verified.signer)
        return verified

    def check_arrival(self, feed: Feed, now: datetime) -> None:
        if self._carried is not None:
            _check_handed_over(self._carried, feed)
        check_age(self._envelope, now, feed.max_age)


_KINDS: Final[Mapping[str, Callable[[Delivery, Bus], Opened]]] = {
    "soap": _Soap,
    "mqtt": _Enveloped,
    "rest": _Enveloped,
    "folder": _Enveloped,
}


def opened_of(delivery: Delivery, bus: Bus) -> Opened:
    """The envelope of a delivery, opened as its door's kind. Raises Refusal when it has not the one shape we read."""
    return _KINDS[delivery.door](delivery, bus)


def refusal_to_signer(refusal: Refusal, octets: bytes, bus: Bus) -> tuple[SignedDelivery, str, bytes] | None:
    """What to tell whoever signed a JWS or CMS that was refused, where its door has no fault of its own: the envelope,
    the signer's bureau, the signed refusal. None for a stranger, who hears nothing: nobody knows where he listens.

    Raises Unavailable where our key lies in a token that is away.
    """
    if refusal.code == "auth.refused":
        return None
    envelope = open_signed(octets)  # it opened before, or nobody could have been told
    # To whoever signed, in whose name ever: the named sender may know nothing of it.
    certificate = certificate_of(envelope, bus.registry.trust())
    if certificate is None:  # it was there when it was refused; since then it has gone
        return None
    answer = issue_refusal(
        refusal,
        bus.origin,
        envelope.sender,
        envelope.feed,
        envelope.message_id,
        envelope.signature_digest,
        bus.answer_key,
    )
    return envelope, certificate.bureau, answer


def _check_handed_over(carried: Carried, feed: Feed) -> None:
    """What a broker says of a message beside handing it over. Raises Refusal `mqtt.*`."""
    # A retained message comes again to every new subscriber, for ever; one of QoS 0 may not come at all.
    if carried.retained:
        raise Refusal("mqtt.retained")
    if not carried.qos:
        raise Refusal("mqtt.qos_zero")
    # The broker's rights are by topic, ours by what was signed: they must speak of one feed.
    if carried.feed != feed.id:
        raise Refusal("mqtt.feed_of_topic", f"{carried.feed} / {feed.id}")


def _broken_rules(schema: etree.XMLSchema) -> str:
    """Which members break which rule of the XSD; libxml2's own words go on to quote what was sent, content too."""
    errors: Any = schema.error_log  # its stub forgets that one can go through it
    named = ((_MEMBER.match(error.message), error.type_name.removeprefix("SCHEMAV_")) for error in errors)
    return ", ".join(dict.fromkeys(f"{member[1]}: {rule}" for member, rule in named if member))[:200]
