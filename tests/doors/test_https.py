"""HTTPS over real sockets: whose certificate, how the socket is made, and how much an outsider may send."""

import gc
import json
import logging
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from starlette.types import ASGIApp, Receive, Scope, Send

from exchange.http import tls
from exchange.http.server import listen
from security import pki
from security.errors import Misconfigured
from tests.doors.conftest import NOW, City, Running, read_all

Start = Callable[[ASGIApp], Running]


async def who(scope: Scope, receive: Receive, send: Send) -> None:
    """Say the subject of the client's certificate and how many octets of body came."""
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    der = tls.client_certificate(scope)
    subject = x509.load_der_x509_certificate(der).subject.rfc4514_string() if der else None
    body = json.dumps({"subject": subject, "size": size}).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def ask(connection: ssl.SSLSocket, octets: bytes = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") -> dict[str, object]:
    connection.sendall(octets)
    answer = b""
    while not answer.endswith(b"}"):
        piece = connection.recv(65_536)
        assert piece, "the server closed the connection"
        answer += piece
    return dict(json.loads(answer.partition(b"\r\n\r\n")[2]))


def test_the_application_reads_the_subject_of_the_client_certificate(start: Start, city: City) -> None:
    city.certificate("water")
    with start(who).connect("water") as connection:
        assert ask(connection)["subject"] == "CN=water"
        assert ask(connection)["subject"] == "CN=water", "on the second request of a kept connection too"


def test_a_client_without_a_certificate_reaches_the_application_as_nobody(start: Start) -> None:
    with start(who).connect() as connection:
        assert ask(connection)["subject"] is None


def test_a_certificate_of_another_authority_fails_in_the_handshake_which_is_logged(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "yongtong.door")
    other = City(tmp_path, pki.make_ca("Other CA", NOW))
    other.certificate("imposter")
    server = start(who)
    context = ssl.create_default_context(cafile=str(server.city.ca_file))
    context.load_cert_chain(tmp_path / "imposter.pem", tmp_path / "imposter.key")
    with (
        pytest.raises((ssl.SSLError, ConnectionResetError, AssertionError)),
        socket.create_connection(("127.0.0.1", server.port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        ask(connection)
    server.stop()
    gc.collect()
    assert "door.handshake_failed" in caplog.text


def test_tls_below_1_2_is_not_spoken(start: Start) -> None:
    server = start(who)
    context = ssl.create_default_context(cafile=str(server.city.ca_file))
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionResetError)), socket.create_connection(("127.0.0.1", server.port)) as p:
        context.wrap_socket(p, server_hostname="localhost")
    server.stop()
    gc.collect()  # its failed handshake is logged here, not in the middle of another test


def test_a_good_connection_is_no_failed_handshake(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    gc.collect()  # what other tests left
    caplog.set_level(logging.INFO, "yongtong.door")
    server = start(who)
    with server.connect() as connection:
        ask(connection)
    server.stop()
    gc.collect()
    assert "handshake" not in caplog.text


def test_accepted_sockets_send_without_delay() -> None:
    with listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
            assert accepted.proto == socket.IPPROTO_TCP


def test_a_taken_port_names_the_option_in_one_line() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(Misconfigured, match=rf"^port {port} on 127\.0\.0\.1 is taken; .*--https-port$") as problem:
            listen("127.0.0.1", port)
        assert "\n" not in str(problem.value)


def test_a_port_is_free_again_at_once_after_the_server_has_stopped(start: Start) -> None:
    server = start(who)
    with server.connect() as connection:
        ask(connection)
    server.stop()
    listen("127.0.0.1", server.port).close()


@pytest.mark.parametrize(
    "octets, status",
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 40_000 + b"\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: aaaaaaaa\r\n" * 4_000 + b"\r\n", b"431"),
        (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"431"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", b"400"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (b"rubbish\r\n\r\n", b"400"),
    ],
    ids=["long header", "many headers", "long address", "two lengths", "doubled", "negative", "no chunk", "rubbish"],
)
def test_a_malformed_or_endless_head_is_cut_off(start: Start, octets: bytes, status: bytes) -> None:
    assert start(who).exchange(octets)[9:12] == status


@pytest.mark.parametrize(
    "flood",
    [b"1;" + b"x" * 100_000, b"1\r\na\r\n" * 20_000, b"0\r\nTrailer: " + b"x" * 100_000],
    ids=["chunk extension", "chunks of one octet", "trailer"],
)
def test_chunk_framing_without_end_is_cut_off(start: Start, flood: bytes) -> None:
    """The limit on a body does not see these octets, so they have a limit of their own."""
    with start(who).connect() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            connection.sendall(flood)
        except (ConnectionResetError, BrokenPipeError, ssl.SSLError):
            return
        assert b" 200 " not in read_all(connection)


def test_honest_chunks_are_taken(start: Start) -> None:
    with start(who).connect() as connection:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert ask(connection, head + b"400\r\n" + b"a" * 1024 + b"\r\n" + b"0\r\n\r\n")["size"] == 1024


def test_a_head_that_takes_too_long_is_cut_off(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "HEAD_SECONDS", 0.3)
    with start(who).connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHos")
        began = time.monotonic()
        assert read_all(connection)[9:12] == b"408"
        assert time.monotonic() - began < 3


def test_a_slow_second_head_on_a_kept_connection_is_cut_off(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "HEAD_SECONDS", 0.3)
    with start(who).connect() as connection:
        ask(connection)
        time.sleep(0.6)  # idle between requests is no slow head
        assert ask(connection)["size"] == 0
        connection.sendall(b"GET / HT")
        assert read_all(connection)[9:12] == b"408"


def test_one_address_holds_only_so_many_connections(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "MOST_OF_ADDRESS", 3)
    running = start(who)
    held = [running.connect() for _ in range(3)]
    with running.connect() as refused:
        assert read_all(refused) == b""
    assert ask(held[0])["subject"] is None, "those that stand go on"
    held.pop().close()
    until = time.monotonic() + 5
    while tls._connections["127.0.0.1"] > 2 and time.monotonic() < until:
        time.sleep(0.01)
    with running.connect() as again:
        assert ask(again)["subject"] is None
    for connection in held:
        connection.close()
