"""A task lies in its folder as a whole or not at all: a worker that took half of one ended."""

import threading
from pathlib import Path

from kombu.connection import Connection

from scheduler.celery_app import make_celery

TASKS = 400


def test_no_reader_takes_a_task_that_is_still_being_written(tmp_path: Path) -> None:
    app = make_celery(tmp_path)
    taken: list[str] = []

    def put() -> None:
        for number in range(TASKS):
            app.send_task("yongtong.process_feed", args=[f"feed-{number}"])

    with Connection(app.conf.broker_url, transport_options=app.conf.broker_transport_options) as connection:
        channel = connection.channel()
        writer = threading.Thread(target=put)
        writer.start()
        while writer.is_alive() or any(tmp_path.glob("*.msg")):
            for path in sorted(tmp_path.glob("*.msg")):
                assert path.read_bytes()[-1:] == b"}", "whole at whatever moment it is looked at"
            message = channel._size("celery") and channel._get("celery")
            taken += [str(message["body"])] if message else []
        writer.join()
    assert len(taken) == TASKS
