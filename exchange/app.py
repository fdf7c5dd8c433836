"""The composition root: the only module that names a database, a broker, a key file."""

import asyncio
import base64
import contextlib
import fcntl
import hmac
import itertools
import logging
import os
import resource
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from typing import Final, TextIO

import msgspec
from paho.mqtt.enums import MQTTProtocolVersion
from starlette.applications import Starlette

from connectors.partner.cascade import CityNode
from connectors.partner.folder import PartnerFolder
from connectors.partner.partner import Partner
from connectors.transports.fetch import fetch
from connectors.transports.mail import MailServer
from connectors.transports.mqtt import Address, address_of, client_tls
from exchange import backup, restoring, validation
from exchange.account_watch import AccountWatch
from exchange.alarm_ways import Mail, Way, Webhook
from exchange.alarms import read_book
from exchange.anchor_updates import changed_anchors
from exchange.attestations import Attestations
from exchange.backup_file import KIND, SMALL, Manifest
from exchange.bus import Bus
from exchange.cascade import Cascade, Upward
from exchange.certificate_watch import CertificateWatch
from exchange.clock_watch import ClockWatch
from exchange.database import FAILURES, Database, History, SqliteFile
from exchange.decision_documents import AnchorBody, Apart, EpochBody, Officer, Role
from exchange.decisions import EpochBegun
from exchange.districts import District, Districts
from exchange.due import feeds_to_do
from exchange.entry import Detail, Entry, instant
from exchange.erased_apart import to_repeat
from exchange.evidence import Evidence
from exchange.evidence_folder import EvidenceFolder
from exchange.evidence_place import Place
from exchange.faults import durable_step
from exchange.feed_turn import take_turn
from exchange.http import server
from exchange.http.app import make_app
from exchange.http.health import Scrapes
from exchange.http.tls import server_context
from exchange.intake import remember_reads, signs_for, turn_away
from exchange.journal import Journal
from exchange.key_places import DEMO, check_apart, check_demo_stays_here, check_private, is_demo
from exchange.known_heads import Gap, HeadsOut, gap_of, head_text, keep, texts_in
from exchange.metrics import Metrics
from exchange.mqtt.broker import US, EmbeddedBroker, Rules
from exchange.mqtt.door import MqttDoor
from exchange.mqtt.reports import ReportPush
from exchange.own_keys import (
    Changeable,
    OwnKey,
    epoch_number,
    epochs,
    first_head_is_signed,
    own_keys,
    stem_of,
)
from exchange.placing import City, load_city
from exchange.publication import Publisher, subscription, today
from exchange.receipts import issue_receipts, issue_reports, verify_receipt
from exchange.reference import PARTS, Listed, Reference, Shelf, make_reference, open_listed
from exchange.registry import Registry
from exchange.replaying import Replayer
from exchange.replays import OwnReplays, SharedReplays
from exchange.revocation import CityAuthority, Revocations
from exchange.settings import Settings
from exchange.small_file import write_whole
from exchange.stopped import Stopped
from exchange.store.embedded import Embedded
from exchange.store.store import Store
from exchange.tally import Tally
from exchange.timestamp_watch import Authorities, TimestampWatch
from exchange.timestamping import Coverage, Rule
from exchange.uploads import Uploads
from exchange.waits import Waits
from mappings.codelists import edition as edition_of
from mappings.feed import Feed
from mappings.load import load_feeds
from scheduler.celery_app import make_celery
from scheduler.jobs import Announcer, register, run_worker
from scheduler.queues import Rabbit, open_queue, rabbit_of
from security import keys, pki, tokens
from security.anchors import Anchors
from security.authenticate import carrier_of
from security.chain import Chain, check_chain
from security.checkpoint import Checkpoint, log_key_octets, open_checkpoint
from security.errors import AuditBroken, ExchangeError, Misconfigured, Refusal, places
from security.expiry import Ending, ending_of
from security.jws import sign_document
from security.keyring import Keyring, a_person, secret_line
from security.keys import Algorithm, Kind, SigningKey, der_of_pem, ders_of_pem, kind_of
from security.message import sha256
from security.sealing import KEY_BYTES, SealingKey
from security.xml import compile_schema

log = logging.getLogger("yongtong.app")

RESTART_S: Final = 1.0
MQTT_READY_S: Final = 10.0  # how long the doors wait for the broker before they open without it
PARENT_LOOK_S: Final = 0.5
PARENT: Final = "YONGTONG_PARENT"  # process by which a worker was started, and with which it ends
EVIDENCE_WAITS: Final = timedelta(hours=1)  # what a crash left without an inbox row is swept later
SWEPT_S: Final = 1.0
SWEEP_EVERY_S: Final = 86_400.0
STOP_WATCH_S: Final = 2.0
DUTY_LOOK_S: Final = 1.0
KEY_YEARS: Final = 10
OWN: Final = ("ca", "tls", "answer")  # of each a key and a certificate lie in the keys folder
KEYS: Final = (*OWN, "log")
SECRETS: Final = ("outcome.secret", "evidence.key")
APART: Final = "epoch-apart.json"
RESTORING: Final = "restoring"
PUT_BACK: Final = ("origin.json", "anchors.json", "evidence", "districts", "reports-pushed", "subscribers.json")
LOST_CHANGES: Final = 1_000_000_000  # numbers left out after a loss: some of them were told to subscribers
SCHEMA: Final = Path(__file__).parent / "contracts" / "yongtong.xsd"


class Origin(msgspec.Struct, frozen=True):
    """What `init` fixes for the life of a bus: its name, master edition, the hash of its log, by its fingerprint the
    key of sealed evidence, and the digest of the document with which it was founded."""

    origin: str
    edition: str
    hash: str
    evidence_key: str
    founding: str


# Started beside the doors once they have all they need, and ended by what it gives; the watch over the bus is one.
Beside = Callable[[Bus, Tally, ClockWatch], Callable[[], None]]


def utc_now() -> datetime:
    """Now, aware, UTC."""
    return datetime.now(UTC)


# --- making a bus ----------------------------------------------------------------------------------------------------


Founder = tuple[Officer, Role, str]  # who, in which office, of which bureau


def keyring_of(settings: Settings, *, attended: bool = True, stems: Mapping[str, str] | None = None) -> Keyring:
    """The bus's own keys that are in force. attended: a person at the terminal may be asked for what opens them.

    stems: of keys that are not in force, by what their files are called
    """
    said = settings.keys
    changed = own_keys(journal_database(settings)).values()
    stems = {**{keys[-1].name: keys[-1].stem for keys in changed}, **(stems or {})}
    references = {"answer": said.answer, "log": said.log, "ca": said.ca, "tls": said.tls}
    references |= dict.fromkeys((name for name, stem in stems.items() if stem != name), "")  # changed, so in the folder
    placed = {
        name: text if text.startswith(tokens.SCHEME) or not text else str(settings.at(text))
        for name, text in references.items()
    }
    opened_by = settings.at(said.passphrase_file) if said.passphrase_file else None
    return Keyring(settings.at(said.folder), placed, opened_by, a_person() if attended else None, stems)


def initialise(
    settings: Settings, edition: str, founders: Sequence[Founder], now: datetime, *, demo: bool = False
) -> Anchors:
    """Make a new bus: keys and certificates, a journal that begins with its founding, a store. Gives its trust anchors.

    edition:  short name of the master class list
    founders: who holds which office from the start; two of them at least are security officers, and sign
    demo:     its certificates say DEMO, and it is served on this machine alone

    Raises Misconfigured if a bus stands there already; Refusal `founding.too_few`, `role.held_already`.
    """
    no_bus_yet(settings)
    state, folder = settings.at(settings.state.folder), settings.at(settings.keys.folder)
    _ = settings.suites.xml  # a bad name stops here, not at the first signature
    if edition_of(edition) != edition_of(settings.city.edition):
        raise Misconfigured(
            "config.fixed_at_init",
            f"{settings.source}: city.edition is {settings.city.edition!r}, not that of {edition!r}",
        )
    state.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    keyring = keyring_of(settings)
    _make_keys(settings, keyring, folder, f"{settings.bus.origin} {DEMO}" if demo else settings.bus.origin, now)
    founding = _found(settings, state, keyring, founders)
    anchors = Anchors(
        origin=settings.bus.origin,
        log_key=log_key_octets(_log_key(settings, keyring).public_key).hex(),
        receipt_certificates=[(folder / "answer.pem").read_text()],
        log_key_kind=settings.suites.checkpoints,
        xml_sm2_signature=settings.suites.xml_sm2_signature,
        xml_sm3_digest=settings.suites.xml_sm3_digest,
        founding=founding,
    )
    _write_json(state / "anchors.json", anchors)
    open_store(settings).close()
    # Last, so that a half-made bus is not taken for one.
    fingerprint = SealingKey.load(folder / "evidence.key").fingerprint
    origin = Origin(settings.bus.origin, settings.city.edition, "SHA-256", fingerprint, founding)
    _write_json(state / "origin.json", origin)
    return anchors


