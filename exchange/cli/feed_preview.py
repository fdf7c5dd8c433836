"""What a file would become if its bureau sent it now: `feed preview`. Nothing is sent, nothing kept."""

import argparse
from collections.abc import Mapping

import polars as pl

from connectors.formats.catalogue import formats
from exchange.app import opening, places
from exchange.cli.frame_section import frame_document, print_frame
from exchange.cli.layers_preview import layers_preview
from exchange.cli.output import print_findings, print_json, print_table
from exchange.cli.parsing import settings_of
from exchange.cli.partner import read_file
from exchange.cli.sheet_preview import sheet_preview
from exchange.outcomes import findings_of
from exchange.previewing import Line, Preview
from exchange.previewing import preview as previewed
from exchange.settings import Settings
from mappings.apply import map_records, take
from mappings.feed import Feed
from security.errors import Refusal

LINES_SHOWN = 40  # layers, and kinds that nothing maps; --json has all
# Of what a candidate says, beside its key, what is shown to a person: those columns that say anything.
SHOWN_TO_A_PERSON = ("source_key", "class_code", "label", "grid_of_position", "owner_name")


def one_feed(settings: Settings, feed: str) -> Feed:
    """The feed of that id. Raises Refusal `feed.unknown`."""
    feeds = opening.feeds_of(settings)
    if feed not in feeds:
        raise Refusal("feed.unknown", feed)
    return feeds[feed]


def preview(options: argparse.Namespace) -> int:
    """Print the ledger by layer, what nothing maps, the system, some that are mapped, and all findings."""
    settings = settings_of(options)
    feed = one_feed(settings, options.feed)
    batches = formats()[feed.format].decode([read_file(options.file)], feed.options)
    records = pl.concat([take(batch.frame, feed) for batch in batches], how="diagonal")
    if feed.content == "reference":
        return _preview_layer(options, records, feed, settings)
    limit_m, at = settings.tolerances.transformation_m, places.utc_now()
    with opening.standing_of(settings) as (now, store):
        told = previewed(records, feed, now, store, limit_m=limit_m, shown=options.limit, at=at)
        on_sheet = sheet_preview(told, feed, store, at)
    # A section more: its part of the document here, and its own call of `print_…` below.
    document = {**_document(told), "frame": frame_document(told.frame, feed), **on_sheet.document}
    if options.json:
        print_json(document)
        return 0
    _print_ledger(feed, told)
    _print_unmapped(told)
    _print_system(told)
    print_frame(told.frame, feed)
    _print_mapped(told)
    print_findings("质检意见 Findings", told.findings)
    on_sheet.print()
    return 0


def _preview_layer(options: argparse.Namespace, records: pl.DataFrame, feed: Feed, settings: Settings) -> int:
    """The first features of a layer's version, and all findings."""
    shown, findings = layers_preview(map_records(records, feed), feed, settings)
    shown, (told,) = shown.head(options.limit), findings_of(findings, 1, feed)
    if options.json:
        print_json({"records": records.height, "candidates": shown.to_dicts(), "findings": told})
        return 0
    print_table(f"{feed.id}: {records.height} records, first {shown.height} features", shown.columns, shown.rows())
    print_findings("质检意见 Findings", told)
    return 0


def _document(told: Preview) -> dict[str, object]:
    return {
        "records": told.total.records,
        "ledger": {"total": told.total, "layers": told.layers},
        "unmapped": told.unmapped,
        "told_by": told.told_by,
        "crs": {"code": told.crs, "name": told.crs_name},
        "candidates": told.mapped.to_dicts(),
        "findings": told.findings,
    }


def _print_ledger(feed: Feed, told: Preview) -> None:
    """In = kept + rejected + ignored, in each layer and in all."""
    rows = [_ledger_row(line, line.part or "—") for line in told.layers[:LINES_SHOWN]]
    if len(told.layers) > LINES_SHOWN:
        rows.append(("…", "", "", "", "", f"+{len(told.layers) - LINES_SHOWN} 图层 layers (--json)"))
    if len(told.layers) > 1:
        rows.append(_ledger_row(told.total, "合计 all"))
    title = f"{feed.id}: 收支 ledger, {told.total.records} 条记录 records"
    print_table(title, ["图层 layer", "收 in", "入 kept", "退 rejected", "略 ignored", "其中 of which"], rows)


def _ledger_row(line: Line, name: str) -> tuple[object, ...]:
    out = [sum(counts.values()) for counts in (line.rejected, line.ignored)]
    return (name, line.records, line.kept, *out, _words({**line.rejected, **line.ignored}))


def _words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {many}" for name, many in counts.items())


def _print_unmapped(told: Preview) -> None:
    """Symbols that stand for nothing here, the layer with most of them first."""
    if not told.unmapped:
        return
    said = list(told.unmapped[0].said)
    rows = [(one.part, *one.said.values(), one.records) for one in told.unmapped[:LINES_SHOWN]]
    more = f", {LINES_SHOWN} / {len(told.unmapped)} (--json)" if len(told.unmapped) > LINES_SHOWN else ""
    every = sum(one.records for one in told.unmapped)
    print_table(f"未对应 Unmapped: {every}{more}", ["图层 layer", *said, "条 records"], rows)


def _print_system(told: Preview) -> None:
    rows = [("坐标系 system", f"{told.crs} {told.crs_name}")] if told.crs else []
    if told.told_by:
        rows.append(("类别依据 class told by", _words(told.told_by)))
    if rows:
        print_table("", ["", ""], rows)


def _print_mapped(told: Preview) -> None:
    """The first that are mapped; columns that say nothing are left out."""
    shown = told.mapped
    if shown.is_empty():
        return
    title = f"示例 Examples: {shown.height} / {told.total.kept}"
    if "longitude_deg" not in shown.columns:
        print_table(title, shown.columns, shown.rows())
        return
    said = [name for name in SHOWN_TO_A_PERSON if shown[name].null_count() < shown.height]
    where = pl.format("{} {}", *(pl.col(axis).round(6) for axis in ("longitude_deg", "latitude_deg")))
    print_table(title, [*said, "经纬度 place"], shown.select(*said, place=where).rows())
