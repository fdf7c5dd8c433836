"""The operations of the contract: each calls its story and gives the answer element, not yet signed."""

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping
from datetime import date
from typing import Final

import msgspec
from lxml import etree

from connectors.transports.multipart import put_together
from exchange.bus import Bus
from exchange.entry import Erased
from exchange.http.answers import put_changes, put_component, put_near, put_ownership
from exchange.http.envelopes import Version, answer_to, put
from exchange.http.own_entries import USUAL as ENTRIES
from exchange.http.own_entries import own_entries
from exchange.http.proofs import checkpoint_size, document_tree_size, put_known_consistency
from exchange.http.reads import changes_within, component_within, nearest_within, ownership_within
from exchange.http.uploading import begin_upload, upload_chunk
from exchange.intake import Admitted, Received, admit, recall, receive
from exchange.publication import USUAL, VIEW
from security.errors import Refusal, Unavailable
from security.message import Delivery
from security.wss import VerifiedEnvelope, open_envelope

Operation = Callable[[Delivery, Version, Bus], Awaitable[etree._Element]]


async def submit_delivery(delivery: Delivery, version: Version, bus: Bus) -> etree._Element:
    """`SubmitDelivery`: act one; the answer carries the receipt, and what the sender's last checkpoint asks for."""
    return _receipted(await receive(delivery, bus), version, bus)


async def complete_upload(delivery: Delivery, version: Version, bus: Bus) -> etree._Element:
    """`CompleteUpload`: act one of a delivery whose content came before. Its evidence is this envelope with it."""
    id = open_envelope(delivery.envelope).claimed("UploadId")  # of this signer, and for this delivery: see `opened`
    try:
        content = await asyncio.to_thread(bus.uploads.whole, id)
        raw = await asyncio.to_thread(put_together, delivery.envelope, content)
    except OSError as problem:  # the disk; or the same was completed by another request meanwhile
        raise Unavailable(f"upload {id} cannot be read: {problem}") from problem
    whole = msgspec.structs.replace(delivery, raw=raw, attachment=content, attachment_id="")
    received = await receive(whole, bus)
    await asyncio.to_thread(bus.uploads.end, id)
    return _receipted(received, version, bus)


def _receipted(received: Received, version: Version, bus: Bus) -> etree._Element:
    """The answer to a delivery: its receipt, and that the log which the sender knows goes on in it."""
    verified = received.verified
    assert isinstance(verified, VerifiedEnvelope)  # as this door handed it in
    answer = answer_to(verified, version, now=bus.clock(), recipient=verified.signer.bureau)
    receipt = received.inbox.receipt
    assert receipt is not None  # `receive` waits for it
    put(answer, "Receipt", receipt.decode("ascii"))
    put_known_consistency(answer, verified, document_tree_size(receipt), bus)
    return answer


async def recall_delivery(delivery: Delivery, version: Version, bus: Bus) -> etree._Element:
    """`RecallDelivery`: take one's own delivery back; the answer carries the signed report that says so, for ever."""
    verified, _, report = await recall(delivery, bus)
    answer = answer_to(verified, version, now=bus.clock(), recipient=verified.signer.bureau)
    put(answer, "Report", report.decode("ascii"))
    put_known_consistency(answer, verified, document_tree_size(report), bus)
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
    row = bus.journal.inbox(admitted.principal.bureau, message_id)
    _put_erased(answer, bus.journal.content_erased(row) if row else None)
    put_known_consistency(answer, verified, document_tree_size(receipt), bus)
    return answer


def _put_erased(answer: etree._Element, erased: Erased | None) -> None:
    """`ContentErasedOn`, where the content of a delivery was erased by decision."""
    if erased is not None:
        put(answer, "ContentErasedOn", erased.day)


async def get_report(delivery: Delivery, version: Version, bus: Bus) -> etree._Element:
    """`GetReport`: what became of one's own delivery, with its report once there is one."""
    admitted, verified = await _admitted(delivery, bus, "deliveries", "GetReport")
    sender, message_id = admitted.principal.bureau, verified.text("DeliveryMessageId")
    report = bus.journal.report(sender, message_id)  # before its status, which goes ahead of it
    row = bus.journal.inbox(sender, message_id)
    if row is None:
        raise Refusal("delivery.unknown", message_id)
    answer = answer_to(verified, version, now=bus.clock(), recipient=sender)
    erased = bus.journal.content_erased(row)
    # Finished is a delivery when its report is signed: who asks until it no longer waits gets the report then.
    put(answer, "Status", row.status if report is not None or erased is not None else "waiting")
    _put_erased(answer, erased)
    if report is not None:
        put(answer, "Report", report.decode("ascii"))
        put_known_consistency(answer, verified, document_tree_size(report), bus)
    return answer


async def get_checkpoint(delivery: Delivery, version: Version, bus: Bus) -> etree._Element:
    """`GetCheckpoint`: the newest signed head, consistent with the one the caller knows."""
    admitted, verified = await _admitted(delivery, bus, "deliveries", "GetCheckpoint")
    checkpoint = bus.journal.checkpoint()
    answer = answer_to(verified, version, now=bus.clock(), recipient=admitted.principal.bureau)
    put(answer, "Checkpoint", checkpoint)
    put_known_consistency(answer, verified, checkpoint_size(checkpoint), bus)
    return answer


async def get_my_entries(delivery: Delivery, version: Version, bus: Bus) -> etree._Element:
    """`GetMyEntries`: what the log holds in the caller's own name, and how much of it there is."""
    admitted, verified = await _admitted(delivery, bus, "deliveries", "GetMyEntries")
    after, limit = int(verified.text("After") or 0), int(verified.text("Limit") or ENTRIES)
    page = await asyncio.to_thread(own_entries, admitted.principal.bureau, after, limit, bus)
    answer = answer_to(verified, version, now=bus.clock(), recipient=admitted.principal.bureau)
    put(answer, "Count", str(page.count))
    for entry in page.entries:
        element = put(answer, "Entry")
        element.set("number", str(entry.index))
        put(element, "Leaf", base64.b64encode(entry.leaf).decode())
        if entry.salt is not None and entry.detail is not None:
            put(element, "Salt", entry.salt.hex())
            put(element, "Detail", base64.b64encode(entry.detail).decode())
    put(answer, "Next", str(page.next))
    put(answer, "Checkpoint", page.checkpoint)
    put_known_consistency(answer, verified, checkpoint_size(page.checkpoint), bus)
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
        "BeginUpload": begin_upload,
        "UploadChunk": upload_chunk,
        "CompleteUpload": complete_upload,
        "RecallDelivery": recall_delivery,
        "GetReceipt": get_receipt,
        "GetReport": get_report,
        "GetCheckpoint": get_checkpoint,
        "GetMyEntries": get_my_entries,
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


def _day(verified: VerifiedEnvelope) -> date | None:
    text = verified.text("On")
    return date.fromisoformat(text) if text else None
