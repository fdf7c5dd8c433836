"""`POST /api/v1/cascade/heads`: a head of a district's log, handed in by the district's centre before what rests on it.

The head is signed by the district's log and held against the anchors in our settings; the connection only says which
district it is. What was taken, and what was refused, are entries of our log.
"""

import asyncio
from typing import Final

from exchange.bus import Bus
from exchange.districts import MOST_BYTES, district_of
from exchange.http.body import Spool
from exchange.http.small_bodies import SmallBodyDoor
from security.message import Principal

MEDIA_TYPE: Final = "application/json"


def heads_door(bus: Bus, spool: Spool) -> SmallBodyDoor:
    """What districts say of their logs, as an ASGI endpoint."""

    async def take(carrier: Principal, octets: bytes) -> object:
        """The size that is known now."""
        district = district_of(bus.districts, carrier.bureau)
        return {"size": await asyncio.to_thread(district.take, octets, bus.journal)}

    return SmallBodyDoor(bus, spool, MEDIA_TYPE, "POST a head of a district's log", MOST_BYTES, take)
