"""What is asked of the store about one component or one place: each a single prepared statement."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
import polars as pl

from exchange.database import Connection
from exchange.rights import View, is_ring, ring_text
from security.message import EVERYWHERE


class Row(NamedTuple):
    """A component and one of its claims; the claim's columns are all null where there is none."""

    key: int
    identifier: str | None
    class_code: str
    longitude_deg: float
    latitude_deg: float
    accuracy_m: float
    division_code: str | None
    grid_code: str | None
    change_number: int
    claim: int | None
    bureau: str
    feed: str
    source_key: str
    sender: str
    message_id: str
    record: int
    entry: int
    evidence_class: str
    valid_from_us: int
    valid_to_us: int | None
    recorded_at_us: int
    claimed_class: str
    claimed_longitude_deg: float
    claimed_latitude_deg: float
    claimed_accuracy_m: float
    claimed_division: str | None
    claimed_grid: str | None
    join_distance_m: float | None
    name: str | None
    state: str | None
    authority_code: str | None
    authority_name: str | None
    authority_basis: str | None
    owner_code: str | None
    owner_name: str | None
    owner_basis: str | None
    maintainer_code: str | None
    maintainer_name: str | None
    maintainer_basis: str | None
    more: str | None
    asserted_by: str | None
    recalled_at_us: int | None
    erased_on: str | None


_SAID: Final = (
    "delivery_id, record, valid_from_us, valid_to_us, class_code, longitude_deg, latitude_deg, accuracy_m, "
    "division_code, grid_code, name, state, roles_id, more"
)
_PAST_SAID: Final = ", ".join(f"p.{name}" for name in _SAID.split(", "))
_ROW: Final = (
    "SELECT c.id, c.identifier, c.class_code, c.longitude_deg, c.latitude_deg, c.accuracy_m, c.division_code, "
    "c.grid_code, c.change_number, k.id, f.bureau, f.code, k.source_key, d.sender, d.message_id, k.record, d.entry, "
    "d.evidence_class, k.valid_from_us, k.valid_to_us, t.recorded_at_us, k.class_code, k.longitude_deg, "
    "k.latitude_deg, k.accuracy_m, k.division_code, k.grid_code, k.join_distance_m, k.name, k.state, "
    "r.authority_code, r.authority_name, r.authority_basis, r.owner_code, r.owner_name, r.owner_basis, "
    "r.maintainer_code, r.maintainer_name, r.maintainer_basis, k.more, d.asserted_by, "
    "d.recalled_us, d.erased_on "
    "FROM c LEFT JOIN k ON k.component_id = c.id {}"
    "LEFT JOIN feeds f ON f.id = k.feed_id LEFT JOIN deliveries d ON d.id = k.delivery_id "
    "LEFT JOIN commits t ON t.id = d.commit_id LEFT JOIN roles r ON r.id = k.roles_id ORDER BY k.id"
)
# Before a boundary moved a claim was counted elsewhere: a past day is answered by where.
_COUNTED: Final = "k.division_code, k.grid_code, "
_COUNTED_THEN: Final = (
    "CASE WHEN p.id IS NULL THEN k.division_code ELSE p.division_code END, "
    "CASE WHEN p.id IS NULL THEN k.grid_code ELSE p.grid_code END, "
)
_BEFORE: Final = (
    "LEFT JOIN placed_before p ON p.claim_id = k.id AND p.delivery_id = k.delivery_id AND p.record = k.record "
    "AND p.from_us < (SELECT us FROM at) AND p.until_us >= (SELECT us FROM at) "
)
_ROW_NOW: Final = _ROW.format("")
_ROW_THEN: Final = _ROW.format(_BEFORE).replace(_COUNTED, _COUNTED_THEN)
_NOW: Final = (
    f"k AS (SELECT k.id, feed_id, source_key, join_distance_m, component_id, {_SAID} FROM claims k "
    "WHERE component_id IN (SELECT id FROM c) AND valid_to_us IS NULL AND CAST(? AS BIGINT) IS NULL)"
)
_THEN: Final = (
    "at(us) AS (SELECT CAST(? AS BIGINT)), "
    f"k AS (SELECT k.id, feed_id, source_key, join_distance_m, component_id, {_SAID} "
    "FROM claims k, at WHERE component_id IN (SELECT id FROM c) "
    "AND valid_from_us < at.us AND (valid_to_us IS NULL OR valid_to_us >= at.us) "
    f"UNION ALL SELECT o.id, o.feed_id, o.source_key, o.join_distance_m, p.component_id, {_PAST_SAID} "
    "FROM claims_past p JOIN claims o ON o.id = p.claim_id, at WHERE p.component_id IN (SELECT id FROM c) "
    "AND p.valid_from_us < at.us AND p.valid_to_us >= at.us)"
)
_BY: Final = "WITH c AS (SELECT * FROM components WHERE {} = ?), "


