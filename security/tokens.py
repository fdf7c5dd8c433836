"""Private keys that stay in their token: named by a `pkcs11:` URI (RFC 7512), used through PKCS#11 by python-pkcs11.

    pkcs11:token=yongtong;object=answer?module-path=/usr/lib/softhsm/libsofthsm2.so

Read: `token`, `serial` (of the token), `object`, `id`, `type=private`; `module-path`. Anything else is refused by name,
`pin-value` and `pin-source` too: a PIN stands in no setting, and where it comes from is said in one place, the keyring.

Each class is the private key that `cryptography` has for its kind, so that whoever signs need not know where a key
lies. Curves: P-256, Ed25519; RSA. PKCS#11 has no mechanism for SM2 that two vendors share. ECDSA in a token is not
deterministic, and none of these keys can be written down (docs/adr/0020).

The library is told nothing of threads when it is initialised, so one lock a module lets one thread in at a time. After
a fork the child begins anew. What the token forgot (a session, a login) is made again once, then it is `Unavailable`.
"""

import os
import re
import threading
import urllib.parse
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NoReturn, TypeVar

import msgspec
import pkcs11
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass
from pkcs11.exceptions import (
    MultipleObjectsReturned,
    MultipleTokensReturned,
    NoSuchKey,
    NoSuchToken,
    PinExpired,
    PinIncorrect,
    PinInvalid,
    PinLenRange,
    PinLocked,
    PKCS11Error,
    UserAlreadyLoggedIn,
)
from pkcs11.util.ec import encode_ec_public_key
from pkcs11.util.rsa import encode_rsa_public_key

from security.errors import Misconfigured, Unavailable

T = TypeVar("T")
Pin = Callable[[], bytes]  # asked only when the token asks; raises Misconfigured where there is none

SCHEME: Final = "pkcs11:"
_PATH: Final = frozenset({"token", "serial", "object", "id", "type"})
_BAD_PIN: Final = (PinIncorrect, PinInvalid, PinLenRange, PinLocked, PinExpired)


class TokenUri(msgspec.Struct, frozen=True):
    """Which module, token and key. Empty: not said. id: octets of CKA_ID."""

    text: str
    module: str
    token: str = ""
    serial: str = ""
    label: str = ""
    id: bytes = b""


def read_uri(text: str) -> TokenUri:
    """The parts of a `pkcs11:` URI. Raises Misconfigured naming the part that is missing or not taken."""
    path, _, query = text.removeprefix(SCHEME).partition("?")
    text = re.sub(r"(pin-value=)[^;&]*", r"\1…", text)  # as it may be shown
    said: dict[str, str] = {}
    for part in [*filter(None, path.split(";")), *filter(None, query.split("&"))]:
        name, _, value = part.partition("=")
        if name in said:
            raise Misconfigured("config.token", f"{text}: {name} stands there twice")
        said[name] = value
    if refused := sorted(set(said) - _PATH - {"module-path"}):
        raise Misconfigured("config.token", f"{text}: {refused[0]} is not taken{_instead(refused[0])}")
    if said.pop("type", "private") != "private":
        raise Misconfigured("config.token", f"{text}: a private key is wanted, type=private")
    module = urllib.parse.unquote(said.get("module-path", ""))
    if not module.startswith("/"):
        raise Misconfigured("config.token", f"{text}: name the PKCS#11 module, ?module-path=/usr/lib/…")
    if not (said.get("object") or said.get("id")):
        raise Misconfigured("config.token", f"{text}: name the key by object=LABEL or id=%01")
    token, serial, label = (urllib.parse.unquote(said.get(name, "")) for name in ("token", "serial", "object"))
    return TokenUri(text, module, token, serial, label, urllib.parse.unquote_to_bytes(said.get("id", "")))


def _instead(name: str) -> str:
    return "; put the PIN into a file, [keys] passphrase_file" if name.startswith("pin-") else ""


# --- tokens of this process ------------------------------------------------------------------------------------------


class _Module:
    """A PKCS#11 library in this process, entered by one thread at a time."""

    def __init__(self, path: str) -> None:
        self.lock = threading.RLock()
        self._path, self._process = path, 0

    def library(self) -> Any:
        """The library, initialised in this process: in a child of the one that did, anew."""
        try:
            found = pkcs11.lib(self._path)
            if self._process not in (0, os.getpid()):
                _reinitialise(found)
        except PKCS11Error as problem:
            raise Misconfigured(
                "config.token", f"{self._path}: no PKCS#11 module that can be used ({_words(problem)})"
            ) from problem
        self._process = os.getpid()
        return found


