"""docs/feed.md says every key that a feed's file may have, and its example is a feed."""

import re
from pathlib import Path

import msgspec
import pytest

from connectors.formats import dxf, table, telemetry_json
from mappings.examples import check_examples
from mappings.feed import Example, FeedFile, FieldRule, IgnoreRule, Tally
from mappings.functions import FUNCTIONS
from mappings.load import FIELDS, OF_FEATURES, OF_READINGS, load_feeds, read_feed

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/feed.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", [FeedFile, FieldRule, IgnoreRule, Tally, Example])
def test_every_key_is_explained(kind: type[msgspec.Struct]) -> None:
    keys = {field.encode_name for field in msgspec.structs.fields(kind)}
    tables = {"fields", "defaults", "lookups", "ignore", "tally", "example", "options"}
    said = set(re.findall(r"`([a-z_]+)`", DOCUMENT)) | {name for name in tables if f"`[{name}" in DOCUMENT}
    said |= {name for name in tables if f"`[[{name}]]`" in DOCUMENT}
    assert keys <= said


def test_every_field_function_and_option_is_explained() -> None:
    said = set(re.findall(r"`([a-z_0-9]+)`", DOCUMENT))
    known = {
        *FIELDS,
        *OF_READINGS,
        *OF_FEATURES,
        *FUNCTIONS,
        *table.OPTIONS,
        *dxf.OPTIONS,
        *dxf.COLUMNS,
        *telemetry_json.OPTIONS,
    }
    assert known <= said


def test_the_example_is_a_feed_whose_examples_hold() -> None:
    example = re.search(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)
    assert example
    assert check_examples(read_feed(example[1].encode(), "lighting-census")) == ()


def test_the_example_of_readings_is_a_feed() -> None:
    examples = re.findall(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)
    feed = read_feed(examples[1].encode(), "cover-telemetry")
    assert (feed.content, feed.of) == ("readings", "lighting-census")


def test_the_example_of_a_layer_is_a_feed() -> None:
    examples = re.findall(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)
    feed = read_feed(examples[2].encode(), "roads")
    assert (feed.content, feed.layer) == ("reference", "roads")


def test_the_feeds_of_the_made_up_quarter_hold_their_examples() -> None:
    for feed in load_feeds([ROOT / "mappings/feeds", ROOT / "bench/feeds"]).values():
        assert feed.example
        assert check_examples(feed) == ()
