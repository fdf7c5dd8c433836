"""Act two of a feed, from what waits in the inbox to the signed report. It may take its time, and may run again."""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import UTC, datetime, time
from time import monotonic, sleep
from typing import Any, Final, Literal, TypeVar

import polars as pl
from msgspec import structs
from sqlalchemy.exc import SQLAlchemyError

from connectors.formats.catalogue import formats
from exchange import (
    claims,
    joining,
    layer_rules,
    layers,
    ledger,
    map_area,
    map_held,
    naming,
    provenance,
    readings,
    sheet_difference,
    sheets,
    validation,
)
from exchange.attempts import Attempts
from exchange.bus import Bus
from exchange.database import FAILURES, Cursor
from exchange.due import feeds_to_do
from exchange.entry import CITY_TIME
from exchange.evidence import is_erased, is_sealed
from exchange.fairness import SLICE_S
from exchange.faults import durable_step
from exchange.frame_doubt import doubt
from exchange.journal import Entry, InboxRow
from exchange.outcomes import roots_of, secret_of, told_of
from exchange.placing import place
from exchange.reading import EvidenceBroken, reopened
from exchange.rights import View, without_masked
from exchange.store.frames import LINKS, TIES, Batch, BatchDelivery, Compared, Seen, Stored
from exchange.store.places import cell
from exchange.watched import act_two, step
from mappings.apply import check_unclassified, map_records, take
from mappings.feed import Feed
from mappings.schema import KEY
from mappings.sheets import drawn as drawn_sheets
from security.errors import AuditBroken, ExchangeError, Refusal, places, sentences
from security.message import Grant

T = TypeVar("T")

log = logging.getLogger("yongtong.processing")

TOGETHER_BYTES: Final = (
    8_000_000  # deliveries of a feed that is no snapshot go through together up to this much content
)
SPILLS: Final = ("content.classified", map_held.TOO_LARGE)  # what must not be held here at all
STREAM: Final = 10  # deliveries; fewer do not wait for one another
GATHER_S: Final = 0.3
KEY_OF_DELIVERY: Final = {"delivery": KEY["delivery"]}
READER: Final = ThreadPoolExecutor(1, "store reader")  # reads what a snapshot is compared with, while it is decoded


def process(feed_id: str, bus: Bus) -> int:
    """Work through what waits for one feed, oldest first. Gives how many deliveries were finished.

    A bureau that sends without a pause does not hold up the others: after a while it is their feeds' turn.

    Idempotent on (sender, message id): what the store already holds is not applied again, only reported.
    """
    feed, finished = bus.feeds[feed_id], 0
    bus.boundaries.bring_into_force(bus.journal, bus.origin, bus.clock())
    with bus.store.turn(feed_id) as ours:
        if ours:
            _carry_out_recalls(feed, bus)  # what is taken back ends, whatever became of the feed's file
    if bus.registry.mapping(feed_id) != bus.feed_digests[feed_id]:
        log.error("feed.not_released feed=%s; what waits for it goes on waiting", feed_id)
        return 0
    began_s = monotonic()
    # Whoever was told of the feed meanwhile has left it to us: only when nothing is left did nobody miss anything.
    while (together := _next_batch(feed, bus)) or (together == 0 and bus.journal.waiting(feed_id, 1)):
        finished += together
        if monotonic() - began_s > SLICE_S and feeds_to_do(bus) not in ([], [feed_id]):
            break  # a task for each feed that waits is in the queue by now
    return finished


def carry_out_recalls(feed_id: str, bus: Bus) -> None:
    """Of a feed no more than what is taken back ends."""
    with bus.store.turn(feed_id) as ours:
        if ours:
            _carry_out_recalls(bus.feeds[feed_id], bus)


def _next_batch(feed: Feed, bus: Bus) -> int | None:
    """Finish the first deliveries that wait, together; gives how many, None where another worker is at this feed. No
    erasure is at the register meanwhile."""
    with bus.store.turn(feed.id) as ours:
        if not ours:
            return None
        attempts = Attempts(bus.folder / f"act-two-{feed.id}.json")
        waiting = _waiting(feed, bus)
        if not waiting:
            return 0
        together = _together(attempts.apart(waiting), feed, bus)
        worn_out = attempts.too_many(together[0])
        began_s = monotonic()
        with attempts.at(together):
            if worn_out and not bus.store.stored([(together[0].sender, together[0].message_id)]):
                log.error("delivery.ends_the_worker feed=%s message_id=%s", feed.id, together[0].message_id)
                _hold(together[0], {"code": "delivery.failed"}, feed, bus)
            else:
                _finish_all(together, feed, bus)
        bus.slices.took(feed.id, len(together), monotonic() - began_s)
        _carry_out_recalls(feed, bus)
        return len(together)


