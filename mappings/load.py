"""Reads the feeds' files and refuses to start on a mistake in one, naming file and key."""

import hashlib
import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import MappingProxyType

import msgspec
import polars as pl

from connectors.formats.catalogue import formats
from connectors.formats.records import CRS_OPTION, NOT_OF_FEEDS, Options
from mappings.codelists import CODE_TABLES, classes, editions
from mappings.feed import Feed, FeedFile
from mappings.functions import FUNCTIONS
from mappings.schema import CANDIDATES, CLASSES_BETWEEN, FEATURES, KEY, READINGS, ROLES, Schema
from mappings.systems import is_in_degrees, is_well_formed
from security.errors import Misconfigured

ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
RULE = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")
PLANE = ("easting_m", "northing_m")
GLOBE = ("longitude_deg", "latitude_deg")
# What a feed may fill: the candidate's columns, its position under the name of its axes. The basis of a role is ours.
FIELDS: dict[str, pl.DataType | type[pl.DataType]] = {
    **dict.fromkeys(PLANE + GLOBE, pl.Float64),
    **{
        name: kind
        for name, kind in CANDIDATES.items()
        if name not in ("delivery", "record", "x", "y", "class_basis", *(f"{role}_basis" for role in ROLES))
    },
}
MOST_MOVED_M = 25.0  # how far a thing of a map may move and still be told from its neighbours
MOST_MARGIN_M = 50.0  # less than half a sheet: what lies farther beyond its edge is another sheet's
OF_READINGS: Schema = {name: kind for name, kind in READINGS.items() if name not in KEY}
# What a feature may say; any further name in lower-case letters is an attribute of it, a text.
OF_FEATURES: Schema = {
    **dict.fromkeys(PLANE + GLOBE, pl.Float64),
    **{name: kind for name, kind in FEATURES.items() if name not in (*KEY, "x", "y", "attributes")},
}
# What a reading cannot do without, and keys of a feed's file that say something about positions, classes or a whole.
NEEDED_OF_READINGS = ("source_key", "quantity", "observed_at")
NOT_OF_READINGS: dict[str, object] = {
    **{"crs": "", "accuracy_m": 1.0, "scale": 0, "classes": [], "as_of": None, "label": None},
    **{"gone_limit_percent": 10.0, "extent": "feed", "sheet": None},
}


NOTHING: Options = MappingProxyType({})


def load_feeds(folders: Iterable[Path], given: Options = NOTHING) -> dict[str, Feed]:
    """Every feed by id, from `*.toml` in the folders, each in order of name. Raises Misconfigured.

    given: options that are the machine's and no feed's, for the formats that have them
    """
    found: dict[str, Feed] = {}
    for folder in folders:
        if not folder.is_dir():  # a bus without feeds refuses every delivery, and a mistyped folder looks like one
            raise Misconfigured("config.no_folder", f"{folder}: no such folder of feeds")
        for path in sorted(folder.glob("*.toml")):
            feed = read_feed(path.read_bytes(), path.stem, str(path), given)
            if feed.id in found:
                raise Misconfigured(
                    "config.feed_file", f"{path}: id: another file already declares the feed {feed.id!r}"
                )
            found[feed.id] = feed
    layers: dict[str, str] = {}
    for feed in found.values():
        if feed.layer and layers.setdefault(feed.layer, feed.id) != feed.id:
            other = layers[feed.layer]
            raise Misconfigured("config.feed_file", f"{feed.id}.toml: layer: {other} delivers {feed.layer!r} already")
        if feed.content == "readings" and not _is_register_of(found.get(feed.of), feed):
            raise Misconfigured(
                "config.feed_file",
                f"{feed.id}.toml: of: {feed.of!r} is no feed of {feed.bureau} that says what there is",
            )
    return found


def _is_register_of(register: Feed | None, feed: Feed) -> bool:
    """Whether there is such a feed, of the same bureau, and no readings itself: nobody reports of others' things."""
    return register is not None and register.bureau == feed.bureau and register.content not in ("readings", "reference")


