"""A connection to an MQTT broker that is kept up: takes messages, acknowledges each when told to, and publishes.

A message is acknowledged by whoever took it, when that is right; until then the broker keeps it and hands it out again
to the next connection. MQTT 5 where the broker speaks it, 3.1.1 otherwise. Each connection is a client of its own, so
that an acknowledgement never reaches another message that happens to bear the same number on a later connection.

The broker is told how many messages we hold at a time (receive maximum of MQTT 5) and keeps the others. What piled up
there while we were away can be taken at a set rate.
"""

import logging
import re
import ssl
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from security.errors import Misconfigured, Unavailable

log = logging.getLogger("yongtong.mqtt")

KEEP_ALIVE_S: Final = 30
CONNECT_S: Final = 10.0
FIRST_WAIT_S: Final = 0.25  # before a connection that was lost is tried again; doubles up to MOST_WAIT_S
MOST_WAIT_S: Final = 15.0
FOR_EVER: Final = 0xFFFF_FFFF  # a session's expiry: the broker keeps what comes while we are away
CLOSED: Final = "the link to the broker was closed"
UNSUPPORTED: Final = ("Unsupported protocol version", "Protocol error", "Malformed packet")  # to MQTT 5, by others
OUTGOING: Final = 64  # publishes on their way at a time; paho looks through all of them at each acknowledgement
LOOK_S: Final = 0.5
CAUGHT_UP_S: Final = 0.5  # without a message although there is room: the broker keeps no more for us
SHARED: Final = re.compile(r"\$share/[^/]+/")
BEST_FIRST: Final = (MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311)
WINDOW_BYTES: Final = 64 << 20


class Address(msgspec.Struct, frozen=True):
    """Where a broker listens, and how it is spoken to. versions: those to try, best first."""

    host: str
    port: int
    tls: ssl.SSLContext
    versions: tuple[MQTTProtocolVersion, ...] = BEST_FIRST


class Arrived(msgspec.Struct, frozen=True):
    """A message that was handed to us. acknowledge: call it once, when the message need not come again.

    retained: the broker had kept it, or its sender asked for that (which only MQTT 5 tells)
    reply_to: the response topic that its sender named (MQTT 5), which nobody signed; empty where he named none
    """

    topic: str
    octets: bytes
    qos: int
    retained: bool
    acknowledge: Callable[[], None]
    reply_to: str = ""


class _Outgoing(msgspec.Struct, frozen=True):
    topic: str
    octets: bytes
    future: "Future[None]"


class _Room:
    """How much may lie in memory at a time. One message, however large, always finds room."""

    def __init__(self, most_messages: int, most_bytes: int) -> None:
        self._most_messages, self._most_bytes = most_messages, most_bytes
        self._messages = self._bytes = 0
        self._changed = threading.Condition()

    def take(self, octets: int, seconds: float) -> bool:
        """Whether there was room for a message within that time."""
        with self._changed:
            if not self._changed.wait_for(self._has_room, seconds):
                return False
            self._messages, self._bytes = self._messages + 1, self._bytes + octets
            return True

    def give_back(self, octets: int) -> None:
        """A message is done with."""
        with self._changed:
            self._messages, self._bytes = self._messages - 1, self._bytes - octets
            self._changed.notify()

    def full(self) -> bool:
        """Whether nothing more finds room now."""
        with self._changed:
            return not self._has_room()

    def _has_room(self) -> bool:
        return self._messages < self._most_messages and self._bytes < self._most_bytes


