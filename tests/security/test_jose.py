"""JSON and base64url as JOSE writes them: one reading of any octets, or none."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from security.jose import Doubled, b64url, strict_object, unb64url

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
)


@given(st.binary())
def test_octets_have_one_spelling_and_are_read_again(octets: bytes) -> None:
    assert unb64url(b64url(octets)) == octets


@given(st.text() | st.text("ABCDabcd0189-_+/=\n ", max_size=12))
@settings(max_examples=500)
def test_no_text_but_that_spelling_is_read(text: str) -> None:
    try:
        octets = unb64url(text)
    except ValueError:
        return
    assert b64url(octets) == text


@given(st.dictionaries(st.text(max_size=5), VALUES, max_size=5))
def test_an_object_is_read_as_it_was_written(members: dict[str, Any]) -> None:
    assert strict_object(json.dumps(members).encode()) == members


@given(st.binary(max_size=60) | st.text('{}[]",:0eE+-. nulltrue\\u', max_size=40).map(str.encode))
@settings(max_examples=500)
def test_anything_else_is_a_value_error(octets: bytes) -> None:
    try:
        members = strict_object(octets)
    except ValueError:
        return
    assert members == json.loads(octets)


@given(VALUES, VALUES, st.integers(0, 20))
def test_a_member_doubled_at_any_depth_is_found(one: Any, other: Any, depth: int) -> None:
    text = f'{{"a": {json.dumps(one)}, "a": {json.dumps(other)}}}'
    for _ in range(depth):
        text = f'{{"b": [{text}]}}'
    with pytest.raises(Doubled):
        strict_object(text.encode())
