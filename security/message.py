"""A message on its way from "it arrived" to "it is believed": the types of one delivery.

Each step takes the type that the step before gave, so a check left out is a type error.
"""

import hashlib
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Final, Literal, Protocol

import msgspec

from security.sm2 import Sm3

# What a delivery's evidence proves: signed by the bureau's key; by its front node's key; its digest signed by a named
# person; or fetched by the bus itself, which proves only what the bus saw.
EvidenceClass = Literal["signed", "fronted", "uploaded", "collected"]
# A key's use: of the bureau itself, of the bureau's own front node 前置机, or for connections alone. And of double
# certificates (签名/加密) the encryption one, whose key an authority holds too: it proves nothing and connects nobody.
Use = Literal["signing", "front", "connection", "encryption"]
Action = Literal["push", "pull", "subscribe", "audit", "carry", "on_behalf_of"]


Hash = Literal["SHA-256", "SM3"]
HASHES: Final[dict[str, Hash]] = {"SHA-256": "SHA-256", "SM3": "SM3"}  # by what a message calls them
PIECE_BYTES: Final = 1 << 20
# Before the name of what handed a delivery over, as receipts and entries name it where another names a certificate.
BROKER, FOLDER = "broker:", "folder:"
LAST_SEQUENCE: Final = (1 << 53) - 1  # what every reader of JSON takes for a whole number


