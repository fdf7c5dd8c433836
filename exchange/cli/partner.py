"""The bureau's side: push a file, keep the receipt, fetch the report."""

import argparse
import io
import mimetypes
import secrets
from collections.abc import Callable
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from connectors.partner.counter import Counter
from connectors.partner.envelope import names_of, sealed
from connectors.partner.folder import PartnerFolder
from connectors.partner.mqtt import MqttPartner, inbound
from connectors.partner.partner import Partner, Received, Reported
from exchange.app import places
from exchange.cli.output import print_findings, print_json, print_table, say
from exchange.cli.parsing import Commands, add_command, bus_url, settings_of
from exchange.cli.sheet_tables import print_sheet
from exchange.receipts import verify_receipt
from exchange.record_proof import prove_record, records_of
from security.errors import Misconfigured, Refusal
from security.message import Content, file_content

REPORT_WAIT_S = 600.0


def add_commands(commands: Commands, common: argparse.ArgumentParser) -> None:
    """push, receipt, report, recall."""
    push = add_command(
        commands,
        common,
        "push",
        _push,
        says="sign and send a file to a feed, wait, print receipt then report",
        example="yongtong push water-register water.csv --as water",
    )
    push.add_argument("feed", metavar="FEED")
    push.add_argument("file", metavar="FILE", type=Path)
    push.add_argument("--message-id", help="instead of a new one; the same again gives the same receipt")
    push.add_argument("--over", choices=["soap", "mqtt"], default="soap")
    push.add_argument("--for", dest="on_behalf_of", default="", metavar="BUREAU", help="in whose name, if another's")
    push.add_argument(
        "--dry",
        type=Path,
        metavar="OUT",
        help="write the signed envelope there (a JWS, of an SM2 key a CMS), and send nothing",
    )
    add_partner_options(push, required=True)
    for name, run, says in (
        ("receipt", _receipt, "the receipt of an earlier delivery, the same bytes for ever"),
        ("report", _report, "what became of an earlier delivery"),
    ):
        command = add_command(
            commands, common, name, run, says=says, example=f"yongtong {name} 20261122-7f3a9c --as water"
        )
        command.add_argument("message_id", metavar="MESSAGE_ID")
        add_partner_options(command, required=True)
    command.add_argument(
        "--picture",
        type=Path,
        metavar="OUT.svg",
        help="of a delivery of map sheets: write a picture of what it changed",
    )
    command.add_argument("--record", metavar="KEY", help="prove what became of this record alone, for a third party")
    command.add_argument("--index", type=int, metavar="N", help="which, where several records have that key")
    command.add_argument("--out", type=Path, metavar="FILE", help="where the proof goes")

    recall = add_command(
        commands,
        common,
        "recall",
        _recall,
        says="take back a delivery of one's own: what came of it ends, its original is sealed",
        example="yongtong recall 20261122-7f3a9c --as water --ground 数据有误",
    )
    recall.add_argument("message_id", metavar="MESSAGE_ID")
    recall.add_argument("--ground", required=True, help="why; stands in the audit and in the report")
    recall.add_argument("--for", dest="on_behalf_of", default="", metavar="BUREAU", help="in whose name, if another's")
    add_partner_options(recall, required=True)


