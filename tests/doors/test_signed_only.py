"""What counts is what was signed: of the rest of a request, its part's headers and its length, nothing is believed."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from lxml import etree

from exchange.bus import Limits
from exchange.receipts import verify_receipt
from security.wss import open_envelope, verify
from tests.doors.test_soap import (
    CSV,
    END,
    LINE,
    YT,
    Exchange,
    as_mtom,
    code_of,
    exchange,
    signed,
    submission,
)

__all__ = ["exchange"]  # a fixture of the other doors' tests
MTOM = 'multipart/related; type="application/xop+xml"; boundary=b'
MIB = 1_048_576


def test_type_and_length_of_a_part_are_those_of_the_signed_body(exchange: Exchange) -> None:
    root, part = as_mtom(exchange.water, CSV, "part@x")
    lying = part.replace(b"text/csv", b"text/html").replace(b"\r\n\r\n", b"\r\nContent-Length: 1\r\n\r\n", 1)
    response = exchange.post(b"--b\r\n" + root + LINE + lying + END, exchange.water, Content_Type=MTOM)
    octets = etree.fromstring(response.content).findtext(f".//{YT}Receipt") or ""
    document = verify_receipt(octets.encode(), exchange.test.anchors).document
    assert (document["content_type"], document["content_length"]) == ("text/csv", len(CSV))


@pytest.mark.parametrize("mtom", [False, True], ids=["inline", "mtom"])
@pytest.mark.parametrize(
    "spoil, alter, code",
    [
        ({}, lambda octets: octets, None),
        ({"MessageId": "m 1"}, lambda octets: octets, "soap.schema_invalid"),
        ({"MessageId": "m 1"}, lambda octets: octets.replace(b"m 1", b"m 2"), "signature.invalid"),
        ({"Surplus": "x"}, lambda octets: octets, "soap.schema_invalid"),
        ({"Surplus": "x"}, lambda octets: octets.replace(b">x<", b">y<"), "signature.invalid"),
    ],
)
def test_the_shape_is_judged_after_the_signature_and_without_the_content(
    exchange: Exchange, mtom: bool, spoil: dict[str, str], alter: Callable[[bytes], bytes], code: str | None
) -> None:
    """An Include is no xs:base64Binary: with it, no message by MTOM would be valid."""
    if mtom:
        root, part = as_mtom(exchange.water, CSV, "part@x", **spoil)
        response = exchange.post(b"--b\r\n" + alter(root) + LINE + part + END, exchange.water, Content_Type=MTOM)
    else:
        response = exchange.post(alter(signed(submission(exchange.water, **spoil), exchange.water)), exchange.water)
    assert code_of(response) == code


def test_content_that_is_no_base64_is_refused_as_such(exchange: Exchange) -> None:
    response = exchange.post(signed(submission(exchange.water, Content="%%%%"), exchange.water), exchange.water)
    assert code_of(response) == "signature.content_not_base64"


def test_an_answer_says_what_it_answers_to_whom_when_and_as_of_when(exchange: Exchange) -> None:
    before = datetime.now(UTC)
    octets = signed(submission(exchange.water), exchange.water)
    (certificate,) = exchange.water.answerers()
    answer = verify(open_envelope(exchange.post(octets, exchange.water).content), certificate, now=datetime.now(UTC))
    words = {etree.QName(child).localname: child.text or "" for child in answer.element.iter()}
    assert (words["MessageId"], words["Recipient"]) == ("m-1", "water")
    for name in ("AnsweredAt", "AsOf"):
        assert before <= datetime.fromisoformat(words[name]) <= datetime.now(UTC), name


def test_the_limits_are_those_of_the_protocol_unless_they_are_set(tmp_path: Path) -> None:
    """5 MiB inline and 256 MiB by MTOM: as built in, and as the settings file of a new bus has them."""
    assert (Limits().max_inline_bytes, Limits().max_mtom_bytes) == (5 * MIB, 256 * MIB)
    written = (Path(__file__).parents[2] / "settings.toml").read_text(encoding="utf-8")
    found = {name: int(value.replace("_", "")) for name, value in re.findall(r"(max_\w+_bytes) = ([\d_]+)", written)}
    assert (found["max_inline_bytes"], found["max_mtom_bytes"]) == (5 * MIB, 256 * MIB)
