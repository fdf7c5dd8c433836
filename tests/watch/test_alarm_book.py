"""When an alarm is told: when it begins, when it ends, daily in between, and at night only what is critical."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from exchange.alarms import (
    AGAIN,
    CALM,
    MOST_LETTERS,
    MOST_WAIT_S,
    Alarm,
    Book,
    Severity,
    advance,
    due,
    is_quiet,
    keep_book,
    note_try,
    quiet_hours,
    read_book,
    subject,
    text,
)
from exchange.entry import CITY_TIME
from security.errors import Misconfigured

DAY = datetime(2026, 11, 27, 6, 0, tzinfo=UTC)  # 14:00 in the city
NIGHT = datetime(2026, 11, 27, 15, 0, tzinfo=UTC)  # 23:00
MINUTE = timedelta(minutes=1)
QUIET = quiet_hours(["22:00-07:00"])


def alarm(about: str = "", severity: Severity = "error", source: str = "a", en: str = "It is bad.") -> Alarm:
    return Alarm("thing.bad", severity, "不好。", en, "请修理。", "Mend it.", about, source)


def told(book: Book) -> list[list[tuple[str, str]]]:
    """What went into each letter: (begins, which)."""
    return [[(one.what, one.alarm.about) for one in letter.notices] for letter in book.letters]


def pass_time(
    book: Book, seen: Sequence[Alarm], begin: datetime, minutes: int, looked: Sequence[str] = ("a",)
) -> datetime:
    for minute in range(minutes):
        advance(book, seen, looked, begin + minute * MINUTE, ["mail"], QUIET)
    return begin + minutes * MINUTE


def test_it_is_told_once_when_it_begins_and_once_when_it_has_ended() -> None:
    book = Book()
    now = pass_time(book, [alarm("x")], DAY, 60)
    assert told(book) == [[("begins", "x")]]
    pass_time(book, [], now, 60)
    assert told(book) == [[("begins", "x")], [("ends", "x")]]
    assert book.standing == {}


def test_what_comes_and_goes_within_minutes_is_one_alarm() -> None:
    book, now = Book(), DAY
    for _ in range(20):
        now = pass_time(book, [alarm()], now, 2)
        now = pass_time(book, [], now, int(CALM / MINUTE) - 1)
    assert told(book) == [[("begins", "")]]


def test_it_is_told_again_each_day_that_it_lasts_with_what_is_true_then() -> None:
    book = Book()
    for hour in range(50):
        advance(book, [alarm(en=f"hour {hour}")], ["a"], DAY + timedelta(hours=hour), ["mail"])
    assert told(book) == [[("begins", "")], [("stands", "")], [("stands", "")]]
    assert timedelta(days=1) == AGAIN
    assert [letter.notices[0].alarm.en for letter in book.letters] == ["hour 0", "hour 24", "hour 48"]
    assert book.letters[2].notices[0].first_seen == DAY


def test_a_check_that_was_not_made_ends_nothing() -> None:
    book = Book()
    now = pass_time(book, [alarm(source="slow")], DAY, 1, ["slow"])
    now = pass_time(book, [], now, 30, ["a"])
    assert book.standing
    pass_time(book, [], now, 1, ["a", "slow"])
    assert not book.standing


def test_at_night_only_what_is_critical_goes_out_and_the_rest_in_one_letter_in_the_morning() -> None:
    book = Book()
    now = pass_time(book, [alarm("1"), alarm("2", "warning")], NIGHT, 10)
    now = pass_time(book, [alarm("1"), alarm("fire", "critical")], now, 10)
    assert told(book) == [[("begins", "fire")]]
    morning = datetime(2026, 11, 28, 7, 0, tzinfo=CITY_TIME)
    advance(book, [alarm("1"), alarm("fire", "critical")], ["a"], morning - MINUTE, ["mail"], QUIET)
    assert len(book.letters) == 1
    advance(book, [alarm("1"), alarm("fire", "critical")], ["a"], morning, ["mail"], QUIET)
    assert told(book)[1:] == [[("begins", "1"), ("begins", "2"), ("ends", "2")]]
    assert book.gathered == []


def test_what_grows_critical_at_night_is_told_at_night() -> None:
    book = Book()
    now = pass_time(book, [alarm()], DAY, 1)
    pass_time(book, [alarm(severity="critical")], NIGHT, 3)
    assert now < NIGHT
    assert told(book) == [[("begins", "")], [("begins", "")]]


@pytest.mark.parametrize(
    "at, quiet",
    [("21:59", False), ("22:00", True), ("23:59", True), ("00:00", True), ("06:59", True), ("07:00", False)],
)
def test_quiet_hours_go_over_midnight_by_the_citys_clock(at: str, quiet: bool) -> None:
    moment = datetime.fromisoformat(f"2026-11-27T{at}:00+08:00").astimezone(UTC)
    assert is_quiet(moment, QUIET) == quiet
    assert is_quiet(moment, quiet_hours(["12:00-13:00"])) is False


@pytest.mark.parametrize("said", ["22-7", "22:00", "24:00-07:00", "22:00-07:60", ""])
def test_hours_that_are_none_are_named(said: str) -> None:
    with pytest.raises(Misconfigured, match="22:00-07:00, city time"):
        quiet_hours([said])


def test_a_restart_neither_repeats_nor_forgets(tmp_path: Path) -> None:
    book = Book()
    pass_time(book, [alarm("x")], DAY, 3)
    pass_time(book, [alarm("x"), alarm("y", "warning")], NIGHT, 1)
    keep_book(tmp_path, book)
    again = read_book(tmp_path)
    assert again == book
    pass_time(again, [alarm("x"), alarm("y", "warning")], NIGHT + MINUTE, 3)
    assert told(again) == [[("begins", "x")]]
    assert [one.alarm.about for one in again.gathered] == ["y"]


def test_a_book_that_was_cut_short_is_begun_anew(tmp_path: Path) -> None:
    keep_book(tmp_path, Book(number=7))
    path = tmp_path / "alarms.json"
    path.write_bytes(path.read_bytes()[:-9])
    assert read_book(tmp_path) == Book()


def test_a_way_that_is_away_is_tried_less_and_less_and_holds_up_no_other() -> None:
    book = Book()
    advance(book, [alarm()], ["a"], DAY, ["mail", "webhook"])
    now, waits = DAY, []
    for _ in range(12):
        (pair,) = [pair for pair in due(book, now) if pair[1] == "mail"]
        note_try(book, *pair, "away", now, 0.5)
        next_at = book.letters[0].ways["mail"].next_at
        assert next_at is not None
        waits.append((next_at - now).total_seconds())
        assert [way for _, way in due(book, next_at - timedelta(seconds=1))] == ["webhook"]
        now = next_at
    assert waits[:3] == [30, 60, 120]
    assert waits[-1] == MOST_WAIT_S
    assert sorted(waits) == waits
    note_try(book, book.letters[0], "webhook", "", now, 0.5)
    assert list(book.letters[0].ways) == ["mail"]
    note_try(book, book.letters[0], "mail", "", now, 0.5)
    assert book.letters == []


def test_letters_that_nobody_takes_do_not_grow_without_end() -> None:
    book = Book()
    for number in range(MOST_LETTERS + 5):
        advance(book, [alarm(str(number))], [], DAY, ["mail"])
    assert (len(book.letters), book.dropped) == (MOST_LETTERS, 5)


def test_where_no_way_is_set_alarms_stand_and_no_letter_waits() -> None:
    book = Book()
    assert advance(book, [alarm()], ["a"], NIGHT, [], QUIET)
    advance(book, [alarm()], ["a"], DAY + AGAIN, [], QUIET)
    assert book.standing
    assert (book.letters, book.gathered) == ([], [])


def test_a_letter_says_what_since_when_and_what_to_do_in_both_languages() -> None:
    book = Book()
    advance(book, [alarm("water-register")], ["a"], DAY, ["mail"])
    notices = book.letters[0].notices
    said = text("bus.example", notices)
    for words in (
        "不好。",
        "It is bad.",
        "请修理。",
        "Mend it.",
        "2026-11-27 14:00 +08:00",
        "thing.bad water-register",
    ):
        assert words in said
    assert subject("bus.example", notices) == "[甬通 bus.example] 发生 begins: thing.bad water-register"
    assert msgspec.json.encode(book)
