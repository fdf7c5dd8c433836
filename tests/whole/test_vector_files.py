"""A bureau's Shapefile whole: a real GBK one becomes components, and what is wrong with another comes back by name."""

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyproj
import pytest

from exchange.cli.trial import Trial, city_of
from samples import water_structures
from security.message import in_memory

SAMPLE = Path(water_structures.__file__).parent
FEED = "inverted-siphons"


@pytest.fixture(scope="module")
def parts(shared_data: Callable[[str], Path]) -> dict[str, bytes]:
    folder = shared_data("water_structures")
    return {path.name: path.read_bytes() for path in sorted(folder.glob("inverted_siphons_gbk.*"))}


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    trial = Trial(tmp_path_factory.mktemp("siphons"), city_of(SAMPLE / "settings.toml"))
    trial.enrol("irrigation", "Irrigation district", "灌区管理处")
    trial.enrol("case-system", "Case system", "案件系统")
    trial.grant("irrigation", "push", FEED)
    trial.grant("case-system", "pull", "ownership")
    with trial:
        yield trial


def told(trial: Trial, message_id: str, files: dict[str, bytes]) -> dict[str, Any]:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, octets in files.items():
            archive.writestr(name, octets)
    partner = trial.partner("irrigation")
    partner.push(FEED, in_memory(stream.getvalue()), "application/zip", message_id)
    reported = partner.report(message_id, wait_s=60)
    assert reported.received is not None
    report: dict[str, Any] = reported.received.document["report"]  # type: ignore[assignment]  # it is an object
    return {"status": reported.status, **report}


def test_a_gbk_shapefile_becomes_components_and_what_is_wrong_comes_back_by_name(
    trial: Trial, parts: dict[str, bytes]
) -> None:
    whole = told(trial, "siphons-1", parts)
    assert (whole["status"], whole["records"], whole["new"], whole["rejected"]) == ("processed", 172, 172, 0)
    assert "text.encoding_guessed" not in {finding["code"] for finding in whole["findings"]}

    near = trial.partner("case-system").nearest(104.089833, 29.81314, 5, "0603", purpose="test")
    assert "南总干渠40+789渭河倒虹管" in repr(near)
    assert "钟祥水利管理站" in repr(near)

    silent = {name: octets for name, octets in parts.items() if not name.endswith(".cpg")}
    guessed = told(trial, "siphons-2", silent)
    assert (guessed["status"], guessed["unchanged"], guessed["gone"]) == ("processed", 172, 0)
    (finding,) = [one for one in guessed["findings"] if one["code"] == "text.encoding_guessed"]
    assert (finding["count"], finding["values"]) == (172, [{"value": "gb18030", "count": 172}])
    assert ".cpg" in finding["sentence"]["next_zh"]

    system = pyproj.CRS.from_epsg(4549).to_wkt("WKT1_ESRI").encode()
    elsewhere = told(trial, "siphons-3", {**parts, "inverted_siphons_gbk.prj": system})
    assert (elsewhere["status"], elsewhere["code"]) == ("refused", "decode.crs_differs")
    bomb = told(trial, "siphons-4", {**parts, "zeros.shp": bytes(64 << 20)})
    assert (bomb["status"], bomb["code"]) == ("refused", "decode.archive_ratio")
