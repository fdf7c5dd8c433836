"""Every door and every limit of a grant, allowed and denied, in one bus: the doors agree, and the cells are counted."""

import csv
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest
import requests

from connectors.partner.folder import PartnerFolder
from connectors.partner.subscriber import Subscriber
from exchange.cli.main import main
from exchange.cli.people import registry
from exchange.cli.trial import APPROVER, Trial
from security.errors import Refusal
from security.message import Area, in_memory
from tests.whole.real_bus import a_trial, grid_at

HERE: Final = 121.5471, 29.868
WAIT_S: Final = 30.0
DENIED: Final = ("auth.no_grant", "auth.grant_not_in_force", "component.unknown")
OWNER: Final = "甲公司"
STATE: Final = "完好"
FIELDS: Final = """
id = "{id}"
title = "Covers"
title_zh = "井盖台账"
bureau = "{bureau}"
format = "table"
content = "changes"
crs = "EPSG:4490"
accuracy = 0.5

[fields]
source_key = {{ from = "编号" }}
class_code = {{ from = "类别" }}
longitude_deg = {{ from = "经度", parse = "degrees" }}
latitude_deg = {{ from = "纬度", parse = "degrees" }}
owner_name = {{ from = "权属" }}
state = {{ from = "状态" }}
"""
COVER: Final = f"编号,类别,经度,纬度,权属,状态\nK1,0101,{HERE[0]},{HERE[1]},{OWNER},{STATE}\n".encode()


def box(longitude: float) -> Area:
    west, east, south, north = longitude - 1e-3, longitude + 1e-3, HERE[1] - 1e-3, HERE[1] + 1e-3
    return Area(polygon=((west, south), (east, south), (east, north), (west, north)))


# What is granted that allows, and what denies; all else is as wide as can be.
Limits = Mapping[str, Any]
LIMITS: Final[dict[str, tuple[Limits, Limits]]] = {
    "target": ({}, {"target": "another"}),
    "class": ({"classes": ["0101"]}, {"classes": ["0102"]}),
    "district": ({"area": Area(districts=("330203",))}, {"area": Area(districts=("330205",))}),
    "cell": ({"area": Area(cells=(grid_at(*HERE),))}, {"area": Area(cells=(grid_at(121.5531, 29.868),))}),
    "polygon": ({"area": box(HERE[0])}, {"area": box(121.5531)}),
    "attribute": ({"attributes": ("owner_name", "state")}, {"attributes": ("note",)}),
    "from": ({"days": (-1, 30)}, {"days": (2, 30)}),
    "until": ({"days": (-30, 2)}, {"days": (-30, -1)}),
    "revoked": ({}, {"revoked": True}),
}
BUREAUS: Final = {f"{kind}-{word}": word == "yes" for kind in LIMITS for word in ("yes", "no")}
RIGHTS: Final = {"ownership": "pull", "components": "pull", "changes": "subscribe"}
ELSEWHERE: Final = {"ownership": "changes", "components": "changes", "changes": "ownership"}  # another target


class Doors:
    """The bus, and each door as a question: is what lies there allowed to this bureau? Masked is not allowed."""

    def __init__(self, trial: Trial, folder: Path) -> None:
        self.trial, self.folder = trial, folder
        self.told: dict[str, list[dict[str, Any]]] = {}

    def soap(self, bureau: str) -> bool:
        try:
            answer = self.trial.partner(bureau).ownership("1", purpose="test")
        except Refusal as refusal:
            return refusal.code not in DENIED
        return [unit.name for unit in answer.roles[1].units] == [OWNER]

    def rest(self, bureau: str) -> bool:
        ours = PartnerFolder(self.trial.partners / bureau)
        certificate = (ours.file("connection.pem"), ours.file("connection.key"))
        address = f"{self.trial.url}/api/v1/components/1/ownership"
        answer = requests.get(address, cert=certificate, verify=ours.file("ca.pem"), timeout=10).json()
        if "refusal" in answer:
            return answer["refusal"]["code"] not in DENIED
        return [unit["name"] for unit in answer["ownership"]["roles"][1]["units"]] == [OWNER]

    def export(self, bureau: str) -> bool:
        file, partners = self.folder / f"{bureau}.csv", str(self.trial.partners)
        done = main(["export", str(file), "--as", bureau, "--partners", partners, "--url", self.trial.url, "--json"])
        assert file.exists() == (done == 0)
        if done:
            return False
        with file.open(encoding="utf-8-sig", newline="") as text:
            return any(row["key"] == "1" and row["state"] == STATE for row in csv.DictReader(text))

    def mqtt_in(self, bureau: str) -> bool:
        with self.trial.mqtt_partner(bureau) as partner:
            try:
                partner.push(f"in-{bureau}", in_memory(COVER), "text/csv", f"m-{bureau}")
            except Refusal as refusal:
                return refusal.code not in DENIED
            received = partner.report(f"m-{bureau}", wait_s=WAIT_S).received
        assert received is not None
        report: Any = received.document["report"]
        found = {one["code"] for one in report["findings"] if one["code"].startswith(("grant.", "class."))}
        assert (report["rejected"] == 1) == bool(found - {"grant.attribute_not_covered"})
        return report["new"] == 1 and not found

    def mqtt_out(self, bureau: str) -> bool:
        """Whether it was told. Change documents carry no attribute, so that masking has nothing to withhold there."""
        told = self.told[bureau]
        assert OWNER not in json.dumps(told, ensure_ascii=False)
        return any(change["key"] == 1 for document in told for change in document["changes"])


