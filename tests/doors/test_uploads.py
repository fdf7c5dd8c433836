"""Content in pieces over real TLS: signed like a delivery, bound to it, and nothing of it left behind."""

import hashlib
import os
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import msgspec
import pytest
import requests
from lxml import etree
from starlette.types import ASGIApp

from connectors.partner.folder import PartnerFolder
from connectors.partner.partner import Partner
from exchange import uploads as uploads_module
from exchange.bus import Limits
from exchange.http.app import make_app
from exchange.reading import reopened
from exchange.receipts import verify_receipt
from exchange.uploads import Upload, Uploads
from security.errors import Refusal, Unavailable
from security.message import file_content, in_memory
from security.xml import read_own
from tests.doors.bus import ORIGIN, TestBus
from tests.doors.conftest import City, Running
from tests.doors.test_soap import Exchange, code_of, signed

YT = "{urn:yongtong:v1}"
SOAP = "http://schemas.xmlsoap.org/soap/envelope/"
CHUNK, MOST = 300_000, 2_000_000
CONTENT = bytes(range(256)) * 4_000  # four pieces, the last one shorter
NOW = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)


@pytest.fixture
def exchange(start: Callable[[ASGIApp], Running], city: City, tmp_path: Path) -> Iterator[Exchange]:
    limits = Limits(upload_chunk_bytes=CHUNK, max_upload_bytes=MOST, body_s=5.0)
    test = TestBus(tmp_path, city, limits)
    running = start(make_app(test.bus, tmp_path / "spool"))
    yield Exchange(test, running)
    running.stop()
    test.bus.close()


def partner(exchange: Exchange, folder: PartnerFolder | None = None) -> Partner:
    check = partial(verify_receipt, anchors=exchange.test.anchors)
    return Partner(folder or exchange.water, exchange.url, check, upload_above_bytes=100_000)


def asked(exchange: Exchange, operation: str, folder: PartnerFolder | None = None, **members: str) -> requests.Response:
    """An operation of an upload of `m-1`, posted as it is signed; members after the contract's order."""
    folder = folder or exchange.water
    envelope = etree.Element(f"{{{SOAP}}}Envelope", nsmap={"s": SOAP})
    element = etree.SubElement(
        etree.SubElement(envelope, f"{{{SOAP}}}Body"), f"{YT}{operation}", nsmap={None: YT[1:-1]}
    )
    action = members.pop("action", "")
    named = {"Sender": folder.bureau, "Recipient": ORIGIN, "MessageId": "m-1", "Feed": "covers", **members}
    for name, text in named.items():
        child = etree.SubElement(element, YT + name)
        child.text = text
        if name == "ContentDigest":
            child.set("algorithm", "SHA-256")
    return exchange.post(signed(envelope, folder), folder, SOAPAction=action)


def begin(exchange: Exchange, content: bytes = CONTENT, **spoiled: str) -> requests.Response:
    stated = {"ContentType": "text/csv", "ContentDigest": hashlib.sha256(content).hexdigest()}
    return asked(exchange, "BeginUpload", **{**stated, "ContentLength": str(len(content)), **spoiled})


def chunk(exchange: Exchange, id: str, offset: int, piece: bytes, **more: str) -> requests.Response:
    digest = hashlib.sha256(piece).hexdigest()
    members = {"UploadId": id, "Offset": str(offset), "ContentDigest": digest, "Content": b64encode(piece).decode()}
    return asked(exchange, "UploadChunk", None, **{**members, **more})


def complete(exchange: Exchange, id: str, folder: PartnerFolder | None = None, **more: str) -> requests.Response:
    stated = {"ContentType": "text/csv", "ContentDigest": hashlib.sha256(CONTENT).hexdigest(), "UploadId": id}
    return asked(exchange, "CompleteUpload", folder, **{**stated, **more})


def said(response: requests.Response, name: str) -> str:
    assert response.status_code == 200, response.text
    return etree.fromstring(response.content).findtext(f".//{YT}{name}") or ""


def left(exchange: Exchange) -> list[str]:
    return sorted(path.name for folder in ("uploads", "spool") for path in (exchange.test.folder / folder).iterdir())


