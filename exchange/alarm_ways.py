"""The ways by which alarms leave: a webhook, a mail server. Each is bounded in time, and says which step broke."""

import hashlib
import hmac
import ssl
from collections.abc import Callable, Sequence
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Final
from urllib.parse import urlsplit

import msgspec

from connectors.transports.fetch import fetch
from connectors.transports.mail import MailServer, send_mail
from exchange.alarms import Letter, document, subject, text
from security.errors import Refusal

SEND_S: Final = 10.0
MOST_BYTES: Final = 1 << 16  # of a webhook's answer, which nobody reads
TAKEN: Final = (200, 201, 202, 204)
SIGNATURE: Final = "yongtong-signature"

Way = Callable[[Letter, datetime], None]  # sends; raises Refusal


class Webhook(msgspec.Struct, frozen=True):
    """POSTs JSON. secret: with which the body is signed; empty: it is not."""

    url: str
    origin: str
    tls: ssl.SSLContext
    secret: bytes = b""
    heard: Callable[[str, str], None] | None = None

    def send(self, letter: Letter, now: datetime) -> None:
        """Raises Refusal `fetch.*`; the address's path and query, which may hold a token, are not in its detail."""
        body = msgspec.json.encode(document(self.origin, letter))
        headers = {"idempotency-key": f"{self.origin}:{letter.number}"}
        if self.secret:
            headers[SIGNATURE] = signature(self.secret, body, now)
        try:
            fetch(
                self.url,
                most_bytes=MOST_BYTES,
                seconds=SEND_S,
                body=body,
                content_type="application/json",
                headers=headers,
                statuses=TAKEN,
                tls=self.tls,
                heard=self.heard,
            )
        except Refusal as refusal:
            raise Refusal(refusal.code, refusal.detail.replace(self.url, host_of(self.url))) from refusal


class Mail(msgspec.Struct, frozen=True):
    """Mails text to those who are to know."""

    server: MailServer
    origin: str
    sender: str
    to: Sequence[str]

    def send(self, letter: Letter, now: datetime) -> None:
        """Raises Refusal `mail.*`."""
        message = EmailMessage()
        message["From"], message["To"] = self.sender, ", ".join(self.to)
        message["Subject"], message["Date"] = subject(self.origin, letter.notices), format_datetime(now)
        message["Message-ID"] = f"<alarm.{letter.number}.{letter.made_at:%Y%m%d%H%M%S}@{self.origin}>"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(text(self.origin, letter.notices), cte="base64")  # which every server carries
        send_mail(self.server, message, self.to, SEND_S)


def signature(secret: bytes, body: bytes, now: datetime) -> str:
    """`t=SECONDS,v1=HEX`: HMAC-SHA-256 over `SECONDS.` and the body, so that an old one is not sent again as new."""
    seconds = str(int(now.timestamp()))
    return f"t={seconds},v1={hmac.new(secret, f'{seconds}.'.encode() + body, hashlib.sha256).hexdigest()}"


def host_of(url: str) -> str:
    """Scheme and host of an address: all of it that may be shown."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


def problem_of(refusal: Refusal) -> str:
    """Why a letter did not go, for a person."""
    said = refusal.sentence
    return f"{refusal.code}: {said.zh} {said.en} [{refusal.detail}] → {said.next_zh} {said.next_en}"
