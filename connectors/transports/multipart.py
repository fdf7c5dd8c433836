"""multipart/related as SOAP with MTOM uses it: exactly two parts, the envelope and one attachment.

RFC 2387, RFC 2046 §5.1, XOP §4. Strict: what two readers could read differently is refused. The attachment is a slice
of the spooled body, never copied.
"""

import hashlib
import io
import mmap
import re
import secrets
from email.message import Message
from typing import Any, Final

import msgspec

from security.errors import Refusal
from security.message import Content, Digest, in_memory, sha256

MAX_PART_HEAD_BYTES: Final = 8_192
PIECE_BYTES: Final = 1 << 20
_BOUNDARY: Final = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")
_HEADER: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t\x20-\x7e]*?)[ \t]*")
_IDENTIFIER: Final = re.compile(r"<([!-;=?-~]{1,250})>")
_ENCODINGS: Final = ("binary", "8bit")
Octets = bytes | mmap.mmap


class MediaType(msgspec.Struct, frozen=True):
    """A media type and its parameters, names lower case: `text/xml`, {"charset": "utf-8"}."""

    name: str
    parameters: dict[str, str]


class Related(msgspec.Struct, frozen=True):
    """The two parts of one message.

    envelope:      octets of the root part
    envelope_type: `text/xml` or `application/soap+xml`, as the root part says
    action:        SOAP 1.2 `action` of the root part, if given
    attachment:    the other part; attachment_id its Content-ID without angle brackets
    """

    envelope: bytes
    envelope_type: str
    action: str | None
    attachment: Content
    attachment_id: str


def media_type(value: str) -> MediaType:
    """Take apart a Content-Type. Raises Refusal `http.media_type` when a parameter is given twice or it is none."""
    message = Message()
    message["content-type"] = value
    pairs = [(str(name).lower(), str(text)) for name, text in message.get_params(failobj=[], unquote=True)]
    names = [name for name, _ in pairs]
    if not pairs or pairs[0][1] or "/" not in names[0] or len(set(names)) != len(names):
        raise Refusal("http.media_type", value[:80])
    return MediaType(names[0], dict(pairs[1:]))


def take_apart(body: Content, declared: MediaType, *, max_envelope_bytes: int) -> Related:
    """The envelope and the attachment of a multipart/related body.

    Raises Refusal `mtom.boundary`, `mtom.parts`, `mtom.part_header`, `mtom.encoding`, `mtom.root`, `size.too_large`.
    """
    if body.octets is not None:
        return _take_apart(body.octets, 0, body, declared, max_envelope_bytes)
    if body.path is None:
        return _of_stream(body, declared, max_envelope_bytes)
    before = body.offset % mmap.ALLOCATIONGRANULARITY  # a map begins at a page, the body perhaps after it
    begin = body.offset - before
    with (
        body.path.open("rb") as file,
        mmap.mmap(file.fileno(), before + body.size, access=mmap.ACCESS_READ, offset=begin) as mapped,
    ):
        return _take_apart(mapped, before, body, declared, max_envelope_bytes)


def put_together(envelope: bytes, attachment: Content) -> Content:
    """An envelope and its attachment as one message, the attachment left where it lies: what `take_apart` reads."""
    boundary = f"yongtong-{secrets.token_hex(16)}".encode()
    head = (
        b"--%b\r\nContent-Type: application/xop+xml; charset=UTF-8\r\nContent-Transfer-Encoding: binary\r\n\r\n"
        b"%b\r\n--%b\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n"
        b"Content-ID: <content@yongtong>\r\n\r\n" % (boundary, envelope, boundary)
    )
    parts = (in_memory(head), attachment, in_memory(b"\r\n--%b--\r\n" % boundary))
    hashed = hashlib.sha256()
    for part in parts:
        for piece in part.pieces():
            hashed.update(piece)
    size = sum(part.size for part in parts)
    return Content(size, Digest("SHA-256", hashed.digest()), source=lambda: io.BufferedReader(_Joined(parts)))


class _Joined(io.RawIOBase):
    """Contents one after another, as a stream that is read once from its beginning."""

    def __init__(self, parts: tuple[Content, ...]) -> None:
        self._pieces = (piece for part in parts for piece in part.pieces())
        self._left = b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """To where it stands: a `Content` is read from offset 0."""
        if (offset, whence) != (0, 0):
            raise OSError("read from the beginning only")
        return 0

    def tell(self) -> int:
        return 0

    def readinto(self, buffer: Any) -> int:
        """As much as fits of what comes next; 0 at the end."""
        self._left = self._left or next(self._pieces, b"")
        taken = self._left[: len(buffer)]
        buffer[: len(taken)] = taken
        self._left = self._left[len(taken) :]
        return len(taken)


def _of_stream(body: Content, declared: MediaType, max_envelope_bytes: int) -> Related:
    """The same of sealed evidence: in the clear it lies in memory alone, and only as long as this takes."""
    with mmap.mmap(-1, body.size) as mapped, body.open() as stream:
        left = body.size
        while left and (piece := stream.read(min(left, PIECE_BYTES))):
            left -= mapped.write(piece)
        return _take_apart(mapped, 0, body, declared, max_envelope_bytes)


