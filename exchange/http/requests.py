"""What the doors that take bodies have in common: the head of a request, and an answer to one still sending."""

from collections.abc import Mapping

import msgspec
from starlette.types import Receive, Scope, Send

from exchange.http.body import discard
from security.errors import Refusal


class Outcome(msgspec.Struct, frozen=True):
    """What goes back: an HTTP status, octets and what they are. linger: the client may still be sending."""

    status: int
    media_type: str
    octets: bytes
    headers: Mapping[str, str] = {}
    linger: bool = False


def headers_of(scope: Scope) -> dict[str, str]:
    """Names lower case. A header given twice becomes one list (RFC 9110 §5.3), which no single value equals."""
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def remote_of(scope: Scope) -> str:
    """The peer's address; empty where there is none."""
    return str((scope.get("client") or ("", 0))[0])


def declared_length(headers: Mapping[str, str]) -> int | None:
    """Content-Length, if there was one: the server has taken none that is no number."""
    length = headers.get("content-length")
    return int(length) if length else None


def retry_after(refusal: Refusal) -> dict[str, str]:
    """When the same may be sent again, as HTTP says it (RFC 9110 §10.2.3); nothing where nothing is said of it."""
    return {"retry-after": str(refusal.retry_after_s)} if refusal.retry_after_s else {}


async def send_outcome(outcome: Outcome, receive: Receive, send: Send) -> None:
    """Send the answer; one who is still sending is heard a moment longer, so that it reads the answer."""
    headers = {"content-type": outcome.media_type, "content-length": str(len(outcome.octets)), **outcome.headers}
    if outcome.linger:
        headers["connection"] = "close"
    if outcome.status == 503:
        headers.setdefault("retry-after", "5")
    listed = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": outcome.status, "headers": listed})
    await send({"type": "http.response.body", "body": outcome.octets, "more_body": outcome.linger})
    if outcome.linger:
        await discard(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
