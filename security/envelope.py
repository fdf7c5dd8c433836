"""A SOAP envelope opened: its shape checked, its parts found by position. Nothing cryptographic, nothing believed.

protocol.md "SOAP", clause by clause. A signed Body that was moved elsewhere signs nothing that we read (wrapping),
because no reference is ever followed to an element: the Body is the Envelope's second child, and its own id must be
among the signed ones.
"""

import hashlib
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import unquote

import msgspec
from lxml import etree

from security.errors import Refusal
from security.suites import XmlSuites
from security.xml import parse
from security.xmldsig import (
    BASE64,
    DS,
    ENVELOPED,
    EXCLUSIVE_C14N,
    STR_TRANSFORM,
    WSSE,
    WSU,
    X509V3,
    KeyReference,
    Reference,
    Signature,
    ids_of,
    octets_of,
    read_signature,
)

YT: Final = "{urn:yongtong:v1}"
XOP: Final = "{http://www.w3.org/2004/08/xop/include}"
SOAP: Final = {
    "{http://schemas.xmlsoap.org/soap/envelope/}": "1.1",
    "{http://www.w3.org/2003/05/soap-envelope}": "1.2",
}
WITHOUT_EXPIRES: Final = timedelta(minutes=5)

_MUST: Final = tuple(soap + "mustUnderstand" for soap in SOAP)
_ROLES: Final = frozenset(soap + name for soap in SOAP for name in ("actor", "role"))
_PLAIN: Final = frozenset({(EXCLUSIVE_C14N,)})
_PLAIN_OR_ENVELOPED: Final = _PLAIN | {(ENVELOPED, EXCLUSIVE_C14N)}
_PLAIN_OR_TOKEN: Final = _PLAIN | {(STR_TRANSFORM,)}
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|\+00:00)")
_every_id = etree.XPath(
    " | ".join(f"/descendant::*/@{name}" for name in ("wsu:Id", "Id", "ID", "id", "xml:id")),
    namespaces={"wsu": WSU[1:-1]},
    smart_strings=False,
)


class Limits(msgspec.Struct, frozen=True):
    """How large an envelope may be: octets, nesting, elements."""

    max_bytes: int = 8_388_608
    max_depth: int = 64
    max_elements: int = 50_000


class Part(msgspec.Struct, frozen=True):
    """A part that the signature says it covers: the element at its position, and the reference that names it."""

    name: str
    element: etree._Element
    reference: Reference


class Envelope(msgspec.Struct, frozen=True):
    """An envelope whose shape is right and of which nothing is believed yet.

    operation:        local name of the Body's only child, `element`; soap_version: `1.1` or `1.2`
    key_reference:    the key that it says it was signed with; token: its BinarySecurityToken, if it has one
    parts:            what its signature says it covers, Body and Timestamp among them
    include:          the xop:Include in Content, if the content travels as an attachment; include_id: its Content-ID
    inline, place:    the text of Content, if it travels there, and the mark that stands for it in the tree
    created, expires: aware, UTC, as stated; expires is filled in where it is left out
    """

    operation: str
    soap_version: str
    key_reference: KeyReference
    element: etree._Element
    signature: Signature
    parts: tuple[Part, ...]
    token: etree._Element | None
    include: etree._Element | None
    include_id: str
    inline: str
    place: str
    created: datetime
    expires: datetime

    def claimed(self, name: str) -> str:
        """The text of the operation's child `name`, not yet believed; empty where there is none."""
        return text_of(self.element, name)


