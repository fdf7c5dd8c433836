"""A witness over real sockets: what it signs, what the bus takes from it, and what it finds.

The operator of these tests has everything: the database, the backups, the log's own key.
"""

import base64
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from starlette.types import ASGIApp

from connectors.partner.folder import PartnerFolder
from connectors.partner.log import Log
from connectors.partner.partner import Partner
from connectors.partner.witness import LogWitness
from exchange import audit
from exchange.attestations import Attestations
from exchange.cli import main as command_line
from exchange.database import SqliteFile
from exchange.entry import Entry
from exchange.http.app import make_app
from exchange.journal import Journal
from exchange.receipts import issue_receipts, issue_reports, verify_receipt
from security import merkle
from security.checkpoint import Checkpoint, sign_checkpoint
from security.cosignature import Witness, cosign, cosignatures
from security.errors import Refusal
from security.fork import open_fork
from security.keys import SigningKey, generate
from tests.doors.bus import ORIGIN, TestBus
from tests.doors.conftest import City, Running

NAME = "water.bus.test.example"
Start = Callable[[ASGIApp], Running]


def now() -> datetime:
    return datetime.now(UTC)


def _known(name: str, key: SigningKey) -> Witness:
    assert isinstance(key.public_key, Ed25519PublicKey)
    return Witness(name, key.public_key.public_bytes_raw().hex())


class Watched:
    """A served bus that `water` watches as a witness and follows as a partner; its journal can be exchanged."""

    def __init__(self, test: TestBus, start: Start) -> None:
        self.test, self._start = test, start
        self.key = generate("EdDSA")
        test.anchors = msgspec.structs.replace(test.anchors, witnesses=[_known(NAME, self.key)], quorum=1)
        self.folder = test.bureau("water")
        self.bus = msgspec.structs.replace(test.bus, anchors=test.anchors)
        self.running = start(make_app(self.bus, test.folder / "spool"))

    @property
    def url(self) -> str:
        return f"https://localhost:{self.running.port}"

    @property
    def file(self) -> Path:
        return self.test.folder / "journal.sqlite"

    def witness(self, key: SigningKey | None = None) -> LogWitness:
        return LogWitness(self.folder, Log(self.folder, self.url), NAME, key or self.key, now)

    def others(self, *names: str) -> list[LogWitness]:
        """Further witnesses, each of a bureau of its own; served anew, all of them are demanded."""
        keys = [generate("EdDSA") for _ in names]
        known = [_known(f"{name}.{ORIGIN}", key) for name, key in zip(names, keys, strict=True)]
        anchors = self.bus.anchors
        more = msgspec.structs.replace(anchors, witnesses=[*anchors.witnesses, *known], quorum=1 + len(names))
        self.running.stop()
        self.bus = msgspec.structs.replace(self.bus, anchors=more)
        folders = [self.test.bureau(name) for name in names]
        self.running = self._start(make_app(self.bus, self.test.folder / "spool"))
        made = zip(folders, known, keys, strict=True)
        return [LogWitness(folder, Log(folder, self.url), one.name, key, now) for folder, one, key in made]

    def partner(self) -> Partner:
        return Partner(self.folder, self.url, partial(verify_receipt, anchors=self.test.anchors))

    def grow(self, count: int = 1) -> int:
        """That many entries more, each under a head of its own; gives the size."""
        for _ in range(count):
            self.bus.journal.note(Entry(type="read", outcome="answered", actor="case-system")).result(30)
        return self.bus.journal.size()

    def grow_beyond(self, size: int) -> None:
        while self.grow() <= size + 3:
            pass

    def exchange(self, done: Callable[[Path], None]) -> None:
        """Stop, let the operator do something to the journal's file, and serve what is there now."""
        self.running.stop()
        self.bus.journal.close()
        self.bus.attestations.close()
        done(self.file)
        key = self.bus.answer_key
        journal = Journal(
            SqliteFile(self.test.folder, "journal"), ORIGIN, self.test.log_key, now, partial(issue_receipts, key=key),
            partial(issue_reports, key=key), self.bus.evidence.sync,
        )  # fmt: skip
        kept = Attestations(SqliteFile(self.test.folder, "journal"))
        self.bus = msgspec.structs.replace(self.bus, journal=journal, attestations=kept)
        self.running = self._start(make_app(self.bus, self.test.folder / "spool"))

    def get(self, path: str) -> requests.Response:
        return self._asked("GET", path)

    def post(self, body: bytes, content_type: str = "text/plain", *, as_nobody: bool = False) -> requests.Response:
        headers = {"content-type": content_type}
        return self._asked("POST", "cosignatures", as_nobody=as_nobody, data=body, headers=headers)

    def _asked(self, method: str, path: str, *, as_nobody: bool = False, **sent: Any) -> requests.Response:
        folder = self.folder
        certificate = None if as_nobody else (folder.file("connection.pem"), folder.file("connection.key"))
        address, ca = f"{self.url}/api/v1/audit/{path}", folder.file("ca.pem")
        return requests.request(method, address, cert=certificate, verify=ca, timeout=10, **sent)

    def refused(self) -> list[str]:
        """Codes of the audit's refusals, newest first."""
        return [entry.leaf.outcome for entry in self.bus.journal.search(type="refusal")]

    def forks(self, folder: PartnerFolder | None = None) -> list[Path]:
        return sorted(((folder or self.folder).path / "forks").glob("*"))

    def close(self) -> None:
        self.running.stop()
        self.bus.close()


