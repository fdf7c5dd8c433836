"""Opening a bus that stands there: its journal, its store, its register, all that the stories work with."""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from connectors.formats.records import DWG2DXF_OPTION
from exchange.app import keys_in_force, levels, places, trusted
from exchange.attestations import Attestations
from exchange.boundaries import Boundaries, InForce
from exchange.bus import Bus
from exchange.evidence import Evidence
from exchange.journal import Journal
from exchange.local_systems import LocalSystem, check_declared, check_residuals, read_systems
from exchange.packages import OUT
from exchange.placing import City, load_city
from exchange.receipts import issue_receipts, issue_reports
from exchange.registry import Registry
from exchange.replays import OwnReplays, SharedReplays
from exchange.revocation import Revocations
from exchange.settings import Settings
from exchange.stopped import Stopped
from exchange.store.embedded import Embedded
from exchange.store.store import Store
from exchange.timestamping import Coverage, Rule
from exchange.uploads import Uploads
from exchange.waits import Waits
from mappings.feed import Feed
from mappings.load import load_feeds
from security.errors import Misconfigured, Refusal
from security.keyring import Keyring
from security.keys import SigningKey
from security.message import sha256
from security.xml import compile_schema

SCHEMA: Final = Path(__file__).parents[1] / "contracts" / "yongtong.xsd"


def open_journal(settings: Settings, before_commit: Callable[[Sequence[str]], None] = lambda _: None) -> Journal:
    """The journal, with the keys that sign its heads, receipts and reports. Raises Misconfigured without a bus.

    Where heads are known that it has lost, it is for reading alone.
    """
    places.state_of(settings)
    return guarded(settings, journal_by_keyring(settings, keys_in_force.keyring_of(settings), before_commit))


def journal_by_keyring(
    settings: Settings, keyring: Keyring, before_commit: Callable[[Sequence[str]], None] = lambda _: None
) -> Journal:
    """The journal, with the keys in force of a keyring; it may lie behind heads that are known."""
    answer, log_key = keys_in_force.answer_key(settings, keyring), keys_in_force.log_key(settings, keyring)
    return signed_journal(settings, answer, log_key, keys_in_force.former_log_key(settings), before_commit)


def signed_journal(
    settings: Settings,
    answer: SigningKey,
    log_key: SigningKey,
    former: SigningKey | None,
    before_commit: Callable[[Sequence[str]], None] = lambda _: None,
) -> Journal:
    """The journal, with the keys that sign its receipts and reports, and its heads.

    former: of the log, which signs the first head too
    """
    return Journal(
        places.journal_database(settings),
        settings.bus.origin,
        log_key,
        places.utc_now,
        partial(issue_receipts, key=answer),
        partial(issue_reports, key=answer),
        before_commit,
        former,
    )


def guarded(settings: Settings, journal: Journal) -> Journal:
    """The same journal, which takes no entry where it lost some. Closed where that cannot be told."""
    try:
        gap = trusted.log_gap(settings, journal)
    except BaseException:
        journal.close()
        raise
    if gap:
        journal.take_nothing(str(gap))
    return journal


def open_store(settings: Settings) -> Store:
    """The store. Raises Misconfigured."""
    if not settings.state.store:
        return Store(Embedded(settings.at(settings.state.folder)))
    from exchange.store.served import Served

    return Store(Served(settings.state.store))


def open_registry(settings: Settings, journal: Journal, revocations: Revocations | None = None) -> Registry:
    """Bureaus, certificates, offices, grants and mappings, as the log's decisions have them.

    revocations: where somebody else here holds them already
    """
    founding = places.origin_of(settings).founding
    return Registry(
        places.state_of(settings), journal, founding, places.utc_now, revocations or trusted.open_revocations(settings)
    )


def open_coverage(settings: Settings, journal: Journal) -> Coverage | None:
    """How far the log lies under timestamps; None where none are demanded. Raises Misconfigured."""
    said, roots = settings.timestamps, trusted.timestamp_roots(settings)
    if not roots:
        return None
    if not 0 < said.every_s < said.alarm_s:
        raise Misconfigured("config.setting", f"{settings.source}: [timestamps] every_s must be less than alarm_s")
    rule = Rule(*(timedelta(seconds=limit) for limit in (said.alarm_s, said.pending_s, said.refused_s)))
    return Coverage(journal, Attestations(journal.database), roots, rule)


def waits_of(settings: Settings) -> Waits:
    """Feeds that are tried again later."""
    said, folder = settings.worker, places.state_of(settings) / "waits"
    return Waits(folder, places.utc_now, secrets.SystemRandom().random, said.retry_first_s, said.retry_most_s)


def feeds_of(settings: Settings) -> dict[str, Feed]:
    """The feeds whose files the settings name, by their ids; their formats know the machine's programs."""
    folders = (settings.at(path) for path in settings.feeds.folders)
    return load_feeds(folders, {DWG2DXF_OPTION: settings.drawings.dwg2dxf})


