"""It shows 5, over real doors: readers are told of a recall, two persons erase the content while the bus runs, receipts
go on verifying and say so, and the bytes are nowhere in the state folder."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

import psycopg
import pytest

from connectors.partner.folder import PartnerFolder
from connectors.partner.subscriber import Subscriber
from exchange.cli.trial import APPROVER, AUDITOR, City, Trial
from security.errors import Refusal
from security.message import in_memory
from tests.acts.bench_of_one import EXTENT, FEED, SAMPLE, covers
from tests.acts.test_erasure import NAMED, SECRETS, content, found_in, spellings

HERE_S: Final = 60.0


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def trial(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    url = request.getfixturevalue("postgres").database() if request.param == "postgresql" else ""
    folder = tmp_path_factory.mktemp("recall")
    (folder / "feeds").mkdir()
    register = NAMED.replace("\ncrs = ", "\nas_of = 2026-01-01\ncrs = ", 1)
    (folder / "feeds" / f"{FEED}.toml").write_text(register, encoding="utf-8")
    city = City(EXTENT, SAMPLE / "districts.geojson", SAMPLE / "grid.geojson", (folder / "feeds",))
    trial = Trial(folder / "bus", city, state={"journal": url, "store": url})
    for bureau in ("made-up", "others", "centre"):
        trial.enrol(bureau, bureau, bureau)
    trial.grant("made-up", "push", FEED)
    for view in ("ownership", "components", "changes"):
        trial.grant("centre", "pull", view)
    trial.grant("centre", "subscribe", "changes")
    with trial:
        yield trial


def command(trial: Trial, *words: str, code: int = 0) -> Any:
    """What a command of the bus's machine, or of a bureau, prints as JSON."""
    line = [sys.executable, "-m", "exchange.cli.main", *words, "--settings", trial.settings.source, "--json"]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == code, f"{words}: {done.stdout}{done.stderr}"
    return json.loads(done.stdout)


def by_bureau(trial: Trial, *words: str, code: int = 0) -> Any:
    return command(trial, *words, "--url", trial.url, "--partners", str(trial.partners), code=code)


def heard(subscriber: Subscriber, kind: str) -> set[int]:
    """Components of which a subscriber hears that kind of change, the first that come."""
    until = monotonic() + HERE_S
    while monotonic() < until:
        document = subscriber.next(HERE_S)
        assert document is not None
        found = {int(change["key"]) for change in document["changes"] if change["kind"] == kind}
        if found:
            return found
    raise AssertionError(f"nobody heard {kind}")


