"""What the doctor says of a place of evidence: which step is broken, and what would hinder erasing."""

import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from exchange import evidence_s3
from exchange.doctor.check import Check, Examined
from exchange.doctor.evidence import BROKEN, evidence_can_be_kept
from exchange.settings import EvidenceSettings, load_settings
from security.errors import Misconfigured
from tests.s3 import BUCKET, CREDENTIALS, S3Server, Wire

OURS = load_settings(Path(__file__).parent.parent.parent / "settings.toml")


@pytest.fixture
def wire(s3: S3Server) -> Iterator[Wire]:
    wire = Wire(s3.port)
    yield wire
    wire.close()


@pytest.fixture
def url(s3: S3Server, wire: Wire) -> str:
    return s3.url(secrets.token_hex(6), wire.port)


def said_of(url: str, folder: Path) -> list[Check]:
    settings = msgspec.structs.replace(OURS, evidence=EvidenceSettings(url=url), source=str(folder / "settings.toml"))
    return list(evidence_can_be_kept(Examined(settings, folder, folder, datetime.now(UTC), 0)))


@pytest.mark.parametrize("of_a_bucket", [False, True])
def test_a_place_in_order_is_green_and_nothing_is_left_of_the_probe(
    s3: S3Server, url: str, tmp_path: Path, of_a_bucket: bool
) -> None:
    (said,) = said_of(url if of_a_bucket else "", tmp_path)
    assert (said.name, said.ok) == ("evidence.place", True)
    assert [path for path in (tmp_path / "state" / "evidence").rglob("*") if path.is_file()] == []
    assert s3.objects(url.split("/")[3].split("?")[0]) == {}


def faulty(kind: str, method: str, path: str) -> Callable[[str, str], str]:
    """Only such requests, so that every step before goes well."""
    return lambda asked, at: kind if asked == method and path in at else ""


FAULTS = {
    "bucket": faulty("error", "GET", "list-type"),
    "put": faulty("error", "PUT", ".probe"),
    "get": faulty("error", "GET", ".probe"),
    "condition": faulty("condition ignored", "PUT", ".probe"),
    "delete": faulty("error", "DELETE", ".probe"),
}


@pytest.mark.parametrize("step", FAULTS)
def test_the_broken_step_is_named_with_what_to_do(url: str, wire: Wire, tmp_path: Path, step: str) -> None:
    wire.fault = FAULTS[step]
    names(said_of(url, tmp_path), step)


def test_an_address_where_nobody_answers_is_named(url: str, wire: Wire, tmp_path: Path) -> None:
    wire.close()
    names(said_of(url, tmp_path), "address")


def test_a_bucket_that_is_none_is_named(url: str, tmp_path: Path) -> None:
    names(said_of(url.replace(BUCKET, "nobodys", 1), tmp_path), "bucket")


def test_missing_credentials_are_named(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CREDENTIALS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    evidence_s3._session.cache_clear()
    try:
        names(said_of(url, tmp_path), "credentials")
    finally:
        evidence_s3._session.cache_clear()


def names(said: list[Check], step: str) -> None:
    (check,) = said
    assert (check.name, check.ok) == ("evidence.place", False)
    assert f"“{step}”" in check.en
    assert f"“{step}”" in check.zh
    assert (check.next_zh, check.next_en) == BROKEN[step][2:]


def test_a_bucket_with_versions_is_red_because_erasing_would_not_erase(s3: S3Server, url: str, tmp_path: Path) -> None:
    s3.client.create_bucket(Bucket="with-versions")
    s3.client.put_bucket_versioning(Bucket="with-versions", VersioningConfiguration={"Status": "Enabled"})
    place, erasable = said_of(url.replace(BUCKET, "with-versions", 1), tmp_path)
    assert (place.ok, erasable.name, erasable.ok) == (True, "evidence.erasable", False)
    assert "versioning Enabled" in erasable.en


def test_a_bucket_with_a_lock_is_red(s3: S3Server, url: str, tmp_path: Path) -> None:
    s3.client.create_bucket(Bucket="with-lock", ObjectLockEnabledForBucket=True)
    _, erasable = said_of(url.replace(BUCKET, "with-lock", 1), tmp_path)
    assert (erasable.name, erasable.ok) == ("evidence.erasable", False)


def test_plain_http_to_another_machine_is_red(url: str, tmp_path: Path) -> None:
    place, transport = said_of(url.replace("127.0.0.1", "0.0.0.0"), tmp_path)  # which is this one, by another name
    assert (place.ok, transport.name, transport.ok) == (True, "evidence.transport", False)


def test_a_url_with_credentials_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured):
        said_of("s3://key:secret@evidence", tmp_path)
