"""A bus with witnesses, a timestamp authority run by OpenSSL, and bundles taken out of it; and how one is spoilt."""

import io
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from exchange.app import keys_in_force, opening, trusted
from exchange.attestations import Attestations
from exchange.bundle_check import BundleVerdict, verify_bundle
from exchange.bundle_export import Sources, of_message
from exchange.bundle_parts import Row
from exchange.database import SqliteFile
from exchange.processing import process
from security import bundle
from security.anchors import Anchors
from security.bundle import MANIFEST, Manifest, sign_manifest
from security.cosignature import Witness, cosign, cosignatures, without_cosignatures
from security.jws import jcs
from security.keys import SigningKey, der_of_pem, generate
from security.message import in_memory
from security.pki import pem_of
from security.timestamp import Question
from tests.acts.bench_of_one import FEED, Acts, both_acts, covers

Parts = dict[str, bytes]
CONFIG = """
[ tsa ]
default_tsa = tsa1
[ tsa1 ]
serial = tsa.serial
crypto_device = builtin
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha384, sha512
accuracy = secs:1
ordering = yes
tsa_name = yes
ess_cert_id_chain = no
ess_cert_id_alg = sha256
[ req ]
distinguished_name = dn
[ dn ]
[ root ]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[ stamping ]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping
"""


class TimestampAuthority:
    """`openssl ts` in a folder."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("program:openssl")
        self.folder = folder
        folder.mkdir(parents=True)
        (folder / "tsa.cnf").write_text(CONFIG)
        (folder / "tsa.serial").write_text("01\n")
        ec = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-config", "tsa.cnf")
        self._run("req", "-x509", *ec, "-keyout", "root.key", "-out", "root.pem", "-subj", "/CN=TSA root",
                  "-days", "60", "-extensions", "root")  # fmt: skip
        self._run("req", "-new", *ec, "-keyout", "tsa.key", "-out", "tsa.csr", "-subj", "/CN=TSA")
        self._run("x509", "-req", "-in", "tsa.csr", "-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial",
                  "-out", "tsa.pem", "-days", "30", "-extfile", "tsa.cnf", "-extensions", "stamping")  # fmt: skip

    @property
    def root(self) -> str:
        return (self.folder / "root.pem").read_text()

    def answer(self, octets: bytes) -> tuple[bytes, datetime]:
        """Its answer over octets, checked."""
        question = Question(octets)
        (self.folder / "q.tsq").write_bytes(question.der())
        self._run("ts", "-reply", "-config", "tsa.cnf", "-section", "tsa1", "-queryfile", "q.tsq", "-out", "a.tsr",
                  "-signer", "tsa.pem", "-inkey", "tsa.key", "-chain", "tsa.pem")  # fmt: skip
        response = (self.folder / "a.tsr").read_bytes()
        return response, question.check(response, [der_of_pem(self.root.encode())])

    def _run(self, *arguments: str) -> None:
        done = subprocess.run(["openssl", *arguments], cwd=self.folder, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()


class Office:
    """A bus, two witnesses and a timestamp authority; `anchors` demand them all."""

    def __init__(self, acts: Acts, folder: Path) -> None:
        self.acts, self.authority = acts, TimestampAuthority(folder / "tsa")
        self.keys = {f"witness-{n}.example": generate("EdDSA") for n in (1, 2)}
        self.kept = Attestations(SqliteFile(acts.bus.folder, "journal"))
        self.anchors = msgspec.structs.replace(
            trusted.anchors_of(acts.trial.settings),
            witnesses=[_witness(name, key) for name, key in self.keys.items()],
            quorum=2,
            timestamp_certificates=[self.authority.root],
            authorities=[pem_of(keys_in_force.authority(acts.trial.settings).certificate_der).decode()],
        )

    def attest(self, names: tuple[str, ...] = ("witness-1.example", "witness-2.example")) -> int:
        """Witnesses sign the newest head, and it is stamped; gives its size."""
        note = self.acts.bus.journal.checkpoint()
        size = self.anchors.head(note).size
        now = datetime.now(UTC)
        cosigned = note + "".join(f"{cosign(note, name, self.keys[name], now)}\n" for name in names)
        self.kept.keep_cosignatures(size, cosignatures(cosigned, self.anchors.witnesses))
        self.kept.keep_timestamp(size, *self.authority.answer(without_cosignatures(note).encode()))
        return size

    def sources(self, **more: object) -> Sources:
        """Where bundles are taken from."""
        settings = self.acts.trial.settings
        found = Sources(
            self.acts.bus, self.kept, trusted.open_revocations(settings), self.anchors, opening.feed_files(settings)
        )
        return msgspec.structs.replace(found, **more)

    def bundle(self, message_id: str, **more: object) -> Parts:
        """The parts of the bundle of a delivery of `made-up`."""
        row = self.acts.bus.journal.inbox("made-up", message_id)
        assert row is not None
        return {name: part.read() for name, part in of_message(row, self.sources(**more)).items()}

    def signed_anew(self, parts: Mapping[str, bytes], **changed: object) -> Parts:
        """Other parts under a manifest that the bus's own key signs: what a false operator can do."""
        certificates = [der_of_pem(pem.encode()) for pem in self.anchors.receipt_certificates]
        said = bundle.open_manifest(parts[MANIFEST], certificates)
        digests = {name: in_memory(octets).digest.hex for name, octets in parts.items() if name != MANIFEST}
        manifest: Manifest = msgspec.structs.replace(said, **{"parts": digests, **changed})
        return {**parts, MANIFEST: sign_manifest(manifest, self.acts.bus.answer_key)}

    def verdict(self, parts: Mapping[str, bytes], now: datetime | None = None, **changed: object) -> BundleVerdict:
        """What the verifier says, by these anchors or by changed ones."""
        anchors: Anchors = msgspec.structs.replace(self.anchors, **changed)
        return verify_bundle(in_memory(packed(parts)), anchors, now or datetime.now(UTC))


def packed(parts: Mapping[str, bytes]) -> bytes:
    """The file."""
    target = io.BytesIO()
    bundle.write(target, {name: in_memory(octets) for name, octets in parts.items()})
    return target.getvalue()


def row(verdict: BundleVerdict, name: str) -> Row:
    return next(one for one in verdict.rows if one.name == name)


def states(verdict: BundleVerdict) -> dict[str, str]:
    """Rows that do not hold."""
    return {one.name: one.state for one in verdict.rows if one.state != "holds"}


def says(verdict: BundleVerdict, name: str, words: str) -> bool:
    """Whether a row speaks of it."""
    return any(words in line for line in row(verdict, name).about)


def edited(octets: bytes, change: Callable[[dict[str, object]], None]) -> bytes:
    """A canonical JSON part with its members changed."""
    document = msgspec.json.decode(octets, type=dict[str, object])
    change(document)
    return jcs(document)


def _witness(name: str, key: SigningKey) -> Witness:
    assert isinstance(key.public_key, Ed25519PublicKey)
    return Witness(name, key.public_key.public_bytes_raw().hex())


@contextmanager
def an_office(folder: Path) -> Iterator[Office]:
    """With a delivery by SOAP (`m-1`) and one by JWS (`m-2`), both processed, and a third after the attested head."""
    with both_acts(folder) as acts:
        acts.trial.grant("made-up", "push", FEED)
        acts.push("m-1", covers("A"))
        acts.receive(acts.by_broker("m-2", covers("B")))
        process(FEED, acts.bus)
        office = Office(acts, folder)
        with closing(office.kept):
            office.attest()
            acts.push("m-3", covers("C"))
            yield office
