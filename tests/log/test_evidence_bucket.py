"""Evidence in a bucket when the store is away, slow, sick or dishonest: nothing is promised that does not lie there,
and nothing that lies there is lost."""

import os
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from exchange import evidence_s3
from exchange.evidence import Evidence
from exchange.evidence_folder import EvidenceFolder
from exchange.evidence_place import new_name
from exchange.evidence_s3 import EvidenceBucket, S3Url, s3_url
from security.errors import AuditBroken, Misconfigured, Unavailable
from security.message import Content, file_content, in_memory
from security.sealing import SealingKey
from tests.log.buses import JournalFolder
from tests.log.places import BehindBucket, BehindFolder
from tests.s3 import BUCKET, S3Server, Wire

MB = 1 << 20


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("READ_S", "SMALL_READ_S"):
        monkeypatch.setattr(evidence_s3, name, 1.0)


@pytest.fixture
def wire(s3: S3Server) -> Iterator[Wire]:
    wire = Wire(s3.port)
    yield wire
    wire.close()


@pytest.fixture
def lies(s3: S3Server, wire: Wire) -> BehindBucket:
    return BehindBucket(s3, wire.port)


@pytest.fixture
def evidence(lies: BehindBucket) -> Evidence:
    return Evidence(lies.place())


def test_a_group_is_one_object_a_bureau_and_what_is_put_twice_lies_once(
    evidence: Evidence, lies: BehindBucket, wire: Wire
) -> None:
    locations = [evidence.keep(bureau, in_memory(b"%d" % n)) for n in range(50) for bureau in ("water", "power")]
    evidence.sync()
    assert (len(lies.files()), wire.passed) == (2, ["PUT", "PUT"])
    evidence.sync()
    assert wire.passed.count("PUT") == 2
    assert [evidence.read(locations[n]).read() for n in (0, 1, 98)] == [b"0", b"0", b"49"]
    evidence.keep("water", in_memory(b"of the next group"))
    evidence.sync()
    assert len(lies.files()) == 3


@pytest.mark.parametrize("kind", ["cut", "silent", "error", "spoilt", "answer lost"])
@pytest.mark.usefixtures("impatient")
def test_what_the_store_did_not_confirm_is_put_by_the_next_sync(
    evidence: Evidence, lies: BehindBucket, wire: Wire, kind: str
) -> None:
    locations = [evidence.keep(bureau, in_memory(bureau.encode())) for bureau in ("water", "power")]
    began = time.monotonic()
    with wire.broken(kind), pytest.raises(OSError):
        evidence.sync()
    assert time.monotonic() - began < 8, "the journal's writer waits for this"
    evidence.sync()
    assert len(lies.files()) == 2
    assert [evidence.read(location).read() for location in locations] == [b"water", b"power"]


