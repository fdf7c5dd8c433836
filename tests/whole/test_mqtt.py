"""The second door with the embedded broker: real sockets, real certificates, and clients that are rude."""

import base64
import contextlib
import json
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import requests
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from connectors.partner.counter import Counter
from connectors.partner.envelope import names_of, sealed
from connectors.partner.folder import PartnerFolder
from connectors.transports.mqtt import client_tls
from exchange.app import keys_in_force, places
from exchange.cli.main import main
from exchange.cli.partner import open_mqtt_partner
from exchange.cli.people import registry
from exchange.cli.trial import PROPOSER
from exchange.doctor.examine import examine
from exchange.entry import LoggedEntry
from exchange.mqtt.broker import MOST_REMEMBERED
from security import pki
from security.batch import unverified
from security.errors import Refusal, Unavailable
from security.keys import generate
from security.message import in_memory
from security.signatures import open_signed
from security.signed_delivery import typ_of
from tests.doors.conftest import read_all
from tests.doors.test_mqtt_frames import MIB_100, a_connect, a_publish, packet, text
from tests.whole.real_bus import FEED, RealBus, csv, more_key, rows

IN = f"yt/v1/feeds/{FEED}/in"
WAIT_S = 20.0


@pytest.fixture
def id(request: pytest.FixtureRequest) -> str:
    """A message id of the test's own."""
    return f"mq-{sha256(request.node.nodeid.encode()).hexdigest()[:12]}"


def until(holds: Callable[[], Any]) -> Any:
    """What comes to hold within a while."""
    ends_s = time.monotonic() + WAIT_S
    while not (found := holds()):
        assert time.monotonic() < ends_s, "it did not come to hold"
        time.sleep(0.05)
    return found


def port_of(bus: RealBus) -> int:
    return int(bus.trial.mqtt_url.rpartition(":")[2])


def envelope(bus: RealBus, id: str, feed: str = FEED, content: bytes = b"") -> bytes:
    now = bus.trial.partner("made-up")._clock()
    return sealed(bus.folder(), in_memory(content or csv(rows(id))), names_of(bus.folder(), feed, "text/csv", id, now))


def refusals(bus: RealBus, code: str, id: str = "") -> list[LoggedEntry]:
    found = bus.journal.search(type="refusal", outcome=code)
    return [entry for entry in found if not id or (entry.detail or {}).get("message_id") == id]


class Client311:
    """A plain client of MQTT 3.1.1 and all that happened to it."""

    def __init__(self, bus: RealBus, folder: PartnerFolder, client_id: str) -> None:
        tls = client_tls(folder.file("connection.pem"), folder.file("connection.key"), folder.file("ca.pem"))
        self.messages: list[tuple[str, bytes]] = []
        self.granted: list[int] = []
        self.connected: list[int] = []
        self.lost: list[Any] = []
        self.client = Client(
            CallbackAPIVersion.VERSION2, client_id, protocol=MQTTProtocolVersion.MQTTv311, reconnect_on_failure=False
        )
        self.client.tls_set_context(tls)
        self.client.on_connect = lambda _, __, ___, reason, ____: self.connected.append(reason.value)
        self.client.on_disconnect = lambda _, __, ___, reason, ____: self.lost.append(reason)
        self.client.on_subscribe = lambda _, __, ___, codes, ____: self.granted.extend(code.value for code in codes)
        self.client.on_message = lambda _, __, message: self.messages.append((message.topic, message.payload))
        self.port = port_of(bus)

    def __enter__(self) -> "Client311":
        self.client.connect("127.0.0.1", self.port, 30)
        self.client.loop_start()
        until(lambda: self.connected or self.lost)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def subscribe(self, *topics: str) -> list[int]:
        self.granted.clear()
        self.client.subscribe([(topic, 1) for topic in topics])
        until(lambda: len(self.granted) == len(topics))
        return self.granted


@contextmanager
def raw(bus: RealBus, folder: PartnerFolder | None = None) -> Iterator[ssl.SSLSocket]:
    """A TLS connection to the broker to write octets on as they are."""
    folder = folder or bus.folder()
    context = ssl.create_default_context(cafile=folder.file("ca.pem"))
    context.load_cert_chain(folder.file("connection.pem"), folder.file("connection.key"))
    plain = socket.create_connection(("127.0.0.1", port_of(bus)), timeout=10)
    with context.wrap_socket(plain, server_hostname="localhost") as connection:
        yield connection


# What it is for ------------------------------------------------------------------------------------------------------


