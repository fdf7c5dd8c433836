"""Evidence in a bucket of an S3-compatible store: the outgrown engine, chosen by URL.

A store takes whole objects only, so small payloads wait in memory and `sync`, before every group commit of the
journal, puts those of one bureau as one segment; nothing was promised for them before. Large ones are put at once, in
parts, without being held. Every put states its SHA-256 for the store to check, and what it answers is compared. A name
is never used for other payloads, so a put whose answer was lost is simply made again.
"""

import base64
import hashlib
import io
import logging
import socket
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import cache, cached_property
from typing import IO, Any, Final, Literal, get_args
from urllib.parse import parse_qs, urlsplit

import boto3
import msgspec
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from exchange.evidence_place import is_alone, is_ours, named_at, new_name
from exchange.faults import durable_step
from security.errors import Misconfigured

CONNECT_S: Final = 2.0
SMALL_READ_S: Final = 4.0  # of silence after a segment or less: a group of deliveries waits for it
READ_S: Final = 10.0  # of silence otherwise: parts of large objects are put together, which takes a store its time
ATTEMPTS: Final = 2  # a connection that the store has closed meanwhile is noticed by the first
SEGMENT_BYTES: Final = 4 << 20  # erasing one payload writes its whole segment anew
ALONE_AT_SYNC: Final = 1 << 18  # up to this a payload waits for the sync: its keeper may be a door's event loop
WAITING_BYTES: Final = 64 << 20  # in memory; beyond this nothing is taken until the store has taken something
PART_BYTES: Final = 8 << 20  # of a large object; a store takes 10,000 of them
RANGE_BYTES: Final = 4 << 20  # of a large object, read at once
PUTS_AT_ONCE: Final = 8
UPLOAD_TAKES: Final = timedelta(days=1)  # of one in parts that is under way, at most
REWRITES: Final = 10  # of one segment that others write as well

Addressing = Literal["path", "virtual"]

log = logging.getLogger("yongtong.evidence")


class S3Url(msgspec.Struct, frozen=True):
    """Where the bucket is; never with credentials.

    prefix:     before every name, ends in `/` or is empty
    endpoint:   http or https; empty for the one of the region
    addressing: `path` for https://host/bucket, `virtual` for https://bucket.host
    """

    bucket: str
    prefix: str
    endpoint: str
    region: str
    addressing: Addressing


def s3_url(text: str) -> S3Url:
    """`s3://bucket/prefix?endpoint=…&region=…&addressing=path|virtual`. Raises Misconfigured."""
    try:
        url = urlsplit(text)
        said = parse_qs(url.query, keep_blank_values=True, strict_parsing=bool(url.query))
        wrong = next((name for name in said if name not in ("endpoint", "region", "addressing")), "")
        endpoint, region, addressing = (said.get(name, [""])[0] for name in ("endpoint", "region", "addressing"))
        if url.scheme != "s3" or not url.netloc or url.fragment or wrong:
            raise ValueError(wrong or "s3://bucket/prefix?endpoint=https://host&region=name")
        if "@" in url.netloc or (endpoint and "@" in urlsplit(endpoint).netloc):
            raise ValueError("credentials stand in the environment or in a file of their own, never here")
        if endpoint and (urlsplit(endpoint).scheme not in ("http", "https") or not urlsplit(endpoint).hostname):
            raise ValueError(f"endpoint={endpoint}")
        if addressing and addressing not in get_args(Addressing):
            raise ValueError(f"addressing={addressing}")
    except ValueError as problem:
        raise Misconfigured(
            "config.setting", f"[evidence] url = {_without_credentials(text)!r}: {problem}"
        ) from problem
    prefix = url.path.strip("/")
    style: Addressing = "virtual" if addressing == "virtual" or not (addressing or endpoint) else "path"
    return S3Url(url.netloc, f"{prefix}/" if prefix else "", endpoint, region, style)


class _Waiting(msgspec.Struct):
    """An object that the store has not yet taken. payloads: how many in it somebody may ask for"""

    octets: bytearray
    payloads: int = 1


