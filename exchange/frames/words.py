"""A diagnosis in words: what is said to whom may read a report, and the lines of a feed's file that would be the fix.

Of a frame that no number names no exact figure is said here: its parameters are secret (`yongtong feed frame`).
"""

from collections.abc import Iterator
from typing import Final

import msgspec
import numpy as np
from pyproj import CRS

from exchange.frames.answers import Diagnosis
from exchange.frames.candidates import Candidate, is_degrees
from exchange.transformation import DEFLECTED
from mappings.feed import Feed, FieldRule

WINDS: Final = (
    *(("east", "东"), ("north-east", "东北"), ("north", "北"), ("north-west", "西北")),
    *(("west", "西"), ("south-west", "西南"), ("south", "南"), ("south-east", "东南")),
)
WHY: Final = {
    "too_few": ("可比对的部件太少，不能判断", "too few things to compare with: cannot tell"),
    "nothing_known": ("此处尚无已知部件可比对，不能判断", "nothing is known there to compare with: cannot tell"),
    "symmetric": ("排列规则，不止一个答案，不能判断", "things stand too regularly, several answers fit: cannot tell"),
    "several": ("数值大小符合不止一个坐标系，不能判断", "magnitudes fit several systems: cannot tell"),
    "nothing_fits": ("与已知部件没有可对应之处，不能判断", "nothing of it lies on what is known: cannot tell"),
}
BY: Final = {"numbers": ("编号", "number"), "places": ("位置", "place")}
DATUM_M: Final = (20.0, 250.0)  # how far systems of older datums lie from CGCS2000 in China, roughly


class Told(msgspec.Struct, frozen=True):
    """What the coordinates look like, on what that rests, and the lines of the feed's file that would put it right.

    zh, en: one sentence each; fix: TOML, in the feed's own words; empty where its file cannot say it
    """

    zh: str
    en: str
    fix: tuple[str, ...]


def in_words(diagnosis: Diagnosis, feed: Feed) -> Told:
    """What is said of a feed's batch."""
    zh, en = _looks_like(diagnosis, feed)
    rests = _rests_on(diagnosis)
    return Told(f"{zh}{rests[0]}", f"{en}{rests[1]}", tuple(_fix(diagnosis, feed)))


def _looks_like(diagnosis: Diagnosis, feed: Feed) -> tuple[str, str]:
    if diagnosis.verdict == "as_said":
        return f"与供数任务所写坐标系 {feed.crs} 相符", f"is in {feed.crs}, as the feed says"
    if diagnosis.verdict == "elsewhere":
        return "与已知部件比对，没有一个坐标系说得通", "no frame puts it on what is known"
    if diagnosis.verdict == "cannot_tell":
        return WHY[diagnosis.why]
    return _named(diagnosis, feed) if diagnosis.verdict == "frame" else _local(diagnosis)


def _named(diagnosis: Diagnosis, feed: Feed) -> tuple[str, str]:
    system = diagnosis.system if diagnosis.system in DEFLECTED else f"{diagnosis.system} ({CRS(diagnosis.system).name})"
    zh, en = f"像是 {system}", f"looks like {system}"
    if diagnosis.through:
        zh, en = f"{zh}，并经 {diagnosis.through} 投影", f"{en} projected by {diagnosis.through}"
    if diagnosis.swapped:
        zh, en = f"{zh}，东、北坐标互换", f"{en} with east and north exchanged"
    away = complex(diagnosis.east_m, diagnosis.north_m)
    if np.isfinite(away):
        # Between a secret system and one that everybody knows the exact distance would be a parameter.
        size_m = abs(away) if Candidate(feed.crs).is_known else rounded_m(abs(away))
        wind = WINDS[round(np.degrees(np.angle(away)) / 45) % 8]
        zh = f"{zh}，按供数任务所写落在实际位置{wind[1]}侧 {_metres(size_m)} 米处"
        en = f"{en}, {_metres(size_m)} m {wind[0]} by what the feed says"
    return zh, en


