"""DWG to DXF, by a program of the machine's that the settings name (`dwg2dxf` of LibreDWG), run shut off and limited.

No format of its own: `connectors.formats.dxf` reads drawings, and what the program wrote as it reads any bureau's DXF,
with all its limits. The program is believed in nothing else: it may leave out what it did not understand and end as if
all were well, so one complaint of its own (a line that begins with ERROR, or of a checksum) refuses the drawing.
"""

import contextlib
import os
import select
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from connectors.formats import dwg_process
from connectors.formats.dxf_tags import dwg_version
from connectors.formats.vector_process import filter_of
from security.errors import Misconfigured, Refusal
from security.message import Content, file_content

MEMORY_BYTES: Final = 4 << 30
OUTPUT_BYTES: Final = 2 << 30  # of a file, and of all that lies in its folder
WAIT_S: Final = 30.0
WAIT_S_A_MIB: Final = 5.0  # and so many more for each MiB
_ENDING_MS: Final = 5_000  # what was ended is gone long before
_STEP_S: Final = 0.1  # between two looks at what it has written
_DWG, _DXF, _SAID, _COMPLAINED = "drawing.dwg", "drawing.dxf", "said", "complained"
_COMPLAINTS: Final = (b"ERROR", b"READ ERROR", b"WRITE ERROR")
_WRONG_SUM: Final = b"CRC mismatch"
_LINE_BYTES: Final = 1 << 16
_ITS_FAULT: Final = ("decode.not_readable", "decode.dwg")  # what our reader says of a DXF that only it can have spoilt
# What the program may not do, by its numbers on x86-64 and ARM64: socket, setpgid, setsid, io_uring_setup, kill. It
# stays in its group of processes, so that all of it is ended with it.
_DENIED: Final = {"x86_64": (41, 109, 112, 425, 62), "aarch64": (198, 154, 157, 425, 129)}


@contextlib.contextmanager
def as_dxf(content: Content, program: str) -> Iterator[Content]:
    """The drawing itself; of a DWG what the program makes of it, in a folder that is there for so long.

    program: its absolute path; empty: there is none

    Raises Refusal decode.dwg where there is none, decode.dwg_not_converted, decode.too_large; Misconfigured where the
    program does not start or the system cannot shut it off. What the reader finds wrong with the program's DXF as such
    is decode.dwg_not_converted too.
    """
    with content.open() as stream:
        version = dwg_version(stream.read(min(content.size, 8)))
    if not version:
        yield content
        return
    if not program:
        raise Refusal("decode.dwg", version)
    with tempfile.TemporaryDirectory(prefix="yongtong-dwg-") as name:
        folder = Path(name)
        with (folder / _DWG).open("wb") as written:
            written.writelines(content.pieces())
        _run([program, "-o", _DXF, _DWG], folder, WAIT_S + WAIT_S_A_MIB * content.size / (1 << 20))
        _check_complaints(folder / _COMPLAINED)
        try:
            yield _written(folder / _DXF)
        except Refusal as problem:
            if problem.code not in _ITS_FAULT:
                raise
            raise Refusal("decode.dwg_not_converted", f"{version}: {problem.detail}") from problem


def version_of(program: str) -> str:
    """What the program says of its version, one line. Raises as `as_dxf` does."""
    with tempfile.TemporaryDirectory(prefix="yongtong-dwg-") as name:
        _run([program, "--version"], Path(name), WAIT_S)
        with (Path(name) / _SAID).open("rb") as said:
            line = said.read(200).decode("utf-8", "replace").partition("\n")[0]
    return "".join(character for character in line if character.isprintable()).strip()


def _run(command: list[str], folder: Path, wait_s: float) -> None:
    """Run the command in the folder until it ends well; nothing that it started is left."""
    ours, its = os.pipe()
    ended_all, alive = os.pipe()  # open in all that it starts
    limits = (MEMORY_BYTES, OUTPUT_BYTES, int(wait_s) + 1)
    child = [sys.executable, "-I", str(Path(dwg_process.__file__)), str(its), filter_of(_DENIED).hex()]
    with (folder / _SAID).open("wb") as said, (folder / _COMPLAINED).open("wb") as complained:
        process = subprocess.Popen(
            [*child, *map(str, limits), *command],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=complained,
            cwd=folder,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": str(folder), "TMPDIR": str(folder)},
            pass_fds=[its, alive],
            start_new_session=True,
        )
    os.close(its)
    os.close(alive)
    try:
        ended = _ended(process, folder, wait_s)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        hung_up = select.poll()
        hung_up.register(ended_all, select.POLLHUP)
        hung_up.poll(_ENDING_MS)
        os.close(ended_all)
        with os.fdopen(ours, "rb") as told:
            failed = told.read(400).decode("utf-8", "replace")
    if failed:
        words = f"{command[0]}: {failed.partition(': ')[2]}"
        if failed.startswith("isolation"):
            raise Misconfigured("config.no_isolation", words)
        raise Misconfigured("config.no_converter", words)
    if ended:
        how = f"signal {-ended}" if ended < 0 else f"exit {ended}"
        raise Refusal("decode.dwg_not_converted", f"the converter ended with {how}")


def _ended(process: subprocess.Popen[bytes], folder: Path, wait_s: float) -> int:
    """With what it ended. Raises Refusal decode.too_large for one that takes longer or writes more than it may."""
    until = time.monotonic() + wait_s
    ended: int | None = None
    while ended is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            ended = process.wait(_STEP_S)
        if _size(folder) >= OUTPUT_BYTES:
            raise Refusal("decode.too_large", f"the converter wrote {OUTPUT_BYTES >> 20} MiB or more")
        if ended is None and time.monotonic() > until:
            raise Refusal("decode.too_large", f"the converter took more than {wait_s:.0f} s")
    return ended


def _size(folder: Path) -> int:
    """Octets of all files in the folder, which has none below it."""
    size = 0
    for entry in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError):  # it was only for a while
            size += entry.stat(follow_symlinks=False).st_size
    return size


def _check_complaints(path: Path) -> None:
    """Raise Refusal if the program said of anything that it went wrong. Its words may be the sender's: not repeated."""
    with path.open("rb") as said:
        lines = iter(lambda: said.readline(_LINE_BYTES), b"")
        count = sum(line.startswith(_COMPLAINTS) or _WRONG_SUM in line for line in lines)
    if count:
        raise Refusal("decode.dwg_not_converted", f"errors that the converter names: {count}")


def _written(path: Path) -> Content:
    """The DXF that it wrote, if it did."""
    if not path.exists() or not stat.S_ISREG(path.lstat().st_mode) or not path.stat().st_size:
        raise Refusal("decode.dwg_not_converted", "the converter wrote nothing")
    return file_content(path)
