"""Every command once with good and once with bad input: exit code, one JSON document, two languages, the next step."""

import argparse
import json
import shlex
import socket
import sqlite3
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from exchange.app import places
from exchange.cli import main as command_line
from exchange.cli.people import registry
from exchange.cli.trial import APPROVER, PROPOSER, SYSTEM
from exchange.stopped import start_feed, stop_feed
from security.errors import Misconfigured, Refusal, sentences
from security.keys import generate
from security.message import in_memory
from tests.registers import LAMPS
from tests.whole.real_bus import FEED, RealBus, a_trial, csv, place, rows

BY = ("--by", APPROVER.name)
WHY = ("--ground", "试验", "--by", SYSTEM.name)
TITLES = ("--title", "A bureau", "--title-zh", "某局")
Arguments = list[str]


@dataclass(frozen=True)
class Desk:
    """Somebody before a running bus, with a folder and an id of their own. Methods prepare what a command needs."""

    bus: RealBus
    folder: Path
    id: str

    @property
    def here(self) -> Arguments:
        """On the bus's own machine."""
        return ["--settings", self.bus.trial.settings.source]

    @property
    def partner(self) -> Arguments:
        """At the bureau's."""
        return ["--as", "made-up", "--url", self.bus.url, "--partners", str(self.bus.trial.partners)]

    @property
    def anchors(self) -> Arguments:
        return ["--anchors", str(self.bus.folder().path / "anchors.json")]

    def file(self, octets: bytes = b"", name: str = "register.csv") -> str:
        """A file to send, a right one unless its octets are given."""
        path = self.folder / name
        path.write_bytes(octets or csv(rows(self.id)))
        return str(path)

    def pushed(self) -> str:
        """A delivery that was processed; its message id."""
        self.bus.partner().push(FEED, in_memory(csv(rows(self.id))), "text/csv", self.id)
        assert self.bus.partner().report(self.id, wait_s=30).status == "processed"
        return self.id

    def dead(self) -> str:
        """A delivery that could not be applied; its message id."""
        self.bus.partner().push(FEED, in_memory(b"PK\x03\x04cut"), "text/csv", self.id)
        assert self.bus.partner().report(self.id, wait_s=30).status == "refused"
        return self.id

    def feed(self, *, stopped: bool) -> str:
        """A feed that is stopped, or is not."""
        with registry(self.bus.trial.settings) as opened, suppress(Refusal):
            if stopped:
                stop_feed(opened, "made-up-lamps", refuses=False, ground="g", by=SYSTEM)
            else:
                start_feed(opened, "made-up-lamps", "g", SYSTEM)
        return "made-up-lamps"

    def receipt(self) -> Path:
        """The receipt of a delivery, as a file."""
        self.pushed()
        return self.bus.folder().path / "receipts" / f"{self.id}.receipt.json"

    def remembered(self) -> str:
        """A file with the head that the bureau remembers."""
        self.pushed()
        return str(self.bus.folder().path / "checkpoint")

    def entry(self) -> str:
        """The number of a delivery's entry."""
        return str(self.bus.partner().receipt(self.pushed()).document["index"])

    def there(self) -> Arguments:
        """The place of the first record of the delivery, once it was processed."""
        self.pushed()
        return [str(degrees) for degrees in place(self.id)]

    def component(self) -> str:
        """A component that the delivery named."""
        self.pushed()
        (near,) = self.bus.partner().nearest(*place(self.id), 2.0, purpose="test")
        return str(near.ownership.component.key)

    def bureau(self) -> str:
        """A bureau newly enrolled; its code."""
        self.bus.trial.enrol(self.id, "A bureau", "某局")
        return self.id

    def fingerprint(self) -> str:
        """A certificate of a bureau newly enrolled."""
        code = self.bureau()
        with registry(self.bus.trial.settings) as opened:
            return next(each.fingerprint for each in opened.certificates() if each.bureau == code)

    def proposed(self) -> str:
        """A grant that waits for a second person."""
        today = places.utc_now().date().isoformat()
        days = {"valid_from": today, "valid_until": today}
        with registry(self.bus.trial.settings) as opened:
            return opened.propose_grant(
                bureau=self.bureau(), action="push", target=FEED, purpose="p", basis="b", by=PROPOSER, **days
            )

    def people(self) -> str:
        """A folder for new keys of persons."""
        return str(self.folder / "people")

    def key(self) -> str:
        """The key of the person who acts."""
        return str(self.bus.trial.folder / "people" / f"{APPROVER.name}.key")

    def stray_key(self) -> str:
        """A key of nobody in office."""
        return self.file(generate("ES256").pem(), "stray.key")

    def public_key(self) -> str:
        """A new public key."""
        return self.file(generate("ES256").public_pem(), "public.pem")

    def request(self, name: str) -> str:
        """A request for a certificate, as OpenSSL makes it with a key that stays with the bureau."""
        csr = self.folder / f"{name}.csr"
        words = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=whatever"]
        command = ["openssl", "req", "-new", *words, "-keyout", str(csr.with_suffix(".key")), "-out", str(csr)]
        subprocess.run(command, check=True, capture_output=True)
        return str(csr)

    def copy(self, flipped: int) -> str:
        """A copy of the journal with a bit of one entry flipped."""
        path = self.folder / "journal.sqlite"
        source = f"file:{self.bus.trial.state / 'journal.sqlite'}?mode=ro"
        with closing(sqlite3.connect(source, uri=True)) as ours, closing(sqlite3.connect(path)) as copy:
            ours.backup(copy)
            (leaf,) = copy.execute("SELECT leaf FROM entries WHERE idx = ?", (flipped,)).fetchone()
            spoilt = bytes([*leaf[:-1], leaf[-1] ^ 1])
            copy.execute("UPDATE entries SET leaf = ? WHERE idx = ?", (spoilt, flipped))
            copy.commit()
        return str(path)

    def settings(self, old: str = "", new: str = "") -> Arguments:
        """Settings of a bus that was never made, with one thing changed."""
        text = Path(self.bus.trial.settings.source).read_text(encoding="utf-8")
        assert old in text
        path = self.folder / "settings.toml"
        path.write_text(text.replace(old, new) if old else text, encoding="utf-8")
        return ["--settings", str(path)]


