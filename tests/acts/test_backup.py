"""A backup is whole or it is none, a restore is equal or leaves nothing; and a log that lost entries takes none."""

import gzip
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from exchange import audit
from exchange.anchor_updates import Update, make_update
from exchange.app import changing, making, opening, places, saving, trusted
from exchange.cli import main as command_line
from exchange.cli.keys import follow
from exchange.cli.people import registry
from exchange.cli.trial import APPROVER, AUDITOR, SYSTEM, Trial
from exchange.database import SqliteFile
from exchange.decision_documents import EpochBody
from exchange.doctor.examine import examine
from exchange.presenting import verified_of_gap
from exchange.processing import process
from exchange.settings import BusSettings
from exchange.state_root import tables_of
from security.checkpoint import open_checkpoint, sign_checkpoint
from security.errors import Misconfigured, Refusal
from security.keys import SigningKey, generate
from tests.acts.bench_of_one import FEED, Acts, both_acts, covers
from tests.postgres import PostgresServer

LARGE: Final = 3_000  # records: their file lies alone
QUIET: Final[Callable[[str], None]] = lambda line: None  # noqa: E731


@pytest.fixture
def acts(tmp_path: Path) -> Iterator[Acts]:
    with both_acts(tmp_path) as acts:
        acts.trial.grant("made-up", "push", FEED)
        yield acts


class Made:
    """A backup of a bus that stands still, and ways to spoil it."""

    def __init__(self, acts: Acts, folder: Path) -> None:
        self.trial, self.folder, self.file = acts.trial, folder, folder / "good.tar"
        push(acts, "m-1")
        acts.push("m-2", covers("L", LARGE))
        process(FEED, acts.bus)
        self.root = backup(acts.trial, self.file)
        self.octets = self.file.read_bytes()
        acts.bus.close()
        with tarfile.open(self.file) as tar:
            self.places = {info.name: (info.offset_data, info.size) for info in tar}

    def refused(self, octets: bytes) -> str:
        """The code with which it is not restored; nothing is left behind."""
        path = self.folder / "spoilt.tar"
        path.write_bytes(octets)
        with pytest.raises(Refusal) as found:
            self.restore(path)
        return found.value.code

    def restore(self, path: Path, **changed: Any) -> saving.Restored:
        settings = msgspec.structs.replace(self.trial.settings, **changed)
        shutil.rmtree(self.trial.state, ignore_errors=True)
        try:
            return saving.restore(settings, path, [], QUIET)
        except (Refusal, Misconfigured):
            assert {one.name for one in self.trial.state.iterdir()} <= {"serve.lock", "worker.lock"}
            raise


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    folder = tmp_path_factory.mktemp("backup")
    with both_acts(folder / "city") as acts:
        acts.trial.grant("made-up", "push", FEED)
        yield Made(acts, folder)


def push(acts: Acts, message_id: str) -> bytes:
    receipt = acts.push(message_id, covers(message_id)).inbox.receipt
    assert receipt is not None
    return receipt


def backup(trial: Trial, file: Path) -> str:
    with registry(trial.settings) as opened:
        return saving.make_backup(trial.settings, file, opened.journal, "person-1", QUIET).state_root


def opened_again(acts: Acts) -> Acts:
    bus = opening.open_bus(acts.trial.settings)
    bus.journal.resume()
    return Acts(acts.trial, bus)


