"""May they: the one grant that covers an act, or a refusal. Default is no. Pure: no clock, no store."""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from security.errors import Refusal
from security.message import Action, Grant, Principal

MOST_NAMED: Final = 3  # grants that a refusal names
MOST_INDEXED: Final = 1024  # bureaus

Index = Mapping[tuple[str, Action, str], Sequence[Grant]]


def authorise(
    principal: Principal,
    action: Action,
    target: str,
    feed_bureau: str | None,
    grants: Iterable[Grant],
    day: str,
    on_behalf_of: str = "",
) -> Grant:
    """The grant under which principal may do `action` on `target` on `day`, YYYY-MM-DD of +08:00.

    feed_bureau: the bureau that the feed belongs to; None where the target is no feed
    on_behalf_of: the bureau in whose name the principal speaks (`security.delegation`): then the feed must be that
                 bureau's, and the grant is still the principal's own
    grants:      any grants; only those of the principal's bureau count. A tuple is gone through once for ever, so that
                 ten thousand grants cost a request nothing

    Of several in force, the one that began last governs, then the one with the smaller id, so that a newer decision
    narrows an older one. Raises Refusal: `auth.feed_of_other`, `auth.no_grant`, `auth.grant_not_in_force`; the detail
    says what grant would allow it, and which of the bureau's come near.
    """
    if feed_bureau is not None and feed_bureau != (on_behalf_of or principal.bureau):
        raise Refusal("auth.feed_of_other", f"needs: {action} by the bureau that {target} belongs to")
    known = _indexed(principal.bureau, grants)
    theirs = known.get((principal.bureau, action, target), ())
    needs = f"needs: {action} {target}"
    if not theirs:
        raise Refusal("auth.no_grant", f"{needs}; held: {_near(known, principal.bureau, action, target)}")
    governs = next((g for g in theirs if g.valid_from <= day <= g.valid_until), None)
    if governs is None:
        raise Refusal("auth.grant_not_in_force", f"{needs} on {day}; held: {_named(theirs)}")
    return governs


_INDEXES: Final[dict[str, tuple[Iterable[Grant], Index]]] = {}  # by bureau: the tuple, which never changes, and its own


def _indexed(bureau: str, grants: Iterable[Grant]) -> Index:
    """The grants by bureau, action and target, the governing first. Of the tuple asked about last it is remembered."""
    known = _INDEXES.get(bureau)
    if known is not None and known[0] is grants:
        return known[1]
    index: dict[tuple[str, Action, str], list[Grant]] = {}
    for grant in sorted(sorted(grants, key=lambda g: g.id), key=lambda g: g.valid_from, reverse=True):
        index.setdefault((grant.bureau, grant.action, grant.target), []).append(grant)
    if isinstance(grants, tuple):
        if len(_INDEXES) >= MOST_INDEXED:
            _INDEXES.clear()
        _INDEXES[bureau] = grants, index
    return index


def _near(known: Index, bureau: str, action: Action, target: str) -> str:
    """Which of the bureau's grants allow the same of something else, or something else of the same."""
    near = (held for (whose, what, of), held in known.items() if whose == bureau and (what == action or of == target))
    return _named([grant for held in near for grant in held])


def _named(grants: Sequence[Grant]) -> str:
    """Grants in a few words, those that last longest first."""
    latest = heapq.nlargest(MOST_NAMED, grants, key=lambda g: (g.valid_until, g.id))
    return ", ".join(f"{g.id} {g.action} {g.target} {g.valid_from} – {g.valid_until}" for g in latest) or "none"
