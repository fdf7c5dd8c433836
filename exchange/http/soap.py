"""The SOAP doors: limit, take the transport apart, call the story, write the answer or the fault."""

import asyncio
import contextlib
import functools
import hashlib
import logging
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import msgspec
from lxml import etree
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from connectors.transports.multipart import MediaType, media_type, take_apart
from exchange.bus import Bus
from exchange.http import envelopes, operations
from exchange.http.body import BodyCutOff, Spool, read_body
from exchange.http.requests import Outcome, declared_length, headers_of, remote_of, retry_after, send_outcome
from exchange.http.tls import client_certificate
from exchange.intake import LARGE_BYTES, turn_away
from security.authenticate import carrier_of
from security.errors import FOR_NOW, AuditBroken, Refusal, Unavailable, places
from security.message import Content, Delivery
from security.suites import XmlSuites
from security.wss import open_envelope
from security.xml import parse

CONTRACTS: Final = Path(__file__).parent.parent / "contracts"
WSDL_SOAP: Final = ("http://schemas.xmlsoap.org/wsdl/soap/", "http://schemas.xmlsoap.org/wsdl/soap12/")
ACTION_PREFIX: Final = f"{envelopes.NAMESPACE}/"
VERSIONS: Final[Mapping[str, envelopes.Version]] = {"text/xml": "1.1", "application/soap+xml": "1.2"}
UNAVAILABLE: Final = ("平台暂时不可用，请稍后重发原报文。", "Temporarily unavailable; send the same again later.")
FAILED: Final = ("平台内部错误，参考号 {}。", "The platform failed; reference {}.")
MESSAGE_ID: Final = re.compile(r"[A-Za-z0-9._:@+\-]{1,128}")  # as the XSD has it
_HOST: Final = re.compile(r"[A-Za-z0-9.\-\[\]:]{1,255}")

log = logging.getLogger("yongtong.door")


class _Caller(msgspec.Struct):
    """Who is on the line, as far as the connection and the HTTP head say.

    bureau:    whose connection it is; empty where it is nobody's whom we know
    heard_out: the request has been read to its end; if not, the client is still sending when it is answered
    """

    certificate_der: bytes | None
    remote: str
    headers: Mapping[str, str]
    version: envelopes.Version = "1.1"
    bureau: str = ""
    heard_out: bool = False
    envelope: bytes = b""


