"""What is sealed is read again by its key alone, from any place; nothing of it can be altered, moved or cut off."""

import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from security.errors import AuditBroken, Misconfigured
from security.sealing import (
    KEY_BYTES,
    PIECE_BYTES,
    TAG_BYTES,
    WRAPPED_CHARACTERS,
    SealingKey,
    open_sealed,
    seal,
    sealed_size,
    unseal,
)

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


@pytest.mark.parametrize("size", SIZES)
def test_what_is_unsealed_is_what_was_sealed(size: int) -> None:
    clear = octets_of(size)[:size]
    data_key, wrapped = KEY.new_data_key(b"digest")
    hidden = sealed(clear, data_key)
    assert len(hidden) == sealed_size(size)
    assert clear[:64] not in hidden or size < 16  # so few octets stand in any others by chance
    assert KEY.data_key(wrapped, b"digest") == data_key
    assert len(wrapped) == WRAPPED_CHARACTERS
    assert unseal(hidden, size, data_key) == read(hidden, size, data_key) == clear


def test_two_payloads_never_share_a_key_and_the_same_payload_looks_different() -> None:
    keys = [KEY.new_data_key(b"digest") for _ in range(20)]
    assert len({key for key, _ in keys}) == len({wrapped for _, wrapped in keys}) == 20
    assert len({sealed(b"same", key) for key, _ in keys}) == 20


@given(st.data())
@settings(max_examples=60)
def test_any_place_of_a_large_payload_is_read(data: st.DataObject) -> None:
    clear = octets_of(SIZES[-1])[: SIZES[-1]]
    data_key = bytes(KEY_BYTES)
    with open_sealed(io.BytesIO(sealed(clear, data_key)), len(clear), data_key) as stream:
        for _ in range(4):
            at, length = data.draw(st.integers(0, len(clear) + 9)), data.draw(st.integers(0, 2 * PIECE_BYTES))
            stream.seek(at)
            assert stream.read(length) == clear[at : at + length]
            assert stream.tell() == at + len(clear[at : at + length])


@given(st.integers(0, sealed_size(SIZES[-1]) - 1), st.integers(1, 255))
@settings(max_examples=60)
def test_an_octet_altered_anywhere_is_noticed(place: int, mask: int) -> None:
    clear, data_key = octets_of(SIZES[-1])[: SIZES[-1]], bytes(KEY_BYTES)
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
    _, wrapped = KEY.new_data_key(b"digest")
    for key, of in ((SealingKey(bytes(KEY_BYTES)), b"digest"), (KEY, b"another")):
        with pytest.raises(AuditBroken, match="another evidence key"):
            key.data_key(wrapped, of)


@given(st.integers(0, WRAPPED_CHARACTERS - 1))
def test_a_wrapped_key_altered_anywhere_is_noticed(place: int) -> None:
    _, wrapped = KEY.new_data_key(b"digest")
    other = "B" if wrapped[place] == "A" else "A"
    with pytest.raises(AuditBroken):
        KEY.data_key(wrapped[:place] + other + wrapped[place + 1 :], b"digest")


@pytest.mark.parametrize("told", [1, 2 * PIECE_BYTES - 1, 2 * PIECE_BYTES + 1, 3 * PIECE_BYTES])
def test_a_payload_of_another_size_than_told_is_not_sealed(told: int) -> None:
    with pytest.raises(ValueError, match="other pieces"):
        list(seal(pieces(octets_of(2 * PIECE_BYTES)[: 2 * PIECE_BYTES]), told, bytes(KEY_BYTES)))


def test_a_file_that_holds_no_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "short.key").write_bytes(bytes(31))
    for name in ("short.key", "missing.key"):
        with pytest.raises(Misconfigured, match=name):
            SealingKey.load(tmp_path / name)
