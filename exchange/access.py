"""Rights over time: who could see a thing on a day, and whose calls a grant or its end would change.

Answered from decisions and entries of the log, by the same function that decides at every door.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, Literal, get_args

import msgspec

from exchange.decisions import Granted
from exchange.entry import CITY_TIME, LoggedEntry, instant
from exchange.ownership import Component
from exchange.rights import View
from security.authorise import authorise
from security.errors import Refusal
from security.message import Action, Grant, Principal

SEEING: Final[tuple[Action, ...]] = ("pull", "subscribe")

Change = Literal["would be refused", "would be allowed", "another grant"]


class CouldSee(msgspec.Struct, frozen=True):
    """A bureau that a grant let see a component on a day, and what it did with it. attributes: empty for all."""

    bureau: str
    grant: str
    action: Action
    target: str
    purpose: str
    attributes: tuple[str, ...]
    asked: tuple[int, ...]


class Calls(msgspec.Struct, frozen=True):
    """Calls of one kind. before, after: the grant that governs, or the code of the refusal."""

    bureau: str
    action: Action
    target: str
    calls: int
    before: str
    after: str
    change: Change


def bounds(day: date) -> tuple[datetime, datetime]:
    """A day of the city, from its first moment to the first of the next."""
    first = datetime.combine(day, time(), CITY_TIME)
    return first.astimezone(UTC), (first + timedelta(days=1)).astimezone(UTC)


def who_could_see(
    component: Component,
    day: date,
    granted: Sequence[Granted],
    entries: Iterable[LoggedEntry],
    bureaus: Mapping[str, str],
) -> list[CouldSee]:
    """Who could see a component on a day, through which grant, and which entries say that they asked for it.

    component: as it stood on that day
    granted:   all grants that ever were
    entries:   of that day
    bureaus:   whose certificate it is, by fingerprint
    """
    place = component.division_code, component.grid_code, component.longitude_deg, component.latitude_deg
    asked = _asked(entries, bureaus, {component.identifier or "", str(component.key)})
    found = {}
    for grant in _governing(day, granted):
        if View.of(grant).covers(component.class_code, *place):
            did = tuple(asked.get((grant.bureau, grant.id), ()))
            row = (grant.bureau, grant.id, grant.action, grant.target, grant.purpose, grant.attributes, did)
            found[grant.id] = CouldSee(*row)
    return sorted(found.values(), key=lambda one: (one.bureau, one.grant))


def _governing(day: date, granted: Sequence[Granted]) -> Iterable[Grant]:
    """Grants that governed at some moment of a day: at its beginning, and after each decision that fell into it."""
    first, last = map(instant, bounds(day))
    moments = {first} | {
        moment for one in granted for moment in (one.approved_at, one.revoked_at) if first <= moment < last
    }
    for moment in moments:
        standing = [one.grant for one in granted if _stood(one, moment)]
        for bureau, action, target in {(g.bureau, g.action, g.target) for g in standing if g.action in SEEING}:
            said = _said(bureau, action, target, standing, day.isoformat(), {})
            yield from (grant for grant in standing if grant.id == said)


def _stood(one: Granted, moment: str) -> bool:
    return one.approved_at <= moment and (not one.revoked_at or moment < one.revoked_at)


def _asked(
    entries: Iterable[LoggedEntry], bureaus: Mapping[str, str], names: set[str]
) -> dict[tuple[str, str], list[int]]:
    """Entries of reads that named the component, by bureau and grant."""
    found: dict[tuple[str, str], list[int]] = {}
    for entry in entries:
        if entry.leaf.type == "read" and entry.detail and str(entry.detail.get("component", "")) in names - {""}:
            bureau = _bureau_of(entry, bureaus)
            found.setdefault((bureau, entry.leaf.grant), []).append(entry.index)
    return found


def simulate(
    entries: Iterable[LoggedEntry],
    before: tuple[Grant, ...],
    after: tuple[Grant, ...],
    feed_bureaus: Mapping[str, str],
    bureaus: Mapping[str, str],
    day: str,
) -> list[Calls]:
    """Whose calls would change if grants changed: what was asked in the entries, asked again on a day.

    before, after: grants in force without and with the change; feed_bureaus: whose feed it is, by feed
    bureaus: whose certificate it is, by fingerprint
    """
    counted: Counter[tuple[str, Action, str]] = Counter()
    for entry in entries:
        call = call_of(entry, bureaus)
        if call is not None:
            counted[call] += 1
    # One set of grants after the other: `authorise` remembers the order of the set that it was asked about last.
    was, becomes = (
        {call: _said(*call, grants, day, feed_bureaus) for call in sorted(counted)} for grants in (before, after)
    )
    return [
        Calls(*call, counted[call], was[call], becomes[call], _change(was[call], becomes[call]))
        for call in was
        if was[call] != becomes[call]
    ]


def call_of(entry: LoggedEntry, bureaus: Mapping[str, str]) -> tuple[str, Action, str] | None:
    """Who did or tried what, if the entry is a call at a door by somebody known."""
    leaf, detail = entry.leaf, entry.detail or {}
    bureau = _bureau_of(entry, bureaus)
    if not bureau:
        return None
    if leaf.type == "delivery":
        return bureau, "push", leaf.feed
    if leaf.type == "read" and leaf.grant != "own" and "view" in detail:
        return bureau, "subscribe" if leaf.outcome in ("published", "cascaded") else "pull", str(detail["view"])
    action, _, target = str(detail.get("wanted", "")).partition(" ")
    if leaf.type == "refusal" and action in get_args(Action):
        return bureau, action, target  # type: ignore[return-value]  # an Action, by the line above
    return None


def _bureau_of(entry: LoggedEntry, bureaus: Mapping[str, str]) -> str:
    """Who called: as verified by a signature, else whose connection it was."""
    return entry.leaf.sender or bureaus.get(entry.leaf.carrier, "")


def _said(
    bureau: str, action: Action, target: str, grants: Sequence[Grant], day: str, feed_bureaus: Mapping[str, str]
) -> str:
    """The id of the grant that governs, or the code of the refusal."""
    try:
        owner = feed_bureaus.get(target) if action == "push" else None
        return authorise(Principal(bureau, ""), action, target, owner, grants, day).id
    except Refusal as refusal:
        return refusal.code


def _change(was: str, becomes: str) -> Change:
    if becomes.startswith("auth."):
        return "would be refused"
    return "would be allowed" if was.startswith("auth.") else "another grant"
