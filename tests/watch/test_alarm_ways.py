"""Alarms leave by mail and webhook, on real sockets; what breaks is named, nothing waits for ever, nothing leaks."""

import hashlib
import hmac
import json
import ssl
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email import message_from_string
from email.header import decode_header, make_header

import pytest

from connectors.transports.mail import MailServer
from exchange import alarm_ways
from exchange.alarm_ways import Mail, Webhook
from exchange.alarms import Alarm, Letter, Notice
from security.errors import Refusal
from tests.doors.conftest import City
from tests.watch.sinks import HttpSink, SmtpSink, nobody

NOW = datetime(2026, 11, 27, 6, 0, tzinfo=UTC)
ALARM = Alarm("place.disk", "critical", "磁盘快满了。", "The disk is almost full.", "请清理。", "Make room.")
LETTER = Letter(7, NOW, [Notice("begins", ALARM, NOW, NOW)], {})
TO = ["duty@city.example", "boss@city.example"]
Tls = Callable[[], ssl.SSLContext]


@pytest.fixture
def trusted(city: City) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(city.ca_file))


@pytest.fixture(params=["starttls", "implicit"])
def smtp(request: pytest.FixtureRequest, server_tls: Tls) -> Iterator[SmtpSink]:
    with SmtpSink(server_tls(), implicit=request.param == "implicit", password="geheim") as sink:
        yield sink


def a_mail(url: str, tls: ssl.SSLContext, password: str = "geheim") -> Mail:
    return Mail(MailServer(url, tls, "bus", password), "bus.example", "bus@city.example", TO)


def refused(send: Callable[[Letter, datetime], None]) -> Refusal:
    with pytest.raises(Refusal) as problem:
        send(LETTER, NOW)
    return problem.value


def test_a_mail_is_handed_in_under_tls_after_login_and_reads_right(smtp: SmtpSink, trusted: ssl.SSLContext) -> None:
    a_mail(smtp.url, trusted).send(LETTER, NOW)
    ((login, sender, to, octets),) = smtp.mails
    assert (login, to) == ("bus", TO)
    assert "bus@city.example" in sender
    message = message_from_string(octets)
    assert str(make_header(decode_header(message["Subject"]))) == "[甬通 bus.example] 发生 begins: place.disk"
    assert message["Auto-Submitted"] == "auto-generated"
    said = message.get_payload(decode=True)
    assert isinstance(said, bytes)
    assert "请清理。" in said.decode()


def test_a_wrong_password_is_the_broken_step(smtp: SmtpSink, trusted: ssl.SSLContext) -> None:
    refusal = refused(a_mail(smtp.url, trusted, "falsch").send)
    assert refusal.code == "mail.login"
    assert "535" in refusal.detail
    assert "falsch" not in refusal.detail


def test_a_mail_server_of_unknown_roots_hears_no_password(smtp: SmtpSink) -> None:
    refusal = refused(a_mail(smtp.url, ssl.create_default_context()).send)
    assert refusal.code == "mail.tls"
    assert smtp.mails == []


def test_without_starttls_nothing_is_said_in_the_clear(server_tls: Tls, trusted: ssl.SSLContext) -> None:
    with SmtpSink(server_tls()) as sink:
        sink.starttls = False
        assert refused(a_mail(sink.url, trusted).send).code == "mail.tls"
        assert sink.mails == []


def test_a_recipient_that_is_not_there_is_named(smtp: SmtpSink, trusted: ssl.SSLContext) -> None:
    smtp.refuses = {TO[1]}
    refusal = refused(a_mail(smtp.url, trusted).send)
    assert (refusal.code, refusal.detail) == ("mail.refused", TO[1])


def test_a_server_that_drips_is_cut_off(
    server_tls: Tls, trusted: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alarm_ways, "SEND_S", 0.5)
    with SmtpSink(server_tls()) as sink:
        sink.drip = True
        began_s = time.monotonic()
        assert refused(a_mail(sink.url, trusted).send).code == "mail.too_slow"
        assert time.monotonic() - began_s < 2


def test_nobody_there_is_the_broken_step(trusted: ssl.SSLContext) -> None:
    with nobody() as port:
        assert refused(a_mail(f"smtp://localhost:{port}", trusted).send).code == "mail.unreachable"
        hook = Webhook(f"http://localhost:{port}/robot?key=geheim", "bus.example", trusted)
        assert refused(hook.send).code == "fetch.unreachable"


def test_a_webhook_gets_the_alarm_signed(trusted: ssl.SSLContext, server_tls: Tls) -> None:
    with HttpSink(server_tls()) as sink:
        Webhook(f"{sink.url}/alarms", "bus.example", trusted, b"secret").send(LETTER, NOW)
    (posted,) = sink.posted
    said = json.loads(posted.body)
    assert (posted.path, said["bus"], said["number"]) == ("/alarms", "bus.example", 7)
    assert said["alarms"][0]["code"] == "place.disk"
    assert said["alarms"][0]["next_zh"] == "请清理。"
    assert "磁盘快满了。" in said["text"]["content"]
    stamp, _, found = posted.headers["yongtong-signature"].partition(",v1=")
    signed = stamp.removeprefix("t=").encode() + b"." + posted.body
    assert found == hmac.new(b"secret", signed, hashlib.sha256).hexdigest()
    assert posted.headers["idempotency-key"] == "bus.example:7"


@pytest.mark.parametrize(
    "status, ok", [(200, True), (202, True), (204, True), (302, False), (404, False), (500, False)]
)
def test_what_a_webhook_answers_decides(trusted: ssl.SSLContext, status: int, ok: bool) -> None:
    with HttpSink() as sink:
        sink.status = status
        hook = Webhook(f"{sink.url}/robot?key=geheim", "bus.example", trusted)
        if ok:
            hook.send(LETTER, NOW)
            return
        refusal = refused(hook.send)
    assert refusal.code == "fetch.status"
    assert str(status) in refusal.detail
    assert "geheim" not in refusal.detail  # such an address is a password
    assert "geheim" not in str(refusal)


def test_a_webhook_that_hangs_is_cut_off(trusted: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarm_ways, "SEND_S", 0.3)
    with HttpSink() as sink:
        sink.wait_s = 1.0
        assert refused(Webhook(sink.url, "bus.example", trusted).send).code == "fetch.too_slow"


def test_what_a_webhook_says_the_time_is_is_heard(trusted: ssl.SSLContext) -> None:
    heard: list[tuple[str, str]] = []
    with HttpSink() as sink:
        sink.date = "Fri, 27 Nov 2026 06:00:00 GMT"
        Webhook(sink.url, "bus.example", trusted, heard=lambda *said: heard.append(said)).send(LETTER, NOW)
    assert heard == [("localhost", "Fri, 27 Nov 2026 06:00:00 GMT")]
