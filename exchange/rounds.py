"""Turn after turn of one who watches."""

import logging
import threading
from collections.abc import Callable

from security.errors import places


def rounds(turn: Callable[[], object], stop: threading.Event, every_s: float, log: logging.Logger, name: str) -> None:
    """Take turns until told to stop, one every so many seconds. What trips one turn must not end all later ones.

    name: of what is done, `{name}.failed` in the log
    """
    while not stop.is_set():
        try:
            turn()
        except Exception as problem:  # the outermost loop of a thread
            if not stop.is_set():
                log.error(f"{name}.failed at=%s", places(problem))  # the event stands in the template
        stop.wait(every_s)
