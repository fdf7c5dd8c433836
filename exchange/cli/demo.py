"""`demo`: the main job of the bus over real sockets, every promise checked, from an empty folder to a verified log."""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from exchange.cli import demo_quarter, demo_survey
from exchange.cli.demo_story import Story
from exchange.cli.output import print_json, say
from exchange.cli.parsing import Commands, add_command


def add_commands(commands: Commands, common: argparse.ArgumentParser) -> None:
    """demo."""
    demo = add_command(
        commands,
        common,
        "demo",
        _demo,
        says="start a whole bus in a fresh folder, drive the main job, check every promise",
        example="yongtong demo --json",
    )
    demo.add_argument(
        "--data", type=Path, metavar="DIR", help="a real street survey (pipe_survey) instead of the sample"
    )
    demo.add_argument("--keep", action="store_true", help="leave it running and print the addresses")


def _demo(options: argparse.Namespace) -> int:
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="yongtong-demo-"))
    story = Story()
    try:
        trial = demo_survey.prepared(folder, options.data) if options.data else demo_quarter.prepared(folder)
        with trial:
            demo_survey.play(trial, options.data, story) if options.data else demo_quarter.play(trial, story)
            story.seconds = round(time.monotonic() - began, 1)
            print_json(story.document()) if options.json else story.show()
            if options.keep:
                say(f"仍在运行 still running at {trial.url}; settings {trial.settings.source}; Ctrl-C ends it")
                trial.wait()
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    return 0 if story.ok else 1
