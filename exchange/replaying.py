"""重放 Replaying dead letters as a job: entered in the log by a named person, paced, stopped, resumed, reported.

A job is a row beside the log, and a row for each of its deliveries. Each delivery goes back to `waiting` in the very
transaction that enters so in the log and marks it as sent: whatever is killed and whenever, it goes back once. From
there it takes its ordinary way through act two, which gives a new report beside the earlier ones; GetReport says the
newest. One that is processed is no dead letter, so no later job takes it again.

The table is not believed: a job whose beginning no entry of the log says is not run.
"""

import logging
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from time import monotonic
from typing import Final, Literal

import msgspec

from exchange.bus import Bus
from exchange.database import CONFLICTS, Cursor, insert
from exchange.dead_letters import DeadLetter, Wanted, dead_letters, letters_of
from exchange.decision_documents import Officer
from exchange.entry import Detail, InboxRow, LoggedEntry
from exchange.evidence import is_erased
from exchange.faults import durable_step
from exchange.journal import Entry, Journal
from exchange.registry import Registry
from exchange.sequencer import SELECT_INBOX, inbox_row
from mappings.feed import Feed
from security.errors import ExchangeError, Refusal

log = logging.getLogger("yongtong.replay")

TYPE: Final = "replay"  # of the entries
LOOK_S: Final = 0.5
AGAIN_S: Final = 5.0  # after a failure
MOST_AT_ONCE: Final = 50  # sent and not yet done: what bureaus send now does not stand behind a whole job
LATER: Final = "SELECT 1 FROM inbox WHERE feed = ? AND id > ? AND status = 'processed' LIMIT 1"
# What became of a delivery that could not go back, by why.
LEFT: Final = {
    "dead.superseded": "superseded",
    "dead.not_dead": "elsewhere",
    "content.erased": "erased",
    "feed.unknown": "dropped",
}
BACK: Final = "UPDATE inbox SET status = 'waiting', decision = '' WHERE id = ? AND status IN ('held', 'refused')"
MOVE: Final = "UPDATE replay_items SET state = ?, code = ? WHERE job = ? AND inbox_id = ? AND state = ?"

State = Literal["running", "stopped", "ended"]


class Job(msgspec.Struct, frozen=True):
    """A job, and how far it has come.

    entry:    by which it was begun; by, ground: who and why, as that entry says; began_at: its time
    outcomes: how many deliveries there are of each state: pending, sent, processed, refused, held, recalled,
              superseded, erased, dropped, elsewhere (somebody decided on it meanwhile)
    codes:    of those refused or held again, how many by each code
    """

    id: str
    entry: int
    per_minute: int
    state: State
    began_at: str
    by: str
    ground: str
    outcomes: dict[str, int]
    codes: dict[str, int]

    @property
    def deliveries(self) -> int:
        """How many it has."""
        return sum(self.outcomes.values())


# What a person does.


def begin(registry: Registry, wanted: Wanted, per_minute: int, ground: str, by: Officer) -> Job:
    """Begin a job with every dead letter that is wanted.

    per_minute: how many go back a minute; 0: as act two gets them done

    Raises Refusal `dead.none`, `dead.not_dead` for a message id that is none, `dead.under_way`, `role.not_held`.
    """
    actor, found = registry.person(by.key.public_key, "system").pseudonym, chosen(registry.journal, wanted)
    id = f"p-{secrets.token_hex(6)}"

    def also(cursor: Cursor, index: int) -> None:
        cursor.execute("INSERT INTO replays VALUES (?, ?, ?, 'running')", (index, id, per_minute))
        insert(cursor, "replay_items", [(id, one.row.id, "pending", "") for one in found])

    asked = {name: value for name, value in msgspec.structs.asdict(wanted).items() if value and name != "message_ids"}
    detail: Detail = {"job": id, "ground": ground, "deliveries": len(found), "per_minute": per_minute, **asked}
    try:
        registry.journal.note(
            Entry(type=TYPE, outcome="begun", actor=actor, feed=wanted.feed, detail=detail), also
        ).result()
    except CONFLICTS as problem:
        raise Refusal("dead.under_way", wanted.feed) from problem
    return job(registry.journal, id)


