"""`python -m bench.cascade --districts 10`: a city's node and district nodes as processes; one is cut off, one killed.

Every node is a whole bus of its own: `serve` with its worker, embedded engines, its own keys, log and store. Between
each district and the city lies a relay of this script's, which can be cut. At the end the nodes' registers are
compared, and each record's way is followed: from what the city answers, over the head of the district's log that it
keeps, to the receipt that the bureau has.
"""

import argparse
import contextlib
import json
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec

from connectors.partner.folder import PartnerFolder
from connectors.partner.log import Log
from exchange.app import levels, opening, trusted
from exchange.cli.output import print_table
from exchange.cli.trial import City, Trial
from exchange.ownership import OwnershipAnswer, components, ownership
from exchange.provenance import Provenance, read
from exchange.receipts import verify_receipt
from exchange.rights import EVERYTHING
from exchange.store.asking import Chosen
from exchange.store.embedded import Embedded
from exchange.store.store import Store
from samples import cascade as sample
from security import merkle
from security.anchors import Anchors
from security.errors import ExchangeError
from security.message import in_memory
from tests.registers import a_register

DIVISIONS: Final = (
    *("330203", "330205", "330206", "330211", "330212"),
    *("330213", "330225", "330226", "330281", "330282"),
)
WEST, SOUTH, SIDE = 121.5, 29.86, 0.01  # degrees; the districts lie side by side
FEED: Final = "made-up-register"
REGISTER: Final = a_register(
    FEED,
    "Register",
    "设施",
    fields="""state = { from = "状态" }
owner_name = { from = "权属单位" }
authority_name = { from = "权属单位" }
removed = { from = "已拆除", parse = "yes_no" }
""",
)
CLASSES: Final = ("0101", "0102", "0113", "0118")
RESULT: Final = Path(__file__).parent / "cascade.json"
EVERY_S, PER_S = 0.5, 4.0
RECORDS: Final = 50  # components a delivery that goes up
PATIENCE_S: Final = 180.0

Row = tuple[str, str, float, float, str, str]


