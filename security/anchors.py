"""What a partner trusts of a bus and keeps in a file, `anchors.json`: enough to check all that the bus ever signed."""

from typing import Literal

import msgspec

from security.checkpoint import Checkpoint, log_key_of, open_checkpoint
from security.cosignature import Witness
from security.errors import Misconfigured
from security.keys import PublicKey, der_of_pem
from security.suites import SM2_WITH_SM3, SM3, XmlSuites


class Anchors(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The trust anchors of one bus.

    log_key:              public key of the log, hex: 32 octets of Ed25519, or the 64 of an SM2 point
    receipt_certificates: PEM, all that ever signed receipts of this origin
    founding: SHA-256 of the document with which the bus was founded, hex: who may decide on rights, from the start
    xml_sm2_signature, xml_sm3_digest: what the bus calls SM2 with SM3, and SM3, in XML signatures
    witnesses: who watches the log; quorum: how many of them must have signed a head before it counts as witnessed
    timestamp_certificates: PEM, roots of the timestamp authorities that are trusted; none: no timestamp is demanded
    authorities: PEM, of the bus's own CA and the city's: what a bureau's certificate, and its status, ends in
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

    def head(self, checkpoint: str) -> Checkpoint:
        """The tree head of a checkpoint of this log. Raises Refusal `audit.checkpoint_invalid`; Misconfigured."""
        return open_checkpoint(checkpoint, self.origin, self.log_public_key)

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
        try:
            return log_key_of(self.log_key_kind, bytes.fromhex(self.log_key))
        except ValueError as problem:
            raise Misconfigured(f"anchors: log_key is no {self.log_key_kind} key in hex") from problem

    @property
    def xml_suites(self) -> XmlSuites:
        """The names of SM2 and SM3 in XML. Raises Misconfigured."""
        return XmlSuites(self.xml_sm2_signature, self.xml_sm3_digest)
