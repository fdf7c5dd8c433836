"""In = out + rejected + ignored, in each layer: what one step forgets or tells twice is seen."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.formats.records import RECORD, SHEET
from exchange.ledger import came_in, must_balance
from mappings.apply import PARTS
from mappings.schema import KEY
from security.errors import Refusal

LAYERS = st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["GXYZ", "路灯", None])), min_size=1, max_size=12)


def records(layers: list[tuple[int, str | None]]) -> pl.DataFrame:
    rows = [(delivery, number, layer) for number, (delivery, layer) in enumerate(layers)]
    return pl.DataFrame(rows, {"delivery": pl.UInt32, RECORD: pl.UInt32, SHEET: pl.String}, orient="row")


def parts(came: pl.DataFrame) -> pl.DataFrame:
    """PARTS as mapping makes them: none where no record has a layer."""
    if came[SHEET].null_count() == came.height:
        return pl.DataFrame(schema=PARTS)
    return came.select("delivery", pl.col(RECORD).alias("record"), pl.col(SHEET).fill_null("").alias("part"))


def outcomes(came: pl.DataFrame) -> pl.DataFrame:
    return came.select("delivery", pl.col(RECORD).alias("record"))


@given(LAYERS)
def test_a_record_with_one_outcome_each_balances(layers: list[tuple[int, str | None]]) -> None:
    came = records(layers)
    must_balance(came_in(came), parts(came), outcomes(came))


@given(LAYERS, st.data())
def test_a_record_lost_or_told_twice_or_both_does_not(
    layers: list[tuple[int, str | None]], data: st.DataObject
) -> None:
    came = records(layers)
    told, at = outcomes(came), data.draw(st.integers(0, came.height - 1))
    lost = pl.concat([told[:at], told[at + 1 :]])
    spoilt = [lost, pl.concat([told, told[at : at + 1]])]
    if lost.height:
        spoilt.append(pl.concat([lost, lost[:1]]))  # as many as came, and yet not they
    for wrong in spoilt:
        with pytest.raises(Refusal) as refused:
            must_balance(came_in(came), parts(came), wrong)
        assert refused.value.code == "delivery.unbalanced"


def test_two_layers_do_not_make_up_for_one_another() -> None:
    came = records([(0, "A"), (0, "B")])
    moved = parts(came).with_columns(part=pl.lit("A"))
    with pytest.raises(Refusal):
        must_balance(came_in(came), moved, outcomes(came))


def test_nothing_that_never_came_has_an_outcome() -> None:
    came = records([(0, "A")])
    more = pl.concat([outcomes(came), pl.DataFrame({"delivery": [1], "record": [7]}, schema=KEY)])
    with pytest.raises(Refusal):
        must_balance(came_in(came), parts(came), more)
