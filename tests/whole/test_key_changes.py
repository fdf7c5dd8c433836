"""The bus's keys change between two runs; a partner's own command follows, over a door that it need not believe."""

import json
from pathlib import Path
from typing import Any

import pytest

from exchange.cli import main as command_line
from exchange.cli.trial import APPROVER, SYSTEM
from security.errors import ExchangeError
from security.message import in_memory
from tests.whole.real_bus import FEED, RealBus, csv, real_bus, rows


def test_a_partner_of_a_real_bus_follows_a_change_of_both_keys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: str, code: int = 0) -> dict[str, Any]:
        assert command_line.main([*words, "--settings", bus.trial.settings.source, "--json"]) == code, words
        said: dict[str, Any] = json.loads(capsys.readouterr().out)
        return said

    with real_bus(tmp_path) as bus:
        first = pushed(bus, "before")
        decisions = [
            run("key", "propose", name, "--ground", "年度更换", "--by", SYSTEM.name)["decision"]
            for name in ("log", "answer")
        ]
        for decision in decisions:
            run("decision", "approve", decision, "--by", APPROVER.name)
        said = run("key", "rotate", decisions[0], "--by", SYSTEM.name, code=2)
        assert "stop serve first" in said["misconfigured"]["detail"]
        bus.trial.stop()
        for decision in decisions:
            run("key", "rotate", decision, "--by", SYSTEM.name)
        bus.trial.start()
        with pytest.raises(ExchangeError):  # answers are signed by a key that this partner does not know yet
            pushed(bus, "between")
        update = ["anchors", "update", "--as", "made-up", "--partners", str(bus.trial.partners), "--url", bus.url]
        assert run(*update)["changes"] == 2
        second = pushed(bus, "after")
        assert run(*update)["changes"] == 0
        receipt = bus.partner().receipt("before")
        assert (receipt.octets, second == first) == (first, False)


def pushed(bus: RealBus, id: str) -> bytes:
    return bus.partner().push(FEED, in_memory(csv(rows(id))), "text/csv", id).octets