@pytest.fixture
def desk(bus: RealBus, tmp_path: Path, request: pytest.FixtureRequest) -> Desk:
    return Desk(bus, tmp_path, f"cli-{zlib.crc32(request.node.nodeid.encode()):08x}")


def yongtong(*arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run the program in a folder."""
    command = [sys.executable, "-m", "exchange.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folder)


def one_document(stdout: str) -> dict[str, Any]:
    """stdout, which is one JSON document and nothing else."""
    document = json.loads(stdout)
    assert isinstance(document, dict)
    return document


# Good input: the command, and members that its document has ----------------------------------------------------------

Good = Callable[[Desk], tuple[Arguments, set[str]]]
GOOD: dict[str, Good] = {
    "feeds": lambda desk: (["feeds", *desk.here], {"feeds"}),
    "feed check": lambda desk: (["feed", "check", "made-up-lamps", *desk.here], {"feed", "examples", "unmet"}),
    "feed preview": lambda desk: (
        ["feed", "preview", FEED, desk.file(), "--limit", "1", *desk.here], {"records", "candidates", "findings"}
    ),
    "systems": lambda desk: (["systems", *desk.here], {"systems", "tolerance_cm"}),
    "push": lambda desk: (["push", FEED, desk.file(), *desk.partner], {"receipt", "status", "report"}),
    "receipt": lambda desk: (["receipt", desk.pushed(), *desk.partner], {"index", "proof", "checkpoint", "outcome"}),
    "report": lambda desk: (["report", desk.pushed(), *desk.partner], {"status", "report"}),
    "entries": lambda desk: (["entries", "--after", desk.entry(), *desk.partner], {"count", "entries", "next"}),
    "component": lambda desk: (["component", desk.component(), *desk.here], {"key", "identifier", "class_code"}),
    "component --as": lambda desk: (["component", desk.component(), *desk.partner], {"key", "identifier"}),
    "near": lambda desk: (["near", *desk.there(), "--radius", "2", "--class", "0101", *desk.here], {"near"}),
    "disputes": lambda desk: (["disputes", *desk.here], {"owners", "ties"}),
    "near --as": lambda desk: (["near", *desk.there(), "--radius", "2", *desk.partner], {"near"}),
    "changes": lambda desk: (["changes", "--limit", "2", *desk.here], {"changes", "next"}),
    "changes --as": lambda desk: (["changes", "--after", "1", *desk.partner], {"changes", "next"}),
    "export": lambda desk: (["export", str(desk.folder / f"{desk.pushed()}.csv"), *desk.partner], {"export"}),
    "grant propose subscribe": lambda desk: (
        ["grant", "propose", desk.bureau(), "subscribe", "changes", "--purpose", "p", "--basis", "b", *BY, *desk.here],
        {"grant", "state"},
    ),
    "ownership": lambda desk: (["ownership", desk.component(), *desk.here], {"component", "verdict", "claims"}),
    "ownership --on": lambda desk: (
        ["ownership", desk.component(), "--on", "2026-11-01", *desk.here], {"component", "on", "verdict", "roles"}
    ),
    "ownership --as --on": lambda desk: (
        ["ownership", desk.component(), "--on", "2026-11-01", "--purpose", "案件", "--case", "7", *desk.partner],
        {"component", "on", "verdict", "roles", "claims"},
    ),
    "bureau enrol": lambda desk: (
        ["bureau", "enrol", desk.id, *TITLES, "--new-keys", str(desk.folder), *BY, *desk.here],
        {"bureau", "certificates"},
    ),
    "bureau enrol by requests": lambda desk: (
        ["bureau", "enrol", desk.id, *TITLES, "--signing-csr", desk.request("s"), "--connection-csr", desk.request("c"),
         "--out", str(desk.folder), *BY, *desk.here],
        {"bureau", "certificates", "decision", "state"},
    ),
    "bureau list": lambda desk: (["bureau", "list", *desk.here], {"bureaus", "certificates"}),
    "bureau revoke": lambda desk: (
        ["bureau", "revoke", desk.fingerprint(), *BY, *desk.here], {"certificate", "state"}
    ),
    "grant propose": lambda desk: (
        ["grant", "propose", desk.bureau(), "pull", "ownership", "--purpose", "p", "--basis", "b", *BY, *desk.here],
        {"grant", "state"},
    ),
    "grant approve": lambda desk: (["grant", "approve", desk.proposed(), *BY, *desk.here], {"grant", "state"}),
    "grant list": lambda desk: (["grant", "list", *desk.here], {"grants"}),
    "grant revoke": lambda desk: (["grant", "revoke", desk.proposed(), *BY, *desk.here], {"grant", "state"}),
    "feed release": lambda desk: (
        ["feed", "release", FEED, "--by", SYSTEM.name, *desk.here], {"feed", "digest", "decision", "state"}
    ),
    "layers": lambda desk: (["layers", *desk.here], {"layers", "placed_by"}),
    "person list": lambda desk: (["person", "list", *desk.here], {"persons"}),
    "person appoint": lambda desk: (
        ["person", "appoint", desk.id, "audit", "--new-key", "--people", desk.people(), "--key", desk.key(), *BY,
         *desk.here],
        {"decision", "person", "role", "state"},
    ),
    "decision list": lambda desk: (["decision", "list", *desk.here], {"decisions"}),
    "decision approve": lambda desk: (["decision", "approve", desk.proposed(), *BY, *desk.here], {"grant", "state"}),
    "decision withdraw": lambda desk: (
        ["decision", "withdraw", desk.proposed(), *BY, *desk.here], {"decision", "state"}
    ),
    "held list": lambda desk: (["held", "list", *desk.here], {"held"}),
    "feed stop": lambda desk: (
        ["feed", "stop", desk.feed(stopped=False), *WHY, *desk.here], {"feed", "state", "entry"}
    ),
    "feed start": lambda desk: (
        ["feed", "start", desk.feed(stopped=True), *WHY, *desk.here], {"feed", "state", "entry"}
    ),
    "dead list": lambda desk: (["dead", "list", "--feed", FEED, *desk.here], {"dead"}),
    "dead show": lambda desk: (["dead", "show", desk.dead(), *desk.here], {"cause", "tries", "since", "tried"}),
    "dead replay": lambda desk: (["dead", "replay", desk.dead(), *WHY, *desk.here], {"id", "state", "outcomes"}),
    "dead replay --preview": lambda desk: (
        ["dead", "replay", desk.dead(), "--preview", *desk.here], {"preview", "outcomes", "records", "not_released"}
    ),
    "dead jobs": lambda desk: (["dead", "jobs", *desk.here], {"jobs"}),
    "audit search": lambda desk: (["audit", "search", "--type", "bureau", "--limit", "2", *desk.here], {"entries"}),
    "audit verify": lambda desk: (["audit", "verify", *desk.here], {"ok", "entries", "receipts", "problems"}),
    "audit prove": lambda desk: (["audit", "prove", "0", *desk.here], {"index", "leaf", "proof", "checkpoint"}),
    "audit checkpoint": lambda desk: (["audit", "checkpoint", *desk.here], {"checkpoint"}),
    "audit verify --against": lambda desk: (
        ["audit", "verify", "--against", desk.remembered(), *desk.here], {"ok", "entries", "problems"}
    ),
    "audit anchors": lambda desk: (["audit", "anchors", *desk.here], {"origin", "log_key", "authorities"}),
    "witness --new-key": lambda desk: (
        ["witness", "--new-key", "--name", "w.example", "--key", str(desk.folder / "w.key"), *desk.partner],
        {"witness", "key", "file"},
    ),
    "verify": lambda desk: (["verify", str(desk.receipt()), *desk.anchors], {"ok", "kind", "document"}),
    "init": lambda desk: (["init", "--edition", "2007", *desk.settings()], {"origin", "edition", "anchors"}),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_a_command_answers_with_one_json_document(desk: Desk, name: str) -> None:
    arguments, members = GOOD[name](desk)
    done = yongtong(*arguments, "--json", folder=desk.folder)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert members <= one_document(done.stdout).keys()


@pytest.mark.parametrize("name", GOOD)
def test_a_command_answers_a_person(desk: Desk, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, _ = GOOD[name](desk)
    assert command_line.main(arguments) == 0
    assert len(capsys.readouterr().out) > 20


# Bad input: the command, and the code under which it is refused -------------------------------------------------------

Bad = Callable[[Desk], Arguments]
REFUSED: dict[str, tuple[str, Bad]] = {
    "feed check": ("feed.unknown", lambda desk: ["feed", "check", "nobody-knows", *desk.here]),
    "feed preview": (
        "decode.not_readable", lambda desk: ["feed", "preview", FEED, desk.file(b"PK\x03\x04cut", "a.xlsx"), *desk.here]
    ),
    "push": ("auth.feed_of_other", lambda desk: ["push", "water-register", desk.file(), *desk.partner]),
    "receipt": ("delivery.unknown", lambda desk: ["receipt", "never-sent", *desk.partner]),
    "report": ("delivery.unknown", lambda desk: ["report", "never-sent", *desk.partner]),
    "report --record": (
        "report.record_unknown",
        lambda desk: ["report", desk.pushed(), "--record", "no", "--out", str(desk.folder / "p"), *desk.partner],
    ),
    "component": ("component.unknown", lambda desk: ["component", "999999999", *desk.here]),
    "component --as": ("component.unknown", lambda desk: ["component", "999999999", *desk.partner]),
    "near": ("component.radius_too_large", lambda desk: ["near", "121.5", "29.8", "--radius", "501", *desk.here]),
    "ownership": ("component.unknown", lambda desk: ["ownership", "none", "--on", "2026-11-01", *desk.here]),
    "ownership --as": ("component.unknown", lambda desk: ["ownership", "999999999", *desk.partner]),
    "export": (
        "auth.no_grant", lambda desk: ["export", str(desk.folder / "a.csv"), *desk.partner[2:], "--as", "water"]
    ),
    "bureau enrol": (
        "registry.code_invalid",
        lambda desk: ["bureau", "enrol", "../water", *TITLES, "--new-keys", str(desk.folder),
                      *BY, *desk.here],
    ),
    "bureau revoke": ("registry.certificate_unknown", lambda desk: ["bureau", "revoke", "00" * 32, *BY, *desk.here]),
    "grant propose": (
        "registry.bureau_unknown",
        lambda desk: ["grant", "propose", "nobody", "push", FEED, "--purpose", "p", "--basis", "b", *BY, *desk.here],
    ),
    "grant approve": (
        "decision.same_person", lambda desk: ["grant", "approve", desk.proposed(), "--by", PROPOSER.name, *desk.here]
    ),
    "person appoint": (
        "role.held_already",
        lambda desk: ["person", "appoint", f" {SYSTEM.name}", "audit", "--public-key", desk.public_key(), *BY,
                      *desk.here],
    ),
    "person dismiss": ("person.unknown", lambda desk: ["person", "dismiss", "nobody", *BY, *desk.here]),
    "layers show": ("layer.unknown", lambda desk: ["layers", "show", "unit-grid", *desk.here]),
    "layers release": (
        "layer.unknown",
        lambda desk: ["layers", "release", "unit-grid", "--version", "1", "--by", SYSTEM.name, *desk.here],
    ),
    "layers imagery": ("layer.unknown", lambda desk: ["layers", "imagery", "121.549", "29.874", *desk.here]),
    "feed release": ("role.not_held", lambda desk: ["feed", "release", FEED, *BY, *desk.here]),
    "decision approve": ("decision.not_proposed", lambda desk: ["decision", "approve", "d-none", *BY, *desk.here]),
    "decision withdraw": ("decision.not_proposed", lambda desk: ["decision", "withdraw", "d-none", *BY, *desk.here]),
    "a person with an unknown key": (
        "person.unknown", lambda desk: ["decision", "withdraw", "d-none", *BY, "--key", desk.stray_key(), *desk.here]
    ),
    "grant revoke": ("grant.unknown", lambda desk: ["grant", "revoke", "g-none", *BY, *desk.here]),
    "held release": (
        "delivery.unknown", lambda desk: ["held", "release", "never-sent", "--by", SYSTEM.name, *desk.here]
    ),
    "feed stop": ("role.not_held", lambda desk: ["feed", "stop", FEED, "--ground", "g", *BY, *desk.here]),
    "feed start": (
        "flow.already_so", lambda desk: ["feed", "start", desk.feed(stopped=False), *WHY, *desk.here]
    ),
    "dead show": ("dead.not_dead", lambda desk: ["dead", "show", desk.pushed(), *desk.here]),
    "dead replay": ("dead.none", lambda desk: ["dead", "replay", "--feed", "water-register", *WHY, *desk.here]),
    "dead replay what is processed": (
        "dead.not_dead", lambda desk: ["dead", "replay", desk.pushed(), *WHY, *desk.here]
    ),
    "dead stop": ("dead.job_unknown", lambda desk: ["dead", "stop", "p-none", *WHY, *desk.here]),
    "dead resume": ("dead.job_unknown", lambda desk: ["dead", "resume", "p-none", *WHY, *desk.here]),
    "audit prove": ("audit.no_such_size", lambda desk: ["audit", "prove", "999999999", *desk.here]),
    "audit verify --against": (
        "audit.checkpoint_invalid", lambda desk: ["audit", "verify", "--against", desk.file(b"no"), *desk.here]
    ),
    "witness": (
        "audit.witness_unknown",
        lambda desk: ["witness", "--key", desk.file(generate("EdDSA").pem(), "w.key"), *desk.partner],
    ),
    "verify": ("signature.invalid", lambda desk: ["verify", altered(desk), *desk.anchors]),
    "verify a fork": (
        "audit.fork_unproven", lambda desk: ["verify", desk.file(b'{"typ": "yt-fork"}', "fork.json"), *desk.anchors]
    ),
}  # fmt: skip


def altered(desk: Desk) -> str:
    """A receipt with the last octet of its signature altered."""
    document = json.loads(desk.receipt().read_bytes())
    first = document["signature"][0]
    document["signature"] = ("A" if first != "A" else "B") + document["signature"][1:]
    return desk.file(json.dumps(document).encode(), "altered.json")


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_code_both_languages_and_the_next_step(desk: Desk, name: str) -> None:
    code, arguments = REFUSED[name]
    done = yongtong(*arguments(desk), folder=desk.folder)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    sentence = sentences()[code]
    for words in (code, sentence.zh, sentence.en, sentence.next_zh, sentence.next_en):
        assert words in done.stderr


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_one_json_document_too(desk: Desk, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, arguments = REFUSED[name]
    assert command_line.main([*arguments(desk), "--json"]) == 1
    refused = one_document(capsys.readouterr().out)["refused"]
    assert refused["code"] == code
    assert all(refused[words] for words in ("zh", "en", "next_zh", "next_en"))


# Wrong use: what is wrong in both languages, with the file or the option ---------------------------------------------


def taken(desk: Desk) -> str:
    return desk.bus.url.rpartition(":")[2]


WRONG: dict[str, tuple[str, Bad]] = {
    "no settings": ("settings.toml", lambda desk: ["feeds"]),
    "settings with an unknown key": (
        "portt", lambda desk: ["feeds", *desk.settings("[https]", '[https]\nportt = 1')]
    ),
    "a folder of feeds that is not there": (
        "nowhere", lambda desk: ["feeds", *desk.settings("[feeds]\nfolders = [", '[feeds]\nfolders = ["nowhere", ')]
    ),
    "no bus yet: bureau list": ("yongtong init", lambda desk: ["bureau", "list", *desk.settings()]),
    "no bus yet: audit checkpoint": ("yongtong init", lambda desk: ["audit", "checkpoint", *desk.settings()]),
    "no bus yet: ownership": ("yongtong init", lambda desk: ["ownership", "1", *desk.settings()]),
    "no bus yet: serve": ("yongtong init", lambda desk: ["serve", "--https-port", "0", *desk.settings()]),
    "init twice": ("holds a bus already", lambda desk: ["init", "--edition", "2007", *desk.here]),
    "serve on a taken port": ("--https-port", lambda desk: ["serve", "--https-port", taken(desk), *desk.here]),
    "serve beside another": ("another serve", lambda desk: ["serve", "--https-port", "0", *desk.here]),
    "a local system that is not here": ("none is there", lambda desk: ["systems", "check", "nowhere", *desk.here]),
    "push of a missing file": ("none.csv", lambda desk: ["push", FEED, "none.csv", *desk.partner]),
    "preview of a missing file": ("none.csv", lambda desk: ["feed", "preview", FEED, "none.csv", *desk.here]),
    "export to where nothing can be": (
        "nowhere", lambda desk: ["export", str(desk.folder / "nowhere" / "a.csv"), *desk.partner]
    ),
    "push as nobody": ("--partners", lambda desk: ["push", FEED, desk.file(), "--as", "nobody", "--url", desk.bus.url]),
    "enrol without certificates": (
        "--new-keys", lambda desk: ["bureau", "enrol", "a", *TITLES, *BY, *desk.here]
    ),
    "enrol with what is no certificate": (
        "a.pem",
        lambda desk: ["bureau", "enrol", "a", *TITLES, *BY, *desk.here,
                      "--signing", desk.file(b"no", "a.pem"), "--connection", desk.file(b"no", "b.pem")],
    ),
    "enrol with new keys where there are keys": (
        "signing.key",
        lambda desk: ["bureau", "enrol", "made-up", *TITLES, *BY, *desk.here,
                      "--new-keys", str(desk.bus.trial.partners)],
    ),
    "enrol with new keys in what is no folder": (
        "file.csv",
        lambda desk: ["bureau", "enrol", "a", *TITLES, "--new-keys", desk.file(name="file.csv"), *BY, *desk.here],
    ),
    "settings that are a folder": (".", lambda desk: ["feeds", "--settings", "."]),
    "settings that are no text": ("a.toml", lambda desk: ["feeds", "--settings", desk.file(b"\x80", "a.toml")]),
    "serve on a port that cannot be": (
        "--https-port", lambda desk: ["serve", "--https-port", "99999", *desk.here]
    ),
    "verify of a missing receipt": ("none.json", lambda desk: ["verify", "none.json", *desk.anchors]),
    "verify without proper anchors": (
        "anchors", lambda desk: ["verify", str(desk.receipt()), "--anchors", desk.file(b"{}", "anchors.json")]
    ),
    "audit verify of a missing journal's anchors": (
        "none.json", lambda desk: ["audit", "verify", "--anchors", "none.json", *desk.here]
    ),
    "a quorum that cannot be met": (
        "quorum 2 of 0 witnesses", lambda desk: ["feeds", *desk.settings("[https]", "[witnesses]\nquorum = 2\n[https]")]
    ),
    "a witness without a key": (
        "no Ed25519 key",
        lambda desk: ["feeds", *desk.settings(
            "[https]", '[[witnesses.witness]]\nname = "w"\nkey = "00"\n[https]')],
    ),
    "witness without its key": ("--new-key", lambda desk: ["witness", *desk.partner]),
    "a witness's new key where one lies": (
        "w.key", lambda desk: ["witness", "--new-key", "--key", desk.file(b"key", "w.key"), *desk.partner]
    ),
    "demo without its data": ("pipe_survey_results.xls", lambda desk: ["demo", "--data", str(desk.folder)]),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_wrong_use_is_said_in_both_languages_and_names_it(
    desk: Desk, name: str, as_json: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words, arguments = WRONG[name]
    given = arguments(desk)
    monkeypatch.chdir(desk.folder)
    assert command_line.main([*given, "--json"] if as_json else given) == 2
    told = capsys.readouterr()
    if as_json:
        said = one_document(told.out)["misconfigured"]
        assert words in said["detail"]
        assert all(said[name] for name in ("zh", "en", "next_zh", "next_en"))
        assert said["code"].startswith("config.")
    else:
        assert told.out == ""
        first, *sentence = told.err.strip().splitlines()
        assert words in first
        assert len(sentence) == 4


def test_a_taken_port_ends_the_program_with_its_option_and_exit_2(desk: Desk) -> None:
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        done = yongtong("serve", "--https-port", port, *desk.here, folder=desk.folder)
    assert (done.returncode, done.stdout) == (2, "")
    first = done.stderr.splitlines()[0]
    assert first == f"config.port  [port {port} on 127.0.0.1 is taken; choose another with --https-port]"
    assert sentences()["config.port"].next_zh in done.stderr


def test_a_trial_that_does_not_start_says_why(tmp_path: Path) -> None:
    trial = a_trial(tmp_path)
    (tmp_path / "feeds" / "other.toml").write_text(LAMPS, encoding="utf-8")
    with pytest.raises(Misconfigured, match=r"other\.toml: id"):
        trial.start()


@pytest.mark.parametrize(
    "line",
    [
        "",
        "nothing-such",
        "push",
        "feed",
        "near a b",
        "near nan nan",
        "near 1000 29",
        "ownership 1 --on yesterday",
        "changes --after -1",
        "changes --limit 1001",
        "grant propose a steal b",
        "audit search --limit -1",
        "receipt a --as b --url localhost:8443",
    ],
)
def test_what_is_no_command_ends_with_usage_on_stderr(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command_line.main(line.split())
    assert ended.value.code == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("usage: yongtong")


def test_a_bus_that_does_not_answer_is_unavailable(desk: Desk) -> None:
    arguments = ["--as", "made-up", "--partners", str(desk.bus.trial.partners), "--url", "https://127.0.0.1:1"]
    done = yongtong("push", FEED, desk.file(), *arguments, "--json", folder=desk.folder)
    assert done.returncode == 1
    assert set(one_document(done.stdout)) == {"unavailable"}


def test_a_push_whose_file_is_refused_exits_1_and_says_why(desk: Desk) -> None:
    utf_16 = desk.file(csv(rows(desk.id)).decode().encode("utf-16"))
    done = yongtong("push", FEED, utf_16, "--message-id", desk.id, *desk.partner, "--json", folder=desk.folder)
    assert done.returncode == 1
    document = one_document(done.stdout)
    assert (document["status"], document["report"]["report"]["code"]) == ("refused", "decode.encoding_unknown")
    assert document["report"]["report"]["sentence"]["next_zh"]
    done = yongtong("report", desk.id, *desk.partner, folder=desk.folder)
    assert done.returncode == 1
    sentence = sentences()["decode.encoding_unknown"]
    for words in (sentence.zh, sentence.next_zh):
        assert words in done.stdout.replace("\n", "")


def test_new_keys_of_a_code_that_may_not_be_are_not_written(desk: Desk) -> None:
    inner = desk.folder / "partners"
    inner.mkdir()
    command = ["bureau", "enrol", "../water", *TITLES, "--new-keys", str(inner), *BY, *desk.here]
    assert command_line.main(command) == 1
    assert list(desk.folder.iterdir()) == [inner]
    assert list(inner.iterdir()) == []


def test_what_a_bureau_wrote_is_printed_as_it_stands(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """The table printer would obey [markup], stop at an unopened end of it, and turn :key: into a picture."""
    file = desk.file(csv([{**row, "权属单位": "[/b]:key:[b]"} for row in rows(desk.id)]))
    assert command_line.main(["push", FEED, file, *desk.partner]) == 0
    (near,) = desk.bus.partner().nearest(*place(desk.id), 2.0, purpose="test")
    assert command_line.main(["ownership", str(near.ownership.component.key), *desk.here]) == 0
    assert "[/b]:key:[b]" in capsys.readouterr().out.replace("\n", "")


def test_which_one_was_refused_is_said(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["feed", "check", "nobody-knows", *desk.here]) == 1
    assert capsys.readouterr().err.startswith("feed.unknown  [nobody-knows]\n")


def test_a_feed_whose_example_does_not_hold_fails_its_check(desk: Desk) -> None:
    (desk.folder / "feeds").mkdir()
    wrong = LAMPS.replace("longitude_deg = 121.55", "longitude_deg = 121.56")
    (desk.folder / "feeds" / "made-up-lamps.toml").write_text(wrong, encoding="utf-8")
    folders = json.dumps([str(folder) for folder in desk.bus.trial.settings.feeds.folders])
    settings = desk.settings(f"folders = {folders}", 'folders = ["feeds"]')
    done = yongtong("feed", "check", "made-up-lamps", *settings, "--json", folder=desk.folder)
    assert done.returncode == 1
    assert "longitude_deg" in str(one_document(done.stdout)["unmet"])


def test_one_bit_flipped_in_a_copy_of_the_log_is_found_and_named(desk: Desk) -> None:
    journal = desk.copy(flipped=2)
    done = yongtong("audit", "verify", "--journal", journal, *desk.anchors, "--json", folder=desk.folder)
    assert done.returncode == 1
    verdict = one_document(done.stdout)
    assert verdict["ok"] is False
    assert 2 in [problem["entry"] for problem in verdict["problems"]]


# Help ----------------------------------------------------------------------------------------------------------------


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Every command's parser that runs something."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield parser
    for group in groups:
        for one in group.choices.values():
            yield from parsers(one)


@pytest.mark.parametrize("parser", list(parsers(command_line.parser_of())), ids=lambda parser: parser.prog)
def test_help_ends_with_an_example_that_the_command_itself_takes(parser: argparse.ArgumentParser) -> None:
    example = parser.format_help().rstrip().rpartition("example: ")[2].replace("\n", " ")
    assert example.startswith(parser.prog)
    words = shlex.split(example)[1:]
    assert command_line.parser_of(words).parse_args(words).run is parser.get_default("run")


@pytest.mark.parametrize("module", command_line.GROUPS)
def test_a_command_loads_its_own_module_alone(module: str) -> None:
    names = command_line.GROUPS[module]
    for name in names:
        (commands,) = [action for action in command_line.parser_of([name])._actions if action.choices]
        assert tuple(commands.choices) == names


def test_help_is_asked_of_the_program(tmp_path: Path) -> None:
    done = yongtong("ownership", "-h", folder=tmp_path)
    assert done.returncode == 0
    assert done.stdout.rstrip().endswith("案件处置")


# The whole of what a new bureau costs --------------------------------------------------------------------------------


def test_a_made_up_bureaus_csv_is_one_new_file_and_nothing_else(tmp_path: Path) -> None:
    """From an unknown bureau to "whose is it", by commands alone: the only file written by hand is the feed's."""
    trial = a_trial(tmp_path)
    here = ["--settings", trial.settings.source]
    source = tmp_path / "lamps.csv"
    source.write_bytes("编号,经度,纬度\nL-1,121.5470,29.8680\nL-2,121.5480,29.8690\n".encode())

    def run(*arguments: str) -> dict[str, Any]:
        done = yongtong(*arguments, "--json", folder=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        return one_document(done.stdout)

    (tmp_path / "feeds" / "made-up-lamps.toml").write_text(LAMPS, encoding="utf-8")
    assert run("feed", "check", "made-up-lamps", *here)["unmet"] == []
    names = ["--title", "Made-up bureau", "--title-zh", "某单位", "--new-keys", str(tmp_path / "partners")]
    wanted = [run("bureau", "enrol", "made-up", *names, "--by", PROPOSER.name, *here)["decision"]]
    wanted += [run("feed", "release", "made-up-lamps", "--by", SYSTEM.name, *here)["decision"]]
    assert [one["id"] for one in run("decision", "list", *here)["decisions"]] == wanted
    for id in wanted:
        run("decision", "approve", id, *BY, *here)
    why = ["--purpose", "示范", "--basis", "示范"]
    grant = run("grant", "propose", "made-up", "push", "made-up-lamps", *why, "--by", PROPOSER.name, *here)["grant"]
    run("grant", "approve", grant, *BY, *here)
    with trial:
        partner = ["--as", "made-up", "--partners", str(tmp_path / "partners"), "--url", trial.url]
        pushed = run("push", "made-up-lamps", str(source), *partner)
        assert (pushed["status"], pushed["report"]["report"]["new"]) == ("processed", 2)
        (near,) = run("near", "121.5470", "29.8680", "--radius", "2", *here)["near"]
    assert near["ownership"]["verdict"] == "role unknown", "an owner is said, an authority is not"
    (claim,) = near["ownership"]["claims"]
    assert (claim["bureau"], claim["source_key"], claim["owner"]["name"]) == ("made-up", "L-1", "某单位")
