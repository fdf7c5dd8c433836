"""The SOAP doors over real TLS: what a partner gets, and what anybody else does."""

import base64
import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import msgspec
import pytest
import requests
from lxml import etree
from starlette.types import ASGIApp

from connectors.partner.folder import PartnerFolder
from connectors.partner.partner import Partner
from connectors.transports.soap_client import Version
from exchange.bus import Limits
from exchange.http.app import make_app
from exchange.http.soap import CONTRACTS
from exchange.reading import reopened
from exchange.receipts import verify_receipt
from security.checkpoint import open_checkpoint
from security.errors import Refusal, Unavailable
from security.keys import SigningKey
from security.merkle import verify_consistency
from security.message import in_memory
from security.wss import open_envelope, sign, verify
from security.xml import read_own
from tests.doors.bus import ORIGIN, TestBus
from tests.doors.conftest import City, Running

YT = "{urn:yongtong:v1}"
SOAP11 = "http://schemas.xmlsoap.org/soap/envelope/"
CSV = b"id,kind\n1,0118\n"


class Exchange:
    """A served bus with one enrolled bureau, `water`, that may push `covers`."""

    def __init__(self, test: TestBus, running: Running) -> None:
        self.test, self.running = test, running
        self.url = f"https://localhost:{running.port}"
        self.water = test.bureau("water")
        test.registry.grant("water", "push", "covers")
        test.registry.grant("water", "pull", "deliveries")

    def partner(self, folder: PartnerFolder | None = None, version: Version = "1.1") -> Partner:
        return Partner(
            folder or self.water, self.url, partial(verify_receipt, anchors=self.test.anchors), version=version
        )

    def post(
        self, octets: bytes, folder: PartnerFolder | None = None, service: str = "feeds", **headers: str
    ) -> requests.Response:
        """POST octets as they are, with the certificate of a partner or, with None, of nobody."""
        certificate = (folder.file("connection.pem"), folder.file("connection.key")) if folder else None
        all_headers = {
            "Content-Type": "text/xml; charset=utf-8",
            **{k.replace("_", "-"): v for k, v in headers.items()},
        }
        return requests.post(
            f"{self.url}/soap/{service}",
            data=octets,
            headers=all_headers,
            cert=certificate,
            verify=str(self.test.city.ca_file),
            timeout=20,
        )


@pytest.fixture
def exchange(start: Callable[[ASGIApp], Running], city: City, tmp_path: Path) -> Iterator[Exchange]:
    limits = Limits(max_envelope_bytes=200_000, max_mtom_bytes=3_000_000, body_s=5.0)
    test = TestBus(tmp_path, city, limits)
    running = start(make_app(test.bus, tmp_path / "spool"))
    yield Exchange(test, running)
    running.stop()
    test.bus.close()


def submission(folder: PartnerFolder, message_id: str = "m-1", content: bytes = CSV, **spoiled: str) -> etree._Element:
    """A SubmitDelivery not yet signed; members may be spoiled by name."""
    envelope = etree.Element(f"{{{SOAP11}}}Envelope", nsmap={"s": SOAP11})
    body = etree.SubElement(envelope, f"{{{SOAP11}}}Body")
    operation = etree.SubElement(body, f"{YT}SubmitDelivery", nsmap={None: YT[1:-1]})
    members = {
        "Sender": folder.bureau,
        "Recipient": ORIGIN,
        "MessageId": message_id,
        "Feed": "covers",
        "ContentType": "text/csv",
        "ContentDigest": hashlib.sha256(content).hexdigest(),
        "Content": base64.b64encode(content).decode(),
        **spoiled,
    }
    for name, text in members.items():
        child = etree.SubElement(operation, YT + name)
        child.text = text
        if name == "ContentDigest":
            child.set("algorithm", "SHA-256")
    return envelope


def signed(envelope: etree._Element, folder: PartnerFolder, created: datetime | None = None) -> bytes:
    key = folder.signing
    assert key.certificate_der is not None
    created = created or datetime.now(UTC)
    return sign(envelope, key, key.certificate_der, created=created, expires=created + timedelta(minutes=5))


def code_of(response: requests.Response) -> str | None:
    return etree.fromstring(response.content).findtext(f".//{YT}Code")


