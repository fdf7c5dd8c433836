"""A cosignature's octets against OpenSSL, and its key id and layout against the text of C2SP tlog-cosignature."""

import base64
import hashlib
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from security.checkpoint import sign_checkpoint
from security.cosignature import Witness, cosign, cosignatures
from security.errors import Misconfigured, Refusal
from security.keys import SigningKey, generate

ORIGIN = "yongtong.example/log"
NAME = "water.yongtong.example"
NOW = datetime(2026, 11, 28, 8, tzinfo=UTC)


def known(key: SigningKey, name: str = NAME) -> Witness:
    assert isinstance(key.public_key, Ed25519PublicKey)
    return Witness(name, key.public_key.public_bytes_raw().hex())


def openssl_verifies(message: bytes, signature: bytes, key: SigningKey, folder: Path) -> bool:
    assert isinstance(key.public_key, Ed25519PublicKey)
    (folder / "public.pem").write_bytes(key.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    (folder / "message").write_bytes(message)
    (folder / "signature").write_bytes(signature)
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "public.pem", "-rawin", "-in", "message"]
    return subprocess.run([*command, "-sigfile", "signature"], cwd=folder, capture_output=True).returncode == 0


def test_openssl_verifies_a_cosignature_over_the_octets_that_the_specification_names(tmp_path: Path) -> None:
    log, key = generate("EdDSA"), generate("EdDSA")
    note = sign_checkpoint(ORIGIN, 20852163, bytes(range(32)), log)
    dash, name, text = cosign(note, NAME, key, NOW).split(" ")
    octets = base64.b64decode(text)
    assert (dash, name, len(octets)) == ("—", NAME, 4 + 8 + 64)
    public = bytes.fromhex(known(key).key)
    assert octets[:4] == hashlib.sha256(NAME.encode() + b"\n\x04" + public).digest()[:4]
    assert octets[4:12] == int(NOW.timestamp()).to_bytes(8, "big")
    root = base64.b64encode(bytes(range(32))).decode()
    message = f"cosignature/v1\ntime {int(NOW.timestamp())}\n{ORIGIN}\n20852163\n{root}\n".encode()
    assert openssl_verifies(message, octets[12:], key, tmp_path)
    assert not openssl_verifies(message.replace(b"20852163", b"20852164"), octets[12:], key, tmp_path)


def test_a_line_that_openssl_signed_holds(tmp_path: Path) -> None:
    key, note = generate("EdDSA"), sign_checkpoint(ORIGIN, 7, b"r" * 32, generate("EdDSA"))
    (tmp_path / "key.pem").write_bytes(key.pem())
    seconds = int(NOW.timestamp())
    body = note.partition("\n\n")[0] + "\n"
    (tmp_path / "message").write_bytes(f"cosignature/v1\ntime {seconds}\n{body}".encode())
    command = ["openssl", "pkeyutl", "-sign", "-inkey", "key.pem", "-rawin", "-in", "message", "-out", "signature"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    id = hashlib.sha256(NAME.encode() + b"\n\x04" + bytes.fromhex(known(key).key)).digest()[:4]
    octets = id + seconds.to_bytes(8, "big") + (tmp_path / "signature").read_bytes()
    line = f"— {NAME} {base64.b64encode(octets).decode()}\n"
    (found,) = cosignatures(note + line, [known(key)])
    assert (found.witness, found.at) == (NAME, NOW)


@pytest.mark.parametrize("octet", [4, 11, 12, 75])
def test_a_cosignature_with_its_time_or_signature_changed_is_refused(octet: int) -> None:
    key, note = generate("EdDSA"), sign_checkpoint(ORIGIN, 7, b"r" * 32, generate("EdDSA"))
    dash, name, text = cosign(note, NAME, key, NOW).split(" ")
    octets = bytearray(base64.b64decode(text))
    octets[octet] ^= 1
    with pytest.raises(Refusal, match=r"audit\.cosignature_invalid"):
        cosignatures(f"{note}{dash} {name} {base64.b64encode(octets).decode()}\n", [known(key)])


def test_one_witness_counts_once_however_often_it_signs() -> None:
    key, note = generate("EdDSA"), sign_checkpoint(ORIGIN, 7, b"r" * 32, generate("EdDSA"))
    lines = "".join(f"{cosign(note, NAME, key, NOW + timedelta(seconds=n))}\n" for n in range(3))
    assert len(cosignatures(note + lines, [known(key)])) == 1
    with pytest.raises(Misconfigured, match="Ed25519"):
        cosign(note, NAME, generate("ES256"), NOW)
