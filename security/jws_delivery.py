"""The JWS envelope of a delivery (MQTT, REST): opened strictly, verified against an enrolled certificate, and signed.

Flattened JWS (RFC 7515 §7.2.2) over the content's octets, whatever they are. All that decides stands in the protected
header: exactly `alg typ kid x5t#S256 iss aud mid cty feed iat dig`.

    kid, x5t#S256   SHA-256 of the signing certificate, in hex and in base64url
    iss, aud        bureau code of the sender; name of the bus
    mid, cty, feed  message id, content type, feed
    iat             when it was signed, whole seconds since 1970 UTC
    dig             `SHA-256:` and the content's digest in lower-case hex
"""

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from security.errors import Refusal
from security.jose import Doubled, Members, b64url, strict_object, unb64url
from security.jws import jcs
from security.keys import SigningKey, verify_signature
from security.message import Digest, EnrolledCertificate, Principal, sha256

TYP: Final = "yt-delivery+jws"
MOST_BYTES: Final = 1 << 20
SKEW: Final = timedelta(minutes=5)
LAST_SECOND: Final = 253_402_300_799  # of the year 9999: what a datetime can say

# Members and the form of each; message id, feed and bureau as the XSD of the SOAP door has them.
_OUTER: Final = ("payload", "protected", "signature")
_FORMS: Final[Mapping[str, re.Pattern[str]]] = {
    "alg": re.compile(r"ES256|PS256|RS256|EdDSA"),
    "typ": re.compile(r"[!-~]{1,64}"),
    "kid": re.compile(r"[0-9a-f]{64}"),
    "x5t#S256": re.compile(r"[A-Za-z0-9_\-]{43}"),
    "iss": re.compile(r"[a-z0-9][a-z0-9\-]{0,63}"),
    "aud": re.compile(r"[!-~]{1,128}"),
    "mid": re.compile(r"[A-Za-z0-9._:@+\-]{1,128}"),
    "cty": re.compile(r"[!-~ ]{1,128}"),
    "feed": re.compile(r"[a-z0-9][a-z0-9\-]{0,63}"),
    "dig": re.compile(r"SHA-256:[0-9a-f]{64}"),
}
_HEADER: Final = frozenset({*_FORMS, "iat"})


class JwsEnvelope(msgspec.Struct, frozen=True):
    """An envelope whose shape is right and of which nothing is believed yet.

    certificate: SHA-256 of the certificate that it says it was signed with, lower-case hex
    digest:      of the content, as the header states it
    signed:      the octets under `signature`
    """

    algorithm: str
    certificate: str
    sender: str
    recipient: str
    message_id: str
    content_type: str
    feed: str
    signed_at: datetime
    digest: Digest
    content: bytes
    signed: bytes
    signature: bytes

    @property
    def signature_digest(self) -> str:
        """SHA-256 of the signature's octets, lower-case hex: names this one envelope in answers."""
        return hashlib.sha256(self.signature).hexdigest()


class VerifiedJws(msgspec.Struct, frozen=True):
    """An envelope whose signature holds: all that it says was said by the signer."""

    envelope: JwsEnvelope
    signer: Principal

    @property
    def recipient(self) -> str:
        """The bus that it was signed for."""
        return self.envelope.recipient

    @property
    def signature_digest(self) -> str:
        """SHA-256 of the signature's octets, lower-case hex."""
        return self.envelope.signature_digest


def open_delivery(octets: bytes) -> JwsEnvelope:
    """The envelope, if it has the one shape that is read.

    Raises Refusal, the member named in its detail: `jws.too_large`, `jws.not_json`, `jws.member_doubled`,
    `jws.member_refused`, `jws.member_missing`, `jws.member_form`, `jws.base64url`, `jws.not_a_delivery`,
    `jws.keys_differ`.
    """
    # (1) Bounded, then strict JSON: a member doubled at any depth is two messages in one.
    if len(octets) > MOST_BYTES:
        raise Refusal("jws.too_large", f"{len(octets)} > {MOST_BYTES}")
    outer = _members(octets, "envelope")
    # (2) Exactly these members: an unprotected `header`, `signatures`, anything unknown is neither obeyed nor ignored.
    _exactly(outer, frozenset(_OUTER), "")
    texts = {name: _text(outer, name) for name in _OUTER}
    parts = {name: _octets(text, name) for name, text in texts.items()}
    header = _members(parts["protected"], "protected")
    # (3) The same of the protected header: `crit`, `b64`, `zip`, `jwk`, `jku`, `x5u`, `x5c` have no say here.
    _exactly(header, _HEADER, "protected.")
    for name, form in _FORMS.items():
        if not form.fullmatch(_text(header, name)):
            raise Refusal("jws.member_form", name)
    # (4) A receipt or report signed by the same key is no delivery.
    if header["typ"] != TYP:
        raise Refusal("jws.not_a_delivery", header["typ"])
    # (5) Both names of the key are of one certificate.
    if _octets(header["x5t#S256"], "x5t#S256").hex() != header["kid"]:
        raise Refusal("jws.keys_differ")
    return JwsEnvelope(
        algorithm=header["alg"],
        certificate=header["kid"],
        sender=header["iss"],
        recipient=header["aud"],
        message_id=header["mid"],
        content_type=header["cty"],
        feed=header["feed"],
        signed_at=_instant(header["iat"]),
        digest=Digest("SHA-256", bytes.fromhex(header["dig"].removeprefix("SHA-256:"))),
        content=parts["payload"],
        signed=f"{texts['protected']}.{texts['payload']}".encode("ascii"),
        signature=parts["signature"],
    )


