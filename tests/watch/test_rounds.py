"""Each kind of alarm by its cause, on a real bus: what ails it reaches the webhook, and so does its end."""

import itertools
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from exchange.alarms import CALM, quiet_hours, read_book
from exchange.app import duties, keys_in_force, opening, places, telling
from exchange.cli import main as command_line
from exchange.clock_watch import ClockWatch
from exchange.doctor import alarm_watch
from exchange.doctor.alarm_watch import CRITICAL, OFTEN_S, WARNING, AlarmWatch
from exchange.doctor.examine import CHECKS
from exchange.doctor.traffic import EVENTS
from exchange.processing import process
from exchange.registry import Bureau
from exchange.settings import AlarmSettings, MqttSettings, Settings, TimestampSettings
from exchange.tally import EVENTS as COUNTED
from exchange.tally import Tally
from security import pki
from security.errors import AuditBroken
from security.keys import generate
from tests.acts.bench_of_one import FEED, REGISTER, Acts, both_acts, covers
from tests.watch.sinks import HttpSink, nobody, until

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
OFTEN = "made-up-often"
RHYTHM = REGISTER.replace(FEED, OFTEN).replace("accuracy = 0.5", 'accuracy = 0.5\nrhythm = "PT30M"')


class Rounds:
    """The watch over a bus whose clock goes ahead as it is told, with a webhook that is read."""

    def __init__(self, acts: Acts, sink: HttpSink, **alarms: Any) -> None:
        self.ahead, self.sink, self.acts = timedelta(0), sink, acts
        self.bus = msgspec.structs.replace(acts.bus, clock=lambda: places.utc_now() + self.ahead)
        said = AlarmSettings(webhook=sink.url, **{"least_free_bytes": 1, **alarms})
        self.settings = msgspec.structs.replace(acts.trial.settings, alarms=said)
        self.clock = ClockWatch(places.utc_now, itertools.count().__next__, timedelta(seconds=30))
        self.criticals: dict[str, Any] = {}
        self.tally = Tally(self.bus.journal, self.bus.folder / "tally.json", self.bus.feeds, self.bus.clock())
        self.watch = self.watching(self.settings)

    def watching(self, settings: Settings) -> AlarmWatch:
        ways = telling.alarm_ways(settings, self.clock.heard)
        quiet = quiet_hours(settings.alarms.quiet)
        return AlarmWatch(settings, self.bus, self.tally, self.clock, ways, quiet, lambda: self.criticals, lambda: 0.5)

    def told(self) -> dict[str, str]:
        """What a turn tells: `begins`, `stands` or `ends`, by code and which."""
        before = len(self.sink.posted)
        self.watch.turn(threading.Event())
        alarms = [one for posted in self.sink.posted[before:] for one in json.loads(posted.body)["alarms"]]
        return {f"{one['code']} {one['about']}".strip(): one["what"] for one in alarms}

    def ended(self) -> dict[str, str]:
        """What is told once it has been calm long enough."""
        assert self.told() == {}
        self.ahead += CALM + MINUTE
        return self.told()


@pytest.fixture(scope="module")
def a_bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acts]:
    with both_acts(tmp_path_factory.mktemp("rounds"), **{OFTEN: RHYTHM}) as acts:
        for feed in (FEED, OFTEN):
            acts.trial.grant("made-up", "push", feed)
            acts.trial.release(feed, acts.bus.feeds[feed].digest)
        yield acts


@pytest.fixture
def sink() -> Iterator[HttpSink]:
    with HttpSink() as opened:
        yield opened


@pytest.fixture(autouse=True)
def _every_check_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """At each turn hours have passed since the last, by the clock that says what is due."""
    monkeypatch.setattr(alarm_watch, "monotonic", itertools.count(0, 10_000).__next__)


Make = Callable[..., Rounds]


@pytest.fixture
def rounds(a_bus: Acts, sink: HttpSink) -> Make:
    def make(**alarms: Any) -> Rounds:
        (a_bus.bus.folder / "alarms.json").unlink(missing_ok=True)
        return Rounds(a_bus, sink, **alarms)

    return make


def with_settings(rounds: Rounds, **changed: Any) -> None:
    rounds.watch = rounds.watching(msgspec.structs.replace(rounds.settings, **changed))


def test_a_bus_that_is_well_tells_nobody_anything(rounds: Make) -> None:
    well = rounds()
    assert well.told() == {}
    assert well.watch._found.keys() == CHECKS.keys()


def test_a_disk_that_is_almost_full(rounds: Make) -> None:
    full = rounds(least_free_bytes=1 << 60)
    assert full.told() == {"place.disk": "begins"}
    (one,) = json.loads(full.sink.posted[-1].body)["alarms"]
    assert (one["severity"], one["next_zh"][:5]) == ("critical", "磁盘写满后")
    assert full.told() == {}


def test_its_end_is_told_once(rounds: Make) -> None:
    full = rounds(least_free_bytes=1 << 60)
    assert full.told() == {"place.disk": "begins"}
    book = full.watch._book
    with_settings(full, alarms=msgspec.structs.replace(full.settings.alarms, least_free_bytes=1))
    full.watch._book = book
    assert full.ended() == {"place.disk": "ends"}
    assert full.told() == {}


