"""What the log holds in a bureau's own name, as the bus says it: checked, and what the bureau does not know marked."""

import base64
from collections.abc import Callable, Collection, Iterator, Mapping
from hashlib import sha256
from typing import Any, Final, Literal

import msgspec

from security.errors import Refusal
from security.jose import unb64url
from security.jws import Document
from security.message import BROKER, FOLDER

AT_ONCE: Final = 200  # entries a page, the most that the bus gives
Unknown = Literal["certificate", "delivery", "erased delivery"]


class OwnEntry(msgspec.Struct, frozen=True):
    """An entry in one's own name. detail: None when it was erased; what it commits to was made again."""

    number: int
    leaf: dict[str, Any]
    detail: dict[str, Any] | None


class OwnEntries(msgspec.Struct, frozen=True):
    """All after an entry. count: how many there are in all, from the first."""

    entries: tuple[OwnEntry, ...]
    count: int
    next: int


def checked(number: int, leaf: bytes, salt: str | None, detail: bytes | None) -> OwnEntry:
    """An entry whose detail is what its leaf commits to. salt: hex. Raises Refusal `audit.entries_invalid`."""
    try:
        said = msgspec.json.decode(leaf, type=dict[str, Any])
        if detail is None or salt is None:
            return OwnEntry(number, said, None)
        if sha256(b"\x02" + bytes.fromhex(salt) + detail).hexdigest() == said["detail"]:
            return OwnEntry(number, said, msgspec.json.decode(detail, type=dict[str, Any]))
    except (KeyError, ValueError, msgspec.MsgspecError) as problem:
        raise Refusal("audit.entries_invalid", f"entry {number}") from problem
    raise Refusal("audit.entries_invalid", f"entry {number}: the detail is not what it commits to")


def unknown(entry: OwnEntry, certificates: Collection[str], receipts: Mapping[int, Document]) -> list[Unknown]:
    """What of an entry one does not know: then somebody else acts in one's name.

    certificates: SHA-256 of one's own, hex; receipts: that one holds, by the number of their entry

    `erased delivery`: one was accepted whose detail is gone, and no receipt that one holds is of that entry
    """
    entry = _from_receipt(entry, receipts.get(entry.number, {}))
    used = {entry.leaf["signer"], *enrolled(entry)}
    # Whether another's connection carried it by right, the detail says: where that is gone, nobody can tell.
    carried = bool(entry.leaf["sender"]) if entry.detail is None else "carry_grant" in entry.detail
    if not entry.leaf["carrier"].startswith((BROKER, FOLDER)) and not carried:
        used.add(entry.leaf["carrier"])
    found: list[Unknown] = ["certificate"] if used - {""} - set(certificates) else []
    accepted = (entry.leaf["type"], entry.leaf["outcome"]) == ("delivery", "accepted")
    if accepted and entry.detail is None:
        found.append("erased delivery")
    elif accepted and entry.number not in receipts:
        found.append("delivery")
    return found


def _from_receipt(entry: OwnEntry, receipt: Document) -> OwnEntry:
    """The entry with its detail as one's own receipt has it, where the bus erased it and the leaf commits to that."""
    salt, detail = str(receipt.get("salt", "")), str(receipt.get("detail", ""))
    if entry.detail is not None or not receipt:
        return entry
    try:
        return checked(entry.number, msgspec.json.encode(entry.leaf), salt, detail.encode())
    except Refusal:
        return entry


def enrolled(entry: OwnEntry) -> list[str]:
    """SHA-256 of the certificates that an entry proposes or enrols for the bureau, hex."""
    listed = decided(entry).get("certificates", [])
    return [sha256(base64.b64decode(one["der"])).hexdigest() for one in listed]


def decided(entry: OwnEntry) -> dict[str, Any]:
    """The body of the decision that an entry carries; empty where it carries none."""
    detail = entry.detail or {}
    signed = next((detail[name] for name in ("proposal", "revocation") if name in detail), None)
    if entry.leaf["type"] != "decision" or signed is None:
        return {}
    payload = unb64url(msgspec.json.decode(signed, type=dict[str, str])["payload"])
    body: dict[str, Any] = msgspec.json.decode(payload, type=dict[str, Any])["body"]
    return body


def pages(ask: Callable[[int], Any], after: int) -> Iterator[Any]:
    """Every page after an entry, until one is not full. Each asking is an entry too, so there is always one more."""
    while True:
        page = ask(after)
        yield page
        if len(page.Entry) < AT_ONCE:
            return
        after = page.Next