def read_feed(octets: bytes, stem: str, name: str = "", given: Options = NOTHING) -> Feed:
    """The feed that the octets of a file declare.

    stem: the file's name without `.toml`, which must equal the id; name: how messages name the file; given: as above.
    Raises Misconfigured naming file and key.
    """
    name = name or f"{stem}.toml"
    try:
        keys = msgspec.convert(tomllib.loads(octets.decode("utf-8")), FeedFile)
    except (ValueError, msgspec.ValidationError) as problem:
        raise Misconfigured("config.feed_file", f"{name}: {problem}") from problem
    for key, said in _mistakes(keys, stem):
        raise Misconfigured("config.feed_file", f"{name}: {key}: {said}")
    values = {key: getattr(keys, key) for key in keys.__struct_fields__} | {"options": _with_options(keys, given)}
    return Feed(**values, digest=hashlib.sha256(octets).hexdigest())


def _with_options(feed: FeedFile, given: Options) -> dict[str, str | int | bool | list[str]]:
    """The feed's options, with its `crs` where files of the format say their own and it has to be the same, and with
    the machine's."""
    others = {CRS_OPTION: feed.crs, **given}
    return {**feed.options, **{name: others[name] for name in formats()[feed.format].OPTIONS if name in others}}


def feed_digest(feed: Feed) -> str:
    """SHA-256 of the feed's file as it was read, lower-case hex."""
    return feed.digest


def _mistakes(feed: FeedFile, stem: str) -> Iterator[tuple[str, str]]:
    """(key, what is wrong with it), in reading order."""
    if feed.id != stem or not ID.fullmatch(feed.id):
        yield "id", f"{feed.id!r} is not the file's name, or not lower-case letters, digits and single hyphens"
    if not feed.bureau:
        yield "bureau", "is empty"
    yield from _format_mistakes(feed)
    yield from _content_mistakes(feed)
    yield from _field_mistakes(feed)
    yield from _class_mistakes(feed)
    yield from _ignore_mistakes(feed)
    yield from _label_mistakes(feed)
    yield from _sheet_mistakes(feed)
    for tally in feed.tally:
        if len(tally.of) not in (1, 2) or not RULE.fullmatch(tally.name):
            yield f"tally.{tally.name}", "needs a name in lower-case letters, and one or two columns"


def _format_mistakes(feed: FeedFile) -> Iterator[tuple[str, str]]:
    known = formats()
    if feed.format not in known:
        yield "format", f"{feed.format!r} is none of {', '.join(sorted(known))}"
        return
    allowed = known[feed.format].OPTIONS
    for option, value in feed.options.items():
        if option not in allowed or option in NOT_OF_FEEDS:
            yield f"options.{option}", f"the format {feed.format} has no such option"
        elif type(value) not in allowed[option]:
            yield f"options.{option}", f"{value!r} is not a {' or '.join(kind.__name__ for kind in allowed[option])}"
    if not 0 <= feed.gone_limit_percent <= 100:
        yield "gone_limit_percent", "is not between 0 and 100"


def _content_mistakes(feed: FeedFile) -> Iterator[tuple[str, str]]:
    """What the kind of content asks for: of things, positions and classes; of readings, whose things they are of."""
    if feed.content == "readings":
        yield from _reading_mistakes(feed)
        return
    if feed.of:
        yield "of", 'belongs to content = "readings" only'
    if feed.content == "reference":
        yield from _feature_mistakes(feed)
        return
    if feed.layer:
        yield "layer", 'belongs to content = "reference" only'
    yield from _position_mistakes(feed)
    if "class_code" not in feed.fields and "class_code" not in feed.defaults:
        yield "fields.class_code", "is missing, and there is no default"


