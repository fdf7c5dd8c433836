"""A delivery's original octets once more through the verifier of the door by which it came, with the clock of then."""

from datetime import datetime, timedelta
from typing import Final

import msgspec

from exchange.reading import taken_apart, unpacked
from security import wss
from security.message import Content, Delivery, EnrolledCertificate, VerifiedPayload, in_memory
from security.signatures import open_signed, payload_of, verify_signed
from security.signed_delivery import VerifiedDelivery, check_age
from security.suites import XmlSuites
from security.wss import VerifiedEnvelope

COMPLETE_UPLOAD: Final = "CompleteUpload"
MOST_ENVELOPE: Final = 64 << 20  # of one that is read at once; settings allow far less


class Original(msgspec.Struct, frozen=True):
    """An original that holds."""

    verified: VerifiedEnvelope | VerifiedDelivery
    payload: VerifiedPayload


def original_of(
    raw: Content, form: str, signer: EnrolledCertificate, at: datetime, max_age: timedelta, suites: XmlSuites
) -> Original:
    """What was signed in a request as evidence keeps it.

    form: as the entry states it, `inline`, `mtom`, `mtom-expanded`, `upload`, `jws`, `cms` or `package`
    at:   when it came: then its signature must have been fresh; max_age: of a JWS or CMS, as the feed has it

    Raises Refusal as the doors do; AuditBroken, ValueError where it is not of the form.
    """
    if form == "package":
        packed = unpacked(raw)
        return _of_envelope(packed.envelope, packed.content, signer, at, max_age)
    related = None if form in ("inline", "jws", "cms") else taken_apart(raw)
    if (len(related.envelope) if related else raw.size) > MOST_ENVELOPE:
        raise ValueError(f"an envelope of {raw.size} octets")
    octets = related.envelope if related else raw.read()
    if form in ("jws", "cms"):
        return _of_envelope(octets, None, signer, at, max_age)
    envelope = wss.open_envelope(octets, wss.Limits(max_bytes=len(octets)), suites)
    if (envelope.operation == COMPLETE_UPLOAD) != (form == "upload"):
        raise ValueError(f"{envelope.operation} is not of the form {form}")
    attachment, attachment_id = (related.attachment, related.attachment_id) if related else (None, "")
    if form == "upload":  # its content came before, each piece signed; here its signed digest decides
        verified = msgspec.structs.replace(wss.verify(envelope, signer, now=at), attachment=attachment, form="upload")
    else:
        verified = wss.verify(envelope, signer, now=at, attachment=attachment, attachment_id=attachment_id)
    return Original(
        verified, payload_of(verified, Delivery("soap", None, "", octets, raw, at, attachment, attachment_id))
    )


def _of_envelope(
    octets: bytes, apart: Content | None, signer: EnrolledCertificate, at: datetime, max_age: timedelta
) -> Original:
    opened = open_signed(octets)
    check_age(opened, at, max_age)
    signed = verify_signed(opened, signer)
    delivery = Delivery("folder" if apart else "rest", None, "", octets, in_memory(octets), at, apart)
    return Original(signed, payload_of(signed, delivery))
