"""The tree: the vectors of RFC 6962 proofs, pymerkle as oracle, and properties over sizes."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymerkle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from security import merkle

LEAVES = [b"", b"\x00", b"\x10", b"\x20\x21", b"0123", b"@ABCDEFG", b"PQRSTUVWXYZ"]


def grown(count: int) -> tuple[dict[tuple[int, int], bytes], list[bytes]]:
    hashes = [merkle.leaf_hash(index.to_bytes(4, "big")) for index in range(count)]
    return {(level, index): value for level, index, value in merkle.grow(0, [], hashes)}, hashes


def decoded(values: list[str] | None) -> list[bytes]:
    return [base64.b64decode(value) for value in values or []]


def cases(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    return [(path, json.loads(path.read_text())) for path in sorted(folder.rglob("*.json"))]


def test_every_inclusion_vector_is_judged_right(shared_data: Callable[[str], Path]) -> None:
    found = cases(shared_data("merkle") / "testdata" / "inclusion")
    assert len(found) == 53
    for path, case in found:
        leaf, root = base64.b64decode(case["leafHash"] or ""), base64.b64decode(case["root"] or "")
        holds = merkle.verify_inclusion(leaf, case["leafIdx"], case["treeSize"], decoded(case["proof"]), root)
        assert holds is not case["wantErr"], path


def test_every_consistency_vector_is_judged_right(shared_data: Callable[[str], Path]) -> None:
    found = cases(shared_data("merkle") / "testdata" / "consistency")
    assert len(found) == 43
    for path, case in found:
        roots = base64.b64decode(case["root1"] or ""), base64.b64decode(case["root2"] or "")
        holds = merkle.verify_consistency(case["size1"], case["size2"], decoded(case["proof"]), *roots)
        assert holds is not case["wantErr"], path


def test_every_vector_of_a_subtree_is_judged_right_as_a_tree_of_its_own(
    shared_data: Callable[[str], Path], tell: Callable[[str], None]
) -> None:
    """Our log proves nothing of subtrees, but one that may be one, [start, end), is a tree of end - start leaves."""
    bad = 0
    for path, case in cases(shared_data("merkle") / "testdata" / "subtreeinclusion"):
        leaf, root = base64.b64decode(case["leafHash"] or ""), base64.b64decode(case["root"] or "")
        index, size = case["leafIdx"] - case["start"], case["end"] - case["start"]
        holds = is_subtree(case["start"], case["end"]) and merkle.verify_inclusion(
            leaf, index, size, decoded(case["proof"]), root
        )
        assert holds is not case["wantErr"], path
        bad += case["wantErr"]
    for path, case in cases(shared_data("merkle") / "testdata" / "subtreeconsistency"):
        roots = base64.b64decode(case["root1"] or ""), base64.b64decode(case["root2"] or "")
        holds = merkle.verify_consistency(case["end"] - case["start"], case["size"], decoded(case["proof"]), *roots)
        assert holds is (not case["wantErr"] and case["start"] == 0), path
        bad += case["wantErr"]
    tell(f"merkle subtrees: {bad} bad vectors, all refused")
    assert bad > 100


def is_subtree(start: int, end: int) -> bool:
    """Whether [start, end) is one subtree of a larger tree."""
    return 0 <= start < end and start & ((1 << (end - start - 1).bit_length()) - 1) == 0


def test_the_empty_tree_has_the_hash_of_nothing() -> None:
    assert merkle.root_of([]).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=70))
def test_roots_and_proofs_are_those_of_another_implementation(entries: list[bytes]) -> None:
    oracle = pymerkle.InmemoryTree(algorithm="sha256")
    for entry in entries:
        oracle.append_entry(entry)
    hashes = [merkle.leaf_hash(entry) for entry in entries]
    assert merkle.root_of(hashes) == oracle.get_state()
    nodes = {(level, index): value for level, index, value in merkle.grow(0, [], hashes)}
    for index in range(len(entries)):
        path = merkle.inclusion_proof(lambda level, i: nodes[level, i], index, len(entries))
        theirs = oracle.prove_inclusion(index + 1)
        assert path == tuple(theirs.path[1:])


@given(st.integers(1, 300), st.data())
def test_every_leaf_is_proven_in_every_tree_that_holds_it(size: int, data: st.DataObject) -> None:
    nodes, hashes = grown(size)
    index = data.draw(st.integers(0, size - 1))
    path = merkle.inclusion_proof(lambda level, i: nodes[level, i], index, size)
    root = merkle.root_of(hashes)
    assert merkle.verify_inclusion(hashes[index], index, size, path, root)
    other = data.draw(st.integers(0, size).filter(lambda other: other != index))
    assert not merkle.verify_inclusion(hashes[index], other, size, path, root) or hashes[index] == hashes[other]


@given(st.integers(1, 300), st.data())
def test_any_two_sizes_are_proven_consistent_and_a_fork_is_not(second: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(1, second))
    nodes, hashes = grown(second)
    path = merkle.consistency_proof(lambda level, i: nodes[level, i], first, second)
    first_root, second_root = merkle.root_of(hashes[:first]), merkle.root_of(hashes)
    assert merkle.verify_consistency(first, second, path, first_root, second_root)
    forked = merkle.root_of([*hashes[: first - 1], merkle.leaf_hash(b"another")])
    assert not merkle.verify_consistency(first, second, path, forked, second_root)


@given(st.integers(1, 200), st.data())
def test_a_proof_with_one_bit_changed_proves_nothing(size: int, data: st.DataObject) -> None:
    nodes, hashes = grown(size + 1)
    index = data.draw(st.integers(0, size))
    path = list(merkle.inclusion_proof(lambda level, i: nodes[level, i], index, size + 1))
    which, bit = data.draw(st.integers(0, len(path) - 1)), data.draw(st.integers(0, 255))
    octets = bytearray(path[which])
    octets[bit // 8] ^= 1 << bit % 8
    path[which] = bytes(octets)
    assert not merkle.verify_inclusion(hashes[index], index, size + 1, path, merkle.root_of(hashes))


@pytest.mark.parametrize("index, size", [(-1, 5), (5, 5), (0, 0)])
def test_no_path_is_made_for_a_leaf_outside_the_tree(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="no leaf"):
        merkle.inclusion_proof(lambda level, i: b"", index, size)


@pytest.mark.parametrize("first, second", [(0, 5), (6, 5), (0, 0)])
def test_no_consistency_with_the_empty_tree_or_backwards(first: int, second: int) -> None:
    with pytest.raises(ValueError, match="no consistency"):
        merkle.consistency_proof(lambda level, i: b"", first, second)
    assert not merkle.verify_consistency(first, second, [], merkle.EMPTY_ROOT, merkle.EMPTY_ROOT)
