"""Suites beside each other in one process: SM2 with SM3 as it is, beside ECDSA P-256; the other suites in the note.

Both sign 10,000 octets, verify that signature, and verify one signed SOAP envelope of about 10 KB from its octets to
the operation. Nothing is kept: this is what a suite costs, not what a door takes.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from bench.deliveries import Sender, contents, envelope
from bench.figures import Figure, alternating, figure
from security import pki
from security.keys import Algorithm, SigningKey, generate, verify_signature
from security.wss import open_envelope, verify

OCTETS: Final = bytes(10_000)
CONTENT_BYTES: Final = 4_700  # of the envelope's content; in base64, with header and certificate, it is 10 KB
SECONDS: Final = 1.0
ALGORITHMS: Final[tuple[Algorithm, ...]] = ("SM2", "ES256", "EdDSA", "RS256", "PS256")


def measure_sign(_: Path) -> Figure:
    """suite_sm2_sign_per_s."""
    return _figure("suite_sm2_sign_per_s", "signatures/s", _signing)


def measure_verify(_: Path) -> Figure:
    """suite_sm2_verify_per_s."""
    return _figure("suite_sm2_verify_per_s", "signatures/s", _verifying)


def measure_envelopes(_: Path) -> Figure:
    """suite_sm2_wss_verify_per_s."""
    return _figure("suite_sm2_wss_verify_per_s", "envelopes/s", _verifying_envelopes)


def _figure(name: str, unit: str, work_of: Callable[[SigningKey], Callable[[], object]]) -> Figure:
    work = {algorithm: work_of(_key(algorithm)) for algorithm in ALGORITHMS}
    ours, peer = alternating(lambda _: _rate(work["SM2"]), lambda _: _rate(work["ES256"]))
    others = ", ".join(f"{algorithm} {_rate(work[algorithm]):,.0f}/s" for algorithm in ALGORITHMS[2:])
    what = "one signed SOAP envelope of 10 KB, opened and verified" if "wss" in name else "10,000 octets"
    note = f"{what}, one thread; SM2 with SM3 by GmSSL, the others by OpenSSL: {others}; peer: ES256"
    return figure(name, ours, peer, unit, note)


def _key(algorithm: Algorithm) -> SigningKey:
    now = datetime.now(UTC)
    key = generate("RS256" if algorithm == "PS256" else algorithm).signing_by(algorithm)
    ca = pki.make_ca("bench CA", now)
    der = pki.issue(ca, "bench", key.public_key, "signing", now - timedelta(days=1), now + timedelta(days=1))
    return key.with_certificate(der)


def _signing(key: SigningKey) -> Callable[[], object]:
    return lambda: key.sign(OCTETS)


def _verifying(key: SigningKey) -> Callable[[], object]:
    signature = key.sign(OCTETS)
    return lambda: verify_signature(key.public_key, key.algorithm, signature, OCTETS)


def _verifying_envelopes(key: SigningKey) -> Callable[[], object]:
    assert key.certificate_der is not None
    now, certificate = datetime.now(UTC), pki.enrolled(key.certificate_der, "bench", "signing")
    content = b"".join(contents(0, 2))[:CONTENT_BYTES]
    octets = envelope(content, "bench-1", Sender("bench", key, key.certificate_der, "bus"), now)
    assert 9_500 < len(octets) < 11_000, len(octets)
    return lambda: verify(open_envelope(octets), certificate, now=now)


def _rate(work: Callable[[], object]) -> float:
    """How often a second, over a second."""
    work()
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < SECONDS:
        work()
        done += 1
    return done / (time.perf_counter() - began)
