"""Octets at rest that only the holder of a key can read: AES-256-GCM or SM4-GCM in pieces, a key for each payload.

A payload is cut into pieces of 64 KiB, each with its tag (STREAM; Hoang, Reyhanitabar, Rogaway, Vizár 2015). The nonce
of a piece is its number and whether it is the last, so a piece altered, cut off, repeated or moved is noticed when
it is read, and a payload of many gigabytes is read from any place without being held. Nonces never repeat, because a
data key is random and seals one payload only.

The data key travels wrapped under the sealing key, with what it belongs to as associated data: a key put beside another
payload does not open it. Whoever destroys the wrapped key has destroyed the payload. The wrapping nonce is random, 96
bits: one sealing key is good for 2^32 payloads (NIST SP 800-38D §8.3).

A payload is sealed and its key wrapped by one cipher, which is chosen for what is sealed from now on and stands in the
wrapped key's text; a data key's length says it again, 32 octets for AES and 16 for SM4 (GB/T 32907; RFC 8998 §3.2).
Both are read whatever is chosen. SM4's wrapping key is derived from the sealing key: there is one key to look after.
"""

import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher as BlockCipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import SM4
from cryptography.hazmat.primitives.ciphers.modes import GCM
from cryptography.hazmat.primitives.hashes import SM3
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from security.errors import AuditBroken, Misconfigured
from security.jose import b64url, unb64url

Cipher = Literal["AES-256-GCM", "SM4-GCM"]

KEY_BYTES: Final = 32
SM4_KEY_BYTES: Final = 16
PIECE_BYTES: Final = 65_536
TAG_BYTES: Final = 16
WRAPPED: Final = r"(?:[A-Za-z0-9_-]{80}|SM4-GCM\.[A-Za-z0-9_-]{59})"  # nonce, key and tag in base64url
_BY_SM4: Final = "SM4-GCM."
_NONCE_BYTES: Final = 12
_PURPOSE: Final = b"yongtong wrapped data key 1\n"
_SM4_PURPOSE: Final = b"yongtong SM4 wrapping key 1\n"


class Sm4Gcm:
    """SM4-GCM as `AESGCM` is called: a tag of 16 octets behind what was encrypted. Raises InvalidTag."""

    def __init__(self, key: bytes) -> None:
        self._cipher = SM4(key)

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
        """The data encrypted, and the tag."""
        encryptor = BlockCipher(self._cipher, GCM(nonce)).encryptor()
        encryptor.authenticate_additional_data(associated_data or b"")
        return encryptor.update(data) + encryptor.finalize() + encryptor.tag

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
        """The data again."""
        if len(data) < TAG_BYTES:
            raise InvalidTag
        decryptor = BlockCipher(self._cipher, GCM(nonce, data[-TAG_BYTES:])).decryptor()
        decryptor.authenticate_additional_data(associated_data or b"")
        return decryptor.update(data[:-TAG_BYTES]) + decryptor.finalize()


class SealingKey:
    """The key under which data keys are wrapped; 32 random octets.

    fingerprint: by which a key is known again, SHA-256 in lower-case hex; of a random key it gives nothing away
    """

    def __init__(self, octets: bytes) -> None:
        if len(octets) != KEY_BYTES:
            raise Misconfigured("config.key", f"a sealing key has {KEY_BYTES} octets, this one {len(octets)}")
        self._wrapping = AESGCM(octets)
        self._wrapping_by_sm4 = Sm4Gcm(HKDF(SM3(), SM4_KEY_BYTES, None, _SM4_PURPOSE).derive(octets))
        self.fingerprint = hashlib.sha256(b"yongtong sealing key 1\n" + octets).hexdigest()

    @classmethod
    def load(cls, path: Path) -> "SealingKey":
        """The key in a file. Raises Misconfigured naming the file."""
        try:
            return cls(path.read_bytes())
        except (OSError, Misconfigured) as problem:
            raise Misconfigured("config.key", f"{path}: no usable evidence key: {problem}") from problem

    def new_data_key(self, of: bytes, cipher: Cipher = "AES-256-GCM") -> tuple[bytes, str]:
        """A fresh data key of a cipher, and the same wrapped as text. of: what it will belong to, such as a digest."""
        by_sm4, nonce = cipher == "SM4-GCM", os.urandom(_NONCE_BYTES)
        data_key = os.urandom(SM4_KEY_BYTES if by_sm4 else KEY_BYTES)
        wrapping = self._wrapping_by_sm4 if by_sm4 else self._wrapping
        wrapped = nonce + wrapping.encrypt(nonce, data_key, _PURPOSE + of)
        return data_key, _BY_SM4 * by_sm4 + b64url(wrapped)

    def data_key(self, wrapped: str, of: bytes) -> bytes:
        """The data key again. Raises AuditBroken: wrapped under another key, for another payload, or altered."""
        text = wrapped.removeprefix(_BY_SM4)
        wrapping = self._wrapping if text == wrapped else self._wrapping_by_sm4
        try:
            octets = unb64url(text)
            return wrapping.decrypt(octets[:_NONCE_BYTES], octets[_NONCE_BYTES:], _PURPOSE + of)
        except (ValueError, InvalidTag) as problem:
            raise AuditBroken(
                "it was sealed under another evidence key than this bus holds, or its wrapped key was altered"
            ) from problem


