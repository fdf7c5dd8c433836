"""Symbols of the street's drawing against what its survey's tables say stands there: the confusion table.

`python -m samples.street_survey.confusion FOLDER` prints it; FOLDER holds the survey (see SOURCES.md there). Each point
of the nine tables is paired with the symbol at its place, in the same network; neither numbers nor classes are asked.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
import shapely
from msgspec import structs

from connectors.formats.catalogue import formats
from mappings.apply import map_records, take
from mappings.feed import Feed, FieldRule
from mappings.load import load_feeds
from security.message import Content, file_content

WORKBOOK: Final = "pipe_survey_results.xls"
DRAWINGS: Final = ("pipe_map_R2004_ansi936.dxf", "pipe_map_R12_ansi936.dxf")  # one drawing, saved in two forms
MAP: Final = "planning-map-500"
SAME_PLACE_M: Final = 0.02  # the tables are rounded to a centimetre
NONE: Final = "—"  # no component: a rule of the feed leaves the point out


def table(workbook: Content, drawn: Content) -> pl.DataFrame:
    """network, appurtenance, by_register, block, by_map, points: how many of each stand at one place.

    by_register, by_map: the class, `—` where a named rule leaves the point out as no component; null of the other side
    where it has nothing at the place
    """
    feeds = load_feeds([Path(__file__).parent / "feeds"])
    drawing = feeds.pop(MAP)
    said = pl.concat([_points(feed, workbook, "管线点类别/附属物") for feed in feeds.values()])
    shown = _points(drawing, drawn, "block", only=("INSERT", ("pDirction",)))
    ours = said.rename({"sign": "appurtenance", "class_code": "by_register"}).with_row_index("point")
    theirs = shown.rename({"sign": "block", "class_code": "by_map"}).with_row_index("symbol")
    met = pl.concat([pl.DataFrame(schema={"point": pl.UInt32, "symbol": pl.UInt32}), *_met(ours, theirs)])
    both = ours.join(met, on="point", how="left").join(
        theirs.select("symbol", "block", "by_map", drawn_in="network"), on="symbol", how="full", coalesce=True
    )
    kinds = [pl.coalesce("network", "drawn_in").alias("network"), "appurtenance", "by_register", "block", "by_map"]
    counted = both.group_by(kinds).agg(pl.len().alias("points"))
    return counted.sort("network", "points", "appurtenance", "block", descending=[False, True, False, False])


def _points(feed: Feed, content: Content, sign: str, only: tuple[str, Iterable[str]] | None = None) -> pl.DataFrame:
    """x, y, network, sign, class_code of every point of a source, left out or not; of a drawing one kind of entity."""
    columns = ["#record", "#carried", sign] + (["entity"] if only else [])
    batches = list(formats()[feed.format].decode([content], feed.options))
    whole = pl.concat([batch.frame.select(columns) for batch in batches])
    records = pl.concat([take(batch.frame, feed) for batch in batches])
    bare = structs.replace(
        feed, ignore=[], label=None, tally=[], fields=_without_class(feed), defaults=_unclassed(feed)
    )
    places = map_records(records, bare).candidates.select("record", "x", "y", "network")
    classes = map_records(records, feed).candidates.select("record", "class_code")
    kept = whole.filter(~pl.col("#carried"))
    if only:
        kept = kept.filter(pl.col("entity") == only[0], ~pl.col(sign).is_in(list(only[1])))
    return (
        kept.select(record="#record", sign=pl.col(sign).fill_null("").str.strip_chars())
        .join(places, on="record")
        .join(classes, on="record", how="left")
        .with_columns(pl.col("class_code").fill_null(NONE))
        .select("x", "y", "network", "sign", "class_code")
    )


def _without_class(feed: Feed) -> dict[str, FieldRule]:
    return {name: rule for name, rule in feed.fields.items() if name not in ("class_code", "appurtenance", "note")}


def _unclassed(feed: Feed) -> dict[str, str]:
    return {**feed.defaults, "class_code": "0000"}


def _met(points: pl.DataFrame, symbols: pl.DataFrame) -> Iterable[pl.DataFrame]:
    """point, symbol: which are the nearest of one another, at one place, in one network."""
    for (network,), some in points.group_by("network", maintain_order=True):
        others = symbols.filter(network=network)
        ends = [shapely.points(frame["x"].to_numpy(), frame["y"].to_numpy()) for frame in (some, others)]
        at, on = shapely.STRtree(ends[1]).query_nearest(ends[0], max_distance=SAME_PLACE_M, all_matches=False)
        once = np.unique(on, return_index=True)[1]
        yield pl.DataFrame([some["point"].gather(at[once]), others["symbol"].gather(on[once])])


def main() -> None:
    """Print the table of the first drawing, and how many points agree."""
    folder = Path(sys.argv[1])
    found = table(file_content(folder / WORKBOOK), file_content(folder / DRAWINGS[0]))
    with pl.Config(tbl_rows=-1, tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True):
        print(found)
    alike = found.filter(pl.col("by_register") == pl.col("by_map"))["points"].sum()
    print(f"{alike} of {found['points'].sum()} points: both say one class, or both that it is no component")


if __name__ == "__main__":
    main()
