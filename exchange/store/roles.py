"""Who holds a role, by what the claims of one component say of it. Claims are weighed here and nowhere else."""

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

Role = Literal["authority", "owner", "maintainer"]  # 主管部门, 权属单位, 养护单位
ROLE_NAMES: Final[tuple[Role, Role, Role]] = ("authority", "owner", "maintainer")
Status = Literal["stated", "defaulted", "disputed", "unknown"]
Verdict = Literal["one owner", "two bureaus claim this", "role unknown", "nobody claims this"]
Basis = Literal["stated", "default"]


class Unit(msgspec.Struct, frozen=True):
    """A unit as a bureau names it. basis: `stated` in the record, or `default` of the feed's file."""

    code: str | None
    name: str | None
    basis: Basis


class RoleAnswer(msgspec.Struct, frozen=True):
    """Who holds one role. units: those the status rests on, distinct; none when unknown, several when disputed."""

    role: Role
    status: Status
    units: tuple[Unit, ...]


def unit_of(code: str | None, name: str | None, basis: str | None) -> Unit | None:
    """A unit from its columns; None where neither code nor name is said."""
    if code is None and name is None:
        return None
    return Unit(code, name, "default" if basis == "default" else "stated")


def weigh(role: Role, said: Sequence[Unit | None]) -> RoleAnswer:
    """One role, by what each claim says of it (None: nothing).

    What a record states beats what a feed's file fills in. Among what is left, two units that are not the same are a
    dispute: two with different codes, or, where one has no code, with different names.
    """
    units = [unit for unit in said if unit is not None]
    stated = [unit for unit in units if unit.basis == "stated"]
    weighed = tuple(dict.fromkeys(stated or units))
    if not weighed:
        return RoleAnswer(role, "unknown", ())
    if any(not _same(one, other) for one in weighed for other in weighed):
        return RoleAnswer(role, "disputed", weighed)
    return RoleAnswer(role, "stated" if stated else "defaulted", weighed)


def verdict(roles: Sequence[RoleAnswer]) -> Verdict:
    """The whole in one sentence. A dispute is said before a gap.

    Nobody claims it when no claim names a unit in any role: a cover that a census lists without one is 无主 as much as
    one that no bureau lists any longer.
    """
    statuses = {role.status for role in roles}
    if statuses == {"unknown"}:
        return "nobody claims this"
    if "disputed" in statuses:
        return "two bureaus claim this"
    return "role unknown" if "unknown" in statuses else "one owner"


def _same(one: Unit, other: Unit) -> bool:
    if one.code is not None and other.code is not None:
        return one.code == other.code
    return one.name == other.name
