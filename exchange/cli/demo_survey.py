"""A real street: nine network sheets of one survey, each a feed of its own bureau, and the drawing made from it."""

import tomllib
from contextlib import closing
from pathlib import Path

from exchange import audit, ownership
from exchange.app import opening, trusted
from exchange.cli.demo_pairs import pair_points
from exchange.cli.demo_story import Kind, Story
from exchange.cli.trial import Trial, city_of
from exchange.placing import load_city
from exchange.store.store import Store
from mappings.feed import Feed
from mappings.load import load_feeds
from samples import street_survey
from security.errors import Misconfigured
from security.message import file_content

SAMPLE = Path(street_survey.__file__).parent
FILE = "pipe_survey_results.xls"
DRAWINGS = ("pipe_map_R2004_ansi936.dxf", "pipe_map_R12_ansi936.dxf")  # the same drawing, saved in two ways
DRAWING = "planning-map-500"
POINTS, SEGMENTS, ROWS = 909, 873, 1746  # as the survey's own notes count them
ENTITIES, ARROWS, DOTS = 4369, 139, 910  # of the drawing
PURPOSE = "井盖权属 whose cover"


def prepared(folder: Path, data: Path) -> Trial:
    """A bus around the street, a bureau for each network enrolled. Raises Misconfigured without the survey."""
    if not (data / FILE).is_file():
        raise Misconfigured("config.file", f"{data}: no {FILE} here; --data names the folder of the street survey")
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
    """Nine deliveries of the one workbook, one a sheet; the drawing; then one cover's ownership, and the log."""
    workbook = file_content(data / FILE)
    feeds = load_feeds(city_of(SAMPLE / "settings.toml").feeds)
    drawing = feeds.pop(DRAWING)
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
    _drawn(trial, data, list(feeds.values()), drawing, story)
    _question(trial, story)
    verdict = audit.verify(trial.state, trusted.anchors_of(trial.settings))
    story.check("the whole log holds", verdict.ok, f"{verdict.entries} entries")
    with closing(opening.open_store(trial.settings)) as store:
        story.ledger = store.ledger()
        story.kinds = _kinds(store, story)


def _drawn(trial: Trial, data: Path, sheets: list[Feed], drawing: Feed, story: Story) -> None:
    """The drawing joins the register by place and pipe class, and saved in another form it says nothing new."""
    planning = trial.partner(drawing.bureau)
    settings = trial.settings
    city = load_city(settings.at(settings.city.districts), settings.at(settings.city.grid), settings.city.extent)
    for name in DRAWINGS:
        drawn = file_content(data / name)
        story.pairs = pair_points(sheets, drawing, file_content(data / FILE), drawn, city)
        whole = story.pairs.right == story.pairs.expected == POINTS and not story.pairs.wrong
        story.check(f"{name}: each point paired with its symbol, by place and pipe class alone", whole,
                    f"{story.pairs.right} right, {story.pairs.wrong} wrong, {story.pairs.missing} missing")  # fmt: skip
        told = story.deliver(planning, drawing.bureau, drawing.id, drawn, name.removesuffix(".dxf"))
        by_rule = {f["code"]: f["count"] for f in told.findings}
        story.check(f"{name}: arrows and dots left out by name", told.records == ENTITIES and (
            by_rule["ignored.direction_arrow"], by_rule["ignored.point_under_symbol"]) == (ARROWS, DOTS),
            f"{told.records} entities, {ARROWS} arrows, {DOTS} dots")  # fmt: skip
        balanced = sum(part["records"] for part in told.parts) == told.records
        story.check(f"{name}: the sums balance in each of {len(told.parts)} layers", balanced, told.records)
    with closing(opening.open_store(trial.settings)) as store:
        together = (
            "SELECT count(*) FROM (SELECT component_id FROM claims GROUP BY component_id "
            "HAVING count(DISTINCT feed_id) = 2 AND count(*) = 2)"
        )
        (joined,), found = store.connection().execute(together).fetchone(), store.ledger()
    story.check("each component is one thing in the register and in the drawing", joined == found.components,
                f"{joined} of {found.components}, {found.ties} open")  # fmt: skip
    unchanged = story.deliveries[-1].accepted == joined and found.claims == 2 * joined
    story.check("the drawing saved in another form changes nothing", unchanged, f"{found.claims} claims")


def _kinds(store: Store, story: Story) -> list[Kind]:
    """What the points of each appurtenance became: components from the store, the rest from the reports."""
    query = (
        "SELECT f.code, k.more ->> 'appurtenance', count(*), k.class_code FROM claims k "
        "JOIN feeds f ON f.id = k.feed_id WHERE f.code <> ? GROUP BY 1, 2, 4"
    )
    kinds = [Kind(*row) for row in store.connection().execute(query, (DRAWING,))]
    kinds += [
        Kind(told.feed, value["value"] or "(none)", value["count"], finding["code"])
        for told in story.deliveries
        if told.feed != DRAWING
        for finding in told.findings
        if finding["code"] != "ignored.repeated_point"
        for value in finding["values"]
    ]
    return sorted(kinds, key=lambda kind: (kind.feed, -kind.points, kind.appurtenance))


def _question(trial: Trial, story: Story) -> None:
    """One sewage cover: the sheet's owner column is blank, so the answer says that its owner is the feed's default."""
    with closing(opening.open_store(trial.settings)) as store:
        query = "SELECT id FROM components WHERE class_code = '0102' ORDER BY id LIMIT 1"
        (number,) = store.connection().execute(query).fetchone()
        there = ownership.component(store, str(number))
    answer = trial.partner("case-system").ownership(there.identifier or str(number), purpose=PURPOSE)
    owner = next(role for role in answer.roles if role.role == "owner")
    words = ", ".join(unit.name or "" for unit in owner.units)
    story.check(
        "one cover's owner, said to be the feed's default", owner.status == "defaulted", f"{there.identifier}: {words}"
    )
