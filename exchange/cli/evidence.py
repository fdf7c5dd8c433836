"""Original bytes of a delivery, under four eyes: `evidence ask|open`. What a sensitive feed sent nobody reads alone.

An audit officer asks, a security officer approves (`decision approve`), and it is opened once.
"""

import argparse
from contextlib import closing
from pathlib import Path

from exchange.app import opening, places
from exchange.cli.output import print_json, print_table
from exchange.cli.parsing import Commands, add_command, add_group, settings_of
from exchange.cli.people import acting, add_person_options, proposed
from exchange.evidence import is_erased
from exchange.journal import content_erased
from exchange.reading import reopened
from security.errors import Misconfigured, Refusal


def add_commands(commands: Commands, common: argparse.ArgumentParser) -> None:
    """evidence ask|open."""
    evidence = add_group(commands, "evidence", says="a delivery's original content, opened by two persons")
    ask = add_command(
        evidence,
        common,
        "ask",
        _ask,
        says="propose it; a security officer approves",
        example="yongtong evidence ask 20261122-7f3a9c --ground 纠纷取证 --by 赵六",
    )
    ask.add_argument("message_id", metavar="MESSAGE_ID")
    ask.add_argument("--sender", metavar="BUREAU", help="where two bureaus use the same message id")
    ask.add_argument("--ground", required=True, help="why; stands in the decision")
    add_person_options(ask)
    opened = add_command(
        evidence,
        common,
        "open",
        _open,
        says="write the content of an approved delivery to a file, once",
        example="yongtong evidence open d-1f2e3d4c5b6a content.csv --by 赵六",
    )
    opened.add_argument("decision", metavar="DECISION")
    opened.add_argument("file", metavar="FILE", type=Path)
    add_person_options(opened)


def _ask(options: argparse.Namespace) -> int:
    with acting(options) as (registry, officer):
        row = registry.journal.inbox(options.sender, options.message_id)
        if row is None:
            raise Refusal("delivery.unknown", options.message_id)
        decision = registry.propose_opening(row.sender, row.message_id, options.ground, officer)
    return proposed(options, {"decision": decision, "sender": row.sender, "message_id": row.message_id})


def _open(options: argparse.Namespace) -> int:
    with acting(options) as (registry, officer), closing(opening.open_bus(settings_of(options))) as bus:
        row = registry.decided_opening(options.decision, officer)
        if is_erased(row.evidence):
            raise Refusal("evidence.erased", content_erased(registry.journal.content_erased(row)))
        content = reopened(row, bus).content
        if options.file.exists():  # before the decision is used up
            raise Misconfigured(
                "config.stands", f"{options.file}: is there already, and is not written over; name another file"
            )
        # The entry first: whoever has the bytes is named in the log already.
        registry.carry_out(options.decision, officer)
        places.write_secret(options.file, content.read())
    said = {"message_id": row.message_id, "file": str(options.file), "bytes": content.size, "type": row.content_type}
    print_json(said) if options.json else print_table("已启封 Opened", ["", ""], said.items())
    return 0
