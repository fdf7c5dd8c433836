"""From source records to candidates in the shared schema: a record becomes one candidate, or findings say why not."""

from collections.abc import Iterator
from typing import Final

import msgspec
import polars as pl

from connectors.formats.records import CARRIED, CONTENT, GUESSED, RECORD, SHEET
from mappings.codelists import CODE_TABLES
from mappings.feed import Feed, FieldRule, IgnoreRule, Label, Tally
from mappings.findings import Severity
from mappings.functions import FUNCTIONS
from mappings.labels import NUMBERS, SYMBOLS, with_labels
from mappings.outlines import with_outlines
from mappings.schema import CANDIDATES, FEATURES, FINDINGS, READINGS, ROLES, Schema, conform
from security.errors import Refusal

X_AXES: Final = ("easting_m", "longitude_deg")
Y_AXES: Final = ("northing_m", "latitude_deg")
UNREAD: Final[Schema] = {"delivery": pl.UInt32, "record": pl.UInt32, "source_key": pl.String}
PARTS: Final[Schema] = {"delivery": pl.UInt32, "record": pl.UInt32, "part": pl.String}
TALLIES: Final = {"delivery": pl.UInt32, "name": pl.String, "count": pl.UInt32}
_VALUE_CHARACTERS: Final = 80
_RULE: Final = "#rule"
_TOLD: Final = "#told"  # which member of the class's `from` decided, from 0
_SIGN: Final = "#sign"  # and its text


class Mapped(msgspec.Struct, frozen=True):
    """What became of the records.

    candidates: CANDIDATES, of a feed of readings READINGS, of a layer FEATURES, in the order of the records
    findings:   FINDINGS; a record left out has exactly one, `ignored.RULE`; a rejected one at least one of severity
                error, one for each field that cannot be read; a candidate has none, or warnings: that the encoding of
                its text was guessed, that its class was told by a less sure sign than the feed's first
    unread:     UNREAD, the rejected records: a key that was said badly was said, and is not gone
    tallies:    delivery, name, count: one row a delivery and `[[tally]]` of the feed
    parts:      PARTS, where the source has sheets or layers: which of them each record stands in
    """

    candidates: pl.DataFrame
    findings: pl.DataFrame
    unread: pl.DataFrame
    tallies: pl.DataFrame
    parts: pl.DataFrame


def take(frame: pl.DataFrame, feed: Feed) -> pl.DataFrame:
    """What the feed reads of a batch, its CONTENT as `delivery`: such frames can be stacked.

    Raises Refusal mapping.column_missing, naming the columns that the source lacks. Readings may lack any: what no
    reading of a delivery says, a state or a unit, is no column at all.
    """
    lacking = [column for column in feed.columns if column not in frame.columns]
    if lacking and feed.content == "readings":
        frame = frame.with_columns(pl.lit(None, pl.String).alias(column) for column in lacking)
    elif lacking:
        raise Refusal("mapping.column_missing", ", ".join(lacking))
    guessed = [GUESSED] if GUESSED in frame.columns else []
    columns = list(dict.fromkeys([RECORD, SHEET, CARRIED, *guessed, *feed.columns]))
    return frame.select(pl.col(CONTENT).alias("delivery"), *columns)


def check_unclassified(records: pl.DataFrame, feed: Feed) -> None:
    """Return if no record is of what must not come at all. Raises Refusal `content.classified` with how many are."""
    if not feed.classified:
        return
    tests = [pl.col(column).str.strip_chars().is_in(values) for column, values in feed.classified.items()]
    found = records.select(pl.any_horizontal(test.fill_null(False) for test in tests).sum()).item()
    if found:
        raise Refusal("content.classified", f"{found} / {records.height}")


