"""双证书 The double certificates of Chinese practice: enrolled together; what the encryption one signed is refused."""

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from exchange.cli import main as command_line
from exchange.cli.trial import PROPOSER
from exchange.registry import Bureau
from security import pki
from security.authenticate import TrustList, carrier_of
from security.errors import Refusal
from security.keys import Kind, SigningKey, der_of_pem, generate
from security.message import EnrolledCertificate, Use
from tests.acts.bench_of_one import FEED, Acts, both_acts, covers
from tests.security.authorities import Holder

MADE_UP = Bureau("made-up", "Made-up bureau", "某单位", "supplier")
KINDS: list[Kind] = ["ES256", "SM2"]


class Pair(NamedTuple):
    signing: SigningKey
    encryption: SigningKey

    @property
    def certificates(self) -> list[EnrolledCertificate]:
        ders = {"signing": self.signing.certificate_der, "encryption": self.encryption.certificate_der}
        return [pki.enrolled(der or b"", "made-up", use) for use, der in ders.items()]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def acts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acts]:
    with both_acts(tmp_path_factory.mktemp("double")) as acts:
        acts.trial.grant("made-up", "push", FEED)
        acts.trial.grant("made-up", "pull", "ownership")
        yield acts


def issued(city: pki.Authority, now: datetime, kind: Kind, use: Use, subject: str = "某单位") -> SigningKey:
    key = generate(kind)
    return key.with_certificate(
        pki.issue(city, subject, key.public_key, use, now - timedelta(days=1), now + timedelta(days=300))
    )


def a_pair(acts: Acts, kind: Kind) -> Pair:
    """Of a city's authority, both to one subject."""
    now = acts.bus.clock()
    city = pki.make_ca("City CA", now, kind)
    return Pair(issued(city, now, kind, "signing"), issued(city, now, kind, "encryption"))


def enrol(acts: Acts, *certificates: EnrolledCertificate) -> None:
    acts.trial.enrol_with(MADE_UP, certificates)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pair_is_enrolled_in_one_decision_and_the_signing_one_signs(acts: Acts, kind: Kind) -> None:
    pair = a_pair(acts, kind)
    before = len(acts.bus.journal.search(type="decision", outcome="approved"))
    enrol(acts, *pair.certificates)
    assert len(acts.bus.journal.search(type="decision", outcome="approved")) == before + 1
    listed = {c.fingerprint: c.use for c in acts.bus.registry.certificates()}
    assert listed[pair.encryption.fingerprint] == "encryption"
    received = acts.push(f"signed-{kind}", covers("A"), key=pair.signing)
    assert received.inbox.signer == pair.signing.fingerprint


@pytest.mark.parametrize("kind", KINDS)
def test_a_signature_by_the_encryption_certificate_is_refused_by_name_at_each_profile(
    acts: Acts, kind: Kind, tell: Callable[[str], None]
) -> None:
    pair = a_pair(acts, kind)
    enrol(acts, *pair.certificates)
    number, by_broker = kind.lower(), "JWS" if kind == "ES256" else "CMS"
    with pytest.raises(Refusal) as refused:
        acts.receive(acts.delivery(f"wss-{number}", covers("A"), key=pair.encryption))
    assert refused.value.code == "auth.certificate_for_encryption"
    assert refused.value.detail == pair.encryption.fingerprint[:16]
    assert "加密证书" in refused.value.sentence.zh
    assert "encryption certificate" in refused.value.sentence.en
    # Through a broker nobody is known before the signature, so the sender hears less; the audit has the name.
    with pytest.raises(Refusal) as refused:
        acts.receive(acts.by_broker(f"by-broker-{number}", covers("A"), key=pair.encryption))
    assert refused.value.code == "auth.refused"
    counted = acts.bus.journal._strangers.values()
    assert any("auth.certificate_for_encryption" in codes for codes in counted)
    assert acts.bus.journal.inbox("made-up", f"wss-{number}") is None
    (entry,) = acts.bus.journal.search(type="refusal", outcome="auth.certificate_for_encryption", limit=1)
    assert entry.leaf.signer == "", "a claim of a key that proves nothing is nobody's"
    tell(f"DOUBLE {kind}: refused by name at WSS and {by_broker}")


@pytest.mark.parametrize("kind", KINDS)
def test_as_a_tls_client_it_is_no_connection(acts: Acts, kind: Kind) -> None:
    pair = a_pair(acts, kind)
    enrol(acts, *pair.certificates)
    der, now = pair.encryption.certificate_der, acts.bus.clock()
    assert carrier_of(der, acts.bus.registry.trust(), now) is None
    delivery = msgspec.structs.replace(acts.delivery(f"tls-{kind}", covers("A"), key=pair.signing), carrier_der=der)
    with pytest.raises(Refusal, match=r"auth\.refused"):
        acts.receive(delivery)


