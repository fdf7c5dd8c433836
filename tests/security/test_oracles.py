"""Other people's signers and verifiers: libxmlsec1 and zeep."""

import hashlib
import importlib.util
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import xmlsec
from lxml import etree
from zeep.wsse import signature as zeep_signature

from security.authenticate import TrustList, signer_of
from security.errors import Refusal
from security.keys import SigningKey, generate
from security.message import Content, EnrolledCertificate
from security.pki import enrolled, issue, make_ca, pem_of
from security.wss import VerifiedEnvelope, open_envelope, sign, verify
from security.xmldsig import DS
from tests.security.attacks import ATTACKS
from tests.security.vectors import CONTENT, ENROLLED, GOOD, NOW, b64

DOCS = Path(__file__).parent.parent.parent / "docs"
PLAIN = (
    '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>'
    '<SubmitDelivery xmlns="urn:yongtong:v1"><Sender>water</Sender><MessageId>m-1</MessageId><ContentDigest '
    f'algorithm="SHA-256">{hashlib.sha256(CONTENT).hexdigest()}</ContentDigest><Content>{b64(CONTENT)}</Content>'
    "</SubmitDelivery></s:Body></s:Envelope>"
)


def libxmlsec_verifies(octets: bytes, certificate_der: bytes) -> bool:
    """Whether libxmlsec1, following references by id as it does, finds the signature good."""
    root = etree.fromstring(octets)
    xmlsec.tree.add_ids(root, ["Id"])
    context = xmlsec.SignatureContext()
    context.key = xmlsec.Key.from_memory(pem_of(certificate_der), xmlsec.constants.KeyDataFormatCertPem)
    signature = root.find(f".//{DS}Signature")
    assert signature is not None
    try:
        context.verify(signature)
    except xmlsec.Error:
        return False
    return True


@pytest.mark.parametrize("algorithm", ["ES256", "RS256", "PS256"])
def test_libxmlsec_verifies_what_we_sign(algorithm: Any, tmp_path: Path) -> None:
    key, certificate = a_signer("RS256" if algorithm == "PS256" else algorithm, tmp_path)
    key = key.with_certificate(certificate.der).signing_by(algorithm)
    octets = sign(etree.fromstring(PLAIN), key, certificate.der, created=NOW, expires=NOW + timedelta(minutes=5))
    assert libxmlsec_verifies(octets, certificate.der)
    assert not libxmlsec_verifies(octets.replace(b"m-1", b"m-2"), certificate.der)


@pytest.mark.parametrize(
    "name", sorted(set(GOOD) - {"str_transform", "plain_id", "xml_id", "upper_case_id", "lower_case_id"})
)
def test_libxmlsec_agrees_about_the_good_ones(name: str) -> None:
    """The rest use an STR-Transform or id spellings that the wheel does not read."""
    assert libxmlsec_verifies(GOOD[name](), ENROLLED.der)


@pytest.mark.parametrize(
    "name",
    ["wrapped_body_in_header", "wrapped_body_evil_without_id", "wrapped_body_as_second_body", "wrapped_timestamp",
     "body_not_signed", "timestamp_not_signed", "comment_in_body", "stale", "object", "sender_doubled"],
)  # fmt: skip
def test_attacks_hold_for_a_verifier_that_only_follows_references(name: str) -> None:
    """These vectors are no straw men: the signature in them is good, and libxmlsec1 says so."""
    assert libxmlsec_verifies(ATTACKS[name][1](), ENROLLED.der)


def a_signer(kind: Any, folder: Path) -> tuple[SigningKey, EnrolledCertificate]:
    """A key now valid, its certificate enrolled, and both as the PEM files that zeep wants."""
    now = datetime.now(UTC)
    key = generate(kind)
    ca, year = make_ca("Test CA", now), timedelta(days=365)
    der = issue(ca, "water", key.public_key, "signing", now - year, now + year)
    (folder / "signing.key").write_bytes(key.pem())
    (folder / "signing.pem").write_bytes(pem_of(der))
    return key, enrolled(der, "water", "signing")


def from_zeep(signer: Any) -> bytes:
    """What zeep sends: its stock signer applied to an envelope without Header."""
    envelope, _ = signer.apply(etree.fromstring(PLAIN), {})
    return etree.tostring(envelope, encoding="utf-8", xml_declaration=True)


def timed_signature() -> Any:
    spec = importlib.util.spec_from_file_location("zeep_client", DOCS / "clients" / "zeep_client.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["zeep_client"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.TimedSignature


def verified(octets: bytes, certificate: EnrolledCertificate, attachment: Content | None = None) -> VerifiedEnvelope:
    now = datetime.now(UTC)
    envelope = open_envelope(octets)
    return verify(
        envelope,
        signer_of(TrustList((certificate,)).named(envelope.key_reference), envelope.claimed("Sender"), now),
        now=now,
        attachment=attachment,
    )


@pytest.mark.parametrize("kind, algorithm", [("RS256", "TransformRsaSha256"), ("ES256", "TransformEcdsaSha256")])
def test_zeep_with_the_documented_lines_is_taken(kind: Any, algorithm: str, tmp_path: Path) -> None:
    _, certificate = a_signer(kind, tmp_path)
    files = str(tmp_path / "signing.key"), str(tmp_path / "signing.pem")
    octets = from_zeep(timed_signature()(*files, algorithm=getattr(xmlsec.constants, algorithm)))
    found = verified(octets, certificate)
    assert (found.text("Sender"), found.signer.certificate) == ("water", certificate.fingerprint)
    with pytest.raises(Refusal, match=r"signature\.invalid"):
        verified(octets.replace(b"m-1", b"m-2"), certificate)


def test_zeep_naming_its_certificate_by_issuer_and_serial_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """zeep's other signer puts X509Data with certificate, issuer and serial number into the key reference."""
    _, certificate = a_signer("RS256", tmp_path)
    monkeypatch.setattr(zeep_signature, "_sign_envelope_with_key_binary", zeep_signature._sign_envelope_with_key)
    octets = from_zeep(timed_signature()(str(tmp_path / "signing.key"), str(tmp_path / "signing.pem")))
    assert b"X509IssuerSerial" in octets
    assert verified(octets, certificate).text("Sender") == "water"
