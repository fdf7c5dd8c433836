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

from connectors.formats import dxf_corners, dxf_tags
from connectors.formats.dxf_tags import EOF, Tags, no_tags
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
_OF_PARTS: Final = {"tag": 2, "text": 1, "x": 10, "y": 20, "z": 30, "flags": 70, "bulge": 42}


class Entities(NamedTuple):
    """Whole entities, in the drawing's order. All text, as spelled, null where an entity does not say it.

    heads: kind, the columns of _OF_HEADS, `code` (the first 1000 of the XDATA named SOUTH), `last_x` and `last_y` (of
           the last tags 10 and 20), `corners` (how many 10 there are, UInt32)
    parts: kind (ATTRIB, VERTEX, SEQEND), the columns of _OF_PARTS, `head` (UInt32: row of the head it is a part of)
    corners: of LWPOLYLINE and HATCH: head, and the columns of `dxf_corners`
    """

    heads: pl.DataFrame
    parts: pl.DataFrame
    corners: pl.DataFrame


def entities(blocks: Iterable[Tags], *, corners: bool = False) -> Iterator[Entities]:
    """The ENTITIES section in pieces: an INSERT or POLYLINE together with all its parts.

    corners: whether to gather them; else that table is empty

    Raises Refusal decode.not_readable where the drawing is not whole, decode.too_large.
    """
    held = _tables(no_tags(), pl.Series(dtype=pl.String), corners)
    for tags, kinds in _in_section(blocks):
        whole = _joined(held, _tables(tags, kinds, corners))
        _check_parts(whole)
        given, held = _held_back(whole)
        yield given
    _check_ended(held)
    yield held


# Sections


def _in_section(blocks: Iterable[Tags]) -> Iterator[tuple[Tags, pl.Series]]:
    """Tags and names of whole entities of the ENTITIES section; a drawing that has none gives none."""
    section, seen = "", False
    for tags, names in _whole(blocks):
        starts = np.flatnonzero(tags.codes == 0)
        inside = np.zeros(len(starts), bool)
        before = 0
        for at, name, called in _marks(tags, names, starts):
            if at > before and not section:
                raise Refusal("decode.not_readable", "something outside of sections")
            inside[before:at] = section == "ENTITIES"
            before = at + 1
            if name == "ENDSEC" and section:
                section = ""
            elif name == "SECTION" and not section:
                section = called
                seen = seen or section == "ENTITIES"
            elif name == EOF and seen and not section:
                break
            elif name:
                raise Refusal("decode.not_readable", "a section that does not end, or something outside of sections")
        if inside.any():
            of_tags = np.repeat(inside, np.diff(starts, append=len(tags.codes)))
            yield tags.only(of_tags), names.filter(pl.Series(inside))


def _marks(tags: Tags, names: pl.Series, starts: NDArray[np.int64]) -> Iterator[tuple[int, str, str]]:
    """Where sections begin and end: number of the mark, its name, what the section is called. "" ends the piece."""
    marks = names.is_in(["SECTION", "ENDSEC", EOF]).arg_true()
    after = np.minimum(starts[marks.to_numpy()] + 1, len(tags.codes) - 1)
    called = tags.texts(after).str.strip_chars()
    for at, name, code, text in zip(marks, names.gather(marks), tags.codes[after].tolist(), called, strict=True):
        if name == "SECTION" and code != 2:
            raise Refusal("decode.not_readable", "a section without a name")
        yield at, name, text or "?"
    yield len(starts), "", ""


