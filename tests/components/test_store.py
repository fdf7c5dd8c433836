"""One transaction a batch: what it writes, that it happens once, and that numbers are never used again."""

import random
import sqlite3
import threading
from hashlib import sha256
from typing import Any

import msgspec
import polars as pl
import pytest
import sqlalchemy as sa

from exchange.store import embedded, identifiers, readings
from exchange.store.embedded import Embedded
from exchange.store.store import Store
from exchange.store.tables import metadata
from tests.components.builders import (
    CENSUS,
    DAY,
    MONDAY,
    WATER,
    a_batch,
    a_delivery,
    a_row,
    deliver,
    everything,
    outcomes,
)
from tests.components.conftest import NewStore

GONE = {"removed": True, "delivery": 0}


def frame_of(store: Store, table: str) -> pl.DataFrame:
    columns = [column.name for column in metadata.tables[table].columns]
    rows = rows_of(store, f"SELECT {', '.join(columns)} FROM {table} ORDER BY 1")
    return pl.DataFrame(rows, columns, orient="row", infer_schema_length=None)


def rows_of(store: Store, question: str) -> list[tuple[Any, ...]]:
    return store.connection().execute(question).fetchall()


@pytest.mark.of_a_file
def test_the_migrations_make_the_tables_that_are_declared(store: Store) -> None:
    assert isinstance(store.engine, Embedded)
    made = sa.MetaData()
    engine = sa.create_engine(f"sqlite:///{store.engine.database.path}")
    made.reflect(engine)
    assert set(made.tables) - {"alembic_version"} == set(metadata.tables)
    for name, table in metadata.tables.items():
        there = {column.name: (str(column.type), column.nullable) for column in made.tables[name].columns}
        declared = {
            column.name: (column.type.compile(dialect=engine.dialect), column.nullable) for column in table.columns
        }
        assert there == declared, name
        assert {(index.name, index.unique) for index in made.tables[name].indexes} == {
            (index.name, index.unique) for index in table.indexes
        }
    engine.dispose()


def test_a_new_component_costs_two_rows(store: Store) -> None:
    deliver(store, [a_row("K"), a_row("L", 1)], a_delivery("1"))
    counts = [
        rows_of(store, f"SELECT count(*) FROM {table}")[0][0] for table in ("claims", "components", "claims_past")
    ]
    assert counts == [2, 2, 0]


def test_what_the_schema_does_not_ask_for_is_kept_with_the_claim(store: Store) -> None:
    deliver(store, [a_row("K", height_m=3.25, place="样城路", note=None), a_row("L", 1)], a_delivery("1"))
    kept = [msgspec.json.decode(row[0]) for row in rows_of(store, "SELECT more FROM claims ORDER BY source_key")]
    assert kept == [{"height_m": 3.25, "place": "样城路"}, {"height_m": None, "place": None}]


def test_a_commit_called_again_writes_nothing_and_says_the_same(store: Store) -> None:
    batch = a_batch(
        store,
        WATER,
        [a_row("K"), a_row("L", class_code="9999"), a_row("K", delivery=1)],
        [a_delivery("1"), a_delivery("2")],
    )
    first = store.commit(batch)
    before = everything(store)
    again = store.commit(batch)
    assert again.repeated
    assert not first.repeated
    assert again.outcomes.equals(first.outcomes)
    assert again.deliveries == first.deliveries
    ((kept,),) = rows_of(store, "SELECT outcomes FROM commits")
    assert {one.outcomes_file for one in again.deliveries} == {sha256(kept).hexdigest()}
    assert everything(store) == before
    # After a crash the same deliveries are compared with what the crash left behind: still the first outcome.
    once_more = deliver(store, [a_row("K"), a_row("L", class_code="9999")], a_delivery("1"))
    assert outcomes(once_more) == ["new", "rejected"]


