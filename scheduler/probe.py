"""Whether a RabbitMQ takes us, step by step: what a person has to mend is the first step that does not hold."""

import socket
import ssl
from contextlib import closing
from typing import Any, Final, Literal

import msgspec
from amqp.exceptions import AccessRefused, AMQPError, NotAllowed

from scheduler.celery_app import make_celery
from scheduler.queues import PATIENCE_S, Rabbit

Step = Literal["address", "tls", "login", "vhost", "queue"]
BOTH: Final = (OSError, AMQPError)


class Probed(msgspec.Struct, frozen=True):
    """What was found. broken: the first step that does not hold, and why; empty: all hold.

    workers: processes that listen to the queue; unread: tasks that lie there
    """

    broken: Step | Literal[""]
    reason: str = ""
    workers: int = 0
    unread: int = 0


def probe(where: Rabbit) -> Probed:
    """Go through address, TLS, login, virtual host and queue, which is made where there is none yet.

    Raises Misconfigured where no password is at hand.
    """
    where.password()
    try:
        with closing(socket.create_connection((where.host, where.port), PATIENCE_S)) as plain:
            if where.ca:
                _shake_hands(plain, where)
    except (ssl.SSLError, FileNotFoundError) as problem:
        return Probed("tls", getattr(problem, "verify_message", "") or str(problem))
    except OSError as problem:
        return Probed("address", str(problem))
    return _logged_in(where)


def _shake_hands(plain: socket.socket, where: Rabbit) -> None:
    context = ssl.create_default_context(cafile=where.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.wrap_socket(plain, server_hostname=where.host).close()


def _logged_in(where: Rabbit) -> Probed:
    app = make_celery(where)
    try:
        connection = app.connection_for_write().transport.establish_connection()
    except AccessRefused as problem:
        return Probed("login", problem.reply_text)
    except NotAllowed as problem:
        return Probed("vhost", problem.reply_text)
    except BOTH as problem:
        return Probed("address", str(problem))
    try:
        connection.sock.settimeout(PATIENCE_S)
        return _declared(where, app, connection.channel())
    except BOTH as problem:
        return Probed("queue", str(getattr(problem, "reply_text", "") or problem))
    finally:
        connection.collect()


def _declared(where: Rabbit, app: Any, channel: Any) -> Probed:
    """Our queue, as we declare it; a queue of that name and another kind is somebody else's."""
    app.amqp.queues[where.queue](channel).declare()
    found = channel.queue_declare(where.queue, passive=True)
    return Probed("", workers=found.consumer_count, unread=found.message_count)
