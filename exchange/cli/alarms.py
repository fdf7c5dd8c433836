"""`alarms`: what stands, and whether anybody would hear of it."""

import argparse
from datetime import datetime

from exchange.alarm_ways import problem_of
from exchange.alarms import WORDS, Book, Letter, read_book
from exchange.app import places, telling
from exchange.cli.output import print_json, print_table, say
from exchange.cli.parsing import Commands, add_command, settings_of
from exchange.doctor.alarm_watch import test_notice
from exchange.entry import CITY_TIME
from exchange.settings import Settings
from security.errors import Misconfigured, Refusal


def add_commands(commands: Commands, common: argparse.ArgumentParser) -> None:
    """alarms."""
    says = "list the alarms that stand, and what could not be sent; exit 1 where there are any"
    parser = add_command(commands, common, "alarms", _alarms, says=says, example="yongtong alarms test")
    help = "list: what stands (default); test: send a test by each way, and name the step that breaks"
    parser.add_argument("action", nargs="?", default="list", choices=["list", "test"], help=help)


def _alarms(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    return _test(settings, as_json=options.json) if options.action == "test" else _list(settings, as_json=options.json)


def _list(settings: Settings, *, as_json: bool) -> int:
    book, ways = read_book(places.state_of(settings)), settings.alarms.ways
    bad = bool(book.standing or book.letters or book.dropped)
    if as_json:
        print_json({"ok": not bad, "ways": ways, **_document(book)})
        return 1 if bad else 0
    if not bad:
        say(f"没有告警 No alarm stands.   {' '.join(ways) or '未设置送出方式 no way is set: [alarms]'}")
        return 0
    for one in book.standing.values():
        alarm = one.alarm
        say(f"{WORDS[alarm.severity]} {alarm.code} {alarm.about}   {_at(one.first_seen)}")
        for line in (alarm.zh, alarm.en, f"→ {alarm.next_zh}", f"→ {alarm.next_en}"):
            say(f"    {line}")
    unsent = [
        (one.number, _at(one.made_at), way, tried.tries, _at(tried.next_at) if tried.next_at else "", tried.problem)
        for one in book.letters
        for way, tried in one.ways.items()
    ]
    if unsent:
        print_table("未送出 Not sent yet", ["no.", "made at", "way", "tries", "again at", "problem"], unsent)
    if book.dropped:
        say(f"过久送不出而放弃 given up, too many waited: {book.dropped}")
    return 1


def _document(book: Book) -> dict[str, object]:
    return {
        "standing": [
            {"first_seen": one.first_seen, "told": one.told, "alarm": one.alarm} for one in book.standing.values()
        ],
        "gathered": len(book.gathered),
        "unsent": [
            {"number": one.number, "made_at": one.made_at, "way": way, "tries": tried.tries, "next_at": tried.next_at}
            | {"problem": tried.problem, "alarms": [notice.alarm.key for notice in one.notices]}
            for one in book.letters
            for way, tried in one.ways.items()
        ],
        "dropped": book.dropped,
    }


def _test(settings: Settings, *, as_json: bool) -> int:
    """Send a test by each way."""
    ways, now = telling.alarm_ways(settings), places.utc_now()
    if not ways:
        raise Misconfigured("config.setting", f"{settings.source}: [alarms] names no webhook and no smtp")
    letter, results = Letter(0, now, [test_notice(now)], {}), list[dict[str, str | bool]]()
    for name, send in ways.items():
        problem = ""
        try:
            send(letter, now)
        except Refusal as refusal:
            problem = problem_of(refusal)
        results.append({"way": name, "ok": not problem, "problem": problem})
        if not as_json:
            say(f"{'✗' if problem else '✓'} {name}   {problem or '已送出 sent'}")
    if as_json:
        print_json({"ok": all(one["ok"] for one in results), "ways": results})
    return 0 if all(one["ok"] for one in results) else 1


def _at(moment: datetime) -> str:
    return f"{moment.astimezone(CITY_TIME):%Y-%m-%d %H:%M} +08:00"
