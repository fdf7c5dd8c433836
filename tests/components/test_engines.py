"""What the two engines of the store owe each other: the same semantics, and each the other's copy."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exchange.database import Failed
from exchange.postgres import PostgresSchema
from exchange.rights import in_ring, is_ring, ring_text
from exchange.store.embedded import Embedded
from exchange.store.served import Served
from exchange.store.store import Store
from exchange.store.tables import metadata
from security.message import Area
from tests.components.builders import CENSUS, DAY, MONDAY, a_delivery, a_row, deliver, everything
from tests.components.conftest import NewStore
from tests.conftest import ROOT
from tests.postgres import PostgresServer

Place = tuple[float, float]
GONE: dict[str, Any] = {"removed": True, "delivery": 0}
TENTHS = st.tuples(st.integers(0, 9), st.integers(0, 9)).map(lambda at: (121.5 + at[0] / 10, 29.8 + at[1] / 10))
ANYWHERE = st.tuples(st.floats(121.4, 122.5), st.floats(29.7, 30.8))


@pytest.fixture(scope="module")
def connection(postgres: PostgresServer) -> Iterator[Any]:
    served = Served(postgres.database())
    served.database.prepare()
    with closing(served.connect()) as connected:
        yield connected


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ring=st.lists(st.one_of(TENTHS, ANYWHERE), min_size=3, max_size=7),
    others=st.lists(TENTHS | ANYWHERE),
    part=st.floats(0, 1),
)
def test_a_place_on_a_server_is_within_a_ring_where_the_geometry_library_says_so(
    connection: Any, ring: list[Place], others: list[Place], part: float
) -> None:
    area = Area(polygon=tuple(ring))
    if not is_ring(area):
        return  # `view_values` asks for no such ring
    text = ring_text(area)
    sides = zip(ring, ring[1:] + ring[:1], strict=True)
    upon = [(x1 + part * (x2 - x1), y1 + part * (y2 - y1)) for (x1, y1), (x2, y2) in sides]
    middles = [((x1 + x2) / 2, (y1 + y2) / 2) for (x1, y1), (x2, y2) in zip(ring, ring[2:], strict=False)]
    for x, y in (*ring, *upon, *middles, *others):
        assert connection.execute("SELECT in_ring(?, ?, ?)", (text, x, y)).fetchone() == (in_ring(text, x, y),), (x, y)


def test_no_place_and_no_ring_hold_nothing(connection: Any) -> None:
    square = ring_text(Area(polygon=((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))))
    assert connection.execute("SELECT in_ring(?, NULL, 0.5)", (square,)).fetchone() == (False,)
    assert connection.execute("SELECT in_ring('[]', 0.5, 0.5)").fetchone() == (False,)


@pytest.mark.parametrize("new_store", ["postgresql"], indirect=True)
def test_a_copy_goes_from_server_to_file_and_back_and_the_store_goes_on(new_store: NewStore, tmp_path: Path) -> None:
    store = new_store()
    deliver(store, [a_row("K", place="样城路", height_m=3.25), a_row("L", 1)], a_delivery("1"))
    deliver(store, [a_row("C", x=121.541003)], a_delivery("1", sender="u"), feed=CENSUS)
    deliver(store, [a_row("K", state="破损"), {"source_key": "L", **GONE}], a_delivery("2", MONDAY + DAY))
    file = store.database.export(tmp_path)
    with closing(Store(Embedded(tmp_path))) as copied:
        assert everything(copied) == everything(store)
        deliver(copied, [a_row("M", 2)], a_delivery("3", MONDAY + 2 * DAY))
    back = new_store()
    back.database.load(file)
    for one in (store, back):
        if one is store:
            deliver(one, [a_row("M", 2)], a_delivery("3", MONDAY + 2 * DAY))
        deliver(one, [a_row("K", state="完好"), a_row("N", 3)], a_delivery("4", MONDAY + 3 * DAY))
    assert everything(back) == everything(store), "numbers go on where they were"


def test_the_roles_that_the_page_makes_suffice_and_neither_reads_the_others_schema(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    url = postgres.database()
    made = (ROOT / "docs/postgres.md").read_text().partition("```sql\n")[2].partition("```")[0]
    with psycopg.connect(url, autocommit=True) as administrator:
        administrator.execute(made.encode())
    by_role = {role: url.replace("yongtong@", f"yongtong_{role}@") for role in ("journal", "store")}
    PostgresSchema(by_role["journal"], "journal").prepare()
    with closing(Store(Served(by_role["store"]))) as store:
        deliver(store, [a_row("K")], a_delivery("1"))
        assert store.recall("water", "1", MONDAY + DAY) == 1
        store.scrub()
        assert store.database.export(tmp_path).exists()
        for forbidden in ("SELECT * FROM journal.entries", "CREATE SCHEMA more"):
            with pytest.raises(Failed, match="permission denied"):
                store.connection().execute(forbidden)


@pytest.mark.parametrize("new_store", ["postgresql"], indirect=True)
def test_a_server_plans_by_what_a_large_batch_left_and_by_what_is_staged(new_store: NewStore) -> None:
    """Else it reads a million rows to find one, until its own rhythm of looking comes round."""
    store, large = new_store(), 12_000

    def thought(table: str) -> float:
        return float(
            store.connection().execute(f"SELECT reltuples FROM pg_class WHERE relname = '{table}'").fetchone()[0]
        )

    deliver(store, [a_row(f"K{n}", n % 150, y=29.861 + n // 150 * 2e-4) for n in range(large)], a_delivery("1"))
    assert (thought("claims"), thought("components")) == (large, large)
    deliver(store, [a_row("K7", 7, y=29.861, state="破损")], a_delivery("2", MONDAY + DAY))
    assert thought("touched") == 1
    assert store.connection().execute("SHOW jit").fetchone() == ("off",)


@pytest.mark.parametrize("new_store", ["postgresql"], indirect=True)
def test_the_tables_on_a_server_are_those_declared_and_their_texts_in_order_of_octets(new_store: NewStore) -> None:
    engine = new_store().engine
    assert isinstance(engine, Served)
    with psycopg.connect(engine.url) as connection:
        query = (
            "SELECT table_name, column_name, data_type, is_nullable = 'YES', collation_name "
            "FROM information_schema.columns WHERE table_schema = 'store' AND table_name <> 'alembic_version'"
        )
        there = {(table, column): said for table, column, *said in connection.execute(query)}
    kinds = {"BIGINT": "bigint", "INTEGER": "integer", "TEXT": "text", "DOUBLE": "double precision", "BLOB": "bytea"}
    declared = {
        (table.name, column.name): [
            kinds[str(column.type)],
            column.nullable,
            "C" if str(column.type) == "TEXT" else None,
        ]
        for table in metadata.tables.values()
        for column in table.columns
    }
    assert there == declared
