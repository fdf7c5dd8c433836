"""归并 Which claims speak of the same thing. Pure: no store, no clock, no chance."""

from typing import Final

import msgspec
import numpy as np
import polars as pl

from exchange.store.frames import LINKS, NEAR, TIES
from exchange.store.places import REACH_M, cell, cells_for, cells_in_reach, distance_m
from mappings.schema import CLASSES_BETWEEN, conform

CROWD: Final = 2_500  # pairs in a cell of twice the reach; more are never looked at one by one
TIE_M: Final = 0.01  # positions are told in centimetres: what differs by less does not differ

# What may be one thing with what. marked: a number or key of the one is written at the other.
PAIRS: Final = {"source_key": pl.String, "component": pl.Int64, "distance_m": pl.Float64, "marked": pl.Boolean}


class Joined(msgspec.Struct, frozen=True):
    """links: LINKS, one row a source key; ties: TIES, what stays open for a person."""

    links: pl.DataFrame
    ties: pl.DataFrame


def join(versions: pl.DataFrame, near: pl.DataFrame) -> Joined:
    """Which component each source key of `versions` speaks of, in order of source key.

    versions: VERSIONS of one feed (`Compared.versions`)
    near:     NEAR, components that no claim of this feed speaks of (`Store.near`)

    First by source key: a claim that has spoken of a component goes on speaking of it. Then by position, see `pair`.
    What is left founds a component of its own; so does what cannot be told, which is listed in `ties`.
    """
    # A key that is new and changes within one batch is joined by what it said first.
    keys = versions.sort("source_key", "valid_from_us", "delivery").unique(
        "source_key", keep="first", maintain_order=True
    )
    made, ties = pair(keys.filter(pl.col("component").is_null()), near)
    found = made.select("source_key", "distance_m", found="component")
    links = keys.select("source_key", "component").join(found, on="source_key", how="left", maintain_order="left")
    links = links.with_columns(pl.coalesce("component", "found").alias("component"))
    return Joined(conform(links, LINKS), conform(ties, TIES))


