"""Check an evidence bundle without Yongtong: sixty lines, and the three by_… beside them.

    python3 verify_bundle.py BUNDLE ANCHORS      exit 0: holds; 1: incomplete, or broken and where

What each step means, and what is not looked at here: verify-without-us.md
"""

import json
import sys
import zipfile

from by_deliveries import check_same, owed
from by_log import continued, head, included, reported, signed
from by_openssl import check, sha256, stamped, without_witnesses


def under(note):
    """A further head, once the newest one's log begins as its does: its size, and who witnessed it."""
    first, root, by = head(note, anchors)
    proof = json.loads(parts[f"consistency/{first}.json"])["nodes"] if first != size else []
    check(continued(first, root, size, top, proof), "it is of another log")
    return first, by


def entry(it, name):
    """An entry, once it lies under the newest head and its detail is what it commits to, or was erased."""
    leaf, at = it["leaf"].encode(), it["index"]
    check(name == f"entries/{at}.json" and included(leaf, at, size, it["proof"], top), "it is not in the log")
    if name not in manifest["erased"]:
        committed = sha256(b"\2", bytes.fromhex(it["salt"]), it["detail"].encode()).hex()
        check(json.loads(leaf)["detail"] == committed, "its detail is another")
    return {**it, "is": json.loads(leaf), "says": json.loads(it.get("detail", "{}"))}


with open(sys.argv[2], encoding="utf-8") as file:
    anchors, name = json.load(file), "the file"
try:
    with zipfile.ZipFile(sys.argv[1]) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    name = "manifest.json"
    manifest = signed(parts.pop(name), "yt-bundle+jws", parts["checkpoint"].decode(), anchors)
    check(manifest["origin"] == anchors["origin"], "it is another bus's")
    for name in {**parts, **manifest["parts"]}:
        check(manifest["parts"].get(name) == sha256(parts.get(name, b"")).hex(), "altered, not there, or not listed")
    name, roots = "checkpoint", anchors.get("timestamp_certificates", [])
    size, top, by = head(parts[name].decode(), anchors)
    gone, entries, witnessed, times = {**manifest["erased"], **manifest["withheld"]}, {}, {size: by}, [0]
    for name in sorted(parts):  # entries come before heads, and heads before messages
        folder, number, kind = name.replace(".", "/").split("/")[:3] if "/" in name else (name, "", "")
        if folder == "entries":
            entries[number] = entry(json.loads(parts[name]), name)
        elif kind == "checkpoint":
            witnessed.update([under(parts[name].decode())])
        elif kind == "tsr" and roots:
            note = without_witnesses(parts[f"heads/{number}.checkpoint"].decode())
            check(stamped(parts[name], note, roots), "no authority of the anchors gave its head this time")
            times.append(int(number))
        elif kind == "envelope":
            committed = entries[number]["says"].get("evidence_digest", manifest["parts"][name])
            check(manifest["parts"][name] == committed, "it is not what the entry commits to")
        elif folder == "messages":
            said = reported(parts[name], f"yt-{kind}+jws", anchors)
            check_same(said, number, entries)
            under(said["checkpoint"])
    name = "the deliveries"
    last, missing = owed({**parts, **gone}, entries, manifest)
    unseen = not any(n > last and len(by) >= max(anchors.get("quorum", 0), 1) for n, by in witnessed.items())
    lacking = [*gone, *missing, *["witnesses"] * (unseen and "witnesses" in anchors)]
    lacking += ["timestamp"] * (bool(roots) and max(times) <= last)
    notes = "; UNWITNESSED" * unseen + "; NO TIMESTAMP" * (max(times) <= last)
    notes += "; NOT LOOKED AT: whether the day is whole" * (manifest["kind"] == "day")
    told = f"{'incomplete' if lacking else 'holds'}: {manifest['subject']}, {len(parts)} parts{notes}"
    print(told, *lacking, sep="\n")
    sys.exit(bool(lacking))
except Exception as problem:
    sys.exit(f"broken: {name}: {problem}")
