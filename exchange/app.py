"""The composition root: the only module that names a database, a broker, a key file."""

import asyncio
import fcntl
import os
import secrets
import ssl
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import IO, Final

import msgspec
from starlette.applications import Starlette

from exchange import validation
from exchange.bus import Bus
from exchange.evidence import Evidence
from exchange.http.app import make_app
from exchange.http.tls import server_context
from exchange.journal import Journal
from exchange.placing import load_city
from exchange.processing import process
from exchange.receipts import Anchors, issue_receipt, issue_report
from exchange.registry import Registry
from exchange.replays import Replays
from exchange.settings import Settings
from exchange.store.sqlite import Store
from mappings.codelists import edition as edition_of
from mappings.load import load_feeds
from scheduler.celery_app import make_celery
from scheduler.jobs import Announcer, register, run_worker
from security import keys, pki
from security.errors import Misconfigured
from security.keys import SigningKey
from security.xml import compile_schema

KEY_YEARS: Final = 10
SCHEMA: Final = Path(__file__).parent / "contracts" / "yongtong.xsd"


class Origin(msgspec.Struct, frozen=True):
    """What `init` fixes for the life of a bus: its name, master edition and the hash of its log."""

    origin: str
    edition: str
    hash: str


def utc_now() -> datetime:
    """Now, aware, UTC."""
    return datetime.now(UTC)


# --- making a bus ----------------------------------------------------------------------------------------------------


def initialise(settings: Settings, edition: str, now: datetime) -> Anchors:
    """Make a new bus: keys and certificates, an empty journal and store. Gives its trust anchors.

    edition: short name of the master class list. Raises Misconfigured if a bus stands there already.
    """
    state, folder = settings.at(settings.state.folder), settings.at(settings.keys.folder)
    if (state / "origin.json").exists():
        raise Misconfigured(f"{state} holds a bus already; an origin is made once. Name another [state] folder")
    if edition_of(edition).name != settings.city.edition:
        raise Misconfigured(f"{settings.source}: city.edition is {settings.city.edition!r}, not that of {edition!r}")
    state.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _make_keys(settings, folder, now)
    anchors = Anchors(
        origin=settings.bus.origin,
        log_key=SigningKey.load(folder / "log.key").public_pem().decode(),
        receipt_certificates=((folder / "answer.pem").read_text(),),
    )
    _write_json(state / "anchors.json", anchors)
    open_journal(settings).close()
    Store(state).close()
    # Last, so that a half-made bus is not taken for one.
    _write_json(state / "origin.json", Origin(settings.bus.origin, settings.city.edition, "SHA-256"))
    return anchors


def _make_keys(settings: Settings, folder: Path, now: datetime) -> None:
    """A small CA of the bus's own, and separate keys for TLS, answers and log; each file mode 0600."""
    until = now + timedelta(days=365 * KEY_YEARS)
    ca = pki.make_ca(f"{settings.bus.origin} CA", now)
    _write_key(folder, "ca", ca.key, ca.certificate_der)
    for name, use, sans in (("tls", "connection", settings.https.names), ("answer", "signing", [])):
        key = keys.generate("ES256")
        der = pki.issue(ca, f"{settings.bus.origin} {name}", key.public_key, use, now - timedelta(hours=1), until, sans)  # type: ignore[arg-type]  # a literal of the tuple above
        _write_key(folder, name, key, der)
    _write_key(folder, "log", keys.generate("EdDSA"), None)
    _write_secret(folder / "outcome.secret", secrets.token_bytes(32))


def _write_key(folder: Path, name: str, key: SigningKey, certificate_der: bytes | None) -> None:
    _write_secret(folder / f"{name}.key", key.pem())
    if certificate_der is not None:
        (folder / f"{name}.pem").write_bytes(pki.pem_of(certificate_der))


def _write_secret(path: Path, octets: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(octets)


def _write_json(path: Path, document: msgspec.Struct) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")


# --- opening it ------------------------------------------------------------------------------------------------------


def authority(settings: Settings) -> pki.Authority:
    """The bus's own CA, for enrolling bureaus that have no certificates of the city's."""
    folder = settings.at(settings.keys.folder)
    key = SigningKey.load(folder / "ca.key", certificate_path=folder / "ca.pem")
    assert key.certificate_der is not None
    return pki.Authority(key, key.certificate_der)


def anchors_of(settings: Settings) -> Anchors:
    """The public trust anchors that `init` wrote."""
    return msgspec.json.decode((_state(settings) / "anchors.json").read_bytes(), type=Anchors)


def open_journal(settings: Settings, before_commit: Callable[[], None] = lambda: None) -> Journal:
    """The journal, with the keys that sign its heads, receipts and reports."""
    folder = settings.at(settings.keys.folder)
    answer = SigningKey.load(folder / "answer.key", certificate_path=folder / "answer.pem")
    return Journal(
        settings.at(settings.state.folder),
        settings.bus.origin,
        SigningKey.load(folder / "log.key"),
        utc_now,
        partial(issue_receipt, key=answer),
        partial(issue_report, key=answer),
        before_commit,
    )


def open_registry(settings: Settings, journal: Journal) -> Registry:
    """Bureaus, certificates and grants."""
    return Registry(_state(settings), journal, utc_now)


def open_bus(settings: Settings, wake: Callable[[], None] = lambda: None) -> Bus:
    """Everything the stories work with. Raises Misconfigured naming what is missing."""
    state, folder = _state(settings), settings.at(settings.keys.folder)
    origin = msgspec.json.decode((state / "origin.json").read_bytes(), type=Origin)
    if (origin.origin, origin.edition) != (settings.bus.origin, settings.city.edition):
        raise Misconfigured(f"{settings.source}: origin and edition were fixed at init as {origin.origin}, {origin.edition}")
    evidence = Evidence(state / "evidence")
    journal = open_journal(settings, evidence.sync)
    feeds = load_feeds(settings.at(path) for path in settings.feeds.folders)
    city = load_city(settings.at(settings.city.districts), settings.at(settings.city.grid), settings.city.extent)
    answer = SigningKey.load(folder / "answer.key", certificate_path=folder / "answer.pem")
    assert answer.certificate_der is not None
    return Bus(
        origin=settings.bus.origin,
        folder=state,
        limits=settings.limits,
        feeds=feeds,
        feed_digests={feed.id: feed.digest for feed in feeds.values()},
        registry=open_registry(settings, journal),
        journal=journal,
        evidence=evidence,
        store=Store(state),
        city=city,
        lists=validation.lists(settings.city.edition, city.grid.codes),
        schema=compile_schema(SCHEMA),
        answer_key=answer,
        answer_certificate_der=answer.certificate_der,
        outcome_secret=(folder / "outcome.secret").read_bytes(),
        replays=Replays(),
        wake=wake,
        clock=utc_now,
        batch_deliveries=settings.worker.batch_deliveries,
        transformation_m=settings.tolerances.transformation_m,
    )


def _state(settings: Settings) -> Path:
    state = settings.at(settings.state.folder)
    if not (state / "origin.json").exists():
        raise Misconfigured(f"{state}: no bus here yet; make one with: yongtong init --edition 2007")
    return state
