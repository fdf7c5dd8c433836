"""Checkpoints after the text of C2SP tlog-checkpoint and signed-note, read here without our own code."""

import base64
import hashlib
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from security.anchors import Anchors
from security.checkpoint import Checkpoint, key_id, log_key_octets, open_checkpoint, sign_checkpoint
from security.errors import Misconfigured, Refusal
from security.keys import generate, spki
from security.sm2 import Sm2PublicKey, der_of

ORIGIN = "yongtong.example/log"
ROOT = hashlib.sha256(b"root").digest()
KEY = generate("EdDSA")
NOTE = sign_checkpoint(ORIGIN, 20852163, ROOT, KEY)


def resigned(text: str) -> str:
    """The same kind of note over another text, rightly signed."""
    signature = base64.b64encode(key_id(ORIGIN, KEY.public_key) + KEY.sign(text.encode())).decode()
    return f"{text}\n— {ORIGIN} {signature}\n"


def test_the_note_is_what_c2sp_says() -> None:
    text, signature_line = NOTE.split("\n\n")
    origin, size, root = text.split("\n")
    assert (origin, size, base64.b64decode(root)) == (ORIGIN, "20852163", ROOT)
    dash, name, signature = signature_line.removesuffix("\n").split(" ")
    octets = base64.b64decode(signature)
    assert (dash, name) == ("\u2014", ORIGIN)
    assert isinstance(KEY.public_key, Ed25519PublicKey)
    public = KEY.public_key.public_bytes_raw()
    assert octets[:4] == hashlib.sha256(ORIGIN.encode() + b"\x0a\x01" + public).digest()[:4]
    Ed25519PublicKey.from_public_bytes(public).verify(octets[4:], f"{text}\n".encode())


def test_the_known_key_id_of_the_go_checksum_database() -> None:
    # sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8: name, key id, type and key of a real log.
    public = base64.b64decode("Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8")[1:]
    assert key_id("sum.golang.org", Ed25519PublicKey.from_public_bytes(public)).hex() == "033de0ae"


def test_the_same_head_gives_the_same_text() -> None:
    assert sign_checkpoint(ORIGIN, 20852163, ROOT, KEY) == NOTE
    assert open_checkpoint(NOTE, ORIGIN, KEY.public_key) == Checkpoint(ORIGIN, 20852163, ROOT)


def test_signatures_of_witnesses_are_left_alone() -> None:
    other = base64.b64encode(b"\x00\x01\x02\x03" + bytes(64)).decode()
    witnessed = NOTE + f"— witness.example/w1 {other}\n— {ORIGIN} {other}\n"
    assert open_checkpoint(witnessed, ORIGIN, KEY.public_key).size == 20852163


@pytest.mark.parametrize(
    "spoilt",
    [
        "",
        NOTE[:-1],
        NOTE.replace("20852163", "20852164"),
        NOTE.replace("\u2014", "-"),
        NOTE.replace("\n", "\r\n"),
        NOTE.replace(ORIGIN, "yongtong.example/other"),
        NOTE.split("\n\n")[0] + "\n\n",
        NOTE + NOTE,
        NOTE + "\n",
        NOTE.replace("=\n", "\n"),
        resigned(f"{ORIGIN}\n20852163\n{base64.b64encode(ROOT).decode()}\nextension\n"),
        resigned(f"{ORIGIN}\n020852163\n{base64.b64encode(ROOT).decode()}\n"),
        resigned(f"{ORIGIN}\n-1\n{base64.b64encode(ROOT).decode()}\n"),
        resigned(f"{ORIGIN}\n²\n{base64.b64encode(ROOT).decode()}\n"),
        resigned(f"{ORIGIN}\n20852163\n{base64.b64encode(ROOT[:31]).decode()}\n"),
        resigned(f"{ORIGIN}\n20852163\n"),
        resigned(f"other.example\n20852163\n{base64.b64encode(ROOT).decode()}\n"),
    ],
)
def test_a_spoilt_note_is_refused(spoilt: str) -> None:
    with pytest.raises(Refusal) as refusal:
        open_checkpoint(spoilt, ORIGIN, KEY.public_key)
    assert refusal.value.code == "audit.checkpoint_invalid"


