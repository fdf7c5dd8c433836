"""What the public-security bureau of the made-up quarter sends: a camera catalogue of GB/T 28181-2022 in GB 18030.

Cameras stand at the crossings; among them lie the tree's own items (divisions, groups, organisations), recorders and a
server, which are no components. Some items say what nobody on the bus may see: passwords and addresses of devices.
"""

from typing import Final, NamedTuple
from xml.sax.saxutils import escape

import msgspec
import numpy as np

from samples import quarter

STREAM: Final = 28181  # its own stream of random numbers: the other files' bytes stay what they are
CAMERAS: Final = 40  # accepted
TYPES: Final = ("131", "132", "132", "132", "122")
SIDES: Final = {"东北角": (1, 1), "西南角": (-1, -1)}
UNITS: Final = {quarter.WEST: "样城公安局海曙分局", quarter.EAST: "样城公安局江北分局"}
TREE: Final = (  # digits, or the type code of a twenty-digit number; the rule that leaves it out; name
    (quarter.WEST, "division", "海曙区"),
    (f"{quarter.WEST}01", "division", "望江路派出所"),
    (quarter.EAST, "division", "江北区"),
    ("215", "business_group", "路面监控"),
    ("216", "virtual_organisation", "重点部位"),
    ("216", "virtual_organisation", "交通路口"),
    ("118", "recorder", "学前街录像机"),
    ("118", "recorder", "东津街录像机"),
    ("200", "server", "信令服务器"),
)
# By finding code, what the items say instead of where they stand.
MISPLACED: Final[dict[str, list[tuple[str, str] | None]]] = {
    "position.outside_city": [("0", "0"), ("0.000000", "0.000000"), ("120.155000", "30.274000")],
    "position.missing": [None, None],
}


class Cameras(msgspec.Struct, frozen=True):
    """The catalogue's items, numbered from 0 in source order.

    rejected: by finding code; warned: the same of accepted items; ignored: by the rule of the feed that leaves them out
    keys:     device numbers of the accepted items; none is classified, for one that is stops the whole catalogue
    withheld: what devices say of themselves that must be nowhere afterwards in clear
    """

    records: int
    accepted: int
    rejected: dict[str, list[int]]
    warned: dict[str, list[int]]
    ignored: dict[str, list[int]]
    keys: list[str]
    withheld: list[str]


class _Item(NamedTuple):
    """One item to be written, and what will become of it: empty, or the code or rule that stands against it."""

    fields: dict[str, str]
    fate: str


def cameras(seed: int) -> tuple[bytes, Cameras]:
    """The catalogue's octets, and what is true of it."""
    rng = np.random.default_rng([seed, STREAM])
    items = [*_tree(), *_cameras(rng)]
    order = [int(place) for place in rng.permutation(len(items))]
    mixed = [items[place] for place in order]
    doubled = next(item for item in mixed if not item.fate)
    mixed.append(_Item({**doubled.fields, "Name": "重复登记"}, "key.duplicate"))
    return _written(mixed), _truth(mixed)


def _tree() -> list[_Item]:
    """Items that are no cameras: divisions with two fields, the others with what every device says."""
    items = []
    for number, (kind, rule, name) in enumerate(TREE):
        device = kind if rule == "division" else f"{quarter.WEST}0000{kind}0{number:06}"
        more = {} if rule == "division" else {"Manufacturer": "样城", "Status": "ON", "Secrecy": "0"}
        items.append(_Item({"DeviceID": device, "Name": name, **more}, rule))
    return items


