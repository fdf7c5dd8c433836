"""A gateway's readings through a real bus: over SOAP, shown at every door, and applied once whatever is killed."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from connectors.partner.folder import PartnerFolder
from connectors.partner.subscriber import Subscriber
from exchange.cli.partner import open_mqtt_partner
from exchange.cli.people import registry
from exchange.cli.trial import PROPOSER, Trial
from security.message import in_memory
from tests.whole.real_bus import FEED, REGISTER, a_trial, csv, rows
from tests.whole.test_kills import WORKER_STEPS, TwoProcesses, free_port

TELEMETRY = "made-up-telemetry"
FILE = """
id = "made-up-telemetry"
title = "Readings of a made-up bureau"
title_zh = "某单位监测数据"
bureau = "made-up"
format = "telemetry_json"
content = "readings"
of = "made-up-register"

[fields]
source_key = { from = "device" }
quantity = { from = "metric" }
value = { from = "value", parse = "number" }
state = { from = "status" }
observed_at = { from = "at", parse = "instant" }
"""
NOW = datetime.now(UTC).replace(microsecond=0)


def readings(*said: dict[str, Any]) -> bytes:
    """A delivery, one reading a line; each a minute older than the one before."""
    lines = [
        {"device": "T-0", "metric": "level_m", "at": (NOW - timedelta(minutes=n + 1)).isoformat(), **one}
        for n, one in enumerate(said)
    ]
    return "\n".join(json.dumps(line, ensure_ascii=False) for line in lines).encode()


def made_trial(folder: Path) -> Trial:
    """Not started."""
    made = a_trial(folder, REGISTER, FILE)
    made.enrol("made-up", "Made-up bureau", "某单位")
    made.grant("made-up", "push", FEED)
    made.grant("made-up", "push", TELEMETRY)
    made.grant("made-up", "pull", "components")
    return made


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Trial]:
    made = made_trial(tmp_path)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def killable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Trial, TwoProcesses]]:
    """A bus that knows the component T-0, and whose worker may be killed; each test finds it at work."""
    trial, port = made_trial(tmp_path_factory.mktemp("killable")), free_port()
    trial.url = f"https://127.0.0.1:{port}"
    processes = TwoProcesses(trial, port)
    try:
        for role in ("http", "worker"):
            processes.start(role)
        processes.wait_open()
        pushed(trial, FEED, csv(rows("T", 1)), "register")
        yield trial, processes
    finally:
        processes.stop()


def pushed(trial: Trial, feed: str, content: bytes, message_id: str) -> dict[str, Any]:
    """The report of a delivery, pushed and waited for."""
    partner = trial.partner("made-up")
    partner.push(feed, in_memory(content), "application/json", message_id)
    received = partner.report(message_id, wait_s=60).received
    assert received is not None
    report: dict[str, Any] = received.document["report"]
    return report


def test_a_reading_is_shown_at_every_door_with_its_evidence(trial: Trial) -> None:
    trial.start()
    pushed(trial, FEED, csv(rows("T", 1)), "register")
    content = readings({"value": 3.2}, {"metric": "cover", "status": "open"}, {"device": "X", "value": 1})
    report = pushed(trial, TELEMETRY, content, "t-1")
    assert (report["records"], report["new"], report["rejected"]) == (3, 2, 1)
    component = trial.partner("made-up").component("1", purpose="p")
    said = [(one.quantity, one.value, one.state, one.observed_at) for one in component.readings]
    assert said == [
        ("cover", None, "open", NOW - timedelta(minutes=2)),
        ("level_m", 3.2, None, NOW - timedelta(minutes=1)),
    ]
    receipt = trial.partner("made-up").receipt("t-1").document
    level = component.readings[1]
    assert (level.entry, level.evidence_class, level.message_id, level.record) == (receipt["index"], "signed", "t-1", 0)
    folder = PartnerFolder(trial.partners / "made-up")
    over_rest = requests.get(
        f"{trial.url}/api/v1/components/1",
        cert=(folder.file("connection.pem"), folder.file("connection.key")),
        verify=folder.file("ca.pem"),
        timeout=10,
    ).json()["component"]
    command = [sys.executable, "-m", "exchange.cli.main", "component", "1"]
    here = ["--settings", trial.settings.source]
    told = subprocess.run([*command, "--json", *here], capture_output=True, text=True, check=True, timeout=60).stdout
    assert json.loads(told)["readings"] == over_rest["readings"]
    assert [one["quantity"] for one in over_rest["readings"]] == ["cover", "level_m"]
    table = subprocess.run([*command, *here], capture_output=True, text=True, check=True, timeout=60).stdout
    assert "最新监测读数" in table


def test_a_gateway_s_readings_come_over_mqtt_and_a_subscriber_hears_of_the_register(trial: Trial) -> None:
    trial.enrol("case-system", "Case system", "案件系统", "case system")
    trial.grant("case-system", "subscribe", "changes")
    trial.start()
    with Subscriber(PartnerFolder(trial.partners / "case-system"), trial.mqtt_url) as subscriber:
        pushed(trial, FEED, csv(rows("T", 2)), "register")
        heard = subscriber.next(30)
        assert heard is not None
        first = [(change["key"], change["kind"]) for change in heard["changes"]]
        with open_mqtt_partner(trial.partners / "made-up", trial.mqtt_url) as gateway:
            gateway.push(TELEMETRY, in_memory(readings({"value": 3.2})), "application/json", "t-1")
            reported = gateway.report("t-1", wait_s=60)
        assert reported.received is not None
        assert reported.received.document["report"]["new"] == 1
        pushed(trial, FEED, csv([{**rows("T", 1)[0], "权属单位": "另一单位"}]), "register-2")
        later = subscriber.next(30)
        assert later is not None
    # A reading is no change of the register: the next thing heard is the new owner.
    assert (first, later["after"]) == ([(1, "new"), (2, "new")], heard["next"])
    assert [(change["key"], change["kind"]) for change in later["changes"]] == [(1, "changed")]
    (level,) = trial.partner("made-up").component("1", purpose="p").readings
    assert (level.value, level.message_id) == (3.2, "t-1")


def test_a_subscription_that_ended_hears_nothing_more(trial: Trial) -> None:
    trial.enrol("case-system", "Case system", "案件系统", "case system")
    grant = trial.grant("case-system", "subscribe", "changes")
    trial.start()
    with Subscriber(PartnerFolder(trial.partners / "case-system"), trial.mqtt_url) as subscriber:
        pushed(trial, FEED, csv(rows("T", 1)), "register")
        assert subscriber.next(30) is not None
        with registry(trial.settings) as opened:
            opened.revoke_grant(grant, PROPOSER)
        pushed(trial, FEED, csv(rows("U", 1)), "register-2")
        assert subscriber.next(3) is None


def test_a_preview_shows_what_readings_would_become(trial: Trial, tmp_path: Path) -> None:
    file = tmp_path / "readings.json"
    file.write_bytes(readings({"value": 3.2}, {"value": "NaN"}))
    command = [sys.executable, "-m", "exchange.cli.main", "feed", "preview", TELEMETRY, str(file), "--json"]
    command += ["--settings", trial.settings.source]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)
    assert told["records"] == 2
    assert [(one["source_key"], one["value"]) for one in told["candidates"]] == [("T-0", 3.2)]
    assert [one["code"] for one in told["findings"]] == ["value.not_readable"]


@pytest.mark.parametrize("step", [f"{step}:{side}" for step in WORKER_STEPS for side in ("before", "after")])
def test_a_worker_killed_at_any_step_applies_readings_once(killable: tuple[Trial, TwoProcesses], step: str) -> None:
    trial, processes = killable
    at = datetime.now(UTC)  # later than what any other step's test said
    content = readings(*({"value": n + 1, "at": (at - timedelta(microseconds=n)).isoformat()} for n in range(2)))
    processes.kill("worker")
    processes.start("worker", f"{step}:1")
    partner = trial.partner("made-up")
    partner.push(TELEMETRY, in_memory(content), "application/json", f"{step}-1")
    until = time.monotonic() + 60
    while not processes.dead("worker"):
        assert time.monotonic() < until, "the worker did not come to the step"
        time.sleep(0.1)
    processes.start("worker")
    received = partner.report(f"{step}-1", wait_s=60).received
    assert received is not None
    report = received.document["report"]
    assert (report["records"], report["new"], report["unchanged"]) == (2, 2, 0)
    again = pushed(trial, TELEMETRY, content, f"{step}-2")
    assert (again["new"], again["unchanged"]) == (0, 2)
    (level,) = partner.component("1", purpose="p").readings
    assert (level.value, level.message_id) == (1.0, f"{step}-1")
