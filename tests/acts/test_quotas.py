"""What one feed may send now, and what its sender hears beyond it; what is known already asks for no room."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from exchange.app import opening
from exchange.entry import CITY_TIME
from exchange.fairness import FIRST_BATCH, Slices, Turns
from exchange.gate import Gate, narrowed
from exchange.processing import process
from security.errors import Refusal
from tests.acts.bench_of_one import FEED, REGISTER, Acts, both_acts, covers

OTHER = "other-covers"


@pytest.fixture
def acts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Acts]:
    monkeypatch.setattr("exchange.gate.LOOK_S", 0.0)  # the inbox is asked each time
    monkeypatch.setattr("exchange.gate.REFUSALS_A_SECOND", 1_000_000)
    with both_acts(tmp_path, **{OTHER: REGISTER.replace(FEED, OTHER)}) as acts:
        for feed in (FEED, OTHER):
            acts.trial.grant("made-up", "push", feed)
        yield acts


def limited(acts: Acts, **limits: int) -> Acts:
    """The feed's file says these limits."""
    feed = msgspec.structs.replace(acts.bus.feeds[FEED], **limits)
    return acts.with_(feeds={**acts.bus.feeds, FEED: feed}, gate=Gate())


def refused(acts: Acts, message_id: str, content: bytes = b"") -> Refusal:
    with pytest.raises(Refusal) as caught:
        acts.push(message_id, content or covers(message_id))
    assert acts.bus.journal.inbox("made-up", message_id) is None
    return caught.value


def test_a_minute_has_so_many_and_the_next_may_come_when_it_is_said(acts: Acts) -> None:
    acts = limited(acts, most_a_minute=3)
    first = acts.push("m-0", covers("A"))
    for number in (1, 2):
        acts.push(f"m-{number}", covers("A"))
    refusal = refused(acts, "m-3")
    assert (refusal.code, refusal.detail) == ("flow.too_many", f"{FEED} deliveries_a_minute 3")
    assert 15 <= refusal.retry_after_s <= 21, "a third of a minute"
    assert acts.push("m-0", covers("A")).inbox.receipt == first.inbox.receipt, "what is known asks for no room"
    assert not acts.push("o-1", covers("B"), OTHER).repeated, "another feed has a quota of its own"


def test_a_full_backlog_takes_the_next_one_once_act_two_has_worked(acts: Acts) -> None:
    acts = limited(acts, most_waiting=2)
    for number in range(2):
        acts.push(f"m-{number}", covers(f"A{number}"))
    assert refused(acts, "m-2").detail == f"{FEED} waiting 2"
    assert process(FEED, acts.bus) == 2
    assert not acts.push("m-2", covers("A2")).repeated
    assert process(FEED, acts.bus) == 1


def test_a_day_has_so_many_octets_and_ends_at_midnight_of_the_city(acts: Acts) -> None:
    acts = limited(acts, most_bytes_a_day=150)
    for number in range(2):
        acts.push(f"m-{number}", covers(f"A{number}"))  # some hundred octets each
    refusal = refused(acts, "m-2")
    assert refusal.detail == f"{FEED} bytes_a_day 150"
    now = acts.bus.clock()
    assert (now + timedelta(seconds=refusal.retry_after_s + 1)).astimezone(CITY_TIME).date() > now.astimezone(
        CITY_TIME
    ).date()
    gate, tomorrow = Gate(), now + timedelta(days=1)
    gate.admit(acts.bus.feeds[FEED], acts.bus.limits, acts.bus.journal, tomorrow)


def test_a_feed_may_have_smaller_deliveries_than_the_bus(acts: Acts) -> None:
    acts = limited(acts, max_bytes=60)
    refusal = refused(acts, "m-1")
    assert refusal.code == "size.too_large"
    assert refusal.detail.endswith("> 60")


def test_a_hundred_refusals_of_a_flood_are_one_entry(acts: Acts) -> None:
    acts = limited(acts, most_a_minute=1)
    acts.push("m-0", covers("A"))
    before = acts.bus.journal.size()
    for number in range(1, 101):
        refused(acts, f"m-{number}")
    acts.bus.journal.close()
    with closing(opening.open_journal(acts.trial.settings)) as journal:
        entries, size = journal.search(type="refusal", limit=200), journal.size()
    counted = [(entry.leaf.outcome, entry.leaf.feed, (entry.detail or {})["count"]) for entry in entries]
    assert sum(int(count) for _, _, count in counted) == 100
    assert len(counted) <= 3, "one a minute"
    assert {(outcome, feed) for outcome, feed, _ in counted} == {("flow.too_many", FEED)}
    assert size - before == len(counted)


def test_the_smaller_limit_counts_and_none_is_none() -> None:
    assert [narrowed(*pair) for pair in ((0, 0), (5, 0), (0, 7), (5, 7), (9, 7))] == [0, 5, 7, 5, 7]


def test_turns_go_round_among_senders() -> None:
    order: list[bytes] = []

    async def one(turns: Turns, whose: bytes) -> None:
        await turns.take(whose)
        order.append(whose)

    async def all_of_them() -> None:
        turns = Turns()
        flood = [asyncio.ensure_future(one(turns, b"flood")) for _ in range(300)]
        await asyncio.sleep(0)
        await asyncio.gather(one(turns, b"calm"), one(turns, b"other"))
        assert len(order) < 10, "two came through three hundred"
        flood[-1].cancel()
        await asyncio.gather(*flood[:-1])

    asyncio.run(all_of_them())
    assert order.count(b"flood") == 299, "who went away held up nobody"


def test_a_feed_alone_takes_whole_batches_and_beside_others_a_tenth_of_a_second() -> None:
    now_s = [0.0]
    slices = Slices(lambda: now_s[0])
    assert slices.most("flood", 500) == 500
    slices.took("flood", 500, 1.0)
    assert slices.most("calm", 500) == FIRST_BATCH, "nothing is known of it yet"
    assert slices.most("flood", 500) == 50
    now_s[0] += 120.0
    assert slices.most("flood", 500) == 500, "the others have nothing any more"


@pytest.mark.parametrize(
    ("fixed_s", "each_s", "at_least_per_s", "at_most_s"),
    [(0.0, 0.001, 900, 0.11), (0.15, 0.001, 400, 0.35), (0.02, 0.0001, 7_000, 0.11), (0.0, 0.08, 12, 0.17)],
    ids=["a delivery costs", "a batch costs", "hardly anything costs", "a delivery costs as much as a turn"],
)
def test_beside_others_a_batch_is_near_its_time_and_never_shrinks_to_what_it_costs_by_itself(
    fixed_s: float, each_s: float, at_least_per_s: float, at_most_s: float
) -> None:
    chance, slices = random.Random(20261128), Slices(lambda: 0.0)
    slices.most("another", 500)
    taken, spent = [], []
    for _ in range(60):
        taken.append(slices.most("flood", 500))
        spent.append((fixed_s + each_s * taken[-1]) * chance.uniform(0.9, 1.1))
        slices.took("flood", taken[-1], spent[-1])
    assert sum(taken[20:]) / sum(spent[20:]) >= at_least_per_s
    assert sum(spent[20:]) / 40 <= at_most_s
