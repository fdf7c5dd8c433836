"""Signed envelopes: good ones in every allowed form verify; each attack is refused under its own code."""

import hashlib
import time
import tracemalloc
from datetime import timedelta
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from security.authenticate import TrustList, carrier_of, signer_of
from security.envelope import Limits
from security.errors import AuditBroken, Refusal
from security.message import Content, Delivery, Digest, Principal, VerifiedPayload, in_memory, sha256
from security.pki import names_of
from security.signatures import payload_of, reopen
from security.wss import VerifiedEnvelope, open_envelope, sign, verify
from security.xml import canonical, read_own
from security.xmldsig import WSU
from tests.security.attacks import ATTACKS
from tests.security.vectors import (
    CONNECTION,
    CONTENT,
    CONTENT_ID,
    ENROLLED,
    GOOD,
    NOW,
    POWER,
    RSA_SHA256,
    SIGNER,
    TRUST,
    WATER,
    WATER_AGAIN,
    WATER_RSA,
    YT,
    as_enrolled,
    b64,
    include,
    prefix_list,
    reference,
    seal,
    template,
    token,
    transform,
)

GOOD_OCTETS = seal(template())


def verified(octets: bytes, attachment: Content | None = None, attachment_id: str = "") -> VerifiedEnvelope:
    envelope = open_envelope(octets)
    certificate = signer_of(TRUST.named(envelope.key_reference), envelope.claimed("Sender"), NOW)
    return verify(envelope, certificate, now=NOW, attachment=attachment, attachment_id=attachment_id)


def payload(octets: bytes, attachment: Content | None = None, attachment_id: str = "") -> VerifiedPayload:
    delivery = Delivery("soap", None, "test", octets, in_memory(octets), NOW, attachment, attachment_id)
    return payload_of(verified(octets, attachment, attachment_id), delivery)


def refused(octets: bytes, attachment: Content | None = None, attachment_id: str = "") -> str:
    with pytest.raises(Refusal) as problem:
        payload(octets, attachment, attachment_id)
    return problem.value.code


@pytest.mark.parametrize("name", GOOD)
def test_every_allowed_form_verifies(name: str) -> None:
    found = payload(GOOD[name]())
    assert (found.content.read(), found.sender) == (CONTENT, "water")
    assert (found.feed, found.message_id) == ("water-assets", "m-1")
    assert (found.signer, found.signed_at, found.form) == (SIGNER, NOW, "inline")


@pytest.mark.parametrize("name", ATTACKS)
def test_each_attack_is_refused(name: str) -> None:
    code, attack = ATTACKS[name]
    assert refused(attack()) == code


def test_rsa_verifies() -> None:
    octets = seal(template(token_xml=token(WATER_RSA), suite=RSA_SHA256), WATER_RSA)
    assert payload(octets).signer.certificate == WATER_RSA.fingerprint


def test_an_envelope_is_good_to_the_second_that_the_skew_allows() -> None:
    octets = seal(template())
    envelope = open_envelope(octets)
    for minutes, code in ((-5, ""), (-5.1, "signature.future"), (10, ""), (10.1, "signature.stale")):
        try:
            verify(envelope, ENROLLED, now=NOW + timedelta(minutes=minutes))
            found = ""
        except Refusal as problem:
            found = problem.code
        assert found == code, minutes


def test_one_byte_over_the_limit_is_refused() -> None:
    octets = seal(template())
    open_envelope(octets, Limits(max_bytes=len(octets)))
    with pytest.raises(Refusal, match=r"xml\.too_large"):
        open_envelope(octets, Limits(max_bytes=len(octets) - 1))


def test_twelve_references_are_read_and_thirteen_are_not() -> None:
    """There are four parts that may be named, so the twelfth is refused for what it names, the thirteenth unread."""
    others = [reference(f"#x{number}") for number in range(11)]
    for count, code in ((10, "signature.reference_unknown"), (11, "signature.too_many_references")):
        all_of_them = reference("#body") + reference("#ts") + "".join(others[:count])
        assert refused(seal(template(references=all_of_them))) == code


