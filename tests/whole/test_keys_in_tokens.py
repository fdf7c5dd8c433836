"""A running bus whose answer and log keys lie in a token, and a bureau that signs with a key in its own."""

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.partner.folder import PartnerFolder
from exchange.app import trusted
from exchange.cli.main import main
from exchange.cli.partner import open_mqtt_partner, open_partner
from exchange.cli.trial import Trial
from exchange.receipts import verify_receipt
from security.errors import Misconfigured
from security.keys import generate
from security.message import in_memory
from security.pki import pem_of
from tests.softhsm import SoftHsm
from tests.whole.real_bus import FEED, REGISTER, a_trial, csv, more_key, rows

WAIT_S = 30.0


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory, softhsm: SoftHsm) -> Iterator[Trial]:
    """A bus that runs: doors with their threads, and a worker process that issues the reports."""
    keys = {
        "answer": softhsm.take(generate("ES256"), "serve-answer"),
        "log": softhsm.take(generate("EdDSA"), "serve-log"),
    }
    folder = tmp_path_factory.mktemp("tokens")
    trial = a_trial(folder, REGISTER, keys={"passphrase_file": str(softhsm.pin_file), **keys})
    trial.enrol("made-up", "Made-up bureau", "某单位")
    trial.grant("made-up", "push", FEED)
    with trial:
        yield trial


@pytest.fixture(scope="module")
def folder(trial: Trial, softhsm: SoftHsm) -> Path:
    """The bureau's folder with no signing key in it: that lies in the token, and `keys.toml` says where."""
    path, key = trial.partners / "made-up", more_key(trial, "signing")
    (path / "signing.key").unlink()
    (path / "signing.pem").write_bytes(pem_of(key.certificate_der or b""))
    reference = softhsm.take(key, "made-up-signing")
    (path / "keys.toml").write_text(f'signing = "{reference}"\npassphrase_file = "{softhsm.pin_file}"\n')
    return path


def test_a_bureau_whose_key_lies_in_a_token_delivers_and_what_it_gets_verifies(
    trial: Trial, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, anchors = tmp_path / "register.csv", trusted.anchors_of(trial.settings)
    for over, url in (("soap", trial.url), ("mqtt", trial.mqtt_url)):
        id = f"token-{over}"
        file.write_bytes(csv(rows(id)))
        command = [
            "push",
            FEED,
            str(file),
            "--as",
            "made-up",
            "--partners",
            str(folder.parent),
            "--json",
            "--over",
            over,
        ]
        command += ["--settings", trial.settings.source, "--url", url, "--message-id", id]
        assert main(command) == 0
        said = json.loads(capsys.readouterr().out)
        assert said["status"] == "processed"
        assert said["receipt"]["signer"] == PartnerFolder(folder).signing.fingerprint
        for kind in ("receipt", "report"):
            verify_receipt((folder / f"{kind}s" / f"{id}.{kind}.json").read_bytes(), anchors)


def test_many_pushes_at_once_get_receipts_that_hold(trial: Trial, folder: Path, tmp_path: Path) -> None:
    """The log's thread and the doors' sign with one token at once: SOAP answers, receipts, checkpoints."""
    received: dict[str, bytes] = {}

    def push(number: int) -> None:
        # A folder each: the head that one remembers is not shared by two at once.
        partner = open_partner(shutil.copytree(folder, tmp_path / f"{number}" / "made-up"), trial.url)
        for id in (f"at-once-{number}-{n}" for n in range(4)):
            received[id] = partner.push(FEED, in_memory(csv(rows(id))), "text/csv", id).octets

    threads = [threading.Thread(target=push, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(received) == 16
    with open_mqtt_partner(folder, trial.mqtt_url) as partner:
        content = in_memory(csv(rows("at-once-0-0")))
        assert partner.push(FEED, content, "text/csv", "at-once-0-0").octets == received["at-once-0-0"]


def test_a_partners_reference_that_is_wrong_is_said_in_one_line(folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "made-up"
    mine.mkdir()
    for name in ("signing.pem", "anchors.json", "connection.key"):
        (mine / name).write_bytes((folder / name).read_bytes())
    for text, said in (
        ('signing = "pkcs11:object=k"', "module-path"),
        ('pin = "1234"', r"keys\.toml"),
        ("signing = ", r"keys\.toml"),
        ("", r"signing\.key"),
    ):
        (mine / "keys.toml").write_text(text)
        with pytest.raises(Misconfigured, match=said) as wrong:
            _ = PartnerFolder(mine).signing
        assert "\n" not in str(wrong.value)
        assert "1234" not in str(wrong.value)
    (mine / "connection.key").write_bytes(generate("ES256").pem(b"passphrase"))
    with pytest.raises(Misconfigured, match="must lie open"):
        PartnerFolder(mine).file("connection.key")
