"""持有的连续测图 A large-scale map is not gathered here, sheet by sheet, beyond what may be held in one piece."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from exchange.app import places
from exchange.cli.people import registry
from exchange.cli.trial import SYSTEM
from exchange.doctor.check import Check, Examined
from exchange.doctor.examine import look
from exchange.evidence import is_sealed
from exchange.processing import process
from tests.acts.bench_of_one import FEED, REGISTER, Acts, both_acts, covers

MAP = "made-up-map"
MAP_FILE = REGISTER.replace(f'"{FEED}"', f'"{MAP}"').replace("accuracy", "scale = 500\naccuracy")
MOST_KM2 = 0.05  # four cells of 100 m
STEP = 0.001  # degrees, a cell


def sheet(key: str, cells: range, column: int = 0) -> bytes:
    """A cover in each of the cells, from south to north."""
    rows = [f"{key}-{n},0101,{121.5475 + column * STEP:.6f},{29.8685 + n * STEP:.6f}" for n in cells]
    return "\n".join(["编号,类别,经度,纬度", *rows, ""]).encode()


@pytest.fixture
def acts(tmp_path: Path) -> Iterator[Acts]:
    with both_acts(tmp_path, {"also": {"limits": {"held_map_km2": MOST_KM2}}}, **{MAP: MAP_FILE}) as acts:
        acts.trial.grant("made-up", "push", MAP)
        acts.trial.grant("made-up", "push", FEED)
        yield acts


def fate(acts: Acts, message_id: str, content: bytes, feed: str = MAP) -> str:
    """What becomes of a delivery: its status, or the code by which it was refused or held."""
    acts.push(message_id, content, feed)
    process(feed, acts.bus)
    row = acts.bus.journal.inbox("made-up", message_id)
    assert row is not None
    entry = acts.bus.journal.search(type="processing")[0]
    assert entry.detail is not None
    return str(entry.detail.get("code", row.status))


def nearness(acts: Acts) -> Check:
    settings = acts.trial.settings
    state, keys = settings.at(settings.state.folder), settings.at(settings.keys.folder)
    (found,) = look(Examined(settings, state, keys, places.utc_now(), 0), "map.held")
    return found


def test_the_sheet_that_would_make_the_held_map_too_large_is_refused_and_sealed(acts: Acts) -> None:
    assert fate(acts, "m-1", sheet("A", range(2))) == "processed"
    assert fate(acts, "m-2", sheet("B", range(2, 5))) == "content.map_too_large"
    row = acts.bus.journal.inbox("made-up", "m-2")
    assert row is not None
    assert is_sealed(row.evidence)
    assert acts.bus.store.ledger().components == 2
    assert fate(acts, "m-3", sheet("B", range(2, 4))) == "processed", "what fits is taken"


def test_pieces_that_do_not_touch_are_each_measured_alone(acts: Acts) -> None:
    assert fate(acts, "m-1", sheet("A", range(4))) == "processed"
    assert fate(acts, "m-2", sheet("B", range(4), column=2)) == "processed"
    assert fate(acts, "m-3", sheet("C", range(1), column=1)) == "content.map_too_large", "it joins the two"


def test_a_register_is_no_map_and_counts_for_none(acts: Acts) -> None:
    assert fate(acts, "m-1", covers("R", 60), FEED) == "processed"
    assert fate(acts, "m-2", sheet("A", range(2), column=3)) == "processed"


def test_a_map_that_says_the_same_again_brings_nothing_more(acts: Acts) -> None:
    assert fate(acts, "m-1", sheet("A", range(4))) == "processed"
    assert fate(acts, "m-2", sheet("A", range(4))) == "processed"


def test_where_the_settings_say_so_a_person_may_let_it_through(acts: Acts) -> None:
    holding = acts.with_(on_classified="hold")
    assert fate(holding, "m-1", sheet("A", range(5))) == "content.map_too_large"
    row = acts.bus.journal.inbox("made-up", "m-1")
    assert row is not None
    assert row.status == "held"
    with registry(acts.trial.settings) as opened:
        opened.decide_delivery(row.id, "release", SYSTEM)
    process(MAP, holding.bus)
    assert acts.bus.store.ledger().components == 5


def test_the_doctor_says_how_much_is_held_and_when_it_nears_the_limit(acts: Acts) -> None:
    assert fate(acts, "m-1", sheet("A", range(3))) == "processed"
    assert nearness(acts).ok
    assert "0.03 km²" in nearness(acts).en
    assert fate(acts, "m-2", sheet("B", range(3, 4))) == "processed"
    assert not nearness(acts).ok
    assert msgspec.to_builtins(nearness(acts))["next_zh"]
