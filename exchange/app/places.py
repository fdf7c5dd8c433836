"""Where the things of a bus lie, and whether one stands there."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import msgspec

from exchange.database import Database, History, SqliteFile
from exchange.evidence_folder import EvidenceFolder
from exchange.evidence_place import Place
from exchange.key_places import check_apart
from exchange.settings import Settings
from security.errors import Misconfigured
from security.keys import ders_of_pem


class Origin(msgspec.Struct, frozen=True):
    """What `init` fixes for the life of a bus: its name, master edition, the hash of its log, by its fingerprint the
    key of sealed evidence, and the digest of the document with which it was founded."""

    origin: str
    edition: str
    hash: str
    evidence_key: str
    founding: str


def utc_now() -> datetime:
    """Now, aware, UTC."""
    return datetime.now(UTC)


def made(settings: Settings) -> bool:
    """Whether a bus stands there."""
    return (settings.at(settings.state.folder) / "origin.json").exists()


def state_of(settings: Settings) -> Path:
    """The state folder. Raises Misconfigured when no bus stands there yet."""
    state = settings.at(settings.state.folder)
    if not made(settings):
        raise Misconfigured("config.no_bus", f"{state}: no bus here yet; make one with: yongtong init --edition 2007")
    return state


def origin_of(settings: Settings) -> Origin:
    """What `init` fixed. Raises Misconfigured, also where this version cannot run such a bus."""
    path = state_of(settings) / "origin.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Origin)
    except msgspec.MsgspecError as problem:
        raise Misconfigured(
            "config.other_version", f"{path}: not of a bus that this version can run: {problem}"
        ) from problem


def journal_database(settings: Settings) -> Database:
    """Where the journal lies. Raises Misconfigured."""
    return _database(settings, settings.state.journal, "journal")


def store_database(settings: Settings) -> Database:
    """Where the store lies. Raises Misconfigured."""
    return _database(settings, settings.state.store, "store")


def _database(settings: Settings, url: str, history: History) -> Database:
    if not url:
        return SqliteFile(settings.at(settings.state.folder), history)
    from exchange.postgres import PostgresSchema  # an embedded bus does not load a server's driver

    return PostgresSchema(url, history)


@contextmanager
def readable_journal(settings: Settings) -> Iterator[Path]:
    """The journal as the audit's verifier reads it: the file itself, or, of one on a server, a copy for the while."""
    state_of(settings)
    database = journal_database(settings)
    if isinstance(database, SqliteFile):
        yield database.path
        return
    with tempfile.TemporaryDirectory(prefix="yongtong-audit-") as folder:
        yield database.export(Path(folder))


def evidence_place(settings: Settings) -> Place:
    """Where evidence lies: in the state folder, or in the bucket that the settings name. Raises Misconfigured."""
    if not settings.evidence.url:
        return EvidenceFolder(settings.at(settings.state.folder) / "evidence")
    from exchange.evidence_s3 import EvidenceBucket, s3_url  # a bus on a folder does not pay for the store's client

    return EvidenceBucket(s3_url(settings.evidence.url))


def heads_folder(settings: Settings) -> Path:
    """Where heads are kept that are known outside the database."""
    return settings.at(settings.state.heads)


def packages_folder(settings: Settings) -> Path | None:
    """The folder of the one-way door; None where there is none.

    Raises Misconfigured where it lies in the state folder.
    """
    if not settings.packages.folder:
        return None
    folder, state = settings.at(settings.packages.folder).resolve(), settings.at(settings.state.folder).resolve()
    if folder.is_relative_to(state):  # others write into it
        raise Misconfigured(
            "config.setting", f"{settings.source}: [packages] folder = {folder}: not in the state folder"
        )
    return folder


def check_key_apart(settings: Settings, *paths: Path) -> None:
    """Return if files or folders of keys lie outside the state folder. Raises Misconfigured naming both."""
    check_apart(settings.at(settings.state.folder), paths)


def write_secret(path: Path, octets: bytes) -> None:
    """A new file that only its owner reads. Raises Misconfigured where one stands, or none can be."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as problem:
        raise Misconfigured("config.stands", f"{path}: {problem.strerror}; no key is ever written over") from problem
    with os.fdopen(descriptor, "wb") as file:
        file.write(octets)


def certificates_in(path: Path) -> tuple[bytes, ...]:
    """The certificates of a PEM file, DER. Raises Misconfigured naming it."""
    try:
        return ders_of_pem(path.read_bytes())
    except (OSError, ValueError) as problem:
        raise Misconfigured("config.file", f"{path}: not a PEM file of certificates ({problem})") from problem


def alone(path: Path, stack: ExitStack, otherwise: str, *, shared: bool = False) -> TextIO:
    """Hold a lock file until the stack closes; it is empty then, for whoever holds it to say something. Raises
    Misconfigured with what to say when somebody else has it.

    shared: with others of its kind, but with nobody who must be alone
    """
    file = stack.enter_context(path.open("a"))
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError as problem:
        raise Misconfigured("config.serve_runs", f"{path.parent}: {otherwise}") from problem
    file.truncate(0)  # of whoever had it before
    return file


def stand_still(state: Path, stack: ExitStack, otherwise: str) -> None:
    """Keep `serve` and the worker out until the stack closes. Raises Misconfigured with what to say where one runs."""
    for lock in ("serve.lock", "worker.lock"):
        alone(state / lock, stack, otherwise)


def wait_alone(path: Path, stack: ExitStack) -> None:
    """Hold a lock file until the stack closes, once whoever has it is gone: two workers never share a file."""
    fcntl.flock(stack.enter_context(path.open("w")), fcntl.LOCK_EX)
