"""坐标诊断 The exact parameters of the local frame that a file is in: `feed frame`.

They are secret: a security administrator's alone, in a file that only its owner reads. The audit says that somebody got
them, and no figure of them.
"""

import argparse
import re
from pathlib import Path
from typing import Final

import polars as pl

from connectors.formats.catalogue import formats
from exchange.app import opening, places
from exchange.cli.feed_preview import one_feed
from exchange.cli.output import print_json, print_table
from exchange.cli.parsing import Commands, add_command, settings_of
from exchange.cli.partner import read_file
from exchange.cli.people import acting, add_person_options
from exchange.entry import Entry
from exchange.frame_doubt import diagnosed
from exchange.frames.answers import Diagnosis
from exchange.frames.words import in_words
from exchange.placing import place
from mappings.apply import map_records, take
from mappings.feed import Feed
from security.errors import Misconfigured, Refusal

NAME: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
ENTRY: Final = "frame"  # type of the entries


def add_commands(feed: Commands, common: argparse.ArgumentParser) -> None:
    """feed frame."""
    parser = add_command(
        feed,
        common,
        "frame",
        _frame,
        says="write the exact parameters of the local frame that a file is in; for a security administrator",
        example="yongtong feed frame water-register water.csv --out old.toml --by 张三",
    )
    parser.add_argument("feed", metavar="FEED")
    parser.add_argument("file", metavar="FILE", type=Path)
    parser.add_argument(
        "--out", required=True, type=Path, metavar="NAME.toml", help="a new file, of which NAME is the system's name"
    )
    add_person_options(parser)


def _frame(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    feed, out = one_feed(settings, options.feed), Path(options.out)
    with acting(options) as (opened, officer):
        if out.suffix != ".toml" or not NAME.fullmatch(out.stem):
            raise Misconfigured("config.option", f"--out {out}: not lower-case letters, digits, single hyphens, .toml")
        if out.exists():
            raise Misconfigured("config.stands", f"{out}: stands already; nothing is written over")
        content = read_file(options.file)
        batches = formats()[feed.format].decode([content], feed.options)
        records = pl.concat([take(batch.frame, feed) for batch in batches], how="diagonal")
        with opening.standing_of(settings) as (now, store):
            candidates = map_records(records, feed).candidates
            limit_m = settings.tolerances.transformation_m
            placing = place(candidates, crs=feed.crs, accuracy_m=feed.accuracy_m, city=now.city, limit_m=limit_m)
            found = diagnosed(placing.placed, feed, now.city, store)
        if found.verdict != "local" or found.of_degrees or not found.clear:
            raise Refusal("frame.none_local", in_words(found, feed).en)
        # Noted before it is there: nobody has figures of which the audit does not know.
        actor = opened.person(officer.key.public_key, "security").pseudonym
        detail = {"system": f"local:{out.stem}", "content_digest": content.digest.hex}
        entry = Entry(type=ENTRY, outcome="told", actor=actor, feed=feed.id, detail={**detail})
        index = opened.journal.note(entry).result().index
        places.write_secret(out, _parameters(found, feed).encode())
    said = {"feed": feed.id, "system": f"local:{out.stem}", "file": str(out), "entry": index}
    print_json(said) if options.json else print_table("地方坐标系参数 Parameters written", ["", ""], said.items())
    return 0


def _parameters(found: Diagnosis, feed: Feed) -> str:
    """The file of a local system: four parameters onto a plane, and the pairs that prove them."""
    assert found.fitted is not None
    assert found.control is not None
    similarity = found.fitted.similarity
    swapped = ", east and north exchanged first: change the feed's fields too" if found.swapped else ""
    lines = [
        f"# 秘密 secret. Estimated from {found.matched} pairs of {feed.id}, residual {found.residual_m * 100:.1f} cm",
        f"# (root mean square){swapped}. x is east, y is north.",
        *("", "[plane]", f'to           = "{found.plane}"'),
        *(f"dx_m         = {similarity.shift.real!r}", f"dy_m         = {similarity.shift.imag!r}"),
        *(f"rotation_deg = {similarity.rotation_deg!r}", f"scale        = {similarity.scale!r}"),
    ]
    for here, there in found.control.tolist():
        here = complex(here.imag, here.real) if found.swapped else here
        lines += ["", "[[control]]", f"x_m    = {here.real!r}", f"y_m    = {here.imag!r}"]
        lines += [f"to_x_m = {there.real!r}", f"to_y_m = {there.imag!r}"]
    return "\n".join([*lines, ""])
