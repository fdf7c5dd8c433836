"""The composition root: the only module that names a database, a broker, a key file."""

import asyncio
import fcntl
import logging
import os
import resource
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack, closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from time import sleep
from typing import Final

import msgspec
from paho.mqtt.enums import MQTTProtocolVersion
from starlette.applications import Starlette

from connectors.transports.fetch import fetch
from connectors.transports.mqtt import Address, address_of, client_tls
from exchange import validation
from exchange.bus import Bus
from exchange.certificate_watch import CertificateWatch
from exchange.decisions import Officer, Role
from exchange.evidence import Evidence
from exchange.http import server
from exchange.http.app import make_app
from exchange.http.tls import server_context
from exchange.intake import remember_reads, signs_for, turn_away
from exchange.journal import Journal
from exchange.mqtt.broker import US, EmbeddedBroker, Rules
from exchange.mqtt.door import MqttDoor
from exchange.mqtt.reports import ReportPush
from exchange.placing import load_city
from exchange.processing import process
from exchange.publication import Publisher, subscription, today
from exchange.receipts import issue_receipt, issue_report
from exchange.registry import Registry
from exchange.replays import Replays
from exchange.revocation import CityAuthority, Revocations
from exchange.settings import Settings
from exchange.store.sqlite import Store
from exchange.uploads import Uploads
from mappings.codelists import edition as edition_of
from mappings.feed import Feed
from mappings.load import load_feeds
from scheduler.celery_app import make_celery
from scheduler.jobs import Announcer, register, run_worker
from security import keys, pki, tokens
from security.anchors import Anchors
from security.authenticate import carrier_of
from security.chain import Chain, check_chain
from security.checkpoint import log_key_octets
from security.errors import Misconfigured
from security.expiry import Ending, ending_of
from security.keyring import Keyring, a_person
from security.keys import Kind, SigningKey, der_of_pem, ders_of_pem
from security.message import sha256
from security.sealing import KEY_BYTES, SealingKey
from security.xml import compile_schema

log = logging.getLogger("yongtong.app")

RESTART_S: Final = 1.0
MQTT_READY_S: Final = 10.0  # how long the doors wait for the broker before they open without it
PARENT_LOOK_S: Final = 0.5
EVIDENCE_WAITS: Final = timedelta(hours=1)  # what a crash left without an inbox row is swept at a later start
STOP_WATCH_S: Final = 2.0
KEY_YEARS: Final = 10
OWN: Final = ("ca", "tls", "answer")  # of each a key and a certificate lie in the keys folder
SCHEMA: Final = Path(__file__).parent / "contracts" / "yongtong.xsd"


class Origin(msgspec.Struct, frozen=True):
    """What `init` fixes for the life of a bus: its name, master edition, the hash of its log, by its fingerprint the
    key of sealed evidence, and the digest of the document with which it was founded."""

    origin: str
    edition: str
    hash: str
    evidence_key: str
    founding: str


def utc_now() -> datetime:
    """Now, aware, UTC."""
    return datetime.now(UTC)


# --- making a bus ----------------------------------------------------------------------------------------------------


Founder = tuple[Officer, Role, str]  # who, in which office, of which bureau


def keyring_of(settings: Settings, *, attended: bool = True) -> Keyring:
    """The bus's own keys. attended: a person at the terminal may be asked for what opens them."""
    said = settings.keys
    references = {"answer": said.answer, "log": said.log, "ca": said.ca, "tls": said.tls}
    placed = {
        name: text if text.startswith(tokens.SCHEME) or not text else str(settings.at(text))
        for name, text in references.items()
    }
    opened_by = settings.at(said.passphrase_file) if said.passphrase_file else None
    return Keyring(settings.at(said.folder), placed, opened_by, a_person() if attended else None)


def initialise(settings: Settings, edition: str, founders: Sequence[Founder], now: datetime) -> Anchors:
    """Make a new bus: keys and certificates, a journal that begins with its founding, a store. Gives its trust anchors.

    edition:  short name of the master class list
    founders: who holds which office from the start; two of them at least are security officers, and sign

    Raises Misconfigured if a bus stands there already; Refusal `founding.too_few`, `role.held_already`.
    """
    no_bus_yet(settings)
    state, folder = settings.at(settings.state.folder), settings.at(settings.keys.folder)
    _ = settings.suites.xml  # a bad name stops here, not at the first signature
    if edition_of(edition) != edition_of(settings.city.edition):
        raise Misconfigured(f"{settings.source}: city.edition is {settings.city.edition!r}, not that of {edition!r}")
    state.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    keyring = keyring_of(settings)
    _make_keys(settings, keyring, folder, now)
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
    Store(state).close()
    # Last, so that a half-made bus is not taken for one.
    fingerprint = SealingKey.load(folder / "evidence.key").fingerprint
    origin = Origin(settings.bus.origin, settings.city.edition, "SHA-256", fingerprint, founding)
    _write_json(state / "origin.json", origin)
    return anchors


