"""Whatever octets come as a JWS envelope, its readers answer with one document or with a refusal by name."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from security.errors import Refusal, sentences
from security.jose import Doubled, b64url, strict_object, unb64url
from security.jws_delivery import open_delivery
from tests.security.test_jws_delivery import RIGHT, header, sealed, taken

T = TypeVar("T")
FUZZ = settings(max_examples=150, deadline=None)

# Any JSON, numbers that JSON knows included; surrogates come as escapes, as a sender may write them.
TEXT = st.text(st.characters(), max_size=12)
LEAF = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
JSON = st.recursive(LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3))
OBJECT = st.dictionaries(TEXT, JSON, max_size=4)
NAMES = st.sampled_from([*header(), "payload", "protected", "signature", "header", "crit", "b64", "jwk", "x5c"])


def unless_refused(read: Callable[[bytes], T], octets: bytes) -> T | None:
    """What a reader makes of octets; None where it refuses them by a code that has its sentences."""
    try:
        return read(octets)
    except Refusal as refusal:
        code = refusal.code
    assert code in sentences()
    return None


def encoded(value: Any, twice: list[str]) -> str:
    """A value as JSON; of each object that has a member named in `twice`, that member stands twice."""
    if isinstance(value, dict):
        pairs = [pair for name, inner in value.items() for pair in [(name, inner)] * (2 if name in twice else 1)]
        return "{" + ",".join(f"{json.dumps(name)}:{encoded(inner, twice)}" for name, inner in pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(encoded(inner, twice) for inner in value) + "]"
    return json.dumps(value)


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    """A good envelope with a few pieces cut out, doubled, moved or replaced."""
    octets = draw(st.sampled_from([RIGHT, sealed(header(content=b"x"), content=b"x")]))
    for _ in range(draw(st.integers(1, 4))):
        first, last = sorted((draw(st.integers(0, len(octets))), draw(st.integers(0, len(octets)))))
        piece, place = octets[first:last], draw(st.integers(0, len(octets)))
        new = draw(st.sampled_from([b"", piece * 2, piece[::-1], octets[place : place + 8]]) | st.binary(max_size=6))
        octets = octets[:first] + new + octets[last:]
    return octets


@given(st.binary(max_size=300) | OBJECT.map(lambda value: json.dumps(value).encode()) | mutants())
@FUZZ
def test_any_octets_are_an_envelope_or_refused_by_name(octets: bytes) -> None:
    envelope = unless_refused(open_delivery, octets)
    if envelope is not None:  # then it says in one way only what it says
        outer = json.loads(octets)
        assert set(outer) == {"payload", "protected", "signature"}
        assert outer["payload"] == b64url(envelope.content)
        assert outer["signature"] == b64url(envelope.signature)
        assert envelope.signed == f"{outer['protected']}.{outer['payload']}".encode()


@given(st.dictionaries(NAMES, JSON | st.just(...), min_size=1, max_size=4))
@FUZZ
def test_any_header_under_a_signature_that_holds_is_the_right_one_or_refused(spoilt: dict[str, Any]) -> None:
    """`...` leaves a member out."""
    changed = header(**spoilt)
    payload = unless_refused(taken, sealed(changed))
    if payload is None:
        return
    assert set(changed) == set(header())
    assert (payload.sender, payload.message_id, payload.feed) == (changed["iss"], changed["mid"], changed["feed"])
    assert all(changed[name] == header()[name] for name in ("alg", "typ", "kid", "x5t#S256", "iss", "dig"))


@given(st.dictionaries(NAMES, JSON, min_size=1, max_size=3))
@FUZZ
def test_any_member_outside_the_signature_is_refused(outer: dict[str, Any]) -> None:
    octets = json.dumps({**json.loads(RIGHT), **outer}).encode()
    if json.loads(octets) != json.loads(RIGHT):
        with pytest.raises(Refusal):
            taken(octets)


@given(OBJECT)
@FUZZ
def test_an_object_is_read_as_any_reader_would(value: dict[str, Any]) -> None:
    octets = json.dumps(value).encode()
    assert strict_object(octets) == json.loads(octets)


@given(OBJECT.filter(bool), st.data())
@FUZZ
def test_a_member_that_stands_twice_is_found_at_any_depth(value: dict[str, Any], data: st.DataObject) -> None:
    names: list[str] = []
    json.loads(json.dumps(value), object_pairs_hook=lambda pairs: names.extend(name for name, _ in pairs))
    octets = encoded(value, [data.draw(st.sampled_from(names))]).encode()
    with pytest.raises(Doubled):
        strict_object(octets)


@given(st.binary(max_size=200) | st.text(st.sampled_from('{}[]":,\\u0eE1-+. \n'), max_size=40).map(str.encode))
@FUZZ
def test_any_octets_are_an_object_or_a_value_error(octets: bytes) -> None:
    try:
        value = strict_object(octets)
    except ValueError:
        return
    assert value == json.loads(octets)


@given(st.text(max_size=40) | st.text(st.sampled_from("AQgw-_=+/ \n"), max_size=12))
@FUZZ
def test_base64url_has_one_spelling(text: str) -> None:
    try:
        octets = unb64url(text)
    except ValueError:
        return
    assert b64url(octets) == text
