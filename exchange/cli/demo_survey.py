"""A real street: nine network sheets of one survey, each a feed of its own bureau."""

import tomllib
from contextlib import closing
from pathlib import Path

from exchange import audit, ownership
from exchange.app import anchors_of
from exchange.cli.demo_story import Kind, Story
from exchange.cli.trial import Trial, city_of
from exchange.store.sqlite import Store
from mappings.load import load_feeds
from samples import street_survey
from security.errors import Misconfigured
from security.message import file_content

SAMPLE = Path(street_survey.__file__).parent
FILE = "pipe_survey_results.xls"
POINTS, SEGMENTS, ROWS = 909, 873, 1746  # as the survey's own notes count them
PURPOSE = "井盖权属 whose cover"


def prepared(folder: Path, data: Path) -> Trial:
    """A bus around the street, a bureau for each network enrolled. Raises Misconfigured without the survey."""
    if not (data / FILE).is_file():
        raise Misconfigured(f"{data}: no {FILE} here; --data names the folder of the street survey")
    city = city_of(SAMPLE / "settings.toml")
    trial = Trial(folder / "bus", city)
    bureaus = tomllib.loads((SAMPLE / "bureaus.toml").read_text(encoding="utf-8"))
    for code, words in bureaus.items():
        trial.enrol(code, words["title"], words["title_zh"])
    for feed in load_feeds(city.feeds).values():
        trial.grant(feed.bureau, "push", feed.id)
    trial.enrol("case-system", "Case system", "案件系统", "case system")
    trial.grant("case-system", "pull", "ownership")
    return trial


def play(trial: Trial, data: Path, story: Story) -> None:
    """Nine deliveries of the one workbook, one a sheet; then one cover's ownership, and the log."""
    workbook = file_content(data / FILE)
    feeds = load_feeds(city_of(SAMPLE / "settings.toml").feeds)
    for feed in feeds.values():
        told = story.deliver(trial.partner(feed.bureau), feed.bureau, feed.id, workbook, f"{feed.id}-2022")
        rejected = sum(f["count"] for f in told.findings if f["severity"] == "error")
        named = sum(f["count"] for f in told.findings if f["severity"] == "ignored")
        continued = sum(f["count"] for f in told.findings if f["code"] == "ignored.repeated_point")
        story.check(
            f"{feed.id}: each point a component, or no component by a named rule",
            rejected == 0 and told.accepted + named - continued == told.tallies["points"],
            f"{told.tallies['points']} points, {told.accepted} components, {named - continued} by rule",
        )
    points, segments, rows = (
        sum(told.tallies["points"] for told in story.deliveries),
        sum(told.tallies["segments"] for told in story.deliveries),
        sum(told.records for told in story.deliveries),
    )
    story.check("nine sheets", len(story.deliveries) == 9, len(story.deliveries))
    story.check("points as the survey counts them", points == POINTS, points)
    story.check("segments as the survey counts them", segments == SEGMENTS, segments)
    story.check("rows as the survey counts them", rows == ROWS, rows)
    _question(trial, story)
    verdict = audit.verify(trial.state, anchors_of(trial.settings))
    story.check("the whole log holds", verdict.ok, f"{verdict.entries} entries")
    with closing(Store(trial.state)) as store:
        story.ledger = store.ledger()
        story.kinds = _kinds(store, story)


def _kinds(store: Store, story: Story) -> list[Kind]:
    """What the points of each appurtenance became: components from the store, the rest from the reports."""
    query = (
        "SELECT f.code, k.more ->> 'appurtenance', count(*), k.class_code FROM claims k "
        "JOIN feeds f ON f.id = k.feed_id GROUP BY 1, 2, 4"
    )
    kinds = [Kind(*row) for row in store.connection().execute(query)]
    kinds += [
        Kind(told.feed, value["value"] or "(none)", value["count"], finding["code"])
        for told in story.deliveries
        for finding in told.findings
        if finding["code"] != "ignored.repeated_point"
        for value in finding["values"]
    ]
    return sorted(kinds, key=lambda kind: (kind.feed, -kind.points, kind.appurtenance))


def _question(trial: Trial, story: Story) -> None:
    """One sewage cover: the sheet's owner column is blank, so the answer says that its owner is the feed's default."""
    with closing(Store(trial.state)) as store:
        query = "SELECT id FROM components WHERE class_code = '0102' ORDER BY id LIMIT 1"
        (number,) = store.connection().execute(query).fetchone()
        there = ownership.component(store, str(number))
    answer = trial.partner("case-system").ownership(there.identifier or str(number), purpose=PURPOSE)
    owner = next(role for role in answer.roles if role.role == "owner")
    words = ", ".join(unit.name or "" for unit in owner.units)
    story.check(
        "one cover's owner, said to be the feed's default", owner.status == "defaulted", f"{there.identifier}: {words}"
    )