class Relay:
    """A line between two places: connections to `port` go on to the target, until it is cut."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self.target = 0
        self._whole = True
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """What is on its way is lost; what comes is dropped."""
        self._whole = False
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def heal(self) -> None:
        """Let it through again."""
        self._whole = True

    def close(self) -> None:
        """End it for good."""
        self.cut()
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = self._listening.accept()
                threading.Thread(target=self._carry, args=(here,), daemon=True).start()

    def _carry(self, here: socket.socket) -> None:
        with contextlib.suppress(OSError), here:
            if not self._whole:
                return
            with socket.create_connection(("127.0.0.1", self.target)) as there:
                self._open |= {here, there}
                back = threading.Thread(target=_pump, args=(there, here), daemon=True)
                back.start()
                _pump(here, there)
                back.join()
                self._open -= {here, there}


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while octets := source.recv(65_536):
            sink.sendall(octets)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


class Node:
    """A district's node: its bus, its line to the city, and what its bureau sent."""

    def __init__(self, division: str, place: int, folder: Path, city: Trial, geometry: City) -> None:
        self.division, self.centre, self._place = division, f"centre-{division}", place
        self.relay = Relay()
        feeds = folder / "feeds"
        feeds.mkdir(parents=True)
        (feeds / f"{FEED}.toml").write_text(REGISTER, encoding="utf-8")
        up = {"city": "city", "url": f"https://localhost:{self.relay.port}", "feed": f"{self.centre}-components"}
        up |= {"partner": str(city.partners / self.centre), "reference": "reference"}
        self.trial = Trial(
            folder / "bus",
            msgspec.structs.replace(geometry, feeds=(feeds,)),
            origin=f"d{division}.yongtong.example",
            mqtt={"broker": "off"},
            also={
                "city": {name: f"reference/current/{name}.geojson" for name in ("districts", "grid")},
                "territory": {"divisions": [division]},
                "cascade": {**up, "every_s": EVERY_S, "deliveries_per_s": PER_S, "records": RECORDS},
            },
        )
        self.trial.enrol("made-up", "Made-up bureau", "某单位")
        self.trial.grant("made-up", "push", FEED)
        self.trial.enrol("city", "City", "市级平台", "case system")
        self.trial.grant("city", "subscribe", "cascade")
        self.sent = 0

    @property
    def anchors(self) -> Anchors:
        """What is trusted of it."""
        return trusted.anchors_of(self.trial.settings)

    def row(self, number: int, state: str = "完好", class_code: str = "", removed: str = "") -> Row:
        """A record of its bureau's; places lie twenty metres apart."""
        east = round(WEST + self._place * SIDE + 0.0005 + number % 40 * 2e-4, 6)
        north = round(SOUTH + 0.0005 + number // 40 * 2e-4, 6)
        return f"S{number}", class_code or CLASSES[number % len(CLASSES)], east, north, state, removed

    def push(self, rows: Sequence[Row], wait_s: float = PATIENCE_S) -> None:
        """Its bureau delivers; returns once its own node has worked that through."""
        self.sent += 1
        partner, name = self.trial.partner("made-up"), f"reg-{self.sent}"
        partner.push(FEED, in_memory(register(rows)), "text/csv", name)
        report = partner.report(name, wait_s=wait_s)
        assert report.status == "processed", (self.division, report)

    def die_between(self, numbers: range) -> None:
        """Kill itself once the city has a delivery of these and the cursor has not moved; then start again."""
        self.trial.stop()
        self.trial.start(os.environ | {"YONGTONG_FAULT": "cascade.send:after:1"})
        with contextlib.suppress(ExchangeError):  # it may be gone before it reports
            self.push([self.row(number) for number in numbers])
        self.trial.wait()
        self.trial.start()

    def fetch_reference(self) -> int:
        """Fetch what the city hands down, before the first start."""
        with closing(opening.open_journal(self.trial.settings)) as journal:
            listed = levels.fetch_reference(self.trial.settings, journal)
        return listed.version if listed else 0


def register(rows: Sequence[Row], owner: str = "某单位") -> bytes:
    """A CSV file of the made-up bureau's."""
    lines = [
        f"{key},{kind},{east},{north},{state},{owner},{removed}" for key, kind, east, north, state, removed in rows
    ]
    return "\n".join(["编号,类别,经度,纬度,状态,权属单位,已拆除", *lines, ""]).encode()


class Simulation:
    """The city, its districts, and eyes on what they keep."""

    def __init__(self, folder: Path, districts: int) -> None:
        self.folder = folder
        self._stack = ExitStack()
        self._geometry = _geometry(folder / "city-files", districts)
        divisions = DIVISIONS[:districts]
        self.city = self._city(divisions)
        self.nodes = [
            Node(division, place, folder / division, self.city, self._geometry)
            for place, division in enumerate(divisions)
        ]
        for node in self.nodes:
            self._stack.callback(node.relay.close)
            path = self.city.folder / f"{node.division}.anchors.json"
            path.write_bytes(msgspec.json.encode(node.anchors))

    def __enter__(self) -> "Simulation":
        try:
            self.start_city()
            for node in self.nodes:  # one after the other: a migration is not for threads of one process
                node.fetch_reference()
            _everywhere(self.nodes, lambda node: node.trial.start())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for trial in (*(node.trial for node in self.nodes), self.city):
            trial.kill()  # nothing is looked at afterwards, and to end eleven buses in good order takes a minute
        self._stack.close()

    def start_city(self) -> None:
        """Start the city's node, where the lines lead."""
        self.city.start()
        for node in self.nodes:
            node.relay.target = int(self.city.url.rpartition(":")[2])

    def _city(self, divisions: Sequence[str]) -> Trial:
        feeds = self.folder / "city-feeds"
        feeds.mkdir(parents=True)
        (feeds / f"{FEED}.toml").write_text(REGISTER, encoding="utf-8")
        text = (Path(sample.__file__).parent / "feeds/haishu-components.toml").read_text(encoding="utf-8")
        delegated = []
        for division in divisions:
            feed = text.replace("haishu-c", f"centre-{division}-c").replace(
                f'"centre-{division}-centre"', f'"centre-{division}"'
            )
            (feeds / f"centre-{division}-components.toml").write_text(feed, encoding="utf-8")
            delegated.append(
                {"divisions": [division], "bureau": f"centre-{division}", "anchors": f"{division}.anchors.json"}
            )
        geometry = msgspec.structs.replace(self._geometry, feeds=(feeds,))
        territory = {"territory": {"delegated": delegated}}
        city = Trial(
            self.folder / "city", geometry, origin="city.yongtong.example", mqtt={"broker": "off"}, also=territory
        )
        city.enrol("made-up", "Made-up bureau", "某单位")
        city.grant("made-up", "push", FEED)
        for division in divisions:
            city.enrol(f"centre-{division}", f"Centre of {division}", f"{division} 区中心", "district centre")
            city.grant(f"centre-{division}", "push", f"centre-{division}-components")
        return city

    # What the nodes know ----------------------------------------------------------------------------------------------

    def known_of(self, node: Node) -> list[tuple[Any, ...]]:
        """A district's components as its own node has them: identifier, class, place, state, whether it is claimed."""
        return _known(node.trial, None)

    def known_at_city(self, node: Node) -> list[tuple[Any, ...]]:
        """The same as the city has them."""
        return _known(self.city, node.division)

    def caught_up(self, node: Node) -> bool:
        """Whether both know the same."""
        return self.known_of(node) == self.known_at_city(node)

    def wait(self, nodes: Sequence[Node], patience_s: float = PATIENCE_S) -> float:
        """Until the city knows what these districts know; gives the seconds that it took."""
        began_s = time.monotonic()
        left = list(nodes)
        while left := [node for node in left if not self.caught_up(node)]:
            if time.monotonic() - began_s > patience_s:
                raise TimeoutError(f"not caught up after {patience_s} s: {', '.join(one.division for one in left)}")
            time.sleep(0.2)
        return time.monotonic() - began_s

    def proven(self, node: Node) -> int:
        """Follow every component of a district from the city's answer to the bureau's receipt; how many receipts.

        Raises AssertionError naming the first link that does not hold.
        """
        head = node.anchors.head((self.city.state / "districts" / node.centre / "checkpoint").read_text())
        receipts: dict[str, int] = {}
        for answer in _answers(self.city, node.division):
            for claim in (one for one in answer.claims if one.bureau == node.centre):
                said = read(claim.attributes["provenance"])
                assert said is not None
                assert said.origin == node.trial.settings.bus.origin
                _follow(said, node, head.size, receipts)
        log = Log(PartnerFolder(node.trial.partners / "made-up"), node.trial.url)
        for name, entry in receipts.items():
            document = verify_receipt(_receipt(node, name), node.anchors).document
            leaf = merkle.leaf_hash(str(document["leaf"]).encode())
            path = log.inclusion(entry, head.size)
            assert merkle.verify_inclusion(leaf, entry, head.size, path, head.root), (node.division, name)
        return len(receipts)


def _follow(said: Provenance, node: Node, size: int, receipts: dict[str, int]) -> None:
    for source in said.claims:
        octets = _receipt(node, source.message_id)
        assert source.receipt == sha256(octets).hexdigest(), source
        assert source.entry == verify_receipt(octets, node.anchors).index < size, source
        receipts[source.message_id] = source.entry


def _receipt(node: Node, message_id: str) -> bytes:
    return (node.trial.partners / "made-up" / "receipts" / f"{message_id}.receipt.json").read_bytes()


@contextlib.contextmanager
def _store(trial: Trial) -> Iterator[Store]:
    with closing(Store(Embedded(trial.state))) as store:
        yield store


def _answers(trial: Trial, division: str | None) -> list[OwnershipAnswer]:
    with _store(trial) as store:
        found = components(store, 0, 1_000_000, Chosen(EVERYTHING))
        return [ownership(store, str(one.key)) for one in found if division is None or one.division_code == division]


def _known(trial: Trial, division: str | None) -> list[tuple[Any, ...]]:
    answers = _answers(trial, division)
    found = [
        (
            *(one.component.identifier or "", one.component.class_code, one.component.division_code),
            *(round(one.component.longitude_deg, 7), round(one.component.latitude_deg, 7), one.component.state or ""),
            bool(one.claims),
        )
        for one in answers
    ]
    return sorted(found)


def _geometry(folder: Path, districts: int) -> City:
    """Districts side by side, each of two unit grids."""
    folder.mkdir(parents=True)
    boxes, cells = {}, {}
    for place, division in enumerate(DIVISIONS[:districts]):
        west = round(WEST + place * SIDE, 6)
        boxes[division] = (west, SOUTH, round(west + SIDE, 6), SOUTH + SIDE)
        middle = round(west + SIDE / 2, 6)
        cells[f"{division}001001001"] = (west, SOUTH, middle, SOUTH + SIDE)
        cells[f"{division}001001002"] = (middle, SOUTH, round(west + SIDE, 6), SOUTH + SIDE)
    for name, areas in (("districts", boxes), ("grid", cells)):
        (folder / f"{name}.geojson").write_text(json.dumps(_collection(areas)))
    extent = (WEST - SIDE, SOUTH - SIDE, WEST + (districts + 1) * SIDE, SOUTH + 2 * SIDE)
    return City(extent, folder / "districts.geojson", folder / "grid.geojson", ())


def _collection(areas: dict[str, tuple[float, float, float, float]]) -> dict[str, Any]:
    def ring(west: float, south: float, east: float, north: float) -> list[list[float]]:
        return [[west, south], [east, south], [east, north], [west, north], [west, south]]

    return {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "properties": {"code": code},
                "geometry": {"type": "Polygon", "coordinates": [ring(*box)]},
            }
            for code, box in areas.items()
        ],
    }