def run(trial: Trial, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = command_line.main([*words, "--settings", trial.settings.source, "--json"])
    return code, json.loads(capsys.readouterr().out or "{}")


# --- what a backup is ------------------------------------------------------------------------------------------------


def test_what_is_restored_has_the_same_state_root_and_a_second_restore_is_refused(made: Made) -> None:
    restored = made.restore(made.file)
    assert restored.state_root == made.root
    assert (restored.gap, restored.found.reports) == (None, 2)
    with pytest.raises(Misconfigured, match="nothing is put over it"):
        saving.restore(made.trial.settings, made.file, [], QUIET)
    assert audit.verify(made.trial.state, trusted.anchors_of(made.trial.settings)).ok
    with closing(opening.open_bus(made.trial.settings)) as bus:
        row = bus.journal.inbox("made-up", "m-2")
        assert row is not None
        assert bus.evidence.read(row.evidence).digest == bus.evidence.digest(row.evidence)


def test_no_key_and_no_secret_is_in_a_backup(made: Made) -> None:
    keys = [path for path in (made.trial.folder / "keys").iterdir() if path.suffix in (".key", ".secret")]
    assert len(keys) == 6
    for path in keys:
        octets = path.read_bytes()
        body = b"".join(octets.splitlines()[1:-1]) if octets.startswith(b"-----") else octets
        assert body not in made.octets
        assert octets not in made.octets


@pytest.mark.parametrize("checked_by", ["restore", "check"])
def test_one_altered_octet_in_any_member_is_found_and_the_member_named(made: Made, checked_by: str) -> None:
    assert {name.partition("/")[0] for name in made.places} == {
        *("journal.sqlite", "store.sqlite", "origin.json", "anchors.json", "evidence", "members.jsonl", "manifest.jws")
    }
    for name, (offset, size) in made.places.items():
        spoilt = bytearray(made.octets)
        spoilt[offset + size // 2] ^= 1
        if checked_by == "restore":
            assert made.refused(bytes(spoilt)) == "backup.altered", name
            continue
        path = made.folder / "altered.tar"
        path.write_bytes(spoilt)
        with pytest.raises(Refusal, match=r"backup\.altered"):
            saving.check_backup(path, None, QUIET)


def test_a_backup_that_was_cut_short_is_said_to_be_so_wherever_it_was_cut(made: Made) -> None:
    ends = [offset for offset, _ in made.places.values()] + [offset + size for offset, size in made.places.values()]
    for end in (0, 1, 511, 513, *(end - 700 for end in ends if end > 700), *(ends[:-1])):
        assert made.refused(made.octets[:end]) == "backup.cut_short", end


def member(name: str, type: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    """A tar with one member."""
    target, info = io.BytesIO(), tarfile.TarInfo(name)
    info.size, info.type, info.linkname = (4 if type == tarfile.REGTYPE else 0), type, link
    with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(b"evil"))
    return target.getvalue()


def zipped(octets: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("journal.sqlite", octets)
    return target.getvalue()


@pytest.mark.parametrize(
    "octets",
    [
        *(
            member(name)
            for name in ("../evil", "/etc/evil", "evidence/../../evil", "evidence/a/../evil", "keys/log.key")
        ),
        *(member("origin.json", type, "/etc/passwd") for type in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE)),
        *(member("journal.sqlite", tarfile.GNUTYPE_SPARSE), b"not a tar at all" * 1_000),
        zipped(bytes(50_000_000)),
        gzip.compress(bytes(50_000_000)),
    ],
    ids=["up", "from the root", "up in the middle", "up and down", "a key", "a link", "a hard link", "a pipe",
         "a sparse file", "no tar", "a zip", "a gzip"],
)  # fmt: skip
def test_what_no_backup_holds_is_refused_before_anything_is_written(made: Made, octets: bytes) -> None:
    assert made.refused(octets) == "backup.not_one"
    assert not list(made.trial.folder.rglob("evil"))


def test_another_bus_and_other_keys_are_refused(made: Made, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"backup\.other_bus"):
        made.restore(made.file, bus=BusSettings("another.example"))
    keys, kept = made.trial.folder / "keys", tmp_path / "keys"
    shutil.copytree(keys, kept)
    others = {
        "log.key": generate("EdDSA").pem(),
        "evidence.key": os.urandom(32),
        "answer.pem": (keys / "tls.pem").read_bytes(),
    }
    for name, octets in others.items():
        (keys / name).write_bytes(octets)
        with pytest.raises(Refusal, match=r"backup\.other_keys"):
            made.restore(made.file)
        shutil.copy(kept / name, keys / name)
    assert made.restore(made.file).state_root == made.root


@contextmanager
def no_file_beyond(octets: int) -> Iterator[None]:
    """As on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (octets, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_on_a_full_disk_nothing_half_made_is_left(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with no_file_beyond(200_000), pytest.raises(Refusal, match=r"backup\.no_room"):
        made.restore(made.file)
    made.restore(made.file)
    with no_file_beyond(len(made.octets) - 50_000), pytest.raises(Refusal, match=r"backup\.no_room"):
        backup(made.trial, tmp_path / "b.tar")
    monkeypatch.setattr("exchange.backup.shutil.disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 1))
    with pytest.raises(Refusal, match=r"backup\.no_room"):
        backup(made.trial, tmp_path / "b.tar")
    assert list(tmp_path.iterdir()) == []


def test_a_restore_that_was_killed_is_begun_anew(made: Made) -> None:
    shutil.rmtree(made.trial.state, ignore_errors=True)
    words = ["restore", str(made.file), "--settings", made.trial.settings.source]
    done = subprocess.run(
        [sys.executable, "-m", "exchange.cli.main", *words],
        env={**os.environ, "YONGTONG_FAULT": "restore.equal:after:1"},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    with pytest.raises(Misconfigured, match="no bus here yet"):
        opening.open_bus(made.trial.settings)
    assert saving.restore(made.trial.settings, made.file, [], QUIET).state_root == made.root


def test_a_backup_under_load_holds_in_the_store_what_its_journal_says_is_processed_and_no_more(
    acts: Acts, tmp_path: Path
) -> None:
    stop = threading.Event()

    def sending() -> None:
        number = 0
        while not stop.is_set():
            push(acts, f"m-{number}")
            number += 1

    def working() -> None:
        while not stop.is_set():
            process(FEED, acts.bus)

    threads = [threading.Thread(target=one) for one in (sending, working)]
    for thread in threads:
        thread.start()
    try:
        files = [tmp_path / f"b{number}.tar" for number in range(3)]
        for file in files:
            backup(acts.trial, file)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    for file in files:
        saving.check_backup(file, acts.trial.settings, QUIET)
        with tarfile.open(file) as tar:
            folder = tmp_path / file.stem
            folder.mkdir()
            for name in ("journal.sqlite", "store.sqlite"):
                member = tar.extractfile(name)
                assert member is not None
                (folder / name).write_bytes(member.read())
        with closing(SqliteFile(folder, "journal").connect()) as journal:
            said = {id for (id,) in journal.execute("SELECT message_id FROM inbox WHERE status = 'processed'")}
            waiting = {id for (id,) in journal.execute("SELECT message_id FROM inbox")} - said
        with closing(SqliteFile(folder, "store").connect()) as store:
            assert {id for (id,) in store.execute("SELECT message_id FROM deliveries")} == said
        assert said or waiting


def test_the_state_root_is_of_every_value_of_every_table(made: Made) -> None:
    made.restore(made.file)
    path = made.trial.state / "store.sqlite"
    before = tables_of(path, "store")
    assert sum(table.rows for table in before) > LARGE
    with closing(SqliteFile(made.trial.state, "store").connect()) as store:
        store.execute("UPDATE claims SET accuracy_m = accuracy_m + 0.001 WHERE id = (SELECT max(id) FROM claims)")
    differing = [a.name for a, b in zip(before, tables_of(path, "store"), strict=True) if a != b]
    assert differing == ["claims"]


def test_a_bus_moves_from_files_to_a_server_by_backup_and_restore(made: Made, postgres: PostgresServer) -> None:
    moved = msgspec.structs.replace(made.trial.settings.state, journal=postgres.database())
    restored = made.restore(made.file, state=moved)
    assert restored.state_root == made.root
    with pytest.raises(Misconfigured, match="nothing is put over it"):
        made.restore(made.file, state=moved)


# --- what was lost ---------------------------------------------------------------------------------------------------


def lose(acts: Acts, folder: Path, *ids: str) -> Path:
    """A backup, deliveries after it, and the state wiped; gives the file of the last head, which somebody has."""
    backup(acts.trial, folder / "b.tar")
    for id in ids:
        push(acts, id)
    head = folder / "head"
    head.write_text(acts.bus.journal.checkpoint())
    acts.bus.close()
    shutil.rmtree(acts.trial.state)
    return head


def recovered(acts: Acts) -> tuple[Acts, EpochBody]:
    """The new epoch, decided beside the log and opened."""
    settings = acts.trial.settings
    with registry(settings) as opened:
        gap = trusted.log_gap(settings, opened.journal)
        assert gap is not None
        body = changing.make_epoch(settings, opened.next_log(gap.known.origin), "恢复", gap.known, places.utc_now())
        id, apart = opened.propose_epoch_apart(body, SYSTEM)
        apart = opened.approve_epoch_apart(apart, APPROVER)
    changing.open_epoch(settings, id, body, SYSTEM, apart)
    return opened_again(acts), body


def test_a_head_that_somebody_shows_at_the_restore_is_enough(acts: Acts, tmp_path: Path) -> None:
    receipt = tmp_path / "receipt.json"
    head = lose(acts, tmp_path, "m-1", "m-2")
    restored = saving.restore(acts.trial.settings, tmp_path / "b.tar", [head], QUIET)
    assert restored.gap is not None
    assert restored.gap.known.size == int(head.read_text().split("\n")[1])
    with pytest.raises(Refusal, match=r"audit\.log_behind"):
        opening.open_bus(acts.trial.settings)
    red = [check.name for check in examine(acts.trial.settings, places.utc_now()) if not check.ok]
    assert "journal.whole" in red
    assert "log.whole" not in red, "of what lies in the state folder all agrees"
    # A receipt carries a head as well; a head that no key of this bus's signed is none, and nothing is restored.
    shutil.rmtree(acts.trial.state)
    shutil.rmtree(places.heads_folder(acts.trial.settings))
    receipt.write_text(sign_checkpoint(acts.bus.origin, 500, b"\x11" * 32, generate("EdDSA")))
    with pytest.raises(Refusal, match=r"audit\.checkpoint_invalid"):
        saving.restore(acts.trial.settings, tmp_path / "b.tar", [receipt], QUIET)
    assert not (acts.trial.state / "origin.json").exists()


def test_the_command_names_each_thing_that_it_found_once(
    acts: Acts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = lose(acts, tmp_path, "m-1")
    words = ["restore", str(tmp_path / "b.tar"), "--known", str(head), "--settings", acts.trial.settings.source]
    assert command_line.main(words) == 0
    rows = [line.split("│") for line in capsys.readouterr().out.splitlines() if line.count("│") >= 2]
    names = [name for row in rows if (name := row[1].strip())]
    assert len(names) == 10
    assert len(set(names)) == len(names)


def test_a_log_of_other_entries_than_a_known_head_is_not_extended_either(acts: Acts, tmp_path: Path) -> None:
    head = tmp_path / "head"
    log = SigningKey.load(acts.trial.folder / "keys" / "log.key")
    lose(acts, tmp_path)
    head.write_text(sign_checkpoint(acts.bus.origin, 3, b"\x11" * 32, log))
    restored = saving.restore(acts.trial.settings, tmp_path / "b.tar", [head], QUIET)
    assert restored.gap is not None
    acts, body = recovered(acts)
    with closing(acts.bus):
        assert (body.known_size, body.known_root) == (3, "11" * 32)


def test_no_second_bus_is_made_under_a_name_whose_heads_are_known(acts: Acts) -> None:
    settings = acts.trial.settings
    places.heads_folder(settings).mkdir()
    (places.heads_folder(settings) / "newest.checkpoint").write_text(acts.bus.journal.checkpoint())
    acts.bus.close()
    shutil.rmtree(acts.trial.state)
    with pytest.raises(Misconfigured, match="signed heads already"):
        making.no_bus_yet(settings)


def test_heads_that_would_be_lost_with_the_state_stop_the_start(acts: Acts) -> None:
    inside = msgspec.structs.replace(acts.trial.settings.state, heads="state/heads")
    with pytest.raises(Misconfigured, match="lies in the state folder"):
        opening.open_bus(msgspec.structs.replace(acts.trial.settings, state=inside))


def test_a_lost_epochs_name_is_not_used_again(acts: Acts, tmp_path: Path) -> None:
    """Backup, new epoch, loss: the restored log knows nothing of the epoch whose heads were given out."""
    backup(acts.trial, tmp_path / "b.tar")
    key = generate("EdDSA")
    places.write_secret(acts.trial.folder / "keys" / "log-0123456789abcdef.key", key.pem())
    head = tmp_path / "head"
    head.write_text(sign_checkpoint(f"{acts.bus.origin}/2", 50, b"\x11" * 32, key))
    acts.bus.close()
    shutil.rmtree(acts.trial.state)
    restored = saving.restore(acts.trial.settings, tmp_path / "b.tar", [head], QUIET)
    assert restored.gap is not None
    acts, body = recovered(acts)
    with closing(acts.bus):
        assert (body.log, body.known_log) == (f"{acts.bus.origin}/3", f"{acts.bus.origin}/2")
        assert acts.bus.journal.checkpoint().startswith(f"{acts.bus.origin}/3\n")


def test_without_the_former_logs_key_two_persons_lead_no_partner_into_an_epoch(acts: Acts, tmp_path: Path) -> None:
    push(acts, "m-0")
    acts.folder.remember(acts.bus.journal.checkpoint())
    head = lose(acts, tmp_path, "m-1", "m-2")
    saving.restore(acts.trial.settings, tmp_path / "b.tar", [head], QUIET)
    acts, body = recovered(acts)
    with closing(acts.bus):
        known = int(acts.folder.remembered().split("\n")[1])
        update = msgspec.json.decode(make_update(acts.bus.journal, acts.bus.registry.key_changes(), known), type=Update)
        (one,) = update.changes
        assert one.checkpoint.rpartition("\n\n")[2].count("\n") == 2, "both keys stand on the first head"
        new = next((acts.trial.folder / "keys").glob(f"log-{body.key.key[:16]}.key"))
        whole = open_checkpoint(one.checkpoint, body.log, SigningKey.load(new).public_key)
        by_new_alone = sign_checkpoint(body.log, whole.size, whole.root, SigningKey.load(new))
        forged = msgspec.structs.replace(update, changes=[msgspec.structs.replace(one, checkpoint=by_new_alone)])
        before = acts.folder.anchors
        with pytest.raises(Refusal, match=r"audit\.checkpoint_invalid"):
            follow(msgspec.json.encode(forged), acts.folder)
        assert acts.folder.anchors == before
        assert follow(msgspec.json.encode(update), acts.folder) == 1
        assert acts.folder.anchors == changing.keep_anchors(acts.trial.settings, acts.bus.registry)


def test_an_epoch_beside_the_log_needs_both_persons_and_their_offices(acts: Acts, tmp_path: Path) -> None:
    head = lose(acts, tmp_path, "m-1")
    saving.restore(acts.trial.settings, tmp_path / "b.tar", [head], QUIET)
    settings = acts.trial.settings
    with registry(settings) as opened:
        gap = trusted.log_gap(settings, opened.journal)
        assert gap is not None
        body = changing.make_epoch(settings, opened.next_log(), "恢复", gap.known, places.utc_now())
        with pytest.raises(Refusal, match=r"role\.not_held"):
            opened.propose_epoch_apart(body, APPROVER)
        with pytest.raises(Refusal, match=r"audit\.log_behind"):
            opened.propose_epoch(body, SYSTEM)
        id, apart = opened.propose_epoch_apart(body, SYSTEM)
        for other in (SYSTEM, AUDITOR):
            with pytest.raises(Refusal, match=r"role\.not_held|decision\.same_person"):
                opened.approve_epoch_apart(apart, other)
        with pytest.raises(Refusal, match=r"decision\.not_in_force"):
            opened.epoch_decided(id, SYSTEM, apart)
        other_body = msgspec.structs.replace(body, ground="another")
        _, other_apart = opened.propose_epoch_apart(other_body, SYSTEM)
        mixed = msgspec.structs.replace(apart, approval=opened.approve_epoch_apart(other_apart, APPROVER).approval)
        with pytest.raises(Refusal, match=r"decision\.other_document"):
            opened.epoch_decided(id, SYSTEM, mixed)
        apart = opened.approve_epoch_apart(apart, APPROVER)
        size = opened.journal.size()
    with pytest.raises(Refusal, match=r"audit\.log_behind"):
        changing.open_epoch(settings, id, body, SYSTEM)
    changing.open_epoch(settings, id, body, SYSTEM, apart)
    acts = opened_again(acts)
    with closing(acts.bus):
        assert acts.bus.journal.size() == size + 1
        # No number of a change that was lost, of which a subscriber may have been told, is given to another.
        with closing(places.store_database(settings).connect()) as store:
            assert store.execute("SELECT last FROM change_counter").fetchone()[0] >= changing.LOST_CHANGES
        assert audit.verify(acts.trial.state, trusted.anchors_of(settings)).ok
        with pytest.raises(Refusal, match=r"decision\.not_proposed"):
            acts.bus.registry.epoch_decided(id, SYSTEM, apart)
        receipt = push(acts, "m-5")
        with pytest.raises(Refusal, match=r"receipt\.not_of_gap"):
            verified_of_gap(receipt, trusted.anchors_of(settings))


def test_what_was_erased_after_the_backup_is_erased_again_by_the_same_decision(
    acts: Acts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    push(acts, "m-1")
    process(FEED, acts.bus)
    backup(acts.trial, tmp_path / "b.tar")
    asked = ["erasure", "ask", "m-1", "--kind", "personal", "--ground", "删除请求", "--by", AUDITOR.name]
    decision = run(acts.trial, capsys, *asked)[1]["decision"]
    assert run(acts.trial, capsys, "decision", "approve", decision, "--by", APPROVER.name)[0] == 0
    assert run(acts.trial, capsys, "erasure", "carry", decision, "--by", AUDITOR.name)[0] == 0
    head = tmp_path / "head"
    head.write_text(acts.bus.journal.checkpoint())
    acts.bus.close()
    shutil.rmtree(acts.trial.state)
    restored = saving.restore(acts.trial.settings, tmp_path / "b.tar", [head], QUIET)
    assert restored.erasures == (decision,)
    acts, _ = recovered(acts)
    with closing(acts.bus):
        row = acts.bus.journal.inbox("made-up", "m-1")
        assert row is not None
        assert not row.evidence.startswith("erased:")
        code, said = run(acts.trial, capsys, "erasure", "again", "--by", AUDITOR.name)
        assert (code, [one["decision"] for one in said["erased"]]) == (0, [decision])
        row = acts.bus.journal.inbox("made-up", "m-1")
        assert row is not None
        assert row.evidence == f"erased:{decision}"
        assert run(acts.trial, capsys, "erasure", "again", "--by", AUDITOR.name)[1]["erased"] == []
        verdict = audit.verify(acts.trial.state, trusted.anchors_of(acts.trial.settings))
        assert verdict.ok, verdict.problems
