"""What one transaction of the store writes. Everything is decided as columns first, then written in bulk by the driver.

Order: by delivery, then source key. So a delivery with its rows in another order leaves the same store behind.
"""

import io
import itertools
import sqlite3
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, Final

import msgspec
import polars as pl

from exchange.store import readings
from exchange.store.frames import Batch, Counts, Stored, StoredDelivery, microseconds, moment
from exchange.store.identifiers import issue
from exchange.store.places import cell
from mappings.schema import CLASSES_BETWEEN, FINDINGS, KEY, OUTCOMES, ROLES, conform

ROLE_COLUMNS: Final = tuple(f"{role}_{part}" for role in ROLES for part in ("code", "name", "basis"))
# Kept with the claim, asked for by nobody in bulk: one JSON text, without what was not said.
MORE: Final = (
    "height_m", "grid_code", "division_code", "component_code", "place", "initial_date", "change_date", "data_source",
    "note", "appurtenance", "network", "label", "provenance",
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
ROWS_TOGETHER: Final = 50  # in one statement of an insert; SQLite takes 32,766 parameters
ROWS_ALONE: Final = 1_000  # up to here each goes in by a statement that is always the same, and so compiled once
LEADING: Final = ("class_code", "longitude_deg", "latitude_deg", "accuracy_m", "division_code", "grid_code")

CELL_SQL: Final = "CAST(latitude_deg * 1000 AS INTEGER) * 1000000 + CAST(longitude_deg * 1000 AS INTEGER)"
KEEP_PAST: Final = (
    f"INSERT INTO claims_past ({', '.join(PAST)}) "
    "SELECT id, component_id, delivery_id, record, valid_from_us, coalesce(valid_to_us, ?), coalesce(closed_by, ?), "
    f"{', '.join(VERSION[6:])}, {CELL_SQL} FROM claims WHERE id = ?"
)
REPLACE: Final = f"UPDATE claims SET {', '.join(f'{name} = ?' for name in VERSION)} WHERE id = ?"
END: Final = "UPDATE claims SET valid_to_us = ?, closed_by = ? WHERE id = ?"
# (component, change number), for components that were there before.
LIVE: Final = "FROM claims WHERE component_id = ?1 AND valid_to_us IS NULL"
TOUCH: Final = "UPDATE components SET change_number = ?2, change_kind = 'changed' WHERE id = ?1"
ORPHAN: Final = (
    f"UPDATE components SET change_number = ?2, change_kind = 'orphaned' WHERE id = ?1 AND NOT EXISTS (SELECT 1 {LIVE})"
)
# Few of them are not what their standing claims say; to write every one with its cell again would cost ten times this.
DIFFERING: Final = (
    "SELECT DISTINCT c.id FROM json_each(?) j JOIN components c ON c.id = j.value "
    "JOIN claims k ON k.component_id = c.id "
    f"WHERE k.valid_to_us IS NULL AND ({', '.join(f'c.{name}' for name in LEADING)}) "
    f"IS NOT ({', '.join(f'k.{name}' for name in LEADING)})"
)
# The class is that of the first claim that is sure of it; none is: what was decided before, for an identifier says it.
DECIDED: Final = (
    f"coalesce((SELECT class_code {LIVE} AND NOT instr(class_code, '{CLASSES_BETWEEN}') ORDER BY id LIMIT 1), "
    f"iif(instr(components.class_code, '{CLASSES_BETWEEN}'), k.class_code, components.class_code))"
)
LEAD: Final = (
    f"UPDATE components SET cell = k.cell, class_code = {DECIDED}, "
    f"{', '.join(f'{name} = k.{name}' for name in LEADING if name != 'class_code')} "
    f"FROM (SELECT {', '.join(LEADING)}, {CELL_SQL} AS cell {LIVE} ORDER BY id LIMIT 1) k WHERE components.id = ?1"
)
# Of components in a list, those without an identifier whose class is decided now.
PENDING: Final = (
    "SELECT c.id, c.class_code, c.division_code FROM json_each(?) j JOIN components c ON c.id = j.value "
    f"WHERE c.identifier IS NULL AND NOT instr(c.class_code, '{CLASSES_BETWEEN}')"
)
PENDING_COLUMNS: Final = {"component": pl.Int64, "class_code": pl.String, "division_of_position": pl.String}
IDENTIFY: Final = "UPDATE components SET identifier = ? WHERE id = ?"
TIE: Final = "INSERT INTO ties VALUES (?, ?, ?)"
UNTIE: Final = "DELETE FROM ties WHERE claim_id = ?"


def write(connection: sqlite3.Connection, batch: Batch) -> Stored:
    """Everything of a batch, inside the transaction that the caller opened."""
    feed_id = _feed(connection, batch)
    first_delivery = _next(connection, "deliveries")
    versions = _linked(connection, batch)
    events = _events(versions, batch)
    standing = versions.filter("last")
    founded = standing.filter("founds")
    identifiers, findings = issue(connection, founded, batch.territory)
    versions_rows = _rows(connection, versions, first_delivery)

    _close(connection, events, versions, first_delivery)
    _insert(connection, "claims_past", PAST, versions_rows.filter(~pl.col("last")))
    _put_claims(connection, versions_rows.filter("last"), feed_id)
    _put_ties(connection, batch, versions)
    numbers = _numbers(connection, events)
    _insert(connection, "components", COMPONENT, _components(founded, identifiers, numbers))
    findings = pl.concat([findings, _touch(connection, numbers, versions, events.filter("ends"), batch)])
    if batch.readings is not None:
        readings.put(connection, batch.readings, feed_id, first_delivery)
    outcomes = _outcomes(batch, versions)
    deliveries = _deliveries(connection, batch, outcomes, feed_id, first_delivery)
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


def _feed(connection: sqlite3.Connection, batch: Batch) -> int:
    # Only a whole snapshot makes everything older than it no news: a page of one speaks of its own keys alone.
    newest_us = max(microseconds(one.valid_from) for one in batch.deliveries) if batch.compared.whole else 0
    connection.execute(
        "INSERT INTO feeds (code, bureau, as_of_us) VALUES (?, ?, ?) "
        "ON CONFLICT (code) DO UPDATE SET bureau = excluded.bureau, as_of_us = max(as_of_us, excluded.as_of_us)",
        (batch.feed, batch.bureau, newest_us),
    )
    return int(connection.execute("SELECT id FROM feeds WHERE code = ?", (batch.feed,)).fetchone()[0])


def _next(connection: sqlite3.Connection, table: str) -> int:
    """The next free key of a table; rows are never deleted, so none is used twice."""
    return int(connection.execute(f"SELECT coalesce(max(id), 0) + 1 FROM {table}").fetchone()[0])


def _linked(connection: sqlite3.Connection, batch: Batch) -> pl.DataFrame:
    """VERSIONS in their order with claim and component filled, and: distance_m, added (the claim is), founds (a
    component), last (of its key), named (the identifier that its district says it has)."""
    links = batch.links.select("source_key", "distance_m", linked="component")
    versions = batch.compared.versions.drop("component")
    versions = versions.join(links, on="source_key", how="left", maintain_order="left")
    added = versions.filter(pl.col("claim").is_null()).select("source_key").unique(maintain_order=True)
    added = added.with_row_index("claim_added", offset=_next(connection, "claims"))
    founding = versions.filter(pl.col("linked").is_null()).select("source_key").unique(maintain_order=True)
    founding = founding.with_row_index("component_founded", offset=_next(connection, "components"))
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


def _rows(connection: sqlite3.Connection, versions: pl.DataFrame, first_delivery: int) -> pl.DataFrame:
    """The versions in the words of the tables."""
    return versions.with_columns(
        _roles(connection, versions),
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


def _roles(connection: sqlite3.Connection, versions: pl.DataFrame) -> pl.Series:
    """The key of each version's combination of units, entered where it is new."""
    combinations = versions.select(ROLE_COLUMNS).unique(maintain_order=True)
    rows = [(_roles_digest(row), *row) for row in combinations.rows()]
    connection.executemany(
        f"INSERT INTO roles (digest, {', '.join(ROLE_COLUMNS)}) VALUES ({_marks(1 + len(ROLE_COLUMNS))}) "
        "ON CONFLICT (digest) DO NOTHING",
        rows,
    )
    found = [connection.execute("SELECT id FROM roles WHERE digest = ?", row[:1]).fetchone()[0] for row in rows]
    numbered = combinations.with_columns(pl.Series("roles_id", found, dtype=pl.Int64))
    joined = versions.select(ROLE_COLUMNS).join(
        numbered, on=ROLE_COLUMNS, how="left", nulls_equal=True, maintain_order="left"
    )
    return joined["roles_id"]


def _roles_digest(row: tuple[str | None, ...]) -> bytes:
    return sha256(msgspec.json.encode(row)).digest()


def _close(connection: sqlite3.Connection, events: pl.DataFrame, versions: pl.DataFrame, first_delivery: int) -> None:
    """What stood before the batch ends with the first event of its key; if something else stands now, it is kept."""
    first = (
        events.filter("kept").sort("source_key", "at_us", *KEY).unique("source_key", keep="first", maintain_order=True)
    )
    first = first.select("at_us", pl.col("delivery") + first_delivery, "claim")
    replaced = first.join(versions, on="claim", how="semi")
    connection.executemany(KEEP_PAST, replaced.iter_rows())
    connection.executemany(END, first.join(versions, on="claim", how="anti").iter_rows())


def _put_claims(connection: sqlite3.Connection, standing: pl.DataFrame, feed_id: int) -> None:
    rows = standing.with_columns(id="claim", feed_id=pl.lit(feed_id))
    _insert(connection, "claims", CLAIM, rows.filter("added"))
    connection.executemany(REPLACE, rows.filter(~pl.col("added")).select(*VERSION, "id").iter_rows())


def _numbers(connection: sqlite3.Connection, events: pl.DataFrame) -> pl.DataFrame:
    """component, change_number, once: a number for each event, in order; a component keeps its last."""
    last = connection.execute("UPDATE change_counter SET last = last + ? RETURNING last", (events.height,)).fetchone()[
        0
    ]
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


def _put_ties(connection: sqlite3.Connection, batch: Batch, versions: pl.DataFrame) -> None:
    """What a claim says now decides anew which ties are open."""
    connection.executemany(UNTIE, versions.filter(~pl.col("added")).select("claim").unique().iter_rows())
    keys = versions.filter("last").select("source_key", "claim")
    ties = batch.ties.join(keys, on="source_key", how="inner", maintain_order="left")
    connection.executemany(TIE, ties.select("claim", "component", "distance_m").iter_rows())


def _touch(
    connection: sqlite3.Connection, numbers: pl.DataFrame, versions: pl.DataFrame, ended: pl.DataFrame, batch: Batch
) -> pl.DataFrame:
    """Components that were there before: their change number, and what their claims make of them now, if any stands.

    Gives FINDINGS of identifiers issued to those whose class is decided now.
    """
    founded = versions.filter("last", "founds")
    touched = numbers.join(founded, on="component", how="anti").select("component", "change_number")
    connection.executemany(TOUCH, touched.iter_rows())
    components = msgspec.json.encode(touched["component"].to_list()).decode()
    connection.executemany(LEAD, connection.execute(DIFFERING, (components,)).fetchall())
    connection.executemany(ORPHAN, touched.join(ended, on="component", how="semi").iter_rows())
    return _identify(connection, components, versions, batch)


def _identify(connection: sqlite3.Connection, components: str, versions: pl.DataFrame, batch: Batch) -> pl.DataFrame:
    """An identifier for each of the components (a JSON list) that waited for its class, or for its district's word;
    FINDINGS."""
    pending = pl.DataFrame(connection.execute(PENDING, (components,)).fetchall(), PENDING_COLUMNS, orient="row")
    last = versions.filter("last").unique("component", keep="first", maintain_order=True)
    said = last.select("component", "named", *KEY)
    decided = pending.join(said, on="component", how="inner", maintain_order="left")
    identifiers, findings = issue(connection, decided, batch.territory)
    connection.executemany(IDENTIFY, zip(identifiers, decided["component"], strict=True))
    return findings


def _outcomes(batch: Batch, versions: pl.DataFrame) -> pl.DataFrame:
    """OUTCOMES, now that each component has its number; none where a record was rejected."""
    numbered = versions.filter("last").select("source_key", numbered="component")
    outcomes = batch.compared.outcomes.join(numbered, on="source_key", how="left")
    accepted = ~pl.col("outcome").is_in(["rejected", "ignored"])
    component = pl.when(accepted).then(pl.coalesce("component", "numbered"))
    return conform(outcomes.with_columns(component.alias("component")), OUTCOMES).sort(list(KEY))


def _deliveries(
    connection: sqlite3.Connection, batch: Batch, outcomes: pl.DataFrame, feed_id: int, first_delivery: int
) -> tuple[StoredDelivery, ...]:
    """The commit, its deliveries and their counts."""
    commit_id, recorded_at_us = _next(connection, "commits"), microseconds(batch.recorded_at)
    file = io.BytesIO()
    outcomes.write_ipc(file, compression="zstd")
    octets = file.getvalue()
    outcomes_file = sha256(octets).hexdigest()
    connection.execute("INSERT INTO commits VALUES (?, ?, ?)", (commit_id, recorded_at_us, octets))
    counts, stored = _counts(batch, outcomes), []
    for position, (one, root) in enumerate(zip(batch.deliveries, batch.roots, strict=True)):
        text = msgspec.json.encode(counts[position]).decode()
        connection.execute(
            f"INSERT INTO deliveries VALUES ({_marks(14)})",
            (
                *(first_delivery + position, one.sender, one.message_id, feed_id, commit_id, position),
                *(one.entry, one.evidence_class, microseconds(one.valid_from), root, text, one.asserted_by),
                *(None, None),
            ),
        )
        done = StoredDelivery(one.sender, one.message_id, root, counts[position], batch.recorded_at, outcomes_file)
        stored.append(done)
    return tuple(stored)


def _counts(batch: Batch, outcomes: pl.DataFrame) -> list[Counts]:
    found: list[dict[str, int]] = [{} for _ in batch.deliveries]
    for delivery, outcome, count in outcomes.group_by("delivery", "outcome").len().rows():
        found[delivery][outcome] = count
    gone = batch.compared.ended.filter(pl.col("record").is_null())
    for delivery, count in gone.group_by("delivery").len().rows():
        found[delivery]["gone"] = count
    return [Counts(**one) for one in found]


def _insert(connection: sqlite3.Connection, table: str, columns: tuple[str, ...], rows: pl.DataFrame) -> None:
    """Insert the columns of the rows. Of many rows several go into one statement, which costs half as much a row."""
    alone = rows.height % ROWS_TOGETHER if rows.height > ROWS_ALONE else rows.height
    _insert_by(connection, table, columns, rows.head(rows.height - alone), ROWS_TOGETHER)
    _insert_by(connection, table, columns, rows.tail(alone), 1)


def _insert_by(
    connection: sqlite3.Connection, table: str, columns: tuple[str, ...], rows: pl.DataFrame, together: int
) -> None:
    """Insert so many rows a statement; they are a multiple of it.

    OR FAIL: else a statement of several rows would first copy each page that it changes, to undo itself alone. What
    fails here undoes the whole transaction.
    """
    same = {name: _literal(rows[name]) for name in columns} if together > 1 else {}
    said = rows.select(name for name in columns if same.get(name) is None)
    one = f"({', '.join(same.get(name) or '?' for name in columns)})"
    statement = f"INSERT OR FAIL INTO {table} ({', '.join(columns)}) VALUES {', '.join([one] * together)}"
    if together == 1:
        connection.executemany(statement, said.iter_rows())
    else:
        pieces = (piece.rows() for piece in said.iter_slices(together))
        connection.executemany(statement, (tuple(itertools.chain.from_iterable(piece)) for piece in pieces))


def _literal(column: pl.Series) -> str | None:
    """SQL for a column that is null or one whole number in every row; it need not be bound a million times."""
    if column.null_count() == column.len():
        return "NULL"
    if not column.dtype.is_integer() or column.null_count() or column.min() != column.max():
        return None
    return str(column[0])


def _marks(count: int) -> str:
    return ", ".join("?" * count)