def memory_mb(trial: Trial) -> float:
    """Memory of a node's processes together, MB; of what several processes share, each one's part (Pss)."""
    children = Path(f"/proc/{trial.process_id}/task").glob("*/children")
    processes = {trial.process_id, *(int(one) for path in children for one in path.read_text().split())}
    kib = 0
    for process in processes:
        with contextlib.suppress(OSError):
            said = Path(f"/proc/{process}/smaps_rollup").read_text()
            kib += int(said.partition("Pss:")[2].split()[0])
    return kib / 1000


class DistrictRun(msgspec.Struct, frozen=True):
    """How one district came through. components: at its own node, of which the city has each once; receipts: followed
    from the city's answers to the bureau; cut: whether it was cut off; memory_mb: of its processes."""

    division: str
    components: int
    identifiers: int
    deliveries_up: int
    receipts: int
    cut: bool
    memory_mb: float


class Run(msgspec.Struct, frozen=True):
    """The whole run. start_s: of all nodes; first_s: until the city knew the first deliveries; apart_s, behind: how
    long one was cut off, and by how many components it was ahead of what the city knew; caught_up_s: after the line
    was whole; killed: how many nodes were killed at work; reference: version in force at every district."""

    districts: list[DistrictRun]
    start_s: float
    first_s: float
    apart_s: float
    behind: int
    caught_up_s: float
    killed: int
    reference: int
    city_components: int
    city_memory_mb: float
    renumbered: int
    doubled: int


