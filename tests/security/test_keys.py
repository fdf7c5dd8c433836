"""Keys: what each kind signs and refuses, and every Wycheproof case of the three kinds."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from security.errors import Misconfigured, Refusal
from security.keys import SigningKey, generate, load_public_pem, verify_signature

KINDS = ("ES256", "RS256", "EdDSA", "SM2")


def code_of(call: Any, *arguments: Any, **named: Any) -> str:
    """The code that a call is refused with."""
    with pytest.raises(Refusal) as refused:
        call(*arguments, **named)
    return refused.value.code


@pytest.mark.parametrize("kind", KINDS)
def test_a_signature_holds_for_its_octets_and_no_others(kind: Any) -> None:
    key = generate(kind)
    signature = key.sign(b"octets")
    verify_signature(key.public_key, kind, signature, b"octets")
    assert code_of(verify_signature, key.public_key, kind, signature, b"octet") == "signature.invalid"
    assert code_of(verify_signature, generate(kind).public_key, kind, signature, b"octets") == "signature.invalid"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("claimed", ["none", "HS256", "ES256", "RS256", "PS256", "EdDSA", "SM2", ""])
def test_the_key_and_not_the_message_chooses_the_algorithm(kind: Any, claimed: str) -> None:
    if claimed == kind or (kind, claimed) == ("RS256", "PS256"):
        return
    key = generate(kind)
    refused_with = code_of(verify_signature, key.public_key, claimed, key.sign(b"x"), b"x")
    assert refused_with == "signature.algorithm_not_of_key"


def test_signing_twice_gives_the_same_octets_but_by_sm2_and_pss() -> None:
    """The two draw a random number each time: what they signed is kept and never signed again (docs/adr/0017)."""
    signers = {**{kind: generate(kind) for kind in KINDS}, "PS256": generate("RS256").signing_by("PS256")}  # type: ignore[arg-type]
    same = {name for name, key in signers.items() if key.sign(b"receipt") == key.sign(b"receipt")}
    assert same == {"ES256", "RS256", "EdDSA"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_signs_by_no_algorithm_but_its_own(kind: Any) -> None:
    key = generate(kind)
    for algorithm in ("ES256", "RS256", "PS256", "EdDSA", "SM2"):
        if algorithm == kind or (kind, algorithm) == ("RS256", "PS256"):
            assert key.signing_by(algorithm).algorithm == algorithm  # type: ignore[arg-type]
        else:
            with pytest.raises(Misconfigured, match=f"{kind} does not sign by {algorithm}"):
                key.signing_by(algorithm)  # type: ignore[arg-type]


def test_a_der_signature_is_refused_where_raw_is_meant() -> None:
    private_key = ec.generate_private_key(ec.SECP256R1())
    der = private_key.sign(b"x", ec.ECDSA(hashes.SHA256()))
    assert code_of(verify_signature, private_key.public_key(), "ES256", der, b"x") == "signature.invalid"


def test_short_rsa_and_other_curves_are_refused() -> None:
    keys = {
        "RSA 1024": rsa.generate_private_key(65537, 1024),
        "secp384r1": ec.generate_private_key(ec.SECP384R1()),
        "secp256k1": ec.generate_private_key(ec.SECP256K1()),
        "Ed448": ed448.Ed448PrivateKey.generate(),
    }
    for name, private_key in keys.items():
        with pytest.raises(Refusal, match=rf"signature\.key_not_accepted.*{name}"):
            SigningKey(private_key)  # type: ignore[arg-type]  # what is refused
        pem = private_key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        assert code_of(load_public_pem, pem) == "signature.key_not_accepted"


def test_a_key_file_opens_with_its_passphrase_only(tmp_path: Path) -> None:
    key, path = generate("ES256"), tmp_path / "signing.key"
    path.write_bytes(key.pem(b"open sesame"))
    again = SigningKey.load(path, b"open sesame")
    assert again.fingerprint == key.fingerprint
    for passphrase in (None, b"wrong"):
        with pytest.raises(Misconfigured, match=r"signing\.key"):
            SigningKey.load(path, passphrase)


def wycheproof(path: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for group in json.loads(path.read_text())["testGroups"]:
        for case in group["tests"]:
            yield group, case


@pytest.mark.parametrize(
    "name, algorithm",
    [
        ("wycheproof_rsa_signature_2048_sha256.json", "RS256"),
        ("wycheproof_rsa_pss_2048_sha256_mgf1_32.json", "PS256"),
        ("wycheproof_ed25519.json", "EdDSA"),
    ],
)
def test_wycheproof_cases_come_out_as_published(shared_data: Any, name: str, algorithm: str) -> None:
    for group, case in wycheproof(shared_data("crypto_vectors") / name):
        key = load_public_pem(group["publicKeyPem"].encode())
        holds = _holds(key, algorithm, bytes.fromhex(case["sig"]), bytes.fromhex(case["msg"]))
        # The one "acceptable" case leaves out a NULL that PKCS#1 requires; we refuse it with the invalid ones.
        assert holds == (case["result"] == "valid"), case["comment"]


def test_wycheproof_ecdsa_cases_come_out_as_published(shared_data: Any) -> None:
    """The cases are DER and ours are raw: what is no DER of two numbers has no raw form, and counts as refused."""
    for group, case in wycheproof(shared_data("crypto_vectors") / "wycheproof_ecdsa_secp256r1_sha256.json"):
        key = load_public_pem(group["publicKeyPem"].encode())
        try:
            r, s = decode_dss_signature(bytes.fromhex(case["sig"]))
            signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
        except (ValueError, OverflowError):
            assert case["result"] == "invalid", case["comment"]
            continue
        holds = _holds(key, "ES256", signature, bytes.fromhex(case["msg"]))
        assert holds == (case["result"] == "valid"), case["comment"]


def _holds(key: Any, algorithm: str, signature: bytes, octets: bytes) -> bool:
    try:
        verify_signature(key, algorithm, signature, octets)
    except Refusal:
        return False
    return True
