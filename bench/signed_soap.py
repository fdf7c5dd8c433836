"""Signed deliveries of a little over 4 KB, 25 records each, to a durable receipt, with act two working beside them.

Ours: a `serve` process and its worker; TLS with client certificates, signature, grant, evidence, journal, signed
receipt. Peer: the same requests to `bench.peer`, which parses and validates them and keeps nothing.
"""

from pathlib import Path
from typing import Final

import numpy as np

from bench import deliveries
from bench.figures import Figure, figure
from bench.load import Measured, Plan, drive
from bench.servers import fresh, make_tls, peer
from bench.standing import Standing, standing

CLIENTS: Final = 16
RUN_S: Final = 12.0
MOST_PER_S: Final = 700  # requests prepared for each second of a run
PEER_S: Final = 4.0
STEADY_PER_S: Final = 300
STEADY_S: Final = 45.0
DRAIN_S: Final = 120.0
ALLOWED_BACKLOG_S: Final = 5.0


def measure(folder: Path) -> Figure:
    """signed_soap_per_s: median of three closed runs; latency and backlog also of a steady run at 300/s."""
    make_tls(fresh(folder))
    ours, theirs, backlogs_s, sent = [], [], [], 0
    with standing(folder / "bus") as bus, peer(folder) as peer_port:
        for _ in range(3):
            requests = deliveries.requests(sent, int(RUN_S * MOST_PER_S), bus.sender)
            sent += len(requests)
            measured, backlog = _run(bus, requests, RUN_S, None)
            ours.append(measured.per_s)
            backlogs_s.append(backlog / measured.per_s)
            bus.drain(DRAIN_S)
            theirs.append(_peer_per_s(folder, peer_port, requests))
        requests = deliveries.requests(sent, int(STEADY_S * STEADY_PER_S), bus.sender)
        before_s = bus.processor_s()
        steady, backlog = _run(bus, requests, STEADY_S, STEADY_PER_S)
        drain_s = bus.drain(DRAIN_S)
        serve_ms, worker_ms = (
            (after - before) / steady.sent * 1000 for before, after in zip(before_s, bus.processor_s(), strict=True)
        )
    octets = np.mean([len(request) for request in requests])
    note = (
        f"{CLIENTS} keep-alive TLS clients with certificates; request {octets:,.0f} octets, content 25 records; "
        f"backlog of act two at the end {_said(backlogs_s)} s of input (most allowed {ALLOWED_BACKLOG_S:.0f}); "
        f"{STEADY_S:.0f} s open loop at {STEADY_PER_S}/s: {steady.per_s:.0f}/s answered, p50 {steady.p50_ms:.1f}, "
        f"p95 {steady.p95_ms:.1f}, p99 {steady.p99_ms:.1f} ms, backlog {backlog / STEADY_PER_S:.1f} s of input, "
        f"drained in {drain_s:.1f} s; processor a delivery: serve {serve_ms:.2f}, worker {worker_ms:.2f} ms; "
        "peer: parse and XSD of the same requests on uvicorn, the same TLS"
    )
    return figure("signed_soap_per_s", ours, theirs, "deliveries/s", note)


def _said(values: list[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values)


def _run(bus: Standing, requests: list[bytes], seconds: float, rate: float | None) -> tuple[Measured, int]:
    """What the clients saw, and how many deliveries act two had still before it when the last was answered."""
    measured = drive(Plan("localhost", bus.port, requests, CLIENTS, seconds, *bus.tls, rate=rate))
    return measured, bus.waiting()


def _peer_per_s(folder: Path, port: int, requests: list[bytes]) -> float:
    client = (str(folder / "client.pem"), str(folder / "client.key"), str(folder / "ca.pem"))
    return drive(Plan("localhost", port, requests, CLIENTS, PEER_S, *client, again=True)).per_s