def _waiting(feed: Feed, bus: Bus) -> Sequence[InboxRow]:
    """What waits for a feed, at most a batch. Of a stream a little more is let come in: a batch costs by the batch."""
    most = bus.slices.most(feed.id, bus.batch_deliveries)
    waiting = bus.journal.waiting(feed.id, most)
    if (
        feed.content not in ("snapshot", "reference")
        and STREAM <= len(waiting) < most
        and not bus.slices.beside_others(feed.id)
    ):
        sleep(GATHER_S)
        waiting = bus.journal.waiting(feed.id, most)
    return waiting


def _together(waiting: Sequence[InboxRow], feed: Feed, bus: Bus) -> Sequence[InboxRow]:
    """The first deliveries that may share a batch: of a snapshot or a layer one, of a changes feed several small ones.

    All of them are in the store already (a crash came before their report), or none is.
    """
    if feed.content in ("snapshot", "reference"):
        return waiting[:1]
    stored = bus.store.stored((row.sender, row.message_id) for row in waiting)
    known = [(row.sender, row.message_id) in stored for row in waiting]
    size = 0
    for index, row in enumerate(waiting):
        size += row.content_length
        if index and (size > TOGETHER_BYTES or known[index] != known[0]):
            return waiting[:index]
    return waiting


def _finish_all(rows: Sequence[InboxRow], feed: Feed, bus: Bus) -> None:
    """Apply the rows as one batch; if the batch holds one that must be refused, each on its own, in order."""
    try:
        if any(row.decision == "refuse" for row in rows):
            raise Refusal("delivery.refused_by_person")
        _steps(rows, feed, bus)
    except Refusal as refusal:
        if len(rows) == 1 and refusal.code in SPILLS:
            _stop_spill(rows[0], refusal, feed, bus)
        elif len(rows) == 1:
            _refuse(rows[0], refusal, feed, bus)
        else:
            _one_by_one(rows, feed, bus)
    except EvidenceBroken as problem:
        if len(rows) > 1:
            _one_by_one(rows, feed, bus)
        else:
            log.critical("delivery.audit_broken feed=%s message_id=%s %s", feed.id, rows[0].message_id, problem)
            _hold(rows[0], {"code": "delivery.evidence_broken"}, feed, bus)
    except (ExchangeError, OSError, SQLAlchemyError, *FAILURES):
        raise  # nobody's content is at fault: the deliveries stay waiting, and the sweep comes back to them
    except (
        Exception
    ) as problem:  # act two's outermost loop: one delivery that trips us must not hold up the feed for ever
        if len(rows) == 1:
            log.error("delivery.failed feed=%s message_id=%s at=%s", feed.id, rows[0].message_id, places(problem))
            _hold(rows[0], {"code": "delivery.failed"}, feed, bus)
        else:
            _one_by_one(rows, feed, bus)


def apply_one(row: InboxRow, feed: Feed, bus: Bus) -> None:
    """One delivery through all steps, without what follows when a step raises."""
    _steps([row], feed, bus)


def _steps(rows: Sequence[InboxRow], feed: Feed, bus: Bus) -> None:
    if feed.content == "readings":
        _apply_readings(rows, feed, bus)
    elif feed.content == "reference":
        _apply_reference(rows, feed, bus)
    else:
        _apply(rows, feed, bus)


def _one_by_one(rows: Sequence[InboxRow], feed: Feed, bus: Bus) -> None:
    for row in rows:
        _finish_all([row], feed, bus)


