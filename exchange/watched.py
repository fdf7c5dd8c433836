"""The two acts as whoever runs the bus sees them: how long, with what outcome, at which step.

`act_one` and `act_two` go round the stories; `step` says in a story where it is. Where no traces are asked for
(`OTEL_EXPORTER_OTLP_ENDPOINT` unset), `step` looks at one variable and returns.
"""

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from time import perf_counter, time_ns
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from exchange.act import Act
from exchange.entry import InboxRow
from exchange.figures import count_delivery
from mappings.feed import Feed
from security.errors import Refusal, Unavailable
from security.message import Delivery

if TYPE_CHECKING:
    from exchange.tracing import Tracing

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


class _Received(Protocol):
    """What act one gives, as far as a trace names it."""

    @property
    def inbox(self) -> InboxRow: ...
    @property
    def repeated(self) -> bool: ...


R = TypeVar("R", bound=_Received)
B = TypeVar("B")
_under_way: ContextVar[Act | None] = ContextVar("act under way", default=None)
_traceparent: ContextVar[str] = ContextVar("traceparent", default="")


def step(name: str) -> None:
    """Say that the story goes on to this step; the one before is over."""
    act = _under_way.get()
    if act is not None:
        act.steps.append((name, time_ns()))


def heard_traceparent(value: str) -> None:
    """The sender's own trace, as its HTTP header names it: act one links to it, and believes nothing of it."""
    _traceparent.set(value)


@functools.cache
def tracing() -> "Tracing | None":
    """Where spans go; None where none are asked for, and then nothing of the tracing library is loaded."""
    if not any(os.environ.get(name) for name in ENDPOINTS) or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    from exchange.tracing import open_tracing

    return open_tracing()


def act_one(story: Callable[[Delivery, B], Awaitable[R]]) -> Callable[[Delivery, B], Awaitable[R]]:
    """Count and time a delivery, and trace its steps."""

    @functools.wraps(story)
    async def told(delivery: Delivery, bus: B) -> R:
        began_s, outcome, received = perf_counter(), "failed", None
        with _act() as act:
            try:
                received = await story(delivery, bus)
                outcome = act.outcome = "repeated" if received.repeated else "accepted"
            except Refusal as refusal:
                outcome, act.outcome = "refused", refusal.code
                raise
            except Unavailable:
                outcome = act.outcome = "unavailable"
                raise
            except asyncio.CancelledError:
                outcome = act.outcome = "cut_off"
                raise
            finally:
                count_delivery(delivery.door, outcome, perf_counter() - began_s)
                act.ended_ns = time_ns()
                if (traces := tracing()) is not None:
                    traces.act_one(act, delivery, received.inbox if received else None, outcome, _traceparent.get())
        return received

    return told


Story = Callable[[Sequence[InboxRow], Feed, Any], None]


def act_two(story: Story) -> Story:
    """Trace the steps of a batch, in the traces of its deliveries."""

    @functools.wraps(story)
    def told(rows: Sequence[InboxRow], feed: Feed, bus: Any) -> None:
        if (traces := tracing()) is None:
            return story(rows, feed, bus)
        with _act() as act:
            act.outcome = "failed"
            try:
                story(rows, feed, bus)
                act.outcome = "finished"
            except Refusal as refusal:
                act.outcome = refusal.code
                raise
            finally:
                act.ended_ns = time_ns()
                traces.act_two(act, rows, feed.id)

    return told


@contextmanager
def _act() -> Iterator[Act]:
    """An act under way while the block runs; its steps are kept where traces are asked for."""
    act = Act(time_ns())
    token = _under_way.set(act if tracing() is not None else None)
    try:
        yield act
    finally:
        _under_way.reset(token)
