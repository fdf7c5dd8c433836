"""坐标诊断 Which frame a file's coordinates are in, as a section of `feed preview`."""

from typing import Any

from exchange.cli.output import STDOUT, printable
from exchange.frames.answers import Diagnosis
from exchange.frames.words import in_words
from mappings.feed import Feed


def frame_document(found: Diagnosis | None, feed: Feed) -> dict[str, Any] | None:
    """What `--json` says of it. Of a local frame rounded sizes only."""
    if found is None:
        return None
    told = in_words(found, feed)
    paired = found.by in ("numbers", "places")
    return {
        "verdict": found.verdict,
        "looks_like": found.system or None,
        "axes_exchanged": found.swapped,
        "zh": told.zh,
        "en": told.en,
        "matched": found.matched,
        "compared": found.looked,
        "next_best": found.second,
        "residual_cm": round(found.residual_m * 100, 1) if paired else None,
        "fix": list(told.fix),
    }


def print_frame(found: Diagnosis | None, feed: Feed) -> None:
    """The section of a preview."""
    if found is None:
        return
    told = in_words(found, feed)
    STDOUT.print("坐标诊断 Frame", style="bold")
    for line in (told.zh, told.en):
        STDOUT.print("  " + printable(line), soft_wrap=True)
    if told.fix:
        STDOUT.print(f"  更正 {feed.id}.toml 中这几行 the lines of {feed.id}.toml to change:", soft_wrap=True)
    for line in told.fix:
        STDOUT.print("    " + printable(line), soft_wrap=True)
    if found.verdict == "local" and not found.of_degrees:
        line = "参数由安全员取得 a security administrator gets the parameters: "
        STDOUT.print(f"  {line}yongtong feed frame {feed.id} FILE --out NAME.toml --by NAME", soft_wrap=True)
