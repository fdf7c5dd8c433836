"""What a bureau reads over REST: components that its grant covers, page by page, and outcomes of its own records."""

from collections.abc import Iterator
from typing import Any, Final

import msgspec
import requests

from connectors.partner.answers import Component
from connectors.partner.rest import asked
from security.errors import Unavailable

AT_ONCE: Final = 1000  # components a page, the most that the bus gives


class _Page(msgspec.Struct, frozen=True):
    """components: in order of their internal number; next: what to go on after."""

    components: tuple[Component, ...]
    next: int


def components(session: requests.Session, url: str, wanted: dict[str, str]) -> Iterator[tuple[Component, ...]]:
    """Every page until an empty one. wanted: `class`, `state`, `purpose`, `case_number`.

    Raises Refusal with the bus's own code, on whichever page; Unavailable.
    """
    after = 0
    while True:
        page = _page(session, f"{url}/api/v1/components", {**wanted, "after": after, "limit": AT_ONCE})
        if not page.components:
            return
        yield page.components
        after = page.next


def outcomes(session: requests.Session, url: str, message_id: str, wanted: dict[str, str]) -> bytes:
    """The Arrow file of what became of each record of a delivery. Raises as `components` does."""
    return asked(session, "GET", f"{url}/api/v1/deliveries/{message_id}/outcomes", params=wanted)


def picture(session: requests.Session, url: str, message_id: str, wanted: dict[str, str]) -> bytes:
    """The SVG of what a delivery of sheets changed. Raises as `components` does."""
    return asked(session, "GET", f"{url}/api/v1/deliveries/{message_id}/picture", params=wanted)


def changes_of_keys(session: requests.Session, url: str, known: int) -> bytes:
    """What the bus says of its keys' changes; nothing of it is believed yet. Raises Refusal, Unavailable."""
    return asked(session, "GET", f"{url}/api/v1/audit/anchors", params={"known": known, "purpose": "anchors"})


def _page(session: requests.Session, address: str, query: dict[str, Any]) -> _Page:
    octets = asked(session, "GET", address, params=query)
    try:
        return msgspec.json.decode(octets, type=_Page)
    except msgspec.MsgspecError as problem:
        raise Unavailable(f"{address}: not a page of components") from problem
