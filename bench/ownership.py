"""Who owns a component, asked by identifier over HTTPS with a client certificate; every answer is in the audit.

Peer: the same app on the same connection kind answering a constant (`/health/live`).
"""

from pathlib import Path
from typing import Final

import numpy as np

from bench.figures import Figure, alternating, figure
from bench.load import Measured, Plan, drive
from bench.servers import fresh
from bench.standing import Standing, standing
from samples.generate import generate

CLIENTS: Final = 16
RUN_S: Final = 8.0


def measure(folder: Path) -> Figure:
    """ownership_by_id_per_s over the components of the made-up quarter, asked in random order."""
    generate(fresh(folder) / "city", 2007)
    seen: list[Measured] = []
    with standing(folder / "bus") as bus:
        bus.push("urban-census", folder / "city" / "census.csv")
        bus.push("water-register", folder / "city" / "water.csv")
        identifiers = bus.components()
        asked = np.random.default_rng(1).permutation(identifiers).tolist()
        ownership = [get(f"/api/v1/components/{each}/ownership?purpose=bench") for each in asked]

        def ours(_: int) -> float:
            seen.append(_run(bus, ownership))
            return seen[-1].per_s

        rates, peers = alternating(ours, lambda _: _run(bus, [get("/health/live")]).per_s)
    p50, p95, p99 = np.median([[each.p50_ms, each.p95_ms, each.p99_ms] for each in seen], axis=0)
    note = (
        f"{len(identifiers):,} components asked in random order by {CLIENTS} keep-alive TLS clients in a closed loop; "
        f"p50 {p50:.1f}, p95 {p95:.1f}, p99 {p99:.1f} ms; each read is audited; peer: the same app answering a constant"
    )
    return figure("ownership_by_id_per_s", rates, peers, "answers/s", note)


def get(path: str) -> bytes:
    """The octets of an HTTP GET."""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n".encode()


def _run(bus: Standing, requests: list[bytes]) -> Measured:
    return drive(Plan("localhost", bus.port, requests, CLIENTS, RUN_S, *bus.tls, again=True))
