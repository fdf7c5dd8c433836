"""Deliveries that wait for a person: `held list|release|refuse`."""

import argparse
from contextlib import closing

from exchange.app import opening
from exchange.cli.output import print_json, print_table, say
from exchange.cli.parsing import Commands, add_command, add_group, settings_of
from exchange.cli.people import acting, add_person_options
from security.errors import Refusal


def add_commands(commands: Commands, common: argparse.ArgumentParser) -> None:
    """held list|release|refuse."""
    held = add_group(commands, "held", says="deliveries that would end more than their feed allows, or that failed")
    add_command(held, common, "list", _list, says="what waits for a person", example="yongtong held list")
    for decision, says in (("release", "let it through"), ("refuse", "end it; its report says that a person decided")):
        parser = add_command(
            held, common, decision, _decide, says=says, example=f"yongtong held {decision} water-2026-12 --by 李四"
        )
        parser.add_argument("message_id", metavar="MESSAGE_ID")
        parser.add_argument("--sender", metavar="BUREAU", help="where two bureaus use the same message id")
        add_person_options(parser)
        parser.set_defaults(decision=decision)


def _list(options: argparse.Namespace) -> int:
    with closing(opening.open_journal(settings_of(options))) as journal:
        rows = journal.held()
    names = ("sender", "feed", "message_id", "received_at", "content_length")
    if options.json:
        print_json({"held": [{name: getattr(row, name) for name in names} for row in rows]})
    else:
        print_table("暂存待核定 Held", names, [[getattr(row, name) for name in names] for row in rows])
    return 0


def _decide(options: argparse.Namespace) -> int:
    with acting(options) as (opened, officer):
        row = opened.journal.inbox(options.sender, options.message_id)
        if row is None:
            raise Refusal("delivery.unknown", options.message_id)
        opened.decide_delivery(row.id, options.decision, officer)
    if options.json:
        print_json({"message_id": row.message_id, "decision": options.decision})
    else:
        say(f"{row.message_id}: {options.decision}; act two carries it out, see yongtong report {row.message_id}")
    return 0