def verify_delivery(envelope: JwsEnvelope, certificate: EnrolledCertificate) -> VerifiedJws:
    """What the certificate's holder signed. The key fixes the algorithm; the header's `alg` only has to agree.

    Raises Refusal: `jws.keys_differ`, `signature.algorithm_not_of_key`, `signature.invalid`.
    """
    if envelope.certificate != certificate.fingerprint:
        raise Refusal("jws.keys_differ", certificate.fingerprint[:16])
    verify_signature(certificate.der, envelope.algorithm, envelope.signature, envelope.signed)
    return VerifiedJws(envelope, Principal(bureau=certificate.bureau, certificate=certificate.fingerprint))


def check_age(envelope: JwsEnvelope, now: datetime, max_age: timedelta) -> None:
    """Return if it was signed at most 5 minutes ahead of our clock and no longer ago than max_age, the feed's.

    Raises Refusal: `signature.future`, `signature.stale`.
    """
    if envelope.signed_at > now + SKEW:
        raise Refusal("signature.future", f"signed {envelope.signed_at.isoformat()}, our clock {now.isoformat()}")
    if envelope.signed_at < now - max_age:
        raise Refusal("signature.stale", f"signed {envelope.signed_at.isoformat()}, our clock {now.isoformat()}")


def sign_delivery(
    content: bytes,
    key: SigningKey,
    *,
    sender: str,
    recipient: str,
    feed: str,
    message_id: str,
    content_type: str,
    signed_at: datetime,
) -> bytes:
    """The envelope's octets, themselves canonical JSON. key: with its certificate, which is named in the header.

    Raises Refusal `jws.too_large`, or what `open_delivery` would raise for names of another form.
    """
    header = {
        "alg": key.algorithm,
        "typ": TYP,
        "kid": key.fingerprint,
        "x5t#S256": b64url(bytes.fromhex(key.fingerprint)),
        "iss": sender,
        "aud": recipient,
        "mid": message_id,
        "cty": content_type,
        "feed": feed,
        "iat": int(signed_at.timestamp()),
        "dig": f"SHA-256:{sha256(content).hex}",
    }
    protected, payload = b64url(jcs(header)), b64url(content)
    signature = key.sign(f"{protected}.{payload}".encode("ascii"))
    octets = jcs({"payload": payload, "protected": protected, "signature": b64url(signature)})
    open_delivery(octets)  # nothing leaves that would be refused at the door
    return octets


def _members(octets: bytes, what: str) -> Members:
    try:
        return strict_object(octets)
    except Doubled as problem:
        raise Refusal("jws.member_doubled", what) from problem
    except ValueError as problem:
        raise Refusal("jws.not_json", what) from problem


def _exactly(members: Members, names: frozenset[str], place: str) -> None:
    if unknown := sorted(set(members) - names):
        raise Refusal("jws.member_refused", f"{place}{unknown[0]!r:.40}")
    if missing := sorted(names - set(members)):
        raise Refusal("jws.member_missing", f"{place}{missing[0]}")


def _text(members: Members, name: str) -> str:
    value = members[name]
    if not isinstance(value, str):
        raise Refusal("jws.member_form", name)
    return value


def _octets(text: str, name: str) -> bytes:
    try:
        return unb64url(text)
    except ValueError as problem:
        raise Refusal("jws.base64url", name) from problem


def _instant(seconds: Any) -> datetime:
    if type(seconds) is not int or not 0 <= seconds <= LAST_SECOND:  # a bool is an int, too
        raise Refusal("jws.member_form", "iat")
    return datetime.fromtimestamp(seconds, UTC)
