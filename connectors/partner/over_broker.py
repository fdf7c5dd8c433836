"""A partner's connection to a broker: its own certificate, its own topics, and what arrives on them."""

import queue
import secrets
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from connectors.partner.folder import PartnerFolder
from connectors.transports.mqtt import FOR_EVER, Arrived, Link, address_of, client_tls
from security.errors import Unavailable

CONNECT_S: Final = 20.0


class OverBroker:
    """Connected within a `with` block.

    url:   of the broker, `mqtts://host:port`
    kinds: the bureau's own topics to hear, `receipt`, `report`, `changes`
    name:  of this client, after the colon of its client id; the broker keeps what comes for it while it is away
    """

    def __init__(self, folder: PartnerFolder, url: str, kinds: Sequence[str], name: str) -> None:
        self._folder, self._url = folder, url
        self._arrived: queue.SimpleQueue[Arrived] = queue.SimpleQueue()
        tls = client_tls(folder.file("connection.pem"), folder.file("connection.key"), folder.file("ca.pem"))
        client_id = f"{folder.bureau}:{name or secrets.token_hex(6)}"
        topics = [f"yt/v1/to/{folder.bureau}/{kind}" for kind in kinds]
        self._link = Link(address_of(url, tls), client_id, topics, self._arrived.put, keep_s=FOR_EVER if name else 0)

    def __enter__(self) -> Self:
        self._link.start()
        if not self._link.wait_ready(CONNECT_S):
            self._link.stop()
            raise Unavailable(f"{self._url}: no connection within {CONNECT_S:.0f} s")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._link.stop()
