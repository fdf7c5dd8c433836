"""变化图 A picture of what a new version of a sheet changed: SVG, north up, readable in black and white as well.

Each kind of change has a shape of its own and not only a colour. It holds places: whoever may read the delivery's
records may see it, and nobody else.
"""

from html import escape
from typing import Final, NamedTuple

import msgspec
import polars as pl

from exchange.sheet_difference import KINDS
from mappings.sheets import PlaneExtent, Sheet, extent

LONGEST_PX: Final = 1000.0  # a side of what is drawn
SIDE_PX, TOP_PX, BOTTOM_PX = 70.0, 96.0, 128.0
ONE_BY_ONE: Final = 5_000  # things of a kind; more are drawn as one line without names
NAMED_MOVES: Final = 200  # with their length beside them, the longest first
HEAD_PX, SHORTEST_PX = 8.0, 26.0  # of an arrow: of one that is shorter nobody would see where it points
FULL_SIZE: Final = 4.0  # pixels a metre at which marks have their full size; on many sheets at once they are smaller
BARS_M: Final = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
WORDS: Final = {
    "added": "新增 added",
    "moved": "移位 moved",
    "changed": "变更 changed",
    "gone": "消失 gone",
    "unchanged": "不变 as it was",
}
STYLE: Final = """
text { font: 13px 'Noto Sans CJK SC', 'Source Han Sans SC', 'Microsoft YaHei', sans-serif; fill: #111 }
.title { font-size: 20px; font-weight: bold }
.small { font-size: 11px }
.frame { fill: none; stroke: #111; stroke-width: 1.6 }
.unchanged { fill: none; stroke: #8a8a8a; stroke-width: 4; stroke-linecap: round }
.added { fill: #1b7f3b; stroke: #0b4a20; stroke-width: 1 }
.plus { fill: none; stroke: #fff; stroke-width: 2 }
.gone { fill: none; stroke: #c0161d; stroke-width: 3; stroke-linecap: round }
.changed { fill: #fff; stroke: #1d4fa8; stroke-width: 2.4 }
.was { fill: #fff; stroke: #111; stroke-width: 1.2 }
.moved { fill: none; stroke: #b35a00; stroke-width: 2.4 }
.head { fill: #b35a00; stroke: none }
.length { font-size: 12px; stroke: #fff; stroke-width: 3; paint-order: stroke; stroke-linejoin: round }
"""
# A thing's mark around its own place.
SHAPES: Final = {
    "added": '<circle class="added" r="6.5"/><path class="plus" d="M-4 0H4M0 -4V4"/>',
    "gone": '<path class="gone" d="M-5 -5L5 5M5 -5L-5 5"/>',
    "changed": '<path class="changed" d="M0 -7L7 0L0 7L-7 0Z"/>',
}


class Caption(msgspec.Struct, frozen=True):
    """What is written above the picture, as it is known; from whom and which delivery."""

    feed: str
    message_id: str
    day: str


class _Scale(NamedTuple):
    """From metres of the plane to the picture, whose y points down."""

    west: float
    north: float
    px_a_metre: float

    def x(self, column: str = "x") -> pl.Expr:
        return SIDE_PX + (pl.col(column) - self.west) * self.px_a_metre

    def y(self, column: str = "y") -> pl.Expr:
        return TOP_PX + (self.north - pl.col(column)) * self.px_a_metre

    @property
    def marks(self) -> float:
        """How large marks are."""
        return min(1.0, max(0.4, self.px_a_metre / FULL_SIZE))


def picture(difference: pl.DataFrame, sheets: list[Sheet], size: str, caption: Caption) -> str:
    """The SVG.

    difference: DIFFERENCE; sheets: those that the delivery was whole for, at least one; size: as the feed has it
    """
    frames = [extent(sheet, size) for sheet in sheets]
    west, south = min(frame[0] for frame in frames), min(frame[1] for frame in frames)
    east, north = max(frame[2] for frame in frames), max(frame[3] for frame in frames)
    scale = _Scale(west, north, LONGEST_PX / max(east - west, north - south))
    wide, high = (east - west) * scale.px_a_metre, (north - south) * scale.px_a_metre
    width, height = wide + 2 * SIDE_PX, TOP_PX + high + BOTTOM_PX
    counts = {kind: difference.filter(kind=kind).height for kind in KINDS}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img"><title>{_escaped(_heading(sheets))}</title><style>{STYLE}</style>',
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="#fff"/>',
        *_above(sheets, caption, counts, width),
        *(_frame(frame, scale) for frame in frames),
        _dots(difference.filter(kind="unchanged"), scale),
        *(_marks(difference.filter(kind=kind), kind, scale) for kind in ("changed", "gone", "added")),
        _arrows(difference.filter(kind="moved"), scale),
        *(_named(sheet, frame, scale) for sheet, frame in zip(sheets, frames, strict=True) if len(frames) > 1),
        _edges(frames[0], scale) if len(frames) == 1 else "",
        _bar(scale, wide, TOP_PX + high + 34),
        _legend(counts, TOP_PX + high + 84),
        "</svg>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


