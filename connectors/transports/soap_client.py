"""The bus's SOAP services as a client calls them: zeep reads the contract, our own WS-Security signs and decides."""

import hashlib
import io
import secrets
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import requests
import zeep
import zeep.exceptions
from lxml import etree

from security.errors import Refusal, Unavailable, sentences
from security.keys import SigningKey
from security.message import Content, EnrolledCertificate
from security.suites import XmlSuites
from security.wss import open_envelope, sign, verify
from security.xml import read_own
from security.xmldsig import STANDARD

NAMESPACE: Final = "{urn:yongtong:v1}"
XOP: Final = "http://www.w3.org/2004/08/xop/include"
VALIDITY: Final = timedelta(minutes=5)
TIMEOUT_SECONDS: Final = 120
Version = Literal["1.1", "1.2"]


class Wsse:
    """zeep's `wsse` plug-in: signs each request, takes no answer that is not signed as an answer to that request.

    key, certificate_der: of the bureau; answerers: certificates that the bus signs answers with
    suites: the names that SM2 and SM3 go by at that bus
    """

    def __init__(
        self,
        key: SigningKey,
        certificate_der: bytes,
        answerers: tuple[EnrolledCertificate, ...],
        clock: Callable[[], datetime],
        suites: XmlSuites = STANDARD,
    ) -> None:
        self._key, self._certificate_der, self._answerers, self._clock = key, certificate_der, answerers, clock
        self._suites = suites
        self.attachment_id = ""  # set while a request goes out whose content is the MTOM part of that id
        self.request_digest = ""  # SHA-256 of the last request's SignatureValue octets, hex

    def apply(self, envelope: etree._Element, headers: dict[str, str]) -> tuple[etree._Element, dict[str, str]]:
        """The request, signed: called by zeep with the finished envelope."""
        if self.attachment_id:
            content = next(envelope.iter(f"{NAMESPACE}Content"))
            content.text = None
            etree.SubElement(content, f"{{{XOP}}}Include", {"href": f"cid:{self.attachment_id}"}, {"xop": XOP})
        created = self._clock()
        expires = created + VALIDITY
        octets = sign(envelope, self._key, self._certificate_der, created=created, expires=expires, suites=self._suites)
        value = open_envelope(octets, suites=self._suites).signature.value
        self.request_digest = hashlib.sha256(value).hexdigest()
        return read_own(octets), headers

    def verify(self, envelope: etree._Element) -> None:
        """Return if the answer is the bus's own to our last request. Raises Refusal `answer.not_signed` and others.

        A fault may come unsigned, from a door that does not know us; it only ever means no.
        """
        if next(envelope.iter("{*}Security"), None) is None and _is_fault(envelope):
            return
        opened = etree.tostring(envelope)
        answer = open_envelope(opened, suites=self._suites)
        certificate = next((known for known in self._answerers if answer.key_reference.fits(known.der)), None)
        if certificate is None:
            raise Refusal("answer.not_signed", "not by a certificate among the anchors")
        verified = verify(answer, certificate, now=self._clock())
        replied = [element.text or "" for element in verified.element.iter(f"{NAMESPACE}RequestSignature")]
        # A fault names no request where the bus could not read it; one that names another is none of ours.
        if replied != [self.request_digest] and (replied or verified.operation != "Fault"):
            raise Refusal("answer.not_signed", "it answers another request")


class MtomTransport(zeep.Transport):
    """zeep's transport, which can also send one attachment as MTOM; zeep itself only receives."""

    attachment: Content | None = None
    attachment_id = ""

    def post_xml(self, address: str, envelope: etree._Element, headers: dict[str, str]) -> requests.Response:
        """Post an envelope, with the attachment beside it if there is one."""
        if self.attachment is None:
            return self._post(address, etree.tostring(envelope), headers)
        boundary = f"yongtong-{secrets.token_hex(16)}"
        body = _Multipart(etree.tostring(envelope), self.attachment, self.attachment_id, boundary, headers)
        return self._post(address, body, {**headers, "Content-Type": body.content_type})

    def _post(self, address: str, body: "bytes | _Multipart", headers: dict[str, str]) -> requests.Response:
        return self.session.post(address, data=body, headers=headers, timeout=self.operation_timeout)


