"""Tags to entities: the ENTITIES section as two tables a block, what stands by itself and what is a part of another.

No format of its own: `dxf_tags` scans, this module groups, `dxf` makes records. An entity is a range
of tags; each column is one gathering of one group code over all of them. What is not whole at the end of a block waits
for the next: the last entity as its tags, an INSERT or POLYLINE whose parts go on as its rows.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from connectors.formats import dxf_tags
from connectors.formats.dxf_tags import EOF, Tags
from security.errors import Refusal

ENTITY_BYTES: Final = 1 << 24  # an entity, its parts aside, takes no more of the drawing
VERTICES: Final = 250_000  # and an INSERT or POLYLINE has no more parts
TEXT_CHARACTERS: Final = 262_144
PARTS: Final = {"ATTRIB": "INSERT", "VERTEX": "POLYLINE"}
SEQEND: Final = "SEQEND"
APPLICATION: Final = "SOUTH"  # South CASS

# Columns by the group code whose first tag they are.
_OF_HEADS: Final = {
    "handle": 5, "layer": 8, "paper": 67, "follow": 66, "flags": 70, "block": 2, "text": 1, "x": 10, "y": 20, "z": 30,
    "x2": 11, "y2": 21, "z2": 31, "elevation": 38, "rotation": 50, "nx": 210, "ny": 220, "nz": 230, "rows": 71,
    "across": 44, "up": 45,
}  # fmt: skip
_OF_PARTS: Final = {"tag": 2, "text": 1, "x": 10, "y": 20, "z": 30, "flags": 70}


class Entities(NamedTuple):
    """Whole entities, in the drawing's order. All text, as spelled, null where an entity does not say it.

    heads: kind, the columns of _OF_HEADS, `code` (the first 1000 of the XDATA named SOUTH), `last_x` and `last_y` (of
           the last tags 10 and 20), `corners` (how many 10 there are, UInt32)
    parts: kind (ATTRIB, VERTEX, SEQEND), the columns of _OF_PARTS, `head` (UInt32: row of the head it is a part of)
    """

    heads: pl.DataFrame
    parts: pl.DataFrame


def entities(blocks: Iterable[Tags]) -> Iterator[Entities]:
    """The ENTITIES section in pieces: an INSERT or POLYLINE together with all its parts.

    Raises Refusal decode.not_readable where the drawing is not whole, decode.too_large.
    """
    held = _tables(Tags(np.empty(0, np.int16), pl.Series(dtype=pl.String)))
    for tags in _in_section(blocks):
        whole = _joined(held, _tables(tags))
        _check_parts(whole)
        given, held = _held_back(whole)
        yield given
    _check_ended(held)
    yield held


# Sections


def _in_section(blocks: Iterable[Tags]) -> Iterator[Tags]:
    """The tags of whole entities of the ENTITIES section; a drawing that has none gives none."""
    section, seen = "", False
    for codes, values in _whole(blocks):
        starts = np.flatnonzero(codes == 0)
        names = values.gather(starts).str.strip_chars()
        inside = np.zeros(len(starts), bool)
        marks = names.is_in(["SECTION", "ENDSEC", EOF]).arg_true().to_list()
        before = 0
        for at in [*marks, len(starts)]:
            if at > before and not section:
                raise Refusal("decode.not_readable", "something outside of sections")
            inside[before:at] = section == "ENTITIES"
            before = at + 1
            name = names[at] if at < len(starts) else ""
            if name == "ENDSEC" and section:
                section = ""
            elif name == "SECTION" and not section:
                section = _section(codes, values, int(starts[at]))
                seen = seen or section == "ENTITIES"
            elif name in ("SECTION", EOF) if section else name and not (name == EOF and seen):
                raise Refusal("decode.not_readable", "a section that does not end, or something outside of sections")
            elif name == EOF:
                break
        if inside.any():
            kept = np.repeat(inside, np.diff(starts, append=len(codes)))
            yield Tags(codes[kept], values.filter(pl.Series(kept)))


def _section(codes: NDArray[np.int16], values: pl.Series, at: int) -> str:
    if at + 1 >= len(codes) or codes[at + 1] != 2:
        raise Refusal("decode.not_readable", "a section without a name")
    return str(values[at + 1]).strip() or "?"


def _whole(blocks: Iterable[Tags]) -> Iterator[Tags]:
    """The tags again, cut before a group code 0: each piece holds whole entities. Raises Refusal without an EOF."""
    kept = Tags(np.empty(0, np.int16), pl.Series(dtype=pl.String))
    waited = 0
    for more in blocks:
        codes = np.concatenate([kept.codes, more.codes])
        values = pl.concat([kept.values, more.values], rechunk=True)
        starts = np.flatnonzero(codes == 0)
        waited = waited + dxf_tags.BLOCK_BYTES if len(starts) < 2 else 0
        if waited >= ENTITY_BYTES:
            raise Refusal("decode.too_large", f"an entity of {ENTITY_BYTES >> 20} MiB or more")
        # Only comments may stand before the first section.
        if (codes[: starts[0] if len(starts) else 0] != 999).any():
            raise Refusal("decode.not_readable", "does not begin with a section")
        first, last = (int(starts[0]), int(starts[-1])) if len(starts) else (0, 0)
        ends = (values.gather(starts).str.strip_chars() == EOF).any()
        stop = len(codes) if ends else last
        if stop > first:
            yield Tags(codes[first:stop], values[first:stop])
        if ends:
            return
        kept = Tags(codes[last:], values[last:])
    raise Refusal("decode.not_readable", "the drawing is cut short: it has no EOF")


# Tables


class _Ranges:
    """Entities as ranges of tags; each method gives one text an entity, of those whose numbers are asked for."""

    def __init__(self, tags: Tags) -> None:
        self.codes = tags.codes
        self.values = pl.concat([tags.values, pl.Series([None], dtype=pl.String)], rechunk=True)  # the last: not said
        self.starts = np.flatnonzero(self.codes == 0)
        self.owner = np.cumsum(self.codes == 0, dtype=np.int32) - 1  # of each tag

    def kinds(self) -> pl.Series:
        return self.values.gather(self.starts).str.strip_chars()

    def first(self, code: int, of: NDArray[np.int64]) -> pl.Series:
        """The value of the first tag of that code."""
        at = np.flatnonzero(self.codes == code)[::-1]
        return self._at(at, of)

    def last(self, code: int, of: NDArray[np.int64]) -> pl.Series:
        """The value of the last tag of that code."""
        return self._at(np.flatnonzero(self.codes == code), of)

    def count(self, code: int, of: NDArray[np.int64]) -> pl.Series:
        counted = np.bincount(self.owner[self.codes == code], minlength=len(self.starts))
        return pl.Series(counted[of], dtype=pl.UInt32)

    def south(self, of: NDArray[np.int64]) -> pl.Series:
        """The first string of the XDATA that South CASS adds: the feature's code."""
        names, strings = np.flatnonzero(self.codes == 1001), np.flatnonzero(self.codes == 1000)
        if not len(names) or not len(strings):
            return self._at(strings[:0], of)
        ours = (self.values.gather(names).str.strip_chars() == APPLICATION).to_numpy()
        under = np.searchsorted(names, strings) - 1  # the application that stands before each string
        said = (under >= 0) & ours[under] & (self.owner[names[under]] == self.owner[strings])
        return self._at(strings[said][::-1], of)

    def mtext(self, kinds: pl.Series) -> pl.DataFrame:
        """entity, text: of each MTEXT in pieces, those of group 3 before the first of group 1, and that one."""
        at = np.flatnonzero((self.codes == 3) | (self.codes == 1))
        pieces = pl.DataFrame({"entity": self.owner[at], "code": self.codes[at], "piece": self.values.gather(at)})
        pieces = pieces.filter((kinds == "MTEXT").gather(pieces["entity"]))
        before = ((pl.col("code") == 1).cum_sum().over("entity") - (pl.col("code") == 1)) == 0
        joined = pieces.filter(before).group_by("entity").agg(
            pl.col("piece").str.join(), pieces=(pl.col("code") == 3).sum()
        ).filter(pl.col("pieces") > 0)  # fmt: skip
        if (joined["piece"].str.len_chars() > TEXT_CHARACTERS).any():
            raise Refusal("decode.too_large", f"a text of more than {TEXT_CHARACTERS} characters")
        return joined

    def _at(self, tags: NDArray[np.int64], of: NDArray[np.int64]) -> pl.Series:
        """The value at each entity's tag: where several are named, the one that is named last."""
        found = np.full(len(self.starts), len(self.values) - 1)
        found[self.owner[tags]] = tags
        return self.values.gather(found[of])