def _reading_mistakes(feed: FeedFile) -> Iterator[tuple[str, str]]:
    if not feed.of:
        yield "of", "is missing: readings name the keys of another feed of the bureau"
    for key, unsaid in NOT_OF_READINGS.items():
        if getattr(feed, key) != unsaid:
            yield key.removesuffix("_m"), "says something of things, not of readings"
    for field in NEEDED_OF_READINGS:
        if field not in feed.fields and (field != "quantity" or field not in feed.defaults):
            yield f"fields.{field}", "is missing: every reading needs it"
    if "value" not in feed.fields and "state" not in feed.fields:
        yield "fields", "a reading says a value, a state, or both"


def _feature_mistakes(feed: FeedFile) -> Iterator[tuple[str, str]]:
    """Of a layer: its name, and one way in which features say where they are."""
    yield from _position_mistakes(feed)
    if not ID.fullmatch(feed.layer):
        yield "layer", f"{feed.layer!r} is not lower-case letters, digits and single hyphens"
    for key in ("classes", "label"):
        if getattr(feed, key):
            yield key, "says something of things, not of a layer"
    if ("geometry" in feed.fields) == any(axis in feed.fields for axis in PLANE + GLOBE):
        yield "fields.geometry", "a feature has either a geometry, or both axes of a point"


def _position_mistakes(feed: FeedFile) -> Iterator[tuple[str, str]]:
    if not is_well_formed(feed.crs):
        yield "crs", f"{feed.crs!r} is not of the form EPSG:4549 or local:NAME, and not GCJ-02 or BD-09"
        return
    geographic = is_in_degrees(feed.crs)
    if geographic is None:
        yield "crs", f"{feed.crs} is unknown"
        return
    if feed.scale < 0:
        yield "scale", "is not the number after 1: of a map's scale"
    if not feed.accuracy_m > 0:
        yield "accuracy", "is not greater than zero metres"
    right, wrong = (GLOBE, PLANE) if geographic else (PLANE, GLOBE)
    for axis in wrong:
        if axis in feed.fields:
            yield f"fields.{axis}", f"{feed.crs} has the axes {right[0]} and {right[1]}"
    if (right[0] in feed.fields) != (right[1] in feed.fields):
        yield "fields", f"{right[0]} and {right[1]} come together"
    if "outline" in feed.fields and PLANE[0] not in feed.fields:
        yield "fields.outline", "needs positions in metres"


def _known_fields(feed: FeedFile) -> Schema:
    """What a feed of this content may fill."""
    if feed.content == "reference":
        further = (name for name in (*feed.fields, *feed.defaults) if RULE.fullmatch(name) and name not in FEATURES)
        return {**dict.fromkeys(further, pl.String), **OF_FEATURES}
    return OF_READINGS if feed.content == "readings" else FIELDS


def _field_mistakes(feed: FeedFile) -> Iterator[tuple[str, str]]:
    known = _known_fields(feed)
    for field, rule in feed.fields.items():
        key = f"fields.{field}"
        if field not in known:
            yield key, f"is none of {', '.join(known)}"
        elif rule.parse not in FUNCTIONS:
            yield f"{key}.parse", f"{rule.parse!r} is none of {', '.join(FUNCTIONS)}"
        elif FUNCTIONS[rule.parse].gives != known[field]:
            yield f"{key}.parse", f"{rule.parse} gives {FUNCTIONS[rule.parse].gives}, the field is {known[field]}"
        if not rule.groups or not all(rule.groups) or not all(rule.columns):
            yield f"{key}.from", "names no column"
        for name in rule.tables:
            if name not in feed.lookups and name not in CODE_TABLES:
                yield f"{key}.lookup", f"there is no [lookups.{name}], and no such code list"
        if isinstance(rule.lookup, list) and len(rule.lookup) != len(rule.groups):
            yield f"{key}.lookup", "needs one lookup for each member of `from`, or one for all"
        if not isinstance(rule.lookup, list) and len(rule.groups) > 1 and any(len(group) > 1 for group in rule.groups):
            yield f"{key}.from", "columns within a list need a lookup of their own"
    used = {name for rule in feed.fields.values() for name in rule.tables}
    for name in feed.lookups:
        if name not in used:
            yield f"lookups.{name}", "no field uses it"
    for field, value in feed.defaults.items():
        if known.get(field) != pl.String or not value:
            yield f"defaults.{field}", "is no text field, or has no value"
    for field in feed.sensitive:
        if field not in known:
            yield "sensitive", f"{field!r} is no field"
    if "source_key" not in feed.fields:
        yield "fields.source_key", "is missing: every record needs the bureau's own key"


