"""Layers of reference data: `layers`, `layers show|release|imagery`."""

import argparse
from contextlib import closing
from datetime import date
from typing import Any

import msgspec
import shapely

from exchange.app import opening
from exchange.boundaries import LAYERS
from exchange.cli.output import print_json, print_table, say
from exchange.cli.parsing import Commands, add_command, count, day, degrees, settings_of
from exchange.cli.people import acting, add_person_options, proposed
from exchange.decision_documents import BoundaryBody
from exchange.layer_answers import imagery, version_of
from exchange.store.layers import Version


def add_commands(commands: Commands, common: argparse.ArgumentParser) -> None:
    """layers, layers show|release|imagery."""
    listed = add_command(
        commands,
        common,
        "layers",
        _layers,
        says="layers of reference data, and what is in force",
        example="yongtong layers",
    )
    layers = listed.add_subparsers(metavar="COMMAND")
    show = add_command(
        layers,
        common,
        "show",
        _show,
        says="what a version of a layer says, feature by feature, without its map",
        example="yongtong layers show unit-grid --version 1",
    )
    release = add_command(
        layers,
        common,
        "release",
        _release,
        says="propose that all be placed by a version; once a security officer approves, components are placed anew",
        example="yongtong layers release unit-grid --version 2 --by 王五",
    )
    for parser in (show, release):
        parser.add_argument("layer", metavar="LAYER")
    show.add_argument("--version", type=count, metavar="N", help="its number (the newest)")
    release.add_argument("--version", type=count, metavar="N", required=True, help="its number")
    show.add_argument("--on", type=day, metavar="DATE", help="the version that held on that day")
    show.add_argument("--limit", type=count, default=20, metavar="N", help="features shown (20)")
    add_person_options(release)
    image = add_command(
        layers,
        common,
        "imagery",
        _imagery,
        says="which aerial images show a place, the latest first",
        example="yongtong layers imagery 121.549 29.874 --on 2026-03-31",
    )
    image.add_argument("longitude_deg", metavar="LON", type=degrees)
    image.add_argument("latitude_deg", metavar="LAT", type=degrees)
    image.add_argument("--on", type=day, metavar="DATE", help="taken on that day or before (any)")


def _layers(options: argparse.Namespace) -> int:
    with closing(opening.open_store(settings_of(options))) as store:
        versions, placed = store.layer_versions(), store.placed_by()
    in_force = {one.version for one in placed.values()}
    told = [{**_told(one), "in_force": one.id in in_force} for one in versions]
    by = {layer: _by(versions, placed[layer].version if layer in placed else None) for layer in LAYERS}
    if options.json:
        print_json({"layers": told, "placed_by": by})
        return 0
    rows = [
        (
            one.layer,
            one.version,
            one.features,
            one.valid_from.date(),
            _standing(one, one.id in in_force),
            one.digest[:12],
        )
        for one in versions
    ]
    print_table("基准数据图层 Layers", ["layer", "version", "要素 features", "起 from", "状态 state", "digest"], rows)
    said = [
        (layer, f"第 {number} 版 version" if number else "设置所指文件 file of the settings")
        for layer, number in by.items()
    ]
    print_table("落格依据 Placed by", ["layer", ""], said)
    return 0


def _by(versions: list[Version], id: int | None) -> int | None:
    return next((one.version for one in versions if one.id == id), None)


def _standing(version: Version, in_force: bool) -> str:
    if version.erased_on:
        return "已销毁 erased"
    if version.recalled_us is not None:
        return "已撤回 recalled"
    return "施行中 in force" if in_force else ""


def _told(version: Version) -> dict[str, Any]:
    names = ("layer", "version", "feed", "bureau", "message_id", "entry", "digest", "features", "gone", "valid_from")
    return {name: getattr(version, name) for name in names} | {"stands": version.stands}


def _show(options: argparse.Namespace) -> int:
    with closing(opening.open_store(settings_of(options))) as store:
        version = version_of(store, options.layer, options.version, options.on)
        features = store.features(version.id).head(options.limit)
    places = shapely.from_wkb(features["wkb"].to_numpy().astype(object))
    rows = [
        {"code": code, "name": name, "kind": kind, "corners": corners}
        for (code, name), kind, corners in zip(
            features.select("source_key", "name").iter_rows(),
            (place.geom_type for place in places),
            shapely.get_num_coordinates(places).tolist(),
            strict=True,
        )
    ]
    if options.json:
        print_json({"version": _told(version), "features": rows})
        return 0
    title = f"{version.layer} {version.version}: {version.features} features, first {len(rows)}"
    print_table(title, ["code", "name", "kind", "corners"], [list(row.values()) for row in rows])
    return 0


def _release(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    with acting(options) as (opened, officer):
        with opening.boundaries_of(settings) as boundaries:
            version = boundaries.decidable(options.layer, options.version)
            moves = boundaries.moves(version)
        body = BoundaryBody(version.layer, version.version, version.bureau, version.digest)
        decision = opened.propose_boundary(body, officer)
    if not options.json:
        say(
            f"将有 {moves.elsewhere} 条申报改落，其中 {moves.nowhere} 条不在任何面内 {moves.elsewhere} claims would be "
            f"counted elsewhere, {moves.nowhere} of them in no area"
        )
    said = {"layer": version.layer, "version": version.version, "digest": version.digest, "decision": decision}
    return proposed(options, {**said, "elsewhere": moves.elsewhere, "nowhere": moves.nowhere})


def _imagery(options: argparse.Namespace) -> int:
    on: date | None = options.on
    with closing(opening.open_store(settings_of(options))) as store:
        images = imagery(store, options.longitude_deg, options.latitude_deg, on)
    if options.json:
        print_json({"imagery": [msgspec.structs.asdict(one) for one in images]})
        return 0
    rows = [(one.code, one.taken_on, one.resolution_m, one.address, one.digest[:12]) for one in images]
    print_table("影像 Imagery", ["code", "摄于 taken", "m", "存放 at", "digest"], rows)
    return 0