@pytest.fixture
def watched(start: Start, city: City, tmp_path: Path) -> Iterator[Watched]:
    watched = Watched(TestBus(tmp_path / "bus", city), start)
    watched.grow(5)
    yield watched
    watched.close()


# What it signs, and what the bus takes ----------------------------------------------------------------------------


def test_a_witness_signs_what_continues_and_the_bus_shows_its_line(watched: Watched) -> None:
    assert watched.get("checkpoint?cosigned=true").json()["refusal"]["code"] == "audit.not_cosigned"
    first = watched.witness().look()
    watched.grow(4)
    second = watched.witness().look()
    assert (first.before, second.before) == (0, first.head.size)
    assert second.head.size > first.head.size
    assert second.kept.witnesses == (NAME,)
    assert second.kept.cosigned
    watched.grow()
    shown = watched.get("checkpoint?cosigned=true").text
    assert watched.test.anchors.head(shown) == second.head
    assert [one.witness for one in cosignatures(shown, watched.test.anchors.witnesses)] == [NAME]
    newest = watched.get("checkpoint").text
    assert watched.test.anchors.head(newest).size > second.head.size
    assert cosignatures(newest, watched.test.anchors.witnesses) == []
    assert watched.get("checkpoint?cosigned=true&to_cosign=true").json()["refusal"]["code"] == "http.parameter"
    assert watched.get("checkpoint?cosigned=no").json()["refusal"]["code"] == "http.parameter"


def test_several_witnesses_sign_the_same_head_though_each_look_makes_the_log_longer(watched: Watched) -> None:
    two, three = watched.others("power", "gas")
    one = watched.witness()
    signed = []
    # One looks twice as often as the others: it opens no new head while the others are still to sign.
    for witness in (one, two, one, three, one, two, one, three):
        watched.grow()
        signed.append(witness.look())
    sizes = [one.head.size for one in signed]
    assert sizes[:4] == sizes[:1] * 4
    assert sizes[4:] == sizes[4:5] * 4
    assert sizes[4] > sizes[0]
    assert [one.kept.cosigned for one in signed] == [False, False, False, True] * 2
    shown = watched.get("checkpoint?cosigned=true").text
    assert len(cosignatures(shown, watched.bus.anchors.witnesses)) == 3


def test_who_is_asked_for_less_than_it_signed_signs_the_newest(watched: Watched) -> None:
    """Its line was lost on the way, so the bus shows what another signed meanwhile."""
    (two,) = watched.others("power")
    one = watched.witness()
    first = two.look()
    watched.grow(2)
    watched.folder.keep_cosigned(watched.bus.journal.checkpoint())
    assert one.look().head.size > first.head.size


def spoilt(watched: Watched, how: str) -> bytes:
    """A cosigned checkpoint with one thing wrong."""
    note = watched.bus.journal.checkpoint()
    size = watched.test.anchors.head(note).size
    line = cosign(note, NAME, watched.key, now()) + "\n"
    dash, name, text = line[:-1].split(" ")
    octets = bytearray(base64.b64decode(text))
    octets[-1] ^= 1
    broken = f"{dash} {name} {base64.b64encode(octets).decode()}\n"
    other_root = sign_checkpoint(ORIGIN, size, b"x" * 32, watched.test.log_key)
    future = sign_checkpoint(ORIGIN, size + 1_000, b"x" * 32, watched.test.log_key)
    beyond = sign_checkpoint(ORIGIN, 1 << 70, b"x" * 32, watched.test.log_key)
    stranger = sign_checkpoint(ORIGIN, size, b"x" * 32, generate("EdDSA"))
    signed = {
        "another root": other_root,
        "a size to come": future,
        "a size beyond numbers": beyond,
        "another log's key": stranger,
    }
    bodies = {
        "no line": note,
        "a line of somebody unknown": note + cosign(note, NAME, generate("EdDSA"), now()) + "\n",
        "a line under another name": note + cosign(note, "somebody.example", watched.key, now()) + "\n",
        "a broken line": note + broken,
        "a time to come": note + cosign(note, NAME, watched.key, now() + timedelta(days=20_000)) + "\n",
        "a time long past": note + cosign(note, NAME, watched.key, now() - timedelta(hours=1)) + "\n",
        "not UTF-8": "\udcff",
        "nothing": "",
        **{name: head + cosign(head, NAME, watched.key, now()) + "\n" for name, head in signed.items()},
    }
    return bodies[how].encode("utf-8", "surrogateescape")


