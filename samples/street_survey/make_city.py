"""Draws the made-up district and unit grid around the street survey.

`python -m samples.street_survey.make_city` writes districts.geojson, grid.geojson and settings.toml beside this file.
Nothing of the survey stands in them but its outline, rounded outwards to whole hectometres.
"""

import json
from itertools import product
from pathlib import Path

import pyproj

CRS = "EPSG:4547"  # the survey's: CGCS2000, central meridian 114°E
WEST_M, SOUTH_M, EAST_M, NORTH_M = 491_400, 2_493_800, 492_100, 2_494_100
STEP_M = 100
DIVISION = "990102"  # no province has 99
COMMUNITY = DIVISION + "001" + "001"  # one street, one community

Place = tuple[float, float]

SETTINGS = """# The made-up city around the street survey, for: yongtong feed preview FEED FILE --settings THIS FILE
# What follows [feeds] no settings file can do without; nothing serves by it.

[city]
edition   = "2007"
extent    = [{west}, {south}, {east}, {north}]   # west, south, east, north; degrees of EPSG:4490
districts = "districts.geojson"
grid      = "grid.geojson"

[feeds]
folders = ["feeds"]

[bus]
origin = "street-survey.example"

[https]
host  = "127.0.0.1"
port  = 8443
names = ["localhost"]

[state]
folder = "state"

[keys]
folder = "keys"
"""


def main() -> None:
    """Write the three files; the same every time."""
    folder = Path(__file__).parent
    corner = _corners()
    _write(folder / "districts.geojson", [(DIVISION, _outline(corner))])
    _write(folder / "grid.geojson", _cells(corner))
    longitudes, latitudes = zip(*corner.values(), strict=True)
    extent = SETTINGS.format(
        west=f"{min(longitudes) - 0.001:.3f}",
        south=f"{min(latitudes) - 0.001:.3f}",
        east=f"{max(longitudes) + 0.001:.3f}",
        north=f"{max(latitudes) + 0.001:.3f}",
    )
    (folder / "settings.toml").write_text(extent, encoding="utf-8")


def _corners() -> dict[tuple[int, int], Place]:
    """Longitude and latitude of every corner of the grid, by its easting and northing; shared, so that no gap opens."""
    degrees = pyproj.Transformer.from_crs(CRS, "EPSG:4490", always_xy=True)
    eastings, northings = range(WEST_M, EAST_M + 1, STEP_M), range(SOUTH_M, NORTH_M + 1, STEP_M)
    found = {}
    for east, north in product(eastings, northings):
        longitude, latitude = degrees.transform(east, north)
        found[east, north] = (round(longitude, 7), round(latitude, 7))
    return found


def _cells(corner: dict[tuple[int, int], Place]) -> list[tuple[str, list[Place]]]:
    """Unit grids numbered west to east, north to south; rings anticlockwise from the south-west corner."""
    cells: list[tuple[str, list[Place]]] = []
    for north, east in product(range(NORTH_M - STEP_M, SOUTH_M - 1, -STEP_M), range(WEST_M, EAST_M, STEP_M)):
        far_east, far_north = east + STEP_M, north + STEP_M
        ring = [(east, north), (far_east, north), (far_east, far_north), (east, far_north), (east, north)]
        cells.append((f"{COMMUNITY}{len(cells) + 1:03d}", [corner[place] for place in ring]))
    return cells


def _outline(corner: dict[tuple[int, int], Place]) -> list[Place]:
    """The district's ring through every corner on its edge, so that it fits the cells exactly."""
    south = [(east, SOUTH_M) for east in range(WEST_M, EAST_M, STEP_M)]
    east = [(EAST_M, north) for north in range(SOUTH_M, NORTH_M, STEP_M)]
    north = [(east_m, NORTH_M) for east_m in range(EAST_M, WEST_M, -STEP_M)]
    west = [(WEST_M, north_m) for north_m in range(NORTH_M, SOUTH_M - 1, -STEP_M)]
    return [corner[place] for place in south + east + north + west]


def _write(path: Path, polygons: list[tuple[str, list[Place]]]) -> None:
    features = [
        {"type": "Feature", "properties": {"code": code}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
        for code, ring in polygons
    ]
    lines = ",\n".join(json.dumps(feature, separators=(",", ":")) for feature in features)
    path.write_text('{"type":"FeatureCollection","features":[\n' + lines + "\n]}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
