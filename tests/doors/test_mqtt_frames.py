"""MQTT packets before the broker's parser sees them: measured before they are read, and of the one shape it expects."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.mqtt.frames import BadPacket, Connect, FrameReader, Room

MOST = 1_000
MIB_100 = b"\x80\x80\x80\x32"  # 104,857,600 as MQTT writes a length


def text(value: str) -> bytes:
    return len(value.encode()).to_bytes(2, "big") + value.encode()


def packet(head: int, body: bytes) -> bytes:
    assert len(body) < 128
    return bytes([head, len(body)]) + body


def a_connect(client_id: str = "water:gw", flags: int = 2, level: int = 4, more: bytes = b"") -> bytes:
    return packet(0x10, text("MQTT") + bytes([level, flags, 0, 30]) + text(client_id) + more)


def a_publish(topic: str = "yt/v1/feeds/x/in", flags: int = 2, more: bytes = b"\x00\x01data") -> bytes:
    return packet(0x30 | flags, text(topic) + more)


def read(octets: bytes, first: bool = False, room: Room | None = None) -> "Connect | bytes":
    """What comes of octets that arrive, and then silence: the CONNECT, or all that the parser is given."""

    async def reading() -> "Connect | bytes":
        stream = asyncio.StreamReader()
        stream.feed_data(octets)
        stream.feed_eof()
        frames = FrameReader(stream, MOST, room or Room(10, 1_000_000))
        if first:
            return await frames.connect()
        given = b""
        while len(given) < len(octets):
            given += await frames.read(1)
        return given

    return asyncio.run(reading())


GOOD = {
    "publish of QoS 1": a_publish(),
    "publish of QoS 0": a_publish(flags=0, more=b"data"),
    "publish retained": a_publish(flags=3),
    "publish again": a_publish(flags=0x0A),
    "publish of nothing": a_publish(more=b"\x00\x01"),
    "puback": packet(0x40, b"\x00\x01"),
    "subscribe": packet(0x82, b"\x00\x01" + text("yt/v1/to/water/#") + b"\x01"),
    "subscribe to one level": packet(0x82, b"\x00\x01" + text("+/v1/+/water/#") + b"\x01"),
    "subscribe to a level without name": packet(0x82, b"\x00\x01" + text("/a//+") + b"\x01"),
    "subscribe to all": packet(0x82, b"\x00\x01" + text("#") + b"\x01"),
    "subscribe twice": packet(0x82, b"\x00\x01" + text("a") + b"\x00" + text("b") + b"\x02"),
    "unsubscribe": packet(0xA2, b"\x00\x01" + text("a")),
    "ping": packet(0xC0, b""),
    "disconnect": packet(0xE0, b""),
}
BAD = {
    "100 MB announced": b"\x32" + MIB_100,
    "one octet too many": b"\x32" + bytes([0x80 | (MOST + 1) % 128, (MOST + 1) // 128]),
    "length of five octets": b"\x32\xff\xff\xff\xff\x01",
    "QoS 2": a_publish(flags=4),
    "QoS 3": a_publish(flags=6),
    "no packet id": a_publish(more=b""),
    "packet id nought": a_publish(more=b"\x00\x00"),
    "no topic": a_publish(topic=""),
    "topic with a wildcard": a_publish(topic="yt/v1/feeds/+/in"),
    "topic longer than its packet": packet(0x32, b"\xff\xffab"),
    "topic not UTF-8": packet(0x32, b"\x00\x02\xc3\x28\x00\x01"),
    "topic with a null": a_publish(topic="a\0b"),
    "topic with a control character": a_publish(topic="a\x1fb"),
    "topic with a control character of Latin 1": a_publish(topic="a\x9fb"),
    "again, without QoS": a_publish(flags=8, more=b"data"),
    "subscribe to nothing": packet(0x82, b"\x00\x01"),
    "subscribe with QoS 3": packet(0x82, b"\x00\x01" + text("a") + b"\x03"),
    "subscribe cut short": packet(0x82, b"\x00\x01" + text("a")),
    "subscribe with other flags": packet(0x80, b"\x00\x01" + text("a") + b"\x01"),
    "subscribe to half a level": packet(0x82, b"\x00\x01" + text("yt/v1/to/water/x+") + b"\x01"),
    "subscribe to # in the midst": packet(0x82, b"\x00\x01" + text("yt/v1/to/water/#/x") + b"\x01"),
    "unsubscribe from half a level": packet(0xA2, b"\x00\x01" + text("a#")),
    "puback of packet id nought": packet(0x40, b"\x00\x00"),
    "puback of three octets": packet(0x40, b"\x00\x01\x00"),
    "ping with a body": packet(0xC0, b"x"),
    "a packet only brokers send": packet(0x20, b"\x00\x00"),
    "pubrel": packet(0x62, b"\x00\x01"),
    "type nought": packet(0x00, b""),
    "type fifteen": packet(0xF0, b""),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_packet_of_the_one_shape_is_given_to_the_parser_whole(name: str) -> None:
    assert read(GOOD[name]) == GOOD[name]


@pytest.mark.parametrize("name", BAD)
def test_any_other_packet_ends_the_connection(name: str) -> None:
    with pytest.raises(BadPacket):
        read(BAD[name] + GOOD["ping"])


def test_a_connect_says_who_and_with_what() -> None:
    assert read(a_connect(), first=True) == Connect(4, False, "water:gw")
    assert read(a_connect(flags=0), first=True) == Connect(4, False, "water:gw", clean=False)
    assert read(a_connect(flags=0xC2, more=text("name") + text("word")), first=True) == Connect(4, False, "water:gw")
    assert read(a_connect(flags=6, more=text("topic") + text("will")), first=True) == Connect(4, True, "water:gw")
    assert read(a_connect(client_id="水:1"), first=True) == Connect(4, False, "")
    assert read(packet(0x10, text("MQTT") + bytes([5, 2, 0, 30, 0]) + text("x")), first=True) == Connect(5, False, "")


@pytest.mark.parametrize(
    "octets",
    [
        GOOD["ping"],
        b"\x10" + MIB_100,
        packet(0x10, text("MQIsdp") + bytes([3, 2, 0, 30]) + text("x")),
        packet(0x10, text("MQTT") + b"\x04\x02"),
        a_connect(flags=3),
        a_connect(more=b"more"),
        a_connect(flags=0x82),
        a_connect(flags=0x1A),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_what_is_no_connect_is_not_waited_for(octets: bytes) -> None:
    with pytest.raises((BadPacket, asyncio.IncompleteReadError)):
        read(octets, first=True)


def test_a_second_connect_ends_the_connection() -> None:
    async def twice() -> None:
        stream = asyncio.StreamReader()
        stream.feed_data(a_connect() * 2)
        frames = FrameReader(stream, MOST, Room(10, 1_000))
        await frames.connect()
        assert await _whole(frames, len(a_connect())) == a_connect()
        with pytest.raises(BadPacket, match="second CONNECT"):
            await frames.read(1)

    asyncio.run(twice())


def test_once_ended_a_reading_that_waits_stops_and_none_begins() -> None:
    async def ended() -> None:
        stream = asyncio.StreamReader()
        frames = FrameReader(stream, MOST, Room(10, 1_000))
        waiting = asyncio.ensure_future(frames.read(1))
        await asyncio.sleep(0)
        frames.feed_eof()
        with pytest.raises(BadPacket):
            await asyncio.wait_for(waiting, 5)
        stream.feed_data(GOOD["ping"])  # what still comes is nobody's fault, and is not read
        with pytest.raises(BadPacket):
            await frames.read(1)

    asyncio.run(ended())


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_any_octets_are_given_on_as_they_are_or_not_at_all(octets: bytes) -> None:
    try:
        given = read(octets)
    except (BadPacket, asyncio.IncompleteReadError):
        return
    assert given == octets


def test_beyond_its_room_a_client_is_not_read_any_further() -> None:
    async def two_of_three() -> None:
        stream, room = asyncio.StreamReader(), Room(2, 1_000_000)
        frames = FrameReader(stream, MOST, room)
        one = a_publish()
        stream.feed_data(one * 3)
        for _ in range(2):
            assert await _whole(frames, len(one)) == one
        third = asyncio.ensure_future(_whole(frames, len(one)))
        await asyncio.sleep(0.05)
        assert not third.done()
        room.give_back(len(one) - 2)
        assert await asyncio.wait_for(third, 5) == one

    asyncio.run(two_of_three())


def test_who_breaks_off_in_the_midst_of_a_packet_reads_no_more() -> None:
    """A keep-alive that runs out cancels the reading; whatever comes then would be taken for a new packet."""

    async def broken_off() -> None:
        stream = asyncio.StreamReader()
        frames = FrameReader(stream, MOST, Room(10, 1_000))
        stream.feed_data(a_publish()[:5])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(frames.read(1), 0.05)
        stream.feed_data(a_publish()[5:] + GOOD["ping"])
        with pytest.raises(BadPacket):
            await frames.read(1)

    asyncio.run(broken_off())


async def _whole(frames: FrameReader, size: int) -> bytes:
    given: bytes = b""
    while len(given) < size:
        given += await frames.read(size - len(given))
    return given
