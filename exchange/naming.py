"""赋码 Whose word an identifier is: what a district centre's records say of it, checked before it is taken.

In a delegated division this node issues no serial. It takes the identifier that the district's own node issued, as it
stands: nothing is renumbered on the way up. What stands in a record of any other bureau stays a mere attribute.
"""

from collections.abc import Callable
from typing import Final

import polars as pl

from exchange.store.frames import LINKS, Seen
from exchange.store.territory import Territory
from exchange.validation import Lists
from mappings.findings import Severity
from mappings.schema import FINDINGS, KEY, PLACED, Schema, conform

Held = Callable[[pl.Series], pl.DataFrame]  # identifier, component: of those asked for

# What is looked at of a record that states an identifier. holder: the component that has it; own: the identifier that
# the component has of which the record's claim has always spoken, `component`.
_ASKED: Final[Schema] = {
    **{name: PLACED[name] for name in (*KEY, "source_key", "component_code", "division_of_position")},
    "component": pl.Int64,
    "own": pl.String,
    "holder": pl.Int64,
}


def check(
    placed: pl.DataFrame,
    bureau: str,
    seen: Seen,
    territory: Territory,
    lists: Lists,
    holders: Held,
    identifiers_of: Held,
) -> pl.DataFrame:
    """FINDINGS (errors) of identifiers that a district centre may not give; none for any other bureau.

    placed: PLACED of one feed of the bureau's; seen: what the store knows of it
    holders, identifiers_of: by identifiers, by components

    `identifier.not_yours`: of another's territory, or for a place in it. `identifier.class_unknown`: no class of the
    edition stands in it. `identifier.changed`: the component has another one for ever. `identifier.taken`: another
    component has it. What a component is called already is not looked at again: codes outlive boundaries.
    """
    given = territory.given_to(bureau)
    if not given:
        return pl.DataFrame(schema=FINDINGS)
    asked = _asked(placed, seen, lists, holders, identifiers_of)
    news = asked.filter(pl.col("own").is_null() | (pl.col("own") != pl.col("component_code")))
    judged = news.with_columns(code=_wrong_in_itself(sorted(given), lists))
    beside = judged.filter(pl.col("code").is_null()).with_columns(code=_wrong_beside_others())
    wrong = pl.concat([judged, beside]).filter(pl.col("code").is_not_null()).sort(list(KEY))
    return conform(
        wrong.with_columns(
            field=pl.lit("component_code"), severity=pl.lit(Severity.ERROR.value), value=pl.col("component_code")
        ),
        FINDINGS,
    )


def _wrong_in_itself(mine: list[str], lists: Lists) -> pl.Expr:
    """The code of what is wrong with a record whatever others say. mine: divisions of the district."""
    class_code = pl.col("component_code").str.slice(lists.division_digits, lists.class_digits)
    theirs = ~pl.col("component_code").str.head(lists.division_digits).is_in(mine)
    elsewhere = ~pl.col("division_of_position").is_in(mine).fill_null(False)
    return (
        pl.when(pl.col("own").is_not_null())
        .then(pl.lit("identifier.changed"))
        .when(theirs | elsewhere)
        .then(pl.lit("identifier.not_yours"))
        .when(~class_code.is_in(sorted(lists.classes)))
        .then(pl.lit("identifier.class_unknown"))
    )


def _wrong_beside_others() -> pl.Expr:
    """The code of what is wrong with a record for what is stored, or what an earlier one of the batch says."""
    held = pl.col("holder").is_not_null() & (pl.col("holder") != pl.col("component")).fill_null(True)
    anothers = pl.col("source_key").first().over("component_code") != pl.col("source_key")
    renamed = pl.col("component_code").first().over("source_key") != pl.col("component_code")
    return (
        pl.when(renamed)
        .then(pl.lit("identifier.changed"))
        .when(held | anothers.fill_null(True))
        .then(pl.lit("identifier.taken"))
    )


def _asked(placed: pl.DataFrame, seen: Seen, lists: Lists, holders: Held, identifiers_of: Held) -> pl.DataFrame:
    """Records that state a whole identifier, in order; one that is malformed has its finding already."""
    whole = pl.col("component_code").str.contains(rf"^[0-9]{{{lists.code_digits}}}$")
    stated = placed.filter(whole.fill_null(False), ~pl.col("removed").fill_null(False))
    stated = stated.join(seen.claims.select("source_key", "component"), on="source_key", how="left")
    held = holders(stated["component_code"]).rename({"identifier": "component_code", "component": "holder"})
    own = identifiers_of(stated["component"]).rename({"identifier": "own"})
    found = stated.join(held, on="component_code", how="left").join(own, on="component", how="left")
    return conform(found.sort(list(KEY)), _ASKED)


def keep_apart(
    links: pl.DataFrame, versions: pl.DataFrame, bureau: str, territory: Territory, identifiers_of: Held
) -> pl.DataFrame:
    """LINKS without those by position to a component that has another identifier than the district's record states: two
    names are two things until a person says otherwise, and nothing is renumbered by lying close."""
    if not territory.given_to(bureau):
        return links
    stated = versions.select("source_key", "component_code").unique("source_key", keep="last", maintain_order=True)
    has = identifiers_of(links["component"]).rename({"identifier": "has"})
    both = links.join(stated, on="source_key", how="left", maintain_order="left")
    both = both.join(has, on="component", how="left", maintain_order="left")
    apart = pl.col("distance_m").is_not_null() & (pl.col("has") != pl.col("component_code")).fill_null(False)
    return conform(
        both.with_columns(pl.when(~apart).then(name).alias(name) for name in ("component", "distance_m")), LINKS
    )
