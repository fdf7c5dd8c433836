"""销毁 Content erased by two persons, on its ground: `erasure ask|carry|due`, and `spill ask|purge` by the same way.

An audit officer asks, a security officer approves (`decision approve`), and the audit officer carries it out, once.
"""

import argparse
from contextlib import closing

from exchange import erased_apart, erasing
from exchange.app import opening, places
from exchange.cli.output import print_json, print_table
from exchange.cli.parsing import Commands, add_command, add_group, settings_of
from exchange.cli.people import acting, add_person_options, proposed
from exchange.decision_documents import ErasureBody
from exchange.entry import InboxRow
from security.errors import Misconfigured, Refusal

KINDS = ("retention", "recall", "personal")


def add_commands(commands: Commands, common: argparse.ArgumentParser) -> None:
    """erasure ask|carry|due, spill ask|purge."""
    erasure = add_group(commands, "erasure", says="content erased by two persons; receipts and proofs go on verifying")
    spill = add_group(commands, "spill", says="a delivery that should never have come, erased by two persons")
    ask = add_command(
        erasure,
        common,
        "ask",
        _ask,
        says="propose it; a security officer approves",
        example="yongtong erasure ask 20261122-7f3a9c --kind personal --ground 个人信息删除请求 --by 赵六",
    )
    ask.add_argument("message_id", metavar="MESSAGE_ID", nargs="?", default="", help="none with --kind retention")
    ask.add_argument("--kind", dest="reason", choices=KINDS, default="recall", help="retention: all that is due")
    spilt = add_command(
        spill,
        common,
        "ask",
        _ask,
        says="propose it; a security officer approves",
        example="yongtong spill ask 20261122-7f3a9c --ground 涉密数据误报 --by 赵六",
    )
    spilt.add_argument("message_id", metavar="MESSAGE_ID")
    spilt.set_defaults(reason="spill")
    for parser in (ask, spilt):
        parser.add_argument("--sender", metavar="BUREAU", help="where two bureaus use the same message id")
        parser.add_argument("--ground", required=True, help="why; stands in the decision")
        add_person_options(parser)
    for group, of, name in ((erasure, "erasure", "carry"), (spill, "spill", "purge")):
        carry = add_command(
            group,
            common,
            name,
            _carry,
            says="erase what was approved; entries, receipts and proofs stay",
            example=f"yongtong {of} {name} d-1f2e3d4c5b6a --by 赵六",
        )
        carry.add_argument("decision", metavar="DECISION")
        add_person_options(carry)
    again = add_command(
        erasure,
        common,
        "again",
        _again,
        says="erase what a restored backup brought back, by the decisions of before",
        example="yongtong erasure again --by 赵六",
    )
    add_person_options(again)
    add_command(
        erasure,
        common,
        "due",
        _due,
        says="what is past the time that the settings keep it; nothing goes without two persons",
        example="yongtong erasure due",
    )


def _ask(options: argparse.Namespace) -> int:
    if (options.reason == "retention") == bool(options.message_id):
        raise Misconfigured(
            "config.option", "--kind retention covers all that is due, and names no message; any other kind names one"
        )
    with acting(options) as (registry, officer):
        if options.reason == "retention":
            with closing(opening.open_bus(settings_of(options))) as bus:
                kept = settings_of(options).retention
                found = erasing.due(bus, kept.evidence_days, kept.audit_detail_days)
            days = found.evidence_before, found.details_before
            body = ErasureBody("", "", options.ground, "retention", *days)
            said: dict[str, object] = {"deliveries": found.deliveries, "details": found.details}
        else:
            row = _delivery(options, registry.journal.inbox(options.sender, options.message_id))
            body = ErasureBody(row.sender, row.message_id, options.ground, options.reason)
            said = {"sender": row.sender, "message_id": row.message_id}
        decision = registry.propose_erasure(body, officer)
    return proposed(options, {"decision": decision, "kind": options.reason, **said})


def _delivery(options: argparse.Namespace, row: InboxRow | None) -> InboxRow:
    if row is None:
        raise Refusal("delivery.unknown", options.message_id)
    if options.reason == "recall" and row.status != "recalled":
        raise Refusal("erasure.not_recalled", row.message_id)
    return row


def _carry(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    with acting(options) as (opened, officer), closing(opening.open_bus(settings)) as bus:
        opened.decided_erasure(options.decision, officer)
        # First: a backup from before the erasure outlives the entry that will say so.
        erased_apart.remember(places.heads_folder(settings), opened.signed(options.decision))
        erased = erasing.carry_out(options.decision, officer, bus)
    said = {
        "kind": erased.body.reason,
        "message_id": erased.body.message_id,
        "sender": erased.body.sender,
        "state": "erased",
        "deliveries": len(erased.rows),
        "details": erased.details,
    }
    print_json(said) if options.json else print_table("已销毁 Erased", ["", ""], said.items())
    return 0


def _again(options: argparse.Namespace) -> int:
    settings, done = settings_of(options), list[dict[str, object]]()
    with acting(options) as (opened, officer), closing(opening.open_bus(settings)) as bus:
        for one in erased_apart.to_repeat(places.heads_folder(settings), opened):
            if not opened.is_decided(one.id):
                opened.decide_again(one.id, one.signed, officer)
            erased = erasing.carry_out(one.id, officer, bus)
            said: dict[str, object] = {"decision": one.id, "kind": one.body.reason, "message_id": one.body.message_id}
            done.append({**said, "deliveries": len(erased.rows), "details": erased.details})
    if options.json:
        print_json({"erased": done})
    else:
        columns = ["decision", "kind", "message", "deliveries", "details"]
        print_table("已再次销毁 Erased again", columns, [list(one.values()) for one in done])
    return 0


def _due(options: argparse.Namespace) -> int:
    kept = settings_of(options).retention
    with closing(opening.open_bus(settings_of(options))) as bus:
        found = erasing.due(bus, kept.evidence_days, kept.audit_detail_days)
    if options.json:
        print_json(found)
        return 0
    rows = [
        ("原始报文 original bytes", kept.evidence_days, found.evidence_before, found.deliveries),
        ("审计明细 audit details", kept.audit_detail_days, found.details_before, found.details),
    ]
    print_table("到期 Past its time", ["", "days kept", "before", "due"], rows)
    return 0
