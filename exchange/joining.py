"""归并 Which claims speak of the same thing. Pure: no store, no clock, no chance."""

import numpy as np
import polars as pl

from exchange.store.frames import LINKS, NEAR
from exchange.store.places import REACH_M, cell, cells_in_reach, distance_m
from mappings.schema import conform


def join(versions: pl.DataFrame, near: pl.DataFrame) -> pl.DataFrame:
    """LINKS, one row a source key of `versions`, in order of source key.

    versions: VERSIONS of one feed (`Compared.versions`)
    near:     NEAR, components that no claim of this feed speaks of (`Store.near`)

    First by source key: a claim that has spoken of a component goes on speaking of it. Then by position, one to one,
    the same class, no farther apart than both accuracies together (and never beyond REACH_M); shortest pairs first,
    ties by smaller component number, then source key. What is left founds a component of its own.
    """
    # A key that is new and changes within one batch is joined by what it said first.
    keys = versions.sort("source_key", "valid_from_us", "delivery").unique(
        "source_key", keep="first", maintain_order=True
    )
    unlinked = keys.filter(pl.col("component").is_null())
    pairs = _one_to_one(_pairs(unlinked, near))
    links = keys.select("source_key", "component").join(pairs, on="source_key", how="left", maintain_order="left")
    return conform(links.with_columns(pl.coalesce("component", "component_near").alias("component")), LINKS)


def _pairs(claims: pl.DataFrame, near: pl.DataFrame) -> pl.DataFrame:
    """source_key, component_near, distance_m: every pair that may be, found through the cells within reach."""
    found = conform(near, NEAR).rename({name: f"{name}_near" for name in NEAR if name != "class_code"})
    found = found.with_columns(cell=cell(pl.col("longitude_deg_near"), pl.col("latitude_deg_near")))
    reach_m = float(
        np.sum([claims["accuracy_m"].to_numpy().max(initial=0), found["accuracy_m_near"].to_numpy().max(initial=0)])
    )
    wanted = claims.select("source_key", "class_code", "longitude_deg", "latitude_deg", "accuracy_m")
    pairs = (
        wanted.with_row_index("place")
        .join(cells_in_reach(claims, reach_m), on="place")
        .join(found, on=["cell", "class_code"])
    )
    places = [pairs[f"{axis}_deg{of}"].to_numpy() for of in ("", "_near") for axis in ("longitude", "latitude")]
    pairs = pairs.with_columns(pl.Series("distance_m", distance_m(*places)))
    limit_m = pl.min_horizontal(pl.col("accuracy_m") + pl.col("accuracy_m_near"), pl.lit(REACH_M))
    return pairs.filter(pl.col("distance_m") <= limit_m).select("source_key", "component_near", "distance_m")


def _one_to_one(pairs: pl.DataFrame) -> pl.DataFrame:
    """Shortest pairs first, each end once: in rounds, those pairs that are the first choice of both their ends."""
    taken = [pairs.clear()]
    left = pairs.sort("distance_m", "component_near", "source_key")
    while left.height:
        best = left.filter(pl.col("source_key").is_first_distinct() & pl.col("component_near").is_first_distinct())
        taken.append(best)
        left = left.join(best, on="source_key", how="anti", maintain_order="left")
        left = left.join(best, on="component_near", how="anti", maintain_order="left")
    return pl.concat(taken)
