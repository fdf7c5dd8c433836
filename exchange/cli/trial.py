"""A whole bus of one's own for a while: fresh state, real processes, a free port. The demo and tests use it."""

import json
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from connectors.partner.mqtt import MqttPartner
from connectors.partner.partner import Partner
from exchange.app import making, places
from exchange.cli.bureaus import make_partner
from exchange.cli.partner import open_mqtt_partner, open_partner
from exchange.cli.people import OPERATOR, PEOPLE, registry
from exchange.registry import Bureau, Officer
from exchange.settings import Settings, load_settings
from security.errors import Misconfigured
from security.keys import generate
from security.message import EVERYWHERE, Action, Area, EnrolledCertificate

ORIGIN = "yongtong.demo.invalid"
# Two security officers, a system administrator, an audit officer; their keys last as long as this process.
PROPOSER, APPROVER = Officer("示范员甲", generate("ES256")), Officer("示范员乙", generate("ES256"))
SYSTEM, AUDITOR = Officer("示范系统员", generate("ES256")), Officer("示范审计员", generate("ES256"))
FOUNDERS: Final[tuple[making.Founder, ...]] = (
    (PROPOSER, "security", OPERATOR),
    (APPROVER, "security", OPERATOR),
    (SYSTEM, "system", OPERATOR),
    (AUDITOR, "audit", OPERATOR),
)
STOP_S = 30.0


class City(msgspec.Struct, frozen=True):
    """Where a trial plays. districts, grid: GeoJSON files; feeds: folders of feed files; extent in degrees."""

    extent: tuple[float, float, float, float]
    districts: Path
    grid: Path
    feeds: tuple[Path, ...]


class Trial:
    """A bus in `folder`, made anew, with bureaus' own folders under `partners/`. `start` and `stop` its processes."""

    def __init__(
        self,
        folder: Path,
        city: City,
        *,
        edition: str = "2007",
        worker: dict[str, Any] | None = None,
        mqtt: dict[str, Any] | None = None,
        suites: dict[str, Any] | None = None,
        keys: dict[str, Any] | None = None,
        evidence: dict[str, Any] | None = None,
        state: dict[str, Any] | None = None,
        origin: str = ORIGIN,
        also: dict[str, dict[str, Any]] | None = None,
    ) -> None:
        """also: further tables of the settings, or further keys of those that there are."""
        self.folder = folder
        more = {
            "keys": {"folder": "keys", **(keys or {})},
            "worker": worker or {},
            "mqtt": {"port": 0, **(mqtt or {})},
            "suites": suites or {},
            "evidence": evidence or {},
            "state": {"folder": "state", **(state or {})},
        }
        document = _document(city, edition, origin, more)
        for name, table in (also or {}).items():
            document[name] = {**document.get(name, {}), **table}
        self.settings = _write_settings(folder, city, document)
        making.initialise(self.settings, edition, FOUNDERS, places.utc_now(), demo=True)
        people = self.settings.at(PEOPLE)
        people.mkdir(mode=0o700)
        for officer, _, _ in FOUNDERS:
            places.write_secret(people / f"{officer.name}.key", officer.key.pem())
        self.url = ""
        self.mqtt_url = ""
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "Trial":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def state(self) -> Path:
        """Journal, store and evidence."""
        return self.folder / "state"

    @property
    def partners(self) -> Path:
        """One folder a bureau: what lies there never lies on a bus."""
        return self.folder / "partners"

    @property
    def process_id(self) -> int:
        """Of `serve`; its worker is its child."""
        assert self._process is not None
        return self._process.pid

    def enrol(self, code: str, title: str, title_zh: str, role: str = "supplier") -> None:
        """A bureau with new keys of its own."""
        _, certificates = make_partner(self.settings, code, self.partners)
        self.enrol_with(Bureau(code, title, title_zh, role), certificates)

    def enrol_with(self, bureau: Bureau, certificates: Sequence[EnrolledCertificate]) -> None:
        """A bureau, or further certificates of one, proposed by one person and approved by another."""
        with registry(self.settings) as opened:
            opened.approve(opened.propose_enrolment(bureau, certificates, PROPOSER), APPROVER)

    def grant(
        self,
        bureau: str,
        action: Action,
        target: str,
        classes: Sequence[str] = (),
        *,
        area: Area = EVERYWHERE,
        attributes: Sequence[str] = (),
        map_area_km2: int = 0,
        days: tuple[int, int] = (-1, 30),
    ) -> str:
        """A grant, proposed by one person and approved by another. days: its first and last, from today."""
        today = places.utc_now().date()
        with registry(self.settings) as opened:
            grant = opened.propose_grant(
                bureau=bureau,
                action=action,
                target=target,
                classes=classes,
                valid_from=(today + timedelta(days=days[0])).isoformat(),
                valid_until=(today + timedelta(days=days[1])).isoformat(),
                purpose="示范 demonstration",
                basis="示范 demonstration",
                area=area,
                attributes=attributes,
                map_area_km2=map_area_km2,
                by=PROPOSER,
            )
            opened.approve(grant, APPROVER)
        return grant

    def release(self, feed: str, digest: str, bureau: str = "made-up") -> None:
        """A feed's file, as it stands, put in force by a system administrator and a security officer."""
        with registry(self.settings) as opened:
            opened.approve(opened.propose_mapping(feed, bureau, digest, SYSTEM), APPROVER)

    def start(self, environment: dict[str, str] | None = None) -> str:
        """Start `serve` with its worker; gives the address once the doors are open, and `mqtt_url` is the other's."""
        command = [sys.executable, "-P", "-m", "exchange.cli.main", "serve", "--json"]
        command += ["--https-port", self.url.rpartition(":")[2] or "0", "--settings", self.settings.source]
        command += ["--mqtt-port", self.mqtt_url.rpartition(":")[2] or "0"]
        with (self.folder / "serve.log").open("a") as log:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        assert self._process.stdout is not None
        said = ""
        for line in self._process.stdout:
            said += line
            if line.rstrip() == "}" and "url" in (document := json.loads(said)):
                self.url, self.mqtt_url = str(document["url"]), str(document["mqtt"])
                return self.url
        raise Misconfigured("config.trial", f"serve did not start; it said: {said}{self._tail()}")

    def stop(self) -> None:
        """Let it finish what it is answering, then end it."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._forget()

    def kill(self) -> None:
        """End it as a power cut does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
        self._forget()

    def wait(self) -> None:
        """Wait until it ends by itself."""
        if self._process is not None:
            self._process.wait()
        self._forget()

    def partner(self, bureau: str) -> Partner:
        """The bureau's own side, speaking to this bus."""
        return open_partner(self.partners / bureau, self.url)

    def mqtt_partner(self, bureau: str) -> MqttPartner:
        """The same over MQTT; to be used in a `with` block."""
        return open_mqtt_partner(self.partners / bureau, self.mqtt_url)

    def _forget(self) -> None:
        if self._process is not None:
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._process = None

    def _tail(self) -> str:
        return (self.folder / "serve.log").read_text()[-2000:]


