"""The account of a day: all that came is somewhere, and what somebody takes away is found missing, by name and day."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exchange.account import BECAME, PLACED, Row, account, closing_holds, unbalanced
from exchange.account_watch import ACCOUNT, AccountWatch
from exchange.app import opening, places
from exchange.cli.main import main
from exchange.cli.people import registry
from exchange.cli.trial import SYSTEM
from exchange.entry import CITY_TIME
from exchange.processing import process
from security.errors import AuditBroken
from tests.acts.bench_of_one import FEED, REGISTER, Acts, both_acts, covers

SNAPSHOT = "made-up-snapshot"
SNAPSHOTS = REGISTER.replace(FEED, SNAPSHOT).replace(
    'content = "changes"', 'content = "snapshot"\ngone_limit_percent = 20.0'
)
BROKEN = b"\xff\xfe\x00 no table at all"


class Clock:
    """A clock that is set. It begins at noon of tomorrow, when certificates made today hold."""

    def __init__(self) -> None:
        tomorrow = datetime.now(CITY_TIME).date() + timedelta(days=1)
        self.now = datetime.combine(tomorrow, time(12), CITY_TIME).astimezone(UTC)

    def __call__(self) -> datetime:
        return self.now

    @property
    def day(self) -> str:
        return self.now.astimezone(CITY_TIME).date().isoformat()

    def next_day(self) -> str:
        """Noon of the day after; gives the day that is over."""
        over, self.now = self.day, self.now + timedelta(days=1)
        return over


class City:
    """A bus, its clock, and the account of today."""

    def __init__(self, acts: Acts, clock: Clock) -> None:
        self.acts, self.clock, self._named = acts, clock, 0

    def push(self, content: bytes, feed: str = FEED) -> str:
        """A message id of its own, accepted."""
        self._named += 1
        self.acts.push(f"m-{self._named}", content, feed)
        return f"m-{self._named}"

    def process(self) -> None:
        for feed in (FEED, SNAPSHOT):
            process(feed, self.acts.bus)

    def recall(self, message_id: str) -> None:
        self.acts.recall(self.acts.recalling(message_id))

    def rows(self, day: str = "") -> dict[str, Row]:
        rows = account(self.acts.bus.journal, self.acts.bus.store, day or self.clock.day)
        return {row.feed: row for row in rows}

    def watch(self) -> AccountWatch:
        return AccountWatch(self.acts.bus.journal, self.acts.bus.store, self.clock)

    def entries(self) -> list[dict[str, Any]]:
        """Details of the accounts that stand in the log, newest first."""
        return [entry.detail or {} for entry in self.acts.bus.journal.search(type=ACCOUNT)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[City]:
    clock = Clock()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(places, "utc_now", clock)
        with both_acts(tmp_path_factory.mktemp("account"), None, **{SNAPSHOT: SNAPSHOTS}) as acts:
            for feed in (FEED, SNAPSHOT):
                acts.trial.grant("made-up", "push", feed)
            yield City(acts, clock)


@pytest.fixture
def city(whole: City) -> City:
    """The same bus on a day of the test's own, with nothing left waiting."""
    whole.process()
    whole.clock.next_day()
    return whole


def test_a_day_with_everything_that_can_become_of_a_delivery_is_balanced(city: City) -> None:
    taken_back, _, _ = city.push(covers("A")), city.push(covers("B", 5)), city.push(BROKEN)
    city.push(covers("S", 10), SNAPSHOT)
    city.process()
    city.recall(taken_back)
    held, unprocessed = city.push(covers("S", 2), SNAPSHOT), city.push(covers("C"))
    city.recall(unprocessed)
    city.process()
    city.push(covers("D"))
    changes, snapshots = city.rows()[FEED], city.rows()[SNAPSHOT]
    assert changes.balanced
    assert changes.deliveries == {"received": 5, "processed": 1, "refused": 1, "held": 0, "waiting": 1, "recalled": 2}
    assert changes.records == {"received": 8, **dict.fromkeys(PLACED, 0), "new": 5, "recalled": 3}
    assert snapshots.balanced
    assert snapshots.deliveries == {"received": 2, **dict.fromkeys(BECAME, 0), "processed": 1, "held": 1}
    assert snapshots.records["new"] == 10
    # A person lets the held one through: it is processed the day after, and stands in the account of its own day.
    row = city.acts.bus.journal.inbox("made-up", held)
    assert row is not None
    with registry(city.acts.trial.settings) as opened:
        opened.decide_delivery(row.id, "release", SYSTEM)
    assert city.rows()[SNAPSHOT].balanced, "decided, and not carried out yet"
    day = city.clock.next_day()
    city.process()
    later = city.rows(day)[SNAPSHOT]
    assert (later.balanced, later.deliveries["held"], later.deliveries["processed"]) == (True, 0, 2)
    assert city.rows() == {}, "nothing was delivered today"


