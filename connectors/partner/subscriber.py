"""A subscriber's side of the change feed: the bus's signed documents on its own topic, one after the other.

The bus moves its cursor once the broker has a document. What the broker then does with it is between broker and
subscriber: without a named client it keeps nothing for whoever is away. A subscriber sees that something is missing by
a document's `after`, which is not the `next` of the one before, and pulls what lies between (`Partner.changes`).
"""

import queue
from contextlib import suppress
from typing import Final

from connectors.partner.folder import PartnerFolder
from connectors.partner.over_broker import OverBroker
from security.errors import Refusal
from security.jws import Document, open_document

CHANGES: Final = "yt-changes+jws"


class Subscriber(OverBroker):
    """Hears of changes over a broker, within a `with` block. url, name: as `OverBroker` has them."""

    def __init__(self, folder: PartnerFolder, url: str, name: str = "") -> None:
        super().__init__(folder, url, ["changes"], name)

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
