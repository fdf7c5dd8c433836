"""图幅 A delivery of a map laid on its sheets: which they are, what it draws beyond them, and keys that last.

A sheet's drawing numbers its entities anew when it is saved, and two sheets number theirs alike. So a thing keeps the
key under which it was first claimed, `SHEET/HANDLE`, and what a new version draws is told by place (docs/adr/0054).
"""

import itertools
from collections.abc import Sequence
from typing import Final

import msgspec
import polars as pl

from exchange.joining import pair
from exchange.placing import City, plane_extent, to_plane
from exchange.store.frames import NEAR, ON_SHEETS, Seen
from exchange.store.sheets import BETWEEN
from exchange.store.store import Store
from mappings import sheets
from mappings.feed import Feed, SheetRule
from mappings.findings import Severity
from mappings.schema import FINDINGS, KEY, Schema, conform
from mappings.sheets import Drawn, Sheet
from security.errors import Refusal

# What stands, or stood, on the sheets of a delivery and on those around, in the feed's plane. number: the sheet that it
# is keyed by; mark: its handle there; inside: whether it stands on one of the delivery's own sheets.
KNOWN: Final[Schema] = {
    **ON_SHEETS, "x": pl.Float64, "y": pl.Float64, "number": pl.String, "mark": pl.String, "inside": pl.Boolean,
}  # fmt: skip
PAIRED: Final[Schema] = {"row": pl.UInt32, "known": pl.UInt32}
AROUND: Final = tuple(itertools.product((0, -1, 1), repeat=2))  # the place itself first
MORE: Final = "~"  # and how many-th thing of one sheet and handle: handles come again for other things
NAMED: Final = 9  # sheets named in a refusal


class Laid(msgspec.Struct, frozen=True):
    """A delivery on its sheets; of a feed that does not come by sheets it is what it was, and has none.

    placed, unread: as they were given, the keys such as last
    findings:       FINDINGS: `sheet.outside` (error), `sheet.on_seam` (left out: the neighbour's thing stands there)
    sheets:         those that it is whole for; stated: the drawing says them itself, else they were computed from it
    known:          KNOWN, what stood on them and around them before
    """

    placed: pl.DataFrame
    unread: pl.DataFrame
    findings: pl.DataFrame
    sheets: tuple[Sheet, ...] = ()
    stated: bool = False
    known: pl.DataFrame = pl.DataFrame(schema=KNOWN)

    @property
    def numbers(self) -> tuple[str, ...]:
        """The numbers of its sheets."""
        return tuple(sheet.number for sheet in self.sheets)

    def seen(self, feed: Feed, store: Store) -> Seen | None:
        """What the store knows of all that it names, and of all that stands on its sheets: what it could end. None for
        a feed that does not come by sheets."""
        if not self.sheets:
            return None
        aside = self.findings.filter(code="sheet.on_seam")
        named = self.placed.join(aside, on=list(KEY), how="anti")["source_key"].drop_nulls()
        standing = self.known.filter("live", "inside")["source_key"]
        keys = pl.concat([named, standing]).unique(maintain_order=True).to_list()
        return store.seen_on_sheets(feed.id, keys, self.numbers)


def lay(
    drawn: Drawn | None, placed: pl.DataFrame, unread: pl.DataFrame, feed: Feed, city: City, store: Store | None
) -> Laid:
    """Lay a delivery on its sheets.

    drawn: what `mappings.sheets.drawn` finds; placed: PLACED; unread: delivery, record, source_key of rejected records
    store: None where there is nothing yet to compare with

    Raises Refusal `sheet.number_unfit`, `sheet.number_outside_city`, `sheet.number_contradicts`, `sheet.ambiguous`.
    """
    rule = feed.sheet
    if rule is None or drawn is None:
        return Laid(placed, unread, pl.DataFrame(schema=FINDINGS))
    there = placed.select(*_there()).drop_nulls()
    if drawn.numbers:
        found = _stated(drawn, there, rule, plane_extent(feed.crs, city))
    else:
        found = (_computed(drawn, there, rule),)
    known = _known(found, feed, rule, city, store) if store is not None else pl.DataFrame(schema=KNOWN)
    homes = _homes(placed, [sheet.number for sheet in found], rule)
    keyed, on_seam = _keyed(placed.with_columns(homes), known, found, feed.accuracy_m, rule)
    outside = placed.filter(homes.is_null() & placed["longitude_deg"].is_not_null())
    findings = [
        _findings(outside, "sheet.outside", Severity.ERROR, pl.format("{} {}", "x", "y")),
        _findings(keyed.filter(on_seam), "sheet.on_seam", Severity.IGNORED, pl.col("source_key")),
    ]
    kept = _by_mark(unread, known, [sheet.number for sheet in found])
    return Laid(keyed.select(placed.columns), kept, pl.concat(findings), found, bool(drawn.numbers), known)


