"""`python -m bench.mixed`: a city's bad day. Three calm feeds over both doors beside a flood, while somebody kills
processes and servers; at the end nothing is lost, nothing doubled, and every bureau's account balances.

Its picture and table are docs/load.svg and docs/load.md. Exit 1 when anything does not hold.
"""

import argparse
import contextlib
import itertools
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import requests

from bench.__main__ import WORK
from bench.memory import anonymous_mb
from bench.standing import CITY, children
from exchange import audit
from exchange.account import unbalanced
from exchange.app import opening, places, trusted
from exchange.cli.trial import City, Trial
from security.errors import ExchangeError, Refusal, Unavailable
from security.message import in_memory
from tests.postgres import PostgresServer
from tests.registers import LAMPS

DOCS: Final = Path(__file__).parents[1] / "docs"
FLOOD: Final = "flooding"
# Which bureau sends over which door, and after how many seconds again; the flood never waits.
BUREAUS: Final = {"lighting": ("soap", 0.5), "heating": ("soap", 2.0), "gateway": ("mqtt", 1.0), FLOOD: ("soap", 0.0)}
FLOODS: Final = 4  # senders of the flood, side by side
ROWS: Final = 20
KILL_EVERY_S: Final = (20.0, 40.0)
SAMPLE_S: Final = 1.0
DRAIN_S: Final = 300.0
AGAIN_S: Final = 0.5


class Sample(msgspec.Struct, frozen=True):
    """The bus at one moment. at_s: since the beginning; receipts, reports of each bureau so far; waiting: deliveries
    before act two; memory_mb: anonymous and resident, of all its processes."""

    at_s: float
    receipts: dict[str, int]
    waiting: int
    memory_mb: float


class Day(msgspec.Struct):
    """What happened. kills: (seconds, what); seconds from a delivery's first try to its receipt, by bureau; refused:
    codes that the flood heard."""

    kills: list[tuple[float, str]] = []
    samples: list[Sample] = []
    receipts: dict[str, dict[str, bytes]] = msgspec.field(default_factory=lambda: defaultdict(dict))
    waits_s: dict[str, list[float]] = msgspec.field(default_factory=lambda: defaultdict(list))
    refused: Counter[str] = msgspec.field(default_factory=Counter)


