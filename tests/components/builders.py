"""A made-up city of two districts and four unit grids around 121.55°E 29.87°N, and candidates that stand in it."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import polars as pl
import shapely

from exchange.claims import compare
from exchange.joining import join
from exchange.placing import Areas, City, place
from exchange.rights import View
from exchange.store.embedded import Embedded
from exchange.store.frames import Batch, BatchDelivery, Compared, Stored
from exchange.store.store import Store
from exchange.store.tables import metadata
from exchange.validation import check, lists
from mappings.apply import UNREAD
from mappings.schema import CANDIDATES, FINDINGS, conform

WEST, EAST = "330203", "330205"
LIMIT_M = 1.0
MONDAY = datetime(2026, 3, 2, 1, 0, tzinfo=UTC)
DAY = timedelta(days=1)


def areas(boxes: dict[str, tuple[float, float, float, float]]) -> Areas:
    """Boxes by code (west, south, east, north)."""
    codes = tuple(sorted(boxes))
    polygons = np.array([shapely.box(*boxes[code]) for code in codes], dtype=np.object_)
    shapely.prepare(polygons)
    return Areas(codes, polygons, shapely.STRtree(polygons))


def a_city() -> City:
    """Two districts that meet at 121.55°E; of each the southern half has a unit grid, the northern two."""
    return City(
        districts=areas({WEST: (121.54, 29.86, 121.55, 29.88), EAST: (121.55, 29.86, 121.56, 29.88)}),
        grid=areas(
            {
                "330203001001001": (121.54, 29.86, 121.55, 29.87),
                "330203001001002": (121.54, 29.87, 121.55, 29.88),
                "330205001001001": (121.55, 29.86, 121.56, 29.87),
                "330205001001002": (121.55, 29.87, 121.56, 29.88),
            }
        ),
        extent_deg=(121.53, 29.85, 121.57, 29.89),
    )


def a_row(key: str | None, number: int = 0, delivery: int = 0, **said: Any) -> dict[str, Any]:
    """One good candidate in degrees; numbers put things 11 m apart along a parallel."""
    return {
        "delivery": delivery,
        "source_key": key,
        "class_code": "0101",
        "x": 121.541 + number * 1e-4,
        "y": 29.865,
        "authority_name": "样城水务局",
        "authority_basis": "stated",
        "owner_name": "样城自来水公司",
        "owner_basis": "stated",
        "maintainer_name": "样城自来水公司",
        "maintainer_basis": "stated",
        "state": "完好",
        **said,
    }


def candidates(rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """CANDIDATES; a row without a record number takes its place within its delivery."""
    counts: dict[int, int] = {}
    numbered = []
    for row in rows:
        record = counts.get(row["delivery"], 0)
        counts[row["delivery"]] = record + 1
        numbered.append({"record": record, **row})
    names = {name: kind for name, kind in CANDIDATES.items() if any(name in row for row in numbered)}
    return conform(pl.DataFrame(numbered, schema=names), CANDIDATES)


def a_delivery(message_id: str, valid_from: datetime = MONDAY, sender: str = "water", **said: Any) -> BatchDelivery:
    """A delivery received at noon of the day it is valid from."""
    classes = frozenset(said.pop("classes", ()))
    return BatchDelivery(
        sender=sender,
        message_id=message_id,
        valid_from=valid_from,
        received_at=said.pop("received_at", valid_from),
        entry=said.pop("entry", 7),
        view=said.pop("view", View(classes)),
        evidence_class="signed",
        **said,
    )


class Feed(msgspec.Struct, frozen=True):
    """How a feed of the tests is worked through."""

    id: str = "water-register"
    bureau: str = "water"
    content: Literal["snapshot", "changes"] = "changes"
    accuracy_m: float = 0.5
    gone_limit_percent: float = 100.0
    whole: bool = True
    crs: str = "EPSG:4490"


WATER = Feed()
CENSUS = Feed("urban-census", "urban-management")
CITY = a_city()
LISTS = lists("2007", grid=CITY.grid.codes, districts=CITY.districts.codes)


def compared(
    store: Store,
    feed: Feed,
    rows: Sequence[dict[str, Any]],
    deliveries: Sequence[BatchDelivery],
    found: Sequence[tuple[Any, ...]] = (),
    unread: Sequence[tuple[Any, ...]] = (),
) -> Compared:
    """Place, check and compare a batch, as act two does; found and unread: what mapping said of other records."""
    placing = place(candidates(rows), crs=feed.crs, accuracy_m=feed.accuracy_m, city=CITY, limit_m=LIMIT_M)
    mapped = pl.DataFrame(list(found), FINDINGS, orient="row")
    checked = check(placing.placed, placing.findings, deliveries=deliveries, classes=(), lists=LISTS)
    keys = None if feed.content == "snapshot" else placing.placed["source_key"].drop_nulls().unique().to_list()
    return compare(
        placing.placed,
        pl.concat([mapped, placing.findings, checked]),
        store.seen(feed.id, keys),
        deliveries,
        unread=pl.DataFrame(list(unread), UNREAD, orient="row"),
        content=feed.content,
        crs=feed.crs,
        gone_limit_percent=feed.gone_limit_percent,
        whole=feed.whole,
    )


def a_batch(store: Store, feed: Feed, rows: Sequence[dict[str, Any]], deliveries: Sequence[BatchDelivery]) -> Batch:
    """A batch ready to commit."""
    return _joined(store, feed, compared(store, feed, rows, deliveries), deliveries)


def _joined(store: Store, feed: Feed, found: Compared, deliveries: Sequence[BatchDelivery]) -> Batch:
    joined = join(found.versions, store.near(feed.id, found.versions))
    return Batch(
        feed=feed.id,
        bureau=feed.bureau,
        recorded_at=max(one.received_at for one in deliveries) + timedelta(seconds=1),
        deliveries=tuple(deliveries),
        roots=tuple("00" * 32 for _ in deliveries),
        compared=found,
        links=joined.links,
        ties=joined.ties,
    )


def deliver(
    store: Store,
    rows: Sequence[dict[str, Any]],
    *deliveries: BatchDelivery,
    feed: Feed = WATER,
) -> Stored:
    """Work a batch through to the store."""
    found = compared(store, feed, rows, deliveries)
    with store.neighbourhood(found):
        return store.commit(_joined(store, feed, found, deliveries))


def outcomes(stored: Stored) -> list[str]:
    """The outcome of each record, in order."""
    return stored.outcomes["outcome"].to_list()


def everything(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables."""
    ask = store.connection().execute
    return {name: sorted(ask(f"SELECT * FROM {name}").fetchall(), key=repr) for name in metadata.tables}


def a_store(folder: Path) -> Store:
    """A new store in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    return Store(Embedded(folder))
