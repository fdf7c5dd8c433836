"""变化图 The picture shows every change by a mark of its own, in its place, and obeys nothing that a bureau wrote."""

import re
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from lxml import etree

from exchange.http.pictures import picture_of
from exchange.processing import process
from exchange.sheet_difference import DIFFERENCE
from exchange.sheet_picture import ONE_BY_ONE, Caption, picture
from mappings.schema import conform
from mappings.sheets import sheet_of
from security.errors import Refusal
from tests.acts.bench_of_one import FEED, Acts, both_acts, covers
from tests.acts.maps import COVER, FEED_OF_MAP, LAMP, MAP, WEST, a_sheet

SVG = "{http://www.w3.org/2000/svg}"
SCALE, SIDE, TOP = 1000 / 250, 70.0, 96.0


@pytest.fixture
def acts(tmp_path: Path) -> Iterator[Acts]:
    with both_acts(tmp_path, None, **{MAP: FEED_OF_MAP}) as acts:
        for feed in (MAP, FEED):
            acts.trial.grant("made-up", "push", feed)
        yield acts


def told(acts: Acts, message_id: str, content: bytes, feed: str = MAP) -> None:
    acts.push(message_id, content, feed)
    while process(feed, acts.bus):
        pass


def marks(svg: bytes | str, kind: str) -> list[etree._Element]:
    """What stands on the map for each thing of a kind; what explains it in the legend does not count."""
    root = etree.fromstring(svg if isinstance(svg, bytes) else svg.encode())
    found = [group for group in root.iterfind(f"{SVG}g") if group.find(f"{SVG}*[@class='{kind}']") is not None]
    return [group for group in found if group.find(f"{SVG}title") is not None]


def title(mark: etree._Element) -> str:
    return str(mark.findtext(f"{SVG}title"))


def test_what_a_delivery_changed_is_drawn_where_it_happened(acts: Acts) -> None:
    told(acts, "m-1", a_sheet(WEST, *[(COVER, 10.0 + 20 * n, 10.0) for n in range(6)]))
    told(acts, "m-2", a_sheet(WEST, (COVER, 10, 14), *[(COVER, 30.0 + 20 * n, 10.0) for n in range(4)], (LAMP, 90, 50)))
    told(acts, "m-3", a_sheet(WEST, (COVER, 200, 10), (LAMP, 90, 50), (COVER, 30, 10)))  # later: the picture stays
    svg = picture_of("made-up", "m-2", acts.bus)
    (added,), (gone,), (moved,) = (marks(svg, kind) for kind in ("added", "gone", "moved"))
    assert place_of(added) == (SIDE + 90 * SCALE, TOP + (250 - 50) * SCALE)
    assert place_of(gone) == (SIDE + 110 * SCALE, TOP + (250 - 10) * SCALE)
    assert (title(moved), title(gone)) == (f"{WEST}/100 0101 移位 moved 4.00 m", f"{WEST}/105 0101 消失 gone")
    ring = moved.find(f"{SVG}circle")
    assert ring is not None
    assert (float(ring.attrib["cx"]), float(ring.attrib["cy"])) == (SIDE + 10 * SCALE, TOP + 240 * SCALE)
    line = [float(number) for number in re.findall(r"[0-9.]+", str(moved.find(f"{SVG}path").attrib["d"]))]  # type: ignore[union-attr]
    assert line[0] == line[2] == SIDE + 10 * SCALE, "north is up"
    assert line[3] < line[1]
    assert svg.decode().count("h0") == 4 + 1, "four as they were, and the legend's"
    for words in (WEST, "北 N", "50 米 m", "新增 added: 1", "消失 gone: 1", "移位 moved: 1", "3307.25", "649.50"):
        assert words in svg.decode()


