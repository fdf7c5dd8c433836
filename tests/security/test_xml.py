"""The XML door: what may not stand in a document, and its canonical form."""

import threading
from pathlib import Path

import pytest

from security.errors import Misconfigured, Refusal
from security.xml import canonical, compile_schema, parse

NESTED = b"<a>" * 65 + b"</a>" * 65


@pytest.mark.parametrize(
    "octets, code",
    [
        (b"<a>" + b" " * 100_000 + b"</a>", "xml.too_large"),
        (b'<?xml version="1.0" encoding="GBK"?><a/>', "xml.encoding"),
        (b'<?xml version="1.0" encoding="UTF-7"?>+ADw-a/+AD4-', "xml.encoding"),
        ("<a/>".encode("utf-16"), "xml.encoding"),
        ("<a/>".encode("utf-16-be"), "xml.encoding"),
        ("<a/>".encode("utf-32"), "xml.encoding"),
        (b"<!DOCTYPE a><a/>", "xml.dtd"),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><a b="&b;">&b;</a>', "xml.dtd"),
        (b"<a><!-- split -->text</a>", "xml.comment_or_instruction"),
        (b"<!-- before --><a/>", "xml.comment_or_instruction"),
        (b"<a/><!-- after -->", "xml.comment_or_instruction"),
        (b"<a><?php x ?></a>", "xml.comment_or_instruction"),
        (b'<?xml-stylesheet href="x"?><a/>', "xml.comment_or_instruction"),
        (b"<a>&unknown;</a>", "xml.not_well_formed"),
        (b"<a><b></a>", "xml.not_well_formed"),
        (b"", "xml.not_well_formed"),
        (b"<a>\xff</a>", "xml.not_well_formed"),
        (b"<a b='1' b='2'/>", "xml.not_well_formed"),
        (NESTED, "xml.too_complex"),
        (b"<a>" + b"<b/>" * 1000 + b"</a>", "xml.too_complex"),
        (b"<a>" + b"<b/>" * 5000 + b"</a>", "xml.too_complex"),
        (b"<a " + b" ".join(b"b%d=''" % i for i in range(65)) + b"/>", "xml.too_complex"),
        (b"<a " + b" ".join(b"xmlns:b%d='urn:b'" % i for i in range(1001)) + b"/>", "xml.too_complex"),
    ],
)
def test_what_may_not_stand_in_a_document_is_refused(octets: bytes, code: str) -> None:
    with pytest.raises(Refusal) as refused:
        parse(octets, max_bytes=100_000, max_elements=1000)
    assert refused.value.code == code


def test_a_plain_document_is_read() -> None:
    octets = '\ufeff<?xml version="1.0" encoding="utf-8"?>\n<a b="&lt;"><![CDATA[<甬>]]>&#x901A;</a>\n'.encode()
    root = parse(octets, max_bytes=1000)
    assert (root.text, root.get("b")) == ("<甬>通", "<")
    assert canonical(root) == '<a b="&lt;">&lt;甬&gt;通</a>'.encode()


def test_a_document_at_its_limits_is_read() -> None:
    parse(b"<a>" * 64 + b"</a>" * 64, max_bytes=1000)
    parse(b"<a>" + b"<b/>" * 999 + b"</a>", max_bytes=4003, max_elements=1000)


def test_inherited_namespaces_count_where_the_prefix_list_names_them() -> None:
    root = parse(b'<e xmlns="urn:d" xmlns:x="urn:x" xmlns:y="urn:y"><h/><b y:q="1"><c/></b></e>', max_bytes=1000)
    assert canonical(root[1]) == b'<b xmlns="urn:d" xmlns:y="urn:y" y:q="1"><c></c></b>'
    expected = b'<b xmlns="urn:d" xmlns:x="urn:x" xmlns:y="urn:y" y:q="1"><c></c></b>'
    assert canonical(root[1], ["x", "#default"]) == expected


def test_the_default_namespace_counts_where_the_list_names_it_in_every_thread() -> None:
    """Exclusive C14N §3: named `#default`, it is written though nothing in the element uses it."""
    found: list[bytes] = []

    def read() -> None:
        root = parse(b'<e xmlns="urn:d" xmlns:p="urn:p"><p:a><p:b/><c xmlns=""/></p:a></e>', max_bytes=1000)
        found.extend(canonical(root[0], prefixes) for prefixes in (["#default"], []))

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    assert found == [
        b'<p:a xmlns="urn:d" xmlns:p="urn:p"><p:b></p:b><c xmlns=""></c></p:a>',
        b'<p:a xmlns:p="urn:p"><p:b></p:b><c></c></p:a>',
    ]


def test_relative_namespaces_are_refused_and_not_guessed() -> None:
    with pytest.raises(Refusal, match=r"xml\.not_canonicalisable"):
        canonical(parse(b'<a xmlns="ns"/>', max_bytes=100))


def test_a_broken_schema_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "broken.xsd").write_text("<a/>")
    for name in ("broken.xsd", "absent.xsd"):
        with pytest.raises(Misconfigured, match=name):
            compile_schema(tmp_path / name)
