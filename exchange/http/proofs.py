"""Which size of the log a signed document speaks of, and that it is the log which a caller knows."""

import base64

import msgspec
from lxml import etree

from exchange.bus import Bus
from exchange.http.envelopes import put_consistency
from security.wss import VerifiedEnvelope


def checkpoint_size(checkpoint: str) -> int:
    """The tree size of a C2SP checkpoint: its second line; 0 for the empty text before the first entry."""
    lines = checkpoint.split("\n", 2)
    return int(lines[1]) if len(lines) > 1 else 0


class _Envelope(msgspec.Struct):
    payload: str
    document: str = ""  # where it was signed together with others


class _Document(msgspec.Struct):
    checkpoint: str


def document_tree_size(signed: bytes) -> int:
    """The tree size of the checkpoint in one of our own receipts or reports (flattened JWS)."""
    envelope = msgspec.json.decode(signed, type=_Envelope)
    text = envelope.document or envelope.payload
    document = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return checkpoint_size(msgspec.json.decode(document, type=_Document).checkpoint)


def put_known_consistency(answer: etree._Element, verified: VerifiedEnvelope, size: int, bus: Bus) -> None:
    """That the log the caller knows and the head in this answer are one log, the smaller first.

    A caller who knows more than the log holds gets no proof, and his own check then says that entries are gone.
    """
    known = int(verified.text("KnownTreeSize") or 0)
    first, second = min(known, size), max(known, size)
    if first > 0 and second <= checkpoint_size(bus.journal.checkpoint()):
        put_consistency(answer, first, second, bus.journal.consistency(first, second))
