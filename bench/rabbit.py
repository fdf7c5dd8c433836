"""A private RabbitMQ for a while: Debian's, under this account, its node, folders and ports its own, on loopback."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from bench.servers import free_port
from exchange.app import places
from security import keys, pki

LIBRARY: Final = Path("/usr/lib/rabbitmq/lib")
USER, PASSWORD, VHOST = "yongtong", "keeps-nothing-that-matters", "yongtong"
START_S: Final = 90.0
RIGHTS: Final = {  # as docs/queues.md says them
    "configure": r"^yongtong\.",
    "write": r"^(yongtong\.|amq\.default$)",
    "read": r"^yongtong\.",
}


def server() -> Path | None:
    """Debian's start script; None where RabbitMQ is not installed."""
    found = sorted(LIBRARY.glob("rabbitmq_server-*/sbin/rabbitmq-server"))
    return found[-1] if found and shutil.which("epmd") else None


AVAILABLE: Final = server() is not None


class Rabbit:
    """Its files in a folder. Start it, kill it, stop it still, and start it again: what its queues hold is on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self.tls_port = folder, free_port(), free_port()
        self._mapper_port, self._node_port = free_port(), free_port()
        self._mapper: subprocess.Popen[bytes] | None = None
        self._node: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True)
        (folder / "plugins").write_text("[].")
        (folder / "none").touch()
        users = [{"name": USER, "password": PASSWORD, "tags": []}, {"name": "nobody", "password": PASSWORD, "tags": []}]
        rights = [{"user": USER, "vhost": VHOST, **RIGHTS}]
        definitions = {"users": users, "vhosts": [{"name": VHOST}, {"name": "other"}], "permissions": rights}
        (folder / "definitions.json").write_text(json.dumps(definitions))
        (folder / "password").write_text(PASSWORD + "\n")
        (folder / "password").chmod(0o600)
        self._configure([])

    @property
    def url(self) -> str:
        """Where it listens without TLS."""
        return f"amqp://{USER}@127.0.0.1:{self.port}/{VHOST}"

    @property
    def tls_url(self) -> str:
        """Where it listens with TLS, in whose certificate `ca.pem` in its folder ends."""
        return f"amqps://{USER}@localhost:{self.tls_port}/{VHOST}"

    @property
    def runs(self) -> bool:
        """Whether its process is there."""
        return self._node is not None and self._node.poll() is None

    def certify(self, ca: pki.Authority) -> None:
        """Give it a certificate for `localhost` alone, of the CA that the bus trusts."""
        now, key = places.utc_now(), keys.generate("ES256")
        der = pki.issue(ca, "queue", key.public_key, "connection", now - timedelta(1), now + timedelta(30),
                        ["localhost"])  # fmt: skip
        (self.folder / "ca.pem").write_bytes(pki.pem_of(ca.certificate_der))
        (self.folder / "queue.pem").write_bytes(pki.pem_of(der))
        (self.folder / "queue.key").write_bytes(key.pem())
        options = {"cacertfile": "ca.pem", "certfile": "queue.pem", "keyfile": "queue.key"}
        lines = [f"listeners.ssl.1 = 127.0.0.1:{self.tls_port}", "ssl_options.verify = verify_none"]
        self._configure([*lines, *(f"ssl_options.{name} = {self.folder / file}" for name, file in options.items())])

    def start(self) -> None:
        """Return once it takes connections, some seconds later."""
        environment = {**os.environ, **self._environment()}
        with (self.folder / "said.log").open("ab") as said:
            if self._mapper is None:  # its own process, that is ended with the rest; left to itself it stays for ever
                command = ["epmd", "-port", str(self._mapper_port), "-address", "127.0.0.1"]
                self._mapper = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
            self._node = subprocess.Popen(
                [str(server())], env=environment, stdout=said, stderr=said, start_new_session=True
            )
        self._wait()

    def signal(self, number: signal.Signals) -> None:
        """To the whole node: SIGKILL as a power cut does, SIGSTOP and SIGCONT for one that hangs."""
        assert self._node is not None
        os.killpg(self._node.pid, number)
        if number == signal.SIGKILL:
            self._node.wait()
            while self._listens():  # of a process of many threads the last may outlive its shell
                time.sleep(0.02)
        while number == signal.SIGSTOP and not all(map(_stands_still, self._processes())):
            time.sleep(0.02)

    def _processes(self) -> list[str]:
        """What /proc says of each process of the node's group."""
        found = []
        for each in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                said = each.read_text().rpartition(")")[2].split()
                found += [said[0]] if self._node is not None and said[2] == str(self._node.pid) else []
        return found

    def end(self) -> None:
        """End all of it."""
        if self._node is not None:
            with contextlib.suppress(ProcessLookupError):
                self.signal(signal.SIGKILL)
        if self._mapper is not None:
            self._mapper.kill()
            self._mapper.wait()

    def _configure(self, more: Sequence[str]) -> None:
        lines = [f"listeners.tcp.1 = 127.0.0.1:{self.port}", f"load_definitions = {self.folder / 'definitions.json'}"]
        (self.folder / "rabbitmq.conf").write_text("\n".join([*lines, "log.console = false", *more, ""]))

    def _environment(self) -> dict[str, str]:
        at = self.folder
        return {
            "HOME": str(at),  # where its cookie lies
            "RABBITMQ_NODENAME": f"yt-{self.port}@localhost",
            "RABBITMQ_CONF_ENV_FILE": str(at / "none"),
            "RABBITMQ_CONFIG_FILE": str(at / "rabbitmq"),
            "RABBITMQ_MNESIA_BASE": str(at / "data"),
            "RABBITMQ_LOG_BASE": str(at / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(at / "plugins"),
            "RABBITMQ_PID_FILE": str(at / "pid"),
            "RABBITMQ_DIST_PORT": str(self._node_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none",
            "ERL_EPMD_PORT": str(self._mapper_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def _wait(self) -> None:
        ends_s = time.monotonic() + START_S
        while time.monotonic() < ends_s and self._node is not None and self._node.poll() is None:
            if self._listens():
                return
            time.sleep(0.1)
        raise RuntimeError(f"RabbitMQ does not listen:\n{(self.folder / 'said.log').read_text()[-4000:]}")


def _stands_still(state: str) -> bool:
    return state in "TZ"


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Rabbit]:
    """One that runs, while the block does."""
    rabbit = Rabbit(folder)
    rabbit.certify(pki.make_ca("queue CA", places.utc_now()))
    try:
        rabbit.start()
        yield rabbit
    finally:
        rabbit.end()
