"""The HTTPS server: a listening socket of our own, uvicorn on it, started and stopped as the story asks."""

import asyncio
import errno
import resource
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any, Final, cast

import uvicorn
from starlette.types import ASGIApp

from exchange.http.tls import Protocol
from security.errors import Misconfigured

BACKLOG: Final = 1024
MAX_CONNECTIONS: Final = 1024
KEEP_ALIVE_SECONDS: Final = 75
HANDSHAKE_SECONDS: Final = 10.0  # asyncio would wait a minute for a client that only connects
OPEN_FILES: Final = 16_384  # many systems start with 1,024: connections that say nothing would use them up


def listen(host: str, port: int, option: str = "--https-port") -> socket.socket:
    """A listening TCP socket on host and port (0: any free one).

    Made here because asyncio sets TCP_NODELAY only on sockets whose protocol says IPPROTO_TCP, and an accepted
    socket inherits what the listening one says. Raises Misconfigured with one plain line naming the option.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except (OSError, OverflowError) as problem:
        listening.close()
        taken = isinstance(problem, OSError) and problem.errno == errno.EADDRINUSE
        why = "is taken" if taken else f"cannot be opened ({getattr(problem, 'strerror', None) or problem})"
        raise Misconfigured("config.port", f"port {port} on {host} {why}; choose another with {option}") from problem
    return listening


class Server(uvicorn.Server):
    """uvicorn on our socket. Signals are left to the process; `should_exit = True` stops it, answers first."""

    def __init__(self, app: ASGIApp, tls: ssl.SSLContext | None) -> None:
        config = uvicorn.Config(
            app,
            http=Protocol,
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,  # no header of a stranger decides who or where he is
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=10,
        )
        config.load()
        config.ssl = tls
        super().__init__(config)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen on the sockets. As uvicorn does it, but that a handshake has its time."""
        loop, config = asyncio.get_running_loop(), self.config
        make: Callable[[], Any] = partial(
            cast("Any", config.http_protocol_class),
            config=config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        handshake_s = HANDSHAKE_SECONDS if config.ssl else None
        self.servers = [
            await loop.create_server(
                make, sock=each, ssl=config.ssl, ssl_handshake_timeout=handshake_s, backlog=BACKLOG
            )
            for each in sockets or ()
        ]
        self.started = True


async def serve(
    app: ASGIApp, listening: socket.socket, tls: ssl.SSLContext, stop: asyncio.Event, ready: Callable[[], None]
) -> None:
    """Serve app on the socket until `stop` is set; `ready` is called once the doors are open.

    Requests under way are answered first. The caller keeps the signals.
    """
    _allow_open_files()
    server = Server(app, tls)
    running = asyncio.create_task(server._serve(sockets=[listening]))  # serve() would take the process's signals
    stopping = asyncio.create_task(stop.wait())
    while not server.started and not running.done():
        await asyncio.sleep(0.01)
    if server.started:
        ready()
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    stopping.cancel()
    await running


def _allow_open_files() -> None:
    """As many open files as are needed, or as many as this process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
