"""What came and where it is: `account`, of a day; `gaps`, in what senders number."""

import argparse
from contextlib import closing
from datetime import date
from typing import Any, Final

from exchange.account import BECAME, MEANS, PLACED, Row, account, closing_holds, row_document
from exchange.app import opening, places
from exchange.cli.output import print_json, print_table, say
from exchange.cli.parsing import Commands, add_command, settings_of
from exchange.entry import CITY_TIME, LoggedEntry
from exchange.sequences import gap_document

DELIVERIES: Final = ("收 in", "办结 processed", "拒收 refused", "暂存 held", "待办 waiting", "撤回 recalled")
RECORDS: Final = (
    *("收 in", "新增 new", "变更 changed", "未变 unchanged", "终止 ended", "退回 rejected", "未采用 ignored"),
    *("撤回 recalled", "待报 pending"),
)


def add_commands(commands: Commands, common: argparse.ArgumentParser) -> None:
    """account; gaps."""
    parser = add_command(
        commands,
        common,
        "account",
        _account,
        says="what each bureau delivered on a day and where it is now; exit 1 where the two sides differ",
        example="yongtong account --day 2026-11-28 --bureau water",
    )
    parser.add_argument("--day", type=_day, metavar="DAY", help="of the city, YYYY-MM-DD (today)")
    parser.add_argument("--bureau", metavar="BUREAU", help="of this one alone")
    parser = add_command(
        commands,
        common,
        "gaps",
        _gaps,
        says="deliveries that their senders numbered and that have not come; exit 1 where there are any",
        example="yongtong gaps --feed water-register",
    )
    parser.add_argument("--feed", metavar="FEED", help="of this one alone")
    parser.add_argument("--bureau", metavar="BUREAU", help="of this one alone")


def _day(text: str) -> str:
    return date.fromisoformat(text).isoformat()


def _account(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    day = options.day or places.utc_now().astimezone(CITY_TIME).date().isoformat()
    with closing(opening.open_journal(settings)) as journal, closing(opening.open_store(settings)) as store:
        rows = account(journal, store, day, options.bureau)
        entry = journal.account_of(day)
        holds = entry is None or closing_holds(journal, entry)
    balanced = all(row.balanced for row in rows) and holds
    if options.json:
        print_json(_document(day, rows, entry, holds, balanced))
    else:
        _print_rows(day, rows)
        _print_entry(entry, holds)
        say("平衡 balanced" if balanced else "不平衡 NOT BALANCED")
    return 0 if balanced else 1


def _document(
    day: str, rows: tuple[Row, ...], entry: LoggedEntry | None, holds: bool, balanced: bool
) -> dict[str, Any]:
    return {
        "day": day,
        "balanced": balanced,
        "entry": entry.index if entry else None,
        "entry_holds": holds,
        "rows": [row_document(row) for row in rows],
    }


def _print_rows(day: str, rows: tuple[Row, ...]) -> None:
    """What came and where it is, a line each and none for what there is none of: a table as wide as all that can become
    of a delivery fits no screen."""
    body = [
        [row.bureau, row.feed, f"{title} {head}", getattr(row, of)[name]]
        for row in rows
        for title, heads, names, of in (
            ("报送件", DELIVERIES, BECAME, "deliveries"),
            ("记录", RECORDS, PLACED, "records"),
        )
        for head, name in zip(heads, ("received", *names), strict=True)
        if name == "received" or getattr(row, of)[name]
    ]
    print_table(f"{day} 日清账 Account", ["单位 bureau", "供数任务 feed", "", "数 count"], body)
    found = [(row, one) for row in rows for one in row.differences]
    if found:
        body = [
            [row.bureau, row.feed, one.message_id, one.entry, f"{MEANS[one.code][0]} {MEANS[one.code][1]}"]
            for row, one in found
        ]
        print_table("差异 Differences", ["单位 bureau", "供数任务 feed", "message id", "entry", ""], body)


def _print_entry(entry: LoggedEntry | None, holds: bool) -> None:
    if entry is None:
        say("尚未记入审计日志 not entered in the log yet: serve does so after midnight")
    elif holds:
        say(f"已记入审计日志第 {entry.index} 条，与今重算一致 entered as entry {entry.index}, and the same made again")
    else:
        say(f"审计日志第 {entry.index} 条所记与今重算不符 entry {entry.index} says otherwise than the log made again")


def _gaps(options: argparse.Namespace) -> int:
    with closing(opening.open_journal(settings_of(options))) as journal:
        found = journal.gaps(options.bureau, options.feed)
    if options.json:
        gaps = [gap_document(gap) for gap in found.gaps]
        print_json({"counted": [{**_names(one), "highest": one.highest, "received": one.received}
                                for one in found.counted], "gaps": gaps})  # fmt: skip
        return 1 if gaps else 0
    counted = [[one.sender, one.feed, one.highest, one.received] for one in found.counted]
    heads = ["单位 bureau", "供数任务 feed"]
    print_table("报送序号 Numbered", [*heads, "最大 highest", "已收 received"], counted)
    body = [[gap.sender, gap.feed, gap.first, gap.last, gap.missing, gap.since] for gap in found.gaps]
    print_table("缺号 Gaps", [*heads, "自 from", "至 to", "件数 missing", "发现 since"], body)
    return 1 if body else 0


def _names(one: Any) -> dict[str, str]:
    return {"bureau": one.sender, "feed": one.feed}
