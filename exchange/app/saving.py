"""Backup and restore."""

import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec

from exchange import backup, restoring
from exchange.app import keys_in_force, opening, places, trusted
from exchange.backup_file import KIND, SMALL, Manifest
from exchange.database import Database, SqliteFile
from exchange.entry import Entry, instant
from exchange.erased_apart import to_repeat
from exchange.faults import durable_step
from exchange.journal import Journal
from exchange.known_heads import Gap, head_text, keep
from exchange.own_keys import own_keys
from exchange.settings import Settings
from exchange.small_file import write_whole
from security.checkpoint import log_key_octets
from security.errors import Misconfigured, Refusal
from security.jws import sign_document
from security.keys import der_of_pem
from security.message import sha256
from security.sealing import SealingKey

PUT_BACK: Final = (
    *("origin.json", "anchors.json", "evidence", "districts"),
    *("reports-pushed", "reports-laid-out", "subscribers.json"),
)
RESTORING: Final = "restoring"


class Restored(msgspec.Struct, frozen=True):
    """What was put back, and whether entries were lost since.

    state_root: of what stands, and of the backup; erasures: decisions that were carried out once and are to be again
    """

    found: restoring.Found
    state_root: str
    gap: Gap | None = None
    erasures: tuple[str, ...] = ()


def make_backup(settings: Settings, path: Path, journal: Journal, by: str, say: Callable[[str], None]) -> Manifest:
    """Write a backup to a file while the bus serves, or not. by: pseudonym of who has it made, for the audit.

    Raises as `backup.make`.
    """
    backup.check_free(path)
    origin, now, state = places.origin_of(settings), places.utc_now(), places.state_of(settings)
    sizes = [
        one.path.stat().st_size
        for one in (places.journal_database(settings), places.store_database(settings))
        if isinstance(one, SqliteFile)
    ]
    backup.check_room(path.parent, 2 * sum(sizes))
    id = f"b-{secrets.token_hex(6)}"
    # Before the copy, so that it has this entry: one made after it would be lost with all that is lost later.
    entry = journal.note(Entry(type="backup", outcome="begun", actor=by, detail={"id": id})).result().index
    key = keys_in_force.answer_key(settings, keys_in_force.keyring_of(settings))
    with closing(opening.open_store(settings)) as store, closing(places.evidence_place(settings)) as place:
        source = backup.Source(
            journal=journal.database,
            store=places.store_database(settings),
            turn=store.turn,
            evidence=place.open,
            small=lambda: {name: (state / name).read_bytes() for name in _small_files(state)},
            sign=lambda document: sign_document(document, KIND, key, now),
        )
        made = backup.Made(id=id, made_at=instant(now), entry=entry, **msgspec.structs.asdict(origin))
        return backup.make(path, source, made, say)


def _small_files(folder: Path) -> list[str]:
    """Small files of a state folder that are backed up, by their names in it."""
    found = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if SMALL.fullmatch(name))


def restore(settings: Settings, path: Path, known: Sequence[Path], say: Callable[[str], None]) -> Restored:
    """Put a backup back where no bus stands, on the engines that the settings name, or leave nothing behind.

    known: heads that others were shown, checkpoints or receipts; they are kept beside those that `serve` kept

    Raises Misconfigured where a bus stands; Refusal `backup.*`, `audit.checkpoint_invalid`.
    """
    keys_in_force.check_keys_placed(settings)
    state = settings.at(settings.state.folder)
    journal, store = places.journal_database(settings), places.store_database(settings)
    texts = [head_text(one) for one in known]
    state.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        places.stand_still(state, stack, "stop serve first")
        if (state / RESTORING).exists() and not places.made(settings):
            _take_away(state, journal, store)  # a restore before this one was cut short
        _nothing_stands(state, journal, store)
        stack.enter_context(backup.room_for(state))
        try:
            restored = _put_back(settings, path, texts, say)
        except BaseException:
            _take_away(state, journal, store)
            raise
        shutil.rmtree(state / RESTORING)
    with (
        closing(opening.open_journal(settings)) as opened,
        closing(opening.open_registry(settings, opened)) as registry,
    ):
        again = tuple(one.id for one in to_repeat(places.heads_folder(settings), registry))
        return msgspec.structs.replace(restored, gap=trusted.log_gap(settings, opened), erasures=again)


