"""图幅 A new version of a sheet replaces its own extent; things keep their keys; on a seam one thing is one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from connectors.formats import dxf
from exchange import processing
from exchange.cli.sheet_preview import sheet_preview
from exchange.previewing import preview
from exchange.processing import process
from mappings.apply import take
from security.batch import unverified
from security.message import in_memory
from tests.acts.bench_of_one import Acts, both_acts
from tests.acts.maps import COVER, EAST, FEED_OF_MAP, LAMP, MAP, WEST, a_sheet


@pytest.fixture
def acts(tmp_path: Path) -> Iterator[Acts]:
    with both_acts(tmp_path, **{MAP: FEED_OF_MAP}) as acts:
        acts.trial.grant("made-up", "push", MAP)
        yield acts


def sent(acts: Acts, message_id: str, content: bytes) -> dict[str, Any]:
    """What the report says of a delivery."""
    acts.push(message_id, content, MAP)
    while process(MAP, acts.bus):
        pass
    octets = acts.bus.journal.report("made-up", message_id)
    assert octets is not None
    document = unverified(octets)
    return {"outcome": document["outcome"], **document["report"]}


def standing(acts: Acts) -> list[str]:
    rows = acts.bus.store.connection().execute("SELECT source_key FROM claims WHERE valid_to_us IS NULL")
    return sorted(key for (key,) in rows)


def kinds(report: dict[str, Any]) -> dict[str, int]:
    sheet = report["sheet"]
    return {kind: sheet[kind] for kind in ("added", "moved", "changed", "gone", "unchanged", "on_seam") if sheet[kind]}


def test_a_first_sheet_is_all_new_and_named_by_what_is_written(acts: Acts) -> None:
    report = sent(acts, "m-1", a_sheet(WEST, (COVER, 10, 10), (LAMP, 20, 20)))
    assert report["outcome"] == "processed"
    assert (report["sheet"]["numbers"], report["sheet"]["basis"]) == ([WEST], "stated")
    assert kinds(report) == {"added": 2}
    assert standing(acts) == [f"{WEST}/100", f"{WEST}/101"]


def test_a_new_version_with_all_handles_anew_says_what_was_done_and_nothing_else(acts: Acts) -> None:
    things = [(COVER, 10.0 + 20 * n, 10.0) for n in range(6)]
    sent(acts, "m-1", a_sheet(WEST, *things))
    later = [*things[:3], (COVER, 73.0, 11.0), things[5], (LAMP, 200, 20)]
    report = sent(acts, "m-2", a_sheet(WEST, *later, skip=2, turned={1: 90.0}))
    assert kinds(report) == {"added": 1, "moved": 1, "changed": 1, "gone": 1, "unchanged": 3}
    moved, gone = report["sheet"]["first"]["moved"], report["sheet"]["first"]["gone"]
    assert [(one["source_key"], one["moved_m"]) for one in moved] == [(f"{WEST}/103", "3.16")]
    assert [one["source_key"] for one in gone] == [f"{WEST}/104"]
    assert (report["new"], report["changed"], report["unchanged"], report["gone"]) == (1, 2, 3, 1)
    assert sent(acts, "m-3", a_sheet(WEST, *later, turned={1: 90.0}))["unchanged"] == 6


def test_a_sheet_ends_nothing_outside_its_own_extent(acts: Acts) -> None:
    sent(acts, "m-1", a_sheet(WEST, (COVER, 10, 10), (COVER, 50, 10)))
    report = sent(acts, "m-2", a_sheet(EAST, (COVER, 260, 10), (LAMP, 300, 10)))
    assert kinds(report) == {"added": 2}
    assert kinds(sent(acts, "m-3", a_sheet(EAST, (COVER, 260, 10)))) == {"gone": 1, "unchanged": 1}
    assert len(standing(acts)) == 3


def test_a_sheet_without_a_component_is_a_delivery_and_waits_for_a_person_where_much_stood(acts: Acts) -> None:
    assert sent(acts, "m-0", a_sheet(EAST))["outcome"] == "processed"
    sent(acts, "m-1", a_sheet(WEST, (COVER, 10, 10), (COVER, 50, 10)))
    report = sent(acts, "m-2", a_sheet(WEST, skip=1))
    assert (report["outcome"], report["would_end"], report["gone_percent"]) == ("held", 2, "100.0")


def test_a_sheet_that_was_signed_before_another_one_came_is_news_all_the_same(acts: Acts) -> None:
    east = acts.delivery("m-2", a_sheet(EAST, (COVER, 260, 10)), MAP)
    west = acts.delivery("m-1", a_sheet(WEST, (COVER, 10, 10)), MAP)
    acts.receive(west)
    while process(MAP, acts.bus):
        pass
    acts.receive(east)
    while process(MAP, acts.bus):
        pass
    assert standing(acts) == [f"{WEST}/100", f"{EAST}/100"]


SEAMS = ((249.995, 250.005), (250.0, 250.0), (249.9, 250.1), (250.005, 249.995))


@pytest.mark.parametrize("order", ["west first", "east first"])
@pytest.mark.parametrize(("in_west", "in_east"), SEAMS)
def test_a_thing_on_a_seam_is_one_whichever_sheet_comes_first_and_comes_again(
    acts: Acts, order: str, in_west: float, in_east: float
) -> None:
    west = a_sheet(WEST, (COVER, in_west, 100), (COVER, 20, 100))
    east = a_sheet(EAST, (COVER, in_east, 100), (COVER, 280, 100))
    first, second = (west, east) if order == "west first" else (east, west)
    assert kinds(sent(acts, "m-1", first)) == {"added": 2}
    sent(acts, "m-2", second)
    assert len(standing(acts)) == 3
    before = standing(acts)
    for message_id, content in (("m-3", first), ("m-4", second), ("m-5", first)):
        report = sent(acts, message_id, content)
        assert (report["new"], report["gone"]) == (0, 0)
    assert standing(acts) == before
    assert acts.bus.store.ledger().components == 3


@pytest.mark.parametrize(("number", "at"), [(WEST, 249.995), (WEST, 250.005), (EAST, 249.995), (EAST, 250.005)])
def test_a_thing_on_a_seam_is_there_when_one_of_the_two_sheets_is(acts: Acts, number: str, at: float) -> None:
    assert kinds(sent(acts, "m-1", a_sheet(number, (COVER, at, 100), (COVER, 20 if number == WEST else 280, 9)))) == {
        "added": 2
    }


def test_what_was_said_badly_is_not_gone(acts: Acts) -> None:
    sent(acts, "m-1", a_sheet(WEST, (COVER, 10, 10), (COVER, 50, 10)))
    report = sent(acts, "m-2", a_sheet(WEST, (COVER, 10, 10), ("gc999", 50, 10)))
    assert (report["rejected"], report["gone"]) == (1, 0)


def test_a_handle_that_comes_again_for_another_thing_is_another_key(acts: Acts) -> None:
    sent(acts, "m-1", a_sheet(WEST, (COVER, 10, 10), (COVER, 50, 10), (COVER, 90, 10)))
    for message_id, place in (("m-2", 130), ("m-3", 170)):
        sent(acts, message_id, a_sheet(WEST, (LAMP, place, 10), (COVER, 50, 10), (COVER, 90, 10)))
    assert standing(acts) == [f"{WEST}/100~3", f"{WEST}/101", f"{WEST}/102"]


def test_what_comes_back_under_its_handle_is_what_it_was(acts: Acts) -> None:
    things = [(COVER, 10, 10), (COVER, 50, 10), (COVER, 90, 10)]
    sent(acts, "m-1", a_sheet(WEST, *things))
    sent(acts, "m-2", a_sheet(WEST, *things[:2]))
    assert kinds(sent(acts, "m-3", a_sheet(WEST, *things))) == {"added": 1, "unchanged": 2}
    assert acts.bus.store.ledger().components == 3


def test_a_thousand_symbols_on_one_spot_keep_their_keys(acts: Acts) -> None:
    crowd = [(COVER, 10.0, 10.0)] * 1000
    sent(acts, "m-1", a_sheet(WEST, *crowd))
    before = standing(acts)
    assert kinds(sent(acts, "m-2", a_sheet(WEST, *crowd[:990], skip=7))) == {"unchanged": 990, "gone": 10}
    assert set(standing(acts)) < set(before)


def test_a_preview_says_what_the_report_then_says_and_keeps_nothing(acts: Acts) -> None:
    sent(acts, "m-1", a_sheet(WEST, *[(COVER, 10.0 + 20 * n, 10.0) for n in range(6)]))
    later = a_sheet(WEST, (COVER, 12, 10), *[(COVER, 30.0 + 20 * n, 10.0) for n in range(4)], (LAMP, 90, 20), skip=1)
    before = acts.bus.journal.size(), acts.bus.store.ledger()
    told = previewed(acts, later)
    assert (acts.bus.journal.size(), acts.bus.store.ledger()) == before
    assert told.pop("compared")
    assert told == sent(acts, "m-2", later)["sheet"]
    assert kinds({"sheet": told}) == {"added": 1, "moved": 1, "unchanged": 4, "gone": 1}


def test_a_preview_says_why_a_sheet_would_be_refused_or_held(acts: Acts) -> None:
    assert previewed(acts, a_sheet(EAST, (COVER, 10, 10)))["refused"]["code"] == "sheet.number_contradicts"
    sent(acts, "m-1", a_sheet(WEST, *[(COVER, 10.0 + 20 * n, 10.0) for n in range(6)]))
    assert previewed(acts, a_sheet(WEST, (COVER, 10, 10)))["would_be_held"] == "83.3"


def previewed(acts: Acts, content: bytes) -> dict[str, Any]:
    feed = acts.bus.feeds[MAP]
    records = pl.concat(take(batch.frame, feed) for batch in dxf.decode([in_memory(content)], feed.options))
    now, at = acts.bus.boundaries.now(), acts.bus.clock()
    foreseen = preview(records, feed, now, acts.bus.store, limit_m=1.0, shown=10, at=at)
    told: dict[str, Any] = sheet_preview(foreseen, feed, acts.bus.store, at).document
    return dict(told["sheet"])


# Which sheet it is


@pytest.mark.parametrize(
    ("content", "numbers", "basis"),
    [
        (a_sheet("07.00-49.50", (COVER, 10, 10)), [WEST], "stated"),
        (a_sheet("图号：7.00-649.50", (COVER, 10, 10)), [WEST], "stated"),
        (a_sheet("", (COVER, 10, 10)), [WEST], "computed"),
        (a_sheet("", (COVER, 249, 10), (COVER, 252, 10), (COVER, 300, 10)), [EAST], "computed"),
        (a_sheet("", skip=1), [WEST], "computed"),
    ],
)
def test_a_sheet_is_told_by_its_number_or_else_by_what_is_drawn(
    acts: Acts, content: bytes, numbers: list[str], basis: str
) -> None:
    sheet = sent(acts, "m-1", content)["sheet"]
    assert (sheet["numbers"], sheet["basis"]) == (numbers, basis)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (a_sheet("3307.00-649.60", (COVER, 10, 10)), "sheet.number_unfit"),
        (a_sheet("649.50-3307.00", (COVER, 10, 10)), "sheet.number_outside_city"),
        (a_sheet(EAST, (COVER, 10, 10)), "sheet.number_contradicts"),
        (a_sheet(EAST, (COVER, 10, 10), (COVER, 20, 10), (COVER, 260, 10)), "sheet.number_contradicts"),
        (a_sheet("", (COVER, 10, 10), (COVER, 300, 10)), "sheet.ambiguous"),
        (a_sheet(""), "sheet.ambiguous"),
    ],
)
def test_a_sheet_that_cannot_be_told_is_refused_by_name(acts: Acts, content: bytes, code: str) -> None:
    report = sent(acts, "m-1", content)
    assert (report["outcome"], report["code"]) == ("refused", code)
    assert report["sentence"]["next_zh"]


def test_what_lies_far_beyond_the_sheet_is_rejected_and_the_rest_is_taken(acts: Acts) -> None:
    report = sent(acts, "m-1", a_sheet(WEST, (COVER, 10, 10), (COVER, 20, 10), (COVER, 254, 10), (COVER, 256, 10)))
    assert (report["new"], report["rejected"]) == (3, 1)
    assert [finding["code"] for finding in report["findings"] if finding["severity"] == "error"] == ["sheet.outside"]


def test_a_drawing_of_two_sheets_that_names_both_replaces_both(acts: Acts) -> None:
    both = [(COVER, 10.0, 10.0), (COVER, 50.0, 10.0), (COVER, 300.0, 10.0)]
    report = sent(acts, "m-1", with_number(a_sheet(WEST, *both), EAST))
    assert (report["sheet"]["numbers"], kinds(report)) == ([WEST, EAST], {"added": 3})
    report = sent(acts, "m-2", with_number(a_sheet(WEST, both[0], both[2]), EAST))
    assert kinds(report) == {"gone": 1, "unchanged": 2}
    assert kinds(sent(acts, "m-3", a_sheet(EAST, both[2]))) == {"unchanged": 1}


def test_a_neighbour_s_number_beside_the_frame_ends_nothing_there(acts: Acts) -> None:
    """接图表: the grid of neighbours, drawn beside the sheet's own frame; a kerb runs over the edge by a metre."""
    sent(acts, "m-1", a_sheet(EAST, (COVER, 300, 10)))
    drawing = with_number(a_sheet(WEST, (COVER, 10, 10), (COVER, 251, 10)), EAST)
    report = sent(acts, "m-2", drawing)
    assert (report["outcome"], report["code"]) == ("refused", "sheet.number_contradicts")
    assert report["detail"].startswith(EAST)


