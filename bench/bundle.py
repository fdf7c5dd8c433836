"""The evidence of one delivery of 10 KB, out of a log of a hundred thousand entries, verified offline from its file.

Peer: `openssl cms -verify` over the same content, one P-256 signature against its certificate, in a process of its own.
"""

import asyncio
import io
import resource
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from bench.audit import entry
from bench.deliveries import FEED, Sender, contents, envelope
from bench.figures import Figure, alternating, figure
from bench.standing import CITY
from connectors.partner.folder import PartnerFolder
from exchange.app import keys_in_force, opening, trusted
from exchange.attestations import Attestations
from exchange.bundle_check import verify_bundle
from exchange.bundle_export import Sources, of_message
from exchange.bus import Bus
from exchange.cli.trial import ORIGIN, Trial
from exchange.database import SqliteFile
from exchange.intake import receive
from security import bundle, pki
from security.message import Delivery, in_memory

ENTRIES: Final = 100_000
BUREAUS: Final = 20  # each enrolled, with a grant: what a bundle carries of decisions
RUNS: Final = 20
IN_HAND: Final = 4_000


def measure(folder: Path) -> Figure:
    """bundle_verify_ms."""
    trial = Trial(folder / "bus", CITY, mqtt={"broker": "off"})
    for number in range(BUREAUS - 1):
        trial.enrol(f"bureau-{number}", "Bureau", "某单位")
        trial.grant(f"bureau-{number}", "pull", "ownership")
    trial.enrol("water", "Water", "水务")
    trial.grant("water", "push", FEED)
    with closing(opening.open_bus(trial.settings)) as bus:
        key = PartnerFolder(trial.partners / "water").signing
        content = (contents(0, 1)[0] * 3)[:10_000]
        _fill(bus, ENTRIES // 2)
        _deliver(bus, envelope(content, "m-1", Sender("water", key, key.certificate_der or b"", ORIGIN), bus.clock()))
        _fill(bus, ENTRIES // 2)
        began_s = time.perf_counter()
        whole, parts = _bundle(trial, bus)
        made_ms = (time.perf_counter() - began_s) * 1000
    anchors = msgspec.structs.replace(
        trusted.anchors_of(trial.settings),
        authorities=[pki.pem_of(keys_in_force.authority(trial.settings).certificate_der).decode()],
    )

    def ours(_: int) -> float:
        began_s = time.process_time()
        for _run in range(RUNS):
            assert verify_bundle(in_memory(whole), anchors, datetime.now(UTC)).state == "holds"
        return (time.process_time() - began_s) * 1000 / RUNS

    ours(0)
    times, beside = alternating(ours, _openssl(folder, key.pem(), pki.pem_of(key.certificate_der or b""), content))
    note = (
        f"processor time, in a running process; content {len(content):,} octets, bundle {len(whole) / 1000:.0f} KB in "
        f"{parts} parts, among them the decisions on {BUREAUS} bureaus, log of {ENTRIES:,} entries; made in "
        f"{made_ms:.0f} ms; peer: one signature by openssl cms -verify, a process each"
    )
    return figure("bundle_verify_ms", times, beside, "ms", note)


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _fill(bus: Bus, count: int) -> None:
    waiting = []
    for number in range(count):
        waiting.append(bus.journal.note(entry(number)))
        if len(waiting) == IN_HAND:
            for future in waiting:
                future.result(60)
            waiting = []


def _deliver(bus: Bus, octets: bytes) -> None:
    raw = in_memory(octets)
    carrier = next(one.der for one in bus.registry.certificates() if (one.bureau, one.use) == ("water", "connection"))
    asyncio.run(receive(Delivery("soap", carrier, "127.0.0.1", octets, raw, bus.clock()), bus))


def _bundle(trial: Trial, bus: Bus) -> tuple[bytes, int]:
    row = bus.journal.inbox("water", "m-1")
    assert row is not None
    with closing(Attestations(SqliteFile(bus.folder, "journal"))) as kept:
        settings = trial.settings
        anchors, files = trusted.anchors_of(settings), opening.feed_files(settings)
        parts = of_message(row, Sources(bus, kept, trusted.open_revocations(settings), anchors, files))
    target = io.BytesIO()
    bundle.write(target, parts)
    return target.getvalue(), len(parts)


def _openssl(folder: Path, key: bytes, certificate: bytes, content: bytes) -> Callable[[int], float]:
    for name, octets in (("p.key", key), ("p.pem", certificate), ("content", content)):
        (folder / name).write_bytes(octets)
    sign = ["cms", "-sign", "-binary", "-in", "content", "-signer", "p.pem", "-inkey", "p.key", "-outform", "DER"]
    subprocess.run(["openssl", *sign, "-nodetach", "-out", "signed.der"], cwd=folder, check=True)
    check = ["cms", "-verify", "-binary", "-noverify", "-in", "signed.der", "-inform", "DER", "-certfile", "p.pem"]

    def run(_: int) -> float:
        began_s = _children_s()
        for _run in range(RUNS):
            subprocess.run(["openssl", *check, "-out", "out"], cwd=folder, check=True, capture_output=True)
        return (_children_s() - began_s) * 1000 / RUNS

    return run
