"""The one-way door: the folder into which a gateway or courier lays packages."""

import asyncio
from contextlib import AsyncExitStack
from functools import partial

from exchange.app import duties, places
from exchange.bus import Bus
from exchange.packages import PackageDoor, lay_out_report, make_folders
from exchange.reports_out import ReportPush
from exchange.settings import Settings
from security.errors import Misconfigured
from security.message import FOLDER


async def open_door(settings: Settings, bus: Bus, stack: AsyncExitStack) -> None:
    """Open the one-way door, where the settings name its folder, until the stack closes; of several processes one.

    Raises Misconfigured where the folder cannot be made.
    """
    folder = places.packages_folder(settings)
    if folder is None:
        return
    try:
        make_folders(folder)
    except OSError as problem:
        raise Misconfigured("config.file", f"{problem.filename}: {problem.strerror}") from problem
    done_to = bus.folder / "reports-laid-out"

    async def both_ways() -> None:
        door = PackageDoor(bus, folder, settings.packages.name, bus.folder / "spool")
        reports = ReportPush(bus.journal, FOLDER, done_to, partial(lay_out_report, folder))
        under_way = [asyncio.create_task(run()) for run in (door.run, reports.run)]
        try:
            await asyncio.gather(*under_way)
        finally:
            for task in under_way:
                task.cancel()

    stack.callback(asyncio.create_task(duties.on_loop(bus.journal.database, "packages", both_ways)).cancel)
