"""归并 Which claims speak of the same thing. Pure: no store, no clock, no chance."""

import polars as pl


def join(versions: pl.DataFrame, near: pl.DataFrame) -> pl.DataFrame:
    """LINKS, one row a source key of `versions`.

    versions: VERSIONS of one feed (`Compared.versions`)
    near:     NEAR, components that no claim of this feed speaks of (`Store.near`)

    First by source key: a claim that has spoken of a component goes on speaking of it. Then by position, one to one,
    the same class, no farther apart than both accuracies together; shortest pairs first, ties by smaller component
    number, then source key. What is left founds a component of its own.
    """
    raise NotImplementedError
