"""For whom: a bureau that carries what another signed, or that signs in another's name, each by a grant of its own.

Pure: no clock, no store. Neither grant lends any right: what may be sent is the signer's own grant to push, alone.
"""

from collections.abc import Iterable
from typing import Final, Literal

from security.authorise import authorise
from security.errors import Refusal
from security.message import EVERYWHERE, Grant, Principal

_REFUSED: Final = {"carry": "auth.carrier_mismatch", "on_behalf_of": "auth.sender_mismatch"}


def may_carry(carrier: Principal, signer: str, grants: Iterable[Grant], day: str) -> Grant:
    """The grant under which the carrier hands over what bureau `signer` signed, on day YYYY-MM-DD of +08:00.

    Raises Refusal: `auth.carrier_mismatch`, `auth.grant_not_in_force`.
    """
    return _granted(carrier, "carry", signer, grants, day)


def may_sign_for(signer: Principal, sender: str, grants: Iterable[Grant], day: str) -> Grant:
    """The grant under which the signer speaks in the name of bureau `sender`, on day YYYY-MM-DD of +08:00.

    Raises Refusal: `auth.sender_mismatch`, `auth.grant_not_in_force`.
    """
    return _granted(signer, "on_behalf_of", sender, grants, day)


def _granted(
    principal: Principal, action: Literal["carry", "on_behalf_of"], bureau: str, grants: Iterable[Grant], day: str
) -> Grant:
    try:
        grant = authorise(principal, action, bureau, None, grants, day)
    except Refusal as refusal:
        if refusal.code != "auth.no_grant":
            raise
        raise Refusal(_REFUSED[action], f"{principal.bureau} / {bureau}; {refusal.detail}") from refusal
    # Such a grant says who and for whom; classes, area and attributes stand in the grant to push. One that names any
    # would promise a limit that nobody holds, so it covers nothing.
    if grant.classes or grant.attributes or grant.map_area_km2 or grant.area != EVERYWHERE:
        raise Refusal(
            _REFUSED[action], f"{principal.bureau} / {bureau}; {grant.id} names limits, which {action} has not"
        )
    return grant
