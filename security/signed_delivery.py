"""What every envelope of a delivery states under its signature, whatever the envelope: JWS or CMS.

The header is one JSON object. Members that both kinds have:

    typ             what was signed: `yt-delivery+jws`, `yt-delivery+cms`
    iss, aud        bureau code of the sender; name of the bus
    mid, cty, feed  message id, content type, feed
    iat             when it was signed, whole seconds since 1970 UTC
    dig             `SHA-256:` and the content's digest in lower-case hex; in a CMS it may be `SM3:`

and one that need not stand there:

    seq             which delivery of this sender to this feed it is, counted from 1: what is lost leaves a gap

Of a package the content lies beside the envelope, which then carries none; `dig` is of that content.

Codes of refusals begin with the kind of envelope, here `kind`: `jws.member_doubled`, `cms.member_doubled`.
"""

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final, Literal, NotRequired, TypedDict, Unpack

import msgspec

from security.errors import Refusal
from security.jose import Doubled, Members, strict_object
from security.message import HASHES, LAST_SEQUENCE, Content, Digest, Hash, Principal

Kind = Literal["jws", "cms"]

MOST_BYTES: Final = 1 << 20  # of an envelope of either kind
SKEW: Final = timedelta(minutes=5)
LAST_SECOND: Final = 253_402_300_799  # of the year 9999: what a datetime can say

# Members and the form of each; message id, feed and bureau as the XSD of the SOAP door has them.
FORMS: Final[Mapping[str, re.Pattern[str]]] = {
    "typ": re.compile(r"[!-~]{1,64}"),
    "iss": re.compile(r"[a-z0-9][a-z0-9\-]{0,63}"),
    "aud": re.compile(r"[!-~]{1,128}"),
    "mid": re.compile(r"[A-Za-z0-9._:@+\-]{1,128}"),
    "cty": re.compile(r"[!-~ ]{1,128}"),
    "feed": re.compile(r"[a-z0-9][a-z0-9\-]{0,63}"),
    "dig": re.compile(r"SHA-256:[0-9a-f]{64}"),
}


OPTIONAL: Final = frozenset({"seq"})
HIGHEST: Final = "highest used"  # before the number in the detail of `sequence.used`: a sender may go on above it


class Names(TypedDict):
    """What whoever signs a delivery says of it. signed_at: aware; whole seconds are kept. sequence: from 1, or None."""

    sender: str
    recipient: str
    feed: str
    message_id: str
    content_type: str
    signed_at: datetime
    sequence: NotRequired[int | None]


class SignedDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """An envelope whose shape is right and of which nothing is believed yet.

    digest:    of the content, as the header states it
    algorithm: of the signature, as the message says
    signed:    the octets under `signature`
    sequence:  None where it states none
    """

    form: ClassVar[Kind]

    sender: str
    recipient: str
    message_id: str
    content_type: str
    feed: str
    signed_at: datetime
    digest: Digest
    content: bytes
    algorithm: str
    signed: bytes
    signature: bytes
    sequence: int | None = None

    @property
    def signature_digest(self) -> str:
        """SHA-256 of the signature's octets, lower-case hex: names this one envelope in answers."""
        return hashlib.sha256(self.signature).hexdigest()


class VerifiedDelivery(msgspec.Struct, frozen=True):
    """An envelope whose signature holds: all that it says was said by the signer."""

    envelope: SignedDelivery
    signer: Principal

    @property
    def recipient(self) -> str:
        """The bus that it was signed for."""
        return self.envelope.recipient

    @property
    def signature_digest(self) -> str:
        """SHA-256 of the signature's octets, lower-case hex."""
        return self.envelope.signature_digest


def check_size(octets: bytes, kind: Kind) -> None:
    """Return if an envelope, or a content that is to go into one, is not too large. Raises Refusal `….too_large`."""
    if len(octets) > MOST_BYTES:
        raise Refusal(f"{kind}.too_large", f"{len(octets)} > {MOST_BYTES}")


