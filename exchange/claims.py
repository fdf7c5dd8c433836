"""What is new in what a bureau says: its claims compared with those seen last."""

import hashlib
from collections.abc import Sequence
from typing import Final, Literal

import polars as pl

from exchange.store.frames import ENDED, VERSIONS, BatchDelivery, Compared, Seen, microseconds
from mappings.findings import Severity, set_aside
from mappings.schema import CANDIDATES, FINDINGS, KEY, OUTCOMES, conform

# What a claim says: all of the candidate but its place in the delivery. Order and spelling below are the digest's
# definition; a column added later goes to the end, with its name, and is written only where something is said.
LATER: Final = ("network", "label", "provenance", "class_basis", "outline")
SAID: Final = tuple(name for name in CANDIDATES if name not in (*KEY, "source_key", "removed", *LATER))
FIELD_ENDS: Final = "\x1f"  # no accepted text holds a control character
FINEST: Final = 1e9  # coordinates and heights in nano-units: exact in Int64, the same in every library


def compare(
    placed: pl.DataFrame,
    findings: pl.DataFrame,
    seen: Seen,
    deliveries: Sequence[BatchDelivery],
    *,
    unread: pl.DataFrame,
    content: Literal["snapshot", "changes"],
    crs: str,
    gone_limit_percent: float,
    whole: bool = True,
) -> Compared:
    """What a batch of one feed changes.

    placed:   PLACED of the whole batch, records that the rules reject included
    findings: FINDINGS of mapping, placing and checking together; a record with an error is rejected, one that a
              named rule left out is ignored, whether or not it is among `placed`
    unread:   delivery, record, source_key of what mapping rejected: a key that was said badly was said, and is not gone
    content:  `changes`: many deliveries, later rows of a key compare with earlier ones; `snapshot`: exactly one
    whole:    false where a snapshot says of itself that it is not all there (page 2 of 8): then it ends nothing, and
              says nothing of keys that it does not name

    A claim stands from its delivery's `valid_from`. What is older than what is known already is not news: ignored,
    `claim.older_than_known`. To remove what nobody claims is ignored too: `claim.removed_unknown`.
    """
    if content == "snapshot" and len(deliveries) != 1:
        raise ValueError("a snapshot is compared alone: each says all there is")
    whole = whole and content == "snapshot"
    said = pl.concat([frame.select(*KEY, "source_key") for frame in (placed, unread)])
    aside = set_aside(said, findings)
    accepted = placed.join(aside, on=list(KEY), how="anti")
    chain = _chain(accepted, seen, deliveries, crs, seen.as_of_us if whole else None)
    gone = _gone(said, seen, deliveries) if whole else pl.DataFrame(schema=ENDED)
    live = int(seen.claims["live"].sum())
    percent = 100 * gone.height / live if live else 0.0
    ended = chain.filter(outcome="ended").with_columns(valid_to_us="valid_from_us")
    news = chain.filter(pl.col("outcome").is_in(["new", "changed"]))
    rest = accepted.select(pl.exclude(news.columns).gather(news["row"]))
    outcomes = pl.concat([conform(chain, OUTCOMES), aside])
    return Compared(
        outcomes=outcomes.sort(list(KEY)),
        versions=conform(pl.concat([news, rest], how="horizontal"), VERSIONS),
        ended=pl.concat([conform(ended, ENDED), gone]),
        findings=_findings(chain),
        gone_percent=percent,
        held=percent > gone_limit_percent,
        whole=whole,
    )


def claim_digests(said: pl.DataFrame, crs: str) -> pl.Series:
    """SHA-256 of each row's canonical text (Binary): what the bureau said, not where our polygons put it.

    said: the columns SAID and LATER. The text is the feed's CRS, then each column of SAID, separated by U+001F; a null
    is empty, anything else `=` and the value: texts as they are, dates YYYY-MM-DD, numbers as whole nano-units (half to
    even); then, where said, U+001F, name, `=` and value of each of LATER.
    """
    if said.is_empty():
        return pl.Series("digest", dtype=pl.Binary)
    texts = said.select(text=pl.concat_str(_spelt(said, crs)))["text"]
    # The one loop over records here: polars has no SHA-256, and its own row hash may change with its version.
    octets = texts.cast(pl.Binary).to_list()
    return pl.Series("digest", [hashlib.sha256(text).digest() for text in octets], dtype=pl.Binary)


def _spelt(said: pl.DataFrame, crs: str) -> list[pl.Expr]:
    """The parts of the canonical text. What is the same in every row, as columns that say nothing are, is one part."""
    parts: list[pl.Expr] = []
    same = crs
    for name in SAID:
        unsaid, same = said[name].null_count(), same + FIELD_ENDS
        if unsaid == said.height and parts:
            continue
        if unsaid:
            parts += [pl.lit(same), (pl.lit("=") + _canonical(name)).fill_null("")]
        else:
            parts += [pl.lit(same + "="), _canonical(name)]
        same = ""
    later = [name for name in LATER if said[name].null_count() < said.height]
    return [
        *parts,
        pl.lit(same),
        *((pl.lit(f"{FIELD_ENDS}{name}=") + _canonical(name)).fill_null("") for name in later),
    ]


