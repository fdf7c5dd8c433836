"""One signature over several documents: over the root of a small tree of them, with each one's path beside it.

A document signed with others is a flattened JWS whose payload is the tree's root; three unsigned members stand beside
it, and lead from the document to that root. All of it is canonical JSON (RFC 8785), so that it has one spelling:

    payload     of {"root": hex, "size": how many documents, "v": 1}
    protected   as `sign_document` has it, with a `typ` of its own for each kind of document
    document    base64url of the document, canonical; its leaf is SHA-256(0x00 ‖ those octets)
    index       where it stands among them, from 0
    path        hex, from its sibling upwards; the tree has the shape of RFC 6962

Documents of one tree are of one kind. A lone document is signed as it is: two forms of the same never both exist.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from security import merkle
from security.errors import Refusal
from security.jose import b64url, strict_object, unb64url
from security.jws import MOST_BYTES, Document, jcs, open_document, sign_document
from security.keys import SigningKey

# The `typ` of a root over documents, by that of such a document alone: neither can be shown as the other.
TOGETHER: Final[Mapping[str, str]] = {"yt-receipt+jws": "yt-receipts+jws", "yt-report+jws": "yt-reports+jws"}
FEWEST: Final = 2
_BESIDE: Final = ("document", "index", "path")
_SIGNED: Final = ("payload", "protected", "signature")
_HASH: Final = re.compile("[0-9a-f]{64}")


def sign_together(documents: Sequence[Mapping[str, Any]], typ: str, key: SigningKey) -> list[bytes]:
    """Each document signed, in their order: one signature for all where there are two or more.

    typ: of one such document alone
    """
    if len(documents) < FEWEST:
        return [sign_document(document, typ, key) for document in documents]
    plain = [jcs(document) for document in documents]
    levels = _levels([merkle.leaf_hash(octets) for octets in plain])
    root = {"root": levels[-1][0].hex(), "size": len(plain), "v": 1}
    signed = strict_object(sign_document(root, TOGETHER[typ], key))
    return [
        jcs({"document": b64url(octets), "index": index, "path": _path(levels, index), **signed})
        for index, octets in enumerate(plain)
    ]


def is_together(octets: bytes) -> bool:
    """Whether these are octets of a document signed with others: its first member, in canonical order, says so."""
    return octets.startswith(b'{"document":')


def unverified(octets: bytes) -> Document:
    """The document inside, signed alone or with others, for who signed it: nothing of it is checked."""
    outer = strict_object(octets)
    return strict_object(_unb64(outer.get("document", outer.get("payload"))))


def open_signed(octets: bytes, certificate: bytes, typ: str) -> Document:
    """The document, signed alone or together with others, once the signature by the certificate's key holds.

    certificate: DER; typ: what one such document alone must be

    Raises Refusal as `open_document` does; `signature.invalid` too where the document is not under the signed root.
    """
    return _open_together(octets, certificate, typ) if is_together(octets) else open_document(octets, certificate, typ)


def _open_together(octets: bytes, certificate: bytes, typ: str) -> Document:
    # (1) Exactly six members, none doubled, in the one spelling.
    if len(octets) > MOST_BYTES:
        raise _unreadable(f"more than {MOST_BYTES} bytes")
    outer = _strict(octets)
    if set(outer) != {*_SIGNED, *_BESIDE} or _canonical(outer) != octets:
        raise _unreadable("members must be exactly document, index, path, payload, protected, signature, canonical")
    # (2) The root, by the key we were handed; its `typ` says of what kind every document under it is.
    size, root = _signed_root(jcs({name: outer[name] for name in _SIGNED}), certificate, TOGETHER[typ])
    # (3) The document under that root, at its place: a leaf's hash begins with 0x00, so no inner node can pose as one.
    document, path = _unb64(outer["document"]), outer["path"]
    if type(outer["index"]) is not int or not isinstance(path, list) or not all(map(_is_hash, path)):
        raise _unreadable("index or path has another form")
    hashes = [bytes.fromhex(node) for node in path]
    if not merkle.verify_inclusion(merkle.leaf_hash(document), outer["index"], size, hashes, root):
        raise Refusal("signature.invalid", "the document is not under the signed root")
    members = _strict(document)
    if _canonical(members) != document:
        raise _unreadable("the document is not canonical JSON (RFC 8785)")
    return members


@lru_cache(maxsize=64)  # a batch is read document by document, and its signature checked once
def _signed_root(signed: bytes, certificate: bytes, typ: str) -> tuple[int, bytes]:
    said = open_document(signed, certificate, typ)
    size, root = said.get("size"), said.get("root")
    if set(said) != {"root", "size", "v"} or said["v"] != 1 or type(size) is not int or not _is_hash(root):
        raise _unreadable("not a root over documents")
    if size < FEWEST:
        raise _unreadable("a lone document is signed as it is")
    return size, bytes.fromhex(str(root))


def _levels(hashes: list[bytes]) -> list[list[bytes]]:
    """The tree, level by level, where one without a partner goes up as it is (RFC 6962's shape)."""
    levels = [hashes]
    while len(levels[-1]) > 1:
        below = levels[-1]
        alone = below[-1:] if len(below) & 1 else []
        pairs = zip(below[::2], below[1::2], strict=False)
        levels.append([merkle.node_hash(left, right) for left, right in pairs] + alone)
    return levels


def _path(levels: list[list[bytes]], index: int) -> list[str]:
    """The siblings from leaf to root; where there is none, the node went up alone."""
    places = [(level, (index >> height) ^ 1) for height, level in enumerate(levels[:-1])]
    return [level[place].hex() for level, place in places if place < len(level)]


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and _HASH.fullmatch(value) is not None


def _strict(octets: bytes) -> Document:
    try:
        return strict_object(octets)
    except ValueError as problem:
        raise _unreadable(f"not strict JSON: {problem}"[:160]) from problem


def _canonical(document: Document) -> bytes:
    try:
        return jcs(document)
    except (ValueError, UnicodeError) as problem:
        raise _unreadable(str(problem)) from problem


def _unb64(text: object) -> bytes:
    try:
        return unb64url(text if isinstance(text, str) else "!")
    except ValueError as problem:
        raise _unreadable("not canonical base64url") from problem


def _unreadable(detail: str) -> Refusal:
    return Refusal("signature.document_not_readable", detail)
