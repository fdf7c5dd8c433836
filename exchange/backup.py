"""备份 A backup of a bus that goes on serving: all that it knows, as of one moment, in one file, and no key.

While store and journal are copied act two waits, act one does not. So what the journal says is processed is in the
store, and nothing is in the store that the journal has not; what is accepted meanwhile is in the next backup. Then the
bytes that the copied inbox names: they were durable before their rows were, and nobody writes to them.
"""

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, Any, Final

import msgspec

from exchange.backup_file import JOURNAL, STORE, Manifest, Writer
from exchange.database import Database
from exchange.evidence import is_erased, is_sealed
from exchange.faults import durable_step
from exchange.state_root import Table, log_root, state_root, tables_of
from security.errors import AuditBroken, Misconfigured, Refusal
from security.sealing import sealed_size

MARGIN_BYTES: Final = 16 << 20
FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_EVIDENCE: Final = "SELECT evidence FROM inbox ORDER BY evidence"
_NEWEST: Final = "SELECT note FROM heads WHERE note IS NOT NULL ORDER BY size DESC LIMIT 1"


class Source(msgspec.Struct, frozen=True):
    """What is backed up.

    turn:     in which act two and erasures stand still
    evidence: opens an evidence file by its name, `bureau/name`; FileNotFoundError where it is not there
    small:    further files, whole, by the names that they have in a backup
    sign:     signs the manifest by the bus's answer key
    """

    journal: Database
    store: Database
    turn: Callable[[], AbstractContextManager[object]]
    evidence: Callable[[str], IO[bytes]]
    small: Callable[[], Mapping[str, bytes]]
    sign: Callable[[dict[str, Any]], bytes]


class Made(msgspec.Struct, frozen=True):
    """Who makes a backup of which bus, as its manifest says: members as of `Manifest`."""

    id: str
    origin: str
    edition: str
    hash: str
    founding: str
    evidence_key: str
    made_at: str
    entry: int


class _Extent(msgspec.Struct, frozen=True):
    """An evidence file, and up to which octet the inbox names what lies in it."""

    file: str
    octets: int


def make(path: Path, source: Source, made: Made, say: Callable[[str], None]) -> Manifest:
    """Write a backup, whole or not at all. say: hears how far it has come.

    Raises Misconfigured where something of that name stands; Refusal `backup.no_room`; AuditBroken where evidence that
    the inbox names is not there.
    """
    check_free(path)
    with room_for(path.parent), TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as name:
        folder = Path(name)
        say("正在复制台账与日志 copying store and journal; act two waits, deliveries go on")
        with source.turn():
            source.store.export(folder)
            source.journal.export(folder)
        durable_step("backup.copied:after")
        whole = _written(folder, source, made, say)
        check_free(path)
        (folder / "backup").rename(path)
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return whole


def check_free(path: Path) -> None:
    """Return if a backup may be written there. Raises Misconfigured."""
    if path.exists():
        raise Misconfigured(
            "config.stands", f"{path} stands already; a backup is never written over: name another file"
        )
    if not path.parent.is_dir():
        raise Misconfigured("config.no_folder", f"{path.parent}: no such folder")


@contextmanager
def room_for(folder: Path) -> Iterator[None]:
    """A full disk while the block runs is told as Refusal `backup.no_room`."""
    try:
        yield
    except OSError as problem:
        if problem.errno in FULL:
            raise Refusal("backup.no_room", str(folder)) from problem
        raise Misconfigured("config.file", f"{problem.filename or folder}: {problem.strerror}") from problem
    except sqlite3.OperationalError as problem:
        if problem.sqlite_errorcode == sqlite3.SQLITE_FULL:
            raise Refusal("backup.no_room", str(folder)) from problem
        raise


def check_room(folder: Path, octets: int) -> None:
    """Return if a disk has room for so many octets and a little more. Raises Refusal `backup.no_room`."""
    free = shutil.disk_usage(folder).free
    if free < octets + MARGIN_BYTES:
        raise Refusal("backup.no_room", f"{folder}: {free / 1e6:,.0f} MB of {octets / 1e6:,.0f} MB")


