"""Several workers at one store, which a server allows: what they make together is what one makes alone."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import psycopg
import pytest

from exchange.database import Failed
from exchange.store.served import Served
from exchange.store.store import Store
from tests.components.builders import DAY, MONDAY, WATER, Feed, a_delivery, a_row, compared, deliver
from tests.components.conftest import NewStore

FEEDS = [Feed(f"feed-{number}", f"bureau-{number}") for number in range(4)]
THINGS, ROUNDS, AT_ONCE = 36, 6, 3
SOON_S = 20.0
Row = dict[str, Any]


@pytest.fixture
def server(new_store: NewStore) -> Served:
    """A server with a store in which nothing is."""
    engine = new_store().engine
    assert isinstance(engine, Served)
    return engine


def said(feed: int, chance: random.Random) -> list[list[Row]]:
    """What a bureau says of the same things as all others, a part of them at a time; some change, and some end."""
    rounds: list[list[Row]] = [[] for _ in range(ROUNDS)]
    for thing in range(THINGS):
        row = a_row(f"{feed}-{thing}", x=121.5452 + thing % 6 * 3e-4 + feed * 1e-6, y=29.8652 + thing // 6 * 3e-4)
        first = chance.randrange(ROUNDS)
        rounds[first].append(row)
        if first + 1 < ROUNDS and thing % 3 == 0:
            rounds[first + 1].append({**row, "state": "破损"})
        elif first + 1 < ROUNDS and thing % 7 == 0:
            rounds[first + 1].append({"source_key": row["source_key"], "removed": True, "delivery": 0})
    return rounds


def told(store: Store) -> set[tuple[str, frozenset[tuple[str, str]]]]:
    """The components, each by its class and the claims that speak of it, with what they say."""
    rows = store.connection().execute(
        "SELECT c.id, c.class_code, k.source_key, k.state || coalesce(CAST(k.valid_to_us AS TEXT), '') "
        "FROM components c JOIN claims k ON k.component_id = c.id"
    )
    found: dict[int, tuple[str, set[tuple[str, str]]]] = {}
    for component, class_code, key, state in rows:
        found.setdefault(component, (class_code, set()))[1].add((key, state))
    return {(class_code, frozenset(claims)) for class_code, claims in found.values()}


class Rounds:
    """What waits of each feed, in its order."""

    def __init__(self) -> None:
        self._waiting = {
            feed.id: list(enumerate(said(number, random.Random(number)))) for number, feed in enumerate(FEEDS)
        }

    def next_of(self, feed: Feed, store: Store) -> bool:
        """Work through the next delivery of a feed; false where none waits. Whoever calls has the feed's turn."""
        if not self._waiting[feed.id]:
            return False
        number, rows = self._waiting[feed.id][0]
        deliver(store, rows, a_delivery(str(number), MONDAY + number * DAY, sender=feed.bureau), feed=feed)
        self._waiting[feed.id].pop(0)
        return True

    def left(self) -> list[Feed]:
        """Feeds of which something waits."""
        return [feed for feed in FEEDS if self._waiting[feed.id]]


def work(server: Served, rounds: Rounds, seed: int) -> None:
    """A worker that takes up one feed after another, at random, until nothing waits."""
    chance = random.Random(seed)
    with closing(Store(Served(server.url))) as store:
        while left := rounds.left():
            feed = chance.choice(left)
            with store.turn(feed.id) as ours:
                if ours:
                    rounds.next_of(feed, store)


@contextmanager
def subscriber(server: Served) -> Iterator[dict[int, int]]:
    """Reads by change number all the while, never again what lies behind; gives the last number of each component."""
    over, seen = threading.Event(), dict[int, int]()

    def read() -> None:
        with closing(server.connect()) as connection:
            last, cursor = False, 0
            while not last:
                last = over.is_set()
                query = "SELECT id, change_number FROM components WHERE change_number > ? ORDER BY change_number"
                for component, cursor in connection.execute(query, (cursor,)):  # noqa: B020  # the last one read
                    seen[component] = cursor

    thread = threading.Thread(target=read)
    thread.start()
    yield seen
    over.set()
    thread.join()


