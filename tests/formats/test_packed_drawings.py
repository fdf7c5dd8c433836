"""A surveyor's ZIP with one drawing in it, and ZIPs that are made to harm."""

import io
import os
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.formats import archive
from security.errors import Refusal
from tests.formats.test_dxf import POINT, decode, drawing, refusal
from tests.formats.test_vector import ARCHIVES, zipped

DRAWING = drawing(POINT).encode("gbk")


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever is unpacked lies here, and is gone afterwards."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["sheet.dxf", "1-500/SHEET.DXF", "图幅.dxf", "3306.00-649.00.dxf"])
def test_the_one_drawing_of_an_archive_is_read_as_if_it_came_alone(name: str) -> None:
    octets = zipped({name: DRAWING, "说明.txt": "说明".encode("gbk"), "plot.ctb": os.urandom(100)})
    assert decode(octets).equals(decode(DRAWING))


def test_a_dwg_in_an_archive_is_a_dwg() -> None:
    assert refusal(zipped({"sheet.dwg": b"AC1015" + bytes(100)}))[0] == "decode.dwg"


@pytest.mark.parametrize(
    "files", [{"readme.txt": b"x"}, {"a.dxf": DRAWING, "b.dxf": DRAWING}, {"a.dxf": DRAWING, "b/c.dwg": b"AC1015"}]
)
def test_no_drawing_or_several_are_refused_with_how_many(files: dict[str, bytes]) -> None:
    drawings = sum(name.endswith(("dxf", "dwg")) for name in files)
    assert refusal(zipped(files)) == ("decode.archive_drawings", str(drawings))


@pytest.mark.parametrize("attack", sorted({*ARCHIVES} - {"doubled", "doubled_but_for_case"}))
def test_each_archive_attack_is_refused_by_name(attack: str) -> None:
    members, code = ARCHIVES[attack]
    assert refusal(zipped([("sheet.dxf", DRAWING), *members]))[0] == code


def test_a_drawing_that_swells_beyond_all_ratio_is_refused() -> None:
    swollen = DRAWING.replace(b"EOF", b"999\r\n" + bytes(archive.RATIO_ABOVE_BYTES * 3) + b"\r\n0\r\nEOF")
    assert refusal(zipped({"sheet.dxf": swollen}))[0] == "decode.archive_ratio"


def test_an_archive_cut_anywhere_is_refused() -> None:
    octets = zipped({"sheet.dxf": DRAWING * 20})
    for end in range(4, len(octets), 7):
        with pytest.raises(Refusal):
            decode(octets[:end])


def test_a_stored_archive_is_one_too() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as packed:
        packed.writestr("sheet.dxf", DRAWING)
    assert decode(stream.getvalue()).height == 1
