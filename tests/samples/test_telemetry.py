"""The made-up gateways' readings, through the bus's own mapping and checks: each sown fault is found, and no other."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import polars as pl
import pytest

from connectors.formats.catalogue import formats
from exchange.readings import check
from exchange.store.frames import KNOWN_KEYS, BatchDelivery
from mappings.apply import map_records, take
from mappings.load import load_feeds
from mappings.schema import conform
from samples.generate import generate
from samples.telemetry import FAULTS, HEARTBEATS, Telemetry
from security.message import file_content

ROOT = Path(__file__).parents[2]
NOON = datetime(2026, 11, 21, 4, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("city")
    generate(folder, 2007)
    return folder


def truth(folder: Path) -> Telemetry:
    return msgspec.json.decode((folder / "telemetry-truth.json").read_bytes(), type=Telemetry)


def test_each_sown_fault_is_found_and_no_other(folder: Path) -> None:
    feed, said = load_feeds([ROOT / "mappings/feeds"])["water-telemetry"], truth(folder)
    batches = formats()[feed.format].decode([file_content(folder / "telemetry.json")], feed.options)
    mapped = map_records(pl.concat([take(batch.frame, feed) for batch in batches]), feed)
    water = pl.read_csv(folder / "water.csv", infer_schema=False)["设施编号"].drop_nulls().unique()
    known = pl.DataFrame({"source_key": water}).with_columns(component=pl.lit(1), class_code=pl.lit("0101"))
    delivery = BatchDelivery("water", "t-1", NOON, NOON, 0, "signed")
    checked = check(mapped.candidates, conform(known, KNOWN_KEYS), [delivery])
    found = pl.concat([mapped.findings, checked.findings])
    errors = found.filter(severity="error").sort("record")
    assert {code: errors.filter(code=code)["record"].to_list() for code in FAULTS} == said.rejected
    assert errors.height == sum(FAULTS.values())
    assert found.filter(code="ignored.heartbeat")["record"].to_list() == said.ignored["heartbeat"]
    assert (said.records, said.accepted) == (mapped.candidates.height + HEARTBEATS + 3, checked.readings.height)


def test_the_latest_are_those_of_the_last_moment_that_is_right(folder: Path) -> None:
    latest = truth(folder).latest
    assert len(latest) == 40
    assert {quantity for said in latest.values() for quantity in said} == {"cover", "level_m", "pressure_kpa"}


def test_another_seed_gives_other_readings(folder: Path, tmp_path: Path) -> None:
    generate(tmp_path, 2008)
    assert (tmp_path / "telemetry.json").read_bytes() != (folder / "telemetry.json").read_bytes()
