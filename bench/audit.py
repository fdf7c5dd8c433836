"""Entries appended to one log by two processes at once, each durable and under a signed head before it counts.

Peer: the same leaves put into a bare SQLite table by two processes, WAL and synchronous=FULL, 1,000 to a commit: no
hash, no tree, no commitment, no signature. `python -m bench.audit FOLDER WHAT COUNT` is one of the processes.
"""

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.figures import Figure, alternating, figure
from bench.servers import fresh
from exchange.database import SqliteFile
from exchange.entry import Detail
from exchange.journal import Acceptance, Accepted, Entry, Journal, Sequenced
from exchange.receipts import issue_receipts, issue_reports
from security import keys, pki
from security.keys import SigningKey

ENTRIES: Final = 40_000  # a process and run
OPEN: Final = 4_000  # entries that one process has in hand at most
GROUP: Final = 1_000  # rows of the peer's commits
PACE: Final = 300  # deliveries a second while the wait for a receipt is measured
PACED_S: Final = 10
SIZES: Final = (10_000, 100_000, 1_000_000)
PROOFS: Final = 500
ORIGIN: Final = "bench.example"


def open_journal(folder: Path) -> Journal:
    """The journal of the folder, with the keys that `make_keys` left there; there is no evidence to make durable."""
    answer = SigningKey.load(folder / "answer.key", certificate_path=folder / "answer.pem")
    return Journal(
        SqliteFile(folder, "journal"),
        ORIGIN,
        SigningKey.load(folder / "log.key"),
        lambda: datetime.now(UTC),
        partial(issue_receipts, key=answer),
        partial(issue_reports, key=answer),
        lambda: None,
    )


def make_keys(folder: Path) -> None:
    """Keys for the log and for receipts."""
    now = datetime.now(UTC)
    (folder / "log.key").write_bytes(keys.generate("EdDSA").pem())
    ca, answer = pki.make_ca("bench CA", now), keys.generate("ES256")
    der = pki.issue(ca, ORIGIN, answer.public_key, "signing", now, now.replace(year=now.year + 1))
    (folder / "answer.key").write_bytes(answer.pem())
    (folder / "answer.pem").write_bytes(pki.pem_of(der))


def entry(number: int) -> Entry:
    """An entry such as a delivery makes."""
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return Entry(
        type="delivery",
        outcome="accepted",
        actor=digest[:16],
        carrier=digest,
        signer=digest,
        sender="water",
        feed="bench-covers",
        feed_digest=digest,
        grant="g-1",
        trust_digest=digest,
        detail={
            "message_id": f"m-{number}",
            "content_digest": digest,
            "content_length": 4200,
            "request_digest": digest,
        },
    )


