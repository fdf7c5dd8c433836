"""An agency signs for a bureau through a running bus: over SOAP, over the broker, from the command line."""

import json
from hashlib import sha256

import pytest

from connectors.partner.folder import PartnerFolder
from exchange.cli.people import registry
from exchange.cli.trial import PROPOSER
from security.errors import Refusal, Unavailable
from security.message import in_memory
from tests.whole.real_bus import FEED, RealBus, csv, rows
from tests.whole.test_command_line import yongtong
from tests.whole.test_mqtt import until


@pytest.fixture(scope="module")
def agency(bus: RealBus) -> PartnerFolder:
    """Enrolled, and without a grant."""
    bus.trial.enrol("agency", "Agency", "代办机构")
    return bus.folder("agency")


@pytest.fixture
def id(request: pytest.FixtureRequest) -> str:
    """A message id of the test's own."""
    return f"si-{sha256(request.node.nodeid.encode()).hexdigest()[:12]}"


@pytest.mark.usefixtures("agency")
def test_an_agency_signs_for_a_bureau_over_either_door_and_not_without_a_grant(bus: RealBus, id: str) -> None:
    content = in_memory(csv(rows(id)))
    over_soap = bus.trial.partner("agency")
    with pytest.raises(Refusal, match=r"auth\.sender_mismatch"):
        over_soap.push(FEED, content, "text/csv", id, on_behalf_of="made-up")
    with bus.trial.mqtt_partner("agency") as over_mqtt, pytest.raises(Unavailable):
        over_mqtt.push(FEED, content, "text/csv", id, on_behalf_of="made-up", wait_s=1.0)
    assert until(lambda: bus.journal.search(type="refusal", outcome="mqtt.topic_refused"))

    granted = [bus.trial.grant("agency", "on_behalf_of", "made-up"), bus.trial.grant("agency", "push", FEED)]
    received = over_soap.push(FEED, content, "text/csv", id, on_behalf_of="made-up")
    assert (received.document["sender"], received.document["asserted_by"]) == ("made-up", "agency")
    with bus.trial.mqtt_partner("agency") as over_mqtt:
        assert over_mqtt.push(FEED, content, "text/csv", id, on_behalf_of="made-up").octets == received.octets
        other = in_memory(csv(rows(f"{id}-b")))
        carried = over_mqtt.push(FEED, other, "text/csv", f"{id}-b", on_behalf_of="made-up")
        assert carried.document["carrier"] == "broker:main"
        with pytest.raises(Refusal, match=r"delivery\.id_reused"):
            over_mqtt.push(FEED, other, "text/csv", id, on_behalf_of="made-up")
    assert bus.partner().report(id, wait_s=60).status == "processed"
    asked = bus.partner().receipt(id)
    assert asked.octets == received.octets, "the bureau in whose name it was said has the receipt too"
    with registry(bus.trial.settings) as opened:
        for grant in granted:
            opened.revoke_grant(grant, PROPOSER)
    with pytest.raises(Refusal, match=r"auth\.sender_mismatch"):
        over_soap.push(FEED, content, "text/csv", id, on_behalf_of="made-up")


def test_the_command_line_pushes_in_anothers_name(bus: RealBus, id: str, agency: PartnerFolder) -> None:
    file = agency.path.parent / f"{id}.csv"
    file.write_bytes(csv(rows(id)))
    for action, target in (("on_behalf_of", "made-up"), ("push", FEED)):
        bus.trial.grant("agency", action, target)  # type: ignore[arg-type]  # literals of the tuple
    where = ["--partners", str(agency.path.parent), "--url", bus.trial.url, "--settings", bus.trial.settings.source]
    pushed = yongtong(
        *["push", FEED, str(file), "--as", "agency", "--for", "made-up", "--message-id", id, "--json", *where],
        folder=agency.path,
    )
    assert pushed.returncode == 0, pushed.stderr
    assert json.loads(pushed.stdout)["receipt"]["asserted_by"] == "agency"
    assert "made-up" in pushed.stderr
