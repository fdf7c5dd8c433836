"""SOAP envelopes that the bus sends: answers and faults, built by lxml, signed by the bus's answer key."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from lxml import etree

from exchange.bus import Bus
from security.errors import Refusal
from security.wss import VerifiedEnvelope, sign

NAMESPACE: Final = "urn:yongtong:v1"
SOAP: Final = {
    "1.1": "http://schemas.xmlsoap.org/soap/envelope/",
    "1.2": "http://www.w3.org/2003/05/soap-envelope",
}
MEDIA_TYPES: Final = {"1.1": "text/xml; charset=utf-8", "1.2": "application/soap+xml; charset=utf-8"}
VALIDITY: Final = timedelta(minutes=5)  # an answer is signed for as long as a request without Expires is taken
XML_LANG: Final = "{http://www.w3.org/XML/1998/namespace}lang"

Version = Literal["1.1", "1.2"]


def empty_envelope(version: Version) -> tuple[etree._Element, etree._Element]:
    """An envelope with an empty Body: (Envelope, Body)."""
    soap = SOAP[version]
    envelope = etree.Element(f"{{{soap}}}Envelope", nsmap={"soap": soap})
    return envelope, etree.SubElement(envelope, f"{{{soap}}}Body")


def put(parent: etree._Element, name: str, text: str | None = None) -> etree._Element:
    """A child element of our namespace."""
    child = etree.SubElement(parent, f"{{{NAMESPACE}}}{name}")
    child.text = text
    return child


def instant(moment: datetime) -> str:
    """xs:dateTime in UTC ending in Z. moment: aware."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def answer_to(verified: VerifiedEnvelope, version: Version, *, now: datetime, recipient: str) -> etree._Element:
    """The answer element of an operation in a new envelope's Body, with the members that every answer begins with."""
    _, body = empty_envelope(version)
    answer = etree.SubElement(body, f"{{{NAMESPACE}}}{verified.operation}Response", nsmap={"yt": NAMESPACE})
    put_in_reply_to(answer, verified.text("MessageId"), verified.signature_digest)
    put_answered(answer, now, recipient)
    return answer


def put_answered(parent: etree._Element, now: datetime, recipient: str) -> None:
    """When this was answered, as of when, and to which bureau. Faults say it as answers do."""
    put(parent, "AnsweredAt", instant(now))
    put(parent, "AsOf", instant(now))
    put(parent, "Recipient", recipient)


def put_timestamp_pending(answer: etree._Element, pending: datetime | None) -> None:
    """Say in an answer that the log waits for a timestamp, where it does: after the members that all begin with."""
    recipient = answer.find(f"{{{NAMESPACE}}}Recipient")
    if pending is not None and recipient is not None:
        said = etree.Element(f"{{{NAMESPACE}}}TimestampPending")
        said.text = instant(pending)
        recipient.addnext(said)


def put_in_reply_to(parent: etree._Element, message_id: str, signature_digest: str) -> None:
    """Which request this answers. signature_digest: hex SHA-256 of its SignatureValue octets."""
    reply = put(parent, "InReplyTo")
    put(reply, "MessageId", message_id)
    put(reply, "RequestSignature", signature_digest)


def put_consistency(parent: etree._Element, first: int, second: int, nodes: Iterable[bytes]) -> None:
    """An RFC 6962 consistency proof between two sizes of the log."""
    proof = put(parent, "ConsistencyProof")
    proof.set("first", str(first))
    proof.set("second", str(second))
    for node in nodes:
        put(proof, "Node", node.hex())


def refusal_element(refusal: Refusal, reference: str, *, precise: bool) -> etree._Element:
    """The fault's detail: code, sentence and next step in both languages. precise: the caller is enrolled."""
    element = etree.Element(f"{{{NAMESPACE}}}Refusal", nsmap={"yt": NAMESPACE})
    put(element, "Code", refusal.code)
    put(element, "SentenceZh", refusal.sentence.zh)
    put(element, "SentenceEn", refusal.sentence.en)
    put(element, "NextZh", refusal.sentence.next_zh)
    put(element, "NextEn", refusal.sentence.next_en)
    put(element, "Reference", reference)
    if precise and refusal.detail:
        put(element, "Detail", _printable(refusal.detail))
    return element


def failure_element() -> etree._Element:
    """The detail of a fault that is nobody's who sends: what it answers is put into it."""
    return etree.Element(f"{{{NAMESPACE}}}Failure", nsmap={"yt": NAMESPACE})


def fault(
    version: Version, *, sender_at_fault: bool, zh: str, en: str, detail: etree._Element | None = None
) -> etree._Element:
    """An envelope with a Fault: SOAP 1.1 Client or Server, SOAP 1.2 Sender or Receiver."""
    envelope, body = empty_envelope(version)
    soap = SOAP[version]
    element = etree.SubElement(body, f"{{{soap}}}Fault")
    if version == "1.1":
        etree.SubElement(element, "faultcode").text = "soap:Client" if sender_at_fault else "soap:Server"
        etree.SubElement(element, "faultstring").text = f"{en} {zh}"
        holder = "detail"
    else:
        code = etree.SubElement(element, f"{{{soap}}}Code")
        etree.SubElement(code, f"{{{soap}}}Value").text = "soap:Sender" if sender_at_fault else "soap:Receiver"
        reason = etree.SubElement(element, f"{{{soap}}}Reason")
        for language, sentence in (("en", en), ("zh", zh)):
            text = etree.SubElement(reason, f"{{{soap}}}Text", {XML_LANG: language})
            text.text = sentence
        holder = f"{{{soap}}}Detail"
    if detail is not None:
        etree.SubElement(element, holder).append(detail)
    return envelope


def signed(element: etree._Element, bus: Bus) -> bytes:
    """The whole envelope that element stands in, signed by the bus, as octets."""
    created = bus.clock()
    return sign(
        element.getroottree().getroot(),
        bus.answer_key,
        bus.answer_certificate_der,
        created=created,
        expires=created + VALIDITY,
        suites=bus.xml_suites,
    )


def unsigned(envelope: etree._Element) -> bytes:
    """An envelope as octets, for somebody whom the bus does not know."""
    return etree.tostring(envelope, xml_declaration=True, encoding="utf-8")


def _printable(text: str) -> str:
    """Text from an outsider's message as XML can hold it."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)[:500]
