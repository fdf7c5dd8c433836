"""The quarter's further voices: the power bureau's register, the planning bureau's map, the police's cameras."""

import base64
from collections import Counter
from contextlib import closing
from pathlib import Path

from exchange.app import opening
from exchange.cli.demo_story import Pairs, Story, Told
from exchange.cli.partner import REPORT_WAIT_S
from exchange.cli.trial import Trial
from samples.generate import Truth
from samples.sheet import Symbol
from security.message import Content, file_content, in_memory

REGISTERS = ("urban-census", "water-register", "power-register")  # in the order of a symbol's keys
MAP = "planning-map-500"
WHY = {
    "text": "lettering",
    "outline": "outline",
    "drawn_part": "drawn_part",
}  # the map's own words and the feed's rules


def enrol(trial: Trial) -> None:
    """Who else supplies, each with keys and a grant."""
    trial.enrol("power", "Power bureau", "供电局")
    trial.enrol("planning", "Planning bureau", "规划局")
    trial.enrol("public-security", "Public security bureau", "公安局")
    trial.grant("power", "push", "power-register")
    trial.grant("public-security", "push", "security-cameras")
    trial.grant("planning", "push", "planning-map-500")


def play(trial: Trial, story: Story, files: Path, truth: Truth) -> None:
    """The power register, the map and the cameras, after census and water register."""
    told = story.deliver(
        trial.partner("power"), "power", "power-register", file_content(files / "power.csv"), "power-2026"
    )
    found = story.faults(told)
    wanted = {code: len(rows) for code, rows in truth.registers["power.csv"].rejected.items()}
    story.check("power-register: every sown fault found, and no other", found == wanted, f"{sum(wanted.values())}")
    _map(trial, story, file_content(files / "sheet.dxf"), truth)
    _joined(trial, story, truth)
    _cameras(trial, story, file_content(files / "cameras.xml"), truth)


def _map(trial: Trial, story: Story, sheet: Content, truth: Truth) -> None:
    """A 1:500 sheet: each entity of each layer accounted for, what nothing maps listed, the largest first."""
    told = story.deliver(trial.partner("planning"), "planning", "planning-map-500", sheet, "sheet-2026")
    story.check("the map travelled by MTOM, its signature over the message as sent", told.form == "mtom", told.form)
    layers = {part["part"]: part["records"] for part in told.parts}
    story.check("the map: the sums balance in each layer", layers == truth.sheet.layers, f"{len(layers)} layers")
    ignored = {f["code"]: f["count"] for f in told.findings if f["severity"] == "ignored"}
    wanted = {f"ignored.{WHY[kind]}": many for kind, many in truth.sheet.ignored.items()}
    story.check("the map: lines and lettering left out by named rules", ignored == wanted, sum(ignored.values()))
    story.check("the map: what nothing maps is listed, the largest first", _unmapped(told) == [
        many for _, many in truth.sheet.unmapped], f"{_unmapped(told)}")  # fmt: skip
    drawn = Counter(symbol.by for symbol in truth.sheet.symbols.values())
    by = told.told_by
    said = {"code": by["cass_components"] + by["cass"], "block": by["cass_blocks"], "layer": by["layer"]}
    story.check("the map: how many classes were told by code, by block and by layer", said == drawn, said)


def _unmapped(told: Told) -> list[int]:
    found = next(f for f in told.findings if f["code"] == "value.lookup_unknown")
    return [value["count"] for value in found["values"]]


