"""The whole log read again: one octet wrong anywhere is noticed and named; a damaged file is said to be one."""

import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from exchange import audit
from exchange.audit import AuditVerdict, verify
from security import merkle
from tests.log.buses import JournalFolder, an_entry, finished

# Where octets of the log lie, and the entry that a row is about (SQL).
CELLS = [
    ("entries", "leaf", "idx"),
    ("details", "salt", "idx"),
    ("details", "detail", "idx"),
    ("nodes", "hash", "idx << level"),
    ("heads", "root", "size - 1"),
    ("heads", "note", "size - 1"),
    ("receipts", "octets", "(SELECT entry_index FROM inbox WHERE id = inbox_id)"),
    ("reports", "octets", "entry_index"),
    ("reports", "document", "entry_index"),
    ("inbox", "content_digest", "entry_index"),
    ("inbox", "message_id", "entry_index"),
    ("inbox", "sender", "entry_index"),
    ("inbox", "grant_id", "entry_index"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> JournalFolder:
    """A journal of 40-odd entries in many groups, closed."""
    bus = JournalFolder(tmp_path_factory.mktemp("whole"))
    journal = bus.open()
    for number in range(6):
        row = journal.accept(bus.acceptance(f"m-{number}")).result(10).inbox
        for future in [journal.note(an_entry()) for _ in range(number)]:
            future.result(10)
        finished(journal, row.id)
    journal.accept(bus.acceptance("m-last")).result(10)
    journal.close()
    with sqlite3.connect(bus.folder / "journal.sqlite") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return bus


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spoilt")


def copied(whole: JournalFolder, to: Path) -> Path:
    shutil.copyfile(whole.folder / "journal.sqlite", to / "journal.sqlite")
    return to / "journal.sqlite"


def after(path: Path, bus: JournalFolder, *statements: str) -> AuditVerdict:
    with sqlite3.connect(path) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()
    return verify(path, bus.anchors)


def named(verdict: AuditVerdict) -> set[int | None]:
    return {problem.entry for problem in verdict.problems}


def test_a_whole_log_is_found_whole(whole: JournalFolder) -> None:
    verdict = verify(whole.readable(), whole.anchors)
    assert verdict.problems == []
    assert verdict.ok
    assert (verdict.entries, verdict.signed, verdict.receipts, verdict.reports) == (28, 28, 7, 6)
    assert verdict.heads >= 13


@settings(max_examples=150)
@given(st.sampled_from(CELLS), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 255))
def test_any_stored_octet_changed_is_noticed_and_its_entry_named(
    whole: JournalFolder,
    scratch: Path,
    cell: tuple[str, str, str],
    row: int,
    place: int,
    mask: int,
) -> None:
    table, column, entry_of = cell
    path = copied(whole, scratch)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.text_factory = bytes
        rows = connection.execute(f"SELECT {column}, {entry_of}, typeof({column}) FROM {table} ORDER BY 2").fetchall()
        value, entry, kind = rows[row % len(rows)]
        octets = bytearray(value)
        octets[place % len(octets)] ^= mask
        assume(column != "message_id" or bytes(octets) not in {other for other, _, _ in rows})
        cast = "CAST(? AS TEXT)" if kind == b"text" else "?"
        changed = connection.execute(
            f"UPDATE {table} SET {column} = {cast} WHERE {entry_of} = ? AND {column} = {cast}",
            (bytes(octets), entry, bytes(value)),
        )
        assert changed.rowcount >= 1
    verdict = verify(path, whole.anchors)
    assert not verdict.ok
    assert entry in named(verdict), verdict.problems


@pytest.mark.parametrize(
    "statement, entry",
    [
        ("DELETE FROM entries WHERE idx = 7", 7),
        ("DELETE FROM details WHERE idx = 7", 7),
        ("UPDATE details SET salt = NULL WHERE idx = 7", 7),
        ("UPDATE entries SET idx = idx + (1 << 40) WHERE idx = 7", 7),
        ("UPDATE details SET idx = 900 WHERE idx = 7", 7),
        ("UPDATE nodes SET level = 40 WHERE level = 0 AND idx = 7", 7),
        ("DELETE FROM nodes WHERE level = 4 AND idx = 0", 0),
        ("INSERT INTO nodes VALUES (0, 28, zeroblob(32))", 27),
        ("INSERT INTO details VALUES (28, NULL, NULL)", 28),
        ("UPDATE heads SET origin = 'other.example/log' WHERE size = (SELECT max(size) FROM heads)", 27),
        ("DELETE FROM heads WHERE size = 28", 27),
        ("INSERT INTO heads VALUES ('yongtong.example/log', 29, zeroblob(32), NULL)", 28),
        ("UPDATE heads SET note = (SELECT note FROM heads WHERE size = 28) WHERE size = 1", 0),
        ("INSERT INTO entries SELECT 28, leaf FROM entries WHERE idx = 27", 28),
        ("UPDATE receipts SET octets = (SELECT octets FROM receipts WHERE inbox_id = 1) WHERE inbox_id = 2", 2),
        ("UPDATE inbox SET entry_index = 1 WHERE id = 1", 1),
        ("DELETE FROM inbox WHERE id = 1", 0),
        ("DELETE FROM receipts WHERE inbox_id = 1", 0),
        ("DELETE FROM reports WHERE inbox_id = 1", 1),
        ("UPDATE reports SET octets = NULL WHERE inbox_id = 1", 1),
    ],
)
def test_rows_lost_added_or_moved_are_named(whole: JournalFolder, tmp_path: Path, statement: str, entry: int) -> None:
    verdict = after(copied(whole, tmp_path), whole, statement)
    assert entry in named(verdict), verdict.problems


def test_octets_moved_from_one_node_to_the_next_are_named(whole: JournalFolder, tmp_path: Path) -> None:
    """One after the other the hashes are the same octets as before."""
    moved = "(SELECT substr(hash, 32) FROM nodes WHERE level = 0 AND idx = 6)"
    statements = (
        f"UPDATE nodes SET hash = CAST({moved} || hash AS BLOB) WHERE level = 0 AND idx = 7",
        "UPDATE nodes SET hash = substr(hash, 1, 31) WHERE level = 0 AND idx = 6",
    )
    assert {6, 7} <= named(after(copied(whole, tmp_path), whole, *statements))


def test_an_entry_rewritten_with_all_above_it_is_caught_by_the_signed_heads(
    whole: JournalFolder, tmp_path: Path
) -> None:
    path = copied(whole, tmp_path)
    with sqlite3.connect(path) as connection:
        leaves = [leaf for (leaf,) in connection.execute("SELECT leaf FROM entries ORDER BY idx")]
        leaves[7] = leaves[7].replace(b"case-system", b"case-sysTem")
        connection.execute("UPDATE entries SET leaf = ? WHERE idx = 7", (leaves[7],))
        connection.execute("DELETE FROM nodes")
        hashes = [merkle.leaf_hash(leaf) for leaf in leaves]
        connection.executemany("INSERT INTO nodes VALUES (?, ?, ?)", merkle.grow(0, [], hashes))
        sizes = [size for (size,) in connection.execute("SELECT size FROM heads")]
        for size in sizes:
            root = merkle.root_of(hashes[:size])
            connection.execute("UPDATE heads SET root = ? WHERE size = ?", (root, size))
    connection.close()
    verdict = verify(path, whole.anchors)
    assert min(entry for entry in named(verdict) if entry is not None) == min(s - 1 for s in sizes if s > 7)


def test_a_detail_that_somebody_erased_by_himself_is_named_and_the_leaf_still_stands(
    whole: JournalFolder, tmp_path: Path
) -> None:
    verdict = after(copied(whole, tmp_path), whole, "UPDATE details SET salt = NULL, detail = NULL WHERE idx = 4")
    assert (verdict.erased, named(verdict)) == (1, {4})


def test_unsigned_entries_are_said_and_are_no_fault(whole: JournalFolder, tmp_path: Path) -> None:
    verdict = after(copied(whole, tmp_path), whole, "UPDATE heads SET note = NULL WHERE size = 28")
    assert verdict.ok
    assert verdict.signed < verdict.entries == 28


def test_a_log_of_another_key_or_origin_is_not_ours(whole: JournalFolder, tmp_path: Path) -> None:
    other = JournalFolder(tmp_path).anchors
    assert not verify(whole.readable(), other).ok


@settings(max_examples=150)
@given(st.integers(0, 2**32))
def test_overwritten_pages_are_said_and_nothing_raises(whole: JournalFolder, scratch: Path, seed: int) -> None:
    chance = random.Random(seed)
    path = copied(whole, scratch)
    octets = bytearray(path.read_bytes())
    for _ in range(chance.randint(1, 3)):
        page = chance.randrange(len(octets) // 4096)
        octets[page * 4096 : page * 4096 + 4096] = chance.choice([bytes(4096), chance.randbytes(4096)])
    path.write_bytes(octets)
    verdict = verify(path, whole.anchors)
    assert verdict.ok or verdict.problems


@settings(max_examples=100)
@given(st.integers(0, 2**32))
def test_octets_changed_in_the_file_never_raise(whole: JournalFolder, scratch: Path, seed: int) -> None:
    chance = random.Random(seed)
    path = copied(whole, scratch)
    octets = bytearray(path.read_bytes())
    for _ in range(chance.randint(1, 20)):
        octets[chance.randrange(len(octets))] = chance.randrange(256)
    path.write_bytes(octets)
    verify(path, whole.anchors)


@pytest.mark.parametrize("keep", [0, 10, 100, 4096, 5000, 0.3, 0.5, 0.9])
def test_a_truncated_file_is_said_to_be_damaged(whole: JournalFolder, tmp_path: Path, keep: float) -> None:
    path = copied(whole, tmp_path)
    octets = path.read_bytes()
    path.write_bytes(octets[: int(keep if keep > 1 else keep * len(octets))])
    verdict = verify(path, whole.anchors)
    assert not verdict.ok
    assert any("file is damaged" in problem.what for problem in verdict.problems), verdict.problems


def test_what_is_no_database_is_said_so(whole: JournalFolder, tmp_path: Path) -> None:
    for make in (lambda path: path.write_text("no database"), lambda path: path.mkdir(), lambda path: None):
        path: Any = tmp_path / f"{id(make)}.sqlite"
        make(path)
        verdict = verify(path, whole.anchors)
        assert named(verdict) == {None}


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> JournalFolder:
    """A journal of 3,000 entries, closed."""
    bus = JournalFolder(tmp_path_factory.mktemp("long"))
    journal = bus.open()
    for future in [journal.note(an_entry()) for _ in range(3_000)]:
        future.result(30)
    journal.close()
    return bus


def test_a_long_log_read_by_several_processes_is_found_as_one_process_finds_it(
    long: JournalFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copied(long, tmp_path)
    spoil = (
        "UPDATE entries SET leaf = CAST(replace(leaf, 'case-system', 'case-sysTem') AS BLOB) WHERE idx = 700",
        "UPDATE nodes SET hash = zeroblob(32) WHERE level = 9 AND idx = 1",
        "UPDATE details SET salt = NULL, detail = NULL WHERE idx IN (5, 2700)",
        "UPDATE details SET detail = detail || ' ' WHERE idx = 2999",
        "DELETE FROM entries WHERE idx = 1536",
    )
    alone = after(path, long, *spoil)
    monkeypatch.setattr(audit, "LONG", 1_000)
    together = verify(path, long.anchors)
    assert together == alone
    assert {512, 700, 1536, 2999} <= named(together)
    assert together.erased == 2


def test_a_process_that_ended_early_is_no_pass(long: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "LONG", 1_000)
    assert verify(long.readable(), long.anchors).ok
    monkeypatch.setattr(audit.sys, "executable", "/bin/false")
    assert not verify(long.readable(), long.anchors).ok


def test_a_package_in_the_folder_where_one_stands_is_not_run(
    long: JournalFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of a log comes on a medium; beside it may lie a program of the same name as ours, which finds all well."""
    package = tmp_path / "exchange"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "log_stretch.py").write_text("open('run', 'w').close(); print('{}')\n")
    spoilt = copied(long, tmp_path)
    with closing(sqlite3.connect(spoilt)) as connection, connection:
        connection.execute("UPDATE details SET detail = x'7b7d' WHERE idx = 700")
    monkeypatch.setattr(audit, "LONG", 1_000)
    monkeypatch.chdir(tmp_path)
    assert named(verify(spoilt, long.anchors)) == {700}
    assert not (tmp_path / "run").exists()


def test_no_child_of_ours_looks_for_our_code_where_it_stands() -> None:
    root = Path(audit.__file__).parent.parent
    ours = [path for part in ("exchange", "connectors", "security") for path in (root / part).rglob("*.py")]
    started = {path: path.read_text().split("sys.executable, ")[1:] for path in ours if "migrations" not in path.parts}
    found = {path: [rest[:4] for rest in starts] for path, starts in started.items() if starts}
    assert len(found) >= 4
    assert {option for options in found.values() for option in options} <= {'"-P"', '"-I"'}, found


def test_a_running_bus_can_be_verified(bus: JournalFolder) -> None:
    journal = bus.open()
    futures = [journal.note(an_entry()) for _ in range(3_000)]
    assert verify(bus.readable(), bus.anchors).problems == []
    for future in futures:
        future.result(30)
    journal.close()
    assert verify(bus.readable(), bus.anchors).entries == 3_000


def test_what_is_there_is_not_looked_for_among_all_heads() -> None:
    """A log of a hundred thousand deliveries has nearly as many heads: each through all of them never ends."""
    with closing(sqlite3.connect(":memory:")) as connection:
        looked = list[int]()
        connection.create_function("looked_at", 1, lambda size: looked.append(size) or size)
        connection.executescript(
            "CREATE TABLE kept (size INTEGER, note TEXT); INSERT INTO kept VALUES (1, 'a'), (2, 'b'), (3, NULL);"
            "CREATE VIEW heads AS SELECT looked_at(size) AS size, note FROM kept;"
            "CREATE TABLE receipts (entry_index INTEGER, octets BLOB)"
        )
        connection.execute("INSERT INTO receipts VALUES (0, x'01'), (1, x'02')")
        assert connection.execute(f"SELECT {audit._OWED} FROM receipts").fetchall() == [(None,), (None,)]
        assert looked == []
        connection.execute("UPDATE receipts SET octets = NULL")
        connection.execute("INSERT INTO receipts VALUES (2, NULL)")
        assert connection.execute(f"SELECT {audit._OWED} FROM receipts").fetchall() == [(1,), (1,), (0,)]
