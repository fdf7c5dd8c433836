"""The XML door: what may not stand in a document, and its canonical form against the published vectors."""

import time
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

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


def test_published_attacks_are_refused_at_once(shared_data: Any) -> None:
    for path in sorted(shared_data("xml_attacks").glob("*.xml")):
        if path.name == "simple.xml":
            continue
        began = time.perf_counter()
        with pytest.raises(Refusal) as refused:
            parse(path.read_bytes(), max_bytes=1_000_000)
        assert refused.value.code in ("xml.dtd", "xml.comment_or_instruction"), path.name
        assert time.perf_counter() - began < 0.1, path.name


def test_inherited_namespaces_count_where_the_prefix_list_names_them() -> None:
    root = parse(b'<e xmlns="urn:d" xmlns:x="urn:x" xmlns:y="urn:y"><h/><b y:q="1"><c/></b></e>', max_bytes=1000)
    assert canonical(root[1]) == b'<b xmlns="urn:d" xmlns:y="urn:y" y:q="1"><c></c></b>'
    expected = b'<b xmlns="urn:d" xmlns:x="urn:x" xmlns:y="urn:y" y:q="1"><c></c></b>'
    assert canonical(root[1], ["x", "#default"]) == expected


def test_relative_namespaces_are_refused_and_not_guessed() -> None:
    with pytest.raises(Refusal, match=r"xml\.not_canonicalisable"):
        canonical(parse(b'<a xmlns="ns"/>', max_bytes=100))


def test_a_broken_schema_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "broken.xsd").write_text("<a/>")
    for name in ("broken.xsd", "absent.xsd"):
        with pytest.raises(Misconfigured, match=name):
            compile_schema(tmp_path / name)


def test_canonical_form_is_the_one_under_published_digests(shared_data: Any) -> None:
    """Our canonical form gives the DigestValue that another implementation signed with an InclusiveNamespaces list."""
    import base64
    import hashlib

    folder = shared_data("xml_signature") / "xml-crypto"
    for name in ("signature_with_inclusivenamespaces.xml", "signature_with_inclusivenamespaces_lines_windows.xml"):
        root = etree.fromstring((folder / name).read_bytes())
        ds = {"ds": "http://www.w3.org/2000/09/xmldsig#"}
        signature = root.find(".//ds:Signature", ds)
        assert signature is not None
        reference = signature.find(".//ds:Reference", ds)
        assert reference is not None
        prefixes = [e.get("PrefixList", "") for e in reference.iter("{http://www.w3.org/2001/10/xml-exc-c14n#}*")]
        declared = reference.findtext("ds:DigestValue", "", ds)
        identifier = str(reference.get("URI")).removeprefix("#")
        target = next(e for e in root.iter() if identifier in (e.get("ID"), e.get("Id"), e.get("AssertionID")))
        parent = signature.getparent()
        assert parent is not None
        parent.remove(signature)  # the enveloped-signature transform
        algorithm = reference.find("ds:DigestMethod", ds)
        assert algorithm is not None
        hash_name = str(algorithm.get("Algorithm")).rsplit("#")[-1]
        digest = hashlib.new(hash_name, canonical(target, " ".join(prefixes).split())).digest()
        assert base64.b64encode(digest).decode() == declared.strip(), name