def test_what_was_recalled_and_erased_since_is_not_drawn_and_the_rest_is(acts: Acts) -> None:
    told(acts, "m-1", a_sheet(WEST, *[(COVER, 10.0 + 20 * n, 10.0) for n in range(6)]))
    told(acts, "m-2", a_sheet(WEST, (COVER, 10, 14), *[(COVER, 30.0 + 20 * n, 10.0) for n in range(4)], (LAMP, 90, 50)))
    drawn = {kind: len(marks(picture_of("made-up", "m-2", acts.bus), kind)) for kind in ("added", "gone", "moved")}
    assert drawn == {"added": 1, "gone": 1, "moved": 1}
    acts.bus.store.recall("made-up", "m-1", acts.bus.clock())
    svg = picture_of("made-up", "m-2", acts.bus)
    assert {kind: len(marks(svg, kind)) for kind in drawn} == drawn
    assert svg.decode().count("h0") == 4 + 1
    acts.bus.store.erase("made-up", "m-1", acts.bus.clock(), "2026-11-29")
    svg = picture_of("made-up", "m-2", acts.bus)
    assert {kind: len(marks(svg, kind)) for kind in drawn} == {"added": 2, "gone": 0, "moved": 0}
    dots = re.findall(r"M([-0-9.]+) ([-0-9.]+)h0", svg.decode())
    assert all(0 <= float(at) <= 1_200 for place in dots for at in place), "no place is far from the sheet"


def place_of(mark: etree._Element) -> tuple[float, ...]:
    return tuple(map(float, re.findall(r"[0-9.]+", mark.attrib["transform"])[:2]))


def test_there_is_no_picture_of_what_did_not_come_by_sheets_or_is_not_there(acts: Acts) -> None:
    told(acts, "m-1", covers("A"), FEED)
    acts.push("m-2", a_sheet(WEST, (COVER, 10, 10)), MAP)
    told(acts, "m-3", covers("B"), FEED)
    for message_id, code in (("m-0", "delivery.unknown"), ("m-1", "sheet.no_picture"), ("m-2", "report.not_ready")):
        with pytest.raises(Refusal, match=code.replace(".", r"\.")):
            picture_of("made-up", message_id, acts.bus)
    while process(MAP, acts.bus):
        pass
    picture_of("made-up", "m-2", acts.bus)
    with pytest.raises(Refusal, match=r"delivery\.unknown"):
        picture_of("curious", "m-2", acts.bus)


def a_difference(**said: object) -> pl.DataFrame:
    row = {"kind": "added", "source_key": "K", "class_code": "0101", "x": 649_600.0, "y": 3_307_100.0, **said}
    return conform(pl.DataFrame([row]), DIFFERENCE)


@pytest.mark.parametrize(
    "key", ["</title><script>alert(1)</script>", "\"&<>'", "\x00\x1b\ufffe", "{} {}", "䶮\U0001f4a7"]
)
def test_nothing_that_a_bureau_wrote_is_markup(key: str) -> None:
    caption = Caption(f"地形图 {key}", key, "2026-11-29")
    for kind in ("added", "moved", "gone", "changed"):
        difference = a_difference(kind=kind, source_key=key, x_before=649_601.0, y_before=3_307_100.0, moved_m=1.0)
        svg = picture(difference, [sheet_of(WEST)], "50x50", caption)
        assert "<script" not in svg
        (mark,) = marks(svg, kind)
        clean = "".join(letter for letter in key if letter.isprintable() and letter != "\ufffe")
        assert title(mark).startswith(f"{clean} 0101 ")


def test_very_many_changes_are_one_line_a_kind_and_a_small_file() -> None:
    many = ONE_BY_ONE + 1
    kinds = ("added", "moved", "gone", "changed", "unchanged")
    one = pl.concat(a_difference(kind=k, moved_m=2.0, x_before=649_602.0, y_before=3_307_100.0) for k in kinds)
    things = one.select(pl.all().repeat_by(many).explode())
    svg = picture(things, [sheet_of(WEST)], "50x50", Caption("", "", ""))
    etree.fromstring(svg.encode(), etree.XMLParser(huge_tree=True))
    assert len(svg) < 100 * 5 * many
    assert not marks(svg, "added")


def test_a_picture_of_nothing_is_a_frame() -> None:
    svg = picture(pl.DataFrame(schema=DIFFERENCE), [sheet_of(WEST)], "50x40", Caption("", "", ""))
    root = etree.fromstring(svg.encode())
    frame = root.find(f"{SVG}rect[@class='frame']")
    assert frame is not None
    assert (frame.attrib["width"], frame.attrib["height"]) == ("1000.0", "800.0")
