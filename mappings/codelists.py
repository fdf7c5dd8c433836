"""Code lists as data: classes, divisions, attribute tables, each line with its edition, source and confidence."""

import functools
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import polars as pl

from mappings.schema import CLASSES_BETWEEN
from security.errors import Misconfigured

_FOLDER = Path(__file__).parent


class Edition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An edition of the component standard, from `mappings/editions/{id}.toml`.

    id:                   short name, as in `yongtong init --edition 2007`
    name:                 the standard's number, as in the code lists and in a feed's `classes`
    class_digits:         length of a class code
    component_code_parts: digits of a component code's parts: division, major class, minor class, serial
    classes, attributes:  files in `mappings/codelists/`
    """

    id: str
    name: str
    title_zh: str
    title: str
    class_digits: int
    component_code_parts: tuple[int, int, int, int]
    classes: str
    attributes: str
    valid_from: str
    source: str
    confidence: str


@functools.cache
def editions() -> dict[str, Edition]:
    """Every edition by its short name."""
    paths = sorted((_FOLDER / "editions").glob("*.toml"))
    found = [msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Edition) for path in paths]
    return {edition.id: edition for edition in found}


def edition(name: str) -> Edition:
    """The edition of a short name (`2007`) or a standard's number (`CJ/T 214-2007`). Raises Misconfigured."""
    for known in editions().values():
        if name in (known.id, known.name):
            return known
    raise Misconfigured("config.setting", f"edition {name!r} is none of {', '.join(editions())}")


@functools.cache
def classes(name: str) -> pl.DataFrame:
    """The component classes of an edition: code, name_zh, name_en, major, geometry (P, L, A; P/A either), all text."""
    return (
        _table(edition(name).classes)
        .rename({"code4": "code", "major_code": "major"})
        .select("code", "name_zh", "name_en", "major", "geometry")
    )


@functools.cache
def divisions() -> pl.DataFrame:
    """Divisions of Ningbo: code, name_zh, name_en, level, status (`current`, `abolished` …), valid_from, valid_to."""
    return _table("divisions.csv").rename({"code6": "code"}).drop("source", "confidence")


@functools.cache
def attributes(name: str) -> pl.DataFrame:
    """The attribute table of an edition: field, name_zh, name_en, type, length, mandatory (M, O), allowed_values.

    length and mandatory are as the source gives them; where it is not sure they say so in words.
    """
    return _table(edition(name).attributes).select(
        "field", "name_zh", "name_en", "type", "length", "mandatory", "allowed_values", "source", "confidence"
    )


@functools.cache
def cass() -> dict[str, tuple[str, ...]]:
    """The 2007 classes that a symbol of South CASS may stand for, by its code; none where it is no component.

    Several mean that the map alone cannot say which. Many lines are proposals: the table says how sure each is.
    """
    said = _table("cass-2007.csv").select("cass_code", pl.col("component_code4").fill_null(""))
    return {code: tuple(filter(None, classes.split("|"))) for code, classes in said.iter_rows()}


# Code lists that a feed's `lookup` may name: what each text means as a class, several that it may mean as `0102|0103`.
# `cass_components`: codes of 南方CASS that are a component by themselves, 34 and the class; `cass`: all of its codes;
# `cass_blocks`: its blocks for components, `gcbj` and the class.
CODE_TABLES: Final[dict[str, Callable[[], dict[str, str]]]] = {
    "cass_components": lambda: {f"34{code}": code for code in classes("2007")["code"]},
    "cass": lambda: {code: CLASSES_BETWEEN.join(found) for code, found in cass().items() if found},
    "cass_blocks": lambda: {f"gcbj{code}": code for code in classes("2007")["code"]},
}


def _table(file: str) -> pl.DataFrame:
    return pl.read_csv(_FOLDER / "codelists" / file, infer_schema=False)
