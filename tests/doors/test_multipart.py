"""multipart/related: a good message, and one thing spoiled at a time, in memory and spooled alike."""

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.transports.multipart import Related, media_type, take_apart
from security.errors import Refusal
from security.message import Content, in_memory, sha256

CONTENT = b"id,kind\r\n1,\xe4\xba\x95\r\n--almost-a-boundary\r\n"
TYPE = 'multipart/related; type="application/xop+xml"; start="<root@x>"; start-info="text/xml"; boundary="b-1"'
ROOT_HEAD = (
    b'Content-Type: application/xop+xml; charset=UTF-8; type="text/xml"\r\n'
    b"Content-Transfer-Encoding: 8bit\r\nContent-ID: <root@x>\r\n"
)
PART_HEAD = b"Content-Type: text/csv\r\nContent-Transfer-Encoding: binary\r\nContent-ID: <part@x>\r\n"


def message(
    *,
    begin: bytes = b"",
    root_head: bytes = ROOT_HEAD,
    part_head: bytes = PART_HEAD,
    content: bytes = CONTENT,
    between: bytes = b"\r\n--b-1\r\n",
    more: bytes = b"",
    close: bytes = b"\r\n--b-1--\r\n",
) -> bytes:
    root = root_head + b"\r\n<envelope/>"
    return begin + b"--b-1\r\n" + root + between + part_head + b"\r\n" + content + more + close


def spooled(octets: bytes, folder: Path) -> Content:
    path = folder / "body"
    path.write_bytes(octets)
    return Content(len(octets), sha256(octets), path=path)


def apart(octets: bytes, declared: str = TYPE) -> Related:
    return take_apart(in_memory(octets), media_type(declared), max_envelope_bytes=1000)


def test_the_parts_of_a_good_message_are_found() -> None:
    related = apart(message())
    assert related.envelope == b"<envelope/>"
    assert related.envelope_type == "text/xml"
    assert related.attachment_id == "part@x"
    assert related.attachment.read() == CONTENT
    assert related.attachment.digest == sha256(CONTENT)


def test_the_attachment_of_a_spooled_message_is_a_slice_of_its_file(tmp_path: Path) -> None:
    body = spooled(message(), tmp_path)
    related = take_apart(body, media_type(TYPE), max_envelope_bytes=1000)
    assert related.attachment.path == body.path
    assert related.attachment.read() == CONTENT
    assert related.attachment.digest == sha256(CONTENT)


