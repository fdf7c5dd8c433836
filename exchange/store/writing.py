"""What one transaction of the store writes. Everything is decided as columns first, then written in bulk by the driver.

Order: by delivery, then source key. So a delivery with its rows in another order leaves the same store behind.
"""

import io
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, Final

import msgspec
import polars as pl

from exchange.store import layers, readings, sheets
from exchange.store.engine import Writer
from exchange.store.frames import Batch, Counts, Stored, StoredDelivery, microseconds, moment
from exchange.store.identifiers import issue
from exchange.store.places import cell
from mappings.schema import CLASSES_BETWEEN, FINDINGS, KEY, OUTCOMES, ROLES, conform

ROLE_COLUMNS: Final = tuple(f"{role}_{part}" for role in ROLES for part in ("code", "name", "basis"))
# Kept with the claim, asked for by nobody in bulk: one JSON text, without what was not said.
MORE: Final = (
    "height_m", "grid_code", "division_code", "component_code", "place", "initial_date", "change_date", "data_source",
    "note", "appurtenance", "network", "label", "provenance", "class_basis", "outline_deg",
)  # fmt: skip
VERSION: Final = (
    "component_id", "delivery_id", "record", "valid_from_us", "valid_to_us", "closed_by", "digest", "class_code",
    "longitude_deg", "latitude_deg", "accuracy_m", "division_code", "grid_code", "name", "state", "roles_id", "more",
)  # fmt: skip
CLAIM: Final = ("id", "feed_id", "source_key", "join_distance_m", *VERSION)
PAST: Final = ("claim_id", *VERSION, "cell")
COMPONENT: Final = (
    "id", "identifier", "class_code", "longitude_deg", "latitude_deg", "accuracy_m", "division_code", "grid_code",
    "cell", "change_number", "change_kind",
)  # fmt: skip
DELIVERY: Final = (
    "id", "sender", "message_id", "feed_id", "commit_id", "position", "entry", "evidence_class", "valid_from_us",
    "root", "counts", "asserted_by",
)  # fmt: skip
TIE: Final = ("claim_id", "component_id", "distance_m")
LEADING: Final = ("class_code", "longitude_deg", "latitude_deg", "accuracy_m", "division_code", "grid_code")

# Of what stands in `k`; the same cell as `places.cell` says.
CELL_SQL: Final = (
    "CAST(floor(k.latitude_deg * 1000) AS BIGINT) * 1000000 + CAST(floor(k.longitude_deg * 1000) AS BIGINT)"
)

# Each of these goes over the rows that were staged under the name that it says.
KEEP_PAST: Final = (
    f"INSERT INTO claims_past ({', '.join(PAST)}) SELECT k.id, k.component_id, k.delivery_id, k.record, "
    "k.valid_from_us, coalesce(k.valid_to_us, s.at_us), coalesce(k.closed_by, s.by_delivery), "
    f"{', '.join(f'k.{name}' for name in VERSION[6:])}, {CELL_SQL} FROM replaced s JOIN claims k ON k.id = s.claim"
)
REPLACE: Final = (
    f"UPDATE claims SET {', '.join(f'{name} = s.{name}' for name in VERSION)} FROM restated s WHERE claims.id = s.id"
)
END: Final = "UPDATE claims SET valid_to_us = s.at_us, closed_by = s.by_delivery FROM ended s WHERE claims.id = s.claim"
# Components that were there before: their change number, and whether a claim of theirs ended. `+ 0`: few claims stand
# behind one component, and no engine shall look for the first of them along all claims there are.
_LIVE: Final = "FROM claims WHERE component_id = components.id AND valid_to_us IS NULL"
TOUCH: Final = (
    "UPDATE components SET change_number = s.change_number, change_kind = CASE WHEN s.ends = 1 "
    f"AND NOT EXISTS (SELECT 1 {_LIVE}) THEN 'orphaned' ELSE 'changed' END "
    "FROM touched s WHERE components.id = s.component"
)
# The class is that of the first claim that is sure of it; none is: what was decided before, for an identifier says it.
_DECIDED: Final = (
    f"coalesce((SELECT class_code {_LIVE} AND instr(class_code, '{CLASSES_BETWEEN}') = 0 ORDER BY id + 0 LIMIT 1), "
    f"CASE WHEN instr(components.class_code, '{CLASSES_BETWEEN}') > 0 THEN k.class_code ELSE components.class_code END)"
)
# Few of them are not what their standing claims say; to write every one with its cell again would cost ten times this.
LEAD: Final = (
    f"UPDATE components SET cell = {CELL_SQL}, class_code = {_DECIDED}, "
    f"{', '.join(f'{name} = k.{name}' for name in LEADING if name != 'class_code')} "
    "FROM touched s JOIN claims k ON k.id = (SELECT min(id + 0) FROM claims WHERE component_id = s.component "
    f"AND valid_to_us IS NULL) WHERE components.id = s.component AND EXISTS (SELECT 1 {_LIVE} "
    f"AND ({', '.join(f'components.{name}' for name in LEADING)}) "
    f"IS DISTINCT FROM ({', '.join(f'claims.{name}' for name in LEADING)}))"
)
# Those without an identifier whose class is decided now.
PENDING: Final = (
    "SELECT c.id, c.class_code, c.division_code FROM touched s JOIN components c ON c.id = s.component "
    f"WHERE c.identifier IS NULL AND instr(c.class_code, '{CLASSES_BETWEEN}') = 0 ORDER BY s.change_number"
)
PENDING_COLUMNS: Final = {"component": pl.Int64, "class_code": pl.String, "division_of_position": pl.String}
IDENTIFY: Final = "UPDATE components SET identifier = s.identifier FROM identified s WHERE components.id = s.component"
UNTIE: Final = "DELETE FROM ties WHERE claim_id IN (SELECT claim FROM untied)"
NEW_ROLES: Final = (
    f"INSERT INTO roles (digest, {', '.join(ROLE_COLUMNS)}) SELECT digest, {', '.join(ROLE_COLUMNS)} FROM units s "
    "WHERE NOT EXISTS (SELECT 1 FROM roles r WHERE r.digest = s.digest) ORDER BY digest ON CONFLICT (digest) DO NOTHING"
)


