"""Fetching from an address in the settings: real sockets, and every way in which a server can be bad."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from connectors.transports.fetch import fetch
from security.errors import Refusal
from tests.certificates.servers import FileServer, file_server

SECONDS = 0.5


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as server:
        yield server


def trickle(head: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
    """A server that says one octet a tenth of a second, for ever."""

    def handle(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(head)
        try:
            while True:
                handler.wfile.write(b"x")
                time.sleep(0.1)
        except OSError:
            return

    return handle


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
    try:
        while True:
            handler.wfile.write(bytes(65_536))
    except OSError:
        return


def test_what_is_at_an_address_is_given(server: FileServer) -> None:
    server.files["/ca.crl"] = b"x" * 100
    assert fetch(server.url("/ca.crl"), most_bytes=100, seconds=5) == b"x" * 100
    server.files["/a?b=c"] = b"with a query"
    assert fetch(server.url("/a?b=c"), most_bytes=100, seconds=5) == b"with a query"


BAD: dict[str, tuple[str, Any]] = {
    "nothing there": ("fetch.status", None),
    "elsewhere": (
        "fetch.status",
        lambda handler: handler.wfile.write(b"HTTP/1.1 302 Found\r\nLocation: /good\r\nContent-Length: 0\r\n\r\n"),
    ),
    "one octet too many": ("fetch.too_large", b"x" * 101),
    "endless": ("fetch.too_large", endless),
    "one octet at a time": ("fetch.too_slow", trickle(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n")),
    "a head one octet at a time": ("fetch.too_slow", trickle(b"HTTP/1.1 200 OK\r\nX: ")),
    "silent": ("fetch.too_slow", lambda handler: time.sleep(2 * SECONDS)),
    "cut short": (
        "fetch.unreachable",
        lambda handler: handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nConnection: close\r\n\r\nshort"),
    ),
    "no HTTP": ("fetch.unreachable", lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_server_is_named_in_time_and_its_address_is_said(server: FileServer, fault: str) -> None:
    code, answer = BAD[fault]
    if answer is not None:
        server.files["/ca.crl"] = answer
    server.files["/good"] = b"not to be fetched"
    began = time.monotonic()
    with pytest.raises(Refusal) as refusal:
        fetch(server.url("/ca.crl"), most_bytes=100, seconds=SECONDS)
    assert (refusal.value.code, time.monotonic() - began < 4 * SECONDS) == (code, True)
    assert refusal.value.detail.startswith(server.url("/ca.crl"))


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://127.0.0.1/a", "http://", "http://[::1", "http://127.0.0.1:x/", "ca.crl", ""]
)
def test_what_is_no_address_of_http_is_refused(url: str) -> None:
    with pytest.raises(Refusal, match=r"fetch\.unreachable"):
        fetch(url, most_bytes=100, seconds=SECONDS)


def test_a_port_where_nobody_listens_is_unreachable() -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(Refusal, match=r"fetch\.unreachable"):
            fetch(f"http://127.0.0.1:{taken.getsockname()[1]}/", most_bytes=100, seconds=SECONDS)