def no_bus_yet(settings: Settings) -> None:
    """Return if a bus may be made there. Raises Misconfigured if one stands there already, or keys would lie in it."""
    check_keys_placed(settings)
    state = settings.at(settings.state.folder)
    if (state / "origin.json").exists():
        raise Misconfigured(
            "config.bus_stands", f"{state} holds a bus already; an origin is made once. Name another [state] folder"
        )
    known = [path for path, text in texts_in(heads_folder(settings)).items() if _epoch_in(settings.bus.origin, text)]
    if known:
        raise Misconfigured(
            "config.name_used",
            f"{known[0]}: a log named {settings.bus.origin} signed heads already, and a second one would sign others "
            "under its name; put the bus back with yongtong restore FILE, or name another [bus] origin",
        )


def check_keys_placed(settings: Settings) -> None:
    """Return if no key, secret or passphrase lies in the state folder, or is open to other accounts.

    Raises Misconfigured naming the file, and of the state folder both.
    """
    keyring, folder = keyring_of(settings, attended=False), settings.at(settings.keys.folder)
    files = [keyring.path(name) for name in KEYS if not keyring.in_token(name)]
    files += [folder / name for name in SECRETS] + sorted(folder.glob("*.key"))
    named = (settings.keys.passphrase_file, settings.mqtt.key, settings.worker.queue_password_file)
    files += [settings.at(path) for path in named if path]
    check_key_apart(settings, folder, *files)
    check_private(files)
    if heads_folder(settings).resolve().is_relative_to(settings.at(settings.state.folder).resolve()):
        raise Misconfigured(
            "config.setting",
            f"[state] heads = {settings.state.heads!r} lies in the state folder and would be lost with it; move it out",
        )


def check_key_apart(settings: Settings, *paths: Path) -> None:
    """Return if files or folders of keys lie outside the state folder. Raises Misconfigured naming both."""
    check_apart(settings.at(settings.state.folder), paths)


def serves_demo(settings: Settings) -> bool:
    """Whether the bus's keys are a demonstration's. Raises Misconfigured where it would be served off this machine."""
    state_of(settings)
    hosts = [settings.https.host, *([settings.mqtt.host] if settings.mqtt.broker == "embedded" else [])]
    return check_demo_stays_here(_own_ders(settings).values(), hosts)


def _found(settings: Settings, state: Path, keyring: Keyring, founders: Sequence[Founder]) -> str:
    """The log's first entry: who holds which office, and which feeds' files count."""
    mappings = {feed.id: feed.digest for feed in _feeds(settings).values()}
    with ExitStack() as stack:
        journal = stack.enter_context(closing(_open_journal(settings, keyring)))
        registry = stack.enter_context(closing(Registry(state, journal, "", utc_now)))
        return registry.found(founders, mappings)


def _feeds(settings: Settings) -> dict[str, Feed]:
    return load_feeds(settings.at(path) for path in settings.feeds.folders)


def _make_keys(settings: Settings, keyring: Keyring, folder: Path, name: str, now: datetime) -> None:
    """A small CA of the bus's own, and separate keys for TLS, answers, log and evidence; each file mode 0600.

    name: with which the common names of their certificates begin
    A key that the settings place in a token must lie there already. Files go under the passphrase, where one is named.
    """
    until = now + timedelta(days=365 * KEY_YEARS)
    signing = settings.suites.signing
    made = partial(_new_key, keyring)
    keyring.path("tls")
    for of_token in filter(keyring.in_token, ("answer", "log", "ca")):
        # First, before any file is written: what is wrong with it is put right, and init again.
        keyring.load(of_token, certificate=False)
    # TLS asks for a key of the standard's, whatever the city signs with.
    tls, answer = made("tls", "ES256"), made("answer", "RS256" if signing == "PS256" else signing)
    ca = pki.make_ca(f"{name} CA", now, key=made("ca", "ES256"))
    issued = partial(pki.issue, ca, not_before=now - timedelta(hours=1), not_after=until)
    certificates = {
        "ca": ca.certificate_der,
        "tls": issued(f"{name} tls", tls.public_key, "connection", sans=settings.https.names),
        "answer": issued(f"{name} answer", answer.public_key, "signing"),
    }
    made("log", settings.suites.checkpoints)
    for which, certificate_der in certificates.items():
        (folder / f"{which}.pem").write_bytes(pki.pem_of(certificate_der))
    write_secret(folder / "outcome.secret", secrets.token_bytes(32))
    write_secret(folder / "evidence.key", secrets.token_bytes(KEY_BYTES))


def _new_key(keyring: Keyring, name: str, kind: Kind) -> SigningKey:
    """A key made now and written to its file; or the one that lies in its token."""
    if keyring.in_token(name) and name != "tls":
        return keyring.load(name, certificate=False)
    path, key = keyring.path(name), keys.generate(kind)
    write_secret(path, key.pem(keyring.new_passphrase()))
    return key


def write_secret(path: Path, octets: bytes) -> None:
    """A new file that only its owner reads. Raises Misconfigured where one stands, or none can be."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as problem:
        raise Misconfigured("config.stands", f"{path}: {problem.strerror}; no key is ever written over") from problem
    with os.fdopen(descriptor, "wb") as file:
        file.write(octets)


def _write_json(path: Path, document: msgspec.Struct) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")


# --- opening it ------------------------------------------------------------------------------------------------------


def authority(settings: Settings) -> pki.Authority:
    """The bus's own CA, for enrolling bureaus that have no certificates of the city's."""
    key = keyring_of(settings).load("ca")
    assert key.certificate_der is not None
    return pki.Authority(key, key.certificate_der)


def own_certificates(settings: Settings) -> list[Ending]:
    """The bus's own certificates, for the clock."""
    return [ending_of(settings.bus.origin, name, der) for name, der in _own_ders(settings).items()]


def _own_ders(settings: Settings) -> dict[str, bytes]:
    keyring = keyring_of(settings, attended=False)
    return {name: der_of_pem(keyring.certificate_path(name).read_bytes()) for name in OWN}


def own_certificate(settings: Settings, name: str) -> bytes:
    """One of the bus's own certificates in force, DER."""
    return _own_ders(settings)[name]


def anchors_of(settings: Settings) -> Anchors:
    """All that is trusted of this bus, to be handed to partners: what `init` wrote, and what the settings say of
    witnesses, timestamp authorities and the authorities in which bureaus' certificates end.

    Raises Misconfigured where a witness goes by the log's own name, of whichever epoch.
    """
    written = _written_anchors(settings)
    said, own = settings.witnesses, settings.at(settings.keys.folder) / "ca.pem"
    if any(f"{witness.name}/".startswith(f"{written.origin}/") for witness in said.witness):
        raise Misconfigured("config.setting", f"{settings.source}: a witness is named {written.origin}, as the log is")
    known = [*_certificates_in(own), *(der for one in city_authorities(settings) for der in one.certificates)]
    return msgspec.structs.replace(
        written,
        witnesses=said.witness,
        quorum=said.quorum,
        timestamp_certificates=[pki.pem_of(der).decode() for der in timestamp_roots(settings)],
        authorities=[pki.pem_of(der).decode() for der in known],
    )


def _written_anchors(settings: Settings) -> Anchors:
    """Of the anchors, what `init` and every change of keys wrote: what heads and receipts are held against."""
    return msgspec.json.decode((state_of(settings) / "anchors.json").read_bytes(), type=Anchors)


def timestamp_roots(settings: Settings) -> tuple[bytes, ...]:
    """The roots of the timestamp authorities, DER; none where no timestamps are made. Raises Misconfigured."""
    said = settings.timestamps
    if not said.urls and not said.certificates:
        return ()
    if not said.urls or not said.certificates:
        raise Misconfigured("config.setting", f"{settings.source}: [timestamps] urls and certificates go together")
    return _certificates_in(settings.at(said.certificates))


def open_coverage(settings: Settings, journal: Journal) -> Coverage | None:
    """How far the log lies under timestamps; None where none are demanded. Raises Misconfigured."""
    said, roots = settings.timestamps, timestamp_roots(settings)
    if not roots:
        return None
    if not 0 < said.every_s < said.alarm_s:
        raise Misconfigured("config.setting", f"{settings.source}: [timestamps] every_s must be less than alarm_s")
    rule = Rule(*(timedelta(seconds=limit) for limit in (said.alarm_s, said.pending_s, said.refused_s)))
    return Coverage(journal, Attestations(journal.database), roots, rule)


