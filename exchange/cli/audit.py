"""What an officer can prove: `audit search|verify|prove|checkpoint|export`, and `verify` with the cable out."""

import argparse
from contextlib import closing
from datetime import datetime
from pathlib import Path

import msgspec

from exchange import access, app, audit, ownership
from exchange.cli.bundles import add_exports, add_paper_option, verify_file
from exchange.cli.output import print_json, print_table, say
from exchange.cli.parsing import Commands, add_command, add_group, count, day, settings_of
from exchange.cli.people import acting, add_person_options
from exchange.entry import Detail, LoggedEntry
from exchange.journal import Journal
from exchange.receipts import VerifiedDocument, verify_receipt
from exchange.store.sqlite import Store
from security.anchors import Anchors
from security.bundle import is_bundle
from security.errors import Misconfigured

MOST_READS = 1_000_000  # of one day


def add_commands(commands: Commands, common: argparse.ArgumentParser) -> None:
    """audit search|verify|prove|checkpoint|export, verify."""
    group = add_group(commands, "audit", says="the log that nobody can rewrite unnoticed")
    search = add_command(
        group,
        common,
        "search",
        _search,
        says="entries, newest first; what they were about only for an audit officer, and that is an entry too",
        example="yongtong audit search --who-could-see 3302030101000001 --on 2026-11-20 --by 赵六",
    )
    for name in ("type", "outcome", "sender", "feed"):
        search.add_argument(f"--{name}", default="")
    search.add_argument("--since", type=_moment, metavar="TIME", help="ISO 8601 with its offset")
    search.add_argument("--until", type=_moment, metavar="TIME")
    search.add_argument("--limit", type=count, default=20, help="at most so many (20)")
    search.add_argument("--who-could-see", metavar="ID", help="instead: who could see this component, and who asked")
    search.add_argument("--on", type=day, metavar="DATE", help="on that day (today)")
    add_person_options(search, required=False)
    verify = add_command(
        group,
        common,
        "verify",
        _verify_log,
        says="read the whole log again and believe none of it; exit 1 names the entry that is wrong",
        example="yongtong audit verify --journal /media/copy/journal.sqlite --anchors anchors.json",
    )
    verify.add_argument("--journal", type=Path, metavar="FILE", help="a copy, or its folder (this bus's own)")
    verify.add_argument("--anchors", type=Path, metavar="FILE", help="what is trusted (this bus's anchors.json)")
    prove = add_command(
        group,
        common,
        "prove",
        _prove,
        says="an entry with its proof; with its detail for an audit officer, and that is an entry too",
        example="yongtong audit prove 12 --by 赵六 --json",
    )
    add_person_options(prove, required=False)
    prove.add_argument("entry", metavar="ENTRY", type=int)
    add_command(
        group, common, "checkpoint", _checkpoint, says="the newest signed head", example="yongtong audit checkpoint"
    )
    add_exports(group, common)
    offline = add_command(
        commands,
        common,
        "verify",
        _verify_document,
        says="check a receipt, report or evidence bundle offline: nothing of the operator's but the trust anchors",
        example="yongtong verify receipt.json --anchors anchors.json",
    )
    offline.add_argument("document", metavar="BUNDLE|RECEIPT", type=Path)
    offline.add_argument("--anchors", required=True, type=Path, metavar="FILE")
    add_paper_option(offline)


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text}: give its offset, as in 2026-11-22T08:00+08:00")
    return moment


