"""监测读数 What things of a register report of themselves: is it right, is it of something known, is it new.

A reading is no claim: it names no owner and no place, makes no component, changes no change number, ends nothing and is
never disputed. It is identified by component, quantity and moment. The first that is said stands; the same again is
unchanged, another value for the same moment is rejected. One that comes late is kept, and is not the latest.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import msgspec
import polars as pl

from exchange.rights import READINGS as AS_ATTRIBUTE
from exchange.rights import View, by_delivery, in_area
from exchange.store.frames import ENDED, IDENTITY, KNOWN_READINGS, OBSERVED, VERSIONS, BatchDelivery, Compared
from mappings.apply import Mapped
from mappings.findings import Severity, set_aside
from mappings.garbled import garbled
from mappings.schema import CLASSES_BETWEEN, FINDINGS, KEY, OUTCOMES, conform

AHEAD: Final = timedelta(minutes=5)  # a gateway's clock may be so much ahead of ours
LENGTHS: Final = {"source_key": 128, "quantity": 64, "state": 64, "unit": 32}  # characters
VALUE_CHARACTERS: Final = 80
SAID: Final = ("value", "state", "unit")


class Rule(msgspec.Struct, frozen=True):
    """wrong: true where a reading breaks the rule; null is not wrong. Of READINGS, `component`, #received, #granted,
    #in_area, #shown."""

    code: str
    field: str
    wrong: pl.Expr


# In the order that a reader would check.
RULES: Final = (
    Rule("key.missing", "source_key", pl.col("source_key").is_null()),
    Rule("reading.component_unknown", "source_key", pl.col("source_key").is_not_null() & pl.col("component").is_null()),
    Rule("class.not_granted", "source_key", pl.col("component").is_not_null() & ~pl.col("#granted")),
    Rule("grant.outside_area", "source_key", pl.col("component").is_not_null() & ~pl.col("#in_area")),
    Rule("grant.attribute_not_covered", "quantity", ~pl.col("#shown")),
    Rule("reading.quantity_missing", "quantity", pl.col("quantity").is_null()),
    Rule("reading.value_missing", "value", pl.col("value").is_null() & pl.col("state").is_null()),
    Rule("reading.time_missing", "observed_at", pl.col("observed_at").is_null()),
    Rule("reading.from_the_future", "observed_at", pl.col("observed_at") > pl.col("#received") + AHEAD),
    *(Rule("text.too_long", field, pl.col(field).str.len_chars() > most) for field, most in LENGTHS.items()),
    *(Rule("text.control_characters", field, pl.col(field).str.contains(r"\p{Cc}")) for field in LENGTHS),
    *(Rule("text.garbled", field, garbled(pl.col(field))) for field in LENGTHS),
)


class Checked(msgspec.Struct, frozen=True):
    """readings: OBSERVED, those that are right, in order of record; findings: FINDINGS of the others, all errors."""

    readings: pl.DataFrame
    findings: pl.DataFrame


def check(readings: pl.DataFrame, known: pl.DataFrame, deliveries: Sequence[BatchDelivery]) -> Checked:
    """Which readings are right.

    readings: READINGS of a batch; known: KNOWN_KEYS, what the register says of their keys
    """
    asked = _with_delivery(readings.join(known, on="source_key", how="left", maintain_order="left"), deliveries)
    marks = asked.select(rule.wrong.fill_null(False).alias(str(number)) for number, rule in enumerate(RULES))
    broken = [
        _findings(asked.filter(marks[str(number)]), rule.code, rule.field, Severity.ERROR)
        for number, rule in enumerate(RULES)
        if marks[str(number)].any()
    ]
    right = asked.filter(~marks.select(pl.any_horizontal(pl.all())).to_series())
    return Checked(conform(right.sort(list(KEY)), OBSERVED), pl.concat([pl.DataFrame(schema=FINDINGS), *broken]))