class Question(NamedTuple):
    """One way to name a component: what to ask for now, and for a past moment."""

    now: str
    then: str


_CLAIMED: Final = (f"{_NOW} {_ROW_NOW}", f"{_THEN} {_ROW_THEN}")
BY_KEY: Final = Question(*(f"{_BY.format('id')}{claimed}" for claimed in _CLAIMED))
BY_IDENTIFIER: Final = Question(*(f"{_BY.format('identifier')}{claimed}" for claimed in _CLAIMED))

_RANGES: Final = (
    "WITH r AS (SELECT CAST(json_extract(value, '$[0]') AS BIGINT) AS first, "
    "CAST(json_extract(value, '$[1]') AS BIGINT) AS last FROM json_each(:ranges)) "
)
_AROUND_NOW: Final = (
    f"{_RANGES} SELECT c.id, class_code, longitude_deg, latitude_deg FROM r JOIN components c "
    "ON c.cell BETWEEN r.first AND r.last WHERE {}"
)
# Where it is today or was before; whoever named it by then. Claims that moved left their old cell in claims_past.
_AROUND_THEN: Final = (
    f"{_RANGES}, k AS (SELECT id FROM r JOIN components ON cell BETWEEN first AND last "
    "UNION SELECT component_id FROM r JOIN claims_past ON cell BETWEEN first AND last), "
    "at(us) AS (SELECT CAST(:until_us AS BIGINT)) "
    "SELECT k.id FROM k, at WHERE EXISTS (SELECT 1 FROM claims WHERE component_id = k.id AND valid_from_us < at.us) "
    "OR EXISTS (SELECT 1 FROM claims_past WHERE component_id = k.id AND valid_from_us < at.us)"
)


