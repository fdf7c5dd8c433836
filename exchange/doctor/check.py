"""What the doctor works with, and what he says of one thing that he has looked at."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import msgspec

from exchange.clock_watch import ClockWatch
from exchange.journal import Journal
from exchange.registry import Registry
from exchange.settings import Settings
from exchange.tally import Counts
from security.errors import Refusal


class Check(msgspec.Struct, frozen=True):
    """One thing looked at. name: stays, `place.what`; zh, en: how it is; next_zh, next_en: what to do where it is not
    well; about: which one, where there are several of the name."""

    name: str
    ok: bool
    zh: str
    en: str
    next_zh: str = ""
    next_en: str = ""
    about: str = ""


class Seen(msgspec.Struct, frozen=True):
    """What only a bus that runs knows of itself: what its log says in numbers, how its clock went, and which events it
    logged as critical, with their times."""

    counts: Counts
    clock: ClockWatch
    criticals: Mapping[str, datetime]


class Examined(msgspec.Struct, frozen=True):
    """A bus on the table.

    state, keys: its folders; now: aware, UTC
    least_free_bytes: below this the disk counts as full
    journal, registry: open, or None where they do not open, which is then said already
    seen: where a bus looks at itself
    """

    settings: Settings
    state: Path
    keys: Path
    now: datetime
    least_free_bytes: int
    journal: Journal | None = None
    registry: Registry | None = None
    seen: Seen | None = None


def good(name: str, zh: str, en: str) -> Check:
    """It is well."""
    return Check(name, True, zh, en)


def bad(name: str, zh: str, en: str, next_zh: str, next_en: str, about: str = "") -> Check:
    """It is not well, and what to do."""
    return Check(name, False, zh, en, next_zh, next_en, about)


def refused(name: str, whose: str, refusal: Refusal) -> Check:
    """It is not well for a reason that has a code: whose thing it is, the reason's sentences, which one is meant."""
    said = refusal.sentence
    about = f" [{refusal.code}: {refusal.detail}]"
    zh, en = f"{whose}：{said.zh}{about}", f"{whose}: {said.en}{about}"
    return Check(name, False, zh, en, said.next_zh, said.next_en, whose)
