"""The operations of the contract: each calls its story and gives the answer element, not yet signed."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import date
from typing import Final

from lxml import etree

from exchange.bus import Bus
from exchange.http.answers import put_changes, put_component, put_near, put_ownership
from exchange.http.envelopes import Version, answer_to, put, put_consistency
from exchange.http.proofs import checkpoint_size, document_tree_size
from exchange.http.reads import changes_within, component_within, nearest_within, ownership_within
from exchange.intake import Admitted, admit, receive
from exchange.publication import USUAL, VIEW
from security.errors import Refusal
from security.message import Delivery
from security.wss import VerifiedEnvelope

Operation = Callable[[Delivery, Version, Bus], Awaitable[etree._Element]]


async def submit_delivery(delivery: Delivery, version: Version, bus: Bus) -> etree._Element:
    """`SubmitDelivery`: act one; the answer carries the receipt, and what the sender's last checkpoint asks for."""
    received = await receive(delivery, bus)
    verified = received.verified
    assert isinstance(verified, VerifiedEnvelope)  # as this door handed it in
    answer = answer_to(verified, version, now=bus.clock(), recipient=verified.signer.bureau)
    receipt = received.inbox.receipt
    assert receipt is not None  # `receive` waits for it
    put(answer, "Receipt", receipt.decode("ascii"))
    _put_consistency(answer, verified, document_tree_size(receipt), bus)
    return answer


async def get_receipt(delivery: Delivery, version: Version, bus: Bus) -> etree._Element:
    """`GetReceipt`: one's own receipt, bit for bit."""
    admitted, verified = await _admitted(delivery, bus, "deliveries", "GetReceipt")
    message_id = verified.text("DeliveryMessageId")
    receipt = bus.journal.receipt(admitted.principal.bureau, message_id)
    if receipt is None:
        raise Refusal("delivery.unknown", message_id)
    answer = answer_to(verified, version, now=bus.clock(), recipient=admitted.principal.bureau)
    put(answer, "Receipt", receipt.decode("ascii"))
    _put_consistency(answer, verified, document_tree_size(receipt), bus)
    return answer


async def get_report(delivery: Delivery, version: Version, bus: Bus) -> etree._Element:
    """`GetReport`: what became of one's own delivery, with its report once there is one."""
    admitted, verified = await _admitted(delivery, bus, "deliveries", "GetReport")
    sender, message_id = admitted.principal.bureau, verified.text("DeliveryMessageId")
    row = bus.journal.inbox(sender, message_id)
    if row is None:
        raise Refusal("delivery.unknown", message_id)
    answer = answer_to(verified, version, now=bus.clock(), recipient=sender)
    put(answer, "Status", row.status)
    report = bus.journal.report(sender, message_id)
    if report is not None:
        put(answer, "Report", report.decode("ascii"))
        _put_consistency(answer, verified, document_tree_size(report), bus)
    return answer


async def get_checkpoint(delivery: Delivery, version: Version, bus: Bus) -> etree._Element:
    """`GetCheckpoint`: the newest signed head, consistent with the one the caller knows."""
    admitted, verified = await _admitted(delivery, bus, "deliveries", "GetCheckpoint")
    checkpoint = bus.journal.checkpoint()
    answer = answer_to(verified, version, now=bus.clock(), recipient=admitted.principal.bureau)
    put(answer, "Checkpoint", checkpoint)
    _put_consistency(answer, verified, checkpoint_size(checkpoint), bus)
    return answer


async def get_ownership(delivery: Delivery, version: Version, bus: Bus) -> etree._Element:
    """`GetOwnership`: whose is it, on that day, and how do we know."""
    admitted, verified = await _admitted(delivery, bus, "ownership", "GetOwnership")
    owned = ownership_within(admitted.grant, verified.text("ComponentId"), _day(verified), bus)
    answer = answer_to(verified, version, now=bus.clock(), recipient=admitted.principal.bureau)
    put_ownership(answer, owned)
    return answer


async def get_component(delivery: Delivery, version: Version, bus: Bus) -> etree._Element:
    """`GetComponent`: one component."""
    admitted, verified = await _admitted(delivery, bus, "components", "GetComponent")
    found = component_within(admitted.grant, verified.text("ComponentId"), bus)
    answer = answer_to(verified, version, now=bus.clock(), recipient=admitted.principal.bureau)
    put_component(answer, found)
    return answer


async def find_nearest(delivery: Delivery, version: Version, bus: Bus) -> etree._Element:
    """`FindNearest`: components around a place, and whose they are; therefore under the view `ownership`."""
    admitted, verified = await _admitted(delivery, bus, "ownership", "FindNearest")
    found = nearest_within(
        admitted.grant,
        float(verified.text("LongitudeDeg")),
        float(verified.text("LatitudeDeg")),
        float(verified.text("RadiusM")),
        verified.text("ClassCode") or None,
        _day(verified),
        bus,
    )
    answer = answer_to(verified, version, now=bus.clock(), recipient=admitted.principal.bureau)
    for near in found:
        put_near(answer, near)
    return answer


async def get_changes(delivery: Delivery, version: Version, bus: Bus) -> etree._Element:
    """`GetChanges`: what happened to components after a change number."""
    admitted, verified = await _admitted(delivery, bus, VIEW, "GetChanges")
    limit = int(verified.text("Limit") or USUAL)
    page = changes_within(admitted.grant, int(verified.text("After")), limit, bus)
    answer = answer_to(verified, version, now=bus.clock(), recipient=admitted.principal.bureau)
    put_changes(answer, page)
    return answer


OPERATIONS: Final[Mapping[str, Mapping[str, Operation]]] = {
    "feeds": {
        "SubmitDelivery": submit_delivery,
        "GetReceipt": get_receipt,
        "GetReport": get_report,
        "GetCheckpoint": get_checkpoint,
    },
    "components": {
        "GetOwnership": get_ownership,
        "GetComponent": get_component,
        "FindNearest": find_nearest,
        "GetChanges": get_changes,
    },
}


async def _admitted(delivery: Delivery, bus: Bus, view: str, operation: str) -> tuple[Admitted, VerifiedEnvelope]:
    """A signed read let in. Raises Refusal; `soap.action_mismatch` when the signed Body asks for something else."""
    admitted = await admit(delivery, bus, view)
    verified = admitted.verified
    assert verified is not None  # only an unsigned read has none
    if verified.operation != operation:
        raise Refusal("soap.action_mismatch", f"{operation} / {verified.operation}")
    return admitted, verified


def _put_consistency(answer: etree._Element, verified: VerifiedEnvelope, size: int, bus: Bus) -> None:
    """That the log the caller knows and the head in this answer are one log, the smaller first.

    A caller who knows more than the log holds gets no proof, and his own check then says that entries are gone.
    """
    known = int(verified.text("KnownTreeSize") or 0)
    first, second = min(known, size), max(known, size)
    if first > 0 and second <= checkpoint_size(bus.journal.checkpoint()):
        put_consistency(answer, first, second, bus.journal.consistency(first, second))


def _day(verified: VerifiedEnvelope) -> date | None:
    text = verified.text("On")
    return date.fromisoformat(text) if text else None
