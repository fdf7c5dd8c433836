"""坐标系 What a feed may declare as `crs`: a system of EPSG, a local one of the city's, or one that maps deflect."""

import functools
import re
from typing import Final

import pyproj

EPSG: Final = re.compile(r"EPSG:\d{4,6}")
LOCAL: Final = "local:"  # 地方坐标系; its parameters are a secret of the city's and stand in no feed's file
NAME: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
DEFLECTED: Final = ("GCJ-02", "BD-09")  # 偏转坐标, degrees; no registry has them


def local_name(crs: str) -> str:
    """NAME of `local:NAME`; empty for every other system."""
    return crs.removeprefix(LOCAL) if crs.startswith(LOCAL) else ""


def is_well_formed(crs: str) -> bool:
    """Whether the text is of one of the three forms; it may still name nothing."""
    return crs in DEFLECTED or bool(EPSG.fullmatch(crs)) or bool(NAME.fullmatch(local_name(crs)))


@functools.cache
def is_in_degrees(crs: str) -> bool | None:
    """Whether a well-formed system counts in degrees; None when EPSG has no such system. Local ones are of metres."""
    if local_name(crs):
        return False
    try:
        return crs in DEFLECTED or bool(pyproj.CRS.from_user_input(crs).is_geographic)
    except pyproj.exceptions.CRSError:
        return None


def name_of(crs: str) -> str:
    """What people call the system that a feed declares; empty where it declares none."""
    if local := local_name(crs):
        return f"地方坐标系 {local}"
    if crs in DEFLECTED:
        return "偏转坐标 deflected"
    return pyproj.CRS.from_user_input(crs).name if crs else ""