@pytest.mark.parametrize("version", ["1.1", "1.2"])
@pytest.mark.parametrize("content", [CSV, b"x" * 100_000, b"x" * 2_500_000], ids=["inline", "mtom", "mtom spooled"])
def test_a_push_gets_a_receipt_that_holds(exchange: Exchange, content: bytes, version: Version) -> None:
    received = exchange.partner(version=version).push("covers", in_memory(content), "text/csv", "m-1")
    assert received.document["content_length"] == len(content)
    assert received.document["form"] == ("inline" if content is CSV else "mtom")
    assert (exchange.water.path / "receipts" / "m-1.receipt.json").read_bytes() == received.octets
    assert exchange.test.woken == 1
    assert list((exchange.test.folder / "spool").iterdir()) == [], "the spool is empty once answered"


def test_the_same_delivery_again_gets_the_same_receipt_bit_for_bit(exchange: Exchange) -> None:
    partner = exchange.partner()
    first = partner.push("covers", in_memory(CSV), "text/csv", "m-1")
    partner.push("covers", in_memory(b"id\n2\n"), "text/csv", "m-2")
    assert partner.push("covers", in_memory(CSV), "text/csv", "m-1").octets == first.octets
    assert partner.receipt("m-1").octets == first.octets


def test_the_same_id_with_other_content_is_refused(exchange: Exchange) -> None:
    partner = exchange.partner()
    partner.push("covers", in_memory(CSV), "text/csv", "m-1")
    with pytest.raises(Refusal, match=r"delivery\.id_reused"):
        partner.push("covers", in_memory(b"other"), "text/csv", "m-1")


def test_a_report_waits_for_act_two(exchange: Exchange) -> None:
    partner = exchange.partner()
    partner.push("covers", in_memory(CSV), "text/csv", "m-1")
    assert partner.report("m-1").status == "waiting"
    with pytest.raises(Refusal, match=r"delivery\.unknown"):
        partner.report("m-2")


def test_the_answer_is_signed_for_this_request(exchange: Exchange) -> None:
    octets = signed(submission(exchange.water), exchange.water)
    response = exchange.post(octets, exchange.water)
    assert response.status_code == 200
    answer = open_envelope(response.content)
    (certificate,) = exchange.water.answerers()
    verified = verify(answer, certificate, now=datetime.now(UTC))
    assert exchange.test.bus.schema.validate(verified.element), exchange.test.bus.schema.error_log
    digest = hashlib.sha256(open_envelope(octets).signature.value).hexdigest()
    assert verified.element.findtext(f".//{YT}RequestSignature") == digest
    assert verified.text("Recipient") == "water"


def test_a_fault_to_an_enrolled_carrier_is_precise_bilingual_signed_and_audited(exchange: Exchange) -> None:
    octets = signed(submission(exchange.water, Feed="nobodys"), exchange.water)
    response = exchange.post(octets, exchange.water)
    assert response.status_code == 500
    (certificate,) = exchange.water.answerers()
    fault = verify(open_envelope(response.content), certificate, now=datetime.now(UTC)).element
    detail = fault.find(f"detail/{YT}Refusal")
    assert detail is not None
    words = {etree.QName(child).localname: child.text for child in detail}
    assert words["Code"] == "feed.unknown"
    assert all(words[name] for name in ("SentenceZh", "SentenceEn", "NextZh", "NextEn"))
    (refused,) = exchange.test.entries("refusal")
    assert refused[0] == "feed.unknown"
    assert exchange.test.bus.schema.validate(read_own(etree.tostring(detail))), exchange.test.bus.schema.error_log


def answered(exchange: Exchange, response: requests.Response, octets: bytes, holder: str) -> dict[str, str | None]:
    """What a signed fault's detail says of the request that it answers, once signature and shape hold."""
    (certificate,) = exchange.water.answerers()
    fault = verify(open_envelope(response.content), certificate, now=datetime.now(UTC)).element
    (detail,) = fault.iter(f"{YT}{holder}")
    assert exchange.test.bus.schema.validate(read_own(etree.tostring(detail))), exchange.test.bus.schema.error_log
    words = {etree.QName(child).localname: child.text for child in detail.iter() if isinstance(child.tag, str)}
    assert words["RequestSignature"] == hashlib.sha256(open_envelope(octets).signature.value).hexdigest()
    return words


@pytest.mark.parametrize("media_type", ["text/xml", "application/soap+xml"])
def test_a_fault_says_which_request_it_answers_when_as_of_when_and_to_whom(exchange: Exchange, media_type: str) -> None:
    octets = signed(submission(exchange.water, Feed="nobodys"), exchange.water)
    if media_type != "text/xml":
        octets = signed(
            read_own(
                etree.tostring(submission(exchange.water, Feed="nobodys")).replace(
                    SOAP11.encode(), b"http://www.w3.org/2003/05/soap-envelope"
                )
            ),
            exchange.water,
        )
    response = exchange.post(octets, exchange.water, Content_Type=media_type)
    words = answered(exchange, response, octets, "Refusal")
    assert (words["Code"], words["MessageId"], words["Recipient"]) == ("feed.unknown", "m-1", "water")
    assert words["AnsweredAt"] == words["AsOf"]


