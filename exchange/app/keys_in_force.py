"""The bus's own keys and certificates: those in force, and where they may lie."""

import ssl
from collections.abc import Mapping
from typing import Final

from exchange.app import places
from exchange.http.tls import server_context
from exchange.key_places import check_demo_stays_here, check_private
from exchange.own_keys import Changeable, OwnKey, first_head_is_signed, own_keys
from exchange.settings import Settings
from security import pki, tokens
from security.checkpoint import log_key_octets
from security.errors import Misconfigured
from security.expiry import Ending, ending_of
from security.keyring import Keyring, a_person
from security.keys import Kind, SigningKey, der_of_pem, kind_of
from security.sealing import SealingKey

OWN: Final = ("ca", "tls", "answer")  # of each a key and a certificate lie in the keys folder
KEYS: Final = (*OWN, "log")
SECRETS: Final = ("outcome.secret", "evidence.key")
KEY_YEARS: Final = 10


def keyring_of(settings: Settings, *, attended: bool = True, stems: Mapping[str, str] | None = None) -> Keyring:
    """The bus's own keys that are in force. attended: a person at the terminal may be asked for what opens them.

    stems: of keys that are not in force, by what their files are called
    """
    said = settings.keys
    changed = own_keys(places.journal_database(settings)).values()
    stems = {**{keys[-1].name: keys[-1].stem for keys in changed}, **(stems or {})}
    references = {"answer": said.answer, "log": said.log, "ca": said.ca, "tls": said.tls}
    references |= dict.fromkeys((name for name, stem in stems.items() if stem != name), "")  # changed, so in the folder
    placed = {
        name: text if text.startswith(tokens.SCHEME) or not text else str(settings.at(text))
        for name, text in references.items()
    }
    opened_by = settings.at(said.passphrase_file) if said.passphrase_file else None
    return Keyring(settings.at(said.folder), placed, opened_by, a_person() if attended else None, stems)


def check_keys_placed(settings: Settings) -> None:
    """Return if no key, secret or passphrase lies in the state folder, or is open to other accounts.

    Raises Misconfigured naming the file, and of the state folder both.
    """
    keyring, folder = keyring_of(settings, attended=False), settings.at(settings.keys.folder)
    files = [keyring.path(name) for name in KEYS if not keyring.in_token(name)]
    files += [folder / name for name in SECRETS] + sorted(folder.glob("*.key"))
    named = (settings.keys.passphrase_file, settings.mqtt.key, settings.worker.queue_password_file)
    files += [settings.at(path) for path in named if path]
    systems = settings.at(settings.city.systems) if settings.city.systems else folder
    places.check_key_apart(settings, folder, systems, *systems.glob("*.toml"), *files)
    check_private(files)
    if places.heads_folder(settings).resolve().is_relative_to(settings.at(settings.state.folder).resolve()):
        raise Misconfigured(
            "config.setting",
            f"[state] heads = {settings.state.heads!r} lies in the state folder and would be lost with it; move it out",
        )


def serves_demo(settings: Settings) -> bool:
    """Whether the bus's keys are a demonstration's. Raises Misconfigured where it would be served off this machine."""
    places.state_of(settings)
    hosts = [settings.https.host, *([settings.mqtt.host] if settings.mqtt.broker == "embedded" else [])]
    return check_demo_stays_here(_own_ders(settings).values(), hosts)


def authority(settings: Settings) -> pki.Authority:
    """The bus's own CA, for enrolling bureaus that have no certificates of the city's."""
    key = keyring_of(settings).load("ca")
    assert key.certificate_der is not None
    return pki.Authority(key, key.certificate_der)


def own_certificates(settings: Settings) -> list[Ending]:
    """The bus's own certificates, for the clock."""
    return [ending_of(settings.bus.origin, name, der) for name, der in _own_ders(settings).items()]


def own_certificate(settings: Settings, name: str) -> bytes:
    """One of the bus's own certificates in force, DER."""
    return _own_ders(settings)[name]


def _own_ders(settings: Settings) -> dict[str, bytes]:
    keyring = keyring_of(settings, attended=False)
    return {name: der_of_pem(keyring.certificate_path(name).read_bytes()) for name in OWN}


def suite_of(settings: Settings, name: Changeable) -> Kind:
    """Of what kind one of the bus's own keys is."""
    keyring = keyring_of(settings)
    return kind_of(keyring.load(name, certificate=False).public_key)


def answer_key(settings: Settings, keyring: Keyring) -> SigningKey:
    """The key of answers, receipts and reports, with its certificate; signs as the settings say, or as it was said
    when it took the place of the first."""
    key = keyring.load("answer")
    if changed := own_keys(places.journal_database(settings)).get("answer"):
        check_is(changed[-1], key)
        return key.signing_by(changed[-1].algorithm)
    try:
        return key.signing_by(settings.suites.signing)
    except Misconfigured as problem:
        raise Misconfigured(
            "config.fixed_at_init",
            f"the answer key: {problem}; it was made at init, so put [suites] signing back to that",
        ) from problem


def log_key(settings: Settings, keyring: Keyring) -> SigningKey:
    """The key of the log's heads, of the kind that was fixed at init or when it took the place of the first."""
    key = keyring.load("log", certificate=False)
    if changed := own_keys(places.journal_database(settings)).get("log"):
        check_is(changed[-1], key)
        return key
    if key.algorithm != settings.suites.checkpoints:
        raise Misconfigured(
            "config.fixed_at_init",
            f"the log key is for {key.algorithm}, fixed at init; put [suites] checkpoints back to that",
        )
    return key


def former_log_key(settings: Settings) -> SigningKey | None:
    """The log's former key, while the first head after it is not signed: a crash came between entry and signature."""
    database = places.journal_database(settings)
    keys = own_keys(database).get("log", [])
    if len(keys) < 2 or first_head_is_signed(database, keys[-1].first_size):
        return None
    return keyring_of(settings, stems={"log": keys[-2].stem}).load("log", certificate=False)


def name_of(name: Changeable, key: SigningKey) -> str:
    """By what such a key goes in anchors and entries: of the log its octets, of answers the SHA-256 of the certificate;
    hex."""
    return key.fingerprint if name == "answer" else log_key_octets(key.public_key).hex()


def check_is(wanted: OwnKey, found: SigningKey) -> None:
    """Return if a key that was loaded is the one that is wanted. Raises Misconfigured naming its file."""
    if name_of(wanted.name, found) != wanted.key:
        raise Misconfigured(
            "config.fixed_at_init",
            f"{wanted.stem}.key is not the {wanted.name} key in force, {wanted.key[:16]}…; put that one back",
        )


def evidence_key(settings: Settings, origin: places.Origin) -> SealingKey:
    """The key that `init` made. Another one would read nothing that was sealed, and seal what this one cannot read."""
    path = settings.at(settings.keys.folder) / "evidence.key"
    key = SealingKey.load(path)
    if key.fingerprint != origin.evidence_key:
        raise Misconfigured(
            "config.fixed_at_init", f"{path}: not the evidence key that this bus was made with; put that one back"
        )
    return key


def server_tls(settings: Settings) -> ssl.SSLContext:
    """TLS as the doors speak it: clients with certificates of the bus's own CA, and of the city's.

    Raises Misconfigured, also where the key lies in a token.
    """
    keyring, folder = keyring_of(settings, attended=False), settings.at(settings.keys.folder)
    authorities = [folder / "ca.pem", *(settings.at(one.certificates) for one in settings.authority)]
    return server_context(folder / "tls.pem", keyring.path("tls"), *authorities, passphrase=keyring.passphrase("tls"))