class Link:
    """One client of one broker, from `start` to `stop`.

    client_id: of its own for ever; the broker keeps its session
    topics:    subscribed to with QoS 1 on every connection
    arrived:   called in the link's own thread with every message; it should hand it on and return
    window:    most messages handed out and not yet acknowledged, of WINDOW_BYTES together. Beyond it nothing more is
               read from the broker, so that what lies in memory is bounded whatever the broker holds
    most_bytes: of one message; a broker of MQTT 5 is told not to send a larger one
    keep_s:    how long the broker is to keep what comes for us while we are away; 0: not at all. MQTT 3.1.1 knows but
               not at all and for ever
    drain_per_s: messages a second that are handed on of what had piled up when a connection began; 0: as they come
    """

    def __init__(
        self,
        address: Address,
        client_id: str,
        topics: Sequence[str] = (),
        arrived: Callable[[Arrived], None] = lambda _: None,
        *,
        window: int = 256,
        most_bytes: int = 2_000_000,
        keep_s: int = FOR_EVER,
        drain_per_s: float = 0.0,
    ) -> None:
        self._address, self._client_id, self._topics, self._arrived = address, client_id, topics, arrived
        self._window, self._most_bytes, self._keep_s = window, most_bytes, keep_s
        self._drain_per_s, self._draining = drain_per_s, True
        self._piled_up: SimpleQueue[Arrived] = SimpleQueue()  # used where there is a rate
        self._room = _Room(window, WINDOW_BYTES)
        self._versions = deque(address.versions)
        self._waiting: deque[_Outgoing] = deque()
        self._on_way: dict[int, _Outgoing] = {}  # by packet id of the connection that stands
        self._early: dict[int, ReasonCode] = {}  # acknowledged before we had written down what
        self._lock = threading.Lock()  # never held while paho is called: paho calls us with locks of its own
        self._client: Client | None = None  # of the connection that stands; None between two
        self._answered = False  # by the broker, with yes or no, on this connection
        self._ready, self._lost, self._stopped = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._keep_up, name="mqtt link", daemon=True)
        self._drainer = threading.Thread(target=self._drain, name="mqtt drain", daemon=True)

    def start(self) -> None:
        """Connect, and connect again whenever the connection is lost."""
        self._thread.start()
        if self._drain_per_s:
            self._drainer.start()

    def wait_ready(self, seconds: float) -> bool:
        """Whether the link is connected and its topics are subscribed to within that time."""
        return self._ready.wait(seconds)

    def stop(self) -> None:
        """Close the connection. What was not acknowledged will come again; what was not published fails."""
        self._stopped.set()
        self._lost.set()
        for thread in (self._thread, self._drainer):
            if thread.is_alive():
                thread.join()
        with self._lock:
            left = [*self._on_way.values(), *self._waiting]
            self._on_way, self._waiting = {}, deque()
        for outgoing in left:
            outgoing.future.set_exception(Unavailable(CLOSED))

    def publish(self, topic: str, octets: bytes) -> "Future[None]":
        """Publish with QoS 1, not retained; done when the broker acknowledged it. Sent again after a lost connection.

        Fails with Unavailable when the link is stopped first, or when the broker says that it may not be published.
        """
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()
        with self._lock:
            if self._stopped.is_set():
                future.set_exception(Unavailable(CLOSED))
                return future
            self._waiting.append(_Outgoing(topic, octets, future))
        self._send_waiting()
        return future

    # The thread that keeps the connection up.

    def _keep_up(self) -> None:
        pause = FIRST_WAIT_S
        while not self._stopped.is_set():
            self._lost.clear()
            self._answered = False
            client = self._new_client()
            try:
                client.connect(self._address.host, self._address.port, KEEP_ALIVE_S, **self._session())
            except (OSError, ValueError) as problem:
                log.info("mqtt.unreachable host=%s port=%d reason=%s", self._address.host, self._address.port, problem)
            else:
                client.loop_start()
                self._lost.wait()
                pause = FIRST_WAIT_S if self._ready.is_set() else pause
                self._end(client)
                if not self._answered:  # a broker that knows no MQTT 5 may just hang up on it
                    self._versions.rotate(-1)
            if self._stopped.wait(pause):
                return
            pause = min(pause * 2, MOST_WAIT_S)

    def _end(self, client: Client) -> None:
        """Forget a connection; what was on its way goes first on the next."""
        with self._lock:
            self._client = None
            self._ready.clear()
            self._waiting.extendleft(reversed(self._on_way.values()))
            self._on_way, self._early = {}, {}
        client.disconnect()
        client.loop_stop()

    def _new_client(self) -> Client:
        version = self._versions[0]
        clean: dict[str, Any] = {} if version == MQTTProtocolVersion.MQTTv5 else {"clean_session": not self._keep_s}
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            protocol=version,
            manual_ack=True,
            reconnect_on_failure=False,
            **clean,
        )
        client.tls_set_context(self._address.tls)
        client.connect_timeout = CONNECT_S
        client.max_inflight_messages_set(OUTGOING)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_subscribe, client.on_message, client.on_publish = (
            self._on_subscribe,
            self._on_message,
            self._on_publish,
        )
        return client

    def _session(self) -> dict[str, Any]:
        """What MQTT 5 says of the session in CONNECT."""
        if self._versions[0] != MQTTProtocolVersion.MQTTv5:
            return {}
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho says no types here
        properties.SessionExpiryInterval = self._keep_s
        properties.ReceiveMaximum = self._window
        properties.MaximumPacketSize = self._most_bytes
        return {"clean_start": not self._keep_s, "properties": properties}

    # Called by paho in its own thread.

    def _on_connect(self, client: Client, _: Any, __: Any, reason: ReasonCode, ___: Any) -> None:
        self._answered = True
        if reason.is_failure:
            if len(self._versions) > 1 and str(reason) in UNSUPPORTED:
                self._versions.popleft()
                log.info("mqtt.speaks_older host=%s reason=%s", self._address.host, reason)
            else:
                log.warning("mqtt.refused host=%s reason=%s", self._address.host, reason)
            self._lost.set()
        elif self._topics:
            client.subscribe([(topic, self._options(client)) for topic in self._topics])
        else:
            self._open(client)

    def _options(self, client: Client) -> Any:
        """Of a subscription: QoS 1, and where it can be said, with the retain flag as the sender set it."""
        if client.protocol != MQTTProtocolVersion.MQTTv5:
            return 1
        return SubscribeOptions(qos=1, retainAsPublished=True)

    def _on_subscribe(self, client: Client, _: Any, __: int, reasons: list[ReasonCode], ___: Any) -> None:
        refused = [(topic, reason) for topic, reason in zip(self._topics, reasons, strict=False) if reason.is_failure]
        for topic, reason in refused:
            said = SHARED.sub("$share/…/", topic)  # who knows a group's name can join it
            log.error("mqtt.subscription_refused host=%s topic=%s reason=%s", self._address.host, said, reason)
        if refused:
            self._lost.set()
        else:
            self._open(client)

    def _open(self, client: Client) -> None:
        log.info("mqtt.connected host=%s port=%d version=%d", self._address.host, self._address.port, client.protocol)
        with self._lock:
            self._client = client
        self._draining = True
        self._ready.set()
        self._send_waiting()

    def _on_disconnect(self, _: Client, __: Any, ___: Any, reason: ReasonCode, ____: Any) -> None:
        if self._ready.is_set() and not self._stopped.is_set():
            log.warning("mqtt.connection_lost host=%s reason=%s", self._address.host, reason)
        self._lost.set()

    def _on_message(self, client: Client, _: Any, message: MQTTMessage) -> None:
        mid, qos, size = message.mid, message.qos, len(message.payload)
        while not self._room.take(size, LOOK_S):
            if self._lost.is_set():
                return

        def acknowledge() -> None:
            self._room.give_back(size)
            client.ack(mid, qos)  # of this connection: once it is lost, this reaches nobody

        reply_to = str(getattr(message.properties, "ResponseTopic", ""))
        arrived = Arrived(message.topic, bytes(message.payload), qos, message.retain, acknowledge, reply_to)
        if self._drain_per_s:
            self._piled_up.put(arrived)  # waiting here would keep paho from answering the broker
        else:
            self._arrived(arrived)

    def _on_publish(self, client: Client, _: Any, mid: int, reason: ReasonCode, __: Any) -> None:
        with self._lock:
            outgoing = self._on_way.pop(mid, None)
            if outgoing is None and self._client is client:
                self._early[mid] = reason
        if outgoing is not None:
            _done(outgoing, reason)
            self._send_waiting()

    # The thread that takes what piled up, where there is a rate.

    def _drain(self) -> None:
        due_s = 0.0
        while not self._stopped.is_set():
            try:
                arrived = self._piled_up.get(timeout=CAUGHT_UP_S)
            except Empty:
                self._draining = self._draining and (self._room.full() or not self._ready.is_set())
                continue
            if self._draining:
                due_s = max(due_s + 1 / self._drain_per_s, monotonic())
                self._stopped.wait(due_s - monotonic())
            self._arrived(arrived)

    # Called in any thread.

    def _send_waiting(self) -> None:
        """Send what waits, as far as there is room."""
        while True:
            with self._lock:
                client = self._client
                if client is None or not self._waiting or len(self._on_way) >= OUTGOING:
                    return
                outgoing = self._waiting.popleft()
            mid = client.publish(outgoing.topic, outgoing.octets, qos=1, retain=False).mid
            with self._lock:
                reason = self._early.pop(mid, None)
                closed = self._stopped.is_set()  # whoever stops has drained both, or finds it in one of them
                if reason is None and not closed and self._client is client:
                    self._on_way[mid] = outgoing
                elif reason is None and not closed:
                    self._waiting.appendleft(outgoing)  # the connection was lost meanwhile
            if reason is not None:
                _done(outgoing, reason)
            elif closed:
                outgoing.future.set_exception(Unavailable(CLOSED))


