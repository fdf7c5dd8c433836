"""Spans of both acts by OpenTelemetry, set up by its own environment variables and by nothing else.

A delivery's trace is named by its request: the first 32 hex digits of the SHA-256 of its signature, which stands in its
receipt and in the inbox, are the trace's id, and the next 16 that of act one's span. So act two, in another process and
after whatever restart, goes on with the same trace, and nobody has to keep anything for it. Only what was verified
names a trace: whoever is refused gets one by lot, and whoever sends again a span of its own in the first one's.

Spans carry feeds, doors, outcomes, counts and numbers of entries; no content, no name, no message id.

Loaded by `exchange.watched` where traces are asked for, and only there.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from exchange.act import Act
from exchange.entry import InboxRow
from security.message import Delivery

PROTOCOL: Final = "http/protobuf"
PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
Ids = tuple[int, int]  # of a trace and of a span

log = logging.getLogger("yongtong.traces")


def ids_of(request_digest: str) -> Ids:
    """The trace of a delivery, and the span of its act one. request_digest: 64 hex digits, as the inbox has it."""
    return int(request_digest[:32], 16), int(request_digest[32:48], 16)


class _Ids(IdGenerator):
    """By lot, but where a span is wanted under ids that are known already."""

    def __init__(self) -> None:
        self._lot = RandomIdGenerator()
        self._wanted: ContextVar[Ids | None] = ContextVar("wanted ids", default=None)

    def generate_trace_id(self) -> int:
        wanted = self._wanted.get()
        return wanted[0] if wanted else self._lot.generate_trace_id()

    def generate_span_id(self) -> int:
        wanted = self._wanted.get()
        return wanted[1] if wanted else self._lot.generate_span_id()

    @contextmanager
    def wanting(self, ids: Ids) -> Iterator[None]:
        """While the block runs, the next span has these."""
        token = self._wanted.set(ids)
        try:
            yield
        finally:
            self._wanted.reset(token)


class Tracing:
    """Hands spans to a batch processor, which sends them in a thread of its own and drops what it cannot send: no act
    waits for a collector."""

    def __init__(self, provider: TracerProvider, ids: _Ids) -> None:
        self._provider, self._ids, self._tracer = provider, ids, provider.get_tracer("yongtong")

    def act_one(self, act: Act, delivery: Delivery, row: InboxRow | None, outcome: str, traceparent: str) -> None:
        """The span of a delivery's arrival, with one below it for each step. row: where it was accepted."""
        said: dict[str, AttributeValue] = {
            "yongtong.door": delivery.door,
            "yongtong.outcome": act.outcome or outcome,
            "yongtong.octets": delivery.raw.size,
        }
        if row is None:
            span = self._root(act, said, traceparent)
        else:
            said |= {"yongtong.feed": row.feed, "yongtong.entry": row.entry_index}
            if outcome == "repeated":
                parent = self._parent(ids_of(row.request_digest))
                span = self._started("receive again", parent, act.began_ns, said, _links(traceparent), SpanKind.SERVER)
            else:
                with self._ids.wanting(ids_of(row.request_digest)):
                    span = self._root(act, said, traceparent)
        self._finish(span, act, failed=outcome in ("unavailable", "failed"))

    def act_two(self, act: Act, rows: Sequence[InboxRow], feed: str) -> None:
        """The span of a batch with its steps, in the trace of its first delivery; in each other delivery's trace one
        that links to it."""
        said: dict[str, AttributeValue] = {
            "yongtong.feed": feed,
            "yongtong.outcome": act.outcome,
            "yongtong.deliveries": len(rows),
        }
        batch: Span | None = None
        for row in rows:
            parent, links = self._parent(ids_of(row.request_digest)), [Link(batch.get_span_context())] if batch else []
            span = self._started("process", parent, act.began_ns, {**said, "yongtong.entry": row.entry_index}, links)
            if batch is None:
                batch = span
            else:
                span.end(act.ended_ns)
        if batch is not None:
            self._finish(batch, act, failed=act.outcome == "failed")

    def _root(self, act: Act, said: dict[str, AttributeValue], traceparent: str) -> Span:
        return self._started("receive", Context(), act.began_ns, said, _links(traceparent), SpanKind.SERVER)

    def _started(
        self,
        name: str,
        under: Context,
        began_ns: int,
        said: dict[str, AttributeValue] | None = None,
        links: Sequence[Link] = (),
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> Span:
        return self._tracer.start_span(name, under, kind, said, links, began_ns)

    def _finish(self, span: Span, act: Act, *, failed: bool) -> None:
        """The steps below a span, each until the next begins, and its end."""
        under = set_span_in_context(span)
        ends = [began_ns for _, began_ns in act.steps[1:]] + [act.ended_ns]
        for (name, began_ns), ended_ns in zip(act.steps, ends, strict=True):
            self._started(name, under, began_ns).end(ended_ns)
        if failed:
            span.set_status(StatusCode.ERROR)
        span.end(act.ended_ns)

    def _parent(self, ids: Ids) -> Context:
        """Act one's span as a parent. Whether it was sampled is asked of the sampler again: it decides by the id."""
        sampled = self._provider.sampler.should_sample(None, ids[0], "receive").decision != Decision.DROP
        flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
        return set_span_in_context(NonRecordingSpan(SpanContext(*ids, is_remote=True, trace_flags=flags)))


def open_tracing() -> Tracing | None:
    """As the environment says; None where it asks for a protocol that is not spoken here, which is logged."""
    for name in PROTOCOLS:
        if os.environ.get(name, PROTOCOL) != PROTOCOL:
            log.error("traces.off %s=%s; only %s is spoken", name, os.environ[name], PROTOCOL)
            return None
    ids = _Ids()
    named = Resource({} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: "yongtong"})
    provider = TracerProvider(resource=Resource.create().merge(named), id_generator=ids)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider, ids)


def _links(traceparent: str) -> list[Link]:
    """The sender's own span, where its header names one that can be read."""
    if not traceparent:
        return []
    said = TraceContextTextMapPropagator().extract({"traceparent": traceparent}, Context())
    found = [span.get_span_context() for span in said.values() if isinstance(span, Span)]
    return [Link(context) for context in found if context.is_valid]
