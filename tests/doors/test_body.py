"""A request body over real sockets: lying lengths, endless chunks, one octet too many, a slow sender."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exchange.http.body import SPOOL_ABOVE_BYTES, BodyCutOff, Spool, discard, read_body
from security.errors import Refusal, Unavailable
from security.message import Content, sha256
from tests.doors.conftest import Running, read_all

Start = Callable[[ASGIApp], Running]
MAX_BYTES = 3_000_000


class Door:
    """Reads one body within limits and says what it was, or why it was refused."""

    def __init__(self, spool: Path, seconds: float = 5.0) -> None:
        self.spool, self.seconds, self.large = spool, seconds, Spool(spool, 1)
        self.seen: list[Content] = []
        self.on_disk: list[int] = []
        self.cut_off = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        length = dict(scope["headers"]).get(b"content-length")
        try:
            body = read_body(
                receive,
                int(length) if length else None,
                max_bytes=MAX_BYTES,
                seconds=self.seconds,
                spool=self.large,
                bureau="water",
            )
            async with body as content:
                self.seen.append(content)
                self.on_disk.append(len(list(self.spool.iterdir())))
                assert sha256(content.read()) == content.digest
                answer = b"taken"
        except Refusal as refusal:
            answer = refusal.code.encode()
        except BodyCutOff:
            self.cut_off.set()
            return
        headers = [(b"content-length", str(len(answer)).encode()), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer, "more_body": True})
        if answer != b"taken":
            await discard(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path)


def posted(start: Start, door: Door, head: bytes, body: bytes) -> bytes:
    octets = b"POST / HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n" + body
    return start(door).exchange(octets).partition(b"\r\n\r\n")[2]


def length(size: int) -> bytes:
    return b"Content-Length: %d" % size


@pytest.mark.parametrize("size", [0, 1, SPOOL_ABOVE_BYTES, SPOOL_ABOVE_BYTES + 1, MAX_BYTES])
def test_a_body_up_to_the_limit_is_taken_and_leaves_no_file(start: Start, door: Door, size: int) -> None:
    assert posted(start, door, length(size), b"x" * size) == b"taken"
    assert door.seen[0].size == size
    assert door.on_disk == [1 if size > SPOOL_ABOVE_BYTES else 0]
    assert list(door.spool.iterdir()) == []


def test_one_octet_over_the_limit_is_refused_by_its_declared_length(start: Start, door: Door) -> None:
    assert posted(start, door, length(MAX_BYTES + 1), b"x" * (MAX_BYTES + 1)) == b"size.too_large"


def test_one_octet_over_the_limit_is_refused_where_no_length_is_declared(start: Start, door: Door) -> None:
    body = b"%x\r\n" % (MAX_BYTES + 1) + b"x" * (MAX_BYTES + 1) + b"\r\n0\r\n\r\n"
    assert posted(start, door, b"Transfer-Encoding: chunked", body) == b"size.too_large"
    assert list(door.spool.iterdir()) == []


def test_endless_chunks_are_refused_at_the_limit(start: Start, door: Door) -> None:
    with start(door).connect() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
        sent = 0
        try:
            while sent < 100 * MAX_BYTES:
                connection.sendall(chunk)
                sent += len(chunk)
        except OSError:
            pass
        assert sent < 100 * MAX_BYTES
    assert list(door.spool.iterdir()) == []


def test_a_declared_length_longer_than_the_body_is_a_slow_body(start: Start, tmp_path: Path) -> None:
    assert posted(start, Door(tmp_path, 0.3), length(2_000_000), b"x" * 1_500_000) == b"http.body_slow"
    assert list(tmp_path.iterdir()) == []


def test_a_client_that_goes_away_leaves_nothing(start: Start, door: Door) -> None:
    with start(door).connect() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n" + length(2_000_000) + b"\r\n\r\n" + b"x" * 1_500_000)
    assert door.cut_off.wait(5)
    assert door.seen == []
    assert list(door.spool.iterdir()) == []


def test_a_declared_length_shorter_than_the_body_takes_no_more_than_declared(start: Start, door: Door) -> None:
    """What follows is read as the next request, and is none."""
    with start(door).connect() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n" + length(5) + b"\r\n\r\n" + b"x" * 500)
        assert b"400" in read_all(connection)
    assert all(content.read() == b"xxxxx" for content in door.seen)


def test_a_body_that_trickles_is_refused_in_time(start: Start, tmp_path: Path) -> None:
    with start(Door(tmp_path, 0.5)).connect() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n" + length(1_000) + b"\r\n\r\n")
        stop = threading.Event()

        def trickle() -> None:
            while not stop.wait(0.1):
                try:
                    connection.sendall(b"x")
                except OSError:
                    return

        sender = threading.Thread(target=trickle)
        sender.start()
        answer = read_all(connection)
        stop.set()
        sender.join()
    assert b"http.body_slow" in answer


def test_only_so_many_large_bodies_lie_in_the_spool_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "body-of-a-crash").write_bytes(b"x")
    spool = Spool(tmp_path, 1)
    assert list(tmp_path.iterdir()) == [], "what a crash left is removed"
    file, path = spool.take("water")
    with pytest.raises(Unavailable):
        spool.take("power")
    file.close()
    spool.give_back(path)
    spool.take("power")[0].close()


def test_one_bureau_takes_up_only_its_share_of_the_spool(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 3, most_of_one=2)
    for bureau in ("water", "water", "power"):
        if bureau == "power":
            with pytest.raises(Unavailable):
                spool.take("water")
        spool.take(bureau)[0].close()


def test_a_body_that_the_disk_has_no_room_for_is_asked_for_later(tmp_path: Path) -> None:
    """/dev/full takes nothing: written at once or when the file is flushed, it is nobody's fault."""

    class Full(Spool):
        def take(self, bureau: str) -> tuple[IO[bytes], Path]:
            file, path = super().take(bureau)
            file.close()
            return Path("/dev/full").open("wb"), path

    pieces = [b"x" * SPOOL_ABOVE_BYTES, b"y", b""]

    async def receive() -> Message:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def reading(spool: Spool) -> None:
        async with read_body(receive, None, max_bytes=MAX_BYTES, seconds=5.0, spool=spool, bureau="water"):
            raise AssertionError("there is no whole body")

    with pytest.raises(Unavailable):
        asyncio.run(reading(Full(tmp_path, 1)))
    assert list(tmp_path.iterdir()) == []
