"""New, changed, unchanged, ended, and what a snapshot no longer names."""

from datetime import date

import polars as pl
import pytest

from exchange.claims import LATER, SAID, claim_digests
from exchange.store.store import Store
from mappings.findings import sentence_of
from mappings.schema import CANDIDATES, KEY
from tests.components.builders import (
    DAY,
    MONDAY,
    WATER,
    Feed,
    a_batch,
    a_delivery,
    a_row,
    candidates,
    compared,
    deliver,
    outcomes,
)
from tests.components.conftest import NewStore

DIGEST = "98bc42244612a6410b238dcd6cce959ddccf492b762bcf4c6a0844c8e0f405ab"
SNAPSHOT = Feed(content="snapshot")
CAREFUL = Feed(content="snapshot", gone_limit_percent=10.0)


def test_the_digest_of_a_claim_is_the_same_for_ever() -> None:
    # Literal: a new library version that changes this would make every claim of the city look changed.
    rows = candidates(
        [a_row("K", x=649654.95, y=3307153.91, height_m=-0.125, initial_date=date(2012, 5, 1), note="甬")]
    )
    assert claim_digests(rows, "EPSG:4549")[0].hex() == DIGEST


def test_the_digest_covers_everything_a_bureau_says_and_nothing_else() -> None:
    assert {*SAID, *LATER} == set(CANDIDATES) - {*KEY, "source_key", "removed"}
    base = candidates([a_row("K")])
    one = claim_digests(base, "EPSG:4549")[0]
    assert claim_digests(base.with_columns(source_key=pl.lit("L"), record=pl.lit(9)), "EPSG:4549")[0] == one
    assert claim_digests(base, "EPSG:4550")[0] != one
    for name in (*SAID, *LATER):
        other = base.with_columns(_another(name).cast(CANDIDATES[name]).alias(name))
        assert claim_digests(other, "EPSG:4549")[0] != one, name


def _another(name: str) -> pl.Expr:
    kind = CANDIDATES[name]
    if kind == pl.Float64:
        return pl.col(name).fill_null(0.0) + 1e-6
    return pl.lit(date(2001, 1, 1)) if kind == pl.Date else pl.lit("另")


def test_what_was_added_later_is_told_apart_by_its_name() -> None:
    digests = [claim_digests(candidates([a_row("K", **{name: "L"})]), "EPSG:4549")[0] for name in LATER]
    assert len(set(digests)) == len(LATER)


def test_a_value_that_moves_to_the_next_field_changes_the_digest() -> None:
    one = claim_digests(candidates([a_row("K", name="甲", note=None)]), "EPSG:4549")[0]
    assert claim_digests(candidates([a_row("K", name=None, note="甲")]), "EPSG:4549")[0] != one


def test_new_then_unchanged_then_changed_then_ended_then_new_again(store: Store) -> None:
    row = a_row("K")
    assert outcomes(deliver(store, [row], a_delivery("1", MONDAY))) == ["new"]
    assert outcomes(deliver(store, [row], a_delivery("2", MONDAY + DAY))) == ["unchanged"]
    assert outcomes(deliver(store, [{**row, "state": "破损"}], a_delivery("3", MONDAY + 2 * DAY))) == ["changed"]
    gone = {"source_key": "K", "removed": True, "delivery": 0}
    ended = deliver(store, [gone], a_delivery("4", MONDAY + 3 * DAY))
    assert outcomes(ended) == ["ended"]
    assert ended.deliveries[0].counts.ended == 1
    back = deliver(store, [row], a_delivery("5", MONDAY + 4 * DAY))
    assert outcomes(back) == ["new"]
    assert back.outcomes["component"].to_list() == ended.outcomes["component"].to_list() == [1]


def test_deliveries_in_one_batch_compare_with_one_another_in_order(store: Store) -> None:
    rows = [
        a_row("K"),
        a_row("K", delivery=1),
        a_row("K", delivery=2, state="破损"),
        {"source_key": "K", "removed": True, "delivery": 3},
        {"source_key": "K", "removed": True, "delivery": 4},
        a_row("K", delivery=5),
    ]
    stored = deliver(store, rows, *(a_delivery(str(n), MONDAY + n * DAY) for n in range(6)))
    assert outcomes(stored) == ["new", "unchanged", "changed", "ended", "ignored", "new"]
    assert stored.outcomes["code"].to_list()[4] == "claim.removed_unknown"
    assert [one.counts.records for one in stored.deliveries] == [1] * 6


def test_one_batch_leaves_what_the_deliveries_one_by_one_leave(store: Store, new_store: NewStore) -> None:
    rows = [
        a_row("A"),
        a_row("B", 1),
        a_row("A", delivery=1, state="破损"),
        {"source_key": "B", "removed": True, "delivery": 1},
        a_row("A", delivery=2),
        a_row("B", 1, delivery=2),
    ]
    deliveries = [a_delivery(str(n), MONDAY + n * DAY) for n in range(3)]
    together = deliver(store, rows, *deliveries)
    other = new_store()
    singly = [
        deliver(other, [{**row, "delivery": 0} for row in rows if row["delivery"] == n], one)
        for n, one in enumerate(deliveries)
    ]
    assert outcomes(together) == [one for stored in singly for one in outcomes(stored)]
    for table in ("claims", "components", "claims_past"):
        question = f"SELECT * FROM {table} ORDER BY {'component_id, valid_from_us' if table == 'claims_past' else 'id'}"
        here, there = (one.connection().execute(question).fetchall() for one in (store, other))
        if table == "claims_past":  # rows are numbered in the order of writing
            here, there = ([row[1:] for row in rows] for rows in (here, there))
        assert here == there, table
    other.close()


