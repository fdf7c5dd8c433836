"""Signed deliveries over REST: one story with the other doors, and answers that are signed."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
from starlette.types import ASGIApp

from connectors.partner.folder import PartnerFolder
from connectors.partner.partner import Partner
from exchange.bus import Limits
from exchange.http.app import make_app
from exchange.receipts import REFUSAL, verify_receipt
from security import cms_delivery
from security.jws import Document, open_document
from security.jws_delivery import open_delivery, sign_delivery
from security.message import in_memory
from security.signatures import open_signed
from security.signed_delivery import MOST_BYTES
from tests.doors.bus import ORIGIN, TestBus
from tests.doors.conftest import City, Running, read_all

CSV = b"id,kind\n1,0118\n"
JOSE = "application/jose+json"


class Exchange:
    """A served bus with one enrolled bureau, `water`, that may push `covers`."""

    def __init__(self, test: TestBus, running: Running) -> None:
        self.test, self.running = test, running
        self.url = f"https://localhost:{running.port}"
        self.water = test.bureau("water")
        test.registry.grant("water", "push", "covers")
        test.bus.feeds["covers"].max_age = timedelta(days=7)  # type: ignore[misc]  # the fixture's feed is a namespace

    def post(self, octets: bytes, folder: PartnerFolder | None, **headers: str) -> requests.Response:
        certificate = (folder.file("connection.pem"), folder.file("connection.key")) if folder else None
        named = {"Content-Type": JOSE, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return requests.post(
            f"{self.url}/api/v1/deliveries",
            data=octets,
            headers=named,
            cert=certificate,
            verify=str(self.test.city.ca_file),
            timeout=20,
        )

    def refused(self, response: requests.Response) -> Document:
        """What a signed refusal says."""
        assert response.headers["content-type"] == JOSE
        return open_document(response.content, self.test.bus.answer_certificate_der, REFUSAL)


@pytest.fixture
def exchange(start: Callable[[ASGIApp], Running], city: City, tmp_path: Path) -> Iterator[Exchange]:
    test = TestBus(tmp_path, city, Limits(body_s=1.0))
    running = start(make_app(test.bus, tmp_path / "spool"))
    yield Exchange(test, running)
    running.stop()
    test.bus.close()


def sealed(folder: PartnerFolder, message_id: str = "m-1", content: bytes = CSV, **spoiled: Any) -> bytes:
    """An envelope signed now; arguments of `sign_delivery` may be spoiled by name."""
    return sign_delivery(content, folder.signing, **says(folder, message_id, **spoiled))


def says(folder: PartnerFolder, message_id: str = "m-1", **spoiled: Any) -> dict[str, Any]:
    """What an envelope says that is signed now."""
    said: dict[str, Any] = {"sender": folder.bureau, "recipient": ORIGIN, "content_type": "text/csv", "feed": "covers"}
    return said | {"signed_at": datetime.now(UTC), "message_id": message_id, **spoiled}


def test_a_signed_delivery_over_rest_gets_its_receipt_201_then_the_same_200(exchange: Exchange) -> None:
    first = exchange.post(sealed(exchange.water), exchange.water)
    again = exchange.post(sealed(exchange.water), exchange.water)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.content == again.content
    assert (first.headers["content-type"], first.headers["yongtong-signed-request"]) == (JOSE, "true")
    document = verify_receipt(first.content, exchange.test.anchors).document
    assert (document["form"], document["evidence_class"], document["content_length"]) == ("jws", "signed", len(CSV))
    assert document["carrier"] == exchange.test.registry.certificates[1].fingerprint, "the TLS certificate"
    assert exchange.test.woken == 2


def test_a_cms_over_rest_gets_its_receipt_and_a_refusal_that_names_it(exchange: Exchange) -> None:
    key = exchange.test._certified("water by SM2", "SM2")
    exchange.test.registry.enrol("water", key, exchange.test.city.certificate("water"))
    octets = cms_delivery.sign_delivery(CSV, key, **says(exchange.water))
    taken = exchange.post(octets, exchange.water, Content_Type="application/cms")
    assert taken.status_code == 201
    document = verify_receipt(taken.content, exchange.test.anchors).document
    assert (document["form"], document["signer"]) == ("cms", key.fingerprint)
    assert exchange.post(sealed(exchange.water), exchange.water).content == taken.content
    other = cms_delivery.sign_delivery(b"other", key, **says(exchange.water))
    said = exchange.refused(exchange.post(other, exchange.water, Content_Type="application/cms"))
    assert (said["code"], said["request_digest"]) == ("delivery.id_reused", open_signed(other).signature_digest)


def test_over_soap_the_same_delivery_gets_the_receipt_that_rest_gave(exchange: Exchange) -> None:
    receipt = exchange.post(sealed(exchange.water), exchange.water).content
    partner = Partner(exchange.water, exchange.url, partial(verify_receipt, anchors=exchange.test.anchors))
    assert partner.push("covers", in_memory(CSV), "text/csv", "m-1").octets == receipt


def test_rest_without_a_signature_says_so_and_with_one_says_that(exchange: Exchange) -> None:
    exchange.post(sealed(exchange.water), exchange.water)
    read = requests.get(
        f"{exchange.url}/api/v1/deliveries/m-1/receipt",
        cert=(exchange.water.file("connection.pem"), exchange.water.file("connection.key")),
        verify=str(exchange.test.city.ca_file),
        timeout=20,
    )
    assert read.headers["yongtong-signed-request"] == "false"


OLD = datetime.now(UTC) - timedelta(days=8)


@pytest.mark.parametrize(
    "spoiled, status, code",
    [
        ({"recipient": "another.bus.example"}, 403, "auth.wrong_recipient"),
        ({"feed": "nobodys"}, 400, "feed.unknown"),
        ({"sender": "power"}, 403, "auth.sender_mismatch"),
        ({"signed_at": OLD}, 400, "signature.stale"),
    ],
)
def test_a_refusal_is_signed_and_names_the_very_envelope(
    exchange: Exchange, spoiled: dict[str, Any], status: int, code: str
) -> None:
    octets = sealed(exchange.water, **spoiled)
    response = exchange.post(octets, exchange.water)
    said = exchange.refused(response)
    assert (response.status_code, said["code"], said["message_id"]) == (status, code, "m-1")
    assert said["request_digest"] == open_delivery(octets).signature_digest
    assert all(said["sentence"].values())
    assert exchange.test.entries("refusal")[0][0] == code
    assert exchange.test.bus.journal.inbox("water", "m-1") is None


def test_another_content_under_a_known_id_is_a_conflict(exchange: Exchange) -> None:
    exchange.post(sealed(exchange.water), exchange.water)
    response = exchange.post(sealed(exchange.water, content=b"other"), exchange.water)
    assert (response.status_code, exchange.refused(response)["code"]) == (409, "delivery.id_reused")


@pytest.mark.parametrize(
    "octets, headers, status, code",
    [
        (b"{}", {}, 400, "jws.member_missing"),
        (b"", {}, 400, "jws.not_json"),
        (b" " * (MOST_BYTES + 1), {}, 413, "size.too_large"),
        (b"{}", {"Content_Type": "application/json"}, 415, "http.media_type"),
        (b"{}", {"Content_Type": "text/xml"}, 415, "http.media_type"),
        (b"{}", {"Content_Encoding": "gzip"}, 415, "http.media_type"),
    ],
)
def test_what_is_no_envelope_is_refused_by_name_signed_and_audited_under_the_carrier(
    exchange: Exchange, octets: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    response = exchange.post(octets, exchange.water, **headers)
    said = exchange.refused(response)
    assert (response.status_code, said["code"], said["sender"]) == (status, code, "")
    entry = exchange.test.bus.journal.search(type="refusal")[0]
    assert (entry.leaf.outcome, entry.leaf.sender) == (code, "")
    assert entry.leaf.carrier == exchange.test.registry.certificates[1].fingerprint
    assert list((exchange.test.folder / "spool").iterdir()) == []


@pytest.mark.parametrize("shown", [False, True], ids=["no certificate", "not enrolled"])
def test_a_stranger_hears_that_it_is_refused_and_a_reference_and_nothing_is_read(
    exchange: Exchange, shown: bool
) -> None:
    stranger = exchange.test.bureau("stranger", enrolled=False)
    response = exchange.post(sealed(stranger), stranger if shown else None)
    refusal = response.json()["refusal"]
    assert (response.status_code, refusal["code"], refusal["detail"]) == (403, "auth.refused", "")
    assert refusal["reference"]
    assert response.headers["yongtong-signed-request"] == "false"


def test_a_body_that_is_slow_or_never_whole_is_no_delivery(exchange: Exchange) -> None:
    octets = sealed(exchange.water)
    head = (
        f"POST /api/v1/deliveries HTTP/1.1\r\nHost: x\r\nContent-Type: {JOSE}\r\nContent-Length: {len(octets)}\r\n\r\n"
    )
    with exchange.running.connect("water", timeout=10) as connection:
        connection.sendall(head.encode() + octets[:-1])
        began = time.monotonic()
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - began < 8
    document = open_document(answer.partition(b"\r\n\r\n")[2], exchange.test.bus.answer_certificate_der, REFUSAL)
    assert document["code"] == "http.body_slow"
    with exchange.running.connect("water") as connection:
        connection.sendall(head.encode() + octets[:-1])
    assert exchange.test.bus.journal.inbox("water", "m-1") is None


def test_only_post_is_taken(exchange: Exchange) -> None:
    response = requests.get(f"{exchange.url}/api/v1/deliveries", verify=str(exchange.test.city.ca_file), timeout=5)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")


def test_a_bus_that_cannot_keep_it_now_says_later(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exchange.test.bus.evidence, "keep", full)
    response = exchange.post(sealed(exchange.water), exchange.water)
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")
    monkeypatch.undo()
    assert exchange.post(sealed(exchange.water), exchange.water).status_code == 201


def test_anothers_connection_carries_it_with_a_grant_and_not_without(exchange: Exchange) -> None:
    relay = exchange.test.bureau("relay")
    assert exchange.refused(exchange.post(sealed(exchange.water), relay))["code"] == "auth.carrier_mismatch"
    exchange.test.registry.grant("relay", "carry", "water")
    response = exchange.post(sealed(exchange.water), relay)
    assert response.status_code == 201
    assert verify_receipt(response.content, exchange.test.anchors).document["carry_grant"] == "g1"
