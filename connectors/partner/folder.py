"""A partner's own folder: its keys, what it trusts, the last head of the log it saw, and every receipt it got."""

import os
import threading
from contextlib import suppress
from datetime import datetime
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from security import pki
from security.anchors import Anchors
from security.batch import unverified
from security.errors import Misconfigured
from security.jws import Document
from security.keyring import Keyring, a_person, is_encrypted
from security.keys import SigningKey, der_of_pem
from security.message import EnrolledCertificate
from security.signed_delivery import FORMS

Kind = Literal["receipt", "report"]
MESSAGE_ID: Final = FORMS["mid"]


class KeysToml(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A partner's `keys.toml`. signing: a path, or a `pkcs11:` URI; passphrase_file: what opens it."""

    signing: str = ""
    passphrase_file: str = ""


class PartnerFolder:
    """Files of one bureau in a folder named by its code.

    `signing.key`, `signing.pem`, `connection.key`, `connection.pem`, `ca.pem` (which the bus's TLS certificate is
    checked against), `anchors.json`, perhaps `keys.toml`; of a witness `witness.key`; written here: `checkpoint`,
    `receipts/`, `reports/`, `packed/`, `forks/`, `witness/`, `sequences.sqlite`.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.bureau = path, path.name

    @classmethod
    def make(
        cls, path: Path, *, signing: SigningKey, connection: SigningKey, ca_pem: bytes, anchors_json: bytes
    ) -> "PartnerFolder":
        """A new folder of these keys (each with its certificate), private keys readable by their owner alone.

        Raises Misconfigured where the folder cannot be made, or holds a key already: a lost key cannot be had again.
        """
        try:
            path.mkdir(parents=True, mode=0o700, exist_ok=True)
            for name, key in (("signing", signing), ("connection", connection)):
                if key.certificate_der is None:
                    raise Misconfigured("config.key", f"{name} key without a certificate")
                descriptor = os.open(path / f"{name}.key", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(key.pem())
                (path / f"{name}.pem").write_bytes(pki.pem_of(key.certificate_der))
        except OSError as problem:
            raise Misconfigured(
                "config.stands", f"{problem.filename}: {problem.strerror}; no key is ever written over"
            ) from problem
        (path / "ca.pem").write_bytes(ca_pem)
        (path / "anchors.json").write_bytes(anchors_json)
        return cls(path)

    @cached_property
    def signing(self) -> SigningKey:
        """The signing key with its certificate, from file or token. Raises Misconfigured naming it."""
        said = self._keys_toml()
        opened_by = self.path / said.passphrase_file if said.passphrase_file else None
        return Keyring(self.path, {"signing": said.signing}, opened_by, a_person()).load("signing")

    def _keys_toml(self) -> KeysToml:
        path = self.path / "keys.toml"
        try:
            return msgspec.toml.decode(path.read_bytes(), type=KeysToml) if path.exists() else KeysToml()
        except (OSError, ValueError) as problem:
            raise Misconfigured("config.file", f"{path}: {problem}") from problem

    @property
    def anchors(self) -> Anchors:
        """What is trusted of the bus. Raises Misconfigured naming the file."""
        try:
            return msgspec.json.decode((self.path / "anchors.json").read_bytes(), type=Anchors)
        except (OSError, msgspec.MsgspecError) as problem:
            raise Misconfigured("config.anchors", f"{self.path / 'anchors.json'}: {problem}") from problem

    def replace_anchors(self, anchors: Anchors) -> None:
        """Keep anchors in place of those until now."""
        self._write(self.path / "anchors.json", msgspec.json.format(msgspec.json.encode(anchors)) + b"\n")

    def answerers(self) -> tuple[EnrolledCertificate, ...]:
        """The certificates that the bus may sign answers with."""
        anchors = self.anchors
        ders = (der_of_pem(pem.encode("ascii")) for pem in anchors.receipt_certificates)
        return tuple(pki.enrolled(der, anchors.origin, "signing") for der in ders)

    def file(self, name: str) -> str:
        """The path of a file that must be there. Raises Misconfigured naming it, or where it is an encrypted key."""
        path = self.path / name
        if not path.is_file():
            raise Misconfigured("config.partner_missing", f"{path}: missing")
        if path.suffix == ".key" and is_encrypted(path):
            raise Misconfigured(
                "config.passphrase", f"{path}: under a passphrase; the connection's key must lie open, mode 0600"
            )
        return str(path)

    def remembered(self) -> str:
        """The text of the last head of the log that was taken; empty before the first."""
        path = self.path / "checkpoint"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def remember(self, checkpoint: str) -> None:
        """Keep a head of the log in place of the last one."""
        self._write(self.path / "checkpoint", checkpoint.encode("utf-8"))

    def certificates(self) -> set[str]:
        """SHA-256 of one's own certificates in this folder, hex."""
        paths = [self.path / "signing.pem", self.path / "connection.pem"]
        return {sha256(der_of_pem(path.read_bytes())).hexdigest() for path in paths if path.exists()}

    def receipts(self) -> dict[int, Document]:
        """The receipts that are kept, by the number of the entry that accepted the delivery."""
        found = {}
        for path in (self.path / "receipts").glob("*.receipt.json"):
            with suppress(ValueError, KeyError):  # a file that somebody spoilt is no receipt
                document = unverified(path.read_bytes())
                found[int(document["index"])] = document
        return found

    def receipt(self, message_id: str) -> Document | None:
        """The receipt that is kept of a delivery; it was checked before it was."""
        path = self.path / "receipts" / f"{message_id}.receipt.json"
        try:
            return unverified(path.read_bytes()) if path.exists() else None
        except (OSError, ValueError, KeyError):  # a file that somebody spoilt is no receipt
            return None

    def note_packed(self, message_id: str, said: bytes) -> None:
        """Keep what went out in a package, as JSON: what its receipt must say."""
        self._write(self.path / "packed" / f"{message_id}.json", said)

    def packed(self, message_id: str) -> Document | None:
        """What went out in a package of that id; None where none did."""
        if not MESSAGE_ID.fullmatch(message_id):
            return None
        path = self.path / "packed" / f"{message_id}.json"
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any]) if path.exists() else None

    def keep(self, kind: Kind, message_id: str, document: bytes) -> Path:
        """Keep a receipt or report under its delivery's message id; gives the file."""
        path = self.path / f"{kind}s" / f"{message_id}.{kind}.json"
        self._write(path, document)
        return path

    def cosigned(self) -> str:
        """The text of the last head of the log that was signed as a witness; empty before the first."""
        path = self.path / "witness" / "checkpoint"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def keep_cosigned(self, checkpoint: str) -> None:
        """Keep a head that is about to be signed as a witness, in place of the last one."""
        self._write(self.path / "witness" / "checkpoint", checkpoint.encode("utf-8"))

    def keep_fork(self, ours: str, theirs: str, proof: bytes | None, now: datetime) -> Path:
        """Keep two heads that cannot both be of one log, and what proves so; gives the folder."""
        folder = self.path / "forks" / now.strftime("%Y%m%dT%H%M%S.%fZ")
        self._write(folder / "remembered.checkpoint", ours.encode("utf-8"))
        self._write(folder / "offered.checkpoint", theirs.encode("utf-8"))
        if proof is not None:
            self._write(folder / "fork.json", proof)
        return folder

    def _write(self, path: Path, octets: bytes) -> None:
        """Whole or not at all, and on disk: it is evidence."""
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
        with beside.open("wb") as file:
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
