"""WS-Security on a SOAP envelope: verify one that `security.envelope` opened, and sign one.

What is verified is handed on as read again from the very octets that were digested, so that nothing which stood
elsewhere in the envelope can be taken for signed.
"""

import base64
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

import msgspec
from lxml import etree

from security.envelope import SOAP, XOP, YT, Envelope, Limits, Part, open_envelope, text_of
from security.errors import Refusal
from security.keys import SigningKey, verify_signature
from security.message import Content, EnrolledCertificate, Hash, Principal, hasher
from security.suites import XmlSuites, hash_of, xml_digest, xml_signature
from security.xml import canonical, read_own
from security.xmldsig import BASE64, DS, EXCLUSIVE_C14N, STANDARD, STR_TRANSFORM, WSSE, WSU, X509V3, ids_of

__all__ = ["Envelope", "Form", "Limits", "VerifiedEnvelope", "open_envelope", "sign", "verify"]

SKEW: Final = timedelta(minutes=5)
LONGEST: Final = timedelta(minutes=10)
READ_AT_ONCE: Final = 3 * 256 * 1024  # a multiple of 3, so that pieces of base64 join without padding between them
Form = Literal["inline", "mtom", "mtom-expanded", "upload"]


class VerifiedEnvelope(msgspec.Struct, frozen=True):
    """What a signer signed: the operation, read again from the octets under the signature.

    element:          the operation element as a document of its own, without what its Content holds
    inline:           the text that its Content held, empty if it held none
    created, expires: of the signed Timestamp, aware, UTC
    signature_digest: SHA-256 of SignatureValue's octets, lower-case hex; names this one envelope in answers
    signed_digest:    SHA-256 of SignedInfo's canonical octets, lower-case hex. By it a repeated envelope is known:
                      anybody can turn an ECDSA signature (r, s) into (r, n - s), which holds and has another digest
    form:             `inline`; `mtom`, signed as sent; `mtom-expanded`, signed with the part's base64 in place;
                      `upload`, whose content came before
    attachment:       the part that the Include named; `security.signatures` compares it with the declared digest
    """

    operation: str
    element: etree._Element
    signer: Principal
    created: datetime
    expires: datetime
    signature_digest: str
    signed_digest: str
    form: Form
    inline: str = ""
    attachment: Content | None = None

    @property
    def recipient(self) -> str:
        """The bus that it was signed for."""
        return self.text("Recipient")

    def text(self, name: str) -> str:
        """The text of the operation's child `name`; empty where there is none."""
        return text_of(self.element, name)


def verify(
    envelope: Envelope,
    certificate: EnrolledCertificate,
    *,
    now: datetime,
    attachment: Content | None = None,
    attachment_id: str = "",
) -> VerifiedEnvelope:
    """What certificate's holder signed, if the signature holds for every part that it names.

    attachment, attachment_id: the MTOM part and its Content-ID without angle brackets

    Raises Refusal: `signature.certificate_differs`, `signature.attachment_mismatch`, `signature.algorithm_not_of_key`,
    `signature.invalid`, `signature.future`, `signature.stale`, `signature.window`.
    """
    # (1) The key that the message names is this certificate's; byte for byte where the message carries one.
    if not envelope.key_reference.fits(certificate.der):
        raise Refusal("signature.certificate_differs", certificate.fingerprint[:16])
    # (2) An Include has its part and a part its Include: an attachment that no signed Include names is nobody's.
    if (envelope.include is None) != (attachment is None) or envelope.include_id != attachment_id:
        raise Refusal("signature.attachment_mismatch", attachment_id[:80])
    # (3) The signature over SignedInfo, before anything larger is canonicalised for someone without the key.
    signature = envelope.signature
    signed_info = canonical(signature.signed_info, signature.prefixes)
    verify_signature(certificate.der, signature.algorithm, signature.value, signed_info)
    # (4) Every part has the digest that SignedInfo states for it.
    hash_name = hash_of(signature.algorithm)
    for part in envelope.parts:
        if part.name != "Body" and not _holds(part, _octets_of(part, envelope.token), hash_name):
            raise Refusal("signature.invalid", f"{part.name} was altered after signing")
    body, form = _signed_body(envelope, attachment, hash_name)
    # (5) Time, now that it is known to be the signer's own.
    _check_time(envelope.created, envelope.expires, now)
    return VerifiedEnvelope(
        operation=envelope.operation,
        element=_operation_in(body),
        signer=Principal(bureau=certificate.bureau, certificate=certificate.fingerprint),
        created=envelope.created,
        expires=envelope.expires,
        signature_digest=hashlib.sha256(signature.value).hexdigest(),
        signed_digest=hashlib.sha256(signed_info).hexdigest(),
        form=form,
        inline=envelope.inline,
        attachment=attachment,
    )


