"""The main job with national keys: a bureau that signs by SM2, at a bus that does not and at one that does too.

OpenSSL looks on: the bureau's request as the bus kept it, its receipt and report, and the heads of the log.
"""

import json
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.partner.folder import PartnerFolder
from connectors.partner.partner import Received
from exchange.app import opening, places
from exchange.cli.partner import open_partner
from exchange.cli.trial import Trial
from exchange.evidence import Evidence
from exchange.settings import load_settings
from security.errors import Misconfigured, Refusal
from security.jose import unb64url
from security.keys import generate
from security.message import in_memory
from security.sm2 import der_of
from security.suites import SM2_WITH_SM3, SM3
from security.wss import open_envelope
from security.xml import canonical
from tests.whole.real_bus import FEED, REGISTER, RealBus, a_trial, another_folder, csv, rows
from tests.whole.test_other_clients import checked

DISTID = "distid:1234567812345678"


@pytest.fixture(scope="module")
def sm2_trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    """A bus that signs by SM2 throughout, its heads too."""
    made = a_trial(tmp_path_factory.mktemp("sm2"), REGISTER, suites={"signing": "SM2", "checkpoints": "SM2"})
    made.enrol("made-up", "Made-up bureau", "某单位")
    made.grant("made-up", "push", FEED)
    for view in ("ownership", "components"):
        made.grant("made-up", "pull", view)
    with made:
        yield made


def main_job(folder: PartnerFolder, url: str, id: str) -> tuple[Received, Received]:
    """Push, the same receipt again, report, ownership: all verified by the partner. Gives receipt and report."""
    partner, records = open_partner(folder.path, url), rows(id)
    receipt = partner.push(FEED, in_memory(csv(records)), "text/csv", id)
    assert partner.push(FEED, in_memory(csv(records)), "text/csv", id).octets == receipt.octets
    assert partner.receipt(id).octets == receipt.octets
    reported = partner.report(id, wait_s=60)
    assert reported.received is not None
    assert (reported.status, reported.received.document["report"]["new"]) == ("processed", len(records))
    place = float(records[0]["经度"]), float(records[0]["纬度"])
    (near,) = partner.nearest(*place, radius_m=5.0, purpose="井盖破损 case")
    owned = partner.ownership(str(near.ownership.component.key), purpose="井盖破损 case")
    assert (owned.verdict, owned.claims[0].source_key) == ("one owner", f"{id}-0")
    return receipt, reported.received


def openssl_says(folder: Path, key_pem: bytes, signature: bytes, octets: bytes) -> str:
    """What OpenSSL says of a raw SM2 signature."""
    (folder / "key.pem").write_bytes(key_pem)
    (folder / "signature").write_bytes(der_of(signature))
    (folder / "octets").write_bytes(octets)
    command = f"openssl dgst -sm3 -verify key.pem -sigopt {DISTID} -signature signature octets"
    return subprocess.run(command.split(), cwd=folder, capture_output=True, text=True).stdout.strip()


def key_in(certificate: Path) -> bytes:
    """The public key that OpenSSL finds in a certificate."""
    command = ["openssl", "x509", "-in", str(certificate), "-noout", "-pubkey"]
    return subprocess.run(command, capture_output=True, check=True).stdout


def kept_request(trial: Trial, id: str) -> bytes:
    """A request as the bus keeps it in its evidence."""
    with closing(opening.open_journal(trial.settings)) as journal:
        row = journal.inbox("made-up", id)
    assert row is not None
    with closing(Evidence(places.evidence_place(trial.settings))) as evidence:
        return evidence.read(row.evidence).read()


def test_a_bureau_with_sm2_keys_does_the_whole_main_job_at_a_bus_that_signs_by_ecdsa(
    bus: RealBus, tmp_path: Path
) -> None:
    folder = another_folder(bus.trial, "SM2")
    receipt, _ = main_job(folder, bus.url, "sm2-at-es256")
    assert b'"alg":"ES256"' in header_of(receipt)
    request = open_envelope(kept_request(bus.trial, "sm2-at-es256"))
    signed_info = canonical(request.signature.signed_info, request.signature.prefixes)
    assert f'Algorithm="{SM2_WITH_SM3}"'.encode() in signed_info
    assert signed_info.count(f'Algorithm="{SM3}"'.encode()) == 3
    key = key_in(folder.path / "signing.pem")
    assert openssl_says(tmp_path, key, request.signature.value, signed_info) == "Verified OK"
    assert openssl_says(tmp_path, key, request.signature.value, signed_info + b" ") == "Verification failure"


