"""What happens between the acts must neither widen a right nor stop a feed."""

import hashlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from exchange import processing
from exchange.app import opening
from exchange.cli.people import registry
from exchange.cli.trial import PROPOSER
from exchange.processing import process
from mappings.apply import Mapped, map_records
from mappings.feed import Feed
from security.batch import unverified
from security.errors import Refusal
from tests.acts.bench_of_one import FEED, Acts, both_acts, covers


@pytest.fixture
def acts(tmp_path: Path) -> Iterator[Acts]:
    with both_acts(tmp_path) as acts:
        yield acts


def report_of(acts: Acts, message_id: str) -> dict[str, Any]:
    octets = acts.bus.journal.report("made-up", message_id)
    assert octets is not None
    report: dict[str, Any] = unverified(octets)["report"]
    return report


def status_of(acts: Acts, message_id: str) -> str:
    row = acts.bus.journal.inbox("made-up", message_id)
    assert row is not None
    return row.status


@pytest.mark.parametrize("code", ["0102", "CJ/T 214-2007:0102"], ids=["bare", "with its edition"])
def test_a_narrow_grant_narrows_also_after_it_was_revoked(acts: Acts, code: str) -> None:
    grant = acts.trial.grant("made-up", "push", FEED, classes=[code])
    acts.push("m-1", covers("A"))
    with registry(acts.trial.settings) as opened:
        opened.revoke_grant(grant, PROPOSER)
    process(FEED, acts.bus)
    report = report_of(acts, "m-1")
    assert (report["new"], report["rejected"]) == (0, 3)
    assert "class.not_granted" in {finding["code"] for finding in report["findings"]}


def test_a_narrow_grant_lets_its_own_classes_in(acts: Acts) -> None:
    acts.trial.grant("made-up", "push", FEED, classes=["CJ/T 214-2007:0101"])
    acts.push("m-1", covers("A"))
    process(FEED, acts.bus)
    assert report_of(acts, "m-1")["new"] == 3


@pytest.mark.parametrize("spoil", ["altered", "lost"])
def test_broken_evidence_stops_its_delivery_says_so_and_no_other(
    acts: Acts, spoil: str, caplog: pytest.LogCaptureFixture
) -> None:
    acts.trial.grant("made-up", "push", FEED)
    first, second = acts.push("m-1", covers("A")), acts.push("m-2", covers("B", 2000))
    acts.push("m-3", covers("C"))
    path = acts.evidence(second)
    assert path != acts.evidence(first), "a larger payload lies alone"
    if spoil == "lost":
        path.unlink()
    else:
        octets = bytearray(path.read_bytes())
        octets[-1000] ^= 1
        path.write_bytes(octets)
    assert process(FEED, acts.bus) == 3
    assert [status_of(acts, f"m-{n}") for n in (1, 2, 3)] == ["processed", "held", "processed"]
    assert report_of(acts, "m-2")["code"] == "delivery.evidence_broken"
    assert acts.bus.journal.search(type="processing", outcome="held")[0].detail["message_id"] == "m-2"  # type: ignore[index]
    assert "audit_broken" in caplog.text
    assert acts.bus.journal.feeds_waiting() == [], "nothing goes round and round"


def test_each_entry_names_the_release_of_the_mapping_that_was_in_force(acts: Acts) -> None:
    """By the digest of the feed's file; another file is another release."""
    acts.trial.grant("made-up", "push", FEED)
    acts.push("m-1", covers("A"))
    process(FEED, acts.bus)
    file = acts.trial.folder.parent / "feeds" / f"{FEED}.toml"
    released = hashlib.sha256(file.read_bytes()).hexdigest()
    for kind in ("delivery", "processing"):
        assert acts.bus.journal.search(type=kind)[0].leaf.feed_digest == released
    file.write_text(file.read_text(encoding="utf-8") + "# another release\n", encoding="utf-8")
    acts.bus.close()
    with closing(opening.open_bus(acts.trial.settings)) as bus:
        again = Acts(acts.trial, bus)
        with pytest.raises(Refusal, match=r"feed\.not_released"):
            again.push("m-2", covers("B"))
        acts.trial.release(FEED, bus.feed_digests[FEED])
        again.push("m-2", covers("B"))
        assert bus.journal.search(type="delivery")[0].leaf.feed_digest not in ("", released)


def test_a_delivery_whose_account_does_not_balance_is_not_taken(acts: Acts, monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(records: pl.DataFrame, feed: Feed) -> Mapped:
        mapped = map_records(records, feed)
        return msgspec.structs.replace(mapped, candidates=mapped.candidates[1:])

    monkeypatch.setattr(processing, "map_records", forgetful)
    acts.trial.grant("made-up", "push", FEED)
    acts.push("m-1", covers("A"))
    process(FEED, acts.bus)
    assert (status_of(acts, "m-1"), report_of(acts, "m-1")["code"]) == ("refused", "delivery.unbalanced")
    assert acts.bus.store.ledger().claims == 0
