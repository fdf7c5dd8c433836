"""Original bytes of a delivery, under four eyes: `evidence ask|open`, `spill ask|purge`.

What a sensitive feed sent nobody reads alone, and what should never have come is erased by two. An audit officer
proposes either, a security officer approves (`decision approve`), and it is carried out once.
"""

import argparse
from contextlib import closing
from functools import partial
from pathlib import Path
from sqlite3 import Cursor
from typing import Literal

from exchange import app
from exchange.bus import Bus
from exchange.cli.output import print_json, print_table
from exchange.cli.parsing import Commands, add_command, add_group, settings_of
from exchange.cli.people import acting, add_person_options, proposed
from exchange.entry import InboxRow
from exchange.evidence import is_erased
from exchange.reading import reopened
from security.errors import AuditBroken, Misconfigured, Refusal


def add_commands(commands: Commands, common: argparse.ArgumentParser) -> None:
    """evidence ask|open, spill ask|purge."""
    evidence = add_group(commands, "evidence", says="a delivery's original content, opened by two persons")
    spill = add_group(commands, "spill", says="a delivery that should never have come, erased by two persons")
    for group, run, name in ((evidence, _ask_to_open, "evidence"), (spill, _ask_to_purge, "spill")):
        ask = add_command(
            group,
            common,
            "ask",
            run,
            says="propose it; a security officer approves",
            example=f"yongtong {name} ask 20261122-7f3a9c --ground 纠纷取证 --by 赵六",
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
    purge = add_command(
        spill,
        common,
        "purge",
        _purge,
        says="erase the bytes of an approved delivery; its entry, receipt and proofs stay",
        example="yongtong spill purge d-1f2e3d4c5b6a --by 赵六",
    )
    purge.add_argument("decision", metavar="DECISION")
    for parser in (opened, purge):
        add_person_options(parser)


def _ask_to_open(options: argparse.Namespace) -> int:
    return _ask(options, "opening")


def _ask_to_purge(options: argparse.Namespace) -> int:
    return _ask(options, "purge")


def _ask(options: argparse.Namespace, kind: Literal["opening", "purge"]) -> int:
    with acting(options) as (registry, officer):
        row = registry.journal.inbox(options.sender, options.message_id)
        if row is None:
            raise Refusal("delivery.unknown", options.message_id)
        decision = registry.propose_for_delivery(kind, row.sender, row.message_id, options.ground, officer)
    return proposed(options, {"decision": decision, "sender": row.sender, "message_id": row.message_id})


def _open(options: argparse.Namespace) -> int:
    with acting(options) as (registry, officer), closing(app.open_bus(settings_of(options))) as bus:
        row = registry.decided_delivery(options.decision, "opening", officer)
        if is_erased(row.evidence):
            raise Refusal("evidence.erased", row.message_id)
        content = reopened(row, bus).content
        if options.file.exists():  # before the decision is used up
            raise Misconfigured(f"{options.file}: is there already, and is not written over; name another file")
        # The entry first: whoever has the bytes is named in the log already.
        registry.carry_out(options.decision, officer)
        app.write_secret(options.file, content.read())
    said = {"message_id": row.message_id, "file": str(options.file), "bytes": content.size, "type": row.content_type}
    print_json(said) if options.json else print_table("已启封 Opened", ["", ""], said.items())
    return 0


def _purge(options: argparse.Namespace) -> int:
    with acting(options) as (registry, officer), closing(app.open_bus(settings_of(options))) as bus:
        row = registry.decided_delivery(options.decision, "purge", officer)
        # The bytes first: a crash in between leaves a decision that can be carried out again, and nothing readable.
        if not is_erased(row.evidence):
            _check_location(row, bus)
            bus.evidence.erase(row.evidence)
        registry.carry_out(options.decision, officer, partial(_forget, row.id, options.decision))
    said = {"message_id": row.message_id, "sender": row.sender, "state": "erased", "register": _left(row)}
    print_json(said) if options.json else print_table("已清除 Erased", ["", ""], said.items())
    return 0


def _check_location(row: InboxRow, bus: Bus) -> None:
    """Where the bytes lie is said in a table that nobody signed; which bytes they are, the entry says.

    Raises AuditBroken: otherwise whoever writes to the table would have another delivery's erased.
    """
    entry = bus.journal.entry(row.entry_index)
    stated = entry.detail.get("evidence_digest") if entry and entry.detail else None
    if bus.evidence.digest(row.evidence).hex != stated:
        raise AuditBroken(f"the evidence of {row.message_id} lies elsewhere than its entry says: nothing was erased")


def _left(row: InboxRow) -> str:
    """What the erased delivery has left beside its proofs."""
    return "its records stay in the register" if row.status == "processed" else "nothing of it is there"


def _forget(inbox_id: int, decision: str, cursor: Cursor, _: int) -> None:
    """The inbox forgets where it lay, and the key it was sealed with; what act two has not finished is refused."""
    cursor.execute("UPDATE inbox SET evidence = ? WHERE id = ?", (f"erased:{decision}", inbox_id))
    query = "UPDATE inbox SET status = 'waiting', decision = 'refuse' WHERE id = ? AND status IN ('held', 'waiting')"
    cursor.execute(query, (inbox_id,))