# Around the map


def _heading(sheets: list[Sheet]) -> str:
    named = ", ".join(sheet.number for sheet in sheets[:3])
    return f"图幅变化 Sheet {named}" + (f" … {len(sheets)}" if len(sheets) > 3 else "")


def _above(sheets: list[Sheet], caption: Caption, counts: dict[str, int], width: float) -> list[str]:
    total = "  ".join(f"{WORDS[kind].split()[0]} {counts[kind]}" for kind in KINDS)
    english = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS)
    about = f"{caption.feed}  {caption.message_id}  {caption.day}"
    north = width - SIDE_PX - 10
    return [
        f'<text class="title" x="{SIDE_PX}" y="30">{_escaped(_heading(sheets))}</text>',
        f'<text x="{SIDE_PX}" y="52">{total}  ({english})</text>',
        f'<text class="small" x="{SIDE_PX}" y="70">{_escaped(about)}</text>',
        f'<path d="M{north} 14L{north + 8} 44L{north} 37L{north - 8} 44Z" fill="#111"/>'
        f'<text x="{north}" y="60" text-anchor="middle">北 N</text>',
    ]


def _frame(frame: PlaneExtent, scale: _Scale) -> str:
    x, y, wide, high = _on_paper(frame, scale)
    return f'<rect class="frame" x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{high:.1f}"/>'


def _named(sheet: Sheet, frame: PlaneExtent, scale: _Scale) -> str:
    """A sheet's number in its own corner, where there are several."""
    x, y, _, _ = _on_paper(frame, scale)
    return f'<text class="small length" x="{x + 6:.1f}" y="{y + 15:.1f}">{sheet.number}</text>'


def _edges(frame: PlaneExtent, scale: _Scale) -> str:
    """The kilometres of a sheet's edges."""
    west, south, east, north = frame
    x, y, wide, high = _on_paper(frame, scale)
    edges = [
        (x - 6, y + high, "end", south), (x - 6, y + 10, "end", north),
        (x, y + high + 16, "start", west), (x + wide, y + high + 16, "end", east),
    ]  # fmt: skip
    return "".join(
        f'<text class="small" x="{at:.1f}" y="{line:.1f}" text-anchor="{anchor}">{metres / 1000:.2f}</text>'
        for at, line, anchor, metres in edges
    )


def _on_paper(frame: PlaneExtent, scale: _Scale) -> tuple[float, float, float, float]:
    """x, y, width and height."""
    west, south, east, north = frame
    x, y = SIDE_PX + (west - scale.west) * scale.px_a_metre, TOP_PX + (scale.north - north) * scale.px_a_metre
    return x, y, (east - west) * scale.px_a_metre, (north - south) * scale.px_a_metre


def _bar(scale: _Scale, wide: float, y: float) -> str:
    """A scale bar, about a fifth of the picture long."""
    metres = max((bar for bar in BARS_M if bar * scale.px_a_metre <= wide / 4), default=BARS_M[0])
    x, half = SIDE_PX, metres * scale.px_a_metre / 2
    return (
        f'<g class="bar"><rect x="{x}" y="{y}" width="{half:.1f}" height="6" fill="#111" stroke="#111"/>'
        f'<rect x="{x + half:.1f}" y="{y}" width="{half:.1f}" height="6" fill="#fff" stroke="#111"/>'
        f'<text class="small" x="{x}" y="{y + 20}">0</text>'
        f'<text class="small" x="{x + 2 * half:.1f}" y="{y + 20}" text-anchor="middle">{metres} 米 m</text></g>'
    )


def _legend(counts: dict[str, int], y: float) -> str:
    """Each kind's mark with its name in both languages, and how many there are."""
    marks = {
        **SHAPES,
        "unchanged": '<path class="unchanged" d="M0 0h0"/>',
        "moved": '<path class="moved" d="M-12 0H6"/><path class="head" d="M12 0L4 -4V4Z"/>'
        '<circle class="was" cx="-12" r="3"/>',
    }
    items, x = [], SIDE_PX + 12
    for kind in KINDS:
        words = f"{WORDS[kind]}: {counts[kind]}"
        items.append(f'<g transform="translate({x:.0f} {y:.0f})">{marks[kind]}<text x="18" y="4.5">{words}</text></g>')
        x += 60 + sum(13.5 if ord(letter) > 0x2E80 else 7.2 for letter in words)
    note = "移位：圆圈为原位置，箭头示方向（短者放大），数字为距离（米）"
    english = "moved: from the ring, which way (short ones drawn longer), the number says how many metres"
    lines = f'<text class="small" x="{SIDE_PX}" y="{y + 26}">{note}  {english}</text>'
    return f'<g class="legend">{"".join(items)}{lines}</g>'


# What is on it