def _whole(blocks: Iterable[Tags]) -> Iterator[tuple[Tags, pl.Series]]:
    """The tags again, cut before a group code 0: each piece holds whole things, whose names go with it. The last piece
    has an EOF, else Refusal.
    """
    kept, waited = no_tags(), 0
    for more in blocks:
        tags = kept.then(more)
        starts = np.flatnonzero(tags.codes == 0)
        waited = waited + dxf_tags.BLOCK_BYTES if len(starts) < 2 else 0
        if waited >= ENTITY_BYTES:
            raise Refusal("decode.too_large", f"an entity of {ENTITY_BYTES >> 20} MiB or more")
        # Only comments may stand before the first section.
        if (tags.codes[: starts[0] if len(starts) else None] != 999).any():
            raise Refusal("decode.not_readable", "does not begin with a section")
        names = tags.texts(starts).str.strip_chars()
        ends = (names == EOF).any()
        first, last = (int(starts[0]), int(starts[-1])) if len(starts) else (0, 0)
        stop = len(tags.codes) if ends else last
        if stop > first:
            yield tags.only(slice(first, stop)), names if ends else names[:-1]
        if ends:
            return
        kept = tags.only(slice(last, None))
    raise Refusal("decode.not_readable", "the drawing is cut short: it has no EOF")


# Tables


class _Ranges:
    """Entities as ranges of tags; most methods give the number of one tag an entity, -1 where it has none such."""

    def __init__(self, tags: Tags) -> None:
        self.tags, self.codes = tags, tags.codes
        self.starts = np.flatnonzero(self.codes == 0)
        self.owner = np.cumsum(self.codes == 0, dtype=np.int32) - 1  # of each tag

    def first(self, code: int) -> NDArray[np.int64]:
        return self._of_each(np.flatnonzero(self.codes == code)[::-1])

    def last(self, code: int) -> NDArray[np.int64]:
        return self._of_each(np.flatnonzero(self.codes == code))

    def south(self) -> NDArray[np.int64]:
        """The first string of the XDATA that South CASS adds: the feature's code."""
        names, strings = np.flatnonzero(self.codes == 1001), np.flatnonzero(self.codes == 1000)
        if not len(names) or not len(strings):
            return self._of_each(strings[:0])
        ours = (self.tags.texts(names).str.strip_chars() == APPLICATION).to_numpy()
        under = np.searchsorted(names, strings) - 1  # the application that stands before each string
        said = (under >= 0) & ours[under] & (self.owner[names[under]] == self.owner[strings])
        return self._of_each(strings[said][::-1])

    def count(self, code: int) -> NDArray[np.int64]:
        """How many tags of that code each entity has."""
        return np.bincount(self.owner[self.codes == code], minlength=len(self.starts))

    def columns(self, of: NDArray[np.int64], tags: dict[str, NDArray[np.int64]]) -> list[pl.Series]:
        """Texts of named tags, for some of the entities; all are gathered at once."""
        texts = self.tags.texts(np.concatenate([each[of] for each in tags.values()]))
        return [texts[at * len(of) : (at + 1) * len(of)].alias(name) for at, name in enumerate(tags)]

    def mtext(self, kinds: pl.Series) -> pl.DataFrame:
        """entity, text: of each MTEXT in pieces, those of group 3 before the first of group 1, and that one."""
        at = np.flatnonzero((self.codes == 3) | (self.codes == 1))
        pieces = pl.DataFrame({"entity": self.owner[at], "code": self.codes[at], "piece": self.tags.texts(at)})
        pieces = pieces.filter((kinds == "MTEXT").gather(pieces["entity"]))
        before = ((pl.col("code") == 1).cum_sum().over("entity") - (pl.col("code") == 1)) == 0
        joined = pieces.filter(before).group_by("entity").agg(
            pl.col("piece").str.join(), pieces=(pl.col("code") == 3).sum()
        ).filter(pl.col("pieces") > 0)  # fmt: skip
        if (joined["piece"].str.len_chars() > TEXT_CHARACTERS).any():
            raise Refusal("decode.too_large", f"a text of more than {TEXT_CHARACTERS} characters")
        return joined

    def _of_each(self, tags: NDArray[np.int64]) -> NDArray[np.int64]:
        """For each entity which of the tags it has: where several, the one that is named last."""
        found = np.full(len(self.starts), -1)
        found[self.owner[tags]] = tags
        return found