def sign(
    envelope: etree._Element,
    key: SigningKey,
    certificate_der: bytes,
    *,
    created: datetime,
    expires: datetime,
    suites: XmlSuites = STANDARD,
) -> bytes:
    """The octets of a SOAP envelope with a Security header: token, Timestamp and Body signed by key.

    envelope: Envelope of SOAP 1.1 or 1.2; it gets a Header and an id on its Body where it has none, and nothing else.
              The octets, and not the tree, are what was signed.
    created, expires: aware; at most ten minutes apart
    suites:   the names that SM2 and SM3 go by
    """
    soap = next(namespace for namespace in SOAP if envelope.tag == namespace + "Envelope")
    header = envelope.find(soap + "Header")
    if header is None:
        header = etree.Element(soap + "Header", nsmap={envelope.prefix: soap[1:-1]})
        envelope.insert(0, header)
    body = envelope.find(soap + "Body")
    assert body is not None
    if not ids_of(body):
        body.set(WSU + "Id", "body")
    # The parts are written in their canonical form at once: exclusive, namespaces and attributes in order.
    token, timestamp = _token(certificate_der), _timestamp(created, expires)
    parts = [("token", token), ("timestamp", timestamp), (ids_of(body)[0], canonical(body))]
    signed_info = _signed_info(key, parts, suites)
    security = b"".join((
        f'<wsse:Security xmlns:wsse="{WSSE[1:-1]}" xmlns:s="{soap[1:-1]}" s:mustUnderstand="1">'.encode(),
        token, timestamp, _signature(signed_info, key.sign(signed_info)), b"</wsse:Security>",
    ))  # fmt: skip
    # Spliced as octets: moved into the tree, lxml may choose another prefix for a namespace, and a prefix is signed.
    place = etree.Comment(hashlib.sha256(signed_info).hexdigest())
    header.insert(0, place)
    octets = etree.tostring(envelope, encoding="utf-8")
    header.remove(place)
    return octets.replace(f"<!--{place.text}-->".encode(), security, 1)


def _holds(part: Part, octets: bytes, hash_name: Hash) -> bool:
    return _digest(octets, hash_name) == part.reference.digest


def _digest(octets: bytes, hash_name: Hash) -> bytes:
    hashed = hasher(hash_name)
    hashed.update(octets)
    return hashed.digest()


def _octets_of(part: Part, token: etree._Element | None) -> bytes:
    """The octets that a reference digests."""
    if part.reference.transforms != (STR_TRANSFORM,):
        return canonical(part.element, part.reference.prefixes)
    # WSS 1.1 §8.3: the token in place of the reference; its first element states the default namespace, empty if none.
    assert token is not None
    octets = canonical(token, part.reference.prefixes)
    if b' xmlns="' in octets[: octets.index(b">")]:
        return octets
    return octets.replace(b" ", b' xmlns="" ', 1)


def _signed_body(envelope: Envelope, attachment: Content | None, hash_name: Hash) -> tuple[bytes, Form]:
    """The Body's canonical octets that were signed, less the content's, and which form of it was signed.

    As sent; and if that fails and an attachment came, with the Include replaced by the part's canonical base64, which
    is what some toolkits digest (XOP §3.1). Either way Content is compared with its signed digest afterwards.
    """
    (part,) = (part for part in envelope.parts if part.name == "Body")
    octets, mark = canonical(part.element, part.reference.prefixes), envelope.place.encode()
    if _holds(part, octets.replace(mark, envelope.inline.encode(), 1), hash_name):
        return octets.replace(mark, b"", 1), "inline" if attachment is None else "mtom"
    if attachment is not None:
        before, after = _around_include(envelope, part)
        digest = hasher(hash_name)
        digest.update(before)
        for piece in attachment.pieces(READ_AT_ONCE):
            digest.update(base64.b64encode(piece))
        digest.update(after)
        if digest.digest() == part.reference.digest:
            return before + after, "mtom-expanded"
    raise Refusal("signature.invalid", "Body was altered after signing")


