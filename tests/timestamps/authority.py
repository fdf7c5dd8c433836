"""A timestamp authority run by `openssl ts`, behind a small server that can be as rude as it is told to be."""

import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CONFIG = """
[tsa]
default_tsa = ours
[ours]
dir = .
serial = serial
signer_cert = tsa.pem
certs = ca.pem
signer_key = tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha384, sha512
accuracy = secs:1
ess_cert_id_alg = sha256
"""
DAY = timedelta(days=1)


class OpensslTsa:
    """ca.pem is its root. begins, ends: the days of the certificate that signs, from now."""

    def __init__(self, folder: Path, begins: int = -3, ends: int = 30) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("openssl ts")
        self.folder = folder
        folder.mkdir(parents=True)
        (folder / "tsa.cnf").write_text(CONFIG)
        (folder / "serial").write_text("01\n")
        now, ca_key, key = (
            datetime.now(UTC),
            ec.generate_private_key(ec.SECP256R1()),
            ec.generate_private_key(ec.SECP256R1()),
        )
        root = _certificate("TSA root", ca_key, "TSA root", ca_key, now - 400 * DAY, now + 400 * DAY)
        root = root.add_extension(x509.BasicConstraints(True, None), True)
        leaf = _certificate("TSA", key, "TSA root", ca_key, now + begins * DAY, now + ends * DAY)
        leaf = leaf.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING]), True)
        for name, builder in (("ca", root), ("tsa", leaf)):
            made = builder.sign(ca_key, hashes.SHA256())
            (folder / f"{name}.pem").write_bytes(made.public_bytes(Encoding.PEM))
        (folder / "tsa.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    @property
    def roots(self) -> tuple[bytes, ...]:
        """Its root, DER."""
        pem = (self.folder / "ca.pem").read_bytes()
        return (x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER),)

    def run(self, *arguments: str) -> str:
        done = subprocess.run(["openssl", "ts", *arguments], cwd=self.folder, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def reply(self, query: bytes) -> bytes:
        """The answer to a question, now."""
        (self.folder / "query.tsq").write_bytes(query)
        self.run("-reply", "-config", "tsa.cnf", "-queryfile", "query.tsq", "-out", "reply.tsr")
        return (self.folder / "reply.tsr").read_bytes()

    def verify(self, response: bytes, octets: bytes) -> str:
        """What `openssl ts -verify` says of an answer over octets; fails the test unless it is OK."""
        (self.folder / "kept.tsr").write_bytes(response)
        (self.folder / "octets").write_bytes(octets)
        return self.run("-verify", "-data", "octets", "-in", "kept.tsr", "-CAfile", "ca.pem")

    def answering(
        self, altered: Callable[[bytes], bytes] = lambda query: query
    ) -> Callable[[BaseHTTPRequestHandler], None]:
        """For a `FileServer`: answers what is posted. altered: what it takes the question to be."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            give(handler, self.reply(altered(handler.posted)))  # type: ignore[attr-defined]  # our server's handler

        return answer


def give(handler: BaseHTTPRequestHandler, octets: bytes, status: int = 200, **headers: str) -> None:
    """An answer."""
    handler.send_response(status)
    for name, value in {"Content-Type": "application/timestamp-reply", **headers}.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(octets)))
    handler.end_headers()
    handler.wfile.write(octets)


def _certificate(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuing: ec.EllipticCurvePrivateKey,
    begins: datetime,
    ends: datetime,
) -> x509.CertificateBuilder:
    def named(name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])

    return (
        x509.CertificateBuilder()
        .subject_name(named(subject))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuing.public_key()), False)
    )