def test_each_closed_day_is_entered_once_and_stays_as_it_was_entered(city: City) -> None:
    city.watch().turn()
    city.push(covers("E"))
    city.process()
    city.push(covers("F"))
    first = city.clock.next_day()
    second = city.clock.next_day()
    with closing(
        opening.open_journal(city.acts.trial.settings)
    ) as journal:  # another process, which is a little faster
        assert AccountWatch(journal, city.acts.bus.store, city.clock).turn() == [first, second]
    assert city.watch().turn() == []
    assert [said["day"] for said in city.entries()[:2]] == [second, first]
    said = city.entries()[1]
    assert (said["deliveries"], said["processed"], said["waiting"], said["records"]) == (2, 1, 1, 3)
    city.process()  # what waited is processed days later: the account of that day, made again as of then, is the same
    entry = city.acts.bus.journal.account_of(first)
    assert entry is not None
    assert closing_holds(city.acts.bus.journal, entry)
    assert city.rows(first)[FEED].deliveries["waiting"] == 0


def test_two_that_close_the_same_day_at_the_same_moment_make_one_entry(city: City) -> None:
    city.watch().turn()
    day = city.clock.next_day()
    one, other = city.watch(), city.watch()
    assert [one._enter(day) is not None, other._enter(day) is not None] == [True, False]
    assert [said["day"] for said in city.entries()].count(day) == 1


SPOILT: list[tuple[Literal["store", "journal"], str, str, str]] = [
    ("store", "deliveries", "DELETE FROM deliveries WHERE message_id = ?", "account.not_in_register"),
    (
        "store",
        "deliveries",
        "UPDATE deliveries SET counts = '{}' WHERE message_id = ?",
        "account.counts_differ",
    ),
    ("store", "claims", "DELETE FROM claims WHERE record = 1 AND delivery_id = OF", "account.rows_differ"),
    ("store", "claims", "DELETE FROM claims WHERE delivery_id = OF", "account.rows_differ"),
    ("journal", "inbox", "DELETE FROM inbox WHERE message_id = ?", "account.not_in_inbox"),
    ("journal", "inbox", "UPDATE inbox SET status = 'refused' WHERE message_id = ?", "account.status_differs"),
    ("journal", "inbox", "UPDATE inbox SET feed = 'other' WHERE message_id = ?", "account.not_in_inbox"),
]


@pytest.mark.parametrize("file, table, statement, code", SPOILT, ids=lambda value: str(value)[:48])
def test_what_somebody_takes_from_a_table_is_found_missing(
    city: City, file: Literal["store", "journal"], table: str, statement: str, code: str
) -> None:
    city.push(covers(f"K{city.clock.day}"))
    spoilt = city.push(covers(f"L{city.clock.day}"))
    city.process()
    assert city.rows()[FEED].balanced
    of = f"(SELECT id FROM deliveries WHERE message_id = '{spoilt}')"
    with _spoilt(city, file, table, statement.replace("OF", of), spoilt):
        row = city.rows()[FEED]
        assert not row.balanced
        assert (row.day, row.bureau) == (city.clock.day, "made-up")
        named = {one.message_id for one in row.differences}
        assert code in {one.code for one in row.differences}
        assert named <= {spoilt, ""}
    assert city.rows()[FEED].balanced