def journal_database(settings: Settings) -> Database:
    """Where the journal lies. Raises Misconfigured."""
    return _database(settings, settings.state.journal, "journal")


@contextmanager
def readable_journal(settings: Settings) -> Iterator[Path]:
    """The journal as the audit's verifier reads it: the file itself, or, of one on a server, a copy for the while."""
    state_of(settings)
    database = journal_database(settings)
    if isinstance(database, SqliteFile):
        yield database.path
        return
    with tempfile.TemporaryDirectory(prefix="yongtong-audit-") as folder:
        yield database.export(Path(folder))


def _database(settings: Settings, url: str, history: History) -> Database:
    if not url:
        return SqliteFile(settings.at(settings.state.folder), history)
    from exchange.postgres import PostgresSchema  # an embedded bus does not load a server's driver

    return PostgresSchema(url, history)


def open_store(settings: Settings) -> Store:
    """The store. Raises Misconfigured."""
    if not settings.state.store:
        return Store(Embedded(settings.at(settings.state.folder)))
    from exchange.store.served import Served

    return Store(Served(settings.state.store))


def store_database(settings: Settings) -> Database:
    """Where the store lies. Raises Misconfigured."""
    return _database(settings, settings.state.store, "store")


def open_journal(settings: Settings, before_commit: Callable[[Sequence[str]], None] = lambda _: None) -> Journal:
    """The journal, with the keys that sign its heads, receipts and reports. Raises Misconfigured without a bus.

    Where heads are known that it has lost, it is for reading alone.
    """
    state_of(settings)
    return _guarded(settings, _open_journal(settings, keyring_of(settings), before_commit))


def _open_journal(
    settings: Settings, keyring: Keyring, before_commit: Callable[[Sequence[str]], None] = lambda _: None
) -> Journal:
    answer = _answer_key(settings, keyring)
    return Journal(
        journal_database(settings),
        settings.bus.origin,
        _log_key(settings, keyring),
        utc_now,
        partial(issue_receipts, key=answer),
        partial(issue_reports, key=answer),
        before_commit,
        _former_log_key(settings),
    )


def _former_log_key(settings: Settings) -> SigningKey | None:
    """The log's former key, while the first head after it is not signed: a crash came between entry and signature."""
    database = journal_database(settings)
    keys = own_keys(database).get("log", [])
    if len(keys) < 2 or first_head_is_signed(database, keys[-1].first_size):
        return None
    return keyring_of(settings, stems={"log": keys[-2].stem}).load("log", certificate=False)


def _answer_key(settings: Settings, keyring: Keyring) -> SigningKey:
    """The key of answers, receipts and reports, with its certificate; signs as the settings say, or as it was said
    when it took the place of the first."""
    key = keyring.load("answer")
    if changed := own_keys(journal_database(settings)).get("answer"):
        _check_is(changed[-1], key.fingerprint)
        return key.signing_by(changed[-1].algorithm)
    try:
        return key.signing_by(settings.suites.signing)
    except Misconfigured as problem:
        raise Misconfigured(
            "config.fixed_at_init",
            f"the answer key: {problem}; it was made at init, so put [suites] signing back to that",
        ) from problem


def _log_key(settings: Settings, keyring: Keyring) -> SigningKey:
    """The key of the log's heads, of the kind that was fixed at init or when it took the place of the first."""
    key = keyring.load("log", certificate=False)
    if changed := own_keys(journal_database(settings)).get("log"):
        _check_is(changed[-1], log_key_octets(key.public_key).hex())
        return key
    if key.algorithm != settings.suites.checkpoints:
        raise Misconfigured(
            "config.fixed_at_init",
            f"the log key is for {key.algorithm}, fixed at init; put [suites] checkpoints back to that",
        )
    return key


def _check_is(wanted: OwnKey, found: str) -> None:
    if found != wanted.key:
        raise Misconfigured(
            "config.fixed_at_init",
            f"{wanted.stem}.key is not the {wanted.name} key in force, {wanted.key[:16]}…; put that one back",
        )


# --- heads that are known outside -------------------------------------------------------------------------------------


def heads_folder(settings: Settings) -> Path:
    """Where heads are kept that are known outside the database."""
    return settings.at(settings.state.heads)


def log_gap(settings: Settings, journal: Journal) -> Gap | None:
    """Whether the log lies behind a head that it signed. Raises Misconfigured for a file that holds no head of it."""
    anchors, heads = _written_anchors(settings), list[Checkpoint]()
    open_now = epoch_number(journal.log_name(), anchors.origin) or 1
    for path, text in texts_in(heads_folder(settings)).items():
        epoch = _epoch_in(anchors.origin, text)
        if epoch is None:
            raise Misconfigured(
                "config.file", f"{path}: a head of another log; take it out of the folder of this one's heads"
            )
        if epoch < open_now:
            continue  # nothing is signed any more under that name
        try:
            heads.append(known_head(settings, anchors, text))
        except Refusal as refusal:
            raise Misconfigured(
                "config.file", f"{path}: not a head that a key of this log signed ({refusal.detail})"
            ) from refusal
    return gap_of(journal, heads)


def known_head(settings: Settings, anchors: Anchors, text: str) -> Checkpoint:
    """A head that somebody shows, signed by the key of the anchors, or by any other in our own keys folder: of keys
    that came after a backup was made, the backup's anchors say nothing. Raises Refusal `audit.checkpoint_invalid`."""
    try:
        return anchors.head(text)
    except Refusal as refusal:
        name = text.partition("\n")[0]
        if epoch_number(name, anchors.origin) is None:
            raise
        for path in sorted(settings.at(settings.keys.folder).glob("log*.key")):
            key = keyring_of(settings, stems={"log": path.stem}).load("log", certificate=False).public_key
            with suppress(Refusal):
                return open_checkpoint(text, name, key)
        raise Refusal("audit.checkpoint_invalid", refusal.detail) from refusal


def _epoch_in(origin: str, text: str) -> int | None:
    return epoch_number(text.partition("\n")[0], origin)


def _guarded(settings: Settings, journal: Journal) -> Journal:
    """The same journal, which takes no entry where it lost some. Closed where that cannot be told."""
    try:
        gap = log_gap(settings, journal)
    except BaseException:
        journal.close()
        raise
    if gap:
        journal.take_nothing(str(gap))
    return journal


# --- changing its keys -----------------------------------------------------------------------------------------------


def make_next_key(settings: Settings, name: Changeable, kind: Kind, ground: str, now: datetime) -> AnchorBody:
    """A key, written beside the one in force, that may take its place once two persons have decided so.

    Raises Misconfigured where the key in force lies in a token: one there is changed by its own means.
    """
    keyring, folder = keyring_of(settings), settings.at(settings.keys.folder)
    if keyring.in_token(name):
        raise Misconfigured(
            "config.token", f"the {name} key lies in a token; only keys in files are changed by this command"
        )
    key = keys.generate(kind)
    if name == "log":
        body = AnchorBody(name, key.algorithm, log_key_octets(key.public_key).hex(), "", ground)
    else:
        by_pss = kind == "RS256" and _answer_key(settings, keyring).algorithm == "PS256"
        der = _next_answer_certificate(settings, key, now)
        algorithm: Algorithm = "PS256" if by_pss else key.algorithm
        body = AnchorBody(name, algorithm, sha256(der).hex, base64.b64encode(der).decode(), ground)
    stem = stem_of(name, body.key)
    opened_by = keyring.passphrase(name) or keyring.new_passphrase()  # as the one in force, so never less than that
    write_secret(folder / f"{stem}.key", key.pem(opened_by))
    if body.certificate:
        (folder / f"{stem}.pem").write_bytes(pki.pem_of(base64.b64decode(body.certificate)))
    return body


def _next_answer_certificate(settings: Settings, key: SigningKey, now: datetime) -> bytes:
    """By the bus's own CA, of which it says no more than the first: whether it is a demonstration's."""
    ca, demo = authority(settings), is_demo(own_certificate(settings, "answer"))
    subject = f"{settings.bus.origin} {DEMO} answer" if demo else f"{settings.bus.origin} answer"
    ends = ending_of(settings.bus.origin, "ca", ca.certificate_der).not_after
    until = min(now + timedelta(days=365 * KEY_YEARS), ends)
    return pki.issue(ca, subject, key.public_key, "signing", now - timedelta(hours=1), until)


def suite_of(settings: Settings, name: Changeable) -> Kind:
    """Of what kind one of the bus's own keys is."""
    keyring = keyring_of(settings)
    return kind_of(keyring.load(name, certificate=False).public_key)


def forget_next_key(settings: Settings, body: AnchorBody) -> None:
    """Take away a key that nobody put before a second person."""
    for ending in ("key", "pem"):
        (settings.at(settings.keys.folder) / f"{stem_of(body.name, body.key)}.{ending}").unlink(missing_ok=True)


