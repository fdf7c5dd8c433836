"""Bundles of deliveries that came otherwise, that are sealed or erased, and of certificates that were ended."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp
from lxml import etree

from connectors.partner.folder import PartnerFolder
from connectors.transports.multipart import put_together
from exchange.app import opening, places, trusted
from exchange.attestations import Attestations
from exchange.bundle_check import BundleVerdict, verify_bundle
from exchange.bundle_export import Sources, of_message
from exchange.bundle_parts import CITY_TIME
from exchange.cli import main as command_line
from exchange.cli.people import registry
from exchange.cli.trial import APPROVER, AUDITOR, PROPOSER
from exchange.database import SqliteFile
from exchange.processing import process
from exchange.registry import Bureau
from exchange.uploads import Upload
from security import bundle, pki
from security.anchors import Anchors
from security.bundle import MANIFEST, sign_manifest
from security.keys import SigningKey, generate
from security.message import Content, Delivery, in_memory
from security.wss import sign
from tests.acts.bench_of_one import FEED, REGISTER, SOAP, YT, Acts, both_acts, covers
from tests.acts.bundles import Parts, packed, row, says, states
from tests.acts.test_four_eyes import SEALED, Desk

NOT_ASKED = ("witnesses", "timestamp")


@pytest.fixture
def acts(tmp_path: Path) -> Iterator[Acts]:
    sensitive = REGISTER.replace(FEED, SEALED).replace("[defaults]", 'sensitive = ["note"]\n\n[defaults]')
    with both_acts(tmp_path, **{SEALED: sensitive}) as acts:
        for feed in (FEED, SEALED):
            acts.trial.grant("made-up", "push", feed)
        yield acts


@pytest.fixture
def desk(acts: Acts, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(acts, capsys)


def anchors_of(acts: Acts, **changed: Any) -> Anchors:
    return msgspec.structs.replace(trusted.anchors_of(acts.trial.settings), **changed)


def exported(acts: Acts, message_id: str, sender: str = "made-up", **more: Any) -> Parts:
    settings = acts.trial.settings
    row = acts.bus.journal.inbox(sender, message_id)
    assert row is not None
    with closing(Attestations(SqliteFile(acts.bus.folder, "journal"))) as kept:
        sources = Sources(
            acts.bus, kept, trusted.open_revocations(settings), anchors_of(acts), opening.feed_files(settings), **more
        )
        return {name: part.read() for name, part in of_message(row, sources).items()}


def verdict_of(parts: Parts, anchors: Anchors) -> BundleVerdict:
    return verify_bundle(in_memory(packed(parts)), anchors, datetime.now(UTC))


def checked(acts: Acts, message_id: str, sender: str = "made-up") -> BundleVerdict:
    return verdict_of(exported(acts, message_id, sender), anchors_of(acts))


# Every envelope and form.


def signed(acts: Acts, operation: str, members: dict[str, str | None]) -> bytes:
    """A request of `made-up`; a member that is None holds the Include of an attachment."""
    envelope = etree.Element(f"{{{SOAP}}}Envelope", nsmap={"s": SOAP})
    body = etree.SubElement(envelope, f"{{{SOAP}}}Body")
    element = etree.SubElement(body, f"{YT}{operation}", nsmap={None: YT[1:-1]})
    for name, text in members.items():
        child = etree.SubElement(element, YT + name)
        child.text = text
        if name == "ContentDigest":
            child.set("algorithm", "SHA-256")
        if text is None:
            etree.SubElement(child, "{http://www.w3.org/2004/08/xop/include}Include", href="cid:content@yongtong")
    key, now = acts.folder.signing, acts.bus.clock()
    return sign(envelope, key, key.certificate_der or b"", created=now, expires=now + timedelta(minutes=5))


def names_of(acts: Acts, message_id: str, content: bytes) -> dict[str, str | None]:
    return {
        "Sender": "made-up",
        "Recipient": acts.bus.origin,
        "MessageId": message_id,
        "Feed": FEED,
        "ContentType": "text/csv",
        "ContentDigest": in_memory(content).digest.hex,
    }


def arrived(acts: Acts, octets: bytes, attachment: Content, attachment_id: str) -> Delivery:
    """A request with what came beside it, or before it."""
    raw, path = in_memory(put_together(octets, attachment).read()), acts.folder.path
    carrier = SigningKey.load(path / "connection.key", certificate_path=path / "connection.pem").certificate_der
    return Delivery("soap", carrier, "127.0.0.1", octets, raw, acts.bus.clock(), attachment, attachment_id)


@pytest.mark.parametrize("count", [3, 60_000], ids=["small", "3 MB"])
def test_an_attachment_is_verified_with_its_envelope(
    acts: Acts, desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str], count: int
) -> None:
    content = covers("A", count)
    octets = signed(acts, "SubmitDelivery", {**names_of(acts, "m-1", content), "Content": None})
    acts.receive(arrived(acts, octets, in_memory(content), "content@yongtong"))
    assert export(acts, desk, "message", "m-1", str(tmp_path / "b.zip"))[0] == 0
    code, said = verified(acts, tmp_path / "b.zip", capsys)
    assert (code, said["state"]) == (0, "holds")
    (row,) = (one for one in said["bundle"]["rows"] if one["name"] == "signature")
    assert f"mtom, {len(content)} octets" in row["about"][0]


def test_what_was_uploaded_in_pieces_is_verified_with_the_request_that_ends_it(acts: Acts) -> None:
    content = covers("A", 100)
    said = names_of(acts, "m-1", content)
    upload = Upload(
        "made-up", "made-up", FEED, "m-1", "text/csv", str(said["ContentDigest"]), len(content), acts.bus.clock()
    )
    id, _ = acts.bus.uploads.begin(upload)
    acts.bus.uploads.append(id, ("made-up", "made-up", FEED, "m-1"), 0, in_memory(content))
    octets = signed(acts, "CompleteUpload", {**said, "UploadId": id})
    acts.receive(arrived(acts, octets, acts.bus.uploads.whole(id), ""))
    verdict = checked(acts, "m-1")
    assert (verdict.state, verdict.not_asked) == ("holds", NOT_ASKED)
    assert says(verdict, "signature", "upload,")


@pytest.mark.parametrize("kind", ["SM2", "ES256", "RS256", "EdDSA"])
def test_a_cms_and_a_jws_of_every_key_are_verified(acts: Acts, kind: Any) -> None:
    acts.receive(acts.by_broker("m-1", covers("A"), key=acts.more_key(kind)))
    verdict = checked(acts, "m-1")
    assert (verdict.state, verdict.not_asked) == ("holds", NOT_ASKED)
    assert says(verdict, "signature", "cms," if kind == "SM2" else "jws,")


def test_what_a_bureau_signed_in_anothers_name_shows_the_grant_that_let_it(acts: Acts) -> None:
    acts.trial.enrol("helper", "Helper", "代报单位")
    acts.trial.grant("helper", "push", FEED)
    grant = acts.trial.grant("helper", "on_behalf_of", "made-up")
    key = PartnerFolder(acts.trial.partners / "helper").signing
    acts.receive(acts.by_broker("m-1", covers("A"), key=key))
    verdict = checked(acts, "m-1")
    assert verdict.state == "holds"
    assert says(verdict, "grant", f"{grant}, helper may on_behalf_of made-up")
    assert says(verdict, "enrolment", "of helper")


# Certificates that were ended.


def test_a_certificate_revoked_after_the_delivery_does_not_undo_it(acts: Acts) -> None:
    received = acts.push("m-1", covers("A"))
    with registry(acts.trial.settings) as opened:
        opened.revoke_certificate(received.inbox.signer, PROPOSER)
    assert checked(acts, "m-1").state == "holds"


def test_a_revocation_left_out_is_found_by_the_digest_of_what_was_trusted(acts: Acts) -> None:
    """An operator who hides that somebody's certificate was ended, and signs the bundle himself."""
    other = acts.more_key("ES256")
    acts.push("m-0", covers("A"))
    with registry(acts.trial.settings) as opened:
        opened.revoke_certificate(other.fingerprint, PROPOSER)
    acts.push("m-1", covers("B"))
    parts = exported(acts, "m-1")
    assert verdict_of(parts, anchors_of(acts)).state == "holds"
    (hidden,) = (entry.index for entry in acts.bus.journal.search(type="decision", outcome="revoked"))
    del parts[f"entries/{hidden}.json"]
    verdict = verdict_of(signed_anew(acts, parts), anchors_of(acts))
    assert states(verdict) == {"enrolment": "broken", "witnesses": "missing", "timestamp": "missing"}
    assert says(verdict, "enrolment", "left out")


