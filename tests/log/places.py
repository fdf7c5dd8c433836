"""The two places of evidence as tests get at them from behind: what lies there is read, altered and taken away."""

import secrets
from pathlib import Path
from typing import Protocol

from exchange.evidence_folder import EvidenceFolder
from exchange.evidence_place import Place
from exchange.evidence_s3 import EvidenceBucket, s3_url
from tests.s3 import BUCKET, S3Server


class Behind(Protocol):
    """A place and its back door."""

    def place(self) -> Place: ...

    def files(self) -> dict[str, bytes]: ...

    def alter(self, file: str, octets: bytes) -> None: ...

    def remove(self, file: str) -> None: ...


class BehindFolder:
    """A folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def place(self) -> Place:
        return EvidenceFolder(self._folder)

    def files(self) -> dict[str, bytes]:
        return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in self._folder.glob("*/*")}

    def alter(self, file: str, octets: bytes) -> None:
        (self._folder / file).write_bytes(octets)

    def remove(self, file: str) -> None:
        (self._folder / file).unlink()


class BehindBucket:
    """A prefix of its own in the tests' bucket. port: of a wire that the place is reached by"""

    def __init__(self, server: S3Server, port: int = 0) -> None:
        self.server, self.prefix, self._port = server, secrets.token_hex(6), port

    @property
    def url(self) -> str:
        return self.server.url(self.prefix, self._port)

    def place(self) -> EvidenceBucket:
        return EvidenceBucket(s3_url(self.url))

    def files(self) -> dict[str, bytes]:
        return self.server.objects(self.prefix)

    def alter(self, file: str, octets: bytes) -> None:
        self.server.client.put_object(Bucket=BUCKET, Key=f"{self.prefix}/{file}", Body=octets)

    def remove(self, file: str) -> None:
        self.server.client.delete_object(Bucket=BUCKET, Key=f"{self.prefix}/{file}")
