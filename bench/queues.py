"""How long a delivery waits between its receipt and its report, on each queue: `python -m bench.queues`."""

import os
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path

from bench import rabbit as private
from exchange.app import opening
from exchange.cli.trial import Trial
from security.message import in_memory
from tests.queues.test_bus_on_rabbit import FEED, content
from tests.registers import LAMPS
from tests.whole.real_bus import a_trial

ROUNDS = 40
PAUSE_S = 0.15  # so that each delivery comes to an announcer at rest


def waits_s(trial: Trial) -> list[float]:
    """Seconds from each receipt to its report, one delivery after another."""
    trial.enrol("made-up", "Made-up bureau", "某单位")
    trial.grant("made-up", "push", FEED)
    found = []
    with trial, closing(opening.open_journal(trial.settings)) as journal:
        partner = trial.partner("made-up")
        for number in range(ROUNDS + 5):
            partner.push(FEED, in_memory(content(number)), "text/csv", f"d-{number}")
            began_s = time.monotonic()
            while journal.report("made-up", f"d-{number}") is None:
                time.sleep(0.002)
            found.append(time.monotonic() - began_s)
            time.sleep(PAUSE_S)
    return found[5:]


def main() -> None:
    """Print median and 95th percentile of both."""
    with tempfile.TemporaryDirectory() as folder:
        print_of("files", waits_s(a_trial(Path(folder) / "files", LAMPS)))
        if private.AVAILABLE:
            with private.running(Path(folder) / "node") as rabbit:
                worker = {"queue": rabbit.url, "queue_password_file": str(rabbit.folder / "password")}
                print_of("rabbitmq", waits_s(a_trial(Path(folder) / "rabbit", LAMPS, worker=worker)))


def print_of(name: str, found: list[float]) -> None:
    """One line."""
    cuts = statistics.quantiles(found, n=20)
    print(f"{name:10} median {1000 * statistics.median(found):.0f} ms, p95 {1000 * cuts[-1]:.0f} ms, "
          f"{len(found)} deliveries, load {os.getloadavg()[0]:.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
