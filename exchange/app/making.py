"""Making a bus: its keys, its founding, its anchors."""

import secrets
from collections.abc import Sequence
from contextlib import ExitStack, closing
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import msgspec

from exchange.app import keys_in_force, opening, places, trusted
from exchange.decision_documents import Officer, Role
from exchange.key_places import DEMO
from exchange.known_heads import texts_in
from exchange.registry import Registry
from exchange.settings import Settings
from mappings.codelists import edition as edition_of
from security import keys, pki
from security.anchors import Anchors
from security.checkpoint import log_key_octets
from security.errors import Misconfigured
from security.keyring import Keyring
from security.keys import Kind, SigningKey
from security.sealing import KEY_BYTES, SealingKey

Founder = tuple[Officer, Role, str]  # who, in which office, of which bureau


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
    keyring = keys_in_force.keyring_of(settings)
    _make_keys(settings, keyring, folder, f"{settings.bus.origin} {DEMO}" if demo else settings.bus.origin, now)
    founding = _found(settings, state, keyring, founders)
    anchors = Anchors(
        origin=settings.bus.origin,
        log_key=log_key_octets(keys_in_force.log_key(settings, keyring).public_key).hex(),
        receipt_certificates=[(folder / "answer.pem").read_text()],
        log_key_kind=settings.suites.checkpoints,
        xml_sm2_signature=settings.suites.xml_sm2_signature,
        xml_sm3_digest=settings.suites.xml_sm3_digest,
        founding=founding,
    )
    _write_json(state / "anchors.json", anchors)
    opening.open_store(settings).close()
    # Last, so that a half-made bus is not taken for one.
    fingerprint = SealingKey.load(folder / "evidence.key").fingerprint
    origin = places.Origin(settings.bus.origin, settings.city.edition, "SHA-256", fingerprint, founding)
    _write_json(state / "origin.json", origin)
    return anchors


def no_bus_yet(settings: Settings) -> None:
    """Return if a bus may be made there. Raises Misconfigured if one stands there already, or keys would lie in it."""
    keys_in_force.check_keys_placed(settings)
    if places.made(settings):
        state = settings.at(settings.state.folder)
        raise Misconfigured(
            "config.bus_stands", f"{state} holds a bus already; an origin is made once. Name another [state] folder"
        )
    known = [
        path
        for path, text in texts_in(places.heads_folder(settings)).items()
        if trusted.epoch_in(settings.bus.origin, text)
    ]
    if known:
        raise Misconfigured(
            "config.name_used",
            f"{known[0]}: a log named {settings.bus.origin} signed heads already, and a second one would sign others "
            "under its name; put the bus back with yongtong restore FILE, or name another [bus] origin",
        )


def _found(settings: Settings, state: Path, keyring: Keyring, founders: Sequence[Founder]) -> str:
    """The log's first entry: who holds which office, and which feeds' files count."""
    mappings = {feed.id: feed.digest for feed in opening.feeds_of(settings).values()}
    with ExitStack() as stack:
        journal = stack.enter_context(closing(opening.journal_by_keyring(settings, keyring)))
        registry = stack.enter_context(closing(Registry(state, journal, "", places.utc_now)))
        return registry.found(founders, mappings)


def _make_keys(settings: Settings, keyring: Keyring, folder: Path, name: str, now: datetime) -> None:
    """A small CA of the bus's own, and separate keys for TLS, answers, log and evidence; each file mode 0600.

    name: with which the common names of their certificates begin
    A key that the settings place in a token must lie there already. Files go under the passphrase, where one is named.
    """
    until = now + timedelta(days=365 * keys_in_force.KEY_YEARS)
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
    places.write_secret(folder / "outcome.secret", secrets.token_bytes(32))
    places.write_secret(folder / "evidence.key", secrets.token_bytes(KEY_BYTES))


def _new_key(keyring: Keyring, name: str, kind: Kind) -> SigningKey:
    """A key made now and written to its file; or the one that lies in its token."""
    if keyring.in_token(name) and name != "tls":
        return keyring.load(name, certificate=False)
    path, key = keyring.path(name), keys.generate(kind)
    places.write_secret(path, key.pem(keyring.new_passphrase()))
    return key


def _write_json(path: Path, document: msgspec.Struct) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")
