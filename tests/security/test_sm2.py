"""SM2: both ways with OpenSSL, which is the oracle; key files, and certificates on either side."""

import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import gmssl_pyx
import pytest
from asn1crypto import pem
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from security import pki, sm2
from security.errors import Misconfigured, Refusal
from security.keys import SigningKey, generate, public_key_of, spki_of_certificate, verify_signature
from security.sm2 import ORDER, Sm2PrivateKey, Sm2PublicKey, der_of, raw_of, sm3
from security.sm2_pkcs8 import private_key_of_pem

DISTID = "distid:1234567812345678"  # without it OpenSSL 3.0 takes an empty user id, and a good signature fails
NOW = datetime.now(UTC)


def openssl(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["openssl", *map(str, arguments)], cwd=cwd, capture_output=True, check=False)


def test_openssl_verifies_what_we_sign_and_no_other_octets(tmp_path: Path) -> None:
    key = generate("SM2")
    (tmp_path / "key.pem").write_bytes(key.public_pem())
    (tmp_path / "signature").write_bytes(der_of(key.sign("路灯普查".encode())))
    for octets, says in (("路灯普查", b"Verified OK\n"), ("路灯", b"Verification failure\n")):
        (tmp_path / "octets").write_text(octets)
        ran = openssl(
            *("dgst", "-sm3", "-verify", "key.pem", "-sigopt", DISTID, "-signature", "signature", "octets"),
            cwd=tmp_path,
        )
        assert ran.stdout == says


def test_we_verify_what_openssl_signs_with_a_key_that_it_made(tmp_path: Path) -> None:
    openssl("genpkey", "-algorithm", "SM2", "-out", "key.pem", cwd=tmp_path)
    (tmp_path / "octets").write_bytes(b"octets")
    signed = openssl("dgst", "-sm3", "-sign", "key.pem", "-sigopt", DISTID, "octets", cwd=tmp_path)
    key = SigningKey.load(tmp_path / "key.pem")
    assert key.algorithm == "SM2"
    verify_signature(key.public_key, "SM2", raw_of(signed.stdout), b"octets")
    with pytest.raises(Refusal, match=r"signature\.invalid"):
        verify_signature(key.public_key, "SM2", raw_of(signed.stdout), b"octet")


def test_openssls_own_vectors_hold(shared_data: Any) -> None:
    text = (shared_data("crypto_vectors") / "openssl_sm2_sm3.txt").read_text()
    key = private_key_of_pem(re.search(r"-----BEGIN.*END PRIVATE KEY-----", text, re.S)[0].encode())  # type: ignore[index]
    verified = re.findall(r"^Verify = .*\nCtrl = .*\nInput = (\w+)\nOutput = (\w+)$", text, re.M)
    digests = re.findall(r"^Digest = SM3\nInput = (\w+)\nOutput = (\w+)$", text, re.M)
    assert (len(verified), len(digests)) == (2, 2)
    for hashed, signature in verified:  # the input is e itself, so that only the primitive under ours can take it
        der = bytes.fromhex(signature)
        assert der_of(raw_of(der)) == der
        assert gmssl_pyx.sm2_verify_sm3_digest(key.public_key().point, bytes.fromhex(hashed), der)
    for octets, digest in digests:
        assert sm3(bytes.fromhex(octets)) == bytes.fromhex(digest)


@pytest.mark.parametrize("cipher", ["aes-256-cbc", "aes-128-cbc", "sm4-cbc"])
def test_a_key_file_that_openssl_encrypted_opens_with_its_passphrase_only(tmp_path: Path, cipher: str) -> None:
    key = generate("SM2")
    (tmp_path / "plain.pem").write_bytes(key.pem())
    openssl(
        *("pkcs8", "-topk8", "-in", "plain.pem", "-v2", cipher, "-passout", "pass:开门", "-out", "key.pem"),
        cwd=tmp_path,
    )
    assert SigningKey.load(tmp_path / "key.pem", "开门".encode()).fingerprint == key.fingerprint
    for passphrase in (None, b"wrong"):
        with pytest.raises(Misconfigured, match=r"key\.pem"):
            SigningKey.load(tmp_path / "key.pem", passphrase)


def test_openssl_opens_a_key_file_that_we_encrypted(tmp_path: Path) -> None:
    key = generate("SM2")
    (tmp_path / "key.pem").write_bytes(key.pem("开门".encode()))
    assert openssl("pkey", "-in", "key.pem", "-passin", "pass:开门", cwd=tmp_path).stdout == key.pem()
    assert SigningKey.load(tmp_path / "key.pem", "开门".encode()).fingerprint == key.fingerprint


def test_a_key_file_with_the_public_key_of_another_is_refused(tmp_path: Path) -> None:
    one, other = sm2.generate(), sm2.generate()
    with pytest.raises(ValueError, match="no pair"):
        Sm2PrivateKey(one.scalar, other.public_key())


@pytest.mark.parametrize("point", [b"\x01" * 64, bytes(64), b"\x04" * 65, b"", b"\xff" * 64])
def test_what_is_no_point_of_the_curve_is_no_key(point: bytes) -> None:
    with pytest.raises(ValueError, match="point"):
        Sm2PublicKey(point)