def test_a_feed_that_falls_silent_and_is_heard_again(rounds: Make) -> None:
    silent = rounds()
    silent.acts.push("often-1", covers("A"), OFTEN)
    process(OFTEN, silent.acts.bus)
    silent.ahead = 40 * MINUTE
    assert silent.told() == {}  # a rhythm is no stopwatch
    silent.ahead = 46 * MINUTE
    assert silent.told() == {f"feeds.heard {OFTEN}": "begins"}
    silent.acts.push("often-2", covers("A"), OFTEN)
    process(OFTEN, silent.acts.bus)
    silent.ahead = timedelta(0)
    assert silent.ended() == {f"feeds.heard {OFTEN}": "ends"}


def test_a_feed_that_has_never_delivered_is_not_yet_awaited(rounds: Make, a_bus: Acts) -> None:
    quiet = rounds()
    quiet.ahead = 300 * DAY
    assert not any(key.startswith(f"feeds.heard {FEED}") for key in quiet.told())


def test_deliveries_that_wait_too_long_for_act_two(rounds: Make) -> None:
    late = rounds()
    late.acts.push("late-1", covers("B"))
    late.ahead = 61 * MINUTE
    assert late.told().get(f"inbox.backlog {FEED}") == "begins"
    assert process(FEED, late.acts.bus) == 1
    late.ahead += CALM + MINUTE
    assert late.told().get(f"inbox.backlog {FEED}") == "ends"


def test_a_bureau_whose_only_certificate_ends(tmp_path: Path, sink: HttpSink) -> None:
    with both_acts(tmp_path) as acts:
        now, key = places.utc_now(), generate("ES256").public_key
        authority = keys_in_force.authority(acts.trial.settings)
        der = pki.issue(authority, "lamps", key, "signing", now - DAY, now + 20 * DAY)
        acts.trial.enrol_with(Bureau("lamps", "Lamps", "路灯所", "supplier"), [pki.enrolled(der, "lamps", "signing")])
        ends = Rounds(acts, sink)
        begun = [(key, what) for key, what in ends.told().items() if key.startswith("days.enrolled lamps signing")]
        assert [what for _, what in begun] == ["begins"]
        assert ends.watch._book.standing[begun[0][0]].alarm.severity == "warning"
        ends.ahead = 15 * DAY
        ends.told()
        assert ends.watch._book.standing[begun[0][0]].alarm.severity == "error"


def test_a_clock_that_jumps_and_one_that_others_contradict(rounds: Make) -> None:
    apart = rounds()
    moment = places.utc_now()
    times = iter([moment, moment + timedelta(seconds=1), moment + timedelta(hours=1, seconds=2)])
    apart.clock = ClockWatch(lambda: next(times, moment + timedelta(hours=2)), itertools.count().__next__, MINUTE / 2)
    assert apart.clock.jump() is None
    apart.watch = apart.watching(apart.settings)
    apart.sink.date = format_datetime(places.utc_now() - timedelta(minutes=10), usegmt=True)
    assert apart.told() == {"clock.jumped": "begins"}
    apart.clock = ClockWatch(places.utc_now, itertools.count().__next__, MINUTE / 2)
    apart.clock.heard("ca.example", apart.sink.date)
    apart.watch = apart.watching(apart.settings)
    assert apart.told() == {"clock.agrees ca.example": "begins"}


def test_a_timestamp_authority_that_is_away(rounds: Make) -> None:
    away = rounds()
    with_settings(away, timestamps=TimestampSettings(urls=["http://localhost:9/"], certificates="keys/ca.pem"))
    away.ahead = timedelta(hours=2)
    assert away.told()["timestamps.covered"] == "begins"


def test_a_broker_that_is_gone(rounds: Make) -> None:
    gone = rounds()
    with nobody() as port:
        with_settings(gone, mqtt=MqttSettings(broker=f"mqtts://localhost:{port}"))
        assert gone.told() == {"mqtt.broker": "begins"}


def test_an_original_that_is_no_longer_what_was_accepted(tmp_path: Path, sink: HttpSink) -> None:
    with both_acts(tmp_path) as acts:
        acts.trial.grant("made-up", "push", FEED)
        broken = Rounds(acts, sink)
        path = acts.evidence(acts.push("spoilt-1", covers("C")))
        octets = path.read_bytes()
        place = octets.rindex(b"<")
        path.write_bytes(octets[:place] + b"[" + octets[place + 1 :])
        process(FEED, acts.bus)
        assert any(key.startswith("delivery.evidence_broken ") for key in broken.told())


def test_a_log_that_does_not_add_up(tmp_path: Path, sink: HttpSink) -> None:
    with both_acts(tmp_path) as acts:
        acts.trial.grant("made-up", "push", FEED)
        acts.push("m-1", covers("A"))
        broken = Rounds(acts, sink)
        with closing(sqlite3.connect(acts.bus.folder / "journal.sqlite")) as thief:
            thief.execute("UPDATE heads SET root = zeroblob(32) WHERE size = (SELECT max(size) FROM heads)")
            thief.commit()
        with pytest.raises(AuditBroken):
            acts.push("m-2", covers("B"))
        assert broken.told().get("log.broken") == "begins"
        assert acts.bus.journal.trouble is not None
        assert acts.bus.journal.trouble.broken


