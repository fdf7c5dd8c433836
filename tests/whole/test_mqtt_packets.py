"""Other people's 1,637 MQTT packets, well formed and malformed, at the embedded broker's socket: nobody is the wiser.

The broker speaks MQTT 3.1.1; packets of 3.1 and 5.0 come to it too, as they would.
"""

import asyncio
import json
import re
import ssl
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from connectors.transports.mqtt import client_tls
from exchange.app import opening
from security.message import in_memory
from tests.doors.test_mqtt_frames import GOOD, a_connect
from tests.whole.real_bus import FEED, RealBus, csv, real_bus, rows
from tests.whole.test_mqtt import IN, port_of, until

OWN_FILES = 16
PACKETS: Final = 1_637
AT_ONCE: Final = 48
HANGING_S: Final = 40.0  # less than the 60 after which a silent client is cut off
WARM: Final = 400  # cases after which memory is measured first: that many connections at a time have their price once
PING, DISCONNECT = GOOD["ping"], GOOD["disconnect"]
PONG: Final = b"\xd0\x00"
MOST_GROWTH_KB: Final = 200_000  # of 1,350 connections; their TLS buffers, not given back, would be 340,000

OURS: Final = "ours "

Ended = Literal["closed", "answered"]


class Case(NamedTuple):
    """What one client sends. connects: after an honest CONNECT of 3.1.1; must_close: the standard tells 3.1.1 to."""

    name: str
    connects: bool
    octets: bytes
    must_close: bool


def octets_of(payload: str) -> bytes:
    """A payload in the notation of the data's SOURCES.md; the names of other lengths as the files use them."""
    return b"".join(map(_token, re.findall(r"'[^']*'|\S+", payload)))


def _token(token: str) -> bytes:
    if token.startswith("'"):
        return token[1:-1].encode()
    kind, number = token[0], token[1:]
    if kind in "rv":  # remaining length, length of properties
        return _variable(int(number))
    if kind in "smkHLi":  # length of a string, packet id, keep-alive, integers of two, four octets and one
        return struct.pack({"L": "!L", "i": "!B"}.get(kind, "!H"), int(number))
    return bytes.fromhex(token)


def _variable(number: int) -> bytes:
    octets = bytearray()
    while True:
        number, low = divmod(number, 128)
        octets.append(low | (0x80 if number else 0))
        if not number:
            return bytes(octets)


def renamed(payload: str, old: str, new: str) -> str:
    """A payload with one string replaced, and the lengths before it told accordingly: those that lie go on lying."""
    if f"s{len(old)} '{old}'" not in payload:
        return payload
    more = len(new) - len(old)
    payload = re.sub(r"r(\d+)", lambda found: f"r{int(found[1]) + more}", payload, count=1)
    return payload.replace(f"s{len(old)} '{old}'", f"s{len(new)} '{new}'")


def cases(folder: Path) -> Iterator[Case]:
    """Every case of the files; then those of 3.1.1 once more with names that come through to the parser behind."""
    for file in sorted(folder.glob("*.json")):
        for group in json.loads(file.read_text(encoding="utf-8")):
            for test in group["tests"]:
                yield from _cases_of(file.stem, group, test)


def _cases_of(kind: str, group: dict[str, Any], test: dict[str, Any]) -> Iterator[Case]:
    version = test.get("ver", group["ver"])
    connects = test.get("connect", group.get("connect", True))
    must_close = version == 4 and test.get("expect_disconnect", True)
    sent = [message["payload"] for message in test["msgs"] if message["type"] == "send"]
    name = f"{version} {kind} {test['name']}"
    octets = b"".join(map(octets_of, sent))
    yield Case(name, connects, octets, must_close and octets != DISCONNECT)
    if version == 4 and kind == "CONNECT":
        yield Case(OURS + name, connects, b"".join(octets_of(renamed(one, "p", "made-up:ours")) for one in sent), False)
    if must_close and kind in ("PUBLISH", "SUBSCRIBE"):
        yield Case(OURS + name, connects, b"".join(octets_of(renamed(one, "topic", IN)) for one in sent), True)


async def sent(port: int, tls: ssl.SSLContext, case: Case, number: int) -> Ended:
    """How a connection ended on which one case came, a ping after it, and a good-bye."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname="localhost")
    try:
        if case.connects:
            writer.write(a_connect(f"made-up:packet-{number}"))
            assert await reader.readexactly(4) == b"\x20\x02\x00\x00", case.name
        writer.write(case.octets + PING)
        heard = b""
        while PONG not in heard:  # an answer to the case may come after it
            if not (octets := await reader.read(4096)):
                return "closed"
            heard += octets
        writer.write(DISCONNECT)
        await reader.read()
        return "answered"
    except (OSError, asyncio.IncompleteReadError):
        return "closed"
    finally:
        writer.transport.abort()


async def all_sent(port: int, tls: ssl.SSLContext, found: list[Case]) -> list[Ended]:
    """How each connection ended; the broker ends every one."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(number: int, case: Case) -> Ended:
        async with places:
            try:
                async with asyncio.timeout(HANGING_S):
                    return await sent(port, tls, case, number)
            except TimeoutError as problem:
                raise AssertionError(f"not ended: {number} {case}") from problem

    return await asyncio.gather(*(one(number, case) for number, case in enumerate(found)))


