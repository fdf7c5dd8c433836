"""Whether packages that a gateway or courier laid in are taken, and none waits for a person."""

import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Final

from connectors.transports.package import SUFFIX
from exchange.app import places
from exchange.doctor.check import Check, Examined, bad, good

WAITS: Final = timedelta(minutes=15)  # longer than the door waits for the rest of one that is still coming


def packages_are_taken(bus: Examined) -> Iterator[Check]:
    """The one-way door's folder is there and ours to write to, nothing waits in it too long, nothing was refused."""
    folder = places.packages_folder(bus.settings)
    if folder is None:
        yield good("packages.folder", "未设单向摆渡目录。", "There is no one-way door.")
        return
    away = [name for name in ("in", "out", "refused") if not os.access(folder / name, os.R_OK | os.W_OK | os.X_OK)]
    if away:
        yield bad(
            "packages.folder",
            f"摆渡目录 {folder} 中的 {'、'.join(away)} 不存在或不可写。",
            f"{', '.join(away)} in {folder}: not there, or not ours to write to.",
            "请检查挂载和权限；目录由 serve 启动时建立。",
            "Check the mount and the rights; serve makes the folders when it starts.",
        )
        return
    waiting, refused = _older(folder / "in", bus.now.timestamp() - WAITS.total_seconds()), _older(folder / "refused")
    zh = f"摆渡目录：{waiting} 个包等待超过 {WAITS.seconds // 60} 分钟，{refused} 个包被拒收。"
    en = f"The one-way door: {waiting} packages wait for over {WAITS.seconds // 60} minutes, {refused} were refused."
    if not waiting and not refused:
        yield good("packages.folder", zh, en)
        return
    yield bad(
        "packages.folder",
        zh,
        en,
        "请看 refused/ 中各包旁的 .json：改正后移回 in/ 重新受理，或删除；等待的请看 serve 日志 service=packages。",
        "Read the .json beside each in refused/, then move it back into in/ to be looked at again, or delete it; of "
        "those that wait, serve's log says why (service=packages).",
    )


def _older(folder: Path, than_s: float | None = None) -> int:
    """How many packages lie there, laid in before that time."""
    count = 0
    with os.scandir(folder) as found:
        for one in found:
            if one.name.endswith(SUFFIX) and one.is_file(follow_symlinks=False):
                with suppress(FileNotFoundError):  # it was taken while we looked
                    count += than_s is None or one.stat(follow_symlinks=False).st_ctime < than_s
    return count
