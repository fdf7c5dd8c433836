"""A signed read is answered once, however often the bus was started since."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from exchange import replays
from exchange.intake import admit, remember_reads
from exchange.replays import OwnReplays
from security.errors import Refusal, Unavailable
from tests.acts.bench_of_one import Acts, both_acts

NOON = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)
LATER = NOON + timedelta(minutes=10)


@pytest.fixture
def acts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acts]:
    with both_acts(tmp_path_factory.mktemp("reads")) as acts:
        yield acts


def test_the_same_read_again_is_refused_also_after_a_restart(acts: Acts) -> None:
    asked = acts.asking("GetCheckpoint", "r-1")
    asyncio.run(admit(asked, acts.bus, "deliveries"))
    with pytest.raises(Refusal, match=r"signature\.replayed"):
        asyncio.run(admit(asked, acts.bus, "deliveries"))  # its entry waits for the one before it
    again = acts.with_(replays=OwnReplays())
    remember_reads(again.bus)
    with pytest.raises(Refusal, match=r"signature\.replayed"):
        asyncio.run(admit(asked, again.bus, "deliveries"))
    asyncio.run(admit(acts.asking("GetCheckpoint", "r-2"), again.bus, "deliveries"))


def test_a_bureau_that_asks_too_much_uses_up_nobody_elses_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "MOST_OF_BUREAU", 2)
    memory = OwnReplays()
    for digest in ("a", "b"):
        memory.refuse_again("water", digest, LATER, NOON)
    with pytest.raises(Unavailable):
        memory.refuse_again("water", "c", LATER, NOON)
    memory.refuse_again("power", "c", LATER, NOON)
    memory.refuse_again("water", "c", LATER + timedelta(minutes=10), LATER)
    with pytest.raises(Refusal, match=r"signature\.replayed"):
        memory.refuse_again("water", "c", LATER, LATER)


def test_entries_since_a_moment_are_found_from_the_end(acts: Acts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exchange.journal.MOST_IN_GROUP", 1)
    began = acts.bus.clock()
    acts.trial.grant("made-up", "pull", "ownership")
    found = acts.bus.journal.since(began)
    assert [entry.leaf.outcome for entry in found] == ["approved", "proposed"]
    assert len(acts.bus.journal.since(began - timedelta(days=1))) == acts.bus.journal.size()
    assert acts.bus.journal.since(acts.bus.clock()) == []