class SoapDoor:
    """One SOAP service as an ASGI endpoint: POST an envelope, or GET ?wsdl."""

    def __init__(self, service: Literal["feeds", "components"], bus: Bus, spool: Spool) -> None:
        self._service, self._bus, self._spool = service, bus, spool
        self._operations = operations.OPERATIONS[service]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["method"] == "POST":
            await self._post(scope, receive, send)
        elif scope["method"] in ("GET", "HEAD") and scope["query_string"].lower() == b"wsdl":
            await Response(self._wsdl(scope), media_type="text/xml")(scope, receive, send)
        else:
            await Response("POST a SOAP envelope, or GET ?wsdl", 405, {"allow": "GET, POST"})(scope, receive, send)

    def _wsdl(self, scope: Scope) -> bytes:
        host = headers_of(scope).get("host", "")
        return wsdl(self._service, host if _HOST.fullmatch(host) else "localhost")

    async def _post(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = _Caller(client_certificate(scope), remote_of(scope), headers_of(scope))
        try:
            outcome = await self._answered(caller, receive)
        except BodyCutOff:
            log.info("door.body_cut_off remote=%s", caller.remote)
            return
        await send_outcome(outcome, receive, send)

    async def _answered(self, caller: _Caller, receive: Receive) -> Outcome:
        """The answer, or the fault that says whose turn it is."""
        try:
            return await self._story(caller, receive)
        except Refusal as refusal:
            return await self._refused(refusal, caller)
        except Unavailable as problem:
            log.warning("door.unavailable service=%s reason=%s", self._service, problem)
            return self._failed(caller, *UNAVAILABLE)
        except AuditBroken as problem:
            log.critical("door.audit_broken service=%s reason=%s", self._service, problem)
            return self._failed(caller, *UNAVAILABLE)
        except (BodyCutOff, asyncio.CancelledError):
            raise
        except Exception as problem:  # the transport's outermost loop: one bad request must not take the door down
            reference = secrets.token_hex(4)
            log.error("door.failed service=%s reference=%s at=%s", self._service, reference, places(problem))
            zh, en = (sentence.format(reference) for sentence in FAILED)
            return self._failed(caller, zh, en, status=500)

    async def _story(self, caller: _Caller, receive: Receive) -> Outcome:
        now = self._bus.clock()
        # (1) who is on the line – of somebody unknown not one octet of a body is read, let alone parsed
        caller.version = _version_of(caller.headers)
        carrier = carrier_of(caller.certificate_der, self._bus.registry.trust(), now)
        if carrier is None:
            raise Refusal("auth.no_certificate")
        caller.bureau = carrier.bureau
        # (2) how it came – media type, length, time
        declared = _declared(caller.headers)
        limits = self._bus.limits
        multipart = declared.name == "multipart/related"
        max_bytes = limits.max_envelope_bytes + (limits.max_mtom_bytes if multipart else 0)
        body = read_body(
            receive,
            declared_length(caller.headers),
            max_bytes=max_bytes,
            seconds=limits.body_s,
            spool=self._spool,
            bureau=carrier.bureau,
        )
        async with body as raw:
            caller.heard_out = True
            delivery, action = await self._delivery(raw, declared, caller)
            caller.envelope = delivery.envelope
            # (3) what is asked, (4) the story
            name = self._operation(action, delivery)
            asked = msgspec.structs.replace(delivery, operation=name)
            answer = await self._operations[name](asked, caller.version, self._bus)
        envelopes.put_timestamp_pending(answer, self._bus.timestamp_pending())
        return Outcome(200, envelopes.MEDIA_TYPES[caller.version], envelopes.signed(answer, self._bus))

    async def _delivery(self, raw: Content, declared: MediaType, caller: _Caller) -> tuple[Delivery, str]:
        """The request as a delivery, and the action that its transport states (may be empty)."""
        received_at = self._bus.clock()
        action = caller.headers.get("soapaction", "").strip().strip('"')
        if declared.name != "multipart/related":
            stated = action if caller.version == "1.1" else declared.parameters.get("action", "")
            envelope = raw.read()
            return Delivery("soap", caller.certificate_der, caller.remote, envelope, raw, received_at), stated
        work = functools.partial(take_apart, raw, declared, max_envelope_bytes=self._bus.limits.max_envelope_bytes)
        related = await asyncio.to_thread(work) if raw.size > LARGE_BYTES else work()
        if related.attachment.size > self._bus.limits.max_mtom_bytes:
            raise Refusal("size.too_large", f"{related.attachment.size} > {self._bus.limits.max_mtom_bytes}")
        version = VERSIONS.get(related.envelope_type)
        if version is None:
            raise Refusal("http.media_type", related.envelope_type[:80])
        caller.version = version
        if version == "1.2":
            action = related.action or declared.parameters.get("action", "")
        delivery = Delivery(
            "soap",
            caller.certificate_der,
            caller.remote,
            related.envelope,
            raw,
            received_at,
            related.attachment,
            related.attachment_id,
        )
        return delivery, action

    def _operation(self, action: str, delivery: Delivery) -> str:
        """The operation's name. What the transport states is checked against the signed Body by each operation."""
        name = action.removeprefix(ACTION_PREFIX)
        if not action:
            name = open_envelope(delivery.envelope, suites=self._bus.xml_suites).operation
        if name not in self._operations:
            raise Refusal("soap.operation_unknown", name[:80])
        return name

    async def _refused(self, refusal: Refusal, caller: _Caller) -> Outcome:
        if not refusal.reference and refusal.code != "auth.refused":  # made here, so not yet in the audit
            try:
                told = await turn_away(refusal, "soap", caller.certificate_der, caller.remote, self._bus)
            except Unavailable:
                return self._failed(caller, *UNAVAILABLE)
        else:
            told = refusal
        precise = bool(caller.bureau) and told.code != "auth.refused"
        reference = told.reference or told.detail
        log.info("door.refused reference=%s code=%s remote=%s", reference, refusal.code, caller.remote)
        detail = envelopes.refusal_element(told, reference, precise=precise)
        if precise:
            self._put_answered(detail, caller)
        sentence = told.sentence
        ours = told.code in FOR_NOW  # the same may be sent again, and retries of a client that knows no more are right
        envelope = envelopes.fault(
            caller.version, sender_at_fault=not ours, zh=sentence.zh, en=sentence.en, detail=detail
        )
        try:
            octets = envelopes.signed(envelope, self._bus) if precise else envelopes.unsigned(envelope)
        except Unavailable as problem:  # the token in which our key lies is away
            log.warning("door.unavailable service=%s reason=%s", self._service, problem)
            return self._failed(caller, *UNAVAILABLE)
        media_type = envelopes.MEDIA_TYPES[caller.version]
        status = _status(told, caller.version)
        return Outcome(status, media_type, octets, retry_after(told), linger=not caller.heard_out)

    def _failed(self, caller: _Caller, zh: str, en: str, status: int = 503) -> Outcome:
        """What is no fault of the sender's; signed where we know whom we tell."""
        detail = None
        if caller.bureau:
            detail = envelopes.failure_element()
            self._put_answered(detail, caller)
        envelope = envelopes.fault(caller.version, sender_at_fault=False, zh=zh, en=en, detail=detail)
        octets = envelopes.unsigned(envelope)
        if detail is not None:
            with contextlib.suppress(Unavailable):  # the token in which our key lies is away, and may be why
                octets = envelopes.signed(envelope, self._bus)
        return Outcome(status, envelopes.MEDIA_TYPES[caller.version], octets, linger=not caller.heard_out)

    def _put_answered(self, detail: etree._Element, caller: _Caller) -> None:
        """Which request the fault answers, when, and to whom."""
        _put_claimed_request(detail, caller.envelope, self._bus.xml_suites)
        envelopes.put_answered(detail, self._bus.clock(), caller.bureau)


def _put_claimed_request(detail: etree._Element, envelope: bytes, suites: XmlSuites) -> None:
    """Which request the fault answers, as that request names itself: refused, so nothing of it is believed."""
    try:
        opened = open_envelope(envelope, suites=suites)
        message_id = opened.claimed("MessageId")
    except Refusal:
        return
    if MESSAGE_ID.fullmatch(message_id):
        envelopes.put_in_reply_to(detail, message_id, hashlib.sha256(opened.signature.value).hexdigest())


@functools.lru_cache(64)
def wsdl(service: str, host: str) -> bytes:
    """The published WSDL of a service, its addresses those of the host asked."""
    document = parse((CONTRACTS / f"{service}.wsdl").read_bytes(), max_bytes=1_000_000)
    for namespace in WSDL_SOAP:
        for address in document.iter(f"{{{namespace}}}address"):
            address.set("location", f"https://{host}/soap/{service}")
    return etree.tostring(document, xml_declaration=True, encoding="utf-8")


async def schema(_: Request) -> Response:
    """The published XSD, as it stands."""
    return Response((CONTRACTS / "yongtong.xsd").read_bytes(), media_type="text/xml")


@functools.lru_cache(256)
def _media_type(value: str) -> MediaType:
    return media_type(value)


def _version_of(headers: Mapping[str, str]) -> envelopes.Version:
    """The SOAP version to speak before the message is read: what the media type suggests, else 1.1."""
    return "1.2" if "application/soap+xml" in headers.get("content-type", "") else "1.1"


def _declared(headers: Mapping[str, str]) -> MediaType:
    """The media type, one of the three that the doors take, in UTF-8 and without compression."""
    declared = _media_type(headers.get("content-type", ""))
    if declared.name not in VERSIONS and declared.name != "multipart/related":
        raise Refusal("http.media_type", declared.name[:80])
    if declared.parameters.get("charset", "utf-8").lower() != "utf-8":
        raise Refusal("http.media_type", declared.parameters["charset"][:40])
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal("http.media_type", headers["content-encoding"][:40])
    return declared


def _status(refusal: Refusal, version: envelopes.Version) -> int:
    """HTTP's word for the fault: 413, 408, 503 where it has one, else SOAP 1.1 §6.2 and SOAP 1.2 part 2 §7.5.2.2.

    Too many is no 429 here: both versions want 500 of a fault that is the receiver's to end, and toolkits read a fault
    only there. Retry-After stands beside it.
    """
    words = {"size.too_large": 413, "http.body_slow": 408, **dict.fromkeys(FOR_NOW, 503), "flow.too_many": 500}
    return words.get(refusal.code, 500 if version == "1.1" else 400)
