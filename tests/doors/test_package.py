"""A package's form: what says that it has come whole, and nothing that its head says is rested on beyond that."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.transports.package import HEAD_BYTES, MAGIC, head_of, take_apart, write_package
from security.errors import Refusal
from security.message import Content, in_memory, sha256
from security.signed_delivery import MOST_BYTES


def packed(folder: Path, envelope: bytes = b"{}", content: bytes = b"content") -> bytes:
    path = folder / "a.package"
    write_package(path, envelope, in_memory(content))
    return path.read_bytes()


def head(envelope: int, content: int) -> bytes:
    return MAGIC + envelope.to_bytes(4, "big") + content.to_bytes(8, "big")


def test_what_was_packed_is_taken_apart_again(tmp_path: Path) -> None:
    package = take_apart(in_memory(packed(tmp_path, b"envelope", b"content")))
    assert (package.envelope, package.content.read()) == (b"envelope", b"content")
    assert package.content.digest == sha256(b"content")


def test_no_prefix_is_a_package_and_each_is_waited_for(tmp_path: Path) -> None:
    octets = packed(tmp_path)
    for end in range(len(octets)):
        known = head_of(BytesIO(octets[:end]))
        assert (known is None) == (end < HEAD_BYTES)
        with pytest.raises(Refusal, match=r"package\.length"):
            take_apart(in_memory(octets[:end]))


@pytest.mark.parametrize(
    "octets",
    [
        b"PK\x03\x04",
        b"\xef\xbb\xbf" + MAGIC,
        MAGIC.replace(b"/1", b"/2"),
        MAGIC.replace(b"\n", b"\r\n"),
        head(0, 7),
        head(MOST_BYTES + 1, 7),
    ],
    ids=["zip", "byte_order_mark", "another_version", "carriage_return", "no_envelope", "envelope_too_large"],
)
def test_another_beginning_is_no_package(octets: bytes) -> None:
    with pytest.raises(Refusal, match=r"package\.not_one"):
        take_apart(in_memory(octets + b"{}content"))


def test_a_content_of_four_exbibytes_is_promised_and_nothing_is_read_for_it() -> None:
    with pytest.raises(Refusal, match=r"package\.length"):
        take_apart(in_memory(head(2, 1 << 62) + b"{}content"))


@given(st.binary(max_size=200))
def test_any_octets_are_refused_by_name_or_taken_apart_without_rest(octets: bytes) -> None:
    for whole in (octets, MAGIC + octets):
        code, parts = "", b""
        try:
            package = take_apart(in_memory(whole))
            parts = head(len(package.envelope), package.content.size) + package.envelope + package.content.read()
        except Refusal as refusal:
            code = refusal.code
        assert code in ("package.not_one", "package.length") or parts == whole


def test_a_package_is_never_written_over_another(tmp_path: Path) -> None:
    octets = packed(tmp_path)
    with pytest.raises(FileExistsError):
        packed(tmp_path, b"another")
    assert (tmp_path / "a.package").read_bytes() == octets


def test_a_disk_that_fills_leaves_no_package(tmp_path: Path) -> None:
    class Failing(Content, frozen=True):
        def pieces(self, octets: int = 1) -> Iterator[bytes]:
            yield b"half of it"
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_package(tmp_path / "a.package", b"{}", Failing(20, sha256(b"")))
    assert not list(tmp_path.iterdir())
