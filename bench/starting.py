"""How long `serve` takes until its doors are open, and what it and its worker hold in memory while nothing comes."""

import statistics
import sys
import time
from pathlib import Path
from typing import Final

from bench.figures import Figure, alternating, figure
from bench.memory import proportional_mb
from bench.servers import free_port, fresh, make_tls, serving
from bench.standing import CITY, children, standing

SETTLED_S: Final = 8.0  # the worker stands, and both have done what they do once at the start


def measure(folder: Path) -> Figure:
    """serve_start_ms: from the command to the first open door, on a bus that was made before; peer: uvicorn, alone."""
    make_tls(fresh(folder))
    with standing(folder / "bus", CITY) as bus:
        bus.trial.stop()
        memory_mb: list[float] = []

        def ours(_: int) -> float:
            began_s = time.monotonic()
            bus.trial.start()
            took_ms = (time.monotonic() - began_s) * 1000
            time.sleep(SETTLED_S)
            process = bus.trial.process_id
            memory_mb.append(sum(map(proportional_mb, (process, *children(process)))))
            bus.trial.stop()
            return took_ms

        def theirs(run: int) -> float:
            port, began_s = free_port(), time.monotonic()
            with serving([sys.executable, "-m", "bench.peer", str(folder), str(port)], port, folder / f"{run}.log"):
                return (time.monotonic() - began_s) * 1000

        starts, peers = alternating(ours, theirs)
    note = (
        f"serve and its worker together hold {statistics.median(memory_mb):.0f} MB idle (proportional set size, "
        f"{SETTLED_S:.0f} s after the doors opened), embedded files; peer: uvicorn with one endpoint and the same TLS"
    )
    return figure("serve_start_ms", starts, peers, "ms", note)
