"""Two queues that wake act two: a folder of files beside the state, and a quorum queue of a RabbitMQ.

A task says only "this feed has work". The inbox is the truth and no queue is, so a queue that is away, emptied or
thrown away loses nothing: whoever announces asks the inbox again.
"""

import ipaddress
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import unquote, urlsplit

import msgspec
from amqp.exceptions import AMQPError
from celery import Celery
from kombu.exceptions import KombuError

from security.errors import Misconfigured, Unavailable

PROCESS: Final = "yongtong.process_feed"
PATIENCE_S: Final = 5.0  # for a broker's word; then it is away, and is asked again at the next sweep
DELETE_S: Final = 30.0  # a broker asks a queue's lost members for five seconds before it deletes without them
MOST_FAILURES: Final = 3  # of publishing, one after another, until the queue itself is taken for dead
PORTS: Final = {"amqp": 5672, "amqps": 5671}
ON_THE_WAY: Final = (OSError, AMQPError, KombuError)  # what goes wrong between us and a broker


log = logging.getLogger("yongtong.scheduler")


class Rabbit(msgspec.Struct, frozen=True):
    """Where a RabbitMQ listens, who we are there, and which queue is ours.

    password: asked anew for every connection, so that it may change while we run. Raises Misconfigured
    ca:       PEM file in which its certificate must end; empty: no TLS, and it is on this machine
    """

    host: str
    port: int
    vhost: str
    user: str
    password: Callable[[], str]
    ca: str
    queue: str


class Queue(Protocol):
    """A queue as whoever announces work sees it. Raises Unavailable where it cannot be reached, within seconds."""

    def unread(self) -> bool:
        """Whether a task lies there that no worker has taken yet."""

    def put(self, feed: str) -> None:
        """Tell the workers that a feed has work; when it returns, the queue has it."""

    def close(self) -> None:
        """Let go of what it holds."""


class FileQueue:
    """Tasks as files in a folder: one machine, one worker."""

    def __init__(self, app: Celery, folder: Path) -> None:
        self._app, self._folder = app, folder

    def unread(self) -> bool:
        """Whether a file lies there."""
        return any(self._folder.glob("*.msg"))

    def put(self, feed: str) -> None:
        """Write a file."""
        self._app.send_task(PROCESS, args=[feed])

    def close(self) -> None:
        """Nothing is held."""


class RabbitQueue:
    """Tasks in a quorum queue, over one connection: made when it is needed, forgotten when anything goes wrong."""

    def __init__(self, app: Celery, queue: str) -> None:
        self._app, self._queue, self._failures = app, queue, 0
        self._connection: Any = None  # celery and kombu say no types
        self._channel: Any = None

    def unread(self) -> bool:
        """Whether the broker holds a task that it has handed to nobody. One that a worker is at does not count."""
        with self._reaching() as channel:
            return bool(channel.queue_declare(queue=self._queue, passive=True).message_count)

    def put(self, feed: str) -> None:
        """Publish, and wait until the queue's majority has it on disk."""
        if self._failures >= MOST_FAILURES:
            self._make_anew()
        with self._reaching() as channel:
            producer = self._app.amqp.Producer(channel, auto_declare=False)
            try:
                self._app.send_task(PROCESS, args=[feed], producer=producer, retry=False, ignore_result=True)
            except ON_THE_WAY:
                self._failures += 1
                raise
            self._failures = 0

    def _make_anew(self) -> None:
        """Take the queue away and declare it again. A broker killed just when it made a queue knows it afterwards, says
        that it is empty, and never again confirms a task (RabbitMQ 3.10, measured). What lay in it the inbox knows."""
        self._failures = 0
        with self._reaching() as channel:
            self._connection.sock.settimeout(DELETE_S)
            channel.queue_delete(self._queue)
        self.close()
        log.warning("queue.made_anew queue=%s; it took no tasks any more", self._queue)

    def close(self) -> None:
        """End the connection, without a word to a broker that may not answer."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            connection.collect()

    @contextmanager
    def _reaching(self) -> Iterator[Any]:
        try:
            if self._connection is None:
                self._open()
            yield self._channel
        except ON_THE_WAY as problem:
            self.close()
            raise Unavailable(f"queue {self._queue}: {problem}") from problem

    def _open(self) -> None:
        client = self._app.connection_for_write()
        self._connection = client.transport.establish_connection()  # once; `connect` would try for seconds
        self._connection.sock.settimeout(PATIENCE_S)  # amqp's own limit on reading was seen not to hold
        self._channel = self._connection.channel()
        self._app.amqp.queues[self._queue](self._channel).declare()


def open_queue(app: Celery, where: Path | Rabbit) -> Queue:
    """The queue that an app works on, for announcing."""
    return RabbitQueue(app, where.queue) if isinstance(where, Rabbit) else FileQueue(app, where)


def rabbit_of(url: str, password: Callable[[], str], ca: str, queue: str) -> Rabbit:
    """A RabbitMQ by `amqps://USER@HOST[:PORT][/VHOST]`, or on this machine `amqp://…`. Raises Misconfigured.

    The password has no place in the address, which stands in a file that many may read, and in logs.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or PORTS.get(parts.scheme, 0)
    except ValueError as problem:
        raise Misconfigured(
            "config.setting", f"[worker] queue: {problem}; write amqps://USER@HOST:PORT/VHOST"
        ) from problem
    if parts.password:
        raise Misconfigured(
            "config.setting",
            "[worker] queue: no password here; put it into a file and name that as queue_password_file",
        )
    if not (port and parts.hostname and parts.username) or parts.query or parts.fragment or "/" in parts.path[1:]:
        raise Misconfigured("config.setting", f"[worker] queue = {url!r}: write files, or amqps://USER@HOST:PORT/VHOST")
    if parts.scheme == "amqp" and not _is_this_machine(parts.hostname):
        raise Misconfigured(
            "config.setting",
            f"[worker] queue: {parts.hostname} is another machine, to which the password would go for all to read; "
            f"write amqps:// and give the broker a certificate",
        )
    return Rabbit(
        host=parts.hostname,
        port=port,
        vhost=unquote(parts.path[1:]) or "/",
        user=unquote(parts.username),
        password=password,
        ca=ca if parts.scheme == "amqps" else "",
        queue=queue,
    )


def _is_this_machine(host: str) -> bool:
    """Whether a host is this machine by its very name; no resolver is asked, who could be lied to."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
