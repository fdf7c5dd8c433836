"""Whether a drawing's text is that of another encoding than its own: spoilt as a whole, though every octet is lawful.

No format of its own: `dxf_tags` asks of each block. Only what is beyond doubt is said: eight different characters
(`CHARACTERS`) that would be Chinese the other way round. A spoilt word or two is found where the record is checked
(`text.garbled`).
"""

import re
from collections.abc import Iterable
from typing import Final

CHARACTERS: Final = 8
LOOKED_AT_BYTES: Final = 1 << 13  # of a block's lines that are not ASCII
# Of these, which a program writes that knows no Chinese; in others GB 2312 can be somebody's words.
WESTERN: Final = frozenset({"cp1252", "cp437", "cp850", "iso8859-1"})
_GB_2312: Final = re.compile(rb"(?:[\x00-\x7f]|[\xa1-\xf7][\xa1-\xfe])*")
_HANZI: Final = re.compile(rb"[\xb0-\xf7][\xa1-\xfe]")
_LATIN_PAIRS: Final = re.compile(rb"(?:\xc2[\xa1-\xbf]|\xc3[\x80-\xbe]){4}")  # UTF-8 of four characters of ISO 8859-1
_HAN: Final = re.compile(r"[\u4e00-\u9fff]")
_HAN_OR_ASCII: Final = re.compile(r"[\x00-\x7f\u3000-\u9fff\uff00-\uffef]*")


def is_gb(octets: bytes) -> bool:
    """Whether lines that are declared to be Western are GB 2312: nearly all of them, in pairs of octets throughout."""
    lines = octets.splitlines()
    fitting = [line for line in lines if _GB_2312.fullmatch(line)]
    return _many(_HANZI.findall(line) for line in fitting) and len(fitting) >= 0.9 * len(lines)


def spoilt(octets: bytes) -> str:
    """How lines of UTF-8 were spoilt before they were written; "" if they were not."""
    lines = octets.splitlines()
    if _LATIN_PAIRS.search(octets) and _many(_HANZI.findall(_as_gb(line)) for line in lines):
        return "GBK read as ISO 8859-1"
    if _many(_HAN.findall(_as_utf8(line)) for line in lines):
        return "UTF-8 read as GBK"
    return ""


def _as_gb(line: bytes) -> bytes:
    """The octets that were read as ISO 8859-1, if they can have been GB 2312."""
    try:
        octets = line.decode("utf-8").encode("iso8859-1")
    except UnicodeError:
        return b""
    return octets if _GB_2312.fullmatch(octets) else b""


def _as_utf8(line: bytes) -> str:
    """The text whose UTF-8 was read as GBK, if it can have been Chinese."""
    try:
        text = line.decode("utf-8").encode("gb18030").decode("utf-8")
    except UnicodeError:
        return ""
    return text if _HAN_OR_ASCII.fullmatch(text) else ""


def _many(found: Iterable[list[str] | list[bytes]]) -> bool:
    return len({character for each in found for character in each}) >= CHARACTERS
