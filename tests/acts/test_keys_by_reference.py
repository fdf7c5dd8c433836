"""A bus whose keys lie under a passphrase or in a token: made, opened, and answering as any other."""

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from exchange.app import keys_in_force, making, opening, places, trusted
from exchange.cli.trial import FOUNDERS
from exchange.mqtt import door
from exchange.mqtt.topics import outbound
from exchange.processing import process
from exchange.receipts import verify_receipt
from exchange.sequencer import Sequencer
from exchange.settings import Settings, load_settings
from security.batch import unverified
from security.errors import Misconfigured, Unavailable
from security.keys import Kind, generate
from tests.acts.bench_of_one import FEED, Acts, both_acts, covers
from tests.acts.test_mqtt_door import Wire
from tests.softhsm import SoftHsm, uri

KINDS: dict[str, Kind] = {"answer": "ES256", "log": "EdDSA", "ca": "RS256"}


def references(softhsm: SoftHsm, about: str) -> dict[str, str]:
    """New keys in the token, and what a settings file says of them."""
    made = {name: softhsm.take(generate(kind), f"{about}-{name}") for name, kind in KINDS.items()}
    return {"passphrase_file": str(softhsm.pin_file), **made}


@pytest.fixture
def acts(tmp_path: Path, softhsm: SoftHsm) -> Iterator[Acts]:
    with both_acts(tmp_path, {"keys": references(softhsm, tmp_path.name)}) as acts:
        acts.trial.grant("made-up", "push", FEED)
        yield acts


def test_receipts_and_reports_of_a_bus_whose_keys_lie_in_a_token_verify(acts: Acts) -> None:
    """And the bureau's certificates are issued by an authority in the token, or nobody would have come in."""
    keys = acts.trial.folder / "keys"
    assert sorted(path.name for path in keys.glob("*.key")) == ["evidence.key", "tls.key"]
    receipt = acts.push("m-1", covers("A")).inbox.receipt
    assert process(FEED, acts.bus) == 1
    anchors = trusted.anchors_of(acts.trial.settings)
    for document in (receipt, acts.bus.journal.report("made-up", "m-1")):
        assert verify_receipt(document or b"", anchors).document["outcome"] in ("accepted", "processed")
    assert acts.push("m-1", covers("A")).inbox.receipt == receipt


def test_a_receipt_that_a_crash_left_out_is_issued_once_and_the_same_from_then_on(
    acts: Acts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ECDSA in a token signs with another k each time: only what is kept is ever sent (ADR 20)."""
    signed: list[bytes] = []

    def crash(sequencer: Sequencer, group: Any) -> None:
        signed.extend(sequencer._receipts([row for _, row, _ in group.arrivals], group).values())
        raise OSError("the power fails before the receipt is kept")

    with monkeypatch.context() as failing:
        failing.setattr(Sequencer, "answer", crash)
        with pytest.raises(Exception, match=r"power|resume"):
            acts.push("m-1", covers("A"))
    acts.bus.close()
    with closing(opening.open_bus(acts.trial.settings)) as bus:
        bus.journal.resume()
        later = Acts(acts.trial, bus)
        receipts = [later.push("m-1", covers("A")).inbox.receipt for _ in range(2)]
    assert receipts[0] == receipts[1]
    assert signed
    assert leaf_of(signed[0]) == leaf_of(receipts[0]), "it is the receipt of the same entry"
    verify_receipt(receipts[0] or b"", trusted.anchors_of(acts.trial.settings))


def leaf_of(receipt: bytes | None) -> Any:
    assert receipt is not None
    return unverified(receipt)["leaf"]


@pytest.mark.parametrize("qos", [1, 0], ids=["a delivery", "what is refused"])
def test_while_the_token_is_away_what_comes_waits_and_nothing_is_lost(
    acts: Acts, softhsm: SoftHsm, monkeypatch: pytest.MonkeyPatch, qos: int
) -> None:
    monkeypatch.setattr(door, "FIRST_WAIT_S", 0.01)
    wire, delivery = Wire(acts), acts.by_broker("m-1", covers("A")).envelope
    with softhsm.away():
        with pytest.raises(Unavailable):
            acts.push("m-2", covers("B"))
        story = threading.Thread(target=lambda: wire.take(delivery, qos))
        story.start()
        story.join(0.3)
        assert wire.said == []
    story.join()
    assert wire.said == [outbound("made-up", "receipt"), "acknowledged"]
    assert bool(acts.bus.journal.inbox("made-up", "m-1")) == bool(qos)


def test_a_bus_whose_key_files_lie_under_a_passphrase(tmp_path: Path) -> None:
    secret = tmp_path / "passphrase"
    secret.write_text("three plain words\n")
    secret.chmod(0o600)
    with both_acts(tmp_path, {"keys": {"passphrase_file": str(secret)}}) as acts:
        acts.trial.grant("made-up", "push", FEED)
        keys = acts.trial.folder / "keys"
        for name in ("answer", "log", "ca", "tls"):
            assert b"ENCRYPTED" in (keys / f"{name}.key").read_bytes()
        received = acts.push("m-1", covers("A"))
        verify_receipt(received.inbox.receipt or b"", trusted.anchors_of(acts.trial.settings))
        keys_in_force.server_tls(acts.trial.settings)
        secret.write_text("another\n")
        for what in (opening.open_bus, keys_in_force.authority, keys_in_force.server_tls):
            with pytest.raises(Misconfigured) as wrong:
                what(acts.trial.settings)  # type: ignore[operator]  # one argument each
            assert "\n" not in str(wrong.value)
        secret.unlink()
        with pytest.raises(Misconfigured, match="no passphrase can be read there"):
            opening.open_bus(acts.trial.settings)


def with_keys(settings: Settings, **keys: str) -> Settings:
    return msgspec.structs.replace(settings, keys=msgspec.structs.replace(settings.keys, **keys))


@pytest.mark.parametrize(
    "keys, said",
    [
        ({"answer": uri("no-such-key")}, "not one public key"),
        ({"log": uri("k", token="another")}, "not one token of that name"),
        ({"ca": uri("k", module="/nowhere.so")}, "no PKCS#11 module"),
        ({"tls": uri("k")}, "TLS reads key files only"),
    ],
)
def test_a_bus_is_not_half_made_when_a_token_is_wrong_and_is_made_once_it_is_right(
    tmp_path: Path, softhsm: SoftHsm, keys: dict[str, str], said: str
) -> None:
    with (
        pytest.raises(Misconfigured, match=said) as wrong,
        both_acts(tmp_path, {"keys": {"passphrase_file": str(softhsm.pin_file), **keys}}),
    ):
        pass
    assert "\n" not in str(wrong.value)
    settings = load_settings(tmp_path / "bus" / "settings.toml")
    assert list((tmp_path / "bus" / "keys").iterdir()) == []
    making.initialise(with_keys(settings, answer="", log="", ca="", tls=""), "2007", FOUNDERS, places.utc_now())


def test_a_log_key_of_another_kind_in_the_token_is_named(acts: Acts, softhsm: SoftHsm) -> None:
    other = with_keys(acts.trial.settings, log=acts.trial.settings.keys.answer)
    with pytest.raises(Misconfigured, match="the log key is for ES256"):
        opening.open_bus(other)
    with pytest.raises(Misconfigured, match="not of this private key"):
        opening.open_bus(with_keys(acts.trial.settings, answer=acts.trial.settings.keys.ca))
