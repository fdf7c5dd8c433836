"""日清账 The account of a day: what each bureau delivered that day, and where every delivery and every record is now.

    deliveries   received = processed + refused + held + waiting + recalled
    records      received = new + changed + unchanged + ended + rejected + ignored + recalled + pending

The two sides are of two hands. What was received is what the log accepted, and what signed reports said of records;
where it is now is what the inbox and the register hold. Where they differ, the delivery is named: nothing is evened
out.

A delivery is of the day on which the log accepted it, 00:00-24:00 +08:00. Records of a delivery that is not processed
are not counted by anybody yet; pending are those that the register has taken and that no report has told of.
"""

import hashlib
from datetime import date, timedelta
from typing import Any, Final, Literal

import msgspec
import polars as pl
from polars.exceptions import PolarsError

from exchange.entry import Detail, LoggedEntry, day_of
from exchange.journal import Journal
from exchange.store.store import Store
from exchange.store.tallying import COUNTED
from mappings.schema import Schema
from security.errors import AuditBroken
from security.jws import jcs

BECAME: Final = ("processed", "refused", "held", "waiting", "recalled")
PLACED: Final = (*COUNTED, "recalled", "pending")  # where a record can be
Code = Literal[
    "account.not_in_inbox",
    "account.not_in_log",
    "account.status_differs",
    "account.not_in_register",
    "account.register_ahead",
    "account.counts_differ",
    "account.rows_differ",
    "account.not_ended",
]
MEANS: Final[dict[Code, tuple[str, str]]] = {
    "account.not_in_inbox": ("日志已受理，收件箱中没有", "the log accepted it, the inbox has it not"),
    "account.not_in_log": ("收件箱或部件库中有，日志从未受理", "inbox or register has it, the log never accepted it"),
    "account.status_differs": ("收件箱状态与日志不一致", "the inbox says another status than the log"),
    "account.not_in_register": ("已办结，部件库中没有", "it was processed, the register has nothing of it"),
    "account.register_ahead": ("未入库的报送件在部件库中有数据", "it was not let in, and the register has rows of it"),
    "account.counts_differ": ("部件库的条数与处理结果回执不一致", "the register counts other records than the report"),
    "account.rows_differ": ("部件库实有行数与其条数不一致", "the register holds another number of rows than it says"),
    "account.not_ended": ("已撤回，部件库中仍然有效", "it was recalled, in the register it still stands"),
}

_ACCEPTED: Final[Schema] = {"entry": pl.Int64, "sender": pl.String, "feed": pl.String}
_INBOX: Final[Schema] = {
    **_ACCEPTED, "message_id": pl.String, "status": pl.String, "decision": pl.String, "said": pl.String,
    "detail": pl.Binary,
}  # fmt: skip
_SAID: Final = pl.Struct(dict.fromkeys(COUNTED, pl.Int64))


class Difference(msgspec.Struct, frozen=True):
    """A delivery of which log, inbox and register say different things. message_id: empty where none of them has it."""

    code: Code
    entry: int
    message_id: str


class Row(msgspec.Struct, frozen=True):
    """A bureau's account of a day with one feed.

    deliveries, records: `received`, and how many are where (`BECAME`, `PLACED`)
    """

    day: str
    bureau: str
    feed: str
    deliveries: dict[str, int]
    records: dict[str, int]
    differences: tuple[Difference, ...] = ()

    @property
    def balanced(self) -> bool:
        """Whether all that was received is somewhere, and nothing is anywhere that was not received."""
        sums = ((self.deliveries, BECAME), (self.records, PLACED))
        return not self.differences and all(of["received"] == sum(of[name] for name in names) for of, names in sums)


def account(journal: Journal, store: Store, day: str, bureau: str | None = None) -> tuple[Row, ...]:
    """The account of a day of the city, YYYY-MM-DD, as things are now; of one bureau, or of all. Raises ValueError.

    What is on its way between journal and register while both are read would look like a difference: one counts
    if it is there at a second look, too.
    """
    rows = _account(journal, store, day, bureau)
    if all(row.balanced for row in rows):
        return rows
    known = {one for row in rows for one in row.differences}
    return tuple(
        msgspec.structs.replace(row, differences=tuple(one for one in row.differences if one in known))
        for row in _account(journal, store, day, bureau)
    )


def unbalanced(journal: Journal, store: Store) -> list[Row]:
    """Rows that do not balance, of all days that the log has: what a test of faults asks at its end."""
    ends = [journal.entry(index) for index in (0, journal.size() - 1)]
    first, last = (date.fromisoformat(day_of(entry.leaf.time)) for entry in ends if entry is not None)
    days = [(first + timedelta(days=n)).isoformat() for n in range((last - first).days + 1)]
    return [row for day in days for row in account(journal, store, day) if not row.balanced]


