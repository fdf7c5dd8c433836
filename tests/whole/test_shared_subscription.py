"""A city's broker between several processes of one bus, and what piles up there: windows, rates, who takes what."""

import asyncio
import json
import logging
import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from connectors.partner.mqtt import inbound
from connectors.transports.mqtt import BEST_FIRST, Arrived, Link
from exchange.app import opening, over_mqtt, serving
from exchange.cli.trial import ORIGIN
from exchange.key_places import DEMO
from exchange.mqtt.door import MqttDoor
from exchange.mqtt.topics import shared_deliveries
from exchange.processing import process
from security.errors import Misconfigured
from tests.whole.test_mosquitto import FEED, WithMosquitto, _sealed, a_city

GROUP = "yongtong-of-a-test"
WAIT_S = 60.0


@pytest.fixture(scope="module")
def one_city(tmp_path_factory: pytest.TempPathFactory) -> WithMosquitto:
    return a_city(tmp_path_factory.mktemp("city"))


@pytest.fixture
def city(one_city: WithMosquitto) -> Iterator[WithMosquitto]:
    """With a broker that remembers nothing of the test before."""
    folder = one_city.broker.folder
    conf = (folder / "mosquitto.conf").read_text()
    yield one_city
    (folder / "mosquitto.conf").write_text(conf)
    (folder / "mosquitto.db").unlink(missing_ok=True)


