"""`doctor`: what ails this bus, in plain words, and what to do."""

import argparse

from rich.text import Text

from exchange.app import places
from exchange.cli.output import STDOUT, print_json
from exchange.cli.parsing import Commands, add_command, settings_of
from exchange.doctor.check import Check, bad
from exchange.doctor.examine import examine
from security.errors import Misconfigured


def add_commands(commands: Commands, common: argparse.ArgumentParser) -> None:
    """doctor."""
    says = "look at keys, certificates, folders, journal, broker and feeds; exit 1 where something is wrong"
    add_command(commands, common, "doctor", _doctor, says=says, example="yongtong doctor --json")


def _doctor(options: argparse.Namespace) -> int:
    found = _found(options)
    well = all(check.ok for check in found)
    if options.json:
        print_json({"ok": well, "checks": found})
        return 0 if well else 1
    for check in found:
        _print(check)
    return 0 if well else 1


def _found(options: argparse.Namespace) -> list[Check]:
    try:
        settings = settings_of(options)
    except Misconfigured as problem:
        return [
            bad(
                "settings.read",
                f"设置文件不能用：{problem}",
                f"The settings cannot be used: {problem}",
                "请改正所指的文件和键。",
                "Correct the file and the key that are named.",
            )
        ]
    return examine(settings, places.utc_now())


def _print(check: Check) -> None:
    """A line where it is well; where it is not, or will not be for long, a paragraph that ends with what to do."""
    mark, style = ("✓", "green") if check.ok else ("✗", "bold red")
    if check.next_en:
        STDOUT.print(Text.assemble((mark, style), f" {check.name}"), soft_wrap=True)
        for line in (check.zh, check.en, "→ " + check.next_zh, "→ " + check.next_en):
            STDOUT.print("    " + line, markup=False, soft_wrap=True)
    else:
        STDOUT.print(Text.assemble((mark, style), f" {check.name:22} {check.zh} {check.en}"), soft_wrap=True)