def closing(journal: Journal, day: str, size: int) -> Detail:
    """What the log says of a day's account as of its first `size` entries: totals, and the digest of the whole table.

    digest: SHA-256, hex, of JCS of {day, rows}: an array of [bureau, feed, deliveries received, of them as in `BECAME`,
    records received, of them as in `COUNTED`], by bureau and feed. Made again of the same log it is the same, as long
    as the details of the reports' entries are not erased.
    """
    return _closing(_log_side(journal, journal.of_day(day), size), day, size)


def _closing(log: pl.DataFrame, day: str, size: int) -> Detail:
    table = _by_log(log)
    totals = table.select(pl.col(pl.Int64).sum()).row(0, named=True)
    digest = hashlib.sha256(jcs({"day": day, "rows": [list(row) for row in table.rows()]})).hexdigest()
    return {"day": day, "size": size, "rows": table.height, "digest": digest, **totals}


def closing_holds(journal: Journal, entry: LoggedEntry) -> bool:
    """Whether a closed day's account, made again of the log as it was, is what its entry says. Where details were
    erased since, records are not counted again, only deliveries; where the entry's own was, nothing."""
    said = entry.detail
    if said is None:
        return True
    day, size = str(said["day"]), int(said["size"])
    log = _log_side(journal, journal.of_day(day), size)
    again = _closing(log, day, size)
    erased = log.filter(pl.col("told") & pl.col("log_new").is_null()).height > 0
    names = ("rows", "deliveries", *BECAME) if erased else tuple(again)
    return all(said.get(name) == again[name] for name in names)


def row_document(row: Row) -> dict[str, Any]:
    """A row as JSON says it."""
    differences = [
        {"code": one.code, "entry": one.entry, "message_id": one.message_id, "zh": MEANS[one.code][0],
         "en": MEANS[one.code][1]}
        for one in row.differences
    ]  # fmt: skip
    names = {"bureau": row.bureau, "feed": row.feed, "balanced": row.balanced}
    return {**names, "deliveries": row.deliveries, "records": row.records, "differences": differences}


def _account(journal: Journal, store: Store, day: str, bureau: str | None) -> tuple[Row, ...]:
    entries = journal.of_day(day)
    # The journal first: what it calls processed the register had before.
    log = _log_side(journal, entries, journal.size())
    register = store.tallies(entries.start, entries.stop)
    judged = _judged(log, register)
    if bureau is not None:
        judged = judged.filter(sender=bureau)
    return tuple(_row(day, *names, frame) for names, frame in _groups(judged))


def _groups(judged: pl.DataFrame) -> list[tuple[tuple[str, str], pl.DataFrame]]:
    groups = judged.sort("sender", "feed", "entry").group_by("sender", "feed", maintain_order=True)
    return [((str(names[0]), str(names[1])), frame) for names, frame in groups]


def _log_side(journal: Journal, entries: range, size: int) -> pl.DataFrame:
    """One row a delivery: entry, sender, feed, message_id, accepted (by the log), status, decision, said (what the log
    says became of it), and as `log_…` what its report's entry counted, null where that is not said or erased."""
    accepted, became = journal.delivered(entries, size)
    inbox = pl.DataFrame(became, schema=_INBOX, orient="row")
    try:
        counts = inbox["detail"].cast(pl.String).str.json_decode(_SAID).struct.unnest()
    except PolarsError as problem:
        these = f"entries {entries.start} to {entries.stop - 1}"
        raise AuditBroken(f"of deliveries accepted by {these}, the entry of a report cannot be read") from problem
    inbox = pl.concat([inbox, counts.select(pl.all().name.prefix("log_"))], how="horizontal")
    counted = pl.when(pl.col("said") == "processed").then(pl.col("^log_.*$"))
    last = inbox.with_columns(counted).group_by("entry", "sender", "feed", "message_id", maintain_order=True)
    one = last.agg(
        pl.col("status", "decision", "said").last(), pl.col("^log_.*$").drop_nulls().last(),
        told=(pl.col("said") == "processed").any(),
    )  # fmt: skip
    by_log = pl.DataFrame(accepted, schema=_ACCEPTED, orient="row").with_columns(accepted=pl.lit(True))
    both = by_log.join(one, on=["entry", "sender", "feed"], how="full", coalesce=True)
    return both.with_columns(
        pl.col("accepted").fill_null(False),
        pl.col("told").fill_null(False),
        pl.col("said").fill_null("waiting"),
    ).sort("entry")


