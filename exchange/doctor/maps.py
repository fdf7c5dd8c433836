"""How much of a large-scale map is held in one piece."""

from collections.abc import Iterator
from contextlib import closing
from typing import Final

from exchange.app import opening
from exchange.doctor.check import Check, Examined, bad, good
from exchange.map_area import largest_km2
from exchange.map_held import held_cells

FULL: Final = 0.8  # of the limit


def held_map_has_room(bus: Examined) -> Iterator[Check]:
    """The continuous map held stays clear of the limit at which deliveries are refused."""
    most_km2 = bus.settings.limits.held_map_km2
    with closing(opening.open_store(bus.settings)) as store:
        km2 = largest_km2(held_cells(opening.feeds_of(bus.settings).values(), store))
    zh = f"持有的大比例尺连续测图 {km2:.2f} km²，上限 {most_km2:g} km²。"
    en = f"The largest continuous large-scale map held is {km2:.2f} km²; the limit is {most_km2:g} km²."
    if km2 < FULL * most_km2:
        yield good("map.held", zh, en)
        return
    yield bad(
        "map.held",
        zh,
        en,
        "超过上限的图幅将被拒收并封存：请保密管理人员确定本平台可持有的范围，再改 [limits] held_map_km2。",
        "Sheets beyond the limit are refused and sealed: let the officer for classified matters decide what may be "
        "held here, then set [limits] held_map_km2.",
    )
