"""A one-way door onto a bus of one process: packages, right or spoilt, laid in, and what lies there afterwards."""

import asyncio
import json
from pathlib import Path
from typing import Any

from connectors.partner.folder import PartnerFolder
from connectors.transports.package import HEAD_BYTES, MAGIC
from exchange.packages import PackageDoor, make_folders
from security import cms_delivery, jws_delivery
from security.keys import SigningKey
from security.message import in_memory
from tests.acts.bench_of_one import FEED, Acts

NAME = "test"


def package(envelope: bytes, content: bytes) -> bytes:
    """The octets of a package."""
    return MAGIC + len(envelope).to_bytes(4, "big") + len(content).to_bytes(8, "big") + envelope + content


def envelope(acts: Acts, message_id: str, content: bytes, key: SigningKey | None = None, **spoiled: Any) -> bytes:
    """The signed envelope of content that lies beside it; what it says may be spoiled by name."""
    key = key or acts.folder.signing
    sign = cms_delivery.sign_apart if key.algorithm == "SM2" else jws_delivery.sign_apart
    said: dict[str, Any] = {"sender": "made-up", "recipient": acts.bus.origin, "content_type": "text/csv"}
    said |= {"signed_at": acts.bus.clock(), "feed": FEED, "message_id": message_id, **spoiled}
    return sign(in_memory(content), key, **said)


class Gate:
    """The folder, as the gateway sees it from one side and the operator from the other."""

    def __init__(self, acts: Acts, folder: Path) -> None:
        make_folders(folder)
        self.acts, self.folder = acts, folder
        self.spool = acts.bus.folder / "spool"
        self.spool.mkdir(exist_ok=True)
        self.door = self.opened()

    def opened(self, **changed: Any) -> PackageDoor:
        """The door as a process that starts now opens it, with members of the bus changed."""
        return PackageDoor(self.acts.with_(**changed).bus, self.folder, NAME, self.spool)

    def lay(self, octets: bytes, name: str = "a.package") -> Path:
        """Lay a file in."""
        path = self.folder / "in" / name
        path.write_bytes(octets)
        return path

    def look(self, door: PackageDoor | None = None) -> None:
        """The door looks once."""
        asyncio.run((door or self.door)._look())

    def take(self, octets: bytes, name: str = "a.package") -> None:
        """Lay it in, and let the door look."""
        self.lay(octets, name)
        self.look()

    @property
    def waiting(self) -> list[str]:
        """What lies in in/."""
        return sorted(path.name for path in (self.folder / "in").iterdir())

    def out(self, bureau: str = "made-up") -> dict[str, bytes]:
        """What lies there for a bureau's courier."""
        folder = self.folder / "out" / bureau
        return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}

    def refused(self) -> dict[str, Any]:
        """Of each package refused, its code."""
        return {path.name: json.loads(path.read_text())["code"] for path in (self.folder / "refused").glob("*.json")}

    def courier(self) -> Path:
        """The bureau's folder, for its courier to take home."""
        return self.folder / "out" / "made-up"


def content_at(octets: bytes) -> int:
    """Where the content of a package begins."""
    return HEAD_BYTES + int.from_bytes(octets[len(MAGIC) : len(MAGIC) + 4], "big")


def partner_folder(acts: Acts, bureau: str = "made-up") -> PartnerFolder:
    """A bureau's own folder."""
    return PartnerFolder(acts.trial.partners / bureau)
