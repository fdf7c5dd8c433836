"""What a command prints: one JSON document on stdout with --json, tables for people without; progress on stderr."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from security.errors import ExchangeError, Refusal, Sentence

_KEPT = (
    "\n\u3000\u00a0"  # not printable to Python, and harmless: a line break, a Chinese space, one that does not break
)
NEVER_FOLDED = 17  # characters: an identifier, a grid code, a day are read whole

# What bureaus write is printed as it stands: no [markup] and no :emoji: of theirs is obeyed.
STDERR = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)
STDOUT = Console(highlight=False, markup=False, emoji=False)


def print_json(document: object) -> None:
    """One JSON document on stdout: structs by their fields, datetimes as RFC 3339."""
    octets = msgspec.json.format(msgspec.json.encode(document, enc_hook=_plain), indent=2)
    sys.stdout.write(octets.decode() + "\n")


def _plain(value: Any) -> object:
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(f"no JSON form for {type(value).__name__}")


def printable(text: str) -> str:
    """With what would steer a terminal, or turn or hide a line, written by its number: names come from anybody."""
    return "".join(c if c.isprintable() or c in _KEPT else f"[U+{ord(c):04X}]" for c in text)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on stdout; numbers stand right."""
    least = min(cell_len(title), STDOUT.width)  # a title is not folded over a narrow table
    table = Table(
        title=printable(title), title_justify="left", title_style="bold", header_style="bold", min_width=least
    )
    body = [[_cell(cell) for cell in row] for row in rows]
    for index, name in enumerate(columns):
        right = bool(body) and all(isinstance(row[index], int | float) for row in body)
        widest = max([cell_len(str(row[index])) for row in body], default=0)
        unfolded = widest if widest <= NEVER_FOLDED else None
        table.add_column(printable(name), justify="right" if right else "left", overflow="fold", min_width=unfolded)
    for row in body:
        table.add_row(*(str(cell) for cell in row))
    STDOUT.print(table)


def _cell(value: object) -> object:
    """A number as it is, all else as text that shows what it holds."""
    if isinstance(value, int | float):
        return value
    return "" if value is None else printable(str(value))


def say(line: str) -> None:
    """A line of progress, on stderr."""
    STDERR.print(printable(line))


def problem_document(problem: ExchangeError) -> dict[str, object]:
    """What went wrong: code, sentences, next step, which one; of a refusal also the number of its audit entry."""
    said = sentence_document(problem.code, problem.sentence) | {"detail": problem.detail}
    return said | {"reference": problem.reference} if isinstance(problem, Refusal) else said


def sentence_document(code: str, sentence: Sentence) -> dict[str, object]:
    """A code with its sentences."""
    return {"code": code, **msgspec.to_builtins(sentence)}


def print_problem(problem: ExchangeError) -> None:
    """What went wrong, for a person: what happened and the next step, Chinese first."""
    sentence = problem.sentence
    about = f"  [{printable(problem.detail)}]" if problem.detail else ""
    STDERR.print(Text.assemble((problem.code, "bold red"), about))
    for line in (sentence.zh, sentence.en, "→ " + sentence.next_zh, "→ " + sentence.next_en):
        STDERR.print("  " + line, markup=False)


def print_findings(title: str, findings: Iterable[dict[str, Any]]) -> None:
    """Findings of a report, a paragraph each: how many, where, what it says, the next step."""
    for number, finding in enumerate(findings):
        if number == 0:
            STDOUT.print(title, style="bold")
        sentence = msgspec.convert(finding["sentence"], Sentence)
        first = ", ".join(str(record) for record in finding["first_records"])
        more = ", …" if finding["count"] > len(finding["first_records"]) else ""
        values = "; ".join(f"{value['value'] or '—'} × {value['count']}" for value in finding.get("values", []))
        field = f"  ({finding['field']})" if finding["field"] else ""  # some are about the whole record
        head = f"{finding['severity']:8}{finding['count']:>6} × {finding['code']}{field}"
        for line in (head, f"        records {first}{more}   {values}"):
            STDOUT.print(printable(line), markup=False, soft_wrap=True)
        for line in (f"{sentence.zh}{sentence.next_zh}", f"{sentence.en} {sentence.next_en}"):
            STDOUT.print("        " + line, markup=False, style="dim", soft_wrap=True)
