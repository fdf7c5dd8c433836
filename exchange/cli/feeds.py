"""What bureaus declare, and how the work on it stands: `feeds`, `feed check|preview|frame|release|stop|start`."""

import argparse
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from exchange.app import opening, places
from exchange.cli import feed_frame
from exchange.cli.feed_preview import one_feed, preview
from exchange.cli.output import print_json, print_table, sentence_document
from exchange.cli.parsing import Commands, add_command, add_group, settings_of
from exchange.cli.people import acting, add_person_options, proposed
from exchange.dead_letters import count_by_feed
from exchange.local_systems import transformation
from exchange.settings import Settings
from exchange.stopped import Stopped, start_feed, stop_feed
from exchange.waits import Wait
from mappings.examples import check_examples
from mappings.feed import Feed
from mappings.systems import EPSG
from security.errors import Refusal


def add_commands(commands: Commands, common: argparse.ArgumentParser) -> None:
    """feeds, feed check|preview|frame|release|stop|start."""
    add_command(
        commands, common, "feeds", _feeds, says="the feeds that bureaus have declared", example="yongtong feeds"
    )
    feed = add_group(commands, "feed", says="one feed's file")
    check = add_command(
        feed,
        common,
        "check",
        _check,
        says="run the examples in a feed's file",
        example="yongtong feed check water-register",
    )
    previewed = add_command(
        feed,
        common,
        "preview",
        preview,
        says="what a file would become: nothing is sent, nothing kept",
        example="yongtong feed preview water-register water.csv --limit 5",
    )
    feed_frame.add_commands(feed, common)
    release = add_command(
        feed,
        common,
        "release",
        _release,
        says="propose that a feed's file, as it stands, be the mapping that counts; a security officer approves",
        example="yongtong feed release water-register --by 王五",
    )
    add_person_options(release)
    stop = add_command(
        feed,
        common,
        "stop",
        _stop,
        says="let act two leave a feed alone: no more tries; what comes is accepted and waits",
        example="yongtong feed stop water-register --ground 数据库迁移 --by 李四",
    )
    stop.add_argument("--refuse", action="store_true", help="take nothing of it at the door either (503)")
    start = add_command(
        feed,
        common,
        "start",
        _start,
        says="let a stopped feed go on, or try one now that waits to be tried again",
        example="yongtong feed start water-register --ground 迁移完成 --by 李四",
    )
    for parser in (stop, start):
        parser.add_argument("--ground", required=True, metavar="TEXT", help="why; stands in the audit")
        add_person_options(parser)
    for parser in (check, previewed, release, stop, start):
        parser.add_argument("feed", metavar="FEED")
    previewed.add_argument("file", metavar="FILE", type=Path)
    previewed.add_argument("--limit", type=int, default=10, help="how many candidates to show (10)")


def _feeds(options: argparse.Namespace) -> int:
    feeds, flow = opening.feeds_of(settings_of(options)).values(), _flow(settings_of(options))
    if options.json:
        names = (
            "id",
            "title",
            "title_zh",
            "bureau",
            "format",
            "content",
            "crs",
            "classes",
            "level",
            "sensitive",
            "digest",
        )
        told = [{name: getattr(feed, name) for name in names} for feed in feeds]
        print_json({"feeds": [{**one, "flow": flow[one["id"]]} if one["id"] in flow else one for one in told]})
        return 0
    rows = [
        (
            f.id,
            f"{f.title_zh} {f.title}",
            f.bureau,
            f"{f.format}, {f.content}, {_level_words(f)}",
            _flow_words(flow, f.id),
        )
        for f in feeds
    ]
    print_table("供数任务 Feeds", ["id", "title", "bureau", "内容、分级 content, level", "处理 work"], rows)
    return 0


