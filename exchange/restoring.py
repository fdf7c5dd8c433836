"""恢复 A backup read again and not believed: what it holds, whether it is whole, and what stands once it is put back.

In order: every member against the list, the list against the manifest, the manifest against the bus's own key, the
tables against the state root, the whole log by the audit's own verifier; and only then anything is put in its place.
"""

import sqlite3
from collections.abc import Callable, Collection
from pathlib import Path
from typing import IO

import msgspec

from exchange import audit
from exchange.backup import root_of
from exchange.backup_file import JOURNAL, KIND, PIECE_BYTES, STORE, Manifest, read
from exchange.database import Database, SqliteFile
from exchange.evidence_place import Place
from security.anchors import Anchors
from security.errors import Misconfigured, Refusal
from security.jws import key_named, open_document
from security.keys import der_of_pem
from security.message import sha256


class Found(msgspec.Struct, frozen=True):
    """What a backup holds, once all of it holds. entries, receipts, reports: how many were verified."""

    manifest: Manifest
    anchors: Anchors
    entries: int
    receipts: int
    reports: int


def examine(
    path: Path,
    folder: Path,
    certificates: Collection[bytes] | None,
    say: Callable[[str], None],
    *,
    with_evidence: bool = True,
) -> Found:
    """Read a backup into a folder and verify all of it.

    certificates:  DER, of the bus's answer keys, one of which signed the manifest; None: those of the backup's own
                   anchors, which says that it is of one piece and not whose it is
    with_evidence: put it into the folder, too

    Raises Refusal `backup.*`; Misconfigured where the file cannot be read.
    """

    def sink(name: str) -> IO[bytes] | None:
        if name.startswith("evidence/") and not with_evidence:
            return None
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            return target.open("xb")
        except FileExistsError as problem:
            raise Refusal("backup.not_one", f"{name} twice") from problem

    say("正在逐项核对备份 reading the backup, member by member")
    try:
        signed, listed = read(path, sink)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as problem:
        raise Misconfigured("config.file", f"{path}: {problem.strerror}") from problem
    anchors = _anchors(folder)
    manifest = _manifest(signed, certificates if certificates is not None else _certificates(anchors))
    if manifest.listed != listed:
        raise Refusal("backup.altered", "members.jsonl")
    say("正在核对状态根 the state root")
    _check_state(folder, manifest)
    say(f"正在核验审计日志 the audit log: {manifest.size:,} entries")
    verdict = audit.verify(folder / JOURNAL, anchors, [anchors.head(manifest.checkpoint)])
    if not verdict.ok:
        first = verdict.problems[0]
        raise Refusal("backup.log_broken", f"{first.entry}: {first.what}"[:160])
    return Found(manifest, anchors, verdict.entries, verdict.receipts, verdict.reports)


def put_back(folder: Path, journal: Database, store: Database) -> None:
    """Both histories out of the folder into their engines, of today's schema. Raises sqlite3.Error and FAILURES."""
    for staged, database in ((SqliteFile(folder, "journal"), journal), (SqliteFile(folder, "store"), store)):
        staged.prepare()  # it may be of a version before
        database.prepare()
        database.load(staged.path)


def check_equal(manifest: Manifest, journal: Database, store: Database, folder: Path) -> str:
    """The state root of what stands now, if it is the manifest's. folder: for copies. Raises `backup.not_equal`."""
    folder.mkdir()
    files = [one.path if isinstance(one, SqliteFile) else one.export(folder) for one in (journal, store)]
    found, tables, _, _ = root_of(files[0], files[1], manifest.tables)
    if found != manifest.state_root:
        differing = [f"{a.history}.{a.name}" for a, b in zip(tables, manifest.tables, strict=True) if a != b]
        raise Refusal("backup.not_equal", ", ".join(differing)[:160])
    return found


def bring_evidence(folder: Path, place: Place) -> None:
    """The files of a folder into another place, each under its own name. What is there already stays, for it may hold
    more than the backup: evidence of what was lost. Raises OSError; Refusal where other octets are there."""
    for path in sorted(folder.glob("*/*")):
        file = f"{path.parent.name}/{path.name}"
        with path.open("rb") as ours:
            try:
                with place.open(file) as there:
                    while piece := ours.read(PIECE_BYTES):
                        if there.read(len(piece)) != piece:
                            raise Refusal("backup.not_equal", f"evidence/{file}")
            except FileNotFoundError:
                place.bring(file, iter(lambda: ours.read(PIECE_BYTES), b""))
    place.sync()


def _anchors(folder: Path) -> Anchors:
    try:
        return msgspec.json.decode((folder / "anchors.json").read_bytes(), type=Anchors)
    except (OSError, msgspec.MsgspecError, UnicodeError) as problem:
        raise Refusal("backup.not_one", "anchors.json") from problem


def _certificates(anchors: Anchors) -> list[bytes]:
    return [der_of_pem(pem.encode()) for pem in anchors.all_certificates]


def _manifest(signed: bytes, certificates: Collection[bytes]) -> Manifest:
    """What the manifest says, once one of the bus's own answer keys signed it."""
    try:
        named = key_named(signed)
        der = next((der for der in certificates if sha256(der).hex == named), None)
        if der is None:
            raise Refusal("backup.other_keys", named[:16])
        return msgspec.convert(open_document(signed, der, KIND), Manifest)
    except msgspec.ValidationError as problem:
        raise Refusal("backup.not_one", str(problem)[:80]) from problem
    except Refusal as refusal:
        if refusal.code.startswith("backup."):
            raise
        raise Refusal("backup.altered", "manifest.jws") from refusal


def _check_state(folder: Path, manifest: Manifest) -> None:
    try:
        state, tables, size, root = root_of(folder / JOURNAL, folder / STORE)
    except (sqlite3.Error, OSError) as problem:
        raise Refusal("backup.altered", f"journal.sqlite, store.sqlite: {problem}"[:120]) from problem
    said = (manifest.state_root, manifest.tables, manifest.size, manifest.root)
    if (state, tables, size, root.hex()) != said:
        raise Refusal("backup.altered", "state root")
