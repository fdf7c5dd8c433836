"""涉密 What must not come over this network at all stops its delivery: sealed, alarmed, nothing of it stored."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from exchange import audit
from exchange.app import trusted
from exchange.cli.people import registry
from exchange.cli.trial import SYSTEM
from exchange.evidence import is_sealed
from exchange.processing import process
from exchange.reading import reopened
from tests.acts.bench_of_one import FEED, REGISTER, Acts, both_acts, covers

MARKED = REGISTER.replace(FEED, "marked-covers") + '\n[classified]\n"密级" = ["秘密", "1"]\n'
FEED_ID = "marked-covers"


def content(levels: tuple[str, ...]) -> bytes:
    """Covers with a column that says how secret each is."""
    head, *rows = covers("C", len(levels)).decode().splitlines()
    return "\n".join(
        [f"{head},密级", *(f"{row},{level}" for row, level in zip(rows, levels, strict=True)), ""]
    ).encode()


@pytest.fixture
def acts(tmp_path: Path) -> Iterator[Acts]:
    with both_acts(tmp_path, **{FEED_ID: MARKED}) as acts:
        acts.trial.grant("made-up", "push", FEED_ID)
        yield acts


def code_and_status(acts: Acts, message_id: str) -> tuple[str, str]:
    row = acts.bus.journal.inbox("made-up", message_id)
    assert row is not None
    entry = acts.bus.journal.search(type="processing")[0]
    assert entry.detail is not None
    return row.status, str(entry.detail.get("code", ""))


@pytest.mark.parametrize("levels", [("", "秘密", ""), ("1 ", "", ""), ("内部", "", "1")])
def test_one_classified_record_stops_its_delivery_which_is_sealed_and_alarmed(
    acts: Acts, levels: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    sent = content(levels)
    received = acts.push("m-1", sent, FEED_ID)
    raw = acts.bus.evidence.read(received.inbox.evidence).read()
    with caplog.at_level(logging.CRITICAL):
        process(FEED_ID, acts.bus)
    assert code_and_status(acts, "m-1") == ("refused", "content.classified")
    assert "delivery.spilled code=content.classified" in caplog.text
    row = acts.bus.journal.inbox("made-up", "m-1")
    assert row is not None
    assert is_sealed(row.evidence)
    assert reopened(row, acts.bus).content.read() == sent, "two persons may still open it"
    files = [path.read_bytes() for path in acts.bus.folder.rglob("*") if path.is_file()]
    assert not any(raw[-100:] in octets for octets in files)
    (entry,) = acts.bus.journal.search(type="spill")
    assert entry.leaf.outcome == "sealed"
    assert acts.bus.store.ledger().components == 0
    assert audit.verify(acts.bus.folder, trusted.anchors_of(acts.trial.settings)).problems == []


def test_a_delivery_without_any_goes_its_way(acts: Acts) -> None:
    acts.push("m-1", content(("内部", "", "公开")), FEED_ID)
    process(FEED_ID, acts.bus)
    assert code_and_status(acts, "m-1")[0] == "processed"


def test_the_others_of_its_batch_go_their_way(acts: Acts) -> None:
    for number, level in enumerate(("", "秘密", "")):
        acts.push(f"m-{number}", content((level,)), FEED_ID)
    process(FEED_ID, acts.bus)
    rows = [acts.bus.journal.inbox("made-up", f"m-{number}") for number in range(3)]
    assert [row.status for row in rows if row] == ["processed", "refused", "processed"]


def test_where_the_settings_say_so_it_waits_for_a_person_who_may_let_it_through(acts: Acts) -> None:
    holding = acts.with_(on_classified="hold")
    holding.push("m-1", content(("秘密",)), FEED_ID)
    process(FEED_ID, holding.bus)
    assert code_and_status(acts, "m-1") == ("held", "content.classified")
    row = acts.bus.journal.inbox("made-up", "m-1")
    assert row is not None
    assert is_sealed(row.evidence)
    with registry(acts.trial.settings) as opened:
        opened.decide_delivery(row.id, "release", SYSTEM)
    process(FEED_ID, holding.bus)
    assert code_and_status(acts, "m-1")[0] == "processed"
