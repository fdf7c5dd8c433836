"""The second door with a city's own broker: Debian's Mosquitto, under the configuration of docs/mosquitto."""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from bench import mosquitto
from bench.mosquitto import Mosquitto
from connectors.partner.envelope import names_of, sealed
from connectors.partner.mqtt import MqttPartner, inbound
from connectors.transports.mqtt import Arrived, Link, address_of, client_tls
from exchange import audit
from exchange.app import keys_in_force, opening, places, trusted
from exchange.cli.trial import City, Trial
from exchange.store.embedded import Embedded
from exchange.store.store import Store
from security.errors import Refusal, Unavailable
from security.message import in_memory
from tests.registers import LAMPS
from tests.whole.real_bus import EXTENT, FEEDS, SAMPLE

T = TypeVar("T")
FEED = "made-up-lamps"
BURST = 200
WAIT_S = 30.0


class WithMosquitto(NamedTuple):
    """A trial that speaks to a private Mosquitto."""

    trial: Trial
    broker: Mosquitto

    def link(self, bureau: str, name: str, *topics: str, arrived: list[Arrived]) -> Link:
        """A bureau's plain client of the broker."""
        folder = self.trial.partners / bureau
        names = ("connection.pem", "connection.key", "ca.pem")
        tls = client_tls(*(str(folder / name) for name in names))
        return Link(address_of(self.broker.url, tls), f"{bureau}:{name}", topics, arrived.append)


@pytest.fixture
def made(tmp_path: Path) -> WithMosquitto:
    return a_city(tmp_path)


def a_city(tmp_path: Path) -> WithMosquitto:
    """A bus that is to use a private Mosquitto, and two bureaus of which one may push; nothing runs yet."""
    if not mosquitto.AVAILABLE:
        pytest.skip("mosquitto (make servers)")
    (tmp_path / "feeds").mkdir()
    (tmp_path / "feeds" / f"{FEED}.toml").write_text(LAMPS, encoding="utf-8")
    broker = Mosquitto(tmp_path / "broker", {"made-up": [FEED], "water": []})
    city = City(EXTENT, SAMPLE / "districts.geojson", SAMPLE / "grid.geojson", (FEEDS, tmp_path / "feeds"))
    trial = Trial(tmp_path / "bus", city, mqtt={"broker": broker.url, "name": "city"})
    broker.certify(keys_in_force.authority(trial.settings))
    for bureau in ("made-up", "water"):
        trial.enrol(bureau, bureau, "某单位")
    trial.grant("made-up", "push", FEED)
    return WithMosquitto(trial, broker)


@pytest.fixture
def running(made: WithMosquitto) -> Iterator[WithMosquitto]:
    with made.broker.running(), made.trial:
        yield made


def content(number: int) -> bytes:
    return f"编号,经度,纬度\nL{number},{121.547 + number * 1e-5:.6f},29.868\n".encode()


def test_push_rights_and_names_through_a_citys_broker(running: WithMosquitto, tmp_path: Path) -> None:
    trial = running.trial
    heard: list[Arrived] = []
    with trial.mqtt_partner("made-up") as partner:
        received = partner.push(FEED, in_memory(content(1)), "text/csv", "m-1")
        assert received.document["carrier"] == "broker:city"
        assert partner.report("m-1", wait_s=WAIT_S).status == "processed"
        assert trial.partner("made-up").receipt("m-1").octets == received.octets
        # MQTT 5 tells who may not; MQTT 3.1.1 would acknowledge and drop
        water = running.link("water", "gw", "yt/v1/to/made-up/receipt", arrived=heard)
        water.start()
        assert water.wait_ready(WAIT_S)
        for topic in (inbound(FEED), "yt/v1/to/made-up/receipt", "yt/v1/to/water/receipt"):
            with pytest.raises(Unavailable, match="Not authorized"):
                water.publish(topic, b"x").result(WAIT_S)
        _mosquitto_pub(running, tmp_path, "m-2", qos=1)
        _mosquitto_pub(running, tmp_path, "m-3", qos=0)
        with pytest.raises(Refusal) as refused:
            partner.push(FEED, in_memory(content(9)), "text/csv", "m-2")
        assert refused.value.code == "delivery.id_reused"
        water.stop()
    assert heard == [], "nobody hears another bureau's receipts"
    with closing(opening.open_journal(trial.settings)) as journal:
        _until(lambda: journal.inbox("made-up", "m-2"))
        (entry,) = _until(lambda: journal.search(type="refusal", outcome="mqtt.qos_zero"))
        assert (entry.leaf.sender, (entry.detail or {})["message_id"]) == ("made-up", "m-3")
        assert journal.inbox("made-up", "m-3") is None


