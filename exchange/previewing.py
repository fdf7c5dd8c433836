"""What a file would become if its bureau sent it now: the ledger by layer, what nothing maps, some that are mapped."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
import polars as pl

from connectors.formats.records import RECORD, SHEET
from exchange import ledger, sheets, validation
from exchange.boundaries import InForce
from exchange.frame_doubt import diagnosed
from exchange.frames.answers import Diagnosis
from exchange.outcomes import findings_of, told_by_of
from exchange.placing import place
from exchange.sheets import Laid
from exchange.store.frames import BatchDelivery
from exchange.store.store import Store
from mappings.apply import Mapped, map_records
from mappings.feed import Feed
from mappings.findings import set_aside
from mappings.schema import KEY
from mappings.sheets import drawn
from mappings.systems import name_of
from security.errors import Refusal

KEPT: Final = "kept"
SHOWN: Final = (
    *("record", "source_key", "class_code", "class_basis", "label", "longitude_deg", "latitude_deg"),
    *("division_of_position", "grid_of_position", "outline_deg", "owner_name", "appurtenance"),
)
SHOWN_OF_READINGS: Final = ("record", "source_key", "quantity", "value", "state", "unit", "observed_at")
UNTOLD: Final = ("value.lookup_unknown", "class.missing")  # of a class: nothing maps what the record says of it


class Line(msgspec.Struct, frozen=True):
    """One line of the ledger: records = kept + the sum of rejected + the sum of ignored.

    part: sheet or layer, "" in a file without any; rejected: by finding, the first of each record; ignored: by rule
    """

    part: str
    records: int
    kept: int
    rejected: dict[str, int]
    ignored: dict[str, int]


class Unmapped(msgspec.Struct, frozen=True):
    """What no lookup of the class has. said: by column (`entity`, `block`, `code`), what such records say."""

    part: str
    said: dict[str, str]
    records: int


class Preview(msgspec.Struct, frozen=True):
    """What would become of a file, by a bus that takes all that the feed declares.

    total:    the ledger's sum; layers: its lines, the largest first
    unmapped: the layer with most of them first
    told_by:  how many of the kept each lookup of the class told, where the feed has several
    crs, crs_name: the feed's reference system; "" for readings
    mapped:   the first of the kept, in the order of the file: SHOWN, or SHOWN_OF_READINGS
    findings: as a report tells them
    frame:    the frame that its positions are really in; None for readings
    laid:     all candidates on their sheets, where they come by sheets; of readings none
    found:    FINDINGS of all steps
    refused:  why it would not be taken by sheets; the ledger is then without them
    """

    total: Line
    layers: list[Line]
    unmapped: list[Unmapped]
    told_by: dict[str, int]
    crs: str
    crs_name: str
    mapped: pl.DataFrame
    findings: list[dict[str, Any]]
    frame: Diagnosis | None
    laid: Laid
    found: pl.DataFrame
    refused: Refusal | None = None


class _Placed(msgspec.Struct, frozen=True):
    """What became of records until they are compared with what stands, as act two has it."""

    frame: Diagnosis | None
    laid: Laid
    found: pl.DataFrame
    refused: Refusal | None = None


def preview(
    records: pl.DataFrame, feed: Feed, now: InForce, store: Store | None, *, limit_m: float, shown: int, at: datetime
) -> Preview:
    """The records of one delivery, mapped, placed, checked and accounted for.

    records: as `mappings.apply.take` gives them; now: by which boundaries; store: None where there is no bus to compare
    with; limit_m: a transformation less accurate than this is refused; shown: how many in `mapped`; at: aware, as if it
    came then
    Raises Refusal of any of these steps but that of sheets, `delivery.unbalanced` among them, as act two would.
    """
    mapped = map_records(records, feed)
    if feed.content == "readings":
        found = _Placed(None, Laid(mapped.candidates, mapped.unread, mapped.findings.clear()), mapped.findings)
    else:
        found = _placed(records, mapped, feed, now, store, limit_m, at)
    placed, findings = found.laid.placed, found.found
    outcomes = _outcomes(placed, found.laid.unread, findings)
    ledger.must_balance(ledger.came_in(records), mapped.parts, outcomes)
    lines = _lines(outcomes, mapped.parts)
    kept = placed.join(outcomes.filter(outcome=KEPT), on=list(KEY), how="semi", maintain_order="left")
    return Preview(
        total=_summed(lines),
        layers=lines,
        unmapped=_unmapped(records, findings, feed),
        told_by=told_by_of(placed, outcomes, 1)[0],
        crs=feed.crs,
        crs_name=name_of(feed.crs),
        mapped=kept.select(SHOWN_OF_READINGS if feed.content == "readings" else SHOWN).head(shown),
        findings=findings_of(findings, 1, feed)[0],
        frame=found.frame,
        laid=found.laid,
        found=findings,
        refused=found.refused,
    )


def _placed(
    records: pl.DataFrame,
    mapped: Mapped,
    feed: Feed,
    now: InForce,
    store: Store | None,
    limit_m: float,
    at: datetime,
) -> _Placed:
    placing = place(mapped.candidates, crs=feed.crs, accuracy_m=feed.accuracy_m, city=now.city, limit_m=limit_m)
    frame = diagnosed(placing.placed, feed, now.city, store)
    refused = None
    try:
        laid = sheets.lay(drawn(records, feed), placing.placed, mapped.unread, feed, now.city, store)
    except Refusal as refusal:
        laid, refused = Laid(placing.placed, mapped.unread, placing.findings.clear()), refusal
    found = pl.concat([mapped.findings, placing.findings, laid.findings])
    checked = validation.check(
        laid.placed, found, deliveries=[as_if(feed, at)], classes=feed.class_codes, lists=now.lists
    )
    return _Placed(frame, laid, pl.concat([found, checked]), refused)


def as_if(feed: Feed, at: datetime) -> BatchDelivery:
    """The delivery that the file would be."""
    return BatchDelivery(feed.bureau, "preview", at, at, 0, "signed")


def _outcomes(placed: pl.DataFrame, unread: pl.DataFrame, findings: pl.DataFrame) -> pl.DataFrame:
    """KEY, outcome (`kept`, `rejected`, `ignored`) and code of every record."""
    said = pl.concat([frame.select(*KEY, "source_key") for frame in (placed, unread)])
    aside = set_aside(said, findings).select(*KEY, "outcome", "code")
    kept = placed.join(aside, on=list(KEY), how="anti").select(*KEY, outcome=pl.lit(KEPT), code=pl.lit(None, pl.String))
    return pl.concat([kept, aside])


def _lines(outcomes: pl.DataFrame, parts: pl.DataFrame) -> list[Line]:
    """The ledger's lines, the largest first."""
    counted = (
        outcomes.join(parts, on=list(KEY), how="left")
        .group_by(pl.col("part").fill_null(""), "outcome", "code")
        .len()
        .sort("len", "code", descending=[True, False])
    )
    by_part: dict[str, dict[str, dict[str, int]]] = {}
    for part, outcome, code, many in counted.iter_rows():
        by_part.setdefault(part, {}).setdefault(outcome, {})[(code or KEPT).removeprefix("ignored.")] = many
    lines = [
        Line(
            part,
            sum(sum(codes.values()) for codes in became.values()),
            sum(became.get(KEPT, {}).values()),
            became.get("rejected", {}),
            became.get("ignored", {}),
        )
        for part, became in by_part.items()
    ]
    return sorted(lines, key=lambda line: (-line.records, line.part))


