"""What stands in `settings.toml`, read once at the start. Only `exchange.app` reads this."""

import tomllib
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Final, Literal

import msgspec

from connectors.transports.mail import check_mail_url
from exchange.alarms import quiet_hours
from exchange.bus import Limits
from exchange.decision_documents import FEWEST_DETAIL_DAYS
from exchange.store.territory import Territory
from security.checkpoint import note_name
from security.cosignature import Witness
from security.errors import Misconfigured
from security.keys import Algorithm
from security.sealing import Cipher
from security.suites import SM2_WITH_SM3, SM3, XmlSuites

MOST_RECORDS: Final = 5_000  # components in a delivery that goes up


class BusSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """origin: the bus's name in receipts, log entries and as `Recipient` of every request."""

    origin: str


class CitySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """extent: west, south, east, north in degrees; districts, grid: GeoJSON files with a property `code`.

    systems: folder of the parameters of local reference systems, a secret of the city's (docs/systems.md); empty: none
    """

    edition: str
    extent: tuple[float, float, float, float]
    districts: str
    grid: str
    systems: str = ""


class HttpsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """host, port: where the doors listen; names: what the bus's own certificate is made out to."""

    host: str
    port: int
    names: list[str]


class MqttSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The second door.

    broker: `embedded`, `off`, or `mqtts://host:port` of a broker of the city's
    name:   of the broker, as receipts name it: `broker:{name}`
    host, port: where the embedded broker listens; max_packet_bytes: the longest packet it reads
    shared: whether several processes of this bus share the deliveries of a broker that speaks MQTT 5
    drain_per_s: how many deliveries a second are taken of what piled up while the bus was away; 0: all it can
    ca, certificate, key: PEM files for a broker of the city's; empty: the bus's own CA, TLS certificate and key
    """

    broker: str = "embedded"
    name: str = "main"
    host: str = "127.0.0.1"
    port: int = 8883
    max_packet_bytes: int = 1_100_000
    shared: bool = False
    drain_per_s: float = 0.0
    ca: str = ""
    certificate: str = ""
    key: str = ""


class PackageSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The one-way door (docs/packages.md).

    folder: in which packages are laid and answers laid out, not in the state folder; empty: no such door
    name:   of the folder, as receipts name it: `folder:{name}`
    """

    folder: str = ""
    name: str = "main"


class AuthoritySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A certificate authority of the city's whose certificates bureaus may bring.

    certificates: a PEM file, relative to the settings file: its own certificate and all those over it
    crl:     addresses of its revocation lists, http or https; each is asked
    ocsp:    address of its responder; empty: none
    every_s: seconds between two questions
    """

    certificates: str
    crl: list[str] = []
    ocsp: str = ""
    every_s: float = 3600.0


class TimestampSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Timestamp authorities (RFC 3161), and what follows when they are away.

    urls:         their addresses, http or https, asked in this order until one answers; []: no timestamps at all
    certificates: a PEM file, relative to the settings file: the roots that their chains end in, former ones too
    every_s:      seconds between two timestamps while the log grows
    alarm_s, pending_s, refused_s: how old the oldest entry without one may be until there is an alarm, answers say
                  "timestamp pending", pushes are refused
    """

    urls: list[str] = []
    certificates: str = ""
    every_s: float = 600.0
    alarm_s: float = 3_600.0
    pending_s: float = 14_400.0
    refused_s: float = 86_400.0


class StateSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the bus keeps what it knows.

    folder:  relative to the settings file
    journal, store: `postgresql://user@host/database`; empty: a SQLite file in the folder
    heads:   folder for the newest heads that went out; not in the state folder, and better on another disk
    """

    folder: str
    journal: str = ""
    store: str = ""
    heads: str = "heads"


class KeySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the bus's own keys lie.

    folder:          of keys, certificates and secrets
    passphrase_file: what opens keys that lie under a passphrase or in a token; never the passphrase itself
    answer, log, ca, tls: where one key lies: a path, or a `pkcs11:` URI; empty: `NAME.key` in folder
    """

    folder: str
    passphrase_file: str = ""
    answer: str = ""
    log: str = ""
    ca: str = ""
    tls: str = ""


class FeedSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """folders: where feed files lie; on_classified: what becomes of a delivery with a record that must not come:
    `refuse`, or `hold` for a person. Sealed and alarmed it is either way."""

    folders: list[str]
    on_classified: Literal["refuse", "hold"] = "refuse"


class DrawingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """dwg2dxf: absolute path of the program that makes DXF of DWG; empty: none, and a DWG is refused."""

    dwg2dxf: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError for a path that would be looked for."""
        if self.dwg2dxf and not Path(self.dwg2dxf).is_absolute():
            raise ValueError("dwg2dxf: write an absolute path")


class WorkerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """batch_deliveries: how many small deliveries go through act two together; sweep_s: seconds;
    memory_bytes: address space of the worker process, which reads outsiders' workbooks.
    retry_first_s, retry_most_s: the first and the longest wait of a feed whose work cannot go on, and that is not its
    content's fault.

    queue: `files`, a folder of the state folder's, or `amqps://USER@HOST:PORT/VHOST` of a RabbitMQ (docs/queues.md)
    queue_password_file: what USER says there, in one line; never the password itself
    queue_ca: PEM file in which the RabbitMQ's certificate ends; empty: the bus's own CA
    """

    queue: str = "files"
    queue_password_file: str = ""
    queue_ca: str = ""
    batch_deliveries: int = 500
    sweep_s: float = 1.0
    memory_bytes: int = 8_589_934_592
    retry_first_s: float = 1.0
    retry_most_s: float = 300.0


class Tolerances(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far off coordinates may be, metres.

    transformation_m: the least accurate coordinate transformation that is accepted
    control_point_m:  how far a local system's parameters may miss a control point of its
    """

    transformation_m: float = 1.0
    control_point_m: float = 0.1


class SuiteSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """By what the bus signs, and what SM2 is called in XML.

    signing:     answers, receipts and reports: `ES256`, `EdDSA`, `RS256`, `PS256` or `SM2`
    checkpoints: heads of the log: `EdDSA` or `SM2`
    Both keys are made at init; with a setting that does not fit its key the bus does not start. A key that took the
    place of the first (`key rotate`) says itself by what it signs, whatever stands here.
    xml_sm2_signature, xml_sm3_digest: URIs of SM2 with SM3, and of SM3, in XML signatures of bureaus and bus alike
    """

    signing: Algorithm = "ES256"
    checkpoints: Literal["EdDSA", "SM2"] = "EdDSA"
    xml_sm2_signature: str = SM2_WITH_SM3
    xml_sm3_digest: str = SM3

    @property
    def xml(self) -> XmlSuites:
        """The names in XML. Raises Misconfigured for one that is no URI, or another algorithm's."""
        return XmlSuites(self.xml_sm2_signature, self.xml_sm3_digest)


class EvidenceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where evidence lies, and how.

    url:    `s3://bucket/prefix?endpoint=…&region=…`; empty: a folder in the state folder
    cipher: by which what is sealed from now on is sealed; what was sealed before is read whatever stands here
    seal:   `sensitive`: what feeds with a sensitive field sent; `all`: everything
    """

    url: str = ""
    cipher: Cipher = "AES-256-GCM"
    seal: Literal["sensitive", "all"] = "sensitive"


class WitnessesSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who watches the log from outside.

    witness: name, as in the lines that it signs, and Ed25519 public key in hex, as `yongtong witness --new-key` says
    quorum:  how many of them must have signed a head before partners take it for witnessed; 0 asks for none
    """

    quorum: int = 0
    witness: list[Witness] = []

    def __post_init__(self) -> None:
        """Raises ValueError for a quorum that cannot be met, a name that names nobody or two, a key that is none."""
        try:
            names = [note_name(witness.name) for witness in self.witness]
            keys = {witness.public_key.public_bytes_raw() for witness in self.witness}
        except Misconfigured as problem:
            raise ValueError(str(problem)) from problem
        if not len(set(names)) == len(keys) == len(names):
            raise ValueError("two witnesses have one name or one key")
        if not 0 <= self.quorum <= len(names):
            raise ValueError(f"quorum {self.quorum} of {len(names)} witnesses")


class DelegatedSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Divisions whose components a district's node names, and no serial is issued for here.

    bureau:  code of the district centre here, which delivers what its node knows
    anchors: a file, relative to the settings file: `anchors.json` of that node, by which its log's heads are taken
    """

    divisions: list[str]
    bureau: str
    anchors: str


class TerritorySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where identifiers are issued. divisions: those in which they are here; []: all that are not delegated."""

    divisions: list[str] = []
    delegated: list[DelegatedSettings] = []

    def __post_init__(self) -> None:
        """Raises ValueError for a division with two writers, and for a district centre that is named twice."""
        codes = [*self.divisions, *(code for one in self.delegated for code in one.divisions)]
        twice = sorted({code for code in codes if codes.count(code) > 1})
        if twice:
            raise ValueError(f"each division has one writer; twice: {', '.join(twice)}")
        bureaus = [one.bureau for one in self.delegated]
        if len(set(bureaus)) < len(bureaus) or not all(one.divisions for one in self.delegated):
            raise ValueError("delegated: each bureau once, with its divisions")

    @property
    def territory(self) -> Territory:
        """The same as the store has it."""
        delegated = {code: one.bureau for one in self.delegated for code in one.divisions}
        return Territory(frozenset(self.divisions), delegated)


class CascadeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A district's node: what it tells its city's node, and what it fetches there.

    city:      code of the city's bureau here, whose grant to `subscribe` to `cascade` says what goes up; empty: nothing
    url:       of the city's node; partner: folder of the district centre's keys and of the city's anchors, relative to
               the settings file
    feed:      our feed's id at the city; records: components a delivery
    every_s:   seconds between two looks; deliveries_per_s: at most, also when a backlog drains
    reference: folder, relative to the settings file, in which reference data is put in force; empty: none is fetched
    """

    city: str = ""
    url: str = ""
    partner: str = ""
    feed: str = ""
    records: int = 500
    every_s: float = 60.0
    deliveries_per_s: float = 2.0
    reference: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError where it says what to send and not where, or a pace that is none."""
        if (self.city or self.reference) and not (self.url.startswith("https://") and self.partner):
            raise ValueError("city and reference need url, https://host:port, and partner")
        if self.city and not self.feed:
            raise ValueError("city needs feed")
        if not (0 < self.records <= MOST_RECORDS and self.every_s > 0 and self.deliveries_per_s > 0):
            raise ValueError(f"records 1 to {MOST_RECORDS}, every_s and deliveries_per_s more than 0")


class RetentionSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long content is kept, days; then it is due (`yongtong erasure due`), and two persons erase it.

    evidence_days:     original bytes of deliveries
    audit_detail_days: details of audit entries; six months at least (网络安全法), which are up to 184 days
    """

    evidence_days: int = 1096
    audit_detail_days: int = 1096


class WatchSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the bus lets itself be watched.

    scrape: addresses and networks that may read /metrics; nobody else may
    log:    how log lines are written: `text` (event key=value) or `json`, one object a line
    """

    scrape: tuple[str, ...] = ("127.0.0.1/32", "::1/128")
    log: Literal["text", "json"] = "text"

    def __post_init__(self) -> None:
        """Raises ValueError for what is no network."""
        _ = self.networks

    @property
    def networks(self) -> list[IPv4Network | IPv6Network]:
        """`scrape`, parsed."""
        return [ip_network(text) for text in self.scrape]


class AlarmSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """By which ways alarms leave, when not, and from where on something is one.

    webhook:             an address, http or https, that JSON is posted to; empty: none
    webhook_secret_file: with what the body is signed; empty: it is not
    smtp:                `smtp://host:587` (STARTTLS) or `smtps://host:465`; empty: no mail
    ca:                  a PEM file of roots for both; empty: the machine's own
    smtp_user, smtp_password_file: how to log in; empty: without
    sender, to:          addresses of mail
    quiet:               hours of the city, `22:00-07:00`, in which only what is critical goes out
    least_free_bytes:    with less on the state folder's disk it counts as almost full
    backlog_s:           how long a delivery may wait for act two
    clock_s:             how far the clock may jump, or be off others', seconds
    """

    webhook: str = ""
    webhook_secret_file: str = ""
    smtp: str = ""
    ca: str = ""
    smtp_user: str = ""
    smtp_password_file: str = ""
    sender: str = ""
    to: list[str] = []
    quiet: list[str] = []
    least_free_bytes: int = 1 << 30
    backlog_s: float = 3600.0
    clock_s: float = 30.0

    def __post_init__(self) -> None:
        """Raises ValueError for what cannot be meant."""
        try:
            quiet_hours(self.quiet)
            if self.smtp:
                check_mail_url(self.smtp)
        except Misconfigured as problem:
            raise ValueError(str(problem)) from problem
        if self.webhook and not self.webhook.startswith(("https://", "http://")):
            raise ValueError("webhook: write https://…")
        if self.smtp and not (self.sender and self.to):
            raise ValueError("smtp needs sender and to")
        if bool(self.smtp_user) != bool(self.smtp_password_file):
            raise ValueError("smtp_user and smtp_password_file go together")

    @property
    def ways(self) -> list[str]:
        """The names of the ways that are set."""
        return [name for name, said in (("webhook", self.webhook), ("mail", self.smtp)) if said]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file. `at(path)` resolves a path against the file's own folder."""

    bus: BusSettings
    city: CitySettings
    https: HttpsSettings
    state: StateSettings
    keys: KeySettings
    feeds: FeedSettings
    drawings: DrawingSettings = DrawingSettings()
    worker: WorkerSettings = WorkerSettings()
    limits: Limits = Limits()
    tolerances: Tolerances = Tolerances()
    mqtt: MqttSettings = MqttSettings()
    packages: PackageSettings = PackageSettings()
    authority: list[AuthoritySettings] = []
    suites: SuiteSettings = SuiteSettings()
    evidence: EvidenceSettings = EvidenceSettings()
    witnesses: WitnessesSettings = WitnessesSettings()
    timestamps: TimestampSettings = TimestampSettings()
    retention: RetentionSettings = RetentionSettings()
    territory: TerritorySettings = TerritorySettings()
    cascade: CascadeSettings = CascadeSettings()
    watch: WatchSettings = WatchSettings()
    alarms: AlarmSettings = AlarmSettings()
    source: str = ""

    def at(self, path: str) -> Path:
        """The path, taken from the folder of the settings file when it is relative."""
        return Path(self.source).parent / path


def load_settings(path: Path) -> Settings:
    """The settings in a file. Raises Misconfigured naming the file and the key that is wrong."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        settings = msgspec.convert(document, Settings)
    except FileNotFoundError as problem:
        raise Misconfigured(
            "config.no_settings", f"{path}: no settings file; run in the folder of settings.toml or give --settings"
        ) from problem
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as problem:
        raise Misconfigured("config.setting", f"{path}: {problem}") from problem
    kept = settings.retention
    if kept.audit_detail_days < FEWEST_DETAIL_DAYS:
        raise Misconfigured(
            "config.setting",
            f"{path}: [retention] audit_detail_days = {kept.audit_detail_days}: audit details are kept for six months "
            f"at least 审计明细至少保存六个月; write {FEWEST_DETAIL_DAYS} or more",
        )
    if kept.evidence_days < 1:
        raise Misconfigured(
            "config.setting", f"{path}: [retention] evidence_days = {kept.evidence_days}: write 1 or more"
        )
    return msgspec.structs.replace(settings, source=str(path.resolve()))
