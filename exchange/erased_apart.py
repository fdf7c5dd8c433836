"""Decisions to erase, kept outside the database: a backup from before an erasure brings back what two persons had
erased, and the decision itself may be lost with the entries since.

One file beside the known heads, a line a decision: both documents as they were signed, no content.
"""

import os
from pathlib import Path
from typing import Final

import msgspec

from exchange.decision_documents import Apart, ErasureBody, document_apart
from exchange.entry import begin_of
from exchange.registry import Registry
from security.errors import Misconfigured, Refusal

NAME: Final = "erased.jsonl"


class ToRepeat(msgspec.Struct, frozen=True):
    """An erasure that was carried out once and of which content stands here again."""

    id: str
    body: ErasureBody
    signed: Apart


def remember(folder: Path, signed: Apart) -> None:
    """Keep a decision, on disk before this returns: from here on it may be carried out. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / NAME).open("ab") as file:
        file.write(msgspec.json.encode(signed) + b"\n")
        file.flush()
        os.fsync(file.fileno())


def to_repeat(folder: Path, registry: Registry) -> list[ToRepeat]:
    """What is to be erased again here. Raises Misconfigured where the file cannot be read."""
    path, done, found = folder / NAME, registry.carried_out(), dict[str, ToRepeat]()
    try:
        lines = path.read_bytes().splitlines() if path.exists() else []
        for line in lines:
            signed = msgspec.json.decode(line, type=Apart)
            document = document_apart(signed)
            body = msgspec.convert(document.body, ErasureBody)
            if document.id not in done and _stands(body, registry):
                found[document.id] = ToRepeat(document.id, body, signed)
    except (OSError, msgspec.MsgspecError, Refusal) as problem:
        raise Misconfigured("config.file", f"{path}: decisions to erase cannot be read ({problem})") from problem
    return list(found.values())


def _stands(body: ErasureBody, registry: Registry) -> bool:
    """Whether something is here that the decision covers."""
    journal = registry.journal
    if body.reason != "retention":
        return journal.inbox(body.sender, body.message_id) is not None
    due = journal.evidence_before(begin_of(body.evidence_before))
    return bool(due or journal.details_before(begin_of(body.details_before)))
