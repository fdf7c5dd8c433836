"""市区级联 A district's node tells its city's node what happened to components; it works on when the city is away.

The city's bureau holds a grant here, `subscribe` to `cascade`: what goes up is what that shows, after a cursor that
belongs to it. What is sent are ordinary signed deliveries of the district centre's, one record a component, one after
the other, so the order of a component is kept. Before each goes a head of our log, for the records rest on its entries.

A delivery lies in the outbox, octets and message id, before it is sent, and the cursor moves once the receipt holds. So
a crash sends the same octets again and gets the first receipt, and a cut costs nothing but time: what changed meanwhile
lies behind the cursor, each component once.
"""

import csv
import fcntl
import io
import logging
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from exchange.bus import Bus
from exchange.entry import Entry
from exchange.faults import durable_step
from exchange.ownership import OwnershipAnswer, ownership
from exchange.provenance import Provenance, Source, text_of
from exchange.publication import Changes, changes_after, today
from exchange.rights import View
from exchange.small_file import write_whole
from exchange.store import asking
from security.authorise import authorise
from security.errors import ExchangeError, Misconfigured, Refusal, places
from security.message import Content, Grant, Principal, in_memory

STATE: Final = "cascade-up.json"
VIEW: Final = "cascade"
CONTENT_TYPE: Final = "text/csv"
# The city follows our log no further: the two operators must meet, and each further try adds to what it keeps.
FORKED: Final = ("audit.log_forked", "audit.log_truncated", "audit.epoch_over")
FORKED_S: Final = 3600.0
LONGEST_WAIT_S: Final = 60.0  # between two tries while the city is away, or eight looks, if those are shorter
COLUMNS: Final = (
    "内部编号", "部件标识码", "小类代码", "经度", "纬度", "名称", "状态", "主管部门代码", "主管部门",
    "权属单位代码", "权属单位", "养护单位代码", "养护单位", "已注销", "来源",
)  # fmt: skip

log = logging.getLogger("yongtong.cascade")


class City(Protocol):
    """The city's node as this one speaks to it. Each may raise Refusal with the city's code, or Unavailable."""

    def known_size(self) -> int:
        """Entries of our log under the last head that it took."""

    def hand_in(self, checkpoint: str, known: int, nodes: tuple[bytes, ...]) -> int:
        """Give it a head, proven from the size that it knows."""


Push = Callable[[str, Content, str, str], object]  # feed, content, media type, message id; returns once receipted


class Upward(msgspec.Struct, frozen=True):
    """What is agreed with the city's node.

    city: its bureau's code here; feed: our feed's id there; records: components a delivery; per_s: deliveries a second
    """

    city: str
    feed: str
    records: int = 500
    per_s: float = 2.0


class Outgoing(msgspec.Struct, frozen=True):
    """A delivery on its way: all that is needed to send the same again. next: where the cursor moves to."""

    message_id: str
    content: str
    records: int
    next: int


class Progress(msgspec.Struct, frozen=True):
    """How far the city knows us. grant: whose cursor it is; after: change number; round: times it began anew."""

    grant: str = ""
    after: int = 0
    round: int = 0
    outbox: Outgoing | None = None


class Sent(msgspec.Struct, frozen=True):
    """A delivery that the city has. after, next: the change numbers between which it lies."""

    message_id: str
    records: int
    after: int
    next: int


