"""What a bus tells of itself: alarms, and the figures of /metrics."""

import ssl
from collections.abc import Callable

from connectors.transports.mail import MailServer
from exchange.alarm_ways import Mail, Way, Webhook
from exchange.alarms import read_book
from exchange.app import keys_in_force, places
from exchange.bus import Bus
from exchange.http.health import Scrapes
from exchange.key_places import check_private
from exchange.metrics import Metrics
from exchange.settings import Settings
from exchange.tally import Tally
from security.errors import Misconfigured


def alarm_ways(settings: Settings, heard: Callable[[str, str], None] | None = None) -> dict[str, Way]:
    """The ways by which alarms leave, by name. heard: what a webhook's server says the time is.

    Raises Misconfigured naming a file that cannot be used.
    """
    said, ways = settings.alarms, dict[str, Way]()
    secret, password = (_alarm_secret(settings, path) for path in (said.webhook_secret_file, said.smtp_password_file))
    try:
        tls = ssl.create_default_context(cafile=str(settings.at(said.ca)) if said.ca else None)
    except OSError as problem:
        raise Misconfigured(
            "config.file", f"{settings.at(said.ca)}: not a PEM file of certificates ({problem})"
        ) from problem
    if said.webhook:
        ways["webhook"] = Webhook(said.webhook, settings.bus.origin, tls, secret, heard).send
    if said.smtp:
        server = MailServer(said.smtp, tls, said.smtp_user, password.decode())
        ways["mail"] = Mail(server, settings.bus.origin, said.sender, said.to).send
    return ways


def _alarm_secret(settings: Settings, path: str) -> bytes:
    """What such a file holds, without the line's end; nothing where none is named."""
    if not path:
        return b""
    file = settings.at(path)
    places.check_key_apart(settings, file)
    check_private([file])
    try:
        return file.read_bytes().rstrip(b"\r\n")
    except OSError as problem:
        raise Misconfigured("config.file", f"{file}: {problem.strerror}") from problem


def scrapes(settings: Settings, bus: Bus, tally: Tally) -> Scrapes:
    """What /metrics tells, and whom."""

    def standing() -> list[tuple[str, str]]:
        return [(one.alarm.code, one.alarm.severity) for one in read_book(bus.folder).standing.values()]

    metrics = Metrics(bus, tally, keys_in_force.own_certificates(settings), standing)
    return Scrapes(settings.watch.networks, metrics)