def map_records(records: pl.DataFrame, feed: Feed) -> Mapped:
    """Fill the shared schema from records of any number of deliveries of one feed.

    records: `delivery`, RECORD, SHEET, CARRIED and the source's columns, as `take` gives them
    Raises Refusal mapping.column_missing.
    """
    lacking = [column for column in feed.columns if column not in records.columns]
    if lacking:
        raise Refusal("mapping.column_missing", ", ".join(lacking))
    records = records.rechunk()  # stacked deliveries in a hundred chunks would cost five times as much
    tallies = _tallies(records, feed)
    ruled = records.with_columns(_rule_of(feed).alias(_RULE))
    ignored = _ignored(ruled.filter(pl.col(_RULE).is_not_null()), feed)
    kept = ruled.filter(pl.col(_RULE).is_null()) if ignored.height else ruled
    read = _read(kept, feed)
    rejected = pl.concat([pl.DataFrame(schema=FINDINGS), *_failures(read, feed)])
    unread = pl.DataFrame(schema=UNREAD)
    if rejected.height:
        bad = rejected.select("delivery", "record")
        unread = conform(read.join(bad, on=["delivery", "record"], how="semi", maintain_order="left"), UNREAD)
        read = read.join(bad, on=["delivery", "record"], how="anti", maintain_order="left")
    findings = pl.concat([ignored, rejected, _guessed(kept, rejected), _by_fallback(read, feed)])
    findings = findings.sort("delivery", "record", maintain_order=True)
    if feed.content == "readings":
        return Mapped(_readings(read, feed), findings, unread, tallies, _parts(records))
    if feed.content == "reference":
        return Mapped(_features(read, feed), findings, unread, tallies, _parts(records))
    candidates = _candidates(read, feed)
    if feed.label is not None:
        symbols = _symbols(records, candidates, feed, feed.label)
        candidates = with_labels(candidates, symbols, _numbers(records, feed, feed.label), feed.label)
    candidates, of_outlines = with_outlines(candidates)
    findings = pl.concat([findings, of_outlines])
    return Mapped(candidates, findings, unread, tallies, _parts(records))


def _said(column: str) -> pl.Expr:
    """A cell's text without white space around it; null where nothing is left."""
    trimmed = pl.col(column).str.strip_chars()
    return pl.when(trimmed != "").then(trimmed)


def _guessed(kept: pl.DataFrame, rejected: pl.DataFrame) -> pl.DataFrame:
    """A warning for each record that is taken and whose source does not say in which encoding its text is."""
    if GUESSED not in kept.columns:
        return pl.DataFrame(schema=FINDINGS)
    guessed = kept.filter(pl.col(GUESSED).is_not_null()).select(
        "delivery",
        pl.col(RECORD).alias("record"),
        pl.lit("text.encoding_guessed").alias("code"),
        pl.lit(None, pl.String).alias("field"),
        pl.lit(Severity.WARNING.value).alias("severity"),
        pl.col(GUESSED).alias("value"),
    )
    return guessed.join(rejected, on=["delivery", "record"], how="anti")


# Left out by name


def _rule_of(feed: Feed) -> pl.Expr:
    """The name of the first ignore rule that fits a record; null where none does."""
    return pl.coalesce(
        [*(pl.when(_fits(rule, feed)).then(pl.lit(rule.rule)) for rule in feed.ignore), pl.lit(None, pl.String)]
    )


def _fits(rule: IgnoreRule, feed: Feed) -> pl.Expr:
    if rule.from_ is None:
        return pl.col(CARRIED)
    said = _said(rule.from_).fill_null("")
    fits = pl.any_horizontal(said.is_in(rule.values), *(said.str.ends_with(ending) for ending in rule.endings))
    if not rule.unless:
        return fits
    of_class = feed.fields["class_code"]
    known = zip(of_class.tables, _looked(of_class, feed), strict=True)
    return fits & pl.all_horizontal(looked.is_null() for name, (_, looked) in known if name in rule.unless)


def _ignored(left_out: pl.DataFrame, feed: Feed) -> pl.DataFrame:
    """One finding a record: the code with the rule's name, the column that it looked at, and the value there."""
    by_column = {rule.rule: rule.from_ for rule in feed.ignore if rule.from_ is not None}
    value = pl.coalesce(
        [
            *(pl.when(pl.col(_RULE) == name).then(pl.col(column)) for name, column in by_column.items()),
            pl.lit(None, pl.String),
        ]
    )
    return left_out.select(
        "delivery",
        pl.col(RECORD).alias("record"),
        ("ignored." + pl.col(_RULE)).alias("code"),
        pl.col(_RULE).replace_strict(by_column, default=None, return_dtype=pl.String).alias("field"),
        pl.lit(Severity.IGNORED.value).alias("severity"),
        value.str.slice(0, _VALUE_CHARACTERS).alias("value"),
    )


# Values read


def _text_name(field: str) -> str:
    return f"#text {field}"


def _looked_name(field: str) -> str:
    return f"#looked {field}"


def _text(rule: FieldRule) -> pl.Expr:
    return _together(rule.columns, rule.join)


def _together(columns: list[str], join: str) -> pl.Expr:
    parts = [_said(column) for column in columns]
    if len(parts) == 1:
        return parts[0]
    joined = pl.concat_str(parts, separator=join, ignore_nulls=True)
    return pl.when(joined != "").then(joined)