def _dots(things: pl.DataFrame, scale: _Scale) -> str:
    """All that is as it was, as one line of dots."""
    return _line("unchanged", things.select(d=pl.format("M{} {}h0", *_rounded(scale.x(), scale.y()))))


def _line(kind: str, pieces: pl.DataFrame) -> str:
    return f'<path class="{kind}" d="{"".join(pieces["d"].to_list())}"/>' if pieces.height else ""


def _marks(things: pl.DataFrame, kind: str, scale: _Scale) -> str:
    """A mark for each thing, where it is or, of what is gone, was; its key, class and kind told on pointing at it."""
    at = ("x_before", "y_before") if kind == "gone" else ("x", "y")
    x, y = _rounded(scale.x(at[0]), scale.y(at[1]))
    if things.height > ONE_BY_ONE:
        spot = {"added": "M{} {}m-2 0h4m-2 -2v4", "gone": "M{} {}m-2 -2l4 4m0 -4l-4 4", "changed": "M{} {}m-2 0h4"}
        return _line(kind, things.select(d=pl.format(spot[kind], x, y)))
    told = f"{SHAPES[kind]}<title>{{}} {{}} {WORDS[kind]}</title>"
    form = f'<g transform="translate({{}} {{}}) scale({scale.marks:.2g})">{told}</g>'
    said = (_escaped_text("source_key"), _escaped_text("class_code"))
    return "\n".join(things.select(form=pl.format(form, x, y, *said))["form"].to_list())


def _arrows(things: pl.DataFrame, scale: _Scale) -> str:
    """An arrow from where each thing was to where it is, never too short to be seen, and how many metres that is."""
    if things.height > ONE_BY_ONE:
        ends = _rounded(scale.x("x_before"), scale.y("y_before"), scale.x(), scale.y())
        return _line("moved", things.select(d=pl.format("M{} {}L{} {}", *ends)))
    shown_px = pl.max_horizontal(pl.col("moved_m") * scale.px_a_metre, pl.lit(SHORTEST_PX * scale.marks))
    drawn = things.with_columns(
        ax=scale.x("x_before"),
        ay=scale.y("y_before"),
        east=(pl.col("x") - pl.col("x_before")) / pl.col("moved_m"),
        down=(pl.col("y_before") - pl.col("y")) / pl.col("moved_m"),
        px=shown_px,
        far=_metres("moved_m"),
    ).with_columns(bx=pl.col("ax") + pl.col("east") * pl.col("px"), by=pl.col("ay") + pl.col("down") * pl.col("px"))
    head = HEAD_PX * scale.marks
    back_x, back_y = pl.col("bx") - pl.col("east") * head, pl.col("by") - pl.col("down") * head
    side_x, side_y = pl.col("down") * (head / 2), pl.col("east") * (head / 2)
    form = (
        '<g><path class="moved" d="M{} {}L{} {}"/>'
        f'<circle class="was" cx="{{}}" cy="{{}}" r="{3 * scale.marks:.2g}"/>'
        '<path class="head" d="M{} {}L{} {}L{} {}Z"/><title>{} {} 移位 moved {} m</title></g>'
    )
    numbers = (
        *(pl.col("ax"), pl.col("ay"), back_x, back_y, pl.col("ax"), pl.col("ay"), pl.col("bx"), pl.col("by")),
        *(back_x - side_x, back_y + side_y, back_x + side_x, back_y - side_y),
    )
    said = (_escaped_text("source_key"), _escaped_text("class_code"), pl.col("far"))
    arrows = drawn.select(form=pl.format(form, *_rounded(*numbers), *said))["form"].to_list()
    label = '<text class="length" x="{}" y="{}">{}</text>'
    beside = _rounded(pl.max_horizontal("ax", "bx") + 6, (pl.col("ay") + pl.col("by")) / 2 + 4)
    longest = drawn.sort("moved_m", descending=True).head(NAMED_MOVES)
    return "\n".join([*arrows, *longest.select(form=pl.format(label, *beside, "far"))["form"].to_list()])


def _metres(column: str) -> pl.Expr:
    """A length with two decimals."""
    hundredths = (pl.col(column) * 100).round().cast(pl.Int64)
    return pl.format("{}.{}", hundredths // 100, (hundredths % 100).cast(pl.String).str.zfill(2))


def _rounded(*places: pl.Expr) -> list[pl.Expr]:
    return [place.round(1) for place in places]


def _escaped_text(column: str) -> pl.Expr:
    """What bureaus wrote, so that nothing of it is markup, nor a character that XML has not."""
    text = (
        pl.col(column).fill_null("").str.replace_all(r"[^\t\n\r\x20-\x{D7FF}\x{E000}-\x{FFFD}\x{10000}-\x{10FFFF}]", "")
    )
    return text.str.replace_many(["&", "<", ">", '"'], ["&amp;", "&lt;", "&gt;", "&quot;"])


def _escaped(text: str) -> str:
    return escape("".join(letter for letter in text if letter.isprintable()))
