"""The second door: the broker, embedded or a city's, and our own client of it."""

import asyncio
import fcntl
import hmac
import itertools
import logging
import socket
import ssl
import threading
from concurrent.futures import Future
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Final

from paho.mqtt.enums import MQTTProtocolVersion

from connectors.transports.mqtt import Address, address_of, client_tls
from exchange.app import duties, keys_in_force
from exchange.bus import Bus
from exchange.intake import signs_for, turn_away
from exchange.journal import InboxRow
from exchange.mqtt.broker import US, EmbeddedBroker, Rules
from exchange.mqtt.door import MqttDoor
from exchange.mqtt.topics import outbound
from exchange.publication import Publisher, subscription, today
from exchange.reports_out import ReportPush
from exchange.settings import Settings
from security.authenticate import carrier_of
from security.errors import Misconfigured
from security.keys import der_of_pem
from security.message import BROKER

log = logging.getLogger("yongtong.app")

MQTT_READY_S: Final = 10.0  # how long the doors wait for the broker before they open without it


async def open_door(settings: Settings, bus: Bus, listening: socket.socket | None, stack: AsyncExitStack) -> None:
    """Open the second door until the stack closes: the embedded broker where there is one, then our own client."""
    if settings.mqtt.broker == "off":
        return
    if listening is not None:
        broker = _embedded(settings, bus, listening)
        await broker.start()
        stack.push_async_callback(broker.shutdown)
    said, client_id = settings.mqtt, f"{US}:{settings.bus.origin}"
    door = MqttDoor(
        bus,
        broker_address(settings, listening),
        f"{client_id}:{place_among(bus.folder, stack)}" if said.shared else client_id,
        said.name,
        said.max_packet_bytes,
        group=share_group(bus.outcome_secret) if said.shared else "",
        drain_per_s=said.drain_per_s,
    )
    stopping = threading.Event()
    published = partial(
        duties.on_duty, bus.journal.database, "changes", lambda stop: Publisher(bus, door.publish).run(stop)
    )
    changes = threading.Thread(target=published, args=(stopping,), name="changes", daemon=True)
    stack.push_async_callback(asyncio.to_thread, changes.join)  # after the door, whose end fails what it waits for
    changes.start()
    door.start()
    stack.push_async_callback(door.stop)
    stack.callback(stopping.set)
    if not await door.ready(MQTT_READY_S):
        log.warning("mqtt.not_ready broker=%s; the other doors open, and it is tried on", settings.mqtt.broker)

    def push(row: InboxRow, report: bytes) -> "Future[None]":
        return door.publish(outbound(row.sender, "report"), report)

    async def push_all() -> None:
        await ReportPush(bus.journal, BROKER, bus.folder / "reports-pushed", push, door.busy).run()

    pushing = asyncio.create_task(duties.on_loop(bus.journal.database, "reports", push_all))
    stack.callback(pushing.cancel)


def check_sharing(settings: Settings) -> None:
    """Return if what the settings say of sharing a broker can be. Raises Misconfigured."""
    if settings.mqtt.shared and settings.mqtt.broker == "embedded":
        raise Misconfigured(
            "config.setting", f"{settings.source}: [mqtt] shared: the embedded broker is of one process; name a city's"
        )
    if settings.mqtt.drain_per_s < 0:
        raise Misconfigured(
            "config.setting", f"{settings.source}: [mqtt] drain_per_s = {settings.mqtt.drain_per_s}: write 0 or more"
        )


def share_group(secret: bytes) -> str:
    """The group in which this bus's processes share a broker's deliveries, which nobody else can name.

    Whoever subscribes in a group takes its share of the messages away, and Mosquitto with an ACL file lets every
    client subscribe to everything: it hands him nothing, and his share to nobody (measured).
    """
    return f"yongtong-{hmac.digest(secret, b'group of shared subscriptions', 'sha256').hex()[:16]}"


def place_among(state: Path, stack: AsyncExitStack) -> str:
    """A name for this process among those of the bus, which it finds again when it is started again: HOST-1, HOST-2."""
    for number in itertools.count(1):
        file = (state / f"mqtt-{number}.lock").open("w")
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            stack.enter_context(file)
            return f"{socket.gethostname()}-{number}"
        file.close()
    raise AssertionError


def _embedded(settings: Settings, bus: Bus, listening: socket.socket) -> EmbeddedBroker:
    """The embedded broker, which lets nobody in without an enrolled certificate."""
    folder = settings.at(settings.keys.folder)
    tls = keys_in_force.server_tls(settings)
    tls.verify_mode = ssl.CERT_REQUIRED

    def bureau_of(der: bytes) -> str | None:
        carrier = carrier_of(der, bus.registry.trust(), bus.clock())
        return carrier.bureau if carrier else None

    def subscription_of(bureau: str) -> str:
        grant = subscription(bureau, bus)
        return grant.id if grant else ""

    rules = Rules(
        own_der=der_of_pem((folder / "tls.pem").read_bytes()),
        bureau_of=bureau_of,
        owner_of=lambda feed: bus.feeds[feed].bureau if feed in bus.feeds else None,
        subscription_of=subscription_of,
        holds_any=lambda bureau: any(
            grant.valid_from <= today(bus) <= grant.valid_until for grant in bus.registry.grants(bureau)
        ),
        signs_for=lambda bureau, other: signs_for(bureau, other, bus),
        refused=lambda refusal, der, remote: turn_away(refusal, "mqtt", der, remote, bus),
    )
    return EmbeddedBroker(listening, tls, rules, settings.mqtt.max_packet_bytes)


def broker_address(settings: Settings, listening: socket.socket | None = None) -> Address:
    """Where the bus's own client finds its broker. listening: the embedded one's socket."""
    mqtt, folder = settings.mqtt, settings.at(settings.keys.folder)
    keyring = keys_in_force.keyring_of(settings, attended=False)
    tls = client_tls(
        str(settings.at(mqtt.certificate) if mqtt.certificate else folder / "tls.pem"),
        str(settings.at(mqtt.key) if mqtt.key else keyring.path("tls")),
        str(settings.at(mqtt.ca) if mqtt.ca else folder / "ca.pem"),
        None if mqtt.key else keyring.passphrase("tls"),
    )
    if listening is None:
        return address_of(mqtt.broker, tls)
    tls.check_hostname = False  # our own socket, by its address; the certificate is made out to public names
    host, port = listening.getsockname()[:2]
    return Address({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port, tls, (MQTTProtocolVersion.MQTTv311,))  # noqa: S104  # an address to call, not to listen on
