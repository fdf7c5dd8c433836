"""质检 Is a placed candidate right? One rule, one expression, one code; `RULES` in the order a reader would check.

`position.axes_swapped` and `position.outside_city` need the transformation, so `exchange.placing` says them.
"""

import re
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import polars as pl

from exchange.rights import in_area
from exchange.store.frames import BatchDelivery
from mappings.codelists import attributes, divisions, edition
from mappings.codelists import classes as class_list
from mappings.findings import Severity
from mappings.garbled import garbled
from mappings.schema import CLASSES_BETWEEN, FINDINGS, KEY, PLACED, conform

GRID_DIGITS: Final = 15  # 6 + 3 + 3 + 3; a 14-digit code of the older edition is another identifier, never padded
VALUE_CHARACTERS: Final = 80

# Fields of the standard's attribute table, and ours that they bound.
STANDARD_FIELDS: Final = {
    "ObjName": "name",
    "DeptName1": "authority_name",
    "DeptName2": "owner_name",
    "DeptName3": "maintainer_name",
    "ObjState": "state",
    "DataSource": "data_source",
    "Note": "note",
}
TEXTS: Final = tuple(
    name for name, kind in PLACED.items() if kind == pl.String and not name.endswith(("_basis", "_of_position"))
)


class Lists(msgspec.Struct, frozen=True):
    """The code lists a candidate is checked against, and the longest text of a field where the edition bounds it."""

    classes: frozenset[str]
    divisions: frozenset[str]
    abolished: frozenset[str]
    grid: frozenset[str]
    states: frozenset[str]
    lengths: dict[str, int]
    division_digits: int
    class_digits: int
    code_digits: int


def lists(edition_name: str, *, grid: Sequence[str], districts: Sequence[str]) -> Lists:
    """The code lists of an edition (`2007`), with the codes of the city's own grid and districts."""
    chosen, table = edition(edition_name), attributes(edition_name)
    known = divisions()
    bounded = table.filter(pl.col("field").is_in(list(STANDARD_FIELDS))).select(
        "field", length=pl.col("length").str.extract(r"^(\d+)").cast(pl.Int64)
    )
    allowed = table.filter(pl.col("field") == "ObjState")["allowed_values"].to_list()
    return Lists(
        classes=frozenset(class_list(edition_name)["code"]),
        divisions=frozenset(known["code"]) | frozenset(districts),
        abolished=frozenset(known.filter(pl.col("status") == "abolished")["code"]) - frozenset(districts),
        grid=frozenset(grid),
        states=frozenset(re.findall(r"([\u4e00-\u9fff]+) [a-z]", " ".join(allowed))),
        lengths={STANDARD_FIELDS[field]: length for field, length in bounded.rows() if length},
        division_digits=chosen.component_code_parts[0],
        class_digits=chosen.class_digits,
        code_digits=sum(chosen.component_code_parts),
    )


class Rule(msgspec.Struct, frozen=True):
    """wrong: given the lists, an expression that is true where a record breaks the rule; null is not wrong.

    of_removed: also asked of a record that says the thing is gone, which need not say anything but its key
    """

    code: str
    field: str
    severity: Severity
    wrong: Callable[[Lists], pl.Expr]
    of_removed: bool


RULES: Final[list[Rule]] = []


def rule(
    code: str, field: str, severity: Severity = Severity.ERROR, *, of_removed: bool = False
) -> Callable[[Callable[[Lists], pl.Expr]], Callable[[Lists], pl.Expr]]:
    """Enters a function into RULES."""

    def enter(wrong: Callable[[Lists], pl.Expr]) -> Callable[[Lists], pl.Expr]:
        RULES.append(Rule(code, field, severity, wrong, of_removed))
        return wrong

    return enter