def compare(checked: Checked, mapped: Mapped, stored: pl.DataFrame) -> tuple[Compared, pl.DataFrame]:
    """What a batch of readings comes to, with no claim touched; and OBSERVED, those that are new.

    stored: KNOWN_READINGS, what is kept already of the same components, quantities and moments
    """
    judged = _judged(checked.readings, conform(stored, KNOWN_READINGS))
    further = pl.concat(
        [
            _findings(judged.filter(code="reading.duplicate"), "reading.duplicate", "observed_at", Severity.IGNORED),
            _findings(judged.filter(code="reading.contradicts"), "reading.contradicts", "value", Severity.ERROR),
        ]
    )
    said = pl.concat([frame.select(*KEY, "source_key") for frame in (mapped.candidates, mapped.unread)])
    aside = set_aside(said, pl.concat([mapped.findings, checked.findings]))
    outcomes = pl.concat([conform(judged, OUTCOMES), aside]).sort(list(KEY))
    nothing = pl.DataFrame(schema=VERSIONS), pl.DataFrame(schema=ENDED)
    compared = Compared(outcomes, *nothing, further, gone_percent=0.0, held=False, whole=False)
    return compared, conform(judged.filter(outcome="new"), OBSERVED)


def _with_delivery(readings: pl.DataFrame, deliveries: Sequence[BatchDelivery]) -> pl.DataFrame:
    """Adds when the reading was received, whether the grant covers its component's class and place, and readings."""
    received = pl.Series([one.received_at for one in deliveries], dtype=pl.Datetime("us", "UTC"))
    views = [one.view for one in deliveries]
    return readings.with_columns(
        received.gather(readings["delivery"]).alias("#received"),
        by_delivery(views, _covers_class).alias("#granted"),
        in_area(readings, views, "division_code", "grid_code").alias("#in_area"),
        by_delivery(views, lambda view: pl.lit(view.shows(AS_ATTRIBUTE))).alias("#shown"),
    )


def _covers_class(view: View) -> pl.Expr:
    """Whether the component's class is covered; of one that is undecided, every one that it may be."""
    if not view.classes:
        return pl.lit(True)
    among = pl.element().is_in(sorted(view.classes))
    return pl.col("class_code").str.split(CLASSES_BETWEEN).list.eval(among).list.all()


def _judged(readings: pl.DataFrame, stored: pl.DataFrame) -> pl.DataFrame:
    """The readings with outcome and code.

    What stands for a component, quantity and moment is what is stored, else what the batch says of it first.
    """
    by = list(IDENTITY)
    before = stored.rename({name: f"{name}_stored" for name in SAID}).with_columns(known=True)
    ordered = readings.join(before, on=by, how="left", maintain_order="left").with_columns(
        *(pl.col(name).first().over(by).alias(f"{name}_first") for name in SAID),
        known=pl.col("known").fill_null(False),
        opens=pl.struct(by).is_first_distinct(),
        again=~pl.struct("delivery", *by).is_first_distinct(),
    )
    stands = {name: pl.when("known").then(f"{name}_stored").otherwise(f"{name}_first") for name in SAID}
    same = pl.all_horizontal(pl.col(name).eq_missing(standing) for name, standing in stands.items())
    new = ~pl.col("known") & pl.col("opens")
    return ordered.with_columns(
        outcome=pl.when(new).then(pl.lit("new")).when(~same).then(pl.lit("rejected"))
        .when("again").then(pl.lit("ignored")).otherwise(pl.lit("unchanged")),
        code=pl.when(new).then(pl.lit(None, pl.String)).when(~same).then(pl.lit("reading.contradicts"))
        .when("again").then(pl.lit("reading.duplicate")),
    )  # fmt: skip


def _findings(wrong: pl.DataFrame, code: str, field: str, severity: Severity) -> pl.DataFrame:
    value = pl.col(field).cast(pl.String).str.head(VALUE_CHARACTERS)
    return conform(
        wrong.select(*KEY, code=pl.lit(code), field=pl.lit(field), severity=pl.lit(severity.value), value=value),
        FINDINGS,
    )
