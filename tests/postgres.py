"""A PostgreSQL server of the tests' own, on a free port, from Debian's binaries; it may be killed and started again."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import psycopg
import pytest

_FASTER = {"autovacuum": "off", "shared_buffers": "64MB", "max_connections": "200"}


def _binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        pytest.skip("server:postgresql (make servers)")
    return found[-1].parent


class PostgresServer:
    """One server with its data in a folder of its own. The programs refuse to run as root, so root runs them as
    `postgres`, to whom pytest's private folders are closed."""

    def __init__(self, *also_at: str, settings: Mapping[str, str] = _FASTER) -> None:
        """also_at: further addresses of this machine's at which it listens, to those of their network; settings: of the
        server; none of ours makes a commit less durable"""
        self._settings = settings
        self._bin, folder = _binaries(), Path(tempfile.mkdtemp(prefix="yongtong-postgres-"))
        self._data, self._made = folder / "data", 0
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(folder, self._user)
        self._run("initdb", "-D", str(self._data), "-U", "yongtong", "-A", "trust", "-E", "UTF8", "--no-locale", "-N")
        with (self._data / "pg_hba.conf").open("a") as trusted:
            trusted.writelines(f"host all all {address}/24 trust\n" for address in also_at)
        self._at = ",".join(["127.0.0.1", *also_at])
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start, and return once it answers."""
        said = [f"-c{name}={value}" for name, value in self._settings.items()] + [f"-clisten_addresses={self._at}"]
        command = [
            str(self._bin / "postgres"),
            "-D",
            str(self._data),
            "-p",
            str(self.port),
            "-k",
            str(self._data),
            *said,
        ]
        self._process = subprocess.Popen(
            command, user=self._user, stdout=subprocess.DEVNULL, stderr=(self._data.parent / "log").open("ab")
        )
        until = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                assert self._process.poll() is None, (self._data.parent / "log").read_text()[-2000:]
                assert time.monotonic() < until, "the server does not answer"
                time.sleep(0.05)

    def kill(self) -> None:
        """As by a power cut: the server and all its children at once."""
        assert self._process is not None
        children = subprocess.run(
            ["pgrep", "-P", str(self._process.pid)], capture_output=True, text=True
        ).stdout.split()
        for process in (self._process.pid, *map(int, children)):
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait()
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    def stop(self) -> None:
        """At once, for good, and take its folder away."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(20)
        shutil.rmtree(self._data.parent)

    def database(self) -> str:
        """A new and empty database; gives its URL."""
        self._made += 1
        name = f"bus{self._made}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")  # type: ignore[arg-type]
        return self.url(name)

    def url(self, database: str, host: str = "127.0.0.1") -> str:
        """How a database of this server is named in settings."""
        return f"postgresql://yongtong@{host}:{self.port}/{database}"

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._bin / program), *arguments],
            user=self._user,
            check=True,
            capture_output=True,
            cwd=self._data.parent,
        )
