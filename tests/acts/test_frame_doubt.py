"""坐标存疑 A delivery in another frame than its feed says is held with what it looks like; an ordinary one never is."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from exchange import replaying
from exchange.cli.people import registry
from exchange.cli.trial import SYSTEM
from exchange.dead_letters import Wanted
from exchange.deflected import gcj02_of
from exchange.feed_turn import take_turn
from exchange.replay_preview import foresee
from exchange.replaying import Replayer
from tests.acts.bench_of_one import FEED, REGISTER, Acts, both_acts
from tests.components.frames_of_one import Numbers, moved, turned

DEGREES = "covers-in-degrees"
PLANE = "covers-in-metres"
CODE = "position.frame_doubtful"
CLASSES = ("0101", "0102", "0103")
IN_METRES = (
    REGISTER.replace(FEED, PLANE)
    .replace('"EPSG:4490"', '"EPSG:4549"')
    .replace("longitude_deg", "easting_m")
    .replace("latitude_deg", "northing_m")
    .replace('"degrees"', '"metres"')
)


class Covers:
    """Two hundred covers all over the made-up city, in any frame."""

    def __init__(self, seed: int = 1, count: int = 200) -> None:
        chance = np.random.default_rng(seed)
        self.degrees = chance.uniform(121.5445, 121.5565, count), chance.uniform(29.8655, 29.8735, count)
        self.classes = chance.choice(CLASSES, count)

    def on(self, crs: str) -> tuple[Numbers, Numbers]:
        return moved("EPSG:4490", crs, *self.degrees)

    def told(self, x: Numbers, y: Numbers, key: str = "K") -> bytes:
        rows = [f"{key}{n},{self.classes[n]},{x[n]:.8f},{y[n]:.8f}" for n in range(len(x))]
        return "\n".join(["编号,类别,经度,纬度", *rows, ""]).encode()


@pytest.fixture(scope="module")
def covers() -> Covers:
    return Covers()


@pytest.fixture
def acts(tmp_path: Path, covers: Covers) -> Iterator[Acts]:
    """A bus to which a register said where the covers are."""
    more = {DEGREES: REGISTER.replace(FEED, DEGREES), PLANE: IN_METRES}
    with both_acts(tmp_path, None, **more) as acts:
        for feed in (FEED, DEGREES, PLANE):
            acts.trial.grant("made-up", "push", feed)
        assert sent(acts, "known", covers.told(*covers.degrees), FEED) == "processed"
        yield acts


def sent(acts: Acts, message_id: str, content: bytes, feed: str) -> str:
    acts.push(message_id, content, feed)
    take_turn(feed, acts.bus)
    return status(acts, message_id)


def status(acts: Acts, message_id: str) -> str:
    row = acts.bus.journal.inbox("made-up", message_id)
    assert row is not None
    return row.status


def report(acts: Acts, message_id: str) -> dict[str, Any]:
    row = acts.bus.journal.inbox("made-up", message_id)
    assert row is not None
    found: dict[str, Any] = json.loads(acts.bus.journal.ask(LAST_REPORT, row.id)[0][0])
    return found


LAST_REPORT = "SELECT document FROM reports WHERE inbox_id = ? ORDER BY entry_index DESC LIMIT 1"


def test_a_wrong_zone_is_held_with_the_line_that_is_wrong_and_replayed_once_that_is_released(
    acts: Acts, covers: Covers
) -> None:
    before = acts.bus.store.ledger()
    assert sent(acts, "zone", covers.told(*covers.on("EPSG:4550")), PLANE) == "held"
    said = report(acts, "zone")
    assert (said["code"], said["looks_like"], said["fix"]) == (CODE, "EPSG:4550", 'crs = "EPSG:4550"')
    assert (said["matched"], said["compared"], said["residual_cm"], said["outside_percent"]) == (
        *(200, 200),
        *("0.0", "100.0"),
    )
    assert "289,8" in said["detail"]
    assert "m west" in said["detail"]
    assert acts.bus.store.ledger() == before
    feed = msgspec.structs.replace(acts.bus.feeds[PLANE], crs="EPSG:4550", digest="ab" * 32)
    acts.trial.release(PLANE, feed.digest)
    feeds, digests = {**acts.bus.feeds, PLANE: feed}, {**acts.bus.feed_digests, PLANE: feed.digest}
    fixed = acts.with_(feeds=feeds, feed_digests=digests)
    with registry(fixed.trial.settings) as opened:
        replaying.begin(opened, Wanted(code=CODE), 0, "坐标系已更正", SYSTEM)
    Replayer(fixed.bus).step()
    take_turn(PLANE, fixed.bus)
    assert status(fixed, "zone") == "processed"
    after = acts.bus.store.ledger()
    assert (after.components, after.by_feed[PLANE]) == (before.components, 200)


def test_exchanged_axes_are_held_with_the_two_lines_exchanged(acts: Acts, covers: Covers) -> None:
    east, north = covers.on("EPSG:4549")
    assert sent(acts, "axes", covers.told(north, east), PLANE) == "held"
    assert report(acts, "axes")["fix"].splitlines() == [
        'easting_m = { from = "纬度", parse = "metres" }',
        'northing_m = { from = "经度", parse = "metres" }',
    ]


def test_degrees_in_a_feed_of_metres_are_held_with_the_lines_for_degrees(acts: Acts, covers: Covers) -> None:
    assert sent(acts, "degrees", covers.told(*covers.degrees), PLANE) == "held"
    assert report(acts, "degrees")["fix"].splitlines() == [
        'crs = "EPSG:4490"',
        'longitude_deg = { from = "经度", parse = "degrees" }',
        'latitude_deg = { from = "纬度", parse = "degrees" }',
    ]


def test_deflected_degrees_within_the_city_are_held_when_others_have_things_beside_them(
    acts: Acts, covers: Covers
) -> None:
    some = (covers.degrees[0] < 121.5515) & (covers.degrees[1] > 29.8685)
    part = Covers()
    part.degrees = covers.degrees[0][some], covers.degrees[1][some]
    part.classes = covers.classes[some]
    assert sent(acts, "gcj", part.told(*gcj02_of(*part.degrees)), DEGREES) == "held"
    said = report(acts, "gcj")
    assert (said["looks_like"], said["fix"]) == ("GCJ-02", 'crs = "GCJ-02"')
    assert said["outside_percent"] == "0.0"


def test_keys_that_all_moved_are_held(acts: Acts, covers: Covers) -> None:
    assert sent(acts, "moved", covers.told(*gcj02_of(*covers.degrees)), FEED) == "held"
    assert report(acts, "moved")["looks_like"] == "GCJ-02"


def test_a_shift_of_its_own_is_held_and_no_exact_figure_stands_anywhere(acts: Acts, covers: Covers) -> None:
    x, y = turned(*covers.on("EPSG:4549"), 0.3, by=-1276.987 - 4114.105j)
    assert sent(acts, "local", covers.told(x, y), PLANE) == "held"
    said = report(acts, "local")
    assert said["fix"] == 'crs = "local:NAME"'
    assert "4,300 m, turned by some 0.3°" in said["detail"]
    entries = [entry.leaf for entry in acts.bus.journal.search(type="processing", outcome="held")]
    assert entries
    told = json.dumps(said, ensure_ascii=False) + repr(entries)
    for secret in ("1276", "1,276", "1277", "1,277", "4114", "4,114", "0.30", "0.299"):
        assert secret not in told


def test_what_lies_elsewhere_is_held_and_said_to_fit_nothing(acts: Acts) -> None:
    other = Covers(seed=2)
    x, y = other.on("EPSG:4549")
    assert sent(acts, "elsewhere", other.told(x + 40_000, y + 30_000), PLANE) == "held"
    said = report(acts, "elsewhere")
    assert (said["verdict"], said["matched"], said["compared"]) == ("elsewhere", 0, 200)
    assert "fix" not in said


def test_a_person_lets_through_what_is_right_after_all(acts: Acts, covers: Covers) -> None:
    assert sent(acts, "swapped", covers.told(*covers.on("EPSG:4550")), PLANE) == "held"
    row = acts.bus.journal.inbox("made-up", "swapped")
    assert row is not None
    with registry(acts.trial.settings) as opened:
        opened.decide_delivery(row.id, "release", SYSTEM)
    take_turn(PLANE, acts.bus)
    assert status(acts, "swapped") == "processed"
    assert report(acts, "swapped")["rejected"] == 200


def test_of_several_deliveries_together_only_the_wrong_one_is_held(acts: Acts, covers: Covers) -> None:
    right, wrong = covers.on("EPSG:4549"), covers.on("EPSG:4550")
    for message_id, place in (("one", right), ("two", wrong), ("three", right)):
        acts.push(message_id, covers.told(*place, key=message_id), PLANE)
    take_turn(PLANE, acts.bus)
    assert [status(acts, id) for id in ("one", "two", "three")] == ["processed", "held", "processed"]


def test_a_preview_of_a_replay_foresees_the_doubt(acts: Acts, covers: Covers) -> None:
    assert sent(acts, "zone", covers.told(*covers.on("EPSG:4550")), PLANE) == "held"
    (foreseen,) = foresee(replaying.chosen(acts.bus.journal, Wanted(feed=PLANE)), acts.bus)
    assert (foreseen.outcome, foreseen.code) == ("held", CODE)


class TestOrdinary:
    """What nobody should be stopped by."""

    def test_the_same_things_by_another_bureau_in_another_frame(self, acts: Acts, covers: Covers) -> None:
        assert sent(acts, "right", covers.told(*covers.on("EPSG:4549")), PLANE) == "processed"

    def test_the_same_again_with_errors_of_measurement(self, acts: Acts, covers: Covers) -> None:
        noise = np.random.default_rng(3).normal(0, 2e-5, (2, 200))  # two metres
        assert sent(acts, "again", covers.told(*(covers.degrees + noise)), FEED) == "processed"

    def test_a_few_that_are_wrong_among_many_that_are_right(self, acts: Acts, covers: Covers) -> None:
        east, north = (axis.copy() for axis in covers.on("EPSG:4549"))
        east[:60], north[:60] = north[:60], east[:60].copy()
        assert sent(acts, "some", covers.told(east, north), PLANE) == "processed"
        assert report(acts, "some")["rejected"] == 60

    def test_new_things_beside_what_others_have(self, acts: Acts) -> None:
        other = Covers(seed=5, count=400)
        assert sent(acts, "new", other.told(*other.degrees), DEGREES) == "processed"

    def test_a_small_delivery_however_wrong(self, acts: Acts, covers: Covers) -> None:
        few = Covers(count=19)
        assert sent(acts, "few", few.told(*few.on("EPSG:4550")), PLANE) == "processed"
        assert report(acts, "few")["rejected"] == 19

    def test_lamps_in_a_row_beside_other_lamps_in_a_row(self, acts: Acts) -> None:
        rows = [f"L{n},0103,{121.545 + n * 1e-4:.6f},29.87" for n in range(100)]
        beside = [f"M{n},0103,{121.54505 + n * 1e-4:.6f},29.87002" for n in range(100)]
        for message_id, lines, feed in (("one", rows, FEED), ("two", beside, DEGREES)):
            content = "\n".join(["编号,类别,经度,纬度", *lines, ""]).encode()
            assert sent(acts, message_id, content, feed) == "processed"
