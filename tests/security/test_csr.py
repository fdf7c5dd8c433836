"""A certificate in exchange for a request: made by OpenSSL and by us, good and spoilt."""

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa

from security.chain import check_chain
from security.csr import certificate_from_csr, read_request
from security.errors import Refusal
from security.keys import public_key_of, spki
from security.pki import enrolled, make_ca
from tests.security.authorities import altered_anywhere

NOW = datetime(2026, 7, 1, tzinfo=UTC)
YEAR = timedelta(days=365)
CA = make_ca("Bus CA", NOW)
P256 = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
SM2 = ("SM2",)
EVIL = "/CN=power\x1b]0;owned/O=\u7535\u529b\u5c40"


def openssl(*arguments: str, folder: Path) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def request_of_openssl(folder: Path, *new_key: str, subject: str = "/CN=whoever", more: tuple[str, ...] = ()) -> bytes:
    """By default of a new key; of one that is made first where `req -newkey` cannot make it."""
    if new_key == SM2:
        openssl("genpkey", "-algorithm", "SM2", "-out", "key.pem", folder=folder)
        new_key = ("-key", "key.pem", "-sm3", "-sigopt", "distid:1234567812345678")
    else:
        new_key = (*new_key, "-nodes", "-keyout", "key.pem")
    openssl("req", "-new", *new_key, "-out", "r.csr", "-utf8", "-subj", subject, *more, folder=folder)
    return (folder / "r.csr").read_bytes()


KINDS = {
    "ES256": P256,
    "RS256": ("-newkey", "rsa:2048"),
    "EdDSA": ("-newkey", "ed25519"),
    "SM2": SM2,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_made_by_openssl_becomes_a_certificate_of_its_key(tmp_path: Path, kind: str) -> None:
    octets = request_of_openssl(tmp_path, *KINDS[kind])
    request = read_request(octets)
    assert (request.kind, request.subject) == (kind, "CN=whoever")
    der = certificate_from_csr(CA, octets, "water", "signing", NOW, NOW + YEAR)
    assert check_chain(der, (), (CA.certificate_der,), NOW).path == (der, CA.certificate_der)
    (tmp_path / "made.pem").write_bytes(x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM))
    # The key that stayed with the bureau fits the certificate that came back: OpenSSL says the same public key of both.
    openssl("x509", "-in", "made.pem", "-noout", "-pubkey", "-out", "of_certificate.pub", folder=tmp_path)
    openssl("pkey", "-in", "key.pem", "-pubout", "-out", "of_key.pub", folder=tmp_path)
    assert (tmp_path / "of_certificate.pub").read_text() == (tmp_path / "of_key.pub").read_text()
    assert spki(public_key_of(der)) == spki(request.public_key)


def test_der_and_pem_are_the_same_request(tmp_path: Path) -> None:
    octets = request_of_openssl(tmp_path, *P256)
    der = x509.load_pem_x509_csr(octets).public_bytes(serialization.Encoding.DER)
    assert read_request(der) == read_request(octets)


def test_of_a_request_only_the_key_counts(tmp_path: Path) -> None:
    """It asks to be another bureau, a CA, a server of any name: the bus decides."""
    wishes = ("basicConstraints=critical,CA:TRUE", "keyUsage=keyCertSign", "subjectAltName=DNS:*")
    octets = request_of_openssl(tmp_path, *P256, subject="/CN=power", more=tuple(
        word for wish in wishes for word in ("-addext", wish)
    ))  # fmt: skip
    made = x509.load_der_x509_certificate(certificate_from_csr(CA, octets, "water", "connection", NOW, NOW + YEAR))
    assert made.subject.rfc4514_string() == "CN=water"
    assert made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert made.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign is False
    with pytest.raises(x509.ExtensionNotFound):
        made.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert (made.not_valid_before_utc, made.not_valid_after_utc) == (NOW - timedelta(hours=1), NOW + YEAR)


def test_the_use_decides_what_a_certificate_may_do(tmp_path: Path) -> None:
    octets = request_of_openssl(tmp_path, *P256)
    signing = certificate_from_csr(CA, octets, "water", "signing", NOW, NOW + YEAR)
    connection = certificate_from_csr(CA, octets, "water", "connection", NOW, NOW + YEAR)
    purposes = [x509.load_der_x509_certificate(der).extensions for der in (signing, connection)]
    assert [any(isinstance(one.value, x509.ExtendedKeyUsage) for one in found) for found in purposes] == [False, True]
    assert enrolled(signing, "water", "signing").use == "signing"