def _there() -> tuple[pl.Expr, pl.Expr]:
    """x and y of what lies in the city, else null."""
    in_city = pl.col("longitude_deg").is_not_null()
    return pl.when(in_city).then("x").alias("x"), pl.when(in_city).then("y").alias("y")


# Which sheets


def _computed(drawn: Drawn, there: pl.DataFrame, rule: SheetRule) -> Sheet:
    """The one sheet that all components lie on, or run over the edge of; without any, that all else is drawn on."""
    touched = sheets.sheets_of(drawn.touched)
    fitting = sheets.fitting(there, rule.size, rule.margin_m) if there.height else touched
    if len(fitting) != 1:
        raise Refusal("sheet.ambiguous", _named(fitting or touched) or "0")
    return fitting[0]


def _stated(
    drawn: Drawn, there: pl.DataFrame, rule: SheetRule, city: tuple[float, float, float, float]
) -> tuple[Sheet, ...]:
    """The sheets whose numbers are written, each of them drawn on, and no fewer components on them than beside them.

    Of several sheets each is drawn on in its middle as well: else a neighbour whose number stands beside the frame, and
    whose edge a line crosses, would be ended.
    """
    touched = sheets.sheets_of(drawn.touched)
    found = sorted({_one_of(text, touched, rule, city) for text in drawn.numbers})
    if len(found) > 1 and (shallow := {*found} - {*sheets.sheets_of(drawn.touched.filter("deep"))}):
        raise _contradicts(_named(sorted(shallow)), sheets.sheets_of(drawn.touched.filter("deep")))
    homes = _homes(there.with_columns(longitude_deg=pl.lit(0.0)), [sheet.number for sheet in found], rule)
    if 2 * homes.null_count() > homes.len():
        beside = there.filter(homes.is_null()).select(*sheets.corners(pl.col("x"), pl.col("y"), rule.size))
        raise _contradicts(", ".join(drawn.numbers), sheets.sheets_of(beside))
    return tuple(found)


def _one_of(text: str, touched: Sequence[Sheet], rule: SheetRule, city: tuple[float, float, float, float]) -> Sheet:
    """The sheet that a number means: of those in the city the one that is drawn on."""
    if not sheets.on_lattice(text, rule.size):
        raise Refusal("sheet.number_unfit", f"{text}, {rule.size} cm")
    meant = sheets.meant(text, rule.size, city)
    if not meant:
        raise Refusal("sheet.number_outside_city", text)
    found = [sheet for sheet in meant if sheet in set(touched)] if touched else meant
    if not found:
        raise _contradicts(text, touched)
    if len(found) > 1:
        raise Refusal("sheet.ambiguous", f"{text}: {_named(found)}")
    return found[0]


def _contradicts(said: str, drawn: Sequence[Sheet]) -> Refusal:
    return Refusal("sheet.number_contradicts", f"{said} ≠ {_named(drawn)}"[:200])


def _named(found: Sequence[Sheet]) -> str:
    more = f" … {len(found)}" if len(found) > NAMED else ""
    return ", ".join(sheet.number for sheet in found[:NAMED]) + more


