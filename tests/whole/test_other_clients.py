"""Toolkits that are not ours push and pull at a real bus: zeep, node's `soap`, PHP's SoapClient, OpenSSL, curl."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import requests
import xmlsec
import zeep
import zeep.exceptions

from connectors.partner.folder import PartnerFolder
from exchange.cli.verifying import read_anchors
from exchange.receipts import verify_receipt
from security.errors import sentences
from security.keys import Kind
from security.message import in_memory
from tests.conftest import ROOT
from tests.security.test_oracles import timed_signature
from tests.whole.real_bus import FEED, RealBus, csv, place, rows

PURPOSE = "井盖缺失案件"


def program(name: str) -> str:
    """A program of the machine; skips the test, by its name, where it is absent."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} (make servers)")
    return found


def documents_hold(folder: PartnerFolder, receipt: str, report: str) -> None:
    """Both documents hold against the anchors, and every record of the delivery went in."""
    anchors = read_anchors(folder.path / "anchors.json")
    assert verify_receipt(receipt.encode(), anchors).document["outcome"] == "accepted"
    told = verify_receipt(report.encode(), anchors).document["report"]
    assert isinstance(told, dict)
    assert (told["records"], told["rejected"]) == (3, 0)


# zeep ----------------------------------------------------------------------------------------------------------------


class Zeep:
    """A bureau's zeep with its stock signer and the documented lines, against the WSDL that the running bus serves."""

    def __init__(self, bus: RealBus, kind: Kind, version: str) -> None:
        self.folder, self._bus, self._version = bus.folder(kind=kind), bus, version
        suite = {"RS256": xmlsec.constants.TransformRsaSha256, "ES256": xmlsec.constants.TransformEcdsaSha256}[kind]
        files = self.folder.file("signing.key"), self.folder.file("signing.pem")
        self._wsse = timed_signature()(*files, algorithm=suite)
        self.feeds, self.components = self._service("Feeds"), self._service("Components")

    def _service(self, name: str) -> Any:
        transport = zeep.Transport(session=self._bus.session(self.folder))
        address, port = f"{self._bus.url}/soap/{name.lower()}?wsdl", f"{name}Soap{self._version}"
        return zeep.Client(address, wsse=self._wsse, transport=transport, port_name=port).service

    def names(self, id: str) -> dict[str, str]:
        """What every request begins with."""
        return {"Sender": "made-up", "Recipient": self._bus.origin, "MessageId": id}

    def asked(self, what: str) -> dict[str, str]:
        """What every read begins with."""
        return {**self.names(f"read-{what}-{time.time_ns()}"), "Purpose": PURPOSE, "CaseNumber": "2026-7"}

    def push(self, id: str, octets: bytes) -> str:
        """SubmitDelivery; the receipt."""
        digest = {"_value_1": in_memory(octets).digest.hex, "algorithm": "SHA-256"}
        answer = self.feeds.SubmitDelivery(
            **self.names(id), Feed=FEED, ContentType="text/csv", ContentDigest=digest, Content=octets
        )
        return str(answer.Receipt)

    def report(self, id: str) -> str:
        """GetReport, until act two has run."""
        while True:
            answer = self.feeds.GetReport(**self.asked("report"), DeliveryMessageId=id)
            if answer.Status != "waiting":
                return str(answer.Report)
            time.sleep(0.2)


@pytest.mark.parametrize("version", ["11", "12"])
@pytest.mark.parametrize("kind", ["ES256", "RS256"])
def test_zeep_with_its_stock_signer_pushes_and_pulls(bus: RealBus, kind: Kind, version: str) -> None:
    client, id = Zeep(bus, kind, version), f"zeep-{kind}-{version}"
    receipt = client.push(id, csv(rows(id)))
    again = client.feeds.GetReceipt(**client.asked("receipt"), DeliveryMessageId=id)
    assert again.Receipt == receipt
    assert again.InReplyTo.MessageId.startswith("read-receipt-")
    documents_hold(client.folder, receipt, client.report(id))
    longitude, latitude = place(id)
    there = {"LongitudeDeg": longitude, "LatitudeDeg": latitude, "RadiusM": 5}
    (near,) = client.components.FindNearest(**client.asked("near"), **there, ClassCode="0101").Near
    key = str(near.Ownership.Component.Key)
    owned = client.components.GetOwnership(**client.asked("whose"), ComponentId=key).Ownership
    assert owned.Verdict == "one owner"
    assert [(role.role, [unit.Name for unit in role.Unit]) for role in owned.Role] == [
        ("authority", ["某主管部门"]), ("owner", ["某权属单位"]), ("maintainer", ["某养护单位"]),
    ]  # fmt: skip
    assert [(claim.MessageId, claim.SourceKey) for claim in owned.Claim] == [(id, f"{id}-0")]