def open_envelope(octets: bytes, limits: Limits | None = None, suites: XmlSuites | None = None) -> Envelope:
    """The envelope, if it has the one shape that is read. suites: the names that SM2 and SM3 go by.

    Raises Refusal `xml.*` and `signature.*`; the check that raises it names the attack.
    """
    limits = limits or Limits()
    # (1) XML without anything that hides: no DTD, entity, comment, processing instruction; bounded.
    root = parse(octets, max_bytes=limits.max_bytes, max_depth=limits.max_depth, max_elements=limits.max_elements)
    # (2) Envelope = [Header, Body] of SOAP 1.1 or 1.2. A second Body is where a wrapped one hides.
    soap = next((namespace for namespace in SOAP if root.tag == namespace + "Envelope"), "")
    if not soap or [child.tag for child in root] != [soap + "Header", soap + "Body"]:
        raise Refusal("signature.envelope", "Envelope must hold Header and Body")
    header, body = root
    # (3) The Body's only child is the operation.
    operation = _operation(body, soap)
    # (4) One Security header, for us; nothing for another role, nothing else that must be understood.
    security = _security(header)
    # (5) Ids: the five spellings are one set, unique in the document. Doubled ids let two readers see two parts.
    ids = _every_id(root)
    assert isinstance(ids, list)
    if len(set(ids)) != len(ids):
        raise Refusal("signature.ids_doubled")
    # (6) One Signature in the whole document; no Object, no Manifest, whose references nobody need verify.
    timestamp, token, signature_element = _security_children(security)
    if list(root.iter(DS + "Signature", DS + "Object", DS + "Manifest")) != [signature_element]:
        raise Refusal("signature.shape", "one Signature, without Object and Manifest")
    signature = read_signature(signature_element, suites)
    # (7) Which key; (8) which parts, by position; (9) an Include in its one place; (10) the stated time.
    include, include_id = _include(root, operation)
    inline, place = _put_aside(operation, signature)
    created, expires = _instants(timestamp)
    return Envelope(
        operation=etree.QName(operation).localname,
        soap_version=SOAP[soap],
        key_reference=_key_reference(signature, token),
        element=operation,
        signature=signature,
        parts=_parts(signature, body, timestamp, token),
        token=token,
        include=include,
        include_id=include_id,
        inline=inline,
        place=place,
        created=created,
        expires=expires,
    )


def text_of(operation: etree._Element, name: str) -> str:
    """The text of the operation's child `name`, empty where there is none. Raises Refusal when it is doubled.

    A doubled child is where a checker reads the first and a worker the second.
    """
    found = list(operation.iterchildren(YT + name))
    if len(found) > 1 or any(len(child) for child in found):
        raise Refusal("signature.envelope", f"{name} given twice, or not plain text")
    return (found[0].text or "") if found else ""


def _operation(body: etree._Element, soap: str) -> etree._Element:
    if len(body) != 1 or (body.text or "").strip() or (body[0].tail or "").strip():
        raise Refusal("signature.envelope", "Body must hold one element")
    name = etree.QName(body[0])
    if name.namespace not in (YT[1:-1], soap[1:-1]):
        raise Refusal("signature.envelope", f"{name.localname} is not of {YT[1:-1]}"[:120])
    return body[0]


def _security(header: etree._Element) -> etree._Element:
    """The Security header. Blocks that we do not know are ignored only where nobody asks us to understand them."""
    for block in header:
        if not _ROLES.isdisjoint(block.keys()):
            raise Refusal("signature.header_refused", f"{etree.QName(block).localname} for another role"[:120])
        if block.tag == WSSE + "Security":
            continue
        if any((block.get(must) or "0").strip() not in ("0", "false") for must in _MUST):
            raise Refusal("signature.header_refused", f"{etree.QName(block).localname} must be understood"[:120])
    found = list(header.iterchildren(WSSE + "Security"))
    if not found:
        raise Refusal("signature.missing", "no Security header")
    if len(found) > 1:
        raise Refusal("signature.header_refused", "two Security headers")
    return found[0]


def _security_children(
    security: etree._Element,
) -> tuple[etree._Element, etree._Element | None, etree._Element]:
    """Timestamp, BinarySecurityToken if any, Signature: the only things a Security header may hold, in any order."""
    found = {child.tag: child for child in security}
    unknown = [tag for tag in found if tag not in (DS + "Signature", WSU + "Timestamp", WSSE + "BinarySecurityToken")]
    if unknown or len(found) != len(security):
        doubled = "an element is doubled" if not unknown else f"{etree.QName(unknown[0]).localname}"
        raise Refusal("signature.header_refused", f"Security: {doubled}"[:120])
    if DS + "Signature" not in found:
        raise Refusal("signature.missing", "no Signature")
    if WSU + "Timestamp" not in found:
        raise Refusal("signature.timestamp_missing")
    return found[WSU + "Timestamp"], found.get(WSSE + "BinarySecurityToken"), found[DS + "Signature"]


def _key_reference(signature: Signature, token: etree._Element | None) -> KeyReference:
    """The key named; a token counts by standing in the Security header and having the id that is named."""
    if token is None:
        if signature.token_id is not None:
            raise Refusal("signature.key_reference_refused", "BinarySecurityToken is missing")
        return signature.key
    # PKIPath and PKCS7 carry several certificates, of which a reader must choose one: refused.
    if token.get("ValueType") != X509V3 or token.get("EncodingType", BASE64) != BASE64:
        raise Refusal("signature.key_reference_refused", token.get("ValueType", "no ValueType").rsplit("#")[-1][:80])
    if signature.token_id not in ids_of(token):
        raise Refusal("signature.key_reference_refused", "BinarySecurityToken is not the one named")
    return KeyReference(der=octets_of(token))