def pair(claims: pl.DataFrame, near: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Pairs made, and ties that are open, both PAIRS.

    claims: source_key, class_code, network, label, longitude_deg, latitude_deg, accuracy_m; keys are unique
    near:   NEAR

    One to one, of a class that both may have (`0102|0103` may be either), not of two networks, no farther apart than
    both accuracies together (and never beyond REACH_M). A pair that the one's number or key marks goes before others,
    then shorter ones. Where either end has two choices alike, within TIE_M, neither is made; nor is any in a crowd.
    """
    if claims.is_empty() or near.is_empty():
        return pl.DataFrame(schema=PAIRS), pl.DataFrame(schema=PAIRS)
    pairs = _pairs(claims, near)
    crowded = pairs.filter("crowded")
    made, ties = _one_to_one(pairs.join(crowded, on="source_key", how="anti").select(list(PAIRS)))
    return made, pl.concat([ties, crowded.select(list(PAIRS))]).sort("source_key", "distance_m", "component")


def _pairs(claims: pl.DataFrame, near: pl.DataFrame) -> pl.DataFrame:
    """Every pair that may be, found through the cells within reach; and whether it stands for a crowd."""
    found = conform(near, NEAR).rename({name: f"{name}_near" for name in NEAR if name != "class_code"})
    reach_m = float(
        np.sum([claims["accuracy_m"].to_numpy().max(initial=0), found["accuracy_m_near"].to_numpy().max(initial=0)])
    )
    per_degree = cells_for(reach_m)  # small cells: a pair is looked at only where it may be one
    found = found.with_columns(cell=cell(pl.col("longitude_deg_near"), pl.col("latitude_deg_near"), per_degree))
    wanted = claims.select(
        "source_key", "class_code", "network", "label", "longitude_deg", "latitude_deg", "accuracy_m"
    ).with_row_index("place")
    pairs = (
        _uncrowded(
            _each_class(wanted).join(cells_in_reach(claims, reach_m, per_degree), on="place"), _each_class(found)
        )
        .filter((pl.col("network") == pl.col("network_near")).fill_null(True))
        .unique(["source_key", "component_near", "crowded"])
    )
    places = [pairs[f"{axis}_deg{of}"].to_numpy() for of in ("", "_near") for axis in ("longitude", "latitude")]
    pairs = pairs.with_columns(pl.Series("distance_m", distance_m(*places)))
    limit_m = pl.min_horizontal(pl.col("accuracy_m") + pl.col("accuracy_m_near"), pl.lit(REACH_M))
    marked = [pl.col("marks_near").list.contains(pl.col(name), nulls_equal=False) for name in ("source_key", "label")]
    within = pairs.filter(pl.col("distance_m") <= limit_m)
    return within.select(
        "source_key",
        "distance_m",
        component="component_near",
        marked=pl.any_horizontal(one.fill_null(False) for one in marked),
        crowded="crowded",
    )


def _uncrowded(wanted: pl.DataFrame, found: pl.DataFrame) -> pl.DataFrame:
    """Claims beside components of the same cell and class; of a crowd each claim beside one component only.

    A thousand things in one square of a few metres are a default coordinate, not a street: to compare each with each
    would fill the memory, and none could be told from the others anyway. `crowded` says which pairs those are.
    """
    by = ["cell", "class_code"]
    many = [frame.group_by(by).len(name) for frame, name in ((wanted, "claims"), (found, "components"))]
    crowds = (
        many[0].join(many[1], on=by).filter(pl.col("claims").cast(pl.Int64) * pl.col("components") > CROWD).select(by)
    )
    apart = found.join(crowds, on=by, how="anti")
    one = found.join(crowds, on=by, how="semi").sort("component_near").unique(by, keep="first", maintain_order=True)
    beside = [apart.with_columns(crowded=pl.lit(False)), one.with_columns(crowded=pl.lit(True))]
    return wanted.join(pl.concat(beside), on=by)


def _each_class(frame: pl.DataFrame) -> pl.DataFrame:
    """A row for each class that a row may have."""
    return frame.with_columns(pl.col("class_code").str.split(CLASSES_BETWEEN)).explode("class_code")


def _one_to_one(pairs: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """In rounds: those pairs that are the first choice of both their ends, and of neither just one of two alike.

    A round that makes none sets aside the ends that cannot be told apart, so that the others may go on.
    """
    made, ties = [pairs.clear()], [pairs.clear()]
    left = pairs.sort("marked", "distance_m", "component", "source_key", descending=[True, False, False, False])
    while left.height:
        judged = left.with_columns(
            first=pl.col("source_key").is_first_distinct() & pl.col("component").is_first_distinct(),
            **{f"tied_{end}": _alike(end).sum().over(end) > 1 for end in ("source_key", "component")},
        )
        best = judged.filter("first", ~pl.col("tied_source_key"), ~pl.col("tied_component")).select(list(PAIRS))
        if best.height:
            made.append(best)
            left = left.join(best, on="source_key", how="anti", maintain_order="left")
            left = left.join(best, on="component", how="anti", maintain_order="left")
        else:
            open_ = judged.filter(_open()).select(list(PAIRS))
            ties.append(open_)
            left = left.join(open_, on="source_key", how="anti", maintain_order="left")
    return pl.concat(made), pl.concat(ties)


def _alike(end: str) -> pl.Expr:
    """Whether a pair is as good as the best one of its end. Rows stand best first."""
    nearest = pl.col("distance_m").first().over(end)
    return (pl.col("marked") == pl.col("marked").first().over(end)) & (pl.col("distance_m") < nearest + TIE_M)


def _open() -> pl.Expr:
    """Whether a pair is one of several alike, at an end whose first choice is tied."""
    return pl.any_horizontal(
        _alike(end) & pl.col(f"tied_{end}") & pl.col("first").any().over(end) for end in ("source_key", "component")
    )
