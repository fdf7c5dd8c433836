"""Asking an address that a setting names for a small file: no redirect, no proxy, a limit on octets and on time.

`requests` limits the wait for each octet; a server that sends one a minute would hold us for ever. Here the clock runs
over the whole exchange, the connection apart, and ends it.
"""

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from typing import Protocol
from urllib.parse import urlsplit

from security.errors import Refusal


class Fetch(Protocol):
    """Ask an address, as `fetch` does."""

    def __call__(
        self, url: str, *, most_bytes: int, seconds: float, body: bytes | None = None, content_type: str = ""
    ) -> bytes: ...


def fetch(
    url: str,
    *,
    most_bytes: int,
    seconds: float,
    body: bytes | None = None,
    content_type: str = "",
    headers: Mapping[str, str] = {},
    statuses: Collection[int] = (200,),
    tls: ssl.SSLContext | None = None,
    heard: Callable[[str, str], None] | None = None,
) -> bytes:
    """What a GET of the address gives, or a POST where there is a body.

    seconds:  for the connection, and once more for everything after it
    headers:  further ones of the request; statuses: what counts as an answer
    tls:      whom to trust over https; None: the machine's own roots
    heard:    hears the server's host and what it says the time is (RFC 9110 §6.6.1), where it says that

    Raises Refusal: `fetch.unreachable`, `fetch.status`, `fetch.too_large`, `fetch.too_slow`; the detail begins with
    the address.
    """
    with closing(_connection(url, seconds, tls)) as connection:
        try:
            connection.connect()
        except OSError as problem:
            raise Refusal("fetch.unreachable", f"{url}: {problem}"[:200]) from problem
        typed = {"Content-Type": content_type} if body is not None else {}
        late = threading.Event()
        timer = threading.Timer(seconds, _cut, (connection.sock, late))
        timer.daemon = True
        timer.start()
        try:
            octets = _exchanged(connection, url, most_bytes, body, {**typed, **headers}, statuses, heard)
        except (OSError, http.client.HTTPException) as problem:
            if not late.is_set() and not isinstance(problem, TimeoutError):
                raise Refusal("fetch.unreachable", f"{url}: {type(problem).__name__}") from problem
            late.set()
        finally:
            timer.cancel()
        if late.is_set():  # asked in any case: an answer that we cut off may look like one that ended
            raise Refusal("fetch.too_slow", f"{url}: {seconds:g} s")
        return octets


def _connection(url: str, seconds: float, tls: ssl.SSLContext | None) -> http.client.HTTPConnection:
    try:
        parts = urlsplit(url)
        if not parts.hostname:
            raise ValueError("no host")
        if parts.scheme == "https":
            return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=seconds, context=tls)
        if parts.scheme != "http":
            raise ValueError("no scheme of ours")
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=seconds)
    except (ValueError, http.client.InvalidURL) as problem:
        raise Refusal("fetch.unreachable", f"{url}: not an address of http or https") from problem


def _exchanged(
    connection: http.client.HTTPConnection,
    url: str,
    most_bytes: int,
    body: bytes | None,
    headers: Mapping[str, str],
    statuses: Collection[int],
    heard: Callable[[str, str], None] | None,
) -> bytes:
    target = urlsplit(url)
    path = (target.path or "/") + (f"?{target.query}" if target.query else "")
    connection.request("GET" if body is None else "POST", path, body, dict(headers))
    response = connection.getresponse()
    if heard is not None and (date := response.getheader("Date")):
        heard(target.hostname or "", date)
    if response.status not in statuses:
        raise Refusal("fetch.status", f"{url}: {response.status} {response.reason}"[:200])
    octets = response.read(most_bytes + 1)
    if len(octets) > most_bytes:
        raise Refusal("fetch.too_large", f"{url}: more than {most_bytes} octets")
    if response.length:  # the server announced more than it sent
        raise http.client.IncompleteRead(octets, response.length)
    return octets


def _cut(connected: socket.socket, late: threading.Event) -> None:
    """End the exchange from outside: whoever reads sees the end of the stream."""
    late.set()
    with contextlib.suppress(OSError):  # over already
        connected.shutdown(socket.SHUT_RDWR)