def _parts(
    signature: Signature, body: etree._Element, timestamp: etree._Element, token: etree._Element | None
) -> tuple[Part, ...]:
    """The parts that the references name: Body and Timestamp always, token and key reference perhaps, nothing else.

    enveloped-signature may stand on Body and Timestamp: it removes nothing there, since the one Signature is inside
    neither. STR-Transform may stand on our own key reference, where it means the token beside it.
    """
    places = [
        ("Body", body, _PLAIN_OR_ENVELOPED),
        ("Timestamp", timestamp, _PLAIN_OR_ENVELOPED),
        ("BinarySecurityToken", token, _PLAIN),
        ("SecurityTokenReference", signature.token_reference, _PLAIN if token is None else _PLAIN_OR_TOKEN),
    ]
    by_id = {value: place for place in places if place[1] is not None for value in ids_of(place[1])}
    parts: dict[str, Part] = {}
    for reference in signature.references:
        name, element, allowed = by_id.get(reference.id, ("", None, _PLAIN))
        if element is None:
            raise Refusal("signature.reference_unknown", reference.id[:80])
        if name in parts:
            raise Refusal("signature.shape", f"{name} is referenced twice")
        if reference.transforms not in allowed:
            raise Refusal("signature.transform_refused", f"{name}: {_endings(reference.transforms)}")
        parts[name] = Part(name, element, reference)
    for required in ("Body", "Timestamp"):
        if required not in parts:
            raise Refusal("signature.not_covered", required)
    return tuple(parts.values())


def _include(root: etree._Element, operation: etree._Element) -> tuple[etree._Element | None, str]:
    """The xop:Include and its Content-ID. Anywhere else, or beside text, an Include replaces what was not looked at."""
    found = list(root.iter(XOP + "*"))
    if not found:
        return None, ""
    content = operation.find(YT + "Content")
    if content is None or list(content) != found or found[0].tag != XOP + "Include":
        raise Refusal("signature.include_refused", "only as the one child of Content")
    if len(found) > 1:
        raise Refusal("signature.include_refused", "more than one")
    include = found[0]
    href = include.get("href", "")
    if content.text or include.tail or include.text or len(include) or set(include.attrib) != {"href"}:
        raise Refusal("signature.include_refused", "text or attributes beside it")
    if not href.startswith("cid:") or len(href) == len("cid:"):
        raise Refusal("signature.include_refused", "href must be cid:")
    return include, unquote(href[len("cid:") :])


def _put_aside(operation: etree._Element, signature: Signature) -> tuple[str, str]:
    """The text of Content, taken out of the tree, and the mark left in its place; empty where it stays.

    Base64 is its own canonical form. Digested where the mark stands, megabytes of it need no canonicalisation and no
    second reading. The mark depends on the signature, so no sender can know it beforehand and write it elsewhere.
    """
    content = next(operation.iterchildren(YT + "Content"), None)
    text = None if content is None or len(content) else content.text
    if content is None or not text or any(letter in text for letter in "&<>\r"):
        return "", ""
    content.text = place = hashlib.sha256(signature.value).hexdigest()
    return text, place


def _instants(timestamp: etree._Element) -> tuple[datetime, datetime]:
    """Created and Expires, UTC. Without Expires the envelope is good for five minutes."""
    tags = [child.tag for child in timestamp]
    if tags not in ([WSU + "Created"], [WSU + "Created", WSU + "Expires"]):
        raise Refusal("signature.timestamp_missing", "Created, then Expires if any")
    created, *expires = [_instant(child) for child in timestamp]
    if created.year == datetime.max.year:  # Expires, and what is added to either, would lie beyond the calendar
        raise Refusal("signature.timestamp_missing", f"year {created.year}")
    return created, expires[0] if expires else created + WITHOUT_EXPIRES


def _instant(element: etree._Element) -> datetime:
    text = (element.text or "").strip()
    try:
        if not len(element) and _INSTANT.fullmatch(text):
            return datetime.fromisoformat(text)
    except ValueError:
        pass  # a thirteenth month: the same refusal
    raise Refusal("signature.timestamp_missing", "a time is not UTC of the form 2026-07-01T08:00:00Z")


def _endings(uris: Sequence[str]) -> str:
    return " ".join(uri.rsplit("/", 1)[-1] for uri in uris)[:120] or "none"
