"""What alarms stand, and what is to be said of them to whom: once when one begins, once when it ends, daily in between.

`advance` decides and does nothing; what it decided lies in one small file, whole at every moment, so that a restart
neither repeats nor forgets. In quiet hours only what is critical goes out; the rest is gathered into one message.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Final, Literal

import msgspec

from exchange.entry import CITY_TIME
from exchange.small_file import write_whole
from security.errors import Misconfigured

NAME: Final = "alarms.json"  # in the state folder
CALM: Final = timedelta(minutes=5)  # so long nothing was seen of an alarm when it is over: none that comes and goes
AGAIN: Final = timedelta(days=1)
FIRST_WAIT_S, MOST_WAIT_S = 30.0, 3_600.0  # between two tries of a way that is away
MOST_LETTERS: Final = 50  # that wait for a way; older ones are dropped, and counted
_QUIET: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")

Severity = Literal["warning", "error", "critical"]
What = Literal["begins", "stands", "ends"]
WORDS: Final[dict[str, str]] = {
    **{"begins": "发生 begins", "stands": "仍在 still stands", "ends": "解除 is over"},
    **{"warning": "注意 warning", "error": "错误 error", "critical": "严重 critical"},
}


class Alarm(msgspec.Struct, frozen=True):
    """Something that a person has to do something about.

    code:   stays, `area.what`; about: which one, where there are several of a kind
    source: the check that saw it
    """

    code: str
    severity: Severity
    zh: str
    en: str
    next_zh: str
    next_en: str
    about: str = ""
    source: str = ""

    @property
    def key(self) -> str:
        """One alarm is told from another by this, however its sentence goes on."""
        return f"{self.code} {self.about}".strip()


class Standing(msgspec.Struct):
    """An alarm that stands. told: when it was last told; seen: when it was last seen."""

    alarm: Alarm
    first_seen: datetime
    seen: datetime
    told: datetime


class Notice(msgspec.Struct, frozen=True):
    """One thing to be said of an alarm."""

    what: What
    alarm: Alarm
    first_seen: datetime
    at: datetime


class Try(msgspec.Struct):
    """How a letter fares on one way. problem: why not yet, in both languages; next_at: when it is tried again."""

    tries: int = 0
    next_at: datetime | None = None
    problem: str = ""


class Letter(msgspec.Struct):
    """What goes out together. ways: those it has still to go."""

    number: int
    made_at: datetime
    notices: list[Notice]
    ways: dict[str, Try]


class Book(msgspec.Struct):
    """All that is kept of alarms. gathered: said when the quiet hours are over; dropped: letters that were given up."""

    standing: dict[str, Standing] = {}
    gathered: list[Notice] = []
    letters: list[Letter] = []
    number: int = 0
    dropped: int = 0


Span = tuple[time, time]  # of a day of the city; the second may be on the next day


def quiet_hours(texts: Sequence[str]) -> list[Span]:
    """Hours as the settings have them, `22:00-07:00`. Raises Misconfigured."""
    spans = []
    for text in texts:
        match = _QUIET.fullmatch(text)
        if match is None:
            raise Misconfigured("config.setting", f"[alarms] quiet: {text!r}; write 22:00-07:00, city time")
        hour, minute, to_hour, to_minute = map(int, match.groups())
        spans.append((time(hour, minute), time(to_hour, to_minute)))
    return spans


def is_quiet(now: datetime, spans: Iterable[Span]) -> bool:
    """Whether a moment lies in quiet hours."""
    at = now.astimezone(CITY_TIME).time()
    return any(begin <= at < end if begin < end else (at >= begin or at < end) for begin, end in spans)


def advance(
    book: Book,
    seen: Sequence[Alarm],
    looked: Collection[str],
    now: datetime,
    ways: Collection[str],
    quiet: Sequence[Span] = (),
) -> bool:
    """Bring the book up to now; gives whether anything in it changed that has to be kept.

    seen:   alarms that were seen now; looked: the checks that were made, of which an alarm that is not seen may be over
    """
    notices = [*_begun_or_standing(book, seen, now), *_ended(book, {one.key for one in seen}, looked, now)]
    silent = is_quiet(now, quiet)
    gathered = [one for one in notices if silent and one.alarm.severity != "critical"]
    told = [one for one in notices if one not in gathered]
    book.gathered += gathered
    if not silent:
        told = book.gathered + told
        book.gathered = []
    if told and ways:
        book.number += 1
        book.letters.append(Letter(book.number, now, told, {way: Try() for way in ways}))
        book.dropped += max(len(book.letters) - MOST_LETTERS, 0)
        del book.letters[:-MOST_LETTERS]
    return bool(notices or told)


def _begun_or_standing(book: Book, seen: Sequence[Alarm], now: datetime) -> Iterable[Notice]:
    for alarm in seen:
        known = book.standing.get(alarm.key)
        if known is None:
            book.standing[alarm.key] = Standing(alarm, now, now, now)
            yield Notice("begins", alarm, now, now)
            continue
        worse = alarm.severity == "critical" != known.alarm.severity
        known.alarm, known.seen = alarm, now
        if worse or now - known.told >= AGAIN:
            known.told = now
            yield Notice("begins" if worse else "stands", alarm, known.first_seen, now)


def _ended(book: Book, seen: Collection[str], looked: Collection[str], now: datetime) -> Iterable[Notice]:
    for key, known in list(book.standing.items()):
        known.seen = min(known.seen, now)  # the clock may have been set back
        if key not in seen and known.alarm.source in looked and now - known.seen >= CALM:
            del book.standing[key]
            yield Notice("ends", known.alarm, known.first_seen, now)


def due(book: Book, now: datetime) -> list[tuple[Letter, str]]:
    """Letters to be tried now, and by which way, oldest first; of one way that is away only the oldest."""
    found: dict[str, Letter] = {}
    for letter in book.letters:
        for way in letter.ways:
            found.setdefault(way, letter)
    return [(letter, way) for way, letter in found.items() if (letter.ways[way].next_at or now) <= now]


def note_try(book: Book, letter: Letter, way: str, problem: str, now: datetime, lot: float) -> None:
    """What came of a try. problem: empty where it went; lot: of [0, 1), so that many do not come back at once."""
    if not problem:
        del letter.ways[way]
        book.letters = [one for one in book.letters if one.ways]
        return
    tried = letter.ways[way]
    wait_s = min(FIRST_WAIT_S * 2**tried.tries, MOST_WAIT_S) * (0.5 + lot)
    letter.ways[way] = Try(min(tried.tries + 1, 20), now + timedelta(seconds=wait_s), problem)


def subject(origin: str, notices: Sequence[Notice]) -> str:
    """One line: of which bus, what, how many more."""
    first = notices[0]
    more = f" (+{len(notices) - 1})" if len(notices) > 1 else ""
    which = f" {first.alarm.about}" if first.alarm.about else ""
    return f"[甬通 {origin}] {WORDS[first.what]}: {first.alarm.code}{which}{more}"


def text(origin: str, notices: Sequence[Notice]) -> str:
    """All that is said, Chinese first, each with its next step."""
    lines = [f"甬通 Yongtong {origin}", ""]
    for one in notices:
        alarm = one.alarm
        head = f"{WORDS[one.what]} · {WORDS[alarm.severity]} · {alarm.code} {alarm.about}".rstrip()
        since = f"首次发现 first seen {one.first_seen.astimezone(CITY_TIME):%Y-%m-%d %H:%M} +08:00"
        lines += [head, f"  {alarm.zh}", f"  {alarm.en}"]
        lines += [f"  → {alarm.next_zh}", f"  → {alarm.next_en}"] if one.what != "ends" else []
        lines += [f"  {since}", ""]
    return "\n".join(lines)


def document(origin: str, letter: Letter) -> dict[str, object]:
    """The same as members, for programs; `msgtype` and `text` as chat robots want them."""
    return {
        "bus": origin,
        "number": letter.number,
        "made_at": letter.made_at,
        "alarms": [
            {
                "what": one.what,
                "first_seen": one.first_seen,
                **{name: getattr(one.alarm, name) for name in Alarm.__struct_fields__ if name != "source"},
            }
            for one in letter.notices
        ],
        "msgtype": "text",
        "text": {"content": text(origin, letter.notices)},
    }


def read_book(folder: Path) -> Book:
    """What is kept in a state folder; an empty book where there is none, or one that cannot be read."""
    with suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode((folder / NAME).read_bytes(), type=Book)
    return Book()


def keep_book(folder: Path, book: Book) -> None:
    """Keep it whole. Raises OSError."""
    write_whole(folder / NAME, msgspec.json.format(msgspec.json.encode(book), indent=1))
