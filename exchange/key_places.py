"""Where keys may lie: for their owner alone, and never in the state folder, of which copies are made.

Also what keys may do by what they are: those of a demonstration are known to whoever looked on, and serve nobody but
the machine that they were made on.
"""

import ipaddress
import socket
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from security.errors import Misconfigured

DEMO: Final = "DEMO"  # a word of the common name of every certificate of a demonstration


def check_apart(state: Path, keys: Iterable[Path]) -> None:
    """Return if none of these files and folders lies in the state folder, links followed. Raises Misconfigured naming
    both."""
    for path in keys:
        if path.resolve().is_relative_to(state.resolve()):
            raise Misconfigured(
                "config.keys_exposed",
                f"{path} holds keys and lies in the state folder {state}, of which copies are made; move it out",
            )


def check_private(files: Iterable[Path]) -> None:
    """Return if of those files that exist none can be read or written by another account. Raises Misconfigured."""
    for path in files:
        mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0
        if mode & 0o077:
            raise Misconfigured(
                "config.keys_exposed",
                f"{path} has mode {mode:04o}: other accounts can get at it; chmod 600 {path}, "
                f"and replace the key if it may have been read",
            )


def is_demo(certificate_der: bytes) -> bool:
    """Whether a certificate says that its key is a demonstration's."""
    subject = x509.load_der_x509_certificate(certificate_der).subject
    return any(DEMO in str(name.value).split() for name in subject.get_attributes_for_oid(NameOID.COMMON_NAME))


def check_demo_stays_here(certificates_der: Iterable[bytes], hosts: Iterable[str]) -> bool:
    """Whether these are a demonstration's keys; if one is, no host may be any other than this machine's own.

    hosts: names or addresses to be listened on

    Raises Misconfigured, which says how to get keys of one's own.
    """
    if not any(map(is_demo, certificates_der)):
        return False
    for host in hosts:
        if not _is_loopback(host):
            raise Misconfigured(
                "config.demo_keys",
                f"the keys of this bus are a demonstration's ({DEMO} in their certificates): this machine alone, "
                f"not {host or 'every address'}; make a bus with keys of its own: yongtong init --edition 2007",
            )
    return True


def _is_loopback(host: str) -> bool:
    """Whether all that a host stands for is this machine's own. A name that nobody knows is not."""
    try:
        found = socket.getaddrinfo(host or "0.0.0.0", None, type=socket.SOCK_STREAM)  # noqa: S104  # empty is every one
    except OSError:
        return False
    return all(ipaddress.ip_address(str(address[4][0]).partition("%")[0]).is_loopback for address in found)
