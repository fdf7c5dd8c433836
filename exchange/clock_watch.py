"""Whether this machine's clock can be trusted: against the time since the last look, and others' servers.

Nobody is asked for the time: whoever answers a question that is asked anyhow says it (RFC 9110 §6.6.1). It is no proof,
and nothing is set by it; a person is told.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

import msgspec

KEPT: Final = timedelta(hours=2)  # how long a jump, or what a server said, is told of


class Jump(msgspec.Struct, frozen=True):
    """The clock went by more or less than the time that passed. seconds: by how much more."""

    at: datetime
    seconds: float


class ClockWatch:
    """Safe for threads. clock: aware, UTC; monotonic: seconds that no setting of a clock changes; limit: of both."""

    def __init__(self, clock: Callable[[], datetime], monotonic: Callable[[], float], limit: timedelta) -> None:
        self._clock, self._monotonic, self._limit, self._lock = clock, monotonic, limit, threading.Lock()
        self._at, self._at_s = clock(), monotonic()
        self._jump: tuple[float, Jump] | None = None
        self._said: dict[str, tuple[float, float]] = {}  # by host: when by the monotonic clock, ours minus theirs

    def heard(self, host: str, date: str) -> None:
        """What a server says the time is, as HTTP writes it; what cannot be read says nothing."""
        with suppress(ValueError, TypeError):
            theirs = parsedate_to_datetime(date)
            theirs = theirs if theirs.tzinfo else theirs.replace(tzinfo=UTC)
            with self._lock:
                self._said[host] = self._monotonic(), (self._clock() - theirs).total_seconds()

    def jump(self) -> Jump | None:
        """The last jump of the clock, while it is told of. To be asked often: a jump is seen between two questions."""
        with self._lock:
            now, now_s = self._clock(), self._monotonic()
            beyond_s = (now - self._at).total_seconds() - (now_s - self._at_s)
            self._at, self._at_s = now, now_s
            if abs(beyond_s) > self._limit.total_seconds():
                self._jump = now_s, Jump(now, beyond_s)
            if self._jump is None or now_s - self._jump[0] > KEPT.total_seconds():
                return None
            return self._jump[1]

    def apart(self) -> dict[str, float]:
        """Hosts whose clocks are farther from ours than the limit, with seconds: ours minus theirs."""
        with self._lock:
            recent = {
                host: seconds
                for host, (at_s, seconds) in self._said.items()
                if self._monotonic() - at_s <= KEPT.total_seconds()
            }
        return {host: seconds for host, seconds in recent.items() if abs(seconds) > self._limit.total_seconds()}