def write(writer: Writer, batch: Batch) -> Stored:
    """Everything of a batch, inside the transaction that the caller opened.

    What others must wait for comes last: from the change numbers on nobody else commits before this does, so none
    becomes visible after a higher one; and identifiers are issued there too.
    """
    feed_id = _feed(writer, batch)
    sheets.put(writer, batch, feed_id)
    first_delivery = writer.keys("deliveries", len(batch.deliveries))
    versions = _linked(writer, batch)
    events = _events(versions, batch)
    writer.hold(_known(versions, events))
    versions_rows = _rows(writer, versions, first_delivery)
    _close(writer, events, versions, first_delivery)
    writer.insert("claims_past", PAST, versions_rows.filter(~pl.col("last")))
    _put_claims(writer, versions_rows.filter("last"), feed_id)
    _put_ties(writer, batch, versions)
    if batch.readings is not None:
        readings.put(writer, batch.readings, feed_id, first_delivery)
    if batch.layer is not None:
        layers.put(writer, batch.layer, first_delivery)
    outcomes = _outcomes(batch, versions)
    deliveries = _deliveries(writer, batch, outcomes, feed_id, first_delivery)

    numbers = _numbers(writer, events)
    founded = versions.filter("last", "founds")
    identifiers, findings = issue(writer, founded, batch.territory)
    writer.insert("components", COMPONENT, _components(founded, identifiers, numbers))
    findings = pl.concat([findings, _touch(writer, numbers, versions, events.filter("ends"), batch)])
    return Stored(deliveries, outcomes, findings, repeated=False)


def stored_delivery(row: tuple[Any, ...]) -> StoredDelivery:
    """A delivery as its row says: sender, message id, root, counts, recorded_at_us, outcomes of its commit."""
    sender, message_id, root, counts, recorded_at_us, outcomes = row
    decoded = msgspec.json.decode(counts, type=Counts)
    return StoredDelivery(sender, message_id, root, decoded, moment(recorded_at_us), sha256(outcomes).hexdigest())


def stored_again(
    batch: Batch,
    known: Mapping[tuple[str, str], StoredDelivery],
    outcomes: Callable[[str, str], pl.DataFrame | None],
) -> Stored:
    """What the batch's deliveries came to when they were stored."""
    parts = [pl.DataFrame(schema=OUTCOMES)]
    for index, one in enumerate(batch.deliveries):
        part = outcomes(one.sender, one.message_id)
        assert part is not None  # the caller found it stored
        parts.append(conform(part.with_columns(delivery=pl.lit(index)), OUTCOMES))
    deliveries = tuple(known[one.sender, one.message_id] for one in batch.deliveries)
    return Stored(deliveries, pl.concat(parts), pl.DataFrame(schema=FINDINGS), repeated=True)