def change_key(settings: Settings, id: str, body: AnchorBody, by: Officer) -> Anchors:
    """Let a decided key take the place of the one in force: its entry, of the log the head that both sign, and the
    anchors. Gives the anchors.

    The bus must stand still: a process that began before would go on with the former key.

    Raises Misconfigured while `serve` or a worker runs, or where the key's file is not the one that was decided on.
    """
    state = state_of(settings)
    with ExitStack() as stack:
        for lock in ("serve.lock", "worker.lock"):
            _alone(state / lock, stack, "stop serve first; from its next start on the new key signs")
        in_force = keyring_of(settings)
        answer, log_key = _answer_key(settings, in_force), _log_key(settings, in_force)
        next_one = keyring_of(settings, stems={body.name: stem_of(body.name, body.key)})
        loaded = next_one.load(body.name, certificate=body.name == "answer")
        new = OwnKey(body.name, 1, body.key, body.algorithm)
        _check_is(new, loaded.fingerprint if body.name == "answer" else log_key_octets(loaded.public_key).hex())
        of_init = {
            "answer": OwnKey("answer", 0, answer.fingerprint, answer.algorithm),
            "log": OwnKey("log", 0, log_key_octets(log_key.public_key).hex(), log_key.algorithm),
        }
        former = own_keys(journal_database(settings)).get(body.name, [of_init[body.name]])[-1]
        journal = stack.enter_context(
            closing(
                Journal(
                    journal_database(settings),
                    settings.bus.origin,
                    loaded if body.name == "log" else log_key,
                    utc_now,
                    partial(issue_receipts, key=answer),
                    partial(issue_reports, key=answer),
                    lambda _: None,
                    log_key if body.name == "log" else None,
                )
            )
        )
        _guarded(settings, journal)
        journal.resume()  # what is owed is signed by whoever was in force
        registry = stack.enter_context(closing(open_registry(settings, journal)))
        registry.change_key(id, former, by)
        return keep_anchors(settings, registry)


def make_epoch(settings: Settings, log: str, ground: str, known: Checkpoint | None, now: datetime) -> EpochBody:
    """A new epoch of the log: its name, and keys for log and answers, written beside those in force, of their kinds.

    known: the largest head that is known outside and that this log has not
    """
    key = make_next_key(settings, "log", suite_of(settings, "log"), ground, now)
    try:
        answer = make_next_key(settings, "answer", suite_of(settings, "answer"), ground, now)
    except Misconfigured:
        forget_next_key(settings, key)
        raise
    said = (known.size, known.root.hex(), known.origin) if known else (0, "", "")
    return EpochBody(log, key, answer, ground, *said)


def forget_epoch(settings: Settings, body: EpochBody) -> None:
    """Take away the keys of an epoch that nobody put before a second person."""
    for key in (body.key, body.answer):
        forget_next_key(settings, key)


def apart_of(settings: Settings) -> Apart | None:
    """The new epoch that is being decided beside a log that lost entries, or None."""
    path = state_of(settings) / APART
    try:
        return msgspec.json.decode(path.read_bytes(), type=Apart) if path.exists() else None
    except msgspec.MsgspecError as problem:
        raise Misconfigured("config.file", f"{path}: not what yongtong epoch propose wrote ({problem})") from problem


def keep_apart(settings: Settings, apart: Apart) -> None:
    """Keep how far that has come."""
    write_whole(state_of(settings) / APART, msgspec.json.encode(apart))


def open_epoch(settings: Settings, id: str, body: EpochBody, by: Officer, apart: Apart | None = None) -> Anchors:
    """Open a decided epoch: its first entry, its first head under its own name and key, and the anchors.

    apart: where the log lost entries, what two persons decided beside it

    The former keys sign what they owe, and nothing from there on. Raises Misconfigured as `change_key`, and Refusal
    `audit.log_behind` where the log lost entries and the decision is in it, which cannot speak of that.
    """
    state = state_of(settings)
    with ExitStack() as stack:
        for lock in ("serve.lock", "worker.lock"):
            _alone(state / lock, stack, "stop serve first; from its next start on the new keys sign")
        in_force = keyring_of(settings)
        answer, log_key = _answer_key(settings, in_force), _log_key(settings, in_force)
        next_ones = keyring_of(
            settings, stems={one.name: stem_of(one.name, one.key) for one in (body.key, body.answer)}
        )
        loaded = next_ones.load("log", certificate=False)
        _check_is(OwnKey("log", 1, body.key.key, body.key.algorithm), log_key_octets(loaded.public_key).hex())
        _check_is(OwnKey("answer", 1, body.answer.key, body.answer.algorithm), next_ones.load("answer").fingerprint)
        with closing(_open_journal(settings, in_force)) as journal:
            if (gap := log_gap(settings, journal)) and apart is None:
                raise Refusal("audit.log_behind", str(gap))
            journal.resume()  # what is owed is signed by whoever was in force
            last = journal.head(journal.checkpoint())
        former = [
            OwnKey("answer", 0, answer.fingerprint, answer.algorithm),
            OwnKey("log", 0, log_key_octets(log_key.public_key).hex(), log_key.algorithm),
        ]
        journal = stack.enter_context(
            closing(
                Journal(
                    journal_database(settings),
                    settings.bus.origin,
                    loaded,
                    utc_now,
                    partial(issue_receipts, key=answer),
                    partial(issue_reports, key=answer),
                    lambda _: None,
                    log_key,
                )
            )
        )
        registry = stack.enter_context(closing(open_registry(settings, journal)))
        had = own_keys(journal.database)
        if apart is not None:
            _leave_out_lost_changes(store_database(settings))
        registry.open_epoch(id, last, _seen(settings), [key for key in former if key.name not in had], by, apart)
        anchors = keep_anchors(settings, registry)
        (state / APART).unlink(missing_ok=True)
        return anchors


def _leave_out_lost_changes(store: Database) -> None:
    """A subscriber who was told of changes that were lost must not take the next ones for those."""
    with closing(store.connect()) as connection, store.transaction(connection) as cursor:
        cursor.execute("UPDATE change_counter SET last = last + ?", (LOST_CHANGES,))


def _seen(settings: Settings) -> Detail:
    """Up to where others have seen the log: what its thief wrote before that, they would know."""
    anchors = anchors_of(settings)
    with closing(Attestations(journal_database(settings))) as kept:
        witnessed = kept.newest_cosigned([witness.name for witness in anchors.witnesses], anchors.quorum)
        stamped = kept.last_stamped()
    return {"witnessed": witnessed.size if witnessed else 0, "stamped": stamped.size if stamped else 0}


def keep_anchors(settings: Settings, registry: Registry) -> Anchors:
    """The anchors with every change of keys that the log has, and all that the settings say; written where the file
    says less, which partners are handed.

    Raises AuditBroken where what the journal finds keys by is not what the log decided.
    """
    anchors, changes = anchors_of(settings), registry.key_changes()
    kept = {name: [key.key for key in found][1:] for name, found in own_keys(registry.journal.database).items()}
    decided: dict[str, list[str]] = {}
    begun = list[tuple[int, str]]()
    for index, body in changes:
        for key in (body.body.key, body.body.answer) if isinstance(body, EpochBegun) else (body,):
            decided.setdefault(key.name, []).append(key.key)
        begun += [(index + 1, body.body.log)] if isinstance(body, EpochBegun) else []
        anchors = changed_anchors(anchors, index, body)
    if kept != decided or epochs(registry.journal.database) != begun:
        raise AuditBroken("the keys that the journal names are not those that the log's decisions put in force")
    path = state_of(settings) / "anchors.json"
    if anchors != msgspec.json.decode(path.read_bytes(), type=Anchors):
        write_whole(path, msgspec.json.format(msgspec.json.encode(anchors)) + b"\n")
    return anchors


def open_registry(settings: Settings, journal: Journal, revocations: Revocations | None = None) -> Registry:
    """Bureaus, certificates, offices, grants and mappings, as the log's decisions have them.

    revocations: where somebody else here holds them already
    """
    founding = _origin(settings).founding
    return Registry(state_of(settings), journal, founding, utc_now, revocations or open_revocations(settings))


def open_revocations(settings: Settings) -> Revocations:
    """What the city's authorities said last of their certificates."""
    return Revocations(state_of(settings) / "revocation", city_authorities(settings))


def city_authorities(settings: Settings) -> tuple[CityAuthority, ...]:
    """The city's certificate authorities. Raises Misconfigured naming a file that holds no certificates."""
    return tuple(
        CityAuthority(_certificates_in(settings.at(one.certificates)), tuple(one.crl), one.ocsp, one.every_s)
        for one in settings.authority
    )