def _class_mistakes(feed: FeedFile) -> Iterator[tuple[str, str]]:
    for name in feed.classes:
        edition, _, code = name.rpartition(":")
        if edition not in (known.name for known in editions().values()):
            yield "classes", f"{name!r} names no edition that is here"
        elif code not in classes(edition)["code"]:
            yield "classes", f"{edition} has no class {code!r}"
    rule = feed.fields.get("class_code")
    said = [code for name in (rule.tables if rule else []) for code in feed.lookups.get(name, {}).values()]
    for code in [*said, *([feed.defaults["class_code"]] if "class_code" in feed.defaults else [])]:
        if feed.classes and not {*code.split(CLASSES_BETWEEN)} <= {*feed.class_codes}:
            yield "fields.class_code", f"gives the class {code!r}, which `classes` does not list"


def _label_mistakes(feed: FeedFile) -> Iterator[tuple[str, str]]:
    if feed.label is None:
        return
    if PLANE[0] not in feed.fields:
        yield "label", "needs positions in metres"
    if not feed.label.within_m > 0:
        yield "label.within_m", "is not greater than zero metres"
    if feed.label.repeated < 0 or feed.label.repeated == 1:
        yield "label.repeated", "is how many pairs share an offset: at least 2"
    try:
        pl.select(pl.lit("").str.contains(feed.label.pattern))
    except pl.exceptions.ComputeError as problem:
        yield "label.pattern", f"is no regular expression: {problem}"


def _sheet_mistakes(feed: FeedFile) -> Iterator[tuple[str, str]]:
    if (feed.sheet is not None) != (feed.extent == "sheet"):
        yield "sheet", 'and extent = "sheet" come together'
    if feed.sheet is None or feed.content == "readings":
        return
    if feed.content != "snapshot":
        yield "extent", 'a sheet is a whole: it needs content = "snapshot"'
    for axis in PLANE:
        rule = feed.fields.get(axis)
        if rule is None or len(rule.columns) != 1 or rule.tables:
            yield "sheet", f"needs {axis} in metres, out of one column"
    if not 0 <= feed.sheet.margin_m <= MOST_MARGIN_M:
        yield "sheet.margin_m", f"is not between zero and {MOST_MARGIN_M} metres"
    if not 0 < feed.sheet.moved_m <= MOST_MOVED_M:
        yield "sheet.moved_m", f"is not between zero and {MOST_MOVED_M} metres"
    if bool(feed.sheet.among) != bool(feed.sheet.values):
        yield "sheet.among", "and values come together"
    try:
        groups = re.compile(feed.sheet.pattern).groups
        pl.select(pl.lit("").str.extract(feed.sheet.pattern, 1))
    except (re.error, pl.exceptions.ComputeError) as problem:
        yield "sheet.pattern", f"is no regular expression: {problem}"
    else:
        if groups != 1:
            yield "sheet.pattern", "needs one group, the number"


def _lookups_of_class(feed: FeedFile) -> list[str]:
    rule = feed.fields.get("class_code")
    return rule.tables if rule else []


def _ignore_mistakes(feed: FeedFile) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for rule in feed.ignore:
        key = f"ignore.{rule.rule}"
        if rule.rule in seen or not RULE.fullmatch(rule.rule):
            yield key, "is there twice, or is not lower-case letters, digits and single underscores"
        if rule.carried == (rule.from_ is not None) or (rule.from_ is not None) != bool(rule.values or rule.endings):
            yield key, "needs either `carried = true` or `from` with `values` or `endings`"
        if not {*rule.unless} <= {*_lookups_of_class(feed)}:
            yield f"{key}.unless", "names no lookup of the class"
        seen.add(rule.rule)
