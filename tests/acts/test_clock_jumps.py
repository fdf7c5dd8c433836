"""The machine's clock jumps an hour and comes back: what cannot be judged is refused by name, and nothing is lost."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from exchange.audit import verify
from exchange.processing import process
from security.errors import Refusal
from tests.acts.bench_of_one import FEED, Acts, both_acts, covers
from tests.log.buses import NOON, JournalFolder, an_entry

HOUR = timedelta(hours=1)


@pytest.fixture
def acts(tmp_path: Path) -> Iterator[Acts]:
    with both_acts(tmp_path) as acts:
        acts.trial.grant("made-up", "push", FEED)
        yield acts


@pytest.mark.parametrize(("jump", "code"), [(HOUR, "signature.stale"), (-HOUR, "signature.future")])
def test_what_is_sent_while_the_clock_is_wrong_is_taken_once_it_is_right(
    acts: Acts, jump: timedelta, code: str
) -> None:
    acts.push("m-1", covers("A"))
    right = acts.bus.clock
    delivery = acts.delivery("m-2", covers("B"))
    wrong = acts.with_(clock=lambda: right() + jump)
    arrived = msgspec.structs.replace(delivery, received_at=wrong.bus.clock())
    with pytest.raises(Refusal) as refused:
        wrong.receive(arrived)
    assert refused.value.code == code
    acts.receive(delivery)
    assert process(FEED, acts.bus) == 2
    statuses = [row.status for row in (acts.bus.journal.inbox("made-up", f"m-{n}") for n in (1, 2)) if row]
    assert statuses == ["processed", "processed"]


def test_log_time_never_goes_back_and_the_log_holds(tmp_path: Path) -> None:
    bus, moments = JournalFolder(tmp_path), iter([NOON, NOON + HOUR, NOON, NOON + 2 * HOUR])
    times = []
    for moment in moments:
        journal = bus.open(lambda moment=moment: moment)
        times.append(journal.note(an_entry()).result(10).time)
        journal.close()
    assert times == sorted(times)
    assert times[2] == times[1], "what comes while the clock is behind bears the time of the last"
    assert verify(bus.readable(), bus.anchors).problems == []