@pytest.mark.parametrize("of", ["SignedInfo", "Body"])
def test_thirty_two_prefixes_are_taken_and_thirty_three_are_not(of: str) -> None:
    for count, code in ((32, ""), (33, "signature.transform_refused")):
        listed = prefix_list(" ".join(f"p{number}" for number in range(count)))
        declared = " ".join(f'xmlns:p{number}="urn:{number}"' for number in range(count))
        body = reference("#body", transform(inside=listed if of == "Body" else "")) + reference("#ts")
        octets = seal(
            template(
                envelope_attributes=declared, references=body, method_parameters=listed if of == "SignedInfo" else ""
            )
        )
        if code:
            assert refused(octets) == code
        else:
            assert payload(octets).content.read() == CONTENT


def test_no_header_that_is_not_signed_is_acted_on() -> None:
    """Addresses, actions, and names of ours: nothing of them is in what is believed."""
    wsa = "http://www.w3.org/2005/08/addressing"
    headers = f'''<a:To xmlns:a="{wsa}">urn:other</a:To><a:Action xmlns:a="{wsa}">urn:other</a:Action>
        <a:MessageID xmlns:a="{wsa}">urn:uuid:1</a:MessageID><Sender xmlns="urn:yongtong:v1">power</Sender>
        <Feed xmlns="urn:yongtong:v1">power-assets</Feed>'''
    found = payload(seal(template(header=headers)))
    assert (found.sender, found.feed, found.message_id) == ("water", "water-assets", "m-1")


def test_a_certificate_that_the_message_does_not_name_verifies_nothing_of_it() -> None:
    """Not even one of the very key that signed: which certificate it was decides whose word it is, and until when."""
    for other in (as_enrolled(WATER_AGAIN, "water"), as_enrolled(POWER, "power")):
        with pytest.raises(Refusal, match=r"signature\.certificate_differs"):
            verify(open_envelope(GOOD_OCTETS), other, now=NOW)


def test_the_mark_for_the_content_is_another_for_each_signature_and_in_no_message() -> None:
    """Known beforehand, a signer could write it where a reader would then put the content."""
    messages = [GOOD_OCTETS, seal(template(sender="power")), seal(template(feed="x"))]
    marks = {open_envelope(octets).place for octets in messages}
    assert len(marks) == len(messages)
    assert not any(mark.encode() in octets for mark in marks for octets in messages)


# Attachments


