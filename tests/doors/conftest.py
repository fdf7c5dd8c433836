"""A real HTTPS server on a free port, its city CA, and raw sockets to be rude with."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from starlette.types import ASGIApp

from exchange.http.server import listen, serve
from exchange.http.tls import server_context
from security import pki
from security.keys import SigningKey, generate
from security.message import Use

NOW = datetime.now(UTC)


@dataclass(frozen=True)
class City:
    """A CA, the bus's TLS certificate, and bureaus' connection certificates, as PEM files in a folder."""

    folder: Path
    ca: pki.Authority

    def certificate(self, name: str, use: Use = "connection") -> SigningKey:
        """A new key with a certificate of the CA; `{name}.pem` and `{name}.key` lie in the folder."""
        key = generate("ES256")
        der = pki.issue(
            self.ca,
            name,
            key.public_key,
            use,
            NOW - timedelta(days=3),
            NOW + timedelta(days=30),
            ["localhost", "127.0.0.1"],
        )
        (self.folder / f"{name}.pem").write_bytes(pki.pem_of(der))
        (self.folder / f"{name}.key").write_bytes(key.pem())
        return key.with_certificate(der)

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.pem"


@dataclass(frozen=True)
class Running:
    """A server that answers on port, and how to reach it."""

    port: int
    city: City
    stop: Callable[[], None]

    def client_context(self, name: str | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.city.ca_file))
        if name is not None:
            context.load_cert_chain(self.city.folder / f"{name}.pem", self.city.folder / f"{name}.key")
        return context

    def connect(self, name: str | None = None, timeout: float = 5.0) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=timeout)
        return self.client_context(name).wrap_socket(plain, server_hostname="localhost")

    def exchange(self, octets: bytes, name: str | None = None, timeout: float = 5.0) -> bytes:
        """Send octets as they are and read what comes back until the server closes or falls silent."""
        with self.connect(name, timeout) as connection:
            connection.sendall(octets)
            return read_all(connection)


def read_all(connection: ssl.SSLSocket) -> bytes:
    """What comes back until the end, a reset or the socket's timeout."""
    answer = b""
    try:
        while piece := connection.recv(65_536):
            answer += piece
    except (TimeoutError, ConnectionResetError, ssl.SSLEOFError):
        pass
    return answer


@pytest.fixture(scope="session")
def city(tmp_path_factory: pytest.TempPathFactory) -> City:
    folder = tmp_path_factory.mktemp("city")
    ca = pki.make_ca("City CA", NOW)
    (folder / "ca.pem").write_bytes(pki.pem_of(ca.certificate_der))
    made = City(folder, ca)
    made.certificate("bus")
    return made


@pytest.fixture
def start(city: City) -> Iterator[Callable[[ASGIApp], Running]]:
    """Serve an application in a thread of its own; stopped at the end of the test."""
    running: list[Running] = []

    def begin(app: ASGIApp) -> Running:
        listening = listen("127.0.0.1", 0)
        context = server_context(city.folder / "bus.pem", city.folder / "bus.key", city.ca_file)
        loop, stop, ready = asyncio.new_event_loop(), asyncio.Event(), threading.Event()
        port = listening.getsockname()[1]

        def run() -> None:
            loop.run_until_complete(serve(app, listening, context, stop, ready.set))
            loop.close()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        assert ready.wait(5)

        def end() -> None:
            if thread.is_alive():
                loop.call_soon_threadsafe(stop.set)
                thread.join(10)

        running.append(Running(port, city, end))
        return running[-1]

    yield begin
    for server in running:
        server.stop()
