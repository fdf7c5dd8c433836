"""A snapshot that would end too much waits for a person, who lets it through or ends it; both stand in the audit."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from exchange.cli.demo_quarter import prepared
from exchange.cli.people import registry
from exchange.cli.trial import SYSTEM, Trial
from exchange.registry import Officer
from security.errors import Refusal
from security.message import file_content, in_memory


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    trial = prepared(tmp_path_factory.mktemp("held"))
    trial.grant("water", "push", "water-register")
    with trial:
        whole = file_content(quarter(trial) / "water.csv")
        assert pushed(trial, "whole", whole.read()).status == "processed"
        yield trial


def quarter(trial: Trial) -> Path:
    return trial.folder.parent / "quarter"


def pushed(trial: Trial, message_id: str, octets: bytes):  # type: ignore[no-untyped-def]  # whatever a partner gets
    water = trial.partner("water")
    water.push("water-register", in_memory(octets), "text/csv", message_id)
    return water.report(message_id, wait_s=30)


def half(trial: Trial) -> bytes:
    lines = (quarter(trial) / "water.csv").read_bytes().splitlines(keepends=True)
    return b"".join(lines[: len(lines) // 2])


def decide(trial: Trial, message_id: str, decision: str, by: Officer = SYSTEM) -> None:
    with registry(trial.settings) as opened:
        row = opened.journal.inbox("water", message_id)
        assert row is not None
        opened.decide_delivery(row.id, decision, by)  # type: ignore[arg-type]  # a literal of the caller


def test_half_a_register_is_held_and_nothing_of_it_stored_until_a_person_lets_it_through(trial: Trial) -> None:
    held = pushed(trial, "half", half(trial))
    assert held.status == "held"
    report = held.received.document["report"]
    assert (report["code"], report["gone_limit_percent"]) == ("delivery.held", "5.0")
    with registry(trial.settings) as opened:
        assert [row.message_id for row in opened.journal.held()] == ["half"]
    decide(trial, "half", "release")
    done = trial.partner("water").report("half", wait_s=30)
    while done.status == "waiting":
        done = trial.partner("water").report("half", wait_s=30)
    assert done.status == "processed"
    assert done.received is not None
    assert done.received.document["report"]["gone"] > 300
    with registry(trial.settings) as opened:
        entry = opened.journal.search(type="held")[0]
    assert (entry.leaf.outcome, entry.leaf.actor[:7]) == ("release", "person-")


def test_what_is_not_held_cannot_be_decided(trial: Trial) -> None:
    with pytest.raises(Refusal, match=r"delivery\.not_held"):
        decide(trial, "whole", "release")


def test_an_older_snapshot_is_not_laid_over_a_later_one(trial: Trial) -> None:
    whole = (quarter(trial) / "water.csv").read_bytes()
    assert pushed(trial, "old", b"".join(whole.splitlines(keepends=True)[:3])).status == "held"
    assert pushed(trial, "new", whole).status == "processed"
    with pytest.raises(Refusal, match=r"delivery\.superseded"):
        decide(trial, "old", "release")
    decide(trial, "old", "refuse")


def test_a_person_may_end_it(trial: Trial) -> None:
    lines = (quarter(trial) / "water.csv").read_bytes().splitlines(keepends=True)
    assert pushed(trial, "nearly-nothing", b"".join(lines[:3])).status == "held"
    decide(trial, "nearly-nothing", "refuse")
    water = trial.partner("water")
    ended = water.report("nearly-nothing", wait_s=30)
    while ended.status != "refused":
        ended = water.report("nearly-nothing", wait_s=30)
    assert ended.received is not None
    assert ended.received.document["report"]["code"] == "delivery.refused_by_person"
