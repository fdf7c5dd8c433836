"""On a server several processes write one log: one at a time, and none for ever. The server may be killed meanwhile."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from exchange.audit import verify
from exchange.database import Database, Failed
from exchange.journal import Journal
from exchange.postgres import PostgresSchema
from exchange.replays import SharedReplays
from security.errors import Refusal, Unavailable
from tests.log.buses import NOON, JournalFolder, an_entry
from tests.postgres import PostgresServer

HANDED_OVER_S = 5.0
DELIVERIES = 120


@pytest.fixture
def mortal() -> Iterator[PostgresServer]:
    """A server that may be killed."""
    server = PostgresServer()
    yield server
    server.stop()


def on(server: PostgresServer, folder: Path) -> JournalFolder:
    (folder / "database.url").write_text(server.database())
    return JournalFolder(folder)


def test_who_holds_the_turn_and_says_nothing_loses_it_and_all_that_it_wrote_within_five_seconds(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    bus = on(postgres, tmp_path)
    journal = bus.open()
    journal.note(an_entry()).result(10)
    silent, taken = _Silent(bus.database), threading.Event()
    holding = threading.Thread(target=silent.hold, args=(taken,))
    holding.start()
    assert taken.wait(10)
    began = time.monotonic()
    assert journal.note(an_entry()).result(10).index == 1
    assert time.monotonic() - began < HANDED_OVER_S
    silent.wake.set()
    holding.join()
    assert isinstance(silent.heard, Failed)
    journal.close()
    assert verify(bus.readable(), bus.anchors).problems == []


class _Silent:
    """A process that was stopped in the middle of its turn, as by SIGSTOP or a cut wire."""

    def __init__(self, database: Database) -> None:
        self.database, self.wake = database, threading.Event()
        self.heard: Exception | None = None

    def hold(self, taken: threading.Event) -> None:
        try:
            with closing(self.database.connect()) as connection, self.database.transaction(connection) as cursor:
                cursor.execute("INSERT INTO entries VALUES (1, ?)", (b"{}",))
                taken.set()
                self.wake.wait(30)
        except Failed as problem:
            self.heard = problem


def test_a_server_killed_and_started_again_under_load_loses_nothing_and_doubles_nothing(
    mortal: PostgresServer, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    bus = on(mortal, tmp_path)
    journal, receipts, kills = bus.open(), dict[str, bytes](), 3
    senders = [threading.Thread(target=_send, args=(bus, journal, receipts, first)) for first in range(3)]
    for sender in senders:
        sender.start()
    for number in range(kills):
        _wait_until(lambda number=number: len(receipts) >= (number + 1) * DELIVERIES // (kills + 1))
        mortal.kill()
        time.sleep(0.2)
        mortal.start()
    for sender in senders:
        sender.join()
    journal.resume()
    kept = {f"m-{number}": journal.receipt("water", f"m-{number}") for number in range(DELIVERIES)}
    assert kept == receipts
    journal.close()
    verdict = verify(bus.readable(), bus.anchors)
    assert (verdict.problems, verdict.receipts) == ([], DELIVERIES)
    tell(f"postgresql journal: {kills} kills of the server, {DELIVERIES} deliveries, each with its one receipt")


def _send(bus: JournalFolder, journal: Journal, receipts: dict[str, bytes], first: int) -> None:
    """Every third delivery, each again and again until there is a receipt, as a bureau's client does."""
    for number in range(first, DELIVERIES, 3):
        while f"m-{number}" not in receipts:
            try:
                accepted = journal.accept(bus.acceptance(f"m-{number}", b"row %d" % number)).result(60)
            except Unavailable:
                time.sleep(0.05)
            else:
                assert accepted.inbox.receipt is not None
                receipts[f"m-{number}"] = accepted.inbox.receipt


def _wait_until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_two_processes_that_start_at_once_make_the_schema_once(postgres: PostgresServer) -> None:
    url, problems = postgres.database(), list[Exception]()

    def prepare() -> None:
        try:
            PostgresSchema(url, "journal").prepare()
        except Exception as problem:
            problems.append(problem)

    starting = [threading.Thread(target=prepare) for _ in range(4)]
    for one in starting:
        one.start()
    for one in starting:
        one.join()
    assert problems == []
    assert PostgresSchema(url, "journal").exists()


def test_a_duty_is_one_process_and_goes_to_another_when_that_one_ends(postgres: PostgresServer) -> None:
    database = PostgresSchema(postgres.database(), "journal")
    database.prepare()
    with database.duty("timestamps") as first, database.duty("timestamps") as second, database.duty("other") as third:
        assert (first, second, third) == (True, False, True)
    with database.duty("timestamps") as later:
        assert later


def test_a_read_that_one_process_answered_no_other_answers_again(postgres: PostgresServer) -> None:
    database = PostgresSchema(postgres.database(), "journal")
    database.prepare()
    one, other = SharedReplays(database), SharedReplays(database)
    later = NOON.replace(hour=5)
    one.refuse_again("water", "a" * 64, later, NOON)
    with pytest.raises(Refusal, match="replayed"):
        other.refuse_again("water", "a" * 64, later, NOON)
    other.refuse_again("power", "a" * 64, later, NOON)
    other.refuse_again("water", "a" * 64, later.replace(hour=6), later)  # the first is stale by then


def test_a_password_in_the_address_is_refused_before_anything_is_dialled() -> None:
    with pytest.raises(Exception, match="PGPASSFILE"):
        PostgresSchema("postgresql://bus:secret@127.0.0.1/bus", "journal")
