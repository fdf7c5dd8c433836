"""A real bus for the tests of the whole: two processes, real sockets and keys, and eyes on all that it keeps."""

import json
import socket
import sqlite3
import ssl
import tomllib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec
import requests
from shapely import Point
from shapely.geometry import shape

from connectors.partner.folder import PartnerFolder
from connectors.partner.partner import Partner
from exchange.app import keys_in_force, opening, places
from exchange.bus import Limits
from exchange.cli.demo_quarter import FEEDS
from exchange.cli.partner import open_partner
from exchange.cli.trial import City, Trial
from exchange.registry import Bureau
from samples import city as sample_city
from security import pki
from security.keys import Kind, SigningKey, generate
from security.message import Use
from tests.registers import LAMPS, a_register

SAMPLE: Final = Path(sample_city.__file__).parent
EXTENT: Final = (121.54, 29.862, 121.56, 29.877)
LIMITS: Final = Limits(max_envelope_bytes=1_500_000, max_inline_bytes=900_000, max_mtom_bytes=2_000_000, body_s=2.0)

REGISTER: Final = a_register(
    "made-up-register",
    "Register",
    "设施",
    top='classes = ["CJ/T 214-2007:0101", "CJ/T 214-2007:0102"]\n',
    fields="""grid_code = { from = "网格" }
authority_name = { from = "主管部门" }
owner_name = { from = "权属单位" }
maintainer_name = { from = "养护单位" }

[[ignore]]
rule = "scrapped"
title = "Scrapped"
title_zh = "已报废"
from = "状态"
values = ["报废"]
""",
)
FEED: Final = "made-up-register"
COLUMNS: Final = ("编号", "类别", "经度", "纬度", "网格", "主管部门", "权属单位", "养护单位", "状态")
Row = dict[str, str]


_PLACES: Final[dict[str, int]] = {}


