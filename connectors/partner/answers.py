"""Answers about components as the partner reads them: the contract's elements as frozen, checked types."""

import re
from datetime import date, datetime
from typing import Any, Final, Literal, TypeVar

import msgspec
import zeep.helpers

T = TypeVar("T")
Verdict = Literal["one owner", "two bureaus claim this", "role unknown", "nobody claims this"]

_MANY: Final = {
    "Role": "roles",
    "Claim": "claims",
    "Unit": "units",
    "Reading": "readings",
    "Change": "changes",
}  # elements that may repeat
_WORD: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")


class Unit(msgspec.Struct, frozen=True):
    """A unit as a bureau names it: stated in the record, or the default of the feed's file."""

    code: str | None
    name: str | None
    basis: Literal["stated", "default"]


class Role(msgspec.Struct, frozen=True):
    """Who holds one role: no unit when unknown, several when disputed."""

    role: Literal["authority", "owner", "maintainer"]
    status: Literal["stated", "defaulted", "disputed", "unknown"]
    units: tuple[Unit, ...]


class Claim(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one bureau said, and where the proof lies. entry: index in the audit log; times aware, UTC.

    attributes: what else the record said, by the shared schema's names
    asserted_by: the bureau that signed it in the sender's name, where that was another
    recalled_at: when its bureau took the delivery back; erased_on: when its content was erased by decision
    """

    bureau: str
    feed: str
    source_key: str
    sender: str
    message_id: str
    record: int
    entry: int
    evidence_class: str
    valid_from: datetime
    valid_to: datetime | None
    recorded_at: datetime
    class_code: str
    longitude_deg: float
    latitude_deg: float
    accuracy_m: float
    join_distance_m: float | None
    name: str | None
    state: str | None
    authority: Unit | None
    owner: Unit | None
    maintainer: Unit | None
    attributes: dict[str, str]
    asserted_by: str | None = None
    recalled_at: datetime | None = None
    erased_on: date | None = None


class Reading(msgspec.Struct, frozen=True, omit_defaults=True):
    """The latest reading of one quantity that one feed gave, and where the proof lies. observed_at: by its gateway."""

    quantity: str
    value: float | None
    state: str | None
    value_unit: str | None
    observed_at: datetime
    bureau: str
    feed: str
    sender: str
    message_id: str
    record: int
    entry: int
    evidence_class: str
    recorded_at: datetime
    asserted_by: str | None = None


class Component(msgspec.Struct, frozen=True, omit_defaults=True):
    """A component. identifier None: pending; positions in degrees of EPSG:4490.

    readings: the latest of each quantity and feed, where the component was asked for by itself
    """

    key: int
    identifier: str | None
    class_code: str
    name: str | None
    state: str | None
    longitude_deg: float
    latitude_deg: float
    accuracy_m: float
    division_code: str | None
    grid_code: str | None
    change_number: int
    readings: tuple[Reading, ...] = ()


class Ownership(msgspec.Struct, frozen=True):
    """Whose a component is. on: the day asked for, None for now."""

    component: Component
    on: date | None
    verdict: Verdict
    roles: tuple[Role, ...]
    claims: tuple[Claim, ...]


class Near(msgspec.Struct, frozen=True):
    """A component around a place, and how far it lies from it, metres on the ground."""

    distance_m: float
    ownership: Ownership


class Change(msgspec.Struct, frozen=True):
    """What happened to a component last. component: its identifier, None while pending; key: the internal number."""

    component: str | None
    key: int
    change_number: int
    kind: Literal["new", "changed", "orphaned", "recalled"]


class Changes(msgspec.Struct, frozen=True):
    """Each component once, in order of change number. next: what to ask after next time; as asked when none came."""

    changes: tuple[Change, ...]
    next: int


def typed(answer: object, kind: type[T]) -> T:
    """What zeep read, as one of the types above."""
    plain: Any = zeep.helpers.serialize_object(answer, dict)  # type: ignore[no-untyped-call]  # zeep says no types
    return msgspec.convert(_named(plain), kind)


def _named(value: Any) -> Any:
    """The contract's names as Python spells them, `JoinDistanceM` as `join_distance_m`; `Attribute`s as one mapping."""
    if isinstance(value, list):
        return [_named(one) for one in value]
    if isinstance(value, dict):
        named: dict[str, Any] = {
            _MANY.get(name) or _WORD.sub("_", name).lower(): _named(one) for name, one in value.items()
        }
        if "attribute" in named:
            named["attributes"] = {one["name"]: one["_value_1"] or "" for one in named.pop("attribute")}
        return named
    return value