def _tables(tags: Tags) -> Entities:
    """Heads and parts of whole entities; a part before the first head has head 2**32 - 1."""
    ranges = _Ranges(tags)
    kinds = ranges.kinds()
    part = kinds.is_in([*PARTS, SEQEND]).to_numpy()
    of, parts = np.flatnonzero(~part), np.flatnonzero(part)
    heads = pl.DataFrame(
        [kinds.gather(of).alias("kind")]
        + [ranges.first(code, of).alias(name) for name, code in _OF_HEADS.items()]
        + [ranges.south(of).alias("code"), ranges.last(10, of).alias("last_x"), ranges.last(20, of).alias("last_y")]
        + [ranges.count(10, of).alias("corners")]
    )
    if (heads["kind"] == "MTEXT").any() and (tags.codes == 3).any():
        heads = _with_mtexts(heads, ranges.mtext(kinds), of)
    of_parts = [ranges.first(code, parts).alias(name) for name, code in _OF_PARTS.items()]
    head = (np.searchsorted(of, parts) - 1).astype(np.uint32)
    return Entities(heads, pl.DataFrame([kinds.gather(parts).alias("kind"), *of_parts, pl.Series("head", head)]))


def _with_mtexts(heads: pl.DataFrame, texts: pl.DataFrame, of: NDArray[np.int64]) -> pl.DataFrame:
    rows = np.searchsorted(of, texts["entity"].to_numpy())
    return heads.with_columns(heads["text"].scatter(rows, texts["piece"]))