@act_two
def _apply(rows: Sequence[InboxRow], feed: Feed, bus: Bus) -> None:
    """Steps 8 to 16 for one batch: decode, map, place, check, claim, join, store, note, report."""
    assert feed.content in ("snapshot", "changes")  # the others have stories of their own
    grants = {id: bus.registry.grant(id) for id in {row.grant for row in rows}}
    deliveries = tuple(_delivery(row, feed, grants[row.grant], bus) for row in rows)
    whole_feed = feed.content == "snapshot" and feed.extent == "feed"
    with _meanwhile(lambda: bus.store.seen(feed.id) if whole_feed else None) as reading:
        step("decode")
        records, whole = _decoded(rows, feed, bus)
        step("map")
        mapped, drawn = map_records(records, feed), drawn_sheets(records, feed)
        came = ledger.came_in(records)
        del records  # the text of a million rows is not held through all that follows
        step("place")
        placing = place(
            mapped.candidates, crs=feed.crs, accuracy_m=feed.accuracy_m, city=bus.city, limit_m=bus.transformation_m
        )
        if (doubtful := doubt(placing.placed, rows, feed, bus)) is not None:
            _hold(rows[0], doubtful, feed, bus)
            return
        laid = sheets.lay(drawn, placing.placed, mapped.unread, feed, bus.city, bus.store)
        placed, masked = without_masked(laid.placed, [one.view for one in deliveries])
        if not all(row.decision == "release" for row in rows):
            map_held.check(placed, feed, bus.feeds.values(), bus.store, bus.limits.held_map_km2)
        found = pl.concat([mapped.findings, placing.findings, laid.findings, masked])
        step("check")
        beyond = _beyond(placed, deliveries, feed, bus)
        checked = validation.check(
            placed, found, deliveries=deliveries, classes=feed.class_codes, lists=bus.lists, beyond=beyond
        )
    step("claim")
    seen = reading.result() or laid.seen(feed, bus.store) or bus.store.seen(feed.id, _keys(placed))
    findings = pl.concat([found, checked, *_of_district(placed, seen, feed, bus)])
    compared = claims.compare(
        placed,
        findings,
        _within(seen, beyond),
        deliveries,
        unread=laid.unread,
        content=feed.content,
        crs=feed.crs,
        gone_limit_percent=feed.gone_limit_percent,
        whole=whole,
    )
    ledger.must_balance(came, mapped.parts, compared.outcomes)
    if compared.held and rows[0].decision == "release":
        compared = structs.replace(compared, held=False)
    if compared.held:
        _hold(rows[0], _too_much_gone(compared, feed), feed, bus)
        return
    step("join")
    secrets = [secret_of(bus.outcome_secret, row.sender, row.message_id) for row in rows]
    roots = roots_of(compared.outcomes, secrets)
    with bus.store.neighbourhood(compared):  # else two workers could each found what is one thing
        joined = joining.join(compared.versions, bus.store.near(feed.id, compared.versions))
        links = naming.keep_apart(joined.links, compared.versions, feed.bureau, bus.territory, bus.store.identifiers_of)
        joined_km2 = map_area.largest_km2(_cells(compared.versions, links))
        map_area.refuse_larger(joined_km2, bus.limits.map_area_km2, list(grants.values()), "join.area_too_large")
        step("store")
        durable_step("store.commit:before")
        said_by = (feed.id, feed.bureau, bus.clock(), deliveries, roots)
        batch = Batch(*said_by, compared, links, joined.ties, territory=bus.territory, sheets=laid.numbers)
        stored = bus.store.commit(batch)
    durable_step("store.commit:after")
    step("report")
    said = pl.concat([findings, compared.findings, stored.findings])
    said = sheet_difference.findings_as_stored(said, stored)
    told = told_of(mapped, said, stored.outcomes, len(rows), feed)
    told[0].update(sheet_difference.reported(compared, laid, stored, said, feed, bus.city, bus.store))
    _report(rows, stored, secrets, told, feed, bus)


def _of_district(placed: pl.DataFrame, seen: Seen, feed: Feed, bus: Bus) -> list[pl.DataFrame]:
    """FINDINGS of what a district centre says as one: the identifiers that it gives, and on what its records rest."""
    district = bus.districts.get(feed.bureau)
    if district is None:
        return []
    held = bus.store.holders, bus.store.identifiers_of
    named = naming.check(placed, feed.bureau, seen, bus.territory, bus.lists, *held)
    return [named, provenance.check(placed, district.followed)]


@contextmanager
def _meanwhile(work: Callable[[], T]) -> Iterator[Future[T]]:
    """What a thread works at while the block runs; it has ended when the block is left, however that is."""
    promised = READER.submit(work)
    try:
        yield promised
    finally:
        wait([promised])


def _beyond(placed: pl.DataFrame, deliveries: Sequence[BatchDelivery], feed: Feed, bus: Bus) -> pl.DataFrame:
    """delivery, source_key: keys of the feed whose standing claims lie outside what the delivery's grant covers."""
    views = [one.view for one in deliveries]
    keys = None if feed.content == "snapshot" else _keys(placed)
    return pl.concat(
        bus.store.beyond(feed.id, view, keys).join(_of_view(views, view), how="cross").select("delivery", "source_key")
        for view in set(views)
    )


