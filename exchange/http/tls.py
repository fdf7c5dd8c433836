"""HTTPS that asks for a client certificate and hands it to the doors, and a head that cannot grow without end."""

import asyncio
import itertools
import logging
import ssl
from asyncio.events import TimerHandle
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from security.errors import Misconfigured

MAX_HEAD_BYTES: Final = 16_384  # request line, headers, chunk framing and trailers of one request
MOST_OF_ADDRESS: Final = 256  # connections, a quarter of what the server holds: no one locks all others out
MOST_OF_CERTIFICATE: Final = 512  # connections, from wherever they come; half of what the server holds
HEAD_SECONDS: Final = 10.0  # a request line and headers that take longer are cut off
TOO_LARGE: Final = b"request head or chunk framing too large"


log = logging.getLogger("yongtong.door")
_handshakes_failed = itertools.count(1)
# By address, and by certificate; all protocols of a process live on one event loop.
_connections: Counter[str | bytes] = Counter()


class Protocol(HttpToolsProtocol):
    """uvicorn's httptools protocol with the peer's certificate in the scope, and limits on everything before the body.

    uvicorn promises none of the methods overridden here, so its version is pinned and the tests read the subject.
    """

    _connected = False
    _address = ""
    _certificate_der: bytes | None = None
    _counted: Sequence[str | bytes] = ()
    _head_timer: TimerHandle | None = None
    _in_head = True
    _head_bytes = 0  # request line, headers and trailers of this request
    _framing_bytes = 0  # octets of this request that are not body
    _body_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn declares it
        """Take the certificate once a connection: every request on it is carried by the same peer."""
        super().connection_made(transport)
        self._connected = True
        tls = transport.get_extra_info("ssl_object")
        self._certificate_der = tls.getpeercert(True) if tls is not None else None
        self._address = str((transport.get_extra_info("peername") or ("",))[0])
        self._counted = [self._address, *([self._certificate_der] if self._certificate_der else [])]
        _connections.update(self._counted)
        if (
            _connections[self._address] > MOST_OF_ADDRESS
            or _connections[self._certificate_der or b""] > MOST_OF_CERTIFICATE
        ):
            log.warning("door.too_many_connections remote=%s", self._address)
            transport.abort()
            return
        self._start_head_timer()

    def __del__(self) -> None:
        """A connection that was accepted and never made: its handshake failed. Python tells neither whose nor why."""
        if not self._connected:
            log.info("door.handshake_failed total=%d", next(_handshakes_failed))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer and the connection."""
        self._stop_head_timer()
        for whose in self._counted:
            _connections[whose] -= 1
            if not _connections[whose]:
                del _connections[whose]
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, counting what is not body: a head, a trailer or a chunk extension may not be endless."""
        if self.transport.is_closing():
            return
        self._framing_bytes += len(data)
        if self._in_head and self._head_timer is None:
            self._start_head_timer()
        super().data_received(data)
        # An honest chunk carries far more body than framing; a flood of one-octet chunks does not.
        if self._framing_bytes > MAX_HEAD_BYTES + self._body_bytes // 8 and not self.transport.is_closing():
            self._cut_off(431, TOO_LARGE)

    def on_message_begin(self) -> None:
        """Put the certificate where the doors look: `scope["extensions"]["tls"]["client_certificate_der"]`."""
        super().on_message_begin()
        self._in_head = True
        self.scope["extensions"] = {"tls": {"client_certificate_der": self._certificate_der}}

    def on_url(self, url: bytes) -> None:
        """Count the request line."""
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header, or a trailer: all of a long head may come in one piece."""
        self._count_head(len(name) + len(value) + 4)
        super().on_header(name, value)

    def send_400_response(self, msg: str) -> None:
        """Say what was wrong with the head."""
        if self._head_bytes > MAX_HEAD_BYTES:
            self._cut_off(431, TOO_LARGE)
        else:
            super().send_400_response(msg)

    def on_headers_complete(self) -> None:
        """The head has arrived in time."""
        self._in_head = False
        self._stop_head_timer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Count body apart from framing."""
        self._body_bytes += len(body)
        self._framing_bytes -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Start counting anew for the next request of this connection."""
        super().on_message_complete()
        self._framing_bytes = self._body_bytes = self._head_bytes = 0
        self._in_head = True

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            raise ValueError("head too large")  # httptools stops parsing; uvicorn then calls send_400_response

    def shutdown(self) -> None:
        """End at once when idle: a polite TLS close would wait for a client who has nothing to say."""
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()
        else:
            super().shutdown()

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._in_head and not self.transport.is_closing():
            self._cut_off(408, b"request head took too long")

    def _cut_off(self, status: int, sentence: bytes) -> None:
        if self.cycle is None or self.cycle.response_complete or self._in_head:
            head = STATUS_LINE[status] + b"content-type: text/plain\r\nconnection: close\r\ncontent-length: "
            self.transport.write(head + str(len(sentence)).encode() + b"\r\n\r\n" + sentence)
        self.transport.close()


def client_certificate(scope: Scope) -> bytes | None:
    """The DER certificate that the client showed in the handshake, or None."""
    shown: Any = scope.get("extensions", {}).get("tls", {}).get("client_certificate_der")
    return shown if isinstance(shown, bytes) else None


def server_context(certificate: Path, key: Path, *client_cas: Path, passphrase: bytes | None = None) -> ssl.SSLContext:
    """A TLS 1.2+ context that asks for a client certificate of one of `client_cas` and goes on without one.

    The doors that need a certificate refuse by name; one that fails its chain fails the handshake (Python's TLS has
    no hook there). All files are PEM; passphrase: of an encrypted key. Raises Misconfigured naming the file.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_OPTIONAL
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key, passphrase or b"")  # without one OpenSSL would ask the terminal
    except (OSError, ssl.SSLError) as problem:
        raise Misconfigured(
            "config.key", f"{certificate}, {key}: not a certificate with its key ({problem})"
        ) from problem
    for client_ca in client_cas:
        try:
            context.load_verify_locations(cafile=str(client_ca))
        except (OSError, ssl.SSLError) as problem:
            raise Misconfigured("config.key", f"{client_ca}: not a file of CA certificates ({problem})") from problem
    return context