def _summed(lines: Sequence[Line]) -> Line:
    rejected: dict[str, int] = {}
    ignored: dict[str, int] = {}
    for line in lines:
        for sums, counts in ((rejected, line.rejected), (ignored, line.ignored)):
            for code, many in counts.items():
                sums[code] = sums.get(code, 0) + many
    return Line("", sum(line.records for line in lines), sum(line.kept for line in lines), rejected, ignored)


def _unmapped(records: pl.DataFrame, findings: pl.DataFrame, feed: Feed) -> list[Unmapped]:
    """Layer by layer what their records say of a class, in the columns that the feed reads it from."""
    rule = feed.fields.get("class_code")
    if rule is None:
        return []
    untold = findings.filter(pl.col("code").is_in(UNTOLD), field="class_code").select("delivery", "record").unique()
    said = [name for name in ("entity", *rule.columns) if name in records.columns and name != "layer"]  # it is the part
    of_them = records.rename({RECORD: "record"}).join(untold, on=["delivery", "record"], how="semi")
    counted = of_them.group_by(
        pl.col(SHEET).fill_null("").alias("#part"), *(pl.col(name).fill_null("") for name in said)
    ).agg(pl.len().alias("#many"))
    ordered = counted.with_columns(pl.col("#many").sum().over("#part").alias("#all")).sort(
        "#all", "#part", "#many", *said, descending=[True, False, True, *(False for _ in said)]
    )
    return [
        Unmapped(row["#part"], {name: row[name] for name in said}, row["#many"])
        for row in ordered.iter_rows(named=True)
    ]
