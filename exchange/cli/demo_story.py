"""What the demo tells: each check as it is made, then the closing tables, or all of it as one JSON document."""

import time
from typing import Any

import msgspec
from rich.text import Text

from connectors.partner.mqtt import MqttPartner
from connectors.partner.partner import Partner, Reported
from exchange.cli.output import STDERR, print_findings, print_table
from exchange.cli.partner import REPORT_WAIT_S
from exchange.store.frames import Ledger
from security.errors import ExchangeError, Refusal
from security.message import Content

ACCEPTED = ("new", "changed", "unchanged", "ended")


class Check(msgspec.Struct, frozen=True):
    """One promise, and whether it held."""

    name: str
    ok: bool
    detail: str


class Pairs(msgspec.Struct, frozen=True):
    """Joins between two registers against the known truth."""

    expected: int
    right: int
    wrong: int
    missing: int


class Kind(msgspec.Struct, frozen=True):
    """What the points of one appurtenance (附属物) became: a class of components, or none by a named rule."""

    feed: str
    appurtenance: str
    points: int
    becomes: str


class Told(msgspec.Struct, frozen=True):
    """One delivery: what went in and what became of it. form: as the receipt names it; receipt_s, report_s: seconds
    from sending."""

    bureau: str
    feed: str
    message_id: str
    form: str
    status: str
    records: int
    accepted: int
    rejected: int
    ignored: int
    gone: int
    tallies: dict[str, int]
    findings: list[dict[str, Any]]
    parts: list[dict[str, Any]]
    told_by: dict[str, int]
    receipt_s: float
    report_s: float


class Story:
    """Checks, deliveries, ledger and pairs, in the order in which they came."""

    def __init__(self) -> None:
        self.checks: list[Check] = []
        self.deliveries: list[Told] = []
        self.ledger: Ledger | None = None
        self.pairs: Pairs | None = None
        self.kinds: list[Kind] = []
        self.seconds = 0.0

    @property
    def ok(self) -> bool:
        """Whether every check held, and there was one."""
        return bool(self.checks) and all(check.ok for check in self.checks)

    def check(self, name: str, ok: bool, detail: object = "") -> None:
        """Say and keep whether a promise held."""
        self.checks.append(Check(name, bool(ok), str(detail)))
        mark = ("✓", "green") if ok else ("✗", "bold red")
        STDERR.print(Text.assemble(mark, f" {name}   ", (str(detail)[:160], "dim")))

    def refused(self, name: str, code: str, attempt: Any) -> None:
        """Check that an attempt is refused with this code."""
        try:
            attempt()
        except Refusal as refusal:
            self.check(name, refusal.code == code, f"{refusal.code}: {refusal.sentence.zh}")
        except ExchangeError as problem:
            self.check(name, False, problem)
        else:
            self.check(name, False, "it was let in")

    def deliver(
        self,
        partner: Partner,
        bureau: str,
        feed: str,
        content: Content,
        message_id: str,
        over: MqttPartner | None = None,
    ) -> Told:
        """Push, wait for the report, keep both, and check that the records balance.

        over: the bureau's side of the second door, to push by; the receipt must be the same at the first one
        """
        began, sender = time.monotonic(), over or partner
        receipt = sender.push(feed, content, "application/octet-stream", message_id)
        receipt_s = time.monotonic() - began
        again = partner.receipt(message_id)
        reported = sender.report(message_id, wait_s=REPORT_WAIT_S)
        form = str(receipt.document["form"])
        told = _told(bureau, feed, message_id, form, reported, receipt_s, time.monotonic() - began)
        self.deliveries.append(told)
        self.check(f"{bureau} → {feed}: signed receipt, the same bytes again", again.octets == receipt.octets,
                   f"entry {receipt.document['index']}")  # fmt: skip
        balance = f"in {told.records} = out {told.accepted} + rejected {told.rejected} + ignored {told.ignored}"
        balanced = told.status == "processed" and told.records == told.accepted + told.rejected + told.ignored > 0
        self.check(f"{bureau} → {feed}: every record accounted for", balanced, balance)
        return told

    def faults(self, told: Told) -> dict[str, int]:
        """How many records of a delivery were rejected, by code."""
        return {f["code"]: f["count"] for f in told.findings if f["severity"] == "error"}

    def add_pairs(self, more: Pairs) -> None:
        """Count further joins."""
        before = msgspec.structs.astuple(self.pairs or Pairs(0, 0, 0, 0))
        self.pairs = Pairs(*(a + b for a, b in zip(before, msgspec.structs.astuple(more), strict=True)))

    def document(self) -> dict[str, Any]:
        """All of it, for --json."""
        return {
            "ok": self.ok,
            "checks": self.checks,
            "deliveries": self.deliveries,
            "ledger": self._ledger(),
            "pairs": self.pairs or Pairs(0, 0, 0, 0),
            "appurtenances": self.kinds,
            "seconds": self.seconds,
        }

    def show(self) -> None:
        """The closing tables."""
        print_table(
            "报送 Deliveries",
            ["bureau", "feed", "in", "out", "rejected", "ignored", "gone", "receipt s", "report s"],
            [
                (d.bureau, d.feed, d.records, d.accepted, d.rejected, d.ignored, d.gone,
                 round(d.receipt_s, 3), round(d.report_s, 2))
                for d in self.deliveries
            ],
        )  # fmt: skip
        for told in self.deliveries:
            told_of = [finding for finding in told.findings if finding["severity"] != "ignored"]
            print_findings(f"质检意见 Findings: {told.feed}", told_of)
        if self.kinds:
            rows = [msgspec.structs.astuple(kind) for kind in self.kinds]
            print_table("附属物 What each appurtenance became", Kind.__struct_fields__, rows)
        total = self._ledger()
        components = ("components", "claims", "disputes", "orphans", "gaps", "ties")
        print_table("总账 Ledger", list(total["records"]), [list(total["records"].values())])
        print_table("管理部件 Components", components, [[total[name] for name in components]])
        if self.pairs:
            print_table(
                "归并 Pairs of two registers", self.pairs.__struct_fields__, [msgspec.structs.astuple(self.pairs)]
            )
        failed = [check.name for check in self.checks if not check.ok]
        verdict = f"{len(self.checks) - len(failed)} of {len(self.checks)} checks held"
        print_table(
            "", ["核验 Checks", "seconds"], [[verdict + "".join(f"\n✗ {name}" for name in failed), self.seconds]]
        )

    def _ledger(self) -> dict[str, Any]:
        names = {"in": "records", "out": "accepted", "rejected": "rejected", "ignored": "ignored"}
        records = {name: sum(getattr(told, of) for told in self.deliveries) for name, of in names.items()}
        balanced = records["in"] == records["out"] + records["rejected"] + records["ignored"]
        stored = msgspec.to_builtins(self.ledger) if self.ledger else {}
        return {"records": records, "balanced": balanced, **stored}


def _told(
    bureau: str, feed: str, message_id: str, form: str, reported: Reported, receipt_s: float, report_s: float
) -> Told:
    report = reported.received.document["report"] if reported.received else {}
    return Told(
        bureau=bureau,
        feed=feed,
        message_id=message_id,
        form=form,
        status=reported.status,
        records=report.get("records", 0),
        accepted=sum(report.get(name, 0) for name in ACCEPTED),
        rejected=report.get("rejected", 0),
        ignored=report.get("ignored", 0),
        gone=report.get("gone", 0),
        tallies=report.get("tallies", {}),
        findings=report.get("findings", []),
        parts=report.get("parts", []),
        told_by=report.get("told_by", {}),
        receipt_s=receipt_s,
        report_s=report_s,
    )
