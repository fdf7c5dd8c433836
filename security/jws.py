"""Signed JSON documents: flattened JWS (RFC 7515 §7.2.2) over a canonical payload (RFC 8785).

Documents hold strings, integers, lists and objects only: no number that two languages print differently, no null, no
boolean. So the payload's octets follow from the document, and a reader in any language can make them again.
Protected header of documents that the bus issues: `alg typ kid`, `x5t#S256` when the key has a certificate, `iat` when
a time is given; nothing else is written and nothing else is read. By SM2 `alg` is `urn:oid:1.2.156.10197.1.501`, for
JOSE has no name for it (docs/adr/0018); such a delivery is refused, a bureau with an SM2 key sends CMS.
"""

import functools
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from security.errors import Refusal
from security.jose import Members, b64url, strict_object, unb64url
from security.keys import PublicKey, SigningKey, spki, verify_signature
from security.message import sha256
from security.suites import document_algorithm, document_name

MOST_BYTES = 1 << 20
MOST_DEPTH = 32
_SAFE_INTEGER = (1 << 53) - 1
_HEADER = {"alg", "typ", "kid"}
_HEADER_OPTIONAL = {"x5t#S256", "iat"}

Document = Members  # `jcs` and `open_document` check every node
_encode = msgspec.json.Encoder().encode


def jcs(document: Mapping[str, Any]) -> bytes:
    """The canonical octets of a document (RFC 8785). Raises ValueError for anything but str, int, list, dict.

    Integers lie within ±(2^53 - 1); strings are Unicode without lone surrogates; names sort by UTF-16 code units.
    """
    return _encode(_ordered(document, 0))


def _ordered(value: object, depth: int) -> object:
    kind = type(value)
    if kind is str:
        return value
    if kind is int:
        if abs(value) > _SAFE_INTEGER:  # type: ignore[arg-type]  # an int, by the line above
            raise ValueError("an integer beyond 2^53 - 1 is not the same number everywhere: write a string")
        return value
    if depth >= MOST_DEPTH:
        raise ValueError(f"nested deeper than {MOST_DEPTH}")
    if isinstance(value, dict):
        if not set(map(type, value)) <= {str}:
            raise ValueError("a member name is not a string")
        names = sorted(value) if all(map(str.isascii, value)) else sorted(value, key=lambda n: n.encode("utf-16-be"))
        # Most leaves are texts, and a call for each would be most of the time.
        return {name: v if type(v := value[name]) is str else _ordered(v, depth + 1) for name in names}
    if isinstance(value, (list, tuple)):
        return [v if type(v) is str else _ordered(v, depth + 1) for v in value]
    raise ValueError(f"a document holds strings, integers, lists and objects, not {kind.__name__}")


def sign_document(document: Mapping[str, Any], typ: str, key: SigningKey, iat: datetime | None = None) -> bytes:
    """The document signed: a flattened JWS, itself canonical. The same arguments give the same octets.

    typ: `yt-receipt+jws`, `yt-report+jws`, `yt-refusal+jws`
    iat: when it was issued; whole seconds are kept
    """
    protected, payload = _protected(typ, key, None if iat is None else int(iat.timestamp())), b64url(jcs(document))
    signature = key.sign(f"{protected}.{payload}".encode("ascii"))
    return jcs({"payload": payload, "protected": protected, "signature": b64url(signature)})


@functools.lru_cache(maxsize=64)
def _protected(typ: str, key: SigningKey, iat: int | None) -> str:
    """The protected header's text; of receipts it is the same for all."""
    header: Document = {"alg": document_name(key.algorithm), "typ": typ, "kid": key.fingerprint}
    if key.certificate_der is not None:
        header["x5t#S256"] = b64url(bytes.fromhex(key.fingerprint))
    if iat is not None:
        header["iat"] = iat
    return b64url(jcs(header))


