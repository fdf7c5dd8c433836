"""How a command joins the command line: its words, its example, what it runs."""

import argparse
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from exchange.settings import Settings, load_settings

Commands = Any  # argparse has no public name for what add_subparsers returns


def add_command(
    commands: Commands,
    common: argparse.ArgumentParser,
    name: str,
    run: Callable[[argparse.Namespace], int],
    *,
    says: str,
    example: str,
) -> argparse.ArgumentParser:
    """A command with --json, --settings, and -h that ends with an example."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, parents=[common], help=says, description=says, epilog=f"example: {example}"
    )
    parser.set_defaults(run=run, command=parser.prog.removeprefix("yongtong "))
    return parser


def add_group(commands: Commands, name: str, *, says: str) -> Commands:
    """A command that has commands of its own."""
    parser = commands.add_parser(name, help=says, description=says)
    return parser.add_subparsers(metavar="COMMAND", required=True)


def day(text: str) -> date:
    """An argument that is a day, YYYY-MM-DD."""
    return date.fromisoformat(text)


def count(text: str) -> int:
    """An argument that is a whole number from 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: at least 1")
    return number


def change_number(text: str) -> int:
    """An argument that is a change number, or 0 for the beginning."""
    number = int(text)
    if not 0 <= number < 10**15:
        raise argparse.ArgumentTypeError(f"{text}: not a change number")
    return number


def page_size(text: str) -> int:
    """An argument that says how many at most, 1 to 1000."""
    number = count(text)
    if number > 1000:
        raise argparse.ArgumentTypeError(f"{text}: at most 1000")
    return number


def degrees(text: str) -> float:
    """An argument that is a longitude or latitude."""
    number = float(text)
    if not -180.0 <= number <= 180.0:  # says no to nan, too
        raise argparse.ArgumentTypeError(f"{text}: not between -180 and 180")
    return number


def bus_url(text: str) -> str:
    """An argument that is a bus's address. Of another scheme the client's own certificate would not be shown."""
    if not text.startswith(("https://", "mqtts://")):
        raise argparse.ArgumentTypeError(f"{text}: write https://host:port, or mqtts://host:port with --over mqtt")
    return text


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings that --settings names."""
    return load_settings(Path(options.settings))
