"""Which size of the log a signed document speaks of."""

import base64

import msgspec


def checkpoint_size(checkpoint: str) -> int:
    """The tree size of a C2SP checkpoint: its second line; 0 for the empty text before the first entry."""
    lines = checkpoint.split("\n", 2)
    return int(lines[1]) if len(lines) > 1 else 0


class _Envelope(msgspec.Struct):
    payload: str


class _Document(msgspec.Struct):
    checkpoint: str


def document_tree_size(signed: bytes) -> int:
    """The tree size of the checkpoint in one of our own receipts or reports (flattened JWS)."""
    payload = msgspec.json.decode(signed, type=_Envelope).payload
    document = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    return checkpoint_size(msgspec.json.decode(document, type=_Document).checkpoint)