class _Token:
    """One token, logged in to while this process lives. Its PIN is kept, for the token may forget us."""

    def __init__(self, module: _Module, uri: TokenUri, pin: Pin) -> None:
        self._module, self._uri, self._process = module, uri, 0
        with module.lock:
            self._pin = pin()
            self._session = self._opened()

    def use(self, work: Callable[[Any], T]) -> T:
        """Do the work with a session. Raises Unavailable where the token fails us twice."""
        with self._module.lock:
            try:
                if self._process == os.getpid():
                    return work(self._session)
            except PKCS11Error:
                self._forget()  # whatever it was, a session that failed is not used again
            try:
                self._session = self._opened()
                return work(self._session)
            except (PKCS11Error, Misconfigured) as problem:
                self._process = 0
                raise Unavailable(f"{self._uri.text}: the token does not sign now ({_words(problem)})") from problem

    def _opened(self) -> Any:
        """A session that is logged in. Raises Misconfigured; a PIN that was refused is never tried again."""
        token = _found(self._module.library(), self._uri)
        if not self._pin:
            raise Misconfigured(
                "config.passphrase", f"{self._uri.text}: its PIN was refused before and is not tried again; restart"
            )
        try:
            session = token.open(user_pin=self._pin.decode("utf-8"))
        except UserAlreadyLoggedIn:
            session = token.open()
        except _BAD_PIN as problem:
            self._pin = b""  # tokens lock themselves after a few tries
            raise Misconfigured(
                "config.passphrase",
                f"{self._uri.text}: the token refuses the PIN ({_words(problem)}); correct it before another try",
            ) from problem
        self._process = os.getpid()
        return session

    def _forget(self) -> None:
        self._process = 0
        with suppress(PKCS11Error):
            self._session.close()


_modules: dict[str, _Module] = {}
_tokens: dict[tuple[str, bytes], _Token] = {}
_making = threading.Lock()


def _child_begins_anew() -> None:
    """Another thread may have held a lock at the fork; the child has no such thread, and would wait for ever."""
    global _making
    _making = threading.Lock()
    for module in _modules.values():
        module.lock = threading.RLock()


os.register_at_fork(after_in_child=_child_begins_anew)


def _token_of(uri: TokenUri, pin: Pin) -> _Token:
    """The token of a URI, logged in to once a process however many keys lie in it: a login is the process's."""
    with _making:
        module = _modules.setdefault(uri.module, _Module(uri.module))
        with module.lock:
            name = (uri.module, _serial(module, uri))
            if name not in _tokens:
                _tokens[name] = _Token(module, uri, pin)
        return _tokens[name]


def _serial(module: _Module, uri: TokenUri) -> bytes:
    serial: bytes = _found(module.library(), uri).serial
    return serial


def _found(library: Any, uri: TokenUri) -> Any:
    named = {"token_label": uri.token or None, "token_serial": uri.serial.encode("utf-8") or None}
    try:
        return library.get_token(**named)
    except (NoSuchToken, MultipleTokensReturned) as problem:
        there = ", ".join(sorted(token.label for token in library.get_tokens() if token.label)) or "none"
        raise Misconfigured(
            "config.token", f"{uri.text}: not one token of that name; in this module are: {there}"
        ) from problem
    except PKCS11Error as problem:
        raise Misconfigured(
            "config.token", f"{uri.text}: the module does not list its tokens ({_words(problem)})"
        ) from problem


def _reinitialise(library: Any) -> None:
    with suppress(PKCS11Error):  # where it knows by itself that this is another process
        library.finalize()
    library.initialize()


def _words(problem: Exception) -> str:
    return f"{type(problem).__name__} {problem}".strip()


# --- keys ------------------------------------------------------------------------------------------------------------


class _InToken:
    """A key in a token. What a private key is asked for besides a signature, it refuses."""

    def __init__(self, token: _Token, uri: TokenUri, public_key: Any) -> None:
        self._token, self._uri, self._public_key = token, uri, public_key
        self._found: tuple[Any, Any] = (None, None)

    def _signed(self, octets: bytes, mechanism: Mechanism, parameter: object = None) -> bytes:
        def work(session: Any) -> bytes:
            if self._found[0] is not session:
                self._found = session, _object(session, self._uri, ObjectClass.PRIVATE_KEY)
            signature: bytes = self._found[1].sign(octets, mechanism=mechanism, mechanism_param=parameter)
            return signature

        return self._token.use(work)

    def public_key(self) -> Any:
        """The public key."""
        return self._public_key

    @property
    def key_size(self) -> int:
        """Bits."""
        size: int = self._public_key.key_size
        return size

    def _stays(self, *_: object, **__: object) -> NoReturn:
        raise Misconfigured("config.token", f"{self._uri.text}: the key signs in its token and never leaves it")

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self

    private_bytes = private_bytes_raw = private_numbers = exchange = decrypt = _stays


