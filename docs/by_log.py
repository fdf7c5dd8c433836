"""What the scripts beside it ask of the bus: signed documents (JWS), signed heads (C2SP), proofs (RFC 9162)."""

import json
import time

from by_openssl import bare_key, check, holds, key_of, sha256, unb64


def document(octets, typ, certificates):
    """What a signed document says, once one of these certificates signed it, or the tree of those signed with it."""
    jws = json.loads(octets)
    header, said = (json.loads(unb64(jws[name])) for name in ("protected", "payload"))
    signed, signature = f"{jws['protected']}.{jws['payload']}".encode(), unb64(jws["signature"])
    alone = "document" not in jws
    check(header["typ"] == (typ if alone else typ.replace("+", "s+")), f"is a {header['typ']}")
    keys = [key_of(pem.encode()) for pem in certificates]
    check(any(holds(key, signature, signed, header["alg"]) for key in keys), "its signature does not hold")
    if alone:
        return said
    leaf = unb64(jws["document"])
    holds_it = included(leaf, jws["index"], said["size"], jws["path"], bytes.fromhex(said["root"]))
    check(holds_it, "it is not under what was signed")
    return json.loads(leaf)


def head(note, anchors):
    """Size and root of a checkpoint that the log signed, and the witnesses of the anchors who signed it too."""
    text, _, lines = note.rpartition("\n\n")
    origin, size, root = text.split("\n")
    said = [(line.split(" ")[1], unb64(line.split(" ")[2])) for line in lines.splitlines()]
    newest = {"key": anchors["log_key"], "kind": anchors.get("log_key_kind", "EdDSA"), "last_size": int(size)}
    in_force = (one for one in [*anchors.get("former_log_keys", []), newest] if int(size) <= one["last_size"])
    log, by = next(bare_key(one["key"], one["kind"]) for one in in_force), set()
    own = [holds(log, octets[4:], f"{text}\n".encode()) for name, octets in said if name == origin]
    check(origin == anchors["origin"] and any(own), "the log did not sign it")
    for witness in anchors.get("witnesses", []):
        id = sha256(f"{witness['name']}\n\x04".encode(), bytes.fromhex(witness["key"]))[:4]
        for octets in (octets for name, octets in said if name == witness["name"] and octets[:4] == id):
            seen = f"cosignature/v1\ntime {int.from_bytes(octets[4:12], 'big')}\n{text}\n"
            at, now = int.from_bytes(octets[4:12], "big"), time.time() + 300
            if at <= now and holds(bare_key(witness["key"]), octets[12:], seen.encode()):  # else it is left out
                by.add(witness["name"])
    return int(size), unb64(root), by


def without_witnesses(note, anchors):
    """The octets of a head that are stamped: its text, the empty line, the lines of the log itself."""
    text, _, lines = note.rpartition("\n\n")
    own = [f"{line}\n" for line in lines.splitlines() if line.startswith(f"— {anchors['origin']} ")]
    return f"{text}\n\n{''.join(own)}".encode()


def included(leaf, index, size, proof, root):
    """Whether a leaf lies at its place in the tree of so many leaves."""
    return _climb(index, size - 1, b"", sha256(b"\0", leaf), proof)[1] == root


def continued(first, old, size, new, proof):
    """Whether the tree of `size` leaves begins with the one of `first`."""
    if first == size:
        return old == new and not proof
    nodes = [old.hex(), *proof] if first & (first - 1) == 0 else proof
    fn, sn = first - 1, size - 1
    while fn % 2:
        fn, sn = fn // 2, sn // 2
    start = bytes.fromhex(nodes[0])
    return _climb(fn, sn, start, start, nodes[1:]) == (old, new)


def _climb(fn, sn, old, new, nodes):
    """RFC 9162 2.1.3.2 and 2.1.4.2: from a leaf, or from an old root, up to the roots."""
    for node in map(bytes.fromhex, nodes):
        check(sn > 0, "the proof is too long")
        left = fn % 2 == 1 or fn == sn
        old, new = (sha256(b"\1", node, old), sha256(b"\1", node, new)) if left else (old, sha256(b"\1", new, node))
        while left and fn % 2 == 0 and fn:
            fn, sn = fn // 2, sn // 2
        fn, sn = fn // 2, sn // 2
    check(sn == 0, "the proof is too short")
    return old, new
