"""`python -m bench.steps`: what act two spends its time on when a register of a million rows comes a second time.

The delivery is taken by a real `serve`; act two then runs in this process, with a clock around each step. Steps that a
thread does meanwhile are marked.
"""

import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from bench import register
from bench.__main__ import WORK
from bench.bulk import BUREAUS, ROWS, delivered
from bench.servers import free_port, serving
from bench.standing import standing
from exchange import claims, joining, processing, validation
from exchange.app import opening
from exchange.store.store import Store
from security.message import file_content

STEPS: Final[tuple[tuple[object, str, str], ...]] = (
    (processing, "_decoded", "decode"),
    (processing, "map_records", "map"),
    (processing, "place", "place"),
    (validation, "check", "check"),
    (Store, "seen", "what the store knows (meanwhile)"),
    (claims, "compare", "compare"),
    (claims, "claim_digests", "  of it the digests of claims"),
    (joining, "join", "join"),
    (processing, "roots_of", "outcome tree"),
    (Store, "commit", "commit"),
)


def main() -> None:
    """Deliver twice, and print the seconds of each step of the second time."""
    WORK.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="steps-", dir=WORK) as place:
        folder = Path(place)
        city, rows, file = register.city(folder / "city"), register.register(ROWS), folder / "register.csv"
        rows.write_csv(file)
        with standing(folder / "bus", city, BUREAUS) as bus:
            delivered(bus, file, "register", "new", ROWS)
            trial = bus.trial
        register.told_again(rows, 1).write_csv(file)
        port = free_port()
        trial.url = f"https://localhost:{port}"
        command = [sys.executable, "-m", "exchange.cli.main", "serve", "--role", "http", "--https-port", str(port)]
        with serving([*command, "--settings", trial.settings.source], port, folder / "serve.log"):
            began_s = time.perf_counter()
            trial.partner(register.BUREAU).push(register.FEED, file_content(file), "text/csv", "again")
            spent = {"send, and act one": time.perf_counter() - began_s}
        bus_here = opening.open_bus(trial.settings)
        clocks = _clocks()
        began_s = time.perf_counter()
        processing.process(register.FEED, bus_here)
        spent |= {"act two": time.perf_counter() - began_s, **clocks}
        bus_here.close()
    table = Table("step", "seconds", title=f"{ROWS:,} rows again, nothing new")
    for name, seconds in spent.items():
        table.add_row(name, f"{seconds:.2f}")
    Console().print(table)


def _clocks() -> dict[str, float]:
    """Seconds by step, which grow as the steps are called."""
    spent: dict[str, float] = defaultdict(float)
    for owner, name, title in STEPS:
        setattr(owner, name, _timed(getattr(owner, name), title, spent))
    return spent


def _timed(step: Callable[..., Any], title: str, spent: dict[str, float]) -> Callable[..., Any]:
    def timed(*given: Any, **named: Any) -> Any:
        began_s = time.perf_counter()
        try:
            return step(*given, **named)
        finally:
            spent[title] += time.perf_counter() - began_s

    return timed


if __name__ == "__main__":
    main()
