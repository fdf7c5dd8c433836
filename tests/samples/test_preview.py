"""What `feed preview` says of the made-up map and of a table: each record accounted for, against the truth."""

import argparse
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from msgspec import structs
from rich.cells import cell_len

from connectors.formats import dxf
from connectors.formats.catalogue import formats
from exchange import previewing, validation
from exchange.boundaries import InForce
from exchange.cli import feed_preview
from exchange.placing import load_city
from exchange.previewing import Preview, preview
from mappings.apply import Mapped, map_records, take
from mappings.feed import Feed
from mappings.load import load_feeds
from samples.generate import Truth, generate
from security.errors import Refusal, sentences
from security.message import in_memory

ROOT = Path(__file__).parents[2]
FEEDS = load_feeds([ROOT / "mappings/feeds"])
NOON = datetime(2026, 6, 30, 4, tzinfo=UTC)
GCD = {"entity": "INSERT", "code": "202101", "block": "gc200"}
TOLD_BY = {"cass_components": "code", "cass": "code", "cass_blocks": "block", "layer": "layer"}


@pytest.fixture(scope="module")
def quarter(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Truth]:
    folder = tmp_path_factory.mktemp("city")
    return folder, generate(folder, 2007)


def of(quarter: tuple[Path, Truth], feed: Feed, name: str, **changed: Any) -> Preview:
    folder, truth = quarter
    content = in_memory((folder / name).read_bytes())
    records = pl.concat([take(batch.frame, feed) for batch in formats()[feed.format].decode([content], feed.options)])
    return preview(
        records, feed, placed_by(folder, truth), None, **{"limit_m": 1.0, "shown": 10, "at": NOON, **changed}
    )


def placed_by(folder: Path, truth: Truth) -> InForce:
    city = load_city(folder / "districts.geojson", folder / "grid.geojson", truth.extent)
    return InForce({}, city, validation.lists("2007", grid=city.grid.codes, districts=city.districts.codes))


@pytest.fixture(scope="module")
def told(quarter: tuple[Path, Truth]) -> Preview:
    return of(quarter, FEEDS["planning-map-500"], "sheet.dxf")


def test_each_layer_s_records_are_kept_rejected_or_ignored_by_name(told: Preview, quarter: tuple[Path, Truth]) -> None:
    truth = quarter[1].sheet
    assert {line.part: line.records for line in told.layers} == truth.layers
    for line in [told.total, *told.layers]:
        assert line.records == line.kept + sum(line.rejected.values()) + sum(line.ignored.values())
    assert (told.total.records, told.total.kept) == (truth.entities, len(truth.symbols))
    ignored = {"lettering": "text", "outline": "outline", "drawn_part": "drawn_part"}
    assert {ignored[rule]: many for rule, many in told.total.ignored.items()} == truth.ignored
    assert [line.records for line in told.layers] == sorted(truth.layers.values(), reverse=True)


def test_what_nothing_maps_is_listed_by_layer_block_and_code_largest_layer_first(told: Preview) -> None:
    assert [(one.part, one.said["block"], one.said["code"], one.records) for one in told.unmapped] == [
        ("GCD", "gc200", "202101", 24),
        ("DLDW", "gc156100", "156100", 5),
        ("DLDW", "gc155900", "155900", 4),
        ("KZD", "gc113", "131100", 9),
        ("0", "BZ01", "", 3),
    ]


def test_how_many_were_told_by_what_is_what_was_drawn(told: Preview, quarter: tuple[Path, Truth]) -> None:
    drawn = Counter(symbol.by for symbol in quarter[1].sheet.symbols.values())
    by: Counter[str] = Counter()
    for lookup, many in told.told_by.items():
        by[TOLD_BY[lookup]] += many
    assert by == drawn
    warned = {finding["field"]: finding["count"] for finding in told.findings if finding["code"] == "class.by_fallback"}
    assert warned == {"block": drawn["block"], "layer": drawn["layer"]}