def _take_apart(octets: Octets, start: int, body: Content, declared: MediaType, max_envelope_bytes: int) -> Related:
    (root_from, root_to), (part_from, part_to) = _two_parts(octets, start, _boundary(declared))
    root_head, root_from = _head(octets, root_from, root_to)
    part_head, part_from = _head(octets, part_from, part_to)
    if root_to - root_from > max_envelope_bytes:
        raise Refusal("size.too_large", f"{root_to - root_from} > {max_envelope_bytes}")
    envelope_type, action = _root_type(root_head, declared)
    return Related(
        envelope=octets[root_from:root_to],
        envelope_type=envelope_type,
        action=action,
        attachment=_slice(octets, body, part_from, part_to, body.offset - start),
        attachment_id=_identifier(part_head),
    )


def _boundary(declared: MediaType) -> bytes:
    boundary = declared.parameters.get("boundary", "")
    if not _BOUNDARY.fullmatch(boundary):
        raise Refusal("mtom.boundary", "missing or malformed")
    return boundary.encode("ascii")


def _two_parts(octets: Octets, start: int, boundary: bytes) -> list[tuple[int, int]]:
    """Where the two parts lie, their headers included. No preamble and no epilogue but one line end."""
    opening, delimiter = b"--" + boundary, b"\r\n--" + boundary
    at = start + 2 if octets[start : start + 2] == b"\r\n" else start
    if octets[at : at + len(opening) + 2] != opening + b"\r\n":
        raise Refusal("mtom.boundary", "the body does not begin with it")
    begin, parts = at + len(opening) + 2, []
    while True:
        end = octets.find(delimiter, begin)
        if end < 0:
            raise Refusal("mtom.boundary", "the closing one is missing")
        parts.append((begin, end))
        begin = end + len(delimiter) + 2
        after = octets[begin - 2 : begin]
        if after == b"--":
            break
        if after != b"\r\n" or len(parts) == 2:
            raise Refusal("mtom.parts" if after == b"\r\n" else "mtom.boundary", "exactly two are taken")
    if octets[begin : begin + 3] not in (b"", b"\r\n"):
        raise Refusal("mtom.boundary", "something follows the closing one")
    if len(parts) != 2:
        raise Refusal("mtom.parts", f"{len(parts)}, exactly two are taken")
    return parts


def _head(octets: Octets, begin: int, end: int) -> tuple[dict[str, str], int]:
    """Headers of one part, names lower case, and where its content begins."""
    blank = octets.find(b"\r\n\r\n", begin, min(end + 2, begin + MAX_PART_HEAD_BYTES))
    if blank < 0 or blank + 4 > end:
        raise Refusal("mtom.part_header", "no blank line ends it")
    headers: dict[str, str] = {}
    for line in octets[begin:blank].split(b"\r\n"):
        match = _HEADER.fullmatch(line)  # a bare line feed, folding or a control character matches nothing
        name = match[1].decode("ascii").lower() if match else ""
        if match is None or name in headers:
            raise Refusal("mtom.part_header", "malformed or given twice")
        headers[name] = match[2].decode("ascii")
    if headers.get("content-transfer-encoding", "").lower() not in _ENCODINGS:
        raise Refusal("mtom.encoding", headers.get("content-transfer-encoding", "none")[:40])
    return headers, blank + 4


def _root_type(head: dict[str, str], declared: MediaType) -> tuple[str, str | None]:
    """The root is the first part, an XOP package whose `type` is the SOAP version's, and `start` agrees."""
    start = declared.parameters.get("start")
    if start is not None and start != head.get("content-id"):
        raise Refusal("mtom.root", "start names another part than the first")
    root = media_type(head.get("content-type", ""))
    if root.name != "application/xop+xml" or declared.parameters.get("type", root.name) != root.name:
        raise Refusal("mtom.root", "not application/xop+xml")
    # Some toolkits put `type="application/soap+xml; action=..."` into the root part (XOP §4.1 lets them).
    inner = media_type(root.parameters.get("type", "text/xml"))
    return inner.name, root.parameters.get("action", inner.parameters.get("action"))


def _identifier(head: dict[str, str]) -> str:
    match = _IDENTIFIER.fullmatch(head.get("content-id", ""))
    if match is None:
        raise Refusal("mtom.part_header", "Content-ID missing or malformed")
    return match[1]


def _slice(octets: Octets, body: Content, begin: int, end: int, shift: int) -> Content:
    """The attachment. shift: where in the file octets begins."""
    if body.octets is not None:
        part = octets[begin:end]
        return Content(end - begin, sha256(part), octets=part)
    with memoryview(octets) as view, view[begin:end] as part_view:
        digest = hashlib.sha256(part_view).digest()
    found = Digest("SHA-256", digest)
    return Content(end - begin, found, path=body.path, offset=shift + begin, source=body.source)