class EvidenceBucket:
    """The place of one bus's evidence in a bucket, its prefix the bus's own. Any number of processes use it at once."""

    def __init__(self, url: S3Url) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._syncing = threading.Lock()
        self._waiting: dict[str, _Waiting] = {}  # by file
        self._segments: dict[str, str] = {}  # the file of each bureau that is added to
        self._putting = ThreadPoolExecutor(PUTS_AT_ONCE, "evidence")

    @cached_property
    def _client(self) -> Any:
        """Made when first asked: most commands never touch evidence."""
        return self._new_client(READ_S)

    @cached_property
    def _client_of_small(self) -> Any:
        """The one that puts what is no larger than a segment."""
        return self._new_client(SMALL_READ_S)

    def _new_client(self, read_s: float) -> Any:
        config = Config(
            connect_timeout=CONNECT_S,
            read_timeout=read_s,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            max_pool_connections=2 * PUTS_AT_ONCE,
            s3={"addressing_style": self._url.addressing},
            # We state SHA-256 ourselves. What is put in by default is sent as a trailer, which not every store reads.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        with _answered("client"):
            return _session().client(
                "s3", endpoint_url=self._url.endpoint or None, region_name=self._url.region or None, config=config
            )

    def add(self, bureau: str, octets: bytes) -> tuple[str, int]:
        """Put octets behind others of the bureau that wait for the same sync."""
        with self._lock:
            self._check_room(len(octets))
            file = self._segments.get(bureau, "")
            segment = self._waiting.get(file)
            if segment is None or len(segment.octets) + len(octets) > SEGMENT_BYTES:
                file = self._segments[bureau] = f"{bureau}/{new_name('segment')}"
                segment = self._waiting[file] = _Waiting(bytearray(), 0)
            offset = len(segment.octets)
            segment.octets += octets
            segment.payloads += 1
            return file, offset

    def put(self, bureau: str, pieces: Iterable[bytes]) -> str:
        """An object of its own: put at the next sync when it is not very large, else now, in parts."""
        file = f"{bureau}/{new_name('payload')}"
        parts = _parts(pieces)
        first = next(parts)
        if len(first) <= ALONE_AT_SYNC:
            with self._lock:
                self._check_room(len(first))
                self._waiting[file] = _Waiting(bytearray(first))
        elif len(first) < PART_BYTES:
            self._put(file, first)
        else:
            self._put_in_parts(file, first, parts)
        return file

    def bring(self, file: str, pieces: Iterable[bytes]) -> None:
        """Put the object now, in parts where it is large."""
        parts = _parts(pieces)
        first = next(parts)
        if len(first) < PART_BYTES:
            self._put(file, first)
        else:
            self._put_in_parts(file, first, parts)

    def sync(self) -> None:
        """Put what waits: one first, so that a store that is away is found so once, the others at the same time."""
        with self._syncing:
            with self._lock:
                files, self._segments = list(self._waiting), {}
            if not files:
                return
            durable_step("evidence.sync:before")
            self._put_waiting(files[0])
            putting = [self._putting.submit(self._put_waiting, file) for file in files[1:]]
            if failed := [problem for one in putting if (problem := one.exception()) is not None]:
                raise failed[0]
            durable_step("evidence.sync:after")

    def withdraw(self, file: str, offset: int, size: int) -> None:
        """Leave octets out of what waits, and an object of which nothing is left."""
        with self._lock:
            waiting = self._waiting.get(file)
            if waiting is None:
                return
            waiting.octets[offset : offset + size] = bytes(size)
            waiting.payloads -= 1
            if not waiting.payloads:
                del self._waiting[file]

    def read(self, file: str, offset: int, size: int) -> bytes:
        """Octets of an object, by one question."""
        waiting = self._held(file)
        if waiting is not None:
            return waiting[offset : offset + size]
        return self._range(file, offset, size)[0]

    def open(self, file: str) -> IO[bytes]:
        """An object as a stream, some megabytes of it in memory at a time."""
        waiting = self._held(file)
        if waiting is not None:
            return io.BytesIO(waiting)
        _, size = self._range(file, 0, 1)
        return io.BufferedReader(_Object(lambda at, length: self._range(file, at, length)[0], size), RANGE_BYTES)

    def destroy(self, file: str, offset: int, size: int) -> None:
        """Delete a payload's own object; write a shared one anew with zeros in it, if nobody else has meanwhile."""
        if self._held(file) is not None:
            self.sync()
        if is_alone(file):
            with _answered(file):
                self._client.delete_object(**self._at(file))
            return
        for _ in range(REWRITES):
            try:
                if self._zeroed(file, offset, size):
                    return
            except FileNotFoundError:
                return
        raise OSError(f"evidence {file}: somebody else writes to it")

    def sweep(self, known: Collection[str], older_than: datetime) -> int:
        """Remove objects that are not known and that nobody put since; gives how many. Uploads that a crash cut short
        go as well."""
        removed = 0
        for file, put_at in self._listed():
            if file in known or not is_ours(file) or self._held(file) is not None:
                continue
            if max(put_at, named_at(file)) >= older_than:
                continue
            with _answered(file):
                self._client.delete_object(**self._at(file))
            removed += 1
        self._end_uploads(older_than - UPLOAD_TAKES)
        return removed

    def keeps_copies(self) -> str:
        """Versions of the bucket, once they were kept: what is erased goes on lying there. An object lock needs them,
        so it is found as well."""
        try:
            with _answered("versioning"):
                status = self._client.get_bucket_versioning(Bucket=self._url.bucket).get("Status")
        except ConnectionError as problem:
            if _code(problem.__cause__) == "NotImplemented":  # a store that knows no versions keeps none
                return ""
            raise
        return f"versioning {status}" if status else ""

    def close(self) -> None:
        """Put what waits. What the store does not take now was promised to nobody."""
        try:
            self.sync()
        except OSError as problem:
            log.warning("evidence.not_put_at_end reason=%s", problem)
        self._putting.shutdown()

    def steps(self) -> Mapping[str, Callable[[], None]]:
        """An object is put, read and deleted, and one not put on a condition that does not hold."""
        file, octets = f".probe/{new_name('segment')}", b"yongtong probe"

        def credentials() -> None:
            if _session().get_credentials() is None:
                raise ConnectionError("none in the environment, in a credentials file or by an instance role")

        def address() -> None:
            at = urlsplit(self._client.meta.endpoint_url)
            port = at.port or (443 if at.scheme == "https" else 80)
            socket.create_connection((at.hostname or "", port), CONNECT_S).close()

        def bucket() -> None:
            with _answered("bucket"):
                self._client.list_objects_v2(Bucket=self._url.bucket, Prefix=self._url.prefix, MaxKeys=1)

        def put() -> None:
            self._put(file, octets)

        def get() -> None:
            if self._range(file, 0, len(octets))[0] != octets:
                raise OSError("it gives back other octets than were put")

        def condition() -> None:
            if self._put(file, octets, IfMatch=f'"{"0" * 32}"'):
                raise OSError("a put that depends on what lies there (If-Match) is made in any case")

        def delete() -> None:
            with _answered("delete"):
                self._client.delete_object(**self._at(file))

        return {
            "address": address,
            "credentials": credentials,
            "bucket": bucket,
            "put": put,
            "get": get,
            "condition": condition,
            "delete": delete,
        }

    # What waits.

    def _check_room(self, size: int) -> None:
        """Raises ConnectionError when too much waits, and has it put beside: nobody else would, for nothing is taken.

        Called under the lock.
        """
        if sum(len(waiting.octets) for waiting in self._waiting.values()) + size <= WAITING_BYTES:
            return
        if not self._syncing.locked():
            threading.Thread(target=self._try_sync, name="evidence sync", daemon=True).start()
        raise ConnectionError("the evidence store takes nothing, and no more can wait for it")

    def _try_sync(self) -> None:
        try:
            self.sync()
        except OSError as problem:
            log.warning("evidence.not_put reason=%s", problem)

    def _held(self, file: str) -> bytes | None:
        with self._lock:
            waiting = self._waiting.get(file)
            return None if waiting is None else bytes(waiting.octets)

    def _put_waiting(self, file: str) -> None:
        octets = self._held(file)
        if octets is not None:  # else it was withdrawn meanwhile
            self._put(file, octets)
            with self._lock:
                self._waiting.pop(file, None)

    # Questions to the store.

    def _at(self, file: str) -> dict[str, str]:
        return {"Bucket": self._url.bucket, "Key": self._url.prefix + file}

    def _put(self, file: str, octets: bytes, **condition: str) -> bool:
        """Put an object; false where a condition was given that did not hold."""
        client = self._client_of_small if len(octets) <= SEGMENT_BYTES else self._client
        try:
            with _answered(file):
                said = client.put_object(**self._at(file), Body=octets, **_checksum(octets), **condition)
        except ConnectionError as problem:
            if condition and _code(problem.__cause__) in ("PreconditionFailed", "ConditionalRequestConflict"):
                return False
            raise
        _check_stored(file, octets, said)
        return True

    def _put_in_parts(self, file: str, first: bytes, others: Iterator[bytes]) -> None:
        at = self._at(file)
        with _answered(file):
            upload = {
                **at,
                "UploadId": self._client.create_multipart_upload(**at, ChecksumAlgorithm="SHA256")["UploadId"],
            }
        try:
            parts = [self._put_part(upload, 1, first)]
            parts += [self._put_part(upload, number, octets) for number, octets in enumerate(others, 2)]
            with _answered(file):
                self._client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
        except OSError:
            try:
                with _answered(file):
                    self._client.abort_multipart_upload(**upload)
            except OSError as problem:  # the sweep comes back to it
                log.warning("evidence.upload_left file=%s reason=%s", file, problem)
            raise

    def _put_part(self, upload: dict[str, str], number: int, octets: bytes) -> dict[str, Any]:
        checksum = _checksum(octets)
        with _answered(upload["Key"]):
            said = self._client.upload_part(**upload, PartNumber=number, Body=octets, **checksum)
        _check_stored(upload["Key"], octets, said)
        return {"PartNumber": number, "ETag": said["ETag"], "ChecksumSHA256": checksum["ChecksumSHA256"]}

    def _range(self, file: str, offset: int, size: int) -> tuple[bytes, int]:
        """Octets of an object and its size; no octets from behind its end."""
        last = offset + max(size, 1) - 1
        try:
            with _answered(file):
                said = self._client.get_object(**self._at(file), Range=f"bytes={offset}-{last}")
                octets, (_, _, whole) = said["Body"].read(), said["ContentRange"].rpartition("/")
        except ConnectionError as problem:
            if _code(problem.__cause__) == "InvalidRange":
                return b"", 0
            raise
        return octets[:size], int(whole)

    def _zeroed(self, file: str, offset: int, size: int) -> bool:
        """Write an object anew with zeros in it; false when somebody else did meanwhile."""
        with _answered(file):
            said = self._client.get_object(**self._at(file), ChecksumMode="ENABLED")  # checked as it is read
            octets = bytearray(said["Body"].read())
        end = min(offset + size, len(octets))
        octets[offset:end] = bytes(max(end - offset, 0))
        return self._put(file, bytes(octets), IfMatch=said["ETag"])

    def _listed(self) -> Iterator[tuple[str, datetime]]:
        """What lies there, and when it was put."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._url.bucket, Prefix=self._url.prefix)
        with _answered("list"):
            for page in pages:
                for found in page.get("Contents", ()):
                    yield found["Key"].removeprefix(self._url.prefix), found["LastModified"]

    def _end_uploads(self, older_than: datetime) -> None:
        """Uploads of nobody: their parts cost room and are listed nowhere."""
        pages = self._client.get_paginator("list_multipart_uploads")
        with _answered("uploads"):
            for page in pages.paginate(Bucket=self._url.bucket, Prefix=self._url.prefix):
                for found in page.get("Uploads", ()):
                    file = found["Key"].removeprefix(self._url.prefix)
                    if is_ours(file) and named_at(file) < older_than:
                        at = {"Bucket": self._url.bucket, "Key": found["Key"], "UploadId": found["UploadId"]}
                        self._client.abort_multipart_upload(**at)


class _Object(io.RawIOBase):
    """An object read from any place, a question to the store for each stretch. size: octets"""

    def __init__(self, ask: Callable[[int, int], bytes], size: int) -> None:
        self._ask, self._size, self._position = ask, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence])
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # the stubs know no narrower name for it
        length = min(len(buffer), self._size - self._position)
        if length <= 0:
            return 0
        octets = self._ask(self._position, length)
        buffer[: len(octets)] = octets
        self._position += len(octets)
        return len(octets)


@cache
def _session() -> Any:
    """One a process: it reads the API's description, a megabyte, and finds the credentials."""
    return boto3.session.Session()


@contextmanager
def _answered(what: str) -> Iterator[None]:
    """Raises FileNotFoundError where the store says that an object is not there, else ConnectionError for what the
    client or the store could not do: no credentials, no bucket, no connection, an error of theirs."""
    try:
        yield
    except ClientError as problem:
        if _code(problem) == "NoSuchKey":
            raise FileNotFoundError(f"{what}: not there") from problem
        raise ConnectionError(f"{what}: {problem}") from problem
    except BotoCoreError as problem:
        raise ConnectionError(f"{what}: {problem}") from problem


def _code(problem: BaseException | None) -> str:
    return str(problem.response["Error"]["Code"]) if isinstance(problem, ClientError) else ""


def _checksum(octets: bytes) -> dict[str, str]:
    """What a put states of its octets, for the store to check."""
    stated = base64.b64encode(hashlib.sha256(octets).digest()).decode()
    return {"ChecksumAlgorithm": "SHA256", "ChecksumSHA256": stated}


def _check_stored(file: str, octets: bytes, said: Mapping[str, Any]) -> None:
    """Raises OSError when the store says that it has stored something else; a store that keeps no SHA-256 says MD5."""
    stored = said.get("ChecksumSHA256")
    if stored is not None:
        right = stored == _checksum(octets)["ChecksumSHA256"]
    else:
        right = said.get("ETag", "").strip('"') == hashlib.md5(octets, usedforsecurity=False).hexdigest()
    if not right:
        raise OSError(f"evidence {file}: the store does not confirm that it stored what was sent")


def _parts(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Pieces joined to parts of PART_BYTES, the last perhaps shorter; one at least."""
    part, first = bytearray(), True
    for piece in pieces:
        part += piece
        while len(part) >= PART_BYTES:
            yield bytes(part[:PART_BYTES])
            del part[:PART_BYTES]
            first = False
    if part or first:
        yield bytes(part)


def _without_credentials(text: str) -> str:
    """A URL as it may be printed."""
    return text if "@" not in text else f"{text.partition(':')[0]}://…"
