"""What names a trace and what does not, in one process: batches, retries, refusals, and samplers that agree."""

from collections.abc import Iterator

import pytest
from msgspec.structs import replace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, TraceIdRatioBased

from exchange import tracing, watched
from exchange.processing import process
from exchange.tracing import Tracing, ids_of
from security.errors import Refusal
from security.message import in_memory
from tests.acts.bench_of_one import FEED, Acts, both_acts, covers


@pytest.fixture(scope="module")
def acts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acts]:
    with both_acts(tmp_path_factory.mktemp("traces")) as acts:
        acts.trial.grant("made-up", "push", FEED)
        yield acts


class Kept:
    """Tracing into memory."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self.exporter, ids = InMemorySpanExporter(), tracing._Ids()
        provider = TracerProvider(sampler, id_generator=ids)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracing = Tracing(provider, ids)

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    memory = Kept()
    monkeypatch.setattr(watched, "tracing", lambda: memory.tracing)
    return memory


def trace_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.trace_id


def test_each_delivery_of_a_batch_has_act_two_in_its_own_trace(acts: Acts, kept: Kept) -> None:
    traces = [ids_of(acts.push(f"b-{n}", covers(f"B{n}")).inbox.request_digest)[0] for n in range(3)]
    assert process(FEED, acts.bus) == 3
    batch = kept.named("process")
    assert sorted(map(trace_of, batch)) == sorted(traces)
    first = next(span for span in batch if not span.links)
    assert trace_of(first) == traces[0]
    for other in batch:
        if other is not first:
            (link,) = other.links
            assert link.context == first.context
    steps = [span for span in kept.named("store") if span.parent and span.parent.trace_id == traces[0]]
    assert len(steps) == len(kept.named("store")) == 1


def test_whoever_is_refused_names_no_trace(acts: Acts, kept: Kept) -> None:
    accepted = acts.push("r-1", covers("R")).inbox
    stolen = acts.delivery("r-1", covers("R"), ContentType="text/plain")
    spoilt = acts.delivery("r-2", covers("R"))
    body = spoilt.envelope.replace(b"text/csv", b"text/tsv")
    with pytest.raises(Refusal):
        acts.receive(replace(spoilt, envelope=body, raw=in_memory(body)))
    with pytest.raises(Refusal):
        acts.receive(stolen)
    spans = kept.named("receive")
    assert [span.attributes and span.attributes["yongtong.outcome"] for span in spans] == [
        "accepted",
        "signature.invalid",
        "delivery.id_reused",
    ]
    assert [trace_of(span) == ids_of(accepted.request_digest)[0] for span in spans] == [True, False, False]


def test_a_retry_is_a_span_of_its_own_in_the_first_ones_trace(acts: Acts, kept: Kept) -> None:
    first = acts.delivery("again", covers("A"))
    row = acts.receive(first).inbox
    acts.receive(first)
    (root,), (again,) = kept.named("receive"), kept.named("receive again")
    assert root.context is not None
    assert (root.context.trace_id, root.context.span_id) == ids_of(row.request_digest)
    assert again.parent is not None
    assert again.parent.span_id == root.context.span_id


def test_both_acts_agree_on_what_is_sampled(acts: Acts, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Kept(ParentBased(TraceIdRatioBased(0.5)))
    monkeypatch.setattr(watched, "tracing", lambda: memory.tracing)
    pushed = [acts.push(f"s-{number}", covers(f"S{number}", 1)).inbox.request_digest for number in range(24)]
    mine = {ids_of(digest)[0] for digest in pushed}
    assert process(FEED, acts.bus) >= 24
    began, ended = ({trace_of(span) for span in memory.named(name)} for name in ("receive", "process"))
    assert 0 < len(began) < 24
    assert began == ended & mine
