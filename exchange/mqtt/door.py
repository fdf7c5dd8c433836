"""The second door: messages from a broker go through the same story as SOAP's, and its answers go back by the broker.

A message is acknowledged once what it brought is durable, or refused; never before. Its receipt is published first, so
that a crash in between brings the message again and its receipt with it.
"""

import asyncio
import logging
import secrets
from collections import Counter, deque
from concurrent.futures import Future
from typing import Final

import msgspec
from paho.mqtt.enums import MQTTProtocolVersion

from connectors.transports.mqtt import FOR_EVER, Address, Arrived, Link
from exchange.bus import Bus
from exchange.database import FAILURES
from exchange.intake import receive
from exchange.mqtt.topics import DELIVERIES, answer_topic, feed_of, shared_deliveries
from exchange.opened import refusal_to_signer
from security.errors import AuditBroken, ExchangeError, Refusal, Unavailable, places
from security.message import BROKER, Carried, Delivery, in_memory

log = logging.getLogger("yongtong.door")

WINDOW: Final = 256  # deliveries under way; each of at most 1 MiB
SHARE: Final = WINDOW // 16  # of them of one feed that may wait for room in its quota: sixteen floods fill the window
# A process that shares comes back to its own session, and to what waits there, within this time. One that does not is
# forgotten then: until then the broker goes on setting its share aside (Mosquitto, measured), afterwards no more.
SHARED_AWAY_S: Final = 60
FIRST_WAIT_S, MOST_WAIT_S = 0.5, 15.0
TOO_MANY: Final = "flow.too_many"
ATTEMPTS: Final = 3  # at a message that trips us


