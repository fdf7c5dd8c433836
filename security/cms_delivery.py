"""The CMS envelope of a delivery (MQTT, REST), for SM2 keys, of which JOSE knows no algorithm; P-256 is taken too.

What is signed (`security.cms` says how) is one octet string:

    length of the header, 4 octets, big-endian ‖ header, JSON ‖ content's octets

with the header exactly `typ iss aud mid cty feed iat dig`, and perhaps `seq` (`security.signed_delivery`). The
certificate that signed is named by CMS itself, so the header names none; `iat` and the signed attribute signingTime are
one moment.
"""

import re
from typing import ClassVar, Final, Unpack

from security import cms
from security.errors import Refusal
from security.jws import jcs
from security.keys import SigningKey, verify_signature
from security.message import Content, EnrolledCertificate, Principal, in_memory
from security.signed_delivery import (
    FORMS,
    Kind,
    Names,
    SignedDelivery,
    VerifiedDelivery,
    check_size,
    header_of,
    read_header,
    said,
)
from security.suites import hash_of

_LENGTH_OCTETS: Final = 4
_FORMS: Final = {**FORMS, "dig": re.compile(r"(?:SHA-256|SM3):[0-9a-f]{64}")}


class CmsEnvelope(SignedDelivery, frozen=True, kw_only=True):
    """A CMS. content: of the delivery; signature: in DER, as it came. signed_data: all of the SignedData."""

    form: ClassVar[Kind] = "cms"

    signed_data: cms.SignedContent


def open_delivery(octets: bytes) -> CmsEnvelope:
    """The envelope, if it has the one shape that is read.

    Raises Refusal: `cms.too_large`, what `security.cms.read` raises, `cms.header_length`, `cms.not_json`,
    `cms.member_doubled`, `cms.member_refused`, `cms.member_missing`, `cms.member_form`, `cms.not_a_delivery`,
    `cms.times_differ`.
    """
    check_size(octets, "cms")
    signed = cms.read(octets)
    header_octets, content = _parted(signed.content)
    says = said(read_header(header_octets, _FORMS, "cms", "header"), "cms")
    # Two readers may not take it for signed at two times.
    if says["signed_at"] != signed.signed_at:
        raise Refusal("cms.times_differ", f"{says['signed_at'].isoformat()} / {signed.signed_at.isoformat()}")
    return CmsEnvelope(
        **says,
        content=content,
        algorithm=signed.algorithm,
        signed=signed.signed,
        signature=signed.signature,
        signed_data=signed,
    )


def verify_delivery(envelope: CmsEnvelope, certificate: EnrolledCertificate) -> VerifiedDelivery:
    """What the certificate's holder signed. The key fixes the algorithm; the message only has to agree.

    Raises Refusal: `cms.signer_differs`, `signature.algorithm_not_of_key`, `signature.invalid`.
    """
    # A certificate in the message finds no key: it may only be the one that is enrolled, octet for octet.
    if not envelope.signed_data.names(certificate.der):
        raise Refusal("cms.signer_differs", certificate.fingerprint[:16])
    verify_signature(certificate.der, envelope.algorithm, envelope.signed_data.raw, envelope.signed)
    return VerifiedDelivery(envelope, Principal(bureau=certificate.bureau, certificate=certificate.fingerprint))


def sign_delivery(content: bytes, key: SigningKey, **names: Unpack[Names]) -> bytes:
    """The envelope's octets. key: SM2 or P-256, with its certificate, which is named and does not travel.

    Raises Refusal `cms.too_large`, or what `open_delivery` would raise for names of another form; Misconfigured.
    """
    return _sealed(in_memory(content), content, key, names)


def sign_apart(content: Content, key: SigningKey, **names: Unpack[Names]) -> bytes:
    """The same of content that lies beside its envelope, as in a package; it may be of any size."""
    return _sealed(content, b"", key, names)


def _sealed(content: Content, carried: bytes, key: SigningKey, names: Names) -> bytes:
    header = jcs(header_of(content, "cms", hash_of(key.algorithm), **names))
    signed = b"".join((len(header).to_bytes(_LENGTH_OCTETS, "big"), header, carried))
    octets = cms.write(signed, key, names["signed_at"])
    open_delivery(octets)  # nothing leaves that would be refused at the door
    return octets


def _parted(signed: bytes) -> tuple[bytes, bytes]:
    """Header and content."""
    begin = _LENGTH_OCTETS + int.from_bytes(signed[:_LENGTH_OCTETS], "big")
    if len(signed) < max(begin, _LENGTH_OCTETS):
        raise Refusal("cms.header_length", f"{begin} > {len(signed)}")
    return signed[_LENGTH_OCTETS:begin], signed[begin:]