def test_a_batch_that_is_stored_in_part_is_not_guessed_at(store: Store) -> None:
    deliver(store, [a_row("K")], a_delivery("1"))
    with pytest.raises(ValueError, match="1 of 2"):
        deliver(store, [a_row("K"), a_row("L", delivery=1)], a_delivery("1"), a_delivery("2"))
    assert set(store.stored([("water", "1"), ("water", "2"), ("u", "1")])) == {("water", "1")}
    assert store.outcomes("water", "2") is None
    outcome = store.outcomes("water", "1")
    assert outcome is not None
    assert outcome["source_key"].to_list() == ["K"]


def test_a_commit_that_fails_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = a_batch(store, WATER, [a_row("K")], [a_delivery("1")])
    before = everything(store)
    with pytest.raises(ValueError, match="shorter"):
        store.commit(msgspec.structs.replace(batch, roots=()))
    assert everything(store) == before
    assert outcomes(store.commit(batch)) == ["new"]


@pytest.mark.of_a_file
def test_many_rows_in_one_statement_leave_the_same_store(
    store: Store, new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [a_row(f"K{number:03}", number % 80, place=f"{number}号", height_m=number / 4) for number in range(123)]
    deliver(store, rows, a_delivery("1"))
    monkeypatch.setattr(embedded, "ROWS_ALONE", 0)
    other = new_store()
    deliver(other, rows, a_delivery("1"))
    for table in ("claims", "components", "commits", "deliveries", "serials"):
        question = f"SELECT * FROM {table} ORDER BY 1, 2"
        assert rows_of(other, question) == rows_of(store, question), table


@pytest.mark.of_a_file
def test_a_statement_of_many_rows_that_fails_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "ROWS_ALONE", 0)
    batch = a_batch(store, WATER, [a_row(f"K{number}", number) for number in range(120)], [a_delivery("1")])
    store.connection().execute(
        "CREATE TRIGGER spoil BEFORE INSERT ON components WHEN NEW.id = 70 BEGIN SELECT RAISE(ABORT, 'spoilt'); END"
    )
    with pytest.raises(sqlite3.IntegrityError, match="spoilt"):
        store.commit(batch)
    assert rows_of(store, "SELECT (SELECT count(*) FROM claims), (SELECT count(*) FROM components)") == [(0, 0)]


def test_change_numbers_follow_the_order_of_commits_without_a_hole(store: Store) -> None:
    question = "SELECT id, change_number, change_kind FROM components ORDER BY id"
    deliver(store, [a_row("K"), a_row("L", 1)], a_delivery("1"))
    assert rows_of(store, question) == [(1, 1, "new"), (2, 2, "new")]
    deliver(store, [a_row("K"), a_row("L", 1)], a_delivery("2", MONDAY + DAY))
    assert rows_of(store, question) == [(1, 1, "new"), (2, 2, "new")]
    deliver(store, [{"source_key": "L", **GONE}, a_row("K", state="破损")], a_delivery("3", MONDAY + 2 * DAY))
    assert rows_of(store, question) == [(1, 3, "changed"), (2, 4, "orphaned")]
    deliver(store, [a_row("C", 1)], a_delivery("4", sender="u"), feed=CENSUS)
    assert rows_of(store, question)[1] == (2, 5, "changed")


def test_history_is_written_when_something_changes_and_only_then(store: Store) -> None:
    for number, state in enumerate(["完好", "完好", "破损", "破损", "完好"]):
        deliver(store, [a_row("K", state=state)], a_delivery(str(number), MONDAY + number * DAY))
    assert rows_of(store, "SELECT state FROM claims_past ORDER BY id") == [("完好",), ("破损",)]
    spans = rows_of(
        store,
        "SELECT valid_from_us, valid_to_us FROM claims_past UNION ALL SELECT valid_from_us, valid_to_us FROM claims",
    )
    assert spans[0][1] == spans[1][0]
    assert spans[1][1] == spans[2][0]
    assert spans[2][1] is None


