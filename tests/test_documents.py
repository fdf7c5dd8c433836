"""docs/profile.md and docs/threats.md promise by naming tests: every row names some, and each of them is there."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
COLUMNS = {
    "profile.md": ("clause", "test"),
    "threats.md": ("threat", "control", "shipped default", "standard's clause", "test"),
}
NAMED = re.compile(r"`([^`]+)`")
TEST = re.compile(r"tests/[\w/]+\.py::test_[\w*]+(\[[^\]]+\])?")


class Row(NamedTuple):
    """A row of a table: where it stands, and its cells."""

    place: str
    cells: tuple[str, ...]

    @property
    def tests(self) -> list[str]:
        """What its last cell names: tests by node id, `*` for any text."""
        return NAMED.findall(self.cells[-1])


def rows(name: str, text: str) -> Iterator[Row]:
    """The rows of a document's tables. Fails where a table has other columns than the document's."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if not line.startswith("|"):
            continue
        cells = tuple(cell.strip() for cell in line.strip("|").split("|"))
        heads = number == 0 or not lines[number - 1].startswith("|")
        if heads:
            assert cells == COLUMNS[name], f"{name}:{number + 1} columns"
        elif not set("".join(cells)) <= set("-: "):
            yield Row(f"{name}:{number + 1}", cells)


def spoilt(row: Row, columns: int, known: frozenset[str]) -> list[str]:
    """What is wrong with a row."""
    if len(row.cells) != columns or not all(row.cells):
        return [f"{row.place} has not {columns} cells with something in each"]
    if not row.tests:
        return [f"{row.place} names no test"]
    return [f"{row.place} {test}" for test in row.tests if not (TEST.fullmatch(test) and found(test, known))]


def found(named: str, known: frozenset[str]) -> bool:
    """Whether a test of that name is there; a name without brackets means all its cases."""
    ends = "" if "[" in named else r"(\[.*\])?"
    pattern = re.compile(".*".join(map(re.escape, named.split("*"))) + ends)
    return any(pattern.fullmatch(test) for test in known)


@pytest.fixture(scope="module")
def known(request: pytest.FixtureRequest) -> frozenset[str]:
    """All tests that the documents may name: as pytest has collected them, or would have."""
    collected = frozenset(item.nodeid for item in request.session.items)
    named = {test for name in COLUMNS for row in rows(name, read(name)) for test in row.tests}
    files = {test.partition("::")[0] for test in named if not found(test, collected)}
    there = sorted(file for file in files if (ROOT / file).is_file())
    if not there:
        return collected
    command = [sys.executable, "-m", "pytest", "--collect-only", "-n", "0", *there]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    return collected | frozenset(listed.stdout.splitlines())


def read(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", COLUMNS)
def test_every_row_names_tests_and_each_is_there(name: str, known: frozenset[str]) -> None:
    listed = list(rows(name, read(name)))
    assert len(listed) >= 20, f"{name} has no rows to speak of"
    assert [problem for row in listed for problem in spoilt(row, len(COLUMNS[name]), known)] == []


@pytest.mark.parametrize(
    "cell",
    [
        "",
        "none yet",
        "tests/test_documents.py::test_a_row_is_seen_through",
        "`tests/test_documents.py::test_that_nobody_wrote`",
        "`tests/test_documents.py`",
        "`test_a_row_is_seen_through`",
        "`tests/test_documents.py::test_a_row_is_seen_through[no such case]`",
        "`tests/test_documents.py::test_every_row_*[pro*]`, `tests/test_documents.py::test_every_row_*[no*]`",
    ],
)
def test_a_row_is_seen_through(cell: str, request: pytest.FixtureRequest) -> None:
    here = frozenset(item.nodeid for item in request.session.items) | {
        "tests/test_documents.py::test_every_row_names_tests_and_each_is_there[profile.md]"
    }
    table = f"| clause | test |\n|---|---|\n| what is promised | {cell} |\n"
    (row,) = rows("profile.md", table)
    assert spoilt(row, 2, here)
    good = "`tests/test_documents.py::test_every_row_*[profile*]`"
    (row,) = rows("profile.md", table.replace(cell or "promised | ", good if cell else f"promised | {good} "))
    assert spoilt(row, 2, here) == []
