"""What is sealed is read again by its key alone, from any place; nothing of it can be altered, moved or cut off."""

import io
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from security.errors import AuditBroken, Misconfigured
from security.sealing import (
    KEY_BYTES,
    PIECE_BYTES,
    SM4_KEY_BYTES,
    TAG_BYTES,
    WRAPPED,
    Cipher,
    SealingKey,
    Sm4Gcm,
    open_sealed,
    seal,
    sealed_size,
    unseal,
)

CIPHERS: dict[Cipher, int] = {"AES-256-GCM": KEY_BYTES, "SM4-GCM": SM4_KEY_BYTES}
DATA_KEYS = st.sampled_from([bytes(size) for size in CIPHERS.values()])
KEY = SealingKey(bytes(range(KEY_BYTES)))
SIZES = [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES, 3 * PIECE_BYTES + 77]
SEALED_PIECE = PIECE_BYTES + TAG_BYTES


def octets_of(size: int) -> bytes:
    return bytes(number * 7 % 251 for number in range(997)) * (size // 997 + 1) if size else b""


def pieces(octets: bytes) -> list[bytes]:
    return [octets[at : at + PIECE_BYTES] for at in range(0, len(octets), PIECE_BYTES)]


def sealed(octets: bytes, data_key: bytes) -> bytes:
    return b"".join(seal(pieces(octets), len(octets), data_key))


def read(octets: bytes, size: int, data_key: bytes) -> bytes:
    with open_sealed(io.BytesIO(octets), size, data_key) as stream:
        return stream.read()


@pytest.mark.parametrize("cipher", CIPHERS)
@pytest.mark.parametrize("size", SIZES)
def test_what_is_unsealed_is_what_was_sealed(size: int, cipher: Cipher) -> None:
    clear = octets_of(size)[:size]
    data_key, wrapped = KEY.new_data_key(b"digest", cipher)
    assert len(data_key) == CIPHERS[cipher]
    hidden = sealed(clear, data_key)
    assert len(hidden) == sealed_size(size)
    assert clear[:64] not in hidden or size < 16  # so few octets stand in any others by chance
    assert KEY.data_key(wrapped, b"digest") == data_key
    assert re.fullmatch(WRAPPED, wrapped)
    assert unseal(hidden, size, data_key) == read(hidden, size, data_key) == clear


def test_two_payloads_never_share_a_key_and_the_same_payload_looks_different() -> None:
    for cipher in CIPHERS:
        keys = [KEY.new_data_key(b"digest", cipher) for _ in range(20)]
        assert len({key for key, _ in keys}) == len({wrapped for _, wrapped in keys}) == 20
        assert len({sealed(b"same", key) for key, _ in keys}) == 20


def test_sm4_is_that_of_the_published_vector() -> None:
    """RFC 8998, appendix A.1."""
    key, nonce = bytes.fromhex("0123456789ABCDEFFEDCBA9876543210"), bytes.fromhex("00001234567800000000ABCD")
    clear = b"".join(bytes([octet]) * 8 for octet in (0xAA, 0xBB, 0xCC, 0xDD, 0xEE, 0xFF, 0xEE, 0xAA))
    beside = bytes.fromhex("FEEDFACEDEADBEEFFEEDFACEDEADBEEFABADDAD2")
    hidden = bytes.fromhex(
        "17F399F08C67D5EE19D0DC9969C4BB7D5FD46FD3756489069157B282BB200735"
        "D82710CA5C22F0CCFA7CBF93D496AC15A56834CBCF98C397B4024A2691233B8D83DE3541E4C2B58177E065A9BF7B62EC"
    )
    assert Sm4Gcm(key).encrypt(nonce, clear, beside) == hidden
    assert Sm4Gcm(key).decrypt(nonce, hidden, beside) == clear


@given(st.data())
@settings(max_examples=60)
def test_any_place_of_a_large_payload_is_read(data: st.DataObject) -> None:
    clear = octets_of(SIZES[-1])[: SIZES[-1]]
    data_key = data.draw(DATA_KEYS)
    with open_sealed(io.BytesIO(sealed(clear, data_key)), len(clear), data_key) as stream:
        for _ in range(4):
            at, length = data.draw(st.integers(0, len(clear) + 9)), data.draw(st.integers(0, 2 * PIECE_BYTES))
            stream.seek(at)
            assert stream.read(length) == clear[at : at + length]
            assert stream.tell() == at + len(clear[at : at + length])


@given(st.integers(0, sealed_size(SIZES[-1]) - 1), st.integers(1, 255), DATA_KEYS)
@settings(max_examples=60)
def test_an_octet_altered_anywhere_is_noticed(place: int, mask: int, data_key: bytes) -> None:
    clear = octets_of(SIZES[-1])[: SIZES[-1]]
    hidden = bytearray(sealed(clear, data_key))
    hidden[place] ^= mask
    for opened in (unseal, read):
        with pytest.raises(AuditBroken):
            opened(bytes(hidden), len(clear), data_key)


THREE = sealed(octets_of(3 * PIECE_BYTES)[: 3 * PIECE_BYTES], bytes(KEY_BYTES))
FIRST, SECOND, THIRD = (THREE[at : at + SEALED_PIECE] for at in range(0, len(THREE), SEALED_PIECE))
OTHER = sealed(octets_of(3 * PIECE_BYTES)[: 3 * PIECE_BYTES], bytes([1]) * KEY_BYTES)


@pytest.mark.parametrize(
    "octets, pieces_told",
    [
        (FIRST + SECOND, 2),  # the last piece cut off, and the size with it
        (FIRST, 1),
        (b"", 3),
        (SECOND + FIRST + THIRD, 3),
        (FIRST + FIRST + THIRD, 3),
        (FIRST + THIRD, 2),
        (THREE + THIRD, 4),
        (FIRST + SECOND + OTHER[2 * SEALED_PIECE :], 3),
    ],
)
def test_pieces_cut_off_swapped_repeated_or_of_another_payload_are_noticed(octets: bytes, pieces_told: int) -> None:
    for opened in (unseal, read):
        with pytest.raises(AuditBroken):
            opened(octets, pieces_told * PIECE_BYTES, bytes(KEY_BYTES))


def test_a_data_key_opens_nothing_but_its_own_payload_under_its_own_sealing_key() -> None:
    for cipher in CIPHERS:
        _, wrapped = KEY.new_data_key(b"digest", cipher)
        for key, of in ((SealingKey(bytes(KEY_BYTES)), b"digest"), (KEY, b"another")):
            with pytest.raises(AuditBroken, match="another evidence key"):
                key.data_key(wrapped, of)


@given(st.integers(0, 79), st.sampled_from(list(CIPHERS)), st.sampled_from("AB-"))
def test_a_wrapped_key_altered_anywhere_is_noticed(place: int, cipher: Cipher, letter: str) -> None:
    _, wrapped = KEY.new_data_key(b"digest", cipher)
    altered = wrapped[:place] + letter + wrapped[place + 1 :]
    if altered != wrapped:
        with pytest.raises(AuditBroken):
            KEY.data_key(altered, b"digest")


def test_a_key_wrapped_by_one_cipher_does_not_pose_as_the_others() -> None:
    (_, by_aes), (_, by_sm4) = (KEY.new_data_key(b"digest", cipher) for cipher in CIPHERS)
    for posing in (f"SM4-GCM.{by_aes}", by_sm4.removeprefix("SM4-GCM."), ""):
        with pytest.raises(AuditBroken):
            KEY.data_key(posing, b"digest")


@pytest.mark.parametrize("told", [1, 2 * PIECE_BYTES - 1, 2 * PIECE_BYTES + 1, 3 * PIECE_BYTES])
def test_a_payload_of_another_size_than_told_is_not_sealed(told: int) -> None:
    with pytest.raises(ValueError, match="other pieces"):
        list(seal(pieces(octets_of(2 * PIECE_BYTES)[: 2 * PIECE_BYTES]), told, bytes(KEY_BYTES)))


def test_a_file_that_holds_no_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "short.key").write_bytes(bytes(31))
    for name in ("short.key", "missing.key"):
        with pytest.raises(Misconfigured, match=name):
            SealingKey.load(tmp_path / name)
