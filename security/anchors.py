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


class Anchors(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The trust anchors of one bus.

    log_key:              public key of the log, hex: 32 octets of Ed25519, or the 64 of an SM2 point
    receipt_certificates: PEM, all that ever signed receipts of this origin
    founding: SHA-256 of the document with which the bus was founded, hex: who may decide on rights, from the start
    xml_sm2_signature, xml_sm3_digest: what the bus calls SM2 with SM3, and SM3, in XML signatures
    witnesses: who watches the log; quorum: how many of them must have signed a head before it counts as witnessed
    timestamp_certificates: PEM, roots of the timestamp authorities that are trusted; none: no timestamp is demanded
    authorities: PEM, of the bus's own CA and the city's: what a bureau's certificate, and its status, ends in
    former_log_keys: those before log_key, oldest first
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

    def head(self, checkpoint: str) -> Checkpoint:
        """The tree head of a checkpoint of this log, signed by the key that was in force at its size.

        Raises Refusal `audit.checkpoint_invalid`; Misconfigured.
        """
        first = 0
        for former in self.former_log_keys:
            found = self._opened(checkpoint, former.public_key)
            if found is not None and first <= found.size <= former.last_size:
                return found
            first = former.last_size + 1
        newest = open_checkpoint(checkpoint, self.origin, self.log_public_key)
        if newest.size < first:  # whoever has the new key may not rewrite what was before it
            raise Refusal("audit.checkpoint_invalid", "signed by a key of the log that was not in force at this size")
        return newest

    def _opened(self, checkpoint: str, key: PublicKey) -> Checkpoint | None:
        try:
            return open_checkpoint(checkpoint, self.origin, key)
        except Refusal:
            return None

    def knows_log_key(self, key: str) -> bool:
        """Whether a key is, or was, the log's."""
        return key == self.log_key or any(key == former.key for former in self.former_log_keys)

    def with_log_key(self, key: str, kind: Literal["EdDSA", "SM2"], last_size: int) -> "Anchors":
        """The same after the log's key was changed. last_size: of the largest head under the key until now."""
        former = FormerLogKey(self.log_key, self.log_key_kind, last_size)
        return msgspec.structs.replace(
            self, log_key=key, log_key_kind=kind, former_log_keys=[*self.former_log_keys, former]
        )

    def with_receipt_certificate(self, pem: str) -> "Anchors":
        """The same, with one more certificate that signs receipts and answers."""
        if pem in self.receipt_certificates:
            return self
        return msgspec.structs.replace(self, receipt_certificates=[*self.receipt_certificates, pem])

    @property
    def timestamp_roots(self) -> list[bytes]:
        """The roots of timestamp authorities, DER. Raises Misconfigured."""
        try:
            return [der_of_pem(pem.encode()) for pem in self.timestamp_certificates]
        except ValueError as problem:
            raise Misconfigured("anchors: a timestamp certificate is not PEM") from problem

    @property
    def log_public_key(self) -> PublicKey:
        """The log's key. Raises Misconfigured."""
        return _log_key(self.log_key_kind, self.log_key)

    @property
    def xml_suites(self) -> XmlSuites:
        """The names of SM2 and SM3 in XML. Raises Misconfigured."""
        return XmlSuites(self.xml_sm2_signature, self.xml_sm3_digest)


def _log_key(kind: Literal["EdDSA", "SM2"], key: str) -> PublicKey:
    try:
        return log_key_of(kind, bytes.fromhex(key))
    except ValueError as problem:
        raise Misconfigured(f"anchors: log_key is no {kind} key in hex, or a former one is not") from problem
