"""Where private keys lie and what opens them: a PEM file, plain or under a passphrase, or a token by its URI.

A passphrase or PIN is read from a file or asked of a person; it is never the value of a setting or of an environment
variable, which others can read. The files, in this order, of which the first that is there counts:

    $CREDENTIALS_DIRECTORY/yongtong.NAME    systemd's LoadCredential=yongtong.NAME:…, for one key
    $CREDENTIALS_DIRECTORY/yongtong         the same for all keys
    passphrase_file                         of the settings, or of a partner's keys.toml, for all keys
"""

import os
import sys
from collections.abc import Callable, Mapping
from getpass import getpass
from pathlib import Path
from typing import Final

from security import tokens
from security.errors import Misconfigured, Refusal
from security.keys import SigningKey, der_of_pem

Ask = Callable[[str], str]  # asks a person for what opens a key; nothing of it is shown or kept

_ENCRYPTED: Final = b"ENCRYPTED"


def a_person() -> Ask | None:
    """Whoever sits at the terminal; None where nobody does, as under systemd."""
    return getpass if sys.stdin is not None and sys.stdin.isatty() else None


class Keyring:
    """The private keys of one owner.

    folder:          in which a key NAME is `NAME.key` and its certificate `NAME.pem`, unless a reference says otherwise
    references:      by name of the key, a path (relative to folder) or a `pkcs11:` URI; empty: the file
    passphrase_file: for all keys; None where there is none
    ask:             asks a person, where one can be asked, once for all keys
    stems:           by name of the key, by what its files are called where not by that name
    """

    def __init__(
        self,
        folder: Path,
        references: Mapping[str, str] | None = None,
        passphrase_file: Path | None = None,
        ask: Ask | None = None,
        stems: Mapping[str, str] | None = None,
    ) -> None:
        self._stems = stems or {}
        self._folder, self._file, self._ask, self._typed = folder, passphrase_file, ask, b""
        self._references = {name: text for name, text in (references or {}).items() if text}

    def in_token(self, name: str) -> bool:
        """Whether a key lies in a token."""
        return self._references.get(name, "").startswith(tokens.SCHEME)

    def path(self, name: str) -> Path:
        """The file of a key. Raises Misconfigured where it lies in a token, and whoever asks can only read files."""
        if self.in_token(name):
            raise Misconfigured(
                "config.token",
                f"the {name} key is in a token, {self._references[name]}: TLS reads key files only; "
                f"give this key a file, under a passphrase if it should be",
            )
        return self._folder / self._references.get(name, f"{self._stems.get(name, name)}.key")

    def certificate_path(self, name: str) -> Path:
        """The file of a key's certificate."""
        return self._folder / f"{self._stems.get(name, name)}.pem"

    def load(self, name: str, *, certificate: bool = True) -> SigningKey:
        """A key, with its certificate where it has one. Raises Misconfigured naming file or token, and what to do."""
        certificate_path = self.certificate_path(name) if certificate else None
        if self.in_token(name):
            return self._load_from_token(name, certificate_path)
        return SigningKey.load(self.path(name), self.passphrase(name), certificate_path)

    def passphrase(self, name: str) -> bytes | None:
        """What opens the file of a key; None where that is not encrypted. Raises Misconfigured where it is not had."""
        path = self.path(name)
        return self._opening(name, str(path)) if is_encrypted(path) else None

    def new_passphrase(self) -> bytes | None:
        """What a key that is made is to be written under: of the files alone, and None where there is none."""
        return _first_line(found) if (found := self._secret_file("")) else None

    def _load_from_token(self, name: str, certificate_path: Path | None) -> SigningKey:
        uri = self._references[name]
        key = tokens.load_key(uri, lambda: self._opening(name, uri))
        try:
            return SigningKey(key, None if certificate_path is None else der_of_pem(certificate_path.read_bytes()))
        except (OSError, ValueError, Misconfigured, Refusal) as problem:
            raise Misconfigured("config.key", f"{uri}: {problem}") from problem

    def _opening(self, name: str, what: str) -> bytes:
        if found := self._secret_file(name):
            return _first_line(found)
        if self._ask is not None and not self._typed:
            self._typed = self._ask(f"{what}: ").encode("utf-8")
        if self._typed:
            return self._typed
        raise Misconfigured(
            "config.passphrase",
            f"{what}: a passphrase or PIN opens it, and none is at hand; put it into a file and name that as "
            f"passphrase_file, or give systemd's credential yongtong.{name}",
        )

    def _secret_file(self, name: str) -> Path | None:
        credentials = os.environ.get("CREDENTIALS_DIRECTORY")
        if credentials:
            for path in (Path(credentials) / f"yongtong.{name}", Path(credentials) / "yongtong"):
                if path.is_file():
                    return path
        return self._file


def is_encrypted(path: Path) -> bool:
    """Whether a file of a key is under a passphrase. Raises Misconfigured naming the file."""
    try:
        return _ENCRYPTED in path.read_bytes()
    except OSError as problem:
        raise Misconfigured(
            "config.key", f"{path}: no usable private key or certificate: {problem.strerror}"
        ) from problem


def secret_line(name: str, file: Path | None) -> str:
    """What a server asks of us, of systemd's credential `yongtong.NAME` or of a file. Raises Misconfigured."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if folder and (credential := Path(folder) / f"yongtong.{name}").is_file():
        return _first_line(credential).decode()
    if file is None:
        raise Misconfigured(
            "config.passphrase",
            f"no password for {name}: put it into a file and name that in the settings, "
            f"or give systemd's credential yongtong.{name}",
        )
    return _first_line(file).decode()


def _first_line(path: Path) -> bytes:
    try:
        line = path.read_bytes().rstrip(b"\r\n")
    except OSError as problem:
        raise Misconfigured(
            "config.passphrase", f"{path}: no passphrase can be read there ({problem.strerror})"
        ) from problem
    if not line or b"\n" in line:
        raise Misconfigured("config.passphrase", f"{path}: a passphrase is one line, and not empty")
    return line
