"""死信 Dead letters: accepted deliveries that act two could not apply, with why, since when and how often tried.

Held ones wait for a person, refused ones for their bureau or their feed's mapping; what a person ended is none. Single
records that were rejected are no dead letters: their delivery was processed, and its report names them.
"""

from collections.abc import Collection, Sequence
from contextlib import closing
from typing import Final

import msgspec

from exchange.database import Database
from exchange.entry import InboxRow, leaf_of
from exchange.journal import Journal
from exchange.sequencer import SELECT_INBOX, inbox_row
from security.errors import Sentence, sentences

ENDED_BY_PERSON: Final = "delivery.refused_by_person"
AT_ONCE: Final = 400  # ids in one question


class DeadLetter(msgspec.Struct, frozen=True):
    """One of them.

    code, detail: of its last report; since: when that was entered; tried: how many reports it had
    """

    row: InboxRow
    code: str
    detail: str
    since: str
    tried: int

    @property
    def sentence(self) -> Sentence:
        """What its code says to a person, and the next step."""
        return sentences()[self.code]


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which dead letters. What is empty asks nothing; since is within, until is not (moments as the log writes them,
    of the report that made it one)."""

    feed: str = ""
    code: str = ""
    since: str = ""
    until: str = ""
    message_ids: tuple[str, ...] = ()
    sender: str = ""

    def fits(self, one: DeadLetter) -> bool:
        """Whether a dead letter is one of these."""
        return (
            self.feed in ("", one.row.feed)
            and self.code in ("", one.code)
            and self.sender in ("", one.row.sender)
            and self.since <= one.since
            and (not self.until or one.since < self.until)
            and (not self.message_ids or one.row.message_id in self.message_ids)
        )


def dead_letters(journal: Journal, wanted: Wanted) -> list[DeadLetter]:
    """Those that are wanted, oldest delivery first."""
    query = f"{SELECT_INBOX} WHERE status IN ('held', 'refused')"
    asked: list[object] = []
    if wanted.feed:
        query, asked = f"{query} AND feed = ?", [wanted.feed]
    rows = [inbox_row(row) for row in journal.ask(f"{query} ORDER BY id", *asked)]
    if wanted.message_ids:
        rows = [row for row in rows if row.message_id in wanted.message_ids]
    return [one for one in letters_of(journal, rows) if wanted.fits(one)]


def dead_letter(journal: Journal, row: InboxRow) -> DeadLetter | None:
    """A delivery as a dead letter, where it is one."""
    found = letters_of(journal, [row])
    return found[0] if found else None


def count_by_feed(database: Database) -> tuple[dict[str, int], dict[str, int]]:
    """How many deliveries of each feed wait for act two, and how many are held or refused. Asks for no key."""
    with closing(database.connect()) as connection:
        waiting, dead = (
            dict(connection.execute(f"SELECT feed, count(*) FROM inbox WHERE {of} GROUP BY feed").fetchall())
            for of in ("status = 'waiting'", "status IN ('held', 'refused')")
        )
    return waiting, dead


def letters_of(journal: Journal, rows: Sequence[InboxRow]) -> list[DeadLetter]:
    """Those of the deliveries that are dead letters, with what their last reports say."""
    found, rows = [], [row for row in rows if row.status in ("held", "refused")]
    for start in range(0, len(rows), AT_ONCE):
        piece = {row.id: row for row in rows[start : start + AT_ONCE]}
        for inbox_id, (document, time, tried) in _reports(journal, piece.keys()).items():
            # A report whose detail was erased says no code any more.
            said = msgspec.json.decode(document, type=dict[str, object]) if document else {}
            code, detail = str(said.get("code", "content.erased")), str(said.get("detail", ""))
            found.append(DeadLetter(piece[inbox_id], code, detail, time, tried))
    return sorted((one for one in found if one.code != ENDED_BY_PERSON), key=lambda one: one.row.id)


def _reports(journal: Journal, ids: Collection[int]) -> dict[int, tuple[bytes, str, int]]:
    """Of each delivery its last report's document, that entry's time, and how many reports there are."""
    marks = ", ".join("?" * len(ids))
    query = (
        "SELECT reports.inbox_id, document, idx, leaf, many FROM "
        "(SELECT inbox_id, max(entry_index) AS last, count(*) AS many FROM reports "
        f"WHERE inbox_id IN ({marks}) GROUP BY inbox_id) AS told "
        "JOIN reports ON reports.entry_index = told.last JOIN entries ON idx = told.last"
    )
    rows = journal.ask(query, *ids)
    return {id: (bytes(document), leaf_of(index, leaf).time, many) for id, document, index, leaf, many in rows}