def _homes(placed: pl.DataFrame, numbers: Sequence[str], rule: SheetRule) -> pl.Series:
    """`home`: the number of the sheet, among these, that each place lies on or runs over the edge of; else null."""
    places = placed.select(*_there()).with_row_index("row")
    homes = pl.Series("home", [None], dtype=pl.String).new_from_index(0, placed.height)
    for east, north in AROUND:
        left = places.filter(homes.is_null())
        x, y = pl.col("x") + east * rule.margin_m, pl.col("y") + north * rule.margin_m
        corner = left.select("row", *sheets.corners(x, y, rule.size)).select("row", number=sheets.number())
        met = corner.filter(pl.col("number").is_in(list(numbers)))
        homes = homes.scatter(met["row"], met["number"])
    return homes


# What stands there


def around(found: Sequence[Sheet], rule: SheetRule) -> list[Sheet]:
    """These sheets and those beside them, by which what stands on them may be keyed."""
    width, height = sheets.GROUND_M[rule.size]
    return sorted({Sheet(at.north_m + n * height, at.east_m + e * width) for at in found for e, n in AROUND})


def _known(found: Sequence[Sheet], feed: Feed, rule: SheetRule, city: City, store: Store) -> pl.DataFrame:
    """KNOWN of these sheets and those around them, in order of key."""
    known = store.on_sheets(feed.id, [sheet.number for sheet in around(found, rule)]).sort("source_key")
    known = in_plane(known, feed.crs, city)
    parts = pl.col("source_key").str.splitn(BETWEEN, 2).struct
    known = known.with_columns(
        parts.field("field_0").alias("number"),
        _stem(parts.field("field_1")).alias("mark"),
        *sheets.corners(pl.col("x"), pl.col("y"), rule.size),
    )
    return conform(known.with_columns(inside=sheets.number().is_in([sheet.number for sheet in found])), KNOWN)


def _stem(key: pl.Expr) -> pl.Expr:
    return key.str.replace(f"{MORE}[0-9]+$", "")


# Keys that last


def _keyed(
    placed: pl.DataFrame, known: pl.DataFrame, found: Sequence[Sheet], accuracy_m: float, rule: SheetRule
) -> tuple[pl.DataFrame, pl.Series]:
    """The records under keys that last; and which of them are things that stand on a neighbouring sheet already.

    placed: PLACED, and `home`
    """
    numbers = [sheet.number for sheet in found]
    rows = placed.with_row_index("row").rename({"source_key": "mark"})
    first = rows.filter(pl.col("mark").is_first_distinct(), pl.col("mark").is_not_null())
    paired = _paired(first.filter(pl.col("home").is_not_null()), known, numbers, accuracy_m, rule)
    at = known.with_row_index("known").select("known", "source_key", seam=pl.col("live") & ~pl.col("inside"))
    paired = (
        paired.join(at, on="known").join(first.select("row", "mark"), on="row").select("mark", "source_key", "seam")
    )
    left = first.join(paired, on="mark", how="anti", maintain_order="left")
    lost = left.filter(pl.col("home").is_null()).with_columns(source_key="mark")  # rejected, but said
    lost = _by_mark(lost, known, numbers).select("mark", "source_key", seam=pl.lit(False))
    fresh = _fresh(left.filter(pl.col("home").is_not_null()), known)
    keys = pl.concat([paired, lost, fresh])
    keyed = rows.join(keys, on="mark", how="left", maintain_order="left")
    return keyed, keyed["seam"].fill_null(False)


def _paired(
    rows: pl.DataFrame, known: pl.DataFrame, numbers: Sequence[str], accuracy_m: float, rule: SheetRule
) -> pl.DataFrame:
    """PAIRED: which record is which known thing, one to one, of a class that both may have.

    What has not moved comes first, then what lies within both accuracies, whichever sheet it is claimed by. What moved
    farther is looked for on the delivery's own sheets; under its own handle also where it left them, or had ended.
    """
    known = known.with_row_index("known")
    own = pl.col("number").is_in(list(numbers))
    rounds = (
        (known.filter("live"), 2 * accuracy_m, False),
        (known.filter("live", "inside"), rule.moved_m, False),
        (known.filter(own, ~(pl.col("live") & pl.col("inside"))), rule.moved_m, True),
    )
    paired = [_unmoved(rows, known.filter("live"))]
    for some, limit_m, marked in rounds:
        done = pl.concat(paired)
        left = rows.join(done, on="row", how="anti", maintain_order="left")
        free = some.join(done, on="known", how="anti", maintain_order="left")
        paired.append(_near(left, free, limit_m, marked=marked))
    return pl.concat(paired)


