"""What the bus makes of a timestamp authority's answers: a real one is kept, every other is refused by name."""

import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from connectors.transports.fetch import fetch
from exchange import timestamp_watch
from exchange.attestations import Attestations
from exchange.database import SqliteFile
from exchange.entry import Entry
from exchange.timestamp_watch import Authorities, TimestampWatch
from exchange.timestamping import Coverage, Rule, stamped_octets
from security.cosignature import Witness, cosign, cosignatures
from security.errors import Refusal
from security.keys import generate
from security.timestamp import Question
from tests.certificates.servers import FileServer, file_server
from tests.log.buses import JournalFolder
from tests.timestamps.authority import OpensslTsa, give

HOUR = timedelta(hours=1)


class Stamped:
    """A log that is stamped by the authority at `/` of a server. ahead: how far our clock is."""

    def __init__(self, folder: Path, server: FileServer, tsa: OpensslTsa, *paths: str) -> None:
        self.bus, self.server, self.tsa, self.ahead = JournalFolder(folder), server, tsa, timedelta(0)
        self.journal = self.bus.open(self.now)
        self.kept = Attestations(SqliteFile(folder, "journal"))
        self.coverage = Coverage(self.journal, self.kept, tsa.roots, Rule())
        urls = [server.url(path) for path in paths or ("/",)]
        self.watch = TimestampWatch(
            self.journal,
            self.kept,
            self.coverage,
            Authorities(urls, tsa.roots, 10 * timedelta(minutes=1)),
            fetch,
            self.now,
        )

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def enter(self, count: int = 1) -> None:
        for _ in range(count):
            self.journal.note(Entry(type="read", outcome="answered")).result(30)

    def turn(self, after: timedelta = timedelta(0)) -> None:
        self.ahead += after
        self.watch.turn(threading.Event())


@pytest.fixture(scope="module")
def tsa(tmp_path_factory: pytest.TempPathFactory) -> OpensslTsa:
    return OpensslTsa(tmp_path_factory.mktemp("tsa") / "tsa")


@pytest.fixture
def log(tmp_path: Path, tsa: OpensslTsa) -> Iterator[Stamped]:
    with file_server() as server:
        stamped = Stamped(tmp_path, server, tsa)
        server.files["/"] = tsa.answering()
        yield stamped
        stamped.journal.close()
        stamped.kept.close()
        stamped.coverage.close()


def test_the_newest_head_is_stamped_and_openssl_agrees(log: Stamped) -> None:
    log.enter(3)
    log.turn()
    head = log.kept.last_stamped()
    assert head is not None
    assert (head.size, log.coverage.stamped(), log.coverage.oldest()) == (3, 3, None)
    assert "Verification: OK" in log.tsa.verify(head.response, head.checkpoint.encode())
    assert abs(datetime.fromisoformat(head.stamped_at) - log.now()) < timedelta(seconds=10)


def test_what_is_stamped_has_no_witness_in_it(log: Stamped) -> None:
    """A witness may sign before the authority is asked or after: the octets are the same."""
    log.enter()
    key, note = generate("EdDSA"), log.journal.checkpoint()
    line = cosign(note, "w", key, log.now())
    known = Witness("w", key.public_key.public_bytes_raw().hex())  # type: ignore[union-attr]  # Ed25519
    log.turn()
    log.kept.keep_cosignatures(1, cosignatures(f"{note}{line}\n", [known]))
    head = log.kept.last_stamped()
    assert head is not None
    assert line in head.checkpoint
    assert "Verification: OK" in log.tsa.verify(head.response, stamped_octets(head.checkpoint))
    again = Coverage(log.journal, log.kept, log.tsa.roots, Rule())
    assert again.stamped() == 1


def test_an_idle_log_is_not_stamped_again_and_is_never_overdue(log: Stamped) -> None:
    log.enter()
    log.turn()
    for _ in range(3):
        log.turn(after=30 * HOUR)
    assert (len(log.server.asked), log.coverage.state(log.now())) == (1, "fresh")
    assert log.journal.size() == 1, "of a timestamp in time there is no entry, or there were another for ever"


def test_what_is_under_no_signed_head_yet_has_nobody_asked(log: Stamped) -> None:
    """The key of the log may lie in a token that is away: the head before is not stamped again, and it ages."""
    log.enter()
    log.turn()
    log.enter()
    with closing(sqlite3.connect(log.bus.folder / "journal.sqlite")) as database, database:
        database.execute("UPDATE heads SET note = NULL WHERE size = 2")
    log.turn(after=5 * HOUR)
    assert (len(log.server.asked), log.coverage.state(log.now())) == (1, "pending")