# An entity and its parts


def _joined(held: Entities, more: Entities) -> Entities:
    """What was held back and what comes after it. The numbers of heads wrap around, so that -1 becomes the held one."""
    by = np.uint32(held.heads.height)
    numbered = pl.Series("head", more.parts["head"].to_numpy() + by)
    parts = pl.concat([held.parts, more.parts.with_columns(numbered)], rechunk=True)
    return Entities(pl.concat([held.heads, more.heads], rechunk=True), parts)


def _check_parts(whole: Entities) -> None:
    """Raise Refusal for a part that stands outside the entity that it is a part of."""
    kinds, heads = whole.parts["kind"], whole.parts["head"]
    if not len(heads):
        return
    if (heads >= whole.heads.height).any():
        raise Refusal("decode.not_readable", f"{kinds[0]} outside the entity that it is a part of")
    owners = whole.heads["kind"].gather(heads)
    proper = (kinds == SEQEND) & owners.is_in(["INSERT", "POLYLINE"])
    for part, owner in PARTS.items():
        proper |= (kinds == part) & (owners == owner)
    after_end = (kinds.shift(1) == SEQEND).fill_null(False) & (heads.shift(1) == heads).fill_null(False)
    if (wrong := ~proper | after_end).any():
        raise Refusal("decode.not_readable", f"{kinds[wrong.arg_max() or 0]} outside the entity that it is a part of")
    if len(heads) > VERTICES and np.bincount(heads.to_numpy()).max() > VERTICES:
        raise Refusal("decode.too_large", f"an entity of more than {VERTICES} parts")


def _held_back(whole: Entities) -> tuple[Entities, Entities]:
    """What is complete, and the last head with its parts where more of them may come."""
    heads, parts = whole
    last = heads.height - 1
    ended = parts.height > 0 and parts["kind"][-1] == SEQEND and parts["head"][-1] == last
    if ended or last < 0 or heads["kind"][-1] not in PARTS.values():
        _check_ended(whole)
        return whole, Entities(heads.clear(), parts.clear())
    of_last = parts["head"] == last
    given = Entities(heads[:last], parts.filter(~of_last))
    _check_ended(given)
    return given, Entities(heads[last:], parts.filter(of_last).with_columns(head=pl.lit(0, pl.UInt32)))


def _check_ended(whole: Entities) -> None:
    """Raise Refusal where a SEQEND was announced and does not stand there."""
    heads, parts = whole
    drawn = heads["paper"].str.strip_chars().ne_missing("1")
    must = (heads["kind"] == "POLYLINE") | (
        (heads["kind"] == "INSERT") & heads["follow"].str.strip_chars().eq_missing("1")
    )
    said = pl.int_range(heads.height, dtype=pl.UInt32, eager=True)
    must |= drawn & said.is_in(parts.filter(kind="ATTRIB")["head"].implode())
    missing = must & ~said.is_in(parts.filter(kind=SEQEND)["head"].implode())
    if missing.any():
        raise Refusal("decode.not_readable", f"{heads['kind'][missing.arg_max() or 0]} without SEQEND")