@pytest.mark.parametrize("problem, status", [(OSError(28, "full"), 503), (RuntimeError("a fault of ours"), 500)])
def test_what_the_bus_cannot_do_it_says_signed_too(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch, problem: Exception, status: int
) -> None:
    def cannot(*_: object, **__: object) -> str:
        raise problem

    monkeypatch.setattr(exchange.test.bus.evidence, "keep", cannot)
    octets = signed(submission(exchange.water), exchange.water)
    response = exchange.post(octets, exchange.water)
    assert response.status_code == status
    assert answered(exchange, response, octets, "Failure")["Recipient"] == "water"
    with pytest.raises(Unavailable):
        exchange.partner().push("covers", in_memory(CSV), "text/csv", "m-1")


@pytest.mark.parametrize("known", [False, True], ids=["no certificate", "not enrolled"])
def test_a_stranger_hears_only_that_it_is_refused_and_a_reference(exchange: Exchange, known: bool) -> None:
    stranger = exchange.test.bureau("stranger", enrolled=False)
    octets = signed(submission(stranger), stranger)
    response = exchange.post(octets, stranger if known else None)
    assert code_of(response) == "auth.refused"
    assert etree.fromstring(response.content).findtext(f".//{YT}Reference")
    assert b"water" not in response.content
    assert b"Security" not in response.content


@pytest.mark.parametrize(
    "spoil, headers, status, code",
    [
        (lambda o: o.replace(b"text/csv", b"text/tsv"), {}, 500, "signature.invalid"),
        (lambda o: b"<!DOCTYPE x []>" + o, {}, 500, "xml.dtd"),
        (lambda o: o[:-20], {}, 500, "xml.not_well_formed"),
        (lambda o: b"", {}, 500, "xml.not_well_formed"),
        (lambda o: o + b" " * 200_000, {}, 413, "size.too_large"),
        (lambda o: o, {"Content_Type": "application/json"}, 500, "http.media_type"),
        (lambda o: o, {"Content_Type": "text/xml; charset=gbk"}, 500, "http.media_type"),
        (lambda o: o, {"Content_Encoding": "gzip"}, 500, "http.media_type"),
        (lambda o: o, {"SOAPAction": '"urn:yongtong:v1/Nothing"'}, 500, "soap.operation_unknown"),
        (lambda o: o, {"SOAPAction": '"urn:yongtong:v1/GetReceipt"'}, 500, "soap.action_mismatch"),
        (lambda o: o, {"Content_Type": "multipart/related; boundary=b"}, 500, "mtom.boundary"),
    ],
)
def test_each_spoiled_request_is_refused_by_name_and_audited(
    exchange: Exchange, spoil: Callable[[bytes], bytes], headers: dict[str, str], status: int, code: str
) -> None:
    octets = spoil(signed(submission(exchange.water), exchange.water))
    response = exchange.post(octets, exchange.water, **headers)
    assert (response.status_code, code_of(response)) == (status, code)
    assert exchange.test.entries("refusal")[0][0] == code
    assert exchange.test.bus.journal.inbox("water", "m-1") is None


def as_mtom(folder: PartnerFolder, content: bytes, cid: str, **spoiled: str) -> tuple[bytes, bytes]:
    """A signed SubmitDelivery by MTOM whose Include names cid: the root part, and the attachment part."""
    envelope = submission(folder, content=content, **spoiled)
    element = next(envelope.iter(f"{YT}Content"))
    element.text = None
    xop = "http://www.w3.org/2004/08/xop/include"
    etree.SubElement(element, f"{{{xop}}}Include", {"href": f"cid:{cid}"}, {"xop": xop})
    head = b'Content-Type: application/xop+xml; charset=UTF-8; type="text/xml"\r\n'
    head += b"Content-Transfer-Encoding: binary\r\nContent-ID: <root@x>\r\n\r\n"
    part = b"Content-Type: text/csv\r\nContent-Transfer-Encoding: binary\r\nContent-ID: <part@x>\r\n\r\n"
    return head + signed(envelope, folder), part + content


LINE, END = b"\r\n--b\r\n", b"\r\n--b--\r\n"


