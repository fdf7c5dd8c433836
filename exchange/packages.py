"""The one-way door (单向摆渡): packages that a gateway or courier lays into a folder go through the same story.

    in/        where packages are laid: files `*.package`, taken in order of their age once they have come whole
    out/       what a courier may take home, a folder a bureau: signed receipts, reports, refusals
    refused/   packages that were refused, each with what was wrong; laid into in/ again they are looked at again

Nobody is asked anything: that a package is missing or came twice, its signed number and its id say. A package goes once
its receipt is durable and lies in out/; after a crash it is taken again and gets the same receipt.
"""

import asyncio
import errno
import itertools
import logging
import os
import secrets
import shutil
import stat
import time
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

import msgspec

from connectors.transports.package import SUFFIX, head_of, take_apart
from exchange.bus import Bus
from exchange.database import FAILURES
from exchange.faults import durable_step
from exchange.intake import receive, turn_away
from exchange.journal import InboxRow
from exchange.opened import refusal_to_signer
from exchange.small_file import write_whole
from security.errors import FOR_NOW, AuditBroken, Refusal, Unavailable, places
from security.message import FOLDER, Delivery, file_content

log = logging.getLogger("yongtong.door")

DOOR: Final = "folder"
IN, OUT, REFUSED = "in", "out", "refused"
LOOK_S: Final = 1.0
MOST_AT_A_LOOK: Final = 1_000
# While nobody wrote to a file, by our own clock: after the first it is looked at, for a gateway may set its length
# before it writes; what has not come whole after the second was cut short.
SETTLE_S, STILL_S = 5.0, 600.0
FIRST_WAIT_S, MOST_WAIT_S = 2.0, 300.0  # before one is tried again that could not be taken now
MOST_OF_A_NAME: Final = 10_000  # refused packages of one name
Kind = Literal["receipt", "report", "refusal"]
_Same = tuple[int, int, int]


def make_folders(folder: Path) -> None:
    """Make the door's folders where they do not stand. Raises OSError."""
    for name in (IN, OUT, REFUSED):
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
    own = folder / OUT / bureau
    own.mkdir(exist_ok=True)
    write_whole(own / f"{message_id}.{kind}.json", document)
    if kind == "receipt":  # what was wrong with it is mended
        (own / f"{message_id}.refusal.json").unlink(missing_ok=True)


class _Laid(msgspec.Struct, frozen=True):
    """A file in `in/`, and by what it is known to be the same still: number, octets and time of change."""

    path: Path
    same: _Same


class _Waiting(msgspec.Struct, frozen=True):
    """A package that could not be taken now. until_s: time.monotonic(); wait_s: how long it waits this time."""

    until_s: float
    wait_s: float


