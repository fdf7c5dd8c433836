"""Both acts in one process: a bus as `init` makes it, deliveries signed with real keys, no socket and no worker."""

import asyncio
import base64
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from lxml import etree

from connectors.partner.folder import PartnerFolder
from exchange.app import keys_in_force, opening, trusted
from exchange.bus import Bus
from exchange.cli.trial import City, Trial
from exchange.intake import Received, recall, receive
from exchange.receipts import verify_receipt
from exchange.registry import Bureau
from samples import city as sample_city
from security import cms_delivery, jws_delivery, pki
from security.keys import Kind, SigningKey, generate
from security.message import Carried, Delivery, in_memory
from security.wss import sign
from tests.registers import a_register

SAMPLE = Path(sample_city.__file__).parent
EXTENT = (121.54, 29.862, 121.56, 29.877)
FEED = "made-up-covers"
REGISTER = a_register(FEED, "Covers", "井盖", top='\n[defaults]\nowner_name = "某单位"\n')
YT = "{urn:yongtong:v1}"
SOAP = "http://schemas.xmlsoap.org/soap/envelope/"


class Acts:
    """A bus that `made-up` may push to, and the two acts as calls."""

    def __init__(self, trial: Trial, bus: Bus) -> None:
        self.trial, self.bus = trial, bus

    @property
    def folder(self) -> PartnerFolder:
        """The keys of `made-up`."""
        return PartnerFolder(self.trial.partners / "made-up")

    def report(self, message_id: str) -> dict[str, Any]:
        """What the signed report of a delivery of `made-up` says of it."""
        octets = self.bus.journal.report("made-up", message_id)
        assert octets is not None
        told: dict[str, Any] = verify_receipt(octets, trusted.anchors_of(self.trial.settings)).document["report"]
        return told

    def with_(self, **changed: Any) -> "Acts":
        """The same, with members of the bus changed."""
        return Acts(self.trial, msgspec.structs.replace(self.bus, **changed))

    def delivery(
        self, message_id: str, content: bytes, feed: str = FEED, key: SigningKey | None = None, **spoiled: str
    ) -> Delivery:
        """A SubmitDelivery as it arrives, signed now by the bus's clock; members may be spoiled by name."""
        members = {
            "Sender": "made-up",
            "Recipient": self.bus.origin,
            "MessageId": message_id,
            "Feed": feed,
            "ContentType": "text/csv",
            "ContentDigest": in_memory(content).digest.hex,
            "Content": base64.b64encode(content).decode(),
            **spoiled,
        }
        octets = self._signed("SubmitDelivery", members, key or self.folder.signing)
        return self._arrived(octets)

    def by_broker(
        self,
        message_id: str,
        content: bytes,
        feed: str = FEED,
        key: SigningKey | None = None,
        *,
        topic_feed: str = "",
        qos: int = 1,
        retained: bool = False,
        **spoiled: Any,
    ) -> Delivery:
        """The same as a JWS, of an SM2 key as a CMS, that a broker hands over; what it says may be spoiled by name."""
        key = key or self.folder.signing
        signs = cms_delivery.sign_delivery if key.algorithm == "SM2" else jws_delivery.sign_delivery
        said: dict[str, Any] = {"sender": "made-up", "recipient": self.bus.origin, "content_type": "text/csv"}
        said |= {"signed_at": self.bus.clock(), "feed": feed, "message_id": message_id, **spoiled}
        return self.handed_over(
            signs(content, key, **said),
            Carried(topic_feed or feed, qos, retained),
        )

    def more_key(self, kind: Kind) -> SigningKey:
        """A further signing key of `made-up`, enrolled."""
        key, now = generate(kind), self.bus.clock()
        ca, day = keys_in_force.authority(self.trial.settings), timedelta(days=1)
        der = pki.issue(ca, "made-up", key.public_key, "signing", now - day, now + day)
        self.trial.enrol_with(Bureau("made-up", "", "", ""), [pki.enrolled(der, "made-up", "signing")])
        return key.with_certificate(der)

    def handed_over(self, octets: bytes, carried: Carried | None = None) -> Delivery:
        """Any octets that a broker hands over."""
        carried = carried or Carried(FEED, 1, False)
        return Delivery("mqtt", None, "broker:test", octets, in_memory(octets), self.bus.clock(), carried=carried)

    def asking(self, operation: str, message_id: str, bureau: str = "made-up", **more: str) -> Delivery:
        """A signed read as it arrives."""
        members = {"Sender": bureau, "Recipient": self.bus.origin, "MessageId": message_id, "Purpose": "test", **more}
        folder = PartnerFolder(self.trial.partners / bureau)
        return self._arrived(self._signed(operation, members, folder.signing), folder)

    def recalling(self, message_id: str, by: str = "made-up", ground: str = "数据有误", **spoiled: str) -> Delivery:
        """A RecallDelivery as it arrives; members may be spoiled by name."""
        members = {
            "Sender": by,
            "Recipient": self.bus.origin,
            "MessageId": f"recall-{message_id}",
            "DeliveryMessageId": message_id,
            "Ground": ground,
            **spoiled,
        }
        folder = PartnerFolder(self.trial.partners / by)
        arrived = self._arrived(self._signed("RecallDelivery", members, folder.signing), folder)
        return msgspec.structs.replace(arrived, operation="RecallDelivery")

    def recall(self, delivery: Delivery) -> bytes:
        """Act one of a recall; gives its signed answer. Raises what `recall` raises."""
        return asyncio.run(recall(delivery, self.bus))[2]

    def push(self, message_id: str, content: bytes, feed: str = FEED, key: SigningKey | None = None) -> Received:
        """Act one. Raises what `receive` raises."""
        return self.receive(self.delivery(message_id, content, feed, key))

    def receive(self, delivery: Delivery) -> Received:
        """Act one for a delivery as it arrived."""
        return self.receive_all(delivery)[0]

    def receive_all(self, *deliveries: Delivery) -> list[Received]:
        """Act one for deliveries that arrive at once."""

        async def together() -> list[Received]:
            return await asyncio.gather(*(receive(delivery, self.bus) for delivery in deliveries))

        return asyncio.run(together())

    def evidence(self, received: Received) -> Path:
        """The file in which a delivery's evidence lies."""
        return self.bus.folder / "evidence" / received.inbox.evidence.partition(":")[0]

    def _arrived(self, octets: bytes, folder: PartnerFolder | None = None) -> Delivery:
        path = (folder or self.folder).path
        carrier = SigningKey.load(path / "connection.key", certificate_path=path / "connection.pem")
        return Delivery("soap", carrier.certificate_der, "127.0.0.1", octets, in_memory(octets), self.bus.clock())

    def _signed(self, operation: str, members: dict[str, str], key: SigningKey) -> bytes:
        return signed_request(operation, members, key, self.bus.clock())