def place(key: str) -> tuple[float, float]:
    """Longitude and latitude of a key's first record, in degrees: each key has a place of its own, and no other's
    first three records lie within nineteen metres of it."""
    number = _PLACES.setdefault(key, len(_PLACES))
    assert number < 400, "the quarter is full"
    return round(121.546 + number % 40 * 2e-4, 6), round(29.867 + number // 40 * 4e-4, 6)


def rows(key: str, count: int = 3) -> list[Row]:
    """Records that are right in every respect, eleven metres apart; their keys begin with `key`."""
    longitude, latitude = place(key)
    return [
        {
            "编号": f"{key}-{number}",
            "类别": "0101",
            "经度": f"{longitude:.6f}",
            "纬度": f"{latitude + number * 1e-4:.6f}",
            "网格": grid_at(longitude, latitude + number * 1e-4),
            "主管部门": "某主管部门",
            "权属单位": "某权属单位",
            "养护单位": "某养护单位",
            "状态": "在用",
        }
        for number in range(count)
    ]


def csv(records: list[Row], columns: tuple[str, ...] = COLUMNS) -> bytes:
    """The records as a CSV file in UTF-8."""
    return "\n".join([",".join(columns), *(",".join(row[name] for name in columns) for row in records), ""]).encode()


def grid_at(longitude_deg: float, latitude_deg: float) -> str:
    """The 15-digit code of the sample city's grid cell at a place."""
    cells = json.loads((SAMPLE / "grid.geojson").read_text(encoding="utf-8"))["features"]
    place = Point(longitude_deg, latitude_deg)
    return next(str(cell["properties"]["code"]) for cell in cells if shape(cell["geometry"]).covers(place))


class Kept(NamedTuple):
    """All that a bus keeps, in numbers, by which a refusal that left something behind is found out."""

    inbox: int
    claims: int
    components: int
    changes: int
    evidence_bytes: int
    spooled: int


class RealBus:
    """A running trial with the bureaus `made-up` and `water`, its limits small, and ways to be rude to it."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.journal = opening.open_journal(trial.settings)
        self.origin = trial.settings.bus.origin

    @property
    def url(self) -> str:
        """`https://127.0.0.1:PORT`"""
        return self.trial.url

    def folder(self, bureau: str = "made-up", kind: Kind = "ES256") -> PartnerFolder:
        """A bureau's own folder; of `made-up` there is one whose signing key is RSA, too."""
        return PartnerFolder((self.trial.partners if kind == "ES256" else self.trial.folder / kind) / bureau)

    def partner(self, bureau: str = "made-up") -> Partner:
        """A bureau's side."""
        return open_partner(self.folder(bureau).path, self.url)

    def session(self, folder: PartnerFolder | None) -> requests.Session:
        """A session with the bureau's client certificate, or with None nobody's."""
        session = requests.Session()
        session.trust_env = False
        session.verify = self.folder().file("ca.pem")
        if folder is not None:
            session.cert = (folder.file("connection.pem"), folder.file("connection.key"))
        return session

    def connect(self, timeout_s: float = 10.0) -> ssl.SSLSocket:
        """A connection with the certificate of `made-up`, to write octets on as they are."""
        folder, port = self.folder(), int(self.url.rpartition(":")[2])
        context = ssl.create_default_context(cafile=folder.file("ca.pem"))
        context.load_cert_chain(folder.file("connection.pem"), folder.file("connection.key"))
        plain = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        return context.wrap_socket(plain, server_hostname="localhost")

    def kept(self) -> Kept:
        """What the bus keeps now."""
        evidence = [path for path in (self.trial.state / "evidence").rglob("*") if path.is_file()]
        return Kept(
            self._count("journal", "SELECT count(*) FROM inbox"),
            self._count("store", "SELECT count(*) FROM claims"),
            self._count("store", "SELECT count(*) FROM components"),
            self._count("store", "SELECT coalesce(max(change_number), 0) FROM components"),
            sum(path.stat().st_size for path in evidence),
            len(list((self.trial.state / "spool").iterdir())),
        )

    def claimed(self, key: str) -> list[str]:
        """Source keys of standing claims that begin with `key`."""
        query = "SELECT source_key FROM claims WHERE source_key LIKE ? ORDER BY source_key"
        return [str(found) for (found,) in self._asked("store", query, f"{key}-%")]

    def leaf(self, entry: int) -> str:
        """The leaf of an audit entry, as it was hashed."""
        return self.journal.prove(entry).leaf.decode()

    def _count(self, file: Literal["journal", "store"], query: str) -> int:
        return int(self._asked(file, query)[0][0])

    def _asked(self, file: str, query: str, *values: str) -> list[tuple[object, ...]]:
        path = self.trial.state / f"{file}.sqlite"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as reader:
            return reader.execute(query, values).fetchall()


def a_trial(
    folder: Path,
    *feeds: str,
    suites: dict[str, str] | None = None,
    keys: dict[str, str] | None = None,
    state: dict[str, str] | None = None,
    worker: dict[str, str | float] | None = None,
) -> Trial:
    """A bus in a folder, not started, with the sample's feeds and those given as TOML.

    suites, keys, state, worker: its settings
    """
    (folder / "feeds").mkdir(parents=True)
    for text in feeds:
        (folder / "feeds" / f"{tomllib.loads(text)['id']}.toml").write_text(text, encoding="utf-8")
    city = City(EXTENT, SAMPLE / "districts.geojson", SAMPLE / "grid.geojson", (FEEDS, folder / "feeds"))
    return Trial(folder / "bus", city, suites=suites, keys=keys, state=state, worker=worker)


@contextmanager
def real_bus(folder: Path) -> Iterator[RealBus]:
    """A bus that runs while the block does."""
    trial = a_trial(folder, LAMPS, REGISTER)
    settings = Path(trial.settings.source)
    limits = msgspec.to_builtins(LIMITS)
    settings.write_text(settings.read_text() + "[limits]\n" + "".join(f"{k} = {v}\n" for k, v in limits.items()))
    trial.enrol("made-up", "Made-up bureau", "某单位")
    trial.enrol("water", "Water bureau", "水务局")
    for target in (FEED, "made-up-lamps"):
        trial.grant("made-up", "push", target)
    for view in ("ownership", "components", "changes"):
        trial.grant("made-up", "pull", view)
    another_folder(trial, "RS256")
    with trial:
        bus = RealBus(trial)
        with closing(bus.journal):
            yield bus


def more_key(trial: Trial, use: Use, kind: Kind = "ES256", days: int = 30) -> SigningKey:
    """A further key of `made-up`, enrolled with the bus. days: until its certificate ends, may be past."""
    now, key = places.utc_now(), generate(kind)
    began = now - timedelta(days=60)
    der = pki.issue(
        keys_in_force.authority(trial.settings),
        f"made-up {use}",
        key.public_key,
        use,
        began,
        now + timedelta(days=days),
    )
    trial.enrol_with(Bureau("made-up", "Made-up", "某单位", "supplier"), [pki.enrolled(der, "made-up", use)])
    return key.with_certificate(der)


def another_folder(trial: Trial, kind: Kind) -> PartnerFolder:
    """A further folder of `made-up`, with a signing key of that kind and a connection certificate beside it."""
    ours = PartnerFolder(trial.partners / "made-up")
    return PartnerFolder.make(
        trial.folder / kind / "made-up",
        signing=more_key(trial, "signing", kind),
        connection=more_key(trial, "connection"),
        ca_pem=Path(ours.file("ca.pem")).read_bytes(),
        anchors_json=Path(ours.file("anchors.json")).read_bytes(),
    )
