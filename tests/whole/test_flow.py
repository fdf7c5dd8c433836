"""Floods, full queues, slow senders and dead letters at a bus that runs: what others notice, and what is lost."""

import os
import signal
import socket
import ssl
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pytest
import requests

from bench import deliveries, fairness
from bench.standing import Standing
from connectors.partner.folder import PartnerFolder
from connectors.partner.rest import session_of
from exchange import replaying
from exchange.app import opening, places
from exchange.cli.main import main
from exchange.cli.people import registry
from exchange.cli.trial import SYSTEM, Trial
from exchange.dead_letters import Wanted, dead_letters
from exchange.stopped import start_feed, stop_feed
from exchange.store.embedded import Embedded
from exchange.store.store import Store
from mappings.load import load_feeds
from security.jws_delivery import sign_delivery
from tests.registers import LAMPS
from tests.whole.real_bus import COLUMNS, REGISTER, a_trial, csv, rows

SMALL = "made-up-small"
FEW = 3
DEAD = 200
SLOW = 200
JOSE = {"content-type": "application/jose+json"}
WAIT_S = 120.0


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    small = f"most_waiting = {FEW}\n" + REGISTER.replace("made-up-register", SMALL)
    strict = REGISTER.replace("\n[fields]", '\n[options]\nencoding = "utf-8"\n\n[fields]')
    trial = a_trial(tmp_path_factory.mktemp("flow"), LAMPS, small, strict)
    trial.enrol("made-up", "Made-up bureau", "某单位")
    for feed in (SMALL, "made-up-register"):
        trial.grant("made-up", "push", feed)
    with trial:
        yield trial


def until(fact: Callable[[], bool], seconds: float = WAIT_S) -> None:
    ends_s = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < ends_s, "it did not come about"
        time.sleep(0.1)


def envelope(trial: Trial, message_id: str, content: bytes, feed: str = SMALL) -> bytes:
    folder = PartnerFolder(trial.partners / "made-up")
    return sign_delivery(
        content,
        folder.signing,
        sender="made-up",
        recipient=trial.settings.bus.origin,
        feed=feed,
        message_id=message_id,
        content_type="text/csv",
        signed_at=places.utc_now(),
    )


def sent(
    trial: Trial, session: requests.Session, message_id: str, content: bytes, feed: str = SMALL
) -> requests.Response:
    octets = envelope(trial, message_id, content, feed)
    return session.post(f"{trial.url}/api/v1/deliveries", data=octets, headers=JOSE, timeout=60)


def test_the_message_after_a_full_queue_is_not_stuck(trial: Trial) -> None:
    """Mirth#1682."""
    session = session_of(PartnerFolder(trial.partners / "made-up"))
    with registry(trial.settings) as opened:
        stop_feed(opened, SMALL, refuses=False, ground="使队列积满", by=SYSTEM)
        time.sleep(0.6)
        for number in range(FEW):
            assert sent(trial, session, f"n-{number}", csv(rows(f"N{number}"))).status_code == 201
        over = sent(trial, session, "n-plus-1", csv(rows("N9")))
        assert (over.status_code, int(over.headers["retry-after"]) > 0) == (429, True)
        soap = soap_of(trial, session, "n-plus-1", csv(rows("N9")))
        assert (soap.status_code, int(soap.headers["retry-after"]) > 0) == (500, True)
        assert b"flow.too_many" in soap.content
        assert b"Server" in soap.content, "a fault that is the receiver's: the same may be sent again"
        again = sent(trial, session, "n-0", csv(rows("N0")))
        assert again.status_code == 200, "what is known has its receipt again"
        start_feed(opened, SMALL, "积压可处理", SYSTEM)
        journal = opened.journal
        until(lambda: not journal.count_waiting(SMALL, 9))
        until(lambda: sent(trial, session, "n-plus-1", csv(rows("N9"))).status_code in (200, 201))
        until(lambda: not journal.count_waiting(SMALL, 9))
        row = journal.inbox("made-up", "n-plus-1")
        assert row is not None
        assert row.status == "processed"


def soap_of(trial: Trial, session: requests.Session, message_id: str, content: bytes) -> requests.Response:
    key = PartnerFolder(trial.partners / "made-up").signing
    sender = deliveries.Sender("made-up", key, key.certificate_der or b"", trial.settings.bus.origin)
    octets = deliveries.envelope(content, message_id, sender, places.utc_now(), SMALL)
    headers = {"content-type": "text/xml; charset=utf-8", "soapaction": '"urn:yongtong:v1/SubmitDelivery"'}
    return session.post(f"{trial.url}/soap/feeds", data=octets, headers=headers, timeout=60)


