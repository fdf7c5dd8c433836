"""What a file would become as a version of a layer: the part of `feed preview` that is about reference data."""

import polars as pl

from exchange import layer_rules, layers
from exchange.app import opening, places
from exchange.entry import CITY_TIME
from exchange.settings import Settings
from mappings.apply import Mapped
from mappings.feed import Feed

SHOWN = ("record", "source_key", "name", "attributes")


def layers_preview(mapped: Mapped, feed: Feed, settings: Settings) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What is shown of the features, and FINDINGS of mapping and of the layer's rules, as the bus would find them."""
    limit_m, extent = settings.tolerances.transformation_m, settings.city.extent
    with opening.boundaries_of(settings) as boundaries:
        city, lists = boundaries.now().city, boundaries.now().lists
        parents = boundaries.parents(feed.layer)
    shapes = layers.geometries(mapped.candidates, crs=feed.crs, city=city, limit_m=limit_m)
    day = places.utc_now().astimezone(CITY_TIME).date()
    about = layer_rules.About(feed.layer, extent, day, parents, lists.divisions - lists.abolished)
    found = layer_rules.check(mapped.candidates, shapes, about)
    return mapped.candidates.select(SHOWN), pl.concat([mapped.findings, found])