def test_it_shows_recall_and_erasure_from_the_push_to_the_empty_state_folder(trial: Trial, tmp_path: Path) -> None:
    partner, centre = trial.partner("made-up"), trial.partner("centre")
    past = date(2026, 2, 1)
    with Subscriber(PartnerFolder(trial.partners / "centre"), trial.mqtt_url) as subscriber:
        received = partner.push(FEED, in_memory(content(count=5)), "text/csv", "m-1")
        partner.push(FEED, in_memory(content("OTHER", 2)), "text/csv", "m-2")
        reported = partner.report("m-1", wait_s=HERE_S)
        assert reported.status == "processed"
        assert partner.report("m-2", wait_s=HERE_S).status == "processed"
        new = heard(subscriber, "new")
        key = str(min(new))
        assert centre.ownership(key, past, purpose="test").roles[1].units[0].name == "MARK-OWNER"
        # The recall: another bureau's is refused; the bureau's own is answered, and the same again is the same.
        refused = by_bureau(trial, "recall", "m-1", "--as", "others", "--ground", "x", code=1)
        assert refused["refused"]["code"] == "delivery.unknown"
        recalled = by_bureau(trial, "recall", "m-1", "--as", "made-up", "--ground", "数据有误")
        assert recalled["report"]["outcome"] == "recalled"
        assert by_bureau(trial, "recall", "m-1", "--as", "made-up", "--ground", "again") == recalled
        # Readers are told: over the broker, by pull, and for a day before.
        assert heard(subscriber, "recalled")
    kinds = {change.kind for change in centre.changes(purpose="test").changes}
    assert "recalled" in kinds
    assert centre.ownership(key, purpose="test").claims == ()
    (claim,) = centre.ownership(key, past, purpose="test").claims
    assert claim.recalled_at is not None
    assert claim.owner is not None
    assert claim.owner.name == "MARK-OWNER"
    reported = partner.report("m-1")
    assert (reported.status, reported.received and reported.received.document["outcome"]) == ("recalled", "recalled")
    settled(trial)
    assert found_in(trial.state / "evidence", *SECRETS) == [], "sealed before anybody erases it"
    # The erasure: one person alone does nothing, two do.
    by_audit, by_security = ("--by", AUDITOR.name), ("--by", APPROVER.name)
    asked = command(trial, "erasure", "ask", "m-1", "--ground", "已撤回", *by_audit)
    alone = command(trial, "erasure", "carry", asked["decision"], *by_audit, code=1)
    assert alone["refused"]["code"] == "decision.not_in_force"
    assert found_in(trial.state, *SECRETS) + in_tables(trial, *SECRETS) != []
    command(trial, "decision", "approve", asked["decision"], *by_security)
    assert command(trial, "erasure", "carry", asked["decision"], *by_audit)["state"] == "erased"
    twice = command(trial, "erasure", "carry", asked["decision"], *by_audit, code=1)
    assert twice["refused"]["code"] == "decision.not_in_force"
    # The bytes are nowhere, while the bus runs on; its neighbour's are.
    assert found_in(trial.state, *SECRETS) + in_tables(trial, *SECRETS) == []
    assert found_in(trial.state, "OTHER-KEY") + in_tables(trial, "OTHER-KEY") != []
    (told,) = centre.ownership(key, past, purpose="test").claims
    assert (told.erased_on is not None, told.owner, told.attributes) == (True, None, {})
    # Receipt and report that the bureau kept verify; what the bus says of them names the day.
    kept = trial.partners / "made-up"
    for file in (kept / "receipts" / "m-1.receipt.json", kept / "reports" / "m-1.report.json"):
        verified = command(trial, "verify", str(file), "--anchors", str(trial.state / "anchors.json"))
        assert verified["ok"]
    shown = by_bureau(trial, "receipt", "m-1", "--as", "made-up")
    assert shown["content"]["code"] == "content.erased"
    assert shown["content"]["erased_on"] == told.erased_on.isoformat() if told.erased_on else False
    assert partner.receipt("m-1").octets == received.octets, "the same receipt for ever"
    report = by_bureau(trial, "report", "m-1", "--as", "made-up")
    assert (report["report"], report["content"]["code"]) == (None, "content.erased")
    proven = command(trial, "audit", "prove", str(received.document["index"]))
    assert (proven["erased"]["code"], bool(proven["proof"])) == ("content.erased", True)
    verdict = command(trial, "audit", "verify")
    assert (verdict["ok"], verdict["erased"] >= 3) == (True, True)
    # And the bus goes on: the same records, sent anew under a new id, are news.
    partner.push(FEED, in_memory(content("MARK", 5)), "text/csv", "m-3")
    again = partner.report("m-3", wait_s=HERE_S)
    assert again.received is not None
    assert again.received.document["report"]["new"] == 5  # type: ignore[index,call-overload]  # it is an object
    print(f"RECALL AND ERASURE {verdict['entries']} entries, {verdict['erased']} details erased, bytes found: 0 files")


def in_tables(trial: Trial, *words: str) -> list[str]:
    """Tables on a server, where the bus has one, in which a word lies, in clear or in base64."""
    if not trial.settings.state.store:
        return []
    spelt = [one for word in words for one in spellings(word.encode())]
    with psycopg.connect(trial.settings.state.store) as connection:
        query = "SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname IN ('journal', 'store')"
        found = []
        for (table,) in connection.execute(query).fetchall():
            with connection.cursor().copy(f"COPY {table} TO STDOUT") as rows:
                octets = b"".join(bytes(row) for row in rows)
            found += [table for one in spelt if one in octets or one.hex().encode() in octets]
    return found


def settled(trial: Trial) -> None:
    """Wait until act two has carried out what was recalled."""
    until = monotonic() + HERE_S
    while monotonic() < until:
        entries = command(trial, "audit", "search", "--type", "recall", "--outcome", "carried_out")["entries"]
        if entries:
            return
        sleep(0.5)
    raise AssertionError("act two did not carry the recall out")


def test_what_never_was_is_unknown_and_a_recall_needs_its_bureaus_key(trial: Trial) -> None:
    with pytest.raises(Refusal) as problem:
        trial.partner("made-up").recall("never-was", "x")
    assert problem.value.code == "delivery.unknown"
    trial.partner("made-up").push(FEED, in_memory(covers("Z")), "text/csv", "m-z")
    with pytest.raises(Refusal) as problem:
        trial.partner("others").recall("m-z", "x", on_behalf_of="made-up")
    assert problem.value.code == "auth.sender_mismatch"