def chosen(journal: Journal, wanted: Wanted) -> list[DeadLetter]:
    """The dead letters that are wanted, one at least. Raises Refusal `dead.none`, `dead.not_dead`."""
    found = dead_letters(journal, wanted)
    missing = set(wanted.message_ids) - {one.row.message_id for one in found}
    if missing:
        raise Refusal("dead.not_dead", min(missing))
    if not found:
        raise Refusal("dead.none", wanted.feed)
    return found


def stop(registry: Registry, id: str, ground: str, by: Officer, *, for_good: bool = False) -> Job:
    """Send no more of a job's deliveries; those sent are finished. for_good: end it, so that others may take them.

    Raises Refusal `dead.job_unknown`, `dead.job_state`, `role.not_held`.
    """

    def also(cursor: Cursor, _: int) -> None:
        if for_good:  # it ends once what was sent has
            change = "UPDATE replays SET state = 'running' WHERE id = ? AND state IN ('running', 'stopped')"
            dropped = "UPDATE replay_items SET state = 'dropped' WHERE job = ? AND state = 'pending'"
            cursor.execute(dropped, (id,))
        else:
            change = "UPDATE replays SET state = 'stopped' WHERE id = ? AND state = 'running'"
        if not cursor.execute(change, (id,)).rowcount:
            raise Refusal("dead.job_state", id)

    return _change(registry, id, "dropped" if for_good else "stopped", ground, by, also)


def resume(registry: Registry, id: str, ground: str, by: Officer) -> Job:
    """Let a stopped job go on where it was. Raises Refusal as `stop` does."""

    def also(cursor: Cursor, _: int) -> None:
        query = "UPDATE replays SET state = 'running' WHERE id = ? AND state = 'stopped'"
        if not cursor.execute(query, (id,)).rowcount:
            raise Refusal("dead.job_state", id)

    return _change(registry, id, "resumed", ground, by, also)


def _change(
    registry: Registry, id: str, outcome: str, ground: str, by: Officer, also: Callable[[Cursor, int], None]
) -> Job:
    actor = registry.person(by.key.public_key, "system").pseudonym
    job(registry.journal, id)
    detail: Detail = {"job": id, "ground": ground}
    registry.journal.note(Entry(type=TYPE, outcome=outcome, actor=actor, detail=detail), also).result()
    return job(registry.journal, id)


# How it stands.


def jobs(journal: Journal) -> list[Job]:
    """All jobs, newest first."""
    rows = journal.ask("SELECT id, entry_index, per_minute, state FROM replays ORDER BY entry_index DESC")
    return [_job(journal, *row) for row in rows]


def job(journal: Journal, id: str) -> Job:
    """One job. Raises Refusal `dead.job_unknown`."""
    rows = journal.ask("SELECT id, entry_index, per_minute, state FROM replays WHERE id = ?", id)
    if not rows:
        raise Refusal("dead.job_unknown", id)
    return _job(journal, *rows[0])


def items(journal: Journal, id: str) -> list[tuple[str, str, str, str]]:
    """Each delivery of a job: sender, message id, state, code."""
    query = (
        "SELECT sender, message_id, state, code FROM replay_items JOIN inbox ON inbox.id = inbox_id "
        "WHERE job = ? ORDER BY inbox_id"
    )
    return [(sender, message_id, state, code) for sender, message_id, state, code in journal.ask(query, id)]


def _job(journal: Journal, id: str, entry: int, per_minute: int, state: State) -> Job:
    outcomes, codes = Counter[str](), Counter[str]()
    query = "SELECT state, code, count(*) FROM replay_items WHERE job = ? GROUP BY state, code ORDER BY state, code"
    for of_item, code, count in journal.ask(query, id):
        outcomes[of_item] += count
        codes.update({code: count} if code else {})
    begun = _begun(journal, id, entry)
    said = begun.detail or {} if begun else {}
    time, actor = (begun.leaf.time, begun.leaf.actor) if begun else ("", "")
    return Job(id, entry, per_minute, state, time, actor, str(said.get("ground", "")), dict(outcomes), dict(codes))


