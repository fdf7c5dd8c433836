"""What the scripts beside it ask of the bus: signed documents (JWS), signed heads (C2SP), proofs (RFC 9162)."""

import json
import time

from by_openssl import bare_key, check, climb, holds, key_of, sha256, unb64


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


def epoch_of(note, anchors):
    """What is trusted in the epoch of the log whose name a checkpoint bears."""
    epochs = [*anchors.get("former_epochs", []), {"log": anchors["origin"], **anchors}]
    found = [one for one in epochs if one["log"] == note.partition("\n")[0]]
    check(len(found) == 1, "it is of another log")
    return found[0]


def reported(octets, typ, anchors):
    """What a receipt or report says, once somebody signed it who may in the epoch of the head that it names."""
    epochs = [anchors, *anchors.get("former_epochs", [])]
    said = document(octets, typ, [pem for one in epochs for pem in one["receipt_certificates"]])
    return signed(octets, typ, said["checkpoint"], anchors)


def signed(octets, typ, note, anchors):
    """What a document says, once somebody signed it who may in the epoch of a head."""
    return document(octets, typ, epoch_of(note, anchors)["receipt_certificates"])


def head(note, anchors):
    """Size and root of a checkpoint that the log signed, and the witnesses of the anchors who signed it too."""
    text, _, lines = note.rpartition("\n\n")
    origin, size, root = text.split("\n")
    said = [(line.split(" ")[1], unb64(line.split(" ")[2])) for line in lines.splitlines()]
    epoch = epoch_of(note, anchors)
    check(int(size) <= epoch.get("size", int(size)), "it is of an epoch that was over")
    newest = {"key": epoch["log_key"], "kind": epoch.get("log_key_kind", "EdDSA"), "last_size": int(size)}
    in_force = (one for one in [*epoch.get("former_log_keys", []), newest] if int(size) <= one["last_size"])
    log, by = next(bare_key(one["key"], one["kind"]) for one in in_force), set()
    own = [holds(log, octets[4:], f"{text}\n".encode()) for name, octets in said if name == origin]
    check(any(own), "the log did not sign it")
    for witness in anchors.get("witnesses", []):
        id = sha256(f"{witness['name']}\n\x04".encode(), bytes.fromhex(witness["key"]))[:4]
        for octets in (octets for name, octets in said if name == witness["name"] and octets[:4] == id):
            seen = f"cosignature/v1\ntime {int.from_bytes(octets[4:12], 'big')}\n{text}\n"
            at, now = int.from_bytes(octets[4:12], "big"), time.time() + 300
            if at <= now and holds(bare_key(witness["key"]), octets[12:], seen.encode()):  # else it is left out
                by.add(witness["name"])
    return int(size), unb64(root), by


def included(leaf, index, size, proof, root):
    """Whether a leaf lies at its place in the tree of so many leaves."""
    return climb(index, size - 1, b"", sha256(b"\0", leaf), proof)[1] == root


def continued(first, old, size, new, proof):
    """Whether the tree of `size` leaves begins with the one of `first`."""
    if first == size:
        return old == new and not proof
    nodes = [old.hex(), *proof] if first & (first - 1) == 0 else proof
    fn, sn = first - 1, size - 1
    while fn % 2:
        fn, sn = fn // 2, sn // 2
    start = bytes.fromhex(nodes[0])
    return climb(fn, sn, start, start, nodes[1:]) == (old, new)
