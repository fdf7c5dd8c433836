"""Every sample, and drawings spoilt at random, are records in balance or refused by name; what was found stays here.

`python -m tests.formats.fuzz_dxf` runs as long as it is told; `make soak` sets YONGTONG_FUZZ_EXAMPLES.
"""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from connectors.formats import dxf
from security.message import in_memory
from tests.formats.fuzz_dxf import FEED, check_balance, made, read, sources
from tests.formats.test_dxf import POINT, drawing

EXAMPLES = int(os.environ.get("YONGTONG_FUZZ_EXAMPLES", "150"))


def test_every_sample_is_records_in_balance_or_refused_by_name(
    shared_data: Callable[[str], Path], tell: Callable[[str], None]
) -> None:
    found = {path.name: read(path.read_bytes()) for path in sorted(shared_data("dxf_samples").glob("*.d[wx][gf]"))}
    assert len(found) >= 27
    refused = {name: told.code for name, told in found.items() if told.code}
    assert refused == {name: "decode.dwg" for name in found if name.endswith(".dwg")}
    records = sum(told.records for told in found.values())
    tell(f"{len(found)} samples of drawings: {records} records in balance, {len(refused)} refused by name")


def test_spoilt_drawings_are_records_in_balance_or_refused_by_name(shared_data: Callable[[str], Path]) -> None:
    from_ = sources(shared_data("dxf_samples"))
    codes = Counter(read(made(1, number, from_)).code for number in range(EXAMPLES))
    assert codes[""] > EXAMPLES // 10
    assert len(codes) >= 4


def test_the_same_seed_and_number_make_the_same_drawing() -> None:
    from_ = sources(Path("none"))
    assert [made(3, number, from_) for number in range(20)] == [made(3, number, from_) for number in range(20)]
    assert len({made(3, number, from_) for number in range(20)}) == 20


@pytest.mark.parametrize("value", ["nan", "inf", "1e300", "-1e300", "1e308", "1e-320", "0", "x", ""])
@pytest.mark.parametrize("axis", ["1.50", "2.0"])
def test_a_place_that_is_none_is_rejected_by_name_and_the_others_go_on(axis: str, value: str) -> None:
    octets = drawing(POINT + POINT.replace(axis, value).replace("A1", "A2") + POINT.replace("A1", "A3")).encode("gbk")
    frame = pl.concat(batch.frame for batch in dxf.decode([in_memory(octets)], FEED.options))
    assert frame.height == 3
    check_balance(frame)


def test_of_doubled_handles_every_record_stays() -> None:
    octets = drawing(POINT * 5).encode("gbk")
    frame = pl.concat(batch.frame for batch in dxf.decode([in_memory(octets)], FEED.options))
    assert frame["handle"].to_list() == ["A1"] * 5
    assert frame["key"].n_unique() == 5
    check_balance(frame)
