"""Changing a bus's keys and opening epochs of its log."""

import base64
from contextlib import ExitStack, closing
from datetime import datetime, timedelta
from typing import Final

import msgspec

from exchange.anchor_updates import changed_anchors
from exchange.app import keys_in_force, opening, places, trusted
from exchange.attestations import Attestations
from exchange.database import Database
from exchange.decision_documents import AnchorBody, Apart, EpochBody, Officer
from exchange.decisions import EpochBegun
from exchange.entry import Detail
from exchange.key_places import DEMO, is_demo
from exchange.own_keys import Changeable, OwnKey, epochs, own_keys, stem_of
from exchange.registry import Registry
from exchange.settings import Settings
from exchange.small_file import write_whole
from security import keys, pki
from security.anchors import Anchors
from security.checkpoint import Checkpoint, log_key_octets
from security.errors import AuditBroken, Misconfigured, Refusal
from security.expiry import ending_of
from security.keys import Algorithm, Kind, SigningKey
from security.message import sha256

APART: Final = "epoch-apart.json"
LOST_CHANGES: Final = 1_000_000_000  # numbers left out after a loss: some of them were told to subscribers


def make_next_key(settings: Settings, name: Changeable, kind: Kind, ground: str, now: datetime) -> AnchorBody:
    """A key, written beside the one in force, that may take its place once two persons have decided so.

    Raises Misconfigured where the key in force lies in a token: one there is changed by its own means.
    """
    keyring, folder = keys_in_force.keyring_of(settings), settings.at(settings.keys.folder)
    if keyring.in_token(name):
        raise Misconfigured(
            "config.token", f"the {name} key lies in a token; only keys in files are changed by this command"
        )
    key = keys.generate(kind)
    if name == "log":
        body = AnchorBody(name, key.algorithm, log_key_octets(key.public_key).hex(), "", ground)
    else:
        by_pss = kind == "RS256" and keys_in_force.answer_key(settings, keyring).algorithm == "PS256"
        der = _next_answer_certificate(settings, key, now)
        algorithm: Algorithm = "PS256" if by_pss else key.algorithm
        body = AnchorBody(name, algorithm, sha256(der).hex, base64.b64encode(der).decode(), ground)
    stem = stem_of(name, body.key)
    opened_by = keyring.passphrase(name) or keyring.new_passphrase()  # as the one in force, so never less than that
    places.write_secret(folder / f"{stem}.key", key.pem(opened_by))
    if body.certificate:
        (folder / f"{stem}.pem").write_bytes(pki.pem_of(base64.b64decode(body.certificate)))
    return body


def _next_answer_certificate(settings: Settings, key: SigningKey, now: datetime) -> bytes:
    """By the bus's own CA, of which it says no more than the first: whether it is a demonstration's."""
    ca, demo = keys_in_force.authority(settings), is_demo(keys_in_force.own_certificate(settings, "answer"))
    subject = f"{settings.bus.origin} {DEMO} answer" if demo else f"{settings.bus.origin} answer"
    ends = ending_of(settings.bus.origin, "ca", ca.certificate_der).not_after
    until = min(now + timedelta(days=365 * keys_in_force.KEY_YEARS), ends)
    return pki.issue(ca, subject, key.public_key, "signing", now - timedelta(hours=1), until)


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
    state = places.state_of(settings)
    with ExitStack() as stack:
        places.stand_still(state, stack, "stop serve first; from its next start on the new key signs")
        in_force = keys_in_force.keyring_of(settings)
        answer, log_key = keys_in_force.answer_key(settings, in_force), keys_in_force.log_key(settings, in_force)
        [loaded] = _next_keys(settings, body)
        of_init = {key.name: key for key in _of_init(answer, log_key)}
        former = own_keys(places.journal_database(settings)).get(body.name, [of_init[body.name]])[-1]
        signs = (loaded, log_key) if body.name == "log" else (log_key, None)
        journal = stack.enter_context(closing(opening.signed_journal(settings, answer, *signs)))
        opening.guarded(settings, journal)
        journal.resume()  # what is owed is signed by whoever was in force
        registry = stack.enter_context(closing(opening.open_registry(settings, journal)))
        registry.change_key(id, former, by)
        return keep_anchors(settings, registry)


def _next_keys(settings: Settings, *decided: AnchorBody) -> list[SigningKey]:
    """Keys that are to take others' places, loaded. Raises Misconfigured for one that is not what was decided on."""
    stems: dict[str, str] = {one.name: stem_of(one.name, one.key) for one in decided}
    keyring, loaded = keys_in_force.keyring_of(settings, stems=stems), list[SigningKey]()
    for one in decided:
        loaded.append(keyring.load(one.name, certificate=one.name == "answer"))
        keys_in_force.check_is(OwnKey(one.name, 1, one.key, one.algorithm), loaded[-1])
    return loaded