def test_a_growing_log_is_stamped_by_the_setting_and_after_a_failure_sooner(log: Stamped) -> None:
    second = timedelta(seconds=1)
    log.enter()
    log.turn()
    log.enter()
    for after, asked in ((second, 1), (8 * 60 * second, 1), (2 * 60 * second, 2)):
        log.turn(after=after)
        assert len(log.server.asked) == asked
    del log.server.files["/"]
    log.enter()
    for after, asked in ((10 * 60 * second, 3), (50 * second, 3), (11 * second, 4), (-HOUR, 5)):
        log.turn(after=after)
        assert len(log.server.asked) == asked, "and where the clock is set back, at once"


def test_where_the_first_authority_is_away_the_next_is_asked(tmp_path: Path, tsa: OpensslTsa) -> None:
    with file_server() as server:
        log = Stamped(tmp_path, server, tsa, "/first", "/second")
        server.files["/second"] = tsa.answering()
        log.enter()
        log.turn()
        assert (server.asked, log.coverage.stamped()) == (["/first", "/second"], 1)
        log.journal.close()


def slowly(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b"0")
        handler.wfile.flush()
        time.sleep(0.1)


Answer = Callable[[BaseHTTPRequestHandler], None]


def another_imprint(tsa: OpensslTsa) -> Answer:
    """The same nonce, over other octets: what an authority would answer whom somebody asks in between."""

    def altered(query: bytes) -> bytes:
        at = query.index(b"\x04\x20") + 2
        return query[:at] + b"\x11" * 32 + query[at + 32 :]

    return tsa.answering(altered)


def another_nonce(tsa: OpensslTsa) -> Answer:
    """A true answer to the same octets, asked by somebody else: yesterday's, played back."""

    def altered(query: bytes) -> bytes:
        at = query.index(b"\x04\x20") + 2
        tsa.run("-query", "-digest", query[at : at + 32].hex(), "-sha256", "-cert", "-out", "other.tsq")
        return (tsa.folder / "other.tsq").read_bytes()

    return tsa.answering(altered)


def without_nonce(tsa: OpensslTsa) -> Answer:
    def altered(query: bytes) -> bytes:
        at = query.index(b"\x04\x20") + 2
        arguments = ("-digest", query[at : at + 32].hex(), "-sha256", "-cert", "-no_nonce")
        tsa.run("-query", *arguments, "-out", "other.tsq")
        return (tsa.folder / "other.tsq").read_bytes()

    return tsa.answering(altered)


def rejected(tsa: OpensslTsa) -> Answer:
    def altered(query: bytes) -> bytes:
        tsa.run("-query", "-digest", "11" * 20, "-sha1", "-cert", "-out", "other.tsq")
        return (tsa.folder / "other.tsq").read_bytes()

    return tsa.answering(altered)


def without_certificate(tsa: OpensslTsa) -> Answer:
    def altered(query: bytes) -> bytes:
        at = query.index(b"\x04\x20") + 2
        tsa.run("-query", "-digest", query[at : at + 32].hex(), "-sha256", "-out", "other.tsq")
        return (tsa.folder / "other.tsq").read_bytes()

    return tsa.answering(altered)


def of_octets(octets: bytes, status: int = 200, **headers: str) -> Callable[[OpensslTsa], Answer]:
    return lambda tsa: lambda handler: give(handler, octets, status, **headers)


def cut_off(tsa: OpensslTsa) -> Answer:
    return lambda handler: give(handler, tsa.reply(handler.posted)[:-40])  # type: ignore[attr-defined]


def byte_changed(at: float) -> Callable[[OpensslTsa], Answer]:
    def answer(tsa: OpensslTsa) -> Answer:
        def spoiled(handler: Any) -> None:
            octets = bytearray(tsa.reply(handler.posted))
            octets[int(len(octets) * at)] ^= 1
            give(handler, bytes(octets))

        return spoiled

    return answer


def expired(tsa: OpensslTsa) -> Answer:
    return OpensslTsa(tsa.folder.parent / "expired", begins=-3, ends=-1).answering()


def of_another(tsa: OpensslTsa) -> Answer:
    return OpensslTsa(tsa.folder.parent / "another").answering()


