"""Answers that come by themselves, by broker or courier: whoever brought them, only the bus's signature counts."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec

from connectors.partner.folder import Kind, PartnerFolder
from connectors.partner.heads import Heads
from connectors.partner.partner import Check, Received, differing
from security.errors import Refusal, sentences
from security.jws import Document, open_document
from security.message import EnrolledCertificate

REFUSAL: Final = "yt-refusal+jws"


def opened(octets: bytes, check: Check, answerers: Sequence[EnrolledCertificate]) -> Document:
    """A receipt, a report, or a signed refusal. Raises Refusal `answer.not_signed`."""
    with suppress(Refusal):
        return check(octets).document
    for known in answerers:
        with suppress(Refusal):
            return open_document(octets, known.der, REFUSAL)
    raise Refusal("answer.not_signed", "not by a certificate among the anchors")


def refusal_of(document: Document) -> Refusal:
    """The bus's own refusal; of a newer bus's codes we may not know all."""
    code, detail = str(document["code"]), str(document.get("detail", ""))
    if code not in sentences():
        return Refusal("answer.refused", f"{code}: {msgspec.json.encode(document.get('sentence', {})).decode()}"[:300])
    refusal = Refusal(code, detail)
    refusal.reference = str(document.get("reference", ""))
    return refusal


def kept(
    folder: PartnerFolder, heads: Heads, check: Check, kind: Kind, message_id: str, octets: bytes, said: dict[str, Any]
) -> Received:
    """A document once it holds and says what we sent; only then it is kept. Raises Refusal `audit.*`."""
    holding = check(octets)
    if holding.kind != kind:
        raise Refusal("audit.receipt_invalid", f"a {kind} was expected, a {holding.kind} came")
    if other := differing(holding.document, said):
        raise Refusal("audit.receipt_invalid", f"it says another {', '.join(other)} than was sent")
    heads.take_unproven(str(holding.document["checkpoint"]))
    folder.keep(kind, message_id, octets)
    return Received(octets, holding.document)
