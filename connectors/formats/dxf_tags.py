"""DXF bytes to tags: pairs of a group code and a value, in blocks of a few megabytes, decoded strictly.

No format of its own: `connectors.formats.dxf` makes records of what this module scans. Nothing here knows an entity,
and nothing takes a Python step a line: the codes of a block are read eight octets at a time, and its values stay octets
until a column of them is asked for.
"""

import io
import itertools
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from connectors.formats import dxf_binary
from connectors.formats.dxf_garbled import LOOKED_AT_BYTES, WESTERN, is_gb, spoilt
from security.errors import Refusal
from security.message import Content

BLOCK_BYTES: Final = 1 << 21
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
_DWG: Final = re.compile(rb"AC[12](?:\.\d\d?|\d{3})|MC0\.0")
_BOM: Final = b"\xef\xbb\xbf"
_LF, _CR = b"\n\r"
_WORD: Final = 8  # octets that a group code is read by; a block begins with as many of its own
_NO_CODE: Final = np.iinfo(np.int16).min
_ESCAPE: Final = re.compile(r"\\U\+([0-9A-Fa-f]{4})|\\M\+([1-5])([0-9A-Fa-f]{4})")
_MULTIBYTE: Final = {"1": "cp932", "2": "cp950", "3": "cp949", "4": "johab", "5": "gb18030"}


class Tags(NamedTuple):
    """Group codes, and where in `octets` their values stand, white space included and line's end not; of one length.

    The octet after a value is always there.
    """

    codes: NDArray[np.int16]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    octets: NDArray[np.uint8]
    encoding: str

    def texts(self, at: NDArray[np.int64]) -> pl.Series:
        """The values of these tags as they are spelled; null for -1."""
        said = at >= 0
        texts = _texts(self.octets, self.starts[at[said]], self.ends[at[said]], self.encoding)
        if len(texts) == len(at):
            return texts
        return texts.gather(pl.Series(np.cumsum(said) - 1).set(pl.Series(~said), None))

    def only(self, which: slice | NDArray[np.bool_]) -> "Tags":
        """Some of them."""
        return self._replace(codes=self.codes[which], starts=self.starts[which], ends=self.ends[which])

    def then(self, more: "Tags") -> "Tags":
        """These, which are few, and those that follow them."""
        if not len(self.codes):
            return more
        begin, end = self.starts[0], self.ends[-1] + 1
        return Tags(
            np.concatenate([self.codes, more.codes]),
            np.concatenate([self.starts - begin, more.starts + (end - begin)]),
            np.concatenate([self.ends - begin, more.ends + (end - begin)]),
            np.concatenate([self.octets[begin:end], more.octets]),
            more.encoding,
        )


def no_tags() -> Tags:
    """A drawing's tags before the first."""
    none = np.empty(0, np.int64)
    return Tags(none.astype(np.int16), none, none, none.astype(np.uint8), "ascii")


def scan(content: Content, declared: str | None) -> Iterator[Tags]:
    """Yield the tags of a drawing in order; values as they are spelled, escapes and white space included.

    declared: the feed's `encoding`, which is then believed instead of the drawing. Lines end with LF, CRLF, or CR where
    the drawing begins so. A line that is no group code ends the scan quietly if the drawing's EOF stands before it in
    its block: some programs leave rubbish there.

    Raises Refusal decode.dwg, decode.encoding_unknown, decode.encoding_wrong, decode.not_readable,
    decode.text_garbled, decode.too_large.
    """
    encoding, line = "", 0
    for first, octets in _blocks(content):
        if not encoding:
            encoding = _encoding(octets, declared)
            octets = octets.removeprefix(_BOM)
        block, starts, ends = _lines(octets)
        _check(block, starts, ends, encoding, first, told=declared is not None)
        paired = len(ends) // 2 * 2
        codes = _codes(block, starts[:paired:2], ends[:paired:2])
        tags = Tags(codes, starts[1:paired:2], ends[1:paired:2], block, encoding)
        whole = _before_rubbish(tags, line)
        yield whole
        if len(whole.codes) < len(codes):
            return
        line += paired
        if paired < len(ends):
            raise Refusal("decode.not_readable", f"line {line + 1}: a group code without its value")