def no_bus_yet(settings: Settings) -> None:
    """Return if a bus may be made there. Raises Misconfigured if one stands there already."""
    state = settings.at(settings.state.folder)
    if (state / "origin.json").exists():
        raise Misconfigured(f"{state} holds a bus already; an origin is made once. Name another [state] folder")


def _found(settings: Settings, state: Path, keyring: Keyring, founders: Sequence[Founder]) -> str:
    """The log's first entry: who holds which office, and which feeds' files count."""
    mappings = {feed.id: feed.digest for feed in _feeds(settings).values()}
    with ExitStack() as stack:
        journal = stack.enter_context(closing(_open_journal(settings, state, keyring)))
        registry = stack.enter_context(closing(Registry(state, journal, "", utc_now)))
        return registry.found(founders, mappings)


def _feeds(settings: Settings) -> dict[str, Feed]:
    return load_feeds(settings.at(path) for path in settings.feeds.folders)


def _make_keys(settings: Settings, keyring: Keyring, folder: Path, now: datetime) -> None:
    """A small CA of the bus's own, and separate keys for TLS, answers, log and evidence; each file mode 0600.

    A key that the settings place in a token must lie there already. Files go under the passphrase, where one is named.
    """
    until = now + timedelta(days=365 * KEY_YEARS)
    signing = settings.suites.signing
    made = partial(_new_key, keyring)
    keyring.path("tls")
    for name in ("answer", "log", "ca"):
        if keyring.in_token(
            name
        ):  # first, before any file is written: what is wrong with it is put right, and init again
            keyring.load(name, certificate=False)
    # TLS asks for a key of the standard's, whatever the city signs with.
    tls, answer = made("tls", "ES256"), made("answer", "RS256" if signing == "PS256" else signing)
    ca = pki.make_ca(f"{settings.bus.origin} CA", now, key=made("ca", "ES256"))
    issued = partial(pki.issue, ca, not_before=now - timedelta(hours=1), not_after=until)
    names = f"{settings.bus.origin} tls", f"{settings.bus.origin} answer"
    certificates = {
        "ca": ca.certificate_der,
        "tls": issued(names[0], tls.public_key, "connection", sans=settings.https.names),
        "answer": issued(names[1], answer.public_key, "signing"),
    }
    made("log", settings.suites.checkpoints)
    for name, certificate_der in certificates.items():
        (folder / f"{name}.pem").write_bytes(pki.pem_of(certificate_der))
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
        raise Misconfigured(f"{path}: {problem.strerror}; no key is ever written over") from problem
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
    folder = settings.at(settings.keys.folder)
    ders = {name: der_of_pem((folder / f"{name}.pem").read_bytes()) for name in OWN}
    return [ending_of(settings.bus.origin, name, der) for name, der in ders.items()]


def anchors_of(settings: Settings) -> Anchors:
    """The public trust anchors that `init` wrote."""
    return msgspec.json.decode((state_of(settings) / "anchors.json").read_bytes(), type=Anchors)


def open_journal(settings: Settings, before_commit: Callable[[], None] = lambda: None) -> Journal:
    """The journal, with the keys that sign its heads, receipts and reports. Raises Misconfigured without a bus."""
    return _open_journal(settings, state_of(settings), keyring_of(settings), before_commit)


def _open_journal(
    settings: Settings, state: Path, keyring: Keyring, before_commit: Callable[[], None] = lambda: None
) -> Journal:
    answer = _answer_key(settings, keyring)
    return Journal(
        state,
        settings.bus.origin,
        _log_key(settings, keyring),
        utc_now,
        partial(issue_receipt, key=answer),
        partial(issue_report, key=answer),
        before_commit,
    )


