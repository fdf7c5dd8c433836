"""A bus that runs as it is served: what /metrics tells of both processes, one trace through both acts, a log of lines.

Everything on real sockets; the spans arrive at a collector that decodes OTLP's own protobuf.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from exchange.app import opening, places
from exchange.cli.partner import open_partner
from exchange.cli.trial import Trial
from exchange.doctor.examine import CHECKS
from exchange.tally import Tally
from security.errors import Refusal, sentences
from security.message import in_memory
from tests.watch.sinks import HttpSink, Posted, Span, spans, until
from tests.whole.real_bus import COLUMNS, FEED, REGISTER, a_trial, csv, rows

ROOT: Final = Path(__file__).parents[2]
SECRET: Final = "张三丰13912345678"  # what a bureau may write where it should not
MESSAGE_ID: Final = "ZhangSanFeng-13912345678"
ACT_ONE: Final = ["who", "which", "may", "theirs", "keep", "accept"]
ACT_TWO: Final = ["decode", "map", "place", "check", "claim", "join", "store", "report"]
PARENT: Final = "4bf92f3577b34da6a3ce929d0e0e4736"


class Watched(NamedTuple):
    """What came of the run."""

    trial: Trial
    digest: str
    metrics: dict[str, list[tuple[dict[str, str], float]]]
    text: str
    spans: list[Span]
    log: str
    ready: requests.Response
    alarmed: list[Posted]


def scraped(trial: Trial) -> tuple[str, dict[str, list[tuple[dict[str, str], float]]]]:
    """/metrics as a monitoring system reads it: by sample, labels and value."""
    answer = requests.get(f"{trial.url}/metrics", verify=str(trial.folder / "keys" / "ca.pem"), timeout=10)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return answer.text, found


def of(samples: dict[str, list[tuple[dict[str, str], float]]], name: str, **labels: str) -> float:
    """The one value with these labels."""
    (value,) = [value for has, value in samples[name] if labels.items() <= has.items()]
    return value


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    trial = a_trial(tmp_path_factory.mktemp("watched"), REGISTER)
    settings = Path(trial.settings.source)
    trial.enrol("made-up", "Made-up bureau", "某单位")
    trial.grant("made-up", "push", FEED)
    with HttpSink() as collector, HttpSink() as hook:
        more = f'[watch]\nlog = "json"\n[alarms]\nwebhook = "{hook.url}"\nleast_free_bytes = {1 << 60}\n'
        settings.write_text(settings.read_text(encoding="utf-8") + more, encoding="utf-8")
        environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        trial.start(environment)
        ready = requests.get(f"{trial.url}/health/ready", verify=str(trial.folder / "keys" / "ca.pem"), timeout=5)
        partner = open_partner(trial.partners / "made-up", trial.url)
        odd = [{**row, "养护单位": SECRET} for row in rows("W")]
        odd[0]["经度"] = SECRET  # a finding, whose value must stay out of log and traces
        receipt = partner.push(FEED, in_memory(csv(odd, COLUMNS)), "text/csv", MESSAGE_ID)
        partner.push(FEED, in_memory(csv(odd, COLUMNS)), "text/csv", MESSAGE_ID)
        partner.push(FEED, in_memory(csv(rows("V"))), "text/csv", "second")
        partner.push(FEED, in_memory(b"\x00\x01"), "text/csv", "not-a-table")
        for message_id in (MESSAGE_ID, "second", "not-a-table"):
            assert partner.report(message_id, wait_s=30).received is not None
        with pytest.raises(Refusal):
            partner.push("nobodys-feed", in_memory(csv(rows("U"))), "text/csv", "refused")
        requests.post(
            f"{trial.url}/api/v1/deliveries",
            data=SECRET.encode(),
            headers={"content-type": "application/jose+json", "traceparent": f"00-{PARENT}-00f067aa0ba902b7-01"},
            cert=tuple(str(trial.partners / "made-up" / f"connection.{end}") for end in ("pem", "key")),
            verify=str(trial.folder / "keys" / "ca.pem"),
            timeout=5,
        )
        until(lambda: {"process", "receive again"} <= {span.name for span in spans(collector)})
        until(lambda: any(span.links == [PARENT] for span in spans(collector)))
        until(lambda: hook.posted)
        text, metrics = scraped(trial)
        trial.kill()
        digest = str(receipt.document["request_digest"])
        log = (trial.folder / "serve.log").read_text(encoding="utf-8")
        yield Watched(trial, digest, metrics, text, spans(collector), log, ready, list(hook.posted))


def test_the_metrics_tell_of_both_processes(watched: Watched) -> None:
    told = watched.metrics
    assert of(told, "yongtong_deliveries_total", door="soap", outcome="accepted") == 3
    assert of(told, "yongtong_deliveries_total", door="soap", outcome="repeated") == 1
    assert of(told, "yongtong_deliveries_total", door="soap", outcome="refused") == 1
    assert of(told, "yongtong_deliveries_total", door="rest", outcome="refused") == 1
    assert of(told, "yongtong_refusals_total", code="feed.unknown") == 1
    assert of(told, "yongtong_act_one_seconds_count", door="soap") == 5
    # What the worker did, in its own process:
    assert of(told, "yongtong_finished_total", feed=FEED, outcome="processed") == 2
    assert of(told, "yongtong_finished_total", feed=FEED, outcome="refused") == 1
    assert of(told, "yongtong_records_total", feed=FEED, fate="rejected") == 1
    assert of(told, "yongtong_records_total", feed=FEED, fate="new") == 5
    assert of(told, "yongtong_act_two_seconds_count", feed=FEED) == 3
    assert of(told, "yongtong_act_two_seconds_bucket", feed=FEED, le="+Inf") == 3
    assert 0 < of(told, "yongtong_act_two_seconds_sum", feed=FEED) < 60
    assert of(told, "yongtong_inbox_waiting", feed=FEED) == 0
    assert of(told, "yongtong_feed_silent_seconds", feed=FEED) < 60
    assert of(told, "yongtong_log_seconds_since_checkpoint") < 60
    assert of(told, "yongtong_certificate_days_left", bureau="made-up", use="signing") > 300
    assert of(told, "yongtong_log_size") >= of(told, "yongtong_log_signed_size") > 5
    assert {value for _, value in told["yongtong_untold"]} == {0}


def test_what_the_log_says_in_numbers_outlives_the_process(watched: Watched) -> None:
    with closing(opening.open_bus(watched.trial.settings)) as bus:
        tally = Tally(bus.journal, bus.folder / "tally.json", bus.feeds, places.utc_now())
        counts = tally.counted()
        assert tally.counted() == counts
    assert counts.finished[FEED] == {"processed": 2, "held": 0, "refused": 1}
    assert counts.records[FEED]["new"] == of(watched.metrics, "yongtong_records_total", feed=FEED, fate="new")
    assert counts.took_s[FEED] == pytest.approx(of(watched.metrics, "yongtong_act_two_seconds_sum", feed=FEED))
    assert counts.entries["delivery"] == 3


def test_what_ails_it_is_told_while_it_runs(watched: Watched) -> None:
    (posted,) = watched.alarmed
    assert [(one["code"], one["what"]) for one in json.loads(posted.body)["alarms"]] == [("place.disk", "begins")]
    assert of(watched.metrics, "yongtong_alarms", code="place.disk", severity="critical") == 1


def test_no_label_comes_from_outside(watched: Watched) -> None:
    for spelt in (SECRET, MESSAGE_ID, "nobodys-feed", "not-a-table"):
        assert spelt not in watched.text
    known = {"code": {*sentences(), "other"}, "door": {"soap", "rest", "mqtt", "folder"}}
    for samples in watched.metrics.values():
        for labels, _ in samples:
            assert all(
                labels[name] in values for name, values in known.items() if name in labels and "severity" not in labels
            )


def test_names_follow_the_convention_and_stand_in_the_document_with_their_labels(watched: Watched) -> None:
    families = {}
    for family in text_string_to_metric_families(watched.text):
        labels = {name for sample in family.samples for name in sample.labels if name != "le"}
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert re.fullmatch(r"(yongtong|process)_[a-z_]+", name)
        assert family.documentation
        if name.startswith("yongtong_"):
            families[name] = (family.type, ", ".join(sorted(labels)) or "—")
    table = ROOT / "docs" / "operations.md"
    rows = re.findall(r"^\| `(yongtong_\w+)` \| (\w+) \| ([^|]+) \|", table.read_text(encoding="utf-8"), re.MULTILINE)
    stated = {name: (kind, ", ".join(sorted(re.findall(r"\w+", labels))) or "—") for name, kind, labels in rows}
    absent = {"yongtong_alarms": ("gauge", "code, severity"), "yongtong_unstamped_seconds": ("gauge", "—")}
    assert stated == families | absent


def test_every_alarm_has_its_line_for_the_operator() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert [name for name in CHECKS if f"`{name}`" not in text] == []


def test_the_dashboard_asks_for_nothing_that_is_not_there(watched: Watched) -> None:
    board = json.loads((ROOT / "deploy" / "grafana" / "yongtong.json").read_text(encoding="utf-8"))
    there = watched.metrics.keys() | {"yongtong_alarms", "yongtong_unstamped_seconds"}
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert len(panels) >= 12
    for panel in panels:
        assert re.search(r"[\u4e00-\u9fff]", panel["title"]), panel["title"]
        assert re.search(r"[A-Za-z]{3}", panel["title"]), panel["title"]
        for target in panel["targets"]:
            names = set(re.findall(r"\b(?:yongtong|process)_\w+", target["expr"]))
            assert names, target["expr"]
            assert names <= there, names - there
            labels = set(re.findall(r"by \(([^)]*)\)", target["expr"]))
            known = {label for name in names for has, _ in watched.metrics.get(name, []) for label in has} | {
                "code",
                "severity",
            }
            assert {one.strip() for text in labels for one in text.split(",")} <= known


def test_both_acts_of_a_delivery_lie_in_one_trace_that_its_receipt_names(watched: Watched) -> None:
    mine = [span for span in watched.spans if span.trace == watched.digest[:32]]
    named = {span.name: span for span in mine if span.name in ("receive", "process", "receive again")}
    root = named["receive"]
    assert (root.span, root.parent) == (watched.digest[32:48], "")
    assert named["process"].parent == named["receive again"].parent == root.span
    for act, steps in (("receive", ACT_ONE), ("process", ACT_TWO)):
        assert [span.name for span in mine if span.parent == named[act].span and span.name not in named] == steps
    assert root.attributes["yongtong.outcome"] == "accepted"
    assert named["process"].attributes == {
        "yongtong.feed": FEED,
        "yongtong.outcome": "finished",
        "yongtong.deliveries": 1,
        "yongtong.entry": root.attributes["yongtong.entry"],
    }


def test_the_senders_own_trace_is_linked_to_and_not_believed(watched: Watched) -> None:
    (linked,) = [span for span in watched.spans if span.links == [PARENT]]
    assert (linked.name, linked.parent) == ("receive", "")
    assert linked.trace != PARENT
    assert linked.attributes["yongtong.outcome"] in sentences()


def test_what_act_two_refuses_is_named_in_its_span(watched: Watched) -> None:
    outcomes = {span.attributes["yongtong.outcome"] for span in watched.spans if span.name == "process"}
    assert "finished" in outcomes
    assert outcomes & sentences().keys()


def test_nothing_that_a_bureau_wrote_is_in_spans_or_log(watched: Watched) -> None:
    for spelt in (SECRET, "张三丰", "13912345678", MESSAGE_ID):
        assert spelt not in watched.log
        assert spelt not in json.dumps(watched.spans, ensure_ascii=False)


def test_every_line_of_the_log_of_both_processes_is_one_object(watched: Watched) -> None:
    lines = [json.loads(line) for line in watched.log.splitlines()]
    assert len(lines) >= 3
    assert all({"time", "level", "logger"} <= line.keys() for line in lines)
    (refused,) = [line for line in lines if line.get("event") == "door.refused" and line["code"] == "feed.unknown"]
    assert refused["reference"].isdigit()
    assert "message" not in refused


def test_it_is_ready(watched: Watched) -> None:
    assert (watched.ready.status_code, watched.ready.text) == (200, "ready\n")


def test_without_the_variables_no_tracing_library_is_loaded() -> None:
    code = "import sys, exchange.cli.main; from exchange.watched import tracing; assert tracing() is None; "
    code += "print([name for name in sys.modules if name.startswith(('opentelemetry', 'google.protobuf'))])"
    plain = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run([sys.executable, "-c", code], env=plain, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
