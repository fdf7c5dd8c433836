"""May they: the one grant that covers an act, or a refusal. Default is no. Pure: no clock, no store."""

from collections.abc import Iterable

from security.errors import Refusal
from security.message import Action, Grant, Principal


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
    grants:      any grants; only those of the principal's bureau count

    Of several in force, the one that began last governs, then the one with the smaller id, so that a newer decision
    narrows an older one. Raises Refusal: `auth.feed_of_other`, `auth.no_grant`, `auth.grant_not_in_force`.
    """
    if feed_bureau is not None and feed_bureau != (on_behalf_of or principal.bureau):
        raise Refusal("auth.feed_of_other", target)
    theirs = [g for g in grants if (g.bureau, g.action, g.target) == (principal.bureau, action, target)]
    if not theirs:
        raise Refusal("auth.no_grant", f"{action} {target}")
    in_force = [g for g in theirs if g.valid_from <= day <= g.valid_until]
    if not in_force:
        raise Refusal("auth.grant_not_in_force", f"{action} {target} on {day}")
    newest = max(g.valid_from for g in in_force)
    return min((g for g in in_force if g.valid_from == newest), key=lambda g: g.id)