def systems_of(settings: Settings, *, proven: bool = True) -> dict[str, LocalSystem]:
    """The city's local reference systems by name. proven: none misses a control point of its by too much.

    Raises Misconfigured.
    """
    said = settings.city
    found = read_systems(settings.at(said.systems), said.extent) if said.systems else {}
    if proven:
        check_residuals(found.values(), settings.tolerances.control_point_m)
    return found


def city_of(settings: Settings) -> City:
    """Districts, unit grid and local systems. Raises Misconfigured."""
    said = settings.city
    return load_city(settings.at(said.districts), settings.at(said.grid), said.extent, systems_of(settings))


def feed_files(settings: Settings) -> dict[str, bytes]:
    """The feeds' files as they lie there, by their SHA-256, hex."""
    found = (path.read_bytes() for folder in settings.feeds.folders for path in settings.at(folder).glob("*.toml"))
    return {sha256(octets).hex: octets for octets in found}


def _check_divisions(settings: Settings, city: City) -> None:
    """A code that no polygon has would give nobody the divisions that it was meant to give somebody."""
    said = settings.territory
    unknown = {*said.divisions, *said.territory.delegated} - {*city.districts.codes}
    if unknown:
        raise Misconfigured(
            "config.setting", f"{settings.source}: [territory] no division of the city: {', '.join(sorted(unknown))}"
        )


@contextmanager
def boundaries_of(settings: Settings) -> Iterator[Boundaries]:
    """By what everything is placed here; where no bus stands yet, by the settings' files. For who only looks."""
    first = city_of(settings)
    with ExitStack() as stack:
        if places.made(settings):
            store = stack.enter_context(closing(open_store(settings)))
        else:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="yongtong-")))
            store = stack.enter_context(closing(Store(Embedded(folder))))
        yield Boundaries(store, dict, first, settings.city.edition)


@contextmanager
def standing_of(settings: Settings) -> Iterator[tuple[InForce, Store | None]]:
    """By what everything is placed here, and what stands; None where no bus stands yet. For who only looks."""
    with boundaries_of(settings) as boundaries:
        now = boundaries.now()
    if not places.made(settings):
        yield now, None
        return
    with closing(open_store(settings)) as store:
        yield now, store


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
    keys_in_force.check_keys_placed(settings)
    keyring = keys_in_force.keyring_of(settings, attended=attended)
    state, folder = places.state_of(settings), settings.at(settings.keys.folder)
    origin = places.origin_of(settings)
    if (origin.origin, origin.edition) != (settings.bus.origin, settings.city.edition):
        raise Misconfigured(
            "config.fixed_at_init",
            f"{settings.source}: origin and edition were fixed at init as {origin.origin}, {origin.edition}",
        )
    # All files first: what they refuse leaves nothing open.
    feeds = feeds_of(settings)
    city = city_of(settings)
    check_declared(feeds.values(), city.systems)
    _check_divisions(settings, city)
    answer = keys_in_force.answer_key(settings, keyring)
    assert answer.certificate_der is not None
    said = settings.evidence
    key = keys_in_force.evidence_key(settings, origin)
    evidence = Evidence(places.evidence_place(settings), key, said.cipher, seal_all=said.seal == "all")
    journal = journal_by_keyring(settings, keyring, evidence.sync)
    if gap := trusted.log_gap(settings, journal):
        journal.close()
        raise Refusal("audit.log_behind", str(gap))
    registry, store = open_registry(settings, journal, revocations), open_store(settings)
    return Bus(
        origin=settings.bus.origin,
        folder=state,
        limits=settings.limits,
        feeds=feeds,
        feed_digests={feed.id: feed.digest for feed in feeds.values()},
        registry=registry,
        journal=journal,
        evidence=evidence,
        store=store,
        boundaries=Boundaries(store, registry.boundaries, city, settings.city.edition),
        schema=compile_schema(SCHEMA),
        answer_key=answer,
        answer_certificate_der=answer.certificate_der,
        outcome_secret=(folder / "outcome.secret").read_bytes(),
        replays=SharedReplays(journal.database) if journal.database.shared else OwnReplays(),
        uploads=Uploads(state / "uploads", timedelta(seconds=settings.limits.upload_s)),
        laid_out=packages / OUT if (packages := places.packages_folder(settings)) else None,
        wake=wake,
        clock=places.utc_now,
        batch_deliveries=settings.worker.batch_deliveries,
        transformation_m=settings.tolerances.transformation_m,
        on_classified=settings.feeds.on_classified,
        xml_suites=settings.suites.xml,
        anchors=trusted.anchors_of(settings),
        attestations=Attestations(journal.database),
        coverage=open_coverage(settings, journal),
        stopped=Stopped(journal.ask),
        waits=waits_of(settings),
        territory=settings.territory.territory,
        districts=levels.districts_of(settings, state),
    )
