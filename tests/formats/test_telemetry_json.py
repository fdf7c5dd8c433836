"""Readings are read as they are spelt, record by record; what leaves open what was said refuses the delivery."""

import json
from contextlib import suppress
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.formats import telemetry_json
from connectors.formats.catalogue import formats
from connectors.formats.records import CARRIED, CONTENT, RECORD, SHEET
from connectors.formats.telemetry_json import MEMBERS, MOST_DEPTH, decode
from security.errors import Refusal
from security.message import in_memory

LEVEL = '{"device":"SW00001","metric":"水位","value":3.20,"at":"2026-11-25T08:00:00+08:00"}'
COVER = '{"device":"SW00002","metric":"井盖","state":"开","alarm":true,"note":null}'


def read(*texts: str | bytes) -> pl.DataFrame:
    contents = [in_memory(text.encode() if isinstance(text, str) else text) for text in texts]
    return pl.concat([batch.frame for batch in decode(contents, {})], how="diagonal")


def refused(text: str | bytes) -> str:
    with pytest.raises(Refusal) as caught:
        read(text)
    return caught.value.code


@pytest.mark.parametrize(
    "text",
    [
        f"[{LEVEL},{COVER}]",
        f'{{"gateway":"g-1","readings":[{LEVEL},{COVER}]}}',
        f"{LEVEL}\n{COVER}",
        f"\ufeff{LEVEL}\r\n\r\n  {COVER}  \n",
        json.dumps(json.loads(f"[{LEVEL},{COVER}]"), indent=2).replace("3.2,", "3.20,"),
    ],
)
def test_each_form_gives_the_same_records_with_numbers_as_they_are_spelt(text: str) -> None:
    frame = read(text)
    assert frame["device"].to_list() == ["SW00001", "SW00002"]
    assert frame["metric"].to_list() == ["水位", "井盖"]
    assert frame["value"].to_list() == ["3.20", None]
    assert frame["alarm"].to_list() == [None, "true"]
    assert frame["note"].to_list() == [None, None]
    assert frame.schema["value"] == pl.String
    assert frame.select(CONTENT, RECORD, SHEET, CARRIED).rows() == [(0, 0, None, False), (0, 1, None, False)]


def test_one_object_without_readings_is_one_reading() -> None:
    assert read(LEVEL).height == 1
    assert read(json.dumps(json.loads(LEVEL), indent=4)).height == 1


def test_a_delivery_of_no_readings_is_empty_and_right() -> None:
    for text in ("[]", '{"readings":[]}'):
        assert read(text).height == 0


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_what_json_has_no_number_for_stays_text_and_the_others_go_on(word: str) -> None:
    frame = read(f'[{{"d":"a","v":{word}}},{{"d":"b","v":1e400}},{{"d":"c","v":-0.0}}]')
    assert frame["v"].to_list() == [word, "1e400", "-0.0"]


def test_numbers_keep_every_digit() -> None:
    digits = "9" * 5000
    assert read(f'[{{"v":12345678901234567890.000}},{{"v":{digits}}}]')["v"].to_list() == [
        "12345678901234567890.000", digits,
    ]  # fmt: skip


def test_lists_and_objects_within_a_reading_stand_as_their_json_text() -> None:
    assert read('[{"v":[1, 2.50],"w":{"a":{"b":"井"}}}]').row(0)[4:] == ('["1","2.50"]', '{"a":{"b":"井"}}')


def test_contents_share_a_batch_and_keep_their_numbers() -> None:
    frame = read(f"[{LEVEL}]", f"[{COVER},{LEVEL}]")
    assert frame.select(CONTENT, RECORD).rows() == [(0, 0), (1, 0), (1, 1)]


