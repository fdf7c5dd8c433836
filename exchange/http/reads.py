"""What a grant lets its holder see of components: the same for SOAP and REST."""

from datetime import date

from exchange.bus import Bus
from exchange.ownership import (
    Component,
    Disputes,
    NearAnswer,
    OwnershipAnswer,
    component,
    disputes,
    nearest,
    ownership,
)
from exchange.publication import Changes, changes_after
from mappings.schema import CLASSES_BETWEEN
from security.errors import Refusal
from security.message import Grant


def ownership_within(grant: Grant, key: str, on: date | None, bus: Bus) -> OwnershipAnswer:
    """Whose a component is. Raises Refusal `component.unknown`, also where the grant does not cover its class."""
    answer = ownership(bus.store, key, on)
    _refuse_outside(grant, answer.component, key)
    return answer


def component_within(grant: Grant, key: str, bus: Bus) -> Component:
    """A component. Raises Refusal `component.unknown`, also where the grant does not cover its class."""
    found = component(bus.store, key)
    _refuse_outside(grant, found, key)
    return found


def nearest_within(
    grant: Grant,
    longitude_deg: float,
    latitude_deg: float,
    radius_m: float,
    class_code: str | None,
    on: date | None,
    bus: Bus,
) -> tuple[NearAnswer, ...]:
    """Components around a place that the grant covers, nearest first."""
    found = nearest(bus.store, longitude_deg, latitude_deg, radius_m, class_code, on)
    return tuple(near for near in found if _covers(grant, near.answer.component.class_code))


def disputes_within(grant: Grant, after: int, limit: int, bus: Bus) -> Disputes:
    """What is open between bureaus about components that the grant covers."""
    return disputes(bus.store, after, limit, lambda found: _covers(grant, found.class_code))


def changes_within(grant: Grant, after: int, limit: int, bus: Bus) -> Changes:
    """What happened after a change number to the components that the grant covers."""
    return changes_after(bus.store, after, limit, grant.classes)


def _refuse_outside(grant: Grant, found: Component, key: str) -> None:
    # "Unknown", not "not yours": a narrow grant must not tell which numbers exist.
    if not _covers(grant, found.class_code):
        raise Refusal("component.unknown", key)


def _covers(grant: Grant, class_code: str) -> bool:
    """Whether the grant covers the class, or every one of a set that is undecided."""
    granted = {code.rpartition(":")[2] for code in grant.classes}
    return not granted or {*class_code.split(CLASSES_BETWEEN)} <= granted