class Hasher(Protocol):
    """A hash under way, as hashlib has them."""

    def update(self, octets: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


def hasher(algorithm: Hash) -> Hasher:
    """A new hash of that name."""
    return hashlib.sha256() if algorithm == "SHA-256" else Sm3()


class Digest(msgspec.Struct, frozen=True):
    """A hash value that says which hash. value: raw octets."""

    algorithm: Hash
    value: bytes

    @property
    def hex(self) -> str:
        return self.value.hex()


def sha256(octets: bytes) -> Digest:
    """The SHA-256 digest of octets."""
    return Digest("SHA-256", hashlib.sha256(octets).digest())


class Content(msgspec.Struct, frozen=True):
    """Octets with their size and SHA-256 digest; in memory when small, a slice of a file or of a stream when large.

    octets: the bytes, or None when they lie in `path` from `offset` for `size` bytes
    source: where neither is: opens a stream that can be read from any place, in which they lie from `offset`
    """

    size: int
    digest: Digest
    octets: bytes | None = None
    path: Path | None = None
    offset: int = 0
    source: Callable[[], IO[bytes]] | None = None

    def read(self) -> bytes:
        """All octets at once."""
        if self.octets is not None:
            return self.octets
        with self.open() as stream:
            return stream.read(self.size)

    def part(self, offset: int, size: int) -> "Content":
        """A part of it, hashed; where it lies in a file it stays there. size: at most; less at the end."""
        size = min(size, self.size - offset)
        if self.octets is not None:
            return in_memory(self.octets[offset : offset + size])
        there = Content(size, self.digest, path=self.path, offset=self.offset + offset, source=self.source)
        hashed = hashlib.sha256()
        for piece in there.pieces():
            hashed.update(piece)
        return Content(size, Digest("SHA-256", hashed.digest()), None, there.path, there.offset, there.source)

    def open(self) -> IO[bytes]:
        """A binary stream at the first octet. A slice of a longer file is not cut at the end: read `size` bytes."""
        if self.octets is not None:
            import io

            return io.BytesIO(self.octets)
        assert self.path is not None or self.source is not None
        stream = self.path.open("rb") if self.path is not None else self.source()  # type: ignore[misc]  # as asserted
        stream.seek(self.offset)
        return stream

    def pieces(self, octets: int = PIECE_BYTES) -> Iterator[bytes]:
        """The content in pieces of so many octets, the last perhaps shorter. Raises OSError when it ends too early."""
        left = self.size
        with self.open() as stream:
            while left and (piece := stream.read(min(octets, left))):
                left -= len(piece)
                yield piece
        if left:
            raise OSError(f"the content ended {left} octets early")

    def digest_by(self, algorithm: Hash) -> Digest:
        """Its digest by that hash: by SHA-256 it is known already, for SM3 all is read again."""
        if algorithm == "SHA-256":
            return self.digest
        hashed = hasher(algorithm)
        for piece in self.pieces():
            hashed.update(piece)
        return Digest(algorithm, hashed.digest())


def in_memory(octets: bytes) -> Content:
    """Content of octets already held."""
    return Content(size=len(octets), digest=sha256(octets), octets=octets)


class EnrolledCertificate(msgspec.Struct, frozen=True):
    """A certificate that the registry binds to one bureau, for one use.

    der:         the certificate, compared byte for byte
    fingerprint: SHA-256 of der, lower-case hex
    not_before, not_after, revoked_at: aware, UTC
    status_until: the last moment for which its authority's word on revocation may be believed, grace included; None
                  where no authority is asked
    """

    bureau: str
    use: Use
    der: bytes
    fingerprint: str
    not_before: datetime
    not_after: datetime
    revoked_at: datetime | None = None
    status_until: datetime | None = None

    @property
    def evidence_class(self) -> EvidenceClass:
        """What a delivery is called that this key signed. Asked of keys for signing only."""
        return "fronted" if self.use == "front" else "signed"


class Principal(msgspec.Struct, frozen=True):
    """Somebody known: a bureau, and the enrolled certificate by which we know it (SHA-256 hex)."""

    bureau: str
    certificate: str


class Area(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """Where a grant reaches: in any of what is named; nothing named means everywhere.

    districts: division codes, each with all below it; cells: codes of unit grids
    polygon:   longitude, latitude in degrees of CGCS2000, a ring without holes, its first corner not repeated
    """

    districts: tuple[str, ...] = ()
    cells: tuple[str, ...] = ()
    polygon: tuple[tuple[float, float], ...] = ()


EVERYWHERE: Final = Area()


class Grant(msgspec.Struct, frozen=True, gc=False):
    """Who may do what with which feed or view, and why. Days are whole days of +08:00, `until` included.

    action: `push` into feed `target`, `pull` from view `target` (`ownership`, `components`, `changes`), `subscribe` to
            view `target` (`changes`: told without asking), `audit`; `carry` what bureau `target` signed, sign
            `on_behalf_of` bureau `target`
    classes:    class codes the grant covers; empty means all of the feed or view
    area:       where
    attributes: names of the shared schema that may be sent or seen beside identity, class and place; empty means all
    map_area_km2: the contiguous area that may be exported in one piece; 0 means what the settings allow everybody
    """

    id: str
    bureau: str
    action: Action
    target: str
    classes: tuple[str, ...]
    valid_from: str
    valid_until: str
    purpose: str
    basis: str
    proposed_by: str
    approved_by: str
    area: Area = EVERYWHERE
    attributes: tuple[str, ...] = ()
    map_area_km2: int = 0


class Carried(msgspec.Struct, frozen=True):
    """How a broker handed a message over. feed: the one that the topic names."""

    feed: str
    qos: int
    retained: bool


class Delivery(msgspec.Struct, frozen=True):
    """One message as it arrived; nothing in it is believed yet.

    door:        `soap`, `mqtt`, `rest` or `folder`
    carrier_der: the TLS client certificate, if one was shown
    envelope:    the envelope's octets: XML (the root part when the message came as MTOM), a JWS or a CMS
    remote:      address of the other side; where no connection of the sender's brought it, who handed it over as
                 receipts and entries say it, `broker:{name}` or `folder:{name}`
    carried:     set where a broker handed it over
    attachment:  the one MTOM part, or the content of a package, if any; attachment_id the part's Content-ID without
                 angle brackets
    raw:         the whole request body, or package, as it came, for the evidence
    operation:   of SOAP, the one that is asked for by its transport or its Body; they must agree
    """

    door: str
    carrier_der: bytes | None
    remote: str
    envelope: bytes
    raw: Content
    received_at: datetime
    attachment: Content | None = None
    attachment_id: str = ""
    carried: Carried | None = None
    operation: str = ""

    @property
    def handed_over_by(self) -> str:
        """The broker or folder that brought it, which vouches for nobody; empty where a connection did."""
        return self.remote if self.door in ("mqtt", "folder") else ""


class VerifiedPayload(msgspec.Struct, frozen=True):
    """The bytes a bureau signed, and nothing else of the envelope.

    Only `security.signatures` makes one, and act two decodes nothing else: what was not signed is not parsed.

    signed_at: UTC, from the signature, not from our clock
    form:      `inline`, `mtom` (signed as sent), `mtom-expanded` (signed with the part's base64 in place), `upload`
               (came in pieces before), `jws`, `cms`, or `package` (one of both, the content beside it)
    sequence:  which delivery of this sender to this feed it is, from 1; None where the sender does not count
    """

    content: Content
    content_type: str
    sender: str
    feed: str
    message_id: str
    signer: Principal
    signed_at: datetime
    form: str
    sequence: int | None = None


def file_content(path: Path) -> Content:
    """Content of a whole file, hashed piece by piece and left where it is. Raises OSError."""
    hashed = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            hashed.update(piece)
        size = stream.tell()
    return Content(size=size, digest=Digest("SHA-256", hashed.digest()), path=path)
