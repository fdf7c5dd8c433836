"""Handing a message to a mail server: always under TLS, within a limit of time, and each step that can fail by name."""

import contextlib
import smtplib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from email.message import EmailMessage
from typing import Final, TypeVar
from urllib.parse import urlsplit

import msgspec

from security.errors import Misconfigured, Refusal

T = TypeVar("T")

PORTS: Final = {"smtp": 587, "smtps": 465}


class MailServer(msgspec.Struct, frozen=True):
    """Where mail is handed in.

    url:            `smtp://host:587`, made TLS by STARTTLS before anything is said, or `smtps://host:465`
    tls:            whom to trust
    user, password: how to log in; no user: without
    """

    url: str
    tls: ssl.SSLContext
    user: str = ""
    password: str = ""


def check_mail_url(url: str) -> None:
    """Return if it is an address of a mail server. Raises Misconfigured."""
    _parts(url)


def _parts(url: str) -> tuple[str, str, int]:
    try:
        parts = urlsplit(url)
        if parts.scheme in PORTS and parts.hostname and not parts.path:
            return parts.scheme, parts.hostname, parts.port or PORTS[parts.scheme]
    except ValueError:
        pass
    raise Misconfigured("config.setting", f"{url}: write smtp://host:587 or smtps://host:465")


def send_mail(server: MailServer, message: EmailMessage, to: Sequence[str], seconds: float) -> None:
    """Hand in a message for these addresses, all or none.

    seconds: for the connection and for each answer; everything together takes at most twice that

    Raises Refusal naming the step: `mail.unreachable`, `mail.tls`, `mail.login`, `mail.refused`, `mail.too_slow`.
    """
    scheme, host, port = _parts(server.url)
    mail = smtplib.SMTP_SSL(timeout=seconds, context=server.tls) if scheme == "smtps" else smtplib.SMTP(timeout=seconds)
    # What the library sets when it connects at once; here the clock has to run before that.
    mail._host = host  # type: ignore[attr-defined]  # against which it checks the certificate
    with closing(mail), _within(mail, 2 * seconds, f"{host}:{port}"):
        _step("mail.unreachable", host, lambda: mail.connect(host, port))
        if scheme == "smtp":
            _step("mail.tls", host, lambda: mail.starttls(context=server.tls))
        if server.user:
            _step("mail.login", host, lambda: mail.login(server.user, server.password))
        refused = _step("mail.refused", host, lambda: mail.send_message(message, to_addrs=list(to)))
        if refused:
            raise Refusal("mail.refused", ", ".join(refused)[:200])
        with contextlib.suppress(OSError, smtplib.SMTPException):  # it has the message
            mail.quit()


@contextmanager
def _within(mail: smtplib.SMTP, seconds: float, where: str) -> Iterator[None]:
    """Cut the connection when the time is over: a server that says one octet a minute would hold us for ever."""
    late = threading.Event()

    def cut() -> None:
        late.set()
        with contextlib.suppress(OSError, AttributeError):  # over already
            mail.sock.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]  # None where nothing is connected

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Refusal as refusal:
        if late.is_set() or isinstance(refusal.__cause__, TimeoutError):
            raise Refusal("mail.too_slow", f"{where}: {seconds:g} s") from refusal
        raise
    finally:
        timer.cancel()


def _step(code: str, host: str, do: Callable[[], T]) -> T:
    """Do it; what fails is that step."""
    try:
        return do()
    except ssl.SSLError as problem:
        raise Refusal("mail.tls", f"{host}: {problem}"[:200]) from problem
    except (OSError, smtplib.SMTPException, ValueError) as problem:
        raise Refusal(code, f"{host}: {_words(problem)}"[:200]) from problem


def _words(problem: Exception) -> str:
    """A mail server's answer, without what it was sent."""
    if isinstance(problem, smtplib.SMTPResponseException):
        said = problem.smtp_error
        return f"{problem.smtp_code} {said.decode('utf-8', 'replace') if isinstance(said, bytes) else said}"
    if isinstance(problem, smtplib.SMTPRecipientsRefused):
        return ", ".join(f"{to} {code}" for to, (code, _) in problem.recipients.items())
    return str(problem) or type(problem).__name__
