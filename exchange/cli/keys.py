"""The bus's own keys: `key …` puts a new one in the place of another, `epoch …` begins a new epoch of the log where one
was stolen; `anchors update` follows both at a partner's."""

import argparse
from pathlib import Path
from typing import Final, get_args

from connectors.partner.folder import PartnerFolder
from connectors.partner.heads import Consistency, Heads
from exchange.anchor_updates import Followed, follow_changes, read_update
from exchange.app import changing, keys_in_force, places, trusted
from exchange.cli.output import print_json, print_table, say
from exchange.cli.parsing import Commands, add_command, add_group, settings_of
from exchange.cli.partner import add_partner_options, folder_of, partner_of
from exchange.cli.people import acting, add_person_options, proposed, registry
from exchange.decision_documents import AnchorBody
from exchange.decisions import EpochBegun, KeyChange
from exchange.own_keys import Changeable
from security.errors import Misconfigured, Refusal
from security.keys import Kind

SUITES: Final = {"answer": get_args(Kind), "log": ("EdDSA", "SM2")}


def add_commands(commands: Commands, common: argparse.ArgumentParser) -> None:
    """key propose|rotate|list, epoch propose|open, anchors update."""
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
    epoch = add_group(commands, "epoch", says="a new epoch of the log, after a key was stolen")
    begin = add_command(
        epoch,
        common,
        "propose",
        _propose_epoch,
        says="make new keys for log and answers, and put the new epoch before a security officer",
        example="yongtong epoch propose --ground 日志私钥失窃 --by 系统管理员",
    )
    begin.add_argument("--ground", required=True, help="what happened")
    begin.add_argument("--known-head", type=Path, metavar="FILE", help="the largest head known outside, if not ours")
    opening = add_command(
        epoch,
        common,
        "open",
        _open_epoch,
        says="begin a decided epoch; with the bus stopped",
        example="yongtong epoch open d-1f2e3d4c5b6a --by 系统管理员",
    )
    opening.add_argument("decision", metavar="DECISION")
    for parser in (propose, rotate, begin, opening):
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
        kind = options.suite or keys_in_force.suite_of(settings, name)
        if kind not in SUITES[name]:
            raise Misconfigured("config.option", f"the {name} key is one of {', '.join(SUITES[name])}, not {kind}")
        body = changing.make_next_key(settings, name, kind, options.ground, places.utc_now())
        try:
            decision = opened.propose_key(body, officer)
        except Refusal:
            changing.forget_next_key(settings, body)
            raise
    return proposed(options, {"decision": decision, "name": name, "algorithm": body.algorithm, "key": body.key})