def test_both_times_are_kept(store: Store) -> None:
    # Valid time: true in the street from Monday. Recorded time: known to us since Wednesday.
    late = a_delivery("1", MONDAY, received_at=MONDAY + 2 * DAY)
    deliver(store, [a_row("K")], late)
    deliver(store, [a_row("K", state="破损")], a_delivery("2", MONDAY + DAY, received_at=MONDAY + 3 * DAY))
    question = (
        "SELECT (p.valid_from_us - {0}) / 86400000000, (p.valid_to_us - {0}) / 86400000000, "
        "(t.recorded_at_us - {0}) / 86400000000, (e.recorded_at_us - {0}) / 86400000000 FROM claims_past p "
        "JOIN deliveries d ON d.id = p.delivery_id JOIN commits t ON t.id = d.commit_id "
        "JOIN deliveries c ON c.id = p.closed_by JOIN commits e ON e.id = c.commit_id"
    ).format(int(MONDAY.timestamp() * 1_000_000))
    assert rows_of(store, question) == [(0, 1, 2, 3)]


def test_identifiers_are_division_class_and_a_serial_of_their_own(store: Store) -> None:
    rows = [a_row("A"), a_row("B", 1), a_row("C", x=121.555), a_row("D", 3, class_code="0102")]
    deliver(store, rows, a_delivery("1"))
    assert [row[0] for row in rows_of(store, "SELECT identifier FROM components ORDER BY id")] == [
        "3302030101000001",
        "3302030101000002",
        "3302050101000001",
        "3302030102000001",
    ]


def test_no_identifier_and_no_key_is_ever_issued_twice(store: Store) -> None:
    chance, issued = random.Random(7), set[str]()
    for number in range(12):
        keys = chance.sample(range(40), 12)
        rows: list[dict[str, Any]] = [
            {"source_key": f"K{key}", **GONE} if chance.random() < 0.4 else a_row(f"K{key}", key) for key in keys
        ]
        deliver(store, rows, a_delivery(str(number), MONDAY + number * DAY))
        now = [row[0] for row in rows_of(store, "SELECT identifier FROM components")]
        assert issued <= set(now)
        assert len(now) == len(set(now))
        issued = set(now)
    assert rows_of(store, "SELECT last FROM serials") == [(len(issued),)]


def test_a_spent_range_leaves_the_identifier_pending_and_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identifiers, "LAST_SERIAL", 2)
    stored = deliver(store, [a_row(key, n) for n, key in enumerate("ABC")], a_delivery("1"))
    assert stored.findings.select("record", "code", "severity").rows() == [(2, "identifier.range_spent", "warning")]
    assert rows_of(store, "SELECT identifier FROM components WHERE id = 3") == [(None,)]
    assert outcomes(stored) == ["new"] * 3
    deliver(store, [a_row("D", 9)], a_delivery("2"))
    assert rows_of(store, "SELECT last FROM serials") == [(2,)]


def test_rows_in_another_order_leave_the_same_store(store: Store, new_store: NewStore) -> None:
    first = [a_row(f"W{n}", n, class_code=("0101", "0102")[n % 2]) for n in range(12)]
    second = [a_row(f"C{n}", n, x=121.541 + n * 1e-4 + 2e-6, class_code=("0101", "0102")[n % 2]) for n in range(14)]
    other = new_store()
    for one, turned in ((store, False), (other, True)):
        for feed, rows, day in ((WATER, first, 0), (CENSUS, second, 0), (WATER, first[:9], 1)):
            said = [{**row, "state": "破损"} if day else row for row in rows]
            delivery = a_delivery(str(day), MONDAY + day * DAY, sender=feed.bureau)
            deliver(one, list(reversed(said)) if turned else said, delivery, feed=feed)
    for table in ("components", "claims", "claims_past", "roles", "serials"):
        leave_out = {"record"}
        here, there = (frame_of(one, table).drop(leave_out, strict=False) for one in (store, other))
        if table in ("claims", "roles"):
            here, there = (frame.drop("roles_id", "id", strict=False) for frame in (here, there))
        if table == "claims_past":
            here, there = (frame.drop("roles_id", "id").sort("claim_id") for frame in (here, there))
        assert here.equals(there), table


