"""The bus's log as one who watches it reads it: heads and proofs over REST, and a line handed back."""

from functools import cached_property
from typing import Any, Final

import msgspec
import requests

from connectors.partner.folder import PartnerFolder
from connectors.partner.rest import asked, session_of
from security.errors import Unavailable

PURPOSE: Final = "witness 见证"


class Kept(msgspec.Struct, frozen=True):
    """What the bus has of a head now. witnesses: whose lines; cosigned: whether they are as many as it demands."""

    size: int
    witnesses: tuple[str, ...]
    quorum: int
    cosigned: bool


class _Nodes(msgspec.Struct, frozen=True):
    nodes: tuple[str, ...]


class Log:
    """The audit addresses of the bus at url, asked over the partner's own connection.

    Each raises Refusal with the bus's own code; Unavailable; Misconfigured without the connection's certificate.
    """

    def __init__(self, folder: PartnerFolder, url: str) -> None:
        self._folder, self._address = folder, f"{url}/api/v1/audit"

    @cached_property
    def _session(self) -> requests.Session:
        return session_of(self._folder)

    def checkpoint(self) -> str:
        """The newest signed head; nothing of it is checked yet."""
        return self._head({})

    def to_cosign(self) -> str:
        """The head that a witness should sign next, so that several sign the same; it may have lines of others."""
        return self._head({"to_cosign": "true"})

    def consistency(self, first: int, second: int) -> tuple[bytes, ...]:
        """RFC 6962's proof between two sizes, 0 < first <= second."""
        return self._nodes("consistency", {"from": first, "to": second})

    def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """RFC 6962's audit path of an entry, from the sibling upwards."""
        return self._nodes("inclusion", {"index": index, "size": size})

    def hand_in(self, checkpoint: str) -> Kept:
        """Give the bus a head with a witness's line below it."""
        headers = {"content-type": "text/plain; charset=utf-8"}
        address = f"{self._address}/cosignatures"
        octets = asked(self._session, "POST", address, data=checkpoint.encode(), headers=headers)
        try:
            return msgspec.json.decode(octets, type=Kept)
        except msgspec.MsgspecError as problem:
            raise Unavailable("the bus did not say what it kept") from problem

    def _head(self, query: dict[str, str]) -> str:
        octets = asked(self._session, "GET", f"{self._address}/checkpoint", params={**query, "purpose": PURPOSE})
        return octets.decode("utf-8", "replace")

    def _nodes(self, what: str, query: dict[str, Any]) -> tuple[bytes, ...]:
        octets = asked(self._session, "GET", f"{self._address}/{what}", params={**query, "purpose": PURPOSE})
        try:
            return tuple(bytes.fromhex(node) for node in msgspec.json.decode(octets, type=_Nodes).nodes)
        except (msgspec.MsgspecError, ValueError) as problem:
            raise Unavailable(f"the bus gave no {what} proof") from problem
