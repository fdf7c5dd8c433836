"""`yongtong doctor`: each check turned red by a real fault, and the sentence names the thing."""

import fcntl
import json
import re
import shutil
import socket
import sqlite3
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from exchange.app import keys_in_force, places, trusted
from exchange.cli import main as command_line
from exchange.cli.people import registry
from exchange.cli.trial import APPROVER, AUDITOR, PROPOSER, SYSTEM
from exchange.decision_documents import Officer, approval_of, proposal_of
from exchange.doctor.check import Check
from exchange.doctor.examine import CHECKS, examine
from exchange.entry import Detail
from exchange.http.server import listen
from exchange.http.tls import server_context
from exchange.journal import Entry
from exchange.registry import Bureau
from exchange.settings import load_settings
from security import pki
from security.errors import Refusal
from security.keys import SigningKey, generate
from security.message import Use
from security.revocation import read_list
from tests.registers import LAMPS
from tests.security.authorities import Holder
from tests.whole.real_bus import a_trial

NOW = places.utc_now()
DAY, YEAR = timedelta(days=1), timedelta(days=365)
OF_A_RUNNING_BUS = ("clock.agrees", "deliveries.sound")  # tests/watch/test_rounds.py
HERE: dict[str, Any] = {"begins": NOW - DAY, "ends": NOW + YEAR}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bus with the bureau `water`, as it is made."""
    trial = a_trial(tmp_path_factory.mktemp("made"))
    trial.enrol("water", "Water bureau", "水务局")
    return trial.folder


class Bus:
    """A copy of it, to be harmed."""

    def __init__(self, folder: Path) -> None:
        self.path, self.keys, self.state = folder / "settings.toml", folder / "keys", folder / "state"
        self.now, self.least_free_bytes = places.utc_now() + timedelta(minutes=1), 1 << 20

    def set(self, old: str, new: str) -> None:
        text = self.path.read_text(encoding="utf-8")
        assert re.search(old, text)
        self.path.write_text(re.sub(old, new, text), encoding="utf-8")

    def add(self, lines: str) -> None:
        self.path.write_text(f"{self.path.read_text(encoding='utf-8')}\n{lines}\n", encoding="utf-8")

    def examined(self) -> list[Check]:
        return examine(load_settings(self.path), self.now, self.least_free_bytes)

    def red(self) -> dict[str, str]:
        """What is red: by name, all that is said of it."""
        said: dict[str, str] = {}
        for check in self.examined():
            if not check.ok:
                assert all((check.zh, check.en, check.next_zh, check.next_en))
                said[check.name] = f"{said.get(check.name, '')} {check.zh} {check.en}"
        return said

    def enrol(self, der: bytes, use: Use, bureau: str = "water") -> str:
        with registry(load_settings(self.path)) as opened:
            certificate = pki.enrolled(der, bureau, use)
            titled = Bureau(bureau, "Water bureau", "水务局", "supplier")
            opened.approve(opened.propose_enrolment(titled, [certificate], PROPOSER), APPROVER)
        return certificate.fingerprint

    def issue(self, use: Use, ends: datetime) -> bytes:
        ca = keys_in_force.authority(load_settings(self.path))
        return pki.issue(ca, "water", generate("ES256").public_key, use, NOW - DAY, ends)

    def authority(self, ca: Holder, *more: str) -> None:
        """A CA of the city's in the settings."""
        (self.path.parent / "city.pem").write_bytes(pki.pem_of(ca.der))
        self.add("\n".join(["[[authority]]", 'certificates = "city.pem"', *more]))


@pytest.fixture
def bus(made: Path, tmp_path: Path) -> Bus:
    shutil.copytree(made, tmp_path / "bus")
    return Bus(tmp_path / "bus")


def test_a_healthy_bus_is_green_everywhere(bus: Bus) -> None:
    found = bus.examined()
    assert [check for check in found if not check.ok] == []
    areas = {check.name.partition(".")[0] for check in found}
    assert areas == {
        *("bus", "keys", "chain", "days", "place", "journal", "registry", "certificates", "mqtt"),
        *("decisions", "evidence", "feeds", "timestamps", "sequence", "queue", "log", "inbox", "alarms", "erasures"),
        *("map", "packages"),
    }
    assert len(found) >= len(CHECKS) - len(OF_A_RUNNING_BUS)