def _done(outgoing: _Outgoing, reason: ReasonCode) -> None:
    if reason.is_failure:
        outgoing.future.set_exception(Unavailable(f"the broker refused to publish: {reason}"))
    else:
        outgoing.future.set_result(None)


def address_of(url: str, tls: ssl.SSLContext, versions: tuple[MQTTProtocolVersion, ...] = BEST_FIRST) -> Address:
    """The address `mqtts://host:port` (port 8883 when left out). Raises Misconfigured for any other scheme."""
    parts = urlsplit(url)
    try:
        if parts.scheme == "mqtts" and parts.hostname and parts.path in ("", "/") and not parts.username:
            return Address(parts.hostname, parts.port or 8883, tls, versions)
    except ValueError as problem:
        raise Misconfigured("config.setting", f"{url}: {problem}") from problem
    raise Misconfigured("config.setting", f"{url}: write mqtts://host:port")


def client_tls(certificate: str, key: str, authority: str, passphrase: bytes | None = None) -> ssl.SSLContext:
    """TLS 1.2 or newer with a client certificate, towards a broker whose certificate chains to authority (PEM files).

    passphrase: of an encrypted key. Raises Misconfigured naming the files.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, passphrase or b"")  # without one OpenSSL would ask the terminal
        context.load_verify_locations(cafile=authority)
    except (OSError, ssl.SSLError) as problem:
        raise Misconfigured("config.key", f"{certificate}, {key}, {authority}: {problem}") from problem
    return context