@pytest.mark.parametrize("offset", [1, 4095, 4096, 70_000])
def test_a_message_kept_within_a_longer_file_is_read_where_it_lies(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "segment"
    path.write_bytes(b"x" * offset + message() + b"--b-1\r\nthe next message")
    body = Content(len(message()), sha256(message()), path=path, offset=offset)
    related = take_apart(body, media_type(TYPE), max_envelope_bytes=1000)
    assert (related.envelope, related.attachment.size) == (b"<envelope/>", len(CONTENT))
    with related.attachment.open() as stream:
        assert stream.read(related.attachment.size) == CONTENT


def test_soap_1_2_carries_its_action_in_the_root_part() -> None:
    head = ROOT_HEAD.replace(b'type="text/xml"', b'type="application/soap+xml"; action="urn:a"')
    related = apart(message(root_head=head))
    assert (related.envelope_type, related.action) == ("application/soap+xml", "urn:a")


@pytest.mark.parametrize(
    "octets, code",
    [
        (message(between=b"", part_head=b"", content=b""), "mtom.parts"),
        (message(more=b"\r\n--b-1\r\n" + PART_HEAD + b"\r\nthird"), "mtom.parts"),
        (message(close=b""), "mtom.boundary"),
        (message(close=b"\r\n--b-1-"), "mtom.boundary"),
        (message(close=b"\r\n--b-1--\r\nepilogue"), "mtom.boundary"),
        (message(begin=b"preamble\r\n"), "mtom.boundary"),
        (message(between=b"\r\n--b-1 \r\n"), "mtom.boundary"),
        (message(between=b"\n--b-1\n"), "mtom.parts"),
        (message(part_head=PART_HEAD.replace(b"binary", b"quoted-printable")), "mtom.encoding"),
        (message(part_head=PART_HEAD.replace(b"binary", b"base64")), "mtom.encoding"),
        (message(part_head=b"Content-ID: <part@x>\r\n"), "mtom.encoding"),
        (message(part_head=PART_HEAD.replace(b"\r\n", b"\n")), "mtom.part_header"),
        (message(part_head=PART_HEAD.replace(b"text/csv\r\n", b"text/csv\n")), "mtom.part_header"),
        (message(part_head=PART_HEAD.replace(b"text/csv", b"text/csv;\r\n x=y")), "mtom.part_header"),
        (message(part_head=PART_HEAD + b"Content-ID: <other@x>\r\n"), "mtom.part_header"),
        (message(part_head=PART_HEAD.replace(b"Content-ID: <part@x>\r\n", b"")), "mtom.part_header"),
        (message(part_head=PART_HEAD.replace(b"<part@x>", b"part@x")), "mtom.part_header"),
        (message(part_head=PART_HEAD + b"X: " + b"x" * 9_000 + b"\r\n"), "mtom.part_header"),
        (message(root_head=ROOT_HEAD.replace(b"<root@x>", b"<part@x>")), "mtom.root"),
        (message(root_head=ROOT_HEAD.replace(b"application/xop+xml", b"text/xml")), "mtom.root"),
        (message(root_head=ROOT_HEAD + b"\r\n" + b"x" * 2_000), "size.too_large"),
        (b"", "mtom.boundary"),
        (b"--b-1--\r\n", "mtom.boundary"),
    ],
)
def test_a_broken_message_is_refused_by_name(octets: bytes, code: str, tmp_path: Path) -> None:
    with pytest.raises(Refusal) as refused:
        apart(octets)
    assert refused.value.code == code
    if octets:
        with pytest.raises(Refusal) as refused:
            take_apart(spooled(octets, tmp_path), media_type(TYPE), max_envelope_bytes=1000)
        assert refused.value.code == code


@pytest.mark.parametrize(
    "declared, code",
    [
        ('multipart/related; type="application/xop+xml"', "mtom.boundary"),
        (f'multipart/related; boundary="{"b" * 71}"', "mtom.boundary"),
        ('multipart/related; boundary="b-1 "', "mtom.boundary"),
        ('multipart/related; boundary="b-2"', "mtom.boundary"),
        ('multipart/related; boundary="b-1"; type="text/xml"', "mtom.root"),
        ('multipart/related; boundary="b-1"; start="<part@x>"', "mtom.root"),
        ('multipart/related; boundary="b-1"; boundary="b-2"', "http.media_type"),
        ("", "http.media_type"),
    ],
)
def test_what_the_head_declares_must_agree(declared: str, code: str) -> None:
    with pytest.raises(Refusal) as refused:
        apart(message(), declared)
    assert refused.value.code == code


@given(st.binary(max_size=200).filter(lambda octets: b"\r\n--b-1" not in b"\r\n" + octets))
def test_any_content_without_the_boundary_comes_through_bit_for_bit(content: bytes) -> None:
    assert apart(message(content=content)).attachment.read() == content


@given(st.binary(max_size=300))
def test_rubbish_is_refused_and_nothing_else_is_raised(octets: bytes) -> None:
    with pytest.raises(Refusal):
        apart(octets)


@given(st.integers(0, len(message()) - 3))
def test_a_message_cut_anywhere_is_refused(length: int) -> None:
    with pytest.raises(Refusal):
        apart(message()[:length])


def test_a_body_that_is_only_a_stream_is_taken_apart_like_one_in_memory() -> None:
    octets = message(content=bytes(range(256)) * 400)
    streamed = Content(len(octets), sha256(octets), source=lambda: io.BytesIO(octets))
    bodies = (streamed, in_memory(octets))
    there, here = (take_apart(body, media_type(TYPE), max_envelope_bytes=1_000) for body in bodies)
    assert (there.envelope, there.attachment.digest) == (here.envelope, here.attachment.digest)
    assert (there.attachment.octets, there.attachment.path) == (None, None)
    assert there.attachment.read() == here.attachment.read()