@pytest.mark.parametrize(
    "cid, build, code",
    [
        ("part@x", lambda root, part: root + END, "mtom.parts"),
        ("part@x", lambda root, part: root + LINE + part + LINE + part + END, "mtom.parts"),
        ("other@x", lambda root, part: root + LINE + part + END, "signature.attachment_mismatch"),
        ("part@x", lambda root, part: root + LINE + part, "mtom.boundary"),
        (
            "part@x",
            lambda root, part: root + LINE + part.replace(b"binary", b"quoted-printable") + END,
            "mtom.encoding",
        ),
        ("part@x", lambda root, part: root + LINE + part.replace(b"csv\r\n", b"csv\n") + END, "mtom.part_header"),
        ("part@x", lambda root, part: root + LINE + part + b"x" + END, "signature.content_digest"),
    ],
    ids=["missing part", "three parts", "wrong cid", "cut short", "quoted-printable", "bare LF", "one octet more"],
)
@pytest.mark.parametrize("size", [100, 1_500_000], ids=["small", "spooled"])
def test_a_broken_mtom_message_is_refused_and_nothing_is_kept(
    exchange: Exchange, cid: str, build: Callable[[bytes, bytes], bytes], code: str, size: int
) -> None:
    root, part = as_mtom(exchange.water, b"y" * size, cid)
    response = exchange.post(
        b"--b\r\n" + build(root, part),
        exchange.water,
        Content_Type='multipart/related; type="application/xop+xml"; boundary=b',
        SOAPAction='"urn:yongtong:v1/SubmitDelivery"',
    )
    assert code_of(response) == code
    assert exchange.test.entries("refusal")[0][0] == code
    assert exchange.test.bus.journal.inbox("water", "m-1") is None
    assert list((exchange.test.folder / "spool").iterdir()) == []


@pytest.mark.parametrize("size", [100, 1_500_000], ids=["small", "spooled"])
def test_content_that_was_signed_before_it_became_a_part_is_taken_and_the_receipt_names_the_form(
    exchange: Exchange, size: int
) -> None:
    """As some toolkits do: the Body is signed with the base64 in place, and sent with an Include instead."""
    content = b"y" * size
    inline = base64.b64encode(content)
    include = b'<x:Include xmlns:x="http://www.w3.org/2004/08/xop/include" href="cid:part@x"/>'
    octets = signed(submission(exchange.water, "m-1", content), exchange.water)
    root, part = as_mtom(exchange.water, content, "part@x")
    head = root.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    response = exchange.post(
        b"--b\r\n" + head + octets.replace(inline, include) + LINE + part + END,
        exchange.water,
        Content_Type='multipart/related; type="application/xop+xml"; boundary=b',
    )
    answer = etree.fromstring(response.content)
    receipt = verify_receipt((answer.findtext(f".//{YT}Receipt") or "").encode(), exchange.test.anchors)
    assert (receipt.document["form"], receipt.document["content_length"]) == ("mtom-expanded", size)
    row = exchange.test.bus.journal.inbox("water", "m-1")
    assert row is not None
    assert reopened(row, exchange.test.bus).content.read() == content, "act two has the same content"


def test_a_known_tree_size_gets_a_consistency_proof_with_every_answer(exchange: Exchange) -> None:
    """From the log that the caller knows to the head in the answer, by RFC 6962 §2.1.2."""
    partner = exchange.partner()
    first = partner.push("covers", in_memory(CSV), "text/csv", "m-0")
    known = verify_receipt(first.octets, exchange.test.anchors).checkpoint
    for number in range(1, 4):
        partner.push("covers", in_memory(CSV), "text/csv", f"m-{number}")
    asked = {
        "GetReceipt": {"Purpose": "test", "DeliveryMessageId": "m-3"},
        "GetCheckpoint": {"Purpose": "test"},
    }
    for operation, members in asked.items():
        octets = signed(
            asking(exchange.water, operation, {**members, "KnownTreeSize": str(known.size)}), exchange.water
        )
        answer = etree.fromstring(exchange.post(octets, exchange.water).content)
        proof = answer.find(f".//{YT}ConsistencyProof")
        assert proof is not None, operation
        document, head = answer.findtext(f".//{YT}Receipt"), answer.findtext(f".//{YT}Checkpoint")
        if document:
            offered = verify_receipt(document.encode(), exchange.test.anchors).checkpoint
        else:
            offered = open_checkpoint(head or "", ORIGIN, exchange.test.anchors.log_public_key)
        nodes = [bytes.fromhex(node.text or "") for node in proof]
        assert (proof.get("first"), proof.get("second")) == (str(known.size), str(offered.size))
        assert verify_consistency(known.size, offered.size, nodes, known.root, offered.root)


