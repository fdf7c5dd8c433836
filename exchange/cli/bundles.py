"""Evidence bundles: `audit export message|ownership|day` makes one, and what `verify` says of it."""

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import date
from pathlib import Path

from exchange import bundle_export
from exchange.app import opening, places, trusted
from exchange.attestations import Attestations
from exchange.bundle_check import BundleVerdict, verify_bundle
from exchange.bundle_export import Sources
from exchange.cli.output import print_json, print_table
from exchange.cli.parsing import Commands, add_command, add_group, day, settings_of
from exchange.cli.people import acting, add_person_options
from exchange.decision_documents import Officer
from exchange.entry import Detail
from exchange.ownership import ownership
from exchange.registry import Registry
from exchange.settings import Settings
from security import bundle
from security.anchors import Anchors
from security.errors import Misconfigured, Refusal
from security.message import Content, file_content

ROW_WORDS = {
    "container": "文件 container",
    "manifest": "清单 manifest",
    "subject": "标的 subject",
    "signature": "签名 signature",
    "certificate": "证书 certificate on its day",
    "enrolment": "登记 enrolment",
    "grant": "授权 grant",
    "receipts": "回执 receipts",
    "inclusion": "存在性 inclusion",
    "witnesses": "见证 witnesses",
    "timestamp": "时间戳 timestamp",
    "evidence class": "证据类别 evidence class",
    "mapping": "映射版本 mapping",
    "erased parts": "销毁情况 erased parts",
}
STATE_WORDS = {"holds": "成立 holds", "missing": "缺失 missing", "broken": "不成立 BROKEN", "erased": "已销毁 erased"}
TITLES = {
    "holds": "证据包 Bundle: holds 成立",
    "incomplete": "证据包 Bundle: INCOMPLETE 不完整",
    "broken": "证据包 Bundle: DOES NOT HOLD 不成立",
}
NOT_ASKED = {
    "witnesses": "UNWITNESSED 无见证",
    "timestamp": "NO TIMESTAMP 无时间戳",
    "mapping": "MAPPING FILE NOT KEPT 映射文件未留存",
}


def add_exports(group: Commands, common: argparse.ArgumentParser) -> None:
    """audit export message|ownership|day."""
    export = add_group(group, "export", says="evidence in one file, which anybody checks offline with: yongtong verify")
    message = add_command(
        export,
        common,
        "message",
        _message,
        says="of a delivery: original, certificates, receipt, report, entries, proofs",
        example="yongtong audit export message 20261122-7f3a9c evidence.zip --by 赵六",
    )
    message.add_argument("id", metavar="MESSAGE_ID")
    message.add_argument("--sender", metavar="BUREAU", help="where two bureaus use the same message id")
    answer = add_command(
        export,
        common,
        "ownership",
        _ownership,
        says="of whose a component is on a day, with every delivery that says so",
        example="yongtong audit export ownership 3302030101000001 evidence.zip --on 2026-11-20 --by 赵六",
    )
    answer.add_argument("id", metavar="ID")
    answer.add_argument("--on", required=True, type=day, metavar="DAY")
    of_day = add_command(
        export,
        common,
        "day",
        _day,
        says="of a day: every entry, every delivery",
        example="yongtong audit export day 2026-11-20 evidence.zip --by 赵六",
    )
    of_day.add_argument("id", type=day, metavar="DAY")
    for parser in (message, answer, of_day):
        parser.add_argument("file", metavar="FILE", type=Path)
        parser.add_argument(
            "--opening",
            action="append",
            default=[],
            metavar="DECISION",
            help="put in a sealed original that two persons decided to open; may be given again",
        )
        add_paper_option(parser)
        add_person_options(parser)


def add_paper_option(parser: argparse.ArgumentParser) -> None:
    """--pdf FILE."""
    parser.add_argument("--pdf", type=Path, metavar="FILE", help="write what was found on paper, too, Chinese first")


def verify_file(path: Path, anchors: Anchors, pdf: Path | None, *, as_json: bool) -> int:
    """Check a bundle and print what was found; 0 only where all holds that the anchors ask for."""
    verdict, said = _verified(path, anchors, pdf)
    if as_json:
        print_json(
            {"ok": verdict.state == "holds", "kind": "bundle", "state": verdict.state, "bundle": verdict, **said}
        )
    else:
        print_bundle(verdict)
    return 0 if verdict.state == "holds" else 1