def test_a_delivery_long_after_its_certificate_was_revoked_is_broken(
    acts: Acts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bus that goes on taking what an ended key signs."""
    received = acts.push("m-0", covers("A"))
    with registry(acts.trial.settings) as opened:
        opened.revoke_certificate(received.inbox.signer, PROPOSER)
    past = acts.bus.registry._standing.certificates
    _ = acts.bus.registry.trust()
    certificate = acts.bus.registry._standing.certificates[received.inbox.signer]
    assert certificate.revoked_at is not None
    past[received.inbox.signer] = msgspec.structs.replace(certificate, revoked_at=None)
    acts.bus.registry._snapshot = acts.bus.registry._load((-1, None), -1)
    monkeypatch.setattr(acts.bus.registry, "_current", lambda: acts.bus.registry._snapshot)
    later = acts.bus.clock() + timedelta(hours=1)
    bus = acts.with_(clock=lambda: later)
    monkeypatch.setattr(acts.bus.journal._sequencer, "_clock", lambda: later)
    bus.push("m-1", covers("B"))
    verdict = verify_bundle(
        in_memory(packed(exported(bus, "m-1"))), anchors_of(acts), datetime.now(UTC) + timedelta(hours=2)
    )
    assert row(verdict, "enrolment").state == "broken"
    assert says(verdict, "enrolment", "auth.certificate_revoked")


class CityAuthority:
    """The city's CA, whose list the bus keeps."""

    def __init__(self, acts: Acts) -> None:
        self.ca, self._acts = pki.make_ca("City CA", acts.bus.clock()), acts
        self.pem = pki.pem_of(self.ca.certificate_der).decode()

    def key(self) -> SigningKey:
        """A signing key of `made-up` with a certificate of the city's, enrolled."""
        key, now = generate("ES256"), self._acts.bus.clock()
        der = pki.issue(
            self.ca, "made-up", key.public_key, "signing", now - timedelta(days=1), now + timedelta(days=30)
        )
        self._acts.trial.enrol_with(Bureau("made-up", "", "", ""), [pki.enrolled(der, "made-up", "signing")])
        return key.with_certificate(der)

    def list_(self, at: datetime, *revoked: tuple[SigningKey, datetime]) -> bytes:
        """A revocation list of that time, DER."""
        certificate = x509.load_der_x509_certificate(self.ca.certificate_der)
        builder = x509.CertificateRevocationListBuilder().issuer_name(certificate.subject)
        builder = builder.last_update(at).next_update(at + timedelta(days=1))
        for key, since in revoked:
            serial = x509.load_der_x509_certificate(key.certificate_der or b"").serial_number
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(since).build()
            builder = builder.add_revoked_certificate(entry)
        made = builder.sign(self.ca.key.issuing_key(), hashes.SHA256())  # type: ignore[arg-type]
        return made.public_bytes(serialization.Encoding.DER)

    def answer(self, key: SigningKey, at: datetime, since: datetime | None = None) -> bytes:
        """An OCSP answer of that time, DER."""
        certificate, issuer = map(x509.load_der_x509_certificate, (key.certificate_der or b"", self.ca.certificate_der))
        status = ocsp.OCSPCertStatus.REVOKED if since else ocsp.OCSPCertStatus.GOOD
        builder = ocsp.OCSPResponseBuilder().add_response(
            certificate, issuer, hashes.SHA1(), status, at, at + timedelta(days=1), since, None
        )
        builder = builder.responder_id(ocsp.OCSPResponderEncoding.NAME, issuer)
        made = builder.sign(self.ca.key.issuing_key(), hashes.SHA256())  # type: ignore[arg-type]
        return made.public_bytes(serialization.Encoding.DER)


def with_list(acts: Acts, parts: Parts, octets: bytes) -> Parts:
    return signed_anew(acts, {**parts, f"status/{sha256(octets).hexdigest()}.crl": octets})


def test_what_the_authority_said_of_a_certificate_is_laid_beside_its_day(acts: Acts) -> None:
    city = CityAuthority(acts)
    key, now = city.key(), acts.bus.clock()
    acts.push("m-1", covers("A"), key=key)
    parts, anchors = exported(acts, "m-1"), anchors_of(acts, authorities=[city.pem])
    before, after = now - timedelta(hours=1), acts.bus.clock() + timedelta(seconds=1)
    good = verdict_of(with_list(acts, parts, city.list_(before)), anchors)
    assert good.state == "holds"
    assert says(good, "certificate", "under an authority among the anchors")
    assert says(good, "certificate", "not revoked; answer of")
    later = verdict_of(with_list(acts, parts, city.list_(after, (key, after))), anchors)
    assert later.state == "holds", "ended after it signed"
    assert says(later, "certificate", "revoked later")
    revoked = verdict_of(with_list(acts, parts, city.list_(before, (key, before))), anchors)
    assert (revoked.state, row(revoked, "certificate").state) == ("broken", "broken")
    assert says(revoked, "certificate", "auth.certificate_revoked")
    future = verdict_of(with_list(acts, parts, city.list_(now + timedelta(days=1))), anchors)
    assert says(future, "certificate", "revocation.future")
    forger = CityAuthority(acts)
    forged = verdict_of(with_list(acts, parts, forger.list_(before)), anchors)
    assert row(forged, "certificate").state == "broken"
    misnamed = signed_anew(acts, {**parts, f"status/{'0' * 64}.crl": city.list_(before)})
    assert says(verdict_of(misnamed, anchors), "certificate", "not what it is named for")
    unnamed = verdict_of(with_list(acts, parts, city.list_(after, (key, before))), anchors_of(acts, authorities=[]))
    assert says(unnamed, "certificate", "not looked at: the anchors name no authority")


def test_a_revocation_dated_back_after_the_delivery_does_not_deny_it(acts: Acts) -> None:
    """Whoever has the authority's key, or the bureau that would rather not have sent it."""
    city = CityAuthority(acts)
    key, now = city.key(), acts.bus.clock()
    acts.push("m-1", covers("A"), key=key)
    parts, anchors = exported(acts, "m-1"), anchors_of(acts, authorities=[city.pem])
    after, before = acts.bus.clock() + timedelta(seconds=1), now - timedelta(hours=2)
    verdict = verdict_of(with_list(acts, parts, city.list_(after, (key, before))), anchors)
    assert (verdict.state, row(verdict, "certificate").state) == ("incomplete", "missing")
    assert says(verdict, "certificate", "revoked later, with effect before the delivery")
    assert says(verdict, "certificate", "the authority's word of")


def test_what_a_responder_said_of_a_certificate_counts_likewise(acts: Acts) -> None:
    city = CityAuthority(acts)
    key, now = city.key(), acts.bus.clock()
    acts.push("m-1", covers("A"), key=key)
    parts, anchors = exported(acts, "m-1"), anchors_of(acts, authorities=[city.pem])
    for since, state in ((None, "holds"), (now - timedelta(hours=2), "broken")):
        octets = city.answer(key, now - timedelta(hours=1), since)
        name = f"status/{sha256(octets).hexdigest()}.ocsp"
        verdict = verdict_of(signed_anew(acts, {**parts, name: octets}), anchors)
        assert (verdict.state, row(verdict, "certificate").state) == (state, state)


def test_a_certificate_of_an_authority_whose_own_was_not_valid_then_is_broken(acts: Acts) -> None:
    city = CityAuthority(acts)
    acts.push("m-1", covers("A"), key=city.key())
    late = pki.make_ca("City CA", acts.bus.clock() + timedelta(days=9), key=city.ca.key)
    anchors = anchors_of(acts, authorities=[pki.pem_of(late.certificate_der).decode()])
    assert says(verdict_of(exported(acts, "m-1"), anchors), "certificate", "chain.not_yet_valid")


# Sealed and erased.


def test_a_sealed_original_is_withheld_and_that_is_no_pass(acts: Acts) -> None:
    acts.push("m-1", covers("A"), SEALED)
    parts = exported(acts, "m-1")
    verdict = verdict_of(parts, anchors_of(acts))
    assert (verdict.state, row(verdict, "signature").state) == ("incomplete", "missing")
    assert says(verdict, "signature", "withheld, sealed")
    assert not any(name.endswith("/envelope") for name in parts)


def export(acts: Acts, desk: Desk, *words: str) -> tuple[int, dict[str, Any]]:
    return desk.run("audit", "export", *words, by=AUDITOR)


def verified(acts: Acts, file: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = command_line.main(["verify", str(file), "--anchors", str(acts.trial.state / "anchors.json"), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_two_persons_open_a_sealed_original_into_one_bundle(
    acts: Acts, desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    acts.push("m-1", covers("A"), SEALED)
    decision, first, second = desk.decided("evidence", "m-1"), tmp_path / "one.zip", tmp_path / "two.zip"
    assert export(acts, desk, "message", "m-1", str(first), "--opening", decision)[0] == 0
    assert first.stat().st_mode & 0o077 == 0
    code, said = verified(acts, first, capsys)
    assert (code, said["state"]) == (0, "holds")
    assert desk.refused("audit", "export", "message", "m-1", str(second), "--opening", decision, by=AUDITOR) == (
        "decision.not_in_force"
    )
    assert not second.exists()
    assert export(acts, desk, "message", "m-1", str(second))[0] == 0
    code, said = verified(acts, second, capsys)
    assert (code, said["state"]) == (1, "incomplete")
    found = acts.bus.journal.search(type="read", outcome="searched")
    assert [(entry.detail or {}).get("of") for entry in found] == ["m-1", "m-1"]
    assert desk.run("audit", "export", "message", "m-1", str(second), by=AUDITOR)[0] == 2, "never written over"


def test_what_two_persons_erased_is_said_with_its_day_and_is_no_plain_pass(
    acts: Acts, desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    acts.push("m-1", covers("A"))
    process(FEED, acts.bus)
    decision = desk.decided("spill", "m-1")
    assert desk.run("spill", "purge", decision, by=AUDITOR)[0] == 0
    assert export(acts, desk, "message", "m-1", str(tmp_path / "b.zip"))[0] == 0
    code, said = verified(acts, tmp_path / "b.zip", capsys)
    rows = {one["name"]: one for one in said["bundle"]["rows"]}
    assert (code, said["state"]) == (1, "incomplete")
    assert (rows["signature"]["state"], rows["erased parts"]["state"]) == ("erased", "erased")
    day = places.utc_now().astimezone(CITY_TIME).date().isoformat()
    assert f"content erased on {day} 内容已销毁, decision {decision}" in rows["erased parts"]["about"][0]
    others = {name for name, one in rows.items() if one["state"] == "holds"}
    assert others >= {"receipts", "inclusion", "enrolment", "grant", "certificate"}


def test_an_erasure_that_nobody_decided_is_not_believed(acts: Acts) -> None:
    """An operator who lost the original, or would rather not show it."""
    number = acts.push("m-1", covers("A")).inbox.entry_index
    parts, name = exported(acts, "m-1"), f"messages/{number}/envelope"
    del parts[name]
    today = datetime.now(UTC).date().isoformat()
    verdict = verdict_of(signed_anew(acts, parts, erased={name: today}), anchors_of(acts))
    assert (verdict.state, row(verdict, "erased parts").state) == ("incomplete", "missing")
    assert says(verdict, "erased parts", "by no decision here")
    kept = verdict_of(signed_anew(acts, exported(acts, "m-1"), erased={name: today}), anchors_of(acts))
    assert row(kept, "erased parts").state == "broken"


def test_a_detail_that_is_gone_is_said_and_the_proofs_hold(acts: Acts, desk: Desk) -> None:
    received = acts.push("m-1", covers("A"))
    number = received.inbox.entry_index
    assert desk.run("spill", "purge", desk.decided("spill", "m-1"), by=AUDITOR)[0] == 0
    erase_detail(acts, number)
    parts = exported(acts, "m-1")
    assert b'"detail"' not in parts[f"entries/{number}.json"].replace(b'\\"detail\\"', b"")
    verdict = verdict_of(parts, anchors_of(acts))
    assert (verdict.state, row(verdict, "inclusion").state) == ("incomplete", "holds")
    assert says(verdict, "erased parts", f"entries/{number}.json: content erased on")
    unsaid = verdict_of(signed_anew(acts, parts, erased={}), anchors_of(acts))
    assert says(unsaid, "erased parts", f"entries/{number}.json: its detail is gone, and nobody says why")
    assert unsaid.state == "broken"


def test_what_went_by_age_is_borne_out_by_the_decision_and_its_entry(
    acts: Acts, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = acts.push("m-1", covers("A")).inbox.entry_index
    process(FEED, acts.bus)
    now = places.utc_now
    monkeypatch.setattr(places, "utc_now", lambda: now() + timedelta(days=1_200))
    code, asked = desk.run("erasure", "ask", "--kind", "retention", "--ground", "到期", by=AUDITOR)
    assert code == 0
    assert desk.run("decision", "approve", asked["decision"], by=APPROVER)[0] == 0
    assert desk.run("erasure", "carry", asked["decision"], by=AUDITOR)[0] == 0
    parts = exported(acts.with_(clock=places.utc_now), "m-1")
    verdict = verify_bundle(in_memory(packed(parts)), anchors_of(acts), places.utc_now())
    assert (verdict.state, row(verdict, "erased parts").state) == ("incomplete", "erased"), verdict
    for name in (f"messages/{number}/envelope", f"messages/{number}/report.json", f"entries/{number}.json"):
        assert says(verdict, "erased parts", f"{name}: content erased on")


def erase_detail(acts: Acts, index: int) -> None:
    """As an erasure leaves the side table."""
    with closing(sqlite3.connect(acts.bus.folder / "journal.sqlite")) as connection, connection:
        connection.execute("UPDATE details SET salt = NULL, detail = NULL WHERE idx = ?", (index,))


def signed_anew(acts: Acts, parts: Parts, **changed: Any) -> Parts:
    """Other parts under a manifest that the bus's own key signs."""
    said = bundle.open_manifest(parts[MANIFEST], [acts.bus.answer_certificate_der])
    digests = {name: in_memory(octets).digest.hex for name, octets in parts.items() if name != MANIFEST}
    manifest = msgspec.structs.replace(said, **{"parts": digests, **changed})
    return {**parts, MANIFEST: sign_manifest(manifest, acts.bus.answer_key)}
