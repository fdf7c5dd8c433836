"""A delivery is told to be finished when its report is signed, never before."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from exchange.http.operations import get_report
from exchange.processing import process
from tests.acts.bench_of_one import FEED, YT, Acts, both_acts, covers


def asked(acts: Acts, read: str) -> tuple[str | None, bool]:
    """Status, and whether a report came with it."""
    answer = asyncio.run(get_report(acts.asking("GetReport", read, DeliveryMessageId="m-1"), "1.1", acts.bus))
    return answer.findtext(f"{YT}Status"), answer.find(f"{YT}Report") is not None


def test_between_its_entry_and_its_signature_a_report_is_waited_for(tmp_path: Path) -> None:
    """Its status is kept with the entry, the report a moment later: who asks in between must not go home without it."""
    with both_acts(tmp_path) as acts:
        acts.trial.grant("made-up", "push", FEED)
        acts.push("m-1", covers("A"))
        assert asked(acts, "r-1") == ("waiting", False)
        process(FEED, acts.bus)
        assert asked(acts, "r-2") == ("processed", True)
        with closing(sqlite3.connect(acts.bus.folder / "journal.sqlite")) as journal, journal:
            journal.execute("UPDATE reports SET octets = NULL")
        assert asked(acts, "r-3") == ("waiting", False)
