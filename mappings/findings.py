"""What a finding's code says to a person, how bad it is, and what becomes of its record."""

import functools
import tomllib
from enum import StrEnum
from pathlib import Path

import msgspec
import polars as pl

from mappings.schema import KEY, OUTCOMES, conform
from security.errors import Sentence


class Severity(StrEnum):
    """error: the record is rejected; ignored: left out by a named rule; warning: kept and said."""

    ERROR = "error"
    IGNORED = "ignored"
    WARNING = "warning"


@functools.cache
def sentences() -> dict[str, Sentence]:
    """Every finding code with its sentence, from `findings.toml`."""
    text = (Path(__file__).parent / "findings.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), dict[str, Sentence])


def sentence_of(code: str) -> Sentence:
    """The sentence of a code. Every `ignored.RULE` has the one of `ignored`; KeyError for a code that is not listed."""
    return sentences()["ignored" if code.startswith("ignored.") else code]


def set_aside(said: pl.DataFrame, findings: pl.DataFrame) -> pl.DataFrame:
    """OUTCOMES: records rejected or ignored, each under its first finding; an error outweighs an ignoring rule.

    said: KEY and source_key of all records; findings: FINDINGS
    """
    rejected = pl.col("severity") == Severity.ERROR.value
    decided = findings.filter(pl.col("severity") != Severity.WARNING.value).select(
        *KEY, "code", outcome=pl.when(rejected).then(pl.lit("rejected")).otherwise(pl.lit("ignored"))
    )
    decided = decided.sort("outcome", descending=True, maintain_order=True)
    first = decided.unique(list(KEY), keep="first", maintain_order=True)
    return conform(first.join(said, on=list(KEY), how="left"), OUTCOMES)