FAULTS: dict[str, tuple[Callable[[OpensslTsa], Answer], str]] = {
    "another nonce": (another_nonce, r"timestamp\.invalid .*[Nn]once"),
    "no nonce": (without_nonce, r"timestamp\.invalid .*[Nn]once"),
    "another imprint": (another_imprint, r"timestamp\.invalid .*[Mm]ismatch between messages"),
    "a rejection": (rejected, r"timestamp\.invalid"),
    "no certificate": (without_certificate, r"timestamp\.invalid"),
    "an expired certificate": (expired, r"timestamp\.invalid .*certificate"),
    "another authority": (of_another, r"timestamp\.invalid .*certificate"),
    "garbage": (of_octets(b"\x30\x03\x02\x01\x00"), r"timestamp\.invalid"),
    "random octets": (of_octets(bytes(range(256)) * 8), r"timestamp\.invalid"),
    "a web page": (of_octets(b"<html>Welcome to the hotel</html>"), r"timestamp\.invalid"),
    "nothing": (of_octets(b""), r"timestamp\.invalid"),
    "half an answer": (cut_off, r"timestamp\.invalid"),
    "a changed byte of the signature": (byte_changed(0.98), r"timestamp\.invalid"),
    "a changed byte of the token": (byte_changed(0.1), r"timestamp\.invalid"),
    "a huge answer": (of_octets(b"0" * (timestamp_watch.MOST_BYTES + 1)), r"fetch\.too_large"),
    "a slow answer": (lambda tsa: slowly, r"fetch\.too_slow"),
    "a redirect": (of_octets(b"", 302, Location="http://127.0.0.1:1/"), r"fetch\.status .*302"),
    "busy": (of_octets(b"", 503), r"fetch\.status .*503"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_answer_is_refused_by_name_and_nothing_of_it_is_kept(
    log: Stamped, fault: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timestamp_watch, "FETCH_S", 1.0)
    made, words = FAULTS[fault]
    log.server.files["/"] = made(log.tsa)
    log.enter()
    log.turn()
    said = [record.getMessage() for record in caplog.records if "timestamp.not_had" in record.getMessage()]
    assert len(said) == 1
    assert re.search(f"code={words.replace(' ', ' detail=', 1)}" if " " in words else f"code={words}", said[0]), said
    assert (log.kept.last_stamped(), log.coverage.stamped()) == (None, 0)
    log.server.files["/"] = log.tsa.answering()
    log.turn(after=timedelta(minutes=1))
    assert log.coverage.stamped() == 1, "and the next answer that holds is taken"


@pytest.mark.parametrize("ahead", [timedelta(minutes=6), -timedelta(minutes=6)])
def test_a_time_that_is_not_ours_is_refused_by_name(
    log: Stamped, ahead: timedelta, caplog: pytest.LogCaptureFixture
) -> None:
    log.ahead = ahead
    log.enter()
    log.turn()
    assert "code=timestamp.clock" in caplog.text
    assert log.kept.last_stamped() is None


def test_who_writes_into_the_database_stamps_nothing(log: Stamped, caplog: pytest.LogCaptureFixture) -> None:
    """Rows that would hide that it is late: garbage, a true token of another head, one for a head that is not."""
    log.enter(2)
    log.turn()
    log.enter(2)
    true = log.kept.last_stamped()
    assert true is not None
    for size, response in ((3, b"garbage"), (4, true.response), (99, true.response)):
        log.kept.keep_timestamp(size, response, log.now())
    seen = Coverage(log.journal, log.kept, log.tsa.roots, Rule())
    assert (seen.stamped(), log.coverage.stamped()) == (2, 2)
    assert seen.state(log.now() + 24 * HOUR) == "refused"
    assert "timestamp.kept_one_does_not_hold size=4" in caplog.text


def test_of_a_question_nothing_but_its_own_answer_is_taken(tsa: OpensslTsa) -> None:
    one, other = Question(b"one"), Question(b"one")
    answer = tsa.reply(one.der())
    assert one.check(answer, tsa.roots)
    with pytest.raises(Refusal, match=r"timestamp\.invalid"):
        other.check(answer, tsa.roots)


def test_no_octet_may_change_and_nothing_but_a_refusal_is_raised(tsa: OpensslTsa, tell: Callable[[str], None]) -> None:
    """Apart from what no signature covers and nobody goes by: the root that comes along (ours is looked at), the name
    of the signature's algorithm (the key says it), two version numbers."""
    question = Question(b"octets")
    answer = tsa.reply(question.der())
    stamped_at, root = question.check(answer, tsa.roots), answer.index(tsa.roots[0])
    ecdsa = answer.rindex(bytes.fromhex("2a8648ce3d040302"))
    loose = {*range(root, root + len(tsa.roots[0])), *range(ecdsa, ecdsa + 8)}
    spoiled = {at: answer[:at] + bytes([answer[at] ^ 1 << at % 8]) + answer[at + 1 :] for at in range(len(answer))}
    held = {at for at, octets in spoiled.items() if taken(question, octets, tsa.roots, stamped_at)}
    cut = [at for at in spoiled if taken(question, answer[:at], tsa.roots, stamped_at)]
    tell(
        f"timestamp answers: of {len(spoiled)} octets each changed, {len(spoiled) - len(held)} refused, "
        f"{len(held & loose)} in what nobody goes by, {len(held - loose)} in version numbers; cut short, all refused"
    )
    assert (len(held - loose) <= 2, cut) == (True, [])


def taken(question: Question, octets: bytes, roots: Sequence[bytes], stamped_at: datetime) -> bool:
    """Whether an answer is taken, and then it says the same; raises what is no refusal of a timestamp."""
    try:
        return question.check(octets, roots) == stamped_at
    except Refusal as refusal:
        if refusal.code != "timestamp.invalid":
            raise
        return False
