"""Certificates: the small authority, and what enrolment keeps of them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from cryptography import x509

from security.errors import Misconfigured, Refusal
from security.keys import generate
from security.pki import check_window, enrolled, issue, make_ca, pem_of
from tests.security.authorities import Holder

NOW = datetime(2026, 7, 1, tzinfo=UTC)
YEAR = timedelta(days=365)


def a_certificate(use: Any = "signing", kind: Any = "ES256") -> bytes:
    ca = make_ca("Test CA", NOW)
    return issue(ca, "water", generate(kind).public_key, use, NOW, NOW + YEAR, ["localhost", "127.0.0.1"])


@pytest.mark.parametrize("kind", ["ES256", "RS256", "EdDSA"])
def test_an_issued_certificate_is_signed_by_its_authority(kind: Any) -> None:
    ca = make_ca("Test CA", NOW)
    der = issue(ca, "water", generate(kind).public_key, "connection", NOW, NOW + YEAR)
    authority = x509.load_der_x509_certificate(ca.certificate_der)
    x509.load_der_x509_certificate(der).verify_directly_issued_by(authority)
    assert pem_of(der).startswith(b"-----BEGIN CERTIFICATE")


def test_enrolment_keeps_the_octets_and_the_window() -> None:
    der = a_certificate()
    kept = enrolled(der, "water", "signing")
    assert (kept.der, kept.bureau, kept.not_before, kept.not_after) == (der, "water", NOW, NOW + YEAR)


def test_a_certificate_counts_within_its_window_and_until_revoked() -> None:
    kept = enrolled(a_certificate(), "water", "signing")
    check_window(kept, NOW)
    for now in (NOW - timedelta(seconds=1), NOW + YEAR + timedelta(seconds=1)):
        with pytest.raises(Refusal, match=r"auth\.certificate_expired"):
            check_window(kept, now)
    revoked = msgspec.structs.replace(kept, revoked_at=NOW + timedelta(days=1))
    check_window(revoked, NOW)
    with pytest.raises(Refusal, match=r"auth\.certificate_revoked"):
        check_window(revoked, NOW + timedelta(days=1))


def test_an_authority_certificate_cannot_be_enrolled_for_signing() -> None:
    with pytest.raises(Refusal, match=r"auth\.certificate_not_for_signing"):
        enrolled(make_ca("Test CA", NOW).certificate_der, "water", "signing")


@pytest.mark.parametrize("uses", [("key_encipherment",), ("data_encipherment",), ("key_agreement", "encipher_only")])
def test_the_encryption_one_of_double_certificates_is_refused_by_name_for_signing(uses: tuple[str, ...]) -> None:
    encryption = Holder("City CA").leaf(may=uses).der
    with pytest.raises(Refusal, match=r"certificate\.for_encryption"):
        enrolled(encryption, "water", "signing")


@pytest.mark.parametrize("uses", ["digital_signature", "content_commitment", "digital_signature key_agreement"])
def test_the_signing_one_of_double_certificates_is_enrolled(uses: str) -> None:
    signing = Holder("City CA").leaf(may=uses.split()).der
    assert enrolled(signing, "water", "signing").der == signing


def test_octets_that_are_no_certificate_are_refused() -> None:
    with pytest.raises(Refusal, match=r"auth\.certificate_not_readable"):
        enrolled(b"no certificate", "water", "signing")


def test_a_certificate_of_another_key_is_noticed() -> None:
    with pytest.raises(Misconfigured):
        generate("ES256").with_certificate(a_certificate())