def decoded_outcomes(octets: bytes, position: int) -> pl.DataFrame:
    """OUTCOMES of one delivery of a commit, as delivery 0."""
    part = pl.read_ipc(io.BytesIO(octets)).filter(pl.col("delivery") == position)
    return conform(part.with_columns(delivery=pl.lit(0)), OUTCOMES)


def in_bulk(writer: Writer, statement: str, name: str, rows: pl.DataFrame) -> None:
    """One statement over rows staged under a name; nothing where there are none."""
    if not rows.is_empty():
        writer.stage(name, rows)
        writer.execute(statement)


def _feed(writer: Writer, batch: Batch) -> int:
    # Only a whole snapshot makes everything older than it no news: a page of one speaks of its own keys alone.
    newest_us = max(microseconds(one.valid_from) for one in batch.deliveries) if batch.compared.whole else 0
    newer = "as_of_us = CASE WHEN as_of_us > ? THEN as_of_us ELSE ? END"
    known = writer.execute(
        f"UPDATE feeds SET bureau = ?, {newer} WHERE code = ?", (batch.bureau, newest_us, newest_us, batch.feed)
    )
    if not known.rowcount:
        values = (batch.feed, batch.bureau, newest_us)
        writer.execute("INSERT INTO feeds (code, bureau, as_of_us) VALUES (?, ?, ?)", values)
    return int(writer.execute("SELECT id FROM feeds WHERE code = ?", (batch.feed,)).fetchone()[0])


def _linked(writer: Writer, batch: Batch) -> pl.DataFrame:
    """VERSIONS in their order with claim and component filled, and: distance_m, added (the claim is), founds (a
    component), last (of its key), named (the identifier that its district says it has)."""
    links = batch.links.select("source_key", "distance_m", linked="component")
    versions = batch.compared.versions.drop("component")
    versions = versions.join(links, on="source_key", how="left", maintain_order="left")
    added = versions.filter(pl.col("claim").is_null()).select("source_key").unique(maintain_order=True)
    added = added.with_row_index("claim_added", offset=writer.keys("claims", added.height))
    founding = versions.filter(pl.col("linked").is_null()).select("source_key").unique(maintain_order=True)
    founding = founding.with_row_index("component_founded", offset=writer.keys("components", founding.height))
    for numbered in (added, founding):
        versions = versions.join(numbered, on="source_key", how="left", maintain_order="left")
    versions = versions.with_columns(
        claim=pl.coalesce("claim", "claim_added").cast(pl.Int64),
        component=pl.coalesce("linked", "component_founded").cast(pl.Int64),
        added=pl.col("claim_added").is_not_null(),
        founds=pl.col("component_founded").is_not_null(),
    )
    in_time = versions.select("claim", "valid_from_us", *KEY).sort("claim", "valid_from_us", *KEY)
    latest = in_time.unique("claim", keep="last").select(*KEY, last=True)
    latest_or_not = versions.join(latest, on=list(KEY), how="left", maintain_order="left")
    last = pl.col("last").fill_null(False)
    # Only a district centre names components, and only what it says last of one.
    names = pl.lit(bool(batch.territory.given_to(batch.bureau))) & last
    return latest_or_not.with_columns(last, named=pl.when(names).then("component_code"))


def _events(versions: pl.DataFrame, batch: Batch) -> pl.DataFrame:
    """What happens to claims: KEY, source_key, claim, component, at_us, kept (it was there before), ends (it)."""
    said = versions.select(
        *KEY, "source_key", "claim", "component", at_us="valid_from_us", kept=~pl.col("added"), ends=pl.lit(False)
    )
    now = versions.filter("last").select("source_key", claim_now="claim", component_now="component", added="added")
    ended = batch.compared.ended.join(now, on="source_key", how="left").select(
        *KEY,
        "source_key",
        claim=pl.coalesce("claim", "claim_now"),
        component=pl.coalesce("component", "component_now"),
        at_us="valid_to_us",
        kept=~pl.col("added").fill_null(False),
        ends=pl.lit(True),
    )
    return pl.concat([said, ended]).sort("delivery", "source_key", "record")


def _known(versions: pl.DataFrame, events: pl.DataFrame) -> pl.Series:
    """Components that were there before."""
    founded = versions.filter("founds").select("component")
    return events.select("component").unique().join(founded, on="component", how="anti")["component"]