def _blocks(content: Content) -> Iterator[tuple[int, bytes]]:
    """(offset, whole pairs of lines): a few megabytes each; the last may lack a line's end, or a line.

    Of a binary drawing the lines are made, and offsets are in them.
    """
    pieces = _pieces(content)
    first = next(pieces, b"")
    whole: Iterator[bytes] = itertools.chain([first], pieces)
    if first.startswith(dxf_binary.MARK):
        whole = dxf_binary.as_text(whole)
    elif b"\n" not in first and b"\r" in first:  # an old Macintosh ends lines with CR alone
        whole = (piece.replace(b"\r", b"\n") for piece in whole)
    offset, rest = 0, b""
    for piece in whole:
        piece = rest + piece
        end = _pairs_end(piece)
        if not end and len(piece) > BLOCK_BYTES + 2 * LINE_BYTES:
            raise Refusal("decode.too_large", f"a line of more than {LINE_CHARACTERS} characters")
        if end:
            yield offset, piece[:end]
        offset, rest = offset + end, piece[end:]
    if rest:
        yield offset, rest


def _pieces(content: Content) -> Iterator[bytes]:
    try:
        yield from content.pieces(BLOCK_BYTES)
    except OSError as problem:
        raise Refusal("decode.not_readable", "the stored content is shorter than it was") from problem


def _pairs_end(piece: bytes) -> int:
    """How many octets the whole pairs of lines take."""
    end = piece.rfind(b"\n")
    if piece.count(b"\n") % 2:
        end = piece.rfind(b"\n", 0, end)
    return end + 1


# Which encoding


def dwg_version(head: bytes) -> str:
    """The version of a DWG that begins so, as it names itself; "" where it is none."""
    found = _DWG.match(head)
    return found[0].decode("ascii") if found else ""


def _encoding(head: bytes, declared: str | None) -> str:
    """The Python codec for a drawing that begins so."""
    if version := dwg_version(head):
        raise Refusal("decode.dwg", version)
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