@pytest.mark.parametrize("size", [0, 1, 2, 3, len(CONTENT), 3 * 256 * 1024 + 1])
@pytest.mark.parametrize("expand", [False, True])
def test_an_attachment_verifies_as_sent_and_expanded(size: int, expand: bool, tmp_path: Path) -> None:
    octets = (CONTENT * (size // len(CONTENT) + 1))[:size]
    xml = template(content=include()).replace(hashlib.sha256(CONTENT).hexdigest(), hashlib.sha256(octets).hexdigest())
    envelope = seal(xml, expand=octets if expand else None)
    (tmp_path / "spool").write_bytes(b"before" + octets + b"after")
    in_file = Content(size, sha256(octets), path=tmp_path / "spool", offset=6)
    for attachment in (in_memory(octets), in_file):
        found = payload(envelope, attachment, CONTENT_ID)
        assert (found.content, found.form) == (attachment, "mtom-expanded" if expand else "mtom")
        assert b"Include" not in canonical(verified(envelope, attachment, CONTENT_ID).element)


def test_an_attachment_larger_than_any_text_node_verifies_expanded() -> None:
    octets = bytes(12_000_000)
    xml = template(content=include()).replace(hashlib.sha256(CONTENT).hexdigest(), hashlib.sha256(octets).hexdigest())
    assert payload(seal(xml, expand=octets), in_memory(octets), CONTENT_ID).form == "mtom-expanded"


def test_an_attachment_is_streamed_through_the_expanded_form(tmp_path: Path) -> None:
    """What is held at a time has nothing to do with its length: 32 MB need less than 8."""
    size, piece = 32_000_000, b"0123456789abcdef" * 4_000
    with (tmp_path / "part").open("wb") as file:
        for _ in range(size // len(piece)):
            file.write(piece)
    digest = hashlib.sha256((tmp_path / "part").read_bytes())
    attachment = Content(size, Digest("SHA-256", digest.digest()), path=tmp_path / "part")
    xml = template(content=include()).replace(hashlib.sha256(CONTENT).hexdigest(), digest.hexdigest())
    octets = seal(xml, expand=(tmp_path / "part").read_bytes())
    tracemalloc.start()
    found = payload(octets, attachment, CONTENT_ID)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found.form, found.content.size) == ("mtom-expanded", size)
    assert peak < 8_000_000


@pytest.mark.parametrize("expand, code", [(None, "signature.content_digest"), (CONTENT, "signature.invalid")])
def test_another_attachment_is_refused(expand: bytes | None, code: str) -> None:
    envelope = seal(template(content=include()), expand=expand)
    assert refused(envelope, in_memory(b"other"), CONTENT_ID) == code


def test_an_attachment_of_another_name_or_that_nobody_names_is_refused() -> None:
    envelope = seal(template(content=include()))
    assert refused(envelope, in_memory(CONTENT), "other@water") == "signature.attachment_mismatch"
    assert refused(seal(template()), in_memory(CONTENT), CONTENT_ID) == "signature.attachment_mismatch"


def test_a_content_id_may_be_percent_encoded() -> None:
    envelope = seal(template(content=include("cid:content%40water")))
    assert payload(envelope, in_memory(CONTENT), CONTENT_ID).form == "mtom"


def test_a_signature_turned_over_is_known_to_be_the_same_envelope() -> None:
    """Anybody can make (r, n - s) of (r, s): it holds too. A repeated read is therefore known by what was signed."""
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    value = open_envelope(GOOD_OCTETS).signature.value
    turned = value[:32] + (order - int.from_bytes(value[32:], "big")).to_bytes(32, "big")
    first, second = verified(GOOD_OCTETS), verified(GOOD_OCTETS.replace(b64(value).encode(), b64(turned).encode()))
    assert first.signature_digest != second.signature_digest
    assert first.signed_digest == second.signed_digest


# Our own signer


@pytest.mark.parametrize("key", [WATER, WATER_RSA], ids=["ES256", "RS256"])
@pytest.mark.parametrize(
    "soap", ["http://schemas.xmlsoap.org/soap/envelope/", "http://www.w3.org/2003/05/soap-envelope"]
)
@pytest.mark.parametrize("header", ["", "<e:Header/>", '<e:Header><x xmlns="urn:x"/></e:Header>'])
def test_what_we_sign_verifies(key: Any, soap: str, header: str) -> None:
    """Prefixes are chosen to collide with those that the signer writes."""
    root = read_own(
        f'<e:Envelope xmlns:e="{soap}" xmlns:ds="urn:other" xmlns:u="{WSU[1:-1]}">{header}<e:Body><wsse:GetReceipt '
        'xmlns:wsse="urn:yongtong:v1"><wsse:Sender>water</wsse:Sender><wsse:Purpose>复核\r\n</wsse:Purpose>'
        "</wsse:GetReceipt></e:Body></e:Envelope>".encode()
    )
    octets = sign(root, key, key.certificate_der, created=NOW, expires=NOW + timedelta(minutes=5))
    found = verified(octets)
    assert (found.operation, found.text("Purpose"), found.text("CaseNumber")) == ("GetReceipt", "复核\n", "")
    assert (found.created, found.expires) == (NOW, NOW + timedelta(minutes=5))


# Certificates


def test_a_carrier_is_known_by_either_certificate_of_its_bureau() -> None:
    assert carrier_of(CONNECTION.certificate_der, TRUST, NOW) == Principal("water", CONNECTION.fingerprint)
    assert carrier_of(WATER.certificate_der, TRUST, NOW) == Principal("water", WATER.fingerprint)
    assert carrier_of(None, TRUST, NOW) is None
    assert carrier_of(b"other", TRUST, NOW) is None
    assert carrier_of(WATER.certificate_der, TRUST, NOW + timedelta(days=2)) is None


def test_the_trust_list_digest_says_what_was_trusted() -> None:
    power, water = TRUST.by_fingerprint(POWER.fingerprint), TRUST.by_fingerprint(WATER.fingerprint)
    assert power is not None
    assert water is not None
    assert TrustList((power, water)).digest == TrustList((water, power)).digest
    assert TrustList((power,)).digest != TrustList((water,)).digest
    revoked = msgspec.structs.replace(water, revoked_at=NOW)
    assert TrustList((revoked,)).digest != TrustList((water,)).digest


@pytest.mark.parametrize("issuer", ["CN=Test CA", "2.5.4.3=Test CA"])
def test_an_issuer_is_found_however_it_is_spelt(issuer: str) -> None:
    assert TRUST.by_issuer_serial(issuer, names_of(ENROLLED.der).serial) == ENROLLED


@pytest.mark.parametrize("issuer", ["", "CN=", "Test CA", "CN=Other CA", "CN=Test CA,O=x", "=,=", "\\"])
def test_another_issuer_finds_nobody(issuer: str) -> None:
    assert TRUST.by_issuer_serial(issuer, names_of(ENROLLED.der).serial) is None


# Act two


def reopened(octets: bytes, attachment: Content | None = None, **spoil: Any) -> VerifiedPayload:
    envelope = open_envelope(GOOD_OCTETS)
    stated: dict[str, Any] = {
        "expected": sha256(CONTENT),
        "request_digest": hashlib.sha256(envelope.signature.value).hexdigest(),
        "signer": SIGNER,
        "signed_at": NOW,
        "form": "inline",
    }
    return reopen(octets, attachment, **{**stated, **spoil})


def test_the_evidence_gives_the_same_payload_again() -> None:
    assert reopened(GOOD_OCTETS) == payload(GOOD_OCTETS)
    envelope = seal(template(content=include()))
    request_digest = verified(envelope, in_memory(CONTENT), CONTENT_ID).signature_digest
    again = reopened(envelope, in_memory(CONTENT), request_digest=request_digest, form="mtom")
    assert again == payload(envelope, in_memory(CONTENT), CONTENT_ID)


@pytest.mark.parametrize(
    "octets, spoil",
    [
        (GOOD_OCTETS[:-10], {}),
        (b"", {}),
        (GOOD_OCTETS, {"expected": sha256(b"other")}),
        (GOOD_OCTETS, {"request_digest": "00" * 32}),
        (GOOD_OCTETS, {"attachment": in_memory(b"other")}),
        (seal(template(content="QUJD")), {}),
        (seal(template(content=include())), {}),
    ],
)
def test_evidence_that_says_something_else_stops_act_two(octets: bytes, spoil: dict[str, Any]) -> None:
    with pytest.raises(AuditBroken):
        reopened(octets, **spoil)


# Properties


@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("<&>\r\n\t]"), max_size=80))
@settings(deadline=None)
def test_any_text_of_content_is_digested_as_it_would_be_in_canonical_form(text: str) -> None:
    """It is put aside while the rest is made canonical; the digest has to be that of the whole."""
    octets = seal(template(content=escape(text, {"\r": "&#13;"})))
    envelope = open_envelope(octets)
    assert verify(envelope, ENROLLED, now=NOW).form == "inline"
    assert verify(envelope, ENROLLED, now=NOW).element.find(f"{YT}Content") is not None, "and again"
    spoilt = seal(template(content="x" + escape(text, {"\r": "&#13;"})))
    body = spoilt[spoilt.index(b"<s:Body") :]
    with pytest.raises(Refusal, match=r"signature\.invalid"):
        verified(octets[: octets.index(b"<s:Body")] + body)