class Cascade:
    """One district's way up. One at a time a bus, over all processes."""

    def __init__(self, bus: Bus, said: Upward, city: City, push: Push) -> None:
        self._bus, self._said, self._city, self._push = bus, said, city, push
        self._path = bus.folder / STATE

    def run(self, stop: threading.Event, every_s: float) -> None:
        """Send what there is, at the pace that was agreed, and look again on a rhythm, until told to stop."""
        wait_s, longest_s = every_s, max(every_s, min(LONGEST_WAIT_S, 8 * every_s))
        while not stop.is_set():
            try:
                wait_s = 1 / self._said.per_s if self.send() is not None else every_s
            except ExchangeError as problem:  # the city is away, or refuses: nothing is lost, it is tried again
                # Not all districts at one moment, when the line is back.
                wait_s = min(longest_s, max(every_s, wait_s) * (1.5 + secrets.randbelow(1000) / 1000))
                if isinstance(problem, Refusal) and problem.code in FORKED:
                    wait_s = FORKED_S
                    log.critical("cascade.log_refused code=%s", problem.code)
                log.warning("cascade.not_sent reason=%s again_s=%.1f", _words(problem), wait_s)
            except Exception as problem:  # the outermost loop: what trips one turn must not end all later ones
                wait_s = longest_s
                log.error("cascade.failed at=%s", places(problem))
            stop.wait(wait_s)

    def send(self) -> Sent | None:
        """Send the next delivery; None where there is nothing new.

        Raises Refusal `cascade.no_grant`, or the city's own; Unavailable. Then nothing has moved.
        """
        with self._alone():
            grant = self._granted()
            progress = self._progress(grant)
            outgoing = progress.outbox or self._made(progress, grant)
            if outgoing is None:
                return None
            if progress.outbox is None:
                self._keep(msgspec.structs.replace(progress, outbox=outgoing))
            durable_step("cascade.send:before")
            self._hand_in_head()
            content = in_memory(outgoing.content.encode())
            self._push(self._said.feed, content, CONTENT_TYPE, outgoing.message_id)
            durable_step("cascade.send:after")
            self._bus.journal.note(self._entry(outgoing, progress, grant)).result()
            self._keep(msgspec.structs.replace(progress, after=outgoing.next, outbox=None))
            durable_step("cascade.cursor:after")
            return Sent(outgoing.message_id, outgoing.records, progress.after, outgoing.next)

    def anew(self) -> None:
        """Begin at the first change again: everything is sent once more, and what the city has is unchanged there."""
        with self._alone():
            last = _read(self._path)
            self._keep(Progress(grant=last.grant, round=last.round + 1))

    def behind(self) -> tuple[int, int]:
        """The change number that the city has, and the last one here."""
        return _read(self._path).after, asking.last_change(self._bus.store.connection())

    def _granted(self) -> Grant:
        """What the city may see of us today. Raises Refusal `cascade.no_grant`."""
        city, grants = self._said.city, self._bus.registry.grants(self._said.city)
        try:
            return authorise(Principal(city, ""), "subscribe", VIEW, city, grants, today(self._bus))
        except Refusal as refusal:
            raise Refusal("cascade.no_grant", refusal.detail) from refusal

    def _progress(self, grant: Grant) -> Progress:
        """Where to go on. Another grant shows other things; a store that was put back has counted to less than was
        told: both begin anew, for what is sent twice does no harm, and what is not sent would."""
        last = _read(self._path)
        if last.grant == grant.id and last.after <= self.behind()[1]:
            return last
        begun = Progress(grant=grant.id, round=last.round + 1)
        self._keep(begun)
        return begun

    def _made(self, progress: Progress, grant: Grant) -> Outgoing | None:
        page = changes_after(self._bus.store, progress.after, self._said.records, View.of(grant))
        if not page.changes:
            return None
        content = "".join(self._lines(page, View.of(grant)))
        digest = sha256(content.encode()).hexdigest()
        # The digest too: a lost cursor must not send other octets under an id that is spent.
        name = f"up-{progress.round}-{progress.after}-{page.next}-{digest[:16]}"
        return Outgoing(name, content, len(page.changes), page.next)

    def _lines(self, page: Changes, view: View) -> Iterator[str]:
        receipts: dict[tuple[str, str], str] = {}
        yield _line(COLUMNS)
        for change in page.changes:
            yield _line(self._record(ownership(self._bus.store, str(change.key), None, view), receipts))

    def _record(self, answer: OwnershipAnswer, receipts: dict[tuple[str, str], str]) -> tuple[str, ...]:
        """One component in the columns; units only where a role has one that is not disputed."""
        found = answer.component
        held = {role.role: role.units[0] for role in answer.roles if role.status in ("stated", "defaulted")}
        roles = (held.get(role) for role in ("authority", "owner", "maintainer"))
        units = [part for unit in roles for part in ((unit.code, unit.name) if unit else ("", ""))]
        return (
            *(str(found.key), found.identifier or "", found.class_code),
            *(repr(found.longitude_deg), repr(found.latitude_deg), found.name or "", found.state or ""),
            *(part or "" for part in units),
            "" if answer.claims else "是",
            text_of(self._provenance(answer, receipts)),
        )

    def _provenance(self, answer: OwnershipAnswer, receipts: dict[tuple[str, str], str]) -> Provenance:
        claims = tuple(
            Source(one.bureau, one.feed, one.message_id, one.record, one.entry, self._receipt(one, receipts))
            for one in answer.claims
        )
        roles: dict[str, str] = {
            role.role: role.status for role in answer.roles if role.status in ("disputed", "defaulted")
        }
        return Provenance(self._bus.origin, answer.component.change_number, claims, roles)

    def _receipt(self, claim: Any, receipts: dict[tuple[str, str], str]) -> str:
        """SHA-256 of the receipt of a claim's delivery; many records share few deliveries."""
        delivery = claim.sender, claim.message_id
        if delivery not in receipts:
            octets = self._bus.journal.receipt(*delivery)
            receipts[delivery] = sha256(octets).hexdigest() if octets else ""
        return receipts[delivery]

    def _hand_in_head(self) -> None:
        """The newest head, which covers every entry that the records name, with the proof from the last one taken."""
        text, known = self._bus.journal.checkpoint(), self._city.known_size()
        size = self._bus.journal.head(text).size
        nodes = self._bus.journal.consistency(known, size) if 0 < known < size else ()
        self._city.hand_in(text, known, nodes)

    def _entry(self, outgoing: Outgoing, progress: Progress, grant: Grant) -> Entry:
        detail: dict[str, str | int] = {"view": VIEW, "after": progress.after, "next": outgoing.next}
        return Entry(
            type="read",
            outcome="cascaded",
            actor=self._bus.origin,
            sender=grant.bureau,
            grant=grant.id,
            trust_digest=self._bus.registry.trust().digest,
            detail={**detail, "records": outgoing.records, "message_id": outgoing.message_id},
        )

    def _keep(self, progress: Progress) -> None:
        write_whole(self._path, msgspec.json.encode(progress))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _read(path: Path) -> Progress:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Progress) if path.exists() else Progress()
    except msgspec.MsgspecError as problem:
        raise Misconfigured(
            "config.file", f"{path}: cannot be read; remove it, and everything is sent once more"
        ) from problem


def _line(cells: tuple[str, ...]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _words(problem: ExchangeError) -> str:
    """What a log may hold of a failure: a code, or its type."""
    return problem.code if isinstance(problem, Refusal) else type(problem).__name__
