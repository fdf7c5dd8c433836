"""The components that a bureau's grant covers, page by page over REST; each page is granted by itself."""

from collections.abc import Iterator
from typing import Any, Final

import msgspec
import requests

from connectors.partner.answers import Component
from security.errors import Refusal, Unavailable, sentences

AT_ONCE: Final = 1000  # components a page, the most that the bus gives
TIMEOUT_S: Final = 60.0


class _Page(msgspec.Struct, frozen=True):
    """components: in order of their internal number; next: what to go on after."""

    components: tuple[Component, ...]
    next: int


class _Said(msgspec.Struct, frozen=True):
    code: str
    detail: str
    reference: str


class _Refused(msgspec.Struct, frozen=True):
    refusal: _Said


def components(session: requests.Session, url: str, asked: dict[str, str]) -> Iterator[tuple[Component, ...]]:
    """Every page until an empty one. asked: `class`, `state`, `purpose`, `case_number`.

    Raises Refusal with the bus's own code, on whichever page; Unavailable.
    """
    after = 0
    while True:
        page = _page(session, f"{url}/api/v1/components", {**asked, "after": after, "limit": AT_ONCE})
        if not page.components:
            return
        yield page.components
        after = page.next


def changes_of_keys(session: requests.Session, url: str, known: int) -> bytes:
    """What the bus says of its keys' changes; nothing of it is believed yet. Raises Refusal, Unavailable."""
    return _answer(session, f"{url}/api/v1/audit/anchors", {"known": known, "purpose": "anchors"})


def _page(session: requests.Session, address: str, query: dict[str, Any]) -> _Page:
    try:
        return msgspec.json.decode(_answer(session, address, query), type=_Page)
    except msgspec.MsgspecError as problem:
        raise Unavailable(f"{address}: not an answer of the bus's") from problem


def _answer(session: requests.Session, address: str, query: dict[str, Any]) -> bytes:
    try:
        answer = session.get(address, params=query, timeout=TIMEOUT_S)
    except requests.RequestException as problem:
        raise Unavailable(f"{address}: {problem}") from problem
    try:
        if answer.status_code == 200:
            return answer.content
        said = msgspec.json.decode(answer.content, type=_Refused).refusal
    except msgspec.MsgspecError as problem:
        raise Unavailable(f"{address}: HTTP {answer.status_code}") from problem
    refusal = Refusal(said.code, said.detail) if said.code in sentences() else Refusal("answer.refused", said.code)
    refusal.reference = said.reference
    raise refusal
