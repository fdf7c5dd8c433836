"""Feeds whose work cannot go on for a while, and how long each waits until it is tried again: longer each time.

Nobody's content is at fault: the disk is full, a database is away, the worker was killed. One small file a feed says
it, so that a worker started anew waits on, the doors' process can tell, and an operator may end the wait by `feed
start`. Where the file cannot be written (the disk is full), the worker remembers it.
"""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from security.errors import Sentence, sentences

LONGEST_DOUBLING: Final = 20  # doublings, before the longest wait is sure to be reached
LEAST_SHARE: Final = 0.5  # of a wait, so that feeds which failed together do not come back together
MACHINE: Final = socket.gethostname()


class Wait(msgspec.Struct, frozen=True):
    """A feed waits.

    attempts: how many tries came to nothing, one after the other
    code:     why, of `refusals.toml`; at: where it was, for the operator
    next_at:  when it is tried again; working: `machine:process` that is at it now, empty while it waits
    """

    attempts: int
    code: str
    since: datetime
    next_at: datetime
    at: str = ""
    working: str = ""

    @property
    def sentence(self) -> Sentence:
        """What its code says to a person."""
        return sentences()[self.code]


class Waits:
    """The waits of one state folder.

    first_s, most_s: the first wait and the longest, seconds; share: a number from 0 to 1, another each time
    """

    def __init__(
        self, folder: Path, clock: Callable[[], datetime], share: Callable[[], float], first_s: float, most_s: float
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._clock, self._share = folder, clock, share
        self._first_s, self._most_s = first_s, most_s
        self._unwritten: dict[str, Wait] = {}

    def all(self) -> dict[str, Wait]:
        """Every feed that waits, by its id: attempts, cause, next try."""
        found = {path.stem: self.of(path.stem) for path in sorted(self._folder.glob("*.json"))} | self._unwritten
        return {feed: wait for feed, wait in found.items() if wait is not None and wait.attempts}

    def of(self, feed: str) -> Wait | None:
        """How one feed waits; None where it does not."""
        if feed in self._unwritten:
            return self._unwritten[feed]
        try:
            return msgspec.json.decode(self._path(feed).read_bytes(), type=Wait)
        except (OSError, msgspec.MsgspecError):  # none, or cut short by a power cut: then it is tried now
            return None

    def due(self, feed: str) -> bool:
        """Whether a feed may be tried now."""
        wait = self.of(feed)
        return wait is None or bool(wait.working) or wait.next_at <= self._clock()

    @contextmanager
    def at(self, feed: str, most_s: float | None) -> Iterator[None]:
        """While the block runs, the end of this process counts as a try that came to nothing.

        most_s: the feed's own longest wait
        """
        before, now = self.of(feed), self._clock()
        if before is not None and self._gone(before.working):
            before = self.failed(feed, "flow.worker_ended", "", most_s)
        attempts, code, since = (
            (before.attempts, before.code, before.since) if before else (0, "flow.worker_ended", now)
        )
        self._keep(feed, Wait(attempts, code, since, now, working=f"{MACHINE}:{os.getpid()}"))
        yield
        self.done(feed)

    def failed(self, feed: str, code: str, at: str, most_s: float | None) -> Wait:
        """A try came to nothing; gives how the feed waits now."""
        before, now = self.of(feed), self._clock()
        attempts = (before.attempts if before else 0) + 1
        most_s = self._most_s if most_s is None else most_s
        longest_s = min(most_s, self._first_s * 2.0 ** min(attempts - 1, LONGEST_DOUBLING))
        wait_s = longest_s * (LEAST_SHARE + (1 - LEAST_SHARE) * self._share())
        wait = Wait(attempts, code, before.since if before else now, now + timedelta(seconds=wait_s), at)
        self._keep(feed, wait)
        return wait

    def ended(self) -> list[str]:
        """Feeds at which a process of this machine was that is no more; each waits from now on."""
        found = []
        for path in self._folder.glob("*.json"):
            wait = self.of(path.stem)
            if wait is not None and self._gone(wait.working):
                self.failed(path.stem, "flow.worker_ended", "", None)
                found.append(path.stem)
        return found

    def _gone(self, working: str) -> bool:
        """Whether a process of this machine was at it that is no more, or this one, which came out of it otherwise."""
        machine, _, process = working.rpartition(":")
        return machine == MACHINE and (process == str(os.getpid()) or not Path(f"/proc/{process}").exists())

    def done(self, feed: str) -> None:
        """The work went on; or an operator says that it shall be tried now."""
        self._unwritten.pop(feed, None)
        self._path(feed).unlink(missing_ok=True)

    def _keep(self, feed: str, wait: Wait) -> None:
        path = self._path(feed)
        try:
            beside = path.with_suffix(".new")
            beside.write_bytes(msgspec.json.encode(wait))
            beside.replace(path)
            self._unwritten.pop(feed, None)
        except OSError:  # which may be why it waits
            self._unwritten[feed] = wait
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def _path(self, feed: str) -> Path:
        return self._folder / f"{feed}.json"