def test_a_broker_that_is_killed_in_mid_flow_loses_nothing_and_doubles_nothing(made: WithMosquitto) -> None:
    """200 envelopes in a burst, the broker killed among them; then its senders do what senders do: again until a
    receipt comes."""
    trial, broker = made
    with broker.running() as process, trial:
        with trial.mqtt_partner("made-up") as partner:
            envelopes = [_sealed(trial, number) for number in range(BURST)]
            for octets in envelopes[: BURST // 2]:
                partner.publish(inbound(FEED), octets)
            _until(lambda: _accepted(trial) >= BURST // 10)
            for octets in envelopes[BURST // 2 :]:
                partner.publish(inbound(FEED), octets)
            process.kill()
            process.wait()
            before = _accepted(trial)
        with broker.running(), trial.mqtt_partner("made-up") as partner:
            receipts = [_push(partner, number) for number in range(BURST)]
            statuses = {partner.report(f"d-{number}", wait_s=WAIT_S).status for number in range(BURST)}
    assert 0 < before < BURST, "it was to be killed in mid-flow"
    assert statuses == {"processed"}
    assert len({receipt["index"] for receipt in receipts}) == BURST
    assert _accepted(trial) == BURST
    with closing(Store(Embedded(trial.state))) as store:
        ledger = store.ledger()
    assert (ledger.deliveries, ledger.claims) == (BURST, BURST)
    assert audit.verify(trial.state, trusted.anchors_of(trial.settings)).ok


class Client5(NamedTuple):
    """A gateway's own client of MQTT 5, and what it heard: topic, octets, retained."""

    client: Client
    heard: list[tuple[str, bytes, bool]]

    def publish(self, topic: str, octets: bytes, reply_to: str = "", **more: Any) -> None:
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho says no types here
        if reply_to:
            properties.ResponseTopic = reply_to
        self.client.publish(topic, octets, 1, properties=properties, **more).wait_for_publish(WAIT_S)


@contextmanager
def client5(running: WithMosquitto, bureau: str, client_id: str, *, keep: bool = False) -> Iterator[Client5]:
    """Connected and subscribed to all that is for the bureau. keep: the broker keeps what comes while it is away."""
    folder, heard, ready = running.trial.partners / bureau, list[tuple[str, bytes, bool]](), list[int]()
    client = Client(CallbackAPIVersion.VERSION2, client_id, protocol=MQTTProtocolVersion.MQTTv5)
    client.tls_set_context(client_tls(*(str(folder / name) for name in ("connection.pem", "connection.key", "ca.pem"))))
    client.on_message = lambda _, __, message: heard.append((message.topic, message.payload, message.retain))
    client.on_subscribe = lambda _, __, ___, codes, ____: ready.extend(code.value for code in codes)
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = 60 if keep else 0
    client.connect("localhost", running.broker.port, 30, clean_start=not keep, properties=properties)
    client.loop_start()
    try:
        client.subscribe(f"yt/v1/to/{bureau}/#", 1)
        _until(lambda: ready)
        yield Client5(client, heard)
    finally:
        client.disconnect()
        client.loop_stop()


def test_a_response_topic_is_honoured_under_the_bureaus_own_prefix_only(running: WithMosquitto) -> None:
    """And nothing is retained: who comes later hears nothing of it."""
    with client5(running, "made-up", "made-up:gw-7") as ours, client5(running, "water", "water:gw") as water:
        for number, reply_to in enumerate(("yt/v1/to/made-up/gw-7", "yt/v1/to/water/gw", "")):
            ours.publish(inbound(FEED), _sealed(running.trial, number), reply_to)
        answers = _until(lambda: [one for one in ours.heard if not one[0].endswith("/report")][2:] and ours.heard)
        topics = sorted(topic for topic, _, _ in answers if not topic.endswith("/report"))
        assert topics == ["yt/v1/to/made-up/gw-7", "yt/v1/to/made-up/receipt", "yt/v1/to/made-up/receipt"]
        assert {retained for _, _, retained in answers} == {False}
        assert water.heard == []
    with client5(running, "made-up", "made-up:later") as later:
        time.sleep(0.3)
        assert later.heard == []


def test_who_takes_over_anothers_client_id_gets_nothing_that_waits_for_it(running: WithMosquitto) -> None:
    """Mosquitto binds rights to the certificate and not the client id: one bureau can put out another's client, and
    hears nothing by it. The embedded broker does not let it come so far."""
    trial = running.trial
    for name in ("gw-1", "gw-2"):
        with client5(running, "made-up", f"made-up:{name}", keep=True):
            pass
    with trial.mqtt_partner("made-up") as partner:
        partner.push(FEED, in_memory(content(1)), "text/csv", "m-1")
        partner.report("m-1", wait_s=WAIT_S)
    with client5(running, "water", "made-up:gw-1", keep=True) as rude:
        with client5(running, "made-up", "made-up:gw-2", keep=True) as ours:
            assert len(_until(lambda: ours.heard[1:] and ours.heard)) == 2, "receipt and report had waited for both"
        time.sleep(0.3)
        assert rude.heard == []


def test_what_comes_while_the_bus_is_away_is_taken_when_it_is_back(running: WithMosquitto) -> None:
    trial, _ = running
    with trial.mqtt_partner("made-up") as partner:
        partner.push(FEED, in_memory(content(1)), "text/csv", "m-1")
        trial.kill()
        for number in range(5):
            partner.publish(inbound(FEED), _sealed(trial, number)).result(WAIT_S)
        trial.start()
        _until(lambda: _accepted(trial) == 6)
        assert partner.report("d-4", wait_s=WAIT_S).status == "processed"


def _sealed(trial: Trial, number: int) -> bytes:
    folder = trial.partner("made-up")._folder
    names = names_of(folder, FEED, "text/csv", f"d-{number}", places.utc_now())
    return sealed(folder, in_memory(content(number)), names)


def _push(partner: MqttPartner, number: int) -> dict[str, object]:
    return partner.push(FEED, in_memory(content(number)), "text/csv", f"d-{number}").document


def _mosquitto_pub(running: WithMosquitto, tmp_path: Path, message_id: str, qos: int) -> None:
    if shutil.which("mosquitto_pub") is None:
        pytest.skip("mosquitto_pub (make servers)")
    trial, broker = running
    folder, file = trial.partners / "made-up", tmp_path / f"{message_id}.json"
    own = trial.partner("made-up")._folder
    names = names_of(own, FEED, "text/csv", message_id, places.utc_now())
    file.write_bytes(sealed(own, in_memory(content(2)), names))
    command = ["mosquitto_pub", "-V", "5", "-h", "localhost", "-p", str(broker.port), "-q", str(qos)]
    command += ["-t", inbound(FEED), "-f", str(file), "-i", f"made-up:{message_id}", "--cafile", str(folder / "ca.pem")]
    command += ["--cert", str(folder / "connection.pem"), "--key", str(folder / "connection.key")]
    subprocess.run(command, check=True, timeout=30)


def _accepted(trial: Trial) -> int:
    with closing(opening.open_journal(trial.settings)) as journal:
        return len(journal.search(type="delivery", limit=1_000))


def _until(holds: Callable[[], T]) -> T:
    """What comes to hold within a while."""
    ends_s = time.monotonic() + WAIT_S
    while not (found := holds()):
        assert time.monotonic() < ends_s, "it did not come to hold"
        time.sleep(0.02)
    return found
