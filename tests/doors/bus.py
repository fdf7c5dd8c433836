"""A bus for the doors' tests: journal, evidence, store and signatures are real, its registry is a list in memory."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec

from connectors.partner.folder import PartnerFolder
from exchange.attestations import Attestations
from exchange.bus import Bus, Limits
from exchange.database import SqliteFile
from exchange.evidence import Evidence
from exchange.evidence_folder import EvidenceFolder
from exchange.journal import Journal
from exchange.receipts import issue_receipts, issue_reports
from exchange.replays import OwnReplays
from exchange.settings import SuiteSettings
from exchange.stopped import Stopped
from exchange.store.embedded import Embedded
from exchange.store.store import Store
from exchange.uploads import Uploads
from exchange.waits import Waits
from security import pki
from security.anchors import Anchors
from security.authenticate import TrustList
from security.checkpoint import log_key_octets
from security.keys import Kind, SigningKey, generate
from security.message import EnrolledCertificate, Grant
from security.xml import compile_schema
from tests.doors.conftest import NOW, City

ORIGIN = "bus.test.example"
NO_LIMITS = dict.fromkeys(("max_bytes", "most_a_minute", "most_bytes_a_day", "most_waiting"), 0)
SCHEMA = Path(__file__).parents[2] / "exchange/contracts/yongtong.xsd"


class ListedRegistry:
    """Bureaus, certificates and grants as the doors ask for them."""

    def __init__(self) -> None:
        self.certificates: list[EnrolledCertificate] = []
        self.granted: list[Grant] = []
        self._trust: TrustList | None = None

    def trust(self) -> TrustList:
        self._trust = self._trust or TrustList(tuple(self.certificates))
        return self._trust

    def grants(self, bureau: str) -> tuple[Grant, ...]:
        return tuple(grant for grant in self.granted if grant.bureau == bureau)

    def mapping(self, feed: str) -> str:
        return "00" * 32

    def enrol(self, bureau: str, signing: SigningKey, connection: SigningKey) -> None:
        for use, key in (("signing", signing), ("connection", connection)):
            assert key.certificate_der is not None
            self.certificates.append(pki.enrolled(key.certificate_der, bureau, use))  # type: ignore[arg-type]
        self._trust = None

    def grant(self, bureau: str, action: str, target: str, classes: Sequence[str] = (), **limits: Any) -> Grant:
        self.granted.append(
            Grant(
                id=f"g{len(self.granted)}",
                bureau=bureau,
                action=action,  # type: ignore[arg-type]
                target=target,
                classes=tuple(classes),
                valid_from="2020-01-01",
                valid_until="2099-12-31",
                purpose="test",
                basis="test",
                proposed_by="a",
                approved_by="b",
                **limits,
            )
        )
        return self.granted[-1]


class TestBus:
    """A bus in a folder, and bureaus enrolled with it."""

    __test__ = False

    def __init__(
        self,
        folder: Path,
        city: City,
        limits: Limits | None = None,
        suites: SuiteSettings = SuiteSettings(),  # noqa: B008  # frozen
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.folder, self.city = folder, city
        self.registry = ListedRegistry()
        kind: Kind = "RS256" if suites.signing == "PS256" else suites.signing
        answer, log = self._certified("answer", kind).signing_by(suites.signing), generate(suites.checkpoints)
        assert answer.certificate_der is not None
        evidence = Evidence(EvidenceFolder(folder / "evidence"))
        journal = Journal(
            SqliteFile(folder, "journal"),
            ORIGIN,
            log,
            clock,
            partial(issue_receipts, key=answer),
            partial(issue_reports, key=answer),
            evidence.sync,
        )
        self.anchors = Anchors(
            ORIGIN,
            log_key_octets(log.public_key).hex(),
            [pki.pem_of(answer.certificate_der).decode()],
            suites.checkpoints,
            suites.xml_sm2_signature,
            suites.xml_sm3_digest,
        )
        self.log_key = log
        self.woken = 0
        fields: dict[str, Any] = {
            "origin": ORIGIN,
            "folder": folder,
            "limits": limits or Limits(),
            "feeds": {"covers": SimpleNamespace(id="covers", bureau="water", sealed=False, **NO_LIMITS)},
            "feed_digests": {"covers": "00" * 32},
            "registry": self.registry,
            "journal": journal,
            "evidence": evidence,
            "store": Store(Embedded(folder)),
            "boundaries": None,
            "schema": compile_schema(SCHEMA),
            "answer_key": answer,
            "answer_certificate_der": answer.certificate_der,
            "outcome_secret": b"0" * 32,
            "replays": OwnReplays(),
            "uploads": Uploads(folder / "uploads", timedelta(days=1)),
            "wake": self._wake,
            "clock": clock,
            "xml_suites": suites.xml,
            "anchors": self.anchors,
            "attestations": Attestations(SqliteFile(folder, "journal")),
            "stopped": Stopped(journal.ask),
            "waits": Waits(folder / "waits", clock, lambda: 1.0, 1.0, 1.0),
        }
        self.bus = Bus(**fields)

    def _wake(self) -> None:
        self.woken += 1

    def _certified(self, name: str, kind: Kind = "ES256") -> SigningKey:
        key = generate(kind)
        until = NOW + timedelta(days=30)
        return key.with_certificate(
            pki.issue(self.city.ca, name, key.public_key, "signing", NOW - timedelta(days=3), until)
        )

    def bureau(self, name: str, kind: Kind = "ES256", *, enrolled: bool = True) -> PartnerFolder:
        """A partner's folder with fresh keys; enrolled with the bus unless told otherwise."""
        signing, connection = self._certified(f"{name} signing", kind), self.city.certificate(name)
        if enrolled:
            self.registry.enrol(name, signing, connection)
        return PartnerFolder.make(
            self.folder / "partners" / name,
            signing=signing,
            connection=connection,
            ca_pem=self.city.ca_file.read_bytes(),
            anchors_json=msgspec.json.encode(self.anchors),
        )

    def entries(self, kind: str) -> list[tuple[str, dict[str, str | int]]]:
        """Outcome and detail of the audit's entries of a kind, newest first."""
        return [(entry.leaf.outcome, entry.detail or {}) for entry in self.bus.journal.search(type=kind)]
