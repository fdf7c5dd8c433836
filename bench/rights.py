"""What ten thousand grants cost a signed delivery: the same load on a bus that holds them, and on one that holds a few.

The grants are decisions like any other, each signed by two persons and entered in the log; only that they are handed in
without waiting for one another. They are other bureaus' and, a thousand of them, the sender's own.
"""

import time
from contextlib import closing
from pathlib import Path
from typing import Final

from bench import deliveries
from bench.figures import Figure, alternating, figure
from bench.load import Plan, drive
from bench.servers import fresh
from bench.standing import BUREAUS, Standing, standing
from exchange.app import opening, places
from exchange.cli.trial import APPROVER, PROPOSER
from exchange.decision_documents import GrantBody, approval_of, document_of, proposal_of
from exchange.journal import Entry
from exchange.registry import index_decision
from exchange.settings import Settings

GRANTS: Final = 10_000
RUN_S: Final = 10.0
WARM_S: Final = 8.0
CLIENTS: Final = 16
MOST_PER_S: Final = 900
DRAIN_S: Final = 120.0


def measure(folder: Path) -> Figure:
    """signed_soap_at_10000_grants_per_s: medians of three closed runs each, in turn."""
    fresh(folder)
    sent = 0

    def per_s(bus: Standing, seconds: float = RUN_S) -> float:
        nonlocal sent
        requests = deliveries.requests(sent, int(seconds * MOST_PER_S), bus.sender)
        sent += len(requests)
        measured = drive(Plan("localhost", bus.port, requests, CLIENTS, seconds, *bus.tls))
        bus.drain(DRAIN_S)
        return measured.per_s

    with standing(folder / "many", then=add_grants) as many, standing(folder / "few") as few:
        for bus in (many, few):  # both processes of each have read what stands; how long that takes, the note says
            per_s(bus, WARM_S)
        ours, peer = alternating(lambda _: per_s(many), lambda _: per_s(few))
        start_s = _start_s(many.trial.settings)
    note = (
        f"{GRANTS:,} grants beside {len(BUREAUS)} bureaus' own; reading and proving all of them anew, as a start does, "
        f"takes {start_s:.1f} s; peer: the same deliveries on a bus with a few grants"
    )
    return figure("signed_soap_at_10000_grants_per_s", ours, peer, "deliveries/s", note)


def add_grants(settings: Settings) -> None:
    """GRANTS grants of views and feeds, in force."""
    bureaus = list(BUREAUS)
    with closing(opening.open_journal(settings)) as journal:
        promised = []
        for number in range(GRANTS):
            body = GrantBody(
                bureau=bureaus[0] if number < GRANTS // 10 else bureaus[-1],
                action="pull",
                target=f"view-{number}",
                classes=["CJ/T 214-2007:0101"],
                valid_from="2026-01-01",
                valid_until="2099-12-31",
                purpose="bench",
                basis="bench",
            )
            now = places.utc_now()
            document = document_of(journal.origin, "grant", f"g-bench-{number}", body, now)
            detail: dict[str, str | int] = {
                "proposal": proposal_of(document, PROPOSER, now),
                "approval": approval_of(document, APPROVER, now),
            }
            entry = Entry(type="decision", outcome="approved", grant=document.id, detail=detail)
            promised.append(journal.note(entry, index_decision(document.id, "approved")))
        for future in promised:
            future.result()


def _start_s(settings: Settings) -> float:
    """Seconds until a registry that was just opened knows every grant."""
    with (
        closing(opening.open_journal(settings)) as journal,
        closing(opening.open_registry(settings, journal)) as registry,
    ):
        began_s = time.monotonic()
        if len(registry.granted()) < GRANTS:
            raise RuntimeError("grants are missing")
        return time.monotonic() - began_s
