"""来源 On which claims a record of a district's node rests, and where that is proved: in the district's own log.

A record that cascades up says one component as the district's node has it. Beside it stands which bureaus said so, in
which deliveries, under which entries of which log, and the digest of each one's receipt. Whoever asks at the city then
gets the chain: claimed by a bureau, through a district's node, entry n of that node's log; the receipt is the bureau's,
and the head over that entry lies with the city, which follows that log.
"""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec
import polars as pl

from mappings.findings import Severity
from mappings.schema import FINDINGS, KEY, conform

FIELD: Final = "provenance"
NOT_UNDER_HEAD: Final = "provenance.not_under_head"


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One claim. entry: of its delivery's acceptance, in the district's log; record: its number in that delivery.

    receipt: SHA-256 of the delivery's receipt as the bureau holds it, hex; empty where none is kept any longer
    """

    bureau: str
    feed: str
    message_id: str
    record: int
    entry: int
    receipt: str


class Provenance(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Of one component. origin: the district's node; change: its change number there.

    roles: those that are not simply stated, `disputed` or `defaulted`, by role
    """

    origin: str
    change: int
    claims: tuple[Source, ...]
    roles: Mapping[str, str] = {}


class Followed(msgspec.Struct, frozen=True):
    """A district's log as the city follows it. size: entries under the last head that was taken."""

    origin: str
    size: int


def text_of(provenance: Provenance) -> str:
    """As it stands in a record: canonical, so that what did not change reads the same."""
    return msgspec.json.encode(provenance, order="deterministic").decode()


def read(text: str) -> Provenance | None:
    """What a record says; None where it is none."""
    try:
        return msgspec.json.decode(text, type=Provenance)
    except msgspec.MsgspecError:
        return None


def check(placed: pl.DataFrame, followed: Callable[[], Followed]) -> pl.DataFrame:
    """FINDINGS (errors): records of a district whose provenance is none, is of another log, or names an entry that no
    head covers which we have taken. `provenance.not_under_head`."""
    log = followed()
    present = placed.filter(~pl.col("removed").fill_null(False))
    # JSON a record: a column function would fail the whole batch for one that is spoilt.
    holds = pl.Series([_holds(text, log) for text in present[FIELD].to_list()], dtype=pl.Boolean)
    wrong = present.filter(~holds)
    return conform(
        wrong.select(
            *KEY,
            code=pl.lit(NOT_UNDER_HEAD),
            field=pl.lit(FIELD),
            severity=pl.lit(Severity.ERROR.value),
            value=pl.col(FIELD).str.head(80),
        ),
        FINDINGS,
    )


def _holds(text: str | None, log: Followed) -> bool:
    said = read(text) if text is not None else None
    return said is not None and said.origin == log.origin and all(0 <= one.entry < log.size for one in said.claims)
