"""A journal with real keys in a folder, and what goes into it; also a program, for the tests of two processes."""

import functools
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from exchange.database import Database, SqliteFile
from exchange.evidence import Evidence
from exchange.evidence_folder import EvidenceFolder
from exchange.evidence_place import Place
from exchange.evidence_s3 import EvidenceBucket, s3_url
from exchange.journal import Acceptance, Entry, Journal
from exchange.postgres import PostgresSchema
from exchange.receipts import issue_receipts, issue_reports
from security import pki
from security.anchors import Anchors
from security.checkpoint import log_key_octets
from security.errors import Unavailable
from security.keys import Kind, SigningKey, generate
from security.message import in_memory

T = TypeVar("T")

ORIGIN = "yongtong.example/log"
NOON = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)
DIGEST = "5e" * 32


class JournalFolder:
    """Keys, anchors, evidence and journal of one made-up bus; opened again, it has the same keys.

    kinds: of the keys that sign receipts and heads, when they are made
    """

    def __init__(self, folder: Path, kinds: tuple[Kind, Kind] = ("ES256", "EdDSA")) -> None:
        self.folder = folder
        if not (folder / "log.key").exists():
            self._make_keys(*kinds)
        self.log_key = SigningKey.load(folder / "log.key")
        self.receipt_key = SigningKey.load(folder / "answer.key", certificate_path=folder / "answer.pem")
        certificate = (folder / "answer.pem").read_text()
        log_kind: Any = self.log_key.algorithm
        self.anchors = Anchors(ORIGIN, log_key_octets(self.log_key.public_key).hex(), [certificate], log_kind)
        self.evidence = Evidence(self.place)

    def _make_keys(self, receipts: Kind, heads: Kind) -> None:
        ca, key = pki.make_ca("test CA", NOON), generate(receipts)
        der = pki.issue(ca, "answer", key.public_key, "signing", NOON, NOON + timedelta(days=3650))
        (self.folder / "answer.key").write_bytes(key.pem())
        (self.folder / "answer.pem").write_bytes(pki.pem_of(der))
        (self.folder / "log.key").write_bytes(generate(heads).pem())

    @property
    def place(self) -> Place:
        """Where its evidence lies: in the folder, or where the file `evidence.url` in it says."""
        url = self.folder / "evidence.url"
        return EvidenceBucket(s3_url(url.read_text())) if url.exists() else EvidenceFolder(self.folder / "evidence")

    @property
    def database(self) -> Database:
        """Where its journal lies: in the folder, or where the file `database.url` in it says."""
        url = self.folder / "database.url"
        return PostgresSchema(url.read_text(), "journal") if url.exists() else SqliteFile(self.folder, "journal")

    def readable(self) -> Path:
        """Its journal as an auditor gets it."""
        if isinstance(self.database, SqliteFile):
            return self.folder
        copy = Path(tempfile.mkdtemp(dir=self.folder))
        return self.database.export(copy)

    def open(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Journal:
        return Journal(
            self.database,
            ORIGIN,
            self.log_key,
            clock,
            functools.partial(issue_receipts, key=self.receipt_key),
            functools.partial(issue_reports, key=self.receipt_key),
            self.evidence.sync,
        )

    def acceptance(self, message_id: str, content: bytes = b"a,b\n1,2\n", feed: str = "covers") -> Acceptance:
        """A delivery whose evidence is kept."""
        raw = in_memory(content)
        return Acceptance(
            sender="water",
            message_id=message_id,
            feed=feed,
            content_type="text/csv",
            content_digest=raw.digest.hex,
            content_length=raw.size,
            request_digest=DIGEST,
            signer="a1" * 32,
            carrier="b2" * 32,
            evidence_class="signed",
            form="inline",
            grant="g-1",
            received_at=NOON,
            signed_at=NOON,
            evidence=self.evidence.keep("water", raw),
            entry=Entry(
                type="delivery",
                outcome="accepted",
                actor="water",
                carrier="b2" * 32,
                signer="a1" * 32,
                sender="water",
                feed=feed,
                feed_digest="c3" * 32,
                grant="g-1",
                trust_digest="d4" * 32,
                detail={"evidence_digest": raw.digest.hex},
            ),
        )


def an_entry(**stated: str) -> Entry:
    """An audited read, or what is stated."""
    members = {"type": "read", "outcome": "answered", "actor": "case-system", "sender": "case-system", **stated}
    return Entry(**members, detail={"purpose": "井盖破损 case", "case_number": "2026-0042", "found": 1})


def finished(journal: Journal, inbox_id: int) -> bytes:
    """The report of a delivery that is now processed."""
    return _finishing(journal, inbox_id).result(30)


def _finishing(journal: Journal, inbox_id: int) -> "Future[bytes]":
    entry = an_entry(type="processing", outcome="processed", sender="water", feed="covers")
    return journal.finish(inbox_id, "processed", entry, {"records": 1, "outcomes": {"new": 1}})


def _again(handed_in: Callable[[], "Future[T]"]) -> T:
    """What becomes of it, in the end: where a server or the way to it is away, the same is handed in again."""
    while True:
        try:
            return handed_in().result(60)
        except Unavailable:
            time.sleep(0.1)


def main(folder: Path, first: int, count: int) -> None:
    """Accept `count` deliveries one after the other, finishing each; one line a receipt, one a report."""
    bus = JournalFolder(folder)
    journal = bus.open()
    for number in range(first, first + count):
        accepted = _again(lambda number=number: journal.accept(bus.acceptance(f"m-{number}", b"row %d" % number)))
        assert accepted.inbox.receipt is not None
        _say({"id": f"m-{number}", "receipt": accepted.inbox.receipt.decode()})
        report = _again(lambda id=accepted.inbox.id: _finishing(journal, id))
        _say({"id": f"m-{number}", "report": report.decode()})
    journal.close()


def _say(line: dict[str, str]) -> None:
    """A line in one write: what was said before a SIGKILL is read whole."""
    os.write(1, msgspec.json.encode(line) + b"\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
