"""Two towns' hydrants as their fire brigades publish them: one feed file each, and their faults come back counted."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from exchange.cli.trial import Trial, city_of
from samples import hydrants
from security.message import file_content

SAMPLE = Path(hydrants.__file__).parent


@pytest.fixture(scope="module")
def trial(shared_data: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    shared_data("hydrants")
    trial = Trial(tmp_path_factory.mktemp("hydrants"), city_of(SAMPLE / "settings.toml"))
    for town in ("tulsa", "neusiedl"):
        trial.enrol(f"{town}-fire", f"Fire brigade of {town.title()}", "消防队")
        trial.grant(f"{town}-fire", "push", f"{town}-hydrants")
    with trial:
        yield trial


def told(trial: Trial, town: str, file: Path) -> dict[str, Any]:
    partner = trial.partner(f"{town}-fire")
    partner.push(f"{town}-hydrants", file_content(file), "text/csv", f"{town}-1")
    reported = partner.report(f"{town}-1", wait_s=60)
    assert reported.received is not None
    report: dict[str, Any] = reported.received.document["report"]
    assert reported.status == "processed", report
    assert report["records"] == report["new"] + report["rejected"]
    return report | {"counts": {finding["code"]: finding for finding in report["findings"]}}


def test_doubled_ids_and_points_at_zero_of_tulsa_are_findings_with_counts(
    trial: Trial, shared_data: Callable[[str], Path]
) -> None:
    report = told(trial, "tulsa", shared_data("hydrants") / "tulsa_hydrants.csv")
    counts = report["counts"]
    assert report["records"] == 16_201
    doubled = [counts[code] for code in ("key.duplicate", "key.doubled")]
    assert sum(finding["count"] for finding in doubled) == 2_387
    filler = [value["count"] for finding in doubled for value in finding["values"] if value["value"] == "0-0"]
    assert sum(filler) == 2_369
    assert counts["position.outside_city"]["count"] == 76
    assert counts["position.outside_city"]["values"] == [{"value": "0.0 0.0", "count": 76}]


def test_the_number_that_stands_for_two_hydrants_of_neusiedl_is_found(
    trial: Trial, shared_data: Callable[[str], Path]
) -> None:
    report = told(trial, "neusiedl", shared_data("hydrants") / "neusiedl_hydranten.csv")
    assert (report["records"], report["new"]) == (159, 158)
    assert report["counts"]["key.duplicate"]["values"] == [{"value": "HY128", "count": 1}]
