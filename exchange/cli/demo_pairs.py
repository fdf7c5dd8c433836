"""The survey's points and the drawing's symbols, paired by place and pipe class, against what the drawing itself knows.

The matcher sees neither identifiers nor number texts. What is true it never sees either: the survey program drew each
point and then its number, so the text that follows a point in the file says which one it is.
"""

from collections.abc import Sequence

import polars as pl
from msgspec import structs

from connectors.formats.catalogue import formats
from connectors.formats.records import RECORD
from exchange import joining
from exchange.cli.demo_story import Pairs
from exchange.placing import City, place
from mappings.apply import map_records, take
from mappings.feed import Feed
from security.message import Content

LIMIT_M = 1.0
ANYTHING = "0000"  # every point is a candidate here, component or not; so class cannot help, and only the network does


def pair_points(sheets: Sequence[Feed], drawing: Feed, workbook: Content, drawn: Content, city: City) -> Pairs:
    """Pair all points of the sheets with all symbols of the drawing.

    sheets: feeds of the workbook's networks; drawing: the feed of the drawing
    """
    points = pl.concat([_points(sheet, workbook, city) for sheet in sheets])
    symbols = _points(drawing, drawn, city)
    near = points.with_row_index("component").with_columns(marks=pl.lit([], pl.List(pl.String)))
    hidden = symbols.with_columns(source_key=pl.col("record").cast(pl.String))
    made, _ = joining.pair(hidden, near)
    names = dict(near.select("component", "source_key").rows())
    found = {int(record): names[component] for record, component in made.select("source_key", "component").rows()}
    true = _numbers(drawing, drawn, points)
    right = sum(found.get(record) == name for record, name in true.items())
    return Pairs(points.height, right, len(found) - right, sum(record not in found for record in true))


def _points(feed: Feed, content: Content, city: City) -> pl.DataFrame:
    """PLACED of all of a source's points: what the feed leaves out as no component is kept, what is no point is not."""
    kept = ("source_key", "network", "easting_m", "northing_m")
    bare = structs.replace(
        feed,
        fields={name: rule for name, rule in feed.fields.items() if name in kept},
        defaults={"class_code": ANYTHING} | {name: text for name, text in feed.defaults.items() if name in kept},
        ignore=[
            rule for rule in feed.ignore if rule.carried or rule.from_ == "entity" or rule.rule == "direction_arrow"
        ],
        tally=[],
    )
    records = pl.concat([take(batch.frame, bare) for batch in formats()[feed.format].decode([content], feed.options)])
    candidates = map_records(records, bare).candidates
    return place(candidates, crs=feed.crs, accuracy_m=feed.accuracy_m, city=city, limit_m=LIMIT_M).placed


def _numbers(drawing: Feed, drawn: Content, points: pl.DataFrame) -> dict[int, str]:
    """Record of each symbol → number of its point, as the drawing itself tells it, whatever the survey measured.

    The drawing holds a POINT, then the text with its number; the symbol of the point is the one at the very place, in
    the same layer.
    """
    batches = formats()[drawing.format].decode([drawn], drawing.options)
    frame = pl.concat([b.frame.select(RECORD, "entity", "layer", "x", "y", "block", "text") for b in batches])
    known, arrows = set(points["source_key"]), {"pDirction"}
    symbols: dict[tuple[str, str, str], int] = {}
    numbers: dict[tuple[str, str, str], str] = {}
    at: tuple[str, str, str] | None = None
    for record, entity, layer, x, y, block, text in frame.iter_rows():
        if entity == "POINT":
            at = (layer, x, y)
        elif entity == "INSERT" and block not in arrows:
            symbols[layer, x, y] = record
        elif entity == "TEXT" and at is not None and text in known:
            numbers[at], at = text, None
    return {record: numbers[place] for place, record in symbols.items() if place in numbers}
