"""Subscribers hear of every component's last state: late perhaps, twice perhaps, never not at all."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from exchange import publication
from exchange.app import opening
from exchange.cli.people import registry
from exchange.cli.trial import APPROVER
from exchange.processing import process
from exchange.publication import CHANGES, Change, Cursor, Cursors, Publisher, changes_after
from exchange.rights import View
from exchange.settings import load_settings
from security.errors import Misconfigured, Unavailable
from security.jws import open_document
from tests.acts.bench_of_one import FEED, Acts, both_acts, covers

STEPS = [f"changes.{step}:{side}" for step in ("send", "cursor") for side in ("before", "after")]


class Broker:
    """What acknowledges, at once or when told to, and keeps what it got by topic."""

    def __init__(self) -> None:
        self.got: list[tuple[str, bytes]] = []
        self.acknowledges, self.breaks = True, False

    def send(self, topic: str, octets: bytes) -> "Future[None]":
        if self.breaks:
            raise Unavailable("no broker")
        self.got.append((topic, octets))
        done: Future[None] = Future()
        if self.acknowledges:
            done.set_result(None)
        else:
            done.set_exception(TimeoutError())
        return done


class Street:
    """A bus with covers of `made-up`, which others hear of."""

    def __init__(self, acts: Acts) -> None:
        self.acts, self.broker = acts, Broker()
        acts.trial.grant("made-up", "push", FEED)
        acts.trial.enrol("centre", "District centre", "区中心")

    def publisher(self) -> Publisher:
        return Publisher(self.acts.bus, self.broker.send)

    def push(self, message_id: str, content: bytes) -> None:
        self.acts.push(message_id, content)
        process(FEED, self.acts.bus)

    def heard(self) -> list[dict[str, Any]]:
        """Every document that the broker got, once its signature holds."""
        der = self.acts.bus.answer_certificate_der
        return [open_document(octets, der, CHANGES) for _, octets in self.broker.got]

    def revoke(self, grant: str) -> None:
        with registry(self.acts.trial.settings) as opened:
            opened.revoke_grant(grant, APPROVER)

    def entries(self) -> list[dict[str, Any]]:
        found = self.acts.bus.journal.search(type="read")
        return [entry.detail or {} for entry in found if entry.leaf.outcome == "published"]


@pytest.fixture
def street(tmp_path: Path) -> Iterator[Street]:
    with both_acts(tmp_path) as acts:
        yield Street(acts)


def of(*classes: str) -> View:
    return View(frozenset(classes))


def moved(content: bytes) -> bytes:
    """The same covers a little to the east."""
    return content.replace(b"121.547", b"121.548")


def test_a_component_shows_once_with_its_latest_change(street: Street) -> None:
    street.push("m-1", covers("A", 3))
    store = street.acts.bus.store
    first = changes_after(store, 0, 10)
    assert [(one.key, one.kind, one.change_number) for one in first.changes] == [
        (1, "new", 1), (2, "new", 2), (3, "new", 3),
    ]  # fmt: skip
    assert first.changes[0].component == "3302030101000001"
    street.push("m-2", moved(covers("A", 2)))
    later = changes_after(store, first.next, 10)
    assert [(one.key, one.kind) for one in later.changes] == [(1, "changed"), (2, "changed")]
    assert [one.key for one in changes_after(store, 0, 10).changes] == [3, 1, 2]
    assert changes_after(store, later.next, 10) == publication.Changes((), later.next)


def test_pages_join_without_gap_or_repeat(street: Street) -> None:
    street.push("m-1", covers("A", 23))
    seen: list[Change] = []
    after = 0
    while (page := changes_after(street.acts.bus.store, after, 5)).changes:
        assert len(page.changes) <= 5
        seen.extend(page.changes)
        after = page.next
    assert [one.key for one in seen] == list(range(1, 24))


def test_what_a_grant_withholds_changes_no_byte_of_the_answer(street: Street) -> None:
    street.push("m-1", covers("A", 3))
    seen = changes_after(street.acts.bus.store, 0, 2, of("0101"))
    nothing = changes_after(street.acts.bus.store, 0, 2, of("0102"))
    assert (nothing.changes, nothing.next) == ((), 0)
    street.push("m-2", covers("B", 2).replace(b"0101", b"0102").replace(b"121.547", b"121.549"))
    assert changes_after(street.acts.bus.store, 0, 2, of("0101")) == seen
    others = changes_after(street.acts.bus.store, 0, 2, of("0102"))
    assert [one.change_number for one in others.changes] == [4, 5]


def test_of_a_class_that_is_undecided_each_must_be_granted(street: Street) -> None:
    street.push("m-1", covers("A", 2))
    with closing(sqlite3.connect(street.acts.bus.folder / "store.sqlite")) as store, store:
        store.execute("UPDATE components SET class_code = '0101|0103', identifier = NULL WHERE id = 2")
    seen = {
        codes: [(one.key, one.component) for one in changes_after(street.acts.bus.store, 0, 9, of(*codes)).changes]
        for codes in (("0101",), ("0103",), ("0101", "0103"), ())
    }
    first = (1, "3302030101000001")
    assert seen == {("0101",): [first], ("0103",): [], ("0101", "0103"): [first, (2, None)], (): [first, (2, None)]}


def test_a_subscriber_gets_signed_documents_in_batches_and_each_stands_in_the_audit(street: Street) -> None:
    street.push("m-1", covers("A", 450))
    grant = street.acts.trial.grant("centre", "subscribe", "changes")
    publisher = street.publisher()
    assert [publisher.publish() for _ in range(4)] == [True, True, False, False]
    documents = street.heard()
    assert {topic for topic, _ in street.broker.got} == {"yt/v1/to/centre/changes"}
    assert [len(one["changes"]) for one in documents] == [200, 200, 50]
    assert [(one["after"], one["next"]) for one in documents] == [(0, 200), (200, 400), (400, 450)]
    assert {(one["v"], one["origin"], one["recipient"]) for one in documents} == {(1, street.acts.bus.origin, "centre")}
    assert documents[0]["changes"][0] == {
        "component": "3302030101000001", "key": 1, "change_number": 1, "kind": "new",
    }  # fmt: skip
    assert sorted((one["after"], one["next"], one["changes"]) for one in street.entries()) == [
        (0, 200, 200), (200, 400, 200), (400, 450, 50),
    ]  # fmt: skip
    entry = next(one for one in street.acts.bus.journal.search(type="read") if one.leaf.outcome == "published")
    assert (entry.leaf.sender, entry.leaf.grant) == ("centre", grant)


def test_without_a_subscribe_grant_nobody_hears(street: Street) -> None:
    street.push("m-1", covers("A"))
    street.acts.trial.grant("centre", "pull", "changes")
    street.acts.trial.grant("made-up", "subscribe", "ownership")
    assert street.publisher().publish() is False
    assert street.broker.got == []


def test_a_revoked_or_ended_grant_stops_at_once(street: Street) -> None:
    grant = street.acts.trial.grant("centre", "subscribe", "changes")
    street.push("m-1", covers("A", 450))
    publisher = street.publisher()
    publisher.publish()
    street.revoke(grant)
    publisher.publish()
    assert len(street.broker.got) == 1
    street.acts.trial.grant("centre", "subscribe", "changes")
    in_a_year = street.acts.bus.clock() + timedelta(days=365)
    Publisher(street.acts.with_(clock=lambda: in_a_year).bus, street.broker.send).publish()
    assert len(street.broker.got) == 1


def test_under_another_grant_all_it_covers_is_told_from_the_beginning(street: Street) -> None:
    street.push("m-1", covers("A", 2) + covers("B", 2).partition(b"\n")[2].replace(b",0101,", b",0102,"))
    narrow = street.acts.trial.grant("centre", "subscribe", "changes", ["CJ/T 214-2007:0102"])
    street.publisher().publish()
    street.revoke(narrow)
    street.acts.trial.grant("centre", "subscribe", "changes")
    street.publisher().publish()
    told = [[one["key"] for one in document["changes"]] for document in street.heard()]
    assert told == [[3, 4], [1, 2, 3, 4]]


def test_withheld_changes_send_nothing_and_hold_nothing_up(street: Street) -> None:
    street.acts.trial.grant("centre", "subscribe", "changes", ["CJ/T 214-2007:0102"])
    publisher = street.publisher()
    street.push("m-1", covers("A", 3))
    assert publisher.publish() is False
    assert street.broker.got == []
    street.push("m-2", covers("B", 1).replace(b"0101", b"0102").replace(b"121.547", b"121.549"))
    publisher.publish()
    (document,) = street.heard()
    assert [one["change_number"] for one in document["changes"]] == [4]


@pytest.mark.parametrize("fault", ["acknowledges", "breaks"])
def test_what_the_broker_does_not_acknowledge_is_sent_again(street: Street, fault: str) -> None:
    street.acts.trial.grant("centre", "subscribe", "changes")
    street.acts.trial.grant("made-up", "subscribe", "changes")
    street.push("m-1", covers("A", 3))
    publisher = street.publisher()
    setattr(street.broker, fault, fault == "breaks")
    assert publisher.publish() is False
    assert street.entries() == []
    setattr(street.broker, fault, fault != "breaks")
    street.broker.got.clear()
    publisher.publish()
    assert [[one["key"] for one in document["changes"]] for document in street.heard()] == [[1, 2, 3]] * 2


def test_a_cursor_survives_a_restart_and_a_broken_file_stops_the_start(street: Street) -> None:
    street.acts.trial.grant("centre", "subscribe", "changes")
    street.push("m-1", covers("A", 3))
    street.publisher().publish()
    street.publisher().publish()
    assert len(street.broker.got) == 1
    (street.acts.bus.folder / "subscribers.json").write_bytes(b'{"g-')
    with pytest.raises(Misconfigured, match=r"subscribers\.json"):
        street.publisher()


def test_a_cursor_that_cannot_be_written_has_not_moved(street: Street, monkeypatch: pytest.MonkeyPatch) -> None:
    street.acts.trial.grant("centre", "subscribe", "changes")
    street.push("m-1", covers("A", 3))
    publisher = street.publisher()

    def full(_: int) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="disk full"):
            publisher.publish()
    publisher.publish()
    assert [document["after"] for document in street.heard()] == [0, 0]


# Kills ---------------------------------------------------------------------------------------------------------------


def publish_into(settings: str, file: str, turns: int) -> None:
    """What the killed process does: publish, the broker being a file that acknowledges once it has all."""
    bus = opening.open_bus(load_settings(Path(settings)))

    def send(topic: str, octets: bytes) -> "Future[None]":
        with Path(file).open("ab") as broker:
            broker.write(octets + b"\n")
        done: Future[None] = Future()
        done.set_result(None)
        return done

    publisher = Publisher(bus, send)
    for _ in range(turns):
        publisher.publish()
    bus.close()


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("step", STEPS)
def test_a_kill_may_repeat_a_document_and_skips_none(street: Street, tmp_path: Path, step: str, count: int) -> None:
    street.acts.trial.grant("centre", "subscribe", "changes")
    street.push("m-1", covers("A", 450))
    file = tmp_path / "broker"
    arguments = [street.acts.trial.settings.source, str(file)]

    def run(fault: str) -> int:
        command = [sys.executable, "-m", "tests.acts.test_changes", *arguments]
        return subprocess.run(command, env={**os.environ, "YONGTONG_FAULT": fault}, timeout=60, check=False).returncode

    assert run(f"{step}:{count}") == -signal.SIGKILL
    assert run("") == 0
    der = street.acts.bus.answer_certificate_der
    documents = [open_document(line, der, CHANGES) for line in file.read_bytes().splitlines()]
    numbers = [one["change_number"] for document in documents for one in document["changes"]]
    assert sorted(set(numbers)) == list(range(1, 451))
    firsts = [document["after"] for document in documents]
    assert firsts == sorted(firsts)
    assert len(documents) <= 4
    file = street.acts.bus.folder / "subscribers.json"
    assert list(msgspec.json.decode(file.read_bytes(), type=dict[str, Cursor]).values()) == [Cursor(450, 450)]


def test_a_turn_that_trips_is_recorded_and_the_next_one_comes(street: Street, monkeypatch: pytest.MonkeyPatch) -> None:
    stop, turns = threading.Event(), []

    def trips() -> bool:
        turns.append(1)
        if len(turns) == 2:
            stop.set()
        raise ValueError("never seen before")

    publisher = street.publisher()
    monkeypatch.setattr(publisher, "publish", trips)
    monkeypatch.setattr(publication, "EVERY_S", 0.01)
    publisher.run(stop)
    assert len(turns) == 2


def test_documents_chain_and_tell_nothing_of_what_the_grant_withholds(street: Street) -> None:
    street.acts.trial.grant("centre", "subscribe", "changes", ["CJ/T 214-2007:0101"])
    publisher = street.publisher()
    for number, (mine, withheld) in enumerate(((2, 3), (0, 4), (1, 2), (1, 0))):
        others = covers(f"X{number}", withheld).replace(b",0101,", b",0102,").partition(b"\n")[2]
        street.push(f"m-{number}", covers(f"A{number}", mine) + others)
        publisher.publish()
    told = [(one["after"], one["next"]) for one in street.heard()]
    assert len(told) == 3
    assert [after for after, _ in told] == [0, *(last for _, last in told[:-1])]


def test_cursors_are_whole_at_every_moment(tmp_path: Path, street: Street) -> None:
    id = street.acts.trial.grant("centre", "subscribe", "changes")
    grant = street.acts.bus.registry.grant(id)
    cursors = Cursors(tmp_path / "subscribers.json")
    assert cursors.of(grant) == Cursor(0, 0)
    cursors.move(grant, Cursor(7, 5))
    assert Cursors(tmp_path / "subscribers.json").of(grant) == Cursor(7, 5)
    assert [path.name for path in tmp_path.glob("subscribers*")] == ["subscribers.json"]


if __name__ == "__main__":
    publish_into(sys.argv[1], sys.argv[2], 4)
