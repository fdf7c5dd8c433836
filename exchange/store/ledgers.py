"""The store in numbers."""

from collections import Counter

import msgspec

from exchange.database import Connection
from exchange.rights import EVERYTHING, View
from exchange.store.asking import seen_through, view_values
from exchange.store.frames import Ledger, Tie
from exchange.store.roles import ROLE_NAMES, RoleAnswer, Verdict, unit_of, verdict, weigh
from exchange.store.writing import ROLE_COLUMNS

ALL = 2**62  # no limit

# Few combinations of units serve many components, so each is weighed once, by the rule that answers are given by.
COMBINATIONS = (
    "SELECT ids, count(*) FROM (SELECT json_group_array(DISTINCT roles_id) AS ids FROM claims "
    "WHERE valid_to_us IS NULL GROUP BY component_id) combined GROUP BY ids"
)

TIES = (
    "SELECT f.bureau, f.code, k.source_key, k.component_id, json_group_array(t.component_id), "
    "min(t.distance_m) FROM ties t JOIN claims k ON k.id = t.claim_id JOIN feeds f ON f.id = k.feed_id "
    "JOIN components c ON c.id = k.component_id JOIN components o ON o.id = t.component_id "
    "WHERE k.valid_to_us IS NULL AND k.component_id > :after AND {} AND {} "
    "GROUP BY f.bureau, f.code, k.source_key, k.component_id, t.claim_id "
    "ORDER BY k.component_id, t.claim_id LIMIT :limit"
)


def ledger(connection: Connection) -> Ledger:
    """Components, claims that stand, deliveries, disputes, orphans and gaps, as of now."""
    components = _count(connection, "SELECT count(*) FROM components")
    counted: Counter[Verdict] = Counter()
    for ids, count in connection.execute(COMBINATIONS).fetchall():
        counted[verdict(_weighed(connection, ids))] += count
    counted["nobody claims this"] += components - counted.total()
    return Ledger(
        components=components,
        claims=_count(connection, "SELECT count(*) FROM claims WHERE valid_to_us IS NULL"),
        deliveries=_count(connection, "SELECT count(*) FROM deliveries"),
        disputes=counted["two bureaus claim this"],
        orphans=counted["nobody claims this"],
        gaps=counted["role unknown"],
        ties=len(ties(connection)),
        by_class=_by(connection, "SELECT class_code, count(*) FROM components GROUP BY class_code"),
        by_division=_by(connection, "SELECT division_code, count(*) FROM components GROUP BY division_code"),
        by_feed=_by(
            connection,
            "SELECT f.code, count(*) FROM claims k JOIN feeds f ON f.id = k.feed_id "
            "WHERE valid_to_us IS NULL GROUP BY f.code",
        ),
    )


def ties(connection: Connection, view: View = EVERYTHING, after: int = 0, limit: int = ALL) -> list[Tie]:
    """Standing claims with open ties, by component, as far as a view covers what they lie between."""
    statement = TIES.format(seen_through(view, "c"), seen_through(view, "o"))
    rows = connection.execute(statement, {"after": after, "limit": limit, **view_values(view)}).fetchall()
    return [
        Tie(bureau, feed, key, component, tuple(sorted(msgspec.json.decode(others))), metres)
        for bureau, feed, key, component, others, metres in rows
    ]


def _weighed(connection: Connection, ids: str) -> list[RoleAnswer]:
    """The three roles, by some combinations of units (a JSON list of keys of `roles`)."""
    rows = [
        connection.execute(f"SELECT {', '.join(ROLE_COLUMNS)} FROM roles WHERE id = ?", (key,)).fetchone()
        for key in msgspec.json.decode(ids)
    ]
    return [
        weigh(role, [unit_of(*row[3 * place : 3 * place + 3]) for row in rows]) for place, role in enumerate(ROLE_NAMES)
    ]


def _count(connection: Connection, question: str) -> int:
    return int(connection.execute(question).fetchone()[0])


def _by(connection: Connection, question: str) -> dict[str, int]:
    return dict(connection.execute(question + " ORDER BY 1").fetchall())
