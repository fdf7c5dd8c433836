"""ASCII DXF bytes to tags: pairs of a group code and a value, as two columns a block, decoded strictly.

No format of its own: `connectors.formats.dxf` makes records of what this module scans. Nothing here knows an entity,
and nothing takes a Python step a line: a block is decoded, split and read as numbers in one call each.
"""

import io
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from security.errors import Refusal
from security.message import Content

BLOCK_BYTES: Final = 1 << 22
LINE_CHARACTERS: Final = 32_767
LINE_BYTES: Final = 4 * LINE_CHARACTERS
ENCODINGS: Final = ("utf-8", "gbk", "gb18030")  # what a feed may declare against the drawing
EOF: Final = "EOF"
# $DWGCODEPAGE in lower case without "_". 936 is read as GB18030, which holds all of GBK: nothing is decoded otherwise.
CODE_PAGES: Final = {
    "ansi936": "gb18030",
    "gb2312": "gb18030",
    **{f"ansi{number}": f"cp{number}" for number in (874, 932, 949, 950, *range(1250, 1259))},
    **{f"dos{number}": f"cp{number}" for number in (437, 850, 852, 855, 857, 860, 861, 863, 864, 865, 866, 869, 932)},
    **{f"iso8859-{number}": f"iso8859-{number}" for number in range(1, 10)},
    "big5": "big5",
    "ascii": "ascii",
}
UTF8_SINCE: Final = 1021  # AC1021, AutoCAD 2007
_BINARY: Final = b"AutoCAD Binary DXF"
_DWG: Final = re.compile(rb"AC[12][.0-9]\d\d|MC0\.0")
_BOM: Final = b"\xef\xbb\xbf"
_ESCAPE: Final = re.compile(r"\\U\+([0-9A-Fa-f]{4})|\\M\+([1-5])([0-9A-Fa-f]{4})")
_MULTIBYTE: Final = {"1": "cp932", "2": "cp950", "3": "cp949", "4": "johab", "5": "gb18030"}


class Tags(NamedTuple):
    """Group codes, and values as they are spelled (String), of one length."""

    codes: NDArray[np.int16]
    values: pl.Series


def scan(content: Content, declared: str | None) -> Iterator[Tags]:
    """Yield the tags of a drawing in order; values as they are spelled, escapes and white space included.

    declared: the feed's `encoding`, which is then believed instead of the drawing. Lines end with LF, CRLF, or CR where
    the drawing begins so. A line that is no group code ends the scan quietly if the drawing's EOF stands before it in
    its block: some programs leave rubbish there.

    Raises Refusal decode.binary_dxf, decode.dwg, decode.encoding_unknown, decode.encoding_wrong, decode.not_readable,
    decode.too_large.
    """
    encoding, line = "", 0
    for first, octets in _blocks(content):
        if not encoding:
            encoding = _encoding(octets, declared)
        lines = _lines(octets, encoding, first)
        paired = len(lines) // 2
        tags = _tags(lines[: 2 * paired], line)
        yield tags
        if len(tags.codes) < paired:  # rubbish beyond EOF
            return
        line += 2 * paired
        if 2 * paired < len(lines):
            raise Refusal("decode.not_readable", f"line {line + 1}: a group code without its value")


def _blocks(content: Content) -> Iterator[tuple[int, bytes]]:
    """(offset, whole pairs of lines): a few megabytes each; the last may lack a line's end, or a line."""
    offset, rest, left = 0, b"", content.size
    old = False  # an old Macintosh ends lines with CR alone
    with content.open() as stream:
        while left and (piece := stream.read(min(BLOCK_BYTES, left))):
            if left == content.size:
                old = b"\n" not in piece and b"\r" in piece
            left -= len(piece)
            piece = rest + (piece.replace(b"\r", b"\n") if old else piece)
            end = _pairs_end(piece)
            if not end and len(piece) > BLOCK_BYTES + 2 * LINE_BYTES:
                raise Refusal("decode.too_large", f"a line of more than {LINE_CHARACTERS} characters")
            if end:
                yield offset, piece[:end]
            offset, rest = offset + end, piece[end:]
    if left:
        raise Refusal("decode.not_readable", "the stored content is shorter than it was")
    if rest:
        yield offset, rest


def _pairs_end(piece: bytes) -> int:
    """How many octets the whole pairs of lines take."""
    end = piece.rfind(b"\n")
    if piece.count(b"\n") % 2:
        end = piece.rfind(b"\n", 0, end)
    return end + 1


# Which encoding


