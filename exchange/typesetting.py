"""A paper on A4: Chinese first, English small beside it, long values whole on one line, page numbers.

Chinese is set in STSong-Light, one of the fonts that every PDF reader is expected to have and that are not put into the
file (docs/adr/0037); what that font has no sign for is written by its number, so that nothing is shown as a blank.
"""

import re
from collections.abc import Iterable, Sequence
from functools import partial
from io import BytesIO
from typing import Any, Final
from xml.sax.saxutils import escape

from reportlab.lib.colors import Color, HexColor, white
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfbase.pdfmetrics import registerFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import CondPageBreak, Flowable, KeepTogether, Paragraph, SimpleDocTemplate, Spacer, Table

CHINESE: Final = "STSong-Light"
LATIN: Final = "Helvetica"
FIXED: Final = "Courier"
MARGIN: Final = 20 * mm
WIDTH: Final = A4[0] - 2 * MARGIN
LABEL: Final = 36 * mm
MOST_SHOWN: Final = 300  # characters of a value: what is longer lies in the file, and no row is higher than a page
MOST_LINES: Final = 24
BESIDE: Final = 3  # lines found that stand beside their label; the others follow in rows that pages may part

INK, QUIET, LINE, SHADE = HexColor("#1d2b36"), HexColor("#5f6f7a"), HexColor("#c9d3d8"), HexColor("#f3f6f7")
ACCENT = HexColor("#1f5566")
TONES: Final[dict[str, Color]] = {
    "holds": HexColor("#2c6a4c"),
    "incomplete": HexColor("#94650f"),
    "missing": HexColor("#94650f"),
    "erased": HexColor("#5a5f8c"),
    "broken": HexColor("#9c2f24"),
}

_WIDE = re.compile(r"[⺀-鿿豈-﫿︰-﹏＀-￯　-〿‐-―‘-”…、。·—]+")
_BARE = re.compile(r"[^\t\n -~⺀-鿿豈-﫿︰-﹏＀-￯　-〿‐-―‘-”…·—]")

registerFont(UnicodeCIDFont(CHINESE))
_style = partial(ParagraphStyle, fontName=LATIN, textColor=INK, wordWrap="CJK")
STYLES: Final = {
    "title": _style("title", fontSize=20, leading=27, textColor=ACCENT),
    "subtitle": _style("subtitle", fontSize=9, leading=13, textColor=QUIET),
    "heading": _style("heading", fontSize=12.5, leading=17, textColor=ACCENT, spaceBefore=12, spaceAfter=4),
    "text": _style("text", fontSize=10, leading=15.5),
    "small": _style("small", fontSize=7.5, leading=10.5, textColor=QUIET),
    "cell": _style("cell", fontSize=8.8, leading=12.6),
    "column": _style("column", fontSize=8, leading=10.5, textColor=ACCENT),
    "fixed": ParagraphStyle("fixed", fontName=FIXED, fontSize=8, leading=11.5, textColor=INK),
    "verdict": _style("verdict", fontSize=15, leading=21, textColor=white),
    "aside": _style("aside", fontSize=9, leading=12.5, textColor=white),
}


class Fixed(str):
    """A value to be copied: a digest, a serial number, a command. It is never broken within a line that it fits."""


Cell = str | Fixed | tuple[str, str]  # a pair: Chinese, and the same in English beneath


def shown(text: str) -> str:
    """The text as markup: Chinese in its font, what neither font has by its number."""
    plain = _printable(text)
    pieces, end = [], 0
    for match in _WIDE.finditer(plain):
        pieces += [escape(plain[end : match.start()]), f'<font name="{CHINESE}">{escape(match[0])}</font>']
        end = match.end()
    return "".join([*pieces, escape(plain[end:])]).replace("\n", "<br/>")


def clipped(text: str) -> str:
    """What of a value is shown; `…` says that it goes on."""
    lines = text.split("\n")[:MOST_LINES]
    short = "\n".join(lines)[:MOST_SHOWN]
    return text if short == text else f"{short}…"