@pytest.mark.parametrize(
    "how, status, code",
    [
        ("no line", 403, "audit.witness_unknown"),
        ("a line of somebody unknown", 403, "audit.witness_unknown"),
        ("a line under another name", 403, "audit.witness_unknown"),
        ("a broken line", 400, "audit.cosignature_invalid"),
        ("a time to come", 400, "audit.cosignature_time"),
        ("a time long past", 400, "audit.cosignature_time"),
        ("another root", 409, "audit.head_not_ours"),
        ("a size to come", 409, "audit.head_not_ours"),
        ("a size beyond numbers", 409, "audit.head_not_ours"),
        ("another log's key", 400, "audit.checkpoint_invalid"),
        ("not UTF-8", 400, "audit.checkpoint_invalid"),
        ("nothing", 400, "audit.checkpoint_invalid"),
    ],
)
def test_what_is_no_witness_of_this_log_is_refused_and_audited(
    watched: Watched, how: str, status: int, code: str
) -> None:
    answer = watched.post(spoilt(watched, how))
    refusal = answer.json()["refusal"]
    assert (answer.status_code, refusal["code"]) == (status, code)
    assert watched.refused() == [code]
    assert watched.bus.attestations.cosigned(0, [NAME], 1) is None


def test_strangers_other_media_and_long_bodies_are_refused_before_they_are_read(watched: Watched) -> None:
    good = spoilt(watched, "no line")
    answers = [
        watched.post(good, as_nobody=True),
        watched.post(good, "application/json"),
        watched.post(b"x" * 70_000),
    ]
    codes = [(answer.status_code, answer.json()["refusal"]["code"]) for answer in answers]
    assert codes == [(403, "auth.refused"), (415, "http.media_type"), (413, "size.too_large")]
    assert watched.get("cosignatures").status_code == 405


# What never happens ------------------------------------------------------------------------------------------------


class Crashing(SigningKey):
    """The witness's key in a process that is killed: before the octets are there, or after."""

    crash = ""

    def sign(self, octets: bytes) -> bytes:
        signed = super().sign(octets) if self.crash != "before" else b""
        self.signed = signed
        raise KeyboardInterrupt


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_around_the_signature_allows_no_second_head_of_that_size(watched: Watched, when: str) -> None:
    first = watched.witness().look().head
    watched.grow(9)
    (watched.folder.path / "witness.key").write_bytes(watched.key.pem())
    crashing = Crashing.load(watched.folder.path / "witness.key")
    assert isinstance(crashing, Crashing)
    crashing.crash = when
    with pytest.raises(KeyboardInterrupt):
        watched.witness(crashing).look()
    remembered = watched.test.anchors.head(watched.folder.cosigned())
    assert remembered.size > first.size, "it lay in the folder before anything was signed"
    # The last head whose signature anybody saw is the first one; a log that goes on from there otherwise is found.
    watched.exchange(partial(truncated, size=first.size))
    with pytest.raises(Refusal, match=r"audit\.log_truncated"):
        watched.witness().look()
    watched.grow_beyond(remembered.size)
    with pytest.raises(Refusal, match=r"audit\.log_forked"):
        watched.witness().look()


def test_a_line_that_was_lost_on_the_way_is_made_again_for_the_same_head(watched: Watched) -> None:
    head = watched.witness().look().head
    with closing(sqlite3.connect(watched.file)) as database, database:
        database.execute("DELETE FROM cosignatures")
    note = watched.folder.cosigned()

    class Same(Log):
        def to_cosign(self) -> str:
            return note

    again = LogWitness(watched.folder, Same(watched.folder, watched.url), NAME, watched.key, now).look()
    assert (again.head, again.kept.witnesses) == (head, (NAME,))


