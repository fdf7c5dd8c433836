"""Signed tree heads as text that people can carry: C2SP tlog-checkpoint in a C2SP signed note, by Ed25519 or by SM2.

yongtong.example/log
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— yongtong.example/log Az3grlgtzPICa5OS8npV…

The note format assigns SM2 no type, so its type is the one kept for such, 0xff, and its object identifier as a URN:

    key id      SHA-256(name ‖ 0x0A ‖ 0xff ‖ "urn:oid:1.2.156.10197.1.501" ‖ x ‖ y), the first 4 octets
    signature   r ‖ s over the text, by SM3 with user id 1234567812345678
"""

import base64
import hashlib
from typing import Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from security.errors import Misconfigured, Refusal
from security.keys import PublicKey, SigningKey, kind_of, verify_signature
from security.merkle import EMPTY_ROOT
from security.sm2 import Sm2PublicKey
from security.suites import SM2_WITH_SM3

MOST_CHARACTERS = 65_536  # room for the sixteen signatures that a verifier must accept
_ED25519 = b"\x01"  # the note format's identifier of plain Ed25519
_SM2 = b"\xff" + SM2_WITH_SM3.encode()
_DASH = "\N{EM DASH}"


class Checkpoint(msgspec.Struct, frozen=True):
    """A tree head: `size` leaves under `root` (32 octets) in the log named `origin`."""

    origin: str
    size: int
    root: bytes


def note_name(origin: str) -> str:
    """The origin, if it can name a log and its key. Raises Misconfigured."""
    if not origin or any(c.isspace() or c == "+" or ord(c) < 0x20 for c in origin):
        raise Misconfigured(
            "config.setting", f"origin {origin!r} is empty or has a space, a plus or a control character"
        )
    return origin


def key_id(origin: str, public_key: PublicKey) -> bytes:
    """The four octets by which a note names its key: SHA-256(name ‖ 0x0A ‖ type ‖ public key), cut."""
    type_octets = _SM2 if isinstance(public_key, Sm2PublicKey) else _ED25519
    return hashlib.sha256(origin.encode() + b"\n" + type_octets + log_key_octets(public_key)).digest()[:4]


def log_key_octets(public_key: PublicKey) -> bytes:
    """The 32 octets of a log's Ed25519 key, or the 64 of its SM2 point. Raises Misconfigured for any other kind."""
    if isinstance(public_key, Ed25519PublicKey):
        return public_key.public_bytes_raw()
    if isinstance(public_key, Sm2PublicKey):
        return public_key.point
    raise Misconfigured("config.key", "a log signs its checkpoints with Ed25519 or SM2")


def log_key_of(kind: Literal["EdDSA", "SM2"], octets: bytes) -> PublicKey:
    """The log's key again from those octets. Raises ValueError."""
    return Sm2PublicKey(octets) if kind == "SM2" else Ed25519PublicKey.from_public_bytes(octets)


def sign_checkpoint(origin: str, size: int, root: bytes, *keys: SigningKey) -> str:
    """The signed note, a line a key. By Ed25519 the same head gives the same text.

    keys: the one in force, and at the first head under it the former one too

    Raises Misconfigured for another kind of key.
    """
    text = f"{origin}\n{size}\n{_base64(root)}\n"
    signed = [key_id(note_name(origin), key.public_key) + key.sign(text.encode()) for key in keys]
    return f"{text}\n" + "".join(f"{_DASH} {origin} {_base64(octets)}\n" for octets in signed)


def open_checkpoint(text: str, origin: str, public_key: PublicKey) -> Checkpoint:
    """The tree head of a note that public_key signed for origin. Raises Refusal `audit.checkpoint_invalid`.

    Signatures of others (witnesses) are left alone; extension lines are refused, since this log writes none.
    """
    body, blank, signatures = text.rpartition("\n\n")
    if len(text) > MOST_CHARACTERS or not blank or not signatures.endswith("\n"):
        raise _invalid("not a signed note")
    if any(ord(c) < 0x20 and c != "\n" for c in text):
        raise _invalid("control character")
    body += "\n"
    _verify(body, signatures[:-1].split("\n"), origin, public_key)
    # Nothing is read of the text before its signature holds.
    lines = body[:-1].split("\n")
    if len(lines) != 3 or lines[0] != origin:
        raise _invalid("the text is not origin, size and root")
    if not (lines[1].isascii() and lines[1].isdigit()) or str(int(lines[1])) != lines[1]:
        raise _invalid("size is not a plain decimal number")
    root = _unbase64(lines[2])
    if len(root) != 32:
        raise _invalid("root is not 32 octets")
    if lines[1] == "0" and root != EMPTY_ROOT:  # one root is of the empty log, and every log begins with it
        raise _invalid("a root over no entries that is not the empty log's")
    return Checkpoint(origin, int(lines[1]), root)


def _verify(body: str, lines: list[str], origin: str, public_key: PublicKey) -> None:
    if not isinstance(public_key, Ed25519PublicKey | Sm2PublicKey):
        raise _invalid("the log's key is neither Ed25519 nor SM2")
    name = key_id(origin, public_key)
    ours = 0
    for line in lines:
        parts = line.split(" ")
        if len(parts) != 3 or parts[0] != _DASH or not parts[1]:
            raise _invalid("a signature line is malformed")
        signature = _unbase64(parts[2])
        if parts[1] != origin or signature[:4] != name:
            continue
        try:
            verify_signature(public_key, kind_of(public_key), signature[4:], body.encode())
        except Refusal as problem:
            raise _invalid("the log's signature does not hold") from problem
        ours += 1
    if not ours:
        raise _invalid("not signed by the log's key")


def _base64(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")


def _unbase64(text: str) -> bytes:
    try:
        octets = base64.b64decode(text, validate=True)
    except ValueError as problem:
        raise _invalid("not base64") from problem
    if _base64(octets) != text:
        raise _invalid("base64 is not canonical")
    return octets


def _invalid(detail: str) -> Refusal:
    return Refusal("audit.checkpoint_invalid", detail)
