"""What a restart may not change: what was stale or answered stays so, and a delivery keeps its receipt, bit for bit."""

import contextlib
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from lxml import etree

from connectors.partner import envelope
from security.batch import unverified
from security.message import in_memory
from tests.acts.bench_of_one import signed_request
from tests.whole.real_bus import FEED, RealBus, a_trial, csv, real_bus, rows
from tests.whole.test_bad_input import YT, post, refusal_in, sealed
from tests.whole.test_mqtt import IN, Client311, until

SOON_S: Final = 8  # an envelope that is good for so long: it arrives in time, and is stale once the bus is back
RECEIPT: Final = "yt/v1/to/made-up/receipt"


def by_soap(bus: RealBus, id: str, *, old: bool = False) -> bytes:
    """A delivery signed now; or long ago, so that it is stale soon."""
    expires = datetime.now(UTC) - timedelta(minutes=5) + timedelta(seconds=SOON_S)
    times = {"created": expires - timedelta(minutes=5), "expires": expires}
    return sealed(bus, id, **{name: f"{when:%Y-%m-%dT%H:%M:%SZ}" for name, when in times.items()} if old else {})


def by_mqtt(bus: RealBus, id: str, *, old: bool = False) -> bytes:
    """The same as a JWS. The feed takes what was signed in the last seven days."""
    age = timedelta(days=7) - timedelta(seconds=SOON_S) if old else timedelta()
    names = envelope.names_of(bus.folder(), FEED, "text/csv", id, datetime.now(UTC) - age)
    return envelope.sealed(bus.folder(), in_memory(csv(rows(id))), names)


def asking(bus: RealBus, id: str) -> bytes:
    """A signed read: the receipt of a delivery."""
    names = {"Sender": "made-up", "Recipient": bus.origin, "MessageId": "read-1", "Purpose": "test"}
    return signed_request("GetReceipt", {**names, "DeliveryMessageId": id}, bus.folder().signing, datetime.now(UTC))


def said_over_soap(bus: RealBus, octets: bytes) -> str:
    """The receipt in the answer, or the refusal's code."""
    answer = post(bus, octets, SOAPAction="")
    found = next(etree.fromstring(answer).iter(YT + "Receipt"), None)
    return refusal_in(answer)["Code"] if found is None else str(found.text)


def said_over_mqtt(bus: RealBus, octets: bytes) -> str:
    """The same of what comes by the topic of receipts."""
    with Client311(bus, bus.folder(), f"made-up:restart-{time.monotonic_ns()}") as client:
        client.subscribe(RECEIPT)
        client.client.publish(IN, octets, 1)
        answer = bytes(until(lambda: client.messages)[0][1])
    document = unverified(answer)
    return answer.decode() if document["outcome"] == "accepted" else str(document["code"])


def test_a_bus_killed_and_started_again_refuses_what_is_stale_and_knows_what_it_answered(tmp_path: Path) -> None:
    with real_bus(tmp_path) as bus:
        began_s = time.monotonic()
        old_soap, old_mqtt = by_soap(bus, "d-soap", old=True), by_mqtt(bus, "d-mqtt", old=True)
        receipts = {"d-soap": said_over_soap(bus, old_soap), "d-mqtt": said_over_mqtt(bus, old_mqtt)}
        assert all('"payload"' in receipt for receipt in receipts.values()), receipts
        read = asking(bus, "d-soap")
        assert said_over_soap(bus, read) == receipts["d-soap"]
        until(lambda: bus.journal.search(type="read"))  # reads are entered within a second
        kept = bus.kept()

        bus.trial.kill()
        bus.trial.start()
        time.sleep(max(0.0, began_s + SOON_S + 1.5 - time.monotonic()))

        assert said_over_soap(bus, old_soap) == "signature.stale"
        assert said_over_mqtt(bus, old_mqtt) == "signature.stale"
        assert said_over_soap(bus, read) == "signature.replayed"
        for id, receipt in receipts.items():  # over the door that it came by, and over the other one
            assert said_over_soap(bus, by_soap(bus, id)) == receipt
            assert said_over_mqtt(bus, by_mqtt(bus, id)) == receipt
        assert bus.kept().inbox == kept.inbox == 2
        assert bus.kept().evidence_bytes == kept.evidence_bytes


def test_a_worker_whose_bus_is_killed_before_it_had_begun_ends_too(tmp_path: Path) -> None:
    trial = a_trial(tmp_path)
    trial.start()
    trial.kill()  # its worker is still at its imports
    until = time.monotonic() + 30
    while any(trial.settings.source.encode() in line for line in command_lines()):
        assert time.monotonic() < until, "an orphan goes on working on the state folder"
        time.sleep(0.2)


def command_lines() -> list[bytes]:
    """Of all processes that there are now."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes())
    return found
