"""Is it theirs: the content that a bureau signed. The only maker of `VerifiedPayload`.

Act one makes it from an envelope just verified; act two makes it again from the evidence kept, and compares with what
the journal wrote down: between the two acts nobody has to be believed.
"""

import hashlib
from datetime import datetime
from typing import Final

from lxml import etree

from security import cms_delivery, jws_delivery
from security.authenticate import TrustList
from security.cms_delivery import CmsEnvelope
from security.envelope import YT, text_of
from security.errors import AuditBroken, Refusal
from security.jws_delivery import JwsEnvelope
from security.message import (
    HASHES,
    Content,
    Delivery,
    Digest,
    EnrolledCertificate,
    Principal,
    VerifiedPayload,
    in_memory,
)
from security.signed_delivery import SignedDelivery, VerifiedDelivery
from security.wss import VerifiedEnvelope
from security.xml import read_own
from security.xmldsig import DS, octets_of, unbase64

DER_SEQUENCE: Final = b"\x30"  # with which every CMS begins, and no JSON


def is_cms(octets: bytes) -> bool:
    """Whether an envelope that is no XML is a CMS; otherwise it can only be a JWS."""
    return octets.startswith(DER_SEQUENCE)


def open_signed(octets: bytes) -> SignedDelivery:
    """A CMS or JWS envelope, opened. Raises Refusal as `cms_delivery` and `jws_delivery` do."""
    return cms_delivery.open_delivery(octets) if is_cms(octets) else jws_delivery.open_delivery(octets)


def certificate_of(envelope: SignedDelivery, trust: TrustList) -> EnrolledCertificate | None:
    """The enrolled certificate that a CMS or JWS says it was signed with."""
    if isinstance(envelope, CmsEnvelope):
        return trust.of_signer(envelope.signed_data)
    assert isinstance(envelope, JwsEnvelope)
    return trust.by_fingerprint(envelope.certificate)


def verify_signed(envelope: SignedDelivery, certificate: EnrolledCertificate) -> VerifiedDelivery:
    """What the certificate's holder signed. Raises Refusal as `cms_delivery` and `jws_delivery` do."""
    if isinstance(envelope, CmsEnvelope):
        return cms_delivery.verify_delivery(envelope, certificate)
    assert isinstance(envelope, JwsEnvelope)
    return jws_delivery.verify_delivery(envelope, certificate)


def payload_of(verified: VerifiedEnvelope | VerifiedDelivery, delivery: Delivery) -> VerifiedPayload:
    """The content of a verified delivery: what a JWS or CMS carries, of a package what lies beside it; of a
    SubmitDelivery decoded from the Body, or the part.

    Its digest may be stated by SHA-256 or by SM3; here and in receipts it is known by SHA-256.

    Raises Refusal `signature.content_digest` when the content has another digest than the signed Body states, or one
    of another algorithm; `signature.content_not_base64`; `signature.attachment_mismatch` when the delivery's part is
    not the one that was verified; `package.content_twice`.
    """
    if isinstance(verified, VerifiedDelivery):
        return _of_envelope(verified.envelope, verified.signer, delivery.attachment)
    if verified.attachment != delivery.attachment:
        raise Refusal("signature.attachment_mismatch", delivery.attachment_id[:80])
    content = verified.attachment or _decoded(text_of(verified.element, "Content") or verified.inline)
    declared = _declared(verified.element)
    if content.digest_by(declared.algorithm) != declared:
        raise _other_digest(declared, content.digest)
    return _payload(verified.element, content, verified.signer, verified.created, verified.form)


