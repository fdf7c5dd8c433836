"""What the log holds in a bureau's own name, for the bureau to look through: the same for SOAP and REST."""

from typing import Final

import msgspec

from exchange.bus import Bus
from exchange.entry import OwnEntry
from exchange.http.proofs import checkpoint_size

USUAL: Final = 100
MOST: Final = 200  # entries an answer may have; a decision's detail holds certificates


class OwnEntries(msgspec.Struct, frozen=True):
    """A page of them, in order of number.

    count: how many there are in all under the checkpoint; next: what to go on after, until a page is empty
    """

    entries: list[OwnEntry]
    count: int
    next: int
    checkpoint: str


def own_entries(bureau: str, after: int, limit: int, bus: Bus) -> OwnEntries:
    """Entries after entry `after` in a bureau's verified name, with all that decided over its certificates and grants.

    What only claimed to be the bureau is not among them (protocol.md "The entry").
    """
    checkpoint = bus.journal.checkpoint()
    certificates, decisions = bus.registry.of_bureau(bureau)
    size = checkpoint_size(checkpoint)
    found, count = bus.journal.entries_of(bureau, certificates, decisions, after, min(limit, MOST), size)
    return OwnEntries(found, count, found[-1].index if found else after, checkpoint)