@pytest.mark.parametrize("seed", range(3))
def test_several_workers_make_what_one_makes_and_the_change_feed_misses_nothing(
    server: Served, new_store: NewStore, seed: int
) -> None:
    alone, together = Rounds(), Rounds()
    with closing(Store(server)) as store, subscriber(server) as seen:
        threads = [
            threading.Thread(target=work, args=(server, together, AT_ONCE * seed + number)) for number in range(AT_ONCE)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not together.left(), "a worker ended before its work did"
        joined = told(store)
        numbers = dict(store.connection().execute("SELECT id, change_number FROM components").fetchall())
        last = store.connection().execute("SELECT last FROM change_counter").fetchone()[0]
        events = sum(len(rows) for number in range(len(FEEDS)) for rows in said(number, random.Random(number)))
    one = new_store()
    for feed in FEEDS:
        while alone.next_of(feed, one):
            pass
    assert len(joined) == THINGS, "each thing once"
    assert joined == told(one)
    assert seen == numbers
    assert last == events, "no number was left out"


def test_who_comes_second_to_a_feed_leaves_it_and_another_feed_is_free(server: Served) -> None:
    with ExitStack() as stack:
        first, second = (stack.enter_context(closing(Store(Served(server.url)))) for _ in range(2))
        with first.turn("a") as ours, second.turn("a") as theirs:
            assert (ours, theirs) == (True, False)
        with first.turn("a") as ours, second.turn("b") as theirs:
            assert (ours, theirs) == (True, True)
        with second.turn("a") as theirs:
            assert theirs


def test_an_erasure_waits_for_the_batch_that_is_under_way_and_is_alone(server: Served) -> None:
    with ExitStack() as stack:
        first, second = (stack.enter_context(closing(Store(Served(server.url)))) for _ in range(2))
        order = []

        def erase() -> None:
            with second.turn():
                order.append("erasure")

        with first.turn("a"):
            thread = threading.Thread(target=erase)
            thread.start()
            until(lambda: waiting_locks(server) == 1)
            order.append("batch")
        thread.join()
        assert order == ["batch", "erasure"]


def test_who_lost_its_session_stores_nothing(server: Served) -> None:
    with ExitStack() as stack:
        first, second = (stack.enter_context(closing(Store(Served(server.url)))) for _ in range(2))
        with first.turn(WATER.id) as ours:
            assert ours
            with psycopg.connect(server.url, autocommit=True) as connection:
                connection.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
            until(lambda: _reads(first))
            with second.turn(WATER.id) as theirs:
                assert theirs, "the server has let go what the lost session held"
                with pytest.raises(Failed, match="turn"):
                    deliver(first, [a_row("K")], a_delivery("1"))
        assert first.ledger().deliveries == 0
        with first.turn(WATER.id):
            deliver(first, [a_row("K")], a_delivery("1"))
        assert second.ledger().deliveries == 1


def test_batches_far_apart_do_not_wait_for_one_another_and_near_ones_do(server: Served) -> None:
    with ExitStack() as stack:
        first, second = (stack.enter_context(closing(Store(Served(server.url)))) for _ in range(2))
        here, there = [a_row("K", x=121.541, y=29.861)], [a_row("L", x=121.541, y=29.8899)]
        with first.neighbourhood(compared(first, WATER, here, [a_delivery("1")])):
            deliver(second, there, a_delivery("1", sender="u"), feed=FEEDS[0])
            thread = threading.Thread(target=lambda: deliver(second, here, a_delivery("2", sender="u"), feed=FEEDS[0]))
            thread.start()
            until(lambda: waiting_locks(server) == 1)
        thread.join()
        assert second.ledger().deliveries == 2


def waiting_locks(server: Served) -> int:
    with psycopg.connect(server.url) as connection:
        found = connection.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        row = found.fetchone()
        return row[0] if row else 0


def until(true: Callable[[], bool]) -> None:
    ends = time.monotonic() + SOON_S
    while not true():
        assert time.monotonic() < ends, "it did not come to that"
        time.sleep(0.02)


def _reads(store: Store) -> bool:
    try:
        store.ledger()
    except Failed:
        return False
    return True