def _by_log(log: pl.DataFrame) -> pl.DataFrame:
    """The table that a closed day is entered with: of the log alone, so that it is the same whenever it is made."""
    taken = log.filter("accepted").with_columns(pl.col("^log_.*$").fill_null(0).cast(pl.Int64))
    became = [(pl.col("said") == name).sum().cast(pl.Int64).alias(name) for name in BECAME]
    counted = [pl.col(f"log_{name}").sum().alias(name) for name in COUNTED]
    table = taken.group_by("sender", "feed").agg(pl.len().cast(pl.Int64).alias("deliveries"), *became, *counted)
    names = ["sender", "feed", "deliveries", *BECAME, "records", *COUNTED]
    return table.with_columns(records=pl.sum_horizontal(COUNTED)).select(names).sort("sender", "feed")


def _judged(log: pl.DataFrame, register: pl.DataFrame) -> pl.DataFrame:
    """Log and register side by side, with what is different as the list `codes`."""
    held = register.select(
        "entry", "sender", "feed", "message_id", "standing", "rows", pl.col(COUNTED).name.prefix("in_")
    ).with_columns(stored=pl.lit(True))
    key = ["entry", "sender", "feed", "message_id"]
    both = log.join(held, on=key, how="full", coalesce=True, nulls_equal=True).with_columns(
        pl.col("accepted", "told", "stored").fill_null(False), pl.col("said").fill_null("nothing")
    )
    codes = pl.concat_list(pl.when(found).then(pl.lit(code)) for code, found in _differences().items())
    return both.with_columns(codes=codes.list.drop_nulls())


def _differences() -> dict[Code, pl.Expr]:
    """One expression a difference; none is null."""
    said, stored = pl.col("said"), pl.col("stored")
    rows = pl.col("rows") != pl.col("in_new") + pl.col("in_changed")
    erased = pl.col("log_new").is_null()  # or never told: then there is nothing to compare
    counts = pl.any_horizontal(pl.col(f"in_{name}") != pl.col(f"log_{name}") for name in COUNTED)
    carried_out = (said == "recalled") & (pl.col("decision") == "")
    # A person has let it through, or had it taken again, and act two has yet to carry that out.
    again = _again()
    found: dict[Code, pl.Expr] = {
        "account.not_in_inbox": pl.col("accepted") & pl.col("status").is_null(),
        "account.not_in_log": ~pl.col("accepted"),
        "account.status_differs": pl.col("status").is_not_null() & (pl.col("status") != said) & ~again,
        "account.not_in_register": pl.col("told") & ~stored,
        "account.register_ahead": stored & said.is_in(["refused", "held"]) & ~again,
        "account.counts_differ": stored & pl.col("told") & ~erased & counts,
        "account.rows_differ": stored & pl.col("standing") & rows,
        "account.not_ended": stored & carried_out & pl.col("standing"),
    }
    return {code: expression.fill_null(False) for code, expression in found.items()}


def _again() -> pl.Expr:
    return pl.col("said").is_in(["held", "refused"]) & (pl.col("status") == "waiting")


def _row(day: str, bureau: str, feed: str, frame: pl.DataFrame) -> Row:
    """One group's sums. Received is what the log says, where it is what inbox and register say."""
    became = {name: int((frame["status"] == name).sum()) for name in BECAME}
    told, here = (pl.sum_horizontal(f"{side}{name}" for name in COUNTED) for side in ("log_", "in_"))
    # Where the report's numbers were erased, or the register was faster than the report, its word alone is there.
    received = pl.when(pl.col("told") & pl.col("log_new").is_not_null()).then(told).otherwise(here)
    waiting = (pl.col("said") == "waiting") | _again().fill_null(False)
    standing = ~waiting & (pl.col("said") != "recalled")
    placed = {name: pl.when(standing).then(f"in_{name}") for name in COUNTED}
    placed |= {"recalled": pl.when(pl.col("said") == "recalled").then(here), "pending": pl.when(waiting).then(here)}
    expected = pl.when(pl.col("accepted")).then(received)
    sums = frame.select(expected.sum().alias("received"), *(found.sum().alias(name) for name, found in placed.items()))
    differences = [
        Difference(code, entry, message_id or "")
        for entry, message_id, codes in frame.select("entry", "message_id", "codes").iter_rows()
        for code in codes
    ]
    return Row(
        day,
        bureau,
        feed,
        {"received": int(frame["accepted"].sum()), **became},
        {name: int(count or 0) for name, count in sums.row(0, named=True).items()},
        tuple(differences),
    )
