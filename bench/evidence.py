"""`python -m bench.evidence`: what it takes to keep a group's payloads durably, in a folder and in a bucket.

Milliseconds, medians of ROUNDS: of 100 deliveries of 4 KB in one group, from the first `keep` to the end of `sync`, and
of one delivery alone. The bucket is the tests' own server on this machine, which keeps everything in memory: it says
what our side costs, and one round trip; of a store of the city's the round trip comes on top.
"""

import os
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

from bench.__main__ import WORK
from exchange.evidence import Evidence
from exchange.evidence_folder import EvidenceFolder
from exchange.evidence_s3 import EvidenceBucket, s3_url
from security.message import in_memory
from security.sealing import SealingKey
from tests.s3 import CREDENTIALS, S3Server

ROUNDS: Final = 15
DELIVERIES: Final = 100
OCTETS: Final = 4096
BUREAUS: Final = 4


class Kept(msgspec.Struct, frozen=True):
    """Milliseconds. place: where; each other: how many deliveries of how many bureaus."""

    place: str
    one: float
    hundred_of_one_bureau: float
    hundred_of_four_bureaus: float
    hundred_sealed: float
    read_one: float


def measured(place: str, evidence: Evidence) -> Kept:
    """Keep, sync and read."""
    evidence.sync(_keep(evidence, 1, 1))  # whoever asks first makes the client
    location = evidence.keep("bureau-0", in_memory(os.urandom(OCTETS)))
    evidence.sync()
    return Kept(
        place,
        one=_median_ms(evidence, 1, 1),
        hundred_of_one_bureau=_median_ms(evidence, DELIVERIES, 1),
        hundred_of_four_bureaus=_median_ms(evidence, DELIVERIES, BUREAUS),
        hundred_sealed=_median_ms(evidence, DELIVERIES, 1, sealed=True),
        read_one=median(_read_ms(evidence, location)),
    )


def _keep(evidence: Evidence, count: int, bureaus: int, *, sealed: bool = False) -> list[str]:
    raw = [in_memory(os.urandom(OCTETS)) for _ in range(count)]
    return [evidence.keep(f"bureau-{n % bureaus}", one, sealed=sealed) for n, one in enumerate(raw)]


def _median_ms(evidence: Evidence, count: int, bureaus: int, *, sealed: bool = False) -> float:
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        _keep(evidence, count, bureaus, sealed=sealed)
        evidence.sync()
        took.append(time.perf_counter() - began)
    return round(1000 * median(took), 1)


def _read_ms(evidence: Evidence, location: str) -> Iterator[float]:
    for _ in range(ROUNDS):
        began = time.perf_counter()
        evidence.read(location)
        yield round(1000 * (time.perf_counter() - began), 2)


def main() -> int:
    """Measure both places, print JSON."""
    WORK.mkdir(exist_ok=True)
    os.environ.update(CREDENTIALS)
    key = SealingKey(bytes(32))
    with tempfile.TemporaryDirectory(prefix="bench-", dir=WORK) as folder:
        on_disk = measured("folder", Evidence(EvidenceFolder(Path(folder) / "evidence"), key))
        server = S3Server(Path(folder) / "s3")
        try:
            url = s3_url(server.url(secrets.token_hex(4)))
            in_bucket = measured("bucket on a private moto server", Evidence(EvidenceBucket(url), key))
        finally:
            server.kill()
    print(msgspec.json.format(msgspec.json.encode([on_disk, in_bucket])).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
