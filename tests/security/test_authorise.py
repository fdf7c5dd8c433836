"""May they: default no, own feeds only, whole days of +08:00."""

import time
from typing import Any

import msgspec
import pytest

from security.authorise import authorise
from security.errors import Refusal
from security.message import Grant, Principal

WATER = Principal(bureau="water", certificate="00" * 32)


def a_grant(**spoil: Any) -> Grant:
    good = Grant(
        id="g1", bureau="water", action="push", target="water-assets", classes=(), valid_from="2026-01-01",
        valid_until="2026-12-31", purpose="census", basis="decree 1", proposed_by="A", approved_by="B",
    )  # fmt: skip
    return msgspec.structs.replace(good, **spoil)


def test_a_grant_in_force_is_found() -> None:
    assert authorise(WATER, "push", "water-assets", "water", [a_grant()], "2026-12-31") == a_grant()


@pytest.mark.parametrize(
    "grants, feed_bureau, day, code",
    [
        ([], "water", "2026-07-01", "auth.no_grant"),
        ([a_grant(bureau="power")], "water", "2026-07-01", "auth.no_grant"),
        ([a_grant(action="pull")], "water", "2026-07-01", "auth.no_grant"),
        ([a_grant(target="other")], "water", "2026-07-01", "auth.no_grant"),
        ([a_grant()], "power", "2026-07-01", "auth.feed_of_other"),
        ([a_grant()], "water", "2025-12-31", "auth.grant_not_in_force"),
        ([a_grant()], "water", "2027-01-01", "auth.grant_not_in_force"),
    ],
)
def test_default_is_no(grants: list[Grant], feed_bureau: str, day: str, code: str) -> None:
    with pytest.raises(Refusal) as refused:
        authorise(WATER, "push", "water-assets", feed_bureau, grants, day)
    assert refused.value.code == code


def test_the_newer_of_two_grants_governs() -> None:
    newer = a_grant(id="g2", valid_from="2026-06-01", classes=("0101",))
    assert authorise(WATER, "push", "water-assets", "water", [a_grant(), newer], "2026-07-01") == newer


@pytest.mark.parametrize(
    "grants, day, detail",
    [
        ([], "2026-07-01", "needs: push water-assets; held: none"),
        ([a_grant(bureau="power")], "2026-07-01", "needs: push water-assets; held: none"),
        (
            [a_grant(action="pull"), a_grant(id="g2", target="other"), a_grant(id="g3", action="audit", target="log")],
            "2026-07-01",
            "needs: push water-assets; held: g2 push other 2026-01-01 – 2026-12-31, "
            "g1 pull water-assets 2026-01-01 – 2026-12-31",
        ),
        (
            [a_grant()],
            "2027-01-01",
            "needs: push water-assets on 2027-01-01; held: g1 push water-assets 2026-01-01 – 2026-12-31",
        ),
    ],
)
def test_a_refusal_names_the_grant_that_would_allow_it_and_those_that_come_near(
    grants: list[Grant], day: str, detail: str
) -> None:
    with pytest.raises(Refusal) as refused:
        authorise(WATER, "push", "water-assets", "water", grants, day)
    assert refused.value.detail == detail


def test_it_does_not_name_the_bureau_that_a_feed_belongs_to() -> None:
    with pytest.raises(Refusal) as refused:
        authorise(WATER, "push", "power-assets", "power-grid", [], "2026-07-01")
    assert refused.value.detail == "needs: push by the bureau that power-assets belongs to"


def test_of_two_that_began_the_same_day_the_smaller_id_governs() -> None:
    both = (a_grant(id="g2"), a_grant(id="g1"))
    for grants in (both, both[::-1], list(both)):
        assert authorise(WATER, "push", "water-assets", "water", grants, "2026-07-01").id == "g1"


@pytest.mark.parametrize("same", [True, False], ids=["of one target", "of as many targets"])
def test_ten_thousand_grants_of_one_bureau_cost_a_request_nothing(same: bool) -> None:
    many = tuple(
        a_grant(id=f"g{n:05}", target="water-assets" if same else f"feed-{n}", valid_from=f"2026-01-{n % 28 + 1:02}")
        for n in range(10_000)
    )
    target = "water-assets" if same else "feed-9999"
    first = authorise(WATER, "push", target, "water", many, "2026-07-01")
    began_s = time.process_time()
    for _ in range(1000):
        assert authorise(WATER, "push", target, "water", many, "2026-07-01") is first
    assert time.process_time() - began_s < 0.1, "going through them all would take ten times that"


def test_grants_that_were_replaced_are_forgotten() -> None:
    assert authorise(WATER, "push", "water-assets", "water", (a_grant(),), "2026-07-01").id == "g1"
    with pytest.raises(Refusal, match=r"auth\.no_grant"):
        authorise(WATER, "push", "water-assets", "water", (), "2026-07-01")
