"""Act two's reports, pushed where a broker or folder handed the delivery over, until it has them; `GetReport` has all.

The worker process signs them; here they are found in the journal, in the order of its entries. How far the pushing has
come is kept in a small file, moved on only when they have arrived: after a crash some may be pushed twice.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Final

from exchange.journal import InboxRow, Journal
from exchange.small_file import write_whole
from security.errors import ExchangeError

log = logging.getLogger("yongtong.reports")

AT_ONCE: Final = 200
LOOK_S: Final = 0.5
AGAIN_S: Final = 5.0  # after a failure
BREATH_S, MOST_PATIENCE_S = 0.1, 10.0  # while deliveries come in faster than they are taken


class ReportPush:
    """Pushes reports until it is cancelled.

    by:   whose deliveries' reports, as the carrier begins: `broker:` or `folder:`
    path: of the file that says up to which entry all is pushed
    push: sends a delivery's report; done when it has arrived
    busy: as `MqttDoor` has it
    """

    def __init__(
        self,
        journal: Journal,
        by: str,
        path: Path,
        push: Callable[[InboxRow, bytes], "Future[None]"],
        busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self._journal, self._by, self._path, self._push, self._busy = journal, by, path, push, busy
        self._pushed_to = _read(path)

    async def run(self) -> None:
        """Look for what is new, push it, look again."""
        while True:
            await self._after_act_one()
            try:
                pause_s = 0.0 if await self._push_some() else LOOK_S
            except (ExchangeError, OSError) as problem:
                log.warning("reports.not_pushed by=%s reason=%s", self._by, problem)
                pause_s = AGAIN_S
            await asyncio.sleep(pause_s)

    async def _after_act_one(self) -> None:
        """Let deliveries that come in go first, but not for ever."""
        until_s = asyncio.get_running_loop().time() + MOST_PATIENCE_S
        while self._busy() and asyncio.get_running_loop().time() < until_s:
            await asyncio.sleep(BREATH_S)

    async def _push_some(self) -> bool:
        """Push the next reports; whether there may be more at once."""
        found = await asyncio.to_thread(self._journal.reports_after, self._pushed_to, AT_ONCE)
        reports = [(row, octets) for _, row, octets in found if row.carrier.startswith(self._by)]
        # In a thread: a disk may hang.
        pushed = await asyncio.to_thread(lambda: [self._push(row, octets) for row, octets in reports])
        done, _ = await asyncio.to_thread(wait, pushed)
        for future in done:
            future.result()
        if found:
            self._pushed_to = found[-1][0]
            await asyncio.to_thread(write_whole, self._path, str(self._pushed_to).encode())
        return len(found) == AT_ONCE


def _read(path: Path) -> int:
    """The last entry that was pushed; -1 before the first, or where the file was cut short: then all come again."""
    try:
        return int(path.read_text())
    except (FileNotFoundError, ValueError):
        return -1