def sealed_size(size: int) -> int:
    """How many octets a payload of `size` takes when sealed."""
    return size + TAG_BYTES * _pieces(size)


def seal(pieces: Iterable[bytes], size: int, data_key: bytes) -> Iterator[bytes]:
    """The payload sealed, piece by piece.

    pieces: of exactly PIECE_BYTES each but the last, `size` octets in all; of an empty payload, one or none

    Raises ValueError when they are not so: what could not be opened again must not be kept.
    """
    sealing, last, total = _cipher_of(data_key), _pieces(size) - 1, 0
    number = -1
    for number, piece in enumerate(pieces if size else [b""]):
        total += len(piece)
        if len(piece) != min(PIECE_BYTES, size - number * PIECE_BYTES):
            break
        yield sealing.encrypt(_nonce(number, number == last), piece, None)
    if (number, total) != (last, size):
        raise ValueError(f"a payload of {size} octets came in other pieces")


def unseal(octets: bytes, size: int, data_key: bytes) -> bytes:
    """A small payload whole. size: before sealing. Raises AuditBroken when it is not what was sealed."""
    if len(octets) != sealed_size(size):
        raise AuditBroken(f"{len(octets)} octets are there, {sealed_size(size)} were sealed")
    reader = _Unsealed(io.BytesIO(octets), size, data_key)
    return b"".join(reader.piece(number) for number in range(_pieces(size)))


def open_sealed(stream: IO[bytes], size: int, data_key: bytes) -> IO[bytes]:
    """A stream over the payload that can be read from any place; it closes the sealed stream with itself.

    Nothing is decrypted before it is read, nor anywhere but in memory. Reading raises AuditBroken at an altered piece.
    """
    return io.BufferedReader(_Unsealed(stream, size, data_key), PIECE_BYTES)


class _Unsealed(io.RawIOBase):
    """Reads a sealed stream, whose first octet is the first piece's, a piece at a time."""

    def __init__(self, stream: IO[bytes], size: int, data_key: bytes) -> None:
        self._stream, self._size, self._sealing, self._at = stream, size, _cipher_of(data_key), 0

    def piece(self, number: int) -> bytes:
        """One piece, which must be the one that was sealed at this place."""
        self._stream.seek(number * (PIECE_BYTES + TAG_BYTES))
        length = min(PIECE_BYTES, self._size - number * PIECE_BYTES)
        nonce = _nonce(number, number == _pieces(self._size) - 1)
        try:
            return self._sealing.decrypt(nonce, self._stream.read(length + TAG_BYTES), None)
        except InvalidTag as problem:
            raise AuditBroken(f"piece {number} is not what was sealed") from problem

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # the stubs know no narrower name for it
        if self._at >= self._size:
            return 0
        number, begin = divmod(self._at, PIECE_BYTES)
        part = self.piece(number)[begin : begin + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _cipher_of(data_key: bytes) -> AESGCM | Sm4Gcm:
    return Sm4Gcm(data_key) if len(data_key) == SM4_KEY_BYTES else AESGCM(data_key)


def _pieces(size: int) -> int:
    """How many pieces a payload has; the empty one has one, so that its tag says that it is empty."""
    return max(1, -(-size // PIECE_BYTES))


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(_NONCE_BYTES - 1, "big") + bytes([last])
