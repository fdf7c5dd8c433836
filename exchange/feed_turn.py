"""A feed's turn in a worker: whether it is time, act two, and what follows when something that it needs is away."""

import errno
import logging
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from exchange.bus import Bus
from exchange.database import FAILURES
from exchange.processing import carry_out_recalls, process
from security.errors import AuditBroken, ExchangeError, Unavailable, places

log = logging.getLogger("yongtong.processing")

FULL: Final = (errno.ENOSPC, errno.EDQUOT)


def take_turn(feed_id: str, bus: Bus) -> int:
    """Work at what waits for a feed, unless it is stopped or waits to be tried again. Gives how many deliveries were
    finished.

    Where the work cannot go on and no content is at fault, the deliveries stay waiting, and the feed is tried again
    after a while that grows; the others go on.
    """
    if not bus.waits.due(feed_id):
        return 0
    longest = bus.feeds[feed_id].retry_most
    most_s = longest.total_seconds() if longest else None
    try:
        with bus.waits.at(feed_id, most_s):
            if feed_id in bus.stopped.now():
                carry_out_recalls(feed_id, bus)
                return 0
            return process(feed_id, bus)
    except (ExchangeError, OSError, SQLAlchemyError, *FAILURES) as problem:
        wait = bus.waits.failed(feed_id, code_of(problem), places(problem), most_s)
        level = logging.CRITICAL if isinstance(problem, AuditBroken) else logging.WARNING
        told = (feed_id, wait.code, wait.attempts, wait.next_at.isoformat(timespec="seconds"), wait.at)
        log.log(level, "feed.waits feed=%s code=%s attempts=%d next_at=%s at=%s", *told)
        return 0


def code_of(problem: BaseException) -> str:
    """Why the work cannot go on, as a code. A cause that another error was raised from says it best."""
    if isinstance(problem, AuditBroken):
        return "flow.audit_broken"
    cause: BaseException | None = problem
    while cause is not None:
        if (isinstance(cause, OSError) and cause.errno in FULL) or "disk is full" in str(cause):
            return "flow.disk_full"
        if isinstance(cause, (SQLAlchemyError, *FAILURES)):
            return "flow.database_away"
        if isinstance(cause, OSError):
            return "flow.storage_away"
        cause = cause.__cause__
    return "flow.unavailable" if isinstance(problem, Unavailable | ExchangeError) else "flow.storage_away"