def test_zeep_reads_a_refusal_with_code_and_sentences(bus: RealBus) -> None:
    client = Zeep(bus, "RS256", "11")
    with pytest.raises(zeep.exceptions.Fault) as refused:
        client.feeds.GetReceipt(**client.asked("receipt"), DeliveryMessageId="never-sent")
    words = {element.tag.rpartition("}")[2]: element.text for element in refused.value.detail[0]}
    assert words["Code"] == "delivery.unknown"
    assert words["SentenceZh"] in refused.value.message
    assert words["SentenceEn"] in refused.value.message


# node's soap and PHP's SoapClient -------------------------------------------------------------------------------------

CLIENTS = ROOT / "docs" / "clients"  # what is documented is what runs
Ran = tuple[int, dict[str, Any]]


class Toolkit:
    """A language whose documented client a bureau would take: `push` and, where there is one, `ask`."""

    def __init__(self, command: str, suffix: str, environment: dict[str, str]) -> None:
        self._command, self._suffix, self._environment = command, suffix, environment

    def run(self, script: str, *arguments: str) -> Ran:
        """Exit code and the JSON document that was printed."""
        done = self._done(str(CLIENTS / f"{script}.{self._suffix}"), *arguments)
        assert done.stdout, done.stderr
        return done.returncode, dict(json.loads(done.stdout))

    def says(self, option: str, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A few lines of the language, run among the clients' files."""
        return self._done(option, program, "--", *arguments)

    def _done(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [self._command, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=self._environment, cwd=CLIENTS)


@pytest.fixture(scope="module")
def node() -> Toolkit:
    """node, if it has the `soap` package: in .node, where `make servers` puts it, or in NODE_PATH."""
    environment = {**os.environ, "NODE_PATH": f"{ROOT / '.node/node_modules'}:{os.environ.get('NODE_PATH', '')}"}
    command = program("node")
    if subprocess.run([command, "-e", "require('soap')"], capture_output=True, env=environment).returncode != 0:
        pytest.skip("node soap (make servers)")
    return Toolkit(command, "js", environment)


@pytest.fixture(scope="module")
def php() -> Toolkit:
    """PHP, if it has SoapClient."""
    command = program("php")
    if subprocess.run([command, "-r", "exit((int) !class_exists('SoapClient'));"]).returncode != 0:
        pytest.skip("php soap (make servers)")
    return Toolkit(command, "php", dict(os.environ))


@pytest.mark.parametrize(
    "language, kind, version",
    [("node", "RS256", "11"), ("node", "RS256", "12"), ("php", "ES256", "11"), ("php", "RS256", "12")],
)
def test_a_documented_client_pushes_and_reads_its_receipt(
    bus: RealBus, request: pytest.FixtureRequest, tmp_path: Path, language: str, kind: Kind, version: str
) -> None:
    """It checks itself that the receipt is signed by the bus, and that asked again the bus gives the same octets."""
    toolkit: Toolkit = request.getfixturevalue(language)
    folder, id = bus.folder(kind=kind), f"{language}-{kind}-{version}"
    file = tmp_path / "register.csv"
    file.write_bytes(csv(rows(id)))
    before = (bus.url, str(folder.path), bus.origin)
    code, told = toolkit.run("push", *before, FEED, version, str(file), id)
    assert (code, told["status"]) == (0, "processed")
    documents_hold(folder, told["receipt"], told["report"])
    row = bus.journal.inbox("made-up", id)
    assert row is not None
    assert (row.receipt, row.signer) == (told["receipt"].encode(), folder.signing.fingerprint)
    assert json.loads(bus.leaf(told["index"]))["signer"] == row.signer

    code, told = toolkit.run("push", *before, "nobody-knows", version, str(file), f"{id}-bad")
    assert (code, set(told)) == (1, {"refused"})
    said = {name: told["refused"][name] for name in ("Code", "SentenceZh", "SentenceEn", "NextZh", "NextEn")}
    wording = sentences()["feed.unknown"]
    assert list(said.values()) == ["feed.unknown", wording.zh, wording.en, wording.next_zh, wording.next_en]
    assert bus.journal.inbox("made-up", f"{id}-bad") is None


@pytest.mark.parametrize("version", ["11", "12"])
def test_nodes_soap_asks_whose_it_is(bus: RealBus, node: Toolkit, version: str) -> None:
    folder, id = bus.folder(kind="RS256"), f"node-asks-{version}"
    bus.partner().push(FEED, in_memory(csv(rows(id))), "text/csv", id)
    bus.partner().report(id, wait_s=30)
    there = [str(degrees) for degrees in place(id)]
    code, told = node.run("ask", bus.url, str(folder.path), bus.origin, version, *there)
    assert (code, len(told["near"]), told["verdict"], told["claims"]) == (0, 1, "one owner", [id])


SAID = {
    "node": ("-e", "const [f, r] = process.argv.slice(1); const { Bus } = require('./bus.js');"
                   "console.log(new Bus('', f, '', '11').said(require('fs').readFileSync(r, 'utf8')).index)"),
    "php": ("-r", "require 'receipt.php';"
                  "echo said(file_get_contents($argv[2]), $argv[1] . '/anchors.json')['index'];"),
}  # fmt: skip


@pytest.mark.parametrize("language", SAID)
def test_no_documented_client_believes_a_receipt_that_was_altered(
    bus: RealBus, request: pytest.FixtureRequest, tmp_path: Path, language: str
) -> None:
    toolkit: Toolkit = request.getfixturevalue(language)
    id = f"altered-{language}"
    receipt = bus.partner().push(FEED, in_memory(csv(rows(id))), "text/csv", id)
    folder, file = bus.folder(kind="RS256").path, tmp_path / "receipt.json"
    file.write_bytes(receipt.octets)
    assert toolkit.says(*SAID[language], str(folder), str(file)).stdout.strip() == str(receipt.document["index"])
    report = bus.partner().report(id, wait_s=30).received
    assert report is not None
    for octets in (receipt.octets.replace(b'"payload":"e', b'"payload":"f'), report.octets):
        file.write_bytes(octets)
        told = toolkit.says(*SAID[language], str(folder), str(file))
        assert told.returncode != 0
        assert "signed this receipt" in told.stdout + told.stderr


def test_phps_ecdsa_numbers_keep_their_value_from_der_to_raw_and_back(bus: RealBus, php: Toolkit) -> None:
    """One in 128 signatures has a number that is shorter, or one whose first bit needs a zero before it."""
    key = bus.folder().file("signing.key")
    loop = """
        require 'sign.php'; require 'receipt.php';
        $key = openssl_pkey_get_private(file_get_contents($argv[1]));
        for ($n = 0; $n < 2000; $n++) {
            openssl_sign("$n", $der, $key, OPENSSL_ALGO_SHA256);
            $raw = raw_of_der($der);
            if (strlen($raw) !== 64 || der_of_raw($raw) !== $der) exit(1);
        }
        echo $n;
    """
    assert php.says("-r", loop, key).stdout == "2000"


# OpenSSL and curl ----------------------------------------------------------------------------------------------------


def checked(receipt: Path, anchors: Path) -> subprocess.CompletedProcess[str]:
    script = ROOT / "docs" / "verify_receipt.sh"
    return subprocess.run(["bash", str(script), str(receipt), str(anchors)], capture_output=True, text=True, timeout=60)


def test_a_receipt_is_checked_with_openssl_alone(bus: RealBus, tmp_path: Path) -> None:
    program("openssl")
    id = "openssl-1"
    receipt = bus.partner().push(FEED, in_memory(csv(rows(id))), "text/csv", id)
    anchors = bus.folder().path / "anchors.json"
    file = tmp_path / "receipt.json"
    file.write_bytes(receipt.octets)
    done = checked(file, anchors)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == f"entry {receipt.document['index']} lies under it"
    for spoilt in (receipt.octets.replace(b'"payload":"e', b'"payload":"f'), receipt.octets[:-10] + b'AAAAAAAA"}'):
        file.write_bytes(spoilt)
        assert checked(file, anchors).returncode == 1


def test_curl_asks_over_rest_with_the_client_certificate(bus: RealBus) -> None:
    id, folder = "curl-1", bus.folder()
    bus.partner().push(FEED, in_memory(csv(rows(id))), "text/csv", id)
    bus.partner().report(id, wait_s=30)
    command = [program("curl"), "--silent", "--show-error", "--max-time", "20", "--cacert", folder.file("ca.pem")]
    mine = ["--cert", folder.file("connection.pem"), "--key", folder.file("connection.key")]
    longitude, latitude = place(id)
    address = f"{bus.url}/api/v1/components/near?lon={longitude}&lat={latitude}&radius_m=5&purpose=case"
    answer = json.loads(subprocess.run([*command, *mine, address], capture_output=True, check=True).stdout)
    assert answer["signed_request"] is False
    (near,) = answer["near"]
    key = near["ownership"]["component"]["key"]
    address = f"{bus.url}/api/v1/components/{key}/ownership?purpose=case"
    answer = json.loads(subprocess.run([*command, *mine, address], capture_output=True, check=True).stdout)
    assert answer["ownership"]["verdict"] == "one owner"
    refused = json.loads(subprocess.run([*command, address], capture_output=True, check=True).stdout)
    assert refused["refusal"]["code"] == "auth.refused"


def test_the_published_contracts_are_served(bus: RealBus) -> None:
    with bus.session(None) as session:
        for path in ("/soap/feeds?wsdl", "/soap/components?wsdl", "/soap/yongtong.xsd", "/api/openapi.json"):
            assert session.get(bus.url + path, timeout=20).status_code == requests.codes.ok
