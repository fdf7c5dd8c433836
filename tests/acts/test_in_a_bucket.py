"""Both acts, recall and erasure where evidence lies in a bucket: as on a disk, and while the store is away."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from exchange.app import trusted
from exchange.audit import verify
from exchange.cli.demo_voices import spellings
from exchange.cli.trial import AUDITOR
from exchange.evidence import is_sealed
from exchange.processing import process
from exchange.reading import reopened
from security.errors import Unavailable
from tests.acts.bench_of_one import FEED, Acts, both_acts
from tests.acts.test_between_the_acts import report_of, status_of
from tests.acts.test_erasure import NAMED, SEALED, SECRETS, content, decided, found_in, row_of
from tests.acts.test_four_eyes import Desk
from tests.s3 import BUCKET, S3Server, Wire


@pytest.fixture
def wire(s3: S3Server) -> Iterator[Wire]:
    wire = Wire(s3.port)
    yield wire
    wire.close()


@pytest.fixture
def prefix() -> str:
    return secrets.token_hex(6)


@pytest.fixture
def acts(tmp_path: Path, s3: S3Server, wire: Wire, prefix: str) -> Iterator[Acts]:
    sealed = NAMED.replace(FEED, SEALED).replace("\n[fields]", '\nsensitive = ["note"]\n\n[fields]', 1)
    evidence = {"evidence": {"url": s3.url(prefix, wire.port)}}
    with both_acts(tmp_path, evidence, **{FEED: NAMED, SEALED: sealed}) as acts:
        for feed in (FEED, SEALED):
            acts.trial.grant("made-up", "push", feed)
        yield acts


@pytest.fixture
def desk(acts: Acts, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(acts, capsys)


def found_in_bucket(s3: S3Server, prefix: str, *words: str) -> list[str]:
    """Objects in which a word lies, in clear or in base64 however it is aligned."""
    spelt = [one for word in words for one in spellings(word.encode())]
    return [name for name, octets in s3.objects(prefix).items() if any(one in octets for one in spelt)]


def test_small_and_large_deliveries_are_kept_there_and_nothing_of_them_in_the_state_folder(
    acts: Acts, s3: S3Server, prefix: str
) -> None:
    small, large = acts.push("m-1", content()), acts.push("m-2", content("LARGE", 5000))
    acts.push("m-3", content("HIDDEN"), SEALED)
    assert acts.push("m-2", content("LARGE", 5000)).inbox.receipt == large.inbox.receipt
    assert (process(FEED, acts.bus), process(SEALED, acts.bus)) == (2, 1)
    assert [report_of(acts, f"m-{n}")["new"] for n in (1, 2, 3)] == [3, 5000, 3]
    assert len({received.inbox.evidence.partition(":")[0] for received in (small, large)}) == 2
    assert not (acts.bus.folder / "evidence").exists()
    assert len(found_in_bucket(s3, prefix, "MARK-KEY", "LARGE-KEY")) == 2
    assert found_in_bucket(s3, prefix, "HIDDEN-KEY") == []


def test_an_octet_altered_there_stops_its_delivery_and_no_other(acts: Acts, s3: S3Server, prefix: str) -> None:
    acts.push("m-1", content())
    file = acts.push("m-2", content("OTHER")).inbox.evidence.partition(":")[0]
    octets = bytearray(s3.objects(prefix)[file])
    octets[len(octets) // 2] ^= 1
    s3.client.put_object(Bucket=BUCKET, Key=f"{prefix}/{file}", Body=bytes(octets))
    assert process(FEED, acts.bus) == 2
    assert [status_of(acts, f"m-{n}") for n in (1, 2)] == ["processed", "held"]
    assert report_of(acts, "m-2")["code"] == "delivery.evidence_broken"


@pytest.mark.parametrize("count", [3, 900, 5000], ids=["in a segment", "beside the group", "put at once"])
def test_a_sender_is_asked_to_wait_while_the_store_is_away(acts: Acts, wire: Wire, count: int) -> None:
    delivery = acts.delivery("m-1", content(count=count))
    with wire.broken("cut"), pytest.raises(Unavailable):
        acts.receive(delivery)
    assert acts.bus.journal.inbox("made-up", "m-1") is None
    assert not acts.receive(delivery).repeated
    assert process(FEED, acts.bus) == 1


@pytest.mark.parametrize("count", [3, 900])
def test_act_two_waits_while_the_store_is_away_and_holds_nothing_against_anybody(
    acts: Acts, wire: Wire, count: int
) -> None:
    acts.push("m-1", content(count=count))
    with wire.broken("error", "GET"), pytest.raises((Unavailable, OSError)):
        process(FEED, acts.bus)
    assert status_of(acts, "m-1") == "waiting"
    assert process(FEED, acts.bus) == 1
    assert status_of(acts, "m-1") == "processed"


@pytest.mark.parametrize("count", [3, 900], ids=["in a segment", "in an object of its own"])
@pytest.mark.parametrize("feed", [FEED, SEALED])
def test_what_two_persons_erase_is_nowhere_and_what_lay_beside_it_is_read(
    acts: Acts, desk: Desk, s3: S3Server, prefix: str, wire: Wire, feed: str, count: int
) -> None:
    together = [acts.delivery("m-1", content(count=count), feed), acts.delivery("m-2", content("OTHER"), feed)]
    acts.receive_all(*together)
    process(feed, acts.bus)
    assert (found_in_bucket(s3, prefix, "MARK-KEY") != []) is (feed == FEED)
    decision, lay = decided(desk, "m-1", "--kind", "personal"), row_of(acts, "m-1").evidence
    with wire.broken("cut", "PUT DELETE"):
        code, said = desk.run("erasure", "carry", decision, by=AUDITOR)
    assert (code, said["unavailable"] is not None) == (1, True)
    assert row_of(acts, "m-1").evidence == lay, "nothing is forgotten that still lies there"
    assert desk.run("erasure", "carry", decision, by=AUDITOR)[0] == 0
    assert row_of(acts, "m-1").evidence == f"erased:{decision}"
    assert found_in_bucket(s3, prefix, *SECRETS) == []
    assert found_in(acts.bus.folder, *SECRETS) == []
    assert reopened(row_of(acts, "m-2"), acts.bus).content.read() == content("OTHER")
    assert verify(acts.bus.folder, trusted.anchors_of(acts.trial.settings)).problems == []


def test_what_is_recalled_is_sealed_there_and_its_clear_octets_are_gone(
    acts: Acts, s3: S3Server, prefix: str, wire: Wire
) -> None:
    acts.push("m-1", content())
    process(FEED, acts.bus)
    acts.recall(acts.recalling("m-1"))
    with wire.broken("cut"), pytest.raises((Unavailable, OSError)):
        process(FEED, acts.bus)
    process(FEED, acts.bus)
    assert is_sealed(row_of(acts, "m-1").evidence)
    assert found_in_bucket(s3, prefix, *SECRETS) == []
    assert reopened(row_of(acts, "m-1"), acts.bus).content.read() == content()