def test_a_log_that_lost_entries_is_noticed_even_after_a_restart(tmp_path: Path, sink: HttpSink) -> None:
    with both_acts(tmp_path) as acts:
        acts.trial.grant("made-up", "push", FEED)
        acts.push("m-1", covers("A"))
        Rounds(acts, sink).told()  # what was there is known outside the database
        settings = acts.trial.settings
    with closing(sqlite3.connect(tmp_path / "bus" / "state" / "journal.sqlite")) as thief:
        (size,) = thief.execute("SELECT max(idx) + 1 FROM entries").fetchone()
        for table in ("entries WHERE idx >= ?", "heads WHERE size > ?", "nodes WHERE (idx + 1) << level > ?"):
            thief.execute(f"DELETE FROM {table}", (size - 1,))
        thief.commit()
    with closing(opening.open_bus(settings)) as bus:
        assert bus.journal.size() == size - 1
        less = Rounds(Acts(acts.trial, bus), sink)
        told = less.told()
        assert told.get("log.whole") == "begins"
        assert "journal.whole" not in told, "no head is kept outside here: the tally alone knows"


def test_what_a_door_logged_as_broken_is_an_alarm_for_a_day(rounds: Make) -> None:
    heard = rounds()
    heard.criticals = {"door.audit_broken": places.utc_now(), "certificate.ends": places.utc_now()}
    assert heard.told() == {"log.broken": "begins"}


def test_a_webhook_that_is_away_is_tried_again_and_seen_by_the_command(
    rounds: Make, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    away = rounds(least_free_bytes=1 << 60)
    away.sink.status = 503
    away.told()
    settings = tmp_path / "settings.toml"
    text = Path(away.settings.source).read_text(encoding="utf-8").replace('= "state"', f'= "{away.bus.folder}"')
    settings.write_text(f"{text}[alarms]\nwebhook = '{away.sink.url}'\n", encoding="utf-8")
    assert command_line.main(["alarms", "--json", "--settings", str(settings)]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [one["alarm"]["code"] for one in told["standing"]] == ["place.disk"]
    (unsent,) = told["unsent"]
    assert (unsent["way"], unsent["tries"]) == ("webhook", 1)
    assert "fetch.status" in unsent["problem"]
    assert command_line.main(["alarms", "--settings", str(settings)]) == 1
    assert "磁盘" in "".join(capsys.readouterr())
    posted = len(away.sink.posted)
    away.told()
    assert len(away.sink.posted) == posted  # not yet
    away.ahead += MINUTE
    away.sink.status = 200
    assert away.told() == {"place.disk": "begins"}
    assert read_book(away.bus.folder).letters == []


def test_the_command_tries_each_way_and_names_the_step_that_breaks(
    a_bus: Acts, sink: HttpSink, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = Path(a_bus.trial.settings.source).read_text(encoding="utf-8")
    source = Path(a_bus.trial.settings.source).parent / "with-alarms.toml"
    with nobody() as port:
        mail = f"smtp = 'smtp://localhost:{port}'\nsender = 'a@city.example'\nto = ['b@city.example']"
        source.write_text(f"{text}[alarms]\nwebhook = '{sink.url}'\n{mail}\n", encoding="utf-8")
        assert command_line.main(["alarms", "test", "--json", "--settings", str(source)]) == 1
    told = {one["way"]: one for one in json.loads(capsys.readouterr().out)["ways"]}
    assert (told["webhook"]["ok"], told["mail"]["ok"]) == (True, False)
    assert told["mail"]["problem"].startswith("mail.unreachable:")
    assert json.loads(sink.posted[-1].body)["alarms"][0]["code"] == "alarms.test"
    assert command_line.main(["alarms", "test", "--settings", a_bus.trial.settings.source]) == 2


def test_only_one_of_two_makes_the_rounds(rounds: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarm_watch, "BEGIN_S", 0.0)
    first, second = rounds(least_free_bytes=1 << 60), rounds(least_free_bytes=1 << 60)
    stop = threading.Event()
    threads = [
        threading.Thread(
            target=duties.on_duty, args=(one.bus.journal.database, "alarms", one.watch.run, stop), daemon=True
        )
        for one in (first, second)
    ]
    for thread in threads:
        thread.start()
    until(lambda: first.sink.posted)
    stop.wait(0.3)
    stop.set()
    for thread in threads:
        thread.join(5)
    assert len(first.sink.posted) == 1


def test_every_name_in_the_lists_is_one_that_is_looked_at() -> None:
    assert OFTEN_S.keys() <= CHECKS.keys()
    text = "".join(path.read_text(encoding="utf-8") for path in Path(alarm_watch.__file__).parent.glob("*.py"))
    assert [name for name in CRITICAL | WARNING if text.count(f'"{name}"') < 2 and name not in EVENTS] == []
    assert set(EVENTS) == set(COUNTED)
