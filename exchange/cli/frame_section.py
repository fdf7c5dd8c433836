"""坐标诊断 Which frame a file's coordinates are in, as a section of `feed preview`."""

from contextlib import closing
from typing import Any

import polars as pl

from exchange.app import opening, places
from exchange.cli.output import STDOUT, printable
from exchange.frame_doubt import diagnosed
from exchange.frames.answers import Diagnosis
from exchange.frames.words import in_words
from exchange.placing import City, place
from exchange.settings import Settings
from mappings.apply import map_records
from mappings.feed import Feed


def frame_of(records: pl.DataFrame, feed: Feed, city: City, settings: Settings) -> Diagnosis | None:
    """The frame that a file's records are in, by what the bus knows where there is one; None for readings."""
    if feed.content == "readings":
        return None
    limit_m = settings.tolerances.transformation_m
    said = map_records(records, feed).candidates
    placed = place(said, crs=feed.crs, accuracy_m=feed.accuracy_m, city=city, limit_m=limit_m).placed
    if not places.made(settings):
        return diagnosed(placed, feed, city, None)
    with closing(opening.open_store(settings)) as store:
        return diagnosed(placed, feed, city, store)


def frame_document(found: Diagnosis | None, feed: Feed) -> dict[str, Any] | None:
    """What `--json` says of it. Of a local frame rounded sizes only."""
    if found is None:
        return None
    told = in_words(found, feed)
    paired = found.by in ("numbers", "places")
    return {
        "verdict": found.verdict,
        "looks_like": found.system or None,
        "axes_exchanged": found.swapped,
        "zh": told.zh,
        "en": told.en,
        "matched": found.matched,
        "compared": found.looked,
        "next_best": found.second,
        "residual_cm": round(found.residual_m * 100, 1) if paired else None,
        "fix": list(told.fix),
    }


def print_frame(found: Diagnosis | None, feed: Feed) -> None:
    """The section of a preview."""
    if found is None:
        return
    told = in_words(found, feed)
    STDOUT.print("坐标诊断 Frame", style="bold")
    for line in (told.zh, told.en):
        STDOUT.print("  " + printable(line), soft_wrap=True)
    if told.fix:
        STDOUT.print(f"  更正 {feed.id}.toml 中这几行 the lines of {feed.id}.toml to change:", soft_wrap=True)
    for line in told.fix:
        STDOUT.print("    " + printable(line), soft_wrap=True)
    if found.verdict == "local" and not found.of_degrees:
        line = "参数由安全员取得 a security administrator gets the parameters: "
        STDOUT.print(f"  {line}yongtong feed frame {feed.id} FILE --out NAME.toml --by NAME", soft_wrap=True)
