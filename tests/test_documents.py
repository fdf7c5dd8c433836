"""docs/profile.md, threats.md and assessment.md promise by naming tests: each test that a row names is there.

assessment.md names settings, commands and files besides; they are there too, and what it says is absent names no test.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from exchange.cli.main import parser_of
from exchange.doctor.examine import CHECKS
from exchange.settings import Settings
from mappings.feed import FeedFile

ROOT = Path(__file__).parents[1]
COLUMNS = {
    "profile.md": ("clause", "test"),
    "threats.md": ("threat", "control", "shipped default", "standard's clause", "test"),
}
NAMED = re.compile(r"`([^`]+)`")
TEST = re.compile(r"tests/[\w/]+\.py::test_[\w*]+(\[[^\]]+\])?")


ASSESSED = (
    "要求 requirement",
    "状态 standing",
    "本系统的控制 control",
    "设置 setting",
    "测试 test",
    "余下的 what is left",
)
NOTHING = "—"
# 状态: whether the row names tests, and whether it says what is left (None: as it likes)
STANDINGS: dict[str, tuple[bool, bool | None]] = {
    "有": (True, None),
    "部分": (True, True),
    "运行单位": (False, True),
    "没有": (False, True),
}


class Row(NamedTuple):
    """A row of a table: where it stands, and its cells."""

    place: str
    cells: tuple[str, ...]

    @property
    def tests(self) -> list[str]:
        """What its last cell names: tests by node id, `*` for any text."""
        return NAMED.findall(self.cells[-1])


def rows(name: str, text: str, columns: tuple[str, ...] = ()) -> Iterator[Row]:
    """The rows of a document's tables. Fails where a table has other columns than the document's."""
    columns = columns or COLUMNS[name]
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if not line.startswith("|"):
            continue
        cells = tuple(cell.strip() for cell in line.strip("|").split("|"))
        heads = number == 0 or not lines[number - 1].startswith("|")
        if heads:
            assert cells == columns, f"{name}:{number + 1} columns"
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
    named |= {test for row in assessed() for test in NAMED.findall(row.cells[4])}
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


# For the assessor ----------------------------------------------------------------------------------------------------


def assessed(text: str = "") -> list[Row]:
    """The rows of assessment.md, without the table that says what the standings mean."""
    text = text or read("assessment.md")
    return list(rows("assessment.md", text.partition("\n## ")[2], ASSESSED))


def misjudged(row: Row, known: frozenset[str]) -> list[str]:
    """What is wrong with a row of assessment.md."""
    if len(row.cells) != len(ASSESSED) or not all(row.cells):
        return [f"{row.place} has not {len(ASSESSED)} cells with something in each"]
    _, standing, control, setting, tests, left = row.cells
    if standing not in STANDINGS:
        return [f"{row.place} {standing} is no standing"]
    proven, owing = STANDINGS[standing]
    named = NAMED.findall(tests)
    problems = [f"{row.place} {test}" for test in named if not (TEST.fullmatch(test) and found(test, known))]
    if proven != bool(named) or proven != (control != NOTHING) or (not proven and tests + setting != NOTHING * 2):
        problems.append(f"{row.place} {standing} with control {control}, setting {setting}, tests {tests}")
    if owing and left == NOTHING:
        problems.append(f"{row.place} {standing} does not say what is left")
    return problems + [
        f"{row.place} {one}" for cell in (control, setting, left) for one in NAMED.findall(cell) if not there(one)
    ]


def there(named: str) -> bool:
    """Whether a setting, a key of a feed's file, a check, a command or a file of that name is there."""
    if match := re.fullmatch(r"\[+(\w+)\]+ (\w+)", named):
        return (match[1], match[2]) in settings_keys()
    kind, _, name = named.partition(" ")
    if kind == "feed":
        return name in FeedFile.__struct_fields__
    if kind == "doctor":
        return name in CHECKS
    if kind == "yongtong":
        return name in commands(parser_of())
    return (ROOT / named).exists()


def settings_keys() -> set[tuple[str, str]]:
    """(section, key) of every setting there is."""
    sections = msgspec.inspect.type_info(Settings)
    assert isinstance(sections, msgspec.inspect.StructType)
    keys = set()
    for field in sections.fields:
        section = field.type.item_type if isinstance(field.type, msgspec.inspect.ListType) else field.type
        if isinstance(section, msgspec.inspect.StructType):
            keys |= {(field.name, key.name) for key in section.fields}
    return keys


def commands(parser: argparse.ArgumentParser, above: str = "") -> set[str]:
    """Every command there is, groups as well."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    named = {f"{above}{name}": below for group in groups for name, below in group.choices.items()}
    return set(named).union(*(commands(below, f"{name} ") for name, below in named.items()))


def test_every_requirement_names_what_is_there_or_says_whose_it_is(known: frozenset[str]) -> None:
    listed = assessed()
    assert len(listed) >= 60
    assert [problem for row in listed for problem in misjudged(row, known)] == []
    for point in (*(f"8.1.3.{n}" for n in range(1, 7)), *(f"8.1.4.{n}" for n in range(1, 12)), "8.1.10"):
        assert any(row.cells[0].startswith(f"{point} ") for row in listed), point


@pytest.mark.parametrize(
    "standing, control, setting, tests, left",
    [
        ("有", "all of it", "—", "—", "—"),
        ("有", "all of it", "—", "`tests/test_documents.py::test_that_nobody_wrote`", "—"),
        ("有", "all of it", "`[suites] rot13`", "`tests/test_documents.py::test_a_row_is_seen_through`", "—"),
        ("有", "all of it", "`feed colour`", "`tests/test_documents.py::test_a_row_is_seen_through`", "—"),
        ("有", "`yongtong comply`", "—", "`tests/test_documents.py::test_a_row_is_seen_through`", "—"),
        ("有", "`docs/certificate.pdf`", "—", "`tests/test_documents.py::test_a_row_is_seen_through`", "—"),
        ("部分", "some of it", "—", "`tests/test_documents.py::test_a_row_is_seen_through`", "—"),
        ("没有", "something after all", "—", "—", "all"),
        ("没有", "—", "—", "`tests/test_documents.py::test_a_row_is_seen_through`", "all"),
        ("运行单位", "—", "—", "—", "—"),
        ("符合", "all of it", "—", "`tests/test_documents.py::test_a_row_is_seen_through`", "—"),
    ],
)
def test_a_row_that_claims_too_much_is_seen_through(
    standing: str, control: str, setting: str, tests: str, left: str, request: pytest.FixtureRequest
) -> None:
    here = frozenset(item.nodeid for item in request.session.items) | {
        "tests/test_documents.py::test_a_row_is_seen_through[x]"
    }
    table = f"# t\n\n## s\n\n| {' | '.join(ASSESSED)} |\n|---|---|---|---|---|---|\n"
    (row,) = assessed(f"{table}| 8.1 | {standing} | {control} | {setting} | {tests} | {left} |\n")
    assert misjudged(row, here)
    (row,) = assessed(
        f"{table}| 8.1 | 有 | `yongtong audit verify` | `[suites] signing`, `[[authority]] crl`, `feed level` | "
        "`tests/test_documents.py::test_a_row_is_seen_through` | — |\n"
    )
    assert misjudged(row, here) == []