def another_ca(bus: Bus) -> None:
    """A TLS certificate of the right key by an authority of the same name, which is not ours."""
    settings = load_settings(bus.path)
    ours = keys_in_force.authority(settings)
    name = f"{settings.bus.origin} CA"
    key = SigningKey.load(bus.keys / "tls.key")
    der = pki.issue(pki.make_ca(name, NOW), "tls", key.public_key, "connection", NOW - DAY, NOW + YEAR)
    assert der != ours.certificate_der
    (bus.keys / "tls.pem").write_bytes(pki.pem_of(der))


def keys_into_state(bus: Bus) -> None:
    bus.keys.rename(bus.state / "keys")
    bus.set('folder = "keys"', 'folder = "state/keys"')


def another_key(bus: Bus) -> None:
    (bus.keys / "tls.key").write_bytes(generate("ES256").pem())


def anchors_of_another(bus: Bus) -> None:
    path = bus.state / "anchors.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "log_key": "00" * 32}))


def journal_of_rubbish(bus: Bus) -> None:
    for path in bus.state.glob("journal.sqlite*"):
        path.unlink()
    (bus.state / "journal.sqlite").write_bytes(b"rubbish" * 1000)


def soon(bus: Bus) -> None:
    bus.now = NOW + YEAR - timedelta(days=3)


def no_more_days(bus: Bus) -> None:
    bus.now = NOW + 10 * YEAR + DAY


def unreadable_chain(bus: Bus) -> None:
    bus.authority(Holder("City CA", ends=NOW - DAY, begins=NOW - YEAR))


def stranger_connects(bus: Bus) -> None:
    bus.enrol(Holder("Stranger CA", **HERE).leaf(**HERE).der, "connection")


def clock_behind(bus: Bus) -> None:
    bus.now = NOW - timedelta(minutes=1)


def sql(statement: str) -> Callable[[Bus], None]:
    """What somebody with the database's password does."""

    def harm(bus: Bus) -> None:
        with closing(sqlite3.connect(bus.state / "journal.sqlite")) as connection:
            assert connection.execute(statement).rowcount == 1
            connection.commit()

    return harm


def executed(bus: Bus, statement: str) -> None:
    with closing(sqlite3.connect(bus.state / "journal.sqlite")) as connection:
        connection.execute(statement)


def forged(edited: bool, first: Officer, second: Officer) -> Callable[[Bus], None]:
    """What somebody does who has the bus's own program: a grant approved by its proposer, or edited after approval."""

    def harm(bus: Bus) -> None:
        with registry(load_settings(bus.path)) as opened:
            id = opened.propose_grant(
                bureau="water", action="pull", target="ownership", classes=["0101"], valid_from="2026-01-01",
                valid_until="2099-01-01", purpose="p", basis="b", by=PROPOSER,
            )  # fmt: skip
            (document,) = (one.document for _, one in opened.proposals())
            wide = msgspec.structs.replace(document, body={**document.body, "classes": []}) if edited else document
            detail: Detail = {"proposal": proposal_of(wide, first, NOW), "approval": approval_of(document, second, NOW)}

            def also(cursor: sqlite3.Cursor, index: int) -> None:
                cursor.execute("INSERT INTO decisions VALUES (?, ?, 'approved')", (index, id))

            opened.journal.note(Entry(type="decision", outcome="approved", detail=detail), also).result()

    return harm


def dismissed(bus: Bus) -> None:
    with registry(load_settings(bus.path)) as opened:
        opened.revoke("person", opened.person(APPROVER.key.public_key).pseudonym, PROPOSER)


def unreleased(bus: Bus) -> None:
    (bus.path.parent / "more").mkdir()
    (bus.path.parent / "more" / "made-up-lamps.toml").write_text(LAMPS, encoding="utf-8")
    bus.set(r"folders = \[", 'folders = ["more", ')


# By fault: how it is done, which check is red, and what its sentence must name.
def unstamped(hours: int) -> Callable[[Bus], None]:
    def harm(bus: Bus) -> None:
        (bus.path.parent / "tsa.pem").write_bytes(pki.pem_of(Holder("TSA root", **HERE).der))
        bus.add('[timestamps]\nurls = ["http://127.0.0.1:1/"]\ncertificates = "tsa.pem"')
        bus.now += timedelta(hours=hours)

    return harm


