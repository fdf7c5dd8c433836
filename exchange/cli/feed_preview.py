"""What a file would become if its bureau sent it now: `feed preview`. Nothing is sent, nothing kept."""

import argparse

import polars as pl

from connectors.formats.catalogue import formats
from exchange import validation
from exchange.app import opening, places
from exchange.cli.layers_preview import layers_preview
from exchange.cli.output import print_findings, print_json, print_table
from exchange.cli.parsing import settings_of
from exchange.cli.partner import read_file
from exchange.outcomes import findings_of
from exchange.placing import place
from exchange.settings import Settings
from exchange.store.frames import BatchDelivery
from mappings.apply import Mapped, map_records, take
from mappings.feed import Feed
from mappings.load import load_feeds
from security.errors import Refusal

SHOWN = (
    *("record", "source_key", "class_code", "longitude_deg", "latitude_deg"),
    *("division_of_position", "grid_of_position", "owner_name", "appurtenance"),
)

SHOWN_OF_READINGS = ("record", "source_key", "quantity", "value", "state", "unit", "observed_at")


def all_feeds(settings: Settings) -> dict[str, Feed]:
    """Every feed by id."""
    return load_feeds(settings.at(path) for path in settings.feeds.folders)


def one_feed(settings: Settings, feed: str) -> Feed:
    """The feed of that id. Raises Refusal `feed.unknown`."""
    feeds = all_feeds(settings)
    if feed not in feeds:
        raise Refusal("feed.unknown", feed)
    return feeds[feed]


def preview(options: argparse.Namespace) -> int:
    """Print the first candidates and all findings."""
    settings = settings_of(options)
    feed = one_feed(settings, options.feed)
    batches = formats()[feed.format].decode([read_file(options.file)], feed.options)
    records = pl.concat([take(batch.frame, feed) for batch in batches], how="diagonal")
    mapped = map_records(records, feed)
    if feed.content == "readings":
        shown, findings = mapped.candidates.select(SHOWN_OF_READINGS), mapped.findings
    elif feed.content == "reference":
        shown, findings = layers_preview(mapped, feed, settings)
    else:
        shown, findings = _placed(mapped, feed, settings)
    shown, (told,) = shown.head(options.limit), findings_of(findings, 1, feed)
    if options.json:
        print_json({"records": records.height, "candidates": shown.to_dicts(), "findings": told})
        return 0
    print_table(f"{feed.id}: {records.height} records, first {shown.height} candidates", shown.columns, shown.rows())
    print_findings("质检意见 Findings", told)
    return 0


def _placed(mapped: Mapped, feed: Feed, settings: Settings) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What is shown of candidates once they are placed, and FINDINGS of mapping, placing and checking."""
    with opening.boundaries_of(settings) as boundaries:
        now = boundaries.now()
    placing = place(
        mapped.candidates,
        crs=feed.crs,
        accuracy_m=feed.accuracy_m,
        city=now.city,
        limit_m=settings.tolerances.transformation_m,
    )
    at = places.utc_now()
    deliveries = [BatchDelivery(feed.bureau, "preview", at, at, 0, "signed")]
    found = pl.concat([mapped.findings, placing.findings])
    checked = validation.check(placing.placed, found, deliveries=deliveries, classes=feed.class_codes, lists=now.lists)
    return placing.placed.select(SHOWN), pl.concat([found, checked])