def add_partner_options(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """--as, --url, --partners: who asks, whom, and where the keys lie."""
    parser.add_argument("--as", dest="bureau", metavar="BUREAU", required=required, help="whose keys sign")
    parser.add_argument("--url", type=bus_url, help="of the bus (from the settings when not given)")
    parser.add_argument("--partners", default="partners", metavar="DIR", help="folder of partner folders (partners)")


def partner_of(options: argparse.Namespace) -> Partner:
    """The partner that --as names, speaking to the bus at --url."""
    return open_partner(folder_of(options), https_url_of(options), _pending())


def https_url_of(options: argparse.Namespace) -> str:
    """Where the bus's HTTPS doors are, as --url or the settings say."""
    url: str = options.url or url_of(options)
    if not url.startswith("https://"):
        raise Misconfigured(
            "config.option", f"{url}: write https://host:port"
        )  # elsewhere our own certificate would not be shown
    return url


def folder_of(options: argparse.Namespace) -> Path:
    """The folder of the bureau that --as names. Raises Misconfigured where there is none."""
    folder: Path = Path(options.partners) / options.bureau
    if not folder.is_dir():
        raise Misconfigured(
            "config.partner_missing", f"{folder}: no keys of {options.bureau} here; name their folder with --partners"
        )
    return folder


def open_partner(path: Path, url: str, pending: Callable[[datetime], None] = lambda since: None) -> Partner:
    """A partner by its folder; receipts are checked against the anchors that lie in it."""
    folder = PartnerFolder(path)
    return Partner(folder, url, partial(verify_receipt, anchors=folder.anchors), pending=pending)


def open_mqtt_partner(path: Path, url: str) -> MqttPartner:
    """The same over MQTT."""
    folder = PartnerFolder(path)
    return MqttPartner(folder, url, partial(verify_receipt, anchors=folder.anchors))


def url_of(options: argparse.Namespace) -> str:
    """Where the settings say that the bus is."""
    https = settings_of(options).https
    return f"https://{https.host}:{https.port}"


def mqtt_url_of(options: argparse.Namespace) -> str:
    """Where the settings say that its broker is."""
    mqtt = settings_of(options).mqtt
    if mqtt.broker == "off":
        raise Misconfigured("config.option", "[mqtt] broker is off in the settings; give --url mqtts://host:port")
    return f"mqtts://{mqtt.host}:{mqtt.port}" if mqtt.broker == "embedded" else mqtt.broker


def message_id_of(options: argparse.Namespace) -> str:
    """The message id that was given, or a new one."""
    return options.message_id or f"{options.feed}-{secrets.token_hex(8)}"


def content_type_of(file: Path) -> str:
    """The content type that a file's name tells."""
    return mimetypes.guess_type(file.name)[0] or "application/octet-stream"


def read_file(path: Path) -> Content:
    """A file to send. Raises Misconfigured when it cannot be read."""
    try:
        return file_content(path)
    except OSError as problem:
        raise Misconfigured("config.file", f"{path}: {problem.strerror}") from problem


def _push(options: argparse.Namespace) -> int:
    content = read_file(options.file)
    message_id = message_id_of(options)
    kind = content_type_of(options.file)
    if options.dry:
        return _write_dry(options, content, kind, message_id)
    if options.over == "mqtt":
        with open_mqtt_partner(folder_of(options), options.url or mqtt_url_of(options)) as over_mqtt:
            return _pushed(options, over_mqtt, content, kind, message_id)
    return _pushed(options, partner_of(options), content, kind, message_id)


def _pushed(
    options: argparse.Namespace, partner: Partner | MqttPartner, content: Content, kind: str, message_id: str
) -> int:
    say(f"报送 {options.file} → {options.feed}   message id {message_id}")
    received = partner.push(options.feed, content, kind, message_id, on_behalf_of=options.on_behalf_of)
    if not options.json:
        _print_receipt(received)
    if options.on_behalf_of:  # nobody reads in another's name
        say(f"处理结果由 {options.on_behalf_of} 查取 the report is {options.on_behalf_of}'s to ask for")
        if options.json:
            print_json({"receipt": received.document, "status": "waiting", "report": None})
        return 0
    reported = partner.report(message_id, wait_s=REPORT_WAIT_S, progress=_progress())
    return _show(options, reported, {"receipt": received.document})


def _write_dry(options: argparse.Namespace, content: Content, kind: str, message_id: str) -> int:
    """Write the signed envelope as `mosquitto_pub -f` or any other MQTT client sends it."""
    folder, now = PartnerFolder(folder_of(options)), places.utc_now()
    sequence = None if options.on_behalf_of else Counter(folder).number(options.feed, message_id)
    names = names_of(folder, options.feed, kind, message_id, now, options.on_behalf_of, sequence)
    octets = sealed(folder, content, names)
    try:
        options.dry.write_bytes(octets)
    except OSError as problem:
        raise Misconfigured("config.file", f"{options.dry}: {problem.strerror}") from problem
    topic = inbound(options.feed)
    made = {"file": str(options.dry), "topic": topic, "message_id": message_id, "octets": len(octets), "qos": 1}
    if options.json:
        print_json(made)
    else:
        print_table("已签名，未发送 Signed, not sent", ["", ""], made.items())
        say(f"next: mosquitto_pub … -q 1 -t {topic} -f {options.dry}")
    return 0


def _receipt(options: argparse.Namespace) -> int:
    received = partner_of(options).receipt(options.message_id)
    if options.json:
        print_json({**received.document, **_erased(received.erased_on)})
    else:
        _print_receipt(received)
    return 0


def _erased(day: date | None) -> dict[str, Any]:
    """That the bus erased the content, as JSON says it."""
    return {"content": {"code": "content.erased", "erased_on": day}} if day else {}


def _report(options: argparse.Namespace) -> int:
    if options.record is not None:
        return _prove_record(options)
    if options.picture is not None:
        return _write_picture(options)
    return _show(options, partner_of(options).report(options.message_id), {})


def _prove_record(options: argparse.Namespace) -> int:
    """Write the proof of one record's fate: checked by `yongtong verify`, and nothing else of the delivery in it."""
    if options.out is None:
        raise Misconfigured("config.option", "--record writes a proof: name its file with --out")
    partner = partner_of(options)
    reported = partner.report(options.message_id)
    if reported.received is None:
        raise Refusal("report.not_ready", options.message_id)
    anchors = PartnerFolder(folder_of(options)).anchors
    outcomes = pl.read_ipc(io.BytesIO(partner.outcomes(options.message_id)))
    found = dict(records_of(outcomes, options.record))
    if options.index is not None:
        found = {index: outcome for index, outcome in found.items() if index == options.index}
    if not found:
        raise Refusal("report.record_unknown", options.record[:80])
    if len(found) > 1:
        raise Refusal("report.record_several", ", ".join(f"{index} ({found[index]})" for index in list(found)[:20]))
    ((index, outcome),) = found.items()
    octets = prove_record(verify_receipt(reported.received.octets, anchors), outcomes, index)
    try:
        options.out.write_bytes(octets)
    except OSError as problem:
        raise Misconfigured("config.file", f"{options.out}: {problem.strerror}") from problem
    made = {"file": str(options.out), "record": options.record, "index": index, "outcome": outcome}
    if options.json:
        print_json(made)
    else:
        print_table("单条处理结果证明 Proof of one record", ["", ""], made.items())
        say(f"next: yongtong verify {options.out} --anchors anchors.json")
    return 0


def _write_picture(options: argparse.Namespace) -> int:
    """Write the picture of what a delivery of sheets changed."""
    octets = partner_of(options).picture(options.message_id)
    try:
        options.picture.write_bytes(octets)
    except OSError as problem:
        raise Misconfigured("config.file", f"{options.picture}: {problem.strerror}") from problem
    made = {"file": str(options.picture), "octets": len(octets)}
    print_json(made) if options.json else print_table("图幅变化图 Picture of the sheet", ["", ""], made.items())
    return 0


def _recall(options: argparse.Namespace) -> int:
    received = partner_of(options).recall(options.message_id, options.ground, options.on_behalf_of)
    print_json({"status": "recalled", "report": received.document}) if options.json else _print_report(
        received.document
    )
    return 0


def _progress() -> Any:
    said: list[str] = []

    def progress(status: str) -> None:
        if status not in said:
            said.append(status)
            say({"waiting": "等待处理 waiting for act two …"}.get(status, f"处理结果 {status}"))

    return progress


def _pending() -> Callable[[datetime], None]:
    """Says once that the bus waits for a timestamp."""
    said: list[datetime] = []

    def pending(since: datetime) -> None:
        if not said:
            say(f"时间戳待补：{since:%Y-%m-%d %H:%M}Z 起的审计记录尚无时间戳 timestamp pending since then")
        said.append(since)

    return pending


def _show(options: argparse.Namespace, reported: Reported, also: dict[str, Any]) -> int:
    document = reported.received.document if reported.received else None
    if options.json:
        print_json({**also, "status": reported.status, "report": document, **_erased(reported.erased_on)})
    elif reported.erased_on and document is None:
        say(f"content.erased  内容已于 {reported.erased_on} 销毁 content erased on {reported.erased_on}")
    elif document is None:
        say("尚未处理 Not processed yet; ask again with: yongtong report MESSAGE_ID --as BUREAU")
    else:
        _print_report(document)
    return 0 if reported.status in ("processed", "waiting", "recalled") else 1


def _print_receipt(received: Received) -> None:
    document = received.document
    rows = [
        ("报文标识 message id", document["message_id"]),
        ("内容 content", f"{document['content_length']} octets, SHA-256 {str(document['content_digest'])[:16]}…"),
        ("证据类别 evidence", f"{document['evidence_class']}, {document['form']}{_stood_in(document)}"),
        ("审计记录 audit entry", document["index"]),
        ("接收时间 received at", document["received_at"]),
        *(
            [("销毁 erased", f"content erased on {received.erased_on} 内容已于 {received.erased_on} 销毁")]
            if received.erased_on
            else []
        ),
    ]
    print_table("回执 Receipt: signature, entry and proof hold", ["", ""], rows)


def _stood_in(document: dict[str, Any]) -> str:
    """Who signed it, where that was another than the sender."""
    asserted_by = document.get("asserted_by")
    return f", asserted by {asserted_by} for {document['sender']} 代报" if asserted_by else ""


def _print_report(document: dict[str, Any]) -> None:
    report = document["report"]
    if "code" in report:
        sentence = report["sentence"]
        words = [("", sentence["zh"]), ("", sentence["en"]), ("→", sentence["next_zh"]), ("→", sentence["next_en"])]
        title = f"处理结果回执 Report: {document['outcome']}"
        print_table(title, ["", ""], [(report["code"], report.get("detail", "")), *words])
        return
    names = ("records", "new", "changed", "unchanged", "ended", "rejected", "ignored", "gone")
    print_table("处理结果回执 Report", names, [[report[name] for name in names]])
    if report["tallies"]:
        print_table("计数 Counted in the source", ["", ""], sorted(report["tallies"].items()))
    print_findings("质检意见 Findings", report["findings"])
    if "sheet" in report:
        print_sheet(report["sheet"], "与上一版比较 against the version before")
