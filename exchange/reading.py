"""A delivery's content, taken once more out of the evidence: what act two decodes is what the bureau signed."""

from datetime import datetime

from connectors.transports import package
from connectors.transports.multipart import MediaType, Related, take_apart
from exchange.bus import Bus
from exchange.entry import InboxRow
from security.errors import AuditBroken, Refusal
from security.message import Content, Digest, Principal, VerifiedPayload
from security.signatures import reopen, reopen_signed


class EvidenceBroken(AuditBroken):
    """The evidence of one delivery is lost, or is not what was accepted. The log itself may be whole."""


def reopened(row: InboxRow, bus: Bus) -> VerifiedPayload:
    """The payload of an accepted delivery. Raises EvidenceBroken."""
    try:
        return _reopened(row, bus)
    except (AuditBroken, FileNotFoundError, ValueError) as problem:
        raise EvidenceBroken(str(problem)) from problem


def _reopened(row: InboxRow, bus: Bus) -> VerifiedPayload:
    raw = bus.evidence.read(row.evidence)
    expected, signer = Digest("SHA-256", bytes.fromhex(row.content_digest)), Principal(row.sender, row.signer)
    if row.form in ("jws", "cms", "package"):
        packed = unpacked(raw) if row.form == "package" else None
        octets, apart = (packed.envelope, packed.content) if packed else (raw.read(), None)
        return reopen_signed(octets, apart, expected=expected, request_digest=row.request_digest, signer=signer)
    # No limit of today's settings: what was accepted under another one is evidence all the same.
    related = taken_apart(raw) if row.form != "inline" else None
    return reopen(
        related.envelope if related else raw.read(),
        related.attachment if related else None,
        expected=expected,
        request_digest=row.request_digest,
        signer=signer,
        signed_at=datetime.fromisoformat(row.signed_at),
        form=row.form,
    )


def unpacked(raw: Content) -> package.Package:
    """Envelope and content of a kept package. Raises AuditBroken."""
    try:
        return package.take_apart(raw)
    except Refusal as problem:
        raise AuditBroken(f"evidence of a package cannot be taken apart again: {problem}") from problem


def taken_apart(raw: Content) -> Related:
    """Envelope and attachment of a kept multipart body, whose first line names its own boundary. Raises AuditBroken."""
    with raw.open() as stream:
        boundary = stream.readline(80).strip() or stream.readline(80).strip()
    declared = MediaType("multipart/related", {"boundary": boundary.removeprefix(b"--").decode("ascii", "replace")})
    try:
        return take_apart(raw, declared, max_envelope_bytes=raw.size)
    except Refusal as problem:
        raise AuditBroken(f"evidence of a multipart message cannot be taken apart again: {problem}") from problem
