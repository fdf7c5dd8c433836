"""Answers about components as the partner reads them: the contract's elements as frozen, checked types."""

from datetime import date, datetime
from typing import Any, Literal, TypeVar

import msgspec
import zeep.helpers

T = TypeVar("T")
Verdict = Literal["one owner", "two bureaus claim this", "role unknown", "nobody claims this"]


class Unit(msgspec.Struct, frozen=True):
    """A unit as a bureau names it: stated in the record, or the default of the feed's file."""

    basis: Literal["stated", "default"]
    code: str | None = msgspec.field(name="Code", default=None)
    name: str | None = msgspec.field(name="Name", default=None)


class Role(msgspec.Struct, frozen=True):
    """Who holds one role: no unit when unknown, several when disputed."""

    role: Literal["authority", "owner", "maintainer"]
    status: Literal["stated", "defaulted", "disputed", "unknown"]
    units: tuple[Unit, ...] = msgspec.field(name="Unit", default=())


class Claim(msgspec.Struct, frozen=True, rename="pascal"):
    """What one bureau said, and where the proof lies. entry: index in the audit log; times aware, UTC."""

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
    accuracy_m: float = msgspec.field(name="AccuracyM")
    join_distance_m: float | None = msgspec.field(name="JoinDistanceM")
    name: str | None
    state: str | None
    authority: Unit | None
    owner: Unit | None
    maintainer: Unit | None


class Component(msgspec.Struct, frozen=True, rename="pascal"):
    """A component. identifier None: pending; positions in degrees of EPSG:4490."""

    key: int
    identifier: str | None
    class_code: str
    name: str | None
    state: str | None
    longitude_deg: float
    latitude_deg: float
    accuracy_m: float = msgspec.field(name="AccuracyM")
    division_code: str | None
    grid_code: str | None
    change_number: int


class Ownership(msgspec.Struct, frozen=True, rename="pascal"):
    """Whose a component is. on: the day asked for, None for now."""

    component: Component
    on: date | None
    verdict: Verdict
    roles: tuple[Role, ...] = msgspec.field(name="Role")
    claims: tuple[Claim, ...] = msgspec.field(name="Claim")


class Near(msgspec.Struct, frozen=True, rename="pascal"):
    """A component around a place, and how far it lies from it, metres on the ground."""

    distance_m: float = msgspec.field(name="DistanceM")
    ownership: Ownership


def typed(answer: object, kind: type[T]) -> T:
    """What zeep read, as one of the types above."""
    plain: Any = zeep.helpers.serialize_object(answer, dict)  # type: ignore[no-untyped-call]  # zeep says no types
    return msgspec.convert(plain, kind)
