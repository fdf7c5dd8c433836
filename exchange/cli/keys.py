"""The bus's own keys: `key …` puts a new one in the place of another, `anchors update` follows it at a partner's."""

import argparse
from pathlib import Path
from typing import Final, get_args

from connectors.partner.folder import PartnerFolder
from connectors.partner.heads import Consistency, Heads
from exchange import app
from exchange.anchor_updates import follow_changes, read_update
from exchange.cli.output import print_json, print_table, say
from exchange.cli.parsing import Commands, add_command, add_group, settings_of
from exchange.cli.partner import add_partner_options, folder_of, partner_of
from exchange.cli.people import acting, add_person_options, proposed, registry
from exchange.own_keys import Changeable
from security.errors import Misconfigured, Refusal
from security.keys import Kind

SUITES: Final = {"answer": get_args(Kind), "log": ("EdDSA", "SM2")}


def add_commands(commands: Commands, common: argparse.ArgumentParser) -> None:
    """key propose|rotate|list, anchors update."""
    key = add_group(commands, "key", says="the bus's own keys: put a new one in the place of another")
    propose = add_command(
        key,
        common,
        "propose",
        _propose,
        says="make a key beside the one in force, and put it before a security officer",
        example="yongtong key propose log --ground 年度更换 --by 系统管理员",
    )
    propose.add_argument("name", choices=list(get_args(Changeable)), help="of receipts and answers, or of the log")
    propose.add_argument("--suite", choices=get_args(Kind), help="the new key's (as it is)")
    propose.add_argument("--ground", required=True, help="why")
    rotate = add_command(
        key,
        common,
        "rotate",
        _rotate,
        says="let a decided key sign from the next head on; with the bus stopped",
        example="yongtong key rotate d-1f2e3d4c5b6a --by 系统管理员",
    )
    rotate.add_argument("decision", metavar="DECISION")
    add_command(key, common, "list", _list, says="every change of the bus's keys", example="yongtong key list")
    for parser in (propose, rotate):
        add_person_options(parser)
    anchors = add_group(commands, "anchors", says="what a bureau trusts of the bus")
    update = add_command(
        anchors,
        common,
        "update",
        _update,
        says="follow changes of the bus's keys, each proven under the keys that are trusted already",
        example="yongtong anchors update --as water",
    )
    update.add_argument("--file", type=Path, metavar="FILE", help="the news as a file, from wherever, and ask nobody")
    add_partner_options(update, required=True)


def _propose(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    name: Changeable = options.name
    with acting(options) as (opened, officer):
        kind = options.suite or app.suite_of(settings, name)
        if kind not in SUITES[name]:
            raise Misconfigured(f"the {name} key is one of {', '.join(SUITES[name])}, not {kind}")
        body = app.make_next_key(settings, name, kind, options.ground, app.utc_now())
        try:
            decision = opened.propose_key(body, officer)
        except Refusal:
            app.forget_next_key(settings, body)
            raise
    return proposed(options, {"decision": decision, "name": name, "algorithm": body.algorithm, "key": body.key})


def _rotate(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    with acting(options) as (opened, officer):
        body = opened.key_change(options.decision, officer)
    anchors = app.change_key(settings, options.decision, body, officer)
    said = {"name": body.name, "algorithm": body.algorithm, "key": body.key}
    if body.name == "log":
        said["former_until_size"] = str(anchors.former_log_keys[-1].last_size)
    print_json(said) if options.json else print_table("密钥已更换 Key changed", ["", ""], said.items())
    say("旧私钥不再使用，请离线封存或销毁 the former private key signs nothing more: put it away, or destroy it")
    say("next: yongtong serve; 各单位执行 each bureau runs: yongtong anchors update --as BUREAU")
    return 0


def _list(options: argparse.Namespace) -> int:
    with registry(settings_of(options)) as opened:
        changes = opened.key_changes()
    if options.json:
        print_json({"changes": [{"entry": index, "change": body} for index, body in changes]})
        return 0
    rows = [(index, body.name, body.algorithm, body.key[:32], body.ground) for index, body in changes]
    print_table("密钥更换 Changes of keys", ["entry", "key", "algorithm", "public key or certificate", "ground"], rows)
    return 0


def _update(options: argparse.Namespace) -> int:
    folder = PartnerFolder(folder_of(options))
    try:
        octets = options.file.read_bytes() if options.file else partner_of(options).changes_of_keys()
    except OSError as problem:
        raise Misconfigured(f"{options.file}: {problem.strerror}") from problem
    followed = follow(octets, folder)
    anchors = folder.anchors
    said = {"changes": followed, "log_key": anchors.log_key, "receipt_certificates": len(anchors.receipt_certificates)}
    print_json(said) if options.json else print_table("信任锚 Anchors", ["", ""], said.items())
    return 0


def follow(octets: bytes, folder: PartnerFolder) -> int:
    """Take into a partner's anchors what an update proves, change by change; gives how many were news.

    Raises Refusal `anchor.update_invalid`, `audit.checkpoint_invalid`, `audit.log_forked`; what held before it is kept.
    """
    news = 0
    for change in follow_changes(read_update(octets), lambda: folder.anchors):
        heads = Heads(folder, app.utc_now)
        known = heads.known_size()
        if change.is_new or change.size > known:
            first, second = sorted((known, change.size))
            heads.follow(change.checkpoint, Consistency(first, second, change.nodes))
        if change.is_new:
            folder.replace_anchors(change.anchors)
            news += 1
    return news
