"""Servers that take what the bus sends out, on real sockets: HTTP, OTLP over HTTP, SMTP with TLS."""

import gzip
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Posted(NamedTuple):
    """One request. headers by lower-case name."""

    path: str
    headers: dict[str, str]
    body: bytes


class HttpSink:
    """Takes POSTs. status, date, wait_s: how it answers from now on."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.posted: list[Posted] = []
        self.status, self.date, self.wait_s = 200, "", 0.0
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                sink.posted.append(Posted(self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                time.sleep(sink.wait_s)
                with suppress(OSError):
                    self.send_response_only(sink.status)
                    self.send_header("Content-Length", "0")
                    if sink.date:
                        self.send_header("Date", sink.date)
                    self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'https' if tls else 'http'}://localhost:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def __enter__(self) -> "HttpSink":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class Span(NamedTuple):
    """A span as it came, in hex and plain values."""

    name: str
    trace: str
    span: str
    parent: str
    attributes: dict[str, Any]
    links: list[str]


def spans(sink: HttpSink) -> list[Span]:
    """All spans that came by OTLP."""
    found = []
    for posted in list(sink.posted):
        assert posted.path == "/v1/traces"
        body = gzip.decompress(posted.body) if posted.headers.get("content-encoding") == "gzip" else posted.body
        request = ExportTraceServiceRequest.FromString(body)
        for one in (s for r in request.resource_spans for scope in r.scope_spans for s in scope.spans):
            attributes = {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in one.attributes}
            ids = (one.trace_id.hex(), one.span_id.hex(), one.parent_span_id.hex())
            found.append(Span(one.name, *ids, attributes, [link.trace_id.hex() for link in one.links]))
    return found


class SmtpSink:
    """A mail server. mails: (login, sender, recipients, text). implicit: TLS from the first octet, else STARTTLS.

    password: what it takes; refuses: recipients that it does not; drip: answers an octet a second
    """

    def __init__(self, tls: ssl.SSLContext, *, implicit: bool = False, password: str = "") -> None:
        self.mails: list[tuple[str, str, list[str], str]] = []
        self.password, self.refuses, self.drip, self.starttls = password, set[str](), False, True
        self.tls, self.implicit = tls, implicit
        sink = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with suppress(OSError):
                    _Session(sink, self.request).run()

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"{'smtps' if implicit else 'smtp'}://localhost:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def __enter__(self) -> "SmtpSink":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Session:
    def __init__(self, sink: SmtpSink, connection: socket.socket) -> None:
        self._sink, self._connection = sink, connection
        self._secure, self._login, self._sender, self._to = False, "", "", list[str]()
        if sink.implicit:
            self._wrap()
        self._lines = self._connection.makefile("rb")

    def _wrap(self) -> None:
        self._connection = self._sink.tls.wrap_socket(self._connection, server_side=True)
        self._secure = True

    def _say(self, *lines: str) -> None:
        octets = "".join(f"{line}\r\n" for line in lines).encode()
        for octet in octets if self._sink.drip else ():
            self._connection.sendall(bytes([octet]))
            time.sleep(0.1)
        if not self._sink.drip:
            self._connection.sendall(octets)

    def run(self) -> None:
        self._say("220 sink")
        for raw in iter(self._next, b""):
            line = raw.decode().strip()
            if self._answer(line, line.split(" ")[0].upper()):
                return

    def _next(self) -> bytes:
        return self._lines.readline()

    def _answer(self, line: str, verb: str) -> bool:
        if verb == "EHLO":
            more = [] if self._secure or not self._sink.starttls else ["250-STARTTLS"]
            self._say("250-sink", *more, "250 AUTH PLAIN")
        elif verb == "STARTTLS":
            self._say("220 go on")
            self._wrap()
            self._lines = self._connection.makefile("rb")
        elif not self._secure:
            self._say("530 TLS first")
        elif verb == "AUTH":
            import base64

            _, user, password = base64.b64decode(line.split(" ")[2]).decode().split("\0")
            self._login = user if password == self._sink.password else ""
            self._say("235 welcome" if self._login else "535 who are you")
        elif verb == "MAIL":
            self._sender = line
            self._say("250 ok")
        elif verb == "RCPT":
            to = line.partition("<")[2].partition(">")[0]
            self._to.append(to)
            self._say("550 not here" if to in self._sink.refuses else "250 ok")
        elif verb == "DATA":
            self._data()
        elif verb == "QUIT":
            self._say("221 bye")
            return True
        else:
            self._say("250 ok")
        return False

    def _data(self) -> None:
        self._say("354 go on")
        lines = []
        while (raw := self._next()) not in (b".\r\n", b""):
            lines.append(raw.decode())
        self._sink.mails.append((self._login, self._sender, self._to, "".join(lines)))
        self._say("250 taken")


@contextmanager
def nobody() -> Iterator[int]:
    """A port at which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def until(true: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for it."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)
