"""`yongtong`: one program for operators, bureaus and officers. Exit 0 done, 1 refused or found bad, 2 wrong use."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

from exchange.cli.output import print_json, print_problem, problem_document
from security.errors import AuditBroken, ExchangeError, Misconfigured, Refusal, Unavailable

# Modules in the order in which a newcomer meets their commands. Only that of the command which is named is loaded: all
# of them take longer than most commands.
GROUPS: Final = {
    "serving": ("init", "serve"),
    "demo": ("demo",),
    "people": ("person", "decision"),
    "bureaus": ("bureau", "grant"),
    "feeds": ("feeds", "feed"),
    "systems": ("systems",),
    "layers": ("layers",),
    "partner": ("push", "receipt", "report", "recall"),
    "entries": ("entries",),
    "packages": ("pack", "answers"),
    "components": ("component", "near", "ownership", "disputes", "changes"),
    "export": ("export",),
    "cascade": ("cascade",),
    "held": ("held",),
    "dead": ("dead",),
    "account": ("account", "gaps"),
    "evidence": ("evidence",),
    "erasure": ("erasure", "spill"),
    "keys": ("key", "epoch", "anchors"),
    "audit": ("audit",),
    "verifying": ("verify",),
    "witness": ("witness",),
    "backup": ("backup", "restore"),
    "doctor": ("doctor",),
    "alarms": ("alarms",),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code says how it went."""
    given = sys.argv[1:] if arguments is None else arguments
    options = parser_of(given).parse_args(given)
    try:
        return int(options.run(options))
    except ExchangeError as problem:
        return _failed(problem, as_json=options.json)
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        return 130


def parser_of(arguments: Sequence[str] = ()) -> argparse.ArgumentParser:
    """What reads these arguments: the command that they name, or all there are."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="one JSON document on stdout, nothing else there")
    common.add_argument("--settings", default="settings.toml", metavar="FILE", help="settings file (settings.toml)")
    parser = argparse.ArgumentParser(
        prog="yongtong",
        description="甬通 Yongtong, a city's exchange bus. Whose is it, on that day, and how do we know?",
        epilog="example: yongtong demo --json",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    named = [module for module, names in GROUPS.items() if arguments and arguments[0] in names]
    for module in named or GROUPS:
        import_module(f"exchange.cli.{module}").add_commands(commands, common)
    return parser


def _failed(problem: ExchangeError, *, as_json: bool) -> int:
    if as_json:
        print_json({_whose_turn(problem): problem_document(problem)})
    else:
        print_problem(problem)
    return 2 if isinstance(problem, Misconfigured) else 1


def _whose_turn(problem: ExchangeError) -> str:
    kinds = {
        Refusal: "refused", Misconfigured: "misconfigured", Unavailable: "unavailable", AuditBroken: "audit_broken"
    }  # fmt: skip
    return next(name for kind, name in kinds.items() if isinstance(problem, kind))


if __name__ == "__main__":
    sys.exit(main())