@pytest.mark.parametrize("kind", ["SM2", "ES256"])
def test_a_bus_that_signs_by_sm2_serves_bureaus_with_keys_of_every_kind(
    sm2_trial: Trial, kind: Any, tmp_path: Path
) -> None:
    folder = another_folder(sm2_trial, kind)
    for document in main_job(folder, sm2_trial.url, f"{kind.lower()}-at-sm2"):
        assert f'"alg":"{SM2_WITH_SM3}"'.encode() in header_of(document)
        protected, payload, signature = parts_of(document)
        key = key_in(sm2_trial.folder / "keys" / "answer.pem")
        assert openssl_says(tmp_path, key, unb64url(signature), f"{protected}.{payload}".encode()) == "Verified OK"


def test_over_mqtt_receipt_report_and_refusal_by_sm2_are_taken(sm2_trial: Trial) -> None:
    content = in_memory(csv(rows("mqtt-at-sm2")))
    with sm2_trial.mqtt_partner("made-up") as partner:
        receipt = partner.push(FEED, content, "text/csv", "mqtt-at-sm2")
        reported = partner.report("mqtt-at-sm2", wait_s=60)
        with pytest.raises(Refusal, match=r"delivery\.id_reused"):
            partner.push(FEED, in_memory(b"other"), "text/csv", "mqtt-at-sm2")
    assert reported.status == "processed"
    assert f'"alg":"{SM2_WITH_SM3}"'.encode() in header_of(receipt)
    assert sm2_trial.partner("made-up").push(FEED, content, "text/csv", "mqtt-at-sm2").octets == receipt.octets


def test_receipt_and_checkpoint_by_sm2_are_checked_with_openssl_alone(sm2_trial: Trial, tmp_path: Path) -> None:
    folder = another_folder(sm2_trial, "RS256")
    receipt, _ = main_job(folder, sm2_trial.url, "script-at-sm2")
    file, anchors = tmp_path / "receipt.json", folder.path / "anchors.json"
    file.write_bytes(receipt.octets)
    done = checked(file, anchors)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == f"entry {receipt.document['index']} lies under it"
    spoilt = receipt.octets.replace(b'"payload":"e', b'"payload":"f')
    file.write_bytes(spoilt)
    assert checked(file, anchors).stdout == "DOES NOT HOLD: signature\n"
    file.write_bytes(receipt.octets)
    other = msgspec.structs.replace(folder.anchors, log_key=generate("SM2").public_key.point.hex())  # type: ignore[union-attr]
    (tmp_path / "anchors.json").write_bytes(msgspec.json.encode(other))
    assert checked(file, tmp_path / "anchors.json").stdout.splitlines()[-1] == "DOES NOT HOLD: checkpoint"


def test_a_bus_whose_keys_are_not_of_the_suite_in_its_settings_does_not_start(tmp_path: Path) -> None:
    made = a_trial(tmp_path, REGISTER, suites={"signing": "RS256"})
    path = Path(made.settings.source)
    text = path.read_text()
    path.write_text(text.replace('signing = "RS256"', 'signing = "PS256"'))
    with closing(opening.open_journal(load_settings(path))):
        pass  # the same key signs by PSS as well
    for suites, says in (('signing = "SM2"', "answer.key"), ('signing = "RS256"\ncheckpoints = "SM2"', "log.key")):
        path.write_text(text.replace('signing = "RS256"', suites))
        with pytest.raises(Misconfigured, match=says):
            opening.open_journal(load_settings(path))


def test_a_bus_is_not_made_with_a_name_for_sm2_that_is_another_algorithms(tmp_path: Path) -> None:
    taken = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256"
    with pytest.raises(Misconfigured, match="name of another algorithm"):
        a_trial(tmp_path, suites={"xml_sm2_signature": taken})


def header_of(document: Received) -> bytes:
    return unb64url(parts_of(document)[0])


def parts_of(document: Received) -> tuple[str, str, str]:
    members = json.loads(document.octets)
    return members["protected"], members["payload"], members["signature"]
