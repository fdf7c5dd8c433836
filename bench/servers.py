"""Servers for the time of a measurement: started on a free port, waited for, ended by their own process id."""

import contextlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from security import keys, pki

START_S = 60.0


def free_port() -> int:
    """A TCP port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serving(command: Sequence[str], port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server's process while it listens on the port; what it says goes to the log."""
    with log.open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
    try:
        _wait(process, port)
        yield process
    except RuntimeError as problem:
        problem.add_note(f"{log}:\n{log.read_text()[-4000:]}")  # the folder is gone when the reader wants to look
        raise
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    ends_s = time.monotonic() + START_S
    while time.monotonic() < ends_s and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise RuntimeError(f"{process.args!r} does not listen on {port}")


def make_tls(folder: Path) -> None:
    """A CA with one server's and one client's certificate: ca.pem, server.pem, server.key, client.pem, client.key."""
    now = datetime.now(UTC)
    folder.mkdir(parents=True, exist_ok=True)
    ca = pki.make_ca("bench CA", now)
    (folder / "ca.pem").write_bytes(pki.pem_of(ca.certificate_der))
    for name in ("server", "client"):
        key = keys.generate("ES256")
        der = pki.issue(
            ca, name, key.public_key, "connection", now - timedelta(1), now + timedelta(2), ["localhost", "127.0.0.1"]
        )
        (folder / f"{name}.pem").write_bytes(pki.pem_of(der))
        (folder / f"{name}.key").write_bytes(key.pem())


@contextlib.contextmanager
def peer(folder: Path) -> Iterator[int]:
    """The bare endpoint of `bench.peer` on a free port, with TLS of the folder (`make_tls`)."""
    port = free_port()
    with serving([sys.executable, "-m", "bench.peer", str(folder), str(port)], port, folder / "peer.log"):
        yield port


def fresh(folder: Path) -> Path:
    """The folder, empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
