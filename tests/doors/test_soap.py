"""The SOAP doors over real TLS: what a partner gets, and what anybody else does."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
import requests
from lxml import etree
from starlette.types import ASGIApp

from connectors.partner.folder import PartnerFolder
from connectors.partner.partner import Partner
from connectors.transports.soap_client import Version
from exchange.bus import Limits
from exchange.http.app import make_app
from exchange.receipts import verify_receipt
from security.errors import Refusal
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
    import base64
    import hashlib

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
    import hashlib

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