def test_a_witness_whose_memory_does_not_read_signs_nothing(watched: Watched) -> None:
    watched.witness().look()
    path = watched.folder.path / "witness" / "checkpoint"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\n\n", 1))
    with pytest.raises(Refusal, match=r"audit\.checkpoint_invalid"):
        watched.witness().look()


def test_a_witness_begins_with_the_head_that_the_partner_remembers(watched: Watched) -> None:
    remembered = watched.partner().checkpoint()
    watched.grow(2)
    assert watched.witness().look().before == remembered.size


# What it finds: truncated, rolled back, forked, written anew with the stolen key ------------------------------------


def truncated(file: Path, size: int) -> None:
    """Remove all entries from `size` on, and all that speaks of them; a head of that size was signed."""
    with closing(sqlite3.connect(file)) as database, database:
        assert database.execute("SELECT note FROM heads WHERE size = ?", (size,)).fetchone()
        database.execute("DELETE FROM entries WHERE idx >= ?", (size,))
        database.execute("DELETE FROM details WHERE idx >= ?", (size,))
        database.execute("DELETE FROM nodes WHERE (idx + 1) << level > ?", (size,))
        database.execute("DELETE FROM heads WHERE size > ?", (size,))
        database.execute("DELETE FROM cosignatures WHERE size > ?", (size,))


def rewritten(file: Path, key: SigningKey, index: int) -> None:
    """Say something else in an entry, and make every node and every head again, signed with the log's own key."""
    with closing(sqlite3.connect(file)) as database, database:
        ((leaf,),) = database.execute("SELECT leaf FROM entries WHERE idx = ?", (index,))
        other = leaf.replace(b'"case-system"', b'"nobody"')
        assert other != leaf
        database.execute("UPDATE entries SET leaf = ? WHERE idx = ?", (other, index))
        hashes = [merkle.leaf_hash(leaf) for (leaf,) in database.execute("SELECT leaf FROM entries ORDER BY idx")]
        database.execute("DELETE FROM cosignatures")
        for level, place, value in merkle.grow(0, [], hashes):
            database.execute("UPDATE nodes SET hash = ? WHERE level = ? AND idx = ?", (value, level, place))
        for (size,) in database.execute("SELECT size FROM heads").fetchall():
            root = merkle.root_of(hashes[:size])
            note = sign_checkpoint(ORIGIN, size, root, key)
            database.execute("UPDATE heads SET root = ?, note = ? WHERE size = ?", (root, note, size))


def settled(watched: Watched) -> tuple[Checkpoint, Checkpoint]:
    """What witness and partner know now, of sizes that heads of the log have."""
    return watched.witness().look().head, watched.partner().checkpoint()


def found_by_both(watched: Watched, *codes: str) -> None:
    """Witness and partner refuse what the bus now offers, with one of these codes."""
    for look in (watched.witness().look, watched.partner().checkpoint):
        with pytest.raises(Refusal) as refused:
            look()
        assert refused.value.code in codes


