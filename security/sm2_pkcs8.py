"""The file of an SM2 private key: PEM PKCS#8 (RFC 5958), plain or under a passphrase (PBES2, RFC 8018).

`cryptography` reads no SM2 key, so what it does for the others is done here. Read: PBKDF2 with HMAC-SHA-256 or
HMAC-SM3, AES-CBC or SM4-CBC, as OpenSSL and GmSSL write. Written: HMAC-SHA-256 and AES-256-CBC, which every tool reads.
"""

import os
from typing import Any, Final

from asn1crypto import keys, pem
from cryptography.hazmat.primitives import hashes, padding
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES, SM4
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from security.sm2 import CURVE_OID, Sm2PrivateKey, Sm2PublicKey

ITERATIONS: Final = 200_000
MOST_ITERATIONS: Final = 10_000_000  # of a file that is read: more would hold up the start for a minute
keys.NamedCurve.register("sm2p256v1", CURVE_OID, 32)  # asn1crypto knows NIST's curves and Brainpool's
_BLOCK_BITS: Final = 128  # of AES and SM4 alike
_PRFS: Final[dict[str, hashes.HashAlgorithm]] = {
    "sha256": hashes.SHA256(),
    "1.2.156.10197.1.401.2": hashes.SM3(),  # HMAC-SM3 as GmSSL names it
    "1.2.156.10197.1.401.3.1": hashes.SM3(),  # as OpenSSL names it
}
_CIPHERS: Final[dict[str, tuple[type[AES] | type[SM4], int]]] = {
    "aes128_cbc": (AES, 16),
    "aes256_cbc": (AES, 32),
    "1.2.156.10197.1.104.2": (SM4, 16),
}


def private_key_of_pem(text: bytes, passphrase: bytes | None = None) -> Sm2PrivateKey:
    """The SM2 key of a PEM file. Raises ValueError saying what is wrong; TypeError where a passphrase is missing."""
    name, _, der = pem.unarmor(text)
    if name == "ENCRYPTED PRIVATE KEY":
        if not passphrase:
            raise TypeError("the key file asks for a passphrase")
        der = _decrypted(der, passphrase)
    elif name != "PRIVATE KEY":
        raise ValueError(f"{name}: not PKCS#8")
    elif passphrase is not None:
        raise TypeError("a passphrase was given, and the key file is not encrypted")
    return _key_of(der)


def pem_of_private_key(key: Sm2PrivateKey, passphrase: bytes | None = None) -> bytes:
    """The key as PEM PKCS#8, encrypted when a passphrase is given."""
    curve = keys.ECDomainParameters(name="named", value=CURVE_OID)
    inner = keys.ECPrivateKey({
        "version": 1, "private_key": int.from_bytes(key.scalar, "big"), "public_key": b"\x04" + key.public_key().point,
    })  # fmt: skip
    algorithm = keys.PrivateKeyAlgorithm({"algorithm": "ec", "parameters": curve})
    plain = keys.PrivateKeyInfo({"version": 0, "private_key_algorithm": algorithm, "private_key": inner}).dump()
    octets: bytes
    if passphrase is None:
        octets = pem.armor("PRIVATE KEY", plain)
    else:
        octets = pem.armor("ENCRYPTED PRIVATE KEY", _encrypted(plain, passphrase))
    return octets


def _key_of(der: bytes) -> Sm2PrivateKey:
    info = keys.PrivateKeyInfo.load(der, strict=True)
    algorithm = info["private_key_algorithm"]
    if algorithm["algorithm"].native != "ec" or algorithm["parameters"].chosen.dotted != CURVE_OID:
        raise ValueError("not an SM2 private key")
    inner = info["private_key"].parsed
    point = inner["public_key"].native
    if point is None or point[:1] != b"\x04":
        raise ValueError("the SM2 key file holds no uncompressed public key")
    return Sm2PrivateKey(inner["private_key"].native.to_bytes(32, "big"), Sm2PublicKey(bytes(point[1:])))


def _decrypted(der: bytes, passphrase: bytes) -> bytes:
    info = keys.EncryptedPrivateKeyInfo.load(der, strict=True)
    if info["encryption_algorithm"]["algorithm"].native != "pbes2":
        raise ValueError("the key file is not encrypted by PBES2")
    parameters = info["encryption_algorithm"]["parameters"]
    cipher, length, iv = _cipher(parameters["encryption_scheme"])
    key = _derived(parameters["key_derivation_func"], passphrase, length)
    decryptor = Cipher(cipher(key), CBC(iv)).decryptor()
    unpadder = padding.PKCS7(_BLOCK_BITS).unpadder()
    padded = decryptor.update(info["encrypted_data"].native) + decryptor.finalize()
    return unpadder.update(padded) + unpadder.finalize()


def _encrypted(plain: bytes, passphrase: bytes) -> bytes:
    salt, iv = os.urandom(16), os.urandom(16)
    padder = padding.PKCS7(_BLOCK_BITS).padder()
    key = PBKDF2HMAC(hashes.SHA256(), 32, salt, ITERATIONS).derive(passphrase)
    encryptor = Cipher(AES(key), CBC(iv)).encryptor()
    derivation = {"salt": {"specified": salt}, "iteration_count": ITERATIONS, "prf": {"algorithm": "sha256"}}
    octets: bytes = keys.EncryptedPrivateKeyInfo({
        "encryption_algorithm": {
            "algorithm": "pbes2",
            "parameters": {
                "key_derivation_func": {"algorithm": "pbkdf2", "parameters": derivation},
                "encryption_scheme": {"algorithm": "aes256_cbc", "parameters": iv},
            },
        },
        "encrypted_data": encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize(),
    }).dump()  # fmt: skip
    return octets


def _cipher(scheme: Any) -> tuple[type[AES] | type[SM4], int, bytes]:
    name = scheme["algorithm"].native
    if name not in _CIPHERS:
        raise ValueError(f"the key file is encrypted by {name}, which is not read here")
    cipher, length = _CIPHERS[name]
    return cipher, length, scheme["parameters"].native


def _derived(function: Any, passphrase: bytes, length: int) -> bytes:
    if function["algorithm"].native != "pbkdf2":
        raise ValueError(f"the key file derives its key by {function['algorithm'].native}, which is not read here")
    parameters = function["parameters"]
    prf, iterations = parameters["prf"]["algorithm"].native, parameters["iteration_count"].native
    if prf not in _PRFS or not 0 < iterations <= MOST_ITERATIONS:
        raise ValueError(f"the key file derives its key by {prf} in {iterations} rounds, which is not read here")
    return PBKDF2HMAC(_PRFS[prf], length, parameters["salt"].native, iterations).derive(passphrase)
