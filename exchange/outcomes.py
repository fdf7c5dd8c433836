"""What became of each record: the root that a report signs, and the full list as a file named by its own digest."""

import hashlib
import hmac
import io
import os
from pathlib import Path

import polars as pl

from exchange.receipts import outcome_root


def secret_of(master: bytes, sender: str, message_id: str) -> bytes:
    """The k of one delivery, given to its bureau in the report. The same each time act two runs."""
    return hmac.digest(master, f"{sender}\x00{message_id}".encode(), "sha256")


def root_of(outcomes: pl.DataFrame, secret: bytes) -> str:
    """Hex of the root over one delivery's records, in their order. outcomes: record, source_key, outcome."""
    ordered = outcomes.sort("record")
    root, _ = outcome_root(ordered["source_key"].fill_null("").to_list(), ordered["outcome"].to_list(), secret)
    return root.hex()


def keep_outcomes(folder: Path, outcomes: pl.DataFrame) -> str:
    """Write OUTCOMES, with each delivery's message id, as a durable Arrow file; gives its SHA-256, which names it."""
    buffer = io.BytesIO()
    outcomes.write_ipc(buffer)
    octets = buffer.getvalue()
    digest = hashlib.sha256(octets).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{digest}.arrow"
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        file.write(octets)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
    return digest