def _answer_key(settings: Settings, keyring: Keyring) -> SigningKey:
    """The key of answers, receipts and reports, with its certificate; signs as the settings say."""
    key = keyring.load("answer")
    try:
        return key.signing_by(settings.suites.signing)
    except Misconfigured as problem:
        raise Misconfigured(
            f"the answer key: {problem}; it was made at init, so put [suites] signing back to that"
        ) from problem


def _log_key(settings: Settings, keyring: Keyring) -> SigningKey:
    """The key of the log's heads, of the kind that was fixed at init."""
    key = keyring.load("log", certificate=False)
    if key.algorithm != settings.suites.checkpoints:
        raise Misconfigured(f"the log key is for {key.algorithm}, fixed at init; put [suites] checkpoints back to that")
    return key


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
        raise Misconfigured(f"{path}: not a PEM file of certificates ({problem})") from problem


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
    keyring = keyring_of(settings, attended=attended)
    state, folder = state_of(settings), settings.at(settings.keys.folder)
    origin = _origin(settings)
    if (origin.origin, origin.edition) != (settings.bus.origin, settings.city.edition):
        raise Misconfigured(
            f"{settings.source}: origin and edition were fixed at init as {origin.origin}, {origin.edition}"
        )
    said = settings.evidence
    key = _evidence_key(settings, origin)
    evidence = Evidence(state / "evidence", key, said.cipher, seal_all=said.seal == "all")
    journal = _open_journal(settings, state, keyring, evidence.sync)
    feeds = _feeds(settings)
    city = load_city(settings.at(settings.city.districts), settings.at(settings.city.grid), settings.city.extent)
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
        store=Store(state),
        city=city,
        lists=validation.lists(settings.city.edition, grid=city.grid.codes, districts=city.districts.codes),
        schema=compile_schema(SCHEMA),
        answer_key=answer,
        answer_certificate_der=answer.certificate_der,
        outcome_secret=(folder / "outcome.secret").read_bytes(),
        replays=Replays(),
        uploads=Uploads(state / "uploads", timedelta(seconds=settings.limits.upload_s)),
        wake=wake,
        clock=utc_now,
        batch_deliveries=settings.worker.batch_deliveries,
        transformation_m=settings.tolerances.transformation_m,
        on_classified=settings.feeds.on_classified,
        xml_suites=settings.suites.xml,
    )


def _origin(settings: Settings) -> Origin:
    path = state_of(settings) / "origin.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Origin)
    except msgspec.MsgspecError as problem:
        raise Misconfigured(f"{path}: not of a bus that this version can run: {problem}") from problem


def _evidence_key(settings: Settings, origin: Origin) -> SealingKey:
    """The key that `init` made. Another one would read nothing that was sealed, and seal what this one cannot read."""
    path = settings.at(settings.keys.folder) / "evidence.key"
    key = SealingKey.load(path)
    if key.fingerprint != origin.evidence_key:
        raise Misconfigured(f"{path}: not the evidence key that this bus was made with; put that one back")
    return key


def state_of(settings: Settings) -> Path:
    """The state folder. Raises Misconfigured when no bus stands there yet."""
    state = settings.at(settings.state.folder)
    if not (state / "origin.json").exists():
        raise Misconfigured(f"{state}: no bus here yet; make one with: yongtong init --edition 2007")
    return state


# --- running it ------------------------------------------------------------------------------------------------------


def serve(
    settings: Settings,
    listening: socket.socket,
    mqtt_listening: socket.socket | None,
    *,
    with_worker: bool,
    ready: Callable[[], None],
) -> None:
    """Open the doors until SIGTERM or SIGINT; with_worker also keeps one worker process alive beside them.

    mqtt_listening: for the embedded broker, None where there is none
    """
    with ExitStack() as stack:
        _alone(state_of(settings) / "serve.lock", stack, "another serve runs on this state folder")
        broker = settings.at(settings.state.folder) / "queue"
        celery = make_celery(broker)
        woken = threading.Event()
        revocations = open_revocations(settings)
        bus = open_bus(settings, woken.set, revocations, attended=False)
        stack.callback(bus.close)
        bus.journal.resume()
        remember_reads(bus)
        bus.uploads.sweep(utc_now())
        bus.evidence.sweep(bus.journal.evidence_files(), utc_now() - EVIDENCE_WAITS)
        announcer = Announcer(celery, broker, bus.journal.feeds_waiting, woken, settings.worker.sweep_s)
        stack.callback(announcer.stop)
        if with_worker:
            keeper = WorkerKeeper(settings.source)
            stack.callback(keeper.stop)
        stack.callback(_watch_certificates(settings, bus, revocations))
        tls = _server_tls(settings)
        app = make_app(bus, bus.folder / "spool")
        asyncio.run(_doors(app, listening, tls, ready, partial(_mqtt, settings, bus, mqtt_listening)))


