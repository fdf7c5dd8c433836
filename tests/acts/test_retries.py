"""A feed whose work cannot go on waits, longer each time; the others go on, and an operator may stop it."""

import errno
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from exchange import processing
from exchange.cli.people import registry
from exchange.cli.trial import PROPOSER, SYSTEM
from exchange.due import feeds_to_do
from exchange.feed_turn import code_of, take_turn
from exchange.stopped import Stopped, start_feed, stop_feed
from exchange.waits import MACHINE, Wait, Waits
from security.errors import AuditBroken, Refusal, Unavailable
from tests.acts.bench_of_one import FEED, Acts, both_acts, covers

NOW = datetime(2026, 11, 28, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def acts(tmp_path: Path) -> Iterator[Acts]:
    with both_acts(tmp_path) as acts:
        acts.trial.grant("made-up", "push", FEED)
        yield acts


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The disk is full whenever act two decodes; gives the tries."""
    tries: list[int] = []

    def full(*_: object) -> None:
        tries.append(1)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(processing, "_decoded", full)
    return tries


def waiting(folder: Path, clock: Callable[[], datetime], share: float = 1.0) -> Waits:
    return Waits(folder, clock, lambda: share, 1.0, 300.0)


def test_waits_double_up_to_the_longest_and_are_never_all_alike(tmp_path: Path) -> None:
    clock = Clock()
    waits = waiting(tmp_path, clock)
    grown = [(waits.failed("covers", "flow.disk_full", "", None).next_at - NOW).total_seconds() for _ in range(11)]
    assert grown == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    early = waiting(tmp_path / "another", clock, share=0.0).failed("covers", "flow.disk_full", "", None)
    assert (early.next_at - NOW).total_seconds() == 0.5
    assert (waits.failed("covers", "flow.disk_full", "", 20.0).next_at - NOW).total_seconds() == 20, "the feed's own"


def test_a_wait_outlives_its_process_and_a_disk_that_would_not_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    waits = waiting(tmp_path, clock)
    waits.failed("covers", "flow.database_away", "somewhere", None)
    assert waiting(tmp_path, clock).all()["covers"].code == "flow.database_away"
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        waits.failed("covers", "flow.disk_full", "", None)
    assert not waits.due("covers")
    assert waits.all()["covers"].attempts == 2
    clock.now += timedelta(seconds=2)
    assert waits.due("covers")


def test_the_end_of_a_worker_counts_as_a_try(tmp_path: Path) -> None:
    waits = waiting(tmp_path, Clock())
    gone = Wait(0, "flow.worker_ended", NOW, NOW, working=f"{MACHINE}:99999999")
    elsewhere = Wait(0, "flow.worker_ended", NOW, NOW, working="another-machine:1")
    (tmp_path / "covers.json").write_bytes(msgspec.json.encode(gone))
    (tmp_path / "lamps.json").write_bytes(msgspec.json.encode(elsewhere))
    assert waits.ended() == ["covers"]
    assert list(waits.all()) == ["covers"]
    assert (waits.all()["covers"].attempts, waits.due("covers"), waits.due("lamps")) == (1, False, True)


def test_one_feed_waits_and_nothing_of_it_is_lost(acts: Acts, away: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    acts.push("m-1", covers("A"))
    acts = acts.with_(waits=waiting(acts.bus.folder / "waits", clock), clock=clock)
    assert (take_turn(FEED, acts.bus), take_turn(FEED, acts.bus), len(away)) == (0, 0, 1)
    wait = acts.bus.waits.all()[FEED]
    assert (wait.code, wait.attempts, wait.next_at) == ("flow.disk_full", 1, NOW + timedelta(seconds=1))
    assert feeds_to_do(acts.bus) == []
    clock.now += timedelta(seconds=1)
    assert feeds_to_do(acts.bus) == [FEED]
    monkeypatch.undo()
    assert take_turn(FEED, acts.bus.__class__(**{**msgspec.structs.asdict(acts.bus), "clock": lambda: NOW})) == 1
    assert acts.bus.waits.all() == {}


def test_a_retry_can_be_stopped(acts: Acts, away: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenHIM#1185."""
    clock = Clock()
    acts.push("m-1", covers("A"))
    acts = acts.with_(waits=waiting(acts.bus.folder / "waits", clock), stopped=Stopped(acts.bus.journal.ask))
    for _ in range(3):
        take_turn(FEED, acts.bus)
        clock.now += timedelta(minutes=10)
    assert len(away) == 3
    with registry(acts.trial.settings) as opened:
        stop_feed(opened, FEED, refuses=False, ground="数据库迁移", by=SYSTEM)
        acts = acts.with_(stopped=Stopped(acts.bus.journal.ask))
        for _ in range(3):
            take_turn(FEED, acts.bus)
            clock.now += timedelta(minutes=10)
        assert (len(away), feeds_to_do(acts.bus)) == (3, []), "no more tries, whatever time goes by"
        assert not acts.push("m-2", covers("B")).repeated, "it is accepted all the same"
        with pytest.raises(Refusal, match=r"flow\.already_so"):
            stop_feed(opened, FEED, refuses=False, ground="再停", by=SYSTEM)
        start_feed(opened, FEED, "迁移完成", SYSTEM)
    monkeypatch.undo()
    acts = acts.with_(stopped=Stopped(acts.bus.journal.ask))
    assert take_turn(FEED, acts.bus) == 2
    said = [(entry.leaf.outcome, entry.leaf.feed) for entry in acts.bus.journal.search(type="flow")]
    assert said == [("started", FEED), ("stopped", FEED)]


def test_a_feed_may_be_stopped_at_the_door_by_a_system_administrator_alone(acts: Acts) -> None:
    known = acts.push("m-1", covers("A"))
    with registry(acts.trial.settings) as opened:
        with pytest.raises(Refusal, match=r"role\.not_held"):
            stop_feed(opened, FEED, refuses=True, ground="试", by=PROPOSER)
        stop_feed(opened, FEED, refuses=True, ground="平台检修", by=SYSTEM)
    acts = acts.with_(stopped=Stopped(acts.bus.journal.ask))
    with pytest.raises(Refusal, match=r"flow\.feed_stopped") as caught:
        acts.push("m-2", covers("B"))
    assert caught.value.retry_after_s > 0
    assert acts.push("m-1", covers("A")).inbox.receipt == known.inbox.receipt, "its sender has its receipt again"


@pytest.mark.parametrize(
    "problem, code",
    [
        (OSError(errno.ENOSPC, "full"), "flow.disk_full"),
        (OSError(errno.EIO, "broken"), "flow.storage_away"),
        (AuditBroken("the log"), "flow.audit_broken"),
        (Unavailable("a token"), "flow.unavailable"),
    ],
)
def test_each_cause_has_its_code(problem: Exception, code: str) -> None:
    assert code_of(problem) == code


def test_a_cause_is_named_by_what_it_was_raised_from() -> None:
    wrapped = Unavailable("evidence cannot be kept")
    wrapped.__cause__ = OSError(errno.ENOSPC, "full")
    assert code_of(wrapped) == "flow.disk_full"