class Paper:
    """Put together from the top; `pdf` gives the file."""

    def __init__(self, running: str, foot: str) -> None:
        self._story: list[Flowable] = []
        self._running, self._foot = running, foot

    def title(self, zh: str, en: str) -> None:
        """The first line."""
        self._story += [Paragraph(shown(zh), STYLES["title"]), Paragraph(shown(en), STYLES["subtitle"]), Spacer(1, 8)]

    def verdict(self, state: str, zh: str, en: str) -> None:
        """The outcome, on its colour."""
        box = Table([[Paragraph(shown(zh), STYLES["verdict"])], [Paragraph(shown(en), STYLES["aside"])]], [WIDTH])
        box.setStyle(
            [("BACKGROUND", (0, 0), (-1, -1), TONES[state]), *_padded(10, 3), ("BOTTOMPADDING", (0, 1), (0, 1), 8)]
        )
        self._story += [box, Spacer(1, 8)]

    def heading(self, zh: str, en: str) -> None:
        """Of a part."""
        text = f'{shown(zh)}  <font size="8" color="#5f6f7a">{shown(en)}</font>'
        self._story += [CondPageBreak(45 * mm), Paragraph(text, STYLES["heading"])]

    def text(self, zh: str, en: str = "") -> None:
        """A paragraph, and the same in English."""
        self._story.append(Paragraph(shown(zh), STYLES["text"]))
        if en:
            self._story.append(Paragraph(shown(en), STYLES["small"]))
        self._story.append(Spacer(1, 4))

    def facts(self, rows: Iterable[tuple[tuple[str, str], Cell]]) -> None:
        """What is what: a label in two languages, and its value."""
        body = [[_both(*label), _cell(value)] for label, value in rows]
        table = Table(body, [LABEL, WIDTH - LABEL], splitByRow=1)
        table.setStyle(
            [("LINEBELOW", (0, 0), (-1, -1), 0.4, LINE), ("LINEABOVE", (0, 0), (-1, 0), 0.8, ACCENT), *_padded()]
        )
        self._story += [table, Spacer(1, 6)]

    def table(
        self, columns: Sequence[tuple[str, str]], widths: Sequence[float], rows: Iterable[Sequence[Cell]]
    ) -> None:
        """Rows under columns. widths: shares of the page's."""
        head = [_both(*column, style="column") for column in columns]
        body = [[_cell(value) for value in row] for row in rows]
        table = Table([head, *body], [WIDTH * share for share in widths], repeatRows=1, splitByRow=1)
        lines: list[Any] = [("LINEBELOW", (0, 0), (-1, -1), 0.4, LINE), ("LINEABOVE", (0, 0), (-1, 0), 0.8, ACCENT)]
        table.setStyle([*lines, ("BACKGROUND", (0, 0), (-1, 0), SHADE), *_padded()])
        self._story += [table, Spacer(1, 6)]

    def judged(self, rows: Iterable[tuple[tuple[str, str], str, str, Sequence[str]]]) -> None:
        """Rows of a verdict: label, state, the state in words, and what was found."""
        body: list[list[Any]] = []
        styles = _padded()
        for label, state, word, about in rows:
            mark = ParagraphStyle("mark", parent=STYLES["cell"], textColor=TONES[state])
            found = [Paragraph(shown(clipped(line)), STYLES["small"]) for line in about]
            first = len(body)
            body.append([_both(*label), Paragraph(shown(word), mark), found[:BESIDE] or ""])
            body += [["", "", line] for line in found[BESIDE:]]
            styles += [
                ("LINEBEFORE", (0, first), (0, len(body) - 1), 2.2, TONES[state]),
                ("LINEBELOW", (0, len(body) - 1), (-1, len(body) - 1), 0.4, LINE),
                ("TOPPADDING", (0, first + 1), (-1, len(body) - 1), 0),
            ]
            styles += [("BOTTOMPADDING", (0, row), (-1, row), 0) for row in range(first, len(body) - 1)]
        table = Table(body, [WIDTH * 0.46, WIDTH * 0.12, WIDTH * 0.42], splitByRow=1)
        table.setStyle(styles)
        self._story += [table, Spacer(1, 6)]

    def kept(self, begin: int) -> None:
        """What came since `begin` (a `mark`) stays on one page where it can."""
        self._story[begin:] = [KeepTogether(self._story[begin:])]

    @property
    def mark(self) -> int:
        """Where the next thing will stand."""
        return len(self._story)

    def pdf(self, subject: str) -> bytes:
        """The file: the same story gives the same octets."""
        target = BytesIO()
        document = SimpleDocTemplate(
            target,
            pagesize=A4,
            leftMargin=MARGIN,
            rightMargin=MARGIN,
            topMargin=22 * mm,
            bottomMargin=20 * mm,
            title=_printable(clipped(subject)),
            author=self._running,
            lang="zh-CN",
            invariant=1,
        )
        document.build(self._story, canvasmaker=partial(_Numbered, running=self._running, foot=self._foot))
        return target.getvalue()


class _Numbered(Canvas):  # type: ignore[misc]  # reportlab has no types
    """A canvas whose pages know how many they are."""

    def __init__(self, *arguments: Any, running: str, foot: str, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._pages: list[dict[str, Any]] = []
        self._running, self._foot = running, foot

    def showPage(self) -> None:
        """Keep the page until all are known."""
        self._pages.append(dict(self.__dict__))
        self._startPage()

    def save(self) -> None:
        """Write the pages, each with its number."""
        pages = self._pages
        for number, page in enumerate(pages, 1):
            self.__dict__.update(page)
            self._furnish(f"第 {number} 页，共 {len(pages)} 页")
            super().showPage()
        super().save()

    def _furnish(self, number: str) -> None:
        self.setStrokeColor(LINE)
        self.setLineWidth(0.4)
        for height in (A4[1] - 16 * mm, 15 * mm):
            self.line(MARGIN, height, A4[0] - MARGIN, height)
        for text, height, right in (
            (self._running, A4[1] - 14 * mm, False),
            (self._foot, 10.5 * mm, False),
            (number, 10.5 * mm, True),
        ):
            line = Paragraph(shown(text), ParagraphStyle("line", parent=STYLES["small"], alignment=2 if right else 0))
            line.wrap(WIDTH, 20)
            line.drawOn(self, MARGIN, height - 2)


def _both(zh: str, en: str, style: str = "cell") -> Paragraph:
    return Paragraph(f'{shown(zh)}<br/><font size="7" color="#5f6f7a">{shown(en)}</font>', STYLES[style])


def _cell(value: Cell) -> Paragraph:
    if isinstance(value, tuple):
        return _both(*map(clipped, value))
    if isinstance(value, Fixed):
        lines = _printable(clipped(value)).split("\n")
        return Paragraph("<br/>".join(escape(line) for line in lines), STYLES["fixed"])
    return Paragraph(shown(clipped(value)), STYLES["cell"])


def _printable(text: str) -> str:
    """With what neither font has by its number."""
    return _BARE.sub(lambda found: f"[U+{ord(found[0]):04X}]", text)


def _padded(side: float = 5, above: float = 4) -> list[Any]:
    names = (("LEFTPADDING", side), ("RIGHTPADDING", side), ("TOPPADDING", above), ("BOTTOMPADDING", above + 1))
    return [("VALIGN", (0, 0), (-1, -1), "TOP"), *((name, (0, 0), (-1, -1), size) for name, size in names)]
