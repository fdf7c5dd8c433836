"""A bus of one bureau with everything that a bundle can hold: deliveries of three forms, a witness, a time stamp."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import msgspec

from exchange import bundle_export
from exchange.app import opening, trusted
from exchange.attestations import Attestations
from exchange.bundle_export import Sources
from exchange.database import SqliteFile
from exchange.processing import process
from security import bundle
from security.anchors import Anchors
from security.bundle import MANIFEST
from security.cosignature import Witness, cosign, cosignatures, without_cosignatures
from security.keys import SigningKey, generate
from security.message import Content, in_memory
from security.timestamp import Question
from tests.acts.bench_of_one import FEED, Acts, both_acts, covers

Parts = dict[str, bytes]

TSA = """
[tsa]
default_tsa = ours
[ours]
serial = {0}/serial
signer_cert = {0}/tsa.pem
signer_key = {0}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4
digests = sha256
ess_cert_id_alg = sha256
[req]
distinguished_name = name
[name]
[root]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign
[stamps]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = critical,timeStamping
"""


class TimestampAuthority:
    """OpenSSL as an RFC 3161 authority. root: PEM."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder, self._config = folder, folder / "tsa.conf"
        self._config.write_text(TSA.format(folder))
        (folder / "serial").write_text("01\n")
        key = ["-newkey", "rsa:2048", "-nodes", "-days", "30", "-config", str(self._config)]
        self._run(
            "req", "-x509", *key, "-extensions", "root", "-subj", "/CN=root", "-keyout", "ca.key", "-out", "ca.pem"
        )
        self._run("req", "-new", *key[:3], *key[5:], "-subj", "/CN=stamps", "-keyout", "tsa.key", "-out", "tsa.csr")
        issue = [
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-extfile",
            "tsa.conf",
            "-extensions",
            "stamps",
        ]
        self._run("x509", "-req", "-in", "tsa.csr", *issue, "-days", "30", "-out", "tsa.pem")
        self.root = (folder / "ca.pem").read_text()

    def stamp(self, octets: bytes) -> bytes:
        """The answer, DER."""
        (self._folder / "ask").write_bytes(Question(octets).der())
        self._run("ts", "-reply", "-config", str(self._config), "-queryfile", "ask", "-out", "answer")
        return (self._folder / "answer").read_bytes()

    def _run(self, *words: str) -> None:
        subprocess.run(["openssl", *words], cwd=self._folder, check=True, capture_output=True)


class Evidence:
    """What lies on that bus: deliveries `m-1` (SOAP), `m-2` (JWS) and `m-3` (CMS by SM2), each processed."""

    def __init__(self, acts: Acts, folder: Path) -> None:
        self.acts, self.folder = acts, folder
        self.witness, self.tsa = generate("EdDSA"), TimestampAuthority(folder / "tsa")
        acts.trial.grant("made-up", "push", FEED)
        acts.push("m-1", covers("A"))
        acts.receive(acts.by_broker("m-2", covers("B")))
        acts.receive(acts.by_broker("m-3", covers("C"), key=acts.more_key("SM2")))
        process(FEED, acts.bus)
        key = self.witness.public_key
        self.anchors = msgspec.structs.replace(
            trusted.anchors_of(acts.trial.settings),
            witnesses=[Witness("witness.example", key.public_bytes_raw().hex())],  # type: ignore[union-attr]
            quorum=1,
            timestamp_certificates=[self.tsa.root],
        )
        self.attest()

    def attest(self) -> None:
        """The newest head is cosigned and stamped."""
        note, now = self.acts.bus.journal.checkpoint(), datetime.now(UTC)
        size = int(note.split("\n")[1])
        line = cosign(note, "witness.example", self.witness, now)
        with closing(Attestations(SqliteFile(self.acts.bus.folder, "journal"))) as kept:
            kept.keep_cosignatures(size, cosignatures(f"{note}{line}\n", self.anchors.witnesses))
            kept.keep_timestamp(size, self.tsa.stamp(without_cosignatures(note).encode()), now)

    def exported(self, gather: Callable[[Sources], dict[str, Content]]) -> Parts:
        """The parts of a bundle."""
        settings = self.acts.trial.settings
        with closing(Attestations(SqliteFile(self.acts.bus.folder, "journal"))) as kept:
            mappings = opening.feed_files(settings)
            sources = Sources(self.acts.bus, kept, trusted.open_revocations(settings), self.anchors, mappings)
            return {name: part.read() for name, part in gather(sources).items()}

    def message(self, id: str) -> Parts:
        """Of a delivery."""
        row = self.acts.bus.journal.inbox("made-up", id)
        assert row is not None
        return self.exported(lambda sources: bundle_export.of_message(row, sources))

    def signed_anew(self, parts: Parts, key: SigningKey | None = None, **changed: object) -> Parts:
        """With a manifest that lists the parts as they are now: as the bus itself would sign it, or whose key it is."""
        manifest = bundle.open_manifest(parts[MANIFEST], self._certificates())
        listed = {name: in_memory(octets).digest.hex for name, octets in parts.items() if name != MANIFEST}
        manifest = msgspec.structs.replace(manifest, **{"parts": listed, **changed})
        return {**parts, MANIFEST: bundle.sign_manifest(manifest, key or self.acts.bus.answer_key)}

    def _certificates(self) -> list[bytes]:
        der = self.acts.bus.answer_key.certificate_der
        assert der is not None
        return [der]


def packed(parts: Parts) -> bytes:
    """The file."""
    target = BytesIO()
    bundle.write(target, {name: in_memory(octets) for name, octets in parts.items()})
    return target.getvalue()


def write_anchors(anchors: Anchors, path: Path) -> Path:
    """The file that a verifier has."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(anchors), indent=2))
    return path


@contextmanager
def evidence_of_one(folder: Path) -> Iterator[Evidence]:
    """The bus, closed afterwards."""
    with both_acts(folder / "acts") as acts:
        yield Evidence(acts, folder)
