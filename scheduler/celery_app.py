"""The queue that wakes act two. A task says only "this feed has work"; the inbox is the truth, the queue is not."""

from pathlib import Path
from typing import Final

from celery import Celery

POLL_S: Final = 0.05


def make_celery(broker_folder: Path) -> Celery:
    """A Celery app on kombu's file transport: one folder, no server.

    The file is removed when a worker reads it, so a killed worker loses its task (measured);
    `scheduler.jobs.sweep` queues it again from the inbox.
    """
    broker_folder.mkdir(parents=True, exist_ok=True)
    folder = str(broker_folder)
    app = Celery("yongtong", broker="filesystem://localhost")
    app.conf.update(
        broker_transport_options={
            "data_folder_in": folder,
            "data_folder_out": folder,
            "control_folder": f"{folder}/control",
            "polling_interval": POLL_S,
        },
        broker_connection_retry_on_startup=True,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_enable_remote_control=False,
        enable_utc=True,
    )
    return app