def _of_view(views: Sequence[View], view: View) -> pl.DataFrame:
    """delivery: the deliveries that come under a view."""
    return pl.DataFrame({"delivery": [number for number, one in enumerate(views) if one == view]}, KEY_OF_DELIVERY)


def _cells(versions: pl.DataFrame, links: pl.DataFrame) -> list[int]:
    """The cells in which records joined what other bureaus said."""
    met = links.filter(pl.col("component").is_not_null(), pl.col("distance_m").is_not_null())
    if met.is_empty():
        return []
    places = versions.join(met, on="source_key", how="semi")
    return places.select(cell(pl.col("longitude_deg"), pl.col("latitude_deg")).unique()).to_series().to_list()


def _within(seen: Seen, beyond: pl.DataFrame) -> Seen:
    """What is known of a feed, without the claims that its grant does not reach: a snapshot ends none of them."""
    if beyond.is_empty():
        return seen
    return structs.replace(seen, claims=seen.claims.join(beyond, on="source_key", how="anti"))


def _keys(placed: pl.DataFrame) -> list[str]:
    return placed["source_key"].drop_nulls().unique().to_list()


@act_two
def _apply_readings(rows: Sequence[InboxRow], feed: Feed, bus: Bus) -> None:
    """The same for readings of known things, which are no claims: decode, map, check, compare, store, note, report."""
    grants = {id: bus.registry.grant(id) for id in {row.grant for row in rows}}
    deliveries = tuple(_delivery(row, feed, grants[row.grant], bus) for row in rows)
    step("decode")
    records, _ = _decoded(rows, feed, bus)  # whole or not: readings end nothing
    step("map")
    mapped = map_records(records, feed)
    step("check")
    known = bus.store.known_keys(feed.of, mapped.candidates["source_key"])
    checked = readings.check(mapped.candidates, known, deliveries)
    step("claim")
    stored_before = bus.store.known_readings(feed.id, checked.readings)
    compared, new = readings.compare(checked, mapped, stored_before)
    ledger.must_balance(ledger.came_in(records), mapped.parts, compared.outcomes)
    secrets = [secret_of(bus.outcome_secret, row.sender, row.message_id) for row in rows]
    roots = roots_of(compared.outcomes, secrets)
    step("store")
    durable_step("store.commit:before")
    none = pl.DataFrame(schema=LINKS), pl.DataFrame(schema=TIES)
    stored = bus.store.commit(Batch(feed.id, feed.bureau, bus.clock(), deliveries, roots, compared, *none, new))
    durable_step("store.commit:after")
    step("report")
    said = pl.concat([mapped.findings, checked.findings, compared.findings, stored.findings])
    _report(rows, stored, secrets, told_of(mapped, said, stored.outcomes, len(rows), feed), feed, bus)


@act_two
def _apply_reference(rows: Sequence[InboxRow], feed: Feed, bus: Bus) -> None:
    """The same for a version of a layer, which is no set of things: decode, map, place, check, compare, store, note,
    report."""
    row = rows[0]
    delivery = _delivery(row, feed, bus.registry.grant(row.grant), bus)
    layers.check_grant(delivery)
    step("decode")
    records, _ = _decoded(rows, feed, bus)  # what is not whole is refused by the formats that have outlines
    step("map")
    mapped = map_records(records, feed)
    step("place")
    extent, day = bus.city.extent_deg, delivery.received_at.astimezone(CITY_TIME).date()
    places = layers.geometries(mapped.candidates, crs=feed.crs, city=bus.city, limit_m=bus.transformation_m)
    step("check")
    around, divisions = bus.boundaries.parents(feed.layer), bus.lists.divisions - bus.lists.abolished
    rules = layer_rules.About(feed.layer, extent, day, around, divisions)
    findings = pl.concat([mapped.findings, layer_rules.check(mapped.candidates, places, rules)])
    step("claim")
    compared, version = layers.compare(
        layers.Said(mapped, places, findings), *bus.store.newest_version(feed.layer), delivery, feed
    )
    if compared.held and row.decision != "release":
        _hold(row, layers.too_much_gone(compared, version, feed), feed, bus)
        return
    ledger.must_balance(ledger.came_in(records), mapped.parts, compared.outcomes)
    secrets = [secret_of(bus.outcome_secret, row.sender, row.message_id)]
    roots = roots_of(compared.outcomes, secrets)
    step("store")
    durable_step("store.commit:before")
    none = pl.DataFrame(schema=LINKS), pl.DataFrame(schema=TIES)
    said_by = (feed.id, feed.bureau, bus.clock(), (delivery,), roots)
    stored = bus.store.commit(Batch(*said_by, structs.replace(compared, held=False), *none, layer=version))
    durable_step("store.commit:after")
    step("report")
    told = told_of(mapped, pl.concat([findings, compared.findings]), stored.outcomes, 1, feed)
    made = bus.store.version_of(row.sender, row.message_id)
    _report(rows, stored, secrets, [told[0] | layers.told(feed.layer, made)], feed, bus)


