"""`verify`: with the cable out, and nothing of the operator's but the trust anchors."""

import argparse
from pathlib import Path

import msgspec

from exchange.cli.bundles import NOT_ASKED, add_paper_option, verify_file
from exchange.cli.output import print_json, print_table
from exchange.cli.parsing import Commands, add_command
from exchange.receipts import VerifiedDocument, verify_receipt
from exchange.record_proof import VerifiedRecord, is_record_proof, verify_record
from security.anchors import Anchors
from security.bundle import is_bundle
from security.errors import Misconfigured
from security.fork import Fork, is_fork, open_fork


def add_commands(commands: Commands, common: argparse.ArgumentParser) -> None:
    """verify."""
    offline = add_command(
        commands,
        common,
        "verify",
        _verify_document,
        says="check a receipt, report, evidence bundle, fork proof or one record's proof offline: "
        "nothing of the operator's but the trust anchors",
        example="yongtong verify receipt.json --anchors anchors.json",
    )
    offline.add_argument("document", metavar="BUNDLE|RECEIPT", type=Path)
    offline.add_argument("--anchors", required=True, type=Path, metavar="FILE")
    add_paper_option(offline)


def read_anchors(path: Path) -> Anchors:
    """Trust anchors from a file. Raises Misconfigured naming it."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Anchors)
    except (OSError, msgspec.MsgspecError) as problem:
        raise Misconfigured("config.anchors", f"{path}: not a file of trust anchors: {problem}") from problem


def _verify_document(options: argparse.Namespace) -> int:
    anchors = read_anchors(options.anchors)
    try:
        with options.document.open("rb") as file:
            if is_bundle(file.read(2)):
                return verify_file(options.document, anchors, options.pdf, as_json=options.json)
        octets = options.document.read_bytes()
    except OSError as problem:
        raise Misconfigured("config.file", f"{options.document}: {problem.strerror}") from problem
    if options.pdf is not None:
        raise Misconfigured("config.file", f"{options.document}: is no bundle, and a paper is made of a bundle only")
    if is_fork(octets):
        return _show_fork(open_fork(octets, anchors), options)
    if is_record_proof(octets):
        return _show_record(verify_record(octets, anchors), anchors, options)
    verified, missing = verify_receipt(octets, anchors), _missing(anchors)
    if options.json:
        print_json({"ok": True, "kind": verified.kind, "document": verified.document, **_unattested(missing)})
    else:
        _print_verified(verified, missing)
    return 1 if missing else 0


def _missing(anchors: Anchors) -> list[str]:
    """What the anchors ask for over a head, and no receipt or record's proof has: only a bundle does."""
    asked = {
        "witnesses": bool(anchors.witnesses) and anchors.quorum > 0,
        "timestamp": bool(anchors.timestamp_certificates),
    }
    return [name for name, is_asked in asked.items() if is_asked]


def _unattested(missing: list[str]) -> dict[str, object]:
    """Beside `ok`, which is of signature and proof alone: whoever has the log's key can make both anew."""
    state = "incomplete" if missing else "holds"
    return {"state": state, "missing": missing, "witnesses": "unwitnessed", "timestamp": "none"}


def _title(begins: str, missing: list[str]) -> str:
    words = [begins, NOT_ASKED["witnesses"], NOT_ASKED["timestamp"]]
    if missing:
        words.insert(1, f"INCOMPLETE 不完整: the anchors ask for {', '.join(missing)}; a bundle has them 请核验证据包")
    return "; ".join(words)


def _show_fork(fork: Fork, options: argparse.Namespace) -> int:
    """What a fork proof proves: of the operator, and with nothing of his but the log's public key."""
    first, second = fork.first, fork.second
    if options.json:
        heads = [{"size": head.size, "root": head.root.hex()} for head in (first, second)]
        print_json({"ok": True, "kind": "fork", "origin": fork.origin, "heads": heads})
        return 0
    rows = [
        ("日志 log", fork.origin),
        ("签名 signatures", "both heads are signed by the log's own key 两个存证点均为日志密钥所签"),
        (f"第一个存证点 first head, {first.size} entries", first.root.hex()),
        (f"第二个存证点 second head, {second.size} entries", second.root.hex()),
        (f"第二个日志在 {first.size} 条时 the second log, at {first.size}", fork.continued.hex()),
    ]
    print_table("FORK PROVEN 日志分叉: no one log has both heads 不可能属于同一日志", ["", ""], rows)
    return 0


def _show_record(record: VerifiedRecord, anchors: Anchors, options: argparse.Namespace) -> int:
    missing = _missing(anchors)
    if options.json:
        print_json({"ok": True, "kind": "record", "record": record, **_unattested(missing)})
        return 1 if missing else 0
    rows = [
        ("记录 record", f"{record.source_key}, {record.index} of {record.records} (from 0)"),
        ("处理结果 outcome", record.outcome),
        ("处理结果回执 report", f"entry {record.entry}, {record.reported_at}; the record lies under its root"),
        ("存证点 checkpoint", f"{record.checkpoint.origin}, {record.checkpoint.size} entries, signed by the log's key"),
        ("见证 witnesses", "UNWITNESSED 无见证: a report is older than any witness's signature; a bundle has them"),
        ("时间戳 timestamp", "NONE 无: the time is the bus's own clock"),
        ("报送 delivery", f"{record.sender}, {record.feed}, {record.message_id}"),
    ]
    print_table(_title(f"单条处理结果 One record: {record.outcome}", missing), ["", ""], rows)
    return 1 if missing else 0


def _print_verified(verified: VerifiedDocument, missing: list[str]) -> None:
    """What was checked of a receipt or report, one line each, and what was not."""
    document, checkpoint = verified.document, verified.checkpoint
    rows = [
        ("签名 signature", "holds, by an answer certificate among the anchors"),
        ("存证点 checkpoint", f"{checkpoint.origin}, {checkpoint.size} entries, signed by the log's key"),
        ("存在性 inclusion", f"entry {verified.index} lies under it"),
        ("承诺 detail", "is what the entry commits to"),
        ("证据类别 evidence class", document.get("evidence_class", "see the receipt")),
        *([("代报 asserted by", document["asserted_by"])] if "asserted_by" in document else []),
        ("见证 witnesses", "UNWITNESSED 无见证: a receipt is older than any witness's signature; a bundle has them"),
        ("时间戳 timestamp", "NONE 无: the time is the bus's own clock"),
        ("报送 delivery", f"{document['sender']}, {document['feed']}, {document['message_id']}"),
    ]
    kind = {"receipt": "回执 Receipt", "report": "处理结果回执 Report"}[verified.kind]
    print_table(_title(f"{kind}: {document['outcome']}", missing), ["", ""], rows)
