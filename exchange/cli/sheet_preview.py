"""What a new version of a sheet would change: `feed preview`, beside a bus that stands here. Nothing is kept."""

from contextlib import closing
from typing import Any

import msgspec
import polars as pl

from exchange import claims, sheet_difference, sheets, validation
from exchange.app import opening, places
from exchange.boundaries import InForce
from exchange.cli.output import print_findings, print_table, problem_document
from exchange.cli.sheet_tables import print_sheet
from exchange.outcomes import findings_of
from exchange.placing import place
from exchange.settings import Settings
from exchange.store.frames import SEEN, BatchDelivery, Compared, Seen
from exchange.store.store import Store
from mappings.apply import Mapped
from mappings.feed import Feed
from mappings.sheets import drawn
from security.errors import Refusal


class SheetPreview(msgspec.Struct, frozen=True):
    """Of a feed that comes by sheets; of any other feed there is nothing to say.

    told: as the report would tell it; held: the share in per cent that would end, where a person would be asked first
    refusal: why it would be refused; beside: whether there is a bus here to compare with
    """

    told: dict[str, Any] | None = None
    findings: list[dict[str, Any]] = []
    held: float | None = None
    refusal: Refusal | None = None
    beside: bool = False

    @property
    def document(self) -> dict[str, Any]:
        """What it adds to the preview's JSON."""
        if self.refusal is not None:
            return {"sheet": {"refused": problem_document(self.refusal)}}
        held = {} if self.held is None else {"would_be_held": f"{self.held:.1f}"}
        return {} if self.told is None else {"sheet": {**self.told, "compared": self.beside, **held}}

    def print(self) -> None:
        """Tables: which sheet, how many of each kind, the first of each by name."""
        if self.refusal is not None:
            said = self.refusal.sentence
            words = [("", said.zh), ("", said.en), ("→", said.next_zh), ("→", said.next_en)]
            print_table("图幅 Sheet: 将被拒收 would be refused", [self.refusal.code, self.refusal.detail], words)
        if self.told is None:
            return
        against = "与现状比较 against what stands" if self.beside else "没有可比的总线 no bus here"
        print_sheet(self.told, against)
        if self.held is not None:
            line = f"{self.held:.1f} % of what stands there would end: a person would be asked first"
            print_table("注销超限，须由人员确认 Held", ["", ""], [("gone", line)])
        if self.findings:
            print_findings("图幅意见 Findings of sheets", self.findings)


def sheet_preview(records: pl.DataFrame, mapped: Mapped, feed: Feed, now: InForce, settings: Settings) -> SheetPreview:
    """What a delivery of these records would change on its sheets.

    records: as `mappings.apply.take` gives them; mapped: what became of them; now: by which boundaries they are placed
    """
    if feed.sheet is None:
        return SheetPreview()
    if not places.made(settings):
        return _previewed(records, mapped, feed, now, settings, None)
    with closing(opening.open_store(settings)) as store:
        return _previewed(records, mapped, feed, now, settings, store)


def _previewed(
    records: pl.DataFrame, mapped: Mapped, feed: Feed, now: InForce, settings: Settings, store: Store | None
) -> SheetPreview:
    """As act two has it, from placing to comparing."""
    city = now.city
    limit_m = settings.tolerances.transformation_m
    placing = place(mapped.candidates, crs=feed.crs, accuracy_m=feed.accuracy_m, city=city, limit_m=limit_m)
    try:
        laid = sheets.lay(drawn(records, feed), placing.placed, mapped.unread, feed, city, store)
    except Refusal as refusal:
        return SheetPreview(refusal=refusal)
    at = places.utc_now()
    deliveries = [BatchDelivery(feed.bureau, "preview", at, at, 0, "signed")]
    found = pl.concat([mapped.findings, placing.findings, laid.findings])
    checked = validation.check(laid.placed, found, deliveries=deliveries, classes=feed.class_codes, lists=now.lists)
    seen = laid.seen(feed, store) if store is not None else None
    compared: Compared = claims.compare(
        laid.placed,
        pl.concat([found, checked]),
        seen or Seen(pl.DataFrame(schema=SEEN), None),
        deliveries,
        unread=laid.unread,
        content="snapshot",
        crs=feed.crs,
        gone_limit_percent=feed.gone_limit_percent,
    )
    told = sheet_difference.told(sheet_difference.of_batch(compared, laid), laid, laid.findings)["sheet"]
    (findings,) = findings_of(laid.findings, 1, feed)
    return SheetPreview(told, findings, compared.gone_percent if compared.held else None, None, store is not None)