class Mixed:
    """The bus, those who send to it, and the one who kills."""

    def __init__(self, folder: Path, server: PostgresServer | None, seed: int) -> None:
        feeds = folder / "feeds"
        feeds.mkdir(parents=True)
        for bureau in BUREAUS:
            (feeds / f"{bureau}.toml").write_text(_lamps_of(bureau), encoding="utf-8")
        url = server.database() if server else ""
        city = City(CITY.extent, CITY.districts, CITY.grid, (feeds,))
        state = {"journal": url, "store": url} if url else {}
        self.trial, self.server = Trial(folder / "bus", city, state=state), server
        for bureau in BUREAUS:
            self.trial.enrol(bureau, bureau, bureau)
            self.trial.grant(bureau, "push", bureau)
        self.day, self.began_s = Day(), time.monotonic()
        self._over, self._chance = threading.Event(), random.Random(seed)

    def run(self, seconds: float) -> None:
        """All at once for so long, then until nothing waits any more."""
        self.trial.start()
        self.began_s = time.monotonic()
        senders = [name for name in BUREAUS for _ in range(FLOODS if name == FLOOD else 1)]
        threads = [
            *(threading.Thread(target=self._send, args=(name, number)) for number, name in enumerate(senders)),
            threading.Thread(target=self._kill),
            threading.Thread(target=self._look),
        ]
        for thread in threads:
            thread.start()
        self._over.wait(seconds)
        self._over.set()
        for thread in threads:
            thread.join()
        self._drain()

    def _send(self, bureau: str, sender: int) -> None:
        door, pause_s = BUREAUS[bureau]
        for number in itertools.count():
            if self._over.wait(pause_s):
                return
            began_s = time.monotonic()
            id = f"{bureau}-{sender}-{number}"
            receipt = self._until_receipted(bureau, door, id, _content(bureau, sender, number))
            self.day.waits_s[bureau].append(time.monotonic() - began_s)
            self.day.receipts[bureau][id] = receipt

    def _until_receipted(self, bureau: str, door: str, id: str, content: bytes) -> bytes:
        """What a careful sender does, also after the day is over: the same again until there is a receipt."""
        while True:
            try:
                with self._partner(bureau, door) as partner:
                    return bytes(partner.push(bureau, in_memory(content), "text/csv", id).octets)
            except Refusal as refusal:  # too many at once: later
                self.day.refused[refusal.code] += 1
            except (Unavailable, requests.RequestException, OSError):
                pass
            time.sleep(AGAIN_S)

    @contextlib.contextmanager
    def _partner(self, bureau: str, door: str) -> Iterator[Any]:
        if door == "soap":
            yield self.trial.partner(bureau)
        else:
            with self.trial.mqtt_partner(bureau) as partner:
                yield partner

    def _kill(self) -> None:
        """A process or a server at a time, at seeded moments; whoever is responsible starts it again."""
        while not self._over.wait(self._chance.uniform(*KILL_EVERY_S)):
            victim = self._chance.choice(["serve", "worker", *(["postgresql"] if self.server else [])])
            self.day.kills.append((time.monotonic() - self.began_s, victim))
            if victim == "postgresql":
                assert self.server is not None
                self.server.kill()
                self.server.start()
            elif victim == "serve":
                self.trial.kill()
                self.trial.start()
            else:
                for child in children(self.trial.process_id):
                    os.kill(child, signal.SIGKILL)

    def _look(self) -> None:
        with contextlib.closing(opening.open_journal(self.trial.settings)) as journal:
            while not self._over.wait(SAMPLE_S):
                with contextlib.suppress(ExchangeError, OSError, Exception):  # a server that was just killed
                    counts = {bureau: len(kept) for bureau, kept in self.day.receipts.items()}
                    waiting = sum(len(journal.waiting(bureau, 100_000)) for bureau in BUREAUS)
                    at_s = time.monotonic() - self.began_s
                    self.day.samples.append(Sample(at_s, counts, waiting, self._memory_mb()))

    def _memory_mb(self) -> float:
        processes = [self.trial.process_id, *children(self.trial.process_id)]
        return sum(map(anonymous_mb, processes))

    def _drain(self) -> None:
        until = time.monotonic() + DRAIN_S
        with contextlib.closing(opening.open_journal(self.trial.settings)) as journal:
            while journal.feeds_waiting():
                if time.monotonic() > until:
                    raise RuntimeError(f"act two still has work after {DRAIN_S:.0f} s: {journal.feeds_waiting()}")
                time.sleep(0.2)

    def problems(self) -> list[str]:
        """What does not hold, in words; nothing where all does."""
        settings = self.trial.settings
        found = list[str]()
        with contextlib.closing(opening.open_bus(settings)) as bus:
            for bureau, receipts in self.day.receipts.items():
                for id, receipt in receipts.items():
                    row = bus.journal.inbox(bureau, id)
                    if row is None or row.receipt != receipt or row.status != "processed":
                        found.append(f"{bureau} {id}: {row.status if row else 'not in the inbox'}")
            sent = sum(map(len, self.day.receipts.values()))
            ledger = bus.store.ledger()
            if ledger.deliveries != sent:
                found.append(f"{sent} receipts, {ledger.deliveries} deliveries applied")
            for row in unbalanced(bus.journal, bus.store):
                found.append(f"the account of {row.bureau} on {row.day} does not balance: {row.differences[:5]}")
        with places.readable_journal(settings) as file:
            verdict = audit.verify(file, trusted.anchors_of(settings))
        found += [problem.what for problem in verdict.problems]
        if (verdict.receipts, verdict.reports) != (sent, sent):
            found.append(f"{sent} receipts heard, {verdict.receipts} receipts and {verdict.reports} reports in the log")
        return found


def _lamps_of(bureau: str) -> str:
    """A feed that is called as its bureau is."""
    return (
        LAMPS.replace("made-up-lamps", bureau).replace('"made-up"', f'"{bureau}"').replace("某单位", f"某单位 {bureau}")
    )