def _local(diagnosis: Diagnosis) -> tuple[str, str]:
    """In rounded figures only."""
    assert diagnosis.fitted is not None
    similarity = diagnosis.fitted.similarity
    shift_m, turn, stretch = abs(complex(diagnosis.east_m, diagnosis.north_m)), 0.0, 0.0
    zh, en = [f"平移约 {_metres(rounded_m(shift_m))} 米"], [f"shifted by some {_metres(rounded_m(shift_m))} m"]
    if not similarity.is_shift:
        turn, stretch = abs(similarity.rotation_deg), abs(similarity.scale - 1) * 1e6
    if turn > 0.001:
        turned = f"{turn:.1f}°" if turn >= 0.05 else "0.1°"
        zh.append(f"旋转{'约' if turn >= 0.05 else '不到'} {turned}")
        en.append(f"turned by {'some' if turn >= 0.05 else 'less than'} {turned}")
    if stretch >= 10:
        zh.append(f"尺度差约 {_metres(significant(stretch))} ppm")
        en.append(f"stretched by some {_metres(significant(stretch))} ppm")
    if diagnosis.swapped:
        zh.append("东、北坐标互换")
        en.append("east and north exchanged")
    if diagnosis.of_degrees:
        zh.append("所报为经纬度，须由原单位更正")
        en.append("in degrees: its bureau must put it right")
    said = f"不是有编号的坐标系：对 {diagnosis.plane} {'、'.join(zh)}", f"no numbered system: {', '.join(en)}"
    if similarity.is_shift and DATUM_M[0] <= shift_m <= DATUM_M[1]:
        return f"{said[0]}（1954北京、1980西安坐标系相差这样大小）", f"{said[1]} (as Beijing 1954 and Xian 1980 are)"
    return said


def _rests_on(diagnosis: Diagnosis) -> tuple[str, str]:
    if diagnosis.by == "size":
        return "；仅凭数值大小", "; by magnitudes alone"
    if not diagnosis.by:
        compared = f"{diagnosis.looked:,}"
        return (f"；比对 {compared} 件", f"; {compared} compared") if diagnosis.looked else ("", "")
    counts = f"{diagnosis.matched:,}/{diagnosis.looked:,}"
    residual = f"{diagnosis.residual_m * 100:.1f}"
    return (
        f"；按{BY[diagnosis.by][0]}对上 {counts} 件，残差 {residual} 厘米，次优答案 {diagnosis.second:,} 件",
        f"; {counts} paired by {BY[diagnosis.by][1]}, residual {residual} cm, next best answer {diagnosis.second:,}",
    )


def _metres(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1g}"


def rounded_m(value: float) -> float:
    """A size that gives no parameter away: hundreds of metres, or one digit."""
    return float(round(value, -2)) if value >= 100 else significant(value)


def significant(value: float) -> float:
    """To one digit."""
    return float(f"{value:.1g}")


def _fix(diagnosis: Diagnosis, feed: Feed) -> Iterator[str]:
    if diagnosis.verdict not in ("frame", "local") or diagnosis.through or diagnosis.of_degrees:
        return
    system = diagnosis.system or "local:NAME"
    if system != feed.crs:
        yield f'crs = "{system}"'
    axes = _axes(feed.crs)
    if diagnosis.swapped or _axes(system) != axes:
        rules = [feed.fields.get(axis) for axis in (axes[::-1] if diagnosis.swapped else axes)]
        for axis, rule in zip(_axes(system), rules, strict=True):
            if rule is not None:
                yield f"{axis} = {_toml(rule, '' if _axes(system) == axes else axis.rpartition('_')[2])}"


def _axes(system: str) -> tuple[str, str]:
    return ("longitude_deg", "latitude_deg") if is_degrees(system) else ("easting_m", "northing_m")


def _toml(rule: FieldRule, unit: str) -> str:
    """A rule as its feed's file spells it; unit: `deg` or `m` where it is no longer what it was."""
    parse = {"deg": "degrees", "m": "metres"}.get(unit, rule.parse)
    said = [f"from = {msgspec.json.encode(rule.from_).decode()}", f'parse = "{parse}"']
    if not isinstance(rule.from_, str):
        said.append(f"join = {msgspec.json.encode(rule.join).decode()}")
    return f"{{ {', '.join(said)} }}"
