"""What a partner trusts of a bus and keeps in a file, `anchors.json`: enough to check all that the bus ever signed."""

from typing import Literal

import msgspec

from security.checkpoint import Checkpoint, log_key_of, open_checkpoint
from security.cosignature import Witness
from security.errors import Misconfigured, Refusal
from security.keys import PublicKey, der_of_pem
from security.suites import SM2_WITH_SM3, SM3, XmlSuites


class FormerLogKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key that the log had. last_size: of the largest head that it alone could sign; key, kind: as of `Anchors`."""

    key: str
    kind: Literal["EdDSA", "SM2"]
    last_size: int

    @property
    def public_key(self) -> PublicKey:
        """The key itself. Raises Misconfigured."""
        return _log_key(self.kind, self.key)


class FormerEpoch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An epoch of the log that is over.

    log:        its name in checkpoints; log_key, log_key_kind, former_log_keys, receipt_certificates: as of `Anchors`
    size, root: of its last head; root in hex. No larger one is of it, and with it the next epoch's log begins
    """

    log: str
    log_key: str
    receipt_certificates: list[str]
    size: int
    root: str
    log_key_kind: Literal["EdDSA", "SM2"] = "EdDSA"
    former_log_keys: list[FormerLogKey] = []

    def head(self, checkpoint: str) -> Checkpoint:
        """As of `Anchors`; Refusal `audit.epoch_over` for what was not of it when it ended."""
        found = _head(checkpoint, self.log, self.former_log_keys, _log_key(self.log_key_kind, self.log_key))
        if found.size > self.size or (found.size == self.size and found.root.hex() != self.root):
            raise Refusal("audit.epoch_over", f"{self.log} ended with {self.size} entries; a head of {found.size}")
        return found