def _delivery(row: InboxRow, feed: Feed, grant: Grant, bus: Bus) -> BatchDelivery:
    """What act two needs to know of a delivery. Valid from the feed's `as_of` day, or the time of signing."""
    valid_from = datetime.fromisoformat(row.signed_at)
    if feed.as_of is not None:
        valid_from = datetime.combine(feed.as_of, time.min, CITY_TIME).astimezone(UTC)
    return BatchDelivery(
        sender=row.sender,
        message_id=row.message_id,
        valid_from=valid_from,
        received_at=datetime.fromisoformat(row.received_at),
        entry=row.entry_index,
        evidence_class=row.evidence_class,
        view=View.of(grant),
        asserted_by=_asserted_by(row, bus),
    )


def _asserted_by(row: InboxRow, bus: Bus) -> str | None:
    """The bureau whose key signed a delivery, where that is not its sender. Raises AuditBroken when nobody's is it."""
    certificate = bus.registry.trust().by_fingerprint(row.signer)
    if certificate is None:
        raise AuditBroken(f"delivery {row.id} was accepted under certificate {row.signer}, which is not enrolled")
    return certificate.bureau if certificate.bureau != row.sender else None


def _decoded(rows: Sequence[InboxRow], feed: Feed, bus: Bus) -> tuple[pl.DataFrame, bool]:
    """All records of a batch, text as the sources spell it, with their delivery's index; and whether that is all."""
    contents = (reopened(row, bus).content for row in rows)
    frames, whole = [], True
    for batch in formats()[feed.format].decode(contents, feed.options):
        frames.append(take(batch.frame, feed))
        if not all(row.decision == "release" for row in rows):
            check_unclassified(frames[-1], feed)
        whole = whole and batch.complete
    return pl.concat(frames, how="diagonal"), whole


def _report(
    rows: Sequence[InboxRow],
    stored: Stored,
    secrets: Sequence[bytes],
    told: Sequence[dict[str, Any]],
    feed: Feed,
    bus: Bus,
) -> None:
    """Steps 15 and 16: the entry of each delivery and its signed report, all in one group of the journal."""
    promised: list[Future[bytes]] = []
    for index, (row, done, secret) in enumerate(zip(rows, stored.deliveries, secrets, strict=True)):
        counts: dict[str, Any] = {"records": done.counts.records, **structs.asdict(done.counts)}
        report = {
            **counts,
            **told[index],
            "outcome_root": done.root,
            "outcome_secret": secret.hex(),
            "outcomes_file": done.outcomes_file,
        }
        detail = {"message_id": row.message_id, "outcome_root": done.root, **counts}
        promised.append(bus.journal.finish(row.id, "processed", _entry(row, "processed", detail, feed, bus), report))
    for future in promised:
        _said(future)


def _said(report: Future[bytes]) -> None:
    """Wait until a report is signed. What was recalled meanwhile has its report, and what came of it is ended next."""
    try:
        report.result()
    except Refusal as refusal:
        if refusal.code != "delivery.recalled":
            raise


def _too_much_gone(compared: Compared, feed: Feed) -> dict[str, str | int]:
    return {
        "code": "delivery.held",
        "gone_percent": f"{compared.gone_percent:.1f}",
        "gone_limit_percent": f"{feed.gone_limit_percent:.1f}",
        "would_end": compared.ended.height,
    }


def _hold(row: InboxRow, report: dict[str, str | int], feed: Feed, bus: Bus) -> None:
    """Nothing of it is stored, and a person decides."""
    entry = _entry(row, "held", {"message_id": row.message_id, **report}, feed, bus)
    _said(bus.journal.finish(row.id, "held", entry, _in_words(report)))


