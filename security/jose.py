"""JSON and base64url as JOSE writes them, read strictly: two readers may not see two documents in the same octets."""

import base64
import binascii
import json
from typing import Any

# From base64url to base64; what is of base64 alone becomes what neither knows.
_ALPHABET = str.maketrans("-_+/=", "+/!!!")
# A JSON object's members. Any is here because a JSON tree is recursive; whoever reads one checks what it takes.
Members = dict[str, Any]


class Doubled(ValueError):
    """A member stands twice in one object, at whatever depth."""


def strict_object(octets: bytes) -> Members:
    """The members of a JSON object (RFC 8259, UTF-8, no NaN). Raises Doubled; ValueError for anything else."""
    try:
        value = json.loads(octets.decode("utf-8"), object_pairs_hook=_no_doubles, parse_constant=_no_constant)
    except RecursionError as problem:
        raise ValueError("nested too deeply") from problem
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def b64url(octets: bytes) -> str:
    """Base64url without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode("ascii")


def unb64url(text: str) -> bytes:
    """The octets of base64url in its one canonical spelling. Raises ValueError."""
    octets = binascii.a2b_base64(text.translate(_ALPHABET) + "=" * (-len(text) % 4), strict_mode=True)
    whole = len(text) // 4 * 4
    if b64url(octets[whole // 4 * 3 :]) != text[whole:]:  # bits that no octet uses are zero
        raise ValueError("base64url is not canonical")
    return octets


def _no_doubles(pairs: list[tuple[str, Any]]) -> Members:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Doubled("a member is doubled")
    return members


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