def _of_init(answer: SigningKey, log_key: SigningKey) -> list[OwnKey]:
    """Keys in force as those of `init`, which the journal names nowhere while none took their place."""
    found: dict[Changeable, SigningKey] = {"answer": answer, "log": log_key}
    return [OwnKey(name, 0, keys_in_force.name_of(name, key), key.algorithm) for name, key in found.items()]


def make_epoch(settings: Settings, log: str, ground: str, known: Checkpoint | None, now: datetime) -> EpochBody:
    """A new epoch of the log: its name, and keys for log and answers, written beside those in force, of their kinds.

    known: the largest head that is known outside and that this log has not
    """
    key = make_next_key(settings, "log", keys_in_force.suite_of(settings, "log"), ground, now)
    try:
        answer = make_next_key(settings, "answer", keys_in_force.suite_of(settings, "answer"), ground, now)
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
    path = places.state_of(settings) / APART
    try:
        return msgspec.json.decode(path.read_bytes(), type=Apart) if path.exists() else None
    except msgspec.MsgspecError as problem:
        raise Misconfigured("config.file", f"{path}: not what yongtong epoch propose wrote ({problem})") from problem


def keep_apart(settings: Settings, apart: Apart) -> None:
    """Keep how far that has come."""
    write_whole(places.state_of(settings) / APART, msgspec.json.encode(apart))


def open_epoch(settings: Settings, id: str, body: EpochBody, by: Officer, apart: Apart | None = None) -> Anchors:
    """Open a decided epoch: its first entry, its first head under its own name and key, and the anchors.

    apart: where the log lost entries, what two persons decided beside it

    The former keys sign what they owe, and nothing from there on. Raises Misconfigured as `change_key`, and Refusal
    `audit.log_behind` where the log lost entries and the decision is in it, which cannot speak of that.
    """
    state = places.state_of(settings)
    with ExitStack() as stack:
        places.stand_still(state, stack, "stop serve first; from its next start on the new keys sign")
        in_force = keys_in_force.keyring_of(settings)
        answer, log_key = keys_in_force.answer_key(settings, in_force), keys_in_force.log_key(settings, in_force)
        loaded, _ = _next_keys(settings, body.key, body.answer)
        with closing(opening.journal_by_keyring(settings, in_force)) as journal:
            if (gap := trusted.log_gap(settings, journal)) and apart is None:
                raise Refusal("audit.log_behind", str(gap))
            journal.resume()  # what is owed is signed by whoever was in force
            last = journal.head(journal.checkpoint())
        journal = stack.enter_context(closing(opening.signed_journal(settings, answer, loaded, log_key)))
        registry = stack.enter_context(closing(opening.open_registry(settings, journal)))
        had = own_keys(journal.database)
        if apart is not None:
            _leave_out_lost_changes(places.store_database(settings))
        former = [key for key in _of_init(answer, log_key) if key.name not in had]
        registry.open_epoch(id, last, _seen(settings), former, by, apart)
        anchors = keep_anchors(settings, registry)
        (state / APART).unlink(missing_ok=True)
        return anchors


def _leave_out_lost_changes(store: Database) -> None:
    """A subscriber who was told of changes that were lost must not take the next ones for those."""
    with closing(store.connect()) as connection, store.transaction(connection) as cursor:
        cursor.execute("UPDATE change_counter SET last = last + ?", (LOST_CHANGES,))


def _seen(settings: Settings) -> Detail:
    """Up to where others have seen the log: what its thief wrote before that, they would know."""
    anchors = trusted.anchors_of(settings)
    with closing(Attestations(places.journal_database(settings))) as kept:
        witnessed = kept.newest_cosigned([witness.name for witness in anchors.witnesses], anchors.quorum)
        stamped = kept.last_stamped()
    return {"witnessed": witnessed.size if witnessed else 0, "stamped": stamped.size if stamped else 0}


def keep_anchors(settings: Settings, registry: Registry) -> Anchors:
    """The anchors with every change of keys that the log has, and all that the settings say; written where the file
    says less, which partners are handed.

    Raises AuditBroken where what the journal finds keys by is not what the log decided.
    """
    anchors, changes = trusted.anchors_of(settings), registry.key_changes()
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
    if anchors != trusted.written_anchors(settings):
        write_whole(
            places.state_of(settings) / "anchors.json", msgspec.json.format(msgspec.json.encode(anchors)) + b"\n"
        )
    return anchors
