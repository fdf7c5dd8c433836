"""What a figure is, and the file that keeps the last of each."""

import statistics
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

RESULTS = Path(__file__).parent / "results.json"


class Figure(msgspec.Struct, frozen=True):
    """One measured number beside its peer's, from the same run on the same machine.

    ratio: ours over peer; note: spread, conditions, what the time goes to
    """

    name: str
    ours: float
    peer: float
    ratio: float
    unit: str
    note: str


class Results(msgspec.Struct, frozen=True):
    """The last figure of each name, and the commit that the latest run stood on."""

    commit: str
    figures: list[Figure]


def figure(name: str, ours: Sequence[float], peer: Sequence[float], unit: str, note: str) -> Figure:
    """The medians of alternating runs, with their spread at the head of the note."""
    middle, beside = statistics.median(ours), statistics.median(peer)
    spread = f"{len(ours)} runs {min(ours):,.0f}-{max(ours):,.0f}, peer {min(peer):,.0f}-{max(peer):,.0f}"
    return Figure(name, round(middle, 1), round(beside, 1), round(middle / beside, 3), unit, f"{spread}; {note}")


def alternating(
    ours: Callable[[int], float], peer: Callable[[int], float], runs: int = 3
) -> tuple[list[float], list[float]]:
    """Ours and the peer in turn, so that a slow minute of the machine falls on both. Each is told the run's number."""
    pairs = [(ours(run), peer(run)) for run in range(runs)]
    return [mine for mine, _ in pairs], [theirs for _, theirs in pairs]


def keep(fresh: Figure, path: Path = RESULTS) -> Results:
    """Write this figure over the last one of the same name; the others stay."""
    known = msgspec.json.decode(path.read_bytes(), type=Results).figures if path.exists() else []
    by_name = {each.name: each for each in [*known, fresh]}
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    results = Results(commit, sorted(by_name.values(), key=lambda each: each.name))
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")
    return results
