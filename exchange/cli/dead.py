"""死信 Dead letters and their replay: `dead list|show|replay|jobs|stop|resume`."""

import argparse
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import msgspec

from exchange import replaying
from exchange.app import opening
from exchange.cli.output import print_json, print_table, say, sentence_document
from exchange.cli.parsing import Commands, add_command, add_group, count, day, settings_of
from exchange.cli.people import acting, add_person_options
from exchange.dead_letters import DeadLetter, Wanted, dead_letter, dead_letters
from exchange.entry import begin_of
from exchange.journal import Journal
from exchange.replay_preview import Foreseen, foresee
from exchange.replaying import Job
from security.errors import Misconfigured, Refusal

TOLD_EVERY = 20  # deliveries of a preview


def add_commands(commands: Commands, common: argparse.ArgumentParser) -> None:
    """dead list|show|replay|jobs|stop|resume."""
    dead = add_group(commands, "dead", says="accepted deliveries that could not be applied, and their replay")
    listed = add_command(
        dead, common, "list", _list, says="what is dead, why, how often tried", example="yongtong dead list"
    )
    _add_choice(listed)
    show = add_command(dead, common, "show", _show, says="one dead letter", example="yongtong dead show water-2026-12")
    show.add_argument("message_id", metavar="MESSAGE_ID")
    show.add_argument("--sender", metavar="BUREAU", help="where two bureaus use the same message id")
    replay = add_command(
        dead,
        common,
        "replay",
        _replay,
        says="apply dead letters again, as a job; --preview says what would become of each, and keeps nothing",
        example="yongtong dead replay --feed water-register --code map.unknown_value --per-minute 60 "
        "--ground 对照表已更正 --by 李四",
    )
    _add_choice(replay)
    replay.add_argument("message_ids", nargs="*", metavar="MESSAGE_ID", help="these alone (all that are as asked for)")
    replay.add_argument("--preview", action="store_true", help="what would become of each; nothing is kept")
    replay.add_argument("--per-minute", type=count, metavar="N", help="pace (as fast as they are done)")
    add_command(
        dead, common, "jobs", _jobs, says="replay jobs and how far they are", example="yongtong dead jobs"
    ).add_argument("job", nargs="?", metavar="JOB", help="one of them, delivery by delivery")
    stop = add_command(
        dead,
        common,
        "stop",
        _stop,
        says="send no more of a job; what was sent is finished",
        example="yongtong dead stop p-1f2e3d4c5b6a --ground 先核对 --by 李四",
    )
    stop.add_argument(
        "--for-good", action="store_true", help="end the job; what it had left may be replayed by another"
    )
    resume = add_command(
        dead,
        common,
        "resume",
        _resume,
        says="let a stopped job go on",
        example="yongtong dead resume p-1f2e3d4c5b6a --ground 已核对 --by 李四",
    )
    for parser in (stop, resume):
        parser.add_argument("job", metavar="JOB")
    for parser in (replay, stop, resume):
        parser.add_argument("--ground", metavar="TEXT", help="why; stands in the audit")
        add_person_options(parser, required=False)


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--feed", default="", metavar="FEED")
    parser.add_argument("--code", default="", metavar="CODE", help="why it is dead, e.g. delivery.failed")
    parser.add_argument("--sender", default="", metavar="BUREAU")
    parser.add_argument("--since", type=day, metavar="DAY", help="dead from this day on")
    parser.add_argument("--until", type=day, metavar="DAY", help="dead before this day")


def _wanted(options: argparse.Namespace) -> Wanted:
    return Wanted(
        feed=options.feed,
        code=options.code,
        since=begin_of(options.since.isoformat()) if options.since else "",
        until=begin_of(options.until.isoformat()) if options.until else "",
        message_ids=tuple(getattr(options, "message_ids", ())),
        sender=options.sender,
    )


# What is dead.


def _list(options: argparse.Namespace) -> int:
    with closing(opening.open_journal(settings_of(options))) as journal:
        found = dead_letters(journal, _wanted(options))
    if options.json:
        print_json({"dead": [_document(one) for one in found]})
        return 0
    columns = ["feed", "message id", "状态 status", "自 since", "次数 tried", "原因 cause"]
    print_table("死信 Dead letters", columns, [_line(one) for one in found])
    if found:
        say("一份详情 one of them: yongtong dead show MESSAGE_ID")
        say("重放试算 what a replay would do: yongtong dead replay --preview")
    return 0


def _line(one: DeadLetter) -> Sequence[object]:
    cause = f"{one.code} {one.sentence.zh}"
    return (one.row.feed, one.row.message_id, one.row.status, one.since[:19], one.tried, cause)


def _document(one: DeadLetter) -> dict[str, Any]:
    return {
        "sender": one.row.sender,
        "feed": one.row.feed,
        "message_id": one.row.message_id,
        "status": one.row.status,
        "received_at": one.row.received_at,
        "since": one.since,
        "tried": one.tried,
        "cause": {**sentence_document(one.code, one.sentence), "detail": one.detail},
    }