class EcKeyInToken(_InToken, ec.EllipticCurvePrivateKey):
    """P-256."""

    @property
    def curve(self) -> ec.EllipticCurve:
        """The public key's."""
        curve: ec.EllipticCurve = self._public_key.curve
        return curve

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """ECDSA in DER over the digest of data; with a random k, whatever signature_algorithm says of it."""
        assert isinstance(signature_algorithm.algorithm, hashes.HashAlgorithm)
        hashed = hashes.Hash(signature_algorithm.algorithm)
        hashed.update(data)
        raw = self._signed(hashed.finalize(), Mechanism.ECDSA)
        half = len(raw) // 2
        return encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))


class RsaKeyInToken(_InToken, rsa.RSAPrivateKey):
    """RSA with SHA-256: PKCS#1 v1.5, or PSS with a salt as long as the digest."""

    def sign(self, data: Any, padding: Any, algorithm: Any) -> bytes:
        """The signature over data."""
        if isinstance(padding, PSS):
            parameter = (Mechanism.SHA256, pkcs11.MGF.SHA256, algorithm.digest_size)
            return self._signed(data, Mechanism.SHA256_RSA_PKCS_PSS, parameter)
        return self._signed(data, Mechanism.SHA256_RSA_PKCS)


class Ed25519KeyInToken(_InToken, ed25519.Ed25519PrivateKey):
    """Ed25519."""

    def sign(self, data: Any) -> bytes:
        """The signature over data; the same each time (RFC 8032)."""
        return self._signed(data, Mechanism.EDDSA)


KeyInToken = EcKeyInToken | RsaKeyInToken | Ed25519KeyInToken


def load_key(text: str, pin: Pin) -> KeyInToken:
    """The key that a `pkcs11:` URI names, once it has signed and its public key has verified that.

    Raises Misconfigured naming module, token, PIN or key, and what to do.
    """
    uri = read_uri(text)
    token = _token_of(uri, pin)
    try:
        key = _key_of(token, uri, token.use(lambda session: _public_key(session, uri)))
        _try(key)
    except (Unavailable, InvalidSignature) as problem:
        raise Misconfigured(
            "config.token", f"{text}: the key does not sign for its public key ({_words(problem)})"
        ) from problem
    return key


def _key_of(token: _Token, uri: TokenUri, public_key: object) -> KeyInToken:
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        return EcKeyInToken(token, uri, public_key)
    if isinstance(public_key, rsa.RSAPublicKey):
        return RsaKeyInToken(token, uri, public_key)
    if isinstance(public_key, ed25519.Ed25519PublicKey):
        return Ed25519KeyInToken(token, uri, public_key)
    raise Misconfigured("config.token", f"{uri.text}: a key of this kind is not used here; P-256, Ed25519 or RSA is")


def _try(key: KeyInToken) -> None:
    """Sign once: a key that may not sign, or stands beside another public key, is found at the start and not later."""
    octets, public_key = b"yongtong tries a key\n", key.public_key()
    if isinstance(key, EcKeyInToken):
        public_key.verify(key.sign(octets, ec.ECDSA(hashes.SHA256())), octets, ec.ECDSA(hashes.SHA256()))
    elif isinstance(key, RsaKeyInToken):
        signature = key.sign(octets, PKCS1v15(), hashes.SHA256())
        public_key.verify(signature, octets, PKCS1v15(), hashes.SHA256())
    else:
        public_key.verify(key.sign(octets), octets)


def _object(session: Any, uri: TokenUri, object_class: ObjectClass) -> Any:
    what = "private key" if object_class == ObjectClass.PRIVATE_KEY else "public key beside the private key"
    try:
        return session.get_key(object_class=object_class, label=uri.label or None, id=uri.id or None)
    except (NoSuchKey, MultipleObjectsReturned) as problem:
        raise Misconfigured("config.token", f"{uri.text}: not one {what} of that name in the token") from problem


def _public_key(session: Any, uri: TokenUri) -> object:
    found = _object(session, uri, ObjectClass.PUBLIC_KEY)
    try:
        if found.key_type == KeyType.RSA:
            return serialization.load_der_public_key(encode_rsa_public_key(found))
        if found.key_type == KeyType.EC_EDWARDS:
            return ed25519.Ed25519PublicKey.from_public_bytes(found[Attribute.EC_POINT][-32:])
        return serialization.load_der_public_key(encode_ec_public_key(found))
    except (ValueError, KeyError, UnsupportedAlgorithm) as problem:
        raise Misconfigured(
            "config.token", f"{uri.text}: its public key is not read here ({problem})"[:300]
        ) from problem
