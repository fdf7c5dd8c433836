"""Content above what one message holds: begun, sent in pieces, each request signed as a delivery is."""

from lxml import etree

from exchange.bus import Bus
from exchange.http.envelopes import Version, answer_to, instant, put
from exchange.http.proofs import document_tree_size, put_known_consistency
from exchange.intake import admit_upload
from exchange.uploads import Upload
from security.errors import Refusal, Unavailable
from security.message import Delivery
from security.signatures import payload_of
from security.wss import VerifiedEnvelope


async def begin_upload(delivery: Delivery, version: Version, bus: Bus) -> etree._Element:
    """`BeginUpload`: an id to send pieces under, and how much has come; the receipt, where it was delivered before."""

    def begin(verified: VerifiedEnvelope) -> bytes | tuple[str, int]:
        upload = _upload_of(verified, bus)
        return _receipt_of(upload, bus) or bus.uploads.begin(upload)

    verified, begun = await admit_upload(delivery, bus, begin)
    answer = _answer_to(verified, version, bus)
    if isinstance(begun, bytes):
        put(answer, "Receipt", begun.decode("ascii"))
        put_known_consistency(answer, verified, document_tree_size(begun), bus)
        return answer
    id, received = begun
    put(answer, "UploadId", id)
    put(answer, "ReceivedBytes", str(received))
    put(answer, "ChunkBytes", str(bus.limits.upload_chunk_bytes))
    put(answer, "Until", instant(bus.uploads.until(id)))
    return answer


async def upload_chunk(delivery: Delivery, version: Version, bus: Bus) -> etree._Element:
    """`UploadChunk`: the next piece; one that has come already changes nothing."""

    def append(verified: VerifiedEnvelope) -> int:
        piece = payload_of(verified, delivery).content  # it has the signed digest
        if piece.size > bus.limits.upload_chunk_bytes:
            raise Refusal("size.too_large", f"{piece.size} > {bus.limits.upload_chunk_bytes}")
        names = (verified.signer.bureau, *(verified.text(name) for name in ("Sender", "Feed", "MessageId")))
        return bus.uploads.append(verified.text("UploadId"), names, int(verified.text("Offset")), piece)

    verified, received = await admit_upload(delivery, bus, append)
    answer = _answer_to(verified, version, bus)
    put(answer, "ReceivedBytes", str(received))
    return answer


def _answer_to(verified: VerifiedEnvelope, version: Version, bus: Bus) -> etree._Element:
    return answer_to(verified, version, now=bus.clock(), recipient=verified.signer.bureau)


def _upload_of(verified: VerifiedEnvelope, bus: Bus) -> Upload:
    length = int(verified.text("ContentLength"))
    if length > bus.limits.max_upload_bytes:
        raise Refusal("size.too_large", f"{length} > {bus.limits.max_upload_bytes}")
    return Upload(
        signer=verified.signer.bureau,
        sender=verified.text("Sender"),
        feed=verified.text("Feed"),
        message_id=verified.text("MessageId"),
        content_type=verified.text("ContentType"),
        content_digest=verified.text("ContentDigest").strip().lower(),
        content_length=length,
        began_at=bus.clock(),
    )


def _receipt_of(upload: Upload, bus: Bus) -> bytes | None:
    """The receipt of what was delivered before under this id, so that nothing is sent twice. None where it was not."""
    row = bus.journal.inbox(upload.sender, upload.message_id)
    if row is None:
        return None
    same = (row.feed, row.content_type, row.content_digest) == (upload.feed, upload.content_type, upload.content_digest)
    if not same:
        raise Refusal("delivery.id_reused", upload.message_id)
    if row.receipt is None:  # a crash came before it was kept
        raise Unavailable(f"the receipt of delivery {row.id} is still to be issued")
    return row.receipt
