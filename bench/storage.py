"""`python -m bench.storage`: octets that the journal takes, part by part, and what ten years of a city need.

Measured in a journal that is written as a running bus writes it: deliveries one at a time, each accepted, finished and
under heads of its own; beside them the entries of a busy city for the log itself and its index.
"""

import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from bench.__main__ import WORK
from bench.audit import acceptance, entry, make_keys, open_journal
from bench.log_reading import fill
from bench.servers import fresh

ENTRIES: Final = 40_960  # ten pieces of the index
DELIVERIES: Final = 200
RECORDS: Final = 10  # outcomes in a report

DELIVERIES_A_YEAR: Final = 3_000_000
YEARS: Final = 10
ENTRIES_A_DELIVERY: Final = 2  # accepted, processed
READS_A_DELIVERY: Final = 4
REFUSALS_A_DELIVERY: Final = 0.05
HEADS_AN_ENTRY: Final = 1.0  # at 3 million a year entries seldom share a commit

_PARTS: Final = {
    "leaf": ("entries",),
    "detail with salt": ("details",),
    "tree": ("nodes",),
    "index": ("index_terms", "index_pieces"),
    "head": ("heads",),
    "inbox row": ("inbox", "sqlite_autoindex_inbox_1", "inbox_waiting"),
    "receipt": ("receipts",),
    "report, kept and signed": ("reports", "ix_reports_inbox_id"),
}


class Storage(msgspec.Struct, frozen=True):
    """Octets. each: an entry, a head or a delivery, as the part is kept; years: of all, in gigabytes (10⁹)."""

    each: dict[str, float]
    entry: float
    delivery: float
    entries: int
    years_gb: dict[str, float]
    total_gb: float


def storage(folder: Path) -> Storage:
    """Measure and extrapolate. folder: for two journals."""
    fill(folder / "entries", 0, ENTRIES)
    _deliver(folder / "deliveries")
    of_entries, of_deliveries = _octets(folder / "entries"), _octets(folder / "deliveries")
    per_entry, per_delivery = (
        ("leaf", "detail with salt", "tree", "index"),
        ("inbox row", "receipt", "report, kept and signed"),
    )
    each = {name: of_entries[name] / ENTRIES for name in per_entry}
    each["head"] = of_deliveries["head"] / (DELIVERIES * ENTRIES_A_DELIVERY)
    each |= {name: of_deliveries[name] / DELIVERIES for name in per_delivery}
    deliveries = DELIVERIES_A_YEAR * YEARS
    entries = int(deliveries * (ENTRIES_A_DELIVERY + READS_A_DELIVERY + REFUSALS_A_DELIVERY))
    many = dict.fromkeys(per_entry, entries) | dict.fromkeys(per_delivery, deliveries)
    many["head"] = int(entries * HEADS_AN_ENTRY)
    years_gb = {name: round(octets * many[name] / 1e9, 1) for name, octets in each.items()}
    return Storage(
        {name: round(octets, 1) for name, octets in each.items()},
        round(sum(each[name] for name in (*per_entry, "head")), 1),
        round(sum(each[name] for name in per_delivery), 1),
        entries,
        years_gb,
        round(sum(years_gb.values()), 1),
    )


def _deliver(folder: Path) -> None:
    make_keys(fresh(folder))
    journal = open_journal(folder)
    outcomes = [{"record": number, "outcome": "new", "salt": "5a" * 16} for number in range(RECORDS)]
    for number in range(DELIVERIES):
        row = journal.accept(acceptance(number)).result(60).inbox
        done = msgspec.structs.replace(entry(number), type="processing", outcome="processed")
        journal.finish(row.id, "processed", done, {"records": RECORDS, "outcomes": outcomes}).result(60)
    journal.close()


def _octets(folder: Path) -> dict[str, int]:
    """Octets of the content of each part: what its rows hold, and the pages' own share with them."""
    connection = sqlite3.connect(folder / "journal.sqlite")
    try:
        pages = dict(connection.execute("SELECT name, sum(pgsize - unused) FROM dbstat GROUP BY name"))
    finally:
        connection.close()
    return {part: sum(pages.get(name, 0) for name in names) for part, names in _PARTS.items()}


def main() -> int:
    """Measure, print as JSON."""
    WORK.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="storage-", dir=WORK) as folder:
        found = storage(Path(folder))
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