def test_what_a_request_calls_itself_cannot_move_the_officers_cursor(tmp_path: Path) -> None:
    shown = read_request(request_of_openssl(tmp_path, *P256, subject=EVIL)).subject
    assert "\x1b" not in shown
    assert "\u7535\u529b\u5c40" in shown


def made(key: Any, algorithm: Any = None) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "water")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, algorithm or hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


P256_KEY = ec.generate_private_key(ec.SECP256R1())


def altered(octets: bytes) -> bytes:
    """The same request with the public key of somebody else, signed still by a key that the asker has."""
    mine = P256_KEY.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    theirs = other.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    der = x509.load_pem_x509_csr(octets).public_bytes(serialization.Encoding.DER)
    assert mine in der
    return der.replace(mine, theirs)


GOOD = made(P256_KEY)
KEY_PEM = P256_KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)
DER = x509.load_pem_x509_csr(GOOD).public_bytes(serialization.Encoding.DER)
SPOILT: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "certificate.csr_invalid"),
    "no request": (b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
                   "certificate.csr_invalid"),
    "a certificate": (x509.load_der_x509_certificate(CA.certificate_der).public_bytes(serialization.Encoding.PEM),
                      "certificate.csr_invalid"),
    "two requests": (GOOD + GOOD, "certificate.csr_invalid"),
    "the private key beside it": (KEY_PEM + GOOD, "certificate.csr_invalid"),
    "octets after it": (DER + b"\x00", "certificate.csr_invalid"),
    "cut short": (DER[:-1], "certificate.csr_invalid"),
    "too long": (GOOD + b"\n" * 40_000, "certificate.csr_invalid"),
    "the key of another": (altered(GOOD), "certificate.csr_not_proved"),
    "one octet of the signature": (DER[:-1] + bytes([DER[-1] ^ 1]), "certificate.csr_not_proved"),
    "RSA of 1024 bits": (made(rsa.generate_private_key(65537, 1024)), "certificate.key_weak"),
    "another curve": (made(ec.generate_private_key(ec.SECP384R1())), "certificate.key_weak"),
    "DSA": (made(dsa.generate_private_key(2048)), "certificate.key_weak"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_request_is_refused_by_name(name: str) -> None:
    octets, code = SPOILT[name]
    with pytest.raises(Refusal) as refusal:
        certificate_from_csr(CA, octets, "water", "signing", NOW, NOW + YEAR)
    assert refusal.value.code == code


@pytest.mark.parametrize("digest", ["-sha1", "-md5"])
def test_a_request_signed_by_a_broken_digest_is_refused_by_name(tmp_path: Path, digest: str) -> None:
    with pytest.raises(Refusal, match=r"signature\.algorithm_refused.*(sha1|md5)"):
        read_request(request_of_openssl(tmp_path, "-newkey", "rsa:2048", digest))


def test_no_octet_of_a_request_may_change_and_nothing_else_is_raised() -> None:
    """But one that says how many bits of the signature's last octet are none: it changes nothing that is signed."""
    good, codes = read_request(DER), set()
    for octets in altered_anywhere(DER):
        try:
            assert read_request(octets) == good
        except Refusal as refusal:
            codes.add(refusal.code.partition(".")[0])
    assert codes == {"certificate", "signature"}


def test_a_connection_certificate_for_an_sm2_key_is_refused_by_name(tmp_path: Path) -> None:
    octets = request_of_openssl(tmp_path, *KINDS["SM2"])
    with pytest.raises(Refusal, match=r"certificate\.key_weak"):
        certificate_from_csr(CA, octets, "water", "connection", NOW, NOW + YEAR)


@pytest.mark.parametrize("until", [NOW, NOW - YEAR, NOW + 11 * YEAR])
def test_a_certificate_does_not_outlive_its_authority_nor_end_before_it_begins(until: datetime) -> None:
    with pytest.raises(Refusal, match=r"certificate\.days_invalid"):
        certificate_from_csr(CA, GOOD, "water", "signing", NOW, until)
