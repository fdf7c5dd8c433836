"""RFC 6962 Merkle trees with SHA-256: hashing, growing, proving and verifying. Computes; keeps nothing.

A node is (level, index): level 0 are the leaf hashes, and node (l, i) covers leaves i·2^l up to (i+1)·2^l. Only
complete nodes exist; what is incomplete at the right edge is computed from them.
"""

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256

HASH_SIZE = 32
EMPTY_ROOT = sha256(b"").digest()

ReadNode = Callable[[int, int], bytes]


def leaf_hash(leaf: bytes) -> bytes:
    """SHA-256(0x00 ‖ leaf). RFC 6962 §2.1: nodes hash with 0x01, so that neither can pose as the other."""
    return sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right)."""
    return sha256(b"\x01" + left + right).digest()


def grow(size: int, peaks: list[bytes], leaf_hashes: Iterable[bytes]) -> list[tuple[int, int, bytes]]:
    """Append leaves to a tree of `size`; gives every node that became complete, as (level, index, hash), in that order.

    peaks: hashes of the complete subtrees of the tree, largest first (see `peaks_of`); changed in place
    """
    made = []
    for current in leaf_hashes:
        level, index = 0, size
        made.append((level, index, current))
        while index & 1:
            level, index, current = level + 1, index >> 1, node_hash(peaks.pop(), current)
            made.append((level, index, current))
        peaks.append(current)
        size += 1
    return made


def peaks_of(size: int) -> list[tuple[int, int]]:
    """Nodes (level, index) that a tree of `size` consists of, largest first."""
    return [(level, (size >> level) - 1) for level in range(size.bit_length() - 1, -1, -1) if size >> level & 1]


def root_of_peaks(peaks: Sequence[bytes]) -> bytes:
    """The root over the complete subtrees of a tree, largest first."""
    if not peaks:
        return EMPTY_ROOT
    root = peaks[-1]
    for peak in reversed(peaks[:-1]):
        root = node_hash(peak, root)
    return root


def root_of(hashes: Iterable[bytes]) -> bytes:
    """The root over leaf hashes; level by level, where one without a partner goes up as it is (RFC 6962's shape)."""
    level = list(hashes)
    while len(level) > 1:
        alone = level[-1:] if len(level) & 1 else []
        level = [sha256(b"\x01" + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=False)]
        level += alone
    return level[0] if level else EMPTY_ROOT


def root_at(read_node: ReadNode, size: int) -> bytes:
    """The root of the tree of `size`, from its nodes."""
    return root_of_peaks([read_node(level, index) for level, index in peaks_of(size)])


def inclusion_proof(read_node: ReadNode, index: int, size: int) -> tuple[bytes, ...]:
    """RFC 6962 §2.1.1: the audit path of leaf `index` in the tree of `size`, from the sibling upwards.

    Raises ValueError when index is not in the tree.
    """
    if not 0 <= index < size:
        raise ValueError(f"no leaf {index} in a tree of {size}")
    path = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(_subtree(read_node, middle, end))
            end = middle
        else:
            path.append(_subtree(read_node, start, middle))
            start = middle
    return tuple(reversed(path))


def consistency_proof(read_node: ReadNode, first: int, second: int) -> tuple[bytes, ...]:
    """RFC 6962 §2.1.2: that the tree of `second` begins with the tree of `first`.

    Raises ValueError unless 0 < first <= second.
    """
    if not 0 < first <= second:
        raise ValueError(f"no consistency proof from {first} to {second}")
    path = []
    start, end = 0, second
    whole = True  # the old tree is, so far, the whole left part: its root is known to the verifier
    while first != end:
        middle = start + _split(end - start)
        if first <= middle:
            path.append(_subtree(read_node, middle, end))
            end = middle
        else:
            path.append(_subtree(read_node, start, middle))
            start, whole = middle, False
    if not whole:
        path.append(_subtree(read_node, start, end))
    return tuple(reversed(path))


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether the leaf hash stands at `index` in the tree of `size` with `root` (RFC 9162 §2.1.3.2; the same trees).

    Strict: every hash has 32 octets, and the proof is used up exactly.
    """
    if not 0 <= index < size or not _hashes(leaf, root, *proof):
        return False
    node, last, current = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            current = node_hash(sibling, current)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            current = node_hash(current, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and current == root


def verify_consistency(first: int, second: int, proof: Sequence[bytes], first_root: bytes, second_root: bytes) -> bool:
    """Whether the tree of `second` with second_root begins with the tree of `first` with first_root.

    RFC 9162 §2.1.4.2. Strict: 0 < first <= second; equal sizes want an empty proof and equal roots; the proof is used
    up exactly.
    """
    if not 0 < first <= second or not _hashes(first_root, second_root, *proof):
        return False
    if first == second:
        return not proof and first_root == second_root
    if not proof:
        return False
    # A first tree that is one complete subtree needs no node of its own: its root is the start.
    path = proof if first & (first - 1) else [first_root, *proof]
    return roots_by(first, second, path) == (first_root, second_root)


def roots_by(first: int, second: int, path: Sequence[bytes]) -> tuple[bytes, bytes] | None:
    """The roots of the trees of `first` and `second` that a consistency proof leads to, 0 < first < second.

    path: RFC 6962's proof, before it the root of the first tree where that is one complete subtree; at least one node

    None unless the path is used up exactly. Where the second root is a known one, so is every node of the path: the
    first root is then that of the second tree's first leaves, and no other can be shown.
    """
    node, last = first - 1, second - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            return None
        if node & 1 or node == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        node, last = node >> 1, last >> 1
    return (old, new) if last == 0 else None


def _split(width: int) -> int:
    """The largest power of two smaller than width."""
    return 1 << (width - 1).bit_length() - 1


def _subtree(read_node: ReadNode, start: int, end: int) -> bytes:
    """The root over leaves start..end, where start is a multiple of the largest power of two not above the width."""
    peaks = []
    while start < end:
        level = (end - start).bit_length() - 1
        peaks.append(read_node(level, start >> level))
        start += 1 << level
    return root_of_peaks(peaks)


def _hashes(*values: bytes) -> bool:
    return all(len(value) == HASH_SIZE for value in values)
