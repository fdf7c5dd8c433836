"""A sensitive feed's evidence: sealed in act one, read by act two, and under the one key that the bus was made with."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from exchange.app import opening
from exchange.evidence import Evidence
from exchange.evidence_folder import EvidenceFolder
from exchange.processing import process
from security.errors import Misconfigured
from tests.acts.bench_of_one import FEED, Acts, both_acts, covers
from tests.acts.test_between_the_acts import report_of, status_of


@pytest.fixture
def acts(tmp_path: Path) -> Iterator[Acts]:
    with both_acts(tmp_path) as plain:
        plain.trial.grant("made-up", "push", FEED)
        feed = msgspec.structs.replace(plain.bus.feeds[FEED], sensitive=["name"])
        yield plain.with_(feeds={FEED: feed})


def test_small_and_large_deliveries_are_sealed_and_processed_and_a_retry_is_the_same(acts: Acts) -> None:
    small, large = acts.push("m-1", covers("A")), acts.push("m-2", covers("B", 3000))
    assert acts.evidence(small) != acts.evidence(large)
    assert acts.push("m-2", covers("B", 3000)).inbox.receipt == large.inbox.receipt
    assert process(FEED, acts.bus) == 2
    assert [report_of(acts, f"m-{n}")["new"] for n in (1, 2)] == [3, 3000]
    kept = b"".join(path.read_bytes() for path in (acts.bus.folder / "evidence").rglob("*") if path.is_file())
    assert b"SubmitDelivery" not in kept


def test_a_feed_that_is_not_sensitive_is_kept_as_it_came(acts: Acts) -> None:
    plain = acts.with_(feeds={FEED: msgspec.structs.replace(acts.bus.feeds[FEED], sensitive=[])})
    assert b"SubmitDelivery" in plain.evidence(plain.push("m-1", covers("A"))).read_bytes()


def test_an_octet_of_sealed_evidence_altered_stops_its_delivery_and_no_other(acts: Acts) -> None:
    acts.push("m-1", covers("A"))
    path = acts.evidence(acts.push("m-2", covers("B", 3000)))
    octets = bytearray(path.read_bytes())
    octets[len(octets) // 2] ^= 1
    path.write_bytes(octets)
    assert process(FEED, acts.bus) == 2
    assert [status_of(acts, f"m-{n}") for n in (1, 2)] == ["processed", "held"]
    assert report_of(acts, "m-2")["code"] == "delivery.evidence_broken"


@pytest.mark.parametrize("cipher", ["AES-256-GCM", "SM4-GCM"])
def test_all_is_sealed_where_the_settings_say_so_by_the_cipher_they_name(tmp_path: Path, cipher: str) -> None:
    with both_acts(tmp_path, {"evidence": {"cipher": cipher, "seal": "all"}}) as acts:
        acts.trial.grant("made-up", "push", FEED)
        for number, count in enumerate((3, 3000)):
            received = acts.push(f"m-{number}", covers(f"A{number}", count))
            assert (":SM4-GCM." in received.inbox.evidence) == (cipher == "SM4-GCM")
        acts.receive(acts.by_broker("m-2", covers("C")))
        assert process(FEED, acts.bus) == 3
        assert [report_of(acts, f"m-{n}")["new"] for n in range(3)] == [3, 3000, 3]
        kept = b"".join(path.read_bytes() for path in (acts.bus.folder / "evidence").rglob("*") if path.is_file())
        assert b"SubmitDelivery" not in kept
        assert b'"payload"' not in kept


def test_what_was_sealed_before_the_cipher_changed_is_read(acts: Acts) -> None:
    folder, key = acts.bus.folder / "evidence", acts.bus.evidence._key
    by_sm4 = acts.with_(evidence=Evidence(EvidenceFolder(folder), key, "SM4-GCM"))
    plain = by_sm4.with_(feeds={FEED: msgspec.structs.replace(acts.bus.feeds[FEED], sensitive=[])})
    for number, bus in enumerate((acts, by_sm4, plain, acts)):
        bus.push(f"m-{number}", covers(f"A{number}", 3 + number))
    assert process(FEED, by_sm4.bus) == 4
    assert [report_of(acts, f"m-{n}")["new"] for n in range(4)] == [3, 4, 5, 6]
    by_sm4.bus.evidence.close()


@pytest.mark.parametrize("octets, said", [(bytes(32), "not the evidence key"), (b"short", "32 octets"), (None, "no")])
def test_a_bus_does_not_open_without_the_key_it_was_made_with(acts: Acts, octets: bytes | None, said: str) -> None:
    settings = acts.trial.settings
    path = settings.at(settings.keys.folder) / "evidence.key"
    opening.open_bus(settings).close()
    path.unlink()
    if octets is not None:
        path.touch(0o600)
        path.write_bytes(octets)
    with pytest.raises(Misconfigured, match=rf"evidence\.key.*{said}"):
        opening.open_bus(settings)
