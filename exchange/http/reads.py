"""What a grant lets its holder see of components: the same for SOAP and REST."""

from datetime import date

from exchange.bus import Bus
from exchange.map_area import Measured, largest_km2, refuse_larger
from exchange.ownership import (
    Component,
    Disputes,
    NearAnswer,
    OwnershipAnswer,
    component,
    components,
    disputes,
    nearest,
    ownership,
)
from exchange.publication import Changes, changes_after
from exchange.rights import View, refuse_masked
from exchange.store import asking
from security.message import Grant


def ownership_within(grant: Grant, key: str, on: date | None, bus: Bus) -> OwnershipAnswer:
    """Whose a component is. Raises Refusal `component.unknown`, also where the grant does not cover it."""
    return ownership(bus.store, key, on, View.of(grant))


def component_within(grant: Grant, key: str, bus: Bus) -> Component:
    """A component. Raises Refusal `component.unknown`, also where the grant does not cover it."""
    return component(bus.store, key, View.of(grant))


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
    place = longitude_deg, latitude_deg
    return nearest(bus.store, *place, radius_m, class_code, on, view=View.of(grant))


def components_within(
    grant: Grant,
    after: int,
    limit: int,
    class_code: str | None,
    state: str | None,
    bus: Bus,
    measured: Measured,
) -> tuple[Component, ...]:
    """A page of the components that the grant covers, of a class and in a state where these are asked for.

    Raises Refusal `grant.attribute_masked`; `export.area_too_large`, on every page, by what all pages come to.
    """
    view = View.of(grant)
    if state is not None:
        refuse_masked(view, "state", grant)
    chosen = asking.Chosen(view, class_code, state)
    km2 = measured.km2(
        (grant.id, class_code, state),
        lambda: largest_km2(asking.cells(bus.store.connection(), chosen)),
        bus.clock().timestamp(),
    )
    refuse_larger(km2, bus.limits.map_area_km2, [grant], "export.area_too_large")
    return components(bus.store, after, limit, chosen)


def disputes_within(grant: Grant, after: int, limit: int, bus: Bus) -> Disputes:
    """What is open between bureaus about components that the grant covers."""
    return disputes(bus.store, after, limit, View.of(grant))


def changes_within(grant: Grant, after: int, limit: int, bus: Bus) -> Changes:
    """What happened after a change number to the components that the grant covers."""
    return changes_after(bus.store, after, limit, View.of(grant))
