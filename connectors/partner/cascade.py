"""A district's node at the door of its city's: heads handed up, reference data fetched, all over its connection."""

from functools import cached_property
from typing import Final

import msgspec
import requests

from connectors.partner.folder import PartnerFolder
from connectors.partner.rest import asked, session_of
from security.errors import Unavailable

PURPOSE: Final = "cascade 级联"


class _Size(msgspec.Struct, frozen=True):
    size: int


class CityNode:
    """The cascade's addresses of the bus at url.

    Each raises Refusal with the bus's own code; Unavailable; Misconfigured without the connection's certificate.
    """

    def __init__(self, folder: PartnerFolder, url: str) -> None:
        self._folder, self._address = folder, f"{url}/api/v1"

    @cached_property
    def _session(self) -> requests.Session:
        return session_of(self._folder)

    def known_size(self) -> int:
        """Entries of our log under the last head that it took."""
        return self._size(self._get("cascade/head"))

    def hand_in(self, checkpoint: str, known: int, nodes: tuple[bytes, ...]) -> int:
        """Give it a head of our log with the proof from the size that it knows; the size that it knows then."""
        body = msgspec.json.encode({"checkpoint": checkpoint, "known": known, "nodes": [node.hex() for node in nodes]})
        headers = {"content-type": "application/json"}
        return self._size(asked(self._session, "POST", f"{self._address}/cascade/heads", data=body, headers=headers))

    def reference(self) -> bytes:
        """The signed list of reference data; nothing of it is checked yet."""
        return self._get("reference")

    def part(self, digest: str) -> bytes:
        """One part of it, by its digest; not checked either."""
        return self._get(f"reference/{digest}")

    def _get(self, what: str) -> bytes:
        return asked(self._session, "GET", f"{self._address}/{what}", params={"purpose": PURPOSE})

    def _size(self, octets: bytes) -> int:
        try:
            return msgspec.json.decode(octets, type=_Size).size
        except msgspec.MsgspecError as problem:
            raise Unavailable("the city's node did not say which head it knows") from problem
