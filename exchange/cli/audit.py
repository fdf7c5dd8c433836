"""What an officer can prove: `audit search|verify|prove|checkpoint|anchors|export|rebuild`."""

import argparse
import shlex
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from datetime import datetime
from pathlib import Path

import msgspec

from exchange import access, audit, log_index, ownership
from exchange.app import opening, places, trusted
from exchange.cli.bundles import add_exports
from exchange.cli.output import print_json, print_table, say
from exchange.cli.parsing import Commands, add_command, add_group, count, day, settings_of
from exchange.cli.people import acting, add_person_options, registry
from exchange.cli.verifying import read_anchors
from exchange.entry import CITY_TIME, Detail, LoggedEntry
from exchange.journal import content_erased
from exchange.presenting import present
from exchange.registry import Registry
from security.errors import Misconfigured

MOST_READS = 1_000_000  # of one day
IN_DETAILS = ("message", "component", "purpose")
_SEARCHED = {
    "type": "delivery, refusal, read, processing, decision …",
    "outcome": "accepted, answered, processed … or a refusal's code",
    "code": "the same, and refusals of strangers, which are counted in one entry",
    "sender": "the bureau in whose name it was",
    "bureau": "the same, or whose connection or key it was",
    "feed": "feed",
    "person": "pseudonym of who acted",
    "message": "message id; for an audit officer",
    "component": "component that was asked for; for an audit officer",
    "purpose": "purpose that was stated; for an audit officer",
}
# As the audit keeps that it was searched for: these would be found as if they had been done.
_ASKED_AS = {name: f"searched_{name}" for name in ("component", "purpose")}


def add_commands(commands: Commands, common: argparse.ArgumentParser) -> None:
    """audit search|verify|prove|checkpoint|anchors|export|rebuild|present."""
    group = add_group(commands, "audit", says="the log that nobody can rewrite unnoticed")
    search = add_command(
        group,
        common,
        "search",
        _search,
        says="entries, newest first; what they were about only for an audit officer, and that is an entry too",
        example="yongtong audit search --who-could-see 3302030101000001 --on 2026-11-20 --by 赵六",
    )
    one_of = search.add_mutually_exclusive_group()
    for name, says in _SEARCHED.items():
        (one_of if name in ("outcome", "code") else search).add_argument(f"--{name}", default="", help=says)
    search.add_argument("--since", type=_moment, metavar="TIME", help="ISO 8601 with its offset")
    search.add_argument("--until", type=_moment, metavar="TIME")
    search.add_argument("--limit", type=count, default=20, help="at most so many (20)")
    search.add_argument("--before", type=int, metavar="ENTRY", help="only entries numbered lower: the next page")
    search.add_argument("--after", type=int, metavar="ENTRY", help="only entries numbered higher, oldest first")
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
    verify.add_argument(
        "--against",
        type=Path,
        action="append",
        default=[],
        metavar="CHECKPOINT",
        help="a head that a partner or witness remembers must be of this log; may be given again",
    )
    add_command(
        group,
        common,
        "anchors",
        _anchors,
        says="all that a partner trusts of this bus: keys, witnesses, authorities; hand it out as anchors.json",
        example="yongtong audit anchors",
    )
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
    rebuild = add_command(
        group,
        common,
        "rebuild",
        _rebuild,
        says="make the index that search uses again from the entries; the log itself is never rewritten",
        example="yongtong audit rebuild --check",
    )
    rebuild.add_argument("--check", action="store_true", help="only compare; exit 1 where the index differs")
    shown = add_command(
        group,
        common,
        "present",
        _present,
        says="enter receipts of entries that were lost before a restore: what they prove stands in the log again",
        example="yongtong audit present lost/*.receipt.json --by 赵六",
    )
    shown.add_argument("file", type=Path, nargs="+", metavar="RECEIPT")
    add_person_options(shown)
    add_exports(group, common)


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text}: give its offset, as in 2026-11-22T08:00+08:00")
    return moment


def _search(options: argparse.Namespace) -> int:
    if options.who_could_see:
        return _who_could_see(options)
    if options.by:
        with acting(options) as (opened, officer):
            found = _found(options, opened)
            opened.note_search(officer, _asked(options))
    else:
        # Whether an entry is found by its detail says what the detail is.
        if any(getattr(options, name) for name in IN_DETAILS):
            raise Misconfigured(
                "config.option", "--message, --component, --purpose are for an audit officer: name yourself with --by"
            )
        with registry(settings_of(options)) as opened:
            found = [msgspec.structs.replace(entry, detail=None) for entry in _found(options, opened)]
    following = _next_page(options, found)
    if options.json:
        print_json({"entries": found, "next": following})
        return 0
    rows = [
        (entry.index, leaf.time, leaf.type, leaf.outcome, leaf.sender, leaf.feed, leaf.actor)
        for entry in found
        for leaf in [entry.leaf]
    ]
    print_table("审计记录 Entries", ["entry", "time", "type", "outcome", "sender", "feed", "actor"], rows)
    if following:
        say(f"下一页 next page: {following}")
    return 0


def _found(options: argparse.Namespace, opened: Registry) -> list[LoggedEntry]:
    theirs = opened.bureaus_by_certificate() if options.bureau else {}
    # What an entry about strangers counts stands in its detail.
    by_outcome = {"code": options.code} if options.by and options.code else {"outcome": options.outcome or options.code}
    return opened.journal.search(
        **by_outcome,
        type=options.type,
        sender=options.sender,
        bureau=options.bureau,
        certificates=[fingerprint for fingerprint, bureau in theirs.items() if bureau == options.bureau],
        feed=options.feed,
        person=options.person,
        message_id=options.message,
        component=options.component,
        purpose=options.purpose,
        since=options.since,
        until=options.until,
        before=options.before,
        after=options.after,
        limit=options.limit,
    )


