"""Each parse function: what it reads, and what it leaves to a finding."""

import datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mappings.functions import FUNCTIONS


def read(function: str, *texts: str | None) -> list[object]:
    frame = pl.DataFrame({"t": pl.Series(texts, dtype=pl.String)})
    return frame.select(FUNCTIONS[function].apply(pl.col("t"))).to_series().to_list()


def at(microseconds: int) -> datetime.datetime:
    """A moment of 25 November 2026, UTC."""
    return datetime.datetime(2026, 11, 25, tzinfo=datetime.UTC) + datetime.timedelta(microseconds=microseconds)


@pytest.mark.parametrize(
    ("function", "text", "value"),
    [
        ("text", "甲路 1 号", "甲路 1 号"),
        ("integer", "330203", "330203"),
        ("integer", "330203.0", "330203"),
        ("integer", "0118", "0118"),
        ("metres", "491447.32", 491447.32),
        ("metres", "-3", -3.0),
        ("millimetres", "850", 0.85),
        ("degrees", "121.549", 121.549),
        ("number", "3.20", 3.2),
        ("number", "-1.2e-3", -0.0012),
        ("instant", "2026-11-25T08:00:00+08:00", at(0)),
        ("instant", "2026-11-25T00:00:00Z", at(0)),
        ("instant", "2026-11-25t00:00:00z", at(0)),
        ("instant", "2026-11-25 00:00:00.25Z", at(250_000)),
        ("instant", "2026-11-24T19:30:00.123456789-04:30", at(123_456)),
        ("epoch_ms", "1795564800000", at(0)),
        ("epoch_ms", "1795564800250", at(250_000)),
        ("epoch_ms", "999999999999", datetime.datetime(2001, 9, 9, 1, 46, 39, 999_000, datetime.UTC)),
        ("degrees_minutes_seconds", "121°32′56.4″", 121 + 32 / 60 + 56.4 / 3600),
        ("degrees_minutes_seconds", "121°32'56\"", 121 + 32 / 60 + 56 / 3600),
        ("degrees_minutes_seconds", "29度52分26.4秒", 29 + 52 / 60 + 26.4 / 3600),
        ("decimal_comma", "491447,32", 491447.32),
        ("decimal_comma", "12", 12.0),
        ("date", "2022-09-05", datetime.date(2022, 9, 5)),
        ("date", "2022-9-5", datetime.date(2022, 9, 5)),
        ("date", "2022/9/5", datetime.date(2022, 9, 5)),
        ("date", "2022.09.05", datetime.date(2022, 9, 5)),
        ("date", "2022年9月5日", datetime.date(2022, 9, 5)),
        ("date", "2022-09-05 00:00:00", datetime.date(2022, 9, 5)),
        ("date_compact", "20220905", datetime.date(2022, 9, 5)),
        ("yes_no", "是", True),
        ("yes_no", "TRUE", True),
        ("yes_no", "0", False),
        ("yes_no", "无", False),
    ],
)
def test_what_a_function_reads(function: str, text: str, value: object) -> None:
    assert read(function, text, None) == [pytest.approx(value) if isinstance(value, float) else value, None]


@pytest.mark.parametrize(
    ("function", "text"),
    [
        ("integer", "12.5"),
        ("integer", "LD1"),
        ("metres", "12,5"),
        ("metres", "12 m"),
        ("metres", "nan"),
        ("metres", "inf"),
        ("degrees", "121°"),
        ("number", "NaN"),
        ("number", "Infinity"),
        ("number", "1e400"),
        ("number", "3,2"),
        ("number", "3.2 m"),
        ("instant", "2026-11-25T08:00:00"),
        ("instant", "2026-11-25"),
        ("instant", "2026-11-31T08:00:00Z"),
        ("instant", "2026-11-25T24:00:00Z"),
        ("instant", "2026-11-25T08:00:60Z"),
        ("instant", "2026-11-25T08:00Z"),
        ("instant", "2026-11-25T08:00:00+0800"),
        ("instant", "2026-11-25T08:00:00+25:00"),
        ("instant", "1795564800"),
        ("epoch_ms", "1795564800"),
        ("epoch_ms", "17955648000000"),
        ("epoch_ms", "1795564800000.5"),
        ("epoch_ms", "-1795564800000"),
        ("epoch_ms", "2026-11-25T08:00:00Z"),
        ("degrees_minutes_seconds", "121°61′00″"),
        ("degrees_minutes_seconds", "121.5"),
        ("decimal_comma", "1.234,5"),
        ("decimal_comma", "491447.32"),
        ("date", "2022-02-30"),
        ("date", "5.9.2022"),
        ("date", "2022-09-05 08:30:00"),
        ("date", "20220905"),
        ("date_compact", "2022-09-05"),
        ("date_compact", "20221305"),
        ("yes_no", "maybe"),
    ],
)
def test_what_a_function_leaves_to_a_finding(function: str, text: str) -> None:
    assert read(function, text) == [None]


@given(st.lists(st.text()))
def test_no_function_raises_over_a_value(texts: list[str]) -> None:
    for name, function in FUNCTIONS.items():
        values = pl.DataFrame({"t": pl.Series(texts, dtype=pl.String)}).select(function.apply(pl.col("t"))).to_series()
        assert values.dtype == function.gives, name


def test_every_function_says_what_it_reads() -> None:
    assert all(function.apply.__doc__ for function in FUNCTIONS.values())
