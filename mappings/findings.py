"""What a finding's code says to a person, and how bad it is."""

import functools
import tomllib
from enum import StrEnum
from pathlib import Path

import msgspec

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
