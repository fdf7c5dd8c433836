"""`audit search` and `audit rebuild` as officers use them: by what they ask, page by page, and who may ask for what."""

import json
import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from exchange.cli import main as command_line
from exchange.cli.trial import AUDITOR
from tests.acts.bench_of_one import FEED, Acts, both_acts, covers


class Desk:
    """A bus that took in three deliveries, and the command line before it."""

    def __init__(self, acts: Acts, capsys: pytest.CaptureFixture[str]) -> None:
        self.acts, self._capsys = acts, capsys
        self._settings = ["--settings", acts.trial.settings.source]

    def run(self, *words: str) -> tuple[int, dict[str, Any]]:
        code = command_line.main([*words, *self._settings, "--json"])
        return code, json.loads(self._capsys.readouterr().out)

    def search(self, *words: str, by: str = AUDITOR.name) -> dict[str, Any]:
        code, said = self.run("audit", "search", *words, *(["--by", by] if by else []))
        assert code == 0
        return said

    def indexes(self, *words: str, by: str = AUDITOR.name) -> list[int]:
        return [entry["index"] for entry in self.search(*words, by=by)["entries"]]


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Desk]:
    with both_acts(tmp_path) as acts:
        acts.trial.grant("made-up", "push", FEED)
        for number in range(3):
            acts.push(f"m-{number}", covers(f"M-{number}"))
        yield Desk(acts, capsys)


def test_a_delivery_is_found_by_its_message_its_feed_its_bureau_and_who_signed(desk: Desk) -> None:
    (index,) = desk.indexes("--type", "delivery", "--message", "m-1")
    leaf = desk.acts.bus.journal.entry(index).leaf  # type: ignore[union-attr]
    for words in (["--feed", FEED], ["--bureau", "made-up"], ["--sender", "made-up"], ["--person", leaf.actor]):
        assert index in desk.indexes("--type", "delivery", "--code", "accepted", *words), words
    assert desk.indexes("--bureau", "none") == []


def test_the_next_page_is_a_command_that_goes_on_where_this_one_ends(desk: Desk) -> None:
    every = desk.indexes("--type", "delivery")
    assert len(every) == 3
    page, seen = desk.search("--type", "delivery", "--limit", "1"), []
    while page["entries"]:
        seen += [entry["index"] for entry in page["entries"]]
        words = shlex.split(page["next"])
        assert words[:3] == ["yongtong", "audit", "search"]
        _, page = desk.run(*words[1:])
    assert seen == every
    assert page["next"] is None


def test_pages_forward_go_from_the_oldest(desk: Desk) -> None:
    every = desk.indexes("--type", "delivery")
    page = desk.search("--type", "delivery", "--after", str(every[-1]), "--limit", "1")
    assert [entry["index"] for entry in page["entries"]] == [every[1]]
    _, page = desk.run(*shlex.split(page["next"])[1:])
    assert [entry["index"] for entry in page["entries"]] == [every[0]]


@pytest.mark.parametrize("name", ["--message", "--component", "--purpose"])
def test_whoever_may_not_see_details_cannot_search_by_them(desk: Desk, name: str) -> None:
    assert command_line.main(["audit", "search", name, "m-1", "--settings", desk.acts.trial.settings.source]) == 2


def test_without_an_office_a_code_counted_in_a_detail_finds_nothing(desk: Desk) -> None:
    desk.acts.bus.journal.note_stranger("192.0.2.1", "auth.no_certificate")
    desk.acts.bus.journal._stage_strangers(everything=True)
    desk.acts.bus.journal.resume()
    assert len(desk.indexes("--code", "auth.no_certificate")) == 1
    assert desk.indexes("--code", "auth.no_certificate", by="") == []
    assert len(desk.indexes("--code", "strangers", by="")) == 1


def test_a_search_by_component_is_not_taken_for_a_read_of_it(desk: Desk) -> None:
    desk.search("--component", "3302030101000001")
    assert desk.indexes("--component", "3302030101000001") == []
    entries = desk.search("--outcome", "searched")["entries"]
    assert {entry["detail"].get("searched_component") for entry in entries} == {"3302030101000001"}


def test_the_index_is_made_again_and_compared(desk: Desk) -> None:
    assert desk.run("audit", "rebuild") == (0, {"ok": True, "full": 0, "indexed": 0, "differing": []})
    assert desk.run("audit", "rebuild", "--check")[0] == 0


# What is done with the one entry, and words that read it.
READERS = {
    "search": ["audit", "search", "--by", AUDITOR.name],
    "search without an office": ["audit", "search"],
    "search by what the index does not have yet": ["audit", "search", "--message", "m-1", "--by", AUDITOR.name],
    "what is old enough to be erased": ["erasure", "due"],
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    "octets", [b'{"message_id": "m-', b"\xff\xfe", b"[1]", b"{}}"], ids=["cut", "not UTF-8", "a list", "more"]
)
def test_a_row_altered_on_the_disk_is_said_with_code_and_next_step_and_verify_names_it(
    desk: Desk, capsys: pytest.CaptureFixture[str], name: str, octets: bytes
) -> None:
    (index,) = desk.indexes("--type", "delivery", "--message", "m-1")
    altered = (
        "UPDATE entries SET leaf = ?" if name == "what is old enough to be erased" else "UPDATE details SET detail = ?"
    )
    with closing(sqlite3.connect(desk.acts.bus.folder / "journal.sqlite")) as connection:
        connection.execute(f"{altered} WHERE idx = ?", (octets, index))
        connection.commit()
    code, said = desk.run(*READERS[name])
    assert code == 1
    broken = said["audit_broken"]
    assert broken["code"] == "audit.broken"
    assert all(broken[words] for words in ("zh", "en", "next_zh", "next_en"))
    assert command_line.main([*READERS[name], "--settings", desk.acts.trial.settings.source]) == 1
    told = capsys.readouterr().err
    assert "audit.broken" in told
    assert "yongtong audit verify" in told
    code, verdict = desk.run("audit", "verify")
    assert code == 1
    assert index in {problem["entry"] for problem in verdict["problems"]}
