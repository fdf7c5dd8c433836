"""What a command prints: one JSON document on stdout with --json, tables for people without; progress on stderr."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from mappings.findings import sentence_of
from security.errors import Refusal, Sentence

STDERR = Console(stderr=True, highlight=False, soft_wrap=True)
STDOUT = Console(highlight=False)


def print_json(document: object) -> None:
    """One JSON document on stdout: structs by their fields, datetimes as RFC 3339."""
    octets = msgspec.json.format(msgspec.json.encode(document, enc_hook=_plain), indent=2)
    sys.stdout.write(octets.decode() + "\n")


def _plain(value: Any) -> object:
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(f"no JSON form for {type(value).__name__}")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on stdout; numbers stand right."""
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    body = [list(row) for row in rows]
    for index, name in enumerate(columns):
        right = bool(body) and all(isinstance(row[index], int | float) for row in body)
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in body:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    STDOUT.print(table)


def say(line: str) -> None:
    """A line of progress, on stderr."""
    STDERR.print(line)


def refusal_document(refusal: Refusal) -> dict[str, object]:
    """A refusal as every door words it: code, sentences, next step, which one, number of its audit entry."""
    return {
        "refused": sentence_document(refusal.code, refusal.sentence)
        | {
            "detail": refusal.detail,
            "reference": refusal.reference,
        }
    }


def sentence_document(code: str, sentence: Sentence) -> dict[str, object]:
    """A code with its sentences."""
    return {"code": code, **msgspec.to_builtins(sentence)}


def print_refusal(refusal: Refusal) -> None:
    """A refusal for a person: what happened and the next step, Chinese first."""
    sentence = refusal.sentence
    about = f"  [{refusal.detail}]" if refusal.detail else ""
    STDERR.print(f"[bold red]{refusal.code}[/]{about}", markup=True)
    for line in (sentence.zh, sentence.en, "→ " + sentence.next_zh, "→ " + sentence.next_en):
        STDERR.print("  " + line, markup=False)


def finding_rows(findings: Iterable[dict[str, Any]]) -> list[list[object]]:
    """Findings of a report as table rows: severity, code, field, how many, the first ones, sentence and next step."""
    rows: list[list[object]] = []
    for finding in findings:
        sentence = sentence_of(finding["code"])
        first = ", ".join(str(number) for number in finding["first_records"])
        words = f"{sentence.zh} {sentence.next_zh}\n{sentence.en} {sentence.next_en}"
        rows.append([finding["severity"], finding["code"], finding["field"], finding["count"], first, words])
    return rows