class _Multipart:
    """A multipart/related body that is read piece by piece; its length is known, so nothing is chunked."""

    def __init__(
        self, envelope: bytes, attachment: Content, attachment_id: str, boundary: str, headers: dict[str, str]
    ) -> None:
        inner = headers["Content-Type"].split(";")[0]
        root = f'application/xop+xml; charset=UTF-8; type="{inner}"'
        if inner == "application/soap+xml":
            root += "; " + headers["Content-Type"].rpartition("; ")[2]  # action="..." as zeep wrote it
        self.content_type = (
            f'multipart/related; type="application/xop+xml"; start="<root@yongtong>"; start-info="{inner}"; '
            f'boundary="{boundary}"'
        )
        head = _part_head(boundary, root, "root@yongtong") + envelope + b"\r\n"
        head += _part_head(boundary, "application/octet-stream", attachment_id)
        tail = f"\r\n--{boundary}--\r\n".encode("ascii")
        self._length = len(head) + attachment.size + len(tail)
        self._streams = [io.BytesIO(head), attachment.open(), io.BytesIO(tail)]
        self._left = [len(head), attachment.size, len(tail)]

    def __len__(self) -> int:
        return self._length

    def read(self, size: int = -1) -> bytes:
        """Up to size octets; empty at the end."""
        while self._left:
            wanted = self._left[0] if size < 0 else min(size, self._left[0])
            piece = self._streams[0].read(wanted)
            if piece:
                self._left[0] -= len(piece)
                return piece
            self._streams.pop(0).close()
            self._left.pop(0)
        return b""


class SoapClient:
    """One SOAP service of a bus.

    url:     of the bus, without path; service: `feeds` or `components`
    session: carries the client certificate and the CA that the bus's certificate is checked against
    pending: hears it when an answer says since when the bus's log waits for a timestamp
    """

    def __init__(
        self,
        url: str,
        service: Literal["feeds", "components"],
        session: requests.Session,
        wsse: Wsse,
        version: Version = "1.1",
        pending: Callable[[datetime], None] = lambda since: None,
    ) -> None:
        self._wsse, self._pending = wsse, pending
        self._transport = MtomTransport(  # type: ignore[no-untyped-call]  # zeep's constructors say no types
            session=session, timeout=TIMEOUT_SECONDS, operation_timeout=TIMEOUT_SECONDS
        )
        port = f"{service.capitalize()}Soap{version.replace('.', '')}"
        try:
            self._client = zeep.Client(  # type: ignore[no-untyped-call]  # as above
                f"{url}/soap/{service}?wsdl", wsse=wsse, transport=self._transport, port_name=port
            )
        except requests.RequestException as problem:
            raise Unavailable(f"{url}: {problem}") from problem

    def call(self, operation: str, members: Mapping[str, object], attachment: Content | None = None) -> Any:
        """Call an operation; the answer as zeep gives it. attachment: travels by MTOM in place of `Content`.

        Raises Refusal with the bus's own code; Unavailable.
        """
        attachment_id = f"content-{secrets.token_hex(8)}@yongtong" if attachment is not None else ""
        self._wsse.attachment_id = self._transport.attachment_id = attachment_id
        self._transport.attachment = attachment
        try:
            answer = self._client.service[operation](**members)
        except zeep.exceptions.Fault as fault:
            raise _refusal_of(fault) from fault
        except (requests.RequestException, zeep.exceptions.TransportError) as problem:
            raise Unavailable(f"{operation}: {problem}") from problem
        since = getattr(answer, "TimestampPending", None)  # of an older bus's contract there is none
        if since is not None:
            self._pending(since)
        return answer


def _is_fault(envelope: etree._Element) -> bool:
    """Whether the Body holds a Fault and nothing else: elsewhere in an answer the word excuses nothing."""
    bodies = [child for child in envelope if etree.QName(child).localname == "Body"]
    return [etree.QName(child) for body in bodies for child in body] == [etree.QName(envelope, "Fault")]


def _part_head(boundary: str, content_type: str, content_id: str) -> bytes:
    return (
        f"--{boundary}\r\nContent-Type: {content_type}\r\nContent-Transfer-Encoding: binary\r\n"
        f"Content-ID: <{content_id}>\r\n\r\n"
    ).encode("ascii")


def _refusal_of(fault: zeep.exceptions.Fault) -> Exception:
    """The fault as the bus's own refusal; a fault without one means that the bus could not, not that it would not."""
    detail = fault.detail if isinstance(fault.detail, etree._Element) else None
    words = None if detail is None else detail.find(f"{NAMESPACE}Refusal")
    if words is None:
        return Unavailable(str(fault.message))
    said = {etree.QName(child).localname: child.text or "" for child in words}
    if said.get("Code") not in sentences():
        return Refusal("answer.refused", f"{said.get('Code')}: {said.get('SentenceEn')} {said.get('SentenceZh')}")
    refusal = Refusal(said["Code"], said.get("Detail", ""))
    refusal.reference = said.get("Reference", "")
    return refusal