def test_a_report_whose_entry_was_altered_on_the_disk_is_said_and_no_account_is_made_without_it(city: City) -> None:
    spoilt = city.push(covers("K"))
    city.process()
    last = "(SELECT max(reports.entry_index) FROM reports JOIN inbox ON id = inbox_id WHERE message_id = ?)"
    for octets in ("7B226E657722", "5B5D", "FF"):  # cut, a list, not UTF-8
        statement = f"UPDATE details SET detail = x'{octets}' WHERE idx = {last}"
        with (
            _spoilt(city, "journal", "details", statement, spoilt),
            pytest.raises(AuditBroken, match="the entry of a report cannot be read"),
        ):
            city.rows()
    assert city.rows()[FEED].balanced


def test_what_was_said_again_stands_on_the_later_word_and_is_still_all_accounted_for(city: City) -> None:
    first = city.push(covers("R"))
    city.process()
    again = city.push(covers("R", 4))
    city.process()
    city.recall(first)
    city.process()
    row = city.rows()[FEED]
    assert row.balanced
    assert (row.records["new"], row.records["unchanged"], row.records["recalled"]) == (1, 3, 3)
    of = f"(SELECT id FROM deliveries WHERE message_id = '{again}')"
    with _spoilt(city, "store", "claims", f"DELETE FROM claims WHERE record = 3 AND delivery_id = {of}", again):
        assert [one.code for one in city.rows()[FEED].differences] == ["account.rows_differ"]
        assert [row.day for row in unbalanced(city.acts.bus.journal, city.acts.bus.store)] == [city.clock.day]
    assert unbalanced(city.acts.bus.journal, city.acts.bus.store) == []


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["push", "again", "broken", "snapshot", "recall", "process"]), st.integers(0, 5)),
    min_size=1,
    max_size=10,
)


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(history=ACTIONS)
def test_whatever_happens_in_whatever_order_a_day_is_balanced(whole: City, history: list[tuple[str, int]]) -> None:
    city, sent = whole, list[str]()
    city.process()
    city.clock.next_day()
    for action, number in history:
        if action == "recall" and sent:
            city.recall(sent[number % len(sent)])
        elif action == "process":
            city.process()
        elif action != "recall":
            content = BROKEN if action == "broken" else covers("H" if action == "again" else f"H{number}", number + 1)
            sent.append(city.push(content, SNAPSHOT if action == "snapshot" else FEED))
        rows = city.rows().values()
        assert all(row.balanced for row in rows), rows
        assert sum(row.deliveries["received"] for row in rows) == len(sent)


def test_the_command_says_balanced_and_exits_by_it(city: City, capsys: pytest.CaptureFixture[str]) -> None:
    spoilt = city.push(covers("Q"))
    city.process()
    words = ["account", "--day", city.clock.day, "--settings", city.acts.trial.settings.source]
    assert main(words) == 0
    assert "made-up" in capsys.readouterr().out
    with _spoilt(city, "store", "deliveries", "DELETE FROM deliveries WHERE message_id = ?", spoilt):
        assert main([*words, "--json"]) == 1
        said = capsys.readouterr().out
    assert '"account.not_in_register"' in said
    assert "已办结，部件库中没有" in said
    assert main([*words, "--bureau", "nobody"]) == 0


@contextmanager
def _straight(city: City, file: str) -> Iterator[sqlite3.Connection]:
    """The file itself, past everything that keeps it right."""
    path: Path = city.acts.bus.folder / f"{file}.sqlite"
    with closing(sqlite3.connect(path, timeout=30)) as connection:
        yield connection
        connection.commit()


@contextmanager
def _spoilt(city: City, file: str, table: str, statement: str, message_id: str) -> Iterator[None]:
    """The table spoilt, and put back after."""
    with _straight(city, file) as connection:
        kept = connection.execute(f"SELECT * FROM {table}").fetchall()
        assert connection.execute(statement, (message_id,) if "?" in statement else ()).rowcount
    try:
        yield
    finally:
        with _straight(city, file) as connection:
            connection.execute(f"DELETE FROM {table}")
            marks = ", ".join("?" * len(kept[0]))
            connection.executemany(f"INSERT INTO {table} VALUES ({marks})", kept)
