"""`cascade up | down | status`: a district's node and its city's."""

import argparse
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from exchange.app import levels, opening
from exchange.bus import Bus
from exchange.cascade import Sent
from exchange.cli.output import print_json, print_table, say
from exchange.cli.parsing import Commands, add_command, add_group, settings_of
from exchange.reference import Shelf


def add_commands(commands: Commands, common: argparse.ArgumentParser) -> None:
    """cascade up, down, status."""
    group = add_group(commands, "cascade", says="a district's node: send up to the city's, fetch reference data")
    up = add_command(
        group,
        common,
        "up",
        _up,
        says="send the city's node all that it does not have yet; serve does so by itself on a rhythm",
        example="yongtong cascade up",
    )
    up.add_argument("--again", action="store_true", help="everything once more, from the first change")
    add_command(
        group,
        common,
        "down",
        _down,
        says="fetch the city's reference data, check it, and put it in force if it is newer",
        example="yongtong cascade down",
    )
    add_command(
        group,
        common,
        "status",
        _status,
        says="how far the city's node knows this one, and which reference data is in force",
        example="yongtong cascade status",
    )


def _up(options: argparse.Namespace) -> int:
    settings, sent = settings_of(options), list[Sent]()
    with _bus(options) as bus:
        cascade = levels.open_cascade(settings, bus)
        if options.again:
            cascade.anew()
        while (one := cascade.send()) is not None:
            sent.append(one)
            say(f"已上报 {one.message_id}   {one.records}")
            time.sleep(1 / settings.cascade.deliveries_per_s)
    if options.json:
        print_json({"sent": sent, "records": sum(one.records for one in sent)})
    else:
        rows = [(one.message_id, one.after, one.next, one.records) for one in sent]
        print_table("上报市级平台 Sent up", ["message id", "after", "to", "components"], rows)
    return 0


def _down(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    with closing(opening.open_journal(settings)) as journal:
        listed = levels.fetch_reference(settings, journal)
    if options.json:
        print_json({"adopted": listed})
        return 0
    if listed is None:
        say("基准数据已是最新 nothing newer")
        return 0
    rows = [(one.name, one.length, one.digest) for one in listed.parts]
    print_table(
        f"基准数据第 {listed.version} 版 Reference data, version {listed.version}", ["part", "octets", "SHA-256"], rows
    )
    say("next: a running serve takes it at its next start 运行中的 serve 重启后采用")
    return 0


def _status(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    with _bus(options) as bus:
        has, last = levels.open_cascade(settings, bus).behind()
    shelf = Shelf(settings.at(settings.cascade.reference or str(Path("reference"))))
    told = {"city_has": has, "last": last, "reference": shelf.adopted.version}
    if options.json:
        print_json(told)
        return 0
    rows = [
        ("市级平台已有变更号 the city has change", has),
        ("本节点最新变更号 last change here", last),
        ("基准数据版本 reference data, version", shelf.adopted.version),
    ]
    print_table("市区级联 Cascade", ["", ""], rows)
    return 0


@contextmanager
def _bus(options: argparse.Namespace) -> Iterator[Bus]:
    bus = opening.open_bus(settings_of(options))
    try:
        yield bus
    finally:
        bus.close()
