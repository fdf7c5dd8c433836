"""Over SOAP a bus that signs by any suite understands a bureau that signs by any, both ways, MTOM included."""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.types import ASGIApp

from connectors.partner.folder import PartnerFolder
from connectors.partner.partner import INLINE_UP_TO_BYTES, Partner
from exchange.http.app import make_app
from exchange.receipts import verify_receipt
from exchange.settings import SuiteSettings
from security.errors import Refusal
from security.message import in_memory
from tests.doors.bus import TestBus
from tests.doors.conftest import City, Running

RENAMED = {"xml_sm2_signature": "urn:city:sm2", "xml_sm3_digest": "urn:city:sm3"}
KINDS = ("ES256", "RS256", "EdDSA", "SM2")


@pytest.mark.parametrize(
    "suites",
    [
        SuiteSettings(),
        SuiteSettings(signing="EdDSA"),
        SuiteSettings(signing="PS256"),
        SuiteSettings(signing="SM2", checkpoints="SM2", **RENAMED),  # type: ignore[arg-type]
    ],
    ids=["ES256", "EdDSA", "PS256", "SM2"],
)
def test_every_suite_of_a_bureau_is_understood_by_every_suite_of_a_bus(
    start: Callable[[ASGIApp], Running], tmp_path: Path, city: City, suites: SuiteSettings
) -> None:
    test = TestBus(tmp_path, city, suites=suites)
    running = start(make_app(test.bus, tmp_path / "spool"))
    for kind in KINDS:
        bureau: Any = kind.lower()
        folder = test.bureau(bureau, kind)  # type: ignore[arg-type]  # a literal of the tuple
        test.registry.grant(bureau, "push", "covers")
        test.bus.feeds["covers"].bureau = bureau  # type: ignore[index]
        partner = _partner(folder, running)
        for id, octets in (("inline", b"id\n1\n"), ("mtom", bytes(INLINE_UP_TO_BYTES + 1))):
            receipt = partner.push("covers", in_memory(octets), "text/csv", id)
            assert receipt.document["content_digest"] == hashlib.sha256(octets).hexdigest()
            assert partner.receipt(id).octets == receipt.octets
        with pytest.raises(Refusal, match=r"delivery\.id_reused"):  # a fault, and signed
            partner.push("covers", in_memory(b"other"), "text/csv", "inline")
    running.stop()
    test.bus.close()


def test_a_bureau_that_calls_sm2_otherwise_than_the_bus_is_refused_by_that_name(
    start: Callable[[ASGIApp], Running], tmp_path: Path, city: City
) -> None:
    test = TestBus(tmp_path, city)
    folder = test.bureau("water", "SM2")
    test.registry.grant("water", "push", "covers")
    anchors = msgspec.structs.replace(folder.anchors, **RENAMED)
    (folder.path / "anchors.json").write_bytes(msgspec.json.encode(anchors))
    running = start(make_app(test.bus, tmp_path / "spool"))
    with pytest.raises(Refusal, match=r"signature\.algorithm_refused.*urn:city:sm2"):
        _partner(folder, running).push("covers", in_memory(b"id\n1\n"), "text/csv", "m-1")
    running.stop()
    test.bus.close()


def _partner(folder: PartnerFolder, running: Running) -> Partner:
    return Partner(folder, f"https://localhost:{running.port}", partial(verify_receipt, anchors=folder.anchors))