def run(simulation: Simulation, records: int, began_s: float, *, kill: bool = True) -> Run:
    """Drive a simulation that has been started: deliver, cut one, kill one, let both catch up, compare.

    kill: the last node kills itself when the city has its delivery and it does not know yet
    """
    start_s = time.monotonic() - began_s
    nodes, cut, killed = simulation.nodes, simulation.nodes[0], simulation.nodes[-1]
    _everywhere(nodes, lambda node: node.push([node.row(n) for n in range(records)]))
    first_s = simulation.wait(nodes)
    named = {one[0] for node in nodes for one in simulation.known_at_city(node)}

    cut.relay.cut()
    apart_s = time.monotonic()
    more = range(records, 2 * records)
    _everywhere(nodes, lambda node: node.push([node.row(n) for n in more]))
    _everywhere(nodes, lambda node: node.push([node.row(0, "破损"), node.row(1, removed="是")]))
    if kill:
        killed.die_between(range(2 * records, 2 * records + 5))
    simulation.wait([node for node in nodes if node is not cut])
    behind = len(simulation.known_of(cut)) - len(simulation.known_at_city(cut))
    apart_s = time.monotonic() - apart_s
    cut.relay.heal()
    caught_up_s = simulation.wait([cut])

    at_city = [one for node in nodes for one in simulation.known_at_city(node)]
    identifiers = [one[0] for one in at_city]
    told = [
        DistrictRun(
            node.division,
            len(simulation.known_of(node)),
            sum(1 for one in simulation.known_of(node) if one[0]),
            len(_up(simulation, node)),
            simulation.proven(node),
            node is cut,
            round(memory_mb(node.trial), 1),
        )
        for node in nodes
    ]
    return Run(
        districts=told,
        start_s=round(start_s, 1),
        first_s=round(first_s, 1),
        apart_s=round(apart_s, 1),
        behind=behind,
        caught_up_s=round(caught_up_s, 1),
        killed=int(kill),
        reference=min(_reference(node) for node in nodes),
        city_components=len(at_city),
        city_memory_mb=round(memory_mb(simulation.city), 1),
        renumbered=len(named - {*identifiers}),
        doubled=len(identifiers) - len({*identifiers}),
    )