def root_of(journal: Path, store: Path, as_of: list[Table] | None = None) -> tuple[str, list[Table], int, bytes]:
    """The state root of two histories' files, with their tables, and size and root of the log.

    as_of: whose tables and columns are looked at, where the files may be of a newer version
    """
    tables = [*tables_of(journal, "journal", as_of), *tables_of(store, "store", as_of)]
    size, root = log_root(journal)
    return state_root(tables, root), tables, size, root


def _written(folder: Path, source: Source, made: Made, say: Callable[[str], None]) -> Manifest:
    """The file `backup` in the folder, on disk as a whole."""
    journal, store = folder / JOURNAL, folder / STORE
    say("正在计算状态根 computing the state root")
    state, tables, size, root = root_of(journal, store)
    needed = journal.stat().st_size + store.stat().st_size
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as rows:
        check_room(folder, needed + sum(one.octets for one in _extents(rows)))
        (note,) = rows.execute(_NEWEST).fetchone()
        with (folder / "backup").open("xb") as target, TemporaryFile(dir=folder) as list_of:
            os.fchmod(target.fileno(), 0o600)
            writer = Writer(target, list_of)
            for name, path in ((JOURNAL, journal), (STORE, store)):
                say(f"{name}: {path.stat().st_size / 1e6:,.1f} MB")
                with path.open("rb") as stream:
                    writer.add(name, stream, path.stat().st_size)
            _add_small(writer, source.small(), folder)
            _add_evidence(writer, rows, source, say)
            written = writer.list_members()
            manifest = Manifest(
                v=1,
                id=made.id,
                origin=made.origin,
                edition=made.edition,
                hash=made.hash,
                founding=made.founding,
                evidence_key=made.evidence_key,
                made_at=made.made_at,
                size=size,
                root=root.hex(),
                checkpoint=note,
                entry=made.entry,
                tables=tables,
                state_root=state,
                members=written.members,
                octets=written.octets,
                listed=written.listed,
            )
            writer.end(source.sign(msgspec.to_builtins(manifest)))
            target.flush()
            os.fsync(target.fileno())
    return manifest


def _add_small(writer: Writer, small: Mapping[str, bytes], folder: Path) -> None:
    for name, octets in small.items():
        with TemporaryFile(dir=folder) as stream:
            stream.write(octets)
            stream.seek(0)
            writer.add(name, stream, len(octets))


def _add_evidence(writer: Writer, rows: sqlite3.Connection, source: Source, say: Callable[[str], None]) -> None:
    """Each evidence file, up to the last octet that is named."""
    done = 0
    for extent in _extents(rows):
        try:
            with source.evidence(extent.file) as stream:
                writer.add(f"evidence/{extent.file}", stream, extent.octets)
        except FileNotFoundError as problem:
            if _still_named(source.journal, extent.file):
                raise AuditBroken(f"evidence {extent.file} is not there, and the inbox names it") from problem
            continue  # two persons had it erased since
        before, done = done, done + extent.octets
        if done >> 28 > before >> 28:
            say(f"原始报文 evidence: {done / 1e6:,.0f} MB")


def _extents(rows: sqlite3.Connection) -> Iterator[_Extent]:
    """The files that the inbox names, in the order of their names."""
    found = (location for (location,) in rows.execute(_EVIDENCE) if not is_erased(location))
    for file, locations in groupby(found, key=lambda location: location.partition(":")[0]):
        yield _Extent(file, max(map(_end_of, locations)))


def _end_of(location: str) -> int:
    """Behind the last octet of a payload as it lies in its file."""
    _, offset, size, *_ = location.split(":")
    return int(offset) + (sealed_size(int(size)) if is_sealed(location) else int(size))


def _still_named(journal: Database, file: str) -> bool:
    with closing(journal.connect()) as connection:
        query = "SELECT 1 FROM inbox WHERE evidence LIKE ? LIMIT 1"
        return connection.execute(query, (f"{file}:%",)).fetchone() is not None
