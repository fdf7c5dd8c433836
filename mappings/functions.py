"""The closed list of functions that a feed's `parse` may name.

Each takes a text expression (trimmed, null where nothing was said) and gives the value, null where the text cannot be
read so: text in and null out is a finding. None guesses; none raises over a value.
"""

from collections.abc import Callable
from typing import Final

import msgspec
import polars as pl

Kind = pl.DataType | type[pl.DataType]


class Function(msgspec.Struct, frozen=True):
    """A parse function, and the kind of value that it gives."""

    apply: Callable[[pl.Expr], pl.Expr]
    gives: Kind


FUNCTIONS: Final[dict[str, Function]] = {}


def _gives(kind: Kind) -> Callable[[Callable[[pl.Expr], pl.Expr]], Callable[[pl.Expr], pl.Expr]]:
    """Enters a function into the list under its own name."""

    def enter(function: Callable[[pl.Expr], pl.Expr]) -> Callable[[pl.Expr], pl.Expr]:
        FUNCTIONS[function.__name__] = Function(function, kind)
        return function

    return enter


def _number(text: pl.Expr) -> pl.Expr:
    number = text.cast(pl.Float64, strict=False)
    return pl.when(number.is_finite()).then(number)  # "nan" and "inf" are words here, not numbers


@_gives(pl.String)
def text(text: pl.Expr) -> pl.Expr:
    """The text itself."""
    return text


@_gives(pl.String)
def integer(text: pl.Expr) -> pl.Expr:
    """A code of digits that a spreadsheet may have turned into a number: `330203.0` gives `330203`."""
    return text.str.extract(r"^(\d+)(?:\.0+)?$")


@_gives(pl.Float64)
def number(text: pl.Expr) -> pl.Expr:
    """A number with a decimal point, in the unit that the feed says: `3.20`, `1.2e-3`; `NaN` is none."""
    return _number(text)


@_gives(pl.Float64)
def metres(text: pl.Expr) -> pl.Expr:
    """Metres written with a decimal point: `491447.32`."""
    return _number(text)


@_gives(pl.Float64)
def millimetres(text: pl.Expr) -> pl.Expr:
    """Millimetres, given as metres: `850` gives 0.85."""
    return _number(text) / 1000


@_gives(pl.Float64)
def degrees(text: pl.Expr) -> pl.Expr:
    """Decimal degrees: `121.549`."""
    return _number(text)


@_gives(pl.Float64)
def degrees_minutes_seconds(text: pl.Expr) -> pl.Expr:
    """Degrees, minutes, seconds north or east: `121°32′56.4″`, also with `'` and `"` or 度, 分, 秒."""
    parts = text.str.extract_groups(r"^(\d{1,3})[°度](\d{1,2})[′'分](\d{1,2}(?:\.\d+)?)[″\"秒]$")
    degree, minute, second = (parts.struct.field(part).cast(pl.Float64, strict=False) for part in "123")
    return pl.when((minute < 60) & (second < 60)).then(degree + minute / 60 + second / 3600)


@_gives(pl.Float64)
def decimal_comma(text: pl.Expr) -> pl.Expr:
    """A number written with a decimal comma and nothing between thousands: `491447,32`."""
    return _number(text.str.extract(r"^([+-]?\d+(?:,\d+)?)$").str.replace(",", ".", literal=True))


@_gives(pl.Date)
def date(text: pl.Expr) -> pl.Expr:
    """A day, year first: `2022-09-05`, `2022/9/5`, `2022.9.5`, `2022年9月5日`; midnight after it is dropped."""
    day = text.str.extract(r"^(\d{4}[-/.年]\d{1,2}[-/.月]\d{1,2})日?(?:[ T]00:00(?::00(?:\.0+)?)?)?$")
    return day.str.replace_all(r"[/.年月]", "-").str.to_date("%Y-%m-%d", strict=False)


@_gives(pl.Date)
def date_compact(text: pl.Expr) -> pl.Expr:
    """A day in eight digits: `20220905`."""
    return text.str.extract(r"^(\d{8})$").str.to_date("%Y%m%d", strict=False)


INSTANT: Final = pl.Datetime("us", "UTC")


@_gives(INSTANT)
def instant(text: pl.Expr) -> pl.Expr:
    """A moment after RFC 3339: `2026-11-25T08:00:00+08:00`, `2026-11-25T00:00:00.250Z`. Without its zone it is none."""
    said = text.str.extract(r"^(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:[0-5]\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:[0-5]\d))$")
    plain = said.str.replace(r"^(.{10}).", "${1}T").str.replace(r"[Zz]$", "+00:00")
    return plain.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%z", time_unit="us", time_zone="UTC", strict=False)


@_gives(INSTANT)
def epoch_ms(text: pl.Expr) -> pl.Expr:
    """Milliseconds since 1970, UTC, in 12 or 13 digits: 1973 to 2286. Fewer digits would be seconds, and are none."""
    return (
        pl.from_epoch(text.str.extract(r"^(\d{12,13})$").cast(pl.Int64), "ms")
        .cast(pl.Datetime("us"))
        .dt.replace_time_zone("UTC")
    )


@_gives(pl.Boolean)
def yes_no(text: pl.Expr) -> pl.Expr:
    """是, 有, yes, y, true, 1 give true; 否, 无, no, n, false, 0 give false; case does not matter."""
    said = text.str.to_lowercase()
    return (
        pl.when(said.is_in(["是", "有", "yes", "y", "true", "1"]))
        .then(True)
        .when(said.is_in(["否", "无", "no", "n", "false", "0"]))
        .then(False)
    )