def test_the_system_has_its_name_and_the_examples_are_the_first_that_are_kept(told: Preview) -> None:
    assert (told.crs, told.crs_name) == ("EPSG:4549", "CGCS2000 / 3-degree Gauss-Kruger CM 120E")
    assert told.mapped.height == 10
    assert told.mapped["grid_of_position"].null_count() == 0


def test_a_table_has_one_line(quarter: tuple[Path, Truth]) -> None:
    told = of(quarter, FEEDS["water-register"], "water.csv")
    assert [line.part for line in told.layers] == [""]
    assert told.total.rejected.keys() == quarter[1].registers["water.csv"].rejected.keys()
    assert told.total.records == told.total.kept + sum(told.total.rejected.values())


def test_a_preview_that_does_not_balance_is_refused_as_act_two_would(
    quarter: tuple[Path, Truth], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgetful(records: pl.DataFrame, feed: Feed) -> Mapped:
        mapped = map_records(records, feed)
        return structs.replace(mapped, candidates=mapped.candidates[1:])

    monkeypatch.setattr(previewing, "map_records", forgetful)
    with pytest.raises(Refusal) as refused:
        of(quarter, FEEDS["planning-map-500"], "sheet.dxf")
    assert refused.value.code == "delivery.unbalanced"


@pytest.mark.parametrize("json", [False, True])
def test_the_screen_has_every_section_in_80_columns_and_the_document_all_of_it(
    quarter: tuple[Path, Truth], json: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    options = argparse.Namespace(
        settings=ROOT / "settings.toml",
        feed="planning-map-500",
        file=quarter[0] / "sheet-utf8.dxf",
        limit=10,
        json=json,
    )
    assert feed_preview.preview(options) == 0
    said = capsys.readouterr().out
    if json:
        document = msgspec.json.decode(said)
        assert document["ledger"]["total"]["records"] == document["records"] == quarter[1].sheet.entities
        assert sum(line["kept"] for line in document["ledger"]["layers"]) == len(quarter[1].sheet.symbols)
        assert document["unmapped"][0] == {"part": "GCD", "said": GCD, "records": 24}
        assert document["crs"] == {"code": "EPSG:4549", "name": "CGCS2000 / 3-degree Gauss-Kruger CM 120E"}
        assert len(document["candidates"]) == 10
        return
    tables, _, findings = said.partition("质检意见")
    assert max(cell_len(line) for line in tables.splitlines()) <= 80
    for words in ("收支 ledger", "未对应 Unmapped: 45", "EPSG:4549 CGCS2000", "cass_components 481", "示例 Examples"):
        assert words in tables
    assert "class.by_fallback" in findings


def test_every_drawing_of_others_is_accounted_for_or_refused_by_name(
    quarter: tuple[Path, Truth], shared_data: Callable[[str], Path]
) -> None:
    feed, became = FEEDS["planning-map-500"], Counter[str]()
    now = placed_by(*quarter)
    for path in sorted(shared_data("dxf_samples").glob("*.d[xw][fg]")):
        try:
            batches = list(dxf.decode([in_memory(path.read_bytes())], feed.options))
            records = pl.concat([take(batch.frame, feed) for batch in batches])
            told = preview(records, feed, now, None, limit_m=1.0, shown=10, at=NOON)
        except Refusal as refusal:
            became[refusal.code] += 1
            continue
        assert told.total.records == records.height == sum(line.records for line in told.layers)
        assert sum(one.records for one in told.unmapped) == sum(
            told.total.rejected.get(code, 0) for code in previewing.UNTOLD
        )
        became["balanced"] += 1
    assert became.keys() - {"balanced"} <= sentences().keys()
    assert became["balanced"] > 10
    assert became.keys() - {"balanced"} <= {"decode.dwg", "decode.not_readable", "decode.encoding_unknown"}
