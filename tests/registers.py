"""What made-up bureaus send: registers as one TOML file each makes them a feed, for tests and benches alike."""

from typing import Final

_HEAD: Final = """
id = "{id}"
title = "{title} of a made-up bureau"
title_zh = "某单位{title_zh}台账"
bureau = "made-up"
format = "table"
content = "changes"
crs = "EPSG:4490"
accuracy = 0.5
"""
_FIELDS: Final = """
[fields]
source_key = { from = "编号" }
class_code = { from = "类别" }
longitude_deg = { from = "经度", parse = "degrees" }
latitude_deg = { from = "纬度", parse = "degrees" }
"""


def a_register(id: str, title: str, title_zh: str, *, top: str = "", fields: str = "") -> str:
    """A register of key, class and place.

    top:    lines before its fields, as TOML; fields: further ones, and what comes after them
    """
    return _HEAD.format(id=id, title=title, title_zh=title_zh) + top + _FIELDS + fields


LAMPS: Final = (
    _HEAD.format(id="made-up-lamps", title="Lamps", title_zh="路灯")
    + """classes = ["CJ/T 214-2007:0118"]

[defaults]
class_code = "0118"
owner_name = "某单位"

[fields]
source_key = { from = "编号" }
longitude_deg = { from = "经度", parse = "degrees" }
latitude_deg = { from = "纬度", parse = "degrees" }

[[example]]
source = { "编号" = "L1", "经度" = "121.55", "纬度" = "29.87" }
expect = { source_key = "L1", class_code = "0118", longitude_deg = 121.55, latitude_deg = 29.87 }
"""
)
