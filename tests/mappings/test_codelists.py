"""Code lists are data: each line says where it comes from and how sure that is."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from mappings import codelists
from mappings.findings import Severity, sentence_of, sentences
from security.errors import Misconfigured

FOLDER = Path(codelists.__file__).parent / "codelists"


def test_the_2007_list_has_its_85_classes_in_six_majors() -> None:
    classes = codelists.classes("2007")
    assert (classes.height, classes["major"].n_unique()) == (85, 6)
    assert classes.equals(codelists.classes("CJ/T 214-2007"))
    assert classes.filter(pl.col("code") == "0101").row(0) == (
        "0101",
        "上水井盖",
        "water-supply manhole cover",
        "01",
        "P",
    )
    assert classes["code"].is_unique().all()


def test_class_and_component_codes_have_the_edition_s_length() -> None:
    edition = codelists.edition("2007")
    division, major, minor, serial = edition.component_code_parts
    assert codelists.classes("2007")["code"].str.len_chars().unique().to_list() == [edition.class_digits]
    assert (major + minor, division + major + minor + serial) == (edition.class_digits, 16)


def test_divisions_keep_abolished_codes_with_their_years() -> None:
    divisions = codelists.divisions()
    assert dict(divisions.select("code", "status").iter_rows())["330204"] == "abolished"
    assert divisions.columns == ["code", "name_zh", "name_en", "level", "status", "valid_from", "valid_to"]


def test_the_attribute_table_names_the_base_fields() -> None:
    attributes = codelists.attributes("2007")
    assert attributes["field"].to_list()[:3] == ["ObjID", "ObjName", "DeptCode1"]
    assert attributes.height == 15


def test_a_cass_code_stands_for_one_class_for_several_or_for_none() -> None:
    cass = codelists.cass()
    assert len(cass) == 160
    assert (cass["174100"], cass["174200"], cass["155900"]) == (("0101",), ("0102", "0103"), ())
    known = set(codelists.classes("2007")["code"])
    assert {each for classes in cass.values() for each in classes} <= known


def test_a_feed_may_look_up_cass_codes_and_finds_those_of_components() -> None:
    table = codelists.CODE_TABLES["cass"]()
    assert (table["174100"], table["174200"]) == ("0101", "0102|0103")
    assert "155900" not in table


def test_a_component_code_of_cass_is_34_and_the_class() -> None:
    own = {code: classes for code, classes in codelists.cass().items() if code.startswith("34")}
    assert len(own) == 86
    assert {code for code, classes in own.items() if classes != (code[2:],)} == {"340612"}  # in no list of classes


def test_the_cass_list_is_the_one_that_was_collected(shared_data: Callable[[str], Path]) -> None:
    collected = pl.read_csv(shared_data("../domain") / "cass-codes.csv", infer_schema=False)
    ours = pl.read_csv(FOLDER / "cass-2007.csv", infer_schema=False)
    assert ours.drop("edition").equals(collected)
    assert ours["edition"].unique().to_list() == ["CJ/T 214-2007"]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.csv")), ids=lambda path: str(path.name))
def test_every_line_of_every_list_names_source_and_confidence(path: Path) -> None:
    table = pl.read_csv(path, infer_schema=False)
    assert table.select(pl.col("source", "confidence").is_not_null().all()).row(0) == (True, True)


def test_an_unknown_edition_is_refused() -> None:
    with pytest.raises(Misconfigured, match="2013"):
        codelists.classes("2013")


def test_every_finding_has_all_four_sentences() -> None:
    for code, sentence in sentences().items():
        assert all((sentence.zh, sentence.en, sentence.next_zh, sentence.next_en)), code
    assert sentence_of("ignored.repeated_point") is sentences()["ignored"]
    assert [severity.value for severity in Severity] == ["error", "ignored", "warning"]
