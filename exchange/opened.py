"""A delivery's envelope, opened by its kind: what it claims, and how its claims are put to the test.

One class a kind; `exchange.intake` tells one story for all of them.
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, Protocol

from lxml import etree

from exchange.bus import Bus
from mappings.feed import Feed
from security import cms_delivery, jws_delivery, wss
from security.authenticate import TrustList
from security.errors import Refusal
from security.message import Carried, Delivery, EnrolledCertificate, Principal
from security.signatures import is_cms
from security.signed_delivery import SignedDelivery, VerifiedDelivery, check_age
from security.wss import VerifiedEnvelope

Verified = VerifiedEnvelope | VerifiedDelivery
# Hears the signer as soon as the signature holds, before anything else is judged.
Confirmed = Callable[[Principal], None]

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

    def certificate_in(self, trust: TrustList) -> EnrolledCertificate | None:
        """The enrolled certificate that it says it was signed with."""

    def verify(self, certificate: EnrolledCertificate, now: datetime, confirmed: Confirmed) -> Verified:
        """What was signed, once the signature holds and the signed part has the published shape. Raises Refusal."""

    def check_arrival(self, feed: Feed, now: datetime) -> None:
        """Return if it came by the rules of its door. Raises Refusal."""


class _Soap:
    """A SOAP envelope with WS-Security."""

    def __init__(self, delivery: Delivery, bus: Bus) -> None:
        self._delivery, self._schema = delivery, bus.schema
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

    def certificate_in(self, trust: TrustList) -> EnrolledCertificate | None:
        return trust.named(self._envelope.key_reference)

    def verify(self, certificate: EnrolledCertificate, now: datetime, confirmed: Confirmed) -> VerifiedEnvelope:
        attachment, attachment_id = self._delivery.attachment, self._delivery.attachment_id
        verified = wss.verify(self._envelope, certificate, now=now, attachment=attachment, attachment_id=attachment_id)
        confirmed(verified.signer)
        if not self._schema.validate(verified.element):
            raise Refusal("soap.schema_invalid", _broken_rules(self._schema))
        return verified

    def check_arrival(self, feed: Feed, now: datetime) -> None:
        """Its Timestamp was judged with its signature; of HTTP nothing else counts."""


class _ByBroker:
    """What is the same of a JWS and a CMS that a broker handed over."""

    def __init__(self, delivery: Delivery, envelope: SignedDelivery) -> None:
        assert delivery.carried is not None  # who hands it in says how it came
        self._carried: Carried = delivery.carried
        self._claims = envelope

    @property
    def sender(self) -> str:
        return self._claims.sender

    @property
    def feed(self) -> str:
        return self._claims.feed

    @property
    def message_id(self) -> str:
        return self._claims.message_id

    def check_arrival(self, feed: Feed, now: datetime) -> None:
        # A retained message comes again to every new subscriber, for ever; one of QoS 0 may not come at all.
        if self._carried.retained:
            raise Refusal("mqtt.retained")
        if not self._carried.qos:
            raise Refusal("mqtt.qos_zero")
        # The broker's rights are by topic, ours by what was signed: they must speak of one feed.
        if self._carried.feed != feed.id:
            raise Refusal("mqtt.feed_of_topic", f"{self._carried.feed} / {feed.id}")
        check_age(self._claims, now, feed.max_age)


class _Jws(_ByBroker):
    """A JWS."""

    def __init__(self, delivery: Delivery) -> None:
        self._envelope = jws_delivery.open_delivery(delivery.envelope)
        super().__init__(delivery, self._envelope)

    def certificate_in(self, trust: TrustList) -> EnrolledCertificate | None:
        return trust.by_fingerprint(self._envelope.certificate)

    def verify(self, certificate: EnrolledCertificate, now: datetime, confirmed: Confirmed) -> VerifiedDelivery:
        verified = jws_delivery.verify_delivery(self._envelope, certificate)
        confirmed(verified.signer)
        return verified


class _Cms(_ByBroker):
    """A CMS."""

    def __init__(self, delivery: Delivery) -> None:
        self._envelope = cms_delivery.open_delivery(delivery.envelope)
        super().__init__(delivery, self._envelope)

    def certificate_in(self, trust: TrustList) -> EnrolledCertificate | None:
        return trust.of_signer(self._envelope.signed_data)

    def verify(self, certificate: EnrolledCertificate, now: datetime, confirmed: Confirmed) -> VerifiedDelivery:
        verified = cms_delivery.verify_delivery(self._envelope, certificate)
        confirmed(verified.signer)
        return verified


def _by_broker(delivery: Delivery, bus: Bus) -> Opened:
    return _Cms(delivery) if is_cms(delivery.envelope) else _Jws(delivery)


_KINDS: Final[Mapping[str, Callable[[Delivery, Bus], Opened]]] = {"soap": _Soap, "mqtt": _by_broker}


def opened_of(delivery: Delivery, bus: Bus) -> Opened:
    """The envelope of a delivery, opened as its door's kind. Raises Refusal when it has not the one shape we read."""
    return _KINDS[delivery.door](delivery, bus)


def _broken_rules(schema: etree.XMLSchema) -> str:
    """Which members break which rule of the XSD; libxml2's own words go on to quote what was sent, content too."""
    errors: Any = schema.error_log  # its stub forgets that one can go through it
    named = ((_MEMBER.match(error.message), error.type_name.removeprefix("SCHEMAV_")) for error in errors)
    return ", ".join(dict.fromkeys(f"{member[1]}: {rule}" for member, rule in named if member))[:200]