def _encoding(head: bytes, declared: str | None) -> str:
    """The Python codec for a drawing that begins so."""
    if head.startswith(_BINARY):
        raise Refusal("decode.binary_dxf")
    if found := _DWG.match(head):
        raise Refusal("decode.dwg", found[0].decode("ascii"))
    if declared is not None and declared not in ENCODINGS:
        raise Refusal("decode.encoding_unknown", declared)
    encoding = declared or _said(head)
    if head.startswith(_BOM) and encoding != "utf-8":
        raise Refusal("decode.encoding_wrong", f"{encoding} declared, UTF-8 found")
    return encoding


def _said(head: bytes) -> str:
    """What the drawing says of itself; without a code page ASCII, for nothing is guessed."""
    header = _header(head)
    version = re.fullmatch(r"AC(\d{4})", header.get("$ACADVER", ""))
    if version and int(version[1]) >= UTF8_SINCE:
        return "utf-8"
    page = header.get("$DWGCODEPAGE")
    if page is None:
        return "ascii"
    encoding = CODE_PAGES.get(page.lower().replace("_", ""))
    if encoding is None:
        raise Refusal("decode.encoding_unknown", f"$DWGCODEPAGE {page[:20]}")
    return encoding


def _header(head: bytes) -> dict[str, str]:
    """$ACADVER and $DWGCODEPAGE, where the HEADER section says them within the first block."""
    found: dict[str, str] = {}
    variable = ""
    lines = (line.decode("latin-1") for line in io.BytesIO(head.removeprefix(_BOM)))
    for code, value in zip(map(str.strip, lines), map(str.strip, lines), strict=False):
        if code == "9":
            variable = value
        elif variable in ("$ACADVER", "$DWGCODEPAGE") and code in ("1", "3"):
            found.setdefault(variable, value)
        elif code == "0" and value != "SECTION":
            break
    return found


# Lines and codes


def _lines(octets: bytes, encoding: str, first: int) -> pl.Series:
    """The lines of a block, a CR at their ends. No listed encoding has a line's end inside a character."""
    try:
        text = octets.removeprefix(_BOM).decode(encoding) if first == 0 else octets.decode(encoding)
    except UnicodeDecodeError as problem:
        code = "decode.encoding_unknown" if encoding == "ascii" else "decode.encoding_wrong"
        said = "no $DWGCODEPAGE" if encoding == "ascii" else encoding
        raise Refusal(code, f"{said}, byte {first + problem.start}") from problem
    if encoding != "utf-8" and not octets.isascii() and _is_utf8(octets):
        raise Refusal("decode.encoding_wrong", f"{encoding} declared, UTF-8 found")
    if "\0" in text:
        raise Refusal("decode.not_readable", "not text")
    lines = pl.Series([text.removesuffix("\n")], dtype=pl.String).str.split("\n").explode()
    if (lines.str.len_bytes() > LINE_CHARACTERS).any() and (lines.str.len_chars() > LINE_CHARACTERS).any():
        raise Refusal("decode.too_large", f"a line of more than {LINE_CHARACTERS} characters")
    return lines


def _is_utf8(octets: bytes) -> bool:
    """Whether the octets are UTF-8 beyond doubt. UTF-8 read as GBK gives wrong characters, seldom an error.

    A word or two of GBK may be UTF-8 by chance (联通 is); eight different characters are not.
    """
    try:
        return len({character for character in octets.decode("utf-8") if character > "\x7f"}) >= 8
    except UnicodeDecodeError:
        return False


def _tags(lines: pl.Series, line: int) -> Tags:
    """Every second line as a group code, the others as values. line: how many stand before, to name a bad one."""
    codes = lines.gather_every(2).str.strip_chars(" \t\r").cast(pl.Int16, strict=False)
    values = lines.gather_every(2, 1).str.strip_suffix("\r")
    if codes.null_count():
        bad = codes.is_null().arg_max() or 0
        ends = ((codes[:bad] == 0) & (values[:bad].str.strip_chars() == EOF)).arg_true()
        if ends.is_empty():
            raise Refusal("decode.not_readable", f"line {line + 2 * bad + 1}: no group code")
        codes, values = codes[: ends[0] + 1], values[: ends[0] + 1]
    return Tags(codes.to_numpy(), values)


# Escapes


def plain(text: str) -> str:
    """The text with `\\U+4E2D` and `\\M+5D6D0` as the characters they stand for; control characters stay escaped.

    Raises Refusal decode.encoding_wrong: half a surrogate pair, or bytes that the named code page does not have.
    """
    try:
        return _ESCAPE.sub(_unescaped, text).encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError as problem:
        raise Refusal("decode.encoding_wrong", "an escape that stands for no character") from problem


def _unescaped(found: re.Match[str]) -> str:
    if found[1]:
        character = chr(int(found[1], 16))
        return found[0] if character < " " else character
    return bytes.fromhex(found[3]).lstrip(b"\0").decode(_MULTIBYTE[found[2]])
