"""The columns that many records travel in, declared once.

Codes are text everywhere: leading zeros matter. A null is "not said"; an empty string never stands for it.
"""

from typing import Final

import polars as pl

Schema = dict[str, pl.DataType | type[pl.DataType]]

ROLES: Final = ("authority", "owner", "maintainer")  # 主管部门, 权属单位, 养护单位

# Which record: index of the delivery within the batch that act two works on, and the record's number in it.
KEY: Final[Schema] = {"delivery": pl.UInt32, "record": pl.UInt32}

# 待入库记录: a record in the shared schema, not yet believed. x, y: in the feed's CRS, always east then north
# (or longitude, latitude), metres or degrees.
CANDIDATES: Final[Schema] = {
    **KEY,
    "source_key": pl.String,  # the bureau's own key, unique within the feed
    "class_code": pl.String,  # code of the master edition's list; a source that cannot tell says several, `0102|0103`
    "x": pl.Float64,
    "y": pl.Float64,
    "height_m": pl.Float64,
    "name": pl.String,
    "state": pl.String,
    **{f"{role}_{part}": pl.String for role in ROLES for part in ("code", "name", "basis")},  # basis: stated | default
    "grid_code": pl.String,  # as stated by the source; position decides
    "division_code": pl.String,
    "component_code": pl.String,  # an identifier stated by the source (ObjID)
    "place": pl.String,
    "initial_date": pl.Date,
    "change_date": pl.Date,
    "data_source": pl.String,
    "note": pl.String,
    "appurtenance": pl.String,  # 附属物: the survey's word for what stands on the point
    "removed": pl.Boolean,  # a `changes` feed says that the thing is gone
    "network": pl.String,  # 管类: which pipe network it belongs to; things of two networks are never one
    "label": pl.String,  # 图上注记: the number written beside it on a drawing
    "provenance": pl.String,  # 来源: of a district node's record, whose claims it rests on (`exchange.provenance`)
    "class_basis": pl.String,  # 类别依据: the lookup that told the class, where the feed has several, surest first
    "outline": pl.String,  # 范围: the course of a line or an area, WKT like x and y, to the millimetre; x, y lie on it
}

# 监测读数: what a thing of the bureau's register reported, not yet believed. It says a value, a state, or both.
READINGS: Final[Schema] = {
    **KEY,
    "source_key": pl.String,  # as in the register that the feed names
    "quantity": pl.String,  # what was observed: `level_m`, `cover`
    "value": pl.Float64,
    "state": pl.String,
    "unit": pl.String,
    "observed_at": pl.Datetime("us", "UTC"),  # by the gateway's clock
}

# 要素: a feature of a reference layer, not yet believed. Its place is a geometry, or x and y, in the feed's CRS.
FEATURES: Final[Schema] = {
    **KEY,
    "source_key": pl.String,  # its code in the layer: of a unit grid the grid's, of a district the division's
    "name": pl.String,
    "geometry": pl.String,  # WKB in hexadecimal digits, or WKT
    "x": pl.Float64,
    "y": pl.Float64,
    "resolution_m": pl.Float64,  # this and what follows: of imagery, of which the footprint is the geometry
    "taken_on": pl.Date,
    "sheets": pl.String,
    "digest": pl.String,  # of the pixels at the source: SHA-256, hex
    "address": pl.String,  # where the bureau keeps them
    "attributes": pl.String,  # JSON: what else the feed's file names
}

# 落图落格 adds where it is. Degrees of CGCS2000 (EPSG:4490); accuracy in metres, source and transformation together.
PLACED: Final[Schema] = {
    **CANDIDATES,
    "longitude_deg": pl.Float64,
    "latitude_deg": pl.Float64,
    "accuracy_m": pl.Float64,
    "grid_of_position": pl.String,
    "division_of_position": pl.String,
    "outline_deg": pl.String,  # WKT in degrees
}

# 质检意见. severity: error (record rejected), ignored (left out by a named rule), warning (kept).
FINDINGS: Final[Schema] = {
    **KEY,
    "code": pl.String,
    "field": pl.String,
    "severity": pl.String,
    "value": pl.String,  # what the source said, at most 80 characters
}

# One row a record, for ever: what became of it. outcome: new | changed | unchanged | ended | rejected | ignored
OUTCOMES: Final[Schema] = {
    **KEY,
    "source_key": pl.String,
    "outcome": pl.String,
    "component": pl.Int64,  # internal key, null when there is none
    "code": pl.String,  # the finding that decided, null when accepted
}


CLASSES_BETWEEN: Final = "|"  # a class code with it is a set of classes, undecided


def undecided(class_code: pl.Expr) -> pl.Expr:
    """Whether a class code is a set of classes, of which another source must decide one."""
    return class_code.str.contains(CLASSES_BETWEEN, literal=True)


def conform(frame: pl.DataFrame, schema: Schema) -> pl.DataFrame:
    """The frame with exactly the schema's columns, in order and type; a column it lacks is null."""
    if not frame.columns:  # nothing but literals to select would make one row of nulls
        return pl.DataFrame(schema=schema)
    return frame.select(
        [
            (pl.col(name) if name in frame.columns else pl.lit(None)).cast(kind).alias(name)
            for name, kind in schema.items()
        ]
    )
