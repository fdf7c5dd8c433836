"""销毁 What two persons decided to erase, carried out: bytes, data key, detail and salt, and what the store says of it.

Its entries stay in the tree, its receipt goes on verifying, and both say on which day the content was erased. In
order: original bytes, store, one entry with all that the journal forgets, both files made anew, the decision carried
out. A crash in between leaves a decision that is carried out again; what is gone already is passed over.
"""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import partial

import msgspec

from exchange import log_index
from exchange.bus import Bus
from exchange.database import FAILURES, Cursor
from exchange.decision_documents import ErasureBody, Officer
from exchange.entry import CITY_TIME, ERASURE, Entry, InboxRow, begin_of, day_of, instant
from exchange.evidence import is_erased
from exchange.faults import durable_step
from security.errors import AuditBroken, Refusal, Unavailable


class Due(msgspec.Struct, frozen=True):
    """What is past its time. evidence_before, details_before: days of the city, YYYY-MM-DD.

    deliveries: whose original bytes are older; details: of entries that are older
    """

    evidence_before: str
    details_before: str
    deliveries: int
    details: int


class Erased(msgspec.Struct, frozen=True):
    """What was erased. rows: the deliveries whose bytes are gone; details: how many entries' details."""

    body: ErasureBody
    rows: tuple[InboxRow, ...]
    details: int


def due(bus: Bus, evidence_days: int, audit_detail_days: int) -> Due:
    """What is past its time today."""
    today = bus.clock().astimezone(CITY_TIME).date()
    days = [(today - timedelta(days=kept)).isoformat() for kept in (evidence_days, audit_detail_days)]
    return Due(
        evidence_before=days[0],
        details_before=days[1],
        deliveries=len(bus.journal.evidence_before(begin_of(days[0]))),
        details=len(bus.journal.details_before(begin_of(days[1]))),
    )


def carry_out(decision: str, by: Officer, bus: Bus) -> Erased:
    """Erase what two persons decided on, by the person whose office it is.

    Raises Refusal `decision.not_in_force`, also once it was carried out; `role.not_held`, `delivery.unknown`;
    AuditBroken where the bytes lie elsewhere than their entry says: then nothing was erased.
    """
    body = bus.registry.decided_erasure(decision, by)
    with bus.store.turn():
        return _carried_out(decision, body, by, bus)


def _carried_out(decision: str, body: ErasureBody, by: Officer, bus: Bus) -> Erased:
    rows = _deliveries(body, bus)
    for row in rows:
        _check_location(row, bus)
    durable_step("erasure.bytes:before")
    for row in rows:
        _destroy_bytes(row, bus)
    durable_step("erasure.store:before")
    now = bus.clock()
    if body.reason != "retention":  # what stands in the register is no message: by its age alone it does not go
        for row in rows:
            bus.store.erase(row.sender, row.message_id, now, day_of(instant(now)))
    durable_step("erasure.note:before")
    details = _details(body, rows, bus)
    if details or not all(is_erased(row.evidence) for row in rows):
        entry = Entry(
            type=ERASURE,
            outcome=body.reason,
            actor=bus.registry.person(by.key.public_key).pseudonym,
            trust_digest=bus.registry.trust().digest,
            detail={"of": decision, "entries": ranges_text(details), "deliveries": len(rows)},
        )
        bus.journal.note(entry, partial(_forget, decision, rows, details)).result()
    durable_step("erasure.scrub:before")
    try:
        bus.journal.database.scrub()
        bus.store.scrub()
    except FAILURES as problem:
        raise Unavailable(f"what was erased may still stand in the files' free space: {problem}") from problem
    durable_step("erasure.carry:before")
    bus.registry.carry_out(decision, by)
    durable_step("erasure.carry:after")
    return Erased(body, rows, len(details))


def ranges_text(numbers: Sequence[int]) -> str:
    """Numbers in ascending order, as `3-9 12`."""
    pieces: list[list[int]] = []
    for number in numbers:
        if pieces and number == pieces[-1][-1] + 1:
            pieces[-1][1:] = [number]
        else:
            pieces.append([number])
    return " ".join("-".join(map(str, piece)) for piece in pieces)


def _deliveries(body: ErasureBody, bus: Bus) -> tuple[InboxRow, ...]:
    if body.reason == "retention":
        return tuple(bus.journal.evidence_before(begin_of(body.evidence_before)))
    row = bus.journal.inbox(body.sender, body.message_id)
    if row is None:
        raise Refusal("delivery.unknown", body.message_id)
    return (row,)


def _details(body: ErasureBody, rows: Iterable[InboxRow], bus: Bus) -> list[int]:
    """The entries whose detail and salt go, in their order; none that are gone already."""
    if body.reason == "retention":
        return bus.journal.details_before(begin_of(body.details_before))
    return sorted(index for row in rows for index in bus.journal.details_of(row))


def _check_location(row: InboxRow, bus: Bus) -> None:
    """Where the bytes lie is said in a table that nobody signed; which bytes they are, the entry says.

    Raises AuditBroken: otherwise whoever writes to the table would have another delivery's erased.
    """
    if not is_erased(row.evidence) and bus.evidence.digest(row.evidence).hex != bus.journal.evidence_digest(row):
        raise AuditBroken(f"the evidence of {row.message_id} lies elsewhere than its entry says: nothing was erased")


def _destroy_bytes(row: InboxRow, bus: Bus) -> None:
    """The bytes where they lie, where they lay before they were sealed, pieces of an upload that go on lying, and a
    report that no courier has taken home yet."""
    for location in (row.evidence, *bus.journal.to_wipe(row.id)):
        if not is_erased(location):
            bus.evidence.erase(location)
    bus.uploads.forget(row.sender, row.message_id)
    if bus.laid_out is not None:  # a report quotes what was sent
        (bus.laid_out / row.sender / f"{row.message_id}.report.json").unlink(missing_ok=True)


def _forget(decision: str, rows: Iterable[InboxRow], details: Sequence[int], cursor: Cursor, index: int) -> None:
    """What the journal forgets together with the entry that says so. What act two has not finished is refused."""
    for row in rows:
        # With the location goes the key that the bytes were sealed with.
        cursor.execute("UPDATE inbox SET evidence = ? WHERE id = ?", (f"erased:{decision}", row.id))
        query = (
            "UPDATE inbox SET status = 'waiting', decision = 'refuse' WHERE id = ? AND status IN ('held', 'waiting')"
        )
        cursor.execute(query, (row.id,))
        cursor.execute("DELETE FROM wipes WHERE inbox_id = ?", (row.id,))
        kept = (row.entry_index, "evidence", index, decision)
        cursor.execute("INSERT INTO erasures VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", kept)
    for entry in details:
        cursor.execute("UPDATE details SET salt = NULL, detail = NULL WHERE idx = ?", (entry,))
        cursor.execute("UPDATE reports SET document = ?, octets = ? WHERE entry_index = ?", (b"", b"", entry))
        gone = (entry, "detail", index, decision)
        cursor.execute("INSERT INTO erasures VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", gone)
    log_index.forget(cursor, *details)
