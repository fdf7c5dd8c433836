"""What runs beside the doors: watches, duties that one process does for all, sweeps."""

import asyncio
import logging
import secrets
import threading
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from typing import Final

from connectors.transports.fetch import fetch
from exchange.app import keys_in_force, levels, places, trusted, working
from exchange.attestations import Attestations
from exchange.bus import Bus
from exchange.certificate_watch import CertificateWatch
from exchange.clock_watch import ClockWatch
from exchange.database import FAILURES, Database
from exchange.journal import Journal
from exchange.revocation import Revocations
from exchange.settings import Settings
from exchange.timestamp_watch import Authorities, TimestampWatch
from security.errors import ExchangeError, Refusal
from security.errors import places as places_of

log = logging.getLogger("yongtong.app")

EVIDENCE_WAITS: Final = timedelta(hours=1)  # what a crash left without an inbox row is swept later
SWEPT_S: Final = 1.0
SWEEP_EVERY_S: Final = 86_400.0
STOP_WATCH_S: Final = 2.0
DUTY_LOOK_S: Final = 1.0


def watching(run: Callable[[threading.Event], None], name: str) -> Callable[[], None]:
    """Start a thread that asks others' servers; gives what ends it."""
    stopping = threading.Event()
    thread = threading.Thread(target=run, args=(stopping,), name=name, daemon=True)
    thread.start()

    def stop() -> None:
        stopping.set()
        thread.join(STOP_WATCH_S)  # it may be waiting for somebody's server, and has nothing that could be lost

    return stop


def on_duty(database: Database, task: str, run: Callable[[threading.Event], None], stopping: threading.Event) -> None:
    """Run a task that one process does for all, once it is this one's."""
    while not stopping.is_set():
        try:
            with database.duty(task) as ours:
                if ours:
                    run(stopping)
        except FAILURES as problem:  # the server is away; whoever sees it first goes on
            log.warning("duty.lost task=%s reason=%s", task, problem)
        stopping.wait(DUTY_LOOK_S)


async def on_loop(database: Database, task: str, run: Callable[[], Awaitable[None]]) -> None:
    """The same of a task on the event loop, until it is cancelled; what another process had begun is gone on with."""
    while True:
        try:
            async with AsyncExitStack() as stack:
                duty = database.duty(task)
                ours = await asyncio.to_thread(duty.__enter__)
                stack.push_async_callback(asyncio.to_thread, duty.__exit__, None, None, None)
                if ours:
                    await run()
        except FAILURES as problem:  # the server is away; whoever sees it first goes on
            log.warning("duty.lost task=%s reason=%s", task, problem)
        except Exception as problem:  # the outermost loop: what trips it once must not end it unsaid
            log.error("duty.failed task=%s at=%s", task, places_of(problem))
        await asyncio.sleep(DUTY_LOOK_S)


def start(bus: Bus, task: str, run: Callable[[threading.Event], None]) -> Callable[[], None]:
    """Start a thread that runs such a task; gives what ends it."""
    return watching(partial(on_duty, bus.journal.database, task, run), task)


def watch_certificates(settings: Settings, bus: Bus, revocations: Revocations, clock: ClockWatch) -> Callable[[], None]:
    """Start asking authorities and looking at the days that certificates have left; gives what ends it."""
    watch = CertificateWatch(
        revocations,
        bus.registry.certificates,
        keys_in_force.own_certificates(settings),
        partial(fetch, heard=clock.heard),
        lambda: secrets.token_bytes(16),
        bus.clock,
    )
    return watching(watch.run, "certificates")


def watch_timestamps(settings: Settings, bus: Bus, clock: ClockWatch) -> Callable[[], None]:
    """Start having the log's heads stamped, where the settings name who does; gives what ends it."""
    if bus.coverage is None:
        return lambda: None
    said, attestations = settings.timestamps, Attestations(bus.journal.database)
    authorities = Authorities(said.urls, trusted.timestamp_roots(settings), timedelta(seconds=said.every_s))
    asked = partial(fetch, heard=clock.heard)
    watch = TimestampWatch(bus.journal, attestations, bus.coverage, authorities, asked, bus.clock)
    ended = start(bus, "timestamps", watch.run)

    def stop() -> None:
        ended()
        attestations.close()

    return stop


def cascading(settings: Settings, bus: Bus, keeper: working.WorkerKeeper | None) -> list[Callable[[], None]]:
    """Start what a district's node has to do with its city's: up what happened, down what to place by; what ends it."""
    said, started = settings.cascade, []
    if said.city:
        up = partial(levels.open_cascade(settings, bus).run, every_s=said.every_s)
        started.append(start(bus, "cascade", up))
    if said.reference:
        started.append(watching(partial(_fetch_references, settings, bus.journal, keeper), "cascade down"))
    return started


def _fetch_references(
    settings: Settings, journal: Journal, keeper: working.WorkerKeeper | None, stop: threading.Event
) -> None:
    """Look for newer reference data on a rhythm; the worker begins anew with it, after its batch."""
    while not stop.is_set():
        try:
            listed = levels.fetch_reference(settings, journal)
            if listed is not None:
                log.info("reference.adopted version=%s", listed.version)
                if keeper is not None:
                    keeper.renew()
        except ExchangeError as problem:
            code = problem.code if isinstance(problem, Refusal) else type(problem).__name__
            log.warning("reference.not_adopted reason=%s", code)
        except Exception as problem:  # the outermost loop: what trips one look must not end all later ones
            log.error("reference.failed at=%s", places_of(problem))
        stop.wait(settings.cascade.every_s)


def look_after_evidence(bus: Bus) -> Callable[[], None]:
    """Sweep what a crash or a store that was away left, now and every day, and say where erasing would not erase;
    gives what ends it. The doors wait a moment for the first time and no longer: a long list goes on beside them."""
    looked = threading.Event()

    def say_copies() -> None:
        if kept := bus.evidence.keeps_copies():
            log.warning("evidence.copies_kept by=%s; what is erased goes on lying there", kept)

    def sweep() -> None:
        bus.evidence.sweep(bus.journal.evidence_files(), places.utc_now() - EVIDENCE_WAITS)

    def run(stopping: threading.Event) -> None:
        while True:
            for look in (say_copies, sweep):
                try:
                    look()
                except (OSError, *FAILURES) as problem:  # tomorrow again
                    log.warning("evidence.not_looked_after by=%s reason=%s", look.__name__, problem)
            looked.set()
            if stopping.wait(SWEEP_EVERY_S):
                return

    ended = watching(run, "evidence sweep")
    looked.wait(SWEPT_S)
    return ended
