"""Evidence: what came is what is read, small in segments, large alone; a crash's leftovers are swept."""

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.evidence import MOST_IN_SEGMENT, Evidence
from security.errors import AuditBroken
from security.message import Content, in_memory, sha256


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    return Evidence(tmp_path / "evidence")


@pytest.mark.parametrize("size", [0, 1, 4096, MOST_IN_SEGMENT, MOST_IN_SEGMENT + 1, 300_000])
def test_what_is_read_is_what_came(evidence: Evidence, size: int) -> None:
    raw = in_memory(os.urandom(size))
    evidence.keep("water", in_memory(b"before"))
    location = evidence.keep("water", raw)
    evidence.sync()
    content = evidence.read(location)
    assert (content.size, content.digest, content.read()) == (raw.size, raw.digest, raw.read())
    assert (content.octets is None) is (size > MOST_IN_SEGMENT)


def test_a_slice_of_a_spooled_file_is_kept_alone(evidence: Evidence, tmp_path: Path) -> None:
    octets = os.urandom(200_000)
    spool = tmp_path / "spool"
    spool.write_bytes(b"head" + octets + b"tail")
    raw = Content(size=len(octets), digest=sha256(octets), path=spool, offset=4)
    assert evidence.read(evidence.keep("water", raw)).read() == octets


def test_a_payload_that_ends_early_is_not_kept(evidence: Evidence, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.write_bytes(bytes(100_000))
    with pytest.raises(OSError, match="ended"):
        evidence.keep("water", Content(size=100_001, digest=sha256(b""), path=spool))


def test_bureaus_have_folders_of_their_own(evidence: Evidence, tmp_path: Path) -> None:
    places = {evidence.keep(bureau, in_memory(b"x")).split("/")[0] for bureau in ("water", "power")}
    assert places == {"water", "power"} == {path.name for path in (tmp_path / "evidence").iterdir()}
    for bureau in ("", "../water", "a/b", ".hidden", "Water"):
        with pytest.raises(ValueError, match="folder"):
            evidence.keep(bureau, in_memory(b"x"))


@given(st.integers(0, 99), st.integers(1, 255))
def test_an_octet_changed_on_disk_is_noticed(tmp_path_factory: pytest.TempPathFactory, place: int, mask: int) -> None:
    folder = tmp_path_factory.mktemp("changed")
    evidence = Evidence(folder)
    location = evidence.keep("water", in_memory(bytes(100)))
    evidence.close()
    path = folder / location.split(":")[0]
    octets = bytearray(path.read_bytes())
    octets[place] ^= mask
    path.write_bytes(octets)
    with pytest.raises(AuditBroken):
        evidence.read(location)


@pytest.mark.parametrize(
    "location", ["", "water/segment-1", "../x/segment-1:0:1:" + "0" * 64, "water/segment-1:0:1:" + "0" * 64]
)
def test_a_place_that_is_none_is_an_alarm(evidence: Evidence, location: str) -> None:
    with pytest.raises(AuditBroken):
        evidence.read(location)


def test_what_no_delivery_names_is_swept_after_its_time(evidence: Evidence, tmp_path: Path) -> None:
    known_small, known_large = evidence.keep("water", in_memory(b"x")), evidence.keep("water", in_memory(bytes(70_000)))
    evidence.close()
    evidence.keep("water", in_memory(bytes(80_000)))
    evidence.keep("power", in_memory(b"y"))
    evidence.close()
    now = datetime.now(UTC)
    known = {location.partition(":")[0] for location in (known_small, known_large)}
    assert evidence.sweep(known, now - timedelta(hours=1)) == 0
    time.sleep(0.01)
    assert evidence.sweep(known, now + timedelta(seconds=5)) == 2
    assert evidence.read(known_small).read() == b"x"
    assert evidence.read(known_large).size == 70_000


def test_what_is_being_written_is_not_swept(evidence: Evidence) -> None:
    locations = [evidence.keep("water", in_memory(b"x")), evidence.keep("water", in_memory(bytes(70_000)))]
    assert evidence.sweep(set(), datetime.now(UTC) + timedelta(hours=1)) == 0
    for location in locations:
        evidence.read(location)
