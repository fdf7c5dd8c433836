"""持有的连续测图 How large a large-scale map the bus holds in one piece; no delivery makes it larger than it may be.

A map is large-scale by what its feed's file says (`scale`); what other bureaus say of single things is none. What
leaves is measured by `exchange.map_area`, by whose measure this is.
"""

from collections.abc import Iterable
from typing import Final

import numpy as np
import polars as pl

from exchange.map_area import Cells, largest_km2
from exchange.store.places import cell
from exchange.store.store import Store
from mappings.feed import Feed
from security.errors import Refusal

TOO_LARGE: Final = "content.map_too_large"


def held_cells(feeds: Iterable[Feed], store: Store) -> Cells:
    """The cells in which what large-scale maps say of stands now."""
    return np.asarray(store.cells_of([feed.id for feed in feeds if feed.scale]), dtype=np.int64)


def check(placed: pl.DataFrame, feed: Feed, feeds: Iterable[Feed], store: Store, most_km2: float) -> None:
    """Return if the bus may hold what a batch of a feed brings, beside all that it holds.

    placed: PLACED; feeds: all there are. Raises Refusal TOO_LARGE with the area that it would come to, and the limit.
    """
    if not feed.scale:
        return
    at = cell(pl.col("longitude_deg"), pl.col("latitude_deg"))
    brought = placed.drop_nulls("longitude_deg").select(at.unique()).to_series().to_numpy()
    km2 = largest_km2(np.union1d(held_cells(feeds, store), brought))
    if km2 > most_km2:
        raise Refusal(TOO_LARGE, f"{km2:.2f} km² > {most_km2:g} km²")
