"""What act two makes of the made-up quarter: every fault found and no other, every pair joined and no other."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import polars as pl
import pytest

from connectors.formats.catalogue import formats
from exchange import claims, joining, sheet_difference, sheets, validation
from exchange.ownership import OwnershipAnswer, ownership
from exchange.placing import City, load_city, place
from exchange.store.embedded import Embedded
from exchange.store.frames import Batch, BatchDelivery, Compared, Stored
from exchange.store.store import Store
from mappings.apply import map_records, take
from mappings.feed import Feed
from mappings.load import load_feeds
from mappings.sheets import drawn
from samples.generate import Truth, generate
from security.message import in_memory

ROOT = Path(__file__).parents[2]
NOON = datetime(2026, 6, 30, 4, tzinfo=UTC)
MAP = "planning-map-500"
LATER = NOON + timedelta(days=365)
FEEDS = load_feeds([ROOT / "mappings/feeds"])


class Quarter(msgspec.Struct, frozen=True):
    """The generated files with their truth, and the city that they lie in."""

    folder: Path
    truth: Truth
    city: City


class Read(msgspec.Struct, frozen=True):
    """One register as far as checking: its placed candidates and every finding."""

    feed: Feed
    delivery: BatchDelivery
    laid: sheets.Laid
    findings: pl.DataFrame


@pytest.fixture(scope="module")
def quarter(tmp_path_factory: pytest.TempPathFactory) -> Quarter:
    folder = tmp_path_factory.mktemp("city")
    truth = generate(folder, 2007)
    return Quarter(folder, truth, load_city(folder / "districts.geojson", folder / "grid.geojson", truth.extent))


def read(quarter: Quarter, feed_id: str, name: str, signed_at: datetime = NOON, store: Store | None = None) -> Read:
    feed, content = FEEDS[feed_id], in_memory((quarter.folder / name).read_bytes())
    batches = formats()[feed.format].decode([content], feed.options)
    records = pl.concat([take(batch.frame, feed) for batch in batches])
    mapped = map_records(records, feed)
    placing = place(mapped.candidates, crs=feed.crs, accuracy_m=feed.accuracy_m, city=quarter.city, limit_m=1.0)
    laid = sheets.lay(drawn(records, feed), placing.placed, mapped.unread, feed, quarter.city, store)
    found = pl.concat([mapped.findings, placing.findings, laid.findings])
    lists = validation.lists("2007", grid=quarter.city.grid.codes, districts=quarter.city.districts.codes)
    delivery = BatchDelivery(
        sender=feed.bureau,
        message_id=name,
        valid_from=signed_at,
        received_at=signed_at,
        entry=0,
        evidence_class="signed",
    )
    checked = validation.check(laid.placed, found, deliveries=[delivery], classes=feed.class_codes, lists=lists)
    return Read(feed, delivery, laid, pl.concat([found, checked]))


def stored(store: Store, told: Read) -> Stored:
    feed, compared = told.feed, compared_with(store, told)
    joined = joining.join(compared.versions, store.near(feed.id, compared.versions))
    moment = told.delivery.received_at
    parts = (compared, joined.links, joined.ties)
    return store.commit(
        Batch(feed.id, feed.bureau, moment, (told.delivery,), ("00" * 32,), *parts, sheets=told.laid.numbers)
    )


def compared_with(store: Store, told: Read) -> Compared:
    feed = told.feed
    return claims.compare(
        told.laid.placed,
        told.findings,
        told.laid.seen(feed, store) or store.seen(feed.id),
        [told.delivery],
        unread=told.laid.unread,
        content=feed.content,
        crs=feed.crs,
        gone_limit_percent=feed.gone_limit_percent,
    )


@pytest.mark.parametrize(
    ("feed_id", "name"),
    [
        ("urban-census", "census.csv"),
        ("water-register", "water.csv"),
        ("water-register", "water-later.csv"),
        ("power-register", "power.csv"),
    ],
)
def test_what_was_put_in_is_what_is_found(quarter: Quarter, feed_id: str, name: str) -> None:
    findings, register = read(quarter, feed_id, name).findings, quarter.truth.registers[name]
    assert findings["code"].null_count() == 0
    rejected = [row for rows in register.rejected.values() for row in rows]
    for severity, seeded, apart in (("error", register.rejected, []), ("warning", register.warned, rejected)):
        told = findings.filter((pl.col("severity") == severity) & ~pl.col("record").is_in(apart))
        assert {code: told.filter(code=code)["record"].sort().to_list() for code in told["code"].unique()} == seeded


def test_the_registers_become_the_components_that_are_true(quarter: Quarter, tmp_path: Path) -> None:
    truth, store = quarter.truth, Store(Embedded(tmp_path))
    stored(store, read(quarter, "urban-census", "census.csv"))
    stored(store, read(quarter, "water-register", "water.csv"))
    answers = [ownership(store, str(key)) for (key,) in store.connection().execute("SELECT id FROM components")]
    assert len(answers) == truth.components
    by_feed = [{claim.feed: claim.source_key for claim in answer.claims} for answer in answers]
    joined = {keys["urban-census"]: keys["water-register"] for keys in by_feed if len(keys) == 2}
    assert joined == truth.pairs
    assert named(answers, "two bureaus claim this") == sorted(truth.disputes)
    assert named(answers, "role unknown") == sorted(truth.gaps)
    assert named(answers, "nobody claims this") == sorted(truth.orphans)


def named(answers: list[OwnershipAnswer], *verdicts: str) -> list[str]:
    """The components of these verdicts, by census key before water key."""
    return sorted(
        min((claim.feed, claim.source_key) for claim in answer.claims)[1]
        for answer in answers
        if answer.verdict in verdicts
    )


def test_a_year_on_the_water_register_is_compared_key_by_key(quarter: Quarter, tmp_path: Path) -> None:
    later, store = quarter.truth.later, Store(Embedded(tmp_path))
    stored(store, read(quarter, "water-register", "water.csv"))
    done = stored(store, read(quarter, "water-register", "water-later.csv", LATER))
    outcomes = dict(done.outcomes.group_by("outcome").agg(pl.col("source_key").sort()).rows())
    assert (outcomes["new"], outcomes["changed"]) == (later.new, later.changed)
    assert len(outcomes["unchanged"]) == later.unchanged
    assert done.deliveries[0].counts.gone == len(later.ended)


def test_the_power_register_joins_what_the_census_knows_and_founds_the_rest(quarter: Quarter, tmp_path: Path) -> None:
    truth, store = quarter.truth.power, Store(Embedded(tmp_path))
    stored(store, read(quarter, "urban-census", "census.csv"))
    told = stored(store, read(quarter, "power-register", "power.csv"))
    rows = store.connection().execute("SELECT component_id, source_key FROM claims ORDER BY feed_id").fetchall()
    keys: dict[int, list[str]] = {}
    for component, key in rows:
        keys.setdefault(component, []).append(key)
    assert {one[0]: one[1] for one in keys.values() if len(one) == 2} == truth.pairs
    assert sorted(one[0] for one in keys.values() if one[0].startswith("GD")) == sorted(truth.alone)
    assert told.deliveries[0].counts.new == len(truth.pairs) + len(truth.alone)
    assert store.ledger().ties == 0


def test_the_map_joins_the_registers_symbol_by_symbol_and_a_register_decides_what_it_leaves_open(
    quarter: Quarter, tmp_path: Path
) -> None:
    truth, store = quarter.truth.sheet, Store(Embedded(tmp_path))
    stored(store, read(quarter, "planning-map-500", "sheet.dxf"))
    undecided = store.connection().execute("SELECT count(*) FROM components WHERE identifier IS NULL").fetchone()[0]
    assert undecided == sum(len(symbol.classes) > 1 for symbol in truth.symbols.values())
    registers = ("urban-census", "water-register", "power-register")
    for feed, name in zip(registers, ("census.csv", "water.csv", "power.csv"), strict=True):
        stored(store, read(quarter, feed, name))
    rows = store.connection().execute(
        "SELECT component_id, f.code, source_key FROM claims k JOIN feeds f ON f.id = k.feed_id"
    )
    keys: dict[int, dict[str, str]] = {}
    for component, feed, key in rows:
        keys.setdefault(component, {})[feed] = key
    mapped = [one for one in keys.values() if "planning-map-500" in one]
    on_sheets = [one["planning-map-500"].partition("/") for one in mapped]
    assert {number for number, _, _ in on_sheets} == {*truth.numbers}
    found = {handle: one for (_, _, handle), one in zip(on_sheets, mapped, strict=True)}
    assert found.keys() == truth.symbols.keys()
    wrong = {
        handle: (said, symbol)
        for handle, symbol in truth.symbols.items()
        if (said := tuple(map(found[handle].get, registers))) != (symbol.census, symbol.water, symbol.power)
    }
    assert wrong == {}
    assert store.ledger().ties == 0
    pending = store.connection().execute("SELECT class_code FROM components WHERE identifier IS NULL").fetchall()
    alone = [truth.symbols[handle] for handle in truth.only_map]
    assert len(pending) == sum(len(symbol.classes) > 1 for symbol in alone)


def test_of_a_sheet_s_second_version_exactly_what_was_sown_is_found(quarter: Quarter, tmp_path: Path) -> None:
    truth, store = quarter.truth.sheet_versions, Store(Embedded(tmp_path))
    assert [len(kind) for kind in (truth.added, truth.moved, truth.changed, truth.gone)] == [5, 6, 3, 4]
    first = stored(store, read(quarter, MAP, "sheet-first.dxf", store=store))
    assert first.deliveries[0].counts.new == truth.first
    told = read(quarter, MAP, "sheet-second.dxf", LATER, store)
    assert told.laid.numbers == (truth.number,)
    difference = sheet_difference.of_batch(compared_with(store, told), told.laid)
    assert found_in(difference, truth.number) == {
        "added": sorted(truth.added),
        "moved": sorted(truth.moved),
        "changed": sorted(truth.changed),
        "gone": sorted(truth.gone),
    }
    moved = difference.filter(kind="moved").select(pl.col("source_key").str.split("/").list.last(), "moved_m")
    assert dict(moved.rows()) == pytest.approx(truth.moved, abs=1e-3)
    assert difference.filter(kind="unchanged").height == truth.second - sum(
        map(len, (truth.added, truth.moved, truth.changed))
    )
    done = stored(store, told).deliveries[0]
    assert (done.counts.new, done.counts.changed, done.counts.gone) == (
        len(truth.added),
        len(truth.moved) + len(truth.changed),
        len(truth.gone),
    )
    again = sheet_difference.of_stored(done.sender, done.message_id, told.laid.numbers, told.feed, quarter.city, store)
    assert found_in(again, truth.number) == found_in(difference, truth.number)
    assert again.height == difference.height


def found_in(difference: pl.DataFrame, number: str) -> dict[str, list[str]]:
    """The handles of each kind; one that the first file has for another symbol has its number among them after it."""
    told = difference.with_columns(handle=pl.col("source_key").str.strip_prefix(f"{number}/").str.replace("~2$", ""))
    return {kind: told.filter(kind=kind)["handle"].sort().to_list() for kind in sheet_difference.KINDS[:-1]}


def test_the_sheet_replaces_itself_and_no_other_of_the_map(quarter: Quarter, tmp_path: Path) -> None:
    truth, store = quarter.truth, Store(Embedded(tmp_path))
    stored(store, read(quarter, MAP, "sheet.dxf", store=store))
    told = read(quarter, MAP, "sheet-first.dxf", LATER, store)
    counts = stored(store, told).deliveries[0].counts
    assert (counts.new, counts.changed, counts.gone) == (0, 0, 0), "cut out of the whole map, it says the same"
    counts = (
        stored(store, read(quarter, MAP, "sheet-second.dxf", LATER + timedelta(days=1), store)).deliveries[0].counts
    )
    assert (counts.new, counts.gone) == (len(truth.sheet_versions.added), len(truth.sheet_versions.gone))
    standing = store.connection().execute("SELECT count(*) FROM claims WHERE valid_to_us IS NULL").fetchone()[0]
    assert standing == len(truth.sheet.symbols) + counts.new - counts.gone


def test_what_the_map_does_not_tell_is_listed_largest_first(quarter: Quarter) -> None:
    told, truth = read(quarter, "planning-map-500", "sheet.dxf"), quarter.truth.sheet
    unmapped = told.findings.filter(code="value.lookup_unknown")["value"].value_counts()
    counts = unmapped.sort("count", descending=True)["count"].to_list()
    assert counts == [many for _, many in truth.unmapped]
    by_rule = dict(told.findings.filter(severity="ignored")["code"].value_counts().rows())
    names = {"text": "lettering", "outline": "outline", "drawn_part": "drawn_part"}
    assert by_rule == {f"ignored.{names[kind]}": many for kind, many in truth.ignored.items()}


def test_the_camera_catalogue_becomes_its_cameras_and_nothing_else(quarter: Quarter, tmp_path: Path) -> None:
    told, store = quarter.truth.cameras, Store(Embedded(tmp_path))
    seen = read(quarter, "security-cameras", "cameras.xml")
    found: dict[str, dict[str, list[int]]] = {"error": {}, "warning": {}, "ignored": {}}
    for code, severity, rows in seen.findings.group_by("code", "severity").agg(pl.col("record").sort()).iter_rows():
        found[severity][code.removeprefix("ignored.")] = rows
    assert found == {"error": told.rejected, "warning": told.warned, "ignored": told.ignored}
    done = stored(store, seen)
    assert sorted(done.outcomes.filter(outcome="new")["source_key"]) == told.keys
    answers = [ownership(store, str(key)) for (key,) in store.connection().execute("SELECT id FROM components")]
    assert {answer.component.class_code for answer in answers} == {"0136"}
    assert {claim.state for answer in answers for claim in answer.claims} == {None}, "offline is not broken"
