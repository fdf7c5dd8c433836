"""Signed deliveries of a little over 4 KB, 25 records each, to a durable receipt, with act two working beside them.

Ours: a `serve` process and its worker; TLS with client certificates, signature, grant, evidence, journal, signed
receipt. Peer: the same requests to `bench.peer`, which parses and validates them and keeps nothing.
"""

import contextlib
from pathlib import Path
from typing import Final

import numpy as np

from bench import deliveries
from bench.figures import Figure, alternating, figure
from bench.load import Measured, Plan, drive
from bench.servers import fresh, make_tls, peer
from bench.standing import Standing, standing
from tests.postgres import PostgresServer

CLIENTS: Final = 16
RUN_S: Final = 12.0
MOST_PER_S: Final = 1_000  # requests prepared for each second of a run
MOST_ALONE_PER_S: Final = 2_000
CROWD: Final = 300
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


def measure_act_one(folder: Path) -> Figure:
    """signed_soap_act_one_per_s: the same with act two standing still, so that act one has the machine to itself."""
    make_tls(fresh(folder))
    ours, theirs, sent = [], [], 0
    with standing(folder / "bus") as bus, peer(folder) as peer_port:
        for _ in range(3):
            requests = deliveries.requests(sent, int(RUN_S * MOST_ALONE_PER_S), bus.sender)
            sent += len(requests)
            with bus.act_two_paused():
                ours.append(_run(bus, requests, RUN_S, None)[0].per_s)
            bus.drain(DRAIN_S * 3)
            theirs.append(_peer_per_s(folder, peer_port, requests))
    note = f"{CLIENTS} clients; the worker stopped meanwhile, then let drain; peer as of signed_soap_per_s"
    return figure("signed_soap_act_one_per_s", ours, theirs, "deliveries/s", note)


def measure_crowd(folder: Path) -> Figure:
    """signed_soap_p99_ms_of_300: the 99th percentile with 300 clients at a steady rate; peer: ours with 16."""
    make_tls(fresh(folder))
    many, few, sent = [], [], 0
    with standing(folder / "bus") as bus:
        for _ in range(3):
            for clients, found in ((CROWD, many), (CLIENTS, few)):
                requests = deliveries.requests(sent, int(RUN_S * STEADY_PER_S), bus.sender)
                sent += len(requests)
                plan = Plan("localhost", bus.port, requests, clients, RUN_S, *bus.tls, rate=STEADY_PER_S)
                found.append(drive(plan).p99_ms)
                bus.drain(DRAIN_S)
    note = f"open loop at {STEADY_PER_S}/s with {CROWD} keep-alive TLS clients, act two beside; peer: {CLIENTS} clients"
    return figure("signed_soap_p99_ms_of_300", many, few, "ms", note)


def measure_postgres(folder: Path) -> Figure:
    """signed_soap_postgres_per_s: journal and store on a private server with fsync; peer: the embedded files."""
    fresh(folder)
    with contextlib.ExitStack() as stack:
        server = PostgresServer()
        stack.callback(server.stop)
        url = server.database()
        on_server = stack.enter_context(standing(folder / "server", state={"journal": url, "store": url}))
        embedded = stack.enter_context(standing(folder / "files"))
        sent: dict[str, int] = {}

        def run(bus: Standing, name: str) -> float:
            requests = deliveries.requests(sent.get(name, 0), int(RUN_S * MOST_PER_S), bus.sender)
            sent[name] = sent.get(name, 0) + len(requests)
            measured = _run(bus, requests, RUN_S, None)[0]
            bus.drain(DRAIN_S)
            return measured.per_s

        ours, theirs = alternating(lambda _: run(on_server, "server"), lambda _: run(embedded, "files"))
    note = (
        f"{CLIENTS} clients, act two beside; the server shares the two cores; peer: journal and store as SQLite files"
    )
    return figure("signed_soap_postgres_per_s", ours, theirs, "deliveries/s", note)


def _said(values: list[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values)


def _run(bus: Standing, requests: list[bytes], seconds: float, rate: float | None) -> tuple[Measured, int]:
    """What the clients saw, and how many deliveries act two had still before it when the last was answered."""
    measured = drive(Plan("localhost", bus.port, requests, CLIENTS, seconds, *bus.tls, rate=rate))
    return measured, bus.waiting()


def _peer_per_s(folder: Path, port: int, requests: list[bytes]) -> float:
    client = (str(folder / "client.pem"), str(folder / "client.key"), str(folder / "ca.pem"))
    return drive(Plan("localhost", port, requests, CLIENTS, PEER_S, *client, again=True)).per_s