def _flow(settings: Settings) -> dict[str, dict[str, Any]]:
    """How the work on each feed stands: stopped or not, how much waits and is dead, and when it is tried again. Empty
    where no bus stands yet."""
    if not places.made(settings):
        return {}
    database, waits = places.journal_database(settings), opening.waits_of(settings).all()
    with closing(database.connect()) as connection:
        stops = Stopped(lambda query: connection.execute(query).fetchall()).now()
    waiting, dead = count_by_feed(database)
    return {
        feed: {
            "state": ("refused" if stops[feed].refuses else "stopped") if feed in stops else "open",
            "waiting": waiting.get(feed, 0),
            "dead": dead.get(feed, 0),
            **(_retry(waits[feed]) if feed in waits else {}),
        }
        for feed in opening.feeds_of(settings)
    }


def _retry(wait: Wait) -> dict[str, Any]:
    return {
        "attempts": wait.attempts,
        "next_try": wait.next_at,
        "since": wait.since,
        "cause": sentence_document(wait.code, wait.sentence),
    }


def _flow_words(flow: Mapping[str, Mapping[str, Any]], feed: str) -> str:
    if feed not in flow:
        return ""
    stands = flow[feed]
    words = {"open": "", "stopped": "已暂停 stopped ", "refused": "已停收 refused "}[stands["state"]]
    words += f"{stands['waiting']} 待处理 waiting, {stands['dead']} 死信 dead"
    if "cause" in stands:
        at = stands["next_try"].strftime("%H:%M:%SZ")
        words += f"; {stands['cause']['code']}, 第 {stands['attempts']} 次 tries, {at} 再试 again"
    return words


def _stop(options: argparse.Namespace) -> int:
    feed = one_feed(settings_of(options), options.feed)
    with acting(options) as (opened, officer):
        entry = stop_feed(opened, feed.id, refuses=options.refuse, ground=options.ground, by=officer)
    return _changed(options, {"feed": feed.id, "state": "refused" if options.refuse else "stopped", "entry": entry})


def _start(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    feed, waits = one_feed(settings, options.feed), opening.waits_of(settings)
    waited = waits.of(feed.id) is not None
    with acting(options) as (opened, officer):
        try:
            entry: int | None = start_feed(opened, feed.id, options.ground, officer)
        except Refusal as refusal:
            if refusal.code != "flow.already_so" or not waited:
                raise
            entry = None
    waits.done(feed.id)
    return _changed(options, {"feed": feed.id, "state": "open", "entry": entry})


def _changed(options: argparse.Namespace, said: dict[str, Any]) -> int:
    if options.json:
        print_json(said)
    else:
        print_table("供数任务 Feed", ["feed", "状态 state", "entry"], [list(said.values())])
    return 0


def _level_words(feed: Feed) -> str:
    """Its data level as its file says it, and whether what it sends is sealed."""
    return (feed.level or "未定级 none") + (", sealed 加密存放" if feed.sealed else "")


def _check(options: argparse.Namespace) -> int:
    feed = one_feed(settings_of(options), options.feed)
    unmet = _unmet(feed, settings_of(options))
    if options.json:
        print_json({"feed": feed.id, "examples": len(feed.example), "unmet": list(unmet)})
    else:
        rows = [(line,) for line in unmet] or [("all hold",)]
        print_table(f"{feed.id} {feed.title_zh}: {len(feed.example)} examples", [""], rows)
    return 1 if unmet else 0


def _unmet(feed: Feed, settings: Settings) -> tuple[str, ...]:
    """What of the feed's examples does not hold. Raises Misconfigured where its system is a local one that is not
    here."""
    if not feed.crs or EPSG.fullmatch(feed.crs):
        return check_examples(feed)
    way = transformation(feed.crs, settings.city.extent, opening.systems_of(settings))
    return check_examples(feed, way.degrees_of)


def _release(options: argparse.Namespace) -> int:
    feed = one_feed(settings_of(options), options.feed)
    if unmet := _unmet(feed, settings_of(options)):
        raise Refusal("feed.examples_unmet", unmet[0][:120])
    with acting(options) as (opened, officer):
        decision = opened.propose_mapping(feed.id, feed.bureau, feed.digest, officer)
    return proposed(options, {"feed": feed.id, "digest": feed.digest, "decision": decision})
