"""Whether the log lies under timestamps of a third party, as the rule wants it."""

from collections.abc import Iterator
from contextlib import closing
from typing import Final

from exchange.app import opening
from exchange.doctor.check import Check, Examined, bad, good
from exchange.timestamping import State

MEANS: Final[dict[State, tuple[str, str]]] = {
    "alarm": ("已报警", "this is the alarm"),
    "pending": ("应答中已注明时间戳待补", "answers say that it is pending"),
    "refused": ("报送现已停收，查询照常", "pushes are refused, reads go on"),
}


def log_is_stamped(bus: Examined) -> Iterator[Check]:
    """The oldest entry without a timestamp is young enough. Raises Misconfigured naming the file of the roots."""
    if bus.journal is None:
        return
    coverage = opening.open_coverage(bus.settings, bus.journal)
    if coverage is None:
        yield good("timestamps.covered", "未设置时间戳服务机构。", "No timestamp authority is set.")
        return
    with closing(coverage):
        oldest, size = coverage.oldest(), coverage.stamped()
        state = coverage.rule.state(oldest, bus.now)
    if oldest is None or state == "fresh":
        yield good("timestamps.covered", "审计日志的时间戳按时取得。", "The log is stamped in time.")
        return
    zh, en = MEANS[state]
    since = f"{oldest:%Y-%m-%d %H:%M}Z"
    yield bad(
        "timestamps.covered",
        f"审计日志自 {since} 起（第 {size} 条以后）没有时间戳：{zh}。",
        f"The log has no timestamp from {since} on (entry {size}): {en}.",
        "请确认 serve 在运行，在其日志中查 timestamp.not_had 的原因；也可在 [timestamps] urls 中增加备用机构。",
        "See that serve runs, and in its log why: timestamp.not_had. Name a second authority in [timestamps] urls.",
    )
