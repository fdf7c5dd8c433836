"""`init` and `serve`: make a bus, and run it."""

import argparse
import logging
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from exchange.alarms import quiet_hours
from exchange.app import duties, keys_in_force, making, places, serving, telling, working
from exchange.bus import Bus
from exchange.cli.output import print_json, print_table, say
from exchange.cli.parsing import Commands, add_command, settings_of
from exchange.cli.people import OPERATOR, new_officer, officer_of, people_of
from exchange.clock_watch import ClockWatch
from exchange.decision_documents import FEWEST_SECURITY, ROLE_WORDS, Role
from exchange.doctor.alarm_watch import AlarmWatch
from exchange.http.server import listen
from exchange.logs import configure
from exchange.settings import MqttSettings
from exchange.tally import Tally
from security.errors import Refusal

log = logging.getLogger("yongtong.serve")


def add_commands(commands: Commands, common: argparse.ArgumentParser) -> None:
    """init, serve."""
    init = add_command(
        commands,
        common,
        "init",
        _init,
        says="make a new bus: keys, journal, store",
        example="yongtong init --edition 2007",
    )
    init.add_argument("--edition", required=True, choices=["2007"], help="master class list, fixed for the bus's life")
    for option, says in (("security", "two or more: they decide together"), ("system", ""), ("audit", "")):
        role = ROLE_WORDS[option]
        init.add_argument(
            f"--{option}", action="append", metavar="NAME[=KEY]", help=f"{role}, with their key or a new one. {says}"
        )
    init.add_argument("--people", metavar="DIR", help="folder for new keys of persons (people beside the settings)")
    serve = add_command(
        commands, common, "serve", _serve, says="open the doors and work", example="yongtong serve --https-port 8443"
    )
    serve.add_argument("--role", default="all", choices=["all", "http", "worker"], help="which processes (all)")
    serve.add_argument("--https-port", type=int, metavar="PORT", help="instead of [https] port; 0 takes a free one")
    serve.add_argument("--mqtt-port", type=int, metavar="PORT", help="instead of [mqtt] port, of the embedded broker")


def _init(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    making.no_bus_yet(settings)  # first: no key is made for a bus that will not be
    if len(_named(options)["security"]) < FEWEST_SECURITY:
        raise Refusal("founding.too_few", f"--security ≥ {FEWEST_SECURITY}")
    people = people_of(settings, options.people)
    places.check_key_apart(settings, people)
    founders = [_founder(said, role, people) for role, named in _named(options).items() for said in named]
    anchors = making.initialise(settings, options.edition, founders, places.utc_now())
    made = {
        "origin": anchors.origin,
        "edition": settings.city.edition,
        "state": str(settings.at(settings.state.folder)),
        "keys": str(settings.at(settings.keys.folder)),
        "anchors": str(settings.at(settings.state.folder) / "anchors.json"),
        "people": str(people),
    }
    offices = {role: [said.partition("=")[0] for said in named] for role, named in _named(options).items()}
    if options.json:
        print_json({**made, "offices": offices})
    else:
        persons = [(f"{ROLE_WORDS[role]} {role}", ", ".join(names)) for role, names in offices.items()]
        print_table("甬通已建立 A new bus", ["", ""], [*made.items(), *persons])
        say(f"每人取走各自的密钥 hand each person their key out of {people}, and keep none there")
        say("next: yongtong bureau enrol …, then yongtong serve")
    return 0


def _named(options: argparse.Namespace) -> dict[Role, list[str]]:
    """Who begins in which office; where nobody is named, persons by their office, for a trial."""
    usual: dict[Role, list[str]] = {
        "security": ["安全管理员甲", "安全管理员乙"],
        "system": ["系统管理员"],
        "audit": ["审计管理员"],
    }
    if not (options.security or options.system or options.audit):
        return usual
    return {role: getattr(options, role) or [] for role in usual}


def _founder(said: str, role: Role, people: Path) -> making.Founder:
    name, _, reference = said.partition("=")
    officer = officer_of(name, reference, people) if reference else new_officer(name, people)
    return officer, role, OPERATOR


def _serve(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    criticals = configure(settings.watch.log)
    if options.role == "worker":
        working.work(settings)
        return 0
    demo = keys_in_force.serves_demo(settings)  # before a socket is opened that others could reach
    port = settings.https.port if options.https_port is None else options.https_port
    listening = listen(settings.https.host, port)
    url = f"https://{settings.https.host}:{listening.getsockname()[1]}"
    mqtt_listening = _mqtt_listening(settings.mqtt, options.mqtt_port)
    mqtt_url = settings.mqtt.broker if settings.mqtt.broker != "off" else ""
    if mqtt_listening is not None:
        mqtt_url = f"mqtts://{settings.mqtt.host}:{mqtt_listening.getsockname()[1]}"

    def ready() -> None:
        if options.json:
            print_json({"url": url, "origin": settings.bus.origin, "mqtt": mqtt_url})
            sys.stdout.flush()
        elif settings.watch.log == "json":  # stderr is read by a program, line by line
            log.info("serve.open url=%s mqtt=%s", url, mqtt_url)
        else:
            say(f"甬通已就绪 {settings.bus.origin} is open at {url} {mqtt_url}   (Ctrl-C stops it)")
        if demo and settings.watch.log == "json":
            log.warning("serve.demo_keys")
        elif demo:
            say("演示密钥，仅限本机，不得用于正式数据 DEMO keys: this machine only, no real data")

    def beside(bus: Bus, tally: Tally, clock: ClockWatch) -> Callable[[], None]:
        ways, quiet = telling.alarm_ways(settings, clock.heard), quiet_hours(settings.alarms.quiet)
        watch = AlarmWatch(settings, bus, tally, clock, ways, quiet, criticals.last)
        return duties.start(bus, "alarms", watch.run)

    telling.alarm_ways(settings)  # a file that is missing is said before the doors open
    serving.serve(settings, listening, mqtt_listening, with_worker=options.role == "all", ready=ready, beside=beside)
    return 0


def _mqtt_listening(mqtt: MqttSettings, port: int | None) -> socket.socket | None:
    """The socket of the embedded broker; None where the city has its own, or none at all."""
    if mqtt.broker != "embedded":
        return None
    return listen(mqtt.host, mqtt.port if port is None else port, "--mqtt-port")
