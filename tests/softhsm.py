"""A token of SoftHSM in a folder, for one process and its children."""

import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pkcs11
import pytest

from security import tokens
from security.keys import SigningKey

MODULE: Final = "/usr/lib/softhsm/libsofthsm2.so"
PIN: Final = "48-2907"
TOKEN: Final = "yongtong"


class SoftHsm:
    """One token; keys are put in by their PKCS#8 files, as SoftHSM's own tool does."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._ids = folder, itertools.count()
        (folder / "tokens").mkdir(parents=True)
        self.configuration = folder / "softhsm2.conf"
        self.configuration.write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
        self.pin_file = folder / "pin"
        self.pin_file.write_text(f"{PIN}\n")
        self.pin_file.chmod(0o600)
        self._tool("--init-token", "--free", "--label", TOKEN, "--so-pin", "so-4711", "--pin", PIN)

    def take(self, key: SigningKey, label: str, id: str = "") -> str:
        """Put a key in; gives its URI. id: in hex, instead of one of its own."""
        id = id or f"a{next(self._ids):03x}"
        path = self.folder / f"{label}.p8"
        path.write_bytes(key.pem())
        self._tool("--import", str(path), "--token", TOKEN, "--label", label, "--id", id, "--pin", PIN)
        path.unlink()
        return uri(label)

    @contextmanager
    def away(self) -> Iterator[None]:
        """The token pulled out, and put back in."""
        plugged, drawer = self.folder / "tokens", self.folder / "away"
        plugged.rename(drawer)
        plugged.mkdir()
        forget_sessions()
        try:
            yield
        finally:
            plugged.rmdir()
            drawer.rename(plugged)
            forget_sessions()

    def _tool(self, *arguments: str) -> None:
        environment = {**os.environ, "SOFTHSM2_CONF": str(self.configuration)}
        done = subprocess.run(
            ["softhsm2-util", *arguments], capture_output=True, text=True, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr


def forget_sessions() -> None:
    """End every session of this process and its login with them, and look for tokens anew."""
    with tokens._modules[MODULE].lock:  # not under another thread's feet
        pkcs11.lib(MODULE).reinitialize()


def uri(label: str, token: str = TOKEN, module: str = MODULE) -> str:
    """The URI of a key in a token."""
    return f"pkcs11:token={token};object={label}?module-path={module}"


def a_token(folder: Path) -> SoftHsm:
    """A new token, seen by this process; skips the test by name where SoftHSM is not installed."""
    if not Path(MODULE).exists():
        pytest.skip("softhsm2 (apt-get install softhsm2)")
    return SoftHsm(folder)
