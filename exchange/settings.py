"""What stands in `settings.toml`, read once at the start. Only `exchange.app` reads this."""

import tomllib
from pathlib import Path
from typing import Literal

import msgspec

from exchange.bus import Limits
from security.errors import Misconfigured
from security.keys import Algorithm
from security.sealing import Cipher
from security.suites import SM2_WITH_SM3, SM3, XmlSuites


class BusSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """origin: the bus's name in receipts, log entries and as `Recipient` of every request."""

    origin: str


class CitySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """extent: west, south, east, north in degrees; districts, grid: GeoJSON files with a property `code`."""

    edition: str
    extent: tuple[float, float, float, float]
    districts: str
    grid: str


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
    ca, certificate, key: PEM files for a broker of the city's; empty: the bus's own CA, TLS certificate and key
    """

    broker: str = "embedded"
    name: str = "main"
    host: str = "127.0.0.1"
    port: int = 8883
    max_packet_bytes: int = 1_100_000
    ca: str = ""
    certificate: str = ""
    key: str = ""


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


class Folder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One folder, relative to the settings file."""

    folder: str


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


class WorkerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """batch_deliveries: how many small deliveries go through act two together; sweep_s: seconds;
    memory_bytes: address space of the worker process, which reads outsiders' workbooks."""

    batch_deliveries: int = 500
    sweep_s: float = 1.0
    memory_bytes: int = 8_589_934_592


class Tolerances(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """transformation_m: the least accurate coordinate transformation that is accepted, metres."""

    transformation_m: float = 1.0


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
    """How evidence lies on disk.

    cipher: by which what is sealed from now on is sealed; what was sealed before is read whatever stands here
    seal:   `sensitive`: what feeds with a sensitive field sent; `all`: everything
    """

    cipher: Cipher = "AES-256-GCM"
    seal: Literal["sensitive", "all"] = "sensitive"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file. `at(path)` resolves a path against the file's own folder."""

    bus: BusSettings
    city: CitySettings
    https: HttpsSettings
    state: Folder
    keys: KeySettings
    feeds: FeedSettings
    worker: WorkerSettings = WorkerSettings()
    limits: Limits = Limits()
    tolerances: Tolerances = Tolerances()
    mqtt: MqttSettings = MqttSettings()
    authority: list[AuthoritySettings] = []
    suites: SuiteSettings = SuiteSettings()
    evidence: EvidenceSettings = EvidenceSettings()
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
            f"{path}: no settings file; run in the folder of settings.toml or give --settings"
        ) from problem
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as problem:
        raise Misconfigured(f"{path}: {problem}") from problem
    return msgspec.structs.replace(settings, source=str(path.resolve()))
