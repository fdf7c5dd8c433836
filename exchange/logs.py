"""Where logging is set up, for every process alike: one record a line, and nothing in it that a stranger or a bureau
wrote.

Our own records are `event key=value …`; they are written so, or as one JSON object a line (`[watch] log`). An exception
is told by its type and the places it passed: its words may quote content, and so may what libraries say of it.
"""

import logging
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO

import msgspec

from security.errors import places

OURS: Final = "yongtong"
Form = Literal["text", "json"]
_FIELD: Final = re.compile(r"(?:(\w+)=)?%[-+ #0]*\d*(?:\.\d+)?[sdifgrx]")
_EVENT: Final = re.compile(r"[a-z_]+\.[a-z_]+")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def configure(form: Form, stream: TextIO | None = None) -> "Criticals":
    """Set up logging for this process; gives what keeps count of critical events. stream: stderr."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    criticals = Criticals()
    root = logging.getLogger()
    root.handlers = [handler, criticals]
    root.setLevel(logging.WARNING)
    logging.getLogger(OURS).setLevel(logging.INFO)
    return criticals


class Criticals(logging.Handler):
    """Remembers which critical events were logged, and when last."""

    def __init__(self) -> None:
        super().__init__(logging.CRITICAL)
        self._last: dict[str, datetime] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Our own events only: the first word of what is said."""
        event = str(record.msg).split(" ", 1)[0]
        if record.name.startswith(f"{OURS}.") and record.name != f"{OURS}.alarms" and _EVENT.fullmatch(event):
            self._last[event] = datetime.fromtimestamp(record.created, UTC)

    def last(self) -> Mapping[str, datetime]:
        """Events, with the time of each one's last."""
        return dict(self._last)


class TextLines(logging.Formatter):
    """`2026-11-28 16:00:00.123Z WARNING yongtong.door event key=value`."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC)
        said = f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d}Z {record.levelname} {record.name} {_said(record)}"
        return printable(said)


class JsonLines(logging.Formatter):
    """One object a line: time, level, logger, event, each `key=value` as a member; `message` where there is more."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        template = str(record.msg)
        event = template.split(" ", 1)[0].rstrip(";,")
        if _EVENT.fullmatch(event):
            line["event"] = event
        if not record.name.startswith(OURS) and record.exc_info:
            return msgspec.json.encode({**line, "message": _said(record)}).decode()
        line |= {f"said_{name}" if name in line else name: value for name, value in _members(record, template).items()}
        rest = _FIELD.sub("", template.removeprefix(event)).strip(" ;,")
        if rest or "event" not in line:
            line["message"] = _said(record)
        if record.exc_info and record.exc_info[1] is not None:
            line["at"] = places(record.exc_info[1])
        return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", msgspec.json.encode(line).decode())


def printable(text: str) -> str:
    """On one line, whatever stands in it: a record cannot be made to look like two."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def _said(record: logging.LogRecord) -> str:
    """What is said; of an exception that a library tells, only whose and where."""
    problem = record.exc_info[1] if record.exc_info else None
    if problem is None:
        return record.getMessage()
    ours = record.name.startswith(OURS)
    return f"{record.getMessage() if ours else 'failed'} at={places(problem)}"


def _members(record: logging.LogRecord, template: str) -> dict[str, Any]:
    """The values of an event by their keys, as its template names them."""
    names = [match[1] for match in _FIELD.finditer(template.replace("%%", ""))]
    values = record.args if isinstance(record.args, tuple) else ()
    if len(names) != len(values):
        return {}
    return {
        name: value if isinstance(value, int | float | bool) else str(value)
        for name, value in zip(names, values, strict=True)
        if name
    }