def check_age(envelope: SignedDelivery, now: datetime, max_age: timedelta) -> None:
    """Return if it was signed at most 5 minutes ahead of our clock and no longer ago than max_age, the feed's.

    Raises Refusal: `signature.future`, `signature.stale`.
    """
    if envelope.signed_at > now + SKEW:
        raise Refusal("signature.future", f"signed {envelope.signed_at.isoformat()}, our clock {now.isoformat()}")
    if envelope.signed_at < now - max_age:
        raise Refusal("signature.stale", f"signed {envelope.signed_at.isoformat()}, our clock {now.isoformat()}")


def read_header(octets: bytes, forms: Mapping[str, re.Pattern[str]], kind: Kind, place: str) -> Members:
    """The header's members: exactly those of `forms`, each of its form, `iat`, and perhaps `seq`. place: its name in
    details.

    Raises Refusal `….not_json`, `….member_doubled`, `….member_refused`, `….member_missing`, `….member_form`,
    `….not_a_delivery`.
    """
    header = members(octets, kind, place)
    exactly(header, frozenset({*forms, "iat"}), kind, f"{place}.", OPTIONAL)
    for name, form in forms.items():
        if not form.fullmatch(text(header, name, kind)):
            raise Refusal(f"{kind}.member_form", name)
    # A receipt or report signed by the same key is no delivery, nor is what was signed for another kind of envelope.
    if header["typ"] != typ_of(kind):
        raise Refusal(f"{kind}.not_a_delivery", header["typ"])
    return header


def said(header: Members, kind: Kind) -> dict[str, Any]:
    """What a header that was read says, by the names of `SignedDelivery`."""
    algorithm, digest = header["dig"].split(":")
    return {
        "sender": header["iss"],
        "recipient": header["aud"],
        "message_id": header["mid"],
        "content_type": header["cty"],
        "feed": header["feed"],
        "signed_at": _instant(header["iat"], kind),
        "digest": Digest(HASHES[algorithm], bytes.fromhex(digest)),
        "sequence": _sequence(header["seq"], kind) if "seq" in header else None,
    }


def header_of(content: Content, kind: Kind, algorithm: Hash, **names: Unpack[Names]) -> Members:
    """The header of a delivery to be signed. algorithm: by which it states the content's digest."""
    digest = content.digest_by(algorithm)
    return {
        "typ": typ_of(kind),
        "iss": names["sender"],
        "aud": names["recipient"],
        "mid": names["message_id"],
        "cty": names["content_type"],
        "feed": names["feed"],
        "iat": int(names["signed_at"].timestamp()),
        "dig": f"{digest.algorithm}:{digest.hex}",
        **({} if (sequence := names.get("sequence")) is None else {"seq": sequence}),
    }


def typ_of(kind: Kind) -> str:
    """What a delivery in an envelope of this kind calls itself."""
    return f"yt-delivery+{kind}"


def members(octets: bytes, kind: Kind, what: str) -> Members:
    """The members of a strict JSON object. Raises Refusal `….member_doubled`, `….not_json`."""
    try:
        return strict_object(octets)
    except Doubled as problem:
        raise Refusal(f"{kind}.member_doubled", what) from problem
    except ValueError as problem:
        raise Refusal(f"{kind}.not_json", what) from problem


def exactly(
    found: Members, names: frozenset[str], kind: Kind, place: str, optional: frozenset[str] = frozenset()
) -> None:
    """Return if an object has these members and no other, but for optional ones. Raises Refusal `….member_refused`,
    `….member_missing`."""
    if unknown := sorted(set(found) - names - optional):
        raise Refusal(f"{kind}.member_refused", f"{place}{unknown[0]!r:.40}")
    if missing := sorted(names - set(found)):
        raise Refusal(f"{kind}.member_missing", f"{place}{missing[0]}")


def text(found: Members, name: str, kind: Kind) -> str:
    """A member that is a text. Raises Refusal `….member_form`."""
    value = found[name]
    if not isinstance(value, str):
        raise Refusal(f"{kind}.member_form", name)
    return value


def _instant(seconds: Any, kind: Kind) -> datetime:
    if type(seconds) is not int or not 0 <= seconds <= LAST_SECOND:  # a bool is an int, too
        raise Refusal(f"{kind}.member_form", "iat")
    return datetime.fromtimestamp(seconds, UTC)


def _sequence(number: Any, kind: Kind) -> int:
    if type(number) is not int or not 1 <= number <= LAST_SEQUENCE:
        raise Refusal(f"{kind}.member_form", "seq")
    return number