DOORS: Final[dict[str, Callable[[Doors, str], bool]]] = {
    "SOAP": Doors.soap,
    "REST": Doors.rest,
    "MQTT in": Doors.mqtt_in,
    "MQTT out": Doors.mqtt_out,
    "export": Doors.export,
}


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    """A bus in which each bureau holds what its name says, once a cover stands and all have heard what they may."""
    folder = tmp_path_factory.mktemp("doors")
    feeds = [FIELDS.format(id=f"in-{bureau}", bureau=bureau) for bureau in (*BUREAUS, "seed")]
    trial = a_trial(folder, *feeds)
    for bureau in (*BUREAUS, "seed"):
        trial.enrol(bureau, "A bureau", "某局")
    trial.grant("seed", "push", "in-seed")
    for bureau in BUREAUS:
        grant(trial, bureau)
    with trial, ExitStack() as stack:
        made = Doors(trial, folder)
        heard = {
            bureau: stack.enter_context(Subscriber(PartnerFolder(trial.partners / bureau), trial.mqtt_url))
            for bureau in BUREAUS
        }
        seed = trial.partner("seed")
        seed.push("in-seed", in_memory(COVER), "text/csv", "m-seed")
        assert seed.report("m-seed", wait_s=WAIT_S).status == "processed"
        for bureau in sorted(BUREAUS, key=lambda bureau: not BUREAUS[bureau]):  # those who may, first
            document = heard[bureau].next(WAIT_S if expected("MQTT out", bureau) else 0.2)
            made.told[bureau] = [] if document is None else [dict(document)]
        yield made


def grant(trial: Trial, bureau: str) -> None:
    """What the bureau holds for each door, all under the one limit that its name says."""
    kind, _, word = bureau.rpartition("-")
    limits = dict(LIMITS[kind][word == "no"])
    other, revoked = limits.pop("target", None), limits.pop("revoked", False)
    held = [
        trial.grant(bureau, action, ELSEWHERE[view] if other else view, **limits)  # type: ignore[arg-type]
        for view, action in RIGHTS.items()
    ]
    held.append(trial.grant(bureau, "push", "in-seed" if other else f"in-{bureau}", **limits))
    if revoked:
        with registry(trial.settings) as opened:
            for id in held:
                opened.revoke_grant(id, APPROVER)


def expected(door: str, bureau: str) -> bool:
    """What each door must say: what the grant says, at all of them."""
    return BUREAUS[bureau] or (door == "MQTT out" and bureau == "attribute-no")


def test_every_door_keeps_every_limit_of_a_grant(doors: Doors, tell: Callable[[str], None]) -> None:
    cells = list(itertools.product(DOORS, BUREAUS))
    said = {(door, bureau): DOORS[door](doors, bureau) for door, bureau in cells}
    wrong = [cell for cell in cells if said[cell] != expected(*cell)]
    tell(f"MATRIX doors x limits: {len(cells)} cells ({len(DOORS)} doors x {len(LIMITS)} limits x allowed/denied)")
    assert wrong == []
    assert len(cells) == 90
