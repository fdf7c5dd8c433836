"""What a witness says of a checkpoint: C2SP tlog-cosignature v1, one more signature line in the same note.

    — witness.example key-id ‖ time ‖ signature

    key id      SHA-256(name ‖ 0x0A ‖ 0x04 ‖ public key), the first 4 octets
    time        seconds of the epoch, 8 octets, big-endian
    signature   Ed25519 over "cosignature/v1\\ntime " + decimal time + "\\n" + the note's text

It says: at that time this was the largest tree that I had seen of this log, and it continues all that I saw before.
"""

import base64
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from security.checkpoint import note_name
from security.errors import Misconfigured, Refusal
from security.keys import SigningKey

_TYPE: Final = b"\x04"
_DASH: Final = "\N{EM DASH}"
_SIGNATURE_BYTES: Final = 4 + 8 + 64


class Witness(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Somebody who watches the log. name: as in the note, without blanks; key: Ed25519, 32 octets in hex."""

    name: str
    key: str

    @property
    def public_key(self) -> Ed25519PublicKey:
        """The key. Raises Misconfigured."""
        try:
            return Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.key))
        except ValueError as problem:
            raise Misconfigured("config.key", f"witness {self.name}: key is no Ed25519 key in hex") from problem


class Cosignature(msgspec.Struct, frozen=True):
    """One that holds. line: as it stands in the note; at: aware, UTC, by the witness's clock."""

    witness: str
    line: str
    at: datetime


def cosign(checkpoint: str, name: str, key: SigningKey, now: datetime) -> str:
    """A witness's line for a checkpoint, without its end. Raises Misconfigured for another kind of key."""
    if not isinstance(key.public_key, Ed25519PublicKey):
        raise Misconfigured("config.key", "a witness signs with Ed25519")
    seconds = int(now.timestamp())
    id = _key_id(note_name(name), key.public_key)
    octets = id + seconds.to_bytes(8, "big") + key.sign(_message(note_text(checkpoint), seconds))
    return f"{_DASH} {name} {base64.b64encode(octets).decode('ascii')}"


def cosignatures(checkpoint: str, witnesses: Sequence[Witness]) -> list[Cosignature]:
    """The lines of a note that known witnesses signed, one a witness, by name.

    A line of somebody unknown is left alone; one that names a known witness and does not hold is refused.
    Raises Refusal `audit.cosignature_invalid`.
    """
    text, found = note_text(checkpoint), {}
    known = {(witness.name, _key_id(witness.name, witness.public_key)): witness for witness in witnesses}
    for line in checkpoint.rpartition("\n\n")[2].split("\n"):
        parts = line.split(" ")
        octets = _octets(parts[2]) if len(parts) == 3 and parts[0] == _DASH else b""
        witness = known.get((parts[1], octets[:4])) if octets else None
        if witness is not None:
            found[witness.name] = Cosignature(witness.name, line, _verified(text, octets, witness))
    return [found[name] for name in sorted(found)]


def without_cosignatures(checkpoint: str) -> str:
    """The note with the log's own signature lines alone: what a timestamp is over."""
    origin = checkpoint.partition("\n")[0]
    lines = checkpoint.rpartition("\n\n")[2].splitlines()
    own = [line for line in lines if line.startswith(f"{_DASH} {origin} ")]
    return f"{note_text(checkpoint)}\n" + "".join(f"{line}\n" for line in own)


def note_text(checkpoint: str) -> str:
    """A note's text, with its last line's end: what every signature in it is over."""
    return checkpoint.rpartition("\n\n")[0] + "\n"


def _verified(text: str, octets: bytes, witness: Witness) -> datetime:
    if len(octets) != _SIGNATURE_BYTES:
        raise Refusal("audit.cosignature_invalid", f"{witness.name}: {len(octets)} octets")
    seconds = int.from_bytes(octets[4:12], "big")
    try:
        witness.public_key.verify(octets[12:], _message(text, seconds))
        return datetime.fromtimestamp(seconds, UTC)
    except (InvalidSignature, ValueError, OverflowError, OSError) as problem:
        raise Refusal("audit.cosignature_invalid", witness.name) from problem


def _message(text: str, seconds: int) -> bytes:
    return f"cosignature/v1\ntime {seconds}\n{text}".encode()


def _key_id(name: str, public_key: Ed25519PublicKey) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + _TYPE + public_key.public_bytes_raw()).digest()[:4]


def _octets(text: str) -> bytes:
    """Of canonical base64, else none."""
    try:
        octets = base64.b64decode(text, validate=True)
    except ValueError:
        return b""
    return octets if base64.b64encode(octets).decode("ascii") == text else b""
