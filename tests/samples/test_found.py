"""Mapping, placing and checking find the faults of the made-up quarter: all of them, and no other."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from connectors.formats import table
from exchange import validation
from exchange.placing import load_city, place
from exchange.store.frames import BatchDelivery
from mappings.apply import map_records, take
from mappings.load import load_feeds
from samples.generate import Truth, generate
from security.message import in_memory

ROOT = Path(__file__).parents[2]
NOON = datetime(2026, 6, 30, 4, tzinfo=UTC)


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Truth]:
    folder = tmp_path_factory.mktemp("city")
    return folder, generate(folder, 2007)


@pytest.mark.parametrize(
    ("feed_id", "name"),
    [("urban-census", "census.csv"), ("water-register", "water.csv"), ("water-register", "water-later.csv")],
)
def test_what_was_put_in_is_what_is_found(city: tuple[Path, Truth], feed_id: str, name: str) -> None:
    folder, truth = city
    feed = load_feeds([ROOT / "mappings/feeds"])[feed_id]
    content = in_memory((folder / name).read_bytes())
    records = pl.concat([take(batch.frame, feed, 0) for batch in table.decode(content, feed.options)])
    mapped = map_records(records, feed)
    places = load_city(folder / "districts.geojson", folder / "grid.geojson", truth.extent)
    placing = place(mapped.candidates, crs=feed.crs, accuracy_m=feed.accuracy_m, city=places, limit_m=1.0)
    found = pl.concat([mapped.findings, placing.findings])
    lists = validation.lists("2007", grid=places.grid.codes, districts=places.districts.codes)
    delivery = BatchDelivery(
        sender=feed.bureau,
        message_id="m-1",
        valid_from=NOON,
        received_at=NOON,
        entry=0,
        evidence_class="signed",
    )
    checked = validation.check(placing.placed, found, deliveries=[delivery], classes=feed.class_codes, lists=lists)
    findings = pl.concat([found, checked])
    assert findings["code"].null_count() == 0
    register = truth.registers[name]
    for severity, seeded in (("error", register.rejected), ("warning", register.warned)):
        accepted = [] if severity == "error" else [row for rows in register.rejected.values() for row in rows]
        told = findings.filter((pl.col("severity") == severity) & ~pl.col("record").is_in(accepted))
        assert {code: told.filter(code=code)["record"].sort().to_list() for code in told["code"].unique()} == seeded
