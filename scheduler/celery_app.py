"""The Celery app of act two. A task says only "this feed has work"; the inbox is the truth, the queue is not."""

import socket
import ssl
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from celery import Celery
from celery.app.amqp import AMQP
from celery.worker.consumer import Consumer
from kombu.connection import Connection
from kombu.entity import Exchange, Queue

from scheduler.queues import PATIENCE_S, Rabbit

POLL_S: Final = 0.05  # of the folder
AGAIN_S: Final = (1, 1, 5)  # before a worker tries again to reach its broker: first, more each time, most
# A delivery that ends its worker is held at the fifth death (exchange/attempts.py), so a task comes back five times at
# most on that account. Beyond this count the broker drops it, and the sweep asks the inbox.
DELIVERY_LIMIT: Final = 20
# Whether the other end still lives is asked of the kernel: a solo worker that is at a delivery answers no heartbeat,
# and would be taken for dead in the middle of it.
ALIVE: Final = {
    socket.TCP_NODELAY: 1,
    socket.TCP_KEEPIDLE: 15,
    socket.TCP_KEEPINTVL: 5,
    socket.TCP_KEEPCNT: 3,
    socket.TCP_USER_TIMEOUT: 30_000,
}

COMMON: Final[dict[str, Any]] = {
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,  # for ever: the broker may be away for a weekend
    "task_ignore_result": True,
    "task_serializer": "json",
    "accept_content": ["json"],
    "worker_prefetch_multiplier": 1,
    "worker_hijack_root_logger": False,
    "worker_enable_remote_control": False,
    "enable_utc": True,
}


class _Connection(Connection):
    """A connection that is tried again every few seconds; Celery lets the pause grow to half a minute."""

    def ensure_connection(self, *asked: Any, **more: Any) -> Any:
        """The connection, once it stands."""
        first, step, most = AGAIN_S
        pauses = {"interval_start": first, "interval_step": step, "interval_max": most}
        return super().ensure_connection(*asked, **{**more, **pauses})  # type: ignore[no-untyped-call]


class _Amqp(AMQP):  # type: ignore[misc]  # celery says no types
    Connection = _Connection


class WorkConsumer(Consumer):  # type: ignore[misc]  # celery says no types
    """Celery's consumer without what it sets up for delayed tasks: 28 exchanges and queues, and we delay none."""

    class Blueprint(Consumer.Blueprint):  # type: ignore[misc]  # celery says no types
        default_steps = tuple(step for step in Consumer.Blueprint.default_steps if "delayed_delivery" not in step)


def make_celery(where: Path | Rabbit) -> Celery:
    """A Celery app on a folder of files, without a server, or on a quorum queue of a RabbitMQ."""
    app = Celery("yongtong", amqp=_Amqp)
    app.conf.update(COMMON, **(_on_rabbit(where) if isinstance(where, Rabbit) else _on_files(where)))
    return app


def _on_files(folder: Path) -> dict[str, Any]:
    """Kombu's file transport. The file is removed when a worker reads it, so a killed worker loses its task (measured);
    the sweep queues it again from the inbox."""
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "broker_url": "filesystem://localhost",
        "broker_transport_options": {
            "data_folder_in": str(folder),
            "data_folder_out": str(folder),
            "control_folder": f"{folder}/control",
            "polling_interval": POLL_S,
        },
    }


def _on_rabbit(where: Rabbit) -> dict[str, Any]:
    """A task is acknowledged when it is done, so that the broker hands it on at once where its worker died."""
    host = f"[{where.host}]" if ":" in where.host else where.host
    arguments = {"x-queue-type": "quorum", "x-delivery-limit": DELIVERY_LIMIT}
    queue = Queue(  # type: ignore[no-untyped-call]
        where.queue,
        Exchange(""),  # type: ignore[no-untyped-call]
        where.queue,
        durable=True,
        queue_arguments=arguments,
    )
    tls = {
        "ca_certs": where.ca,
        "cert_reqs": ssl.CERT_REQUIRED,
        "server_hostname": where.host,
        "tls_minimum_version": ssl.TLSVersion.TLSv1_2,
    }
    return {
        "broker_url": f"amqp://{quote(where.user, '')}@{host}:{where.port}/{quote(where.vhost, '')}",
        "broker_password": where.password,
        "broker_use_ssl": tls if where.ca else False,
        "broker_connection_timeout": PATIENCE_S,
        "broker_heartbeat": 0,
        "broker_transport_options": {"confirm_publish": True, "socket_settings": ALIVE},
        "task_queues": [queue],
        "task_default_queue": where.queue,
        "task_default_exchange": "",
        "task_default_routing_key": where.queue,
        "task_create_missing_queues": False,
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_consumer": WorkConsumer,
    }