def _read(records: pl.DataFrame, feed: Feed) -> pl.DataFrame:
    """Key, and for each field its text, the text that its lookup gave, and its value."""
    texts = records.select(
        "delivery",
        pl.col(RECORD).alias("record"),
        *(_text(rule).alias(_text_name(field)) for field, rule in feed.fields.items()),
        *(
            pl.coalesce(looked for _, looked in _looked(rule, feed)).alias(_looked_name(field))
            for field, rule in feed.fields.items()
            if rule.tables
        ),
        *_told(feed),
    )
    return texts.with_columns(
        FUNCTIONS[rule.parse].apply(pl.col(_before_parse(field, rule))).alias(field)
        for field, rule in feed.fields.items()
    )


def _looked(rule: FieldRule, feed: Feed) -> list[tuple[pl.Expr, pl.Expr]]:
    """A field's text and what its lookup gives for it; with several lookups each, of which the first that has its text
    decides."""
    several = isinstance(rule.lookup, list)
    texts = [_together(group, rule.join) for group in rule.groups] if several else [_text(rule)]
    tables = [feed.lookups.get(name) or CODE_TABLES[name]() for name in rule.tables]
    return [
        (text, text.replace_strict(table, default=None, return_dtype=pl.String))
        for text, table in zip(texts, tables, strict=True)
    ]


def _told(feed: Feed) -> list[pl.Expr]:
    """By which sign the class was told, and its text; nothing where the feed has but one."""
    rule = feed.fields.get("class_code")
    if rule is None or not isinstance(rule.lookup, list):
        return []
    found = _looked(rule, feed)
    which = pl.coalesce(
        pl.when(looked.is_not_null()).then(pl.lit(at, pl.UInt8)) for at, (_, looked) in enumerate(found)
    )
    sign = pl.coalesce(pl.when(looked.is_not_null()).then(text) for text, looked in found)
    return [which.alias(_TOLD), sign.alias(_SIGN)]


def _by_fallback(read: pl.DataFrame, feed: Feed) -> pl.DataFrame:
    """A warning for each record whose class other columns told than those that the feed trusts most."""
    groups = feed.fields["class_code"].groups if _TOLD in read.columns else []
    less = {at: ", ".join(group) for at, group in enumerate(groups) if group != groups[0]}
    if not less:
        return pl.DataFrame(schema=FINDINGS)
    return read.filter(pl.col(_TOLD).is_in(list(less))).select(
        "delivery",
        "record",
        pl.lit("class.by_fallback").alias("code"),
        pl.col(_TOLD).replace_strict(less, default=None, return_dtype=pl.String).alias("field"),
        pl.lit(Severity.WARNING.value).alias("severity"),
        pl.col(_SIGN).str.slice(0, _VALUE_CHARACTERS).alias("value"),
    )


def _before_parse(field: str, rule: FieldRule) -> str:
    return _looked_name(field) if rule.tables else _text_name(field)


def _failures(read: pl.DataFrame, feed: Feed) -> Iterator[pl.DataFrame]:
    """Findings, a frame a field: text was said, and the lookup lacks it or the function cannot read it."""
    for field, rule in feed.fields.items():
        if rule.tables:
            yield _failed(read, field, _looked_name(field), "value.lookup_unknown")
        if rule.parse != "text":
            before = pl.col(_before_parse(field, rule)).is_not_null()
            yield _failed(read.filter(before), field, field, "value.not_readable")


def _failed(read: pl.DataFrame, field: str, result: str, code: str) -> pl.DataFrame:
    said = pl.col(_text_name(field))
    return read.filter(said.is_not_null() & pl.col(result).is_null()).select(
        "delivery",
        "record",
        pl.lit(code).alias("code"),
        pl.lit(field).alias("field"),
        pl.lit(Severity.ERROR.value).alias("severity"),
        said.str.slice(0, _VALUE_CHARACTERS).alias("value"),
    )


# Candidates


def _candidates(read: pl.DataFrame, feed: Feed) -> pl.DataFrame:
    filled = [_filled(name, feed) for name in CANDIDATES if name in feed.fields or name in feed.defaults]
    basis = [_basis(role, feed).alias(f"{role}_basis") for role in ROLES]
    if _TOLD in read.columns:
        told = dict(enumerate(feed.fields["class_code"].tables))
        basis += [pl.col(_TOLD).replace_strict(told, default=None, return_dtype=pl.String).alias("class_basis")]
    return conform(read.select("delivery", "record", *filled, *_axes(feed), *basis), CANDIDATES)


def _readings(read: pl.DataFrame, feed: Feed) -> pl.DataFrame:
    filled = [_filled(name, feed) for name in READINGS if name in feed.fields or name in feed.defaults]
    return conform(read.select("delivery", "record", *filled), READINGS)