def _server_tls(settings: Settings) -> ssl.SSLContext:
    """TLS as the doors speak it: clients with certificates of the bus's own CA, and of the city's.

    Raises Misconfigured, also where the key lies in a token.
    """
    keyring, folder = keyring_of(settings, attended=False), settings.at(settings.keys.folder)
    authorities = [folder / "ca.pem", *(settings.at(one.certificates) for one in settings.authority)]
    return server_context(folder / "tls.pem", keyring.path("tls"), *authorities, passphrase=keyring.passphrase("tls"))


def _watch_certificates(settings: Settings, bus: Bus, revocations: Revocations) -> Callable[[], None]:
    """Start asking authorities and looking at the days that certificates have left; gives what ends it."""
    watch = CertificateWatch(
        revocations,
        bus.registry.certificates,
        own_certificates(settings),
        fetch,
        lambda: secrets.token_bytes(16),
        bus.clock,
    )
    stopping = threading.Event()
    thread = threading.Thread(target=watch.run, args=(stopping,), name="certificates", daemon=True)
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
    client_id = f"{US}:{settings.bus.origin}"
    address = broker_address(settings, listening)
    door = MqttDoor(bus, address, client_id, settings.mqtt.name, settings.mqtt.max_packet_bytes)
    stopping = threading.Event()
    changes = threading.Thread(target=Publisher(bus, door.publish).run, args=(stopping,), name="changes", daemon=True)
    stack.push_async_callback(asyncio.to_thread, changes.join)  # after the door, whose end fails what it waits for
    changes.start()
    door.start()
    stack.push_async_callback(door.stop)
    stack.callback(stopping.set)
    if not await door.ready(MQTT_READY_S):
        log.warning("mqtt.not_ready broker=%s; the other doors open, and it is tried on", settings.mqtt.broker)
    pushing = asyncio.create_task(ReportPush(bus.journal, bus.folder / "reports-pushed", door.publish, door.busy).run())
    stack.callback(pushing.cancel)


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
        self._command = [sys.executable, "-m", "exchange.cli.main", "serve", "--role", "worker"]
        self._command += ["--settings", settings_file]
        self._stopped = threading.Event()
        self._process = subprocess.Popen(self._command)
        self._thread = threading.Thread(target=self._keep, name="worker keeper", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let the worker finish its batch, then end it."""
        self._stopped.set()
        self._process.terminate()
        self._thread.join()

    def _keep(self) -> None:
        while True:
            code = self._process.wait()
            if self._stopped.wait(RESTART_S):
                return
            log.warning("worker.ended code=%s; starting it again", code)
            self._process = subprocess.Popen(self._command)


def work(settings: Settings) -> None:
    """Be the worker: act two for every feed the queue names, until told to stop or the process that started it ends."""
    with ExitStack() as stack:
        limit = settings.worker.memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))  # a hostile workbook ends this process, not the machine
        threading.Thread(target=_end_with, args=(os.getppid(),), name="parent watch", daemon=True).start()
        _wait_alone(state_of(settings) / "worker.lock", stack)
        bus = open_bus(settings, attended=False)
        stack.callback(bus.close)
        bus.journal.resume()
        celery = make_celery(settings.at(settings.state.folder) / "queue")
        register(celery, lambda feed: process(feed, bus) if feed in bus.feeds else None)
        run_worker(celery)


def _end_with(parent: int) -> None:
    """End this process when its parent has ended: no orphan goes on working on a state folder."""
    while os.getppid() == parent:
        sleep(PARENT_LOOK_S)
    os.kill(os.getpid(), signal.SIGKILL)


def _alone(path: Path, stack: ExitStack, otherwise: str) -> None:
    """Hold a lock file until the stack closes. Raises Misconfigured with what to say when somebody else has it."""
    file = stack.enter_context(path.open("w"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as problem:
        raise Misconfigured(f"{path.parent}: {otherwise}") from problem


def _wait_alone(path: Path, stack: ExitStack) -> None:
    """Hold a lock file until the stack closes, once whoever has it is gone: two workers never share a store."""
    fcntl.flock(stack.enter_context(path.open("w")), fcntl.LOCK_EX)
