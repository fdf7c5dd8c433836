"""地方坐标系 The city's local reference systems, and how well their control points prove them: `systems [check]`.

Residuals, and never a parameter or a coordinate.
"""

import argparse
from typing import Any, Final

from exchange.app import opening
from exchange.cli.output import print_json, print_table
from exchange.cli.parsing import Commands, add_command, settings_of
from exchange.local_systems import LocalSystem
from exchange.settings import Settings
from security.errors import Misconfigured

KINDS: Final = {"plane": "四参数 plane", "space": "七参数 space", "projection": "投影 projection"}


def add_commands(commands: Commands, common: argparse.ArgumentParser) -> None:
    """systems, systems check."""
    listed = add_command(
        commands,
        common,
        "systems",
        _systems,
        says="the city's local reference systems, and how far their control points are off; never parameters",
        example="yongtong systems",
    )
    below = listed.add_subparsers(metavar="COMMAND")
    again = argparse.ArgumentParser(add_help=False)  # what was said before the word `check` holds after it, too
    again.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="one JSON document on stdout")
    again.add_argument("--settings", default=argparse.SUPPRESS, metavar="FILE", help="settings file (settings.toml)")
    add_command(
        below,
        again,
        "check",
        _check,
        says="how far one system's parameters are off at each of its control points; exit 1 beyond the tolerance",
        example="yongtong systems check ningbo",
    ).add_argument("system", metavar="NAME")


def _systems(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    systems = opening.systems_of(settings, proven=False).values()
    told = [_told(system, settings) for system in systems]
    if options.json:
        print_json({"systems": told, "tolerance_cm": _tolerance_cm(settings)})
    else:
        columns = ["系统 system", "依据 rests on", "点 points", "RMS cm", "最大 max cm", "合格 holds"]
        rows = [
            (
                one["name"],
                f"{KINDS[one['kind']]}, {one['rests_on']}",
                one["control_points"],
                f"{one['rms_cm']:.2f}",
                f"{one['worst_cm']:.2f}",
                "是 yes" if one["holds"] else "否 no",
            )
            for one in told
        ]
        print_table("地方坐标系 Local systems", columns, rows)
    return 0 if all(one["holds"] for one in told) else 1


def _check(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    systems = opening.systems_of(settings, proven=False)
    if options.system not in systems:
        known = ", ".join(systems) or "none is there"
        raise Misconfigured("config.system_unknown", f"{options.system}; in the folder of [city] systems: {known}")
    system = systems[options.system]
    told = _told(system, settings)
    points = [
        {"point": number, "east_mm": _mm(east), "north_mm": _mm(north), "off_cm": round(float(off) * 100, 2)}
        for number, ((east, north), off) in enumerate(zip(system.residuals_m, system.distances_m, strict=True), 1)
    ]
    if options.json:
        print_json({**told, "tolerance_cm": _tolerance_cm(settings), "points": points})
    else:
        title = (
            f"{system.name}: {KINDS[system.kind]}, {system.rests_on}; "
            f"RMS {told['rms_cm']:.2f} cm, 限差 tolerance {_tolerance_cm(settings):g} cm"
        )
        columns = ["控制点 point", "东 east mm", "北 north mm", "偏离 off cm", "合格 holds"]
        over = ["是 yes" if off <= settings.tolerances.control_point_m else "否 no" for off in system.distances_m]
        print_table(title, columns, [(*point.values(), said) for point, said in zip(points, over, strict=True)])
    return 0 if told["holds"] else 1


def _told(system: LocalSystem, settings: Settings) -> dict[str, Any]:
    return {
        "name": system.name,
        "kind": system.kind,
        "rests_on": system.rests_on,
        "control_points": len(system.residuals_m),
        "rms_cm": round(system.rms_m * 100, 2),
        "worst_cm": round(system.worst_m * 100, 2),
        "holds": bool(system.worst_m <= settings.tolerances.control_point_m),
    }


def _tolerance_cm(settings: Settings) -> float:
    return round(settings.tolerances.control_point_m * 100, 2)


def _mm(metres: float) -> float:
    return round(float(metres) * 1000, 1)