def test_a_push_gets_the_same_receipt_as_over_soap_and_its_report(bus: RealBus, id: str) -> None:
    content = in_memory(csv(rows(id)))
    with bus.trial.mqtt_partner("made-up") as partner:
        received = partner.push(FEED, content, "text/csv", id)
        assert received.document["carrier"] == "broker:main"
        reported = partner.report(id, wait_s=WAIT_S)
    assert reported.status == "processed"
    assert reported.received is not None
    over_soap = bus.partner()
    assert over_soap.push(FEED, content, "text/csv", id).octets == received.octets
    other_way = over_soap.report(id).received
    assert other_way is not None
    assert other_way.octets == reported.received.octets
    assert len(bus.claimed(id)) == 3
    kept = bus.folder().path
    assert (kept / "receipts" / f"{id}.receipt.json").read_bytes() == received.octets


def test_a_refusal_comes_back_signed_and_named(bus: RealBus, id: str) -> None:
    with bus.trial.mqtt_partner("made-up") as partner:
        partner.push(FEED, in_memory(csv(rows(id))), "text/csv", id)
        with pytest.raises(Refusal) as refused:
            partner.push(FEED, in_memory(b"other"), "text/csv", id)
    assert refused.value.code == "delivery.id_reused"
    assert refused.value.reference == str(refusals(bus, "delivery.id_reused", id)[0].index)


@pytest.mark.parametrize(
    "code, qos, retain", [("mqtt.qos_zero", 0, False), ("mqtt.retained", 1, True)], ids=["QoS 0", "retained"]
)
def test_a_careless_gateway_hears_what_it_did(bus: RealBus, id: str, code: str, qos: int, retain: bool) -> None:
    with Client311(bus, bus.folder(), f"made-up:{id}") as client:
        client.subscribe("yt/v1/to/made-up/receipt")
        client.client.publish(IN, envelope(bus, id), qos, retain)
        (_, answer) = until(lambda: client.messages)[0]
    assert refusals(bus, code, id)
    assert b'"payload"' in answer
    with Client311(bus, bus.folder(), f"made-up:{id}") as client:
        client.subscribe("yt/v1/to/made-up/receipt")
        client.client.publish(IN, envelope(bus, id), 1)
        until(lambda: bus.journal.inbox("made-up", id))


def test_nothing_is_kept_for_who_subscribes_later(bus: RealBus, id: str) -> None:
    topic = "yt/v1/to/made-up/receipt"
    with Client311(bus, bus.folder(), f"made-up:{id}") as client:
        client.subscribe(topic)
        client.client.publish(IN, envelope(bus, id), 1, retain=True)
        client.client.publish(IN, envelope(bus, f"{id}-ok"), 1)
        until(lambda: len(client.messages) == 2)
    with Client311(bus, bus.folder(), f"made-up:{id}-later") as later:
        assert later.subscribe(topic) == [1]
        later.client.publish(IN, envelope(bus, f"{id}-own"), 1)
        (_, answer) = until(lambda: later.messages)[0]
        assert len(later.messages) == 1, "its own, and no older one before it"
    said = unverified(answer)
    assert said["message_id"] == f"{id}-own"


def test_what_nobody_signed_gets_no_answer(bus: RealBus, id: str) -> None:
    before = bus.kept()
    with Client311(bus, bus.folder(), f"made-up:{id}") as client:
        client.subscribe("yt/v1/to/made-up/receipt")
        for octets in (b"unsigned", b"", envelope(bus, id).replace(b'"signature":"', b'"signature":"AAAA')):
            client.client.publish(IN, octets, 1).wait_for_publish(5)
        client.client.publish(IN, envelope(bus, f"{id}-ok"), 1)
        until(lambda: client.messages)
        assert len(client.messages) == 1, "the good one's receipt, and nothing else"
    assert bus.kept().inbox == before.inbox + 1


# Who may what --------------------------------------------------------------------------------------------------------


def test_without_a_certificate_nobody_connects(bus: RealBus) -> None:
    context = ssl.create_default_context(cafile=bus.folder().file("ca.pem"))
    plain = socket.create_connection(("127.0.0.1", port_of(bus)), timeout=10)
    with context.wrap_socket(plain, server_hostname="localhost") as connection:
        with contextlib.suppress(OSError):
            connection.sendall(a_connect("made-up:gw"))
        answer = b""
        with contextlib.suppress(OSError):  # of TLS 1.3 the client hears of its refusal only now
            answer = connection.recv(4)
        assert answer == b""


