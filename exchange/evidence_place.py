"""Where evidence lies: what a place must do with octets, and how what lies there is named.

A place knows nothing of digests, keys and inbox rows: `exchange.evidence` does. It is a folder, or a bucket of an
S3-compatible store.
"""

import re
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import IO, Final, Literal, Protocol

FILE: Final = r"[a-z0-9][a-z0-9._-]{0,63}/[a-z]+-[0-9a-f-]+"  # bureau/name
_OURS = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}/(segment|payload)-[0-9a-f]{1,16}-[0-9a-f]+")
_ALONE: Final = "payload"


class Place(Protocol):
    """What `Evidence` asks of a place. file: `bureau/name`, as this place named it.

    Errors: FileNotFoundError where a file is not there; ConnectionError where the place cannot be asked now, nothing
    can be said of what lies there, and later is right; any other OSError where it does not do what it should.
    """

    def add(self, bureau: str, octets: bytes) -> tuple[str, int]:
        """Put octets behind others of the bureau: their file, and their offset in it. Durable after the next sync."""

    def put(self, bureau: str, pieces: Iterable[bytes]) -> str:
        """Put a payload in a file of its own, without holding a large one. Durable after the next sync."""

    def bring(self, file: str, pieces: Iterable[bytes]) -> None:
        """Put back a file under the name that it had, where none of it is. Durable after the next sync."""

    def sync(self) -> None:
        """Make durable all that `add` and `put` returned before this call. What fails is tried again by the next."""

    def withdraw(self, file: str, offset: int, size: int) -> None:
        """Let go of octets that nobody will ask for, as far as they are not durable yet; what is durable stays."""

    def read(self, file: str, offset: int, size: int) -> bytes:
        """Octets of a file; fewer where it ends before."""

    def open(self, file: str) -> IO[bytes]:
        """A file as a stream that can be read from any place, and knows its end."""

    def destroy(self, file: str, offset: int, size: int) -> None:
        """Make octets unreadable and leave all others: a payload's own file goes, in a shared one zeros take their
        place. What is gone already stays gone."""

    def sweep(self, known: Collection[str], older_than: datetime) -> int:
        """Remove files that are not known, to which nobody has written since, and that nobody here writes to."""

    def keeps_copies(self) -> str:
        """Why what is destroyed here would go on lying below, for an operator; empty where it does not."""

    def steps(self) -> Mapping[str, Callable[[], None]]:
        """What must go well in turn for evidence to be kept, read and erased here, tried with octets of no delivery.
        Each raises OSError when it does not. By name: `address`, `credentials`, `bucket`, `put`, `get`, `condition`,
        `delete`, those that there are."""

    def close(self) -> None:
        """Make all durable and let go."""


def new_name(kind: Literal["segment", "payload"]) -> str:
    """A name that nobody else has, a later one sorted behind."""
    return f"{kind}-{time.time_ns():x}-{secrets.token_hex(4)}"


def named_at(file: str) -> datetime:
    """When a file of ours was named, by the clock of who named it."""
    return datetime.fromtimestamp(int(file.rpartition("/")[2].split("-")[1], 16) / 1e9, UTC)


def is_alone(file: str) -> bool:
    """Whether one payload has the file to itself."""
    return file.rpartition("/")[2].startswith(_ALONE)


def is_ours(file: str) -> bool:
    """Whether a name found there is of evidence at all; what else lies there is not ours to sweep."""
    return _OURS.fullmatch(file) is not None