FAULTS: dict[str, tuple[Callable[[Bus], object], str, str]] = {
    "no bus": (lambda bus: (bus.state / "origin.json").unlink(), "bus.origin", "state"),
    "another origin": (lambda bus: bus.set('origin = ".*"', 'origin = "other.example"'), "bus.origin", "other.example"),
    "a key is missing": (lambda bus: (bus.keys / "outcome.secret").unlink(), "keys.present", "outcome.secret"),
    "a key that others read": (lambda bus: (bus.keys / "ca.key").chmod(0o640), "keys.private", "ca.key"),
    "a folder that others enter": (lambda bus: bus.keys.chmod(0o755), "keys.private", "0755"),
    "keys among the state": (keys_into_state, "keys.private", "state/keys"),
    "a key of another certificate": (another_key, "keys.tls", "tls.key"),
    "a certificate of another authority": (another_ca, "chain.tls", "CN=tls, serial"),
    "own certificates ended": (no_more_days, "chain.answer", "CN=yongtong.demo.invalid DEMO answer, serial"),
    "own certificates end": (no_more_days, "days.own", "answer"),
    "anchors of another log": (anchors_of_another, "keys.anchors", "log_key"),
    "another evidence key": (
        lambda bus: (bus.keys / "evidence.key").write_bytes(b"k" * 32), "keys.evidence", "evidence.key"
    ),
    "a feed that does not load": (
        lambda bus: bus.set(r"folders = \[", r'folders = ["no-such-folder", '), "place.feeds", "no-such-folder"
    ),
    "no districts": (lambda bus: bus.set("city/districts", "city/none"), "place.city", "none"),
    "no converter": (
        lambda bus: bus.add('[drawings]\ndwg2dxf = "/no/such/dwg2dxf"'), "place.converter", "/no/such/dwg2dxf: No such"
    ),
    "a converter that fails": (
        lambda bus: bus.add('[drawings]\ndwg2dxf = "/bin/false"'), "place.converter", "ended with exit 1"
    ),
    "a full disk": (lambda bus: setattr(bus, "least_free_bytes", 1 << 60), "place.disk", "state"),
    "no journal": (lambda bus: (bus.state / "journal.sqlite").unlink(), "journal.opens", "journal.sqlite"),
    "a damaged journal": (journal_of_rubbish, "journal.opens", "not a database"),
    "a clock behind the log": (clock_behind, "place.clock", f"{NOW - timedelta(minutes=1):%H:%M}"),
    "a grant by SQL": (
        sql("INSERT INTO decisions VALUES (9999, 'g-forged', 'approved')"), "decisions.hold", "g-forged"
    ),
    "a decision hidden": (
        sql("DELETE FROM decisions WHERE entry_index = (SELECT max(entry_index) FROM decisions)"), "decisions.found",
        "hidden",
    ),
    "a name altered": (
        sql(f"UPDATE persons SET name = ' {SYSTEM.name} ' WHERE name = '{AUDITOR.name}'"), "decisions.hold",
        "person.name_altered",
    ),
    "one security officer alone": (dismissed, "decisions.deciders", "1 security"),
    "a trigger": (
        lambda bus: executed(bus, "CREATE TRIGGER z BEFORE UPDATE ON heads BEGIN SELECT 1; END"),
        "decisions.triggers", "z",
    ),
    "a head that nobody signed": (sql("UPDATE heads SET note = NULL WHERE size = (SELECT max(size) FROM heads)"),
        "decisions.signed", "signed head"),
    "approved by its proposer": (forged(False, PROPOSER, PROPOSER), "decisions.hold", "decision.same_person"),
    "edited after approval": (forged(True, PROPOSER, APPROVER), "decisions.hold", "decision.other_document"),
    "a mapping nobody released": (unreleased, "feeds.released", "made-up-lamps"),
    "bureaus' certificates end": (soon, "days.enrolled", "water signing"),
    "bureaus' certificates ended": (no_more_days, "certificates.enrolled", "water signing"),
    "a connection of nobody's authority": (stranger_connects, "certificates.enrolled", "issuer CN=Stranger CA"),
    "a city's CA that has ended": (unreadable_chain, "certificates.authorities", "CN=City CA"),
    "no timestamp for an hour": (unstamped(1), "timestamps.covered", "this is the alarm"),
    "no timestamp for 4 hours": (unstamped(4), "timestamps.covered", "answers say that it is pending"),
    "no timestamp for a day": (unstamped(24), "timestamps.covered", "pushes are refused, reads go on"),
    "no file of timestamp roots": (
        lambda bus: bus.add('[timestamps]\nurls = ["http://127.0.0.1:1/"]\ncertificates = "none.pem"'),
        "timestamps.covered", "none.pem",
    ),
    "timestamps too rarely": (
        lambda bus: (unstamped(0)(bus), bus.add("every_s = 3600.0")), "timestamps.covered", "less than alarm_s"
    ),
    "pushes refused before the alarm": (
        lambda bus: (unstamped(0)(bus), bus.add("refused_s = 3600.0")), "timestamps.covered", "greater than"
    ),
    "timestamps by nobody": (
        lambda bus: bus.add('[timestamps]\nurls = ["http://127.0.0.1:1/"]'), "timestamps.covered", "go together"
    ),
    "no file of the city's CA": (
        lambda bus: bus.add('[[authority]]\ncertificates = "none.pem"'), "certificates.authorities", "none.pem"
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_turns_its_check_red_and_is_named(bus: Bus, fault: str) -> None:
    harm, name, words = FAULTS[fault]
    harm(bus)
    red = bus.red()
    assert name in red
    assert words in red[name]


def test_one_fault_turns_nothing_else_red(bus: Bus) -> None:
    (bus.keys / "log.key").chmod(0o644)
    assert set(bus.red()) == {"keys.private"}


def test_a_sick_bus_is_examined_to_the_end(bus: Bus) -> None:
    """Nothing there but the folders: every check that can be made is made."""
    for path in [*bus.keys.iterdir(), *bus.state.glob("journal*")]:
        path.unlink()
    red = bus.red()
    assert {"keys.present", "keys.tls", "journal.opens", "keys.anchors", "chain.own", "keys.evidence"} <= set(red)
    assert "place.feeds" in {check.name for check in bus.examined() if check.ok}
    assert not (bus.state / "journal.sqlite").exists(), "looking makes nothing"


# Bureaus' certificates -----------------------------------------------------------------------------------------------


def test_a_certificate_with_a_successor_may_have_ended(bus: Bus) -> None:
    bus.now = NOW + YEAR + DAY
    for use in ("signing", "connection"):
        bus.enrol(bus.issue(use, NOW + 2 * YEAR), use)  # type: ignore[arg-type]
    assert bus.red() == {}


def test_a_revoked_certificate_is_not_looked_at(bus: Bus) -> None:
    ended = bus.enrol(bus.issue("signing", NOW), "signing", "power")
    assert "power signing" in bus.red()["certificates.enrolled"]
    with registry(load_settings(bus.path)) as opened:
        opened.revoke_certificate(ended, PROPOSER)
    assert bus.red() == {}


def test_a_signing_certificate_counts_whoever_issued_it(bus: Bus) -> None:
    """Trust is by enrolment. A chain that leads to a known authority must hold nevertheless."""
    city = Holder("City CA", **HERE)
    bus.enrol(city.leaf(**HERE).der, "signing", "power")
    assert bus.red() == {}
    bus.authority(Holder("City CA", **HERE))
    assert "chain.signature_invalid: CN=water" in bus.red()["certificates.enrolled"]


def test_what_the_citys_authority_says_is_told(bus: Bus) -> None:
    city, url = Holder("City CA", **HERE), "http://ca.example/ca.crl"
    leaf = city.leaf(**HERE)
    bus.enrol(leaf.der, "signing", "power")
    bus.authority(city, f'crl = ["{url}"]')
    assert f"{url} has never given" in bus.red()["revocation.known"]
    revocations = trusted.open_revocations(load_settings(bus.path))
    read = partial(read_list, authorities=(city.der,), at=bus.now)
    dated = {"at": NOW - DAY, "until": NOW + DAY}
    revocations.keep((url, ""), city.crl(**dated), read, bus.now)
    assert bus.red() == {}
    revocations.failed((url, ""), Refusal("fetch.too_slow", f"{url}: 10 s"), bus.now)
    assert "fetch.too_slow" in bus.red()["revocation.known"]
    revocations.keep((url, ""), city.crl(leaf, since=NOW - DAY, **dated), read, bus.now)
    assert "power signing" in bus.red()["certificates.enrolled"]
    assert "auth.certificate_revoked" in bus.red()["certificates.enrolled"]
    bus.now = NOW + 2 * DAY + timedelta(minutes=1)
    assert "should have renewed" in bus.red()["revocation.known"]


# The broker ----------------------------------------------------------------------------------------------------------


@contextmanager
def broker_of(certificate: Path, key: Path, client_ca: Path) -> Iterator[int]:
    """Somebody who shakes hands with whoever has a certificate of the CA, and then waits to be spoken to."""
    tls = server_context(certificate, key, client_ca)
    tls.verify_mode = ssl.CERT_REQUIRED

    def serve() -> None:
        while True:
            try:
                plain, _ = listening.accept()
            except OSError:
                return
            try:
                with tls.wrap_socket(plain, server_side=True) as connection:
                    connection.recv(1)
            except OSError:
                continue

    with closing(listen("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def test_a_broker_of_the_citys_is_reached_with_our_certificate(bus: Bus, tmp_path: Path) -> None:
    ca = pki.make_ca("Broker CA", NOW)
    (tmp_path / "ca.pem").write_bytes(pki.pem_of(ca.certificate_der))
    key = generate("ES256")
    der = pki.issue(ca, "broker", key.public_key, "connection", NOW - DAY, NOW + YEAR, ["127.0.0.1"])
    (tmp_path / "b.pem").write_bytes(pki.pem_of(der))
    (tmp_path / "b.key").write_bytes(key.pem())
    files = (tmp_path / "b.pem", tmp_path / "b.key")
    bus.set(r"\[mqtt\]", f'[mqtt]\nca = "{tmp_path}/ca.pem"')
    with broker_of(*files, bus.keys / "ca.pem") as port:
        bus.set(r"\[mqtt\]", f'[mqtt]\nbroker = "mqtts://127.0.0.1:{port}"')
        assert bus.red() == {}
    assert f"127.0.0.1:{port}" in bus.red()["mqtt.broker"], "nobody listens any more"
    with broker_of(*files, tmp_path / "ca.pem") as refusing:
        bus.set(f":{port}", f":{refusing}")
        assert "UNKNOWN_CA" in bus.red()["mqtt.broker"], "it does not want our certificate"
    bus.set(f'ca = "{tmp_path}/ca.pem"', "")
    with broker_of(*files, bus.keys / "ca.pem") as other:
        bus.set(f":{refusing}", f":{other}")
        assert "certificate" in bus.red()["mqtt.broker"], "we do not know who issued its"


def test_the_embedded_broker_is_tried_while_serve_runs(bus: Bus) -> None:
    with closing(listen("127.0.0.1", 0)) as listening, (bus.state / "serve.lock").open("w") as lock:
        port = listening.getsockname()[1]
        bus.set("port = 0", "port = 1")  # serve was told --mqtt-port
        print("127.0.0.1", port, file=lock, flush=True)
        assert bus.red() == {}, "serve does not run: its broker need not answer"
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert bus.red() == {}
        listening.close()
        assert f"127.0.0.1:{port}" in bus.red()["mqtt.broker"]


# The command ---------------------------------------------------------------------------------------------------------


def told(bus: Bus, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str]:
    code = command_line.main(["doctor", "--settings", str(bus.path), *options])
    return code, capsys.readouterr().out


def test_the_command_says_so_in_two_languages_and_by_its_exit(bus: Bus, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = told(bus, capsys, "--json")
    document = json.loads(out)
    assert (code, document["ok"]) == (0, True)
    (bus.keys / "log.key").chmod(0o644)
    code, out = told(bus, capsys, "--json")
    document = json.loads(out)
    assert (code, document["ok"]) == (1, False)
    (red,) = (check for check in document["checks"] if not check["ok"])
    assert set(red) == {"name", "ok", "zh", "en", "next_zh", "next_en", "about"}
    code, out = told(bus, capsys)
    assert code == 1
    for words in ("✗ keys.private", "其他账户可以访问", "other accounts can get at it", "→ 请执行 chmod 600"):
        assert words in out


@pytest.mark.parametrize("text", ["[bus", "[bus]\nname = 1\n", ""])
def test_settings_that_cannot_be_used_are_a_finding_and_no_crash(
    bus: Bus, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    bus.path.write_text(text)
    code, out = told(bus, capsys, "--json")
    (check,) = json.loads(out)["checks"]
    assert (code, check["name"], "settings.toml" in check["zh"]) == (1, "settings.read", True)