def test_two_hundred_dead_letters_are_replayed_once_though_all_is_killed_and_the_job_stopped(
    trial: Trial, capsys: pytest.CaptureFixture[str], tell: Callable[[str], None]
) -> None:
    register, began_s = "made-up-register", time.monotonic()
    session = session_of(PartnerFolder(trial.partners / "made-up"))
    latin = csv(rows("D", 1), COLUMNS).decode().encode("gb18030")

    def one(number: int) -> int:
        content = latin.replace(b"D-0", b"D%d-0" % number)
        return sent(trial, session, f"d-{number}", content, register).status_code

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(one, range(DEAD))) == {201}
    wanted = Wanted(feed=register, code="decode.encoding_wrong")
    with closing(opening.open_journal(trial.settings)) as journal:
        until(lambda: len(dead_letters(journal, wanted)) == DEAD)
    put_right(trial, register)
    with registry(trial.settings) as opened:
        job = replaying.begin(opened, wanted, 3000, "编码已更正", SYSTEM).id
        until(lambda: replaying.job(opened.journal, job).outcomes.get("processed", 0) > 10)
        kill_all(trial)
        left = replaying.job(opened.journal, job).outcomes
        assert left.get("pending", 0) > 0, "it was killed in the middle"
        trial.start()
        replaying.stop(opened, job, "先核对", SYSTEM)
        replaying.resume(opened, job, "已核对", SYSTEM)
        until(lambda: replaying.job(opened.journal, job).state == "ended")
        assert replaying.job(opened.journal, job).outcomes == {"processed": DEAD}
        again = opened.journal.search(type="replay", outcome="again", feed=register, limit=1000)
        reports = opened.journal.ask(
            "SELECT count(*) FROM reports JOIN inbox ON id = inbox_id WHERE feed = ?", register
        )
    with closing(Store(Embedded(trial.state))) as store:
        claims = store.connection().execute("SELECT count(*) FROM claims WHERE source_key LIKE 'D%-0'").fetchone()
    assert (len(again), reports, claims[0]) == (DEAD, [(2 * DEAD,)], DEAD), "each went back once and was applied once"
    assert main(["dead", "jobs", job, "--json", "--settings", trial.settings.source]) == 0
    assert f'"processed": {DEAD}' in capsys.readouterr().out
    tell(f"dead letters replayed over a kill: {DEAD}, each once, in {time.monotonic() - began_s:.0f} s")


def put_right(trial: Trial, feed: str) -> None:
    """The feed's file is changed and released by two persons; the bus reads it at its next start."""
    trial.stop()
    path = trial.folder.parent / "feeds" / f"{feed}.toml"
    path.write_text(path.read_text(encoding="utf-8").replace('"utf-8"', '"gb18030"'), encoding="utf-8")
    trial.release(feed, load_feeds([path.parent])[feed].digest)
    trial.start()


def kill_all(trial: Trial) -> None:
    """The doors and the worker end as a power cut ends them."""
    children = Path(f"/proc/{trial.process_id}/task/{trial.process_id}/children").read_text().split()
    trial.kill()
    for child in children:
        with suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGKILL)


def test_two_hundred_slow_senders_keep_nobody_from_the_door(trial: Trial, tell: Callable[[str], None]) -> None:
    session, port = session_of(PartnerFolder(trial.partners / "made-up")), int(trial.url.rpartition(":")[2])
    folder = PartnerFolder(trial.partners / "made-up")
    context = ssl.create_default_context(cafile=folder.file("ca.pem"))
    context.load_cert_chain(folder.file("connection.pem"), folder.file("connection.key"))
    head = b"POST /api/v1/deliveries HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/jose+json\r\n"
    slow: list[socket.socket] = []
    try:
        for number in range(SLOW):
            plain = socket.create_connection(("127.0.0.1", port), timeout=30)
            slow.append(plain)
            if number % 4:  # every fourth only connects: not even a handshake
                slow[-1] = context.wrap_socket(plain, server_hostname="localhost")
                slow[-1].sendall([head, head + b"Content-Length: 1000\r\n\r\n{"][number % 2])
        times_s = []
        for number in range(10):
            began_s = time.monotonic()
            assert sent(trial, session, f"calm-{number}", csv(rows(f"S{number}"))).status_code in (201, 429)
            times_s.append(time.monotonic() - began_s)
        with pytest.raises((ConnectionError, ssl.SSLError, TimeoutError)):
            beyond_the_cap(context, port)
    finally:
        for each in slow:
            each.close()
    tell(f"receipts beside {SLOW} slow senders: p50 {statistics.median(times_s) * 1000:.0f} ms")


def beyond_the_cap(context: ssl.SSLContext, port: int) -> None:
    """One address holds 256 connections at most; one more is closed at once."""
    more = []
    try:
        for _ in range(256):
            plain = socket.create_connection(("127.0.0.1", port), timeout=5)
            more.append(context.wrap_socket(plain, server_hostname="localhost"))
            more[-1].sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            if not more[-1].recv(100):
                raise ConnectionError("closed")
    finally:
        for each in more:
            each.close()


def test_a_flood_of_one_bureau_beside_a_calm_one(tmp_path: Path, tell: Callable[[str], None]) -> None:
    with fairness.calm_and_flood(tmp_path) as bus:
        fairness.calm(bus, "warm", 1.0)
        alone = fairness.calm(bus, "alone", 3.0)
        ended = fairness.flood(bus, fairness.WILD, "wild", 6.0, 2000)
        time.sleep(2.0)
        beside = fairness.calm(bus, "beside", 3.0)
        flood = ended()
        counted = refusals(bus)
    assert flood.answers["429"] > 0
    assert len(counted) <= 4, "the flood is counted, not entered one by one"
    # A generous factor: the figure itself is `python -m bench --only flood_slows_others_ratio`.
    assert statistics.median(beside.receipts_s) < 10 * statistics.median(alone.receipts_s) + 1.0
    tell(f"calm alone: {alone.said()}; beside {flood.answers} of a flood: {beside.said()}")


def refusals(bus: Standing) -> list[object]:
    with closing(opening.open_journal(bus.trial.settings)) as journal:
        return [entry for entry in journal.search(type="refusal", limit=1000) if entry.leaf.outcome == "flow.too_many"]
