"""A district hands in heads of its log over real sockets: what is taken, what stands in the audit, and what a fork is.

The district's operator of these tests has everything: its log's own key.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from starlette.types import ASGIApp

from connectors.partner.cascade import CityNode
from exchange.districts import District
from exchange.http.app import make_app
from security import merkle
from security.anchors import Anchors
from security.checkpoint import log_key_octets, sign_checkpoint
from security.errors import Refusal, Unavailable
from security.fork import open_fork
from security.keys import generate
from tests.doors.bus import TestBus
from tests.doors.conftest import City, Running

Start = Callable[[ASGIApp], Running]
ORIGIN = "haishu.example"


class Log:
    """A district's log of so many made-up entries, and its key."""

    def __init__(self) -> None:
        self.key = generate("EdDSA")
        self.anchors = Anchors(ORIGIN, log_key_octets(self.key.public_key).hex(), [])

    def head(self, size: int, *, of: str = "") -> str:
        """A signed head. of: of another history than the first."""
        return sign_checkpoint(ORIGIN, size, merkle.root_of(self._leaves(size, of)), self.key)

    def proof(self, first: int, second: int, *, of: str = "") -> tuple[bytes, ...]:
        nodes = {(level, i): value for level, i, value in merkle.grow(0, [], self._leaves(second, of))}
        return merkle.consistency_proof(lambda level, i: nodes[level, i], first, second)

    def _leaves(self, size: int, of: str) -> list[bytes]:
        return [merkle.leaf_hash(f"{of if number else ''}{number}".encode()) for number in range(size)]


class Served:
    """A city's node with one district, `haishu`, and `water`, which is none."""

    def __init__(self, test: TestBus, start: Start) -> None:
        self.test, self.log = test, Log()
        self.kept = test.folder / "districts" / "haishu"
        district = District("haishu", self.log.anchors, self.kept, lambda: datetime.now(UTC))
        bus = msgspec.structs.replace(test.bus, districts={"haishu": district})
        self.running = start(make_app(bus, test.folder / "spool"))

    def node(self, bureau: str = "haishu", *, enrolled: bool = True) -> CityNode:
        return CityNode(self.test.bureau(bureau, enrolled=enrolled), f"https://localhost:{self.running.port}")


@pytest.fixture
def served(tmp_path: Path, city: City, start: Start) -> Iterator[Served]:
    served = Served(TestBus(tmp_path, city), start)
    yield served
    served.running.stop()
    served.test.bus.close()


def refused(node: CityNode, *head: object) -> str:
    with pytest.raises(Refusal) as caught:
        node.hand_in(*head)  # type: ignore[arg-type]
    return caught.value.code


def test_heads_that_continue_one_another_are_taken_and_stand_in_the_citys_own_log(served: Served) -> None:
    node = served.node()
    assert node.known_size() == 0
    assert node.hand_in(served.log.head(3), 0, ()) == 3
    assert node.hand_in(served.log.head(3), 3, ()) == 3  # once more is no news
    assert node.hand_in(served.log.head(8), 3, served.log.proof(3, 8)) == node.known_size() == 8
    entries = served.test.entries("head")
    assert [(outcome, detail["size"]) for outcome, detail in entries] == [("followed", 8), ("followed", 3)]
    assert entries[0][1]["root"] == served.log.anchors.head(served.log.head(8)).root.hex()


def test_a_log_with_two_histories_is_refused_and_the_proof_of_it_kept(served: Served) -> None:
    node = served.node()
    node.hand_in(served.log.head(3), 0, ())
    other = served.log.head(8, of="x")
    assert refused(node, other, 3, served.log.proof(3, 8, of="x")) == "audit.log_forked"
    assert refused(node, served.log.head(3, of="x"), 3, ()) == "audit.log_forked"
    assert node.known_size() == 3
    proofs = [open_fork(path.read_bytes(), served.log.anchors) for path in served.kept.glob("forks/*/fork.json")]
    assert {(one.first.size, one.second.size) for one in proofs} == {(3, 8), (3, 3)}
    assert {detail["code"] for _, detail in served.test.entries("refusal")} == {"audit.log_forked"}


def test_a_log_that_was_put_back_is_found_at_the_next_head(served: Served) -> None:
    node = served.node()
    node.hand_in(served.log.head(8), 0, ())
    assert refused(node, served.log.head(5), 8, ()) == "audit.log_truncated"
    assert node.known_size() == 8


def test_what_is_no_head_of_the_districts_own_log_is_refused_by_name(served: Served) -> None:
    node = served.node()
    node.hand_in(served.log.head(3), 0, ())
    assert refused(node, Log().head(8), 3, ()) == "audit.checkpoint_invalid"
    assert refused(node, served.log.head(8), 2, served.log.proof(2, 8)) == "head.other_known"
    assert refused(node, served.log.head(8), 3, (b"0" * 32,) * 99) == "head.not_readable"
    assert refused(served.node("water"), served.log.head(8), 0, ()) == "head.no_district"
    with pytest.raises((Refusal, Unavailable)):
        served.node("stranger", enrolled=False).hand_in(served.log.head(8), 3, served.log.proof(3, 8))
    assert node.known_size() == 3