def test_a_point_shifted_by_the_field_is_no_second_spelling_of_a_key() -> None:
    """x + p names the same point where a reader reduces it; we do not."""
    p = 0xFFFFFFFE_FFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFF_00000000_FFFFFFFF_FFFFFFFF
    # x = 0 has a point where b is a square; otherwise any small x does.
    b = int("28e9fa9e9d9f5e344d5a9e4bcf6509a7f39789f515ab8f92ddbcbd414d940e93", 16)
    x, y = next(
        (x, y)
        for x in range(99)
        for y in [pow(x**3 - 3 * x + b, (p + 1) // 4, p)]
        if (y * y - x**3 + 3 * x - b) % p == 0
    )
    Sm2PublicKey(x.to_bytes(32, "big") + y.to_bytes(32, "big"))
    with pytest.raises(ValueError, match="point"):
        Sm2PublicKey((x + p).to_bytes(32, "big") + y.to_bytes(32, "big"))


def test_numbers_out_of_range_and_other_encodings_are_no_signature() -> None:
    key = generate("SM2")
    good = key.sign(b"octets")
    r, s = good[:32], good[32:]
    bad = [
        *(good[:-1], good + b"\x00", b"", der_of(good), bytes(64), r + bytes(32), bytes(32) + s),
        *(r + ORDER.to_bytes(32, "big"), ORDER.to_bytes(32, "big") + s, r + b"\xff" * 32),
        r + (ORDER - int.from_bytes(s, "big")).to_bytes(32, "big"),  # what ECDSA would take as well
    ]
    for signature in bad:
        with pytest.raises(Refusal, match=r"signature\.invalid"):
            verify_signature(key.public_key, "SM2", signature, b"octets")
    for der in (b"", der_of(good) + b"\x00", b"\x30\x80" + der_of(good)[2:] + b"\x00\x00"):
        with pytest.raises(InvalidSignature):
            raw_of(der)


@pytest.mark.parametrize("leaf", ["SM2", "ES256", "RS256", "EdDSA"])
@pytest.mark.parametrize("ca", ["SM2", "ES256", "RS256", "EdDSA"])
def test_openssl_and_we_verify_every_chain_that_we_issue(tmp_path: Path, ca: Any, leaf: Any) -> None:
    authority, key = pki.make_ca("国密 CA", NOW, ca), generate(leaf)
    der = pki.issue(authority, "water", key.public_key, "signing", NOW, NOW + timedelta(days=9))
    (tmp_path / "ca.pem").write_bytes(pki.pem_of(authority.certificate_der))
    (tmp_path / "leaf.pem").write_bytes(pki.pem_of(der))
    option = ["-vfyopt", DISTID] if ca == "SM2" else []
    ran = openssl("verify", "-x509_strict", *option, "-CAfile", "ca.pem", "leaf.pem", cwd=tmp_path)
    assert ran.stdout == b"leaf.pem: OK\n", ran.stderr
    pki.check_issued(der, authority.certificate_der)
    assert pki.enrolled(der, "water", "signing").der == key.with_certificate(der).certificate_der
    names = pki.names_of(der)
    assert (names.issuer, names.ski) == ((("2.5.4.3", "国密 CA"),), pki.key_identifier(key.public_key))


def test_we_verify_a_chain_that_openssl_issued(tmp_path: Path) -> None:
    openssl("genpkey", "-algorithm", "SM2", "-out", "ca.key", cwd=tmp_path)
    made = openssl(
        *("req", "-x509", "-key", "ca.key", "-sm3", "-sigopt", DISTID, "-subj", "/CN=CA", "-out", "ca.pem"),
        cwd=tmp_path,
    )
    assert made.returncode == 0, made.stderr
    der = x509.load_pem_x509_certificate((tmp_path / "ca.pem").read_bytes()).public_bytes(Encoding.DER)
    pki.check_issued(der, der)
    assert isinstance(public_key_of(der), Sm2PublicKey)


def test_a_chain_with_a_wrong_link_is_refused_by_name() -> None:
    one, namesake, other = (pki.make_ca(name, NOW, "SM2") for name in ("CA", "CA", "Other"))
    der = pki.issue(one, "water", generate("SM2").public_key, "signing", NOW, NOW + timedelta(days=9))
    altered = der[:-1] + bytes([der[-1] ^ 1])
    for certificate, issuer in ((der, namesake), (der, other), (altered, one)):
        with pytest.raises(Refusal, match=r"auth\.certificate_not_of_issuer"):
            pki.check_issued(certificate, issuer.certificate_der)


def test_a_certificate_signed_with_sha1_is_refused_by_name(tmp_path: Path) -> None:
    made = openssl(
        *(
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-sha1",
            "-subj",
            "/CN=CA",
            "-keyout",
            "k",
            "-out",
            "ca.pem",
        ),
        cwd=tmp_path,
    )
    assert made.returncode == 0, made.stderr
    der = x509.load_pem_x509_certificate((tmp_path / "ca.pem").read_bytes()).public_bytes(Encoding.DER)
    with pytest.raises(Refusal, match=r"signature\.algorithm_refused.*sha1") as refused:
        pki.check_issued(der, der)
    assert refused.value.detail == "sha1WithRSAEncryption"


def test_an_sm2_certificate_with_a_point_off_the_curve_is_refused() -> None:
    key = generate("SM2")
    authority = pki.make_ca("CA", NOW)
    der = pki.issue(authority, "water", key.public_key, "signing", NOW, NOW + timedelta(days=9))
    bits = spki_of_certificate(der)
    spoilt = der.replace(bits, bits[:-1] + bytes([bits[-1] ^ 1]))
    with pytest.raises(Refusal, match=r"signature\.key_not_accepted"):
        pki.enrolled(spoilt, "water", "signing")


def test_a_public_key_in_pem_is_what_openssl_writes(tmp_path: Path) -> None:
    for kind in ("SM2", "ES256", "RS256", "EdDSA"):
        key = generate(kind)  # type: ignore[arg-type]  # a literal of the tuple above
        (tmp_path / "key.pem").write_bytes(key.pem())
        assert openssl("pkey", "-in", "key.pem", "-pubout", cwd=tmp_path).stdout == key.public_pem()
        assert pem.unarmor(key.public_pem())[0] == "PUBLIC KEY"
