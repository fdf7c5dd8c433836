"""A partner over MQTT: publish a signed delivery, wait for the receipt and the report that the bus publishes back.

A broker's acknowledgement is no receipt: until the bus's own signed receipt has come, the same envelope is sent again.
"""

import queue
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from connectors.partner.counter import Counter
from connectors.partner.envelope import names_of, sealed
from connectors.partner.folder import PartnerFolder
from connectors.partner.heads import Heads
from connectors.partner.over_broker import OverBroker
from connectors.partner.partner import Check, Received, Reported, Status, named
from connectors.partner.unasked import kept, opened, refusal_of
from security.errors import Refusal, Unavailable
from security.jws import Document
from security.message import Content
from security.signatures import open_signed

RECEIPT_WAIT_S: Final = 60.0
AGAIN_S: Final = 10.0  # without a receipt the same envelope is published once more


def inbound(feed: str) -> str:
    """The topic that takes a feed's deliveries."""
    return f"yt/v1/feeds/{feed}/in"


class MqttPartner(OverBroker):
    """One bureau's side of the exchange over a broker, within a `with` block.

    url, name: as `OverBroker` has them; check: verifies a receipt or report offline against the anchors
    """

    def __init__(
        self,
        folder: PartnerFolder,
        url: str,
        check: Check,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        name: str = "",
    ) -> None:
        super().__init__(folder, url, ["receipt", "report"], name)
        self._check, self._clock = check, clock
        self._heads, self._counter = Heads(folder, clock), Counter(folder)
        self._answerers = folder.answerers()
        self._reports: dict[str, Received] = {}

    def publish(self, topic: str, octets: bytes) -> "Future[None]":
        """Publish octets as they are; done when the broker acknowledged them, which says nothing of the bus."""
        return self._link.publish(topic, octets)

    def push(
        self,
        feed: str,
        content: Content,
        content_type: str,
        message_id: str,
        *,
        on_behalf_of: str = "",
        wait_s: float = RECEIPT_WAIT_S,
    ) -> Received:
        """Sign and publish one delivery; its receipt, once all of it holds. The same again gives the same receipt.

        on_behalf_of: as `Partner.push` has it

        Raises Refusal with the bus's code, `audit.*` where the receipt does not hold; Unavailable when none came.
        """

        def send(sequence: int | None) -> Received:
            now = self._clock()
            names = names_of(self._folder, feed, content_type, message_id, now, on_behalf_of, sequence)
            octets = sealed(self._folder, content, names)
            said = {
                **named(self._folder.bureau, on_behalf_of),
                "feed": feed,
                "content_digest": content.digest.hex,
                "content_length": content.size,
            }
            return self._push(octets, feed, content, message_id, said, wait_s)

        return send(None) if on_behalf_of else self._counter.sent(feed, message_id, send)

    def _push(
        self, octets: bytes, feed: str, content: Content, message_id: str, said: dict[str, Any], wait_s: float
    ) -> Received:
        """Publish an envelope until its receipt has come, which must say what is given."""
        request_digest = open_signed(octets).signature_digest
        until = time.monotonic() + wait_s
        while (left := until - time.monotonic()) > 0:
            self.publish(inbound(feed), octets)
            received = self._awaited(message_id, content, request_digest, min(left, AGAIN_S))
            if received is not None:
                return kept(self._folder, self._heads, self._check, "receipt", message_id, received, said)
        raise Unavailable(f"{message_id}: no receipt within {wait_s:.0f} s; send the same again later")

    def report(
        self, message_id: str, *, wait_s: float = 0.0, progress: Callable[[Status], None] = lambda status: None
    ) -> Reported:
        """What became of a delivery, if its report comes within wait_s seconds; one that came earlier is remembered."""
        until = time.monotonic() + wait_s
        progress("waiting")
        while message_id not in self._reports:
            left = until - time.monotonic()
            if left <= 0:
                return Reported("waiting", None)
            self._take(left)
        received = self._reports[message_id]
        status: Status = received.document["outcome"]
        progress(status)
        return Reported(status, received)

    def _awaited(self, message_id: str, content: Content, request_digest: str, seconds: float) -> bytes | None:
        """The receipt of that delivery, if it comes in time. Raises the bus's Refusal of this envelope.

        Another client of ours may have used the id for another content; that receipt is on this topic, too.
        """
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            taken = self._take(left)
            if taken is None:
                continue
            octets, document = taken
            if document.get("message_id") != message_id:
                continue
            if document.get("content_digest") == content.digest.hex:
                return octets
            if "code" in document and document.get("request_digest") == request_digest:
                raise refusal_of(document)
        return None

    def _take(self, seconds: float) -> tuple[bytes, Document] | None:
        """The next receipt or refusal that the bus signed; reports are put aside. None when none came in time."""
        try:
            arrived = self._arrived.get(timeout=max(seconds, 0.0))
        except queue.Empty:
            return None
        arrived.acknowledge()
        with suppress(Refusal):  # what the bus has not signed is nothing to us, whoever could publish it
            if arrived.topic.endswith("/report"):
                self._keep_report(arrived.octets)
            else:
                return arrived.octets, opened(arrived.octets, self._check, self._answerers)
        return None

    def _keep_report(self, octets: bytes) -> None:
        message_id = str(self._check(octets).document["message_id"])
        said = {"sender": self._folder.bureau}
        self._reports[message_id] = kept(self._folder, self._heads, self._check, "report", message_id, octets, said)
