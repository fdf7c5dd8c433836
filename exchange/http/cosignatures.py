"""`POST /api/v1/audit/cosignatures`: a checkpoint as we gave it, with a witness's line below ours.

The lines prove themselves, so any enrolled connection may bring them. What is kept says who watches the log and is no
part of it: no entry is made, or each witness's visit would make the next head.
"""

import asyncio
from typing import Final

from exchange.attestations import take_cosignatures
from exchange.bus import Bus
from exchange.http.body import Spool
from exchange.http.small_bodies import SmallBodyDoor
from security.checkpoint import MOST_CHARACTERS
from security.errors import Refusal
from security.message import Principal

MEDIA_TYPE: Final = "text/plain"


def cosignatures_door(bus: Bus, spool: Spool) -> SmallBodyDoor:
    """What witnesses say of heads, as an ASGI endpoint."""

    async def take(_: Principal, octets: bytes) -> object:
        """What is kept of the head now."""
        try:
            checkpoint = octets.decode("utf-8")
        except UnicodeDecodeError as problem:
            raise Refusal("audit.checkpoint_invalid", "not UTF-8") from problem
        head = await asyncio.to_thread(take_cosignatures, checkpoint, bus.anchors, bus.attestations, bus.clock())
        names = {witness.name for witness in bus.anchors.witnesses}.intersection(head.witnesses)
        quorum = bus.anchors.quorum
        cosigned = len(names) >= max(quorum, 1)
        return {"size": head.size, "witnesses": sorted(names), "quorum": quorum, "cosigned": cosigned}

    return SmallBodyDoor(bus, spool, MEDIA_TYPE, "POST a cosigned checkpoint", MOST_CHARACTERS, take)
