"""The JWS envelope of a delivery (MQTT, REST): opened strictly, verified against an enrolled certificate, and signed.

Flattened JWS (RFC 7515 §7.2.2) over the content's octets, whatever they are. All that decides stands in the protected
header: exactly `alg typ kid x5t#S256 iss aud mid cty feed iat dig`, and perhaps `seq`, of which
`security.signed_delivery` says what they mean but for

    alg             `ES256`, `PS256`, `RS256`, `EdDSA`: the one of the certificate's key
    kid, x5t#S256   SHA-256 of the signing certificate, in hex and in base64url
"""

import re
from typing import ClassVar, Final, Unpack

from security.errors import Refusal
from security.jose import b64url, unb64url
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
    exactly,
    header_of,
    members,
    read_header,
    said,
    text,
)

_OUTER: Final = ("payload", "protected", "signature")
_FORMS: Final = {
    "alg": re.compile(r"ES256|PS256|RS256|EdDSA"),
    "kid": re.compile(r"[0-9a-f]{64}"),
    "x5t#S256": re.compile(r"[A-Za-z0-9_\-]{43}"),
    **FORMS,
}


class JwsEnvelope(SignedDelivery, frozen=True, kw_only=True):
    """A JWS. certificate: SHA-256 of the certificate that it says it was signed with, lower-case hex."""

    form: ClassVar[Kind] = "jws"

    certificate: str


def open_delivery(octets: bytes) -> JwsEnvelope:
    """The envelope, if it has the one shape that is read.

    Raises Refusal, the member named in its detail: `jws.too_large`, `jws.not_json`, `jws.member_doubled`,
    `jws.member_refused`, `jws.member_missing`, `jws.member_form`, `jws.base64url`, `jws.not_a_delivery`,
    `jws.keys_differ`.
    """
    # (1) Bounded, then strict JSON: a member doubled at any depth is two messages in one.
    check_size(octets, "jws")
    outer = members(octets, "jws", "envelope")
    # (2) Exactly these members: an unprotected `header`, `signatures`, anything unknown is neither obeyed nor ignored.
    exactly(outer, frozenset(_OUTER), "jws", "")
    texts = {name: text(outer, name, "jws") for name in _OUTER}
    parts = {name: _octets(text, name) for name, text in texts.items()}
    # (3) The same of the protected header: `crit`, `b64`, `zip`, `jwk`, `jku`, `x5u`, `x5c` have no say here.
    header = read_header(parts["protected"], _FORMS, "jws", "protected")
    # (4) Both names of the key are of one certificate.
    if _octets(header["x5t#S256"], "x5t#S256").hex() != header["kid"]:
        raise Refusal("jws.keys_differ")
    return JwsEnvelope(
        **said(header, "jws"),
        algorithm=header["alg"],
        certificate=header["kid"],
        content=parts["payload"],
        signed=f"{texts['protected']}.{texts['payload']}".encode("ascii"),
        signature=parts["signature"],
    )


def verify_delivery(envelope: JwsEnvelope, certificate: EnrolledCertificate) -> VerifiedDelivery:
    """What the certificate's holder signed. The key fixes the algorithm; the header's `alg` only has to agree.

    Raises Refusal: `jws.keys_differ`, `signature.algorithm_not_of_key`, `signature.invalid`.
    """
    if envelope.certificate != certificate.fingerprint:
        raise Refusal("jws.keys_differ", certificate.fingerprint[:16])
    verify_signature(certificate.der, envelope.algorithm, envelope.signature, envelope.signed)
    return VerifiedDelivery(envelope, Principal(bureau=certificate.bureau, certificate=certificate.fingerprint))


def sign_delivery(content: bytes, key: SigningKey, **names: Unpack[Names]) -> bytes:
    """The envelope's octets, themselves canonical JSON. key: with its certificate, which is named in the header.

    Raises Refusal `jws.too_large`, or what `open_delivery` would raise for names of another form.
    """
    return _sealed(in_memory(content), content, key, names)


def sign_apart(content: Content, key: SigningKey, **names: Unpack[Names]) -> bytes:
    """The same of content that lies beside its envelope, as in a package; it may be of any size."""
    return _sealed(content, b"", key, names)


def _sealed(content: Content, carried: bytes, key: SigningKey, names: Names) -> bytes:
    header = header_of(content, "jws", "SHA-256", **names)
    header |= {"alg": key.algorithm, "kid": key.fingerprint, "x5t#S256": b64url(bytes.fromhex(key.fingerprint))}
    protected, payload = b64url(jcs(header)), b64url(carried)
    signature = key.sign(f"{protected}.{payload}".encode("ascii"))
    octets = jcs({"payload": payload, "protected": protected, "signature": b64url(signature)})
    open_delivery(octets)  # nothing leaves that would be refused at the door
    return octets


def _octets(text: str, name: str) -> bytes:
    try:
        return unb64url(text)
    except ValueError as problem:
        raise Refusal("jws.base64url", name) from problem
