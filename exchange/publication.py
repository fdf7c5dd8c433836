"""变更发布 What happened to components after a subscriber's cursor: late perhaps, lossy never.

A component shows once, with its latest change only, under the number of that change. So a subscriber may miss a state
between two, never the last one: whatever happens after the cursor gives the component a number beyond it. Numbers are
assigned in the order of commits under one lock, so none appears behind a cursor that has passed it.

Two ways to hear. `changes_after` answers whoever asks, from any cursor, and keeps nothing. `Publisher` tells those who
hold a `subscribe` grant: signed documents to `yt/v1/to/{bureau}/changes`, and a cursor on disk that moves only once the
broker has acknowledged. It knows no socket; what sends is handed in. Nothing is lost on the way to the broker; what a
broker drops for a subscriber that is away it sees by `after`, which is always the `next` of the document before, and
pulls by `changes_after`.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from exchange.bus import Bus
from exchange.entry import CITY_TIME
from exchange.faults import durable_step
from exchange.journal import Entry
from exchange.rights import EVERYTHING, View
from exchange.small_file import write_whole
from exchange.store import asking
from exchange.store.store import Store
from security.authorise import authorise
from security.errors import Misconfigured, Refusal, Unavailable, places
from security.jws import sign_document
from security.message import Grant, Principal

VIEW: Final = "changes"
CHANGES: Final = "yt-changes+jws"
USUAL, MOST = 200, 1000  # changes an answer has, and may have
IN_DOCUMENT: Final = 200
ACKNOWLEDGED_WITHIN_S: Final = 30.0
EVERY_S: Final = 1.0

log = logging.getLogger("yongtong.publication")

Send = Callable[[str, bytes], "Future[None]"]  # topic, octets; done once the broker has acknowledged (QoS 1)


class Change(msgspec.Struct, frozen=True):
    """What happened to a component last. component: its identifier, None while pending; key: the internal number."""

    component: str | None
    key: int
    change_number: int
    kind: Literal["new", "changed", "orphaned", "recalled"]


class Changes(msgspec.Struct, frozen=True):
    """A page of changes, in order of number.

    next: where to go on: the last number of the page, or, on an empty one, the cursor that was asked with. So it says
          nothing of changes that the grant withholds.
    """

    changes: tuple[Change, ...]
    next: int


class Cursor(msgspec.Struct, frozen=True):
    """How far a subscription has come.

    passed: the change number up to which all was looked at, what the grant withholds too; nobody is told it
    told:   the last number that the subscriber was told, where its next document begins
    """

    passed: int = 0
    told: int = 0


class _Due(msgspec.Struct, frozen=True):
    """A document on its way to one subscriber. after: what it was told before; cursor: once this is acknowledged."""

    grant: Grant
    after: int
    page: Changes
    cursor: Cursor
    sent: "Future[None]"

    @property
    def full(self) -> bool:
        """Whether more may wait behind it."""
        return len(self.page.changes) == IN_DOCUMENT


def changes_after(store: Store, after: int, limit: int, view: View = EVERYTHING) -> Changes:
    """What happened to components after a change number, at most `limit` of them.

    view: what the caller may see. What it may not see is left out before page and cursor are made. A component that
          left its classes or its area is not heard of again.
    """
    rows = asking.changed_after(store.connection(), after, limit, view)
    changes = tuple(Change(*row) for row in rows)  # type: ignore[arg-type]  # kinds are ours, written by act two
    return Changes(changes, changes[-1].change_number if changes else after)


def subscription(bureau: str, bus: Bus) -> Grant | None:
    """The grant under which a bureau is told of changes today; None where it may not be."""
    try:
        return authorise(Principal(bureau, ""), "subscribe", VIEW, bureau, bus.registry.grants(bureau), today(bus))
    except Refusal:
        return None


def today(bus: Bus) -> str:
    """The day of the city that it is now, YYYY-MM-DD."""
    return bus.clock().astimezone(CITY_TIME).date().isoformat()


class Publisher:
    """Tells every subscriber what changed. One of them a bus.

    A cursor belongs to a grant, and begins at 0: a new subscriber hears of every component once, and one whose grant is
    replaced by a wider one hears of what the narrow one withheld. A grant that has ended or was revoked is not looked
    at again, and the next document is not made.
    """

    def __init__(self, bus: Bus, send: Send) -> None:
        """send may raise, and its future fail with, Unavailable or OSError: the cursor stays, the next turn repeats."""
        self._bus, self._send = bus, send
        self._cursors = Cursors(bus.folder / "subscribers.json")

    def run(self, stop: threading.Event) -> None:
        """Publish until told to stop."""
        while not stop.is_set():
            more = False
            try:
                more = self.publish()
            except Exception as problem:  # the outermost loop: what trips one turn must not end all later ones
                log.error("changes.failed at=%s", places(problem))
            if not more:
                stop.wait(EVERY_S)

    def publish(self) -> bool:
        """One turn: at most one document to each subscriber, all on their way together. Gives whether more waits."""
        due = [one for grant in self._subscriptions() if (one := self._sent(grant)) is not None]
        acknowledged = [one for one in due if self._acknowledged(one)]  # each is waited for, whatever the others say
        return any(one.full for one in acknowledged)

    def _subscriptions(self) -> Iterator[Grant]:
        """The grant under which each bureau subscribes today, if it may."""
        for bureau in self._bus.registry.bureaus():
            grant = subscription(bureau.code, self._bus)
            if grant is not None:
                yield grant

    def _sent(self, grant: Grant) -> _Due | None:
        """The next document for a subscriber, handed to the broker; None where there is nothing new, or no broker."""
        before = self._cursors.of(grant)
        head = asking.last_change(self._bus.store.connection())  # before the page: all up to it are in sight then
        if head <= before.passed:
            return None
        page = changes_after(self._bus.store, before.passed, IN_DOCUMENT, View.of(grant))
        passed = page.next if len(page.changes) == IN_DOCUMENT else max(head, page.next)
        if not page.changes:  # all that is new is withheld: the cursor passes it, and the subscriber hears nothing
            self._cursors.move(grant, Cursor(passed, before.told))
            return None
        # What is said begins where the last document ended: so a subscriber sees that none is missing, and nothing of
        # what is withheld.
        octets = sign_document(self._document(grant.bureau, before.told, page), CHANGES, self._bus.answer_key)
        durable_step("changes.send:before")
        try:
            sent = self._send(f"yt/v1/to/{grant.bureau}/changes", octets)
        except (Unavailable, OSError) as problem:
            log.warning("changes.not_sent bureau=%s reason=%s", grant.bureau, type(problem).__name__)
            return None
        return _Due(grant, before.told, page, Cursor(passed, page.next), sent)

    def _acknowledged(self, due: _Due) -> bool:
        """Whether the broker has it; then the audit says so, and only then the cursor moves: a crash may repeat."""
        try:
            due.sent.result(ACKNOWLEDGED_WITHIN_S)
        except (Unavailable, OSError, CancelledError) as problem:  # a TimeoutError is an OSError
            log.warning("changes.not_acknowledged bureau=%s reason=%s", due.grant.bureau, type(problem).__name__)
            return False
        durable_step("changes.send:after")
        self._bus.journal.note(self._entry(due)).result()
        durable_step("changes.cursor:before")
        self._cursors.move(due.grant, due.cursor)
        durable_step("changes.cursor:after")
        return True

    def _document(self, bureau: str, after: int, page: Changes) -> dict[str, Any]:
        """What is signed. A document knows no null: a component that is pending is left out of its change."""
        return {
            "v": 1,
            "origin": self._bus.origin,
            "recipient": bureau,
            "after": after,
            "next": page.next,
            "changes": [
                {name: value for name, value in msgspec.structs.asdict(change).items() if value is not None}
                for change in page.changes
            ],
        }

    def _entry(self, due: _Due) -> Entry:
        detail: dict[str, str | int] = {"view": VIEW, "after": due.after, "next": due.page.next}
        return Entry(
            type="read",
            outcome="published",
            actor=self._bus.origin,
            sender=due.grant.bureau,
            grant=due.grant.id,
            trust_digest=self._bus.registry.trust().digest,
            detail={**detail, "changes": len(due.page.changes)},
        )


class Cursors:
    """The cursors by grant, in a small file that is whole at every moment.

    Raises Misconfigured when the file cannot be read: to begin again at 0 unasked would tell everybody everything.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._cursors: dict[str, Cursor] = {}
        try:
            if path.exists():
                self._cursors = msgspec.json.decode(path.read_bytes(), type=dict[str, Cursor])
        except msgspec.MsgspecError as problem:
            raise Misconfigured(
                "config.file", f"{path}: cannot be read; put it back, or remove it to tell all anew"
            ) from problem

    def of(self, grant: Grant) -> Cursor:
        """What the broker has acknowledged; the beginning for a subscription that is new."""
        return self._cursors.get(grant.id, Cursor())

    def move(self, grant: Grant, cursor: Cursor) -> None:
        """Remember, on disk before this returns. Raises OSError, with nothing moved."""
        cursors = {**self._cursors, grant.id: cursor}
        write_whole(self._path, msgspec.json.encode(cursors))
        self._cursors = cursors