def _features(read: pl.DataFrame, feed: Feed) -> pl.DataFrame:
    said = [name for name in dict.fromkeys((*feed.fields, *feed.defaults)) if name not in X_AXES + Y_AXES]
    further = [_filled(name, feed) for name in said if name not in FEATURES]
    columns = [_filled(name, feed) for name in said if name in FEATURES]
    columns += [pl.struct(further).struct.json_encode().alias("attributes")] if further else []
    return conform(read.select("delivery", "record", *columns, *_axes(feed)), FEATURES)


def _axes(feed: Feed) -> list[pl.Expr]:
    """x and y, as far as the feed says them, under whatever name its axes have."""
    return [pl.col(a).alias(xy) for xy, names in (("x", X_AXES), ("y", Y_AXES)) for a in names if a in feed.fields]


def _filled(name: str, feed: Feed) -> pl.Expr:
    """The field's value; where nothing was said, the feed's default.

    A role is filled whole or not at all: the default's name never stands beside the code that a record states.
    """
    value = pl.col(name) if name in feed.fields else pl.lit(None, pl.String)
    if name not in feed.defaults:
        return value.alias(name)
    role = name.rpartition("_")[0]
    silent = _silent(role, feed) if role in ROLES else value.is_null()
    return pl.when(silent).then(pl.lit(feed.defaults[name])).otherwise(value).alias(name)


def _silent(role: str, feed: Feed) -> pl.Expr:
    """Whether a record says nothing of a role, neither code nor name."""
    parts = [pl.col(part).is_null() for part in (f"{role}_code", f"{role}_name") if part in feed.fields]
    return pl.all_horizontal(parts) if parts else pl.lit(True)


def _basis(role: str, feed: Feed) -> pl.Expr:
    defaulted = any(f"{role}_{part}" in feed.defaults for part in ("code", "name"))
    silent = pl.when(_silent(role, feed))
    return silent.then(pl.lit("default") if defaulted else pl.lit(None, pl.String)).otherwise(pl.lit("stated"))


# Numbers beside symbols


def _numbers(records: pl.DataFrame, feed: Feed, label: Label) -> pl.DataFrame:
    """NUMBERS: the texts that are numbers, where they stand, and in which network."""
    text = _said(label.from_)
    among = records.filter(_said(label.among).is_in(label.values), text.str.contains(f"^(?:{label.pattern})$"))
    placed = _candidates(_read(among, feed), feed)
    return conform(placed.with_columns(among.select(text.alias("text"))["text"]), NUMBERS)


def _symbols(records: pl.DataFrame, candidates: pl.DataFrame, feed: Feed, label: Label) -> pl.DataFrame:
    """SYMBOLS: what bears numbers, whether or not a rule leaves it out."""
    if not label.symbols:
        return conform(candidates, SYMBOLS)
    return conform(_candidates(_read(records.filter(_said(label.among).is_in(label.symbols)), feed), feed), SYMBOLS)


# Sheets and layers


def _parts(records: pl.DataFrame) -> pl.DataFrame:
    if records[SHEET].null_count() == records.height:
        return pl.DataFrame(schema=PARTS)
    return conform(records.select("delivery", record=pl.col(RECORD), part=pl.col(SHEET).fill_null("")), PARTS)


# Tallies


def _tallies(records: pl.DataFrame, feed: Feed) -> pl.DataFrame:
    """One row a delivery and tally, zeros included."""
    if not feed.tally:
        return pl.DataFrame(schema=TALLIES)
    deliveries = records.select("delivery").unique(maintain_order=True)
    counted = []
    for tally in feed.tally:
        counts = _counted(records, tally).group_by("delivery").len("count")
        counted.append(
            deliveries.join(counts, on="delivery", how="left", maintain_order="left").select(
                "delivery", pl.lit(tally.name).alias("name"), pl.col("count").fill_null(0).cast(pl.UInt32)
            )
        )
    return pl.concat(counted)


def _counted(records: pl.DataFrame, tally: Tally) -> pl.DataFrame:
    """What a tally counts, one row each with its delivery."""
    ends = records.select(
        "delivery", *(_said(name).alias(end) for name, end in zip(tally.of, "ab", strict=False))
    ).drop_nulls()
    if len(tally.of) == 1:
        return ends.unique()
    pairs = ends.select(
        "delivery", pl.min_horizontal("a", "b").alias("a"), pl.max_horizontal("a", "b").alias("b")
    ).unique()
    return pairs.join(ends.select("delivery", "a").unique(), on=["delivery", "a"], how="semi")