def mixed(number: int) -> Entry:
    """The entry of that number in the log of a city: deliveries and their processing, reads, refusals, in turn.

    An accepted delivery is called `arrival` and its processing `outcome` here: no inbox is needed for them to hold.
    """
    digest, kind, turn = hashlib.sha256(str(number).encode()).hexdigest(), number % 8, number // 8
    bureau = f"bureau-{turn % 12}"
    named = {
        "actor": f"person-{turn % 200:012x}",
        "carrier": hashlib.sha256(bureau.encode()).hexdigest(),
        "signer": hashlib.sha256(bureau[::-1].encode()).hexdigest(),
        "sender": bureau,
        "grant": f"g-{turn % 50}",
        "trust_digest": digest[:8] * 8,
    }
    feed = {"feed": f"feed-{turn % 36}", "feed_digest": digest[8:16] * 8}
    message: Detail = {"message_id": f"m-{turn}-{kind // 4}", "content_digest": digest, "request_digest": digest[::-1]}
    if kind in (0, 4):
        held: Detail = {
            "content_length": 4200,
            "content_type": "text/csv",
            "evidence_class": "signed",
            "form": "inline",
        }
        return Entry(type="arrival", outcome="accepted", **named, **feed, detail={**message, **held})
    if kind in (1, 5):
        counts: Detail = {"message_id": message["message_id"], "outcome_root": digest, "new": 3, "changed": 1}
        return Entry(type="outcome", outcome="processed", **named, **feed, detail=counts)
    if kind == 2 and turn % 4 == 0:
        code = ("auth.no_grant", "signature.invalid", "delivery.stale", "feed.not_allowed")[turn // 4 % 4]
        return Entry(type="refusal", outcome=code, **named, **feed, detail={"code": code, "door": "soap", **message})
    asked: Detail = {
        "view": "ownership",
        "component": f"33020301{number % 90_000:08}",
        "purpose": f"案件处置 {turn % 30}",
        "case_number": f"2026-{number % 10_000:05}",
        "signed_digest": digest,
    }
    return Entry(type="read", outcome="answered", **named, detail=asked)


def acceptance(number: int) -> Acceptance:
    """A delivery as the journal takes it."""
    now, said = datetime.now(UTC), entry(number)
    return Acceptance(
        sender="water",
        message_id=f"m-{number}",
        feed="bench-covers",
        content_type="text/csv",
        content_digest=said.carrier,
        content_length=4200,
        request_digest=said.carrier,
        signer=said.signer,
        carrier=said.carrier,
        evidence_class="signed",
        form="inline",
        grant="g-1",
        received_at=now,
        signed_at=now,
        evidence="water/0:0:0",
        entry=said,
    )


def _append(folder: Path, count: int, made: Callable[[int], Entry] = entry) -> Callable[[], None]:
    journal = open_journal(folder)

    def run() -> None:
        waiting: deque[Future[Sequenced]] = deque()
        for number in range(count):
            if len(waiting) >= OPEN:
                waiting.popleft().result(60)
            waiting.append(journal.note(made(number)))
        for future in waiting:
            future.result(60)

    return run


def _insert(folder: Path, count: int) -> Callable[[], None]:
    connection = sqlite3.connect(folder / "peer.sqlite", isolation_level=None, timeout=30)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS leaf (id INTEGER PRIMARY KEY, leaf BLOB NOT NULL)")

    def run() -> None:
        for first in range(0, count, GROUP):
            leaves = [(json.dumps(_plain(entry(number))).encode(),) for number in range(first, first + GROUP)]
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO leaf (leaf) VALUES (?)", leaves)
            connection.execute("COMMIT")

    return run


def _plain(said: Entry) -> dict[str, Any]:
    return {name: getattr(said, name) for name in said.__struct_fields__}


def _note_slowly(folder: Path, count: int) -> Callable[[], None]:
    journal = open_journal(folder)

    def run() -> None:
        began_s = time.perf_counter()
        for number in range(count):
            time.sleep(max(0.0, began_s + number / PACE - time.perf_counter()))
            journal.note(entry(number))

    return run


WORK: Final = {"append": _append, "mixed": partial(_append, made=mixed), "insert": _insert, "slow": _note_slowly}


def _start(folder: Path, what: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench.audit", str(folder), what, str(count)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        raise RuntimeError(f"{command} did not get ready")
    return process


def _go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def per_s(folder: Path, what: str, count: int) -> float:
    """Entries a second over two processes that start together, `count` each."""
    both = [_start(folder, what, count) for _ in range(2)]
    for process in both:
        _go(process)
    spans: list[list[float]] = [json.loads(process.communicate()[0]) for process in both]
    return 2 * count / (max(span[1] for span in spans) - min(span[0] for span in spans))


def receipt_wait_ms(folder: Path) -> tuple[float, float]:
    """p50 and p99 from "handed to the journal" to "receipt kept", at 300/s, while a second process notes as many."""
    other = _start(folder, "slow", PACE * PACED_S)
    journal, waits_s = open_journal(folder), np.zeros(PACE * PACED_S)
    futures: list[Future[Accepted]] = []
    _go(other)
    began_s = time.perf_counter()
    for number in range(waits_s.size):
        due_s = began_s + number / PACE
        time.sleep(max(0.0, due_s - time.perf_counter()))

        def kept(_: "Future[Accepted]", number: int = number, due_s: float = due_s) -> None:
            waits_s[number] = time.perf_counter() - due_s

        future = journal.accept(acceptance(number))
        future.add_done_callback(kept)
        futures.append(future)
    for future in futures:
        assert future.result(60).inbox.receipt
    journal.close()
    other.communicate()
    p50, p99 = np.percentile(waits_s, [50, 99]) * 1000
    return float(p50), float(p99)


def measure(folder: Path) -> Figure:
    """audit_appends_per_s, with the wait for a receipt at 300/s in its note."""

    def one(what: str) -> float:
        make_keys(fresh(folder))
        open_journal(folder).close()
        return per_s(folder, what, ENTRIES)

    ours, peer = alternating(lambda _: one("append"), lambda _: one("insert"))
    make_keys(fresh(folder))
    p50, p99 = receipt_wait_ms(folder)
    note = (
        f"two processes, {ENTRIES:,} entries each, durable under signed heads; "
        f"peer: bare SQLite rows, {GROUP:,} a commit; "
        f"a receipt's wait at {PACE}/s beside {PACE} other entries/s: p50 {p50:.1f} ms, p99 {p99:.1f} ms"
    )
    return figure("audit_appends_per_s", ours, peer, "entries/s", note)


def measure_growth(folder: Path) -> Figure:
    """audit_appends_at_1e6_per_s: appending to a log of a million entries, beside the same log at its beginning."""
    make_keys(fresh(folder))
    open_journal(folder).close()
    rates, proofs, size = [], [], 0
    for target in SIZES:
        rates.append(per_s(folder, "append", (target - size) // 2))
        size = target
        journal, places = open_journal(folder), np.random.default_rng(1).integers(0, size, PROOFS)
        began_s = time.perf_counter()
        for index in places.tolist():
            journal.inclusion(index, size)
        proofs.append((time.perf_counter() - began_s) / PROOFS * 1e6)
        journal.close()
    bytes_each = os.path.getsize(folder / "journal.sqlite") / size
    steps = ", ".join(
        f"to {target:,}: {rate:,.0f}/s, proof {proof:,.0f} µs"
        for target, rate, proof in zip(SIZES, rates, proofs, strict=True)
    )
    note = f"two processes; {steps}; {bytes_each:,.0f} octets an entry; peer: the same log up to {SIZES[0]:,}"
    return figure("audit_appends_at_1e6_per_s", rates[-1:], rates[:1], "entries/s", note)


def main() -> None:
    """One process of a measurement: ready, wait for the word, run, say when it began and ended."""
    run = WORK[sys.argv[2]](Path(sys.argv[1]), int(sys.argv[3]))
    print("ready", flush=True)
    sys.stdin.readline()
    began_s = time.monotonic()
    run()
    print(json.dumps([began_s, time.monotonic()]))


if __name__ == "__main__":
    main()
