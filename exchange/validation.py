"""Is a placed candidate right? One rule, one expression, one code."""

from collections.abc import Sequence

import msgspec
import polars as pl

from exchange.store.frames import BatchDelivery


class Lists(msgspec.Struct, frozen=True):
    """The code lists a candidate is checked against, each a set of codes as a sorted column."""


def lists(edition: str, grid: Sequence[str]) -> Lists:
    """The code lists of an edition (`2007`), and the codes of the city's unit grid (`City.grid.codes`)."""
    raise NotImplementedError


def check(
    placed: pl.DataFrame, *, deliveries: Sequence[BatchDelivery], classes: Sequence[str], lists: Lists
) -> pl.DataFrame:
    """Every finding of every rule, as FINDINGS, for the deliveries of one batch.

    placed:  PLACED, rows that are right and wrong alike
    classes: the feed's class codes without edition, empty for any; the grant's stand in each delivery
    """
    raise NotImplementedError