class Taker:
    """A link of the bus's, and what it took; it acknowledges when told to, or at once."""

    def __init__(self, city: WithMosquitto, name: str, topic: str, *, at_once: bool = True, **more: Any) -> None:
        address = over_mqtt.broker_address(city.trial.settings)
        if versions := more.pop("versions", None):
            address = msgspec.structs.replace(address, versions=versions)
        self.taken: list[Arrived] = []
        self.times_s: list[float] = []
        self._at_once = at_once
        self.link = Link(address, f"_bus:{name}", [topic], self._take, **more)

    def _take(self, arrived: Arrived) -> None:
        self.times_s.append(time.monotonic())
        self.taken.append(arrived)
        if self._at_once:
            arrived.acknowledge()

    def said(self) -> list[str]:
        return [arrived.octets.decode() for arrived in self.taken]

    def __enter__(self) -> "Taker":
        self.link.start()
        assert self.link.wait_ready(WAIT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self.link.stop()


@contextmanager
def gateway(city: WithMosquitto) -> Iterator[Callable[[Sequence[str | bytes]], None]]:
    """A bureau's client that publishes; gives when the broker has all."""
    link = city.link("made-up", "gw", arrived=[])
    link.start()
    assert link.wait_ready(WAIT_S)

    def publish(messages: Sequence[str | bytes]) -> None:
        octets = [each.encode() if isinstance(each, str) else each for each in messages]
        for future in [link.publish(inbound(FEED), each) for each in octets]:
            future.result(WAIT_S)

    try:
        yield publish
    finally:
        link.stop()


def numbers(first: int, end: int) -> list[str]:
    return [str(number) for number in range(first, end)]


def until(holds: Callable[[], Any]) -> Any:
    ends_s = time.monotonic() + WAIT_S
    while not (found := holds()):
        assert time.monotonic() < ends_s, "it did not come to hold"
        time.sleep(0.01)
    return found


# Several processes ---------------------------------------------------------------------------------------------------


def test_of_200_messages_two_links_take_each_once(city: WithMosquitto) -> None:
    topic = shared_deliveries(GROUP)
    with (
        city.broker.running(),
        Taker(city, "1", topic) as one,
        Taker(city, "2", topic) as two,
        gateway(city) as publish,
    ):
        publish(numbers(0, 200))
        until(lambda: len(one.taken) + len(two.taken) >= 200)
    assert sorted([*one.said(), *two.said()], key=int) == numbers(0, 200)
    assert min(len(one.taken), len(two.taken)) > 50, "both work"


def test_with_a_socket_cut_in_the_middle_all_200_are_applied_once(city: WithMosquitto) -> None:
    """Two doors onto one inbox. What the one had not acknowledged when it was cut off waits in its session for it."""
    trial, broker = city
    group = over_mqtt.share_group(b"secret")
    bus = opening.open_bus(trial.settings)
    envelopes = [_sealed(trial, number) for number in range(200)]

    async def both() -> None:
        address = over_mqtt.broker_address(trial.settings)
        doors = [MqttDoor(bus, address, f"_bus:{name}", "city", 2_000_000, group=group) for name in "ab"]
        for door in doors:
            door.start()
        assert all([await door.ready(WAIT_S) for door in doors])
        with gateway(city) as publish:
            pushing = asyncio.create_task(asyncio.to_thread(publish, envelopes))
            while _accepted(bus) < 40:
                await asyncio.sleep(0.01)
            client = doors[1]._link._client
            assert client is not None
            client.socket().shutdown(socket.SHUT_RDWR)
            await pushing
            while _accepted(bus) < 200:
                await asyncio.sleep(0.02)
            assert all(not door._link._room._messages for door in doors) or await _acknowledged(doors)
        for door in doors:
            await door.stop()

    with broker.running(), closing(bus):
        asyncio.run(asyncio.wait_for(both(), WAIT_S))
        while process(FEED, bus):
            pass
        ledger = bus.store.ledger()
    assert (ledger.deliveries, ledger.claims) == (200, 200)


async def _acknowledged(doors: list[MqttDoor]) -> bool:
    while any(door._under_way for door in doors):
        await asyncio.sleep(0.01)
    return True


def _accepted(bus: Any) -> int:
    return len(bus.journal.search(type="delivery", limit=1_000))


def test_a_process_that_never_comes_back_withholds_its_share_until_its_session_ends(city: WithMosquitto) -> None:
    """And not longer. What was set aside for it is gone then: it has no receipt, and its sender sends again."""
    topic = shared_deliveries(GROUP)
    with city.broker.running(), Taker(city, "stays", topic) as stays, gateway(city) as publish:
        with Taker(city, "goes", topic, at_once=False, window=8, keep_s=1) as goes:
            publish(numbers(0, 40))
            until(lambda: len(stays.taken) == 20 and len(goes.taken) == 8)
        publish(numbers(40, 60))
        until(lambda: len(stays.taken) == 30)
        time.sleep(2.5)
        publish(numbers(60, 80))
        until(lambda: len(stays.taken) == 50)
        missing = sorted(set(numbers(0, 80)) - set(stays.said()), key=int)
        assert len(missing) == 30
        publish(missing)
        until(lambda: set(stays.said()) == set(numbers(0, 80)))


def test_who_does_not_know_the_groups_name_takes_nothing_of_its_share(city: WithMosquitto) -> None:
    """Mosquitto with an ACL file lets a bureau join any group that it can name, hands it nothing, and its share to
    nobody. Ours is named by a secret of the bus."""
    group = over_mqtt.share_group(b"secret of the bus")
    assert re.fullmatch(r"yongtong-[0-9a-f]{16}", group)
    assert group not in (over_mqtt.share_group(b"another"), "yongtong")
    others = [shared_deliveries("yongtong"), shared_deliveries(GROUP), "yt/v1/feeds/+/in"]
    heard: list[Arrived] = []
    with city.broker.running(), Taker(city, "1", shared_deliveries(group)) as ours, gateway(city) as publish:
        rude = city.link("water", "gw", *others, arrived=heard)
        rude.start()
        assert rude.wait_ready(WAIT_S), "it is let subscribe to everything"
        publish(numbers(0, 60))
        until(lambda: len(ours.taken) == 60)
        rude.stop()
    assert heard == []


def test_a_shared_subscription_that_is_forbidden_is_refused_by_name(
    city: WithMosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    """By Mosquitto's plug-in for rights, which knows subscriptions, as its ACL file does not."""
    _with_dynamic_security(city, allowed="$share/+/yt/v1/feeds/+/in")
    address = over_mqtt.broker_address(city.trial.settings)
    with city.broker.running(), caplog.at_level(logging.INFO, "yongtong"):
        with Taker(city, "1", shared_deliveries(GROUP)):
            pass
        forbidden = Link(address, "_bus:2", [shared_deliveries(GROUP).replace("feeds", "to")])
        forbidden.start()
        until(lambda: "mqtt.subscription_refused" in caplog.text)
        forbidden.stop()
    (line,) = {record.getMessage() for record in caplog.records if "subscription_refused" in record.getMessage()}
    assert line == "mqtt.subscription_refused host=localhost topic=$share/…/yt/v1/to/+/in reason=Not authorized"


def _with_dynamic_security(city: WithMosquitto, allowed: str) -> None:
    """The same broker with its plug-in in place of its ACL file, as docs/queues.md says."""
    plugin = Path("/usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so")
    if not plugin.exists():
        pytest.skip("mosquitto_dynamic_security (make servers)")
    folder = city.broker.folder
    rights = [
        {"acltype": "subscribePattern", "topic": allowed, "allow": True},
        {"acltype": "publishClientReceive", "topic": "yt/v1/feeds/+/in", "allow": True},
    ]
    defaults = dict.fromkeys(("publishClientSend", "publishClientReceive", "subscribe"), False) | {"unsubscribe": True}
    document = {
        "defaultACLAccess": defaults,
        "clients": [{"username": f"{ORIGIN} {DEMO} tls", "roles": [{"rolename": "bus"}]}],
        "roles": [{"rolename": "bus", "acls": rights}],
    }
    (folder / "rights.json").write_text(json.dumps(document))
    conf = (folder / "mosquitto.conf").read_text()
    lines = f"plugin {plugin}\nplugin_opt_config_file {folder / 'rights.json'}"
    changed = conf.replace(f"acl_file {folder / 'yongtong.acl'}", lines)
    assert changed != conf
    (folder / "mosquitto.conf").write_text(changed)


def test_the_embedded_broker_is_not_shared(city: WithMosquitto) -> None:
    settings = city.trial.settings
    embedded = msgspec.structs.replace(
        settings, mqtt=msgspec.structs.replace(settings.mqtt, broker="embedded", shared=True)
    )
    with pytest.raises(Misconfigured, match="one process"), socket.socket() as listening:
        serving.serve(embedded, listening, None, with_worker=False, ready=lambda: None)


def test_a_process_finds_its_place_again_and_two_have_two(tmp_path: Path) -> None:
    async def places() -> list[str]:
        async with AsyncExitStack() as one, AsyncExitStack() as two:
            both = [over_mqtt.place_among(tmp_path, one), over_mqtt.place_among(tmp_path, two)]
            await one.aclose()
            async with AsyncExitStack() as again:
                return [*both, over_mqtt.place_among(tmp_path, again)]

    first, second, again = asyncio.run(places())
    assert first == again != second


# What piles up -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", BEST_FIRST, ids=lambda version: version.name)
def test_the_message_after_a_full_queue_is_not_stuck(city: WithMosquitto, version: MQTTProtocolVersion) -> None:
    """Mirth#1682. A window of 8, 120 messages: eight are handed out, all others the broker holds, and each that is
    acknowledged lets the next one come. In MQTT 5 the broker is told so; then our own publishing goes on meanwhile."""
    topic = "yt/v1/feeds/+/in"
    five = version == MQTTProtocolVersion.MQTTv5
    taker = Taker(city, "1", topic, at_once=False, window=8, versions=(version,))
    with city.broker.running(), gateway(city) as publish, taker:
        publish(numbers(0, 120))
        until(lambda: len(taker.taken) == 8)
        if five:
            taker.link.publish("yt/v1/to/made-up/receipt", b"x").result(5.0)
        time.sleep(0.3)
        assert len(taker.taken) == 8
        taker.taken[0].acknowledge()
        until(lambda: len(taker.taken) == 9)
        time.sleep(0.1)
        assert len(taker.taken) == 9
        for number in range(1, 120):
            until(lambda number=number: len(taker.taken) > number)
            taker.taken[number].acknowledge()
    assert taker.said() == numbers(0, 120)


def test_a_backlog_after_reconnect_drains_at_its_rate_and_what_comes_later_does_not_wait(city: WithMosquitto) -> None:
    """Mosquitto#1359: 300 messages that came while we were away, at 150 a second."""
    rate, topic = 150.0, "yt/v1/feeds/+/in"
    with city.broker.running(), gateway(city) as publish:
        with Taker(city, "1", topic):
            pass
        publish(numbers(0, 300))
        with Taker(city, "1", topic, window=64, drain_per_s=rate) as back:
            until(lambda: len(back.taken) == 300)
            within = [sum(begun <= each < begun + 1.0 for each in back.times_s) for begun in back.times_s]
            assert max(within) <= rate * 1.05
            time.sleep(0.8)  # it sees that there is no more
            began_s = time.monotonic()
            publish(numbers(300, 500))
            until(lambda: len(back.taken) == 500)
            assert time.monotonic() - began_s < 200 / rate
    assert back.said() == numbers(0, 500)
