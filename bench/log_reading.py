"""The whole log read again, and searched: `audit_verify_entries_per_s` and `audit_search_ms`.

Peers: a bare SHA-256 over the same leaves, already in memory; and the reading of every entry's JSON that searching was
before it had an index.
"""

import hashlib
import sqlite3
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from bench.audit import ORIGIN, make_keys, open_journal, per_s
from bench.figures import Figure, alternating, figure
from bench.servers import fresh
from exchange import audit
from exchange.entry import instant
from exchange.journal import Journal
from security.anchors import Anchors
from security.checkpoint import log_key_octets
from security.keys import SigningKey

READ: Final = (50_000, 400_000)  # entries of the logs that are read again
SEARCHED: Final = 1_000_000
RUNS: Final = 5
PAGE: Final = 100
_SCAN: Final = (
    "SELECT idx, leaf, detail FROM (SELECT idx, CAST(leaf AS TEXT) AS leaf, detail FROM entries NATURAL JOIN details) "
    "WHERE leaf ->> 'sender' = ? AND leaf ->> 'feed' = ? ORDER BY idx DESC LIMIT ?"
)


def anchors_of(folder: Path) -> Anchors:
    """What the folder's keys are verified by."""
    key = SigningKey.load(folder / "log.key")
    return Anchors(ORIGIN, log_key_octets(key.public_key).hex(), [(folder / "answer.pem").read_text()])


def fill(folder: Path, start: int, stop: int) -> float:
    """Append mixed entries by two processes, as a running bus does; gives entries a second."""
    if not start:
        make_keys(fresh(folder))
        open_journal(folder).close()
    return per_s(folder, "mixed", (stop - start) // 2)


def measure_verify(folder: Path) -> Figure:
    """audit_verify_entries_per_s: leaves, details, nodes and heads, all made again."""
    rates, size = {}, 0
    for target in READ:
        fill(folder, size, target)
        size = target
        began_s = time.perf_counter()
        verdict = audit.verify(folder, anchors_of(folder))
        rates[size] = size / (time.perf_counter() - began_s)
        if not verdict.ok or verdict.entries != size:
            raise RuntimeError(f"the log does not hold: {verdict}")
    leaves = _leaves(folder)

    def bare(_: int) -> float:
        began_s = time.perf_counter()
        for leaf in leaves:
            hashlib.sha256(leaf).digest()
        return size / (time.perf_counter() - began_s)

    def ours(_: int) -> float:
        began_s = time.perf_counter()
        audit.verify(folder, anchors_of(folder))
        return size / (time.perf_counter() - began_s)

    mine, peer = alternating(ours, bare)
    growth = ", ".join(f"{entries:,} entries: {rate:,.0f}/s" for entries, rate in rates.items())
    note = f"the first reading of {growth}; {verdict.heads} heads, no receipts; peer: SHA-256 of each leaf, in memory"
    return figure("audit_verify_entries_per_s", mine, peer, "entries/s", note)


def _leaves(folder: Path) -> list[bytes]:
    connection = sqlite3.connect(folder / "journal.sqlite")
    try:
        return [leaf for (leaf,) in connection.execute("SELECT leaf FROM entries")]
    finally:
        connection.close()


def measure_search(folder: Path) -> Figure:
    """audit_search_ms: the slowest of all arguments and of combinations that seldom or never meet."""
    fill(folder, 0, SEARCHED)
    journal = open_journal(folder)
    took_ms = search_ms(journal)
    slowest = max(took_ms, key=lambda name: took_ms[name])
    began_s = time.perf_counter()
    journal._read(_SCAN, "bureau-2", "feed-3", PAGE)
    scan_ms = (time.perf_counter() - began_s) * 1000
    octets = journal._read("SELECT sum(pgsize) FROM dbstat WHERE name LIKE 'index%'")[0][0]
    journal.close()
    each = ", ".join(f"{name} {ms:.0f}" for name, ms in took_ms.items())
    note = (
        f"{SEARCHED:,} entries, pages of {PAGE}, median of {RUNS}, slowest: {slowest}; {each}; the index takes "
        f"{octets / SEARCHED:.0f} octets an entry; peer: the JSON of every leaf read, as before, for what never meets"
    )
    return figure("audit_search_ms", [took_ms[slowest]], [scan_ms], "ms", note)


def search_ms(journal: Journal) -> dict[str, float]:
    """Milliseconds of a page, for each argument."""
    took_ms = {}
    for name, asked in searches(journal).items():
        spans = []
        for _ in range(RUNS):
            began_s = time.perf_counter()
            journal.search(**asked, limit=PAGE)
            spans.append((time.perf_counter() - began_s) * 1000)
        took_ms[name] = sorted(spans)[RUNS // 2]
    return took_ms


def searches(journal: Journal) -> Mapping[str, dict[str, Any]]:
    """What is searched for: each argument of `audit search`, found often or seldom, and combinations."""
    middle = journal.entry(journal.size() // 2)
    assert middle is not None
    moment = datetime.fromisoformat(middle.leaf.time)
    assert instant(moment) == middle.leaf.time
    certificates = [hashlib.sha256(b"bureau-1").hexdigest(), hashlib.sha256(b"bureau-1"[::-1]).hexdigest()]
    person, component = f"person-{7:012x}", f"33020301{15:08}"
    return {
        "type": {"type": "read"},
        "code": {"code": "auth.no_grant"},
        "bureau": {"bureau": "bureau-1", "certificates": certificates},
        "feed": {"feed": "feed-3"},
        "message": {"message_id": "m-10-0"},
        "component": {"component": component},
        "person": {"person": person},
        "purpose": {"purpose": "案件处置 7"},
        "since": {"since": moment},
        "until": {"until": moment, "type": "refusal"},
        "nothing": {"feed": "feed-none"},
        "sender and feed that never meet": {"sender": "bureau-2", "feed": "feed-3"},
        "refusals and purpose that never meet": {"type": "refusal", "purpose": "案件处置 7"},
        "five that seldom meet": {
            "type": "refusal",
            "bureau": "bureau-8",
            "certificates": certificates,
            "person": f"person-{8:012x}",
            "code": "delivery.stale",
            "feed": "feed-8",
        },
        "oldest first": {"purpose": "案件处置 7", "after": middle.index},
    }
