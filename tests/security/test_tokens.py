"""Keys in a token: they sign as those in files do, and whatever is wrong is said in one line with what to do."""

import copy
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pkcs11
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from security import pki, tokens
from security.errors import Misconfigured, Refusal, Unavailable
from security.keys import Kind, SigningKey, generate, verify_signature
from security.tokens import load_key
from tests.softhsm import MODULE, PIN, SoftHsm, forget_sessions, uri

KINDS: dict[Kind, str] = {"ES256": "01", "RS256": "02", "EdDSA": "03"}
OCTETS = b"what is signed"


def pin() -> bytes:
    return PIN.encode()


def no_pin() -> bytes:
    raise Misconfigured("config.passphrase", "no PIN is at hand; put it into a file")


@pytest.fixture(scope="module")
def in_files(softhsm: SoftHsm) -> dict[Kind, SigningKey]:
    """The same keys outside; in the token each lies under the name of its kind."""
    made: dict[Kind, SigningKey] = {kind: generate(kind) for kind in KINDS}
    for kind, key in made.items():
        softhsm.take(key, f"kind-{kind}", KINDS[kind])
    return made


def in_token(kind: Kind) -> SigningKey:
    return SigningKey(load_key(uri(f"kind-{kind}"), pin))


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_in_a_token_signs_as_the_same_key_in_a_file(kind: Kind, in_files: dict[Kind, SigningKey]) -> None:
    key, same = in_token(kind), in_files[kind]
    assert (key.algorithm, key.fingerprint, key.public_pem()) == (kind, same.fingerprint, same.public_pem())
    verify_signature(same.public_key, kind, key.sign(OCTETS), OCTETS)
    # RFC 6979 is no business of tokens; the other two kinds are the same each time wherever they are made.
    assert (key.sign(OCTETS) == same.sign(OCTETS)) == (kind != "ES256")
    assert (key.sign(OCTETS) == key.sign(OCTETS)) == (kind != "ES256")


def test_an_rsa_key_in_a_token_signs_by_pss(in_files: dict[Kind, SigningKey]) -> None:
    key = in_token("RS256").signing_by("PS256")
    verify_signature(in_files["RS256"].public_key, "PS256", key.sign(OCTETS), OCTETS)


@pytest.mark.parametrize("kind", KINDS)
def test_an_authority_in_a_token_issues_certificates(kind: Kind, in_files: dict[Kind, SigningKey]) -> None:
    now = datetime(2026, 7, 1, tzinfo=UTC)
    ca = pki.make_ca("CA in a token", now, key=in_token(kind))
    for bureau in ("ES256", "SM2"):
        public_key = generate(bureau).public_key  # type: ignore[arg-type]  # literals of the tuple
        der = pki.issue(ca, "water", public_key, "signing", now, now + timedelta(days=1))
        pki.check_issued(der, ca.certificate_der)


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_never_leaves_its_token(kind: Kind, in_files: dict[Kind, SigningKey]) -> None:
    key: Any = in_token(kind)
    with pytest.raises(Misconfigured, match="never leaves it"):
        key.pem()
    inside: Any = key.issuing_key()
    assert copy.deepcopy(inside) is copy.copy(inside) is inside
    for take in ("private_numbers", "private_bytes_raw", "decrypt", "exchange"):
        with pytest.raises(Misconfigured, match="never leaves it"):
            getattr(inside, take)()


def test_a_key_is_named_by_id_and_by_the_tokens_serial_number_too(softhsm: SoftHsm, in_files: Any) -> None:
    serial = next(pkcs11.lib(MODULE).get_tokens()).serial.decode()
    text = f"pkcs11:serial={serial};id=%02;type=private?module-path={MODULE}"
    assert SigningKey(load_key(text, no_pin_after_the_first(in_files))).algorithm == "RS256"


def no_pin_after_the_first(_: Any) -> Callable[[], bytes]:
    """The token is logged in to already, under another name for it."""
    in_token("ES256")
    return no_pin


