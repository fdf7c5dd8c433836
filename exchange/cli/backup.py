"""`backup` and `restore`: all that the bus knows in one file while it serves, and back again, proven equal."""

import argparse
from pathlib import Path
from typing import Any, Final

from exchange.app import saving
from exchange.cli.output import print_json, print_table, say
from exchange.cli.parsing import Commands, add_command, settings_of
from exchange.cli.people import acting, add_person_options
from exchange.settings import load_settings
from security.errors import Misconfigured

_LOST: Final = {
    "size": "本机日志条数 entries here",
    "root": "本机日志树根 root here",
    "known_log": "在外已知的日志 log known outside",
    "known_size": "其条数 its entries",
    "known_root": "其树根 its root",
    "gap": "丢失条数 entries lost",
}


def add_commands(commands: Commands, common: argparse.ArgumentParser) -> None:
    """backup, restore."""
    make = add_command(
        commands,
        common,
        "backup",
        _backup,
        says="write all that the bus knows to one file, while it serves; no key is in it",
        example="yongtong backup /mnt/backup/2026-11-28.tar --by 系统管理员",
    )
    make.add_argument("file", type=Path, metavar="FILE", help="a new file; what stands is never written over")
    make.add_argument("--check", action="store_true", help="verify a backup that was made, and restore nothing")
    add_person_options(make, required=False)
    back = add_command(
        commands,
        common,
        "restore",
        _restore,
        says="put a backup back where no bus stands; exit 1 and nothing left behind unless it is equal",
        example="yongtong restore /mnt/backup/2026-11-28.tar --known water.checkpoint",
    )
    back.add_argument("file", type=Path, metavar="FILE")
    back.add_argument(
        "--known",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a head that others were shown: a witness's or bureau's checkpoint, or a receipt; may be repeated",
    )


def _backup(options: argparse.Namespace) -> int:
    if options.check:
        return _check(options)
    if not options.by:
        raise Misconfigured(
            "config.option", "a backup is entered in the audit: give --by NAME, of a system administrator"
        )
    settings = settings_of(options)
    with acting(options) as (opened, officer):
        by = opened.person(officer.key.public_key).pseudonym
        made = saving.make_backup(settings, options.file, opened.journal, by, say)
    said = {
        "file": str(options.file),
        "id": made.id,
        "entry": made.entry,
        "size": made.size,
        "state_root": made.state_root,
        "members": made.members,
        "octets": made.octets,
    }
    print_json(said) if options.json else print_table("备份已完成 Backed up", ["", ""], said.items())
    keys = settings.at(settings.keys.folder)
    say(
        f"密钥不在备份中：{keys} 须另行离线保管 no key is in it: keep {keys} apart, offline, or nothing can be restored"
    )
    say("备份含姓名与原始报文，请加密保存 it holds names and original bytes: encrypt it, e.g. age -r RECIPIENT FILE")
    say(f"next: yongtong backup --check {options.file}")
    return 0


def _check(options: argparse.Namespace) -> int:
    ours = Path(options.settings)
    found = saving.check_backup(options.file, load_settings(ours) if ours.exists() else None, say)
    made = found.manifest
    said: dict[str, Any] = {
        "origin": made.origin,
        "made_at": made.made_at,
        "size": made.size,
        "state_root": made.state_root,
        "members": made.members,
        "entries_verified": found.entries,
        "receipts_verified": found.receipts,
        "reports_verified": found.reports,
        "signed_by_our_key": ours.exists(),
    }
    print_json(said) if options.json else print_table("备份完好 The backup holds", ["", ""], said.items())
    return 0


def _restore(options: argparse.Namespace) -> int:
    restored = saving.restore(settings_of(options), options.file, options.known, say)
    made, gap = restored.found.manifest, restored.gap
    said: dict[str, Any] = {
        "made_at": made.made_at,
        "size": made.size,
        "state_root": restored.state_root,
        "equal": True,
    }
    lost = None
    if gap is not None:
        known = gap.known
        lost = {"size": gap.size, "root": gap.root, "known_log": known.origin, "known_size": known.size}
        lost |= {"known_root": known.root.hex(), "gap": max(known.size - gap.size, 0)}
    if options.json:
        print_json({**said, "lost": lost, "erase_again": restored.erasures})
    else:
        print_table("已恢复，与备份一致 Restored, and equal", ["", ""], said.items())
        if lost is not None:
            print_table("备份之后丢失 Lost since the backup", ["", ""], [(_LOST[name], lost[name]) for name in _LOST])
    if restored.erasures:
        say("备份带回了已销毁的内容，须再次销毁 what was erased since the backup is back, and is erased again by:")
        say(f"  yongtong erasure again --by NAME   ({', '.join(restored.erasures)})")
    if gap is None:
        say("数据库之外未见更大的存证点 no larger head is known outside; ask witnesses and bureaus before you serve")
        say("next: yongtong doctor; yongtong serve")
    else:
        say(
            "备份之后的记录已丢失，不得在原日志名下续写 entries were lost since; the log is not extended under its name"
        )
        say("next: yongtong epoch propose --ground … --by NAME; yongtong decision approve …; yongtong epoch open …")
    return 0