class MqttDoor:
    """One broker as a door onto the bus.

    address:   of the broker
    client_id: of the bus's own client there
    name:      of the broker, as receipts name it: `broker:{name}`
    group:     in which several processes, each with a client id of its own, share the deliveries of a broker of MQTT 5;
               empty: this is the only one
    drain_per_s: deliveries a second of what piled up while we were away; 0: all that the window lets in
    """

    def __init__(
        self,
        bus: Bus,
        address: Address,
        client_id: str,
        name: str,
        most_bytes: int,
        *,
        group: str = "",
        drain_per_s: float = 0.0,
    ) -> None:
        self._bus, self._broker = bus, f"{BROKER}{name}"
        if group:  # in 3.1.1 a session could not end, and what it withholds would be withheld for ever
            address = msgspec.structs.replace(address, versions=(MQTTProtocolVersion.MQTTv5,))
        self._link = Link(
            address,
            client_id,
            [shared_deliveries(group) if group else DELIVERIES],
            self._hand_over,
            window=WINDOW,
            most_bytes=most_bytes,
            keep_s=SHARED_AWAY_S if group else FOR_EVER,
            drain_per_s=drain_per_s,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handed: deque[Arrived] = deque()
        self._called = False
        self._held: Counter[str] = Counter()  # by feed, of those that may wait for room
        self._under_way: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Connect and take messages, on the event loop that this is called on."""
        self._loop = asyncio.get_running_loop()
        self._link.start()

    async def ready(self, seconds: float) -> bool:
        """Whether messages can come within that time."""
        return await asyncio.to_thread(self._link.wait_ready, seconds)

    async def stop(self) -> None:
        """Take no more; what is under way is not waited for, for the broker will hand it out again."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        await asyncio.to_thread(self._link.stop)

    def publish(self, topic: str, octets: bytes) -> "Future[None]":
        """Publish to a topic; done when the broker acknowledged it, fails with Unavailable when it cannot be."""
        return self._link.publish(topic, octets)

    def busy(self) -> bool:
        """Whether deliveries wait for one another: what can come later should."""
        return len(self._under_way) > WINDOW // 4

    def _hand_over(self, arrived: Arrived) -> None:
        """In the link's thread: the story is told on the loop."""
        assert self._loop is not None
        self._handed.append(arrived)
        if self._called:
            return  # the loop will look, and find this one too
        self._called = True
        try:
            self._loop.call_soon_threadsafe(self._begin)
        except RuntimeError:  # the loop is closed: we are stopping, and the message will come again
            log.info("mqtt.came_too_late")

    def _begin(self) -> None:
        self._called = False  # first: what is handed over from here on calls again
        while self._handed:
            task = asyncio.ensure_future(self._story(self._handed.popleft()))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _story(self, arrived: Arrived) -> None:
        """Until the message is taken or refused. What the bus cannot do now it does not ask the broker to repeat: it
        holds the message, which counts against the window, and tries again.

        Beyond a feed's quota a few messages are held until there is room; more of them are refused, each in its signed
        answer, or one feed's flood would fill the window of all.
        """
        wait_s, attempt, feed = FIRST_WAIT_S, 1, feed_of(arrived.topic) or ""
        holds = self._held[feed] < SHARE
        self._held[feed] += holds
        try:
            while not await self._dealt_with(arrived, attempt, holds=holds):
                await asyncio.sleep(wait_s)
                wait_s, attempt = min(wait_s * 2, MOST_WAIT_S), attempt + 1
        finally:
            self._held[feed] -= holds
        arrived.acknowledge()

    async def _room(self, feed_id: str) -> None:
        """Return when the feed's quota has room. Asked before the signature is looked at: nothing is counted yet."""
        feed, bus = self._bus.feeds.get(feed_id), self._bus
        while feed is not None and (wait_s := bus.gate.full(feed, bus.limits, bus.journal, bus.clock())):
            await asyncio.sleep(min(wait_s, MOST_WAIT_S))

    async def _dealt_with(self, arrived: Arrived, attempt: int, *, holds: bool) -> bool:
        try:
            if holds:
                await self._room(feed_of(arrived.topic) or "")
            delivery = self._delivery(arrived)
            received = await receive(delivery, self._bus)
            assert received.inbox.receipt is not None  # `receive` waits for it
            for bureau in {received.inbox.sender, received.verified.signer.bureau}:  # two where one signs for another
                self._answer(bureau, arrived, received.inbox.receipt)
        except Refusal as refusal:
            if holds and refusal.code == TOO_MANY:
                return False  # others were there first
            self._refuse(refusal, arrived)
        except Unavailable as problem:
            log.warning("door.unavailable service=mqtt reason=%s", problem)
            return False
        except AuditBroken as problem:
            log.critical("door.audit_broken service=mqtt reason=%s", problem)
            return False
        except (OSError, *FAILURES) as problem:  # a disk or file of ours: the message is not at fault
            log.warning("door.unavailable service=mqtt at=%s", places(problem))
            return False
        except Exception as problem:  # the transport's outermost loop: one bad message must not come for ever
            reference = secrets.token_hex(4)
            log.error("door.failed service=mqtt reference=%s attempt=%d at=%s", reference, attempt, places(problem))
            return attempt >= ATTEMPTS  # a PUBACK is no receipt: without one its sender sends again
        return True

    def _delivery(self, arrived: Arrived) -> Delivery:
        carried = Carried(feed_of(arrived.topic) or "", arrived.qos, arrived.retained)
        raw = in_memory(arrived.octets)
        return Delivery("mqtt", None, self._broker, arrived.octets, raw, self._bus.clock(), carried=carried)

    def _refuse(self, refusal: Refusal, arrived: Arrived) -> None:
        """Tell a signer whose signature held; a stranger hears nothing, for nobody knows where he listens."""
        log.info("door.refused reference=%s code=%s remote=%s", refusal.reference, refusal.code, self._broker)
        try:
            told = refusal_to_signer(refusal, arrived.octets, self._bus)
        except Unavailable as problem:
            # The token in which our key lies is away; the sender sends again, and hears then.
            log.warning("door.unavailable service=mqtt reason=%s", problem)
            return
        if told is not None:
            _, bureau, answer = told
            self._answer(bureau, arrived, answer)

    def _answer(self, bureau: str, arrived: Arrived, document: bytes) -> None:
        """bureau: whose signature held; the response topic was not signed, so it leads nowhere but to that bureau."""
        self.publish(answer_topic(bureau, arrived.reply_to), document).add_done_callback(_note_failure)


def _note_failure(published: "Future[None]") -> None:
    """A receipt that could not be published is had again by sending the same once more, or by GetReceipt."""
    problem = published.exception()
    if isinstance(problem, ExchangeError):
        log.warning("mqtt.answer_not_published reason=%s", problem)
