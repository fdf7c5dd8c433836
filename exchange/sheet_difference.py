"""图幅变化 What a new version of a sheet changes: added, moved and how far, changed, gone, as it was."""

from collections.abc import Sequence
from typing import Any, Final

import polars as pl

from exchange.placing import City
from exchange.sheets import Laid, around, in_plane
from exchange.store.frames import Compared, Stored
from exchange.store.store import Store
from mappings.feed import Feed
from mappings.schema import KEY, Schema, conform
from mappings.sheets import sheet_of

KINDS: Final = ("added", "moved", "changed", "gone", "unchanged")
# In the feed's plane, metres: where a thing is now and where it was, null where it is not or was not. kind: of KINDS.
DIFFERENCE: Final[Schema] = {
    "kind": pl.String,
    "source_key": pl.String,
    "class_code": pl.String,
    "x": pl.Float64,
    "y": pl.Float64,
    "x_before": pl.Float64,
    "y_before": pl.Float64,
    "moved_m": pl.Float64,
}
MOVED_M: Final = 0.01  # positions are told in centimetres: nearer than this is where it was
LISTED: Final = 10  # of each kind, in a report
_PLACED: Final[Schema] = {name: DIFFERENCE[name] for name in ("source_key", "class_code", "x", "y")}


def of_batch(compared: Compared, laid: Laid) -> pl.DataFrame:
    """DIFFERENCE that a delivery would make, or makes."""
    before = laid.known.filter("live")
    again = compared.outcomes.filter(outcome="unchanged")
    ended = before.join(compared.ended, on="source_key", how="semi")
    return _difference(compared.versions, before, ended, before.join(again, on="source_key", how="semi"))


def of_stored(
    sender: str, message_id: str, numbers: Sequence[str], feed: Feed, city: City, store: Store
) -> pl.DataFrame:
    """DIFFERENCE that a stored delivery of these sheets made, as far as what it said is still there."""
    assert feed.sheet is not None
    keyed_by = [sheet.number for sheet in around([sheet_of(number) for number in numbers], feed.sheet)]
    outcomes = store.outcomes(sender, message_id)
    assert outcomes is not None  # the caller found it stored
    again = outcomes.filter(outcome="unchanged")["source_key"]
    was = store.was_on_sheets(feed.id, keyed_by, sender, message_id, again)
    was = in_plane(was.filter(pl.col("longitude_deg") != 0), feed.crs, city)  # not what was erased since
    parts = {which: was.filter(which=which) for which in ("said", "before", "unchanged")}
    ended = parts["before"].join(parts["said"], on="source_key", how="anti")
    return _difference(parts["said"], parts["before"], ended, parts["unchanged"])


def _difference(said: pl.DataFrame, before: pl.DataFrame, ended: pl.DataFrame, again: pl.DataFrame) -> pl.DataFrame:
    """said, before, ended, again: source_key, class_code, x, y."""
    was = before.select("source_key", x_before="x", y_before="y")
    news = conform(said, _PLACED).join(was, on="source_key", how="left", maintain_order="left")
    moved_m = _distance_m()
    news = news.with_columns(moved_m=moved_m).with_columns(
        kind=pl.when(pl.col("x_before").is_null())
        .then(pl.lit("added"))
        .when(pl.col("moved_m") >= MOVED_M)
        .then(pl.lit("moved"))
        .otherwise(pl.lit("changed"))
    )
    gone = ended.select("source_key", "class_code", kind=pl.lit("gone"), x_before="x", y_before="y")
    same = conform(again, _PLACED).with_columns(kind=pl.lit("unchanged"), x_before="x", y_before="y")
    whole = pl.concat([conform(part, DIFFERENCE) for part in (news, gone, same)])
    ordered = pl.col("kind").replace_strict(KINDS, range(len(KINDS)), return_dtype=pl.Int64)
    return whole.sort(ordered, -pl.col("moved_m").fill_null(0.0), "source_key")


def _distance_m() -> pl.Expr:
    return ((pl.col("x") - pl.col("x_before")) ** 2 + (pl.col("y") - pl.col("y_before")) ** 2).sqrt()


def findings_as_stored(findings: pl.DataFrame, stored: Stored) -> pl.DataFrame:
    """FINDINGS as they were when the delivery was stored, before a crash: then, what it added beyond its sheets was not
    yet a thing that stands there."""
    if not stored.repeated:
        return findings
    ignored = stored.outcomes.filter(outcome="ignored").select(*KEY)
    on_seam = findings.filter(code="sheet.on_seam").join(ignored, on=list(KEY), how="semi")
    return pl.concat([findings.filter(pl.col("code") != "sheet.on_seam"), on_seam])


def reported(
    compared: Compared, laid: Laid, stored: Stored, findings: pl.DataFrame, feed: Feed, city: City, store: Store
) -> dict[str, Any]:
    """What the report of a delivery says of its sheets, nothing where it does not come by sheets. findings: FINDINGS"""
    if not laid.sheets:
        return {}
    (one,) = stored.deliveries
    if stored.repeated:
        difference = of_stored(one.sender, one.message_id, laid.numbers, feed, city, store)
    else:
        difference = of_batch(compared, laid)
    return told(difference, laid, findings)


def told(difference: pl.DataFrame, laid: Laid, findings: pl.DataFrame) -> dict[str, Any]:
    """What a report says of a delivery's sheets: their numbers, how many things of each kind, the first few by name.

    basis: `stated` by the drawing itself, or `computed` from where it lies. No places are told, only how far a thing
    moved, in metres.
    """
    counts = dict(difference["kind"].value_counts().iter_rows())
    listed = {
        kind: [
            {"source_key": key, "class_code": code, **({"moved_m": f"{moved_m:.2f}"} if kind == "moved" else {})}
            for key, code, moved_m in difference.filter(kind=kind)
            .head(LISTED)
            .select("source_key", "class_code", "moved_m")
            .iter_rows()
        ]
        for kind in KINDS[:-1]
    }
    return {
        "sheet": {
            "numbers": list(laid.numbers),
            "basis": "stated" if laid.stated else "computed",
            **{kind: counts.get(kind, 0) for kind in KINDS},
            "on_seam": findings.filter(code="sheet.on_seam").height,
            "first": {kind: some for kind, some in listed.items() if some},
        }
    }
