"""What processes hold in memory, from /proc; MB of 10^6 octets."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

SAMPLE_S: Final = 0.02


def anonymous_mb(process: int) -> float:
    """Anonymous memory of a process now; 0 where it is gone."""
    return _said_mb(process, "status", "RssAnon:")


def proportional_mb(process: int) -> float:
    """Memory of a process; a page that several share is counted once over them all. 0 where it is gone."""
    return _said_mb(process, "smaps_rollup", "Pss:")


@contextmanager
def highest_anonymous_mb(process: int, sample_s: float = SAMPLE_S) -> Iterator[list[float]]:
    """The process's anonymous memory at its highest while the block runs, looked at every sample_s."""
    highest, over = [0.0], threading.Event()

    def look() -> None:
        while not over.wait(sample_s):
            highest[0] = max(highest[0], anonymous_mb(process))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield highest
    finally:
        over.set()
        thread.join()


def _said_mb(process: int, file: str, name: str) -> float:
    try:
        lines = Path(f"/proc/{process}/{file}").read_text().splitlines()
    except FileNotFoundError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024 / 1e6
