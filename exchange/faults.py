"""Where a crash may come: every durable step says when it is about to happen and when it has happened.

The crash tests set `YONGTONG_FAULT=name:before|after:count`; the process then kills itself at the count-th pass of that
place. Unset, which is always so outside those tests, this does nothing.
"""

import os
import signal

_FAULT = os.environ.get("YONGTONG_FAULT", "")
_passed = 0


def durable_step(place: str) -> None:
    """Say that `place` is reached. place: `name:before` or `name:after`, e.g. `journal.group:before`."""
    global _passed
    if not _FAULT or _FAULT.rpartition(":")[0] != place:
        return
    _passed += 1
    if _passed == int(_FAULT.rpartition(":")[2]):
        os.kill(os.getpid(), signal.SIGKILL)
