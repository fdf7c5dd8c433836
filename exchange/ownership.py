"""Whose is it, on that day, and how do we know? Answered from the claims, which are never flattened."""

from datetime import date, datetime
from typing import Literal

import msgspec

from exchange.store.sqlite import Store

Role = Literal["authority", "owner", "maintainer"]  # 主管部门, 权属单位, 养护单位
Status = Literal["stated", "defaulted", "disputed", "unknown"]
Verdict = Literal["one owner", "two bureaus claim this", "role unknown", "nobody claims this"]


class Unit(msgspec.Struct, frozen=True):
    """A unit as a bureau names it. basis: `stated` in the record, or `default` of the feed's file."""

    code: str | None
    name: str | None
    basis: Literal["stated", "default"]


class RoleAnswer(msgspec.Struct, frozen=True):
    """Who holds one role. units: those the status rests on, distinct; none when unknown, several when disputed."""

    role: Role
    status: Status
    units: tuple[Unit, ...]


class Claim(msgspec.Struct, frozen=True):
    """What one bureau said, when, and where the proof lies. valid_to None: it stands. Times aware, UTC.

    entry: index of the delivery's acceptance in the audit log; record: number in that delivery, from 0
    join_distance_m: how far from the component it was when joined by position, None when it founded it
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


class Component(msgspec.Struct, frozen=True):
    """A component as its claims make it. identifier None: pending. `key` is the internal number, never reused.

    Position, class, accuracy, division and grid come from the claim known longest; name and state from the one recorded
    last that has them.
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


class OwnershipAnswer(msgspec.Struct, frozen=True):
    """Whose it is. on: the day asked for, None for now. claims: those that were valid then, known longest first."""

    component: Component
    on: date | None
    verdict: Verdict
    roles: tuple[RoleAnswer, RoleAnswer, RoleAnswer]
    claims: tuple[Claim, ...]


class NearAnswer(msgspec.Struct, frozen=True):
    """A component found around a place, and how far it lies from it, metres on the ground."""

    distance_m: float
    answer: OwnershipAnswer


def ownership(store: Store, component: str, on: date | None = None) -> OwnershipAnswer:
    """Whose a component is, now or at the end of a day (+08:00).

    component: its published identifier, or the internal number in digits. Raises Refusal component.unknown.
    """
    raise NotImplementedError


def component(store: Store, component: str) -> Component:
    """A component as it stands. Raises Refusal component.unknown."""
    raise NotImplementedError


def nearest(
    store: Store,
    longitude_deg: float,
    latitude_deg: float,
    radius_m: float,
    class_code: str | None = None,
    on: date | None = None,
    limit: int = 20,
) -> tuple[NearAnswer, ...]:
    """Components within radius_m of a place, nearest first, ties by number; on a past day, where they were then.

    Raises Refusal component.radius_too_large above 500 m.
    """
    raise NotImplementedError
