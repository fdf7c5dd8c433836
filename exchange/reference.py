"""基准数据 What a city's node hands down: the divisions' polygons and the unit grid by which every node places.

One signed list, which names each part by its digest; the parts are fetched by these. Its version only rises, so a
district's node takes no older list for a newer one, and never two lists of one version. Feeds' files are no part of it:
which mapping counts at a node, two persons of that node decide.
"""

from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec

from exchange.entry import Entry
from exchange.journal import Journal
from exchange.placing import load_city
from exchange.small_file import write_whole
from exchange.transformation import Extent
from mappings.codelists import classes, divisions
from security.anchors import Anchors
from security.errors import Misconfigured, Refusal
from security.jws import key_named, open_document, sign_document
from security.keys import SigningKey, der_of_pem

TYPE: Final = "yt-reference+jws"
PARTS: Final = ("districts.geojson", "grid.geojson")
CURRENT: Final = "current"
VERSION_FILE: Final = "reference.json"


class Reference(msgspec.Struct, frozen=True):
    """What a city's node gives out. signed: the list; parts: octets by SHA-256, hex."""

    version: int
    signed: bytes
    parts: Mapping[str, bytes]


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    digest: str
    length: int


class Listed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The list. digest: SHA-256 over all of it but version and itself; lists: of class and division codes, hex."""

    v: int
    origin: str
    version: int
    digest: str
    edition: str
    lists: str
    parts: list[_Part]


class Adopted(msgspec.Struct, frozen=True):
    """Which version is in force; 0 before the first."""

    version: int = 0
    digest: str = ""


def make_reference(origin: str, edition: str, parts: Mapping[str, bytes], state: Path, key: SigningKey) -> Reference:
    """What is in force now, under the next version number where it differs from what was given out last.

    parts: GeoJSON by the names in PARTS; state: folder that remembers the version. Raises Misconfigured, OSError.
    """
    listed = [_Part(name, sha256(octets).hexdigest(), len(octets)) for name, octets in parts.items()]
    digest = _digest(edition, lists_digest(edition), listed)
    last = _remembered(state / VERSION_FILE)
    if digest != last.digest:
        last = Adopted(last.version + 1, digest)
        write_whole(state / VERSION_FILE, msgspec.json.encode(last))
    document = Listed(1, origin, last.version, digest, edition, lists_digest(edition), listed)
    signed = sign_document(msgspec.to_builtins(document), TYPE, key)
    by_digest = {part.digest: parts[part.name] for part in listed}
    return Reference(last.version, signed, by_digest)


def lists_digest(edition: str) -> str:
    """SHA-256, hex, over the class codes of an edition and the division codes, with their names."""
    frames = (classes(edition), divisions())
    return sha256("\n".join(frame.write_csv() for frame in frames).encode()).hexdigest()


def open_listed(octets: bytes, anchors: Anchors) -> Listed:
    """The list, once it is signed by the city's answer key. Raises Refusal `reference.signature`."""
    known = {sha256(der).hexdigest(): der for der in (der_of_pem(p.encode()) for p in anchors.receipt_certificates)}
    try:
        certificate = known[key_named(octets)]
        listed = msgspec.convert(open_document(octets, certificate, TYPE), Listed)
    except (Refusal, KeyError, msgspec.ValidationError) as problem:
        raise Refusal("reference.signature") from problem
    if (listed.v, listed.origin) != (1, anchors.origin) or listed.digest != _digest(
        listed.edition, listed.lists, listed.parts
    ):
        raise Refusal("reference.signature", f"{listed.origin}, version {listed.version}")
    return listed


class Shelf:
    """Where a district's node keeps what it fetched: `vN-DIGEST/`, `current` that points at one of them, and which.

    Settings name files under `current`; a change of it is one renaming, so that no process ever finds half of it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def adopted(self) -> Adopted:
        """What is in force. Raises Misconfigured where the file that says so cannot be read."""
        return _remembered(self.folder / VERSION_FILE)

    def is_news(self, listed: Listed) -> bool:
        """Whether a list is newer than what is in force. Raises Refusal `reference.older`, `reference.other`."""
        now = self.adopted
        if listed.version < now.version:
            raise Refusal("reference.older", f"{listed.version} < {now.version}")
        if listed.version == now.version and listed.digest != now.digest:
            raise Refusal("reference.other", str(listed.version))
        return listed.version > now.version

    def adopt(self, listed: Listed, part: Callable[[str], bytes], edition: str, extent: Extent, log: Journal) -> None:
        """Fetch, check and put in force a list that is news; the audit has it before it counts.

        part: gives a part's octets by digest; edition, extent: of this node
        Raises Refusal `reference.part_differs`, `reference.lists_differ`; OSError. Then what was in force stays.
        """
        if (listed.edition, listed.lists) != (edition, lists_digest(edition)):
            raise Refusal("reference.lists_differ", f"{listed.edition}, here {edition}")
        if sorted(one.name for one in listed.parts) != sorted(PARTS):
            raise Refusal("reference.part_differs", ", ".join(one.name for one in listed.parts)[:80])
        beside = self.folder / f"v{listed.version}-{listed.digest[:16]}"
        beside.mkdir(parents=True, exist_ok=True)
        for one in listed.parts:
            octets = part(one.digest)
            if len(octets) != one.length or sha256(octets).hexdigest() != one.digest:
                raise Refusal("reference.part_differs", one.name)
            write_whole(beside / one.name, octets)
        try:
            load_city(beside / PARTS[0], beside / PARTS[1], extent)
        except Misconfigured as problem:
            raise Refusal("reference.part_differs", str(problem)[:160]) from problem
        log.note(_entry(listed)).result()
        self._swap(beside)
        write_whole(self.folder / VERSION_FILE, msgspec.json.encode(Adopted(listed.version, listed.digest)))

    def _swap(self, to: Path) -> None:
        link = self.folder / f"{CURRENT}.new"
        link.unlink(missing_ok=True)
        link.symlink_to(to.name)
        link.replace(self.folder / CURRENT)


def _entry(listed: Listed) -> Entry:
    detail: dict[str, str | int] = {"origin": listed.origin, "version": listed.version, "digest": listed.digest}
    return Entry(type="reference", outcome="adopted", detail=detail)


def _remembered(path: Path) -> Adopted:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Adopted) if path.exists() else Adopted()
    except msgspec.MsgspecError as problem:
        raise Misconfigured("config.file", f"{path}: cannot be read; put it back from a backup") from problem


def _digest(edition: str, lists: str, parts: list[_Part]) -> str:
    said: list[Any] = [edition, lists, msgspec.to_builtins(parts)]
    return sha256(msgspec.json.encode(said, order="deterministic")).hexdigest()