def proven_elsewhere(watched: Watched, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> int:
    """How many fork proofs the partner's folder holds. Each is taken to an empty folder with only the anchors."""
    proofs = [fork / "fork.json" for fork in watched.forks() if (fork / "fork.json").exists()]
    for number, proof in enumerate(proofs):
        alone = tmp_path / f"alone-{number}"
        alone.mkdir()
        shutil.copy(proof, alone / "fork.json")
        shutil.copy(watched.folder.path / "anchors.json", alone / "anchors.json")
        words = ["verify", str(alone / "fork.json"), "--anchors", str(alone / "anchors.json")]
        capsys.readouterr()
        assert command_line.main([*words, "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert (said["kind"], said["ok"], said["origin"]) == ("fork", True, ORIGIN)
        assert command_line.main(words) == 0
        assert "FORK PROVEN 日志分叉" in capsys.readouterr().out
    return len(proofs)


def test_a_truncated_log_is_found_at_once_and_proven_once_it_grows(
    watched: Watched, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    watched.grow(9)
    witnessed, remembered = settled(watched)
    watched.exchange(partial(truncated, size=4))
    found_by_both(watched, "audit.log_truncated")
    assert proven_elsewhere(watched, tmp_path, capsys) == 0, "a shorter log says nothing of the entries it lost"
    verdict = audit.verify(watched.file, watched.test.anchors)
    assert verdict.ok, "the file itself is without fault"
    verdict = audit.verify(watched.file, watched.test.anchors, [witnessed])
    assert "entries are gone" in verdict.problems[0].what
    watched.grow_beyond(max(witnessed.size, remembered.size))
    found_by_both(watched, "audit.log_forked")
    assert proven_elsewhere(watched, tmp_path, capsys) == 2


def test_a_log_rolled_back_to_a_backup_and_extended_is_found_and_proven(
    watched: Watched, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backup = tmp_path / "backup.sqlite"
    watched.exchange(lambda file: shutil.copy(file, backup) and None)
    watched.grow(9)
    witnessed, remembered = settled(watched)
    watched.exchange(lambda file: shutil.copy(backup, file) and None)
    found_by_both(watched, "audit.log_truncated")
    watched.grow_beyond(max(witnessed.size, remembered.size))
    found_by_both(watched, "audit.log_forked")
    assert proven_elsewhere(watched, tmp_path, capsys) == 2
    assert not audit.verify(watched.file, watched.test.anchors, [witnessed]).ok


def test_two_copies_of_a_log_that_go_on_differently_are_found_and_proven(
    watched: Watched, start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One copy is shown to the witness and partner, the other to everybody else: until they look at the other."""
    other = tmp_path / "other"
    other.mkdir()
    watched.exchange(lambda file: shutil.copy(file, other / file.name) and None)
    ours, serving = watched.bus, watched.running
    journal = Journal(
        SqliteFile(other, "journal"), ORIGIN, watched.test.log_key, now, partial(issue_receipts, key=ours.answer_key),
        partial(issue_reports, key=ours.answer_key), ours.evidence.sync,
    )  # fmt: skip
    twin = msgspec.structs.replace(ours, journal=journal, attestations=Attestations(SqliteFile(other, "journal")))
    watched.grow(2)
    sizes = [head.size for head in settled(watched)]
    watched.bus, watched.running = twin, start(make_app(twin, tmp_path / "spool"))
    watched.grow_beyond(max(sizes))
    found_by_both(watched, "audit.log_forked")
    assert proven_elsewhere(watched, tmp_path, capsys) == 2
    watched.running.stop()
    journal.close()
    twin.attestations.close()
    watched.bus, watched.running = ours, serving
    watched.grow()
    assert watched.witness().look().head.size > sizes[0], "the copy that it knows goes on"


@pytest.mark.parametrize("index", [0, 2])
def test_a_log_written_anew_and_signed_with_the_stolen_key_is_found_and_proven(
    watched: Watched, index: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    watched.grow(3)
    witnessed, _ = settled(watched)
    watched.exchange(partial(rewritten, key=watched.test.log_key, index=index))
    verdict = audit.verify(watched.file, watched.test.anchors)
    assert verdict.ok, "with the log's key all of it agrees"
    found_by_both(watched, "audit.log_forked")
    assert proven_elsewhere(watched, tmp_path, capsys) == 2
    checkpoint = str(watched.folder.path / "witness" / "checkpoint")
    anchors = str(watched.folder.path / "anchors.json")
    words = ["audit", "verify", "--journal", str(watched.file), "--anchors", anchors, "--json"]
    assert command_line.main(words) == 0
    capsys.readouterr()
    assert command_line.main([*words, "--against", checkpoint]) == 1
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert problem["entry"] == witnessed.size - 1
    assert "the log was rewritten" in problem["what"]


def test_the_log_that_was_not_touched_is_that_of_every_remembered_head(watched: Watched) -> None:
    heads = settled(watched)
    watched.grow(3)
    assert audit.verify(watched.file, watched.test.anchors, heads).ok


@pytest.mark.parametrize("size", [1, 2, 4, 8, 16, 3, 7, 12])
def test_a_fork_is_proven_from_a_remembered_head_of_any_size(watched: Watched, size: int) -> None:
    """Of a power of two, a consistency proof lacks the first tree's own root; the witness asks for it."""
    forged = sign_checkpoint(ORIGIN, size, sha256(b"another").digest(), watched.test.log_key)
    watched.folder.keep_cosigned(forged)
    watched.grow_beyond(size)
    with pytest.raises(Refusal, match=r"audit\.log_forked"):
        watched.witness().look()
    (fork,) = watched.forks()
    proof = open_fork((fork / "fork.json").read_bytes(), watched.test.anchors)
    assert proof.first.size == size


def test_a_bus_that_will_not_prove_is_refused_and_both_heads_are_kept(watched: Watched) -> None:
    watched.witness().look()
    watched.grow(2)

    class Silent(Log):
        def consistency(self, first: int, second: int) -> tuple[bytes, ...]:
            return ()

    with pytest.raises(Refusal, match=r"audit\.log_forked"):
        LogWitness(watched.folder, Silent(watched.folder, watched.url), NAME, watched.key, now).look()
    (fork,) = watched.forks()
    assert sorted(path.name for path in fork.iterdir()) == ["offered.checkpoint", "remembered.checkpoint"]
