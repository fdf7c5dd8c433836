"""An S3 server of the tests' own on a free port, which may be killed, and a wire to it that can be made faulty."""

import http.client
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

import boto3

ROOT: Final = Path(__file__).parent.parent
BUCKET: Final = "evidence"
REGION: Final = "us-east-1"
CREDENTIALS: Final = {
    "AWS_ACCESS_KEY_ID": "tests",
    "AWS_SECRET_ACCESS_KEY": "of-nobody",
    "AWS_EC2_METADATA_DISABLED": "1",
}
UP_S: Final = 30.0


class S3Server:
    """A server with one bucket. The environment must hold CREDENTIALS."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.port = folder, _free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self.start()
        self.client.create_bucket(Bucket=BUCKET)

    def start(self) -> None:
        """Start it, with what it had before."""
        command = [sys.executable, "-m", "tests.s3_server", str(self.port), str(self._folder / "asked")]
        with (self._folder / "said").open("ab") as said:
            self._process = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said)
        until = monotonic() + UP_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                break
            except OSError:
                assert monotonic() < until, (self._folder / "said").read_text()
                sleep(0.02)
        self.client = self.client_at(self.port)

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    def url(self, prefix: str, port: int = 0) -> str:
        """Of a bus's evidence. port: of a wire to it"""
        return f"s3://{BUCKET}/{prefix}?endpoint=http://127.0.0.1:{port or self.port}&region={REGION}"

    @staticmethod
    def client_at(port: int) -> Any:
        """The tests' own client, which the bus knows nothing of."""
        return boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name=REGION)

    def objects(self, prefix: str) -> dict[str, bytes]:
        """All that lies under a prefix, by name."""
        listed = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{prefix}/")
        keys = [found["Key"] for page in listed for found in page.get("Contents", ())]
        return {key.removeprefix(f"{prefix}/"): self._octets(key) for key in keys}

    def _octets(self, key: str) -> bytes:
        octets: bytes = self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return octets


class Wire:
    """A wire to a server. `fault` says what becomes of a request: its method and path, to one of FAULTS or empty."""

    def __init__(self, to_port: int) -> None:
        self.fault: Callable[[str, str], str] = lambda method, path: ""
        self.passed: list[str] = []  # methods, as they came
        wire = self

        class Passing(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass(self) -> None:
                octets = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.headers.get("Expect", ""):
                    del self.headers["Expect"]
                wire.passed.append(self.command)
                wire._answer(self, octets, to_port)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass

            def handle_expect_100(self) -> bool:
                self.send_response_only(100)
                self.end_headers()
                return True

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Passing)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @contextmanager
    def broken(self, kind: str, methods: str = "PUT POST") -> Iterator[None]:
        """What becomes of such requests for a while."""
        self.fault = lambda method, path: kind if method in methods.split() else ""
        try:
            yield
        finally:
            self.fault = lambda method, path: ""

    def close(self) -> None:
        """Take it away."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, asked: BaseHTTPRequestHandler, octets: bytes, to_port: int) -> None:
        fault = self.fault(asked.command, asked.path)
        asked.close_connection = asked.close_connection or fault in ("cut", "silent", "answer lost")
        if fault == "cut":
            return
        if fault == "silent":
            sleep(3)
            return
        if fault == "late":
            sleep(1)
        if fault == "error":
            asked.send_response(500)
            asked.send_header("Content-Length", "0")
            asked.end_headers()
            return
        if fault == "spoilt" and octets:
            octets = bytes([octets[0] ^ 1]) + octets[1:]
        if fault == "condition ignored":
            del asked.headers["If-Match"]
        status, headers, said = _asked(asked, octets, to_port)
        if fault == "answer lost":
            return
        asked.send_response_only(status)
        for name, value in headers:
            # A store that keeps no SHA-256 says the MD5 of what it got.
            if not (fault == "spoilt" and name.lower().startswith("x-amz-checksum")):
                asked.send_header(name, value)
        asked.end_headers()
        asked.wfile.write(said)


def _asked(asked: BaseHTTPRequestHandler, octets: bytes, to_port: int) -> tuple[int, list[tuple[str, str]], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", to_port, timeout=30)
    try:
        connection.request(asked.command, asked.path, octets, dict(asked.headers.items()))
        answer = connection.getresponse()
        said = answer.read()
        left_out = ("connection", "transfer-encoding", "content-length")
        headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in left_out]
        length = answer.getheader("Content-Length") if asked.command == "HEAD" else str(len(said))
        return answer.status, [*headers, ("Content-Length", length or "0")], said
    finally:
        connection.close()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
