"""辖区与网格边界 By which districts and unit grid everything is placed now, and how another version comes into force.

The two files that the settings name are the first. A version of the layers `district` and `unit-grid` that planning
delivered takes their place once two persons decided so (a decision `boundary`, which names the version by its digest);
of several the one decided last that stands. Recalled or erased, it gives way to the one in force before.

The decision alone places nothing. The next worker that does anything has the store to itself for a moment, places all
components anew in one transaction and writes beside them by which versions that was (`placed_by`). What is placed later
goes by that row, read within its turn: so no record is ever placed by another version than the components are.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec
import polars as pl
import shapely

from exchange import validation
from exchange.decision_documents import BoundaryBody
from exchange.entry import Entry
from exchange.faults import durable_step
from exchange.journal import Journal
from exchange.layer_rules import DISTRICT, TILING, UNIT_GRID, Parents
from exchange.layers import feature_digests, version_digest
from exchange.placing import Areas, City, areas_of, codes_at
from exchange.store.frames import moment
from exchange.store.layers import Version
from exchange.store.placing_anew import Place
from exchange.store.store import Store
from exchange.transformation import Numbers
from exchange.validation import Lists
from security.errors import AuditBroken, Refusal

LAYERS: Final = (DISTRICT, UNIT_GRID)

Decided = Mapping[str, Sequence[BoundaryBody]]  # by layer, in the order of the log


class InForce(msgspec.Struct, frozen=True):
    """The polygons, and the code lists that come with them. versions: by layer their ids, none where it is the file."""

    versions: Mapping[str, int]
    city: City
    lists: Lists


class Moves(msgspec.Struct, frozen=True):
    """What a version would do to the components of today: how many claims are counted elsewhere by it, and how many of
    these then stand in no area of the layer."""

    elsewhere: int
    nowhere: int


class Boundaries:
    """What is in force, as the store has it; in any process, without beginning anew.

    decided: what persons put in force; first: by the settings' files; edition: of the class list
    """

    def __init__(self, store: Store, decided: Callable[[], Decided], first: City, edition: str) -> None:
        self._store, self._decided, self._first, self._edition = store, decided, first, edition
        self._now = self._opened({})

    def now(self) -> InForce:
        """By what is placed now. Raises AuditBroken where the store's version is not the one that was decided on."""
        placed = self._store.placed_by()
        versions = {layer: one.version for layer, one in placed.items() if one.version is not None}
        if versions != self._now.versions:
            self._now = self._opened(versions)
        return self._now

    def due(self) -> list[str]:
        """Layers of which another version shall be in force than is, or of which the audit lacks that it is."""
        placed, found = self._store.placed_by(), []
        for layer, wanted in self._wanted().items():
            one = placed.get(layer)
            if (one.version if one else None) != (wanted.id if wanted else None) or (one and not one.noted):
                found.append(layer)
        return found

    def feeds_due(self) -> list[str]:
        """The feeds in whose turn that is done."""
        named = {one.layer: one.feed for one in self._store.layer_versions()} if self._decided() else {}
        return sorted({named[layer] for layer in self.due() if layer in named}) if named else []

    def bring_into_force(self, journal: Journal, actor: str, at: datetime) -> int:
        """Place everything by what shall be in force, if it is not yet; gives how many components are elsewhere by it.

        Nobody else is at the store meanwhile. Again after a crash does what is left to do.
        """
        if not self._decided() or not self.due():
            return 0
        with self._store.turn(None):
            moved = 0
            if wanted := self._changed():
                city = self._opened({layer: one.id for layer, one in self._wanted().items() if one}).city
                durable_step("boundary.store:before")
                since = self._since(wanted, at)
                of = {layer: one.id if one else None for layer, one in wanted.items()}
                moved = self._store.put_in_force(_places(city), of, since)
                durable_step("boundary.store:after")
            for entry, layer in self._unnoted(actor):
                journal.note(entry).result()
                durable_step("boundary.note:after")
                self._store.note_placed(layer)
            return moved

    def moves(self, version: Version) -> Moves:
        """What a version would do if it came into force now."""
        now = self.now()
        city = self._opened({**now.versions, version.layer: version.id}).city
        claims, _ = self._store.elsewhere(_places(city))
        column = "division_code" if version.layer == DISTRICT else "grid_code"
        return Moves(claims.height, claims[column].null_count())

    def decidable(self, layer: str, number: int) -> Version:
        """The version of a layer by that number, if it can come into force. Raises Refusal `layer.no_boundary`,
        `layer.unknown`, `layer.withdrawn`."""
        if layer not in LAYERS:
            raise Refusal("layer.no_boundary", f"{layer}: {', '.join(LAYERS)}")
        found = next((one for one in self._store.layer_versions(layer) if one.version == number), None)
        if found is None:
            raise Refusal("layer.unknown", f"{layer} {number}")
        if not found.stands:
            raise Refusal("layer.withdrawn", f"{layer} {number}")
        return found

    def parents(self, layer: str) -> Parents | None:
        """The areas in which those of a layer must lie: of the nearest larger layer that was delivered, else the
        districts in force; None for districts, and for layers that tile nothing."""
        larger = list(TILING)[: list(TILING).index(layer)] if layer in TILING else []
        for one in reversed(larger):
            version, _ = self._store.newest_version(one)
            if version is not None:
                areas = self._areas(version)
                digits = len(areas.codes[0]) if areas.codes else 0
                return Parents(digits, dict(zip(areas.codes, areas.polygons, strict=True)))
        districts = self.now().city.districts
        return Parents(6, dict(zip(districts.codes, districts.polygons, strict=True))) if larger else None

    def _wanted(self) -> dict[str, Version | None]:
        """By layer the version that shall be in force; None: the settings' file."""
        decided = self._decided()
        return {layer: self._standing(layer, decided.get(layer, ())) for layer in LAYERS}

    def _standing(self, layer: str, decided: Sequence[BoundaryBody]) -> Version | None:
        if not decided:
            return None
        known = {one.version: one for one in self._store.layer_versions(layer) if one.stands}
        named = ((known.get(body.version), body) for body in reversed(decided))
        return next((one for one, body in named if one is not None and one.digest == body.digest), None)

    def _changed(self) -> dict[str, Version | None]:
        placed = self._store.placed_by()
        by = {layer: one.version for layer, one in placed.items()}
        return {
            layer: one
            for layer, one in self._wanted().items()
            if by.get(layer) != (one.id if one is not None else None)
        }

    def _since(self, wanted: Mapping[str, Version | None], at: datetime) -> datetime:
        """From when the new boundaries hold: the version's own day, unless others held later; never to come."""
        placed = self._store.placed_by()
        days = [
            one.valid_from
            for layer, one in wanted.items()
            if one is not None and (layer not in placed or one.valid_from_us > placed[layer].since_us)
        ]
        return min(max(days), at) if len(days) == len(wanted) else at

    def _unnoted(self, actor: str) -> list[tuple[Entry, str]]:
        versions = {one.id: one for one in self._store.layer_versions()}
        found = []
        for layer, one in self._store.placed_by().items():
            version = versions.get(one.version) if one.version is not None else None
            detail: dict[str, str | int] = {
                "layer": layer,
                "version": version.version if version else 0,
                "digest": version.digest if version else "",
                "since": moment(one.since_us).isoformat(),
                "moved": one.moved,
            }
            feed = version.feed if version else ""
            if not one.noted:
                found.append(
                    (Entry(type="reference", outcome="in_force", actor=actor, feed=feed, detail=detail), layer)
                )
        return found

    def _opened(self, versions: Mapping[str, int]) -> InForce:
        by_id = {one.id: one for one in self._store.layer_versions()} if versions else {}
        areas = {layer: self._areas(by_id[id]) for layer, id in versions.items()}
        districts, grid = areas.get(DISTRICT, self._first.districts), areas.get(UNIT_GRID, self._first.grid)
        lists = validation.lists(self._edition, grid=grid.codes, districts=districts.codes)
        return InForce(dict(versions), msgspec.structs.replace(self._first, districts=districts, grid=grid), lists)

    def _areas(self, version: Version) -> Areas:
        features = self._store.features(version.id)
        said = version_digest(features.with_columns(feature_digests(features)))
        if said != version.digest:  # somebody wrote into the store: nothing is placed by that
            raise AuditBroken(f"version {version.version} of the layer {version.layer} is not what was delivered")
        polygons = shapely.from_wkb(features["wkb"].to_numpy().astype(object))
        return areas_of(dict(zip(features["source_key"], polygons, strict=True)))


def _places(city: City) -> Place:
    def place(longitude: Numbers, latitude: Numbers) -> tuple[pl.Series, pl.Series]:
        return codes_at(city, longitude, latitude)

    return place