def check(
    placed: pl.DataFrame,
    found: pl.DataFrame,
    *,
    deliveries: Sequence[BatchDelivery],
    classes: Sequence[str],
    lists: Lists,
    beyond: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """What the rules find in the deliveries of one batch, as FINDINGS, rule by rule.

    placed:  PLACED, records that are right and wrong alike
    found:   FINDINGS of mapping and placing; what they already say of a field is not said again
    classes: the feed's class codes without edition, empty for any; the grant's stand in each delivery
    beyond:  delivery, source_key: what the feed said before of these keys lies outside the delivery's grant
    """
    asked = _with_delivery(placed, deliveries, classes, lists, beyond)
    present = ~pl.col("removed").fill_null(False)
    marks = asked.select(
        (one.wrong(lists) & (True if one.of_removed else present)).fill_null(False).alias(str(number))
        for number, one in enumerate(RULES)
    )
    broken = [
        _findings(placed.filter(marks[str(number)]), one)
        for number, one in enumerate(RULES)
        if marks[str(number)].any()
    ]
    findings = pl.concat([pl.DataFrame(schema=FINDINGS), *broken])
    return findings.join(found.filter(severity=Severity.ERROR.value), on=[*KEY, "field"], how="anti")


def _with_delivery(
    placed: pl.DataFrame,
    deliveries: Sequence[BatchDelivery],
    classes: Sequence[str],
    lists: Lists,
    beyond: pl.DataFrame | None,
) -> pl.DataFrame:
    """Adds what a rule needs to know of the delivery: #day it was received (+08:00), #listed, #in_feed, #granted,
    #in_area, #beyond."""
    days = pl.Series([one.received_at for one in deliveries], dtype=pl.Datetime("us", "UTC"))
    days = days.dt.offset_by("8h").dt.date()  # days of the city are those of +08:00
    said = _class_verdicts(placed, deliveries, classes, lists)
    return placed.join(said, on=["delivery", "class_code"], how="left", maintain_order="left").with_columns(
        days.gather(placed["delivery"]).alias("#day"),
        in_area(placed, [one.view for one in deliveries]).alias("#in_area"),
        _is_beyond(placed, beyond).alias("#beyond"),
    )


def _is_beyond(placed: pl.DataFrame, beyond: pl.DataFrame | None) -> pl.Expr | pl.Series:
    if beyond is None or beyond.is_empty():
        return pl.lit(False)
    by = ["delivery", "source_key"]
    marked = placed.select(by).join(beyond.with_columns(beyond=True), on=by, how="left", maintain_order="left")
    return marked["beyond"].fill_null(False)


def _class_verdicts(
    placed: pl.DataFrame, deliveries: Sequence[BatchDelivery], classes: Sequence[str], lists: Lists
) -> pl.DataFrame:
    """delivery, class_code, #listed, #in_feed, #granted, once for each class that a delivery says.

    A set of classes, `0102|0103`, is listed, in the feed and granted when every one of it is.
    """
    granted = pl.DataFrame(
        [(number, code) for number, one in enumerate(deliveries) for code in one.view.classes],
        schema={"delivery": pl.UInt32, "class_code": pl.String},
        orient="row",
    ).with_columns(granted=True)
    unbounded = [number for number, one in enumerate(deliveries) if not one.view.classes]
    said = placed.select("delivery", "class_code").drop_nulls().unique()
    each = said.with_columns(one=pl.col("class_code").str.split(CLASSES_BETWEEN)).explode("one")
    judged = each.join(granted, left_on=["delivery", "one"], right_on=["delivery", "class_code"], how="left").select(
        "delivery",
        "class_code",
        _in(pl.col("one"), lists.classes).alias("#listed"),
        (pl.col("one").is_in(list(classes)) if classes else pl.lit(True)).alias("#in_feed"),
        (pl.col("granted").fill_null(False) | pl.col("delivery").is_in(unbounded)).alias("#granted"),
    )
    return judged.group_by("delivery", "class_code").agg(pl.all().all())


def _findings(wrong: pl.DataFrame, broken: Rule) -> pl.DataFrame:
    return conform(
        wrong.select(
            *KEY,
            code=pl.lit(broken.code),
            field=pl.lit(broken.field),
            severity=pl.lit(broken.severity.value),
            value=pl.col(broken.field).cast(pl.String).str.head(VALUE_CHARACTERS),
        ),
        FINDINGS,
    )


# Which record it is -------------------------------------------------------------------------------


@rule("key.missing", "source_key", of_removed=True)
def key_is_said(_: Lists) -> pl.Expr:
    """Without the bureau's own key a record cannot be found again."""
    return pl.col("source_key").is_null()


@rule("key.duplicate", "source_key", of_removed=True)
def key_stands_once(_: Lists) -> pl.Expr:
    """Within one delivery a key is said once; the first record stands."""
    return pl.col("source_key").is_not_null() & ~pl.struct("delivery", "source_key").is_first_distinct()


@rule("key.doubled", "source_key", Severity.WARNING, of_removed=True)
def key_is_nobody_else_s(_: Lists) -> pl.Expr:
    """The first record of a doubled key stands, but which of them the key means is for the bureau to say."""
    key = pl.struct("delivery", "source_key")
    return pl.col("source_key").is_not_null() & key.is_duplicated() & key.is_first_distinct()


# What it is ---------------------------------------------------------------------------------------


@rule("class.missing", "class_code")
def class_is_said(_: Lists) -> pl.Expr:
    """Every component has a class."""
    return pl.col("class_code").is_null()


@rule("class.unknown", "class_code")
def class_is_listed(_: Lists) -> pl.Expr:
    """The class is in the master edition's list."""
    return ~pl.col("#listed")


@rule("class.not_in_feed", "class_code")
def class_is_of_the_feed(_: Lists) -> pl.Expr:
    """The feed's file names the class."""
    return pl.col("#listed") & ~pl.col("#in_feed")


@rule("class.not_granted", "class_code")
def class_is_granted(_: Lists) -> pl.Expr:
    """The grant under which the delivery was taken covers the class."""
    return pl.col("#listed") & pl.col("#in_feed") & ~pl.col("#granted")


@rule("grant.key_outside", "source_key", of_removed=True)
def key_is_within_the_grant(_: Lists) -> pl.Expr:
    """What stands outside a grant is neither changed nor ended under it."""
    return pl.col("#beyond")


# Where it is --------------------------------------------------------------------------------------


@rule("position.missing", "x")
def position_is_said(_: Lists) -> pl.Expr:
    """Both coordinates are said."""
    return pl.col("x").is_null() | pl.col("y").is_null()


@rule("grant.outside_area", "x")
def position_is_in_the_granted_area(_: Lists) -> pl.Expr:
    """The grant under which the delivery was taken covers the place, by where our own polygons put it."""
    return pl.col("longitude_deg").is_not_null() & ~pl.col("#in_area")


@rule("division.unknown", "division_code")
def division_is_listed(lists: Lists) -> pl.Expr:
    """A stated division is in the list of divisions, or one of the city's own."""
    return ~_in(pl.col("division_code"), lists.divisions)


@rule("division.abolished", "division_code")
def division_is_in_force(lists: Lists) -> pl.Expr:
    """A stated division has not been abolished."""
    return _in(pl.col("division_code"), lists.abolished)


@rule("position.outside_division", "division_code")
def position_is_in_the_division(lists: Lists) -> pl.Expr:
    """ISO 19157 positional accuracy: the position lies in the division that the record names."""
    in_force = _in(pl.col("division_code"), lists.divisions - lists.abolished)
    return in_force & (pl.col("division_code") != pl.col("division_of_position"))


@rule("position.no_grid", "grid_of_position", Severity.WARNING)
def position_has_a_grid(_: Lists) -> pl.Expr:
    """The city's unit grid covers the position; a hole in the grid is not the sender's fault."""
    return pl.col("longitude_deg").is_not_null() & pl.col("grid_of_position").is_null()


@rule("grid.code_length", "grid_code")
def grid_code_is_whole(_: Lists) -> pl.Expr:
    """A stated grid code has 15 characters."""
    return pl.col("grid_code").str.len_chars() != GRID_DIGITS


@rule("grid.unknown", "grid_code")
def grid_is_listed(lists: Lists) -> pl.Expr:
    """A stated grid code is one of the city's."""
    return (pl.col("grid_code").str.len_chars() == GRID_DIGITS) & ~_in(pl.col("grid_code"), lists.grid)


@rule("grid.disagrees", "grid_code", Severity.WARNING)
def grid_is_that_of_the_position(lists: Lists) -> pl.Expr:
    """A stated grid code is that of the position; where they differ, the position decides."""
    return _in(pl.col("grid_code"), lists.grid) & (pl.col("grid_code") != pl.col("grid_of_position"))


# What else is said of it --------------------------------------------------------------------------


@rule("component_code.malformed", "component_code")
def component_code_has_its_digits(lists: Lists) -> pl.Expr:
    """A stated component code has the digits of the master edition."""
    return ~pl.col("component_code").str.contains(rf"^[0-9]{{{lists.code_digits}}}$")


@rule("component_code.class_disagrees", "component_code", Severity.WARNING)
def component_code_has_the_class(lists: Lists) -> pl.Expr:
    """The class inside a stated component code is the record's."""
    inside = pl.col("component_code").str.slice(lists.division_digits, lists.class_digits)
    return _whole_code(lists) & ~pl.col("class_code").str.contains(inside, literal=True)


@rule("component_code.division_disagrees", "component_code", Severity.WARNING)
def component_code_has_the_division(lists: Lists) -> pl.Expr:
    """The division inside a stated component code is the position's; codes outlive boundaries, so this only warns."""
    return _whole_code(lists) & (
        pl.col("component_code").str.head(lists.division_digits) != pl.col("division_of_position")
    )


@rule("state.unknown", "state")
def state_is_listed(lists: Lists) -> pl.Expr:
    """The state is one of the edition's words."""
    return ~_in(pl.col("state"), lists.states)


@rule("date.future", "initial_date")
def initial_date_has_been(_: Lists) -> pl.Expr:
    """The initial date is not after the day on which the delivery was received."""
    return pl.col("initial_date") > pl.col("#day")


@rule("date.future", "change_date")
def change_date_has_been(_: Lists) -> pl.Expr:
    """The change date is not after the day on which the delivery was received."""
    return pl.col("change_date") > pl.col("#day")


@rule("date.order", "change_date")
def dates_are_in_order(_: Lists) -> pl.Expr:
    """A thing changes after it began."""
    return pl.col("change_date") < pl.col("initial_date")


@rule("authority.missing", "authority_name", Severity.WARNING)
def authority_is_said(_: Lists) -> pl.Expr:
    """Mandatory in every edition; kept all the same, and the answer says that the role is not known (权属缺项)."""
    return pl.col("authority_name").is_null() & pl.col("authority_code").is_null()


# Texts: the same two rules for every field --------------------------------------------------------


def _too_long(field: str) -> Callable[[Lists], pl.Expr]:
    def wrong(lists: Lists) -> pl.Expr:
        return pl.col(field).str.len_chars() > lists.lengths[field] if field in lists.lengths else pl.lit(False)

    return wrong


def _has_control_characters(field: str) -> Callable[[Lists], pl.Expr]:
    return lambda _: pl.col(field).str.contains(r"\p{Cc}")


def _is_garbled(field: str) -> Callable[[Lists], pl.Expr]:
    return lambda _: garbled(pl.col(field))


for _text in TEXTS:
    if _text in STANDARD_FIELDS.values():
        rule("text.too_long", _text)(_too_long(_text))
    rule("text.control_characters", _text, of_removed=_text == "source_key")(_has_control_characters(_text))
    rule("text.garbled", _text, of_removed=_text == "source_key")(_is_garbled(_text))


def _in(value: pl.Expr, codes: frozenset[str]) -> pl.Expr:
    return value.is_in(sorted(codes))


def _whole_code(lists: Lists) -> pl.Expr:
    return pl.col("component_code").str.contains(rf"^[0-9]{{{lists.code_digits}}}$")
