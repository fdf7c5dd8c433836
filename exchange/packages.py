"""The one-way door (单向摆渡): packages that a gateway or courier lays into a folder go through the same story.

    in/        where packages are laid: files `*.package`, taken in order of their age once they have come whole
    out/       what a courier may take home, a folder a bureau: signed receipts, reports, refusals
    refused/   packages that were refused, each with what was wrong; laid into in/ again they are looked at again

Nobody is asked anything: that a package is missing or came twice, its signed number and its id say. A package goes once
its receipt is durable and lies in out/; after a crash it is taken again and gets the same receipt.
"""

import asyncio
import logging
import os
import secrets
import shutil
import stat
import tempfile
import time
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import IO, Final, Literal

import msgspec

from connectors.transports.package import SUFFIX, Head, head_of, take_apart
from exchange.bus import Bus
from exchange.database import FAILURES
from exchange.faults import durable_step
from exchange.intake import receive, turn_away
from exchange.journal import InboxRow
from exchange.opened import refusal_to_signer
from exchange.small_file import write_whole
from security.errors import FOR_NOW, AuditBroken, ExchangeError, Refusal, Unavailable, places
from security.message import FOLDER, Delivery, file_content

log = logging.getLogger("yongtong.door")

DOOR: Final = "folder"
LOOK_S: Final = 1.0
MOST_AT_A_LOOK: Final = 1_000
STILL_S: Final = 600.0  # nothing more came in that time: it was cut short
FIRST_WAIT_S, MOST_WAIT_S = 2.0, 300.0  # before one is tried again that could not be taken now
Kind = Literal["receipt", "report", "refusal"]


def make_folders(folder: Path) -> None:
    """Make the door's folders where they do not stand. Raises OSError."""
    for name in ("in", "out", "refused"):
        (folder / name).mkdir(parents=True, exist_ok=True)


def lay_out_report(folder: Path, row: InboxRow, report: bytes) -> "Future[None]":
    """Lay a delivery's report into a door's folder; done when it lies there."""
    done: Future[None] = Future()
    try:
        _lay_out(folder, row.sender, row.message_id, "report", report)
        done.set_result(None)
    except OSError as problem:
        done.set_exception(problem)
    return done


def _lay_out(folder: Path, bureau: str, message_id: str, kind: Kind, document: bytes) -> None:
    own = folder / "out" / bureau
    own.mkdir(exist_ok=True)
    write_whole(own / f"{message_id}.{kind}.json", document)


class _Laid(msgspec.Struct, frozen=True):
    """A file in `in/`, and by what it is known to be the same still: number, octets and time of change."""

    path: Path
    same: tuple[int, int, int]


class _Waiting(msgspec.Struct, frozen=True):
    """A package that could not be taken now. until_s: time.monotonic(); wait_s: how long it waits this time."""

    until_s: float
    wait_s: float


