"""Keys never lie in the state folder, are their owner's alone, and a demonstration's serve this machine alone."""

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from exchange import key_places
from exchange.app import keys_in_force, making, opening, places
from exchange.cli import main as command_line
from exchange.cli.people import registry
from exchange.cli.trial import FOUNDERS, Trial
from exchange.processing import process
from exchange.settings import Settings, load_settings
from security.errors import Misconfigured
from security.keyring import Keyring
from security.keys import Kind, der_of_pem
from security.sm2 import Sm2PrivateKey
from tests.acts.bench_of_one import FEED, Acts, both_acts, covers


@pytest.fixture
def acts(tmp_path: Path) -> Iterator[Acts]:
    with both_acts(tmp_path) as acts:
        yield acts


def changed(settings: Settings, table: str, **members: Any) -> Settings:
    return msgspec.structs.replace(settings, **{table: msgspec.structs.replace(getattr(settings, table), **members)})


def at_work(folder: Path, answers: Kind, heads: Any) -> Iterator[tuple[Acts, list[bytes]]]:
    with both_acts(folder, {"suites": {"signing": answers, "checkpoints": heads}}) as acts:
        acts.trial.grant("made-up", "push", FEED)
        acts.push("m-1", covers("A"))
        process(FEED, acts.bus)
        yield acts, private_octets(acts.trial)


def private_octets(trial: Trial) -> list[bytes]:
    """Of every private key of bus, persons and bureau: the number that makes it, its DER, the first line of its PEM."""
    found = [(trial.folder / "keys" / name).read_bytes() for name in keys_in_force.SECRETS]
    for path in trial.folder.rglob("*.key"):
        if path.name in keys_in_force.SECRETS:
            continue
        pem = path.read_bytes()
        found.append(pem.splitlines()[1])  # later lines may be of the public key alone
        found.append(base64.b64decode(b"".join(pem.splitlines()[1:-1])))
        found += numbers(Keyring(path.parent).load(path.stem, certificate=False).issuing_key())
    return found


