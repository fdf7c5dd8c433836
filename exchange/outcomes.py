"""What became of each record, as a report says it: the root that it signs, and its findings by kind."""

import hmac
import io
from collections.abc import Sequence
from typing import Any, Final

import polars as pl
from msgspec import structs

from exchange.receipts import outcome_root
from mappings.apply import Mapped
from mappings.axes import exchanged_lines
from mappings.feed import Feed
from mappings.findings import sentence_of
from mappings.schema import KEY
from security.errors import Sentence

NAMED_RECORDS: Final = 5  # record numbers named in a report for each finding
NAMED_VALUES: Final = 10
NAMED_PARTS: Final = 300  # sheets or layers


def secret_of(master: bytes, sender: str, message_id: str) -> bytes:
    """The k of one delivery, given to its bureau in the report. The same each time act two runs."""
    return hmac.digest(master, f"{sender}\x00{message_id}".encode(), "sha256")


def roots_of(outcomes: pl.DataFrame, secrets: Sequence[bytes]) -> tuple[str, ...]:
    """Hex of the root over each delivery's records, in their order, with each delivery's secret.

    outcomes: delivery, record, source_key, outcome
    """
    ordered = outcomes.sort("delivery", "record").select("delivery", pl.col("source_key").fill_null(""), "outcome")
    keys, words = ordered["source_key"].to_list(), ordered["outcome"].to_list()
    ends = ordered["delivery"].search_sorted(pl.int_range(len(secrets), eager=True), side="right").to_list()
    return tuple(
        outcome_root(keys[start:end], words[start:end], secret)[0].hex()
        for start, end, secret in zip([0, *ends], ends, secrets, strict=False)
    )


def as_arrow(outcomes: pl.DataFrame) -> bytes:
    """A delivery's own records as an Arrow file, in the order of its root: record, source_key, outcome, code.

    outcomes: OUTCOMES. It is a part of what the store keeps of a commit, which may hold other senders' records too.
    """
    file = io.BytesIO()
    ordered = outcomes.sort("delivery", "record")
    ordered.select("record", pl.col("source_key").fill_null(""), "outcome", "code").write_ipc(file, compression="zstd")
    return file.getvalue()


def told_of(
    mapped: Mapped, findings: pl.DataFrame, outcomes: pl.DataFrame, deliveries: int, feed: Feed
) -> list[dict[str, Any]]:
    """What each delivery's report tells of its records besides their counts.

    findings: by kind; tallies: what the feed counts; parts: where the source has sheets or layers, what became of the
    records of each, so that every layer's sums balance too; the largest first; told_by: where the feed has several
    lookups of the class, how many of the accepted each told
    """
    tallies: list[dict[str, int]] = [{} for _ in range(deliveries)]
    for delivery, name, count in mapped.tallies.iter_rows():
        tallies[delivery][name] = count
    parts = parts_of(mapped.parts, outcomes, deliveries)
    found = findings_of(findings, deliveries, feed)
    told_by = told_by_of(mapped.candidates, outcomes, deliveries)
    return [
        {
            "findings": found[n],
            "tallies": tallies[n],
            **({"parts": parts[n]} if parts[n] else {}),
            **({"told_by": told_by[n]} if told_by[n] else {}),
        }
        for n in range(deliveries)
    ]


def told_by_of(candidates: pl.DataFrame, outcomes: pl.DataFrame, deliveries: int) -> list[dict[str, int]]:
    """How many classes each lookup told, of the records of each delivery that were neither rejected nor ignored.

    candidates: with class_basis, else nothing is said; outcomes: KEY, outcome
    """
    told: list[dict[str, int]] = [{} for _ in range(deliveries)]
    if "class_basis" in candidates.columns:
        aside = outcomes.filter(pl.col("outcome").is_in(["rejected", "ignored"]))
        kept = candidates.select(*KEY, "class_basis").drop_nulls().join(aside, on=list(KEY), how="anti")
        counted = kept.group_by("delivery", "class_basis").len().sort("len", "class_basis", descending=[True, False])
        for delivery, basis, many in counted.iter_rows():
            told[delivery][basis] = many
    return told


def parts_of(parts: pl.DataFrame, outcomes: pl.DataFrame, deliveries: int) -> list[list[dict[str, Any]]]:
    """Each delivery's sheets or layers: part, records, and how many records had each outcome.

    parts: PARTS; outcomes: OUTCOMES
    """
    kinds = ["delivery", "part", "outcome"]
    joined = parts.join(outcomes.select(*KEY, "outcome"), on=list(KEY), how="left", maintain_order="left")
    counted: list[dict[str, dict[str, int]]] = [{} for _ in range(deliveries)]
    for delivery, part, outcome, count in joined.group_by(kinds).len().sort(kinds).iter_rows():
        counted[delivery].setdefault(part, {})[outcome] = count
    listed: list[list[dict[str, Any]]] = [
        [{"part": part, "records": sum(of.values()), **of} for part, of in one.items()] for one in counted
    ]
    return [sorted(one, key=lambda part: -part["records"])[:NAMED_PARTS] for one in listed]


def findings_of(findings: pl.DataFrame, deliveries: int, feed: Feed) -> list[list[dict[str, Any]]]:
    """Each delivery's findings by code and field: how many records, the first few by number, the commonest values.

    Each with its sentence and next step in both languages, so that whoever reads the report needs no list of codes.
    """
    kinds = ["delivery", "severity", "code", "field"]
    grouped = findings.sort("record").group_by(kinds, maintain_order=True)
    counted = grouped.agg(pl.len().alias("count"), pl.col("record").head(NAMED_RECORDS).alias("first_records"))
    values = (
        findings.group_by(*kinds, "value")
        .agg(pl.len().alias("times"))
        .sort("times", "value", descending=[True, False])
        .group_by(kinds, maintain_order=True)
        .agg(pl.struct(value=pl.col("value").fill_null(""), count="times").head(NAMED_VALUES).alias("values"))
    )
    joined = counted.join(values, on=kinds, nulls_equal=True, maintain_order="left")
    ordered = joined.sort("severity", "count", "code", descending=[False, True, False])
    found: list[list[dict[str, Any]]] = [[] for _ in range(deliveries)]
    for finding in ordered.with_columns(pl.col("field").fill_null("")).to_dicts():
        finding["sentence"] = structs.asdict(_sentence(finding["code"], feed))
        found[finding.pop("delivery")].append(finding)
    return found


def _sentence(code: str, feed: Feed) -> Sentence:
    """What a finding's code says; a record that a rule of the feed left out is told that rule's own title."""
    sentence = sentence_of(code)
    if code == "position.axes_swapped" and (lines := exchanged_lines(feed)):
        both = f"{lines[0]}; {lines[1]}"
        return structs.replace(
            sentence, next_zh=f"{sentence.next_zh}两行应为：{both}", next_en=f"{sentence.next_en} They read: {both}"
        )
    rule = next((rule for rule in feed.ignore if code == f"ignored.{rule.rule}"), None)
    return sentence if rule is None else structs.replace(sentence, zh=f"{rule.title_zh}。", en=f"{rule.title}.")