def _document(city: City, edition: str, origin: str, more: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The tables of a trial's settings."""
    return {
        "bus": {"origin": origin},
        "city": {
            "edition": edition,
            "extent": list(city.extent),
            "districts": f"city/{city.districts.name}",
            "grid": f"city/{city.grid.name}",
        },
        "https": {"host": "127.0.0.1", "port": 8443, "names": ["localhost", "127.0.0.1"]},
        "feeds": {"folders": [str(path) for path in city.feeds]},
        **more,
    }


def _write_settings(folder: Path, city: City, document: dict[str, dict[str, Any]]) -> Settings:
    """The trial's own settings.toml, and copies of the city's polygons beside it."""
    (folder / "city").mkdir(parents=True)
    for source in (city.districts, city.grid):
        shutil.copy(source, folder / "city" / source.name)
    path = folder / "settings.toml"
    lines = [line for name, table in document.items() for line in _table(name, table)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return load_settings(path)


def _table(name: str, table: dict[str, Any], brackets: str = "[{}]") -> Iterator[str]:
    """A table's lines, then those of tables that stand several times in it."""
    several = {k: v for k, v in table.items() if isinstance(v, list) and v and isinstance(v[0], dict)}
    yield brackets.format(name)
    # JSON's strings, numbers and lists are TOML's too.
    yield from (
        f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items() if key not in several
    )
    for key, tables in several.items():
        for one in tables:
            yield from _table(f"{name}.{key}", one, "[[{}]]")


def city_of(settings_file: Path) -> City:
    """The city that a sample's settings file describes: its [city] and [feeds], relative to the file."""
    document = tomllib.loads(settings_file.read_text(encoding="utf-8"))
    at, city = settings_file.parent, document["city"]
    west, south, east, north = city["extent"]
    feeds = tuple(at / folder for folder in document["feeds"]["folders"])
    return City((west, south, east, north), at / city["districts"], at / city["grid"], feeds)
