"""Searching finds what a plain reading of the log finds, by whatever is asked for, and says so when its index lies."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.audit import verify
from exchange.database import Cursor, SqliteFile
from exchange.entry import Entry, LoggedEntry
from exchange.journal import Journal
from exchange.log_index import PIECE, Wanted, differing, find, forget, rebuild
from exchange.migrate import upgrade
from tests.log.buses import NOON, JournalFolder, an_entry

ENTRIES = 3 * PIECE + 700
SHARED = 10  # one in so many


def entry(number: int) -> Entry:
    """Entries of a busy log. Feed `a` is always water's and `b` always power's: frequent each, never together."""
    water = number % 2 == 0
    said = {
        "sender": "water" if water else "power",
        "feed": "a" if water else "b",
        "actor": f"person-{number % 7}",
        "carrier": f"{number % 3}" * 64,
        "signer": f"{number % 2 + 5}" * 64,
    }
    if number % 500 == 1:
        counts: dict[str, str | int] = {"address": "192.0.2.1", "minute": "2026", "count": 2, "auth.no_certificate": 2}
        return Entry(type="refusal", outcome="strangers", detail=counts)
    if number % SHARED == 3:
        return Entry(type="refusal", outcome="auth.no_grant", **said, detail={"message_id": f"m-{number}"})
    if number % SHARED == 4:
        return Entry(type="held", outcome="accepted", **said, detail={"message_id": f"m-{number // 40}"})
    asked: dict[str, str | int] = {"component": f"c-{number % 900}", "purpose": f"案件 {number % 5}"}
    return Entry(type="read", outcome="answered", **said, detail=asked)


def clock() -> Callable[[], datetime]:
    """A clock that goes on by a second whenever it is looked at."""
    ticks = iter(range(10**9))
    return lambda: NOON + timedelta(seconds=next(ticks))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> JournalFolder:
    bus = JournalFolder(tmp_path_factory.mktemp("index"))
    journal = bus.open(clock())
    for future in [journal.note(entry(number)) for number in range(ENTRIES)]:
        future.result(60)
    journal.close()
    return bus


@pytest.fixture
def bus(made: JournalFolder, tmp_path: Path) -> JournalFolder:
    """A copy that a test may spoil."""
    for path in made.folder.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    return JournalFolder(tmp_path)


@pytest.fixture(scope="module")
def journal(made: JournalFolder) -> Iterator[Journal]:
    opened = made.open(clock())
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def everything(journal: Journal) -> list[LoggedEntry]:
    """All entries, newest first, by no index."""
    found = journal.search(limit=10**6)
    assert len(found) == ENTRIES
    return found


def change(bus: JournalFolder, *statements: str) -> None:
    with closing(bus.database.connect()) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def silent(done: int, of: int) -> None:
    """Says nothing of how far it is."""


def plainly(entry: LoggedEntry, name: str, value: Any) -> bool:
    leaf, detail = entry.leaf, entry.detail or {}
    if name == "code":
        return bool(leaf.outcome == value or (leaf.outcome == "strangers" and value in detail))
    if name == "bureau":
        return bool(leaf.sender == value)
    if name == "person":
        return bool(leaf.actor == value)
    if name in ("message_id", "component", "purpose"):
        return bool(detail.get(name) == value)
    return bool(getattr(leaf, name) == value)


ARGUMENTS = {
    "type": ["read", "refusal", "held", "none"],
    "outcome": ["answered", "auth.no_grant", "strangers"],
    "code": ["auth.no_certificate", "auth.no_grant", "accepted"],
    "sender": ["water", "power"],
    "bureau": ["water", "none"],
    "feed": ["a", "b"],
    "person": ["person-3"],
    "message_id": ["m-13", "m-204", "m-9993", "m-none"],
    "component": ["c-17", "c-899"],
    "purpose": ["案件 2"],
}


@settings(max_examples=150, deadline=None)
@given(
    st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in ARGUMENTS.items()}),
    st.integers(0, ENTRIES),
    st.integers(0, ENTRIES),
    st.booleans(),
    st.sampled_from([1, 20, 10**6]),
)
def test_every_argument_and_every_combination_finds_what_a_plain_reading_finds(
    journal: Journal,
    everything: list[LoggedEntry],
    asked: dict[str, str],
    low: int,
    high: int,
    by_time: bool,
    limit: int,
) -> None:
    expected = [one for one in everything if all(plainly(one, *pair) for pair in asked.items())]
    ends: Any = {"after": low, "before": high}
    within = [one for one in reversed(expected) if low < one.index < high]
    if by_time:
        first, last = (everything[ENTRIES - 1 - min(place, ENTRIES - 1)].leaf.time for place in (low, high))
        ends = {"since": datetime.fromisoformat(first), "until": datetime.fromisoformat(last)}
        within = [one for one in expected if first <= one.leaf.time < last]
    assert journal.search(**asked, **ends, limit=limit) == within[:limit]


def test_whose_connection_or_key_it_was_is_found_with_the_bureau(journal: Journal) -> None:
    found = journal.search(bureau="none", certificates=["1" * 64, "6" * 64], limit=10**6)
    assert found
    assert all(one.leaf.carrier == "1" * 64 or one.leaf.signer == "6" * 64 for one in found)
    assert len(found) > len(journal.search(bureau="none", certificates=["1" * 64], limit=10**6))


def test_pages_by_key_visit_every_entry_once(journal: Journal, everything: list[LoggedEntry]) -> None:
    wanted = [one.index for one in everything if one.leaf.type == "held"]
    seen: list[int] = []
    while page := journal.search(type="held", before=seen[-1] if seen else None, limit=97):
        seen += [one.index for one in page]
    assert seen == wanted
    seen = []
    while page := journal.search(type="held", after=seen[-1] if seen else -1, limit=97):
        seen += [one.index for one in page]
    assert seen == wanted[::-1]


def test_what_is_frequent_but_never_together_reads_only_the_tail(journal: Journal) -> None:
    fetched = 0

    def read(query: str, *values: object) -> list[Any]:
        nonlocal fetched
        rows = journal._read(query, *values)
        fetched += len(rows) if "leaf" in query else 0
        return rows

    assert find(read, Wanted(sender="water", feed="b"), range(ENTRIES), 20, oldest_first=False) == []
    assert fetched == ENTRIES % PIECE


def test_a_piece_is_indexed_once_it_is_full(made: JournalFolder, journal: Journal) -> None:
    assert journal.indexed() == (3, 3)
    assert differing(made.database, silent) == []


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM index_pieces",
        "DELETE FROM index_pieces WHERE piece = 1",
        "DELETE FROM index_key",
        "INSERT INTO index_pieces VALUES (-7), (3), (1000000)",
    ],
)
def test_an_index_taken_away_hides_nothing(bus: JournalFolder, everything: list[LoggedEntry], statement: str) -> None:
    change(bus, statement)
    journal = bus.open(clock())
    found = journal.search(component="c-17", limit=10**6)
    journal.close()
    assert found == [one for one in everything if plainly(one, "component", "c-17")]


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM index_terms WHERE piece = 1 AND term = (SELECT min(term) FROM index_terms WHERE piece = 1)",
        "UPDATE index_terms SET entries = x'0000' WHERE piece = 1 AND length(entries) > 100",
        "UPDATE index_terms SET term = term + 1 WHERE piece = 1",
        "INSERT INTO index_terms VALUES (1, 5, x'0000')",
    ],
)
def test_a_row_of_the_index_lost_or_altered_is_named_and_mended(bus: JournalFolder, statement: str) -> None:
    change(bus, statement)
    assert differing(bus.database, silent) == [range(PIECE, 2 * PIECE)]
    assert rebuild(bus.database, silent) == 3 * PIECE
    assert differing(bus.database, silent) == []


def test_rows_that_lead_to_other_entries_show_none_of_them(bus: JournalFolder) -> None:
    change(bus, f"UPDATE index_terms SET entries = CAST(x'{'ff' * 512}' AS BLOB)")
    journal = bus.open(clock())
    assert {one.leaf.feed for one in journal.search(feed="a", limit=10**6)} == {"a"}
    journal.close()


def test_what_is_erased_is_found_no_more_and_stands_nowhere_in_the_index(bus: JournalFolder) -> None:
    journal = bus.open(clock())
    (delivered,) = journal.search(message_id="m-9993")
    kept = journal.search(message_id="m-204")

    def erase(cursor: Cursor, _: int) -> None:
        cursor.execute("UPDATE details SET salt = NULL, detail = NULL WHERE idx = ?", (delivered.index,))
        forget(cursor, delivered.index)

    terms = "SELECT count(*) FROM index_terms"
    before = journal._read(terms)[0][0]
    journal.note(an_entry(), erase).result(10)
    assert journal._read(terms)[0][0] == before - 1
    assert journal.search(message_id="m-9993") == []
    assert journal.search(type="refusal", before=delivered.index + 1, limit=1)[0].detail is None, "found by its leaf"
    assert journal.search(message_id="m-204") == kept
    journal.close()
    assert differing(bus.database, silent) == []


@pytest.mark.of_a_file
def test_a_journal_of_an_older_version_is_indexed_when_it_is_opened(bus: JournalFolder) -> None:
    full, older = bus.folder / "journal.sqlite", bus.folder / "older.sqlite"
    engine = sa.create_engine(f"sqlite:///{older}")
    upgrade(engine, "journal", "0003")
    engine.dispose()
    with closing(sqlite3.connect(older)) as connection, connection:
        connection.execute("ATTACH ? AS full", (str(full),))
        for table in ("entries", "details", "nodes", "heads"):
            connection.execute(f"INSERT INTO {table} SELECT * FROM full.{table}")
    for file in bus.folder.glob("journal.sqlite*"):
        file.unlink()
    older.rename(full)
    journal = bus.open(clock())
    assert journal.indexed() == (3, 3)
    assert len(journal.search(message_id="m-9993")) == 1
    journal.close()


def test_a_file_that_cannot_be_brought_to_today_s_schema_stays_as_it_was(tmp_path: Path) -> None:
    file = SqliteFile(tmp_path, "journal")
    with closing(file.connect()) as connection:
        connection.execute("CREATE TABLE index_terms (term)")  # which a later change of the schema would make
    with pytest.raises(sa.exc.OperationalError, match="index_terms already exists"):
        file.prepare()
    with closing(file.connect()) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("index_terms",)]


def test_what_one_process_indexed_the_other_does_not_look_at_again(bus: JournalFolder) -> None:
    first, second = bus.open(clock()), bus.open(clock())
    for future in [first.note(an_entry()) for _ in range(PIECE)]:
        future.result(60)
    second.note(an_entry()).result(10)
    first.close()
    second.close()
    assert second._sequencer._indexed == 4 * PIECE
    assert differing(bus.database, silent) == []


def test_nothing_of_a_detail_can_be_read_in_the_index(made: JournalFolder) -> None:
    with closing(made.database.connect()) as connection:
        rows = connection.execute("SELECT typeof(term), max(length(entries)) FROM index_terms GROUP BY 1").fetchall()
    connection.close()
    assert rows == [("integer", 512)], "hashes of 64 bits under a key, and places"


def test_the_log_goes_on_and_holds_without_its_index(bus: JournalFolder) -> None:
    journal = bus.open(clock())
    change(bus, "DROP TABLE index_terms")
    for future in [journal.note(an_entry()) for _ in range(PIECE)]:
        future.result(60)
    journal.close()
    assert verify(bus.readable(), bus.anchors).ok
