"""How a command joins the command line: its words, its example, what it runs."""

import argparse
from collections.abc import Callable
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
    parser.set_defaults(run=run)
    return parser


def add_group(commands: Commands, name: str, *, says: str) -> Commands:
    """A command that has commands of its own."""
    parser = commands.add_parser(name, help=says, description=says)
    return parser.add_subparsers(metavar="COMMAND", required=True)


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings that --settings names."""
    return load_settings(Path(options.settings))