def reopen(
    envelope_octets: bytes,
    attachment: Content | None,
    *,
    expected: Digest,
    request_digest: str,
    signer: Principal,
    signed_at: datetime,
    form: str,
) -> VerifiedPayload:
    """The same payload again from the evidence, for act two.

    expected, request_digest, signer, signed_at, form: as the journal recorded them when the delivery was accepted;
    request_digest is the SHA-256 of the envelope's SignatureValue, lower-case hex.

    Raises AuditBroken when the evidence no longer holds that content under that signature. The two digests decide:
    act one's checks of the envelope's shape say nothing more about octets that they have passed.
    """
    try:
        operation, signature = _operation_and_signature(envelope_octets)
        content = attachment or _decoded(text_of(operation, "Content"))
        declared = _declared(operation)
    except Refusal as problem:
        raise AuditBroken(f"evidence of request {request_digest[:16]} cannot be read again: {problem}") from problem
    found = hashlib.sha256(signature).hexdigest()
    if (content.digest, found) != (expected, request_digest) or content.digest_by(declared.algorithm) != declared:
        raise AuditBroken(f"evidence of request {request_digest[:16]} is not what was accepted")
    return _payload(operation, content, signer, signed_at, form)


def reopen_signed(
    octets: bytes, apart: Content | None = None, *, expected: Digest, request_digest: str, signer: Principal
) -> VerifiedPayload:
    """The same for a delivery that came as a JWS or CMS. apart: content of a package. Raises AuditBroken."""
    try:
        envelope = open_signed(octets)
        payload = _of_envelope(envelope, signer, apart)
    except Refusal as problem:
        raise AuditBroken(f"evidence of request {request_digest[:16]} cannot be read again: {problem}") from problem
    if (payload.content.digest, envelope.signature_digest) != (expected, request_digest):
        raise AuditBroken(f"evidence of request {request_digest[:16]} is not what was accepted")
    return payload


def _of_envelope(envelope: SignedDelivery, signer: Principal, apart: Content | None) -> VerifiedPayload:
    if apart is not None and envelope.content:
        raise Refusal("package.content_twice", f"{len(envelope.content)} octets in the envelope")
    content = in_memory(envelope.content) if apart is None else apart
    if content.digest_by(envelope.digest.algorithm) != envelope.digest:
        raise _other_digest(envelope.digest, content.digest)
    return VerifiedPayload(
        content=content,
        content_type=envelope.content_type,
        sender=envelope.sender,
        feed=envelope.feed,
        message_id=envelope.message_id,
        signer=signer,
        signed_at=envelope.signed_at,
        form=envelope.form if apart is None else "package",
        sequence=envelope.sequence,
    )


def _other_digest(stated: Digest, found: Digest) -> Refusal:
    return Refusal("signature.content_digest", f"stated {stated.hex[:16]}…, found {found.hex[:16]}…")


def _operation_and_signature(octets: bytes) -> tuple[etree._Element, bytes]:
    """The Body's only child and the octets of the one SignatureValue; where they stand, act one has checked."""
    try:
        root = read_own(octets)
    except (etree.XMLSyntaxError, ValueError) as problem:
        raise Refusal("xml.not_well_formed") from problem
    operations, values = [child for body in list(root)[1:] for child in body], list(root.iter(DS + "SignatureValue"))
    if len(operations) != 1 or len(values) != 1:
        raise Refusal("signature.envelope", "not one operation under one signature")
    return operations[0], octets_of(values[0])


def _payload(
    operation: etree._Element, content: Content, signer: Principal, signed_at: datetime, form: str
) -> VerifiedPayload:
    return VerifiedPayload(
        content=content,
        content_type=text_of(operation, "ContentType"),
        sender=text_of(operation, "Sender"),
        feed=text_of(operation, "Feed"),
        message_id=text_of(operation, "MessageId"),
        signer=signer,
        signed_at=signed_at,
        form=form,
        sequence=int(text_of(operation, "Sequence") or 0) or None,  # the XSD says: a whole number from 1
    )


def _decoded(text: str) -> Content:
    try:
        return in_memory(unbase64(text))
    except ValueError as problem:
        raise Refusal("signature.content_not_base64") from problem


def _declared(operation: etree._Element) -> Digest:
    stated = operation.find(YT + "ContentDigest")
    name = "" if stated is None else stated.get("algorithm", "")
    algorithm = HASHES.get(name)
    if algorithm is None:
        raise Refusal("signature.content_digest", f"algorithm {name!r:.20}, SHA-256 or SM3 was expected")
    try:
        return Digest(algorithm, bytes.fromhex(text_of(operation, "ContentDigest").strip()))
    except ValueError as problem:
        raise Refusal("signature.content_digest", "not hexadecimal") from problem