@pytest.mark.parametrize(
    "text, code",
    [
        ("", "decode.not_readable"),
        ("   \n", "decode.not_readable"),
        ("设备编号,读数\n1,2\n", "decode.not_readable"),
        (f"[{LEVEL},{COVER}", "decode.not_readable"),
        (f"[{LEVEL}][{COVER}]", "decode.not_readable"),
        (f"{LEVEL}{COVER}", "decode.not_readable"),
        (f"{LEVEL}\n{COVER[:-4]}", "decode.not_readable"),
        (f"{LEVEL}\n[{COVER}]", "decode.not_readable"),
        ('[{"v":1,"v":2}]', "decode.not_readable"),
        ('{"readings":[],"readings":[{"v":1}]}', "decode.not_readable"),
        ('[{"w":{"v":1,"v":2}}]', "decode.not_readable"),
        ('{"readings":{"v":1}}', "decode.not_readable"),
        ("[1]", "decode.not_readable"),
        ('"text"', "decode.not_readable"),
        ("NaN", "decode.not_readable"),
        ("[null]", "decode.not_readable"),
        ('[{"#record":"7"}]', "decode.not_readable"),
        ('[{"v":"\\ud800"}]', "decode.not_readable"),
        ('[{"\\ud800":"v"}]', "decode.not_readable"),
        ('[{"v":"a\u0000b"}]', "decode.not_readable"),
        ("[{'v':1}]", "decode.not_readable"),
        ("[{\"v\":01}]", "decode.not_readable"),
        ('[{"v":1,}]', "decode.not_readable"),
        ('[{"v":1}] // all', "decode.not_readable"),
        ("[" * 100_000, "decode.not_readable"),
        ('{"a":' * 100_000, "decode.not_readable"),
        ('[{"v":' + "[" * (MOST_DEPTH + 1) + "]" * (MOST_DEPTH + 1) + "}]", "decode.not_readable"),
        ('[{"v":"' + "x" * 40_000 + '"}]', "decode.too_large"),
        (json.dumps([{f"m{n}": 1} for n in range(MEMBERS + 1)]), "decode.too_large"),
        ('[{"' + "n" * 200 + '":1}]', "decode.not_readable"),
        (f"[{COVER}]".encode("gb18030"), "decode.encoding_wrong"),
        (f"[{LEVEL}]".encode("utf-16"), "decode.encoding_wrong"),
        (b'[{"v":"\xc0\xaf"}]', "decode.encoding_wrong"),
    ],
)  # fmt: skip
def test_what_leaves_open_what_was_said_is_refused(text: str | bytes, code: str) -> None:
    assert refused(text) == code


def test_too_many_readings_and_too_many_bytes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry_json, "MOST_READINGS", 2)
    assert read(f"[{LEVEL},{LEVEL}]").height == 2
    assert refused(f"[{LEVEL},{LEVEL},{LEVEL}]") == "decode.too_large"
    monkeypatch.setattr(telemetry_json, "MOST_BYTES", 10)
    assert refused(f"[{LEVEL}]") == "decode.too_large"


def test_more_than_a_batch_is_numbered_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry_json, "RECORDS_PER_BATCH", 2)
    batches = list(decode([in_memory(f"[{LEVEL},{COVER},{LEVEL}]".encode())], {}))
    assert [batch.frame[RECORD].to_list() for batch in batches] == [[0, 1], [2]]


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).filter(lambda name: not name.startswith("#"))
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
)


def as_text(value: Any) -> str | None:
    if isinstance(value, str):
        return value or None
    return None if value is None else json.dumps(value)


@settings(max_examples=150)
@given(st.lists(st.dictionaries(NAMES, VALUES, max_size=6), min_size=1, max_size=8), st.sampled_from("alo"))
def test_every_member_arrives_as_its_text(readings: list[dict[str, Any]], form: str) -> None:
    texts = [json.dumps(reading, ensure_ascii=False) for reading in readings]
    if form == "l" and any(telemetry_json.READINGS in reading for reading in readings):
        return
    text = {"a": f"[{','.join(texts)}]", "l": "\n".join(texts), "o": f'{{"readings":[{",".join(texts)}]}}'}[form]
    frame = read(text)
    assert frame.height == len(readings)
    for row, reading in zip(frame.iter_rows(named=True), readings, strict=True):
        said = {name: value for name, value in row.items() if not name.startswith("#") and value is not None}
        expected = {name: as_text(value) for name, value in reading.items() if name}
        assert said == {name: text for name, text in expected.items() if text is not None}


@settings(max_examples=300)
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_octets_are_read_or_refused(octets: bytes) -> None:
    with suppress(Refusal):
        read(octets)


def test_the_catalogue_finds_it() -> None:
    assert formats()["telemetry_json"].decode is decode