def _around_include(envelope: Envelope, part: Part) -> tuple[bytes, bytes]:
    """The Body's canonical octets before and after where the Include stands.

    A short text marks the place, because libxml2 holds no text of more than 10 MB. It depends on the signature, so no
    sender can know it beforehand and write it elsewhere.
    """
    include = envelope.include
    assert include is not None
    content = include.getparent()
    assert content is not None
    place = hashlib.sha256(envelope.signature.value).hexdigest()
    content.remove(include)
    content.text = place
    try:
        before, _, after = canonical(part.element, part.reference.prefixes).partition(place.encode())
    finally:
        content.text = None
        content.append(include)
    return before, after


def _check_time(created: datetime, expires: datetime, now: datetime) -> None:
    """Within five minutes of our clock on either side, and never good for more than ten minutes."""
    if not created < expires <= created + LONGEST:
        raise Refusal("signature.window", f"{created.isoformat()} to {expires.isoformat()}")
    if created > now + SKEW:
        raise Refusal("signature.future", f"created {created.isoformat()}, our clock {now.isoformat()}")
    if expires < now - SKEW:
        raise Refusal("signature.stale", f"expired {expires.isoformat()}, our clock {now.isoformat()}")


def _operation_in(body: bytes) -> etree._Element:
    """The operation in the Body's signed octets, a root of its own, without the Include that was checked."""
    root = read_own(body)
    operation = root[0]
    root.remove(operation)
    content = next(operation.iterchildren(YT + "Content"), None)
    if content is not None and len(content) and content[0].tag == XOP + "Include":
        content.remove(content[0])
    return operation


def _token(certificate_der: bytes) -> bytes:
    return (
        f'<wsse:BinarySecurityToken xmlns:wsse="{WSSE[1:-1]}" xmlns:wsu="{WSU[1:-1]}" EncodingType="{BASE64}" '
        f'ValueType="{X509V3}" wsu:Id="token">{_b64(certificate_der)}</wsse:BinarySecurityToken>'
    ).encode()


def _timestamp(created: datetime, expires: datetime) -> bytes:
    return (
        f'<wsu:Timestamp xmlns:wsu="{WSU[1:-1]}" wsu:Id="timestamp"><wsu:Created>{_instant(created)}</wsu:Created>'
        f"<wsu:Expires>{_instant(expires)}</wsu:Expires></wsu:Timestamp>"
    ).encode()


def _signed_info(key: SigningKey, parts: list[tuple[str, bytes]], suites: XmlSuites) -> bytes:
    method, hash_name = xml_digest(suites, key.algorithm), hash_of(key.algorithm)
    references = "".join(
        f'<ds:Reference URI="#{identifier}"><ds:Transforms><ds:Transform Algorithm="{EXCLUSIVE_C14N}"></ds:Transform>'
        f'</ds:Transforms><ds:DigestMethod Algorithm="{method}"></ds:DigestMethod>'
        f"<ds:DigestValue>{_b64(_digest(octets, hash_name))}</ds:DigestValue></ds:Reference>"
        for identifier, octets in parts
    )
    return (
        f'<ds:SignedInfo xmlns:ds="{DS[1:-1]}">'
        f'<ds:CanonicalizationMethod Algorithm="{EXCLUSIVE_C14N}"></ds:CanonicalizationMethod>'
        f'<ds:SignatureMethod Algorithm="{xml_signature(suites, key.algorithm)}"></ds:SignatureMethod>{references}'
        "</ds:SignedInfo>"
    ).encode()


def _signature(signed_info: bytes, value: bytes) -> bytes:
    key_info = (
        f'<ds:KeyInfo><wsse:SecurityTokenReference><wsse:Reference URI="#token" ValueType="{X509V3}"/>'
        "</wsse:SecurityTokenReference></ds:KeyInfo>"
    )
    value_element = f"<ds:SignatureValue>{_b64(value)}</ds:SignatureValue>"
    return b"".join((
        f'<ds:Signature xmlns:ds="{DS[1:-1]}">'.encode(), signed_info, value_element.encode(), key_info.encode(),
        b"</ds:Signature>",
    ))  # fmt: skip


def _instant(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _b64(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")
