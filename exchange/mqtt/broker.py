"""The embedded broker: amqtt on the event loop of `serve`, for a city that has no broker of its own.

What amqtt leaves open is closed here: a client certificate is required and decides who may use which client id and
which topics; a packet is measured before it is read; nothing is retained and no will is left; memory is bounded.
"""

import asyncio
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from amqtt.adapters import StreamWriterAdapter
from amqtt.broker import Broker, Server
from amqtt.contexts import Action, BrokerConfig
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.session import ApplicationMessage, Session

from exchange.mqtt.frames import BadPacket, Connect, FrameReader, Room, refusal
from exchange.mqtt.topics import DELIVERIES, feed_of, may_hear, outbound
from security.errors import Refusal, places

log = logging.getLogger("yongtong.mqtt")

US: Final = "_bus"  # before the colon of the bus's own client ids; no bureau's code can be that
MOST_CONNECTIONS: Final = 512
MOST_OF_ADDRESS: Final = 128
HANDSHAKE_S: Final = 10.0
GOODBYE_S: Final = 1.0
ROOM_MESSAGES, ROOM_BYTES = 200, 4_000_000  # of one client, read and not yet handed on
MOST_KEPT: Final = 1_000  # messages for a client that is away and will be back; the oldest go first
LOOK_S: Final = 1.0  # between two looks at who has lost a right
MOST_REMEMBERED: Final = 64  # clients of one bureau that ask for it
REMEMBERED_S: Final = 14 * 86_400  # a client that has not been back in that time is forgotten, as docs/mosquitto has it
GRACE_S: Final = 30  # beyond its keep-alive, before a silent client is cut off


class Rules(msgspec.Struct, frozen=True):
    """What the broker asks before it lets anybody do anything.

    own_der:   the bus's own TLS certificate, with which its own client comes
    bureau_of: the enrolled bureau of a TLS certificate, None when it does not count now
    owner_of:  the bureau that a feed belongs to, None when there is no such feed
    subscription_of: id of the grant under which a bureau is told of changes today, empty where it is not
    holds_any: whether a bureau holds any grant that is in force today
    signs_for: whether a bureau may sign in the name of another
    refused:   hears what was refused to whom: the refusal, the certificate shown, the address
    """

    own_der: bytes
    bureau_of: Callable[[bytes], str | None]
    owner_of: Callable[[str], str | None]
    subscription_of: Callable[[str], str]
    holds_any: Callable[[str], bool]
    signs_for: Callable[[str, str], bool]
    refused: Callable[[Refusal, bytes, str], Awaitable[object]]


class _Peer(msgspec.Struct):
    """One connection: the certificate that was shown, where from, its room in memory, and how it is cut off."""

    certificate_der: bytes
    address: str
    room: Room
    cut_off: Callable[[], None]
    bureau: str = ""


class _Rights(msgspec.Struct, frozen=True):
    """What a bureau held when the broker last looked: the id of its subscription, and whether anything at all."""

    subscription: str
    any: bool


