"""A fork proof proves by itself, and of one log none can be made."""

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from security import merkle
from security.anchors import Anchors
from security.checkpoint import log_key_octets, sign_checkpoint
from security.errors import Refusal
from security.fork import is_fork, open_fork, prove_fork
from security.keys import generate

ORIGIN = "yongtong.example/log"
KEY = generate("EdDSA")
ANCHORS = Anchors(ORIGIN, log_key_octets(KEY.public_key).hex(), [])


class Tree:
    """A log of made-up leaves, signed by the one key."""

    def __init__(self, size: int, different_from: int | None = None) -> None:
        leaves = [b"%d" % i if different_from is None or i < different_from else b"other %d" % i for i in range(size)]
        self.hashes = [merkle.leaf_hash(leaf) for leaf in leaves]
        self.nodes = {(level, index): value for level, index, value in merkle.grow(0, [], self.hashes)}

    def head(self, size: int) -> str:
        return sign_checkpoint(ORIGIN, size, merkle.root_of(self.hashes[:size]), KEY)

    def path(self, first: int, second: int) -> list[bytes]:
        """What the proof of a fork needs out of this tree."""
        nodes = merkle.consistency_proof(lambda level, index: self.nodes[level, index], first, second)
        whole = [] if first & (first - 1) else [merkle.root_of(self.hashes[:first])]
        return [*whole, *nodes] if first < second else []


@settings(deadline=None)
@given(st.integers(1, 90), st.data())
def test_two_heads_of_two_logs_prove_it_whatever_their_sizes(second: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(1, second))
    one, other = Tree(first, data.draw(st.integers(0, first - 1))), Tree(second)
    document = prove_fork(one.head(first), other.head(second), other.path(first, second), ANCHORS)
    fork = open_fork(document, ANCHORS)
    assert is_fork(document)
    assert (fork.first.size, fork.second.size) == (first, second)
    assert fork.continued == merkle.root_of(other.hashes[:first]) != fork.first.root


@settings(deadline=None)
@given(st.integers(1, 90), st.data())
def test_two_heads_of_one_log_never_make_a_fork_proof(second: int, data: st.DataObject) -> None:
    """Whatever nodes are shown: the true ones, true ones of other sizes, or such with one exchanged or left out."""
    first, log = data.draw(st.integers(1, second)), Tree(second)
    sizes = data.draw(st.integers(1, second)), second
    nodes = data.draw(st.sampled_from([log.path(first, second), log.path(*sizes), [], [log.hashes[0]]]))
    if nodes and data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(nodes) - 1))
        nodes[at : at + 1] = data.draw(st.sampled_from([[], [merkle.leaf_hash(b"x")], [nodes[at], nodes[at]]]))
    with pytest.raises(Refusal, match=r"audit\.fork_unproven"):
        prove_fork(log.head(first), log.head(second), nodes, ANCHORS)


def test_of_a_proof_no_octet_may_be_changed() -> None:
    one, other = Tree(6, 3), Tree(11)
    document = msgspec.json.encode(
        msgspec.json.decode(prove_fork(one.head(6), other.head(11), other.path(6, 11), ANCHORS))
    )
    for place in range(len(document)):
        spoilt = bytearray(document)
        spoilt[place] ^= 1
        if is_fork(bytes(spoilt)):
            with pytest.raises(Refusal, match=r"audit\.(fork_unproven|checkpoint_invalid)"):
                open_fork(bytes(spoilt), ANCHORS)


Spoil = Callable[[dict[str, object]], object]


@pytest.mark.parametrize(
    "spoil, code",
    [
        (lambda d: d.update(nodes=d["nodes"][:-1]), "audit.fork_unproven"),
        (lambda d: d.update(nodes=[]), "audit.fork_unproven"),
        (lambda d: d.update(nodes=[*d["nodes"], "00" * 32]), "audit.fork_unproven"),
        (lambda d: d.update(nodes=["zz"]), "audit.fork_unproven"),
        (lambda d: d.update(first=d["second"], second=d["first"]), "audit.fork_unproven"),
        (lambda d: d.update(first=d["second"]), "audit.fork_unproven"),
        (lambda d: d.update(origin="another.example"), "audit.fork_unproven"),
        (lambda d: d.update(v=2), "audit.fork_unproven"),
        (lambda d: d.update(more=1), "audit.fork_unproven"),
        (lambda d: d.pop("nodes"), "audit.fork_unproven"),
        (lambda d: d.update(first=d["first"].replace("\n6\n", "\n7\n")), "audit.checkpoint_invalid"),
        (
            lambda d: d.update(first=sign_checkpoint(ORIGIN, 6, b"x" * 32, generate("EdDSA"))),
            "audit.checkpoint_invalid",
        ),
        (lambda d: d.update(first=sign_checkpoint(ORIGIN, 0, b"x" * 32, KEY)), "audit.checkpoint_invalid"),
        (lambda d: d.update(nodes=["00" * 32] * 5_000), "audit.fork_unproven"),
    ],
)
def test_what_proves_nothing_is_refused(spoil: Spoil, code: str) -> None:
    one, other = Tree(6, 3), Tree(11)
    document = msgspec.json.decode(prove_fork(one.head(6), other.head(11), other.path(6, 11), ANCHORS))
    spoil(document)
    with pytest.raises(Refusal) as refused:
        open_fork(msgspec.json.encode(document), ANCHORS)
    assert refused.value.code == code


def test_two_signed_heads_of_one_size_need_nothing_else() -> None:
    document = prove_fork(Tree(5).head(5), Tree(5, 2).head(5), [], ANCHORS)
    assert open_fork(document, ANCHORS).second.size == 5
    with pytest.raises(Refusal, match=r"audit\.fork_unproven"):
        prove_fork(Tree(5).head(5), Tree(5, 2).head(5), [b"x" * 32], ANCHORS)


def test_heads_signed_by_sm2_prove_it_too() -> None:
    key, size, roots = generate("SM2"), 7, (Tree(7, 2).hashes, Tree(7).hashes)
    anchors = Anchors(ORIGIN, log_key_octets(key.public_key).hex(), [], "SM2")
    one, other = (sign_checkpoint(ORIGIN, size, merkle.root_of(hashes), key) for hashes in roots)
    assert open_fork(prove_fork(one, other, [], anchors), anchors).first.size == size
    with pytest.raises(Refusal, match=r"audit\.fork_unproven"):
        prove_fork(one, sign_checkpoint(ORIGIN, size, merkle.root_of(roots[0]), key), [], anchors)


@pytest.mark.parametrize("octets", [b"", b"{}", b"[1]", b"\xff", b'{"typ": 7}', b'{"payload": "", "signature": ""}'])
def test_other_documents_are_not_taken_for_one(octets: bytes) -> None:
    assert not is_fork(octets)