def signed_request(operation: str, members: dict[str, str], key: SigningKey, created: datetime) -> bytes:
    """A request's octets, its members in this order; good for five minutes."""
    envelope = etree.Element(f"{{{SOAP}}}Envelope", nsmap={"s": SOAP})
    body = etree.SubElement(envelope, f"{{{SOAP}}}Body")
    element = etree.SubElement(body, f"{YT}{operation}", nsmap={None: YT[1:-1]})
    for name, text in members.items():
        child = etree.SubElement(element, YT + name)
        child.text = text
        if name == "ContentDigest":
            child.set("algorithm", "SHA-256")
    assert key.certificate_der is not None
    return sign(envelope, key, key.certificate_der, created=created, expires=created + timedelta(minutes=5))


def covers(key: str, count: int = 3) -> bytes:
    """A CSV file of covers that are right in every respect, some ten metres apart; their keys begin with `key`."""
    places = ((121.547 + n // 50 * 1e-4, 29.868 + n % 50 * 1e-4) for n in range(count))
    rows = [f"{key}-{n},0101,{east:.6f},{north:.6f}" for n, (east, north) in enumerate(places)]
    return "\n".join(["编号,类别,经度,纬度", *rows, ""]).encode()


@contextmanager
def both_acts(folder: Path, settings: dict[str, Any] | None = None, **more: str) -> Iterator[Acts]:
    """A bus with one feed of the bureau `made-up`, which is enrolled and holds no grant yet.

    settings: tables of the settings file, as `Trial` takes them; more: further feed files
    """
    (folder / "feeds").mkdir(parents=True)
    for feed, text in {FEED: REGISTER, **more}.items():
        (folder / "feeds" / f"{feed}.toml").write_text(text, encoding="utf-8")
    city = City(EXTENT, SAMPLE / "districts.geojson", SAMPLE / "grid.geojson", (folder / "feeds",))
    trial = Trial(folder / "bus", city, **(settings or {}))
    trial.enrol("made-up", "Made-up bureau", "某单位")
    bus = opening.open_bus(trial.settings)
    try:
        yield Acts(trial, bus)
    finally:
        bus.close()


def at(moment: datetime) -> Any:
    """A clock that stands still."""
    return lambda: moment
