"""The journal folder that most tests here start from; what the journal promises, it promises on both engines."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.log.buses import JournalFolder

ON_BOTH = ("test_journal", "test_crashes", "test_two_processes", "test_registry", "test_attestations", "test_log_index")


@pytest.fixture
def bus(request: pytest.FixtureRequest, tmp_path: Path) -> JournalFolder:
    """A folder with keys and no journal yet."""
    if getattr(request, "param", "sqlite") == "postgresql":
        (tmp_path / "database.url").write_text(request.getfixturevalue("postgres").database())
    return JournalFolder(tmp_path)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests of the modules that are the journal's contract run on both engines; those of a file's own ways on one."""
    module = metafunc.module.__name__.rpartition(".")[2]
    if "bus" in metafunc.fixturenames and module in ON_BOTH:
        own = metafunc.definition.get_closest_marker("of_a_file") is not None
        metafunc.parametrize("bus", ["sqlite"] if own else ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def bus_on(tmp_path: Path) -> Callable[[str], JournalFolder]:
    """Makes a folder with keys whose evidence lies in the bucket of a URL."""

    def made(url: str) -> JournalFolder:
        (tmp_path / "evidence.url").write_text(url)
        return JournalFolder(tmp_path)

    return made