def test_a_note_of_another_key_is_refused() -> None:
    with pytest.raises(Refusal):
        open_checkpoint(NOTE, ORIGIN, generate("EdDSA").public_key)
    with pytest.raises(Refusal):
        open_checkpoint(NOTE, ORIGIN, generate("ES256").public_key)


@pytest.mark.parametrize("origin", ["", "two words", "a+b", "line\nbreak"])
def test_an_origin_that_cannot_name_a_key_stops_the_start(origin: str) -> None:
    with pytest.raises(Misconfigured):
        sign_checkpoint(origin, 1, ROOT, KEY)


# By SM2


def test_a_note_by_sm2_has_the_type_that_c2sp_keeps_for_what_it_does_not_name(tmp_path: Path) -> None:
    key = generate("SM2")
    assert isinstance(key.public_key, Sm2PublicKey)
    note = sign_checkpoint(ORIGIN, 20852163, ROOT, key)
    text, signature_line = note.split("\n\n")
    octets = base64.b64decode(signature_line.removesuffix("\n").split(" ")[2])
    typed = ORIGIN.encode() + b"\x0a\xffurn:oid:1.2.156.10197.1.501" + key.public_key.point
    assert (octets[:4], len(octets)) == (hashlib.sha256(typed).digest()[:4], 4 + 64)
    assert open_checkpoint(note, ORIGIN, key.public_key) == Checkpoint(ORIGIN, 20852163, ROOT)
    (tmp_path / "key.pem").write_bytes(key.public_pem())
    (tmp_path / "text").write_text(f"{text}\n")
    (tmp_path / "signature").write_bytes(der_of(octets[4:]))
    command = "openssl dgst -sm3 -verify key.pem -sigopt distid:1234567812345678 -signature signature text"
    assert subprocess.run(command.split(), cwd=tmp_path, capture_output=True).stdout == b"Verified OK\n"


def test_a_spoilt_note_by_sm2_is_refused() -> None:
    key, other = generate("SM2"), generate("SM2")
    note = sign_checkpoint(ORIGIN, 20852163, ROOT, key)
    ed25519_signature = NOTE.split("\n\n")[1]
    for spoilt, public_key in [
        (note.replace("20852163", "20852164"), key.public_key),
        (note, other.public_key),
        (note, KEY.public_key),
        (NOTE, key.public_key),
        (note.split("\n\n")[0] + "\n\n" + ed25519_signature, key.public_key),
        (note + sign_checkpoint(ORIGIN, 1, ROOT, key).split("\n\n")[1], key.public_key),
    ]:
        with pytest.raises(Refusal) as refusal:
            open_checkpoint(spoilt, ORIGIN, public_key)
        assert refusal.value.code == "audit.checkpoint_invalid"
    with pytest.raises(Misconfigured):
        sign_checkpoint(ORIGIN, 1, ROOT, generate("ES256"))


@pytest.mark.parametrize("kind", ["EdDSA", "SM2"])
def test_anchors_give_the_logs_key_back_and_no_key_of_the_other_kind(kind: Any) -> None:
    key = generate(kind)
    anchors = Anchors(ORIGIN, log_key_octets(key.public_key).hex(), [], kind)
    again = msgspec.json.decode(msgspec.json.encode(anchors), type=Anchors)
    assert spki(again.log_public_key) == spki(key.public_key)
    other: Any = "SM2" if kind == "EdDSA" else "EdDSA"
    for spoilt in (
        msgspec.structs.replace(anchors, log_key_kind=other),
        msgspec.structs.replace(anchors, log_key="00"),
    ):
        with pytest.raises(Misconfigured, match="log_key"):
            _ = spoilt.log_public_key


def test_anchors_of_a_bus_that_was_made_before_there_was_sm2_are_read() -> None:
    old = {"origin": ORIGIN, "log_key": log_key_octets(KEY.public_key).hex(), "receipt_certificates": []}
    anchors = msgspec.json.decode(msgspec.json.encode(old), type=Anchors)
    assert open_checkpoint(NOTE, ORIGIN, anchors.log_public_key).size == 20852163
    assert msgspec.to_builtins(anchors) == old
