"""What the water bureau's gateways report of things in its register, with faults put in on purpose and remembered.

Numbers come from a stream of their own, so that readings may change and no register does.
"""

import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl

STREAM: Final = 20_106  # beside the seed
BEGAN: Final = datetime(2026, 11, 20, 0, 0, tzinfo=UTC)
AHEAD: Final = datetime(2199, 1, 1, tzinfo=UTC)  # a gateway whose clock was set wrong, whatever day it is read on
EVERY: Final = timedelta(minutes=15)
DEVICES, MOMENTS = 40, 4
COVERS: Final = ("污水检查井", "雨水检查井", "给水井")  # the register's words for what has a cover
FAULTS: Final = {"reading.component_unknown": 5, "reading.from_the_future": 4, "value.not_readable": 3}
HEARTBEATS: Final = 2


class Telemetry(msgspec.Struct, frozen=True):
    """What the bus should find in `telemetry.json`: records numbered from 0, faults by finding code.

    latest: by water key and quantity, the value or state that was observed last, of readings that are right
    """

    records: int
    accepted: int
    rejected: dict[str, list[int]]
    ignored: dict[str, list[int]]
    latest: dict[str, dict[str, float | str]]


def telemetry(water: pl.DataFrame, seed: int) -> tuple[bytes, Telemetry]:
    """The file and the truth about it. water: the register's accepted records, `key` and `word`."""
    rng = np.random.default_rng([seed, STREAM])
    devices = water.select("key", "word").sort("key")[np.sort(rng.permutation(water.height)[:DEVICES])]
    readings = [
        _reading(key, word, BEGAN + EVERY * moment, rng) for moment in range(MOMENTS) for key, word in devices.rows()
    ]
    rejected = _spoil(readings, rng)
    for gateway in range(HEARTBEATS):
        readings.append({"deviceId": f"GW{gateway:02}", "metric": "心跳", "observedAt": _instant(BEGAN)})
    ignored = list(range(len(readings) - HEARTBEATS, len(readings)))
    wrong = {*ignored, *(number for numbers in rejected.values() for number in numbers)}
    right = [one for number, one in enumerate(readings) if number not in wrong]
    truth = Telemetry(len(readings), len(right), rejected, {"heartbeat": ignored}, _latest(right))
    lines = ",\n".join(json.dumps(one, ensure_ascii=False) for one in readings)
    return f'{{"gateway":"water-01","readings":[\n{lines}\n]}}\n'.encode(), truth


def _reading(key: str, word: str, at: datetime, rng: np.random.Generator) -> dict[str, Any]:
    """One reading: of a thing with a cover whether it is open, or its level; of a hydrant its pressure."""
    said: dict[str, Any] = {"deviceId": key, "observedAt": _instant(at)}
    if word in COVERS and key[-1] in "02468":
        return {**said, "metric": "井盖开合状态", "status": "开启" if rng.random() < 0.05 else "关闭"}
    if word in COVERS:
        return {**said, "metric": "水位", "value": round(float(rng.uniform(0.1, 3.0)), 2)}
    return {**said, "metric": "压力", "value": round(float(rng.uniform(180, 420)), 1)}


def _spoil(readings: list[dict[str, Any]], rng: np.random.Generator) -> dict[str, list[int]]:
    """Put the faults in, of the readings that have a value; where each is, by code."""
    rows = [int(row) for row in rng.permutation([n for n, one in enumerate(readings) if "value" in one])]
    spoils: dict[str, dict[str, Any]] = {
        "reading.component_unknown": {"deviceId": "SW99999"},
        "reading.from_the_future": {"observedAt": _instant(AHEAD)},
        "value.not_readable": {"value": float("nan")},
    }
    where: dict[str, list[int]] = {}
    for code, count in FAULTS.items():
        where[code], rows = sorted(rows[:count]), rows[count:]
        for row in where[code]:
            readings[row] |= spoils[code]
    return where


def _latest(right: list[dict[str, Any]]) -> dict[str, dict[str, float | str]]:
    words = {"井盖开合状态": "cover", "水位": "level_m", "压力": "pressure_kpa", "开启": "open", "关闭": "closed"}
    latest: dict[str, dict[str, float | str]] = {}
    for one in right:  # in order of time
        said = one["value"] if "value" in one else words[one["status"]]
        latest.setdefault(one["deviceId"], {})[words[one["metric"]]] = said
    return latest


def _instant(at: datetime) -> str:
    """As a gateway of the city writes it, +08:00."""
    return (at + timedelta(hours=8)).strftime("%Y-%m-%dT%H:%M:%S+08:00")
