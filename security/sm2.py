"""SM2 keys (GB/T 32918): sign and verify with SM3 and the user id 1234567812345678 (GB/T 35276), by GmSSL.

Signatures are raw, r ‖ s of 32 octets each, as XML and our JSON documents carry them; CMS and X.509 carry DER, and
`der_of` and `raw_of` go between. A key is written as its point, x ‖ y; its SubjectPublicKeyInfo is one fixed prefix
and the point, so that a compressed point, other parameters or another curve have no reading here.

Signing is not deterministic: GmSSL draws its own k and takes none from us. What was signed is therefore kept before
it is sent, and never signed a second time (docs/adr/0017).
"""

from functools import cached_property
from typing import Final

import gmssl_pyx
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

USER_ID: Final = b"1234567812345678"
CURVE_OID: Final = "1.2.156.10197.1.301"
POINT_OCTETS: Final = 64
ORDER: Final = 0xFFFFFFFE_FFFFFFFF_FFFFFFFF_FFFFFFFF_7203DF6B_21C6052B_53BBF409_39D54123
# SEQUENCE { SEQUENCE { id-ecPublicKey, sm2p256v1 }, BIT STRING { 0x04, x, y } }
_SPKI_PREFIX: Final = bytes.fromhex("3059301306072a8648ce3d020106082a811ccf5501822d03420004")
# GB/T 32918.5: a, b and the base point of the curve, which go into Z.
_CURVE: Final = bytes.fromhex(
    "fffffffeffffffffffffffffffffffffffffffff00000000fffffffffffffffc"
    "28e9fa9e9d9f5e344d5a9e4bcf6509a7f39789f515ab8f92ddbcbd414d940e93"
    "32c4ae2c1f1981195f9904466a39c9948fe30bbff2660be1715a4589334c74c7"
    "bc3736a2f4f6779c59bdcee36b692153d0a9877cc62a474002df32e52139f0a0"
)
_Z_START: Final = (8 * len(USER_ID)).to_bytes(2, "big") + USER_ID + _CURVE


class Sm2PublicKey:
    """A public key. point: x ‖ y, 64 octets, on the curve; otherwise ValueError."""

    key_size = 256

    def __init__(self, point: bytes) -> None:
        try:
            if len(point) != POINT_OCTETS or gmssl_pyx.normalize_sm2_public_key(point) != point:
                raise ValueError("not 64 octets of an SM2 point")
        except gmssl_pyx.GmsslInnerError as problem:
            raise ValueError("not a point of the SM2 curve") from problem
        self.point = point

    @classmethod
    def from_spki(cls, der: bytes) -> "Sm2PublicKey":
        """The key of a DER SubjectPublicKeyInfo. Raises ValueError for anything but an uncompressed SM2 point."""
        if not is_sm2_spki(der):
            raise ValueError("not the SubjectPublicKeyInfo of an uncompressed SM2 point")
        return cls(der[len(_SPKI_PREFIX) :])

    @cached_property
    def spki(self) -> bytes:
        """The DER SubjectPublicKeyInfo."""
        return _SPKI_PREFIX + self.point

    @cached_property
    def _z(self) -> bytes:
        return sm3(_Z_START + self.point)

    def digest_of(self, octets: bytes) -> bytes:
        """What a signature over octets signs: e = SM3(Z ‖ octets) (GB/T 32918.2 §6)."""
        return sm3(self._z + octets)

    def verify(self, signature: bytes, octets: bytes) -> None:
        """Return if the raw signature is over octets by this key; else raise InvalidSignature.

        A wrong signature makes GmSSL write two lines to standard error, which nothing can turn off.
        """
        try:
            holds = gmssl_pyx.sm2_verify_sm3_digest(self.point, self.digest_of(octets), der_of(signature))
        except gmssl_pyx.GmsslInnerError as problem:
            raise InvalidSignature from problem
        if not holds:
            raise InvalidSignature


class Sm2PrivateKey:
    """A private key. scalar: 32 octets, big-endian; public: its own key. Raises ValueError when they are no pair."""

    def __init__(self, scalar: bytes, public: Sm2PublicKey) -> None:
        self.scalar, self._public = scalar, public
        try:
            public.verify(self.sign(b"pair"), b"pair")
        except (InvalidSignature, gmssl_pyx.GmsslInnerError) as problem:
            raise ValueError("the SM2 private key and public key are no pair") from problem

    def public_key(self) -> Sm2PublicKey:
        """The public key."""
        return self._public

    def sign(self, octets: bytes) -> bytes:
        """A raw signature over octets, another one each time."""
        return raw_of(gmssl_pyx.sm2_sign_sm3_digest(self.scalar, self._public.digest_of(octets)))


def generate() -> Sm2PrivateKey:
    """A new key."""
    point, scalar = gmssl_pyx.sm2_key_generate()
    return Sm2PrivateKey(scalar, Sm2PublicKey(point))


def is_sm2_spki(der: bytes) -> bool:
    """Whether a DER SubjectPublicKeyInfo is of an uncompressed SM2 point; on the curve or not, the key says."""
    return der.startswith(_SPKI_PREFIX) and len(der) == len(_SPKI_PREFIX) + POINT_OCTETS


class Sm3:
    """SM3 under way, as hashlib has its hashes; Python's own hashlib has it only where the system's OpenSSL does."""

    def __init__(self) -> None:
        self._hash = hashes.Hash(hashes.SM3())

    def update(self, octets: bytes, /) -> None:
        """Take in more octets."""
        self._hash.update(octets)

    def digest(self) -> bytes:
        """The digest of all so far, 32 octets."""
        return self._hash.copy().finalize()


def sm3(octets: bytes) -> bytes:
    """The SM3 digest of octets, 32 octets."""
    hashed = hashes.Hash(hashes.SM3())
    hashed.update(octets)
    return hashed.finalize()


def der_of(raw: bytes) -> bytes:
    """A raw signature as DER. Raises InvalidSignature unless it is 64 octets with r and s from 1 to the order."""
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    if len(raw) != 64 or not (0 < r < ORDER and 0 < s < ORDER):
        raise InvalidSignature
    return encode_dss_signature(r, s)


def raw_of(der: bytes) -> bytes:
    """A DER signature as r ‖ s. Raises InvalidSignature for BER, trailing octets and numbers of more than 32 octets."""
    try:
        r, s = decode_dss_signature(der)
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")
    except (ValueError, OverflowError) as problem:
        raise InvalidSignature from problem