@given(st.text(alphabet=st.sampled_from('CN=Test ,O+#04\\"A1.5甬\x00;<>'), max_size=40))
def test_an_issuer_written_anyhow_finds_its_certificate_or_nobody(issuer: str) -> None:
    assert TRUST.by_issuer_serial(issuer, names_of(ENROLLED.der).serial) in (None, ENROLLED)


def test_a_crowded_envelope_is_refused_quickly() -> None:
    """Canonical form costs the square of namespaces and attributes; a stranger may not spend our time on it."""
    spaces = " ".join(f'xmlns:p{i}="urn:{i}"' for i in range(20_000))
    attributes = " ".join(f'a{i}="x"' for i in range(20_000))
    crowded = [
        (GOOD_OCTETS.replace(b"<ds:SignedInfo", f"<ds:SignedInfo {spaces}".encode()), "xml.too_complex"),
        (GOOD_OCTETS.replace(b"<Sender", f"<Sender {attributes}".encode()), "xml.too_complex"),
        (template(references=reference("#x") * 3_000).encode(), "signature.too_many_references"),
        (template(header="<x>" * 30_000 + "</x>" * 30_000).encode(), "xml.not_well_formed"),
    ]
    began = time.process_time()
    assert [refused(octets) for octets, _ in crowded] == [code for _, code in crowded]
    assert time.process_time() - began < 2