def test_what_is_older_than_known_is_no_news(store: Store) -> None:
    deliver(store, [a_row("K", state="破损")], a_delivery("2", MONDAY + DAY))
    late = deliver(store, [a_row("K"), a_row("L", 1)], a_delivery("1", MONDAY))
    assert late.outcomes.select("outcome", "code").rows() == [("ignored", "claim.older_than_known"), ("new", None)]
    assert sentence_of("claim.older_than_known").zh
    assert sentence_of("claim.removed_unknown").zh


def test_a_snapshot_ends_what_it_no_longer_names_but_not_what_it_names_badly(store: Store) -> None:
    deliver(store, [a_row(key, n) for n, key in enumerate("ABC")], a_delivery("1"), feed=SNAPSHOT)
    second = deliver(
        store, [a_row("A"), a_row("B", 1, class_code="9999")], a_delivery("2", MONDAY + DAY), feed=SNAPSHOT
    )
    assert outcomes(second) == ["unchanged", "rejected"]
    assert second.deliveries[0].counts.gone == 1
    live = [row[0] for row in store.connection().execute("SELECT source_key FROM claims WHERE valid_to_us IS NULL")]
    assert sorted(live) == ["A", "B"]


def test_a_key_that_mapping_could_not_read_is_rejected_by_name_and_not_gone(store: Store) -> None:
    deliver(store, [a_row(key, n) for n, key in enumerate("AB")], a_delivery("1"), feed=SNAPSHOT)
    found = [
        (0, 1, "value.not_readable", "initial_date", "error", "soon"),
        (0, 2, "ignored.carried", None, "ignored", ""),
    ]
    second = a_delivery("2", MONDAY + DAY)
    result = compared(store, SNAPSHOT, [a_row("A")], [second], found=found, unread=[(0, 1, "B")])
    assert result.ended.is_empty()
    assert result.outcomes.select("source_key", "outcome", "code").rows() == [
        ("A", "unchanged", None),
        ("B", "rejected", "value.not_readable"),
        (None, "ignored", "ignored.carried"),
    ]


def test_an_older_snapshot_changes_nothing(store: Store) -> None:
    deliver(store, [a_row("A")], a_delivery("2", MONDAY + DAY), feed=SNAPSHOT)
    late = deliver(store, [a_row("A", state="破损"), a_row("B", 1)], a_delivery("1", MONDAY), feed=SNAPSHOT)
    assert late.outcomes["code"].to_list() == ["claim.older_than_known"] * 2
    assert late.deliveries[0].counts.gone == 0
    assert store.ledger().claims == 1


def test_a_snapshot_that_would_end_more_than_the_feed_allows_is_held(store: Store) -> None:
    deliver(store, [a_row(f"K{n}", n) for n in range(20)], a_delivery("1"), feed=CAREFUL)
    kept = [a_row(f"K{n}", n) for n in range(18)]
    assert not compared(store, CAREFUL, kept, [a_delivery("2", MONDAY + DAY)]).held  # 10 % is the limit, not above it
    batch = a_batch(store, CAREFUL, kept[:17], [a_delivery("3", MONDAY + DAY)])
    assert batch.compared.held
    assert batch.compared.gone_percent == 15.0
    with pytest.raises(ValueError, match="held"):
        store.commit(batch)
    assert store.ledger().claims == 20


def test_two_snapshots_are_never_compared_together(store: Store) -> None:
    with pytest.raises(ValueError, match="alone"):
        compared(store, SNAPSHOT, [a_row("A")], [a_delivery("1"), a_delivery("2")])


def test_every_record_has_one_outcome_and_the_ledger_balances(store: Store) -> None:
    rows = [
        a_row("A"),
        a_row("B", 1, class_code="9999"),
        a_row("A", 2),
        {"source_key": "X", "removed": True, "delivery": 0},
    ]
    stored = deliver(store, rows, a_delivery("1"), feed=WATER)
    counts = stored.deliveries[0].counts
    assert (counts.new, counts.rejected, counts.ignored, counts.records) == (1, 2, 1, 4)
    assert stored.outcomes.select(*KEY).n_unique() == stored.outcomes.height == 4
    assert stored.outcomes["code"].to_list() == [None, "class.unknown", "key.duplicate", "claim.removed_unknown"]


def test_a_page_of_a_snapshot_ends_nothing_and_what_it_says_counts(store: Store) -> None:
    whole, page = Feed(content="snapshot", gone_limit_percent=0.0), Feed(content="snapshot", whole=False)
    rows = [a_row(key, number) for number, key in enumerate("KLM")]
    deliver(store, rows, a_delivery("1", MONDAY), feed=whole)
    done = deliver(store, [{**rows[0], "state": "破损"}], a_delivery("2", MONDAY + DAY), feed=page)
    assert outcomes(done) == ["changed"]
    assert done.deliveries[0].counts.gone == 0
    assert store.seen(page.id).claims["live"].to_list() == [True, True, True]


def test_a_page_does_not_make_other_pages_or_the_whole_old_news(store: Store) -> None:
    page, whole = Feed(content="snapshot", whole=False), Feed(content="snapshot")
    deliver(store, [a_row("K", 0)], a_delivery("2", MONDAY + 2 * DAY), feed=page)
    assert outcomes(deliver(store, [a_row("L", 1)], a_delivery("1", MONDAY), feed=page)) == ["new"]
    both = [a_row("K", 0), a_row("L", 1), a_row("M", 2)]
    done = deliver(store, both, a_delivery("3", MONDAY + DAY), feed=whole)
    assert [outcome for outcome in outcomes(done) if outcome == "new"] == ["new"]