def _rotate(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    with acting(options) as (opened, officer):
        body = opened.key_change(options.decision, officer)
    anchors = changing.change_key(settings, options.decision, body, officer)
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
    each = [(i, key, b.body.log if isinstance(b, EpochBegun) else key.name) for i, b in changes for key in _keys_of(b)]
    rows = [(index, name, key.algorithm, key.key[:32], key.ground) for index, key, name in each]
    print_table("密钥更换 Changes of keys", ["entry", "key", "algorithm", "public key or certificate", "ground"], rows)
    return 0


def _keys_of(change: KeyChange) -> tuple[AnchorBody, ...]:
    return (change.body.key, change.body.answer) if isinstance(change, EpochBegun) else (change,)


def _propose_epoch(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    known = None
    if options.known_head:
        try:
            known = trusted.anchors_of(settings).head(options.known_head.read_text(encoding="utf-8"))
        except (OSError, UnicodeError) as problem:
            raise Misconfigured("config.file", f"{options.known_head}: not readable ({problem})") from problem
    with acting(options) as (opened, officer):
        gap = trusted.log_gap(settings, opened.journal)
        if gap is not None and (known is None or known.size < gap.known.size):
            known = gap.known
        log = opened.next_log(known.origin if known else "")
        body = changing.make_epoch(settings, log, options.ground, known, places.utc_now())
        try:
            if gap is None:
                decision = opened.propose_epoch(body, officer)
            else:
                decision, apart = opened.propose_epoch_apart(body, officer)
                changing.keep_apart(settings, apart)
        except Refusal:
            changing.forget_epoch(settings, body)
            raise
    return proposed(options, {"decision": decision, "log": body.log, "key": body.key.key, "answer": body.answer.key})


def _open_epoch(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    with acting(options) as (opened, officer):
        apart = changing.apart_of(settings) if trusted.log_gap(settings, opened.journal) else None
        body = opened.epoch_decided(options.decision, officer, apart)
    anchors = changing.open_epoch(settings, options.decision, body, officer, apart)
    former = anchors.former_epochs[-1]
    said = {"log": anchors.log_name, "former_log": former.log, "size": former.size, "root": former.root}
    print_json(said) if options.json else print_table("新纪元已开始 A new epoch has begun", ["", ""], said.items())
    say("旧私钥请封存备查 put the former private keys away, as evidence: nothing asks for them again")
    say("next: yongtong serve; 各单位与见证方执行 each bureau and witness runs: yongtong anchors update --as BUREAU")
    return 0


def _update(options: argparse.Namespace) -> int:
    folder = PartnerFolder(folder_of(options))
    try:
        octets = options.file.read_bytes() if options.file else partner_of(options).changes_of_keys()
    except OSError as problem:
        raise Misconfigured("config.file", f"{options.file}: {problem.strerror}") from problem
    followed = follow(octets, folder)
    anchors = folder.anchors
    said = {"changes": followed, "log_key": anchors.log_key, "receipt_certificates": len(anchors.receipt_certificates)}
    print_json(said) if options.json else print_table("信任锚 Anchors", ["", ""], said.items())
    return 0


def follow(octets: bytes, folder: PartnerFolder) -> int:
    """Take into a partner's anchors what an update proves, change by change; gives how many were news.

    Raises Refusal `anchor.update_invalid`, `audit.checkpoint_invalid`, `audit.log_forked`, `audit.log_truncated`; what
    held before it is kept.
    """
    news = 0
    for change in follow_changes(read_update(octets), lambda: folder.anchors):
        known = Heads(folder, places.utc_now).known_size()
        if change.is_new and change.begun:
            cosigned = _check_cosigned(change, change.begun, folder)
        heads = Heads(folder, places.utc_now, anchors=change.anchors)
        first, second = sorted((known, change.size))
        offered = change.checkpoint, Consistency(first, second, change.nodes)
        if change.is_new and change.begun and known > change.begun.size:
            _begin_anew(change, change.begun, known, folder)
        elif change.is_new:
            # The anchors first: under the former ones the first head of a new epoch could not be read again.
            heads.check(*offered)
            folder.replace_anchors(change.anchors)
            heads.follow(*offered)
        elif change.size > known:
            heads.follow(*offered)
        if change.is_new and change.begun and cosigned:
            folder.keep_cosigned(change.checkpoint)  # a witness goes on from the first head of the new epoch
        news += change.is_new
    return news


def _check_cosigned(change: Followed, begun: EpochBegun, folder: PartnerFolder) -> bool:
    """Whether a witness's last head was lost with entries of the former epoch. Raises Refusal `audit.log_truncated`
    where two persons did not name one as large; both heads are kept."""
    text = folder.cosigned()
    size = folder.anchors.head(text).size if text else 0
    if size <= begun.size:
        return False
    kept = folder.keep_fork(text, change.checkpoint, None, places.utc_now())
    if size > begun.body.known_size:
        raise Refusal("audit.log_truncated", f"{size} and {begun.size}; both kept in {kept}")
    return True


def _begin_anew(change: Followed, begun: EpochBegun, known: int, folder: PartnerFolder) -> None:
    """Follow into an epoch that leaves out what was remembered of the one before, if two persons said so. Both heads
    are kept. Raises Refusal `audit.log_truncated`."""
    kept = folder.keep_fork(folder.remembered(), change.checkpoint, None, places.utc_now())
    if known > begun.body.known_size:
        raise Refusal("audit.log_truncated", f"{known} and {begun.size}; both kept in {kept}")
    say(f"旧纪元之存证点超出新日志，二者均已保存 the remembered head is beyond the new log; both are kept in {kept}")
    folder.replace_anchors(change.anchors)
    folder.remember(change.checkpoint)
