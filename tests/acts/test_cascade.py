"""A district's way up: what is sent when, after a crash, a cut, a store that was put back; and what never leaves."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from exchange.cascade import Cascade, Upward
from exchange.processing import process
from exchange.provenance import read
from security.errors import ExchangeError, Refusal, Unavailable
from security.message import Content
from tests.acts.bench_of_one import FEED, Acts, both_acts, covers

HEADER = "编号,类别,经度,纬度"


class City:
    """The city's node as far as a district hears it: it keeps what came, may be away, and may fall silent after."""

    def __init__(self) -> None:
        self.away = self.silent = False
        self.heads: list[int] = []
        self.came: list[tuple[str, bytes]] = []

    def known_size(self) -> int:
        if self.away:
            raise Unavailable("no line")
        return self.heads[-1] if self.heads else 0

    def hand_in(self, checkpoint: str, known: int, nodes: tuple[bytes, ...]) -> int:
        self.heads.append(int(checkpoint.splitlines()[1]))
        return self.heads[-1]

    def push(self, feed: str, content: Content, content_type: str, message_id: str) -> None:
        self.came.append((message_id, content.read()))
        if self.silent:
            raise Unavailable("the line broke after the city had it")

    def records(self, number: int) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.came[number][1].decode())))


class Bench:
    """A district's bus, whose bureau delivers, and the city above it."""

    def __init__(self, acts: Acts) -> None:
        self.acts, self.city = acts, City()
        self.cascade = self.opened()

    def opened(self, **said: int) -> Cascade:
        """As a new process opens it."""
        upward = Upward("city", "haishu-components", **{"records": 2, **said})
        return Cascade(self.acts.bus, upward, self.city, self.city.push)

    def deliver(self, name: str, content: bytes) -> None:
        self.acts.push(name, content)
        process(FEED, self.acts.bus)

    def drain(self) -> list[int]:
        """Send until nothing is left; gives how many records each delivery had."""
        found = []
        while (one := self.cascade.send()) is not None:
            found.append(one.records)
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with both_acts(tmp_path) as acts:
        acts.trial.grant("made-up", "push", FEED)
        acts.trial.enrol("city", "City", "市级平台", "case system")
        yield Bench(acts)


def granted(bench: Bench, **limits: tuple[str, ...]) -> str:
    return bench.acts.trial.grant("city", "subscribe", "cascade", **limits)


def test_every_component_goes_up_once_with_its_sources_under_a_head_that_went_before(bench: Bench) -> None:
    granted(bench)
    bench.deliver("d1", covers("C", 5))
    assert bench.drain() == [2, 2, 1]
    records = [record for number in range(3) for record in bench.city.records(number)]
    assert [record["部件标识码"][-6:] for record in records] == [f"{n:06}" for n in range(1, 6)]
    receipt = bench.acts.bus.journal.inbox("made-up", "d1")
    assert receipt is not None
    said = read(records[0]["来源"])
    assert said is not None
    assert [(one.bureau, one.message_id, one.entry) for one in said.claims] == [("made-up", "d1", receipt.entry_index)]
    assert all(head > receipt.entry_index for head in bench.city.heads)


def test_a_crash_after_the_city_had_it_sends_the_same_octets_under_the_same_name(bench: Bench) -> None:
    granted(bench)
    bench.deliver("d1", covers("C", 2))
    bench.city.silent = True
    with pytest.raises(Unavailable):
        bench.cascade.send()
    bench.city.silent, bench.cascade = False, bench.opened()
    bench.deliver("d2", f"{HEADER}\nC-0,0101,121.5475,29.8685\n".encode())  # meanwhile it changed
    assert bench.drain() == [2, 1]
    first, again, after = bench.city.came
    assert again == first
    assert after[0] != first[0]
    assert bench.city.records(2)[0]["经度"] == "121.5475"


def test_a_cut_district_works_on_and_tells_each_component_as_it_is_then(bench: Bench) -> None:
    granted(bench)
    bench.city.away = True
    for number in range(3):
        bench.deliver(f"d{number}", f"{HEADER}\nC-0,0101,121.5{number + 46}5,29.868\n".encode())
        with pytest.raises(Unavailable):
            bench.opened(records=5).send()
    bench.city.away = False
    bench.cascade = bench.opened(records=5)
    # What lay in the outbox when the line was cut goes first, then what became of it: never the other way round.
    assert bench.drain() == [1, 1]
    assert [bench.city.records(number)[0]["经度"] for number in range(2)] == ["121.5465", "121.5485"]


def test_nothing_leaves_without_a_grant_and_no_more_than_it_shows(bench: Bench) -> None:
    bench.deliver("d1", f"{HEADER}\nA,0101,121.547,29.868\nB,0118,121.548,29.868\n".encode())
    with pytest.raises(Refusal, match=r"cascade\.no_grant"):
        bench.cascade.send()
    granted(bench, classes=("CJ/T 214-2007:0118",), attributes=("state",))
    assert bench.drain() == [1]
    (record,) = bench.city.records(0)
    assert (record["小类代码"], record["权属单位"]) == ("0118", "")  # 某单位 is what the feed says of the owner
    entry = bench.acts.bus.journal.search(type="read")[0]
    assert (entry.leaf.outcome, entry.leaf.sender) == ("cascaded", "city")


def test_what_ended_goes_up_as_ended(bench: Bench) -> None:
    granted(bench)
    bench.deliver("d1", covers("C", 1))
    bench.drain()
    bench.acts.recall(bench.acts.recalling("d1"))
    process(FEED, bench.acts.bus)
    assert bench.drain() == [1]
    assert [record["已注销"] for record in (bench.city.records(0)[0], bench.city.records(1)[0])] == ["", "是"]


def test_another_grant_and_a_store_that_was_put_back_begin_anew_under_other_names(bench: Bench) -> None:
    granted(bench)
    bench.deliver("d1", covers("C", 2))
    bench.drain()
    granted(bench)
    path = bench.acts.bus.folder / "cascade-up.json"
    bench.drain()
    path.write_bytes(path.read_bytes().replace(b'"after":2', b'"after":2000'))
    bench.drain()
    bench.cascade.anew()
    bench.drain()
    names = [name for name, _ in bench.city.came]
    assert len({content for _, content in bench.city.came}) == 1
    assert len(set(names)) == len(names) > 2


def test_a_cursor_that_cannot_be_read_stops_it_by_name(bench: Bench) -> None:
    granted(bench)
    (bench.acts.bus.folder / "cascade-up.json").write_bytes(b"{")
    with pytest.raises(ExchangeError, match=r"cascade-up\.json"):
        bench.cascade.send()
