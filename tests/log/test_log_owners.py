"""A bureau's own entries are found in the log itself: none is hidden by its index, and one reading does for all."""

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.entry import Entry
from exchange.journal import Journal
from exchange.log_index import PIECE
from exchange.log_owners import AT_ONCE, Owners
from security.errors import AuditBroken
from tests.log.buses import JournalFolder

ENTRIES = PIECE + AT_ONCE + 100
CERTIFICATES = {"water": ["1" * 64, "2" * 64], "power": ["3" * 64]}
SENDERS = ("water", "power", "", "")


def entry(number: int) -> Entry:
    """Every combination of sender, key and connection, in turn."""
    by, rest = SENDERS[number % 4], number // 4
    return Entry(
        type="read",
        outcome="answered",
        sender=by,
        signer=("", "2" * 64, "3" * 64)[rest % 3],
        carrier=("1" * 64, "3" * 64, "")[rest // 3 % 3],
    )


def is_own(number: int, bureau: str) -> bool:
    said, certificates = entry(number), CERTIFICATES[bureau]
    return said.sender == bureau or said.signer in certificates or (said.sender == "" and said.carrier in certificates)


@pytest.fixture(scope="module")
def bus(tmp_path_factory: pytest.TempPathFactory) -> JournalFolder:
    bus = JournalFolder(tmp_path_factory.mktemp("owners"))
    journal = bus.open()
    for future in [journal.note(entry(number)) for number in range(ENTRIES)]:
        future.result(60)
    journal.close()
    return bus


@pytest.fixture(scope="module")
def journal(bus: JournalFolder) -> Iterator[Journal]:
    opened = bus.open()
    yield opened
    opened.close()


def counted(journal: Journal) -> tuple[Callable[..., list[Any]], list[int]]:
    """Asking the file, and how many rows each question gave."""
    given: list[int] = []

    def read(query: str, *values: object) -> list[Any]:
        rows = journal._read(query, *values)
        given.append(len(rows))
        return rows

    return read, given


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(sorted(CERTIFICATES)),
    st.lists(st.integers(0, ENTRIES + 5), max_size=4),
    st.integers(-1, ENTRIES),
    st.integers(1, 300),
    st.integers(0, ENTRIES),
)
def test_a_page_and_the_count_are_those_of_a_plain_reading(
    journal: Journal, bureau: str, also: list[int], after: int, limit: int, size: int
) -> None:
    every = [number for number in range(size) if is_own(number, bureau) or number in also]
    page, count = journal.entries_of(bureau, CERTIFICATES[bureau], also, after, limit, size)
    assert [one.index for one in page] == [number for number in every if number > after][:limit]
    assert count == len(every)


def test_the_log_is_read_once_for_all_bureaus_and_then_only_what_is_new(journal: Journal) -> None:
    read, rows = counted(journal)
    owners = Owners(read)
    for bureau, certificates in CERTIFICATES.items():
        owners.page(bureau, certificates, [], -1, 10, ENTRIES - 3)
    assert (sum(rows), max(rows)) == (ENTRIES - 3, AT_ONCE)
    owners.page("water", CERTIFICATES["water"], [], -1, 10, ENTRIES)
    assert sum(rows) == ENTRIES


def test_a_row_taken_out_of_the_index_does_not_hide_what_a_stolen_key_signed(bus: JournalFolder) -> None:
    stolen = CERTIFICATES["water"]
    with sqlite3.connect(bus.folder / "journal.sqlite") as connection:
        connection.execute("DELETE FROM index_terms")
    connection.close()
    journal = bus.open()
    assert journal.indexed() == (1, 1)
    assert not journal.search(bureau="water", certificates=stolen, before=PIECE)
    page, count = journal.entries_of("water", stolen, [], -1, 10, PIECE)
    assert [one.index for one in page] == [number for number in range(PIECE) if is_own(number, "water")][:10]
    assert count == sum(is_own(number, "water") for number in range(PIECE))
    journal.close()


def test_where_entries_are_missing_nothing_is_said_to_be_all(journal: Journal) -> None:
    read, _ = counted(journal)
    owners = Owners(lambda query, *values: read(query, *values)[1:])
    with pytest.raises(AuditBroken, match="missing"):
        owners.page("water", [], [], -1, 10, ENTRIES)