def _certificates_in(path: Path) -> tuple[bytes, ...]:
    try:
        return ders_of_pem(path.read_bytes())
    except (OSError, ValueError) as problem:
        raise Misconfigured("config.file", f"{path}: not a PEM file of certificates ({problem})") from problem


def feed_files(settings: Settings) -> dict[str, bytes]:
    """The feeds' files as they lie there, by their SHA-256, hex."""
    found = (path.read_bytes() for folder in settings.feeds.folders for path in settings.at(folder).glob("*.toml"))
    return {sha256(octets).hex: octets for octets in found}


def check_certificate(settings: Settings, certificate_der: bytes, now: datetime) -> Chain:
    """The chain of a bureau's certificate to the bus's own CA or one of the city's, if it holds now.

    Raises Refusal `chain.*`, whose detail names the certificate that is wrong.
    """
    own = der_of_pem((settings.at(settings.keys.folder) / "ca.pem").read_bytes())
    known = [certificate for one in city_authorities(settings) for certificate in one.certificates]
    return check_chain(certificate_der, (), (own, *known), now)


def open_bus(
    settings: Settings,
    wake: Callable[[], None] = lambda: None,
    revocations: Revocations | None = None,
    *,
    attended: bool = True,
) -> Bus:
    """Everything the stories work with. Raises Misconfigured naming what is missing.

    attended: a person at the terminal may be asked for what opens the keys
    """
    check_keys_placed(settings)
    keyring = keyring_of(settings, attended=attended)
    state, folder = state_of(settings), settings.at(settings.keys.folder)
    origin = _origin(settings)
    if (origin.origin, origin.edition) != (settings.bus.origin, settings.city.edition):
        raise Misconfigured(
            "config.fixed_at_init",
            f"{settings.source}: origin and edition were fixed at init as {origin.origin}, {origin.edition}",
        )
    said = settings.evidence
    key = _evidence_key(settings, origin)
    evidence = Evidence(evidence_place(settings), key, said.cipher, seal_all=said.seal == "all")
    journal = _open_journal(settings, keyring, evidence.sync)
    if gap := log_gap(settings, journal):
        journal.close()
        raise Refusal("audit.log_behind", str(gap))
    feeds = _feeds(settings)
    city = load_city(settings.at(settings.city.districts), settings.at(settings.city.grid), settings.city.extent)
    _check_divisions(settings, city)
    answer = _answer_key(settings, keyring)
    assert answer.certificate_der is not None
    return Bus(
        origin=settings.bus.origin,
        folder=state,
        limits=settings.limits,
        feeds=feeds,
        feed_digests={feed.id: feed.digest for feed in feeds.values()},
        registry=open_registry(settings, journal, revocations),
        journal=journal,
        evidence=evidence,
        store=open_store(settings),
        city=city,
        lists=validation.lists(settings.city.edition, grid=city.grid.codes, districts=city.districts.codes),
        schema=compile_schema(SCHEMA),
        answer_key=answer,
        answer_certificate_der=answer.certificate_der,
        outcome_secret=(folder / "outcome.secret").read_bytes(),
        replays=SharedReplays(journal.database) if journal.database.shared else OwnReplays(),
        uploads=Uploads(state / "uploads", timedelta(seconds=settings.limits.upload_s)),
        wake=wake,
        clock=utc_now,
        batch_deliveries=settings.worker.batch_deliveries,
        transformation_m=settings.tolerances.transformation_m,
        on_classified=settings.feeds.on_classified,
        xml_suites=settings.suites.xml,
        anchors=anchors_of(settings),
        attestations=Attestations(journal.database),
        coverage=open_coverage(settings, journal),
        stopped=Stopped(journal.ask),
        waits=waits_of(settings),
        territory=settings.territory.territory,
        districts=_districts(settings, state),
    )


def waits_of(settings: Settings) -> Waits:
    """Feeds that are tried again later."""
    said, folder = settings.worker, state_of(settings) / "waits"
    return Waits(folder, utc_now, secrets.SystemRandom().random, said.retry_first_s, said.retry_most_s)


def _check_divisions(settings: Settings, city: City) -> None:
    """A code that no polygon has would give nobody the divisions that it was meant to give somebody."""
    said = settings.territory
    unknown = {*said.divisions, *said.territory.delegated} - {*city.districts.codes}
    if unknown:
        raise Misconfigured(
            "config.setting", f"{settings.source}: [territory] no division of the city: {', '.join(sorted(unknown))}"
        )


def _districts(settings: Settings, state: Path) -> Districts:
    """The nodes to which divisions are delegated, by their centre's bureau. Raises Misconfigured."""
    found = {}
    for one in settings.territory.delegated:
        path = settings.at(one.anchors)
        try:
            anchors = msgspec.json.decode(path.read_bytes(), type=Anchors)
        except (OSError, msgspec.MsgspecError) as problem:
            raise Misconfigured(
                "config.anchors", f"{path}: not the anchors of the node of {one.bureau} ({problem})"
            ) from problem
        found[one.bureau] = District(one.bureau, anchors, state / "districts" / one.bureau, utc_now)
    return found


def reference_of(settings: Settings, key: SigningKey) -> Reference:
    """What district nodes fetch here: the files as they stand at the start."""
    files = dict(zip(PARTS, map(settings.at, (settings.city.districts, settings.city.grid)), strict=True))
    return make_reference(settings.bus.origin, settings.city.edition, files, state_of(settings), key)


def open_cascade(settings: Settings, bus: Bus) -> Cascade:
    """This node's way up to its city's. Raises Misconfigured where the settings name none."""
    said = settings.cascade
    if not said.city:
        raise Misconfigured(
            "config.setting", f"{settings.source}: [cascade] city names nobody to whom anything goes up"
        )
    folder = _partner_folder(settings)
    partner = Partner(folder, said.url, partial(verify_receipt, anchors=folder.anchors))
    upward = Upward(said.city, said.feed, said.records, said.deliveries_per_s)
    return Cascade(bus, upward, CityNode(folder, said.url), partner.push)


def fetch_reference(settings: Settings, journal: Journal) -> Listed | None:
    """Put in force what the city's node hands down, if it is news; None where it is not.

    Raises Refusal `reference.*`, or the city's own; Unavailable; Misconfigured where the settings name no folder.
    """
    said = settings.cascade
    if not said.reference:
        raise Misconfigured("config.setting", f"{settings.source}: [cascade] reference names no folder")
    folder = _partner_folder(settings)
    city, shelf = CityNode(folder, said.url), Shelf(settings.at(said.reference))
    listed = open_listed(city.reference(), folder.anchors)
    if not shelf.is_news(listed):
        return None
    shelf.adopt(listed, city.part, settings.city.edition, settings.city.extent, journal)
    return listed


def _partner_folder(settings: Settings) -> PartnerFolder:
    """The district centre's own folder, for its city's node."""
    path = settings.at(settings.cascade.partner)
    check_key_apart(settings, path)
    return PartnerFolder(path)


def evidence_place(settings: Settings) -> Place:
    """Where evidence lies: in the state folder, or in the bucket that the settings name. Raises Misconfigured."""
    if not settings.evidence.url:
        return EvidenceFolder(settings.at(settings.state.folder) / "evidence")
    from exchange.evidence_s3 import EvidenceBucket, s3_url  # a bus on a folder does not pay for the store's client

    return EvidenceBucket(s3_url(settings.evidence.url))


def _origin(settings: Settings) -> Origin:
    path = state_of(settings) / "origin.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Origin)
    except msgspec.MsgspecError as problem:
        raise Misconfigured(
            "config.other_version", f"{path}: not of a bus that this version can run: {problem}"
        ) from problem


def _evidence_key(settings: Settings, origin: Origin) -> SealingKey:
    """The key that `init` made. Another one would read nothing that was sealed, and seal what this one cannot read."""
    path = settings.at(settings.keys.folder) / "evidence.key"
    key = SealingKey.load(path)
    if key.fingerprint != origin.evidence_key:
        raise Misconfigured(
            "config.fixed_at_init", f"{path}: not the evidence key that this bus was made with; put that one back"
        )
    return key


def made(settings: Settings) -> bool:
    """Whether a bus stands there."""
    return (settings.at(settings.state.folder) / "origin.json").exists()


def state_of(settings: Settings) -> Path:
    """The state folder. Raises Misconfigured when no bus stands there yet."""
    state = settings.at(settings.state.folder)
    if not (state / "origin.json").exists():
        raise Misconfigured("config.no_bus", f"{state}: no bus here yet; make one with: yongtong init --edition 2007")
    return state


# --- backup and restore ----------------------------------------------------------------------------------------------


