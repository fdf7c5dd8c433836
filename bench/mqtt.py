"""Signed deliveries of 1 KB through a private Mosquitto to a durable signed receipt, with act two working beside them.

Ours: envelopes built beforehand, published by a process of its own, until the last receipt has come back to it over the
broker. Peer: the same envelopes from the same publisher to a bare paho subscriber that acknowledges and stores nothing.
`python -m bench.mqtt publish|listen` is one of the processes; it reads a `Plan` (MessagePack) on stdin.
"""

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from bench.deliveries import FEED, HEADER, Sender
from bench.figures import Figure, alternating, figure
from bench.mosquitto import Mosquitto
from bench.servers import fresh
from bench.standing import Standing, standing
from connectors.transports.mqtt import client_tls
from exchange.app import keys_in_force
from security.batch import unverified
from security.jws_delivery import sign_delivery

ENVELOPES: Final = 12_000  # a run
IN_FLIGHT: Final = 200  # published and not yet acknowledged by the broker
ANSWER_S: Final = 120.0
DRAIN_S: Final = 240.0
REMARK: Final = "巡检更新，井盖与井座齐平，周边无积水，防坠网完好，标识清晰，无异响，无位移，已拍照留存"
TOPIC: Final = f"yt/v1/feeds/{FEED}/in"


class Plan(msgspec.Struct, frozen=True):
    """What one process does. envelopes: to publish; hears: a topic; count: of messages to hear there.

    certificate, key, authority: PEM files
    """

    port: int
    client_id: str
    certificate: str
    key: str
    authority: str
    hears: str
    count: int
    envelopes: list[bytes] = []


class Heard(msgspec.Struct, frozen=True):
    """When it began to publish and when the last message was heard, seconds of the machine's clock; the messages."""

    began_s: float
    ended_s: float
    messages: list[bytes]


def envelopes(first: int, count: int, sender: Sender) -> list[bytes]:
    """Signed envelopes of 1 KB, each telling of one cover; message ids are their own."""
    made, now = [], datetime.now(UTC)
    for number in range(first, first + count):
        place = number % 20_000
        row = f"M{place:06},污水井,{121.5421 + place % 140 * 1e-4:.6f},{29.8631 + place // 140 * 9e-5:.6f},"
        row += f"纬一路,样城排水公司,样城市政养护所,{('完好', '破损')[number // 20_000 % 2]},20120501,{REMARK}"
        made.append(
            sign_delivery(
                f"{HEADER}\n{row}\n".encode(),
                sender.key,
                sender=sender.bureau,
                recipient=sender.recipient,
                feed=FEED,
                message_id=f"mqtt-{number}",
                content_type="text/csv",
                signed_at=now,
            )
        )
    return made