def asking(folder: PartnerFolder, operation: str, members: dict[str, str]) -> etree._Element:
    """A read not yet signed."""
    envelope = etree.Element(f"{{{SOAP11}}}Envelope", nsmap={"s": SOAP11})
    element = etree.SubElement(etree.SubElement(envelope, f"{{{SOAP11}}}Body"), f"{YT}{operation}")
    names = {"Sender": folder.bureau, "Recipient": ORIGIN, "MessageId": f"r-{operation}"}
    for name, text in {**names, **members}.items():
        etree.SubElement(element, YT + name).text = text
    return envelope


SOAP12 = "http://www.w3.org/2003/05/soap-envelope"


@pytest.mark.parametrize(
    "action, code",
    [
        ("", None),
        ('; action=""', None),
        ('; action="urn:yongtong:v1/SubmitDelivery"', None),
        ('; action="urn:yongtong:v1/GetReceipt"', "soap.action_mismatch"),
        ('; action="urn:yongtong:v1/Nothing"', "soap.operation_unknown"),
    ],
)
def test_the_action_parameter_of_1_2_agrees_with_the_body_or_is_empty(
    exchange: Exchange, action: str, code: str | None
) -> None:
    octets = etree.tostring(submission(exchange.water)).replace(SOAP11.encode(), SOAP12.encode())
    media_type = f"application/soap+xml; charset=utf-8{action}"
    response = exchange.post(signed(read_own(octets), exchange.water), exchange.water, Content_Type=media_type)
    assert code_of(response) == code


@pytest.mark.parametrize("service", ["feeds", "components"])
def test_the_contract_declares_document_literal_and_no_ws_addressing(service: str) -> None:
    text = (CONTRACTS / f"{service}.wsdl").read_text(encoding="utf-8")
    assert "ddressing" not in text
    assert 'style="rpc"' not in text
    assert 'use="encoded"' not in text
    assert text.count('use="literal"') >= 4


def test_soap_1_2_faults_speak_1_2(exchange: Exchange) -> None:
    response = exchange.post(b"<a/>", exchange.water, Content_Type="application/soap+xml; charset=utf-8")
    assert response.status_code == 400
    assert response.headers["content-type"].startswith("application/soap+xml")
    fault = etree.fromstring(response.content)
    assert fault.findtext(".//{http://www.w3.org/2003/05/soap-envelope}Value") == "soap:Sender"


@pytest.mark.parametrize("service", ["feeds", "components"])
def test_the_wsdl_is_served_with_the_address_that_was_asked(exchange: Exchange, service: str) -> None:
    ca = str(exchange.test.city.ca_file)
    wsdl = requests.get(f"{exchange.url}/soap/{service}?wsdl", verify=ca, timeout=5)
    assert f'location="{exchange.url}/soap/{service}"' in wsdl.text
    assert requests.get(f"{exchange.url}/soap/yongtong.xsd", verify=ca, timeout=5).status_code == 200
    assert requests.put(f"{exchange.url}/soap/{service}", verify=ca, timeout=5).status_code == 405


def test_a_host_header_cannot_write_into_the_wsdl(exchange: Exchange) -> None:
    octets = b'GET /soap/feeds?wsdl HTTP/1.1\r\nHost: a"/><evil/>\r\nConnection: close\r\n\r\n'
    assert b"evil" not in exchange.running.exchange(octets)


class KeyAway(SigningKey):
    """A key whose token is away."""

    def sign(self, octets: bytes) -> bytes:
        raise Unavailable("the token does not sign now")


def test_while_our_key_is_away_nothing_is_answered_but_later_not_even_a_refusal(
    exchange: Exchange, start: Callable[[ASGIApp], Running], tmp_path: Path
) -> None:
    bus = exchange.test.bus
    away = KeyAway(bus.answer_key.issuing_key(), bus.answer_certificate_der)
    without = start(make_app(msgspec.structs.replace(bus, answer_key=away), tmp_path / "other-spool"))
    elsewhere = Exchange.__new__(Exchange)
    elsewhere.test, elsewhere.url = exchange.test, f"https://localhost:{without.port}"
    for envelope in (submission(exchange.water), submission(exchange.water, Recipient="another.bus.example")):
        response = elsewhere.post(signed(envelope, exchange.water), exchange.water)
        assert (response.status_code, response.headers["retry-after"]) == (503, "5")
    without.stop()
