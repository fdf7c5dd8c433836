"""A new store for each test; what the store promises, it promises on both engines."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager

import psycopg
import pytest

from exchange.store.embedded import Embedded
from exchange.store.served import Served
from exchange.store.store import Store
from exchange.store.tables import metadata
from tests.postgres import PostgresServer

ON_BOTH = (
    *("test_store", "test_ownership", "test_claims", "test_joining", "test_rights"),
    *("test_layers", "test_sheets", "test_standing"),
)
NewStore = Callable[[], Store]


@pytest.fixture(scope="session")
def empty_databases() -> list[str]:
    """URLs of databases with a store that holds nothing: emptying one is sooner done than making one."""
    return []


@contextmanager
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    """A store on a server, empty, for as long as a test needs it."""
    server: PostgresServer = request.getfixturevalue("postgres")
    empty: list[str] = request.getfixturevalue("empty_databases")
    url = empty.pop() if empty else server.database()
    yield Served(url)
    with psycopg.connect(url, options="-c search_path=store") as connection:
        connection.execute(f"TRUNCATE {', '.join(metadata.tables)} RESTART IDENTITY")  # type: ignore[arg-type]
        connection.execute("INSERT INTO change_counter VALUES (1, 0)")
    empty.append(url)


@pytest.fixture
def new_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewStore]:
    """Makes stores, each new and empty, on the engine that the test is for."""
    with ExitStack() as stack:

        def new() -> Store:
            if getattr(request, "param", "sqlite") == "sqlite":
                return stack.enter_context(closing(Store(Embedded(tmp_path_factory.mktemp("store")))))
            return stack.enter_context(closing(Store(stack.enter_context(served(request)))))

        yield new


@pytest.fixture
def store(new_store: NewStore) -> Store:
    """A new store."""
    return new_store()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests of the modules that are the store's contract run on both engines; those of a file's own ways on one."""
    module = metafunc.module.__name__.rpartition(".")[2]
    if "new_store" in metafunc.fixturenames and module in ON_BOTH:
        own = metafunc.definition.get_closest_marker("of_a_file") is not None
        metafunc.parametrize("new_store", ["sqlite"] if own else ["sqlite", "postgresql"], indirect=True)
    elif module == "test_workers":
        metafunc.parametrize("new_store", ["postgresql"], indirect=True)
