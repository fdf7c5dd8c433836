"""Which of its own keys a bus signs with: what each change wrote down, in the transaction of its entry.

The entry decides; the rows only find the files. Where rows and log differ the bus does not open (`exchange.app`).
"""

import re
from contextlib import closing
from typing import Final, Literal

import msgspec

from exchange.database import FAILURES, Database
from security.errors import Misconfigured
from security.keys import Algorithm

Changeable = Literal["answer", "log"]
_KEY: Final = re.compile(r"[0-9a-f]{64,128}")
_EPOCH: Final = re.compile(r"[2-9]|[1-9][0-9]{1,8}")


class OwnKey(msgspec.Struct, frozen=True):
    """One key, from a size of the log on.

    first_size: the first head that it signs; 0 for the key of `init`
    key:        of the log its octets, of answers the SHA-256 of the certificate; hex
    algorithm:  by which it signs
    """

    name: Changeable
    first_size: int
    key: str
    algorithm: Algorithm

    @property
    def stem(self) -> str:
        """By what its files are called."""
        return stem_of(self.name, self.key) if self.first_size else self.name


def stem_of(name: Changeable, key: str) -> str:
    """By what the files of a key are called that came after the first. Raises Misconfigured: it becomes a path."""
    if not _KEY.fullmatch(key):
        raise Misconfigured("config.key", f"the journal names a {name} key that is none: {key!r:.40}")
    return f"{name}-{key[:16]}"


def epoch_number(log: str, origin: str) -> int | None:
    """Which epoch of a bus's log a name in checkpoints is of, from 1; None for another log's."""
    if log == origin:
        return 1
    before, _, number = log.rpartition("/")
    known = before == origin and _EPOCH.fullmatch(number)
    return int(number) if known else None


def own_keys(journal: Database) -> dict[str, list[OwnKey]]:
    """By name, the keys in the order in which they came; none that was never changed."""
    found = dict[str, list[OwnKey]]()
    if not journal.exists():
        return found
    with closing(journal.connect()) as connection:
        try:
            rows = connection.execute(
                "SELECT name, first_size, key, algorithm FROM own_keys ORDER BY name, first_size"
            ).fetchall()
        except FAILURES:  # of a version before; opening the journal brings it up
            return found
    for row in rows:
        found.setdefault(row[0], []).append(OwnKey(*row))
    return found


def epochs(journal: Database) -> list[tuple[int, str]]:
    """The first size, and the log's name in checkpoints, of every epoch that was opened, oldest first."""
    with closing(journal.connect()) as connection:
        return connection.execute("SELECT first_size, log FROM epochs ORDER BY first_size").fetchall()


def first_head_is_signed(journal: Database, first_size: int) -> bool:
    """Whether a head from this size on is signed: until then it needs the former key too."""
    with closing(journal.connect()) as connection:
        query = "SELECT 1 FROM heads WHERE size >= ? AND note IS NOT NULL LIMIT 1"
        return connection.execute(query, (first_size,)).fetchone() is not None