def _rows(writer: Writer, versions: pl.DataFrame, first_delivery: int) -> pl.DataFrame:
    """The versions in the words of the tables."""
    return versions.with_columns(
        _roles(writer, versions),
        _more(versions),
        component_id="component",
        delivery_id=pl.col("delivery") + first_delivery,
        closed_by=pl.col("closed_by") + first_delivery,
        division_code="division_of_position",
        grid_code="grid_of_position",
        claim_id="claim",
        join_distance_m="distance_m",
        cell=cell(pl.col("longitude_deg"), pl.col("latitude_deg")),
    )


def _more(versions: pl.DataFrame) -> pl.Series:
    said = [name for name in MORE if versions[name].null_count() < versions.height]
    if not said:
        return pl.Series("more", [None] * versions.height, dtype=pl.String)
    return versions.select(more=pl.struct(said).struct.json_encode())["more"]


def _roles(writer: Writer, versions: pl.DataFrame) -> pl.Series:
    """The key of each version's combination of units, entered where it is new."""
    combinations = versions.select(ROLE_COLUMNS).unique(maintain_order=True)
    if combinations.is_empty():
        return pl.Series("roles_id", dtype=pl.Int64)
    digests = pl.Series("digest", [_roles_digest(row) for row in combinations.iter_rows()], dtype=pl.Binary)
    in_bulk(writer, NEW_ROLES, "units", combinations.with_columns(digests))
    found = writer.execute("SELECT r.digest, r.id FROM units s JOIN roles r ON r.digest = s.digest").fetchall()
    numbered = combinations.with_columns(digests).join(
        pl.DataFrame(found, {"digest": pl.Binary, "roles_id": pl.Int64}, orient="row"), on="digest", how="left"
    )
    joined = versions.select(ROLE_COLUMNS).join(
        numbered, on=ROLE_COLUMNS, how="left", nulls_equal=True, maintain_order="left"
    )
    return joined["roles_id"]


def _roles_digest(row: tuple[str | None, ...]) -> bytes:
    return sha256(msgspec.json.encode(row)).digest()


def _close(writer: Writer, events: pl.DataFrame, versions: pl.DataFrame, first_delivery: int) -> None:
    """What stood before the batch ends with the first event of its key; if something else stands now, it is kept."""
    first = (
        events.filter("kept").sort("source_key", "at_us", *KEY).unique("source_key", keep="first", maintain_order=True)
    )
    first = first.select("claim", "at_us", by_delivery=pl.col("delivery") + first_delivery)
    in_bulk(writer, KEEP_PAST, "replaced", first.join(versions, on="claim", how="semi"))
    in_bulk(writer, END, "ended", first.join(versions, on="claim", how="anti"))


def _put_claims(writer: Writer, standing: pl.DataFrame, feed_id: int) -> None:
    rows = standing.with_columns(id="claim", feed_id=pl.lit(feed_id))
    writer.insert("claims", CLAIM, rows.filter("added"))
    in_bulk(writer, REPLACE, "restated", rows.filter(~pl.col("added")).select("id", *VERSION))


def _numbers(writer: Writer, events: pl.DataFrame) -> pl.DataFrame:
    """component, change_number, once: a number for each event, in order; a component keeps its last."""
    counted = "UPDATE change_counter SET last = last + ? RETURNING last"
    last = writer.execute(counted, (events.height,)).fetchone()[0]
    numbered = events.with_columns(change_number=pl.int_range(last - events.height + 1, last + 1, dtype=pl.Int64))
    numbered = numbered.with_columns(once=~pl.col("component").is_duplicated())
    last_of_each = numbered.unique("component", keep="last", maintain_order=True)
    return last_of_each.select("component", "change_number", "once")


def _components(founded: pl.DataFrame, identifiers: pl.Series, numbers: pl.DataFrame) -> pl.DataFrame:
    kind = pl.when(pl.col("valid_to_us").is_not_null()).then(pl.lit("orphaned"))
    numbered = founded.join(numbers, on="component", how="left", maintain_order="left")
    return numbered.with_columns(
        identifiers.alias("identifier"),
        id="component",
        division_code="division_of_position",
        grid_code="grid_of_position",
        cell=cell(pl.col("longitude_deg"), pl.col("latitude_deg")),
        change_kind=kind.when("once").then(pl.lit("new")).otherwise(pl.lit("changed")),
    )