def measure(folder: Path) -> Figure:
    """mqtt_deliveries_per_s."""
    fresh(folder)
    ours_broker = Mosquitto(folder / "broker", {"water": [FEED]})
    peer_broker = Mosquitto(folder / "peer", {"water": [FEED]})
    settings = {"broker": ours_broker.url, "name": "bench"}
    with contextlib.ExitStack() as stack:
        bus = stack.enter_context(
            standing(folder / "bus", mqtt=settings, first=_started(stack, ours_broker, peer_broker))
        )
        sizes: list[int] = []
        processor_s: list[tuple[float, float]] = []

        def ours(run: int) -> float:
            prepared = envelopes(run * ENVELOPES, ENVELOPES, bus.sender)
            sizes.append(sum(map(len, prepared)) // ENVELOPES)
            before = bus.processor_s()
            rate = _receipted(bus, ours_broker, prepared)
            serve_s, worker_s = (after - first for after, first in zip(bus.processor_s(), before, strict=True))
            processor_s.append((serve_s / ENVELOPES * 1000, worker_s / ENVELOPES * 1000))
            bus.drain(DRAIN_S)
            return rate

        def peer(run: int) -> float:
            return _listened(bus, peer_broker, envelopes(run * ENVELOPES, ENVELOPES, bus.sender))

        rates, beside = alternating(ours, peer)
    serve_ms = sorted(serve for serve, _ in processor_s)[1]
    note = (
        f"{ENVELOPES:,} envelopes a run, {sizes[0]:,} octets, one record each, from one publisher to the last receipt "
        f"through Mosquitto, TLS with client certificates; processor of serve {serve_ms:.2f} ms a delivery; "
        "act two works beside and lags; peer: the same envelopes to a bare paho subscriber that stores nothing"
    )
    return figure("mqtt_deliveries_per_s", rates, beside, "deliveries/s", note)


def _started(stack: contextlib.ExitStack, *brokers: Mosquitto) -> Any:
    """Starts the brokers once the bus's CA is made, and before the bus is started."""

    def start(settings: Any) -> None:
        for broker in brokers:
            broker.certify(keys_in_force.authority(settings))
            stack.enter_context(broker.running())

    return start


def _receipted(bus: Standing, broker: Mosquitto, prepared: list[bytes]) -> float:
    """Deliveries a second until the last receipt; each is the receipt of another delivery."""
    plan = Plan(broker.port, "water:bench", *bus.tls, "yt/v1/to/water/receipt", len(prepared), prepared)
    with _process("publish", plan) as publisher:
        heard = _heard(publisher)
    receipts = [unverified(one) for one in heard.messages]
    ids = {receipt["message_id"] for receipt in receipts if receipt.get("outcome") == "accepted"}
    if len(ids) != len(prepared):
        raise RuntimeError(f"{len(ids)} receipts of {len(prepared)}; another answer: {receipts[0]}")
    return len(prepared) / (heard.ended_s - heard.began_s)


def _listened(bus: Standing, broker: Mosquitto, prepared: list[bytes]) -> float:
    """Messages a second until a bare subscriber has the last."""
    keys = bus.trial.settings.at(bus.trial.settings.keys.folder)
    own = (str(keys / "tls.pem"), str(keys / "tls.key"), str(keys / "ca.pem"))
    listening = Plan(broker.port, "_bus:bare", *own, TOPIC, len(prepared))
    publishing = Plan(broker.port, "water:bench", *bus.tls, "yt/v1/to/water/receipt", 0, prepared)
    with _process("listen", listening) as listener, _process("publish", publishing) as publisher:
        began_s = _heard(publisher).began_s
        return len(prepared) / (_heard(listener).ended_s - began_s)


@contextlib.contextmanager
def _process(role: str, plan: Plan) -> Iterator[subprocess.Popen[bytes]]:
    """One of the processes, connected and ready."""
    command = [sys.executable, "-m", "bench.mqtt", role]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(msgspec.msgpack.encode(plan))
    process.stdin.close()
    if process.stdout.readline() != b"ready\n":
        raise RuntimeError(f"bench.mqtt {role} did not connect")
    yield process
    process.wait(30)


def _heard(process: subprocess.Popen[bytes]) -> Heard:
    assert process.stdout is not None
    return msgspec.msgpack.decode(process.stdout.read(), type=Heard)


def main() -> None:
    """One process: connect, subscribe, publish what there is, wait for what is to come."""
    plan = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Plan)
    client = Client(
        CallbackAPIVersion.VERSION2, client_id=plan.client_id, protocol=MQTTProtocolVersion.MQTTv311, clean_session=True
    )
    client.tls_set_context(client_tls(plan.certificate, plan.key, plan.authority))
    client.max_inflight_messages_set(IN_FLIGHT)
    subscribed, all_heard = threading.Event(), threading.Event()
    messages: list[bytes] = []
    ended_s = began_s = 0.0
    left = plan.count
    keeps = bool(plan.envelopes)

    def on_message(_: Any, __: Any, message: Any) -> None:
        nonlocal ended_s, left
        if keeps:
            messages.append(message.payload)
        left -= 1
        if not left:
            ended_s = time.monotonic()
            all_heard.set()

    client.on_connect = lambda *_: client.subscribe(plan.hears, 1)
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_message = on_message
    client.connect("localhost", plan.port, 60)
    client.loop_start()
    subscribed.wait(20)
    print("ready", flush=True)
    began_s = time.monotonic()
    published = [client.publish(TOPIC, envelope, qos=1) for envelope in plan.envelopes]
    for info in published:
        info.wait_for_publish(ANSWER_S)
    if plan.count and not all_heard.wait(ANSWER_S):
        raise RuntimeError(f"{left} of {plan.count} messages never came")
    client.disconnect()
    client.loop_stop()
    sys.stdout.buffer.write(msgspec.msgpack.encode(Heard(began_s, ended_s, messages)))


if __name__ == "__main__":
    main()