@pytest.mark.parametrize("in_file", [False, True])
def test_content_above_the_limit_goes_in_pieces_and_act_two_has_all_of_it(
    exchange: Exchange, tmp_path: Path, in_file: bool
) -> None:
    (tmp_path / "content").write_bytes(CONTENT)
    content = file_content(tmp_path / "content") if in_file else in_memory(CONTENT)
    received = partner(exchange).push("covers", content, "text/csv", "m-1")
    assert (received.document["form"], received.document["content_length"]) == ("upload", len(CONTENT))
    row = exchange.test.bus.journal.inbox("water", "m-1")
    assert row is not None
    assert reopened(row, exchange.test.bus).content.read() == CONTENT
    assert left(exchange) == []
    assert exchange.test.woken == 1
    assert len(exchange.test.entries("delivery")) == 1, "pieces are no deliveries"


def test_what_was_delivered_before_is_answered_with_its_receipt_and_not_sent_again(exchange: Exchange) -> None:
    first = partner(exchange).push("covers", in_memory(CONTENT), "text/csv", "m-1")
    partner(exchange).push("covers", in_memory(b"id\n1\n"), "text/csv", "m-2")
    exchange.test.bus.uploads.append = None  # type: ignore[assignment,method-assign]  # no piece may come
    assert partner(exchange).push("covers", in_memory(CONTENT), "text/csv", "m-1").octets == first.octets
    assert code_of(begin(exchange, b"other")) == "delivery.id_reused"
    by_mtom = exchange.partner().push("covers", in_memory(CONTENT), "text/csv", "m-1")
    assert by_mtom.octets == first.octets, "the same delivery in one message"


def test_an_upload_goes_on_where_it_was(exchange: Exchange) -> None:
    id = said(begin(exchange), "UploadId")
    assert said(chunk(exchange, id, 0, CONTENT[:CHUNK]), "ReceivedBytes") == str(CHUNK)
    assert said(chunk(exchange, id, 0, CONTENT[:CHUNK]), "ReceivedBytes") == str(CHUNK), "the same piece again"
    again = begin(exchange)
    answer = read_own(again.content)[1][0]
    assert exchange.test.bus.schema.validate(read_own(etree.tostring(answer))), exchange.test.bus.schema.error_log
    assert (said(again, "UploadId"), said(again, "ReceivedBytes")) == (id, str(CHUNK))
    assert code_of(complete(exchange, id)) == "upload.incomplete"
    partner(exchange).push("covers", in_memory(CONTENT), "text/csv", "m-1")
    assert left(exchange) == []


@pytest.mark.parametrize(
    "code, ask",
    [
        ("upload.offset", lambda e, id: chunk(e, id, 1, b"x")),
        ("upload.offset", lambda e, id: chunk(e, id, 0, b"x" * 101)),
        ("upload.unknown", lambda e, id: chunk(e, "0" * 32, 0, b"x")),
        ("upload.unknown", lambda e, id: chunk(e, id, 0, b"x", MessageId="m-2")),
        ("upload.unknown", lambda e, id: complete(e, "0" * 32)),
        ("signature.content_digest", lambda e, id: chunk(e, id, 0, b"x", ContentDigest="00" * 32)),
        ("size.too_large", lambda e, id: chunk(e, id, 0, b"x" * (CHUNK + 1))),
        ("size.too_large", lambda e, id: begin(e, ContentLength=str(MOST + 1))),
        ("soap.schema_invalid", lambda e, id: begin(e, ContentLength="-1")),
        ("feed.unknown", lambda e, id: begin(e, Feed="nobodys")),
        ("auth.sender_mismatch", lambda e, id: begin(e, Sender="power")),
        # A piece has content and digest as a delivery has; signed as a piece, it can be nothing else.
        (
            "soap.action_mismatch",
            lambda e, id: chunk(e, id, 0, b"x", action='"urn:yongtong:v1/SubmitDelivery"'),
        ),
        ("soap.action_mismatch", lambda e, id: complete(e, id, action='"urn:yongtong:v1/SubmitDelivery"')),
    ],
)
def test_what_does_not_fit_is_refused_by_name_and_entered(
    exchange: Exchange, code: str, ask: Callable[[Exchange, str], requests.Response]
) -> None:
    id = said(begin(exchange, b"y" * 100), "UploadId")
    assert code_of(ask(exchange, id)) == code
    assert exchange.test.entries("refusal")[0][0] == code
    assert said(begin(exchange, b"y" * 100), "ReceivedBytes") == "0"
    assert exchange.test.bus.journal.inbox("water", "m-1") is None