class Anchors(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The trust anchors of one bus.

    origin:  the bus's name: in requests, entries, receipts, bundles
    log_key:              public key of the log, hex: 32 octets of Ed25519, or the 64 of an SM2 point
    receipt_certificates: PEM, all that ever signed receipts of this origin
    founding: SHA-256 of the document with which the bus was founded, hex: who may decide on rights, from the start
    xml_sm2_signature, xml_sm3_digest: what the bus calls SM2 with SM3, and SM3, in XML signatures
    witnesses: who watches the log; quorum: how many of them must have signed a head before it counts as witnessed
    timestamp_certificates: PEM, roots of the timestamp authorities that are trusted; none: no timestamp is demanded
    authorities: PEM, of the bus's own CA and the city's: what a bureau's certificate, and its status, ends in
    former_log_keys: those before log_key, oldest first
    log: the log's name in checkpoints, where it is not the bus's own: of the epoch that is open
    former_epochs: those before it, oldest first, with all that signed in them and signs no more
    """

    origin: str
    log_key: str
    receipt_certificates: list[str]
    log_key_kind: Literal["EdDSA", "SM2"] = "EdDSA"
    xml_sm2_signature: str = SM2_WITH_SM3
    xml_sm3_digest: str = SM3
    founding: str = ""
    witnesses: list[Witness] = []
    quorum: int = 0
    timestamp_certificates: list[str] = []
    authorities: list[str] = []
    former_log_keys: list[FormerLogKey] = []
    log: str = ""
    former_epochs: list[FormerEpoch] = []

    def head(self, checkpoint: str) -> Checkpoint:
        """The tree head of a checkpoint of this log, signed by the key that was in force at its size.

        Raises Refusal `audit.checkpoint_invalid`, `audit.epoch_over`; Misconfigured.
        """
        former = self._former_epoch(checkpoint)
        if former is not None:
            return former.head(checkpoint)
        newest = _head(checkpoint, self.log_name, self.former_log_keys, self.log_public_key)
        if self.former_epochs and newest.size <= self.former_epochs[-1].size:  # who opened it may not rewrite the last
            raise Refusal("audit.checkpoint_invalid", f"{self.log_name} has no head of {newest.size} entries")
        return newest

    @property
    def log_name(self) -> str:
        """The log's name in the checkpoints of the epoch that is open."""
        return self.log or self.origin

    def log_at(self, size: int) -> str:
        """The log's name in a checkpoint of a size."""
        return next((one.log for one in self.former_epochs if size <= one.size), self.log_name)

    def former_log_keys_at(self, size: int) -> list[FormerLogKey]:
        """The keys that were changed in the epoch to which a size belongs."""
        return next((one.former_log_keys for one in self.former_epochs if size <= one.size), self.former_log_keys)

    def log_key_in_force(self, head: Checkpoint) -> tuple[Literal["EdDSA", "SM2"], str]:
        """Kind and octets, hex, of the key that signed, or would, a head of this name and size."""
        epoch = next((one for one in self.former_epochs if one.log == head.origin), self)
        former = next((one for one in epoch.former_log_keys if head.size <= one.last_size), None)
        return (former.kind, former.key) if former else (epoch.log_key_kind, epoch.log_key)

    def before_epoch(self, log: str) -> "Anchors":
        """What was trusted while an epoch was open that is over. Raises KeyError where none is of that name."""
        found = {one.log: number for number, one in enumerate(self.former_epochs)}
        one = self.former_epochs[found[log]]
        return msgspec.structs.replace(
            self,
            log=one.log,
            log_key=one.log_key,
            log_key_kind=one.log_key_kind,
            receipt_certificates=one.receipt_certificates,
            former_log_keys=one.former_log_keys,
            former_epochs=self.former_epochs[: found[log]],
        )

    def certificates_with(self, checkpoint: str) -> list[str]:
        """Who signs what rests on a checkpoint, PEM: the certificates of its epoch, so that a key that was stolen says
        nothing of what came later."""
        former = self._former_epoch(checkpoint)
        return former.receipt_certificates if former else self.receipt_certificates

    @property
    def all_certificates(self) -> list[str]:
        """PEM, of all epochs."""
        return [*(pem for one in self.former_epochs for pem in one.receipt_certificates), *self.receipt_certificates]

    def _former_epoch(self, checkpoint: str) -> FormerEpoch | None:
        name = checkpoint.partition("\n")[0]
        return next((one for one in self.former_epochs if one.log == name), None)

    def knows_log_key(self, key: str) -> bool:
        """Whether a key is, or was, the log's."""
        had = [self.log_key, *(one.key for one in self.former_log_keys)]
        for epoch in self.former_epochs:
            had += [epoch.log_key, *(one.key for one in epoch.former_log_keys)]
        return key in had

    def with_log_key(self, key: str, kind: Literal["EdDSA", "SM2"], last_size: int) -> "Anchors":
        """The same after the log's key was changed. last_size: of the largest head under the key until now."""
        former = FormerLogKey(self.log_key, self.log_key_kind, last_size)
        return msgspec.structs.replace(
            self, log_key=key, log_key_kind=kind, former_log_keys=[*self.former_log_keys, former]
        )

    def with_receipt_certificate(self, pem: str) -> "Anchors":
        """The same, with one more certificate that signs receipts and answers."""
        if pem in self.all_certificates:
            return self
        return msgspec.structs.replace(self, receipt_certificates=[*self.receipt_certificates, pem])

    def with_epoch(
        self, log: str, key: str, kind: Literal["EdDSA", "SM2"], pem: str, size: int, root: str
    ) -> "Anchors":
        """The same after a new epoch was opened; itself where it knows it.

        log, key, kind, pem: its log's name and key, and who signs its receipts; size, root: of the last head before it
        """
        if log in (self.log_name, *(one.log for one in self.former_epochs)):
            return self
        former = FormerEpoch(
            log=self.log_name,
            log_key=self.log_key,
            receipt_certificates=self.receipt_certificates,
            size=size,
            root=root,
            log_key_kind=self.log_key_kind,
            former_log_keys=self.former_log_keys,
        )
        return msgspec.structs.replace(
            self,
            log=log,
            log_key=key,
            log_key_kind=kind,
            receipt_certificates=[pem],
            former_log_keys=[],
            former_epochs=[*self.former_epochs, former],
        )

    @property
    def timestamp_roots(self) -> list[bytes]:
        """The roots of timestamp authorities, DER. Raises Misconfigured."""
        try:
            return [der_of_pem(pem.encode()) for pem in self.timestamp_certificates]
        except ValueError as problem:
            raise Misconfigured("config.anchors", "anchors: a timestamp certificate is not PEM") from problem

    @property
    def log_public_key(self) -> PublicKey:
        """The log's key. Raises Misconfigured."""
        return _log_key(self.log_key_kind, self.log_key)

    @property
    def xml_suites(self) -> XmlSuites:
        """The names of SM2 and SM3 in XML. Raises Misconfigured."""
        return XmlSuites(self.xml_sm2_signature, self.xml_sm3_digest)


def _head(checkpoint: str, name: str, former_keys: list[FormerLogKey], newest_key: PublicKey) -> Checkpoint:
    """The tree head of a checkpoint that the key in force at its size signed. Raises Refusal."""
    first = 0
    for former in former_keys:
        found = _opened(checkpoint, name, former.public_key)
        if found is not None and first <= found.size <= former.last_size:
            return found
        first = former.last_size + 1
    newest = open_checkpoint(checkpoint, name, newest_key)
    if newest.size < first:  # whoever has the new key may not rewrite what was before it
        raise Refusal("audit.checkpoint_invalid", "signed by a key of the log that was not in force at this size")
    return newest


def _opened(checkpoint: str, name: str, key: PublicKey) -> Checkpoint | None:
    try:
        return open_checkpoint(checkpoint, name, key)
    except Refusal:
        return None


def _log_key(kind: Literal["EdDSA", "SM2"], key: str) -> PublicKey:
    try:
        return log_key_of(kind, bytes.fromhex(key))
    except ValueError as problem:
        raise Misconfigured(
            "config.anchors", f"anchors: log_key is no {kind} key in hex, or a former one is not"
        ) from problem