SPOILT: dict[str, tuple[str, str]] = {
    "no_module": ("pkcs11:token=t;object=k", r"module-path"),
    "module_not_absolute": ("pkcs11:token=t;object=k?module-path=libsofthsm2.so", r"module-path"),
    "no_key": (f"pkcs11:token=t?module-path={MODULE}", r"object=LABEL or id="),
    "twice": (f"pkcs11:token=t;token=u;object=k?module-path={MODULE}", r"token stands there twice"),
    "pin_twice": (f"pkcs11:object=k?pin-value=1234&pin-value=1234&module-path={MODULE}", r"pin-value stands"),
    "public_key": (f"pkcs11:object=k;type=public?module-path={MODULE}", r"private key is wanted"),
    "unknown_attribute": (f"pkcs11:object=k;slot-id=4?module-path={MODULE}", r"slot-id is not taken"),
    "pin_value": (f"pkcs11:object=k?module-path={MODULE}&pin-value=1234", r"pin-value is not taken; put the PIN"),
    "pin_source": (f"pkcs11:object=k?module-path={MODULE}&pin-source=/x", r"pin-source is not taken; put the PIN"),
    "module_missing": (uri("k", module="/nowhere/module.so"), r"/nowhere/module\.so: no PKCS#11 module"),
    "module_of_another_kind": (uri("k", module="/lib/x86_64-linux-gnu/libc.so.6"), r"no PKCS#11 module"),
    "token_missing": (uri("kind-ES256", token="another"), r"not one token of that name.*are: yongtong"),
    "key_missing": (uri("no-such-key"), r"not one public key.*of that name in the token"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILT)
def test_what_is_wrong_with_a_reference_is_said_in_one_line(name: str, in_files: dict[Kind, SigningKey]) -> None:
    text, said = SPOILT[name]
    with pytest.raises(Misconfigured, match=said) as wrong:
        load_key(text, pin)
    assert "\n" not in str(wrong.value)
    assert "1234" not in str(wrong.value)


def test_a_wrong_pin_is_said_and_not_kept(softhsm: SoftHsm, in_files: Any) -> None:
    tokens._tokens.clear()  # as in a process that begins
    forget_sessions()
    with pytest.raises(Misconfigured, match=r"refuses the PIN \(PinIncorrect\).*correct it") as wrong:
        load_key(uri("kind-ES256"), lambda: b"0000-wrong")
    assert "0000-wrong" not in str(wrong.value)
    with pytest.raises(Misconfigured, match="no PIN is at hand"):
        load_key(uri("kind-ES256"), no_pin)
    assert SigningKey(load_key(uri("kind-ES256"), pin)).algorithm == "ES256"


def test_a_token_that_forgot_us_is_logged_in_to_again(softhsm: SoftHsm, in_files: dict[Kind, SigningKey]) -> None:
    keys = [in_token(kind) for kind in KINDS]
    forget_sessions()
    for key in keys:
        verify_signature(key.public_key, key.algorithm, key.sign(OCTETS), OCTETS)


def test_a_token_that_is_pulled_out_is_unavailable_until_it_is_back(softhsm: SoftHsm, in_files: Any) -> None:
    key = in_token("ES256")
    with softhsm.away(), pytest.raises(Unavailable, match="not one token of that name"):
        key.sign(OCTETS)
    assert len(key.sign(OCTETS)) == 64


def test_a_pin_that_was_changed_meanwhile_is_tried_once(softhsm: SoftHsm, in_files: Any) -> None:
    """A token locks itself after a few wrong ones."""
    key = in_token("ES256")
    set_pin(PIN, "another-1")
    forget_sessions()
    for said in ("PinIncorrect", "refused before and is not tried again"):
        with pytest.raises(Unavailable, match=said):
            key.sign(OCTETS)
    set_pin("another-1", PIN)
    forget_sessions()
    tokens._tokens.clear()  # restarted
    assert len(in_token("ES256").sign(OCTETS)) == 64


def set_pin(old: str, new: str) -> None:
    forget_sessions()
    with pkcs11.lib(MODULE).get_token(token_label="yongtong").open(rw=True, user_pin=old) as session:
        session.set_pin(old, new)


def test_threads_sign_with_one_token_at_once(softhsm: SoftHsm, in_files: dict[Kind, SigningKey]) -> None:
    keys, problems = [in_token(kind) for kind in KINDS], list[Exception]()

    def sign() -> None:
        try:
            for _ in range(30):
                for key in keys:
                    verify_signature(key.public_key, key.algorithm, key.sign(OCTETS), OCTETS)
        except Exception as problem:
            problems.append(problem)

    threads = [threading.Thread(target=sign) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


def test_a_child_process_signs_and_so_does_its_parent_after_it(softhsm: SoftHsm, in_files: Any) -> None:
    """Also where another thread is in the token at the very moment of the fork."""
    key, stop = in_token("ES256"), threading.Event()

    def busy() -> None:
        while not stop.is_set():
            key.sign(OCTETS)

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for _ in range(5):
            assert child_signs(key) == 0
            verify_signature(key.public_key, "ES256", key.sign(OCTETS), OCTETS)
    finally:
        stop.set()
        thread.join()


def child_signs(key: SigningKey) -> int:
    """Exit code of a child that signs twice, with the parent's key and with one it loads itself."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for one in (key, in_token("EdDSA")):
                verify_signature(one.public_key, one.algorithm, one.sign(OCTETS), OCTETS)
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_private_key_beside_another_public_key_is_found_at_the_start(softhsm: SoftHsm) -> None:
    softhsm.take(generate("ES256"), "pair")
    softhsm.take(generate("ES256"), "other")
    with pkcs11.lib(MODULE).get_token(token_label="yongtong").open(rw=True) as session:
        for label, keep in (("pair", pkcs11.ObjectClass.PRIVATE_KEY), ("other", pkcs11.ObjectClass.PUBLIC_KEY)):
            for found in list(session.get_objects({pkcs11.Attribute.LABEL: label})):
                if found.object_class == keep:
                    found[pkcs11.Attribute.LABEL] = "mixed"
    with pytest.raises(Misconfigured, match="does not sign for its public key"):
        load_key(uri("mixed"), pin)


def test_a_curve_that_is_not_used_here_is_refused(softhsm: SoftHsm) -> None:
    softhsm.take(SigningKeyOf384(), "p-384")
    with pytest.raises(Refusal, match="key_not_accepted"):
        SigningKey(load_key(uri("p-384"), pin))


class SigningKeyOf384(SigningKey):
    """A key that no SigningKey may hold, for its PEM."""

    def __init__(self) -> None:
        self._private_key = ec.generate_private_key(ec.SECP384R1())