def _put_back(settings: Settings, path: Path, known: Sequence[str], say: Callable[[str], None]) -> Restored:
    state = settings.at(settings.state.folder)
    journal, store, folder = places.journal_database(settings), places.store_database(settings), state / RESTORING
    folder.mkdir(mode=0o700)
    if path.exists():
        backup.check_room(state, 2 * path.stat().st_size)
    found = restoring.examine(path, folder, _answer_ders(settings), say)
    _check_of_this_bus(settings, found, folder)
    heads = [(trusted.known_head(settings, found.anchors, text), text) for text in known]
    say("正在写入数据库 putting store and journal back")
    restoring.put_back(folder, journal, store)
    (folder / "evidence").mkdir(exist_ok=True)
    if settings.evidence.url:
        with closing(places.evidence_place(settings)) as place:
            restoring.bring_evidence(folder / "evidence", place)
    else:
        (folder / "evidence").rename(state / "evidence")
    for name in _small_files(folder):
        if name != "origin.json":
            (state / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).rename(state / name)
    say("正在重新计算状态根 the state root anew, from what now stands")
    root = restoring.check_equal(found.manifest, journal, store, folder / "copies")
    durable_step("restore.equal:after")
    for head, text in heads:
        keep(places.heads_folder(settings), head, text)
    os.sync()
    # Last, so that a half-restored bus is not taken for one.
    write_whole(state / "origin.json", (folder / "origin.json").read_bytes())
    return Restored(found, root)


def check_backup(path: Path, settings: Settings | None, say: Callable[[str], None]) -> restoring.Found:
    """Verify a backup without restoring it. settings: of the bus that must have signed it; None: whichever it says."""
    with backup.room_for(path.parent), TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        certificates = None if settings is None else _answer_ders(settings)
        return restoring.examine(path, Path(folder), certificates, say, with_evidence=False)


def _nothing_stands(state: Path, journal: Database, store: Database) -> None:
    there = [str(state / name) for name in PUT_BACK if (state / name).exists()]
    there += [history for history, one in (("journal", journal), ("store", store)) if one.exists()]
    if there:
        raise Misconfigured(
            "config.bus_stands",
            f"{state} holds a bus, or part of one ({', '.join(there)}); nothing is put over it: stop it, move the "
            "state folder away (on PostgreSQL rename the schemas journal and store), and restore again",
        )


def _take_away(state: Path, journal: Database, store: Database) -> None:
    """All that a restore has put there, and nothing else: it began only where nothing stood."""
    for database in (journal, store):
        database.discard()
    for path in (state / name for name in (*PUT_BACK, RESTORING)):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _check_of_this_bus(settings: Settings, found: restoring.Found, folder: Path) -> None:
    """Return if a backup is of the bus that the settings name, and the keys folder has its keys. Raises Refusal."""
    origin = msgspec.json.decode((folder / "origin.json").read_bytes(), type=places.Origin)
    said = found.manifest
    stated = places.Origin(said.origin, said.edition, said.hash, said.evidence_key, said.founding)
    if origin != stated or (origin.origin, origin.edition) != (settings.bus.origin, settings.city.edition):
        raise Refusal("backup.other_bus", f"{said.origin}, {said.edition}"[:120])
    changed = own_keys(SqliteFile(folder, "journal"))
    keyring = keys_in_force.keyring_of(settings, stems={name: of[-1].stem for name, of in changed.items()})
    answers = {sha256(der_of_pem(pem.encode())).hex for pem in found.anchors.receipt_certificates}
    if log_key_octets(keyring.load("log", certificate=False).public_key).hex() != found.anchors.log_key:
        raise Refusal("backup.other_keys", "log")
    if keyring.load("answer").fingerprint not in answers:
        raise Refusal("backup.other_keys", "answer")
    if SealingKey.load(settings.at(settings.keys.folder) / "evidence.key").fingerprint != origin.evidence_key:
        raise Refusal("backup.other_keys", "evidence")


def _answer_ders(settings: Settings) -> list[bytes]:
    """The certificates of all answer keys that lie in the keys folder, former ones too. Raises Misconfigured."""
    found = [der_of_pem(path.read_bytes()) for path in settings.at(settings.keys.folder).glob("answer*.pem")]
    if not found:
        raise Misconfigured(
            "config.keys_missing",
            f"{settings.at(settings.keys.folder)}: no keys here; they are kept apart from backups: put them back first",
        )
    return found