def numbers(key: Any) -> list[bytes]:
    if isinstance(key, Sm2PrivateKey):
        return [key.scalar]
    if hasattr(key, "private_bytes_raw"):
        return [key.private_bytes_raw()]
    private = key.private_numbers()
    secret = getattr(private, "private_value", None) or private.d
    return [secret.to_bytes((secret.bit_length() + 7) // 8, "big")]


@pytest.mark.parametrize("answers, heads", [("ES256", "EdDSA"), ("SM2", "SM2"), ("RS256", "EdDSA")])
def test_no_private_octets_lie_in_the_state_folder_of_a_bus_at_work(
    tmp_path: Path, answers: Kind, heads: str, tell: Callable[[str], None]
) -> None:
    for acts, secrets in at_work(tmp_path, answers, heads):
        files = [path for path in acts.trial.state.rglob("*") if path.is_file()]
        texts = [secret.hex().encode() for secret in secrets] + [base64.b64encode(secret) for secret in secrets]
        for path in files:
            octets = path.read_bytes()
            assert not [secret for secret in secrets + texts if secret in octets], path
        tell(
            f"KEYS {answers}/{heads}: {len(secrets)} pieces of private keys, each raw, hex and base64: "
            f"in none of {len(files)} files of the state folder"
        )
        # The search finds what is there: a key put there by hand is seen.
        (acts.trial.state / "left-behind").write_bytes((acts.trial.folder / "keys" / "log.key").read_bytes())
        assert any(secret in (acts.trial.state / "left-behind").read_bytes() for secret in secrets)


def test_a_bus_whose_keys_lie_in_the_state_folder_does_not_start(acts: Acts) -> None:
    settings, state = acts.trial.settings, acts.trial.state
    inside = state / "keys"
    os.rename(acts.trial.folder / "keys", inside)
    for moved in (changed(settings, "keys", folder="state/keys"), changed(settings, "keys", folder=str(inside))):
        with pytest.raises(Misconfigured, match=r"state/keys holds keys and lies in the state folder .*/state,"):
            opening.open_bus(moved)
        with pytest.raises(Misconfigured, match="lies in the state folder"), registry(moved):
            pass
    (acts.trial.folder / "link").symlink_to(inside)  # a link from without is no way round
    with pytest.raises(Misconfigured, match="link holds keys and lies in the state folder"):
        opening.open_bus(changed(settings, "keys", folder="link"))


@pytest.mark.parametrize("name", ["answer", "log", "ca", "tls", "passphrase_file"])
def test_a_single_key_or_passphrase_named_in_the_state_folder_stops_the_start(acts: Acts, name: str) -> None:
    inside = acts.trial.state / "one.key"
    inside.write_bytes(b"")
    with pytest.raises(Misconfigured, match=r"one\.key holds keys and lies in the state folder"):
        opening.open_bus(changed(acts.trial.settings, "keys", **{name: str(inside)}))
    with pytest.raises(Misconfigured, match=r"one\.key holds keys"):
        opening.open_bus(changed(acts.trial.settings, "mqtt", key=str(inside)))


def test_init_makes_no_bus_whose_keys_would_lie_in_its_state_folder(acts: Acts, tmp_path: Path) -> None:
    settings = changed(acts.trial.settings, "state", folder=str(tmp_path / "new"))
    with pytest.raises(Misconfigured, match=r"new/keys holds keys and lies in the state folder .*/new,"):
        making.initialise(
            changed(settings, "keys", folder=str(tmp_path / "new/keys")), "2007", FOUNDERS, places.utc_now()
        )
    assert not (tmp_path / "new").exists()


def test_keys_of_persons_and_bureaus_are_not_made_there_either(acts: Acts, capsys: pytest.CaptureFixture[str]) -> None:
    source, state = acts.trial.settings.source, str(acts.trial.state)
    appoint = ["person", "appoint", "某人", "audit", "--new-key", "--by", "示范员甲", "--people", state]
    enrol = ["bureau", "enrol", "gas", "--title", "t", "--title-zh", "某局", "--new-keys", state, "--by", "示范员甲"]
    for name in ("示范员甲", "示范员乙"):  # who acts keeps their key there; that alone is theirs to answer for
        os.link(acts.trial.folder / "people" / f"{name}.key", Path(state) / f"{name}.key")
    for words in (appoint, enrol):
        assert command_line.main([*words, "--settings", source, "--json"]) == 2
        assert "lies in the state folder" in json.loads(capsys.readouterr().out)["misconfigured"]["detail"]


@pytest.mark.parametrize("name", ["answer.key", "log.key", "ca.key", "tls.key", "evidence.key", "outcome.secret"])
def test_a_key_that_other_accounts_can_read_stops_the_start(acts: Acts, name: str) -> None:
    path = acts.trial.folder / "keys" / name
    for mode in (0o640, 0o604, 0o620):
        path.chmod(mode)
        with pytest.raises(Misconfigured, match=rf"{name} has mode {mode:04o}.*chmod 600"):
            opening.open_bus(acts.trial.settings)
    path.chmod(0o400)
    opening.open_bus(acts.trial.settings).close()


def test_a_passphrase_file_that_others_can_read_stops_the_start(tmp_path: Path) -> None:
    secret = tmp_path / "passphrase"
    secret.write_text("three plain words\n")
    secret.chmod(0o644)
    keys = {"keys": {"passphrase_file": str(secret)}}
    with pytest.raises(Misconfigured, match="passphrase has mode 0644"), both_acts(tmp_path, keys):
        pass


@pytest.mark.parametrize("member", ["passphrase", "pin", "password"])
def test_the_settings_have_no_place_for_a_passphrase(acts: Acts, member: str) -> None:
    path = Path(acts.trial.settings.source)
    path.write_text(path.read_text().replace("[keys]", f'[keys]\n{member} = "three plain words"'))
    with pytest.raises(Misconfigured, match=f"unknown field `{member}`"):
        load_settings(path)


def test_no_value_of_the_environment_opens_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All variables that anybody might try hold the passphrase; the key stays shut."""
    secret = tmp_path / "passphrase"
    secret.write_text("three plain words\n")
    secret.chmod(0o600)
    with both_acts(tmp_path, {"keys": {"passphrase_file": str(secret)}}) as acts:
        for name in ("PASSPHRASE", "YONGTONG_PASSPHRASE", "YONGTONG_KEYS_PASSPHRASE", "YONGTONG_PIN", "SSL_PASSPHRASE"):
            monkeypatch.setenv(name, "three plain words")
        with pytest.raises(Misconfigured, match="a passphrase or PIN opens it, and none is at hand"):
            opening.open_bus(changed(acts.trial.settings, "keys", passphrase_file=""), attended=False)


def test_certificates_of_a_demonstration_say_so_and_those_of_init_do_not(acts: Acts, tmp_path: Path) -> None:
    of_trial = [(acts.trial.folder / "keys" / f"{name}.pem").read_bytes() for name in keys_in_force.OWN]
    assert all(key_places.is_demo(der_of_pem(pem)) for pem in of_trial)
    own = changed(changed(acts.trial.settings, "state", folder="own/state"), "keys", folder="own/keys")
    making.initialise(own, "2007", FOUNDERS, places.utc_now())
    assert not keys_in_force.serves_demo(own)
    everywhere = changed(own, "https", host="0.0.0.0")
    assert not keys_in_force.serves_demo(everywhere)


OFF = ["0.0.0.0", "::", "", "192.0.2.7", "no-such-host.invalid"]


@pytest.mark.parametrize("table", ["https", "mqtt"])
@pytest.mark.parametrize("host", OFF)
def test_demo_keys_are_not_served_off_this_machine_and_no_socket_is_opened(
    acts: Acts, table: str, host: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[object] = []
    monkeypatch.setattr("exchange.cli.serving.listen", lambda *said: opened.append(said))
    path = Path(acts.trial.settings.source)
    before = path.read_text()
    if table == "https":
        path.write_text(before.replace('host = "127.0.0.1"', f'host = "{host}"'))
    else:
        path.write_text(before.replace("[mqtt]", f'[mqtt]\nhost = "{host}"'))
    assert command_line.main(["serve", "--settings", str(path), "--json"]) == 2
    said = json.loads(capsys.readouterr().out)["misconfigured"]["detail"]
    assert "DEMO" in said
    assert "yongtong init" in said
    assert opened == []


def test_one_demo_certificate_among_others_is_enough(acts: Acts) -> None:
    own = changed(changed(acts.trial.settings, "state", folder="own/state"), "keys", folder="own/keys")
    making.initialise(own, "2007", FOUNDERS, places.utc_now())
    keys = acts.trial.folder / "own" / "keys"
    (keys / "answer.pem").write_bytes((acts.trial.folder / "keys" / "answer.pem").read_bytes())
    with pytest.raises(Misconfigured, match="DEMO"):
        keys_in_force.serves_demo(changed(own, "https", host="0.0.0.0"))


def test_a_demo_on_loopback_says_on_screen_that_it_is_one(acts: Acts) -> None:
    command = [sys.executable, "-m", "exchange.cli.main", "serve", "--role", "http", "--https-port", "0"]
    acts.bus.close()
    with subprocess.Popen(
        [*command, "--settings", acts.trial.settings.source], stderr=subprocess.PIPE, text=True
    ) as serving:
        assert serving.stderr is not None
        said = ""
        for line in serving.stderr:
            said += line
            if "DEMO" in line:
                break
        serving.send_signal(signal.SIGTERM)
        serving.stderr.read()
    assert "演示密钥" in said
    assert "甬通已就绪" in said
