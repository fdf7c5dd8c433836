"""What a new version of a sheet would change: `feed preview`, beside a bus that stands here. Nothing is kept."""

from datetime import datetime
from typing import Any

import msgspec
import polars as pl

from exchange import claims, sheet_difference
from exchange.cli.output import print_findings, print_table, problem_document
from exchange.cli.sheet_tables import print_sheet
from exchange.outcomes import findings_of
from exchange.previewing import Preview, as_if
from exchange.store.frames import SEEN, Compared, Seen
from exchange.store.store import Store
from mappings.feed import Feed
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


def sheet_preview(told: Preview, feed: Feed, store: Store | None, at: datetime) -> SheetPreview:
    """What a delivery would change on its sheets.

    told: what is foreseen of it; store: None where there is no bus to compare with; at: as if it came then
    """
    if feed.sheet is None:
        return SheetPreview()
    if told.refused is not None:
        return SheetPreview(refusal=told.refused)
    laid, seen = told.laid, Seen(pl.DataFrame(schema=SEEN), None)
    if store is not None:
        seen = laid.seen(feed, store) or seen
    compared: Compared = claims.compare(
        laid.placed,
        told.found,
        seen,
        [as_if(feed, at)],
        unread=laid.unread,
        content="snapshot",
        crs=feed.crs,
        gone_limit_percent=feed.gone_limit_percent,
    )
    changes = sheet_difference.told(sheet_difference.of_batch(compared, laid), laid, laid.findings)["sheet"]
    (findings,) = findings_of(laid.findings, 1, feed)
    return SheetPreview(changes, findings, compared.gone_percent if compared.held else None, None, store is not None)