def test_an_upload_is_its_signers_alone(exchange: Exchange) -> None:
    """Whole and waiting: another bureau, which may push to a feed of its own, cannot make it its delivery."""
    id = said(begin(exchange), "UploadId")
    for at in range(0, len(CONTENT), CHUNK):
        said(chunk(exchange, id, at, CONTENT[at : at + CHUNK]), "ReceivedBytes")
    other = exchange.test.bureau("power")
    exchange.test.registry.grant("power", "push", "cables")
    feed = exchange.test.bus.feeds["covers"]
    exchange.test.bus.feed_digests["cables"] = "00" * 32  # type: ignore[index]
    exchange.test.bus.feeds["cables"] = type(feed)(**{**vars(feed), "id": "cables", "bureau": "power"})  # type: ignore[index]
    assert code_of(complete(exchange, id, other, Feed="cables")) == "upload.unknown"
    assert exchange.test.entries("delivery") == []
    assert said(complete(exchange, id), "Receipt")


def test_content_of_another_digest_than_was_signed_is_no_delivery(exchange: Exchange) -> None:
    id = said(begin(exchange), "UploadId")
    for at in range(0, len(CONTENT), CHUNK):
        said(chunk(exchange, id, at, bytes(len(CONTENT[at : at + CHUNK]))), "ReceivedBytes")
    assert code_of(complete(exchange, id)) == "signature.content_digest"


def test_a_grant_that_ends_meanwhile_ends_the_upload(exchange: Exchange) -> None:
    id = said(begin(exchange), "UploadId")
    exchange.test.registry.granted = [grant for grant in exchange.test.registry.granted if grant.action != "push"]
    assert code_of(chunk(exchange, id, 0, b"x")) == "auth.no_grant"


def an_upload(message_id: str, **spoiled: str) -> Upload:
    stated = {"signer": "water", "sender": "water", "feed": "covers", "content_type": "text/csv", **spoiled}
    return Upload(**stated, message_id=message_id, content_digest="00" * 32, content_length=10, began_at=NOW)  # type: ignore[arg-type]


NAMES = ("water", "water", "covers", "m-1")


def test_a_restart_keeps_what_has_come_and_removes_what_nobody_knows(tmp_path: Path) -> None:
    first = Uploads(tmp_path, timedelta(days=1))
    id, _ = first.begin(an_upload("m-1"))
    first.append(id, NAMES, 0, in_memory(b"12345"))
    for name in ("f" * 32 + ".part", f"{id}.new"):
        (tmp_path / name).write_bytes(b"half")
    again = Uploads(tmp_path, timedelta(days=1))
    again.sweep(NOW)
    assert again.begin(an_upload("m-1")) == (id, 5)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".part"]


def test_an_upload_out_of_time_is_removed(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, timedelta(days=1))
    id, _ = uploads.begin(an_upload("m-1"))
    uploads.sweep(NOW + timedelta(days=1))
    uploads.check(id, NAMES)
    uploads.sweep(NOW + timedelta(days=1, seconds=1))
    with pytest.raises(Refusal, match=r"upload\.unknown"):
        uploads.check(id, NAMES)
    assert list(tmp_path.iterdir()) == []


def test_one_bureau_and_all_together_begin_only_so_many(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, timedelta(days=1))
    for number in range(uploads_module.MOST_OF_ONE):
        uploads.begin(an_upload(f"m-{number}"))
    with pytest.raises(Unavailable):
        uploads.begin(an_upload("m-9"))
    uploads.begin(an_upload("m-0"))
    for bureau in range(uploads_module.MOST_AT_ONCE - uploads_module.MOST_OF_ONE):
        uploads.begin(an_upload("m-1", signer=f"bureau-{bureau}"))
    with pytest.raises(Unavailable):
        uploads.begin(an_upload("m-1", signer="one-more"))


def test_a_disk_that_fills_leaves_no_half_a_piece(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, timedelta(days=1))
    id, _ = uploads.begin(an_upload("m-1"))
    uploads.append(id, NAMES, 0, in_memory(b"12345"))
    cut = msgspec.structs.replace(in_memory(b"678"), size=5)  # ends early, as a read that fails does
    with pytest.raises(OSError):
        uploads.append(id, NAMES, 5, cut)
    assert os.stat(tmp_path / f"{id}.part").st_size == 5
    assert uploads.append(id, NAMES, 5, in_memory(b"67890")) == 10
    assert uploads.whole(id).read() == b"1234567890"
