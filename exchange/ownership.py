"""Whose is it, on that day, and how do we know? Answered from the claims, which are never flattened."""

from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from typing import Any, Final

import msgspec
import numpy as np

from exchange.entry import CITY_TIME
from exchange.rights import ATTRIBUTES, EVERYTHING, READINGS, View
from exchange.store import asking
from exchange.store.frames import Tie, microseconds, moment
from exchange.store.places import cell_ranges, distance_m
from exchange.store.readings import Latest, latest
from exchange.store.roles import ROLE_NAMES, unit_of, verdict, weigh
from exchange.store.roles import Role as Role
from exchange.store.roles import RoleAnswer as RoleAnswer
from exchange.store.roles import Status as Status
from exchange.store.roles import Unit as Unit
from exchange.store.roles import Verdict as Verdict
from exchange.store.store import Store
from mappings.schema import CLASSES_BETWEEN
from security.errors import Refusal

LARGEST_RADIUS_M: Final = 500.0
IDENTIFIER_DIGITS: Final = 16  # the least that a published identifier has; an internal number never has so many


ROW_ATTRIBUTES: Final = tuple(name for name in ATTRIBUTES if name in asking.Row._fields)

Place = tuple[float, float]  # longitude, latitude, degrees


class Claim(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one bureau said, when, and where the proof lies. valid_to None: it stands. Times aware, UTC.

    entry: index of the delivery's acceptance in the audit log; record: number in that delivery, from 0
    join_distance_m: how far from the component it was when joined by position, None when it founded it
    attributes: what else the record said, by the shared schema's names: place, initial_date, note …
    asserted_by: the bureau that signed it in the sender's name 代报单位, where that was another: "asserted by A for B"
    recalled_at: when its bureau took the delivery back, if it did 已撤回; of a day before, it tells what was known then
    erased_on: the day of the city, YYYY-MM-DD, on which all that it said was erased by decision 内容已销毁
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
    erased_on: str | None = None


class Component(msgspec.Struct, frozen=True, omit_defaults=True):
    """A component as its claims make it. identifier None: pending. `key` is the internal number, never reused.

    Position, accuracy, division and grid come from the claim known longest; the class from the first that is sure of
    one (`0102|0103` until some is); name and state from the one recorded last that has them. With no claim, from the
    one that ended last, and without name and state. readings: only where one component is asked for by itself.
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
    readings: "tuple[Reading, ...]" = ()


class Reading(msgspec.Struct, frozen=True, omit_defaults=True):
    """The latest reading of one quantity that one feed gave, and where the proof lies. Times aware, UTC.

    observed_at: by the gateway's clock; entry: index of the delivery's acceptance in the audit log
    asserted_by: as a claim has it
    """

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


class Disputes(msgspec.Struct, frozen=True):
    """What is open between bureaus, by component number. owners: components whose owner two bureaus state differently;
    ties: claims that may speak of one of several components, which a person must tell apart."""

    owners: tuple[OwnershipAnswer, ...]
    ties: tuple[Tie, ...]


def ownership(store: Store, component: str, on: date | None = None, view: View = EVERYTHING) -> OwnershipAnswer:
    """Whose a component is, now or at the end of a day (+08:00), by what is known today, as a view shows it.

    component: its published identifier, or the internal number in digits. Raises Refusal component.unknown; of what
    the view does not cover, by where it stood then, nobody is told that it exists.
    """
    answer = _looked_up(store, component, on, view)
    if answer is None:
        raise Refusal("component.unknown", component)
    return answer


def _looked_up(store: Store, component: str, on: date | None, view: View) -> OwnershipAnswer | None:
    question = asking.BY_KEY if len(component) < IDENTIFIER_DIGITS else asking.BY_IDENTIFIER
    rows = asking.ask(store.connection(), question, component, None if on is None else _end_of(on))
    if not rows:
        return None
    answer = _answer(rows if view.attributes is None else [_masked(row, view) for row in rows], on)
    found = answer.component
    place = found.longitude_deg, found.latitude_deg
    return answer if view.covers(found.class_code, found.division_code, found.grid_code, *place) else None


def component(store: Store, component: str, view: View = EVERYTHING) -> Component:
    """A component as it stands, with its latest readings. Raises Refusal component.unknown."""
    found = ownership(store, component, None, view).component
    rows = latest(store.connection(), found.key) if view.shows(READINGS) else []
    return msgspec.structs.replace(found, readings=tuple(_reading(row) for row in rows))


def nearest(
    store: Store,
    longitude_deg: float,
    latitude_deg: float,
    radius_m: float,
    class_code: str | None = None,
    on: date | None = None,
    limit: int = 20,
    view: View = EVERYTHING,
) -> tuple[NearAnswer, ...]:
    """Components within radius_m of a place, nearest first, ties by number; on a past day, where they were then.

    A component that nobody had named by that day is left out, and one that the view does not cover, before the nearest
    are counted. Raises Refusal component.radius_too_large above 500 m.
    """
    if not 0 < radius_m <= LARGEST_RADIUS_M:
        raise Refusal("component.radius_too_large", f"{radius_m} m")
    place = (longitude_deg, latitude_deg)
    if on is None:
        return _near_now(store, place, radius_m, class_code, limit, view)
    return _near_then(store, place, radius_m, class_code, on, view)[:limit]


def components(store: Store, after: int, limit: int, chosen: asking.Chosen) -> tuple[Component, ...]:
    """Components after an internal number, at most `limit`, in order of number, without their readings."""
    return tuple(Component(*row) for row in asking.listed(store.connection(), after, limit, chosen))


def disputes(store: Store, after: int, limit: int, view: View = EVERYTHING) -> Disputes:
    """Components after a number that two bureaus claim, or that position alone did not join; at most `limit` of each.

    What a view does not cover is as if it were not there, and what it masks is stated by nobody.
    """
    owners: list[OwnershipAnswer] = []
    at: int | None = after
    while at is not None and len(owners) < limit:
        keys = asking.claimed_differently(store.connection(), at, limit, view)
        answers = (_looked_up(store, str(key), None, view) for key in keys)
        owners += [one for one in answers if one is not None and one.verdict == "two bureaus claim this"]
        at = keys[-1] if len(keys) == limit else None
    return Disputes(tuple(owners[:limit]), tuple(store.ties(view, after, limit)))


def _may_be(class_code: str, wanted: str | None) -> bool:
    return wanted is None or wanted in class_code.split(CLASSES_BETWEEN)


def _near_now(
    store: Store, place: Place, radius_m: float, class_code: str | None, limit: int, view: View
) -> tuple[NearAnswer, ...]:
    """Chosen by where components stand; only those that are answered are asked for their claims."""
    found = asking.around(store.connection(), cell_ranges(*place, radius_m), view)
    wanted = [(key, at) for key, kind, *at in found if _may_be(kind, class_code)]
    distances_m = _distances_m(place, [at for _, at in wanted])
    chosen = sorted((far, key) for far, (key, _) in zip(distances_m, wanted, strict=True) if far <= radius_m)[:limit]
    answers = ((far, _looked_up(store, str(key), None, view)) for far, key in chosen)
    return tuple(NearAnswer(far, answer) for far, answer in answers if answer is not None)


def _near_then(
    store: Store, place: Place, radius_m: float, class_code: str | None, on: date, view: View
) -> tuple[NearAnswer, ...]:
    """Chosen by where each stood on that day, which its claims of that day say."""
    keys = asking.around_then(store.connection(), cell_ranges(*place, radius_m), _end_of(on))
    answers = [one for key in keys if (one := _looked_up(store, str(key), on, view)) is not None]
    stood = [(one.component.longitude_deg, one.component.latitude_deg) for one in answers]
    near = [
        NearAnswer(far, one)
        for far, one in zip(_distances_m(place, stood), answers, strict=True)
        if far <= radius_m and _may_be(one.component.class_code, class_code)
    ]
    return tuple(sorted(near, key=lambda one: (one.distance_m, one.answer.component.key)))


def _distances_m(place: Place, others: Sequence[Sequence[float]]) -> list[float]:
    """Metres from a place to each of the others (longitude, latitude)."""
    there = np.array(others, dtype=np.float64).reshape(-1, 2)
    longitude, latitude = (np.full(len(there), axis) for axis in place)
    far: list[float] = distance_m(longitude, latitude, there[:, 0], there[:, 1]).tolist()
    return far


def _end_of(on: date) -> int:
    """The moment a day ends in the city, as microseconds."""
    before_last = date.max - timedelta(days=1)  # the calendar ends: its last day has no next one
    return microseconds(datetime.combine(min(on, before_last), time(), CITY_TIME) + timedelta(days=1))


def _masked(row: asking.Row, view: View) -> asking.Row:
    """The row without what a view does not show. What is computed from it, verdict and all, is of what is shown."""
    hidden: dict[str, Any] = {name: None for name in ROW_ATTRIBUTES if not view.shows(name)}
    for role in ROLE_NAMES:
        if not (view.shows(f"{role}_code") or view.shows(f"{role}_name")):
            hidden[f"{role}_basis"] = None
    if row.more is not None:
        more = msgspec.json.decode(row.more, type=dict[str, Any])
        shown = {name: value for name, value in more.items() if name not in ATTRIBUTES or view.shows(name)}
        hidden["more"] = msgspec.json.encode(shown).decode()
    return row._replace(**hidden)


def _answer(rows: Sequence[asking.Row], on: date | None) -> OwnershipAnswer:
    """One answer from its rows: the component on each, and a claim on each unless nobody claims it."""
    all_said = [row for row in rows if row.claim is not None]
    said = _counting(all_said)
    claims, counting = tuple(_claim(row) for row in all_said), [_claim(row) for row in said]
    roles = (
        weigh("authority", [claim.authority for claim in counting]),
        weigh("owner", [claim.owner for claim in counting]),
        weigh("maintainer", [claim.maintainer for claim in counting]),
    )
    return OwnershipAnswer(_component(rows[0], said), on, verdict(roles), roles, claims)


def _counting(said: Sequence[asking.Row]) -> list[asking.Row]:
    """The claims that an answer is made of: none whose words were erased, none that its bureau said anew after it had
    recalled it."""
    anew = {row.claim for row in said if row.recalled_at_us is None}
    return [row for row in said if row.erased_on is None and (row.recalled_at_us is None or row.claim not in anew)]


def _component(row: asking.Row, said: Sequence[asking.Row]) -> Component:
    """The component as the claims of the moment make it; where there are none, as it was left."""
    leading = said[0] if said else None
    latest = sorted(said, key=lambda one: one.recorded_at_us, reverse=True)
    return Component(
        key=row.key,
        identifier=row.identifier,
        class_code=_class_of(row, said),
        name=next((one.name for one in latest if one.name is not None), None),
        state=next((one.state for one in latest if one.state is not None), None),
        longitude_deg=leading.claimed_longitude_deg if leading else row.longitude_deg,
        latitude_deg=leading.claimed_latitude_deg if leading else row.latitude_deg,
        accuracy_m=leading.claimed_accuracy_m if leading else row.accuracy_m,
        division_code=leading.claimed_division if leading else row.division_code,
        grid_code=leading.claimed_grid if leading else row.grid_code,
        change_number=row.change_number,
    )


def _class_of(row: asking.Row, said: Sequence[asking.Row]) -> str:
    """The class that the first claim is sure of; none is: what was decided before, for an identifier says it."""
    sure = [code for code in (*(one.claimed_class for one in said), row.class_code) if CLASSES_BETWEEN not in code]
    return sure[0] if sure else row.class_code


def _claim(row: asking.Row) -> Claim:
    return Claim(
        bureau=row.bureau,
        feed=row.feed,
        source_key=row.source_key,
        sender=row.sender,
        message_id=row.message_id,
        record=row.record,
        entry=row.entry,
        evidence_class=row.evidence_class,
        valid_from=moment(row.valid_from_us),
        valid_to=None if row.valid_to_us is None else moment(row.valid_to_us),
        recorded_at=moment(row.recorded_at_us),
        class_code=row.claimed_class,
        longitude_deg=row.claimed_longitude_deg,
        latitude_deg=row.claimed_latitude_deg,
        accuracy_m=row.claimed_accuracy_m,
        join_distance_m=row.join_distance_m,
        name=row.name,
        state=row.state,
        authority=unit_of(row.authority_code, row.authority_name, row.authority_basis),
        owner=unit_of(row.owner_code, row.owner_name, row.owner_basis),
        maintainer=unit_of(row.maintainer_code, row.maintainer_name, row.maintainer_basis),
        attributes=_attributes(row.more),
        asserted_by=row.asserted_by,
        recalled_at=None if row.recalled_at_us is None else moment(row.recalled_at_us),
        erased_on=row.erased_on,
    )


def _reading(row: Latest) -> Reading:
    return Reading(
        quantity=row.quantity,
        value=row.value,
        state=row.state,
        value_unit=row.unit,
        observed_at=moment(row.observed_at_us),
        bureau=row.bureau,
        feed=row.feed,
        sender=row.sender,
        message_id=row.message_id,
        record=row.record,
        entry=row.entry,
        evidence_class=row.evidence_class,
        recorded_at=moment(row.recorded_at_us),
        asserted_by=row.asserted_by,
    )


def _attributes(more: str | None) -> dict[str, str]:
    """What else the record said, by the shared schema's names; numbers as text."""
    said: dict[str, str | float | None] = msgspec.json.decode(more) if more else {}
    return {name: str(value) for name, value in said.items() if value is not None}
