"""Opening the doors."""

import asyncio
import signal
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from datetime import timedelta
from functools import partial
from time import monotonic

import msgspec
from starlette.applications import Starlette

from exchange.account_watch import AccountWatch
from exchange.app import (
    changing,
    duties,
    keys_in_force,
    levels,
    opening,
    over_folder,
    over_mqtt,
    places,
    telling,
    trusted,
    working,
)
from exchange.bus import Bus
from exchange.clock_watch import ClockWatch
from exchange.due import feeds_to_do
from exchange.http import server
from exchange.http.app import make_app
from exchange.intake import remember_reads
from exchange.known_heads import HeadsOut
from exchange.replaying import Replayer
from exchange.settings import Settings
from exchange.tally import Tally
from scheduler.celery_app import make_celery
from scheduler.jobs import Announcer
from scheduler.queues import open_queue

# Started beside the doors once they have all they need, and ended by what it gives; the watch over the bus is one.
Beside = Callable[[Bus, Tally, ClockWatch], Callable[[], None]]


def serve(
    settings: Settings,
    listening: socket.socket,
    mqtt_listening: socket.socket | None,
    *,
    with_worker: bool,
    ready: Callable[[], None],
    beside: Beside = lambda *_: lambda: None,
) -> None:
    """Open the doors until SIGTERM or SIGINT; with_worker also keeps one worker process alive beside them.

    mqtt_listening: for the embedded broker, None where there is none
    beside:         started with them
    """
    with ExitStack() as stack:
        shared = places.journal_database(settings).shared
        lock = places.alone(
            places.state_of(settings) / "serve.lock", stack, "another serve runs on this state folder", shared=shared
        )
        if mqtt_listening is not None:  # for `doctor`, which would look at the port in the settings otherwise
            print(*mqtt_listening.getsockname()[:2], file=lock, flush=True)
        queue = working.queue_of(settings)
        over_mqtt.check_sharing(settings)
        places.packages_folder(settings)
        woken = threading.Event()
        revocations = trusted.open_revocations(settings)
        bus = opening.open_bus(settings, woken.set, revocations, attended=False)
        # Closed last: what is signed while the bus closes went out, too.
        stack.callback(HeadsOut(bus.journal.database, bus.journal.log_name(), places.heads_folder(settings)).close)
        stack.callback(bus.close)
        bus.journal.resume()
        reference = levels.HandedDown(settings, bus.answer_key, bus.boundaries)
        bus = msgspec.structs.replace(bus, anchors=changing.keep_anchors(settings, bus.registry), reference=reference)
        remember_reads(bus)
        bus.uploads.sweep(places.utc_now())
        stack.callback(duties.look_after_evidence(bus))
        announcer = Announcer(
            open_queue(make_celery(queue), queue), partial(feeds_to_do, bus), woken, settings.worker.sweep_s
        )
        stack.callback(announcer.stop)
        keeper = working.WorkerKeeper(settings.source) if with_worker else None
        if keeper is not None:
            stack.callback(keeper.stop)
        for stop in duties.cascading(settings, bus, keeper):
            stack.callback(stop)
        tally = Tally(bus.journal, bus.folder / "tally.json", bus.feeds, places.utc_now())
        clock = ClockWatch(bus.clock, monotonic, timedelta(seconds=settings.alarms.clock_s))
        stack.callback(duties.watch_certificates(settings, bus, revocations, clock))
        stack.callback(duties.watch_timestamps(settings, bus, clock))
        stack.callback(beside(bus, tally, clock))
        stack.callback(duties.start(bus, "accounts", AccountWatch(bus.journal, bus.store, bus.clock).run))
        stack.callback(duties.start(bus, "replays", Replayer(bus).run))
        tls = keys_in_force.server_tls(settings)
        app = make_app(bus, bus.folder / "spool", telling.scrapes(settings, bus, tally))

        async def others(doors: AsyncExitStack) -> None:
            await over_mqtt.open_door(settings, bus, mqtt_listening, doors)
            await over_folder.open_door(settings, bus, doors)

        asyncio.run(_doors(app, listening, tls, ready, others))


async def _doors(
    app: Starlette,
    listening: socket.socket,
    tls: ssl.SSLContext,
    ready: Callable[[], None],
    others: Callable[[AsyncExitStack], Awaitable[None]],
) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        await others(stack)
        await server.serve(app, listening, tls, stop, ready)