def _begun(journal: Journal, id: str, entry: int) -> LoggedEntry | None:
    """The entry by which a job was begun; None where the log says nothing of the kind. An erased detail names no job:
    then the entry's place is enough, for there is one job an entry."""
    found = journal.entry(entry)
    if found is None or (found.leaf.type, found.leaf.outcome) != (TYPE, "begun") or not found.leaf.actor:
        return None
    return found if found.detail is None or found.detail.get("job") == id else None


# How it runs.


class Replayer:
    """Sends what jobs hold, paced, and ends them. One a doors' process; several of them do nobody's work twice.

    clock: seconds
    """

    def __init__(self, bus: Bus, clock: Callable[[], float] = monotonic) -> None:
        self._bus, self._journal, self._clock = bus, bus.journal, clock
        self._paid_s: dict[str, float] = {}  # of each job, up to when its pace was used

    def run(self, stopping: threading.Event) -> None:
        """Until told to stop. Raises what a database raises: then another process may be on duty."""
        pause_s = LOOK_S
        while not stopping.wait(pause_s):
            try:
                self.step()
                pause_s = LOOK_S
            except (ExchangeError, OSError) as problem:
                log.warning("replay.waits reason=%s", problem)
                pause_s = AGAIN_S

    def step(self) -> None:
        """Note what came of what was sent, send what is due, end what is done."""
        query = "SELECT id, entry_index, per_minute, state FROM replays WHERE state <> 'ended' ORDER BY entry_index"
        for id, entry, per_minute, state in self._journal.ask(query):
            begun = _begun(self._journal, id, entry)
            if begun is None:
                log.critical("replay.audit_broken job=%s; no entry of the log says that it was begun", id)
                continue
            self._settle(id)
            if state == "running":
                self._send_due(id, begun, per_minute)
                self._end(id, begun)

    def _settle(self, id: str) -> None:
        """What was sent and is done: how it ended."""
        query = (
            f"{SELECT_INBOX} WHERE status <> 'waiting' AND id IN "
            "(SELECT replay_items.inbox_id FROM replay_items WHERE job = ? AND state = 'sent') ORDER BY id"
        )
        done = [inbox_row(row) for row in self._journal.ask(query, id)]
        codes = {one.row.id: one.code for one in letters_of(self._journal, done)}
        self._mark(id, "sent", [(row.id, row.status, codes.get(row.id, "")) for row in done])

    def _mark(self, id: str, was: str, marks: Sequence[tuple[int, str, str]]) -> None:
        """Note of deliveries, by inbox id, which state and code they have now."""
        if not marks:
            return
        with (
            closing(self._journal.database.connect()) as connection,
            self._journal.database.transaction(connection) as cursor,
        ):
            for inbox_id, state, code in marks:
                cursor.execute(MOVE, (state, code, id, inbox_id, was))

    def _send_due(self, id: str, begun: LoggedEntry, per_minute: int) -> None:
        sent = self._journal.ask("SELECT count(*) FROM replay_items WHERE job = ? AND state = 'sent'", id)[0][0]
        room = min(self._paced(id, per_minute), MOST_AT_ONCE - sent)
        query = (
            f"{SELECT_INBOX} WHERE id IN (SELECT replay_items.inbox_id FROM replay_items "
            "WHERE job = ? AND state = 'pending' ORDER BY replay_items.inbox_id LIMIT ?) ORDER BY id"
        )
        rows = [inbox_row(row) for row in self._journal.ask(query, id, room)] if room > 0 else []
        self._pay(id, per_minute, len(rows))
        durable_step("replay.send:before")
        promised = [(row, self._journal.note(self._again(row, id, begun), self._back(row, id))) for row in rows]
        for row, future in promised:
            try:
                future.result()
            except Refusal as refusal:
                if refusal.code != "dead.job_state":  # then it was stopped in between, or another process was first
                    self._mark(id, "pending", [(row.id, LEFT[refusal.code], "")])
        durable_step("replay.send:after")
        if rows:
            self._bus.wake()

    def _paced(self, id: str, per_minute: int) -> int:
        """How many may go now; the first at once."""
        if not per_minute:
            return MOST_AT_ONCE
        paid_s = self._paid_s.setdefault(id, self._clock() - 60 / per_minute)
        return int((self._clock() - paid_s) * per_minute / 60)

    def _pay(self, id: str, per_minute: int, sent: int) -> None:
        """So many went. Time in which none could go is not made up for in a rush."""
        if per_minute:
            floor_s = self._clock() - 60 / per_minute
            self._paid_s[id] = max(self._paid_s.get(id, floor_s) + sent * 60 / per_minute, floor_s if not sent else 0.0)

    def _again(self, row: InboxRow, id: str, begun: LoggedEntry) -> Entry:
        """The entry by which one delivery goes back; in its bureau's name, which finds it among its own."""
        return Entry(
            type=TYPE,
            outcome="again",
            actor=begun.leaf.actor,
            sender=row.sender,
            feed=row.feed,
            feed_digest=self._bus.feed_digests.get(row.feed, ""),
            grant=row.grant,
            trust_digest=self._bus.registry.trust().digest,
            detail={"message_id": row.message_id, "job": id, "begun": begun.index, "was": row.status},
        )

    def _back(self, row: InboxRow, id: str) -> Callable[[Cursor, int], None]:
        """The change that comes with that entry. Raises Refusal where the delivery or the job is not as it was."""
        feed = self._bus.feeds.get(row.feed)

        def also(cursor: Cursor, _: int) -> None:
            moved = cursor.execute(MOVE, ("sent", "", id, row.id, "pending")).rowcount
            if not moved or cursor.execute("SELECT state FROM replays WHERE id = ?", (id,)).fetchone()[0] != "running":
                raise Refusal("dead.job_state", id)
            if feed is None:
                raise Refusal("feed.unknown", row.feed)
            if is_erased(row.evidence):
                raise Refusal("content.erased", row.message_id)
            if one_after_another(feed) and cursor.execute(LATER, (row.feed, row.id)).fetchone():
                raise Refusal("dead.superseded", row.message_id)
            if not cursor.execute(BACK, (row.id,)).rowcount:
                raise Refusal("dead.not_dead", row.message_id)

        return also

    def _end(self, id: str, begun: LoggedEntry) -> None:
        """Enter the end of a job with its counts, once nothing of it is under way."""
        query = "SELECT count(*) FROM replay_items WHERE job = ? AND state IN ('pending', 'sent')"
        if self._journal.ask(query, id)[0][0]:
            return

        def also(cursor: Cursor, _: int) -> None:
            query = "UPDATE replays SET state = 'ended' WHERE id = ? AND state = 'running'"
            if not cursor.execute(query, (id,)).rowcount:
                raise Refusal("dead.job_state", id)

        detail: Detail = {"job": id, "begun": begun.index, **job(self._journal, id).outcomes}
        entry = Entry(type=TYPE, outcome="ended", actor=self._bus.origin, feed=begun.leaf.feed, detail=detail)
        with suppress(Refusal):  # another process was first
            self._journal.note(entry, also).result()


def one_after_another(feed: Feed) -> bool:
    """Whether an older delivery must not be laid over a later one: of snapshots and layers, and where all are of one
    day. Other deliveries are told apart record by record, by when they were signed: what is older than known is no
    news."""
    return feed.content in ("snapshot", "reference") or feed.as_of is not None


def superseded(journal: Journal, row: InboxRow, feed: Feed) -> bool:
    """Whether a later delivery of its feed is in the register, over which this one must not be laid."""
    return one_after_another(feed) and bool(journal.ask(LATER, row.feed, row.id))
