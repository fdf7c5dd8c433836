"""The parts of an evidence bundle that are made for it, read and written, and what is found of a bundle, row by row."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime, timedelta, timezone
from typing import Any, Final, Literal

import msgspec

from exchange.entry import Detail, Leaf, commitment
from security.errors import AuditBroken, Misconfigured, Refusal
from security.jws import jcs
from security.keys import der_of_pem
from security.merkle import HASH_SIZE

NUMBER: Final = r"(?:0|[1-9][0-9]{0,14})"  # of an entry; more digits have no place in a log, and some trip their reader
_RANGES: Final = re.compile(rf"(?:{NUMBER}(?:-{NUMBER})?(?: {NUMBER}(?:-{NUMBER})?)*)?", re.ASCII)
State = Literal["holds", "missing", "broken", "erased"]
ROWS: Final = (
    *("container", "manifest", "subject", "signature", "certificate", "enrolment", "grant", "receipts", "inclusion"),
    *("witnesses", "timestamp", "evidence class", "mapping", "erased parts"),
)
CITY_TIME: Final = timezone(timedelta(hours=8))  # a day of the city is 00:00-24:00 +08:00
MOST_SAID: Final = 12  # lines a row of what holds
MOST_NAMED: Final = 100  # lines a row of what does not
_WORST: Final[tuple[State, ...]] = ("broken", "missing", "erased", "holds")


class Row(msgspec.Struct, frozen=True):
    """What was found of one question. demanded: whether the anchors ask for it; about: which part, and why."""

    name: str
    state: State
    about: tuple[str, ...]
    demanded: bool = True


class Proven(msgspec.Struct, frozen=True):
    """An entry that lies under the bundle's head. detail: None where it was erased."""

    index: int
    text: str
    leaf: Leaf
    detail: Detail | None


class Findings:
    """What is found of each row, as it is found."""

    def __init__(self) -> None:
        self._found: dict[str, list[tuple[State, str]]] = {name: [] for name in ROWS}

    def say(self, row: str, state: State, about: str) -> None:
        """A thing that was found. about: which part it is of, and what."""
        if (state, about) not in self._found[row][-MOST_SAID:]:
            self._found[row].append((state, about))

    @contextmanager
    def judged(self, row: str, place: str) -> Iterator[None]:
        """What fails within makes the row broken, and names the part."""
        try:
            yield
        except Refusal as problem:
            self.say(row, "broken", f"{place}: {problem.code} {problem.detail}".rstrip())
        except (ValueError, AuditBroken, Misconfigured) as problem:
            self.say(row, "broken", f"{place}: {problem}"[:300])
        except Exception as problem:  # a part that trips its reader proves nothing, and must not stop the other rows
            self.say(row, "broken", f"{place}: cannot be read ({type(problem).__name__})")

    def says_nothing(self, row: str) -> bool:
        """Whether nothing was found of a row."""
        return not self._found[row]

    def row(self, name: str, *, demanded: bool) -> Row:
        """The worst that was found, and what was, the worst first."""
        found = self._found[name] or [("missing", "nothing of it is in the bundle")]
        state = min((state for state, _ in found), key=_WORST.index)
        bad = [text for what, text in sorted(found, key=lambda one: _WORST.index(one[0])) if what != "holds"]
        more = [f"… and {len(bad) - MOST_NAMED} more"] if len(bad) > MOST_NAMED else []
        # What holds of a thousand messages is not told a thousand times.
        good = [text for what, text in found if what == "holds"][: max(MOST_SAID - len(bad), 1)]
        return Row(name, state, (*bad[:MOST_NAMED], *more, *good), demanded)


def entry_octets(index: int, leaf: bytes, salt: bytes | None, detail: bytes | None, path: tuple[bytes, ...]) -> bytes:
    """The part `entries/{index}.json`."""
    document: dict[str, Any] = {"index": index, "leaf": leaf.decode(), "proof": [node.hex() for node in path]}
    if salt is not None and detail is not None:
        document |= {"salt": salt.hex(), "detail": detail.decode()}
    return jcs(document)


def consistency_octets(first: int, second: int, nodes: tuple[bytes, ...]) -> bytes:
    """The part `consistency/{first}.json`."""
    return jcs({"first": first, "second": second, "nodes": [node.hex() for node in nodes]})


def detail_of(document: Mapping[str, Any], leaf: Leaf) -> Detail | None:
    """The detail that the leaf commits to; None where it is not there. Raises ValueError."""
    if "salt" not in document and "detail" not in document:
        return None
    text: str = document["detail"]
    (salt,) = nodes_of([document["salt"]])
    if commitment(salt, text.encode()) != leaf.detail:
        raise ValueError("its detail is not what the leaf commits to")
    return msgspec.json.decode(text, type=dict[str, str | int])


def nodes_of(texts: list[str]) -> list[bytes]:
    """Hashes written in lower-case hex. Raises ValueError for any other spelling."""
    octets = [bytes.fromhex(text) for text in texts]
    if [one.hex() for one in octets] != texts or any(len(one) != HASH_SIZE for one in octets):
        raise ValueError("not hashes in lower-case hex")
    return octets


def named(parts: Iterable[str], pattern: str) -> list[str]:
    """Parts of a form of name, those with a number in its order."""
    found = [match for name in parts if (match := re.fullmatch(pattern, name))]
    return [match[0] for match in sorted(found, key=lambda match: (len(match[1]), match[1]))]


def is_among(ranges: str, number: int) -> bool:
    """Whether a number is among those written as `3-9 12`. Raises ValueError for what is not so written."""
    if not _RANGES.fullmatch(ranges):
        raise ValueError("not numbers and ranges of them")
    ends = (piece.partition("-")[::2] for piece in ranges.split())
    return any(int(first) <= number <= int(last or first) for first, last in ends)


def day_of(moment: str | datetime) -> date:
    """The city's day of a moment, RFC 3339 or aware."""
    found = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return found.astimezone(CITY_TIME).date()


def anchor_der(pem: str) -> bytes:
    """A certificate among the anchors. Raises Misconfigured."""
    try:
        return der_of_pem(pem.encode())
    except ValueError as problem:
        raise Misconfigured("config.anchors", "anchors: a certificate is not PEM") from problem
