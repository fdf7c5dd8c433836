"""Signed documents: canonical, strict, the same octets each time."""

import base64
import contextlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from security.errors import Refusal
from security.jws import jcs, key_named, open_document, sign_document
from security.keys import SigningKey, generate
from security.pki import issue, make_ca

NOW = datetime(2026, 7, 1, tzinfo=UTC)
TYP = "yt-receipt+jws"
DOCUMENT = {"v": 1, "出具": "甬通", "list": ["a", {"b": 2}]}
VALUES = st.recursive(
    st.text() | st.integers(-(2**53) + 1, 2**53 - 1),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def a_key(kind: Any = "ES256") -> SigningKey:
    key = generate(kind)
    return key.with_certificate(
        issue(make_ca("Test CA", NOW), "bus", key.public_key, "signing", NOW, NOW + timedelta(days=1))
    )


KEY = a_key()
SIGNED = sign_document(DOCUMENT, TYP, KEY, NOW)


def b64(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def signed_parts(header: str, payload: str, key: SigningKey = KEY) -> bytes:
    """A document whose header and payload are any JSON text, under a signature that holds."""
    protected, body = b64(header.encode()), b64(payload.encode())
    signature = b64(key.sign(f"{protected}.{body}".encode()))
    return json.dumps({"payload": body, "protected": protected, "signature": signature}).encode()


def header_with(**spoil: Any) -> str:
    good = {"alg": "ES256", "typ": TYP, "kid": KEY.fingerprint, "x5t#S256": b64(bytes.fromhex(KEY.fingerprint))}
    return json.dumps({**good, **spoil})


@pytest.mark.parametrize("kind", ["ES256", "RS256", "EdDSA"])
def test_a_signed_document_opens_and_is_the_same_octets_each_time(kind: Any) -> None:
    key = a_key(kind)
    signed = sign_document(DOCUMENT, TYP, key, NOW)
    assert signed == sign_document(DOCUMENT, TYP, key, NOW)
    assert key_named(signed) == key.fingerprint
    assert key.certificate_der is not None
    assert open_document(signed, key.certificate_der, TYP) == DOCUMENT
    assert open_document(signed, key.public_key, TYP) == DOCUMENT


def test_a_key_without_certificate_signs_too() -> None:
    key = generate("EdDSA")
    assert open_document(sign_document(DOCUMENT, TYP, key), key.public_key, TYP) == DOCUMENT


@pytest.mark.parametrize(
    "octets, code",
    [
        (SIGNED.replace(b'"payload":"', b'"payload":"e', 1), "signature.invalid"),
        (SIGNED.replace(b"{", b'{"header":{},', 1), "signature.document_not_readable"),
        (SIGNED.replace(b"{", b'{"payload":"e30",', 1), "signature.document_not_readable"),
        (SIGNED.replace(b'"}', b'="}', 1), "signature.document_not_readable"),
        (b"[]", "signature.document_not_readable"),
        (b"\xff", "signature.document_not_readable"),
        (b"[" * 100_000, "signature.document_not_readable"),
        (b" " * ((1 << 20) + 1), "signature.document_not_readable"),
        (signed_parts(header_with(alg="none"), "{}"), "signature.algorithm_not_of_key"),
        (signed_parts(header_with(alg="HS256"), "{}"), "signature.algorithm_not_of_key"),
        (signed_parts(header_with(alg="RS256"), "{}"), "signature.algorithm_not_of_key"),
        (signed_parts(header_with(typ="yt-report+jws"), "{}"), "signature.document_of_other_kind"),
        (signed_parts(header_with(kid="00"), "{}"), "signature.certificate_differs"),
        (signed_parts(header_with(crit=["b64"]), "{}"), "signature.document_not_readable"),
        (signed_parts(header_with(b64="false"), "{}"), "signature.document_not_readable"),
        (signed_parts(header_with(jwk={}), "{}"), "signature.document_not_readable"),
        (signed_parts(header_with(alg=1), "{}"), "signature.document_not_readable"),
        (signed_parts('{"alg":"ES256","alg":"ES256"}', "{}"), "signature.document_not_readable"),
        (signed_parts(header_with(), '{"a":{"b":1,"b":2}}'), "signature.document_not_readable"),
        (signed_parts(header_with(), '{"a": 1}'), "signature.document_not_readable"),
        (signed_parts(header_with(), '{"a":1.5}'), "signature.document_not_readable"),
        (signed_parts(header_with(), '{"a":NaN}'), "signature.document_not_readable"),
        (signed_parts(header_with(), '{"a":null}'), "signature.document_not_readable"),
        (signed_parts(header_with(), '{"a":true}'), "signature.document_not_readable"),
        (signed_parts(header_with(), '{"a":"\\ud800"}'), "signature.document_not_readable"),
        (signed_parts(header_with(), "{}", generate("ES256")), "signature.invalid"),
    ],
)
def test_a_spoilt_document_is_refused(octets: bytes, code: str) -> None:
    assert KEY.certificate_der is not None
    with pytest.raises(Refusal) as refused:
        open_document(octets, KEY.certificate_der, TYP)
    assert refused.value.code == code


@given(st.data())
@settings(max_examples=150)
def test_no_flipped_byte_gives_another_document(data: Any) -> None:
    position = data.draw(st.integers(0, len(SIGNED) - 1))
    spoilt = bytearray(SIGNED)
    spoilt[position] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(Refusal):
        assert open_document(bytes(spoilt), KEY.certificate_der or b"", TYP) == DOCUMENT


@given(VALUES)
def test_canonical_json_reads_back_and_is_stable(value: Any) -> None:
    octets = jcs({"value": value})
    assert json.loads(octets) == {"value": value}
    assert jcs(json.loads(octets)) == octets


def test_canonical_json_is_that_of_rfc_8785() -> None:
    """§3.2.2.2 (strings) and §3.2.3 (names by UTF-16 code units) of the RFC, with its own examples."""
    names = {"€": "Euro Sign", "\r": "Carriage Return", "\ufb33": "Hebrew Letter Dalet With Dagesh", "1": "One"}
    names |= {"\U0001f600": "Emoji: Grinning Face", "\x80": "Control", "ö": "Latin Small Letter O With Diaeresis"}
    order = ["Carriage Return", "One", "Control", "Latin Small Letter O With Diaeresis", "Euro Sign",
             "Emoji: Grinning Face", "Hebrew Letter Dalet With Dagesh"]  # fmt: skip
    assert list(json.loads(jcs(names)).values()) == order
    assert jcs({"s": '€$\x0f\nA\'B"\\\\"/\x7f'}) == '{"s":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/\x7f"}'.encode()


@pytest.mark.parametrize("value", [1.0, None, True, 2**53, "\ud800", {1: "a"}, b"x"])
def test_what_languages_print_differently_is_not_written(value: Any) -> None:
    with pytest.raises((ValueError, UnicodeError)):
        jcs({"value": value})
