"""Evidence: what came is what is read, small in segments, large alone; a crash's leftovers are swept. In a folder and
in a bucket alike."""

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.evidence import MOST_IN_SEGMENT, Evidence
from exchange.evidence_folder import EvidenceFolder
from exchange.restoring import bring_evidence
from security.errors import AuditBroken, Misconfigured, Refusal
from security.message import Content, in_memory, sha256
from security.sealing import SealingKey
from tests.log.places import Behind, BehindBucket, BehindFolder


@pytest.fixture(params=["folder", "s3"])
def lies(request: pytest.FixtureRequest, tmp_path: Path) -> Behind:
    """Both places, from behind."""
    if request.param == "s3":
        return BehindBucket(request.getfixturevalue("s3"))
    return BehindFolder(tmp_path / "evidence")


@pytest.fixture
def evidence(lies: Behind) -> Evidence:
    return Evidence(lies.place())


@pytest.mark.parametrize("size", [0, 1, 4096, MOST_IN_SEGMENT, MOST_IN_SEGMENT + 1, 300_000])
def test_what_is_read_is_what_came(evidence: Evidence, size: int) -> None:
    raw = in_memory(os.urandom(size))
    evidence.keep("water", in_memory(b"before"))
    location = evidence.keep("water", raw)
    evidence.sync()
    content = evidence.read(location)
    assert (content.size, content.digest, content.read()) == (raw.size, raw.digest, raw.read())
    assert (content.octets is None) is (size > MOST_IN_SEGMENT)


@pytest.mark.parametrize("size", [0, 4096, 9 << 20])
def test_what_a_backup_brings_back_lies_under_its_own_name_and_more_than_it_is_left_alone(
    lies: Behind, tmp_path: Path, size: int
) -> None:
    octets, file = os.urandom(size), "water/payload-18b1f0-00ff"
    (tmp_path / "backup" / "water").mkdir(parents=True)
    (tmp_path / "backup" / file).write_bytes(octets)
    place = lies.place()
    bring_evidence(tmp_path / "backup", place)
    assert lies.files() == {file: octets}
    lies.alter(file, octets + b"of a delivery since")
    bring_evidence(tmp_path / "backup", lies.place())
    assert lies.files() == {file: octets + b"of a delivery since"}
    if size:
        lies.alter(file, bytes(size))
        with pytest.raises(Refusal, match=r"backup\.not_equal"):
            bring_evidence(tmp_path / "backup", lies.place())


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


def test_bureaus_have_folders_of_their_own(evidence: Evidence, lies: Behind) -> None:
    places = {evidence.keep(bureau, in_memory(b"x")).split("/")[0] for bureau in ("water", "power")}
    evidence.sync()
    assert places == {"water", "power"} == {file.split("/")[0] for file in lies.files()}
    for bureau in ("", "../water", "a/b", ".hidden", "Water"):
        with pytest.raises(ValueError, match="folder"):
            evidence.keep(bureau, in_memory(b"x"))


@given(st.integers(0, 99), st.integers(1, 255))
def test_an_octet_changed_on_disk_is_noticed(tmp_path_factory: pytest.TempPathFactory, place: int, mask: int) -> None:
    folder = tmp_path_factory.mktemp("changed")
    evidence = Evidence(EvidenceFolder(folder))
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


def test_what_no_delivery_names_is_swept_after_its_time(evidence: Evidence, lies: Behind) -> None:
    before, crashed = Evidence(lies.place()), Evidence(lies.place())
    known_small, known_large = before.keep("water", in_memory(b"x")), before.keep("water", in_memory(bytes(70_000)))
    before.close()
    crashed.keep("water", in_memory(bytes(80_000)))
    crashed.keep("power", in_memory(b"y"))
    crashed.close()
    now = datetime.now(UTC)
    known = {location.partition(":")[0] for location in (known_small, known_large)}
    assert evidence.sweep(known, now - timedelta(hours=1)) == 0
    assert evidence.sweep(known, now + timedelta(seconds=5)) == 2
    assert evidence.read(known_small).read() == b"x"
    assert evidence.read(known_large).size == 70_000


def test_what_is_being_written_is_not_swept(evidence: Evidence) -> None:
    locations = [evidence.keep("water", in_memory(b"x")), evidence.keep("water", in_memory(bytes(70_000)))]
    assert evidence.sweep(set(), datetime.now(UTC) + timedelta(hours=1)) == 0
    for location in locations:
        evidence.read(location)


@pytest.mark.parametrize("size", [5, 4096, MOST_IN_SEGMENT + 1])
@pytest.mark.parametrize("sealed", [False, True])
def test_what_is_erased_is_gone_and_its_neighbours_are_not(
    sealing: Evidence, lies: Behind, size: int, sealed: bool
) -> None:
    gone = os.urandom(size)
    before, location, after = (
        sealing.keep("water", in_memory(octets), sealed=sealed) for octets in (b"before", gone, b"after")
    )
    sealing.sync()
    lay = lies.files()[location.split(":")[0]]
    for _ in range(2):
        sealing.erase(location)
        with pytest.raises((AuditBroken, FileNotFoundError)):
            sealing.read(location).read()
        lies_now = lies.files().get(location.split(":")[0], bytes(len(lay)))
        assert len(lies_now) == len(lay)
        changed = [place for place, octet in enumerate(lay) if octet != lies_now[place]]
        offset = int(location.split(":")[1])
        assert len(changed) > size // 2
        assert set(changed) <= set(range(offset, offset + size + 32))
        assert [sealing.read(kept).read() for kept in (before, after)] == [b"before", b"after"]
    assert (location.split(":")[0] in lies.files()) is (size <= MOST_IN_SEGMENT)


