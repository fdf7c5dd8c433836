"""What opens a key: a file or a person, never a setting; and what is missing or wrong is said in one line."""

from pathlib import Path

import pytest

from security.errors import Misconfigured
from security.keyring import Keyring
from security.keys import Kind, SigningKey, generate
from tests.softhsm import PIN, SoftHsm

PASSPHRASE = b"three plain words"
KINDS: list[Kind] = ["ES256", "RS256", "EdDSA", "SM2"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one key of each kind under the passphrase, and one, `open`, that lies open."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    for kind in KINDS:
        (tmp_path / f"{kind}.key").write_bytes(generate(kind).pem(PASSPHRASE))
    (tmp_path / "open.key").write_bytes(generate("ES256").pem())
    return tmp_path


def write(path: Path, octets: bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(octets)
    return path


def load(keyring: Keyring, name: str) -> SigningKey:
    return keyring.load(name, certificate=False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_passphrase_file_opens_a_key_of_each_kind(folder: Path, kind: Kind) -> None:
    for octets in (PASSPHRASE, PASSPHRASE + b"\n", PASSPHRASE + b"\r\n"):
        keyring = Keyring(folder, passphrase_file=write(folder / "passphrase", octets))
        assert load(keyring, kind).algorithm == kind


def test_a_credential_of_systemd_opens_it_the_keys_own_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder / "credentials"))
    keyring = Keyring(folder, passphrase_file=write(folder / "passphrase", b"wrong"))
    with pytest.raises(Misconfigured):
        load(keyring, "ES256")
    write(folder / "credentials" / "yongtong", PASSPHRASE)
    assert load(keyring, "ES256").algorithm == "ES256"
    write(folder / "credentials" / "yongtong.EdDSA", b"wrong")
    with pytest.raises(Misconfigured):
        load(keyring, "EdDSA")


def test_a_person_is_asked_once_for_all_keys_and_only_where_it_is_needed(folder: Path) -> None:
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return PASSPHRASE.decode()

    keyring = Keyring(folder, ask=ask)
    assert load(keyring, "open").algorithm == "ES256"
    assert asked == []
    for kind in KINDS:
        load(keyring, kind)
    assert asked == [f"{folder / 'ES256.key'}: "]


def test_a_reference_is_a_path_too(folder: Path) -> None:
    assert load(Keyring(folder, {"answer": "SM2.key"}, ask=lambda _: PASSPHRASE.decode()), "answer").algorithm == "SM2"
    assert load(Keyring(folder, {"answer": str(folder / "open.key")}), "answer").algorithm == "ES256"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "octets, said",
    [
        (None, r"opens it, and none is at hand; put it into a file"),
        (b"wrong", r"no usable private key"),
        (b"", r"passphrase: a passphrase is one line, and not empty"),
        (b"two\nlines\n", r"a passphrase is one line"),
        (..., r"passphrase: no passphrase can be read there"),
    ],
)
def test_without_the_right_passphrase_one_plain_line(folder: Path, kind: Kind, octets: object, said: str) -> None:
    passphrase = None if octets is None else folder / "passphrase"
    if passphrase is not None and isinstance(octets, bytes):
        write(passphrase, octets)
    with pytest.raises(Misconfigured, match=said) as wrong:
        load(Keyring(folder, passphrase_file=passphrase), kind)
    assert "\n" not in str(wrong.value)


def test_a_key_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(Misconfigured, match=r"missing\.key: no usable private key"):
        load(Keyring(folder), "missing")


def test_the_pin_of_a_token_comes_the_same_way_and_the_environments_values_say_nothing(
    folder: Path, softhsm: SoftHsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("security.tokens._tokens", {})
    reference = softhsm.take(generate("ES256"), "of-the-keyring")
    for name in ("YONGTONG_PIN", "PKCS11_PIN", "YONGTONG_PASSPHRASE"):
        monkeypatch.setenv(name, PIN)
    with pytest.raises(Misconfigured, match="none is at hand"):
        load(Keyring(folder, {"answer": reference}), "answer")
    assert load(Keyring(folder, {"answer": reference}, softhsm.pin_file), "answer").algorithm == "ES256"


def test_a_certificate_of_another_key_beside_a_token_is_found(folder: Path, softhsm: SoftHsm) -> None:
    reference = softhsm.take(generate("ES256"), "without-its-certificate")
    (folder / "answer.pem").write_bytes(b"no certificate")
    with pytest.raises(Misconfigured, match="without-its-certificate"):
        Keyring(folder, {"answer": reference}, softhsm.pin_file).load("answer")


def test_tls_is_told_plainly_that_it_reads_files_only(folder: Path) -> None:
    keyring = Keyring(folder, {"tls": "pkcs11:object=k?module-path=/x.so"})
    with pytest.raises(Misconfigured, match="TLS reads key files only") as wrong:
        keyring.path("tls")
    assert "\n" not in str(wrong.value)
