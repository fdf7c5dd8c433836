"""What is new in what a bureau says: its claims compared with those seen last."""

from collections.abc import Sequence
from typing import Literal

import polars as pl

from exchange.store.frames import BatchDelivery, Compared, Seen


def compare(
    placed: pl.DataFrame,
    findings: pl.DataFrame,
    seen: Seen,
    deliveries: Sequence[BatchDelivery],
    *,
    content: Literal["snapshot", "changes"],
    crs: str,
    gone_limit_percent: float,
) -> Compared:
    """What a batch of one feed changes.

    placed:   PLACED of the whole batch, rejected rows included: a key that was refused is not gone
    findings: FINDINGS of mapping, placing and checking together; a record with an error is rejected, one that a
              named rule left out is ignored, whether or not it is among `placed`
    content:  `changes`: many deliveries, later rows of a key compare with earlier ones; `snapshot`: exactly one
    """
    raise NotImplementedError
