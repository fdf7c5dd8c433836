"""What would become of dead letters if they were replayed now: act two up to its store, and nothing is kept.

The steps are act two's own. Its store is one that is only read, and that says so when it is to be written; its journal
is not written either.
"""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any, cast

import msgspec
import polars as pl
from sqlalchemy.exc import SQLAlchemyError

from exchange.bus import Bus
from exchange.database import FAILURES
from exchange.dead_letters import DeadLetter
from exchange.evidence import is_erased
from exchange.journal import Journal
from exchange.processing import apply_one
from exchange.reading import EvidenceBroken
from exchange.replaying import superseded
from exchange.store.frames import Batch
from exchange.store.store import Store
from security.errors import ExchangeError, Refusal, places

log = logging.getLogger("yongtong.replay")


class Foreseen(msgspec.Struct, frozen=True):
    """What would become of one delivery.

    outcome: `processed`, `refused`, `held`, `superseded`, `erased`
    code:    where it would not be processed, why; detail as the report would say it
    records: by outcome, where it would be processed; gone: claims that it would end
    """

    sender: str
    feed: str
    message_id: str
    outcome: str
    code: str = ""
    detail: str = ""
    records: dict[str, int] = {}
    gone: int = 0


class _WouldStore(Exception):
    """Act two came to its store."""

    def __init__(self, batch: Batch) -> None:
        super().__init__()
        self.batch = batch


class _WouldReport(Exception):
    """Act two would have said that a person must decide."""

    def __init__(self, status: str, report: dict[str, Any]) -> None:
        super().__init__()
        self.status, self.report = status, report


class _Read:
    """Whatever is only read, of a store or a journal."""

    def __init__(self, of: Store | Journal) -> None:
        self._of = of

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of, name)

    def commit(self, batch: Batch) -> None:
        """Instead of writing."""
        raise _WouldStore(batch)

    def finish(self, _: int, status: str, __: object, report: dict[str, Any]) -> "Future[bytes]":
        """Instead of writing."""
        raise _WouldReport(status, report)

    def note(self, *_: object) -> None:
        """Nothing that act two notes before its store is part of a preview."""
        raise AssertionError("a preview came to write the log")


def foresee(letters: Sequence[DeadLetter], bus: Bus) -> Iterator[Foreseen]:
    """What would become of each, one by one, with the feeds' files as they lie there.

    Of what would be changed by one of them the next knows nothing. Raises Unavailable and what a database raises.
    """
    looking = msgspec.structs.replace(
        bus, store=cast("Store", _Read(bus.store)), journal=cast("Journal", _Read(bus.journal))
    )
    for letter in letters:
        row = letter.row
        outcome, code, detail, records, gone = _outcome(letter, looking)
        yield Foreseen(row.sender, row.feed, row.message_id, outcome, code, detail, records, gone)


def _outcome(letter: DeadLetter, looking: Bus) -> tuple[str, str, str, dict[str, int], int]:
    row, feed = letter.row, looking.feeds.get(letter.row.feed)
    if feed is None:
        return "refused", "feed.unknown", row.feed, {}, 0
    if is_erased(row.evidence):
        return "erased", "content.erased", "", {}, 0
    if superseded(looking.journal, row, feed):
        return "superseded", "dead.superseded", "", {}, 0
    try:
        apply_one(row, feed, looking)
    except _WouldStore as would:
        layer = would.batch.layer
        gone = layer.gone if layer else would.batch.compared.ended.height
        return "processed", "", "", _records(would.batch), gone
    except _WouldReport as would:
        return would.status, str(would.report["code"]), str(would.report.get("detail", "")), {}, 0
    except Refusal as refusal:
        return "refused", refusal.code, refusal.detail[:200], {}, 0
    except EvidenceBroken:
        return "held", "delivery.evidence_broken", "", {}, 0
    except (ExchangeError, OSError, SQLAlchemyError, *FAILURES):
        raise
    except Exception as problem:  # as act two's outermost loop: one delivery that trips us does not end the preview
        log.warning("replay.preview_failed message_id=%s at=%s", row.message_id, places(problem))
        return "held", "delivery.failed", "", {}, 0
    raise AssertionError("act two came neither to its store nor to a report")


def _records(batch: Batch) -> dict[str, int]:
    """How many records there would be of each outcome."""
    counts = batch.compared.outcomes.group_by("outcome").agg(pl.len()).sort("outcome")
    return {str(outcome): int(count) for outcome, count in counts.iter_rows()}