def _verified(path: Path, anchors: Anchors, pdf: Path | None) -> tuple[BundleVerdict, dict[str, str]]:
    """What is found in a bundle, written on paper where that is asked for; and what to say of the paper."""
    if pdf is not None and pdf.exists():
        raise Misconfigured("config.stands", f"{pdf}: is there already, and is not written over; name another file")
    content, now = file_content(path), places.utc_now()
    verdict = verify_bundle(content, anchors, now)
    if pdf is None:
        return verdict, {}
    from exchange.paper import paper  # its typesetter takes a while to begin, and no other command needs it

    places.write_secret(pdf, paper(content, verdict, anchors, now))
    return verdict, {"pdf": str(pdf)}


def print_bundle(verdict: BundleVerdict) -> None:
    """Every row for itself; the title says what no row makes up for."""
    title = "; ".join([TITLES[verdict.state], *(NOT_ASKED[name] for name in verdict.not_asked)])
    rows = [(ROW_WORDS[row.name], STATE_WORDS[row.state], "\n".join(row.about)) for row in verdict.rows]
    print_table(f"{title}\n{verdict.kind} {verdict.subject} {verdict.made_at}", ["", "", ""], rows)


def _message(options: argparse.Namespace) -> int:
    with _exporting(options) as sources:
        row = sources.bus.journal.inbox(options.sender, options.id)
        if row is None:
            raise Refusal("delivery.unknown", options.id)
        return _written(options, bundle_export.of_message(row, sources))


def _ownership(options: argparse.Namespace) -> int:
    with _exporting(options) as sources:
        answer = ownership(sources.bus.store, options.id, options.on)
        return _written(options, bundle_export.of_ownership(answer, options.on, sources))


def _day(options: argparse.Namespace) -> int:
    with _exporting(options) as sources:
        return _written(options, bundle_export.of_day(options.id, sources))


@contextmanager
def _exporting(options: argparse.Namespace) -> Iterator[Sources]:
    """Where the evidence lies, for the person that --by names."""
    for path in (options.file, options.pdf):
        if path is not None and path.exists():  # before a decision is used up
            raise Misconfigured(
                "config.stands", f"{path}: is there already, and is not written over; name another file"
            )
    with (
        acting(options) as (registry, officer),
        exporting(settings_of(options), registry, officer, _asked(options), options.opening) as sources,
    ):
        yield sources


@contextmanager
def exporting(
    settings: Settings, registry: Registry, officer: Officer, asked: Detail, decisions: Sequence[str] = ()
) -> Iterator[Sources]:
    """Where the evidence lies, once it stands in the log who takes it out, and by which decisions what is sealed."""
    with ExitStack() as stack:
        bus = stack.enter_context(closing(opening.open_bus(settings)))
        opened = [registry.decided_opening(one, officer).entry_index for one in decisions]
        registry.note_search(officer, asked)
        for decision in decisions:
            registry.carry_out(decision, officer)
        attestations = stack.enter_context(closing(Attestations(places.journal_database(settings))))
        anchors, mappings = trusted.anchors_of(settings), opening.feed_files(settings)
        yield Sources(bus, attestations, trusted.open_revocations(settings), anchors, mappings, frozenset(opened))


def _asked(options: argparse.Namespace) -> Detail:
    """What is taken out, as the audit keeps it."""
    on: date | None = getattr(options, "on", None)
    kind = options.command.rpartition(" ")[2]
    return {"export": kind, "of": str(options.id), **({"on": on.isoformat()} if on else {})}


def _written(options: argparse.Namespace, parts: dict[str, Content]) -> int:
    try:
        descriptor = os.open(options.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            bundle.write(file, parts)
    except OSError as problem:
        raise Misconfigured("config.file", f"{options.file}: {problem.strerror}") from problem
    written = file_content(options.file)
    said = {"file": str(options.file), "parts": len(parts), "bytes": written.size, "sha256": written.digest.hex}
    if options.pdf is not None:
        said |= _verified(options.file, trusted.anchors_of(settings_of(options)), options.pdf)[1]
    print_json(said) if options.json else print_table("证据包 Bundle", ["", ""], said.items())
    return 0