def test_a_store_that_takes_connections_and_says_nothing_holds_a_group_up_twelve_seconds_at_most(
    s3_credentials: None, tell: Callable[[str], None]
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:  # the system takes them, nobody answers
        evidence = Evidence(EvidenceBucket(s3_url(f"s3://b?endpoint=http://127.0.0.1:{silent.getsockname()[1]}")))
        evidence.keep("water", in_memory(b"x"))
        began = time.monotonic()
        with pytest.raises(ConnectionError):
            evidence.sync()
        held_s = time.monotonic() - began
    tell(f"silent evidence store: a group is held up {held_s:.1f} s")
    assert held_s < 12


def test_a_store_that_takes_its_time_over_the_parts_of_a_large_object_is_waited_for(
    evidence: Evidence, lies: BehindBucket, wire: Wire, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(evidence_s3, "SMALL_READ_S", 0.5)
    (tmp_path / "large").write_bytes(os.urandom(9 * MB))
    large, small = file_content(tmp_path / "large"), evidence.keep("water", in_memory(b"x"))
    with wire.broken("late"):
        location = evidence.keep("water", large)
        with pytest.raises(ConnectionError):
            evidence.sync()
    evidence.sync()
    assert evidence.read(location).digest == large.digest
    assert evidence.read(small).read() == b"x"


@pytest.mark.parametrize("kind", ["cut", "silent", "error"])
@pytest.mark.usefixtures("impatient")
def test_evidence_that_cannot_be_asked_for_now_is_not_called_broken(evidence: Evidence, wire: Wire, kind: str) -> None:
    location = evidence.keep("water", in_memory(b"x"))
    evidence.sync()
    with wire.broken(kind, "GET"), pytest.raises(Unavailable):
        evidence.read(location)
    with wire.broken(kind, "GET"), pytest.raises(Unavailable):
        evidence.erase(location)
    assert evidence.read(location).read() == b"x"


def test_a_bus_answers_unavailable_while_its_store_is_away_and_goes_on_after(
    bus_on: Callable[[str], JournalFolder], lies: BehindBucket, wire: Wire
) -> None:
    bus = bus_on(lies.url)
    journal = bus.open()
    with wire.broken("cut"):
        for number in range(3):
            with pytest.raises(Unavailable):
                journal.accept(bus.acceptance(f"m-{number}", b"row %d" % number)).result(10)
    assert [journal.inbox("water", f"m-{number}") for number in range(3)] == [None] * 3
    for number in range(3):
        accepted = journal.accept(bus.acceptance(f"m-{number}", b"row %d" % number)).result(10)
        assert (accepted.repeated, bus.evidence.read(accepted.inbox.evidence).read()) == (False, b"row %d" % number)
    journal.close()


@pytest.fixture
def server(tmp_path: Path, s3_credentials: None) -> Iterator[S3Server]:
    """One of the test's own, to be killed."""
    server = S3Server(tmp_path / "server")
    yield server
    server.kill()


def test_a_server_killed_under_load_loses_nothing_that_was_promised(
    server: S3Server, bus_on: Callable[[str], JournalFolder], tell: Callable[[str], None]
) -> None:
    bus = bus_on(server.url("bus"))
    journal, promised, refused, stop = bus.open(), dict[str, bytes](), list[str](), threading.Event()

    def push(sender: int) -> None:
        number = 0
        while not stop.is_set():
            id, content = f"m-{sender}-{number}", os.urandom(100)
            try:
                accepted = journal.accept(bus.acceptance(id, content)).result(30)
            except (Unavailable, OSError):  # by the journal, or where nothing more may wait
                refused.append(id)
                time.sleep(0.01)
                continue  # the same again, as a sender does
            promised[accepted.inbox.evidence] = content
            number += 1

    senders = [threading.Thread(target=push, args=(n,)) for n in range(4)]
    for sender in senders:
        sender.start()
    for round in (1, 2):
        _until(lambda: len(promised) > 20 * round)  # noqa: B023  # it is asked within the round
        server.kill()
        _until(lambda: len(refused) > 10 * round)  # noqa: B023
        server.start()
    _until(lambda: len(promised) > 60)
    stop.set()
    for sender in senders:
        sender.join()
    journal.close()
    assert all(bus.evidence.read(location).read() == content for location, content in promised.items())
    tell(f"evidence store killed twice under load: {len(promised)} promised, none lost, {len(refused)} put off")


def _until(holds: Callable[[], bool], within_s: float = 30) -> None:
    until = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_while_the_store_is_away_memory_has_a_limit_and_the_first_that_is_turned_away_ends_it(
    evidence: Evidence, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence_s3, "WAITING_BYTES", MB)
    with wire.broken("cut"):
        for _ in range(16):
            evidence.keep("water", in_memory(bytes(65_536)))
        with pytest.raises(OSError, match="no more can wait"):
            evidence.keep("water", in_memory(b"x"))
        time.sleep(0.2)

    def taken() -> bool:
        try:
            evidence.keep("water", in_memory(bytes(65_536)))
        except OSError:
            return False
        return True

    _until(taken)


@pytest.mark.parametrize("size, puts", [(300_000, 1), (5 * MB, 1), (5 * MB + 1, 2)])
def test_a_large_payload_is_put_at_once_in_parts_and_read_from_any_place(
    evidence: Evidence, wire: Wire, spooled: Callable[[int], Content], size: int, puts: int
) -> None:
    raw = spooled(size)
    location = evidence.keep("water", raw)
    assert wire.passed.count("PUT") == puts
    octets = raw.read()
    with evidence.read(location).open() as stream:
        stream.seek(size - 200_000)
        assert stream.read() == octets[-200_000:]
        stream.seek(0)
        assert stream.read(70_000) == octets[:70_000]


@pytest.mark.parametrize("size", [300_000, 6 * MB])
@pytest.mark.parametrize("kind", ["cut", "spoilt"])
def test_a_large_payload_that_the_store_does_not_confirm_is_not_kept(
    evidence: Evidence, lies: BehindBucket, wire: Wire, spooled: Callable[[int], Content], size: int, kind: str
) -> None:
    with wire.broken(kind, "PUT"), pytest.raises(OSError):
        evidence.keep("water", spooled(size))
    assert _uploads(lies) == []


def test_a_large_payload_is_held_nowhere_whole(s3: S3Server, spooled: Callable[[int], Content]) -> None:
    evidence, raw = Evidence(BehindBucket(s3).place()), spooled(40 * MB)
    tracemalloc.start()
    try:
        location = evidence.keep("water", raw)
        assert sum(map(len, evidence.read(location).pieces())) == 40 * MB
        assert tracemalloc.get_traced_memory()[1] < 30 * MB
    finally:
        tracemalloc.stop()


@pytest.fixture
def spooled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Content]:
    """A payload of that size in a file; parts are of the smallest size that a store takes."""
    monkeypatch.setattr(evidence_s3, "PART_BYTES", 5 * MB)

    def made(size: int) -> Content:
        (tmp_path / "spool").write_bytes((os.urandom(1 << 16) * (size // (1 << 16) + 1))[:size])
        return file_content(tmp_path / "spool")

    return made


def test_an_upload_that_a_crash_cut_short_is_ended_by_the_sweep_a_day_later(
    evidence: Evidence, lies: BehindBucket
) -> None:
    client, file = lies.server.client, f"{lies.prefix}/water/{new_name('payload')}"
    upload = client.create_multipart_upload(Bucket=BUCKET, Key=file)["UploadId"]
    client.upload_part(Bucket=BUCKET, Key=file, UploadId=upload, PartNumber=1, Body=b"x")
    evidence.sweep(set(), datetime.now(UTC) + timedelta(hours=23))
    assert _uploads(lies) == [upload]
    evidence.sweep(set(), datetime.now(UTC) + timedelta(hours=25))
    assert _uploads(lies) == []


def _uploads(lies: BehindBucket) -> list[str]:
    found = lies.server.client.list_multipart_uploads(Bucket=BUCKET, Prefix=lies.prefix).get("Uploads", ())
    return [upload["UploadId"] for upload in found]


def test_many_who_erase_in_one_segment_at_once_undo_nothing(lies: BehindBucket) -> None:
    places = [lies.place() for _ in range(5)]
    locations = [places[0].add("water", bytes([65 + n]) * 100) for n in range(8)]
    places[0].sync()
    file = locations[0][0]
    erasing = [
        threading.Thread(target=place.destroy, args=(file, n * 100, 100)) for n, place in enumerate(places, start=2)
    ]
    for thread in erasing:
        thread.start()
    for thread in erasing:
        thread.join()
    assert lies.files()[file] == b"A" * 100 + b"B" * 100 + bytes(500) + b"H" * 100


def test_a_segment_of_a_busy_group_stays_small_enough_to_be_written_anew(
    evidence: Evidence, lies: BehindBucket
) -> None:
    for _ in range(100):
        evidence.keep("water", in_memory(bytes(60_000)))
    evidence.sync()
    assert sorted(map(len, lies.files().values())) == [31 * 60_000, 69 * 60_000]


def test_evidence_that_the_bucket_has_lost_is_an_alarm(evidence: Evidence, lies: BehindBucket) -> None:
    small, large = evidence.keep("water", in_memory(b"x")), evidence.keep("water", in_memory(bytes(300_000)))
    evidence.sync()
    for file in lies.files():
        lies.remove(file)
    with pytest.raises(AuditBroken, match="not there"):
        evidence.read(small)
    with pytest.raises(FileNotFoundError):
        evidence.read(large).read()


@pytest.mark.parametrize("status, said", [("Enabled", "versioning Enabled"), ("Suspended", "versioning Suspended")])
def test_a_bucket_that_keeps_versions_says_so(s3: S3Server, status: str, said: str) -> None:
    bucket = f"versions-{status.lower()}"
    s3.client.create_bucket(Bucket=bucket)
    place = EvidenceBucket(s3_url(s3.url("x").replace(BUCKET, bucket, 1)))
    assert place.keeps_copies() == ""
    s3.client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})
    assert place.keeps_copies() == said


@pytest.mark.parametrize(
    "url, expected",
    [
        ("s3://b/p?endpoint=https://h:9000&region=r", S3Url("b", "p/", "https://h:9000", "r", "path")),
        ("s3://b/p/q/?region=cn-north-1", S3Url("b", "p/q/", "", "cn-north-1", "virtual")),
        ("s3://b?endpoint=https://h&addressing=virtual", S3Url("b", "", "https://h", "", "virtual")),
    ],
)
def test_a_url_says_where_the_bucket_is(url: str, expected: S3Url) -> None:
    assert s3_url(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "file:///tmp/x",
        "s3:///p",
        "s3://b/p?endpont=https://h",
        "s3://b?endpoint=h:9000",
        "s3://key:secret@b/p",
        "s3://b?endpoint=https://key:secret@h",
        "s3://b?addressing=other",
    ],
)
def test_a_url_that_is_none_or_holds_credentials_stops_the_start_and_is_not_repeated(url: str) -> None:
    with pytest.raises(Misconfigured, match=r"\[evidence\] url") as raised:
        s3_url(url)
    assert "secret" not in str(raised.value)


def test_what_nobody_will_ask_for_is_left_out_by_the_next_sync(
    evidence: Evidence, lies: BehindBucket, wire: Wire
) -> None:
    failed = [evidence.keep("water", in_memory(b"of the group")), evidence.keep("power", in_memory(b"of the group"))]
    alone, waits = evidence.keep("water", in_memory(bytes(70_000))), evidence.keep("water", in_memory(b"waits"))
    with wire.broken("cut"), pytest.raises(OSError):
        evidence.sync([*failed, alone])
    evidence.sync()
    assert evidence.read(waits).read() == b"waits"
    assert lies.files() == {waits.split(":")[0]: bytes(len(b"of the group")) + b"waits"}


def test_what_is_durable_already_is_never_left_out(evidence: Evidence, wire: Wire) -> None:
    location = evidence.keep("water", in_memory(b"accepted"))
    evidence.sync()
    evidence.keep("water", in_memory(b"x"))
    with wire.broken("cut"), pytest.raises(OSError):
        evidence.sync([location])  # a retry names what is known
    evidence.sync()
    assert evidence.read(location).read() == b"accepted"


def test_what_lay_in_a_folder_is_read_in_a_bucket_once_it_is_copied_there(lies: BehindBucket, tmp_path: Path) -> None:
    before, folder = Evidence(EvidenceFolder(tmp_path / "a"), SealingKey(bytes(32))), BehindFolder(tmp_path / "a")
    payloads = [b"small", b"sealed", bytes(300_000)]
    locations = [before.keep("water", in_memory(octets), sealed=octets == b"sealed") for octets in payloads]
    before.close()
    for file, octets in folder.files().items():
        lies.alter(file, octets)
    after = Evidence(lies.place(), SealingKey(bytes(32)))
    assert [after.read(location).read() for location in locations] == payloads
    after.erase(locations[0])
    assert after.read(locations[1]).read() == b"sealed"


def test_a_bus_on_a_folder_does_not_load_the_stores_client() -> None:
    said = "import sys, exchange.app.serving; sys.exit('boto3' in sys.modules or 'botocore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", said], check=False).returncode == 0
