"""What a city's node hands down: signed, only ever newer, whole or not at all, and entered before it counts."""

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from exchange.app import levels
from exchange.placing import load_city
from exchange.reference import CURRENT, PARTS, Adopted, Listed, Reference, Shelf, make_reference, open_listed
from security.errors import Refusal
from security.jws import sign_document
from security.keys import generate
from tests.acts.bench_of_one import EXTENT, SAMPLE, Acts, both_acts

FILES = {name: SAMPLE / name for name in PARTS}


class Handed:
    """A city's reference data, and the shelf of a district that trusts it; one bus is both."""

    def __init__(self, acts: Acts, folder: Path) -> None:
        self.acts, self.folder = acts, folder
        folder.mkdir()
        self.shelf = Shelf(folder / "reference")

    def made(self, files: dict[str, Path] = FILES) -> tuple[Reference, Listed]:
        parts = {name: path.read_bytes() for name, path in files.items()}
        reference = make_reference("yongtong.demo.invalid", "2007", parts, self.folder, self.acts.bus.answer_key)
        return reference, open_listed(reference.signed, self.acts.bus.anchors)

    def other_grid(self, codes: int) -> dict[str, Path]:
        """The city's files with that many unit grids only."""
        document = json.loads(FILES["grid.geojson"].read_bytes())
        path = self.folder / f"grid-{codes}.geojson"
        path.write_text(json.dumps({**document, "features": document["features"][:codes]}))
        return {**FILES, "grid.geojson": path}

    def adopt(self, reference: Reference, listed: Listed) -> None:
        self.shelf.adopt(listed, reference.parts.__getitem__, "2007", EXTENT, self.acts.bus.journal)

    def in_force(self) -> int:
        """Unit grids by which a node with this shelf places."""
        folder = self.shelf.folder / CURRENT
        return len(load_city(folder / PARTS[0], folder / PARTS[1], EXTENT).grid.codes)


@pytest.fixture(scope="module")
def acts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acts]:
    with both_acts(tmp_path_factory.mktemp("city") / "bench") as opened:
        yield opened


@pytest.fixture
def handed(acts: Acts, tmp_path: Path) -> Handed:
    return Handed(acts, tmp_path / "handed")


def test_the_version_rises_with_the_content_and_with_nothing_else(handed: Handed) -> None:
    assert [handed.made()[0].version for _ in range(2)] == [1, 1]
    assert [handed.made(handed.other_grid(3))[0].version, handed.made()[0].version] == [2, 3]


def test_newer_data_is_in_force_at_once_and_the_audit_has_it(handed: Handed) -> None:
    first, second = handed.made(), handed.made(handed.other_grid(3))
    assert handed.shelf.is_news(first[1])
    handed.adopt(*first)
    before = handed.in_force()
    handed.adopt(*second)
    assert (before > 3, handed.in_force()) == (True, 3)
    assert handed.shelf.adopted == Adopted(2, second[1].digest)
    assert not handed.shelf.is_news(second[1])
    entry = handed.acts.bus.journal.search(type="reference")[0]
    assert (entry.detail or {})["version"] == 2


def test_an_older_list_and_another_one_of_the_same_version_are_refused(handed: Handed) -> None:
    first, second = handed.made(), handed.made(handed.other_grid(3))
    handed.adopt(*second)
    with pytest.raises(Refusal, match=r"reference\.older"):
        handed.shelf.is_news(first[1])
    other = msgspec.structs.replace(first[1], version=2)
    with pytest.raises(Refusal, match=r"reference\.other"):
        handed.shelf.is_news(other)


def test_only_the_citys_own_signature_over_the_list_as_it_stands_counts(handed: Handed) -> None:
    _, listed = handed.made()
    document = msgspec.to_builtins(listed)
    key = handed.acts.bus.answer_key
    for octets in (
        sign_document(document, "yt-reference+jws", generate("ES256")),
        sign_document(document, "yt-receipt+jws", key),
        sign_document({**document, "edition": "2026"}, "yt-reference+jws", key),
        sign_document({**document, "origin": "other.example"}, "yt-reference+jws", key),
        b"{}",
    ):
        with pytest.raises(Refusal, match=r"reference\.signature"):
            open_listed(octets, handed.acts.bus.anchors)


def test_a_part_that_is_not_what_was_signed_leaves_what_was_in_force(handed: Handed) -> None:
    handed.adopt(*handed.made())
    before = handed.in_force()
    reference, listed = handed.made(handed.other_grid(3))
    for parts in (dict.fromkeys(reference.parts, b"{}"), {**reference.parts, listed.parts[1].digest: b""}):
        with pytest.raises(Refusal, match=r"reference\.part_differs"):
            handed.adopt(Reference(2, reference.signed, parts), listed)
    broken = handed.folder / "broken.geojson"
    broken.write_text('{"type": "FeatureCollection", "features": [{}]}')
    with pytest.raises(Refusal, match=r"reference\.part_differs"):  # signed as it is, and no polygons
        handed.adopt(*handed.made({**FILES, "grid.geojson": broken}))
    with pytest.raises(Refusal, match=r"reference\.lists_differ"):
        handed.adopt(reference, msgspec.structs.replace(listed, lists="00" * 32))
    assert (handed.in_force(), handed.shelf.adopted.version) == (before, 1)


def test_what_a_city_gives_out_is_what_its_own_node_places_by(acts: Acts) -> None:
    reference = levels.HandedDown(acts.trial.settings, acts.bus.answer_key, acts.bus.boundaries)()
    assert sorted(reference.parts.values()) == sorted(path.read_bytes() for path in FILES.values())
