"""Whatever is refused or misconfigured says so in Chinese and English, with the next step."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import security
from security.errors import AuditBroken, ExchangeError, Misconfigured, Refusal, Unavailable, sentences

ROOT: Final = Path(security.__file__).parent.parent
HAN: Final = re.compile(r"[\u4e00-\u9fff]")


def raised(kind: type[ExchangeError]) -> Iterator[tuple[str, ast.expr]]:
    """Where the source makes one of a kind, and what it gives first."""
    for part in ("security", "connectors", "mappings", "scheduler", "exchange"):
        for path in sorted((ROOT / part).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == kind.__name__:
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node.args[0]


@pytest.mark.parametrize("code", sentences())
def test_every_code_speaks_both_languages_and_names_the_next_step(code: str) -> None:
    said = sentences()[code]
    assert re.fullmatch(r"[a-z0-9]+\.[a-z0-9_]+", code)
    assert HAN.search(said.zh)
    assert HAN.search(said.next_zh)
    assert re.search("[a-z]", said.en)
    assert re.search("[a-z]", said.next_en)
    assert not HAN.search(said.en + said.next_en)


def test_every_misconfiguration_in_the_source_has_a_code_with_its_sentence() -> None:
    found = list(raised(Misconfigured))
    assert len(found) > 150
    wrong = [
        where
        for where, code in found
        if not (isinstance(code, ast.Constant) and code.value in sentences() and code.value.startswith("config."))
    ]
    assert wrong == []


def test_every_code_of_a_refusal_that_the_source_writes_out_has_its_sentence() -> None:
    codes = {where: code.value for where, code in raised(Refusal) if isinstance(code, ast.Constant)}
    assert len(codes) > 200
    assert {where: code for where, code in codes.items() if code not in sentences()} == {}


@pytest.mark.parametrize("problem", [Misconfigured("config.file", "x"), Unavailable("x"), AuditBroken("x")], ids=repr)
def test_what_is_no_refusal_has_its_sentence_too_and_its_own_words_for_the_log(problem: ExchangeError) -> None:
    assert problem.sentence is sentences()[problem.code]
    assert (str(problem), problem.detail) == ("x", "x")
