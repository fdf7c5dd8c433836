"""A whole bus whose evidence lies in a bucket, over real doors: it starts while the store is away, keeps, reads back,
starts anew, and two persons erase."""

import secrets
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from exchange.app import opening, trusted
from exchange.audit import verify
from exchange.cli.trial import AUDITOR, City, Trial
from security.errors import Unavailable
from security.message import in_memory
from tests.acts.bench_of_one import EXTENT, FEED, SAMPLE, Acts
from tests.acts.test_erasure import NAMED, SECRETS, content, decided, found_in
from tests.acts.test_four_eyes import Desk
from tests.acts.test_in_a_bucket import found_in_bucket
from tests.s3 import S3Server, Wire

HERE_S: Final = 60.0


@pytest.fixture
def prefix() -> str:
    return secrets.token_hex(6)


@pytest.fixture
def wire(s3: S3Server) -> Iterator[Wire]:
    wire = Wire(s3.port)
    yield wire
    wire.close()


@pytest.fixture
def trial(tmp_path: Path, s3: S3Server, wire: Wire, prefix: str) -> Iterator[Trial]:
    feeds = tmp_path / "feeds"
    feeds.mkdir()
    (feeds / f"{FEED}.toml").write_text(NAMED, encoding="utf-8")
    city = City(EXTENT, SAMPLE / "districts.geojson", SAMPLE / "grid.geojson", (feeds,))
    trial = Trial(tmp_path / "bus", city, mqtt={"broker": "off"}, evidence={"url": s3.url(prefix, wire.port)})
    trial.enrol("made-up", "Made-up", "某单位")
    trial.grant("made-up", "push", FEED)
    yield trial
    trial.kill()


def test_a_bus_keeps_reads_starts_anew_and_erases_in_a_bucket(
    trial: Trial, wire: Wire, s3: S3Server, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with wire.broken("cut", "GET PUT POST DELETE"):
        trial.start()
        partner = trial.partner("made-up")
        with pytest.raises(Unavailable):
            partner.push(FEED, in_memory(content()), "text/csv", "m-1")
    receipts = [
        partner.push(FEED, in_memory(octets), "text/csv", id).octets
        for id, octets in (("m-1", content()), ("m-2", content("OTHER")), ("m-3", content("LARGE", 5000)))
    ]
    assert {partner.report(f"m-{n}", wait_s=HERE_S).status for n in (1, 2, 3)} == {"processed"}
    assert len(found_in_bucket(s3, prefix, "MARK-KEY", "OTHER-KEY", "LARGE-KEY")) == 3
    trial.kill()
    trial.start()
    partner = trial.partner("made-up")
    assert partner.push(FEED, in_memory(content()), "text/csv", "m-1").octets == receipts[0]
    with closing(opening.open_bus(trial.settings)) as bus:
        desk = Desk(Acts(trial, bus), capsys)
        decision = decided(desk, "m-1", "--kind", "personal")
        assert desk.run("erasure", "carry", decision, by=AUDITOR)[1]["state"] == "erased"
        assert found_in_bucket(s3, prefix, *SECRETS) == found_in(trial.state, *SECRETS) == []
        for id in ("m-2", "m-3"):
            row = bus.journal.inbox("made-up", id)
            assert row is not None
            assert b"SubmitDelivery" in bus.evidence.read(row.evidence).read()
    assert verify(trial.state, trusted.anchors_of(trial.settings)).problems == []