def _put_ties(writer: Writer, batch: Batch, versions: pl.DataFrame) -> None:
    """What a claim says now decides anew which ties are open."""
    in_bulk(writer, UNTIE, "untied", versions.filter(~pl.col("added")).select("claim").unique())
    keys = versions.filter("last").select("source_key", "claim")
    ties = batch.ties.join(keys, on="source_key", how="inner", maintain_order="left")
    writer.insert("ties", TIE, ties.with_columns(claim_id="claim", component_id="component"))


def _touch(
    writer: Writer, numbers: pl.DataFrame, versions: pl.DataFrame, ended: pl.DataFrame, batch: Batch
) -> pl.DataFrame:
    """Components that were there before: their change number, and what their claims make of them now, if any stands.

    Gives FINDINGS of identifiers issued to those whose class is decided now.
    """
    founded = versions.filter("last", "founds")
    touched = numbers.join(founded, on="component", how="anti").select(
        "component", "change_number", ends=pl.col("component").is_in(ended["component"].implode()).cast(pl.Int64)
    )
    if touched.is_empty():
        return pl.DataFrame(schema=FINDINGS)
    writer.stage("touched", touched)
    writer.execute(TOUCH)
    writer.execute(LEAD)
    return _identify(writer, versions, batch)


def _identify(writer: Writer, versions: pl.DataFrame, batch: Batch) -> pl.DataFrame:
    """An identifier for each of the touched components that waited for its class, or for its district's
    word; FINDINGS."""
    pending = pl.DataFrame(writer.execute(PENDING).fetchall(), PENDING_COLUMNS, orient="row")
    last = versions.filter("last").unique("component", keep="first", maintain_order=True)
    said = last.select("component", "named", *KEY)
    decided = pending.join(said, on="component", how="inner", maintain_order="left")
    identifiers, findings = issue(writer, decided, batch.territory)
    in_bulk(writer, IDENTIFY, "identified", decided.select("component", identifiers.alias("identifier")))
    return findings


def _outcomes(batch: Batch, versions: pl.DataFrame) -> pl.DataFrame:
    """OUTCOMES, now that each component has its number; none where a record was rejected."""
    numbered = versions.filter("last").select("source_key", numbered="component")
    outcomes = batch.compared.outcomes.join(numbered, on="source_key", how="left")
    accepted = ~pl.col("outcome").is_in(["rejected", "ignored"])
    component = pl.when(accepted).then(pl.coalesce("component", "numbered"))
    return conform(outcomes.with_columns(component.alias("component")), OUTCOMES).sort(list(KEY))


def _deliveries(
    writer: Writer, batch: Batch, outcomes: pl.DataFrame, feed_id: int, first_delivery: int
) -> tuple[StoredDelivery, ...]:
    """The commit, its deliveries and their counts."""
    commit_id, recorded_at_us = writer.keys("commits", 1), microseconds(batch.recorded_at)
    file = io.BytesIO()
    outcomes.write_ipc(file, compression="zstd")
    octets = file.getvalue()
    outcomes_file = sha256(octets).hexdigest()
    writer.execute("INSERT INTO commits VALUES (?, ?, ?)", (commit_id, recorded_at_us, octets))
    counts, stored, rows = _counts(batch, outcomes), [], []
    for position, (one, root) in enumerate(zip(batch.deliveries, batch.roots, strict=True)):
        text = msgspec.json.encode(counts[position]).decode()
        rows.append(
            (
                *(first_delivery + position, one.sender, one.message_id, feed_id, commit_id, position),
                *(one.entry, one.evidence_class, microseconds(one.valid_from), root, text, one.asserted_by),
            )
        )
        done = StoredDelivery(one.sender, one.message_id, root, counts[position], batch.recorded_at, outcomes_file)
        stored.append(done)
    frame = pl.DataFrame(rows, DELIVERY, orient="row", infer_schema_length=None)
    writer.insert("deliveries", DELIVERY, frame.with_columns(pl.col("asserted_by").cast(pl.String)))
    return tuple(stored)


def _counts(batch: Batch, outcomes: pl.DataFrame) -> list[Counts]:
    found: list[dict[str, int]] = [{} for _ in batch.deliveries]
    for delivery, outcome, count in outcomes.group_by("delivery", "outcome").len().rows():
        found[delivery][outcome] = count
    gone = batch.compared.ended.filter(pl.col("record").is_null())
    for delivery, count in gone.group_by("delivery").len().rows():
        found[delivery]["gone"] = count
    if batch.layer is not None:
        found[0]["gone"] = batch.layer.gone
    return [Counts(**one) for one in found]