def _content(bureau: str, sender: int, number: int) -> bytes:
    """Twenty rows of a bureau's, at places of their own; each tells something new."""
    first = (list(BUREAUS).index(bureau) * 8 + sender) * 1_000 + number * ROWS % 1_000
    rows = []
    for place in range(first, first + ROWS):
        longitude, latitude = 121.5405 + place % 150 * 1.2e-4, 29.8625 + place // 150 * 4e-5
        rows.append(f"{bureau}-{place},{longitude:.7f},{latitude + number % 50 * 1e-7:.7f}")
    return "\n".join(["编号,经度,纬度", *rows, ""]).encode()


def draw(day: Day, path: Path) -> None:
    """The day as a picture: receipts a second of each bureau, what waits, memory, and where somebody killed."""
    import matplotlib as mpl  # of the tests' lock; the script's other parts do not need it

    mpl.use("svg")
    from matplotlib import pyplot

    figure, (rates, waiting, memory) = pyplot.subplots(3, 1, sharex=True, figsize=(9, 7), layout="constrained")
    at = [sample.at_s for sample in day.samples]
    for bureau in BUREAUS:
        counts = [sample.receipts.get(bureau, 0) for sample in day.samples]
        spans = zip(zip(at, counts, strict=True), zip(at[5:], counts[5:], strict=True), strict=False)
        rates.plot(at[5:], [(c1 - c0) / (t1 - t0) for (t0, c0), (t1, c1) in spans], label=bureau, linewidth=1)
    rates.set(ylabel="receipts / s (5 s)", yscale="symlog", ylim=(0, None))
    rates.legend(ncols=len(BUREAUS), fontsize="small")
    waiting.plot(at, [sample.waiting for sample in day.samples], linewidth=1)
    waiting.set(ylabel="deliveries before act two")
    memory.plot(at, [sample.memory_mb for sample in day.samples], linewidth=1)
    memory.set(ylabel="memory, MB", xlabel="seconds; grey: kills (solid: serve, dashed: worker, dotted: postgresql)")
    for when, victim in day.kills:
        style = {"serve": "-", "worker": "--", "postgresql": ":"}[victim]
        for each in (rates, waiting, memory):
            each.axvline(when, color="0.8", linestyle=style, linewidth=0.8, zorder=0)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def table(day: Day) -> list[str]:
    """A line a bureau, as Markdown."""
    lines = ["| bureau | door | receipts | p50 s | p95 s | worst s |", "|---|---|---:|---:|---:|---:|"]
    for bureau, (door, _) in BUREAUS.items():
        waits = sorted(day.waits_s[bureau])
        p50, p95 = statistics.median(waits), waits[int(len(waits) * 0.95)]
        lines.append(f"| {bureau} | {door} | {len(day.receipts[bureau]):,} | {p50:.3f} | {p95:.3f} | {waits[-1]:.1f} |")
    return lines


def main() -> int:
    """Run the day, say what came of it, and with --write keep its picture."""
    parser = argparse.ArgumentParser(prog="python -m bench.mixed", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--engine", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--seed", type=int, default=20261128)
    parser.add_argument("--write", action="store_true", help="write docs/load-ENGINE.svg and .md")
    options = parser.parse_args()
    WORK.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mixed-", dir=WORK)))
        server = PostgresServer() if options.engine == "postgresql" else None
        stack.callback(server.stop if server else lambda: None)
        mixed = Mixed(folder, server, options.seed)
        stack.callback(mixed.trial.stop)
        mixed.run(options.minutes * 60)
        problems, day = mixed.problems(), mixed.day
    said = [
        f"{options.engine}: {options.minutes:g} minutes, {len(day.kills)} kills "
        f"({dict(Counter(victim for _, victim in day.kills))}), flood turned away {dict(day.refused)}, "
        f"most before act two {max((sample.waiting for sample in day.samples), default=0):,}; "
        + ("nothing lost, nothing doubled, every account balances, the log holds" if not problems else "NOT WHOLE"),
        *table(day),
        *problems,
    ]
    print("\n".join(said))
    if options.write and not problems:
        draw(day, DOCS / f"load-{options.engine}.svg")
        (DOCS / f"load-{options.engine}.md").write_text("\n".join(said) + "\n", encoding="utf-8")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