class _Entered(msgspec.Struct, frozen=True):
    """A refusal that stands in the audit, of a package that is still to be put aside.

    heard: as the signer may hear it; precise: what a stranger does not hear; envelope: empty where there was none
    """

    heard: Refusal
    precise: Refusal
    envelope: bytes


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
        self._seen_s: dict[_Same, float] = {}  # since when a file has been as it is, by our own clock
        self._later: dict[_Same, _Waiting] = {}
        self._entered: dict[_Same, _Entered] = {}

    async def run(self) -> None:
        """Take what lies there, look again, until it is cancelled."""
        while True:
            try:
                await self._look()
            except OSError as problem:  # the folder is away
                log.warning("packages.not_looked_at reason=%s", problem)
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> None:
        laid, now_s = await asyncio.to_thread(self._listed), time.monotonic()
        there = {one.same for one in laid}
        self._seen_s = {same: self._seen_s.get(same, now_s) for same in there}
        self._later = {same: waiting for same, waiting in self._later.items() if same in there}
        self._entered = {same: entered for same, entered in self._entered.items() if same in there}
        ready = (one for one in laid if self._is_ready(one, now_s))
        for one in itertools.islice(ready, MOST_AT_A_LOOK):
            await self._take(one)

    def _is_ready(self, laid: _Laid, now_s: float) -> bool:
        """Whether nobody has written to it for a while, and it does not wait."""
        waiting = self._later.get(laid.same)
        return now_s - self._seen_s[laid.same] >= SETTLE_S and (waiting is None or waiting.until_s <= now_s)

    def _listed(self) -> list[_Laid]:
        """The packages, the oldest first. What is no plain file, or is named otherwise, is not ours to touch."""
        known = []
        with os.scandir(self._folder / IN) as found:
            for one in found:
                if one.name.endswith(SUFFIX) and one.is_file(follow_symlinks=False):
                    with suppress(FileNotFoundError):
                        known.append((one.stat(follow_symlinks=False), one))
        known.sort(key=lambda pair: (pair[0].st_mtime_ns, os.fsencode(pair[1].name)))
        return [_Laid(Path(one.path), _same(status)) for status, one in known]

    async def _take(self, laid: _Laid) -> None:
        try:
            await self._taken(laid)
        except (Unavailable, AuditBroken) as problem:
            log.warning("door.unavailable service=packages reason=%s", problem)
            self._wait(laid)
        except (OSError, *FAILURES) as problem:  # a disk or file of ours, or of the gateway's
            log.warning("door.unavailable service=packages at=%s", places(problem))
            self._wait(laid)
        except Exception as problem:  # the outermost loop: one bad package must not keep the others from coming
            log.error("door.failed service=packages reference=%s at=%s", secrets.token_hex(4), places(problem))
            self._wait(laid)

    async def _taken(self, laid: _Laid) -> None:
        """One package until it is gone from in/, or waits there."""
        entered = self._entered.get(laid.same)
        if entered is not None:
            await self._aside(laid, entered)
            return
        copy, envelope = self._spool / f"package-{secrets.token_hex(8)}", b""
        try:
            if not await asyncio.to_thread(self._copied, laid, copy):
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
        finally:
            copy.unlink(missing_ok=True)

    def _copied(self, laid: _Laid, copy: Path) -> bool:
        """Make a copy that nobody else writes to, of a package that has come whole; False while it has not.

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
                if time.monotonic() - self._seen_s[laid.same] >= STILL_S:
                    raise Refusal("package.length", f"cut short at {status.st_size} octets")
                return False
            if status.st_size > head.whole:
                raise Refusal("package.length", f"{status.st_size} octets, {head.whole} were to come")
            file.seek(0)
            with copy.open("xb") as written:
                shutil.copyfileobj(file, written, 1 << 20)
            return _same(os.fstat(descriptor)) == laid.same  # else somebody wrote to it while it was read

    async def _refused(self, refusal: Refusal, laid: _Laid, envelope: bytes) -> None:
        """Enter it, and put the package aside; but what may be taken later waits where it is."""
        if refusal.code in FOR_NOW:
            self._wait(laid)
            return
        precise = refusal
        if not envelope:  # it never became a delivery
            refusal = await turn_away(refusal, DOOR, None, self._by, self._bus)
        elif isinstance(refusal.__cause__, Refusal):
            precise = refusal.__cause__  # for the operator's own eyes, in refused/
        log.info("door.refused reference=%s code=%s remote=%s", refusal.reference, refusal.code, self._by)
        self._entered[laid.same] = _Entered(refusal, precise, envelope)
        await self._aside(laid, self._entered[laid.same])

    async def _aside(self, laid: _Laid, entered: _Entered) -> None:
        """Tell the signer, then move the package to where a person finds it. What fails is tried again, not entered."""
        told = refusal_to_signer(entered.heard, entered.envelope, self._bus) if entered.envelope else None
        if told is not None:
            signed, bureau, answer = told
            await asyncio.to_thread(_lay_out, self._folder, bureau, signed.message_id, "refusal", answer)
        await asyncio.to_thread(self._put_aside, laid, entered)
        # Laid in again it is looked at again.
        self._entered.pop(laid.same, None)
        self._later.pop(laid.same, None)

    def _put_aside(self, laid: _Laid, entered: _Entered) -> None:
        """Move a package to refused/, beside it what was wrong; what was refused there before is not written over."""
        if _same(laid.path.lstat()) != laid.same:
            return  # another lies there by now
        aside, stem = self._folder / REFUSED, _shown(laid.path.stem)
        names = (f"{stem}{SUFFIX}", *(f"{stem}.{number}{SUFFIX}" for number in range(2, MOST_OF_A_NAME)))
        target = next((path for path in map(aside.joinpath, names) if not path.exists()), None)
        if target is None:
            raise OSError(f"{aside}: {MOST_OF_A_NAME} packages of one name")
        said = {
            "package": target.name,
            "at": self._bus.clock(),
            "code": entered.precise.code,
            "detail": entered.precise.detail,
            "sentence": entered.precise.sentence,
            "reference": entered.heard.reference or entered.heard.detail,
        }
        write_whole(aside / f"{target.name}.json", msgspec.json.format(msgspec.json.encode(said), indent=2) + b"\n")
        try:
            laid.path.rename(target)
        except OSError as problem:
            if problem.errno != errno.EXDEV:
                raise
            coming = target.with_suffix(".part")  # `in/` is another disk, the gateway's
            shutil.copyfile(laid.path, coming)
            with coming.open("rb+") as file:
                os.fsync(file.fileno())
            coming.rename(target)
            laid.path.unlink()

    def _wait(self, laid: _Laid) -> None:
        before = self._later.get(laid.same)
        wait_s = min(before.wait_s * 2, MOST_WAIT_S) if before else FIRST_WAIT_S
        self._later[laid.same] = _Waiting(time.monotonic() + wait_s, wait_s)


def _shown(stem: str) -> str:
    """A file's name as it may stand in another and in JSON, whatever its octets are: at most some 150 of UTF-8."""
    shown = os.fsencode(stem).decode("utf-8", "backslashreplace")
    return shown.encode()[:150].decode("utf-8", "ignore")


def _same(status: os.stat_result) -> _Same:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _remove(laid: _Laid) -> None:
    """Remove a package that was taken, unless another lies there by now."""
    with suppress(FileNotFoundError):
        if _same(laid.path.lstat()) == laid.same:
            laid.path.unlink()
