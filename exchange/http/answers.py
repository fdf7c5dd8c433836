"""Answers about components, as XML after the contract. JSON is the structs themselves."""

from lxml import etree

from exchange.http.envelopes import instant, put
from exchange.ownership import Claim, Component, NearAnswer, OwnershipAnswer, Reading, RoleAnswer, Unit
from exchange.publication import Changes


def put_component(parent: etree._Element, component: Component) -> None:
    """`Component`."""
    element = put(parent, "Component")
    put(element, "Key", str(component.key))
    _put_if(element, "Identifier", component.identifier)
    put(element, "ClassCode", component.class_code)
    _put_if(element, "Name", component.name)
    _put_if(element, "State", component.state)
    put(element, "LongitudeDeg", repr(component.longitude_deg))
    put(element, "LatitudeDeg", repr(component.latitude_deg))
    put(element, "AccuracyM", repr(component.accuracy_m))
    _put_if(element, "DivisionCode", component.division_code)
    _put_if(element, "GridCode", component.grid_code)
    put(element, "ChangeNumber", str(component.change_number))
    for reading in component.readings:
        _put_reading(element, reading)


def put_ownership(parent: etree._Element, answer: OwnershipAnswer) -> None:
    """`Ownership`: the component, the verdict, who holds each role, and every claim with its proof."""
    element = put(parent, "Ownership")
    put_component(element, answer.component)
    _put_if(element, "On", answer.on.isoformat() if answer.on else None)
    put(element, "Verdict", answer.verdict)
    for role in answer.roles:
        _put_role(element, role)
    for claim in answer.claims:
        _put_claim(element, claim)


def put_near(parent: etree._Element, near: NearAnswer) -> None:
    """`Near`: a distance and an `Ownership`."""
    element = put(parent, "Near")
    put(element, "DistanceM", repr(near.distance_m))
    put_ownership(element, near.answer)


def put_changes(parent: etree._Element, page: Changes) -> None:
    """`Change`, many, and `Next`."""
    for change in page.changes:
        element = put(parent, "Change")
        _put_if(element, "Component", change.component)
        put(element, "Key", str(change.key))
        put(element, "ChangeNumber", str(change.change_number))
        put(element, "Kind", change.kind)
    put(parent, "Next", str(page.next))


def _put_reading(parent: etree._Element, reading: Reading) -> None:
    element = put(parent, "Reading")
    put(element, "Quantity", reading.quantity)
    _put_if(element, "Value", None if reading.value is None else repr(reading.value))
    _put_if(element, "State", reading.state)
    _put_if(element, "ValueUnit", reading.value_unit)
    put(element, "ObservedAt", instant(reading.observed_at))
    put(element, "Bureau", reading.bureau)
    put(element, "Feed", reading.feed)
    put(element, "Sender", reading.sender)
    _put_if(element, "AssertedBy", reading.asserted_by)
    put(element, "MessageId", reading.message_id)
    put(element, "Record", str(reading.record))
    put(element, "Entry", str(reading.entry))
    put(element, "EvidenceClass", reading.evidence_class)
    put(element, "RecordedAt", instant(reading.recorded_at))


def _put_role(parent: etree._Element, role: RoleAnswer) -> None:
    element = put(parent, "Role")
    element.set("role", role.role)
    element.set("status", role.status)
    for unit in role.units:
        _put_unit(element, "Unit", unit)


def _put_claim(parent: etree._Element, claim: Claim) -> None:
    element = put(parent, "Claim")
    put(element, "Bureau", claim.bureau)
    put(element, "Feed", claim.feed)
    put(element, "SourceKey", claim.source_key)
    put(element, "Sender", claim.sender)
    _put_if(element, "AssertedBy", claim.asserted_by)
    put(element, "MessageId", claim.message_id)
    put(element, "Record", str(claim.record))
    put(element, "Entry", str(claim.entry))
    put(element, "EvidenceClass", claim.evidence_class)
    put(element, "ValidFrom", instant(claim.valid_from))
    _put_if(element, "ValidTo", instant(claim.valid_to) if claim.valid_to else None)
    put(element, "RecordedAt", instant(claim.recorded_at))
    _put_if(element, "RecalledAt", instant(claim.recalled_at) if claim.recalled_at else None)
    _put_if(element, "ErasedOn", claim.erased_on)
    put(element, "ClassCode", claim.class_code)
    put(element, "LongitudeDeg", repr(claim.longitude_deg))
    put(element, "LatitudeDeg", repr(claim.latitude_deg))
    put(element, "AccuracyM", repr(claim.accuracy_m))
    _put_if(element, "JoinDistanceM", None if claim.join_distance_m is None else repr(claim.join_distance_m))
    _put_if(element, "Name", claim.name)
    _put_if(element, "State", claim.state)
    for name, unit in (("Authority", claim.authority), ("Owner", claim.owner), ("Maintainer", claim.maintainer)):
        if unit is not None:
            _put_unit(element, name, unit)
    for name, text in claim.attributes.items():
        put(element, "Attribute", text).set("name", name)


def _put_unit(parent: etree._Element, name: str, unit: Unit) -> None:
    element = put(parent, name)
    _put_if(element, "Code", unit.code)
    _put_if(element, "Name", unit.name)
    element.set("basis", unit.basis)


def _put_if(parent: etree._Element, name: str, text: str | None) -> None:
    if text is not None:
        put(parent, name, text)
