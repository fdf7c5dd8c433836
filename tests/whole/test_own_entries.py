"""A bureau asks for its own entries, over SOAP and over REST, and its own side marks what it does not know."""

import json
from pathlib import Path
from typing import Any

from exchange.cli import main as command_line
from exchange.cli.partner import open_partner
from security.message import in_memory
from tests.whole.real_bus import FEED, RealBus, csv, rows


def listed(bus: RealBus, after: int, capsys: Any) -> dict[str, Any]:
    """What `yongtong entries` says of `made-up`, whose folder holds the certificates that it knows of."""
    mine = ["--as", "made-up", "--url", bus.url, "--partners", str(bus.trial.partners)]
    assert command_line.main(["entries", "--after", str(after), *mine, "--json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


def test_a_delivery_under_a_certificate_that_the_bureau_does_not_know_is_marked(bus: RealBus, capsys: Any) -> None:
    own = bus.partner().push(FEED, in_memory(csv(rows("mine-1"))), "text/csv", "mine-1")
    other = open_partner(bus.folder(kind="RS256").path, bus.url)  # a second key and connection, enrolled for made-up
    stolen = other.push(FEED, in_memory(csv(rows("stolen-1"))), "text/csv", "stolen-1")
    said = listed(bus, int(own.document["index"]) - 1, capsys)
    by_number = {entry["number"]: entry for entry in said["entries"]}
    assert by_number[own.document["index"]]["unknown"] == []
    assert by_number[stolen.document["index"]]["unknown"] == ["certificate", "delivery"]
    assert by_number[stolen.document["index"]]["detail"]["message_id"] == "stolen-1"
    assert said["count"] > len(said["entries"])
    assert all(entry["number"] >= own.document["index"] for entry in said["entries"])
    whole = listed(bus, 0, capsys)
    marked = [entry for entry in whole["entries"] if entry["leaf"]["type"] == "decision" and entry["unknown"]]
    assert marked, "the enrolment of the second key is marked, too"
    assert whole["count"] >= len(whole["entries"]) > len(said["entries"])


def test_the_table_names_what_is_unknown_and_the_next_step(bus: RealBus, capsys: Any) -> None:
    other = open_partner(bus.folder(kind="RS256").path, bus.url)
    stolen = other.push(FEED, in_memory(csv(rows("stolen-2"))), "text/csv", "stolen-2")
    mine = ["--as", "made-up", "--url", bus.url, "--partners", str(bus.trial.partners)]
    assert command_line.main(["entries", "--after", str(int(stolen.document["index"]) - 1), *mine]) == 0
    said = capsys.readouterr()
    assert "stolen-2" in said.out
    assert "报送件" in said.out
    assert "revokes it" in said.err


def test_rest_gives_the_same_entries_page_by_page(bus: RealBus, tmp_path: Path) -> None:
    bus.partner().push(FEED, in_memory(csv(rows("rest-1"))), "text/csv", "rest-1")
    soap = {entry.number: entry for entry in bus.partner().entries().entries}
    address, after, found = f"{bus.url}/api/v1/entries", 0, {}
    with bus.session(bus.folder()) as session:
        while page := session.get(address, params={"after": after, "limit": 50}, timeout=20).json()["entries"]:
            found |= {entry["number"]: entry for entry in page}
            after = page[-1]["number"]
            if len(page) < 50:
                break
        assert set(soap) <= set(found)
        assert all(json.loads(found[number]["leaf"]) == entry.leaf for number, entry in soap.items())
        assert all(json.loads(found[number]["detail"]) == entry.detail for number, entry in soap.items())
        refused = session.get(address, params={"limit": 201}, timeout=20).json()["refusal"]["code"]
        assert refused == "http.parameter"
    with bus.session(None) as session:
        assert session.get(address, timeout=20).json()["refusal"]["code"] == "auth.refused"