def make_backup(settings: Settings, path: Path, journal: Journal, by: str, say: Callable[[str], None]) -> Manifest:
    """Write a backup to a file while the bus serves, or not. by: pseudonym of who has it made, for the audit.

    Raises as `backup.make`.
    """
    backup.check_free(path)
    origin, now, state = _origin(settings), utc_now(), state_of(settings)
    sizes = [
        one.path.stat().st_size
        for one in (journal_database(settings), store_database(settings))
        if isinstance(one, SqliteFile)
    ]
    backup.check_room(path.parent, 2 * sum(sizes))
    id = f"b-{secrets.token_hex(6)}"
    # Before the copy, so that it has this entry: one made after it would be lost with all that is lost later.
    entry = journal.note(Entry(type="backup", outcome="begun", actor=by, detail={"id": id})).result().index
    key = _answer_key(settings, keyring_of(settings))
    with closing(open_store(settings)) as store, closing(evidence_place(settings)) as place:
        source = backup.Source(
            journal=journal.database,
            store=store_database(settings),
            turn=store.turn,
            evidence=place.open,
            small=lambda: {name: (state / name).read_bytes() for name in _small_files(state)},
            sign=lambda document: sign_document(document, KIND, key, now),
        )
        made = backup.Made(id=id, made_at=instant(now), entry=entry, **msgspec.structs.asdict(origin))
        return backup.make(path, source, made, say)


def _small_files(folder: Path) -> list[str]:
    """Small files of a state folder that are backed up, by their names in it."""
    found = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if SMALL.fullmatch(name))


class Restored(msgspec.Struct, frozen=True):
    """What was put back, and whether entries were lost since.

    state_root: of what stands, and of the backup; erasures: decisions that were carried out once and are to be again
    """

    found: restoring.Found
    state_root: str
    gap: Gap | None = None
    erasures: tuple[str, ...] = ()


def restore(settings: Settings, path: Path, known: Sequence[Path], say: Callable[[str], None]) -> Restored:
    """Put a backup back where no bus stands, on the engines that the settings name, or leave nothing behind.

    known: heads that others were shown, checkpoints or receipts; they are kept beside those that `serve` kept

    Raises Misconfigured where a bus stands; Refusal `backup.*`, `audit.checkpoint_invalid`.
    """
    check_keys_placed(settings)
    state = settings.at(settings.state.folder)
    journal, store = journal_database(settings), store_database(settings)
    texts = [head_text(one) for one in known]
    state.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        for lock in ("serve.lock", "worker.lock"):
            _alone(state / lock, stack, "stop serve first")
        if (state / RESTORING).exists() and not (state / "origin.json").exists():
            _take_away(state, journal, store)  # a restore before this one was cut short
        _nothing_stands(state, journal, store)
        stack.enter_context(backup.room_for(state))
        try:
            restored = _put_back(settings, path, texts, say)
        except BaseException:
            _take_away(state, journal, store)
            raise
        shutil.rmtree(state / RESTORING)
    with closing(open_journal(settings)) as opened, closing(open_registry(settings, opened)) as registry:
        again = tuple(one.id for one in to_repeat(heads_folder(settings), registry))
        return msgspec.structs.replace(restored, gap=log_gap(settings, opened), erasures=again)


def _put_back(settings: Settings, path: Path, known: Sequence[str], say: Callable[[str], None]) -> Restored:
    state = settings.at(settings.state.folder)
    journal, store, folder = journal_database(settings), store_database(settings), state / RESTORING
    folder.mkdir(mode=0o700)
    if path.exists():
        backup.check_room(state, 2 * path.stat().st_size)
    found = restoring.examine(path, folder, _answer_ders(settings), say)
    _check_of_this_bus(settings, found, folder)
    heads = [(known_head(settings, found.anchors, text), text) for text in known]
    say("正在写入数据库 putting store and journal back")
    restoring.put_back(folder, journal, store)
    (folder / "evidence").mkdir(exist_ok=True)
    if settings.evidence.url:
        with closing(evidence_place(settings)) as place:
            restoring.bring_evidence(folder / "evidence", place)
    else:
        (folder / "evidence").rename(state / "evidence")
    for name in _small_files(folder):
        if name != "origin.json":
            (state / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).rename(state / name)
    say("正在重新计算状态根 the state root anew, from what now stands")
    root = restoring.check_equal(found.manifest, journal, store, folder / "copies")
    durable_step("restore.equal:after")
    for head, text in heads:
        keep(heads_folder(settings), head, text)
    os.sync()
    # Last, so that a half-restored bus is not taken for one.
    write_whole(state / "origin.json", (folder / "origin.json").read_bytes())
    return Restored(found, root)


def check_backup(path: Path, settings: Settings | None, say: Callable[[str], None]) -> restoring.Found:
    """Verify a backup without restoring it. settings: of the bus that must have signed it; None: whichever it says."""
    with backup.room_for(path.parent), TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        certificates = None if settings is None else _answer_ders(settings)
        return restoring.examine(path, Path(folder), certificates, say, with_evidence=False)


def _nothing_stands(state: Path, journal: Database, store: Database) -> None:
    there = [str(state / name) for name in PUT_BACK if (state / name).exists()]
    there += [history for history, one in (("journal", journal), ("store", store)) if one.exists()]
    if there:
        raise Misconfigured(
            "config.bus_stands",
            f"{state} holds a bus, or part of one ({', '.join(there)}); nothing is put over it: stop it, move the "
            "state folder away (on PostgreSQL rename the schemas journal and store), and restore again",
        )


def _take_away(state: Path, journal: Database, store: Database) -> None:
    """All that a restore has put there, and nothing else: it began only where nothing stood."""
    for database in (journal, store):
        database.discard()
    for path in (state / name for name in (*PUT_BACK, RESTORING)):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _check_of_this_bus(settings: Settings, found: restoring.Found, folder: Path) -> None:
    """Return if a backup is of the bus that the settings name, and the keys folder has its keys. Raises Refusal."""
    origin = msgspec.json.decode((folder / "origin.json").read_bytes(), type=Origin)
    said = found.manifest
    stated = Origin(said.origin, said.edition, said.hash, said.evidence_key, said.founding)
    if origin != stated or (origin.origin, origin.edition) != (settings.bus.origin, settings.city.edition):
        raise Refusal("backup.other_bus", f"{said.origin}, {said.edition}"[:120])
    changed = own_keys(SqliteFile(folder, "journal"))
    keyring = keyring_of(settings, stems={name: of[-1].stem for name, of in changed.items()})
    answers = {sha256(der_of_pem(pem.encode())).hex for pem in found.anchors.receipt_certificates}
    if log_key_octets(keyring.load("log", certificate=False).public_key).hex() != found.anchors.log_key:
        raise Refusal("backup.other_keys", "log")
    if keyring.load("answer").fingerprint not in answers:
        raise Refusal("backup.other_keys", "answer")
    if SealingKey.load(settings.at(settings.keys.folder) / "evidence.key").fingerprint != origin.evidence_key:
        raise Refusal("backup.other_keys", "evidence")


def _answer_ders(settings: Settings) -> list[bytes]:
    """The certificates of all answer keys that lie in the keys folder, former ones too. Raises Misconfigured."""
    found = [der_of_pem(path.read_bytes()) for path in settings.at(settings.keys.folder).glob("answer*.pem")]
    if not found:
        raise Misconfigured(
            "config.keys_missing",
            f"{settings.at(settings.keys.folder)}: no keys here; they are kept apart from backups: put them back first",
        )
    return found


# --- running it ------------------------------------------------------------------------------------------------------


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
        shared = journal_database(settings).shared
        lock = _alone(
            state_of(settings) / "serve.lock", stack, "another serve runs on this state folder", shared=shared
        )
        if mqtt_listening is not None:  # for `doctor`, which would look at the port in the settings otherwise
            print(*mqtt_listening.getsockname()[:2], file=lock, flush=True)
        queue = queue_of(settings)
        _check_sharing(settings)
        woken = threading.Event()
        revocations = open_revocations(settings)
        bus = open_bus(settings, woken.set, revocations, attended=False)
        # Closed last: what is signed while the bus closes went out, too.
        stack.callback(HeadsOut(bus.journal.database, bus.journal.log_name(), heads_folder(settings)).close)
        stack.callback(bus.close)
        bus.journal.resume()
        reference = reference_of(settings, bus.answer_key)
        bus = msgspec.structs.replace(bus, anchors=keep_anchors(settings, bus.registry), reference=reference)
        remember_reads(bus)
        bus.uploads.sweep(utc_now())
        stack.callback(_look_after_evidence(bus))
        announcer = Announcer(
            open_queue(make_celery(queue), queue), partial(feeds_to_do, bus), woken, settings.worker.sweep_s
        )
        stack.callback(announcer.stop)
        keeper = WorkerKeeper(settings.source) if with_worker else None
        if keeper is not None:
            stack.callback(keeper.stop)
        for stop in _cascading(settings, bus, keeper):
            stack.callback(stop)
        tally = Tally(bus.journal, bus.folder / "tally.json", bus.feeds, utc_now())
        clock = ClockWatch(bus.clock, monotonic, timedelta(seconds=settings.alarms.clock_s))
        stack.callback(_watch_certificates(settings, bus, revocations, clock))
        stack.callback(_watch_timestamps(settings, bus, clock))
        stack.callback(beside(bus, tally, clock))
        accounts = AccountWatch(bus.journal, bus.store, bus.clock)
        stack.callback(watching(partial(on_duty, bus.journal.database, "accounts", accounts.run), "accounts"))
        replays = partial(on_duty, bus.journal.database, "replays", Replayer(bus).run)
        stack.callback(watching(replays, "replays"))
        tls = _server_tls(settings)
        app = make_app(bus, bus.folder / "spool", _scrapes(settings, bus, tally))
        asyncio.run(_doors(app, listening, tls, ready, partial(_mqtt, settings, bus, mqtt_listening)))


