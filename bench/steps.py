"""`python -m bench.steps [--engine postgresql]`: where act two spends its time when a register of a million rows comes
for the first time, and when it comes again.

The delivery is taken by a real `serve`; act two then runs in this process, with a clock around each step. Steps that a
thread does meanwhile are marked.
"""

import argparse
import contextlib
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
from bench.bulk import BUREAUS, ROWS, SERVER
from bench.servers import free_port, serving
from bench.standing import Standing, standing
from exchange import claims, joining, processing, validation
from exchange.app import opening
from exchange.store import writing
from exchange.store.embedded import EmbeddedWriter
from exchange.store.served import ServedWriter
from exchange.store.store import Store
from security.message import file_content
from tests.postgres import PostgresServer

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
    (Store, "near", "what stands near"),
    (Store, "commit", "commit"),
    (writing, "_linked", "  of it claims and components numbered"),
    (writing, "_put_claims", "  of it claims put in"),
    (writing, "_outcomes", "  of it outcomes"),
    (EmbeddedWriter, "insert", "  of it rows put in, all tables"),
    (ServedWriter, "insert", "  of it rows put in, all tables"),
)


def main() -> None:
    """Deliver twice, and print the seconds of each step of both times."""
    parser = argparse.ArgumentParser(prog="python -m bench.steps", description=__doc__)
    parser.add_argument("--engine", choices=("sqlite", "postgresql"), default="sqlite", help="(sqlite)")
    engine = parser.parse_args().engine
    WORK.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="steps-", dir=WORK)))
        url = ""
        if engine == "postgresql":
            server = PostgresServer(settings=SERVER)
            stack.callback(server.stop)
            url = server.database()
        city, rows, file = register.city(folder / "city"), register.register(ROWS), folder / "register.csv"
        with standing(folder / "bus", city, BUREAUS, state={"journal": url, "store": url}) as bus:
            bus.trial.stop()
        clocks = _clocks()
        table = Table("step", "first", "again", title=f"{ROWS:,} rows, {engine}: seconds")
        rows.write_csv(file)
        first = _spent(bus, folder, file, "first", clocks)
        register.told_again(rows, 1).write_csv(file)
        again = _spent(bus, folder, file, "again", clocks)
    for name in first | again:
        table.add_row(name, *(f"{spent[name]:.2f}" if name in spent else "" for spent in (first, again)))
    Console().print(table)


def _spent(bus: Standing, folder: Path, file: Path, message_id: str, clocks: dict[str, float]) -> dict[str, float]:
    """Deliver the file; seconds by step."""
    trial, port = bus.trial, free_port()
    trial.url = f"https://localhost:{port}"
    command = [sys.executable, "-m", "exchange.cli.main", "serve", "--role", "http", "--https-port", str(port)]
    with serving([*command, "--settings", trial.settings.source], port, folder / "serve.log"):
        began_s = time.perf_counter()
        trial.partner(register.BUREAU).push(register.FEED, file_content(file), "text/csv", message_id)
        spent = {"send, and act one": time.perf_counter() - began_s}
    clocks.clear()
    with contextlib.closing(opening.open_bus(trial.settings)) as bus_here:
        began_s = time.perf_counter()
        processing.process(register.FEED, bus_here)
        return spent | {"act two": time.perf_counter() - began_s, **clocks}


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