def test_a_certificate_that_is_not_enrolled_does_not_come_in(bus: RealBus, tmp_path: Path) -> None:
    now, key = places.utc_now(), generate("ES256")
    ca = keys_in_force.authority(bus.trial.settings)
    der = pki.issue(ca, "made-up", key.public_key, "connection", now - timedelta(1), now + timedelta(1))
    folder = PartnerFolder.make(
        tmp_path / "made-up",
        signing=bus.folder().signing,
        connection=key.with_certificate(der),
        ca_pem=Path(bus.folder().file("ca.pem")).read_bytes(),
        anchors_json=Path(bus.folder().file("anchors.json")).read_bytes(),
    )
    with raw(bus, folder) as connection:
        connection.sendall(a_connect("made-up:gw"))
        assert read_all(connection) == b"\x20\x02\x00\x05"


@pytest.mark.parametrize("client_id", ["water:gw", "made-up", "made-up:", "_bus:yongtong.demo.invalid", "MADE-UP:gw"])
def test_a_client_id_is_bound_to_its_certificate(bus: RealBus, client_id: str) -> None:
    with raw(bus) as connection:
        connection.sendall(a_connect(client_id))
        assert read_all(connection) == b"\x20\x02\x00\x02"
    assert until(lambda: refusals(bus, "mqtt.client_id"))[0].leaf.carrier


def test_of_one_bureau_no_more_clients_are_remembered_than_the_broker_has_room_for(bus: RealBus) -> None:
    def answer(name: str, flags: int = 0) -> bytes:
        with raw(bus, bus.folder("water")) as connection:
            connection.sendall(a_connect(f"water:{name}", flags))
            return connection.recv(4)

    assert {answer(f"kept-{number}") for number in range(MOST_REMEMBERED)} == {b"\x20\x02\x00\x00"}
    assert answer("one-more") == b"\x20\x02\x00\x03"
    assert answer("one-more", flags=2) == b"\x20\x02\x00\x00", "a clean session is not remembered"
    assert answer("kept-0")[3] == 0, "who is remembered may come back"
    assert until(lambda: refusals(bus, "mqtt.too_many_clients"))


def test_nobody_takes_over_anothers_session(bus: RealBus, id: str) -> None:
    with Client311(bus, bus.folder(), f"made-up:{id}") as client:
        client.subscribe("yt/v1/to/made-up/receipt")
        with raw(bus, bus.folder("water")) as rude:
            rude.sendall(a_connect(f"made-up:{id}"))
            assert read_all(rude) == b"\x20\x02\x00\x02"
        client.client.publish(IN, envelope(bus, id), 1)
        until(lambda: client.messages)
        assert not client.lost


@pytest.mark.parametrize("topic", [IN, "yt/v1/to/made-up/receipt", "yt/v1/to/water/receipt", "$SYS/x", "yt/v1/feeds"])
def test_publishing_where_one_may_not_ends_the_connection(bus: RealBus, id: str, topic: str) -> None:
    with Client311(bus, bus.folder("water"), f"water:{id}") as client:
        client.client.publish(topic, envelope(bus, id), 1)
        until(lambda: client.lost)
    assert any((e.detail or {}).get("claimed_sender") == "" for e in until(lambda: refusals(bus, "mqtt.topic_refused")))
    assert bus.journal.inbox("made-up", id) is None


def test_a_bureau_hears_only_its_own(bus: RealBus, id: str) -> None:
    others = ["yt/v1/to/made-up/receipt", "yt/v1/to/+/receipt", "#", "yt/#", "yt/v1/to/waterworks/receipt", IN]
    with Client311(bus, bus.folder("water"), f"water:{id}") as client:
        assert client.subscribe(*others) == [0x80] * len(others)
        assert client.subscribe("yt/v1/to/water/#") == [1]
        with bus.trial.mqtt_partner("made-up") as partner:
            partner.push(FEED, in_memory(csv(rows(id))), "text/csv", id)
        assert client.messages == []


def test_a_certificate_revoked_while_connected_may_no_more(bus: RealBus, id: str, tmp_path: Path) -> None:
    ours, connection = bus.folder(), more_key(bus.trial, "connection")
    folder = PartnerFolder.make(
        tmp_path / "made-up",
        signing=ours.signing,
        connection=connection,
        ca_pem=Path(ours.file("ca.pem")).read_bytes(),
        anchors_json=Path(ours.file("anchors.json")).read_bytes(),
    )
    with Client311(bus, folder, f"made-up:{id}") as client:
        assert client.connected == [0]
        with registry(bus.trial.settings) as opened:
            opened.revoke_certificate(connection.fingerprint, PROPOSER)
        client.client.publish(IN, envelope(bus, id), 1)
        until(lambda: client.lost)
    assert bus.journal.inbox("made-up", id) is None


