"""Readings as JSON (RFC 8259, UTF-8): an object with `readings`, an array, or one object a line.

Each object is a record, each of its members a column of text as the source spells it: `3.20` stays `3.20`, no number
is rounded on its way. A member that is itself an object or a list stands as JSON text, numbers in quotes; one with an
empty name is left out: no feed can name it. `NaN` and `Infinity`, which JSON does not have and gateways write all the
same, stay text too: the mapping finds such a value wrong, and the other records go on. Whatever leaves open what was
said refuses the delivery: a doubled member, a cut-off text, half of a surrogate pair.
"""

import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

import polars as pl

from connectors.formats.records import CARRIED, CONTENT, RECORD, RECORDS_PER_BATCH, SHEET, Options, RecordBatch
from security.errors import Refusal
from security.message import Content

NAME: Final = "telemetry_json"
OPTIONS: Final[dict[str, tuple[type, ...]]] = {}
READINGS: Final = "readings"
MOST_BYTES: Final = 64 << 20  # parsed in memory
MOST_READINGS: Final = 200_000
MEMBERS: Final = 200  # different names in one delivery
NAME_CHARACTERS: Final = 128
TEXT_CHARACTERS: Final = 32_767
MOST_DEPTH: Final = 8  # of lists and objects within each other

Reading = dict[str, str | None]


def decode(contents: Iterable[Content], options: Options) -> Iterator[RecordBatch]:
    """Yield the readings of each content in order; a member that a reading lacks is null.

    Raises Refusal decode.encoding_wrong, decode.not_readable, decode.too_large.
    """
    stack: list[tuple[int, int, Reading]] = []
    for index, content in enumerate(contents):
        for number, reading in enumerate(_readings(content)):
            stack.append((index, number, reading))
            if len(stack) == RECORDS_PER_BATCH:
                yield RecordBatch(_frame(stack))
                stack = []
    yield RecordBatch(_frame(stack))


def _readings(content: Content) -> list[Reading]:
    """All readings of one content; a delivery of none is right, and empty."""
    if content.size > MOST_BYTES:
        raise Refusal("decode.too_large", f"{content.size} > {MOST_BYTES} bytes")
    said = _said(_text(content.read()))
    if len(said) > MOST_READINGS:
        raise Refusal("decode.too_large", f"more than {MOST_READINGS} readings")
    readings = [_reading(one, number) for number, one in enumerate(said)]
    names = set(itertools.chain.from_iterable(readings))
    if len(names) > MEMBERS:
        raise Refusal("decode.too_large", f"more than {MEMBERS} different members")
    return readings


def _text(octets: bytes) -> str:
    try:
        return octets.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise Refusal("decode.encoding_wrong", f"utf-8 declared, byte {problem.start}") from problem


# Reading JSON. Numbers stay the text that they are; a doubled member is refused, for two readers may take two values.


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Refusal("decode.not_readable", "a member is doubled")
    return members


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_no_doubles, parse_float=str, parse_int=str, parse_constant=str, strict=True
)


def _said(text: str) -> list[Any]:
    """What stands for readings: the list, the list under `readings`, or the value of each line."""
    text = text.strip(" \t\r\n")
    if not text:
        raise Refusal("decode.not_readable", "empty")
    first, end = _value(text)
    if end == len(text):
        return _listed(first)
    return [_line(line, number) for number, line in enumerate(text.split("\n")) if line.strip(" \t\r")]


def _listed(value: Any) -> list[Any]:
    """Readings of a text that is one value. One object that has no `readings` is one reading."""
    if isinstance(value, dict) and READINGS in value:
        value = value[READINGS]
        if not isinstance(value, list):
            raise Refusal("decode.not_readable", f"{READINGS} is no list")
    return value if isinstance(value, list) else [value]


def _line(line: str, number: int) -> Any:
    line = line.strip(" \t\r")
    value, end = _value(line)
    if end != len(line):
        raise Refusal("decode.not_readable", f"line {number + 1} has more than one value")
    return value


def _value(text: str) -> tuple[Any, int]:
    """The value that a text begins with, and where it ends."""
    try:
        return _DECODER.raw_decode(text)
    except (ValueError, RecursionError) as problem:
        at = f" at character {problem.pos}" if isinstance(problem, json.JSONDecodeError) else ""
        raise Refusal("decode.not_readable", f"not JSON{at}") from problem


# Readings as texts


def _reading(value: Any, number: int) -> Reading:
    if not isinstance(value, dict):
        raise Refusal("decode.not_readable", f"reading {number} is no object")
    reading = {name: _as_text(member) for name, member in value.items() if name}
    for name, text in reading.items():
        if name.startswith("#") or len(name) > NAME_CHARACTERS or not _is_text(name):
            raise Refusal("decode.not_readable", f"reading {number} has a member that begins with # or is no name")
        if text is not None and len(text) > TEXT_CHARACTERS:
            raise Refusal("decode.too_large", f"reading {number}: more than {TEXT_CHARACTERS} characters")
        if text is not None and not _is_text(text):
            raise Refusal("decode.not_readable", f"reading {number} has half of a surrogate pair")
    return reading


def _as_text(value: Any) -> str | None:
    """A member's text. Numbers are text already; the empty text is not said."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list)):
        _refuse_deep(value, 1)
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return value or None


def _refuse_deep(value: Any, depth: int) -> None:
    if depth > MOST_DEPTH:
        raise Refusal("decode.not_readable", f"nested deeper than {MOST_DEPTH}")
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, (dict, list)):
            _refuse_deep(inner, depth + 1)


def _is_text(text: str) -> bool:
    """Whether the text is Unicode: JSON may escape half of a surrogate pair, and no other text can hold it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _frame(stack: list[tuple[int, int, Reading]]) -> pl.DataFrame:
    """Readings as columns of text, in order of first mention."""
    names = dict.fromkeys(itertools.chain.from_iterable(reading for _, _, reading in stack))
    return pl.DataFrame(
        [
            pl.Series(CONTENT, [index for index, _, _ in stack], dtype=pl.UInt32),
            pl.Series(RECORD, [number for _, number, _ in stack], dtype=pl.UInt32),
            pl.Series(SHEET, [None] * len(stack), dtype=pl.String),
            pl.Series(CARRIED, [False] * len(stack), dtype=pl.Boolean),
            *(pl.Series(name, [reading.get(name) for _, _, reading in stack], dtype=pl.String) for name in names),
        ]
    )