class PackageDoor:
    """One folder as a door onto the bus.

    folder: in which `in/`, `out/` and `refused/` lie
    name:   of the folder, as receipts name it: `folder:{name}`
    spool:  a folder of the bus's own, into which a package is copied before it is read; what a crash left is removed
    """

    def __init__(self, bus: Bus, folder: Path, name: str, spool: Path) -> None:
        for left_over in spool.glob("package-*"):
            left_over.unlink(missing_ok=True)
        self._bus, self._folder, self._by, self._spool = bus, folder, f"{FOLDER}{name}", spool
        self._later: dict[tuple[int, int, int], _Waiting] = {}

    async def run(self) -> None:
        """Take what lies there, look again, until it is cancelled."""
        while True:
            try:
                await self._look()
            except OSError as problem:  # the folder is away
                log.warning("packages.not_looked_at reason=%s", problem)
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> None:
        laid = await asyncio.to_thread(self._listed)
        self._later = {one.same: self._later[one.same] for one in laid if one.same in self._later}
        for one in laid:
            waiting = self._later.get(one.same)
            if waiting is None or waiting.until_s <= time.monotonic():
                await self._take(one)

    def _listed(self) -> list[_Laid]:
        """The oldest packages. What is no plain file, or is named otherwise, is not ours to touch."""
        with os.scandir(self._folder / "in") as found:
            files = [one for one in found if one.name.endswith(SUFFIX) and one.is_file(follow_symlinks=False)]
        known = [(one, one.stat(follow_symlinks=False)) for one in files]
        known.sort(key=lambda pair: (pair[1].st_mtime_ns, pair[0].name))
        return [_Laid(Path(one.path), _same(status)) for one, status in known[:MOST_AT_A_LOOK]]

    async def _take(self, laid: _Laid) -> None:
        copy, envelope = None, b""
        try:
            copy = await asyncio.to_thread(self._copied, laid)
            if copy is None:
                return  # it is still coming
            raw = await asyncio.to_thread(file_content, copy)
            package = await asyncio.to_thread(take_apart, raw)
            envelope = package.envelope
            delivery = Delivery(DOOR, None, self._by, envelope, raw, self._bus.clock(), attachment=package.content)
            received = await receive(delivery, self._bus)
            row = received.inbox
            assert row.receipt is not None  # `receive` waits for it
            for bureau in {row.sender, received.verified.signer.bureau}:  # two where one signs for another
                await asyncio.to_thread(_lay_out, self._folder, bureau, row.message_id, "receipt", row.receipt)
            durable_step("package.answered:before")
            await asyncio.to_thread(_remove, laid)
        except Refusal as refusal:
            await self._refused(refusal, laid, envelope)
        except (Unavailable, AuditBroken) as problem:
            log.warning("door.unavailable service=packages reason=%s", problem)
            self._wait(laid)
        except (OSError, *FAILURES) as problem:  # a disk or file of ours, or of the gateway's
            log.warning("door.unavailable service=packages at=%s", places(problem))
            self._wait(laid)
        except Exception as problem:  # the outermost loop: one bad package must not keep the others from coming
            log.error("door.failed service=packages reference=%s at=%s", secrets.token_hex(4), places(problem))
            self._wait(laid)
        finally:
            if copy is not None:
                copy.unlink(missing_ok=True)

    def _copied(self, laid: _Laid) -> Path | None:
        """A copy that nobody else writes to, of a package that has come whole; None while it has not.

        Raises Refusal `package.not_one`, `package.length`, `size.too_large`; OSError.
        """
        # No link and no pipe is followed, whatever took the file's place meanwhile.
        descriptor = os.open(laid.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise Refusal("package.not_one", "no plain file")
            head = head_of(file)
            if head is not None and head.content > self._bus.limits.max_upload_bytes:
                raise Refusal("size.too_large", f"{head.content} > {self._bus.limits.max_upload_bytes}")
            if head is None or status.st_size < head.whole:
                if time.time() - status.st_mtime > STILL_S:
                    raise Refusal("package.length", f"cut short at {status.st_size} octets")
                return None
            if status.st_size > head.whole:
                raise Refusal("package.length", f"{status.st_size} octets, {head.whole} were to come")
            file.seek(0)
            return self._spooled(file, head)

    def _spooled(self, file: IO[bytes], head: Head) -> Path | None:
        handle, name = tempfile.mkstemp(prefix="package-", dir=self._spool)
        with os.fdopen(handle, "wb") as copy:
            left = head.whole
            while left and (piece := file.read(min(left, 1 << 20))):
                copy.write(piece)
                left -= len(piece)
        if left:  # somebody cut it while it was read
            Path(name).unlink()
            return None
        return Path(name)

    async def _refused(self, refusal: Refusal, laid: _Laid, envelope: bytes) -> None:
        """Say what was wrong, to the signer in a signed refusal, and put the package where a person finds it.

        What may be taken later waits where it is.
        """
        if refusal.code in FOR_NOW:
            self._wait(laid)
            return
        precise = refusal
        if not envelope:  # it never became a delivery
            refusal = await turn_away(refusal, DOOR, None, self._by, self._bus)
        elif isinstance(refusal.__cause__, Refusal):
            precise = refusal.__cause__  # what a stranger does not hear; refused/ is for the operator's own eyes
        log.info("door.refused reference=%s code=%s remote=%s", refusal.reference, refusal.code, self._by)
        try:
            told = refusal_to_signer(refusal, envelope, self._bus) if envelope else None
            if told is not None:
                signed, bureau, answer = told
                await asyncio.to_thread(_lay_out, self._folder, bureau, signed.message_id, "refusal", answer)
            await asyncio.to_thread(self._put_aside, laid, precise, refusal.reference or refusal.detail)
        except (ExchangeError, OSError) as problem:
            log.warning("door.unavailable service=packages reason=%s", problem)
            self._wait(laid)

    def _put_aside(self, laid: _Laid, refusal: Refusal, reference: str) -> None:
        """Move a package to refused/, beside it what was wrong; what was refused there before is not written over."""
        aside = self._folder / "refused"
        names = (laid.path.name, *(f"{laid.path.stem}.{number}{SUFFIX}" for number in range(2, 10_000)))
        target = next(path for path in map(aside.joinpath, names) if not path.exists())
        said = {
            "package": target.name,
            "at": self._bus.clock(),
            "code": refusal.code,
            "detail": refusal.detail,
            "sentence": refusal.sentence,
            "reference": reference,
        }
        write_whole(aside / f"{target.name}.json", msgspec.json.format(msgspec.json.encode(said), indent=2) + b"\n")
        if _same(laid.path.lstat()) == laid.same:
            shutil.move(laid.path, target)  # `in/` may be another disk, the gateway's

    def _wait(self, laid: _Laid) -> None:
        before = self._later.get(laid.same)
        wait_s = min(before.wait_s * 2, MOST_WAIT_S) if before else FIRST_WAIT_S
        self._later[laid.same] = _Waiting(time.monotonic() + wait_s, wait_s)


def _same(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _remove(laid: _Laid) -> None:
    """Remove a package that was taken, unless another lies there by now."""
    with suppress(FileNotFoundError):
        if _same(laid.path.lstat()) == laid.same:
            laid.path.unlink()