_CLAIMED_DIFFERENTLY: Final = (
    "SELECT component_id FROM claims k JOIN components c ON c.id = component_id "
    "WHERE component_id > :after AND valid_to_us IS NULL AND {} GROUP BY component_id "
    "HAVING count(DISTINCT roles_id) > 1 ORDER BY component_id LIMIT :limit"
)
# The index is over number and class together, so what a grant withholds is passed over without a look at its row.
_CHANGED: Final = (
    "SELECT c.identifier, c.id, c.change_number, c.change_kind FROM components c WHERE c.change_number > :after "
    "AND {} ORDER BY c.change_number LIMIT :limit"
)
# What the claim recorded last says, of those that stand and say anything.
_LATEST_SAID: Final = (
    "(SELECT k.{0} FROM claims k JOIN deliveries d ON d.id = k.delivery_id JOIN commits t ON t.id = d.commit_id "
    "WHERE k.component_id = c.id AND k.valid_to_us IS NULL AND k.{0} IS NOT NULL ORDER BY t.recorded_at_us DESC, k.id "
    "LIMIT 1)"
)
_CHOSEN: Final = (
    "{view} AND (CAST(:class AS TEXT) IS NULL OR instr('|' || c.class_code || '|', '|' || :class || '|') > 0) "
    f"AND (CAST(:state AS TEXT) IS NULL OR {_LATEST_SAID.format('state')} = :state)"
)
_LISTED: Final = (
    "SELECT c.id, c.identifier, c.class_code, {name}, {state}, c.longitude_deg, c.latitude_deg, c.accuracy_m, "
    f"c.division_code, c.grid_code, c.change_number FROM components c WHERE c.id > :after AND {_CHOSEN} "
    "ORDER BY c.id LIMIT :limit"
)
_CELLS: Final = f"SELECT DISTINCT c.cell FROM components c WHERE {_CHOSEN}"
_CELLS_OF: Final = (
    "SELECT DISTINCT c.cell FROM claims k JOIN feeds f ON f.id = k.feed_id JOIN components c ON c.id = k.component_id "
    "WHERE k.valid_to_us IS NULL AND f.code IN (SELECT value FROM json_each(?))"
)
_BEYOND: Final = (
    "SELECT k.source_key FROM claims k JOIN feeds f ON f.id = k.feed_id WHERE f.code = :feed "
    "AND k.valid_to_us IS NULL AND NOT {view}"
)
_LAST_CHANGE: Final = "SELECT last FROM change_counter"


def ask(connection: Connection, question: Question, component: str | int, until_us: int | None) -> list[Row]:
    """A component with the claims valid at a moment (None: now), known longest first; no row where it is unknown."""
    statement = question.now if until_us is None else question.then
    return [Row._make(row) for row in connection.execute(statement, (component, until_us))]


def claimed_differently(connection: Connection, after: int, limit: int, view: View) -> list[int]:
    """Keys after a key, at most `limit`, of components of whose units their standing claims do not say the same."""
    statement = _CLAIMED_DIFFERENTLY.format(seen_through(view, "c"))
    return [row[0] for row in connection.execute(statement, {"after": after, "limit": limit, **view_values(view)})]


def changed_after(
    connection: Connection, number: int, limit: int, view: View
) -> list[tuple[str | None, int, int, str]]:
    """Identifier, key, change number and kind of the components last changed after a number, as a view shows them."""
    statement = _CHANGED.format(seen_through(view, "c"))
    return connection.execute(statement, {"after": number, "limit": limit, **view_values(view)}).fetchall()


def last_change(connection: Connection) -> int:
    """The last change number that was given out."""
    return int(connection.execute(_LAST_CHANGE).fetchone()[0])


def around(
    connection: Connection, ranges: Sequence[tuple[int, int]], view: View
) -> list[tuple[int, str, float, float]]:
    """Key, class, longitude and latitude of every component in ranges of cells, as they stand and a view shows them."""
    values = {"ranges": msgspec.json.encode(ranges).decode(), **view_values(view)}
    return connection.execute(_AROUND_NOW.format(seen_through(view, "c")), values).fetchall()


def around_then(connection: Connection, ranges: Sequence[tuple[int, int]], until_us: int) -> list[int]:
    """Keys of the components that are or ever were in ranges of cells, and that somebody had named by a moment.

    Whose place of that day a view shows is judged when its claims of that day are read.
    """
    values = {"ranges": msgspec.json.encode(ranges).decode(), "until_us": until_us}
    return [row[0] for row in connection.execute(_AROUND_THEN, values)]


class Chosen(NamedTuple):
    """Which components: through which view, and of those, of which class and state (None: any)."""

    view: View
    class_code: str | None = None
    state: str | None = None

    @property
    def values(self) -> dict[str, Any]:
        """For the statement's parameters."""
        return {"class": self.class_code, "state": self.state, **view_values(self.view)}