def test_the_leading_claim_is_the_one_known_longest_that_stands(store: Store) -> None:
    deliver(store, [a_row("W")], a_delivery("1"))
    deliver(store, [a_row("C", x=121.541003)], a_delivery("2", sender="u"), feed=CENSUS)
    question = "SELECT longitude_deg FROM components"
    assert rows_of(store, question) == [(121.541,)]
    deliver(store, [{"source_key": "W", **GONE}], a_delivery("3", MONDAY + DAY))
    assert rows_of(store, question) == [(121.541003,)]
    deliver(store, [{"source_key": "C", **GONE}], a_delivery("4", MONDAY + DAY, sender="u"), feed=CENSUS)
    assert rows_of(store, question + " WHERE change_kind = 'orphaned'") == [(121.541003,)]


def test_the_ledger_counts_disputes_orphans_and_gaps(store: Store) -> None:
    rows = [a_row("A"), a_row("B", 1), a_row("C", 2, maintainer_name=None), a_row("D", x=121.555)]
    deliver(store, rows, a_delivery("1"))
    deliver(store, [a_row("X", 1, owner_name="另一公司")], a_delivery("2", sender="u"), feed=CENSUS)
    deliver(store, [{"source_key": "D", **GONE}], a_delivery("3", MONDAY + DAY))
    ledger = store.ledger()
    assert (ledger.components, ledger.claims, ledger.deliveries) == (4, 4, 3)
    assert (ledger.disputes, ledger.orphans, ledger.gaps) == (1, 1, 1)
    assert ledger.by_class == {"0101": 4}
    assert ledger.by_division == {"330203": 3, "330205": 1}
    assert ledger.by_feed == {"urban-census": 1, "water-register": 3}


def test_an_empty_store_has_an_empty_ledger(store: Store) -> None:
    ledger = store.ledger()
    assert (ledger.components, ledger.claims, ledger.orphans, ledger.by_class) == (0, 0, 0, {})


def test_two_processes_may_open_the_store_and_threads_may_share_it(store: Store) -> None:
    deliver(store, [a_row("K")], a_delivery("1"))
    other, seen = Store(store.engine), list[int]()
    threads = [threading.Thread(target=lambda: seen.append(other.ledger().components)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert seen == [1] * 4


def test_a_batch_in_which_every_record_is_rejected_is_stored(store: Store) -> None:
    stored = deliver(store, [a_row("K", class_code="9999")], a_delivery("1"))
    assert outcomes(stored) == ["rejected"]
    assert store.ledger().deliveries == 1


def test_a_delivery_without_records_is_stored(store: Store) -> None:
    stored = deliver(store, [], a_delivery("1"))
    assert stored.deliveries[0].counts.records == 0
    assert store.ledger().deliveries == 1


@pytest.mark.of_a_file
def test_the_store_is_durable_and_in_wal(store: Store) -> None:
    assert rows_of(store, "PRAGMA journal_mode") == [("wal",)]
    assert rows_of(store, "PRAGMA synchronous") == [(2,)]
    assert sqlite3.sqlite_version_info >= (3, 39)  # IS DISTINCT FROM


@pytest.mark.of_a_file
def test_keys_that_readings_name_are_found_by_index_however_large_the_register(store: Store) -> None:
    plan = [row[3] for row in store.connection().execute(f"EXPLAIN QUERY PLAN {readings.KEYS}", ("f", "[]"))]
    assert any("claims_key (feed_id=? AND source_key=?)" in step for step in plan), plan
