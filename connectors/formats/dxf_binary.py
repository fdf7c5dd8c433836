"""Binary DXF to the lines of an ASCII one, so that one scanner reads both.

No format of its own: `connectors.formats.dxf_tags` scans the lines. How long a value is only its group code says, so
each tag takes a Python step here: a fifth of the speed of ASCII (docs/adr/0048). Drawings of R12 and before have group
codes of one octet (255: two follow), later ones of two.
"""

import struct
from collections.abc import Iterable, Iterator
from typing import Final

from security.errors import Refusal

MARK: Final = b"AutoCAD Binary DXF\r\n\x1a\0"
VALUE_BYTES: Final = 1 << 20  # no value is this long
_CODE: Final = struct.Struct("<h")
_WIDE: Final = 255
_EOF: Final = b"EOF"
_CHUNK: Final = struct.Struct("B")  # the length of a chunk of octets, which follow
_FORMS: Final = {
    code: struct.Struct(f"<{form}")
    for form, ranges in {
        "d": ((10, 59), (110, 149), (210, 239), (460, 469), (1010, 1059)),
        "h": ((60, 79), (170, 179), (270, 289), (370, 389), (400, 409), (1060, 1070)),
        "i": ((90, 99), (420, 429), (440, 459), (1071, 1071)),
        "q": ((160, 169),),
        "?": ((290, 299),),
    }.items()
    for first, last in ranges
    for code in range(first, last + 1)
} | dict.fromkeys((*range(310, 320), 1004), _CHUNK)  # all others are text up to a zero octet


def as_text(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The drawing's tags as pairs of lines, up to its EOF. Text keeps its encoding, numbers are short.

    Raises Refusal decode.not_readable, decode.too_large. A last tag that is not whole is left out.
    """
    octets, at, narrow = b"", 0, True
    for number, piece in enumerate(pieces):
        octets = octets[at:] + piece
        if number == 0:
            octets = octets.removeprefix(MARK)
            narrow = octets[1:2] != b"\0"  # the first code is 0, and SECTION follows
        lines, at = _lines(octets, narrow)
        if lines:
            yield b"".join(lines)
        if lines and lines[-1] == b"0\n" + _EOF + b"\n":
            return
        if len(octets) - at > VALUE_BYTES:
            raise Refusal("decode.too_large", f"a value of more than {VALUE_BYTES} octets")


def _lines(octets: bytes, narrow: bool) -> tuple[list[bytes], int]:
    """Pairs of lines of all tags that are whole, up to EOF, and where they end."""
    lines: list[bytes] = []
    end = 0
    try:
        while True:
            code, at = _code(octets, end, narrow)
            value, end = _value(octets, at, code)
            if b"\n" in value:
                raise Refusal("decode.not_readable", "a text with a line's end in it")
            lines.append(b"%d\n%b\n" % (code, value))
            if code == 0 and value == _EOF:
                return lines, end
    except (IndexError, ValueError, struct.error):  # the piece ends within a tag
        return lines, end


def _code(octets: bytes, at: int, narrow: bool) -> tuple[int, int]:
    if not narrow:
        return _CODE.unpack_from(octets, at)[0], at + 2
    if octets[at] != _WIDE:
        return octets[at], at + 1
    return _CODE.unpack_from(octets, at + 1)[0], at + 3


def _value(octets: bytes, at: int, code: int) -> tuple[bytes, int]:
    """A value as it would be spelled, and where it ends."""
    form = _FORMS.get(code)
    if form is None:
        end = octets.index(0, at)
        return octets[at:end], end + 1
    (said,) = form.unpack_from(octets, at)
    if form is not _CHUNK:
        return repr(int(said) if isinstance(said, bool) else said).encode(), at + form.size
    end = at + 1 + said
    if end > len(octets):
        raise IndexError
    return octets[at + 1 : end].hex().upper().encode(), end