def queue_of(settings: Settings) -> Path | Rabbit:
    """What wakes the workers: a folder in the state folder, or this bus's queue at a RabbitMQ. Raises Misconfigured."""
    said = settings.worker
    if said.queue == "files":
        return settings.at(settings.state.folder) / "queue"
    file = settings.at(said.queue_password_file) if said.queue_password_file else None
    ca = settings.at(said.queue_ca) if said.queue_ca else settings.at(settings.keys.folder) / "ca.pem"
    return rabbit_of(said.queue, partial(secret_line, "queue", file), str(ca), f"yongtong.{settings.bus.origin}")


def _server_tls(settings: Settings) -> ssl.SSLContext:
    """TLS as the doors speak it: clients with certificates of the bus's own CA, and of the city's.

    Raises Misconfigured, also where the key lies in a token.
    """
    keyring, folder = keyring_of(settings, attended=False), settings.at(settings.keys.folder)
    authorities = [folder / "ca.pem", *(settings.at(one.certificates) for one in settings.authority)]
    return server_context(folder / "tls.pem", keyring.path("tls"), *authorities, passphrase=keyring.passphrase("tls"))


def _scrapes(settings: Settings, bus: Bus, tally: Tally) -> Scrapes:
    """What /metrics tells, and whom."""

    def standing() -> list[tuple[str, str]]:
        return [(one.alarm.code, one.alarm.severity) for one in read_book(bus.folder).standing.values()]

    metrics = Metrics(bus, tally, own_certificates(settings), standing)
    return Scrapes(settings.watch.networks, metrics)


def alarm_ways(settings: Settings, heard: Callable[[str, str], None] | None = None) -> dict[str, Way]:
    """The ways by which alarms leave, by name. heard: what a webhook's server says the time is.

    Raises Misconfigured naming a file that cannot be used.
    """
    said, ways = settings.alarms, dict[str, Way]()
    secret, password = (_alarm_secret(settings, path) for path in (said.webhook_secret_file, said.smtp_password_file))
    try:
        tls = ssl.create_default_context(cafile=str(settings.at(said.ca)) if said.ca else None)
    except OSError as problem:
        raise Misconfigured(
            "config.file", f"{settings.at(said.ca)}: not a PEM file of certificates ({problem})"
        ) from problem
    if said.webhook:
        ways["webhook"] = Webhook(said.webhook, settings.bus.origin, tls, secret, heard).send
    if said.smtp:
        server = MailServer(said.smtp, tls, said.smtp_user, password.decode())
        ways["mail"] = Mail(server, settings.bus.origin, said.sender, said.to).send
    return ways


def _alarm_secret(settings: Settings, path: str) -> bytes:
    """What such a file holds, without the line's end; nothing where none is named."""
    if not path:
        return b""
    file = settings.at(path)
    check_key_apart(settings, file)
    check_private([file])
    try:
        return file.read_bytes().rstrip(b"\r\n")
    except OSError as problem:
        raise Misconfigured("config.file", f"{file}: {problem.strerror}") from problem


def _watch_certificates(
    settings: Settings, bus: Bus, revocations: Revocations, clock: ClockWatch
) -> Callable[[], None]:
    """Start asking authorities and looking at the days that certificates have left; gives what ends it."""
    watch = CertificateWatch(
        revocations,
        bus.registry.certificates,
        own_certificates(settings),
        partial(fetch, heard=clock.heard),
        lambda: secrets.token_bytes(16),
        bus.clock,
    )
    return watching(watch.run, "certificates")


def _watch_timestamps(settings: Settings, bus: Bus, clock: ClockWatch) -> Callable[[], None]:
    """Start having the log's heads stamped, where the settings name who does; gives what ends it."""
    if bus.coverage is None:
        return lambda: None
    said, attestations = settings.timestamps, Attestations(bus.journal.database)
    authorities = Authorities(said.urls, timestamp_roots(settings), timedelta(seconds=said.every_s))
    asked = partial(fetch, heard=clock.heard)
    watch = TimestampWatch(bus.journal, attestations, bus.coverage, authorities, asked, bus.clock)
    ended = watching(partial(on_duty, bus.journal.database, "timestamps", watch.run), "timestamps")

    def stop() -> None:
        ended()
        attestations.close()

    return stop


def on_duty(database: Database, task: str, run: Callable[[threading.Event], None], stopping: threading.Event) -> None:
    """Run a task that one process does for all, once it is this one's."""
    while not stopping.is_set():
        try:
            with database.duty(task) as ours:
                if ours:
                    run(stopping)
        except FAILURES as problem:  # the server is away; whoever sees it first goes on
            log.warning("duty.lost task=%s reason=%s", task, problem)
        stopping.wait(DUTY_LOOK_S)


def _cascading(settings: Settings, bus: Bus, keeper: "WorkerKeeper | None") -> list[Callable[[], None]]:
    """Start what a district's node has to do with its city's: up what happened, down what to place by; what ends it."""
    said, started = settings.cascade, []
    if said.city:
        up = partial(open_cascade(settings, bus).run, every_s=said.every_s)
        started.append(watching(partial(on_duty, bus.journal.database, "cascade", up), "cascade up"))
    if said.reference:
        started.append(watching(partial(_fetch_references, settings, bus.journal, keeper), "cascade down"))
    return started


def _fetch_references(
    settings: Settings, journal: Journal, keeper: "WorkerKeeper | None", stop: threading.Event
) -> None:
    """Look for newer reference data on a rhythm; the worker begins anew with it, after its batch."""
    while not stop.is_set():
        try:
            listed = fetch_reference(settings, journal)
            if listed is not None:
                log.info("reference.adopted version=%s", listed.version)
                if keeper is not None:
                    keeper.renew()
        except ExchangeError as problem:
            code = problem.code if isinstance(problem, Refusal) else type(problem).__name__
            log.warning("reference.not_adopted reason=%s", code)
        except Exception as problem:  # the outermost loop: what trips one look must not end all later ones
            log.error("reference.failed at=%s", places(problem))
        stop.wait(settings.cascade.every_s)


def _look_after_evidence(bus: Bus) -> Callable[[], None]:
    """Sweep what a crash or a store that was away left, now and every day, and say where erasing would not erase;
    gives what ends it. The doors wait a moment for the first time and no longer: a long list goes on beside them."""
    looked = threading.Event()

    def say_copies() -> None:
        if kept := bus.evidence.keeps_copies():
            log.warning("evidence.copies_kept by=%s; what is erased goes on lying there", kept)

    def sweep() -> None:
        bus.evidence.sweep(bus.journal.evidence_files(), utc_now() - EVIDENCE_WAITS)

    def run(stopping: threading.Event) -> None:
        while True:
            for look in (say_copies, sweep):
                try:
                    look()
                except (OSError, *FAILURES) as problem:  # tomorrow again
                    log.warning("evidence.not_looked_after by=%s reason=%s", look.__name__, problem)
            looked.set()
            if stopping.wait(SWEEP_EVERY_S):
                return

    ended = watching(run, "evidence sweep")
    looked.wait(SWEPT_S)
    return ended


def watching(run: Callable[[threading.Event], None], name: str) -> Callable[[], None]:
    """Start a thread that asks others' servers; gives what ends it."""
    stopping = threading.Event()
    thread = threading.Thread(target=run, args=(stopping,), name=name, daemon=True)
    thread.start()

    def stop() -> None:
        stopping.set()
        thread.join(STOP_WATCH_S)  # it may be waiting for somebody's server, and has nothing that could be lost

    return stop


async def _doors(
    app: Starlette,
    listening: socket.socket,
    tls: ssl.SSLContext,
    ready: Callable[[], None],
    mqtt: Callable[[AsyncExitStack], Awaitable[None]],
) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        await mqtt(stack)
        await server.serve(app, listening, tls, stop, ready)