async def without_certificate(port: int, ca_file: str, found: list[Case]) -> list[bytes]:
    """What is answered to a client that shows no certificate."""
    tls = ssl.create_default_context(cafile=ca_file)

    async def one(case: Case) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname="localhost")
        writer.write(case.octets)
        try:
            return await reader.read()
        except OSError:  # of TLS 1.3 the client hears of its refusal only now
            return b""
        finally:
            writer.transport.abort()

    async with asyncio.timeout(HANGING_S):
        return await asyncio.gather(*map(one, found))


class Process(NamedTuple):
    """What a process holds, as the kernel counts it."""

    files: int
    threads: int
    memory_kb: int

    @classmethod
    def now(cls, pid: int) -> "Process":
        status = dict(re.findall(r"(\w+):\s+(\d+)", Path(f"/proc/{pid}/status").read_text()))
        return cls(len(list(Path(f"/proc/{pid}/fd").iterdir())), int(status["Threads"]), int(status["VmRSS"]))


def test_1637_packets_of_others_reach_nobody_and_leave_the_broker_as_it_was(
    tmp_path: Path, shared_data: Callable[[str], Path], tell: Callable[[str], None]
) -> None:
    """A bus of its own: what strangers sent to `receive()` is written to the audit when the bus stops."""
    found = list(cases(shared_data("mqtt_packets") / "broker"))
    ours = sum(case.name.startswith(OURS) for case in found)
    assert len(found) - ours == PACKETS
    with real_bus(tmp_path) as bus:
        folder, pid, port = bus.folder(), bus.trial.process_id, port_of(bus)
        tls = client_tls(folder.file("connection.pem"), folder.file("connection.key"), folder.file("ca.pem"))
        push(bus, "before")
        began_s = time.monotonic()
        ends = asyncio.run(all_sent(port, tls, found[:WARM]))
        before = Process.now(pid)
        ends += asyncio.run(all_sent(port, tls, found[WARM:]))
        took_s = time.monotonic() - began_s
        strange = asyncio.run(without_certificate(port, folder.file("ca.pem"), found[::40]))
        push(bus, "after", b"unsigned")
        # No connection is left open. What the bus opens for itself meanwhile, its watches and duties, is a handful.
        until(lambda: Process.now(pid).files <= before.files + OWN_FILES)
        after = Process.now(pid)
        kept = bus.kept().inbox
        bus.trial.stop()
        with closing(opening.open_journal(bus.trial.settings)) as journal:
            strangers = [entry.detail or {} for entry in journal.search(type="refusal", outcome="strangers")]
    counts = Counter(ends)
    tell(
        f"MQTT PACKETS: {PACKETS} sent, {ours} of them again under our own names, in {took_s:.1f} s: "
        f"{counts['closed']} closed, {counts['answered']} answered; {len(strange)} without a certificate: unheard"
    )
    # Where MQTT 3.1.1 tells a receiver to close, it was closed: no ping after it was answered.
    answered = [case.name for case, end in zip(found, ends, strict=True) if case.must_close and end == "answered"]
    assert answered == []
    assert set(strange) == {b""}
    # What `receive()` is given of nobody's is counted under the broker's name: one, of ours; what it takes lies in the
    # inbox: two, of ours.
    assert sum(int(detail["count"]) for detail in strangers if detail["address"] == "broker:main") == 1
    assert kept == 2
    assert after.threads <= before.threads + 2  # of the pool that works beside the loop
    assert after.memory_kb - before.memory_kb < MOST_GROWTH_KB, (before, after)
    # Of door and broker. The worker's queue, a folder of files, may trip over one half written, and starts anew.
    assert not re.search(rb"(amqtt|exchange/mqtt)/\w+\.py", (bus.trial.folder / "serve.log").read_bytes())


def push(bus: RealBus, id: str, *unsigned: bytes) -> None:
    """An honest client delivers, after what it says that nobody signed."""
    with bus.trial.mqtt_partner("made-up") as partner:
        for octets in unsigned:
            partner.publish(IN, octets).result(HANGING_S)
        assert partner.push(FEED, in_memory(csv(rows(id))), "text/csv", id).document["outcome"] == "accepted"
