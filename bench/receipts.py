"""Receipts of one group of the journal under one signature, beside the same receipts signed one by one.

Each is made whole, from inbox row and proof to the octets that a bureau keeps. Nothing is written.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from bench.audit import acceptance, make_keys, open_journal
from bench.figures import Figure, alternating, figure
from bench.servers import fresh
from exchange.entry import EntryProof, InboxRow
from exchange.receipts import issue_receipts
from security import pki
from security.keys import Kind, SigningKey, generate

TOGETHER: Final = 100  # deliveries of a group
SIZES: Final = (2, 10, 500)
KINDS: Final[tuple[Kind, ...]] = ("RS256", "SM2")
SECONDS: Final = 1.0

Owed = list[tuple[InboxRow, EntryProof]]


def measure(folder: Path) -> Figure:
    """receipts_per_s: by ES256; by RSA and SM2, and for other groups, in the note."""
    owed = _owed(folder, max(TOGETHER, *SIZES))
    some, key = owed[:TOGETHER], _key("ES256")
    ours, peer = alternating(
        lambda _: _rate(_batch(some, key), TOGETHER), lambda _: _rate(_singly(some, key), TOGETHER)
    )
    together, alone = len(issue_receipts(some, key)[0]), len(issue_receipts(some[:1], key)[0])
    others = []
    for kind in KINDS:
        other = _key(kind)
        pair = _rate(_batch(some, other), TOGETHER), _rate(_singly(some, other), TOGETHER)
        others.append(f"{kind} {pair[0]:,.0f}/s beside {pair[1]:,.0f}/s ({pair[0] / pair[1]:.1f})")
    sizes = ", ".join(
        f"{size}: {_rate(_batch(owed[:size], key), size) / _rate(_singly(owed[:size], key), size):.2f}"
        for size in SIZES
    )
    note = (
        f"{TOGETHER} receipts under one ES256 signature, one thread, {together:,} octets each (alone {alone:,}); peer: "
        f"each signed by itself; ratio for groups of {sizes}; {'; '.join(others)}"
    )
    return figure("receipts_per_s", ours, peer, "receipts/s", note)


def _owed(folder: Path, count: int) -> Owed:
    make_keys(fresh(folder))
    journal = open_journal(folder)
    rows = [future.result(60).inbox for future in [journal.accept(acceptance(number)) for number in range(count)]]
    owed = [(row, journal.prove(row.entry_index)) for row in rows]
    journal.close()
    return owed


def _key(kind: Kind) -> SigningKey:
    now, key = datetime.now(UTC), generate(kind)
    der = pki.issue(pki.make_ca("bench CA", now), "bench", key.public_key, "signing", now, now + timedelta(days=1))
    return key.with_certificate(der)


def _batch(owed: Owed, key: SigningKey) -> Callable[[], object]:
    return lambda: issue_receipts(owed, key)


def _singly(owed: Owed, key: SigningKey) -> Callable[[], object]:
    return lambda: [issue_receipts([one], key) for one in owed]


def _rate(work: Callable[[], object], receipts: int) -> float:
    """Receipts a second over about a second."""
    began_s, rounds = time.perf_counter(), 0
    while (took_s := time.perf_counter() - began_s) < SECONDS:
        work()
        rounds += 1
    return rounds * receipts / took_s