def listed(connection: Connection, after: int, limit: int, chosen: Chosen) -> list[tuple[Any, ...]]:
    """Components after a key, at most `limit`, in order of key, as `exchange.ownership.Component` has its members."""
    said = {name: _LATEST_SAID.format(name) if chosen.view.shows(name) else "NULL" for name in ("name", "state")}
    statement = _LISTED.format(view=seen_through(chosen.view, "c"), **said)
    return connection.execute(statement, {"after": after, "limit": limit, **chosen.values}).fetchall()


def cells(connection: Connection, chosen: Chosen) -> list[int]:
    """The cells in which components stand."""
    statement = _CELLS.format(view=seen_through(chosen.view, "c"))
    return [row[0] for row in connection.execute(statement, chosen.values)]


def cells_of(connection: Connection, feeds: Sequence[str]) -> list[int]:
    """The cells in which components stand of which one of the feeds has a standing claim."""
    return [row[0] for row in connection.execute(_CELLS_OF, (msgspec.json.encode(feeds).decode(),))]


def beyond(connection: Connection, feed: str, view: View, source_keys: Sequence[str] | None) -> pl.DataFrame:
    """source_key: those of a feed's keys (None: of all) whose standing claims a view does not cover."""
    rows: list[tuple[str]] = []
    if view.classes or view.area != EVERYWHERE:
        statement = _BEYOND.format(view=seen_through(view, "k"))
        values = {"feed": feed, **view_values(view)}
        if source_keys is not None:
            statement += " AND k.source_key IN (SELECT value FROM json_each(:keys))"
            values["keys"] = msgspec.json.encode(source_keys).decode()
        rows = connection.execute(statement, values).fetchall()
    return pl.DataFrame(rows, {"source_key": pl.String}, orient="row")


# What a view shows ----------------------------------------------------------------------------------------------------

# Of a class that is a set, undecided, each must be among those that are wanted. Code lists hold no quotation mark.
_CLASSES: Final = (
    "({0}.class_code IN (SELECT value FROM json_each(:v_classes)) OR instr({0}.class_code, '|') > 0 AND NOT EXISTS ("
    "SELECT 1 FROM json_each('[\"' || replace({0}.class_code, '|', '\",\"') || '\"]') "
    "WHERE value NOT IN (SELECT value FROM json_each(:v_classes))))"
)
_DISTRICTS: Final = (
    "coalesce(substr({{0}}.division_code, 1, {digits}) IN (SELECT value FROM json_each(:v_districts)), FALSE)"
)
_GRIDS: Final = "coalesce({0}.grid_code IN (SELECT value FROM json_each(:v_grids)), FALSE)"
_RING: Final = (
    "({0}.longitude_deg BETWEEN :v_west AND :v_east AND {0}.latitude_deg BETWEEN :v_south AND :v_north "
    "AND in_ring(:v_ring, {0}.longitude_deg, {0}.latitude_deg))"
)


def seen_through(view: View, row: str) -> str:
    """A condition, never null, on a row of `components` or `claims` that has this name in the statement."""
    area = view.area
    places = [_DISTRICTS.format(digits=digits) for digits in sorted({len(code) for code in area.districts})]
    places += [condition for named, condition in ((area.cells, _GRIDS), (area.polygon, _RING)) if named]
    conditions = [*([_CLASSES] if view.classes else []), *([f"({' OR '.join(places)})"] if places else [])]
    return f"({' AND '.join(conditions) or 'TRUE'})".format(row)


def view_values(view: View) -> dict[str, Any]:
    """The parameters of `seen_through`, whatever the row's name."""
    area = view.area
    values: dict[str, Any] = {
        "v_classes": msgspec.json.encode(sorted(view.classes)).decode(),
        "v_districts": msgspec.json.encode(area.districts).decode(),
        "v_grids": msgspec.json.encode(area.cells).decode(),
    }
    if area.polygon:
        east, north = zip(*area.polygon, strict=True)
        values |= {"v_west": min(east), "v_east": max(east), "v_south": min(north), "v_north": max(north)}
        values["v_ring"] = ring_text(area if is_ring(area) else EVERYWHERE)
    return values
