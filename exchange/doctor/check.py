"""What the doctor works with, and what he says of one thing that he has looked at."""

from datetime import datetime
from pathlib import Path

import msgspec

from exchange.journal import Journal
from exchange.registry import Registry
from exchange.settings import Settings
from security.errors import Refusal


class Check(msgspec.Struct, frozen=True):
    """One thing looked at. name: stays, `place.what`; zh, en: how it is; next_zh, next_en: what to do where it is not
    well."""

    name: str
    ok: bool
    zh: str
    en: str
    next_zh: str = ""
    next_en: str = ""


class Examined(msgspec.Struct, frozen=True):
    """A bus on the table.

    state, keys: its folders; now: aware, UTC
    least_free_bytes: below this the disk counts as full
    journal, registry: open, or None where they do not open, which is then said already
    """

    settings: Settings
    state: Path
    keys: Path
    now: datetime
    least_free_bytes: int
    journal: Journal | None = None
    registry: Registry | None = None


def good(name: str, zh: str, en: str) -> Check:
    """It is well."""
    return Check(name, True, zh, en)


def bad(name: str, zh: str, en: str, next_zh: str, next_en: str) -> Check:
    """It is not well, and what to do."""
    return Check(name, False, zh, en, next_zh, next_en)


def refused(name: str, whose: str, refusal: Refusal) -> Check:
    """It is not well for a reason that has a code: whose thing it is, the reason's sentences, which one is meant."""
    said = refusal.sentence
    about = f" [{refusal.code}: {refusal.detail}]"
    return Check(name, False, f"{whose}：{said.zh}{about}", f"{whose}: {said.en}{about}", said.next_zh, said.next_en)