def _cameras(rng: np.random.Generator) -> list[_Item]:
    """Cameras at crossings drawn without repeating: the good ones first, then those that say a wrong place."""
    fates = [(code, says) for code, places in MISPLACED.items() for says in places]
    corners = [(i, j, side) for i in range(len(quarter.UPWARD)) for j in range(len(quarter.ACROSS)) for side in SIDES]
    chosen = rng.permutation(len(corners))[: CAMERAS + len(fates)]
    items = []
    for number, place in enumerate(chosen):
        upward, across, side = corners[place]
        fields = _camera(number, upward, across, side, rng)
        fate, says = fates[number - CAMERAS] if number >= CAMERAS else ("", None)
        if fate:
            del fields["Longitude"], fields["Latitude"]
            fields |= dict(zip(("Longitude", "Latitude"), says, strict=True)) if says else {}
        items.append(_Item(fields, fate))
    return items


def _camera(number: int, upward: int, across: int, side: str, rng: np.random.Generator) -> dict[str, str]:
    """One camera, 8 to 12 m to both sides off the middle of a crossing."""
    off_m = 8 + 4 * rng.random(2)
    u = 2 * upward + 0.5 + SIDES[side][0] * off_m[0] / quarter.CELL_M[0]
    v = 2 * across + 0.5 + SIDES[side][1] * off_m[1] / quarter.CELL_M[1]
    longitude, latitude = quarter.degrees(np.array([u]), np.array([v]))
    division, crossing = quarter.division(int(u)), f"{quarter.ACROSS[across]}与{quarter.UPWARD[upward]}路口"
    return {
        "DeviceID": f"{division}0000{TYPES[number % len(TYPES)]}0{number + 1:06}",
        "Name": f"{crossing}{side}",
        "Manufacturer": "样城",
        "Model": "YC-1",
        "CivilCode": division,
        "Address": f"{crossing}{side}",
        "Parental": "0",
        "ParentID": division,
        "RegisterWay": "1",
        "Secrecy": "0",
        "IPAddress": f"198.51.100.{number + 1}",
        "Port": "5060",
        "Password": f"made-up-{rng.integers(10**8):08}",
        "Status": ("ON", "OFF", "on")[number % 3],
        "Longitude": f"{longitude[0]:.6f}",
        "Latitude": f"{latitude[0]:.6f}",
        "ManagementUnit": UNITS[division],
    }


INFO: Final = ("ManagementUnit",)


def _written(items: list[_Item]) -> bytes:
    """The answer to a catalogue query, whole in one message."""
    lines = [
        '<?xml version="1.0" encoding="GB18030"?>',
        "<Response>",
        "<CmdType>Catalog</CmdType>",
        "<SN>17</SN>",
        f"<DeviceID>{quarter.WEST}00002000000001</DeviceID>",
        f"<SumNum>{len(items)}</SumNum>",
        f'<DeviceList Num="{len(items)}">',
        *(line for item in items for line in _item(item.fields)),
        "</DeviceList>",
        "</Response>",
    ]
    return "\n".join([*lines, ""]).encode("gb18030")


def _item(fields: dict[str, str]) -> list[str]:
    own = [_element(name, text) for name, text in fields.items() if name not in INFO]
    info = [_element(name, fields[name]) for name in INFO if name in fields]
    return ["<Item>", *own, *(["<Info>", *info, "</Info>"] if info else []), "</Item>"]


def _element(name: str, text: str) -> str:
    return f"<{name}>{escape(text)}</{name}>"


def _truth(items: list[_Item]) -> Cameras:
    good = [item.fields for item in items if not item.fate]
    codes = [*MISPLACED, "key.duplicate"]
    by_fate = {item.fate: [n for n, one in enumerate(items) if one.fate == item.fate] for item in items if item.fate}
    (again,) = by_fate["key.duplicate"]
    first = [fields["DeviceID"] for fields, _ in items].index(items[again].fields["DeviceID"])
    said = [fields[name] for fields, _ in items for name in ("Password", "IPAddress") if name in fields]
    return Cameras(
        records=len(items),
        accepted=len(good),
        rejected={code: by_fate[code] for code in codes},
        warned={"key.doubled": [first]},
        ignored={rule: rows for rule, rows in by_fate.items() if rule not in codes},
        keys=sorted(fields["DeviceID"] for fields in good),
        withheld=sorted(set(said)),
    )