def _stop_spill(row: InboxRow, refusal: Refusal, feed: Feed, bus: Bus) -> None:
    """What should never have come: sealed first, then refused, or held for a person, as the settings say."""
    said = (refusal.code, feed.id, row.message_id, row.entry_index)
    log.critical("delivery.spilled code=%s feed=%s message_id=%s entry=%s", *said)
    _seal(row, "spill", feed, bus)
    if bus.on_classified == "hold":
        _hold(row, {"code": refusal.code, "detail": refusal.detail}, feed, bus)
    else:
        _refuse(row, refusal, feed, bus)


def _seal(row: InboxRow, why: Literal["spill", "recall"], feed: Feed, bus: Bus) -> None:
    """The evidence once more, sealed, unless it is; then the clear one is erased. A crash in between leaves both, and
    act two comes back: nothing is lost, and nothing stays in the clear."""
    if not (is_sealed(row.evidence) or is_erased(row.evidence)):
        sealed = bus.evidence.reseal(row.evidence)
        bus.evidence.sync([sealed])

        def moved(cursor: Cursor, _: int) -> None:
            cursor.execute("INSERT INTO wipes VALUES (?, ?)", (row.evidence, row.id))
            # Not over what was erased meanwhile: the copy has no key then.
            query = "UPDATE inbox SET evidence = ? WHERE id = ? AND evidence = ?"
            cursor.execute(query, (sealed, row.id, row.evidence))

        entry = structs.replace(_entry(row, "sealed", {"message_id": row.message_id}, feed, bus), type=why)
        durable_step("seal.note:before")
        bus.journal.note(entry, moved).result()
        durable_step("seal.note:after")
    for location in bus.journal.to_wipe(row.id):
        bus.evidence.erase(location)
    durable_step("seal.wiped:after")


def _carry_out_recalls(feed: Feed, bus: Bus) -> None:
    """撤回 What bureaus took back: its claims end, its evidence is sealed. Each step again does nothing more."""
    for row in bus.journal.recalls(feed.id):
        try:
            recalled = bus.journal.recalled(row)
        except AuditBroken as problem:  # somebody wrote it into the table: nothing ends by that
            log.critical("delivery.audit_broken feed=%s message_id=%s %s", feed.id, row.message_id, problem)
            continue
        durable_step("recall.store:before")
        ended = bus.store.recall(row.sender, row.message_id, datetime.fromisoformat(recalled.time))
        durable_step("recall.store:after")
        try:
            _seal(row, "recall", feed, bus)
        except EvidenceBroken as problem:
            log.critical("delivery.audit_broken feed=%s message_id=%s %s", feed.id, row.message_id, problem)
        detail: dict[str, str | int] = {"message_id": row.message_id, "recall": recalled.index, "ended": ended or 0}
        entry = structs.replace(_entry(row, "carried_out", detail, feed, bus), type="recall")

        def carried_out(cursor: Cursor, _: int, inbox_id: int = row.id) -> None:
            cursor.execute("UPDATE inbox SET decision = '' WHERE id = ?", (inbox_id,))
            cursor.execute("DELETE FROM wipes WHERE inbox_id = ?", (inbox_id,))

        bus.journal.note(entry, carried_out).result()
        durable_step("recall.carried_out:after")


def _refuse(row: InboxRow, refusal: Refusal, feed: Feed, bus: Bus) -> None:
    """The content is not what the feed says: nothing of it is kept but the evidence, and the report says why."""
    report: dict[str, str | int] = {"code": refusal.code, "detail": refusal.detail[:200]}
    entry = _entry(row, "refused", {"message_id": row.message_id, **report}, feed, bus)
    _said(bus.journal.finish(row.id, "refused", entry, _in_words(report)))


def _in_words(report: dict[str, str | int]) -> dict[str, Any]:
    """The report with what its code says in both languages, and the next step: other people's toolkits show it too."""
    return {**report, "sentence": structs.asdict(sentences()[str(report["code"])])}


def _entry(row: InboxRow, outcome: str, detail: dict[str, str | int], feed: Feed, bus: Bus) -> Entry:
    return Entry(
        type="processing",
        outcome=outcome,
        actor=bus.origin,
        sender=row.sender,
        feed=row.feed,
        feed_digest=feed.digest,
        grant=row.grant,
        trust_digest=bus.registry.trust().digest,
        detail=detail,
    )
