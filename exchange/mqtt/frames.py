"""MQTT 3.1.1 packets as they come in, before the embedded broker's own parser sees them.

A packet's length is known after at most five octets. One that is too long is not read at all; one that is read is
checked here for the shape that the parser expects, because that parser goes on reading wherever it stumbled.
"""

import asyncio
import re
from typing import Final

import msgspec
from amqtt.adapters import ReaderAdapter

CONNECT, PUBLISH, PUBACK, SUBSCRIBE, UNSUBSCRIBE, PINGREQ, DISCONNECT = 1, 3, 4, 8, 10, 12, 14
FIRST_S: Final = 10.0  # a CONNECT that takes longer is not waited for
REST_S: Final = 60.0  # nor the rest of any packet that has begun
_CLIENT_ID: Final = re.compile(r"[ -~]{1,128}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_FILTER: Final = re.compile(r"([^+#/]*|\+)(/([^+#/]*|\+))*(/#)?|#")  # a wildcard is a level of its own, `#` the last
_LENGTHS: Final = {PUBACK: 2, PINGREQ: 0, DISCONNECT: 0}


class BadPacket(ConnectionResetError):  # which the broker takes for the end of the stream
    """The client sent what is not read. The connection is closed."""


class Connect(msgspec.Struct, frozen=True):
    """What a CONNECT says.

    level: of the protocol, 4 for MQTT 3.1.1
    will:  whether it leaves a message to be sent
    clean: whether the broker may forget the client when it goes
    """

    level: int
    will: bool
    client_id: str
    clean: bool = True


class FrameReader(ReaderAdapter):  # type: ignore[misc]  # amqtt says no types
    """A stream read whole packets at a time; the broker's parser is fed from the packet that was read last.

    room:    waits until another packet may be held in memory; told the length of each PUBLISH
    problem: what was wrong with a packet, once one was; empty while all is well
    """

    def __init__(self, stream: asyncio.StreamReader, most_bytes: int, room: "Room") -> None:
        self._stream, self._most_bytes, self._room = stream, most_bytes, room
        self._packet, self._position, self._broken = b"", 0, False
        self._connected = False
        self.problem = ""

    async def connect(self) -> Connect:
        """The first packet, which must be a CONNECT; it will be read once more by the parser."""
        async with asyncio.timeout(FIRST_S):
            await self._next()
        try:
            if self._packet[0] >> 4 != CONNECT:
                raise BadPacket("the first packet is no CONNECT")
            self._connected = True
            return _connect(_body(self._packet))
        except BadPacket as problem:
            self.problem = str(problem)
            raise

    async def read(self, n: int = -1) -> bytes:
        """The next n octets of the packet at hand, or of the next one when it is used up."""
        if self._position == len(self._packet):
            await self._next()
        octets = self._packet[self._position : self._position + n]
        self._position += len(octets)
        return octets

    def feed_eof(self) -> None:
        """Nothing more will be read, and whoever is reading stops. The parser's task cannot be trusted to stop when it
        is cancelled: `asyncio.wait_for` of Python 3.11 forgets that if a packet comes at the same moment."""
        self._broken = True
        self._stream.set_exception(BadPacket("reading was ended"))

    async def _next(self) -> None:
        """Read one packet. Whoever breaks off the reading has lost his place in the stream, and reads no more."""
        if self._broken:
            raise BadPacket("reading was broken off")
        await self._room.wait()
        self._broken = True
        try:
            self._packet = await self._whole()
        except BadPacket as problem:
            self.problem = str(problem)
            raise
        self._position, self._broken = 0, False

    async def _whole(self) -> bytes:
        first = await self._stream.readexactly(1)
        async with asyncio.timeout(REST_S):
            length = await self._length()
            if length > self._most_bytes:
                raise BadPacket(f"a packet of {length} octets was announced")
            body = await self._stream.readexactly(length)
        if first[0] >> 4 == CONNECT and self._connected:
            raise BadPacket("a second CONNECT")
        _check(first[0], body)
        if first[0] >> 4 == PUBLISH:
            self._room.take(length)
        return first + _length_octets(length) + body

    async def _length(self) -> int:
        length = 0
        for place in range(4):
            octet = (await self._stream.readexactly(1))[0]
            length += (octet & 0x7F) << 7 * place
            if not octet & 0x80:
                return length
        raise BadPacket("a length of more than four octets")


class Room:
    """How much of one client's messages may lie in memory before they are handed on."""

    def __init__(self, most_messages: int, most_bytes: int) -> None:
        self._most_messages, self._most_bytes = most_messages, most_bytes
        self._messages = self._bytes = 0
        self._free = asyncio.Event()
        self._free.set()

    async def wait(self) -> None:
        """Return when there is room. One message, however large, always finds room."""
        await self._free.wait()

    def take(self, octets: int) -> None:
        """A message was read."""
        self._count(1, octets)

    def give_back(self, octets: int) -> None:
        """A message was handed on, or dropped."""
        self._count(-1, -octets)

    def _count(self, messages: int, octets: int) -> None:
        self._messages, self._bytes = self._messages + messages, self._bytes + octets
        if self._messages < self._most_messages and self._bytes < self._most_bytes:
            self._free.set()
        else:
            self._free.clear()


def refusal(code: int) -> bytes:
    """A CONNACK that says no: 1 protocol, 2 client id, 5 not authorised (MQTT 3.1.1 §3.2.2.3)."""
    return bytes([0x20, 2, 0, code])


def _length_octets(length: int) -> bytes:
    octets = bytearray()
    while True:
        length, low = divmod(length, 128)
        octets.append(low | (0x80 if length else 0))
        if not length:
            return bytes(octets)


def _body(packet: bytes) -> bytes:
    start = next(place for place in range(1, 5) if not packet[place] & 0x80) + 1
    return packet[start:]


def _check(head: int, body: bytes) -> None:
    """Return if the packet has the shape that the parser expects of its kind, to the last octet."""
    kind, flags = head >> 4, head & 0x0F
    if kind == PUBLISH:
        _check_publish(flags, body)
    elif kind in (SUBSCRIBE, UNSUBSCRIBE) and flags == 2:
        _check_filters(body, with_qos=kind == SUBSCRIBE)
    elif kind in _LENGTHS and flags == 0:
        if len(body) != _LENGTHS[kind] or (body and not any(body)):
            raise BadPacket(f"packet type {kind} of {len(body)} octets, or with packet id 0")
    elif head != CONNECT << 4:
        raise BadPacket(f"packet type {kind} with flags {flags}")


def _check_publish(flags: int, body: bytes) -> None:
    qos = flags >> 1 & 3
    topic, rest = _text(body)
    # QoS 2 is four packets where two do, and what is sent twice is known by its message id.
    if qos > 1 or flags & 0x08 > qos << 3 or not topic or "+" in topic or "#" in topic:
        raise BadPacket(f"PUBLISH of QoS {qos}, sent again without QoS, or with no plain topic")
    if qos and (len(rest) < 2 or not any(rest[:2])):
        raise BadPacket("PUBLISH without a packet id")


def _check_filters(body: bytes, *, with_qos: bool) -> None:
    rest = body[2:]
    if len(body) < 2 or not any(body[:2]) or not rest:
        raise BadPacket("a subscription without packet id or filters")
    while rest:
        topic_filter, rest = _text(rest)
        if not topic_filter or not _FILTER.fullmatch(topic_filter) or (with_qos and (not rest or rest[0] > 2)):
            raise BadPacket("a subscription with a broken filter")
        rest = rest[1:] if with_qos else rest


def _connect(body: bytes) -> Connect:
    protocol, rest = _text(body)
    if protocol != "MQTT" or len(rest) < 4:
        raise BadPacket("CONNECT of another protocol")
    level, flags, rest = rest[0], rest[1], rest[4:]
    if level != 4:  # of another version the rest has another shape
        return Connect(level, False, "")
    client_id, rest = _text(rest)
    for given in (flags & 0x80, flags & 0x40) if not flags & 0x04 else ():  # user name, password
        if given:
            _, rest = _text(rest)
    if flags & 0x01 or (not flags & 0x04 and (rest or flags & 0x38)):
        raise BadPacket("CONNECT with other parts than its flags say")
    client_id = client_id if _CLIENT_ID.fullmatch(client_id) else ""
    return Connect(level, bool(flags & 0x04), client_id, bool(flags & 0x02))


def _text(octets: bytes) -> tuple[str, bytes]:
    """A string with its length before it, and what follows."""
    end = 2 + int.from_bytes(octets[:2], "big")
    if len(octets) < end or end < 2 or len(octets) < 2:
        raise BadPacket("a string that is cut short")
    try:
        text = octets[2:end].decode("utf-8")
    except UnicodeDecodeError as problem:
        raise BadPacket("a string that is not UTF-8") from problem
    if _CONTROL.search(text):
        raise BadPacket("a string with a control character")
    return text, octets[end:]
