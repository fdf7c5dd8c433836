"""The bureau's side: every entry of the log in its own name, and what of it the bureau does not know."""

import argparse
from collections.abc import Mapping
from typing import Final

import msgspec

from connectors.partner.folder import PartnerFolder
from connectors.partner.own_entries import OwnEntry, Unknown, decided, enrolled, unknown
from exchange.cli.output import print_json, print_table, say
from exchange.cli.parsing import Commands, add_command, change_number
from exchange.cli.partner import add_partner_options, folder_of, partner_of


def add_commands(commands: Commands, common: argparse.ArgumentParser) -> None:
    """entries."""
    entries = add_command(
        commands,
        common,
        "entries",
        _entries,
        says="every entry of the log in one's own name, and which certificates and deliveries of it are unknown here",
        example="yongtong entries --as water --after 1200",
    )
    entries.add_argument("--after", type=change_number, default=0, metavar="N", help="go on after this entry (0)")
    add_partner_options(entries, required=True)


def _entries(options: argparse.Namespace) -> int:
    own, folder = partner_of(options).entries(options.after), PartnerFolder(folder_of(options))
    certificates, receipts = folder.certificates(), folder.receipts()
    marked = [(entry, unknown(entry, certificates, receipts)) for entry in own.entries]
    if options.json:
        listed = [{**msgspec.to_builtins(entry), "unknown": marks} for entry, marks in marked]
        print_json({"count": own.count, "next": own.next, "entries": listed})
        return 0
    rows = [
        (
            e.number,
            e.leaf["time"][:19],
            e.leaf["type"],
            e.leaf["outcome"],
            _about(e),
            ", ".join(_UNKNOWN[mark] for mark in marks),
        )
        for e, marks in marked
    ]
    title = f"本单位名下审计记录 Entries in your name: {len(rows)} after {options.after}, {own.count} in all"
    print_table(title, ["entry", "time", "type", "outcome", "about", "unknown here 本机未知"], rows)
    if any(marks for _, marks in marked):
        say("next: a certificate may be another folder's of yours; else call the security officer, who revokes it")
    return 0


_UNKNOWN: Final[Mapping[Unknown, str]] = {
    "certificate": "certificate 证书",
    "delivery": "delivery 报送件",
    "erased delivery": "delivery whose content was erased 内容已删除的报送件",
}


def _about(entry: OwnEntry) -> str:
    """What an entry is about, in a few words."""
    body, detail = decided(entry), entry.detail or {}
    named = [f"{fingerprint[:16]}…" for fingerprint in enrolled(entry)]
    words = (*named, body.get("action"), body.get("what"), body.get("target"), str(body.get("of", ""))[:16])
    said = (*words, entry.leaf["feed"], detail.get("message_id"), detail.get("view"), detail.get("component"))
    return " ".join(str(word) for word in said if word)
