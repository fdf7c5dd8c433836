"""The bureau's side of a one-way gateway (单向摆渡): pack a delivery, take home what a courier brings."""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from connectors.partner.folder import PartnerFolder
from connectors.partner.packages import Brought, PackagePartner
from exchange.app import places
from exchange.cli.output import print_json, print_table, say
from exchange.cli.parsing import Commands, add_command
from exchange.cli.partner import content_type_of, folder_of, message_id_of, read_file
from exchange.receipts import verify_receipt


def add_commands(commands: Commands, common: argparse.ArgumentParser) -> None:
    """pack, answers."""
    pack = add_command(
        commands,
        common,
        "pack",
        _pack,
        says="sign a file into a package for a one-way gateway or a courier, and send nothing",
        example="yongtong pack planning-map-500 sheet.dxf sheet.package --as planning",
    )
    pack.add_argument("feed", metavar="FEED")
    pack.add_argument("file", metavar="FILE", type=Path)
    pack.add_argument("out", metavar="OUT.package", type=Path)
    pack.add_argument("--message-id", help="instead of a new one; the same again gives the same receipt")
    pack.add_argument("--for", dest="on_behalf_of", default="", metavar="BUREAU", help="in whose name, if another's")
    answers = add_command(
        commands,
        common,
        "answers",
        _answers,
        says="check and keep the receipts, reports and refusals that a courier brought; exit 1 where anything was "
        "refused or does not hold",
        example="yongtong answers /media/courier/out/planning --as planning",
    )
    answers.add_argument("answers", metavar="DIR", type=Path, help="the bureau's folder of the one-way door's out/")
    for command in (pack, answers):
        command.add_argument("--as", dest="bureau", metavar="BUREAU", required=True, help="whose keys sign")
        command.add_argument(
            "--partners", default="partners", metavar="DIR", help="folder of partner folders (partners)"
        )


def _pack(options: argparse.Namespace) -> int:
    content, message_id = read_file(options.file), message_id_of(options)
    kind = content_type_of(options.file)
    packed = _partner(options).pack(
        options.feed, content, kind, message_id, options.out, on_behalf_of=options.on_behalf_of
    )
    made = {"file": str(packed.path), "message_id": message_id, "octets": packed.path.stat().st_size}
    made |= {"sequence": packed.sequence} if packed.sequence is not None else {}
    if options.json:
        print_json(made)
    else:
        print_table("已签名打包，未发送 Signed and packed, not sent", ["", ""], made.items())
        say("next: 交由单向网闸或专人送入交换平台的 in/ carry it into the bus's folder in/;")
        say(f"      回执带回后 then: yongtong answers DIR --as {options.bureau}")
    return 0


def _answers(options: argparse.Namespace) -> int:
    brought = list(_partner(options).take_home(options.answers))
    if options.json:
        print_json({"answers": [_said(one) for one in brought]})
    else:
        rows = [(one.file, one.kind, one.outcome, one.problem.code if one.problem else "") for one in brought]
        print_table("带回的回执 Answers brought home", ["file", "kind", "outcome", "code"], rows)
        for one in brought:
            if one.problem is not None:
                _say_problem(one)
        if not brought:
            say(f"{options.answers}: 没有可带回的文件 no answers there")
    return 1 if any(one.problem for one in brought) else 0


def _say_problem(one: Brought) -> None:
    assert one.problem is not None
    sentence = one.problem.sentence
    say(f"{one.file}: {sentence.zh}{sentence.next_zh}")
    say(f"  {sentence.en} {sentence.next_en} {one.problem.detail}")


def _said(one: Brought) -> dict[str, Any]:
    said: dict[str, Any] = {"file": one.file, "kind": one.kind, "message_id": one.message_id, "outcome": one.outcome}
    if one.problem is not None:
        said |= {"code": one.problem.code, "detail": one.problem.detail, "sentence": one.problem.sentence}
    return said


def _partner(options: argparse.Namespace) -> PackagePartner:
    folder = PartnerFolder(folder_of(options))
    return PackagePartner(folder, partial(verify_receipt, anchors=folder.anchors), places.utc_now)