def _lines(octets: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """The block, and where its lines start and end. No listed encoding has a line's end inside a character."""
    block = np.frombuffer(b" " * _WORD + octets + (b"" if octets.endswith(b"\n") else b"\n"), np.uint8)
    ends = np.flatnonzero(block == _LF)
    starts = np.concatenate([[_WORD], ends[:-1] + 1])
    return block, starts, ends - ((block[ends - 1] == _CR) & (ends > starts))


def _check(
    block: NDArray[np.uint8],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    encoding: str,
    first: int,
    *,
    told: bool,
) -> None:
    """Raise Refusal for a line that is too long or no text. What is ASCII is text in every listed encoding.

    first: the drawing's octet that the block begins with; told: whether the feed says the encoding, who is believed
    """
    lines = np.unique(np.searchsorted(ends, np.flatnonzero(block > 0x7F)))
    if len(lines):
        octets = _gathered(block, starts[lines], ends[lines])
        try:
            octets.decode(encoding)
        except UnicodeDecodeError as problem:
            code = "decode.encoding_unknown" if encoding == "ascii" else "decode.encoding_wrong"
            said = "no $DWGCODEPAGE" if encoding == "ascii" else encoding
            before = octets.count(b"\n", 0, problem.start)
            at = problem.start - (octets.rfind(b"\n", 0, problem.start) + 1) + int(starts[lines[before]])
            raise Refusal(code, f"{said}, byte {first + at - _WORD}") from problem
        if encoding != "utf-8" and _is_utf8(octets):
            raise Refusal("decode.encoding_wrong", f"{encoding} declared, UTF-8 found")
        if not told and encoding in WESTERN and is_gb(octets):
            raise Refusal("decode.encoding_wrong", f"{encoding} declared, GBK found")
        if encoding == "utf-8" and (how := spoilt(octets[:LOOKED_AT_BYTES])):
            raise Refusal("decode.text_garbled", how)
    if not block.all():
        raise Refusal("decode.not_readable", "not text")
    long = ends - starts > LINE_CHARACTERS
    if long.any() and (_texts(block, starts[long], ends[long], encoding).str.len_chars() > LINE_CHARACTERS).any():
        raise Refusal("decode.too_large", f"a line of more than {LINE_CHARACTERS} characters")


def _is_utf8(octets: bytes) -> bool:
    """Whether the octets are UTF-8 beyond doubt. UTF-8 read as GBK gives wrong characters, seldom an error.

    A word or two of GBK may be UTF-8 by chance (联通 is); eight different characters are not.
    """
    try:
        return len({character for character in octets.decode("utf-8") if character > "\x7f"}) >= 8
    except UnicodeDecodeError:
        return False


def _gathered(block: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> bytes:
    """Slices of the block one after another, a LF behind each."""
    lengths = ends - starts + 1
    stops = np.cumsum(lengths)
    octets: NDArray[np.uint8] = block[np.arange(lengths.sum()) + np.repeat(starts - stops + lengths, lengths)]
    octets[stops - 1] = _LF
    return octets.tobytes()


def _texts(block: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64], encoding: str) -> pl.Series:
    text = _gathered(block, starts, ends).decode(encoding)
    return pl.Series([text], dtype=pl.String).str.split("\n").explode()[:-1]


def _codes(block: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int16]:
    """Group codes; _NO_CODE where a line is none. One word holds the last eight octets of a line, the last one on top.

    Blanks before the digits count as zeros. What is neither so nor this short is looked at as text: a minus, a tab,
    blanks behind.
    """
    words = np.ndarray((len(block) - _WORD + 1,), "<u8", block, strides=(1,))[ends - _WORD]
    wide = ends - starts
    ours = np.uint64(0xFFFFFFFFFFFFFFFF) << (8 * np.maximum(_WORD - wide, 0)).astype(np.uint64)
    words = (words & ours) | (_each(0x20) & ~ours)
    digits = (words | _each(0x10)) ^ _each(0x30)
    blanks = ~words >> np.uint64(4) & _each(0x01)
    odd = ((digits + _each(0x06)) | digits) & _each(0xF0) != 0
    odd |= words & (blanks * np.uint64(0x0F)) != 0  # 0x21 to 0x29 are no blanks
    odd |= (blanks >> np.uint64(8) & ~blanks != 0) | (blanks == _each(0x01)) | (wide > _WORD)
    pairs = digits * np.uint64(10) + (digits >> np.uint64(8)) & np.uint64(0x00FF00FF00FF00FF)
    fours = pairs * np.uint64(100) + (pairs >> np.uint64(16)) & np.uint64(0x0000FFFF0000FFFF)
    codes = (fours * np.uint64(10_000) + (fours >> np.uint64(32)) & np.uint64(0xFFFFFFFF)).astype(np.int64)
    if odd.any():
        said = _texts(block, starts[odd], ends[odd], "latin-1").str.strip_chars(" \t")
        codes[odd] = (
            said.set(said.str.starts_with("+"), None).cast(pl.Int16, strict=False).fill_null(_NO_CODE).to_numpy()
        )
    return np.where(codes <= np.iinfo(np.int16).max, codes, _NO_CODE).astype(np.int16)


def _each(octet: int) -> np.uint64:
    """A word of the same octet eight times."""
    return np.uint64(octet * 0x0101010101010101)


def _before_rubbish(tags: Tags, line: int) -> Tags:
    """The tags up to the drawing's EOF, if a line that is no group code stands behind it; else all.

    line: how many lines stand before the block, to name a bad one
    """
    wrong = np.flatnonzero(tags.codes == _NO_CODE)
    if not len(wrong):
        return tags
    marks = np.flatnonzero(tags.codes[: wrong[0]] == 0)
    ends = (tags.texts(marks).str.strip_chars() == EOF).arg_true()
    if ends.is_empty():
        raise Refusal("decode.not_readable", f"line {line + 2 * wrong[0] + 1}: no group code")
    return tags.only(slice(0, int(marks[ends[0]]) + 1))


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