def read_anchors(path: Path) -> Anchors:
    """Trust anchors from a file. Raises Misconfigured naming it."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Anchors)
    except (OSError, msgspec.MsgspecError) as problem:
        raise Misconfigured(f"{path}: not a file of trust anchors: {problem}") from problem


def _search(options: argparse.Namespace) -> int:
    if options.who_could_see:
        return _who_could_see(options)
    if options.by:
        with acting(options) as (opened, officer):
            found = _found(options, opened.journal)
            opened.note_search(officer, _asked(options))
    else:
        with closing(app.open_journal(settings_of(options))) as journal:
            found = [msgspec.structs.replace(entry, detail=None) for entry in _found(options, journal)]
    if options.json:
        print_json({"entries": found})
        return 0
    rows = [
        (entry.index, leaf.time, leaf.type, leaf.outcome, leaf.sender, leaf.feed, leaf.actor)
        for entry in found
        for leaf in [entry.leaf]
    ]
    print_table("审计记录 Entries", ["entry", "time", "type", "outcome", "sender", "feed", "actor"], rows)
    return 0


def _found(options: argparse.Namespace, journal: Journal) -> list[LoggedEntry]:
    return journal.search(
        type=options.type,
        outcome=options.outcome,
        sender=options.sender,
        feed=options.feed,
        since=options.since,
        until=options.until,
        limit=options.limit,
    )


def _asked(options: argparse.Namespace) -> Detail:
    """What was searched for, as the audit keeps it."""
    names = ("type", "outcome", "sender", "feed", "since", "until", "who_could_see", "on")
    return {name: str(getattr(options, name)) for name in names if getattr(options, name)}


def _who_could_see(options: argparse.Namespace) -> int:
    if not options.by:
        raise Misconfigured("--who-could-see is for an audit officer: name yourself with --by")
    on = options.on or app.utc_now().astimezone(access.CITY_TIME).date()
    with acting(options) as (opened, officer), closing(Store(app.state_of(settings_of(options)))) as store:
        opened.note_search(officer, _asked(options))
        component = ownership.ownership(store, options.who_could_see, on).component
        first, last = access.bounds(on)
        reads = opened.journal.search(type="read", since=first, until=last, limit=MOST_READS)
        seen = access.who_could_see(component, on, opened.granted(), reads, opened.bureaus_by_certificate())
    if options.json:
        print_json({"component": options.who_could_see, "on": on, "could_see": seen})
        return 0
    rows = [(s.bureau, s.grant, s.action, s.target, s.purpose, ", ".join(map(str, s.asked)) or "-") for s in seen]
    title = f"{on} 可见 {options.who_could_see} 的单位 Who could see it"
    print_table(title, ["bureau", "grant", "", "view", "purpose", "entries in which it asked"], rows)
    return 0


def _verify_log(options: argparse.Namespace) -> int:
    settings = None if options.journal and options.anchors else settings_of(options)
    journal = options.journal or app.state_of(settings or settings_of(options))
    anchors = read_anchors(options.anchors) if options.anchors else app.anchors_of(settings or settings_of(options))
    say("正在重算全部审计记录 reading the whole log again …")
    verdict = audit.verify(journal, anchors)
    if options.json:
        print_json({"ok": verdict.ok, **msgspec.to_builtins(verdict)})
    else:
        print_verdict(verdict)
    return 0 if verdict.ok else 1


def print_verdict(verdict: audit.AuditVerdict) -> None:
    """What a whole reading found, for a person."""
    names = ("entries", "signed", "heads", "receipts", "reports", "erased", "found")
    title = "审计核验 Audit: everything holds" if verdict.ok else "审计核验 Audit: DOES NOT HOLD 不一致"
    print_table(title, [*names[:-1], "problems"], [[getattr(verdict, name) for name in names]])
    if not verdict.ok:
        rows = [("file" if p.entry is None else p.entry, p.what) for p in verdict.problems]
        print_table("不一致之处 What is wrong", ["entry", ""], rows)
        say(
            "next: keep this copy as it is, compare it with the partners' remembered checkpoints, restore from a backup"
        )


def _prove(options: argparse.Namespace) -> int:
    if options.by:
        with acting(options) as (opened, officer):
            opened.note_search(officer, {"entry": options.entry})
            proof = opened.journal.prove(options.entry)
    else:
        with closing(app.open_journal(settings_of(options))) as journal:
            proof = msgspec.structs.replace(journal.prove(options.entry), salt=None, detail=None)
    document = {
        "index": proof.index,
        "leaf": proof.leaf.decode(),
        "salt": proof.salt and proof.salt.hex(),
        "detail": proof.detail and proof.detail.decode(),
        "size": proof.size,
        "proof": [node.hex() for node in proof.path],
        "checkpoint": proof.checkpoint,
    }
    if options.json:
        print_json(document)
    else:
        print_table(f"存在性证明 Proof of entry {proof.index}", ["", ""], document.items())
    return 0


def _checkpoint(options: argparse.Namespace) -> int:
    with closing(app.open_journal(settings_of(options))) as journal:
        text = journal.checkpoint()
    print_json({"checkpoint": text}) if options.json else print(text, end="")
    return 0


def _verify_document(options: argparse.Namespace) -> int:
    anchors = read_anchors(options.anchors)
    try:
        with options.document.open("rb") as file:
            if is_bundle(file.read(2)):
                return verify_file(options.document, anchors, options.pdf, as_json=options.json)
        octets = options.document.read_bytes()
    except OSError as problem:
        raise Misconfigured(f"{options.document}: {problem.strerror}") from problem
    if options.pdf is not None:
        raise Misconfigured(f"{options.document}: is no bundle, and a paper is made of a bundle only")
    verified = verify_receipt(octets, anchors)
    if options.json:
        print_json({"ok": True, "kind": verified.kind, "document": verified.document})
    else:
        print_verified(verified)
    return 0


def print_verified(verified: VerifiedDocument) -> None:
    """What was checked of a receipt or report, one line each, and what was not."""
    document, checkpoint = verified.document, verified.checkpoint
    rows = [
        ("签名 signature", "holds, by an answer certificate among the anchors"),
        ("存证点 checkpoint", f"{checkpoint.origin}, {checkpoint.size} entries, signed by the log's key"),
        ("存在性 inclusion", f"entry {verified.index} lies under it"),
        ("承诺 detail", "is what the entry commits to"),
        ("证据类别 evidence class", document.get("evidence_class", "see the receipt")),
        *([("代报 asserted by", document["asserted_by"])] if "asserted_by" in document else []),
        ("见证 witnesses", "UNWITNESSED 无见证: none is asked for yet"),
        ("时间戳 timestamp", "NONE 无: the time is the bus's own clock"),
        ("报送 delivery", f"{document['sender']}, {document['feed']}, {document['message_id']}"),
    ]
    kind = {"receipt": "回执 Receipt", "report": "处理结果回执 Report"}[verified.kind]
    print_table(f"{kind}: {document['outcome']}", ["", ""], rows)
