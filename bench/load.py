"""A load of prepared HTTP requests from one process over keep-alive TLS connections with a client certificate.

The requests are whole octets, built and signed beforehand, so that what is measured is the server. Closed loop: each
client sends its next request when the last is answered. Open loop: requests are due at a fixed rate, and latency counts
from when a request was due, so that a stall is seen by all who would have come in it.

`python -m bench.load` reads a `Plan` (MessagePack) on stdin and prints a `Measured` (JSON).
"""

import asyncio
import gc
import ssl
import subprocess
import sys
import time
from collections import Counter

import msgspec
import numpy as np

ANSWER_S = 60.0  # an answer that takes longer ends the run


class Plan(msgspec.Struct, frozen=True):
    """What to send and how.

    requests: octets from the request line to the end of the body
    again:    start over when all are sent (reads); without it the run ends with the last
    rate:     requests a second for an open loop, None for a closed one
    good:     HTTP statuses that are no failures
    certificate, key: PEM files shown to the server; authority: PEM of the CA that the server's chains to
    """

    host: str
    port: int
    requests: list[bytes]
    clients: int
    seconds: float
    certificate: str
    key: str
    authority: str
    again: bool = False
    rate: float | None = None
    good: tuple[str, ...] = ("200",)


class Measured(msgspec.Struct, frozen=True):
    """What came of it. failures: answers of other statuses, the first of which is quoted; sent: how many requests;
    answers: how many of each status."""

    sent: int
    failures: int
    elapsed_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    first_failure: str = ""
    answers: dict[str, int] = {}

    @property
    def per_s(self) -> float:
        """Good answers a second."""
        return (self.sent - self.failures) / self.elapsed_s


class _Run:
    """What the clients of one run share: the requests not yet sent, and the times of those answered."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.sent, self.failures, self.first_failure = plan, 0, 0, ""
        self.times_s: list[float] = []
        self.answers: Counter[str] = Counter()
        self.began_s = self.ends_s = 0.0

    def begin(self) -> None:
        self.began_s = time.perf_counter()
        self.ends_s = self.began_s + self.plan.seconds

    def take(self) -> tuple[float, bytes] | None:
        """When the next request is due and its octets; None when the run is over."""
        now_s, place = time.perf_counter(), self.sent
        due_s = max(now_s, self.began_s) if self.plan.rate is None else self.began_s + place / self.plan.rate
        if max(now_s, due_s) >= self.ends_s or (place >= len(self.plan.requests) and not self.plan.again):
            return None
        self.sent += 1
        return due_s, self.plan.requests[place % len(self.plan.requests)]

    def failed(self, what: str) -> None:
        self.failures += 1
        self.first_failure = self.first_failure or what


class _Client(asyncio.Protocol):
    """One connection: sends, reads one answer, sends the next."""

    def __init__(self, run: _Run) -> None:
        self.run, self.loop = run, asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self.loop.create_future()
        self.answer, self.due_s = bytearray(), 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def next(self) -> None:
        taken = self.run.take()
        if taken is None:
            self._finish()
            return
        self.due_s, octets = taken
        self.answer.clear()
        wait_s = self.due_s - time.perf_counter()
        if wait_s > 0:
            self.loop.call_later(wait_s, self.transport.write, octets)
        else:
            self.transport.write(octets)

    def data_received(self, data: bytes) -> None:
        self.answer += data
        head = self.answer.find(b"\r\n\r\n")
        if head < 0:
            return
        lines = bytes(self.answer[:head]).lower().split(b"\r\n")
        length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:"))
        if len(self.answer) < head + 4 + length:
            return
        self.run.times_s.append(time.perf_counter() - self.due_s)
        status = self.answer[9:12].decode("ascii", "replace")
        self.run.answers[status] += 1
        if status not in self.run.plan.good:
            self.run.failed(self.answer.decode("utf-8", "replace")[:2000])
        self.next()

    def connection_lost(self, problem: Exception | None) -> None:
        if not self.done.done():
            self.run.failed(f"connection lost: {problem!r}")
            self._finish()

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)
        self.transport.close()


async def _run(plan: Plan) -> Measured:
    context = ssl.create_default_context(cafile=plan.authority)
    context.load_cert_chain(plan.certificate, plan.key)
    loop, run = asyncio.get_running_loop(), _Run(plan)
    made = [
        # Of one address a server takes only so many: a crowd comes from several, as a city's bureaus do.
        await loop.create_connection(
            lambda: _Client(run), plan.host, plan.port, ssl=context, local_addr=(f"127.0.0.{1 + number // 100}", 0)
        )
        for number in range(plan.clients)
    ]
    clients = [client for _, client in made]
    gc.disable()
    run.begin()
    for client in clients:
        client.next()
    await asyncio.wait_for(asyncio.gather(*(client.done for client in clients)), plan.seconds + ANSWER_S)
    elapsed_s = time.perf_counter() - run.began_s
    p50, p95, p99 = (float(ms) for ms in np.percentile(run.times_s or [0.0], [50, 95, 99]) * 1000)
    return Measured(run.sent, run.failures, elapsed_s, p50, p95, p99, run.first_failure, dict(run.answers))


def drive(plan: Plan) -> Measured:
    """Carry the plan out in a process of its own."""
    command = [sys.executable, "-m", "bench.load"]
    done = subprocess.run(command, input=msgspec.msgpack.encode(plan), stdout=subprocess.PIPE, check=True)
    measured = msgspec.json.decode(done.stdout, type=Measured)
    if measured.failures:
        raise RuntimeError(f"{measured.failures} of {measured.sent} failed; the first:\n{measured.first_failure}")
    return measured


if __name__ == "__main__":
    read = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Plan)
    sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(_run(read))))