# What is not read ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [b"\x10", a_connect("made-up:big") + b"\x32"], ids=["CONNECT", "PUBLISH"])
def test_a_packet_of_100_mb_is_cut_off_before_it_is_read(bus: RealBus, begun: bytes) -> None:
    with raw(bus) as connection:
        connection.sendall(begun + MIB_100)
        with contextlib.suppress(OSError):  # cut off, it says so by resetting the connection
            for _ in range(200):
                connection.sendall(b"x" * 65_536)
            raise AssertionError("13 MB were read of what was announced as 100")
    details = [entry.detail or {} for entry in until(lambda: refusals(bus, "mqtt.packet"))]
    assert details


@pytest.mark.parametrize(
    "octets, answer",
    [
        (packet(0x10, text("MQTT") + bytes([5, 2, 0, 30, 0]) + text("made-up:v5")), b"\x20\x02\x00\x01"),
        (a_connect("made-up:w", flags=6, more=text("yt/v1/to/water/receipt") + text("will")), b"\x20\x02\x00\x05"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" + b" " * 64, b""),
        (a_publish(), b""),
    ],
    ids=["MQTT 5", "a will", "HTTP", "no CONNECT"],
)
def test_what_is_no_connect_of_ours_is_answered_in_its_own_words_or_not_at_all(
    bus: RealBus, octets: bytes, answer: bytes
) -> None:
    with raw(bus) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(octets)
        assert read_all(connection) == answer


def test_many_bad_connections_leave_the_door_open(bus: RealBus, id: str) -> None:
    for _ in range(40):
        with raw(bus) as connection:
            connection.sendall(a_connect("made-up:rude") + b"\xf0\x00")
    with bus.trial.mqtt_partner("made-up") as partner:
        assert partner.push(FEED, in_memory(csv(rows(id))), "text/csv", id).document["outcome"] == "accepted"


def test_an_envelope_of_more_than_a_mebibyte_is_refused_before_it_is_sent(bus: RealBus, id: str) -> None:
    with bus.trial.mqtt_partner("made-up") as partner, pytest.raises(Refusal, match=r"jws\.too_large"):
        partner.push(FEED, in_memory(b"x" * 1_048_577), "text/csv", id)


def test_a_large_envelope_is_taken(bus: RealBus, id: str) -> None:
    content = csv(rows(id)) + b" " * 600_000
    with bus.trial.mqtt_partner("made-up") as partner:
        assert partner.push(FEED, in_memory(content), "text/csv", id).document["content_length"] == len(content)


# The command line ----------------------------------------------------------------------------------------------------


def push(bus: RealBus, *options: str) -> list[str]:
    partners = str(bus.trial.partners)
    return ["push", FEED, *options, "--as", "made-up", "--partners", partners, "--settings", bus.trial.settings.source]


def test_push_over_mqtt_prints_receipt_and_report(
    bus: RealBus, id: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "register.csv"
    file.write_bytes(csv(rows(id)))
    options = ["--over", "mqtt", "--url", bus.trial.mqtt_url, "--message-id", id, "--json"]
    assert main(push(bus, str(file), *options)) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["receipt"]["message_id"], said["status"]) == (id, "processed")


def test_a_bureau_with_sm2_keys_pushes_a_cms_and_gets_the_receipt_for_it(
    bus: RealBus, id: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, dry, ours = tmp_path / "register.csv", tmp_path / "signed.der", bus.folder()
    folder = PartnerFolder.make(
        tmp_path / "made-up",
        signing=more_key(bus.trial, "signing", "SM2"),
        connection=more_key(bus.trial, "connection"),
        ca_pem=Path(ours.file("ca.pem")).read_bytes(),
        anchors_json=Path(ours.file("anchors.json")).read_bytes(),
    )
    file.write_bytes(csv(rows(id)))
    command = ["push", FEED, str(file), "--as", "made-up", "--partners", str(folder.path.parent), "--json"]
    command += ["--settings", bus.trial.settings.source, "--url", bus.trial.mqtt_url, "--message-id", id]
    assert main([*command, "--dry", str(dry)]) == 0
    assert open_signed(dry.read_bytes()).form == "cms"
    capsys.readouterr()
    assert main([*command, "--over", "mqtt"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["receipt"]["form"], said["receipt"]["signer"]) == ("cms", folder.signing.fingerprint)
    assert said["status"] == "processed"
    assert len(bus.claimed(id)) == 3
    with bus.trial.mqtt_partner("made-up") as partner:
        assert partner.push(FEED, in_memory(file.read_bytes()), "text/csv", id).document == said["receipt"]
    with open_mqtt_partner(folder.path, bus.trial.mqtt_url) as partner, pytest.raises(Refusal, match="id_reused"):
        partner.push(FEED, in_memory(b"other"), "text/csv", id)


def test_mosquitto_pub_delivers_what_push_dry_wrote(
    bus: RealBus, id: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if shutil.which("mosquitto_pub") is None:
        pytest.skip("mosquitto_pub (make servers)")
    file, signed = tmp_path / "register.csv", tmp_path / "signed.json"
    file.write_bytes(csv(rows(id)))
    assert main(push(bus, str(file), "--dry", str(signed), "--message-id", id, "--json")) == 0
    topic = json.loads(capsys.readouterr().out)["topic"]
    ours = bus.folder()
    command = ["mosquitto_pub", "-h", "localhost", "-p", str(port_of(bus)), "-q", "1", "-t", topic, "-f", str(signed)]
    command += ["-i", f"made-up:{id}", "--cafile", ours.file("ca.pem")]
    command += ["--cert", ours.file("connection.pem"), "--key", ours.file("connection.key")]
    subprocess.run(command, check=True, timeout=30)
    row = until(lambda: bus.journal.inbox("made-up", id))
    assert (row.carrier, row.form) == ("broker:main", "jws")


def test_the_doctor_looks_where_a_serve_that_was_told_a_port_really_listens(bus: RealBus) -> None:
    assert bus.trial.settings.mqtt.port != port_of(bus)
    (found,) = [check for check in examine(bus.trial.settings, places.utc_now()) if check.name == "mqtt.broker"]
    assert found.ok
    assert f":{port_of(bus)} " in found.en


def test_a_taken_port_is_named_with_its_option(bus: RealBus) -> None:
    command = [sys.executable, "-m", "exchange.cli.main", "serve", "--https-port", "0"]
    command += ["--mqtt-port", str(port_of(bus)), "--settings", bus.trial.settings.source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("config.port  [")
    assert "--mqtt-port" in done.stderr


def test_a_broker_that_is_not_there_is_said_in_one_line(bus: RealBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectors.partner.over_broker.CONNECT_S", 0.5)
    partner = open_mqtt_partner(bus.folder().path, "mqtts://127.0.0.1:1")
    with pytest.raises(Unavailable, match=r"mqtts://127\.0\.0\.1:1: no connection"), partner:
        pass


def test_the_contract_is_served_as_it_stands(bus: RealBus) -> None:
    answer = requests.get(f"{bus.url}/api/asyncapi.json", verify=bus.folder().file("ca.pem"), timeout=10)
    contract = answer.json()
    assert contract["asyncapi"] == "3.0.0"
    names = set(contract["components"]["schemas"]["DeliveryHeader"]["required"])
    signed = json.loads(envelope(bus, "m-1"))
    assert names == set(json.loads(base64.urlsafe_b64decode(signed["protected"] + "==")))
    in_cms = contract["components"]["schemas"]["CmsHeader"]
    assert set(in_cms["required"]) == set(in_cms["properties"]) - {"seq"} == names - {"alg", "kid", "x5t#S256"}
    assert in_cms["properties"]["typ"] == {"const": typ_of("cms")}


def test_what_a_broker_drops_is_a_gap_until_it_comes(bus: RealBus, id: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The publish was acknowledged to nobody and is gone, as from a broker's queue that lost its disk."""
    folder = bus.folder()
    with open_mqtt_partner(folder.path, bus.trial.mqtt_url) as partner:
        first = partner.push(FEED, in_memory(csv(rows(id))), "text/csv", f"{id}-1").document["sequence"]
        now = partner._clock()
        number = Counter(folder).number(FEED, f"{id}-2")
        names = names_of(folder, FEED, "text/csv", f"{id}-2", now, sequence=number)
        dropped = sealed(folder, in_memory(csv(rows(id))), names)
        third = partner.push(FEED, in_memory(csv(rows(id))), "text/csv", f"{id}-3").document["sequence"]
        assert (number, third) == (first + 1, first + 2)
        words = ["gaps", "--json", "--bureau", "made-up", "--settings", bus.trial.settings.source]
        assert main(words) == 1
        assert {"feed": FEED, "first": number, "last": number}.items() <= _gap(capsys, number).items()
        partner.publish(IN, dropped).result(WAIT_S)
        until(lambda: bus.journal.inbox("made-up", f"{id}-2"))
        main(words)
        assert _gap(capsys, number) == {}


def _gap(capsys: pytest.CaptureFixture[str], number: int) -> dict[str, Any]:
    """The gap that a number is in, as the command said; none it is in, nothing."""
    gaps = json.loads(capsys.readouterr().out)["gaps"]
    return next((gap for gap in gaps if gap["first"] <= number <= gap["last"]), {})