def _unmoved(rows: pl.DataFrame, live: pl.DataFrame) -> pl.DataFrame:
    """PAIRED of one class at one place, to the millimetre; of several there the first by handle with the first."""
    if live.is_empty():
        return pl.DataFrame(schema=PAIRED)
    place = ["class_code", "at_x", "at_y"]

    def told(frame: pl.DataFrame, index: str) -> pl.DataFrame:
        rounded = frame.sort("mark").select(index, "class_code", at_x=pl.col("x").round(3), at_y=pl.col("y").round(3))
        return rounded.with_columns(nth=pl.int_range(pl.len()).over(place))

    return conform(told(rows, "row").join(told(live, "known"), on=[*place, "nth"]), PAIRED)


def _near(rows: pl.DataFrame, known: pl.DataFrame, limit_m: float, *, marked: bool) -> pl.DataFrame:
    """PAIRED within a limit: those of one handle before others, then the nearer; marked: those of one handle only."""
    claims = rows.select(
        pl.col("row").cast(pl.String).alias("source_key"),
        "class_code", "longitude_deg", "latitude_deg",
        network=pl.lit(None, pl.String), label="mark", accuracy_m=pl.lit(limit_m),
    )  # fmt: skip
    near = conform(
        known.with_columns(component="known", accuracy_m=pl.lit(0.0), marks=pl.concat_list("mark")).drop("source_key"),
        NEAR,
    )
    if marked:
        claims = claims.filter(pl.col("label").is_in(known["mark"].implode()))
    made, _ = pair(claims.drop_nulls("class_code"), near)
    made = made.filter("marked") if marked else made
    return conform(made.select(row=pl.col("source_key").cast(pl.UInt32), known="component"), PAIRED)


def _fresh(rows: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """mark, source_key, seam: keys for what is new: sheet and handle, with a number where that was another thing."""
    stem = pl.concat_str("home", pl.lit(BETWEEN), "mark")
    spent = known.group_by(stem=_stem(pl.col("source_key"))).agg(many=pl.len())
    fresh = rows.select("mark", stem=stem).join(spent, on="stem", how="left", maintain_order="left")
    again = pl.format(f"{{}}{MORE}{{}}", "stem", pl.col("many") + 1)
    key = pl.when(pl.col("many") > 0).then(again).otherwise("stem")
    return fresh.select("mark", source_key=key, seam=pl.lit(False))


def _by_mark(records: pl.DataFrame, known: pl.DataFrame, numbers: Sequence[str]) -> pl.DataFrame:
    """Records that are rejected, with the key of what stands under their handle on these sheets: it was said badly, and
    is not gone."""
    standing = known.filter("live", pl.col("number").is_in(list(numbers))).unique("mark", keep="first")
    keys = standing.select(standing["mark"].alias("source_key"), lasting=standing["source_key"])
    found = records.join(keys, on="source_key", how="left", maintain_order="left")
    return found.with_columns(source_key=pl.coalesce("lasting", "source_key")).drop("lasting")


def _findings(records: pl.DataFrame, code: str, severity: Severity, value: pl.Expr) -> pl.DataFrame:
    said = records.with_columns(
        code=pl.lit(code), field=pl.lit("x"), severity=pl.lit(severity.value), value=value.str.head(80)
    )
    return conform(said, FINDINGS)


def in_plane(known: pl.DataFrame, crs: str, city: City) -> pl.DataFrame:
    """The rows with x and y in the feed's plane.

    known: longitude_deg, latitude_deg
    """
    x, y = to_plane(known["longitude_deg"].to_numpy(), known["latitude_deg"].to_numpy(), crs, city)
    return known.with_columns(pl.Series("x", x, dtype=pl.Float64), pl.Series("y", y, dtype=pl.Float64))