def propose(acts: Acts, *certificates: EnrolledCertificate) -> str:
    with pytest.raises(Refusal) as refused:
        acts.bus.registry.propose_enrolment(MADE_UP, certificates, PROPOSER)
    return refused.value.code


@pytest.mark.parametrize("kind", KINDS)
def test_an_encryption_certificate_comes_with_its_other_half_or_not_at_all(acts: Acts, kind: Kind) -> None:
    pair, other, now = a_pair(acts, kind), a_pair(acts, kind), acts.bus.clock()
    signing, encryption = pair.certificates
    assert propose(acts, encryption) == "certificate.not_a_pair"
    assert propose(acts, encryption, other.certificates[0]) == "certificate.not_a_pair", "of a namesake"
    city = pki.make_ca("City CA", now, kind)
    stranger = issued(city, now, kind, "encryption", "另一单位")
    assert propose(acts, signing, pki.enrolled(stranger.certificate_der or b"", "made-up", "encryption")) == (
        "certificate.not_a_pair"
    )
    connection = pki.enrolled(issued(city, now, "ES256", "connection").certificate_der or b"", "made-up", "connection")
    assert propose(acts, connection, encryption) == "certificate.not_a_pair"


def test_one_key_in_both_certificates_is_no_pair(acts: Acts) -> None:
    now = acts.bus.clock()
    city, key = pki.make_ca("City CA", now), generate("ES256")
    ders = {
        use: pki.issue(city, "某单位", key.public_key, use, now, now + timedelta(days=9))
        for use in ("signing", "encryption")
    }
    both = [pki.enrolled(der, "made-up", use) for use, der in ders.items()]
    assert propose(acts, *both) == "certificate.not_a_pair"


BOTH = ("digital_signature", "key_encipherment")
SIGNATURES, NOTHING_ELSE = ("digital_signature",), ("key_encipherment",)
NO_SIGNING, NO_ENCRYPTION = "auth.certificate_not_for_signing", "certificate.not_for_encryption"
UNFIT: dict[str, tuple[tuple[str, ...], tuple[str, ...], str]] = {
    "signing lacks digitalSignature": (("content_commitment",), NOTHING_ELSE, NO_SIGNING),
    "signing only encrypts": (NOTHING_ELSE, NOTHING_ELSE, "certificate.for_encryption"),
    "encryption signs too": (SIGNATURES, BOTH, NO_ENCRYPTION),
    "encryption only signs": (SIGNATURES, SIGNATURES, NO_ENCRYPTION),
    "encryption says nothing": (SIGNATURES, (), NO_ENCRYPTION),
}


@pytest.mark.parametrize("fault", UNFIT)
def test_key_usages_that_do_not_fit_are_refused_at_enrolment_by_name(acts: Acts, fault: str) -> None:
    of_signing, of_encryption, code = UNFIT[fault]
    now = acts.bus.clock()
    days: dict[str, Any] = {"begins": now - timedelta(days=1), "ends": now + timedelta(days=300)}
    city = Holder("City CA", **days)
    signing, encryption = (city.leaf("某单位", may=may, **days).der for may in (of_signing, of_encryption))
    with pytest.raises(Refusal) as refused:
        enrolled_both(acts, signing, encryption)
    assert refused.value.code == code


def enrolled_both(acts: Acts, signing: bytes, encryption: bytes) -> None:
    both = [pki.enrolled(signing, "made-up", "signing"), pki.enrolled(encryption, "made-up", "encryption")]
    acts.bus.registry.propose_enrolment(MADE_UP, both, PROPOSER)


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_takes_both_and_shows_both(
    acts: Acts, kind: Kind, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = a_pair(acts, kind)
    for name, key in zip(Pair._fields, pair, strict=True):
        (tmp_path / f"{name}.pem").write_bytes(pki.pem_of(key.certificate_der or b""))
    words = ["bureau", "enrol", "made-up", "--title", "t", "--title-zh", "某单位", "--by", PROPOSER.name]
    both = ["--signing", str(tmp_path / "signing.pem"), "--encryption", str(tmp_path / "encryption.pem")]
    ended = ["--settings", acts.trial.settings.source, "--json"]
    assert command_line.main([*words, *both, *ended]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["certificates"] == {
        "signing": pair.signing.fingerprint,
        "encryption": pki.enrolled(
            der_of_pem((tmp_path / "encryption.pem").read_bytes()), "x", "encryption"
        ).fingerprint,
    }
    assert command_line.main([*words, *both[2:], *ended]) == 1
    assert json.loads(capsys.readouterr().out)["refused"]["code"] == "certificate.not_a_pair"


def test_each_is_found_by_its_own_name(acts: Acts) -> None:
    first, second = a_pair(acts, "ES256").certificates
    trust = TrustList((first, second))
    for one in (first, second):
        assert trust.by_ski(pki.names_of(one.der).ski or b"") == one
