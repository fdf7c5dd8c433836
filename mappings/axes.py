"""Which two lines of a feed's file say what is north and what is east, and how they read the other way round."""

import json

from mappings.feed import FeedFile, FieldRule
from mappings.load import GLOBE, PLANE


def exchanged_lines(feed: FeedFile) -> tuple[str, str] | None:
    """Both lines of `[fields]` with what they are filled from exchanged; None where the feed fills no position."""
    for first, second in (PLANE, GLOBE):
        if first in feed.fields and second in feed.fields:
            return f"{first} = {_rule(feed.fields[second])}", f"{second} = {_rule(feed.fields[first])}"
    return None


def _rule(rule: FieldRule) -> str:
    """A rule as TOML writes it."""
    said = {"from": rule.from_, "lookup": rule.lookup, "parse": rule.parse, "join": rule.join}
    unsaid = {"lookup": None, "parse": "text", "join": " "}
    shown = (
        f"{key} = {json.dumps(value, ensure_ascii=False)}"
        for key, value in said.items()
        if value != unsaid.get(key, "")
    )
    return f"{{ {', '.join(shown)} }}"