def _canonical(name: str) -> pl.Expr:
    column, kind = pl.col(name), CANDIDATES[name]
    if kind == pl.Float64:
        column = (column * FINEST).round(0).cast(pl.Int64)
    elif kind == pl.Date:
        column = column.dt.to_string("%Y-%m-%d")
    return column.cast(pl.String)


def _chain(
    accepted: pl.DataFrame, seen: Seen, deliveries: Sequence[BatchDelivery], crs: str, as_of_us: int | None
) -> pl.DataFrame:
    """The accepted records, each as its `row` and what decides, with outcome and code, and until when it stands.

    Rows of a key are put in order of validity. Once a record is taken, the key's state is that record alone, so what
    was known before a record is the row above it, or, for a key's first row, what the store has seen.
    """
    since = pl.Series([microseconds(one.valid_from) for one in deliveries], dtype=pl.Int64)
    said = accepted.select(
        *KEY,
        "source_key",
        claim_digests(accepted, crs),
        since.gather(accepted["delivery"]).alias("valid_from_us"),
        removed=pl.col("removed").fill_null(False),
    )
    known = said.with_row_index("row").join(seen.claims.rename({"digest": "digest_seen"}), on="source_key", how="left")
    newest_us = pl.max_horizontal("known_us", pl.lit(as_of_us, dtype=pl.Int64))
    older = (pl.col("valid_from_us") < newest_us).fill_null(False)
    ordered = known.with_columns(older=older).sort("older", "source_key", "valid_from_us", *KEY)
    again = pl.all_horizontal(pl.col(name) == pl.col(name).shift() for name in ("older", "source_key")).fill_null(False)
    judged = (
        ordered.with_columns(
            live_before=pl.when(again).then(~pl.col("removed").shift()).otherwise(pl.col("live").fill_null(False)),
            digest_before=pl.when(again).then(pl.col("digest").shift()).otherwise("digest_seen"),
        )
        .with_columns(outcome=_outcome())
        .with_columns(code=_code())
    )
    return judged.join(_until(judged), on=list(KEY), how="left").sort("delivery", "source_key", "record")


def _until(judged: pl.DataFrame) -> pl.DataFrame:
    """KEY, valid_to_us, closed_by: what the next event of the same key ends, for each that has a next one."""
    events = judged.filter(pl.col("outcome").is_in(["new", "changed", "ended"]))
    replaced = pl.col("source_key") == pl.col("source_key").shift(-1)
    return events.select(
        *KEY,
        replaced.alias("replaced"),
        valid_to_us=pl.col("valid_from_us").shift(-1),
        closed_by=pl.col("delivery").shift(-1),
    ).filter("replaced")


def _outcome() -> pl.Expr:
    return (
        pl.when(pl.col("older") | (pl.col("removed") & ~pl.col("live_before")))
        .then(pl.lit("ignored"))
        .when("removed")
        .then(pl.lit("ended"))
        .when(~pl.col("live_before"))
        .then(pl.lit("new"))
        .when(pl.col("digest") == pl.col("digest_before"))
        .then(pl.lit("unchanged"))
        .otherwise(pl.lit("changed"))
    )


def _code() -> pl.Expr:
    ignored = pl.when("older").then(pl.lit("claim.older_than_known")).otherwise(pl.lit("claim.removed_unknown"))
    return pl.when(pl.col("outcome") == "ignored").then(ignored)


def _gone(said: pl.DataFrame, seen: Seen, deliveries: Sequence[BatchDelivery]) -> pl.DataFrame:
    """ENDED: live claims that a snapshot, no older than the last, does not name, not even in a rejected record."""
    since_us = microseconds(deliveries[0].valid_from)
    if seen.as_of_us is not None and since_us < seen.as_of_us:
        return pl.DataFrame(schema=ENDED)
    missing = seen.claims.filter("live", pl.col("known_us") <= since_us).join(said, on="source_key", how="anti")
    return conform(missing.sort("source_key").with_columns(delivery=pl.lit(0), valid_to_us=pl.lit(since_us)), ENDED)


def _findings(chain: pl.DataFrame) -> pl.DataFrame:
    ignored = chain.filter(outcome="ignored")
    return conform(
        ignored.select(
            *KEY,
            "code",
            field=pl.lit("source_key"),
            severity=pl.lit(Severity.IGNORED.value),
            value=pl.col("source_key").str.head(80),
        ),
        FINDINGS,
    )