def _next_page(options: argparse.Namespace, found: list[LoggedEntry]) -> str | None:
    """The command that goes on behind a full page."""
    if len(found) < options.limit:
        return None
    names = (*_SEARCHED, "since", "until", "limit", "by", "key", "people", "settings")
    kept = {name: getattr(options, name) for name in names}
    kept |= {"before" if options.after is None else "after": found[-1].index}
    bound = {"before": options.before} if options.after is not None else {}
    words = [(f"--{name}", str(value)) for name, value in {**kept, **bound}.items() if value not in (None, "")]
    return shlex.join(["yongtong", "audit", "search", *(word for pair in words for word in pair)])


def _asked(options: argparse.Namespace) -> Detail:
    """What was searched for, as the audit keeps it."""
    names = (*_SEARCHED, "since", "until", "before", "after", "who_could_see", "on")
    return {
        _ASKED_AS.get(name, name): str(value) for name in names if (value := getattr(options, name)) not in (None, "")
    }


def _rebuild(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    places.state_of(settings)
    database = places.journal_database(settings)
    if not options.check:
        log_index.rebuild(database, _progress())
    with closing(opening.open_journal(settings)) as journal:
        full, indexed = journal.indexed()
    stretches = (
        [(each.start, each.stop - 1) for each in log_index.differing(database, _progress())] if options.check else []
    )
    said = {
        "ok": not stretches and indexed == full,
        "full": full * log_index.PIECE,
        "indexed": indexed * log_index.PIECE,
        "differing": stretches,
    }
    if options.json:
        print_json(said)
    else:
        print_table("审计索引 Index of the audit", ["", ""], said.items())
        if not said["ok"]:
            say("next: 索引与审计记录不一致，请重建 yongtong audit rebuild")
    return 0 if said["ok"] else 1


def _progress() -> Callable[[int, int], None]:
    """Says how far it is, once a second."""
    said_s = time.monotonic()

    def progress(done: int, of: int) -> None:
        nonlocal said_s
        if time.monotonic() - said_s >= 1:
            said_s = time.monotonic()
            say(f"{done:,} / {of:,} entries")

    return progress


def _who_could_see(options: argparse.Namespace) -> int:
    if not options.by:
        raise Misconfigured("config.option", "--who-could-see is for an audit officer: name yourself with --by")
    on = options.on or places.utc_now().astimezone(CITY_TIME).date()
    with acting(options) as (opened, officer), closing(opening.open_store(settings_of(options))) as store:
        opened.note_search(officer, _asked(options))
        component = ownership.ownership(store, options.who_could_see, on).component
        first, last = access.bounds(on)
        reads = [
            entry
            for name in sorted({component.identifier or "", str(component.key)} - {""})
            for entry in opened.journal.search(type="read", component=name, since=first, until=last, limit=MOST_READS)
        ]
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
    anchors = read_anchors(options.anchors) if options.anchors else trusted.anchors_of(settings or settings_of(options))
    against = [anchors.head(_read(path)) for path in options.against]
    say("正在重算全部审计记录 reading the whole log again …")
    with ExitStack() as stack:
        journal = options.journal or stack.enter_context(places.readable_journal(settings or settings_of(options)))
        verdict = audit.verify(journal, anchors, against)
    if options.json:
        print_json({"ok": verdict.ok, **msgspec.to_builtins(verdict)})
    else:
        print_verdict(verdict)
    return 0 if verdict.ok else 1


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except OSError as problem:
        raise Misconfigured("config.file", f"{path}: {problem.strerror}") from problem


def _anchors(options: argparse.Namespace) -> int:
    print_json(trusted.anchors_of(settings_of(options)))
    return 0


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
            proof, erased = opened.journal.prove(options.entry), opened.journal.erased(options.entry)
    else:
        with closing(opening.open_journal(settings_of(options))) as journal:
            proof = msgspec.structs.replace(journal.prove(options.entry), salt=None, detail=None)
            erased = journal.erased(options.entry)
    document = {
        "index": proof.index,
        "leaf": proof.leaf.decode(),
        "salt": proof.salt and proof.salt.hex(),
        "detail": proof.detail and proof.detail.decode(),
        "size": proof.size,
        "proof": [node.hex() for node in proof.path],
        "checkpoint": proof.checkpoint,
    }
    gone = {"code": "content.erased", "erased_on": erased.day, "decision": erased.decision} if erased else None
    if options.json:
        print_json(document | ({"erased": gone} if gone else {}))
    else:
        document |= {"erased": content_erased(erased)} if erased else {}
        print_table(f"存在性证明 Proof of entry {proof.index}", ["", ""], document.items())
    return 0


def _checkpoint(options: argparse.Namespace) -> int:
    with closing(opening.open_journal(settings_of(options))) as journal:
        text = journal.checkpoint()
    print_json({"checkpoint": text}) if options.json else print(text, end="")
    return 0


def _present(options: argparse.Namespace) -> int:
    with acting(options) as (opened, officer):
        anchors = trusted.anchors_of(settings_of(options))
        shown = [present(_octets(path), anchors, opened, officer) for path in options.file]
    if options.json:
        print_json({"presented": shown})
        return 0
    columns = ["entry", "bureau", "message", "was entry", "of", "resent as"]
    rows = [[*msgspec.structs.astuple(one)[:-1], "" if one.resent < 0 else one.resent] for one in shown]
    print_table("已补证 Receipts presented", columns, rows)
    return 0


def _octets(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise Misconfigured("config.file", f"{path}: {problem.strerror}") from problem
