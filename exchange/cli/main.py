"""`yongtong`: one program for operators, bureaus and officers. Exit 0 done, 1 refused or found bad, 2 wrong use."""

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from exchange.cli import (
    account,
    alarms,
    audit,
    backup,
    bureaus,
    cascade,
    components,
    dead,
    demo,
    doctor,
    erasure,
    evidence,
    export,
    feeds,
    held,
    keys,
    partner,
    people,
    serving,
    verifying,
    witness,
)
from exchange.cli.output import print_json, print_problem, problem_document
from security.errors import AuditBroken, ExchangeError, Misconfigured, Refusal, Unavailable

# In the order in which a newcomer meets them.
GROUPS: Final = (
    *(serving, demo, people, bureaus, feeds, partner, components, export, cascade),
    *(held, dead, account, evidence, erasure, keys, audit, verifying, witness, backup, doctor, alarms),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code says how it went."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except ExchangeError as problem:
        return _failed(problem, as_json=options.json)
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="one JSON document on stdout, nothing else there")
    common.add_argument("--settings", default="settings.toml", metavar="FILE", help="settings file (settings.toml)")
    parser = argparse.ArgumentParser(
        prog="yongtong",
        description="甬通 Yongtong, a city's exchange bus. Whose is it, on that day, and how do we know?",
        epilog="example: yongtong demo --json",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for group in GROUPS:
        group.add_commands(commands, common)
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
