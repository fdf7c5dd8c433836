"""The second door in the demo: a water gateway publishes readings, a district centre hears of changes."""

from contextlib import closing
from pathlib import Path

import msgspec

from connectors.partner.folder import PartnerFolder
from connectors.partner.subscriber import Subscriber
from exchange.app import opening
from exchange.cli.demo_story import Story
from exchange.cli.partner import open_mqtt_partner
from exchange.cli.trial import Trial
from samples.telemetry import Telemetry
from security.message import file_content

PURPOSE = "水位异常 a level out of range"
HEARD_WITHIN_S = 30.0


def enrol(trial: Trial) -> None:
    """Grants of the second door; whose they are is enrolled already."""
    trial.grant("water", "push", "water-telemetry")
    trial.grant("haishu-centre", "subscribe", "changes")


def gateway(trial: Trial, story: Story, files: Path) -> None:
    """Signed readings over MQTT, many in one delivery; the latest of each quantity stands with its component."""
    truth = msgspec.json.decode((files / "telemetry-truth.json").read_bytes(), type=Telemetry)
    content = file_content(files / "telemetry.json")
    with open_mqtt_partner(trial.partners / "water", trial.mqtt_url) as over:
        told = story.deliver(trial.partner("water"), "water", "water-telemetry", content, "telemetry-1", over)
    story.check("the gateway's delivery came signed, by the broker", told.form == "jws", told.form)
    wanted = {code: len(rows) for code, rows in truth.rejected.items()}
    story.check("telemetry: every sown fault found, and no other", story.faults(told) == wanted, f"{wanted}")
    key, latest = sorted(truth.latest.items())[0]
    with closing(opening.open_store(trial.settings)) as store:
        query = "SELECT component_id FROM claims WHERE source_key = ?"
        (number,) = store.connection().execute(query, (key,)).fetchone()
    shown = trial.partner("haishu-centre").component(str(number), purpose=PURPOSE).readings
    said = {one.quantity: one.value if one.value is not None else one.state for one in shown}
    story.check("its latest reading stands with the component, and its proof", said == latest, f"{key}: {said}")


def listening(trial: Trial) -> Subscriber:
    """The district centre's side of the change feed."""
    return Subscriber(PartnerFolder(trial.partners / "haishu-centre"), trial.mqtt_url, "register")


def heard(trial: Trial, story: Story, centre: Subscriber) -> None:
    """It heard of every component, each document beginning where the one before ended; the last number is the bus's."""
    with closing(opening.open_store(trial.settings)) as store:
        last, components = store.connection().execute("SELECT max(change_number), count(*) FROM components").fetchone()
    keys: list[int] = []
    cursor, joined = 0, True
    while cursor < last and (document := centre.next(HEARD_WITHIN_S)) is not None:
        joined = joined and document["after"] == cursor
        cursor = document["next"]
        keys += [change["key"] for change in document["changes"]]
    whole = joined and cursor == last and len(set(keys)) == components
    story.check("a subscriber hears of every component, by the broker, without a gap", whole,
                f"{len(keys)} changes of {len(set(keys))} components")  # fmt: skip
