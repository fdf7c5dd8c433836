"""One record a line, ours by their keys, and of exceptions nothing but their type and place."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from celery import Celery

from exchange.logs import Form, configure

SECRET = "张三丰13912345678"


@pytest.fixture
def logged() -> Iterator[Callable[[Form], Callable[[], str]]]:
    """Set up logging as a process does; gives what it wrote."""
    root, ours = logging.getLogger(), logging.getLogger("yongtong")
    before = list(root.handlers), root.level, ours.level

    def begin(form: Form) -> Callable[[], str]:
        stream = io.StringIO()
        configure(form, stream)
        return stream.getvalue

    yield begin
    root.handlers, root.level = before[:2]
    ours.setLevel(before[2])


Logged = Callable[[Form], Callable[[], str]]


def test_an_event_is_an_object_with_its_keys_as_members(logged: Logged) -> None:
    said = logged("json")
    logging.getLogger("yongtong.door").info("door.refused reference=%s code=%s total=%d", "17", "feed.unknown", 3)
    line = json.loads(said())
    assert abs((datetime.now(UTC) - datetime.fromisoformat(line.pop("time"))).total_seconds()) < 60
    assert line == {
        "level": "info",
        "logger": "yongtong.door",
        "event": "door.refused",
        "reference": "17",
        "code": "feed.unknown",
        "total": 3,
    }


def test_what_an_event_says_besides_its_keys_is_kept(logged: Logged) -> None:
    said = logged("json")
    logging.getLogger("yongtong.app").warning("worker.ended code=%s; starting it again", -9)
    line = json.loads(said())
    assert (line["event"], line["code"]) == ("worker.ended", -9)
    assert line["message"] == "worker.ended code=-9; starting it again"


def test_a_key_of_an_event_does_not_take_the_place_of_ours(logged: Logged) -> None:
    said = logged("json")
    logging.getLogger("yongtong.door").error("door.failed level=%s", "mine")
    line = json.loads(said())
    assert (line["level"], line["said_level"]) == ("error", "mine")


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_value_with_line_breaks_makes_no_second_line(logged: Logged, form: Form) -> None:
    said = logged(form)
    forged = "x\n2026-11-28 00:00:00.000Z CRITICAL yongtong.door door.audit_broken\u2028\x1b[2J"
    logging.getLogger("yongtong.door").info("door.refused remote=%s", forged)
    assert len(said().splitlines()) == 1
    assert "\x1b" not in said()


@pytest.mark.parametrize("form", ["text", "json"])
def test_of_an_exception_that_quotes_content_only_type_and_place_are_told(logged: Logged, form: Form) -> None:
    said = logged(form)
    engine = sa.create_engine("sqlite://")
    try:
        with engine.connect() as connection:
            connection.execute(sa.text("INSERT INTO nowhere VALUES (:name)"), {"name": SECRET})
    except sa.exc.SQLAlchemyError:
        logging.getLogger("yongtong.scheduler").exception("announcer.failed; looking again at the next sweep")
    assert "OperationalError" in said()
    assert "announcer.failed" in said()
    assert "test_logs.py" in said() or "default.py" in said()
    assert SECRET not in said()
    assert "nowhere" not in said()


@pytest.mark.parametrize("form", ["text", "json"])
def test_celery_does_not_tell_what_a_task_choked_on(logged: Logged, form: Form) -> None:
    said = logged(form)
    app = Celery("test", broker="memory://")

    @app.task(name="choke")  # type: ignore[untyped-decorator]  # celery says no types
    def choke() -> None:
        raise ValueError(SECRET)

    choke.apply()
    assert "ValueError" in said()
    assert SECRET not in said()
    assert len(said().splitlines()) == 1


def test_only_our_own_critical_events_are_remembered(logged: Logged) -> None:
    criticals = configure("text", io.StringIO())
    logging.getLogger("yongtong.door").critical("door.audit_broken service=%s reason=%s", "soap", SECRET)
    logging.getLogger("yongtong.door").error("door.failed at=%s", "x")
    logging.getLogger("elsewhere").critical("thing.broken")
    logging.getLogger("yongtong.alarms").critical("alarm.begins code=%s about=%s", "place.disk", "")
    assert list(criticals.last()) == ["door.audit_broken"]
