"""A subscriber's side of the change feed: the bus's signed documents on its own topic, one after the other.

The bus moves its cursor once the broker has a document. What the broker then does with it is between broker and
subscriber: without a named client it keeps nothing for whoever is away. A subscriber sees that something is missing by
a document's `after`, which is not the `next` of the one before, and pulls what lies between (`Partner.changes`).
"""

import queue
import secrets
from contextlib import suppress
from types import TracebackType
from typing import Final

from connectors.partner.folder import PartnerFolder
from connectors.transports.mqtt import Arrived, Link, address_of, client_tls
from security.errors import Refusal, Unavailable
from security.jws import Document, open_document

CONNECT_S: Final = 20.0
CHANGES: Final = "yt-changes+jws"


class Subscriber:
    """Hears of changes over a broker, within a `with` block.

    url:  of the broker, `mqtts://host:port`
    name: of this client, after the colon of its client id; the broker keeps what comes for it while it is away
    """

    def __init__(self, folder: PartnerFolder, url: str, name: str = "") -> None:
        self._folder, self._url = folder, url
        self._arrived: queue.SimpleQueue[Arrived] = queue.SimpleQueue()
        tls = client_tls(folder.file("connection.pem"), folder.file("connection.key"), folder.file("ca.pem"))
        client_id = f"{folder.bureau}:{name or secrets.token_hex(6)}"
        topic = f"yt/v1/to/{folder.bureau}/changes"
        self._link = Link(address_of(url, tls), client_id, [topic], self._arrived.put, keep=bool(name))

    def __enter__(self) -> "Subscriber":
        self._link.start()
        if not self._link.wait_ready(CONNECT_S):
            self._link.stop()
            raise Unavailable(f"{self._url}: no connection within {CONNECT_S:.0f} s")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._link.stop()

    def next(self, wait_s: float) -> Document | None:
        """The next document that the bus signed for us: `after`, `next`, `changes`. None when none comes in time.

        It is acknowledged when it is given: whoever must not lose one writes down `next` before asking again, and after
        a crash pulls from there.
        """
        try:
            arrived = self._arrived.get(timeout=wait_s)
        except queue.Empty:
            return None
        arrived.acknowledge()
        document = self._opened(arrived.octets)
        if (document["origin"], document["recipient"]) != (self._folder.anchors.origin, self._folder.bureau):
            raise Refusal("auth.wrong_recipient", f"{document['origin']} / {document['recipient']}"[:120])
        return document

    def _opened(self, octets: bytes) -> Document:
        for known in self._folder.answerers():
            with suppress(Refusal):
                return open_document(octets, known.der, CHANGES)
        raise Refusal("answer.not_signed", "not by a certificate among the anchors")