async def _mqtt(settings: Settings, bus: Bus, listening: socket.socket | None, stack: AsyncExitStack) -> None:
    """Open the second door until the stack closes: the embedded broker where there is one, then our own client."""
    if settings.mqtt.broker == "off":
        return
    if listening is not None:
        broker = _embedded(settings, bus, listening)
        await broker.start()
        stack.push_async_callback(broker.shutdown)
    said, client_id = settings.mqtt, f"{US}:{settings.bus.origin}"
    door = MqttDoor(
        bus,
        broker_address(settings, listening),
        f"{client_id}:{_place(bus.folder, stack)}" if said.shared else client_id,
        said.name,
        said.max_packet_bytes,
        group=share_group(bus.outcome_secret) if said.shared else "",
        drain_per_s=said.drain_per_s,
    )
    stopping = threading.Event()
    published = partial(on_duty, bus.journal.database, "changes", lambda stop: Publisher(bus, door.publish).run(stop))
    changes = threading.Thread(target=published, args=(stopping,), name="changes", daemon=True)
    stack.push_async_callback(asyncio.to_thread, changes.join)  # after the door, whose end fails what it waits for
    changes.start()
    door.start()
    stack.push_async_callback(door.stop)
    stack.callback(stopping.set)
    if not await door.ready(MQTT_READY_S):
        log.warning("mqtt.not_ready broker=%s; the other doors open, and it is tried on", settings.mqtt.broker)
    pushing = asyncio.create_task(_push_reports(bus, door))
    stack.callback(pushing.cancel)


async def _push_reports(bus: Bus, door: MqttDoor) -> None:
    """Push act two's reports, once that is this process's duty; what another had begun is gone on with."""
    while True:
        with contextlib.suppress(*FAILURES):  # the server is away; whoever sees it first goes on
            async with AsyncExitStack() as stack:
                duty = bus.journal.database.duty("reports")
                ours = await asyncio.to_thread(duty.__enter__)
                stack.push_async_callback(asyncio.to_thread, duty.__exit__, None, None, None)
                if ours:
                    await ReportPush(bus.journal, bus.folder / "reports-pushed", door.publish, door.busy).run()
        await asyncio.sleep(DUTY_LOOK_S)


def _check_sharing(settings: Settings) -> None:
    """Return if what the settings say of sharing a broker can be. Raises Misconfigured."""
    if settings.mqtt.shared and settings.mqtt.broker == "embedded":
        raise Misconfigured(
            "config.setting", f"{settings.source}: [mqtt] shared: the embedded broker is of one process; name a city's"
        )
    if settings.mqtt.drain_per_s < 0:
        raise Misconfigured(
            "config.setting", f"{settings.source}: [mqtt] drain_per_s = {settings.mqtt.drain_per_s}: write 0 or more"
        )


def share_group(secret: bytes) -> str:
    """The group in which this bus's processes share a broker's deliveries, which nobody else can name.

    Whoever subscribes in a group takes its share of the messages away, and Mosquitto with an ACL file lets every
    client subscribe to everything: it hands him nothing, and his share to nobody (measured).
    """
    return f"yongtong-{hmac.digest(secret, b'group of shared subscriptions', 'sha256').hex()[:16]}"


def _place(state: Path, stack: AsyncExitStack) -> str:
    """A name for this process among those of the bus, which it finds again when it is started again: HOST-1, HOST-2."""
    for number in itertools.count(1):
        file = (state / f"mqtt-{number}.lock").open("w")
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            stack.enter_context(file)
            return f"{socket.gethostname()}-{number}"
        file.close()
    raise AssertionError


def _embedded(settings: Settings, bus: Bus, listening: socket.socket) -> EmbeddedBroker:
    """The embedded broker, which lets nobody in without an enrolled certificate."""
    folder = settings.at(settings.keys.folder)
    tls = _server_tls(settings)
    tls.verify_mode = ssl.CERT_REQUIRED

    def bureau_of(der: bytes) -> str | None:
        carrier = carrier_of(der, bus.registry.trust(), bus.clock())
        return carrier.bureau if carrier else None

    def subscription_of(bureau: str) -> str:
        grant = subscription(bureau, bus)
        return grant.id if grant else ""

    rules = Rules(
        own_der=der_of_pem((folder / "tls.pem").read_bytes()),
        bureau_of=bureau_of,
        owner_of=lambda feed: bus.feeds[feed].bureau if feed in bus.feeds else None,
        subscription_of=subscription_of,
        holds_any=lambda bureau: any(
            grant.valid_from <= today(bus) <= grant.valid_until for grant in bus.registry.grants(bureau)
        ),
        signs_for=lambda bureau, other: signs_for(bureau, other, bus),
        refused=lambda refusal, der, remote: turn_away(refusal, "mqtt", der, remote, bus),
    )
    return EmbeddedBroker(listening, tls, rules, settings.mqtt.max_packet_bytes)


def broker_address(settings: Settings, listening: socket.socket | None = None) -> Address:
    """Where the bus's own client finds its broker. listening: the embedded one's socket."""
    mqtt, folder = settings.mqtt, settings.at(settings.keys.folder)
    keyring = keyring_of(settings, attended=False)
    tls = client_tls(
        str(settings.at(mqtt.certificate) if mqtt.certificate else folder / "tls.pem"),
        str(settings.at(mqtt.key) if mqtt.key else keyring.path("tls")),
        str(settings.at(mqtt.ca) if mqtt.ca else folder / "ca.pem"),
        None if mqtt.key else keyring.passphrase("tls"),
    )
    if listening is None:
        return address_of(mqtt.broker, tls)
    tls.check_hostname = False  # our own socket, by its address; the certificate is made out to public names
    host, port = listening.getsockname()[:2]
    return Address({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port, tls, (MQTTProtocolVersion.MQTTv311,))  # noqa: S104  # an address to call, not to listen on


class WorkerKeeper:
    """Keeps one worker process running beside the doors: started again, a second later, whenever it ends."""

    def __init__(self, settings_file: str) -> None:
        self._command = [sys.executable, "-P", "-m", "exchange.cli.main", "serve", "--role", "worker"]
        self._command += ["--settings", settings_file]
        # Told, for it could ask too late: of a parent that was killed meanwhile it is no child any more.
        self._environment = os.environ | {PARENT: str(os.getpid())}
        self._stopped = threading.Event()
        self._process = subprocess.Popen(self._command, env=self._environment)
        self._thread = threading.Thread(target=self._keep, name="worker keeper", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let the worker finish its batch, then end it."""
        self._stopped.set()
        self._process.terminate()
        self._thread.join()

    def renew(self) -> None:
        """Let the worker finish its batch, end it and start another, which reads its files anew."""
        self._process.terminate()

    def _keep(self) -> None:
        while True:
            code = self._process.wait()
            if self._stopped.wait(RESTART_S):
                return
            log.warning("worker.ended code=%s; starting it again", code)
            self._process = subprocess.Popen(self._command, env=self._environment)


def work(settings: Settings) -> None:
    """Be the worker: act two for every feed the queue names, until told to stop or the process that started it ends."""
    with ExitStack() as stack:
        limit = settings.worker.memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))  # a hostile workbook ends this process, not the machine
        threading.Thread(
            target=_end_with, args=(int(os.environ.get(PARENT, os.getppid())),), name="parent watch", daemon=True
        ).start()
        if not settings.state.store:
            _wait_alone(state_of(settings) / "worker.lock", stack)
        bus = open_bus(settings, attended=False)
        stack.callback(bus.close)
        bus.journal.resume()
        celery = make_celery(queue_of(settings))
        bus.waits.ended()
        register(celery, lambda feed: take_turn(feed, bus) if feed in bus.feeds else None)
        run_worker(celery)


def _end_with(parent: int) -> None:
    """End this process when its parent has ended: no orphan goes on working on a state folder."""
    while os.getppid() == parent:
        sleep(PARENT_LOOK_S)
    os.kill(os.getpid(), signal.SIGKILL)


def _alone(path: Path, stack: ExitStack, otherwise: str, *, shared: bool = False) -> TextIO:
    """Hold a lock file until the stack closes; it is empty then, for whoever holds it to say something. Raises
    Misconfigured with what to say when somebody else has it.

    shared: with others of its kind, but with nobody who must be alone
    """
    file = stack.enter_context(path.open("a"))
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError as problem:
        raise Misconfigured("config.serve_runs", f"{path.parent}: {otherwise}") from problem
    file.truncate(0)  # of whoever had it before
    return file


def _wait_alone(path: Path, stack: ExitStack) -> None:
    """Hold a lock file until the stack closes, once whoever has it is gone: two workers never share a file."""
    fcntl.flock(stack.enter_context(path.open("w")), fcntl.LOCK_EX)