def with_number(octets: bytes, number: str) -> bytes:
    """The drawing with one more number written in it."""
    tags = f"0 TEXT 5 FFFF 8 TK 10 649875.0 20 3307256.0 30 0.0 40 1.0 1 {number} "
    head, entities, rest = octets.partition(b"2\r\nENTITIES\r\n")
    return head + entities + tags.encode().replace(b" ", b"\r\n") + rest


def test_a_crash_between_store_and_report_changes_nothing_that_the_report_says(acts: Acts) -> None:
    things = [(COVER, 10.0, 10.0), (COVER, 50.0, 10.0), (COVER, 252.0, 10.0)]
    sent(acts, "m-1", a_sheet(WEST, *things[:2]))
    acts.push("m-2", a_sheet(WEST, (COVER, 12.0, 10.0), things[2], (LAMP, 90.0, 10.0)), MAP)

    def crash(name: str) -> None:
        if name == "store.commit:after":
            raise OSError(name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processing, "durable_step", crash)
        with pytest.raises(OSError, match=r"store\.commit:after"):
            process(MAP, acts.bus)
    while process(MAP, acts.bus):
        pass
    report = unverified(acts.bus.journal.report("made-up", "m-2") or b"")["report"]
    assert kinds(report) == {"added": 2, "moved": 1, "gone": 1}
    assert (report["new"], report["changed"], report["gone"], report["ignored"]) == (2, 1, 1, 1)
    assert pl.DataFrame(report["findings"]).filter(pl.col("code") == "sheet.on_seam").is_empty()