class EmbeddedBroker(Broker):  # type: ignore[misc]  # amqtt says no types
    """An MQTT 3.1.1 broker on a listening socket of ours. `start` and `shutdown` are amqtt's."""

    def __init__(self, listening: socket.socket, tls: ssl.SSLContext, rules: Rules, most_bytes: int) -> None:
        quiet = logging.getLogger("amqtt")  # it writes topics and payloads of other people
        quiet.setLevel(logging.CRITICAL)
        logging.getLogger("transitions").setLevel(logging.CRITICAL)
        super().__init__(
            BrokerConfig(plugins={}, timeout_disconnect_delay=GRACE_S, session_expiry_interval=REMEMBERED_S)
        )
        self._listening, self._tls, self._rules, self._most_bytes = listening, tls, rules, most_bytes
        self._peers: dict[str, _Peer] = {}  # by client id
        self._connections: Counter[str] = Counter()  # by address
        self._handing: set[asyncio.Task[None]] = set()
        self._certificates: dict[str, bytes] = {}  # by client id: the one that it came with last
        self._rights: dict[str, _Rights] = {}  # by bureau
        self._watching: asyncio.Task[None] | None = None

    async def _start_listeners(self) -> None:
        server = await asyncio.start_server(
            self._connected,
            sock=self._listening,
            ssl=self._tls,
            ssl_handshake_timeout=HANDSHAKE_S,
            ssl_shutdown_timeout=GOODBYE_S,
        )
        self._servers["default"] = Server("default", server)
        self._watching = asyncio.create_task(self._watch())

    async def shutdown(self) -> None:
        """Stop watching, then as amqtt does."""
        if self._watching is not None:
            self._watching.cancel()
        await super().shutdown()

    # Who comes in.

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = str((writer.get_extra_info("peername") or ("",))[0])
        self._connections[address] += 1
        try:
            if self._connections[address] > MOST_OF_ADDRESS or self._connections.total() > MOST_CONNECTIONS:
                log.warning("mqtt.too_many_connections remote=%s", address)
            else:
                await self._serve(reader, writer, address)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as problem:
            log.info("mqtt.cut_off remote=%s reason=%s", address, type(problem).__name__)
        finally:
            self._connections -= Counter([address])
            writer.transport.abort()  # amqtt leaves some connections open that it has done with

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str) -> None:
        der = writer.get_extra_info("ssl_object").getpeercert(True) or b""
        peer = _Peer(der, address, Room(ROOM_MESSAGES, ROOM_BYTES), writer.transport.abort)
        frames = FrameReader(reader, self._most_bytes, peer.room)
        try:
            connect = await frames.connect()
            refused = self._refused(peer, connect)
        except BadPacket as problem:
            await self._rules.refused(Refusal("mqtt.packet", str(problem)), der, address)
            return
        if refused is not None:
            writer.write(refusal(refused[0]))
            await writer.drain()
            await self._rules.refused(refused[1], der, address)
            return
        # From here the client id is known to be the peer's own: it can take over or end no session but its own.
        self._certificates[connect.client_id] = der
        await self._look_at(peer.bureau)  # before what was kept is handed out, and before this peer is one to cut off
        self._peers[connect.client_id] = peer
        await self._client_connected("default", frames, StreamWriterAdapter(writer))
        if self._peers.get(connect.client_id) is peer:
            del self._peers[connect.client_id]
            await self._gone(connect.client_id)
        if frames.problem:
            await self._rules.refused(Refusal("mqtt.packet", frames.problem), der, address)

    async def _gone(self, client_id: str) -> None:
        """Note that a client is away, where amqtt has not: it forgets that when it was us who ended the connection."""
        session, handler = self._sessions.get(client_id, (None, None))
        if session is not None and session.transitions.state == "connected":
            await self._stop_handler(handler)
            session.transitions.disconnect()

    async def _stop_handler(self, handler: BrokerProtocolHandler) -> None:
        """End a session's handler, whatever its client is sending at that moment."""
        if handler.reader is not None:
            handler.reader.feed_eof()
        await super()._stop_handler(handler)

    def _refused(self, peer: _Peer, connect: Connect) -> tuple[int, Refusal] | None:
        """Why this peer may not come in, and the CONNACK that says so; None when it may."""
        if connect.level != 4:
            return 1, Refusal("mqtt.packet", f"protocol level {connect.level}")
        if connect.will:
            return 5, Refusal("mqtt.packet", "a will message")
        own = peer.certificate_der == self._rules.own_der
        peer.bureau = US if own else self._rules.bureau_of(peer.certificate_der) or ""
        if not peer.bureau:
            return 5, Refusal("auth.no_certificate")
        bureau, colon, name = connect.client_id.partition(":")
        if bureau != peer.bureau or not colon or not name:
            return 2, Refusal("mqtt.client_id", connect.client_id)
        if not connect.clean and not own and self._remembers_too_many(bureau, connect.client_id):
            return 3, Refusal("mqtt.too_many_clients", f"{MOST_REMEMBERED}")
        return None

    def _remembers_too_many(self, bureau: str, client_id: str) -> bool:
        """Whether it remembers as many clients of a bureau as it may, and this one is not among them."""
        others = (
            session
            for known, (session, _) in self._sessions.items()
            if known.startswith(f"{bureau}:") and known != client_id and not session.clean_session
        )
        return sum(1 for _ in others) >= MOST_REMEMBERED

    async def _authenticate(self, session: Session, _: Any) -> bool:
        """Asked before amqtt saw anything of the client."""
        return session.client_id in self._peers

    # Who has to go.

    async def _watch(self) -> None:
        """End what has lost its right, for as long as the broker runs: within seconds, whatever the client does."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                there = {*self._sessions, *self._peers}
                self._certificates = {known: der for known, der in self._certificates.items() if known in there}
                for bureau in {client_id.partition(":")[0] for client_id in there}:
                    await self._look_at(bureau)
            except Exception as problem:  # the outermost loop: what trips one look must not end all later ones
                log.error("mqtt.watch_failed at=%s", places(problem))

    async def _look_at(self, bureau: str) -> None:
        """End the sessions of a bureau that came with a certificate which no longer counts, or whose last grant has
        ended; of one that is no longer told of changes under the same grant, end those that hear them. What was kept
        for them goes with it."""
        if bureau == US:
            return
        now = _Rights(self._rules.subscription_of(bureau), self._rules.holds_any(bureau))
        before = self._rights.get(bureau, now)
        self._rights[bureau] = now
        for client_id in [known for known in {*self._sessions, *self._peers} if known.startswith(f"{bureau}:")]:
            if self._rules.bureau_of(self._certificates.get(client_id, b"")) != bureau:
                await self._end(client_id, "certificate")
            elif before.any and not now.any:
                await self._end(client_id, "last grant")
            elif before.subscription not in ("", now.subscription):
                self._end_subscription(client_id, outbound(bureau, "changes"))

    async def _end(self, client_id: str, why: str) -> None:
        """End a session, connected or away, with all that waits in it."""
        log.warning("mqtt.session_ended client=%s reason=%s", client_id, why)
        self._certificates.pop(client_id, None)
        peer = self._peers.pop(client_id, None)
        if peer is not None:
            peer.cut_off()
        await self._delete_session(client_id)

    def _end_subscription(self, client_id: str, topic: str) -> None:
        """Drop what is kept of a topic, and cut off who hears it: something may be on its way to him."""
        session = self._sessions.get(client_id, (None, None))[0]
        if session is None:
            return
        kept = [session.retained_messages.get_nowait() for _ in range(session.retained_messages.qsize())]
        for message in kept:
            if message.topic != topic:
                session.retained_messages.put_nowait(message)
        peer = self._peers.get(client_id)
        if peer is not None and self._hears(client_id, topic):
            log.warning("mqtt.session_ended client=%s reason=subscription", client_id)
            peer.cut_off()

    def _hears(self, client_id: str, topic: str) -> bool:
        return any(
            session.client_id == client_id
            for topic_filter, subscriptions in self._subscriptions.items()
            if self._matches(topic, topic_filter)
            for session, _ in subscriptions
        )

    # What may be done.

    async def _topic_filtering(self, session: Session, topic: str, action: Action) -> bool:
        peer = self._peers.get(session.client_id or "")
        allowed = peer is not None and self._may(peer, topic, action)
        if peer is not None and not allowed:
            await self._rules.refused(Refusal("mqtt.topic_refused", topic[:200]), peer.certificate_der, peer.address)
        return allowed

    def _may(self, peer: _Peer, topic: str, action: Action) -> bool:
        if peer.bureau == US:
            return topic == DELIVERIES if action == Action.SUBSCRIBE else True
        if self._rules.bureau_of(peer.certificate_der) != peer.bureau:  # revoked or expired since it came
            return False
        if action == Action.PUBLISH:
            feed = feed_of(topic)
            owner = self._rules.owner_of(feed) if feed is not None else None
            return owner is not None and (owner == peer.bureau or self._rules.signs_for(peer.bureau, owner))
        return may_hear(peer.bureau, topic)

    # From one to the other.

    async def _handle_message_delivery(
        self, client_session: Session, handler: BrokerProtocolHandler, wait_deliver: asyncio.Future[Any]
    ) -> bool:
        """Hand on one message; false ends the connection, for MQTT 3.1.1 knows no other way to say that it may not."""
        message: ApplicationMessage | None = wait_deliver.result()
        peer = self._peers.get(client_session.client_id or "")
        if message is None or peer is None:
            return message is not None
        if not await self._topic_filtering(client_session, message.topic, Action.PUBLISH):
            return False
        task = asyncio.ensure_future(self._hand_on(message, peer.room))
        self._handing.add(task)
        task.add_done_callback(self._handing.discard)
        return True

    async def _hand_on(self, message: ApplicationMessage, room: Room) -> None:
        data = bytes(message.data or b"")
        packet = message.publish_packet
        length = packet.fixed_header.remaining_length if packet else len(data)
        try:
            heard = [
                self._give(session, message.topic, data, min(message.qos or 0, 1), bool(message.retain))
                for topic_filter, subscriptions in self._subscriptions.items()
                if self._matches(message.topic, topic_filter)
                for session, _ in subscriptions
            ]
            await asyncio.gather(*heard)
        finally:
            room.give_back(length)

    async def _give(self, session: Session, topic: str, data: bytes, qos: int, retain: bool) -> None:
        """Give a message to one client; of one who is away, keep it for when he is back. Nothing else is retained.

        QoS and retain flag are passed on as the sender set them, so that the bus can refuse them by name.
        """
        subscription = self._subscription_to(session, topic)
        if subscription == "":
            log.info("mqtt.not_told client=%s reason=subscription", session.client_id)
            return
        handler = self._get_handler(session)
        if session.transitions.state != "connected" or handler is None:
            self._keep(session, topic, data, qos)
            return
        try:
            await handler.mqtt_publish(topic, data, qos, retain)
        except TimeoutError:  # connected, and has not acknowledged in five seconds: it may be at it still
            log.info("mqtt.not_acknowledged client=%s", session.client_id)
        except (Exception, asyncio.CancelledError) as problem:  # amqtt's own, of many types: the connection was lost
            log.info("mqtt.not_handed_on client=%s reason=%s", session.client_id, type(problem).__name__)
            if subscription == self._subscription_to(session, topic):  # else it was on its way under a right that ended
                self._keep(session, topic, data, qos)

    def _subscription_to(self, session: Session, topic: str) -> str | None:
        """Under which grant a client hears of changes now, empty where under none; None for any other topic."""
        bureau = str(session.client_id).partition(":")[0]
        return self._rules.subscription_of(bureau) if topic == outbound(bureau, "changes") else None

    def _keep(self, session: Session, topic: str, data: bytes, qos: int) -> None:
        if session.clean_session or not qos:
            return
        while session.retained_messages.qsize() >= MOST_KEPT:
            session.retained_messages.get_nowait()
        session.retained_messages.put_nowait(ApplicationMessage(None, topic, qos, data, False))

    async def _publish_session_retained_messages(self, session: Session) -> None:
        """What was kept for a client who is back; amqtt would call it retained, which it never was."""
        kept = [session.retained_messages.get_nowait() for _ in range(session.retained_messages.qsize())]
        await asyncio.gather(*(self._give(session, one.topic, bytes(one.data), one.qos or 0, False) for one in kept))