def test_what_lies_there_of_others_is_not_swept(evidence: Evidence, lies: Behind) -> None:
    evidence.keep("water", in_memory(b"x"))
    evidence.sync()
    lies.alter("water/README.txt", b"of nobody that we know")
    Evidence(lies.place()).sweep(set(), datetime.now(UTC) + timedelta(seconds=5))
    assert set(lies.files()) == {"water/README.txt"}


KEY = SealingKey(bytes(range(32)))
SECRET = b"a camera's password "


@pytest.fixture
def sealing(lies: Behind) -> Evidence:
    return Evidence(lies.place(), KEY)


@pytest.mark.parametrize("size", [0, 1, MOST_IN_SEGMENT, MOST_IN_SEGMENT + 1, 300_000])
def test_what_is_sealed_is_read_again_and_never_lies_in_the_clear(sealing: Evidence, lies: Behind, size: int) -> None:
    raw = in_memory((SECRET * (size // len(SECRET) + 1))[:size])
    open_one = sealing.keep("police", in_memory(b"not sensitive"))
    location = sealing.keep("police", raw, sealed=True)
    sealing.sync()
    content = sealing.read(location)
    assert (content.size, content.digest, content.read()) == (raw.size, raw.digest, raw.read())
    assert (content.octets, content.path) == (None, None) or size <= MOST_IN_SEGMENT
    assert sealing.read(open_one).read() == b"not sensitive"
    kept = b"".join(lies.files().values())
    assert b"not sensitive" in kept
    assert SECRET not in kept


def test_a_slice_of_a_spooled_file_is_sealed_and_read_from_any_place(sealing: Evidence, tmp_path: Path) -> None:
    octets = os.urandom(200_000)
    spool = tmp_path / "spool"
    spool.write_bytes(b"head" + octets + b"tail")
    raw = Content(size=len(octets), digest=sha256(octets), path=spool, offset=4)
    with sealing.read(sealing.keep("police", raw, sealed=True)).open() as stream:
        stream.seek(123_456)
        assert stream.read(70_000) == octets[123_456:193_456]


@given(st.data())
@settings(max_examples=40)
@pytest.mark.parametrize("size", [100, MOST_IN_SEGMENT + 5_000])
def test_an_octet_changed_in_sealed_evidence_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, size: int, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("sealed")
    evidence = Evidence(EvidenceFolder(folder), KEY)
    location = evidence.keep("police", in_memory(bytes(size)), sealed=True)
    evidence.close()
    path = folder / location.split(":")[0]
    octets = bytearray(path.read_bytes())
    octets[data.draw(st.integers(0, len(octets) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(octets)
    with pytest.raises(AuditBroken):
        evidence.read(location).read()


@pytest.mark.parametrize("size", [100, MOST_IN_SEGMENT + 5_000])
def test_sealed_evidence_that_is_cut_lengthened_or_gone_is_noticed(sealing: Evidence, lies: Behind, size: int) -> None:
    location = sealing.keep("police", in_memory(bytes(size)), sealed=True)
    sealing.sync()
    file = location.split(":")[0]
    octets = lies.files()[file]
    spoilt = [octets[:-1], octets[: len(octets) // 2], b""]
    for said in [*spoilt, octets + b"x"] if size > MOST_IN_SEGMENT else spoilt:  # a segment goes on with the next one
        lies.alter(file, said)
        with pytest.raises(AuditBroken):
            sealing.read(location).read()
    lies.remove(file)
    with pytest.raises(AuditBroken):
        sealing.read(location).read()


def test_one_payload_put_in_the_place_of_another_is_noticed(sealing: Evidence) -> None:
    one, again = (sealing.keep("police", in_memory(b"one"), sealed=True) for _ in range(2))
    # The octets and the wrapped key of one payload, under another's digest.
    with pytest.raises(AuditBroken, match="evidence key"):
        sealing.read(re.sub(":[0-9a-f]{64}:", f":{sha256(b'two').hex}:", one))
    # The wrapped key of a payload that says the same: it is of the digest, but not of these octets.
    with pytest.raises(AuditBroken, match="not what was sealed"):
        sealing.read(f"{one.rpartition(':')[0]}:{again.rpartition(':')[2]}")


def test_without_its_key_or_with_another_sealed_evidence_is_not_read(sealing: Evidence, lies: Behind) -> None:
    location = sealing.keep("police", in_memory(b"x"), sealed=True)
    sealing.sync()
    with pytest.raises(AuditBroken, match="another evidence key"):
        Evidence(lies.place(), SealingKey(bytes(32))).read(location)
    without = Evidence(lies.place())
    with pytest.raises(Misconfigured, match="no evidence key"):
        without.read(location)
    with pytest.raises(Misconfigured, match="no evidence key"):
        without.keep("police", in_memory(b"x"), sealed=True)


def test_sealed_evidence_is_swept_by_the_same_rule(sealing: Evidence) -> None:
    known = sealing.keep("police", in_memory(bytes(70_000)), sealed=True)
    sealing.keep("police", in_memory(bytes(80_000)), sealed=True)
    sealing.sync()
    assert sealing.sweep({known.partition(":")[0]}, datetime.now(UTC) + timedelta(seconds=5)) == 1
    assert sealing.read(known).read() == bytes(70_000)
