"""A private Mosquitto for a while: Debian's, with the configuration of docs/mosquitto, on a free port."""

import contextlib
import getpass
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from bench.servers import free_port, serving
from exchange.app import places
from exchange.cli.trial import ORIGIN
from exchange.key_places import DEMO
from security import keys, pki

DOCS: Final = Path(__file__).parents[1] / "docs" / "mosquitto"
AVAILABLE: Final = shutil.which("mosquitto") is not None or Path("/usr/sbin/mosquitto").exists()


class Mosquitto:
    """Its files in a folder. feeds: those that each bureau may publish to."""

    def __init__(self, folder: Path, feeds: Mapping[str, Sequence[str]]) -> None:
        self.folder, self.port = folder, free_port()
        folder.mkdir(parents=True)
        conf = (DOCS / "mosquitto.conf").read_text(encoding="utf-8")
        for standing, here in (
            ("listener 8883", f"user {getpass.getuser()}\nlistener {self.port} 127.0.0.1"),
            ("/etc/mosquitto/yongtong.acl", str(folder / "yongtong.acl")),
            ("/etc/yongtong/", f"{folder}/"),
            ("/var/lib/mosquitto/", f"{folder}/"),
        ):
            if standing not in conf:
                raise RuntimeError(f"docs/mosquitto/mosquitto.conf says no more {standing!r}")
            conf = conf.replace(standing, here)
        (folder / "mosquitto.conf").write_text(conf, encoding="utf-8")
        (folder / "yongtong.acl").write_text(_rights(feeds), encoding="utf-8")

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"mqtts://localhost:{self.port}"

    def certify(self, ca: pki.Authority) -> None:
        """Give it a certificate of the CA that bureaus and bus trust."""
        now, key = places.utc_now(), keys.generate("ES256")
        names = ["localhost", "127.0.0.1"]
        der = pki.issue(ca, "broker", key.public_key, "connection", now - timedelta(1), now + timedelta(30), names)
        (self.folder / "ca.pem").write_bytes(pki.pem_of(ca.certificate_der))
        (self.folder / "broker.pem").write_bytes(pki.pem_of(der))
        (self.folder / "broker.key").write_bytes(key.pem())

    @contextlib.contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """Its process, while the block runs."""
        command = [shutil.which("mosquitto") or "/usr/sbin/mosquitto", "-c", str(self.folder / "mosquitto.conf")]
        with serving(command, self.port, self.folder / "mosquitto.log") as process:
            yield process


def _rights(feeds: Mapping[str, Sequence[str]]) -> str:
    """The rights file of docs/mosquitto with these bureaus in place of its own."""
    head, _, rest = (DOCS / "yongtong.acl").read_text(encoding="utf-8").partition("# Each bureau publishes")
    tail = rest[rest.index("# Each bureau hears") :]
    blocks = [
        "\n".join([f"user {bureau}", *(f"topic write yt/v1/feeds/{feed}/in" for feed in theirs), ""])
        for bureau, theirs in feeds.items()
    ]
    account = f"{ORIGIN} {DEMO} tls"  # the common name of a demonstration's TLS certificate
    return "\n".join([head.replace("yongtong.ningbo.example tls", account), *blocks, tail])