def open_document(octets: bytes, key: PublicKey | bytes, typ: str, most_bytes: int = MOST_BYTES) -> Document:
    """The document, once its signature by `key` holds.

    key: the signer's public key, or the DER of its certificate; the document's header chooses nothing
    typ: what it must be
    most_bytes: of the whole; a list of many parts may be longer than an answer

    Raises Refusal: `signature.document_not_readable` (not strict flattened JWS with a canonical payload),
    `signature.document_of_other_kind` (another `typ`), `signature.certificate_differs` (names another key),
    `signature.algorithm_not_of_key`, `signature.invalid`.
    """
    # (1) Strict JSON, exactly three members, no member doubled at any depth: two readers may not see two documents.
    if len(octets) > most_bytes:
        raise _unreadable(f"more than {most_bytes} bytes")
    outer = _strict_json(octets)
    if set(outer) != {"payload", "protected", "signature"} or not all(isinstance(v, str) for v in outer.values()):
        raise _unreadable("members must be exactly payload, protected, signature")
    # (2) Canonical base64url only: the octets under the signature have one spelling.
    header = _strict_json(_unb64(outer["protected"]))
    payload = _unb64(outer["payload"])
    # (3) No `crit`, `jwk`, `jku`, `x5c`, `b64`: a header member that we do not know cannot be obeyed or ignored safely.
    if not _HEADER <= set(header) <= _HEADER | _HEADER_OPTIONAL:
        raise _unreadable("protected header has other members than alg, typ, kid, x5t#S256, iat")
    if not all(isinstance(header.get(name, ""), str) for name in (*_HEADER, "x5t#S256")):
        raise _unreadable("a protected header member has another type")
    if header["typ"] != typ:
        raise Refusal("signature.document_of_other_kind", f"{header['typ']!r:.40} where {typ} was expected")
    _check_names_key(header, key)
    # (4) The signature, by the key we were handed.
    signed = f"{outer['protected']}.{outer['payload']}".encode("ascii")
    verify_signature(key, document_algorithm(header["alg"]), _unb64(outer["signature"]), signed)
    # (5) The payload is canonical, so that its digest is the document's digest.
    document = _strict_json(payload)
    if _canonical(document) != payload:
        raise _unreadable("payload is not canonical JSON (RFC 8785)")
    return document


def _check_names_key(header: Document, key: PublicKey | bytes) -> None:
    """A header that names another key or certificate is refused even where the signature would hold."""
    thumbprint = header.get("x5t#S256")
    if isinstance(key, bytes):
        digest = sha256(key)
        named = (header["kid"], thumbprint) == (digest.hex, b64url(digest.value))
    else:
        # A bare key is all the reader has: a certificate named in the header cannot be checked, and decides nothing.
        named = thumbprint is not None or header["kid"] == sha256(spki(key)).hex
    if not named:
        raise Refusal("signature.certificate_differs", f"{header['kid']!r:.80}")


def key_named(octets: bytes, most_bytes: int = MOST_BYTES) -> str:
    """The `kid` that a signed document names, unverified: a hint for choosing among trust anchors, never a decision."""
    outer = _strict_json(octets[: most_bytes + 1])
    protected = outer.get("protected")
    if not isinstance(protected, str):
        raise _unreadable("no protected header")
    kid = _strict_json(_unb64(protected)).get("kid")
    if not isinstance(kid, str):
        raise _unreadable("no kid")
    return kid


def _strict_json(octets: bytes) -> Document:
    try:
        return strict_object(octets)
    except ValueError as problem:
        raise _unreadable(f"not strict JSON: {problem}"[:160]) from problem


def _canonical(document: Document) -> bytes:
    try:
        return jcs(document)
    except (ValueError, UnicodeError) as problem:
        raise _unreadable(str(problem)) from problem


def _unb64(text: str) -> bytes:
    try:
        return unb64url(text)
    except ValueError as problem:
        raise _unreadable("not canonical base64url") from problem


def _unreadable(detail: str) -> Refusal:
    return Refusal("signature.document_not_readable", detail)