def _everywhere(nodes: Sequence[Node], act: Any) -> None:
    with ThreadPoolExecutor(4) as together:
        list(together.map(act, nodes))


def _up(simulation: Simulation, node: Node) -> list[Path]:
    """The receipts of what a district's centre sent up."""
    return sorted((simulation.city.partners / node.centre / "receipts").glob("up-*.receipt.json"))


def _reference(node: Node) -> int:
    said = json.loads((node.trial.folder / "reference" / "reference.json").read_bytes())
    return int(said["version"])


def main() -> int:
    """Simulate, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: python -m bench.cascade --districts 10")
    parser.add_argument("--districts", type=int, default=10, choices=range(1, len(DIVISIONS) + 1), metavar="N")
    parser.add_argument("--records", type=int, default=100, help="components that each begins with (100)")
    parser.add_argument("--keep", action="store_true", help=f"write {RESULT.name}, the last result that is committed")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, Simulation(Path(folder), options.districts) as simulation:
        came_to = run(simulation, options.records, began_s)
    if options.keep:
        RESULT.write_bytes(msgspec.json.format(msgspec.json.encode(came_to)) + b"\n")
    if options.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(came_to)).decode() + "\n")
    else:
        _print(came_to)
    return 0 if came_to.doubled == came_to.renumbered == 0 else 1


def _print(came_to: Run) -> None:
    rows = [
        (
            one.division,
            one.components,
            one.identifiers,
            one.deliveries_up,
            one.receipts,
            "断网 cut" if one.cut else "",
            one.memory_mb,
        )
        for one in came_to.districts
    ]
    columns = ["district", "components", "identifiers", "deliveries up", "receipts followed", "", "MB"]
    print_table("区级节点 District nodes: the city has each component once, under the same identifier", columns, rows)
    said = {name: value for name, value in msgspec.structs.asdict(came_to).items() if name != "districts"}
    print_table("市级节点 The city's node", ["", ""], said.items())


if __name__ == "__main__":
    sys.exit(main())
