"""May they: default no, own feeds only, whole days of +08:00."""

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