def _joined(trial: Trial, story: Story, truth: Truth) -> None:
    """Each symbol of the map is the thing that the registers know; of what two draw alike, a register decides."""
    with closing(opening.open_store(trial.settings)) as store:
        rows = store.connection().execute(
            "SELECT component_id, f.code, source_key FROM claims k JOIN feeds f ON f.id = k.feed_id"
        )
        keys: dict[int, dict[str, str]] = {}
        for component, feed, key in rows:
            keys.setdefault(component, {})[feed] = key
        pending = "SELECT count(*) FROM components WHERE identifier IS NULL"
        (open_,) = store.connection().execute(pending).fetchone()
        ties = store.ledger().ties
    power = {one["urban-census"]: one["power-register"] for one in keys.values() if {*REGISTERS[::2]} <= one.keys()}
    story.check("power and census name the same things under two keys", power == truth.power.pairs, len(power))
    found = {one[MAP].partition("/")[2]: one for one in keys.values() if MAP in one}  # keyed by sheet and handle
    symbols = truth.sheet.symbols
    known = {handle: symbol for handle, symbol in symbols.items() if handle not in set(truth.sheet.only_map)}
    right = sum(_keys(found, handle) == _true(symbol) for handle, symbol in known.items())
    wrong = sum(any(_keys(found, handle)) for handle in truth.sheet.only_map) + sum(
        any(_keys(found, handle)) and _keys(found, handle) != _true(symbol) for handle, symbol in known.items()
    )
    story.check("each symbol of the map is the thing that the registers know, and no other",
                right == len(known) and not wrong, f"{right} of {len(known)}")  # fmt: skip
    alone = sum(len(symbols[handle].classes) > 1 for handle in truth.sheet.only_map)
    story.check("what the map draws alike a register decides; without one it stays pending", open_ == alone,
                f"{open_} pending, {ties} open")  # fmt: skip
    more = Pairs(len(power) + len(known), len(power) + right, wrong, len(known) - right)
    story.add_pairs(more)


def _cameras(trial: Trial, story: Story, catalogue: Content, truth: Truth) -> None:
    """A GB/T 28181 catalogue: cameras become components, and what devices keep secret lies nowhere in clear."""
    police = trial.partner("public-security")
    told = story.deliver(police, "public-security", "security-cameras", catalogue, "cameras-2026")
    wanted = {code: len(rows) for code, rows in truth.cameras.rejected.items()}
    story.check("cameras: every sown fault found, and no other", story.faults(told) == wanted, sum(wanted.values()))
    tree = {f["code"].removeprefix("ignored."): f["count"] for f in told.findings if f["severity"] == "ignored"}
    rules = {rule: len(rows) for rule, rows in truth.cameras.ignored.items()}
    story.check("cameras: divisions, groups and recorders are no components", tree == rules, f"{rules}")
    sent = catalogue.read()
    spilt = in_memory(sent.replace(b"<Secrecy>0</Secrecy>", b"<Secrecy>1</Secrecy>", 1))
    police.push("security-cameras", spilt, "application/octet-stream", "cameras-classified")
    stopped = police.report("cameras-classified", wait_s=REPORT_WAIT_S)
    code = stopped.received.document["report"].get("code") if stopped.received else ""
    story.check("a catalogue with a classified camera is stopped whole", (stopped.status, code) == (
        "refused", "content.classified"), f"{stopped.status}: {code}")  # fmt: skip
    secrets = [word.encode() for word in truth.cameras.withheld]
    files = [path.read_bytes() for path in trial.folder.rglob("*") if path.is_file()]
    clear = sum(spelling in octets for octets in files for word in secrets for spelling in spellings(word))
    story.check("passwords and addresses of devices lie nowhere in clear, nor in base64", not clear and all(
        word in sent for word in secrets), f"{len(secrets)} words, {len(files)} files")  # fmt: skip


def spellings(word: bytes) -> list[bytes]:
    """A word as it is, and what base64 makes of it at each of its three alignments, in both alphabets."""
    found = [word]
    for before in range(3):
        text = base64.b64encode(bytes(before) + word)
        inside = text[-(-before * 8 // 6) : (before + len(word)) * 8 // 6]
        found += [inside, inside.translate(bytes.maketrans(b"+/", b"-_"))]
    return found


def _keys(found: dict[str, dict[str, str]], handle: str) -> tuple[str | None, ...]:
    return tuple(found.get(handle, {}).get(feed) for feed in REGISTERS)


def _true(symbol: Symbol) -> tuple[str | None, ...]:
    return (symbol.census, symbol.water, symbol.power)