def _tables(tags: Tags, kinds: pl.Series, with_corners: bool) -> Entities:
    """Heads and parts of whole entities of these kinds; a part before the first head has head 2**32 - 1."""
    ranges = _Ranges(tags)
    part = kinds.is_in([*PARTS, SEQEND]).to_numpy()
    of, parts = np.flatnonzero(~part), np.flatnonzero(part)
    named = {name: ranges.first(code) for name, code in _OF_HEADS.items()}
    named |= {"code": ranges.south(), "last_x": ranges.last(10), "last_y": ranges.last(20)}
    count = pl.Series("corners", ranges.count(10)[of], dtype=pl.UInt32)
    heads = pl.DataFrame([kinds.gather(of).alias("kind"), *ranges.columns(of, named), count])
    if (heads["kind"] == "MTEXT").any() and (tags.codes == 3).any():
        heads = _with_mtexts(heads, ranges.mtext(kinds), of)
    of_parts = ranges.columns(parts, {name: ranges.first(code) for name, code in _OF_PARTS.items()})
    head = (np.searchsorted(of, parts) - 1).astype(np.uint32)
    corners = pl.DataFrame(schema=dxf_corners.SCHEMA)
    if with_corners:
        flat, hatches = ((kinds == kind).to_numpy() for kind in ("LWPOLYLINE", "HATCH"))
        turns = dxf_corners.of_polylines(tags, ranges.owner, flat), dxf_corners.of_hatches(tags, ranges.owner, hatches)
        corners = pl.concat(turns)
    numbered = pl.Series(np.searchsorted(of, corners["entity"].to_numpy()), dtype=pl.UInt32)
    return Entities(
        heads,
        pl.DataFrame([kinds.gather(parts).alias("kind"), *of_parts, pl.Series("head", head)]),
        corners.select("ring", "x", "y", "bulge", head=numbered),
    )


def _with_mtexts(heads: pl.DataFrame, texts: pl.DataFrame, of: NDArray[np.int64]) -> pl.DataFrame:
    rows = np.searchsorted(of, texts["entity"].to_numpy())
    return heads.with_columns(heads["text"].scatter(rows, texts["piece"]))


# An entity and its parts


def _joined(held: Entities, more: Entities) -> Entities:
    """What was held back and what comes after it. The numbers of heads wrap around, so that -1 becomes the held one."""
    if held.heads.is_empty():
        return more
    by = np.uint32(held.heads.height)
    numbered = pl.Series("head", more.parts["head"].to_numpy() + by)
    parts = pl.concat([held.parts, more.parts.with_columns(numbered)], rechunk=True)
    corners = more.corners.with_columns(head=pl.Series(more.corners["head"].to_numpy() + by))
    return Entities(pl.concat([held.heads, more.heads], rechunk=True), parts, corners)


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
    heads, parts, corners = whole
    last = heads.height - 1
    ended = parts.height > 0 and parts["kind"][-1] == SEQEND and parts["head"][-1] == last
    if ended or last < 0 or heads["kind"][-1] not in PARTS.values():
        _check_ended(whole)
        return whole, Entities(heads.clear(), parts.clear(), corners.clear())
    of_last = parts["head"] == last
    given = Entities(heads[:last], parts.filter(~of_last), corners)
    _check_ended(given)
    kept = parts.filter(of_last).with_columns(head=pl.lit(0, pl.UInt32))
    return given, Entities(heads[last:], kept, corners.clear())


def _check_ended(whole: Entities) -> None:
    """Raise Refusal where a SEQEND was announced and does not stand there."""
    kinds, rows = whole.parts["kind"], whole.parts["head"]
    owners = {kind: rows.filter(kinds == kind).implode() for kind in ("ATTRIB", SEQEND)}
    row, kind = pl.int_range(pl.len(), dtype=pl.UInt32), pl.col("kind")
    announced = pl.col("follow").str.strip_chars() == "1"
    with_attributes = row.is_in(owners["ATTRIB"]) & pl.col("paper").str.strip_chars().ne_missing("1")
    must = (kind == "POLYLINE") | ((kind == "INSERT") & announced) | with_attributes
    missing = whole.heads.select("kind", must=must & ~row.is_in(owners[SEQEND])).filter("must")
    if missing.height:
        raise Refusal("decode.not_readable", f"{missing['kind'][0]} without SEQEND")