def _show(options: argparse.Namespace) -> int:
    with closing(opening.open_journal(settings_of(options))) as journal:
        row = journal.inbox(options.sender, options.message_id)
        if row is None:
            raise Refusal("delivery.unknown", options.message_id)
        one = dead_letter(journal, row)
        if one is None:
            raise Refusal("dead.not_dead", options.message_id)
        tries = _tries(journal, row.id)
    if options.json:
        print_json({**_document(one), "content_length": row.content_length, "entry": row.entry_index, "tries": tries})
        return 0
    sentence = one.sentence
    said = [
        *(("供数任务 feed", row.feed), ("单位 sender", row.sender), ("收到 received", row.received_at)),
        *(("状态 status", row.status), ("自 since", one.since), ("次数 tried", one.tried)),
        *(("原因 cause", f"{one.code} {sentence.zh} {sentence.en}"), ("其一 which", one.detail)),
        ("下一步 next", f"{sentence.next_zh} {sentence.next_en}"),
    ]
    print_table(f"死信 Dead letter {row.message_id}", ["", ""], said)
    print_table("历次处理 Tries", ["entry", "time", "outcome"], [list(one.values()) for one in tries])
    return 0


def _tries(journal: Journal, inbox_id: int) -> list[dict[str, Any]]:
    """Every report that the delivery had: number of its entry, when, what it said."""
    indexes = journal.ask("SELECT entry_index FROM reports WHERE inbox_id = ? ORDER BY entry_index", inbox_id)
    entries = [entry for (index,) in indexes if (entry := journal.entry(index)) is not None]
    return [{"entry": one.index, "time": one.leaf.time, "outcome": one.leaf.outcome} for one in entries]


# Replaying it.


def _replay(options: argparse.Namespace) -> int:
    if options.preview:
        return _preview(options)
    _check_who(options)
    with acting(options) as (opened, officer):
        begun = replaying.begin(opened, _wanted(options), options.per_minute or 0, options.ground, officer)
    return _told(options, begun)


def _check_who(options: argparse.Namespace) -> None:
    if not options.by or not options.ground:
        raise Misconfigured(
            "config.option", "say who and why: --by NAME --ground TEXT; or --preview, which keeps nothing"
        )


def _preview(options: argparse.Namespace) -> int:
    with closing(opening.open_bus(settings_of(options))) as bus:
        found: list[Foreseen] = []
        for one in foresee(replaying.chosen(bus.journal, _wanted(options)), bus):
            found.append(one)
            if len(found) % TOLD_EVERY == 0:
                say(f"已试算 looked at {len(found)}")
        unreleased = sorted(
            {one.feed for one in found if bus.registry.mapping(one.feed) != bus.feed_digests.get(one.feed)}
        )
    outcomes, records = Counter(one.outcome for one in found), Counter[str]()
    for one in found:
        records.update(one.records)
    if options.json:
        counts = {"outcomes": dict(outcomes), "records": dict(records), "not_released": unreleased}
        print_json({"preview": [msgspec.to_builtins(one) for one in found], **counts})
        return 0
    columns = ["feed", "message id", "将为 would be", "code", "records"]
    rows = [(one.feed, one.message_id, one.outcome, one.code, _counts(one.records)) for one in found]
    print_table("重放试算 Preview: nothing was kept", columns, rows)
    say(f"{_counts(outcomes)}; records: {_counts(records)}")
    for feed in unreleased:
        say(f"{feed}: 文件尚未发布生效，发布之前不会处理 its file is not released, and nothing is done until it is")
    return 0


def _counts(counts: dict[str, int] | Counter[str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(counts.items()))


def _jobs(options: argparse.Namespace) -> int:
    with closing(opening.open_journal(settings_of(options))) as journal:
        if options.job:
            found, items = replaying.job(journal, options.job), replaying.items(journal, options.job)
        else:
            return _print_jobs(replaying.jobs(journal), as_json=options.json)
    if options.json:
        names = ("sender", "message_id", "state", "code")
        told = [dict(zip(names, item, strict=True)) for item in items]
        print_json({**msgspec.to_builtins(found), "items": told})
    else:
        _print_jobs([found], as_json=False)
        print_table("报送件 Deliveries", ["sender", "message id", "state", "code"], items)
    return 0


def _print_jobs(jobs: Sequence[Job], *, as_json: bool) -> int:
    if as_json:
        print_json({"jobs": [msgspec.to_builtins(one) for one in jobs]})
        return 0
    columns = ["job", "state", "began", "by", "每分钟 per minute", "结果 outcomes", "codes"]
    rows = [
        (one.id, one.state, one.began_at[:19], one.by, one.per_minute or "", _counts(one.outcomes), _counts(one.codes))
        for one in jobs
    ]
    print_table("重放任务 Replay jobs", columns, rows)
    return 0


def _stop(options: argparse.Namespace) -> int:
    _check_who(options)
    with acting(options) as (opened, officer):
        changed = replaying.stop(opened, options.job, options.ground, officer, for_good=options.for_good)
    return _told(options, changed)


def _resume(options: argparse.Namespace) -> int:
    _check_who(options)
    with acting(options) as (opened, officer):
        changed = replaying.resume(opened, options.job, options.ground, officer)
    return _told(options, changed)


def _told(options: argparse.Namespace, job: Job) -> int:
    if options.json:
        print_json(msgspec.to_builtins(job))
    else:
        _print_jobs([job], as_json=False)
        say(f"由正在运行的服务执行 serve carries it out; see: yongtong dead jobs {job.id}")
    return 0
